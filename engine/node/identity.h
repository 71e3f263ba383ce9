/* SPDX-License-Identifier: Apache-2.0 */
/* A data directory: DIR/identity says what it is, DIR/lock who has it, DIR/partition-0001 ... hold one partition
 * each. */
#ifndef ENGINE_NODE_IDENTITY_H
#define ENGINE_NODE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/node/options.h"
#include "ipc/error.h"

struct identity {
    uint8_t id[16];     /* random, shown to clients: tells directories apart */
    uint64_t secret;    /* random, never shown: seeds checksums */
    uint64_t hash_seed; /* random, never shown: seeds hash tables */
    uint32_t partitions;
    bool memory; /* made for --durability memory */
    uint64_t session_output_limit;
};

/* Opens DIR (made with mode 0700 if its parent exists), takes the directory's lock (waiting up to 10 s, then an error
 * that says who holds it), and reads the identity or makes a new one (written beside, synced, renamed, directory
 * synced; the partitions' folders too). Refused, naming both: another format version, another number of partitions,
 * disk against memory. *lock_fd is to be inherited by workers and never closed before the end. In `memory` the
 * directory holds nothing but lock and identity, and the identity's random parts are made anew each time. 0, or -1 with
 * *error. */
int identity_open(const struct options *options, struct identity *identity, int *lock_fd, struct mr_error *error);
/* For tools: reads what is there, and changes nothing. With `lock` no node can start on DIR until *lock_fd (-1: there
 * is none to close) is closed, and one that runs is an error that names its pid, code EBUSY. 0; or -1 with *error: code
 * 0 if what says what the directory is is damaged. */
int identity_look(const char *dir, bool lock, struct identity *identity, int *lock_fd, struct mr_error *error);
/* How long it waits for the lock, ns: 10 s. Tests shorten it. */
extern uint64_t identity_lock_wait;
/* DIR/partition-0001 and so on. */
void identity_partition_path(const char *dir, uint32_t partition, char *path, size_t size);

#endif
