/* SPDX-License-Identifier: Apache-2.0 */
/* Shared frames, as a worker writes them: an event crosses once for the requests of a channel that asked for it, and
 * nobody has it twice, out of order, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/worker_scene.h"

#define RING (64 * MR_KIB)
#define LISTENERS 70 /* more than one frame holds */

/* A client that listens, and another one that puts. */
struct shared {
    struct scene scene, talker;
    uint64_t positions[LISTENERS], numbers[LISTENERS]; /* of outputs read */
    bool asked[LISTENERS];
    unsigned count;
};

static void begin(struct shared *shared, uint64_t ring_bytes)
{
    *shared = (struct shared){.count = 0};
    scene_begin(&shared->scene, DURABILITY_SYNC, ring_bytes);
    shared->talker = scene_beside(&shared->scene, 1, RING);
}

static void end(struct shared *shared)
{
    request_free(&shared->talker.request);
    scene_end(&shared->scene);
}

static uint64_t name_stream(struct scene *scene, unsigned stream, const char *key)
{
    return scene_listen(scene, 1000 + stream, key, false);
}

static void listen(struct shared *shared, const char *key, bool shares)
{
    shared->scene.client->shares = shared->asked[shared->count] = shares;
    shared->positions[shared->count] = name_stream(&shared->scene, shared->count, key);
    shared->numbers[shared->count++] = 0;
}

static void put(struct shared *shared, const char *key, size_t size)
{
    static uint8_t value[2048];
    struct payload payload = write_payload(key, (struct slice){value, size}, NULL, 0);
    struct scene *talker = &shared->talker;
    request_command(&talker->request, talker->session, talker->map, talker->next++, "Put", payload_slice(&payload));
    assert_int_not_equal(scene_send(talker, FRAME_COMMAND), UINT64_MAX);
}

/* Takes what is there; returns how many outputs. Each must be its request's next one. */
static unsigned take_all(struct shared *shared)
{
    struct harness_frame frame;
    unsigned taken = 0;

    for (; harness_take(shared->scene.client, &frame); taken++) {
        unsigned n = 0;
        while (n < shared->count && shared->positions[n] != frame.head.request)
            n++;
        assert_int_not_equal(n, shared->count);
        assert_int_equal(frame.head.status, STATUS_OK);
        assert_true(frame.head.others == 0 || shared->asked[n]);
        assert_int_equal(frame.head.number, ++shared->numbers[n]);
    }
    while (harness_take(shared->talker.client, &frame))
        assert_int_equal(frame.head.status, STATUS_OK);
    return taken;
}

static uint64_t published(const struct shared *shared)
{
    return atomic_load(&shared->scene.client->channel.page->response.tail);
}

static void an_event_crosses_once_for_those_who_asked(void **state)
{
    struct shared shared;

    (void)state;
    begin(&shared, RING);
    for (unsigned n = 0; n < LISTENERS; n++)
        listen(&shared, "", true);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), LISTENERS);
    uint64_t before = published(&shared);
    put(&shared, "key", 500);
    harness_settle(shared.scene.harness);
    assert_in_range(published(&shared) - before, 2 * 500, 3 * 500 + LISTENERS * sizeof(struct response_other));
    assert_int_equal(take_all(&shared), LISTENERS);
    for (unsigned i = 0; i < 5; i++)
        put(&shared, i % 2 == 0 ? "key" : "other", 100);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 5 * LISTENERS);
    end(&shared);
}

/* What the talker has been given: outputs of streams, its puts' answers not counted. */
static unsigned take_talkers(struct shared *shared)
{
    struct harness_frame frame;
    unsigned taken = 0;

    while (harness_take(shared->talker.client, &frame)) {
        assert_int_equal(frame.head.status, STATUS_OK);
        taken += (frame.head.flags & FRAME_LAST) == 0;
    }
    return taken;
}

static void listeners_of_two_channels_in_turn(void **state)
{
    struct shared shared;

    (void)state;
    begin(&shared, RING);
    for (unsigned n = 0; n < 20; n++) {
        listen(&shared, "", true);
        shared.talker.client->shares = true;
        assert_int_not_equal(name_stream(&shared.talker, LISTENERS + n, ""), UINT64_MAX);
        harness_settle(shared.scene.harness);
    }
    assert_int_equal(take_talkers(&shared), 20);
    assert_int_equal(take_all(&shared), 20);
    shared.talker.client->shares = false;
    for (unsigned i = 1; i <= 5; i++) {
        uint64_t before = published(&shared);
        put(&shared, "key", 500);
        harness_settle(shared.scene.harness);
        assert_in_range(published(&shared) - before, 500, 2 * 500); /* once */
        assert_int_equal(take_talkers(&shared), 20);
        assert_int_equal(take_all(&shared), 20);
    }
    end(&shared);
}

static void who_did_not_ask_has_frames_of_its_own(void **state)
{
    struct shared shared;

    (void)state;
    begin(&shared, RING);
    for (unsigned n = 0; n < 10; n++)
        listen(&shared, "", false);
    harness_settle(shared.scene.harness);
    for (unsigned i = 0; i < 5; i++)
        put(&shared, "key", 100);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 10 * 6);
    for (unsigned n = 10; n < 40; n++)
        listen(&shared, "", n % 3 != 0);
    harness_settle(shared.scene.harness);
    for (unsigned i = 0; i < 5; i++)
        put(&shared, "key", 100);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 10 * 5 + 30 * 6);
    end(&shared);
}

static void events_of_other_keys_are_others(void **state)
{
    struct shared shared;

    (void)state;
    begin(&shared, RING);
    for (unsigned n = 0; n < 30; n++)
        listen(&shared, n % 3 == 0 ? "a" : n % 3 == 1 ? "b" : "", true);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 30);
    put(&shared, "a", 10);
    put(&shared, "b", 10);
    put(&shared, "b", 10);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 10 + 20 + 30);
    for (unsigned n = 0; n < 30; n++)
        assert_int_equal(shared.numbers[n], n % 3 == 0 ? 2 : n % 3 == 1 ? 3 : 4);
    end(&shared);
}

/* What does not fit is owed to each on its own, and comes once there is room. */
static void in_a_full_ring_nothing_is_lost(void **state)
{
    struct shared shared;
    unsigned taken = 0, puts = 0;

    (void)state;
    begin(&shared, MR_RING_BYTES_MIN);
    for (unsigned n = 0; n < 20; n++)
        listen(&shared, "", true);
    harness_settle(shared.scene.harness);
    for (unsigned i = 0; i < 30; i++, puts++) {
        struct harness_frame frame;
        put(&shared, "key", 1000);
        harness_settle(shared.scene.harness);
        while (harness_take(shared.talker.client, &frame))
            assert_int_equal(frame.head.status, STATUS_OK);
    }
    assert_true(shared.scene.harness->worker.channels[0].owed_count > 0);
    for (unsigned i = 0; i < 1000 && taken < 20 * (puts + 1); i++) {
        taken += take_all(&shared);
        harness_settle(shared.scene.harness);
    }
    assert_int_equal(taken, 20 * (puts + 1));
    uint64_t before = published(&shared);
    put(&shared, "key", 1000); /* and they share again */
    harness_settle(shared.scene.harness);
    assert_in_range(published(&shared) - before, 1000, 2000);
    assert_int_equal(take_all(&shared), 20);
    end(&shared);
}

/* A successor does not know who shares; who names its commands again says so again. */
static void a_successor_is_told_again(void **state)
{
    struct shared shared;

    (void)state;
    begin(&shared, RING);
    for (unsigned n = 0; n < 20; n++)
        listen(&shared, "", true);
    harness_settle(shared.scene.harness);
    put(&shared, "key", 100);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 40);
    harness_kill(shared.scene.harness);
    put(&shared, "key", 100);
    assert_int_equal(harness_start(shared.scene.harness), 0);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 0);
    for (unsigned n = 0; n < 20; n++) {
        shared.positions[n] = name_stream(&shared.scene, n, "");
        shared.numbers[n] = 0;
    }
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 20 * 3); /* nothing was acknowledged */
    uint64_t before = published(&shared);
    put(&shared, "key", 1000);
    harness_settle(shared.scene.harness);
    assert_in_range(published(&shared) - before, 1000, 2000);
    assert_int_equal(take_all(&shared), 20);
    end(&shared);
}

/* Applied and answered, but the worker dies before it publishes: the same outputs come from its successor. */
static void what_was_not_published_is_given_anew(void **state)
{
    struct shared shared;

    (void)state;
    begin(&shared, RING);
    struct harness *harness = shared.scene.harness;
    fake_machine_config(harness->machine)->order = FAKE_MANUAL;
    fake_machine_config(harness->machine)->crash = FAKE_KEEP;
    for (unsigned n = 0; n < 20; n++)
        listen(&shared, "", true);
    put(&shared, "key", 100);
    harness_settle(harness); /* logged, in flight */
    harness_kill(harness);
    fake_machine_config(harness->machine)->order = FAKE_AT_ONCE;
    assert_int_equal(harness_start(harness), 0);
    harness_settle(harness);
    unsigned taken = take_all(&shared);
    put(&shared, "key", 100);
    harness_settle(harness);
    assert_int_equal(taken + take_all(&shared), 20 * 3);
    end(&shared);
}

/* Something else in the ring ends a frame, and what was published does not grow. */
static void a_refusal_between_two_events(void **state)
{
    struct shared shared;
    struct harness_frame frame;
    unsigned outputs = 0, refusals = 0;

    (void)state;
    begin(&shared, RING);
    for (unsigned n = 0; n < 10; n++)
        listen(&shared, "", true);
    harness_settle(shared.scene.harness);
    assert_int_equal(take_all(&shared), 10);
    struct scene *scene = &shared.scene;
    for (unsigned i = 0; i < 3; i++) {
        struct payload payload = write_payload("key", (struct slice){(const uint8_t *)"v", 1}, NULL, 0);
        request_command(&scene->request, scene->session, scene->map, 1 + i, "Put", payload_slice(&payload));
        scene_send(scene, FRAME_COMMAND);
        assert_int_not_equal(harness_send(scene->client, FRAME_COMMAND, "\377", 1, 0), UINT64_MAX);
    }
    harness_settle(scene->harness);
    while (harness_take(scene->client, &frame)) {
        bool event = frame.head.number > 1;
        outputs += event;
        refusals += frame.head.status == STATUS_INVALID;
        for (unsigned n = 0; n < shared.count && event; n++)
            if (shared.positions[n] == frame.head.request)
                assert_int_equal(frame.head.number, ++shared.numbers[n]);
    }
    assert_int_equal(outputs, 30);
    assert_int_equal(refusals, 3);
    end(&shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_crosses_once_for_those_who_asked),
        cmocka_unit_test(listeners_of_two_channels_in_turn),
        cmocka_unit_test(who_did_not_ask_has_frames_of_its_own),
        cmocka_unit_test(events_of_other_keys_are_others),
        cmocka_unit_test(in_a_full_ring_nothing_is_lost),
        cmocka_unit_test(a_successor_is_told_again),
        cmocka_unit_test(what_was_not_published_is_given_anew),
        cmocka_unit_test(a_refusal_between_two_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
