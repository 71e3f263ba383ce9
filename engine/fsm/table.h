/* SPDX-License-Identifier: Apache-2.0 */
/* The hash table: chains of nodes that are embedded in what is found. The caller brings the hash and walks a chain:
 *
 *     for (node = table_first(&table, hash); node != NULL; node = node->next)
 *         if (the key is the one) ...
 *
 * A node does not keep its hash, for the sake of memory where there are millions: the table asks for it again when it
 * moves the node.
 *
 * It grows and shrinks a few buckets with each change, so that no single command pays for a large table. Where a node
 * lies depends on the seed behind the hash; so nothing may be walked in the table's order, and no call does. */
#ifndef ENGINE_FSM_TABLE_H
#define ENGINE_FSM_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_node {
    struct table_node *next; /* in its chain */
};
/* The hash of what the node is embedded in, the same as when it was inserted. */
typedef uint64_t table_hash_fn(const struct table_node *node, uint64_t seed);

struct table {
    struct table_node **buckets; /* NULL: nothing was ever in it */
    struct table_node **old;     /* while moving from one size to another: the array that is being emptied */
    size_t mask, old_mask;       /* number of buckets - 1 */
    size_t moved;                /* buckets of `old` below this are empty, their nodes are in `buckets` */
    size_t count;                /* nodes */
    table_hash_fn *hash;
    uint64_t seed; /* for `hash` */
};

void table_init(struct table *table, table_hash_fn *hash, uint64_t seed);
/* If it is known that `count` nodes come, room for all of them can be made first. */
void table_reserve(struct table *table, size_t count);
void table_insert(struct table *table, struct table_node *node, uint64_t hash);
void table_remove(struct table *table, struct table_node *node);
/* `from` is in the table; `to` takes its place. */
void table_replace(struct table *table, const struct table_node *from, struct table_node *to);
void table_free(struct table *table); /* the arrays; nodes are their owners'. It is an empty one now */

static inline struct table_node **table_bucket(const struct table *table, uint64_t hash)
{
    if (table->old != NULL && (hash & table->old_mask) >= table->moved)
        return &table->old[hash & table->old_mask];
    return &table->buckets[hash & table->mask];
}

static inline struct table_node *table_first(const struct table *table, uint64_t hash)
{
    return table->count == 0 ? NULL : *table_bucket(table, hash);
}

#endif
