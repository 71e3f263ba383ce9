/* SPDX-License-Identifier: Apache-2.0 */
/* One operation being answered, or one output of a stream: what service.h shows to a service type, from the inside. The
 * state machine has one of these for each and uses it again every time, so that answering allocates nothing in the
 * steady state. */
#ifndef ENGINE_FSM_CALL_H
#define ENGINE_FSM_CALL_H

#include "engine/fsm/service.h"

/* An unusually large answer's bytes beyond this are given back. */
#define CALL_BYTES_KEPT ((size_t)1024 * 1024)

static inline size_t call_payload_size(const struct service_call *call)
{
    return call->byte_count + call->shared_size;
}

/* Some of the inline bytes. */
static inline struct slice call_bytes(const struct service_call *call, size_t from, size_t upto)
{
    return upto > from ? (struct slice){call->bytes + from, upto - from} : (struct slice){NULL, 0};
}

/* What an answer is kept as: its pieces, and behind them in memory its inline bytes. As slices of where it lies, one
 * behind the other: so many, of which some may be empty. */
static inline size_t kept_part_count(size_t piece_count)
{
    return 2 * piece_count + 1;
}

static inline struct slice kept_part(const struct shared_piece *pieces, size_t piece_count, size_t inline_size,
                                     size_t part)
{
    const uint8_t *bytes = (const uint8_t *)(pieces + piece_count);
    size_t place = part / 2;
    if (part % 2 != 0)
        return (struct slice){pieces[place].blob->data + pieces[place].offset, pieces[place].size};
    size_t from = place == 0 ? 0 : pieces[place - 1].at;
    size_t upto = place == piece_count ? inline_size : pieces[place].at;
    return (struct slice){bytes + from, upto - from};
}

/* What has been put is dropped, and the references with it. */
void call_release(struct service_call *call);

static inline void call_drop(struct service_call *call)
{
    if (call->piece_count > 0 || call->byte_count > CALL_BYTES_KEPT)
        call_release(call);
    call->byte_count = 0;
}

/* An all-zero call may be begun. */
static inline void call_begin(struct service_call *call, uint64_t index, uint64_t time, struct slice payload)
{
    call_drop(call);
    call->index = index;
    call->time = time;
    call->payload = payload;
    call->status = STATUS_OK;
    call->message_size = 0;
}

void call_free(struct service_call *call);

/* Finds the operation in the type's table and runs it; a name that is not there, or is of the other sort (a query sent
 * as a command or the reverse), fails the call. */
void call_run(struct service_call *call, const struct service_type *type, void *state, struct slice name, bool query);

#endif
