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
struct service_output_sizes service_output_sizes(const struct service_output *output);
/* Stops where the payload goes. */
uint8_t *write_service_output_head(uint8_t *to, const struct service_output *output,
                                   const struct service_output_sizes *sizes);

/* In builds for tests one of the messages around the operation's output can be left out (proto/rows.h): then all ends
 * there, without payload and message. */
#define SERVICE_OUTPUT_CUT                                                                                             \
    (ROW_DROPPED(ROW(PartitionCommandOutput, command)) || ROW_DROPPED(ROW(CommandOutput, session_command)) ||          \
     ROW_DROPPED(ROW(SessionCommandOutput, service_command)) || ROW_DROPPED(ROW(ServiceCommandOutput, operation)))

/* The same two for nearly all: a payload and no message, a number in one byte, and the lengths of all messages and of
 * the payload in as many bytes, 1 or 2; 0: it is not one of these. */
static inline size_t plain_output_length_bytes(const struct service_output *output)
{
    const uint64_t around = 64; /* more than stands around a payload */
    if (!ROWS_WHOLE || output->message_size > 0 || output->index == 0 || output->sequence_num - 1 >= 127 ||
        (uint64_t)output->status - 1 >= 127)
        return 0;
    if (output->payload_size - 1 < 128 - around)
        return 1;
    return output->payload_size - 128 < 16384 - 128 - around ? 2 : 0;
}

static inline struct service_output_sizes plain_output_sizes(const struct service_output *output, size_t length_bytes)
{
    struct service_output_sizes sizes;
    sizes.operation = 2 + 1 + length_bytes + output->payload_size;
    sizes.service_command = 2 + 1 + length_bytes + sizes.operation;
    sizes.session_command = 1 + length_bytes + sizes.service_command;
    sizes.command = 1 + varint_size(output->index) + 1 + length_bytes + sizes.session_command;
    sizes.whole = 1 + length_bytes + sizes.command;
    return sizes;
}

static inline uint8_t *write_plain_length(uint8_t *to, unsigned row, size_t length, size_t length_bytes)
{
    to[0] = (uint8_t)FIELD(ROW_NUMBER(row), WIRE_BYTES);
    to[1] = (uint8_t)length;
    if (length_bytes > 1) {
        to[1] |= 0x80;
        to[2] = (uint8_t)(length >> 7);
    }
    return to + 1 + length_bytes;
}

static inline uint8_t *write_plain_output_head(uint8_t *to, const struct service_output *output,
                                               const struct service_output_sizes *sizes, size_t length_bytes)
{
    to = write_plain_length(to, ROW(PartitionCommandOutput, command), sizes->command, length_bytes);
    *to++ = FIELD(ROW_NUMBER(ROW(CommandOutput, index)), WIRE_VARINT);
    to = write_varint(to, output->index);
    to = write_plain_length(to, ROW(CommandOutput, session_command), sizes->session_command, length_bytes);
    to = write_plain_length(to, ROW(SessionCommandOutput, service_command), sizes->service_command, length_bytes);
    *to++ = FIELD(ROW_NUMBER(ROW(ServiceCommandOutput, sequence_num)), WIRE_VARINT);
    *to++ = (uint8_t)output->sequence_num;
    to = write_plain_length(to, ROW(ServiceCommandOutput, operation), sizes->operation, length_bytes);
    *to++ = FIELD(ROW_NUMBER(ROW(OperationOutput, status)), WIRE_VARINT);
    *to++ = (uint8_t)output->status;
    return write_plain_length(to, ROW(OperationOutput, payload), output->payload_size, length_bytes);
}

#endif
