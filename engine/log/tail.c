/* SPDX-License-Identifier: Apache-2.0 */
/* Torn or damaged: what stands behind the end of the log, and what it says about what should stand at the end.
 *
 * Several batches are in flight at a time, so batch k may be torn while k+1 is whole: that a later batch is there
 * proves nothing. What it claims does. Let the log end with epoch E and sequence S, as far as it could be accepted.
 * Every header that is sound, was written for the segment in which it stands, and stands behind the end, is one of
 * these:
 *
 *   - of an epoch before E, or of E with a sequence up to S: left over from what was cut off earlier. It says nothing.
 *   - of epoch E, later than S, with a durable-through up to S: it was in flight together with what is missing at the
 *     end; no one was told of either. Torn: cut off and counted.
 *   - of epoch E with a durable-through above S: batch S+1 was durable, and is not there. Damage.
 *   - of an epoch after E: no other batch of an epoch is written before its first one is durable, and that one claims
 *     all before it. If it could not be accepted, something that was durable is missing. Damage.
 *
 * In a slot without a sound header a batch of the last three kinds is damage in any case: the header was durable before
 * the first batch was written behind it. (What such a slot's earlier life left is of the first kind: it had been
 * accepted, or cut off by an epoch that was.)
 *
 * What was cut off is counted once, and overwritten by whoever goes on with the log. In a fresh segment anything but
 * zeros is part of it. In one that was used before, only batches with a sound header are: the rest is the earlier
 * life's as likely as not. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/log/recovery.h"

struct tail {
    struct recovery *recovery;
    const struct segment *segment; /* being looked through */
    bool blank;                    /* it has no sound header */
    uint64_t remains;              /* end of the last block that was written in its present life */
};

static void count_torn(struct recovery *recovery, const struct segment *segment, uint64_t offset, uint64_t bytes)
{
    struct log_recovery *report = recovery->report;
    if (report->torn_batches == 0) {
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, segment->slot);
        snprintf(report->torn_file, sizeof report->torn_file, "%s", name);
        report->torn_offset = offset;
    }
    report->torn_batches++;
    report->torn_bytes += bytes;
}

/* The place named is the one where the missing batch should stand: where its header was found, if it was; or at the
 * log's end; or, if nothing was written there and there is a segment behind whose beginning cannot be read, there. */
static int report_damage(const struct tail *tail, uint64_t offset, const struct batch_header *witness,
                         struct mr_error *error)
{
    const struct recovery *recovery = tail->recovery;
    char here[SEGMENT_NAME_SIZE], there[SEGMENT_NAME_SIZE];
    uint64_t index = recovery->last.index + 1;
    segment_name(there, tail->segment->slot);
    if (tail->blank)
        return error_set(error,
                         "%s/%s is damaged at offset 0, in its header: the log ends before index %" PRIu64
                         ", but a batch for index %" PRIu64 " stands at offset %" PRIu64
                         ". Restore the file, or the partition from a copy",
                         recovery->config->path, there, index, witness->first_index, offset);
    const struct segment *damaged = &recovery->segments[recovery->current];
    uint64_t place = recovery->end;
    if (recovery->next) {
        damaged = recovery->next;
        place = recovery->next_offset;
    } else if (recovery->remains[recovery->current] == 0 && recovery->unbegun < recovery->count) {
        damaged = &recovery->segments[recovery->unbegun];
        place = segment_first_offset(damaged);
    }
    segment_name(here, damaged->slot);
    if (place + BATCH_HEADER_BYTES > damaged->size)
        return error_set(error,
                         "behind %s/%s a segment is missing%s: the log goes on with index %" PRIu64
                         ", and the batch in %s at offset %" PRIu64
                         " shows that it was durable. Restore the files, or the partition from a copy",
                         recovery->config->path, here, recovery_hint(recovery).text, index, there, offset);
    return error_set(error,
                     "%s/%s is damaged at offset %" PRIu64 ": the batch of index %" PRIu64
                     " cannot be read, but was durable, as the one in %s at offset %" PRIu64
                     " shows. Restore the file, or the partition from a copy",
                     recovery->config->path, here, place, index, there, offset);
}

static int examine_header(struct tail *tail, uint64_t offset, const uint8_t *bytes, struct mr_error *error)
{
    struct recovery *recovery = tail->recovery;
    struct batch_header header;
    memcpy(&header, bytes, sizeof header);
    if (version_known(recovery, tail->segment, offset, &header, error) != 0)
        return -1;
    if (!tail->blank && !written_for(&header, tail->segment))
        return 0;
    uint64_t first = segment_first_offset(tail->segment), end = offset + round_up(header.length, tail->segment->block);
    if (recovery->unbegun < recovery->count && tail->segment == &recovery->segments[recovery->unbegun] &&
        offset == first)
        recovery->unbegun = recovery->count;
    if (tail->remains < end)
        tail->remains = end < tail->segment->size ? end : tail->segment->size;
    if (header.epoch > recovery->highest_epoch)
        recovery->highest_epoch = header.epoch;
    if (header.segment > recovery->highest_number)
        recovery->highest_number = header.segment;
    const struct log_point *last = &recovery->last;
    bool later_epoch = header.epoch > last->epoch;
    bool later_batch = header.epoch == last->epoch && header.sequence > last->sequence;
    if (!later_epoch && !later_batch)
        return 0;
    /* The first batch of the very first epoch, alone: torn, or with nothing in front of it that could be missing. */
    bool beginning =
        last->epoch == 0 && header.durable_through == 0 && !tail->blank && (header.flags & BATCH_FIRST_OF_EPOCH) != 0;
    if (header.sequence == last->sequence + 1 && header.epoch == last->epoch && !tail->blank && !recovery->next) {
        recovery->next = tail->segment;
        recovery->next_offset = offset;
    }
    bool damage = tail->blank || header.durable_through > last->sequence || (later_epoch && !beginning);
    if (damage && !PLANTED(WRONG_TORN_RULE))
        return report_damage(tail, offset, &header, error);
    count_torn(recovery, tail->segment, offset, header.length);
    return 0;
}

static int examine_segment(struct tail *tail, uint64_t start, struct mr_error *error)
{
    struct recovery *recovery = tail->recovery;
    const struct segment *segment = tail->segment;
    for (uint64_t offset = start; offset < segment->size; offset += segment->block) {
        const uint8_t *bytes = reader_at(&recovery->reader, segment, offset, segment->block, error);
        if (!bytes)
            return -1;
        bool anything = segment->used || tail->blank; /* may stand there */
        if (!anything && all_zero(bytes, segment->block))
            continue;
        if (!anything)
            tail->remains = offset + segment->block;
        bool fits = segment->block >= BATCH_HEADER_BYTES || offset + BATCH_HEADER_BYTES <= segment->size;
        if (segment->block < BATCH_HEADER_BYTES && fits)
            bytes = reader_at(&recovery->reader, segment, offset, BATCH_HEADER_BYTES, error);
        if (!bytes)
            return -1;
        if (fits && batch_header_sound(bytes, recovery->config->secret)) {
            if (examine_header(tail, offset, bytes, error) != 0)
                return -1;
        } else if (!anything && offset == start) {
            /* Not even a header where the next batch would begin, here or in a segment begun since, nor zeros. */
            count_torn(recovery, segment, offset, segment->block);
        }
    }
    return 0;
}

static int examine(struct recovery *recovery, struct segment *segment, bool blank, uint64_t start, uint64_t *remains,
                   struct mr_error *error)
{
    struct tail tail = {.recovery = recovery, .segment = segment, .blank = blank};
    if (recovery_open(recovery, segment, error) != 0)
        return -1;
    int result = examine_segment(&tail, start, error);
    *remains = tail.remains;
    reader_forget(&recovery->reader);
    segment_close(segment, recovery->config);
    return result;
}

/* Is every segment there in which the log has stood, as far as the others know? */
static int none_missing(const struct recovery *recovery, struct mr_error *error)
{
    for (unsigned n = recovery->first; n < recovery->count; n++) {
        const struct segment *witness = &recovery->segments[n];
        bool there =
            witness->after == 0 || witness->after < recovery->start.segment || witness->epoch < recovery->last.epoch;
        for (unsigned k = recovery->first; k < recovery->count && !there; k++)
            there = recovery->segments[k].number == witness->after;
        if (there)
            continue;
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, witness->slot);
        return error_set(error,
                         "segment %" PRIu64 " of the log in %s is missing, which was in use when %s was prepared%s: "
                         "the entries from index %" PRIu64
                         " on, if there were any, stood in it. Restore the files, or the partition from a copy",
                         witness->after, recovery->config->path, name, recovery_hint(recovery).text,
                         recovery->last.index + 1);
    }
    return 0;
}

int tail_examine(struct recovery *recovery, struct mr_error *error)
{
    /* Those without a header first: if one was a part of the log, that is what is to be told. */
    for (unsigned n = 0; n < recovery->blank_count; n++) {
        uint64_t ignored;
        if (examine(recovery, &recovery->blanks[n], true, 0, &ignored, error) != 0)
            return -1;
    }
    for (unsigned n = recovery->current; n < recovery->count; n++) {
        struct segment *segment = &recovery->segments[n];
        uint64_t start = n == recovery->current ? recovery->end : segment_first_offset(segment);
        if (n > recovery->current && recovery->unbegun == recovery->count)
            recovery->unbegun = n; /* until its first batch is seen */
        if (examine(recovery, segment, false, start, &recovery->remains[n], error) != 0)
            return -1;
    }
    if (none_missing(recovery, error) != 0)
        return -1;
    char name[SEGMENT_NAME_SIZE];
    if (recovery->count == 0 && recovery->spoiled) {
        /* A new log's first segment is zeros until its header stands there whole: this was another. */
        segment_name(name, recovery->spoiled->slot);
        return error_set(
            error,
            "%s/%s is damaged at offset 0, in its header, and nothing else is left of the log, from index 1 "
            "on. Restore the file, or the partition from a copy",
            recovery->config->path, name);
    }
    const struct segment *beginning = &recovery->segments[recovery->first];
    if (recovery->last.sequence > 0 || recovery->first == recovery->count || beginning->number == 1)
        return 0;
    segment_name(name, beginning->slot);
    return error_set(error,
                     "%s/%s is damaged at offset %" PRIu64 ": the log begins there, in segment %" PRIu64
                     ", and nothing of it can be read. Restore the file, or the partition from a copy",
                     recovery->config->path, name, segment_first_offset(beginning), beginning->number);
}
