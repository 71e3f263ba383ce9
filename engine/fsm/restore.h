/* SPDX-License-Identifier: Apache-2.0 */
/* Restoring a state, between the files that do it: restore.c the partition and its services, restore_session.c a
 * session and its commands. */
#ifndef ENGINE_FSM_RESTORE_H
#define ENGINE_FSM_RESTORE_H

#include "engine/fsm/canonical.h"
#include "engine/fsm/state.h"

/* An open command that was met in its session; its service comes later. */
struct open_stream {
    struct stream *stream;
    uint64_t service_id;
    struct slice operation; /* its name, in the snapshot */
    bool claimed;           /* it has its listener */
};

struct restoring {
    struct fsm *fsm;
    struct mr_error *error;
    struct canonical_reader extra; /* of the SnapshotExtra, which is read side by side with the PartitionSnapshot */
    struct open_stream *streams;   /* from the services on: by service and then by index */
    size_t count, capacity;
    size_t first, last; /* those of the service at hand: [first, last) */

    const struct fsm_source *source; /* of the snapshot; NULL: all of it is there */
    const uint8_t *there[2];         /* from here to there it is, as far as is known */
    const uint8_t *data;             /* where that of the service at hand begins */
    const uint8_t *told;             /* up to where source->passed was told */
    bool lost;                       /* it could not be had, and *error says why */

    /* For messages: where we are; 0: not there. */
    uint64_t session_id, sequence_num, service_id;
};

/* Says in *error what cannot be, and where. Returns -1. */
int restoring_wrong(const struct restoring *restoring, const char *what);

/* A SessionSnapshot, and its part of the extra. 0 or -1 with *error. */
int restore_session(struct restoring *restoring, struct slice bytes);

#endif
