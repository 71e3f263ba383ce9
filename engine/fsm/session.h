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
 * Those of the last two are also in the table `commands`, by number.
 *
 * How much a session holds is counted from its state alone, so that a limit on it means the same everywhere: for every
 * held command SESSION_COMMAND_BYTES, and for every stored output SESSION_OUTPUT_BYTES and its payload's and message's
 * bytes. The two constants are about what the structures take. */
#ifndef ENGINE_FSM_SESSION_H
#define ENGINE_FSM_SESSION_H

#include "engine/fsm/garbage.h"
#include "engine/fsm/list.h"
#include "engine/fsm/outputs.h"
#include "engine/fsm/table.h"
#include "engine/fsm/timers.h"
#include "engine/fsm/window.h"

#define SESSION_COMMAND_BYTES 128
#define SESSION_OUTPUT_BYTES 128

/* A held command that is not in the window. */
struct command {
    struct table_node by_number; /* in the session's `commands` */
    struct list kept;            /* in the session's list of that name, or alone */
    struct timer ahead; /* in the session's heap of that name: its deadline is the number, its time the floor */
    uint64_t sequence_num;
    uint64_t index;
    uint64_t last_number;         /* of the output it gave last */
    uint64_t acknowledged;        /* what the last KeepAlive whose map names it says; used within that one only */
    struct stored_output *output; /* NULL: acknowledged */
};

struct session {
    struct table_node by_id; /* in the state machine's sessions */
    struct list order;       /* among all sessions, which is by id */
    struct garbage_item garbage;
    uint64_t id;
    uint64_t timeout;      /* nanoseconds */
    uint64_t last_updated; /* nanoseconds since 1970 */
    struct timer expiry;
    uint32_t uid; /* of the only user it obeys */

    struct window window; /* its floor is the session's */
    struct timers ahead;
    struct list kept;
    struct table commands; /* those of `ahead` and `kept` */
    struct outputs outputs;
    uint64_t held_commands;
    uint64_t held_bytes; /* counted as above */
    uint64_t hash_seed;

    struct table openings; /* the services it has opened, by id */
    struct list openings_list;
    struct opening *recent; /* the opening used last; NULL: none */
};

struct session *session_create(uint64_t id, uint32_t uid, uint64_t hash_seed);
/* The session is out of every table and list, has no timer and no openings: frees the rest in later turns. */
void session_discard(struct session *session, struct garbage *garbage);

enum standing { STANDING_NEW, STANDING_HELD, STANDING_GIVEN_UP };
/* *output, if held: its stored output, NULL if that has been acknowledged. */
enum standing session_standing(const struct session *session, uint64_t sequence_num, struct stored_output **output);

/* Records the answer of a new command. */
struct stored_output *session_record(struct session *session, uint64_t sequence_num, const struct service_call *call);

/* What a KeepAlive lets the node forget. The filter is valid. */
void session_acknowledge(struct session *session, const struct command_input *keep_alive);

/* Every held command in order of number: for writing the state down. `output` is NULL if it has been acknowledged. */
struct held_command {
    uint64_t sequence_num;
    uint64_t index;
    uint64_t last_number;
    const struct stored_output *output;
};
struct held_command *session_held(const struct session *session); /* held_commands of them; the caller frees it */

#endif
