/* SPDX-License-Identifier: Apache-2.0 */
/* A partition's worker: the process that owns its log and its state. worker.c tells the way of a command. */
#ifndef ENGINE_NODE_WORKER_H
#define ENGINE_NODE_WORKER_H

#include "engine/node/identity.h"
#include "engine/node/options.h"
#include "engine/node/region.h"
#include "ipc/channel.h"

/* What a worker is born with; inherited by fork. */
struct worker_birth {
    const struct options *options;
    const struct identity *identity;
    uint32_t partition;
    int core;      /* to be pinned to; -1: none */
    bool may_spin; /* fewer workers than cores */
    struct region *region;
    int control;                    /* SOCK_SEQPACKET to the supervisor, blocking */
    const struct channel *channels; /* MR_CHANNELS_MAX, by slot; those with a channel_id are there */
    const int *memory_segments;     /* `memory`: the memfds held by the supervisor, by slot */
    uint32_t memory_segment_count;
    const int *memory_snapshots; /* `memory`: SNAPSHOTS_KEPT memfds, the supervisor's; else NULL */
};

/* A worker that returns 1 is restarted, backing off; one that returns this has found that no worker can run on this
 * machine (io_uring refused, say) and has said why: the whole node stops and exits with 1. */
#define WORKER_CANNOT_RUN 3

/* Runs until told to stop (returns 0) or until it cannot go on (returns one of the above, having said why on standard
 * error). The caller, just forked, has closed what is not the worker's, and exits with what is returned. */
int worker_run(const struct worker_birth *birth);

#endif
