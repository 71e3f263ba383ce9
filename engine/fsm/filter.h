/* SPDX-License-Identifier: Apache-2.0 */
/* KeepAliveInput.input_filter: a Bloom filter over sequence numbers. Its bytes:
 *
 *     none at all          the filter that holds nothing
 *     0   u8  format       1
 *     1   u8  probes       k, 1 to 16
 *     2   bits             at least 8 bytes; m = 8 * their number; bit b is bit b % 8 (1 << b % 8) of byte 2 + b / 8
 *
 * A number n is hashed as 8 bytes, the highest first, with XXH3-64: h1 with seed 0, h2 with seed 1 and then its lowest
 * bit set. It is in the filter if the bits (h1 + i * h2) mod 2^64 mod m are set for all i from 0 to k - 1. */
#ifndef ENGINE_FSM_FILTER_H
#define ENGINE_FSM_FILTER_H

#include "proto/messages.h"

bool filter_valid(struct slice filter);
bool filter_probe(struct slice filter, uint64_t number); /* of one that is valid and not empty */

static inline bool filter_has(struct slice filter, uint64_t number) /* of a valid one */
{
    return filter.size > 0 && filter_probe(filter, number);
}

#endif
