/* SPDX-License-Identifier: Apache-2.0 */
/* Which snapshot a start goes by, on a machine in memory: one that is damaged is passed over, one that can only not be
 * read just now is no damage, and without a sound one the log's beginning has to be there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "tests/support/snapshot_scene.h"

static void flip(struct harness *harness, const char *name)
{
    fake_file_flip(harness->machine, PARTITION_FOLDER, name, 100, 3);
}

static void a_damaged_one_is_passed_over_and_told(void **state)
{
    struct scene scene;
    char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE];

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    for (unsigned i = 0; i < 3; i++) {
        snapshot_scene_puts(&scene, 200);
        assert_true(harness_snapshot(scene.harness));
    }
    snapshot_scene_puts(&scene, 3);
    assert_int_equal(snapshot_names(scene.harness, names), 2);
    struct state_dump before = state_dump(scene.harness);
    flip(scene.harness, names[1]);
    snapshot_scene_restart(&scene);
    assert_same_state(scene.harness, &before);
    assert_int_equal(scene.harness->warnings, 1);
    assert_non_null(strstr(scene.harness->warning, names[1]));
    assert_non_null(strstr(scene.harness->warning, "offset"));
    assert_int_equal(scene.harness->worker.snapshots.known_count, 1);
    /* the next one takes its place, not that of the sound one */
    char sound[SNAPSHOT_NAME_SIZE];
    strcpy(sound, names[0]);
    snapshot_scene_puts(&scene, 5);
    assert_true(harness_snapshot(scene.harness));
    assert_int_equal(snapshot_names(scene.harness, names), 2);
    assert_string_equal(names[0], sound);
    before = state_dump(scene.harness);
    flip(scene.harness, names[1]);
    snapshot_scene_restart(&scene);
    assert_same_state(scene.harness, &before);
    scene_end(&scene);
}

static void without_a_sound_one_and_the_beginning_it_is_stopped(void **state)
{
    struct scene scene;
    char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE];

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    snapshot_scene_puts(&scene, 20);
    assert_true(harness_snapshot(scene.harness));
    /* with the beginning of the log still there the damage does no harm */
    struct state_dump before = state_dump(scene.harness);
    assert_int_equal(snapshot_names(scene.harness, names), 1);
    flip(scene.harness, names[0]);
    snapshot_scene_restart(&scene);
    assert_same_state(scene.harness, &before);
    for (unsigned i = 0; i < 4; i++) {
        snapshot_scene_puts(&scene, 400);
        assert_true(harness_snapshot(scene.harness));
    }
    snapshot_scene_puts(&scene, 400); /* the first segments are used again by now */
    assert_int_equal(snapshot_names(scene.harness, names), 2);
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
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    snapshot_scene_puts(&scene, 20);
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

/* Whatever the kernel calls it. */
static void one_that_the_medium_does_not_give_is_passed_over(void **state)
{
    static const int codes[] = {EIO, ENODATA, EILSEQ, EUCLEAN, EBADMSG};
    struct scene scene;
    char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE];

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    for (unsigned i = 0; i < 2; i++) {
        snapshot_scene_puts(&scene, 20);
        assert_true(harness_snapshot(scene.harness));
    }
    assert_int_equal(snapshot_names(scene.harness, names), 2);
    for (unsigned n = 0; n < sizeof(codes) / sizeof(*codes); n++) {
        struct state_dump before = state_dump(scene.harness);
        unsigned warnings = scene.harness->warnings;
        fake_machine_fail(scene.harness->machine, FAKE_READ, names[1], 1, UINT64_MAX, codes[n]);
        snapshot_scene_restart(&scene);
        assert_same_state(scene.harness, &before);
        assert_int_equal(scene.harness->warnings, warnings + 1);
        assert_non_null(strstr(scene.harness->warning, names[1]));
        assert_int_equal(scene.harness->worker.snapshots.known_count, 1);
        fake_machine_heal(scene.harness->machine);
    }
    scene_end(&scene);
}

/* The segment with this number. */
static const char *segment_of(const struct harness *harness, uint64_t number)
{
    const char *name;
    uint64_t found;

    for (unsigned n = 0; (name = fake_file_name(harness->machine, PARTITION_FOLDER, n)) != NULL; n++)
        if (strncmp(name, "segment-", 8) == 0 &&
            fake_file_read(harness->machine, PARTITION_FOLDER, name, &found, sizeof(found), 24) == sizeof(found) &&
            found == number)
            break;
    return name;
}

/* What is wrong with the log behind an old snapshot is no damage while a newer one may only not be read just now: that
 * log may have been given up, piece by piece. */
static void an_old_one_is_no_proof_of_damage_while_a_newer_cannot_be_read(void **state)
{
    struct scene scene;
    char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE];

    (void)state;
    snapshot_scene_begin(&scene, DURABILITY_SYNC, 0);
    for (unsigned i = 0; i < 4; i++) {
        snapshot_scene_puts(&scene, 400);
        assert_true(harness_snapshot(scene.harness));
    }
    assert_int_equal(snapshot_names(scene.harness, names), 2);
    struct state_dump before = state_dump(scene.harness);
    const struct known_snapshot *known = scene.harness->worker.snapshots.known;
    assert_true(known[0].point.segment > known[1].point.segment + 1);
    const char *between = segment_of(scene.harness, known[1].point.segment + 1);
    harness_kill(scene.harness);
    fake_file_flip(scene.harness->machine, PARTITION_FOLDER, between, 4096 + 200, 3);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_one_is_passed_over_and_told),
        cmocka_unit_test(without_a_sound_one_and_the_beginning_it_is_stopped),
        cmocka_unit_test(a_disk_that_cannot_be_read_is_no_damage),
        cmocka_unit_test(one_that_the_medium_does_not_give_is_passed_over),
        cmocka_unit_test(an_old_one_is_no_proof_of_damage_while_a_newer_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
