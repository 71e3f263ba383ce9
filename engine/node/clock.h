/* SPDX-License-Identifier: Apache-2.0 */
/* A partition's time. It starts at the wall clock when the partition is made, goes on from the last logged time after a
 * restart, and advances with the monotonic clock: but between two readings by at most what its owner meant to sleep plus
 * MR_CLOCK_STEP_MAX, so that a process that stood still (SIGSTOP, a suspended machine) does not age its sessions, and not
 * at all while it is held (the disk does not answer). A step of the wall clock changes nothing. */
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
