/* SPDX-License-Identifier: Apache-2.0 */
/* DIR/channel-ids, 24 bytes, all numbers little-endian; replaced as a whole (atomic_file.h):
 *
 *     0  u64  "MLICHIDS", the bytes in this order
 *     8  u64  reserved: every number below may have been given out, none from it on
 *    16  u64  XXH3-64 of bytes 0 to 15, seed 0
 *
 * A node that starts takes a block from `reserved` on and writes the new end before it gives out the first of it. */
#include "engine/node/channel_ids.h"

#include "engine/node/atomic_file.h"

#include <string.h>
#include <xxhash.h>

#define FILE_NAME "channel-ids"

static const char magic[8] = {'M', 'L', 'I', 'C', 'H', 'I', 'D', 'S'};

struct file {
    char magic[8];
    uint64_t reserved;
    uint64_t checksum;
};
_Static_assert(sizeof(struct file) == 24, "the format above");

static int write_reserved(int directory, const char *dir, uint64_t reserved, struct mr_error *error)
{
    struct file file = {.reserved = reserved};

    memcpy(file.magic, magic, sizeof(magic));
    file.checksum = XXH3_64bits(&file, offsetof(struct file, checksum));
    return atomic_file_write(directory, dir, FILE_NAME, &file, sizeof(file), error);
}

int channel_ids_create(int directory, const char *dir, struct mr_error *error)
{
    return write_reserved(directory, dir, 1, error);
}

int channel_ids_open(struct channel_ids *ids, int directory, const char *dir, struct mr_error *error)
{
    struct file file;

    *ids = (struct channel_ids){.directory = directory, .dir = dir, .next = 1, .reserved = UINT64_MAX};
    if (directory < 0)
        return 0;
    long size = atomic_file_read(directory, dir, FILE_NAME, &file, sizeof(file), error);
    if (size < 0)
        return -1;
    if (size != sizeof(file) || memcmp(file.magic, magic, sizeof(magic)) != 0 ||
        file.checksum != XXH3_64bits(&file, offsetof(struct file, checksum)) || file.reserved == 0)
        return error_set(error,
                         "%s/%s is damaged: without it a channel's number could be given out twice; "
                         "restore the directory from a copy",
                         dir, FILE_NAME);
    ids->next = ids->reserved = file.reserved;
    return 0;
}

uint64_t channel_ids_next(struct channel_ids *ids, struct mr_error *error)
{
    if (ids->next == ids->reserved) {
        uint64_t reserved = ids->reserved + CHANNEL_IDS_BLOCK;
        if (write_reserved(ids->directory, ids->dir, reserved, error) != 0)
            return 0;
        ids->reserved = reserved;
    }
    return ids->next++;
}
