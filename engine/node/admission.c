/* SPDX-License-Identifier: Apache-2.0 */
/* Requests in: from a channel's ring into the log's open batch, or refused.
 *
 * The frame's head is copied out once and only the copy is looked at; then the body is copied, once, to where it will
 * be persisted and applied, and everything is decided on that copy: the client can rewrite its ring at any moment. A
 * body that is refused is simply not appended; the next one takes its place.
 *
 * A request is taken only while its channel's answers have somewhere to go: it holds MR_SMALL_FRAME of the response
 * ring until its last frame, all together at most half of that ring, so that a large answer always finds room once the
 * client has read on. */
#include "engine/node/worker_state.h"
#include "ipc/planted.h"
#include "proto/reader.h"

#include <stdio.h>

enum taken {
    TAKEN,         /* read on */
    TAKEN_STUCK,   /* not before something else is done: a write, a refusal told, answers read by the client */
    TAKEN_STARVED, /* likewise: the log has no buffer */
    TAKEN_NOTHING  /* the ring is empty, or broken */
};

/* Not while another one is logged: hundreds of them in one turn would keep everybody waiting for seconds. (The index of
 * one whose write failed is given again, or is behind the log's last.) Nor, if it looks at what one before it has
 * looked at, before the worker has had time for others: one by one without a pause, they would leave the others a turn
 * between any two. */
static bool waits_for_walk(struct worker *worker, const struct worker_channel *channel, enum walk walk)
{
    if (walk == WALK_AGAIN) {
        const struct walk_share *share = &worker->walk_shares[channel->uid % WORKER_WALK_USERS];
        if (share->uid == channel->uid && share->from > worker->now) {
            if (share->from < worker->walk_waits)
                worker->walk_waits = share->from;
            return true;
        }
    }
    return worker->walk_index > fsm_index(worker->fsm) && worker->walk_index <= log_last_index(worker->log);
}

/* May one more request be taken? Else sets what is waited for. */
static enum taken room_for_one(struct worker *worker, struct worker_channel *channel)
{
    if (channel->refusal || channel->owed_count > 0)
        return TAKEN_STUCK;
    if (channel->walk != WALK_SHORT && waits_for_walk(worker, channel, channel->walk))
        return TAKEN_STUCK; /* without reading it anew each turn */
    channel->walk = WALK_SHORT;
    /* Where open commands alone hold all that may be held, waiting would be for ever: what could end them is still
     * taken, and the rest refused (take_command()). */
    channel->crowded = channel->held + MR_SMALL_FRAME > channel->channel.ring_bytes / 2;
    if (channel->crowded && channel->in_flight > 0)
        return TAKEN_STUCK;
    return answer_fits(worker, channel, MR_SMALL_FRAME - sizeof(struct response_head), 0) ? TAKEN : TAKEN_STUCK;
}

/* The request at the ring's head is stepped over: it holds its room from here on. */
static inline void take(struct worker_channel *channel, uint64_t frame_bytes)
{
    ring_skip(&channel->requests, frame_bytes);
    channel->held += MR_SMALL_FRAME;
}

/* A fault to plant: not the size that was checked. */
static uint32_t size_again(const uint8_t *body)
{
    struct request_head again;

    ring_copy(&again, body - sizeof(again), sizeof(again));
    return again.size;
}

static enum walk walk_of(const struct worker *worker, const struct command_input *command)
{
    uint64_t again;

    if (command->kind != COMMAND_KEEP_ALIVE || fsm_walk(worker->fsm, command, &again) <= MR_WALK_AT_ONCE)
        return WALK_SHORT;
    return again > MR_WALK_AT_ONCE ? WALK_AGAIN : WALK_LONG;
}

static enum taken take_command(struct worker *worker, struct worker_channel *channel, const struct request_head *head,
                               const uint8_t *body, uint64_t frame_bytes)
{
    uint64_t position = channel->requests.head;
    struct partition_command_input *input = read_once_place(&worker->read);
    char text[MR_MESSAGE_MAX];
    const char *message = "the bytes do not decode as a PartitionCommandInput";
    enum status status = STATUS_INVALID;
    uint8_t *room = log_reserve(worker->log, head->size);

    if (room == NULL) {
        const char *trouble = log_trouble(worker->log);
        if (trouble == NULL)
            return TAKEN_STARVED;
        take(channel, frame_bytes);
        answer_refuse(worker, channel, position, STATUS_UNAVAILABLE, trouble);
        return TAKEN;
    }
    ring_copy(room, body, PLANTED(LENGTH_READ_TWICE) ? size_again(body) : head->size);
    if (read_partition_command_input(PLANTED(CHECKED_BEFORE_COPIED) ? body : room, head->size, input) == READ_OK)
        status = fsm_check_command(worker->fsm, input, worker->partition, &message);
    /* What it ends may still be owed to the client: that is sent first. */
    if (status == STATUS_OK && input->command.kind == COMMAND_CLOSE_SESSION &&
        (channel->in_flight > 0 || channel->owed_count > 0))
        return TAKEN_STUCK;
    enum walk walk = status == STATUS_OK ? walk_of(worker, &input->command) : WALK_SHORT;
    if (walk != WALK_SHORT && waits_for_walk(worker, channel, walk)) {
        channel->walk = walk;
        return TAKEN_STUCK;
    }
    if (status == STATUS_OK && channel->crowded && !fsm_check_frees(worker->fsm, &input->command)) {
        status = STATUS_UNAVAILABLE;
        snprintf(text, sizeof(text), "the channel has %llu requests open, as many as rings of %llu bytes allow",
                 (unsigned long long)(channel->held / MR_SMALL_FRAME), (unsigned long long)channel->channel.ring_bytes);
        message = text;
    }
    if (status == STATUS_OK) {
        enum quota_verdict verdict =
            quota_judge(&worker->quota, worker->fsm, &input->command, channel->uid, worker->now, text, sizeof(text));
        if (verdict == QUOTA_WAIT)
            return TAKEN_STUCK;
        if (verdict == QUOTA_FULL) {
            status = STATUS_UNAVAILABLE;
            message = text;
        }
    }
    take(channel, frame_bytes);
    if (status != STATUS_OK) {
        answer_refuse(worker, channel, position, status, message);
        return TAKEN;
    }
    struct log_origin origin = {
        .channel = channel->channel_id, .position = position, .frame_size = (uint32_t)frame_bytes, .uid = channel->uid};
    uint64_t index = log_append(worker->log, worker->time, &origin, head->size);
    if (walk != WALK_SHORT) {
        worker->walk_index = index;
        worker->walk = walk;
    }
    worker->logged_time = worker->time;
    quota_logged(&worker->quota, worker->fsm, &input->command, channel->uid, head->size);
    read_once_keep(&worker->read);
    if (head->flags & REQUEST_SHARES)
        answer_will_share(channel, position);
    if (channel->in_flight++ == 0)
        channel->applied_to = position; /* what was read before it needed no log, or is applied */
    return TAKEN;
}

static enum taken take_query(struct worker *worker, struct worker_channel *channel, const struct request_head *head,
                             const uint8_t *body, uint64_t frame_bytes)
{
    uint64_t position = channel->requests.head;

    ring_copy(worker->query_body, body, head->size);
    take(channel, frame_bytes);
    query_take(worker, channel, position, head->time_limit, worker->query_body, head->size);
    return TAKEN;
}

static enum taken take_one(struct worker *worker, struct worker_channel *channel)
{
    const uint8_t *at = NULL;
    struct request_head head;
    char text[MR_MESSAGE_MAX];

    enum ring_result result = ring_peek(&channel->requests, sizeof(head), &at);
    if (result == RING_EMPTY)
        return TAKEN_NOTHING;
    if (result == RING_BROKEN) {
        channels_break(worker, channel, "the request ring's tail is where it cannot be");
        return TAKEN_NOTHING;
    }
    enum taken room = room_for_one(worker, channel);
    if (room != TAKEN)
        return room;
    ring_copy(&head, at, sizeof(head));
    uint64_t frame_bytes = request_frame_bytes(head.size);
    if (frame_bytes > channel->channel.ring_bytes || ring_peek(&channel->requests, frame_bytes, &at) != RING_OK) {
        channels_break(worker, channel, "a request frame is longer than what was published of it");
        return TAKEN_NOTHING;
    }
    at += sizeof(head);
    uint64_t position = channel->requests.head;
    atomic_store_explicit(&worker->region->reading_position, position, memory_order_relaxed);
    atomic_store_explicit(&worker->region->reading_channel, channel->channel_id, memory_order_relaxed);

    enum taken taken = TAKEN;
    if (worker->stopped != NULL) {
        take(channel, frame_bytes);
        answer_refuse(worker, channel, position, STATUS_INTERNAL, worker->stopped);
    } else if (head.size > channel->max_payload) {
        take(channel, frame_bytes);
        snprintf(
            text, sizeof(text),
            "a body of %u bytes is over this channel's limit of %llu (--max-payload, at most a quarter of its ring)",
            head.size, (unsigned long long)channel->max_payload);
        answer_refuse(worker, channel, position, STATUS_INVALID, text);
    } else if (head.kind == FRAME_COMMAND) {
        taken = take_command(worker, channel, &head, at, frame_bytes);
    } else if (head.kind == FRAME_QUERY) {
        taken = take_query(worker, channel, &head, at, frame_bytes);
    } else {
        take(channel, frame_bytes);
        snprintf(text, sizeof(text), "a frame of kind %u: 1 is a command, 2 a query", head.kind);
        answer_refuse(worker, channel, position, STATUS_INVALID, text);
    }
    atomic_store_explicit(&worker->region->reading_channel, 0, memory_order_relaxed);
    return taken;
}

bool admission_scan(struct worker *worker, struct worker_channel *channel)
{
    uint64_t before = channel->requests.head;
    enum taken taken = TAKEN;

    read_once_rest(&worker->read);
    if (!channel->unfinished)
        channel->room_needed = 0;
    for (unsigned i = 0; i < MR_TURN_REQUESTS && channel->requests.head - before < MR_TURN_BYTES; i++) {
        taken = take_one(worker, channel);
        if (taken != TAKEN || channel->broken)
            break;
    }
    bool any = channel->requests.head != before;
    channel->starved = taken == TAKEN_STARVED && !any;
    channel->stuck = taken == TAKEN_STUCK || taken == TAKEN_STARVED;
    if (!any)
        return false;
    answer_touch(worker, channel);
    return true;
}
