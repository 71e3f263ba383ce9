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

/* The same two for nearly all: a payload and no message, and every number and length but the index in one byte. */
enum {
    SHORT_OUTPUT_OUTER = 7, /* bytes before the ServiceCommandOutput, besides the index */
    SHORT_OUTPUT_HEAD = 15  /* likewise: before the payload */
};

static inline bool is_short_output(const struct service_output *output)
{
    const uint64_t most = 100; /* so that the messages around it are shorter than 128 as well */
    return ROWS_WHOLE && output->payload_size - 1 < most && output->message_size == 0 && output->index > 0 &&
           output->sequence_num - 1 < most && (uint64_t)output->status - 1 < most;
}

static inline uint8_t *write_short_output_head(uint8_t *to, const struct service_output *output, size_t index_size)
{
    size_t size = output->payload_size;
    *to++ = FIELD(ROW_NUMBER(ROW(PartitionCommandOutput, command)), WIRE_BYTES);
    *to++ = (uint8_t)(size + 13 + index_size);
    *to++ = FIELD(ROW_NUMBER(ROW(CommandOutput, index)), WIRE_VARINT);
    to = write_varint(to, output->index);
    *to++ = FIELD(ROW_NUMBER(ROW(CommandOutput, session_command)), WIRE_BYTES);
    *to++ = (uint8_t)(size + 10);
    *to++ = FIELD(ROW_NUMBER(ROW(SessionCommandOutput, service_command)), WIRE_BYTES);
    *to++ = (uint8_t)(size + 8);
    *to++ = FIELD(ROW_NUMBER(ROW(ServiceCommandOutput, sequence_num)), WIRE_VARINT);
    *to++ = (uint8_t)output->sequence_num;
    *to++ = FIELD(ROW_NUMBER(ROW(ServiceCommandOutput, operation)), WIRE_BYTES);
    *to++ = (uint8_t)(size + 4);
    *to++ = FIELD(ROW_NUMBER(ROW(OperationOutput, status)), WIRE_VARINT);
    *to++ = (uint8_t)output->status;
    *to++ = FIELD(ROW_NUMBER(ROW(OperationOutput, payload)), WIRE_BYTES);
    *to++ = (uint8_t)size;
    return to;
}

#endif
