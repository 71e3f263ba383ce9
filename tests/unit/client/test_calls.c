/* SPDX-License-Identifier: Apache-2.0 */
/* The client library's calls, against a node of the test's own: what comes back, what is refused, and what the node is
 * told. */
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include "tests/support/fake_node.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"
#include "tests/unit/client/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* What callbacks have seen. */
struct seen {
    unsigned count, failed;
    int64_t sum;
    enum mr_status last;
};

static void add_up(mr_client *of, const struct mr_result *result)
{
    struct seen *seen = result->arg;

    assert_ptr_equal(of, client);
    assert_true(result->last);
    seen->count++;
    seen->last = result->status;
    seen->failed += result->status != MR_OK;
    seen->sum += result->status == MR_OK ? result->as.number : 0;
}

/* Of a session that is not renewed while the test runs, however long it takes: a renewal has an index, too. */
static const struct mr_options no_renewals = {.size = sizeof(no_renewals),
                                              .session_timeout_ns = (int64_t)MR_SESSION_TIMEOUT_MAX};

/* ---- Calls ---- */

static void test_blocking_calls(void **state)
{
    (void)state;
    int64_t value = 0;

    start(NULL);
    connect_to_it(&no_renewals);
    open_counter();
    for (int i = 1; i <= 100; i++) {
        assert_int_equal(mr_counter_increment(counter, 2, &value), MR_OK);
        assert_int_equal(value, 2 * i);
    }
    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    assert_int_equal(value, 200);
    assert_int_equal(mr_counter_increment(counter, -300, NULL), MR_OK);
    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    assert_int_equal(value, -100);
    struct fake_counts counts = fake_counts(node);
    assert_int_equal(counts.applied, 101);
    assert_int_equal(counts.commands, 101);
    assert_int_equal(counts.max_received_index, 103); /* the session, the service, 101 increments */
    assert_true(counts.time_limit > UINT64_C(1) << 50);
}

static void test_callbacks_run_in_mr_run_only(void **state)
{
    (void)state;
    struct seen seen = {0};
    unsigned completed;
    unsigned total = 0;

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    for (int i = 0; i < 100; i++)
        assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){add_up, &seen}, NULL), MR_OK);
    mr_flush(client);
    assert_true(wait_for(fake_counts(node).applied == 100));
    assert_int_equal(seen.count, 0);
    while (total < 100) {
        assert_int_equal(mr_run(client, MR_FOR_EVER, &completed), MR_OK);
        total += completed;
        assert_int_equal(total, seen.count);
    }
    assert_int_equal(seen.sum, 5050);
    assert_int_equal(mr_run(client, MR_FOR_EVER, &completed), MR_AGAIN); /* nothing is open: it does not wait */
    assert_int_equal(completed, 0);
}

static void test_nothing_is_sent_before_it_is_published(void **state)
{
    (void)state;
    struct fake_request request;
    struct seen seen = {0};

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    fake_node_hold(node);
    struct fake_channel *channel = fake_channel(node, 1);
    assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){add_up, &seen}, NULL), MR_OK);
    assert_false(fake_next(channel, &request));
    mr_flush(client);
    assert_true(fake_next(channel, &request));
    assert_int_equal(request.head.kind, FRAME_COMMAND);
    fake_node_release(node);
    assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
}

static void test_take(void **state)
{
    (void)state;
    struct mr_result result;
    uint64_t requests[50];

    start(NULL);
    connect_to_it(&no_renewals);
    open_counter();
    assert_int_equal(mr_take(client, &result), MR_AGAIN);
    for (int i = 0; i < 50; i++)
        assert_int_equal(
            mr_counter_increment_start(counter, 1, (struct mr_then){NULL, (void *)(intptr_t)i}, &requests[i]), MR_OK);
    for (int i = 0; i < 50; i++) {
        while (mr_take(client, &result) == MR_AGAIN)
            assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
        assert_int_equal(result.status, MR_OK);
        assert_int_equal(result.request, requests[i]);
        assert_int_equal((intptr_t)result.arg, i);
        assert_int_equal(result.as.number, i + 1);
        assert_int_equal(result.output, 1);
        assert_int_equal(result.index, i + 3);
        assert_true(result.last);
    }
    assert_int_equal(mr_take(client, &result), MR_AGAIN);
}

/* Sends what it is called with again, once. */
static void start_another(mr_client *of, const struct mr_result *result)
{
    struct seen *seen = result->arg;
    int64_t value;

    assert_int_equal(result->status, MR_OK);
    seen->count++;
    if (seen->count < 10)
        assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){start_another, seen}, NULL), MR_OK);
    assert_int_equal(mr_counter_get(counter, &value), MR_INVALID);
    assert_int_equal(mr_run(of, 0, NULL), MR_INVALID);
    assert_int_equal(mr_counter_close(counter), MR_INVALID);
    mr_close(of); /* ignored */
}

static void test_a_callback_may_start_and_nothing_else(void **state)
{
    (void)state;
    struct seen seen = {0};

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){start_another, &seen}, NULL), MR_OK);
    while (seen.count < 10)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_int_equal(fake_counts(node).applied, 10);
}

static void test_callbacks_run_in_calls_that_wait(void **state)
{
    (void)state;
    struct seen seen = {0};
    int64_t value;

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    for (int i = 0; i < 10; i++)
        assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){add_up, &seen}, NULL), MR_OK);
    assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    assert_int_equal(value, 11);
    assert_int_equal(seen.count, 10);
}

static void test_cancel(void **state)
{
    (void)state;
    struct seen seen = {0};
    uint64_t request;
    unsigned completed;

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    fake_node_hold(node);
    assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){add_up, &seen}, &request), MR_OK);
    assert_int_equal(mr_cancel(client, request), MR_OK);
    assert_int_equal(seen.count, 0);
    assert_int_equal(mr_cancel(client, request), MR_NOT_FOUND);
    assert_int_equal(mr_run(client, 0, &completed), MR_OK);
    assert_int_equal(completed, 1);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.last, MR_CANCELED);
    fake_node_release(node);
    /* It was applied all the same; its answer is dropped. */
    int64_t value;
    assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    assert_int_equal(value, 2);
    assert_int_equal(seen.count, 1);
    assert_int_equal(mr_cancel(client, request), MR_NOT_FOUND);
    assert_int_equal(mr_cancel(client, 0), MR_NOT_FOUND);
    assert_int_equal(mr_cancel(client, UINT64_MAX), MR_NOT_FOUND);
}

/* Whether the session was closed, for which mr_close() waits no longer than MR_CLOSE_WAIT. */
static bool close_cancels(void)
{
    struct seen seen = {0};
    uint64_t closed = fake_counts(node).closed;

    connect_to_it(NULL);
    open_counter();
    for (int i = 0; i < 10; i++)
        assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){add_up, &seen}, NULL), MR_OK);
    uint64_t before = wait_now_ms();
    mr_close(client);
    client = NULL;
    assert_int_equal(seen.count, 10);
    assert_int_equal(seen.last, MR_CANCELED);
    if (fake_counts(node).closed == closed + 1)
        return true;
    assert_true(wait_now_ms() - before >= MR_CLOSE_WAIT / MR_MILLISECOND);
    return false;
}

static void test_close_cancels_what_is_open(void **state)
{
    (void)state;
    start(NULL);
    assert_true(wait_for(close_cancels()));
}

static void test_a_full_ring_is_again(void **state)
{
    (void)state;
    struct seen seen = {0};
    unsigned started = 0;
    enum mr_status status;

    start(&(struct fake_options){.ring_bytes = 16384});
    connect_to_it(NULL);
    open_counter();
    fake_node_hold(node);
    while ((status = mr_counter_increment_start(counter, 1, (struct mr_then){add_up, &seen}, NULL)) == MR_OK)
        started++;
    assert_int_equal(status, MR_AGAIN);
    assert_in_range(started, 200, 400);
    assert_int_equal(mr_run(client, 0, NULL), MR_AGAIN);
    fake_node_release(node);
    /* Now everything goes through, and a call that waits finds its place behind it. */
    int64_t value;
    assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    assert_int_equal(value, started + 1);
    assert_int_equal(seen.count, started);
    /* Numbers were used for nothing that was refused. */
    assert_int_equal(fake_counts(node).applied, started + 1);
}

static void test_too_large(void **state)
{
    (void)state;
    mr_map *map;
    char *value = calloc(1, 20000);

    start(NULL);
    connect_to_it(NULL);
    assert_int_equal(mr_map_open(client, "words", &map), MR_OK);
    struct mr_bytes bytes = {value, 20000};
    assert_int_equal(mr_map_put(map, mr_text("key"), bytes, NULL, NULL), MR_INVALID);
    expect_message("16384");
    free(value);
}

/* ---- Services and sessions ---- */

static void test_services_are_shared_and_closed_with_the_last_handle(void **state)
{
    (void)state;
    mr_counter *again;

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    assert_int_equal(mr_counter_open(client, "hits", &again), MR_OK);
    assert_ptr_not_equal(again, counter);
    assert_int_equal(mr_counter_close(counter), MR_OK);
    assert_int_equal(fake_counts(node).services_closed, 0);
    assert_int_equal(mr_counter_increment(again, 1, NULL), MR_OK);
    assert_int_equal(mr_counter_close(again), MR_OK);
    assert_int_equal(fake_counts(node).services_closed, 1);
    assert_int_equal(mr_counter_close(NULL), MR_OK);
    assert_int_equal(mr_map_close(NULL), MR_OK);
}

static struct seen close_with_ten_open(mr_done_fn *done)
{
    struct seen seen = {0};

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    for (int i = 0; i < 10; i++)
        assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){done, &seen}, NULL), MR_OK);
    assert_int_equal(mr_counter_close(counter), MR_OK);
    assert_int_equal(seen.count, 10);
    assert_int_equal(seen.failed, 0);
    return seen;
}

static void test_closing_waits_for_what_is_open(void **state)
{
    (void)state;
    (void)close_with_ten_open(add_up);
}

/* As a program that always has one open does it. */
static void go_on(mr_client *of, const struct mr_result *result)
{
    struct seen *seen = result->arg;

    (void)of;
    seen->count++;
    seen->failed += result->status != MR_OK;
    seen->last = mr_counter_increment_start(counter, 1, (struct mr_then){go_on, seen}, NULL);
}

static void test_nothing_is_started_on_what_is_being_closed(void **state)
{
    (void)state;
    struct seen seen = close_with_ten_open(go_on);
    assert_int_equal(seen.last, MR_INVALID);
}

static void test_wrong_names(void **state)
{
    (void)state;
    start(NULL);
    connect_to_it(NULL);
    assert_int_equal(mr_counter_open(client, "", &counter), MR_INVALID);
    assert_int_equal(mr_counter_open(client, NULL, &counter), MR_INVALID);
    assert_int_equal(mr_counter_open(client, "\xff", &counter), MR_INVALID);
    expect_message("UTF-8");
    assert_int_equal(mr_counter_open(client, "other type", &counter), MR_FORBIDDEN);
    expect_message("another type");
    open_counter();
    assert_int_equal(fake_counts(node).opened, 1); /* the refusal was not taken for a lost session */
}

static void test_arguments(void **state)
{
    (void)state;
    mr_map *map;
    uint64_t request;

    start(NULL);
    connect_to_it(NULL);
    assert_int_equal(mr_map_open(client, "words", &map), MR_OK);
    struct mr_put put = {.ttl_ns = -1};
    assert_int_equal(mr_map_put(map, mr_text("k"), mr_text("v"), &put, NULL), MR_INVALID);
    put = (struct mr_put){.if_index = 1};
    assert_int_equal(mr_map_insert(map, mr_text("k"), mr_text("v"), &put, NULL), MR_INVALID);
    assert_int_equal(mr_counter_increment(NULL, 1, NULL), MR_INVALID);
    assert_int_equal(mr_map_get(NULL, mr_text("k"), NULL), MR_INVALID);
    assert_int_equal(mr_run(NULL, 0, NULL), MR_INVALID);
    assert_int_equal(mr_take(client, NULL), MR_INVALID);
    assert_int_equal(mr_counter_open(client, "hits", NULL), MR_INVALID);
    expect_message("out may not be NULL");
    assert_int_equal(mr_cancel(client, 0), MR_NOT_FOUND);
    assert_int_equal(mr_map_events(map, mr_text("k"), false, NULL), MR_INVALID);
    expect_message("out may not be NULL");
    assert_int_equal(mr_cancel(client, 0), MR_NOT_FOUND);
    assert_int_equal(mr_map_events_resume(map, 1, NULL), MR_INVALID);
    expect_message("out may not be NULL");
    assert_int_equal(mr_counter_increment_start(NULL, 1, (struct mr_then){add_up, NULL}, &request), MR_INVALID);
}

static void test_keep_alives_let_the_node_forget(void **state)
{
    (void)state;
    struct seen seen = {0};
    unsigned total = 3 * MR_KEEP_ALIVE_ANSWERS;
    unsigned started = 0;

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    while (seen.count < total) {
        while (started < total &&
               mr_counter_increment_start(counter, 1, (struct mr_then){add_up, &seen}, NULL) == MR_OK)
            started++;
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    }
    /* The last of them may still be on its way. */
    assert_true(wait_for((mr_run(client, 0, NULL), fake_counts(node).last_told >= 2 * MR_KEEP_ALIVE_ANSWERS)));
    struct fake_counts counts = fake_counts(node);
    assert_in_range(counts.keep_alives, 2, 3);
    assert_true(counts.last_told <= total);
    assert_int_equal(seen.failed, 0);
}

static void test_a_lost_session(void **state)
{
    (void)state;
    mr_counter *again;
    struct seen seen = {0};

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    assert_int_equal(mr_counter_increment(counter, 5, NULL), MR_OK);
    fake_node_forget_sessions(node);
    assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){add_up, &seen}, NULL), MR_OK);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_SESSION_LOST);
    expect_message("no such session");
    assert_int_equal(seen.last, MR_SESSION_LOST);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_SESSION_LOST);
    expect_message("hits");
    /* Opening anew opens a new session; the old handle stays dead. */
    int64_t value;
    assert_int_equal(mr_counter_open(client, "hits", &again), MR_OK);
    assert_int_equal(mr_counter_increment(again, 1, &value), MR_OK);
    assert_int_equal(value, 6);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_SESSION_LOST);
    assert_int_equal(mr_counter_close(counter), MR_OK);
    assert_int_equal(mr_counter_increment(again, 1, &value), MR_OK);
    assert_int_equal(fake_counts(node).opened, 2);
}

static void test_a_session_lost_unnoticed_is_replaced(void **state)
{
    (void)state;
    mr_counter *second;

    start(NULL);
    connect_to_it(NULL);
    open_counter();
    fake_node_forget_sessions(node);
    assert_int_equal(mr_counter_open(client, "more", &second), MR_OK);
    assert_int_equal(mr_counter_increment(second, 1, NULL), MR_OK);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_SESSION_LOST);
}

static int in_a_child(void *argument)
{
    uint64_t request;
    struct mr_result result;

    (void)argument;
    if (mr_counter_increment(counter, 1, NULL) != MR_INVALID || strstr(mr_message(client), "fork") == NULL)
        return 1;
    if (mr_counter_increment_start(counter, 1, (struct mr_then){add_up, NULL}, &request) != MR_INVALID)
        return 2;
    if (mr_run(client, 0, NULL) != MR_INVALID || mr_take(client, &result) != MR_INVALID ||
        mr_arm(client) != MR_INVALID || mr_cancel(client, 1) != MR_INVALID)
        return 3;
    mr_close(client);
    return 0;
}

static void test_a_child_may_not_call(void **state)
{
    (void)state;
    start(NULL);
    connect_to_it(NULL);
    open_counter();
    assert_int_equal(fork_wait(fork_run(in_a_child, NULL), WAIT_MS), 0);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
    assert_int_equal(fake_counts(node).closed, 0);
}

static void test_nothing_is_left_behind(void **state)
{
    (void)state;
    start(&(struct fake_options){.partitions = 3});
    connect_to_it(NULL);
    mr_close(client);
    client = NULL;
    assert_true(wait_for(fake_counts(node).connections == 1 && fake_counts(node).connected == 0));
    unsigned before = open_descriptors();
    for (int i = 0; i < 5; i++) {
        connect_to_it(NULL);
        for (int k = 0; k < 5; k++) {
            char name[16];
            snprintf(name, sizeof(name), "n%d", k);
            assert_int_equal(mr_counter_open(client, name, &counter), MR_OK);
            assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
        }
        mr_close(client);
        client = NULL;
    }
    /* The node's ends are in this process too, and go when it notices. */
    assert_true(wait_for(open_descriptors() == before));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_blocking_calls),
        TEST(test_callbacks_run_in_mr_run_only),
        TEST(test_nothing_is_sent_before_it_is_published),
        TEST(test_take),
        TEST(test_a_callback_may_start_and_nothing_else),
        TEST(test_callbacks_run_in_calls_that_wait),
        TEST(test_cancel),
        TEST(test_close_cancels_what_is_open),
        TEST(test_a_full_ring_is_again),
        TEST(test_too_large),
        TEST(test_services_are_shared_and_closed_with_the_last_handle),
        TEST(test_closing_waits_for_what_is_open),
        TEST(test_nothing_is_started_on_what_is_being_closed),
        TEST(test_wrong_names),
        TEST(test_arguments),
        TEST(test_keep_alives_let_the_node_forget),
        TEST(test_a_lost_session),
        TEST(test_a_session_lost_unnoticed_is_replaced),
        TEST(test_a_child_may_not_call),
        TEST(test_nothing_is_left_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
