/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that behave: the honest one, whose every answer is checked and timed, and calm ones. See lives.h. */
#include "tests/attack/lives.h"

#include <inttypes.h>
#include <millrace/counter.h>
#include <millrace/map.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/wait.h"

#define KEYS 64
#define BATCH 64
#define CALLS_AT_ONCE 16 /* of the honest one, then it pauses */
#define WORK_NS 10e6     /* at most, of calm ones between calls */
#define HOUR INT64_C(3600000000000)

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- the honest one ---- */

struct honest {
    struct board *board;
    struct honest_account *account;
    mr_client *client;
    mr_counter *counter;
    mr_map *map;
    int64_t count;
    uint64_t written[KEYS]; /* 0: never */
};

static int fail(struct honest *honest, const char *format, ...)
{
    struct honest_account *account = honest->account;
    va_list arguments;

    va_start(arguments, format);
    int used = vsnprintf(account->failure, sizeof(account->failure), format, arguments);
    va_end(arguments);
    snprintf(account->failure + used, sizeof(account->failure) - (size_t)used, " (library: %s)",
             mr_message(honest->client));
    atomic_store(&honest->board->stop, true);
    return 1;
}

static void name_key(char text[16], unsigned key)
{
    snprintf(text, 16, "key %u", key);
}

static void write_value(char text[200], unsigned key, uint64_t number)
{
    snprintf(text, 200, "%u is %" PRIu64 "%*s", key, number, (int)(number % 150), "");
}

static int check_key(struct honest *honest, unsigned key)
{
    char name[16], value[200];
    struct mr_entry entry;
    enum mr_status status;

    name_key(name, key);
    write_value(value, key, honest->written[key]);
    status = mr_map_get(honest->map, mr_text(name), &entry);
    if (honest->written[key] == 0)
        return status == MR_NOT_FOUND ? 0 : fail(honest, "%s, never written: %s", name, mr_status_name(status));
    if (status != MR_OK)
        return fail(honest, "%s: %s", name, mr_status_name(status));
    if (entry.value.size != strlen(value) || memcmp(entry.value.data, value, entry.value.size) != 0)
        return fail(honest, "%s holds \"%.*s\", not \"%s\"", name, (int)entry.value.size,
                    (const char *)entry.value.data, value);
    return 0;
}

static int count_once(struct honest *honest)
{
    int64_t value = 0;
    enum mr_status status = mr_counter_increment(honest->counter, 1, &value);

    if (status != MR_OK)
        return fail(honest, "increment %" PRId64 ": %s", honest->count + 1, mr_status_name(status));
    if (value != ++honest->count)
        return fail(honest, "increment %" PRId64 " gives %" PRId64, honest->count, value);
    return 0;
}

static int put_once(struct honest *honest, unsigned key, uint64_t number)
{
    char name[16], value[200];

    name_key(name, key);
    write_value(value, key, number);
    enum mr_status status = mr_map_put(honest->map, mr_text(name), mr_text(value), NULL, NULL);
    if (status != MR_OK)
        return fail(honest, "put %s: %s", name, mr_status_name(status));
    honest->written[key] = number;
    return 0;
}

/* What the attackers were at when a call turned out slow. */
static void note_slow(struct board *board)
{
    for (unsigned i = 0; i < ATTACKERS; i++)
        board->attackers[i].slow[atomic_load(&board->attackers[i].attack)]++;
}

/* Only increments are timed: one kind of call, the same beside everybody. The pauses leave the others of what may be
 * one processor for all of them. */
static int live(struct honest *honest)
{
    struct honest_account *account = honest->account;
    struct board *board = honest->board;

    for (uint64_t call = 1; !atomic_load(&board->finish); call++) {
        unsigned key = (unsigned)(call * 7 % KEYS);
        uint32_t beside = atomic_load(&board->beside);
        atomic_store(&account->beside, beside);
        uint64_t begun = clock_ns(CLOCK_MONOTONIC);
        if (count_once(honest) != 0)
            return 1;
        uint64_t took = clock_ns(CLOCK_MONOTONIC) - begun;
        histogram_add(&account->latency[beside], took);
        if (beside == BESIDE_ATTACK && took > atomic_load(&board->slow_ns))
            note_slow(board);
        if (call % 4 == 0 && put_once(honest, key, call) != 0)
            return 1;
        if (call % 8 == 0 && check_key(honest, (unsigned)(call * 13 % KEYS)) != 0)
            return 1;
        atomic_store(&account->calls, call);
        if (call % CALLS_AT_ONCE == 0)
            wait_pause();
    }
    return 0;
}

static int look_once_more(struct honest *honest)
{
    int64_t value = 0;

    if (mr_counter_get(honest->counter, &value) != MR_OK || value != honest->count)
        return fail(honest, "at last the counter is %" PRId64 ", not %" PRId64, value, honest->count);
    for (unsigned key = 0; key < KEYS; key++)
        if (check_key(honest, key) != 0)
            return 1;
    return 0;
}

int honest_live(struct board *board)
{
    struct honest honest = {.board = board, .account = &board->honest};
    struct mr_options options = {
        .size = sizeof(options), .call_timeout_ns = (int64_t)board->wait_ms * 1000000, .reconnect_ns = MR_NO_RECONNECT};
    int result;

    if (mr_connect(board->socket, &options, &honest.client) != MR_OK ||
        mr_counter_open(honest.client, "the honest one's counter", &honest.counter) != MR_OK ||
        mr_map_open(honest.client, "the honest one's map", &honest.map) != MR_OK)
        return fail(&honest, "cannot begin");
    atomic_store(&board->honest.ready, true);
    result = live(&honest) != 0 || look_once_more(&honest) != 0;
    mr_close(honest.client);
    atomic_store(&board->honest.ended, result == 0);
    return result;
}

/* ---- calm ones ---- */

static void counted(mr_client *client, const struct mr_result *result)
{
    uint64_t *well = result->arg;

    (void)client;
    *well += result->status == MR_OK;
}

/* A batch as programs send them; false: not all of it was well. */
static bool count_batch(mr_client *client, mr_counter *counter)
{
    uint64_t well = 0, started = 0;

    while (started < BATCH &&
           mr_counter_increment_start(counter, 1, (struct mr_then){.done = counted, .arg = &well}, NULL) == MR_OK)
        started++;
    while (well < started)
        if (mr_run(client, HOUR, NULL) != MR_OK)
            return false;
    return started > 0;
}

/* Wall and processor time. */
struct times {
    double passed, used;
};

static struct times times_since(const struct times *before)
{
    return (struct times){.passed = (double)clock_ns(CLOCK_MONOTONIC) - before->passed,
                          .used = (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) - before->used};
}

/* Whoever waits for answers uses less than its share of a processor: it makes up for that by computing, as programs do
 * between calls. */
static void compute(const struct times *all, double share)
{
    const struct times never = {0, 0};
    double lacking = (share * all->passed - all->used) / (1 - (share < 0.9 ? share : 0.9));
    double end = times_since(&never).used + (lacking < WORK_NS ? lacking : WORK_NS);

    while (times_since(&never).used < end)
        continue;
}

int calm_live(struct board *board, unsigned number)
{
    struct calm_account *account = &board->calm[number];
    const struct times never = {0, 0}, begun = times_since(&never);
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    char name[32];

    snprintf(name, sizeof(name), "calm %u", number);
    if (setgid(NEIGHBOUR) != 0 || setuid(NEIGHBOUR) != 0 || mr_connect(board->socket, NULL, &client) != MR_OK ||
        mr_counter_open(client, name, &counter) != MR_OK) {
        snprintf(account->failure, sizeof(account->failure), "cannot begin: %s", mr_message(client));
        return 1;
    }
    while (!atomic_load(&board->stop)) {
        struct times all = times_since(&begun), before = times_since(&never);
        if (all.used >= board->share * all.passed) {
            wait_pause();
            continue;
        }
        if (!count_batch(client, counter)) {
            snprintf(account->failure, sizeof(account->failure), "%s", mr_message(client));
            return 1;
        }
        atomic_fetch_add(&account->calls, BATCH);
        struct times batch = times_since(&before);
        all = times_since(&begun);
        if (batch.used < board->share * batch.passed)
            compute(&all, board->share);
    }
    mr_close(client);
    return 0;
}
