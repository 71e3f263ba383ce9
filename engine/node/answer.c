/* SPDX-License-Identifier: Apache-2.0 */
/* Answers out: from the state machine into the response rings. An event that is an output of many requests of one
 * channel crosses once, in a frame that grows while it is the last one (ipc/frame.h).
 *
 * A request holds MR_SMALL_FRAME bytes of its channel's response ring from being taken until its last frame, so a small
 * last frame always has room. Everything else takes what nobody holds; when that is too little, a numbered output stays
 * in its session and is owed: sent when the client has read on, and until then nothing more is read from that channel.
 *
 * Frames are published, and the request ring's head is moved, once a turn, and within it when streams were given much:
 * first in the region (one store for both), then in the channel. What a worker had written beyond that when it died is
 * written again by its successor. */
#include "engine/fsm/memory.h"
#include "engine/node/worker_state.h"
#include "ipc/planted.h"
#include "proto/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* It does not as far as the client had read when its head was looked at last. */
bool answer_fits_closely(struct worker *worker, struct worker_channel *channel, uint64_t needed)
{
    uint64_t room = 0;

    if (ring_free(&channel->responses, needed, &room) != RING_OK) {
        channels_break(worker, channel, "the response ring's head is where it cannot be");
        return false;
    }
    if (room >= needed)
        return true;
    if (channel->room_needed == 0 || needed < channel->room_needed)
        channel->room_needed = needed;
    return false;
}

/* The frame's head is written; where its body goes. NULL: the client has broken its ring. */
static inline uint8_t *begin_frame(struct worker *worker, struct worker_channel *channel, uint64_t position,
                                   enum status status, bool last, uint64_t number, size_t size)
{
    uint8_t *at = NULL;
    uint64_t bytes = response_frame_bytes(size);

    /* There is room: it was held, or answer_fits() has said so. Only a client that moves its head back can undo that.
     */
    if (__builtin_expect(ring_reserve(&channel->responses, bytes, &at) != RING_OK, 0)) {
        channels_break(worker, channel, "the response ring's head ran backwards");
        return NULL;
    }
    *(struct response_head *)(void *)at = (struct response_head){.size = (uint32_t)size,
                                                                 .status = (uint8_t)status,
                                                                 .flags = last ? FRAME_LAST : 0,
                                                                 .request = position,
                                                                 .number = number};
    ring_advance(&channel->responses, bytes);
    if (!channel->touched)
        answer_touch(worker, channel);
    return at + sizeof(struct response_head);
}

static void put_message(struct worker *worker, struct worker_channel *channel, uint64_t position, enum status status,
                        bool last, struct slice message)
{
    size_t size = message.size < MR_MESSAGE_MAX ? message.size : MR_MESSAGE_MAX;
    /* Cut between characters: what follows the cut may not be the middle of one. */
    while (size < message.size && size > 0 && (message.data[size] & 0xc0) == 0x80)
        size--;
    uint8_t *body = begin_frame(worker, channel, position, status, last, 0, size);
    if (body != NULL)
        write_bytes(body, (struct slice){message.data, size});
}

/* How many may share the frame that has just been put, beside what requests hold. */
static uint16_t room_for_others(const struct worker_channel *channel)
{
    const struct ring_writer *ring = &channel->responses;
    uint64_t room = ring_room(ring), unpublished = ring->tail - ring->published;

    if (channel->owed_count > 0 || room < channel->held || unpublished >= MR_TURN_CHANNEL_BYTES)
        return 0;
    uint64_t bytes = room - channel->held;
    if (bytes > MR_TURN_CHANNEL_BYTES - unpublished)
        bytes = MR_TURN_CHANNEL_BYTES - unpublished;
    bytes /= sizeof(struct response_other);
    return bytes < FRAME_OTHERS_MAX ? (uint16_t)bytes : FRAME_OTHERS_MAX;
}

static inline void put_output(struct worker *worker, struct worker_channel *channel, uint64_t position,
                              const struct fsm_answer *answer)
{
    uint8_t *body = begin_frame(worker, channel, position, STATUS_OK, answer->last, answer->number, answer->size);
    if (body == NULL)
        return;
    for (size_t i = 0; i < answer->part_count; i++)
        body = write_bytes(body, answer->parts[i]);
    if (answer->last)
        return;
    uint64_t end = channel->responses.tail;
    worker->outputs++;
    channel->shared = (struct shared_frame){.event = answer->event,
                                            .begin = end - response_frame_bytes(answer->size),
                                            .end = end,
                                            .room = answer->event != 0 ? room_for_others(channel) : 0};
}

static void owe(struct worker *worker, struct worker_channel *channel, uint64_t position,
                const struct fsm_answer *answer)
{
    if (channel->owed_first + channel->owed_count == channel->owed_capacity) {
        if (channel->owed_first > 0) {
            memmove(channel->owed, channel->owed + channel->owed_first, channel->owed_count * sizeof(*channel->owed));
            channel->owed_first = 0;
        } else {
            unsigned capacity = channel->owed_capacity == 0 ? 16 : 2 * channel->owed_capacity;
            channel->owed = memory_resize(channel->owed, capacity * sizeof(*channel->owed));
            channel->owed_capacity = capacity;
        }
    }
    channel->owed[channel->owed_first + channel->owed_count++] = (struct owed_outputs){
        .session_id = answer->session_id, .sequence_num = answer->sequence_num, .position = position};
    channel->shared.room = 0; /* everything waits behind it */
    channels_leave(worker, channel);
}

/* The request has its last frame: what it is owed will not be asked for. Noted only, since many may end at once. */
static void owe_no_more(struct worker_channel *channel, uint64_t position)
{
    if (channel->ended_count == channel->ended_capacity) {
        unsigned capacity = channel->ended_capacity == 0 ? 16 : 2 * channel->ended_capacity;
        channel->ended = memory_resize(channel->ended, capacity * sizeof(*channel->ended));
        channel->ended_capacity = capacity;
    }
    channel->ended[channel->ended_count++] = position;
}

static int by_position(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Takes those out of the queue that have ended. */
static void drop_ended(struct worker_channel *channel)
{
    struct owed_outputs *owed = channel->owed + channel->owed_first;
    unsigned kept = 0;

    if (channel->ended_count == 0)
        return;
    qsort(channel->ended, channel->ended_count, sizeof(*channel->ended), by_position);
    for (unsigned i = 0; i < channel->owed_count; i++)
        if (bsearch(&owed[i].position, channel->ended, channel->ended_count, sizeof(*channel->ended), by_position) ==
            NULL)
            owed[kept++] = owed[i];
    channel->owed_count = kept;
    channel->ended_count = 0;
}

static void request_over(struct worker *worker, struct worker_channel *channel, uint64_t position)
{
    channel->held -= MR_SMALL_FRAME;
    if (channel->owed_count > 0 && !worker->delivering)
        owe_no_more(channel, position);
}

/* Is there room now for a numbered output that has no room of its own? */
static bool has_room(struct worker *worker, struct worker_channel *channel, const struct fsm_answer *answer)
{
    if (response_frame_bytes(answer->size) > channel->channel.ring_bytes / 2) {
        worker->too_large = response_frame_bytes(answer->size); /* for answer_owed(), who says so */
        return false;
    }
    /* Behind what is owed everything without room of its own waits, so that outputs come in order; and a successor,
     * which does not know yet how much room the rest of its replay holds, lets all of it wait. */
    if (!worker->delivering && (worker->replaying || channel->owed_count > 0))
        return false;
    if (channel->responses.tail - channel->responses.published >= MR_TURN_CHANNEL_BYTES)
        return false; /* enough for one turn */
    return answer_fits(worker, channel, answer->size, answer->last ? MR_SMALL_FRAME : 0);
}

/* Adds the request to the frame that has the event, if that is the ring's last one and has room. Otherwise
 * answer_from_fsm() says what becomes of it. An event is given to all within one entry, in which nobody comes to hold
 * room that did not. */
bool answer_shared(void *context, const struct fsm_route *route, uint64_t event, uint64_t number)
{
    struct worker *worker = context;
    struct worker_channel *channel = channels_find(worker, route->channel);

    if (channel == NULL)
        return false;
    struct shared_frame *frame = &channel->shared;
    struct ring_writer *ring = &channel->responses;
    if (frame->event != event || frame->end != ring->tail || frame->room == 0 || channel->broken ||
        frame->begin < ring->published || route->position < channel->answered_from)
        return false;
    struct response_other other = {.request = route->position, .number = number};
    memcpy(ring->data + (ring->tail & (ring->capacity - 1)), &other, sizeof(other));
    ring_advance(ring, sizeof(other));
    worker->outputs++;
    frame->end = ring->tail;
    frame->others++;
    frame->room--;
    uint8_t *head = ring->data + (frame->begin & (ring->capacity - 1));
    memcpy(head + offsetof(struct response_head, others), &frame->others, sizeof(frame->others));
    return true;
}

void answer_will_share(struct worker_channel *channel, uint64_t position)
{
    if (channel->sharing_first > 0 && channel->sharing_first + channel->sharing_count == channel->sharing_capacity) {
        memmove(channel->sharing, channel->sharing + channel->sharing_first,
                channel->sharing_count * sizeof(*channel->sharing));
        channel->sharing_first = 0;
    }
    if (channel->sharing_count == channel->sharing_capacity) {
        unsigned capacity = channel->sharing_capacity == 0 ? 16 : 2 * channel->sharing_capacity;
        channel->sharing = memory_resize(channel->sharing, capacity * sizeof(*channel->sharing));
        channel->sharing_capacity = capacity;
    }
    channel->sharing[channel->sharing_first + channel->sharing_count++] = position;
}

bool answer_may_share(struct worker_channel *channel, uint64_t position)
{
    bool found = false;

    /* Some before it may have failed, and so were not asked for. */
    while (channel->sharing_count > 0 && channel->sharing[channel->sharing_first] <= position) {
        found = channel->sharing[channel->sharing_first++] == position;
        channel->sharing_count--;
    }
    return found;
}

bool answer_from_fsm(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    struct worker *worker = context;
    struct worker_channel *channel = channels_find(worker, route->channel);

    /* Nobody is there any more, or a predecessor had taken it: its client names the command again. */
    if (channel == NULL || channel->broken || route->position < channel->answered_from)
        return false;
    /* Those without a number are small and the last: the request holds room for it. */
    bool holds_room = answer->number == 0 || (answer->last && response_frame_bytes(answer->size) <= MR_SMALL_FRAME);
    if (answer->status != STATUS_OK) {
        put_message(worker, channel, route->position, answer->status, answer->last, answer->message);
    } else if (holds_room || has_room(worker, channel, answer)) {
        put_output(worker, channel, route->position, answer);
    } else {
        if (!worker->delivering)
            owe(worker, channel, route->position, answer);
        return false;
    }
    if (answer->last)
        request_over(worker, channel, route->position);
    return true;
}

void answer_message(struct worker *worker, struct worker_channel *channel, uint64_t position, enum status status,
                    const char *message)
{
    put_message(worker, channel, position, status, true,
                (struct slice){.data = (const uint8_t *)message, .size = strlen(message)});
    request_over(worker, channel, position);
}

void answer_too_large(struct worker *worker, struct worker_channel *channel, uint64_t position, uint64_t bytes)
{
    char text[MR_MESSAGE_MAX];

    snprintf(text, sizeof(text),
             "the answer takes %llu bytes, over half of the channel's response ring, %llu: ask for a larger ring",
             (unsigned long long)bytes, (unsigned long long)channel->channel.ring_bytes / 2);
    answer_message(worker, channel, position, STATUS_INVALID, text);
}

void answer_query(struct worker *worker, struct worker_channel *channel, uint64_t position, uint64_t number, bool last,
                  const struct operation_output *output, const struct query_output_sizes *sizes)
{
    uint8_t *body = begin_frame(worker, channel, position, STATUS_OK, last, number, sizes->whole);
    if (body != NULL)
        write_query_output_sized(body, output, sizes);
    if (last)
        channel->held -= MR_SMALL_FRAME;
}

void answer_wake(struct worker *worker, struct worker_channel *channel)
{
    if (channel->wake_started) {
        channel->wake_again = true;
        return;
    }
    bells_ring(worker, channel);
}

/* How far a successor need not look: behind the refusal that is not told, else as far as was read, else as was applied.
 */
static uint64_t request_head(const struct worker_channel *channel)
{
    if (channel->in_flight > 0 && !PLANTED(HEAD_MOVED_EARLY))
        return channel->applied_to;
    return channel->refusal ? channel->refusal_position : channel->requests.head;
}

static void publish(struct worker *worker, struct worker_channel *channel)
{
    struct region_channel *region = channel->region;
    uint64_t head = request_head(channel);
    uint32_t other = (atomic_load_explicit(&region->current, memory_order_relaxed) & 1) ^ 1;

    region->pair[other] = (struct cursor_pair){.request_head = head, .response_tail = channel->responses.tail};
    atomic_store_explicit(&region->current, other, memory_order_release);
    /* Whose request is done often makes the next one at once, and need not wake who is awake. */
    if (head != channel->requests.released)
        channels_scan_again(worker, channel);
    /* Answers first: when the whole node dies, a client goes by what stands in the rings, and whatever the head has
     * passed must have its answer there. */
    if (ring_publish(&channel->responses))
        answer_wake(worker, channel);
    if (head != channel->requests.released)
        ring_release(&channel->requests, head);
}

void answer_refuse(struct worker *worker, struct worker_channel *channel, uint64_t position, enum status status,
                   const char *message)
{
    mr_assert(!channel->refusal);
    if (channel->in_flight == 0 && channel->owed_count == 0) {
        answer_message(worker, channel, position, status, message);
        /* At once: what is behind it may be durable before this turn's end, and a successor would pass over both. */
        if (!channel->broken)
            publish(worker, channel);
        return;
    }
    channel->refusal = true;
    channel->refusal_position = position;
    channel->refusal_status = status;
    snprintf(channel->refusal_text, sizeof(channel->refusal_text), "%s", message);
    channels_leave(worker, channel);
}

/* What the first in the queue is owed; false: no room yet for all of it. */
static bool deliver(struct worker *worker, struct worker_channel *channel)
{
    struct owed_outputs owed = channel->owed[channel->owed_first];
    struct fsm_route route = {.channel = channel->channel_id, .position = owed.position};
    bool gone = false;

    worker->too_large = 0;
    worker->delivering = true;
    bool all = fsm_deliver(worker->fsm, owed.session_id, owed.sequence_num, &route, &worker->sink, &gone);
    if (worker->too_large > 0) {
        fsm_leave(worker->fsm, owed.session_id, owed.sequence_num, &route);
        answer_too_large(worker, channel, owed.position, worker->too_large);
    } else if (gone) {
        answer_message(worker, channel, owed.position, STATUS_FORBIDDEN,
                       "the session ended, or gave the command up, before its answer was read");
    }
    worker->delivering = false;
    return all || worker->too_large > 0;
}

bool answer_owed(struct worker *worker, struct worker_channel *channel)
{
    uint64_t before = channel->responses.tail;

    drop_ended(channel);
    while (channel->owed_count > 0 && !channel->broken && deliver(worker, channel)) {
        channel->owed_first++;
        if (--channel->owed_count == 0)
            channel->owed_first = 0;
    }
    if (channel->refusal && channel->in_flight == 0 && channel->owed_count == 0 && !channel->broken) {
        channel->refusal = false;
        answer_message(worker, channel, channel->refusal_position, channel->refusal_status, channel->refusal_text);
    }
    return channel->responses.tail != before;
}

void answer_publish(struct worker *worker)
{
    for (unsigned i = 0; i < worker->touched_count; i++) {
        struct worker_channel *channel = &worker->channels[worker->touched[i]];
        channel->touched = false;
        if (!channel->broken)
            publish(worker, channel);
    }
    worker->touched_count = 0;
    worker->outputs = 0;
}
