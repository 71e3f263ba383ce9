/* SPDX-License-Identifier: Apache-2.0 */
/* The state as bytes: equal states give equal bytes, whatever seed lies behind their tables.
 *
 * First a PartitionSnapshot (fsm.proto), encoded canonically: fields in order of their numbers, defaults left out,
 * sessions by id, a session's commands by sequence number, services by id, a service's sessions by id (packed). Then
 * what it has no field for, as numbers of 8 bytes, little-endian:
 *
 *     session_output_limit, number of sessions
 *     for each session by id:   id, uid, floor, highest number ever applied or given up, number of held commands
 *     for each of its commands: sequence number, index, number of its last output
 *
 * A message inside another one needs its size before its bytes, so each is walked twice, first only to be counted. */
#include "engine/fsm/duration.h"
#include "engine/fsm/memory.h"
#include "engine/fsm/state.h"
#include "proto/rows.h"
#include "proto/writer.h"

#include <stdlib.h>

struct output_stream {
    fsm_write_fn *write; /* NULL: only counts */
    void *context;
    uint64_t size;
};

typedef void emit_fn(struct output_stream *stream, const void *what);

static void emit(void *context, const void *data, size_t size)
{
    struct output_stream *stream = context;
    stream->size += size;
    if (stream->write != NULL && size > 0)
        stream->write(stream->context, data, size);
}

static void emit_number(struct output_stream *stream, unsigned field, uint64_t value)
{
    uint8_t bytes[16];
    emit(stream, bytes, (size_t)(field_write_varint(bytes, field, value) - bytes));
}

static void emit_head(struct output_stream *stream, unsigned field, uint64_t size)
{
    uint8_t bytes[16];
    emit(stream, bytes, (size_t)(field_write_message_head(bytes, field, size) - bytes));
}

/* A string or bytes. */
static void emit_bytes(struct output_stream *stream, unsigned field, struct slice bytes)
{
    if (bytes.size == 0 || ROW_DROPPED(field))
        return;
    emit_head(stream, field, bytes.size); /* the head of a message and of bytes are alike */
    emit(stream, bytes.data, bytes.size);
}

static void emit_message(struct output_stream *stream, unsigned field, emit_fn *fields, const void *what)
{
    if (ROW_DROPPED(field))
        return;
    struct output_stream counter = {0};
    fields(&counter, what);
    emit_head(stream, field, counter.size);
    if (stream->write == NULL)
        stream->size += counter.size;
    else
        fields(stream, what);
}

static void emit_time(struct output_stream *stream, const void *what) /* Timestamp and Duration */
{
    uint64_t nanoseconds = *(const uint64_t *)what;
    emit_number(stream, 1, nanoseconds / NANOSECONDS_PER_SECOND);
    emit_number(stream, 2, nanoseconds % NANOSECONDS_PER_SECOND);
}

/* ---- sessions ---- */

static void emit_operation_output(struct output_stream *stream, const void *what)
{
    const struct stored_output *output = what;
    struct slice *parts = memory_allocate(((size_t)output->piece_count + 1) * sizeof(*parts));
    size_t count = output_parts(output, parts);
    emit_number(stream, ROW(OperationOutput, status), ROW_VALUE(Status, output->status));
    if (ROW_DROPPED(ROW(OperationOutput, payload)))
        count = 0;
    else if (output->payload_size > 0)
        emit_head(stream, ROW(OperationOutput, payload), output->payload_size);
    for (size_t i = 0; i < count; i++)
        emit(stream, parts[i].data, parts[i].size);
    emit_bytes(stream, ROW(OperationOutput, message), output_message(output));
    free(parts);
}

static void emit_service_command_output(struct output_stream *stream, const void *what)
{
    const struct stored_output *output = what;
    emit_number(stream, ROW(ServiceCommandOutput, sequence_num), output->number);
    emit_message(stream, ROW(ServiceCommandOutput, operation), emit_operation_output, output);
}

static void emit_command(struct output_stream *stream, const void *what)
{
    const uint64_t command_open = 0, command_complete = 1;
    const struct held_command *command = what;
    const struct blob *input = command->stream == NULL ? NULL : command->stream->input;
    uint64_t state = input == NULL ? command_complete : command_open;
    emit_number(stream, ROW(CommandSnapshot, command_sequence_num), command->sequence_num);
    emit_number(stream, ROW(CommandSnapshot, state), ROW_VALUE(CommandState, state));
    if (input != NULL) /* a message; it is not empty */
        emit_bytes(stream, ROW(CommandSnapshot, input), (struct slice){input->data, input->size});
    for (uint64_t number = command->acknowledged + 1; number <= command->last_number; number++)
        emit_message(stream, ROW(CommandSnapshot, pending_outputs), emit_service_command_output,
                     held_output(command, number));
}

static void emit_session(struct output_stream *stream, const void *what)
{
    const struct session *session = what;
    emit_number(stream, ROW(SessionSnapshot, session_id), session->id);
    emit_message(stream, ROW(SessionSnapshot, timeout), emit_time, &session->timeout);
    emit_message(stream, ROW(SessionSnapshot, last_updated), emit_time, &session->last_updated);
    struct held_command *held = session_held(session);
    for (uint64_t i = 0; i < session->held_commands; i++)
        emit_message(stream, ROW(SessionSnapshot, commands), emit_command, &held[i]);
    free(held);
}

/* ---- services ---- */

static void emit_spec(struct output_stream *stream, const void *what)
{
    const struct service *service = what;
    size_t type_size = 0;
    while (service->type->name[type_size] != '\0')
        type_size++;
    emit_bytes(stream, ROW(ServiceSpec, service), (struct slice){(const uint8_t *)service->type->name, type_size});
    emit_bytes(stream, ROW(ServiceSpec, namespace), service_name_space(service));
    emit_bytes(stream, ROW(ServiceSpec, name), service_name(service));
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void emit_sessions_of(struct output_stream *stream, const struct service *service)
{
    if (ROW_DROPPED(ROW(ServiceSnapshot, sessions)))
        return;
    uint64_t *ids = memory_allocate((service->opening_count + 1) * sizeof(*ids));
    size_t count = 0, size = 0;
    for (const struct list *link = service->openings.next; link != &service->openings; link = link->next)
        ids[count++] = container_of(link, struct opening, of_service)->session->id;
    qsort(ids, count, sizeof(*ids), by_value);
    for (size_t i = 0; i < count; i++)
        size += varint_size(ids[i]);
    if (count > 0)
        emit_head(stream, ROW(ServiceSnapshot, sessions), size);
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[10];
        emit(stream, bytes, (size_t)(write_varint(bytes, ids[i]) - bytes));
    }
    free(ids);
}

static void emit_service(struct output_stream *stream, const void *what)
{
    const struct service *service = what;
    emit_number(stream, ROW(ServiceSnapshot, service_id), service->id);
    emit_message(stream, ROW(ServiceSnapshot, spec), emit_spec, service);
    struct output_stream counter = {0};
    service->type->dump(service->state, emit, &counter);
    if (counter.size > 0 && !ROW_DROPPED(ROW(ServiceSnapshot, data))) {
        emit_head(stream, ROW(ServiceSnapshot, data), counter.size);
        if (stream->write == NULL)
            stream->size += counter.size;
        else
            service->type->dump(service->state, emit, stream);
    }
    emit_sessions_of(stream, service);
}

/* ---- what fsm.proto has no field for ---- */

static void emit_word(struct output_stream *stream, uint64_t value)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    emit(stream, bytes, sizeof(bytes));
}

static void emit_extra(struct output_stream *stream, const struct fsm *fsm)
{
    emit_word(stream, fsm->config.session_output_limit);
    emit_word(stream, fsm->sessions_by_id.count);
    for (const struct list *link = fsm->sessions.next; link != &fsm->sessions; link = link->next) {
        const struct session *session = container_of(link, struct session, order);
        emit_word(stream, session->id);
        emit_word(stream, session->uid);
        emit_word(stream, session->window.floor);
        emit_word(stream, session->highest);
        emit_word(stream, session->held_commands);
        struct held_command *held = session_held(session);
        for (uint64_t i = 0; i < session->held_commands; i++) {
            emit_word(stream, held[i].sequence_num);
            emit_word(stream, held[i].index);
            emit_word(stream, held[i].last_number);
        }
        free(held);
    }
}

void fsm_dump(struct fsm *fsm, fsm_write_fn *write, void *context)
{
    struct output_stream stream = {write, context, 0};
    emit_number(&stream, ROW(PartitionSnapshot, index), fsm->index);
    emit_message(&stream, ROW(PartitionSnapshot, timestamp), emit_time, &fsm->time);
    for (const struct list *link = fsm->sessions.next; link != &fsm->sessions; link = link->next)
        emit_message(&stream, ROW(PartitionSnapshot, sessions), emit_session,
                     container_of(link, struct session, order));
    for (const struct list *link = fsm->services.order.next; link != &fsm->services.order; link = link->next)
        emit_message(&stream, ROW(PartitionSnapshot, services), emit_service,
                     container_of(link, struct service, order));
    emit_extra(&stream, fsm);
}
