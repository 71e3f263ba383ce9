/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots in a worker on a machine in memory: when one is taken, what is forgotten after it, what a successor starts
 * from, and that nobody whose channel outlives a worker sees a difference. */
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
#include "tests/support/worker_scene.h"

#define RING (64 * MR_KIB)
#define FOLDER "/partition-0001"
#define BATCH MR_BATCH_BYTES_MIN

/* ---- what is there ---- */

struct dump {
    uint8_t *bytes;
    size_t size;
};

static void add(void *context, const void *data, size_t size)
{
    struct dump *dump = context;

    dump->bytes = realloc(dump->bytes, dump->size + size);
    assert_non_null(dump->bytes);
    memcpy(dump->bytes + dump->size, data, size);
    dump->size += size;
}

static struct dump dump_state(struct harness *harness)
{
    struct dump dump = {.bytes = NULL};

    fsm_dump(harness->worker.fsm, add, &dump);
    return dump;
}

static void assert_same_state(struct harness *harness, struct dump *before)
{
    struct dump now = dump_state(harness);

    assert_int_equal(now.size, before->size);
    assert_memory_equal(now.bytes, before->bytes, now.size);
    free(now.bytes);
    free(before->bytes);
    before->bytes = NULL;
}

/* The names of whole snapshots, oldest first. */
static unsigned snapshots(struct harness *harness, char names[8][SNAPSHOT_NAME_SIZE])
{
    const char *name;
    unsigned count = 0;

    for (unsigned i = 0; (name = fake_file_name(harness->machine, FOLDER, i)) != NULL; i++) {
        if (strncmp(name, "snapshot-", 9) != 0 || strncmp(name, "snapshot-new-", 13) == 0)
            continue;
        assert_true(count < 8);
        unsigned at = count++;
        for (; at > 0 && strcmp(names[at - 1], name) > 0; at--)
            strcpy(names[at], names[at - 1]);
        snprintf(names[at], SNAPSHOT_NAME_SIZE, "%s", name);
    }
    return count;
}

static uint64_t log_files(struct harness *harness)
{
    const char *name;
    uint64_t bytes = 0;

    for (unsigned i = 0; (name = fake_file_name(harness->machine, FOLDER, i)) != NULL; i++)
        if (strncmp(name, "snapshot-", 9) != 0)
            bytes += (uint64_t)fake_file_size(harness->machine, FOLDER, name);
    return bytes;
}

/* So many puts of a kilobyte, each answered, and all of them acknowledged. */
static void put(struct scene *scene, unsigned count)
{
    struct harness_frame frame;

    for (unsigned i = 0; i < count; i++) {
        uint64_t position = scene_put(scene, scene->next++, 1000);
        harness_settle(scene->harness);
        scene_take(scene, position, &frame);
        assert_int_equal(frame.head.status, STATUS_OK);
    }
    request_keep_alive(&scene->request, scene->session, (struct slice){NULL, 0}, scene->next - 1, NULL, 0);
    scene_send(scene, FRAME_COMMAND);
    harness_settle(scene->harness);
    assert_true(harness_take(scene->client, &frame));
    assert_int_equal(frame.head.status, STATUS_OK);
}

static void restart(struct scene *scene)
{
    harness_kill(scene->harness);
    if (harness_start(scene->harness) != 0)
        fail_msg("%s", scene->harness->error.text);
    harness_settle(scene->harness);
}

static uint64_t newest(const struct harness *harness)
{
    return harness->worker.snapshots.known_count > 0 ? harness->worker.snapshots.known[0].point.index : 0;
}

static void begin(struct scene *scene, enum durability durability, uint64_t every)
{
    *scene = (struct scene){.harness = harness_create(1)};
    scene->harness->durability = durability;
    scene->harness->snapshot_bytes = every;
    assert_int_equal(harness_start(scene->harness), 0);
    scene->client = harness_client(scene->harness, 0, SCENE_USER, RING);
    scene_open_all(scene);
}

/* ---- when ---- */

static void taken_by_bytes_the_log_stays_small(void **state)
{
    static const enum durability modes[] = {DURABILITY_SYNC, DURABILITY_ASYNC, DURABILITY_MEMORY};

    (void)state;
    for (unsigned mode = 0; mode < 3; mode++) {
        struct scene scene;
        char names[8][SNAPSHOT_NAME_SIZE];
        uint64_t most = 0;
        unsigned seen = 0;
        /* Puts of a kilobyte, one at a time: on disk each takes a block of its own. */
        uint64_t every = modes[mode] == DURABILITY_MEMORY ? 8 * BATCH : 32 * BATCH;
        uint64_t bound = 3 * every + 3 * MR_SEGMENT_BYTES_MIN * 2;
        begin(&scene, modes[mode], every);
        assert_int_equal(scene.harness->segment_bytes, 2 * MR_SEGMENT_BYTES_MIN);
        for (unsigned round = 0; round < 60; round++) {
            uint64_t before = newest(scene.harness);
            put(&scene, 20);
            seen += newest(scene.harness) != before;
            most = log_bytes(scene.harness->worker.log) > most ? log_bytes(scene.harness->worker.log) : most;
            if (modes[mode] != DURABILITY_MEMORY)
                assert_true(snapshots(scene.harness, names) <= 2);
        }
        /* 1200 of them: 1.3 MB in memory, 5 MB on disk */
        assert_in_range(seen, 10, 24);
        assert_int_equal(scene.harness->worker.snapshots.known_count, 2);
        assert_true(most <= bound);
        if (modes[mode] != DURABILITY_MEMORY)
            assert_true(log_files(scene.harness) <= bound);
        assert_int_equal(scene.harness->region->snapshot_index, newest(scene.harness));
        assert_true(scene.harness->region->snapshot_bytes > 0);
        assert_int_equal(scene.harness->warnings, 0);
        uint64_t index = newest(scene.harness);
        struct dump before = dump_state(scene.harness);
        restart(&scene);
        assert_same_state(scene.harness, &before);
        assert_int_equal(newest(scene.harness), index);
        assert_int_equal(scene.harness->worker.snapshots.known_count, 2);
        assert_int_equal(scene.harness->found.entries, fsm_index(scene.harness->worker.fsm) - index);
        put(&scene, 100);
        restart(&scene);
        scene_end(&scene);
    }
}

/* A kilobyte under a new key, until the next one is there; by how much the log has grown between the two, as they
 * began. */
static uint64_t grown_until_next(struct scene *scene)
{
    const struct snapshots *known = &scene->harness->worker.snapshots;
    uint64_t before = newest(scene->harness), grown = known->grown;
    static const uint8_t value[1000];
    struct harness_frame frame;
    char key[24];

    for (unsigned i = 0; newest(scene->harness) == before; i++) {
        assert_true(i < 1000);
        snprintf(key, sizeof(key), "%u", (unsigned)scene->next);
        struct payload payload = write_payload(key, (struct slice){value, sizeof(value)}, NULL, 0);
        request_command(&scene->request, scene->session, scene->map, scene->next++, "Put", payload_slice(&payload));
        uint64_t position = scene_send(scene, FRAME_COMMAND);
        harness_settle(scene->harness);
        scene_take(scene, position, &frame);
        assert_int_equal(frame.head.status, STATUS_OK);
        if (i % 16 == 15)
            put(scene, 1); /* and acknowledges */
    }
    return known->grown - grown;
}

/* The state gets many times as large as what is given: so much log lies between two as the first of them has bytes. */
static void a_large_state_is_written_no_more_often_than_the_log(void **state)
{
    uint64_t disk_limit = *(const uint64_t *)*state;
    enum { EVERY = 4 * BATCH, SOME = 4 * BATCH }; /* what a put takes on disk, with another and a KeepAlive */
    struct scene scene;
    uint64_t size = 0;

    begin(&scene, DURABILITY_SYNC, EVERY);
    scene.harness->worker.snapshots.config.disk_limit = disk_limit;
    while (size < (disk_limit != 0 ? disk_limit / 3 : 12 * EVERY)) {
        uint64_t grown = grown_until_next(&scene), spaced = size > EVERY ? size : EVERY;
        if (disk_limit != 0 && spaced > disk_limit / 4)
            spaced = spaced < disk_limit / 2 - EVERY ? disk_limit / 2 - spaced : EVERY;
        assert_true(grown <= spaced + SOME);
        assert_true(grown >= spaced || disk_limit != 0); /* there it also comes early, where a segment is wanting */
        size = scene.harness->worker.snapshots.known[0].bytes;
    }
    if (disk_limit == 0) {
        restart(&scene); /* what was read back counts as growth */
        const struct snapshots *known = &scene.harness->worker.snapshots;
        assert_int_equal(known->due, known->known[0].bytes);
        grown_until_next(&scene);
        assert_in_range(known->grown, size, size + SOME);
    }
    scene_end(&scene);
}

static void none_without_being_asked_where_it_is_off(void **state)
{
    struct scene scene;

    (void)state;
    begin(&scene, DURABILITY_SYNC, 0);
    put(&scene, 200);
    assert_int_equal(newest(scene.harness), 0);
    scene_end(&scene);
}

static struct {
    unsigned count;
    enum status status;
    uint64_t number, index, bytes, duration;
    char text[128];
} heard;

static void answered(void *context, const struct attach_answer *answer)
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
    scene.client = harness_client(scene.harness, 0, SCENE_USER, RING);
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
    char names[8][SNAPSHOT_NAME_SIZE];

    (void)state;
    memset(&heard, 0, sizeof(heard));
    begin(&scene, DURABILITY_SYNC, 4 * BATCH);
    fake_machine_fail(scene.harness->machine, FAKE_WRITE_NOW, NULL, 1, UINT64_MAX, ENOSPC);
    put(&scene, 60);
    assert_int_equal(newest(scene.harness), 0);
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
    assert_int_equal(snapshots(scene.harness, names), 0);
    fake_machine_heal(scene.harness->machine);
    fake_machine_advance(scene.harness->machine, 100 * MR_SECOND);
    harness_settle(scene.harness);
    assert_int_equal(snapshots(scene.harness, names), 1);
    assert_true(newest(scene.harness) > 0);
    assert_int_equal(scene.harness->worker.snapshots.pause, 0);
    restart(&scene);
    scene_end(&scene);
}

/* It hangs in a call, or somebody has stopped it. */
static void a_child_that_does_not_get_on_is_given_up(void **state)
{
    struct scene scene;

    (void)state;
    memset(&heard, 0, sizeof(heard));
    begin(&scene, DURABILITY_SYNC, 0);
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
    begin(&scene, DURABILITY_SYNC, 0);
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
    char names[8][SNAPSHOT_NAME_SIZE];

    (void)state;
    memset(&heard, 0, sizeof(heard));
    begin(&scene, DURABILITY_SYNC, 0);
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
        assert_true(snapshots(scene.harness, names) <= (died ? 6 : 2)); /* the end is to remove what is too old */
        struct dump before = dump_state(scene.harness);
        restart(&scene);
        assert_same_state(scene.harness, &before);
    }
    scene_end(&scene);
}

static void flip(struct harness *harness, const char *name)
{
    fake_file_flip(harness->machine, FOLDER, name, 100, 3);
}

static void a_damaged_one_is_passed_over_and_told(void **state)
{
    struct scene scene;
    char names[8][SNAPSHOT_NAME_SIZE];

    (void)state;
    begin(&scene, DURABILITY_SYNC, 0);
    for (unsigned i = 0; i < 3; i++) {
        put(&scene, 200);
        assert_true(harness_snapshot(scene.harness));
    }
    put(&scene, 3);
    assert_int_equal(snapshots(scene.harness, names), 2);
    struct dump before = dump_state(scene.harness);
    flip(scene.harness, names[1]);
    restart(&scene);
    assert_same_state(scene.harness, &before);
    assert_int_equal(scene.harness->warnings, 1);
    assert_non_null(strstr(scene.harness->warning, names[1]));
    assert_non_null(strstr(scene.harness->warning, "offset"));
    assert_int_equal(scene.harness->worker.snapshots.known_count, 1);
    /* the next one takes its place, not that of the sound one */
    char sound[SNAPSHOT_NAME_SIZE];
    strcpy(sound, names[0]);
    put(&scene, 5);
    assert_true(harness_snapshot(scene.harness));
    assert_int_equal(snapshots(scene.harness, names), 2);
    assert_string_equal(names[0], sound);
    before = dump_state(scene.harness);
    flip(scene.harness, names[1]);
    restart(&scene);
    assert_same_state(scene.harness, &before);
    scene_end(&scene);
}

static void without_a_sound_one_and_the_beginning_it_is_stopped(void **state)
{
    struct scene scene;
    char names[8][SNAPSHOT_NAME_SIZE];

    (void)state;
    begin(&scene, DURABILITY_SYNC, 0);
    put(&scene, 20);
    assert_true(harness_snapshot(scene.harness));
    /* with the beginning of the log still there the damage does no harm */
    struct dump before = dump_state(scene.harness);
    assert_int_equal(snapshots(scene.harness, names), 1);
    flip(scene.harness, names[0]);
    restart(&scene);
    assert_same_state(scene.harness, &before);
    for (unsigned i = 0; i < 4; i++) {
        put(&scene, 400);
        assert_true(harness_snapshot(scene.harness));
    }
    put(&scene, 400); /* the first segments are used again by now */
    assert_int_equal(snapshots(scene.harness, names), 2);
    flip(scene.harness, names[0]);
    flip(scene.harness, names[1]);
    harness_kill(scene.harness);
    assert_int_equal(harness_start(scene.harness), -1);
    assert_int_equal(scene.harness->error.code, 0);
    assert_non_null(strstr(scene.harness->error.text, names[1]));
    assert_non_null(strstr(scene.harness->error.text, "no snapshot can be believed"));
    scene_end(&scene);
}

static void a_disk_that_cannot_be_read_is_no_damage(void **state)
{
    struct scene scene;

    (void)state;
    begin(&scene, DURABILITY_SYNC, 0);
    put(&scene, 20);
    assert_true(harness_snapshot(scene.harness));
    for (unsigned n = 1; n <= 2; n++) {
        harness_kill(scene.harness);
        fake_machine_fail(scene.harness->machine, n == 1 ? FAKE_READ : FAKE_OPEN, NULL, 1, UINT64_MAX, EIO);
        assert_int_equal(harness_start(scene.harness), -1);
        assert_int_equal(scene.harness->error.code, EIO);
        harness_kill(scene.harness);
        fake_machine_heal(scene.harness->machine);
        assert_int_equal(harness_start(scene.harness), 0);
        assert_int_equal(scene.harness->worker.snapshots.known_count, 1);
    }
    scene_end(&scene);
}

/* The segment with this number. */
static const char *segment_of(const struct harness *harness, uint64_t number)
{
    const char *name;
    uint64_t found;

    for (unsigned n = 0; (name = fake_file_name(harness->machine, FOLDER, n)) != NULL; n++)
        if (strncmp(name, "segment-", 8) == 0 &&
            fake_file_read(harness->machine, FOLDER, name, &found, sizeof(found), 24) == sizeof(found) &&
            found == number)
            break;
    return name;
}

/* What is wrong with the log behind an old snapshot is no damage while a newer one may only not be read just now: that
 * log may have been given up, piece by piece. */
static void an_old_one_is_no_proof_of_damage_while_a_newer_cannot_be_read(void **state)
{
    struct scene scene;
    char names[8][SNAPSHOT_NAME_SIZE];

    (void)state;
    begin(&scene, DURABILITY_SYNC, 0);
    for (unsigned i = 0; i < 4; i++) {
        put(&scene, 400);
        assert_true(harness_snapshot(scene.harness));
    }
    assert_int_equal(snapshots(scene.harness, names), 2);
    struct dump before = dump_state(scene.harness);
    const struct known_snapshot *known = scene.harness->worker.snapshots.known;
    assert_true(known[0].point.segment > known[1].point.segment + 1);
    const char *between = segment_of(scene.harness, known[1].point.segment + 1);
    harness_kill(scene.harness);
    fake_file_flip(scene.harness->machine, FOLDER, between, 4096 + 200, 3);
    fake_machine_fail(scene.harness->machine, FAKE_OPEN, names[1], 1, UINT64_MAX, EIO);
    assert_int_equal(harness_start(scene.harness), -1);
    assert_int_equal(scene.harness->error.code, EIO);
    assert_non_null(strstr(scene.harness->error.text, between));
    assert_non_null(strstr(scene.harness->error.text, "a newer snapshot cannot be read"));
    harness_kill(scene.harness);
    fake_machine_heal(scene.harness->machine);
    assert_int_equal(harness_start(scene.harness), 0);
    assert_same_state(scene.harness, &before);
    /* That it is damaged itself is another matter. */
    harness_kill(scene.harness);
    flip(scene.harness, names[1]);
    assert_int_equal(harness_start(scene.harness), -1);
    assert_int_equal(scene.harness->error.code, 0);
    scene_end(&scene);
}

/* ---- the end ---- */

static void a_start_after_a_stop_reads_no_entries(void **state)
{
    struct scene scene;
    char names[8][SNAPSHOT_NAME_SIZE];
    uint64_t most = 0;

    (void)state;
    begin(&scene, DURABILITY_SYNC, 1024 * BATCH);
    for (unsigned life = 0; life < 8; life++) {
        put(&scene, 200);
        struct dump before = dump_state(scene.harness);
        assert_int_equal(harness_stop(scene.harness), 0);
        assert_int_equal(harness_start(scene.harness), 0);
        harness_settle(scene.harness);
        assert_same_state(scene.harness, &before);
        assert_int_equal(scene.harness->found.entries, 0);
        uint64_t bytes = log_files(scene.harness);
        most = bytes > most ? bytes : most;
    }
    assert_int_equal(snapshots(scene.harness, names), 2);
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
    begin(&scene, DURABILITY_SYNC, 0);
    put(&scene, 20);
    struct dump before = dump_state(scene.harness);
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
    begin(&scene, DURABILITY_SYNC, 0);
    put(&scene, 20);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    ask(scene.harness, 1);
    turn_run(&scene.harness->worker);
    assert_true(fake_io_child_runs(scene.harness->io));
    fake_io_child_step(scene.harness->io);
    fake_io_child_step(scene.harness->io);
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    struct dump before = dump_state(scene.harness);
    assert_int_equal(harness_stop(scene.harness), 0);
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    assert_same_state(scene.harness, &before);
    assert_int_equal(scene.harness->found.entries, 0);
    scene_end(&scene);
}

int main(void)
{
    static uint64_t no_disk_limit = 0, disk_limit = 64 * 4 * BATCH;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_by_bytes_the_log_stays_small),
        cmocka_unit_test_prestate(a_large_state_is_written_no_more_often_than_the_log, &no_disk_limit),
        cmocka_unit_test_prestate(a_large_state_is_written_no_more_often_than_the_log, &disk_limit),
        cmocka_unit_test(none_without_being_asked_where_it_is_off),
        cmocka_unit_test(who_asks_gets_all_that_was_applied),
        cmocka_unit_test(a_failure_is_told_and_tried_again_later),
        cmocka_unit_test(a_child_that_does_not_get_on_is_given_up),
        cmocka_unit_test(no_child_is_told_too),
        cmocka_unit_test(a_child_that_dies_leaves_nothing_behind),
        cmocka_unit_test(a_damaged_one_is_passed_over_and_told),
        cmocka_unit_test(without_a_sound_one_and_the_beginning_it_is_stopped),
        cmocka_unit_test(a_disk_that_cannot_be_read_is_no_damage),
        cmocka_unit_test(an_old_one_is_no_proof_of_damage_while_a_newer_cannot_be_read),
        cmocka_unit_test(a_start_after_a_stop_reads_no_entries),
        cmocka_unit_test(a_failure_at_the_end_is_a_warning),
        cmocka_unit_test(a_stop_while_one_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
