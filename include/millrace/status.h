/* SPDX-License-Identifier: Apache-2.0 */
/* How a call ended. Every function of the library that can fail returns one of these. */
#ifndef MILLRACE_STATUS_H
#define MILLRACE_STATUS_H

/* MR_OK is 0, so that `if (mr_...)` reads as failure. 2 to 13 are the numbers of OperationOutput.Status in
 * atomix.multiraft.v1; the others are the library's own and never come from a node. */
enum mr_status {
    MR_OK = 0,
    MR_ERROR = 2,          /* the service's code failed */
    MR_CANCELED = 3,       /* an open command was ended before its time */
    MR_NOT_FOUND = 4,      /* no such entry */
    MR_ALREADY_EXISTS = 5, /* Insert: the key is there */
    MR_UNAUTHORIZED = 6,   /* the session belongs to another user */
    MR_FORBIDDEN = 7,      /* unknown or ended session, service not open in it, name has another type */
    MR_CONFLICT = 8,       /* the condition of the call did not hold; or the command's number was given up */
    MR_INVALID = 9,        /* the arguments, or the bytes, are not what the call takes */
    MR_UNAVAILABLE = 10,   /* not possible now: a limit, the disk; the message names it */
    MR_NOT_SUPPORTED = 11, /* no such service type or operation */
    MR_TIMEOUT = 12,       /* a command may still be applied */
    MR_INTERNAL = 13,      /* the partition is stopped, or the library met what should not be; the message says why */
    MR_UNKNOWN = 14,       /* the protocol's UNKNOWN (0), or a status not known here; no node sends it */
    MR_AGAIN = 100,        /* no room in the ring, or nothing there yet: mr_run(), then again */
    MR_END = 101,          /* a stream that is over */
    MR_NO_NODE = 102,      /* nobody listens at the socket, or the node went away */
    MR_SESSION_LOST = 103, /* the node no longer knows the session */
    MR_NO_MEMORY = 104     /* the process has no memory, address space or descriptors left */
};

#endif
