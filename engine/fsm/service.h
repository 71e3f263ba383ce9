/* SPDX-License-Identifier: Apache-2.0 */
/* What a service type is to the state machine: one table of functions. A type sees its own state, the call it answers
 * and the streams it has opened; it knows no session, no index but the call's, no other service, and does no I/O. */
#ifndef ENGINE_FSM_SERVICE_H
#define ENGINE_FSM_SERVICE_H

#include <string.h>

#include "engine/fsm/blob.h"
#include "engine/fsm/timers.h"
#include "ipc/error.h"
#include "millrace/limits.h"
#include "proto/messages.h"

struct service_call;     /* the operation being answered: see below */
struct stream;           /* a command that stays open: likewise */
struct event;            /* what streams are given: only the state machine knows it */
struct service_cursor;   /* a query with many outputs: likewise */
struct canonical_reader; /* of a snapshot: canonical.h */

enum operation_kind {
    OPERATION_COMMAND,     /* one output */
    OPERATION_STREAM,      /* a command with many outputs: may stay open, by call_open() */
    OPERATION_QUERY,       /* one output */
    OPERATION_QUERY_STREAM /* a query with many outputs: may be answered bit by bit, by call_cursor() */
};

struct service_operation {
    const char *name; /* OperationInput.name: by OPERATION_NAME() */
    size_t name_size;
    enum operation_kind kind;
    void (*run)(void *state, struct service_call *call);
    bool frees; /* only takes away: admitted at any limit but an unwritable disk, unless it is watched() */
};

#define OPERATION_NAME(text) .name = (text), .name_size = sizeof(text) - 1

static inline bool operation_is(const struct service_operation *operation, struct slice name)
{
    return operation->name_size == name.size && memcmp(operation->name, name.data, name.size) == 0;
}

/* The hooks that a service's state uses towards the state machine; lives as long as the service. */
struct service_host {
    struct timers *timers;       /* of the partition: deadlines in its time */
    struct garbage *garbage;     /* where big removals are put, to be freed in later turns */
    struct service_call *output; /* what stream_output() gives out */
    const uint64_t *time;        /* the partition's: of the command or the deadline that is being worked on */
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
    /* Fills a state that has just been created with what dump() wrote. The bytes come from a file: false if they cannot
     * be what dump() writes. For each of its open streams the type calls stream_restore() once. The first RESTORE_THERE
     * bytes are there; what comes behind them may not be read by other means than restore_message(). */
    bool (*restore)(void *state, struct slice data);
    /* Commands with these payloads, whatever operations they are for, will run soon: asks for the memory that they will
     * look at. Changes nothing; a payload may be any bytes. NULL: not worth while. */
    void (*expect)(const void *state, const struct slice *payloads, unsigned count);
    /* A stream has been ended from outside: by KeepAlive, CloseService, its session's end or the session's limit. The
     * service forgets it, and what call_open() was given for it. NULL if the type opens none. */
    void (*ended)(void *state, void *listener);
    /* Would an operation that frees have outputs kept for so many streams that it takes more memory than it gives back?
     * NULL if the type opens none. */
    bool (*watched)(const void *state);
};

/* ---- answering a call ---- */

/* A range of a blob within a payload. */
struct shared_piece {
    struct blob *blob; /* one reference is this piece's */
    uint32_t at;       /* inline bytes that come before it */
    uint32_t offset;   /* in the blob */
    uint32_t size;
};

/* For the functions below, which are all that a type knows of it, and for the state machine. */
struct service_call {
    uint64_t index;
    uint64_t time;
    struct slice payload; /* the operation's input */

    /* The answer: inline bytes, and between them what is shared. */
    enum status status;
    uint8_t *bytes;
    size_t byte_count, byte_capacity;
    struct shared_piece *pieces;
    size_t piece_count, piece_capacity;
    size_t shared_size; /* sum of the pieces' */
    size_t message_size;

    enum operation_kind kind;      /* of the operation that is run */
    const void *origin;            /* a command's: what call_open() needs (stream.h) */
    struct stream *stream;         /* what call_open() made; who runs the call takes it from here */
    struct service_cursor *cursor; /* what call_cursor() was given; likewise */
    struct event *event;           /* that streams were given of it; NULL: none yet */

    char message[MR_MESSAGE_MAX];
};

static inline uint64_t call_index(const struct service_call *call) /* of the command; of the state, for a query */
{
    return call->index;
}

static inline uint64_t call_time(const struct service_call *call) /* the command's time; for a query, now */
{
    return call->time;
}

static inline struct slice call_payload(const struct service_call *call) /* the operation's input message, in place */
{
    return call->payload;
}

/* The answer's payload is built from pieces, in order: bytes that are copied into the call, and ranges of blobs, which
 * are shared (the call takes its own reference). Answering nothing is answering OK with an empty message.
 *
 * Room for `size` bytes, at most CALL_PUT_MAX at a time. Those up to where writing stopped count once call_advance() is
 * told so; call_put() counts all of them at once. */
#define CALL_PUT_MAX 4096
void call_grow(struct service_call *call); /* for the next one */
static inline uint8_t *call_reserve(struct service_call *call, size_t size)
{
    mr_assert(size <= CALL_PUT_MAX);
    if (size > call->byte_capacity - call->byte_count)
        call_grow(call);
    return call->bytes + call->byte_count;
}

static inline void call_advance(struct service_call *call, const uint8_t *end)
{
    call->byte_count = (size_t)(end - call->bytes);
}

static inline uint8_t *call_put(struct service_call *call, size_t size)
{
    uint8_t *room = call_reserve(call, size);
    call->byte_count += size;
    return room;
}

void call_put_blob(struct service_call *call, struct blob *blob, size_t offset, size_t size);
/* Instead of a payload: the operation failed. `message` is copied. Whatever was put before is dropped. */
void call_fail(struct service_call *call, enum status status, const char *message);

/* ---- a command that stays open ---- */

/* In the run() of an OPERATION_STREAM: the command stays open and what is put into `call` does not count; its outputs
 * are those of stream_emit(), which may be called at once and at any later time. `listener` is the service's own.
 * The stream lasts until stream_end(), stream_emit() returning false, or the type's ended(). */
struct stream *call_open(struct service_call *call, void *listener);

/* Begins an output of one or more streams: a call to put a payload into, or to fail. There is one, which the next
 * stream_output() begins anew. Its call_time() is the partition's. Once it has been given to a stream nothing more is
 * put into it. */
struct service_call *stream_output(struct service_host *host);
/* The stream's next output; the same one may be given to many streams, which share its bytes. False: the output would
 * have passed the session's limit, and has ended the stream instead; ended() has been called. */
bool stream_emit(struct stream *stream, struct service_call *output);
/* While restore() runs: the open stream of the service whose command has this index, whose listener it becomes. NULL:
 * there is no such stream, or it has a listener. */
struct stream *stream_restore(struct service_host *host, uint64_t index, void *listener);
/* While restore() runs: canonical_message() of its data, which is read from its file as it is needed. */
enum { RESTORE_THERE = 4096 };
bool restore_message(struct service_host *host, struct canonical_reader *reader, unsigned field, struct slice *bytes);
/* While restore() runs: what stands before `at` in its data will not be looked at again. For the sake of memory, where
 * there may be much. */
void restore_passed(struct service_host *host, const uint8_t *at);
/* The stream's last output. ended() is not called. */
void stream_end(struct stream *stream, struct service_call *output);

/* ---- a query that is answered bit by bit ---- */

/* Embedded in the service's own cursor. It is no part of the state; the service keeps it right while its state changes
 * between two calls. */
struct service_cursor {
    /* Puts the output at which the cursor stands into `output` (nothing: an empty message, if there is none any more);
     * true if it is the last. Asked again before advance(), it puts the same, as it is by then. */
    bool (*show)(struct service_cursor *cursor, struct service_call *output);
    void (*advance)(struct service_cursor *cursor); /* past the output shown */
    void (*close)(struct service_cursor *cursor);   /* frees it */
};
/* In the run() of an OPERATION_QUERY_STREAM: the outputs are the cursor's. */
void call_cursor(struct service_call *call, struct service_cursor *cursor);

#endif
