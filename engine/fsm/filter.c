/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the filter. Its format stands in filter.h. Knows nothing of sessions. */
#include "engine/fsm/filter.h"

#include "engine/fsm/hash.h"
#include "millrace/limits.h"

enum { FILTER_FORMAT = 1, FILTER_HEAD = 2 };

bool filter_valid(struct slice filter)
{
    if (filter.size == 0)
        return true;
    return filter.size >= FILTER_HEAD + MR_FILTER_BITS_MIN / 8 && filter.data[0] == FILTER_FORMAT &&
           filter.data[1] >= 1 && filter.data[1] <= MR_FILTER_PROBES_MAX;
}

bool filter_probe(struct slice filter, uint64_t number)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    uint64_t probe = XXH3_64bits_withSeed(bytes, sizeof(bytes), 0);
    uint64_t step = XXH3_64bits_withSeed(bytes, sizeof(bytes), 1) | 1;
    uint64_t bits = 8 * (uint64_t)(filter.size - FILTER_HEAD);
    for (unsigned i = 0; i < filter.data[1]; i++, probe += step) {
        uint64_t bit = probe % bits;
        if ((filter.data[FILTER_HEAD + bit / 8] >> bit % 8 & 1) == 0)
            return false;
    }
    return true;
}
