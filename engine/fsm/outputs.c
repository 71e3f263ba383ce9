/* SPDX-License-Identifier: Apache-2.0 */
/* Stored outputs. Knows nothing of what a session does with them: whoever points at a record is told when it moves. */
#include "engine/fsm/outputs.h"

#include "engine/fsm/memory.h"
#include "ipc/error.h"
#include "proto/service_output.h"

#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_BYTES = 32 * 1024, /* the usual size */
    CHUNK_BYTES_MIN = 1024,  /* of the first, so that a quiet session is small */
    RECORD_ALIGNMENT = 8,
    CACHE_LINE = 64,
    AHEAD = 16 * CACHE_LINE /* bytes: so long before it is written memory is asked for */
};

static struct stored_output *record_at(struct output_chunk *chunk, uint32_t place)
{
    return (struct stored_output *)(void *)((uint8_t *)chunk + place);
}

static __attribute__((noinline)) struct output_chunk *add_chunk(struct outputs *outputs, size_t record_size)
{
    struct output_chunk *chunk = outputs->spare;
    size_t size = outputs->bytes < CHUNK_BYTES_MIN ? CHUNK_BYTES_MIN : outputs->bytes;
    size = size > CHUNK_BYTES ? CHUNK_BYTES : size;
    if (size < sizeof(*chunk) + record_size)
        size = sizeof(*chunk) + record_size;
    if (chunk != NULL && size <= CHUNK_BYTES) {
        outputs->spare = chunk->next;
        outputs->spares--;
    } else {
        mr_assert(size <= UINT32_MAX);
        chunk = memory_allocate(size);
        chunk->size = (uint32_t)size;
    }
    chunk->used = sizeof(*chunk);
    chunk->records = 0;
    chunk->next = NULL;
    chunk->prev = outputs->newest;
    *(outputs->newest == NULL ? &outputs->oldest : &outputs->newest->next) = chunk;
    outputs->newest = chunk;
    outputs->bytes += chunk->size;
    if (++outputs->chunks > outputs->peak)
        outputs->peak = outputs->chunks;
    return chunk;
}

static void remove_chunk(struct outputs *outputs, struct output_chunk *chunk)
{
    *(chunk->prev == NULL ? &outputs->oldest : &chunk->prev->next) = chunk->next;
    *(chunk->next == NULL ? &outputs->newest : &chunk->next->prev) = chunk->prev;
    outputs->bytes -= chunk->size;
    outputs->chunks--;
    if (chunk->size == CHUNK_BYTES) {
        chunk->next = outputs->spare;
        outputs->spare = chunk;
        outputs->spares++;
    } else {
        free(chunk);
    }
}

/* Room for a record of `size` bytes, which counts as stored from now on. */
static inline struct stored_output *make_room(struct outputs *outputs, size_t size)
{
    struct output_chunk *chunk = outputs->newest;
    if (chunk == NULL || size > chunk->size - chunk->used)
        chunk = add_chunk(outputs, size);
    struct stored_output *output = record_at(chunk, chunk->used);
    output->size = (uint32_t)size;
    output->place = chunk->used;
    for (size_t i = 0; i < size && i < AHEAD; i += CACHE_LINE)
        __builtin_prefetch((uint8_t *)output + AHEAD + i, 1);
    chunk->used += (uint32_t)size;
    chunk->records++;
    outputs->live += size;
    return output;
}

static struct service_output describe(uint64_t number, uint64_t index, const struct service_call *call)
{
    return (struct service_output){.index = index,
                                   .sequence_num = number,
                                   .status = call->status,
                                   .payload_size = call_payload_size(call),
                                   .message_size = call->message_size};
}

/* A record without its pieces and its body. */
static inline struct stored_output *new_record(struct outputs *outputs, uint64_t sequence_num,
                                               const struct service_output *described,
                                               const struct service_output_sizes *sizes, size_t inline_size,
                                               size_t pieces)
{
    size_t size = sizeof(struct stored_output) + pieces * sizeof(struct shared_piece) + inline_size;
    struct stored_output *output = make_room(outputs, (size + RECORD_ALIGNMENT - 1) & ~(size_t)(RECORD_ALIGNMENT - 1));
    outputs->appended++;
    output->sequence_num = sequence_num;
    output->number = described->sequence_num;
    output->index = described->index;
    output->content_size = (uint32_t)(described->payload_size + described->message_size);
    output->body_size = (uint32_t)sizes->whole;
    output->inline_size = (uint32_t)inline_size;
    output->piece_count = (uint16_t)pieces;
    output->snapshot_at = (uint8_t)(SERVICE_OUTPUT_CUT ? sizes->whole : sizes->whole - sizes->service_command);
    output->released = false;
    return output;
}

/* References to what is shared of the payload, which comes behind so many bytes of the body. */
static __attribute__((noinline)) void put_pieces(struct stored_output *output, const struct service_call *call,
                                                 size_t head)
{
    for (size_t i = 0; i < output->piece_count; i++) {
        output->pieces[i] = call->pieces[i];
        output->pieces[i].at += (uint32_t)head;
        blob_share(output->pieces[i].blob);
    }
}

/* The payload, between what is written of the body and what is still to be. */
static inline uint8_t *put_payload(struct stored_output *output, size_t pieces, uint8_t *at,
                                   const struct service_call *call)
{
    if (pieces > 0)
        put_pieces(output, call, (size_t)(at - (uint8_t *)(output->pieces + pieces)));
    return write_bytes(at, (struct slice){call->bytes, call->byte_count});
}

static __attribute__((noinline)) struct stored_output *append_any(struct outputs *outputs, uint64_t sequence_num,
                                                                  uint64_t number, uint64_t index,
                                                                  const struct service_call *call)
{
    struct service_output described = describe(number, index, call);
    mr_assert(call->piece_count <= UINT16_MAX && described.payload_size <= OUTPUT_PAYLOAD_MAX);
    struct service_output_sizes sizes = service_output_sizes(&described);
    bool has_payload = !SERVICE_OUTPUT_CUT && !ROW_DROPPED(ROW(OperationOutput, payload));
    size_t pieces = has_payload ? call->piece_count : 0;
    size_t inline_size = has_payload ? sizes.whole - call->shared_size : sizes.whole;
    struct stored_output *output = new_record(outputs, sequence_num, &described, &sizes, inline_size, pieces);
    uint8_t *bytes = (uint8_t *)(output->pieces + pieces);
    uint8_t *at = write_service_output_head(bytes, &described, &sizes);
    if (has_payload)
        at = put_payload(output, pieces, at, call);
    if (!SERVICE_OUTPUT_CUT)
        at = field_write_bytes(at, ROW(OperationOutput, message),
                               (struct slice){(const uint8_t *)call->message, call->message_size});
    mr_assert(at == bytes + inline_size);
    return output;
}

/* Inlined once for each `length_bytes`, so that all sizes but the payload's and the index's are constants. */
static inline __attribute__((always_inline)) struct stored_output *
append_plain(struct outputs *outputs, uint64_t sequence_num, const struct service_output *described,
             const struct service_call *call, size_t length_bytes)
{
    struct service_output_sizes sizes = plain_output_sizes(described, length_bytes);
    size_t pieces = call->piece_count;
    struct stored_output *output =
        new_record(outputs, sequence_num, described, &sizes, sizes.whole - call->shared_size, pieces);
    uint8_t *bytes = (uint8_t *)(output->pieces + pieces);
    put_payload(output, pieces, write_plain_output_head(bytes, described, &sizes, length_bytes), call);
    return output;
}

struct stored_output *outputs_append(struct outputs *outputs, uint64_t sequence_num, uint64_t number, uint64_t index,
                                     const struct service_call *call)
{
    struct service_output described = describe(number, index, call);
    size_t length_bytes = plain_output_length_bytes(&described);
    if (length_bytes == 1)
        return append_plain(outputs, sequence_num, &described, call, 1);
    if (length_bytes == 2)
        return append_plain(outputs, sequence_num, &described, call, 2);
    return append_any(outputs, sequence_num, number, index, call);
}

void outputs_release_pieces(struct stored_output *output)
{
    for (unsigned i = 0; i < output->piece_count; i++)
        blob_release(output->pieces[i].blob);
    output->piece_count = 0;
}

void outputs_vacated(struct outputs *outputs, struct output_chunk *chunk)
{
    if (chunk == outputs->newest)
        chunk->used = sizeof(*chunk);
    else
        remove_chunk(outputs, chunk);
}

/* Appends what is still stored of the oldest chunk once more, which empties it. */
static void evacuate_oldest(struct outputs *outputs, output_moved_fn *moved, void *context)
{
    struct output_chunk *chunk = outputs->oldest;
    uint32_t left = chunk->records;
    for (uint32_t place = sizeof(*chunk); left > 0;) {
        struct stored_output *from = record_at(chunk, place);
        place += from->size; /* read now: with its last record the chunk goes */
        if (from->released)
            continue;
        struct stored_output *to = make_room(outputs, from->size);
        uint32_t to_place = to->place;
        memcpy(to, from, from->size);
        to->place = to_place;
        moved(context, from, to);
        left--;
        from->piece_count = 0; /* its pieces are the other one's now */
        outputs_release(outputs, from);
    }
}

void outputs_settle(struct outputs *outputs, output_moved_fn *moved, void *context)
{
    while (outputs->bytes > 2 * outputs->live + 2 * (size_t)CHUNK_BYTES && outputs->oldest != outputs->newest)
        evacuate_oldest(outputs, moved, context);
    if (outputs->live == 0 && outputs->appended == 0 && outputs->newest != NULL)
        remove_chunk(outputs, outputs->newest);
    while (outputs->spares > 0 && outputs->chunks + outputs->spares > outputs->peak) {
        struct output_chunk *chunk = outputs->spare;
        outputs->spare = chunk->next;
        outputs->spares--;
        free(chunk);
    }
    outputs->peak = outputs->appended == 0 ? 0 : outputs->chunks;
    outputs->appended = 0;
}

bool outputs_free(struct outputs *outputs, unsigned *budget)
{
    while (outputs->oldest != NULL && *budget > 0) {
        struct output_chunk *chunk = outputs->oldest;
        for (uint32_t place = sizeof(*chunk); place < chunk->used;) {
            struct stored_output *output = record_at(chunk, place);
            place += output->size;
            outputs_release_pieces(output); /* of one that was released there are none */
            *budget -= *budget > 0;
        }
        outputs->oldest = chunk->next;
        free(chunk);
    }
    if (outputs->oldest != NULL)
        return false;
    for (; outputs->spare != NULL && *budget > 0; --*budget) {
        struct output_chunk *chunk = outputs->spare;
        outputs->spare = chunk->next;
        free(chunk);
    }
    return outputs->spare == NULL;
}
