/* SPDX-License-Identifier: Apache-2.0 */
/* Users and their sessions: see owners.h. */
#include "engine/fsm/owners.h"

#include "engine/fsm/hash.h"
#include "engine/fsm/list.h"
#include "engine/fsm/memory.h"

#include <stdlib.h>

static uint64_t hash_of(const struct table_node *node, uint64_t seed)
{
    return hash_number(container_of(node, struct owner, by_uid)->uid, seed);
}

void owners_init(struct table *owners, uint64_t hash_seed)
{
    table_init(owners, hash_of, hash_seed);
}

static struct owner *find(const struct table *owners, uint32_t uid, uint64_t hash)
{
    for (struct table_node *node = table_first(owners, hash); node != NULL; node = node->next) {
        struct owner *owner = container_of(node, struct owner, by_uid);
        if (owner->uid == uid)
            return owner;
    }
    return NULL;
}

struct owner *owners_add(struct table *owners, uint32_t uid, uint64_t hash_seed)
{
    uint64_t hash = hash_number(uid, hash_seed);
    struct owner *owner = find(owners, uid, hash);

    if (owner == NULL) {
        owner = memory_allocate(sizeof(*owner));
        *owner = (struct owner){.uid = uid};
        table_insert(owners, &owner->by_uid, hash);
    }
    owner->sessions++;
    return owner;
}

void owners_remove(struct table *owners, struct owner *owner)
{
    if (--owner->sessions > 0)
        return;
    table_remove(owners, &owner->by_uid);
    free(owner);
}

uint64_t owners_count(const struct table *owners, uint32_t uid, uint64_t hash_seed)
{
    const struct owner *owner = find(owners, uid, hash_number(uid, hash_seed));

    return owner != NULL ? owner->sessions : 0;
}
