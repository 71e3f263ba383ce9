/* SPDX-License-Identifier: Apache-2.0 */
/* The window over segments. It only ever grows; a batch larger than what is normally read at once makes it as large. */
#include "engine/log/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/log/batch.h"
#include "ipc/sys.h"
#include "millrace/limits.h"

#define READ_AHEAD (4 * MR_MIB)
#define WINDOW_UNIT (64 * MR_KIB)
#define WINDOW_ALIGNMENT 4096 /* of direct reads' memory */
#define TELL_EVERY (5 * MR_MILLISECOND)

void reader_init(struct reader *reader, const struct log_config *config)
{
    *reader = (struct reader){.config = config};
}

static void free_window(struct reader *reader)
{
    if (reader->ordinary)
        free(reader->window);
    else
        io_memory_free(reader->window, reader->capacity);
}

void reader_free(struct reader *reader)
{
    free_window(reader);
    reader->window = NULL;
    reader->capacity = 0;
}

void reader_forget(struct reader *reader)
{
    reader->segment = NULL;
}

static int make_room(struct reader *reader, uint64_t size, struct mr_error *error)
{
    if (size <= reader->capacity)
        return 0;
    uint64_t capacity = round_up(size, WINDOW_UNIT);
    bool ordinary = capacity == WINDOW_UNIT;
    uint8_t *window = ordinary ? aligned_alloc(WINDOW_ALIGNMENT, capacity) : io_memory(capacity, error);
    if (!window)
        return ordinary ? error_system(error, ENOMEM, "no memory for reading the log") : -1;
    free_window(reader);
    reader->window = window;
    reader->ordinary = ordinary;
    reader->capacity = capacity;
    reader->segment = NULL;
    return 0;
}

/* Reads up to `size` bytes at `offset` to the window's beginning; less only at the file's end. */
static int64_t read_file(const struct reader *reader, const struct segment *segment, uint64_t size, uint64_t offset)
{
    const struct log_config *config = reader->config;
    if (config->durability != DURABILITY_MEMORY)
        return config->io->ops->read(config->io, segment->file, reader->window, size, offset);
    uint64_t done = 0;
    while (done < size) {
        ssize_t got = sys_pread(segment->file, reader->window + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (uint64_t)got;
    }
    return (int64_t)done;
}

static void tell_progress(struct reader *reader)
{
    const struct log_config *config = reader->config;
    uint64_t now = config->io->ops->monotonic(config->io);
    if (!config->progress || reader->bytes_total == 0 || now - reader->told < TELL_EVERY)
        return;
    reader->told = now;
    uint64_t done = reader->bytes_read < reader->bytes_total ? reader->bytes_read : reader->bytes_total;
    config->progress(config->progress_context, done, reader->bytes_total);
}

static int fill(struct reader *reader, const struct segment *segment, uint64_t offset, uint64_t size,
                struct mr_error *error)
{
    if (make_room(reader, size, error) != 0)
        return -1;
    int64_t got = read_file(reader, segment, size, offset);
    if (got < 0) {
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, segment->slot);
        reader->segment = NULL;
        return error_system(error, (int)-got, "cannot read %s/%s at offset %" PRIu64, reader->config->path, name,
                            offset);
    }
    memset(reader->window + got, 0, size - (uint64_t)got);
    reader->segment = segment;
    reader->start = offset;
    reader->end = offset + size;
    reader->bytes_read += size;
    tell_progress(reader);
    return 0;
}

/* Direct reads keep to the device's alignment, which may have grown since the segment was made. */
static uint64_t read_unit(const struct log_config *config, const struct segment *segment)
{
    if (config->durability == DURABILITY_MEMORY)
        return segment->block;
    return segment->alignment > segment->block ? segment->alignment : segment->block;
}

static const uint8_t *bytes_at(struct reader *reader, const struct segment *segment, uint64_t offset, uint64_t size,
                               uint64_t ahead, struct mr_error *error)
{
    bool there = reader->segment == segment && offset >= reader->start && offset + size <= reader->end;
    if (!there) {
        uint64_t unit = read_unit(reader->config, segment);
        uint64_t start = offset & ~(unit - 1);
        uint64_t least = round_up(offset - start + size, unit);
        uint64_t left = round_up(segment->size - start, unit);
        uint64_t wanted = least > ahead ? least : ahead < left ? ahead : left;
        if (fill(reader, segment, start, wanted, error) != 0)
            return NULL;
    }
    return reader->window + (offset - reader->start);
}

const uint8_t *reader_at(struct reader *reader, const struct segment *segment, uint64_t offset, uint64_t size,
                         struct mr_error *error)
{
    return bytes_at(reader, segment, offset, size, READ_AHEAD, error);
}

const uint8_t *reader_peek(struct reader *reader, const struct segment *segment, uint64_t offset, uint64_t size,
                           struct mr_error *error)
{
    return bytes_at(reader, segment, offset, size, 0, error);
}
