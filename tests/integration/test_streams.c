/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of the client library with a real node: what events and entries say, that a stream which nobody pulls holds
 * up nothing, and that nothing is missing or comes twice, whatever is dropped or dies. */
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

#define SECONDS(n) ((int64_t)(n)*1000000000)

static struct node node;
static mr_client *client; /* listens, with the smallest rings */
static mr_map *map;
static mr_client *writer;
static mr_map *written; /* the same map */

static void connect_small(mr_client **out, mr_map **out_map)
{
    struct mr_options options = {.size = sizeof(options), .ring_bytes = 16384, .reconnect_ns = MR_NO_RECONNECT};
    assert_int_equal(mr_connect(node.socket, &options, out), MR_OK);
    assert_int_equal(mr_map_open(*out, "m", out_map), MR_OK);
}

static int begin(const char *const options[])
{
    node_begin(&node, options);
    connect_small(&client, &map);
    assert_int_equal(mr_connect(node.socket, NULL, &writer), MR_OK);
    assert_int_equal(mr_map_open(writer, "m", &written), MR_OK);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    return begin(NULL);
}

static int tear_down(void **state)
{
    (void)state;
    mr_close(client);
    mr_close(writer);
    node_end(&node);
    return 0;
}

static uint64_t put(const char *key, const char *value)
{
    uint64_t index;
    if (mr_map_put(written, mr_text(key), mr_text(value), NULL, &index) != MR_OK)
        fail_msg("put: %s", mr_message(writer));
    return index;
}

static bool is(struct mr_bytes bytes, const char *text)
{
    return bytes.size == strlen(text) && (bytes.size == 0 || memcmp(bytes.data, text, bytes.size) == 0);
}

static struct mr_event next(mr_stream *stream)
{
    struct mr_event event;
    enum mr_status status = mr_stream_next(stream, SECONDS(30), &event);
    if (status != MR_OK)
        fail_msg("mr_stream_next: %s: %s", mr_status_name(status), mr_message(client));
    return event;
}

static void expect(mr_stream *stream, enum mr_event_type type, const char *key, const char *value, uint64_t index)
{
    struct mr_event event = next(stream);
    assert_int_equal(event.type, type);
    assert_true(is(event.entry.key, key));
    assert_true(is(event.entry.value, value));
    assert_int_equal(event.entry.index, index);
}

static mr_stream *listen_to(const char *key, bool replay)
{
    mr_stream *stream;
    assert_int_equal(mr_map_events(map, mr_text(key), replay, &stream), MR_OK);
    expect(stream, MR_LISTENING, key, "", 0);
    return stream;
}

static void expect_nothing(mr_stream *stream)
{
    struct mr_event event;
    uint64_t size;
    /* Whatever was written before has been said before the answer comes. */
    assert_int_equal(mr_map_size(map, &size), MR_OK);
    assert_int_equal(mr_stream_next(stream, MR_NO_WAIT, &event), MR_AGAIN);
}

/* ---- What events say ---- */

static void test_events(void **state)
{
    (void)state;
    mr_stream *all = listen_to("", false);
    mr_stream *one = listen_to("b", false);

    uint64_t a = put("a", "1");
    uint64_t b = put("b", "2");
    uint64_t a2 = put("a", "3");
    assert_int_equal(mr_map_remove(written, mr_text("b"), 0, NULL), MR_OK);
    expect(all, MR_INSERT, "a", "1", a);
    expect(all, MR_INSERT, "b", "2", b);
    expect(all, MR_UPDATE, "a", "3", a2);
    expect(all, MR_REMOVE, "b", "2", b);
    expect(one, MR_INSERT, "b", "2", b);
    expect(one, MR_REMOVE, "b", "2", b);
    expect_nothing(one);
    expect_nothing(all);

    uint64_t c = put("c", "4");
    assert_int_equal(mr_map_clear(written), MR_OK);
    expect(all, MR_INSERT, "c", "4", c);
    expect(all, MR_REMOVE, "a", "3", a2);
    expect(all, MR_REMOVE, "c", "4", c);
    mr_stream_close(all);
    b = put("b", "5");
    expect(one, MR_INSERT, "b", "5", b);
    mr_stream_close(one);
}

static void test_replay_and_the_end_of_a_life(void **state)
{
    (void)state;
    uint64_t z = put("z", "1");
    uint64_t index;
    struct mr_put brief = {.ttl_ns = 50 * 1000 * 1000};

    uint64_t a = put("a", "2");
    mr_stream *stream = listen_to("", true);
    expect(stream, MR_REPLAY, "z", "1", z);
    expect(stream, MR_REPLAY, "a", "2", a);
    assert_int_equal(mr_map_put(written, mr_text("t"), mr_text("3"), &brief, &index), MR_OK);
    expect(stream, MR_INSERT, "t", "3", index);
    expect(stream, MR_REMOVE, "t", "3", index);
    mr_stream_close(stream);
}

static void test_ends(void **state)
{
    (void)state;
    struct mr_event event;
    mr_stream *stream;

    assert_int_equal(mr_map_events(map, (struct mr_bytes){"\xff", 1}, false, &stream), MR_OK);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_INVALID);
    assert_true(strlen(mr_message(client)) > 0);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_INVALID);
    mr_stream_close(stream);

    stream = listen_to("", false);
    mr_stream *other = listen_to("", false);
    assert_int_equal(mr_map_close(map), MR_OK);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_CANCELED);
    mr_stream_close(stream);
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    assert_int_equal(mr_stream_next(other, SECONDS(30), &event), MR_CANCELED);
    stream = listen_to("", false);
    assert_int_equal(node_stop(&node), 0);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_NO_NODE);
    assert_int_equal(mr_map_events(map, mr_text(""), false, &stream), MR_NO_NODE);
    assert_null(stream);
}

/* ---- Many ---- */

struct writing {
    pthread_t thread;
    mr_client *client;
    mr_map *map;
    unsigned count;
    atomic_uint written;
    atomic_bool stop;
};

static void wrote(mr_client *of, const struct mr_result *result)
{
    struct writing *writing = result->arg;
    (void)of;
    if (result->status != MR_OK)
        print_error("%s: %.*s\n", mr_status_name(result->status), (int)result->message.size,
                    (const char *)result->message.data);
    else
        writing->written++;
}

/* Writes "key" = 0, 1, 2, ..., each once, pipelined. */
static void *write_numbers(void *argument)
{
    struct writing *writing = argument;

    for (unsigned i = 0; i < writing->count && !writing->stop; i++) {
        struct mr_bytes value = {&i, sizeof(i)};
        enum mr_status status;
        while ((status = mr_map_put_start(writing->map, mr_text("key"), value, NULL, (struct mr_then){wrote, writing},
                                          NULL)) == MR_AGAIN)
            (void)mr_run(writing->client, MR_FOR_EVER, NULL);
        if (status != MR_OK)
            break;
        if (i % 64 == 0)
            (void)mr_run(writing->client, MR_NO_WAIT, NULL);
    }
    while (mr_run(writing->client, SECONDS(30), NULL) == MR_OK)
        ;
    return NULL;
}

static void start_writing(struct writing *writing, unsigned count)
{
    *writing = (struct writing){.client = writer, .map = written, .count = count};
    assert_int_equal(pthread_create(&writing->thread, NULL, write_numbers, writing), 0);
}

static void stop_writing(struct writing *writing)
{
    assert_int_equal(pthread_join(writing->thread, NULL), 0);
    assert_int_equal(writing->written, writing->count);
}

static void expect_number(mr_stream *stream, unsigned number)
{
    struct mr_event event = next(stream);
    unsigned got;
    assert_int_equal(event.type, number == 0 ? MR_INSERT : MR_UPDATE);
    assert_int_equal(event.entry.value.size, sizeof(got));
    memcpy(&got, event.entry.value.data, sizeof(got));
    assert_int_equal(got, number);
}

static void test_not_pulled(void **state)
{
    (void)state;
    const unsigned count = 20000; /* some hundred times what the ring and the stream hold */
    mr_stream *stream = listen_to("", false);
    mr_stream *other = listen_to("key", false);
    struct writing writing;
    mr_counter *counter;
    int64_t value;

    assert_int_equal(mr_counter_open(client, "c", &counter), MR_OK);
    start_writing(&writing, count);
    for (int i = 1; i <= 300 || writing.written < count; i++) {
        assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
        assert_int_equal(value, i);
    }
    stop_writing(&writing);
    for (unsigned i = 0; i < count; i++)
        expect_number(stream, i);
    expect_nothing(stream);
    for (unsigned i = 0; i < count; i++)
        expect_number(other, i);
    expect_nothing(other);
}

static void test_pulled_beside_calls(void **state)
{
    (void)state;
    const unsigned count = 5000;
    mr_stream *stream = listen_to("", false);
    struct writing writing;
    mr_counter *counter;
    int64_t value;

    assert_int_equal(mr_counter_open(client, "c", &counter), MR_OK);
    start_writing(&writing, count);
    for (unsigned i = 0; i < count; i++) {
        expect_number(stream, i);
        if (i % 10 == 0)
            assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    }
    assert_int_equal(value, count / 10);
    stop_writing(&writing);
}

static void test_many_streams(void **state)
{
    (void)state;
    enum { STREAMS = 30, EVENTS = 400 }; /* about as many as this small a ring takes */
    mr_stream *streams[STREAMS];

    for (unsigned i = 0; i < STREAMS; i++)
        streams[i] = listen_to(i % 2 == 0 ? "" : "key", false);
    struct writing writing;
    start_writing(&writing, EVENTS);
    for (unsigned i = 0; i < STREAMS; i += 2) /* those left are kept nevertheless */
        mr_stream_close(streams[i]);
    stop_writing(&writing);
    for (unsigned number = 0; number < EVENTS; number++)
        for (unsigned i = 1; i < STREAMS; i += 2)
            expect_number(streams[i], number);
}

/* ---- Deaths ---- */

struct killer {
    pthread_t thread;
    atomic_uint kills;
    atomic_bool stop;
    const atomic_uint *written; /* it kills again when more is: where the disk is slow, nothing may be in between */
};

static void *kill_workers(void *argument)
{
    struct killer *killer = argument;

    while (!killer->stop) {
        unsigned at = *killer->written;
        pid_t before = node_kill_worker(&node, 1);
        node_wait_worker(&node, 1, before);
        killer->kills++;
        (void)wait_for(*killer->written != at || killer->stop);
    }
    return NULL;
}

static void test_workers_die(void **state)
{
    (void)state;
    struct writing writing = {.written = 0};
    struct killer killer = {.written = &writing.written};
    mr_stream *pulled = listen_to("", false);
    mr_stream *later = listen_to("key", false);
    unsigned total = 0;

    assert_int_equal(pthread_create(&killer.thread, NULL, kill_workers, &killer), 0);
    while (killer.kills < 20) {
        start_writing(&writing, 2000);
        for (unsigned i = 0; i < writing.count; i++) {
            struct mr_event event = next(pulled);
            unsigned got;
            memcpy(&got, event.entry.value.data, sizeof(got));
            assert_int_equal(got, i);
        }
        stop_writing(&writing);
        total += writing.count;
    }
    killer.stop = true;
    assert_int_equal(pthread_join(killer.thread, NULL), 0);
    for (unsigned i = 0; i < total; i++) {
        struct mr_event event = next(later);
        unsigned got;
        memcpy(&got, event.entry.value.data, sizeof(got));
        assert_int_equal(got, i % 2000);
    }
    expect_nothing(pulled);
    expect_nothing(later);
}

/* ---- Entries ---- */

static void fill(unsigned count)
{
    struct writing writing = {.client = writer};
    char key[16];

    for (unsigned i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "%u", i);
        while (mr_map_put_start(written, mr_text(key), mr_text(key), NULL, (struct mr_then){wrote, &writing}, NULL) ==
               MR_AGAIN)
            (void)mr_run(writer, MR_FOR_EVER, NULL);
    }
    while (mr_run(writer, SECONDS(30), NULL) == MR_OK)
        ;
    assert_int_equal(writing.written, count);
}

static void test_entries(void **state)
{
    (void)state;
    const unsigned count = 20000;
    struct mr_event event;
    struct writing writing;
    mr_stream *stream;
    char key[16];
    unsigned i = 0;
    enum mr_status status;

    assert_int_equal(mr_map_entries(map, &stream), MR_OK);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_END);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_END);
    mr_stream_close(stream);

    fill(count);
    assert_int_equal(mr_map_entries(map, &stream), MR_OK);
    start_writing(&writing, 5000);
    while ((status = mr_stream_next(stream, SECONDS(30), &event)) == MR_OK) {
        assert_int_equal(event.type, MR_REPLAY);
        if (is(event.entry.key, "key"))
            continue;
        snprintf(key, sizeof(key), "%u", i++);
        assert_true(is(event.entry.key, key));
        assert_true(is(event.entry.value, key));
    }
    assert_int_equal(status, MR_END);
    assert_int_equal(i, count);
    stop_writing(&writing);
    mr_stream_close(stream);

    /* Closed long before its end, and calls in its midst. */
    assert_int_equal(mr_map_entries(map, &stream), MR_OK);
    for (i = 0; i < 10; i++) {
        snprintf(key, sizeof(key), "%u", i);
        event = next(stream);
        assert_true(is(event.entry.key, key));
        assert_int_equal(mr_map_get(map, event.entry.key, &event.entry), MR_OK);
        assert_true(is(event.entry.value, key));
    }
    mr_stream_close(stream);
    assert_int_equal(mr_map_get(map, mr_text("17"), NULL), MR_OK);
}

static void test_entries_cut(void **state)
{
    (void)state;
    struct mr_event event;
    mr_stream *stream;
    char key[16];
    enum mr_status status;

    fill(20000);
    assert_int_equal(mr_map_entries(map, &stream), MR_OK);
    event = next(stream);
    assert_true(is(event.entry.key, "0"));
    pid_t before = node_kill_worker(&node, 1);
    while ((status = mr_stream_next(stream, SECONDS(30), &event)) == MR_OK)
        ;
    assert_int_equal(status, MR_UNAVAILABLE);
    assert_non_null(strstr(mr_message(client), "ask again"));
    mr_stream_close(stream);

    node_wait_worker(&node, 1, before);
    assert_int_equal(mr_map_entries(map, &stream), MR_OK);
    before = node_kill_worker(&node, 1);
    node_wait_worker(&node, 1, before);
    for (unsigned i = 0; i < 20000; i++) {
        snprintf(key, sizeof(key), "%u", i);
        event = next(stream);
        assert_true(is(event.entry.key, key));
    }
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_END);
    mr_stream_close(stream);
}

/* ---- The session's limit ---- */

static int set_up_in_memory(void **state)
{
    static const char *const options[] = {
        "--durability", "memory",          "--ring-bytes", "1M", "--max-payload", "128K", "--batch-bytes",
        "256K",         "--segment-bytes", "4M",           NULL};
    (void)state;
    return begin(options);
}

#define BIG 100000

static void put_big(unsigned number)
{
    static char value[BIG];
    memcpy(value, &number, sizeof(number));
    assert_int_equal(mr_map_put(written, mr_text("big"), (struct mr_bytes){value, BIG}, NULL, NULL), MR_OK);
}

static void test_a_listener_that_sleeps(void **state)
{
    (void)state;
    struct mr_event event;
    enum mr_status status;
    unsigned events = 0;
    mr_stream *stream;
    uint64_t index;

    /* As fast as they come they may be many times the limit. */
    mr_client *large;
    mr_map *same;
    assert_int_equal(mr_connect(node.socket, NULL, &large), MR_OK);
    assert_int_equal(mr_map_open(large, "m", &same), MR_OK);
    assert_int_equal(mr_map_events(same, mr_text("big"), false, &stream), MR_OK);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_OK);
    for (unsigned i = 0; i < 1000; i++) {
        put_big(i);
        assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_OK);
        assert_memory_equal(event.entry.value.data, &i, sizeof(i));
    }
    /* Not so if nobody takes them. */
    for (unsigned i = 0; i < 800; i++)
        put_big(i);
    while ((status = mr_stream_next(stream, SECONDS(30), &event)) == MR_OK) {
        assert_memory_equal(event.entry.value.data, &events, sizeof(events));
        events++;
    }
    assert_int_equal(status, MR_UNAVAILABLE);
    assert_non_null(strstr(mr_message(large), "67108864"));
    assert_in_range(events, 600, 671);
    /* The session goes on, at once; and the caller can listen again. */
    assert_int_equal(mr_map_put(same, mr_text("a"), mr_text("b"), NULL, &index), MR_OK);
    mr_stream_close(stream);
    assert_int_equal(mr_map_events(same, mr_text("big"), true, &stream), MR_OK);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_OK);
    assert_int_equal(event.type, MR_LISTENING);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_OK);
    assert_int_equal(event.type, MR_REPLAY);
    events = 799;
    assert_memory_equal(event.entry.value.data, &events, sizeof(events));
    mr_close(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_replay_and_the_end_of_a_life, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_pulled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pulled_beside_calls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_streams, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_die, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_entries, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_entries_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_listener_that_sleeps, set_up_in_memory, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
