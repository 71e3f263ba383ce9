/* SPDX-License-Identifier: Apache-2.0 */
/* The datagram of notify.h. */
#include "engine/node/notify.h"

#include "ipc/sys.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int notify_send(const char *state, struct mr_error *error)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (path == NULL || path[0] == '\0')
        return 0;
    size_t length = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || length < 2 || length >= sizeof(address.sun_path))
        return error_set(error, "NOTIFY_SOCKET=%.150s: neither a path nor @name, or over %zu bytes", path,
                         sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, length);
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* the abstract namespace; its names end where the address does */
    int fd = sys_socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_system(error, errno, "cannot make a socket to tell NOTIFY_SOCKET=%s", path);
    struct iovec bytes = {.iov_base = (void *)(uintptr_t)state, .iov_len = strlen(state)};
    struct msghdr header = {.msg_name = &address,
                            .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length),
                            .msg_iov = &bytes,
                            .msg_iovlen = 1};
    int result = 0;
    if (sys_sendmsg(fd, &header, MSG_NOSIGNAL) < 0)
        result = error_system(error, errno, "cannot tell NOTIFY_SOCKET=%s \"%s\"", path, state);
    (void)sys_close(fd); /* the datagram is on its way or not */
    return result;
}
