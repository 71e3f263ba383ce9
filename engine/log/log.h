/* SPDX-License-Identifier: Apache-2.0 */
/* The log of one partition as the worker sees it: append an entry, be told what is durable, read back what was. How it
 * stands on disk is segment.h's and batch.h's affair. The log carries bodies without looking into them: it knows the
 * io, not the state machine.
 *
 * The life of an entry: log_reserve() gives room in the open batch, the caller copies a request's body there and checks
 * it; log_append() keeps it and gives it the next index, or nothing is called and the next reservation overwrites it.
 * log_submit() seals batches and starts their writes. When a batch and all before it are durable, log_next() hands out
 * its entries one by one, in place, in order of index. The bytes stay until the first log_next() or log_reserve() after
 * the batch's last entry was handed out.
 *
 * Three ways to keep it (enum durability): on disk with every write flushed (sync); on disk, flushed at an interval
 * (async); in memory that the supervisor holds (memory: batches are built in place, nothing is written, every entry is
 * durable once submitted).
 *
 * A failed write: all entries that are not durable are given back by log_next() with `failed` set, once a new epoch in
 * the spare segment has made sure that they will never come back; until then log_reserve() refuses and log_trouble()
 * says why. Before they are all handed out nothing is appended either; to what is then, the indexes that they had are
 * given again.
 *
 * No room for a spare segment: the log goes on until the current one is full; then log_reserve() refuses, log_trouble()
 * says why, and log_tick() tries again every second. Whatever was appended can be written. A limit (log_limit()) is a
 * disk with that much room. */
#ifndef ENGINE_LOG_LOG_H
#define ENGINE_LOG_LOG_H

#include "engine/io/io.h"

enum durability { DURABILITY_SYNC, DURABILITY_ASYNC, DURABILITY_MEMORY };

/* Where an entry came from (kept in the log, so that a successor can answer again). */
struct log_origin {
    uint64_t channel;    /* the channel's id; 0: the node itself */
    uint64_t position;   /* of the request in its ring */
    uint32_t frame_size; /* bytes that the request's frame takes there */
    uint32_t uid;        /* who sent it */
};

struct log_entry {
    uint64_t index;
    uint64_t time; /* the partition's, nanoseconds since 1970 */
    struct log_origin origin;
    const uint8_t *body; /* in place, 8-byte aligned */
    uint32_t size;       /* bytes of body; 0: an entry that carries nothing but time */
    bool failed;         /* was not made durable and never will be; not set in replays */
};

struct log_config {
    struct io *io;
    const char *path; /* the partition's folder; exists */
    uint32_t partition;
    uint64_t secret; /* seeds the checksums; from the directory's identity, never shown to clients */
    enum durability durability;
    uint64_t batch_bytes;
    uint64_t segment_bytes;
    uint32_t largest_body;   /* no entry's body is larger */
    uint64_t flush_interval; /* async, nanoseconds */
    /* memory: gives the memfd of segment slot `slot`, of segment_bytes, made and kept by somebody who outlives this
     * process (the existing ones are the slots 0 .. memory_slots - 1; new ones are asked for in order, also from
     * log_tick()). The descriptor stays the giver's and may be asked for again. -1 with *error. Slots are used again
     * once log_forget() allows it; from those that are too many the log takes the pages, not the descriptor. */
    int (*memory_segment)(void *context, uint32_t slot, struct mr_error *error);
    uint32_t memory_slots;
    void *memory_context;
    /* Recovery: told every few milliseconds. */
    void (*progress)(void *context, uint64_t bytes_done, uint64_t bytes_total);
    void *progress_context;
    /* A line worth a person's attention (a torn tail cut off, registered buffers or O_DIRECT refused, trouble, its
     * end). */
    void (*notice)(void *context, const char *text);
    void *notice_context;
};

/* What recovery found. */
struct log_recovery {
    uint64_t last_index;   /* 0: empty */
    uint64_t time;         /* the last logged time; 0: none */
    uint64_t epoch;        /* the one begun by this start */
    uint64_t entries;      /* replayed */
    uint64_t bytes;        /* of the batches that they stood in */
    uint64_t torn_batches; /* cut off at the end: written, never acknowledged */
    uint64_t torn_bytes;
    char torn_file[64]; /* where, if torn_batches > 0 */
    uint64_t torn_offset;
    bool read;          /* nothing has failed to be read: what has failed, if anything, is the writing */
    bool start_missing; /* nothing is left of the segment in which reading was to begin (log_open() has failed) */
};

struct log;

/* Where reading begins: behind this entry, in this segment. Both from a snapshot; both 0: the log's beginning. */
struct log_start {
    uint64_t index;
    uint64_t segment;
    uint64_t needed; /* segments below it are not, as by log_forget(): the new epoch can use them; 0: all are */
};

/* Takes an entry in place; the bytes are gone when it returns. 0, or -1 to stop with the *error that it filled. */
typedef int log_replay_fn(void *context, const struct log_entry *entry, struct mr_error *error);
/* Reads the partition's log, calls `replay` for every sound entry behind `start`, in order; then begins a new epoch and
 * waits until that is durable. 0; or -1 with *error, damage naming file, offset and index (in which case nothing was
 * written). Without a start, a folder without a log gets one. Segments before the start's are not looked into. It waits
 * for completions of its own and drops all others: nothing else may be under way on the io. */
int log_open(const struct log_config *config, const struct log_start *start, log_replay_fn *replay, void *context,
             struct log_recovery *recovery, struct log **log, struct mr_error *error);
/* The same reading and the same judgement, and nothing more: writes nothing, makes nothing, and opens all files for
 * reading only. For tools, with nobody else at the log. (recovery->epoch is then the highest that was begun.) */
int log_read(const struct log_config *config, const struct log_start *start, log_replay_fn *replay, void *context,
             struct log_recovery *recovery, struct mr_error *error);
/* An orderly end: writes what is open, waits for what is in flight, claims it with an empty batch carrying `time`, and
 * frees the log in any case. -1 with *error if something that was appended could not be made durable. Entries not
 * handed out yet are in the log, but nobody is told. Completions of others are dropped here too. */
int log_close(struct log *log, uint64_t time, struct mr_error *error);
/* Lets go of memory and descriptors without writing anything. Nothing may be in flight, unless the io is dead. */
void log_abandon(struct log *log);

/* Room for a body of up to `size` bytes in the open batch, 8-byte aligned; NULL when there is none just now (all
 * buffers in flight, the next segment not ready, trouble, or what failed is not all handed out). The room lasts until
 * any other call but log_append(). */
uint8_t *log_reserve(struct log *log, uint32_t size);
/* Keeps the first `size` bytes of the reservation as an entry. Returns its index. Time never goes backwards in the log:
 * an earlier `time` counts as the last one, and in a batch that has been open for over four seconds it stands still;
 * what holds is what log_next() says. */
uint64_t log_append(struct log *log, uint64_t time, const struct log_origin *origin, uint32_t size);
/* Seals and starts what the rules of submission allow. Call once a turn. `more`: another turn follows at once and may
 * bring more; a batch that is not large waits for that, up to MR_BATCH_GATHERS. */
void log_submit(struct log *log, bool more);
/* An empty batch that carries `time` only (no index): the marker of an idle log, or the clock's. False: not now. */
bool log_mark(struct log *log, uint64_t time);
/* Does what is due (marker after 10 ms of quiet, async flush, preparing the next segment). Returns when it wants to be
 * called next, on the io's monotonic clock (UINT64_MAX: not by time). `time` is the partition's. */
uint64_t log_tick(struct log *log, uint64_t time);

/* Completions whose token has LOG_TOKEN set are the log's; after some, log_next() may have more. */
#define LOG_TOKEN (UINT64_C(1) << 63)
void log_complete(struct log *log, const struct io_completion *completion);

/* The next entry that is durable (or has failed) and was not handed out yet. */
bool log_next(struct log *log, struct log_entry *entry);
/* Several of them at a time, up to `most`, all of one batch; 0: there are none. */
unsigned log_next_few(struct log *log, struct log_entry *entries, unsigned most);

/* ---- what a snapshot needs, and what it allows ---- */
/* The segment in which reading the log behind the entry handed out last has to begin. */
uint64_t log_segment(const struct log *log);
/* Segments with a number below this one are not needed any more; they are used again, or removed if there are many
 * (one at a time, by log_tick()). log_open() keeps those before its start too, but for what the start says, until this
 * is called: an older snapshot may need them. */
void log_forget(struct log *log, uint64_t segment);
/* From now on the segments and `beside`, bytes of the snapshots that stand beside them, may take `bytes` in all; 0:
 * what there is. A new segment with which they would take more is not made, as if the disk were full; one that waits to
 * be used again is used, and if there is more than may be, all such but one are removed. */
void log_limit(struct log *log, uint64_t bytes, uint64_t beside);
/* What `beside` and the least that the log can be cut to take, if that is more than may be; else 0. */
uint64_t log_past_limit(const struct log *log);
/* `async`, in a child: waits until all that was written when it was forked is on stable storage; `io` is the child's.
 * 0 (at once in the other modes), or -1 with *error, as also when log_unsafe(). */
int log_flush_now(const struct log *log, struct io *io, struct mr_error *error);
/* Bytes on disk of batches with entries, ever sealed or replayed by this log since it was opened: only grows. */
uint64_t log_grown(const struct log *log);

/* `async`: a write or a flush has failed, and the log does not go on yet. What the kernel let go of then no later flush
 * brings back: no snapshot of what was handed out may count. */
bool log_unsafe(const struct log *log);
/* Nothing can be appended, and all that is lacking is room for a new segment, which log_forget() could give. */
bool log_lacks_room(const struct log *log);
/* The segment that is being filled has none to follow it: log_lacks_room() comes when it is full. */
bool log_lacks_spare(const struct log *log);

bool log_in_flight(const struct log *log);        /* is any batch's write not complete? */
uint64_t log_oldest_write(const struct log *log); /* monotonic time at which the oldest one in flight began; 0: none */
uint64_t log_durable_index(const struct log *log);
uint64_t log_last_index(const struct log *log); /* of the entry appended last; a failed write takes its entries back */
uint64_t log_bytes(const struct log *log);      /* of all segments, those that wait to be used again too */
const char *log_trouble(const struct log *log); /* why nothing can be appended; NULL: no trouble */

#endif
