/* SPDX-License-Identifier: Apache-2.0 */
/* One operation being answered, or one output of a stream: what service.h shows to a service type, from the inside. The
 * state machine has one of these for each and uses it again every time, so that answering allocates nothing in the
 * steady state. */
#ifndef ENGINE_FSM_CALL_H
#define ENGINE_FSM_CALL_H

#include "engine/fsm/service.h"
#include "millrace/limits.h"

/* A piece of a payload: a range of a blob, or of bytes that lie beside the pieces. */
struct payload_piece {
    struct blob *blob; /* one reference is this piece's; NULL: inline bytes */
    uint32_t offset;   /* in the blob, or in the inline bytes */
    uint32_t size;
};

struct service_call {
    uint64_t index;
    uint64_t time;
    struct slice payload; /* the operation's input */

    enum status status;
    uint8_t *bytes; /* inline bytes of the answer */
    size_t byte_count, byte_capacity;
    struct payload_piece *pieces;
    size_t piece_count, piece_capacity;
    size_t payload_size; /* sum of the pieces' */
    char message[MR_MESSAGE_MAX];
    size_t message_size;
    struct event *event; /* that a stream was given of it; NULL: none yet */

    enum operation_kind kind;      /* of the operation that is run */
    const void *origin;            /* a command's: what call_open() needs (stream.h) */
    struct stream *stream;         /* what call_open() made; who runs the call takes it from here */
    struct service_cursor *cursor; /* what call_cursor() was given; likewise */
};

/* An all-zero call may be begun. */
void call_begin(struct service_call *call, uint64_t index, uint64_t time, struct slice payload);
void call_drop(struct service_call *call); /* what has been put; lets go of blobs */
void call_free(struct service_call *call);

/* Finds the operation in the type's table and runs it; a name that is not there, or is of the other sort (a query sent
 * as a command or the reverse), fails the call. */
void call_run(struct service_call *call, const struct service_type *type, void *state, struct slice name, bool query);

#endif
