/* SPDX-License-Identifier: Apache-2.0 */
/* The list of what is to be freed later. Knows nothing of what it is. */
#include "engine/fsm/garbage.h"

#include <stddef.h>

void garbage_init(struct garbage *garbage)
{
    garbage->first = NULL;
    garbage->last = &garbage->first;
}

void garbage_add(struct garbage *garbage, struct garbage_item *item, garbage_fn *collect)
{
    item->next = NULL;
    item->collect = collect;
    *garbage->last = item;
    garbage->last = &item->next;
}

bool garbage_collect(struct garbage *garbage, unsigned budget)
{
    while (garbage->first != NULL && budget > 0) {
        struct garbage_item *item = garbage->first;
        struct garbage_item *next = item->next;
        if (!item->collect(item, &budget))
            break;
        garbage->first = next;
        if (next == NULL)
            garbage->last = &garbage->first;
    }
    return garbage->first != NULL;
}
