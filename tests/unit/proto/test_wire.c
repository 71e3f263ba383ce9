/* SPDX-License-Identifier: Apache-2.0 */
/* The field reader, and so the steps on the wire below it: varints, lengths, fixed numbers, skipping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/wire.h"
#include "proto/writer.h"
#include "tests/unit/proto/bytes.h"

/* Reads all fields; returns how many, or -1 if the bytes are malformed. */
static int fields(struct slice bytes)
{
    struct field_reader reader = field_reader(bytes);
    int count = 0;
    while (field_next(&reader))
        count++;
    assert_ptr_equal(reader.at, reader.end);
    assert_false(field_next(&reader)); /* the end stays the end */
    return reader.malformed ? -1 : count;
}

#define assert_malformed(literal) assert_int_equal(fields(BYTES(literal)), -1)
#define assert_well_formed(literal, count) assert_int_equal(fields(BYTES(literal)), count)

static void reads_each_wire_type(void **state)
{
    (void)state;
    struct field_reader reader = field_reader(BYTES("\x08\x96\x01"
                                                    "\x11\x01\x02\x03\x04\x05\x06\x07\x88"
                                                    "\x1a\x03"
                                                    "abc"
                                                    "\x23\x08\x01\x24"
                                                    "\x2d\x01\x02\x03\x84"
                                                    "\x80\x7d\x05"));
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(1, WIRE_VARINT));
    assert_int_equal(reader.value, 150);
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(2, WIRE_FIXED64));
    assert_true(reader.value == UINT64_C(0x8807060504030201));
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(3, WIRE_BYTES));
    assert_bytes(reader.bytes, "abc");
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(4, WIRE_GROUP)); /* skipped whole */
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(5, WIRE_FIXED32));
    assert_true(reader.value == UINT64_C(0x84030201));
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(2000, WIRE_VARINT));
    assert_int_equal(reader.value, 5);
    assert_false(field_next(&reader));
    assert_false(reader.malformed);
}

static void reads_every_length_of_number(void **state)
{
    (void)state;
    /* With room for eight bytes behind the tag and without; in the shortest form and padded to ten bytes. */
    for (unsigned bits = 0; bits <= 64; bits++) {
        uint64_t value = bits == 0 ? 0 : UINT64_MAX >> (64 - bits);
        for (size_t room = 0; room <= 10; room++) {
            uint8_t data[32] = {0x08};
            uint8_t *end = write_varint(data + 1, value);
            assert_int_equal(end - data - 1, bits <= 7 ? 1 : (bits + 6) / 7);
            memset(end, 0x10, room); /* tags and values of field 2, alternating */
            struct field_reader reader = field_reader((struct slice){data, (size_t)(end - data) + room});
            assert_true(field_next(&reader));
            assert_true(reader.value == value);
            assert_ptr_equal(reader.at, end);
        }
        uint8_t padded[11] = {0x08};
        uint8_t *end = write_varint(padded + 1, value);
        if (end < padded + sizeof padded) {
            end[-1] |= 0x80;
            memset(end, 0x80, (size_t)(padded + sizeof padded - end));
            padded[10] = 0;
        }
        struct field_reader reader = field_reader((struct slice){padded, sizeof padded});
        assert_true(field_next(&reader));
        assert_true(reader.value == value);
    }
}

static void drops_bits_that_have_no_place(void **state)
{
    (void)state;
    struct field_reader reader = field_reader(BYTES("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"));
    assert_true(field_next(&reader));
    assert_true(reader.value == UINT64_MAX);
    reader = field_reader(BYTES("\x88\x80\x80\x80\x70\x05")); /* tag 8, and bits 32 to 34 */
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(1, WIRE_VARINT));
    assert_int_equal(reader.value, 5);
}

static void refuses_what_is_too_long(void **state)
{
    (void)state;
    assert_well_formed("\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 1);
    assert_malformed("\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00");
    assert_well_formed("\x88\x80\x80\x80\x00\x05", 1);
    assert_malformed("\x88\x80\x80\x80\x80\x00\x05");
    assert_well_formed("\x0a\x81\x80\x80\x80\x00x", 1);
    assert_malformed("\x0a\x81\x80\x80\x80\x80\x00x");
    assert_malformed("\x0a\x80\x80\x80\x80\x08"); /* 2 GiB */
    assert_malformed("\x0a\x80\x80\x80\x80\x10"); /* 4 GiB, which a uint32 would take for 0 */
}

static void refuses_bad_tags(void **state)
{
    (void)state;
    assert_malformed("\x00");
    assert_malformed("\x00\x01");
    assert_malformed("\x02\x00");
    assert_malformed("\x80\x00\x01");
    assert_malformed("\x80\x80\x80\x80\x10\x01"); /* all its bits are dropped: number 0 */
    assert_malformed("\x0e\x00");
    assert_malformed("\x0f\x00");
    assert_malformed("\x0c"); /* the end of no group */
}

static void refuses_what_reaches_past_the_end(void **state)
{
    (void)state;
    assert_malformed("\x08");
    assert_malformed("\x88");
    assert_malformed("\x08\x80");
    assert_malformed("\x09\x01\x02\x03\x04\x05\x06\x07");
    assert_malformed("\x0d\x01\x02\x03");
    assert_malformed("\x0a");
    assert_malformed("\x0a\x80");
    assert_malformed("\x0a\x03"
                     "ab");
    assert_malformed("\x0a\xff\xff\xff\xff\x07"
                     "ab");
    assert_well_formed("", 0);
    assert_int_equal(fields((struct slice){NULL, 0}), 0);
}

static void skips_groups(void **state)
{
    (void)state;
    assert_well_formed("\x0b\x0c\x08\x01", 2);
    assert_well_formed("\x0b\x13\x08\x80\x01\x1a\x02"
                       "ab\x14\x29\x01\x02\x03\x04\x05\x06\x07\x08\x35\x01\x02\x03\x04\x0c\x08\x01",
                       2);
    assert_malformed("\x0b");
    assert_malformed("\x0b\x08\x01");
    assert_malformed("\x0b\x14");         /* another number's end */
    assert_malformed("\x0b\x13\x0c\x14"); /* crossed */
    assert_malformed("\x0b\x00\x0c");     /* number 0 inside */
    assert_malformed("\x0b\x0e\x0c");     /* wire type 6 inside */
    assert_malformed("\x0b\x1a\x05"
                     "ab\x0c"); /* a length that reaches past the end of all */
    assert_malformed("\x0b\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00\x0c");
}

/* `groups` of them, one in the other. */
static int nested(unsigned depth, size_t groups)
{
    uint8_t data[2 * WIRE_DEPTH_MAX + 8];
    memset(data, 0x0b, groups);
    memset(data + groups, 0x0c, groups);
    struct field_reader reader = field_reader((struct slice){data, 2 * groups});
    reader.depth = depth;
    return field_next(&reader) && !reader.malformed;
}

static void limits_depth(void **state)
{
    (void)state;
    assert_true(nested(0, 100));
    assert_false(nested(0, 101));
    assert_true(nested(4, 96));
    assert_false(nested(4, 97));
    assert_false(nested(100, 1));
    assert_true(nested(99, 1));
}

static void reads_within(void **state)
{
    (void)state;
    struct field_reader outer = field_reader(BYTES("\x0a\x02\x08\x05\x10\x07"));
    assert_true(field_next(&outer));
    struct field_reader inner = field_reader_within(&outer);
    assert_int_equal(inner.depth, 1);
    assert_true(field_next(&inner));
    assert_int_equal(inner.value, 5);
    assert_false(field_next(&inner)); /* its own end, not the outer one's */
    assert_false(inner.malformed);
    assert_true(field_next(&outer));
    assert_int_equal(outer.value, 7);

    outer.depth = WIRE_DEPTH_MAX;
    outer.bytes = BYTES("\x08\x05");
    inner = field_reader_within(&outer);
    assert_true(inner.malformed);
    assert_false(field_next(&inner));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_each_wire_type),
        cmocka_unit_test(reads_every_length_of_number),
        cmocka_unit_test(drops_bits_that_have_no_place),
        cmocka_unit_test(refuses_what_is_too_long),
        cmocka_unit_test(refuses_bad_tags),
        cmocka_unit_test(refuses_what_reaches_past_the_end),
        cmocka_unit_test(skips_groups),
        cmocka_unit_test(limits_depth),
        cmocka_unit_test(reads_within),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
