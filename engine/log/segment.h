/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: the files, or in `memory` the memfds, that hold a partition's log. This file defines their names and their
 * header, and opens them; it does not know what stands in the batches.
 *
 * A segment's name, `segment-0000`, `segment-0001` and so on, is a slot: which segment stands there its header says, so
 * that a slot can be used again for another segment without a directory operation. In `memory` a slot is the number by
 * which the supervisor knows the memfd. The first block of a segment holds its header and then zeros, the rest batches:
 *
 *     offset  bytes
 *          0      8  magic "MRSEGMT\n"
 *          8      4  format version, 1
 *         12      4  partition
 *         16      8  checksum: XXH3_64 of these 128 bytes with this field zero, seed 0
 *         24      8  number of the segment: 1 for the log's first, then greater for each; never given twice
 *         32      8  size in bytes
 *         40      4  block: batches begin on multiples of it, the first on the first behind the header. A power of two
 *         44      4  flags; bit 0: used before, so that what an earlier life left may stand behind the header. The
 *                    others are 0
 *         48      8  directory: XXH3_64 of "millrace" with the directory's secret as seed
 *         56      8  epoch of the log when the segment was prepared; 0: none had begun
 *         64      8  number of the segment in which the log stood then; 0: none
 *         72     56  zeros
 *
 * Magic, version and checksum keep their place in every version, and the checksum its meaning. A segment gets its
 * header last: all of it has been written, and that synced, before; and it is durable, with its name, before the first
 * batch is written behind it. So a slot without a sound header is one whose preparation was cut short, unless batches
 * that belong to the log stand in it: then the header was damaged.
 *
 * A slot whose segment is not needed any more becomes another segment by getting another header, and nothing else: a
 * header lies in one sector, so after a power cut there stands the old one or the new one. The old batches stay, and
 * cannot be taken for the new segment's, because each says which segment it was written for, and no number is given to
 * a second segment. In such a segment only a sound header of a batch that was written for it counts; where a fresh one
 * has zeros, it has anything.
 *
 * The log's segments are read in the order of their numbers. Numbers may be missing: the chain of batches says what
 * follows on what. But a segment in which the log stood stays until a snapshot has made it superfluous; so if a segment
 * names one that is not there, in an epoch no earlier than that in which what can be read ends, then the end is
 * missing. And none is shorter than its header says. */
#ifndef ENGINE_LOG_SEGMENT_H
#define ENGINE_LOG_SEGMENT_H

#include "engine/io/io.h"
#include "engine/log/log.h"

enum { SEGMENT_VERSION = 1, SEGMENT_HEADER_BYTES = 128, SEGMENT_NAME_SIZE = 32 };

/* Blocks: in `memory` nothing can tear, so batches need only keep to cache lines; files have at least this. None is
 * larger than what the log's buffers keep to; no device is known that asks for more. */
enum { SEGMENT_MEMORY_BLOCK = 64, SEGMENT_BLOCK_MIN = 4096, SEGMENT_BLOCK_MAX = 65536 };

enum { SEGMENT_USED_BEFORE = 1 };

struct segment {
    uint64_t number;
    uint64_t size;      /* bytes */
    uint32_t block;     /* batches begin on multiples of it */
    uint32_t slot;      /* which names it */
    bool used;          /* used before: stale batches may stand in it */
    int file;           /* -1: closed. In `memory` the memfd, which stays the giver's */
    uint64_t epoch;     /* when it was prepared: the log's */
    uint64_t after;     /* and the number of the segment in which the log stood */
    uint32_t alignment; /* while it is open: what reads and writes of it keep to */
    uint8_t *mapping;   /* in `memory`, from when it is first written to */
    uint64_t limit;     /* recovery: batches from this sequence on were cut off, by an epoch in a later segment */
    unsigned users;     /* batches in memory that stand, or will, in it */
    bool dirty;         /* async: holds what was written and not flushed since */
    bool flushing;      /* async: a sync is under way */
};

/* What the first bytes of a slot are. */
enum segment_state {
    SEGMENT_SOUND,
    SEGMENT_BLANK,   /* no sound header */
    SEGMENT_REFUSED, /* another version's, partition's or directory's; *error says which */
};

void segment_name(char name[SEGMENT_NAME_SIZE], uint32_t slot);
/* False: not a segment's name. */
bool segment_parse_name(const char *name, uint32_t *slot);

/* The header of a segment, SEGMENT_HEADER_BYTES, to `bytes`. */
void segment_encode(uint8_t *bytes, const struct segment *segment, const struct log_config *config);
/* Reads a header; `slot` of *segment is set and appears in messages. */
enum segment_state segment_decode(const uint8_t *bytes, struct segment *segment, const struct log_config *config,
                                  struct mr_error *error);

/* Where the first batch begins. */
uint64_t segment_first_offset(const struct segment *segment);

enum segment_access {
    SEGMENT_READ, /* for a look at a log that nobody writes to: without the lock */
    SEGMENT_WRITE,
    SEGMENT_CREATE /* its file is made */
};

/* Opens the segment's slot and takes its lock, waiting until a dead predecessor's last write has landed. In `memory`:
 * asks for its memfd. 0, or -1 with *error, whose code is the errno. */
int segment_open(struct segment *segment, const struct log_config *config, int directory, enum segment_access access,
                 struct mr_error *error);
void segment_close(struct segment *segment, const struct log_config *config);
/* `memory`: maps it for writing, unless it is mapped. */
int segment_map(struct segment *segment, struct mr_error *error);

#endif
