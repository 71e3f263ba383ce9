/* SPDX-License-Identifier: Apache-2.0 */
/* Queries. Most are answered the moment they are read, from applied state, which is durable state. One that waits, for
 * an index that is not applied yet or for room in its channel's response ring, is kept in a list of its channel, holds
 * up nothing behind it, and ends at its time limit. One with many outputs stands in that list too: a cursor gives them,
 * some each turn, as many as there is room for; once it has begun it has no time limit. */
#include "engine/node/worker_state.h"
#include "proto/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum outcome { OVER, WAITS_FOR_INDEX, WAITS_FOR_ROOM, HAS_MORE };

/* Beside what is held it would not fit in an empty ring. */
static bool never_fits(const struct worker_channel *channel, uint64_t lacks)
{
    return lacks + channel->held > channel->channel.ring_bytes;
}

/* Does one output fit? If it never will, the query ends with that. */
static enum outcome room_for(struct worker *worker, struct worker_channel *channel, struct waiting_query *query,
                             uint64_t size, bool last)
{
    uint64_t bytes = response_frame_bytes(size);

    if (bytes > channel->channel.ring_bytes / 2) {
        answer_too_large(worker, channel, query->position, bytes);
        return OVER;
    }
    uint64_t own = last ? MR_SMALL_FRAME : 0;
    query->needs = size;
    if (last && bytes <= MR_SMALL_FRAME)
        return HAS_MORE;
    /* What has no time limit could wait for ever. */
    if (query->cursor != NULL && never_fits(channel, bytes - own)) {
        char text[MR_MESSAGE_MAX];
        snprintf(text, sizeof(text),
                 "open requests hold %llu of the channel's ring of %llu bytes, the next entry takes %llu: end some, or "
                 "ask for a larger ring",
                 (unsigned long long)channel->held, (unsigned long long)channel->channel.ring_bytes,
                 (unsigned long long)bytes);
        answer_message(worker, channel, query->position, STATUS_UNAVAILABLE, text);
        return OVER;
    }
    if (answer_has_room(worker, channel, bytes - own))
        return HAS_MORE;
    query->lacks = bytes - own;
    return WAITS_FOR_ROOM;
}

/* Is it of no use to look at it again? Whose client does not read has many of them, perhaps for ever: to run each anew
 * in every turn would keep all others waiting. */
static bool lacks_room(struct worker *worker, struct worker_channel *channel, const struct waiting_query *waiting)
{
    if (waiting->lacks == 0 || (waiting->cursor != NULL && never_fits(channel, waiting->lacks)))
        return false;
    return !answer_has_room(worker, channel, waiting->lacks);
}

static enum outcome give_outputs(struct worker *worker, struct worker_channel *channel, struct waiting_query *query)
{
    uint64_t bytes = 0;

    /* Not before the request ring's head passes it: a successor would begin it again, at the same position. */
    if (channel->in_flight > 0 && channel->applied_to <= query->position)
        return HAS_MORE;
    for (unsigned i = 0; i < MR_TURN_OUTPUTS && bytes < MR_TURN_OUTPUT_BYTES; i++) {
        if (channel->responses.tail - channel->responses.published >= MR_TURN_CHANNEL_BYTES)
            return HAS_MORE;
        struct operation_output output;
        const char *message = "";
        bool last = false;
        enum status status = fsm_cursor_next(query->cursor, worker->time, &output, &last, &message);
        if (status != STATUS_OK) {
            answer_message(worker, channel, query->position, status, message);
            return OVER;
        }
        struct query_output_sizes sizes = query_output_sizes(&output);
        enum outcome room = room_for(worker, channel, query, sizes.whole, last);
        if (room != HAS_MORE)
            return room;
        answer_query(worker, channel, query->position, ++query->number, last, &output, &sizes);
        if (last || channel->broken)
            return OVER;
        fsm_cursor_taken(query->cursor);
        bytes += query->needs;
    }
    return HAS_MORE;
}

/* Goes on with a query as far as it can go now. */
static enum outcome go_on(struct worker *worker, struct worker_channel *channel, struct waiting_query *query,
                          const uint8_t *body)
{
    struct partition_query_input input;
    struct operation_output output;
    const char *message = "the bytes do not decode as a PartitionQueryInput";
    enum status status = STATUS_INVALID;

    query->lacks = 0;
    if (query->cursor != NULL)
        return give_outputs(worker, channel, query);
    if (read_partition_query_input(body, query->size, &input) == READ_OK)
        status = fsm_check_query(&input, worker->partition, &message);
    if (status == STATUS_OK) {
        query->index = input.max_received_index;
        if (query->index > fsm_index(worker->fsm))
            return WAITS_FOR_INDEX;
        status = fsm_query(worker->fsm, &input, channel->uid, worker->time, &output, &query->cursor, &message);
    }
    if (status != STATUS_OK) {
        answer_message(worker, channel, query->position, status, message);
        return OVER;
    }
    if (query->cursor != NULL)
        return give_outputs(worker, channel, query);
    struct query_output_sizes sizes = query_output_sizes(&output);
    enum outcome room = room_for(worker, channel, query, sizes.whole, true);
    if (room != HAS_MORE)
        return room;
    answer_query(worker, channel, query->position, 0, true, &output, &sizes);
    return OVER;
}

/* What has to happen before it is worth looking at the waiting ones again. */
static void note(struct worker_channel *channel, const struct waiting_query *waiting)
{
    uint64_t index = waiting->needs != 0 ? 0 : waiting->index;

    if (waiting->cursor == NULL && waiting->deadline < channel->waiting_deadline)
        channel->waiting_deadline = waiting->deadline;
    if (waiting->lacks != 0) {
        if (waiting->lacks < channel->waiting_room)
            channel->waiting_room = waiting->lacks;
        if (waiting->cursor != NULL && waiting->lacks > channel->walks_room)
            channel->walks_room = waiting->lacks;
    } else if (index < channel->waiting_index) {
        channel->waiting_index = index;
    }
}

static void begin_noting(struct worker_channel *channel)
{
    channel->waiting_deadline = channel->waiting_index = channel->waiting_room = UINT64_MAX;
    channel->walks_room = 0;
}

static void keep(struct worker *worker, struct worker_channel *channel, struct waiting_query *waiting)
{
    if (channel->waiting_count++ == 0)
        begin_noting(channel);
    channel->waiting_bytes += sizeof(*waiting) + waiting->size;
    note(channel, waiting);
    *channel->waiting_end = waiting;
    channel->waiting_end = &waiting->next;
    channels_leave(worker, channel);
}

/* They hold room in the response ring, of which most is for commands. */
static unsigned most_waiting(const struct worker_channel *channel)
{
    uint64_t by_room = channel->channel.ring_bytes / 8 / MR_SMALL_FRAME;
    return by_room < MR_WAITING_QUERIES_MAX ? (unsigned)by_room : MR_WAITING_QUERIES_MAX;
}

static bool is_full(const struct worker_channel *channel, uint32_t size)
{
    return channel->waiting_count >= most_waiting(channel) ||
           channel->waiting_bytes + sizeof(struct waiting_query) + size > channel->channel.ring_bytes;
}

void query_take(struct worker *worker, struct worker_channel *channel, uint64_t position, uint64_t time_limit,
                const uint8_t *body, uint32_t size)
{
    struct waiting_query query = {.position = position, .size = size};
    char text[MR_MESSAGE_MAX];

    if (go_on(worker, channel, &query, body) == OVER) {
        fsm_cursor_close(query.cursor);
        return;
    }
    if (query.cursor == NULL && is_full(channel, size)) {
        snprintf(text, sizeof(text),
                 "a channel with rings of %llu bytes may have %u queries that wait, of as many bytes",
                 (unsigned long long)channel->channel.ring_bytes, most_waiting(channel));
        answer_message(worker, channel, position, STATUS_UNAVAILABLE, text);
        return;
    }
    if (query.cursor != NULL)
        query.size = 0; /* once it has begun its bytes are not looked at any more */
    struct waiting_query *waiting = malloc(sizeof(*waiting) + query.size);
    if (waiting == NULL) {
        fsm_cursor_close(query.cursor);
        answer_message(worker, channel, position, STATUS_UNAVAILABLE, "no memory for a query that has to wait");
        return;
    }
    if (time_limit == 0)
        time_limit = MR_QUERY_TIME_LIMIT_DEFAULT;
    else if (time_limit > MR_QUERY_TIME_LIMIT_MAX)
        time_limit = MR_QUERY_TIME_LIMIT_MAX;
    query.deadline = worker->now + time_limit;
    *waiting = query;
    memcpy(waiting->body, body, query.size);
    keep(worker, channel, waiting);
}

/* True if it is over, one way or the other. */
static bool look_at(struct worker *worker, struct worker_channel *channel, struct waiting_query *waiting)
{
    if (waiting->index <= fsm_index(worker->fsm) && !lacks_room(worker, channel, waiting)) {
        enum outcome outcome = go_on(worker, channel, waiting, waiting->body);
        if (outcome == OVER)
            return true;
    }
    if (waiting->cursor != NULL || waiting->deadline > worker->now)
        return false;
    answer_message(worker, channel, waiting->position, STATUS_TIMEOUT,
                   waiting->needs != 0 ? "the time limit passed before there was room for the answer"
                                       : "the time limit passed before max_received_index was applied");
    return true;
}

/* Can one of them go on, or is one's time over? */
static bool is_worth_a_look(struct worker *worker, struct worker_channel *channel)
{
    return channel->waiting_index <= fsm_index(worker->fsm) || channel->waiting_deadline <= worker->now ||
           (channel->walks_room != 0 && never_fits(channel, channel->walks_room)) ||
           (channel->waiting_room != UINT64_MAX && answer_has_room(worker, channel, channel->waiting_room));
}

bool query_look(struct worker *worker, struct worker_channel *channel)
{
    uint64_t before = channel->responses.tail;

    if (channel->waiting_count == 0 || !is_worth_a_look(worker, channel))
        return false;
    begin_noting(channel);
    channel->waiting_end = &channel->waiting;
    for (struct waiting_query *waiting = channel->waiting, *next; waiting != NULL; waiting = next) {
        next = waiting->next;
        if (!channel->broken && look_at(worker, channel, waiting)) {
            *channel->waiting_end = next;
            channel->waiting_count--;
            channel->waiting_bytes -= sizeof(*waiting) + waiting->size;
            fsm_cursor_close(waiting->cursor);
            free(waiting);
        } else {
            note(channel, waiting);
            channel->waiting_end = &waiting->next;
        }
    }
    return channel->responses.tail != before;
}

void query_drop_all(struct worker_channel *channel)
{
    for (struct waiting_query *waiting = channel->waiting, *next; waiting != NULL; waiting = next) {
        next = waiting->next;
        fsm_cursor_close(waiting->cursor);
        free(waiting);
    }
    channel->waiting = NULL;
    channel->waiting_end = &channel->waiting;
    channel->waiting_count = 0;
    channel->waiting_bytes = 0;
}
