/* SPDX-License-Identifier: Apache-2.0 */
/* The filter's bytes, as filter.h has them. Knows nothing of sessions. */
#include "ipc/client/filter.h"

#include <millrace/limits.h>

#include <string.h>
#include <xxhash.h>

enum { FILTER_FORMAT = 1, FILTER_HEAD = 2, BITS_EACH = 16, PROBES = 11 };

size_t filter_size(size_t count, size_t most)
{
    size_t bits = count * BITS_EACH;

    if (count == 0)
        return 0;
    if (bits < MR_FILTER_BITS_MIN)
        bits = MR_FILTER_BITS_MIN;
    size_t size = FILTER_HEAD + (bits + 7) / 8;
    return size < most ? size : most;
}

void filter_begin(uint8_t *filter, size_t size, size_t count)
{
    size_t bits = 8 * (size - FILTER_HEAD);
    size_t each = bits / count;

    memset(filter, 0, size);
    filter[0] = FILTER_FORMAT;
    /* The number of probes that keeps least besides is 0.69 times the bits for each; with fewer bits, fewer. */
    filter[1] = (uint8_t)(each >= BITS_EACH ? PROBES : each < 2 ? 1 : each * PROBES / BITS_EACH);
}

void filter_add(uint8_t *filter, size_t size, uint64_t number)
{
    uint64_t bits = 8 * (uint64_t)(size - FILTER_HEAD);
    uint8_t bytes[8];

    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    uint64_t probe = XXH3_64bits_withSeed(bytes, sizeof(bytes), 0);
    uint64_t step = XXH3_64bits_withSeed(bytes, sizeof(bytes), 1) | 1;
    for (unsigned i = 0; i < filter[1]; i++, probe += step)
        filter[FILTER_HEAD + probe % bits / 8] |= (uint8_t)(1U << probe % bits % 8);
}
