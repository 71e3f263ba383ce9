/* SPDX-License-Identifier: Apache-2.0 */
/* Who listens to a map's events: those of one key, found by that key, and those of every key. Each stands in the order
 * of its index, and an event meets all whom it concerns in that order. What is listened to under one key costs nothing
 * under another. Knows nothing of what an event is. */
#ifndef ENGINE_SERVICES_MAP_LISTENERS_H
#define ENGINE_SERVICES_MAP_LISTENERS_H

#include "engine/fsm/list.h"
#include "engine/fsm/service.h"
#include "engine/fsm/table.h"

/* A key that somebody listens to. */
struct map_listened {
    struct table_node by_key;
    struct list order;     /* among all of these: by the time at which the first one came */
    struct list listeners; /* by index */
    uint32_t key_size;
    uint8_t key[];
};

struct map_listener {
    struct list peers;         /* among its key's, or among those of every key */
    struct list order;         /* among all */
    struct map_listened *only; /* NULL: every key */
    struct stream *stream;
    uint64_t index; /* of its command */
};

struct map_listeners {
    struct table by_key;
    struct list keys;  /* struct map_listened */
    struct list every; /* listeners of every key, by index */
    struct list order; /* all listeners, by index */
    uint64_t count;    /* of all */
    uint64_t every_count;
    uint64_t hash_seed;
};

void map_listeners_init(struct map_listeners *listeners, uint64_t hash_seed);
void map_listeners_free(struct map_listeners *listeners); /* there are none any more */

/* An empty key: every key. `index` is higher than all before. The caller sets `stream`. */
struct map_listener *map_listen(struct map_listeners *listeners, struct slice key, uint64_t index);
void map_unlisten(struct map_listeners *listeners, struct map_listener *listener);

static inline bool map_has_listeners(const struct map_listeners *listeners)
{
    return !list_empty(&listeners->order);
}

static inline struct slice map_listened_key(const struct map_listener *listener)
{
    return listener->only == NULL ? (struct slice){NULL, 0}
                                  : (struct slice){listener->only->key, listener->only->key_size};
}

/* Calls for everyone who listens to the key, by index. The listener may be gone when `fn` returns; no other may. */
typedef void map_listener_fn(void *context, struct map_listener *listener);
void map_each_listener(struct map_listeners *listeners, struct slice key, map_listener_fn *fn, void *context);

#endif
