/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's birth: the fork, and in the child the letting go of all that is not the worker's, so that it can touch
 * nobody else's channels, keeps nobody's socket open, and dies with the supervisor. It keeps the directory's lock, its
 * region, its partition's channels, memory segments and memory snapshots, its end of the control socket, and the
 * standard streams. */
#include "engine/node/supervisor_parts.h"

#include "engine/node/logline.h"
#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

static void close_fd(int fd)
{
    if (fd >= 0)
        (void)sys_close(fd); /* the supervisor has its own copy: nothing is lost by what this says */
}

/* What the supervisor has for a partition that is not this worker's. */
static void let_go_of_partition(struct partition *other)
{
    close_fd(other->control);
    for (uint32_t i = 0; i < other->slots_end; i++)
        if (other->slots[i].state != SLOT_FREE)
            channel_unmap(&other->channels[i]);
    for (uint32_t i = 0; i < other->segment_count; i++)
        close_fd(other->segments[i]);
    for (unsigned i = 0; i < SNAPSHOTS_KEPT; i++)
        close_fd(other->snapshots[i]);
    /* Could only fail by our own mistake, and then the page stays mapped in one process more. */
    (void)sys_munmap(other->region, sizeof(*other->region));
    other->region = NULL;
}

/* A connection's eventfd serves all its channels; a worker closes a channel's descriptors with the channel, so each
 * gets a copy of its own, as if it had come by CONTROL_ADD. */
static bool own_wakes(struct partition *partition)
{
    for (uint32_t i = 0; i < partition->slots_end; i++) {
        if (partition->slots[i].state == SLOT_FREE)
            continue;
        int fd = sys_dup(partition->channels[i].client_wake_fd);
        if (fd < 0) {
            logline(LOGLINE_ERROR, partition->number, "worker: no descriptor for channel %" PRIu64 " (errno %d)",
                    partition->channels[i].channel_id, errno);
            return false;
        }
        partition->channels[i].client_wake_fd = fd;
    }
    return true;
}

static bool let_go(struct supervisor *s, struct partition *partition)
{
    if (!own_wakes(partition))
        return false;
    for (uint32_t place = 0; place < s->connections_max; place++)
        if (s->connections[place] != NULL) {
            close_fd(s->connections[place]->socket);
            close_fd(s->connections[place]->wake);
        }
    for (uint32_t p = 0; p < s->partition_count; p++)
        if (&s->partitions[p] != partition)
            let_go_of_partition(&s->partitions[p]);
    close_fd(partition->control);
    close_fd(s->listener);
    close_fd(s->signals);
    close_fd(s->epoll);
    close_fd(s->directory);
    return true;
}

/* A terminal's Ctrl-C and a service manager's SIGTERM go to the whole group: the supervisor decides what they mean, and
 * tells its workers over the control socket. */
static bool set_signals(const struct supervisor *s)
{
    static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};
    struct sigaction action = {.sa_handler = SIG_IGN};

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        if (sys_sigaction(ignored[i], &action, NULL) != 0)
            return false;
    action.sa_handler = SIG_DFL;
    return sys_sigaction(SIGCHLD, &action, NULL) == 0 && sys_sigprocmask(SIG_SETMASK, &s->former_mask, NULL) == 0;
}

static int run_child(struct supervisor *s, struct partition *partition, int control, pid_t parent)
{
    if (sys_prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        return 1; /* the supervisor has died meanwhile, and nobody is left to be told */
    if (!set_signals(s) || !let_go(s, partition)) {
        logline(LOGLINE_ERROR, partition->number, "worker: cannot begin (errno %d)", errno);
        return 1;
    }
    /* A processor of its own for each worker, and one more at least for their clients. */
    bool may_spin = s->partition_count <= s->options->cpu_count && s->partition_count < s->options->cpu_count_in_all;
    struct worker_birth birth = {.options = s->options,
                                 .identity = s->identity,
                                 .partition = partition->number,
                                 .core = partition->core,
                                 .may_spin = may_spin,
                                 .region = partition->region,
                                 .control = control,
                                 .channels = partition->channels,
                                 .memory_segments = partition->segments,
                                 .memory_segment_count = partition->segment_count,
                                 .memory_snapshots = partition->snapshots[0] >= 0 ? partition->snapshots : NULL};
    return s->setup->worker(&birth);
}

/* The pair of sockets, ours watched by the loop. */
static int make_control(struct supervisor *s, struct partition *partition, int *theirs, struct mr_error *error)
{
    int pair[2];

    if (sys_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return error_system(error, errno, "cannot make a control socket");
    partition->serial++;
    uint64_t name = event_name(EVENT_CONTROL, partition->number - 1, partition->serial);
    int result = 0;
    if (sys_fcntl(pair[0], F_SETFL, O_NONBLOCK) != 0)
        result = error_system(error, errno, "cannot make a control socket non-blocking");
    else
        result = event_add(s, pair[0], name, error);
    if (result != 0) {
        close_fd(pair[0]);
        close_fd(pair[1]);
        return -1;
    }
    partition->control = pair[0];
    *theirs = pair[1];
    return 0;
}

static void try_later(struct supervisor *s, struct partition *partition, const struct mr_error *error)
{
    uint64_t delay = supervisor_backoff(++partition->failures + 1);

    logline(LOGLINE_ERROR, partition->number, "no worker started, trying again in %" PRIu64 " ms: %s",
            delay / MR_MILLISECOND, error->text);
    partition->restart_at = s->now + delay;
}

void spawn_worker(struct supervisor *s, struct partition *partition)
{
    struct mr_error error;
    pid_t parent = getpid();
    int theirs = -1;

    if (make_control(s, partition, &theirs, &error) != 0) {
        try_later(s, partition, &error);
        return;
    }
    pid_t pid = sys_fork();
    if (pid == 0)
        _exit(run_child(s, partition, theirs, parent));
    int code = errno;
    close_fd(theirs);
    if (pid < 0) {
        close_fd(partition->control);
        partition->control = -1;
        error_system(&error, code, "cannot fork");
        try_later(s, partition, &error);
        return;
    }
    partition->pid = pid;
    partition->ready = false;
    partition->owes = false;
    partition->stop_owed = false;
    partition->killed = false;
    partition->segment_owed = -1;
    partition->kill_at = UINT64_MAX;
}
