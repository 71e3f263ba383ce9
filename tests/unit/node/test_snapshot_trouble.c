/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots where something else is wrong: a disk without room, on which they are what makes room; one that cannot be
 * read where it stands; a flush that has failed; one in memory that cannot be believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/snapshot_scene.h"

#define BLOCK 4096
#define BATCH MR_BATCH_BYTES_MIN

/* ---- what is there ---- */

static uint64_t used(struct harness *harness)
{
    const char *name;
    uint64_t bytes = 0;

    for (unsigned i = 0; (name = fake_file_name(harness->machine, PARTITION_FOLDER, i)) != NULL; i++)
        bytes += ((uint64_t)fake_file_size(harness->machine, PARTITION_FOLDER, name) + BLOCK - 1) / BLOCK * BLOCK;
    return bytes;
}

static const char *trouble(const struct harness *harness)
{
    return log_trouble(harness->worker.log);
}

/* A put, and its acknowledgement. False: refused. */
static bool put(struct scene *scene)
{
    if (!snapshot_scene_put(scene))
        return false;
    snapshot_scene_acknowledge(scene);
    return true;
}

static void put_some(struct scene *scene, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_true(put(scene));
}

/* From now on the disk has this much room; the log runs until it is full. */
static void fill(struct scene *scene, uint64_t room)
{
    fake_machine_config(scene->harness->machine)->space = used(scene->harness) + room;
    for (unsigned i = 0; put(scene); i++)
        assert_true(i < 10000);
    assert_non_null(trouble(scene->harness));
    assert_non_null(strstr(trouble(scene->harness), "no space for"));
}

/* Two snapshots in two segments, and the log a good way behind them. */
static void make_history(struct scene *scene)
{
    for (unsigned i = 0; i < 3; i++) {
        put_some(scene, 60);
        assert_true(harness_snapshot(scene->harness));
    }
}

/* ---- no room ---- */

static void what_was_left_unfinished_makes_room(void **state)
{
    static uint8_t half[MR_MIB];
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    put_some(&scene, 20);
    fake_file_write(scene.harness->machine, PARTITION_FOLDER, "snapshot-new-1", half, sizeof(half), 0);
    harness_kill(scene.harness);
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    fake_machine_config(scene.harness->machine)->space = used(scene.harness);
    assert_true(harness_snapshot(scene.harness));
    assert_int_equal(fake_file_size(scene.harness->machine, PARTITION_FOLDER, "snapshot-new-1"), -1);
    scene_end(&scene);
}

static void a_full_disk_is_helped_by_a_snapshot(void **state)
{
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 64 * MR_MIB); /* not due for long */
    make_history(&scene);
    uint64_t before = snapshot_newest(scene.harness);
    /* For a snapshot, but no segment: two are made before the last segment is full, and nobody is refused. */
    fake_machine_config(scene.harness->machine)->space = used(scene.harness) + 8 * BLOCK;
    put_some(&scene, 1000);
    assert_true(snapshot_newest(scene.harness) > before);
    scene_end(&scene);
}

static void a_restart_uses_what_no_snapshot_needs(void **state)
{
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0); /* none by itself, but at the end */
    make_history(&scene);
    fill(&scene, 8 * BLOCK);
    assert_int_equal(harness_stop(scene.harness), 0);
    if (harness_start(scene.harness) != 0)
        fail_msg("%s", scene.harness->error.text);
    harness_settle(scene.harness);
    assert_null(trouble(scene.harness));
    put_some(&scene, 20);
    scene_end(&scene);
}

/* ---- a limit ---- */

/* The log runs until its limit, which `segments` are left to; that is a disk that is full. */
static void fill_to_limit(struct scene *scene, unsigned segments)
{
    struct harness *harness = scene->harness;

    harness->worker.snapshots.config.disk_limit = used(harness) + segments * harness->segment_bytes;
    log_limit(harness->worker.log, harness->worker.snapshots.config.disk_limit, 0);
    for (unsigned i = 0; put(scene); i++)
        assert_true(i < 10000);
    assert_non_null(trouble(harness));
    assert_non_null(strstr(trouble(harness), "--disk-limit"));
    assert_true(used(harness) <= harness->worker.snapshots.config.disk_limit);
}

static void at_the_limit_a_snapshot_is_asked_for(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0); /* none by itself */
    make_history(&scene);
    fill_to_limit(&scene, 2);
    request_query(&scene.request, scene.session, scene.counter, "Get", (struct slice){NULL, 0});
    uint64_t position = scene_send(&scene, FRAME_QUERY);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    assert_int_equal(frame.head.status, STATUS_OK); /* reading goes on */
    assert_true(harness_snapshot(scene.harness));
    fake_machine_advance(scene.harness->machine, 2 * MR_SECOND);
    harness_settle(scene.harness);
    assert_null(trouble(scene.harness));
    put_some(&scene, 20);
    scene_end(&scene);
}

/* Ten times as much is written as may stand there. Nothing but the limit makes snapshots due. */
static void the_log_stays_below_its_limit(void **state)
{
    enum durability durability = (enum durability)(intptr_t)*state;
    struct scene scene = {.harness = harness_create(1)};
    struct harness *harness = scene.harness;
    uint64_t most = 0;
    unsigned refused = 0;

    harness->durability = durability;
    harness->disk_limit = 8 * harness->segment_bytes;
    harness->snapshot_bytes = MR_GIB;
    scene_start(&scene, SNAPSHOT_SCENE_RING);
    for (unsigned n = 0; n < 200000 && log_grown(harness->worker.log) < 10 * harness->disk_limit; n++) {
        if (!put(&scene)) {
            refused++;
            fake_machine_advance(harness->machine, 2 * MR_SECOND);
            harness_settle(harness);
        }
        uint64_t bytes = log_bytes(harness->worker.log);
        for (unsigned i = 0; i < harness->worker.snapshots.known_count; i++)
            bytes += harness->worker.snapshots.known[i].bytes;
        most = bytes > most ? bytes : most;
    }
    assert_in_range(most, harness->disk_limit / 2, harness->disk_limit);
    assert_true(log_grown(harness->worker.log) >= 10 * harness->disk_limit);
    assert_true(refused < 10);
    scene_end(&scene);
}

/* A node that is started with a lower limit than what is there: no more until it has room, and that it makes. */
static void a_limit_below_what_is_there(void **state)
{
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    put_some(&scene, 60);
    assert_true(harness_snapshot(scene.harness));
    while (log_bytes(scene.harness->worker.log) < 12 * scene.harness->segment_bytes)
        put_some(&scene, 1);
    harness_kill(scene.harness);
    scene.harness->disk_limit = 8 * scene.harness->segment_bytes;
    scene.harness->snapshot_bytes = scene.harness->disk_limit / 4;
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    for (unsigned i = 0; i < 400; i++)
        if (!put(&scene)) {
            assert_non_null(trouble(scene.harness));
            assert_non_null(strstr(trouble(scene.harness), "--disk-limit"));
            fake_machine_advance(scene.harness->machine, 2 * MR_SECOND);
            harness_settle(scene.harness);
        }
    put_some(&scene, 20);
    assert_true(used(scene.harness) <= scene.harness->disk_limit);
    scene_end(&scene);
}

static enum status command(struct scene *scene, const char *operation, struct payload payload)
{
    struct harness_frame frame;

    request_command(&scene->request, scene->session, scene->map, scene->next++, operation, payload_slice(&payload));
    uint64_t position = scene_send(scene, FRAME_COMMAND);
    harness_settle(scene->harness);
    scene_take(scene, position, &frame);
    return (enum status)frame.head.status;
}

/* Which frees what was answered before. */
static void keep_alive(struct scene *scene)
{
    struct harness_frame frame;

    request_keep_alive(&scene->request, scene->session, (struct slice){NULL, 0}, scene->next - 1, NULL, 0);
    uint64_t position = scene_send(scene, FRAME_COMMAND);
    harness_settle(scene->harness);
    scene_take(scene, position, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
}

/* What does not fit any more is the state itself: only what frees something passes, and when enough is freed, all. */
static void a_state_past_the_limit_can_be_made_smaller(void **state)
{
    enum durability durability = (enum durability)(intptr_t)*state;
    struct scene scene = {.harness = harness_create(1)};
    struct harness *harness = scene.harness;
    static const uint8_t value[2000];
    char key[16];
    unsigned held = 0;

    harness->durability = durability;
    harness->disk_limit = 8 * harness->segment_bytes;
    harness->snapshot_bytes = harness->disk_limit / 4;
    scene_start(&scene, SNAPSHOT_SCENE_RING);
    do {
        assert_true(held < 2000);
        snprintf(key, sizeof(key), "%u", held++);
        if (held % 16 == 0)
            keep_alive(&scene);
    } while (command(&scene, "Put", write_payload(key, (struct slice){value, sizeof(value)}, NULL, 0)) == STATUS_OK);
    assert_in_range(held * sizeof(value), harness->disk_limit / 6, harness->disk_limit);
    for (unsigned n = 0; n < 8; n++) { /* for as long as it takes */
        fake_machine_advance(harness->machine, 4 * MR_SECOND);
        harness_settle(harness);
        keep_alive(&scene);
        assert_int_equal(command(&scene, "Put", write_payload("more", (struct slice){value, 1}, NULL, 0)),
                         STATUS_UNAVAILABLE);
    }
    assert_int_equal(command(&scene, "Clear", (struct payload){.size = 0}), STATUS_OK);
    for (unsigned n = 0; n < 8; n++) {
        fake_machine_advance(harness->machine, 4 * MR_SECOND);
        harness_settle(harness);
        keep_alive(&scene);
    }
    assert_int_equal(command(&scene, "Put", write_payload("more", (struct slice){value, 1}, NULL, 0)), STATUS_OK);
    assert_int_equal(harness->worker.quota.disk, 0);
    scene_end(&scene);
}

/* ---- a place that cannot be read ---- */

static void an_unreadable_one_is_passed_over(void **state)
{
    struct scene scene;
    char name[SNAPSHOT_NAME_SIZE];

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    make_history(&scene);
    put_some(&scene, 5);
    uint64_t index = fsm_index(scene.harness->worker.fsm);
    snprintf(name, sizeof(name), "snapshot-%020llu", (unsigned long long)snapshot_newest(scene.harness));
    harness_kill(scene.harness);
    fake_machine_fail(scene.harness->machine, FAKE_READ, name, 1, UINT64_MAX, EIO);
    if (harness_start(scene.harness) != 0)
        fail_msg("%s", scene.harness->error.text);
    harness_settle(scene.harness);
    assert_int_equal(fsm_index(scene.harness->worker.fsm), index);
    assert_int_equal(scene.harness->warnings, 1);
    assert_non_null(strstr(scene.harness->warning, name));
    /* the next one takes its place */
    uint64_t sound = snapshot_newest(scene.harness);
    put_some(&scene, 5);
    assert_true(harness_snapshot(scene.harness));
    assert_int_equal(scene.harness->worker.snapshots.known[1].point.index, sound);
    assert_int_equal(fake_file_size(scene.harness->machine, PARTITION_FOLDER, name), -1);
    /* if none can be read it is the disk, and no damage */
    harness_kill(scene.harness);
    fake_machine_fail(scene.harness->machine, FAKE_READ, NULL, 1, UINT64_MAX, EIO);
    assert_int_equal(harness_start(scene.harness), -1);
    assert_int_equal(scene.harness->error.code, EIO);
    scene_end(&scene);
}

/* One that a power cut brought back, whose log is gone, is tried after those that cannot be read. That they cannot is
 * what is wrong, not that its log is missing. */
static void an_old_one_that_came_back_is_no_damage(void **state)
{
    static uint8_t bytes[2 * MR_MIB];
    struct scene scene;
    char names[3][SNAPSHOT_NAME_SIZE];

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    int64_t size = 0;
    for (unsigned i = 0; i < 3; i++) {
        put_some(&scene, 200);
        assert_true(harness_snapshot(scene.harness));
        snprintf(names[i], sizeof(names[i]), "snapshot-%020llu", (unsigned long long)snapshot_newest(scene.harness));
        if (i == 0)
            size = fake_file_read(scene.harness->machine, PARTITION_FOLDER, names[0], bytes, sizeof(bytes), 0);
    }
    put_some(&scene, 200); /* what the first one needs is used again */
    uint64_t index = fsm_index(scene.harness->worker.fsm);
    harness_kill(scene.harness);
    assert_int_equal(fake_file_size(scene.harness->machine, PARTITION_FOLDER, names[0]), -1);
    fake_file_write(scene.harness->machine, PARTITION_FOLDER, names[0], bytes, (size_t)size, 0);
    fake_machine_fail(scene.harness->machine, FAKE_READ, names[1], 1, UINT64_MAX, EIO);
    fake_machine_fail(scene.harness->machine, FAKE_READ, names[2], 1, UINT64_MAX, EIO);
    assert_int_equal(harness_start(scene.harness), -1);
    assert_int_equal(scene.harness->error.code, EIO);
    harness_kill(scene.harness);
    fake_machine_heal(scene.harness->machine);
    assert_int_equal(harness_start(scene.harness), 0);
    assert_int_equal(fsm_index(scene.harness->worker.fsm), index);
    scene_end(&scene);
}

/* ---- async ---- */

static void settle_for(struct harness *harness, uint64_t nanoseconds)
{
    for (uint64_t i = 0; i < nanoseconds / MR_MILLISECOND; i++) {
        fake_machine_advance(harness->machine, MR_MILLISECOND);
        harness_settle(harness);
    }
}

/* What the kernel let go of as a flush failed, the next flush does not bring back. */
static void a_failed_flush_spoils_a_snapshot(void **state)
{
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_ASYNC, 0);
    put_some(&scene, 20);
    fake_machine_fail(scene.harness->machine, FAKE_SYNC, NULL, 1, UINT64_MAX, EIO);
    settle_for(scene.harness, 50 * MR_MILLISECOND);
    assert_non_null(trouble(scene.harness));
    assert_false(harness_snapshot(scene.harness));
    assert_int_equal(snapshot_newest(scene.harness), 0);
    fake_machine_heal(scene.harness->machine);
    settle_for(scene.harness, 3 * MR_SECOND);
    assert_null(trouble(scene.harness));
    assert_true(harness_snapshot(scene.harness));
    /* nor may one count that was begun before */
    put_some(&scene, 1);
    struct fake_config *config = fake_machine_config(scene.harness->machine);
    config->order = FAKE_MANUAL;
    snapshots_ask(&scene.harness->worker, &(struct snapshot_question){.number = 0});
    uint64_t before = snapshot_newest(scene.harness);
    scene.harness->worker.answered = NULL; /* nobody is answered before it is over */
    turn_run(&scene.harness->worker);
    assert_true(fake_io_child_runs(scene.harness->io));
    scene.harness->worker.snapshots.question_count = 0;
    fake_machine_fail(scene.harness->machine, FAKE_SYNC, NULL, 1, 1, EIO);
    for (unsigned i = 0; i < 100 && trouble(scene.harness) == NULL; i++) {
        fake_machine_advance(scene.harness->machine, MR_MILLISECOND);
        turn_run(&scene.harness->worker);
        fake_io_finish_all(scene.harness->io);
    }
    assert_non_null(trouble(scene.harness));
    turn_run(&scene.harness->worker);
    assert_false(fake_io_child_runs(scene.harness->io));
    assert_int_equal(snapshot_newest(scene.harness), before);
    scene_end(&scene);
}

/* ---- memory ---- */

static void in_memory_the_sound_one_stays(void **state)
{
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_MEMORY, 0);
    make_history(&scene);
    put_some(&scene, 5);
    uint64_t sound = snapshot_newest(scene.harness), index = fsm_index(scene.harness->worker.fsm);
    /* all of it is as it was written, and yet it is no state */
    struct snapshot_place place = harness_snapshots(scene.harness).place;
    struct snapshot_point point = {
        .index = index, .time = 1, .segment = scene.harness->worker.snapshots.known[0].point.segment};
    struct snapshot_writer *writer = snapshot_begin(&place, &point, 9, &scene.harness->error);
    uint64_t bytes;
    assert_non_null(writer);
    snapshot_write(writer, "nothing", 7);
    assert_int_equal(snapshot_commit(writer, NULL, NULL, &bytes, &scene.harness->error), 0);
    harness_kill(scene.harness);
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    assert_int_equal(snapshot_newest(scene.harness), sound);
    assert_true(scene.harness->warnings > 0);
    /* the next one does not begin by overwriting what there is */
    put_some(&scene, 5);
    assert_true(harness_snapshot(scene.harness));
    struct snapshot_list list;
    place = harness_snapshots(scene.harness).place;
    assert_int_equal(snapshot_find(&place, &list, &scene.harness->error), 0);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.snapshots[1].point.index, sound);
    snapshot_list_free(&list);
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_left_unfinished_makes_room),
        cmocka_unit_test(a_full_disk_is_helped_by_a_snapshot),
        cmocka_unit_test(a_restart_uses_what_no_snapshot_needs),
        cmocka_unit_test(an_unreadable_one_is_passed_over),
        cmocka_unit_test(an_old_one_that_came_back_is_no_damage),
        cmocka_unit_test(a_failed_flush_spoils_a_snapshot),
        cmocka_unit_test(in_memory_the_sound_one_stays),
        cmocka_unit_test(at_the_limit_a_snapshot_is_asked_for),
        cmocka_unit_test(a_limit_below_what_is_there),
        cmocka_unit_test_prestate(a_state_past_the_limit_can_be_made_smaller, (void *)(intptr_t)DURABILITY_SYNC),
        cmocka_unit_test_prestate(the_log_stays_below_its_limit, (void *)(intptr_t)DURABILITY_SYNC),
        cmocka_unit_test_prestate(the_log_stays_below_its_limit, (void *)(intptr_t)DURABILITY_MEMORY),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
