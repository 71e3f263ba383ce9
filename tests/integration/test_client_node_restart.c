/* SPDX-License-Identifier: Apache-2.0 */
/* What clients see of the whole node's end and return: a pause. Calls that wait, pipelined ones, streams and a program
 * that sleeps on mr_fd() go on as if nothing had happened, each command applied exactly once, in order. And what is
 * told where that cannot be: another directory, time that is over, limits that have changed. */
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECONDS(n) ((int64_t)(n)*1000000000)
#define LIVES 6
#define IN_FLIGHT 500

static struct node node;

static int set_up(void **state)
{
    static const char *const options[] = {"--partitions", "2", NULL};
    (void)state;
    node_begin(&node, options);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    node_end(&node);
    return 0;
}

static void end_node(unsigned how)
{
    if (how % 3 == 0)
        assert_int_equal(node_stop(&node), 0);
    else if (how % 3 == 1)
        node_kill_all(&node);
    else
        node_kill(&node);
}

static mr_client *connect_with(struct mr_options options)
{
    mr_client *client;

    options.size = sizeof(options);
    if (mr_connect(node.socket, &options, &client) != MR_OK)
        fail_msg("%s", mr_message(client));
    return client;
}

static mr_client *connect_plainly(void)
{
    return connect_with((struct mr_options){.call_timeout_ns = 0});
}

/* A program in a thread of its own, over many lives of the node. */
struct program {
    pthread_t thread;
    mr_client *client;
    _Atomic uint64_t done; /* calls that were answered */
    atomic_bool stop;
    uint64_t started;
    unsigned open;
    int64_t sum;
    char failure[300];
};

static void failed(struct program *program, const char *what, enum mr_status status, const char *message, int size)
{
    if (program->failure[0] == '\0')
        snprintf(program->failure, sizeof(program->failure), "%s: %s: %.*s", what, mr_status_name(status), size,
                 message);
}

static void call_failed(struct program *program, const char *what, enum mr_status status)
{
    failed(program, what, status, mr_message(program->client), 200);
}

static void begin(struct program *program, void *(*body)(void *), mr_client *client)
{
    *program = (struct program){.client = client};
    assert_int_equal(pthread_create(&program->thread, NULL, body, program), 0);
}

/* The node ends and begins again many times, each time after the programs have got on. */
static void live_many_lives(struct program *programs, unsigned count, uint64_t calls)
{
    for (unsigned life = 0; life < LIVES; life++) {
        for (unsigned i = 0; i < count; i++) {
            uint64_t until = programs[i].done + calls;
            if (!wait_for(programs[i].done >= until || programs[i].failure[0] != '\0'))
                fail_msg("life %u: program %u got stuck: %s", life, i, mr_message(programs[i].client));
        }
        end_node(life);
        node_start(&node);
    }
    for (unsigned i = 0; i < count; i++) {
        programs[i].stop = true;
        assert_int_equal(pthread_join(programs[i].thread, NULL), 0);
        if (programs[i].failure[0] != '\0')
            fail_msg("program %u: %s", i, programs[i].failure);
    }
}

/* ---- Calls that wait ---- */

static void *call_on(void *argument)
{
    struct program *program = argument;
    mr_counter *counter = NULL;
    mr_counter *other = NULL;
    mr_map *map = NULL;
    enum mr_status status = mr_counter_open(program->client, "blocking", &counter);

    for (int64_t i = 1; status == MR_OK && !program->stop; i++) {
        struct mr_entry entry;
        char name[16];
        int64_t value = 0;
        /* Opening and closing services are commands without a number. */
        snprintf(name, sizeof(name), "n%d", (int)(i % 7));
        if ((status = mr_counter_increment(counter, 1, &value)) != MR_OK || value != i)
            call_failed(program, "increment", status);
        else if ((status = mr_counter_get(counter, &value)) != MR_OK || value != i)
            call_failed(program, "get", status);
        else if ((status = mr_map_open(program->client, "m", &map)) != MR_OK ||
                 (status = mr_map_put(map, mr_text("k"), (struct mr_bytes){&i, sizeof(i)}, NULL, NULL)) != MR_OK ||
                 (status = mr_map_get(map, mr_text("k"), &entry)) != MR_OK ||
                 memcmp(entry.value.data, &i, sizeof(i)) != 0 || (status = mr_map_close(map)) != MR_OK)
            call_failed(program, "map", status);
        else if ((status = mr_counter_open(program->client, name, &other)) != MR_OK ||
                 (status = mr_counter_close(other)) != MR_OK)
            call_failed(program, "opening and closing", status);
        program->done++;
        if (program->failure[0] != '\0')
            break;
    }
    if (status != MR_OK)
        call_failed(program, "at first", status);
    return NULL;
}

static void test_calls_that_wait(void **state)
{
    (void)state;
    struct program program;

    begin(&program, call_on, connect_plainly());
    live_many_lives(&program, 1, 30);
    mr_close(program.client);
    assert_true(wait_for(node_partition(&node, 1).sessions + node_partition(&node, 2).sessions == 0));
}

/* ---- Pipelined ---- */

static void counted(mr_client *client, const struct mr_result *result)
{
    struct program *program = result->arg;

    (void)client;
    program->open--;
    /* Alone at its counter, and in order: the value is the number of the call. */
    if (result->status != MR_OK)
        failed(program, "an increment", result->status, result->message.data, (int)result->message.size);
    else if (result->as.number != ++program->sum)
        failed(program, "an increment out of order, or twice", result->status, "", 0);
    program->done++;
}

static void written(mr_client *client, const struct mr_result *result)
{
    struct program *program = result->arg;

    (void)client;
    program->open--;
    if (result->status != MR_OK)
        failed(program, "a put", result->status, result->message.data, (int)result->message.size);
    program->done++;
}

static enum mr_status start_next(struct program *program, mr_counter *counter, mr_map *map)
{
    char value[512] = "";
    char key[16];

    if (program->started % 2 == 0)
        return mr_counter_increment_start(counter, 1, (struct mr_then){counted, program}, NULL);
    snprintf(key, sizeof(key), "%u", (unsigned)(program->started % 16));
    snprintf(value, sizeof(value), "%llu", (unsigned long long)program->started);
    return mr_map_put_start(map, mr_text(key), (struct mr_bytes){value, sizeof(value)}, NULL,
                            (struct mr_then){written, program}, NULL);
}

static void *pipeline(void *argument)
{
    struct program *program = argument;
    mr_counter *counter = NULL;
    mr_map *map = NULL;
    char name[32];
    enum mr_status status;

    snprintf(name, sizeof(name), "%p", (void *)program);
    if ((status = mr_counter_open(program->client, name, &counter)) != MR_OK ||
        (status = mr_map_open(program->client, name + 1, &map)) != MR_OK)
        call_failed(program, "opening", status);
    while (program->failure[0] == '\0' && (!program->stop || program->open > 0)) {
        status = MR_OK;
        while (status == MR_OK && !program->stop && program->open < IN_FLIGHT) {
            status = start_next(program, counter, map);
            if (status == MR_OK) {
                program->started++;
                program->open++;
            }
        }
        if (status != MR_OK && status != MR_AGAIN)
            call_failed(program, "starting", status);
        status = mr_run(program->client, SECONDS(60), NULL);
        if (status != MR_OK)
            call_failed(program, "running", status);
    }
    int64_t value = 0;
    if (program->failure[0] == '\0' &&
        (mr_counter_get(counter, &value) != MR_OK || value != program->sum || program->sum == 0))
        failed(program, "the sum", MR_OK, "is wrong", 8);
    for (uint64_t i = program->started - 16; program->failure[0] == '\0' && i < program->started; i++) {
        struct mr_entry entry;
        char key[16];
        snprintf(key, sizeof(key), "%u", (unsigned)(i % 16));
        if (i % 2 != 0 && (mr_map_get(map, mr_text(key), &entry) != MR_OK || strtoull(entry.value.data, NULL, 10) != i))
            failed(program, "the map", MR_OK, "is wrong", 8);
    }
    return NULL;
}

static void test_pipelined(void **state)
{
    (void)state;
    static const int64_t call_timeouts[] = {0, SECONDS(100)};
    struct program programs[2];

    for (int i = 0; i < 2; i++)
        begin(&programs[i], pipeline,
              connect_with((struct mr_options){.call_timeout_ns = call_timeouts[i], .ring_bytes = i == 0 ? 0 : 16384}));
    live_many_lives(programs, 2, 2000);
    for (int i = 0; i < 2; i++)
        mr_close(programs[i].client);
}

/* ---- Streams ---- */

static void *listen_on(void *argument)
{
    struct program *program = argument;
    struct mr_event event;
    mr_map *map = NULL;
    mr_stream *stream = NULL;
    enum mr_status status = mr_map_open(program->client, "events", &map);

    if (status == MR_OK)
        status = mr_map_events(map, mr_text(""), false, &stream);
    for (uint64_t expected = 0; status == MR_OK; expected++) {
        uint64_t number = 0;
        status = mr_stream_next(stream, SECONDS(60), &event);
        if (status == MR_OK && event.entry.value.size == sizeof(number))
            memcpy(&number, event.entry.value.data, sizeof(number));
        if (status == MR_OK && number != expected) {
            failed(program, "a gap, or a repeat", status, "", 0);
            return NULL;
        }
        if (status == MR_OK && number == UINT64_MAX)
            break;
        program->done++;
        if (program->stop && expected >= program->started)
            return NULL;
    }
    call_failed(program, "the stream", status);
    return NULL;
}

static void test_a_stream(void **state)
{
    (void)state;
    struct program listener;
    mr_client *client = connect_plainly();
    uint64_t number = 0;
    mr_map *map;

    begin(&listener, listen_on, connect_with((struct mr_options){.ring_bytes = 16384}));
    assert_true(wait_for(listener.done >= 1)); /* it listens */
    assert_int_equal(mr_map_open(client, "events", &map), MR_OK);
    for (unsigned life = 0; life < LIVES; life++) {
        for (int i = 0; i < 300; i++) {
            number++;
            assert_int_equal(mr_map_put(map, mr_text("k"), (struct mr_bytes){&number, sizeof(number)}, NULL, NULL),
                             MR_OK);
        }
        end_node(life); /* while it takes them */
        node_start(&node);
    }
    listener.started = number + 1;
    listener.stop = true;
    number++;
    assert_int_equal(mr_map_put(map, mr_text("k"), (struct mr_bytes){&number, sizeof(number)}, NULL, NULL), MR_OK);
    assert_int_equal(pthread_join(listener.thread, NULL), 0);
    if (listener.failure[0] != '\0')
        fail_msg("%s", listener.failure);
    mr_close(listener.client);
    mr_close(client);
}

static void ignore(mr_client *client, const struct mr_result *result)
{
    (void)client;
    (void)result;
}

/* Has the library seen that there is no node? */
static bool is_away(mr_client *client, mr_map *map)
{
    mr_run(client, MR_NO_WAIT, NULL);
    return mr_map_get_start(map, mr_text("?"), (struct mr_then){ignore, NULL}, NULL) == MR_AGAIN;
}

static void test_a_walk(void **state)
{
    (void)state;
    mr_client *client = connect_plainly();
    struct mr_event event;
    mr_stream *untouched, *begun;
    mr_map *map;

    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "%d", i);
        while (mr_map_put_start(map, mr_text(key), mr_text("value"), NULL, (struct mr_then){ignore, NULL}, NULL) ==
               MR_AGAIN)
            assert_int_equal(mr_run(client, SECONDS(60), NULL), MR_OK);
    }
    uint64_t size = 0;
    assert_true(wait_for(mr_map_size(map, &size) == MR_OK && size == 2000));
    assert_int_equal(mr_map_entries(map, &begun), MR_OK);
    assert_int_equal(mr_map_entries(map, &untouched), MR_OK);
    assert_int_equal(mr_stream_next(begun, SECONDS(60), &event), MR_OK);
    node_kill_all(&node);
    assert_true(wait_for(is_away(client, map)));
    node_start(&node);
    unsigned count = 0;
    enum mr_status status;
    while ((status = mr_stream_next(untouched, SECONDS(60), &event)) == MR_OK)
        count++;
    assert_int_equal(status, MR_END);
    assert_int_equal(count, 2000);
    /* Of the other one all may have come before the end; if not, it says so. */
    count = 1;
    while ((status = mr_stream_next(begun, SECONDS(60), &event)) == MR_OK)
        count++;
    assert_true(status == MR_UNAVAILABLE || (status == MR_END && count == 2000));
    mr_close(client);
}

/* ---- Programs that do nothing ---- */

static void test_an_idle_program_keeps_its_sessions(void **state)
{
    (void)state;
    struct mr_options options = {.session_timeout_ns = SECONDS(2)}; /* renewed at a third of it */
    mr_client *idle = connect_with(options);
    mr_counter *counters[8];
    int64_t value;

    for (int i = 0; i < 8; i++) { /* in both partitions */
        char name[8];
        snprintf(name, sizeof(name), "c%d", i);
        assert_int_equal(mr_counter_open(idle, name, &counters[i]), MR_OK);
        assert_int_equal(mr_counter_increment(counters[i], 1, NULL), MR_OK);
    }
    for (unsigned life = 0; life < 3; life++) {
        mr_counter *counter;
        end_node(life);
        node_start(&node);
        /* A session that nobody renews, with the same timeout, comes and goes; the idle program makes no call. */
        mr_client *other = connect_with(options);
        assert_int_equal(mr_counter_open(other, "c0", &counter), MR_OK);
        mr_detach(other);
        assert_true(wait_for(node_partition(&node, 1).sessions + node_partition(&node, 2).sessions == 2));
    }
    for (int i = 0; i < 8; i++) {
        if (mr_counter_increment(counters[i], 1, &value) != MR_OK)
            fail_msg("%s", mr_message(idle));
        assert_int_equal(value, 2);
    }
    mr_close(idle);
}

/* ---- A program that sleeps on the descriptor ---- */

static void test_sleeping_on_the_descriptor(void **state)
{
    (void)state;
    struct program program = {.client = connect_plainly()};
    struct pollfd fd = {.fd = mr_fd(program.client), .events = POLLIN};
    mr_counter *counter;

    assert_int_equal(mr_counter_open(program.client, "hits", &counter), MR_OK);
    for (unsigned life = 0; life < 3; life++) {
        for (int i = 0; i < 100; i++)
            while (mr_counter_increment_start(counter, 1, (struct mr_then){counted, &program}, NULL) == MR_AGAIN)
                assert_int_equal(mr_run(program.client, MR_FOR_EVER, NULL), MR_OK);
        program.open += 100;
        if (life != 1)
            mr_flush(program.client);
        end_node(life);
        bool back = false;
        while (program.open > 0) {
            enum mr_status status = mr_run(program.client, MR_NO_WAIT, NULL);
            assert_true(status == MR_OK || status == MR_AGAIN);
            if (program.open == 0)
                break;
            status = mr_arm(program.client);
            assert_true(status == MR_OK || status == MR_AGAIN);
            if (!back && status == MR_OK) {
                node_start(&node); /* while it sleeps */
                back = true;
            }
            if (status == MR_OK && poll(&fd, 1, (int)WAIT_MS) != 1)
                fail_msg("nobody wakes it");
        }
        assert_string_equal(program.failure, "");
        assert_int_equal(mr_fd(program.client), fd.fd);
        if (!back)
            node_start(&node);
    }
    assert_int_equal(program.sum, 300);
    mr_close(program.client);
}

/* ---- Times ---- */

/* On a busy machine it may take longer than a call's limit; so may opening a counter. */
static bool connects(mr_client **client, const struct mr_options *options)
{
    mr_close(*client);
    return mr_connect(node.socket, options, client) == MR_OK;
}

static void test_a_call_s_time_runs_while_the_node_is_away(void **state)
{
    (void)state;
    const struct mr_options options = {.size = sizeof(options), .call_timeout_ns = SECONDS(1) / 10};
    mr_client *client = NULL;
    mr_counter *counter, *other;
    int64_t value;

    assert_true(wait_for(connects(&client, &options)));
    assert_true(wait_for(mr_counter_open(client, "hits", &counter) == MR_OK));
    node_kill_all(&node);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_TIMEOUT);
    assert_int_equal(mr_counter_get(counter, &value), MR_TIMEOUT);
    assert_true(strlen(mr_message(client)) > 0);
    for (int i = 0; i < 8; i++) { /* also where there was no channel yet */
        char name[8];
        snprintf(name, sizeof(name), "c%d", i);
        assert_int_equal(mr_counter_open(client, name, &other), MR_TIMEOUT);
    }
    struct mr_bytes encoded;
    assert_int_equal(mr_node_status(client, &encoded), MR_TIMEOUT);
    assert_int_equal(mr_node_sessions(client, 1, &encoded), MR_TIMEOUT);
    node_start(&node);
    assert_true(wait_for(mr_counter_get(counter, &value) == MR_OK));
    int64_t before = value;
    assert_in_range(before, 0, 1);
    assert_true(wait_for(mr_counter_increment(counter, 1, &value) == MR_OK));
    assert_true(value >= before + 1);
    mr_close(client);
}

static void test_the_node_s_time_is_over(void **state)
{
    (void)state;
    mr_client *client = connect_with((struct mr_options){.reconnect_ns = SECONDS(1) / 5});
    mr_counter *counter;
    struct mr_event event;
    mr_stream *stream;
    mr_map *map;

    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    assert_int_equal(mr_map_events(map, mr_text(""), false, &stream), MR_OK);
    assert_int_equal(mr_stream_next(stream, SECONDS(60), &event), MR_OK);
    assert_int_equal(node_stop(&node), 0);
    assert_int_equal(mr_stream_next(stream, SECONDS(60), &event), MR_NO_NODE);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE);
    assert_non_null(strstr(mr_message(client), "no node at"));
    assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_NO_NODE);
    assert_int_equal(mr_arm(client), MR_NO_NODE);
    node_start(&node);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE); /* for good */
    mr_close(client);

    client = connect_with((struct mr_options){.reconnect_ns = MR_NO_RECONNECT});
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    node_kill_all(&node);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE);
    assert_non_null(strstr(mr_message(client), "went away"));
    mr_close(client);
}

static void test_closing_while_the_node_is_away(void **state)
{
    (void)state;
    for (int detach = 0; detach < 2; detach++) {
        struct program program = {.client = connect_plainly()};
        mr_counter *counter;
        assert_int_equal(mr_counter_open(program.client, "hits", &counter), MR_OK);
        node_kill_all(&node);
        (void)mr_run(program.client, MR_NO_WAIT, NULL);
        uint64_t before = wait_now_ms();
        if (detach)
            mr_detach(program.client);
        else
            mr_close(program.client);
        assert_true(wait_now_ms() - before < WAIT_MS / 2);
        node_start(&node);
    }
}

/* ---- Another directory, other limits ---- */

static void test_a_node_in_memory_begins_anew(void **state)
{
    (void)state;
    static const char *const options[] = {"--partitions", "2", "--durability", "memory", NULL};
    mr_counter *counter, *again;
    struct mr_event event;
    mr_stream *stream;
    int64_t value;
    mr_map *map;

    node_end(&node);
    node_begin(&node, options);
    mr_client *client = connect_plainly();
    for (int life = 0; life < 3; life++) {
        assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
        assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
        assert_int_equal(mr_map_events(map, mr_text(""), false, &stream), MR_OK);
        assert_int_equal(mr_stream_next(stream, SECONDS(60), &event), MR_OK);
        for (int64_t i = 1; i <= 10; i++) {
            assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
            assert_int_equal(value, i);
        }
        end_node((unsigned)life);
        node_start(&node);
        assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_SESSION_LOST);
        assert_non_null(strstr(mr_message(client), "another data directory"));
        assert_int_equal(mr_counter_get(counter, &value), MR_SESSION_LOST);
        assert_int_equal(mr_stream_next(stream, SECONDS(60), &event), MR_SESSION_LOST);
        assert_int_equal(mr_counter_open(client, "hits", &again), MR_OK);
        assert_int_equal(mr_counter_get(again, &value), MR_OK);
        assert_int_equal(value, 0);
        assert_int_equal(mr_counter_close(counter), MR_OK);
        assert_int_equal(mr_counter_close(again), MR_OK);
        mr_stream_close(stream);
        assert_int_equal(mr_map_close(map), MR_OK);
    }
    mr_close(client);
}

static void last_met(mr_client *client, const struct mr_result *result)
{
    (void)client;
    *(struct mr_result *)result->arg = *result;
}

static void test_smaller_limits(void **state)
{
    (void)state;
    static char large[20000];
    struct mr_result results[2] = {{.last = false}, {.last = false}};
    mr_client *client = connect_with((struct mr_options){.ring_bytes = 262144});
    mr_map *map;

    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    assert_int_equal(mr_map_put(map, mr_text("k"), mr_text("v"), NULL, NULL), MR_OK);
    node_kill_all(&node);
    /* Nobody reads it any more. */
    assert_int_equal(mr_map_put_start(map, mr_text("large"), (struct mr_bytes){large, sizeof(large)}, NULL,
                                      (struct mr_then){last_met, &results[0]}, NULL),
                     MR_OK);
    assert_int_equal(
        mr_map_put_start(map, mr_text("small"), mr_text("v"), NULL, (struct mr_then){last_met, &results[1]}, NULL),
        MR_OK);
    mr_flush(client);
    unsigned count = 0;
    while (node.options[count] != NULL)
        count++;
    node.options[count] = "--ring-bytes";
    node.options[count + 1] = "32K";
    node.options[count + 2] = "--max-payload";
    node.options[count + 3] = "4K";
    node.options[count + 4] = NULL;
    node_start(&node);
    assert_true(wait_for((mr_run(client, MR_NO_WAIT, NULL), results[0].last && results[1].last)));
    assert_int_equal(results[0].status, MR_INVALID);
    assert_int_equal(results[1].status, MR_OK);
    assert_int_equal(mr_map_get(map, mr_text("large"), NULL), MR_NOT_FOUND);
    assert_int_equal(mr_map_put(map, mr_text("large"), (struct mr_bytes){large, sizeof(large)}, NULL, NULL),
                     MR_INVALID);
    assert_int_equal(mr_map_put(map, mr_text("k"), mr_text("v"), NULL, NULL), MR_OK);
    assert_int_equal(mr_max_payload(client), 4096);
    mr_close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_calls_that_wait),
        TEST(test_pipelined),
        TEST(test_a_stream),
        TEST(test_a_walk),
        TEST(test_an_idle_program_keeps_its_sessions),
        TEST(test_sleeping_on_the_descriptor),
        TEST(test_a_call_s_time_runs_while_the_node_is_away),
        TEST(test_the_node_s_time_is_over),
        TEST(test_closing_while_the_node_is_away),
        TEST(test_a_node_in_memory_begins_anew),
        TEST(test_smaller_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
