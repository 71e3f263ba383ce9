/* SPDX-License-Identifier: Apache-2.0 */
/* Every limit of Millrace, once: defaults and ranges of the node's options, and the fixed bounds behind them. Sizes are
 * bytes, times nanoseconds unless the name says otherwise. Node, library and tests take them from here. */
#ifndef MILLRACE_LIMITS_H
#define MILLRACE_LIMITS_H

#include <stdint.h>

#define MR_KIB UINT64_C(1024)
#define MR_MIB (1024 * MR_KIB)
#define MR_GIB (1024 * MR_MIB)
#define MR_MICROSECOND UINT64_C(1000)
#define MR_MILLISECOND (1000 * MR_MICROSECOND)
#define MR_SECOND (1000 * MR_MILLISECOND)
#define MR_HOUR (3600 * MR_SECOND)

/* --partitions: partitions are numbered 1 to N. */
#define MR_PARTITIONS_DEFAULT 1
#define MR_PARTITIONS_MAX 64

/* --ring-bytes: each of a channel's two rings; a power of two. */
#define MR_RING_BYTES_DEFAULT (4 * MR_MIB)
#define MR_RING_BYTES_MIN (16 * MR_KIB)
#define MR_RING_BYTES_MAX (1 * MR_GIB)

/* --max-payload: the largest body of a request frame; at most a quarter of the ring. */
#define MR_PAYLOAD_DEFAULT (1 * MR_MIB)
#define MR_PAYLOAD_MIN (1 * MR_KIB)
#define MR_PAYLOAD_MAX (256 * MR_MIB)

/* --batch-bytes: a batch is sealed when it has reached this. */
#define MR_BATCH_BYTES_DEFAULT (256 * MR_KIB)
#define MR_BATCH_BYTES_MIN (8 * MR_KIB)
#define MR_BATCH_BYTES_MAX (16 * MR_MIB)

/* --segment-bytes: holds at least four of the largest batches. */
#define MR_SEGMENT_BYTES_DEFAULT (64 * MR_MIB)
#define MR_SEGMENT_BYTES_MIN (64 * MR_KIB)
#define MR_SEGMENT_BYTES_MAX (4 * MR_GIB)

/* --snapshot-bytes: so much log is written between two snapshots, or as much as the first one has if that is more; 0:
 * only on demand and at an orderly stop. */
#define MR_SNAPSHOT_BYTES_DEFAULT (256 * MR_MIB)
#define MR_SNAPSHOT_BYTES_MIN (64 * MR_KIB)
#define MR_SNAPSHOT_BYTES_MAX (1024 * MR_GIB)
/* One that failed is tried again after this, then after twice as long, and so on. */
#define MR_SNAPSHOT_PAUSE_FIRST (10 * MR_SECOND)
#define MR_SNAPSHOT_PAUSE_MOST (300 * MR_SECOND)
/* A process that writes one and has not got on for so long is killed; the next is given twice as long, and so on. */
#define MR_SNAPSHOT_PATIENCE (300 * MR_SECOND)
#define MR_SNAPSHOT_PATIENCE_MOST (24 * MR_HOUR)

/* --flush-interval: how much a power cut can take in `async`. */
#define MR_FLUSH_INTERVAL_DEFAULT (10 * MR_MILLISECOND)
#define MR_FLUSH_INTERVAL_MIN (1 * MR_MILLISECOND)
#define MR_FLUSH_INTERVAL_MAX (60 * MR_SECOND)

/* Written to disk at once, and in flight. */
#define MR_BATCHES_IN_FLIGHT 4
#define MR_BATCH_EARLY_BYTES (128 * MR_KIB)     /* a batch this large is written although others are in flight */
#define MR_BATCH_GATHERS (300 * MR_MICROSECOND) /* a smaller one waits so long at most, while more keeps coming */

/* Channels of one partition; connections to the supervisor. --user-channels and --user-connections: what one user may
 * have of them, so that one alone cannot take them all. */
#define MR_CHANNELS_MAX 1024
#define MR_CONNECTIONS_MAX 4096
#define MR_USER_CHANNELS_DEFAULT (MR_CHANNELS_MAX / 2)
#define MR_USER_CONNECTIONS_DEFAULT (MR_CONNECTIONS_MAX / 2)
/* A connection that has not said its Hello after this is dropped. Likewise one that was given a channel and has not
 * mapped it. */
#define MR_HANDSHAKE_LIMIT (10 * MR_SECOND)

/* Room in the response ring that a request holds from being taken until its last frame, so that any answer without a
 * large payload (a refusal, a cancellation, an id, a number) always fits. */
#define MR_SMALL_FRAME 256
/* A message in a frame is cut at this many bytes, so that it fits in a small frame. */
#define MR_MESSAGE_MAX 160

/* One channel's share of a worker's turn. */
#define MR_TURN_REQUESTS 256
#define MR_TURN_BYTES (256 * MR_KIB)
/* Of KeepAlives that may have to look at more commands than this, one at a time is logged: the next when it is
 * applied, and the same user's next when this share of the worker's time is the most that his have had. */
#define MR_WALK_AT_ONCE 16384
#define MR_WALK_SHARE 16                  /* one in so many */
#define MR_WALK_WAITS_MAX (1 * MR_SECOND) /* and not longer than this, however long the last one seemed to take */
/* What it may take to hand wake-ups over, besides so much for each, before their users' are measured one by one, for so
 * long. Of a user's no more are then begun in a turn than take the usual of the worker's processor time; and what one
 * takes beyond that may be this share of it, or he is not woken; he may be so far behind with that. */
#define MR_BELLS_QUICK (50 * MR_MICROSECOND)
#define MR_BELL_QUICK (15 * MR_MICROSECOND)
#define MR_BELL_USUAL (100 * MR_MICROSECOND)
#define MR_BELL_SHARE 256 /* one in so many */
#define MR_BELL_BEHIND (2 * MR_SECOND)
#define MR_BELL_WATCHED (10 * MR_SECOND)
/* What one query with many outputs may give in a turn: others are not kept waiting for longer than that takes. */
#define MR_TURN_OUTPUTS 256
#define MR_TURN_OUTPUT_BYTES (64 * MR_KIB)
/* What all streams and walks of one channel may give in a turn, before one more output. */
#define MR_TURN_CHANNEL_BYTES (1 * MR_MIB)
/* Queries of one channel that wait for an index or for room. */
#define MR_WAITING_QUERIES_MAX 1024
#define MR_QUERY_TIME_LIMIT_DEFAULT (5 * MR_SECOND)
#define MR_QUERY_TIME_LIMIT_MAX MR_HOUR /* a longer one is cut to this */

/* --memory-limit: what a partition's worker may hold in its heap before commands that would grow it are refused; 0:
 * nothing is. Measured so often, and behind so many bytes of commands. */
#define MR_MEMORY_LIMIT_MIN (32 * MR_MIB)
#define MR_MEMORY_LIMIT_MAX (64 * 1024 * MR_GIB)
#define MR_MEMORY_LOOK_EVERY (10 * MR_MILLISECOND)
#define MR_MEMORY_LOOK_BYTES (1 * MR_MIB)
/* --disk-limit: what a partition's log and its two snapshots may take; 0: what the disk has. So many segments, and so
 * many times --snapshot-bytes, must fit. */
#define MR_DISK_LIMIT_MIN (1 * MR_MIB)
#define MR_DISK_LIMIT_MAX (64 * 1024 * MR_GIB)
#define MR_DISK_LIMIT_SEGMENTS 8
#define MR_DISK_LIMIT_SNAPSHOTS 4
/* --max-sessions, --user-sessions, --max-services: of one partition. */
#define MR_SESSIONS_DEFAULT 65536
#define MR_USER_SESSIONS_DEFAULT (MR_SESSIONS_DEFAULT / 2)
#define MR_SESSIONS_MAX 16777216
#define MR_SERVICES_DEFAULT 65536
#define MR_SERVICES_MAX 16777216

/* Sessions (part of the state, so not an option of a running node). */
#define MR_SESSION_TIMEOUT_MAX (24 * MR_HOUR)
/* --session-outputs: what the unacknowledged outputs of one session may take; fixed when the directory is made. */
#define MR_SESSION_OUTPUT_BYTES_DEFAULT (64 * MR_MIB)
#define MR_SESSION_OUTPUT_BYTES_MIN (64 * MR_KIB)
#define MR_SESSION_OUTPUT_BYTES_MAX (64 * MR_GIB)
/* Deadlines that one entry of the log fires, and outputs that it gives to streams by them, before the rest is left to
 * the next entries. Part of what a log means, as are the next two: other numbers give another state. */
#define MR_ENTRY_DEADLINES 256
#define MR_ENTRY_DEADLINE_OUTPUTS 65536
/* A map's listeners; and events of one Clear, a map's entries times its listeners: with more it is refused, unless only
 * four listen to all of it. */
#define MR_EVENTS_MAX UINT64_C(1048576)
/* What a process that comes back to a session is told of the commands that are open in it: with more, it is refused. */
#define MR_ATTACH_BYTES_MAX (64 * MR_MIB)
/* The bit array of KeepAlive's filter. */
#define MR_FILTER_PROBES_MAX 16
#define MR_FILTER_BITS_MIN 64

/* A Unix socket's path, without the NUL. */
#define MR_SOCKET_PATH_MAX 107
/* --allow-uid, --allow-gid: users, or groups, that can be named. */
#define MR_ALLOWED_MAX 64

/* The client library. */
#define MR_REQUESTS_MAX 65536                       /* open at once on one handle; a power of two */
#define MR_SESSION_TIMEOUT_DEFAULT (10 * MR_SECOND) /* renewed at a third of it */
#define MR_SESSION_TIMEOUT_MIN (1 * MR_MILLISECOND)
#define MR_KEEP_ALIVE_ANSWERS 4096                /* a KeepAlive that lets the node forget: after so many answers */
#define MR_KEEP_ALIVE_BYTES (4 * MR_MIB)          /* ... or so many bytes of answers */
#define MR_KEEP_ALIVE_OUTPUTS 4096                /* ... or so many outputs taken from streams */
#define MR_KEEP_ALIVE_OUTPUT_BYTES (512 * MR_KIB) /* ... or so many bytes of them */
#define MR_CLOSE_WAIT (1 * MR_SECOND)             /* mr_close() waits for the node no longer */
#define MR_RECONNECT_DEFAULT (30 * MR_SECOND)     /* how long a node may be away until its clients take it for gone */

/* Waiting. */
#define MR_SPIN_LIMIT (50 * MR_MICROSECOND)      /* adaptive: at most this long before sleeping */
#define MR_SPIN_PATIENT (250 * MR_MICROSECOND)   /* ... a client that has seen that it pays */
#define MR_YIELD_IDLE (2 * MR_MICROSECOND)       /* a client that spins yielded its processor: to nobody */
#define MR_YIELD_DEAR (500 * MR_MICROSECOND)     /* to somebody who kept it */
#define MR_PARK_AFTER (100 * MR_MILLISECOND)     /* a channel quiet this long is no longer scanned */
#define MR_MARKER_AFTER (10 * MR_MILLISECOND)    /* an idle log is closed off by an empty batch */
#define MR_CLOCK_STEP_MAX (100 * MR_MILLISECOND) /* how much later than intended a partition's clock may find itself */
#define MR_TIME_LOGGED_EVERY (10 * MR_SECOND)    /* with deadlines pending, on an idle partition */

#endif
