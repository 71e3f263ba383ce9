/* SPDX-License-Identifier: Apache-2.0 */
/* The hash of the tables' keys: XXH3-64 with a seed that clients do not know, so that nobody can choose keys that meet.
 * Compiled in, because a call costs more than hashing eight bytes. */
#ifndef ENGINE_FSM_HASH_H
#define ENGINE_FSM_HASH_H

#include "ipc/planted.h"
#include "proto/messages.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static inline uint64_t hash_number(uint64_t number, uint64_t seed)
{
    return XXH3_64bits_withSeed(&number, sizeof(number), PLANTED(SEED_IGNORED) ? 0 : seed);
}

static inline uint64_t hash_bytes(struct slice bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes.size == 0 ? (const void *)"" : bytes.data, bytes.size,
                                PLANTED(SEED_IGNORED) ? 0 : seed);
}

#endif
