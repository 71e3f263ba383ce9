/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap of embedded timers, smallest (deadline, order) first. Knows nothing of what ends when one fires. */
#include "engine/fsm/timers.h"

#include "engine/fsm/memory.h"
#include "ipc/error.h"

#include <stdbool.h>
#include <stdlib.h>

enum { CAPACITY_MIN = 16 };

void timers_init(struct timers *timers)
{
    *timers = (struct timers){0};
}

void timers_free(struct timers *timers)
{
    free(timers->heap);
    timers_init(timers);
}

static bool before(const struct timer *a, const struct timer *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->order < b->order;
}

static void put(struct timers *timers, size_t place, struct timer *timer)
{
    timers->heap[place] = timer;
    timer->place = place;
}

/* Finds the place of `timer`, which stands or is to stand at `place`, among those above and below. */
static void sift(struct timers *timers, size_t place, struct timer *timer)
{
    while (place > 1 && before(timer, timers->heap[place / 2])) {
        put(timers, place, timers->heap[place / 2]);
        place /= 2;
    }
    for (;;) {
        size_t child = place * 2;
        if (child > timers->count)
            break;
        if (child < timers->count && before(timers->heap[child + 1], timers->heap[child]))
            child++;
        if (!before(timers->heap[child], timer))
            break;
        put(timers, place, timers->heap[child]);
        place = child;
    }
    put(timers, place, timer);
}

static void resize(struct timers *timers, size_t capacity)
{
    timers->heap = memory_resize(timers->heap, (capacity + 1) * sizeof(struct timer *));
    timers->capacity = capacity;
}

void timers_set(struct timers *timers, struct timer *timer, uint64_t deadline, uint64_t order)
{
    timer->deadline = deadline;
    timer->order = order;
    if (timer->place == 0) {
        if (timers->count == timers->capacity)
            resize(timers, timers->capacity == 0 ? CAPACITY_MIN : timers->capacity * 2);
        timer->place = ++timers->count;
    }
    sift(timers, timer->place, timer);
}

void timers_cancel(struct timers *timers, struct timer *timer)
{
    size_t place = timer->place;
    if (place == 0)
        return;
    mr_assert(place <= timers->count && timers->heap[place] == timer);
    struct timer *last = timers->heap[timers->count--];
    timer->place = 0;
    if (last != timer)
        sift(timers, place, last);
    if (timers->capacity > CAPACITY_MIN && timers->count < timers->capacity / 8)
        resize(timers, timers->capacity / 2);
}

int timers_fire(struct timers *timers, uint64_t time, void *context)
{
    if (timers->count == 0 || timers->heap[1]->deadline > time)
        return 0;
    struct timer *timer = timers->heap[1];
    timers_cancel(timers, timer);
    timer->fire(timer, context);
    return 1;
}
