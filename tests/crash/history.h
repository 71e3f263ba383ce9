/* SPDX-License-Identifier: Apache-2.0 */
/* What the clients of a round did and saw, in a file that all of its processes map: what stands there survives the
 * SIGKILL of whoever wrote it. Each client has a place, taken by one process at a time (its lives). What is to be
 * believed after a death is counted last: a record is complete once `record_count` says so, an event once `event_count`
 * does, an answer once `answered` is set. */
#ifndef TESTS_CRASH_HISTORY_H
#define TESTS_CRASH_HISTORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <millrace/map.h>

#define CLIENTS_MAX 9    /* with the one that looks at the end */
#define RECORDS_MAX 8000 /* operations of a client in a round */
#define EVENTS_MAX 32000
#define OPENED_MAX 2000
#define LISTENINGS_MAX 256
#define COUNTERS 5
#define SUM_COUNTERS 2 /* the first ones are only added to, and never negative amounts */
#define MAPS 2
#define KEYS 4
#define MARKER_KEY KEYS /* written at the end of a round, once, by nobody else */
#define TOKEN_MAX 4096

enum what {
    NOTHING, /* a call that did not start an operation */
    COUNTER_GET,
    COUNTER_ADD,
    COUNTER_SET,
    COUNTER_CAS,
    MAP_GET,
    MAP_PUT,
    MAP_INSERT,
    MAP_UPDATE,
    MAP_REMOVE
};

/* One operation. Values of maps stand here by their numbers (below). */
struct record {
    uint64_t called;           /* moments of the round's clock */
    _Atomic uint64_t answered; /* 0: not, as far as the client came to know */
    uint64_t argument;         /* delta, value, number of the value */
    uint64_t condition;        /* CAS: compare; maps: if_index, 0: none */
    uint64_t result;           /* the counter's value; number of the value that came with the answer */
    uint64_t entry_index;      /* that came with it */
    uint64_t index;            /* of the command in its partition; 0: not told */
    uint32_t handle;           /* on which it was started: a number that no other handle of the round has */
    uint32_t generation;       /* in `memory`, the node's life; else 0 */
    int32_t status;            /* enum mr_status */
    uint8_t what, object, key; /* enum what; which counter or map; which key */
};

/* An event as a listener took it, one after the other. */
struct event {
    uint64_t number; /* of the value */
    uint64_t entry_index;
    uint64_t taken;     /* moment */
    uint32_t listening; /* which of the client's streams: one that is gone on with after a death is the same */
    uint32_t generation;
    uint8_t type, key; /* enum mr_event_type */
};

/* A stream that was asked for. */
struct listening {
    uint64_t asked; /* moment */
    uint32_t generation;
    uint8_t map;
    bool replay;
};

/* A session opened by its own bytes, with no number. */
struct opened {
    _Atomic uint64_t session; /* its id; 0: no answer */
    _Atomic uint32_t close;   /* CLOSE_... */
    uint32_t generation;
    uint32_t node_lives; /* of the history, when the request that is open was sent */
    uint32_t deaths;     /* of the node's while its opening was open: each time the library has sent it again */
};
enum { CLOSE_NOT_SENT, CLOSE_SENT, CLOSE_DONE };

/* What a life leaves to the next one: all of it or nothing, for there are two and `current` says which one counts. */
struct left {
    uint8_t token[TOKEN_MAX];
    size_t size; /* 0: no session to go on with */
    uint32_t generation;
    uint32_t event_count; /* noted up to where the stream was when it was saved */
    uint32_t listening;   /* 1 + the number of its stream; 0: none */
};

struct client {
    _Atomic uint32_t lives;
    _Atomic uint32_t record_count, event_count, opened_count, listening_count;
    _Atomic uint32_t current; /* of `left` */
    _Atomic uint64_t armed;   /* a listener listens: generation << 32 | life, of the life that began or resumed it */
    atomic_bool done;         /* it has finished, as was asked of all */
    atomic_bool failed;
    char failure[512]; /* what must not happen, and did */
    char doing[256];   /* for a message about a client that does not finish */
    struct left left[2];
    struct listening listenings[LISTENINGS_MAX];
    struct opened opened[OPENED_MAX];
    struct record records[RECORDS_MAX];
    struct event events[EVENTS_MAX];
};

/* How a client behaves; drawn by the round. */
enum role { WRITER, LISTENER, OPENER, LAST_LOOK };
struct part {
    enum role role;
    uint64_t seed;
    unsigned window;     /* operations in flight at most; 1: calls that wait */
    bool sums_only;      /* works on the counters that are only added to */
    unsigned life;       /* operations after which it leaves of itself; 0: not */
    unsigned records;    /* how many it makes in a round, at most */
    uint64_t ring_bytes; /* 0: the node's */
    uint8_t map;         /* of a listener */
    bool replay;
    int64_t reconnect_ns; /* of struct mr_options */
    bool short_lived;     /* its sessions expire soon: it may lose one at any time, and begins anew then */
    unsigned abandon;     /* in how many of 8 cases a new life begins anew instead of resuming */
};

struct history {
    _Atomic uint64_t clock;
    _Atomic uint32_t generation; /* raised between two lives of a node in `memory`, while none is there */
    _Atomic uint32_t handles;
    _Atomic uint32_t node_lives; /* raised when a life of the node's is about to be ended, and when it has */
    atomic_bool stop;            /* writers are to finish what they have begun, and end */
    bool memory;                 /* the node keeps nothing over its death */
    bool restarts;               /* its supervisor may die in this round */
    uint32_t partitions;
    uint64_t begun_ms, milliseconds; /* the round's time under fire */
    char socket[256];
    _Atomic uint32_t session_count; /* by the last look: the sessions that openers have open */
    uint32_t counter_partition[COUNTERS], map_partition[MAPS]; /* likewise */
    uint64_t session_ids[CLIENTS_MAX * OPENED_MAX];
    struct part parts[CLIENTS_MAX];
    unsigned client_count; /* without the last look, which is clients[client_count] */
    struct client clients[CLIENTS_MAX];
};

/* Maps a new file of that path, all zero; NULL and a line on standard error if it cannot. */
struct history *history_create(const char *path);
void history_close(struct history *history);

/* The next moment. */
static inline uint64_t history_now(struct history *history)
{
    return atomic_fetch_add(&history->clock, 1) + 1;
}

/* Says once what must not have happened. */
void history_fail(struct client *client, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* All of it, for a person: one line an operation, by object, in the order of the calls. */
void history_print(const struct history *history, FILE *to);

const char *what_name(enum what what);

/* ---- Values of maps: a number, and bytes that follow from it, so that a mangled one shows ---- */

#define VALUE_MAX 3200
/* Writes the value of that number; its size. */
size_t value_write(uint8_t to[VALUE_MAX], uint64_t number);
/* The number; 0: these bytes are no value that was ever written. */
uint64_t value_read(struct mr_bytes bytes);

#endif
