/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for a condition, bounded: how tests wait for anything that another thread or process does. Never a sleep for
 * a time: a test goes on the moment that what it waits for is there, and fails if it never comes. */
#ifndef TESTS_SUPPORT_WAIT_H
#define TESTS_SUPPORT_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* Long enough for a loaded machine under a sanitizer; only a failing test ever waits so long. Where it is not enough (a
 * machine that is emulated), MILLRACE_WAIT is the number of seconds. */
#define WAIT_MS wait_limit_ms()
unsigned wait_limit_ms(void);

/* Now, in milliseconds of CLOCK_MONOTONIC. */
uint64_t wait_now_ms(void);
/* Gives the processor away for about a millisecond between two looks. */
void wait_pause(void);
/* Looks at condition(argument) until it holds (true) or the time is over (false). */
bool wait_until(bool (*condition)(void *), void *argument, unsigned milliseconds);
/* Waits until poll() reports `events` (or an error or hang-up) on fd; false if the time is over. */
bool wait_fd(int fd, short events, unsigned milliseconds);

/* Waits until an expression holds; gives whether it came to, so: assert_true(wait_for(counter == 3)). */
#define wait_for(expression)                                                                                           \
    __extension__({                                                                                                    \
        uint64_t wait_end = wait_now_ms() + WAIT_MS;                                                                   \
        bool wait_met;                                                                                                 \
        while (!(wait_met = (expression)) && wait_now_ms() < wait_end)                                                 \
            wait_pause();                                                                                              \
        wait_met;                                                                                                      \
    })

#endif
