/* SPDX-License-Identifier: Apache-2.0 */
/* A map's entries: table, order, deadlines, and their leaving in small steps. */
#include "engine/services/map_entries.h"

#include "engine/fsm/garbage.h"
#include "engine/fsm/hash.h"
#include "engine/fsm/memory.h"
#include "ipc/error.h"

#include <stdlib.h>
#include <string.h>

#define MAP_CONTENT_MAX (UINT32_MAX - MAP_CONTENT_HEAD) /* bytes of key and value */
#define MAP_SERIALS ((UINT64_C(1) << 56) - 1)           /* more than can ever be inserted */

/* ---- deadlines ---- */

/* Lets the partition's timers know which of the map's deadlines is the first now. */
static void show_earliest(struct map_entries *entries)
{
    if (entries->timers.count == 0) {
        timers_cancel(entries->host->timers, &entries->earliest);
        return;
    }
    const struct timer *first = entries->timers.heap[1];
    if (entries->earliest.place == 0 || entries->earliest.deadline != first->deadline ||
        entries->earliest.order != first->order)
        timers_set(entries->host->timers, &entries->earliest, first->deadline, first->order);
}

static void earliest_fired(struct timer *timer, void *context)
{
    struct map_entries *entries = container_of(timer, struct map_entries, earliest);
    timers_fire(&entries->timers, timer->deadline, context);
    show_earliest(entries);
}

static void expired(struct timer *timer, void *context)
{
    (void)context;
    struct map_expiry *expiry = container_of(timer, struct map_expiry, timer);
    if (expiry->entries->expired != NULL)
        expiry->entries->expired(expiry->entries, expiry->entry);
    map_remove(expiry->entries, expiry->entry);
}

static void drop_expiry(struct map_entries *entries, struct map_apart *apart)
{
    if (apart->expiry == NULL)
        return;
    timers_cancel(&entries->timers, &apart->expiry->timer);
    free(apart->expiry);
    apart->expiry = NULL;
    show_earliest(entries);
}

/* The entry is not plain. */
static void set_expiry(struct map_entries *entries, struct map_entry *entry, uint64_t expire)
{
    struct map_apart *apart = map_apart(entry);
    if (expire == 0) {
        drop_expiry(entries, apart);
        return;
    }
    if (apart->expiry == NULL) {
        apart->expiry = memory_zeroed(1, sizeof(*apart->expiry));
        *apart->expiry = (struct map_expiry){.timer.fire = expired, .entry = entry, .entries = entries};
    }
    apart->expiry->expire = expire;
    if (expire == UINT64_MAX) /* never to come */
        timers_cancel(&entries->timers, &apart->expiry->timer);
    else
        timers_set(&entries->timers, &apart->expiry->timer, expire, entry->index);
    show_earliest(entries);
}

/* ---- entries ---- */

static uint64_t hash_of_entry(const struct table_node *node, uint64_t seed)
{
    return hash_bytes(map_key(container_of(node, struct map_entry, by_key)), seed);
}

void map_entries_init(struct map_entries *entries, struct service_host *host, map_expired_fn *expired_fn)
{
    *entries = (struct map_entries){.host = host, .earliest.fire = earliest_fired, .expired = expired_fn};
    table_init(&entries->by_key, hash_of_entry, host->hash_seed);
    list_init(&entries->order);
    map_cursors_init(entries);
    timers_init(&entries->timers);
}

static uint64_t hash_of(const struct map_entries *entries, struct slice key)
{
    return hash_bytes(key, entries->host->hash_seed);
}

static bool equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Of the hash, bits that a table does not use while it is of a possible size. */
static uint16_t tag_of(uint64_t hash)
{
    return (uint16_t)(hash >> 48);
}

static bool is_of_key(const struct map_entry *entry, struct slice key, uint64_t hash)
{
    return entry->tag == tag_of(hash) && equal(map_key(entry), key);
}

static struct map_entry *find(const struct map_entries *entries, struct slice key, uint64_t hash)
{
    for (struct table_node *node = table_first(&entries->by_key, hash); node != NULL; node = node->next) {
        struct map_entry *entry = container_of(node, struct map_entry, by_key);
        if (is_of_key(entry, key, hash))
            return entry;
    }
    return NULL;
}

struct map_entry *map_find(const struct map_entries *entries, struct slice key)
{
    return find(entries, key, hash_of(entries, key));
}

enum { CACHE_LINE = 64 };

/* Of a function that only asks for memory gcc believes that it has no effect, and leaves its calls out, if it does not
 * inline it before. */
#define ASKING static inline __attribute__((always_inline))

/* What shows whether it is the one that is looked for. Two lines, for every other entry. */
ASKING void expect_entry(const struct table_node *node)
{
    __builtin_prefetch(node, 1);
    __builtin_prefetch(&container_of(node, struct map_entry, by_key)->tag, 1);
}

/* What of it has not been looked at to find it, but will be to write and show it. */
ASKING void expect_rest(const struct map_entry *entry)
{
    if (!map_is_plain(entry)) {
        __builtin_prefetch(map_apart(entry)->blob, 1);
        return;
    }
    const uint8_t *end = entry->bytes + entry->key_size + entry->value_size;
    for (const uint8_t *at = (const uint8_t *)entry + CACHE_LINE; at < end; at += CACHE_LINE)
        __builtin_prefetch(at, 1);
}

/* In steps, because each address stands in the memory that the step before has asked for. */
void map_expect(const struct map_entries *entries, const struct slice *keys, unsigned count)
{
    uint64_t hashes[MAP_EXPECTED_AT_ONCE];
    const struct table_node *nodes[MAP_EXPECTED_AT_ONCE];
    mr_assert(count <= MAP_EXPECTED_AT_ONCE);
    if (entries->by_key.count == 0)
        return;
    for (unsigned i = 0; i < count; i++) {
        hashes[i] = hash_of(entries, keys[i]);
        __builtin_prefetch(table_bucket(&entries->by_key, hashes[i]));
    }
    for (unsigned i = 0; i < count; i++) {
        nodes[i] = table_first(&entries->by_key, hashes[i]);
        if (nodes[i] != NULL)
            expect_entry(nodes[i]);
    }
    for (bool more = true; more;) {
        more = false;
        for (unsigned i = 0; i < count; i++) {
            if (nodes[i] == NULL)
                continue;
            const struct map_entry *entry = container_of(nodes[i], struct map_entry, by_key);
            if (is_of_key(entry, keys[i], hashes[i])) {
                expect_rest(entry);
                nodes[i] = NULL;
            } else {
                nodes[i] = nodes[i]->next;
                if (nodes[i] != NULL)
                    expect_entry(nodes[i]);
                more = true;
            }
        }
    }
}

/* ---- writing ---- */

static size_t plain_size(size_t key_size, size_t value_size)
{
    enum { STEP = 16 }; /* at which the allocator's sizes stand, the small ones */
    return (offsetof(struct map_entry, bytes) + key_size + value_size + STEP - 1) & ~(size_t)(STEP - 1);
}

/* An entry of this size in its last place, but for key and value. */
static struct map_entry *add_entry(struct map_entries *entries, uint64_t hash, size_t size)
{
    struct map_entry *entry = memory_allocate(size);
    entry->serial = ++entries->last_serial & MAP_SERIALS;
    entry->cursors = 0;
    entry->tag = tag_of(hash);
    list_append(&entries->order, &entry->order);
    return entry;
}

/* The entry again in a block of this size, but for key and value; the old one is to be freed. */
static struct map_entry *move_entry(struct map_entries *entries, struct map_entry *from, size_t size)
{
    struct map_entry *to = memory_allocate(size);
    *to = *from;
    table_replace(&entries->by_key, &from->by_key, &to->by_key);
    list_replace(&from->order, &to->order);
    if (from->cursors > 0)
        map_cursors_move(entries, from, to);
    return to;
}

static struct blob *key_and_value(struct slice key, struct slice value)
{
    mr_assert(key.size <= MAP_CONTENT_MAX && value.size <= MAP_CONTENT_MAX - key.size);
    struct blob *blob = blob_create((uint32_t)(MAP_CONTENT_HEAD + key.size + value.size));
    struct map_content *content = (struct map_content *)(void *)blob->data;
    content->key_size = (uint32_t)key.size;
    if (key.size > 0)
        memcpy(content->bytes, key.data, key.size);
    if (value.size > 0)
        memcpy(content->bytes + key.size, value.data, value.size);
    return blob;
}

static void free_entry(struct map_entry *entry)
{
    if (!map_is_plain(entry)) {
        blob_release(map_apart(entry)->blob);
        free(map_apart(entry)->expiry);
    }
    free(entry);
}

/* `entry` NULL: a new one, which is not in the table yet. */
static struct map_entry *write_plain(struct map_entries *entries, struct map_entry *entry, const struct map_kept *kept,
                                     uint64_t hash)
{
    struct slice key = kept->key, value = kept->value;
    struct map_entry *before = entry;
    size_t size = plain_size(key.size, value.size);
    if (before == NULL)
        entry = add_entry(entries, hash, size);
    else if (!map_is_plain(before) || plain_size(before->key_size, before->value_size) != size)
        entry = move_entry(entries, before, size);
    if (entry != before) {
        entry->key_size = (uint8_t)key.size;
        if (key.size > 0)
            memcpy(entry->bytes, key.data, key.size);
    }
    entry->index = kept->index;
    entry->value_size = (uint8_t)value.size;
    if (value.size > 0)
        memcpy(entry->bytes + key.size, value.data, value.size);
    if (before != NULL && before != entry) {
        if (!map_is_plain(before))
            drop_expiry(entries, map_apart(before));
        free_entry(before);
    }
    return entry;
}

static struct map_entry *write_apart(struct map_entries *entries, struct map_entry *entry, const struct map_kept *kept,
                                     uint64_t hash)
{
    enum { SIZE = sizeof(struct map_entry) + sizeof(struct map_apart) };
    struct map_entry *before = entry;
    struct blob *blob = key_and_value(kept->key, kept->value);
    if (before != NULL && !map_is_plain(before)) {
        blob_release(map_apart(entry)->blob);
    } else {
        entry = before == NULL ? add_entry(entries, hash, SIZE) : move_entry(entries, before, SIZE);
        entry->key_size = MAP_APART;
        map_apart(entry)->expiry = NULL;
        free(before); /* a plain one, if there was one */
    }
    map_apart(entry)->blob = blob;
    entry->index = kept->index;
    set_expiry(entries, entry, kept->expire);
    return entry;
}

static struct map_entry *write_entry(struct map_entries *entries, struct map_entry *entry, const struct map_kept *kept,
                                     uint64_t hash)
{
    bool is_new = entry == NULL, plain = kept->expire == 0 && kept->key.size <= MAP_PLAIN_MAX &&
                                         kept->value.size <= MAP_PLAIN_MAX - kept->key.size;
    entry = plain ? write_plain(entries, entry, kept, hash) : write_apart(entries, entry, kept, hash);
    if (is_new)
        table_insert(&entries->by_key, &entry->by_key, hash);
    return entry;
}

struct map_entry *map_write(struct map_entries *entries, struct map_entry *entry, const struct map_kept *kept)
{
    return write_entry(entries, entry, kept, entry == NULL ? hash_of(entries, kept->key) : 0);
}

static bool restore(struct map_entries *entries, const struct map_kept *kept, uint64_t hash)
{
    if (kept->index == 0 || kept->key.size > MAP_CONTENT_MAX || kept->value.size > MAP_CONTENT_MAX - kept->key.size ||
        find(entries, kept->key, hash) != NULL)
        return false;
    write_entry(entries, NULL, kept, hash);
    return true;
}

/* Most of what it costs is waiting for the table's memory, so that is asked for ahead. */
bool map_restore(struct map_entries *entries, const struct map_kept *kept, size_t count)
{
    uint64_t hashes[MAP_RESTORED_AT_ONCE];
    mr_assert(count <= MAP_RESTORED_AT_ONCE);
    for (size_t i = 0; i < count; i++) {
        hashes[i] = hash_of(entries, kept[i].key);
        if (entries->by_key.count > 0)
            __builtin_prefetch(table_bucket(&entries->by_key, hashes[i]));
    }
    for (size_t i = 0; i < count; i++)
        __builtin_prefetch(table_first(&entries->by_key, hashes[i]));
    for (size_t i = 0; i < count; i++)
        if (!restore(entries, &kept[i], hashes[i]))
            return false;
    return true;
}

void map_remove(struct map_entries *entries, struct map_entry *entry)
{
    if (!map_is_plain(entry))
        drop_expiry(entries, map_apart(entry));
    if (entry->cursors > 0)
        map_cursors_leave(entries, entry);
    table_remove(&entries->by_key, &entry->by_key);
    list_remove(&entry->order);
    free_entry(entry);
}

uint64_t map_remaining(const struct map_entry *entry, uint64_t now)
{
    uint64_t expire = map_expire(entry);
    if (expire == 0)
        return 0;
    /* An entry whose deadline has passed can be seen until that has fired. It is there, so something remains. */
    return expire > now ? expire - now : 1;
}

/* ---- emptying ---- */

struct cleared {
    struct garbage_item item;
    struct list order;
};

static bool free_cleared(struct garbage_item *item, unsigned *budget)
{
    struct cleared *cleared = container_of(item, struct cleared, item);
    for (; !list_empty(&cleared->order) && *budget > 0; --*budget) {
        struct map_entry *entry = container_of(cleared->order.next, struct map_entry, order);
        list_remove(&entry->order);
        free_entry(entry);
    }
    if (!list_empty(&cleared->order))
        return false;
    free(cleared);
    return true;
}

void map_clear(struct map_entries *entries)
{
    if (list_empty(&entries->order))
        return;
    map_cursors_end(entries);
    struct cleared *cleared = memory_allocate(sizeof(*cleared));
    list_take(&cleared->order, &entries->order);
    garbage_add(entries->host->garbage, &cleared->item, free_cleared);
    table_free(&entries->by_key);
    timers_free(&entries->timers);
    show_earliest(entries);
}

void map_entries_free(struct map_entries *entries)
{
    map_cursors_free(entries);
    timers_free(&entries->timers);
    show_earliest(entries);
    while (!list_empty(&entries->order)) {
        struct map_entry *entry = container_of(entries->order.next, struct map_entry, order);
        list_remove(&entry->order);
        free_entry(entry);
    }
    table_free(&entries->by_key);
}
