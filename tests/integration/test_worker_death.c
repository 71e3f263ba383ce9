/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that are killed while clients count: nobody sees an error, every answer is the right one, and at last each
 * counter holds exactly what was acknowledged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <millrace/counter.h>
#include <millrace/raw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/live_node.h"
#include "tests/support/random.h"
#include "tests/support/wait.h"

#define JOBS_MAX 4
#define IN_FLIGHT 300
#define SHARED_EVERY 8 /* of so many increments one goes to the counter that all clients share */
#define ALLOWANCE 1000 /* a client counts no further than so many beyond the last kill: what is logged is replayed */

enum kind { BLOCKING, PIPELINED, FLEETING };

/* One client: a thread with a handle of its own. It counts in a counter of its own, in which every answer's value is
 * known beforehand, and now and then in one that all share. */
struct job {
    const struct node *node;
    const char *own, *shared; /* names */
    enum kind kind;
    pthread_t thread;
    atomic_bool stop;
    _Atomic uint64_t acknowledged; /* increments of `own` and `shared` */
    _Atomic uint64_t allowed;      /* how many it may begin */
    uint64_t own_count, shared_count;
    int64_t shared_value; /* the last one seen: it only grows */
    unsigned open;
    char failure[256]; /* empty: none */
};

static void fail_job(struct job *job, const char *what, const char *message)
{
    if (job->failure[0] == '\0')
        snprintf(job->failure, sizeof(job->failure), "%s, after %" PRIu64 " answers: %s", what,
                 atomic_load(&job->acknowledged), message);
}

static void own_answer(struct job *job, int64_t value)
{
    if (value != (int64_t)++job->own_count)
        fail_job(job, "a wrong value", "not the one before and one more");
    atomic_fetch_add(&job->acknowledged, 1);
}

static void shared_answer(struct job *job, int64_t value)
{
    if (value <= job->shared_value)
        fail_job(job, "a wrong value", "the shared counter ran backwards");
    job->shared_value = value;
    job->shared_count++;
    atomic_fetch_add(&job->acknowledged, 1);
}

/* May the next increment, after so many, begin? If there is nothing else to do (`wait`), waits until it may. */
static bool may_begin(struct job *job, uint64_t begun, bool wait)
{
    if (wait && !wait_for(begun < atomic_load(&job->allowed) || atomic_load(&job->stop)))
        fail_job(job, "not told to go on", "the test is stuck");
    return begun < atomic_load(&job->allowed) && !atomic_load(&job->stop);
}

static void count_blocking(struct job *job, mr_client *client, mr_counter *own, mr_counter *shared)
{
    for (uint64_t i = 1; may_begin(job, i - 1, true) && job->failure[0] == '\0'; i++) {
        int64_t value = 0;
        mr_counter *counter = i % SHARED_EVERY == 0 ? shared : own;
        if (mr_counter_increment(counter, 1, &value) != MR_OK)
            fail_job(job, "an increment failed", mr_message(client));
        else if (counter == own)
            own_answer(job, value);
        else
            shared_answer(job, value);
    }
}

static void met(struct job *job, const struct mr_result *result)
{
    job->open--;
    if (result->status == MR_OK && result->last)
        return;
    char text[160];
    snprintf(text, sizeof(text), "%s: %.*s", mr_status_name(result->status), (int)result->message.size,
             (const char *)result->message.data);
    fail_job(job, "an increment failed", text);
}

static void own_met(mr_client *client, const struct mr_result *result)
{
    (void)client;
    met(result->arg, result);
    own_answer(result->arg, result->as.number);
}

static void shared_met(mr_client *client, const struct mr_result *result)
{
    (void)client;
    met(result->arg, result);
    shared_answer(result->arg, result->as.number);
}

static void count_pipelined(struct job *job, mr_client *client, mr_counter *own, mr_counter *shared)
{
    uint64_t started = 0;

    while (job->failure[0] == '\0') {
        while (job->open < IN_FLIGHT && may_begin(job, started, job->open == 0)) {
            bool to_shared = (started + 1) % SHARED_EVERY == 0;
            struct mr_then then = {.done = to_shared ? shared_met : own_met, .arg = job};
            enum mr_status status = mr_counter_increment_start(to_shared ? shared : own, 1, then, NULL);
            if (status == MR_AGAIN)
                break;
            if (status != MR_OK) {
                fail_job(job, "an increment could not be started", mr_message(client));
                return;
            }
            started++;
            job->open++;
        }
        if (job->open == 0 && atomic_load(&job->stop))
            return;
        enum mr_status status = mr_run(client, (int64_t)WAIT_MS * 1000000, NULL);
        if (status != MR_OK)
            fail_job(job, status == MR_AGAIN ? "no answer came in time" : "mr_run failed", mr_message(client));
    }
}

/* A new handle, and so new channels and a new session, for every increment. */
static void count_fleeting(struct job *job)
{
    for (uint64_t i = 0; may_begin(job, i, true) && job->failure[0] == '\0'; i++) {
        mr_client *client = NULL;
        mr_counter *own = NULL;
        int64_t value = 0;
        if (mr_connect(job->node->socket, NULL, &client) != MR_OK || mr_counter_open(client, job->own, &own) != MR_OK ||
            mr_counter_increment(own, 1, &value) != MR_OK)
            fail_job(job, "an increment failed", mr_message(client));
        else
            own_answer(job, value);
        mr_close(client);
    }
}

static void *run_job(void *argument)
{
    struct job *job = argument;
    mr_client *client = NULL;
    mr_counter *own = NULL, *shared = NULL;

    if (job->kind == FLEETING) {
        count_fleeting(job);
        return NULL;
    }
    if (mr_connect(job->node->socket, NULL, &client) != MR_OK || mr_counter_open(client, job->own, &own) != MR_OK ||
        mr_counter_open(client, job->shared, &shared) != MR_OK)
        fail_job(job, "cannot begin", mr_message(client));
    else if (job->kind == PIPELINED)
        count_pipelined(job, client, own, shared);
    else
        count_blocking(job, client, own, shared);
    mr_close(client);
    return NULL;
}

static uint64_t acknowledged(struct job *jobs, unsigned count)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum += atomic_load(&jobs[i].acknowledged);
    return sum;
}

static void allow_more(struct job *jobs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        atomic_store(&jobs[i].allowed, atomic_load(&jobs[i].acknowledged) + ALLOWANCE);
}

static bool any_failed(struct job *jobs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (jobs[i].failure[0] != '\0')
            return true;
    return false;
}

static int64_t value_of(const struct node *node, const char *name)
{
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    int64_t value = -1;

    if (mr_connect(node->socket, NULL, &client) != MR_OK || mr_counter_open(client, name, &counter) != MR_OK ||
        mr_counter_get(counter, &value) != MR_OK)
        fail_msg("%s: %s", name, mr_message(client));
    mr_close(client);
    return value;
}

/* A name whose counter lives in this partition. */
static const char *name_in(const struct node *node, const char *stem, uint32_t partition)
{
    mr_client *client = NULL;
    uint32_t lives_in = 0;
    char *name = malloc(64);

    assert_non_null(name);
    assert_int_equal(mr_connect(node->socket, NULL, &client), MR_OK);
    for (unsigned i = 0; lives_in != partition; i++) {
        snprintf(name, 64, "%s-%u", stem, i);
        assert_int_equal(mr_partition_of(client, NULL, name, &lives_in), MR_OK);
    }
    mr_close(client);
    return name;
}

static void check_values(const struct node *node, struct job *jobs, unsigned count)
{
    uint64_t shared = 0;

    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(value_of(node, jobs[i].own), jobs[i].own_count);
        shared += jobs[i].shared_count;
    }
    assert_int_equal(value_of(node, jobs[0].shared), shared);
}

/* Kills workers, partition after partition, `kills` times in all: mostly after so many more acknowledged calls, each
 * fourth time as soon as the next worker is there, in the middle of its recovery. */
static void kill_while_counting(struct node *node, unsigned partitions, struct job *jobs, unsigned count,
                                unsigned kills)
{
    pid_t last[NODE_PARTITIONS_MAX] = {0};
    unsigned killed[NODE_PARTITIONS_MAX] = {0};

    for (unsigned n = 0; n < kills && !any_failed(jobs, count); n++) {
        uint32_t partition = 1 + n % partitions;
        allow_more(jobs, count);
        if (n / partitions % 4 != 3) {
            node_wait_worker(node, partition, last[partition - 1]);
            uint64_t until = acknowledged(jobs, count) + 1 + below(100 * count);
            allow_more(jobs, count); /* they may have come to the end of what they were allowed meanwhile */
            if (!wait_for(acknowledged(jobs, count) >= until || any_failed(jobs, count)))
                fail_msg("after %u kills nothing is acknowledged any more", n);
        }
        /* Not the same one twice: it is dead, and the node may not know yet. */
        assert_true(wait_for(node_partition(node, partition).pid > 0 &&
                             node_partition(node, partition).pid != last[partition - 1]));
        last[partition - 1] = node_kill_worker(node, partition);
        killed[partition - 1]++;
    }
    /* What was under way goes on. */
    uint64_t until = acknowledged(jobs, count) + 2 * IN_FLIGHT;
    allow_more(jobs, count);
    assert_true(wait_for(acknowledged(jobs, count) >= until || any_failed(jobs, count)));
    for (unsigned i = 0; i < count; i++)
        atomic_store(&jobs[i].stop, true);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(pthread_join(jobs[i].thread, NULL), 0);
        if (jobs[i].failure[0] != '\0')
            print_error("client %u: %s\n", i, jobs[i].failure);
    }
    assert_false(any_failed(jobs, count));
    for (uint32_t p = 1; p <= partitions; p++) {
        node_wait_worker(node, p, last[p - 1]);
        assert_int_equal(node_partition(node, p).restarts, killed[p - 1]);
    }
}

static void count_under_fire(const char *durability, unsigned partitions, unsigned clients, unsigned kills)
{
    static const enum kind kinds[] = {BLOCKING, PIPELINED, FLEETING, PIPELINED};
    struct node node;
    struct job jobs[JOBS_MAX];
    char number[16], stem[32];
    const char *const options[] = {"--durability", durability, "--partitions", number, NULL};

    snprintf(number, sizeof(number), "%u", partitions);
    node_begin(&node, options);
    for (unsigned i = 0; i < clients; i++) {
        snprintf(stem, sizeof(stem), "own-%u", i);
        jobs[i] = (struct job){.node = &node,
                               .own = name_in(&node, stem, 1 + i % partitions),
                               .shared = name_in(&node, "shared", partitions),
                               .kind = kinds[i % 4]};
    }
    for (unsigned i = 0; i < clients; i++)
        assert_int_equal(pthread_create(&jobs[i].thread, NULL, run_job, &jobs[i]), 0);
    kill_while_counting(&node, partitions, jobs, clients, kills);
    check_values(&node, jobs, clients);
    assert_int_equal(node_stop(&node), 0);
    if (strcmp(durability, "memory") != 0) {
        node_start(&node);
        check_values(&node, jobs, clients);
        assert_int_equal(node_stop(&node), 0);
    }
    for (unsigned i = 0; i < clients; i++) {
        free((char *)(uintptr_t)jobs[i].own);
        free((char *)(uintptr_t)jobs[i].shared);
    }
    node_end(&node);
}

static void test_one_blocking_client(void **state)
{
    (void)state;
    count_under_fire("sync", 1, 1, 100);
}

static void test_several_clients(void **state)
{
    (void)state;
    count_under_fire("sync", 1, 4, 50);
}

static void test_async_over_two_partitions(void **state)
{
    (void)state;
    count_under_fire("async", 2, 4, 60);
}

static void test_memory(void **state)
{
    (void)state;
    count_under_fire("memory", 1, 4, 100);
}

static void test_memory_over_two_partitions(void **state)
{
    (void)state;
    count_under_fire("memory", 2, 4, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_blocking_client),        cmocka_unit_test(test_several_clients),
        cmocka_unit_test(test_async_over_two_partitions),  cmocka_unit_test(test_memory),
        cmocka_unit_test(test_memory_over_two_partitions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
