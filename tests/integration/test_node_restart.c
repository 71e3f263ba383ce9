/* SPDX-License-Identifier: Apache-2.0 */
/* The whole node ends, in order or by SIGKILL, under load, and is started again on the same directory: what was
 * acknowledged is there, and nothing that was never sent. In `memory` nothing is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <millrace/counter.h>
#include <millrace/map.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#define KEYS 64
#define IN_FLIGHT 400
#define ROUND 2000 /* a node ends after so many more acknowledged calls */

/* Counts in a counter, and writes the number of each write into a map, pipelined, until the node is gone. Over all the
 * node's lives. */
struct writer {
    struct node *node;
    const char *counter_name, *map_name;
    pthread_t thread;
    _Atomic uint64_t acknowledged; /* calls of both kinds */
    uint64_t increments_sent, increments_acknowledged;
    uint64_t last_put;                               /* number of the last write that was sent */
    uint64_t sent_for[KEYS], acknowledged_for[KEYS]; /* the last numbers sent for, and acknowledged for, each key */
    unsigned open;
    char failure[256];
};

static void fail_writer(struct writer *writer, const char *what, const char *message)
{
    if (writer->failure[0] == '\0')
        snprintf(writer->failure, sizeof(writer->failure), "%s: %s", what, message);
}

/* An answer, or the end of the node. False: not an acknowledgement. */
static bool met(struct writer *writer, const struct mr_result *result)
{
    char message[160];

    writer->open--;
    if (result->status == MR_OK) {
        atomic_fetch_add(&writer->acknowledged, 1);
        return true;
    }
    if (result->status != MR_NO_NODE && result->status != MR_UNAVAILABLE && result->status != MR_CANCELED) {
        snprintf(message, sizeof(message), "%s: %.*s", mr_status_name(result->status), (int)result->message.size,
                 (const char *)result->message.data);
        fail_writer(writer, "a call failed", message);
    }
    return false;
}

static void increment_met(mr_client *client, const struct mr_result *result)
{
    struct writer *writer = result->arg;

    (void)client;
    if (!met(writer, result))
        return;
    writer->increments_acknowledged++;
    if (result->as.number < (int64_t)writer->increments_acknowledged ||
        result->as.number > (int64_t)writer->increments_sent)
        fail_writer(writer, "an increment", "a value that cannot be");
}

static void put_met(mr_client *client, const struct mr_result *result)
{
    struct writer *writer = result->arg;
    uint64_t number = 0;

    (void)client;
    if (!met(writer, result))
        return;
    memcpy(&number, result->as.entry.value.data, sizeof(number));
    writer->acknowledged_for[number % KEYS] = number;
}

static enum mr_status start_put(struct writer *writer, mr_map *map)
{
    char key[16];
    uint64_t number = writer->last_put + 1;
    struct mr_bytes value = {.data = &number, .size = sizeof(number)};

    snprintf(key, sizeof(key), "key-%u", (unsigned)(number % KEYS));
    enum mr_status status =
        mr_map_put_start(map, mr_text(key), value, NULL, (struct mr_then){.done = put_met, .arg = writer}, NULL);
    if (status == MR_OK)
        writer->sent_for[number % KEYS] = writer->last_put = number;
    return status;
}

static enum mr_status start_one(struct writer *writer, mr_counter *counter, mr_map *map)
{
    enum mr_status status;

    if ((writer->increments_sent + writer->last_put) % 3 == 0) {
        status = start_put(writer, map);
    } else {
        status = mr_counter_increment_start(counter, 1, (struct mr_then){.done = increment_met, .arg = writer}, NULL);
        writer->increments_sent += status == MR_OK;
    }
    writer->open += status == MR_OK;
    return status;
}

/* Until the node goes away; the first call that says so ends it. */
static void write_on(struct writer *writer, mr_client *client, mr_counter *counter, mr_map *map)
{
    for (;;) {
        enum mr_status status = MR_OK;
        while (status == MR_OK && writer->open < IN_FLIGHT)
            status = start_one(writer, counter, map);
        if (status != MR_OK && status != MR_AGAIN)
            return;
        status = mr_run(client, (int64_t)WAIT_MS * 1000000, NULL);
        if (status != MR_OK) {
            if (status == MR_AGAIN)
                fail_writer(writer, "no answer in time", mr_message(client));
            return;
        }
    }
}

static void *run_writer(void *argument)
{
    struct writer *writer = argument;
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    mr_map *map = NULL;

    struct mr_options options = {.size = sizeof(options), .reconnect_ns = MR_NO_RECONNECT};
    if (mr_connect(writer->node->socket, &options, &client) != MR_OK ||
        mr_counter_open(client, writer->counter_name, &counter) != MR_OK ||
        mr_map_open(client, writer->map_name, &map) != MR_OK)
        fail_writer(writer, "cannot begin", mr_message(client));
    else
        write_on(writer, client, counter, map);
    mr_close(client);
    if (writer->open != 0)
        fail_writer(writer, "the handle is closed", "and not all its requests were ended");
    return NULL;
}

/* What there is lies between what was acknowledged and what was sent. From here on that is what is counted from. */
static void check_and_settle(struct writer *writer)
{
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    mr_map *map = NULL;
    int64_t value = -1;

    assert_int_equal(mr_connect(writer->node->socket, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, writer->counter_name, &counter), MR_OK);
    assert_int_equal(mr_map_open(client, writer->map_name, &map), MR_OK);
    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    assert_in_range((uint64_t)value, writer->increments_acknowledged, writer->increments_sent);
    writer->increments_acknowledged = writer->increments_sent = (uint64_t)value;
    for (unsigned k = 0; k < KEYS; k++) {
        char key[16];
        struct mr_entry entry;
        uint64_t number = 0;
        snprintf(key, sizeof(key), "key-%u", k);
        enum mr_status status = mr_map_get(map, mr_text(key), &entry);
        if (status == MR_OK)
            memcpy(&number, entry.value.data, sizeof(number));
        else
            assert_int_equal(status, MR_NOT_FOUND);
        assert_in_range(number, writer->acknowledged_for[k], writer->sent_for[k]);
        writer->acknowledged_for[k] = writer->sent_for[k] = number;
    }
    mr_close(client);
}

enum end { BY_TERM, BY_KILL_OF_ALL, BY_KILL_OF_SUPERVISOR, ENDS };

static void end_by(struct node *node, enum end how)
{
    switch (how) {
    case BY_TERM:
        assert_int_equal(node_stop(node), 0);
        assert_int_not_equal(access(node->socket, F_OK), 0);
        break;
    case BY_KILL_OF_ALL:
        node_kill_all(node);
        break;
    case BY_KILL_OF_SUPERVISOR:
    case ENDS:
        node_kill(node);
        break;
    }
}

/* A life of the node under the load of all writers, and its end. */
static void live_and_end(struct node *node, struct writer *writers, unsigned count, enum end how)
{
    uint64_t until[2];

    assert_true(count <= 2);
    for (unsigned i = 0; i < count; i++) {
        until[i] = atomic_load(&writers[i].acknowledged) + ROUND;
        assert_int_equal(pthread_create(&writers[i].thread, NULL, run_writer, &writers[i]), 0);
    }
    for (unsigned i = 0; i < count; i++)
        assert_true(wait_for(atomic_load(&writers[i].acknowledged) >= until[i]));
    end_by(node, how);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
        if (writers[i].failure[0] != '\0')
            fail_msg("writer %u: %s", i, writers[i].failure);
    }
}

static void test_what_was_acknowledged_is_there(void **state)
{
    const char *const options[] = {"--partitions", "2", "--durability", *state, NULL};
    struct node node;
    struct writer writers[2] = {{.node = &node, .counter_name = "a", .map_name = "b"},
                                {.node = &node, .counter_name = "c", .map_name = "d"}};

    node_begin(&node, options);
    for (unsigned life = 0; life < 2 * ENDS; life++) {
        live_and_end(&node, writers, 2, life % ENDS);
        node_start(&node);
        for (unsigned i = 0; i < 2; i++)
            check_and_settle(&writers[i]);
    }
    assert_int_equal(node_stop(&node), 0);
    assert_int_not_equal(access(node.socket, F_OK), 0);
    node_end(&node);
}

static void test_memory_is_empty_again(void **state)
{
    const char *const options[] = {"--partitions", "2", "--durability", "memory", NULL};
    struct node node;

    (void)state;
    node_begin(&node, options);
    for (unsigned life = 0; life < ENDS; life++) {
        struct writer writer = {.node = &node, .counter_name = "a", .map_name = "b"};
        live_and_end(&node, &writer, 1, life);
        node_start(&node);
        struct writer nothing = {.node = &node, .counter_name = "a", .map_name = "b"};
        for (uint32_t p = 1; p <= 2; p++) {
            assert_int_equal(node_partition(&node, p).applied, 0);
            assert_int_equal(node_partition(&node, p).sessions, 0);
        }
        check_and_settle(&nothing);
    }
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

/* What an orderly end leaves is found whole: the next life cuts nothing off. */
static void test_an_orderly_end_leaves_nothing_torn(void **state)
{
    const char *const options[] = {"--durability", *state, NULL};
    struct node node;
    struct writer writer = {.node = &node, .counter_name = "a", .map_name = "b"};

    node_begin(&node, options);
    live_and_end(&node, &writer, 1, BY_TERM);
    node_start(&node);
    assert_true(node_said(&node, "recovered"));
    assert_false(node_said(&node, "cut off"));
    check_and_settle(&writer);
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

int main(void)
{
    static char sync[] = "sync", async[] = "async";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_what_was_acknowledged_is_there, sync),
        cmocka_unit_test_prestate(test_what_was_acknowledged_is_there, async),
        cmocka_unit_test(test_memory_is_empty_again),
        cmocka_unit_test_prestate(test_an_orderly_end_leaves_nothing_torn, sync),
        cmocka_unit_test_prestate(test_an_orderly_end_leaves_nothing_torn, async),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
