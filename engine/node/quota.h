/* SPDX-License-Identifier: Apache-2.0 */
/* What a partition may hold: memory, disk, sessions (also of one user), services. Decided before a command is logged,
 * so that the state does not depend on it: what is in a log is applied whatever the limits are by then. */
#ifndef ENGINE_NODE_QUOTA_H
#define ENGINE_NODE_QUOTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <millrace/limits.h>

#include "engine/fsm/fsm.h"

#define QUOTA_USERS 64 /* told apart */

/* An all-zero one limits nothing. */
struct quota {
    uint64_t memory_limit;     /* bytes */
    uint64_t (*measure)(void); /* bytes that are in use */
    uint64_t memory;           /* as measured last */
    uint64_t measured_at;      /* monotonic; 0: never */
    uint64_t logged;           /* bytes of commands since */
    uint64_t disk_limit;       /* bytes of log and snapshots */
    uint64_t disk;             /* what they take with the log cut, if that is more; else 0 */
    uint64_t sessions;         /* in all; 0: any number, as for those below */
    uint64_t user_sessions;    /* of one user */
    uint64_t services;

    /* Logged and not applied yet: */
    uint64_t opening;                 /* commands that make a session */
    uint64_t opening_of[QUOTA_USERS]; /* the same by user: those with the same last bits are taken for one */
    uint64_t creating;                /* at most so many that make a service */
    uint64_t named, named_applied;    /* CreateServices so far that were logged; and applied */
    uint64_t named_new;               /* `named`, as the last one was logged whose service was not there */
};

enum quota_verdict {
    QUOTA_ROOM,
    QUOTA_WAIT, /* what is logged decides: to be asked again once it is applied */
    QUOTA_FULL  /* text[] names the limit and its value */
};

enum quota_verdict quota_judge_closely(struct quota *quota, const struct fsm *fsm, const struct command_input *command,
                                       uint32_t uid, uint64_t now, char *text, size_t size);

static inline bool quota_makes_session(const struct command_input *command)
{
    return command->kind == COMMAND_OPEN_SESSION;
}

static inline bool quota_makes_service(const struct command_input *command)
{
    return command->kind == COMMAND_SESSION_COMMAND && command->session_kind == SESSION_COMMAND_CREATE_SERVICE;
}

static inline bool quota_memory_settled(const struct quota *quota, uint64_t now)
{
    return quota->memory_limit == 0 ||
           (quota->memory < quota->memory_limit && now - quota->measured_at < MR_MEMORY_LOOK_EVERY &&
            quota->logged < MR_MEMORY_LOOK_BYTES);
}

/* May this command be logged? Those that free something always may. */
static inline enum quota_verdict quota_judge(struct quota *quota, const struct fsm *fsm,
                                             const struct command_input *command, uint32_t uid, uint64_t now,
                                             char *text, size_t size)
{
    if (command->kind == COMMAND_SESSION_COMMAND && command->session_kind == SESSION_COMMAND_SERVICE_COMMAND &&
        quota_memory_settled(quota, now) && quota->disk == 0)
        return QUOTA_ROOM; /* nearly all */
    return quota_judge_closely(quota, fsm, command, uid, now, text, size);
}

/* It is logged. */
void quota_logged_closely(struct quota *quota, const struct fsm *fsm, const struct command_input *command,
                          uint32_t uid);
static inline void quota_logged(struct quota *quota, const struct fsm *fsm, const struct command_input *command,
                                uint32_t uid, uint64_t bytes)
{
    quota->logged += bytes;
    if (command->session_kind != SESSION_COMMAND_SERVICE_COMMAND) /* nearly all are one */
        quota_logged_closely(quota, fsm, command, uid);
}

/* It is applied, or could not be written; in the order in which they were logged. */
void quota_applied_closely(struct quota *quota, const struct command_input *command, uint32_t uid);
static inline void quota_applied(struct quota *quota, const struct command_input *command, uint32_t uid)
{
    if (command->session_kind != SESSION_COMMAND_SERVICE_COMMAND)
        quota_applied_closely(quota, command, uid);
}

/* What the allocator counts as in use by this process; 0 where it does not count. */
uint64_t quota_heap(void);
/* For one of so many partitions. */
uint64_t quota_memory_default(uint32_t partitions);

#endif
