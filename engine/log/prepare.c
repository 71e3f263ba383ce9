/* SPDX-License-Identifier: Apache-2.0 */
/* A spare segment, always: the log goes over to it when the current segment is full, or at once when a write has
 * failed.
 *
 * Making one: its file is made under the next free slot and locked; its blocks are reserved, so that a full disk shows
 * now; zeros are written from end to end, one piece in flight at a time so that batches are hardly disturbed; that is
 * synced; then its header is written, and its name made durable. Only then is it a spare. Whatever fails, the file is
 * removed, and after a while it is tried again. A slot that was left without a header by a predecessor is used first.
 * In `memory` a spare is a memfd that somebody else gives; new ones are zeros already. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/log/inside.h"

/* ---- open segments ---- */

bool segment_adopt(struct log *log, struct segment *segment)
{
    if (log->open_count == OPEN_SEGMENTS_MAX)
        return false;
    log->open_segments[log->open_count++] = segment;
    return true;
}

void segment_discard(struct log *log, struct segment *segment)
{
    for (unsigned n = 0; n < log->open_count; n++)
        if (log->open_segments[n] == segment)
            log->open_segments[n] = log->open_segments[--log->open_count];
    segment_close(segment, &log->config);
    free(segment);
}

void segment_release(struct log *log, struct segment *segment)
{
    bool needed = segment == log->current || segment == log->spare || segment == log->prepare.segment ||
                  segment->users > 0 || segment->dirty || segment->flushing;
    if (!needed)
        segment_discard(log, segment);
}

void segment_drop_file(struct log *log, struct segment *segment)
{
    char name[SEGMENT_NAME_SIZE];
    uint32_t slot = segment->slot;
    segment_name(name, slot);
    log->bytes -= segment->size;
    segment_discard(log, segment);
    /* If it stays, it stays as a slot that holds nothing. */
    if (log->ops->remove(log->io, log->directory, name) == 0 && slot + 1 == log->next_slot)
        log->next_slot--;
}

bool segment_aligned(const struct log *log, const struct segment *segment)
{
    return log->memory || segment->block % log->ops->alignment(log->io, segment->file) == 0;
}

/* ---- making one ---- */

static void ready(struct log *log)
{
    struct prepare *prepare = &log->prepare;
    log->spare = prepare->segment;
    prepare->segment = NULL;
    prepare->state = PREPARE_IDLE;
    if (prepare->trouble[0] != '\0')
        log_notice(log, "there is room for a new segment again");
    prepare->trouble[0] = '\0';
    log->full = false;
    epoch_step(log);
}

/* `why` says what did not work and, for a system call, the reason. */
static void failed(struct log *log, const struct mr_error *why)
{
    struct prepare *prepare = &log->prepare;
    bool first = prepare->trouble[0] == '\0';
    bool space = why->code == ENOSPC || why->code == EDQUOT;
    snprintf(prepare->trouble, sizeof prepare->trouble, "%s a new segment of %" PRIu64 " bytes: %.256s",
             space ? "no space for" : "cannot make", log->config.segment_bytes, why->text);
    if (first)
        log_notice(log, "%s. The log goes on until the current segment is full; a new one is tried every second",
                   prepare->trouble);
    struct segment *segment = prepare->segment;
    prepare->segment = NULL;
    prepare->state = PREPARE_IDLE;
    prepare->retry = log->ops->monotonic(log->io) + RETRY_INTERVAL;
    if (segment && segment->file >= 0) {
        segment_drop_file(log, segment);
        return;
    }
    if (segment && segment->slot + 1 == log->next_slot && why->code != EEXIST)
        log->next_slot--;
    free(segment);
}

/* The same for the io's result of an operation on the segment's file. */
static void failed_io(struct log *log, const char *what, int64_t result)
{
    struct mr_error why;
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, log->prepare.segment->slot);
    error_system(&why, result < 0 ? (int)-result : EIO, "%s %.200s/%s", what, log->path, name);
    failed(log, &why);
}

static void write_piece(struct log *log)
{
    struct prepare *prepare = &log->prepare;
    struct segment *segment = prepare->segment;
    uint64_t token = token_make(TOKEN_PREPARE, 0);
    uint64_t left = segment->size - prepare->offset;
    if (left == 0) {
        prepare->state = PREPARE_SYNC;
        log->ops->sync(log->io, segment->file, token);
        return;
    }
    prepare->state = PREPARE_ZEROS;
    uint64_t size = left < log->zeros_size ? left : log->zeros_size;
    log->ops->write(log->io, segment->file, log->zeros, size, prepare->offset, false, token);
}

static void write_header(struct log *log)
{
    struct segment *segment = log->prepare.segment;
    log->prepare.state = PREPARE_HEADER;
    memset(log->segment_block, 0, segment->block);
    segment_encode(log->segment_block, segment, &log->config);
    log->ops->write(log->io, segment->file, log->segment_block, segment->block, 0, true, token_make(TOKEN_PREPARE, 0));
}

void prepare_complete(struct log *log, int32_t result)
{
    struct prepare *prepare = &log->prepare;
    uint64_t left = prepare->segment->size - prepare->offset;
    uint64_t size = left < log->zeros_size ? left : log->zeros_size;
    switch (prepare->state) {
    case PREPARE_IDLE:
        mr_assert(false);
    case PREPARE_ZEROS:
        if (result != (int32_t)size) {
            failed_io(log, "writing zeros to", result);
            return;
        }
        prepare->offset += size;
        write_piece(log);
        return;
    case PREPARE_SYNC:
        if (result < 0)
            failed_io(log, "flushing", result);
        else
            write_header(log);
        return;
    case PREPARE_HEADER:
        break;
    }
    if (result != (int32_t)prepare->segment->block) {
        failed_io(log, "writing the header of", result);
        return;
    }
    int synced = log->ops->sync_now(log->io, log->directory);
    if (synced < 0)
        failed_io(log, "flushing the directory of", synced);
    else
        ready(log);
}

/* `memory`: at once. */
static void prepare_memory(struct log *log, struct segment *segment)
{
    struct mr_error error = {0};
    segment->block = SEGMENT_MEMORY_BLOCK;
    segment->size = log->config.segment_bytes & ~(uint64_t)(SEGMENT_MEMORY_BLOCK - 1);
    if (segment_open(segment, &log->config, -1, true, &error) != 0 || segment_map(segment, &error) != 0) {
        segment->file = -1; /* the giver's */
        failed(log, &error);
        return;
    }
    (void)segment_adopt(log, segment);
    log->bytes += segment->size;
    segment_encode(segment->mapping, segment, &log->config);
    ready(log);
}

static void prepare_file(struct log *log, struct segment *segment, bool create)
{
    struct mr_error error = {0};
    if (segment_open(segment, &log->config, log->directory, create, &error) != 0) {
        failed(log, &error);
        return;
    }
    (void)segment_adopt(log, segment);
    uint32_t alignment = log->ops->alignment(log->io, segment->file);
    segment->block = alignment > SEGMENT_BLOCK_MIN ? alignment : SEGMENT_BLOCK_MIN;
    segment->size = log->config.segment_bytes / segment->block * segment->block;
    log->bytes += segment->size;
    if (segment->block > BUFFER_UNIT) {
        error_set(&error, "the device's blocks of %" PRIu32 " bytes are larger than %" PRIu64, segment->block,
                  BUFFER_UNIT);
        failed(log, &error);
        return;
    }
    int allocated = log->ops->allocate(log->io, segment->file, segment->size);
    if (allocated < 0 && allocated != -EOPNOTSUPP && allocated != -ENOSYS) {
        failed_io(log, "reserving the blocks of", allocated);
        return;
    }
    log->prepare.offset = 0;
    write_piece(log);
}

void prepare_step(struct log *log)
{
    struct prepare *prepare = &log->prepare;
    if (log->spare || prepare->state != PREPARE_IDLE || log->open_count >= OPEN_SEGMENTS_MAX - 1 ||
        log->ops->monotonic(log->io) < prepare->retry)
        return;
    struct segment *segment = calloc(1, sizeof *segment);
    prepare->segment = segment;
    if (!segment) {
        struct mr_error error;
        error_set(&error, "no memory");
        failed(log, &error);
        return;
    }
    bool create = log->blank_count == 0;
    *segment = (struct segment){
        .number = log->next_number++, .slot = create ? log->next_slot++ : log->blanks[--log->blank_count], .file = -1};
    if (log->memory)
        prepare_memory(log, segment);
    else
        prepare_file(log, segment, create);
}
