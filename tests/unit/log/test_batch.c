/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of batches and of segment headers: what is sound stays so, and no changed bit does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "engine/log/batch.h"
#include "engine/log/segment.h"

enum { SECRET = 0x5ec2e7 };

/* Two entries of 5 and 0 bytes. */
static uint64_t make(uint8_t *bytes)
{
    struct entry_header one = {.channel = 7, .position = 64, .frame_size = 96, .uid = 1000, .size = 5};
    struct entry_header two = {.size = 0, .time_offset = 9};
    struct batch_header header = {.length = BATCH_HEADER_BYTES + entry_bytes(5) + entry_bytes(0),
                                  .partition = 3,
                                  .count = 2,
                                  .segment = 1,
                                  .epoch = 1,
                                  .sequence = 2,
                                  .first_index = 1,
                                  .time = 1234,
                                  .durable_through = 1,
                                  .previous = 99};
    memset(bytes, 0, 4096);
    memcpy(bytes + BATCH_HEADER_BYTES, &one, sizeof one);
    memcpy(bytes + BATCH_HEADER_BYTES + ENTRY_HEADER_BYTES, "hello", 5);
    memcpy(bytes + BATCH_HEADER_BYTES + entry_bytes(5), &two, sizeof two);
    batch_seal(bytes, &header, SECRET);
    return header.length;
}

static void every_field_stands_where_the_format_says(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    uint64_t length = make(bytes);
    uint64_t number;
    uint32_t half;
    assert_int_equal(length, 128 + 40 + 32);
    assert_memory_equal(bytes, "MRBATCH\n", 8);
    memcpy(&half, bytes + 8, 4);
    assert_int_equal(half, 1);
    memcpy(&number, bytes + 16, 8);
    assert_int_equal(number, length);
    memcpy(&half, bytes + 40, 4);
    assert_int_equal(half, 3);
    memcpy(&half, bytes + 44, 4);
    assert_int_equal(half, 2);
    uint64_t expected[] = {1, 1, 2, 1, 1234, 1, 99, 0, 0, 0};
    assert_memory_equal(bytes + 48, expected, sizeof expected);
    /* The sums, as the format tells them. */
    uint8_t header[128];
    memcpy(header, bytes, 128);
    memset(header + 24, 0, 16);
    uint64_t header_sum = XXH3_64bits_withSeed(header, 128, SECRET);
    uint64_t sum = XXH3_64bits_withSeed(bytes + 128, length - 128, header_sum);
    assert_memory_equal(bytes + 24, &sum, 8);
    assert_memory_equal(bytes + 32, &header_sum, 8);
    struct entry_header entry;
    assert_int_equal(batch_entry(bytes, 128, &entry), 168);
    assert_int_equal(entry.channel, 7);
    assert_int_equal(entry.size, 5);
    assert_int_equal(batch_entry(bytes, 168, &entry), length);
    assert_int_equal(entry.time_offset, 9);
}

static void no_changed_bit_stays_unseen(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    uint64_t length = make(bytes);
    assert_true(batch_header_sound(bytes, SECRET));
    assert_true(batch_sound(bytes));
    for (uint64_t bit = 0; bit < length * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(batch_header_sound(bytes, SECRET) && batch_sound(bytes));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_false(batch_header_sound(bytes, SECRET + 1));
}

static void entries_have_to_fill_the_batch_exactly(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    uint64_t length = make(bytes);
    struct batch_header header;
    memcpy(&header, bytes, sizeof header);
    for (uint32_t count = 0; count < 5; count++) {
        header.count = count;
        batch_seal(bytes, &header, SECRET);
        assert_true(batch_header_sound(bytes, SECRET));
        assert_int_equal(batch_sound(bytes), count == 2);
    }
    /* An entry's size that reaches past the end. */
    header.count = 2;
    uint32_t size = UINT32_MAX;
    memcpy(bytes + 168 + 24, &size, sizeof size);
    batch_seal(bytes, &header, SECRET);
    assert_false(batch_sound(bytes));
    header.length = length - 16;
    batch_seal(bytes, &header, SECRET);
    assert_false(batch_sound(bytes));
}

static void segment_headers_are_told_apart(void **state)
{
    (void)state;
    struct log_config config = {.path = "/d", .partition = 2, .secret = SECRET};
    struct segment segment = {.number = 9, .size = 1 << 20, .block = 4096, .slot = 3}, back = {.slot = 3};
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct mr_error error = {0};
    segment_encode(bytes, &segment, &config);
    assert_int_equal(segment_decode(bytes, &back, &config, &error), SEGMENT_SOUND);
    assert_int_equal(back.number, 9);
    assert_int_equal(back.size, 1 << 20);
    assert_int_equal(back.block, 4096);
    for (unsigned bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(segment_decode(bytes, &back, &config, &error), SEGMENT_BLANK);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_false(back.used);
    segment.used = true;
    segment_encode(bytes, &segment, &config);
    assert_int_equal(segment_decode(bytes, &back, &config, &error), SEGMENT_SOUND);
    assert_true(back.used);
    /* no batch has blocks that its buffer has no room for */
    struct segment large = {.number = 9, .size = 1 << 20, .block = 1 << 17, .slot = 3};
    uint8_t others[SEGMENT_HEADER_BYTES];
    segment_encode(others, &large, &config);
    assert_int_equal(segment_decode(others, &back, &config, &error), SEGMENT_BLANK);
    config.partition = 4;
    assert_int_equal(segment_decode(bytes, &back, &config, &error), SEGMENT_REFUSED);
    assert_string_equal(error.text, "/d/segment-0003 belongs to partition 2, not to partition 4");
    config.secret++;
    assert_int_equal(segment_decode(bytes, &back, &config, &error), SEGMENT_REFUSED);
    assert_non_null(strstr(error.text, "another data directory"));
}

static void only_slots_have_slots_names(void **state)
{
    (void)state;
    uint32_t slot;
    char name[SEGMENT_NAME_SIZE];
    assert_true(segment_parse_name("segment-0000", &slot));
    assert_int_equal(slot, 0);
    assert_true(segment_parse_name("segment-12345", &slot));
    assert_int_equal(slot, 12345);
    segment_name(name, 12345);
    assert_string_equal(name, "segment-12345");
    static const char *const others[] = {"segment-",     "segment-1",    "segment-00001",          "segment-0001.tmp",
                                         "segment-+001", "Segment-0001", "segment-99999999999999", "identity",
                                         "segment--001", "segment- 001", "segment-4294967295",     ""};
    for (unsigned n = 0; n < sizeof others / sizeof *others; n++)
        assert_false(segment_parse_name(others[n], &slot));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_stands_where_the_format_says),
        cmocka_unit_test(no_changed_bit_stays_unseen),
        cmocka_unit_test(entries_have_to_fill_the_batch_exactly),
        cmocka_unit_test(segment_headers_are_told_apart),
        cmocka_unit_test(only_slots_have_slots_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
