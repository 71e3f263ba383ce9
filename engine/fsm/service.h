/* SPDX-License-Identifier: Apache-2.0 */
/* What a service type is to the state machine: one table of functions. A type sees its own state and the call it
 * answers; it knows no session, no index but the call's, no other service, and does no I/O. */
#ifndef ENGINE_FSM_SERVICE_H
#define ENGINE_FSM_SERVICE_H

#include "engine/fsm/blob.h"
#include "engine/fsm/timers.h"
#include "proto/messages.h"

struct service_call; /* the operation being answered: see below */

enum operation_kind {
    OPERATION_COMMAND, /* one output */
    OPERATION_STREAM,  /* a command with many outputs */
    OPERATION_QUERY,
    OPERATION_QUERY_STREAM
};

struct service_operation {
    const char *name; /* OperationInput.name */
    enum operation_kind kind;
    void (*run)(void *state, struct service_call *call);
};

/* The hooks that a service's state uses towards the state machine; lives as long as the service. */
struct service_host {
    struct timers *timers;   /* of the partition: deadlines in its time */
    struct garbage *garbage; /* where big removals are put, to be freed in later turns */
    uint64_t hash_seed;
};

struct service_type {
    const char *name;                           /* ServiceSpec.service */
    const struct service_operation *operations; /* `operation_count` of them: the type's only list of them */
    size_t operation_count;
    void *(*create)(struct service_host *host);
    void (*destroy)(void *state); /* nothing outside holds on to it any more */
    /* The service's snapshot message (ServiceSnapshot.data), canonical, in pieces. Called twice in a row where its size
     * must stand before it: the first time only to be counted. */
    void (*dump)(void *state, void (*write)(void *context, const void *data, size_t size), void *context);
};

/* ---- answering a call ---- */

uint64_t call_index(const struct service_call *call);       /* of the command; of the state, for a query */
uint64_t call_time(const struct service_call *call);        /* the command's time; for a query, now */
struct slice call_payload(const struct service_call *call); /* the operation's input message, in place */

/* The answer's payload is built from pieces, in order: bytes that are copied into the call, and ranges of blobs, which
 * are shared (the call takes its own reference). Answering nothing is answering OK with an empty message. */
uint8_t *call_put(struct service_call *call, size_t size); /* room for `size` bytes, at most 4096 at a time */
void call_put_blob(struct service_call *call, struct blob *blob, size_t offset, size_t size);
/* Instead of a payload: the operation failed. `message` is copied. Whatever was put before is dropped. */
void call_fail(struct service_call *call, enum status status, const char *message);

#endif
