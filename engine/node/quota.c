/* SPDX-License-Identifier: Apache-2.0 */
/* Limits on what a partition holds: see quota.h.
 *
 * Memory is the allocator's own count of what is in use, asked for seldom because gathering it takes microseconds: the
 * limit can be passed by what is logged between two looks (MR_MEMORY_LOOK_BYTES) and by what is in flight. What
 * fragmentation and the child that writes a snapshot take comes on top. The disk's limit is the log's (log_limit());
 * here it is judged what could not be helped by cutting the log: a state whose snapshots are too large. Counts of
 * sessions and services are exact: where what is logged but not applied yet could make the difference, it is waited
 * for. */
#include "engine/node/quota.h"

#include "engine/node/values.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#ifdef MILLRACE_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

uint64_t quota_heap(void)
{
#ifdef MILLRACE_JEMALLOC
    uint64_t epoch = 1;
    size_t allocated = 0, size = sizeof(allocated);

    /* Writing the epoch gathers the counts anew. */
    if (mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch)) == 0 &&
        mallctl("stats.allocated", &allocated, &size, NULL, 0) == 0)
        return allocated;
#endif
    return 0;
}

uint64_t quota_memory_default(uint32_t partitions)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

    if (pages <= 0 || page <= 0)
        return 0;
    uint64_t share = (uint64_t)pages * (uint64_t)page / 4 * 3 / partitions;
    return share > MR_MEMORY_LIMIT_MIN ? share : MR_MEMORY_LIMIT_MIN;
}

/* `there` exist, at most so many may, and `coming` more may be on their way. */
static enum quota_verdict count(uint64_t there, uint64_t coming, uint64_t most)
{
    if (most == 0 || there + coming < most)
        return QUOTA_ROOM;
    return there < most ? QUOTA_WAIT : QUOTA_FULL;
}

static enum quota_verdict judge_session(const struct quota *quota, const struct fsm *fsm, uint32_t uid, char *text,
                                        size_t size)
{
    uint64_t all = fsm_session_count(fsm), own = fsm_sessions_of(fsm, uid);
    enum quota_verdict verdict = count(all, quota->opening, quota->sessions);

    if (verdict == QUOTA_FULL)
        snprintf(text, size, "the partition has %" PRIu64 " sessions, the most it may have (--max-sessions)", all);
    if (verdict != QUOTA_ROOM)
        return verdict;
    /* What others are opening is nothing to him: they may always be opening some. */
    verdict = count(own, quota->opening_of[uid % QUOTA_USERS], quota->user_sessions);
    if (verdict == QUOTA_FULL)
        snprintf(text, size,
                 "user %" PRIu32 " has %" PRIu64 " sessions in the partition, the most one user may have "
                 "(--user-sessions)",
                 uid, own);
    return verdict;
}

static enum quota_verdict judge_service(const struct quota *quota, const struct fsm *fsm,
                                        const struct service_spec *spec, char *text, size_t size)
{
    uint64_t all = fsm_service_count(fsm);
    enum quota_verdict verdict = count(all, quota->creating, quota->services);

    if (verdict == QUOTA_ROOM || fsm_service_exists(fsm, spec))
        return QUOTA_ROOM;
    if (verdict == QUOTA_FULL)
        snprintf(text, size, "the partition has %" PRIu64 " services, the most it may have (--max-services)", all);
    return verdict;
}

void quota_logged_closely(struct quota *quota, const struct fsm *fsm, const struct command_input *command, uint32_t uid)
{
    if (quota_makes_session(command)) {
        quota->opening++;
        quota->opening_of[uid % QUOTA_USERS]++;
    }
    if (!quota_makes_service(command))
        return;
    quota->named++;
    if (!fsm_service_exists(fsm, &command->spec)) {
        quota->creating++;
        quota->named_new = quota->named;
    }
}

/* Which of those that name a service were counted is not remembered, only which was the last. */
void quota_applied_closely(struct quota *quota, const struct command_input *command, uint32_t uid)
{
    if (quota_makes_session(command)) {
        quota->opening--;
        quota->opening_of[uid % QUOTA_USERS]--;
    }
    if (quota_makes_service(command) && ++quota->named_applied == quota->named_new)
        quota->creating = 0;
}

static bool memory_is_full(struct quota *quota, uint64_t now)
{
    if (quota->memory_limit == 0 || quota->measure == NULL)
        return false;
    if (quota->measured_at == 0 || now - quota->measured_at >= MR_MEMORY_LOOK_EVERY ||
        quota->logged >= MR_MEMORY_LOOK_BYTES) {
        quota->memory = quota->measure();
        quota->measured_at = now;
        quota->logged = 0;
    }
    return quota->memory >= quota->memory_limit;
}

/* Of one that passes at other times. */
static const char *why_not(const struct fsm *fsm, const struct command_input *command)
{
    return fsm_check_frees(fsm, command) ? "; it tells too many listeners" : "";
}

enum quota_verdict quota_judge_closely(struct quota *quota, const struct fsm *fsm, const struct command_input *command,
                                       uint32_t uid, uint64_t now, char *text, size_t size)
{
    char limit[32];

    if (memory_is_full(quota, now) && !fsm_frees(fsm, command)) {
        snprintf(text, size, "the partition holds %" PRIu64 " bytes in memory, its limit is %s (--memory-limit)%s",
                 quota->memory, value_write_size(limit, quota->memory_limit), why_not(fsm, command));
        return QUOTA_FULL;
    }
    if (quota->disk > 0 && !fsm_frees(fsm, command)) {
        snprintf(text, size,
                 "the partition's snapshots and the least of log take %" PRIu64
                 " bytes, their limit is %s (--disk-limit)%s",
                 quota->disk, value_write_size(limit, quota->disk_limit), why_not(fsm, command));
        return QUOTA_FULL;
    }
    if (quota_makes_session(command))
        return judge_session(quota, fsm, uid, text, size);
    if (quota_makes_service(command))
        return judge_service(quota, fsm, &command->spec, text, size);
    return QUOTA_ROOM;
}
