/* SPDX-License-Identifier: Apache-2.0 */
/* Packets on the node's socket: see handshake.h. Knows how a message becomes a packet and back, not what it means.
 *
 * The peer may be anybody: a packet is taken whole or not at all, its size and descriptors are bounded before anything
 * is decoded, and of a packet that is refused nothing stays open. */
#include "ipc/handshake.h"

#include "ipc/sys.h"

#include <millrace/limits.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* -- sending ------------------------------------------------------------------------------------------------------- */

static enum handshake_result send_failed(int code, struct mr_error *error)
{
    if (code == EAGAIN || code == EWOULDBLOCK)
        return HANDSHAKE_AGAIN;
    if (code == EPIPE || code == ECONNRESET)
        return HANDSHAKE_CLOSED;
    error_system(error, code, "cannot send on the node's socket");
    return HANDSHAKE_FAILED;
}

static enum handshake_result send_message(int socket, const ProtobufCMessage *message, const int *fds,
                                          unsigned fd_count, struct mr_error *error)
{
    uint8_t packet[HANDSHAKE_BYTES];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(HANDSHAKE_FDS * sizeof(int))] = {0};
    size_t size = protobuf_c_message_get_packed_size(message);

    mr_assert(fd_count <= HANDSHAKE_FDS);
    if (size > sizeof(packet)) {
        error_set(error, "a message of %zu bytes does not fit in a packet of %d", size, HANDSHAKE_BYTES);
        return HANDSHAKE_FAILED;
    }
    protobuf_c_message_pack(message, packet);

    struct iovec bytes = {.iov_base = packet, .iov_len = size};
    struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1};
    if (fd_count > 0) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
    }
    for (;;) {
        if (sys_sendmsg(socket, &header, MSG_NOSIGNAL) >= 0)
            return HANDSHAKE_OK;
        if (errno != EINTR)
            return send_failed(errno, error);
    }
}

enum handshake_result handshake_send_client(int socket, const Millrace__V1__ClientMessage *message,
                                            struct mr_error *error)
{
    return send_message(socket, &message->base, NULL, 0, error);
}

enum handshake_result handshake_send_node(int socket, const Millrace__V1__NodeMessage *message, const int *fds,
                                          unsigned fd_count, struct mr_error *error)
{
    return send_message(socket, &message->base, fds, fd_count, error);
}

/* -- receiving ----------------------------------------------------------------------------------------------------- */

/* What came beside the bytes. The kernel has put these descriptors into our table: each is taken or closed. */
struct rights {
    int fds[HANDSHAKE_FDS];
    unsigned count;
    bool too_many; /* more than fit, or something that is no descriptor */
    bool short_of; /* the table had no room for all of them */
};

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        (void)sys_close(fds[i]); /* a stranger's descriptor: nothing of ours is lost by what it says */
}

static void take_rights(struct msghdr *header, struct rights *rights)
{
    rights->count = 0;
    rights->too_many = false;
    for (struct cmsghdr *one = CMSG_FIRSTHDR(header); one != NULL; one = CMSG_NXTHDR(header, one)) {
        if (one->cmsg_level != SOL_SOCKET || one->cmsg_type != SCM_RIGHTS) {
            rights->too_many = true;
            continue;
        }
        size_t count = (one->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(one) + i * sizeof(int), sizeof(fd));
            if (rights->count < HANDSHAKE_FDS) {
                rights->fds[rights->count++] = fd;
            } else {
                rights->too_many = true;
                close_all(&fd, 1);
            }
        }
    }
    /* Some were left out: those that the table had no room for, or, all places here being taken, more than may come. */
    bool cut = (header->msg_flags & MSG_CTRUNC) != 0;
    rights->short_of = cut && header->msg_control != NULL && rights->count < HANDSHAKE_FDS;
    rights->too_many |= cut && !rights->short_of;
}

/* One packet into packet[HANDSHAKE_BYTES]. With take == NULL none may bring descriptors; the kernel drops them then
 * before they are ours. */
static enum handshake_result receive_packet(int socket, uint8_t *packet, size_t *size, struct rights *take,
                                            struct mr_error *error)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(HANDSHAKE_FDS * sizeof(int))];
    struct iovec bytes = {.iov_base = packet, .iov_len = HANDSHAKE_BYTES};
    struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1};
    struct rights rights = {.count = 0};
    ssize_t count;

    if (take != NULL) {
        header.msg_control = control;
        header.msg_controllen = sizeof(control);
    }
    /* Reset is said once, ahead of all that stands there to be read: the peer has left something unread, and perhaps
     * told why. */
    for (bool reset = false;;) {
        count = sys_recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
        if (count >= 0 || (errno != EINTR && (errno != ECONNRESET || reset)))
            break;
        reset = reset || errno == ECONNRESET;
    }
    if (count < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return HANDSHAKE_AGAIN;
        if (errno == ECONNRESET)
            return HANDSHAKE_CLOSED;
        error_system(error, errno, "cannot receive on the node's socket");
        return HANDSHAKE_FAILED;
    }
    take_rights(&header, &rights);
    if (rights.too_many || (header.msg_flags & MSG_TRUNC) != 0) {
        close_all(rights.fds, rights.count);
        if (rights.too_many)
            error_set(error, "a packet came with more descriptors than the %d it may have",
                      take != NULL ? HANDSHAKE_FDS : 0);
        else
            error_set(error, "a packet came with more than %d bytes", HANDSHAKE_BYTES);
        return HANDSHAKE_FAILED;
    }
    if (count == 0) { /* end of file looks like a packet of no bytes, and nobody sends such a packet */
        close_all(rights.fds, rights.count);
        return HANDSHAKE_CLOSED;
    }
    *size = (size_t)count;
    if (take != NULL)
        *take = rights;
    return HANDSHAKE_OK;
}

enum handshake_result handshake_receive_client(int socket, Millrace__V1__ClientMessage **message,
                                               struct mr_error *error)
{
    uint8_t packet[HANDSHAKE_BYTES];
    size_t size;
    enum handshake_result result = receive_packet(socket, packet, &size, NULL, error);

    if (result != HANDSHAKE_OK)
        return result;
    *message = millrace__v1__client_message__unpack(NULL, size, packet);
    if (*message != NULL)
        return HANDSHAKE_OK;
    error_set(error, "a packet of %zu bytes from a client does not decode", size);
    return HANDSHAKE_FAILED;
}

enum handshake_result handshake_receive_node(int socket, Millrace__V1__NodeMessage **message, int fds[HANDSHAKE_FDS],
                                             unsigned *fd_count, struct mr_error *error)
{
    uint8_t packet[HANDSHAKE_BYTES];
    size_t size;
    struct rights rights;
    enum handshake_result result = receive_packet(socket, packet, &size, &rights, error);

    if (result != HANDSHAKE_OK)
        return result;
    *message = millrace__v1__node_message__unpack(NULL, size, packet);
    if (*message == NULL) {
        close_all(rights.fds, rights.count);
        error_set(error, "a packet of %zu bytes from the node does not decode", size);
        return HANDSHAKE_FAILED;
    }
    if (rights.short_of) {
        close_all(rights.fds, rights.count);
        *fd_count = 0;
        error_system(error, EMFILE, "cannot take the descriptors that the node sent");
        return HANDSHAKE_SHORT;
    }
    memcpy(fds, rights.fds, rights.count * sizeof(int));
    *fd_count = rights.count;
    return HANDSHAKE_OK;
}

/* -- addresses ----------------------------------------------------------------------------------------------------- */

int handshake_address(const char *path, struct sockaddr_un *address, struct mr_error *error)
{
    size_t length = strlen(path);

    static_assert(sizeof(address->sun_path) == MR_SOCKET_PATH_MAX + 1, "the limit is the kernel's");
    if (length == 0)
        return error_set(error, "the path of the node's socket is empty");
    if (length > MR_SOCKET_PATH_MAX)
        return error_set(error, "the path of the node's socket has %zu bytes, at most %d are allowed: %s", length,
                         MR_SOCKET_PATH_MAX, path);
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return 0;
}

int handshake_connect(const char *path, struct mr_error *error)
{
    struct sockaddr_un address;
    int result;

    if (handshake_address(path, &address, error) != 0)
        return -1;
    int fd = sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_system(error, errno, "cannot make a socket");
    do
        result = sys_connect(fd, (const struct sockaddr *)&address, sizeof(address));
    while (result != 0 && errno == EINTR);
    if (result == 0)
        return fd;
    int code = errno;
    (void)sys_close(fd);
    if (code == ENOENT || code == ECONNREFUSED)
        return error_system(error, code, "no node at %s (is `millrace serve` running there?)", path);
    return error_system(error, code, "cannot connect to the node at %s", path);
}
