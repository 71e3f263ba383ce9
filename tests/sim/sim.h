/* SPDX-License-Identifier: Apache-2.0 */
/* The simulator: one partition's worker, its clients and its machine in one thread, everything from one seed. The
 * worker is the real one (engine/node's turn and recovery, engine/log, engine/fsm); the machine is tests/support's
 * fake_io; channels are plain memory. Only the files of tests/sim include this.
 *
 *     plan.c      what a seed chooses: how it is kept, how long, which operations, which kinds of faults
 *     life.c      a worker's memory, and its death at any call
 *     node.c      starting, turning and ending workers; channels
 *     client.c    clients: they send, read, sleep, die, come back and send again
 *     requests.c  the operations that clients send, and what they make of the answers
 *     history.c   every entry that was applied, and what must be true of it
 *     account.c   the plain account: what sessions, counters and maps must hold after each entry
 *     shadow.c    a state machine that never dies: every answer, and every recovered state, is compared with its
 *     trouble.c   faults: crashes, power cuts, failing and full disks, rotten bits, clocks
 *     run.c       one seed from its beginning to the last check
 *     main.c      many seeds, the command line
 *
 * What is checked. At each entry applied: its index follows, it is byte for byte a request that a client has sent and
 * that was not refused or applied before, and the partition's time has not run ahead. At each answer read by a client:
 * it is the one that the account and the shadow have for that entry. After each recovery: every entry that was answered
 * is there, all others are at most the next ones, and the state is the shadow's, byte for byte. At the end, with all
 * faults healed: every request has its answer, every stream all its outputs, and counters and maps hold what the
 * account says. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <setjmp.h>
#include <stdlib.h>

#include "engine/node/worker_state.h"
#include "tests/support/fake_io.h"

enum { SIM_CLIENTS_MAX = 4, SIM_SLOTS = 8, SIM_COUNTERS = 2, SIM_MAPS = 2, SIM_SERVICES = SIM_COUNTERS + SIM_MAPS };
enum { SIM_KEYS = 4, SIM_SESSIONS = 2, SIM_MEMORY_SEGMENTS = 64 };
#define SIM_PATH "/partition-0001"
#define SIM_SECRET 42
#define NEVER UINT64_MAX

/* ---- plan.c ---- */

struct plan {
    enum durability durability;
    unsigned steps, clients;
    uint64_t ring_bytes, segment_bytes, batch_bytes, snapshot_bytes, disk_limit;
    uint32_t max_payload, alignment;
    uint64_t output_limit;       /* of a session's unacknowledged outputs */
    bool other_options;          /* each start of the node may have others */
    uint64_t delay_max, nap_max; /* nanoseconds */
    bool streams, ttl, short_sessions, slow_readers, sleepers, large_values;
    unsigned worker_weight; /* of 100 steps, those that are the worker's */
    unsigned new_request;   /* of 100 chances, those that a client takes */
    /* Of 10,000 steps. */
    unsigned worker_crash, node_crash, power_cut, orderly_stop, client_death, disk_full, disk_trouble, wall_step,
        freeze, rot, snapshot;
    unsigned crash_in_recovery; /* of 100 recoveries */
    uint32_t trouble_ppm;       /* while the disk is in trouble: of a million calls, those that fail */
};

struct random {
    uint64_t state;
};
uint64_t random_next(struct random *random);
uint64_t random_below(struct random *random, uint64_t limit); /* 0 for a limit of 0 */
bool random_chance(struct random *random, uint64_t of, uint64_t whole);

/* ---- what clients send ---- */

enum op_kind {
    OP_OPEN,
    OP_CREATE,
    OP_CLOSE_SERVICE,
    OP_CLOSE_SESSION,
    OP_KEEP_ALIVE,
    OP_INCREMENT,
    OP_SET,
    OP_COMPARE_AND_SET,
    OP_PUT,
    OP_INSERT,
    OP_REMOVE,
    OP_CLEAR,
    OP_EVENTS,
    OP_GET,     /* query: a counter's value */
    OP_GET_KEY, /* query: a map's entry */
    OP_ENTRIES, /* query: all of a map's entries, one output each */
    OP_KINDS
};

/* One output that the shadow has given for a command. */
struct output {
    uint64_t hash;
    bool last;
};

/* A command or query, however often it is sent. */
struct op {
    struct op *next; /* all of the run's, newest first */
    uint64_t number; /* which of the run's, from 1 */
    enum op_kind kind;
    struct client *client;
    struct session_view *session;
    uint64_t sequence_num; /* 0: it has none */
    unsigned service, key;
    int64_t amount, compare;
    uint64_t ttl; /* nanoseconds; 0: none */
    uint8_t *bytes;
    size_t size;
    struct send *last_send;
    /* As its client sees it. */
    bool sent, done, resend, canceled;
    uint64_t received; /* outputs */
    uint64_t seen_index;
    uint64_t asked_at; /* query: the highest index that anybody had seen when it was first sent */
    uint64_t max_received;
    /* As it was applied. */
    uint64_t index; /* 0: not (yet) */
    enum status result;
    int64_t value;
    struct output *outputs;
    unsigned output_count, output_capacity;
    /* KeepAlive */
    uint64_t last_input;
};

/* One sending of it. */
struct send {
    struct send *next; /* in its channel */
    struct op *op;
    uint64_t channel, position;
    uint32_t uid;
    uint64_t index;     /* at which it was applied; 0: not (yet) */
    uint64_t hash;      /* of the answer without a number */
    uint64_t number;    /* of outputs read here */
    enum status status; /* of that answer; STATUS_UNKNOWN: none */
    unsigned keys;      /* Entries: that have been read here, a bit each */
    bool shares;        /* asked for shared frames */
    bool refused;       /* or lost: it may never be applied */
    bool over;          /* its last frame has been read */
};

/* A session, as its client and as the account see it. */
struct session_view {
    struct session_view *next; /* all of the run's */
    struct client *client;
    enum { SESSION_OPENING, SESSION_OPEN, SESSION_CLOSING, SESSION_GONE } state;
    uint64_t id; /* as answered */
    uint64_t timeout;
    uint64_t next_number;
    struct op **ops; /* by sequence number - 1 */
    unsigned op_capacity;
    uint64_t services[SIM_SERVICES]; /* ids; 0: not open */
    bool creating[SIM_SERVICES], closing[SIM_SERVICES];
    /* The account's. */
    uint64_t true_id; /* 0: not opened */
    uint64_t last_updated;
    bool open, opened[SIM_SERVICES];
    uint64_t opened_at[SIM_SERVICES]; /* index */
    uint32_t uid;
};

struct sim_channel {
    struct sim_channel *next;
    uint64_t id;
    uint32_t slot;
    struct client *client;
    struct channel channel;
    struct ring_writer requests;
    struct ring_reader responses;
    bool gone; /* its client has let go of it, or the node has ended */
    struct send *sends, **sends_end;
};

struct client {
    unsigned number;
    uint32_t uid;
    struct sim_channel *channel; /* NULL: none */
    uint32_t generation;
    bool asleep, waits_for_room;
    struct session_view *sessions[SIM_SESSIONS];
    uint64_t seen_index;
    struct op **open; /* not done */
    unsigned open_count, open_capacity;
};

/* ---- history.c ---- */

struct entry {
    uint64_t index, time;
    struct send *send; /* NULL: the node's own */
    uint64_t lived;    /* sim->lived when it was applied live; NEVER: flushed since */
    bool invented;     /* nobody has sent it */
    bool live;         /* not first met in a replay */
};

/* ---- account.c ---- */

struct version {
    uint64_t index;
    int64_t value;    /* a counter's; of a key: the number of the op that wrote it, 0: not there */
    uint64_t expires; /* of a key, partition's time; NEVER */
};
struct versions {
    struct version *list;
    unsigned count, capacity;
};

struct sim {
    uint64_t seed;
    struct random random;
    struct plan plan;
    unsigned step;
    bool verbose;
    bool settling; /* faults are over: nobody begins anything */
    bool over;     /* damage was reported that nobody can mend: the run ends here */

    /* The machine. */
    struct fake_machine *machine;
    struct io *observer; /* a process that only looks at the clock */
    uint64_t elapsed;    /* nanoseconds since the beginning, over all power cuts */
    uint64_t looked_at;  /* monotonic, when `elapsed` was brought up to date */
    uint64_t served; /* of it, while the partition's time may run: not while the log is in trouble, or nobody is up */
    uint64_t lived;  /* of it, while a worker was up and well; pieces of at most nap_max */
    unsigned trouble_until, full_until; /* steps */
    unsigned failures;                  /* recoveries that failed in a row */
    bool rotten;                        /* somewhere bits are wrong that nobody has needed so far */
    bool sync_failed;                   /* in `async` that may have lost what had been answered */

    /* The node. */
    struct {
        bool up;
        struct io *io;
        struct io_ops ops;
        struct worker worker;
        struct region *region;
        struct log_recovery found;
        struct mr_error error;
        uint64_t calls_left; /* until it dies; 0: it does not */
        bool inside;         /* its code runs */
        bool stopping;       /* in order: it takes turns by itself */
        jmp_buf death;
        uint64_t read_at;         /* sim->elapsed, when the partition's clock was read last */
        uint64_t claiming, claim; /* the sequence of a batch that claims entries up to the second; 0: none */
    } node;
    uint64_t last_channel;
    struct sim_channel *channels; /* newest first */
    struct sim_channel *slots[SIM_SLOTS];
    int memory[SIM_MEMORY_SEGMENTS];
    uint32_t memory_count;
    bool memory_snapshots; /* those for `memory` are this run's */

    /* The clients. */
    struct client clients[SIM_CLIENTS_MAX];
    struct session_view *sessions;
    struct op *ops;
    uint64_t op_count;
    uint64_t acked; /* the highest index that any client has seen */

    /* What happened. */
    struct entry *entries; /* entries[i] has index i + 1 */
    uint64_t entry_count, entry_capacity;
    struct entry *replayed; /* by the recovery under way */
    unsigned replayed_count, replayed_capacity;
    uint64_t must;       /* entries up to here were answered, or could have been: they may not be lost */
    uint64_t claimed;    /* the log said up to here, durably, that it is all there: rot may not pass as torn */
    uint64_t begin_time; /* the partition's time at the beginning, when nothing had been served; 0: not yet */
    struct versions counters[SIM_COUNTERS], keys[SIM_MAPS][SIM_KEYS];
    uint64_t service_ids[SIM_SERVICES];
    struct fsm *shadow;
    struct {
        uint64_t entries, answers, recoveries, crashes, power_cuts, snapshots, refused, reported;
        uint64_t shared; /* outputs read from frames that were another's, too */
    } counts;
};

extern struct sim *current_sim; /* the one that runs */

void plan_make(struct sim *sim);
/* The node is started anew, perhaps with other options. */
void plan_again(struct sim *sim);

/* ---- life.c ---- */
/* Whose memory the engine's code takes: a worker's is all gone when it dies. */
enum owner { OWNER_WORKER, OWNER_SHADOW, OWNERS };
enum owner life_owner(enum owner owner); /* the one before */
void life_drop(enum owner owner);
/* Memory for the run at hand: zeroed, gone with run_drop(). */
void *run_allocate(size_t size);
void run_drop(void);
/* Grows a list of run memory so that one more fits. */
void *run_grow(void *list, unsigned count, unsigned *capacity, size_t size);

/* ---- run.c ---- */
_Noreturn void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define TRACE(...) (__builtin_expect(current_sim->verbose, 0) ? trace(__VA_ARGS__) : (void)0)
void run_seed(struct sim *sim, uint64_t seed, bool verbose);
/* ---- main.c ---- */
/* A violation has been told: says how to repeat it and ends the process. */
_Noreturn void main_failed(void);

/* ---- node.c ---- */
enum start { START_UP, START_DIED, START_FAILED, START_DAMAGED };
void node_make(struct sim *sim);
void node_unmake(struct sim *sim);
void node_look_at_clock(struct sim *sim);
/* A worker's life begins. `rot`: bits have rotten, and what was written last may have gone with them. */
enum start node_start(struct sim *sim, bool rot);
/* A moment at which it may. */
void node_may_die(struct sim *sim);
/* The worker ends: killed, or where it stands. */
void node_kill(struct sim *sim);
/* The worker and all channels are gone; the disk stays as it is. */
void node_end(struct sim *sim);
/* One turn, and if nothing was to do perhaps a nap. False: it died. */
bool node_turn(struct sim *sim);
/* An orderly end. False: it died in it, or could not. */
bool node_stop(struct sim *sim);
void node_ask_snapshot(struct sim *sim);
/* Channels: for a client; NULL: there is no slot now. */
struct sim_channel *node_connect(struct sim *sim, struct client *client);
void node_disconnect(struct sim *sim, struct sim_channel *channel);
void node_wake_worker(struct sim *sim, struct sim_channel *channel);
struct sim_channel *node_find_channel(struct sim *sim, uint64_t id);

/* ---- client.c ---- */
void clients_make(struct sim *sim);
void client_act(struct sim *sim, struct client *client);
void client_die(struct sim *sim, struct client *client);
void client_forget_channel(struct sim *sim, struct client *client); /* the node has ended */
/* Entries behind this one are lost (`async`, a power cut): who had opened something in them learns it. */
void clients_lost(struct sim *sim, uint64_t index);
void client_woken(struct sim *sim, int number);
/* Is all answered that can be? */
bool client_settled(struct client *client);
void client_begin(struct sim *sim, struct client *client, struct op *op); /* a new op: to be sent */
struct send *client_find_send(struct sim_channel *channel, uint64_t position);

/* ---- requests.c ---- */
/* The session is no more, nor is anything that was asked in it. */
void session_lost(struct session_view *session);
/* Something new to do, or NULL. */
struct op *request_invent(struct sim *sim, struct client *client);
struct op *request_query_all(struct sim *sim, struct client *client, unsigned n); /* at the end: n-th; NULL: no more */
/* A frame for one of the client's requests. */
void request_answered(struct sim *sim, struct client *client, struct send *send, const struct response_head *head,
                      const uint8_t *body);
const char *op_name(enum op_kind kind);
bool op_is_query(const struct op *op);

/* ---- history.c ---- */
void history_apply(struct sim *sim, const struct fsm_entry *entry, bool live);
/* A recovery has ended well. */
void history_recovered(struct sim *sim, bool rot);
/* `async`, and a sync has failed: what the kernel let go of then, a power cut takes, however old it is. */
bool history_unsure(const struct sim *sim);
/* A power cut: what may be lost now. */
void history_power_cut(struct sim *sim);

/* ---- account.c ---- */
void account_begin(struct sim *sim);
/* After the shadow. */
void account_apply(struct sim *sim, struct send *send, uint64_t index, uint64_t time);
/* The value at some index from `from` to `to`, was it ever this? */
bool account_was(const struct versions *versions, int64_t value, uint64_t from, uint64_t to);
int64_t account_now(const struct versions *versions);

/* ---- shadow.c ---- */
void shadow_begin(struct sim *sim);
void shadow_apply(struct sim *sim, struct send *send, uint64_t index, uint64_t time);
/* Violation if the worker's state is another than the shadow's. */
void shadow_compare(struct sim *sim);

/* ---- trouble.c ---- */
void trouble_step(struct sim *sim);
/* A worker has died in the middle: perhaps the machine did. */
void trouble_after_death(struct sim *sim);
void trouble_heal(struct sim *sim);
/* The node is brought up again if it is down; it may die or fail on the way. */
void trouble_start(struct sim *sim);

#endif
