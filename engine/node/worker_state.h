/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker holds, and what its parts call of each other. For the files of the worker alone: worker.c (its life),
 * worker_recovery.c (its beginning), worker_stop.c (its end), turn.c (one turn), admission.c (requests in), answer.c
 * (answers out), bells.c (waking clients), query.c (queries that wait), channels.c (which channels there are, scanned
 * or parked), attach.c (who uses which session), snapshots.c (when one is taken). A turn runs on whatever io it is
 * given: system calls are worker.c's alone, but for what channels.c does to a channel's memory and descriptors. */
#ifndef ENGINE_NODE_WORKER_STATE_H
#define ENGINE_NODE_WORKER_STATE_H

#include "engine/fsm/fsm.h"
#include "engine/log/log.h"
#include "engine/node/attach.h"
#include "engine/node/bells.h"
#include "engine/node/clock.h"
#include "engine/node/logline.h"
#include "engine/node/quota.h"
#include "engine/node/read_once.h"
#include "engine/node/region.h"
#include "engine/node/snapshots.h"
#include "ipc/channel.h"
#include "ipc/frame.h"
#include "proto/writer.h"

/* A query that was taken from its ring and is not over: it waits for an index or for room, or has many outputs. */
struct waiting_query {
    struct waiting_query *next;
    uint64_t position;
    uint64_t deadline;         /* monotonic, ns */
    uint64_t index;            /* that must be applied first */
    uint64_t needs;            /* bytes that its answer took when it was tried last; 0: not tried yet */
    uint64_t lacks;            /* room that its answer lacked then, beside what requests hold; 0: none */
    struct fsm_cursor *cursor; /* it has begun to give its outputs; NULL: not yet, or it has only one */
    uint64_t number;           /* of outputs given */
    uint32_t size;
    uint8_t body[];
};

/* The frame that ends at a response ring's tail, while more requests may share it. */
struct shared_frame {
    uint64_t event; /* fsm_answer's; 0: there is none */
    uint64_t begin, end;
    uint16_t others;
    uint16_t room; /* for so many more */
};

/* A request whose outputs stand in their session because its channel had no room for the next of them. */
struct owed_outputs {
    uint64_t session_id, sequence_num;
    uint64_t position; /* of the request */
};

/* A KeepAlive by the commands that it may have to look at. */
enum walk {
    WALK_SHORT, /* any other command, too */
    WALK_LONG,  /* over MR_WALK_AT_ONCE, but they have been sent since the last one */
    WALK_AGAIN  /* over MR_WALK_AT_ONCE that it or another one has looked at before */
};

/* When a user's next WALK_AGAIN may be logged. */
struct walk_share {
    uint32_t uid;
    uint64_t from; /* monotonic */
};

struct worker_channel {
    bool used;
    bool parked;          /* its sleep flag is up and it is not scanned until its watch completes */
    bool touched;         /* stands in worker->touched: cursors to be published */
    bool unfinished;      /* stands in worker->unfinished: has waiting queries, owed outputs or a refusal */
    bool broken;          /* to be closed at the turn's end: why[] */
    bool closing;         /* let go of; waits for its watch and its wake-up to end */
    bool watched;         /* its watch has not ended */
    bool wake_started;    /* a wake-up of the client is not complete */
    bool wake_again;      /* another was needed meanwhile */
    bool wake_waits;      /* stands in worker->bells.waiting: it is to be woken by itself, or later */
    uint8_t wakes_failed; /* in a row */
    bool stuck;           /* not read on: a write, a refusal or its client's reading must come first */
    bool starved;         /* likewise: the log had no buffer for any request of its */
    enum walk walk;       /* what its next request is, if that was read and waits for others like it */
    bool crowded;         /* no room may be held but for what ends open commands */
    uint64_t room_needed; /* bytes of its response ring with which something of it can go on; 0: it lacks none */
    uint32_t slot;
    uint32_t uid;
    uint64_t channel_id;
    uint64_t max_payload; /* of a request: the node's, or a quarter of this channel's rings */
    uint64_t quiet_since; /* monotonic: nothing has been found in it since */
    struct channel channel;
    struct region_channel *region;
    struct ring_reader requests;
    struct ring_writer responses;

    /* Requests stand in one of these places: logged and not applied yet; waiting (queries); owed; or they are the one
     * refusal that waits for all before it. Each holds MR_SMALL_FRAME of the response ring. */
    uint64_t held;          /* bytes so held */
    uint64_t answered_from; /* requests before it were a predecessor's, who answered them or owed the answer */
    uint64_t applied_to;    /* while something is in flight: all requests before it are applied or answered */
    unsigned in_flight;     /* logged, not applied */

    struct shared_frame shared;
    uint64_t *sharing; /* a queue: positions of what is in flight and may share frames */
    unsigned sharing_first, sharing_count, sharing_capacity;

    struct waiting_query *waiting, **waiting_end;
    unsigned waiting_count;
    uint64_t waiting_bytes;    /* that they take in memory; those that have not begun at most ring_bytes */
    uint64_t waiting_deadline; /* the earliest of them (monotonic); UINT64_MAX: none */
    uint64_t waiting_index;    /* the lowest index that one of them waits for; 0: one can go on at once */
    uint64_t waiting_room;     /* the least room that one of them lacks; UINT64_MAX: none lacks any */
    uint64_t walks_room;       /* the most that one of them lacks which has begun to give its outputs; 0: none */

    struct owed_outputs *owed; /* a queue: owed[owed_first ...], owed_count of them */
    unsigned owed_first, owed_count, owed_capacity;
    uint64_t *ended; /* positions of requests that had their last frame while something was owed */
    unsigned ended_count, ended_capacity;

    struct session_use sessions; /* that it uses */

    bool refusal; /* one request, refused, not told yet; nothing behind it is read */
    uint64_t refusal_position;
    enum status refusal_status;
    char refusal_text[2 * MR_MESSAGE_MAX]; /* cut when it is written */

    char why[120];
};

/* The answer to a question that the supervisor has passed on (attach.c, snapshots.c). */
struct worker_answer {
    uint64_t number, connection; /* of the question */
    enum status status;          /* STATUS_OK: bytes, else text */
    char text[128];
    const uint8_t *bytes; /* an encoded Attachment, SessionList, or SnapshotReport; valid during the call */
    size_t size;
    uint32_t holder_slot;    /* if a channel uses the session: this one, */
    uint64_t holder_channel; /* by this id; 0: none does */
};

#define WORKER_WALK_USERS 64 /* remembered; those with the same last bits drive each other out */
#define CHANNELS_FOUND 16    /* an event's listeners come from several, in turn */

struct worker {
    uint32_t partition;
    uint64_t max_payload;
    struct io *io;
    struct log *log; /* NULL while recovering and when stopped */
    struct fsm *fsm; /* NULL when stopped */
    struct region *region;
    struct partition_clock clock;
    uint64_t now;         /* monotonic, of this turn */
    uint64_t time;        /* the partition's, of this turn */
    uint64_t logged_time; /* of the last entry or marker in the log */
    uint64_t marked_at;   /* monotonic: when time was logged last */
    uint64_t log_wants;   /* monotonic: when the log wants its next tick */
    unsigned to_collect;  /* objects to be freed besides the usual */
    bool control_ready;   /* the supervisor has said something */
    bool control_lost;    /* the watch on its socket has ended: to be renewed */
    bool in_trouble;      /* the region says so */
    bool time_waits;      /* time is to be logged, and the log has no room: its next segment is being made */
    bool replaying;       /* answers are written, nothing is published */
    bool delivering;      /* what is owed is being sent */
    bool accepting;       /* reads requests; false once told to stop */
    bool recovering;      /* whose completions are the log's alone: channels are not watched yet */
    const char *stopped;  /* why the partition is stopped; NULL: it is served */
    uint64_t too_large;   /* bytes of a frame, met while delivering, that a ring of its channel's size never takes */
    struct fsm_sink sink;

    struct worker_channel *channels; /* MR_CHANNELS_MAX, by slot */
    uint32_t *scanned;               /* slots that are scanned, scanned_count of them */
    unsigned scanned_count, scan_from;
    uint64_t parked_at; /* monotonic: when those that are quiet were looked for last */
    uint32_t *touched;  /* slots with cursors to publish */
    unsigned touched_count;
    unsigned outputs; /* that streams were given and that are not published */
    uint32_t *by_id;  /* channel id -> slot + 1: open addressing, 4 * MR_CHANNELS_MAX places */
    struct worker_channel *found[CHANNELS_FOUND]; /* in there, lately, by id; NULL: none that is still there */
    uint32_t *unfinished; /* slots with something left over from earlier turns: looked at each turn */
    unsigned unfinished_count;
    uint8_t *query_body; /* a query's bytes while it is answered: max_payload */
    void (*closed)(void *context, uint32_t slot, uint64_t channel_id, const char *why); /* a channel was let go of */
    void *closed_context;

    uint64_t applied_session;          /* the session that the entry applied last opened or named; 0: none */
    struct attach_question *questions; /* a queue of question_count */
    unsigned question_count, question_capacity;
    void (*answered)(void *context, const struct worker_answer *answer);
    void *answered_context;

    uint64_t walk_index; /* of the KeepAlive logged last that looks at many commands; 0: none */
    enum walk walk;      /* which kind it is */
    uint64_t walk_waits; /* monotonic: when one that waits for its user's share may go on; UINT64_MAX: none does */
    struct walk_share walk_shares[WORKER_WALK_USERS];
    struct bells bells;
    struct quota quota;
    struct read_once read; /* the commands that are logged and not applied */
    struct snapshots snapshots;
    void (*notice)(void *context, enum logline_level level, const char *text); /* a line worth a person's attention */
    void *notice_context;
};

/* Tokens of the io's completions that are not the log's: kind in bits 56-62, slot in 32-55, low half of the channel id.
 */
enum worker_token { TOKEN_CONTROL = 1, TOKEN_WATCH = 2, TOKEN_WAKE = 3, TOKEN_SNAPSHOT = 4 };
static inline uint64_t worker_token(enum worker_token kind, uint32_t slot, uint64_t channel_id)
{
    return (uint64_t)kind << 56 | (uint64_t)slot << 32 | (uint32_t)channel_id;
}

/* ---- worker_recovery.c ---- */
/* A new life: reads the newest sound snapshot and the log behind it back into a new state, and writes the answers that
 * clients may lack; nothing is published yet. log->progress() is told of both together. 0; or -1 with *error: then
 * there is neither log nor state. */
int worker_recover(struct worker *worker, const struct log_config *log, const struct snapshots_config *snapshots,
                   const struct fsm_config *state, struct log_recovery *found, struct mr_error *error);
/* Publishes in every channel that was there, raises its generation and wakes its client. */
void worker_resume_channels(struct worker *worker);

/* ---- worker_stop.c ---- */
/* An orderly end: answers what is logged, closes the log so that the next start finds nothing undecided, writes a
 * snapshot so that it need not read it. `busy` is told now and then how many bytes of that are written. worker->log is
 * gone then. -1 with *error: the log could not be closed in order. */
int worker_stop(struct worker *worker, void (*busy)(void *context, uint64_t bytes), void *context,
                struct mr_error *error);

/* ---- turn.c ---- */
/* Takes what has come, moves it one step on, publishes. True if there was anything to do. */
bool turn_run(struct worker *worker);
/* The monotonic time at which the next turn has something to do if nothing comes (UINT64_MAX: never). */
uint64_t turn_next(struct worker *worker);
/* One entry of the log that is read back into the state. -1 with *error if it cannot be what was logged. */
int turn_apply(struct worker *worker, const struct log_entry *entry, struct mr_error *error);

/* ---- attach.c ---- */
/* An entry of this channel's, which has been applied, opened or named this session (0: none). */
static inline void attach_note(struct worker *worker, struct worker_channel *channel, uint64_t session_id)
{
    if (session_id != channel->sessions.last)
        attach_note_other(worker, channel, session_id);
}

/* ---- admission.c ---- */
/* Takes requests from one channel, up to its share of a turn. True if there were any. */
bool admission_scan(struct worker *worker, struct worker_channel *channel);

/* ---- answer.c ---- */
bool answer_from_fsm(void *context, const struct fsm_route *route, const struct fsm_answer *answer);
bool answer_shared(void *context, const struct fsm_route *route, uint64_t event, uint64_t number);
/* A command's outputs may share frames: noted when it is logged, asked when it is applied. (A successor does not know
 * until its client names the command again.) */
void answer_will_share(struct worker_channel *channel, uint64_t position);
bool answer_may_share(struct worker_channel *channel, uint64_t position);
/* Room for so many bytes beside what requests hold? */
bool answer_fits_closely(struct worker *worker, struct worker_channel *channel, uint64_t needed);
static inline bool answer_has_room(struct worker *worker, struct worker_channel *channel, uint64_t beside_held)
{
    uint64_t needed = beside_held + channel->held;
    return ring_room(&channel->responses) >= needed || answer_fits_closely(worker, channel, needed);
}
/* For a frame with `size` bytes of body, if `own` of what is held is this request's? */
static inline bool answer_fits(struct worker *worker, struct worker_channel *channel, uint64_t size, uint64_t own)
{
    return answer_has_room(worker, channel, response_frame_bytes(size) - own);
}
/* The last frame of a request that holds room for a small one: a message, cut to MR_MESSAGE_MAX. */
void answer_message(struct worker *worker, struct worker_channel *channel, uint64_t position, enum status status,
                    const char *message);
/* An output of a query (`number` 0: its only one); answer_fits() has said yes, or it is small and the last. */
void answer_query(struct worker *worker, struct worker_channel *channel, uint64_t position, uint64_t number, bool last,
                  const struct operation_output *output, const struct query_output_sizes *sizes);
/* Ends a request whose answer takes a frame of more bytes than half of the ring. */
void answer_too_large(struct worker *worker, struct worker_channel *channel, uint64_t position, uint64_t bytes);
/* A request is refused: at once if all before it is answered, else kept until then. It must hold room. */
void answer_refuse(struct worker *worker, struct worker_channel *channel, uint64_t position, enum status status,
                   const char *message);
/* Sends owed outputs and a kept refusal as far as they can go now. True if anything went. */
bool answer_owed(struct worker *worker, struct worker_channel *channel);
static inline void answer_touch(struct worker *worker, struct worker_channel *channel)
{
    if (channel->touched)
        return;
    channel->touched = true;
    worker->touched[worker->touched_count++] = channel->slot;
}
/* Publishes the cursors of every touched channel and wakes who sleeps. */
void answer_publish(struct worker *worker);
void answer_wake(struct worker *worker, struct worker_channel *channel);

/* ---- query.c ---- */
/* Answers the query or keeps it; `body` is the caller's. The request holds room for a small frame. */
void query_take(struct worker *worker, struct worker_channel *channel, uint64_t position, uint64_t time_limit,
                const uint8_t *body, uint32_t size);
/* Looks at the waiting ones again, if one of them could go on. True if any was answered. */
bool query_look(struct worker *worker, struct worker_channel *channel);
void query_drop_all(struct worker_channel *channel);

/* ---- channels.c ---- */
int channels_init(struct worker *worker, struct mr_error *error);
void channels_free(struct worker *worker);
/* Takes over a mapped channel at the cursors that the region names; it is scanned from now on. */
void channels_add(struct worker *worker, uint32_t slot, const struct channel *channel);
/* Recovery is over: those that were added before are watched from now on. */
void channels_watch_all(struct worker *worker);
/* NULL: not (or no more) there. Most ask for a channel that was asked for lately. */
struct worker_channel *channels_find_other(struct worker *worker, uint64_t channel_id);
static inline struct worker_channel *channels_find(struct worker *worker, uint64_t channel_id)
{
    struct worker_channel *found = worker->found[channel_id % CHANNELS_FOUND];
    return found != NULL && found->channel_id == channel_id ? found : channels_find_other(worker, channel_id);
}
/* Marks it: something in it cannot be. It is closed at the end of the turn. */
void channels_break(struct worker *worker, struct worker_channel *channel, const char *why);
/* Lets go of it; `why` (may be empty) is for whoever reads the page. worker->closed() is called when that is done. */
void channels_close(struct worker *worker, struct worker_channel *channel, const char *why);
/* Its watch, or the wake-up of its client, is over: once both are, a channel that was let go of is freed. */
void channels_watch_ended(struct worker *worker, struct worker_channel *channel);
void channels_wake_ended(struct worker *worker, struct worker_channel *channel, int32_t result);
void channels_scan_again(struct worker *worker, struct worker_channel *channel); /* its watch has completed */
/* Raises the sleep flag and stops scanning; false: something has come meanwhile, it is scanned on. */
bool channels_park(struct worker *worker, struct worker_channel *channel);
/* Before sleeping. False: one of them has something, or has got the room that it lacked. */
bool channels_park_all(struct worker *worker);
/* Something is left to do in later turns (a waiting query, an owed output, a refusal): puts it on that list. */
void channels_leave(struct worker *worker, struct worker_channel *channel);
/* Works that list off as far as it goes now; what is finished leaves it. True if anything went. */
bool channels_finish(struct worker *worker);

#endif
