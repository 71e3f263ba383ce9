/* SPDX-License-Identifier: Apache-2.0 */
/* Sealing a batch and looking whether one is sound, as batch.h lays it down. */
#include "engine/log/batch.h"

#include <xxhash.h>

/* The header's own sum, for which both sums count as zero. */
static uint64_t hash_header(const struct batch_header *header, uint64_t secret)
{
    struct batch_header copy = *header;
    copy.checksum = 0;
    copy.header_checksum = 0;
    return XXH3_64bits_withSeed(&copy, sizeof copy, secret);
}

uint64_t batch_seal(uint8_t *bytes, struct batch_header *header, uint64_t secret)
{
    header->magic = BATCH_MAGIC;
    header->version = BATCH_VERSION;
    header->header_checksum = hash_header(header, secret);
    header->checksum =
        XXH3_64bits_withSeed(bytes + BATCH_HEADER_BYTES, header->length - BATCH_HEADER_BYTES, header->header_checksum);
    /* Where the bytes are a mapping that outlives this process, the entries stand before the header that vouches for
     * them does. */
    __atomic_signal_fence(__ATOMIC_RELEASE);
    memcpy(bytes, header, sizeof *header);
    return header->checksum;
}

bool batch_header_sound(const uint8_t *bytes, uint64_t secret)
{
    struct batch_header header;
    memcpy(&header, bytes, sizeof header);
    return header.magic == BATCH_MAGIC && header.header_checksum == hash_header(&header, secret);
}

bool batch_sound(const uint8_t *bytes)
{
    struct batch_header header;
    memcpy(&header, bytes, sizeof header);
    if (header.length < BATCH_HEADER_BYTES ||
        header.checksum != XXH3_64bits_withSeed(bytes + BATCH_HEADER_BYTES, header.length - BATCH_HEADER_BYTES,
                                                header.header_checksum))
        return false;
    uint64_t offset = BATCH_HEADER_BYTES;
    for (uint32_t n = 0; n < header.count; n++) {
        struct entry_header entry;
        if (header.length - offset < ENTRY_HEADER_BYTES)
            return false;
        uint64_t next = batch_entry(bytes, offset, &entry);
        if (next > header.length)
            return false;
        offset = next;
    }
    return offset == header.length;
}
