/* SPDX-License-Identifier: Apache-2.0 */
/* Names, headers, opening and closing of segments, as segment.h lays them down. */
#include "engine/log/segment.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "engine/log/batch.h"
#include "ipc/sys.h"

#define SEGMENT_MAGIC UINT64_C(0x0a544d474553524d)

static const char prefix[] = "segment-";

struct segment_header {
    uint64_t magic;
    uint32_t version;
    uint32_t partition;
    uint64_t checksum;
    uint64_t number;
    uint64_t size;
    uint32_t block;
    uint32_t flags;
    uint64_t directory;
    uint64_t epoch;
    uint64_t after;
    uint64_t zeros[7];
};
static_assert(sizeof(struct segment_header) == SEGMENT_HEADER_BYTES, "the segment header's bytes are the format");
static_assert(offsetof(struct segment_header, directory) == 48, "the segment header's bytes are the format");

void segment_name(char name[SEGMENT_NAME_SIZE], uint32_t slot)
{
    snprintf(name, SEGMENT_NAME_SIZE, "%s%04" PRIu32, prefix, slot);
}

bool segment_parse_name(const char *name, uint32_t *slot)
{
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return false;
    /* A name is a slot's only if it is the one that the slot's number makes. */
    unsigned long number = strtoul(name + sizeof prefix - 1, NULL, 10);
    char back[SEGMENT_NAME_SIZE];
    segment_name(back, (uint32_t)number);
    *slot = (uint32_t)number;
    return number < UINT32_MAX && strcmp(name, back) == 0;
}

static uint64_t hash_header(struct segment_header header)
{
    header.checksum = 0;
    return XXH3_64bits_withSeed(&header, sizeof header, 0);
}

static uint64_t directory_mark(const struct log_config *config)
{
    return XXH3_64bits_withSeed("millrace", 8, config->secret);
}

void segment_encode(uint8_t *bytes, const struct segment *segment, const struct log_config *config)
{
    struct segment_header header = {.magic = SEGMENT_MAGIC,
                                    .version = SEGMENT_VERSION,
                                    .partition = config->partition,
                                    .number = segment->number,
                                    .size = segment->size,
                                    .block = segment->block,
                                    .flags = segment->used ? SEGMENT_USED_BEFORE : 0,
                                    .directory = directory_mark(config),
                                    .epoch = segment->epoch,
                                    .after = segment->after};
    header.checksum = hash_header(header);
    memcpy(bytes, &header, sizeof header);
}

enum segment_state segment_decode(const uint8_t *bytes, struct segment *segment, const struct log_config *config,
                                  struct mr_error *error)
{
    struct segment_header header;
    memcpy(&header, bytes, sizeof header);
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    if (header.magic != SEGMENT_MAGIC || hash_header(header) != header.checksum)
        return SEGMENT_BLANK;
    if (header.version != SEGMENT_VERSION) {
        error_set(error,
                  "%s/%s has format version %" PRIu32
                  ", and this program reads version %d only: use the program that wrote it",
                  config->path, name, header.version, SEGMENT_VERSION);
        return SEGMENT_REFUSED;
    }
    if (header.directory != directory_mark(config)) {
        error_set(error, "%s/%s was written for another data directory: put it back where it came from", config->path,
                  name);
        return SEGMENT_REFUSED;
    }
    if (header.partition != config->partition) {
        error_set(error, "%s/%s belongs to partition %" PRIu32 ", not to partition %" PRIu32, config->path, name,
                  header.partition, config->partition);
        return SEGMENT_REFUSED;
    }
    bool sane = header.number > 0 && header.block >= SEGMENT_MEMORY_BLOCK && header.block <= SEGMENT_BLOCK_MAX &&
                (header.block & (header.block - 1)) == 0 && header.size % header.block == 0 &&
                header.size > round_up(SEGMENT_HEADER_BYTES, header.block) &&
                (header.flags & ~(uint32_t)SEGMENT_USED_BEFORE) == 0;
    if (!sane)
        return SEGMENT_BLANK;
    segment->number = header.number;
    segment->size = header.size;
    segment->block = header.block;
    segment->epoch = header.epoch;
    segment->after = header.after;
    segment->used = (header.flags & SEGMENT_USED_BEFORE) != 0;
    return SEGMENT_SOUND;
}

uint64_t segment_first_offset(const struct segment *segment)
{
    return round_up(SEGMENT_HEADER_BYTES, segment->block);
}

static int lock_failed(const struct segment *segment, const struct log_config *config, int directory, bool created,
                       int file, int code, struct mr_error *error)
{
    const struct io_ops *ops = config->io->ops;
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    ops->close(config->io, file);
    if (created)
        (void)ops->remove(config->io, directory, name); /* if it stays, it is a slot that holds nothing */
    return error_system(error, code, "cannot lock %s/%s", config->path, name);
}

int segment_open(struct segment *segment, const struct log_config *config, int directory, enum segment_access access,
                 struct mr_error *error)
{
    segment->alignment = SEGMENT_MEMORY_BLOCK;
    if (config->durability == DURABILITY_MEMORY) {
        segment->file = config->memory_segment(config->memory_context, segment->slot, error);
        return segment->file < 0 ? -1 : 0;
    }
    const struct io_ops *ops = config->io->ops;
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    bool create = access == SEGMENT_CREATE;
    unsigned flags = access == SEGMENT_READ ? IO_READ : create ? IO_WRITE | IO_CREATE : IO_WRITE;
    int file = ops->open(config->io, directory, name, flags | IO_DIRECT);
    if (file < 0)
        return error_system(error, -file, "cannot %s %s/%s", create ? "make" : "open", config->path, name);
    int locked = access == SEGMENT_READ ? 0 : ops->lock(config->io, file);
    if (locked < 0)
        return lock_failed(segment, config, directory, create, file, -locked, error);
    segment->file = file;
    segment->alignment = ops->alignment(config->io, file);
    return 0;
}

void segment_close(struct segment *segment, const struct log_config *config)
{
    /* A mapping that cannot be unmapped stays, which harms nobody. */
    if (segment->mapping)
        (void)sys_munmap(segment->mapping, segment->size);
    segment->mapping = NULL;
    if (segment->file >= 0 && config->durability != DURABILITY_MEMORY)
        config->io->ops->close(config->io, segment->file);
    segment->file = -1;
}

int segment_map(struct segment *segment, struct mr_error *error)
{
    if (segment->mapping)
        return 0;
    void *mapping = sys_mmap(NULL, segment->size, PROT_READ | PROT_WRITE, MAP_SHARED, segment->file, 0);
    if (mapping == MAP_FAILED)
        return error_system(error, errno, "cannot map %" PRIu64 " bytes of the log's memory", segment->size);
    segment->mapping = mapping;
    return 0;
}
