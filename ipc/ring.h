/* SPDX-License-Identifier: Apache-2.0 */
/* One ring: a byte queue in shared memory with one writer and one reader. This file and ring.c alone touch its shared
 * cursors; others write and read bytes only where it says that they may. What the bytes mean it does not know.
 *
 * Cursors count bytes since the ring was made (64 bits; a byte lives at cursor modulo capacity). The writer owns
 * `tail`, the reader `head`; head <= tail <= head + capacity. The data is mapped twice in a row, so what is in the ring
 * is always contiguous for whoever looks at it. Frames are a multiple of 8 bytes long, so they stand at multiples of 8.
 *
 * Memory order: the writer fills bytes, then stores tail with release (or stronger); the reader loads tail with
 * acquire, then looks at the bytes. The reader is done with bytes, then stores head with release; the writer loads head
 * with acquire before it writes over them.
 *
 * Going to sleep is a handshake of two words, A and B: the sleeper stores its flag (A), then loads the cursor once more
 * (B); the other end stores its cursor (B), then loads the flag (A). All four are seq_cst and so stand in one order
 * that everyone agrees on. If the sleeper's load misses the store of the cursor, it stands before that store, its own
 * store of the flag stands before it still, and the other end's load of the flag, which comes last, sees it. So one of
 * the two always sees the other, and no wake-up is lost. This is the full fence of the textbooks, in the form that
 * costs the same (one locked instruction on x86-64, in the store) and that ThreadSanitizer understands.
 *
 * The other end may be hostile: a cursor that it owns is checked each time it is loaded, and what it wrote may change
 * while it is read. ring_*() functions return RING_BROKEN rather than believe what cannot be; after that the ring is of
 * no more use. The private cursors below never hold an unchecked value, so the assertions on them are about our own
 * calls. */
#ifndef IPC_RING_H
#define IPC_RING_H

#include "ipc/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CACHE_LINE 64
#define RING_AHEAD (16 * CACHE_LINE) /* so far before it is needed each end asks for what the other end's core has */

/* In shared memory, one per ring: each word on its own cache line. The flags are set by the one that is named and taken
 * down by either; the words of the other end's are never believed to be more than "not 0". */
struct ring_cursors {
    _Alignas(CACHE_LINE) _Atomic uint64_t tail;          /* written by the ring's writer */
    _Alignas(CACHE_LINE) _Atomic uint64_t head;          /* written by the ring's reader */
    _Alignas(CACHE_LINE) _Atomic uint32_t reader_sleeps; /* not 0: the reader wants a wake-up when something comes */
    _Atomic uint32_t writer_sleeps;                      /* not 0: the writer wants one when there is more room */
};

/* The writer's private view. */
struct ring_writer {
    uint8_t *data;     /* both mappings in a row */
    uint64_t capacity; /* bytes; a power of two */
    struct ring_cursors *cursors;
    uint64_t tail;      /* where the next frame goes */
    uint64_t published; /* tail as the reader may see it */
    uint64_t head;      /* the reader's head as last believed: published - capacity <= head <= published */
};

/* The reader's private view. */
struct ring_reader {
    const uint8_t *data;
    uint64_t capacity;
    struct ring_cursors *cursors;
    uint64_t head;     /* where the next frame starts */
    uint64_t released; /* head as the writer may see it */
    uint64_t tail;     /* the writer's tail as last believed: head <= tail <= released + capacity */
};

enum ring_result { RING_OK = 0, RING_EMPTY, RING_FULL, RING_BROKEN };

/* Attach at cursors that are known good (0, 0 for a new ring; a successor's from where its predecessor stood). The
 * end's own shared cursor is set to what is given, since a predecessor may have died before it did so; nobody is
 * woken. */
void ring_writer_attach(struct ring_writer *writer, uint8_t *data, uint64_t capacity, struct ring_cursors *cursors,
                        uint64_t tail, uint64_t head);
void ring_reader_attach(struct ring_reader *reader, const uint8_t *data, uint64_t capacity,
                        struct ring_cursors *cursors, uint64_t head, uint64_t tail);

/* Looks at the other end's shared cursor: RING_OK or RING_BROKEN. For the functions below; seldom called. */
enum ring_result ring_writer_look(struct ring_writer *writer);
enum ring_result ring_reader_look(struct ring_reader *reader);

/* Bytes that are free for writing as far as is known: there may be more. */
static inline uint64_t ring_room(const struct ring_writer *writer)
{
    return writer->capacity - (writer->tail - writer->head);
}

/* Bytes free for writing, after a fresh look at the shared head if `at_least` are not known to be: RING_OK (*bytes may
 * still be less than `at_least`) or RING_BROKEN. */
static inline enum ring_result ring_free(struct ring_writer *writer, uint64_t at_least, uint64_t *bytes)
{
    enum ring_result result = RING_OK;

    *bytes = ring_room(writer);
    if (*bytes < at_least) {
        result = ring_writer_look(writer);
        *bytes = ring_room(writer);
    }
    return result;
}

/* One end goes on from `at` by `size` bytes: asks for as many, or some of them, ahead. Inlined by order: a function
 * that does nothing else gcc takes for one without effect. (Whether it is to write has to be a constant.) */
#define RING_ASK(writes, address) ((writes) ? __builtin_prefetch(address, 1) : __builtin_prefetch(address, 0))
static inline __attribute__((always_inline)) void ring_ask_ahead(const uint8_t *data, uint64_t at, uint64_t capacity,
                                                                 uint64_t size, bool writes)
{
    RING_ASK(writes, data + ((at + RING_AHEAD) & (capacity - 1)));
    for (uint64_t i = CACHE_LINE; i < size && i < RING_AHEAD; i += CACHE_LINE)
        RING_ASK(writes, data + ((at + RING_AHEAD + i) & (capacity - 1)));
}
#undef RING_ASK

/* Writer. Room for `size` contiguous bytes at the tail: *at is where to write them. RING_FULL: not now. Looks at the
 * shared head only when the head it knows does not give enough. */
static inline enum ring_result ring_reserve(struct ring_writer *writer, uint64_t size, uint8_t **at)
{
    uint64_t bytes;

    if (ring_free(writer, size, &bytes) != RING_OK)
        return RING_BROKEN;
    if (bytes < size)
        return RING_FULL;
    *at = writer->data + (writer->tail & (writer->capacity - 1));
    return RING_OK;
}

/* The `size` bytes reserved last are written; not yet visible. */
static inline void ring_advance(struct ring_writer *writer, uint64_t size)
{
    mr_assert(size <= ring_room(writer));
    ring_ask_ahead(writer->data, writer->tail, writer->capacity, size, true);
    writer->tail += size;
}

/* Makes everything advanced visible. Returns true if the reader's sleep flag was up: it has been taken down by this
 * call, and the caller owes it a wake-up. Costs a full fence, so once per many frames; nothing if there is nothing
 * new. */
static inline bool ring_publish(struct ring_writer *writer)
{
    if (writer->published == writer->tail)
        return false;
    writer->published = writer->tail;
    atomic_store_explicit(&writer->cursors->tail, writer->tail, memory_order_seq_cst);
    if (__builtin_expect(atomic_load_explicit(&writer->cursors->reader_sleeps, memory_order_seq_cst) == 0, 1))
        return false;
    return atomic_exchange_explicit(&writer->cursors->reader_sleeps, 0, memory_order_seq_cst) != 0;
}

/* Reader. RING_OK: at least `size` (1 or more) bytes stand at the head, *at is where. RING_EMPTY: nothing is there at
 * all. RING_BROKEN: a tail that cannot be, or fewer than `size` bytes there although more than none (frames are
 * published whole). Looks at the shared tail only when the tail it knows does not give enough. */
static inline enum ring_result ring_peek(struct ring_reader *reader, uint64_t size, const uint8_t **at)
{
    if (__builtin_expect(reader->tail - reader->head < size, 0)) {
        if (ring_reader_look(reader) != RING_OK)
            return RING_BROKEN;
        if (reader->tail == reader->head)
            return RING_EMPTY;
        if (reader->tail - reader->head < size)
            return RING_BROKEN;
    }
    *at = reader->data + (reader->head & (reader->capacity - 1));
    return RING_OK;
}

/* Steps over `size` bytes that ring_peek() has shown; they stay the reader's until ring_release(). */
static inline void ring_skip(struct ring_reader *reader, uint64_t size)
{
    mr_assert(size <= reader->tail - reader->head);
    if (reader->tail - reader->head > RING_AHEAD + size) /* what is not written yet is left to the writer */
        ring_ask_ahead(reader->data, reader->head, reader->capacity, size, false);
    reader->head += size;
}

/* Gives everything up to `head` back to the writer; `head` is at most reader->head, and does not go backwards. */
static inline void ring_release(struct ring_reader *reader, uint64_t head)
{
    mr_assert(head - reader->released <= reader->head - reader->released);
    reader->released = head;
    atomic_store_explicit(&reader->cursors->head, head, memory_order_release);
}

/* Reader, after its last ring_release() before it turns to something else: true if the writer sleeps for want of room.
 * The flag has been taken down by this call, and the caller owes it a wake-up. Contains the full fence between the
 * two. */
bool ring_release_wakes(struct ring_reader *reader);

/* Reader: raise or take down the sleep flag. ring_sleep() contains the full fence; it returns false, the flag down
 * again, if something has come meanwhile (or the ring is broken, which the next peek will say) or is there unread. */
bool ring_sleep(struct ring_reader *reader);
void ring_awake(struct ring_reader *reader);

/* Writer: the same for want of `size` bytes of room. Returns false, the flag down again, if they are there by now (or
 * the ring is broken). The reader wakes it once there is any more room: it looks, and may have to sleep again. */
bool ring_writer_sleep(struct ring_writer *writer, uint64_t size);
void ring_writer_awake(struct ring_writer *writer);

/* Copies out of the ring, once: what is in `to` is what everything afterwards is decided on. `from` lies in ring data.
 *
 * The peer can change the source at any moment, so the compiler must not read it a second time: not by turning a later
 * look at `to` into one at `from`, nor by reading a field twice to save a register. The barriers tell it that `to` is
 * used there as it is in memory, and that all memory may have changed since; so it has to finish the one copy between
 * them, and everything later is read from `to`. (Large ones go through memcpy() itself.) */
static inline void ring_copy(void *to, const uint8_t *from, size_t size)
{
    __asm__ volatile("" : "+r"(from) : "r"(to) : "memory");
    memcpy(to, from, size);
    __asm__ volatile("" : : "r"(to) : "memory");
}

#endif
