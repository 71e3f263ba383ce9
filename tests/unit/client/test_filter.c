/* SPDX-License-Identifier: Apache-2.0 */
/* The filter that the library writes: its bytes by the protocol's rules, as the node reads them, and how much it keeps
 * besides. */
#include "ipc/client/filter.h"

#include "engine/fsm/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct slice make(uint8_t *bytes, size_t count, size_t most)
{
    size_t size = filter_size(count, most);
    filter_begin(bytes, size, count);
    for (uint64_t number = 1; number <= count; number++)
        filter_add(bytes, size, number * 7);
    return (struct slice){bytes, size};
}

/* How many of a hundred thousand numbers that are not in it are kept. */
static unsigned kept_besides(struct slice filter)
{
    unsigned kept = 0;
    for (uint64_t number = 0; number < 100000; number++)
        kept += filter_has(filter, (UINT64_C(1) << 40) + number);
    return kept;
}

static void test_all_that_was_added(void **state)
{
    (void)state;
    uint8_t bytes[4096];

    for (size_t count = 1; count < 2000; count = count * 3 / 2 + 1) {
        struct slice filter = make(bytes, count, sizeof(bytes));
        assert_true(filter_valid(filter));
        for (uint64_t number = 1; number <= count; number++)
            assert_true(filter_has(filter, number * 7));
        assert_true(kept_besides(filter) < (count < 100 ? 2000 : 150)); /* in few bits probes meet more often */
    }
}

static void test_too_many_for_the_room(void **state)
{
    (void)state;
    uint8_t bytes[66];
    struct slice filter = make(bytes, 200, sizeof(bytes));

    assert_int_equal(filter.size, sizeof(bytes));
    assert_true(filter_valid(filter));
    for (uint64_t number = 1; number <= 200; number++)
        assert_true(filter_has(filter, number * 7));
    assert_true(kept_besides(filter) < 60000);
    filter = make(bytes, 5000, sizeof(bytes)); /* keeps about everything, and is valid */
    assert_true(filter_valid(filter));
}

static void test_the_bytes(void **state)
{
    (void)state;
    uint8_t bytes[10];

    assert_int_equal(filter_size(0, 100), 0);
    assert_int_equal(filter_size(1, 100), 10);
    assert_int_equal(filter_size(4, 100), 10);
    assert_int_equal(filter_size(5, 100), 12);
    struct slice filter = make(bytes, 1, sizeof(bytes));
    assert_int_equal(filter.data[0], 1);
    assert_int_equal(filter.data[1], 11);
    unsigned set = 0;
    for (unsigned i = 2; i < 10; i++)
        set += (unsigned)__builtin_popcount(bytes[i]);
    assert_true(set >= 6 && set <= 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_was_added),
        cmocka_unit_test(test_too_many_for_the_room),
        cmocka_unit_test(test_the_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
