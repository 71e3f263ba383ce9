/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's time: deadlines fire, also without traffic and after a failure of the disk; no clock that steps, no
 * standstill and no long turn ends anything early; time is logged, and what is due keeps no worker awake that can do
 * nothing for it. On a machine in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "proto/reader.h"
#include "tests/support/worker_scene.h"

#define RING (64 * MR_KIB)

/* Tenths of a second until the session of ten seconds has ended, on an idle partition, the wall clock stepping by this
 * much half-way. */
static int life_of_a_session(int64_t step)
{
    struct scene scene;
    int tenths = 0;

    scene_begin(&scene, DURABILITY_SYNC, RING);
    for (; tenths < 200 && fsm_session_count(scene.harness->worker.fsm) > 0; tenths++) {
        if (tenths == 50)
            fake_machine_step_wall(scene.harness->machine, step);
        fake_machine_advance(scene.harness->machine, 100 * MR_MILLISECOND);
        harness_settle(scene.harness);
    }
    scene_end(&scene);
    return tenths;
}

static void deadlines_fire_without_traffic_whatever_the_wall_clock_does(void **state)
{
    (void)state;
    assert_int_equal(life_of_a_session(0), 100);
    assert_int_equal(life_of_a_session((int64_t)MR_HOUR), 100);
    assert_int_equal(life_of_a_session(-(int64_t)MR_HOUR), 100);
}

static void standing_still_ends_no_session(void **state)
{
    struct scene scene;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    fake_machine_advance(scene.harness->machine, MR_HOUR); /* SIGSTOP */
    harness_settle(scene.harness);
    fake_machine_step_wall(scene.harness->machine, (int64_t)MR_HOUR);
    harness_settle(scene.harness);
    assert_int_equal(fsm_session_count(scene.harness->worker.fsm), 1);
    harness_kill(scene.harness);
    fake_machine_advance(scene.harness->machine, MR_HOUR);
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    assert_int_equal(fsm_session_count(scene.harness->worker.fsm), 1);
    scene_end(&scene);
}

/* Sleeps as a worker does until it would sleep for a second or more. Gives how long that is. */
static uint64_t sleep_for_long(struct harness *harness)
{
    for (;;) {
        harness_settle(harness);
        uint64_t next = turn_next(&harness->worker), now = harness->worker.now;
        uint64_t nap = next > now ? next - now : 0;
        clock_sleeping(&harness->worker.clock, nap);
        if (nap >= MR_SECOND)
            return nap;
        fake_machine_advance(harness->machine, nap);
    }
}

static void standing_still_in_a_sleep_ends_no_session_that_was_renewed(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    request_open_session(&scene.request, (struct duration){.seconds = 5, .present = true});
    uint64_t session = scene_id(&scene);
    assert_true(sleep_for_long(scene.harness) <= 5 * MR_SECOND);
    /* the worker is stopped in that sleep; its client is not, and renews */
    request_keep_alive(&scene.request, session, (struct slice){NULL, 0}, 0, NULL, 0);
    uint64_t position = scene_send(&scene, FRAME_COMMAND);
    fake_machine_advance(scene.harness->machine, MR_HOUR);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
    scene_end(&scene);
}

static void a_deadline_whose_entry_failed_fires_when_the_disk_is_back(void **state)
{
    struct scene scene;
    struct harness *harness;
    bool failed = false;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    harness = scene.harness;
    for (unsigned i = 0; i < 400; i++) {
        struct worker *worker = &harness->worker;
        uint64_t deadline = fsm_next_deadline(worker->fsm);
        if (!failed && deadline <= worker->time + 150 * MR_MILLISECOND) {
            fake_machine_fail(harness->machine, FAKE_WRITE, NULL, 1, 1, EIO);
            failed = true;
        }
        fake_machine_advance(harness->machine, 100 * MR_MILLISECOND);
        harness_settle(harness);
    }
    assert_true(failed);
    assert_true(fake_machine_counts(harness->machine)->faults == 1);
    assert_int_equal(harness->region->state, PARTITION_SERVING);
    assert_int_equal(fsm_session_count(harness->worker.fsm), 0);
    scene_end(&scene);
}

/* Lets every write of a batch happen, but no zeros of a segment that is being made. */
static void finish_batches(struct io *io)
{
    struct fake_operation operation;

    for (unsigned n = 0; fake_io_operation(io, n, &operation);)
        if (operation.call == FAKE_WRITE && operation.durable)
            fake_io_finish(io, n);
        else
            n++;
}

/* A deadline has come, and the log is full until its next segment is ready: the worker sleeps meanwhile. */
static void a_deadline_keeps_no_worker_awake_while_a_segment_is_made(void **state)
{
    struct scene scene;
    struct worker *worker;
    struct harness_frame frame;
    bool stuck = false;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    worker = &scene.harness->worker;
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    for (unsigned n = 0; n < 1000 && !stuck; n++) {
        scene_put(&scene, scene.next++, 1000);
        harness_settle(scene.harness);
        finish_batches(scene.harness->io);
        harness_settle(scene.harness);
        stuck = !harness_take(scene.client, &frame);
    }
    assert_true(stuck);
    assert_null(log_trouble(worker->log));
    for (unsigned n = 0; n < 1000 && fsm_next_deadline(worker->fsm) > worker->time; n++) {
        fake_machine_advance(scene.harness->machine, 90 * MR_MILLISECOND);
        harness_settle(scene.harness);
        finish_batches(scene.harness->io);
    }
    harness_settle(scene.harness);
    assert_false(log_in_flight(worker->log));
    assert_true(fsm_next_deadline(worker->fsm) <= worker->time);
    assert_true(turn_next(worker) > worker->now);
    /* and goes on once it is */
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    fake_io_finish_all(scene.harness->io);
    harness_settle(scene.harness);
    assert_int_equal(fsm_session_count(worker->fsm), 0);
    scene_end(&scene);
}

/* Time is to be logged, and cannot be before a write is done: the worker sleeps meanwhile. */
static void a_marker_that_is_due_keeps_no_worker_awake_during_a_write(void **state)
{
    struct scene scene;
    struct worker *worker;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    worker = &scene.harness->worker;
    request_open_session(&scene.request, (struct duration){.seconds = 3600, .present = true});
    scene_id(&scene);
    do { /* until the first session is gone, and almost as long again */
        fake_machine_advance(scene.harness->machine, 10 * MR_MILLISECOND);
        harness_settle(scene.harness);
    } while (fsm_session_count(worker->fsm) == 2 ||
             worker->now - worker->marked_at < MR_TIME_LOGGED_EVERY - 50 * MR_MILLISECOND);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    request_open_session(&scene.request, (struct duration){.seconds = 3600, .present = true});
    scene_send(&scene, FRAME_COMMAND);
    harness_settle(scene.harness);
    fake_machine_advance(scene.harness->machine, 60 * MR_MILLISECOND);
    harness_settle(scene.harness);
    assert_true(log_in_flight(worker->log));
    assert_true(turn_next(worker) > worker->now);
    scene_end(&scene);
}

/* An idle partition's time is logged at an orderly stop, although nothing was written since the last marker. */
static void a_stop_logs_the_time(void **state)
{
    struct scene scene;
    struct harness *harness;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    harness = scene.harness;
    for (unsigned i = 0; i < 50; i++) {
        fake_machine_advance(harness->machine, 100 * MR_MILLISECOND);
        harness_settle(harness);
    }
    uint64_t time = harness->worker.time;
    assert_int_equal(log_close(harness->worker.log, time, &harness->error), 0);
    harness->worker.log = NULL;
    harness_kill(harness);
    assert_int_equal(harness_start(harness), 0);
    assert_int_equal(harness->found.time, time);
    scene_end(&scene);
}

/* A turn in which what was durable took long to apply; a client sends something meanwhile. */
static struct {
    const struct io_ops *ops;
    struct io_ops slow;
    struct scene *scene;
    uint64_t takes; /* the next turn; 0: no time */
} turn;

static unsigned slow_completions(struct io *io, struct io_completion *completions, unsigned count)
{
    unsigned taken = turn.ops->completions(io, completions, count);

    if (turn.takes > 0) {
        fake_machine_advance(turn.scene->harness->machine, turn.takes);
        turn.takes = 0;
        assert_true(scene_send(turn.scene, FRAME_COMMAND) != UINT64_MAX);
    }
    return taken;
}

static void a_time_to_live_does_not_begin_before_its_command_was_sent(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    struct duration ttl = {.nanos = 20 * MR_MILLISECOND, .present = true};

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct io *io = scene.harness->io;
    turn.ops = io->ops;
    turn.scene = &scene;
    turn.slow = *io->ops;
    turn.slow.completions = slow_completions;
    io->ops = &turn.slow;

    uint64_t before = scene_increment(&scene, 1);
    turn_run(&scene.harness->worker); /* takes it */
    turn_run(&scene.harness->worker); /* hands it over */
    struct payload payload = write_payload("key", text("value"), &ttl, 0);
    request_command(&scene.request, scene.session, scene.map, 2, "Put", payload_slice(&payload));
    turn.takes = 50 * MR_MILLISECOND; /* until it is sent */
    harness_settle(scene.harness);
    scene_take(&scene, before, &frame);
    assert_true(harness_take(scene.client, &frame)); /* the Put's */
    assert_int_equal(frame.head.status, STATUS_OK);
    /* Not a nanosecond has passed since. */
    payload = key_payload("key", 0);
    request_query(&scene.request, scene.session, scene.map, "Get", payload_slice(&payload));
    uint64_t position = scene_send(&scene, FRAME_QUERY);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    struct operation_output output;
    struct slice part;
    assert_int_equal(read_partition_query_output(frame.body, frame.head.size, &output, &part), READ_OK);
    assert_int_equal(output.status, STATUS_OK);
    io->ops = turn.ops;
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_fire_without_traffic_whatever_the_wall_clock_does),
        cmocka_unit_test(standing_still_ends_no_session),
        cmocka_unit_test(standing_still_in_a_sleep_ends_no_session_that_was_renewed),
        cmocka_unit_test(a_deadline_whose_entry_failed_fires_when_the_disk_is_back),
        cmocka_unit_test(a_deadline_keeps_no_worker_awake_while_a_segment_is_made),
        cmocka_unit_test(a_marker_that_is_due_keeps_no_worker_awake_during_a_write),
        cmocka_unit_test(a_stop_logs_the_time),
        cmocka_unit_test(a_time_to_live_does_not_begin_before_its_command_was_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
