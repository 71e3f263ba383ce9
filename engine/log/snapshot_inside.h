/* SPDX-License-Identifier: Apache-2.0 */
/* What the writer and the readers of snapshots share: the head's bytes, as snapshot.h lays them down, names, and how
 * one chunk is read and checked. Nobody else includes it. */
#ifndef ENGINE_LOG_SNAPSHOT_INSIDE_H
#define ENGINE_LOG_SNAPSHOT_INSIDE_H

#include <assert.h>

#include "engine/log/snapshot.h"

#define SNAPSHOT_MAGIC UINT64_C(0x0a5350414e53524d)
/* The last chunk's bytes are rounded up to it, and buffers, sizes and offsets of direct files keep to it. */
enum { SNAPSHOT_UNIT = 4096 };
/* Of both sections in one chunk. */
#define SNAPSHOT_PAYLOAD (SNAPSHOT_CHUNK - SNAPSHOT_HEAD_BYTES)

struct snapshot_head {
    uint64_t magic;
    uint32_t version;
    uint32_t partition;
    uint64_t checksum;
    uint64_t index;
    uint64_t time;
    uint64_t segment;
    uint32_t chunk;
    uint32_t sizes[2];
    uint32_t last;
};
static_assert(sizeof(struct snapshot_head) == SNAPSHOT_HEAD_BYTES, "the head's bytes are the format");
static_assert(offsetof(struct snapshot_head, index) == 24 && offsetof(struct snapshot_head, last) == 60,
              "the head's bytes are the format");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a snapshot's bytes are little-endian");

/* The checksum of a chunk that stands at `bytes`, whatever its checksum field holds; `size` is head and payload. The
 * bytes are as they were when it returns. */
uint64_t snapshot_sum(uint8_t *bytes, uint64_t size, uint64_t secret);

void snapshot_name(char name[SNAPSHOT_NAME_SIZE], uint64_t index);
void snapshot_new_name(char name[SNAPSHOT_NAME_SIZE], uint64_t epoch);
/* False: not a name of this kind. */
bool snapshot_parse_name(const char *name, uint64_t *index);
bool snapshot_parse_new_name(const char *name, uint64_t *epoch);

/* A file of the place, opened for direct I/O if that can keep to SNAPSHOT_UNIT, else without. A descriptor, or a
 * negative errno. */
int snapshot_open(const struct snapshot_place *place, int directory, const char *name, unsigned flags);

/* ---- reading ---- */

/* What is being read. */
struct snapshot_source {
    const struct snapshot_place *place;
    const char *name;
    int file;
    uint64_t size; /* of the file */
};

/* Says in *error that it is, and what shows it. Returns -1. */
int snapshot_damaged(const struct snapshot_source *source, uint64_t offset, const char *what, struct mr_error *error);
/* Exactly that, or -1 with *error. */
int snapshot_read_all(const struct snapshot_source *source, uint8_t *to, uint64_t size, uint64_t offset,
                      struct mr_error *error);
/* Checks the chunk that stands at `bytes`, of which `there` are there, as chunk `number`: all that can be said of it by
 * itself. 0 and *head, or -1 with *error. */
int snapshot_check_chunk(const struct snapshot_source *source, uint8_t *bytes, uint64_t there, uint64_t number,
                         struct snapshot_head *head, struct mr_error *error);
/* `memory`: the size of the memfd in this slot. 0, or -1 with *error. */
int snapshot_memory_size(const struct snapshot_place *place, unsigned slot, uint64_t *size, struct mr_error *error);

/* `memory`: makes the first chunk in this slot invalid. 0 or a negative errno. */
int snapshot_invalidate(const struct snapshot_place *place, unsigned slot);

/* `memory`: is the first chunk in this slot sound? Then *snapshot is filled. 1, 0, or -1 with *error. */
int snapshot_look(const struct snapshot_place *place, unsigned slot, struct snapshot *snapshot, struct mr_error *error);

#endif
