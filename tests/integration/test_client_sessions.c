/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions as the client library keeps them: alive while the program sleeps or its worker dies, lost when the program
 * is stopped, gone with it when it is dead. And what was acknowledged, over the end of the whole node. */
#include <millrace/counter.h>
#include <millrace/limits.h>

#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define TIMEOUT ((int64_t)(2 * MR_SECOND)) /* renewed at a third of it, by whoever has a processor then */

static struct node node;
static mr_client *client;
static mr_counter *counter;

static int set_up(void **state)
{
    (void)state;
    node_begin(&node, NULL);
    client = NULL;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mr_close(client);
    node_end(&node);
    return 0;
}

static void connect_briefly(void)
{
    struct mr_options options = {.size = sizeof(options), .session_timeout_ns = TIMEOUT};
    assert_int_equal(mr_connect(node.socket, &options, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
}

/* A session that nobody renews would be gone. */
static bool is_time_over(uint64_t since_ms)
{
    return wait_now_ms() - since_ms >= 3 * (uint64_t)TIMEOUT / (2 * MR_MILLISECOND);
}

static void test_a_sleeping_program_keeps_its_session(void **state)
{
    (void)state;
    int64_t value;

    connect_briefly();
    uint64_t before = wait_now_ms();
    assert_true(wait_for(is_time_over(before)));
    assert_int_equal(node_partition(&node, 1).sessions, 1);
    assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    assert_int_equal(value, 2);
}

static void test_so_it_does_while_workers_die(void **state)
{
    (void)state;
    int64_t value;

    connect_briefly();
    uint64_t before = wait_now_ms();
    while (!is_time_over(before)) {
        pid_t pid = node_kill_worker(&node, 1);
        node_wait_worker(&node, 1, pid);
    }
    assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    assert_int_equal(value, 2);
}

/* A program that opens a counter, says so on a pipe, and calls again when it is told to. */
struct child {
    int told[2];  /* to it */
    int tells[2]; /* by it */
};

static int child_body(void *argument)
{
    struct child *child = argument;
    struct mr_options options = {.size = sizeof(options), .session_timeout_ns = TIMEOUT};
    mr_client *own;
    mr_counter *its;
    char byte;

    if (mr_connect(node.socket, &options, &own) != MR_OK || mr_counter_open(own, "hits", &its) != MR_OK ||
        mr_counter_increment(its, 1, NULL) != MR_OK || write(child->tells[1], "x", 1) != 1 ||
        read(child->told[0], &byte, 1) != 1)
        return 100;
    return (int)mr_counter_increment(its, 1, NULL);
}

static pid_t start_child(struct child *child)
{
    char byte;

    assert_int_equal(pipe(child->told), 0);
    assert_int_equal(pipe(child->tells), 0);
    pid_t pid = fork_run(child_body, child);
    assert_int_equal(read(child->tells[0], &byte, 1), 1);
    assert_int_equal(node_partition(&node, 1).sessions, 1);
    return pid;
}

static void end_child(struct child *child)
{
    for (int i = 0; i < 2; i++) {
        close(child->told[i]);
        close(child->tells[i]);
    }
}

static void test_a_stopped_program_loses_its_session(void **state)
{
    (void)state;
    struct child child;
    pid_t pid = start_child(&child);

    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_true(wait_for(node_partition(&node, 1).sessions == 0));
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_int_equal(write(child.told[1], "x", 1), 1);
    assert_int_equal(fork_wait(pid, WAIT_MS), (int)MR_SESSION_LOST);
    end_child(&child);
}

static void test_a_dead_program_loses_its_session(void **state)
{
    (void)state;
    struct child child;
    pid_t pid = start_child(&child);

    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_true(wait_for(node_partition(&node, 1).sessions == 0));
    assert_int_equal(fork_wait(pid, WAIT_MS), 128 + SIGKILL);
    end_child(&child);
}

static void test_closing_ends_the_session_at_once(void **state)
{
    (void)state;
    const struct mr_options options = {.size = sizeof(options), .session_timeout_ns = 3600 * (int64_t)MR_SECOND};

    unsigned left = 0;
    bool in_time;

    do {
        assert_int_equal(mr_connect(node.socket, &options, &client), MR_OK);
        assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
        assert_in_range(node_partition(&node, 1).sessions, 1, 1 + left);
        uint64_t before = wait_now_ms();
        mr_close(client);
        client = NULL;
        /* It waits for the node no longer than that, and leaves the session to its timeout. */
        in_time = wait_now_ms() - before < MR_CLOSE_WAIT / MR_MILLISECOND;
        left += !in_time;
    } while (!in_time && left < 20);
    assert_true(in_time);
    assert_true(wait_for(node_partition(&node, 1).sessions <= left));
}

static int64_t count_up(unsigned calls)
{
    int64_t value = 0;

    for (unsigned i = 0; i < calls; i++)
        assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    return value;
}

static void end_node(int how)
{
    if (how == SIGTERM)
        assert_int_equal(node_stop(&node), 0);
    else
        node_kill_all(&node);
}

static void test_what_was_acknowledged_is_there_after_the_node_s_end(void **state)
{
    (void)state;
    static const int ends[] = {SIGTERM, SIGKILL, SIGKILL, SIGTERM};
    int64_t value = 0;

    for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        int64_t found;
        struct mr_options options = {.size = sizeof(options), .reconnect_ns = MR_NO_RECONNECT};
        assert_int_equal(mr_connect(node.socket, &options, &client), MR_OK);
        assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
        assert_int_equal(mr_counter_get(counter, &found), MR_OK);
        assert_int_equal(found, value);
        value = count_up(500);
        end_node(ends[i]);
        assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE);
        mr_close(client);
        client = NULL;
        node_start(&node);
    }
    assert_int_equal(value, 2000);
}

static int close_in_a_child(void *argument)
{
    mr_close(client);
    return open_descriptors() == *(unsigned *)argument ? 0 : 1;
}

/* What a child that closes the handle keeps open would be the parent's to the node, for as long as the child lives. The
 * thread that renews may be at something as the child is made; mostly it is not. */
static void test_a_child_that_closes_keeps_nothing_open(void **state)
{
    (void)state;
    unsigned before = open_descriptors();

    connect_briefly();
    assert_true(wait_for(node_partition(&node, 1).channels == 2));
    assert_true(wait_for(fork_wait(fork_run(close_in_a_child, &before), WAIT_MS) == 0));
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_a_sleeping_program_keeps_its_session),
        TEST(test_so_it_does_while_workers_die),
        TEST(test_a_stopped_program_loses_its_session),
        TEST(test_a_dead_program_loses_its_session),
        TEST(test_closing_ends_the_session_at_once),
        TEST(test_what_was_acknowledged_is_there_after_the_node_s_end),
        TEST(test_a_child_that_closes_keeps_nothing_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
