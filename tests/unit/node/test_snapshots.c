/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots in a worker on a machine in memory: when one is taken, what is forgotten after it, who is told, and what
 * becomes of one that cannot be written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "millrace/v1/control.pb-c.h"
#include "tests/support/snapshot_scene.h"

#define BATCH MR_BATCH_BYTES_MIN

/* ---- when ---- */

static uint64_t log_files(struct harness *harness)
{
    const char *name;
    uint64_t bytes = 0;

    for (unsigned i = 0; (name = fake_file_name(harness->machine, PARTITION_FOLDER, i)) != NULL; i++)
        if (strncmp(name, "snapshot-", 9) != 0)
            bytes += (uint64_t)fake_file_size(harness->machine, PARTITION_FOLDER, name);
    return bytes;
}

static void taken_by_bytes_the_log_stays_small(void **state)
{
    static const enum durability modes[] = {DURABILITY_SYNC, DURABILITY_ASYNC, DURABILITY_MEMORY};

    (void)state;
    for (unsigned mode = 0; mode < 3; mode++) {
        struct scene scene;
        char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE];
        uint64_t most = 0;
        unsigned seen = 0;
        /* Puts of a kilobyte, one at a time: on disk each takes a block of its own. */
        uint64_t every = modes[mode] == DURABILITY_MEMORY ? 8 * BATCH : 32 * BATCH;
        uint64_t bound = 3 * every + 3 * MR_SEGMENT_BYTES_MIN * 2;
        snapshot_scene_begin(&scene, modes[mode], every);
        assert_int_equal(scene.harness->segment_bytes, 2 * MR_SEGMENT_BYTES_MIN);
        for (unsigned round = 0; round < 60; round++) {
            uint64_t before = snapshot_newest(scene.harness);
            snapshot_scene_puts(&scene, 20);
            seen += snapshot_newest(scene.harness) != before;
            most = log_bytes(scene.harness->worker.log) > most ? log_bytes(scene.harness->worker.log) : most;
            if (modes[mode] != DURABILITY_MEMORY)
                assert_true(snapshot_names(scene.harness, names) <= 2);
        }
        /* 1200 of them: 1.3 MB in memory, 5 MB on disk */
        assert_in_range(seen, 10, 24);
        assert_int_equal(scene.harness->worker.snapshots.known_count, 2);
        assert_true(most <= bound);
        if (modes[mode] != DURABILITY_MEMORY)
            assert_true(log_files(scene.harness) <= bound);
        assert_int_equal(scene.harness->region->snapshot_index, snapshot_newest(scene.harness));
        assert_true(scene.harness->region->snapshot_bytes > 0);
        assert_int_equal(scene.harness->warnings, 0);
        uint64_t index = snapshot_newest(scene.harness);
        struct state_dump before = state_dump(scene.harness);
        snapshot_scene_restart(&scene);
        assert_same_state(scene.harness, &before);
        assert_int_equal(snapshot_newest(scene.harness), index);
        assert_int_equal(scene.harness->worker.snapshots.known_count, 2);
        assert_int_equal(scene.harness->found.entries, fsm_index(scene.harness->worker.fsm) - index);
        snapshot_scene_puts(&scene, 100);
        snapshot_scene_restart(&scene);
        scene_end(&scene);
    }
}

/* A kilobyte under this key, and at times an acknowledgement of all before. False: refused. */
static bool put_kilobyte(struct scene *scene, unsigned n)
{
    static const uint8_t value[1000];
    struct harness_frame frame;
    char key[24];

    snprintf(key, sizeof(key), "%u", n);
    struct payload payload = write_payload(key, (struct slice){value, sizeof(value)}, NULL, 0);
    request_command(&scene->request, scene->session, scene->map, scene->next, "Put", payload_slice(&payload));
    uint64_t position = scene_send(scene, FRAME_COMMAND);
    harness_settle(scene->harness);
    scene_take(scene, position, &frame);
    if (frame.head.status != STATUS_OK)
        return false;
    if (scene->next++ % 16 == 0)
        return snapshot_scene_acknowledge(scene) == STATUS_OK;
    return true;
}

/* Kilobytes under new keys, until the next one is there; by how much the log has grown between the two, as they
 * began. */
static uint64_t grown_until_next(struct scene *scene)
{
    const struct snapshots *known = &scene->harness->worker.snapshots;
    uint64_t before = snapshot_newest(scene->harness), grown = known->grown;

    for (unsigned i = 0; snapshot_newest(scene->harness) == before; i++) {
        assert_true(i < 1000);
        assert_true(put_kilobyte(scene, (unsigned)scene->next));
    }
    return known->grown - grown;
}

/* The state gets many times as large as what is given: so much log lies between two as the first of them has bytes. */
static void a_large_state_is_written_no_more_often_than_the_log(void **state)
{
    enum { EVERY = 4 * BATCH, SOME = 4 * BATCH }; /* what a put takes on disk, with another and a KeepAlive */
    struct scene scene;
    uint64_t size = 0;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, EVERY);
    while (size < 12 * EVERY) {
        assert_in_range(grown_until_next(&scene), size > EVERY ? size : EVERY, (size > EVERY ? size : EVERY) + SOME);
        size = scene.harness->worker.snapshots.known[0].bytes;
    }
    snapshot_scene_restart(&scene); /* what was read back counts as growth */
    const struct snapshots *known = &scene.harness->worker.snapshots;
    assert_int_equal(known->due, known->known[0].bytes);
    grown_until_next(&scene);
    assert_in_range(known->grown, size, size + SOME);
    scene_end(&scene);
}

static uint64_t log_and_snapshots(const struct harness *harness)
{
    const struct snapshots *snapshots = &harness->worker.snapshots;
    uint64_t bytes = log_bytes(harness->worker.log);

    for (unsigned i = 0; i < snapshots->known_count; i++)
        bytes += snapshots->known[i].bytes;
    return bytes;
}

/* What was logged, and what snapshots were written for it. */
struct account {
    uint64_t logged, written;
    uint64_t most; /* that log and snapshots took together */
};

/* Puts that nobody refuses and after each of which log and snapshots fit, until the state has `size` bytes or so much
 * is logged; under so many keys, 0: each under a new one. A snapshot that is being written comes on top: what it takes
 * more than the one before, the log gives back when it is there. */
static struct account puts_within_the_limit(struct scene *scene, uint64_t size, uint64_t logged, unsigned keys)
{
    struct harness *harness = scene->harness;
    const struct snapshots *snapshots = &harness->worker.snapshots;
    struct account account = {.most = 0};
    uint64_t before = log_grown(harness->worker.log), seen = snapshot_newest(harness);

    while (account.logged < logged && (snapshots->known_count == 0 || snapshots->known[0].bytes < size)) {
        assert_true(put_kilobyte(scene, (unsigned)(keys > 0 ? scene->next % keys : scene->next)));
        account.logged = log_grown(harness->worker.log) - before;
        if (snapshot_newest(harness) != seen) {
            seen = snapshot_newest(harness);
            account.written += snapshots->known[0].bytes;
            continue;
        }
        uint64_t bytes = log_and_snapshots(harness);
        assert_true(bytes <= harness->disk_limit);
        account.most = bytes > account.most ? bytes : account.most;
    }
    return account;
}

/* Under a limit less log lies between two of a large state. Two of a state that takes a third leave a third to the log:
 * half of that stays free for what comes while a snapshot is written, a quarter lies between two of them. So four times
 * as much is written as logged, and not much more than that. */
static void under_a_limit_a_large_state_leaves_room_for_its_log(void **state)
{
    struct scene scene = {.harness = harness_create(1)};
    struct harness *harness = scene.harness;
    uint64_t segments = (uint64_t)(intptr_t)*state;

    harness->disk_limit = segments * harness->segment_bytes;
    harness->snapshot_bytes = 4 * BATCH;
    assert_int_equal(harness_start(harness), 0);
    scene.client = harness_client(harness, 0, SCENE_USER, SNAPSHOT_SCENE_RING);
    scene_open_all(&scene);
    uint64_t third = harness->disk_limit / 3;
    struct account growing = puts_within_the_limit(&scene, third, 4 * harness->disk_limit, 0);
    assert_in_range(harness->worker.snapshots.known[0].bytes, third, third + third / 4);
    assert_true(growing.written <= 2 * growing.logged);
    unsigned keys = (unsigned)scene.next;
    struct account grown = puts_within_the_limit(&scene, UINT64_MAX, 3 * harness->disk_limit, keys);
    assert_true(grown.written <= 5 * grown.logged);
    assert_true(grown.most >= harness->disk_limit / 4 * 3); /* and it is the limit that was met */
    assert_int_equal(harness->warnings, 0);
    scene_end(&scene);
}

static void none_without_being_asked_where_it_is_off(void **state)
{
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    snapshot_scene_puts(&scene, 200);
    assert_int_equal(snapshot_newest(scene.harness), 0);
    scene_end(&scene);
}

static struct {
    unsigned count;
    enum status status;
    uint64_t number, index, bytes, duration;
    char text[128];
} heard;

static void answered(void *context, const struct worker_answer *answer)
{
    (void)context;
    memset((char *)&heard + sizeof(heard.count), 0, sizeof(heard) - sizeof(heard.count));
    heard.count++;
    heard.status = answer->status;
    heard.number = answer->number;
    snprintf(heard.text, sizeof(heard.text), "%s", answer->text);
    if (answer->status != STATUS_OK)
        return;
    Millrace__V1__SnapshotReport *report = millrace__v1__snapshot_report__unpack(NULL, answer->size, answer->bytes);
    assert_non_null(report);
    heard.index = report->index;
    heard.bytes = report->bytes;
    heard.duration = report->duration_ns;
    millrace__v1__snapshot_report__free_unpacked(report, NULL);
}

static void ask(struct harness *harness, uint64_t number)
{
    harness->worker.answered = answered;
    snapshots_ask(&harness->worker, &(struct snapshot_question){.number = number});
}

static void go_on(struct harness *harness)
{
    for (int i = 0; i < 100; i++) {
        fake_machine_advance(harness->machine, MR_MILLISECOND);
        harness_settle(harness);
    }
}

static void who_asks_gets_all_that_was_applied(void **state)
{
    struct scene scene;

    (void)state;
    memset(&heard, 0, sizeof(heard));
    *(&scene) = (struct scene){.harness = harness_create(1)};
    assert_int_equal(harness_start(scene.harness), 0);
    ask(scene.harness, 1); /* nothing was ever applied */
    harness_settle(scene.harness);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.status, STATUS_OK);
    assert_int_equal(heard.index, 0);
    scene.client = harness_client(scene.harness, 0, SCENE_USER, SNAPSHOT_SCENE_RING);
    scene_open_all(&scene);

    struct fake_config *config = fake_machine_config(scene.harness->machine);
    config->order = FAKE_IN_ORDER;
    config->delay_min = config->delay_max = 2 * MR_MILLISECOND;
    uint64_t first = fsm_index(scene.harness->worker.fsm);
    ask(scene.harness, 2);
    harness_settle(scene.harness);
    assert_true(scene.harness->worker.snapshots.writing);
    ask(scene.harness, 3); /* nothing has come since: the same one is as new */
    uint64_t position = scene_increment(&scene, scene.next++);
    harness_settle(scene.harness);
    fake_machine_advance(scene.harness->machine, 3 * MR_MILLISECOND);
    harness_settle(scene.harness);
    struct harness_frame frame;
    scene_take(&scene, position, &frame);                 /* nobody waits for a snapshot */
    assert_true(scene.harness->worker.snapshots.writing); /* it is still being written */
    ask(scene.harness, 4);                                /* this one is to contain it */
    for (int i = 0; i < 1000 && heard.count < 3; i++) {
        fake_machine_advance(scene.harness->machine, MR_MILLISECOND);
        harness_settle(scene.harness);
    }
    assert_int_equal(heard.count, 3);
    assert_int_equal(heard.number, 3);
    assert_int_equal(heard.index, first);
    assert_true(heard.duration > 2 * MR_MILLISECOND);
    go_on(scene.harness);
    assert_int_equal(heard.count, 4);
    assert_int_equal(heard.number, 4);
    assert_int_equal(heard.index, first + 1);
    assert_true(heard.bytes > 0);
    ask(scene.harness, 5);
    harness_settle(scene.harness);
    assert_int_equal(heard.count, 5);
    assert_int_equal(heard.index, first + 1);
    assert_int_equal(heard.duration, 0);
    scene_end(&scene);
}

/* ---- what goes wrong ---- */

static void a_failure_is_told_and_tried_again_later(void **state)
{
    struct scene scene;
    char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE];

    (void)state;
    memset(&heard, 0, sizeof(heard));
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 4 * BATCH);
    fake_machine_fail(scene.harness->machine, FAKE_WRITE_NOW, NULL, 1, UINT64_MAX, ENOSPC);
    snapshot_scene_puts(&scene, 60);
    assert_int_equal(snapshot_newest(scene.harness), 0);
    assert_int_equal(scene.harness->warnings, 1); /* not at every turn */
    assert_non_null(strstr(scene.harness->warning, "no snapshot of index"));
    assert_non_null(strstr(scene.harness->warning, "tried again in 10 s"));
    assert_null(log_trouble(scene.harness->worker.log));
    fake_machine_advance(scene.harness->machine, 9 * MR_SECOND);
    harness_settle(scene.harness);
    assert_int_equal(scene.harness->warnings, 1);
    assert_true(turn_next(&scene.harness->worker) <= scene.harness->worker.now + MR_SECOND);
    fake_machine_advance(scene.harness->machine, 2 * MR_SECOND);
    harness_settle(scene.harness);
    assert_int_equal(scene.harness->warnings, 2);
    assert_non_null(strstr(scene.harness->warning, "tried again in 20 s"));
    /* who asks does not wait for the pause, and is told */
    ask(scene.harness, 1);
    harness_settle(scene.harness);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.status, STATUS_UNAVAILABLE);
    assert_true(strlen(heard.text) > 0);
    assert_int_equal(snapshot_names(scene.harness, names), 0);
    fake_machine_heal(scene.harness->machine);
    fake_machine_advance(scene.harness->machine, 100 * MR_SECOND);
    harness_settle(scene.harness);
    assert_int_equal(snapshot_names(scene.harness, names), 1);
    assert_true(snapshot_newest(scene.harness) > 0);
    assert_int_equal(scene.harness->worker.snapshots.pause, 0);
    snapshot_scene_restart(&scene);
    scene_end(&scene);
}

/* It hangs in a call, or somebody has stopped it. */
static void a_child_that_does_not_get_on_is_given_up(void **state)
{
    struct scene scene;

    (void)state;
    memset(&heard, 0, sizeof(heard));
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    struct worker *worker = &scene.harness->worker;
    uint64_t patience = MR_SNAPSHOT_PATIENCE;
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    for (unsigned n = 1; n <= 3; n++, patience *= 2) {
        ask(scene.harness, n);
        harness_settle(scene.harness);
        assert_true(worker->snapshots.writing);
        fake_machine_advance(scene.harness->machine, patience - MR_SECOND);
        assert_true(fake_io_child_step(scene.harness->io));
        atomic_fetch_add(&worker->region->child_progress, 1);
        harness_settle(scene.harness);
        assert_true(turn_next(worker) <= worker->now + patience);
        fake_machine_advance(scene.harness->machine, patience - MR_SECOND);
        harness_settle(scene.harness);
        assert_true(fake_io_child_runs(scene.harness->io));
        fake_machine_advance(scene.harness->machine, MR_SECOND);
        harness_settle(scene.harness);
        assert_false(fake_io_child_runs(scene.harness->io));
        assert_int_equal(heard.count, n);
        assert_int_equal(heard.status, STATUS_UNAVAILABLE);
        assert_non_null(strstr(heard.text, "had not got on for"));
        assert_int_equal(scene.harness->warnings, n);
    }
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    assert_true(harness_snapshot(scene.harness));
    assert_int_equal(worker->snapshots.patience, 0);
    scene_end(&scene);
}

static void no_child_is_told_too(void **state)
{
    struct scene scene;

    (void)state;
    memset(&heard, 0, sizeof(heard));
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    fake_machine_fail(scene.harness->machine, FAKE_CHILD, NULL, 1, 1, ENOMEM);
    ask(scene.harness, 1);
    harness_settle(scene.harness);
    assert_int_equal(heard.status, STATUS_UNAVAILABLE);
    assert_non_null(strstr(heard.text, "no process could be made"));
    assert_true(harness_snapshot(scene.harness));
    scene_end(&scene);
}

static void a_child_that_dies_leaves_nothing_behind(void **state)
{
    struct scene scene;
    char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE];

    (void)state;
    memset(&heard, 0, sizeof(heard));
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    for (unsigned calls = 0; calls < 20; calls++) {
        fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
        uint64_t position = scene_increment(&scene, scene.next++);
        for (int i = 0; i < 4; i++) {
            fake_io_finish_all(scene.harness->io);
            harness_settle(scene.harness);
        }
        struct harness_frame frame;
        scene_take(&scene, position, &frame);
        ask(scene.harness, 1);
        turn_run(&scene.harness->worker);
        assert_true(scene.harness->worker.snapshots.writing);
        bool ran = true;
        for (unsigned i = 0; i < calls && ran; i++)
            ran = fake_io_child_step(scene.harness->io);
        bool died = ran && fake_io_child_die(scene.harness->io);
        fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
        harness_settle(scene.harness);
        assert_int_equal(heard.count, calls + 1);
        assert_int_equal(heard.status, died ? STATUS_UNAVAILABLE : STATUS_OK);
        if (died)
            assert_non_null(strstr(heard.text, "ended before it was done"));
        assert_true(snapshot_names(scene.harness, names) <= (died ? 6 : 2)); /* the end is to remove what is too old */
        struct state_dump before = state_dump(scene.harness);
        snapshot_scene_restart(&scene);
        assert_same_state(scene.harness, &before);
    }
    scene_end(&scene);
}

/* ---- the end ---- */

static void a_start_after_a_stop_reads_no_entries(void **state)
{
    struct scene scene;
    char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE];
    uint64_t most = 0;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 1024 * BATCH);
    for (unsigned life = 0; life < 8; life++) {
        snapshot_scene_puts(&scene, 200);
        struct state_dump before = state_dump(scene.harness);
        assert_int_equal(harness_stop(scene.harness), 0);
        assert_int_equal(harness_start(scene.harness), 0);
        harness_settle(scene.harness);
        assert_same_state(scene.harness, &before);
        assert_int_equal(scene.harness->found.entries, 0);
        uint64_t bytes = log_files(scene.harness);
        most = bytes > most ? bytes : most;
    }
    assert_int_equal(snapshot_names(scene.harness, names), 2);
    assert_true(most <= 16 * scene.harness->segment_bytes); /* two lives' log, of which one fills seven */
    assert_int_equal(scene.harness->warnings, 0);
    /* nothing applied since: none is written */
    uint64_t writes = fake_machine_counts(scene.harness->machine)->calls[FAKE_WRITE_NOW];
    assert_int_equal(harness_stop(scene.harness), 0);
    assert_int_equal(fake_machine_counts(scene.harness->machine)->calls[FAKE_WRITE_NOW], writes);
    assert_int_equal(harness_start(scene.harness), 0);
    scene_end(&scene);
}

static void a_failure_at_the_end_is_a_warning(void **state)
{
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    snapshot_scene_puts(&scene, 20);
    struct state_dump before = state_dump(scene.harness);
    fake_machine_fail(scene.harness->machine, FAKE_WRITE_NOW, NULL, 1, UINT64_MAX, ENOSPC);
    assert_int_equal(harness_stop(scene.harness), 0);
    assert_int_equal(scene.harness->warnings, 1);
    fake_machine_heal(scene.harness->machine);
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    assert_same_state(scene.harness, &before);
    scene_end(&scene);
}

static void a_stop_while_one_is_written(void **state)
{
    struct scene scene;

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    snapshot_scene_puts(&scene, 20);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    ask(scene.harness, 1);
    turn_run(&scene.harness->worker);
    assert_true(fake_io_child_runs(scene.harness->io));
    fake_io_child_step(scene.harness->io);
    fake_io_child_step(scene.harness->io);
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    struct state_dump before = state_dump(scene.harness);
    assert_int_equal(harness_stop(scene.harness), 0);
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    assert_same_state(scene.harness, &before);
    assert_int_equal(scene.harness->found.entries, 0);
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_by_bytes_the_log_stays_small),
        cmocka_unit_test(a_large_state_is_written_no_more_often_than_the_log),
        cmocka_unit_test_prestate(under_a_limit_a_large_state_leaves_room_for_its_log, (void *)(intptr_t)32),
        cmocka_unit_test_prestate(under_a_limit_a_large_state_leaves_room_for_its_log, (void *)(intptr_t)64),
        cmocka_unit_test(none_without_being_asked_where_it_is_off),
        cmocka_unit_test(who_asks_gets_all_that_was_applied),
        cmocka_unit_test(a_failure_is_told_and_tried_again_later),
        cmocka_unit_test(a_child_that_does_not_get_on_is_given_up),
        cmocka_unit_test(no_child_is_told_too),
        cmocka_unit_test(a_child_that_dies_leaves_nothing_behind),
        cmocka_unit_test(a_start_after_a_stop_reads_no_entries),
        cmocka_unit_test(a_failure_at_the_end_is_a_warning),
        cmocka_unit_test(a_stop_while_one_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
