/* SPDX-License-Identifier: Apache-2.0 */
/* Latencies by size: log-linear classes, 64 to each power of two, so that a percentile is off by at most 1.6 %. Plain
 * memory without pointers: can be shared between processes, added up and copied. */
#ifndef BENCH_LOAD_HISTOGRAM_H
#define BENCH_LOAD_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_LINEAR = 64, HISTOGRAM_CLASSES = HISTOGRAM_LINEAR * 40 };

struct histogram {
    uint64_t count;
    uint64_t max; /* exact, nanoseconds */
    uint64_t classes[HISTOGRAM_CLASSES];
};

/* Above 2^44 ns (five hours) everything is of the last class. */
static inline unsigned histogram_class(uint64_t ns)
{
    if (ns < HISTOGRAM_LINEAR)
        return (unsigned)ns;
    unsigned shift = 63U - (unsigned)__builtin_clzll(ns) - 6; /* so that ns >> shift is 64 to 127 */
    unsigned place = (shift + 1) * HISTOGRAM_LINEAR + (unsigned)(ns >> shift) - HISTOGRAM_LINEAR;
    return place < HISTOGRAM_CLASSES ? place : HISTOGRAM_CLASSES - 1;
}

static inline void histogram_add(struct histogram *histogram, uint64_t ns)
{
    histogram->classes[histogram_class(ns)]++;
    histogram->count++;
    if (ns > histogram->max)
        histogram->max = ns;
}

void histogram_merge(struct histogram *to, const struct histogram *from);
/* The value that `percent` of all do not exceed, in nanoseconds: the upper end of its class; 0 if there is none. */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

#endif
