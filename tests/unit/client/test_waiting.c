/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping and waking, time limits, and results that wait to be taken: the client library against a node of the test's
 * own. */
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include "ipc/sys.h"
#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static char *dir;
static char path[TEMP_PATH_MAX];
static struct fake_node *node;
static mr_client *client;
static mr_counter *counter;

struct seen {
    unsigned count;
    enum mr_status status;
    char message[200];
};

/* The test's own; callbacks may still run in tear_down(). */
static struct seen seen;

/* On a busy machine it may take longer than a call's limit, which the tests of that limit keep short; so may opening
 * the counter. */
static bool connects(const struct mr_options *wanted)
{
    mr_close(client);
    client = NULL;
    return mr_connect(path, wanted, &client) == MR_OK;
}

static void start(const struct fake_options *options, int64_t call_timeout_ns)
{
    struct mr_options wanted = {
        .size = sizeof(wanted), .call_timeout_ns = call_timeout_ns, .reconnect_ns = MR_NO_RECONNECT};

    node = fake_node_start(temp_dir_file(path, dir, "socket"), options);
    assert_true(wait_for(connects(&wanted)));
}

static void open_counter(void)
{
    assert_true(wait_for(mr_counter_open(client, "hits", &counter) == MR_OK));
}

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    node = NULL;
    client = NULL;
    seen = (struct seen){0};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (node != NULL)
        fake_node_release(node);
    mr_close(client);
    fake_node_stop(node);
    temp_dir_remove(dir);
    return 0;
}

static void note(mr_client *of, const struct mr_result *result)
{
    assert_ptr_equal(of, client);
    seen.count++;
    seen.status = result->status;
    assert_true(result->message.size < sizeof(seen.message));
    if (result->message.size > 0)
        memcpy(seen.message, result->message.data, result->message.size);
    seen.message[result->message.size] = '\0';
}

static void increment(void)
{
    assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){note, NULL}, NULL), MR_OK);
}

/* ---- Sleeping ---- */

/* As a program with an event loop of its own does it. Were a wake-up lost, it would sleep until the limit. */
static void sleep_and_run(unsigned *completed)
{
    if (mr_arm(client) == MR_OK)
        assert_true(wait_fd(mr_fd(client), POLLIN, WAIT_MS));
    assert_int_not_equal(mr_run(client, MR_NO_WAIT, completed), MR_NO_NODE);
}

static void test_no_wake_up_is_lost(void **state)
{
    (void)state;
    unsigned completed;
    int fd;

    start(NULL, 0);
    open_counter();
    fd = mr_fd(client);
    for (unsigned i = 1; i <= 1500; i++) {
        increment();
        while (seen.count < i)
            sleep_and_run(&completed);
        assert_int_equal(mr_fd(client), fd);
    }
}

static void test_arming_says_no_if_something_is_there(void **state)
{
    (void)state;
    unsigned completed;
    struct mr_result result;
    uint64_t request;

    start(NULL, 0);
    open_counter();
    increment();
    mr_flush(client);
    assert_true(wait_for(mr_arm(client) == MR_AGAIN)); /* the answer has come, and was not met */
    assert_int_equal(seen.count, 0);
    assert_int_equal(mr_run(client, MR_NO_WAIT, &completed), MR_OK);
    assert_int_equal(completed, 1);
    assert_int_equal(mr_arm(client), MR_OK);

    /* A result that waits to be taken, an end that is due. */
    assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){NULL, NULL}, NULL), MR_OK);
    assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_int_equal(mr_arm(client), MR_AGAIN);
    assert_int_equal(mr_run(client, MR_FOR_EVER, &completed), MR_OK);
    assert_int_equal(completed, 0);
    assert_int_equal(mr_take(client, &result), MR_OK);
    assert_int_equal(mr_arm(client), MR_OK);
    fake_node_hold(node);
    assert_int_equal(mr_counter_increment_start(counter, 1, (struct mr_then){note, NULL}, &request), MR_OK);
    assert_int_equal(mr_arm(client), MR_OK);
    assert_int_equal(mr_cancel(client, request), MR_OK);
    assert_int_equal(mr_arm(client), MR_AGAIN);
}

static void test_a_new_worker_wakes(void **state)
{
    (void)state;
    struct fake_request request;

    start(NULL, 0);
    open_counter();
    fake_node_hold(node);
    struct fake_channel *channel = fake_channel(node, 1);
    increment();
    mr_flush(client);
    assert_true(fake_next(channel, &request));
    fake_apply(node, channel, &request);
    assert_int_equal(mr_arm(client), MR_OK);
    fake_new_worker(channel);
    assert_true(wait_fd(mr_fd(client), POLLIN, WAIT_MS));
    assert_int_equal(mr_run(client, MR_NO_WAIT, NULL), MR_AGAIN);
    assert_true(fake_next(channel, &request)); /* it was sent again */
}

static void test_the_node_s_end_wakes(void **state)
{
    (void)state;

    start(NULL, 0);
    open_counter();
    fake_node_hold(node);
    increment();
    assert_int_equal(mr_arm(client), MR_OK);
    fake_node_vanish(node);
    unsigned completed;
    enum mr_status status;
    do { /* the answer before may have been met ahead of its wake-up, which comes first then */
        assert_true(wait_fd(mr_fd(client), POLLIN, WAIT_MS));
        status = mr_run(client, MR_NO_WAIT, &completed);
    } while (status == MR_AGAIN && mr_arm(client) == MR_OK);
    assert_int_equal(status, MR_NO_NODE);
    assert_int_equal(completed, 1);
    assert_int_equal(seen.status, MR_NO_NODE);
}

static void test_who_is_busy_makes_no_system_calls(void **state)
{
    (void)state;
    static const enum sys_call kinds[] = {SYS_READ,      SYS_WRITE,   SYS_POLL,    SYS_EPOLL_WAIT,
                                          SYS_EPOLL_CTL, SYS_SENDMSG, SYS_RECVMSG, SYS_MMAP,
                                          SYS_MADVISE,   SYS_MUNMAP,  SYS_EVENTFD, SYS_TIMERFD_SETTIME};
    struct fake_request request;
    unsigned before = 0;
    unsigned after = 0;

    start(NULL, 0);
    open_counter();
    fake_node_hold(node);
    struct fake_channel *channel = fake_channel(node, 1);
    assert_true(wait_for(fake_renewing_channel(node, 1) != channel)); /* its hand-shake is over */
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        before += sys_call_count(kinds[i]);
    uint64_t began = wait_now_ms();
    for (unsigned round = 0; round < 1000; round++) {
        for (int i = 0; i < 10; i++)
            increment();
        mr_flush(client);
        while (fake_next(channel, &request))
            fake_answer(node, channel, &request);
        fake_publish(node, channel);
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    }
    assert_int_equal(seen.count, 10000);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        after += sys_call_count(kinds[i]);
    /* Now and then it looks whether the node is there; the renewing thread, and the node's, are in the count as well. */
    assert_in_range(after - before, 0, 60 + (wait_now_ms() - began) / 2);
}

/* ---- Time limits ---- */

static void test_a_call_in_time_limit(void **state)
{
    (void)state;
    start(NULL, (int64_t)(500 * MR_MILLISECOND));
    open_counter();
    fake_node_hold(node);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_TIMEOUT);
    assert_non_null(strstr(mr_message(client), "may have been applied"));
    assert_int_equal(mr_counter_get(counter, NULL), MR_TIMEOUT);
    fake_node_release(node);
    assert_true(wait_for(mr_counter_increment(counter, 1, NULL) == MR_OK));
}

static void increment_many(void)
{
    for (int i = 0; i < 256; i++)
        if (mr_counter_increment_start(counter, 1, (struct mr_then){note, NULL}, NULL) != MR_OK)
            break;
    mr_run(client, MR_NO_WAIT, NULL);
}

static void test_a_late_answer_is_dropped_but_counts(void **state)
{
    (void)state;
    int64_t value;

    start(NULL, (int64_t)(500 * MR_MILLISECOND));
    open_counter();
    fake_node_hold(node);
    for (int i = 0; i < 10; i++)
        increment();
    while (seen.count < 10)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_int_equal(seen.status, MR_TIMEOUT);
    assert_non_null(strstr(seen.message, "may have been applied"));
    fake_node_release(node);
    assert_true(wait_for(mr_counter_get(counter, &value) == MR_OK && value == 10));
    assert_int_equal(seen.count, 10);
    /* Were the ten numbers not counted as answered, no KeepAlive would ever pass them. */
    assert_true(wait_for((increment_many(), fake_counts(node).last_told >= MR_KEEP_ALIVE_ANSWERS)));
}

static void test_time_wakes_a_sleeper(void **state)
{
    (void)state;
    unsigned completed;

    start(NULL, (int64_t)(500 * MR_MILLISECOND));
    open_counter();
    fake_node_hold(node);
    increment();
    while (seen.count == 0)
        sleep_and_run(&completed);
    assert_int_equal(seen.status, MR_TIMEOUT);
}

static void test_connecting_in_time_limit(void **state)
{
    (void)state;
    start(&(struct fake_options){.never_open = true}, (int64_t)(50 * MR_MILLISECOND));
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_TIMEOUT);
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_TIMEOUT);
    void *body;
    assert_int_equal(mr_reserve(client, 1, MR_COMMAND, 0, 10, &body), MR_TIMEOUT);
}

/* Somebody listens, and takes no connections: the kernel lets others wait. */
static void test_a_queue_of_connections_in_time_limit(void **state)
{
    (void)state;
    struct mr_options options = {.size = sizeof(options), .call_timeout_ns = (int64_t)(50 * MR_MILLISECOND)};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mr_client *first;

    memcpy(address.sun_path, temp_dir_file(path, dir, "socket"), sizeof(address.sun_path) - 1);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(mr_connect(path, &options, &first), MR_TIMEOUT);
    assert_int_equal(mr_connect(path, &options, &client), MR_TIMEOUT);
    assert_non_null(strstr(mr_message(client), path));
    mr_close(first);
    close(listener);
}

static void test_mr_run_waits_no_longer_than_told(void **state)
{
    (void)state;
    unsigned completed = 7;

    start(NULL, 0);
    open_counter();
    fake_node_hold(node);
    increment();
    assert_int_equal(mr_run(client, (int64_t)(5 * MR_MILLISECOND), &completed), MR_AGAIN);
    assert_int_equal(completed, 0);
}

/* ---- Results that wait ---- */

/* Starts a query that the node answers with so many bytes. */
static void ask_for_bytes(uint64_t size, int number)
{
    void *at;

    assert_int_equal(mr_reserve(client, 1, MR_QUERY, (int64_t)size, 0, &at), MR_OK);
    assert_int_equal(mr_commit(client, 0, (struct mr_then){NULL, (void *)(intptr_t)number}, NULL), MR_OK);
}

static void take_bytes(uint64_t size, int number)
{
    struct mr_result result;

    while (mr_take(client, &result) == MR_AGAIN)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_int_equal(result.status, MR_OK);
    assert_int_equal((intptr_t)result.arg, number);
    assert_int_equal(result.as.raw.size, size);
    for (uint64_t i = 0; i < size; i++)
        if (((const char *)result.as.raw.data)[i] != 'b')
            fail_msg("byte %d of result %d is 0x%02x", (int)i, number, ((const unsigned char *)result.as.raw.data)[i]);
}

/* Frames of 4,000 bytes in a ring of 64 KiB. */
static void test_results_hold_the_ring(void **state)
{
    (void)state;
    enum { SIZE = 4000, COUNT = 50 };
    struct fake_counts counts;

    start(NULL, 0);
    open_counter();
    for (int i = 0; i < COUNT; i++)
        ask_for_bytes(SIZE, i);
    /* Whoever only runs gets half of it, and then the node cannot go on; it takes no request it has no room for. */
    mr_flush(client);
    assert_true(wait_for(fake_counts(node).queries == 16));
    for (int i = 0; i < 100; i++)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    counts = fake_counts(node);
    assert_int_equal(counts.queries, 16);
    for (int i = 0; i < COUNT; i++)
        take_bytes(SIZE, i);
    assert_int_equal(fake_counts(node).queries, COUNT);
}

static void test_they_do_not_hold_up_a_call(void **state)
{
    (void)state;
    enum { SIZE = 4000, COUNT = 20, ROUNDS = 10 };
    int64_t value;

    start(NULL, 0);
    open_counter();
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < COUNT; i++)
            ask_for_bytes(SIZE, round * COUNT + i);
        assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
        assert_int_equal(value, round + 1);
    }
    for (int i = 0; i < ROUNDS * COUNT; i++)
        take_bytes(SIZE, i);
}

static void note_size(mr_client *of, const struct mr_result *result)
{
    uint64_t *met = result->arg;

    (void)of;
    *met += result->as.raw.size;
}

/* Nor does one of them that has what callbacks have met behind it kept in the ring. */
static void test_one_does_not_hold_up_a_call(void **state)
{
    (void)state;
    enum { SIZE = 4000, COUNT = 40 };
    static uint64_t met;
    int64_t value;
    void *at;

    start(NULL, 0);
    open_counter();
    ask_for_bytes(SIZE, 0);
    assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    met = 0;
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(mr_reserve(client, 1, MR_QUERY, SIZE, 0, &at), MR_OK);
        assert_int_equal(mr_commit(client, 0, (struct mr_then){note_size, &met}, NULL), MR_OK);
    }
    assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    assert_int_equal(value, 1);
    assert_int_equal(met, COUNT * SIZE);
    take_bytes(SIZE, 0);
}

/* All that the client has given back. */
static void write_over_what_is_free(struct fake_channel *channel)
{
    uint64_t room;
    uint8_t *to = NULL;

    assert_int_equal(ring_free(&channel->responses, 65536, &room), RING_OK);
    assert_int_equal(ring_reserve(&channel->responses, room, &to), RING_OK);
    memset(to, 0xee, room);
}

/* A result lives until the next call, also if the node goes on writing meanwhile. */
static void test_a_taken_result_stays(void **state)
{
    (void)state;
    enum { SIZE = 8000 };
    struct mr_result result;
    struct fake_request request;
    char body[SIZE];

    start(NULL, 0);
    open_counter();
    fake_node_hold(node);
    struct fake_channel *channel = fake_channel(node, 1);
    for (int i = 0; i < 40; i++) {
        memset(body, 'a' + i % 26, sizeof(body));
        for (int k = 0; k < 2; k++) {
            ask_for_bytes(0, 0);
            mr_flush(client);
            assert_true(fake_next(channel, &request));
            fake_frame(channel, STATUS_OK, true, request.position, 0, body, SIZE);
            fake_take(channel, &request);
        }
        fake_publish(node, channel);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(mr_take(client, &result), MR_OK);
            write_over_what_is_free(channel);
            assert_memory_equal(result.as.raw.data, body, SIZE);
        }
    }
}

static void start_another_and_write_over(mr_client *of, const struct mr_result *result)
{
    const char bytes[] = "what the callback's result points to";

    assert_ptr_equal(of, client);
    if (result->status != MR_OK) /* tear_down() */
        return;
    seen.count++;
    ask_for_bytes(0, 0);
    write_over_what_is_free(result->arg);
    assert_int_equal(result->as.raw.size, sizeof(bytes));
    assert_memory_equal(result->as.raw.data, bytes, sizeof(bytes));
}

/* What a call that waits gives out, and what a callback is given behind it, are there although the callback starts
 * another request. */
static void test_a_callback_that_starts_gives_nothing_back(void **state)
{
    (void)state;
    const char why[] = "what the call's text points to";
    const char bytes[] = "what the callback's result points to";
    struct fake_request request;
    void *at;

    start(NULL, 0);
    open_counter();
    fake_node_hold(node);
    struct fake_channel *channel = fake_channel(node, 1);
    assert_int_equal(mr_reserve(client, 1, MR_QUERY, 0, 0, &at), MR_OK);
    assert_int_equal(mr_commit(client, 0, (struct mr_then){start_another_and_write_over, channel}, NULL), MR_OK);
    mr_flush(client);
    assert_true(fake_next(channel, &request));
    /* The next request will stand behind it; it is answered first. */
    uint64_t next = request.position + request_frame_bytes(request.head.size);
    fake_frame(channel, STATUS_UNAVAILABLE, true, next, 0, why, strlen(why));
    fake_frame(channel, STATUS_OK, true, request.position, 0, bytes, sizeof(bytes));
    fake_take(channel, &request);
    fake_publish(node, channel);
    assert_int_equal(mr_counter_get(counter, NULL), MR_UNAVAILABLE);
    assert_string_equal(mr_message(client), why);
    assert_int_equal(seen.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_no_wake_up_is_lost),
        TEST(test_arming_says_no_if_something_is_there),
        TEST(test_a_new_worker_wakes),
        TEST(test_the_node_s_end_wakes),
        TEST(test_who_is_busy_makes_no_system_calls),
        TEST(test_a_call_in_time_limit),
        TEST(test_a_late_answer_is_dropped_but_counts),
        TEST(test_time_wakes_a_sleeper),
        TEST(test_connecting_in_time_limit),
        TEST(test_a_queue_of_connections_in_time_limit),
        TEST(test_mr_run_waits_no_longer_than_told),
        TEST(test_results_hold_the_ring),
        TEST(test_they_do_not_hold_up_a_call),
        TEST(test_one_does_not_hold_up_a_call),
        TEST(test_a_taken_result_stays),
        TEST(test_a_callback_that_starts_gives_nothing_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
