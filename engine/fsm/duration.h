/* SPDX-License-Identifier: Apache-2.0 */
/* google.protobuf.Duration and nanoseconds. A time too far off for 64 bits (after the year 2554) is UINT64_MAX, which
 * never comes: what is to end then never ends early, because it never ends. */
#ifndef ENGINE_FSM_DURATION_H
#define ENGINE_FSM_DURATION_H

#include "proto/messages.h"

#define NANOSECONDS_PER_SECOND UINT64_C(1000000000)

/* An absent one is 0; one too long for 64 bits is UINT64_MAX. False: protobuf calls it invalid (out of range, or
 * seconds and nanos of different signs), or it is negative. */
static inline bool duration_nanoseconds(struct duration duration, uint64_t *nanoseconds)
{
    const int64_t seconds_max = INT64_C(315576000000); /* 10,000 years, as protobuf has it */
    if (!duration.present) {
        *nanoseconds = 0;
        return true;
    }
    if (duration.seconds < 0 || duration.seconds > seconds_max || duration.nanos < 0 ||
        duration.nanos >= (int32_t)NANOSECONDS_PER_SECOND)
        return false;
    uint64_t whole;
    if (__builtin_mul_overflow((uint64_t)duration.seconds, NANOSECONDS_PER_SECOND, &whole) ||
        __builtin_add_overflow(whole, (uint64_t)duration.nanos, nanoseconds))
        *nanoseconds = UINT64_MAX;
    return true;
}

static inline uint64_t time_after(uint64_t time, uint64_t nanoseconds)
{
    return nanoseconds > UINT64_MAX - time ? UINT64_MAX : time + nanoseconds;
}

#endif
