/* SPDX-License-Identifier: Apache-2.0 */
/* The outputs that a session stores until they are acknowledged: records, appended in the order in which commands are
 * applied, to chunks that are freed (or used again) when nothing in them is stored any more. A record lies still until
 * outputs_settle(), which moves records out of sparse chunks: at most about half of the memory is ever waste, whatever
 * is acknowledged in whatever order. In the steady state nothing is allocated.
 *
 * An output is stored as it is given: as the bytes of its PartitionCommandOutput, encoded once, so that to answer is to
 * copy them, the first time and every time that they are asked for again. In a snapshot stands the ServiceCommandOutput
 * that these bytes end with. Payload bytes that a service put as a blob are shared, not copied. */
#ifndef ENGINE_FSM_OUTPUTS_H
#define ENGINE_FSM_OUTPUTS_H

#include "engine/fsm/call.h"

/* A record: this head, its pieces, the inline bytes of its body. */
struct stored_output {
    uint32_t size;         /* of the whole record; a multiple of 8 */
    uint32_t place;        /* bytes from the beginning of its chunk */
    uint64_t sequence_num; /* of its command */
    uint64_t number;       /* of this output among the command's, from 1 */
    uint64_t index;        /* of the command */
    uint32_t content_size; /* of payload and message */
    uint32_t body_size;    /* of the PartitionCommandOutput */
    uint32_t inline_size;  /* of the body but for its pieces */
    uint16_t piece_count;
    uint8_t snapshot_at; /* where in the body its ServiceCommandOutput begins, which ends with it: before any piece */
    bool released;
    struct shared_piece pieces[]; /* `at`: inline bytes of the body that come before it */
};

#define OUTPUT_PAYLOAD_MAX (UINT32_MAX - 4096) /* of one that is stored */

struct output_chunk {
    struct output_chunk *prev, *next; /* older, newer; next also links spare ones */
    uint32_t size;                    /* of the chunk, this head included */
    uint32_t used;                    /* likewise: where the next record goes */
    uint32_t records;                 /* not released */
    uint32_t reserved;
};

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

void outputs_release_pieces(struct stored_output *output);                 /* for the next one */
void outputs_vacated(struct outputs *outputs, struct output_chunk *chunk); /* likewise: nothing in it is stored */
static inline void outputs_release(struct outputs *outputs, struct stored_output *output)
{
    struct output_chunk *chunk = (struct output_chunk *)(void *)((uint8_t *)output - output->place);
    if (output->piece_count > 0)
        outputs_release_pieces(output);
    output->released = true;
    outputs->live -= output->size;
    if (--chunk->records == 0)
        outputs_vacated(outputs, chunk);
}

/* Gives memory back and packs what is left. `moved` is told of every record that now lies elsewhere. */
typedef void output_moved_fn(void *context, struct stored_output *from, struct stored_output *to);
void outputs_settle(struct outputs *outputs, output_moved_fn *moved, void *context);

/* Frees all, about *budget objects at a time; true when done. */
bool outputs_free(struct outputs *outputs, unsigned *budget);

/* The body; the first part is not empty. */
static inline size_t output_part_count(const struct stored_output *output)
{
    return kept_part_count(output->piece_count);
}

static inline struct slice output_part(const struct stored_output *output, size_t part)
{
    return kept_part(output->pieces, output->piece_count, output->inline_size, part);
}

#endif
