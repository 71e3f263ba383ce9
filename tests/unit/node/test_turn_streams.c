/* SPDX-License-Identifier: Apache-2.0 */
/* Commands and queries with many outputs, as a worker gives them: numbered, in order, held back while a client does not
 * read, given again to who names them again. On a machine in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "proto/reader.h"
#include "tests/support/worker_scene.h"

#define RING (64 * MR_KIB)

static uint64_t put_key(struct scene *scene, const char *key, size_t size)
{
    static uint8_t value[2048];
    struct payload payload = write_payload(key, (struct slice){value, size}, NULL, 0);
    request_command(&scene->request, scene->session, scene->map, scene->next++, "Put", payload_slice(&payload));
    return scene_send(scene, FRAME_COMMAND);
}

static uint64_t keep_alive(struct scene *scene, struct slice filter, uint64_t last_input)
{
    request_keep_alive(&scene->request, scene->session, filter, last_input, NULL, 0);
    return scene_send(scene, FRAME_COMMAND);
}

/* Takes all there is for a stream whose next output has this number; returns the number after the last. */
static uint64_t take_outputs(struct scene *scene, uint64_t position, uint64_t number, bool *last)
{
    struct harness_frame frame;

    *last = false;
    while (harness_take(scene->client, &frame)) {
        if (frame.head.request != position)
            continue;
        assert_false(*last);
        assert_int_equal(frame.head.status, STATUS_OK);
        assert_int_equal(frame.head.number, number++);
        *last = (frame.head.flags & FRAME_LAST) != 0;
    }
    return number;
}

static void events_are_numbered_from_listening_on(void **state)
{
    struct scene scene;
    bool last;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct scene talker = scene_beside(&scene, 1, RING);
    uint64_t position = scene_listen(&scene, 1000, "", false);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 1, &last), 2);
    for (unsigned i = 0; i < 10; i++)
        put_key(&talker, "key", 10);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 2, &last), 12);
    assert_false(last);
    assert_int_equal(scene.harness->worker.channels[0].held, MR_SMALL_FRAME); /* for the last frame */
    request_close_session(&talker.request, scene.session);
    scene_send(&talker, FRAME_COMMAND);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 12, &last), 13);
    assert_true(last);
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    request_free(&talker.request);
    scene_end(&scene);
}

/* What a sleeping listener does not read stays in its session; nobody else waits; when it reads, all comes, in order.
 */
static void a_sleeping_listener_goes_on_where_it_stopped(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    uint64_t number = 1, talked = 0;
    bool last;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    struct scene talker = scene_beside(&scene, 1, RING);
    uint64_t position = scene_listen(&scene, 1000, "", false);
    for (unsigned i = 0; i < 100; i++) {
        put_key(&talker, "key", 1000);
        harness_settle(scene.harness);
        assert_true(harness_take(talker.client, &frame)); /* who reads is answered */
        assert_int_equal(frame.head.status, STATUS_OK);
        talked++;
    }
    assert_true(scene.harness->worker.channels[0].owed_count > 0);
    for (unsigned i = 0; i < 1000 && number < talked + 2; i++) {
        number = take_outputs(&scene, position, number, &last);
        harness_settle(scene.harness);
    }
    assert_int_equal(number, talked + 2);
    assert_int_equal(scene.harness->worker.channels[0].owed_count, 0);
    put_key(&talker, "key", 10);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, number, &last), number + 1);
    request_free(&talker.request);
    scene_end(&scene);
}

static void named_again_elsewhere_it_is_taken_over(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    bool last;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct scene other = scene_beside(&scene, 1, RING);
    uint64_t first = scene_listen(&scene, 1000, "", false);
    put_key(&scene, "key", 10);
    harness_settle(scene.harness);
    while (harness_take(scene.client, &frame))
        ;
    uint64_t second = scene_listen(&other, 1000, "", false);
    harness_settle(scene.harness);
    scene_take(&scene, first, &frame);
    assert_int_equal(frame.head.status, STATUS_CANCELED);
    assert_int_equal(frame.head.flags, FRAME_LAST);
    frame.body[frame.head.size] = '\0';
    assert_non_null(strstr((char *)frame.body, "taken over"));
    assert_int_equal(take_outputs(&other, second, 1, &last), 3); /* nothing was acknowledged: from the first */
    put_key(&scene, "key", 10);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&other, second, 3, &last), 4);
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    request_free(&other.request);
    scene_end(&scene);
}

static void a_keep_alive_without_it_cancels(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    uint64_t position = scene_listen(&scene, 1, "", false);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    uint64_t renewal = keep_alive(&scene, (struct slice){NULL, 0}, 1);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    assert_int_equal(frame.head.status, STATUS_CANCELED);
    assert_int_equal(frame.head.flags, FRAME_LAST);
    scene_take(&scene, renewal, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    scene_end(&scene);
}

/* Open commands that hold all there is: what would open more is refused, what ends them is not. */
static void too_many_open_commands_refuse_and_can_be_ended(void **state)
{
    struct scene scene;
    struct harness_frame frame = {0};
    unsigned open = 0, refused = 0;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    for (uint64_t n = 1; n <= 100; n++) {
        uint64_t position = scene_listen(&scene, n, "none", false);
        harness_settle(scene.harness);
        scene_take(&scene, position, &frame);
        open += frame.head.status == STATUS_OK;
        refused += frame.head.status == STATUS_UNAVAILABLE;
    }
    frame.body[frame.head.size] = '\0';
    assert_non_null(strstr((char *)frame.body, "32 requests open")); /* the limit, in figures ... */
    assert_non_null(strstr((char *)frame.body, "16384"));            /* ... and what it comes from */
    /* What only takes away is admitted. */
    struct payload key = key_payload("k", 0), nothing = {.size = 0};
    request_command(&scene.request, scene.session, scene.map, 101, "Remove", payload_slice(&key));
    uint64_t takes[2] = {scene_send(&scene, FRAME_COMMAND)};
    request_command(&scene.request, scene.session, scene.map, 102, "Clear", payload_slice(&nothing));
    takes[1] = scene_send(&scene, FRAME_COMMAND);
    harness_settle(scene.harness);
    for (unsigned i = 0; i < 2; i++) {
        scene_take(&scene, takes[i], &frame);
        assert_int_equal(frame.head.status, STATUS_OK);
    }
    uint64_t refused_put = scene_put(&scene, 103, 1);
    harness_settle(scene.harness);
    scene_take(&scene, refused_put, &frame);
    assert_int_equal(frame.head.status, STATUS_UNAVAILABLE);
    assert_int_equal(open, MR_RING_BYTES_MIN / 2 / MR_SMALL_FRAME);
    assert_int_equal(open + refused, 100);
    keep_alive(&scene, (struct slice){NULL, 0}, open);
    unsigned ended = 0;
    for (unsigned i = 0; i < 100; i++) {
        harness_settle(scene.harness);
        while (harness_take(scene.client, &frame))
            ended += frame.head.status == STATUS_CANCELED;
    }
    assert_int_equal(ended, open);
    uint64_t position = scene_listen(&scene, 1000, "none", false);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
    scene_end(&scene);
}

/* An event that no frame in this ring can carry ends that request, not the stream. */
static void an_event_too_large_for_the_ring_ends_the_request(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene = (struct scene){.harness = harness_create(1)};
    scene.harness->max_payload = 16 * MR_KIB;
    scene_start(&scene, RING);
    struct scene small = scene_beside(&scene, 1, MR_RING_BYTES_MIN);
    uint64_t position = scene_listen(&small, 1000, "", false);
    harness_settle(scene.harness);
    scene_take(&small, position, &frame);
    static uint8_t value[10000];
    static uint8_t body[16384];
    /* PutInput {key, value {value}} by hand: the helpers' payloads are smaller */
    size_t value_size = field_bytes_size(1, sizeof(value));
    size_t size = field_bytes_size(1, 1) + field_message_head_size(2, value_size) + value_size;
    uint8_t *at = field_write_bytes(body, 1, text("k"));
    at = field_write_message_head(at, 2, value_size);
    at = field_write_bytes(at, 1, (struct slice){value, sizeof(value)});
    assert_int_equal(at - body, size);
    request_command(&scene.request, scene.session, scene.map, scene.next++, "Put", (struct slice){body, size});
    uint64_t put = scene_send(&scene, FRAME_COMMAND);
    harness_settle(scene.harness);
    scene_take(&scene, put, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
    scene_take(&small, position, &frame);
    assert_int_equal(frame.head.status, STATUS_INVALID);
    assert_int_equal(frame.head.flags, FRAME_LAST);
    frame.body[frame.head.size] = '\0';
    assert_non_null(strstr((char *)frame.body, "takes 100")); /* and some bytes around the value */
    assert_non_null(strstr((char *)frame.body, "response ring, 8192"));
    put_key(&scene, "k", 10);
    harness_settle(scene.harness);
    assert_false(harness_take(small.client, &frame)); /* nothing behind a last frame */
    struct scene large = scene_beside(&scene, 2, RING);
    bool last;
    position = scene_listen(&large, 1000, "", false);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&large, position, 1, &last), 4);
    /* the earlier request has been told its end: being taken over is not told to it as well */
    assert_false(harness_take(small.client, &frame));
    assert_int_equal(scene.harness->worker.channels[1].held, 0);
    request_free(&small.request);
    request_free(&large.request);
    scene_end(&scene);
}

/* Small outputs do not slip past a large one that waits for room, or it might wait for ever. */
static void outputs_of_a_channel_come_in_order(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    bool small_came = false;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    struct scene talker = scene_beside(&scene, 1, RING);
    uint64_t large = scene_listen(&scene, 1000, "large", false);
    uint64_t small = scene_listen(&scene, 1001, "small", false);
    harness_settle(scene.harness);
    assert_true(harness_take(scene.client, &frame) && harness_take(scene.client, &frame));
    for (unsigned i = 0; scene.harness->worker.channels[0].owed_count == 0; i++) {
        assert_true(i < 100);
        put_key(&talker, "large", 1000);
        harness_settle(scene.harness);
        assert_true(harness_take(talker.client, &frame));
    }
    put_key(&talker, "small", 1);
    harness_settle(scene.harness);
    assert_true(harness_take(talker.client, &frame));
    while (!small_came) {
        if (!harness_take(scene.client, &frame)) {
            harness_settle(scene.harness);
            assert_true(harness_take(scene.client, &frame));
        }
        small_came = frame.head.request == small;
        assert_true(small_came || frame.head.request == large);
    }
    assert_int_equal(scene.harness->worker.channels[0].owed_count, 0);
    assert_false(harness_take(scene.client, &frame) && frame.head.request == large);
    request_free(&talker.request);
    scene_end(&scene);
}

/* However its outputs fill the ring, a stream's last frame has the room that its request holds. */
static void the_last_frame_always_has_room(void **state)
{
    (void)state;
    for (size_t size = 1; size < 120; size += 7) {
        struct scene scene;
        struct harness_frame frame;
        unsigned last = 0;
        scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
        struct scene talker = scene_beside(&scene, 1, RING);
        uint64_t position = scene_listen(&scene, 1000, "", false);
        for (unsigned i = 0; scene.harness->worker.channels[0].owed_count == 0; i++) {
            assert_true(i < 1000);
            put_key(&talker, "key", size);
            harness_settle(scene.harness);
            assert_true(harness_take(talker.client, &frame));
        }
        request_close_session(&talker.request, scene.session);
        scene_send(&talker, FRAME_COMMAND);
        harness_settle(scene.harness);
        assert_false(scene.client->closed);
        for (unsigned i = 0; i < 3; i++) {
            while (harness_take(scene.client, &frame))
                last += frame.head.request == position && (frame.head.flags & FRAME_LAST) != 0;
            harness_settle(scene.harness);
        }
        assert_int_equal(last, 1);
        assert_int_equal(scene.harness->worker.channels[0].held, 0);
        request_free(&talker.request);
        scene_end(&scene);
    }
}

/* A worker dies with a stream open: its client names it again, and misses nothing. */
static void a_stream_outlives_the_worker(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    bool last;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct scene talker = scene_beside(&scene, 1, RING);
    uint64_t position = scene_listen(&scene, 1000, "", false);
    put_key(&talker, "key", 10);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 1, &last), 3);
    harness_kill(scene.harness);
    put_key(&talker, "key", 10);
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    assert_false(harness_take(scene.client, &frame)); /* the successor does not know who listens until it is told */
    position = scene_listen(&scene, 1000, "", false);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 1, &last), 4);
    put_key(&talker, "key", 10);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 4, &last), 5);
    request_free(&talker.request);
    scene_end(&scene);
}

/* Killed between applying and publishing: the outputs of a stream just opened come from the successor, once. */
static void a_stream_opened_as_the_worker_dies_is_answered(void **state)
{
    struct scene scene;
    bool last;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    fake_machine_config(scene.harness->machine)->crash = FAKE_KEEP;
    uint64_t position = scene_listen(&scene, 1000, "", false);
    harness_settle(scene.harness); /* logged, in flight */
    harness_kill(scene.harness);
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 1, &last), 2);
    assert_int_equal(scene.harness->worker.channels[0].held, MR_SMALL_FRAME);
    put_key(&scene, "key", 10);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 2, &last), 3);
    scene_end(&scene);
}

static void entries_take_turns(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    bool last = false;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, 4 * RING);
    struct scene other = scene_beside(&scene, 1, RING);
    for (unsigned i = 0; i < 1000; i++) {
        char key[16] = {'k', (char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10)};
        put_key(&scene, key, 10);
        harness_settle(scene.harness);
        assert_true(harness_take(scene.client, &frame));
    }
    uint64_t position = scene_entries(&scene);
    turn_run(&scene.harness->worker);
    uint64_t given = take_outputs(&scene, position, 1, &last) - 1;
    assert_true(given > 0 && given <= MR_TURN_OUTPUTS);
    /* another client's query is answered in between, and the walk goes on without being asked */
    uint64_t others = scene_entries(&other);
    turn_run(&scene.harness->worker);
    assert_true(harness_take(other.client, &frame));
    assert_int_equal(frame.head.request, others);
    uint64_t next = given + 1;
    for (unsigned i = 0; i < 100 && !last; i++) {
        turn_run(&scene.harness->worker);
        next = take_outputs(&scene, position, next, &last);
    }
    assert_true(last);
    assert_int_equal(next, 1001);
    request_free(&other.request);
    scene_end(&scene);
}

static void entries_of_who_does_not_read_wait_without_a_limit(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    bool last = false;
    uint64_t next = 1;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    struct scene talker = scene_beside(&scene, 1, RING);
    for (unsigned i = 0; i < 100; i++) {
        char key[16] = {'k', (char)('0' + i / 10), (char)('0' + i % 10)};
        put_key(&talker, key, 1000);
        harness_settle(scene.harness);
        assert_true(harness_take(talker.client, &frame));
    }
    uint64_t position = scene_entries(&scene);
    harness_settle(scene.harness);
    fake_machine_advance(scene.harness->machine, MR_SECOND);
    harness_settle(scene.harness);
    for (unsigned i = 0; i < 1000 && !last; i++) {
        next = take_outputs(&scene, position, next, &last);
        fake_machine_advance(scene.harness->machine, 60 * MR_MILLISECOND); /* in all more than the default limit */
        harness_settle(scene.harness);
    }
    assert_true(last);
    assert_int_equal(next, 101);
    request_free(&talker.request);
    scene_end(&scene);
}

static void entries_of_an_empty_map_are_one_empty_output(void **state)
{
    struct scene scene;
    bool last;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    uint64_t position = scene_entries(&scene);
    harness_settle(scene.harness);
    assert_int_equal(take_outputs(&scene, position, 1, &last), 2);
    assert_true(last);
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_numbered_from_listening_on),
        cmocka_unit_test(a_sleeping_listener_goes_on_where_it_stopped),
        cmocka_unit_test(named_again_elsewhere_it_is_taken_over),
        cmocka_unit_test(a_keep_alive_without_it_cancels),
        cmocka_unit_test(too_many_open_commands_refuse_and_can_be_ended),
        cmocka_unit_test(an_event_too_large_for_the_ring_ends_the_request),
        cmocka_unit_test(outputs_of_a_channel_come_in_order),
        cmocka_unit_test(the_last_frame_always_has_room),
        cmocka_unit_test(a_stream_outlives_the_worker),
        cmocka_unit_test(a_stream_opened_as_the_worker_dies_is_answered),
        cmocka_unit_test(entries_take_turns),
        cmocka_unit_test(entries_of_who_does_not_read_wait_without_a_limit),
        cmocka_unit_test(entries_of_an_empty_map_are_one_empty_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
