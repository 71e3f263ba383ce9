/* SPDX-License-Identifier: Apache-2.0 */
/* The requests, as the worker reads them: one function a message, in the manner of proto/reader_parts.h. This is the
 * hot path: a ServiceCommandInput of one-byte tags and lengths is read without a call but the check of its name.
 * Knows only what the bytes say, not what the node makes of it. */
#include "proto/reader_parts.h"

/* --- Parts of several messages ---------------------------------------------------------------------------------- */

static bool read_duration(struct field_reader reader, struct duration *out)
{
    out->present = true;
    while (wire_next(&reader)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->seconds = (int64_t)wire_varint(&reader);
            break;
        case FIELD(2, WIRE_VARINT):
            out->nanos = (int32_t)wire_varint(&reader);
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

static inline bool read_operation_input(struct field_reader reader, struct operation_input *out)
{
    while (ROW_NEXT(&reader, OperationInput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_BYTES):
            out->name = wire_string(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            out->payload = wire_bytes(&reader);
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

/* --- PartitionCommandInput -------------------------------------------------------------------------------------- */

static bool read_open_session_input(struct field_reader reader, struct command_input *out)
{
    while (ROW_NEXT(&reader, OpenSessionInput)) {
        if (reader.tag != FIELD(1, WIRE_BYTES))
            wire_skip(&reader);
        else if (!read_duration(wire_message(&reader), &out->timeout))
            return false;
    }
    return !reader.malformed;
}

static bool read_map_entry(struct field_reader reader, uint64_t *key, uint64_t *value)
{
    while (ROW_NEXT(&reader, LastOutputSequenceNumsEntry)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            *key = wire_varint(&reader);
            break;
        case FIELD(2, WIRE_VARINT):
            *value = wire_varint(&reader);
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

static bool read_keep_alive_input(struct field_reader reader, struct command_input *out)
{
    uint64_t key, value; /* the map is only checked here; read_last_outputs() reads it */
    while (ROW_NEXT(&reader, KeepAliveInput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->session_id = wire_varint(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            out->input_filter = wire_bytes(&reader);
            break;
        case FIELD(3, WIRE_VARINT):
            out->last_input_sequence_num = wire_varint(&reader);
            break;
        case FIELD(4, WIRE_BYTES):
            out->has_last_output_sequence_nums = true;
            if (!read_map_entry(wire_message(&reader), &key, &value))
                return false;
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

static bool read_service_spec(struct field_reader reader, struct service_spec *out)
{
    while (ROW_NEXT(&reader, ServiceSpec)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_BYTES):
            out->service = wire_string(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            out->name_space = wire_string(&reader);
            break;
        case FIELD(3, WIRE_BYTES):
            out->name = wire_string(&reader);
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

static bool read_create_service_input(struct field_reader reader, struct command_input *out)
{
    while (ROW_NEXT(&reader, CreateServiceInput)) {
        if (reader.tag != FIELD(1, WIRE_BYTES))
            wire_skip(&reader);
        else if (!read_service_spec(wire_message(&reader), &out->spec))
            return false;
    }
    return !reader.malformed;
}

static inline bool read_service_command_input(struct field_reader reader, struct command_input *out)
{
    while (ROW_NEXT(&reader, ServiceCommandInput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->service_id = wire_varint(&reader);
            break;
        case FIELD(2, WIRE_VARINT):
            out->sequence_num = wire_varint(&reader);
            break;
        case FIELD(3, WIRE_BYTES):
            if (!read_operation_input(wire_message(&reader), &out->operation))
                return false;
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

static inline bool read_session_command_input(struct field_reader reader, struct command_input *out)
{
    bool well_formed = true;
    while (well_formed && ROW_NEXT(&reader, SessionCommandInput)) {
        unsigned member = reader.tag >> 3;
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->session_id = wire_varint(&reader);
            continue;
        case FIELD(SESSION_COMMAND_CREATE_SERVICE, WIRE_BYTES):
            well_formed = read_create_service_input(wire_message(&reader), out);
            break;
        case FIELD(SESSION_COMMAND_CLOSE_SERVICE, WIRE_BYTES):
            well_formed = read_id(wire_message(&reader), ROW(CloseServiceInput, service_id), &out->service_id);
            break;
        case FIELD(SESSION_COMMAND_SERVICE_COMMAND, WIRE_BYTES):
            well_formed = read_service_command_input(wire_message(&reader), out);
            break;
        default:
            wire_skip(&reader);
            continue;
        }
        out->session_kind = (enum session_command_kind)oneof_member(out->session_kind, member);
    }
    return well_formed && !reader.malformed;
}

static inline bool read_command_input(struct field_reader reader, struct command_input *out)
{
    bool well_formed = true;
    while (well_formed && ROW_NEXT(&reader, CommandInput)) {
        unsigned member = reader.tag >> 3;
        switch (reader.tag) {
        case FIELD(1, WIRE_BYTES):
            well_formed = read_duration(wire_message(&reader), &out->timestamp);
            continue;
        case FIELD(COMMAND_OPEN_SESSION, WIRE_BYTES):
            well_formed = read_open_session_input(wire_message(&reader), out);
            break;
        case FIELD(COMMAND_KEEP_ALIVE, WIRE_BYTES):
            well_formed = read_keep_alive_input(wire_message(&reader), out);
            break;
        case FIELD(COMMAND_CLOSE_SESSION, WIRE_BYTES):
            well_formed = read_id(wire_message(&reader), ROW(CloseSessionInput, session_id), &out->session_id);
            break;
        case FIELD(COMMAND_SESSION_COMMAND, WIRE_BYTES):
            well_formed = read_session_command_input(wire_message(&reader), out);
            break;
        default:
            wire_skip(&reader);
            continue;
        }
        out->kind = (enum command_kind)oneof_member(out->kind, member);
    }
    return well_formed && !reader.malformed;
}

/* An operation with a name of up to 127 bytes and, behind it, a payload or nothing. */
static inline bool read_plain_operation(const uint8_t *at, const uint8_t *end, struct operation_input *out)
{
    if (end - at < 2 || at[0] != BYTES_TAG(1) || at[1] >= 0x80 || at[1] > end - at - 2)
        return false;
    struct slice name = {at + 2, at[1]}, payload = {0};
    at += 2 + name.size;
    if (at != end) {
        if ((at = wire_plain_last(at, end, BYTES_TAG(2))) == NULL)
            return false;
        payload = (struct slice){at, (size_t)(end - at)};
    }
    *out = (struct operation_input){name, payload};
    return utf8_is_ascii(name) || utf8_valid(name);
}

/* A service command in the form in which our writer puts it, which nearly all that come have. False: in another one,
 * or not a command at all; *out is then filled in part. */
static inline bool read_plain_service_command(const uint8_t *at, const uint8_t *end,
                                              struct partition_command_input *restrict out)
{
    uint64_t partition;
    struct command_input *restrict command = &out->command;
    command->source = (struct slice){at, (size_t)(end - at)};
    if ((at = wire_plain_varint(at, end, VARINT_TAG(1), &partition)) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(2))) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(COMMAND_SESSION_COMMAND))) == NULL ||
        (at = wire_plain_varint(at, end, VARINT_TAG(1), &command->session_id)) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(SESSION_COMMAND_SERVICE_COMMAND))) == NULL ||
        (at = wire_plain_varint(at, end, VARINT_TAG(1), &command->service_id)) == NULL ||
        (at = wire_plain_varint(at, end, VARINT_TAG(2), &command->sequence_num)) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(3))) == NULL || !read_plain_operation(at, end, &command->operation))
        return false;
    out->partition_id = (uint32_t)partition;
    out->has_command = true;
    command->kind = COMMAND_SESSION_COMMAND;
    command->session_kind = SESSION_COMMAND_SERVICE_COMMAND;
    command->timestamp = (struct duration){0};
    command->spec = (struct service_spec){0};
    return true;
}

/* Whatever there may be. */
static __attribute__((noinline)) enum read_result read_any_command(struct slice source,
                                                                   struct partition_command_input *out)
{
    struct field_reader reader = field_reader(source);
    *out = (struct partition_command_input){.command = {.source = source}};
    while (ROW_NEXT(&reader, PartitionCommandInput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->partition_id = (uint32_t)wire_varint(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            out->has_command = true;
            if (!read_command_input(wire_message(&reader), &out->command))
                return READ_MALFORMED;
            break;
        default:
            wire_skip(&reader);
        }
    }
    return read_result(!reader.malformed);
}

enum read_result read_partition_command_input(const uint8_t *data, size_t size, struct partition_command_input *out)
{
    if (ROWS_WHOLE && read_plain_service_command(data, data + size, out))
        return READ_OK;
    return read_any_command((struct slice){data, size}, out);
}

/* --- The map in it ---------------------------------------------------------------------------------------------- */

static void walk_keep_alive(struct field_reader reader, read_last_output_fn *fn, void *context)
{
    while (ROW_NEXT(&reader, KeepAliveInput)) {
        if (reader.tag == FIELD(4, WIRE_BYTES)) {
            uint64_t key = 0, value = 0;
            read_map_entry(wire_message(&reader), &key, &value);
            fn(context, key, value);
        } else {
            wire_skip(&reader);
        }
    }
}

static void walk_command(struct field_reader reader, read_last_output_fn *fn, void *context)
{
    while (ROW_NEXT(&reader, CommandInput)) {
        if (reader.tag == FIELD(COMMAND_KEEP_ALIVE, WIRE_BYTES))
            walk_keep_alive(wire_message(&reader), fn, context);
        else
            wire_skip(&reader);
    }
}

void read_last_outputs(struct slice source, read_last_output_fn *fn, void *context)
{
    struct field_reader reader = field_reader(source);
    while (ROW_NEXT(&reader, PartitionCommandInput)) {
        if (reader.tag == FIELD(2, WIRE_BYTES))
            walk_command(wire_message(&reader), fn, context);
        else
            wire_skip(&reader);
    }
}

/* --- PartitionQueryInput ---------------------------------------------------------------------------------------- */

static inline bool read_service_query_input(struct field_reader reader, struct partition_query_input *out)
{
    while (ROW_NEXT(&reader, ServiceQueryInput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->service_id = wire_varint(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            if (!read_operation_input(wire_message(&reader), &out->operation))
                return false;
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

static inline bool read_session_query_input(struct field_reader reader, struct partition_query_input *out)
{
    while (ROW_NEXT(&reader, SessionQueryInput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->session_id = wire_varint(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            out->session_query_members = 1;
            if (!read_service_query_input(wire_message(&reader), out))
                return false;
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

static inline bool read_query_input(struct field_reader reader, struct partition_query_input *out)
{
    while (ROW_NEXT(&reader, QueryInput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->max_received_index = wire_varint(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            out->query_members = 1;
            if (!read_session_query_input(wire_message(&reader), out))
                return false;
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

/* The same for a query with a max_received_index. */
static inline bool read_plain_query(const uint8_t *at, const uint8_t *end, struct partition_query_input *out)
{
    uint64_t partition, max_received_index, session_id, service_id;
    struct operation_input operation;
    if ((at = wire_plain_varint(at, end, VARINT_TAG(1), &partition)) == NULL)
        return false;
    const uint8_t *query = wire_plain_last(at, end, BYTES_TAG(2));
    bool sync = query == NULL && end - at >= 2 && end[-2] == VARINT_TAG(3) && end[-1] == 1;
    if (sync)
        query = wire_plain_last(at, end -= 2, BYTES_TAG(2));
    if ((at = query) == NULL || (at = wire_plain_varint(at, end, VARINT_TAG(1), &max_received_index)) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(2))) == NULL ||
        (at = wire_plain_varint(at, end, VARINT_TAG(1), &session_id)) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(2))) == NULL ||
        (at = wire_plain_varint(at, end, VARINT_TAG(1), &service_id)) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(2))) == NULL || !read_plain_operation(at, end, &operation))
        return false;
    *out = (struct partition_query_input){.partition_id = (uint32_t)partition,
                                          .sync = sync,
                                          .has_query = true,
                                          .max_received_index = max_received_index,
                                          .query_members = 1,
                                          .session_query_members = 1,
                                          .session_id = session_id,
                                          .service_id = service_id,
                                          .operation = operation};
    return true;
}

static __attribute__((noinline)) enum read_result read_any_query(struct slice source, struct partition_query_input *out)
{
    struct field_reader reader = field_reader(source);
    *out = (struct partition_query_input){0};
    while (ROW_NEXT(&reader, PartitionQueryInput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->partition_id = (uint32_t)wire_varint(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            out->has_query = true;
            if (!read_query_input(wire_message(&reader), out))
                return READ_MALFORMED;
            break;
        case FIELD(3, WIRE_VARINT):
            out->sync = wire_varint(&reader) != 0;
            break;
        default:
            wire_skip(&reader);
        }
    }
    return read_result(!reader.malformed);
}

enum read_result read_partition_query_input(const uint8_t *data, size_t size, struct partition_query_input *out)
{
    if (ROWS_WHOLE && read_plain_query(data, data + size, out))
        return READ_OK;
    return read_any_query((struct slice){data, size}, out);
}
