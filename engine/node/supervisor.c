/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's life: what it needs is made, workers are forked, then one loop of epoll until it is told to stop and
 * the last worker has ended. supervisor_parts.h says which file does what.
 *
 * The happy path: the socket listens (so that `status` can be asked during a long recovery), each partition's worker is
 * forked, each says CONTROL_READY, the ready line is printed; clients come and go; SIGTERM: the socket is closed,
 * workers are told to stop, each ends with 0, the socket's path is removed. What may go wrong: a worker dies
 * (workers.c), a client misbehaves (connection.c), descriptors or memory run out (whoever asked is refused, what must
 * be is tried again), a worker does not stop in time or a second signal comes (SIGKILL, exit status 1). */
#include "engine/node/supervisor_parts.h"

#include "engine/node/logline.h"
#include "engine/node/notify.h"
#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define EVENTS_PER_ROUND 64
/* The node's own, with some to spare; and what there is for others in any case. */
#define DESCRIPTORS_OWN 64
#define DESCRIPTORS_PARTITION 8
#define DESCRIPTORS_IN_MEMORY 64 /* segments of one that is kept in memory */
#define DESCRIPTORS_LEAST 16

int event_add(struct supervisor *s, int fd, uint64_t name, struct mr_error *error)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = name};

    return sys_epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) == 0
               ? 0
               : error_system(error, errno, "cannot add a descriptor to the supervisor's epoll set");
}

int event_change(struct supervisor *s, int fd, uint64_t name, uint32_t events, struct mr_error *error)
{
    struct epoll_event event = {.events = events, .data.u64 = name};

    return sys_epoll_ctl(s->epoll, EPOLL_CTL_MOD, fd, &event) == 0
               ? 0
               : error_system(error, errno, "cannot change what the supervisor waits for");
}

/* Before its close: a worker that has just been forked may hold a copy for a moment, which would keep it in the set. */
void event_remove(struct supervisor *s, int fd)
{
    if (sys_epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL) != 0)
        logline(LOGLINE_WARNING, 0, "cannot take a descriptor from the supervisor's epoll set (errno %d)", errno);
}

void supervisor_complain(struct supervisor *s, const char *format, ...)
{
    char text[600];
    va_list arguments;

    if (s->complained_at != 0 && s->now - s->complained_at < COMPLAINT_INTERVAL) {
        s->complaints_left_out++;
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (s->complaints_left_out > 0)
        logline(LOGLINE_WARNING, 0, "%s (and %" PRIu64 " such lines left out)", text, s->complaints_left_out);
    else
        logline(LOGLINE_WARNING, 0, "%s", text);
    s->complained_at = s->now;
    s->complaints_left_out = 0;
}

void supervisor_stop(struct supervisor *s)
{
    struct mr_error error;

    if (s->stopping)
        return;
    s->stopping = true;
    listener_close(s);
    if (notify_send("STOPPING=1", &error) != 0)
        logline(LOGLINE_WARNING, 0, "%s", error.text);
    workers_stop(s);
}

/* Where descriptors are too few for all connections and channels that there may be, there may be fewer: who comes too
 * late is refused, instead of everybody waiting for a descriptor to be accepted with. Half is for connections (a socket
 * and an eventfd each), half for channels (an eventfd, and the memory until it is mapped). */
static void fit_descriptors(struct supervisor *s, uint64_t limit)
{
    uint64_t each = DESCRIPTORS_PARTITION + (s->options->durability == DURABILITY_MEMORY ? DESCRIPTORS_IN_MEMORY : 0);
    uint64_t own = DESCRIPTORS_OWN + each * s->options->partitions;
    uint64_t left = limit > own + DESCRIPTORS_LEAST ? limit - own : DESCRIPTORS_LEAST;
    uint64_t channels = (uint64_t)s->channels_max * s->options->partitions;

    if (2 * (s->connections_max + channels) <= left)
        return;
    s->few_descriptors = true;
    if (s->connections_max > left / 4)
        s->connections_max = (unsigned)(left / 4);
    s->channels_in_all = (unsigned)((left - 2 * (uint64_t)s->connections_max) / 2);
    logline(LOGLINE_WARNING, 0,
            "the limit of open descriptors is %" PRIu64 " (ulimit -n, or LimitNOFILE= in a systemd unit): at most %u "
            "connections and %u channels are possible",
            limit, s->connections_max, s->channels_in_all);
}

/* As many descriptors as we are allowed: each channel takes some. */
static void raise_descriptor_limit(struct supervisor *s)
{
    struct rlimit limit;

    if (sys_getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    rlim_t former = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (former != limit.rlim_max && sys_setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        logline(LOGLINE_WARNING, 0, "the limit of open descriptors stays as it is (errno %d)", errno);
        limit.rlim_cur = former;
    }
    fit_descriptors(s, limit.rlim_cur);
}

/* SIGTERM, SIGINT and SIGCHLD are read from a descriptor; a broken pipe is an error code, not a death. */
static int open_signals(struct supervisor *s, struct mr_error *error)
{
    sigset_t mask;
    struct sigaction ignore = {.sa_handler = SIG_IGN}, normal = {.sa_handler = SIG_DFL};

    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGCHLD);
    if (sys_sigaction(SIGPIPE, &ignore, NULL) != 0 || sys_sigaction(SIGCHLD, &normal, NULL) != 0 ||
        sys_sigaction(SIGTERM, &normal, NULL) != 0 || sys_sigaction(SIGINT, &normal, NULL) != 0 ||
        sys_sigprocmask(SIG_BLOCK, &mask, &s->former_mask) != 0)
        return error_system(error, errno, "cannot set up signals");
    /* Whoever started us may have had them blocked; workers are not to inherit that. */
    sigdelset(&s->former_mask, SIGTERM);
    sigdelset(&s->former_mask, SIGINT);
    sigdelset(&s->former_mask, SIGCHLD);
    s->signals = sys_signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals < 0)
        return error_system(error, errno, "cannot read signals from a descriptor");
    return event_add(s, s->signals, event_name(EVENT_SIGNAL, 0, 0), error);
}

static int set_up(struct supervisor *s, struct mr_error *error)
{
    raise_descriptor_limit(s);
    s->connections = calloc(s->connections_max, sizeof(*s->connections));
    if (s->connections == NULL)
        return error_set(error, "no memory for %u connections", s->connections_max);
    s->epoll = sys_epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0)
        return error_system(error, errno, "cannot make an epoll set");
    if (!s->identity->memory) {
        s->directory = sys_open(s->options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
        if (s->directory < 0)
            return error_system(error, errno, "--dir %s: cannot open the data directory", s->options->dir);
    }
    if (channel_ids_open(&s->ids, s->directory, s->options->dir, error) != 0)
        return -1;
    if (workers_init(s, error) != 0 || open_signals(s, error) != 0)
        return -1;
    return listener_open(s, error);
}

static void tear_down(struct supervisor *s)
{
    workers_free(s); /* before the connections: pages say why before the sockets close */
    for (uint32_t place = 0; s->connections != NULL && place < s->connections_max; place++)
        if (s->connections[place] != NULL)
            connection_drop(s, s->connections[place]);
    free(s->connections);
    listener_close(s);
    listener_remove(s);
    const int fds[] = {s->signals, s->epoll, s->directory};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            (void)sys_close(fds[i]); /* nothing was written to any */
}

static void take_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;
    ssize_t size;

    while ((size = sys_read(s->signals, &info, sizeof(info))) == (ssize_t)sizeof(info) ||
           (size < 0 && errno == EINTR)) {
        if (size < 0 || info.ssi_signo == SIGCHLD)
            continue; /* children are looked at below, however many signals fell together */
        if (s->signalled != 0 && s->now < s->signalled + SIGNAL_AGAIN)
            continue; /* the same one, sent to the process and to its group, as timeout(1) does */
        if (s->signalled != 0) {
            s->failed = true;
            workers_kill(s);
        } else {
            s->signalled = s->now;
            logline(LOGLINE_INFO, 0, "stopping: signal %" PRIu32, info.ssi_signo);
            supervisor_stop(s);
        }
    }
    workers_reap(s);
}

static void dispatch(struct supervisor *s, const struct epoll_event *event)
{
    uint32_t place = (uint32_t)(event->data.u64 >> 32) & 0xffffff;
    uint32_t serial = (uint32_t)event->data.u64;

    switch ((enum event_kind)(event->data.u64 >> 56)) {
    case EVENT_SIGNAL:
        take_signals(s);
        break;
    case EVENT_LISTENER:
        listener_accept(s);
        break;
    case EVENT_CONTROL:
        if (s->partitions[place].serial == serial && s->partitions[place].control >= 0)
            workers_event(s, &s->partitions[place], event->events);
        break;
    case EVENT_CONNECTION: {
        struct connection *connection = s->connections[place];
        if (connection != NULL && connection->serial == serial && !connection->doomed)
            connection_event(s, connection);
        break;
    }
    }
}

/* Milliseconds until something is due, rounded up; -1: nothing is. */
static int timeout_until(const struct supervisor *s, uint64_t due)
{
    if (s->accept_paused && s->listener >= 0 && s->accept_again < due)
        due = s->accept_again;
    if (due == UINT64_MAX)
        return -1;
    uint64_t wait = due > s->now ? (due - s->now + MR_MILLISECOND - 1) / MR_MILLISECOND : 0;
    return wait < 60000 ? (int)wait : 60000;
}

static int run(struct supervisor *s, struct mr_error *error)
{
    struct epoll_event events[EVENTS_PER_ROUND];

    for (;;) {
        s->now = sys_clock_ns(CLOCK_MONOTONIC);
        listener_resume(s, false);
        uint64_t due = workers_due(s), handshakes = connections_due(s);
        if (handshakes < due)
            due = handshakes;
        connection_drop_doomed(s);
        if (s->stopping && !workers_alive(s))
            return 0;
        int count = sys_epoll_wait(s->epoll, events, EVENTS_PER_ROUND, timeout_until(s, due));
        if (count < 0 && errno != EINTR)
            return error_system(error, errno, "the supervisor cannot wait for events");
        s->now = sys_clock_ns(CLOCK_MONOTONIC);
        for (int i = 0; i < count; i++)
            dispatch(s, &events[i]);
        connection_drop_doomed(s);
    }
}

int supervisor_run(const struct supervisor_setup *setup)
{
    struct mr_error error;
    struct supervisor s = {
        .setup = setup,
        .options = setup->options,
        .identity = setup->identity,
        .connections_max = setup->connections_max != 0 ? setup->connections_max : MR_CONNECTIONS_MAX,
        .channels_max = setup->channels_max != 0 ? setup->channels_max : MR_CHANNELS_MAX,
        .stop_limit = setup->stop_limit != 0 ? setup->stop_limit : STOP_LIMIT_DEFAULT,
        .handshake_limit = setup->handshake_limit != 0 ? setup->handshake_limit : MR_HANDSHAKE_LIMIT,
        .handshake_due = UINT64_MAX,
        .directory = -1,
        .epoll = -1,
        .signals = -1,
        .listener = -1,
    };

    mr_assert(s.channels_max <= MR_CHANNELS_MAX && s.options->cpu_count > 0);
    if (set_up(&s, &error) != 0 || run(&s, &error) != 0) {
        logline(LOGLINE_ERROR, 0, "%s", error.text);
        s.failed = true;
    }
    tear_down(&s); /* workers that are left, after an error, die with us */
    if (!s.failed)
        logline(LOGLINE_INFO, 0, "stopped");
    return s.failed ? 1 : 0;
}
