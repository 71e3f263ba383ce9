/* SPDX-License-Identifier: Apache-2.0 */
/* What a map holds: its entries by key, in the order in which they were inserted, and their deadlines. Knows nothing of
 * operations, messages and listeners.
 *
 * An entry's key and value lie one behind the other in one blob, made anew with each write and shared with the outputs
 * that show it; the payload is copied into it once. A map has timers of its own, of which the partition's see only the
 * earliest: so all of a large map's deadlines can go at once. */
#ifndef ENGINE_SERVICES_MAP_ENTRIES_H
#define ENGINE_SERVICES_MAP_ENTRIES_H

#include "engine/fsm/garbage.h"
#include "engine/fsm/list.h"
#include "engine/fsm/service.h"
#include "engine/fsm/table.h"
#include "engine/fsm/timers.h"

struct map_expiry;

struct map_entry {
    struct table_node by_key;
    struct list order;         /* by insertion */
    struct blob *blob;         /* the key, then the value */
    uint64_t index;            /* of the command that last wrote it */
    uint64_t expire;           /* nanoseconds since 1970; 0: never */
    struct map_expiry *expiry; /* NULL: no deadline that could come */
    uint64_t serial;           /* how many were inserted before it, from 1: its place in the order */
    uint32_t key_size;
    uint32_t cursors; /* that stand at it */
};

struct map_entries;
/* An entry's deadline has come; it is removed when this returns. */
typedef void map_expired_fn(struct map_entries *entries, struct map_entry *entry);

struct map_entries {
    struct table by_key;
    struct list order;
    struct timers timers;  /* the entries' */
    struct timer earliest; /* stands for them in the partition's */
    struct list cursors;   /* map_cursor.c's */
    uint64_t last_serial;
    map_expired_fn *expired; /* NULL: nobody wants to know */
    struct service_host *host;
};

void map_entries_init(struct map_entries *entries, struct service_host *host, map_expired_fn *expired);
void map_entries_free(struct map_entries *entries);

struct map_entry *map_find(const struct map_entries *entries, struct slice key); /* NULL: not there */
/* Writes a new version of `entry`, or a new entry if that is NULL. `expire` as in map_entry. */
struct map_entry *map_write(struct map_entries *entries, struct map_entry *entry, struct slice key, struct slice value,
                            uint64_t index, uint64_t expire);
/* Adds entries as they were, behind all others; many at once, because that is quicker. False: one of them cannot have
 * been there, because its key is there, it has no index, or its deadline has come. */
enum { MAP_RESTORED_AT_ONCE = 32 };
struct map_kept {
    struct slice key, value;
    uint64_t index, expire;
};
bool map_restore(struct map_entries *entries, const struct map_kept *kept, size_t count);
void map_remove(struct map_entries *entries, struct map_entry *entry);
/* Empties it at once; the memory goes in later turns. */
void map_clear(struct map_entries *entries);

/* What remains of an entry's time to live, in nanoseconds; 0: it has no deadline. */
uint64_t map_remaining(const struct map_entry *entry, uint64_t now);

/* The cursors that stand at the entry, which is about to go, move on; NULL: all go, and every cursor is at its end. */
void map_cursors_leave(struct map_entries *entries, const struct map_entry *entry);

static inline struct slice map_key(const struct map_entry *entry)
{
    return (struct slice){entry->blob->data, entry->key_size};
}

static inline struct slice map_value(const struct map_entry *entry)
{
    return (struct slice){entry->blob->data + entry->key_size, entry->blob->size - entry->key_size};
}

#endif
