/* SPDX-License-Identifier: Apache-2.0 */
/* What the client library does when a partition's worker dies and another takes over, when a channel is closed, and
 * when the node goes away for good: what is sent again, what is dropped because it was seen, and how open requests end.
 * The test is the worker. */
#include <millrace/counter.h>
#include <millrace/raw.h>

#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MANY 64

static char *dir;
static struct fake_node *node;
static mr_client *client;
static mr_counter *counter;
static struct fake_channel *channel;

/* Every result that callbacks have seen, in order. */
static struct mr_result seen[MANY];
static unsigned seen_count;
static char seen_message[MANY][200];

static void note(mr_client *of, const struct mr_result *result)
{
    assert_ptr_equal(of, client);
    assert_true(seen_count < MANY);
    seen[seen_count] = *result;
    assert_true(result->message.size < sizeof(seen_message[0]));
    if (result->message.size > 0)
        memcpy(seen_message[seen_count], result->message.data, result->message.size);
    seen_message[seen_count][result->message.size] = '\0';
    seen_count++;
}

static struct mr_then noting(int number)
{
    return (struct mr_then){note, (void *)(intptr_t)number};
}

static int number_of(const struct mr_result *result)
{
    return (int)(intptr_t)result->arg;
}

static int set_up(void **state)
{
    char path[TEMP_PATH_MAX];

    (void)state;
    dir = temp_dir_make();
    node = fake_node_start(temp_dir_file(path, dir, "socket"), &(struct fake_options){.ring_bytes = 32768});
    struct mr_options options = {.size = sizeof(options), .reconnect_ns = MR_NO_RECONNECT};
    assert_int_equal(mr_connect(path, &options, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    fake_node_hold(node);
    channel = fake_channel(node, 1);
    seen_count = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_node_release(node);
    mr_close(client);
    fake_node_stop(node);
    temp_dir_remove(dir);
    return 0;
}

static void increment(int number)
{
    assert_int_equal(mr_counter_increment_start(counter, 1, noting(number), NULL), MR_OK);
}

static void get(int number)
{
    assert_int_equal(mr_counter_get_start(counter, noting(number), NULL), MR_OK);
}

/* The next request, which has to be there. */
static struct fake_request next(void)
{
    struct fake_request request;
    mr_flush(client);
    if (!fake_next(channel, &request))
        fail_msg("no request is there");
    return request;
}

static struct fake_request take(void)
{
    struct fake_request request = next();
    fake_take(channel, &request);
    return request;
}

static void run(void)
{
    fake_publish(node, channel);
    enum mr_status status = mr_run(client, 0, NULL);
    assert_true(status == MR_OK || status == MR_AGAIN || status == MR_NO_NODE);
}

static void expect_no_request(void)
{
    struct fake_request request;
    mr_flush(client);
    assert_false(fake_next(channel, &request));
}

static struct command_input command_of(const struct fake_request *request)
{
    struct partition_command_input input;
    assert_int_equal(request->head.kind, FRAME_COMMAND);
    assert_int_equal(read_partition_command_input(request->body, request->head.size, &input), READ_OK);
    assert_int_equal(input.partition_id, 1);
    assert_int_equal(input.command.session_kind, SESSION_COMMAND_SERVICE_COMMAND);
    return input.command;
}

/* A repeat carries the number and no operation. */
static struct fake_request expect_repeat(uint64_t number)
{
    struct fake_request request = take();
    struct command_input command = command_of(&request);
    assert_int_equal(command.sequence_num, number);
    assert_int_equal(command.operation.name.size, 0);
    assert_int_equal(command.operation.payload.size, 0);
    return request;
}

/* ---- Sending again ---- */

static void test_a_command_behind_head_is_sent_again_by_number(void **state)
{
    (void)state;
    increment(1);
    struct fake_request first = next();
    fake_apply(node, channel, &first); /* taken and applied; the worker dies with the answer */
    fake_new_worker(channel);
    run();
    struct fake_request again = next();
    assert_true(again.position > first.position);
    assert_int_equal(command_of(&again).sequence_num, 1);
    assert_int_equal(command_of(&again).operation.name.size, 0);
    fake_answer(node, channel, &again);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_OK);
    assert_int_equal(seen[0].as.number, 1);
    expect_no_request();
    assert_int_equal(fake_counts(node).applied, 1);
}

static void test_what_stands_past_head_is_not(void **state)
{
    (void)state;
    increment(1);
    increment(2);
    struct fake_request first = next();
    fake_apply(node, channel, &first);
    fake_new_worker(channel);
    run();
    struct fake_request second = take(); /* as it was sent */
    assert_int_equal(command_of(&second).sequence_num, 2);
    assert_true(command_of(&second).operation.name.size > 0);
    expect_repeat(1);
    expect_no_request();
}

/* The head has moved on before the client sees that there is a new worker: it goes by where that one began. */
static void test_what_the_new_worker_has_taken_is_not(void **state)
{
    (void)state;
    get(1);
    fake_new_worker(channel);
    struct fake_request query = take();
    run();
    expect_no_request();
    fake_frame(channel, STATUS_TIMEOUT, true, query.position, 0, "late", 4);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_TIMEOUT);
}

static void test_a_query_is_sent_again_whole(void **state)
{
    (void)state;
    struct partition_query_input input;

    get(1);
    struct fake_request first = take();
    fake_new_worker(channel);
    run();
    struct fake_request again = next();
    assert_true(again.position > first.position);
    assert_int_equal(again.head.kind, FRAME_QUERY);
    assert_int_equal(again.head.time_limit, first.head.time_limit);
    assert_int_equal(read_partition_query_input(again.body, again.head.size, &input), READ_OK);
    assert_memory_equal(input.operation.name.data, "Get", 3);
    assert_true(input.sync);
    fake_answer(node, channel, &again);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_OK);
}

static void test_a_command_without_a_number_is_never(void **state)
{
    (void)state;
    struct partition_command_input input = {.partition_id = 1, .has_command = true};
    void *body;

    input.command.kind = COMMAND_OPEN_SESSION;
    input.command.timeout = (struct duration){.seconds = 5, .present = true};
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, 100, &body), MR_OK);
    size_t size = (size_t)(write_partition_command_input(body, &input, NULL, 0) - (uint8_t *)body);
    assert_int_equal(mr_commit(client, size, noting(1), NULL), MR_OK);
    struct fake_request first = take();
    fake_new_worker(channel);
    run();
    expect_no_request();
    /* The new worker answers it by itself. */
    fake_frame(channel, STATUS_OK, true, first.position, 0, NULL, 0);
    run();
    assert_int_equal(seen_count, 1);
}

static void test_answers_in_the_ring_need_no_repeat(void **state)
{
    (void)state;
    for (int i = 1; i <= 3; i++)
        increment(i);
    struct fake_request request = next();
    fake_answer(node, channel, &request);
    request = next();
    fake_apply(node, channel, &request);
    fake_publish(node, channel);
    fake_new_worker(channel);
    run();
    assert_int_equal(seen_count, 1);
    request = take(); /* the third */
    assert_int_equal(command_of(&request).sequence_num, 3);
    expect_repeat(2);
    expect_no_request();
}

static void test_deaths_in_a_row(void **state)
{
    (void)state;
    increment(1);
    get(2);
    take();
    take();
    for (int i = 0; i < 5; i++) {
        fake_new_worker(channel);
        run();
        expect_repeat(1);
        assert_int_equal(take().head.kind, FRAME_QUERY);
        expect_no_request();
    }
    fake_new_worker(channel);
    run();
    struct fake_request command = take();
    struct fake_request query = next();
    fake_output(channel, true, command.position, 1, 9, 42);
    fake_answer(node, channel, &query);
    run();
    assert_int_equal(seen_count, 2);
    assert_int_equal(seen[0].as.number, 42);
    assert_int_equal(seen[0].index, 9);
}

static void test_two_deaths_before_the_client_looks(void **state)
{
    (void)state;
    increment(1);
    take();
    fake_new_worker(channel);
    fake_new_worker(channel);
    run();
    expect_repeat(1);
    expect_no_request();
}

/* ---- Seeing nothing twice ---- */

static void test_both_sendings_answered(void **state)
{
    (void)state;
    increment(1);
    struct fake_request first = take();
    fake_new_worker(channel);
    run();
    struct fake_request again = expect_repeat(1);
    fake_output(channel, true, first.position, 1, 5, 1);
    fake_output(channel, true, again.position, 1, 5, 1);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].as.number, 1);
    increment(2); /* and the next is not confused by it */
    again = take();
    fake_output(channel, true, again.position, 1, 6, 2);
    run();
    assert_int_equal(seen_count, 2);
    assert_int_equal(number_of(&seen[1]), 2);
}

static void test_both_sendings_of_a_query_answered(void **state)
{
    (void)state;
    get(1);
    struct fake_request first = take();
    fake_new_worker(channel);
    run();
    struct fake_request again = take();
    fake_frame(channel, STATUS_TIMEOUT, true, again.position, 0, "late", 4);
    fake_frame(channel, STATUS_ERROR, true, first.position, 0, "later", 5);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_TIMEOUT);
}

static void test_outputs_by_number(void **state)
{
    (void)state;
    increment(1);
    struct fake_request first = take();
    fake_output(channel, false, first.position, 1, 5, 10);
    fake_output(channel, false, first.position, 2, 5, 20);
    run();
    fake_new_worker(channel);
    run();
    struct fake_request again = expect_repeat(1);
    fake_frame(channel, STATUS_CANCELED, true, first.position, 0, "taken over", 10);
    for (unsigned number = 1; number <= 4; number++)
        fake_output(channel, number == 4, again.position, number, 5, 10 * number);
    run();
    assert_int_equal(seen_count, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(seen[i].output, i + 1);
        assert_int_equal(seen[i].as.number, 10 * (i + 1));
        assert_int_equal(seen[i].last, i == 3);
        assert_int_equal(seen[i].status, MR_OK);
    }
}

static void test_taken_over_by_someone_else_is_told(void **state)
{
    (void)state;
    increment(1);
    struct fake_request first = take();
    fake_frame(channel, STATUS_CANCELED, true, first.position, 0, "taken over", 10);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_CANCELED);
    assert_string_equal(seen_message[0], "taken over");
}

static void test_frames_of_nothing_are_dropped(void **state)
{
    (void)state;
    increment(1);
    struct fake_request first = take();
    fake_frame(channel, STATUS_OK, true, first.position + 8, 0, NULL, 0);
    fake_frame(channel, STATUS_OK, true, 0, 0, NULL, 0);
    fake_frame(channel, STATUS_OK, true, UINT64_MAX, 0, NULL, 0);
    run();
    assert_int_equal(seen_count, 0);
    fake_output(channel, true, first.position, 1, 5, 1);
    run();
    assert_int_equal(seen_count, 1);
}

static void test_a_refused_repeat_is_tried_again(void **state)
{
    (void)state;
    increment(1);
    take();
    fake_new_worker(channel);
    run();
    for (int i = 0; i < 3; i++) {
        struct fake_request again = expect_repeat(1);
        fake_frame(channel, STATUS_UNAVAILABLE, true, again.position, 0, "the disk is full", 16);
        fake_publish(node, channel);
        struct fake_request request;
        assert_true(wait_for((mr_run(client, 0, NULL), fake_next(channel, &request))));
        assert_int_equal(seen_count, 0);
    }
    struct fake_request again = expect_repeat(1);
    fake_output(channel, true, again.position, 1, 5, 1);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_OK);
    /* What was sent once is told. */
    increment(2);
    again = take();
    fake_frame(channel, STATUS_UNAVAILABLE, true, again.position, 0, "the disk is full", 16);
    run();
    assert_int_equal(seen_count, 2);
    assert_int_equal(seen[1].status, MR_UNAVAILABLE);
    assert_string_equal(seen_message[1], "the disk is full");
}

/* ---- Out of order, out of room ---- */

static void test_answers_in_any_order(void **state)
{
    (void)state;
    struct fake_request requests[20];
    static const int order[20] = {7, 0, 19, 3, 3 + 8, 1, 2, 18, 17, 4, 5, 6, 8, 9, 10, 16, 12, 15, 14, 13};

    for (int i = 0; i < 20; i++) {
        increment(i);
        requests[i] = take();
    }
    for (int i = 0; i < 20; i++)
        fake_output(channel, true, requests[order[i]].position, 1, 5, order[i]);
    run();
    assert_int_equal(seen_count, 20);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(number_of(&seen[i]), order[i]);
        assert_int_equal(seen[i].as.number, order[i]);
    }
}

static void test_one_that_stays_open_does_not_hold_up_the_others(void **state)
{
    (void)state;
    increment(1);
    struct fake_request open = take();
    for (int i = 0; i < 5000; i++) {
        increment(2);
        struct fake_request request = take();
        fake_output(channel, true, request.position, 1, 5, i);
        run();
        assert_int_equal(seen_count, 1);
        assert_int_equal(seen[0].as.number, i);
        seen_count = 0;
    }
    fake_output(channel, true, open.position, 1, 5, -7);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(number_of(&seen[0]), 1);
}

static void count(mr_client *of, const struct mr_result *result)
{
    unsigned *answered = result->arg;
    assert_ptr_equal(of, client);
    assert_int_equal(result->status, MR_OK);
    (*answered)++;
}

static void test_sending_again_waits_for_room(void **state)
{
    (void)state;
    unsigned lost = 0;
    unsigned more = 0;
    unsigned answered = 0;
    struct mr_then counting = {count, &answered};
    struct fake_request request;
    uint64_t room;

    /* Many that are applied, their answers lost; then a ring full of new ones. */
    for (int round = 0; round < 2; round++) {
        while (mr_counter_increment_start(counter, 1, counting, NULL) == MR_OK)
            lost++;
        mr_flush(client);
        while (fake_next(channel, &request))
            fake_apply(node, channel, &request);
    }
    while (mr_counter_increment_start(counter, 1, counting, NULL) == MR_OK)
        more++;
    mr_flush(client);
    assert_true(lost > 1000 && more > 500);
    fake_new_worker(channel);
    run(); /* there is no room for a single one */
    assert_int_equal(mr_counter_increment_start(counter, 1, counting, NULL), MR_AGAIN);
    fake_take(channel, (fake_next(channel, &request), &request)); /* room for one: not for a new one */
    assert_int_equal(mr_counter_increment_start(counter, 1, counting, NULL), MR_AGAIN);
    fake_output(channel, true, request.position, 1, 5, 1);
    while (answered < lost + more) {
        while (ring_free(&channel->responses, 256, &room) == RING_OK && room >= 256 && fake_next(channel, &request))
            fake_answer(node, channel, &request);
        run();
    }
    assert_int_equal(answered, lost + more);
    assert_int_equal(fake_counts(node).applied, lost + more - 1);
    assert_int_equal(fake_counts(node).repeats, lost);
}

/* ---- Ends ---- */

static void test_a_closed_channel(void **state)
{
    (void)state;
    increment(1);
    get(2);
    increment(3);
    struct fake_request request = next();
    fake_answer(node, channel, &request);
    fake_publish(node, channel);
    fake_close_channel(channel, "a frame of 4 GiB");
    while (seen_count < 3)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    /* What was answered before has been answered. */
    assert_int_equal(seen_count, 3);
    assert_int_equal(seen[0].status, MR_OK);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(seen[i].status, MR_UNAVAILABLE);
        assert_non_null(strstr(seen_message[i], "a frame of 4 GiB"));
        assert_true(seen[i].last);
    }
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_UNAVAILABLE);
    assert_non_null(strstr(mr_message(client), "a frame of 4 GiB"));
    assert_int_equal(mr_counter_increment_start(counter, 1, noting(4), NULL), MR_UNAVAILABLE);
}

static void test_nonsense_in_the_response_ring(void **state)
{
    (void)state;
    increment(1);
    /* A frame that says it is larger than the ring. */
    struct response_head head = {.size = UINT32_MAX};
    memcpy(channel->responses.data + (channel->responses.tail & (channel->responses.capacity - 1)), &head,
           sizeof(head));
    ring_advance(&channel->responses, sizeof(head));
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_UNAVAILABLE);
}

static void test_an_answer_that_does_not_decode(void **state)
{
    (void)state;
    increment(1);
    struct fake_request request = take();
    fake_frame(channel, STATUS_OK, true, request.position, 1, "\xff\xff\xff", 3);
    run();
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_INTERNAL);
}

static void test_unknown_status(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        increment(1);
        struct fake_request request = take();
        fake_frame(channel, i == 0 ? STATUS_UNKNOWN : (enum status)200, true, request.position, 0, NULL, 0);
        run();
        assert_int_equal(seen[i].status, MR_UNKNOWN);
    }
}

static void test_the_node_goes_away(void **state)
{
    (void)state;
    increment(1);
    increment(2);
    struct fake_request request = next();
    fake_answer(node, channel, &request);
    fake_publish(node, channel);
    fake_node_vanish(node);
    assert_true(wait_for(mr_run(client, 0, NULL) == MR_NO_NODE));
    assert_int_equal(seen_count, 2);
    assert_int_equal(seen[0].status, MR_OK);
    assert_int_equal(seen[1].status, MR_NO_NODE);
    assert_non_null(strstr(seen_message[1], "went away"));
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE);
    assert_int_equal(mr_counter_increment_start(counter, 1, noting(3), NULL), MR_NO_NODE);
    assert_int_equal(mr_counter_open(client, "more", &counter), MR_NO_NODE);
    assert_null(counter);
    assert_int_equal(mr_arm(client), MR_NO_NODE);
    assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_NO_NODE);
}

static void test_the_node_goes_away_under_a_call_that_waits(void **state)
{
    (void)state;
    fake_node_vanish(node);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE);
    assert_non_null(strstr(mr_message(client), "went away"));
}

/* Whoever waits without end is told of what ended, not that nothing came. */
static void test_the_node_goes_away_under_a_run_that_waits(void **state)
{
    unsigned completed = 0;

    (void)state;
    increment(1);
    increment(2);
    mr_flush(client);
    fake_node_vanish(node);
    assert_int_equal(mr_run(client, MR_FOR_EVER, &completed), MR_NO_NODE);
    assert_int_equal(completed, 2);
    assert_int_equal(seen_count, 2);
    assert_int_equal(seen[0].status, MR_NO_NODE);
    assert_int_equal(seen[1].status, MR_NO_NODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_a_command_behind_head_is_sent_again_by_number),
        TEST(test_what_stands_past_head_is_not),
        TEST(test_what_the_new_worker_has_taken_is_not),
        TEST(test_a_query_is_sent_again_whole),
        TEST(test_a_command_without_a_number_is_never),
        TEST(test_answers_in_the_ring_need_no_repeat),
        TEST(test_deaths_in_a_row),
        TEST(test_two_deaths_before_the_client_looks),
        TEST(test_both_sendings_answered),
        TEST(test_both_sendings_of_a_query_answered),
        TEST(test_outputs_by_number),
        TEST(test_taken_over_by_someone_else_is_told),
        TEST(test_frames_of_nothing_are_dropped),
        TEST(test_a_refused_repeat_is_tried_again),
        TEST(test_answers_in_any_order),
        TEST(test_one_that_stays_open_does_not_hold_up_the_others),
        TEST(test_sending_again_waits_for_room),
        TEST(test_a_closed_channel),
        TEST(test_nonsense_in_the_response_ring),
        TEST(test_an_answer_that_does_not_decode),
        TEST(test_unknown_status),
        TEST(test_the_node_goes_away),
        TEST(test_the_node_goes_away_under_a_call_that_waits),
        TEST(test_the_node_goes_away_under_a_run_that_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
