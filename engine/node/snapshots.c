/* SPDX-License-Identifier: Apache-2.0 */
/* When snapshots are taken, by whom, and what follows: see snapshots.h. */
#include "engine/node/snapshots.h"

#include "engine/fsm/memory.h"
#include "engine/node/worker_state.h"
#include "millrace/v1/control.pb-c.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_EVERY_BYTES (8 * MR_MIB)
#define BUSY_EVERY MR_SECOND

/* ---- writing one, in a child or not ---- */

/* A snapshot on its way to where it is kept. */
struct writing {
    struct snapshot_writer *writer;
    struct io *io;
    _Atomic uint64_t *progress; /* NULL: nobody looks */
    void (*busy)(void *context, uint64_t bytes);
    void *context;
    uint64_t bytes, told_bytes, told_at;
};

static void write_piece(void *context, const void *data, size_t size)
{
    struct writing *writing = context;

    snapshot_write(writing->writer, data, size);
    writing->bytes += size;
    if (writing->progress != NULL)
        atomic_store_explicit(writing->progress, writing->bytes, memory_order_relaxed);
    if (writing->busy == NULL || writing->bytes - writing->told_bytes < BUSY_EVERY_BYTES)
        return;
    writing->told_bytes = writing->bytes;
    uint64_t now = writing->io->ops->monotonic(writing->io);
    if (now - writing->told_at < BUSY_EVERY)
        return;
    writing->told_at = now;
    writing->busy(writing->context, writing->bytes);
}

/* What could not be believed may not count as one of the two that are kept. */
static int remove_unsound(const struct snapshots *snapshots, struct io *io, struct mr_error *error)
{
    const struct snapshot_place *place = &snapshots->config.place;

    if (snapshots->unsound == NULL || place->memory != NULL)
        return 0;
    int directory = io->ops->open_directory(io, place->path);
    if (directory < 0)
        return error_system(error, -directory, "cannot open %s", place->path);
    int result = 0;
    for (const struct unsound_snapshot *one = snapshots->unsound; one != NULL && result == 0; one = one->next) {
        int removed = io->ops->remove(io, directory, one->name);
        if (removed != 0 && removed != -ENOENT)
            result = error_system(error, -removed, "cannot remove the damaged %s/%s", place->path, one->name);
    }
    io->ops->close(io, directory);
    return result;
}

/* The last thing before it counts. */
static int make_ready(void *context, struct io *io, struct mr_error *error)
{
    struct worker *worker = context;

    if (worker->log != NULL && log_flush_now(worker->log, io, error) != 0)
        return -1;
    return remove_unsound(&worker->snapshots, io, error);
}

/* The state as it is in this process's memory. */
static int write_state(struct worker *worker, struct writing *writing, const struct snapshot_point *point,
                       uint64_t *bytes, struct mr_error *error)
{
    struct snapshot_place place = worker->snapshots.config.place;

    place.io = writing->io;
    writing->writer = snapshot_begin(&place, point, worker->snapshots.epoch, error);
    if (writing->writer == NULL)
        return -1;
    fsm_write_snapshot(worker->fsm, write_piece, writing);
    snapshot_next_section(writing->writer);
    fsm_write_extra(worker->fsm, write_piece, writing);
    if (writing->busy != NULL)
        writing->busy(writing->context, writing->bytes); /* what follows is the sync, which may last */
    return snapshot_commit(writing->writer, make_ready, worker, bytes, error);
}

/* In the child. What it has to say stands in the region, which the worker sees. */
static int child_job(void *context, struct io *io)
{
    struct worker *worker = context;
    struct region *region = worker->region;
    struct writing writing = {.io = io, .progress = &region->child_progress};
    struct mr_error error = {.code = 0};

    if (write_state(worker, &writing, &worker->snapshots.point, &region->child_bytes, &error) == 0)
        return 0;
    snprintf(region->child_error, sizeof(region->child_error), "%s", error.text);
    return 1;
}

/* ---- what is known ---- */

static void show(struct worker *worker)
{
    const struct snapshots *snapshots = &worker->snapshots;
    struct region *region = worker->region;
    struct known_snapshot newest =
        snapshots->known_count > 0 ? snapshots->known[0] : (struct known_snapshot){.bytes = 0};

    atomic_store_explicit(&region->snapshot_bytes, newest.bytes, memory_order_relaxed);
    atomic_store_explicit(&region->snapshot_time, newest.point.time, memory_order_relaxed);
    atomic_store_explicit(&region->snapshot_index, newest.point.index, memory_order_relaxed);
}

/* With one, all of the log is kept: if that one should turn out to be damaged, there is still the beginning. */
uint64_t snapshots_needed(const struct worker *worker)
{
    const struct snapshots *snapshots = &worker->snapshots;

    return snapshots->known_count == SNAPSHOTS_KEPT ? snapshots->known[SNAPSHOTS_KEPT - 1].point.segment : 0;
}

/* The log may forget what the known ones make superfluous, and have the room that they leave it. */
static void tell_log(struct worker *worker)
{
    const struct snapshots *snapshots = &worker->snapshots;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < snapshots->known_count; i++)
        bytes += snapshots->known[i].bytes;
    log_forget(worker->log, snapshots_needed(worker));
    log_limit(worker->log, snapshots->config.disk_limit, bytes);
    worker->quota.disk_limit = snapshots->config.disk_limit;
}

static void know_newest(struct worker *worker, const struct known_snapshot *newest)
{
    struct snapshots *snapshots = &worker->snapshots;

    memmove(snapshots->known + 1, snapshots->known, (SNAPSHOTS_KEPT - 1) * sizeof(*snapshots->known));
    snapshots->known[0] = *newest;
    if (snapshots->known_count < SNAPSHOTS_KEPT)
        snapshots->known_count++;
    show(worker);
}

static void drop_unsound(struct snapshots *snapshots)
{
    while (snapshots->unsound != NULL) {
        struct unsound_snapshot *next = snapshots->unsound->next;
        free(snapshots->unsound);
        snapshots->unsound = next;
    }
}

/* So much log is written between two: as much as the last one took, if that is more, so that a large state is not
 * written more often than the log is. But of what two such snapshots leave of a disk's limit, the log between them and
 * behind them takes half: the other half is for what comes while the next one is written. */
static uint64_t spacing(const struct snapshots *snapshots)
{
    uint64_t last = snapshots->known_count > 0 ? snapshots->known[0].bytes : 0;
    uint64_t half = snapshots->config.disk_limit / 2, left = half > last ? half - last : 0;

    if (snapshots->config.disk_limit != 0 && last > left / 2)
        last = left / 2;
    return last > snapshots->config.every ? last : snapshots->config.every;
}

static uint64_t due_after(const struct snapshots *snapshots, uint64_t grown)
{
    return snapshots->config.every != 0 ? grown + spacing(snapshots) : UINT64_MAX;
}

void snapshots_begin(struct worker *worker, const struct snapshots_config *config)
{
    worker->snapshots = (struct snapshots){.config = *config};
    worker->snapshots.due = due_after(&worker->snapshots, 0);
    show(worker);
}

void snapshots_found(struct worker *worker, const struct snapshot *snapshot)
{
    struct snapshots *snapshots = &worker->snapshots;

    if (snapshots->known_count == SNAPSHOTS_KEPT)
        return;
    snapshots->known[snapshots->known_count++] =
        (struct known_snapshot){.point = snapshot->point, .bytes = snapshot->bytes};
    snapshots->due = due_after(snapshots, 0);
    show(worker);
}

void snapshots_found_unsound(struct worker *worker, const struct snapshot *snapshot)
{
    const struct snapshot_place *place = &worker->snapshots.config.place;
    struct unsound_snapshot *one = memory_allocate(sizeof(*one));
    struct mr_error error;

    /* In memory the older of the two gives its room to the next one: that may not be the sound one. */
    if (place->memory != NULL && snapshot_set_aside(place, snapshot, &error) != 0)
        worker->notice(worker->notice_context, LOGLINE_WARNING, error.text);
    memcpy(one->name, snapshot->name, sizeof(one->name));
    one->next = worker->snapshots.unsound;
    worker->snapshots.unsound = one;
}

void snapshots_log_opened(struct worker *worker, uint64_t epoch)
{
    worker->snapshots.epoch = epoch;
    tell_log(worker);
}

/* ---- questions ---- */

void snapshots_ask(struct worker *worker, const struct snapshot_question *question)
{
    struct snapshots *snapshots = &worker->snapshots;

    if (worker->log == NULL)
        return;
    if (snapshots->question_count == snapshots->question_capacity) {
        unsigned capacity = snapshots->question_capacity == 0 ? 8 : 2 * snapshots->question_capacity;
        snapshots->questions = memory_resize(snapshots->questions, capacity * sizeof(*snapshots->questions));
        snapshots->question_capacity = capacity;
    }
    struct snapshot_question *taken = &snapshots->questions[snapshots->question_count++];
    *taken = *question;
    taken->index = fsm_index(worker->fsm);
}

static void answer_taken(struct worker *worker, const struct snapshot_question *question,
                         const struct known_snapshot *taken, uint64_t duration)
{
    Millrace__V1__SnapshotReport report = MILLRACE__V1__SNAPSHOT_REPORT__INIT;
    uint8_t bytes[64];
    struct worker_answer answer = {
        .number = question->number, .connection = question->connection, .status = STATUS_OK, .bytes = bytes};

    report.index = taken->point.index;
    report.bytes = taken->bytes;
    report.duration_ns = duration;
    mr_assert(protobuf_c_message_get_packed_size(&report.base) <= sizeof(bytes));
    answer.size = protobuf_c_message_pack(&report.base, bytes);
    worker->answered(worker->answered_context, &answer);
}

static void answer_failed(struct worker *worker, const struct snapshot_question *question, const char *why)
{
    struct worker_answer answer = {
        .number = question->number, .connection = question->connection, .status = STATUS_UNAVAILABLE};

    /* What is too long loses its beginning, which is a path: the reason stands at the end. */
    size_t size = strlen(why), room = sizeof(answer.text) - 1;
    if (size <= room)
        memcpy(answer.text, why, size + 1);
    else
        snprintf(answer.text, sizeof(answer.text), "...%s", why + size - (room - 3));
    worker->answered(worker->answered_context, &answer);
}

/* Answers those who asked for no more than what is in a snapshot at this index: `taken`, or else why there is none. */
static bool answer_up_to(struct worker *worker, uint64_t index, const struct known_snapshot *taken, uint64_t duration,
                         const char *why)
{
    struct snapshots *snapshots = &worker->snapshots;
    unsigned kept = 0, before = snapshots->question_count;

    for (unsigned i = 0; i < before; i++) {
        const struct snapshot_question *question = &snapshots->questions[i];
        if (question->index > index)
            snapshots->questions[kept++] = *question;
        else if (taken != NULL)
            answer_taken(worker, question, taken, duration);
        else
            answer_failed(worker, question, why);
    }
    snapshots->question_count = kept;
    return kept < before;
}

/* ---- taking them ---- */

static uint64_t newest_index(const struct snapshots *snapshots)
{
    return snapshots->known_count > 0 ? snapshots->known[0].point.index : 0;
}

/* The newest would be the older one then: is there log that only the present older one needs? If not, one in the last
 * segment lets the one after it make room. */
static bool would_make_room(const struct worker *worker)
{
    const struct snapshots *snapshots = &worker->snapshots;
    uint64_t first = snapshots_needed(worker);
    uint64_t newest = snapshots->known_count > 0 ? snapshots->known[0].point.segment : 0;

    return newest > (first > 0 ? first : 1) || newest < log_segment(worker->log);
}

/* By itself, before it is due. */
static bool may_come_early(const struct worker *worker)
{
    return worker->snapshots.config.every != 0 && fsm_index(worker->fsm) != newest_index(&worker->snapshots);
}

/* Past the limit only what frees something is logged: whether it has freed enough a snapshot says. So long after the
 * last one has begun it is time for another, if nothing else is. */
static uint64_t past_limit_due(const struct snapshots *snapshots)
{
    uint64_t pause = 10 * snapshots->took;

    return snapshots->began + (pause > MR_SNAPSHOT_PAUSE_FIRST ? pause : MR_SNAPSHOT_PAUSE_FIRST);
}

/* Time for the next one by itself? Before it is, if there is no room, and it would make some. */
static bool is_due(const struct worker *worker)
{
    const struct snapshots *snapshots = &worker->snapshots;
    bool past_limit = log_past_limit(worker->log) > 0;

    if (may_come_early(worker) && (((past_limit || log_lacks_spare(worker->log)) && would_make_room(worker)) ||
                                   (past_limit && worker->now >= past_limit_due(snapshots))))
        return true;
    return log_grown(worker->log) >= snapshots->due && log_trouble(worker->log) == NULL;
}

static void failed(struct worker *worker, const char *why)
{
    struct snapshots *snapshots = &worker->snapshots;
    char text[600], later[64] = "";

    snapshots->pause = snapshots->pause == 0 ? MR_SNAPSHOT_PAUSE_FIRST : 2 * snapshots->pause;
    if (snapshots->pause > MR_SNAPSHOT_PAUSE_MOST)
        snapshots->pause = MR_SNAPSHOT_PAUSE_MOST;
    snapshots->not_before = worker->now + snapshots->pause;
    if (is_due(worker))
        snprintf(later, sizeof(later), "; tried again in %" PRIu64 " s", snapshots->pause / MR_SECOND);
    snprintf(text, sizeof(text), "no snapshot of index %" PRIu64 ": %s%s", snapshots->point.index, why, later);
    worker->notice(worker->notice_context, LOGLINE_WARNING, text);
    answer_up_to(worker, snapshots->point.index, NULL, 0, why);
}

void snapshots_child_ended(struct worker *worker, int32_t result)
{
    struct snapshots *snapshots = &worker->snapshots;
    struct region *region = worker->region;
    uint64_t took = worker->now - snapshots->began;
    char text[256];

    if (!snapshots->writing)
        return;
    snapshots->writing = false;
    if (result != 0 && snapshots->given_up) {
        snprintf(text, sizeof(text), "the process that wrote it had not got on for %" PRIu64 " s, and was killed",
                 snapshots->patience / MR_SECOND);
        snapshots->patience =
            2 * snapshots->patience > MR_SNAPSHOT_PATIENCE_MOST ? MR_SNAPSHOT_PATIENCE_MOST : 2 * snapshots->patience;
        failed(worker, text);
        return;
    }
    if (result != 0) {
        region->child_error[sizeof(region->child_error) - 1] = '\0';
        failed(worker, result > 0 ? region->child_error : "the process that wrote it ended before it was done");
        return;
    }
    struct known_snapshot newest = {.point = snapshots->point, .bytes = region->child_bytes};
    know_newest(worker, &newest);
    drop_unsound(snapshots);
    tell_log(worker);
    snapshots->pause = snapshots->not_before = snapshots->patience = 0;
    snapshots->took = took;
    snapshots->due = due_after(snapshots, snapshots->grown);
    snprintf(text, sizeof(text),
             "snapshot of index %" PRIu64 ": %" PRIu64 " bytes in %.2f s (the worker stood still for %.1f ms)",
             newest.point.index, newest.bytes, (double)took / (double)MR_SECOND,
             (double)snapshots->fork_took / (double)MR_MILLISECOND);
    worker->notice(worker->notice_context, LOGLINE_INFO, text);
    answer_up_to(worker, newest.point.index, &newest, took, NULL);
}

struct snapshot_point snapshots_point(const struct worker *worker)
{
    return (struct snapshot_point){
        .index = fsm_index(worker->fsm), .time = fsm_time(worker->fsm), .segment = log_segment(worker->log)};
}

static void take(struct worker *worker)
{
    struct snapshots *snapshots = &worker->snapshots;
    struct region *region = worker->region;
    struct io *io = worker->io;
    struct mr_error error;

    snapshots->point = snapshots_point(worker);
    snapshots->grown = log_grown(worker->log);
    region->child_bytes = 0;
    atomic_store_explicit(&region->child_progress, 0, memory_order_relaxed);
    region->child_error[0] = '\0';
    snapshots->began = io->ops->monotonic(io);
    int result = io->ops->child(io, child_job, worker, worker_token(TOKEN_SNAPSHOT, 0, 0));
    snapshots->fork_took = io->ops->monotonic(io) - snapshots->began;
    snapshots->writing = result == 0;
    snapshots->progress = 0;
    snapshots->moved_at = snapshots->began;
    snapshots->given_up = false;
    if (snapshots->patience == 0)
        snapshots->patience = MR_SNAPSHOT_PATIENCE;
    if (result != 0) {
        error_system(&error, -result, "no process could be made to write it");
        failed(worker, error.text);
    }
}

/* What it contains may be lost with the next power cut, and then the log would end before it. */
static void give_up(struct worker *worker)
{
    worker->io->ops->child_kill(worker->io);
    worker->snapshots.writing = false;
    failed(worker, log_trouble(worker->log));
}

/* A child that hangs, or that somebody has stopped, would be the last: the log would grow for ever. (What is slow gets
 * on: it writes past the page cache, so that no sync has much to do at once.) */
static void look_after_child(struct worker *worker)
{
    struct snapshots *snapshots = &worker->snapshots;
    uint64_t progress = atomic_load_explicit(&worker->region->child_progress, memory_order_relaxed);

    if (progress != snapshots->progress) {
        snapshots->progress = progress;
        snapshots->moved_at = worker->now;
    } else if (worker->now - snapshots->moved_at >= snapshots->patience && !snapshots->given_up) {
        worker->io->ops->child_give_up(worker->io);
        snapshots->given_up = true;
    }
}

bool snapshots_look(struct worker *worker)
{
    struct snapshots *snapshots = &worker->snapshots;
    bool due = is_due(worker) && worker->now >= snapshots->not_before;
    bool any = false;

    worker->quota.disk = log_past_limit(worker->log);
    if (snapshots->writing && log_unsafe(worker->log)) {
        give_up(worker);
        return true;
    }
    if (snapshots->writing)
        look_after_child(worker);
    if ((!due && snapshots->question_count == 0) || snapshots->writing || snapshots->ended)
        return false;
    /* Before the first command there is nothing to keep, and one that is of now already need not be made again. */
    uint64_t index = fsm_index(worker->fsm);
    struct known_snapshot nothing = {.bytes = 0};
    const struct known_snapshot *newest = snapshots->known_count > 0 ? &snapshots->known[0] : &nothing;
    any = answer_up_to(worker, newest->point.index, newest, 0, NULL);
    if (newest->point.index == index)
        snapshots->due = due_after(snapshots, log_grown(worker->log));
    else if (due || snapshots->question_count > 0)
        take(worker);
    else
        return any;
    return true;
}

uint64_t snapshots_next(const struct worker *worker)
{
    const struct snapshots *snapshots = &worker->snapshots;

    if (snapshots->writing && !snapshots->given_up)
        return snapshots->moved_at + snapshots->patience;
    if (snapshots->writing || snapshots->ended)
        return UINT64_MAX;
    if (is_due(worker))
        return snapshots->not_before;
    return log_past_limit(worker->log) > 0 && may_come_early(worker) ? past_limit_due(snapshots) : UINT64_MAX;
}

void snapshots_trouble_over(struct worker *worker)
{
    worker->snapshots.pause = worker->snapshots.not_before = 0;
}

/* ---- the end ---- */

void snapshots_end(struct worker *worker)
{
    struct snapshots *snapshots = &worker->snapshots;

    snapshots->ended = true;
    if (snapshots->writing)
        worker->io->ops->child_kill(worker->io);
    snapshots->writing = false;
}

void snapshots_write_last(struct worker *worker, const struct snapshot_point *point,
                          void (*busy)(void *context, uint64_t bytes), void *context)
{
    struct snapshots *snapshots = &worker->snapshots;
    struct io *io = worker->io;
    struct known_snapshot newest = {.point = *point};
    struct writing writing = {.io = io, .busy = busy, .context = context, .told_at = io->ops->monotonic(io)};
    struct mr_error error;
    char text[600];

    if (point->index == newest_index(snapshots))
        return;
    uint64_t began = writing.told_at;
    if (write_state(worker, &writing, point, &newest.bytes, &error) != 0) {
        snprintf(text, sizeof(text), "no snapshot of index %" PRIu64 ": %s; the next start reads the log instead",
                 point->index, error.text);
        worker->notice(worker->notice_context, LOGLINE_WARNING, text);
        return;
    }
    know_newest(worker, &newest);
    snprintf(text, sizeof(text), "snapshot of index %" PRIu64 ": %" PRIu64 " bytes in %.2f s", point->index,
             newest.bytes, (double)(io->ops->monotonic(io) - began) / (double)MR_SECOND);
    worker->notice(worker->notice_context, LOGLINE_INFO, text);
}

void snapshots_free(struct worker *worker)
{
    drop_unsound(&worker->snapshots);
    free(worker->snapshots.questions);
    worker->snapshots.questions = NULL;
    worker->snapshots.question_count = worker->snapshots.question_capacity = 0;
}
