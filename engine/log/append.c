/* SPDX-License-Identifier: Apache-2.0 */
/* The hot path: room for an entry, an entry, and entries back out once they are durable. What is not done for every
 * entry stands in functions of its own. */
#include <string.h>

#include "engine/log/inside.h"

/* ---- in ---- */

/* Settles where the next batch goes, given what it will take at least. False: nowhere now. */
static bool place(struct log *log, uint64_t bytes)
{
    uint64_t least = round_up(bytes, log->current->block);
    if (log->offset + least > log->current->size) {
        if (!log->spare) {
            log->full = true;
            return false;
        }
        struct segment *left = log->current;
        log->current = log->spare;
        log->spare = NULL;
        log->offset = segment_first_offset(log->current);
        if (left->dirty)
            log->flush_due = 0;
        segment_leave(log, left);
    }
    log->full = false;
    return true;
}

static struct batch *find_free(struct log *log, bool large)
{
    unsigned first = large ? SMALL_BATCHES : 0;
    unsigned end = large ? SMALL_BATCHES + LARGE_BATCHES : SMALL_BATCHES;
    for (unsigned n = first; n < end; n++)
        if (log->pool[n].state == BATCH_FREE)
            return &log->pool[n];
    return NULL;
}

static void enqueue(struct log *log, struct batch *batch)
{
    batch->state = BATCH_OPEN;
    batch->segment = log->current;
    batch->offset = log->offset;
    batch->segment->users++;
    batch->used = BATCH_HEADER_BYTES;
    batch->count = 0;
    batch->gathers_since = 0;
    batch->first_index = log->next_index;
    batch->time = batch->last_time = log->time;
    if (log->memory)
        batch->bytes = batch->segment->mapping + batch->offset;
    log->queue[log->tail++ % QUEUE_SIZE] = batch;
}

static void batch_free(struct log *log, struct batch *batch)
{
    struct segment *segment = batch->segment;
    batch->state = BATCH_FREE;
    segment->users--;
    segment_release(log, segment);
}

void batch_close_open(struct log *log)
{
    struct batch *batch = log->open;
    if (!batch)
        return;
    log->open = NULL;
    if (batch->count > 0) {
        log->offset = batch->offset + round_up(batch->used, batch->segment->block);
        return;
    }
    /* Reserved in, but nothing came of it. */
    log->tail--;
    batch_free(log, batch);
}

/* Whoever has had this batch will have the next ones from its segment, or a later one. (An epoch may have cut off the
 * beginning of a segment in which a write failed.) */
static void note_read(struct log *log, const struct batch *batch)
{
    if (batch->state == BATCH_DURABLE)
        log->reading = batch->segment->number;
}

/* The batch at the head has been handed out whole, and the caller has come back: its bytes are no longer looked at.
 * Empty ones are passed over. */
static void release_head(struct log *log)
{
    while (log->head != log->durable_end) {
        struct batch *batch = queue_at(log, log->head);
        if (log->hand_offset == 0 && batch->count > 0)
            return;
        log->hand_offset = 0;
        log->head++;
        note_read(log, batch);
        batch_free(log, batch);
    }
}

static inline void release(struct log *log)
{
    if (log->hand_left == 0)
        release_head(log);
}

void batch_pass_over_empty(struct log *log)
{
    if (log->hand_offset == 0)
        release_head(log);
}

/* Is there something that failed and was not handed out yet? Nothing may be logged behind it before that is told: the
 * successor of who dies meanwhile finds the later entry, and takes all before it in its ring for done. */
static bool gives_back(const struct log *log)
{
    for (unsigned place = log->head; place != log->durable_end; place++)
        if (queue_at(log, place)->state == BATCH_FAILED)
            return true;
    return false;
}

/* Opens a batch in which an entry of this many bytes finds room. */
static bool open_batch(struct log *log, uint64_t bytes)
{
    bool large = BATCH_HEADER_BYTES + bytes > log->small_bytes;
    if (BATCH_HEADER_BYTES + bytes > log->large_bytes || log_trouble(log) != NULL || gives_back(log))
        return false;
    struct batch *batch = find_free(log, large);
    if (!batch)
        return false;
    batch_close_open(log);
    if (!place(log, BATCH_HEADER_BYTES + bytes))
        return false;
    enqueue(log, batch);
    uint64_t left = log->current->size - log->offset;
    batch->limit = large ? BATCH_HEADER_BYTES + bytes : log->small_bytes < left ? log->small_bytes : left;
    log->open = batch;
    return true;
}

uint8_t *log_reserve(struct log *log, uint32_t size)
{
    release(log);
    uint64_t bytes = entry_bytes(size);
    struct batch *batch = log->open;
    if (__builtin_expect(!batch || bytes > batch->limit - batch->used, 0)) {
        if (!open_batch(log, bytes))
            return NULL;
        batch = log->open;
    }
    return batch->bytes + batch->used + ENTRY_HEADER_BYTES;
}

/* Fewer than 8 bytes, up to a multiple of 8: no memset() for so little. */
static inline void zero_rest(uint8_t *at, uint64_t count)
{
    if (count & 1)
        *at++ = 0;
    if (count & 2) {
        memset(at, 0, 2);
        at += 2;
    }
    if (count & 4)
        memset(at, 0, 4);
}

uint64_t log_append(struct log *log, uint64_t time, const struct log_origin *origin, uint32_t size)
{
    struct batch *batch = log->open;
    uint64_t bytes = entry_bytes(size);
    mr_assert(batch && bytes <= batch->limit - batch->used);
    if (time > log->time)
        log->time = time;
    if (batch->count == 0)
        batch->time = log->time;
    /* Four seconds are more than a batch stays open; should it ever, its entries' time stands still meanwhile. */
    uint64_t offset = log->time - batch->time;
    struct entry_header header = {.channel = origin->channel,
                                  .position = origin->position,
                                  .frame_size = origin->frame_size,
                                  .uid = origin->uid,
                                  .size = size,
                                  .time_offset = offset < UINT32_MAX ? (uint32_t)offset : UINT32_MAX};
    uint8_t *to = batch->bytes + batch->used;
    uint64_t end = ENTRY_HEADER_BYTES + (uint64_t)size;
    memcpy(to, &header, sizeof header);
    zero_rest(to + end, bytes - end);
    batch->last_time = batch->time + header.time_offset;
    batch->used += bytes;
    batch->count++;
    return log->next_index++;
}

bool log_idle(const struct log *log)
{
    bool nothing_open =
        log->submitted == log->tail || (log->submitted + 1 == log->tail && log->open && !log->open->count);
    return log->in_flight == 0 && nothing_open;
}

bool batch_queue_empty(struct log *log, uint64_t time)
{
    struct batch *batch = log->empty;
    if (log->failing || batch->state != BATCH_FREE || !log_idle(log))
        return false;
    batch_close_open(log);
    if (!place(log, BATCH_HEADER_BYTES))
        return false;
    if (time > log->time)
        log->time = time;
    enqueue(log, batch);
    log->offset = batch->offset + round_up(batch->used, batch->segment->block);
    return true;
}

/* ---- out ---- */

static void hand_out(struct log *log, const struct batch *batch, struct log_entry *entry)
{
    struct entry_header header;
    const uint8_t *body = batch->bytes + log->hand_offset + ENTRY_HEADER_BYTES;
    log->hand_offset = batch_entry(batch->bytes, log->hand_offset, &header);
    *entry = (struct log_entry){.index = batch->first_index + (batch->count - log->hand_left),
                                .time = batch->time + header.time_offset,
                                .origin = {header.channel, header.position, header.frame_size, header.uid},
                                .body = body,
                                .size = header.size,
                                .failed = batch->state == BATCH_FAILED};
    log->hand_left--;
}

bool log_next(struct log *log, struct log_entry *entry)
{
    release(log);
    if (log->head == log->durable_end)
        return false;
    const struct batch *batch = queue_at(log, log->head);
    if (log->hand_offset == 0) {
        log->hand_offset = BATCH_HEADER_BYTES;
        log->hand_left = batch->count;
        note_read(log, batch);
    }
    hand_out(log, batch, entry);
    return true;
}

unsigned log_next_few(struct log *log, struct log_entry *entries, unsigned most)
{
    if (!log_next(log, entries))
        return 0;
    const struct batch *batch = queue_at(log, log->head);
    unsigned count = 1;
    for (; count < most && log->hand_left > 0; count++)
        hand_out(log, batch, &entries[count]);
    return count;
}
