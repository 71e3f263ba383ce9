/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for channels that are never given out twice in a data directory, whatever dies: the log names channels by
 * them. They are reserved in blocks: DIR/channel-ids says up to where, and numbers below that which were not given out
 * when the node ended are passed over. */
#ifndef ENGINE_NODE_CHANNEL_IDS_H
#define ENGINE_NODE_CHANNEL_IDS_H

#include <stdint.h>

#include "ipc/error.h"

#define CHANNEL_IDS_BLOCK 65536

struct channel_ids {
    int directory; /* -1: `memory`, where nothing outlives the node and nothing is written */
    const char *dir;
    uint64_t next;     /* the next to be given out; from 1 */
    uint64_t reserved; /* given out are only those below */
};

/* A new directory: nothing given out yet. */
int channel_ids_create(int directory, const char *dir, struct mr_error *error);
/* Reads where the numbers go on. The descriptor stays the caller's and must stay open; -1 for `memory`. */
int channel_ids_open(struct channel_ids *ids, int directory, const char *dir, struct mr_error *error);
/* The next number. Reserves a block where the last is used up, which costs two syncs; 0 with *error if that fails. */
uint64_t channel_ids_next(struct channel_ids *ids, struct mr_error *error);

#endif
