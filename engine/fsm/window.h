/* SPDX-License-Identifier: Apache-2.0 */
/* A session's commands close above its floor (the highest last_input_sequence_num it has applied), as an array indexed
 * by sequence number: the place of every command of an ordinary client. A number that would need an array out of
 * proportion to what is held does not fit, and the session keeps it elsewhere; nothing observable depends on it. */
#ifndef ENGINE_FSM_WINDOW_H
#define ENGINE_FSM_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/error.h"

struct stored_output;

struct window {
    struct stored_output **slots; /* of number n: slots[n % capacity]; NULL: not held here */
    size_t capacity;              /* a power of two, or 0 */
    size_t count;                 /* slots taken */
    uint64_t floor;               /* every number here is over it and at most floor + capacity */
    uint64_t highest;             /* no number here is higher; may be below the floor */
    uint64_t peak;                /* the furthest a number was over the floor, from window_settle() to window_raise() */
};

void window_free(struct window *window);

static inline struct stored_output *window_get(const struct window *window, uint64_t number)
{
    if (number <= window->floor || number - window->floor > window->capacity)
        return NULL;
    return window->slots[number & (window->capacity - 1)];
}

/* Room for a number so far over the floor; false: there shall be none. For the next one. */
bool window_extend(struct window *window, uint64_t span, size_t held);

/* Puts a number over the floor, which is not here yet. `held`: how many commands the session holds altogether. False:
 * it does not fit. */
static inline bool window_put(struct window *window, uint64_t number, struct stored_output *output, size_t held)
{
    if (number - window->floor > window->capacity && !window_extend(window, number - window->floor, held))
        return false;
    struct stored_output **slot = &window->slots[number & (window->capacity - 1)];
    mr_assert(*slot == NULL);
    *slot = output;
    window->count++;
    if (number > window->highest)
        window->highest = number;
    return true;
}

/* What is here has moved. */
void window_replace(struct window *window, uint64_t number, struct stored_output *output);

/* Raises the floor: everything at or below it is given to `passed`, lowest first, and is no longer here. */
typedef void window_passed_fn(void *context, struct stored_output *output);
static inline void window_raise(struct window *window, uint64_t floor, window_passed_fn *passed, void *context)
{
    mr_assert(floor >= window->floor);
    if (window->highest > window->floor && window->highest - window->floor > window->peak)
        window->peak = window->highest - window->floor;
    for (uint64_t number = window->floor + 1; window->count > 0 && number <= floor; number++) {
        struct stored_output **slot = &window->slots[number & (window->capacity - 1)];
        struct stored_output *output = *slot;
        if (output == NULL)
            continue;
        *slot = NULL;
        window->count--;
        passed(context, output);
    }
    window->floor = floor;
}

/* Gives back what was not needed since the last call. */
void window_settle(struct window *window);

#endif
