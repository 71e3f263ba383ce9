/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of one partition: sessions, services, time, and nothing else. A pure function of what it is given:
 * it does no I/O, reads no clock, uses no randomness and no global, and its outputs and its state depend on the
 * sequence of entries alone (hash_seed only changes where things lie in tables, never what is said).
 *
 * It knows nothing of rings, logs or processes. Where an answer belongs it is told by an opaque route, which it
 * remembers for open commands and hands back with every output; routes are not part of the state. An open command whose
 * route is all zero has none: its outputs are stored and given to nobody.
 *
 * One thread. It never fails for lack of memory: running out ends the process (admission keeps it from coming to
 * that). */
#ifndef ENGINE_FSM_FSM_H
#define ENGINE_FSM_FSM_H

#include "engine/fsm/service.h"
#include "ipc/error.h"
#include "proto/messages.h"

struct fsm;

/* Which request asked: meaningful to the caller only. */
struct fsm_route {
    uint64_t channel;
    uint64_t position;
};

/* One answer to a request, or one output of a command with many. Valid during the sink's call only. */
struct fsm_answer {
    uint64_t session_id;   /* with sequence_num: the command, if it has a number; else 0 */
    uint64_t sequence_num; /* 0: a command without a number */
    uint64_t number;       /* the output's number, from 1; 0: not a numbered output (refusals, un-numbered commands) */
    bool last;             /* nothing more follows for this route */
    uint64_t event;        /* to be had by share(): a name that only this event's outputs have; 0: not this one */
    enum status status;    /* STATUS_OK: the body is the answer; else `message` says why there is none */
    struct slice message;
    const struct slice *parts; /* the body, a PartitionCommandOutput: one behind the other, some may be empty */
    size_t part_count;
    size_t size; /* of the body: the sum of the parts' */
};

/* Takes answers as they arise; it may not call the fsm. True: taken. False: there is no room for it at that route now.
 *
 * False is for numbered outputs (`number` is not 0), which are stored. Nothing more of that command is then given to
 * that route before fsm_deliver() asks for it, except a last frame. For answers without a number, and for the CANCELED
 * that is an open command's last output when its session ends, there must be room: they are said only here and the
 * result is not looked at. (All of those are small and `last`.)
 *
 * share() is for an event that is an output of many commands: it gives the route, as output `number`, what answer() was
 * last given for that `event`, whoever's it was. False: it cannot, and answer() is asked. It is asked for commands only
 * whose entries say so, and may be NULL.
 *
 * Whatever comes with `last` is the last for its route, although outputs may be stored that it was still to have: who
 * noted that there is more to deliver forgets it then. */
struct fsm_sink {
    void *context;
    bool (*answer)(void *context, const struct fsm_route *route, const struct fsm_answer *answer);
    bool (*share)(void *context, const struct fsm_route *route, uint64_t event, uint64_t number);
};

struct fsm_config {
    uint64_t hash_seed;                      /* from the directory's random identity */
    uint64_t session_output_limit;           /* bytes of unacknowledged outputs a session may hold; part of the state */
    const struct service_type *const *types; /* NULL-terminated; outlives the fsm */
};
struct fsm *fsm_create(const struct fsm_config *config);
void fsm_destroy(struct fsm *fsm);

/* Can this command be told to be wrong from its bytes alone (and the table of types)? STATUS_OK: it may be logged. Else
 * the status of the refusal, *message (static text) saying why. Looks at no state. */
enum status fsm_check_command(const struct fsm *fsm, const struct partition_command_input *input, uint32_t partition,
                              const char **message);
/* Does it only end or remove things? Then it is admitted at any limit on requests. Looks at no state. */
bool fsm_check_frees(const struct fsm *fsm, const struct command_input *command);
/* The same, and no crowd of listeners is told of it, for each of whom something is kept? Then it is admitted at any
 * limit on what the state takes. */
bool fsm_frees(const struct fsm *fsm, const struct command_input *command);
enum status fsm_check_query(const struct partition_query_input *input, uint32_t partition, const char **message);

/* One logged command. `command` has passed fsm_check_command(); command->source and all slices live at least until the
 * call returns. Entries come in index order without gaps, with times that never go backwards. */
struct fsm_entry {
    uint64_t index;
    uint64_t time; /* nanoseconds since 1970, the partition's time */
    uint32_t uid;  /* the user who sent it */
    struct fsm_route route;
    bool shares;                         /* its outputs may go to the route by fsm_sink.share() */
    const struct command_input *command; /* NULL: carries nothing but time (logged by the node itself) */
};
/* Fires the deadlines up to entry->time, then applies the command. At most MR_ENTRY_DEADLINES of them, and none before
 * a command at the time of the entry before it: what is left is due at the next ones. A session or an entry whose
 * deadline has passed is there like any other until its deadline fires; a KeepAlive or a write that comes before renews
 * it. */
void fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink);

/* Commands that will be applied next, in this order as far as is known: asks for the memory that they will look at, so
 * that many wait for it at a time and not one after the other. Does nothing else; nobody need call it. NULL stands for
 * an entry without a command. */
void fsm_expect(struct fsm *fsm, const struct command_input *const *commands, unsigned count);

/* Goes on with a command at a route where the sink had no room: gives its stored outputs that the route has not taken,
 * in order, until the sink has no room again. True: all is given; of an open command, later outputs follow as they
 * arise. *gone, with true: there is nothing to give, neither now nor later, and the route has not had its last frame,
 * because the session or the command is gone or another process has acknowledged the outputs; the caller ends the
 * request. A command that is open, or was, knows one route at a time, the one that named it last; nothing is given to
 * an earlier one, which was told so. */
bool fsm_deliver(struct fsm *fsm, uint64_t session_id, uint64_t sequence_num, const struct fsm_route *route,
                 const struct fsm_sink *sink, bool *gone);

/* The route has been given a last frame by the caller: nothing more of that command is given to it. The command itself
 * goes on, for whoever names it next. */
void fsm_leave(struct fsm *fsm, uint64_t session_id, uint64_t sequence_num, const struct fsm_route *route);

/* A query on the applied state. `now` (>= fsm_time()) is what remaining TTLs are counted from. The result: a frame
 * status (else than STATUS_OK: *message says why). With STATUS_OK either *cursor is NULL and *output is the answer,
 * valid until the next call on the fsm; or the query has many outputs, and *cursor, which is the caller's to close,
 * gives them. */
struct fsm_cursor;
enum status fsm_query(struct fsm *fsm, const struct partition_query_input *query, uint32_t uid, uint64_t now,
                      struct operation_output *output, struct fsm_cursor **cursor, const char **message);

/* The output at which the cursor stands, valid until the next call on the fsm; asked again, the same one, or what is
 * there by then. fsm_cursor_taken() says that it was put where it belongs and moves on; after one that is *last the
 * cursor has nothing to give but empty outputs, each the last. (A last output can be empty: the entry that was to be
 * the last has gone meanwhile, or there never was one.) Not STATUS_OK: a frame status and *message; session or service
 * have been closed, and the cursor stays so.
 *
 * A cursor is no part of the state. Any commands may be applied between two calls; it outlives its session, and the
 * fsm, as far as closing it goes. */
enum status fsm_cursor_next(struct fsm_cursor *cursor, uint64_t now, struct operation_output *output, bool *last,
                            const char **message);
void fsm_cursor_taken(struct fsm_cursor *cursor);
void fsm_cursor_close(struct fsm_cursor *cursor); /* NULL is fine */

/* For coming back to a session. False: there is no such session. */
bool fsm_session_owner(const struct fsm *fsm, uint64_t session_id, uint32_t *uid);
/* A command that is open; valid during the call. */
struct fsm_open_command {
    uint64_t sequence_num;
    uint64_t acknowledged; /* the number of the last output that has been; 0: none */
    uint64_t service_id;
    struct service_spec spec;
    struct slice operation; /* its name */
};
typedef void fsm_open_command_fn(void *context, const struct fsm_open_command *command);
/* Those of a session, in an order that stays while fsm_session.changes does: `count` of them after the first `from`, or
 * as many as there are. */
void fsm_session_open_commands(const struct fsm *fsm, uint64_t session_id, uint64_t from, uint64_t count,
                               fsm_open_command_fn *fn, void *context);
struct fsm_session {
    uint64_t id;
    uint32_t uid;           /* of its owner */
    uint64_t timeout;       /* nanoseconds */
    uint64_t deadline;      /* when it expires, in the partition's time */
    uint64_t highest;       /* the highest number that was ever applied or given up; 0: none */
    uint64_t open_commands; /* that have not given their last output */
    uint64_t changes;       /* grows with each that is opened and that ends; no part of the state */
    uint64_t stored_bytes;  /* as they count against session_output_limit */
};
bool fsm_session_describe(const struct fsm *fsm, uint64_t session_id, struct fsm_session *to);
/* The session with the lowest id over `id`; false: there is none. At once where `id` is a session's own, or 0; else it
 * looks at all sessions up to there. */
bool fsm_session_after(const struct fsm *fsm, uint64_t id, struct fsm_session *to);

uint64_t fsm_index(const struct fsm *fsm); /* of the entry applied last; 0: none */
uint64_t fsm_time(const struct fsm *fsm);  /* of the same */
/* The earliest deadline of a session, an entry or a request that has not fired; UINT64_MAX: none. One that is not over
 * fsm_time() was one of too many for an entry: the next entry with nothing but time goes on with them. */
uint64_t fsm_next_deadline(const struct fsm *fsm);
uint64_t fsm_session_count(const struct fsm *fsm);
uint64_t fsm_sessions_of(const struct fsm *fsm, uint32_t uid);
uint64_t fsm_service_count(const struct fsm *fsm); /* those that nobody has open count too */
bool fsm_service_exists(const struct fsm *fsm, const struct service_spec *spec);
/* How many commands a KeepAlive may have to look at: those that its session holds up to its last_input_sequence_num; 0:
 * any other command. *again: those among them that an earlier one has looked at and kept, and the next may keep once
 * more, so that what they cost is in no proportion to what was sent; the others were sent since. */
uint64_t fsm_walk(const struct fsm *fsm, const struct command_input *command, uint64_t *again);

/* Frees what big removals have unlinked, about `budget` objects; true while more is left. */
bool fsm_collect(struct fsm *fsm, unsigned budget);

/* The whole state in its canonical order, piece by piece to `write`: equal states give equal bytes. The first is a
 * PartitionSnapshot (fsm.proto), the second a millrace.v1.SnapshotExtra with what that has no field for. */
typedef void fsm_write_fn(void *context, const void *data, size_t size);
void fsm_write_snapshot(struct fsm *fsm, fsm_write_fn *write, void *context);
void fsm_write_extra(struct fsm *fsm, fsm_write_fn *write, void *context);

/* Fills a state that has just been created with what those two wrote: it cannot be told from the one that was written
 * (but for routes: every open command has none). The bytes are looked at as if anybody could have written them: 0; or
 * -1 with *error, saying what cannot be, and then the state is good for fsm_destroy() only. Nothing refers to the bytes
 * afterwards. */
int fsm_restore(struct fsm *fsm, struct slice snapshot, struct slice extra, struct mr_error *error);
/* Where the bytes of a snapshot come from that is read while it is restored. */
struct fsm_source {
    /* [from, to) has to be there now. The end of what is there from `from` on: `to`, or further; NULL with *error: it
     * cannot be had. */
    const uint8_t *(*need)(void *context, const uint8_t *from, const uint8_t *to, struct mr_error *error);
    /* [from, to) will not be looked at again, so that its memory can be given to the state. Told every few megabytes;
     * NULL: nobody wants to know. */
    void (*passed)(void *context, const uint8_t *from, const uint8_t *to);
    void *context;
};
/* The same of a snapshot of which only the extra is there at first. */
int fsm_restore_from(struct fsm *fsm, struct slice snapshot, struct slice extra, const struct fsm_source *source,
                     struct mr_error *error);

/* Both sections, one behind the other: to compare states (tests). */
void fsm_dump(struct fsm *fsm, fsm_write_fn *write, void *context);

#endif
