/* SPDX-License-Identifier: Apache-2.0 */
/* Do AddressSanitizer and UndefinedBehaviorSanitizer stop what they are there for? In a build with them a child writes
 * past a block of the heap, or into one that was freed, or lets a signed sum overflow: it must be ended, with the
 * report. So that it is worth something when the whole suite passes under them. Without them there is nothing to see;
 * ThreadSanitizer has tests/unit/ipc/test_ring_race.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/spawn.h"
#include "tests/support/wait.h"

/* As `make SANITIZE=...` tells its tests. */
static bool built_with(const char *sanitizer)
{
    const char *all = getenv("MILLRACE_SANITIZE");
    return all != NULL && strstr(all, sanitizer) != NULL;
}

/* Where neither the compiler nor its warnings see what comes of them. */
static volatile size_t past_the_end = 16;
static volatile int one = 1;
static void *volatile kept;

static int mistake(const char *which)
{
    volatile char *block = malloc(past_the_end);
    volatile int sum = INT_MAX;

    if (block == NULL)
        return 1;
    if (strcmp(which, "--overrun") == 0)
        block[past_the_end] = 1;
    if (strcmp(which, "--overflow") == 0)
        sum = sum + one;
    kept = (void *)(uintptr_t)block;
    free(kept);
    if (strcmp(which, "--use-after-free") == 0)
        block[0] = 1;
    return 0;
}

static void is_stopped(const char *which, const char *sanitizer, const char *report)
{
    const char *const argv[] = {"/proc/self/exe", which, NULL};

    if (!built_with(sanitizer)) {
        print_message("SKIPPED: not built with SANITIZE=address,undefined\n");
        skip();
    }
    struct process_result result = process_run(argv, NULL, NULL, 0, WAIT_MS);
    if (result.status == 0 || strstr(result.error, report) == NULL)
        fail_msg("%s: status %d: %s", which, result.status, result.error);
    process_result_free(&result);
}

static void without_a_mistake_nothing_is_said(void **state)
{
    const char *const argv[] = {"/proc/self/exe", "--none", NULL};
    struct process_result result = process_run(argv, NULL, NULL, 0, WAIT_MS);

    (void)state;
    assert_int_equal(result.status, 0);
    assert_string_equal(result.error, "");
    process_result_free(&result);
}

static void a_block_of_the_heap_is_overrun(void **state)
{
    (void)state;
    is_stopped("--overrun", "address", "AddressSanitizer: heap-buffer-overflow");
}

static void a_block_is_used_when_it_is_free(void **state)
{
    (void)state;
    is_stopped("--use-after-free", "address", "AddressSanitizer: heap-use-after-free");
}

static void a_signed_sum_overflows(void **state)
{
    (void)state;
    is_stopped("--overflow", "undefined", "runtime error: signed integer overflow");
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return mistake(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_mistake_nothing_is_said),
        cmocka_unit_test(a_block_of_the_heap_is_overrun),
        cmocka_unit_test(a_block_is_used_when_it_is_free),
        cmocka_unit_test(a_signed_sum_overflows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
