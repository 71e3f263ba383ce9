/* SPDX-License-Identifier: Apache-2.0 */
/* Events: what a service gave to streams as an output. However many streams it is an output of, it is kept once, until
 * the last of them has it acknowledged; of each stream, only which events are its outputs. Knows no stream. */
#ifndef ENGINE_FSM_EVENT_H
#define ENGINE_FSM_EVENT_H

#include "engine/fsm/call.h"

/* The payload and message of an OperationOutput, as they end a PartitionCommandOutput (proto/service_output.h): what
 * stands before them is not the same for each of its streams. Immutable. */
struct event {
    uint32_t owners;
    uint32_t payload_size;
    uint64_t name;        /* of all the state machine's events only this one has it; 0: none */
    uint32_t inline_size; /* of what is encoded, but for its pieces */
    uint16_t piece_count;
    uint16_t message_size;
    uint8_t status;               /* enum status of the operation */
    struct shared_piece pieces[]; /* `at`: inline bytes that come before it; then the inline bytes */
};

/* What has been put into the call; takes a reference to each of its blobs, if it is not small. One owner. */
struct event *event_create(const struct service_call *call, uint64_t name);
void event_free(struct event *event);

static inline void event_release(struct event *event)
{
    if (--event->owners == 0)
        event_free(event);
}

/* What has been put into the call is about to be something else. */
static inline void event_forget(struct service_call *call)
{
    if (call->event == NULL)
        return;
    event_release(call->event);
    call->event = NULL;
}

/* What stands before the parts, if the event is the output `number` of the command with that index: at most
 * EVENT_HEAD_MAX bytes. */
#define EVENT_HEAD_MAX 80
struct event_head {
    size_t size;
    size_t snapshot_at; /* where in it the ServiceCommandOutput begins, which a snapshot has */
    size_t whole;       /* of the PartitionCommandOutput: head and parts */
};
struct event_head event_write_head(const struct event *event, uint64_t index, uint64_t number, uint8_t *to);
/* Of the ServiceCommandOutput. */
size_t event_snapshot_size(const struct event *event, uint64_t number);

/* The rest. */
static inline size_t event_part_count(const struct event *event)
{
    return kept_part_count(event->piece_count);
}

static inline struct slice event_part(const struct event *event, size_t part)
{
    return kept_part(event->pieces, event->piece_count, event->inline_size, part);
}

/* ---- a stream's, by number ---- */

/* Those from floor + 1 to floor + count. */
struct events {
    struct event **slots; /* of number n: slots[n % capacity] */
    size_t capacity;      /* a power of two, or 0 */
    size_t count;
    uint64_t floor;
};

void events_grow(struct events *events);

/* Behind the last one; another owner. */
static inline void events_append(struct events *events, struct event *event)
{
    if (events->count == events->capacity)
        events_grow(events);
    events->slots[(events->floor + ++events->count) & (events->capacity - 1)] = event;
    event->owners++;
}

/* One that is there. */
static inline struct event *events_get(const struct events *events, uint64_t number)
{
    return events->slots[number & (events->capacity - 1)];
}

/* Lets go of the first one. */
static inline void events_drop_first(struct events *events)
{
    event_release(events_get(events, ++events->floor));
    events->count--;
}

/* Some have gone: gives back what was not needed since the last call, when there were `most` at most. */
void events_settle(struct events *events, size_t most);
/* They are all gone already. */
void events_free(struct events *events);

#endif
