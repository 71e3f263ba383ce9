/* SPDX-License-Identifier: Apache-2.0 */
/* A process of the simulated machine (fake_io.h) that dies at its n-th call: a jump out of the middle of whatever it
 * was doing. What it held in memory is lost with it, and no leak. */
#ifndef TESTS_SUPPORT_SUDDEN_DEATH_H
#define TESTS_SUPPORT_SUDDEN_DEATH_H

#include <setjmp.h>

#include "tests/support/fake_io.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

struct countdown {
    uint64_t calls; /* left, the last of which is its death; 0: it lives on */
    jmp_buf out;
};

/* For fake_config.on_call, with a struct countdown as context. */
static inline void count_down(void *context, struct io *io, enum fake_call call, const char *name)
{
    struct countdown *countdown = context;
    (void)io, (void)call, (void)name;
    if (countdown->calls > 0 && --countdown->calls == 0)
        longjmp(countdown->out, 1);
}

/* Around all that may be cut off so. */
static inline void leaks_are_meant(bool yes)
{
#if defined(__SANITIZE_ADDRESS__)
    yes ? __lsan_disable() : __lsan_enable();
#else
    (void)yes;
#endif
}

#endif
