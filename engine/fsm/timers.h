/* SPDX-License-Identifier: Apache-2.0 */
/* Deadlines in a partition's time, fired in order of deadline and then of creation. A timer is embedded in what it
 * ends; nothing is allocated for setting one but the heap's own array. */
#ifndef ENGINE_FSM_TIMERS_H
#define ENGINE_FSM_TIMERS_H

#include <stddef.h>
#include <stdint.h>

struct timer;
/* The timer has been taken out before it is called; it may be set again. `context` is timers_fire()'s. */
typedef void timer_fn(struct timer *timer, void *context);

struct timer {
    uint64_t deadline; /* nanoseconds since 1970 */
    uint64_t order;    /* among equal deadlines: the index that created what it ends */
    timer_fn *fire;
    size_t place; /* in the heap, from 1; 0: not set */
};

struct timers {
    struct timer **heap; /* [1 .. count], smallest first */
    size_t count, capacity;
};

void timers_init(struct timers *timers);
void timers_free(struct timers *timers); /* the timers themselves are their owners' */
/* Sets or moves it. */
void timers_set(struct timers *timers, struct timer *timer, uint64_t deadline, uint64_t order);
void timers_cancel(struct timers *timers, struct timer *timer); /* fine if it is not set */

static inline uint64_t timers_next(const struct timers *timers) /* UINT64_MAX: none */
{
    return timers->count == 0 ? UINT64_MAX : timers->heap[1]->deadline;
}

/* Fires the first one whose deadline is at or before `time`; returns 0 when there is none. */
int timers_fire(struct timers *timers, uint64_t time, void *context);

#endif
