/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing, writing and completing batches; in `async`, flushing what was written.
 *
 * A batch's write starts when nothing is in flight, or when the batch has grown large, or cannot grow any more, and few
 * enough are in flight: what arrives during a write becomes the next one. Where nothing is in flight and more keeps
 * coming, a batch is gathered for a moment longer: a write costs the processor as much as hundreds of small commands,
 * whatever its size. Writes complete in any order; a batch is durable when it and all before it are complete. What a
 * batch claims in its header is, in `sync`, all that is durable; in `async`, all that has been flushed: a claim has to
 * be true after a power cut too. In `memory` nothing is written and all is durable once sealed. */
#include <inttypes.h>
#include <string.h>

#include "engine/log/inside.h"
#include "ipc/planted.h"

static uint64_t now(const struct log *log)
{
    return log->ops->monotonic(log->io);
}

static void fill_header(const struct log *log, const struct batch *batch, struct batch_header *header)
{
    uint64_t durable_through = log->config.durability == DURABILITY_ASYNC ? log->flushed : log->durable.sequence;
    *header = (struct batch_header){.length = batch->used,
                                    .partition = log->config.partition,
                                    .count = batch->count,
                                    .segment = batch->segment->number,
                                    .epoch = log->epoch,
                                    .sequence = log->sequence + 1,
                                    .first_index = batch->first_index,
                                    .time = batch->time,
                                    .durable_through = durable_through,
                                    .previous = log->chain};
}

/* Batches from the left of the queue that are complete become durable. */
static void advance(struct log *log)
{
    while (log->durable_end != log->submitted) {
        struct batch *batch = queue_at(log, log->durable_end);
        if (batch->state != BATCH_WRITTEN)
            break;
        batch->state = BATCH_DURABLE;
        log->durable = (struct log_point){.epoch = log->epoch,
                                          .sequence = batch->sequence,
                                          .chain = batch->chain,
                                          .index = batch->first_index + batch->count - 1,
                                          .time = batch->last_time};
        log->durable_end++;
    }
    batch_pass_over_empty(log);
}

static void start(struct log *log, struct batch *batch)
{
    if (batch == log->open)
        batch_close_open(log);
    struct batch_header header;
    fill_header(log, batch, &header);
    log->chain = batch_seal(batch->bytes, &header, log->config.secret);
    log->sequence = header.sequence;
    if (header.count > 0)
        log->grown += round_up(header.length, batch->segment->block);
    log->claimed = header.count == 0 && header.durable_through == header.sequence - 1;
    batch->sequence = log->sequence;
    batch->chain = log->chain;
    log->submitted++;
    if (log->memory) {
        batch->state = BATCH_WRITTEN;
        advance(log);
        return;
    }
    uint64_t size = round_up(batch->used, batch->segment->block);
    memset(batch->bytes + batch->used, 0, size - batch->used);
    batch->state = BATCH_WRITING;
    batch->started = log->quiet_since = now(log);
    log->in_flight++;
    bool durable = log->config.durability == DURABILITY_SYNC && !PLANTED(ANSWER_BEFORE_FLUSH);
    log->ops->write(log->io, batch->segment->file, batch->bytes, size, batch->offset, durable,
                    token_make(TOKEN_BATCH, (uint64_t)(batch - log->pool)));
}

/* Is it still worth waiting for what comes? */
static bool gathers(const struct log *log, struct batch *batch)
{
    uint64_t time = now(log);
    if (batch->gathers_since == 0)
        batch->gathers_since = time;
    return time - batch->gathers_since < MR_BATCH_GATHERS;
}

static bool may_start(const struct log *log, struct batch *batch, bool more)
{
    bool closed = batch != log->open;
    if (!closed && batch->count == 0)
        return false;
    if (log->memory)
        return true;
    if (closed || batch->used >= MR_BATCH_EARLY_BYTES)
        return log->in_flight < MR_BATCHES_IN_FLIGHT;
    return log->in_flight == 0 && !(more && gathers(log, batch));
}

void log_submit(struct log *log, bool more)
{
    while (log->submitted != log->tail && !log->failing && may_start(log, queue_at(log, log->submitted), more))
        start(log, queue_at(log, log->submitted));
}

void batch_written(struct log *log, struct batch *batch, int64_t result)
{
    mr_assert(batch->state == BATCH_WRITING && log->in_flight > 0);
    log->in_flight--;
    log->quiet_since = now(log);
    if (result == (int64_t)round_up(batch->used, batch->segment->block)) {
        batch->state = BATCH_WRITTEN;
        if (log->config.durability == DURABILITY_ASYNC) {
            batch->segment->dirty = true;
            if (log->flush_due == UINT64_MAX)
                log->flush_due = log->quiet_since + log->config.flush_interval;
        }
        advance(log);
    } else {
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, batch->segment->slot);
        batch->state = BATCH_FAILED;
        log_fail(log, "a write to %s/%s at offset %" PRIu64 " failed: %s", log->path, name, batch->offset,
                 result < 0 ? strerror((int)-result) : "it was cut short");
    }
    epoch_step(log);
}

/* ---- async ---- */

void flush_start(struct log *log)
{
    if (log->flushes > 0)
        return; /* what has been written meanwhile is due again when this is done */
    log->flush_target = log->durable.sequence;
    log->flush_failed = false;
    log->flush_due = UINT64_MAX;
    for (unsigned n = 0; n < log->open_count; n++) {
        struct segment *segment = log->open_segments[n];
        if (!segment->dirty)
            continue;
        segment->dirty = false;
        segment->flushing = true;
        log->flushes++;
        log->ops->sync(log->io, segment->file, token_make(TOKEN_FLUSH, segment->number));
    }
    if (log->flushes == 0)
        log->flushed = log->flush_target;
}

void flush_done(struct log *log, uint64_t number, int32_t result)
{
    struct segment *segment = NULL;
    for (unsigned n = 0; n < log->open_count; n++)
        if (log->open_segments[n]->number == number)
            segment = log->open_segments[n];
    mr_assert(segment && segment->flushing && log->flushes > 0);
    segment->flushing = false;
    log->flushes--;
    if (result < 0) {
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, segment->slot);
        segment->dirty = true;
        log->flush_failed = true;
        log->epoch_retry = now(log) + RETRY_INTERVAL;
        log_fail(log, "flushing %s/%s failed: %s", log->path, name, strerror(-result));
    } else {
        segment_release(log, segment);
    }
    if (log->flushes == 0 && !log->flush_failed)
        log->flushed = log->flush_target;
    epoch_step(log);
}

int log_flush_now(const struct log *log, struct io *io, struct mr_error *error)
{
    if (log->config.durability != DURABILITY_ASYNC)
        return 0;
    if (log_unsafe(log))
        return error_set(error, "%s", log->trouble);
    for (unsigned n = 0; n < log->open_count; n++) {
        const struct segment *segment = log->open_segments[n];
        int synced = segment->dirty || segment->flushing ? io->ops->sync_now(io, segment->file) : 0;
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, segment->slot);
        if (synced < 0)
            return error_system(error, -synced, "cannot flush %s/%s", log->path, name);
    }
    return 0;
}
