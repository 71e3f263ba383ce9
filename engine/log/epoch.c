/* SPDX-License-Identifier: Apache-2.0 */
/* After a failed write. What it left on the disk is unknown: nothing, a part, or all of it; and batches behind it may
 * have been written whole. None of them may ever come back, because their entries are going to be refused.
 *
 * The happy path: from the failure on nothing is accepted and nothing more started. When all writes in flight have
 * ended (in `async` also: when what was written before is flushed), the first batch of a new epoch is written to the
 * spare segment. It continues after the last batch that is durable together with all before it; recovery then cuts off
 * what lies behind that one in older segments. Once it is durable, what was not goes back to the caller as failed, the
 * indexes that it had are given anew, and the log goes on in the spare.
 *
 * What can fail: that write too. Then the spare's file is removed and another prepared, for an epoch with a greater
 * number (the one before may have reached the disk after all; recovery believes the latest). There may be no room for
 * another spare: prepare.c tries again and again. Until it has worked, the entries stay with the log, neither durable
 * nor failed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/log/inside.h"
#include "ipc/planted.h"

void log_fail(struct log *log, const char *format, ...)
{
    if (log->failing)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(log->trouble, sizeof log->trouble, format, arguments);
    va_end(arguments);
    log->failing = true;
    batch_close_open(log);
    log_notice(log, "%s. Nothing is accepted until the log goes on in another segment", log->trouble);
}

void epoch_seal(struct log *log, const struct segment *segment, uint8_t *bytes)
{
    const struct log_point *durable = &log->durable;
    struct batch_header header = {.flags = BATCH_FIRST_OF_EPOCH,
                                  .length = BATCH_HEADER_BYTES,
                                  .partition = log->config.partition,
                                  .segment = segment->number,
                                  .epoch = ++log->highest_epoch,
                                  .sequence = durable->sequence + 1,
                                  .first_index = durable->index + 1,
                                  .time = durable->time,
                                  .durable_through = durable->sequence,
                                  .previous = durable->chain};
    (void)batch_seal(bytes, &header, log->config.secret);
    log->epoch_header = header;
}

void epoch_adopt(struct log *log, uint64_t offset)
{
    const struct batch_header *header = &log->epoch_header;
    log->epoch = header->epoch;
    log->sequence = header->sequence;
    log->chain = header->checksum;
    log->next_index = header->first_index;
    log->durable = (struct log_point){.epoch = header->epoch,
                                      .sequence = header->sequence,
                                      .chain = header->checksum,
                                      .index = header->first_index - 1,
                                      .time = header->time};
    log->flushed = header->sequence;
    log->claimed = true;
    log->offset = offset;
    log->quiet_since = log->ops->monotonic(log->io);
}

/* async: what is durable in name only has to be so before an epoch builds on it. True: it is. */
static bool all_flushed(struct log *log)
{
    for (unsigned n = 0; n < log->open_count; n++)
        if (log->open_segments[n]->dirty) {
            flush_start(log);
            return false;
        }
    return true;
}

/* What is not durable goes back to the caller as failed, and its indexes are free again. */
static void give_back(struct log *log)
{
    for (unsigned place = log->durable_end; place != log->tail; place++)
        queue_at(log, place)->state = BATCH_FAILED;
    log->durable_end = log->submitted = log->tail;
    log->failing = log->full = false;
}

/* The planted fault: as if nothing of what failed could ever be read again. */
static void go_on_in_place(struct log *log)
{
    const struct batch *first = log->durable_end != log->tail ? queue_at(log, log->durable_end) : NULL;
    if (first && first->segment == log->current)
        log->offset = first->offset;
    log->sequence = log->durable.sequence;
    log->chain = log->durable.chain;
    log->next_index = log->durable.index + 1;
    log->claimed = false;
    give_back(log);
    batch_pass_over_empty(log);
}

void epoch_step(struct log *log)
{
    if (!log->failing || log->epoch_in_flight || log->in_flight > 0 || log->flushes > 0)
        return;
    uint64_t now = log->ops->monotonic(log->io);
    if (now < log->epoch_retry || !all_flushed(log))
        return;
    if (PLANTED(NO_EPOCH_AFTER_FAILURE)) {
        go_on_in_place(log);
        return;
    }
    struct segment *spare = log->spare;
    if (!spare) {
        prepare_step(log);
        return;
    }
    memset(log->epoch_block, 0, spare->block);
    epoch_seal(log, spare, log->epoch_block);
    log->epoch_in_flight = true;
    log->epoch_started = now;
    log->ops->write(log->io, spare->file, log->epoch_block, spare->block, segment_first_offset(spare), true,
                    token_make(TOKEN_EPOCH, 0));
}

void epoch_written(struct log *log, int32_t result)
{
    mr_assert(log->epoch_in_flight && log->spare);
    log->epoch_in_flight = false;
    struct segment *spare = log->spare;
    log->spare = NULL;
    if (result != (int32_t)spare->block) {
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, spare->slot);
        log_notice(log, "the new epoch could not be written to %s/%s either: %s. Trying another segment", log->path,
                   name, result < 0 ? strerror(-result) : "it was cut short");
        log->epoch_retry = log->ops->monotonic(log->io) + RETRY_INTERVAL;
        segment_drop_file(log, spare);
        prepare_step(log);
        return;
    }
    uint64_t refused = log->next_index - 1 - log->durable.index;
    give_back(log);
    struct segment *left = log->current;
    log->current = spare;
    epoch_adopt(log, segment_first_offset(spare) + spare->block);
    segment_leave(log, left);
    batch_pass_over_empty(log);
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, spare->slot);
    log_notice(log,
               "the log goes on in %s/%s, in epoch %" PRIu64 ": %" PRIu64 " entries that were not durable are refused",
               log->path, name, log->epoch, refused);
    prepare_step(log);
}
