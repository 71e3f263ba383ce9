/* SPDX-License-Identifier: Apache-2.0 */
/* One's own bytes through the client library, against a node of the test's own: reserving, committing, and what comes
 * back. */
#include <millrace/map.h>
#include <millrace/raw.h>

#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static char *dir;
static struct fake_node *node;
static mr_client *client;

static int set_up(void **state)
{
    static char path[TEMP_PATH_MAX];

    (void)state;
    dir = temp_dir_make();
    node = fake_node_start(temp_dir_file(path, dir, "socket"), NULL);
    return mr_connect(path, NULL, &client) == MR_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    mr_close(client);
    fake_node_stop(node);
    temp_dir_remove(dir);
    return 0;
}

static void test_raw_requests(void **state)
{
    (void)state;
    struct partition_command_input input = {.partition_id = 1, .has_command = true};
    struct mr_result result;
    uint64_t request;
    void *body;

    input.command.kind = COMMAND_OPEN_SESSION;
    input.command.timeout = (struct duration){.seconds = 5, .present = true};
    size_t size = partition_command_input_size(&input, NULL, 0);
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, 1000, &body), MR_OK);
    assert_int_equal((uintptr_t)body % 8, 0);
    assert_int_equal(mr_run(client, 0, NULL), MR_INVALID); /* not before the commit */
    write_partition_command_input(body, &input, NULL, 0);
    assert_int_equal(mr_commit(client, size, (struct mr_then){NULL, NULL}, &request), MR_OK);
    while (mr_take(client, &result) == MR_AGAIN)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_int_equal(result.status, MR_OK);
    assert_int_equal(result.request, request);
    struct command_output output;
    struct slice part;
    assert_int_equal(read_partition_command_output(result.as.raw.data, result.as.raw.size, &output, &part), READ_OK);
    assert_int_equal(output.kind, COMMAND_OPEN_SESSION);
    assert_int_equal(output.id, 1);

    /* The node's own refusal, and an empty body. */
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 7, 0, &body), MR_OK);
    assert_int_equal(mr_commit(client, 0, (struct mr_then){NULL, NULL}, &request), MR_OK);
    while (mr_take(client, &result) == MR_AGAIN)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_int_equal(result.status, MR_INVALID);
    assert_int_equal(result.message.size, strlen("the bytes do not decode"));
    assert_memory_equal(result.message.data, "the bytes do not decode", result.message.size);
    assert_int_equal(result.as.raw.size, 0);
    assert_int_equal(fake_counts(node).time_limit, 7);
}

static void test_raw_misuse(void **state)
{
    (void)state;
    void *body;
    uint64_t request;

    assert_int_equal(mr_commit(client, 0, (struct mr_then){NULL, NULL}, &request), MR_INVALID);
    assert_int_equal(mr_reserve(client, 0, MR_COMMAND, 0, 10, &body), MR_INVALID);
    assert_int_equal(mr_reserve(client, 2, MR_COMMAND, 0, 10, &body), MR_INVALID);
    assert_non_null(strstr(mr_message(client), "partition 2"));
    assert_int_equal(mr_reserve(client, 1, (enum mr_kind)3, 0, 10, &body), MR_INVALID);
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, 16385, &body), MR_INVALID);
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, 10, &body), MR_OK);
    assert_int_equal(mr_commit(client, 11, (struct mr_then){NULL, NULL}, &request), MR_INVALID);
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, 10, &body), MR_OK);
    mr_discard(client);
    assert_int_equal(mr_run(client, 0, NULL), MR_AGAIN);
}

/* A request takes at most a quarter of its ring, and a handle may have asked for rings smaller than the node's. */
static void test_the_largest_body(void **state)
{
    (void)state;
    struct mr_options options = {.size = sizeof(options), .ring_bytes = 16384};
    char path[TEMP_PATH_MAX];
    mr_client *small;
    void *body;

    assert_int_equal(mr_connect(temp_dir_file(path, dir, "socket"), &options, &small), MR_OK);
    assert_int_equal(mr_max_payload(small), 4096);
    assert_int_equal(mr_reserve(small, 1, MR_COMMAND, 0, mr_max_payload(small), &body), MR_OK);
    mr_discard(small);
    assert_int_equal(mr_reserve(small, 1, MR_COMMAND, 0, mr_max_payload(small) + 1, &body), MR_INVALID);
    mr_close(small);
}

/* In a callback, with what a program might write there first. */
static void reserve(mr_client *of, const struct mr_result *result)
{
    void **body = result->arg;

    if (result->status == MR_CANCELED) /* tear_down() */
        return;
    assert_int_equal(mr_reserve(of, 1, MR_COMMAND, 0, 100, body), MR_OK);
    memset(*body, 0xee, 100);
}

/* The library itself may send something behind a callback, in the same place. */
static void test_a_callback_s_reservation_ends_with_it(void **state)
{
    (void)state;
    void *body = NULL;
    void *reserved = NULL;
    uint64_t request;

    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, 0, &body), MR_OK);
    assert_int_equal(mr_commit(client, 0, (struct mr_then){reserve, &reserved}, NULL), MR_OK);
    assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_non_null(reserved);
    assert_int_equal(mr_commit(client, 100, (struct mr_then){NULL, NULL}, &request), MR_INVALID);
    assert_int_equal(mr_run(client, 0, NULL), MR_AGAIN);
}

/* Like any other call before the commit, it does nothing: what it would tell the node would stand where the body does.
 */
static void test_a_stream_is_not_closed_between(void **state)
{
    (void)state;
    mr_map *map;
    mr_stream *stream;
    mr_stream *other;
    struct mr_event event;
    void *body;

    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    fake_node_hold(node);
    assert_int_equal(mr_map_events(map, mr_text("k"), false, &stream), MR_OK);
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, 100, &body), MR_OK);
    mr_stream_close(stream);
    mr_discard(client);
    assert_int_equal(mr_map_events(map, mr_text("k"), false, &other), MR_OK);
    assert_ptr_not_equal(other, stream); /* its memory has not been freed */
    assert_int_equal(mr_stream_next(stream, MR_NO_WAIT, &event), MR_AGAIN);
    mr_stream_close(stream);
    fake_node_release(node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_raw_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_raw_misuse, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_largest_body, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_callback_s_reservation_ends_with_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stream_is_not_closed_between, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
