/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor: one thread and one loop that forks a worker per partition, makes channels for clients, restarts
 * workers that die, and ends them all when it is told to. It touches no command. */
#ifndef ENGINE_NODE_SUPERVISOR_H
#define ENGINE_NODE_SUPERVISOR_H

#include "engine/node/identity.h"
#include "engine/node/options.h"
#include "engine/node/worker.h"

struct supervisor_setup {
    const struct options *options;
    const struct identity *identity;                 /* its number of partitions counts */
    int (*worker)(const struct worker_birth *birth); /* worker_run */
    /* 0: as in limits.h and supervisor_parts.h; tests lower them. */
    unsigned connections_max;
    unsigned channels_max;    /* per partition */
    uint64_t stop_limit;      /* ns that workers have for an orderly end */
    uint64_t handshake_limit; /* ns that a client has for each step that it owes */
};

/* Runs until SIGTERM or SIGINT. Returns the exit status: 0 after an orderly stop, 1 after anything else, which has been
 * said on standard error. Prints the line `ready socket=PATH partitions=N pid=PID` on standard output when all
 * partitions are served. In a process of its own: it blocks signals, and does not put them back. */
int supervisor_run(const struct supervisor_setup *setup);

/* How long to wait before a worker is started again after it has died `failures` times in a row without having served,
 * ns: at once the first time, then doubling. */
uint64_t supervisor_backoff(unsigned failures);

#endif
