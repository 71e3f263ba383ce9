/* SPDX-License-Identifier: Apache-2.0 */
/* The in-place writer: encodes the hot path's messages straight to where they are read. Every message comes as a
 * pair: its exact size, and the writing of just that many bytes, fields in the order of their numbers, defaults left
 * out, varints shortest: the canonical bytes, so that equal messages are equal bytes. Allocates nothing. */
#ifndef PROTO_WRITER_H
#define PROTO_WRITER_H

#include "proto/messages.h"
#include "proto/reader.h"
#include "proto/rows.h"

#include <string.h>

/* --- Varints and single fields ---------------------------------------------------------------------------------- */

static inline size_t varint_size(uint64_t value)
{
    if (value < 0x80)
        return 1; /* lengths and small numbers: nearly all */
    /* bits / 7, rounded up, of which a value of 0 has one; exact for 1 to 64 bits */
    unsigned bits = 64U - (unsigned)__builtin_clzll(value | 1);
    return (bits * 9 + 64) / 64;
}

/* This and every other write_ function returns where it stopped. */
static inline uint8_t *write_varint(uint8_t *to, uint64_t value)
{
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

static inline uint8_t *write_tag(uint8_t *to, unsigned number, enum wire_type wire)
{
    *to++ = (uint8_t)(ROW_NUMBER(number) << 3 | wire);
    return to;
}

/* Single fields, also for messages that a service or the library writes itself. A default value (0, empty) writes
 * nothing and has size 0, as proto3 asks for. `number` up to 15: one byte of tag. */
static inline size_t field_varint_size(unsigned number, uint64_t value)
{
    (void)number; /* the tag is one byte */
    return value == 0 || ROW_DROPPED(number) ? 0 : 1 + varint_size(value);
}

static inline uint8_t *field_write_varint(uint8_t *to, unsigned number, uint64_t value)
{
    return value == 0 || ROW_DROPPED(number) ? to : write_varint(write_tag(to, number, WIRE_VARINT), value);
}

/* A sub-message's head, always written (an empty sub-message is present): tag and length; its `size` bytes follow. */
static inline size_t field_message_head_size(unsigned number, size_t size)
{
    (void)number;
    return 1 + varint_size(size);
}

static inline uint8_t *field_write_message_head(uint8_t *to, unsigned number, size_t size)
{
    return write_varint(write_tag(to, number, WIRE_BYTES), size);
}

/* A sub-message with its head. */
static inline size_t field_message_size(unsigned number, size_t size)
{
    return ROW_DROPPED(number) ? 0 : field_message_head_size(number, size) + size;
}

static inline size_t field_bytes_size(unsigned number, size_t size)
{
    return size == 0 || ROW_DROPPED(number) ? 0 : field_message_head_size(number, size) + size;
}

static inline uint8_t *write_bytes(uint8_t *to, struct slice bytes)
{
    if (bytes.size != 0)
        memcpy(to, bytes.data, bytes.size);
    return to + bytes.size;
}

static inline uint8_t *field_write_bytes(uint8_t *to, unsigned number, struct slice bytes)
{
    if (bytes.size == 0 || ROW_DROPPED(number))
        return to;
    return write_bytes(field_write_message_head(to, number, bytes.size), bytes);
}

/* --- Messages --------------------------------------------------------------------------------------------------- */

/* Answers: PartitionCommandOutput and PartitionQueryOutput. The payload's parts are copied one behind the other. */
size_t partition_command_output_size(const struct command_output *output);
uint8_t *write_partition_command_output(uint8_t *to, const struct command_output *output);
size_t partition_query_output_size(const struct operation_output *output);
uint8_t *write_partition_query_output(uint8_t *to, const struct operation_output *output);
/* The same two for who needs the size first: the sizes of the messages within, without their heads. */
struct query_output_sizes {
    size_t operation;     /* OperationOutput */
    size_t service_query; /* ServiceQueryOutput */
    size_t session_query; /* SessionQueryOutput */
    size_t query;         /* QueryOutput */
    size_t whole;         /* PartitionQueryOutput */
};
struct query_output_sizes query_output_sizes(const struct operation_output *output);
uint8_t *write_query_output_sized(uint8_t *to, const struct operation_output *output,
                                  const struct query_output_sizes *sizes);

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
