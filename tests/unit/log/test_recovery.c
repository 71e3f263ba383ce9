/* SPDX-License-Identifier: Apache-2.0 */
/* What is found after a death of the process or of the machine, over many seeds; what was cut off does not come back;
 * torn is told from damaged. The fixture's model judges every replay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "engine/log/batch.h"
#include "engine/log/segment.h"
#include "millrace/limits.h"
#include "tests/support/log_fixture.h"
#include "tests/support/sudden_death.h"

enum { BLOCK = 4096 };

static uint64_t random_below(struct log_fixture *fixture, uint64_t limit)
{
    return fake_machine_random(fixture->machine, limit);
}

/* Sizes as they come: mostly small, some around a batch's, a few of the largest. */
static uint32_t random_size(struct log_fixture *fixture)
{
    switch (random_below(fixture, 8)) {
    case 0:
        return (uint32_t)random_below(fixture, 16385);
    case 1:
        return (uint32_t)(8192 - 160 - 20 + random_below(fixture, 40));
    default:
        return (uint32_t)random_below(fixture, 300);
    }
}

/* Some turns of a worker, with as many requests as come. */
static void work(struct log_fixture *fixture, unsigned turns)
{
    for (unsigned n = 0; n < turns; n++) {
        for (uint64_t entries = random_below(fixture, 6); entries > 0; entries--)
            if (!log_fixture_append(fixture, random_size(fixture)))
                break;
        log_fixture_turn(fixture);
        if (random_below(fixture, 3) == 0)
            fixture->io->ops->sleep(fixture->io, random_below(fixture, 2 * MR_MILLISECOND));
        if (random_below(fixture, 40) == 0)
            log_fixture_idle(fixture, 30 * MR_MILLISECOND);
    }
}

static void set_machine(struct log_fixture *fixture)
{
    struct fake_config *config = fake_machine_config(fixture->machine);
    config->order = FAKE_ANY_ORDER;
    config->delay_min = 50 * MR_MICROSECOND;
    config->delay_max = 500 * MR_MICROSECOND;
}

/* What of the durable ones a power cut may take in `async`. */
static void set_loss(struct log_fixture *fixture)
{
    uint64_t now = fixture->io->ops->monotonic(fixture->io);
    uint64_t window = fixture->config.flush_interval + 10 * MR_MILLISECOND;
    fixture->may_lose = 0;
    for (unsigned n = fixture->durable.count; n-- > 0 && fixture->durable.entries[n].known + window > now;)
        fixture->may_lose++;
}

/* Each seed: work, die in one way or the other, at any moment, six times over. */
static void die_often(enum durability durability, uint64_t seeds)
{
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct log_fixture fixture;
        log_fixture_init(&fixture, seed, durability);
        set_machine(&fixture);
        uint64_t epoch = 0;
        for (unsigned round = 0; round < 6; round++) {
            if (log_fixture_open(&fixture) != 0)
                fail_msg("seed %llu, round %u: %s", (unsigned long long)seed, round, fixture.error.text);
            assert_true(fixture.report.epoch > epoch);
            epoch = fixture.report.epoch;
            fixture.may_lose = 0;
            work(&fixture, (unsigned)random_below(&fixture, 60));
            log_submit(fixture.log, false); /* mostly with something in flight */
            if (random_below(&fixture, 2) == 0)
                log_fixture_complete(&fixture);
            set_loss(&fixture);
            if (durability != DURABILITY_ASYNC)
                fixture.may_lose = 0;
            if (random_below(&fixture, 8) == 0) {
                assert_int_equal(log_fixture_close(&fixture), 0);
                fixture.may_lose = 0;
            }
            if (random_below(&fixture, 2) == 0) {
                log_fixture_power_cut(&fixture);
                for (unsigned n = 0; n < fixture.durable.count; n++)
                    fixture.durable.entries[n].known = 0; /* the clock begins anew */
            } else {
                fixture.may_lose = 0;
                log_fixture_crash(&fixture);
            }
        }
        assert_int_equal(log_fixture_open(&fixture), 0);
        log_fixture_free(&fixture);
    }
}

static void nothing_durable_is_lost_in_sync(void **state)
{
    (void)state;
    die_often(DURABILITY_SYNC, 120);
}

static void a_flush_interval_is_lost_at_most_in_async(void **state)
{
    (void)state;
    die_often(DURABILITY_ASYNC, 120);
}

/* The process dies at every single call that it makes to the outside, opening and recovery included. */

/* False: it lived to see the end of it, and died then. */
static bool open_and_die(struct log_fixture *fixture, struct countdown *countdown, uint64_t calls, bool power_cut)
{
    volatile bool early = true;
    fake_machine_config(fixture->machine)->context = countdown;
    fake_machine_config(fixture->machine)->on_call = count_down;
    struct log_fixture *volatile kept = fixture;
    leaks_are_meant(true);
    if (setjmp(countdown->out) == 0) {
        countdown->calls = calls;
        if (log_fixture_open(kept) == 0)
            work(kept, 3);
        early = false;
        countdown->calls = 0;
    }
    leaks_are_meant(false);
    fake_machine_config(kept->machine)->on_call = NULL;
    if (power_cut)
        log_fixture_power_cut(kept);
    else
        log_fixture_crash(kept);
    return early;
}

static void a_death_at_any_call_of_a_start_is_survived(void **state)
{
    (void)state;
    for (unsigned power_cut = 0; power_cut < 2; power_cut++)
        for (uint64_t calls = 1; calls < 60; calls++) {
            struct log_fixture fixture;
            struct countdown countdown = {0};
            log_fixture_init(&fixture, calls, DURABILITY_SYNC);
            set_machine(&fixture);
            if (calls % 2 == 0) { /* else: the very first start */
                assert_int_equal(log_fixture_open(&fixture), 0);
                work(&fixture, 20);
                log_submit(fixture.log, false);
                log_fixture_complete(&fixture);
                log_fixture_crash(&fixture);
            }
            /* A replay that is cut off has taken from `pending` what it saw: that may be gone the next time, if it was
             * never flushed; only what was handed out may not. */
            unsigned handed_out = fixture.durable.count;
            open_and_die(&fixture, &countdown, calls, power_cut);
            struct log_fixture_list all = fixture.durable;
            fixture.may_lose = power_cut && all.count > handed_out ? all.count - handed_out : 0;
            if (log_fixture_open(&fixture) != 0)
                fail_msg("call %llu: %s", (unsigned long long)calls, fixture.error.text);
            work(&fixture, 10);
            log_fixture_settle(&fixture);
            log_fixture_free(&fixture);
        }
}

/* Batches that were cut off lie behind the new epoch's; what is written meanwhile must not bring them back, however it
 * comes to end. */
static void what_was_cut_off_stays_so(void **state)
{
    (void)state;
    unsigned torn = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct log_fixture fixture;
        log_fixture_init(&fixture, seed, DURABILITY_SYNC);
        assert_int_equal(log_fixture_open(&fixture), 0);
        log_fixture_prepared(&fixture);
        for (unsigned round = 0; round < 8; round++) {
            struct fake_config *config = fake_machine_config(fixture.machine);
            config->order = FAKE_MANUAL;
            unsigned entries = (unsigned)(2 + random_below(&fixture, 3));
            for (unsigned n = 0; n < entries; n++)
                log_fixture_append(&fixture, 6000);
            log_submit(fixture.log, false);
            /* All but the first land; the first is lost, or torn. */
            while (fake_io_in_flight(fixture.io) > 1)
                assert_true(fake_io_finish(fixture.io, 1));
            log_fixture_complete(&fixture);
            assert_int_equal(log_fixture_take(&fixture), 0);
            config->power_cut = round % 2 == 0 ? FAKE_LOSE : FAKE_RANDOM;
            config->order = FAKE_AT_ONCE;
            log_fixture_power_cut(&fixture);
            assert_int_equal(log_fixture_open(&fixture), 0);
            torn += (unsigned)fixture.report.torn_batches;
            if (round % 3 != 0)
                continue;
            for (unsigned n = 0; n < 1 + random_below(&fixture, 3); n++) {
                log_fixture_append(&fixture, (uint32_t)random_below(&fixture, 3000));
                log_fixture_settle(&fixture);
            }
        }
        log_fixture_free(&fixture);
    }
    assert_true(torn > 100);
}

static void a_torn_tail_is_reported_once(void **state)
{
    (void)state;
    struct log_fixture fixture;
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    assert_int_equal(log_fixture_open(&fixture), 0);
    log_fixture_prepared(&fixture);
    log_fixture_append(&fixture, 100);
    log_fixture_settle(&fixture);
    struct fake_config *config = fake_machine_config(fixture.machine);
    config->order = FAKE_MANUAL;
    for (unsigned n = 0; n < 3; n++)
        log_fixture_append(&fixture, 6000);
    log_submit(fixture.log, false);
    struct fake_operation torn;
    assert_true(fake_io_operation(fixture.io, 0, &torn));
    assert_true(fake_io_finish(fixture.io, 1));
    config->power_cut = FAKE_LOSE;
    log_fixture_power_cut(&fixture);
    config->order = FAKE_AT_ONCE;
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.last_index, 1);
    assert_int_equal(fixture.report.torn_batches, 1);
    assert_int_equal(fixture.report.torn_bytes, 128 + 32 + 6000);
    assert_string_equal(fixture.report.torn_file, "segment-0000");
    assert_int_equal(fixture.report.torn_offset, torn.offset + 2 * BLOCK);
    assert_non_null(strstr(fixture.notices, "cut off 1 batches (6160 bytes)"));
    log_fixture_crash(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_int_equal(fixture.report.torn_batches, 0);
    log_fixture_free(&fixture);
}

/* A write of a dead process lands late: recovery waits for it at the lock, and reads only then. */
static void late_writes_are_waited_for(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct log_fixture fixture;
        log_fixture_init(&fixture, seed, DURABILITY_SYNC);
        assert_int_equal(log_fixture_open(&fixture), 0);
        struct fake_config *config = fake_machine_config(fixture.machine);
        config->order = FAKE_MANUAL;
        config->crash = FAKE_KEEP; /* they happen whole, but as late as can be */
        log_fixture_append(&fixture, 100);
        log_submit(fixture.log, false);
        log_fixture_complete(&fixture); /* handed over */
        log_fixture_crash(&fixture);
        config->order = FAKE_AT_ONCE;
        assert_int_equal(log_fixture_open(&fixture), 0);
        assert_int_equal(fixture.replayed, 1);
        assert_int_equal(fake_machine_land(fixture.machine, 10), 0);
        log_fixture_append(&fixture, 100);
        log_fixture_settle(&fixture);
        log_fixture_power_cut(&fixture);
        assert_int_equal(log_fixture_open(&fixture), 0);
        assert_int_equal(fixture.replayed, 2);
        log_fixture_free(&fixture);
    }
}

struct order {
    unsigned reads, locks, early;
};

static void watch_order(void *context, struct io *io, enum fake_call call, const char *name)
{
    struct order *order = context;
    (void)io;
    if (!name || strncmp(name, "segment-", 8) != 0)
        return;
    order->locks += call == FAKE_LOCK;
    order->reads += call == FAKE_READ;
    order->early += call == FAKE_READ && order->locks == 0;
}

static void no_segment_is_read_before_it_is_locked(void **state)
{
    (void)state;
    struct log_fixture fixture;
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    assert_int_equal(log_fixture_open(&fixture), 0);
    log_fixture_append(&fixture, 1);
    log_fixture_settle(&fixture);
    log_fixture_crash(&fixture);
    struct order order = {0};
    fake_machine_config(fixture.machine)->context = &order;
    fake_machine_config(fixture.machine)->on_call = watch_order;
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_true(order.reads > 0 && order.locks > 0);
    assert_int_equal(order.early, 0);
    log_fixture_free(&fixture);
}

/* ---- damage ---- */

/* A small log of one segment that ends with a marker: an epoch, three batches, an epoch, two batches, the marker. */
static void make_small_log(struct log_fixture *fixture)
{
    log_fixture_init(fixture, 1, DURABILITY_SYNC);
    fixture->config.segment_bytes = 84 * MR_KIB;
    assert_int_equal(log_fixture_open(fixture), 0);
    for (unsigned n = 0; n < 5; n++) {
        if (n == 3) {
            log_fixture_crash(fixture);
            assert_int_equal(log_fixture_open(fixture), 0);
        }
        assert_true(log_fixture_append(fixture, 100 + n * 1500));
        log_fixture_settle(fixture);
    }
    log_fixture_idle(fixture, 100 * MR_MILLISECOND);
    log_fixture_crash(fixture);
}

/* Opens a copy of the machine after something was done to it. The copy is the caller's to free. */
static int open_copy(struct log_fixture *copy, const struct log_fixture *fixture, struct fake_machine *machine)
{
    *copy = *fixture;
    copy->machine = machine;
    copy->io = fake_io_create(machine);
    copy->config.notice_context = copy->config.progress_context = copy->config.memory_context = copy;
    copy->durable.entries = malloc(fixture->durable.capacity * sizeof *copy->durable.entries);
    assert_non_null(copy->durable.entries);
    memcpy(copy->durable.entries, fixture->durable.entries, fixture->durable.count * sizeof *copy->durable.entries);
    copy->pending = (struct log_fixture_list){0};
    return log_fixture_open(copy);
}

/* The model fails the test if what was durable is missing and the log opens all the same: so a change is either
 * reported, naming file, offset and index, with nothing written, or it is harmless. */
static bool harmless(const struct log_fixture *fixture, struct fake_machine *machine)
{
    struct log_fixture copy;
    bool result = open_copy(&copy, fixture, machine) == 0;
    if (!result) {
        assert_non_null(strstr(copy.error.text, "segment-000"));
        assert_int_equal(fake_machine_counts(machine)->calls[FAKE_WRITE], 0);
    }
    log_fixture_free(&copy);
    return result;
}

static void every_bit_of_a_small_log_is_harmless_or_reported(void **state)
{
    (void)state;
    struct log_fixture fixture;
    make_small_log(&fixture);
    /* All bits of headers and of entries' beginnings and ends; of the rest one bit a byte every so often. */
    unsigned reported = 0, opened = 0;
    for (uint64_t offset = 0; offset < 12 * BLOCK; offset++) {
        uint64_t within = offset % BLOCK;
        bool all_bits = within < 170;
        if (!all_bits && offset % 97 != 0)
            continue;
        for (unsigned bit = offset % 8; bit < 8; bit += all_bits && within < 128 ? 1 : 8) {
            struct fake_machine *machine = fake_machine_clone(fixture.machine);
            fake_file_flip(machine, LOG_FIXTURE_PATH, "segment-0000", offset, bit);
            bool fine = harmless(&fixture, machine);
            reported += !fine;
            opened += fine;
        }
    }
    assert_true(reported > 1000);
    assert_true(opened > 1000); /* zeros between batches, the marker, the space behind */
    log_fixture_free(&fixture);
}

static void damage_names_file_offset_and_index(void **state)
{
    (void)state;
    struct log_fixture fixture, copy;
    make_small_log(&fixture);
    /* Blocks: header, epoch, entry 1, entry 2, entry 3, epoch, entry 4 ... */
    static const char *const expected[] = {"segment-0000 is damaged at offset 0, in its header",
                                           "segment-0000 is damaged at offset 4096: the batch of index 1 ",
                                           "segment-0000 is damaged at offset 8192: the batch of index 1 ",
                                           "segment-0000 is damaged at offset 12288: the batch of index 2 ",
                                           "segment-0000 is damaged at offset 16384: the batch of index 3 ",
                                           "segment-0000 is damaged at offset 20480: the batch of index 4 ",
                                           "segment-0000 is damaged at offset 24576: the batch of index 4 "};
    for (unsigned n = 0; n < sizeof expected / sizeof *expected; n++) {
        struct fake_machine *machine = fake_machine_clone(fixture.machine);
        fake_file_flip(machine, LOG_FIXTURE_PATH, "segment-0000", n * BLOCK + 45, 3);
        assert_int_equal(open_copy(&copy, &fixture, machine), -1);
        if (!strstr(copy.error.text, expected[n]))
            fail_msg("%s", copy.error.text);
        log_fixture_free(&copy);
    }
    log_fixture_free(&fixture);
}

/* Zeroed, cut or missing files. */
static void lost_parts_are_reported(void **state)
{
    (void)state;
    struct log_fixture fixture;
    make_small_log(&fixture);
    static uint8_t zeros[4 * BLOCK];
    for (unsigned start = 0; start < 10; start++)
        for (unsigned blocks = 1; blocks <= 4 && start + blocks <= 10; blocks++) { /* but the marker, in block 10 */
            struct fake_machine *machine = fake_machine_clone(fixture.machine);
            fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0000", zeros, blocks * BLOCK, start * BLOCK);
            assert_false(harmless(&fixture, machine));
        }
    log_fixture_free(&fixture);

    /* Of a log of several segments, each but the spare is removed in turn, or cut. */
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    assert_int_equal(log_fixture_open(&fixture), 0);
    while (log_bytes(fixture.log) < 6 * fixture.config.segment_bytes) {
        log_fixture_append(&fixture, 4000);
        log_fixture_settle(&fixture);
        log_fixture_prepared(&fixture);
    }
    log_fixture_idle(&fixture, 100 * MR_MILLISECOND);
    unsigned last = (unsigned)log_segment(fixture.log);
    assert_int_equal(last, 5);
    log_fixture_crash(&fixture);
    for (unsigned slot = 0; slot < last; slot++) {
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, slot);
        struct fake_machine *machine = fake_machine_clone(fixture.machine);
        fake_file_remove(machine, LOG_FIXTURE_PATH, name);
        assert_false(harmless(&fixture, machine));
        machine = fake_machine_clone(fixture.machine);
        fake_file_truncate(machine, LOG_FIXTURE_PATH, name, 100000);
        assert_false(harmless(&fixture, machine));
        machine = fake_machine_clone(fixture.machine);
        fake_file_truncate(machine, LOG_FIXTURE_PATH, name, 0);
        assert_false(harmless(&fixture, machine));
    }
    log_fixture_free(&fixture);
}

/* A log that ends with entries of which no marker speaks: from wherever on its end was never written, what is left is a
 * sound beginning and can be gone on from. */
static void a_log_without_its_end_opens_with_a_beginning(void **state)
{
    (void)state;
    struct log_fixture fixture;
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    fixture.config.segment_bytes = 84 * MR_KIB;
    assert_int_equal(log_fixture_open(&fixture), 0);
    log_fixture_prepared(&fixture);
    fake_machine_config(fixture.machine)->order = FAKE_MANUAL;
    for (unsigned n = 0; n < 4; n++)
        assert_true(log_fixture_append(&fixture, 5000));
    log_submit(fixture.log, false);
    fake_io_finish_all(fixture.io);
    fake_machine_config(fixture.machine)->order = FAKE_AT_ONCE;
    log_fixture_crash(&fixture); /* nobody was told of any */
    unsigned last = 0;
    for (uint64_t length = 2 * BLOCK; length <= 12 * BLOCK; length += length % BLOCK < 200 ? 1 : 211) {
        struct fake_machine *machine = fake_machine_clone(fixture.machine);
        static const uint8_t zeros[12 * BLOCK];
        fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0000", zeros, 12 * BLOCK - length, length);
        struct log_fixture copy = fixture;
        copy.machine = machine;
        copy.io = fake_io_create(machine);
        copy.durable = (struct log_fixture_list){0};
        copy.pending.entries = malloc(fixture.pending.capacity * sizeof *copy.pending.entries);
        assert_non_null(copy.pending.entries);
        memcpy(copy.pending.entries, fixture.pending.entries, fixture.pending.count * sizeof *copy.pending.entries);
        copy.config.notice_context = copy.config.progress_context = &copy;
        if (log_fixture_open(&copy) != 0)
            fail_msg("without its end from %llu on: %s", (unsigned long long)length, copy.error.text);
        assert_true(copy.replayed >= last);
        last = copy.replayed;
        assert_true(log_fixture_append(&copy, 10));
        log_fixture_settle(&copy);
        log_fixture_free(&copy);
    }
    assert_int_equal(last, 3);
    log_fixture_free(&fixture);
}

/* ---- not ours ---- */

static void an_unknown_version_is_refused_naming_both(void **state)
{
    (void)state;
    struct log_fixture fixture, copy;
    make_small_log(&fixture);
    struct fake_machine *machine = fake_machine_clone(fixture.machine);
    uint8_t raw[SEGMENT_HEADER_BYTES];
    fake_file_read(machine, LOG_FIXTURE_PATH, "segment-0000", raw, sizeof raw, 0);
    raw[8] = 7;
    memset(raw + 16, 0, 8);
    uint64_t header_sum = XXH3_64bits_withSeed(raw, sizeof raw, 0);
    memcpy(raw + 16, &header_sum, sizeof header_sum);
    fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0000", raw, sizeof raw, 0);
    assert_int_equal(open_copy(&copy, &fixture, machine), -1);
    assert_non_null(strstr(copy.error.text, "version 7"));
    assert_non_null(strstr(copy.error.text, "version 1"));
    log_fixture_free(&copy);

    /* A batch of a later version, sound in itself, where the next one would begin; and behind something torn. */
    for (unsigned block = 10; block <= 12; block += 2) {
        machine = fake_machine_clone(fixture.machine);
        uint8_t bytes[BLOCK] = {0};
        struct batch_header header = {.length = BATCH_HEADER_BYTES, .segment = 1};
        batch_seal(bytes, &header, fixture.config.secret);
        /* The sum of a header with another version is made as ours is. */
        header.version = 8;
        header.checksum = header.header_checksum = 0;
        memcpy(bytes, &header, sizeof header);
        uint64_t sum = XXH3_64bits_withSeed(bytes, BATCH_HEADER_BYTES, fixture.config.secret);
        memcpy(bytes + 32, &sum, sizeof sum);
        fake_file_write(machine, LOG_FIXTURE_PATH, "segment-0000", bytes, sizeof bytes, block * BLOCK);
        assert_int_equal(open_copy(&copy, &fixture, machine), -1);
        assert_non_null(strstr(copy.error.text, "version 8"));
        assert_non_null(strstr(copy.error.text, "version 1"));
        log_fixture_free(&copy);
    }
    log_fixture_free(&fixture);
}

static void other_partitions_and_directories_are_refused(void **state)
{
    (void)state;
    struct log_fixture fixture;
    make_small_log(&fixture);
    fixture.config.partition = 2;
    assert_int_equal(log_fixture_open(&fixture), -1);
    assert_non_null(strstr(fixture.error.text, "belongs to partition 1, not to partition 2"));
    fixture.config.partition = 1;
    fixture.config.secret++;
    assert_int_equal(log_fixture_open(&fixture), -1);
    assert_non_null(strstr(fixture.error.text, "another data directory"));
    log_fixture_free(&fixture);
}

/* A client puts whole copies of what a batch looks like into its bodies, at every block, torn off in every way. */
static void no_body_poses_as_a_batch(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct log_fixture fixture;
        log_fixture_init(&fixture, seed, DURABILITY_SYNC);
        assert_int_equal(log_fixture_open(&fixture), 0);
        log_fixture_prepared(&fixture);
        struct fake_config *config = fake_machine_config(fixture.machine);
        config->order = FAKE_MANUAL;
        struct log_origin origin = {.channel = 1};
        uint8_t *body = log_reserve(fixture.log, 16384);
        for (uint64_t at = 0; at < 16384; at += 32) { /* it knows all but the secret */
            struct batch_header header = {.length = BATCH_HEADER_BYTES,
                                          .partition = 1,
                                          .segment = 1,
                                          .epoch = 1 + at / 4096,
                                          .sequence = 2,
                                          .first_index = 1,
                                          .time = 1,
                                          .durable_through = 1000};
            uint8_t bytes[BATCH_HEADER_BYTES];
            batch_seal(bytes, &header, 0);
            memcpy(body + at, bytes, at + 128 <= 16384 ? 128 : 16384 - at);
        }
        log_append(fixture.log, fixture.time, &origin, 16384);
        log_submit(fixture.log, false);
        log_fixture_complete(&fixture);
        log_fixture_power_cut(&fixture);
        config->order = FAKE_AT_ONCE;
        struct log_recovery report;
        struct log *log;
        fixture.config.io = fixture.io;
        int result =
            log_open(&fixture.config, &(struct log_start){.index = 1}, NULL, NULL, &report, &log, &fixture.error);
        if (result != 0)
            assert_non_null(strstr(fixture.error.text, "ends at index 0")); /* torn: it is not there */
        else
            log_abandon(log);
        log_fixture_free(&fixture);
    }
}

static void progress_is_told(void **state)
{
    (void)state;
    struct log_fixture fixture;
    log_fixture_init(&fixture, 1, DURABILITY_SYNC);
    assert_int_equal(log_fixture_open(&fixture), 0);
    for (unsigned n = 0; n < 100; n++) {
        log_fixture_append(&fixture, 8000);
        log_fixture_settle(&fixture);
    }
    fake_machine_advance(fixture.machine, MR_SECOND);
    log_fixture_crash(&fixture);
    fixture.progress = 0;
    assert_int_equal(log_fixture_open(&fixture), 0);
    assert_true(fixture.progress > 0);
    log_fixture_free(&fixture);
}

/* A file cut so short that not even its header is whole never was one that is being made: those have their full length
 * from the first byte on. (Seeds 1691000 and 1795653 of the simulator.) */
static void a_segment_cut_within_its_header_is_damage(void **state)
{
    static const char name[] = "segment-0000";
    (void)state;
    for (uint64_t length = 1; length < SEGMENT_HEADER_BYTES; length++) {
        struct log_fixture fixture;
        log_fixture_init(&fixture, 1, DURABILITY_SYNC);
        assert_int_equal(log_fixture_open(&fixture), 0);
        log_fixture_append(&fixture, 100);
        log_fixture_settle(&fixture);
        log_fixture_power_cut(&fixture);
        if (length % 2 == 0) /* alone, before another was made */
            fake_file_remove(fixture.machine, LOG_FIXTURE_PATH, "segment-0001");
        fake_file_truncate(fixture.machine, LOG_FIXTURE_PATH, name, length);
        assert_int_equal(log_fixture_open(&fixture), -1);
        assert_int_equal(fixture.error.code, 0);
        assert_non_null(strstr(fixture.error.text, name));
        log_fixture_free(&fixture);
    }
}

/* Three segments behind the one in which the log ends after a power cut in `async`, each naming the one before; on a
 * device whose blocks have grown none of them is fit for the new epoch, and they are given up one after the other. If
 * that start dies on the way, what it leaves must not look like a log whose end is missing. (Seed 1763011.) */
static void a_start_that_dies_leaves_no_segment_without_the_one_it_names(void **state)
{
    (void)state;
    bool died = true;
    for (uint64_t calls = 1; died; calls++) {
        struct log_fixture fixture;
        struct countdown countdown = {0};
        log_fixture_init(&fixture, calls, DURABILITY_ASYNC);
        fixture.config.flush_interval = MR_HOUR;
        fake_machine_config(fixture.machine)->power_cut = FAKE_LOSE;
        assert_int_equal(log_fixture_open(&fixture), 0);
        for (unsigned n = 0; n < 80; n++) {
            assert_true(log_fixture_append(&fixture, 8000));
            log_fixture_settle(&fixture);
        }
        log_fixture_prepared(&fixture);
        fixture.may_lose = fixture.durable.count;
        log_fixture_power_cut(&fixture);
        assert_true(fake_file_size(fixture.machine, LOG_FIXTURE_PATH, "segment-0003") > 0);
        fake_machine_config(fixture.machine)->alignment = 2 * BLOCK;
        died = open_and_die(&fixture, &countdown, calls, false);
        if (log_fixture_open(&fixture) != 0)
            fail_msg("died at call %llu: %s", (unsigned long long)calls, fixture.error.text);
        log_fixture_free(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_durable_is_lost_in_sync),
        cmocka_unit_test(a_flush_interval_is_lost_at_most_in_async),
        cmocka_unit_test(a_death_at_any_call_of_a_start_is_survived),
        cmocka_unit_test(what_was_cut_off_stays_so),
        cmocka_unit_test(a_torn_tail_is_reported_once),
        cmocka_unit_test(late_writes_are_waited_for),
        cmocka_unit_test(no_segment_is_read_before_it_is_locked),
        cmocka_unit_test(every_bit_of_a_small_log_is_harmless_or_reported),
        cmocka_unit_test(damage_names_file_offset_and_index),
        cmocka_unit_test(lost_parts_are_reported),
        cmocka_unit_test(a_log_without_its_end_opens_with_a_beginning),
        cmocka_unit_test(an_unknown_version_is_refused_naming_both),
        cmocka_unit_test(other_partitions_and_directories_are_refused),
        cmocka_unit_test(no_body_poses_as_a_batch),
        cmocka_unit_test(progress_is_told),
        cmocka_unit_test(a_segment_cut_within_its_header_is_damage),
        cmocka_unit_test(a_start_that_dies_leaves_no_segment_without_the_one_it_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
