/* SPDX-License-Identifier: Apache-2.0 */
/* What a map holds: its entries by key, in the order in which they were inserted, and their deadlines. Knows nothing of
 * operations, messages and listeners.
 *
 * Most entries are plain: small and without a deadline, with key and value in the entry itself. That is one block of
 * memory, which a write changes in place; in a large map each line of the cache is waited for, and each byte is there
 * a million times. Outputs that show a plain entry copy it. Of any other, key and value lie apart, one behind the other
 * in one blob, made anew with each write and shared with the outputs that show it; the payload is copied into it once.
 *
 * A map has timers of its own, of which the partition's see only the earliest: so all of a large map's deadlines can go
 * at once. */
#ifndef ENGINE_SERVICES_MAP_ENTRIES_H
#define ENGINE_SERVICES_MAP_ENTRIES_H

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
    struct list order;    /* by insertion */
    uint64_t index;       /* of the command that last wrote it */
    uint64_t serial : 56; /* how many were inserted before it, from 1: its place in the order */
    uint64_t cursors : 8; /* 1: cursors stand at it */
    uint16_t tag;         /* bits of the key's hash, for not having to look at another key */
    uint8_t key_size;     /* MAP_APART: it is not plain, and a struct map_apart follows */
    uint8_t value_size;
    uint8_t bytes[]; /* of a plain one: the key, then the value */
};
enum {
    MAP_APART = UINT8_MAX,
    MAP_PLAIN_MAX = 212 /* bytes of key and value */
};
_Static_assert(offsetof(struct map_entry, bytes) == 44, "what each of millions takes besides key and value");

/* What an entry has that is not plain. */
struct map_apart {
    struct blob *blob;         /* struct map_content */
    struct map_expiry *expiry; /* NULL: it never expires */
};
_Static_assert(sizeof(struct map_entry) + sizeof(struct map_apart) == 64, "a line of the cache");

/* What the data of such an entry's blob is. */
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
    struct timers timers;    /* the entries' */
    struct timer earliest;   /* stands for them in the partition's */
    struct table stands;     /* map_cursor.c's: where cursors stand, by the entry's serial, */
    struct stand *latest;    /* but for the one that got there last; */
    struct list stand_order; /* and all of them */
    uint64_t last_serial;
    map_expired_fn *expired; /* NULL: nobody wants to know */
    struct service_host *host;
};

void map_entries_init(struct map_entries *entries, struct service_host *host, map_expired_fn *expired);
void map_entries_free(struct map_entries *entries);

struct map_entry *map_find(const struct map_entries *entries, struct slice key); /* NULL: not there */
/* What is kept of an entry. */
struct map_kept {
    struct slice key, value;
    uint64_t index;  /* of the command that wrote it */
    uint64_t expire; /* nanoseconds since 1970; 0: never */
};
/* Writes a new version of `entry`, which is the one of this key, or a new entry if that is NULL. It may lie elsewhere
 * then: the one that is returned stands for it. */
struct map_entry *map_write(struct map_entries *entries, struct map_entry *entry, const struct map_kept *kept);
/* Asks for the memory that map_find() of these keys, and map_write() then, will look at. */
enum { MAP_EXPECTED_AT_ONCE = 16 };
void map_expect(const struct map_entries *entries, const struct slice *keys, unsigned count);
/* Adds entries as they were, behind all others; many at once, because that is quicker. False: one of them cannot have
 * been there, because its key is there, it has no index, or its deadline has come. */
enum { MAP_RESTORED_AT_ONCE = 32 };
bool map_restore(struct map_entries *entries, const struct map_kept *kept, size_t count);
void map_remove(struct map_entries *entries, struct map_entry *entry);
/* Empties it at once; the memory goes in later turns. */
void map_clear(struct map_entries *entries);

/* What remains of an entry's time to live, in nanoseconds; 0: it has no deadline. */
uint64_t map_remaining(const struct map_entry *entry, uint64_t now);

void map_cursors_init(struct map_entries *entries);
void map_cursors_free(struct map_entries *entries); /* there is none any more */
/* The cursors that stand at the entry, which is about to go, move on. */
void map_cursors_leave(struct map_entries *entries, const struct map_entry *entry);
/* All entries are about to go: every cursor is at its end. */
void map_cursors_end(struct map_entries *entries);
/* The entry lies elsewhere now: those that stand at it go with it. */
void map_cursors_move(struct map_entries *entries, const struct map_entry *from, struct map_entry *to);

static inline bool map_is_plain(const struct map_entry *entry)
{
    return entry->key_size != MAP_APART;
}

/* Of an entry that is not plain. */
static inline struct map_apart *map_apart(const struct map_entry *entry)
{
    return (struct map_apart *)(uintptr_t)(entry + 1);
}

static inline struct slice map_key(const struct map_entry *entry)
{
    if (map_is_plain(entry))
        return (struct slice){entry->bytes, entry->key_size};
    const struct map_content *content = (const struct map_content *)(const void *)map_apart(entry)->blob->data;
    return (struct slice){content->bytes, content->key_size};
}

static inline struct slice map_value(const struct map_entry *entry)
{
    if (map_is_plain(entry))
        return (struct slice){entry->bytes + entry->key_size, entry->value_size};
    const struct blob *blob = map_apart(entry)->blob;
    const struct map_content *content = (const struct map_content *)(const void *)blob->data;
    return (struct slice){content->bytes + content->key_size, blob->size - MAP_CONTENT_HEAD - content->key_size};
}

/* Nanoseconds since 1970; 0: never. */
static inline uint64_t map_expire(const struct map_entry *entry)
{
    return map_is_plain(entry) || map_apart(entry)->expiry == NULL ? 0 : map_apart(entry)->expiry->expire;
}

#endif
