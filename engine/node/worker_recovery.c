/* SPDX-License-Identifier: Apache-2.0 */
/* The beginning of a worker's life: the newest sound snapshot and the log behind it are read back into a new state, and
 * what a predecessor had not finished is finished.
 *
 * A snapshot that is damaged, or stands where the disk cannot be read, is told and passed over: the one before it and
 * more of the log give the same state. Where none is left the log has to begin at its beginning. What a snapshot
 * contains its predecessor had answered, so nothing of it concerns a channel.
 *
 * An entry names the channel and the position of the request that it came from. Whatever stands before a channel's head
 * has been answered; at or past it, the answer is written again as the entry is applied, behind the response tail that
 * the region names, and comes out as it did or would have. The requests behind the last one that the log has are then
 * read from the ring as if they had just come. None of this is published before the new epoch is durable, because until
 * then the log that it was read from could still be another. */
#include "engine/node/worker_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the log ---- */

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

/* ---- the snapshot ---- */

/* The progress of both, as one. */
struct progress {
    void (*tell)(void *context, uint64_t done, uint64_t total);
    void *context;
    uint64_t before; /* bytes of the snapshot, when the log is read */
    uint64_t every;  /* about so many bytes of log are behind a snapshot; 0: who knows, as many as it has itself */
    bool log;        /* it is the log that is read */
};

static void progressed(void *context, uint64_t done, uint64_t total)
{
    const struct progress *progress = context;
    uint64_t behind = progress->log ? 0 : progress->every != 0 ? progress->every : total;

    if (progress->tell != NULL)
        progress->tell(progress->context, progress->before + done, progress->before + total + behind);
}

static struct mr_error *no_memory(struct mr_error *error)
{
    error_set(error, "no memory for the partition's state");
    error->code = ENOMEM; /* which another attempt may have */
    return error;
}

/* 1: *error says that the snapshot is unsound, or cannot be read where it stands; -1: that it could not just now. */
static int cannot_read(const struct mr_error *error)
{
    return error->code == 0 || io_unreadable(error->code) ? 1 : -1;
}

/* It is read while it is restored. 0: worker->fsm is what it says. 1: it is unsound, *error says why (with a
 * code: it cannot be read where it stands). -1 with *error: it could not be read just now. */
static int restore(struct worker *worker, const struct snapshot_place *place, struct snapshot *snapshot,
                   const struct fsm_config *state, struct progress *progress, struct mr_error *error)
{
    struct snapshot_content content;

    if (snapshot_load_begin(place, snapshot, &content, progressed, progress, error) != 0)
        return cannot_read(error);
    worker->fsm = fsm_create(state);
    if (worker->fsm == NULL) {
        snapshot_unload(&content);
        no_memory(error);
        return -1;
    }
    struct slice first = {.data = content.sections[0], .size = content.sizes[0]};
    struct slice second = {.data = content.sections[1], .size = content.sizes[1]};
    struct fsm_source source = {.need = snapshot_need, .passed = snapshot_forget, .context = &content};
    int result = fsm_restore_from(worker->fsm, first, second, &source, error);
    bool lost = content.lost;
    snapshot_unload(&content);
    if (result == 0 && fsm_index(worker->fsm) == snapshot->point.index && fsm_time(worker->fsm) == snapshot->point.time)
        return 0;
    struct mr_error what = *error;
    if (result == 0)
        error_set(error, "%s/%s holds a state of index %llu, not of the one that it is named after", place->path,
                  snapshot->name, (unsigned long long)fsm_index(worker->fsm));
    else if (!lost)
        error_set(error, "%s/%s: %.250s", place->path, snapshot->name, what.text);
    fsm_destroy(worker->fsm);
    worker->fsm = NULL;
    return lost ? cannot_read(error) : 1;
}

/* Newest first, until one is sound. 0: worker->fsm and *start are its, or worker->fsm is still NULL and *unsound says
 * what is wrong with the newest (empty: there is none), or the last one that cannot be read. -1 with *error. */
static int find_state(struct worker *worker, const struct snapshot_place *place, const struct fsm_config *state,
                      struct progress *progress, struct log_start *start, struct mr_error *unsound,
                      struct mr_error *error)
{
    struct snapshot_list list;
    char text[600];
    int result = snapshot_find(place, &list, error);

    for (unsigned i = 0; i < list.count && result == 0; i++) {
        struct snapshot *snapshot = &list.snapshots[i];
        if (worker->fsm != NULL) {
            /* Older than what is believed: it is not read, only kept, and the log behind it. */
            if (snapshot_peek(place, snapshot, error) == 0)
                snapshots_found(worker, snapshot);
            continue;
        }
        atomic_store_explicit(&worker->region->restoring_index, snapshot->point.index, memory_order_relaxed);
        int sound = restore(worker, place, snapshot, state, progress, error);
        atomic_store_explicit(&worker->region->restoring_index, 0, memory_order_relaxed);
        if (sound == 0) {
            snapshots_found(worker, snapshot);
            *start = (struct log_start){.index = snapshot->point.index, .segment = snapshot->point.segment};
            progress->before = snapshot->bytes;
        } else if (sound > 0) {
            snapshots_found_unsound(worker, snapshot);
            snprintf(text, sizeof(text), "passed over a snapshot that cannot be believed: %s", error->text);
            worker->notice(worker->notice_context, LOGLINE_WARNING, text);
            if (unsound->text[0] == '\0' || error->code != 0)
                *unsound = *error;
        } else {
            result = -1;
        }
    }
    snapshot_list_free(&list);
    progress->log = true;
    return result;
}

int worker_recover(struct worker *worker, const struct log_config *log, const struct snapshots_config *snapshots,
                   const struct fsm_config *state, struct log_recovery *found, struct mr_error *error)
{
    struct log_config config = *log;
    struct progress progress = {.tell = log->progress, .context = log->progress_context, .every = snapshots->every};
    struct log_start start = {0};
    struct mr_error unsound = {.code = 0};

    worker->query_body = malloc(worker->max_payload);
    worker->sink = (struct fsm_sink){.context = worker, .answer = answer_from_fsm, .share = answer_shared};
    snapshots_begin(worker, snapshots);
    int result = find_state(worker, &worker->snapshots.config.place, state, &progress, &start, &unsound, error);
    if (result == 0 && worker->fsm == NULL)
        worker->fsm = fsm_create(state);
    if (result == 0 && (worker->fsm == NULL || worker->query_body == NULL)) {
        no_memory(error);
        result = -1;
    }
    if (result == 0) {
        config.progress = progressed;
        config.progress_context = &progress;
        start.needed = snapshots_needed(worker);
        worker->replaying = true;
        result = log_open(&config, &start, replay, worker, found, &worker->log, error);
        worker->replaying = false;
        /* An old snapshot, behind which the log may be gone, was only tried because newer ones could not be had. What
         * cannot be read now may be another time. */
        bool none = start.segment == 0 || found->start_missing;
        if (result != 0 && error->code == 0 && unsound.text[0] != '\0' && (none || unsound.code != 0)) {
            struct mr_error what = *error;
            error_set(error, "%.170s; and %s: %.170s", what.text,
                      none ? "no snapshot can be believed" : "a newer snapshot cannot be read", unsound.text);
            error->code = unsound.code;
        }
    }
    if (result != 0) {
        forget_state(worker);
        worker->log = NULL;
        return -1;
    }
    snapshots_log_opened(worker, found->epoch);
    worker->now = worker->io->ops->monotonic(worker->io);
    worker->time = found->time > fsm_time(worker->fsm) ? found->time : fsm_time(worker->fsm);
    if (worker->time == 0)
        worker->time = worker->io->ops->wall(worker->io);
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
        struct channel_page *page = channel->channel.page;
        atomic_store_explicit(&page->begun_at, channel->requests.head, memory_order_release);
        atomic_fetch_add_explicit(&page->generation, 1, memory_order_seq_cst);
        answer_wake(worker, channel);
    }
}
