/* SPDX-License-Identifier: Apache-2.0 */
/* What it costs the worker to wake its clients, charged to whom it is for. Knows nothing of what they are told.
 *
 * A client sleeps on a descriptor of its own that watches the node's eventfd (make_bell() in connection.c), and the
 * kernel calls whatever the client has put in its wait queue before the write to the eventfd is over: sixty thousand
 * polls of one client made one wake-up take the worker 6 ms.
 *
 * Wake-ups are usually handed over together, and all of them take some microseconds: one look at the clock per turn.
 * Where that took too long nobody knows whose fault it was, or whether the worker merely had no processor. So users
 * whose bells were among these are measured for some seconds: their wake-ups are handed over one by one, at the same
 * moment as otherwise, at the beginning of the next turn, and what counts is the worker's own processor time. For
 * what one takes beyond the usual the others are to have a multiple of that; a user who owes them too much is not
 * woken before they have had it. Somewhat behind he may be, because processor time, too, is now and then spent on
 * something else, an interrupt or another machine on the same processor: a few hundred microseconds each second were
 * seen. What is not dear is limited as well: of a user's no more than the usual time in a turn, however many channels
 * he has. Nobody else's wake-ups wait, and those put off do come, in the order in which they were asked for; but for
 * those of a channel that is closed meanwhile, which the supervisor tells its client, too. */
#include "engine/node/bells.h"

#include "engine/node/worker_state.h"
#include "ipc/planted.h"

#include <inttypes.h>
#include <stdio.h>

/* More than these together might not fit in what the io gathers, which then hands some over unnoticed. */
#define RUNG_TOGETHER 128

static uint64_t clock_now(struct worker *worker)
{
    return worker->io->ops->monotonic(worker->io);
}

/* NULL: he is not measured. */
static struct bell_user *find(struct bells *bells, uint32_t uid, uint64_t now)
{
    for (unsigned i = 0; i < bells->user_count; i++) {
        if (bells->users[i].uid != uid)
            continue;
        if (bells->users[i].until > now)
            return &bells->users[i];
        bells->users[i] = bells->users[--bells->user_count];
        return NULL;
    }
    return NULL;
}

/* Who is measured no longer makes room, or who owes nothing. NULL: nobody. */
static struct bell_user *room(struct bells *bells, uint64_t now)
{
    if (bells->user_count < BELL_USERS)
        return &bells->users[bells->user_count++];
    for (unsigned i = 0; i < BELL_USERS; i++)
        if (bells->users[i].until <= now || bells->users[i].owes <= now)
            return &bells->users[i];
    return NULL;
}

/* NULL: so many are that he is not. */
static struct bell_user *suspect(struct bells *bells, uint32_t uid, uint64_t now)
{
    struct bell_user *user = find(bells, uid, now);

    if (user != NULL || (user = room(bells, now)) == NULL)
        return user;
    *user = (struct bell_user){.uid = uid, .until = now + MR_BELL_WATCHED};
    return user;
}

void bells_handed_over(struct worker *worker)
{
    struct bells *bells = &worker->bells;
    unsigned rung = bells->rung;

    if (rung == 0)
        return;
    bells->rung = 0;
    uint64_t now = clock_now(worker);
    if (now - worker->now <= MR_BELLS_QUICK + rung * MR_BELL_QUICK)
        return;
    for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++)
        if (worker->channels[slot].wake_started)
            (void)suspect(bells, worker->channels[slot].uid, now); /* else he is the next time */
}

static void tell(struct worker *worker, struct bell_user *user, uint64_t cost, uint64_t now)
{
    struct bells *bells = &worker->bells;
    char text[160];

    if (bells->told_at != 0 && now - bells->told_at < MR_SECOND)
        return;
    bells->told_at = now;
    user->told = true;
    snprintf(text, sizeof(text),
             "user %" PRIu32 ": waking a client of his took %" PRIu64
             " us of processor time; his wake-ups are put off, others' are not",
             user->uid, cost / MR_MICROSECOND);
    worker->notice(worker->notice_context, LOGLINE_WARNING, text);
}

static void charge(struct worker *worker, struct bell_user *user, uint64_t cost)
{
    if (PLANTED(BELL_UNPRICED))
        return;
    user->spent += cost;
    if (cost <= MR_BELL_USUAL)
        return;
    uint64_t now = clock_now(worker);
    user->owes = (user->owes > now ? user->owes : now) + (cost - MR_BELL_USUAL) * MR_BELL_SHARE;
    user->until = user->owes + MR_BELL_WATCHED;
    if (user->owes > now + MR_BELL_BEHIND && !user->told)
        tell(worker, user, cost, now);
}

/* When he may be woken again. */
static uint64_t due(const struct bell_user *user)
{
    return user->owes > MR_BELL_BEHIND ? user->owes - MR_BELL_BEHIND : 0;
}

static uint64_t token_of(const struct worker_channel *channel)
{
    return worker_token(TOKEN_WAKE, channel->slot, channel->channel_id);
}

static bool put_off(const struct worker *worker, const struct bell_user *user)
{
    return user != NULL && due(user) > worker->now;
}

void bells_forget_closed(struct worker *worker, struct worker_channel *channel)
{
    struct bells *bells = &worker->bells;
    unsigned kept = 0;

    if (!channel->wake_waits || !put_off(worker, find(bells, channel->uid, worker->now)))
        return;
    for (unsigned i = 0; i < bells->waiting_count; i++)
        if (bells->waiting[i] != channel->slot)
            bells->waiting[kept++] = bells->waiting[i];
    bells->waiting_count = kept;
    channel->wake_waits = false;
}

void bells_ring(struct worker *worker, struct worker_channel *channel)
{
    struct bells *bells = &worker->bells;
    const struct bell_user *user = bells->user_count > 0 ? find(bells, channel->uid, worker->now) : NULL;

    if (channel->wake_waits || (channel->closing && put_off(worker, user)))
        return;
    if (user == NULL && bells->rung < RUNG_TOGETHER) {
        bells->rung++;
        channel->wake_started = true;
        worker->io->ops->wake(worker->io, channel->channel.client_wake_fd, token_of(channel));
        return;
    }
    channel->wake_waits = true;
    uint64_t from = user != NULL ? due(user) : 0;
    if (bells->waiting_count == 0 || from < bells->due)
        bells->due = from;
    bells->waiting[bells->waiting_count++] = channel->slot;
}

/* `user` NULL: there are too many. */
static void ring_by_itself(struct worker *worker, struct worker_channel *channel, struct bell_user *user)
{
    channel->wake_waits = false;
    channel->wake_started = true;
    uint64_t cost = worker->io->ops->wake_measured(worker->io, channel->channel.client_wake_fd, token_of(channel));
    if (user != NULL)
        charge(worker, user, cost);
}

void bells_ring_due(struct worker *worker)
{
    struct bells *bells = &worker->bells;
    unsigned left = 0;

    if (bells->waiting_count == 0 || bells->due > worker->now)
        return;
    bells->due = UINT64_MAX;
    for (unsigned i = 0; i < bells->user_count; i++)
        bells->users[i].spent = 0;
    for (unsigned i = 0; i < bells->waiting_count; i++) {
        struct worker_channel *channel = &worker->channels[bells->waiting[i]];
        struct bell_user *user = suspect(bells, channel->uid, worker->now);
        if (user == NULL || channel->closing || (due(user) <= worker->now && user->spent < MR_BELL_USUAL)) {
            ring_by_itself(worker, channel, user);
            continue;
        }
        bells->waiting[left++] = channel->slot;
        if (due(user) < bells->due)
            bells->due = due(user);
    }
    bells->waiting_count = left;
}

uint64_t bells_next(const struct worker *worker)
{
    if (worker->bells.rung > 0)
        return worker->now; /* a turn hands them over and measures, a sleep would not */
    return worker->bells.waiting_count > 0 ? worker->bells.due : UINT64_MAX;
}
