/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers of tests: the same ones in each run, so that what was found is found again. */
#ifndef TESTS_SUPPORT_RANDOM_H
#define TESTS_SUPPORT_RANDOM_H

#include <stdint.h>

/* The next of a sequence whose place, never 0, is *state (xorshift64). */
static inline uint64_t random_after(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A program's own sequence. */
static uint64_t random_state = UINT64_C(88172645463325252);

static inline uint64_t random_bits(void)
{
    return random_after(&random_state);
}

static inline uint64_t below(uint64_t limit)
{
    return random_bits() % limit;
}

#endif
