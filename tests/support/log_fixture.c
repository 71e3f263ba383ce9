/* SPDX-License-Identifier: Apache-2.0 */
/* The log's fixture and model. */
#include "tests/support/log_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipc/sys.h"
#include "millrace/limits.h"

static void push(struct log_fixture_list *list, struct log_fixture_entry entry)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity > 0 ? list->capacity * 2 : 256;
        list->entries = realloc(list->entries, list->capacity * sizeof *list->entries);
        assert_non_null(list->entries);
    }
    list->entries[list->count++] = entry;
}

static struct log_fixture_entry shift(struct log_fixture_list *list)
{
    assert_true(list->count > 0);
    struct log_fixture_entry first = list->entries[0];
    memmove(list->entries, list->entries + 1, --list->count * sizeof *list->entries);
    return first;
}

static uint8_t body_byte(uint64_t id, uint32_t at)
{
    return (uint8_t)(id * 131 + at * 7 + (at >> 8) + 1);
}

/* What comes out has to be what went in. */
static void check_entry(const struct log_entry *entry, const struct log_fixture_entry *expected)
{
    assert_int_equal(entry->origin.position, expected->id);
    assert_int_equal(entry->origin.channel, expected->id % 7);
    assert_int_equal(entry->origin.frame_size, expected->size + 64);
    assert_int_equal(entry->origin.uid, 1000 + expected->id % 3);
    assert_int_equal(entry->size, expected->size);
    assert_int_equal(entry->time, expected->time);
    assert_int_equal((uintptr_t)entry->body % 8, 0);
    for (uint32_t n = 0; n < entry->size; n++)
        if (entry->body[n] != body_byte(expected->id, n))
            fail_msg("entry %llu differs at byte %u", (unsigned long long)expected->id, n);
}

static void on_notice(void *context, const char *text)
{
    struct log_fixture *fixture = context;
    size_t used = strlen(fixture->notices);
    snprintf(fixture->notices + used, sizeof fixture->notices - used, "%s\n", text);
}

static void on_progress(void *context, uint64_t done, uint64_t total)
{
    struct log_fixture *fixture = context;
    assert_true(done <= total);
    fixture->progress++;
}

static int memory_segment(void *context, uint32_t slot, struct mr_error *error)
{
    struct log_fixture *fixture = context;
    assert_true(slot < sizeof fixture->memfds / sizeof *fixture->memfds);
    if (fixture->no_memfds && slot >= fixture->memfd_count)
        return error_set(error, "no more memory segments");
    if (slot >= fixture->memfd_count) {
        assert_int_equal(slot, fixture->memfd_count);
        int fd = sys_memfd_create("segment", 0);
        assert_true(fd >= 0);
        assert_int_equal(sys_ftruncate(fd, (off_t)fixture->config.segment_bytes), 0);
        fixture->memfds[fixture->memfd_count++] = fd;
    }
    return fixture->memfds[slot];
}

static void init(struct log_fixture *fixture, const char *path, enum durability durability)
{
    fixture->config = (struct log_config){.path = path,
                                          .partition = 1,
                                          .secret = UINT64_C(0x123456789abcdef),
                                          .durability = durability,
                                          .batch_bytes = 8 * MR_KIB,
                                          .segment_bytes = 256 * MR_KIB,
                                          .largest_body = 16 * MR_KIB,
                                          .flush_interval = MR_FLUSH_INTERVAL_DEFAULT,
                                          .memory_segment = memory_segment,
                                          .memory_context = fixture,
                                          .progress = on_progress,
                                          .progress_context = fixture,
                                          .notice = on_notice,
                                          .notice_context = fixture};
    fixture->time = 1000000;
    fixture->due = UINT64_MAX;
}

void log_fixture_init(struct log_fixture *fixture, uint64_t seed, enum durability durability)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->machine = fake_machine_create(seed);
    fake_make_directory(fixture->machine, LOG_FIXTURE_PATH);
    fixture->io = fake_io_create(fixture->machine);
    init(fixture, LOG_FIXTURE_PATH, durability);
}

void log_fixture_init_real(struct log_fixture *fixture, struct io *io, const char *path, enum durability durability)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->io = io;
    init(fixture, path, durability);
}

void log_fixture_free(struct log_fixture *fixture)
{
    if (fixture->machine)
        fake_io_crash_process(fixture->io);
    if (fixture->log)
        log_abandon(fixture->log);
    if (fixture->machine)
        fake_machine_destroy(fixture->machine);
    for (unsigned n = 0; n < fixture->memfd_count; n++)
        (void)sys_close(fixture->memfds[n]);
    free(fixture->durable.entries);
    free(fixture->pending.entries);
    memset(fixture, 0, sizeof *fixture);
}

static int on_replay(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct log_fixture *fixture = context;
    (void)error;
    uint64_t at = fixture->after + fixture->replayed++;
    assert_int_equal(entry->index, at + 1);
    assert_false(entry->failed);
    if (at < fixture->durable.count) {
        check_entry(entry, &fixture->durable.entries[at]);
        return 0;
    }
    if (fixture->pending.count == 0)
        fail_msg("index %llu holds entry %llu, which was never appended or was refused",
                 (unsigned long long)entry->index, (unsigned long long)entry->origin.position);
    check_entry(entry, &fixture->pending.entries[0]);
    push(&fixture->durable, shift(&fixture->pending));
    return 0;
}

int log_fixture_open(struct log_fixture *fixture)
{
    assert_null(fixture->log);
    fixture->config.io = fixture->io;
    fixture->config.memory_slots = fixture->memfd_count;
    fixture->replayed = 0;
    struct log *log = NULL;
    struct log_start start = {.index = fixture->after, .segment = fixture->segment};
    fixture->error = (struct mr_error){0};
    int result = log_open(&fixture->config, &start, on_replay, fixture, &fixture->report, &log, &fixture->error);
    if (result != 0) {
        assert_int_equal(result, -1);
        assert_null(log);
        assert_true(fixture->error.text[0] != '\0');
        return result;
    }
    fixture->log = log;
    uint64_t end = fixture->after + fixture->replayed;
    assert_int_equal(fixture->report.entries, fixture->replayed);
    assert_int_equal(fixture->report.last_index, end);
    assert_int_equal(log_durable_index(log), end);
    if (end < fixture->durable.count && fixture->durable.count - end > fixture->may_lose)
        fail_msg("%llu entries that were durable are lost", (unsigned long long)(fixture->durable.count - end));
    fixture->durable.count = (unsigned)end;
    if (end > 0)
        assert_true(fixture->report.time >= fixture->durable.entries[end - 1].time);
    fixture->pending.count = 0;
    return 0;
}

bool log_fixture_append(struct log_fixture *fixture, uint32_t size)
{
    uint8_t *body = log_reserve(fixture->log, size);
    if (!body)
        return false;
    assert_int_equal((uintptr_t)body % 8, 0);
    uint64_t id = fixture->next_id++;
    for (uint32_t n = 0; n < size; n++)
        body[n] = body_byte(id, n);
    fixture->time += 1 + id % 1000;
    struct log_origin origin = {
        .channel = id % 7, .position = id, .frame_size = size + 64, .uid = (uint32_t)(1000 + id % 3)};
    assert_true(log_append(fixture->log, fixture->time, &origin, size) > fixture->durable.count);
    push(&fixture->pending, (struct log_fixture_entry){.id = id, .time = fixture->time, .size = size});
    return true;
}

unsigned log_fixture_complete(struct log_fixture *fixture)
{
    struct io_completion completions[8];
    unsigned all = 0, count;
    while ((count = fixture->io->ops->completions(fixture->io, completions, 8)) > 0) {
        for (unsigned n = 0; n < count; n++) {
            assert_true(completions[n].token & LOG_TOKEN);
            log_complete(fixture->log, &completions[n]);
        }
        all += count;
    }
    return all;
}

unsigned log_fixture_take(struct log_fixture *fixture)
{
    struct log_entry entry;
    unsigned count = 0;
    for (; log_next(fixture->log, &entry); count++) {
        struct log_fixture_entry expected = shift(&fixture->pending);
        check_entry(&entry, &expected);
        if (entry.failed) {
            fixture->failed++;
            continue;
        }
        expected.known = fixture->io->ops->monotonic(fixture->io);
        push(&fixture->durable, expected);
        assert_int_equal(entry.index, fixture->durable.count);
    }
    return count;
}

void log_fixture_turn(struct log_fixture *fixture)
{
    log_fixture_complete(fixture);
    log_fixture_take(fixture);
    log_submit(fixture->log, false);
    log_fixture_take(fixture); /* in memory they are durable at once */
    fixture->due = log_tick(fixture->log, fixture->time);
}

/* As a worker with nothing to do: until a completion comes or something is due. */
static void rest(struct log_fixture *fixture, uint64_t at_most)
{
    uint64_t now = fixture->io->ops->monotonic(fixture->io);
    uint64_t wait = fixture->due > now ? fixture->due - now : 0;
    fixture->io->ops->sleep(fixture->io, wait < at_most ? wait : at_most);
}

void log_fixture_settle(struct log_fixture *fixture)
{
    for (unsigned turns = 0; fixture->pending.count > 0; turns++) {
        log_fixture_turn(fixture);
        if (fixture->pending.count > 0)
            rest(fixture, MR_SECOND);
        if (turns > 100000)
            fail_msg("%u entries are neither durable nor failed", fixture->pending.count);
    }
}

void log_fixture_idle(struct log_fixture *fixture, uint64_t nanoseconds)
{
    uint64_t end = fixture->io->ops->monotonic(fixture->io) + nanoseconds;
    for (uint64_t now; (now = fixture->io->ops->monotonic(fixture->io)) < end;) {
        log_fixture_turn(fixture);
        rest(fixture, end - now);
    }
    log_fixture_turn(fixture);
}

void log_fixture_prepared(struct log_fixture *fixture)
{
    uint64_t bytes = log_bytes(fixture->log);
    for (unsigned turns = 0; turns < 10000; turns++) {
        log_fixture_turn(fixture);
        if (turns > 0 && log_fixture_complete(fixture) == 0 && log_bytes(fixture->log) >= bytes &&
            (!fixture->machine || fake_io_in_flight(fixture->io) == 0))
            return;
        fixture->io->ops->sleep(fixture->io, MR_MILLISECOND);
    }
    fail_msg("no spare segment is ever ready");
}

int log_fixture_snapshot(struct log_fixture *fixture)
{
    uint64_t segment = log_segment(fixture->log);
    if (log_flush_now(fixture->log, fixture->io, &fixture->error) != 0)
        return -1;
    fixture->older_segment = fixture->segment;
    fixture->after = fixture->durable.count;
    fixture->segment = segment;
    log_forget(fixture->log, fixture->older_segment);
    return 0;
}

static void new_process(struct log_fixture *fixture)
{
    if (fixture->log)
        log_abandon(fixture->log);
    fixture->log = NULL;
    fixture->io = fake_io_create(fixture->machine);
}

void log_fixture_crash(struct log_fixture *fixture)
{
    fake_io_crash_process(fixture->io);
    new_process(fixture);
}

void log_fixture_power_cut(struct log_fixture *fixture)
{
    fake_machine_power_cut(fixture->machine);
    new_process(fixture);
}

int log_fixture_close(struct log_fixture *fixture)
{
    int result = log_close(fixture->log, fixture->time, &fixture->error);
    fixture->log = NULL;
    return result;
}
