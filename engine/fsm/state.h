/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine from the inside, for the files of this directory that make it up. */
#ifndef ENGINE_FSM_STATE_H
#define ENGINE_FSM_STATE_H

#include "engine/fsm/fsm.h"
#include "engine/fsm/service_table.h"
#include "engine/fsm/stream.h"

struct fsm {
    struct fsm_config config;
    uint64_t index; /* of the entry applied last, or being applied */
    uint64_t time;  /* while a deadline fires: the deadline, unless it comes late */
    struct timers timers;
    struct garbage garbage;
    struct table sessions_by_id;
    struct table owners;    /* who has sessions, and how many */
    struct list sessions;   /* by id */
    struct session *recent; /* the one used last; NULL: none */
    struct service_table services;

    struct restoring *restoring; /* while it is being restored; else NULL */

    /* Used again for every command and query; not state. */
    const struct fsm_sink *sink; /* while an entry is applied or outputs are delivered; else NULL */
    struct service_call call;
    struct service_call output; /* of streams */
    uint64_t events;            /* that were given to streams so far: their names */
    uint64_t outputs;           /* of streams so far: each stream's own, where an event was given to many */
    struct slice *parts;        /* of the answer being given */
    size_t part_capacity;
    char text[MR_MESSAGE_MAX];    /* of the refusal being given */
    uint8_t body[96];             /* of the answer being given, if it is not stored */
    uint8_t head[EVENT_HEAD_MAX]; /* of the answer being given, if it is an event */
};

struct session *fsm_find_session(const struct fsm *fsm, uint64_t session_id); /* NULL: none */
/* A session of an id higher than all there are. */
struct session *fsm_add_session(struct fsm *fsm, uint64_t id, uint32_t uid, uint64_t timeout, uint64_t last_updated);
/* The session, if it is there and obeys `uid`. Else NULL, *status and *message (static, or fsm->text) say why. */
struct session *fsm_look_up_session(struct fsm *fsm, uint64_t session_id, uint32_t uid, enum status *status,
                                    const char **message); /* the slower way of the next */
static inline struct session *fsm_demand_session(struct fsm *fsm, uint64_t session_id, uint32_t uid,
                                                 enum status *status, const char **message)
{
    struct session *recent = fsm->recent;
    if (recent != NULL && recent->id == session_id && recent->uid == uid)
        return recent;
    return fsm_look_up_session(fsm, session_id, uid, status, message);
}

/* Likewise the session's opening of the service. */
struct opening *fsm_demand_opening(struct fsm *fsm, struct session *session, uint64_t service_id, enum status *status,
                                   const char **message);
/* Room for the parts of an answer. */
void fsm_more_parts(struct fsm *fsm, size_t count);
static inline struct slice *fsm_parts(struct fsm *fsm, size_t count)
{
    if (count > fsm->part_capacity)
        fsm_more_parts(fsm, count);
    return fsm->parts;
}

/* The parts of an output behind its first. */
void fsm_describe_rest(struct slice *parts, const struct stored_output *output);

/* A stored output as an answer, valid until the next one is described. */
static inline void fsm_describe(struct fsm *fsm, const struct session *session, const struct stored_output *output,
                                bool last, struct fsm_answer *answer)
{
    size_t count = output_part_count(output);
    struct slice *parts = fsm_parts(fsm, count);
    parts[0] = output_part(output, 0);
    if (__builtin_expect(count > 1, 0))
        fsm_describe_rest(parts, output);
    *answer = (struct fsm_answer){.session_id = session->id,
                                  .sequence_num = output->sequence_num,
                                  .number = output->number,
                                  .last = last,
                                  .status = STATUS_OK,
                                  .parts = parts,
                                  .part_count = count,
                                  .size = output->body_size};
}
/* Likewise one that is not stored; the answer's other members are as they were. */
void fsm_encode(struct fsm *fsm, const struct command_output *output, struct fsm_answer *answer);

/* Ends the queries that are being answered bit by bit. */
void fsm_detach_cursors(struct opening *opening);

/* What fsm_check_command() says of a command whose envelope is right; fsm_apply() asks it too, so that whatever is in a
 * log is answered in the same way. */
enum status check_command_closely(const struct fsm *fsm, const struct command_input *command, const char **message);

static inline enum status check_command(const struct fsm *fsm, const struct command_input *command,
                                        const char **message)
{
    if (command->kind == COMMAND_SESSION_COMMAND && command->session_kind == SESSION_COMMAND_SERVICE_COMMAND &&
        command->sequence_num != 0)
        return STATUS_OK; /* nearly all */
    return check_command_closely(fsm, command, message);
}

#endif
