/* SPDX-License-Identifier: Apache-2.0 */
/* Does ThreadSanitizer see a race in a ring? Both ends run as threads on one mapping (across two mappings of one memfd
 * it sees nothing): as they should, of which it must say nothing; and with a fault planted, a reader that gives bytes
 * back before it has read them, which it must report. So that what test_ring_concurrent.c and the library's tests say
 * under it is worth something. Without the sanitizer there is nothing to see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/ring.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"

#if defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

enum { CAPACITY = 256, FRAME = 16, FRAMES = 5000 };

static uint8_t data[CAPACITY]; /* frames never cross its end, so that one mapping is enough */
static struct ring_cursors cursors;

static void *write_all(void *unused)
{
    struct ring_writer writer;
    ring_writer_attach(&writer, data, CAPACITY, &cursors, 0, 0);
    for (uint64_t n = 0; n < FRAMES; n++) {
        uint8_t *at;
        enum ring_result result;
        while ((result = ring_reserve(&writer, FRAME, &at)) == RING_FULL)
            sched_yield();
        mr_assert(result == RING_OK);
        memcpy(at, &n, sizeof(n));
        ring_advance(&writer, FRAME);
        ring_publish(&writer);
    }
    return unused;
}

/* `planted`: the bytes are given back first, and read then. */
static uint64_t read_everything(bool planted)
{
    struct ring_reader reader;
    uint64_t sum = 0;
    ring_reader_attach(&reader, data, CAPACITY, &cursors, 0, 0);
    for (uint64_t n = 0; n < FRAMES; n++) {
        const uint8_t *at;
        uint64_t number;
        enum ring_result result;
        while ((result = ring_peek(&reader, FRAME, &at)) == RING_EMPTY)
            sched_yield();
        mr_assert(result == RING_OK);
        ring_skip(&reader, FRAME);
        if (planted)
            ring_release(&reader, reader.head);
        memcpy(&number, at, sizeof(number));
        sum += number;
        if (!planted)
            ring_release(&reader, reader.head);
    }
    return sum;
}

/* In a process of its own, whose end and words tell. */
static int run_ends(bool planted)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, write_all, NULL) != 0)
        return 1;
    uint64_t sum = read_everything(planted);
    if (pthread_join(thread, NULL) != 0)
        return 1;
    return planted || sum == (uint64_t)FRAMES * (FRAMES - 1) / 2 ? 0 : 1;
}

static struct process_result run_self(const char *how)
{
    const char *const argv[] = {"/proc/self/exe", how, NULL};
    return process_run(argv, NULL, NULL, 0, WAIT_MS);
}

static void the_ring_has_no_race(void **state)
{
    (void)state;
    struct process_result result = run_self("--good");
    if (result.status != 0)
        fail_msg("status %d: %s", result.status, result.error);
    assert_null(strstr(result.error, "ThreadSanitizer"));
    process_result_free(&result);
}

static void a_planted_race_is_reported(void **state)
{
    (void)state;
#ifndef SANITIZED
    print_message("SKIPPED: not built with ThreadSanitizer (make check-tsan)\n");
    skip();
#else
    struct process_result result = run_self("--planted");
    assert_int_not_equal(result.status, 0);
    if (strstr(result.error, "ThreadSanitizer: data race") == NULL)
        fail_msg("status %d: %s", result.status, result.error);
    assert_non_null(strstr(result.error, "read_everything"));
    process_result_free(&result);
#endif
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return run_ends(strcmp(argv[1], "--planted") == 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_ring_has_no_race),
        cmocka_unit_test(a_planted_race_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
