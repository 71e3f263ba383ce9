/* SPDX-License-Identifier: Apache-2.0 */
/* Who may use the node: the socket's mode and group, and the users and groups that are let in. The kernel says who a
 * peer is (SO_PEERCRED, SO_PEERGROUPS); nothing that a peer sends counts. */
#ifndef ENGINE_NODE_ACCESS_H
#define ENGINE_NODE_ACCESS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <millrace/limits.h>

#include "ipc/error.h"

struct sockaddr_un;
struct stat;

struct access_list {
    bool given; /* the option was */
    unsigned count;
    id_t ids[MR_ALLOWED_MAX]; /* users' or groups' */
};

struct access {
    mode_t socket_mode;
    bool socket_group_given;
    gid_t socket_group;
    struct access_list uids, gids; /* neither given: whom the socket's mode lets in */
};

/* Numbers or names with commas between, "1000,www-data". -1 with *error: an unknown name, or too many. */
int access_read_users(const char *option, const char *text, struct access_list *list, struct mr_error *error);
int access_read_groups(const char *option, const char *text, struct access_list *list, struct mr_error *error);

/* Makes the socket's path, which has its mode from the first moment on: nothing that somebody who may write to its
 * directory puts in its place can get that mode instead. Nobody can connect before it listens. */
int access_bind(const struct access *access, int listener, const struct sockaddr_un *address, struct mr_error *error);
/* Gives what is at the path its group, if it is a socket of this node's user with its mode, and no link to one.
 * *status, all zero before, says which it is, if it is a socket of this user, also where something else is wrong. */
int access_dress_socket(const struct access *access, const char *path, struct stat *status, struct mr_error *error);

/* Is the other end of this socket let in? Root and the node's own user always are. False with *error, which is for that
 * end to read. */
bool access_allows(const struct access *access, int socket, const struct ucred *peer, struct mr_error *error);

#endif
