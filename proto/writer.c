/* SPDX-License-Identifier: Apache-2.0 */
/* The canonical bytes of requests and answers. A message within a message is preceded by its size, so every pair of
 * functions first works out the sizes from the inside out, in a struct that names them, and the writing then goes
 * straight through from the first byte. Knows only the structs it is given. */
#include "proto/writer.h"

#include "proto/service_output.h"

/* int32 and enums: a negative one is written as the int64 of the same value. */
static inline uint64_t int32_varint(int32_t value)
{
    return (uint64_t)(int64_t)value;
}

/* --- Answers ---------------------------------------------------------------------------------------------------- */

static uint64_t status_varint(enum status status)
{
    return (uint64_t)(int64_t)(int32_t)ROW_VALUE(Status, status); /* a negative one as the int64 of the same value */
}

static size_t operation_output_size(enum status status, size_t payload_size, size_t message_size)
{
    return field_varint_size(ROW(OperationOutput, status), status_varint(status)) +
           field_bytes_size(ROW(OperationOutput, payload), payload_size) +
           field_bytes_size(ROW(OperationOutput, message), message_size);
}

/* Stops where the payload goes. */
static uint8_t *write_operation_output_head(uint8_t *to, enum status status, size_t payload_size)
{
    to = field_write_varint(to, ROW(OperationOutput, status), status_varint(status));
    if (payload_size == 0 || ROW_DROPPED(ROW(OperationOutput, payload)))
        return to;
    return field_write_message_head(to, ROW(OperationOutput, payload), payload_size);
}

struct service_output_sizes service_output_sizes(const struct service_output *output)
{
    struct service_output_sizes sizes;
    sizes.operation = operation_output_size(output->status, output->payload_size, output->message_size);
    sizes.service_command = field_varint_size(ROW(ServiceCommandOutput, sequence_num), output->sequence_num) +
                            field_message_size(ROW(ServiceCommandOutput, operation), sizes.operation);
    sizes.session_command = field_message_size(ROW(SessionCommandOutput, service_command), sizes.service_command);
    sizes.command = field_varint_size(ROW(CommandOutput, index), output->index) +
                    field_message_size(ROW(CommandOutput, session_command), sizes.session_command);
    sizes.whole = field_message_size(ROW(PartitionCommandOutput, command), sizes.command);
    return sizes;
}

uint8_t *write_service_output_head(uint8_t *to, const struct service_output *output,
                                   const struct service_output_sizes *sizes)
{
    if (ROW_DROPPED(ROW(PartitionCommandOutput, command)))
        return to;
    to = field_write_message_head(to, ROW(PartitionCommandOutput, command), sizes->command);
    to = field_write_varint(to, ROW(CommandOutput, index), output->index);
    if (ROW_DROPPED(ROW(CommandOutput, session_command)))
        return to;
    to = field_write_message_head(to, ROW(CommandOutput, session_command), sizes->session_command);
    if (ROW_DROPPED(ROW(SessionCommandOutput, service_command)))
        return to;
    to = field_write_message_head(to, ROW(SessionCommandOutput, service_command), sizes->service_command);
    to = field_write_varint(to, ROW(ServiceCommandOutput, sequence_num), output->sequence_num);
    if (ROW_DROPPED(ROW(ServiceCommandOutput, operation)))
        return to;
    to = field_write_message_head(to, ROW(ServiceCommandOutput, operation), sizes->operation);
    return write_operation_output_head(to, output->status, output->payload_size);
}

/* What stands behind the head of an OperationOutput's payload. */
static uint8_t *write_payload_and_message(uint8_t *to, const struct operation_output *output)
{
    for (size_t i = 0; i < output->part_count && !ROW_DROPPED(ROW(OperationOutput, payload)); i++)
        to = write_bytes(to, output->parts[i]);
    return field_write_bytes(to, ROW(OperationOutput, message), output->message);
}

static bool is_service_output(const struct command_output *output)
{
    return output->kind == COMMAND_SESSION_COMMAND && output->session_kind == SESSION_COMMAND_SERVICE_COMMAND;
}

static struct service_output service_output_of(const struct command_output *output)
{
    return (struct service_output){.index = output->index,
                                   .sequence_num = output->sequence_num,
                                   .status = output->operation.status,
                                   .payload_size = output->operation.payload_size,
                                   .message_size = output->operation.message.size};
}

static uint8_t *write_service_output(uint8_t *to, const struct command_output *output)
{
    struct service_output described = service_output_of(output);
    struct service_output_sizes sizes = service_output_sizes(&described);
    to = write_service_output_head(to, &described, &sizes);
    return SERVICE_OUTPUT_CUT ? to : write_payload_and_message(to, &output->operation);
}

/* The members of the two `oneof`s; SessionCommandOutput's are numbered one lower than the input's. */
static inline unsigned member_row(const struct command_output *output)
{
    return ROW_OF(CommandOutput, output->kind);
}

static inline unsigned session_member_row(const struct command_output *output)
{
    return ROW_OF(SessionCommandOutput, output->session_kind - 1);
}

/* Of all others. */
struct command_output_sizes {
    size_t session_member; /* the member of SessionCommandOutput, whichever it is */
    size_t member;         /* the member of CommandOutput, whichever it is */
    size_t command;        /* CommandOutput */
    size_t whole;          /* PartitionCommandOutput */
};

static struct command_output_sizes command_output_sizes(const struct command_output *output)
{
    struct command_output_sizes sizes = {0};
    if (output->kind == COMMAND_OPEN_SESSION) {
        sizes.member = field_varint_size(ROW(OpenSessionOutput, session_id), output->id);
    } else if (output->kind == COMMAND_SESSION_COMMAND && output->session_kind != SESSION_COMMAND_NONE) {
        if (output->session_kind == SESSION_COMMAND_CREATE_SERVICE)
            sizes.session_member = field_varint_size(ROW(CreateServiceOutput, service_id), output->id);
        sizes.member = field_message_size(session_member_row(output), sizes.session_member);
    }
    sizes.command = field_varint_size(ROW(CommandOutput, index), output->index);
    if (output->kind != COMMAND_NONE)
        sizes.command += field_message_size(member_row(output), sizes.member);
    sizes.whole = field_message_size(ROW(PartitionCommandOutput, command), sizes.command);
    return sizes;
}

size_t partition_command_output_size(const struct command_output *output)
{
    if (!is_service_output(output))
        return command_output_sizes(output).whole;
    struct service_output described = service_output_of(output);
    return service_output_sizes(&described).whole;
}

uint8_t *write_partition_command_output(uint8_t *to, const struct command_output *output)
{
    if (is_service_output(output))
        return write_service_output(to, output);
    struct command_output_sizes sizes = command_output_sizes(output);
    if (ROW_DROPPED(ROW(PartitionCommandOutput, command)))
        return to;
    to = field_write_message_head(to, ROW(PartitionCommandOutput, command), sizes.command);
    to = field_write_varint(to, ROW(CommandOutput, index), output->index);
    if (output->kind == COMMAND_NONE || ROW_DROPPED(member_row(output)))
        return to;
    to = field_write_message_head(to, member_row(output), sizes.member);
    if (output->kind == COMMAND_OPEN_SESSION)
        return field_write_varint(to, ROW(OpenSessionOutput, session_id), output->id);
    if (output->kind != COMMAND_SESSION_COMMAND || output->session_kind == SESSION_COMMAND_NONE)
        return to;
    if (ROW_DROPPED(session_member_row(output)))
        return to;
    to = field_write_message_head(to, session_member_row(output), sizes.session_member);
    if (output->session_kind == SESSION_COMMAND_CREATE_SERVICE)
        to = field_write_varint(to, ROW(CreateServiceOutput, service_id), output->id);
    return to;
}

/* A PartitionQueryOutput has one shape: four messages around the operation's output, each its holder's field 1. */
struct query_output_sizes query_output_sizes(const struct operation_output *output)
{
    struct query_output_sizes sizes;
    sizes.operation = operation_output_size(output->status, output->payload_size, output->message.size);
    sizes.service_query = field_message_size(ROW(ServiceQueryOutput, operation), sizes.operation);
    sizes.session_query = field_message_size(ROW(SessionQueryOutput, service_query), sizes.service_query);
    sizes.query = field_message_size(ROW(QueryOutput, session_query), sizes.session_query);
    sizes.whole = field_message_size(ROW(PartitionQueryOutput, query), sizes.query);
    return sizes;
}

uint8_t *write_query_output_sized(uint8_t *to, const struct operation_output *output,
                                  const struct query_output_sizes *sizes)
{
    if (ROW_DROPPED(ROW(PartitionQueryOutput, query)))
        return to;
    to = field_write_message_head(to, ROW(PartitionQueryOutput, query), sizes->query);
    if (ROW_DROPPED(ROW(QueryOutput, session_query)))
        return to;
    to = field_write_message_head(to, ROW(QueryOutput, session_query), sizes->session_query);
    if (ROW_DROPPED(ROW(SessionQueryOutput, service_query)))
        return to;
    to = field_write_message_head(to, ROW(SessionQueryOutput, service_query), sizes->service_query);
    if (ROW_DROPPED(ROW(ServiceQueryOutput, operation)))
        return to;
    to = field_write_message_head(to, ROW(ServiceQueryOutput, operation), sizes->operation);
    to = write_operation_output_head(to, output->status, output->payload_size);
    return write_payload_and_message(to, output);
}

size_t partition_query_output_size(const struct operation_output *output)
{
    return query_output_sizes(output).whole;
}

uint8_t *write_partition_query_output(uint8_t *to, const struct operation_output *output)
{
    struct query_output_sizes sizes = query_output_sizes(output);
    return write_query_output_sized(to, output, &sizes);
}

/* --- Requests --------------------------------------------------------------------------------------------------- */

static size_t duration_size(const struct duration *duration)
{
    return field_varint_size(1, (uint64_t)duration->seconds) + field_varint_size(2, int32_varint(duration->nanos));
}

/* Duration or Timestamp as a sub-message, if it is there. */
static size_t field_duration_size(unsigned number, const struct duration *duration)
{
    return duration->present ? field_message_size(number, duration_size(duration)) : 0;
}

static uint8_t *field_write_duration(uint8_t *to, unsigned number, const struct duration *duration)
{
    if (!duration->present)
        return to;
    to = field_write_message_head(to, number, duration_size(duration));
    to = field_write_varint(to, 1, (uint64_t)duration->seconds);
    return field_write_varint(to, 2, int32_varint(duration->nanos));
}

static inline size_t operation_input_size(const struct operation_input *operation)
{
    return field_bytes_size(1, operation->name.size) + field_bytes_size(2, operation->payload.size);
}

/* Stops where the payload goes. */
static inline uint8_t *write_operation_input(uint8_t *to, const struct operation_input *operation)
{
    to = field_write_bytes(to, 1, operation->name);
    return operation->payload.size == 0 ? to : field_write_message_head(to, 2, operation->payload.size);
}

static size_t service_spec_size(const struct service_spec *spec)
{
    return field_bytes_size(1, spec->service.size) + field_bytes_size(2, spec->name_space.size) +
           field_bytes_size(3, spec->name.size);
}

static uint8_t *write_service_spec(uint8_t *to, const struct service_spec *spec)
{
    to = field_write_bytes(to, 1, spec->service);
    to = field_write_bytes(to, 2, spec->name_space);
    return field_write_bytes(to, 3, spec->name);
}

/* An entry of a map always has both its fields, whatever they hold. */
static size_t last_output_size(const struct last_output *entry)
{
    return 1 + varint_size(entry->sequence_num) + 1 + varint_size(entry->last_output);
}

static uint8_t *write_last_output(uint8_t *to, const struct last_output *entry)
{
    to = write_varint(write_tag(to, 1, WIRE_VARINT), entry->sequence_num);
    return write_varint(write_tag(to, 2, WIRE_VARINT), entry->last_output);
}

static size_t keep_alive_size(const struct command_input *command, const struct last_output *entries, size_t count)
{
    size_t size = field_varint_size(1, command->session_id) + field_bytes_size(2, command->input_filter.size) +
                  field_varint_size(3, command->last_input_sequence_num);
    for (size_t i = 0; i < count; i++)
        size += field_message_size(4, last_output_size(&entries[i]));
    return size;
}

static uint8_t *write_keep_alive(uint8_t *to, const struct command_input *command, const struct last_output *entries,
                                 size_t count)
{
    to = field_write_varint(to, 1, command->session_id);
    to = field_write_bytes(to, 2, command->input_filter);
    to = field_write_varint(to, 3, command->last_input_sequence_num);
    for (size_t i = 0; i < count; i++) {
        to = field_write_message_head(to, 4, last_output_size(&entries[i]));
        to = write_last_output(to, &entries[i]);
    }
    return to;
}

/* SessionCommandInput, and notes the sizes of what is in it. */
static inline size_t session_command_size(const struct command_input *command, struct command_input_sizes *sizes)
{
    size_t size = field_varint_size(1, command->session_id);
    switch (command->session_kind) {
    case SESSION_COMMAND_NONE:
        return size;
    case SESSION_COMMAND_CREATE_SERVICE:
        sizes->operation = service_spec_size(&command->spec);
        sizes->session_member = field_message_size(1, sizes->operation);
        break;
    case SESSION_COMMAND_CLOSE_SERVICE:
        sizes->session_member = field_varint_size(1, command->service_id);
        break;
    case SESSION_COMMAND_SERVICE_COMMAND:
        sizes->operation = operation_input_size(&command->operation);
        sizes->session_member = field_varint_size(1, command->service_id) +
                                field_varint_size(2, command->sequence_num) + field_message_size(3, sizes->operation);
        break;
    default:
        break;
    }
    return size + field_message_size(command->session_kind, sizes->session_member);
}

/* Is there a CommandInput? A kind says so, and without one has_command. */
static bool command_present(const struct partition_command_input *input)
{
    return input->has_command || input->command.kind != COMMAND_NONE;
}

struct command_input_sizes command_input_sizes(const struct partition_command_input *input,
                                               const struct last_output *last_outputs, size_t last_output_count)
{
    const struct command_input *command = &input->command;
    struct command_input_sizes sizes = {.whole = field_varint_size(1, input->partition_id)};
    if (!command_present(input))
        return sizes;
    switch (command->kind) {
    case COMMAND_OPEN_SESSION:
        sizes.member = field_duration_size(1, &command->timeout);
        break;
    case COMMAND_KEEP_ALIVE:
        sizes.member = keep_alive_size(command, last_outputs, last_output_count);
        break;
    case COMMAND_CLOSE_SESSION:
        sizes.member = field_varint_size(1, command->session_id);
        break;
    case COMMAND_SESSION_COMMAND:
        sizes.member = session_command_size(command, &sizes);
        break;
    default:
        break;
    }
    sizes.command = field_duration_size(1, &command->timestamp);
    if (command->kind != COMMAND_NONE)
        sizes.command += field_message_size(command->kind, sizes.member);
    sizes.whole += field_message_size(2, sizes.command);
    return sizes;
}

static inline uint8_t *write_session_command(uint8_t *to, const struct command_input *command,
                                             const struct command_input_sizes *sizes)
{
    to = field_write_varint(to, 1, command->session_id);
    if (command->session_kind == SESSION_COMMAND_NONE)
        return to;
    to = field_write_message_head(to, command->session_kind, sizes->session_member);
    switch (command->session_kind) {
    case SESSION_COMMAND_CREATE_SERVICE:
        to = field_write_message_head(to, 1, sizes->operation);
        return write_service_spec(to, &command->spec);
    case SESSION_COMMAND_CLOSE_SERVICE:
        return field_write_varint(to, 1, command->service_id);
    case SESSION_COMMAND_SERVICE_COMMAND:
        to = field_write_varint(to, 1, command->service_id);
        to = field_write_varint(to, 2, command->sequence_num);
        to = field_write_message_head(to, 3, sizes->operation);
        return write_operation_input(to, &command->operation);
    default:
        return to;
    }
}

size_t partition_command_input_size(const struct partition_command_input *input, const struct last_output *last_outputs,
                                    size_t last_output_count)
{
    return command_input_sizes(input, last_outputs, last_output_count).whole;
}

uint8_t *write_partition_command_input(uint8_t *to, const struct partition_command_input *input,
                                       const struct last_output *last_outputs, size_t last_output_count)
{
    struct command_input_sizes sizes = command_input_sizes(input, last_outputs, last_output_count);
    return write_command_input_sized(to, input, last_outputs, last_output_count, &sizes);
}

uint8_t *write_command_input_sized(uint8_t *to, const struct partition_command_input *input,
                                   const struct last_output *last_outputs, size_t last_output_count,
                                   const struct command_input_sizes *sizes)
{
    const struct command_input *command = &input->command;
    to = field_write_varint(to, 1, input->partition_id);
    if (!command_present(input))
        return to;
    to = field_write_message_head(to, 2, sizes->command);
    to = field_write_duration(to, 1, &command->timestamp);
    if (command->kind == COMMAND_NONE)
        return to;
    to = field_write_message_head(to, command->kind, sizes->member);
    switch (command->kind) {
    case COMMAND_OPEN_SESSION:
        return field_write_duration(to, 1, &command->timeout);
    case COMMAND_KEEP_ALIVE:
        return write_keep_alive(to, command, last_outputs, last_output_count);
    case COMMAND_CLOSE_SESSION:
        return field_write_varint(to, 1, command->session_id);
    case COMMAND_SESSION_COMMAND:
        return write_session_command(to, command, sizes);
    default:
        return to;
    }
}

struct query_input_sizes query_input_sizes(const struct partition_query_input *input)
{
    struct query_input_sizes sizes;
    sizes.operation = operation_input_size(&input->operation);
    sizes.service_query = field_varint_size(1, input->service_id) + field_message_size(2, sizes.operation);
    sizes.session_query = field_varint_size(1, input->session_id) + field_message_size(2, sizes.service_query);
    sizes.query = field_varint_size(1, input->max_received_index) + field_message_size(2, sizes.session_query);
    sizes.whole = field_varint_size(1, input->partition_id) + field_message_size(2, sizes.query) +
                  field_varint_size(3, input->sync);
    return sizes;
}

size_t partition_query_input_size(const struct partition_query_input *input)
{
    return query_input_sizes(input).whole;
}

uint8_t *write_partition_query_input(uint8_t *to, const struct partition_query_input *input)
{
    struct query_input_sizes sizes = query_input_sizes(input);
    return write_query_input_sized(to, input, &sizes);
}

uint8_t *write_query_input_sized(uint8_t *to, const struct partition_query_input *input,
                                 const struct query_input_sizes *sizes)
{
    to = field_write_varint(to, 1, input->partition_id);
    to = field_write_message_head(to, 2, sizes->query);
    to = field_write_varint(to, 1, input->max_received_index);
    to = field_write_message_head(to, 2, sizes->session_query);
    to = field_write_varint(to, 1, input->session_id);
    to = field_write_message_head(to, 2, sizes->service_query);
    to = field_write_varint(to, 1, input->service_id);
    to = field_write_message_head(to, 2, sizes->operation);
    to = write_operation_input(to, &input->operation);
    field_write_varint(to + input->operation.payload.size, 3, input->sync); /* behind the room for the payload */
    return to;
}
