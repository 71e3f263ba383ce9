/* SPDX-License-Identifier: Apache-2.0 */
/* What the client library sends again when the node goes away and comes back: at every point of the hand-shake and of
 * the conversation, what, how, and in which order. */
#include "tests/unit/client/node_return.h"

/* ---- At every point ---- */

/* One conversation with everything in it; the value is right after each step. */
static void converse(int64_t *value)
{
    mr_counter *first, *second;
    struct mr_bytes status;
    int64_t got;

    assert_int_equal(mr_counter_open(client, "first", &first), MR_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mr_counter_increment(first, 1, &got), MR_OK);
        assert_int_equal(got, ++*value);
        assert_int_equal(mr_counter_get(first, &got), MR_OK);
        assert_int_equal(got, *value);
    }
    assert_int_equal(mr_counter_open(client, "second", &second), MR_OK);
    assert_int_equal(mr_node_status(client, &status), MR_OK);
    assert_true(status.size > 0);
    assert_int_equal(mr_counter_increment(second, 1, &got), MR_OK);
    assert_int_equal(got, ++*value);
    assert_int_equal(mr_counter_close(second), MR_OK);
    assert_int_equal(mr_counter_close(first), MR_OK);
}

static void test_it_dies_at_every_point(void **state)
{
    (void)state;
    static const unsigned points[FAKE_DEATHS] = {[FAKE_AT_REQUEST] = 11, [FAKE_BEHIND_REQUEST] = 11};
    int64_t value = 0;

    start(&(struct fake_options){.partitions = 1}, (struct mr_options){.call_timeout_ns = 0});
    mr_close(client);
    for (enum fake_death where = FAKE_AT_HELLO; where < FAKE_DEATHS; where++)
        for (unsigned after = 0; after < (points[where] > 0 ? points[where] : 1); after++)
            for (unsigned times = 1; times <= 3; times += 2) {
                bool first = where == FAKE_AT_HELLO || where == FAKE_BEHIND_WELCOME;
                uint64_t deaths = fake_counts(node).deaths;
                assert_int_equal(mr_connect(path, NULL, &client), MR_OK);
                if (first) { /* of the second hand-shake: the first one's end is mr_connect()'s */
                    fake_node_vanish(node);
                    fake_node_return(node);
                }
                fake_node_die(node, where, after, times);
                converse(&value);
                assert_int_equal(fake_counts(node).deaths, deaths + times);
                mr_close(client);
                client = NULL;
            }
}

static void test_it_dies_under_many(void **state)
{
    (void)state;
    int started = 0;

    /* Rings in which not all of it has room, so that it dies with some of them sent again, and some not yet. */
    start(&(struct fake_options){.ring_bytes = 16384}, (struct mr_options){.call_timeout_ns = 0});
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    for (unsigned spare = 1; spare < 400; spare += 37) {
        uint64_t deaths = fake_counts(node).deaths;
        seen_count = 0;
        fake_node_die(node, spare % 2 == 0 ? FAKE_AT_REQUEST : FAKE_BEHIND_REQUEST, spare, 1);
        for (int i = 0; i < 500;) {
            enum mr_status status = mr_counter_increment_start(counter, 1, noting(started), NULL);
            assert_true(status == MR_OK || status == MR_AGAIN);
            if (status == MR_AGAIN) {
                assert_int_equal(mr_run(client, SECONDS(60), NULL), MR_OK);
                continue;
            }
            started++;
            i++;
            if (i == 250)
                mr_flush(client);
        }
        while (seen_count < 500)
            assert_int_equal(mr_run(client, SECONDS(60), NULL), MR_OK);
        for (unsigned i = 0; i < 500; i++) {
            assert_int_equal(seen[i].status, MR_OK);
            assert_int_equal(seen[i].as.number, started - 500 + (int)i + 1); /* once each, and in order */
            assert_int_equal(number_of(&seen[i]), started - 500 + (int)i);
        }
        assert_int_equal(fake_counts(node).deaths, deaths + 1);
    }
}

static void test_system_calls_fail_while_it_comes_back(void **state)
{
    (void)state;
    static const enum sys_call kinds[] = {SYS_SOCKET, SYS_CONNECT, SYS_EPOLL_CTL, SYS_MADVISE};
    int64_t value = 0;
    int64_t got;

    start(&(struct fake_options){.partitions = 1}, (struct mr_options){.call_timeout_ns = 0});
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++)
        for (unsigned nth = 1; nth <= 4; nth++) {
            sys_fault_arm(kinds[kind], nth, ENOMEM, false);
            fake_node_die(node, FAKE_AT_REQUEST, 0, 1);
            assert_int_equal(mr_counter_increment(counter, 1, &got), MR_OK);
            assert_int_equal(got, ++value);
            sys_fault_clear();
        }
}

/* ---- What is sent again ---- */

static void test_commands_are_sent_again_whole_and_in_order(void **state)
{
    (void)state;
    start_held((struct mr_options){.call_timeout_ns = 0});
    for (int i = 1; i <= 6; i++)
        increment(i);
    struct fake_request request = next();
    fake_answer(node, channel, &request); /* answered, and met before the end is */
    fake_publish(node, channel);
    request = next();
    fake_apply(node, channel, &request); /* applied, and the answer is lost */
    go_away();
    assert_int_equal(seen_count, 1);
    come_back();
    for (uint64_t number = 2; number <= 6; number++)
        expect(number, true);
    expect_seen(6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(number_of(&seen[i]), i + 1);
        assert_int_equal(seen[i].as.number, i + 1);
    }
    expect_no_request();
    assert_int_equal(fake_counts(node).applied, 6);
    assert_int_equal(fake_counts(node).opened, 1);
}

static void test_what_the_ring_has_lost_is_asked_for_by_number(void **state)
{
    (void)state;
    uint64_t position, bytes = 0;

    start_held((struct mr_options){.call_timeout_ns = 0});
    increment(1);
    struct fake_request request = next();
    position = request.position;
    fake_apply(node, channel, &request);
    for (uint64_t number = 2; bytes <= position + 32768; number++) { /* until it is written over */
        seen_count = 0;
        increment(2);
        request = next();
        bytes = request.position + request_frame_bytes(request.head.size);
        fake_answer(node, channel, &request);
        run();
        assert_int_equal(seen_count, 1);
    }
    seen_count = 0;
    go_away();
    come_back();
    expect(1, false);
    expect_seen(1);
    assert_int_equal(seen[0].as.number, 1);
    expect_no_request();
}

static void test_nobody_waits_for_it_any_more(void **state)
{
    (void)state;
    uint64_t request_id;

    start_held((struct mr_options){.call_timeout_ns = 0});
    increment(1);
    assert_int_equal(mr_counter_increment_start(counter, 1, noting(2), &request_id), MR_OK);
    assert_int_equal(mr_cancel(client, request_id), MR_OK); /* before its end */
    increment(3);
    assert_int_equal(mr_counter_increment_start(counter, 1, noting(4), &request_id), MR_OK);
    go_away();
    assert_int_equal(mr_cancel(client, request_id), MR_OK); /* while it is away */
    run();
    assert_int_equal(seen_count, 2);
    assert_int_equal(seen[0].status, MR_CANCELED);
    assert_int_equal(seen[1].status, MR_CANCELED);
    assert_int_equal(mr_cancel(client, request_id), MR_NOT_FOUND);
    come_back();
    expect(1, true);
    expect(3, true);
    expect_no_request();
    run();
    assert_int_equal(seen_count, 4);
    /* Their numbers do not hold up what the session may forget. */
    fake_node_release(node);
    for (unsigned i = 0; i < 2 * MR_KEEP_ALIVE_ANSWERS; i++)
        while (mr_counter_increment_start(counter, 1, (struct mr_then){ignore, NULL}, NULL) == MR_AGAIN)
            assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_true(wait_for(mr_run(client, 0, NULL) != MR_NO_NODE && fake_counts(node).last_told >= 4));
}

static void test_queries_and_what_has_no_number(void **state)
{
    (void)state;
    struct partition_query_input input;
    void *body;

    start_held((struct mr_options){.call_timeout_ns = 0});
    assert_int_equal(mr_counter_get_start(counter, noting(1), NULL), MR_OK);
    struct fake_request request = next();
    uint64_t size = request.head.size;
    uint64_t limit = request.head.time_limit;
    fake_take(channel, &request); /* taken, as a worker does before it answers */
    struct partition_command_input open = {.partition_id = 1, .has_command = true};
    open.command.kind = COMMAND_OPEN_SESSION;
    open.command.timeout = (struct duration){.seconds = 10, .present = true};
    size_t open_size = partition_command_input_size(&open, NULL, 0);
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, open_size, &body), MR_OK);
    write_partition_command_input(body, &open, NULL, 0);
    assert_int_equal(mr_commit(client, open_size, noting(2), NULL), MR_OK);
    request = next();
    fake_apply(node, channel, &request);
    go_away();
    come_back();
    request = next();
    assert_int_equal(request.head.kind, FRAME_QUERY);
    assert_int_equal(request.head.size, size);
    assert_int_equal(request.head.time_limit, limit);
    assert_int_equal(read_partition_query_input(request.body, request.head.size, &input), READ_OK);
    assert_memory_equal(input.operation.name.data, "Get", 3);
    fake_answer(node, channel, &request);
    request = next();
    assert_int_equal(command_of(&request).kind, COMMAND_OPEN_SESSION);
    fake_answer(node, channel, &request);
    expect_seen(2);
    expect_no_request();
    assert_int_equal(fake_counts(node).opened, 3); /* once more than known of: it expires */
}

static void test_unavailable_is_no_answer_to_what_was_sent_before(void **state)
{
    (void)state;
    start_held((struct mr_options){.call_timeout_ns = 0});
    increment(1);
    (void)next();
    go_away();
    come_back();
    for (int i = 0; i < 3; i++) {
        struct fake_request request = next();
        assert_int_equal(command_of(&request).sequence_num, 1);
        assert_true(command_of(&request).operation.name.size > 0); /* whole each time: none was applied */
        fake_frame(channel, STATUS_UNAVAILABLE, true, request.position, 0, "the disk is full", 16);
        fake_take(channel, &request);
    }
    expect(1, true);
    expect_seen(1);
    increment(2);
    struct fake_request request = next();
    fake_frame(channel, STATUS_UNAVAILABLE, true, request.position, 0, "the disk is full", 16);
    fake_take(channel, &request);
    run();
    assert_int_equal(seen[1].status, MR_UNAVAILABLE); /* it is to what was not */
}

static void test_closing_twice_is_done_once(void **state)
{
    (void)state;
    start(&(struct fake_options){.partitions = 1}, (struct mr_options){.call_timeout_ns = 0});
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    fake_node_die(node, FAKE_BEHIND_REQUEST, 0, 1);
    assert_int_equal(mr_counter_close(counter), MR_OK);
    /* The thread that renews is at it again a moment after a death: the next one would be at its request. */
    mr_close(client);
    assert_int_equal(mr_connect(path, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    uint64_t closed = fake_counts(node).closed;
    uint64_t before = wait_now_ms();
    fake_node_die(node, FAKE_BEHIND_REQUEST, 0, 1);
    mr_close(client);
    client = NULL;
    /* It waits for the node no longer than it says. */
    if (wait_now_ms() - before < MR_CLOSE_WAIT / MR_MILLISECOND)
        assert_int_equal(fake_counts(node).closed, closed + 1);
    else
        assert_true(fake_counts(node).closed <= closed + 1);
}

/* ---- Results ---- */

static void test_results_stay_where_they_are(void **state)
{
    (void)state;
    struct mr_result result;
    void *body;

    start_held((struct mr_options){.call_timeout_ns = 0});
    for (int i = 0; i < 3; i++) {
        /* A query that is answered with 1000 bytes. */
        assert_int_equal(mr_reserve(client, 1, MR_QUERY, 1000, 0, &body), MR_OK);
        assert_int_equal(mr_commit(client, 0, (struct mr_then){NULL, NULL}, NULL), MR_OK);
        struct fake_request request = next();
        fake_answer(node, channel, &request);
    }
    run();
    assert_int_equal(mr_take(client, &result), MR_OK);
    go_away();
    come_back();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mr_take(client, &result), MR_OK);
        assert_int_equal(result.as.raw.size, 1000);
        for (size_t at = 0; at < 1000; at++)
            assert_int_equal(((const char *)result.as.raw.data)[at], 'b');
    }
    assert_int_equal(mr_take(client, &result), MR_AGAIN);
    fake_node_release(node);
    for (int i = 0; i < 100; i++)
        assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_it_dies_at_every_point),
        TEST(test_it_dies_under_many),
        TEST(test_system_calls_fail_while_it_comes_back),
        TEST(test_commands_are_sent_again_whole_and_in_order),
        TEST(test_what_the_ring_has_lost_is_asked_for_by_number),
        TEST(test_nobody_waits_for_it_any_more),
        TEST(test_queries_and_what_has_no_number),
        TEST(test_unavailable_is_no_answer_to_what_was_sent_before),
        TEST(test_closing_twice_is_done_once),
        TEST(test_results_stay_where_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
