/* SPDX-License-Identifier: Apache-2.0 */
/* Packets on the node's socket: one protobuf message each (proto/millrace/v1/control.proto), descriptors beside it.
 * What both ends share: sending, receiving, and nothing of what the messages mean.
 *
 * A packet is at most HANDSHAKE_BYTES long and carries at most HANDSHAKE_FDS descriptors; more is an error, and
 * descriptors that came with a refused packet are closed. Received descriptors are close-on-exec. */
#ifndef IPC_HANDSHAKE_H
#define IPC_HANDSHAKE_H

#include "ipc/error.h"
#include "millrace/v1/control.pb-c.h"

#define HANDSHAKE_VERSION 2
#define HANDSHAKE_BYTES 65536
#define HANDSHAKE_FDS 2

enum handshake_result {
    HANDSHAKE_OK = 0,
    HANDSHAKE_AGAIN,  /* a non-blocking socket has nothing, or no room */
    HANDSHAKE_CLOSED, /* the peer went away */
    HANDSHAKE_FAILED, /* *error says why; the connection is of no more use */
    HANDSHAKE_SHORT   /* of the node's: the message is there, its descriptors are not, for this process may open no
                         more; *error says so */
};

/* fds stay the caller's. */
enum handshake_result handshake_send_client(int socket, const Millrace__V1__ClientMessage *message,
                                            struct mr_error *error);
enum handshake_result handshake_send_node(int socket, const Millrace__V1__NodeMessage *message, const int *fds,
                                          unsigned fd_count, struct mr_error *error);

/* *message is the caller's to free (millrace__v1__..._free_unpacked(message, NULL)), the descriptors the caller's to
 * close. A message without a known member has MESSAGE__NOT_SET: the receiver decides. */
enum handshake_result handshake_receive_client(int socket, Millrace__V1__ClientMessage **message,
                                               struct mr_error *error);
enum handshake_result handshake_receive_node(int socket, Millrace__V1__NodeMessage **message, int fds[HANDSHAKE_FDS],
                                             unsigned *fd_count, struct mr_error *error);

/* Fills in a Unix socket address; a path over MR_SOCKET_PATH_MAX bytes is an error that says so. */
struct sockaddr_un;
int handshake_address(const char *path, struct sockaddr_un *address, struct mr_error *error);
/* Client: connects. A refused or missing socket gives error->code ECONNREFUSED or ENOENT. Returns the socket or -1. */
int handshake_connect(const char *path, struct mr_error *error);

#endif
