/* SPDX-License-Identifier: Apache-2.0 */
/* What a process that comes back to a session is told of it. Changes nothing. */
#include "engine/fsm/state.h"
#include "proto/reader.h"

#include <string.h>

bool fsm_session_owner(const struct fsm *fsm, uint64_t session_id, uint32_t *uid)
{
    const struct session *session = fsm_find_session(fsm, session_id);
    if (session != NULL)
        *uid = session->uid;
    return session != NULL;
}

/* OperationInput.name of an encoded ServiceCommandInput of our own. */
static struct slice operation_name(const struct blob *input)
{
    struct slice name = {NULL, 0};
    struct field_reader reader = field_reader((struct slice){input->data, input->size});
    while (field_next(&reader)) {
        if (reader.tag != FIELD(3, WIRE_BYTES))
            continue;
        struct field_reader operation = field_reader_within(&reader);
        while (field_next(&operation))
            if (operation.tag == FIELD(1, WIRE_BYTES))
                name = operation.bytes;
    }
    return name;
}

static struct fsm_open_command describe_open(const struct stream *stream)
{
    const struct service *service = stream->opening->service;
    return (struct fsm_open_command){
        .sequence_num = stream->command.sequence_num,
        .acknowledged = stream->outputs.floor,
        .service_id = service->id,
        .spec = {.service = {(const uint8_t *)service->type->name, strlen(service->type->name)},
                 .name_space = service_name_space(service),
                 .name = service_name(service)},
        .operation = operation_name(stream->input),
    };
}

void fsm_session_open_commands(const struct fsm *fsm, uint64_t session_id, uint64_t from, uint64_t count,
                               fsm_open_command_fn *fn, void *context)
{
    const struct session *session = fsm_find_session(fsm, session_id);
    if (session == NULL)
        return;
    const struct list *openings = &session->openings_list;
    for (const struct list *link = openings->next; link != openings; link = link->next) {
        const struct list *streams = &container_of(link, struct opening, of_session)->streams;
        for (const struct list *at = streams->next; at != streams; at = at->next) {
            if (from > 0) {
                from--;
                continue;
            }
            if (count-- == 0)
                return;
            struct fsm_open_command command = describe_open(container_of(at, struct stream, of_opening));
            fn(context, &command);
        }
    }
}

static void describe(const struct session *session, struct fsm_session *to)
{
    *to = (struct fsm_session){
        .id = session->id,
        .uid = session->uid,
        .timeout = session->timeout,
        .deadline = session->expiry.deadline,
        .highest = session->highest,
        .open_commands = session->open_streams,
        .changes = session->stream_changes,
        .stored_bytes = session->held_bytes,
    };
}

bool fsm_session_describe(const struct fsm *fsm, uint64_t session_id, struct fsm_session *to)
{
    const struct session *session = fsm_find_session(fsm, session_id);
    if (session != NULL)
        describe(session, to);
    return session != NULL;
}

bool fsm_session_after(const struct fsm *fsm, uint64_t id, struct fsm_session *to)
{
    const struct session *session = id == 0 ? NULL : fsm_find_session(fsm, id);
    const struct list *link = session != NULL ? session->order.next : fsm->sessions.next;
    for (; link != &fsm->sessions; link = link->next) {
        session = container_of(link, struct session, order);
        if (session->id > id) {
            describe(session, to);
            return true;
        }
    }
    return false;
}
