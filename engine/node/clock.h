/* SPDX-License-Identifier: Apache-2.0 */
/* A partition's time. It starts at the wall clock when the partition is made, goes on from the last logged time after a
 * restart, and advances with the monotonic clock. But when two readings lie further apart than its owner meant to
 * sleep, by more than MR_CLOCK_STEP_MAX, the process stood still (SIGSTOP, a suspended machine) and nobody knows since
 * when: then only that much has passed, so that no session ages whose KeepAlive stood unread. And while it is held (the
 * disk does not answer) nothing passes at all. A step of the wall clock changes nothing. */
#ifndef ENGINE_NODE_CLOCK_H
#define ENGINE_NODE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct partition_clock {
    uint64_t time;     /* the partition's, ns since 1970 */
    uint64_t read_at;  /* monotonic, of the last reading */
    uint64_t intended; /* ns that the owner meant to sleep since */
};

void clock_start(struct partition_clock *clock, uint64_t time, uint64_t monotonic);
/* The owner is about to sleep for up to this long. */
void clock_sleeping(struct partition_clock *clock, uint64_t nanoseconds);
/* A reading; `held`: time stands still. Returns the partition's time. */
uint64_t clock_read(struct partition_clock *clock, uint64_t monotonic, bool held);

#endif
