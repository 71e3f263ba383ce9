/* SPDX-License-Identifier: Apache-2.0 */
/* The beginning of a worker's life: the log is read back into a new state, and what a predecessor had not finished is
 * finished.
 *
 * An entry names the channel and the position of the request that it came from. Whatever stands before a channel's head
 * has been answered; at or past it, the answer is written again as the entry is applied, behind the response tail that
 * the region names, and comes out as it did or would have. The requests behind the last one that the log has are then
 * read from the ring as if they had just come. None of this is published before the new epoch is durable, because until
 * then the log that it was read from could still be another. */
#include "engine/node/worker_state.h"

#include <stdlib.h>

static int replay(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct worker *worker = context;
    struct worker_channel *channel = entry->origin.channel != 0 ? channels_find(worker, entry->origin.channel) : NULL;
    uint64_t end = entry->origin.position + entry->origin.frame_size;

    /* It holds its room again, as it did at the predecessor's, until its last frame. */
    if (channel != NULL && entry->origin.position >= channel->answered_from)
        channel->held += MR_SMALL_FRAME;
    if (turn_apply(worker, entry, error) != 0)
        return -1;
    if (channel == NULL)
        return 0;
    attach_note(worker, channel, worker->applied_session);
    if (end > channel->applied_to)
        channel->applied_to = end;
    return 0;
}

/* A log that cannot be believed to its end has answered nothing: its channels stand where they stood. */
static void forget_state(struct worker *worker)
{
    for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++) {
        struct worker_channel *channel = &worker->channels[slot];
        if (!channel->used)
            continue;
        channel->responses.tail = channel->responses.published;
        channel->applied_to = channel->requests.head;
        channel->owed_count = channel->ended_count = 0;
        channel->held = 0;
        channel->unfinished = false;
    }
    worker->unfinished_count = 0;
    if (worker->fsm != NULL)
        fsm_destroy(worker->fsm);
    worker->fsm = NULL;
    free(worker->query_body);
    worker->query_body = NULL;
}

int worker_recover(struct worker *worker, const struct log_config *log, const struct fsm_config *state,
                   struct log_recovery *found, struct mr_error *error)
{
    worker->fsm = fsm_create(state);
    worker->query_body = malloc(worker->max_payload);
    worker->sink = (struct fsm_sink){.context = worker, .answer = answer_from_fsm};
    if (worker->fsm == NULL || worker->query_body == NULL) {
        forget_state(worker);
        return error_set(error, "no memory for the partition's state");
    }
    worker->replaying = true;
    int result = log_open(log, &(struct log_start){0}, replay, worker, found, &worker->log, error);
    worker->replaying = false;
    if (result != 0) {
        forget_state(worker);
        worker->log = NULL;
        return -1;
    }
    worker->now = worker->io->ops->monotonic(worker->io);
    worker->time = found->time != 0 ? found->time : worker->io->ops->wall(worker->io);
    clock_start(&worker->clock, worker->time, worker->now);
    worker->logged_time = fsm_time(worker->fsm);
    worker->marked_at = worker->now;
    return 0;
}

/* What the log already has of this ring is not read again; that its tail got that far is known from the log. */
static void skip_logged(struct worker_channel *channel)
{
    if (channel->applied_to <= channel->requests.head)
        return;
    channel->requests.tail = channel->applied_to;
    ring_skip(&channel->requests, channel->applied_to - channel->requests.head);
}

void worker_resume_channels(struct worker *worker)
{
    for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++) {
        struct worker_channel *channel = &worker->channels[slot];
        if (!channel->used || channel->closing)
            continue;
        skip_logged(channel);
        answer_touch(worker, channel);
    }
    answer_publish(worker);
    for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++) {
        struct worker_channel *channel = &worker->channels[slot];
        if (!channel->used || channel->closing)
            continue;
        atomic_fetch_add_explicit(&channel->channel.page->generation, 1, memory_order_seq_cst);
        answer_wake(worker, channel);
    }
}
