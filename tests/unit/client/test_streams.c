/* SPDX-License-Identifier: Apache-2.0 */
/* Streams, frame by frame; the test is the worker: what is dropped and asked for again, from which sending an output is
 * taken, what KeepAlives say, and how a stream ends. */
#include <millrace/limits.h>
#include <millrace/map.h>

#include "engine/fsm/filter.h"
#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static char *dir;
static struct fake_node *node;
static mr_client *client;
static mr_map *map;
static struct fake_channel *channel;

static int set_up(void **state)
{
    char path[TEMP_PATH_MAX];

    (void)state;
    dir = temp_dir_make();
    node = fake_node_start(temp_dir_file(path, dir, "socket"), &(struct fake_options){.ring_bytes = 32768});
    struct mr_options options = {.size = sizeof(options), .reconnect_ns = MR_NO_RECONNECT};
    assert_int_equal(mr_connect(path, &options, &client), MR_OK);
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    fake_node_hold(node);
    channel = fake_channel(node, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fake_node_vanish(node);
    fake_node_release(node);
    mr_close(client);
    fake_node_stop(node);
    temp_dir_remove(dir);
    return 0;
}

static bool take_if(struct fake_request *request)
{
    mr_flush(client);
    if (!fake_next(channel, request))
        return false;
    fake_take(channel, request);
    return true;
}

static struct fake_request take(void)
{
    struct fake_request request;
    if (!take_if(&request))
        fail_msg("no request is there");
    return request;
}

static void expect_no_request(void)
{
    struct fake_request request;
    (void)mr_run(client, MR_NO_WAIT, NULL);
    assert_false(take_if(&request));
}

static struct partition_command_input command_of(const struct fake_request *request)
{
    struct partition_command_input input;
    assert_int_equal(request->head.kind, FRAME_COMMAND);
    assert_int_equal(read_partition_command_input(request->body, request->head.size, &input), READ_OK);
    return input;
}

static uint64_t expect_repeat(uint64_t number)
{
    struct fake_request request = take();
    struct command_input command = command_of(&request).command;
    assert_int_equal(command.session_kind, SESSION_COMMAND_SERVICE_COMMAND);
    assert_int_equal(command.sequence_num, number);
    assert_int_equal(command.operation.name.size, 0);
    return request.position;
}

/* Listens; gives the position of the command. */
static mr_stream *listen_to(const char *key, uint64_t *position)
{
    mr_stream *stream;
    assert_int_equal(mr_map_events(map, mr_text(key), false, &stream), MR_OK);
    struct fake_request request = take();
    struct command_input command = command_of(&request).command;
    assert_int_equal(command.operation.name.size, 6);
    assert_memory_equal(command.operation.name.data, "Events", 6);
    *position = request.position;
    return stream;
}

static void write_event(uint64_t position, uint64_t number, bool last, enum status status, const char *text)
{
    uint8_t payload[256], body[512];
    struct slice value = {(const uint8_t *)text, strlen(text)};
    size_t entry = field_bytes_size(1, value.size);
    size_t event = field_varint_size(1, MR_INSERT) + field_message_head_size(2, entry) + entry;
    uint8_t *at = field_write_message_head(payload, 2, event);
    at = field_write_varint(at, 1, MR_INSERT);
    at = field_write_message_head(at, 2, entry);
    at = field_write_bytes(at, 1, value);
    struct slice part = {payload, (size_t)(at - payload)};
    struct command_output output = {.index = 7,
                                    .kind = COMMAND_SESSION_COMMAND,
                                    .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                                    .sequence_num = number};
    if (status == STATUS_OK)
        output.operation = (struct operation_output){STATUS_OK, {NULL, 0}, &part, 1, part.size};
    else
        output.operation = (struct operation_output){status, value, NULL, 0, 0};
    size_t size = partition_command_output_size(&output);
    assert_true(size <= sizeof(body));
    write_partition_command_output(body, &output);
    fake_frame(channel, STATUS_OK, last, position, number, body, size);
}

static void put_event(uint64_t position, uint64_t number, bool last, enum status status, const char *text)
{
    write_event(position, number, last, status, text);
    fake_publish(node, channel);
}

/* Events from `from` to `to`, whose key is their number; long enough that 100 of them are more than a ring's eighth. */
static void put_events(uint64_t position, uint64_t from, uint64_t to)
{
    char key[128];
    for (uint64_t number = from; number <= to; number++) {
        snprintf(key, sizeof(key), "%0100u", (unsigned)number);
        put_event(position, number, false, STATUS_OK, key);
    }
}

/* One event as an output of several requests, in one frame. */
static void write_shared(const struct response_other *of, uint16_t count, const char *key)
{
    struct ring_writer *ring = &channel->responses;
    uint8_t *head = ring->data + (ring->tail & (ring->capacity - 1)), *at = NULL;
    uint16_t others = (uint16_t)(count - 1);

    write_event(of[0].request, of[0].number, false, STATUS_OK, key);
    assert_int_equal(ring_reserve(ring, others * sizeof(*of), &at), RING_OK);
    memcpy(at, of + 1, others * sizeof(*of));
    ring_advance(ring, others * sizeof(*of));
    memcpy(head + offsetof(struct response_head, others), &others, sizeof(others));
}

static void put_shared(const struct response_other *of, uint16_t count, const char *key)
{
    write_shared(of, count, key);
    fake_publish(node, channel);
}

static void expect_event(mr_stream *stream, const char *key)
{
    struct mr_event event;
    assert_int_equal(mr_stream_next(stream, MR_NO_WAIT, &event), MR_OK);
    assert_int_equal(event.type, MR_INSERT);
    assert_int_equal(event.entry.key.size, strlen(key));
    assert_memory_equal(event.entry.key.data, key, strlen(key));
}

static void expect_events(mr_stream *stream, uint64_t from, uint64_t to)
{
    struct mr_event event;
    char key[128];

    for (uint64_t number = from; number <= to; number++) {
        snprintf(key, sizeof(key), "%0100u", (unsigned)number);
        enum mr_status status = mr_stream_next(stream, MR_NO_WAIT, &event);
        if (status != MR_OK)
            fail_msg("event %u: %s", (unsigned)number, mr_message(client));
        assert_int_equal(event.type, MR_INSERT);
        assert_int_equal(event.entry.key.size, 100);
        assert_memory_equal(event.entry.key.data, key, 100);
    }
}

static void expect_nothing(mr_stream *stream)
{
    struct mr_event event;
    assert_int_equal(mr_stream_next(stream, MR_NO_WAIT, &event), MR_AGAIN);
}

static void expect_end(mr_stream *stream, enum mr_status status, const char *why)
{
    struct mr_event event;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mr_stream_next(stream, MR_NO_WAIT, &event), status);
        assert_non_null(strstr(mr_message(client), why));
    }
}

static uint64_t told_number, told_output;
static unsigned told_count;

static void note_told(void *context, uint64_t number, uint64_t output)
{
    (void)context;
    told_number = number;
    told_output = output;
    told_count++;
}

/* The next request is a KeepAlive up to `answered`; it is answered. */
static void expect_keep_alive(uint64_t answered, struct slice *filter)
{
    static uint8_t copy[256];
    struct fake_request request = take();
    struct partition_command_input input = command_of(&request);

    assert_int_equal(input.command.kind, COMMAND_KEEP_ALIVE);
    assert_int_equal(input.command.last_input_sequence_num, answered);
    assert_true(filter_valid(input.command.input_filter));
    assert_true(input.command.input_filter.size <= sizeof(copy));
    if (input.command.input_filter.size > 0)
        memcpy(copy, input.command.input_filter.data, input.command.input_filter.size);
    *filter = (struct slice){copy, input.command.input_filter.size};
    told_count = 0;
    read_last_outputs(input.command.source, note_told, NULL);

    uint8_t body[64];
    struct command_output output = {.index = 9, .kind = COMMAND_KEEP_ALIVE};
    size_t size = partition_command_output_size(&output);
    write_partition_command_output(body, &output);
    fake_frame(channel, STATUS_OK, true, request.position, 0, body, size);
    fake_publish(node, channel);
    (void)mr_run(client, MR_NO_WAIT, NULL);
}

static void expect_keep_alive_naming(uint64_t answered, uint64_t number, uint64_t output)
{
    struct slice filter;
    expect_keep_alive(answered, &filter);
    assert_true(filter_has(filter, number));
    assert_int_equal(told_count, 1);
    assert_int_equal(told_number, number);
    assert_int_equal(told_output, output);
}

/* ---- Tests ---- */

static void test_dropped_and_named_again(void **state)
{
    (void)state;
    uint64_t first, second;
    mr_stream *stream = listen_to("", &first);
    unsigned kept = 0;

    /* More than it holds, and nobody pulls. */
    for (uint64_t number = 1; number <= 600; number += 50) {
        put_events(first, number, number + 49);
        for (int i = 0; i < 3; i++)
            (void)mr_run(client, MR_NO_WAIT, NULL);
    }
    struct mr_event event;
    while (mr_stream_next(stream, MR_NO_WAIT, &event) == MR_OK)
        kept++;
    assert_true(kept > 100 && kept < 400); /* about a ring */
    expect_keep_alive_naming(1, 1, kept);
    second = expect_repeat(1);
    /* The earlier sending goes on for a while; what it has is behind the gap. Its end is not the stream's. */
    put_events(first, 601, 610);
    fake_frame(channel, STATUS_CANCELED, true, first, 0, "taken over", 10);
    expect_nothing(stream);
    expect_no_request();
    put_events(second, kept + 1, kept + 20);
    expect_events(stream, kept + 1, kept + 20);
    expect_nothing(stream);
    expect_no_request();
}

static void test_the_last_one_dropped(void **state)
{
    (void)state;
    uint64_t position;
    mr_stream *stream = listen_to("", &position);
    struct mr_event event;
    struct slice filter;
    uint64_t kept = 0;

    for (uint64_t number = 1; number <= 600; number += 50) {
        put_events(position, number, number + 49);
        for (int i = 0; i < 3; i++)
            (void)mr_run(client, MR_NO_WAIT, NULL);
    }
    put_event(position, 601, true, STATUS_UNAVAILABLE, "the limit");
    while (mr_stream_next(stream, MR_NO_WAIT, &event) == MR_OK)
        kept++;
    expect_keep_alive_naming(1, 1, kept);
    position = expect_repeat(1);
    put_events(position, kept + 1, kept + 10);
    put_event(position, kept + 11, true, STATUS_UNAVAILABLE, "the limit");
    expect_events(stream, kept + 1, kept + 10);
    expect_end(stream, MR_UNAVAILABLE, "the limit");
    expect_keep_alive(1, &filter); /* it is over: nothing of it is to be kept */
    assert_int_equal(filter.size, 0);
    expect_no_request();
    mr_stream_close(stream);
    expect_no_request();
}

static void test_a_new_worker(void **state)
{
    (void)state;
    uint64_t position, other;
    mr_stream *stream = listen_to("", &position);
    mr_stream *second = listen_to("b", &other);

    put_events(position, 1, 10);
    put_events(other, 1, 3);
    expect_events(stream, 1, 5);
    fake_new_worker(channel);
    (void)mr_run(client, MR_NO_WAIT, NULL);
    position = expect_repeat(1);
    other = expect_repeat(2);
    put_events(position, 1, 12); /* nothing had been acknowledged */
    put_events(other, 1, 4);
    expect_events(stream, 6, 12);
    expect_nothing(stream);
    expect_events(second, 1, 4);
    expect_nothing(second);
    /* Refused for now: the same again a moment later. */
    fake_new_worker(channel);
    (void)mr_run(client, MR_NO_WAIT, NULL);
    position = expect_repeat(1);
    other = expect_repeat(2);
    fake_frame(channel, STATUS_UNAVAILABLE, true, position, 0, "no room", 7);
    fake_publish(node, channel);
    struct fake_request request;
    assert_true(wait_for((mr_run(client, MR_NO_WAIT, NULL), fake_next(channel, &request))));
    position = expect_repeat(1);
    put_events(position, 13, 13);
    expect_events(stream, 13, 13);
}

static void test_shared_frames(void **state)
{
    (void)state;
    struct response_other of[4];
    mr_stream *streams[4];
    struct slice filter;

    for (unsigned n = 0; n < 4; n++) {
        streams[n] = listen_to("", &of[n].request);
        put_event(of[n].request, 1, false, STATUS_OK, "begun");
        expect_event(streams[n], "begun");
        of[n].number = 2;
    }
    put_shared(of, 4, "a");
    put_event(of[1].request, 3, false, STATUS_OK, "b"); /* frames of their own between */
    for (unsigned n = 0; n < 4; n++)
        of[n].number = n == 1 ? 4 : 3;
    put_shared(of, 4, "c");
    put_shared(of, 4, "c"); /* nothing new to anyone */
    for (unsigned n = 0; n < 3; n++) {
        expect_event(streams[n], "a");
        if (n == 1)
            expect_event(streams[n], "b");
        expect_event(streams[n], "c");
        expect_nothing(streams[n]);
    }
    /* One of them is closed, with something in its queue that others hold; what comes for it passes by. */
    mr_stream_close(streams[3]);
    expect_keep_alive(4, &filter);
    for (unsigned n = 0; n < 4; n++)
        of[n].number++;
    of[0].request += 8; /* a position where nothing was sent */
    put_shared(of, 4, "d");
    expect_nothing(streams[0]);
    expect_event(streams[1], "d");
    expect_event(streams[2], "d");
    expect_nothing(streams[1]);
    /* Of a new sending as of the old one. */
    fake_new_worker(channel);
    (void)mr_run(client, MR_NO_WAIT, NULL);
    for (unsigned n = 0; n < 3; n++) {
        struct fake_request request = take();
        assert_int_equal(request.head.flags, REQUEST_SHARES);
        of[n] = (struct response_other){request.position, n == 1 ? 5 : 4};
    }
    put_shared(of, 3, "d");
    for (unsigned n = 0; n < 3; n++)
        of[n].number++;
    put_shared(of, 3, "e");
    expect_event(streams[0], "d");
    for (unsigned n = 0; n < 3; n++)
        expect_event(streams[n], "e");
}

static void test_a_shared_frame_that_cannot_be(void **state)
{
    (void)state;
    struct response_other of[2] = {{.number = 1}, {.number = 1}};
    struct ring_writer *ring = &channel->responses;
    uint8_t *head = ring->data + (ring->tail & (ring->capacity - 1));
    uint16_t others = UINT16_MAX;
    mr_stream *stream = listen_to("", &of[0].request);

    write_event(of[0].request, 1, false, STATUS_OK, "begun");
    memcpy(head + offsetof(struct response_head, others), &others, sizeof(others));
    fake_publish(node, channel);
    expect_end(stream, MR_UNAVAILABLE, "cannot be");
}

/* An output that is the last of its request is nobody else's. */
static void test_a_shared_frame_that_ends_a_request(void **state)
{
    (void)state;
    struct response_other of[2];
    mr_stream *streams[2];
    struct ring_writer *ring = &channel->responses;
    uint8_t flags = FRAME_LAST;

    for (unsigned n = 0; n < 2; n++) {
        streams[n] = listen_to("", &of[n].request);
        put_event(of[n].request, 1, false, STATUS_OK, "begun");
        expect_event(streams[n], "begun");
        of[n].number = 2;
    }
    uint8_t *head = ring->data + (ring->tail & (ring->capacity - 1));
    write_shared(of, 2, "last");
    memcpy(head + offsetof(struct response_head, flags), &flags, sizeof(flags));
    fake_publish(node, channel);
    for (unsigned n = 0; n < 2; n++)
        expect_end(streams[n], MR_UNAVAILABLE, "cannot be");
}

static void test_a_frame_shared_by_too_many(void **state)
{
    (void)state;
    struct response_other of[FRAME_OTHERS_MAX + 2] = {{0}};
    mr_stream *stream = listen_to("", &of[0].request);

    for (unsigned n = 0; n < FRAME_OTHERS_MAX + 2; n++)
        of[n] = (struct response_other){of[0].request + (uint64_t)n * FRAME_ALIGNMENT, 1};
    put_shared(of, FRAME_OTHERS_MAX + 1, "a"); /* that many, most of whom nobody knows */
    expect_event(stream, "a");
    of[0].number++;
    put_shared(of, FRAME_OTHERS_MAX + 2, "b");
    expect_end(stream, MR_UNAVAILABLE, "cannot be");
}

/* Who shares a frame need not be who shared the one before, nor stand where it stood. */
static void test_takers_in_any_order(void **state)
{
    (void)state;
    static const unsigned orders[][4] = {{0, 1, 2, 3}, {3, 1, 0, 2}, {0, 1, 2, 3}, {1, 2, 3, 0}, {3, 2, 1, 0}};
    struct response_other of[4], shuffled[4];
    mr_stream *streams[4];
    char key[2] = "a";

    for (unsigned n = 0; n < 4; n++) {
        streams[n] = listen_to("", &of[n].request);
        of[n].number = 0;
    }
    for (unsigned round = 0; round < 2 * (sizeof(orders) / sizeof(orders[0])); round++, key[0]++) {
        unsigned count = round % 2 == 0 ? 4 : 3;
        for (unsigned i = 0; i < 4; i++) {
            unsigned n = orders[round / 2][i];
            of[n].number++;
            shuffled[i] = of[n];
        }
        put_shared(shuffled, (uint16_t)count, key);
        if (count == 3)
            put_event(shuffled[3].request, shuffled[3].number, false, STATUS_OK, key);
        for (unsigned n = 0; n < 4; n++)
            expect_event(streams[n], key);
    }
    struct slice filter;
    mr_stream_close(streams[0]); /* and another one opened, which stands elsewhere */
    expect_keep_alive(4, &filter);
    streams[0] = listen_to("", &of[3].request);
    of[3].number = 0;
    uint64_t position = of[0].request;
    of[0] = (struct response_other){of[3].request, 1};
    of[3] = (struct response_other){position, of[1].number + 1};
    of[1].number++;
    of[2].number++;
    put_shared(of, 3, "z");
    for (unsigned n = 0; n < 3; n++)
        expect_event(streams[n], "z");
    expect_nothing(streams[0]);
    expect_nothing(streams[3]);
}

static void test_closing_cancels(void **state)
{
    (void)state;
    uint64_t position, other;
    struct slice filter;
    mr_stream *stream = listen_to("", &position);
    mr_stream *second = listen_to("b", &other);

    put_events(position, 1, 3);
    put_events(other, 1, 1);
    expect_events(stream, 1, 2);
    mr_stream_close(stream);
    expect_keep_alive(2, &filter);
    assert_true(filter_has(filter, 2));
    assert_false(filter_has(filter, 1));
    assert_int_equal(told_count, 0);
    put_events(position, 4, 5); /* dropped, as is its end */
    fake_frame(channel, STATUS_CANCELED, true, position, 0, "canceled", 8);
    expect_events(second, 1, 1);
    expect_no_request();

    /* Before its first answer: told once that has come. */
    stream = listen_to("c", &position);
    mr_stream_close(stream);
    expect_no_request();
    put_events(position, 1, 1);
    (void)mr_run(client, MR_NO_WAIT, NULL);
    expect_keep_alive(3, &filter);
    assert_true(filter_has(filter, 2));
    assert_false(filter_has(filter, 3));
}

static void test_what_is_taken_is_acknowledged(void **state)
{
    (void)state;
    uint64_t position, other;
    mr_stream *stream = listen_to("", &position);
    mr_stream *second = listen_to("b", &other);
    uint64_t number = 0;

    put_events(other, 1, 1);
    expect_events(second, 1, 1);
    while (number < 2 * MR_KEEP_ALIVE_OUTPUTS) {
        put_events(position, number + 1, number + 20);
        expect_events(stream, number + 1, number + 20);
        number += 20;
        struct fake_request request;
        if (fake_next(channel, &request))
            break;
    }
    assert_in_range(number, MR_KEEP_ALIVE_OUTPUTS, MR_KEEP_ALIVE_OUTPUTS + 40);
    struct slice filter;
    expect_keep_alive(2, &filter);
    assert_true(filter_has(filter, 1) && filter_has(filter, 2));
    assert_int_equal(told_count, 1);
    assert_int_equal(told_number, 1);
    assert_in_range(told_output, MR_KEEP_ALIVE_OUTPUTS - 40, number - 1); /* not the one in hand */
    expect_no_request();
}

static void test_ends(void **state)
{
    (void)state;
    uint64_t position;
    mr_stream *stream = listen_to("", &position);

    put_events(position, 1, 2);
    put_event(position, 3, true, STATUS_CANCELED, "the session ended");
    expect_events(stream, 1, 2);
    expect_end(stream, MR_CANCELED, "the session ended");
    struct slice filter;
    expect_keep_alive(1, &filter);

    stream = listen_to("", &position);
    fake_frame(channel, STATUS_INVALID, true, position, 0, "not that", 8);
    fake_publish(node, channel);
    expect_end(stream, MR_INVALID, "not that");

    stream = listen_to("", &position);
    put_events(position, 1, 1);
    fake_close_channel(channel, "it was time");
    struct mr_event event;
    enum mr_status status;
    assert_true(wait_for((status = mr_stream_next(stream, MR_NO_WAIT, &event)) != MR_AGAIN && status != MR_OK));
    expect_end(stream, MR_UNAVAILABLE, "it was time");
}

static void test_arming(void **state)
{
    (void)state;
    uint64_t position;
    mr_stream *stream = listen_to("", &position);

    assert_int_equal(mr_arm(client), MR_OK);
    put_events(position, 1, 2);
    assert_true(wait_fd(mr_fd(client), POLLIN, WAIT_MS));
    assert_int_equal(mr_run(client, MR_NO_WAIT, NULL), MR_OK);
    assert_int_equal(mr_arm(client), MR_AGAIN); /* something has come: once */
    assert_int_equal(mr_arm(client), MR_OK);
    expect_events(stream, 1, 2);
    expect_nothing(stream);
    assert_int_equal(mr_arm(client), MR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_dropped_and_named_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_last_one_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_new_worker, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_shared_frames, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_shared_frame_that_cannot_be, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_shared_frame_that_ends_a_request, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_frame_shared_by_too_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_takers_in_any_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_closing_cancels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_taken_is_acknowledged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_arming, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
