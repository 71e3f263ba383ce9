/* SPDX-License-Identifier: Apache-2.0 */
/* Running, arming, sleeping.
 *
 * A run publishes what was started, meets the answers that are there, ends what ran out of time, and makes no system
 * call while answers keep coming. Whoever has to wait spins for a moment, then arms and sleeps. Arming raises the sleep
 * flag of every response ring and looks once more; from then on whoever writes there also writes the connection's
 * eventfd. A new worker, which begins with the flags down, wakes everyone; so the generation is looked at behind the
 * flags. The socket and a timer for deadlines are waited on beside the eventfd: one epoll, which is mr_fd(). */
#include "ipc/client/wait.h"

#include "ipc/client/connection.h"
#include "ipc/client/link.h"
#include "ipc/client/reconnect.h"
#include "ipc/client/request.h"
#include "ipc/relax.h"
#include "ipc/sys.h"

#include <limits.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#define LOOK_AT_SOCKET_EVERY (10 * MR_MILLISECOND) /* by a program that runs without ever sleeping */
#define SPINS 16                                   /* looks at the rings between two at the clock */
#define STUCK_FOR (1 * MR_MILLISECOND)             /* before looking again for room that nobody announces */

static uint64_t now_ns(void)
{
    return sys_clock_ns(CLOCK_MONOTONIC);
}

/* ---- Arming ---- */

static void set_timer(struct mr_client *client, uint64_t at)
{
    struct itimerspec value = {.it_value = {0}};

    if (at == client->timer_at)
        return;
    if (at != NEVER) {
        value.it_value.tv_sec = (time_t)(at / MR_SECOND);
        value.it_value.tv_nsec = (long)(at % MR_SECOND);
    }
    /* Of its own timerfd, with a valid time, nothing is refused. */
    (void)sys_timerfd_settime(client->timer, TFD_TIMER_ABSTIME, &value, NULL);
    client->timer_at = at;
}

static void take_flags_down(struct mr_client *client)
{
    client->armed = false;
    for (uint32_t i = 0; i < client->open_count; i++)
        ring_awake(&client->open[i]->responses);
}

static uint64_t first_time(const struct mr_client *client)
{
    uint64_t at = requests_first_deadline(client);

    if (reconnect_is_on(client)) {
        uint64_t due = reconnect_due(client);
        at = due < at ? due : at;
    }
    for (uint32_t i = 0; i < client->open_count; i++) {
        const struct link *link = client->open[i];
        if (link->retry_at < at)
            at = link->retry_at;
        if (link->close_at < at)
            at = link->close_at;
        if (link_is_stuck(link)) {
            uint64_t soon = now_ns() + STUCK_FOR;
            at = soon < at ? soon : at;
        }
    }
    return at;
}

static void flush(struct mr_client *client)
{
    for (uint32_t i = 0; i < client->open_count; i++)
        link_flush(client->open[i]);
}

bool client_arm(struct mr_client *client)
{
    flush(client);
    if (client->gone || client->requests.ending_first != NONE)
        return false;
    uint64_t at = first_time(client);
    if (at != NEVER && at <= now_ns())
        return false;
    set_timer(client, at);
    client->armed = true;
    for (uint32_t i = 0; i < client->open_count; i++) {
        struct link *link = client->open[i];
        if (!ring_sleep(&link->responses) || link_has_news(link)) {
            take_flags_down(client);
            return false;
        }
    }
    return true;
}

/* Takes in what woke us, if anything did, waiting for it up to `timeout` (of epoll_wait()). Eventfd and timer are
 * watched edge by edge, so they need not be read: what they count is of no interest. */
static void take_in(struct mr_client *client, int timeout)
{
    struct epoll_event events[3];

    int found = sys_epoll_wait(client->poller, events, 3, timeout);
    take_flags_down(client);
    for (int i = 0; i < found; i++) {
        if (events[i].data.fd == client->socket)
            connection_read(client);
        else if (events[i].data.fd == client->timer)
            client->timer_at = NEVER;
    }
}

static void disarm(struct mr_client *client)
{
    take_flags_down(client);
    take_in(client, 0);
}

/* ---- Running ---- */

/* By a clock that is a few milliseconds behind, and cheap: a program may run for every stream that it pulls. */
static void look_at_socket(struct mr_client *client)
{
    uint64_t now = sys_clock_ns(CLOCK_MONOTONIC_COARSE);

    if (now < client->looked_at + LOOK_AT_SOCKET_EVERY)
        return;
    client->looked_at = now;
    connection_read(client);
}

/* What has come in the rings. */
static void run_links(struct mr_client *client)
{
    flush(client);
    for (uint32_t i = client->open_count; i-- > 0;)
        if (i < client->open_count)
            link_run(client->open[i]);
}

void client_run_once(struct mr_client *client)
{
    unsigned moved = client->moved;

    if (client->armed)
        disarm(client);
    if (reconnect_is_on(client))
        reconnect_step(client);
    run_links(client);
    if (client->requests.oldest != NONE)
        requests_expire(client, now_ns());
    if (client->moved == moved && !client->gone)
        look_at_socket(client);
    if (client->requests.ending_first != NONE) /* behind all that may end some */
        requests_end_due(client);
}

/* Sleeps, armed, at most until the deadline. False: `stop` is readable. */
static bool sleep_until(struct mr_client *client, uint64_t now, uint64_t deadline)
{
    struct pollfd fds[2] = {{.fd = client->poller, .events = POLLIN}, {.fd = client->stop, .events = POLLIN}};
    int timeout = -1;

    if (deadline != NEVER) {
        uint64_t ms = (deadline - now + MR_MILLISECOND - 1) / MR_MILLISECOND;
        timeout = ms < INT_MAX ? (int)ms : INT_MAX;
    }
    /* Interrupted or failed: the caller looks, and comes back. */
    if (client->stop < 0) {
        take_in(client, timeout);
        return true;
    }
    if (sys_poll(fds, 2, timeout) > 0 && fds[1].revents != 0)
        return false;
    return true;
}

/* On the worker's own processor, spinning would only keep it from answering. */
static bool may_spin(const struct mr_client *client)
{
    if (client->only_cpu < 0)
        return true;
    for (uint32_t i = 0; i < client->open_count; i++)
        if (client->open[i]->core == 0 || client->open[i]->core == (uint32_t)client->only_cpu + 1)
            return false;
    return true;
}

/* Looks at nothing but the rings for a moment: no clock, which would take as long as all the rest. */
static void spin(struct mr_client *client)
{
    unsigned moved = client->moved;

    for (unsigned n = 0; n < SPINS && client->moved == moved; n++) {
        relax();
        run_links(client);
    }
}

/* Others may want this processor, too. Some do their part and give it back: clients whose answers come while this one
 * spins, the kernel's thread that ends the write that is waited for. Others keep it; that is tried as seldom as it is
 * dear. */
static void yield(struct mr_client *client, uint64_t now)
{
    sched_yield();
    uint64_t after = now_ns();
    if (after - now > MR_YIELD_DEAR)
        client->yield_at = after + 16 * (after - now);
    else if (client->only_cpu < 0)
        client->yield_at = after + MR_SPIN_LIMIT;
    else if (after - now < MR_YIELD_IDLE)
        client->yield_at = after + 10 * MR_YIELD_IDLE;
}

/* Being woken takes the node and this process as long as half a durable write takes a disk. So who slept and had what
 * it waited for soon after spins longer the next time, until that turns out to be in vain. */
static void learn(struct mr_client *client, uint64_t since)
{
    client->patient = now_ns() - since < MR_SPIN_PATIENT;
}

/* Results that wait to be taken keep the ring, also what callbacks have met behind them; what is waited for may be an
 * answer that has no room there. */
static void set_aside(struct mr_client *client)
{
    for (uint32_t i = 0; client->may_set_aside && i < client->open_count; i++)
        if (client->open[i]->held > 0)
            client_set_aside(client, client->open[i]);
}

enum mr_status client_wait(struct mr_client *client, client_done_fn *done, const void *argument, uint64_t deadline)
{
    unsigned moved = client->moved;
    uint64_t since = 0; /* nothing has come */
    bool slept = false;

    for (;;) {
        client_run_once(client);
        if (slept && client->moved != moved)
            learn(client, since);
        slept = false;
        if (done(client, argument))
            return MR_OK;
        if (client->gone)
            return client_fail_with(client, MR_NO_NODE, client->gone_text);
        uint64_t now = now_ns();
        if (now >= deadline)
            return MR_TIMEOUT;
        if (since == 0 || client->moved != moved)
            since = now;
        moved = client->moved;
        if (now - since < (client->patient ? MR_SPIN_PATIENT : MR_SPIN_LIMIT) && may_spin(client)) {
            bool yields = client->only_cpu >= 0 || now - since >= MR_SPIN_LIMIT;
            if (yields && now >= client->yield_at) {
                yield(client, now);
                continue;
            }
            spin(client);
            if (done(client, argument))
                return MR_OK;
        } else {
            set_aside(client);
            slept = client_arm(client);
            if (slept && !sleep_until(client, now, deadline))
                return MR_CANCELED;
        }
    }
}

uint64_t client_deadline(const struct mr_client *client)
{
    if (client->options.call_timeout_ns <= 0)
        return NEVER;
    return now_ns() + (uint64_t)client->options.call_timeout_ns;
}

/* ---- Calls that wait for one answer ---- */

static void call_done(struct mr_client *client, const struct mr_result *result)
{
    struct call *call = result->arg;

    call->result = *result;
    call->done = true;
    client->pin = true;
}

struct mr_then call_then(struct call *call)
{
    call->done = false;
    return (struct mr_then){.done = call_done, .arg = call};
}

static bool call_is_done(const struct mr_client *client, const void *argument)
{
    (void)client;
    return ((const struct call *)argument)->done;
}

enum mr_status call_wait(struct mr_client *client, struct call *call, uint64_t request, uint64_t deadline)
{
    client_unpin(client); /* an earlier step's */
    client->may_set_aside = true;
    enum mr_status status = client_wait(client, call_is_done, call, deadline);
    client->may_set_aside = false;
    if (!call->done) {
        request_forsake(client, request, status);
        return status == MR_TIMEOUT ? client_fail_with(client, status, "the node did not answer in time") : status;
    }
    status = call->result.status;
    if (status == MR_OK)
        return MR_OK;
    if (call->result.message.size == 0)
        return client_fail(client, status, "the node answered %s, and no more", mr_status_name(status));
    return client_fail(client, status, "%.*s", (int)call->result.message.size, (const char *)call->result.message.data);
}

struct room {
    const struct link *link;
    unsigned moved;
};

static bool is_worth_trying(const struct mr_client *client, const void *argument)
{
    const struct room *room = argument;

    if (room->link->reopening)
        return false;
    return client->moved != room->moved || client->requests.alive == 0;
}

enum mr_status call_wait_room(struct link *link, uint64_t deadline)
{
    struct mr_client *client = link->client;
    struct room room = {link, client->moved};
    bool away = link->reopening;
    uint64_t soon = away ? NEVER : now_ns() + STUCK_FOR;

    client->may_set_aside = true;
    enum mr_status status = client_wait(client, is_worth_trying, &room, soon < deadline ? soon : deadline);
    client->may_set_aside = false;
    if (status == MR_TIMEOUT && deadline > soon)
        return MR_OK;
    if (status == MR_TIMEOUT)
        return client_fail_with(client, MR_TIMEOUT,
                                away ? "the node is away, and was not back within call_timeout_ns; nothing was sent"
                                     : "no room in the request ring within call_timeout_ns; nothing was sent");
    return status;
}

/* ---- The calls ---- */

void mr_flush(struct mr_client *client)
{
    if (client_enter(client) == MR_OK)
        flush(client);
}

static bool has_run(const struct mr_client *client, const void *argument)
{
    (void)argument;
    if (client->met > 0 || client->waiting_first != client->waiting_end)
        return true;
    if (client->requests.outstanding > 0)
        return false;
    return client->moved > 0 || (client->requests.alive == 0 && !reconnect_is_on(client));
}

enum mr_status mr_run(struct mr_client *client, int64_t wait_ns, unsigned *completed)
{
    enum mr_status status = client_enter_alone(client);

    if (completed != NULL)
        *completed = 0;
    if (status != MR_OK)
        return status;
    client->met = 0;
    client->moved = 0;
    if (wait_ns == MR_NO_WAIT)
        client_run_once(client);
    else
        client_wait(client, has_run, NULL, wait_ns < 0 ? NEVER : now_ns() + (uint64_t)wait_ns);
    if (completed != NULL)
        *completed = client->met;
    if (client->gone && client->requests.ending_first == NONE)
        return client_fail_with(client, MR_NO_NODE, client->gone_text);
    if (client->met > 0 || client->moved > 0 || client->waiting_first != client->waiting_end)
        return MR_OK;
    return client_fail_with(client, MR_AGAIN, "nothing has come");
}

enum mr_status mr_cancel(struct mr_client *client, uint64_t request)
{
    enum mr_status status = client_enter(client);

    if (status != MR_OK)
        return status;
    struct request *open = request_find(client, request);
    if (open == NULL)
        return client_fail_with(client, MR_NOT_FOUND, "no such request is open");
    request_end_soon(client, open, MR_CANCELED);
    return MR_OK;
}

int mr_fd(const struct mr_client *client)
{
    return client == NULL || !client->connected ? -1 : client->poller;
}

enum mr_status mr_arm(struct mr_client *client)
{
    enum mr_status status = client_enter_alone(client);

    if (status != MR_OK)
        return status;
    bool news = client->stream_news;
    client->stream_news = false;
    if (!news && client->waiting_first == client->waiting_end && client_arm(client))
        return MR_OK;
    if (client->gone && client->requests.ending_first == NONE && client->waiting_first == client->waiting_end)
        return client_fail_with(client, MR_NO_NODE, client->gone_text);
    return client_fail_with(client, MR_AGAIN, "there is something to run for");
}
