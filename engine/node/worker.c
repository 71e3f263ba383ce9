/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's life. The way of a command through it, file by file:
 *
 *     admission.c   the frame is copied from the client's request ring to the log's open batch, and the copy is checked
 *     ../log/       the batch is sealed and written; a completion says that it is durable
 *     turn.c        the entries that are durable are applied, in order: ../fsm/, ../services/
 *     answer.c      the outputs are encoded into the response ring; cursors are published, who sleeps is woken
 *
 * The happy path of a life is: give up what is not needed (sandbox.c), take over the channels that there are, read
 * snapshot and log back, begin a new epoch, then turn after turn until told to stop. What can go wrong:
 *
 *   - the worker is killed, at any instruction: its successor starts from the cursors in the region, reads the newest
 *     snapshot back, applies the log behind it again, and writes the answers to requests at or past a channel's head
 *     again, which come out the same; then it reads on behind what the log has. Nothing of that is visible to a client
 *     before the successor's epoch is durable.
 *   - the log is damaged, or an entry or a snapshot has killed two workers: the partition is stopped. Its worker loads
 *     no state and answers every request with INTERNAL and the reason.
 *   - something cannot be read, or there is no memory: the worker ends, and the next one tries again. Where ten in a
 *     row could not read the same, that counts as damage.
 *   - the disk fails: requests that would be logged are refused with UNAVAILABLE, queries are answered. The log goes
 *     on by itself when it can.
 *   - a channel holds what cannot be: that channel is closed, with the reason in its page. */
#include "engine/node/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "engine/fsm/memory.h"
#include "engine/io/uring.h"
#include "engine/node/control.h"
#include "engine/node/logline.h"
#include "engine/node/sandbox.h"
#include "engine/node/worker_state.h"
#include "engine/services/types.h"
#include "ipc/relax.h"
#include "ipc/sys.h"

#define URING_ENTRIES 512
#define PROGRESS_EVERY (3 * MR_SECOND)    /* lines about a long recovery */
#define UNREADABLE_MOST 10                /* starts that meet the same, in a row: they take some seconds */
#define SLOW_WRITE (300 * MR_MICROSECOND) /* two or three times what one should take */

/* A worker and what only its life needs. */
struct life {
    struct worker worker;
    const struct worker_birth *birth;
    bool stopping;
    uint64_t progress_told; /* monotonic */
    char path[4096];        /* the partition's folder */
    int *segments;          /* `memory`: memfds that were asked for, by slot behind those that were inherited */
    uint32_t segment_count;
    struct letter *later; /* came while an answer was waited for: as many as there can be channels, and more */
    unsigned later_count, later_capacity;
};

/* A message with what it brought. */
struct letter {
    struct control_message message;
    int fds[CONTROL_FDS];
    unsigned fd_count;
};

/* ---- the supervisor's words ---- */

/* 0; or -1: the kernel does not take the descriptor. */
static int send_message(struct life *life, const struct control_message *message, const int *fds, unsigned fd_count)
{
    struct mr_error error;
    struct pollfd wait = {.fd = life->birth->control, .events = POLLOUT};
    int result;

    while ((result = control_send(life->birth->control, message, fds, fd_count, &error)) == 1)
        sys_poll(&wait, 1, -1);
    if (result == -1 && fd_count > 0)
        return -1;
    if (result != 0) {
        /* Without a supervisor there is nothing to live for; the kernel is about to say the same. */
        logline(LOGLINE_ERROR, life->worker.partition, "the supervisor cannot be told anything any more: ending");
        _exit(1);
    }
    return 0;
}

static void tell(struct life *life, enum control_kind kind, uint32_t slot, uint64_t channel_id, const char *text)
{
    struct control_message message = {.kind = kind, .slot = slot, .channel_id = channel_id};

    snprintf(message.text, sizeof(message.text), "%s", text);
    (void)send_message(life, &message, NULL, 0); /* without a descriptor: it is sent, or we end */
}

/* Memory with these bytes, which nobody can change any more. -1 with *error. */
static int sealed_memory(const uint8_t *bytes, size_t size, struct mr_error *error)
{
    int fd = sys_memfd_create("millrace-answer", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return error_system(error, errno, "the node has no memory for the answer");
    while (size > 0) {
        ssize_t written = sys_write(fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            break;
        bytes += written;
        size -= (size_t)written;
    }
    if (size == 0 && sys_fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
        return fd;
    error_system(error, errno, "the node cannot write the answer into memory");
    sys_close(fd);
    return -1;
}

static void question_answered(void *context, const struct worker_answer *answer)
{
    struct life *life = context;
    struct control_message message = {
        .kind = CONTROL_ANSWER,
        .question = answer->number,
        .connection = answer->connection,
        .status = answer->status,
        .slot = answer->holder_slot,
        .channel_id = answer->holder_channel,
        .size = answer->size,
    };
    struct mr_error error;
    int fd = -1;

    snprintf(message.text, sizeof(message.text), "%s", answer->text);
    if (answer->status == STATUS_OK) {
        fd = sealed_memory(answer->bytes, answer->size, &error);
        if (fd < 0)
            snprintf(message.text, sizeof(message.text), "%.*s", (int)sizeof(message.text) - 1, error.text);
    }
    if (fd >= 0 && send_message(life, &message, &fd, 1) != 0) {
        snprintf(message.text, sizeof(message.text), "the node cannot hand the answer over; try again later");
        sys_close(fd);
        fd = -1;
    }
    if (fd >= 0) {
        sys_close(fd);
        return;
    }
    if (message.status == STATUS_OK)
        message.status = STATUS_UNAVAILABLE;
    (void)send_message(life, &message, NULL, 0);
}

static void channel_closed(void *context, uint32_t slot, uint64_t channel_id, const char *why)
{
    struct life *life = context;

    tell(life, CONTROL_CLOSED, slot, channel_id, why);
}

static void add_channel(struct life *life, const struct letter *letter)
{
    const struct control_message *message = &letter->message;
    const int *fds = letter->fds;
    struct worker *worker = &life->worker;
    struct channel channel = {0};
    struct mr_error error;

    mr_assert(message->slot < MR_CHANNELS_MAX && letter->fd_count == CONTROL_FDS);
    if (channel_map(&channel, fds[0], fds[1], fds[2], worker->partition, message->channel_id, message->ring_bytes,
                    &error) != 0) {
        logline(LOGLINE_ERROR, worker->partition, "channel %" PRIu64 " cannot be mapped: %s", message->channel_id,
                error.text);
        for (unsigned i = 0; i < letter->fd_count; i++)
            sys_close(fds[i]);
        tell(life, CONTROL_CLOSED, message->slot, message->channel_id, "the worker could not map the channel");
        return;
    }
    sys_close(channel.memory_fd); /* the mapping stays */
    channel.memory_fd = -1;
    channels_add(worker, message->slot, &channel);
    atomic_store_explicit(&channel.page->generation, 1, memory_order_release);
    tell(life, CONTROL_ADDED, message->slot, message->channel_id, "");
}

static void hear(struct life *life, const struct letter *letter)
{
    struct worker *worker = &life->worker;
    uint32_t slot = letter->message.slot;
    struct worker_channel *channel;

    switch ((enum control_kind)letter->message.kind) {
    case CONTROL_ADD:
        add_channel(life, letter);
        return;
    case CONTROL_CLOSE:
        mr_assert(slot < MR_CHANNELS_MAX);
        channel = &worker->channels[slot];
        if (channel->used && channel->channel_id == letter->message.channel_id)
            channels_close(worker, channel, "");
        return;
    case CONTROL_STOP:
        life->stopping = true;
        return;
    case CONTROL_SNAPSHOT:
        snapshots_ask(worker, &(struct snapshot_question){.number = letter->message.question,
                                                          .connection = letter->message.connection});
        return;
    case CONTROL_ATTACH:
    case CONTROL_LIST:
        attach_ask(worker, &(struct attach_question){.number = letter->message.question,
                                                     .connection = letter->message.connection,
                                                     .session_id = letter->message.session_id,
                                                     .uid = letter->message.uid});
        return;
    default:
        for (unsigned i = 0; i < letter->fd_count; i++)
            sys_close(letter->fds[i]);
    }
}

/* One message, if one is there. */
static bool receive(struct life *life, struct letter *letter)
{
    struct mr_error error;
    int result = control_receive(life->birth->control, &letter->message, letter->fds, &letter->fd_count, &error);

    if (result == 0)
        return true;
    if (result == CONTROL_GONE)
        _exit(1); /* the supervisor is gone, and so is everything that this worker was for */
    if (result < 0) {
        logline(LOGLINE_ERROR, life->worker.partition, "%s", error.text);
        _exit(1);
    }
    return false;
}

static void put_aside(struct life *life, const struct letter *letter)
{
    if (life->later_count == life->later_capacity) {
        life->later_capacity = life->later_capacity == 0 ? 16 : 2 * life->later_capacity;
        life->later = memory_resize(life->later, life->later_capacity * sizeof(*life->later));
    }
    life->later[life->later_count++] = *letter;
}

static void watch_supervisor(struct life *life)
{
    life->worker.io->ops->watch(life->worker.io, life->birth->control, worker_token(TOKEN_CONTROL, 0, 0));
}

static void listen_to_supervisor(struct life *life)
{
    struct letter letter;

    /* What is heard may close a channel, but asks for nothing: nothing more is put aside meanwhile. */
    for (unsigned i = 0; i < life->later_count; i++)
        hear(life, &life->later[i]);
    life->later_count = 0;
    while (receive(life, &letter))
        hear(life, &letter);
}

/* `memory`: a segment's memfd, from what was inherited or from the supervisor, who keeps it. It is asked for once: each
 * answer brings a descriptor of our own, and slots are used again for ever. */
static int memory_segment(void *context, uint32_t slot, struct mr_error *error)
{
    struct life *life = context;
    struct pollfd wait = {.fd = life->birth->control, .events = POLLIN};
    struct letter letter;

    if (slot < life->birth->memory_segment_count)
        return life->birth->memory_segments[slot];
    uint32_t asked = slot - life->birth->memory_segment_count;
    if (asked < life->segment_count)
        return life->segments[asked];
    mr_assert(asked == life->segment_count); /* new ones are asked for in order */
    int *segments = realloc(life->segments, (asked + 1) * sizeof(*segments));
    if (segments == NULL)
        return error_system(error, ENOMEM, "no memory for segment %u", slot);
    life->segments = segments;
    tell(life, CONTROL_WANT_SEGMENT, slot, 0, "");
    for (;;) {
        while (!receive(life, &letter))
            sys_poll(&wait, 1, -1);
        if (letter.message.kind == CONTROL_SEGMENT && letter.message.slot == slot)
            break;
        put_aside(life, &letter);
        life->worker.control_ready = true; /* its completion may be spent */
    }
    if (letter.fd_count != 1)
        return error_set(error, "no memory for segment %u: %s", slot, letter.message.text);
    life->segments[life->segment_count++] = letter.fds[0];
    return letter.fds[0];
}

/* ---- recovery ---- */

static void notice(void *context, enum logline_level level, const char *text)
{
    struct life *life = context;
    logline(level, life->worker.partition, "%s", text);
}

/* The log speaks up only for what a person should look at. */
static void log_notice(void *context, const char *text)
{
    notice(context, LOGLINE_WARNING, text);
}

/* A recovery may take longer than a stop may; and it has nothing that the next one would not find. */
static void heed_stop(struct life *life)
{
    struct letter letter;

    while (receive(life, &letter)) {
        if (letter.message.kind == CONTROL_STOP) {
            logline(LOGLINE_INFO, life->worker.partition, "stopped before it has recovered");
            _exit(0);
        }
        put_aside(life, &letter);
    }
}

/* Where it is short nobody wants to read of it. */
static void progress(void *context, uint64_t done, uint64_t total)
{
    struct life *life = context;
    struct region *region = life->worker.region;
    uint32_t percent = total > 0 ? (uint32_t)((double)done * 100 / (double)total) : 0;
    uint64_t now = life->worker.io->ops->monotonic(life->worker.io);

    heed_stop(life);
    /* How much log there is is only guessed as the snapshot is read: a guess that was too low shows as a standstill. */
    if (percent > atomic_load_explicit(&region->recovered_percent, memory_order_relaxed))
        atomic_store_explicit(&region->recovered_percent, percent, memory_order_relaxed);
    if (now - life->progress_told < PROGRESS_EVERY)
        return;
    life->progress_told = now;
    logline(LOGLINE_INFO, life->worker.partition, "recovering: %" PRIu32 " %%, %.1f of %.1f MiB", percent,
            (double)done / (double)MR_MIB, (double)total / (double)MR_MIB);
}

/* The reason goes into frames, which are short: without the directory's path, which everyone knows. */
static void stop_partition(struct life *life, const char *reason)
{
    struct worker *worker = &life->worker;
    struct region *region = worker->region;
    const char *dir = life->birth->options->dir;
    const char *path = strstr(reason, dir);

    if (reason == region->reason)
        ; /* a predecessor's, or the supervisor's */
    else if (path != NULL && path[strlen(dir)] == '/')
        snprintf(region->reason, sizeof(region->reason), "%.*s%s", (int)(path - reason), reason,
                 path + strlen(dir) + 1);
    else
        snprintf(region->reason, sizeof(region->reason), "%s", reason);
    atomic_store_explicit(&region->state, PARTITION_STOPPED, memory_order_release);
    worker->stopped = region->reason;
    logline(LOGLINE_ERROR, worker->partition, "stopped: %s", region->reason);
}

/* What cannot be read may come back by itself, so another worker tries again; but not for ever, while everybody waits:
 * what each of so many has met in the same place is damage. */
static void lose_patience(struct region *region, struct mr_error *error)
{
    if (strcmp(region->unreadable, error->text) != 0)
        region->unreadable_times = 0;
    snprintf(region->unreadable, sizeof(region->unreadable), "%s", error->text);
    if (++region->unreadable_times < UNREADABLE_MOST)
        return;
    error_set(error, "%.280s, in each of %d attempts. Restore the file, or the partition from a copy",
              region->unreadable, UNREADABLE_MOST);
    region->unreadable_times = 0;
}

static int recover(struct life *life, struct mr_error *error)
{
    struct worker *worker = &life->worker;
    const struct options *options = life->birth->options;
    const struct identity *identity = life->birth->identity;

    struct log_config log = {
        .io = worker->io,
        .path = life->path,
        .partition = worker->partition,
        .secret = identity->secret,
        .durability = options->durability,
        .batch_bytes = options->batch_bytes,
        .segment_bytes = options->segment_bytes,
        .largest_body = (uint32_t)options->max_payload,
        .flush_interval = options->flush_interval,
        .memory_segment = memory_segment,
        .memory_slots = life->birth->memory_segment_count,
        .memory_context = life,
        .progress = progress,
        .progress_context = life,
        .notice = log_notice,
        .notice_context = life,
    };
    struct snapshots_config snapshots = {
        .place = {.io = worker->io,
                  .path = life->path,
                  .partition = worker->partition,
                  .secret = identity->secret,
                  .memory = options->durability == DURABILITY_MEMORY ? life->birth->memory_snapshots : NULL},
        .every = options->snapshot_bytes,
        .disk_limit = options->disk_limit,
    };
    struct fsm_config state = {
        .hash_seed = identity->hash_seed,
        .session_output_limit = identity->session_output_limit,
        .types = service_types,
    };
    struct log_recovery found = {0};

    atomic_store_explicit(&worker->region->recovered_percent, 0, memory_order_relaxed);
    atomic_store_explicit(&worker->region->state, PARTITION_RECOVERING, memory_order_release);
    life->progress_told = worker->io->ops->monotonic(worker->io);
    if (worker_recover(worker, &log, &snapshots, &state, &found, error) != 0) {
        if (io_unreadable(error->code) && !found.read)
            lose_patience(worker->region, error);
        return -1;
    }
    worker->region->unreadable_times = 0;
    atomic_store_explicit(&worker->region->recovered_percent, 100, memory_order_relaxed);
    uint64_t restored = worker->snapshots.known_count > 0 ? worker->snapshots.known[0].point.index : 0;
    if (restored > 0)
        logline(LOGLINE_INFO, worker->partition,
                "recovered from the snapshot of index %" PRIu64 " and %" PRIu64 " entries up to index %" PRIu64
                ", epoch %" PRIu64,
                restored, found.entries, fsm_index(worker->fsm), found.epoch);
    else if (found.last_index > 0)
        logline(LOGLINE_INFO, worker->partition,
                "recovered %" PRIu64 " entries up to index %" PRIu64 ", epoch %" PRIu64, found.entries,
                found.last_index, found.epoch);
    return 0;
}

/* What was there at the fork. The region may show newer ones already: the supervisor is about to tell of those. */
static void inherit_channels(struct life *life)
{
    for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++)
        if (life->birth->channels[slot].channel_id != 0)
            channels_add(&life->worker, slot, &life->birth->channels[slot]);
}

/* ---- the loop ---- */

/* Nothing to do: spin a little, then sleep until something comes or is due. While a write is in flight the kernel's own
 * threads may need this core to finish it (a spinning worker made a 4 KiB durable write take 3.9 ms instead of 0.1),
 * and it lasts longer than any spinning should: then there is none, or, for who asked for it, with yielding. */
static void wait_for_work(struct life *life, uint64_t *idle_since)
{
    struct worker *worker = &life->worker;
    const struct options *options = life->birth->options;
    bool crowded = options->partitions > options->cpu_count;
    enum idle_mode idle = options->idle == IDLE_SPIN && crowded ? IDLE_BLOCK : options->idle;
    bool writing = worker->log != NULL && log_in_flight(worker->log);
    uint64_t spin = idle == IDLE_ADAPTIVE && life->birth->may_spin && !writing ? MR_SPIN_LIMIT : 0;
    uint64_t next = turn_next(worker);

    if (*idle_since == 0)
        *idle_since = worker->now;
    if (idle == IDLE_SPIN && writing) {
        sched_yield();
        return;
    }
    if (idle == IDLE_SPIN || worker->now - *idle_since < spin) {
        relax();
        return;
    }
    if (next <= worker->now || !channels_park_all(worker))
        return;
    uint64_t nap = next == UINT64_MAX ? UINT64_MAX : next - worker->now;
    clock_sleeping(&worker->clock, nap);
    worker->io->ops->sleep(worker->io, nap);
}

/* Busy without a pause: for the same reason the kernel gets its turn when a write takes longer than it should. */
static void let_kernel_run(struct worker *worker, uint64_t *yielded_at)
{
    uint64_t oldest = worker->log != NULL ? log_oldest_write(worker->log) : 0;

    if (oldest == 0 || worker->now - oldest < SLOW_WRITE || worker->now - *yielded_at < SLOW_WRITE)
        return;
    *yielded_at = worker->now;
    sched_yield();
}

static void run(struct life *life)
{
    struct worker *worker = &life->worker;
    uint64_t idle_since = 0, yielded_at = 0;

    worker->accepting = true;
    worker->control_ready = true;
    while (!life->stopping) {
        bool any = turn_run(worker);
        if (worker->control_lost) {
            worker->control_lost = false;
            watch_supervisor(life);
        }
        if (worker->control_ready) {
            worker->control_ready = false;
            listen_to_supervisor(life);
            any = true;
        }
        if (any) {
            idle_since = 0;
            let_kernel_run(worker, &yielded_at);
        } else {
            wait_for_work(life, &idle_since);
        }
    }
}

/* The supervisor waits for the end, but not for ever. */
static void busy(void *context, uint64_t bytes)
{
    struct control_message message = {.kind = CONTROL_BUSY, .size = bytes};

    (void)send_message(context, &message, NULL, 0); /* without a descriptor: it is sent, or we end */
}

static int stop(struct life *life)
{
    struct mr_error error;

    if (worker_stop(&life->worker, busy, life, &error) == 0)
        return 0;
    logline(LOGLINE_ERROR, life->worker.partition, "the log could not be closed in order: %s", error.text);
    return 1;
}

/* -1: it could come to wait for ever. */
static int settle(struct life *life)
{
    cpu_set_t core;
    char name[16];
    int flags = sys_fcntl(life->birth->control, F_GETFL, 0);

    snprintf(name, sizeof(name), "millrace/%u", life->worker.partition);
    sys_prctl(PR_SET_NAME, (unsigned long)name);
    if (flags < 0 || sys_fcntl(life->birth->control, F_SETFL, flags | O_NONBLOCK) < 0) {
        logline(LOGLINE_ERROR, life->worker.partition, "the control socket stays blocking: %s", strerror(errno));
        return -1;
    }
    if (life->birth->core >= 0) {
        CPU_ZERO(&core);
        CPU_SET((size_t)life->birth->core, &core);
        if (sys_sched_setaffinity(0, sizeof(core), &core) != 0)
            logline(LOGLINE_WARNING, life->worker.partition, "cannot be pinned to core %d: %s", life->birth->core,
                    strerror(errno));
    }
    return 0;
}

/* Before anything is read that somebody else may have written. */
static int enter_sandbox(struct life *life, struct mr_error *error)
{
    const struct options *options = life->birth->options;
    bool memory = options->durability == DURABILITY_MEMORY;

    identity_partition_path(options->dir, life->worker.partition, life->path, sizeof(life->path));
    if (sandbox_enter(options->sandbox, memory ? NULL : life->path, life->worker.partition, error) != 0)
        return -1;
    SANDBOX_TRY(life->worker.io, life->worker.partition);
    return 0;
}

/* Where one has run already, memory and descriptors that this one does not get are short for the moment: another is
 * tried, and the other partitions are served meanwhile. */
static int cannot_begin(const struct worker *worker, const struct mr_error *error)
{
    uint32_t state = atomic_load_explicit(&worker->region->state, memory_order_acquire);
    bool lacks = error->code == ENOMEM || error->code == EMFILE || error->code == ENFILE;

    return lacks && state != PARTITION_STARTING ? 1 : WORKER_CANNOT_RUN;
}

int worker_run(const struct worker_birth *birth)
{
    static struct life life;
    struct worker *worker = &life.worker;
    struct mr_error error;

    life = (struct life){.birth = birth};
    worker->partition = birth->partition;
    worker->max_payload = birth->options->max_payload;
    worker->region = birth->region;
    worker->quota = (struct quota){.memory_limit = birth->options->memory_limit,
                                   .measure = quota_heap,
                                   .sessions = birth->options->max_sessions,
                                   .user_sessions = birth->options->user_sessions,
                                   .services = birth->options->max_services};
    worker->closed = channel_closed;
    worker->closed_context = &life;
    worker->answered = question_answered;
    worker->answered_context = &life;
    worker->notice = notice;
    worker->notice_context = &life;
    if (settle(&life) != 0)
        return 1;
    worker->io = uring_create(URING_ENTRIES, &error);
    if (worker->io == NULL || channels_init(worker, &error) != 0) {
        logline(LOGLINE_ERROR, worker->partition, "%s", error.text);
        return worker->io == NULL ? cannot_begin(worker, &error) : 1;
    }
    if (enter_sandbox(&life, &error) != 0) {
        logline(LOGLINE_ERROR, worker->partition, "%s", error.text);
        return cannot_begin(worker, &error);
    }
    worker->now = worker->io->ops->monotonic(worker->io);
    worker->recovering = true; /* which leaves completions of others to nobody */
    inherit_channels(&life);
    if (atomic_load_explicit(&worker->region->state, memory_order_acquire) == PARTITION_STOPPED)
        stop_partition(&life, worker->region->reason);
    else if (recover(&life, &error) != 0 && error.code == 0)
        stop_partition(&life, error.text);
    else if (worker->log == NULL) {
        /* Not damage, but a system that does not give what it takes: another worker tries again. */
        logline(LOGLINE_ERROR, worker->partition, "%s", error.text);
        return 1;
    }
    watch_supervisor(&life);
    channels_watch_all(worker);
    worker_resume_channels(worker);
    if (worker->stopped == NULL)
        atomic_store_explicit(&worker->region->state, PARTITION_SERVING, memory_order_release);
    tell(&life, CONTROL_READY, 0, 0, "");
    run(&life);
    return stop(&life);
}
