/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that fails or is full: entries of a failed write are given back, once and for ever, and the log goes on. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "millrace/limits.h"
#include "tests/support/log_fixture.h"

static void open_log(struct log_fixture *fixture, uint64_t seed, enum durability durability)
{
    log_fixture_init(fixture, seed, durability);
    assert_int_equal(log_fixture_open(fixture), 0);
    log_fixture_prepared(fixture);
}

static void append(struct log_fixture *fixture, unsigned count, uint32_t size)
{
    for (unsigned n = 0; n < count; n++)
        assert_true(log_fixture_append(fixture, size));
}

/* The middle one of three writes in flight fails; the one behind it lands whole. */
static void a_failed_write_gives_its_entries_back(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    struct fake_config *config = fake_machine_config(fixture.machine);
    append(&fixture, 1, 100);
    log_fixture_settle(&fixture);
    config->order = FAKE_MANUAL;
    fake_machine_fail(fixture.machine, FAKE_WRITE, "segment-0000", 2, 1, EIO);
    append(&fixture, 4, 6000);
    log_submit(fixture.log, false);
    assert_int_equal(fake_io_in_flight(fixture.io), 3);
    assert_true(fake_io_finish(fixture.io, 2));
    assert_true(fake_io_finish(fixture.io, 1));
    log_fixture_complete(&fixture);
    /* All in flight are waited for; meanwhile nothing is accepted, and nothing is said of the failed ones. */
    assert_non_null(log_trouble(fixture.log));
    assert_non_null(strstr(log_trouble(fixture.log), "segment-0000 at offset"));
    assert_null(log_reserve(fixture.log, 1));
    assert_false(log_mark(fixture.log, fixture.time));
    assert_int_equal(log_fixture_take(&fixture), 0);
    assert_true(fake_io_finish(fixture.io, 0));
    log_fixture_complete(&fixture);
    assert_int_equal(log_fixture_take(&fixture), 1); /* the first one is good */
    assert_int_equal(fixture.failed, 0);
    /* Now the new epoch is being written; the failed ones are given back when it is durable. */
    struct fake_operation operation;
    assert_int_equal(fake_io_in_flight(fixture.io), 1);
    assert_true(fake_io_operation(fixture.io, 0, &operation));
    assert_string_equal(operation.name, "segment-0001");
    assert_true(operation.durable);
    assert_true(log_in_flight(fixture.log));
    assert_non_null(log_trouble(fixture.log));
    assert_true(fake_io_finish(fixture.io, 0));
    log_fixture_complete(&fixture);
    assert_null(log_trouble(fixture.log));
    assert_int_equal(log_fixture_take(&fixture), 3);
    assert_int_equal(fixture.failed, 3);
    assert_int_equal(fixture.durable.count, 2);
    config->order = FAKE_AT_ONCE;
    fake_io_finish_all(fixture.io);
    append(&fixture, 3, 200);
    log_fixture_settle(&fixture);
    log_fixture_power_cut(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.replayed, 5);
    assert_non_null(strstr(fixture.notices, "3 entries that were not durable are refused"));
    log_fixture_free(&fixture);
}

/* The new epoch cannot be written either, several times. Until it is, the failed entries stay unanswered. */
static void the_new_epoch_may_fail_too(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    append(&fixture, 2, 100);
    log_fixture_settle(&fixture);
    fake_machine_fail(fixture.machine, FAKE_WRITE, NULL, 1, UINT64_MAX, EIO);
    append(&fixture, 3, 6000);
    log_fixture_idle(&fixture, 5 * MR_SECOND);
    assert_int_equal(fixture.pending.count, 3);
    assert_int_equal(fixture.failed, 0);
    assert_non_null(log_trouble(fixture.log));
    assert_null(log_reserve(fixture.log, 1));
    fake_machine_heal(fixture.machine);
    log_fixture_settle(&fixture);
    assert_int_equal(fixture.failed, 3);
    assert_null(log_trouble(fixture.log));
    append(&fixture, 5, 100);
    log_fixture_settle(&fixture);
    log_fixture_crash(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.replayed, 7);
    /* Files of spares that did not work are not left behind. */
    unsigned files = 0;
    while (fake_file_name(fixture.machine, LOG_FIXTURE_PATH, files))
        files++;
    assert_in_range(files, 2, 3);
    log_fixture_free(&fixture);
}

/* It dies while it is in trouble: whatever was on the disk, nothing that was given back comes again. */
static void deaths_in_trouble(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct log_fixture fixture;
        log_fixture_init(&fixture, seed, seed % 3 == 0 ? DURABILITY_ASYNC : DURABILITY_SYNC);
        struct fake_config *config = fake_machine_config(fixture.machine);
        config->delay_min = 50 * MR_MICROSECOND;
        config->delay_max = 500 * MR_MICROSECOND;
        for (unsigned round = 0; round < 4; round++) {
            assert_int_equal(log_fixture_open(&fixture), 0);
            config->order = FAKE_ANY_ORDER;
            for (unsigned turn = 0; turn < 40; turn++) {
                if (turn % 10 == 5)
                    config->fail_ppm[FAKE_WRITE] = 100000;
                if (turn % 10 == 9)
                    config->fail_ppm[FAKE_WRITE] = 0;
                for (uint64_t n = fake_machine_random(fixture.machine, 4); n > 0; n--)
                    if (!log_fixture_append(&fixture, (uint32_t)fake_machine_random(fixture.machine, 9000)))
                        break;
                log_fixture_turn(&fixture);
                fixture.io->ops->sleep(fixture.io, fake_machine_random(fixture.machine, MR_MILLISECOND));
                if (fake_machine_random(fixture.machine, 8) == 0)
                    log_fixture_idle(&fixture, 2 * MR_SECOND);
            }
            fake_machine_heal(fixture.machine);
            failed += fixture.failed;
            fixture.failed = 0;
            if (fake_machine_random(fixture.machine, 2) == 0)
                log_fixture_settle(&fixture);
            if (fixture.config.durability == DURABILITY_SYNC && round % 2 == 0)
                log_fixture_power_cut(&fixture);
            else
                log_fixture_crash(&fixture);
        }
        assert_int_equal(log_fixture_open(&fixture), 0);
        log_fixture_free(&fixture);
    }
    assert_true(failed > 1000);
}

/* No room for a spare: the log goes on until the segment is full, says why it stops, and goes on when there is room. */
static void a_full_disk_stops_the_log_at_the_segments_end(void **state)
{
    (void)state;
    struct log_fixture fixture;
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    struct fake_config *config = fake_machine_config(fixture.machine);
    config->space = fixture.config.segment_bytes + 64 * MR_KIB;
    assert_int_equal(log_fixture_open(&fixture), 0);
    log_fixture_idle(&fixture, 3 * MR_SECOND);
    assert_null(log_trouble(fixture.log));
    assert_non_null(strstr(fixture.notices, "no space for a new segment"));
    unsigned taken = 0;
    for (; log_fixture_append(&fixture, 3500); taken++)
        log_fixture_settle(&fixture);
    assert_int_equal(taken, 62); /* 64 blocks, less the header's and the epoch's */
    assert_non_null(log_trouble(fixture.log));
    assert_non_null(strstr(log_trouble(fixture.log), "no space for a new segment of 262144 bytes"));
    assert_non_null(strstr(log_trouble(fixture.log), strerror(ENOSPC)));
    log_fixture_idle(&fixture, 3 * MR_SECOND);
    assert_false(log_fixture_append(&fixture, 1));
    assert_in_range(fixture.due, 1, fixture.io->ops->monotonic(fixture.io) + MR_SECOND);
    config->space = UINT64_MAX;
    log_fixture_idle(&fixture, 2 * MR_SECOND);
    assert_null(log_trouble(fixture.log));
    append(&fixture, 3, 3500);
    log_fixture_settle(&fixture);
    assert_int_equal(fixture.failed, 0);
    assert_non_null(strstr(fixture.notices, "room for a new segment again"));
    log_fixture_power_cut(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.replayed, taken + 3);
    log_fixture_free(&fixture);
}

/* A failed write on a full disk: entries stay with the log until there is room for the epoch's segment. */
static void a_failed_write_waits_for_room(void **state)
{
    (void)state;
    struct log_fixture fixture;
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    struct fake_config *config = fake_machine_config(fixture.machine);
    config->space = fixture.config.segment_bytes + 64 * MR_KIB;
    assert_int_equal(log_fixture_open(&fixture), 0);
    log_fixture_idle(&fixture, MR_MILLISECOND);
    fake_machine_fail(fixture.machine, FAKE_WRITE, NULL, 1, 1, EIO);
    append(&fixture, 2, 100);
    log_fixture_idle(&fixture, 3 * MR_SECOND);
    assert_int_equal(fixture.pending.count, 2);
    config->space = UINT64_MAX;
    log_fixture_settle(&fixture);
    assert_int_equal(fixture.failed, 2);
    append(&fixture, 2, 100);
    log_fixture_settle(&fixture);
    assert_int_equal(fixture.failed, 2);
    log_fixture_free(&fixture);
}

static void a_failed_flush_stops_the_log_until_one_succeeds(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_ASYNC);
    fake_machine_fail(fixture.machine, FAKE_SYNC, "segment-0000", 1, 3, EIO);
    append(&fixture, 2, 100);
    log_fixture_settle(&fixture); /* written, which is all that is asked for */
    log_fixture_idle(&fixture, 20 * MR_MILLISECOND);
    assert_non_null(log_trouble(fixture.log));
    assert_non_null(strstr(log_trouble(fixture.log), "flushing"));
    assert_false(log_fixture_append(&fixture, 1));
    log_fixture_idle(&fixture, 4 * MR_SECOND);
    assert_null(log_trouble(fixture.log));
    append(&fixture, 2, 100);
    log_fixture_settle(&fixture);
    assert_int_equal(log_fixture_close(&fixture), 0);
    log_fixture_crash(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.replayed, 4);
    log_fixture_free(&fixture);
}

static void closing_in_trouble_says_so(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    append(&fixture, 1, 100);
    log_fixture_settle(&fixture);
    append(&fixture, 1, 100);
    fake_machine_fail(fixture.machine, FAKE_WRITE, NULL, 1, UINT64_MAX, EIO);
    assert_int_equal(log_fixture_close(&fixture), -1);
    assert_non_null(strstr(fixture.error.text, "a write to"));
    fake_machine_heal(fixture.machine);
    log_fixture_crash(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0);
    log_fixture_free(&fixture);
}

/* Each call of a start fails once: the start fails with a message, or goes well; the next one goes well. */
static void a_start_fails_cleanly(void **state)
{
    (void)state;
    static const enum fake_call calls[] = {FAKE_WRITE,    FAKE_SYNC,     FAKE_OPEN_DIRECTORY, FAKE_LIST,
                                           FAKE_OPEN,     FAKE_LOCK,     FAKE_SIZE,           FAKE_READ,
                                           FAKE_ALLOCATE, FAKE_SYNC_NOW, FAKE_REMOVE};
    unsigned failures = 0;
    for (unsigned kind = 0; kind < sizeof calls / sizeof *calls; kind++)
        for (uint64_t nth = 1; nth <= 8; nth++)
            for (unsigned fresh = 0; fresh < 2; fresh++) {
                struct log_fixture fixture;
                log_fixture_init(&fixture, nth, DURABILITY_SYNC);
                if (!fresh) {
                    assert_int_equal(log_fixture_open(&fixture), 0);
                    append(&fixture, 3, 3000);
                    log_submit(fixture.log, false);
                    log_fixture_complete(&fixture);
                    log_fixture_take(&fixture);
                    log_fixture_crash(&fixture);
                }
                fake_machine_fail(fixture.machine, calls[kind], NULL, nth, 1,
                                  calls[kind] == FAKE_ALLOCATE ? ENOSPC : EIO);
                bool opened = log_fixture_open(&fixture) == 0;
                failures += !opened;
                if (!opened)
                    assert_non_null(strstr(fixture.error.text, LOG_FIXTURE_PATH));
                fake_machine_heal(fixture.machine);
                log_fixture_crash(&fixture);
                assert_int_equal(log_fixture_open(&fixture), 0);
                append(&fixture, 1, 100);
                log_fixture_settle(&fixture);
                log_fixture_power_cut(&fixture);
                assert_int_equal(log_fixture_open(&fixture), 0);
                log_fixture_free(&fixture);
            }
    assert_true(failures > 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_write_gives_its_entries_back),
        cmocka_unit_test(the_new_epoch_may_fail_too),
        cmocka_unit_test(deaths_in_trouble),
        cmocka_unit_test(a_full_disk_stops_the_log_at_the_segments_end),
        cmocka_unit_test(a_failed_write_waits_for_room),
        cmocka_unit_test(a_failed_flush_stops_the_log_until_one_succeeds),
        cmocka_unit_test(closing_in_trouble_says_so),
        cmocka_unit_test(a_start_fails_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
