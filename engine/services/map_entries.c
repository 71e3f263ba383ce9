/* SPDX-License-Identifier: Apache-2.0 */
/* A map's entries: table, order, deadlines, and their leaving in small steps. */
#include "engine/services/map_entries.h"

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

static void drop_expiry(struct map_entries *entries, struct map_entry *entry)
{
    timers_cancel(&entries->timers, &entry->expiry->timer);
    free(entry->expiry);
    entry->expiry = NULL;
}

static void set_expiry(struct map_entries *entries, struct map_entry *entry, uint64_t expire)
{
    if (expire == 0 && entry->expiry == NULL)
        return;
    if (expire == 0) {
        drop_expiry(entries, entry);
    } else {
        if (entry->expiry == NULL) {
            entry->expiry = memory_zeroed(1, sizeof(*entry->expiry));
            *entry->expiry = (struct map_expiry){.timer.fire = expired, .entry = entry, .entries = entries};
        }
        entry->expiry->expire = expire;
        if (expire == UINT64_MAX) /* never to come */
            timers_cancel(&entries->timers, &entry->expiry->timer);
        else
            timers_set(&entries->timers, &entry->expiry->timer, expire, entry->index);
    }
    show_earliest(entries);
}

/* ---- entries ---- */

void map_entries_init(struct map_entries *entries, struct service_host *host, map_expired_fn *expired_fn)
{
    *entries = (struct map_entries){.host = host, .earliest.fire = earliest_fired, .expired = expired_fn};
    list_init(&entries->order);
    list_init(&entries->cursors);
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

static struct map_entry *find(const struct map_entries *entries, struct slice key, uint64_t hash)
{
    for (struct table_node *node = table_first(&entries->by_key, hash); node != NULL; node = node->next) {
        struct map_entry *entry = container_of(node, struct map_entry, by_key);
        if (node->hash == hash && equal(map_key(entry), key))
            return entry;
    }
    return NULL;
}

struct map_entry *map_find(const struct map_entries *entries, struct slice key)
{
    return find(entries, key, hash_of(entries, key));
}

/* In steps, because each address stands in the memory that the step before has asked for. */
void map_expect(const struct map_entries *entries, const struct slice *keys, unsigned count)
{
    uint64_t hashes[MAP_EXPECTED_AT_ONCE];
    mr_assert(count <= MAP_EXPECTED_AT_ONCE);
    if (entries->by_key.count == 0)
        return;
    for (unsigned i = 0; i < count; i++) {
        hashes[i] = hash_of(entries, keys[i]);
        __builtin_prefetch(table_bucket(&entries->by_key, hashes[i]));
    }
    for (unsigned i = 0; i < count; i++)
        __builtin_prefetch(table_first(&entries->by_key, hashes[i]));
    for (unsigned i = 0; i < count; i++) {
        const struct table_node *node = table_first(&entries->by_key, hashes[i]);
        while (node != NULL && node->hash != hashes[i])
            node = node->next;
        if (node != NULL)
            __builtin_prefetch(container_of(node, struct map_entry, by_key)->blob, 1);
    }
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

static struct map_entry *add_entry(struct map_entries *entries, uint64_t hash)
{
    struct map_entry *entry = memory_zeroed(1, sizeof(*entry));
    entry->serial = ++entries->last_serial & MAP_SERIALS;
    table_insert(&entries->by_key, &entry->by_key, hash);
    list_append(&entries->order, &entry->order);
    return entry;
}

struct map_entry *map_write(struct map_entries *entries, struct map_entry *entry, struct slice key, struct slice value,
                            uint64_t index, uint64_t expire)
{
    struct blob *blob = key_and_value(key, value);
    if (entry == NULL)
        entry = add_entry(entries, hash_of(entries, key));
    blob_release(entry->blob);
    entry->blob = blob;
    entry->index = index;
    set_expiry(entries, entry, expire);
    return entry;
}

static bool restore(struct map_entries *entries, const struct map_kept *kept, uint64_t hash)
{
    if (kept->index == 0 || (kept->expire != 0 && kept->expire <= *entries->host->time) ||
        kept->key.size > MAP_CONTENT_MAX || kept->value.size > MAP_CONTENT_MAX - kept->key.size ||
        find(entries, kept->key, hash) != NULL)
        return false;
    struct map_entry *entry = add_entry(entries, hash);
    entry->blob = key_and_value(kept->key, kept->value);
    entry->index = kept->index;
    if (kept->expire != 0)
        set_expiry(entries, entry, kept->expire);
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

static void free_entry(struct map_entry *entry)
{
    blob_release(entry->blob);
    free(entry->expiry);
    free(entry);
}

void map_remove(struct map_entries *entries, struct map_entry *entry)
{
    if (entry->expiry != NULL) {
        timers_cancel(&entries->timers, &entry->expiry->timer);
        show_earliest(entries);
    }
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
    /* A query can see an entry whose deadline no command has passed yet. It is there, so something remains. */
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
    map_cursors_leave(entries, NULL);
    struct cleared *cleared = memory_allocate(sizeof(*cleared));
    list_take(&cleared->order, &entries->order);
    garbage_add(entries->host->garbage, &cleared->item, free_cleared);
    table_free(&entries->by_key);
    timers_free(&entries->timers);
    show_earliest(entries);
}

void map_entries_free(struct map_entries *entries)
{
    mr_assert(list_empty(&entries->cursors)); /* they ended with the sessions */
    timers_free(&entries->timers);
    show_earliest(entries);
    while (!list_empty(&entries->order)) {
        struct map_entry *entry = container_of(entries->order.next, struct map_entry, order);
        list_remove(&entry->order);
        free_entry(entry);
    }
    table_free(&entries->by_key);
}
