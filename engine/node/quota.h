/* SPDX-License-Identifier: Apache-2.0 */
/* What a partition may hold: memory, sessions (also of one user), services. Decided before a command is logged, so that
 * the state does not depend on it: what is in a log is applied whatever the limits are by then. */
#ifndef ENGINE_NODE_QUOTA_H
#define ENGINE_NODE_QUOTA_H

#include <stddef.h>
#include <stdint.h>

#include "engine/fsm/fsm.h"

/* An all-zero one limits nothing. */
struct quota {
    uint64_t memory_limit;     /* bytes */
    uint64_t (*measure)(void); /* bytes that are in use */
    uint64_t memory;           /* as measured last */
    uint64_t measured_at;      /* monotonic; 0: never */
    uint64_t logged;           /* bytes of commands since */
    uint64_t sessions;         /* in all; 0: any number, as for those below */
    uint64_t user_sessions;    /* of one user */
    uint64_t services;
    uint64_t opening, creating; /* commands that would make a session, or a service, logged and not applied yet */
};

enum quota_verdict {
    QUOTA_ROOM,
    QUOTA_WAIT, /* what is logged decides: to be asked again once it is applied */
    QUOTA_FULL  /* text[] names the limit and its value */
};

/* May this command be logged? Those that free something always may. */
enum quota_verdict quota_judge(struct quota *quota, const struct fsm *fsm, const struct command_input *command,
                               uint32_t uid, uint64_t now, char *text, size_t size);
/* It is logged; and applied, or failed to be. */
void quota_logged(struct quota *quota, const struct command_input *command, uint64_t bytes);
void quota_applied(struct quota *quota, const struct command_input *command);

/* What the allocator counts as in use by this process; 0 where it does not count. */
uint64_t quota_heap(void);
/* For one of so many partitions. */
uint64_t quota_memory_default(uint32_t partitions);

#endif
