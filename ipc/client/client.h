/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a handle: what the library's files share. client.c makes and ends handles and says who may call; below
 * it,
 *
 *     connection.c   the socket: hand-shake, channels being opened
 *     question.c     what else is asked there: the node, its sessions, a snapshot
 *     reconnect.c    the node's end, and its return
 *     link.c         the channel to one partition: frames out and in, and what a new worker means for them
 *     carry.c        what was unanswered in a channel that is gone, and goes into the next
 *     sending.c      which request was sent at which position
 *     request.c      what is open: the table of requests, their deadlines, their ends that no frame brings
 *     session.c      sessions, and which numbers have been answered
 *     keep_alive.c   KeepAlives: what the session may forget, what it has to keep (filter.c: as a Bloom filter)
 *     service.c      opening and closing services, and the frame around an operation; counter.c and map.c stand on it
 *     stream.c       requests with many outputs, pulled one by one
 *     resume.c       leaving sessions and coming back to them
 *     wait.c         running, arming, sleeping
 *     result.c       results on their way to callbacks and mr_take(), and how long the ring keeps them
 *     answer.c       a response frame's bytes as a struct mr_result
 *     renew.c        the thread that renews sessions
 *     raw.c          the caller's own bytes
 *
 * All of it runs in the caller's thread but renew.c's, which has a handle of its own.
 *
 * Functions that can fail return an enum mr_status and leave a text in the handle (client_fail()). */
#ifndef IPC_CLIENT_CLIENT_H
#define IPC_CLIENT_CLIENT_H

#include "ipc/channel.h"
#include "ipc/frame.h"
#include "proto/service_command.h"

#include <millrace/limits.h>
#include <millrace/millrace.h>
#include <millrace/raw.h>

#include <pthread.h>

#define NONE UINT32_MAX  /* no request, where a request's place in the table is meant */
#define NEVER UINT64_MAX /* a time that does not come */

struct link;
struct service;
struct handle;
struct renewer;
struct mr_stream;

/* ---- Requests (request.c) ---- */

/* What a frame's body is read as (answer.c). */
enum answer_kind {
    ANSWER_RAW,     /* nothing: the body is the caller's */
    ANSWER_ID,      /* OpenSession, CreateService: as.number is the id */
    ANSWER_PLAIN,   /* KeepAlive: only that it is OK */
    ANSWER_CLOSED,  /* CloseSession, CloseService: the same; and a repeat's FORBIDDEN is as good */
    ANSWER_NUMBER,  /* an operation whose output's field 1 is an integer */
    ANSWER_ENTRY,   /* an operation whose output's field 1 is a map's Entry */
    ANSWER_NOTHING, /* an operation without output */
    ANSWER_STREAM   /* an operation with many outputs, each read when it is pulled */
};

enum request_state {
    REQUEST_FREE = 0,
    REQUEST_OPEN,     /* waits for its last frame */
    REQUEST_ENDING,   /* cancelled, timed out or failed: its last result is due in the next run */
    REQUEST_ABANDONED /* that has been given; the node's last frame is still to come, and will be dropped */
};

/* One request. A request has one position in the ring, or several if it was sent again; `position` is the latest. */
struct request {
    _Alignas(CACHE_LINE) uint64_t id; /* what the caller knows it by: generation << 20 | place; 0: free */
    struct mr_then then;              /* what to do with its results */
    uint64_t sequence_num;            /* of a numbered command; 0: it has none */
    uint64_t output;         /* the highest output number given to the caller: what is not above it is dropped */
    struct service *service; /* that it is an operation of; NULL: not of a service opened here */
    uint32_t generation;     /* one more each time the place is used: tells a late frame from a current one */
    uint32_t next;           /* in the list of free places, or of ends due */
    uint8_t state;           /* enum request_state */
    uint8_t kind;            /* enum frame_kind */
    uint8_t answer;          /* enum answer_kind */
    bool outstanding;        /* counts in requests.outstanding: the caller's, not the library's own */
    bool streams;            /* it has many outputs: then.arg is its struct mr_stream, while it is REQUEST_OPEN */
    bool sent_again;
    bool limited; /* it has a deadline, and stands in the list by deadline */
    bool copied;  /* `copy` holds its body: of queries, of commands without a number, of what was carried over */
    /* So far what its answer touches, one line; then what its sending does, too. */
    struct link *link;   /* where it went */
    uint64_t position;   /* of its latest sending */
    uint64_t session_id; /* of a command, 0: of none; with service_id, what a numbered one's repeat needs */
    uint64_t service_id;
    uint64_t time_limit; /* of a query's frame */
    uint32_t size;       /* of the body */
    uint8_t end;         /* REQUEST_ENDING: with which enum mr_status (all fit) */
    bool send_later;     /* to be sent again once link->retry_at has come */
    bool answered;       /* REQUEST_ENDING: its last frame came meanwhile */
    bool counted;        /* streams: the session has counted its number as answered */
    bool carried;        /* its channel is gone, and it has not been sent in the next one */
    /* The rest is for some. */
    uint64_t deadline; /* when it ends with MR_TIMEOUT */
    uint32_t older;    /* in the list by deadline */
    uint32_t newer;
    uint8_t *copy; /* the memory stays with the place */
    uint32_t copy_capacity;
};
_Static_assert(offsetof(struct request, link) == CACHE_LINE, "what an answer touches is one line");

struct requests {
    struct request *table; /* MR_REQUESTS_MAX of them, mapped, untouched until used */
    uint32_t used;         /* places that were ever used */
    uint32_t free;         /* list of places used and free, the latest first */
    uint32_t outstanding;  /* that the caller has open, REQUEST_OPEN or ENDING: what mr_run() waits for */
    uint32_t alive;        /* not REQUEST_FREE */
    uint32_t ending_first; /* list of REQUEST_ENDING, in order */
    uint32_t ending_last;
    uint32_t oldest; /* list by deadline, which is the order of starting */
    uint32_t newest;
};

/* ---- Sessions (session.c) ---- */

#define SESSION_WINDOW (2 * MR_REQUESTS_MAX) /* numbers between the first unanswered one and the next */

/* A command that an earlier process has left open. */
struct pending {
    struct pending *next; /* by number */
    uint64_t sequence_num;
    uint64_t acknowledged; /* the highest output that need not be given any more */
    uint64_t service_id;
    struct mr_pending_request shown;
};

struct session {
    uint64_t id;             /* 0: none is open */
    bool lost;               /* the node has ended it */
    bool renewed;            /* the thread that renews knows of it */
    uint64_t keep_alive;     /* id of the session whose KeepAlive is on its way; 0: none is */
    uint64_t next;           /* number of the next command */
    uint64_t answered;       /* every number up to this one has been answered */
    uint64_t told;           /* `answered` as the last KeepAlive said */
    uint64_t answer_bytes;   /* that have come since */
    uint64_t taken;          /* outputs of streams that were taken since the last KeepAlive ... */
    uint64_t taken_bytes;    /* ... and their bytes */
    bool due;                /* a KeepAlive is wanted soon, for what was taken */
    uint64_t over_first;     /* numbers of streams that are over and that the node still keeps: the lowest; 0: none */
    uint64_t over_last;      /* the highest */
    uint64_t *window;        /* SESSION_WINDOW bits by number: answered although one before it is not */
    struct pending *pending; /* those that nobody has gone on with */
    char why[MR_MESSAGE_MAX + 1]; /* lost: the node's words */
};

/* ---- The channel to one partition (link.c) ---- */

enum link_stage {
    LINK_NONE = 0, /* there is none */
    LINK_ASKED,    /* OpenChannel is sent */
    LINK_MAPPED,   /* ChannelMapped is sent */
    LINK_OPEN,
    LINK_CLOSED /* by the node, or broken: `why` */
};

/* One sending of a request. */
struct sending {
    uint64_t position;
    uint32_t place;      /* in the table of requests */
    uint32_t generation; /* of the request: another one there is not meant */
};

struct link {
    struct mr_client *client;
    uint32_t partition;
    uint32_t core; /* 1 + the processor that the worker is pinned to; 0: none */
    enum link_stage stage;
    struct channel channel;
    struct ring_writer requests;
    struct ring_reader responses;
    uint64_t size_max;   /* of a request's body in this channel */
    bool wanted;         /* LINK_NONE: its channel is to be asked for, */
    uint64_t ask_at;     /* at this time; 0: as soon as it can be */
    bool reopening;      /* its channel is gone with the node, and another one is to come */
    uint32_t generation; /* of the worker, as last seen */
    uint64_t max_index;  /* the highest index of an answer met here: queries must not see less */

    /* All sendings not known to be done with, in order of position, at [number & (capacity - 1)]. */
    struct sending *sendings;
    uint64_t sendings_capacity;
    uint64_t first;  /* number of the oldest */
    uint64_t end;    /* number of the next */
    uint64_t expect; /* the one that the next frame probably answers */
    /* Those of the latest frame that is for many, in its order: mostly the next one's. Generation 0: none. */
    struct sending takers[1 + FRAME_OTHERS_MAX];

    /* What is to be sent again: a walk over the sendings that goes on whenever there is room. */
    uint64_t again_next; /* number of the next to look at; again_end: the walk is over */
    uint64_t again_end;
    uint64_t again_head; /* those before this position were taken by a worker that is dead */
    uint64_t retry_at;   /* when those with send_later are to be sent; NEVER */

    /* Open requests of channels that are gone, in their order, to be sent before anything else (carry.c). */
    struct sending *carried;
    uint64_t carried_next, carried_end;

    uint64_t close_at; /* the page says CHANNEL_CLOSED: when that is taken to be all; NEVER: it does not say so */
    uint32_t held;     /* frames met whose bytes someone still looks at: the ring cannot be given back past them */
    bool pause;        /* a stream has taken as much as it may: give whoever pulls it the chance to */
    struct session session;
    char why[384]; /* LINK_CLOSED */
};

/* ---- Services (service.c) ---- */

struct service {
    struct link *link;
    const char *type;
    char *name_space;
    char *name;
    uint64_t session_id; /* in which it was opened */
    uint64_t id;
    uint32_t handles;                    /* that the caller has on it */
    uint32_t outstanding;                /* requests of it that the node has not answered, abandoned ones included */
    struct service_command_head command; /* what its commands begin with, as the last one left it */
    struct service *next;
};

/* ---- The handle ---- */

/* A result for mr_take(). */
struct waiting {
    struct mr_result result;
    struct link *link; /* whose ring its bytes stand in; NULL: none, or aside */
    uint64_t end;      /* position in the response ring behind its frame ... */
    uint64_t size;     /* ... of so many bytes */
    void *aside;       /* a copy of its bytes, malloc()ed; NULL: in the ring */
};

struct mr_client {
    const uint32_t *alive; /* a page of its own that reads 0 in a fork()ed child */
    bool connected;
    bool closing;
    bool in_callback;
    bool away;          /* the node is; it may come back (reconnect.c) */
    bool gone;          /* it has not come back in time; every later call is MR_NO_NODE */
    bool patient;       /* spins longer before it sleeps (wait.c) */
    bool may_set_aside; /* a call waits for an answer behind results that nobody takes: copy those out of the way */
    int only_cpu;       /* that the process may use; -1: there are several */

    uint64_t yield_at; /* the processor is not given away before that while spinning */

    struct mr_options options; /* name_space is a copy */
    char *path;
    uint32_t partitions;
    uint64_t max_payload;
    uint64_t ring_bytes;      /* of channels to be opened; 0: the node's default */
    uint64_t node_ring_bytes; /* that default, which is also the most */
    uint8_t directory[16];    /* its identity */
    uint64_t renew_every;     /* a third of the shortest timeout of a session */

    int socket;
    int wake;   /* readable when a worker wakes us; from Welcome */
    int timer;  /* timerfd: deadlines, for whoever sleeps on `poller` */
    int poller; /* epoll of the three: mr_fd() */
    int stop;   /* descriptor that ends every wait once readable; -1: none */
    bool armed;
    uint64_t timer_at;  /* what the timer is set to; NEVER: not */
    uint64_t looked_at; /* when the socket was last looked at */

    unsigned losses;     /* how often the node went away */
    unsigned strangers;  /* how often the one that came back had another directory */
    uint32_t reopening;  /* links that are */
    uint64_t connect_at; /* away, and not connected: when to try next */
    uint64_t pause;      /* between two tries */
    uint64_t give_up_at; /* when `away` becomes `gone`; NEVER */
    char reason[400];    /* of the last try's failure */
    char stranger_text[512];

    struct link *links[MR_PARTITIONS_MAX]; /* by partition - 1; NULL: never used */
    struct link *open[MR_PARTITIONS_MAX];  /* those of LINK_OPEN, `open_count` of them */
    uint32_t open_count;
    struct requests requests;
    struct service *services;
    struct handle *handles;    /* the caller's, on them */
    struct mr_stream *streams; /* the caller's, in order of their opening */
    bool stream_news;          /* something came for a stream that had nothing */
    int renewer;               /* the end of the socketpair to the thread; -1: it does not run */
    struct renewer *renewing;  /* what is the thread's; NULL: it does not run */
    pthread_t renewer_thread;

    struct waiting *waiting; /* ring buffer of results for mr_take() */
    uint64_t waiting_capacity, waiting_first, waiting_end;
    struct waiting pinned; /* what the last call gave out, until the next one */
    bool pinned_in_order;  /* nothing older in its ring is held */
    bool pin;              /* set by a callback of the library's own: keep this frame until the next call */
    unsigned met;          /* results given in this run */
    unsigned moved;        /* frames met in this run, whether wanted or not */

    struct link *reserved; /* mr_reserve() without its mr_commit() */
    uint8_t *reserved_body;
    size_t reserved_capacity;
    uint8_t reserved_kind;
    uint64_t reserved_time_limit;

    bool refused; /* the node's answer to what a call waits for on the socket, if it was no */
    enum mr_status refusal;
    char refusal_text[512]; /* callbacks may fail in other ways until the call that asked returns */
    uint8_t *status;        /* what mr_node_status() gave out */
    size_t status_size;
    uint8_t *memory; /* what came as memory: the answer to Attach, ListSessions or TakeSnapshot */
    size_t memory_size;

    const char *message; /* of the last failure: a constant, or `text` */
    char text[512];
    char gone_text[512];
};

/* client.c. Texts: client_fail() composes one, client_fail_with() keeps a constant (or what lives as long as the
 * handle), for where it has to be quick. Both return `status`. */
enum mr_status client_fail(struct mr_client *client, enum mr_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
enum mr_status client_fail_with(struct mr_client *client, enum mr_status status, const char *message);
enum mr_status client_out_of_memory(struct mr_client *client);
/* A failed system call's: MR_NO_MEMORY where the process is out of something, else `status`. */
enum mr_status client_fail_error(struct mr_client *client, enum mr_status status, const struct mr_error *error);
#ifdef __clang_analyzer__ /* it looks at one file at a time, and would take them to return MR_OK now and then */
#define client_fail(client, status, ...) (client_fail(client, status, __VA_ARGS__), (status))
#define client_fail_with(client, status, message) (client_fail_with(client, status, message), (status))
#define client_fail_error(client, status, error) (client_fail_error(client, status, error), (status))
#endif

/* What every call begins with. client_enter() is for those that a callback may make, client_enter_alone() for the
 * others. They let go of what the call before gave out. */
enum mr_status client_enter(struct mr_client *client);
enum mr_status client_enter_alone(struct mr_client *client);

/* The handle of mr_connect(), or of the thread that renews: `stop` is a descriptor that ends its waits once readable.
 */
enum mr_status client_make(const char *path, const struct mr_options *options, int stop, struct mr_client **out);
/* Frees everything without a word to the node. */
void client_free(struct mr_client *client);
/* The same in a fork()ed child, which has no rings. */
void client_forget(struct mr_client *client);

/* `deadline` of a call that begins now, by the handle's call_timeout_ns; NEVER. */
uint64_t client_deadline(const struct mr_client *client);

#endif
