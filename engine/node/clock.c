/* SPDX-License-Identifier: Apache-2.0 */
/* A partition's time, computed: see clock.h. Reads no clock itself. */
#include "engine/node/clock.h"

#include <millrace/limits.h>

void clock_start(struct partition_clock *clock, uint64_t time, uint64_t monotonic)
{
    *clock = (struct partition_clock){.time = time, .read_at = monotonic};
}

void clock_sleeping(struct partition_clock *clock, uint64_t nanoseconds)
{
    clock->intended = nanoseconds;
}

uint64_t clock_read(struct partition_clock *clock, uint64_t monotonic, bool held)
{
    uint64_t passed = monotonic > clock->read_at ? monotonic - clock->read_at : 0;
    /* The sum may not wrap: a sleep "for ever" is UINT64_MAX. */
    uint64_t most = clock->intended < UINT64_MAX - MR_CLOCK_STEP_MAX ? clock->intended + MR_CLOCK_STEP_MAX : UINT64_MAX;
    if (!held)
        clock->time += passed <= most ? passed : MR_CLOCK_STEP_MAX;
    clock->read_at = monotonic;
    clock->intended = 0;
    return clock->time;
}
