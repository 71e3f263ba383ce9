/* SPDX-License-Identifier: Apache-2.0 */
/* A partition's time: never early, never for time that the node stood still. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <millrace/limits.h>

#include "engine/node/clock.h"

static void runs_with_the_monotonic_clock(void **state)
{
    struct partition_clock clock;

    (void)state;
    clock_start(&clock, 1000 * MR_SECOND, 5);
    assert_int_equal(clock_read(&clock, 5, false), 1000 * MR_SECOND);
    assert_int_equal(clock_read(&clock, 5 + MR_MILLISECOND, false), 1000 * MR_SECOND + MR_MILLISECOND);
    assert_int_equal(clock_read(&clock, 5 + MR_MILLISECOND, false), 1000 * MR_SECOND + MR_MILLISECOND);
}

static void a_stop_is_not_time(void **state)
{
    struct partition_clock clock;

    (void)state;
    clock_start(&clock, 0, 0);
    assert_int_equal(clock_read(&clock, MR_HOUR, false), MR_CLOCK_STEP_MAX);
    /* and afterwards it runs on from there */
    assert_int_equal(clock_read(&clock, MR_HOUR + 7, false), MR_CLOCK_STEP_MAX + 7);
}

static void an_intended_sleep_is_time(void **state)
{
    struct partition_clock clock;

    (void)state;
    clock_start(&clock, 0, 0);
    clock_sleeping(&clock, 10 * MR_SECOND);
    assert_int_equal(clock_read(&clock, 10 * MR_SECOND + 1, false), 10 * MR_SECOND + 1);
    /* once */
    assert_int_equal(clock_read(&clock, 20 * MR_SECOND + 1, false), 10 * MR_SECOND + 1 + MR_CLOCK_STEP_MAX);
    /* stopped in the middle of it: since when is not known */
    clock_sleeping(&clock, 10 * MR_SECOND);
    assert_int_equal(clock_read(&clock, MR_HOUR, false), 10 * MR_SECOND + 1 + 2 * MR_CLOCK_STEP_MAX);
    clock_sleeping(&clock, UINT64_MAX);
    assert_int_equal(clock_read(&clock, 2 * MR_HOUR, false), 10 * MR_SECOND + 1 + 2 * MR_CLOCK_STEP_MAX + MR_HOUR);
}

static void held_it_stands(void **state)
{
    struct partition_clock clock;

    (void)state;
    clock_start(&clock, 3, 0);
    assert_int_equal(clock_read(&clock, 50, true), 3);
    assert_int_equal(clock_read(&clock, 60, false), 13);
}

static void never_goes_backwards(void **state)
{
    struct partition_clock clock;

    (void)state;
    clock_start(&clock, 3, 100);
    assert_int_equal(clock_read(&clock, 50, false), 3);
    assert_int_equal(clock_read(&clock, 51, false), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_with_the_monotonic_clock), cmocka_unit_test(a_stop_is_not_time),
        cmocka_unit_test(an_intended_sleep_is_time),     cmocka_unit_test(held_it_stands),
        cmocka_unit_test(never_goes_backwards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
