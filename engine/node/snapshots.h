/* SPDX-License-Identifier: Apache-2.0 */
/* When a worker takes snapshots of its partition, and what follows from each.
 *
 * One is taken when the log has grown by so many bytes since the last one, or by as many as that one has if they are
 * more, and when somebody asks for one, always after a turn's answers are published: whatever has been applied is then
 * behind its channel's head, so that a successor that starts from the snapshot owes nobody an answer to what stands
 * before it in the log. (Open commands whose outputs go on: their clients name them again when they see that there is
 * a new worker, as they do after any death.)
 *
 * A child writes it (io->child()), from the memory as it was at the fork; the worker goes on meanwhile. When the child
 * has succeeded the two newest snapshots are known, and the log forgets what is older than the older one needs. When
 * it has failed nothing is lost; it is tried again after a pause that doubles, or as soon as the disk's trouble is
 * over. On a full disk one is also taken before it is due, for the room that the log then gives back; the one being
 * written does not count against a limit, because it makes room. At an orderly stop the worker writes one itself. */
#ifndef ENGINE_NODE_SNAPSHOTS_H
#define ENGINE_NODE_SNAPSHOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/log/snapshot.h"

struct worker;

struct snapshots_config {
    struct snapshot_place place;
    uint64_t every;      /* bytes of log, or the last one's size if that is more; 0: only on demand and at a stop */
    uint64_t disk_limit; /* bytes that log and snapshots may take; 0: what there is */
};

/* One that is whole, as far as is known. */
struct known_snapshot {
    struct snapshot_point point;
    uint64_t bytes;
};

/* Somebody waits for one. */
struct snapshot_question {
    uint64_t number;     /* the asker's, handed back */
    uint64_t connection; /* likewise */
    uint64_t index;      /* that must be in it */
};

/* A file of a snapshot that could not be believed, to be removed when another one takes its place. */
struct unsound_snapshot {
    struct unsound_snapshot *next;
    char name[SNAPSHOT_NAME_SIZE];
};

struct snapshots {
    struct snapshots_config config;
    uint64_t epoch;                              /* of this worker */
    struct known_snapshot known[SNAPSHOTS_KEPT]; /* newest first */
    unsigned known_count;
    struct unsound_snapshot *unsound;
    uint64_t due;        /* at this log_grown() the next one is */
    uint64_t not_before; /* monotonic: after a failure */
    uint64_t pause;      /* after the next failure; 0: the last one succeeded */
    bool ended;          /* the worker is told to stop: no more children */

    /* The one being written. */
    bool writing;
    struct snapshot_point point;
    uint64_t grown;     /* log_grown() as it began */
    uint64_t began;     /* monotonic */
    uint64_t fork_took; /* ns */
    uint64_t progress;  /* what its child last said, */
    uint64_t moved_at;  /* when that was seen to be something new (monotonic), */
    uint64_t patience;  /* and for how long it may stay as it is; 0: MR_SNAPSHOT_PATIENCE */
    bool given_up;      /* it did not: the child has been killed, and its end is waited for */

    uint64_t took; /* the last one that succeeded */

    struct snapshot_question *questions; /* question_count of them */
    unsigned question_count, question_capacity;
};

/* Before the log is opened. */
void snapshots_begin(struct worker *worker, const struct snapshots_config *config);
/* A sound one has been read back (only the newest is told of), or one that is older than it and has not been read. */
void snapshots_found(struct worker *worker, const struct snapshot *snapshot);
void snapshots_found_unsound(struct worker *worker, const struct snapshot *snapshot);
/* Segments of the log below this one are superfluous; 0: none is. */
uint64_t snapshots_needed(const struct worker *worker);
/* The log is open: it forgets what it need not keep. */
void snapshots_log_opened(struct worker *worker, uint64_t epoch);

/* Once a turn, when its answers are published. True if anything was done. */
bool snapshots_look(struct worker *worker);
/* The monotonic time at which a turn has something to do here if nothing comes (UINT64_MAX: never). */
uint64_t snapshots_next(const struct worker *worker);
/* The child's end. */
void snapshots_child_ended(struct worker *worker, int32_t result);
/* The disk's trouble is over: a failure need not be waited out. */
void snapshots_trouble_over(struct worker *worker);

/* Takes a question over. The answer (bytes: a SnapshotReport) comes by worker->answered(), when there is a snapshot
 * with all in it that is applied now. A partition that is stopped gives none. */
void snapshots_ask(struct worker *worker, const struct snapshot_question *question);

/* The worker is told to stop: a child under way is killed, none is begun any more. */
void snapshots_end(struct worker *worker);
/* Where reading the log has to begin for a snapshot of the present. */
struct snapshot_point snapshots_point(const struct worker *worker);
/* When the log has been closed: writes one at this point, if anything was applied since the last one. `busy` (may be
 * NULL) is told now and then how many bytes have been written. A failure is told as a warning. */
void snapshots_write_last(struct worker *worker, const struct snapshot_point *point,
                          void (*busy)(void *context, uint64_t bytes), void *context);
void snapshots_free(struct worker *worker);

#endif
