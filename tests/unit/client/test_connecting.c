/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting to a node of the test's own: where it is, what options may be, what it refuses; and what is known of it
 * then. */
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <millrace/raw.h>

#include "ipc/handshake.h"
#include "ipc/sys.h"
#include "proto/reader.h"
#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"
#include "tests/unit/client/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_no_node(void **state)
{
    (void)state;
    temp_dir_file(path, dir, "socket");
    assert_int_equal(mr_connect(path, NULL, &client), MR_NO_NODE);
    assert_non_null(client);
    expect_message(path);
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_INVALID);
    assert_null(counter);
    assert_int_equal(mr_fd(client), -1);
}

static void test_path_comes_from_the_environment(void **state)
{
    (void)state;
    unsetenv("MILLRACE_SOCKET");
    assert_int_equal(mr_connect(NULL, NULL, &client), MR_INVALID);
    expect_message("MILLRACE_SOCKET");
    mr_close(client);
    start(NULL);
    setenv("MILLRACE_SOCKET", path, 1);
    assert_int_equal(mr_connect(NULL, NULL, &client), MR_OK);
    unsetenv("MILLRACE_SOCKET");
}

static void test_long_path(void **state)
{
    (void)state;
    char longer[200];
    memset(longer, 'x', sizeof(longer));
    longer[108] = '\0';
    assert_int_equal(mr_connect(longer, NULL, &client), MR_INVALID);
    expect_message("107");
}

static void test_options_out_of_range(void **state)
{
    (void)state;
    struct {
        struct mr_options options;
        const char *part;
    } wrong[] = {
        {{.size = 0}, "options.size"},
        {{.size = sizeof(struct mr_options), .name_space = "\xff"}, "name_space"},
        {{.size = sizeof(struct mr_options), .session_timeout_ns = -1}, "session_timeout_ns"},
        {{.size = sizeof(struct mr_options), .session_timeout_ns = (int64_t)MR_SESSION_TIMEOUT_MAX + 1}, "24 h"},
        {{.size = sizeof(struct mr_options), .call_timeout_ns = -1}, "call_timeout_ns"},
        {{.size = sizeof(struct mr_options), .ring_bytes = 12345}, "ring_bytes"},
    };
    start(NULL);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(mr_connect(path, &wrong[i].options, &client), MR_INVALID);
        expect_message(wrong[i].part);
        mr_close(client);
    }
    /* A caller of a later version may not set what this one does not know. */
    struct {
        struct mr_options known;
        int64_t later;
    } longer = {.known = {.size = sizeof(longer)}};
    assert_int_equal(mr_connect(path, &longer.known, &client), MR_OK);
    mr_close(client);
    longer.later = 1;
    assert_int_equal(mr_connect(path, &longer.known, &client), MR_NOT_SUPPORTED);
}

static void test_a_refusal_is_told(void **state)
{
    (void)state;
    start(&(struct fake_options){.refuse_hello = true});
    assert_int_equal(mr_connect(path, NULL, &client), MR_UNAVAILABLE);
    expect_message("no more");
}

/* Nothing else that a node of another hand-shake says can be relied on. */
static void test_another_version_of_the_hand_shake(void **state)
{
    (void)state;
    char text[64];

    start(&(struct fake_options){.version = HANDSHAKE_VERSION + 1});
    assert_int_equal(mr_connect(path, NULL, &client), MR_NOT_SUPPORTED);
    snprintf(text, sizeof(text), "speaks version %d, this library version %d", HANDSHAKE_VERSION + 1,
             HANDSHAKE_VERSION);
    expect_message(text);
}

static void test_a_refused_channel_is_told(void **state)
{
    (void)state;
    start(&(struct fake_options){.refuse_channels = true});
    connect_to_it(NULL);
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_UNAVAILABLE);
    expect_message("too many channels");
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_UNAVAILABLE);
}

/* The clock by which the library looks at its socket, every 10 ms. */
static uint64_t coarse_ms(void)
{
    return sys_clock_ns(CLOCK_MONOTONIC_COARSE) / MR_MILLISECOND;
}

/* Waits, the first time, until what the node has said has been looked at, or will be in the next turn. Has another
 * callback run in that one, and makes a call that fails. */
static void fail_again(mr_client *of, const struct mr_result *result)
{
    static bool waited;
    uint64_t request, since = coarse_ms();

    (void)result;
    if (!waited) {
        assert_true(wait_for(strstr(mr_message(of), "too many") != NULL || wait_fd(mr_fd(of), POLLIN, 0)));
        assert_true(wait_for(coarse_ms() > since + 10));
    }
    waited = true;
    if (mr_counter_get_start(counter, (struct mr_then){fail_again, NULL}, &request) == MR_OK)
        (void)mr_cancel(of, request);
    (void)mr_cancel(of, 0);
}

/* What a callback asks for meanwhile is not what the call that waits says. */
static void test_a_refusal_is_told_whatever_callbacks_do(void **state)
{
    (void)state;
    char name[16] = "hits";
    uint32_t first, other;
    uint64_t request;
    mr_counter *refused;

    start(&(struct fake_options){.partitions = 2});
    connect_to_it(NULL);
    open_counter();
    assert_int_equal(mr_partition_of(client, NULL, name, &first), MR_OK);
    for (unsigned n = 0; mr_partition_of(client, NULL, name, &other) == MR_OK && other == first; n++)
        snprintf(name, sizeof(name), "name %u", n);
    fake_node_change(node, &(struct fake_options){.partitions = 2, .refuse_channels = true});
    assert_int_equal(mr_counter_get_start(counter, (struct mr_then){fail_again, NULL}, &request), MR_OK);
    assert_int_equal(mr_cancel(client, request), MR_OK);
    assert_int_equal(mr_counter_open(client, name, &refused), MR_UNAVAILABLE);
    expect_message("too many channels");
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(mr_status_name(MR_OK), "OK");
    assert_string_equal(mr_status_name(MR_SESSION_LOST), "SESSION_LOST");
    assert_string_equal(mr_status_name((enum mr_status)77), "UNKNOWN");
    assert_non_null(mr_version());
    assert_non_null(mr_message(NULL));
    mr_close(NULL);
}

static void test_partitions(void **state)
{
    (void)state;
    uint32_t partition;

    start(&(struct fake_options){.partitions = 7});
    connect_to_it(NULL);
    assert_int_equal(mr_partitions(client), 7);
    assert_int_equal(mr_max_payload(client), 16384);
    /* XXH3-64 of the 12 bytes "default\0hits". */
    assert_int_equal(mr_partition_of(client, NULL, "hits", &partition), MR_OK);
    assert_int_equal(partition, 1 + UINT64_C(0xd3c747f4da058806) % 7);
    assert_int_equal(mr_partition_of(client, "default", "hits", &partition), MR_OK);
    assert_int_equal(partition, 1 + UINT64_C(0xd3c747f4da058806) % 7);
}

static void test_node_status(void **state)
{
    (void)state;
    struct mr_bytes encoded;

    start(NULL);
    connect_to_it(NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mr_node_status(client, &encoded), MR_OK);
        struct field_reader reader = field_reader((struct slice){encoded.data, encoded.size});
        assert_true(field_next(&reader));
        assert_int_equal(reader.tag, FIELD(3, WIRE_VARINT));
        assert_int_equal(reader.value, 4711);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_node),
        TEST(test_path_comes_from_the_environment),
        TEST(test_long_path),
        TEST(test_options_out_of_range),
        TEST(test_a_refusal_is_told),
        TEST(test_another_version_of_the_hand_shake),
        TEST(test_a_refused_channel_is_told),
        TEST(test_a_refusal_is_told_whatever_callbacks_do),
        cmocka_unit_test(test_names),
        TEST(test_partitions),
        TEST(test_node_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
