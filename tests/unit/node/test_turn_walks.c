/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and walks at the edge of what a channel can hold, and of a worker's life: each ends, none is begun twice, and
 * a turn gives one channel its share only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "proto/reader.h"
#include "tests/support/worker_scene.h"

/* Open commands hold half of the ring; a walk over the map is taken besides; its output is within half of the ring and
 * yet can never fit; nothing ends the walk, and behind it nothing is read: not even what would end the commands. */
static void a_walk_in_a_crowded_channel_ends(void **state)
{
    struct scene scene = {.harness = harness_create(1)};
    struct harness_frame frame;
    (void)state;
    scene.harness->max_payload = 16 * MR_KIB;
    scene_start(&scene, 64 * MR_KIB);
    scene_put_large(&scene, "a", MR_RING_BYTES_MIN / 2 - 150);
    scene_put_large(&scene, "b", 10);
    struct scene small = scene_beside(&scene, 1, MR_RING_BYTES_MIN);
    for (uint64_t n = 1; n <= MR_RING_BYTES_MIN / 2 / MR_SMALL_FRAME; n++) {
        scene_listen(&small, 1000 + n, "none", false);
        harness_settle(scene.harness);
        assert_true(harness_take(small.client, &frame));
        assert_int_equal(frame.head.status, STATUS_OK);
    }
    uint64_t walk = scene_entries(&small);
    harness_settle(scene.harness);
    bool walked = false;
    for (unsigned i = 0; i < 200; i++) {
        harness_settle(scene.harness);
        while (harness_take(small.client, &frame)) {
            if (frame.head.request != walk || (frame.head.flags & FRAME_LAST) == 0)
                continue;
            walked = true;
            assert_int_equal(frame.head.status, STATUS_UNAVAILABLE);
            frame.body[frame.head.size] = '\0';
            assert_non_null(strstr((char *)frame.body, "hold 8448 of the channel's ring of 16384 bytes"));
        }
        fake_machine_advance(scene.harness->machine, 10 * MR_MILLISECOND);
    }
    assert_true(walked);
    request_free(&small.request);
    scene_end(&scene);
}

/* Every listener of a full ring is owed something as the session is closed elsewhere: all end in one turn. */
static void all_that_is_owed_ends_at_once(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    const unsigned count = 2000;

    (void)state;
    scene = (struct scene){.harness = harness_create(1)};
    scene.harness->session_output_limit = 1 * MR_GIB;
    scene.harness->segment_bytes = 256 * MR_MIB;
    scene_start(&scene, 2 * MR_MIB);
    struct scene talker = scene_beside(&scene, 1, 64 * MR_KIB);
    for (unsigned i = 0; i < count; i++) {
        scene_listen(&scene, 100000 + i, "key", false);
        if (i % 128 == 0)
            harness_settle(scene.harness);
    }
    harness_settle(scene.harness);
    while (scene.harness->worker.channels[0].owed_count < count) {
        scene_put(&talker, talker.next++, 1000);
        harness_settle(scene.harness);
        assert_true(harness_take(talker.client, &frame));
        assert_int_equal(frame.head.status, STATUS_OK);
    }
    request_close_session(&talker.request, scene.session);
    scene_send(&talker, FRAME_COMMAND);
    harness_settle(scene.harness);
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    assert_int_equal(scene.harness->worker.channels[0].owed_count, 0);
    request_free(&talker.request);
    scene_end(&scene);
}

/* Walks of one channel whose client reads: how much one turn gives */
static void many_walks_share_a_turn(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    (void)state;
    scene_begin(&scene, DURABILITY_MEMORY, 128 * MR_MIB);
    for (unsigned i = 0; i < 3000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%u", i);
        struct payload payload = write_payload(key, (struct slice){(const uint8_t *)key, 1}, NULL, 0);
        request_command(&scene.request, scene.session, scene.map, scene.next++, "Put", payload_slice(&payload));
        scene_send(&scene, FRAME_COMMAND);
        harness_settle(scene.harness);
        assert_true(harness_take(scene.client, &frame));
    }
    for (unsigned i = 0; i < 800; i++)
        scene_entries(&scene);
    uint64_t most = 0;
    for (unsigned i = 0; i < 6; i++) {
        uint64_t before = scene.harness->worker.channels[0].responses.tail;
        turn_run(&scene.harness->worker);
        uint64_t gave = scene.harness->worker.channels[0].responses.tail - before;
        most = gave > most ? gave : most;
    }
    assert_true(most > 0 && most <= 3 * MR_TURN_CHANNEL_BYTES); /* twice in a turn, and what was under way */
    scene_end(&scene);
}

/* A worker replays a stream that nobody was told of, then finds its log damaged: a stopped partition's worker sleeps.
 */
static void a_stopped_partition_that_owed_sleeps(void **state)
{
    bool met = false;
    (void)state;
    for (uint64_t block = 1; block < 12 && !met; block++) {
        struct scene scene;
        struct harness_frame frame;
        scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
        struct region_channel *region = &scene.harness->region->channels[0];
        struct cursor_pair before = region->pair[atomic_load(&region->current) & 1];
        scene_listen(&scene, 1000, "", false);
        harness_settle(scene.harness);
        for (unsigned i = 0; i < 4; i++) {
            scene_put(&scene, scene.next++, 100);
            harness_settle(scene.harness);
        }
        fake_machine_advance(scene.harness->machine, MR_SECOND);
        harness_settle(scene.harness);
        harness_kill(scene.harness);
        /* as if it had died before it published: nothing of that was read by the client */
        region->pair[atomic_load(&region->current) & 1] = before;
        const char *segment = fake_file_name(scene.harness->machine, "/partition-0001", 0);
        fake_file_flip(scene.harness->machine, "/partition-0001", segment, 4096 * block + 100, 3);
        if (harness_start(scene.harness) == -1 && scene.harness->worker.channels[0].owed_capacity > 0) {
            met = true;
            for (unsigned i = 0; i < 200; i++) {
                scene_increment(&scene, 1);
                harness_settle(scene.harness);
            }
            assert_true(scene.harness->worker.channels[0].stuck);
            for (unsigned i = 0; i < 10; i++) {
                while (harness_take(scene.client, &frame))
                    ;
                harness_settle(scene.harness);
            }
            assert_true(channels_park_all(&scene.harness->worker));
        }
        scene_end(&scene);
    }
    assert_true(met);
}

/* A walk is read behind a command that is being written, gives outputs, and the worker dies: what does the successor
 * give at the walk's position? */
static void a_walk_behind_a_write_is_not_begun_twice(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    struct scene talker = {.harness = scene.harness};
    talker = scene_beside(&scene, 1, 64 * MR_KIB);
    char keys[20][4];
    for (unsigned i = 0; i < 20; i++) {
        static uint8_t value[1500];
        snprintf(keys[i], sizeof(keys[i]), "k%u", i);
        struct payload payload = write_payload(keys[i], (struct slice){value, sizeof(value)}, NULL, 0);
        request_command(&talker.request, talker.session, talker.map, talker.next++, "Put", payload_slice(&payload));
        scene_send(&talker, FRAME_COMMAND);
        harness_settle(scene.harness);
        assert_true(harness_take(talker.client, &frame));
    }
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    fake_machine_config(scene.harness->machine)->crash = FAKE_KEEP;
    scene_put(&scene, 500, 10);
    harness_settle(scene.harness);
    uint64_t walk = scene_entries(&scene);
    harness_settle(scene.harness);
    uint64_t number = 0;
    while (harness_take(scene.client, &frame))
        if (frame.head.request == walk)
            number = frame.head.number;
    uint64_t first = number; /* 0 is fine: it waits for the write */
    harness_kill(scene.harness);
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    while (harness_take(scene.client, &frame))
        if (frame.head.request == walk && first > 0) {
            fail();
        }
    request_free(&talker.request);
    scene_end(&scene);
}

/* Walks alone: taken while a large entry waits for room, they hold more than lets it ever fit. */
static void walks_do_not_lock_each_other_out(void **state)
{
    struct scene scene = {.harness = harness_create(1)};
    struct harness_frame frame;
    unsigned over = 0;
    (void)state;
    scene.harness->max_payload = 16 * MR_KIB;
    scene_start(&scene, 64 * MR_KIB);
    scene_put_large(&scene, "a", 10);
    scene_put_large(&scene, "b", MR_RING_BYTES_MIN / 2 - 150);
    scene_put_large(&scene, "c", MR_RING_BYTES_MIN / 2 - 150);
    struct scene small = scene_beside(&scene, 1, MR_RING_BYTES_MIN);
    for (unsigned i = 0; i < 60; i++)
        assert_true(scene_entries(&small) != UINT64_MAX);
    for (unsigned i = 0; i < 500; i++) {
        harness_settle(scene.harness);
        while (harness_take(small.client, &frame))
            over += (frame.head.flags & FRAME_LAST) != 0;
        fake_machine_advance(scene.harness->machine, 100 * MR_MILLISECOND);
    }
    assert_int_equal(over, 60);
    request_free(&small.request);
    scene_end(&scene);
}

/* A walk's bytes are not kept while it waits for room, however long they are: with them one channel could have the
 * worker hold as much memory as it liked. */
static void a_walk_keeps_no_bytes(void **state)
{
    enum { WALKS = 16, BYTES = 4000 };
    struct scene scene = {.harness = harness_create(1)};
    struct harness_frame frame;
    static uint8_t unknown[BYTES]; /* a field that Entries does not have */
    unsigned over = 0;

    (void)state;
    scene.harness->max_payload = 16 * MR_KIB;
    scene_start(&scene, 64 * MR_KIB);
    scene_put_large(&scene, "a", 10000);
    scene_put_large(&scene, "b", 10000);
    const struct worker_channel *channel = &scene.harness->worker.channels[0];
    memcpy(unknown, (uint8_t[]){0x7a, (BYTES - 3) % 128 | 0x80, (BYTES - 3) / 128}, 3);
    request_query(&scene.request, scene.session, scene.map, "Entries", (struct slice){unknown, BYTES});
    for (unsigned i = 0; i < WALKS; i++) {
        assert_true(scene_send(&scene, FRAME_QUERY) != UINT64_MAX);
        harness_settle(scene.harness);
    }
    assert_true(channel->waiting_count > WALKS / 2);
    assert_in_range(channel->waiting_bytes, 1, WALKS * 2 * sizeof(struct waiting_query));
    for (unsigned i = 0; i < 100; i++) {
        harness_settle(scene.harness);
        while (harness_take(scene.client, &frame)) {
            assert_int_equal(frame.head.status, STATUS_OK);
            over += (frame.head.flags & FRAME_LAST) != 0;
        }
    }
    assert_int_equal(over, WALKS);
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_walk_in_a_crowded_channel_ends),
        cmocka_unit_test(all_that_is_owed_ends_at_once),
        cmocka_unit_test(many_walks_share_a_turn),
        cmocka_unit_test(a_stopped_partition_that_owed_sleeps),
        cmocka_unit_test(a_walk_behind_a_write_is_not_begun_twice),
        cmocka_unit_test(walks_do_not_lock_each_other_out),
        cmocka_unit_test(a_walk_keeps_no_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
