/* SPDX-License-Identifier: Apache-2.0 */
/* One turn of a worker, on whatever io it is given: what has been written is applied and answered, what has come is
 * read and logged, what is logged is handed to the disk. In `memory` an entry is durable once submitted, so it goes the
 * whole way in one turn. */
#include "engine/node/worker_state.h"
#include "proto/reader.h"

#include <limits.h>
#include <string.h>

#define COMPLETIONS_A_TURN 64
/* While deadlines are left over, an entry with nothing but time for so many commands: it fires more than they make, and
 * not so much that those who wait for them notice. */
#define COMMANDS_A_BACKLOG_ENTRY 64
#define LONGEST_NAP MR_SECOND                /* with deadlines pending */
#define STALLED_WRITE (100 * MR_MILLISECOND) /* a write older than this stops the partition's clock */
/* Objects that are freed a turn: some always, more where more may have been unlinked. */
#define COLLECT_A_TURN 64
#define COLLECT_AN_ENTRY 4
/* Streams' outputs that wait for their turn's end: with as many, clients take them while more are made. */
#define OUTPUTS_AT_ONCE 512
/* Entries that are read before the first of them is applied. */
#define APPLIED_AT_ONCE 16

static void take_completion(struct worker *worker, const struct io_completion *completion)
{
    uint32_t slot = (uint32_t)(completion->token >> 32) & 0xffffff;
    struct worker_channel *channel;

    if (completion->token & LOG_TOKEN) {
        log_complete(worker->log, completion);
        return;
    }
    switch ((enum worker_token)(completion->token >> 56)) {
    case TOKEN_CONTROL:
        worker->control_ready = true;
        worker->control_lost = completion->result < 0;
        return;
    case TOKEN_SNAPSHOT:
        snapshots_child_ended(worker, completion->result);
        return;
    case TOKEN_WATCH:
    case TOKEN_WAKE:
        break;
    }
    mr_assert(slot < MR_CHANNELS_MAX);
    channel = &worker->channels[slot];
    if (!channel->used || (uint32_t)channel->channel_id != (uint32_t)completion->token)
        return; /* the slot's former tenant's */
    if (completion->token >> 56 == TOKEN_WAKE) {
        channels_wake_ended(worker, channel, completion->result);
    } else if (completion->result >= 0) {
        channels_scan_again(worker, channel);
    } else {
        if (!channel->closing)
            channels_break(worker, channel, "its wake-up descriptor cannot be waited for");
        channels_watch_ended(worker, channel);
    }
}

static bool take_completions(struct worker *worker)
{
    struct io_completion completions[COMPLETIONS_A_TURN];
    unsigned count = worker->io->ops->completions(worker->io, completions, COMPLETIONS_A_TURN);

    bells_handed_over(worker);
    bells_ring_due(worker);
    for (unsigned i = 0; i < count; i++)
        take_completion(worker, &completions[i]);
    return count > 0;
}

static int read_entry(const struct log_entry *entry, struct partition_command_input *input, struct mr_error *error)
{
    if (read_partition_command_input(entry->body, entry->size, input) == READ_OK)
        return 0;
    return error_set(error, "the entry with index %llu does not decode: it was written by something else",
                     (unsigned long long)entry->index);
}

/* An entry that has been read; one that carries time alone has no command. `shares`: its outputs may share frames. */
static void apply_entry(struct worker *worker, const struct log_entry *entry, const struct command_input *command,
                        bool shares)
{
    struct fsm_entry apply = {
        .index = entry->index,
        .time = entry->time,
        .uid = entry->origin.uid,
        .route = {.channel = entry->origin.channel, .position = entry->origin.position},
        .shares = shares,
        .command = command,
    };

    worker->applied_session = command == NULL                         ? 0
                              : command->kind == COMMAND_OPEN_SESSION ? entry->index
                                                                      : command->session_id;
    atomic_store_explicit(&worker->region->applying_index, entry->index, memory_order_relaxed);
    fsm_apply(worker->fsm, &apply, &worker->sink);
    atomic_store_explicit(&worker->region->applying_index, 0, memory_order_relaxed);
}

/* The same of a KeepAlive that looks at many commands again: its user's next one waits until the others have had the
 * rest of the time. Up to a limit, since what is measured need not be the worker's own time: it may have had no
 * processor. */
static void apply_walk(struct worker *worker, const struct log_entry *entry, const struct command_input *command)
{
    uint64_t began = worker->io->ops->monotonic(worker->io);

    apply_entry(worker, entry, command, false);
    uint64_t took = worker->io->ops->monotonic(worker->io) - began;
    uint64_t others = (MR_WALK_SHARE - 1) * took;
    if (others > MR_WALK_WAITS_MAX)
        others = MR_WALK_WAITS_MAX;
    worker->walk_shares[entry->origin.uid % WORKER_WALK_USERS] =
        (struct walk_share){.uid = entry->origin.uid, .from = began + took + others};
}

int turn_apply(struct worker *worker, const struct log_entry *entry, struct mr_error *error)
{
    struct partition_command_input input;

    if (entry->size > 0 && read_entry(entry, &input, error) != 0)
        return -1;
    apply_entry(worker, entry, entry->size > 0 ? &input.command : NULL, false);
    /* Else all that went again within the whole log would be held at its end. */
    (void)fsm_collect(worker->fsm, COLLECT_AN_ENTRY);
    return 0;
}

/* The request that an entry came from is done with; its channel's head moves when cursors are published. */
static void request_done(struct worker *worker, struct worker_channel *channel, const struct log_entry *entry)
{
    if (channel == NULL || channel->broken)
        return;
    if (entry->failed)
        answer_message(worker, channel, entry->origin.position, STATUS_UNAVAILABLE,
                       "the disk failed: the command was not logged and has no effect");
    else
        attach_note(worker, channel, worker->applied_session);
    channel->applied_to = entry->origin.position + entry->origin.frame_size;
    channel->in_flight--;
    answer_touch(worker, channel);
}

/* The command of an entry that was decoded at admission: as it was read then, or by *room. Nobody else can have touched
 * the bytes since. */
static const struct command_input *command_of(struct worker *worker, const struct log_entry *entry,
                                              struct partition_command_input *room)
{
    const struct partition_command_input *input = read_once_take(&worker->read, entry->body);
    struct mr_error error;

    if (input != NULL)
        return &input->command;
    int read = read_entry(entry, room, &error);
    mr_assert(read == 0);
    return &room->command;
}

/* As many as a turn may admit, so that no more come than go; not all that is durable, unless it is the last: whoever
 * sent a large batch would wait for the last of its answers, and then come back with the next one. */
static unsigned most_applied(const struct worker *worker)
{
    unsigned channels = worker->scanned_count > 0 ? worker->scanned_count : 1;
    return worker->accepting ? channels * MR_TURN_REQUESTS : UINT_MAX;
}

static inline bool may_share(struct worker_channel *channel, const struct log_entry *entry)
{
    return channel != NULL && channel->sharing_count > 0 && answer_may_share(channel, entry->origin.position);
}

static bool apply_durable(struct worker *worker)
{
    struct log_entry entries[APPLIED_AT_ONCE];
    struct partition_command_input rooms[APPLIED_AT_ONCE];
    const struct command_input *commands[APPLIED_AT_ONCE]; /* NULL: time alone */
    unsigned most = most_applied(worker), done = 0, count;

    for (; done < most && (count = log_next_few(worker->log, entries, APPLIED_AT_ONCE)) > 0; done += count) {
        worker->to_collect += COLLECT_AN_ENTRY * count;
        for (unsigned i = 0; i < count; i++)
            commands[i] = entries[i].size > 0 ? command_of(worker, &entries[i], &rooms[i]) : NULL;
        /* The state machine sees what comes before it is applied, so that it can ask for the memory. */
        if (!entries[0].failed)
            fsm_expect(worker->fsm, commands, count);
        for (unsigned i = 0; i < count; i++) {
            uint64_t from = entries[i].origin.channel;
            struct worker_channel *channel = from != 0 ? channels_find(worker, from) : NULL;
            if (entries[i].failed)
                worker->logged_time = fsm_time(worker->fsm); /* time that was logged behind it is not */
            else if (entries[i].index == worker->walk_index && worker->walk == WALK_AGAIN)
                apply_walk(worker, &entries[i], commands[i]);
            else
                apply_entry(worker, &entries[i], commands[i], may_share(channel, &entries[i]));
            if (commands[i] != NULL)
                quota_applied(&worker->quota, commands[i], entries[i].origin.uid);
            request_done(worker, channel, &entries[i]);
            if (worker->outputs >= OUTPUTS_AT_ONCE)
                answer_publish(worker);
        }
    }
    return done > 0;
}

static bool scan(struct worker *worker)
{
    bool any = false;

    /* From another channel each turn, so that whoever comes first in a batch is not always the same; from the first one
     * that got no buffer, if there were too few, so that it is not always the same. */
    unsigned from = worker->scan_from, next = from + 1;
    bool any_starved = false;
    for (unsigned i = 0; i < worker->scanned_count; i++) {
        struct worker_channel *channel = &worker->channels[worker->scanned[(from + i) % worker->scanned_count]];
        if (admission_scan(worker, channel)) {
            channel->quiet_since = worker->now;
            any = true;
        }
        if (channel->starved && !any_starved) {
            any_starved = true;
            next = from + i;
        }
    }
    worker->scan_from = worker->scanned_count > 0 ? next % worker->scanned_count : 0;
    return any;
}

/* Channels that have been quiet for a while are not scanned, even in a worker that never sleeps, nor beside one that is
 * never quiet. */
static void park_quiet(struct worker *worker)
{
    worker->parked_at = worker->now;
    for (unsigned i = worker->scanned_count; i-- > 0;) {
        struct worker_channel *channel = &worker->channels[worker->scanned[i]];
        if (worker->now - channel->quiet_since > MR_PARK_AFTER && !channel->stuck && channel->room_needed == 0)
            channels_park(worker, channel);
    }
}

static void close_broken(struct worker *worker)
{
    for (unsigned i = worker->scanned_count; i-- > 0;) {
        struct worker_channel *channel = &worker->channels[worker->scanned[i]];
        if (channel->broken)
            channels_close(worker, channel, channel->why);
    }
}

/* Time by itself is logged so often in this turn, which has logged so many commands. Once, when a deadline has come and
 * nothing that is logged carries time past it. Where deadlines were left by an entry that had fired as many as one may:
 * once for some of these commands, each of which may make a new one, or they would get ever more; or, when everything
 * logged is applied, once, so that who asks meanwhile is answered between any two. An orderly stop leaves them to the
 * next start. */
static uint64_t times_due(const struct worker *worker, uint64_t deadline, uint64_t commands)
{
    if (deadline > worker->time || deadline == UINT64_MAX || !worker->accepting)
        return 0;
    if (worker->logged_time < deadline)
        return 1;
    if (deadline > fsm_time(worker->fsm))
        return 0;
    return log_last_index(worker->log) == fsm_index(worker->fsm)
               ? 1
               : (commands + COMMANDS_A_BACKLOG_ENTRY - 1) / COMMANDS_A_BACKLOG_ENTRY;
}

static void log_time(struct worker *worker, uint64_t commands)
{
    uint64_t deadline = fsm_next_deadline(worker->fsm);
    struct log_origin nobody = {0};

    worker->time_waits = false;
    if (deadline == UINT64_MAX || log_trouble(worker->log) != NULL)
        return;
    uint64_t times = times_due(worker, deadline, commands);
    if (times > 0) {
        for (; times > 0; times--) {
            worker->time_waits = log_reserve(worker->log, 0) == NULL;
            if (worker->time_waits)
                return;
            log_append(worker->log, worker->time, &nobody, 0);
            worker->logged_time = worker->time;
            worker->marked_at = worker->now;
        }
    } else if (worker->logged_time < worker->time && worker->now - worker->marked_at >= MR_TIME_LOGGED_EVERY &&
               log_mark(worker->log, worker->time)) {
        worker->logged_time = worker->time;
        worker->marked_at = worker->now;
    }
}

/* Frees what big removals have unlinked. True while there is more. */
static bool collect(struct worker *worker)
{
    unsigned budget = COLLECT_A_TURN + worker->to_collect;

    worker->to_collect = 0;
    return fsm_collect(worker->fsm, budget);
}

static void show_status(struct worker *worker)
{
    struct region *region = worker->region;

    atomic_store_explicit(&region->applied_index, fsm_index(worker->fsm), memory_order_relaxed);
    atomic_store_explicit(&region->durable_index, log_durable_index(worker->log), memory_order_relaxed);
    atomic_store_explicit(&region->log_bytes, log_bytes(worker->log), memory_order_relaxed);
    atomic_store_explicit(&region->sessions, fsm_session_count(worker->fsm), memory_order_relaxed);
    atomic_store_explicit(&region->time, worker->time, memory_order_relaxed);
    const char *trouble = log_trouble(worker->log);
    if ((trouble != NULL) != worker->in_trouble) {
        worker->in_trouble = trouble != NULL;
        if (trouble != NULL)
            strncpy(region->reason, trouble, sizeof(region->reason) - 1);
        else
            snapshots_trouble_over(worker);
        atomic_store_explicit(&region->state, trouble != NULL ? PARTITION_READ_ONLY : PARTITION_SERVING,
                              memory_order_release);
    }
}

static bool clock_held(struct worker *worker)
{
    if (worker->log == NULL)
        return false;
    uint64_t oldest = log_oldest_write(worker->log);
    return log_trouble(worker->log) != NULL || (oldest != 0 && worker->now > oldest + STALLED_WRITE);
}

static void read_clocks(struct worker *worker)
{
    worker->now = worker->io->ops->monotonic(worker->io);
    worker->time = clock_read(&worker->clock, worker->now, clock_held(worker));
}

bool turn_run(struct worker *worker)
{
    bool any;
    uint64_t logged = worker->log != NULL ? log_last_index(worker->log) : 0;

    read_clocks(worker);
    any = take_completions(worker);
    if (worker->log != NULL) {
        any |= apply_durable(worker);
        any |= channels_finish(worker);
        answer_publish(worker);
    }
    worker->walk_waits = UINT64_MAX;
    if (any)
        read_clocks(worker); /* what is taken now may have been sent since the turn began: it is of no earlier time */
    if (worker->accepting)
        any |= scan(worker);
    if (worker->log != NULL) {
        uint64_t commands = log_last_index(worker->log) - logged;
        log_time(worker, commands);
        log_submit(worker->log, commands > 0); /* then the next turn may bring more */
        any |= apply_durable(worker);
        worker->log_wants = log_tick(worker->log, worker->time);
        any |= attach_look(worker);
        any |= collect(worker);
        show_status(worker);
    }
    answer_publish(worker);
    close_broken(worker);
    if (worker->log != NULL)
        any |= snapshots_look(worker);
    if (!any || worker->now - worker->parked_at > MR_PARK_AFTER)
        park_quiet(worker);
    return any;
}

uint64_t turn_next(struct worker *worker)
{
    uint64_t next = worker->log != NULL ? worker->log_wants : UINT64_MAX;
    uint64_t deadline = worker->log != NULL ? fsm_next_deadline(worker->fsm) : UINT64_MAX;

    if (worker->log != NULL && snapshots_next(worker) < next)
        next = snapshots_next(worker);
    if (worker->walk_waits < next)
        next = worker->walk_waits;
    if (bells_next(worker) < next)
        next = bells_next(worker);
    for (unsigned i = 0; i < worker->unfinished_count; i++) {
        const struct worker_channel *channel = &worker->channels[worker->unfinished[i]];
        if (channel->waiting_count > 0 && channel->waiting_deadline < next)
            next = channel->waiting_deadline;
    }
    if (deadline != UINT64_MAX && !clock_held(worker)) {
        /* In short naps: of one that lasts longer than it was meant to, only MR_CLOCK_STEP_MAX counts as time. What is
         * due while a write is in flight is logged behind it; while a segment is being made, once it is. */
        uint64_t nap = LONGEST_NAP;
        bool waits = log_in_flight(worker->log) || worker->time_waits;
        if (!waits && deadline > worker->logged_time && deadline < worker->time + nap)
            nap = deadline > worker->time ? deadline - worker->time : 0;
        if (worker->now + nap < next)
            next = worker->now + nap;
    }
    return next;
}
