/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine of one partition: sessions, services, time, and nothing else. A pure function of what it is given:
 * it does no I/O, reads no clock, uses no randomness and no global, and its outputs and its state depend on the
 * sequence of entries alone (hash_seed only changes where things lie in tables, never what is said).
 *
 * It knows nothing of rings, logs or processes. Where an answer belongs it is told by an opaque route, which it
 * remembers for open commands and hands back with every output; routes are not part of the state.
 *
 * One thread. It never fails for lack of memory: running out ends the process (admission keeps it from
 * coming to that). */
#ifndef ENGINE_FSM_FSM_H
#define ENGINE_FSM_FSM_H

#include "engine/fsm/service.h"
#include "proto/messages.h"

struct fsm;

/* Which request asked: meaningful to the caller only. */
struct fsm_route {
    uint64_t channel;
    uint64_t position;
};

/* One answer to a request, or one output of an open command. Valid during the sink's call only. */
struct fsm_answer {
    uint64_t session_id;   /* with sequence_num: the command, if it has a number; else 0 */
    uint64_t sequence_num; /* 0: a command without a number */
    uint64_t number;       /* the output's number, from 1; 0: not a numbered output (refusals, un-numbered commands) */
    bool last;             /* nothing more follows for this route */
    enum status status;    /* STATUS_OK: `output` is the answer; else `message` says why there is none */
    struct slice message;
    struct command_output output;
};

/* Takes answers as they arise. Numbered outputs are in the session by then and can be had again with
 * fsm_stored_output() until they are acknowledged; everything else is said only here. */
struct fsm_sink {
    void *context;
    void (*answer)(void *context, const struct fsm_route *route, const struct fsm_answer *answer);
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
enum status fsm_check_query(const struct partition_query_input *input, uint32_t partition, const char **message);

/* One logged command. `command` has passed fsm_check_command(); command->source and all slices live at least until the
 * call returns. Entries come in index order without gaps, with times that never go backwards. */
struct fsm_entry {
    uint64_t index;
    uint64_t time; /* nanoseconds since 1970, the partition's time */
    uint32_t uid;  /* the user who sent it */
    struct fsm_route route;
    const struct command_input *command; /* NULL: carries nothing but time (logged by the node itself) */
};
/* Fires every deadline up to entry->time, then applies the command. */
void fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink);

/* A query on the applied state. `now` (>= fsm_time()) is what remaining TTLs are counted from. The result: a frame
 * status (STATUS_OK: *output is the answer, valid until the next call on the fsm; else *message). */
enum status fsm_query(struct fsm *fsm, const struct partition_query_input *query, uint32_t uid, uint64_t now,
                      struct operation_output *output, const char **message);

/* The stored output `number` of a command, or the first stored one after it; false if there is none (any more). When
 * the session or command is gone altogether *gone is set. */
bool fsm_stored_output(struct fsm *fsm, uint64_t session_id, uint64_t sequence_num, uint64_t number,
                       struct fsm_answer *answer, bool *gone);

uint64_t fsm_index(const struct fsm *fsm); /* of the entry applied last; 0: none */
uint64_t fsm_time(const struct fsm *fsm);  /* of the same */
/* The earliest deadline of a session, an entry or a request that still lies ahead; UINT64_MAX: none. */
uint64_t fsm_next_deadline(const struct fsm *fsm);
uint64_t fsm_session_count(const struct fsm *fsm);

/* Frees what big removals have unlinked, about `budget` objects; true while more is left. */
bool fsm_collect(struct fsm *fsm, unsigned budget);

/* Walks the whole state in its canonical order and gives it to `write` piece by piece: equal states give equal bytes.
 * For comparing (tests); the bytes are a PartitionSnapshot followed by what it has no field for. */
typedef void fsm_write_fn(void *context, const void *data, size_t size);
void fsm_dump(struct fsm *fsm, fsm_write_fn *write, void *context);

#endif
