/* SPDX-License-Identifier: Apache-2.0 */
/* KeepAlives that may have to look at many commands: one at a time, and those that look at the same ones again and
 * again get a share of the worker's time. On a machine in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/support/worker_scene.h"

enum { AT_ONCE = 1024, MANY = MR_WALK_AT_ONCE + AT_ONCE };

/* KeepAlives that look at many commands, each of them again: a turn has one, however many have come, since each takes
 * as long as thousands of others. Of those that look at few it has all. */
static void long_keep_alives_come_one_by_one(void **state)
{
    enum { FEW = 3 };
    struct scene scene;
    struct harness_frame frame;
    uint8_t filter[2 + MR_FILTER_BITS_MIN / 8];

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, 4 * MR_MIB);
    struct worker *worker = &scene.harness->worker;
    memset(filter, 0xff, sizeof(filter)); /* names every number */
    filter[0] = filter[1] = 1;
    for (uint64_t held = 0; held <= MR_WALK_AT_ONCE; held += AT_ONCE) {
        bool many = held == MR_WALK_AT_ONCE;
        for (uint64_t n = 1; n <= AT_ONCE; n++)
            scene_increment(&scene, held + n);
        harness_settle(scene.harness);
        for (uint64_t n = 1; n <= AT_ONCE; n++)
            assert_true(harness_take(scene.client, &frame));
        if (held > 0 && !many)
            continue;
        fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
        uint64_t last = log_last_index(worker->log);
        request_keep_alive(&scene.request, scene.session, (struct slice){filter, sizeof(filter)}, held + AT_ONCE, NULL,
                           0);
        for (unsigned i = 0; i < FEW; i++)
            scene_send(&scene, FRAME_COMMAND);
        for (unsigned i = 1; i <= FEW; i++) {
            harness_settle(scene.harness);
            assert_int_equal(log_last_index(worker->log) - last, many ? i : FEW);
            fake_io_finish_all(scene.harness->io);
        }
        fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
        harness_settle(scene.harness);
        for (unsigned i = 0; i < FEW; i++) {
            assert_true(harness_take(scene.client, &frame));
            assert_int_equal(frame.head.status, STATUS_OK);
        }
    }
    scene_end(&scene);
}

/* So many increments, each answered. */
static void hold(struct scene *scene, unsigned count)
{
    struct harness_frame frame;

    for (unsigned held = 0; held < count; held += AT_ONCE) {
        for (unsigned n = 0; n < AT_ONCE; n++)
            scene_increment(scene, scene->next++);
        harness_settle(scene->harness);
        for (unsigned n = 0; n < AT_ONCE; n++)
            assert_true(harness_take(scene->client, &frame));
    }
}

/* All so far are acknowledged; `keeps`: and all of them kept. */
static void send_keep_alive(struct scene *scene, bool keeps)
{
    uint8_t filter[2 + MR_FILTER_BITS_MIN / 8];

    memset(filter, 0xff, sizeof(filter));
    filter[0] = filter[1] = 1;
    request_keep_alive(&scene->request, scene->session,
                       keeps ? (struct slice){filter, sizeof(filter)} : (struct slice){NULL, 0}, scene->next - 1, NULL,
                       0);
    scene_send(scene, FRAME_COMMAND);
}

static void expect_ok(struct scene *scene)
{
    struct harness_frame frame;

    assert_true(harness_take(scene->client, &frame));
    assert_int_equal(frame.head.status, STATUS_OK);
}

/* ---- a clock that knows what is worked on ---- */

static struct {
    struct harness *harness;
    const struct io_ops *real;
    uint64_t pause;
    struct io_ops ops;
} slow;

/* Time passes whenever somebody looks, and more when a long KeepAlive has just been applied. */
static uint64_t slow_clock(struct io *io)
{
    const struct worker *worker = &slow.harness->worker;

    fake_machine_advance(slow.harness->machine, MR_MILLISECOND);
    if (worker->walk_index > 0 && worker->walk_index == fsm_index(worker->fsm)) {
        fake_machine_advance(slow.harness->machine, slow.pause);
        slow.pause = 0;
    }
    return slow.real->monotonic(io);
}

static void slow_down(struct scene *scene, uint64_t pause)
{
    slow.harness = scene->harness;
    slow.pause = pause;
    slow.real = scene->harness->worker.io->ops;
    slow.ops = *slow.real;
    slow.ops.monotonic = slow_clock;
    scene->harness->worker.io->ops = &slow.ops;
}

static void end(struct scene *scene)
{
    scene->harness->worker.io->ops = slow.real;
    scene_end(scene);
}

/* One such KeepAlive behind the other, in the first of which the worker pauses: the second waits for `most` at most. */
static void send_long_keep_alives(uint64_t pause, uint64_t most)
{
    struct scene scene;
    struct harness_frame frame;

    scene_begin(&scene, DURABILITY_SYNC, 4 * MR_MIB);
    struct worker *worker = &scene.harness->worker;
    hold(&scene, MANY);
    send_keep_alive(&scene, true);
    harness_settle(scene.harness);
    expect_ok(&scene);
    slow_down(&scene, pause);
    uint64_t last = log_last_index(worker->log);
    /* One that has nothing to look at is as any other. */
    request_keep_alive(&scene.request, scene.session, (struct slice){NULL, 0}, 0, NULL, 0);
    scene_send(&scene, FRAME_COMMAND);
    scene_send(&scene, FRAME_COMMAND);
    send_keep_alive(&scene, true);
    send_keep_alive(&scene, true);
    harness_settle(scene.harness);
    assert_int_equal(log_last_index(worker->log) - last, 3);
    for (unsigned i = 0; i < 3; i++)
        expect_ok(&scene);
    assert_false(harness_take(scene.client, &frame));
    assert_in_range(worker->walk_waits, worker->now + 1, worker->now + most);
    assert_true(turn_next(worker) <= worker->walk_waits); /* the worker does not sleep for longer */
    fake_machine_advance(scene.harness->machine, worker->walk_waits - worker->now);
    harness_settle(scene.harness);
    expect_ok(&scene);
    end(&scene);
}

/* What the first has taken, the others get many times before the second. */
static void long_keep_alives_get_a_share_of_the_time(void **state)
{
    (void)state;
    send_long_keep_alives(0, MR_WALK_SHARE * MR_MILLISECOND);
}

/* A worker that had no processor meanwhile, or whose pages had to be read, has not worked for so long. */
static void a_pause_in_a_long_keep_alive_is_not_held_against_its_user(void **state)
{
    (void)state;
    send_long_keep_alives(4 * MR_SECOND, MR_WALK_WAITS_MAX);
}

/* What a client that has very many in flight acknowledges has been sent since: it does not wait for anything. */
static void acknowledging_many_at_once_waits_for_nothing(void **state)
{
    struct scene scene;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, 4 * MR_MIB);
    slow_down(&scene, 10 * MR_MILLISECOND);
    for (unsigned i = 0; i < 3; i++) {
        hold(&scene, MANY);
        send_keep_alive(&scene, false);
        harness_settle(scene.harness);
        expect_ok(&scene);
        assert_int_equal(scene.harness->worker.walk_index,
                         fsm_index(scene.harness->worker.fsm)); /* it was a long one */
        assert_int_equal(scene.harness->worker.walk_shares[SCENE_USER % WORKER_WALK_USERS].from, 0);
    }
    end(&scene);
}

/* Users whose numbers end alike do not wait for each other, and one that waits is not read anew in each turn. */
static void only_the_same_user_waits(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, 4 * MR_MIB);
    struct worker *worker = &scene.harness->worker;
    struct scene other = {.harness = scene.harness,
                          .client = harness_client(scene.harness, 1, SCENE_USER + WORKER_WALK_USERS, 4 * MR_MIB)};
    scene_open_all(&other);
    hold(&scene, MANY);
    hold(&other, MANY);
    send_keep_alive(&scene, true);
    send_keep_alive(&other, true);
    harness_settle(scene.harness);
    expect_ok(&scene);
    expect_ok(&other);
    slow_down(&scene, 0);
    send_keep_alive(&scene, true);
    harness_settle(scene.harness);
    expect_ok(&scene);
    send_keep_alive(&scene, true);
    harness_settle(scene.harness);
    assert_false(harness_take(scene.client, &frame));
    assert_int_equal(worker->channels[0].walk, WALK_AGAIN);
    send_keep_alive(&other, true);
    harness_settle(scene.harness);
    expect_ok(&other);
    request_free(&other.request);
    end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_keep_alives_come_one_by_one),
        cmocka_unit_test(long_keep_alives_get_a_share_of_the_time),
        cmocka_unit_test(a_pause_in_a_long_keep_alive_is_not_held_against_its_user),
        cmocka_unit_test(acknowledging_many_at_once_waits_for_nothing),
        cmocka_unit_test(only_the_same_user_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
