/* SPDX-License-Identifier: Apache-2.0 */
/* The fan-out of events: one process puts, the others listen, each on several streams of every key of the same map. An
 * operation is one event delivered to one stream; its latency counts from the start of the put, whose time stands in
 * the value. The writer keeps no more than `pipeline` puts ahead of the slowest listening process. */
#include "bench/load/bench.h"

#include <millrace/map.h>

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAP_NAME "bench-events"
#define KEYS 1000
/* Events that are taken of a stream before the next one's turn, and then that of the other processes that may have this
 * core: if one took all that there is, the others would keep the writer waiting, which goes by the slowest. */
#define AT_ONCE 20

static mr_map *open_map(struct bench_client *account, const struct bench_options *options,
                        const struct bench_node *node, mr_client **client)
{
    struct mr_options wanted = {.size = sizeof(wanted), .ring_bytes = options->ring_bytes};
    mr_map *map;

    if (mr_connect(node->socket, &wanted, client) != MR_OK || mr_map_open(*client, MAP_NAME, &map) != MR_OK)
        bench_client_fail(account, "cannot connect: %s", mr_message(*client));
    return map;
}

static void wait_for_start(struct bench_shared *shared, struct bench_client *account)
{
    atomic_store(&account->ready, true);
    while (atomic_load(&shared->phase) == PHASE_SETTING_UP)
        usleep(1000);
}

/* ---- listening ---- */

/* How many of the listeners are this process's. */
static unsigned share_of(const struct bench_options *options, unsigned number)
{
    return options->listeners / options->clients + (number < options->listeners % options->clients);
}

static void count(_Atomic uint64_t *total, uint64_t more)
{
    atomic_store_explicit(total, atomic_load_explicit(total, memory_order_relaxed) + more, memory_order_relaxed);
}

struct listener {
    struct bench_shared *shared;
    struct bench_client *account;
    mr_client *client;
    unsigned sample, untimed; /* one event in so many is timed; that go untimed before the next */
    uint64_t now;             /* read once for what has come at once to all streams; 0: not yet */
};

static void time_one(struct listener *listener, const struct mr_event *event)
{
    uint64_t started;

    listener->untimed = listener->sample;
    memcpy(&started, event->entry.value.data, sizeof(started));
    if (listener->now <= started) /* it came later than what came first */
        listener->now = bench_now();
    histogram_add(&listener->account->latency, listener->now - started);
}

/* Takes what there is; true: there may be more. Accounts are kept once for what has come at once. */
static bool drain(struct listener *listener, mr_stream *stream)
{
    struct bench_shared *shared = listener->shared;
    struct bench_client *account = listener->account;
    bool measuring = atomic_load_explicit(&shared->phase, memory_order_relaxed) == PHASE_MEASURING;
    enum mr_status status = MR_OK;
    struct mr_event event;
    uint64_t taken = 0;

    if (measuring && atomic_load(&shared->round) != atomic_load_explicit(&account->round, memory_order_relaxed))
        bench_client_round(shared, account);
    for (unsigned n = 0; n < AT_ONCE && (status = mr_stream_next(stream, MR_NO_WAIT, &event)) == MR_OK; n++) {
        if (event.type == MR_LISTENING || event.entry.value.size < sizeof(uint64_t))
            continue;
        taken++;
        if (measuring && --listener->untimed == 0)
            time_one(listener, &event);
    }
    if (status != MR_OK && status != MR_AGAIN)
        bench_client_fail(account, "a stream has ended: %s: %s", mr_status_name(status), mr_message(listener->client));
    count(&account->operations, taken);
    if (measuring)
        count(&account->counted, taken);
    return status == MR_OK;
}

void bench_listener_run(const struct bench_options *options, const struct bench_node *node, struct bench_shared *shared,
                        unsigned number)
{
    struct listener listener = {
        .shared = shared, .account = &shared->clients[number], .sample = options->sample, .untimed = options->sample};
    unsigned share = share_of(options, number);
    mr_stream **streams = calloc(share + 1, sizeof(mr_stream *));
    struct mr_event event;
    mr_map *map = open_map(listener.account, options, node, &listener.client);

    for (unsigned n = 0; n < share; n++)
        if (mr_map_events(map, (struct mr_bytes){NULL, 0}, false, &streams[n]) != MR_OK ||
            mr_stream_next(streams[n], MR_FOR_EVER, &event) != MR_OK)
            bench_client_fail(listener.account, "cannot listen: %s", mr_message(listener.client));
    wait_for_start(shared, listener.account);
    while (atomic_load_explicit(&shared->phase, memory_order_acquire) != PHASE_END) {
        bool more = false;
        listener.now = 0;
        for (unsigned n = 0; n < share; n++)
            more |= drain(&listener, streams[n]);
        if (more)
            sched_yield();
        else
            mr_run(listener.client, (int64_t)(NS_PER_SECOND / 10), NULL);
    }
    mr_detach(listener.client);
    _exit(0);
}

/* ---- writing ---- */

struct writer {
    struct bench_client *account;
    unsigned in_flight;
    bool ending; /* what is open then is called off, which is no error */
};

static void written(mr_client *client, const struct mr_result *result)
{
    struct writer *writer = result->arg;

    (void)client;
    writer->in_flight--;
    if (result->status != MR_OK && !writer->ending && atomic_fetch_add(&writer->account->errors, 1) == 0)
        snprintf(writer->account->first_error, sizeof(writer->account->first_error), "%s",
                 mr_status_name(result->status));
}

/* The puts of which every listening process has had all deliveries. */
static uint64_t slowest(const struct bench_options *options, const struct bench_shared *shared)
{
    uint64_t least = UINT64_MAX;

    for (unsigned n = 0; n < options->clients; n++) {
        unsigned share = share_of(options, n);
        uint64_t puts = share > 0 ? atomic_load(&shared->clients[n].operations) / share : UINT64_MAX;
        least = puts < least ? puts : least;
    }
    return least;
}

void bench_writer_run(const struct bench_options *options, const struct bench_node *node, struct bench_shared *shared,
                      unsigned number)
{
    struct writer writer = {.account = &shared->clients[number]};
    size_t size = options->value_size > sizeof(uint64_t) ? options->value_size : sizeof(uint64_t);
    uint8_t *value = calloc(1, size);
    uint64_t puts = 0;
    char keys[KEYS][9];
    mr_client *client;
    mr_map *map = open_map(writer.account, options, node, &client);

    for (unsigned n = 0; n < KEYS; n++)
        snprintf(keys[n], sizeof(keys[n]), "%08u", n);
    wait_for_start(shared, writer.account);
    while (atomic_load_explicit(&shared->phase, memory_order_acquire) != PHASE_END) {
        while (puts < slowest(options, shared) + options->pipeline && writer.in_flight < options->pipeline) {
            uint64_t now = bench_now();
            memcpy(value, &now, sizeof(now));
            struct mr_bytes key = {keys[puts % KEYS], sizeof(keys[0]) - 1};
            if (mr_map_put_start(map, key, (struct mr_bytes){value, size}, NULL,
                                 (struct mr_then){.done = written, .arg = &writer}, NULL) != MR_OK)
                break;
            writer.in_flight++;
            puts++;
        }
        if (writer.in_flight == 0)
            sched_yield(); /* to the listeners, who may have this core */
        mr_run(client, writer.in_flight > 0 ? (int64_t)(NS_PER_SECOND / 1000) : MR_NO_WAIT, NULL);
    }
    writer.ending = true;
    mr_detach(client);
    _exit(0);
}
