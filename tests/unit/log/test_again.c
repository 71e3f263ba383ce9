/* SPDX-License-Identifier: Apache-2.0 */
/* What snapshots allow: a start that begins in a later segment, segments forgotten and used again, and a look at the
 * log that changes nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/log/batch.h"
#include "engine/log/segment.h"
#include "ipc/planted.h"
#include "millrace/limits.h"
#include "tests/support/log_fixture.h"

enum { BLOCK = 4096 };

static uint64_t random_below(struct log_fixture *fixture, uint64_t limit)
{
    return fake_machine_random(fixture->machine, limit);
}

static void open_log(struct log_fixture *fixture, uint64_t seed, enum durability durability)
{
    log_fixture_init(fixture, seed, durability);
    fixture->config.segment_bytes = 128 * MR_KIB;
    assert_int_equal(log_fixture_open(fixture), 0);
    log_fixture_prepared(fixture);
}

static void reopen(struct log_fixture *fixture)
{
    if (log_fixture_open(fixture) != 0)
        fail_msg("%s", fixture->error.text);
    log_fixture_prepared(fixture);
}

/* Entries until the log has gone on to this many other segments. */
static void fill_segments(struct log_fixture *fixture, unsigned segments)
{
    uint64_t last = log_segment(fixture->log) + segments;
    for (unsigned n = 0; log_segment(fixture->log) < last; n++) {
        assert_true(n < 10000);
        assert_true(log_fixture_append(fixture, 7000));
        log_fixture_settle(fixture);
        log_fixture_prepared(fixture);
    }
}

static unsigned count_files(const struct log_fixture *fixture)
{
    unsigned files = 0;
    while (fake_file_name(fixture->machine, LOG_FIXTURE_PATH, files))
        files++;
    return files;
}

/* The slot in which the file of this segment stands; UINT32_MAX: none. */
static uint32_t find_slot(const struct log_fixture *fixture, uint64_t number, bool *used)
{
    for (uint32_t slot = 0; slot < 100; slot++) {
        char name[SEGMENT_NAME_SIZE];
        uint8_t bytes[SEGMENT_HEADER_BYTES];
        struct segment segment = {.slot = slot};
        struct mr_error error;
        segment_name(name, slot);
        if (fake_file_read(fixture->machine, LOG_FIXTURE_PATH, name, bytes, sizeof bytes, 0) == sizeof bytes &&
            segment_decode(bytes, &segment, &fixture->config, &error) == SEGMENT_SOUND && segment.number == number) {
            *used = segment.used;
            return slot;
        }
    }
    return UINT32_MAX;
}

static void forgotten_segments_are_used_again(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    fill_segments(&fixture, 2);
    assert_int_equal(log_fixture_snapshot(&fixture), 0);
    fill_segments(&fixture, 1);
    assert_int_equal(log_fixture_snapshot(&fixture), 0); /* the first two are free now, in slots 0 and 1 */
    fill_segments(&fixture, 1);
    uint64_t spare = log_segment(fixture.log) + 1;
    bool used;
    assert_int_equal(find_slot(&fixture, spare, &used), 0);
    assert_true(used);
    /* From here on a new segment costs one block written, and no operation on the directory. */
    struct fake_counts before = *fake_machine_counts(fixture.machine);
    fake_machine_fail(fixture.machine, FAKE_ALLOCATE, NULL, 1, UINT64_MAX, ENOSPC);
    unsigned files = count_files(&fixture);
    uint64_t entries = fixture.durable.count, bytes = log_bytes(fixture.log);
    for (unsigned n = 0; n < 20; n++) {
        fill_segments(&fixture, 1);
        assert_int_equal(log_fixture_snapshot(&fixture), 0);
    }
    struct fake_counts *after = fake_machine_counts(fixture.machine);
    assert_int_equal(after->calls[FAKE_SYNC_NOW], before.calls[FAKE_SYNC_NOW]);
    assert_int_equal(after->calls[FAKE_REMOVE], before.calls[FAKE_REMOVE]);
    assert_int_equal(count_files(&fixture), files);
    assert_int_equal(log_bytes(fixture.log), bytes);
    assert_int_equal(bytes, files * fixture.config.segment_bytes);
    uint64_t written = after->calls[FAKE_WRITE] - before.calls[FAKE_WRITE];
    assert_in_range(written, 20 + fixture.durable.count - entries, 41 + 2 * (fixture.durable.count - entries));
    log_fixture_power_cut(&fixture);
    reopen(&fixture);
    assert_true(fixture.replayed < 20);
    log_fixture_free(&fixture);
}

/* A limit is a disk with that much room; of superfluous segments all but one make room for others' bytes. */
static void a_limit_is_kept_to(void **state)
{
    (void)state;
    for (enum durability durability = DURABILITY_SYNC; durability <= DURABILITY_MEMORY; durability += 2) {
        struct log_fixture fixture;
        open_log(&fixture, 1, durability);
        const uint64_t segment = fixture.config.segment_bytes;
        log_limit(fixture.log, 5 * segment, segment / 2);
        while (log_fixture_append(&fixture, 7000))
            log_fixture_settle(&fixture);
        assert_int_equal(log_bytes(fixture.log), 4 * segment);
        assert_non_null(log_trouble(fixture.log));
        assert_non_null(strstr(log_trouble(fixture.log), "(--disk-limit)"));
        assert_true(strlen(log_trouble(fixture.log)) < MR_MESSAGE_MAX);
        assert_true(log_lacks_room(fixture.log));
        log_fixture_idle(&fixture, 3 * MR_SECOND);
        assert_int_equal(log_bytes(fixture.log), 4 * segment);
        /* room elsewhere */
        log_limit(fixture.log, 5 * segment, 0);
        log_fixture_idle(&fixture, 2 * MR_SECOND);
        assert_null(log_trouble(fixture.log));
        fill_segments(&fixture, 1);
        assert_int_equal(log_bytes(fixture.log), 5 * segment);
        /* segments that are not needed any more */
        for (unsigned n = 0; n < 2; n++)
            assert_int_equal(log_fixture_snapshot(&fixture), 0);
        log_fixture_idle(&fixture, 2 * MR_SECOND);
        fill_segments(&fixture, 3);
        assert_true(log_bytes(fixture.log) <= 5 * segment);
        /* others take more than there is: nothing is made, and of those that wait to be used again one is left */
        for (unsigned n = 0; n < 2; n++)
            assert_int_equal(log_fixture_snapshot(&fixture), 0);
        log_limit(fixture.log, 5 * segment, 5 * segment);
        log_fixture_idle(&fixture, 3 * MR_SECOND);
        assert_int_equal(log_bytes(fixture.log), 3 * segment);
        assert_int_equal(log_past_limit(fixture.log), 8 * segment);
        while (log_fixture_append(&fixture, 7000))
            log_fixture_settle(&fixture);
        assert_non_null(log_trouble(fixture.log));
        log_limit(fixture.log, 0, 0);
        log_fixture_idle(&fixture, 2 * MR_SECOND);
        assert_null(log_trouble(fixture.log));
        fill_segments(&fixture, 3);
        log_fixture_crash(&fixture);
        reopen(&fixture);
        log_fixture_free(&fixture);
    }
}

/* As many free ones as are in use and two more stay. */
static void superfluous_segments_are_removed(void **state)
{
    (void)state;
    for (enum durability durability = DURABILITY_SYNC; durability <= DURABILITY_MEMORY; durability += 2) {
        struct log_fixture fixture;
        open_log(&fixture, 1, durability);
        fill_segments(&fixture, 20);
        uint64_t bytes = log_bytes(fixture.log);
        assert_int_equal(bytes, 22 * fixture.config.segment_bytes);
        for (unsigned n = 0; n < 2; n++)
            assert_int_equal(log_fixture_snapshot(&fixture), 0);
        assert_int_equal(log_bytes(fixture.log), bytes); /* not at once: a turn removes one at most */
        log_fixture_turn(&fixture);
        assert_int_equal(log_bytes(fixture.log), bytes - fixture.config.segment_bytes);
        log_fixture_idle(&fixture, MR_SECOND);
        assert_int_equal(log_bytes(fixture.log), 5 * fixture.config.segment_bytes);
        if (durability == DURABILITY_SYNC)
            assert_int_equal(count_files(&fixture), 5);
        fill_segments(&fixture, 10);
        log_fixture_crash(&fixture);
        reopen(&fixture);
        log_fixture_free(&fixture);
    }
}

static void a_free_slot_of_another_size_is_not_used(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    fill_segments(&fixture, 2);
    assert_int_equal(log_fixture_snapshot(&fixture), 0);
    assert_int_equal(log_fixture_close(&fixture), 0);
    fixture.config.segment_bytes = 160 * MR_KIB;
    log_fixture_crash(&fixture);
    reopen(&fixture);
    for (unsigned n = 0; n < 4; n++) {
        fill_segments(&fixture, 2);
        assert_int_equal(log_fixture_snapshot(&fixture), 0);
    }
    log_fixture_idle(&fixture, MR_SECOND);
    for (unsigned n = 0; n < count_files(&fixture); n++)
        assert_int_equal(
            fake_file_size(fixture.machine, LOG_FIXTURE_PATH, fake_file_name(fixture.machine, LOG_FIXTURE_PATH, n)),
            160 * MR_KIB);
    log_fixture_crash(&fixture);
    reopen(&fixture);
    log_fixture_free(&fixture);
}

/* ---- the start ---- */

/* Segments 1 to 4 and a spare; a snapshot that needs the log from segment 3 on. */
static void make_started(struct log_fixture *fixture)
{
    open_log(fixture, 1, DURABILITY_SYNC);
    fill_segments(fixture, 2);
    assert_int_equal(log_fixture_snapshot(fixture), 0);
    fill_segments(fixture, 1);
    log_fixture_idle(fixture, 100 * MR_MILLISECOND);
    log_fixture_crash(fixture);
    assert_int_equal(fixture->segment, 3);
}

static void what_stands_before_the_start_cannot_harm(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 6; way++) {
        struct log_fixture fixture;
        make_started(&fixture);
        struct fake_machine *machine = fixture.machine;
        uint8_t bytes[BLOCK], other[BLOCK];
        static uint8_t zeros[128 * MR_KIB];
        for (uint64_t offset = 0; offset < sizeof bytes; offset++)
            bytes[offset] = (uint8_t)(offset * 37 + 1);
        fake_file_read(machine, LOG_FIXTURE_PATH, "segment-0000", other, sizeof other, 0);
        switch (way) {
        case 0: /* one slot's header is unsound */
            fake_file_flip(machine, LOG_FIXTURE_PATH, "segment-0001", 45, 1);
            break;
        case 1: /* batches are damaged */
            fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0000", bytes, sizeof bytes, 2 * BLOCK);
            fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0001", bytes, sizeof bytes, BLOCK);
            break;
        case 2: /* gone */
            fake_file_remove(machine, LOG_FIXTURE_PATH, "segment-0000");
            fake_file_truncate(machine, LOG_FIXTURE_PATH, "segment-0001", 0);
            break;
        case 3: /* only zeros, only noise */
            fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0000", zeros, sizeof zeros, 0);
            fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0001", bytes, sizeof bytes, 0);
            break;
        case 4: /* a copy of the other one, with its number */
            fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0001", other, sizeof other, 0);
            break;
        default: /* another version's byte, damaged */
            fake_file_flip(machine, LOG_FIXTURE_PATH, "segment-0001", 8, 2);
            break;
        }
        reopen(&fixture);
        fill_segments(&fixture, 1);
        assert_int_equal(log_fixture_snapshot(&fixture), 0);
        fill_segments(&fixture, 4);
        log_fixture_power_cut(&fixture);
        reopen(&fixture);
        log_fixture_free(&fixture);
    }
}

static void expect_error(struct log_fixture *fixture, const char *one, const char *other)
{
    assert_int_equal(log_fixture_open(fixture), -1);
    if (!strstr(fixture->error.text, one) || !strstr(fixture->error.text, other))
        fail_msg("%s", fixture->error.text);
    assert_int_equal(fixture->error.code, 0);
    log_fixture_free(fixture);
}

static void a_missing_beginning_is_damage(void **state)
{
    (void)state;
    struct log_fixture fixture;
    make_started(&fixture);
    fake_file_remove(fixture.machine, LOG_FIXTURE_PATH, "segment-0002");
    expect_error(&fixture, "segment 3 of the log in /data/1 is missing", "Restore");
    make_started(&fixture);
    fake_file_flip(fixture.machine, LOG_FIXTURE_PATH, "segment-0002", 25, 0);
    expect_error(&fixture, "segment-0002 is damaged at offset 0", "it was segment 3");
    make_started(&fixture);
    fake_file_truncate(fixture.machine, LOG_FIXTURE_PATH, "segment-0002", 0);
    expect_error(&fixture, "segment 3 of the log in /data/1 is missing", "damaged at offset 0 of segment-0002");
    make_started(&fixture); /* its first batch: what follows shows it */
    fake_file_flip(fixture.machine, LOG_FIXTURE_PATH, "segment-0002", BLOCK + 60, 0);
    expect_error(&fixture, "segment-0002 is damaged at offset 4096", "was durable");
    make_started(&fixture); /* everything behind its header */
    for (unsigned slot = 2; slot < 4; slot++) {
        static uint8_t zeros[127 * MR_KIB];
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, slot);
        fake_file_write(fixture.machine, LOG_FIXTURE_PATH, name, zeros, sizeof zeros - 3 * MR_KIB, BLOCK);
    }
    expect_error(&fixture, "segment-0002 is damaged at offset 4096", "the log begins there");
    make_started(&fixture); /* a start in the middle of nowhere */
    fixture.segment = 2;
    fixture.after = 3;
    expect_error(&fixture, "begins with segment-0001 at index", "entries from index 4");
    make_started(&fixture);
    fixture.after = 1000;
    expect_error(&fixture, "ends at index", "in segment-0003 at offset");
}

/* ---- dying ---- */

static void work(struct log_fixture *fixture, unsigned turns)
{
    struct fake_config *config = fixture->machine ? fake_machine_config(fixture->machine) : NULL;
    for (unsigned n = 0; n < turns; n++) {
        for (uint64_t entries = random_below(fixture, 5); entries > 0; entries--)
            if (!log_fixture_append(fixture, (uint32_t)random_below(fixture, random_below(fixture, 2) ? 9000 : 300)))
                break;
        config->fail_ppm[FAKE_WRITE] = random_below(fixture, 30) == 0 ? 200000 : 0;
        log_fixture_turn(fixture);
        fixture->io->ops->sleep(fixture->io, random_below(fixture, 2 * MR_MILLISECOND));
        if (random_below(fixture, 12) == 0)
            (void)log_fixture_snapshot(fixture);
        if (random_below(fixture, 40) == 0)
            log_fixture_idle(fixture, random_below(fixture, 3) == 0 ? 2 * MR_SECOND : 30 * MR_MILLISECOND);
    }
    fake_machine_heal(fixture->machine);
}

/* Each seed: work with snapshots, and die in one way or the other, eight times over. */
static void die_often(enum durability durability, uint64_t seeds)
{
    uint64_t again = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct log_fixture fixture;
        log_fixture_init(&fixture, seed, durability);
        fixture.config.segment_bytes = 84 * MR_KIB;
        struct fake_config *config = fake_machine_config(fixture.machine);
        config->order = FAKE_ANY_ORDER;
        config->delay_min = 50 * MR_MICROSECOND;
        config->delay_max = 500 * MR_MICROSECOND;
        for (unsigned round = 0; round < 8; round++) {
            if (log_fixture_open(&fixture) != 0)
                fail_msg("seed %llu, round %u: %s", (unsigned long long)seed, round, fixture.error.text);
            fixture.may_lose = 0;
            work(&fixture, (unsigned)random_below(&fixture, 100));
            log_submit(fixture.log, false);
            if (random_below(&fixture, 8) == 0 && log_trouble(fixture.log) == NULL)
                (void)log_fixture_close(&fixture);
            again += fixture.segment > 3;
            if (durability != DURABILITY_MEMORY && random_below(&fixture, 2) == 0) {
                if (durability == DURABILITY_ASYNC)
                    fixture.may_lose = fixture.durable.count - (unsigned)fixture.after;
                log_fixture_power_cut(&fixture);
            } else {
                log_fixture_crash(&fixture);
            }
        }
        if (log_fixture_open(&fixture) != 0)
            fail_msg("seed %llu: %s", (unsigned long long)seed, fixture.error.text);
        log_fixture_free(&fixture);
    }
    assert_true(again > seeds);
}

static void nothing_is_lost_in_sync(void **state)
{
    (void)state;
    die_often(DURABILITY_SYNC, 100);
}

static void nothing_before_a_snapshot_is_lost_in_async(void **state)
{
    (void)state;
    die_often(DURABILITY_ASYNC, 100);
}

static void nothing_is_lost_in_memory(void **state)
{
    (void)state;
    die_often(DURABILITY_MEMORY, 40);
}

/* ---- stale batches ---- */

static int count_entry(void *context, const struct log_entry *entry, struct mr_error *error)
{
    (void)entry;
    (void)error;
    ++*(uint64_t *)context;
    return 0;
}

/* The number of entries that can be read; -1: an error. */
static int64_t entries_read(struct log_fixture *fixture)
{
    uint64_t entries = 0;
    struct log_recovery report;
    struct log_start start = {.index = fixture->after, .segment = fixture->segment};
    fixture->config.io = fixture->io;
    if (log_read(&fixture->config, &start, count_entry, &entries, &report, &fixture->error) != 0)
        return -1;
    assert_int_equal(report.entries, entries);
    assert_int_equal(report.torn_batches, 0);
    return (int64_t)entries;
}

/* Slot 0 begins with a stale batch, the first of the log's first epoch: taken for the spare's own, it would cut off
 * everything. */
static void stale_batches_are_not_believed(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    fill_segments(&fixture, 2);
    assert_int_equal(log_fixture_snapshot(&fixture), 0);
    assert_int_equal(log_fixture_snapshot(&fixture), 0);
    fill_segments(&fixture, 1);
    bool used = false;
    assert_int_equal(find_slot(&fixture, log_segment(fixture.log) + 1, &used), 0);
    assert_true(used);
    log_fixture_idle(&fixture, 100 * MR_MILLISECOND);
    log_fixture_crash(&fixture);
    int64_t entries = fixture.durable.count - (int64_t)fixture.after;
    assert_true(entries > 0);
    assert_int_equal(entries_read(&fixture), entries);
    planted_fault = PLANTED_STALE_BATCH_BELIEVED;
    int64_t with_fault = entries_read(&fixture);
    planted_fault = PLANTED_NOTHING;
    assert_int_not_equal(with_fault, entries);
    reopen(&fixture);
    log_fixture_free(&fixture);
}

/* A torn end in a segment that was used before: what was written is counted and wiped, what was there is neither. */
static void a_torn_end_among_stale_batches_is_counted_once(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    fill_segments(&fixture, 2);
    assert_int_equal(log_fixture_snapshot(&fixture), 0);
    assert_int_equal(log_fixture_snapshot(&fixture), 0);
    fill_segments(&fixture, 2); /* into slot 0 */
    bool used = false;
    assert_int_equal(find_slot(&fixture, log_segment(fixture.log), &used), 0);
    assert_true(used);
    struct fake_config *config = fake_machine_config(fixture.machine);
    config->order = FAKE_MANUAL;
    for (unsigned n = 0; n < 3; n++)
        assert_true(log_fixture_append(&fixture, 6000));
    log_submit(fixture.log, false);
    assert_true(fake_io_finish(fixture.io, 1));
    config->power_cut = FAKE_LOSE;
    log_fixture_power_cut(&fixture);
    config->order = FAKE_AT_ONCE;
    uint64_t written = fake_machine_counts(fixture.machine)->bytes_written;
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.torn_batches, 1);
    assert_int_equal(fixture.report.torn_bytes, 128 + 32 + 6000);
    /* The epoch's block; zeros to the end of the torn batch, which are two blocks more than where it began. */
    assert_in_range(fake_machine_counts(fixture.machine)->bytes_written - written, 1, 6 * BLOCK);
    log_fixture_crash(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.torn_batches, 0);
    log_fixture_free(&fixture);
}

/* ---- looking ---- */

static void reading_changes_nothing(void **state)
{
    (void)state;
    struct log_fixture fixture;
    make_started(&fixture);
    struct fake_counts before = *fake_machine_counts(fixture.machine);
    int64_t entries = entries_read(&fixture);
    assert_int_equal(entries, fixture.durable.count - fixture.after);
    static const enum fake_call none[] = {FAKE_WRITE,    FAKE_SYNC,   FAKE_LOCK,  FAKE_ALLOCATE,
                                          FAKE_SYNC_NOW, FAKE_RENAME, FAKE_REMOVE};
    const struct fake_counts *after = fake_machine_counts(fixture.machine);
    for (unsigned n = 0; n < sizeof none / sizeof *none; n++)
        assert_int_equal(after->calls[none[n]], before.calls[none[n]]);
    struct log_recovery report;
    struct log_start start = {.index = fixture.after, .segment = fixture.segment};
    assert_int_equal(log_read(&fixture.config, &start, NULL, NULL, &report, &fixture.error), 0);
    assert_int_equal(report.epoch, 1);
    assert_int_equal(report.last_index, fixture.durable.count);
    assert_true(report.bytes > (uint64_t)entries * 7000);
    /* The same is what a start says. */
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.entries, entries);
    assert_int_equal(fixture.report.bytes, report.bytes);
    assert_int_equal(log_grown(fixture.log), report.bytes);
    assert_true(log_fixture_append(&fixture, 1000));
    log_fixture_settle(&fixture);
    assert_int_equal(log_grown(fixture.log), report.bytes + 4096);
    log_fixture_idle(&fixture, MR_SECOND);
    assert_int_equal(log_grown(fixture.log), report.bytes + 4096);
    log_fixture_free(&fixture);
    /* An empty folder has nothing, and keeps it. */
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    assert_int_equal(entries_read(&fixture), 0);
    assert_int_equal(count_files(&fixture), 0);
    log_fixture_free(&fixture);
}

/* ---- what a flush for a snapshot covers ---- */

static void a_flush_for_a_snapshot_makes_async_durable(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_ASYNC);
    fixture.config.flush_interval = MR_FLUSH_INTERVAL_MAX;
    fake_machine_config(fixture.machine)->power_cut = FAKE_LOSE;
    for (unsigned n = 0; n < 40; n++) {
        assert_true(log_fixture_append(&fixture, 8000));
        log_fixture_settle(&fixture);
    }
    fake_machine_fail(fixture.machine, FAKE_SYNC_NOW, NULL, 1, 1, EIO);
    assert_int_equal(log_fixture_snapshot(&fixture), -1);
    assert_non_null(strstr(fixture.error.text, "cannot flush /data/1/segment-00"));
    assert_int_equal(log_fixture_snapshot(&fixture), 0);
    log_fixture_power_cut(&fixture);
    reopen(&fixture);
    assert_int_equal(fixture.durable.count, 40);
    log_fixture_free(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forgotten_segments_are_used_again),
        cmocka_unit_test(superfluous_segments_are_removed),
        cmocka_unit_test(a_limit_is_kept_to),
        cmocka_unit_test(a_free_slot_of_another_size_is_not_used),
        cmocka_unit_test(what_stands_before_the_start_cannot_harm),
        cmocka_unit_test(a_missing_beginning_is_damage),
        cmocka_unit_test(nothing_is_lost_in_sync),
        cmocka_unit_test(nothing_before_a_snapshot_is_lost_in_async),
        cmocka_unit_test(nothing_is_lost_in_memory),
        cmocka_unit_test(stale_batches_are_not_believed),
        cmocka_unit_test(a_torn_end_among_stale_batches_is_counted_once),
        cmocka_unit_test(reading_changes_nothing),
        cmocka_unit_test(a_flush_for_a_snapshot_makes_async_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
