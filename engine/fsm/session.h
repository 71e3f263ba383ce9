/* SPDX-License-Identifier: Apache-2.0 */
/* One session: who opened it, when it ends, and which of its numbered commands the node still holds, with their
 * outputs. Knows nothing of the operations behind the commands, nor of who is to be answered.
 *
 * Of every number a session can say what it is: new, held, or given up. A number at or below the floor (the highest
 * last_input_sequence_num applied) is held or given up; a number above it is held or new. What is held stands in one of
 * three places, which nobody outside can tell apart:
 *   - in the window, if it is close above the floor and has just its one output: no more than a pointer to the record;
 *   - in `ahead`, if it is far above the floor: a heap by number, so that a rising floor meets just what it passes;
 *   - in `kept`, if the floor has passed it and a filter kept it. Each KeepAlive asks the filter about all of these.
 * Those of the last two are also in the table `commands`, by number. A command with many outputs (a stream) is never in
 * the window: until the floor passes it, it is in `ahead`, however close.
 *
 * How much a session holds is counted from its state alone, so that a limit on it means the same everywhere: for every
 * held command SESSION_COMMAND_BYTES, and SESSION_STREAM_BYTES and the bytes of its input while it is open; and for
 * every stored output SESSION_OUTPUT_BYTES and its payload's and message's bytes. The constants are about what the
 * structures take. */
#ifndef ENGINE_FSM_SESSION_H
#define ENGINE_FSM_SESSION_H

#include "engine/fsm/event.h"
#include "engine/fsm/fsm.h"
#include "engine/fsm/garbage.h"
#include "engine/fsm/list.h"
#include "engine/fsm/outputs.h"
#include "engine/fsm/table.h"
#include "engine/fsm/timers.h"
#include "engine/fsm/window.h"

#define SESSION_COMMAND_BYTES 128
#define SESSION_OUTPUT_BYTES 128
#define SESSION_STREAM_BYTES 1024

/* A held command that is not in the window. */
struct command {
    struct table_node by_number; /* in the session's `commands` */
    struct list kept;            /* in the session's list of that name, or alone */
    struct timer ahead; /* in the session's heap of that name: its deadline is the number, its time the floor */
    uint64_t sequence_num;
    uint64_t index;
    uint64_t last_number;         /* of the output it gave last */
    uint64_t acknowledged;        /* what the last KeepAlive whose map names it says; used within that one only */
    struct stored_output *output; /* NULL: acknowledged, or a stream */
    struct stream *stream;        /* the stream that this is the command of; NULL: a command with one output */
};

/* A command that opened, with its outputs. The rest of it is stream.h's: what the session does not look at. */
struct stream {
    struct command command;
    struct session *session;
    struct events outputs; /* those stored, by number; the floor is the number acknowledged last */
    struct blob *input;    /* its ServiceCommandInput, encoded; NULL: it is complete */

    struct fsm *fsm;
    struct opening *opening; /* on which it is open; NULL: it is complete */
    struct list of_opening;
    void *listener;         /* the service's */
    struct fsm_route route; /* who is answered: no part of the state, as all that follows */
    uint64_t taken;         /* the last number that the sink took for this route */
    bool shares;            /* the route does (fsm_sink.share()) */
    bool waits;             /* the sink had no room for the next one */
    bool told;              /* the route has had its last frame */
};

struct session {
    struct table_node by_id; /* in the state machine's sessions */
    struct list order;       /* among all sessions, which is by id */
    struct garbage_item garbage;
    uint64_t id;
    uint64_t timeout;      /* nanoseconds */
    uint64_t last_updated; /* nanoseconds since 1970 */
    struct timer expiry;
    uint32_t uid;        /* of the only user it obeys */
    struct owner *owner; /* the same among the state machine's owners */

    struct window window; /* its floor is the session's */
    struct timers ahead;
    struct list kept;
    struct table commands; /* those of `ahead` and `kept` */
    struct outputs outputs;
    uint64_t held_commands;
    uint64_t held_bytes; /* counted as above */
    uint64_t highest;    /* number that was ever applied or given up */
    uint64_t open_streams;
    uint64_t stream_changes; /* streams that were opened, and that ended */
    uint64_t hash_seed;

    struct table openings; /* the services it has opened, by id */
    struct list openings_list;
    struct opening *recent; /* the opening used last; NULL: none */
};

struct session *session_create(uint64_t id, uint32_t uid, uint64_t hash_seed);
/* The session is out of every table and list, has no timer and no openings: frees the rest in later turns. */
void session_discard(struct session *session, struct garbage *garbage);

enum standing { STANDING_NEW, STANDING_HELD, STANDING_GIVEN_UP };
/* If it is held: either *stream, or *output, which is NULL if it has been acknowledged. */
enum standing session_standing(const struct session *session, uint64_t sequence_num, struct stored_output **output,
                               struct stream **stream);

/* The quick way for the number that an ordinary client sends next. False: ask session_standing(). */
static inline bool session_surely_new(const struct session *session, uint64_t sequence_num)
{
    return sequence_num > session->highest; /* which is at or above the floor */
}

/* Records the answer of a new command. */
struct stored_output *session_record(struct session *session, uint64_t sequence_num, const struct service_call *call);

/* A new command that opens. `input` is the session's from now on. */
struct stream *session_open_stream(struct session *session, uint64_t sequence_num, uint64_t index, struct blob *input);
/* How much held_bytes grows with a stream's output. */
static inline uint64_t session_output_bytes(const struct event *event)
{
    return SESSION_OUTPUT_BYTES + (uint64_t)event->payload_size + event->message_size;
}
/* Its next output. */
static inline void session_stream_output(struct stream *stream, struct event *event)
{
    stream->command.last_number++;
    stream->session->held_bytes += session_output_bytes(event);
    events_append(&stream->outputs, event);
}
/* It is complete: nothing follows. */
void session_stream_complete(struct stream *stream);

/* How many commands session_acknowledge() would have to look at; *again: those of them that one looked at before. */
uint64_t session_walk(const struct session *session, uint64_t last_input_sequence_num, uint64_t *again);
/* What a KeepAlive lets the node forget. The filter is valid. `cancel` is called for every open stream before it goes;
 * it has completed it when it returns. */
typedef void session_cancel_fn(struct stream *stream);
void session_acknowledge(struct session *session, const struct command_input *keep_alive, session_cancel_fn *cancel);

/* ---- writing it down and filling it again ---- */

struct held_command {
    uint64_t sequence_num;
    uint64_t index;
    uint64_t last_number;
    uint64_t acknowledged;              /* the number of the last output that has been */
    const struct stored_output *output; /* of a command with one output; NULL: acknowledged, or a stream */
    const struct stream *stream;        /* NULL: a command with one output */
};

/* Walks every held command in order of number; the session must not change meanwhile. Takes no memory for what is in
 * the window, where an ordinary client has all. */
struct held_walk {
    const struct session *session;
    const struct command **apart; /* those of `ahead` and `kept`, by number; NULL: none */
    size_t apart_count, apart_at;
    uint64_t number; /* in the window: where to look next */
    size_t left;     /* likewise: still to come */
};
void held_begin(struct held_walk *walk, const struct session *session);
bool held_next(struct held_walk *walk, struct held_command *held);
void held_again(struct held_walk *walk); /* from the beginning */
void held_end(struct held_walk *walk);

/* What a session held, put back into one that has just been created: first the floor, then the commands in order of
 * number, each in the place where it would stand now. */
void session_restore_floor(struct session *session, uint64_t floor);
/* A command with one output; `call` NULL: it has been acknowledged, and so is not over the floor. */
void session_restore_answer(struct session *session, uint64_t sequence_num, uint64_t index,
                            const struct service_call *call);
/* A stream, of which the outputs up to `acknowledged` have been (none, if it is over the floor); the others are for
 * session_stream_output() to add. `input` becomes the session's; NULL: it is complete. */
struct stream *session_restore_stream(struct session *session, uint64_t sequence_num, uint64_t index,
                                      struct blob *input, uint64_t acknowledged);

#endif
