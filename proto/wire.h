/* SPDX-License-Identifier: Apache-2.0 */
/* The reader's steps on the wire: tag, varint, bytes, skipping. Each is a few instructions for the common case
 * (one-byte tags, numbers and lengths), inlined into the reader of a message so that its position stays in registers,
 * and a call by value for everything else. Knows no message. For proto/ and for services that read their own inputs
 * in a hot loop; others take field_next() of proto/reader.h, which is built of these.
 *
 * A message is fields, one behind the other, up to its end. A field is a tag (varint: number << 3 | wire type), then
 *   0 VARINT   seven bits a byte, lowest first, the top bit saying that another byte follows; at most ten bytes
 *   1 FIXED64  8 bytes, little-endian
 *   2 BYTES    a length (varint), and as many bytes: bytes, a string or a sub-message
 *   3 GROUP    fields up to a tag of the same number and wire type 4; no message of ours has one
 *   5 FIXED32  4 bytes, little-endian
 * What protobuf refuses, and so do we: number 0, wire types 6 and 7, a tag or a length in more than five bytes, a
 * number in more than ten, anything that reaches past the end of its message, a group that is not closed or closed by
 * another number's end, and messages and groups nested more than 100 deep. What it takes, and so do we: padded
 * varints; bits of a tag beyond the 32nd, and of a number beyond the 64th, which are dropped. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include "proto/reader.h"

#define WIRE_DEPTH_MAX 100

/* Where reading goes on, or NULL if the bytes are malformed; and what was read. Comes back in two registers. */
struct wire_varint {
    const uint8_t *at;
    uint64_t value;
};

/* The same steps in full, for bytes of any form. Of a tag, the low 32 bits count. */
struct wire_varint wire_tag_long(const uint8_t *at, const uint8_t *end);
struct wire_varint wire_varint_long(const uint8_t *at, const uint8_t *end);
struct wire_varint wire_length_long(const uint8_t *at, const uint8_t *end);
/* Behind the field whose tag has just been read, at `depth`; NULL if it is malformed. */
const uint8_t *wire_skip_field(const uint8_t *at, const uint8_t *end, uint32_t tag, unsigned depth);

static inline void wire_fail(struct field_reader *reader)
{
    reader->malformed = true;
    reader->at = reader->end;
}

/* Reads the next field's tag. False at the end of the message, and if it is malformed. The caller reads the value by
 * one of the functions below, according to the tag's wire type, or skips it. */
static inline bool wire_next(struct field_reader *reader)
{
    if (reader->at == reader->end)
        return false;
    if (__builtin_expect(*reader->at < 0x80, 1)) {
        reader->tag = *reader->at++;
        return true;
    }
    struct wire_varint tag = wire_tag_long(reader->at, reader->end);
    if (tag.at == NULL) {
        wire_fail(reader);
        return false;
    }
    reader->at = tag.at;
    reader->tag = (uint32_t)tag.value;
    return true;
}

/* For a field that is not known, or known with another wire type. This is also where a tag that protobuf does not take
 * is found out: no reader names one. */
static inline void wire_skip(struct field_reader *reader)
{
    const uint8_t *behind = wire_skip_field(reader->at, reader->end, reader->tag, reader->depth);
    if (behind == NULL)
        wire_fail(reader);
    else
        reader->at = behind;
}

/* WIRE_VARINT. */
static inline uint64_t wire_varint(struct field_reader *reader)
{
    if (__builtin_expect(reader->at != reader->end && *reader->at < 0x80, 1))
        return *reader->at++;
    struct wire_varint number = wire_varint_long(reader->at, reader->end);
    if (number.at == NULL) {
        wire_fail(reader);
        return 0;
    }
    reader->at = number.at;
    return number.value;
}

/* A length: one byte, or two, as nearly all are. */
static inline struct wire_varint wire_length(const uint8_t *at, const uint8_t *end)
{
    if (__builtin_expect(at != end && at[0] < 0x80, 1))
        return (struct wire_varint){.at = at + 1, .value = at[0]};
    if (__builtin_expect(end - at >= 2 && at[1] < 0x80, 1))
        return (struct wire_varint){.at = at + 2, .value = (at[0] & 0x7fU) | (uint64_t)at[1] << 7};
    return wire_length_long(at, end);
}

/* WIRE_BYTES. */
static inline struct slice wire_bytes(struct field_reader *reader)
{
    struct wire_varint length = wire_length(reader->at, reader->end);
    if (length.at == NULL || length.value > (size_t)(reader->end - length.at)) {
        wire_fail(reader);
        return (struct slice){0};
    }
    reader->at = length.at + length.value;
    return (struct slice){.data = length.at, .size = length.value};
}

/* WIRE_BYTES holding a string. */
static inline struct slice wire_string(struct field_reader *reader)
{
    struct slice text = wire_bytes(reader);
    if (__builtin_expect(!utf8_valid(text), 0))
        wire_fail(reader);
    return text;
}

/* A reader of the bytes just read as a sub-message of what `outer` reads. */
static inline struct field_reader wire_within(const struct field_reader *outer, struct slice bytes)
{
    struct field_reader inner = {
        .at = bytes.data, .end = bytes.data + bytes.size, .depth = outer->depth + 1, .malformed = false};
    if (inner.depth > WIRE_DEPTH_MAX)
        wire_fail(&inner);
    return inner;
}

/* WIRE_BYTES holding a sub-message: a reader of it. If it cannot be had, `reader` is malformed and the result empty. */
static inline struct field_reader wire_message(struct field_reader *reader)
{
    struct slice bytes = wire_bytes(reader);
    return wire_within(reader, bytes);
}

/* Steps through bytes that have just the form in which our own writer puts a message: fields in order, and each message
 * ending together with the one it is in. Each gives where reading goes on, or NULL: the bytes have another form, which
 * says nothing about their being well-formed. They may be read up to `end`. */

/* Into the field of this tag if it reaches just to the end: its first byte. */
static inline const uint8_t *wire_plain_last(const uint8_t *at, const uint8_t *end, uint8_t tag)
{
    size_t size = (size_t)(end - at) - 2; /* as one byte can tell it */
    if (__builtin_expect(size < 0x80, 1))
        return at[0] == tag && at[1] == size ? at + 2 : NULL;
    if (end - at < 2 || at[0] != tag)
        return NULL;
    struct wire_varint length = wire_length(at + 1, end);
    return length.at != NULL && length.value == (uint64_t)(end - length.at) ? length.at : NULL;
}

/* Behind the number of this tag: indexes and sequence numbers mostly, which are of two to four bytes for long. */
static inline const uint8_t *wire_plain_varint(const uint8_t *at, const uint8_t *end, uint8_t tag, uint64_t *value)
{
    if (end - at < 2 || at[0] != tag)
        return NULL;
    uint64_t number = at[1];
    *value = number;
    if (number < 0x80)
        return at + 2;
    if (end - at >= 4) {
        /* What a byte adds, less the top bit of the one before. */
        *value = number += ((uint64_t)at[2] - 1) << 7;
        if (at[2] < 0x80)
            return at + 3;
        *value = number += ((uint64_t)at[3] - 1) << 14;
        if (at[3] < 0x80)
            return at + 4;
        if (end - at >= 5 && at[4] < 0x80) {
            *value = number + (((uint64_t)at[4] - 1) << 21);
            return at + 5;
        }
    }
    struct wire_varint whole = wire_varint_long(at + 1, end);
    *value = whole.value;
    return whole.at;
}

#endif
