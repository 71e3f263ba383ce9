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
 * Then the tail: everything behind the end, block by block, is searched for sound headers, to tell torn from damaged
 * (tail.c). */
#ifndef ENGINE_LOG_RECOVERY_H
#define ENGINE_LOG_RECOVERY_H

#include "engine/log/batch.h"
#include "engine/log/log.h"
#include "engine/log/reader.h"
#include "engine/log/segment.h"

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
    int directory; /* descriptor, the caller's; not used in `memory` */
    struct log_recovery *report;
    struct reader reader;
    struct segment *segments; /* with a sound header, in order of number; closed, but for the one being read */
    unsigned count;
    struct segment *blanks; /* slots without one */
    unsigned blank_count;
    struct log_point last;   /* the end of the log */
    unsigned current;        /* the segment where it ends; count: there is none */
    uint64_t end;            /* and the offset there, at which the next batch would begin */
    uint64_t highest_epoch;  /* of all headers seen */
    uint64_t highest_number; /* of all segments seen */
    uint32_t next_slot;      /* above all slots seen */
    uint64_t *remains;       /* per segment: the end of what stands behind the log's end; 0: nothing */
};

/* Runs it all. 0; -1 with *error. recovery_free() in both cases. */
int recovery_run(struct recovery *recovery, const struct log_config *config, int directory, uint64_t after,
                 log_replay_fn *replay, void *context, struct log_recovery *report, struct mr_error *error);
void recovery_free(struct recovery *recovery);

/* tail.c: looks at what stands behind the end; -1 with *error if the log is damaged. Fills report->torn_*. */
int tail_examine(struct recovery *recovery, struct mr_error *error);
/* Refuses a sound header of a version that this program does not know. */
int version_known(const struct recovery *recovery, const struct segment *segment, uint64_t offset,
                  const struct batch_header *header, struct mr_error *error);

#endif
