/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of random messages, the same ones in each run. */
#ifndef TESTS_UNIT_PROTO_RANDOM_H
#define TESTS_UNIT_PROTO_RANDOM_H

#include "proto/messages.h"
#include "tests/support/random.h"

/* 0 as often as any other length of number. */
static inline uint64_t random_number(void)
{
    unsigned bits = (unsigned)(random_bits() % 65);
    return bits == 0 ? 0 : random_bits() >> (64 - bits);
}

static inline struct slice random_text(void)
{
    static const uint8_t text[300] = {'t', 'e', 'x', 't'};
    return (struct slice){text, random_bits() % 3 == 0 ? random_bits() % sizeof text : random_bits() % 12};
}

#endif
