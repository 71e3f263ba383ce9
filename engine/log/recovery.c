/* SPDX-License-Identifier: Apache-2.0 */
/* Survey and scan, as recovery.h tells them. */
#include "engine/log/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- survey ---- */

struct names {
    uint32_t *slots;
    unsigned count;
    bool no_memory;
};

static void note_slot(struct names *names, uint32_t slot)
{
    if ((names->count & (names->count + 1)) == 0) { /* full at 0, 1, 3, 7 ... */
        uint32_t *more = realloc(names->slots, (size_t)(names->count * 2 + 1) * sizeof *more);
        names->no_memory |= !more;
        if (!more)
            return;
        names->slots = more;
    }
    names->slots[names->count++] = slot;
}

static void note_name(void *context, const char *name)
{
    uint32_t slot;
    if (segment_parse_name(name, &slot))
        note_slot(context, slot);
}

static int find_slots(const struct recovery *recovery, struct names *names, struct mr_error *error)
{
    const struct log_config *config = recovery->config;
    int listed = 0;
    if (config->durability == DURABILITY_MEMORY)
        for (uint32_t slot = 0; slot < config->memory_slots; slot++)
            note_slot(names, slot);
    else
        listed = config->io->ops->list(config->io, recovery->directory, note_name, names);
    if (listed < 0)
        return error_system(error, -listed, "cannot list %s", config->path);
    if (names->no_memory)
        return error_system(error, ENOMEM, "no memory to list the segments of %s", config->path);
    return 0;
}

/* Its whole length was on the disk before it got its header. */
static int check_length(const struct recovery *recovery, const struct segment *segment, uint64_t length,
                        struct mr_error *error)
{
    if (length >= segment->size || segment->number < recovery->start.segment)
        return 0;
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    return error_set(error,
                     "%s/%s is damaged at offset %" PRIu64 ": it ends there, but was of %" PRIu64
                     " bytes. Restore the file, or the partition from a copy",
                     recovery->config->path, name, length, segment->size);
}

/* A file is as long as its segment before anything is written to it. */
static int ends_in_header(const struct recovery *recovery, const struct segment *segment, uint64_t length,
                          struct mr_error *error)
{
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    return error_set(error,
                     "%s/%s is damaged at offset %" PRIu64
                     ": it ends there, within its header. Restore the file, or the partition from a copy",
                     recovery->config->path, name, length);
}

/* Reads the header of an open slot of this length, and the first batch's. */
static int read_header(struct recovery *recovery, struct segment *segment, uint64_t length, uint64_t *begins_at,
                       struct mr_error *error)
{
    const uint8_t *bytes = reader_peek(&recovery->reader, segment, 0, SEGMENT_HEADER_BYTES, error);
    if (!bytes)
        return -1;
    *begins_at = UINT64_MAX;
    switch (segment_decode(bytes, segment, recovery->config, error)) {
    case SEGMENT_REFUSED:
        return -1;
    case SEGMENT_BLANK:
        if (length > 0 && length < SEGMENT_HEADER_BYTES)
            return ends_in_header(recovery, segment, length, error);
        recovery->blanks[recovery->blank_count++] = *segment;
        /* In memory a worker that was killed while it wrote a header has left a part of it. */
        if (!all_zero(bytes, SEGMENT_HEADER_BYTES) && recovery->config->durability != DURABILITY_MEMORY)
            recovery->spoiled = &recovery->blanks[recovery->blank_count - 1];
        return 0;
    case SEGMENT_SOUND:
        break;
    }
    if (check_length(recovery, segment, length, error) != 0)
        return -1;
    bytes = reader_peek(&recovery->reader, segment, segment_first_offset(segment), BATCH_HEADER_BYTES, error);
    if (!bytes)
        return -1;
    struct batch_header first;
    memcpy(&first, bytes, sizeof first);
    if (batch_header_sound(bytes, recovery->config->secret) && first.version == BATCH_VERSION &&
        written_for(&first, segment) && (first.flags & BATCH_FIRST_OF_EPOCH) != 0 &&
        first.length == BATCH_HEADER_BYTES && batch_sound(bytes))
        *begins_at = first.sequence;
    recovery->segments[recovery->count++] = *segment;
    return 0;
}

/* What is known of a slot before its header is read. */
static int open_slot(const struct recovery *recovery, uint32_t slot, struct segment *segment, uint64_t *length,
                     struct mr_error *error)
{
    const struct log_config *config = recovery->config;
    *segment = (struct segment){.slot = slot, .file = -1, .limit = UINT64_MAX, .block = SEGMENT_MEMORY_BLOCK};
    if (recovery_open(recovery, segment, error) != 0)
        return -1;
    int64_t size = (int64_t)config->segment_bytes;
    if (config->durability != DURABILITY_MEMORY) {
        segment->block = SEGMENT_BLOCK_MIN;
        size = config->io->ops->size(config->io, segment->file);
        if (size < 0) {
            char name[SEGMENT_NAME_SIZE];
            segment_name(name, slot);
            segment_close(segment, config);
            return error_system(error, (int)-size, "cannot get the size of %s/%s", config->path, name);
        }
    }
    *length = (uint64_t)size;
    segment->size = round_up(*length, segment->block);
    return 0;
}

static int compare_numbers(const void *left, const void *right)
{
    uint64_t a = ((const struct segment *)left)->number, b = ((const struct segment *)right)->number;
    return a < b ? -1 : a > b;
}

static int sort_segments(struct recovery *recovery, struct mr_error *error)
{
    if (recovery->count == 0)
        return 0;
    qsort(recovery->segments, recovery->count, sizeof *recovery->segments, compare_numbers);
    while (recovery->first < recovery->count && recovery->segments[recovery->first].number < recovery->start.segment)
        recovery->first++;
    for (unsigned n = recovery->first + 1; n < recovery->count; n++) {
        const struct segment *one = &recovery->segments[n - 1], *other = &recovery->segments[n];
        if (one->number != other->number)
            continue;
        char names[2][SEGMENT_NAME_SIZE];
        segment_name(names[0], one->slot);
        segment_name(names[1], other->slot);
        return error_set(error, "%s and %s in %s both say that they are segment %" PRIu64 ": remove the copy", names[0],
                         names[1], recovery->config->path, one->number);
    }
    /* `limit` held, until here, the sequence with which an epoch begins in the segment itself. */
    uint64_t limit = UINT64_MAX;
    for (unsigned n = recovery->count; n-- > recovery->first;) {
        uint64_t begins_at = recovery->segments[n].limit;
        recovery->segments[n].limit = limit;
        limit = begins_at < limit ? begins_at : limit;
    }
    return 0;
}

struct slot_hint recovery_hint(const struct recovery *recovery)
{
    struct slot_hint hint = {{0}};
    char name[SEGMENT_NAME_SIZE];
    if (recovery->blank_count == 0)
        return hint;
    segment_name(name, recovery->blanks[0].slot);
    snprintf(hint.text, sizeof hint.text, ", unless it was what is damaged at offset 0 of %s%s", name,
             recovery->blank_count > 1 ? " or others" : "");
    return hint;
}

/* Was this slot, which has no sound header, the segment with this number? Its first batch says so, if it can be read;
 * where it begins is known only as long as blocks have their usual size. */
static bool was_segment(struct recovery *recovery, struct segment *blank, uint64_t number)
{
    bool memory = recovery->config->durability == DURABILITY_MEMORY;
    struct mr_error ignored;
    struct batch_header first = {0};
    if (recovery_open(recovery, blank, &ignored) != 0)
        return false;
    blank->block = memory ? SEGMENT_MEMORY_BLOCK : SEGMENT_BLOCK_MIN;
    const uint8_t *bytes =
        reader_peek(&recovery->reader, blank, segment_first_offset(blank), BATCH_HEADER_BYTES, &ignored);
    if (bytes && batch_header_sound(bytes, recovery->config->secret))
        memcpy(&first, bytes, sizeof first);
    reader_forget(&recovery->reader);
    segment_close(blank, recovery->config);
    return first.segment == number;
}

/* Is the segment there in which the scan has to begin? */
static int find_start(struct recovery *recovery, struct mr_error *error)
{
    const char *path = recovery->config->path;
    uint64_t number = recovery->start.segment;
    if (number == 0 || (recovery->first < recovery->count && recovery->segments[recovery->first].number == number))
        return 0;
    char name[SEGMENT_NAME_SIZE];
    for (unsigned n = 0; n < recovery->blank_count; n++) {
        if (!was_segment(recovery, &recovery->blanks[n], number))
            continue;
        segment_name(name, recovery->blanks[n].slot);
        return error_set(error,
                         "%s/%s is damaged at offset 0, in its header: it was segment %" PRIu64
                         ", in which the entries from index %" PRIu64
                         " on begin. Restore the file, or the partition from a copy",
                         path, name, number, recovery->start.index + 1);
    }
    recovery->report->start_missing = true;
    return error_set(error,
                     "segment %" PRIu64 " of the log in %s is missing, in which the entries from index %" PRIu64
                     " on begin%s. Restore the files, or the partition from a copy",
                     number, path, recovery->start.index + 1, recovery_hint(recovery).text);
}

static void note_sound(struct recovery *recovery, struct segment *kept, uint64_t begins_at)
{
    kept->file = -1;
    kept->limit = begins_at;
    if (kept->number > recovery->highest_number)
        recovery->highest_number = kept->number;
    if (kept->epoch > recovery->highest_epoch)
        recovery->highest_epoch = kept->epoch;
}

static int survey(struct recovery *recovery, struct mr_error *error)
{
    struct names names = {0};
    int result = find_slots(recovery, &names, error);
    recovery->segments = calloc(names.count + 1, sizeof *recovery->segments);
    recovery->blanks = calloc(names.count + 1, sizeof *recovery->blanks);
    recovery->remains = calloc(names.count + 1, sizeof *recovery->remains);
    if (result == 0 && (!recovery->segments || !recovery->blanks || !recovery->remains))
        result = error_system(error, ENOMEM, "no memory for the list of segments of %s", recovery->config->path);
    for (unsigned n = 0; result == 0 && n < names.count; n++) {
        struct segment segment;
        uint64_t begins_at, length = 0;
        unsigned sound = recovery->count;
        if (names.slots[n] >= recovery->next_slot)
            recovery->next_slot = names.slots[n] + 1;
        result = open_slot(recovery, names.slots[n], &segment, &length, error);
        if (result != 0)
            break;
        result = read_header(recovery, &segment, length, &begins_at, error);
        reader_forget(&recovery->reader);
        segment_close(&segment, recovery->config);
        if (result == 0 && recovery->count > sound)
            note_sound(recovery, &recovery->segments[sound], begins_at);
    }
    free(names.slots);
    if (result != 0)
        return -1;
    for (unsigned n = 0; n < recovery->blank_count; n++)
        recovery->blanks[n].file = -1;
    for (unsigned n = 0; n < recovery->count; n++)
        if (recovery->segments[n].number >= recovery->start.segment)
            recovery->reader.bytes_total += recovery->segments[n].size;
    return sort_segments(recovery, error) == 0 ? find_start(recovery, error) : -1;
}

/* ---- scan ---- */

int version_known(const struct recovery *recovery, const struct segment *segment, uint64_t offset,
                  const struct batch_header *header, struct mr_error *error)
{
    if (header->version == BATCH_VERSION)
        return 0;
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    return error_set(error,
                     "the batch in %s/%s at offset %" PRIu64 " has format version %" PRIu32
                     ", and this program reads version %d only: use the program that wrote it",
                     recovery->config->path, name, offset, header->version, BATCH_VERSION);
}

static bool follows(const struct recovery *recovery, const struct segment *segment, uint64_t offset,
                    const struct batch_header *header)
{
    const struct log_point *last = &recovery->last;
    bool first = (header->flags & BATCH_FIRST_OF_EPOCH) != 0;
    return header->partition == recovery->config->partition && written_for(header, segment) &&
           header->sequence == last->sequence + 1 && header->sequence < segment->limit &&
           header->first_index == last->index + 1 && header->previous == last->chain && header->time >= last->time &&
           (first ? header->epoch > last->epoch : header->epoch == last->epoch) &&
           header->length >= BATCH_HEADER_BYTES && header->length <= segment->size - offset && header->length % 8 == 0;
}

/* Hands the entries of an accepted batch to the replay and moves the end of the log behind it. */
static int accept(struct recovery *recovery, const uint8_t *bytes, const struct batch_header *header,
                  log_replay_fn *replay, void *context, struct mr_error *error)
{
    struct log_point *last = &recovery->last;
    uint64_t after = recovery->start.index;
    uint64_t offset = BATCH_HEADER_BYTES;
    last->time = header->time;
    for (uint32_t n = 0; n < header->count; n++) {
        struct entry_header raw;
        const uint8_t *body = bytes + offset + ENTRY_HEADER_BYTES;
        offset = batch_entry(bytes, offset, &raw);
        struct log_entry entry = {.index = header->first_index + n,
                                  .time = header->time + raw.time_offset,
                                  .origin = {raw.channel, raw.position, raw.frame_size, raw.uid},
                                  .body = body,
                                  .size = raw.size};
        last->index = entry.index;
        last->time = entry.time;
        if (entry.index <= after)
            continue;
        recovery->report->entries++;
        if (replay && replay(context, &entry, error) != 0)
            return -1;
    }
    last->epoch = header->epoch;
    last->sequence = header->sequence;
    last->chain = header->checksum;
    return 0;
}

/* The oldest segment that is kept need not be the log's first: then the chain begins with its first batch, wherever it
 * comes from, as long as no entry is missing between the snapshot and it. */
static int begin_chain(struct recovery *recovery, const struct segment *segment, const struct batch_header *header,
                       struct mr_error *error)
{
    uint64_t after = recovery->start.index;
    if (segment->number == 1 || recovery->last.sequence > 0 || segment != &recovery->segments[recovery->first] ||
        header->version != BATCH_VERSION || !written_for(header, segment) || header->sequence == 0)
        return 0;
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    if (header->first_index > after + 1)
        return error_set(error,
                         "the log in %s begins with %s at index %" PRIu64 ", but the entries from index %" PRIu64
                         " are needed: a segment is missing",
                         recovery->config->path, name, header->first_index, after + 1);
    recovery->last = (struct log_point){.epoch = header->epoch - ((header->flags & BATCH_FIRST_OF_EPOCH) != 0),
                                        .sequence = header->sequence - 1,
                                        .chain = header->previous,
                                        .index = header->first_index - 1};
    return 0;
}

/* One open segment, from its first batch to the first place that has none. */
static int scan_segment(struct recovery *recovery, struct segment *segment, log_replay_fn *replay, void *context,
                        struct mr_error *error)
{
    uint64_t offset = segment_first_offset(segment);
    unsigned place = (unsigned)(segment - recovery->segments);
    if (place == recovery->first)
        recovery->end = offset;
    while (offset < segment->size) {
        const uint8_t *bytes = reader_at(&recovery->reader, segment, offset, BATCH_HEADER_BYTES, error);
        if (!bytes)
            return -1;
        if (!batch_header_sound(bytes, recovery->config->secret))
            return 0;
        struct batch_header header;
        memcpy(&header, bytes, sizeof header);
        if (version_known(recovery, segment, offset, &header, error) != 0 ||
            begin_chain(recovery, segment, &header, error) != 0)
            return -1;
        if (!follows(recovery, segment, offset, &header))
            return 0;
        bytes = reader_at(&recovery->reader, segment, offset, header.length, error);
        if (!bytes)
            return -1;
        if (!batch_sound(bytes))
            return 0;
        if (header.count > 0 && header.first_index + header.count - 1 > recovery->start.index)
            recovery->report->bytes += round_up(header.length, segment->block);
        if (accept(recovery, bytes, &header, replay, context, error) != 0)
            return -1;
        offset += round_up(header.length, segment->block);
        recovery->current = place;
        recovery->end = offset;
    }
    return 0;
}

/* What was accepted may have been written but never flushed; it has to be safe before anything builds on it. */
static int flush(const struct recovery *recovery, const struct segment *segment, struct mr_error *error)
{
    if (recovery->config->durability == DURABILITY_MEMORY || recovery->read_only)
        return 0;
    int synced = recovery->config->io->ops->sync_now(recovery->config->io, segment->file);
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, segment->slot);
    if (synced == 0)
        return 0;
    recovery->report->read = true;
    return error_system(error, -synced, "cannot flush %s/%s", recovery->config->path, name);
}

static int scan(struct recovery *recovery, log_replay_fn *replay, void *context, struct mr_error *error)
{
    for (unsigned n = recovery->first; n < recovery->count; n++) {
        struct segment *segment = &recovery->segments[n];
        uint64_t sequence = recovery->last.sequence;
        if (recovery_open(recovery, segment, error) != 0)
            return -1;
        int result = scan_segment(recovery, segment, replay, context, error);
        if (result == 0 && recovery->last.sequence != sequence)
            result = flush(recovery, segment, error);
        reader_forget(&recovery->reader);
        segment_close(segment, recovery->config);
        if (result != 0)
            return -1;
    }
    return 0;
}

/* What the snapshot holds has to be in the log, or the log's end is gone. */
static int reaches_start(const struct recovery *recovery, struct mr_error *error)
{
    const struct log_point *last = &recovery->last;
    if (last->index >= recovery->start.index)
        return 0;
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, recovery->count > 0 ? recovery->segments[recovery->current].slot : 0);
    return error_set(error,
                     "the log in %s ends at index %" PRIu64 ", in %s at offset %" PRIu64
                     ", but what was built from it goes to index %" PRIu64
                     ": its end is missing or damaged. Restore the file, or the partition from a copy",
                     recovery->config->path, last->index, name, recovery->end, recovery->start.index);
}

int recovery_run(struct recovery *recovery, log_replay_fn *replay, void *context, struct log_recovery *report,
                 struct mr_error *error)
{
    recovery->report = report;
    *report = (struct log_recovery){0};
    reader_init(&recovery->reader, recovery->config);
    if (survey(recovery, error) != 0)
        return -1;
    recovery->current = recovery->first;
    recovery->unbegun = recovery->count;
    if (scan(recovery, replay, context, error) != 0 || tail_examine(recovery, error) != 0 ||
        reaches_start(recovery, error) != 0)
        return -1;
    const struct log_point *last = &recovery->last;
    if (recovery->highest_epoch < last->epoch)
        recovery->highest_epoch = last->epoch;
    report->last_index = last->index;
    report->time = last->time;
    report->read = true;
    return 0;
}

void recovery_free(struct recovery *recovery)
{
    reader_free(&recovery->reader);
    free(recovery->segments);
    free(recovery->blanks);
    free(recovery->remains);
    recovery->segments = recovery->blanks = NULL;
    recovery->remains = NULL;
}
