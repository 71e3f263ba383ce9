/* SPDX-License-Identifier: Apache-2.0 */
/* Queries. Most are answered the moment they are read, from applied state, which is durable state. One that waits, for
 * an index that is not applied yet or for room in its channel's response ring, is kept in a list of its channel, holds
 * up nothing behind it, and ends at its time limit. */
#include "engine/node/worker_state.h"
#include "proto/reader.h"
#include "proto/writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum outcome { ANSWERED, WAITS_FOR_INDEX, WAITS_FOR_ROOM };

static enum outcome try(struct worker *worker, struct worker_channel *channel, uint64_t position, const uint8_t *body,
                        uint32_t size, uint64_t *index, uint64_t *needs)
{
    struct partition_query_input query;
    struct operation_output output;
    const char *message = "the bytes do not decode as a PartitionQueryInput";
    enum status status = STATUS_INVALID;

    if (read_partition_query_input(body, size, &query) == READ_OK)
        status = fsm_check_query(&query, worker->partition, &message);
    if (status == STATUS_OK) {
        *index = query.max_received_index;
        if (*index > fsm_index(worker->fsm))
            return WAITS_FOR_INDEX;
        status = fsm_query(worker->fsm, &query, channel->uid, worker->time, &output, &message);
    }
    if (status != STATUS_OK) {
        answer_message(worker, channel, position, status, message);
        return ANSWERED;
    }
    *needs = partition_query_output_size(&output);
    if (response_frame_bytes(*needs) > channel->channel.ring_bytes / 2) {
        answer_message(worker, channel, position, STATUS_INVALID,
                       "the answer does not fit in half of the channel's response ring: ask for a larger ring");
        return ANSWERED;
    }
    if (response_frame_bytes(*needs) > MR_SMALL_FRAME && !answer_fits(worker, channel, *needs, MR_SMALL_FRAME))
        return WAITS_FOR_ROOM;
    answer_query(worker, channel, position, &output);
    return ANSWERED;
}

/* What has to happen before it is worth looking at the waiting ones again. */
static void note(struct worker_channel *channel, const struct waiting_query *waiting)
{
    uint64_t index = waiting->needs != 0 ? 0 : waiting->index;

    if (waiting->deadline < channel->waiting_deadline)
        channel->waiting_deadline = waiting->deadline;
    if (index < channel->waiting_index)
        channel->waiting_index = index;
}

static void keep(struct worker *worker, struct worker_channel *channel, struct waiting_query *waiting)
{
    if (channel->waiting_count++ == 0)
        channel->waiting_deadline = channel->waiting_index = UINT64_MAX;
    channel->waiting_bytes += sizeof(*waiting) + waiting->size;
    note(channel, waiting);
    *channel->waiting_end = waiting;
    channel->waiting_end = &waiting->next;
    channels_leave(worker, channel);
}

void query_take(struct worker *worker, struct worker_channel *channel, uint64_t position, uint64_t time_limit,
                const uint8_t *body, uint32_t size)
{
    uint64_t index = 0, needs = 0;
    enum outcome outcome = try(worker, channel, position, body, size, &index, &needs);
    if (outcome == ANSWERED)
        return;
    struct waiting_query *waiting = malloc(sizeof(*waiting) + size);
    if (waiting == NULL) {
        answer_message(worker, channel, position, STATUS_UNAVAILABLE, "no memory for a query that has to wait");
        return;
    }
    if (time_limit == 0)
        time_limit = MR_QUERY_TIME_LIMIT_DEFAULT;
    else if (time_limit > MR_QUERY_TIME_LIMIT_MAX)
        time_limit = MR_QUERY_TIME_LIMIT_MAX;
    *waiting = (struct waiting_query){.position = position,
                                      .deadline = worker->now + time_limit,
                                      .index = index,
                                      .needs = outcome == WAITS_FOR_ROOM ? needs : 0,
                                      .size = size};
    memcpy(waiting->body, body, size);
    keep(worker, channel, waiting);
}

/* True if it is answered, one way or the other. */
static bool look_at(struct worker *worker, struct worker_channel *channel, struct waiting_query *waiting)
{
    uint64_t needs = waiting->needs;

    if (waiting->index <= fsm_index(worker->fsm) &&
        (needs == 0 || answer_fits(worker, channel, needs, MR_SMALL_FRAME))) {
        enum outcome outcome =
            try(worker, channel, waiting->position, waiting->body, waiting->size, &waiting->index, &needs);
        if (outcome == ANSWERED)
            return true;
        waiting->needs = outcome == WAITS_FOR_ROOM ? needs : 0;
    }
    if (waiting->deadline > worker->now)
        return false;
    answer_message(worker, channel, waiting->position, STATUS_TIMEOUT,
                   waiting->needs != 0 ? "the time limit passed before there was room for the answer"
                                       : "the time limit passed before max_received_index was applied");
    return true;
}

bool query_look(struct worker *worker, struct worker_channel *channel)
{
    bool any = false;

    if (channel->waiting_count == 0 ||
        (channel->waiting_index > fsm_index(worker->fsm) && channel->waiting_deadline > worker->now))
        return false;
    channel->waiting_deadline = channel->waiting_index = UINT64_MAX;
    channel->waiting_end = &channel->waiting;
    for (struct waiting_query *waiting = channel->waiting, *next; waiting != NULL; waiting = next) {
        next = waiting->next;
        if (!channel->broken && look_at(worker, channel, waiting)) {
            *channel->waiting_end = next;
            channel->waiting_count--;
            channel->waiting_bytes -= sizeof(*waiting) + waiting->size;
            free(waiting);
            answer_touch(worker, channel);
            any = true;
        } else {
            note(channel, waiting);
            channel->waiting_end = &waiting->next;
        }
    }
    return any;
}

void query_drop_all(struct worker_channel *channel)
{
    for (struct waiting_query *waiting = channel->waiting, *next; waiting != NULL; waiting = next) {
        next = waiting->next;
        free(waiting);
    }
    channel->waiting = NULL;
    channel->waiting_end = &channel->waiting;
    channel->waiting_count = 0;
    channel->waiting_bytes = 0;
}
