/* SPDX-License-Identifier: Apache-2.0 */
/* The client library over the deaths of a real worker: a program that goes on calling sees no error, every acknowledged
 * call counts once, and no result is given twice. */
#include <millrace/counter.h>
#include <millrace/map.h>

#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>

static struct node node;
static mr_client *client;

static int set_up(void **state)
{
    (void)state;
    node_begin(&node, NULL);
    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mr_close(client);
    node_end(&node);
    return 0;
}

/* ---- A thread that kills workers, one as soon as the one before is replaced ---- */

struct killer {
    pthread_t thread;
    atomic_uint kills;
    atomic_bool stop;
    unsigned most;
};

static void *kill_workers(void *argument)
{
    struct killer *killer = argument;

    while (!killer->stop && killer->kills < killer->most) {
        pid_t before = node_kill_worker(&node, 1);
        node_wait_worker(&node, 1, before);
        killer->kills++;
    }
    return NULL;
}

static void start_killing(struct killer *killer, unsigned most)
{
    *killer = (struct killer){.most = most};
    assert_int_equal(pthread_create(&killer->thread, NULL, kill_workers, killer), 0);
}

static void stop_killing(struct killer *killer)
{
    killer->stop = true;
    assert_int_equal(pthread_join(killer->thread, NULL), 0);
}

/* ---- Calls that wait ---- */

static void test_increments_in_a_loop(void **state)
{
    (void)state;
    struct killer killer;
    mr_counter *counter;
    int64_t acknowledged = 0;
    int64_t value;

    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    start_killing(&killer, 100);
    /* Where the disk is slow, hardly one is acknowledged between two kills. */
    while (killer.kills < 100 || acknowledged <= 100) {
        enum mr_status status = mr_counter_increment(counter, 1, &value);
        if (status != MR_OK)
            fail_msg("after %d kills: %s: %s", (int)killer.kills, mr_status_name(status), mr_message(client));
        assert_int_equal(value, ++acknowledged);
    }
    stop_killing(&killer);
    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    assert_int_equal(value, acknowledged);
}

static void test_opening_and_closing_in_a_loop(void **state)
{
    (void)state;
    struct killer killer;
    int64_t acknowledged = 0;

    start_killing(&killer, 30);
    while (killer.kills < 30) {
        mr_client *other;
        mr_counter *counter;
        int64_t value = 0;
        char name[32];
        enum mr_status status;
        snprintf(name, sizeof(name), "counter %d", (int)(acknowledged % 3));
        if ((status = mr_connect(node.socket, NULL, &other)) != MR_OK ||
            (status = mr_counter_open(other, name, &counter)) != MR_OK ||
            (status = mr_counter_increment(counter, 1, &value)) != MR_OK ||
            (status = mr_counter_close(counter)) != MR_OK)
            fail_msg("after %d kills: %s: %s", (int)killer.kills, mr_status_name(status), mr_message(other));
        assert_int_equal(value, 1 + acknowledged / 3);
        acknowledged++;
        mr_close(other);
    }
    stop_killing(&killer);
    /* Each session was closed, and only once: none is left but those that mr_close() gave no second for. */
    assert_true(wait_for(node_partition(&node, 1).sessions <= 1));
}

/* ---- Pipelined ---- */

struct tally {
    uint64_t answered;
    uint64_t failed;
    int64_t last; /* values come in order, each once */

    uint64_t queries;
};

static void on_increment(mr_client *of, const struct mr_result *result)
{
    struct tally *tally = result->arg;

    (void)of;
    tally->answered++;
    if (result->status != MR_OK) {
        if (tally->failed++ == 0)
            print_error("%s: %.*s\n", mr_status_name(result->status), (int)result->message.size,
                        (const char *)result->message.data);
        return;
    }

    tally->last = result->as.number > tally->last ? result->as.number : tally->last;
}

static void on_query(mr_client *of, const struct mr_result *result)
{
    struct tally *tally = result->arg;

    (void)of;
    tally->queries++;
    if (result->status != MR_OK && tally->failed++ == 0)
        print_error("query: %s: %.*s\n", mr_status_name(result->status), (int)result->message.size,
                    (const char *)result->message.data);
}

static void test_a_thousand_in_flight(void **state)
{
    (void)state;
    struct killer killer;
    struct tally tally = {0};
    mr_counter *counter;
    uint64_t started = 0;
    uint64_t asked = 0;
    int64_t value;

    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    start_killing(&killer, 30);
    while (killer.kills < 30 || tally.answered < started || tally.queries < asked) {
        while (killer.kills < 30 && started - tally.answered < 1000) {
            enum mr_status status =
                mr_counter_increment_start(counter, 1, (struct mr_then){on_increment, &tally}, NULL);
            if (status == MR_AGAIN)
                break;
            assert_int_equal(status, MR_OK);
            started++;
            if (started % 10 == 0 && mr_counter_get_start(counter, (struct mr_then){on_query, &tally}, NULL) == MR_OK)
                asked++;
        }
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    }
    stop_killing(&killer);
    assert_int_equal(tally.answered, started);
    assert_int_equal(tally.queries, asked);
    assert_int_equal(tally.failed, 0);
    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    assert_int_equal(value, started);
    assert_int_equal(tally.last, started);
}

static void test_a_small_ring_kept_full(void **state)
{
    (void)state;
    struct mr_options options = {.size = sizeof(options), .ring_bytes = 16384};
    struct killer killer;
    struct tally tally = {0};
    mr_client *other;
    mr_map *map;
    uint64_t started = 0;
    char value[700];
    char key[16];
    uint64_t size;

    memset(value, 'v', sizeof(value));
    assert_int_equal(mr_connect(node.socket, &options, &other), MR_OK);
    assert_int_equal(mr_map_open(other, "words", &map), MR_OK);
    assert_int_equal(mr_map_put(map, mr_text("0"), mr_text(""), NULL, NULL), MR_OK); /* what the queries ask for */
    start_killing(&killer, 20);
    while (killer.kills < 20 || tally.queries < started) {
        while (killer.kills < 20) {
            snprintf(key, sizeof(key), "%u", (unsigned)(started % 500));
            struct mr_then then = {on_query, &tally};
            struct mr_bytes bytes = {value, sizeof(value)};
            enum mr_status status = started % 3 == 2 ? mr_map_get_start(map, mr_text("0"), then, NULL)
                                                     : mr_map_put_start(map, mr_text(key), bytes, NULL, then, NULL);
            if (status == MR_AGAIN)
                break;
            assert_int_equal(status, MR_OK);
            started++;
        }
        enum mr_status status = mr_run(other, MR_FOR_EVER, NULL);
        assert_true(status == MR_OK || status == MR_AGAIN);
    }
    stop_killing(&killer);
    assert_int_equal(tally.failed, 0);
    assert_int_equal(mr_map_size(map, &size), MR_OK);
    assert_true(size >= 1 && size <= 500);
    mr_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_increments_in_a_loop),
        TEST(test_opening_and_closing_in_a_loop),
        TEST(test_a_thousand_in_flight),
        TEST(test_a_small_ring_kept_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
