/* SPDX-License-Identifier: Apache-2.0 */
/* The in-place writer: encodes the hot path's messages straight to where they are read. Every message comes as a
 * pair: its exact size, and the writing of just that many bytes, fields in the order of their numbers, defaults left
 * out, varints shortest: the canonical bytes, so that equal messages are equal bytes. Allocates nothing. */
#ifndef PROTO_WRITER_H
#define PROTO_WRITER_H

#include "proto/messages.h"

/* Each returns where it stopped. */
uint8_t *write_varint(uint8_t *to, uint64_t value);
size_t varint_size(uint64_t value);

/* Single fields, for messages that a service or the library writes itself. A default value (0, empty) writes nothing
 * and has size 0, as proto3 asks for. `number` up to 15: one byte of tag. */
size_t field_varint_size(unsigned number, uint64_t value);
uint8_t *field_write_varint(uint8_t *to, unsigned number, uint64_t value);
size_t field_bytes_size(unsigned number, size_t size);
uint8_t *field_write_bytes(uint8_t *to, unsigned number, struct slice bytes);
/* A sub-message's head, always written (an empty sub-message is present): tag and length; its `size` bytes follow. */
size_t field_message_head_size(unsigned number, size_t size);
uint8_t *field_write_message_head(uint8_t *to, unsigned number, size_t size);

/* Answers: PartitionCommandOutput and PartitionQueryOutput. The payload's parts are copied one behind the other. */
size_t partition_command_output_size(const struct command_output *output);
uint8_t *write_partition_command_output(uint8_t *to, const struct command_output *output);
/* The same two for who needs the size first: the sizes of the messages within, without their heads; 0 for those that
 * are not there. */
struct command_output_sizes {
    size_t operation;      /* OperationOutput */
    size_t session_member; /* the member of SessionCommandOutput, whichever it is */
    size_t member;         /* the member of CommandOutput, whichever it is */
    size_t command;        /* CommandOutput */
    size_t whole;          /* PartitionCommandOutput */
};
struct command_output_sizes command_output_sizes(const struct command_output *output);
uint8_t *write_command_output_sized(uint8_t *to, const struct command_output *output,
                                    const struct command_output_sizes *sizes);
size_t partition_query_output_size(const struct operation_output *output);
uint8_t *write_partition_query_output(uint8_t *to, const struct operation_output *output);

/* Requests, as the library writes them: everything but the operation's payload, which the caller then encodes in
 * place where the writing stopped. `operation.payload.size` says how many bytes it has; its data is not looked at.
 * For a message without an operation nothing follows. The sizes include the payload.
 *
 * Command: kind, session_kind and the fields that go with them are taken from `input`, timestamp and timeout if they
 * are `present`. KeepAlive's map is given apart and written in the order given (canonical: ascending). */
struct last_output {
    uint64_t sequence_num, last_output;
};
size_t partition_command_input_size(const struct partition_command_input *input, const struct last_output *last_outputs,
                                    size_t last_output_count);
uint8_t *write_partition_command_input(uint8_t *to, const struct partition_command_input *input,
                                       const struct last_output *last_outputs, size_t last_output_count);
/* The same two for who needs the size first, as above. */
struct command_input_sizes {
    size_t operation;      /* OperationInput, or ServiceSpec */
    size_t session_member; /* the member of SessionCommandInput, whichever it is */
    size_t member;         /* the member of CommandInput, whichever it is */
    size_t command;        /* CommandInput */
    size_t whole;          /* PartitionCommandInput */
};
struct command_input_sizes command_input_sizes(const struct partition_command_input *input,
                                               const struct last_output *last_outputs, size_t last_output_count);
uint8_t *write_command_input_sized(uint8_t *to, const struct partition_command_input *input,
                                   const struct last_output *last_outputs, size_t last_output_count,
                                   const struct command_input_sizes *sizes);
/* Query: it has only one shape, so it is written whole, whatever has_query and the member counts say. `sync` comes
 * behind the payload; it is already written there, past the room left for it, when this returns where the payload
 * goes. */
size_t partition_query_input_size(const struct partition_query_input *input);
uint8_t *write_partition_query_input(uint8_t *to, const struct partition_query_input *input);
struct query_input_sizes {
    size_t operation;     /* OperationInput */
    size_t service_query; /* ServiceQueryInput */
    size_t session_query; /* SessionQueryInput */
    size_t query;         /* QueryInput */
    size_t whole;         /* PartitionQueryInput */
};
struct query_input_sizes query_input_sizes(const struct partition_query_input *input);
uint8_t *write_query_input_sized(uint8_t *to, const struct partition_query_input *input,
                                 const struct query_input_sizes *sizes);

#endif
