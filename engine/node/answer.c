/* SPDX-License-Identifier: Apache-2.0 */
/* Answers out: from the state machine into the response rings, encoded where they are read.
 *
 * A request holds MR_SMALL_FRAME bytes of its channel's response ring from being taken until its last frame, so a small
 * answer always has room. A larger one takes what nobody holds; when that is too little, a numbered output stays in its
 * session and is owed: sent when the client has read on, and until then nothing more is read from that channel.
 *
 * Frames are published, and the request ring's head is moved, once a turn: first in the region (one store for both),
 * then in the channel. What a worker had written beyond that when it died is written again, the same, by its successor.
 */
#include "engine/node/worker_state.h"
#include "proto/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void answer_touch(struct worker *worker, struct worker_channel *channel)
{
    if (channel->touched)
        return;
    channel->touched = true;
    worker->touched[worker->touched_count++] = channel->slot;
}

bool answer_fits(struct worker *worker, struct worker_channel *channel, uint64_t size, uint64_t own)
{
    uint64_t needed = response_frame_bytes(size) + channel->held - own;
    uint64_t room = 0;

    if (ring_free(&channel->responses, needed, &room) != RING_OK) {
        channels_break(worker, channel, "the response ring's head is where it cannot be");
        return false;
    }
    if (room >= needed)
        return true;
    channel->room_needed = needed;
    return false;
}

/* The frame's head is written, *body is where its body goes. NULL: the client has broken its ring. */
static uint8_t *begin_frame(struct worker *worker, struct worker_channel *channel, const struct response_head *head)
{
    uint8_t *at = NULL;
    uint64_t bytes = response_frame_bytes(head->size);

    /* There is room: it was held, or answer_fits() has said so. Only a client that moves its head back can undo that.
     */
    if (ring_reserve(&channel->responses, bytes, &at) != RING_OK) {
        channels_break(worker, channel, "the response ring's head ran backwards");
        return NULL;
    }
    memcpy(at, head, sizeof(*head));
    ring_advance(&channel->responses, bytes);
    answer_touch(worker, channel);
    return at + sizeof(*head);
}

static void put_message(struct worker *worker, struct worker_channel *channel, uint64_t position, enum status status,
                        bool last, struct slice message)
{
    size_t size = message.size < MR_MESSAGE_MAX ? message.size : MR_MESSAGE_MAX;
    /* Cut between characters: what follows the cut may not be the middle of one. */
    while (size < message.size && size > 0 && (message.data[size] & 0xc0) == 0x80)
        size--;
    struct response_head head = {
        .size = (uint32_t)size, .status = (uint8_t)status, .flags = last ? FRAME_LAST : 0, .request = position};
    uint8_t *body = begin_frame(worker, channel, &head);
    if (body != NULL && size > 0)
        memcpy(body, message.data, size);
}

static void put_output(struct worker *worker, struct worker_channel *channel, uint64_t position,
                       const struct fsm_answer *answer, size_t size)
{
    struct response_head head = {.size = (uint32_t)size,
                                 .status = STATUS_OK,
                                 .flags = answer->last ? FRAME_LAST : 0,
                                 .request = position,
                                 .number = answer->number};
    uint8_t *body = begin_frame(worker, channel, &head);
    if (body != NULL)
        write_partition_command_output(body, &answer->output);
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
            struct owed_output *owed = realloc(channel->owed, capacity * sizeof(*owed));
            mr_assert(owed != NULL);
            channel->owed = owed;
            channel->owed_capacity = capacity;
        }
    }
    channel->owed[channel->owed_first + channel->owed_count++] =
        (struct owed_output){.session_id = answer->session_id,
                             .sequence_num = answer->sequence_num,
                             .number = answer->number,
                             .position = position};
    channels_leave(worker, channel);
}

void answer_from_fsm(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    struct worker *worker = context;
    struct worker_channel *channel = channels_find(worker, route->channel);

    if (channel == NULL || channel->broken || route->position < channel->answered_from)
        return; /* nobody is there any more, or it was told by a predecessor */
    if (answer->status != STATUS_OK) {
        put_message(worker, channel, route->position, answer->status, answer->last, answer->message);
    } else {
        size_t size = partition_command_output_size(&answer->output);
        bool small = response_frame_bytes(size) <= MR_SMALL_FRAME;
        bool numbered = answer->sequence_num != 0;
        mr_assert(small || numbered);
        /* Behind an owed output everything large is owed too, so that they come in order; and a successor, which does
         * not know yet how much room the rest of its replay holds, owes all that is large. */
        if (!small &&
            (worker->replaying || channel->owed_count > 0 || !answer_fits(worker, channel, size, MR_SMALL_FRAME))) {
            owe(worker, channel, route->position, answer);
            if (worker->replaying)
                channel->held += MR_SMALL_FRAME; /* as it did at the predecessor's */
            return;                              /* goes on holding its room */
        }
        put_output(worker, channel, route->position, answer, size);
    }
    if (answer->last && !worker->replaying)
        channel->held -= MR_SMALL_FRAME;
}

void answer_message(struct worker *worker, struct worker_channel *channel, uint64_t position, enum status status,
                    const char *message)
{
    put_message(worker, channel, position, status, true,
                (struct slice){.data = (const uint8_t *)message, .size = strlen(message)});
    channel->held -= MR_SMALL_FRAME;
}

void answer_query(struct worker *worker, struct worker_channel *channel, uint64_t position,
                  const struct operation_output *output)
{
    size_t size = partition_query_output_size(output);
    struct response_head head = {.size = (uint32_t)size, .status = STATUS_OK, .flags = FRAME_LAST, .request = position};
    uint8_t *body = begin_frame(worker, channel, &head);
    if (body != NULL)
        write_partition_query_output(body, output);
    channel->held -= MR_SMALL_FRAME;
}

void answer_wake(struct worker *worker, struct worker_channel *channel)
{
    if (channel->wake_started) {
        channel->wake_again = true;
        return;
    }
    channel->wake_started = true;
    worker->io->ops->wake(worker->io, channel->channel.client_wake_fd,
                          worker_token(TOKEN_WAKE, channel->slot, channel->channel_id));
}

/* How far a successor need not look: behind the refusal that is not told, else as far as was read, else as was applied.
 */
static uint64_t request_head(const struct worker_channel *channel)
{
    if (channel->in_flight > 0)
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
    if (head != channel->requests.released)
        ring_release(&channel->requests, head);
    if (ring_publish(&channel->responses))
        answer_wake(worker, channel);
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

/* One owed output; false: no room yet. */
static bool send_owed(struct worker *worker, struct worker_channel *channel, const struct owed_output *owed)
{
    struct fsm_answer answer;
    bool gone = false;

    if (!fsm_stored_output(worker->fsm, owed->session_id, owed->sequence_num, owed->number, &answer, &gone)) {
        answer_message(worker, channel, owed->position, STATUS_FORBIDDEN,
                       gone ? "the session ended, or gave the command up, before its answer was read"
                            : "the output was acknowledged before it was read");
        return true;
    }
    size_t size = partition_command_output_size(&answer.output);
    if (response_frame_bytes(size) > channel->channel.ring_bytes / 2) {
        answer_message(worker, channel, owed->position, STATUS_INVALID,
                       "the answer does not fit in half of the channel's response ring: ask for a larger ring");
        return true;
    }
    if (!answer_fits(worker, channel, size, MR_SMALL_FRAME))
        return false;
    put_output(worker, channel, owed->position, &answer, size);
    channel->held -= MR_SMALL_FRAME;
    return true;
}

bool answer_owed(struct worker *worker, struct worker_channel *channel)
{
    bool any = false;

    while (channel->owed_count > 0 && !channel->broken &&
           send_owed(worker, channel, &channel->owed[channel->owed_first])) {
        channel->owed_first++;
        if (--channel->owed_count == 0)
            channel->owed_first = 0;
        answer_touch(worker, channel);
        any = true;
    }
    if (channel->refusal && channel->in_flight == 0 && channel->owed_count == 0) {
        channel->refusal = false;
        answer_message(worker, channel, channel->refusal_position, channel->refusal_status, channel->refusal_text);
        answer_touch(worker, channel);
        any = true;
    }
    return any;
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
}
