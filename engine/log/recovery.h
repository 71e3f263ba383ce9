/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery: what of a partition's log is to be believed. Reads only; what is to be written afterwards is the caller's.
 *
 * The story. First a survey: every slot is opened and locked, which waits for the last write of a dead predecessor, and
 * its header read. A segment whose first batch begins an epoch (that is how a log goes on after a failed write) says
 * that the sequences from there on, in the segments before it, were cut off: that is their limit. Then the scan:
 * segment by segment in order of number, batch by batch from the first block, each accepted if it is sound, follows on
 * the last one and lies below the limit. In a segment the scan ends at the first place that gives nothing acceptable,
 * and goes on at the start of the next. What was accepted last is the end of the log.
 *
 * With a snapshot the scan begins in the segment that it names, in the middle of the chain: the first batch there is
 * taken for the beginning, if no entry is missing between the snapshot and it. Segments with lower numbers are listed,
 * for the slots' sake, and not looked into.
 *
 * Then the tail: everything behind the end, block by block, is searched for sound headers, to tell torn from damaged
 * (tail.c). */
#ifndef ENGINE_LOG_RECOVERY_H
#define ENGINE_LOG_RECOVERY_H

#include <string.h>

#include "engine/log/batch.h"
#include "engine/log/log.h"
#include "engine/log/reader.h"
#include "engine/log/segment.h"
#include "ipc/planted.h"

/* A place in the chain of batches: behind the one with this sequence. */
struct log_point {
    uint64_t epoch;
    uint64_t sequence;
    uint64_t chain; /* its checksum */
    uint64_t index; /* of the last entry so far */
    uint64_t time;  /* of that entry, or of an empty batch behind it */
};

struct recovery {
    const struct log_config *config;
    int directory;  /* descriptor, the caller's; not used in `memory` */
    bool read_only; /* for a look: no lock is taken and nothing flushed */
    struct log_start start;
    struct log_recovery *report;
    struct reader reader;
    struct segment *segments; /* with a sound header, in order of number; closed, but for the one being read */
    unsigned count;
    unsigned first;         /* the segment in which the scan begins */
    struct segment *blanks; /* slots without one */
    unsigned blank_count;
    const struct segment *spoiled; /* of a file: something stands where the header should; NULL: none */
    struct log_point last;         /* the end of the log */
    unsigned current;              /* the segment where it ends */
    uint64_t end;                  /* and the offset there, at which the next batch would begin */
    uint64_t highest_epoch;        /* of all headers seen */
    uint64_t highest_number;       /* of all segments seen */
    uint32_t next_slot;            /* above all slots seen */
    uint64_t *remains;             /* per segment: the end of what was written behind the log's end; 0: nothing */
    unsigned unbegun;              /* the first one behind `current` whose first batch cannot be read; count: none */
    const struct segment *next;    /* where the header of the batch that would be next was found; NULL: nowhere */
    uint64_t next_offset;
};

static inline bool all_zero(const uint8_t *bytes, uint64_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* Runs it all on a *recovery with config, directory, read_only and start filled in and the rest zero. 0; -1 with
 * *error. recovery_free() in both cases. `replay` may be NULL. */
int recovery_run(struct recovery *recovery, log_replay_fn *replay, void *context, struct log_recovery *report,
                 struct mr_error *error);
void recovery_free(struct recovery *recovery);

/* Opens a segment or a slot as this recovery may. */
static inline int recovery_open(const struct recovery *recovery, struct segment *segment, struct mr_error *error)
{
    return segment_open(segment, recovery->config, recovery->directory,
                        recovery->read_only ? SEGMENT_READ : SEGMENT_WRITE, error);
}

/* Was the batch written for the segment in which it stands, or is it of an earlier life of its slot? */
static inline bool written_for(const struct batch_header *header, const struct segment *segment)
{
    return header->segment == segment->number || PLANTED(STALE_BATCH_BELIEVED);
}

/* Slots without a sound header, for messages about a segment that is not there: "" if there are none. */
struct slot_hint {
    char text[96];
};
struct slot_hint recovery_hint(const struct recovery *recovery);

/* tail.c: looks at what stands behind the end; -1 with *error if the log is damaged. Fills report->torn_*. */
int tail_examine(struct recovery *recovery, struct mr_error *error);
/* Refuses a sound header of a version that this program does not know. */
int version_known(const struct recovery *recovery, const struct segment *segment, uint64_t offset,
                  const struct batch_header *header, struct mr_error *error);

#endif
