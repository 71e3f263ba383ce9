/* SPDX-License-Identifier: Apache-2.0 */
/* Reading back what we wrote ourselves: a protobuf message in its canonical form, and in no other. Fields stand in
 * order of their numbers (up to 15: one byte of tag), each once; a number that is 0 and bytes that are empty are not
 * there at all; varints are the shortest. So a message has one encoding, and bytes that are accepted here are those
 * that the writer would write again. Lengths have 64 bits: a section of a snapshot may be larger than what protobuf
 * calls a message.
 *
 *     struct canonical_reader reader = canonical_reader(bytes);
 *     id = canonical_number(&reader, 1);
 *     name = canonical_bytes(&reader, 2);
 *     while (canonical_message(&reader, 3, &part)) ...
 *     if (!canonical_end(&reader)) it is not a message of this form
 *
 * Whoever reads names the fields in order; anything that is left at the end (unknown, repeated, out of order) is wrong.
 * Inlined, because a snapshot of a large state is read by nothing else. */
#ifndef ENGINE_FSM_CANONICAL_H
#define ENGINE_FSM_CANONICAL_H

#include "proto/reader.h"
#include "proto/rows.h"

struct canonical_reader {
    const uint8_t *at, *end;
    bool wrong; /* and then at == end */
};

static inline struct canonical_reader canonical_reader(struct slice bytes)
{
    return (struct canonical_reader){.at = bytes.data, .end = bytes.data + bytes.size};
}

static inline bool canonical_end(const struct canonical_reader *reader)
{
    return !reader->wrong && reader->at == reader->end;
}

static inline void canonical_fail(struct canonical_reader *reader)
{
    reader->wrong = true;
    reader->at = reader->end;
}

/* A varint where the reader stands, not a field. */
static inline uint64_t canonical_varint(struct canonical_reader *reader)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && reader->at != reader->end; shift += 7) {
        uint8_t byte = *reader->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte >= 0x80)
            continue;
        if ((byte == 0 && shift > 0) || (shift == 63 && byte > 1)) /* could be shorter; has more than 64 bits */
            break;
        return value;
    }
    canonical_fail(reader);
    return 0;
}

/* Is the next field this one? Then the reader stands behind its tag. */
static inline bool canonical_next(struct canonical_reader *reader, unsigned field, enum wire_type wire)
{
    if (reader->at == reader->end || *reader->at != FIELD(ROW_NUMBER(field), wire))
        return false;
    reader->at++;
    return true;
}

/* A number; 0 if the field is not there. */
static inline uint64_t canonical_number(struct canonical_reader *reader, unsigned field)
{
    if (!canonical_next(reader, field, WIRE_VARINT))
        return 0;
    uint64_t value = canonical_varint(reader);
    if (value == 0)
        canonical_fail(reader);
    return value;
}

/* A message, which may be empty; false: the field is not there. */
static inline bool canonical_message(struct canonical_reader *reader, unsigned field, struct slice *bytes)
{
    if (!canonical_next(reader, field, WIRE_BYTES))
        return false;
    uint64_t size = canonical_varint(reader);
    if (size > (size_t)(reader->end - reader->at))
        canonical_fail(reader);
    if (reader->wrong)
        return false;
    *bytes = (struct slice){reader->at, size};
    reader->at += size;
    return true;
}

/* A string or bytes; empty if the field is not there. */
static inline struct slice canonical_bytes(struct canonical_reader *reader, unsigned field)
{
    struct slice bytes = {NULL, 0};
    if (canonical_message(reader, field, &bytes) && bytes.size == 0)
        canonical_fail(reader);
    return bytes;
}

/* A Timestamp or Duration, in nanoseconds. False: the field is not there, or is no such thing. */
bool canonical_time(struct canonical_reader *reader, unsigned field, uint64_t *nanoseconds);

#endif
