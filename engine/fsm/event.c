/* SPDX-License-Identifier: Apache-2.0 */
/* Making, encoding and keeping events. */
#include "engine/fsm/event.h"

#include "engine/fsm/memory.h"
#include "engine/fsm/outputs.h"
#include "ipc/error.h"
#include "proto/service_output.h"

#include <stdlib.h>
#include <string.h>

enum {
    CAPACITY_MIN = 64,
    COPIED_MAX = 4096 /* a payload of no more bytes is copied: that costs less than sharing its blobs */
};

/* Whole, or only its inline bytes. */
static uint8_t *copy_payload(uint8_t *to, const struct service_call *call, bool whole)
{
    size_t at = 0;
    for (size_t i = 0; whole && i < call->piece_count; i++) {
        const struct shared_piece *piece = &call->pieces[i];
        to = write_bytes(to, call_bytes(call, at, piece->at));
        to = write_bytes(to, (struct slice){piece->blob->data + piece->offset, piece->size});
        at = piece->at;
    }
    return write_bytes(to, call_bytes(call, at, call->byte_count));
}

struct event *event_create(const struct service_call *call, uint64_t name)
{
    size_t payload_size = call_payload_size(call);
    bool has_payload = !SERVICE_OUTPUT_CUT && !ROW_DROPPED(ROW(OperationOutput, payload));
    bool copied = payload_size <= COPIED_MAX;
    size_t pieces = copied || !has_payload ? 0 : call->piece_count;
    struct slice message = {(const uint8_t *)call->message, SERVICE_OUTPUT_CUT ? 0 : call->message_size};
    size_t size = field_bytes_size(ROW(OperationOutput, message), message.size);
    if (has_payload)
        size += copied ? payload_size : call->byte_count;
    mr_assert(pieces <= UINT16_MAX && payload_size <= OUTPUT_PAYLOAD_MAX);
    struct event *event = memory_allocate(sizeof(*event) + pieces * sizeof(event->pieces[0]) + size);
    *event = (struct event){.owners = 1,
                            .payload_size = (uint32_t)payload_size,
                            .name = name,
                            .inline_size = (uint32_t)size,
                            .piece_count = (uint16_t)pieces,
                            .message_size = (uint16_t)call->message_size,
                            .status = (uint8_t)call->status};
    for (size_t i = 0; i < pieces; i++) {
        event->pieces[i] = call->pieces[i];
        blob_share(event->pieces[i].blob);
    }
    uint8_t *bytes = (uint8_t *)(event->pieces + pieces), *at = bytes;
    if (has_payload)
        at = copy_payload(at, call, copied);
    at = field_write_bytes(at, ROW(OperationOutput, message), message);
    mr_assert(at == bytes + size);
    return event;
}

void event_free(struct event *event)
{
    for (unsigned i = 0; i < event->piece_count; i++)
        blob_release(event->pieces[i].blob);
    free(event);
}

static struct service_output describe(const struct event *event, uint64_t index, uint64_t number)
{
    return (struct service_output){.index = index,
                                   .sequence_num = number,
                                   .status = (enum status)event->status,
                                   .payload_size = event->payload_size,
                                   .message_size = event->message_size};
}

struct event_head event_write_head(const struct event *event, uint64_t index, uint64_t number, uint8_t *to)
{
    struct service_output output = describe(event, index, number);
    struct service_output_sizes sizes = service_output_sizes(&output);
    struct event_head head = {.whole = sizes.whole};
    head.size = (size_t)(write_service_output_head(to, &output, &sizes) - to);
    head.snapshot_at = SERVICE_OUTPUT_CUT ? head.size : sizes.whole - sizes.service_command;
    return head;
}

size_t event_snapshot_size(const struct event *event, uint64_t number)
{
    struct service_output output = describe(event, 0, number);
    return SERVICE_OUTPUT_CUT ? 0 : service_output_sizes(&output).service_command;
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

void events_settle(struct events *events, size_t most)
{
    size_t capacity = events->capacity;
    while (capacity > CAPACITY_MIN && most <= capacity / 4)
        capacity /= 2;
    if (capacity < events->capacity)
        resize(events, capacity);
}

void events_free(struct events *events)
{
    mr_assert(events->count == 0);
    free(events->slots);
    *events = (struct events){.floor = events->floor};
}
