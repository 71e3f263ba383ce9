/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that renews a handle's sessions, so that they outlive a program that is busy or asleep, and end with one
 * that is dead or stopped.
 *
 * It has a handle of its own (so a connection, channels and a memory that nobody else touches), and learns what to do
 * by messages on a socketpair: sessions to be renewed, and to stop. It blocks all signals, so none of the program's
 * handlers ever runs in it. A session is renewed a third of its timeout after it was opened, and then each time as
 * long after the renewal before; one renewal at a time. It never waits for one partition alone: a channel is asked for
 * and used once it is there, so that a partition which recovers for minutes keeps no other's session from being
 * renewed.
 *
 * When its connection breaks, it makes another as soon as there is a node, and renews all at once, for what was on its
 * way may be lost. A session that the node no longer knows, or that is in another directory than the node serves, is
 * forgotten; the caller's own thread is told by the node. */
#include "ipc/client/renew.h"

#include "ipc/client/connection.h"
#include "ipc/client/keep_alive.h"
#include "ipc/client/wait.h"
#include "ipc/sys.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define CONNECT_AGAIN_AT_MOST (200 * MR_MILLISECOND) /* and a quarter of the time between renewals */
#define CONNECT_AGAIN_AT_LEAST (5 * MR_MILLISECOND)
#define CONNECT_FOR (10 * MR_SECOND)

/* The messages. */
struct order {
    uint32_t partition; /* 0: stop */
    uint64_t session_id;
    uint8_t directory[16]; /* that the session is in */
};

struct renewal {
    uint32_t partition;
    uint64_t session_id;
    uint8_t directory[16];
    uint64_t due; /* time of the next KeepAlive */
    bool on_its_way;
    bool lost;
};

/* What the thread begins with, and its own. */
struct renewer {
    int orders;                                  /* its end of the socketpair */
    char *path;                                  /* of the node's socket */
    uint64_t interval;                           /* between renewals */
    uint64_t again_after;                        /* between two tries to connect */
    struct mr_client *client;                    /* NULL: not connected */
    uint64_t connect_at;                         /* then: when to try again */
    struct renewal *sessions[MR_PARTITIONS_MAX]; /* the latest of each partition, by partition - 1 */
    bool stop;
    pthread_mutex_t awake; /* the thread's but while it rests: a fork()ed child sees by it whether all this is whole */
};

/* ---- The thread ---- */

static uint64_t now_ns(void)
{
    return sys_clock_ns(CLOCK_MONOTONIC);
}

static void disconnect(struct renewer *renewer, uint64_t now)
{
    if (renewer->client != NULL)
        client_free(renewer->client);
    renewer->client = NULL;
    renewer->connect_at = now + renewer->again_after;
    for (unsigned i = 0; i < MR_PARTITIONS_MAX; i++)
        if (renewer->sessions[i] != NULL) {
            renewer->sessions[i]->on_its_way = false;
            renewer->sessions[i]->due = now;
        }
}

static void take_orders(struct renewer *renewer, uint64_t now)
{
    struct order order;
    struct iovec bytes = {&order, sizeof(order)};
    struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1};
    ssize_t size;

    while ((size = sys_recvmsg(renewer->orders, &header, MSG_DONTWAIT)) == (ssize_t)sizeof(order)) {
        if (order.partition == 0) {
            renewer->stop = true;
            return;
        }
        struct renewal **session = &renewer->sessions[order.partition - 1];
        if (*session != NULL && (*session)->on_its_way) {
            /* The answer would be given to memory that is freed: leave with the connection. */
            disconnect(renewer, now);
            renewer->connect_at = now;
        }
        free(*session);
        *session = calloc(1, sizeof(**session));
        if (*session == NULL)
            continue; /* without memory the session is not renewed, and ends */
        **session = (struct renewal){
            .partition = order.partition, .session_id = order.session_id, .due = now + renewer->interval};
        memcpy((*session)->directory, order.directory, sizeof(order.directory));
    }
    if (size == 0)
        renewer->stop = true; /* the handle is gone */
}

static void connect_again(struct renewer *renewer, uint64_t now)
{
    struct mr_options options = {
        .size = sizeof(options), .ring_bytes = MR_RING_BYTES_MIN, .reconnect_ns = MR_NO_RECONNECT};

    if (options.ring_bytes < (uint64_t)sysconf(_SC_PAGESIZE))
        options.ring_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    enum mr_status status = client_make(renewer->path, &options, renewer->orders, &renewer->client);
    if (status == MR_OK)
        status = connection_wait_welcome(renewer->client, now + CONNECT_FOR);
    while (status == MR_CANCELED && !renewer->stop) {
        take_orders(renewer, now_ns());
        status = connection_wait_welcome(renewer->client, now + CONNECT_FOR);
    }
    if (status != MR_OK)
        disconnect(renewer, now);
}

static void renewed(struct mr_client *client, const struct mr_result *result)
{
    struct renewal *session = result->arg;

    (void)client;
    session->on_its_way = false;
    session->lost = result->status == MR_FORBIDDEN || result->status == MR_UNAUTHORIZED;
}

/* Sends what is due. Returns when there is something to be done next. */
static uint64_t renew(struct renewer *renewer, uint64_t now)
{
    uint64_t next = NEVER;

    for (unsigned i = 0; i < MR_PARTITIONS_MAX; i++) {
        struct renewal *session = renewer->sessions[i];
        if (session == NULL || session->lost || session->on_its_way)
            continue;
        if (session->partition > renewer->client->partitions ||
            memcmp(session->directory, renewer->client->directory, sizeof(session->directory)) != 0) {
            session->lost = true;
            continue;
        }
        struct link *link;
        (void)connection_link(renewer->client, session->partition, &link); /* NULL: no memory just now */
        if (link != NULL && link->stage == LINK_CLOSED) {
            disconnect(renewer, now); /* the next connection has a new one */
            return NEVER;
        }
        if (link != NULL && connection_ask(link) == MR_OK && link->stage == LINK_OPEN && session->due <= now) {
            struct mr_then then = {renewed, session};
            if (keep_alive_renew(link, session->session_id, then) == MR_OK) {
                session->on_its_way = true;
                session->due = now + renewer->interval;
                continue; /* its answer wakes us */
            }
        }
        /* Not open: the socket wakes us, and a new attempt does no harm. */
        uint64_t at = session->due > now ? session->due : now + renewer->again_after;
        next = at < next ? at : next;
    }
    return next;
}

/* Sleeps until there is something to do. */
static void rest(struct renewer *renewer, uint64_t now, uint64_t until)
{
    struct pollfd fds[2] = {{.fd = renewer->orders, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    int timeout = -1;

    if (renewer->client != NULL) {
        fds[1].fd = renewer->client->poller;
        if (!client_arm(renewer->client))
            return;
    }
    if (until != NEVER) {
        uint64_t ms = until > now ? (until - now + MR_MILLISECOND - 1) / MR_MILLISECOND : 0;
        timeout = ms < INT_MAX ? (int)ms : INT_MAX;
    }
    (void)pthread_mutex_unlock(&renewer->awake);
    (void)sys_poll(fds, 2, timeout); /* interrupted or failed: it is looked at again */
    (void)pthread_mutex_lock(&renewer->awake);
}

static void free_renewer(struct renewer *renewer)
{
    for (unsigned i = 0; i < MR_PARTITIONS_MAX; i++)
        free(renewer->sessions[i]);
    (void)sys_close(renewer->orders);
    free(renewer->path);
    free(renewer);
}

static void *renewer_thread(void *argument)
{
    struct renewer *renewer = argument;

    (void)pthread_mutex_lock(&renewer->awake);
    for (;;) {
        uint64_t now = now_ns();
        uint64_t next = NEVER;
        take_orders(renewer, now);
        if (renewer->stop)
            break;
        if (renewer->client == NULL && renewer->connect_at <= now)
            connect_again(renewer, now);
        if (renewer->client != NULL) {
            client_run_once(renewer->client);
            if (renewer->client->gone)
                disconnect(renewer, now);
            else
                next = renew(renewer, now);
        }
        rest(renewer, now, renewer->client != NULL ? next : renewer->connect_at);
    }
    if (renewer->client != NULL)
        client_free(renewer->client);
    (void)pthread_mutex_unlock(&renewer->awake);
    (void)pthread_mutex_destroy(&renewer->awake);
    free_renewer(renewer);
    return NULL;
}

/* ---- The caller's end ---- */

static enum mr_status send_order(struct mr_client *client, struct order order)
{
    struct iovec bytes = {&order, sizeof(order)};
    struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1};
    struct mr_error error;

    while (sys_sendmsg(client->renewer, &header, MSG_NOSIGNAL) < 0) {
        if (errno == EINTR)
            continue;
        error_system(&error, errno, "cannot tell the thread that renews sessions");
        return client_fail_error(client, MR_INTERNAL, &error);
    }
    return MR_OK;
}

/* Starts it with all signals blocked, which a thread inherits. */
static int start_thread(struct mr_client *client, struct renewer *renewer)
{
    sigset_t all;
    sigset_t before;

    sigfillset(&all);
    int result = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (result != 0)
        return result;
    result = pthread_create(&client->renewer_thread, NULL, renewer_thread, renewer);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL); /* what it was can be set again */
    return result;
}

enum mr_status renewer_start(struct mr_client *client)
{
    struct mr_error error;
    int ends[2];

    if (client->renewer >= 0)
        return MR_OK;
    if (sys_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        error_system(&error, errno, "cannot make a socketpair to the thread that renews sessions");
        return client_fail_error(client, MR_INTERNAL, &error);
    }
    struct renewer *renewer = calloc(1, sizeof(*renewer));
    int code = ENOMEM;
    if (renewer != NULL && (renewer->path = strdup(client->path)) != NULL) {
        renewer->orders = ends[1];
        renewer->awake = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        uint64_t quarter = client->renew_every / 4;
        renewer->interval = client->renew_every;
        renewer->again_after = quarter > CONNECT_AGAIN_AT_MOST    ? CONNECT_AGAIN_AT_MOST
                               : quarter < CONNECT_AGAIN_AT_LEAST ? CONNECT_AGAIN_AT_LEAST
                                                                  : quarter;
        code = start_thread(client, renewer);
        if (code == 0) {
            client->renewer = ends[0];
            client->renewing = renewer;
            return MR_OK;
        }
    }
    if (renewer != NULL)
        free(renewer->path);
    free(renewer);
    (void)sys_close(ends[0]);
    (void)sys_close(ends[1]);
    error_system(&error, code, "cannot start the thread that renews sessions");
    return client_fail(client, MR_NO_MEMORY, "%s", error.text);
}

enum mr_status renewer_add(struct link *link)
{
    struct mr_client *client = link->client;
    struct order order = {.partition = link->partition, .session_id = link->session.id};

    memcpy(order.directory, client->directory, sizeof(order.directory));
    enum mr_status status = send_order(client, order);
    link->session.renewed = status == MR_OK;
    return status;
}

void renewer_stop(struct mr_client *client)
{
    if (client->renewer < 0)
        return;
    /* Should it not come through, the end of the socketpair says the same; a forked child that holds it would delay
     * that. */
    (void)send_order(client, (struct order){.partition = 0});
    (void)sys_close(client->renewer);
    client->renewer = -1;
    (void)pthread_join(client->renewer_thread, NULL);
    client->renewing = NULL;
}

void renewer_forget(struct mr_client *client)
{
    struct renewer *renewer = client->renewing;

    if (client->renewer < 0)
        return;
    (void)sys_close(client->renewer);
    client->renewer = -1;
    if (pthread_mutex_trylock(&renewer->awake) != 0)
        return; /* it was at something just then: what it had open stays */
    if (renewer->client != NULL)
        client_forget(renewer->client);
    free_renewer(renewer);
}
