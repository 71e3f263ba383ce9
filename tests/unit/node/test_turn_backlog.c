/* SPDX-License-Identifier: Apache-2.0 */
/* Thousands of deadlines at once: an idle worker works them off by itself, answers others meanwhile, and may stop or
 * die in the middle of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "tests/support/worker_scene.h"

#define RING (64 * MR_KIB)
#define TTL (90 * MR_MILLISECOND)
enum { ENTRIES = 20 * MR_ENTRY_DEADLINES, AT_ONCE = 100 };

static bool backlog(const struct scene *scene)
{
    const struct fsm *fsm = scene->harness->worker.fsm;
    return fsm_next_deadline(fsm) <= fsm_time(fsm);
}

static void put(struct scene *scene, unsigned n, uint64_t lasts)
{
    struct duration ttl = {.nanos = (int32_t)lasts, .present = true};
    char key[16];

    snprintf(key, sizeof(key), "%u", n);
    struct payload payload = write_payload(key, text("v"), &ttl, 0);
    request_command(&scene->request, scene->session, scene->map, scene->next++, "Put", payload_slice(&payload));
    assert_true(scene_send(scene, FRAME_COMMAND) != UINT64_MAX);
}

/* Time has just gone past what is to end, and the worker has done its first part. */
static void begin(struct scene *scene, enum durability durability)
{
    struct harness_frame frame;

    scene_begin(scene, durability, RING);
    for (unsigned n = 0; n < ENTRIES; n++) {
        put(scene, n, TTL);
        if (n % AT_ONCE != AT_ONCE - 1 && n != ENTRIES - 1)
            continue;
        harness_settle(scene->harness);
        while (harness_take(scene->client, &frame))
            assert_int_equal(frame.head.status, STATUS_OK);
    }
    assert_false(backlog(scene));
    assert_true(fsm_next_deadline(scene->harness->worker.fsm) > scene->harness->worker.time);
    fake_machine_advance(scene->harness->machine, TTL);
    for (unsigned turns = 0; turns < 100 && !backlog(scene); turns++)
        turn_run(&scene->harness->worker);
    assert_true(backlog(scene));
}

/* Turns, each of which has something to do or sleeps only for what is in flight, until nothing is left. */
static unsigned work_off(struct scene *scene)
{
    struct worker *worker = &scene->harness->worker;
    unsigned turns = 0;

    for (; backlog(scene); turns++) {
        assert_true(turns < 100 * ENTRIES / MR_ENTRY_DEADLINES);
        if (!turn_run(worker))
            assert_true(log_in_flight(worker->log) || turn_next(worker) <= worker->now);
    }
    return turns;
}

static void an_idle_worker_goes_on(void **state)
{
    static const enum durability kinds[] = {DURABILITY_SYNC, DURABILITY_ASYNC, DURABILITY_MEMORY};
    struct scene scene;

    (void)state;
    for (unsigned n = 0; n < 3; n++) {
        begin(&scene, kinds[n]);
        uint64_t index = fsm_index(scene.harness->worker.fsm), time = fsm_time(scene.harness->worker.fsm);
        work_off(&scene);
        assert_int_equal(fsm_index(scene.harness->worker.fsm), index + ENTRIES / MR_ENTRY_DEADLINES - 1);
        assert_in_range(fsm_time(scene.harness->worker.fsm), time, time + MR_SECOND); /* it needs no time to pass */
        harness_settle(scene.harness);
        assert_int_equal(fsm_index(scene.harness->worker.fsm), index + ENTRIES / MR_ENTRY_DEADLINES - 1);
        assert_true(turn_next(&scene.harness->worker) > scene.harness->worker.now);
        scene_end(&scene);
    }
}

/* Of what is left the stop does no more than what is logged: it would last as long as there is something left. */
static void a_stop_leaves_them_to_the_next_start(void **state)
{
    static const enum durability kinds[] = {DURABILITY_SYNC, DURABILITY_ASYNC};
    struct scene scene;

    (void)state;
    for (unsigned n = 0; n < 2; n++) {
        begin(&scene, kinds[n]);
        uint64_t logged = log_last_index(scene.harness->worker.log);
        assert_int_equal(harness_stop(scene.harness), 0);
        assert_int_equal(harness_start(scene.harness), 0);
        assert_int_equal(fsm_index(scene.harness->worker.fsm), logged);
        assert_true(backlog(&scene));
        work_off(&scene);
        scene_end(&scene);
    }
}

static void others_are_answered_meanwhile(void **state)
{
    static const enum durability kinds[] = {DURABILITY_SYNC, DURABILITY_MEMORY};
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    for (unsigned n = 0; n < 2; n++) {
        begin(&scene, kinds[n]);
        for (unsigned asked = 0; asked < 5; asked++) {
            unsigned turns = 0;
            uint64_t position = scene_increment(&scene, scene.next++);
            while (!harness_take(scene.client, &frame)) {
                assert_true(turns++ < 4);
                turn_run(&scene.harness->worker);
            }
            assert_int_equal(frame.head.request, position);
            assert_int_equal(scene_number(&frame), asked + 1);
            assert_true(backlog(&scene));
        }
        assert_true(work_off(&scene) > 1);
        scene_end(&scene);
    }
}

/* Many new deadlines in each turn, and something in flight all the time: they are ended as fast as they come. */
static void under_load_they_do_not_pile_up(void **state)
{
    enum { CLIENTS = 4, EACH = 200, TURNS = 100, LAST_TURNS = 5 };
    struct scene scenes[CLIENTS];
    struct harness_frame frame;

    (void)state;
    scene_begin(&scenes[0], DURABILITY_SYNC, 64 * RING);
    struct worker *worker = &scenes[0].harness->worker;
    for (unsigned n = 1; n < CLIENTS; n++)
        scenes[n] = scene_beside(&scenes[0], n, 64 * RING);
    struct fake_config *config = fake_machine_config(scenes[0].harness->machine);
    config->order = FAKE_IN_ORDER;
    config->delay_min = config->delay_max = 3 * MR_MILLISECOND / 2;
    unsigned key = 0, busy = 0;
    uint64_t sequence_num = scenes[0].next;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        for (unsigned n = 0; n < CLIENTS; n++) {
            for (unsigned i = 0; i < EACH; i++) {
                scenes[n].next = sequence_num++;
                put(&scenes[n], key++, LAST_TURNS * MR_MILLISECOND);
            }
            while (harness_take(scenes[n].client, &frame))
                assert_int_equal(frame.head.status, STATUS_OK);
        }
        fake_machine_advance(scenes[0].harness->machine, MR_MILLISECOND);
        turn_run(worker);
        busy += log_in_flight(worker->log);
    }
    assert_true(busy > TURNS / 2);
    config->order = FAKE_AT_ONCE;
    fake_machine_advance(scenes[0].harness->machine, TTL);
    turn_run(worker);
    turn_run(worker);
    uint64_t index = fsm_index(worker->fsm);
    work_off(&scenes[0]);
    /* Not more than what still lasted, and was in flight. */
    assert_in_range(fsm_index(worker->fsm) - index, 0, 4 * LAST_TURNS * CLIENTS * EACH / MR_ENTRY_DEADLINES);
    for (unsigned n = 1; n < CLIENTS; n++)
        request_free(&scenes[n].request);
    scene_end(&scenes[0]);
}

/* A stop does not wait for it; and neither it nor a death loses any of it. */
static void a_successor_goes_on(void **state)
{
    struct scene scene;

    (void)state;
    for (unsigned n = 0; n < 2; n++) {
        begin(&scene, DURABILITY_SYNC);
        for (unsigned turns = 0; turns < 3; turns++)
            turn_run(&scene.harness->worker);
        assert_true(backlog(&scene));
        uint64_t index = fsm_index(scene.harness->worker.fsm);
        if (n == 0)
            assert_int_equal(harness_stop(scene.harness), 0);
        else
            harness_kill(scene.harness);
        assert_int_equal(harness_start(scene.harness), 0);
        assert_true(backlog(&scene));
        assert_in_range(fsm_index(scene.harness->worker.fsm), index, index + 2);
        assert_true(work_off(&scene) > 1);
        assert_in_range(fsm_index(scene.harness->worker.fsm), index + 10, index + ENTRIES / MR_ENTRY_DEADLINES);
        scene_end(&scene);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_worker_goes_on),
        cmocka_unit_test(others_are_answered_meanwhile),
        cmocka_unit_test(under_load_they_do_not_pile_up),
        cmocka_unit_test(a_successor_goes_on),
        cmocka_unit_test(a_stop_leaves_them_to_the_next_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
