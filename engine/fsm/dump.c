/* SPDX-License-Identifier: Apache-2.0 */
/* The state as bytes: equal states give equal bytes, whatever seed lies behind their tables.
 *
 * The snapshot is a PartitionSnapshot (fsm.proto), the extra a SnapshotExtra (millrace/v1/snapshot.proto). Both are
 * encoded canonically: fields in order of their numbers, defaults left out, varints shortest; the partition's and a
 * session's times, a command's `operation` and an entry's messages are always there, also if they are empty. Sessions
 * stand in order of id, a session's commands by sequence number, a command's outputs by number, services by id, a
 * service's sessions by id (packed). restore.c takes nothing else.
 *
 * A message inside another one needs its size before its bytes. Sizes are computed, not kept, but for stored outputs,
 * which are encoded already: a command's is asked for twice, a service's data is walked twice, first only to be
 * counted; and writing takes next to no memory, however large the state. */
#include "engine/fsm/duration.h"
#include "engine/fsm/memory.h"
#include "engine/fsm/state.h"
#include "proto/rows.h"
#include "proto/writer.h"

#include <stdlib.h>
#include <string.h>

struct output_stream {
    fsm_write_fn *write;
    void *context;
};

static void emit(void *context, const void *data, size_t size)
{
    const struct output_stream *stream = context;
    if (size > 0)
        stream->write(stream->context, data, size);
}

static void emit_number(struct output_stream *stream, unsigned field, uint64_t value)
{
    uint8_t bytes[16];
    emit(stream, bytes, (size_t)(field_write_varint(bytes, field, value) - bytes));
}

/* Of a message, a string or bytes. */
static void emit_head(struct output_stream *stream, unsigned field, uint64_t size)
{
    uint8_t bytes[16];
    emit(stream, bytes, (size_t)(field_write_message_head(bytes, field, size) - bytes));
}

static void emit_bytes(struct output_stream *stream, unsigned field, struct slice bytes)
{
    if (bytes.size == 0 || ROW_DROPPED(field))
        return;
    emit_head(stream, field, bytes.size);
    emit(stream, bytes.data, bytes.size);
}

/* ---- times: Timestamp and Duration ---- */

static uint64_t time_size(uint64_t nanoseconds)
{
    return field_varint_size(1, nanoseconds / NANOSECONDS_PER_SECOND) +
           field_varint_size(2, nanoseconds % NANOSECONDS_PER_SECOND);
}

static void emit_time(struct output_stream *stream, unsigned field, uint64_t nanoseconds)
{
    if (ROW_DROPPED(field))
        return;
    emit_head(stream, field, time_size(nanoseconds));
    emit_number(stream, 1, nanoseconds / NANOSECONDS_PER_SECOND);
    emit_number(stream, 2, nanoseconds % NANOSECONDS_PER_SECOND);
}

/* ---- sessions ---- */

/* An output that a command holds has a number from acknowledged + 1 to last_number. */
static uint64_t command_output_size(const struct held_command *command, uint64_t number)
{
    if (command->stream != NULL)
        return event_snapshot_size(events_get(&command->stream->outputs, number), number);
    return command->output->body_size - command->output->snapshot_at;
}

static void emit_stored(struct output_stream *stream, const struct stored_output *output)
{
    for (size_t i = 0; i < output_part_count(output); i++) {
        struct slice part = output_part(output, i);
        size_t from = i == 0 ? output->snapshot_at : 0;
        emit(stream, part.data + from, part.size - from);
    }
}

static void emit_event(struct output_stream *stream, const struct held_command *command, uint64_t number)
{
    const struct event *event = events_get(&command->stream->outputs, number);
    uint8_t bytes[EVENT_HEAD_MAX];
    struct event_head head = event_write_head(event, command->index, number, bytes);
    emit(stream, bytes + head.snapshot_at, head.size - head.snapshot_at);
    for (size_t i = 0; i < event_part_count(event); i++) {
        struct slice part = event_part(event, i);
        emit(stream, part.data, part.size);
    }
}

static void emit_command_output(struct output_stream *stream, const struct held_command *command, uint64_t number)
{
    if (ROW_DROPPED(ROW(CommandSnapshot, pending_outputs)))
        return;
    emit_head(stream, ROW(CommandSnapshot, pending_outputs), command_output_size(command, number));
    if (command->stream != NULL)
        emit_event(stream, command, number);
    else
        emit_stored(stream, command->output);
}

/* A ServiceCommandInput, while it is open; then it is not empty. */
static struct slice input_of(const struct held_command *command)
{
    const struct blob *input = command->stream == NULL ? NULL : command->stream->input;
    return input == NULL ? (struct slice){NULL, 0} : (struct slice){input->data, input->size};
}

static uint64_t state_of(const struct held_command *command)
{
    const uint64_t command_open = 0, command_complete = 1;
    return ROW_VALUE(CommandState, input_of(command).size > 0 ? command_open : command_complete);
}

static uint64_t command_size(const struct held_command *command)
{
    uint64_t size = field_varint_size(ROW(CommandSnapshot, command_sequence_num), command->sequence_num) +
                    field_varint_size(ROW(CommandSnapshot, state), state_of(command)) +
                    field_bytes_size(ROW(CommandSnapshot, input), input_of(command).size);
    for (uint64_t number = command->acknowledged + 1; number <= command->last_number; number++)
        size += field_message_size(ROW(CommandSnapshot, pending_outputs), command_output_size(command, number));
    return size;
}

static void emit_command(struct output_stream *stream, const struct held_command *command)
{
    if (ROW_DROPPED(ROW(SessionSnapshot, commands)))
        return;
    emit_head(stream, ROW(SessionSnapshot, commands), command_size(command));
    emit_number(stream, ROW(CommandSnapshot, command_sequence_num), command->sequence_num);
    emit_number(stream, ROW(CommandSnapshot, state), state_of(command));
    emit_bytes(stream, ROW(CommandSnapshot, input), input_of(command));
    for (uint64_t number = command->acknowledged + 1; number <= command->last_number; number++)
        emit_command_output(stream, command, number);
}

static uint64_t session_size(const struct session *session, struct held_walk *walk)
{
    uint64_t size = field_varint_size(ROW(SessionSnapshot, session_id), session->id) +
                    field_message_size(ROW(SessionSnapshot, timeout), time_size(session->timeout)) +
                    field_message_size(ROW(SessionSnapshot, last_updated), time_size(session->last_updated));
    struct held_command command;
    while (held_next(walk, &command))
        size += field_message_size(ROW(SessionSnapshot, commands), command_size(&command));
    held_again(walk);
    return size;
}

static void emit_session(struct output_stream *stream, const struct session *session)
{
    if (ROW_DROPPED(ROW(PartitionSnapshot, sessions)))
        return;
    struct held_walk walk;
    struct held_command command;
    held_begin(&walk, session);
    emit_head(stream, ROW(PartitionSnapshot, sessions), session_size(session, &walk));
    emit_number(stream, ROW(SessionSnapshot, session_id), session->id);
    emit_time(stream, ROW(SessionSnapshot, timeout), session->timeout);
    emit_time(stream, ROW(SessionSnapshot, last_updated), session->last_updated);
    while (held_next(&walk, &command))
        emit_command(stream, &command);
    held_end(&walk);
}

/* ---- services ---- */

static struct slice type_name(const struct service *service)
{
    return (struct slice){(const uint8_t *)service->type->name, strlen(service->type->name)};
}

static uint64_t spec_size(const struct service *service)
{
    return field_bytes_size(ROW(ServiceSpec, service), type_name(service).size) +
           field_bytes_size(ROW(ServiceSpec, namespace), service_name_space(service).size) +
           field_bytes_size(ROW(ServiceSpec, name), service_name(service).size);
}

static void emit_spec(struct output_stream *stream, const struct service *service)
{
    if (ROW_DROPPED(ROW(ServiceSnapshot, spec)))
        return;
    emit_head(stream, ROW(ServiceSnapshot, spec), spec_size(service));
    emit_bytes(stream, ROW(ServiceSpec, service), type_name(service));
    emit_bytes(stream, ROW(ServiceSpec, namespace), service_name_space(service));
    emit_bytes(stream, ROW(ServiceSpec, name), service_name(service));
}

static void count_bytes(void *context, const void *data, size_t size)
{
    (void)data;
    *(uint64_t *)context += size;
}

static void emit_data(struct output_stream *stream, const struct service *service, uint64_t size)
{
    if (size == 0 || ROW_DROPPED(ROW(ServiceSnapshot, data)))
        return;
    emit_head(stream, ROW(ServiceSnapshot, data), size);
    service->type->dump(service->state, emit, stream);
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* The ids of those who have it open, sorted; opening_count of them, the caller's to free. */
static uint64_t *sessions_of(const struct service *service)
{
    uint64_t *ids = memory_allocate((service->opening_count + 1) * sizeof(*ids));
    size_t count = 0;
    for (const struct list *link = service->openings.next; link != &service->openings; link = link->next)
        ids[count++] = container_of(link, struct opening, of_service)->session->id;
    qsort(ids, count, sizeof(*ids), by_value);
    return ids;
}

static void emit_sessions_of(struct output_stream *stream, const uint64_t *ids, size_t count, uint64_t size)
{
    if (count == 0 || ROW_DROPPED(ROW(ServiceSnapshot, sessions)))
        return;
    emit_head(stream, ROW(ServiceSnapshot, sessions), size);
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[10];
        emit(stream, bytes, (size_t)(write_varint(bytes, ids[i]) - bytes));
    }
}

static void emit_service(struct output_stream *stream, const struct service *service)
{
    if (ROW_DROPPED(ROW(PartitionSnapshot, services)))
        return;
    size_t count = service->opening_count;
    uint64_t *ids = sessions_of(service), ids_size = 0, data_size = 0;
    for (size_t i = 0; i < count; i++)
        ids_size += varint_size(ids[i]);
    service->type->dump(service->state, count_bytes, &data_size);
    emit_head(stream, ROW(PartitionSnapshot, services),
              field_varint_size(ROW(ServiceSnapshot, service_id), service->id) +
                  field_message_size(ROW(ServiceSnapshot, spec), spec_size(service)) +
                  field_bytes_size(ROW(ServiceSnapshot, data), data_size) +
                  field_bytes_size(ROW(ServiceSnapshot, sessions), ids_size));
    emit_number(stream, ROW(ServiceSnapshot, service_id), service->id);
    emit_spec(stream, service);
    emit_data(stream, service, data_size);
    emit_sessions_of(stream, ids, count, ids_size);
    free(ids);
}

void fsm_write_snapshot(struct fsm *fsm, fsm_write_fn *write, void *context)
{
    struct output_stream stream = {write, context};
    emit_number(&stream, ROW(PartitionSnapshot, index), fsm->index);
    emit_time(&stream, ROW(PartitionSnapshot, timestamp), fsm->time);
    for (const struct list *link = fsm->sessions.next; link != &fsm->sessions; link = link->next)
        emit_session(&stream, container_of(link, struct session, order));
    for (const struct list *link = fsm->services.order.next; link != &fsm->services.order; link = link->next)
        emit_service(&stream, container_of(link, struct service, order));
}

/* ---- what fsm.proto has no field for ---- */

static uint64_t command_extra_size(const struct held_command *command)
{
    return field_varint_size(1, command->sequence_num) + field_varint_size(2, command->index) +
           field_varint_size(3, command->last_number) + field_varint_size(4, command->stream != NULL);
}

static void emit_session_extra(struct output_stream *stream, const struct session *session)
{
    struct held_walk walk;
    struct held_command command;
    held_begin(&walk, session);
    uint64_t size = field_varint_size(1, session->id) + field_varint_size(2, session->uid) +
                    field_varint_size(3, session->window.floor) + field_varint_size(4, session->highest);
    while (held_next(&walk, &command))
        size += field_message_size(5, command_extra_size(&command));
    emit_head(stream, 2, size);
    emit_number(stream, 1, session->id);
    emit_number(stream, 2, session->uid);
    emit_number(stream, 3, session->window.floor);
    emit_number(stream, 4, session->highest);
    held_again(&walk);
    while (held_next(&walk, &command)) {
        emit_head(stream, 5, command_extra_size(&command));
        emit_number(stream, 1, command.sequence_num);
        emit_number(stream, 2, command.index);
        emit_number(stream, 3, command.last_number);
        emit_number(stream, 4, command.stream != NULL);
    }
    held_end(&walk);
}

void fsm_write_extra(struct fsm *fsm, fsm_write_fn *write, void *context)
{
    struct output_stream stream = {write, context};
    emit_number(&stream, 1, fsm->config.session_output_limit);
    for (const struct list *link = fsm->sessions.next; link != &fsm->sessions; link = link->next)
        emit_session_extra(&stream, container_of(link, struct session, order));
}

void fsm_dump(struct fsm *fsm, fsm_write_fn *write, void *context)
{
    fsm_write_snapshot(fsm, write, context);
    fsm_write_extra(fsm, write, context);
}
