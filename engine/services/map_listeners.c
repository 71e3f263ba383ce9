/* SPDX-License-Identifier: Apache-2.0 */
/* A map's listeners: table by key, and the order of their indexes. */
#include "engine/services/map_listeners.h"

#include "engine/fsm/hash.h"
#include "engine/fsm/memory.h"
#include "ipc/error.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(const struct table_node *node, uint64_t seed)
{
    const struct map_listened *listened = container_of(node, struct map_listened, by_key);
    return hash_bytes((struct slice){listened->key, listened->key_size}, seed);
}

void map_listeners_init(struct map_listeners *listeners, uint64_t hash_seed)
{
    *listeners = (struct map_listeners){.hash_seed = hash_seed};
    table_init(&listeners->by_key, hash_of, hash_seed);
    list_init(&listeners->keys);
    list_init(&listeners->every);
    list_init(&listeners->order);
}

void map_listeners_free(struct map_listeners *listeners)
{
    mr_assert(list_empty(&listeners->order) && list_empty(&listeners->keys));
    table_free(&listeners->by_key);
}

static struct map_listened *find(const struct map_listeners *listeners, struct slice key, uint64_t hash)
{
    for (struct table_node *node = table_first(&listeners->by_key, hash); node != NULL; node = node->next) {
        struct map_listened *listened = container_of(node, struct map_listened, by_key);
        if (listened->key_size == key.size && memcmp(listened->key, key.data, key.size) == 0)
            return listened;
    }
    return NULL;
}

static struct map_listened *find_or_add(struct map_listeners *listeners, struct slice key)
{
    uint64_t hash = hash_bytes(key, listeners->hash_seed);
    struct map_listened *listened = find(listeners, key, hash);
    if (listened != NULL)
        return listened;
    listened = memory_allocate(sizeof(*listened) + key.size);
    list_init(&listened->listeners);
    listened->key_size = (uint32_t)key.size;
    memcpy(listened->key, key.data, key.size);
    table_insert(&listeners->by_key, &listened->by_key, hash);
    list_append(&listeners->keys, &listened->order);
    return listened;
}

struct map_listener *map_listen(struct map_listeners *listeners, struct slice key, uint64_t index)
{
    struct map_listener *listener = memory_zeroed(1, sizeof(*listener));
    listener->index = index;
    listener->only = key.size == 0 ? NULL : find_or_add(listeners, key);
    list_append(listener->only == NULL ? &listeners->every : &listener->only->listeners, &listener->peers);
    list_append(&listeners->order, &listener->order);
    listeners->count++;
    listeners->every_count += listener->only == NULL;
    return listener;
}

void map_unlisten(struct map_listeners *listeners, struct map_listener *listener)
{
    struct map_listened *only = listener->only;
    list_remove(&listener->peers);
    list_remove(&listener->order);
    listeners->count--;
    listeners->every_count -= only == NULL;
    free(listener);
    if (only == NULL || !list_empty(&only->listeners))
        return;
    table_remove(&listeners->by_key, &only->by_key);
    list_remove(&only->order);
    free(only);
}

/* The one at `link` of the list; NULL at its end. */
static struct map_listener *at(struct list *link, const struct list *head)
{
    return link == head ? NULL : container_of(link, struct map_listener, peers);
}

void map_each_listener(struct map_listeners *listeners, struct slice key, map_listener_fn *fn, void *context)
{
    struct list none;
    list_init(&none);
    struct map_listened *listened = find(listeners, key, hash_bytes(key, listeners->hash_seed));
    struct list *one_head = listened == NULL ? &none : &listened->listeners, *one = one_head->next;
    struct list *every_head = &listeners->every, *every = every_head->next;
    for (;;) {
        struct map_listener *left = at(one, one_head), *right = at(every, every_head);
        if (left == NULL && right == NULL)
            return;
        bool from_one = right == NULL || (left != NULL && left->index < right->index);
        /* Before the call: it may free the listener, and with a key's last one that key's list. Nothing of the list is
         * read after its last listener, as `one` is its head by then. */
        if (from_one)
            one = one->next;
        else
            every = every->next;
        fn(context, from_one ? left : right);
    }
}
