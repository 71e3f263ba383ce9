/* SPDX-License-Identifier: Apache-2.0 */
/* The map's cursors. The entry at which one stands counts it, so that an entry that goes moves on just those that stand
 * there, and any other costs nothing. */
#include "engine/services/map_cursor.h"

#include "engine/fsm/memory.h"
#include "engine/services/map_messages.h"

#include <stdlib.h>

struct map_cursor {
    struct service_cursor cursor;
    struct list order; /* in map_entries.cursors */
    struct map_entries *entries;
    struct map_entry *at; /* NULL: at the end */
    uint64_t last_serial; /* of the entries, at the beginning */
};

static struct map_cursor *of(struct service_cursor *cursor)
{
    return container_of(cursor, struct map_cursor, cursor);
}

/* The entry of this link, if the cursor is to give it. */
static struct map_entry *given(const struct map_cursor *cursor, struct list *link)
{
    if (link == &cursor->entries->order)
        return NULL;
    struct map_entry *entry = container_of(link, struct map_entry, order);
    return entry->serial > cursor->last_serial ? NULL : entry;
}

static void stand(struct map_cursor *cursor, struct map_entry *entry)
{
    cursor->at = entry;
    if (entry != NULL && entry->cursors < MAP_CURSORS_MANY)
        entry->cursors++;
}

/* It stands there no longer. */
static void leave(struct map_entry *entry)
{
    if (entry->cursors < MAP_CURSORS_MANY)
        entry->cursors--;
}

static bool show(struct service_cursor *base, struct service_call *output)
{
    const struct map_cursor *cursor = of(base);
    if (cursor->at == NULL)
        return true;
    map_answer_entry(output, cursor->at, map_remaining(cursor->at, call_time(output)));
    return given(cursor, cursor->at->order.next) == NULL;
}

static void advance(struct service_cursor *base)
{
    struct map_cursor *cursor = of(base);
    if (cursor->at == NULL)
        return;
    leave(cursor->at);
    stand(cursor, given(cursor, cursor->at->order.next));
}

static void close(struct service_cursor *base)
{
    struct map_cursor *cursor = of(base);
    if (cursor->at != NULL)
        leave(cursor->at);
    list_remove(&cursor->order);
    free(cursor);
}

struct service_cursor *map_cursor(struct map_entries *entries)
{
    struct map_cursor *cursor = memory_zeroed(1, sizeof(*cursor));
    cursor->cursor = (struct service_cursor){.show = show, .advance = advance, .close = close};
    cursor->entries = entries;
    cursor->last_serial = entries->last_serial;
    list_append(&entries->cursors, &cursor->order);
    stand(cursor, given(cursor, entries->order.next));
    return &cursor->cursor;
}

void map_cursors_move(struct map_entries *entries, const struct map_entry *from, struct map_entry *to)
{
    for (struct list *link = entries->cursors.next; link != &entries->cursors; link = link->next) {
        struct map_cursor *cursor = container_of(link, struct map_cursor, order);
        if (cursor->at == from)
            cursor->at = to;
    }
}

void map_cursors_leave(struct map_entries *entries, const struct map_entry *entry)
{
    for (struct list *link = entries->cursors.next; link != &entries->cursors; link = link->next) {
        struct map_cursor *cursor = container_of(link, struct map_cursor, order);
        if (entry == NULL)
            cursor->at = NULL;
        else if (cursor->at == entry)
            stand(cursor, given(cursor, cursor->at->order.next));
    }
}
