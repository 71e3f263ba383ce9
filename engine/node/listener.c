/* SPDX-License-Identifier: Apache-2.0 */
/* The node's socket as a path: made, accepted from, removed. What is said on a connection is connection.c's.
 *
 * A path where somebody still listens is never taken over, whoever it is; but if he is dead, and only his heirs keep
 * his socket, they are waited for. A stale one is replaced: for the directory's own socket that is safe, because its
 * lock is held; for a path elsewhere (--socket) the moment between looking and binding is left. */
#include "engine/node/supervisor_parts.h"

#include "engine/node/access.h"
#include "engine/node/logline.h"
#include "ipc/handshake.h"
#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 256
#define ACCEPTS_PER_ROUND 16
#define LEFT_BEHIND_LIMIT (10 * MR_SECOND)
#define LEFT_BEHIND_POLL_MS 5

/* Whose process listens there, as the kernel knows it. */
static pid_t peer_of(int socket)
{
    struct ucred peer = {.pid = 0};
    socklen_t size = sizeof(peer);

    return sys_getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

/* A worker that its supervisor has left behind may still be dying when it has let go of the directory's lock: then the
 * socket outlives it by a moment. */
static bool is_left_behind(pid_t pid)
{
    return pid > 0 && sys_kill(pid, 0) != 0 && errno == ESRCH;
}

/* Does somebody listen there? 0: no. 1: what a dead process has left behind, which will go. -1 with *error. */
static int probe(const char *path, const struct sockaddr_un *address, struct mr_error *error)
{
    int socket = sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int result = 0;

    if (socket < 0)
        return error_system(error, errno, "--socket %s: cannot make a socket", path);
    if (sys_connect(socket, (const struct sockaddr *)address, sizeof(*address)) == 0) {
        pid_t pid = peer_of(socket);
        error_set(error, "--socket %s: the process with pid %d listens there; give another path", path, (int)pid);
        result = is_left_behind(pid) ? 1 : -1;
    } else if (errno != ECONNREFUSED && errno != ENOENT) {
        result = error_system(error, errno, "--socket %s: somebody else may be using it", path);
    }
    (void)sys_close(socket); /* only looked */
    return result;
}

/* Is something at the path that must not be removed? */
static int check_stale(const char *path, struct mr_error *error)
{
    struct stat status;
    struct sockaddr_un address;
    uint64_t end = sys_clock_ns(CLOCK_MONOTONIC) + LEFT_BEHIND_LIMIT;
    int result;

    if (sys_fstatat(AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : error_system(error, errno, "--socket %s: cannot look at what is there", path);
    if (!S_ISSOCK(status.st_mode))
        return error_set(error, "--socket %s: something is there that is not a socket; remove it or give another path",
                         path);
    if (handshake_address(path, &address, error) != 0)
        return -1;
    while ((result = probe(path, &address, error)) == 1 && sys_clock_ns(CLOCK_MONOTONIC) < end)
        if (sys_poll(NULL, 0, LEFT_BEHIND_POLL_MS) < 0 && errno != EINTR)
            return error_system(error, errno, "--socket %s: cannot wait for it", path);
    return result == 0 ? 0 : -1;
}

static int bind_path(struct supervisor *s, const char *path, struct mr_error *error)
{
    const struct access *access = &s->options->access;
    struct sockaddr_un address;
    struct stat status = {.st_ino = 0};

    if (handshake_address(path, &address, error) != 0 || access_bind(access, s->listener, &address, error) != 0)
        return -1;
    int result = access_dress_socket(access, path, &status, error);
    s->socket_device = status.st_dev;
    s->socket_inode = status.st_ino; /* to be removed in any case */
    if (result == 0 && sys_listen(s->listener, BACKLOG) != 0)
        result = error_system(error, errno, "--socket %s: cannot listen", path);
    return result;
}

int listener_open(struct supervisor *s, struct mr_error *error)
{
    const char *path = s->options->socket;

    if (check_stale(path, error) != 0)
        return -1;
    if (sys_unlink(path) != 0 && errno != ENOENT)
        return error_system(error, errno, "--socket %s: cannot remove the stale socket", path);
    s->listener = sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener < 0)
        return error_system(error, errno, "--socket %s: cannot make a socket", path);
    if (bind_path(s, path, error) == 0 && event_add(s, s->listener, event_name(EVENT_LISTENER, 0, 0), error) == 0) {
        s->listening = true;
        return 0;
    }
    listener_close(s);
    listener_remove(s);
    return -1;
}

/* Descriptors or memory have run out: the clients wait in the backlog, and the loop does not spin on them. */
static void pause_accepting(struct supervisor *s, int code)
{
    struct mr_error error;

    error_system(&error, code, "cannot accept a client; trying again");
    supervisor_complain(s, "%s", error.text);
    if (event_change(s, s->listener, event_name(EVENT_LISTENER, 0, 0), 0, &error) != 0)
        logline(LOGLINE_ERROR, 0, "%s", error.text);
    s->accept_paused = true;
    s->accept_again = s->now + ACCEPT_PAUSE;
}

void listener_resume(struct supervisor *s, bool at_once)
{
    struct mr_error error;

    if (!s->accept_paused || s->listener < 0 || (!at_once && s->now < s->accept_again))
        return;
    s->accept_paused = false;
    if (event_change(s, s->listener, event_name(EVENT_LISTENER, 0, 0), EPOLLIN, &error) != 0) {
        logline(LOGLINE_ERROR, 0, "%s", error.text);
        s->accept_paused = true;
        s->accept_again = s->now + ACCEPT_PAUSE;
    }
}

void listener_accept(struct supervisor *s)
{
    for (int i = 0; i < ACCEPTS_PER_ROUND && s->listener >= 0 && !s->accept_paused; i++) {
        int socket = sys_accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (socket >= 0)
            connection_add(s, socket);
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        else if (errno != EINTR && errno != ECONNABORTED) /* a client that has gone again */
            pause_accepting(s, errno);
    }
}

void listener_close(struct supervisor *s)
{
    if (s->listener < 0)
        return;
    if (s->listening)
        event_remove(s, s->listener);
    (void)sys_close(s->listener); /* nothing was written to it */
    s->listening = false;
    s->listener = -1;
}

void listener_remove(struct supervisor *s)
{
    const char *path = s->options->socket;
    struct stat status;

    if (s->socket_inode == 0 || sys_fstatat(AT_FDCWD, path, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        status.st_dev != s->socket_device || status.st_ino != s->socket_inode)
        return; /* removed or replaced by somebody else */
    if (sys_unlink(path) != 0)
        logline(LOGLINE_WARNING, 0, "cannot remove the socket %s (errno %d)", path, errno);
    s->socket_inode = 0;
}
