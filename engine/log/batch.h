/* SPDX-License-Identifier: Apache-2.0 */
/* Batches: what the log writes at once. This file defines their bytes; it knows neither files nor when they are
 * written.
 *
 * A batch is a header of 128 bytes and, directly behind it, `count` entries. It begins on a multiple of its segment's
 * block; from its end to the next multiple there are zeros. All numbers are little-endian.
 *
 *     offset  bytes  header
 *          0      8  magic "MRBATCH\n"
 *          8      4  format version, 1
 *         12      4  flags; bit 0: the first batch of its epoch, which is empty. The others are 0
 *         16      8  length of header and entries, without the zeros behind; a multiple of 8
 *         24      8  checksum
 *         32      8  header checksum
 *         40      4  partition
 *         44      4  count of entries; 0: an empty batch, which carries time and a claim, but no index
 *         48      8  number of the segment that it was written to
 *         56      8  epoch
 *         64      8  sequence: 1 for the first batch of the log, then one more for each
 *         72      8  index of the first entry; in an empty batch, the index that the next entry will have
 *         80      8  time, nanoseconds since 1970
 *         88      8  durable-through: the sequence of the last batch that was durable, with all before it, when this
 *                    one was sealed
 *         96      8  the checksum of the batch before; 0 in the log's first
 *        104     24  zeros
 *
 *     offset  bytes  entry
 *          0      8  channel; 0: the node itself
 *          8      8  position of the request in the channel's ring
 *         16      4  bytes that the request's frame takes there
 *         20      4  uid of who sent it
 *         24      4  size of the body; 0: an entry that carries only time
 *         28      4  nanoseconds from the batch's time to the entry's
 *         32  `size`  the body, then zeros to a multiple of 8
 *
 * Entries have consecutive indexes. In pseudo-code, with `secret` that of the directory:
 *
 *     header checksum = XXH3_64(header with both checksums zero, seed = secret)
 *     checksum        = XXH3_64(entries, seed = header checksum)
 *
 * A header is sound if its magic and its own checksum are right, a batch if its checksum is right too. Magic, version,
 * length and the two checksums keep their place, the header its size and both sums their meaning in every version: so a
 * version that is not known is known to be one. Since clients never see the secret, nothing that they send can pose as
 * a header, wherever it comes to lie. A sound header is believed even where its entries are damaged: what it claims was
 * true when it was sealed.
 *
 * A batch follows on another, in the segment that its header names, if its sequence is one more, its index the next,
 * its `previous` that batch's checksum, its time not less, and its epoch the same or, if it is the first of its epoch,
 * a greater one. Nothing else is ever accepted. */
#ifndef ENGINE_LOG_BATCH_H
#define ENGINE_LOG_BATCH_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { BATCH_VERSION = 1, BATCH_HEADER_BYTES = 128, ENTRY_HEADER_BYTES = 32 };
enum { BATCH_FIRST_OF_EPOCH = 1 };

#define BATCH_MAGIC UINT64_C(0x0a4843544142524d)

struct batch_header {
    uint64_t magic;
    uint32_t version;
    uint32_t flags;
    uint64_t length;
    uint64_t checksum;
    uint64_t header_checksum;
    uint32_t partition;
    uint32_t count;
    uint64_t segment;
    uint64_t epoch;
    uint64_t sequence;
    uint64_t first_index;
    uint64_t time;
    uint64_t durable_through;
    uint64_t previous;
    uint64_t zeros[3];
};
static_assert(sizeof(struct batch_header) == BATCH_HEADER_BYTES, "the batch header's bytes are the format");
static_assert(offsetof(struct batch_header, partition) == 40 && offsetof(struct batch_header, segment) == 48 &&
                  offsetof(struct batch_header, previous) == 96,
              "the batch header's bytes are the format");

struct entry_header {
    uint64_t channel;
    uint64_t position;
    uint32_t frame_size;
    uint32_t uid;
    uint32_t size;
    uint32_t time_offset;
};
static_assert(sizeof(struct entry_header) == ENTRY_HEADER_BYTES, "the entry header's bytes are the format");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the log's bytes are little-endian");

/* `value` up to the next multiple of `unit`, a power of two. */
static inline uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) & ~(unit - 1);
}

/* Bytes that an entry with a body of this size takes. */
static inline uint64_t entry_bytes(uint32_t size)
{
    return ENTRY_HEADER_BYTES + round_up(size, 8);
}

/* Completes *header (magic, version and checksums; `length` and the rest are the caller's) for the entries that stand
 * at `bytes` behind the room for it, and only then writes it there. Gives the batch's checksum. */
uint64_t batch_seal(uint8_t *bytes, struct batch_header *header, uint64_t secret);

/* Is this a sound header, of any version? 128 bytes are read; they may be anything. */
bool batch_header_sound(const uint8_t *bytes, uint64_t secret);
/* The same for all `length` bytes of a batch whose header is sound and of our version; its entries fill it exactly. */
bool batch_sound(const uint8_t *bytes);

/* The entry at `offset` of a sound batch; gives the offset of the next one. */
static inline uint64_t batch_entry(const uint8_t *bytes, uint64_t offset, struct entry_header *entry)
{
    memcpy(entry, bytes + offset, sizeof *entry);
    return offset + entry_bytes(entry->size);
}

#endif
