/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that stop where it hurts most: in the middle of a frame, with a frame published and the worker not woken,
 * with streams open and their ring full, and such as are merely slow. Nobody beside them notices (every result that an
 * honest client gets is exact), and when they are killed nothing of them stays: channels, descriptors of supervisor and
 * worker, streams, and, after their timeout, sessions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <millrace/map.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#undef MAP_TYPE /* mmap()'s; a service's below */
#include <unistd.h>

#include "ipc/frame.h"
#include "proto/reader.h"
#include "tests/support/live_node.h"
#include "tests/support/requests.h"
#include "tests/support/spawn.h"
#include "tests/support/stub_node.h"
#include "tests/support/wait.h"

#define RING 16384
#define UNTOLD 10 /* increments that the worker is not told of */
#define CALLS 300
#define EVENTS 400 /* of a kilobyte each: many rings full */
#define BEHIND 40  /* how many a slow listener stays behind: more than its ring holds */

static struct node node;

/* What a child tells of itself; shared memory. */
static struct story {
    int64_t timeout;          /* of its session: seconds */
    _Atomic bool there;       /* it is about to stop, or has its stream */
    _Atomic uint64_t made;    /* events: by the test */
    _Atomic uint64_t taken;   /* and by the child */
    _Atomic bool out_of_turn; /* one was not the next */
} * story;

/* ---- a client of the rings, frame by frame ---- */

struct raw {
    struct stub_client connection;
    struct channel channel;
    struct ring_writer requests;
    struct ring_reader responses;
    struct request request;
};

static void raw_open(struct raw *raw)
{
    struct stub_node at = {.pid = 0};

    *raw = (struct raw){.channel = {.memory_fd = -1}};
    snprintf(at.socket, sizeof(at.socket), "%s", node.socket);
    stub_greet(&raw->connection, &at);
    stub_open_channel(&raw->connection, 1, RING, &raw->channel);
    ring_writer_attach(&raw->requests, raw->channel.request_data, RING, &raw->channel.page->request, 0, 0);
    ring_reader_attach(&raw->responses, raw->channel.response_data, RING, &raw->channel.page->response, 0, 0);
}

/* The frame of raw->request, written but not published. */
static void raw_write(struct raw *raw)
{
    struct request_head head = {.size = (uint32_t)raw->request.size, .kind = FRAME_COMMAND};
    uint8_t *at = NULL;

    assert_int_equal(ring_reserve(&raw->requests, request_frame_bytes(raw->request.size), &at), RING_OK);
    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), raw->request.bytes, raw->request.size);
    ring_advance(&raw->requests, request_frame_bytes(raw->request.size));
}

static void raw_wake(const struct raw *raw)
{
    const uint64_t one = 1;

    assert_int_equal(write(raw->channel.node_wake_fd, &one, sizeof(one)), sizeof(one));
}

/* The next answer, which must be OK: what it says in its operation's first number, or the id of what it made. */
static uint64_t raw_answer(struct raw *raw, uint64_t *number)
{
    const uint8_t *at = NULL;
    struct response_head head;
    struct command_output output;
    struct slice part;

    assert_true(wait_for(ring_peek(&raw->responses, sizeof(head), &at) == RING_OK));
    memcpy(&head, at, sizeof(head));
    assert_int_equal(ring_peek(&raw->responses, response_frame_bytes(head.size), &at), RING_OK);
    assert_int_equal(head.status, STATUS_OK);
    assert_int_equal(read_partition_command_output(at + sizeof(head), head.size, &output, &part), READ_OK);
    if (number != NULL) {
        struct field_reader reader = field_reader(part);
        while (field_next(&reader))
            if (reader.tag == FIELD(1, WIRE_VARINT))
                *number = reader.value;
    }
    ring_skip(&raw->responses, response_frame_bytes(head.size));
    ring_release(&raw->responses, raw->responses.head);
    return output.id;
}

static uint64_t raw_ask(struct raw *raw)
{
    raw_write(raw);
    (void)ring_publish(&raw->requests);
    raw_wake(raw);
    return raw_answer(raw, NULL);
}

/* ---- children ---- */

static void stop_here(void)
{
    atomic_store(&story->there, true);
    raise(SIGSTOP);
}

/* Half of a frame's body is there, and its tail is not moved. Afterwards the rest. */
static int stop_in_a_frame(void *argument)
{
    struct raw raw;
    uint64_t one = 0;

    (void)argument;
    raw_open(&raw);
    request_open_session(&raw.request, (struct duration){.seconds = story->timeout, .present = true});
    uint64_t session = raw_ask(&raw);
    request_create_service(&raw.request, session, COUNTER_TYPE, "raw", "halfway");
    uint64_t counter = raw_ask(&raw);
    struct payload payload = number_payload(1);
    request_command(&raw.request, session, counter, 1, "Increment", payload_slice(&payload));
    uint8_t *at = NULL;
    assert_int_equal(ring_reserve(&raw.requests, request_frame_bytes(raw.request.size), &at), RING_OK);
    memset(at, 0xff, request_frame_bytes(raw.request.size));
    memcpy(at, raw.request.bytes, raw.request.size / 2);
    stop_here();
    raw_write(&raw);
    (void)ring_publish(&raw.requests);
    raw_wake(&raw);
    (void)raw_answer(&raw, &one);
    request_close_session(&raw.request, session);
    (void)raw_ask(&raw);
    return one == 1 ? 0 : 1; /* the half frame of the life before counted for nothing */
}

/* Whole frames are there and published; the worker, which may sleep, is not woken. */
static int stop_before_the_wake(void *argument)
{
    struct raw raw;
    uint64_t value = 0;

    (void)argument;
    raw_open(&raw);
    request_open_session(&raw.request, (struct duration){.seconds = story->timeout, .present = true});
    uint64_t session = raw_ask(&raw);
    request_create_service(&raw.request, session, COUNTER_TYPE, "raw", "untold");
    uint64_t counter = raw_ask(&raw);
    struct payload payload = number_payload(1);
    assert_true(wait_for(atomic_load(&raw.channel.page->request.reader_sleeps) != 0)); /* it would have to be */
    for (uint64_t n = 1; n <= UNTOLD; n++) {
        request_command(&raw.request, session, counter, n, "Increment", payload_slice(&payload));
        raw_write(&raw);
    }
    (void)ring_publish(&raw.requests); /* a worker that was just awake for something else needs no waking */
    stop_here();
    raw_wake(&raw);
    for (uint64_t n = 1; n <= UNTOLD; n++) {
        uint64_t before = value;
        (void)raw_answer(&raw, &value);
        if (n > 1 && value != before + 1) /* another life's may stand before the first */
            return 1;
    }
    request_close_session(&raw.request, session);
    (void)raw_ask(&raw);
    return 0;
}

static mr_stream *listen_to(mr_client **client, mr_map **map)
{
    const struct mr_options options = {
        .size = sizeof(options), .session_timeout_ns = story->timeout * (int64_t)MR_SECOND, .ring_bytes = RING};
    mr_stream *stream = NULL;
    struct mr_event event;

    if (mr_connect(node.socket, &options, client) == MR_OK && mr_map_open(*client, "watched", map) == MR_OK &&
        mr_map_events(*map, (struct mr_bytes){0}, false, &stream) == MR_OK &&
        mr_stream_next(stream, MR_FOR_EVER, &event) == MR_OK && event.type == MR_LISTENING)
        return stream;
    return NULL;
}

/* Has a stream, takes nothing of it: its ring gets full while it is stopped. */
static int stop_with_a_stream(void *argument)
{
    mr_client *client;
    mr_map *map;

    (void)argument;
    if (listen_to(&client, &map) == NULL)
        return 1;
    stop_here();
    return 2; /* it is killed */
}

/* Stays behind as long as events are made, and its ring full. */
static int listen_slowly(void *argument)
{
    mr_client *client;
    mr_map *map;
    struct mr_event event;
    uint64_t next = 0;

    (void)argument;
    mr_stream *stream = listen_to(&client, &map);
    if (stream == NULL)
        return 1;
    atomic_store(&story->there, true);
    while (next < EVENTS &&
           wait_for(atomic_load(&story->made) >= next + BEHIND || atomic_load(&story->made) == EVENTS) &&
           mr_stream_next(stream, MR_FOR_EVER, &event) == MR_OK) {
        uint64_t number = 0;
        memcpy(&number, event.entry.value.data, sizeof(number));
        if (number != next++)
            atomic_store(&story->out_of_turn, true);
        atomic_fetch_add(&story->taken, 1);
    }
    mr_close(client);
    return next == EVENTS ? 0 : 2;
}

/* ---- who is beside them ---- */

/* Each result is exactly what it has to be. */
static void honest(const char *name)
{
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    int64_t before = 0, value = 0;

    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, name, &counter), MR_OK);
    assert_int_equal(mr_counter_get(counter, &before), MR_OK);
    for (unsigned i = 1; i <= CALLS; i++) {
        assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
        assert_int_equal(value, before + i);
    }
    mr_close(client);
}

static void make_events(void)
{
    mr_client *client = NULL;
    mr_map *map = NULL;
    static uint64_t value[128];

    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_map_open(client, "watched", &map), MR_OK);
    for (uint64_t n = 0; n < EVENTS; n++) {
        value[0] = n;
        assert_int_equal(mr_map_put(map, mr_text("key"), (struct mr_bytes){value, sizeof(value)}, NULL, NULL), MR_OK);
        atomic_store(&story->made, n + 1);
    }
    mr_close(client);
}

/* What there is while nobody is connected. */
struct held {
    uint64_t channels, sessions;
    unsigned supervisor, worker; /* descriptors */
};

static struct held look(void)
{
    struct node_partition partition = node_partition(&node, 1);
    struct held held = {.channels = partition.channels,
                        .sessions = partition.sessions,
                        .supervisor = process_descriptors(node.process.pid),
                        .worker = process_descriptors(partition.pid)};

    assert_int_not_equal(held.supervisor, 0);
    assert_int_not_equal(held.worker, 0);
    return held;
}

/* A client that has closed may have waited for the node in vain: then its session ends by its timeout. */
static struct held look_at_nobody(void)
{
    struct held held = {.channels = 0};

    assert_true(wait_for((held = look()).channels == 0 && held.sessions == 0));
    return held;
}

static bool all_freed(const struct held *before)
{
    struct held now = look();

    return now.channels == before->channels && now.sessions == before->sessions &&
           now.supervisor <= before->supervisor && now.worker <= before->worker;
}

struct way {
    int (*body)(void *argument);
    bool stream; /* events are made for it */
};

/* Stopped beside others; then either killed, and all of it goes, or let go on, and it is as if nothing had been. */
static void test_stopped(void **state)
{
    const struct way *way = *state;

    node_begin(&node, (const char *const[]){"--idle", "block", NULL});
    honest("honest");
    struct held before = look_at_nobody();
    for (unsigned round = 0; round < 2; round++) {
        bool killed = round == 0 || way->stream;
        *story = (struct story){.timeout = killed ? 4 : 600}; /* the killed one's ends by itself */
        pid_t child = fork_run(way->body, NULL);
        assert_true(wait_for(atomic_load(&story->there) && process_is_stopped(child)));
        if (way->stream)
            make_events();
        honest("honest");
        pid_t dead = node_kill_worker(&node, 1); /* the successor finds things as they are, and goes on as well */
        node_wait_worker(&node, 1, dead);
        honest("honest");
        assert_int_equal(kill(child, killed ? SIGKILL : SIGCONT), 0);
        assert_int_equal(fork_wait(child, WAIT_MS), killed ? 128 + SIGKILL : 0);
        assert_true(wait_for(all_freed(&before)));
        honest("honest");
    }
    assert_true(wait_for(all_freed(&before)));
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

/* It gets every event, in order, long after they were made; nobody waits for it. */
static void test_slow(void **state)
{
    (void)state;
    node_begin(&node, (const char *const[]){NULL});
    honest("honest");
    struct held before = look_at_nobody();
    *story = (struct story){.timeout = 600};
    pid_t child = fork_run(listen_slowly, NULL);
    assert_true(wait_for(atomic_load(&story->there)));
    make_events();
    honest("honest");
    assert_int_equal(fork_wait(child, WAIT_MS), 0);
    assert_int_equal(atomic_load(&story->taken), EVENTS);
    assert_false(atomic_load(&story->out_of_turn));
    assert_true(wait_for(all_freed(&before)));
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

int main(void)
{
    static struct way in_a_frame = {.body = stop_in_a_frame}, before_the_wake = {.body = stop_before_the_wake},
                      with_a_stream = {.body = stop_with_a_stream, .stream = true};
    const struct CMUnitTest tests[] = {
        {.name = "in_a_frame", .test_func = test_stopped, .initial_state = &in_a_frame},
        {.name = "before_the_wake", .test_func = test_stopped, .initial_state = &before_the_wake},
        {.name = "with_a_stream", .test_func = test_stopped, .initial_state = &with_a_stream},
        cmocka_unit_test(test_slow),
    };

    story = mmap(NULL, sizeof(*story), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (story == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
