/* SPDX-License-Identifier: Apache-2.0 */
/* A client's loop over counters or maps, one of them in each partition.
 *
 * Closed loop: `pipeline` requests are in flight, and each answer starts the next. Open loop (a rate): requests are
 * meant to start at fixed times, and the time an answer took is counted from then, whether or not the request could be
 * started at that time; so a stall shows in every request that it delayed, also in those that it kept from being
 * answered before the measuring ended. */
#include "bench/load/bench.h"

#include <millrace/counter.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEY_BYTES 16
#define LOOK_EVERY (NS_PER_SECOND / 200) /* the open loop waits no longer without looking what the parent wants */

struct flight {
    struct load *load;
    uint64_t intended; /* when it was to start; 0: not timed */
    struct flight *next;
};

struct load {
    const struct bench_options *options;
    struct bench_shared *shared;
    struct bench_client *account;
    unsigned number;
    mr_client *client;
    unsigned partitions;
    mr_counter *counters[BENCH_PARTITIONS_MAX];
    mr_map *maps[BENCH_PARTITIONS_MAX];
    struct flight *flights, *idle;
    unsigned in_flight;
    unsigned place;   /* the service that the next one goes to */
    unsigned untimed; /* requests up to the next one that is timed */
    uint64_t random;
    double zipf_zeta, zipf_eta, zipf_alpha, zipf_half; /* of the skew */
    uint8_t *value;
    bool measuring, ending;
};

uint64_t bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

void bench_client_fail(struct bench_client *client, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(client->why, sizeof(client->why), format, arguments);
    va_end(arguments);
    atomic_store(&client->failed, true);
    _exit(1);
}

void bench_client_round(struct bench_shared *shared, struct bench_client *client)
{
    uint32_t round = atomic_load(&shared->round);

    if (round != atomic_load(&client->round)) {
        memset(&client->latency, 0, sizeof(client->latency));
        atomic_store(&client->counted, 0);
        atomic_store(&client->round, round);
    }
}

/* ---- keys ---- */

/* xorshift64*: a stream of its own for each client. */
static uint64_t next_random(struct load *load)
{
    load->random ^= load->random >> 12;
    load->random ^= load->random << 25;
    load->random ^= load->random >> 27;
    return load->random * UINT64_C(0x2545f4914f6cdd1d);
}

/* Zipf's distribution after Gray et al., "Quickly generating billion-record synthetic databases" (1994). */
static void zipf_prepare(struct load *load)
{
    double skew = load->options->skew, keys = (double)load->options->keys;

    if (skew == 0)
        return;
    for (uint64_t n = 1; n <= load->options->keys; n++)
        load->zipf_zeta += 1 / pow((double)n, skew);
    load->zipf_alpha = 1 / (1 - skew);
    load->zipf_half = 1 + pow(0.5, skew);
    load->zipf_eta = (1 - pow(2 / keys, 1 - skew)) / (1 - load->zipf_half / load->zipf_zeta);
}

static uint64_t next_key(struct load *load)
{
    uint64_t keys = load->options->keys;

    if (load->options->skew == 0)
        return next_random(load) % keys;
    double u = (double)(next_random(load) >> 11) / 9007199254740992.0;
    double uz = u * load->zipf_zeta;
    if (uz < 1)
        return 0;
    if (uz < load->zipf_half)
        return 1;
    uint64_t rank = (uint64_t)((double)keys * pow(load->zipf_eta * u - load->zipf_eta + 1, load->zipf_alpha));
    return rank < keys ? rank : keys - 1;
}

/* 16 hexadecimal digits, spread so that neighbours in rank are none in the key. */
static void write_key(char key[KEY_BYTES], uint64_t number)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t bits = number * UINT64_C(0x9e3779b97f4a7c15);

    for (int n = 0; n < KEY_BYTES; n++)
        key[n] = digits[bits >> (60 - 4 * n) & 15];
}

/* ---- requests ---- */

static void answered(mr_client *client, const struct mr_result *result);

static bool start(struct load *load, struct flight *flight)
{
    struct mr_then then = {.done = answered, .arg = flight};
    unsigned place = load->place;
    char text[KEY_BYTES];
    struct mr_bytes key = {text, KEY_BYTES}, value = {load->value, load->options->value_size};
    enum mr_status status = MR_INVALID;

    switch (load->options->operation) {
    case BENCH_INCREMENT:
        status = mr_counter_increment_start(load->counters[place], 1, then, NULL);
        break;
    case BENCH_COUNTER_GET:
        status = mr_counter_get_start(load->counters[place], then, NULL);
        break;
    case BENCH_PUT:
        write_key(text, next_key(load));
        status = mr_map_put_start(load->maps[place], key, value, NULL, then, NULL);
        break;
    case BENCH_GET:
        write_key(text, next_key(load));
        status = mr_map_get_start(load->maps[place], key, then, NULL);
        break;
    case BENCH_EVENTS: /* has loops of its own */
        break;
    }
    if (status == MR_AGAIN)
        return false;
    if (status != MR_OK)
        bench_client_fail(load->account, "cannot start a request: %s", mr_message(load->client));
    load->place = place + 1 < load->partitions ? place + 1 : 0;
    load->in_flight++;
    return true;
}

/* Starts one that is meant to begin at `intended`, or now. False: no room just now. */
static bool start_next(struct load *load, uint64_t intended)
{
    struct flight *flight = load->idle;

    flight->intended = 0;
    if (intended != 0)
        flight->intended = intended;
    else if (load->untimed == 0)
        flight->intended = bench_now();
    load->idle = flight->next;
    if (start(load, flight)) {
        load->untimed = (load->untimed > 0 ? load->untimed : load->options->sample) - 1;
        return true;
    }
    flight->intended = 0;
    flight->next = load->idle;
    load->idle = flight;
    return false;
}

static void answered(mr_client *client, const struct mr_result *result)
{
    struct flight *flight = result->arg;
    struct load *load = flight->load;
    struct bench_client *account = load->account;

    (void)client;
    bool well = result->status == MR_OK;
    if (!well && !load->ending) {
        if (atomic_fetch_add(&account->errors, 1) == 0)
            snprintf(account->first_error, sizeof(account->first_error), "%s: %.*s", mr_status_name(result->status),
                     (int)result->message.size, (const char *)result->message.data);
    }
    uint64_t operations = atomic_load_explicit(&account->operations, memory_order_relaxed) + 1;
    atomic_store_explicit(&account->operations, operations, memory_order_relaxed);
    if (load->measuring && well) {
        atomic_store_explicit(&account->counted, atomic_load_explicit(&account->counted, memory_order_relaxed) + 1,
                              memory_order_relaxed);
        if (flight->intended != 0)
            histogram_add(&account->latency, bench_now() - flight->intended);
    }
    load->in_flight--;
    flight->intended = 0;
    flight->next = load->idle;
    load->idle = flight;
    if (load->options->rate == 0 && !load->ending)
        start_next(load, 0);
}

/* ---- setting up ---- */

/* A name that lives in this partition. */
static void name_in(struct load *load, unsigned partition, const char *kind, char *name, size_t size)
{
    uint32_t found = 0;

    for (unsigned n = 0; found != partition; n++) {
        snprintf(name, size, "%s-%u", kind, n);
        if (mr_partition_of(load->client, NULL, name, &found) != MR_OK)
            bench_client_fail(load->account, "%s", mr_message(load->client));
    }
}

static void open_services(struct load *load)
{
    bool counter = load->options->operation == BENCH_INCREMENT || load->options->operation == BENCH_COUNTER_GET;
    char name[64];

    load->partitions = mr_partitions(load->client);
    if (load->partitions > BENCH_PARTITIONS_MAX)
        load->partitions = BENCH_PARTITIONS_MAX;
    for (unsigned p = 0; p < load->partitions; p++) {
        name_in(load, p + 1, counter ? "bench-counter" : "bench-map", name, sizeof(name));
        enum mr_status status = counter ? mr_counter_open(load->client, name, &load->counters[p])
                                        : mr_map_open(load->client, name, &load->maps[p]);
        if (status != MR_OK)
            bench_client_fail(load->account, "cannot open %s: %s", name, mr_message(load->client));
    }
}

static void stored(mr_client *client, const struct mr_result *result)
{
    struct load *load = result->arg;

    (void)client;
    if (result->status != MR_OK)
        bench_client_fail(load->account, "cannot fill the map: %s", mr_status_name(result->status));
    load->in_flight--;
}

/* The first client puts every key once, so that gets find them and puts meet a map of its full size. */
static void fill_maps(struct load *load)
{
    char text[KEY_BYTES];
    struct mr_bytes key = {text, KEY_BYTES}, value = {load->value, load->options->value_size};

    for (uint64_t n = 0; n < load->options->keys * load->partitions;) {
        write_key(text, n / load->partitions);
        enum mr_status status = mr_map_put_start(load->maps[n % load->partitions], key, value, NULL,
                                                 (struct mr_then){.done = stored, .arg = load}, NULL);
        if (status == MR_OK) {
            load->in_flight++;
            n++;
        } else if (status != MR_AGAIN || mr_run(load->client, MR_FOR_EVER, NULL) != MR_OK) {
            bench_client_fail(load->account, "cannot fill the map: %s", mr_message(load->client));
        }
        if (load->in_flight >= 4096)
            mr_run(load->client, MR_FOR_EVER, NULL);
    }
    while (load->in_flight > 0)
        if (mr_run(load->client, MR_FOR_EVER, NULL) == MR_NO_NODE)
            bench_client_fail(load->account, "the node has gone");
}

static void set_up(struct load *load)
{
    const struct bench_options *options = load->options;

    load->random = (load->number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    load->value = calloc(1, options->value_size + 1);
    load->flights = calloc(options->pipeline, sizeof(*load->flights));
    if (load->value == NULL || load->flights == NULL)
        bench_client_fail(load->account, "no memory");
    memset(load->value, 'v', options->value_size);
    for (unsigned n = 0; n < options->pipeline; n++) {
        load->flights[n] = (struct flight){.load = load, .next = load->idle};
        load->idle = &load->flights[n];
    }
    zipf_prepare(load);
}

static void connect_node(struct load *load, const struct bench_node *node)
{
    struct mr_options wanted = {.size = sizeof(wanted), .ring_bytes = load->options->ring_bytes};

    if (mr_connect(node->socket, &wanted, &load->client) != MR_OK)
        bench_client_fail(load->account, "cannot connect: %s", mr_message(load->client));
    open_services(load);
    if (load->number == 0 && load->maps[0] != NULL)
        fill_maps(load);
}

/* ---- the loops ---- */

/* What the parent wants; false: the end. */
static bool look(struct load *load)
{
    uint32_t phase = atomic_load_explicit(&load->shared->phase, memory_order_acquire);
    uint32_t round = atomic_load_explicit(&load->shared->round, memory_order_relaxed);
    bool measuring = phase == PHASE_MEASURING;

    if (measuring != load->measuring || round != atomic_load_explicit(&load->account->round, memory_order_relaxed)) {
        bench_client_round(load->shared, load->account);
        load->measuring = measuring;
    }
    return phase != PHASE_END;
}

static void run_closed(struct load *load)
{
    while (look(load)) {
        while (load->idle != NULL && start_next(load, 0))
            ;
        if (mr_run(load->client, MR_FOR_EVER, NULL) == MR_NO_NODE)
            bench_client_fail(load->account, "the node has gone: %s", mr_message(load->client));
    }
}

/* A measuring is over. What it leaves unanswered, or has not even let start, counts with the time it has waited so far
 * where that is longer than any answer took: nobody may look good by not answering. (What has waited less tells nothing
 * yet.) `due`: the first that was not started. */
static void count_unanswered(struct load *load, uint64_t begin, uint64_t due, double interval)
{
    struct histogram *latency = &load->account->latency;
    uint64_t now = bench_now(), longest = latency->max;

    for (unsigned n = 0; n < load->options->pipeline; n++) {
        uint64_t intended = load->flights[n].intended;
        if (intended != 0 && now > intended && now - intended > longest)
            histogram_add(latency, now - intended);
    }
    for (;; due++) {
        uint64_t intended = begin + (uint64_t)((double)due * interval);
        if (now <= intended || now - intended <= longest)
            return;
        histogram_add(latency, now - intended);
    }
}

static void run_open(struct load *load)
{
    double interval = (double)NS_PER_SECOND * load->options->clients / load->options->rate;
    uint64_t begin = bench_now(), due = 0; /* due: requests that have become due so far */
    bool measured = false;

    while (look(load)) {
        if (measured && !load->measuring)
            count_unanswered(load, begin, due, interval);
        measured = load->measuring;
        uint64_t now = bench_now();
        uint64_t intended = begin + (uint64_t)((double)due * interval);
        while (intended <= now && load->idle != NULL && start_next(load, intended))
            intended = begin + (uint64_t)((double)++due * interval);
        uint64_t wait = intended > now ? intended - now : 0;
        wait = wait < LOOK_EVERY ? wait : LOOK_EVERY;
        enum mr_status status =
            mr_run(load->client, load->in_flight > 0 && wait > 0 ? (int64_t)wait : MR_NO_WAIT, NULL);
        if (status == MR_NO_NODE)
            bench_client_fail(load->account, "the node has gone: %s", mr_message(load->client));
    }
}

void bench_load_run(const struct bench_options *options, const struct bench_node *node, struct bench_shared *shared,
                    unsigned number)
{
    struct load load = {.options = options, .shared = shared, .account = &shared->clients[number], .number = number};

    set_up(&load);
    connect_node(&load, node);
    atomic_store(&load.account->ready, true);
    while (atomic_load(&shared->phase) == PHASE_SETTING_UP)
        usleep(1000);
    if (options->rate == 0)
        run_closed(&load);
    else
        run_open(&load);
    load.ending = true;
    while (load.in_flight > 0 && mr_run(load.client, MR_FOR_EVER, NULL) != MR_NO_NODE)
        ;
    mr_close(load.client);
    _exit(0);
}
