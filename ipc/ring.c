/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a ring that are seldom run: attaching, looking at the other end's cursor, going to sleep. See ring.h.
 *
 * A cursor of the other end's is checked by one comparison of distances from what was believed last, in unsigned
 * arithmetic modulo 2^64: `fresh - known <= limit - known`. Whatever the other end stores, its distance is a number
 * from 0 to 2^64 - 1, one that runs backwards being huge; the right side is a number of our own, at most the
 * capacity. */
#include "ipc/ring.h"

#include "ipc/planted.h"

static bool is_power_of_two(uint64_t number)
{
    return number != 0 && (number & (number - 1)) == 0;
}

void ring_writer_attach(struct ring_writer *writer, uint8_t *data, uint64_t capacity, struct ring_cursors *cursors,
                        uint64_t tail, uint64_t head)
{
    mr_assert(is_power_of_two(capacity));
    mr_assert(tail - head <= capacity);
    *writer = (struct ring_writer){
        .data = data, .capacity = capacity, .cursors = cursors, .tail = tail, .published = tail, .head = head};
    atomic_store_explicit(&cursors->tail, tail, memory_order_seq_cst);
}

void ring_reader_attach(struct ring_reader *reader, const uint8_t *data, uint64_t capacity,
                        struct ring_cursors *cursors, uint64_t head, uint64_t tail)
{
    mr_assert(is_power_of_two(capacity));
    mr_assert(tail - head <= capacity);
    *reader = (struct ring_reader){
        .data = data, .capacity = capacity, .cursors = cursors, .head = head, .released = head, .tail = tail};
    atomic_store_explicit(&cursors->head, head, memory_order_seq_cst);
}

/* The reader's head stands where it stood or later, and not past what has been published. */
static enum ring_result believe_head(struct ring_writer *writer, uint64_t fresh)
{
    if (fresh - writer->head > writer->published - writer->head)
        return RING_BROKEN;
    writer->head = fresh;
    return RING_OK;
}

/* The writer's tail stands where it stood or later, and not past the room that it has been given. */
static enum ring_result believe_tail(struct ring_reader *reader, uint64_t fresh)
{
    if (fresh - reader->tail > reader->capacity - (reader->tail - reader->released) && !PLANTED(TAIL_BELIEVED))
        return RING_BROKEN;
    reader->tail = fresh;
    return RING_OK;
}

enum ring_result ring_writer_look(struct ring_writer *writer)
{
    return believe_head(writer, atomic_load_explicit(&writer->cursors->head, memory_order_acquire));
}

enum ring_result ring_reader_look(struct ring_reader *reader)
{
    return believe_tail(reader, atomic_load_explicit(&reader->cursors->tail, memory_order_acquire));
}

bool ring_sleep(struct ring_reader *reader)
{
    atomic_store_explicit(&reader->cursors->reader_sleeps, 1, memory_order_seq_cst);
    uint64_t fresh = atomic_load_explicit(&reader->cursors->tail, memory_order_seq_cst);
    if (fresh == reader->tail && reader->tail == reader->head)
        return true;
    ring_awake(reader);
    return false;
}

void ring_awake(struct ring_reader *reader)
{
    /* No order needed: whoever still sees the flag up sends a wake-up too many. */
    atomic_store_explicit(&reader->cursors->reader_sleeps, 0, memory_order_relaxed);
}

bool ring_writer_sleep(struct ring_writer *writer, uint64_t size)
{
    atomic_store_explicit(&writer->cursors->writer_sleeps, 1, memory_order_seq_cst);
    uint64_t fresh = atomic_load_explicit(&writer->cursors->head, memory_order_seq_cst);
    if (believe_head(writer, fresh) == RING_OK && writer->capacity - (writer->tail - writer->head) < size)
        return true;
    ring_writer_awake(writer);
    return false;
}

void ring_writer_awake(struct ring_writer *writer)
{
    atomic_store_explicit(&writer->cursors->writer_sleeps, 0, memory_order_relaxed);
}

bool ring_release_wakes(struct ring_reader *reader)
{
    /* The same value again: what counts is that this store is seq_cst, as the one of ring_release() need not be. */
    atomic_store_explicit(&reader->cursors->head, reader->released, memory_order_seq_cst);
    if (atomic_load_explicit(&reader->cursors->writer_sleeps, memory_order_seq_cst) == 0)
        return false;
    return atomic_exchange_explicit(&reader->cursors->writer_sleeps, 0, memory_order_seq_cst) != 0;
}
