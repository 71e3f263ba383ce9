/* SPDX-License-Identifier: Apache-2.0 */
/* Every bit of a small log and of a snapshot is flipped, one at a time, and every file of them cut at every length:
 * what is read back is what was written, or an error that names the file. Never anything else.
 *
 * The log has four segments of the least size: one where reading begins, one behind it, one in a slot that was used
 * before, in which the log ends, closed off in an orderly way, and the spare, which was used before too. It is written
 * on the simulated machine and read with log_read() from copies in memory, through an io that can do nothing else. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/log/batch.h"
#include "engine/log/segment.h"
#include "engine/log/snapshot.h"
#include "ipc/planted.h"
#include "millrace/limits.h"
#include "tests/support/log_fixture.h"

/* Under a sanitizer a read takes many times as long: then every so-and-so-manieth, from a random one on. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { EVERY = 11 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
enum { EVERY = 11 };
#else
enum { EVERY = 1 };
#endif
#else
enum { EVERY = 1 };
#endif

enum { BLOCK = 4096, FILES_MAX = 8, FIRST_FD = 100 };

/* ---- an io that reads from memory ---- */

struct flat_file {
    char name[SNAPSHOT_NAME_SIZE];
    uint8_t *bytes;
    uint64_t size;
};

struct flat_io {
    struct io io; /* first */
    struct flat_file files[FILES_MAX];
    unsigned count;
};

static struct flat_io *flat(struct io *io)
{
    return (struct flat_io *)io;
}

static struct flat_file *flat_file(struct io *io, int file)
{
    assert_in_range(file, FIRST_FD, FIRST_FD + FILES_MAX - 1);
    return &flat(io)->files[file - FIRST_FD];
}

static uint64_t flat_monotonic(struct io *io)
{
    (void)io;
    return 1;
}

static int flat_open_directory(struct io *io, const char *path)
{
    (void)io;
    (void)path;
    return FIRST_FD - 1;
}

static int flat_list(struct io *io, int directory, void (*name)(void *context, const char *name), void *context)
{
    (void)directory;
    for (unsigned n = 0; n < flat(io)->count; n++)
        name(context, flat(io)->files[n].name);
    return 0;
}

static int flat_open(struct io *io, int directory, const char *name, unsigned flags)
{
    (void)directory;
    assert_int_equal(flags & (IO_WRITE | IO_CREATE), 0);
    for (unsigned n = 0; n < flat(io)->count; n++)
        if (strcmp(flat(io)->files[n].name, name) == 0)
            return FIRST_FD + (int)n;
    return -ENOENT;
}

static uint32_t flat_alignment(struct io *io, int file)
{
    (void)io;
    (void)file;
    return BLOCK;
}

static int64_t flat_size(struct io *io, int file)
{
    return (int64_t)flat_file(io, file)->size;
}

static int64_t flat_read(struct io *io, int file, void *buffer, size_t size, uint64_t offset)
{
    const struct flat_file *from = flat_file(io, file);
    uint64_t there = offset < from->size ? from->size - offset : 0;
    size_t count = size < there ? size : (size_t)there;
    memcpy(buffer, from->bytes + offset, count);
    return (int64_t)count;
}

static void flat_close(struct io *io, int file)
{
    (void)io;
    (void)file;
}

static const struct io_ops flat_ops = {.monotonic = flat_monotonic,
                                       .open_directory = flat_open_directory,
                                       .list = flat_list,
                                       .open = flat_open,
                                       .alignment = flat_alignment,
                                       .size = flat_size,
                                       .read = flat_read,
                                       .close = flat_close};

/* All files of the machine's directory. */
static void flat_copy(struct flat_io *io, const struct fake_machine *machine)
{
    *io = (struct flat_io){.io.ops = &flat_ops};
    for (const char *name; (name = fake_file_name(machine, LOG_FIXTURE_PATH, io->count)); io->count++) {
        assert_true(io->count < FILES_MAX);
        struct flat_file *file = &io->files[io->count];
        snprintf(file->name, sizeof file->name, "%s", name);
        file->size = (uint64_t)fake_file_size(machine, LOG_FIXTURE_PATH, name);
        file->bytes = malloc(file->size);
        assert_non_null(file->bytes);
        assert_int_equal(fake_file_read(machine, LOG_FIXTURE_PATH, name, file->bytes, file->size, 0), file->size);
    }
}

static void flat_free(struct flat_io *io)
{
    for (unsigned n = 0; n < io->count; n++)
        free(io->files[n].bytes);
}

/* ---- the log ---- */

struct small_log {
    struct flat_io io;
    struct log_config config;
    struct log_start start;
    struct log_entry *entries; /* as they were read from it when it was sound; bodies are copies */
    unsigned count, room;
    struct log_recovery report;
};

static void append(struct log_fixture *fixture, uint32_t size)
{
    assert_true(log_fixture_append(fixture, size));
}

/* Batches of one and more entries, until the log has gone on to that segment. */
static void fill_to(struct log_fixture *fixture, uint64_t segment)
{
    while (log_segment(fixture->log) < segment) {
        append(fixture, (uint32_t)fake_machine_random(fixture->machine, 3000));
        append(fixture, (uint32_t)fake_machine_random(fixture->machine, 200));
        append(fixture, (uint32_t)fake_machine_random(fixture->machine, 500));
        log_fixture_settle(fixture);
        log_fixture_prepared(fixture);
    }
}

static int keep_entry(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct small_log *log = context;
    (void)error;
    if (log->count == log->room) {
        log->room = log->room > 0 ? log->room * 2 : 64;
        log->entries = realloc(log->entries, log->room * sizeof *log->entries);
        assert_non_null(log->entries);
    }
    uint8_t *body = malloc(entry->size + 1);
    assert_non_null(body);
    memcpy(body, entry->body, entry->size);
    log->entries[log->count] = *entry;
    log->entries[log->count++].body = body;
    return 0;
}

static void small_log_make(struct small_log *log)
{
    struct log_fixture fixture;
    log_fixture_init(&fixture, 7, DURABILITY_SYNC);
    fixture.config.batch_bytes = BLOCK;
    fixture.config.largest_body = 3500;
    fixture.config.segment_bytes = 5 * BLOCK;
    assert_int_equal(log_fixture_open(&fixture), 0);
    log_fixture_prepared(&fixture);
    fill_to(&fixture, 3);
    assert_int_equal(log_fixture_snapshot(&fixture), 0);
    assert_int_equal(log_fixture_snapshot(&fixture), 0); /* slots 0 and 1 are free, the spare is in slot 3 */
    fill_to(&fixture, 4);
    log_fixture_crash(&fixture);
    assert_int_equal(log_fixture_open(&fixture), 0); /* the second epoch */
    log_forget(fixture.log, fixture.segment);
    log_fixture_prepared(&fixture);
    fill_to(&fixture, 5);
    log_fixture_prepared(&fixture);
    assert_int_equal(log_segment(fixture.log), 5);
    assert_int_equal(log_fixture_close(&fixture), 0);

    *log = (struct small_log){.config = fixture.config, .start = {.index = fixture.after, .segment = fixture.segment}};
    flat_copy(&log->io, fixture.machine);
    log->config.io = &log->io.io;
    log->config.notice = NULL;
    log->config.progress = NULL;
    assert_int_equal(log->io.count, 4);
    for (unsigned n = 0; n < log->io.count; n++)
        assert_int_equal(log->io.files[n].size, log->config.segment_bytes);
    struct mr_error error;
    if (log_read(&log->config, &log->start, keep_entry, log, &log->report, &error) != 0)
        fail_msg("%s", error.text);
    assert_int_equal(log->start.index + log->count, fixture.durable.count);
    assert_true(log->count > 15);
    assert_int_equal(log->report.torn_batches, 0);
    log_fixture_free(&fixture);
}

static void small_log_free(struct small_log *log)
{
    for (unsigned n = 0; n < log->count; n++)
        free((void *)(uintptr_t)log->entries[n].body);
    free(log->entries);
    flat_free(&log->io);
}

/* What became of a changed log or snapshot. */
enum outcome { SAME, REPORTED, OTHER };

struct compared {
    const struct small_log *log;
    unsigned count;
    bool differ;
};

static int compare_entry(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct compared *compared = context;
    (void)error;
    if (compared->count == compared->log->count) {
        compared->differ = true;
        return 0;
    }
    const struct log_entry *kept = &compared->log->entries[compared->count++];
    compared->differ |= entry->index != kept->index || entry->time != kept->time || entry->size != kept->size ||
                        entry->failed || memcmp(&entry->origin, &kept->origin, sizeof kept->origin) != 0 ||
                        memcmp(entry->body, kept->body, kept->size) != 0;
    return 0;
}

static enum outcome read_log(const struct small_log *log, const char *name)
{
    struct compared compared = {.log = log};
    struct log_recovery report;
    struct mr_error error = {0};
    if (log_read(&log->config, &log->start, compare_entry, &compared, &report, &error) != 0) {
        if (!strstr(error.text, name) || error.code != 0)
            fail_msg("a change of %s gives: %s", name, error.text);
        return REPORTED;
    }
    bool same = compared.count == log->count && !compared.differ && report.last_index == log->report.last_index &&
                report.time <= log->report.time;
    return same ? SAME : OTHER;
}

/* ---- trying ---- */

struct tally {
    uint64_t outcomes[3];
    char first_other[128];
};

/* The first of every `every` that is tried; the rest follow from it. */
static uint64_t begin_at(const char *what, unsigned every)
{
    uint64_t seed = every > 1 ? (uint64_t)(uintptr_t)&seed / 16 % every : 0; /* differs with the address space */
    if (every > 1)
        print_message("%s: every %uth, from the %lluth on\n", what, every, (unsigned long long)seed);
    return seed;
}

static void note(struct tally *tally, enum outcome outcome, const char *name, const char *what, uint64_t where)
{
    if (outcome == OTHER && tally->outcomes[OTHER] == 0)
        snprintf(tally->first_other, sizeof tally->first_other, "%s, %s %llu", name, what, (unsigned long long)where);
    tally->outcomes[outcome]++;
}

static struct tally flip_all(struct small_log *log, unsigned every)
{
    struct tally tally = {0};
    uint64_t begin = begin_at("bits of a log", every);
    for (unsigned n = 0; n < log->io.count; n++) {
        struct flat_file *file = &log->io.files[n];
        for (uint64_t bit = begin; bit < file->size * 8; bit += every) {
            file->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            note(&tally, read_log(log, file->name), file->name, "bit", bit);
            file->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
    return tally;
}

static void expect_no_other(const struct tally *tally)
{
    print_message("%llu the same, %llu reported\n", (unsigned long long)tally->outcomes[SAME],
                  (unsigned long long)tally->outcomes[REPORTED]);
    if (tally->outcomes[OTHER] > 0)
        fail_msg("%llu give something else: %s", (unsigned long long)tally->outcomes[OTHER], tally->first_other);
}

static void every_bit_of_a_log(void **state)
{
    (void)state;
    struct small_log log;
    small_log_make(&log);
    struct tally tally = flip_all(&log, EVERY);
    expect_no_other(&tally);
    /* Both happen: most of what the log needs is reported; what it does not need makes no difference. */
    assert_true(tally.outcomes[SAME] > 10000 / EVERY && tally.outcomes[REPORTED] > 100000 / EVERY);
    small_log_free(&log);
}

static void every_length_of_a_log(void **state)
{
    (void)state;
    struct small_log log;
    struct tally tally = {0};
    small_log_make(&log);
    uint64_t begin = begin_at("lengths of a log", EVERY);
    for (unsigned n = 0; n < log.io.count; n++) {
        struct flat_file *file = &log.io.files[n];
        uint64_t whole = file->size;
        for (uint64_t size = begin; size < whole; size += EVERY) {
            file->size = size;
            note(&tally, read_log(&log, file->name), file->name, "length", size);
        }
        file->size = whole;
    }
    expect_no_other(&tally);
    small_log_free(&log);
}

/* Reading by a wrong rule, the same tries find it: they are no formality. */
static void the_tries_find_a_wrong_rule(void **state)
{
    (void)state;
    struct small_log log;
    small_log_make(&log);
    planted_fault = PLANTED_WRONG_TORN_RULE;
    struct tally tally = flip_all(&log, 997);
    planted_fault = PLANTED_NOTHING;
    assert_true(tally.outcomes[OTHER] > 50);
    small_log_free(&log);
}

/* ---- a snapshot ---- */

struct small_snapshot {
    struct flat_io io;
    struct snapshot_place place;
    struct snapshot snapshot;
    uint8_t *sections[2]; /* what was written */
    uint64_t sizes[2];
};

static void small_snapshot_make(struct small_snapshot *small, uint64_t first, uint64_t second)
{
    struct fake_machine *machine = fake_machine_create(1);
    fake_make_directory(machine, LOG_FIXTURE_PATH);
    *small = (struct small_snapshot){.place = {.io = fake_io_create(machine),
                                               .path = LOG_FIXTURE_PATH,
                                               .partition = 1,
                                               .secret = UINT64_C(0xabcdef)},
                                     .sizes = {first, second}};
    struct snapshot_point point = {.index = 77, .time = 1234567, .segment = 3};
    struct mr_error error;
    struct snapshot_writer *writer = snapshot_begin(&small->place, &point, 1, &error);
    assert_non_null(writer);
    for (unsigned section = 0; section < 2; section++) {
        small->sections[section] = malloc(small->sizes[section]);
        assert_non_null(small->sections[section]);
        for (uint64_t n = 0; n < small->sizes[section]; n++)
            small->sections[section][n] = (uint8_t)fake_machine_random(machine, 256);
        snapshot_write(writer, small->sections[section], small->sizes[section]);
        if (section == 0)
            snapshot_next_section(writer);
    }
    uint64_t bytes;
    assert_int_equal(snapshot_commit(writer, NULL, NULL, &bytes, &error), 0);
    struct snapshot_list list;
    assert_int_equal(snapshot_find(&small->place, &list, &error), 0);
    assert_int_equal(list.count, 1);
    small->snapshot = list.snapshots[0];
    snapshot_list_free(&list);
    flat_copy(&small->io, machine);
    small->place.io = &small->io.io;
    fake_machine_destroy(machine);
}

static void small_snapshot_free(struct small_snapshot *small)
{
    free(small->sections[0]);
    free(small->sections[1]);
    flat_free(&small->io);
}

static enum outcome read_snapshot(const struct small_snapshot *small)
{
    struct snapshot snapshot = small->snapshot;
    struct snapshot_content content;
    struct mr_error error = {0};
    if (snapshot_load(&small->place, &snapshot, &content, NULL, NULL, &error) != 0) {
        if (!strstr(error.text, snapshot.name) || error.code != 0)
            fail_msg("a change gives: %s", error.text);
        return REPORTED;
    }
    bool same = snapshot.point.index == 77 && snapshot.point.time == 1234567 && snapshot.point.segment == 3;
    for (unsigned section = 0; section < 2; section++)
        same = same && content.sizes[section] == small->sizes[section] &&
               memcmp(content.sections[section], small->sections[section], small->sizes[section]) == 0;
    snapshot_unload(&content);
    return same ? SAME : OTHER;
}

static void flip_snapshot(struct small_snapshot *small, uint64_t begin, uint64_t end, unsigned every,
                          struct tally *tally)
{
    struct flat_file *file = &small->io.files[0];
    for (uint64_t bit = begin; bit < end; bit += every) {
        file->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        note(tally, read_snapshot(small), file->name, "bit", bit);
        file->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void cut_snapshot(struct small_snapshot *small, uint64_t every, struct tally *tally)
{
    struct flat_file *file = &small->io.files[0];
    uint64_t whole = file->size;
    for (uint64_t size = 0; size < whole; size += every) {
        file->size = size;
        note(tally, read_snapshot(small), file->name, "length", size);
    }
    file->size = whole;
}

static void every_bit_and_length_of_a_snapshot(void **state)
{
    (void)state;
    struct small_snapshot small;
    struct tally tally = {0};
    small_snapshot_make(&small, 7000, 900); /* two blocks, the last of them not full */
    assert_int_equal(small.io.files[0].size, 2 * BLOCK);
    assert_int_equal(read_snapshot(&small), SAME);
    flip_snapshot(&small, begin_at("bits of a snapshot", EVERY), small.io.files[0].size * 8, EVERY, &tally);
    assert_int_equal(tally.outcomes[SAME], 0); /* not one is unchecked */
    cut_snapshot(&small, EVERY, &tally);
    expect_no_other(&tally);
    small_snapshot_free(&small);
}

/* One of two chunks, each of whose bits takes a megabyte to check: both heads whole, of the rest some. */
static void many_bits_and_lengths_of_a_larger_one(void **state)
{
    (void)state;
    struct small_snapshot small;
    struct tally tally = {0};
    small_snapshot_make(&small, SNAPSHOT_CHUNK, 900);
    assert_int_equal(small.io.files[0].size, SNAPSHOT_CHUNK + BLOCK);
    assert_int_equal(read_snapshot(&small), SAME);
    uint64_t second = SNAPSHOT_CHUNK * 8;
    flip_snapshot(&small, 0, UINT64_C(8) * SNAPSHOT_HEAD_BYTES, EVERY, &tally);
    flip_snapshot(&small, 0, second, 30011 * EVERY, &tally);
    flip_snapshot(&small, second, second + UINT64_C(8) * SNAPSHOT_HEAD_BYTES, EVERY, &tally);
    flip_snapshot(&small, second, small.io.files[0].size * 8, 127 * EVERY, &tally);
    assert_int_equal(tally.outcomes[SAME], 0);
    cut_snapshot(&small, BLOCK, &tally);
    cut_snapshot(&small, 4001 * EVERY, &tally);
    expect_no_other(&tally);
    small_snapshot_free(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_of_a_log),
        cmocka_unit_test(every_length_of_a_log),
        cmocka_unit_test(the_tries_find_a_wrong_rule),
        cmocka_unit_test(every_bit_and_length_of_a_snapshot),
        cmocka_unit_test(many_bits_and_lengths_of_a_larger_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
