/* SPDX-License-Identifier: Apache-2.0 */
/* The window's array. Knows nothing of commands but their numbers. */
#include "engine/fsm/window.h"

#include "engine/fsm/memory.h"

#include <stdlib.h>

enum {
    CAPACITY_MIN = 64,
    SPAN_ALWAYS = 1024, /* numbers at most this far over the floor always fit */
    SPAN_PER_HELD = 4   /* beyond it: one in this many must be held */
};

void window_free(struct window *window)
{
    free(window->slots);
    *window = (struct window){0};
}

static void resize(struct window *window, uint64_t span)
{
    size_t capacity = CAPACITY_MIN;
    while (capacity < span)
        capacity *= 2;
    struct stored_output **slots = memory_zeroed(capacity, sizeof(struct stored_output *));
    size_t left = window->count;
    for (uint64_t number = window->floor + 1; left > 0; number++) {
        struct stored_output *output = window->slots[number & (window->capacity - 1)];
        slots[number & (capacity - 1)] = output;
        left -= output != NULL;
    }
    free(window->slots);
    window->slots = slots;
    window->capacity = capacity;
}

bool window_extend(struct window *window, uint64_t span, size_t held)
{
    if (span > SPAN_ALWAYS && span / SPAN_PER_HELD > held)
        return false;
    resize(window, span);
    return true;
}

void window_replace(struct window *window, uint64_t number, struct stored_output *output)
{
    window->slots[number & (window->capacity - 1)] = output;
}

void window_settle(struct window *window)
{
    uint64_t span = window->count == 0 ? 0 : window->highest - window->floor;
    if (span > window->peak)
        window->peak = span;
    if (window->capacity > CAPACITY_MIN && window->peak <= window->capacity / 4)
        resize(window, window->peak * 2);
    window->peak = span;
}
