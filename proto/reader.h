/* SPDX-License-Identifier: Apache-2.0 */
/* The in-place reader: protobuf's rules, over bytes that stay where they are. It allocates nothing, copies nothing, and
 * accepts any bytes: an answer of READ_MALFORMED is the worst that can come of them.
 *
 * The rules are those of protobuf's C++ and Python runtimes: fields in any order; unknown fields, unknown groups and
 * known fields with another wire type are skipped; of a repeated scalar the last counts; a sub-message in pieces, and a
 * `oneof` member met twice, are merged; strings must be valid UTF-8. Two different members of one `oneof` are reported
 * (COMMAND_AMBIGUOUS), not resolved: the node refuses them. Knows no state, no log, no ring. */
#ifndef PROTO_READER_H
#define PROTO_READER_H

#include "proto/messages.h"

#include <string.h>

enum read_result {
    READ_OK = 0,
    READ_MALFORMED /* protobuf itself would not take these bytes */
};

/* Requests, as the worker reads them. The struct is filled from nothing; on READ_MALFORMED its content is
 * unspecified. */
enum read_result read_partition_command_input(const uint8_t *data, size_t size, struct partition_command_input *out);
enum read_result read_partition_query_input(const uint8_t *data, size_t size, struct partition_query_input *out);

/* Walks KeepAliveInput.last_output_sequence_nums of an encoded PartitionCommandInput that has been read before, in the
 * order of the bytes: of a key met twice the later counts. `source` is command_input.source. */
typedef void read_last_output_fn(void *context, uint64_t sequence_num, uint64_t last_output);
void read_last_outputs(struct slice source, read_last_output_fn *fn, void *context);

/* Answers, as the client reads them. `part` holds the payload's single piece: out->operation.parts points at it. */
enum read_result read_partition_command_output(const uint8_t *data, size_t size, struct command_output *out,
                                               struct slice *part);
enum read_result read_partition_query_output(const uint8_t *data, size_t size, struct operation_output *out,
                                             struct slice *part);
/* Most of them at once: a service command's output with number 1, OK, with a payload and without a message, as our
 * writer puts it. False: something else, or in another form; the two are then not specified. */
bool read_first_output(const uint8_t *data, size_t size, uint64_t *index, struct slice *payload);

/* Field by field, for messages that a service reads itself (its operations' inputs, read in place as well):
 *
 *     struct field_reader reader = field_reader(bytes);
 *     while (field_next(&reader)) switch (reader.tag) { case FIELD(1, WIRE_BYTES): ... reader.bytes ... }
 *     if (reader.malformed) ...
 *
 * A field that no `case` names is thereby skipped, which is what protobuf asks for. Of a field met twice the last
 * counts (of a sub-message: both, merged); a string's bytes are for the caller to check with utf8_valid(). */
enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_GROUP = 3, WIRE_FIXED32 = 5 };
#define FIELD(number, wire) (((uint32_t)(number) << 3) | (uint32_t)(wire))

struct field_reader {
    const uint8_t *at, *end;
    uint32_t tag;       /* FIELD(number, wire type) of the field just met */
    uint64_t value;     /* WIRE_VARINT, WIRE_FIXED64, WIRE_FIXED32 */
    struct slice bytes; /* WIRE_BYTES */
    unsigned depth;     /* how deep the message stands in others; protobuf's limit is 100 */
    bool malformed;
};
struct field_reader field_reader(struct slice bytes);
/* A reader of a sub-message just met as WIRE_BYTES. */
struct field_reader field_reader_within(const struct field_reader *outer);
bool field_next(struct field_reader *reader);

/* Is it well-formed UTF-8 as protobuf checks it (no surrogates, no over-long forms)? */
bool utf8_valid(struct slice text);

/* Names and keys mostly are, and this is most of what checking one costs: eight bytes at a time, the last eight
 * overlapping those before. */
static inline bool utf8_is_ascii(struct slice text)
{
    const uint8_t *at = text.data;
    size_t size = text.size;
    if (size < sizeof(uint64_t)) {
        uint8_t all = 0;
        for (size_t i = 0; i < size; i++)
            all |= at[i];
        return all < 0x80;
    }
    uint64_t word, all = 0;
    for (size_t i = 0; i < size - sizeof word; i += sizeof word) {
        memcpy(&word, at + i, sizeof word);
        all |= word;
    }
    memcpy(&word, at + size - sizeof word, sizeof word);
    return ((all | word) & UINT64_C(0x8080808080808080)) == 0;
}

#endif
