/* SPDX-License-Identifier: Apache-2.0 */
/* A worker that dies with snapshots about, on a machine in memory: while one is taken, while one is read back, and with
 * streams, owed outputs and requests on the way. Whoever's channel outlives it must not be able to tell whether there
 * was one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/snapshot_scene.h"
#include "tests/support/sudden_death.h"

#define RING (64 * MR_KIB)

/* ---- the same story with and without a snapshot ---- */

/* What a client got since the record was begun. */
struct record {
    unsigned count;
    struct harness_frame *frames;
};

static void take_all(struct scene *scene, struct record *record)
{
    struct harness_frame frame;

    memset(&frame, 0, sizeof(frame));
    while (harness_take(scene->client, &frame)) {
        record->frames = realloc(record->frames, (record->count + 1) * sizeof(frame));
        assert_non_null(record->frames);
        record->frames[record->count++] = frame;
        memset(&frame, 0, sizeof(frame));
    }
}

static void settle(struct scene *scene, struct record *record)
{
    for (int i = 0; i < 50; i++) {
        harness_settle(scene->harness);
        take_all(scene, record);
    }
}

static void die_and_start(struct scene *scene)
{
    harness_kill(scene->harness);
    if (harness_start(scene->harness) != 0)
        fail_msg("%s", scene->harness->error.text);
}

/* A listener that has read some of its events and acknowledged some of those; the rest is in the ring, or in the
 * session because its ring is full. The worker dies; the listener names its command again, as every client does when it
 * sees a new generation; then more events come, and in the end the session is closed. */
static void a_listener(bool taken, struct record *record)
{
    struct scene scene;
    struct record before = {.count = 0};

    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct scene listener = scene_beside(&scene, 1, MR_RING_BYTES_MIN);
    scene_listen(&listener, 1000, "", false);
    for (unsigned i = 0; i < 60; i++) {
        scene_put(&scene, scene.next++, 400);
        harness_settle(scene.harness);
        take_all(&scene, &before);
        if (i < 20)
            take_all(&listener, &before);
        if (i == 10) {
            request_keep_alive(&scene.request, scene.session, (struct slice){NULL, 0}, scene.next - 1,
                               (struct last_output[]){{.sequence_num = 1000, .last_output = 5}}, 1);
            scene_send(&scene, FRAME_COMMAND);
        }
    }
    assert_true(scene.harness->worker.channels[1].owed_count > 0);
    if (taken)
        assert_true(harness_snapshot(scene.harness));
    die_and_start(&scene);
    assert_int_equal(scene.harness->worker.snapshots.known_count, taken);
    assert_int_equal(scene.harness->worker.channels[1].held, 0);
    settle(&listener, record); /* what stood in its ring */
    scene_listen(&listener, 1000, "", false);
    settle(&listener, record);
    assert_int_equal(scene.harness->worker.channels[1].held, MR_SMALL_FRAME);
    for (unsigned i = 0; i < 40; i++) {
        scene_put(&scene, scene.next++, 400);
        settle(&listener, record);
        take_all(&scene, record);
    }
    request_close_session(&scene.request, scene.session);
    scene_send(&scene, FRAME_COMMAND);
    settle(&listener, record);
    settle(&scene, record);
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    assert_int_equal(scene.harness->worker.channels[1].held, 0);
    free(before.frames);
    request_free(&listener.request);
    scene_end(&scene);
}

/* Answers that its ring has no room for. */
static void one_who_does_not_read(bool taken, struct record *record)
{
    struct scene scene;

    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    for (unsigned round = 0; round < 64; round++) {
        if (scene_put(&scene, scene.next, 1500) != UINT64_MAX)
            scene.next++;
        harness_settle(scene.harness);
    }
    assert_true(scene.harness->worker.channels[0].owed_count > 0);
    if (taken)
        assert_true(harness_snapshot(scene.harness));
    die_and_start(&scene);
    assert_int_equal(scene.harness->worker.snapshots.known_count, taken);
    settle(&scene, record);
    /* what was sent has been applied once, whoever answers it; those without an answer are named again */
    for (uint64_t number = 1; number < scene.next; number++) {
        while (scene_put(&scene, number, 1500) == UINT64_MAX)
            settle(&scene, record);
        settle(&scene, record);
    }
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    scene_end(&scene);
}

/* Requests of all kinds on the way: applied and answered, logged and not durable, in the ring. */
static void one_in_the_middle(bool taken, struct record *record)
{
    struct scene scene;
    struct payload nothing = {.size = 0};

    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct scene other = scene_beside(&scene, 1, RING);
    for (unsigned i = 0; i < 5; i++)
        scene_increment(&scene, scene.next++);
    request_open_session(&other.request, (struct duration){.seconds = 10, .present = true});
    scene_send(&other, FRAME_COMMAND);
    request_create_service(&other.request, scene.session, COUNTER_TYPE, "", "second");
    scene_send(&other, FRAME_COMMAND);
    harness_settle(scene.harness);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    for (unsigned i = 0; i < 3; i++)
        scene_increment(&scene, scene.next++);
    harness_send(scene.client, FRAME_COMMAND, "\xff\xff", 2, 0); /* refused once those are answered */
    scene_increment(&scene, scene.next++);
    request_open_session(&other.request, (struct duration){.seconds = 20, .present = true});
    scene_send(&other, FRAME_COMMAND);
    turn_run(&scene.harness->worker);
    assert_true(scene.harness->worker.channels[0].in_flight > 0);
    if (taken)
        snapshots_ask(&scene.harness->worker, &(struct snapshot_question){.number = 1});
    turn_run(&scene.harness->worker); /* the last one before the death: nobody is told that it is there */
    assert_int_equal(fake_io_child_runs(scene.harness->io), taken);
    while (fake_io_child_step(scene.harness->io))
        ;
    request_query(&scene.request, scene.session, scene.counter, "Get", payload_slice(&nothing));
    scene_send(&scene, FRAME_QUERY);
    fake_machine_config(scene.harness->machine)->crash = FAKE_KEEP;
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    die_and_start(&scene);
    assert_int_equal(scene.harness->worker.snapshots.known_count, taken);
    settle(&scene, record);
    settle(&other, record);
    scene_increment(&scene, scene.next++);
    settle(&scene, record);
    assert_int_equal(fsm_session_count(scene.harness->worker.fsm), 3);
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    assert_int_equal(scene.harness->worker.channels[1].held, 0);
    request_free(&other.request);
    scene_end(&scene);
}

static void nobody_sees_whether_there_was_one(void **state)
{
    static void (*const stories[])(bool taken, struct record *record) = {a_listener, one_who_does_not_read,
                                                                         one_in_the_middle};
    (void)state;
    for (unsigned i = 0; i < sizeof(stories) / sizeof(stories[0]); i++) {
        struct record without = {.count = 0}, with = {.count = 0};
        stories[i](false, &without);
        stories[i](true, &with);
        assert_true(without.count > 0);
        assert_int_equal(with.count, without.count);
        for (unsigned n = 0; n < with.count; n++)
            assert_memory_equal(&with.frames[n], &without.frames[n], sizeof(with.frames[n]));
        free(without.frames);
        free(with.frames);
    }
}

/* A listener's outputs over a death, in themselves: the numbers go on without a gap, and none comes twice but those
 * that were not acknowledged. */
static void a_stream_goes_on_behind_a_snapshot(void **state)
{
    struct scene scene;
    struct record record = {.count = 0};
    uint64_t next = 1;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct scene listener = scene_beside(&scene, 1, RING);
    uint64_t position = scene_listen(&listener, 1000, "", false);
    harness_settle(scene.harness);
    for (unsigned life = 0; life < 5; life++) {
        for (unsigned i = 0; i < 10; i++) {
            scene_put(&scene, scene.next++, 100);
            settle(&listener, &record);
            take_all(&scene, &record);
            if (i == 5)
                assert_true(harness_snapshot(scene.harness));
        }
        die_and_start(&scene);
        record.count = 0;
        position = scene_listen(&listener, 1000, "", false);
        settle(&listener, &record);
        next = 1;
        for (unsigned i = 0; i < record.count; i++)
            if (record.frames[i].head.request == position) {
                assert_int_equal(record.frames[i].head.status, STATUS_OK);
                assert_int_equal(record.frames[i].head.number, next++);
            }
        assert_int_equal(next, 2 + 10 * (life + 1)); /* the first says that it listens */
    }
    free(record.frames);
    request_free(&listener.request);
    scene_end(&scene);
}

/* ---- a death at any call ----
 * It is a jump out of the middle of whatever the worker, or its child, was doing; what that had allocated is never
 * freed. */

static struct countdown death;

#define REQUESTS 24
#define OPENED 2 /* of them open sessions */

struct mix {
    struct scene scene;
    unsigned sent;
    uint64_t positions[REQUESTS];
    unsigned answers[REQUESTS];
    struct harness_frame frames[REQUESTS];
};

static void note(struct mix *mix)
{
    struct harness_frame frame;

    memset(&frame, 0, sizeof(frame));
    while (harness_take(mix->scene.client, &frame)) {
        unsigned n = 0;
        while (n < mix->sent && mix->positions[n] != frame.head.request)
            n++;
        assert_true(n < mix->sent);
        mix->answers[n]++;
        mix->frames[n] = frame;
        memset(&frame, 0, sizeof(frame));
    }
}

static void nobody_asked(void *context, const struct worker_answer *answer)
{
    (void)context, (void)answer;
}

static void go_on(void *context)
{
    struct mix *mix = context;
    struct scene *scene = &mix->scene;

    scene->harness->worker.answered = nobody_asked;
    while (mix->sent < REQUESTS) {
        unsigned n = mix->sent;
        if (n % 10 == 5) { /* has no number: only the log and the region know it */
            request_open_session(&scene->request, (struct duration){.seconds = 10, .present = true});
            mix->positions[n] = scene_send(scene, FRAME_COMMAND);
        } else if (n % 3 == 1) {
            mix->positions[n] = scene_put(scene, scene->next++, 60);
        } else {
            mix->positions[n] = scene_increment(scene, scene->next++);
        }
        mix->sent++;
        if (n % 4 == 3)
            snapshots_ask(&scene->harness->worker, &(struct snapshot_question){.number = n});
        if (n % 2 == 1)
            harness_settle(scene->harness);
        note(mix);
    }
    harness_settle(scene->harness);
}

/* Runs until the machine's calls-th call, if it has one. False: it died of it. */
static bool live(struct mix *mix, unsigned calls)
{
    bool lived = scene_lives(&mix->scene, &death, calls, go_on, mix);

    note(mix);
    return lived;
}

static bool die_at(unsigned n, unsigned again, enum fake_fate fate, enum durability durability)
{
    static struct mix mix; /* survives the jump */
    static const struct mix nothing;
    bool died;

    mix = nothing;
    leaks_are_meant(true);
    scene_begin(&mix.scene, durability, RING);
    struct fake_config *config = fake_machine_config(mix.scene.harness->machine);
    config->on_call = count_down;
    config->context = &death;
    config->crash = fate;
    died = !live(&mix, n);
    if (died && again > 0)
        live(&mix, again);
    live(&mix, 0);
    unsigned opened = 0;
    int64_t increments = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (mix.answers[i] != 1 || mix.frames[i].head.status != STATUS_OK)
            fail_msg("died at call %u, then %u: request %u has %u answers, the last with status %u", n, again, i,
                     mix.answers[i], mix.frames[i].head.status);
        opened += i % 10 == 5;
        if (i % 10 != 5 && i % 3 != 1)
            assert_int_equal(scene_number(&mix.frames[i]), ++increments);
    }
    assert_int_equal(opened, OPENED);
    assert_int_equal(fsm_session_count(mix.scene.harness->worker.fsm), 1 + OPENED);
    struct state_dump before = state_dump(mix.scene.harness);
    config->on_call = NULL;
    die_and_start(&mix.scene);
    assert_same_state(mix.scene.harness, &before);
    assert_int_equal(mix.scene.harness->warnings, 0);
    scene_end(&mix.scene);
    leaks_are_meant(false);
    return died;
}

static void a_death_at_any_call_is_not_seen(void **state)
{
    unsigned n = 1;

    (void)state;
    for (bool died = true; died; n++) {
        died = die_at(n, 0, FAKE_KEEP, DURABILITY_SYNC);
        died = die_at(n, 0, FAKE_LOSE, DURABILITY_SYNC) || died;
        died = die_at(n, 0, FAKE_RANDOM, DURABILITY_ASYNC) || died;
    }
    assert_true(n > 50);
}

static void a_second_death_in_recovery_is_not_seen(void **state)
{
    (void)state;
    for (unsigned n = 1; die_at(n, 0, FAKE_RANDOM, DURABILITY_SYNC); n += 7)
        for (unsigned again = 1; again < 60; again += 2)
            die_at(n, again, FAKE_RANDOM, DURABILITY_SYNC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_sees_whether_there_was_one),
        cmocka_unit_test(a_stream_goes_on_behind_a_snapshot),
        cmocka_unit_test(a_death_at_any_call_is_not_seen),
        cmocka_unit_test(a_second_death_in_recovery_is_not_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
