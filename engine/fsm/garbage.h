/* SPDX-License-Identifier: Apache-2.0 */
/* What has left the state but is too large to be freed within one command: it is put here, and freed a little at a time
 * in later turns. Nothing here is state. */
#ifndef ENGINE_FSM_GARBAGE_H
#define ENGINE_FSM_GARBAGE_H

#include <stdbool.h>

struct garbage_item;
/* Frees about *budget objects of the item, counting *budget down; true: all of it is gone, the item included. */
typedef bool garbage_fn(struct garbage_item *item, unsigned *budget);

struct garbage_item { /* embedded in what is to be freed */
    struct garbage_item *next;
    garbage_fn *collect;
};

struct garbage {
    struct garbage_item *first, **last; /* in the order in which they came */
};

void garbage_init(struct garbage *garbage);
void garbage_add(struct garbage *garbage, struct garbage_item *item, garbage_fn *collect);
bool garbage_collect(struct garbage *garbage, unsigned budget); /* true while more is left */

#endif
