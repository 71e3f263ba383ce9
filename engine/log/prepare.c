/* SPDX-License-Identifier: Apache-2.0 */
/* A spare segment, always: the log goes over to it when the current segment is full, or at once when a write has
 * failed.
 *
 * Making one, the short way: a free slot whose segment had the same size and blocks gets a new header, which says that
 * it was used before, and is a spare as soon as that is durable. No directory operation, no zeros: segment.h says why
 * what stands behind the header does no harm.
 *
 * The long way, if there is none: a file is made under the next slot and locked; its blocks are reserved, so that a
 * full disk shows now; zeros are written from end to end, one piece in flight at a time so that batches are hardly
 * disturbed; that is synced; then its header is written, and its name made durable. Only then is it a spare. A slot
 * that was left without a header by a predecessor goes this way too, but has its name.
 *
 * Whatever fails, the file is removed, and after a while it is tried again. A limit that is reached is a disk that is
 * full.
 *
 * In `memory` a spare is a memfd that somebody else gives, and new ones are zeros already. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/log/inside.h"
#include "ipc/planted.h"

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
    prepare->code = why->code != 0 ? why->code : EIO;
    struct segment *segment = prepare->segment;
    prepare->segment = NULL;
    prepare->state = PREPARE_IDLE;
    prepare->retry = log->ops->monotonic(log->io) + RETRY_INTERVAL;
    if (segment && segment->file >= 0) {
        segment_drop_file(log, segment);
        return;
    }
    if (segment && prepare->created && segment->slot + 1 == log->next_slot && why->code != EEXIST)
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
    bool named = !prepare->created || PLANTED(NO_DIRECTORY_SYNC);
    int synced = named ? 0 : log->ops->sync_now(log->io, log->directory);
    if (synced < 0)
        failed_io(log, "flushing the directory of", synced);
    else
        ready(log);
}

/* `memory`: at once. Of a slot that is not new nobody knows what stands in it. */
static void prepare_memory(struct log *log, struct segment *segment, const struct segment *before)
{
    struct mr_error error = {0};
    segment->block = SEGMENT_MEMORY_BLOCK;
    segment->size = log->config.segment_bytes & ~(uint64_t)(SEGMENT_MEMORY_BLOCK - 1);
    segment->used = !log->prepare.created;
    if (segment_open(segment, &log->config, -1, SEGMENT_WRITE, &error) != 0 || segment_map(segment, &error) != 0) {
        if (!log->prepare.created)
            (void)slots_free(log, before);
        segment->file = -1; /* the giver's */
        failed(log, &error);
        return;
    }
    (void)segment_adopt(log, segment);
    log->bytes += segment->size;
    segment_encode(segment->mapping, segment, &log->config);
    ready(log);
}

/* The slot's segment is to be what it was in its earlier life, with another number. False: it is not fit for that, and
 * gone. */
static bool use_again(struct log *log, struct segment *segment, const struct segment *before)
{
    int64_t there = log->ops->size(log->io, segment->file);
    if (there < 0) {
        failed_io(log, "getting the size of", there);
        return true;
    }
    if (segment->block != before->block || segment->size != before->size || (uint64_t)there < segment->size) {
        log->prepare.segment = NULL;
        segment_drop_file(log, segment);
        return false;
    }
    segment->used = true;
    write_header(log);
    return true;
}

static void write_all(struct log *log, struct segment *segment)
{
    struct mr_error error = {0};
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

/* False: the free slot could not be used, and another is to be tried. */
static bool prepare_file(struct log *log, struct segment *segment, const struct segment *before)
{
    struct mr_error error = {0};
    bool create = log->prepare.created;
    if (segment_open(segment, &log->config, log->directory, create ? SEGMENT_CREATE : SEGMENT_WRITE, &error) != 0) {
        failed(log, &error);
        return true;
    }
    (void)segment_adopt(log, segment);
    segment->block = segment->alignment > SEGMENT_BLOCK_MIN ? segment->alignment : SEGMENT_BLOCK_MIN;
    segment->size = log->config.segment_bytes / segment->block * segment->block;
    log->bytes += segment->size;
    if (before->number > 0)
        return use_again(log, segment, before);
    write_all(log, segment);
    return true;
}

/* The limit is reached: see log_limit(). */
static void refuse(struct log *log)
{
    struct mr_error why;
    error_set(&why, "log and snapshots have %" PRIu64 " of the %" PRIu64 " bytes that they may take (--disk-limit)",
              log_bytes(log) + log->beside, log->limit);
    why.code = EDQUOT;
    failed(log, &why);
}

/* Begins with one slot. False: it could not be used, and another is to be tried. */
static bool prepare_one(struct log *log)
{
    struct prepare *prepare = &log->prepare;
    struct segment *segment = calloc(1, sizeof *segment);
    prepare->segment = segment;
    if (!segment) {
        struct mr_error error;
        error_system(&error, ENOMEM, "no memory");
        failed(log, &error);
        return true;
    }
    struct segment before = {0};
    prepare->created = !slots_take(log, &before);
    *segment = (struct segment){.number = log->next_number++,
                                .slot = prepare->created ? log->next_slot++ : before.slot,
                                .file = -1,
                                .epoch = log->epoch,
                                .after = log->current ? log->current->number : 0,
                                .mapping = before.mapping};
    if (!log->memory)
        return prepare_file(log, segment, &before);
    prepare_memory(log, segment, &before);
    return true;
}

void prepare_step(struct log *log)
{
    const struct prepare *prepare = &log->prepare;
    if (log->spare || prepare->state != PREPARE_IDLE || log->open_count >= OPEN_SEGMENTS_MAX - 1 ||
        log->ops->monotonic(log->io) < prepare->retry)
        return;
    if (slots_allow(log))
        while (!prepare_one(log))
            continue;
    else
        refuse(log);
}
