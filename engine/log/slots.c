/* SPDX-License-Identifier: Apache-2.0 */
/* Which slots the log has, and what becomes of them. A slot's segment is open (prepared, spare, current, or left
 * with batches in memory that still stand in it), then held, then, when a snapshot has made it superfluous, free: the
 * next segment to be prepared takes it over. More free ones than can soon be needed are removed; in `memory`, where a
 * slot is its number and cannot go away, its pages are given back instead.
 *
 * A list that cannot grow for want of memory forgets a slot: the next start finds it again. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>

#include "engine/log/inside.h"
#include "ipc/sys.h"

/* Free slots beyond the number of segments that are needed. */
enum { SLOTS_TO_SPARE = 2 };
/* However often the log is cut: one in which the older snapshot begins, the current one, the spare. */
enum { SEGMENTS_AT_LEAST = 3 };

/* ---- open segments ---- */

bool segment_adopt(struct log *log, struct segment *segment)
{
    if (log->open_count == OPEN_SEGMENTS_MAX)
        return false;
    log->open_segments[log->open_count++] = segment;
    return true;
}

/* A mapping is kept with the segment that it is of: whoever uses the slot next need not touch its pages first. */
static void keep_mapping(struct log *log, struct segment *segment)
{
    for (unsigned n = log->held.count; segment->mapping && n-- > 0;)
        if (log->held.segments[n].slot == segment->slot) {
            log->held.segments[n].mapping = segment->mapping;
            segment->mapping = NULL;
        }
}

void segment_discard(struct log *log, struct segment *segment)
{
    for (unsigned n = 0; n < log->open_count; n++)
        if (log->open_segments[n] == segment)
            log->open_segments[n] = log->open_segments[--log->open_count];
    keep_mapping(log, segment);
    segment_close(segment, &log->config);
    free(segment);
}

void segment_release(struct log *log, struct segment *segment)
{
    bool needed = segment == log->current || segment == log->spare || segment == log->prepare.segment ||
                  segment->users > 0 || segment->dirty || segment->flushing;
    if (!needed)
        segment_discard(log, segment);
}

void segment_leave(struct log *log, struct segment *segment)
{
    (void)slots_hold(log, segment);
    segment_release(log, segment);
}

void segment_drop_file(struct log *log, struct segment *segment)
{
    char name[SEGMENT_NAME_SIZE];
    uint32_t slot = segment->slot;
    segment_name(name, slot);
    log->bytes -= segment->size;
    segment_discard(log, segment);
    /* If it stays, it stays as a segment in which nothing was accepted. */
    if (log->ops->remove(log->io, log->directory, name) == 0 && slot + 1 == log->next_slot)
        log->next_slot--;
}

bool segment_aligned(const struct log *log, const struct segment *segment)
{
    return log->memory || segment->block % segment->alignment == 0;
}

/* ---- those that are not open ---- */

static bool push(struct segment_list *list, const struct segment *segment)
{
    if (list->count == list->room) {
        unsigned room = list->room > 0 ? list->room * 2 : 16;
        struct segment *more = realloc(list->segments, room * sizeof *more);
        if (!more)
            return false;
        list->segments = more;
        list->room = room;
    }
    list->segments[list->count++] = *segment;
    return true;
}

bool slots_hold(struct log *log, const struct segment *segment)
{
    struct segment kept = *segment;
    kept.file = -1;
    kept.users = 0;
    kept.dirty = kept.flushing = false;
    kept.mapping = NULL; /* comes when it is closed */
    return push(&log->held, &kept);
}

bool slots_free(struct log *log, const struct segment *segment)
{
    return push(&log->free, segment);
}

/* In which order free slots are used: by their numbers. Behind them those that stand behind the log's end, the highest
 * first, because each names the one in which the log stood before, and until a new epoch has begun that may not be
 * missing. Those without a header when there is no other. */
static bool used_earlier(const struct log *log, const struct segment *one, const struct segment *other)
{
    uint64_t end = log->current ? log->current->number : UINT64_MAX;
    bool one_behind = one->number > end, other_behind = other->number > end;
    if (one->number == 0 || other->number == 0)
        return one->number != 0;
    if (one_behind != other_behind)
        return other_behind;
    return one_behind ? one->number > other->number : one->number < other->number;
}

static bool takes_room(const struct log *log, const struct segment *segment)
{
    return !log->memory || segment->size > 0;
}

static bool is_open(const struct log *log, uint32_t slot)
{
    for (unsigned n = 0; n < log->open_count; n++)
        if (log->open_segments[n]->slot == slot)
            return true;
    return false;
}

/* Frees what is held below log->needed. */
static void free_unneeded(struct log *log)
{
    unsigned kept = 0;
    for (unsigned n = 0; n < log->held.count; n++) {
        const struct segment *segment = &log->held.segments[n];
        bool needed = segment->number >= log->needed || is_open(log, segment->slot);
        if (!needed && slots_free(log, segment))
            log->bytes -= segment->size;
        else
            log->held.segments[kept++] = *segment;
    }
    log->held.count = kept;
}

/* The free slot that is to be used next; NULL: there is none. */
static struct segment *next_free(struct log *log)
{
    free_unneeded(log);
    struct segment *next = NULL;
    for (unsigned n = 0; n < log->free.count; n++)
        if (!next || used_earlier(log, &log->free.segments[n], next))
            next = &log->free.segments[n];
    return next;
}

static bool past_limit(const struct log *log, uint64_t more)
{
    return log->limit > 0 && log_bytes(log) + log->beside + more > log->limit;
}

bool slots_allow(struct log *log)
{
    const struct segment *next = log->limit > 0 ? next_free(log) : NULL;
    return (next && next->size > 0) || !past_limit(log, log->config.segment_bytes);
}

bool slots_take(struct log *log, struct segment *segment)
{
    struct segment *next = next_free(log);
    if (!next)
        return false;
    *segment = *next;
    *next = log->free.segments[--log->free.count];
    return true;
}

static void unmap(struct segment *segment)
{
    /* A mapping that cannot be unmapped stays, which harms nobody. */
    if (segment->mapping)
        (void)sys_munmap(segment->mapping, segment->size);
    segment->mapping = NULL;
}

/* `memory`: the slot stays, as one of zeros. Where that does not work it is left as it is. */
static void give_back(struct log *log, struct segment *segment)
{
    struct mr_error ignored;
    unmap(segment);
    int file = log->config.memory_segment(log->config.memory_context, segment->slot, &ignored);
    if (file >= 0)
        (void)sys_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)segment->size);
    segment->number = segment->size = 0;
}

bool slots_trim(struct log *log)
{
    unsigned limit = log->held.count + 1 + SLOTS_TO_SPARE, count = 0;
    struct segment *last = NULL;
    for (unsigned n = 0; n < log->free.count; n++) {
        struct segment *segment = &log->free.segments[n];
        if (!takes_room(log, segment))
            continue;
        count++;
        if (!last || used_earlier(log, last, segment))
            last = segment;
    }
    if (past_limit(log, 0))
        limit = 1;
    if (!last || count <= limit)
        return false;
    if (log->memory) {
        give_back(log, last);
        return count - 1 > limit;
    }
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, last->slot);
    /* If it cannot be removed, or comes back after a power cut, the next start finds a segment that is not needed. */
    if (log->ops->remove(log->io, log->directory, name) == 0 && last->slot + 1 == log->next_slot)
        log->next_slot--;
    *last = log->free.segments[--log->free.count];
    return count - 1 > limit;
}

void slots_destroy(struct log *log)
{
    for (unsigned n = 0; n < log->held.count; n++)
        unmap(&log->held.segments[n]);
    for (unsigned n = 0; n < log->free.count; n++)
        unmap(&log->free.segments[n]);
    free(log->held.segments);
    free(log->free.segments);
}

/* ---- for snapshots ---- */

uint64_t log_segment(const struct log *log)
{
    return log->reading;
}

void log_forget(struct log *log, uint64_t segment)
{
    unsigned free_before = log->free.count;
    if (segment > log->needed)
        log->needed = segment;
    free_unneeded(log);
    if (log->free.count > free_before)
        log->prepare.retry = 0; /* whatever was lacking */
}

void log_limit(struct log *log, uint64_t bytes, uint64_t beside)
{
    log->limit = bytes;
    log->beside = beside;
}

uint64_t log_past_limit(const struct log *log)
{
    uint64_t bytes = SEGMENTS_AT_LEAST * log->config.segment_bytes + log->beside;
    return log->limit > 0 && bytes > log->limit ? bytes : 0;
}

uint64_t log_bytes(const struct log *log)
{
    uint64_t bytes = log->bytes;
    for (unsigned n = 0; log->free.segments && n < log->free.count; n++)
        bytes += log->free.segments[n].size;
    return bytes;
}
