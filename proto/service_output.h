/* SPDX-License-Identifier: Apache-2.0 */
/* A PartitionCommandOutput with the output of a ServiceCommand, as nearly all answers are: written in three steps, so
 * that the payload's bytes can be put between the first and the last from wherever they are.
 *
 *     PartitionCommandOutput { command: CommandOutput { index, session_command: SessionCommandOutput {
 *         service_command: ServiceCommandOutput { sequence_num, operation: OperationOutput {
 *             status, payload, message } } } } }
 *
 * All five messages end at the same byte, so each of them is what is left of the bytes from where it begins. */
#ifndef PROTO_SERVICE_OUTPUT_H
#define PROTO_SERVICE_OUTPUT_H

#include "proto/writer.h"

/* --- OperationOutput: also a query's ---------------------------------------------------------------------------- */

static inline uint64_t status_varint(enum status status)
{
    return (uint64_t)(int64_t)(int32_t)ROW_VALUE(Status, status); /* a negative one as the int64 of the same value */
}

static inline size_t operation_output_size(enum status status, size_t payload_size, size_t message_size)
{
    return field_varint_size(ROW(OperationOutput, status), status_varint(status)) +
           field_bytes_size(ROW(OperationOutput, payload), payload_size) +
           field_bytes_size(ROW(OperationOutput, message), message_size);
}

/* Stops where the payload goes. */
static inline uint8_t *write_operation_output_head(uint8_t *to, enum status status, size_t payload_size)
{
    to = field_write_varint(to, ROW(OperationOutput, status), status_varint(status));
    if (payload_size == 0 || ROW_DROPPED(ROW(OperationOutput, payload)))
        return to;
    return field_write_message_head(to, ROW(OperationOutput, payload), payload_size);
}

/* --- The whole -------------------------------------------------------------------------------------------------- */

struct service_output {
    uint64_t index;        /* of the command */
    uint64_t sequence_num; /* the output's number */
    enum status status;    /* of the operation */
    size_t payload_size;
    size_t message_size;
};

/* Of the messages, without their heads. */
struct service_output_sizes {
    size_t operation;       /* OperationOutput */
    size_t service_command; /* ServiceCommandOutput */
    size_t session_command; /* SessionCommandOutput */
    size_t command;         /* CommandOutput */
    size_t whole;           /* PartitionCommandOutput */
};

static inline struct service_output_sizes service_output_sizes(const struct service_output *output)
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

/* In builds for tests one of the messages around the operation's output can be left out (proto/rows.h): then all ends
 * there, without payload and message. */
#define SERVICE_OUTPUT_CUT                                                                               \
    (ROW_DROPPED(ROW(PartitionCommandOutput, command)) || ROW_DROPPED(ROW(CommandOutput, session_command)) || \
     ROW_DROPPED(ROW(SessionCommandOutput, service_command)) || ROW_DROPPED(ROW(ServiceCommandOutput, operation)))

/* Stops where the payload goes. */
static inline uint8_t *write_service_output_head(uint8_t *to, const struct service_output *output,
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

#endif
