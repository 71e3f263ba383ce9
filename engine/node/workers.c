/* SPDX-License-Identifier: Apache-2.0 */
/* What workers say, and their deaths: who is at fault, when the next one starts, and when none may any more.
 *
 * A worker that dies of its own fault was at a request, at an entry of the log or at a snapshot; the region says at
 * which. The second death in a row at the same request closes that request's channel, at the same entry or snapshot it
 * stops the partition, so that no input can keep a partition dying. Whatever else ends a worker (SIGKILL, the memory
 * killer) proves nothing against what it was at. */
#include "engine/node/supervisor_parts.h"

#include "engine/node/logline.h"
#include "engine/node/notify.h"
#include "ipc/sys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MESSAGES_PER_ROUND 64
#define REAP_INTERVAL (100 * MR_MILLISECOND)

uint64_t supervisor_backoff(unsigned failures)
{
    if (failures < 2)
        return 0;
    unsigned doublings = failures - 2;
    uint64_t delay = doublings < 20 ? BACKOFF_FIRST << doublings : BACKOFF_MOST;
    return delay < BACKOFF_MOST ? delay : BACKOFF_MOST;
}

/* ---- making and unmaking ---- */

static int pick_core(const struct options *options, uint32_t number)
{
    unsigned wanted = (number - 1) % options->cpu_count;

    for (size_t cpu = 0; options->pin && cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &options->cpus) && wanted-- == 0)
            return (int)cpu;
    return -1;
}

/* Where a partition's snapshots are kept by a node in memory. */
static int make_snapshots(struct partition *partition, struct mr_error *error)
{
    for (unsigned i = 0; i < SNAPSHOTS_KEPT; i++) {
        partition->snapshots[i] = sys_memfd_create("millrace-snapshot", MFD_CLOEXEC);
        if (partition->snapshots[i] < 0)
            return error_system(error, errno, "no memory for the snapshots of partition %" PRIu32, partition->number);
    }
    return 0;
}

int workers_init(struct supervisor *s, struct mr_error *error)
{
    s->partition_count = s->identity->partitions;
    s->partitions = calloc(s->partition_count, sizeof(*s->partitions));
    if (s->partitions == NULL)
        return error_set(error, "no memory for %" PRIu32 " partitions", s->partition_count);
    for (uint32_t p = 0; p < s->partition_count; p++) {
        struct partition *partition = &s->partitions[p];
        *partition = (struct partition){
            .number = p + 1, .control = -1, .segment_owed = -1, .kill_at = UINT64_MAX, .snapshots = {-1, -1}};
        partition->core = pick_core(s->options, p + 1);
        partition->channels = calloc(MR_CHANNELS_MAX, sizeof(*partition->channels));
        partition->slots = calloc(MR_CHANNELS_MAX, sizeof(*partition->slots));
        if (partition->channels == NULL || partition->slots == NULL)
            return error_set(error, "no memory for the channels of partition %" PRIu32, p + 1);
        partition->region =
            sys_mmap(NULL, sizeof(*partition->region), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (partition->region == MAP_FAILED) {
            partition->region = NULL;
            return error_system(error, errno, "no memory for the region of partition %" PRIu32, p + 1);
        }
        if (s->options->durability == DURABILITY_MEMORY && make_snapshots(partition, error) != 0)
            return -1;
    }
    return 0;
}

void workers_free(struct supervisor *s)
{
    for (uint32_t p = 0; p < s->partition_count && s->partitions != NULL; p++) {
        struct partition *partition = &s->partitions[p];
        if (partition->region != NULL) {
            slots_end(partition, "the node has stopped");
            (void)sys_munmap(partition->region, sizeof(*partition->region)); /* fails by our own mistake only */
        }
        for (uint32_t i = 0; i < partition->segment_count; i++)
            (void)sys_close(partition->segments[i]); /* memory: gone with this, as promised */
        for (unsigned i = 0; i < SNAPSHOTS_KEPT; i++)
            if (partition->snapshots[i] >= 0)
                (void)sys_close(partition->snapshots[i]); /* likewise */
        free(partition->segments);
        free(partition->channels);
        free(partition->slots);
    }
    free(s->partitions);
    s->partitions = NULL;
}

/* ---- to the worker ---- */

static void kill_worker(struct partition *partition, const char *why)
{
    if (partition->pid == 0)
        return; /* it has ended already; its number may be somebody else's by now */
    logline(LOGLINE_ERROR, partition->number, "worker %d is killed: %s", (int)partition->pid, why);
    partition->killed = true;
    partition->kill_at = UINT64_MAX;
    if (sys_kill(partition->pid, SIGKILL) != 0)
        logline(LOGLINE_ERROR, partition->number, "worker %d cannot be killed (errno %d)", (int)partition->pid, errno);
}

static void close_control(struct supervisor *s, struct partition *partition)
{
    if (partition->control < 0)
        return;
    event_remove(s, partition->control);
    (void)sys_close(partition->control); /* nobody is at the other end */
    partition->control = -1;
    partition->owes = false;
}

/* It is ending, most likely, and SIGCHLD comes next. */
static void lost_control(struct supervisor *s, struct partition *partition)
{
    close_control(s, partition);
    if (partition->kill_at == UINT64_MAX)
        partition->kill_at = s->now + GONE_LIMIT;
}

enum control_sent workers_send(struct supervisor *s, struct partition *partition, const struct control_message *message,
                               const int *fds, unsigned fd_count)
{
    struct mr_error error;

    if (partition->control < 0)
        return CONTROL_NO_ROOM; /* its death, which settles everything owed, is near */
    switch (control_send(partition->control, message, fds, fd_count, &error)) {
    case 0:
        return CONTROL_SENT;
    case 1:
        return CONTROL_NO_ROOM;
    case CONTROL_GONE:
        lost_control(s, partition);
        return CONTROL_NO_ROOM;
    default:
        logline(LOGLINE_ERROR, partition->number, "worker %d: %s", (int)partition->pid, error.text);
        if (fd_count == 0 && !partition->killed)
            kill_worker(partition, "it cannot be told what it must know");
        return CONTROL_FAILED;
    }
}

/* One more memfd for a log in memory, or one that a predecessor asked for. -1 with *error. */
static int segment_fd(struct supervisor *s, struct partition *partition, uint32_t slot, struct mr_error *error)
{
    if (s->options->durability != DURABILITY_MEMORY)
        return error_set(error, "this node keeps its log on disk");
    if (slot < partition->segment_count)
        return partition->segments[slot];
    if (slot > partition->segment_count)
        return error_set(error, "segment %" PRIu32 " comes before segment %" PRIu32, slot, partition->segment_count);
    int *grown = realloc(partition->segments, (slot + 1) * sizeof(*grown));
    if (grown == NULL)
        return error_set(error, "the supervisor has no memory");
    partition->segments = grown;
    int fd = sys_memfd_create("millrace-segment", MFD_CLOEXEC);
    if (fd < 0)
        return error_system(error, errno, "cannot make memory for a segment");
    if (sys_ftruncate(fd, (off_t)s->options->segment_bytes) != 0) {
        error_system(error, errno, "cannot size a segment to %" PRIu64 " bytes", s->options->segment_bytes);
        (void)sys_close(fd); /* never used */
        return -1;
    }
    partition->segments[partition->segment_count++] = fd;
    return fd;
}

/* False: no room. */
static bool pay_segment(struct supervisor *s, struct partition *partition)
{
    struct control_message message = {.kind = CONTROL_SEGMENT, .slot = (uint32_t)partition->segment_owed};
    struct mr_error error;
    int fd = segment_fd(s, partition, message.slot, &error);

    if (fd < 0)
        snprintf(message.text, sizeof(message.text), "%.*s", (int)sizeof(message.text) - 1, error.text);
    enum control_sent sent = workers_send(s, partition, &message, &fd, fd >= 0 ? 1 : 0);
    if (sent == CONTROL_FAILED && fd >= 0) { /* the worker waits for an answer: one without the descriptor */
        snprintf(message.text, sizeof(message.text), "the supervisor cannot hand a segment's memory over");
        sent = workers_send(s, partition, &message, NULL, 0);
    }
    return sent != CONTROL_NO_ROOM;
}

static bool pay_all(struct supervisor *s, struct partition *partition)
{
    if (partition->segment_owed >= 0) {
        if (!pay_segment(s, partition))
            return false;
        partition->segment_owed = -1;
    }
    if (!slots_pay(s, partition) || !questions_pay(s, partition)) /* in this order: see slots_user_ended() */
        return false;
    if (partition->stop_owed) {
        struct control_message stop = {.kind = CONTROL_STOP};
        if (workers_send(s, partition, &stop, NULL, 0) == CONTROL_NO_ROOM)
            return false;
        partition->stop_owed = false;
    }
    return true;
}

void workers_pay(struct supervisor *s, struct partition *partition)
{
    struct mr_error error;

    if (partition->pid == 0 || partition->control < 0)
        return;
    bool owed_before = partition->owes;
    partition->owes = !pay_all(s, partition);
    if (partition->control < 0)
        return;
    if ((owed_before || partition->owes) &&
        event_change(s, partition->control, event_name(EVENT_CONTROL, partition->number - 1, partition->serial),
                     partition->owes ? EPOLLIN | EPOLLOUT : EPOLLIN, &error) != 0)
        kill_worker(partition, error.text);
}

/* ---- from the worker ---- */

static void announce(struct supervisor *s)
{
    char line[256];
    struct mr_error error;

    for (uint32_t p = 0; p < s->partition_count; p++)
        if (!s->partitions[p].was_ready)
            return;
    if (s->announced || s->stopping)
        return;
    s->announced = true;
    int length = snprintf(line, sizeof(line), "ready socket=%s partitions=%" PRIu32 " pid=%d\n", s->options->socket,
                          s->partition_count, (int)getpid());
    if (sys_write(STDOUT_FILENO, line, (size_t)length) != length)
        logline(LOGLINE_WARNING, 0, "ready, but standard output cannot be written");
    if (notify_send("READY=1", &error) != 0)
        logline(LOGLINE_WARNING, 0, "%s", error.text);
}

/* It ends in an orderly way, and is not done: it gets its time anew, and what a slow disk takes for so many bytes. */
static void grant_time(struct supervisor *s, struct partition *partition, uint64_t bytes)
{
    uint64_t until = s->now + s->stop_limit + bytes / BUSY_BYTES_A_SECOND * MR_SECOND;

    if (partition->kill_at != UINT64_MAX && partition->kill_at < until)
        partition->kill_at = until;
}

/* The descriptor (-1: none) stays the caller's. */
static void handle(struct supervisor *s, struct partition *partition, const struct control_message *message, int fd)
{
    switch (message->kind) {
    case CONTROL_ADDED:
        slots_worker_added(s, partition, message->slot, message->channel_id);
        break;
    case CONTROL_CLOSED:
        slots_worker_closed(s, partition, message->slot, message->channel_id, message->text);
        break;
    case CONTROL_READY:
        partition->ready = true;
        partition->was_ready = true;
        partition->ready_at = s->now;
        announce(s);
        break;
    case CONTROL_WANT_SEGMENT:
        partition->segment_owed = message->slot;
        partition->owes = true;
        workers_pay(s, partition);
        break;
    case CONTROL_ANSWER:
        questions_answered(s, partition, message, fd);
        break;
    case CONTROL_BUSY:
        grant_time(s, partition, message->size);
        break;
    default:
        kill_worker(partition, "it sent a control message that only a supervisor sends");
        break;
    }
    slots_announce_stop(s, partition);
    questions_partition_stopped(s, partition);
}

/* Up to `most` messages. */
static void receive(struct supervisor *s, struct partition *partition, unsigned most)
{
    struct control_message message;
    struct mr_error error;
    int fds[CONTROL_FDS];
    unsigned fd_count;

    for (unsigned i = 0; i < most && partition->control >= 0; i++) {
        int result = control_receive(partition->control, &message, fds, &fd_count, &error);
        if (result == 1)
            return;
        if (result == CONTROL_GONE) {
            lost_control(s, partition);
            return;
        }
        if (result < 0) {
            kill_worker(partition, error.text);
            return;
        }
        handle(s, partition, &message, fd_count > 0 ? fds[0] : -1);
        for (unsigned fd = 0; fd < fd_count; fd++)
            (void)sys_close(fds[fd]); /* an answer's memory: the client has its own copy */
    }
}

void workers_event(struct supervisor *s, struct partition *partition, uint32_t events)
{
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        receive(s, partition, MESSAGES_PER_ROUND);
    if ((events & EPOLLOUT) != 0)
        workers_pay(s, partition);
}

/* ---- deaths ---- */

static bool is_own_fault(int status)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGSYS, SIGTRAP};

    for (size_t i = 0; WIFSIGNALED(status) && i < sizeof(faults) / sizeof(faults[0]); i++)
        if (WTERMSIG(status) == faults[i])
            return true;
    return false;
}

static void describe(char *text, size_t size, int status)
{
    if (WIFSIGNALED(status))
        snprintf(text, size, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}

/* For the reason that stands in the region. */
static void stop_partition(struct supervisor *s, struct partition *partition)
{
    atomic_store_explicit(&partition->region->state, PARTITION_STOPPED, memory_order_release);
    logline(LOGLINE_ERROR, partition->number, "stopped: %s", partition->region->reason);
    slots_announce_stop(s, partition);
}

/* Called between two workers: the region is the supervisor's alone. */
static void account_fault(struct supervisor *s, struct partition *partition, const char *how)
{
    struct region *region = partition->region;
    uint64_t channel = atomic_load_explicit(&region->reading_channel, memory_order_acquire);
    uint64_t position = atomic_load_explicit(&region->reading_position, memory_order_acquire);
    uint64_t index = atomic_load_explicit(&region->applying_index, memory_order_acquire);
    uint64_t snapshot = atomic_load_explicit(&region->restoring_index, memory_order_acquire);
    char why[120];

    if (snapshot != 0 && snapshot == partition->fault_snapshot) {
        snprintf(region->reason, sizeof(region->reason),
                 "reading the snapshot of index %" PRIu64
                 " killed the worker twice (%s); the partition stays stopped until the node is started anew",
                 snapshot, how);
        stop_partition(s, partition);
    }
    if (index != 0 && index == partition->fault_index) {
        snprintf(region->reason, sizeof(region->reason),
                 "entry %" PRIu64
                 " killed the worker twice (%s); the partition stays stopped until the node is started "
                 "anew",
                 index, how);
        stop_partition(s, partition);
    }
    if (channel != 0 && channel == partition->fault_channel && position == partition->fault_position) {
        snprintf(why, sizeof(why), "the request at %" PRIu64 " killed the worker twice (%.60s)", position, how);
        slots_poisoned(s, partition, channel, why);
    }
    partition->fault_channel = channel;
    partition->fault_position = position;
    partition->fault_index = index;
    partition->fault_snapshot = snapshot;
}

static void plan_restart(struct supervisor *s, struct partition *partition, pid_t pid, int status, const char *how)
{
    bool fails = is_own_fault(status) || WIFEXITED(status);

    /* Killed from outside after it had begun to serve: nothing says that the next one would fail. */
    if (partition->ready && (!fails || s->now - partition->ready_at >= SERVED_WELL))
        partition->failures = 0;
    partition->failures++;
    partition->restarts++;
    uint64_t delay = supervisor_backoff(partition->failures);
    partition->restart_at = s->now + delay;
    if (delay == 0)
        logline(LOGLINE_WARNING, partition->number, "worker %d ended: %s; restarted at once", (int)pid, how);
    else
        logline(LOGLINE_WARNING, partition->number, "worker %d ended: %s; restarted in %" PRIu64 " ms", (int)pid, how,
                delay / MR_MILLISECOND);
}

/* What becomes of the partition: a new worker, or (exit status) none. */
static void judge(struct supervisor *s, struct partition *partition, pid_t pid, int status, const char *how)
{
    if (s->stopping) {
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            return;
        logline(LOGLINE_ERROR, partition->number, "worker %d did not stop in an orderly way: %s", (int)pid, how);
        s->failed = true;
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == WORKER_CANNOT_RUN) {
        logline(LOGLINE_ERROR, partition->number, "no worker can run here; the node stops");
        s->failed = true;
        supervisor_stop(s);
    } else {
        plan_restart(s, partition, pid, status, how);
    }
}

static void worker_ended(struct supervisor *s, struct partition *partition, int status)
{
    char how[96];
    struct region *region = partition->region;
    pid_t pid = partition->pid;

    describe(how, sizeof(how), status);
    partition->pid = 0;
    receive(s, partition, UINT32_MAX); /* what it said before */
    close_control(s, partition);
    partition->stop_owed = false;
    partition->segment_owed = -1;
    partition->kill_at = UINT64_MAX;
    judge(s, partition, pid, status, how);
    partition->ready = false;
    if (is_own_fault(status))
        account_fault(s, partition, how);
    atomic_store_explicit(&region->reading_channel, 0, memory_order_relaxed);
    atomic_store_explicit(&region->reading_position, 0, memory_order_relaxed);
    atomic_store_explicit(&region->applying_index, 0, memory_order_relaxed);
    atomic_store_explicit(&region->restoring_index, 0, memory_order_relaxed);
    if (atomic_load_explicit(&region->state, memory_order_acquire) != PARTITION_STOPPED)
        atomic_store_explicit(&region->state, PARTITION_RESTARTING, memory_order_release);
    slots_announce_stop(s, partition);
    slots_worker_ended(s, partition);
    questions_partition_stopped(s, partition);
    questions_worker_ended(s, partition);
}

void workers_reap(struct supervisor *s)
{
    s->reap_again = false;
    for (uint32_t p = 0; p < s->partition_count; p++) {
        struct partition *partition = &s->partitions[p];
        int status = 0;
        if (partition->pid == 0)
            continue;
        pid_t pid = sys_waitpid(partition->pid, &status, WNOHANG);
        if (pid == partition->pid)
            worker_ended(s, partition, status);
        else if (pid < 0) /* its SIGCHLD has been taken: nobody else would ask again */
            s->reap_again = true;
    }
}

uint64_t workers_due(struct supervisor *s)
{
    if (s->reap_again)
        workers_reap(s);
    uint64_t next = s->reap_again ? s->now + REAP_INTERVAL : UINT64_MAX;

    for (uint32_t p = 0; p < s->partition_count; p++) {
        struct partition *partition = &s->partitions[p];
        if (partition->pid == 0 && !s->stopping && partition->restart_at <= s->now) {
            spawn_worker(s, partition);
            workers_pay(s, partition); /* questions that its predecessor had not answered */
        }
        if (partition->pid != 0 && partition->kill_at <= s->now)
            kill_worker(partition, s->stopping ? "it did not stop in time" : "it let go of its control socket");
        uint64_t due = partition->pid != 0 ? partition->kill_at : s->stopping ? UINT64_MAX : partition->restart_at;
        next = due < next ? due : next;
    }
    return next;
}

/* ---- the end ---- */

void workers_stop(struct supervisor *s)
{
    for (uint32_t p = 0; p < s->partition_count; p++) {
        struct partition *partition = &s->partitions[p];
        if (partition->pid == 0)
            continue;
        partition->kill_at = s->now + s->stop_limit;
        partition->stop_owed = true;
        partition->owes = true;
        workers_pay(s, partition);
    }
}

void workers_kill(struct supervisor *s)
{
    for (uint32_t p = 0; p < s->partition_count; p++)
        if (s->partitions[p].pid != 0 && !s->partitions[p].killed)
            kill_worker(&s->partitions[p], "a second signal asks for an end at once");
}

bool workers_alive(const struct supervisor *s)
{
    for (uint32_t p = 0; p < s->partition_count; p++)
        if (s->partitions[p].pid != 0)
            return true;
    return false;
}
