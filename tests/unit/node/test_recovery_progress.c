/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker tells of how far its recovery is: bytes of snapshot and log as one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/support/snapshot_scene.h"

#define TOLD_MOST 400

struct told {
    struct {
        uint64_t done, total;
    } at[TOLD_MOST];
    unsigned count;
};

static void note(void *context, uint64_t done, uint64_t total)
{
    struct told *told = context;

    assert_true(told->count < TOLD_MOST);
    told->at[told->count].done = done;
    told->at[told->count++].total = total;
}

/* A slow disk: each read is worth telling of. */
static void read_slowly(void *context, struct io *io, enum fake_call call, const char *name)
{
    struct harness *harness = context;

    (void)io, (void)name;
    if (call == FAKE_READ)
        fake_machine_advance(harness->machine, MR_SECOND);
}

static void begin(struct scene *scene, struct told *told)
{
    *scene = (struct scene){.harness = harness_create(1)};
    scene->harness->progress = note;
    scene->harness->progress_context = told;
    scene_start(scene, 64 * MR_KIB);
}

static void put(struct scene *scene, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_true(snapshot_scene_put(scene));
}

static void start_slowly(struct scene *scene, struct told *told)
{
    struct fake_config *config = fake_machine_config(scene->harness->machine);

    harness_kill(scene->harness);
    told->count = 0;
    config->on_call = read_slowly;
    config->context = scene->harness;
    assert_int_equal(harness_start(scene->harness), 0);
    config->on_call = NULL;
}

/* From `first` on: of a total that is known, never less than before, some of it in the middle, and all at the end. */
static void assert_counts_up(const struct told *told, unsigned first)
{
    unsigned in_the_middle = 0;

    assert_true(told->count > first);
    for (unsigned i = first; i < told->count; i++) {
        uint64_t done = told->at[i].done, total = told->at[i].total;
        assert_int_equal(total, told->at[first].total);
        assert_true(done <= total && (i == first || done >= told->at[i - 1].done));
        in_the_middle += done > total / 4 && done < total / 4 * 3;
    }
    assert_true(in_the_middle > 0);
    assert_int_equal(told->at[told->count - 1].done, told->at[told->count - 1].total);
}

static void of_a_log(void **state)
{
    struct scene scene;
    struct told told = {.count = 0};

    (void)state;
    begin(&scene, &told);
    put(&scene, 600);
    start_slowly(&scene, &told);
    assert_counts_up(&told, 0);
    scene_end(&scene);
}

/* What log stands behind a snapshot is guessed while that is read: as much as there is between two, or as the snapshot
 * has itself. In no moment before the end does it look like the end. */
static void of_a_snapshot_and_a_log(void **state)
{
    (void)state;
    for (unsigned every = 0; every < 2; every++) {
        struct scene scene;
        struct told told = {.count = 0};
        begin(&scene, &told);
        put(&scene, 100);
        assert_true(harness_snapshot(scene.harness));
        put(&scene, 300);
        scene.harness->snapshot_bytes = every * 4 * MR_MIB;
        start_slowly(&scene, &told);
        uint64_t bytes = scene.harness->worker.snapshots.known[0].bytes;
        assert_int_equal(told.at[0].done, bytes);
        assert_int_equal(told.at[0].total, bytes + (every == 0 ? bytes : 4 * MR_MIB));
        assert_true(told.at[1].done > bytes && told.at[1].done < told.at[1].total / 2);
        assert_counts_up(&told, 1);
        scene_end(&scene);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_log),
        cmocka_unit_test(of_a_snapshot_and_a_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
