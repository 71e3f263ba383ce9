/* SPDX-License-Identifier: Apache-2.0 */
/* Which channels a worker has, and which of them it scans. A channel is either scanned each turn or parked: its sleep
 * flag up, waiting for its watch to complete. Going to sleep is parking them all. A channel that has requests which
 * cannot be read just now is not parked but stays in the list: the write that it waits for ends the sleep anyway, and
 * for room in the response ring there is a flag of its own, which its client takes down (whether or not the channel is
 * parked). */
#include "engine/node/worker_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/planted.h"
#include "ipc/sys.h"

#define WAKES_FAILED_MOST 100           /* in a row; then its client is beyond reach */
#define ID_PLACES (4 * MR_CHANNELS_MAX) /* a power of two */

static uint32_t place_of(uint64_t channel_id)
{
    return (uint32_t)((channel_id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (ID_PLACES - 1);
}

int channels_init(struct worker *worker, struct mr_error *error)
{
    worker->channels = calloc(MR_CHANNELS_MAX, sizeof(*worker->channels));
    worker->scanned = calloc(MR_CHANNELS_MAX, sizeof(*worker->scanned));
    worker->touched = calloc(MR_CHANNELS_MAX, sizeof(*worker->touched));
    worker->by_id = calloc(ID_PLACES, sizeof(*worker->by_id));
    worker->unfinished = calloc(MR_CHANNELS_MAX, sizeof(*worker->unfinished));
    worker->bells.waiting = calloc(MR_CHANNELS_MAX, sizeof(*worker->bells.waiting));
    worker->read.places = calloc(READ_ONCE_PLACES, sizeof(*worker->read.places));
    if (worker->channels == NULL || worker->scanned == NULL || worker->touched == NULL || worker->by_id == NULL ||
        worker->unfinished == NULL || worker->bells.waiting == NULL || worker->read.places == NULL)
        return error_set(error, "no memory for the table of %d channels", MR_CHANNELS_MAX);
    return 0;
}

static void forget(struct worker_channel *channel)
{
    query_drop_all(channel);
    free(channel->owed);
    free(channel->ended);
    channel->owed = NULL;
    channel->ended = NULL;
    free(channel->sharing);
    channel->sharing = NULL;
    channel->sharing_first = channel->sharing_count = channel->sharing_capacity = 0;
    channel->ended_count = channel->ended_capacity = 0;
    channel->owed_first = channel->owed_count = channel->owed_capacity = 0;
}

void channels_free(struct worker *worker)
{
    for (uint32_t slot = 0; worker->channels != NULL && slot < MR_CHANNELS_MAX; slot++)
        if (worker->channels[slot].used)
            forget(&worker->channels[slot]);
    free(worker->channels);
    free(worker->scanned);
    free(worker->touched);
    free(worker->unfinished);
    free(worker->bells.waiting);
    free(worker->by_id);
    free(worker->read.places);
    attach_free(worker);
    snapshots_free(worker);
}

static void id_insert(struct worker *worker, uint64_t channel_id, uint32_t slot)
{
    uint32_t place = place_of(channel_id);
    while (worker->by_id[place] != 0)
        place = (place + 1) & (ID_PLACES - 1);
    worker->by_id[place] = slot + 1;
}

/* Open addressing without tombstones: what stands behind the gap moves up. */
static void id_remove(struct worker *worker, uint64_t channel_id)
{
    uint32_t place = place_of(channel_id);
    while (worker->by_id[place] != 0 && worker->channels[worker->by_id[place] - 1].channel_id != channel_id)
        place = (place + 1) & (ID_PLACES - 1);
    if (worker->by_id[place] == 0)
        return;
    worker->found[channel_id % CHANNELS_FOUND] = NULL;
    worker->by_id[place] = 0;
    for (uint32_t next = (place + 1) & (ID_PLACES - 1); worker->by_id[next] != 0; next = (next + 1) & (ID_PLACES - 1)) {
        uint32_t moved = worker->by_id[next];
        worker->by_id[next] = 0;
        id_insert(worker, worker->channels[moved - 1].channel_id, moved - 1);
    }
}

struct worker_channel *channels_find_other(struct worker *worker, uint64_t channel_id)
{
    for (uint32_t place = place_of(channel_id); worker->by_id[place] != 0; place = (place + 1) & (ID_PLACES - 1)) {
        struct worker_channel *channel = &worker->channels[worker->by_id[place] - 1];
        if (channel->channel_id == channel_id)
            return worker->found[channel_id % CHANNELS_FOUND] = channel;
    }
    return NULL;
}

static void watch(struct worker *worker, struct worker_channel *channel)
{
    channel->watched = true;
    worker->io->ops->watch(worker->io, channel->channel.node_wake_fd,
                           worker_token(TOKEN_WATCH, channel->slot, channel->channel_id));
}

void channels_add(struct worker *worker, uint32_t slot, const struct channel *mapped)
{
    struct worker_channel *channel = &worker->channels[slot];
    struct region_channel *region = &worker->region->channels[slot];
    struct cursor_pair pair = region->pair[atomic_load_explicit(&region->current, memory_order_acquire) & 1];
    uint64_t ring_bytes = mapped->ring_bytes;

    mr_assert(!channel->used);
    *channel = (struct worker_channel){.used = true,
                                       .slot = slot,
                                       .uid = region->uid,
                                       .channel_id = region->channel_id,
                                       .quiet_since = worker->now,
                                       .channel = *mapped,
                                       .region = region,
                                       .answered_from = pair.request_head,
                                       .applied_to = pair.request_head};
    channel->max_payload = worker->max_payload < ring_bytes / 4 ? worker->max_payload : ring_bytes / 4;
    channel->waiting_end = &channel->waiting;
    ring_reader_attach(&channel->requests, mapped->request_data, ring_bytes, &mapped->page->request, pair.request_head,
                       pair.request_head);
    /* Where the client has read to is its own word, believed only within what can be: at first the lowest that can. */
    uint64_t lowest = pair.response_tail > ring_bytes ? pair.response_tail - ring_bytes : 0;
    ring_writer_attach(&channel->responses, mapped->response_data, ring_bytes, &mapped->page->response,
                       pair.response_tail, lowest);
    ring_awake(&channel->requests);
    attach_take_over(channel);
    /* Only a matter of the time that a fork takes: the child that writes a snapshot looks into no ring. */
    (void)channel_dont_fork(&channel->channel, NULL);
    id_insert(worker, channel->channel_id, slot);
    worker->scanned[worker->scanned_count++] = slot;
    if (!worker->recovering)
        watch(worker, channel);
}

void channels_watch_all(struct worker *worker)
{
    worker->recovering = false;
    for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++)
        if (worker->channels[slot].used && !worker->channels[slot].watched)
            watch(worker, &worker->channels[slot]);
}

void channels_break(struct worker *worker, struct worker_channel *channel, const char *why)
{
    if (channel->broken)
        return;
    channel->broken = true;
    channels_scan_again(worker, channel); /* those that are scanned are looked at when the turn ends */
    snprintf(channel->why, sizeof(channel->why), "%s", why);
}

/* Takes a slot out of one of the lists, if it stands there. */
static void take_out(uint32_t *list, unsigned *count, uint32_t slot)
{
    for (unsigned i = 0; i < *count; i++)
        if (list[i] == slot) {
            list[i] = list[--*count];
            return;
        }
}

/* A descriptor may not be closed before its operations are over, or while its client is still to be woken. */
static void free_if_over(struct worker *worker, struct worker_channel *channel)
{
    char why[sizeof(channel->why)];
    uint64_t channel_id = channel->channel_id;
    uint32_t slot = channel->slot;

    if (!channel->closing || channel->watched || channel->wake_started || channel->wake_waits)
        return;
    memcpy(why, channel->why, sizeof(why));
    sys_close(channel->channel.client_wake_fd);
    if (PLANTED(MAPPING_LEFT))
        channel->channel.page = NULL;
    channel_unmap(&channel->channel);
    memset(channel, 0, sizeof(*channel));
    worker->closed(worker->closed_context, slot, channel_id, why);
}

void channels_close(struct worker *worker, struct worker_channel *channel, const char *why)
{
    if (channel->closing)
        return;
    channel->closing = true;
    snprintf(channel->channel.page->why, sizeof(channel->channel.page->why), "%s", why);
    atomic_store_explicit(&channel->channel.page->state, CHANNEL_CLOSED, memory_order_release);
    take_out(worker->scanned, &worker->scanned_count, channel->slot);
    take_out(worker->touched, &worker->touched_count, channel->slot);
    take_out(worker->unfinished, &worker->unfinished_count, channel->slot);
    id_remove(worker, channel->channel_id);
    forget(channel);
    answer_wake(worker, channel);
    bells_forget_closed(worker, channel);
    if (channel->watched)
        worker->io->ops->unwatch(worker->io, worker_token(TOKEN_WATCH, channel->slot, channel->channel_id));
    else
        channels_watch_ended(worker, channel);
}

void channels_watch_ended(struct worker *worker, struct worker_channel *channel)
{
    channel->watched = false;
    /* Nobody but the node has the eventfd; were it full and blocking, the wake-up would never end by itself. */
    if (channel->closing && channel->wake_started)
        worker->io->ops->unwake(worker->io, worker_token(TOKEN_WAKE, channel->slot, channel->channel_id));
    free_if_over(worker, channel);
}

void channels_wake_ended(struct worker *worker, struct worker_channel *channel, int32_t result)
{
    channel->wake_started = false;
    if (result >= 0) {
        channel->wakes_failed = 0;
    } else if (!channel->closing && ++channel->wakes_failed < WAKES_FAILED_MOST) {
        channel->wake_again = true; /* it may be asleep, and nothing else would tell it */
    } else if (!channel->closing) {
        channels_break(worker, channel, "its client cannot be woken");
    }
    if (channel->wake_again && (!channel->closing || result >= 0)) { /* it may have slept again before it was closed */
        channel->wake_again = false;
        answer_wake(worker, channel);
    }
    free_if_over(worker, channel);
}

void channels_scan_again(struct worker *worker, struct worker_channel *channel)
{
    if (!channel->parked || channel->closing)
        return;
    channel->parked = false;
    channel->quiet_since = worker->now;
    ring_awake(&channel->requests);
    worker->scanned[worker->scanned_count++] = channel->slot;
}

bool channels_park(struct worker *worker, struct worker_channel *channel)
{
    if (!ring_sleep(&channel->requests))
        return false;
    channel->parked = true;
    take_out(worker->scanned, &worker->scanned_count, channel->slot);
    return true;
}

/* Its client is to wake us when it has read. False: there is room already. */
static bool sleeps_for_room(struct worker_channel *channel)
{
    return channel->room_needed == 0 || ring_writer_sleep(&channel->responses, channel->room_needed);
}

bool channels_park_all(struct worker *worker)
{
    for (unsigned i = 0; i < worker->unfinished_count; i++)
        if (!sleeps_for_room(&worker->channels[worker->unfinished[i]]))
            return false;
    for (unsigned i = worker->scanned_count; i-- > 0;) {
        struct worker_channel *channel = &worker->channels[worker->scanned[i]];
        if (!sleeps_for_room(channel) || (!channel->stuck && !channels_park(worker, channel)))
            return false;
    }
    return true;
}

void channels_leave(struct worker *worker, struct worker_channel *channel)
{
    if (channel->unfinished)
        return;
    channel->unfinished = true;
    worker->unfinished[worker->unfinished_count++] = channel->slot;
}

bool channels_finish(struct worker *worker)
{
    bool any = false;

    for (unsigned i = worker->unfinished_count; i-- > 0;) {
        struct worker_channel *channel = &worker->channels[worker->unfinished[i]];
        channel->room_needed = 0;
        any |= answer_owed(worker, channel);
        any |= query_look(worker, channel);
        if (channel->waiting_count == 0 && channel->owed_count == 0 && !channel->refusal) {
            channel->unfinished = false;
            worker->unfinished[i] = worker->unfinished[--worker->unfinished_count];
        }
    }
    return any;
}
