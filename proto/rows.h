/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of fsm.proto, by name: every field of its messages and every value of its enums, so that a test can have one
 * of them treated as absent. In builds with -DMR_TESTING the environment's MR_DROP names a row (KeepAliveInput.
 * input_filter, Status.CONFLICT; an empty message, KeepAliveOutput, stands for the member that holds it): a reader then
 * skips that field as if it were unknown, a writer leaves it out, and a value is taken for 0 (0 itself for 1). In other
 * builds ROW(message, field) is the field's number, ROW_DROPPED() is false, and nothing is left of the rest.
 *
 *     while (ROW_NEXT(&reader, KeepAliveInput)) ...                        reading a message's fields
 *     to = field_write_varint(to, ROW(CommandOutput, index), index);       writing one; likewise its size
 *
 * Knows names and numbers, no bytes. */
#ifndef PROTO_ROWS_H
#define PROTO_ROWS_H

#include <stdbool.h>
#include <stdint.h>

/* clang-format off */
#define ROW_GROUPS(X)                                                                                            \
    X(CloseServiceInput) X(CloseServiceOutput) X(CloseSessionInput) X(CloseSessionOutput) X(CommandInput)        \
    X(CommandOutput) X(CommandSnapshot) X(CreateServiceInput) X(CreateServiceOutput) X(KeepAliveInput)           \
    X(LastOutputSequenceNumsEntry) X(KeepAliveOutput) X(OpenSessionInput) X(OpenSessionOutput) X(OperationInput) \
    X(OperationOutput) X(PartitionCommandInput) X(PartitionCommandOutput) X(PartitionQueryInput)                 \
    X(PartitionQueryOutput) X(PartitionSnapshot) X(QueryInput) X(QueryOutput) X(ServiceCommandInput)             \
    X(ServiceCommandOutput) X(ServiceQueryInput) X(ServiceQueryOutput) X(ServiceSnapshot) X(ServiceSpec)         \
    X(SessionCommandInput) X(SessionCommandOutput) X(SessionQueryInput) X(SessionQueryOutput) X(SessionSnapshot) \
    X(CommandState) X(Status)

#define ROWS(X)                                                                                                 \
    X(CloseServiceInput, service_id, 1) X(CloseSessionInput, session_id, 1) X(CommandInput, timestamp, 1)       \
    X(CommandInput, open_session, 2) X(CommandInput, keep_alive, 3) X(CommandInput, close_session, 4)           \
    X(CommandInput, session_command, 5) X(CommandOutput, index, 1) X(CommandOutput, open_session, 2)            \
    X(CommandOutput, keep_alive, 3) X(CommandOutput, close_session, 4) X(CommandOutput, session_command, 5)     \
    X(CommandSnapshot, command_sequence_num, 1) X(CommandSnapshot, state, 2) X(CommandSnapshot, input, 3)       \
    X(CommandSnapshot, pending_outputs, 4) X(CreateServiceInput, spec, 1) X(CreateServiceOutput, service_id, 1) \
    X(KeepAliveInput, session_id, 1) X(KeepAliveInput, input_filter, 2)                                         \
    X(KeepAliveInput, last_input_sequence_num, 3) X(KeepAliveInput, last_output_sequence_nums, 4)               \
    X(LastOutputSequenceNumsEntry, key, 1) X(LastOutputSequenceNumsEntry, value, 2)                             \
    X(OpenSessionInput, timeout, 1) X(OpenSessionOutput, session_id, 1) X(OperationInput, name, 1)              \
    X(OperationInput, payload, 2) X(OperationOutput, status, 1) X(OperationOutput, payload, 2)                  \
    X(OperationOutput, message, 3) X(PartitionCommandInput, partition_id, 1)                                    \
    X(PartitionCommandInput, command, 2) X(PartitionCommandOutput, command, 1)                                  \
    X(PartitionQueryInput, partition_id, 1) X(PartitionQueryInput, query, 2) X(PartitionQueryInput, sync, 3)    \
    X(PartitionQueryOutput, query, 1) X(PartitionSnapshot, index, 1) X(PartitionSnapshot, timestamp, 2)         \
    X(PartitionSnapshot, sessions, 3) X(PartitionSnapshot, services, 4) X(QueryInput, max_received_index, 1)    \
    X(QueryInput, session_query, 2) X(QueryOutput, session_query, 1) X(ServiceCommandInput, service_id, 1)      \
    X(ServiceCommandInput, sequence_num, 2) X(ServiceCommandInput, operation, 3)                                \
    X(ServiceCommandOutput, sequence_num, 1) X(ServiceCommandOutput, operation, 2)                              \
    X(ServiceQueryInput, service_id, 1) X(ServiceQueryInput, operation, 2) X(ServiceQueryOutput, operation, 1)  \
    X(ServiceSnapshot, service_id, 1) X(ServiceSnapshot, spec, 2) X(ServiceSnapshot, data, 3)                   \
    X(ServiceSnapshot, sessions, 4) X(ServiceSpec, service, 1) X(ServiceSpec, namespace, 2)                     \
    X(ServiceSpec, name, 3) X(SessionCommandInput, session_id, 1) X(SessionCommandInput, create_service, 2)     \
    X(SessionCommandInput, close_service, 3) X(SessionCommandInput, service_command, 4)                         \
    X(SessionCommandOutput, create_service, 1) X(SessionCommandOutput, close_service, 2)                        \
    X(SessionCommandOutput, service_command, 3) X(SessionQueryInput, session_id, 1)                             \
    X(SessionQueryInput, service_query, 2) X(SessionQueryOutput, service_query, 1)                              \
    X(SessionSnapshot, session_id, 1) X(SessionSnapshot, timeout, 2) X(SessionSnapshot, last_updated, 3)        \
    X(SessionSnapshot, commands, 4) X(CommandState, COMMAND_OPEN, 0) X(CommandState, COMMAND_COMPLETE, 1)       \
    X(Status, UNKNOWN, 0) X(Status, OK, 1) X(Status, ERROR, 2) X(Status, CANCELED, 3) X(Status, NOT_FOUND, 4)   \
    X(Status, ALREADY_EXISTS, 5) X(Status, UNAUTHORIZED, 6) X(Status, FORBIDDEN, 7) X(Status, CONFLICT, 8)      \
    X(Status, INVALID, 9) X(Status, UNAVAILABLE, 10) X(Status, NOT_SUPPORTED, 11) X(Status, TIMEOUT, 12)        \
    X(Status, INTERNAL, 13)
/* A message without fields, and the member of another one that it is. */
#define ROW_EMPTY_MESSAGES(X) \
    X(KeepAliveOutput, CommandOutput, keep_alive) X(CloseSessionOutput, CommandOutput, close_session) \
    X(CloseServiceOutput, SessionCommandOutput, close_service)
/* clang-format on */

#ifdef MR_TESTING

enum row_group {
    row_group_none, /* so that a plain field number is no row */
#define ROW_GROUP(group) row_group_##group,
    ROW_GROUPS(ROW_GROUP)
#undef ROW_GROUP
};
enum {
    ROW_NUMBERS = 32, /* a row is its group's place times this, and its number */
#define ROW_NAME(group, name, number) row_##group##_##name = row_group_##group * ROW_NUMBERS + (number),
    ROWS(ROW_NAME)
#undef ROW_NAME
};

extern unsigned row_to_drop; /* 0: none; set before main() */

static inline bool row_dropped(unsigned row)
{
    return __builtin_expect(row_to_drop != 0, 0) && row == row_to_drop;
}

static inline unsigned row_value(enum row_group group, unsigned value)
{
    return value < ROW_NUMBERS && row_dropped(group * ROW_NUMBERS + value) ? value == 0 : value;
}

#define ROW_OF(group, number) (row_group_##group * ROW_NUMBERS + (unsigned)(number))
#define ROW_NUMBER(row) ((row) % ROW_NUMBERS)
#define ROW_DROPPED(row) row_dropped(row)
#define ROWS_WHOLE (row_to_drop == 0) /* no row is dropped */
#define ROW_VALUE(group, value) row_value(row_group_##group, (unsigned)(value))

#else

enum {
#define ROW_NAME(group, name, number) row_##group##_##name = (number),
    ROWS(ROW_NAME)
#undef ROW_NAME
};

#define ROW_OF(group, number) ((unsigned)(number))
#define ROW_NUMBER(row) (row)
#define ROW_DROPPED(row) false
#define ROWS_WHOLE true
#define ROW_VALUE(group, value) ((unsigned)(value))

#endif

/* A field by name; a field of `group` by a number that is only known at run time: ROW_OF(). */
#define ROW(group, name) ((unsigned)row_##group##_##name)

#endif
