/* SPDX-License-Identifier: Apache-2.0 */
/* The small region that supervisor and worker of one partition share and no client maps: what a worker's successor must
 * know of the moment of its death, and what `millrace status` shows. It outlives workers, not the supervisor; it is
 * memory of one build, so it carries no format version.
 *
 * A channel's two cursors, the request ring's head and the response ring's tail, move in one store: the worker writes
 * the pair that is not current, then flips `current`. Killed between any two instructions, it leaves one consistent
 * pair. The shared cursors in the channel are published from it afterwards, by the worker or by its successor. */
#ifndef ENGINE_NODE_REGION_H
#define ENGINE_NODE_REGION_H

#include <stdatomic.h>
#include <stdint.h>

#include <millrace/limits.h>

struct cursor_pair {
    uint64_t request_head;  /* all requests before it are applied (or refused, or taken as queries) and answered */
    uint64_t response_tail; /* all answers before it stand in the response ring */
};

/* The sessions that a channel uses, as attach.h tells it: a hash table with open addressing. It stands here because a
 * log that is cut no longer tells who named which session. Each change is one store; while a full table is made anew
 * `all` is set, so that whoever dies in the middle of that leaves a channel that seems to use too much, not too little.
 */
enum { REGION_SESSION_PLACES = 2048 }; /* a power of two */
struct region_sessions {
    _Atomic uint32_t any;                           /* a place has been filled */
    _Atomic uint32_t all;                           /* too many to be told apart: all of its user's */
    _Atomic uint64_t places[REGION_SESSION_PLACES]; /* 0: free */
};

/* One slot per channel of the partition. The supervisor fills and frees it; only `pair`, `current` and `sessions` are
 * the worker's. */
struct region_channel {
    uint64_t channel_id; /* 0: the slot is free */
    uint32_t uid;        /* of the client, by SO_PEERCRED */
    int32_t pid;
    uint64_t connection; /* whose it is: channels of one connection have the same, others never */
    struct cursor_pair pair[2];
    _Atomic uint32_t current; /* which of the two counts: 0 or 1 */
    struct region_sessions sessions;
};

enum partition_state {
    PARTITION_STARTING = 0,
    PARTITION_RECOVERING, /* reads its snapshot and its log */
    PARTITION_SERVING,
    PARTITION_READ_ONLY,  /* the log cannot be written: `reason` */
    PARTITION_RESTARTING, /* its worker died and the next one is not there yet */
    PARTITION_STOPPED     /* damage or a poisonous entry: `reason`; until the node is started anew */
};

struct region {
    /* ---- what the worker is at, for the supervisor to look at after its death ---- */
    _Atomic uint64_t reading_channel;  /* the request being read: channel id (0: none) ... */
    _Atomic uint64_t reading_position; /* ... and position */
    _Atomic uint64_t applying_index;   /* the entry being applied; 0: none */
    _Atomic uint64_t restoring_index;  /* the snapshot being read back; 0: none */

    /* ---- what its start has met ---- */
    uint32_t unreadable_times; /* so many times in a row the same could not be read */
    char unreadable[384];      /* what, and why */

    /* ---- for `millrace status` ---- */
    _Atomic uint32_t state; /* enum partition_state: while a worker lives its word, between two the supervisor's */
    _Atomic uint32_t recovered_percent;
    _Atomic uint64_t applied_index;
    _Atomic uint64_t durable_index;
    _Atomic uint64_t log_bytes;
    _Atomic uint64_t sessions;
    _Atomic uint64_t time; /* the partition's, ns since 1970 */
    char reason[384];      /* of READ_ONLY and STOPPED; written before state is */
    /* The newest snapshot that is known to be whole; index 0: none. */
    _Atomic uint64_t snapshot_index;
    _Atomic uint64_t snapshot_bytes;
    _Atomic uint64_t snapshot_time; /* the partition's, ns since 1970 */

    /* What the child that writes a snapshot tells its parent: how far it is, and before it ends the rest. */
    _Atomic uint64_t child_progress;
    uint64_t child_bytes;
    char child_error[384];

    struct region_channel channels[MR_CHANNELS_MAX];
};

#endif
