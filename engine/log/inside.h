/* SPDX-License-Identifier: Apache-2.0 */
/* The running log from inside: what open.c, append.c, write.c, epoch.c, prepare.c, slots.c and log.c share. Nobody else
 * includes it.
 *
 * Batches wait in one queue, oldest first, and pass through it from right to left:
 *
 *     head            durable          submitted            tail
 *      | being handed    | being           | closed, or the   |
 *      | out             | written         | open one         |
 *
 * Each of the four counts batches and only grows. When a batch is opened its place in a segment is settled, so that
 * what log_reserve() promised can be written: behind the batch before it, or at the start of the spare segment. It is
 * sealed when its write starts, because only then is it known what it may claim. */
#ifndef ENGINE_LOG_INSIDE_H
#define ENGINE_LOG_INSIDE_H

#include <limits.h>

#include "engine/log/batch.h"
#include "engine/log/log.h"
#include "engine/log/recovery.h"
#include "engine/log/segment.h"
#include "millrace/limits.h"

/* Batches that can be in memory: in flight, one open, one being handed out, and two that have been filled meanwhile. */
enum { SMALL_BATCHES = MR_BATCHES_IN_FLIGHT + 4, LARGE_BATCHES = 2, ALL_BATCHES = SMALL_BATCHES + LARGE_BATCHES + 1 };
enum { QUEUE_SIZE = 16 };
static_assert((int)QUEUE_SIZE >= (int)ALL_BATCHES && (QUEUE_SIZE & (QUEUE_SIZE - 1)) == 0,
              "each has a place in the queue");

/* A buffer begins and ends on a multiple of this: of any segment's block. */
#define BUFFER_UNIT ((uint64_t)SEGMENT_BLOCK_MAX)

/* Open segments: the current one, the spare, the one being prepared, and older ones that batches still stand in. */
enum { OPEN_SEGMENTS_MAX = 64 };

#define PREPARE_PIECE MR_MIB     /* zeros are written in pieces of this size, one at a time */
#define RETRY_INTERVAL MR_SECOND /* between attempts at what failed */

enum batch_state { BATCH_FREE, BATCH_OPEN, BATCH_WRITING, BATCH_WRITTEN, BATCH_DURABLE, BATCH_FAILED };

struct batch {
    enum batch_state state;
    uint8_t *bytes; /* the header's room, then entries. In `memory` they lie in the segment */
    uint64_t room;  /* of the buffer; 0: an empty batch's */
    uint64_t limit; /* entries go up to here */
    uint64_t used;  /* header and entries so far */
    uint32_t count; /* of entries */
    uint64_t first_index;
    uint64_t time;           /* of the first entry, or an empty batch's own */
    uint64_t last_time;      /* of the last entry */
    struct segment *segment; /* where it will stand */
    uint64_t offset;
    uint64_t sequence, chain; /* known once it is sealed */
    uint64_t gathers_since;   /* monotonic time from which on its write could have begun; 0: it was not looked at */
    uint64_t started;         /* monotonic time at which its write began */
};

enum prepare_state { PREPARE_IDLE, PREPARE_ZEROS, PREPARE_SYNC, PREPARE_HEADER };

struct prepare {
    enum prepare_state state;
    struct segment *segment; /* being prepared */
    bool created;            /* its file was made: the name is not durable yet */
    uint64_t offset;         /* zeros are written up to here */
    uint64_t retry;          /* monotonic time before which it is not tried (again) */
    char trouble[384];       /* why it did not work the last time; empty: it did */
    int code;                /* with trouble: the errno */
};

/* Segments that are not open: what is known of them. In `memory` they stay mapped. */
struct segment_list {
    struct segment *segments;
    unsigned count, room;
};

struct log {
    struct log_config config;
    struct io *io;
    const struct io_ops *ops;
    int directory; /* -1: none */
    bool memory;   /* durability is memory */
    char path[PATH_MAX];

    /* The chain as it grows. */
    uint64_t epoch;
    uint64_t highest_epoch; /* ever begun, successfully or not */
    uint64_t sequence;      /* of the last batch sealed */
    uint64_t chain;
    uint64_t next_index;
    uint64_t time;            /* no entry gets an earlier one */
    struct log_point durable; /* the last batch that is durable, as are all before it */
    uint64_t flushed;         /* async: the sequence through which everything has been flushed */
    bool claimed;             /* the last batch is empty and claims all before it */

    /* Segments. */
    struct segment *current;
    uint64_t offset; /* where the next batch goes in it */
    struct segment *spare;
    struct segment *open_segments[OPEN_SEGMENTS_MAX];
    unsigned open_count;
    struct segment_list held; /* full ones, and those before a snapshot that this log began with */
    struct segment_list free; /* slots to be used before new ones are made; number 0: it has no sound header */
    uint64_t needed;          /* segments below this number are not */
    uint64_t reading;         /* the number of the segment in which the entry handed out last stands */
    uint64_t next_number;
    uint32_t next_slot;
    uint64_t bytes; /* of all segments but the free ones */
    uint64_t limit; /* of all segments, and what stands beside them; 0: none */
    uint64_t beside;
    uint64_t grown; /* bytes on disk of batches with entries, all in all */
    bool full;      /* an entry was refused because there is no segment to go on in */
    struct prepare prepare;

    /* Batches. */
    uint64_t small_bytes; /* a batch is closed at this */
    uint64_t large_bytes; /* the largest batch */
    uint8_t *region;      /* all buffers */
    uint64_t region_size;
    bool registered;
    uint8_t *zeros; /* in it: to prepare segments with */
    uint64_t zeros_size;
    uint8_t *segment_block;         /* in it: a segment's header on its way to the disk */
    uint8_t *epoch_block;           /* in it: the first batch of an epoch */
    struct batch pool[ALL_BATCHES]; /* small ones, large ones, the empty one */
    struct batch *empty;            /* which is the last of the pool */
    struct batch *queue[QUEUE_SIZE];
    unsigned head, durable_end, submitted, tail;
    struct batch *open; /* the last in the queue, if entries can still be added */
    unsigned in_flight;
    uint64_t quiet_since; /* monotonic time of the last start or end of a write */

    /* Handing out: of the batch at the head. */
    uint64_t hand_offset; /* of its next entry; 0: it has not been begun */
    uint32_t hand_left;   /* entries not handed out yet */

    /* async */
    unsigned flushes;      /* syncs under way */
    bool flush_failed;     /* one of them failed */
    uint64_t flush_target; /* what they will have flushed */
    uint64_t flush_due;    /* monotonic time of the next; UINT64_MAX: nothing to flush */

    /* A failed write. */
    bool failing;         /* waiting for a new epoch */
    bool epoch_in_flight; /* its first batch is being written */
    struct batch_header epoch_header;
    uint64_t epoch_started; /* monotonic time */
    uint64_t epoch_retry;   /* monotonic time before which it is not tried again */
    char trouble[384];

    /* At start: a write that is waited for. */
    bool waiting;
    int32_t waited; /* its result */
};

/* Completions: LOG_TOKEN, what kind, which one. */
enum token_kind { TOKEN_BATCH, TOKEN_EPOCH, TOKEN_FLUSH, TOKEN_PREPARE, TOKEN_WAITED };

static inline uint64_t token_make(enum token_kind kind, uint64_t which)
{
    return LOG_TOKEN | (uint64_t)kind << 56 | which;
}

static inline struct batch *queue_at(const struct log *log, unsigned place)
{
    return log->queue[place % QUEUE_SIZE];
}

/* To config->notice. */
void log_notice(const struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline uint64_t earlier(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/* ---- log.c ---- */
/* Takes what has come, or sleeps until something does: at start and at the end only. Completions that are not the log's
 * are dropped. */
void log_wait(struct log *log);

/* ---- append.c ---- */
/* Puts an empty batch in the queue, closed. The log must be idle. */
bool batch_queue_empty(struct log *log, uint64_t time);
void batch_close_open(struct log *log);
/* Empty batches at the head are done with as soon as they are durable. */
void batch_pass_over_empty(struct log *log);
/* Nothing is open, waiting or in flight. */
bool log_idle(const struct log *log);

/* ---- write.c ---- */
void batch_written(struct log *log, struct batch *batch, int64_t result);
void flush_start(struct log *log);
void flush_done(struct log *log, uint64_t number, int32_t result);

/* ---- epoch.c ---- */
void log_fail(struct log *log, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Goes on with the new epoch if nothing stands in the way any more. */
void epoch_step(struct log *log);
void epoch_written(struct log *log, int32_t result);
/* Seals, at `bytes`, the first batch of a new epoch that continues after log->durable, for this segment. */
void epoch_seal(struct log *log, const struct segment *segment, uint8_t *bytes);
/* It is durable, and the log goes on behind it, `offset` bytes into log->current. */
void epoch_adopt(struct log *log, uint64_t offset);

/* ---- prepare.c ---- */
/* Starts to make a spare segment if there is none, none is being made and it is time to try. */
void prepare_step(struct log *log);
void prepare_complete(struct log *log, int32_t result);

/* ---- slots.c ---- */
/* Open segments. */
bool segment_adopt(struct log *log, struct segment *segment);
void segment_discard(struct log *log, struct segment *segment);   /* closes and frees it */
void segment_release(struct log *log, struct segment *segment);   /* the same if nobody needs it any more */
void segment_leave(struct log *log, struct segment *segment);     /* the log has gone on in another one */
void segment_drop_file(struct log *log, struct segment *segment); /* discards it and removes its file */
/* Can new batches be written to it, on the device as it is now? */
bool segment_aligned(const struct log *log, const struct segment *segment);
/* Those that are not open. False: no memory. */
bool slots_hold(struct log *log, const struct segment *segment);
bool slots_free(struct log *log, const struct segment *segment);
/* Is there, by log_limit(), room for the segment that is to be prepared next? One that is used again needs none. */
bool slots_allow(struct log *log);
/* Takes the free slot that is to be used next. False: there is none. */
bool slots_take(struct log *log, struct segment *segment);
/* Removes a free slot if there are too many; true while there are. */
bool slots_trim(struct log *log);
void slots_destroy(struct log *log);

#endif
