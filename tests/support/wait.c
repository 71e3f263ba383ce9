/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting in tests: see wait.h. */
#include "tests/support/wait.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

enum { ENOUGH_MS = 30000, MOST_SECONDS = 86400 };

unsigned wait_limit_ms(void)
{
    const char *seconds = getenv("MILLRACE_WAIT");
    long number = seconds != NULL ? strtol(seconds, NULL, 10) : 0;

    return number > 0 && number <= MOST_SECONDS ? (unsigned)number * 1000 : ENOUGH_MS;
}

uint64_t wait_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void wait_pause(void)
{
    poll(NULL, 0, 1);
}

bool wait_until(bool (*condition)(void *), void *argument, unsigned milliseconds)
{
    uint64_t end = wait_now_ms() + milliseconds;

    for (;;) {
        if (condition(argument))
            return true;
        if (wait_now_ms() >= end)
            return false;
        wait_pause();
    }
}

bool wait_fd(int fd, short events, unsigned milliseconds)
{
    uint64_t end = wait_now_ms() + milliseconds;
    struct pollfd look = {.fd = fd, .events = events, .revents = 0};

    for (;;) {
        uint64_t now = wait_now_ms();
        int count = poll(&look, 1, now < end ? (int)(end - now) : 0);
        if (count > 0)
            return true;
        if (count < 0 && errno != EINTR)
            return false;
        if (now >= end)
            return false;
    }
}
