/* SPDX-License-Identifier: Apache-2.0 */
/* What `millrace serve` is told: the options, their defaults, units and ranges, in one table (options.c) that parsing
 * and `--help` are made from. */
#ifndef ENGINE_NODE_OPTIONS_H
#define ENGINE_NODE_OPTIONS_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/log/log.h"
#include "engine/node/access.h"
#include "engine/node/sandbox.h"
#include "ipc/error.h"

enum idle_mode { IDLE_SPIN, IDLE_ADAPTIVE, IDLE_BLOCK };

struct options {
    const char *dir;
    char socket[128];    /* DIR/millrace.sock unless given */
    uint32_t partitions; /* if not given: 1 for a new directory, else what the directory has */
    bool partitions_given;
    enum durability durability;
    bool pin;                  /* false: --cpus none */
    cpu_set_t cpus;            /* where workers may be pinned: --cpus, kept to the process's own mask */
    unsigned cpu_count;        /* processors in it */
    unsigned cpu_count_in_all; /* processors that this process may run on, and its clients too */
    enum idle_mode idle;
    uint64_t ring_bytes;
    uint64_t max_payload;
    uint64_t batch_bytes;
    uint64_t segment_bytes;
    uint64_t flush_interval;  /* ns */
    uint64_t snapshot_bytes;  /* 0: only on demand and at a stop */
    uint64_t session_outputs; /* bytes; not given: of a directory that is there, the directory's counts */
    bool session_outputs_given;
    struct access access;
    uint64_t memory_limit; /* bytes of a partition's heap; 0: none */
    bool memory_limit_given;
    uint64_t disk_limit;                                /* bytes of a partition's log and snapshots; 0: none */
    uint64_t max_sessions, user_sessions, max_services; /* of a partition */
    const char *user;                                   /* NULL: the node stays who started it */
    enum sandbox_mode sandbox;
    uint32_t user_connections, user_channels; /* what one user may have; channels: of each partition */
};

enum options_result { OPTIONS_OK = 0, OPTIONS_HELP, OPTIONS_WRONG };

/* argv[0] is "serve"; argv may be reordered. Strings of *options point into argv. OPTIONS_WRONG: *error names option,
 * value and what is allowed. Checks each value and how they fit together (max_payload against ring_bytes, segment_bytes
 * against both and batch_bytes). A --max-payload or --batch-bytes that is not given becomes smaller where ring or
 * segment ask for it. */
enum options_result options_parse(int argc, char **argv, struct options *options, struct mr_error *error);
void options_help(FILE *to);
/* The word for the durability that was chosen. */
const char *options_durability(const struct options *options);
/* The options' names, without dashes, from 0 on; NULL behind the last. */
const char *options_name(unsigned number);

#endif
