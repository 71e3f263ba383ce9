/* SPDX-License-Identifier: Apache-2.0 */
/* The hash table's changes. While it moves from one array to another every hash still has exactly one chain: the old
 * array's for buckets that have not been moved yet, else the new one's. Knows nothing of keys. */
#include "engine/fsm/table.h"

#include "engine/fsm/memory.h"
#include "ipc/error.h"

#include <stdlib.h>

enum {
    BUCKETS_MIN = 8,
    /* With each change: few nodes, so that none pays for many, but enough buckets that a move from a large array with
     * little in it is over before the next can be due. */
    NODES_AT_ONCE = 4,
    BUCKETS_AT_ONCE = 16,
    AHEAD = 16 /* buckets: whose first nodes are asked for, so that they need not be waited for */
};

void table_init(struct table *table, table_hash_fn *hash, uint64_t seed)
{
    *table = (struct table){.hash = hash, .seed = seed};
}

static void move_some(struct table *table)
{
    unsigned nodes = 0;
    for (unsigned i = 0; i < BUCKETS_AT_ONCE && nodes < NODES_AT_ONCE && table->old != NULL; i++) {
        struct table_node *node = table->old[table->moved];
        table->old[table->moved++] = NULL;
        __builtin_prefetch(table->old[(table->moved + AHEAD) & table->old_mask]);
        for (struct table_node *next; node != NULL; node = next, nodes++) {
            next = node->next;
            struct table_node **bucket = &table->buckets[table->hash(node, table->seed) & table->mask];
            node->next = *bucket;
            *bucket = node;
        }
        if (table->moved > table->old_mask) {
            free(table->old);
            table->old = NULL;
        }
    }
}

static void begin_move(struct table *table, size_t buckets)
{
    table->old = table->buckets;
    table->old_mask = table->mask;
    table->moved = 0;
    table->buckets = memory_zeroed(buckets, sizeof(struct table_node *));
    table->mask = buckets - 1;
}

void table_reserve(struct table *table, size_t count)
{
    if (table->buckets != NULL || count <= BUCKETS_MIN)
        return;
    size_t buckets = BUCKETS_MIN;
    while (buckets < count)
        buckets *= 2;
    table->buckets = memory_zeroed(buckets, sizeof(struct table_node *));
    table->mask = buckets - 1;
}

void table_insert(struct table *table, struct table_node *node, uint64_t hash)
{
    if (table->buckets == NULL) {
        table->buckets = memory_zeroed(BUCKETS_MIN, sizeof(struct table_node *));
        table->mask = BUCKETS_MIN - 1;
    } else if (table->old == NULL && table->count > table->mask) {
        begin_move(table, (table->mask + 1) * 2);
    }
    move_some(table);
    struct table_node **bucket = table_bucket(table, hash);
    node->next = *bucket;
    *bucket = node;
    table->count++;
}

/* What points at the node. */
static struct table_node **link_to(struct table *table, const struct table_node *node)
{
    struct table_node **link = table_bucket(table, table->hash(node, table->seed));
    while (*link != node) {
        mr_assert(*link != NULL);
        link = &(*link)->next;
    }
    return link;
}

void table_replace(struct table *table, const struct table_node *from, struct table_node *to)
{
    struct table_node **link = link_to(table, from);
    to->next = from->next;
    *link = to;
}

void table_remove(struct table *table, struct table_node *node)
{
    *link_to(table, node) = node->next;
    table->count--;
    if (table->old == NULL && table->mask >= BUCKETS_MIN && table->count < (table->mask + 1) / 8)
        begin_move(table, (table->mask + 1) / 4 < BUCKETS_MIN ? BUCKETS_MIN : (table->mask + 1) / 4);
    move_some(table);
}

void table_free(struct table *table)
{
    free(table->buckets);
    free(table->old);
    table_init(table, table->hash, table->seed);
}
