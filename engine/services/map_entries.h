/* SPDX-License-Identifier: Apache-2.0 */
/* What a map holds: its entries by key, in the order in which they were inserted, and their deadlines. Knows nothing of
 * operations, messages and listeners.
 *
 * An entry's key and value lie one behind the other in one blob, made anew with each write and shared with the outputs
 * that show it; the payload is copied into it once. What most entries do not have stands apart, so that an entry is one
 * line of the cache: in a large map each line is waited for. A map has timers of its own, of which the partition's see
 * only the earliest: so all of a large map's deadlines can go at once. */
#ifndef ENGINE_SERVICES_MAP_ENTRIES_H
#define ENGINE_SERVICES_MAP_ENTRIES_H

#include "engine/fsm/garbage.h"
#include "engine/fsm/list.h"
#include "engine/fsm/service.h"
#include "engine/fsm/table.h"
#include "engine/fsm/timers.h"

struct map_entries;

/* That an entry has a time to live. */
struct map_expiry {
    struct timer timer; /* set, unless the deadline is so far off that it cannot come */
    uint64_t expire;    /* nanoseconds since 1970 */
    struct map_entry *entry;
    struct map_entries *entries;
};

struct map_entry {
    struct table_node by_key;
    struct list order;         /* by insertion */
    struct blob *blob;         /* struct map_content */
    uint64_t index;            /* of the command that last wrote it */
    struct map_expiry *expiry; /* NULL: it never expires */
    uint64_t serial : 56;      /* how many were inserted before it, from 1: its place in the order */
    uint64_t cursors : 8;      /* that stand at it; MAP_CURSORS_MANY: that many were there at a time, who knows now */
};
enum { MAP_CURSORS_MANY = 255 };
_Static_assert(sizeof(struct map_entry) == 64, "a line of the cache, for each of millions");

/* What the data of an entry's blob is. */
struct map_content {
    uint32_t key_size;
    uint8_t bytes[]; /* the key, then the value */
};
enum { MAP_CONTENT_HEAD = sizeof(struct map_content) };

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
/* Writes a new version of `entry`, or a new entry if that is NULL. `expire`: nanoseconds since 1970; 0: never. */
struct map_entry *map_write(struct map_entries *entries, struct map_entry *entry, struct slice key, struct slice value,
                            uint64_t index, uint64_t expire);
/* Asks for the memory that map_find() of these keys, and map_write() then, will look at. */
enum { MAP_EXPECTED_AT_ONCE = 16 };
void map_expect(const struct map_entries *entries, const struct slice *keys, unsigned count);
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

static inline const struct map_content *map_content(const struct map_entry *entry)
{
    return (const struct map_content *)(const void *)entry->blob->data;
}

static inline struct slice map_key(const struct map_entry *entry)
{
    const struct map_content *content = map_content(entry);
    return (struct slice){content->bytes, content->key_size};
}

static inline struct slice map_value(const struct map_entry *entry)
{
    const struct map_content *content = map_content(entry);
    return (struct slice){content->bytes + content->key_size, entry->blob->size - MAP_CONTENT_HEAD - content->key_size};
}

/* Nanoseconds since 1970; 0: never. */
static inline uint64_t map_expire(const struct map_entry *entry)
{
    return entry->expiry == NULL ? 0 : entry->expiry->expire;
}

#endif
