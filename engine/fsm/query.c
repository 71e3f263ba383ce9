/* SPDX-License-Identifier: Apache-2.0 */
/* Queries: run on the state as it is, and changing nothing in it. One with many outputs leaves a cursor, which hangs on
 * the session's opening of the service until it is closed, and ends with that. */
#include "engine/fsm/memory.h"
#include "engine/fsm/state.h"

#include <stdlib.h>

struct fsm_cursor {
    struct list of_opening;
    struct fsm *fsm;
    struct service_cursor *cursor; /* the service's; NULL: session or service were closed */
};

/* What a call has collected, valid until the next one is begun. */
static struct operation_output answer_of(struct fsm *fsm)
{
    const struct service_call *call = &fsm->call;
    struct slice *parts = fsm_parts(fsm, 2 * call->piece_count + 1);
    size_t count = 0, at = 0;
    for (size_t i = 0; i < call->piece_count; i++) {
        const struct shared_piece *piece = &call->pieces[i];
        parts[count++] = call_bytes(call, at, piece->at);
        parts[count++] = (struct slice){piece->blob->data + piece->offset, piece->size};
        at = piece->at;
    }
    parts[count++] = call_bytes(call, at, call->byte_count);
    return (struct operation_output){
        .status = call->status,
        .message = {(const uint8_t *)call->message, call->message_size},
        .parts = parts,
        .part_count = count,
        .payload_size = call_payload_size(call),
    };
}

static void begin(struct fsm *fsm, uint64_t now, struct slice payload)
{
    call_begin(&fsm->call, fsm->index, now > fsm->time ? now : fsm->time, payload);
}

enum status fsm_query(struct fsm *fsm, const struct partition_query_input *query, uint32_t uid, uint64_t now,
                      struct operation_output *output, struct fsm_cursor **cursor, const char **message)
{
    *cursor = NULL;
    enum status status = fsm_check_query(query, query->partition_id, message);
    if (status != STATUS_OK)
        return status;
    struct session *session = fsm_demand_session(fsm, query->session_id, uid, &status, message);
    if (session == NULL)
        return status;
    struct opening *opening = fsm_demand_opening(fsm, session, query->service_id, &status, message);
    if (opening == NULL)
        return status;
    begin(fsm, now, query->operation.payload);
    call_run(&fsm->call, opening->service->type, opening->service->state, query->operation.name, true);
    if (fsm->call.cursor != NULL) {
        struct fsm_cursor *made = memory_allocate(sizeof(*made));
        *made = (struct fsm_cursor){.fsm = fsm, .cursor = fsm->call.cursor};
        list_append(&opening->cursors, &made->of_opening);
        *cursor = made;
        fsm->call.cursor = NULL;
    } else {
        *output = answer_of(fsm);
    }
    return STATUS_OK;
}

enum status fsm_cursor_next(struct fsm_cursor *cursor, uint64_t now, struct operation_output *output, bool *last,
                            const char **message)
{
    if (cursor->cursor == NULL) {
        *message = "the session ended, or closed the service, before the query was answered to its end";
        return STATUS_FORBIDDEN;
    }
    begin(cursor->fsm, now, (struct slice){NULL, 0});
    *last = cursor->cursor->show(cursor->cursor, &cursor->fsm->call);
    *output = answer_of(cursor->fsm);
    return STATUS_OK;
}

void fsm_cursor_taken(struct fsm_cursor *cursor)
{
    if (cursor->cursor != NULL)
        cursor->cursor->advance(cursor->cursor);
}

static void detach(struct fsm_cursor *cursor)
{
    mr_assert(cursor->cursor != NULL);
    list_remove(&cursor->of_opening);
    cursor->cursor->close(cursor->cursor);
    cursor->cursor = NULL;
}

void fsm_cursor_close(struct fsm_cursor *cursor)
{
    if (cursor == NULL)
        return;
    if (cursor->cursor != NULL)
        detach(cursor);
    free(cursor);
}

void fsm_detach_cursors(struct opening *opening)
{
    while (!list_empty(&opening->cursors))
        detach(container_of(opening->cursors.next, struct fsm_cursor, of_opening));
}
