/* SPDX-License-Identifier: Apache-2.0 */
/* The steps on the wire for bytes of any form, and the field reader that is built of them. The format stands in
 * proto/wire.h. Knows no message. */
#include "proto/wire.h"

#include <string.h>

#define WIRE_END_GROUP 4
#define TAG_BYTES_MAX 5
#define LENGTH_BYTES_MAX 5
#define VARINT_BYTES_MAX 10
#define LENGTH_MAX ((UINT64_C(1) << 31) - 17) /* protobuf's: 2 GiB less what it reads ahead */

static const struct wire_varint malformed = {.at = NULL, .value = 0};

/* A varint of at most `bytes_max` bytes. */
static inline struct wire_varint varint_within(const uint8_t *at, const uint8_t *end, size_t bytes_max)
{
    size_t left = (size_t)(end - at);
    size_t count = left < bytes_max ? left : bytes_max;
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        value |= (uint64_t)(at[i] & 0x7f) << (7 * i);
        if (at[i] < 0x80)
            return (struct wire_varint){.at = at + i + 1, .value = value};
    }
    return malformed;
}

struct wire_varint wire_tag_long(const uint8_t *at, const uint8_t *end)
{
    return varint_within(at, end, TAG_BYTES_MAX);
}

/* The eight bytes at `at` hold the whole of most numbers that are longer than one byte, and taken at once they cost the
 * same whatever their count. Malformed here only means that the number goes on behind them. */
static inline struct wire_varint varint_of_word(const uint8_t *at)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte is the lowest of the word");
    uint64_t word;
    memcpy(&word, at, sizeof word);
    uint64_t ends = ~word & UINT64_C(0x8080808080808080); /* the top bit of each byte that ends a number */
    if (ends == 0)
        return malformed;
    size_t size = (size_t)__builtin_ctzll(ends) / 8 + 1;
    word &= ends ^ (ends - 1); /* only the bytes up to the first of them */
    /* Eight groups of 7 bits in 8, four of 14 in 16, two of 28 in 32, one of 56. */
    word &= UINT64_C(0x7f7f7f7f7f7f7f7f);
    word = (word & UINT64_C(0x007f007f007f007f)) | (word & UINT64_C(0x7f007f007f007f00)) >> 1;
    word = (word & UINT64_C(0x00003fff00003fff)) | (word & UINT64_C(0x3fff00003fff0000)) >> 2;
    word = (word & UINT64_C(0x000000000fffffff)) | (word & UINT64_C(0x0fffffff00000000)) >> 4;
    return (struct wire_varint){.at = at + size, .value = word};
}

struct wire_varint wire_varint_long(const uint8_t *at, const uint8_t *end)
{
    if ((size_t)(end - at) >= sizeof(uint64_t)) {
        struct wire_varint number = varint_of_word(at);
        if (number.at != NULL)
            return number;
    }
    return varint_within(at, end, VARINT_BYTES_MAX);
}

struct wire_varint wire_length_long(const uint8_t *at, const uint8_t *end)
{
    struct wire_varint length = varint_within(at, end, LENGTH_BYTES_MAX);
    return length.value > LENGTH_MAX ? malformed : length;
}

static inline const uint8_t *skip_fixed(const uint8_t *at, const uint8_t *end, size_t size)
{
    return (size_t)(end - at) < size ? NULL : at + size;
}

static inline const uint8_t *skip_bytes(const uint8_t *at, const uint8_t *end)
{
    struct wire_varint length = wire_length_long(at, end);
    return length.at == NULL ? NULL : skip_fixed(length.at, end, length.value);
}

const uint8_t *wire_skip_field(const uint8_t *at, const uint8_t *end, uint32_t tag, unsigned depth)
{
    uint32_t open[WIRE_DEPTH_MAX]; /* the groups we are in, by number, outermost first */
    unsigned groups = 0;
    for (;;) {
        uint32_t number = tag >> 3;
        if (number == 0)
            return NULL;
        switch (tag & 7) {
        case WIRE_VARINT:
            at = wire_varint_long(at, end).at;
            break;
        case WIRE_FIXED64:
            at = skip_fixed(at, end, 8);
            break;
        case WIRE_BYTES:
            at = skip_bytes(at, end);
            break;
        case WIRE_FIXED32:
            at = skip_fixed(at, end, 4);
            break;
        case WIRE_GROUP:
            if (depth + groups >= WIRE_DEPTH_MAX)
                return NULL;
            open[groups++] = number;
            break;
        case WIRE_END_GROUP:
            if (groups == 0 || open[--groups] != number)
                return NULL;
            break;
        default:
            return NULL;
        }
        if (at == NULL || groups == 0)
            return at;
        struct wire_varint next = wire_tag_long(at, end);
        if (next.at == NULL)
            return NULL;
        at = next.at;
        tag = (uint32_t)next.value;
    }
}

/* --- The field reader ------------------------------------------------------------------------------------------- */

struct field_reader field_reader(struct slice bytes)
{
    return (struct field_reader){.at = bytes.data, .end = bytes.data + bytes.size};
}

struct field_reader field_reader_within(const struct field_reader *outer)
{
    return wire_within(outer, outer->bytes);
}

static uint64_t fixed(struct field_reader *reader, size_t size)
{
    if ((size_t)(reader->end - reader->at) < size) {
        wire_fail(reader);
        return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)reader->at[i] << (8 * i);
    reader->at += size;
    return value;
}

bool field_next(struct field_reader *reader)
{
    if (!wire_next(reader))
        return false;
    unsigned wire = reader->tag & 7;
    if (reader->tag < FIELD(1, 0))
        wire_fail(reader);
    else if (wire == WIRE_VARINT)
        reader->value = wire_varint(reader);
    else if (wire == WIRE_BYTES)
        reader->bytes = wire_bytes(reader);
    else if (wire == WIRE_FIXED64)
        reader->value = fixed(reader, 8);
    else if (wire == WIRE_FIXED32)
        reader->value = fixed(reader, 4);
    else
        wire_skip(reader);
    return !reader->malformed;
}
