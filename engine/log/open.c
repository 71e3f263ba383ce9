/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a log. Recovery reads what is there; then a new epoch begins where it ended: in the block behind the last
 * accepted batch, or in the next segment if that one is full. Everything accepted has been flushed by then, and
 * log_open() returns when the epoch's first batch is durable. That batch overwrites the beginning of whatever was torn;
 * the rest of it is of an older epoch, so that it can never be accepted, and is overwritten with zeros so that it is
 * not reported again. Until the epoch's batch nothing is written to a segment in use.
 *
 * log_read() is recovery alone. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/log/inside.h"

static uint64_t least_segment(const struct log *log)
{
    uint64_t largest = log->large_bytes > log->small_bytes ? log->large_bytes : log->small_bytes;
    return SEGMENT_BLOCK_MIN + 4 * round_up(largest, SEGMENT_BLOCK_MIN);
}

static int check_config(struct log *log, struct mr_error *error)
{
    const struct log_config *config = &log->config;
    log->small_bytes = round_up(config->batch_bytes, 8);
    log->large_bytes = BATCH_HEADER_BYTES + entry_bytes(config->largest_body);
    if (config->segment_bytes < least_segment(log))
        return error_set(
            error,
            "a segment of %" PRIu64 " bytes does not hold four of the largest batches (%" PRIu64
            " bytes for a payload of %" PRIu32 ", or %" PRIu64 " for a full batch): make segments at least %" PRIu64
            " bytes, or payloads and batches smaller",
            config->segment_bytes, log->large_bytes, config->largest_body, log->small_bytes, least_segment(log));
    return 0;
}

static uint8_t *carve(uint8_t **next, uint64_t size)
{
    uint8_t *memory = *next;
    *next += size;
    return memory;
}

static int make_buffers(struct log *log, struct mr_error *error)
{
    bool large = log->large_bytes > log->small_bytes;
    log->empty = &log->pool[ALL_BATCHES - 1];
    for (unsigned n = SMALL_BATCHES; !large && n < SMALL_BATCHES + LARGE_BATCHES; n++)
        log->pool[n].state = BATCH_FAILED; /* never free */
    if (log->memory)
        return 0;
    uint64_t small_room = round_up(log->small_bytes, BUFFER_UNIT);
    uint64_t large_room = large ? round_up(log->large_bytes, BUFFER_UNIT) : 0;
    log->zeros_size = earlier(PREPARE_PIECE, round_up(log->config.segment_bytes, BUFFER_UNIT));
    log->region_size = SMALL_BATCHES * small_room + LARGE_BATCHES * large_room + 3 * BUFFER_UNIT + log->zeros_size;
    log->region = io_memory(log->region_size, error);
    if (!log->region)
        return -1;
    uint8_t *next = log->region;
    for (unsigned n = 0; n < ALL_BATCHES; n++) {
        uint64_t room = n < SMALL_BATCHES ? small_room : n < ALL_BATCHES - 1 ? large_room : BUFFER_UNIT;
        log->pool[n].bytes = carve(&next, room);
        log->pool[n].room = room;
    }
    log->segment_block = carve(&next, BUFFER_UNIT);
    log->epoch_block = carve(&next, BUFFER_UNIT);
    log->zeros = carve(&next, log->zeros_size);
    struct mr_error refused = {0};
    log->registered = log->ops->register_buffers(log->io, log->region, log->region_size, &refused) == 0;
    if (!log->registered)
        log_notice(log, "the log's buffers could not be registered, and writes go on without: %s", refused.text);
    return 0;
}

/* A segment that recovery found, opened to be written to. */
static struct segment *take_segment(struct log *log, const struct segment *found, struct mr_error *error)
{
    struct segment *segment = calloc(1, sizeof *segment);
    if (!segment) {
        error_system(error, ENOMEM, "no memory for a segment");
        return NULL;
    }
    *segment = *found;
    segment->file = -1;
    if (segment_open(segment, &log->config, log->directory, SEGMENT_WRITE, error) != 0 ||
        (log->memory && segment_map(segment, error) != 0)) {
        segment_close(segment, &log->config);
        free(segment);
        return NULL;
    }
    (void)segment_adopt(log, segment);
    return segment;
}

/* A slot behind the last segment in use that is not needed as it is. */
static bool free_slot(struct log *log, const struct segment *found, bool blank)
{
    struct segment slot = *found;
    if (blank)
        slot.number = 0;
    return slots_free(log, &slot);
}

/* The last segment in use, or one behind it. */
static int take_tail(struct log *log, const struct segment *found, bool current, struct mr_error *error)
{
    if (!current && log->spare)
        return free_slot(log, found, false) ? 0 : error_system(error, ENOMEM, "no memory for the list of slots");
    struct segment *segment = take_segment(log, found, error);
    if (!segment)
        return -1;
    log->bytes += segment->size;
    if (current) {
        log->current = segment;
        return 0;
    }
    if (segment_aligned(log, segment) && segment->size >= least_segment(log)) {
        log->spare = segment;
        return 0;
    }
    log->bytes -= segment->size;
    segment_discard(log, segment);
    return free_slot(log, found, false) ? 0 : error_system(error, ENOMEM, "no memory for the list of slots");
}

/* What recovery found becomes what the log goes on from. Of the segments behind the last one in use the first becomes
 * the spare, if it is fit to be one; others, and slots without a header, are free. Those before the start are held:
 * an older snapshot than the one that was read may need them, until log_forget() says otherwise. */
static int take_over(struct log *log, const struct recovery *recovery, struct mr_error *error)
{
    log->durable = recovery->last;
    log->highest_epoch = recovery->highest_epoch;
    log->next_number = recovery->highest_number + 1;
    log->next_slot = recovery->next_slot;
    log->needed = recovery->start.needed;
    log->time = recovery->last.time;
    log->grown = recovery->report->bytes;
    bool kept = true;
    for (unsigned n = 0; n < recovery->blank_count; n++)
        kept = kept && free_slot(log, &recovery->blanks[n], true);
    for (unsigned n = 0; n < recovery->current; n++) {
        kept = kept && slots_hold(log, &recovery->segments[n]);
        log->bytes += recovery->segments[n].size;
    }
    if (!kept)
        return error_system(error, ENOMEM, "no memory for the list of slots");
    for (unsigned n = recovery->current; n < recovery->count; n++)
        if (take_tail(log, &recovery->segments[n], n == recovery->current, error) != 0)
            return -1;
    if (log->current)
        log->offset = segment_aligned(log, log->current) ? recovery->end : log->current->size;
    return 0;
}

/* A predecessor may have died between writing a segment's header and making that and its name durable. */
static int settle_spare(struct log *log, struct mr_error *error)
{
    if (log->memory)
        return 0;
    int synced = log->spare ? log->ops->sync_now(log->io, log->spare->file) : 0;
    if (synced == 0)
        synced = log->ops->sync_now(log->io, log->directory);
    return synced == 0 ? 0 : error_system(error, -synced, "cannot flush the segments of %s", log->path);
}

/* Writes, durably, and waits for it: at start only. */
static int write_now(struct log *log, const struct segment *segment, const void *bytes, uint64_t size, uint64_t offset,
                     struct mr_error *error)
{
    log->waiting = true;
    log->ops->write(log->io, segment->file, bytes, size, offset, true, token_make(TOKEN_WAITED, 0));
    while (log->waiting)
        log_wait(log);
    if (log->waited == (int32_t)size)
        return 0;
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    return error_system(error, log->waited < 0 ? -log->waited : EIO, "cannot write to %s/%s at offset %" PRIu64,
                        log->path, name, offset);
}

/* The segment in which the new epoch is to begin becomes the current one. */
static int find_place(struct log *log, struct mr_error *error)
{
    if (log->current && log->offset + round_up(BATCH_HEADER_BYTES, log->current->block) <= log->current->size)
        return 0;
    while (!log->spare) {
        prepare_step(log);
        if (log->prepare.trouble[0] != '\0') {
            error_set(error, "%s", log->prepare.trouble);
            error->code = log->prepare.code; /* no damage: another attempt may find room */
            return -1;
        }
        if (!log->spare)
            log_wait(log);
    }
    struct segment *left = log->current;
    log->current = log->spare;
    log->spare = NULL;
    log->offset = segment_first_offset(log->current);
    if (left)
        segment_leave(log, left);
    return 0;
}

/* Zeros over what was cut off, from `start` to `end`. */
static int wipe(struct log *log, const struct segment *segment, uint64_t start, uint64_t end, struct mr_error *error)
{
    if (log->memory && start < end)
        memset(segment->mapping + start, 0, end - start);
    for (uint64_t offset = start; !log->memory && offset < end;) {
        uint64_t size = earlier(end - offset, log->zeros_size);
        if (write_now(log, segment, log->zeros, size, offset, error) != 0)
            return -1;
        offset += size;
    }
    return 0;
}

static uint64_t remains_of(const struct recovery *recovery, const struct segment *segment)
{
    for (unsigned n = 0; n < recovery->count; n++)
        if (recovery->segments[n].number == segment->number)
            return recovery->remains[n];
    return 0;
}

static int begin_epoch(struct log *log, const struct recovery *recovery, struct mr_error *error)
{
    if (settle_spare(log, error) != 0 || find_place(log, error) != 0)
        return -1;
    struct segment *segment = log->current;
    uint64_t bytes = round_up(BATCH_HEADER_BYTES, segment->block);
    if (log->memory) {
        epoch_seal(log, segment, segment->mapping + log->offset);
    } else {
        memset(log->epoch_block, 0, bytes);
        epoch_seal(log, segment, log->epoch_block);
        if (write_now(log, segment, log->epoch_block, bytes, log->offset, error) != 0)
            return -1;
    }
    epoch_adopt(log, log->offset + bytes);
    log->reading = segment->number;
    if (wipe(log, segment, log->offset, remains_of(recovery, segment), error) != 0)
        return -1;
    const struct segment *spare = log->spare;
    return spare ? wipe(log, spare, segment_first_offset(spare), remains_of(recovery, spare), error) : 0;
}

static int open_directory(struct log *log, struct mr_error *error)
{
    log->directory = -1;
    if (log->memory)
        return 0;
    int directory = log->ops->open_directory(log->io, log->path);
    if (directory < 0)
        return error_system(error, -directory, "cannot open the directory %s", log->path);
    log->directory = directory;
    return 0;
}

static void tell_findings(const struct log *log, const struct log_recovery *report)
{
    if (report->torn_batches > 0)
        log_notice(log,
                   "cut off %" PRIu64 " batches (%" PRIu64 " bytes) that were written but never acknowledged, in %s/%s "
                   "from offset %" PRIu64 "; the log ends at index %" PRIu64,
                   report->torn_batches, report->torn_bytes, log->path, report->torn_file, report->torn_offset,
                   report->last_index);
    if (!log->memory && !log->ops->is_direct(log->io, log->current->file))
        log_notice(log, "%s does not allow direct writes: they go through the page cache, with the same flush",
                   log->path);
}

int log_open(const struct log_config *config, const struct log_start *start, log_replay_fn *replay, void *context,
             struct log_recovery *report, struct log **out, struct mr_error *error)
{
    struct log *log = calloc(1, sizeof *log);
    if (!log)
        return error_system(error, ENOMEM, "no memory for a log");
    log->config = *config;
    log->io = config->io;
    log->ops = config->io->ops;
    log->memory = config->durability == DURABILITY_MEMORY;
    log->flush_due = UINT64_MAX;
    log->directory = -1;
    snprintf(log->path, sizeof log->path, "%s", config->path);
    log->config.path = log->path;
    struct recovery recovery = {.config = &log->config, .start = *start};
    int result = check_config(log, error);
    if (result == 0)
        result = open_directory(log, error);
    recovery.directory = log->directory;
    if (result == 0)
        result = recovery_run(&recovery, replay, context, report, error);
    if (result == 0)
        result = make_buffers(log, error);
    if (result == 0)
        result = take_over(log, &recovery, error);
    if (result == 0)
        result = begin_epoch(log, &recovery, error);
    recovery_free(&recovery);
    if (result != 0) {
        log_abandon(log);
        return -1;
    }
    report->epoch = log->epoch;
    tell_findings(log, report);
    *out = log;
    return 0;
}

int log_read(const struct log_config *config, const struct log_start *start, log_replay_fn *replay, void *context,
             struct log_recovery *report, struct mr_error *error)
{
    struct io *io = config->io;
    struct recovery recovery = {.config = config, .directory = -1, .read_only = true, .start = *start};
    bool memory = config->durability == DURABILITY_MEMORY;
    int directory = memory ? -1 : io->ops->open_directory(io, config->path);
    if (!memory && directory < 0)
        return error_system(error, -directory, "cannot open the directory %s", config->path);
    recovery.directory = directory;
    int result = recovery_run(&recovery, replay, context, report, error);
    report->epoch = recovery.highest_epoch;
    recovery_free(&recovery);
    if (directory >= 0)
        io->ops->close(io, directory);
    return result;
}
