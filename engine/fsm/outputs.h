/* SPDX-License-Identifier: Apache-2.0 */
/* The outputs that a session stores until they are acknowledged: records, appended in the order in which commands are
 * applied, to chunks that are freed (or used again) when nothing in them is stored any more. A record lies still until
 * outputs_settle(), which moves records out of sparse chunks: at most about half of the memory is ever waste, whatever
 * is acknowledged in whatever order. In the steady state nothing is allocated.
 *
 * Payload bytes that a service put as a blob are shared, not copied. */
#ifndef ENGINE_FSM_OUTPUTS_H
#define ENGINE_FSM_OUTPUTS_H

#include "engine/fsm/call.h"

/* A record: this head, its pieces, the inline bytes of its payload, its message. */
struct stored_output {
    uint32_t size;         /* of the whole record; a multiple of 8 */
    uint32_t place;        /* bytes from the beginning of its chunk */
    uint64_t sequence_num; /* of its command */
    uint64_t number;       /* of this output among the command's, from 1 */
    uint64_t index;        /* of the command */
    uint32_t payload_size; /* all pieces; without pieces the inline bytes are the payload */
    uint32_t inline_size;
    uint16_t piece_count;
    uint16_t message_size;
    uint8_t status; /* enum status of the operation */
    bool released;
    struct payload_piece pieces[];
};

struct output_chunk;

struct outputs {
    struct output_chunk *oldest, *newest; /* records are appended to the newest */
    struct output_chunk *spare;           /* empty ones of the usual size */
    size_t chunks, spares;                /* in use; spare */
    size_t peak;                          /* most in use since the last outputs_settle() */
    size_t bytes;                         /* of chunks in use */
    size_t live;                          /* bytes of records not released */
    uint64_t appended;                    /* records, since the last outputs_settle() */
};

/* Stores the answer of a call that has been run, or an output; takes a reference to each of its blobs. */
struct stored_output *outputs_append(struct outputs *outputs, uint64_t sequence_num, uint64_t number, uint64_t index,
                                     const struct service_call *call);
void outputs_release(struct outputs *outputs, struct stored_output *output);

/* Gives memory back and packs what is left. `moved` is told of every record that now lies elsewhere. */
typedef void output_moved_fn(void *context, struct stored_output *from, struct stored_output *to);
void outputs_settle(struct outputs *outputs, output_moved_fn *moved, void *context);

/* Frees all, about *budget objects at a time; true when done. */
bool outputs_free(struct outputs *outputs, unsigned *budget);

/* The payload as slices of where it lies: at most piece_count, at least 1; returns how many. */
size_t output_parts(const struct stored_output *output, struct slice *parts);
struct slice output_part(const struct stored_output *output, size_t place); /* one of them */
struct slice output_message(const struct stored_output *output);

#endif
