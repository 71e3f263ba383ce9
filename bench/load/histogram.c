/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/histogram.h"

#include <math.h>

void histogram_merge(struct histogram *to, const struct histogram *from)
{
    to->count += from->count;
    if (from->max > to->max)
        to->max = from->max;
    for (unsigned n = 0; n < HISTOGRAM_CLASSES; n++)
        to->classes[n] += from->classes[n];
}

static uint64_t upper_end(unsigned place)
{
    if (place < HISTOGRAM_LINEAR)
        return place;
    unsigned shift = place / HISTOGRAM_LINEAR - 1;
    return ((uint64_t)(place % HISTOGRAM_LINEAR + HISTOGRAM_LINEAR + 1) << shift) - 1;
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
    uint64_t rank = (uint64_t)ceil(percent / 100 * (double)histogram->count);
    uint64_t seen = 0;

    if (histogram->count == 0)
        return 0;
    for (unsigned n = 0; n < HISTOGRAM_CLASSES; n++) {
        seen += histogram->classes[n];
        if (seen >= rank && seen > 0)
            return upper_end(n) < histogram->max ? upper_end(n) : histogram->max;
    }
    return histogram->max;
}
