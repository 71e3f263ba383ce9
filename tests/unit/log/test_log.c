/* SPDX-License-Identifier: Apache-2.0 */
/* The log while all goes well: what goes in comes out, in order, once it is durable; when writes start; what a start
 * and an idle log cost. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/log/batch.h"
#include "millrace/limits.h"
#include "tests/support/log_fixture.h"

enum { BLOCK = 4096 };

static void open_log(struct log_fixture *fixture, uint64_t seed, enum durability durability)
{
    log_fixture_init(fixture, seed, durability);
    assert_int_equal(log_fixture_open(fixture), 0);
    assert_string_equal(fixture->notices, "");
}

static void reopen(struct log_fixture *fixture)
{
    uint64_t epoch = fixture->report.epoch;
    assert_int_equal(log_fixture_open(fixture), 0);
    assert_true(fixture->report.epoch > epoch);
    assert_int_equal(fixture->report.torn_batches, 0);
}

static void append(struct log_fixture *fixture, uint32_t size)
{
    for (unsigned tries = 0; !log_fixture_append(fixture, size); tries++) {
        assert_true(tries < 1000);
        log_fixture_turn(fixture);
        fixture->io->ops->sleep(fixture->io, MR_MILLISECOND);
    }
}

/* In each durability: sizes around those of a block, a batch and the largest body, alone and many together, over
 * several segments, with restarts between. */
static void all_sizes_come_back(void **state)
{
    (void)state;
    static const uint32_t around[] = {0, 8, BLOCK - 160, BLOCK, 8192 - 160, 8192, 16384 - 24};
    for (enum durability durability = DURABILITY_SYNC; durability <= DURABILITY_MEMORY; durability++) {
        struct log_fixture fixture;
        open_log(&fixture, 1, durability);
        for (unsigned n = 0; n < sizeof around / sizeof *around; n++)
            for (uint32_t size = around[n] > 20 ? around[n] - 20 : 0; size <= around[n] + 20; size++) {
                append(&fixture, size < 16384 ? size : 16384);
                if (size % 3 == 0)
                    log_fixture_settle(&fixture);
            }
        log_fixture_settle(&fixture);
        assert_int_equal(log_fixture_close(&fixture), 0);
        reopen(&fixture);
        assert_int_equal(fixture.replayed, fixture.durable.count);
        assert_true(log_bytes(fixture.log) > 4 * fixture.config.segment_bytes);
        for (uint32_t size = 0; size < 16384; size += 501)
            append(&fixture, size);
        log_fixture_settle(&fixture);
        if (durability == DURABILITY_MEMORY)
            log_fixture_crash(&fixture);
        else
            log_fixture_power_cut(&fixture);
        fixture.may_lose = durability == DURABILITY_ASYNC ? 100 : 0;
        assert_int_equal(log_fixture_open(&fixture), 0);
        log_fixture_free(&fixture);
    }
}

static void only_entries_after_the_given_index_are_replayed(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    for (unsigned n = 0; n < 50; n++)
        append(&fixture, 300);
    log_fixture_settle(&fixture);
    assert_int_equal(log_fixture_close(&fixture), 0);
    fixture.after = 31;
    reopen(&fixture);
    assert_int_equal(fixture.replayed, 19);
    log_fixture_crash(&fixture);
    fixture.after = 51;
    fixture.config.io = fixture.io;
    assert_int_equal(log_fixture_open(&fixture), -1);
    assert_non_null(strstr(fixture.error.text, "ends at index 50"));
    log_fixture_free(&fixture);
}

static int stop_at_five(void *context, const struct log_entry *entry, struct mr_error *error)
{
    (void)context;
    return entry->index == 5 ? error_set(error, "five") : 0;
}

static void a_replay_can_stop_the_opening(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    for (unsigned n = 0; n < 10; n++)
        append(&fixture, 10);
    log_fixture_settle(&fixture);
    assert_int_equal(log_fixture_close(&fixture), 0);
    struct log_recovery report;
    struct log *log;
    fixture.config.io = fixture.io;
    assert_int_equal(
        log_open(&fixture.config, &(struct log_start){0}, stop_at_five, NULL, &report, &log, &fixture.error), -1);
    assert_string_equal(fixture.error.text, "five");
    reopen(&fixture);
    log_fixture_free(&fixture);
}

static void nothing_is_handed_out_before_it_is_durable_and_in_order(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    log_fixture_prepared(&fixture);
    fake_machine_config(fixture.machine)->order = FAKE_MANUAL;
    append(&fixture, 100);
    log_submit(fixture.log, false);
    for (unsigned n = 0; n < 3; n++) /* each fills a batch; the last one's can still grow */
        append(&fixture, 7000);
    log_submit(fixture.log, false);
    assert_int_equal(fake_io_in_flight(fixture.io), 3);
    assert_true(log_in_flight(fixture.log));
    assert_int_equal(log_fixture_take(&fixture), 0);
    assert_true(fake_io_finish(fixture.io, 2)); /* the third before the first */
    log_fixture_complete(&fixture);
    assert_int_equal(log_fixture_take(&fixture), 0);
    assert_int_equal(log_durable_index(fixture.log), 0);
    assert_true(fake_io_finish(fixture.io, 0));
    log_fixture_complete(&fixture);
    assert_int_equal(log_fixture_take(&fixture), 1);
    assert_int_equal(log_durable_index(fixture.log), 1);
    assert_true(fake_io_finish(fixture.io, 0));
    log_fixture_complete(&fixture);
    assert_int_equal(log_fixture_take(&fixture), 2);
    log_submit(fixture.log, false);
    fake_io_finish_all(fixture.io);
    log_fixture_complete(&fixture);
    assert_int_equal(log_fixture_take(&fixture), 1);
    log_fixture_free(&fixture);
}

/* Batches of the size that users have, and writes that end when the test says so. */
static void open_by_hand(struct log_fixture *fixture)
{
    log_fixture_init(fixture, 1, DURABILITY_SYNC);
    fixture->config.batch_bytes = 256 * MR_KIB;
    fixture->config.segment_bytes = 8 * MR_MIB;
    assert_int_equal(log_fixture_open(fixture), 0);
    log_fixture_prepared(fixture);
    fake_machine_config(fixture->machine)->order = FAKE_MANUAL;
}

/* Nothing in flight: at once. Else only from MR_BATCH_EARLY_BYTES on, and no more than MR_BATCHES_IN_FLIGHT. */
static void writes_start_by_the_rule(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_by_hand(&fixture);
    append(&fixture, 10);
    log_submit(fixture.log, false);
    assert_int_equal(fake_io_in_flight(fixture.io), 1);
    append(&fixture, 16000);
    log_submit(fixture.log, false);
    assert_int_equal(fake_io_in_flight(fixture.io), 1);
    for (unsigned n = 0; n < MR_BATCH_EARLY_BYTES / 16000; n++)
        append(&fixture, 16000);
    log_submit(fixture.log, false);
    assert_int_equal(fake_io_in_flight(fixture.io), 2);
    struct fake_operation operation;
    assert_true(fake_io_operation(fixture.io, 1, &operation));
    assert_true(operation.size >= MR_BATCH_EARLY_BYTES && operation.durable);
    /* A full one: at most batch_bytes. */
    for (unsigned n = 0; n < 80; n++)
        append(&fixture, 16000);
    log_submit(fixture.log, false);
    assert_int_equal(fake_io_in_flight(fixture.io), MR_BATCHES_IN_FLIGHT);
    while (log_fixture_append(&fixture, 16000))
        log_submit(fixture.log, false);
    assert_int_equal(fake_io_in_flight(fixture.io), MR_BATCHES_IN_FLIGHT);
    assert_null(log_trouble(fixture.log));
    for (unsigned n = 0; fake_io_operation(fixture.io, n, &operation); n++)
        assert_true(operation.size <= 256 * MR_KIB);
    assert_true(fake_io_finish(fixture.io, 3));
    log_fixture_turn(&fixture);
    assert_int_equal(fake_io_in_flight(fixture.io), MR_BATCHES_IN_FLIGHT);
    fake_machine_config(fixture.machine)->order = FAKE_AT_ONCE;
    fake_io_finish_all(fixture.io);
    log_fixture_settle(&fixture);
    assert_int_equal(log_fixture_close(&fixture), 0);
    reopen(&fixture);
    log_fixture_free(&fixture);
}

/* While more keeps coming: what is large at once; what is not when nothing more comes, or MR_BATCH_GATHERS is over. */
static void a_small_batch_waits_for_more(void **state)
{
    (void)state;
    struct log_fixture fixture;
    struct fake_operation operation;
    open_by_hand(&fixture);
    append(&fixture, 10);
    log_submit(fixture.log, true);
    assert_int_equal(fake_io_in_flight(fixture.io), 0);
    fake_machine_advance(fixture.machine, MR_BATCH_GATHERS - 1);
    append(&fixture, 10);
    log_submit(fixture.log, true);
    assert_int_equal(fake_io_in_flight(fixture.io), 0);
    fake_machine_advance(fixture.machine, 1);
    log_submit(fixture.log, true);
    assert_int_equal(fake_io_in_flight(fixture.io), 1);
    assert_true(fake_io_finish(fixture.io, 0));
    log_fixture_complete(&fixture);
    assert_int_equal(log_fixture_take(&fixture), 2);

    append(&fixture, 10);
    log_submit(fixture.log, true);
    assert_int_equal(fake_io_in_flight(fixture.io), 0);
    log_submit(fixture.log, false);
    assert_int_equal(fake_io_in_flight(fixture.io), 1);
    for (unsigned n = 0; n <= MR_BATCH_EARLY_BYTES / 16000; n++)
        append(&fixture, 16000);
    log_submit(fixture.log, true);
    assert_int_equal(fake_io_in_flight(fixture.io), 2);
    assert_true(fake_io_operation(fixture.io, 1, &operation));
    assert_true(operation.size >= MR_BATCH_EARLY_BYTES);
    fake_machine_config(fixture.machine)->order = FAKE_AT_ONCE;
    fake_io_finish_all(fixture.io);
    log_fixture_settle(&fixture);
    assert_int_equal(log_fixture_close(&fixture), 0);
    log_fixture_free(&fixture);
}

static void a_large_entry_is_a_batch_alone(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    log_fixture_prepared(&fixture);
    fake_machine_config(fixture.machine)->order = FAKE_MANUAL;
    append(&fixture, 10);
    append(&fixture, 16384);
    append(&fixture, 10);
    log_submit(fixture.log, false);
    struct fake_operation operation;
    assert_int_equal(fake_io_in_flight(fixture.io), 2);
    assert_true(fake_io_operation(fixture.io, 0, &operation));
    assert_int_equal(operation.size, BLOCK);
    assert_true(fake_io_operation(fixture.io, 1, &operation));
    assert_int_equal(operation.size, 5 * BLOCK);
    fake_machine_config(fixture.machine)->order = FAKE_AT_ONCE;
    fake_io_finish_all(fixture.io);
    log_fixture_settle(&fixture);
    log_fixture_power_cut(&fixture);
    reopen(&fixture);
    assert_int_equal(fixture.replayed, 3);
    log_fixture_free(&fixture);
}

static void a_reservation_may_be_dropped_or_shortened(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    memset(log_reserve(fixture.log, 16000), 0xff, 16000);
    log_submit(fixture.log, false);
    assert_false(log_in_flight(fixture.log));
    append(&fixture, 10);
    memset(log_reserve(fixture.log, 5000), 0xff, 5000);
    append(&fixture, 11);
    memset(log_reserve(fixture.log, 16000), 0xff, 16000); /* closes the batch before it */
    append(&fixture, 12);
    log_fixture_settle(&fixture);
    assert_true(log_mark(fixture.log, fixture.time));
    assert_int_equal(log_fixture_close(&fixture), 0);
    reopen(&fixture);
    assert_int_equal(fixture.replayed, 3);
    log_fixture_free(&fixture);
}

static void time_never_goes_backwards(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    struct log_origin origin = {0};
    struct log_entry entry;
    static const uint64_t given[] = {500, 400, UINT64_C(20000000000), 30};
    static const uint64_t got[] = {500, 500, 500 + UINT64_C(0xffffffff), 500 + UINT64_C(0xffffffff)};
    for (unsigned n = 0; n < 4; n++) {
        assert_non_null(log_reserve(fixture.log, 0));
        log_append(fixture.log, given[n], &origin, 0);
    }
    log_submit(fixture.log, false);
    log_fixture_complete(&fixture);
    for (unsigned n = 0; n < 4; n++) {
        assert_true(log_next(fixture.log, &entry));
        assert_int_equal(entry.time, got[n]);
        assert_int_equal(entry.size, 0);
    }
    assert_non_null(log_reserve(fixture.log, 0));
    log_append(fixture.log, 1, &origin, 0);
    log_submit(fixture.log, false);
    log_fixture_complete(&fixture);
    assert_true(log_next(fixture.log, &entry));
    assert_int_equal(entry.time, UINT64_C(20000000000));
    log_fixture_free(&fixture);
}

/* Never more than asked for, and never those of two batches, because the first one's bytes go with the second. */
static void several_come_out_at_a_time(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_MEMORY);
    struct log_origin origin = {.channel = 3};
    struct log_entry entries[8];
    for (unsigned n = 0; n < 7; n++) {
        uint8_t *room = log_reserve(fixture.log, 1);
        assert_non_null(room);
        *room = (uint8_t)('1' + n);
        log_append(fixture.log, 1, &origin, 1);
        if (n == 4)
            log_submit(fixture.log, false);
    }
    log_submit(fixture.log, false);
    log_fixture_complete(&fixture);
    static const unsigned most[] = {3, 8, 8, 8}, come[] = {3, 2, 2, 0};
    for (unsigned call = 0, next = 1; call < 4; call++) {
        assert_int_equal(log_next_few(fixture.log, entries, most[call]), come[call]);
        for (unsigned n = 0; n < come[call]; n++, next++) {
            assert_int_equal(entries[n].index, next);
            assert_int_equal(entries[n].body[0], '0' + next);
            assert_int_equal(entries[n].origin.channel, 3);
        }
    }
    log_fixture_free(&fixture);
}

static void an_empty_batch_keeps_the_time(void **state)
{
    (void)state;
    for (enum durability durability = DURABILITY_SYNC; durability <= DURABILITY_MEMORY; durability++) {
        struct log_fixture fixture;
        open_log(&fixture, 1, durability);
        append(&fixture, 10);
        assert_false(log_mark(fixture.log, 5000000)); /* something is open */
        log_fixture_settle(&fixture);
        assert_true(log_mark(fixture.log, 77000000));
        log_fixture_complete(&fixture);
        log_fixture_crash(&fixture);
        reopen(&fixture);
        assert_int_equal(fixture.report.time, 77000000);
        assert_int_equal(fixture.report.last_index, 1);
        log_fixture_free(&fixture);
    }
}

/* After 10 ms of quiet one empty batch, then none. */
static void an_idle_log_is_closed_off_once(void **state)
{
    (void)state;
    for (enum durability durability = DURABILITY_SYNC; durability <= DURABILITY_ASYNC; durability++) {
        struct log_fixture fixture;
        open_log(&fixture, 1, durability);
        log_fixture_prepared(&fixture);
        struct fake_counts *counts = fake_machine_counts(fixture.machine);
        uint64_t before = counts->calls[FAKE_WRITE];
        log_fixture_idle(&fixture, MR_SECOND);
        assert_int_equal(counts->calls[FAKE_WRITE], before); /* an epoch's first batch claims all before it */
        append(&fixture, 10);
        uint64_t appended = fixture.io->ops->monotonic(fixture.io);
        log_fixture_settle(&fixture);
        assert_int_equal(counts->calls[FAKE_WRITE], before + 1);
        while (counts->calls[FAKE_WRITE] == before + 1)
            log_fixture_idle(&fixture, MR_MILLISECOND);
        uint64_t marked = fixture.io->ops->monotonic(fixture.io);
        assert_in_range(marked - appended, MR_MARKER_AFTER, 3 * MR_MARKER_AFTER);
        log_fixture_idle(&fixture, MR_SECOND);
        assert_int_equal(counts->calls[FAKE_WRITE], before + 2);
        assert_int_equal(fixture.due, UINT64_MAX);
        log_fixture_free(&fixture);
    }
}

static void a_start_costs_a_block(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    append(&fixture, 100);
    log_fixture_settle(&fixture);
    log_fixture_prepared(&fixture);
    uint64_t bytes = log_bytes(fixture.log);
    uint64_t offset = 0;
    for (unsigned n = 0; n < 50; n++) {
        log_fixture_crash(&fixture);
        reopen(&fixture);
        assert_int_equal(log_bytes(fixture.log), bytes);
        fake_machine_config(fixture.machine)->order = FAKE_MANUAL;
        append(&fixture, 1);
        log_submit(fixture.log, false);
        struct fake_operation operation;
        assert_true(fake_io_operation(fixture.io, 0, &operation));
        if (offset > 0)
            assert_int_equal(operation.offset, offset + 2 * BLOCK); /* that entry's block and the epoch's */
        offset = operation.offset;
        fake_machine_config(fixture.machine)->order = FAKE_AT_ONCE;
        fake_io_finish_all(fixture.io);
        log_fixture_settle(&fixture);
        if (offset > fixture.config.segment_bytes - 4 * BLOCK)
            break;
    }
    assert_true(offset > fixture.config.segment_bytes / 4);
    log_fixture_free(&fixture);
}

/* `async`: durable for the caller once written; flushed every interval, and at a change of segments. */
static void async_flushes_at_intervals(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_ASYNC);
    log_fixture_prepared(&fixture);
    struct fake_counts *counts = fake_machine_counts(fixture.machine);
    uint64_t durable = counts->durable_writes, syncs = counts->calls[FAKE_SYNC];
    for (unsigned n = 0; n < 50; n++) {
        append(&fixture, 100);
        log_fixture_settle(&fixture);
        fake_machine_advance(fixture.machine, MR_MILLISECOND);
    }
    assert_int_equal(counts->durable_writes, durable);
    assert_in_range(counts->calls[FAKE_SYNC] - syncs, 4, 5);
    syncs = counts->calls[FAKE_SYNC];
    log_fixture_idle(&fixture, MR_SECOND);
    assert_in_range(counts->calls[FAKE_SYNC] - syncs, 1, 2); /* what is left, and the marker */
    log_fixture_power_cut(&fixture);
    reopen(&fixture); /* all of it was flushed long ago */
    assert_int_equal(fixture.replayed, 50);
    fixture.config.flush_interval = MR_FLUSH_INTERVAL_MAX;
    log_fixture_crash(&fixture);
    reopen(&fixture);
    log_fixture_prepared(&fixture);
    syncs = counts->calls[FAKE_SYNC];
    for (unsigned n = 0; n < 40; n++) {
        append(&fixture, 8000);
        log_fixture_settle(&fixture);
    }
    assert_true(counts->calls[FAKE_SYNC] > syncs);
    assert_int_equal(log_fixture_close(&fixture), 0);
    log_fixture_power_cut(&fixture);
    reopen(&fixture);
    log_fixture_free(&fixture);
}

static void refused_registration_and_direct_writes_are_told_once(void **state)
{
    (void)state;
    struct log_fixture fixture;
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    fake_machine_config(fixture.machine)->no_direct = true;
    fake_machine_fail(fixture.machine, FAKE_REGISTER, NULL, 1, 1, 12);
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_non_null(strstr(fixture.notices, "could not be registered"));
    assert_non_null(strstr(fixture.notices, "does not allow direct writes"));
    for (unsigned n = 0; n < 100; n++)
        append(&fixture, 7000);
    log_fixture_settle(&fixture);
    const char *line = strchr(strchr(fixture.notices, '\n') + 1, '\n');
    assert_string_equal(line, "\n");
    log_fixture_power_cut(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0);
    log_fixture_free(&fixture);
}

/* However the log ends, its buffers end with it: for the io, which could take other memory there for them, and for the
 * process. */
static void the_buffers_are_given_back(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    void *region = fake_io_registered(fixture.io);
    assert_non_null(region);
    append(&fixture, 100);
    assert_int_equal(log_fixture_close(&fixture), 0);
    assert_null(fake_io_registered(fixture.io));
    assert_int_equal(msync(region, BLOCK, MS_ASYNC), -1);
    assert_int_equal(errno, ENOMEM);
    fake_machine_fail(fixture.machine, FAKE_WRITE, NULL, 1, 1, EIO);
    assert_int_equal(log_fixture_open(&fixture), -1);
    assert_null(fake_io_registered(fixture.io));
    log_fixture_free(&fixture);
}

static void a_segment_that_is_too_small_is_refused(void **state)
{
    (void)state;
    struct log_fixture fixture;
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    fixture.config.segment_bytes = 84 * MR_KIB;
    assert_int_equal(log_fixture_open(&fixture), 0); /* 4 KiB and four times 20 KiB */
    log_fixture_crash(&fixture);
    fixture.config.segment_bytes -= BLOCK;
    assert_int_equal(log_fixture_open(&fixture), -1);
    assert_non_null(strstr(fixture.error.text, "four of the largest batches"));
    assert_non_null(strstr(fixture.error.text, "16384"));
    fixture.config.segment_bytes += BLOCK;
    fixture.config.batch_bytes = 64 * MR_KIB;
    assert_int_equal(log_fixture_open(&fixture), -1);
    assert_non_null(strstr(fixture.error.text, "65536"));
    log_fixture_free(&fixture);
}

/* A device with larger blocks than the one that the segments were made on. */
static void a_larger_alignment_begins_a_new_segment(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_SYNC);
    append(&fixture, 100);
    log_fixture_settle(&fixture);
    log_fixture_prepared(&fixture);
    fake_machine_config(fixture.machine)->alignment = 16384;
    log_fixture_crash(&fixture);
    reopen(&fixture);
    append(&fixture, 100);
    log_fixture_settle(&fixture);
    log_fixture_prepared(&fixture);
    log_fixture_crash(&fixture);
    reopen(&fixture);
    assert_int_equal(fixture.replayed, 2);
    log_fixture_free(&fixture);
}

/* A worker that dies in the middle of a batch: entries behind the last submission are gone, all others are there. */
static void memory_survives_a_death_within_a_batch(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_MEMORY);
    unsigned durable = 0;
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned n = 0; n < round % 5; n++)
            append(&fixture, n * 700);
        log_submit(fixture.log, false);
        durable += fixture.pending.count; /* also if nobody has taken them */
        append(&fixture, 100 + round * 97);
        append(&fixture, round % 3 == 0 ? 16000 : 50);
        unsigned pending = fixture.pending.count;
        assert_int_equal(pending, round % 5 + 2);
        log_fixture_crash(&fixture);
        reopen(&fixture);
        assert_int_equal(fixture.replayed, durable);
        assert_int_equal(fixture.durable.count, durable);
    }
    assert_int_equal(fake_machine_counts(fixture.machine)->calls[FAKE_WRITE], 0);
    assert_int_equal(fake_machine_counts(fixture.machine)->calls[FAKE_OPEN], 0);
    log_fixture_free(&fixture);
}

/* Of the header, too: nothing was acknowledged then, or it stands in other segments. */
static void memory_survives_a_death_within_a_header(void **state)
{
    (void)state;
    for (size_t written = 8; written < 128; written += 8) {
        struct log_fixture fixture;
        uint8_t first[4096], zeros[4096] = {0};
        open_log(&fixture, 1, DURABILITY_MEMORY);
        log_fixture_crash(&fixture);
        assert_int_equal(fixture.memfd_count, 1);
        assert_int_equal(pread(fixture.memfds[0], first, sizeof first, 0), sizeof first);
        assert_int_equal(pwrite(fixture.memfds[0], zeros, sizeof zeros, 0), sizeof zeros);
        assert_int_equal(pwrite(fixture.memfds[0], first, written, 0), written);
        assert_int_equal(log_fixture_open(&fixture), 0);
        append(&fixture, 100);
        log_fixture_settle(&fixture);
        assert_int_equal(fixture.durable.count, 1);
        log_fixture_crash(&fixture);
        reopen(&fixture);
        log_fixture_free(&fixture);
    }
}

static void memory_that_is_not_given_is_trouble_until_it_is(void **state)
{
    (void)state;
    struct log_fixture fixture;
    open_log(&fixture, 1, DURABILITY_MEMORY);
    fixture.no_memfds = true;
    while (log_fixture_append(&fixture, 8000))
        log_fixture_settle(&fixture);
    assert_non_null(log_trouble(fixture.log));
    assert_non_null(strstr(log_trouble(fixture.log), "no more memory segments"));
    fixture.no_memfds = false;
    log_fixture_idle(&fixture, 2 * MR_SECOND);
    assert_null(log_trouble(fixture.log));
    assert_true(log_fixture_append(&fixture, 8000));
    log_fixture_settle(&fixture);
    log_fixture_crash(&fixture);
    reopen(&fixture);
    log_fixture_free(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_sizes_come_back),
        cmocka_unit_test(only_entries_after_the_given_index_are_replayed),
        cmocka_unit_test(a_replay_can_stop_the_opening),
        cmocka_unit_test(nothing_is_handed_out_before_it_is_durable_and_in_order),
        cmocka_unit_test(writes_start_by_the_rule),
        cmocka_unit_test(a_small_batch_waits_for_more),
        cmocka_unit_test(a_large_entry_is_a_batch_alone),
        cmocka_unit_test(a_reservation_may_be_dropped_or_shortened),
        cmocka_unit_test(time_never_goes_backwards),
        cmocka_unit_test(several_come_out_at_a_time),
        cmocka_unit_test(an_empty_batch_keeps_the_time),
        cmocka_unit_test(an_idle_log_is_closed_off_once),
        cmocka_unit_test(a_start_costs_a_block),
        cmocka_unit_test(async_flushes_at_intervals),
        cmocka_unit_test(refused_registration_and_direct_writes_are_told_once),
        cmocka_unit_test(the_buffers_are_given_back),
        cmocka_unit_test(a_segment_that_is_too_small_is_refused),
        cmocka_unit_test(a_larger_alignment_begins_a_new_segment),
        cmocka_unit_test(memory_survives_a_death_within_a_batch),
        cmocka_unit_test(memory_survives_a_death_within_a_header),
        cmocka_unit_test(memory_that_is_not_given_is_trouble_until_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
