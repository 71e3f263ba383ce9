/* SPDX-License-Identifier: Apache-2.0 */
/* The answers, as the client reads them: one function a message, in the manner of proto/reader_parts.h. Knows only what
 * the bytes say, not which request they answer. */
#include "proto/reader_parts.h"

/* SessionCommandOutput has nothing before its `oneof`, so its members are numbered one lower than the input's. */
#define ANSWER_CREATE_SERVICE (SESSION_COMMAND_CREATE_SERVICE - 1)
#define ANSWER_CLOSE_SERVICE (SESSION_COMMAND_CLOSE_SERVICE - 1)
#define ANSWER_SERVICE_COMMAND (SESSION_COMMAND_SERVICE_COMMAND - 1)

/* `part` becomes the payload. */
static bool read_operation_output(struct field_reader reader, struct operation_output *out, struct slice *part)
{
    while (ROW_NEXT(&reader, OperationOutput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->status = (enum status)ROW_VALUE(Status, wire_varint(&reader));
            break;
        case FIELD(2, WIRE_BYTES):
            *part = wire_bytes(&reader);
            out->payload_size = part->size;
            break;
        case FIELD(3, WIRE_BYTES):
            out->message = wire_string(&reader);
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

/* --- PartitionCommandOutput ------------------------------------------------------------------------------------- */

static bool read_service_command_output(struct field_reader reader, struct command_output *out, struct slice *part)
{
    while (ROW_NEXT(&reader, ServiceCommandOutput)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->sequence_num = wire_varint(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            if (!read_operation_output(wire_message(&reader), &out->operation, part))
                return false;
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

static bool read_session_command_output(struct field_reader reader, struct command_output *out, struct slice *part)
{
    bool well_formed = true;
    while (well_formed && ROW_NEXT(&reader, SessionCommandOutput)) {
        unsigned member = (reader.tag >> 3) + 1;
        switch (reader.tag) {
        case FIELD(ANSWER_CREATE_SERVICE, WIRE_BYTES):
            well_formed = read_id(wire_message(&reader), ROW(CreateServiceOutput, service_id), &out->id);
            break;
        case FIELD(ANSWER_CLOSE_SERVICE, WIRE_BYTES):
            well_formed = read_empty(wire_message(&reader));
            break;
        case FIELD(ANSWER_SERVICE_COMMAND, WIRE_BYTES):
            well_formed = read_service_command_output(wire_message(&reader), out, part);
            break;
        default:
            wire_skip(&reader);
            continue;
        }
        out->session_kind = (enum session_command_kind)oneof_member(out->session_kind, member);
    }
    return well_formed && !reader.malformed;
}

static bool read_command_output(struct field_reader reader, struct command_output *out, struct slice *part)
{
    bool well_formed = true;
    while (well_formed && ROW_NEXT(&reader, CommandOutput)) {
        unsigned member = reader.tag >> 3;
        switch (reader.tag) {
        case FIELD(1, WIRE_VARINT):
            out->index = wire_varint(&reader);
            continue;
        case FIELD(COMMAND_OPEN_SESSION, WIRE_BYTES):
            well_formed = read_id(wire_message(&reader), ROW(OpenSessionOutput, session_id), &out->id);
            break;
        case FIELD(COMMAND_KEEP_ALIVE, WIRE_BYTES):
        case FIELD(COMMAND_CLOSE_SESSION, WIRE_BYTES):
            well_formed = read_empty(wire_message(&reader));
            break;
        case FIELD(COMMAND_SESSION_COMMAND, WIRE_BYTES):
            well_formed = read_session_command_output(wire_message(&reader), out, part);
            break;
        default:
            wire_skip(&reader);
            continue;
        }
        out->kind = (enum command_kind)oneof_member(out->kind, member);
    }
    return well_formed && !reader.malformed;
}

/* An OK operation's output, with a payload or without. */
static inline bool read_plain_output(const uint8_t *at, const uint8_t *end, struct operation_output *out,
                                     struct slice *part)
{
    uint64_t status;
    if ((at = wire_plain_varint(at, end, VARINT_TAG(1), &status)) == NULL || status != STATUS_OK)
        return false;
    *part = (struct slice){0};
    if (at != end) {
        const uint8_t *payload = wire_plain_last(at, end, BYTES_TAG(2));
        if (payload == NULL)
            return false;
        *part = (struct slice){payload, (size_t)(end - payload)};
    }
    *out = (struct operation_output){.status = STATUS_OK, .parts = part, .part_count = 1, .payload_size = part->size};
    return true;
}

/* A service command's output in the form in which our writer puts it. False: in another one, or something else; what
 * has been filled in by then is to be cleared. */
static inline bool read_plain_command_output(const uint8_t *at, const uint8_t *end, struct command_output *out,
                                             struct slice *part)
{
    if ((at = wire_plain_last(at, end, BYTES_TAG(1))) == NULL ||
        (at = wire_plain_varint(at, end, VARINT_TAG(1), &out->index)) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(COMMAND_SESSION_COMMAND))) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(ANSWER_SERVICE_COMMAND))) == NULL ||
        (at = wire_plain_varint(at, end, VARINT_TAG(1), &out->sequence_num)) == NULL ||
        (at = wire_plain_last(at, end, BYTES_TAG(2))) == NULL || !read_plain_output(at, end, &out->operation, part))
        return false;
    out->kind = COMMAND_SESSION_COMMAND;
    out->session_kind = SESSION_COMMAND_SERVICE_COMMAND;
    out->id = 0;
    return true;
}

/* A word as its bytes stand in memory, the first one lowest. */
static inline uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t word_of(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint8_t e, uint8_t f, uint8_t g, uint8_t h)
{
    return a | (uint64_t)b << 8 | (uint64_t)c << 16 | (uint64_t)d << 24 | (uint64_t)e << 32 | (uint64_t)f << 40 |
           (uint64_t)g << 48 | (uint64_t)h << 56;
}

/* The two bytes of a length. */
#define LOW_BYTE(length) ((uint8_t)((length) | 0x80))
#define HIGH_BYTE(length) ((uint8_t)((length) >> 7))

/* What stands between the index and the payload of most answers is a few constants and four lengths of messages that
 * reach to the same end: all known from how many bytes there are, if either each length has one byte or each has two.
 */
bool read_first_output(const uint8_t *data, size_t size, uint64_t *index, struct slice *payload)
{
    enum { SHORT = 12, LONG = 16 }; /* bytes of either form */
    const uint8_t *at = wire_plain_last(data, data + size, BYTES_TAG(1)), *end = data + size;

    if (!ROWS_WHOLE || at == NULL || (at = wire_plain_varint(at, end, VARINT_TAG(1), index)) == NULL)
        return false;
    size_t left = (size_t)(end - at), known = left < 0x80 ? SHORT : LONG;
    if (left < SHORT)
        return false;
    if (known == SHORT) {
        if (word_at(at) != word_of(BYTES_TAG(COMMAND_SESSION_COMMAND), (uint8_t)(left - 2),
                                   BYTES_TAG(ANSWER_SERVICE_COMMAND), (uint8_t)(left - 4), VARINT_TAG(1), 1,
                                   BYTES_TAG(2), (uint8_t)(left - 8)) ||
            word_at(at + 4) >> 32 !=
                word_of(VARINT_TAG(1), STATUS_OK, BYTES_TAG(2), (uint8_t)(left - SHORT), 0, 0, 0, 0))
            return false;
    } else if (left < 0x80 + LONG || left > 0x3fff ||
               word_at(at) != word_of(BYTES_TAG(COMMAND_SESSION_COMMAND), LOW_BYTE(left - 3), HIGH_BYTE(left - 3),
                                      BYTES_TAG(ANSWER_SERVICE_COMMAND), LOW_BYTE(left - 6), HIGH_BYTE(left - 6),
                                      VARINT_TAG(1), 1) ||
               word_at(at + 8) != word_of(BYTES_TAG(2), LOW_BYTE(left - 11), HIGH_BYTE(left - 11), VARINT_TAG(1),
                                          STATUS_OK, BYTES_TAG(2), LOW_BYTE(left - LONG), HIGH_BYTE(left - LONG))) {
        return false;
    }
    *payload = (struct slice){at + known, left - known};
    return true;
}

static inline void clear_output(struct command_output *out, struct slice *part)
{
    *part = (struct slice){0};
    clear(out, sizeof *out);
    out->operation.parts = part;
    out->operation.part_count = 1;
}

enum read_result read_partition_command_output(const uint8_t *data, size_t size, struct command_output *out,
                                               struct slice *part)
{
    if (ROWS_WHOLE && read_plain_command_output(data, data + size, out, part))
        return READ_OK;
    clear_output(out, part);
    struct field_reader reader = field_reader((struct slice){data, size});
    while (ROW_NEXT(&reader, PartitionCommandOutput)) {
        if (reader.tag != FIELD(1, WIRE_BYTES))
            wire_skip(&reader);
        else if (!read_command_output(wire_message(&reader), out, part))
            return READ_MALFORMED;
    }
    return read_result(!reader.malformed);
}

/* --- PartitionQueryOutput --------------------------------------------------------------------------------------- */

/* Four messages that hold nothing but the next one, and the operation's output in the last: `rows` are the fields that
 * are still around it, up to a 0. */
static bool read_wrapped_output(struct field_reader reader, const unsigned *rows, struct operation_output *out,
                                struct slice *part)
{
    if (*rows == 0)
        return read_operation_output(reader, out, part);
    while (wire_next(&reader)) {
        if (reader.tag != FIELD(ROW_NUMBER(*rows), WIRE_BYTES) || ROW_DROPPED(*rows))
            wire_skip(&reader);
        else if (!read_wrapped_output(wire_message(&reader), rows + 1, out, part))
            return false;
    }
    return !reader.malformed;
}

enum read_result read_partition_query_output(const uint8_t *data, size_t size, struct operation_output *out,
                                             struct slice *part)
{
    static const unsigned rows[] = {ROW(PartitionQueryOutput, query), ROW(QueryOutput, session_query),
                                    ROW(SessionQueryOutput, service_query), ROW(ServiceQueryOutput, operation), 0};
    const uint8_t *at = data, *end = data + size;
    for (unsigned n = 0; ROWS_WHOLE && at != NULL && rows[n] != 0; n++)
        at = wire_plain_last(at, end, BYTES_TAG(ROW_NUMBER(rows[n])));
    if (ROWS_WHOLE && at != NULL && read_plain_output(at, end, out, part))
        return READ_OK;
    *part = (struct slice){0};
    *out = (struct operation_output){.parts = part, .part_count = 1};
    struct field_reader reader = field_reader((struct slice){data, size});
    return read_result(read_wrapped_output(reader, rows, out, part));
}
