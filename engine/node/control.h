/* SPDX-License-Identifier: Apache-2.0 */
/* What supervisor and worker say to each other: fixed structs over a SOCK_SEQPACKET pair, descriptors beside them. Both
 * are the same build, and neither is hostile; still every message is checked for its size and kind.
 *
 * The supervisor adds a channel: the slot in the region is filled first, then CONTROL_ADD with the memfd and both
 * eventfds. The worker maps it and says CONTROL_ADDED; it reads requests from then on, which is harmless before the
 * channel is open. (A worker that dies before that: its successor inherits the supervisor's mapping, which counts as
 * added.) Closing, from either side: the supervisor sends CONTROL_CLOSE when the client is gone; the worker lets go of
 * the channel and answers CONTROL_CLOSED, after which the supervisor frees slot and mapping. A worker that finds a
 * channel broken marks the page closed with the reason, lets go of it and sends CONTROL_CLOSED with that reason by
 * itself.
 *
 * What a client asks about a session or for (control.proto's Attach, ListSessions and TakeSnapshot) is passed on as
 * CONTROL_ATTACH, CONTROL_LIST or CONTROL_SNAPSHOT and answered by CONTROL_ANSWER, those about sessions in the order of
 * asking: a status and a text, or with STATUS_OK one descriptor, of sealed memory with the encoded answer. (Where the
 * supervisor can open none, the message comes without it.) A question that a worker took with it into its death is
 * asked again of its successor. */
#ifndef ENGINE_NODE_CONTROL_H
#define ENGINE_NODE_CONTROL_H

#include <stdint.h>

#include "ipc/error.h"

enum control_kind {
    /* to the worker */
    CONTROL_ADD = 1,  /* slot; descriptors: memfd, node wake, client wake */
    CONTROL_CLOSE,    /* slot */
    CONTROL_STOP,     /* end in an orderly way: answer what is logged, close the log, exit 0 */
    CONTROL_ATTACH,   /* question, connection, uid, session_id */
    CONTROL_LIST,     /* question, connection, uid */
    CONTROL_SNAPSHOT, /* question, connection */
    CONTROL_SEGMENT,  /* answer to CONTROL_WANT_SEGMENT: slot; one descriptor, or none and why in text */
    /* to the supervisor */
    CONTROL_ADDED,        /* slot */
    CONTROL_CLOSED,       /* slot; text: why, if the worker closed it */
    CONTROL_READY,        /* recovery is over, the partition is served (or stopped: the region says) */
    CONTROL_ANSWER,       /* question, connection; status, text, size; slot and channel_id: who uses the session */
    CONTROL_BUSY,         /* told to stop, it is still writing its snapshot, `size` bytes by now */
    CONTROL_WANT_SEGMENT, /* `memory`: a memfd for segment `slot`, kept by the supervisor. The worker waits for it */
};

#define CONTROL_FDS 3

struct control_message {
    uint32_t kind;
    uint32_t slot;
    uint64_t channel_id; /* of the slot, where there is one: a message about a slot's former tenant is ignored */
    uint64_t ring_bytes; /* CONTROL_ADD */
    uint64_t question;   /* its number: never used twice by a supervisor */
    uint64_t connection; /* that asks, as region_channel.connection names it */
    uint64_t session_id;
    uint64_t size;   /* of an answer with STATUS_OK; of CONTROL_BUSY */
    uint32_t uid;    /* of who asks */
    uint32_t status; /* of an answer; enum status */
    char text[128];  /* NUL-terminated, may be empty */
};

/* 0; 1: nothing there or no room just now (non-blocking socket); -1 with *error; CONTROL_GONE: the other end is
 * gone. */
#define CONTROL_GONE 2
int control_send(int socket, const struct control_message *message, const int *fds, unsigned fd_count,
                 struct mr_error *error);
int control_receive(int socket, struct control_message *message, int fds[CONTROL_FDS], unsigned *fd_count,
                    struct mr_error *error);

#endif
