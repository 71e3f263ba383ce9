/* SPDX-License-Identifier: Apache-2.0 */
/* Leaving sessions and coming back to them, with a real node: numbers go on, streams go on without a gap or a repeat,
 * and what may not be come back to is refused. */
#include <millrace/counter.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include "tests/support/failing_memory.h"
#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define SECONDS(n) ((int64_t)(n)*1000000000)

static struct node node;
static mr_client *writer;
static mr_map *written;

/* What a process leaves to the next, in memory that they share. There are two, so that one is whole whenever it is
 * killed. */
static struct left {
    uint8_t bytes[4096];
    size_t size;
    unsigned taken; /* the event that was in hand */
} * left;
static struct shared {
    struct left lefts[2];
    atomic_uint current; /* which of them */
    atomic_bool ready;   /* set by a child */
} * shared;

static void look_at_left(void)
{
    left = &shared->lefts[shared->current];
}

static int begin(const char *const options[])
{
    node_begin(&node, options);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    look_at_left();
    return 0;
}

static int set_up(void **state)
{
    static const char *const options[] = {"--partitions", "2", NULL};
    (void)state;
    return begin(options);
}

static int tear_down(void **state)
{
    (void)state;
    mr_close(writer);
    writer = NULL;
    node_end(&node);
    munmap(shared, sizeof(*shared));
    return 0;
}

static mr_client *connect_with(const void *resume, size_t size)
{
    struct mr_options options = {.size = sizeof(options), .resume = resume, .resume_size = size};
    mr_client *client;
    enum mr_status status = mr_connect(node.socket, &options, &client);
    if (status != MR_OK) {
        print_error("mr_connect: %s: %s\n", mr_status_name(status), mr_message(client));
        abort(); /* also in a child */
    }
    return client;
}

static mr_client *come_back(void)
{
    return connect_with(left->bytes, left->size);
}

static void save_with(mr_client *client, unsigned taken)
{
    struct left *other = &shared->lefts[1 - shared->current];
    size_t size;

    if (mr_session_save(client, other->bytes, sizeof(other->bytes), &size) != MR_OK)
        abort();
    other->size = size;
    other->taken = taken;
    shared->current = 1 - shared->current;
    look_at_left();
}

static void save(mr_client *client)
{
    save_with(client, 0);
}

static void connect_writer(void)
{
    writer = connect_with(NULL, 0);
    assert_int_equal(mr_map_open(writer, "m", &written), MR_OK);
}

static void put_numbers(unsigned from, unsigned to)
{
    for (unsigned i = from; i <= to; i++)
        assert_int_equal(mr_map_put(written, mr_text("key"), (struct mr_bytes){&i, sizeof(i)}, NULL, NULL), MR_OK);
}

static unsigned number_of(const struct mr_event *event)
{
    unsigned number = 0;
    if (event->entry.value.size == sizeof(number))
        memcpy(&number, event->entry.value.data, sizeof(number));
    return number;
}

static void expect_numbers(mr_client *client, mr_stream *stream, unsigned from, unsigned to)
{
    for (unsigned i = from; i <= to; i++) {
        struct mr_event event;
        if (mr_stream_next(stream, SECONDS(30), &event) != MR_OK)
            fail_msg("event %u: %s", i, mr_message(client));
        assert_int_equal(number_of(&event), i);
    }
}

static mr_stream *go_on(mr_client *client, mr_map **map)
{
    struct mr_pending_request pending;
    mr_stream *stream;

    assert_int_equal(mr_pending(client, 0, &pending), MR_OK);
    assert_string_equal(pending.service, "atomix.multiraft.map.v1.Map");
    assert_string_equal(pending.name_space, "default");
    assert_string_equal(pending.name, "m");
    assert_string_equal(pending.operation, "Events");
    assert_int_equal(mr_map_open(client, pending.name, map), MR_OK);
    assert_int_equal(mr_map_events_resume(*map, pending.request + 1, &stream), MR_NOT_FOUND);
    assert_null(stream);
    uint64_t request = pending.request;
    assert_int_equal(mr_map_events_resume(*map, request, &stream), MR_OK);
    assert_int_equal(mr_pending(client, 0, &pending), MR_NOT_FOUND);
    assert_int_equal(mr_map_events_resume(*map, request, NULL), MR_INVALID);
    return stream;
}

/* Has the session been closed? Who closes waits for the node for a second at the most; one that had no time for it then
 * lets us in, and is asked again. */
static bool is_closed(const void *bytes, size_t size)
{
    struct mr_options options = {.size = sizeof(options), .resume = bytes, .resume_size = size};
    mr_client *client;
    enum mr_status status = mr_connect(node.socket, &options, &client);

    if (status != MR_OK && (status != MR_SESSION_LOST || strstr(mr_message(client), "session") == NULL))
        fail_msg("%s: %s", mr_status_name(status), mr_message(client));
    mr_close(client);
    return status == MR_SESSION_LOST;
}

/* ---- Left in order ---- */

static void test_left_and_come_back_to(void **state)
{
    (void)state;
    mr_client *client = connect_with(NULL, 0);
    struct mr_event event;
    mr_stream *stream;
    mr_counter *counter;
    mr_map *map;
    int64_t value;

    connect_writer();
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    for (int i = 0; i < 8; i++) { /* in both partitions */
        char name[8];
        snprintf(name, sizeof(name), "c%d", i);
        assert_int_equal(mr_counter_open(client, name, &counter), MR_OK);
        assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    }
    assert_int_equal(mr_map_events(map, mr_text(""), false, &stream), MR_OK);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_OK);
    put_numbers(1, 20);
    expect_numbers(client, stream, 1, 10);
    size_t size;
    assert_int_equal(mr_session_save(client, NULL, 0, &size), MR_INVALID);
    assert_in_range(size, 24 + 2 * 16 + 8, 200);
    save(client);
    assert_int_equal(left->size, size);
    expect_numbers(client, stream, 11, 12); /* taken after it was saved: 11 is acknowledged, 12 in hand */
    uint64_t sessions = node_partition(&node, 1).sessions + node_partition(&node, 2).sessions;
    mr_detach(client);
    put_numbers(21, 30);

    for (int round = 0; round < 3; round++) {
        client = come_back();
        /* The first writer's may be there for a while, if it was closed in vain. */
        assert_true(wait_for(node_partition(&node, 1).sessions + node_partition(&node, 2).sessions == sessions));
        stream = go_on(client, &map);
        expect_numbers(client, stream, round == 0 ? 12 : 30, 30);
        for (int i = 0; i < 8; i++) {
            char name[8];
            snprintf(name, sizeof(name), "c%d", i);
            assert_int_equal(mr_counter_open(client, name, &counter), MR_OK);
            assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
            assert_int_equal(value, round + 2);
        }
        save(client);
        mr_detach(client);
        if (round == 0) {
            mr_close(writer);
            assert_int_equal(node_stop(&node), 0);
            node_start(&node);
            connect_writer();
        }
    }
    client = come_back();
    stream = go_on(client, &map);
    mr_stream_close(stream); /* cancels it */
    save(client);
    mr_detach(client);
    client = come_back();
    struct mr_pending_request pending;
    assert_int_equal(mr_pending(client, 0, &pending), MR_NOT_FOUND);
    mr_close(client);
    assert_true(wait_for(is_closed(left->bytes, left->size)));
}

/* ---- Killed ---- */

/* Takes events for ever, and saves after each what has been taken. */
static int take_events(void *argument)
{
    mr_client *client = left->size == 0 ? connect_with(NULL, 0) : come_back();
    struct mr_event event;
    struct mr_pending_request pending;
    mr_stream *stream;
    mr_map *map;

    (void)argument;
    if (mr_map_open(client, "m", &map) != MR_OK)
        return 1;
    if (left->size == 0) {
        if (mr_map_events(map, mr_text(""), false, &stream) != MR_OK ||
            mr_stream_next(stream, SECONDS(30), &event) != MR_OK)
            return 2;
    } else if (mr_pending(client, 0, &pending) != MR_OK || mr_map_events_resume(map, pending.request, &stream) != MR_OK)
        return 3;
    shared->ready = true;
    while (mr_stream_next(stream, MR_FOR_EVER, &event) == MR_OK) {
        if (number_of(&event) != left->taken && number_of(&event) != left->taken + 1)
            return 4;
        save_with(client, number_of(&event));
    }
    return 5;
}

static bool is_taken(void *argument)
{
    look_at_left();
    return left->taken >= *(unsigned *)argument;
}

static void test_killed(void **state)
{
    (void)state;
    unsigned number = 0;

    connect_writer();
    for (int round = 0; round < 10; round++) {
        shared->ready = false;
        pid_t pid = fork_run(take_events, NULL);
        assert_true(wait_for(shared->ready));
        put_numbers(number + 1, number + 300);
        number += 300;
        if (!wait_until(is_taken, &number, WAIT_MS))
            fail_msg("round %d: only %u of %u; child: %d", round, left->taken, number, fork_wait(pid, 0));
        put_numbers(number + 1, number + 50); /* while it takes them */
        kill(pid, SIGKILL);
        assert_int_equal(fork_wait(pid, WAIT_MS), 128 + SIGKILL);
        number += 50;
        look_at_left();
    }
}

/* ---- The node gone ---- */

static void test_saved_when_the_node_is_gone(void **state)
{
    (void)state;
    struct mr_options options = {.size = sizeof(options), .reconnect_ns = MR_NO_RECONNECT};
    mr_client *client;
    struct mr_event event;
    mr_stream *stream;
    mr_map *map;

    connect_writer();
    assert_int_equal(mr_connect(node.socket, &options, &client), MR_OK);
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    assert_int_equal(mr_map_events(map, mr_text(""), false, &stream), MR_OK);
    assert_int_equal(mr_stream_next(stream, SECONDS(30), &event), MR_OK);
    put_numbers(1, 20);
    expect_numbers(client, stream, 1, 10);
    mr_close(writer);
    writer = NULL;
    node_kill(&node);
    unsigned taken = 10; /* some of the others have come before */
    while (mr_stream_next(stream, SECONDS(30), &event) == MR_OK)
        taken = number_of(&event);
    assert_int_equal(mr_stream_next(stream, MR_NO_WAIT, &event), MR_NO_NODE);
    save(client);
    mr_detach(client);

    node_start(&node);
    client = come_back();
    stream = go_on(client, &map);
    connect_writer();
    put_numbers(21, 21);
    expect_numbers(client, stream, taken + 1, 21);
    mr_close(client);
}

/* ---- Refused ---- */

static int hold(void *argument)
{
    mr_client *client = connect_with(NULL, 0);
    mr_map *map;

    (void)argument;
    if (mr_map_open(client, "m", &map) != MR_OK)
        return 1;
    mr_stream *stream;
    struct mr_event event;
    if (mr_map_events(map, mr_text(""), false, &stream) != MR_OK)
        return 2;
    save(client);
    shared->ready = true;
    while (mr_stream_next(stream, MR_FOR_EVER, &event) == MR_OK)
        ;
    return 3;
}

static void refused(enum mr_status status, const void *bytes, size_t size, const char *why)
{
    struct mr_options options = {.size = sizeof(options), .resume = bytes, .resume_size = size};
    mr_client *client;
    enum mr_status got = mr_connect(node.socket, &options, &client);

    if (got != status || strstr(mr_message(client), why) == NULL)
        fail_msg("%s: %s, where %s: ...%s... is due", mr_status_name(got), mr_message(client), mr_status_name(status),
                 why);
    mr_close(client);
}

static void test_refused(void **state)
{
    (void)state;
    uint8_t other[4096];
    char text[32];
    mr_map *map;

    refused(MR_INVALID, "", 0, "mr_session_save");
    refused(MR_INVALID, "MRS1 and more that is none of ours, whatever it is", 50, "mr_session_save");

    pid_t pid = fork(); /* not fork_run(): it sleeps until it is killed */
    if (pid == 0)
        _exit(hold(NULL));
    assert_true(wait_for(shared->ready));
    look_at_left();
    snprintf(text, sizeof(text), "%d", (int)pid);
    refused(MR_UNAVAILABLE, left->bytes, left->size, text);
    memcpy(other, left->bytes, left->size);
    for (size_t i = 0; i < left->size; i++) {
        other[i] ^= 1;
        refused(MR_INVALID, other, left->size, "mr_session_save");
        other[i] ^= 1;
        refused(MR_INVALID, other, i, "mr_session_save");
    }
    kill(pid, SIGKILL);
    assert_int_equal(fork_wait(pid, WAIT_MS), 128 + SIGKILL);

    /* It is free now; and what was refused has taken nothing. */
    mr_client *client = come_back();
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    assert_int_equal(mr_map_put(map, mr_text("a"), mr_text("b"), NULL, NULL), MR_OK);
    mr_close(client);
    assert_true(wait_for(is_closed(left->bytes, left->size)));

    struct node second;
    node_begin(&second, NULL);
    assert_int_equal(mr_connect(second.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    save(client);
    mr_detach(client);
    node_end(&second);
    refused(MR_SESSION_LOST, left->bytes, left->size, "another data directory");
}

/* Each allocation of coming back fails once: that is what is said, and nothing is taken. */
static void test_without_memory(void **state)
{
    mr_client *client;
    mr_stream *stream;
    unsigned n = 0;
    bool one_failed;

    (void)state;
    connect_writer();
    assert_int_equal(mr_map_events(written, mr_text(""), false, &stream), MR_OK);
    save(writer);
    mr_detach(writer);
    writer = NULL;
    do {
        struct mr_options options = {.size = sizeof(options), .resume = left->bytes, .resume_size = left->size};
        memory_fails_in = ++n; /* of this thread's */
        enum mr_status status = mr_connect(node.socket, &options, &client);
        one_failed = memory_fails_in == 0;
        memory_fails_in = 0;
        if (status != MR_OK) {
            assert_true(one_failed);
            assert_int_equal(status, MR_NO_MEMORY);
            assert_non_null(strstr(mr_message(client), "memory"));
        }
        mr_detach(client);
    } while (one_failed);
    assert_true(n > 10);
    client = come_back();
    struct mr_pending_request pending;
    assert_int_equal(mr_pending(client, 0, &pending), MR_OK);
    assert_int_equal(mr_pending(client, 1, &pending), MR_NOT_FOUND);
    mr_close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_left_and_come_back_to, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_killed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_saved_when_the_node_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_memory, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
