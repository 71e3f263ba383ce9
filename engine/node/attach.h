/* SPDX-License-Identifier: Apache-2.0 */
/* Coming back to a session, the worker's side: who uses which session, and the answers to what clients ask about them.
 *
 * A channel uses a session once an entry of the log that came through it has opened the session or named it, sent by
 * the session's owner (nobody else can keep the owner from coming back). That is noted in the region, where a successor
 * finds it for every channel that is still there: the log may have been cut behind that entry.
 *
 * A question is answered when everything that had been logged as it came is applied. By then a channel that has been
 * let go of is not read any more, and what had been taken from it is in the answer; a channel that is still there and
 * uses the session belongs to a living process, and the answer is a refusal that names it. */
#ifndef ENGINE_NODE_ATTACH_H
#define ENGINE_NODE_ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/node/region.h"

/* More sessions than this are not told apart: the channel then uses all of its user's. */
#define ATTACH_SESSIONS_MAX (REGION_SESSION_PLACES / 2)
#define ATTACH_LIST_A_TURN 64  /* sessions of a list that are looked at in one turn */
#define ATTACH_OPEN_A_TURN 512 /* open commands of a session, likewise */
/* If they change meanwhile it begins anew, but not for ever: others wait to be answered. */
#define ATTACH_BEGUN_MOST 8

/* What a worker knows by heart of the sessions that one channel uses (struct region_sessions). */
struct session_use {
    uint64_t last;  /* the one noted last */
    uint32_t count; /* that stand in the table */
};

/* Bytes that grow. */
struct attach_bytes {
    uint8_t *data;
    size_t size, capacity;
};

struct attach_question {
    uint64_t number;     /* the asker's, handed back */
    uint64_t connection; /* whose channels do not stand in its own way */
    uint64_t session_id; /* 0: the list of sessions */
    uint32_t uid;

    /* What follows is attach.c's. */
    uint64_t index;            /* that must be applied first */
    uint64_t listed;           /* the list has got to this session; of a session: so many of its open commands */
    uint64_t changes;          /* fsm_session.changes as it began */
    unsigned begun;            /* so many times */
    struct attach_bytes bytes; /* the answer so far */
};

struct worker;
struct worker_channel;

/* Takes a question over. The answer comes by worker->answered() in a later turn, in the order of asking; a partition
 * that is stopped gives none. */
void attach_ask(struct worker *worker, const struct attach_question *question);
/* Goes on with the first question; once a turn. True if anything was done. */
bool attach_look(struct worker *worker);
void attach_free(struct worker *worker); /* the questions that are left */

/* An entry that came through the channel, and that has been applied, named this session (attach_note() asks first
 * whether it is the same as before). */
void attach_note_other(struct worker *worker, struct worker_channel *channel, uint64_t session_id);
/* A channel is taken over: counts what the region says of it. */
void attach_take_over(struct worker_channel *channel);

#endif
