/* SPDX-License-Identifier: Apache-2.0 */
/* The map's cursors. Those that stand at the same entry share a stand, which an entry with cursors finds by its serial:
 * so an entry that goes, or is made anew elsewhere, moves all of them at once, however many walks there are; and any
 * other entry costs nothing. Where two stands meet the smaller one joins the larger. */
#include "engine/services/map_cursor.h"

#include "engine/fsm/hash.h"
#include "engine/fsm/memory.h"
#include "engine/services/map_messages.h"

#include <stdlib.h>

struct stand {
    struct table_node by_serial; /* in map_entries.stands, unless it is the latest or at the end */
    struct list order;           /* in map_entries.stand_order, unless it is at the end */
    struct list cursors;
    uint64_t count;          /* of them */
    uint64_t serial;         /* the entry's */
    struct map_entry *entry; /* NULL: at the end */
};

struct map_cursor {
    struct service_cursor cursor;
    struct list of_stand;
    struct stand *stand; /* NULL: at the end */
    struct map_entries *entries;
    uint64_t last_serial; /* of the entries, at the beginning */
};

/* ---- stands ---- */

static uint64_t hash_of_stand(const struct table_node *node, uint64_t seed)
{
    return hash_number(container_of(node, struct stand, by_serial)->serial, seed);
}

void map_cursors_init(struct map_entries *entries)
{
    table_init(&entries->stands, hash_of_stand, entries->host->hash_seed);
    list_init(&entries->stand_order);
}

void map_cursors_free(struct map_entries *entries)
{
    mr_assert(list_empty(&entries->stand_order)); /* they ended with the sessions */
    table_free(&entries->stands);
}

/* The entry has one. */
static struct stand *find(const struct map_entries *entries, const struct map_entry *entry)
{
    if (entries->latest != NULL && entries->latest->entry == entry)
        return entries->latest;
    struct table_node *node = table_first(&entries->stands, hash_number(entry->serial, entries->host->hash_seed));
    while (container_of(node, struct stand, by_serial)->serial != entry->serial)
        node = node->next;
    return container_of(node, struct stand, by_serial);
}

/* A walk goes on for a while before another one does: its stand is not put into the table at each step. */
static void make_latest(struct map_entries *entries, struct stand *stand)
{
    struct stand *former = entries->latest;
    if (former != NULL)
        table_insert(&entries->stands, &former->by_serial, hash_number(former->serial, entries->host->hash_seed));
    entries->latest = stand;
}

static void put_at(struct map_entries *entries, struct stand *stand, struct map_entry *entry)
{
    make_latest(entries, stand);
    stand->entry = entry;
    stand->serial = entry->serial;
    entry->cursors = 1;
    list_append(&entries->stand_order, &stand->order);
}

/* To an entry that has none. */
static void carry(struct map_entries *entries, struct stand *stand, struct map_entry *entry)
{
    stand->entry->cursors = 0;
    if (stand != entries->latest) {
        table_remove(&entries->stands, &stand->by_serial);
        make_latest(entries, stand);
    }
    stand->entry = entry;
    stand->serial = entry->serial;
    entry->cursors = 1;
}

/* It is nowhere then, as at the end. */
static void take_away(struct map_entries *entries, struct stand *stand)
{
    mr_assert(stand->entry != NULL);
    stand->entry->cursors = 0;
    stand->entry = NULL;
    if (stand == entries->latest)
        entries->latest = NULL;
    else
        table_remove(&entries->stands, &stand->by_serial);
    list_remove(&stand->order);
}

static void join(struct map_cursor *cursor, struct stand *stand)
{
    cursor->stand = stand;
    list_append(&stand->cursors, &cursor->of_stand);
    stand->count++;
}

static void stand_at(struct map_cursor *cursor, struct map_entry *entry)
{
    struct stand *stand;
    if (entry->cursors) {
        stand = find(cursor->entries, entry);
    } else {
        stand = memory_zeroed(1, sizeof(*stand));
        list_init(&stand->cursors);
        put_at(cursor->entries, stand, entry);
    }
    join(cursor, stand);
}

static void leave(struct map_cursor *cursor)
{
    struct stand *stand = cursor->stand;
    if (stand == NULL)
        return;
    cursor->stand = NULL;
    list_remove(&cursor->of_stand);
    if (--stand->count > 0)
        return;
    if (stand->entry != NULL)
        take_away(cursor->entries, stand);
    free(stand);
}

/* The smaller of the two is gone; the other one is nowhere. */
static struct stand *unite(struct stand *one, struct stand *other)
{
    struct stand *larger = one->count >= other->count ? one : other;
    struct stand *smaller = larger == one ? other : one;
    while (!list_empty(&smaller->cursors)) {
        struct map_cursor *cursor = container_of(smaller->cursors.next, struct map_cursor, of_stand);
        list_remove(&cursor->of_stand);
        join(cursor, larger);
    }
    free(smaller);
    return larger;
}

static struct map_entry *next_of(const struct map_entries *entries, const struct map_entry *entry)
{
    struct list *link = entry->order.next;
    return link == &entries->order ? NULL : container_of(link, struct map_entry, order);
}

void map_cursors_move(struct map_entries *entries, const struct map_entry *from, struct map_entry *to)
{
    find(entries, from)->entry = to; /* whose serial is the same */
}

void map_cursors_leave(struct map_entries *entries, const struct map_entry *entry)
{
    struct stand *stand = find(entries, entry);
    struct map_entry *next = next_of(entries, entry);
    if (next != NULL && !next->cursors) {
        carry(entries, stand, next);
        return;
    }
    take_away(entries, stand);
    if (next != NULL) {
        struct stand *there = find(entries, next);
        take_away(entries, there);
        put_at(entries, unite(stand, there), next);
    }
}

void map_cursors_end(struct map_entries *entries)
{
    while (!list_empty(&entries->stand_order))
        take_away(entries, container_of(entries->stand_order.next, struct stand, order));
}

/* ---- cursors ---- */

static struct map_cursor *of(struct service_cursor *cursor)
{
    return container_of(cursor, struct map_cursor, cursor);
}

/* The entry, if the cursor is to give it. */
static struct map_entry *given(const struct map_cursor *cursor, struct map_entry *entry)
{
    return entry == NULL || entry->serial > cursor->last_serial ? NULL : entry;
}

/* NULL: at the end. */
static struct map_entry *at(const struct map_cursor *cursor)
{
    return cursor->stand == NULL ? NULL : given(cursor, cursor->stand->entry);
}

static bool show(struct service_cursor *base, struct service_call *output)
{
    const struct map_cursor *cursor = of(base);
    const struct map_entry *entry = at(cursor);
    if (entry == NULL)
        return true;
    map_answer_entry(output, entry, map_remaining(entry, call_time(output)));
    return given(cursor, next_of(cursor->entries, entry)) == NULL;
}

static void advance(struct service_cursor *base)
{
    struct map_cursor *cursor = of(base);
    struct map_entry *entry = at(cursor);
    struct map_entry *next = entry == NULL ? NULL : given(cursor, next_of(cursor->entries, entry));
    if (next != NULL && cursor->stand->count == 1 && !next->cursors) { /* a walk by itself takes its stand along */
        carry(cursor->entries, cursor->stand, next);
        return;
    }
    leave(cursor);
    if (next != NULL)
        stand_at(cursor, next);
}

static void close(struct service_cursor *base)
{
    leave(of(base));
    free(of(base));
}

struct service_cursor *map_cursor(struct map_entries *entries)
{
    struct map_cursor *cursor = memory_zeroed(1, sizeof(*cursor));
    cursor->cursor = (struct service_cursor){.show = show, .advance = advance, .close = close};
    cursor->entries = entries;
    cursor->last_serial = entries->last_serial;
    if (!list_empty(&entries->order))
        stand_at(cursor, container_of(entries->order.next, struct map_entry, order));
    return &cursor->cursor;
}
