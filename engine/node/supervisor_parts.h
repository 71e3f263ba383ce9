/* SPDX-License-Identifier: Apache-2.0 */
/* What the supervisor's files share, and nobody else: supervisor.c (life and loop), listener.c (the socket's path and
 * accepting), connection.c (hand-shakes), slots.c (channels from birth to end), questions.c (to workers), spawn.c
 * (a worker's birth), workers.c (what workers say, and their deaths), status_report.c.
 *
 * A channel is made when a client asks for it, and opened when worker and client have both mapped it (a dead worker
 * counts as having: its successor inherits the supervisor's mapping). It ends when its client goes, when the worker
 * finds it broken, or when a request in it killed the worker twice; then the worker lets go of it first, and its slot
 * is free after that. Nothing here waits for anybody: what a socket has no room for is kept as owed (to a worker), or
 * ends the connection (of a client that does not read). */
#ifndef ENGINE_NODE_SUPERVISOR_PARTS_H
#define ENGINE_NODE_SUPERVISOR_PARTS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include <millrace/limits.h>
#include <millrace/status.h>

#include "engine/log/snapshot.h"
#include "engine/node/channel_ids.h"
#include "engine/node/control.h"
#include "engine/node/region.h"
#include "engine/node/supervisor.h"
#include "ipc/channel.h"
#include "millrace/v1/control.pb-c.h"

#define STOP_LIMIT_DEFAULT (30 * MR_SECOND)
#define BACKOFF_FIRST (10 * MR_MILLISECOND)
#define BACKOFF_MOST (2 * MR_SECOND)
#define SERVED_WELL (10 * MR_SECOND)        /* a worker that fails after this long is restarted at once */
#define ACCEPT_PAUSE (100 * MR_MILLISECOND) /* when descriptors or memory have run out */
#define BUSY_BYTES_A_SECOND (10 * MR_MIB)   /* a disk's that is slow: what a worker has written it may have to sync */
#define SIGNAL_AGAIN (200 * MR_MILLISECOND) /* signals closer together are one */
#define GONE_LIMIT (2 * MR_SECOND)          /* between a worker's letting go of its control socket and its end */
#define COMPLAINT_INTERVAL MR_SECOND        /* lines about clients: at most one in this time */

enum slot_state {
    SLOT_FREE = 0,
    SLOT_OPENING, /* made; the worker or the client has not mapped it yet */
    SLOT_OPEN,
    SLOT_CLOSING /* has no client any more; the worker has not let go of it yet */
};

/* Beside channels[] and the region's channels[], by the same number. */
struct slot {
    enum slot_state state;
    bool added;                    /* the worker has mapped it */
    bool mapped;                   /* the client has */
    uint64_t map_by;               /* monotonic: taken back if the client has not mapped it by then */
    enum control_kind owed;        /* CONTROL_ADD or CONTROL_CLOSE, still to be sent to the worker; 0: nothing */
    struct connection *connection; /* whose it is; NULL once SLOT_CLOSING */
};

struct partition {
    uint32_t number;          /* from 1 */
    struct region *region;    /* shared with the worker */
    struct channel *channels; /* MR_CHANNELS_MAX each */
    struct slot *slots;
    uint32_t slots_end; /* slots from here on are free */
    uint32_t slots_used;
    uint32_t questions; /* of clients that are not answered yet */

    pid_t pid;            /* the worker; 0: none now */
    int control;          /* our end of its control socket, non-blocking; -1: none */
    uint32_t serial;      /* one more at each fork: tells events of this worker from a former one's */
    bool ready;           /* this worker serves */
    bool was_ready;       /* some worker has served */
    bool owes;            /* something is owed to the worker: waits for room in the control socket */
    bool stop_owed;       /* CONTROL_STOP */
    bool killed;          /* by us: it did not end in time */
    int64_t segment_owed; /* CONTROL_SEGMENT for this slot; -1: none */
    int core;             /* -1: not pinned */
    uint64_t ready_at;    /* monotonic */
    uint64_t restart_at;  /* monotonic, while pid is 0 */
    uint64_t kill_at;     /* monotonic: SIGKILL if it lives then; UINT64_MAX: never */
    unsigned failures;    /* deaths in a row of workers that had not served */
    uint64_t restarts;
    bool stop_announced; /* clients have been told PartitionStopped */

    /* At what the last worker was that died by its own fault; 0: at nothing. */
    uint64_t fault_channel, fault_position, fault_index, fault_snapshot;

    int *segments; /* `memory`: memfds by slot */
    uint32_t segment_count;
    int snapshots[SNAPSHOTS_KEPT]; /* likewise; -1: this node keeps them on disk */
};

static inline bool partition_is_stopped(const struct partition *partition)
{
    return atomic_load_explicit(&partition->region->state, memory_order_acquire) == PARTITION_STOPPED;
}

enum question_state {
    QUESTION_NONE = 0,
    QUESTION_OWED, /* to be sent to the worker */
    QUESTION_SENT
};

/* What a connection waits to be told by a partition's worker. */
struct question {
    enum question_state state;
    enum control_kind kind; /* CONTROL_ATTACH, CONTROL_LIST or CONTROL_SNAPSHOT */
    uint64_t number;
    uint32_t partition; /* its number */
    uint64_t session_id;
    unsigned deaths; /* of workers that had been asked */
};

struct connection {
    int socket;   /* non-blocking */
    int wake;     /* eventfd that workers write to wake this client, who has only an epoll instance that watches it */
    bool greeted; /* its Hello came */
    uint64_t greet_by; /* monotonic: dropped if no Hello has come by then */
    bool doomed;       /* to be dropped at the end of this round of the loop */
    bool told;         /* ... after a last word, which unread packets of its own would cut off */
    uint32_t place;    /* in supervisor.connections */
    uint32_t serial;
    uint32_t channels; /* slots that are its */
    pid_t pid;
    uid_t uid;
    struct question question;
    struct attached_session *attached; /* what it has come back to: attached_count of them */
    uint32_t attached_count;
};

struct supervisor {
    const struct supervisor_setup *setup;
    const struct options *options;
    const struct identity *identity;
    unsigned connections_max, channels_max; /* channels: of each partition */
    bool few_descriptors;                   /* then these are fewer than wanted, and the next one counts */
    unsigned channels_in_all;               /* of all partitions together */
    uint64_t stop_limit;
    uint64_t handshake_limit;
    uint64_t handshake_due; /* monotonic: nobody's is over before; UINT64_MAX: nobody has one */
    int directory;          /* DIR; -1 in `memory` */
    int epoll;
    int signals;
    int listener;        /* -1: closed */
    dev_t socket_device; /* of the socket's path as we made it */
    ino_t socket_inode;
    bool listening; /* it is in the epoll set */
    bool accept_paused;
    uint64_t accept_again; /* monotonic */
    uint64_t now;          /* monotonic, of this round */
    sigset_t former_mask;  /* what workers get back */
    struct channel_ids ids;

    struct partition *partitions;
    uint32_t partition_count;
    struct connection **connections; /* connections_max places */
    uint32_t connection_count;
    uint32_t connection_serial;
    bool any_doomed;
    uint64_t question_number; /* of the last one */

    bool reap_again; /* waiting for a child failed */
    bool announced;  /* the ready line is out */
    bool stopping;
    uint64_t signalled; /* monotonic: when a signal first said so; 0: none has */
    bool failed;        /* the exit status will be 1 */
    uint64_t complained_at;
    uint64_t complaints_left_out;
};

/* What an epoll event is about: kind, place in its table, low bits of the serial. */
enum event_kind { EVENT_SIGNAL = 1, EVENT_LISTENER, EVENT_CONTROL, EVENT_CONNECTION };
static inline uint64_t event_name(enum event_kind kind, uint32_t place, uint32_t serial)
{
    return (uint64_t)kind << 56 | (uint64_t)(place & 0xffffff) << 32 | serial;
}
/* A text as a field of a message, which points at it. */
static inline ProtobufCBinaryData bytes_of(const char *text)
{
    return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)(uintptr_t)text};
}

int event_add(struct supervisor *s, int fd, uint64_t name, struct mr_error *error);
void event_remove(struct supervisor *s, int fd);
int event_change(struct supervisor *s, int fd, uint64_t name, uint32_t events, struct mr_error *error);

/* ---- supervisor.c ---- */
/* Begins the orderly stop; twice is once. */
void supervisor_stop(struct supervisor *s);
/* A line about a client's doing, kept to one in COMPLAINT_INTERVAL. */
void supervisor_complain(struct supervisor *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- listener.c ---- */
int listener_open(struct supervisor *s, struct mr_error *error);
void listener_accept(struct supervisor *s);
/* Accepts again if the pause is over, or `now` if descriptors have become free. */
void listener_resume(struct supervisor *s, bool at_once);
void listener_close(struct supervisor *s);
/* Removes the socket's path if it is still ours. */
void listener_remove(struct supervisor *s);

/* ---- connection.c ---- */
/* Takes a new client's socket over. */
void connection_add(struct supervisor *s, int socket);
/* One packet, or the end. */
void connection_event(struct supervisor *s, struct connection *connection);
/* A client that cannot take it is doomed. */
void connection_send(struct supervisor *s, struct connection *connection, const Millrace__V1__NodeMessage *message,
                     const int *fds, unsigned fd_count);
void connection_refuse(struct supervisor *s, struct connection *connection, enum mr_status status, bool fatal,
                       const char *format, ...) __attribute__((format(printf, 5, 6)));
/* To what questions.c asks a worker for. */
void connection_refuse_question(struct supervisor *s, struct connection *connection, enum mr_status status,
                                const char *format, ...) __attribute__((format(printf, 4, 5)));
void connection_drop(struct supervisor *s, struct connection *connection);
void connection_drop_doomed(struct supervisor *s);
/* Drops who has not said his Hello in time, takes back what was not mapped in time. Returns the monotonic time of the
 * next such (UINT64_MAX: none). */
uint64_t connections_due(struct supervisor *s);
/* Has the client gone, whether or not its end was heard yet? Then its channels are closed, and it is doomed. */
bool connection_ended(struct supervisor *s, struct connection *connection);

/* ---- slots.c ---- */
void slots_open(struct supervisor *s, struct connection *connection, uint32_t partition, uint64_t ring_bytes);
/* The client's word. Numbers that are not its own are ignored: the node may have closed the channel meanwhile. */
void slots_client_mapped(struct supervisor *s, struct connection *connection, uint64_t channel_id);
void slots_client_closes(struct supervisor *s, struct connection *connection, uint64_t channel_id);
void slots_connection_ends(struct supervisor *s, struct connection *connection);
/* Takes back channels that their clients have not mapped in time; the time of the next (UINT64_MAX: none). */
uint64_t slots_due(struct supervisor *s);
/* The worker's word. */
void slots_worker_added(struct supervisor *s, struct partition *partition, uint32_t slot, uint64_t channel_id);
void slots_worker_closed(struct supervisor *s, struct partition *partition, uint32_t slot, uint64_t channel_id,
                         const char *why);
/* With no worker alive: what it had not mapped its successor inherits, what it had not let go of is let go of. */
void slots_worker_ended(struct supervisor *s, struct partition *partition);
/* With no worker alive: closes a channel whose request killed it twice. */
void slots_poisoned(struct supervisor *s, struct partition *partition, uint64_t channel_id, const char *why);
/* Is the client of a channel that the worker still has gone? */
bool slots_user_ended(struct supervisor *s, struct partition *partition, uint32_t slot, uint64_t channel_id);
/* Tells every client with a channel there that the partition is stopped. */
void slots_announce_stop(struct supervisor *s, struct partition *partition);
/* Sends what is owed for channels. False: no room. */
bool slots_pay(struct supervisor *s, struct partition *partition);
/* At the node's end: every page says so, everything is unmapped. */
void slots_end(struct partition *partition, const char *why);

/* ---- questions.c ---- */
/* Of the connection in region_channel.connection and in control messages. */
uint64_t connection_name(const struct connection *connection);
/* CONTROL_ATTACH, CONTROL_LIST or CONTROL_SNAPSHOT. It is answered, or refused, at once or later. */
void questions_ask(struct supervisor *s, struct connection *connection, enum control_kind kind, uint32_t partition,
                   uint64_t session_id);
/* Sends what is owed. False: no room. */
bool questions_pay(struct supervisor *s, struct partition *partition);
/* The worker's word; the descriptor (-1: none) stays the caller's. */
void questions_answered(struct supervisor *s, struct partition *partition, const struct control_message *message,
                        int fd);
void questions_connection_ends(struct supervisor *s, struct connection *connection);
/* Refuses all that are left, if it is stopped. */
void questions_partition_stopped(struct supervisor *s, struct partition *partition);
/* With no worker alive: what it had not answered its successor is asked. */
void questions_worker_ended(struct supervisor *s, struct partition *partition);

/* ---- spawn.c ---- */
/* Forks a worker; where that fails, says so and leaves it to a later attempt. */
void spawn_worker(struct supervisor *s, struct partition *partition);

/* ---- workers.c ---- */
int workers_init(struct supervisor *s, struct mr_error *error);
/* Starts what is due, kills what is overdue. Returns the monotonic time of the next (UINT64_MAX: none). */
uint64_t workers_due(struct supervisor *s);
void workers_event(struct supervisor *s, struct partition *partition, uint32_t events);
void workers_reap(struct supervisor *s);
void workers_stop(struct supervisor *s);
void workers_kill(struct supervisor *s);
bool workers_alive(const struct supervisor *s);
/* Sends one message, or what is owed. */
enum control_sent { CONTROL_SENT, CONTROL_NO_ROOM, CONTROL_FAILED };
enum control_sent workers_send(struct supervisor *s, struct partition *partition, const struct control_message *message,
                               const int *fds, unsigned fd_count);
void workers_pay(struct supervisor *s, struct partition *partition);
void workers_free(struct supervisor *s);

/* ---- status_report.c ---- */
void status_report(struct supervisor *s, struct connection *connection);

#endif
