/* SPDX-License-Identifier: Apache-2.0 */
/* Making and keeping events. */
#include "engine/fsm/event.h"

#include "engine/fsm/memory.h"
#include "ipc/error.h"

#include <stdlib.h>
#include <string.h>

enum {
    CAPACITY_MIN = 64,
    COPIED_MAX = 4096 /* a payload of no more bytes is copied: that costs less than sharing its blobs */
};

static uint8_t *inline_bytes(const struct event *event)
{
    return (uint8_t *)(uintptr_t)(event->pieces + event->piece_count);
}

struct event *event_create(const struct service_call *call, uint64_t name)
{
    bool copied = call->payload_size <= COPIED_MAX;
    size_t pieces = copied ? 0 : call->piece_count, bytes = copied ? call->payload_size : call->byte_count;
    mr_assert(pieces <= UINT16_MAX && call->payload_size <= UINT32_MAX);
    struct event *event =
        memory_allocate(sizeof(*event) + pieces * sizeof(event->pieces[0]) + bytes + call->message_size);
    *event = (struct event){.owners = 1,
                            .payload_size = (uint32_t)call->payload_size,
                            .name = name,
                            .inline_size = (uint32_t)bytes,
                            .piece_count = (uint16_t)pieces,
                            .message_size = (uint16_t)call->message_size,
                            .status = (uint8_t)call->status};
    uint8_t *to = inline_bytes(event);
    for (size_t i = 0; i < call->piece_count; i++) {
        const struct payload_piece *piece = &call->pieces[i];
        if (!copied) {
            event->pieces[i] = *piece;
            if (piece->blob != NULL)
                blob_share(piece->blob);
            continue;
        }
        memcpy(to, (piece->blob == NULL ? call->bytes : piece->blob->data) + piece->offset, piece->size);
        to += piece->size;
    }
    if (!copied && bytes > 0)
        memcpy(to, call->bytes, bytes);
    if (call->message_size > 0)
        memcpy(inline_bytes(event) + bytes, call->message, call->message_size);
    return event;
}

void event_free(struct event *event)
{
    for (unsigned i = 0; i < event->piece_count; i++)
        blob_release(event->pieces[i].blob);
    free(event);
}

struct slice event_part(const struct event *event, size_t place)
{
    const uint8_t *bytes = inline_bytes(event);
    if (event->piece_count == 0)
        return (struct slice){bytes, event->inline_size};
    const struct payload_piece *piece = &event->pieces[place];
    return (struct slice){(piece->blob == NULL ? bytes : piece->blob->data) + piece->offset, piece->size};
}

struct slice event_message(const struct event *event)
{
    return (struct slice){inline_bytes(event) + event->inline_size, event->message_size};
}

static void resize(struct events *events, size_t capacity)
{
    struct event **slots = memory_allocate(capacity * sizeof(struct event *));
    for (uint64_t number = events->floor + 1; number <= events->floor + events->count; number++)
        slots[number & (capacity - 1)] = events_get(events, number);
    free(events->slots);
    events->slots = slots;
    events->capacity = capacity;
}

void events_grow(struct events *events)
{
    resize(events, events->capacity == 0 ? CAPACITY_MIN : 2 * events->capacity);
}

void events_settle(struct events *events)
{
    size_t capacity = events->capacity;
    while (capacity > CAPACITY_MIN && events->peak <= capacity / 4)
        capacity /= 2;
    if (capacity < events->capacity)
        resize(events, capacity);
    events->peak = events->count;
}

void events_free(struct events *events)
{
    mr_assert(events->count == 0);
    free(events->slots);
    *events = (struct events){.floor = events->floor};
}
