/* SPDX-License-Identifier: Apache-2.0 */
/* utf8_valid() against every character there is, and against a second way of telling: decoding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/reader.h"
#include "tests/unit/proto/bytes.h"

/* Encodes by the number's size alone, so also what must not be. */
static size_t encode(uint8_t to[4], uint32_t character)
{
    if (character < 0x80) {
        to[0] = (uint8_t)character;
        return 1;
    }
    size_t length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        to[i] = (uint8_t)(0x80 | (character & 0x3f));
        character >>= 6;
    }
    to[0] = (uint8_t)((0xf0U << (4 - length)) | character);
    return length;
}

/* Takes characters apart and looks whether each is allowed and encodes to the bytes it came from. */
static bool valid_by_decoding(const uint8_t *at, size_t left)
{
    while (left > 0) {
        uint32_t character = at[0];
        size_t length = at[0] < 0x80   ? 1
                        : at[0] < 0xc0 ? 0
                        : at[0] < 0xe0 ? 2
                        : at[0] < 0xf0 ? 3
                        : at[0] < 0xf8 ? 4
                                       : 0;
        if (length == 0 || length > left)
            return false;
        if (length > 1)
            character &= 0x7fU >> length;
        for (size_t i = 1; i < length; i++)
            character = character << 6 | (at[i] & 0x3f);
        uint8_t again[4] = {0};
        if (character > 0x10ffff || (character >= 0xd800 && character <= 0xdfff))
            return false;
        if (encode(again, character) != length || memcmp(again, at, length) != 0)
            return false;
        at += length;
        left -= length;
    }
    return true;
}

static void takes_every_character(void **state)
{
    (void)state;
    for (uint32_t character = 0; character <= 0x1fffff; character++) {
        uint8_t text[4];
        size_t size = encode(text, character);
        bool surrogate = character >= 0xd800 && character <= 0xdfff;
        if (utf8_valid((struct slice){text, size}) != (character <= 0x10ffff && !surrogate))
            fail_msg("U+%04X", character);
    }
}

static void agrees_with_decoding(void **state)
{
    (void)state;
    /* Both ends of every range of bytes, and their neighbours. */
    static const uint8_t bytes[] = {0x00, 'a',  0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                    0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    const size_t count = sizeof bytes;
    unsigned valid = 0;
    for (size_t i = 0; i < count * count * count * count; i++) {
        uint8_t text[4] = {bytes[i % count], bytes[i / count % count], bytes[i / count / count % count],
                           bytes[i / count / count / count]};
        for (size_t size = 0; size <= sizeof text; size++) {
            bool expected = valid_by_decoding(text, size);
            valid += expected;
            if (utf8_valid((struct slice){text, size}) != expected)
                fail_msg("%02x %02x %02x %02x, of which %zu", text[0], text[1], text[2], text[3], size);
        }
    }
    assert_true(valid > 1000);
}

static void finds_a_bad_byte_at_any_place_of_any_length(void **state)
{
    (void)state;
    uint8_t text[40];
    for (size_t size = 0; size <= sizeof text; size++) {
        memset(text, 'x', sizeof text);
        assert_true(utf8_valid((struct slice){text, size}));
        for (size_t at = 0; at < size; at++) {
            text[at] = 0xff;
            assert_false(utf8_valid((struct slice){text, size}));
            text[at] = 'x';
        }
        for (size_t at = 0; at + 2 <= size; at++) {
            memcpy(text + at, "\xc3\xa9", 2);
            assert_true(utf8_valid((struct slice){text, size}));
            assert_false(utf8_valid((struct slice){text, at + 1})); /* cut in the middle */
            memcpy(text + at, "xx", 2);
        }
    }
}

static void takes_nothing_and_nul(void **state)
{
    (void)state;
    assert_true(utf8_valid((struct slice){NULL, 0}));
    assert_true(utf8_valid(BYTES("a\0b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_every_character),
        cmocka_unit_test(agrees_with_decoding),
        cmocka_unit_test(finds_a_bad_byte_at_any_place_of_any_length),
        cmocka_unit_test(takes_nothing_and_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
