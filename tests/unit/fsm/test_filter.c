/* SPDX-License-Identifier: Apache-2.0 */
/* KeepAlive's filter: which bytes are one, and what is in it. The vectors of golden() were worked out from the
 * protocol's words with Python's long integers and libxxhash, apart from any code here. */
#include "engine/fsm/filter.h"
#include "tests/support/random.h"
#include "tests/support/requests.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static struct slice bytes(const uint8_t *data, size_t size)
{
    return (struct slice){data, size};
}

static void valid_bytes(void **state)
{
    (void)state;
    uint8_t filter[64] = {1, 1};
    assert_true(filter_valid(bytes(NULL, 0)));
    for (size_t size = 1; size < sizeof(filter); size++)
        assert_int_equal(filter_valid(bytes(filter, size)), size >= 10);
    for (unsigned probes = 0; probes < 256; probes++) {
        filter[1] = (uint8_t)probes;
        assert_int_equal(filter_valid(bytes(filter, 10)), probes >= 1 && probes <= 16);
    }
    filter[1] = 3;
    for (unsigned format = 0; format < 256; format++) {
        filter[0] = (uint8_t)format;
        assert_int_equal(filter_valid(bytes(filter, 11)), format == 1);
    }
}

static void nothing_is_in_an_empty_one(void **state)
{
    (void)state;
    uint8_t zeros[20] = {1, 4};
    for (uint64_t number = 0; number < 1000; number++) {
        assert_false(filter_has(bytes(NULL, 0), number));
        assert_false(filter_has(bytes(zeros, sizeof(zeros)), number));
    }
}

/* For each number the bit array of a filter with 16 probes over 88 bits (not a power of two) that holds just it. */
struct vector {
    uint64_t number;
    uint8_t bits[11];
};

static void golden(void **state)
{
    (void)state;
    static const struct vector vectors[] = {
        {UINT64_C(1), {0x82, 0x01, 0x70, 0x00, 0x08, 0x07, 0xc0, 0x20, 0x00, 0x1c, 0x00}},
        {UINT64_C(2), {0x11, 0x20, 0x0c, 0x80, 0x03, 0x60, 0x00, 0x18, 0x00, 0x06, 0xc0}},
        {UINT64_C(255), {0x01, 0xa0, 0x14, 0x00, 0x4a, 0x00, 0xa1, 0x00, 0x14, 0x0a, 0x40}},
        {UINT64_C(256), {0x80, 0x03, 0x00, 0x07, 0x00, 0x1c, 0x00, 0x70, 0x00, 0xe0, 0x00}},
        {UINT64_C(1000000), {0x10, 0x04, 0x41, 0x92, 0x24, 0x08, 0x00, 0x00, 0x82, 0x20, 0x49}},
        {UINT64_C(9223372036854775813), {0x42, 0x08, 0x05, 0x00, 0xa0, 0x10, 0x4a, 0x21, 0x00, 0x00, 0x94}},
    };
    assert_int_equal(sizeof(vectors) / sizeof(vectors[0]), 6);
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        uint8_t filter[13] = {1, 16};
        memcpy(filter + 2, vectors[i].bits, sizeof(vectors[i].bits));
        assert_true(filter_has(bytes(filter, sizeof(filter)), vectors[i].number));
        for (unsigned bit = 0; bit < 88; bit++) { /* each of them is needed, and no other */
            uint8_t mask = (uint8_t)(1 << bit % 8);
            bool set = (vectors[i].bits[bit / 8] & mask) != 0;
            filter[2 + bit / 8] = (uint8_t)(filter[2 + bit / 8] & ~mask);
            assert_int_equal(filter_has(bytes(filter, sizeof(filter)), vectors[i].number), !set);
            memcpy(filter + 2, vectors[i].bits, sizeof(vectors[i].bits));
        }
    }
}

static void agrees_with_another_maker(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        uint64_t numbers[32];
        uint8_t filter[2 + 512];
        unsigned probes = 1 + round % 16;
        size_t size = 64 + 8 * (round * 7 % 448);
        for (size_t i = 0; i < 32; i++)
            numbers[i] = random_bits() >> (round % 64);
        struct slice slice = make_filter(filter, probes, size, numbers, 32);
        assert_true(filter_valid(slice));
        for (size_t i = 0; i < 32; i++)
            assert_true(filter_has(slice, numbers[i]));
    }
    uint64_t one = 1;
    uint8_t filter[2 + 512];
    struct slice slice = make_filter(filter, 8, 4096, &one, 1);
    for (uint64_t number = 2; number < 2000; number++)
        assert_false(filter_has(slice, number));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_bytes),
        cmocka_unit_test(nothing_is_in_an_empty_one),
        cmocka_unit_test(golden),
        cmocka_unit_test(agrees_with_another_maker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
