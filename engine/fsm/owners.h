/* SPDX-License-Identifier: Apache-2.0 */
/* How many sessions each user has. Follows from the sessions, so it is no state of its own. */
#ifndef ENGINE_FSM_OWNERS_H
#define ENGINE_FSM_OWNERS_H

#include "engine/fsm/table.h"

struct owner {
    struct table_node by_uid;
    uint32_t uid;
    uint64_t sessions; /* at least one */
};

void owners_init(struct table *owners, uint64_t hash_seed);
/* One more session of this user; the owner stays where it is while it has any. */
struct owner *owners_add(struct table *owners, uint32_t uid, uint64_t hash_seed);
/* One less; the last one frees the owner. */
void owners_remove(struct table *owners, struct owner *owner);
uint64_t owners_count(const struct table *owners, uint32_t uid, uint64_t hash_seed);

#endif
