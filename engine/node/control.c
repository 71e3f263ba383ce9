/* SPDX-License-Identifier: Apache-2.0 */
/* Packets between supervisor and worker: see control.h for what they mean. One struct control_message a packet, of
 * exactly its size, up to CONTROL_FDS descriptors beside it. */
#include "engine/node/control.h"

#include "ipc/sys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

int control_send(int socket, const struct control_message *message, const int *fds, unsigned fd_count,
                 struct mr_error *error)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(CONTROL_FDS * sizeof(int))] = {0};
    struct iovec bytes = {.iov_base = (void *)(uintptr_t)message, .iov_len = sizeof(*message)};
    struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1};
    ssize_t sent;

    mr_assert(fd_count <= CONTROL_FDS);
    if (fd_count > 0) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
    }
    do
        sent = sys_sendmsg(socket, &header, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent == (ssize_t)sizeof(*message))
        return 0;
    if (sent >= 0)
        return error_set(error, "a control message was cut at %zd bytes", sent);
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return 1;
    if (errno == EPIPE || errno == ECONNRESET)
        return CONTROL_GONE;
    return error_system(error, errno, "cannot send a control message of kind %" PRIu32, message->kind);
}

/* Takes the descriptors over. False if there were more than there may be; then those that came are in fds all the
 * same. */
static bool take_rights(struct msghdr *header, int fds[CONTROL_FDS], unsigned *fd_count)
{
    bool all = (header->msg_flags & MSG_CTRUNC) == 0;

    *fd_count = 0;
    for (struct cmsghdr *one = CMSG_FIRSTHDR(header); one != NULL; one = CMSG_NXTHDR(header, one)) {
        if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (one->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(one) + i * sizeof(int), sizeof(fd));
            if (*fd_count < CONTROL_FDS) {
                fds[(*fd_count)++] = fd;
            } else {
                (void)sys_close(fd); /* not what it should be anyway */
                all = false;
            }
        }
    }
    return all;
}

static int refuse(int *fds, unsigned *fd_count, struct mr_error *error, const char *what)
{
    for (unsigned i = 0; i < *fd_count; i++)
        (void)sys_close(fds[i]); /* never used */
    *fd_count = 0;
    return error_set(error, "a control message %s", what);
}

int control_receive(int socket, struct control_message *message, int fds[CONTROL_FDS], unsigned *fd_count,
                    struct mr_error *error)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(CONTROL_FDS * sizeof(int))];
    struct iovec bytes = {.iov_base = message, .iov_len = sizeof(*message)};
    struct msghdr header = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    ssize_t size;

    *fd_count = 0;
    do
        size = sys_recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 1;
    if (size < 0 && errno == ECONNRESET)
        return CONTROL_GONE;
    if (size < 0)
        return error_system(error, errno, "cannot receive a control message");
    bool all = take_rights(&header, fds, fd_count);
    if (size == 0 && *fd_count == 0)
        return CONTROL_GONE;
    /* An answer whose descriptor could not be opened costs the one who asked, not the worker. */
    if (!all && (*fd_count > 0 || size != (ssize_t)sizeof(*message) || message->kind != CONTROL_ANSWER))
        return refuse(fds, fd_count, error, "came with more descriptors than it may have, or than can be opened");
    if (size != (ssize_t)sizeof(*message) || (header.msg_flags & MSG_TRUNC) != 0)
        return refuse(fds, fd_count, error, "has the wrong size");
    if (message->kind < CONTROL_ADD || message->kind > CONTROL_WANT_SEGMENT)
        return refuse(fds, fd_count, error, "has an unknown kind");
    if (memchr(message->text, '\0', sizeof(message->text)) == NULL)
        return refuse(fds, fd_count, error, "has a text without an end");
    return 0;
}
