/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that stop, or die, with their rings full: others go on as if nothing were, what the node keeps for the dead
 * is freed, and whoever was only stopped finds every answer once it goes on, also over a worker's death. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <millrace/map.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/live_node.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"

#define STUCK 3
#define CHANNELS 2 /* of each: one for its calls, one for its helper thread */
#define CALLS 500

static struct node node;

/* What a child tells of itself; shared memory. */
struct story {
    char name[32];
    _Atomic uint64_t started;  /* increments in its ring when it stops itself */
    _Atomic bool full;         /* it is about to */
    _Atomic uint64_t answered; /* after it went on */
    _Atomic int64_t last;      /* value */
};
static struct story *stories;

static void answered(mr_client *client, const struct mr_result *result)
{
    struct story *story = result->arg;

    (void)client;
    if (result->status == MR_OK && result->as.number == atomic_load(&story->last) + 1) {
        atomic_store(&story->last, result->as.number);
        atomic_fetch_add(&story->answered, 1);
    }
}

/* The child: fills its ring without ever reading an answer, stops itself, and when it goes on meets all answers. */
static int fill_and_stop(void *argument)
{
    struct story *story = argument;
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    /* Nobody renews it while this process is stopped. */
    const struct mr_options long_session = {.size = sizeof(long_session),
                                            .session_timeout_ns = 3600 * (int64_t)MR_SECOND};
    enum mr_status status;
    unsigned full = 0;

    if (mr_connect(node.socket, &long_session, &client) != MR_OK ||
        mr_counter_open(client, story->name, &counter) != MR_OK)
        return 1;
    /* The node empties the ring as long as it has room for the answers: full is when it stays so. */
    while (full < 100) {
        status = mr_counter_increment_start(counter, 1, (struct mr_then){.done = answered, .arg = story}, NULL);
        if (status == MR_OK) {
            atomic_fetch_add(&story->started, 1);
            full = 0;
        } else if (status == MR_AGAIN) {
            full++;
            mr_flush(client);
            wait_pause();
        } else {
            return 2;
        }
    }
    mr_flush(client);
    /* Who stops before his helper thread has its channel may have half of one. */
    if (!wait_for(node_partition(&node, 1).channels == CHANNELS * STUCK))
        return 4;
    atomic_store(&story->full, true);
    raise(SIGSTOP);
    while (atomic_load(&story->answered) < atomic_load(&story->started))
        if (mr_run(client, (int64_t)WAIT_MS * 1000000, NULL) != MR_OK)
            return 3;
    mr_close(client);
    return 0;
}

/* Another client's whole life. */
static void others_go_on(const char *name)
{
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    mr_map *map = NULL;
    int64_t before = 0, value = 0;

    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, name, &counter), MR_OK);
    assert_int_equal(mr_map_open(client, "everybodys", &map), MR_OK);
    assert_int_equal(mr_counter_get(counter, &before), MR_OK);
    for (unsigned i = 1; i <= CALLS; i++) {
        assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
        assert_int_equal(value, before + i);
    }
    for (unsigned i = 0; i < CALLS / 10; i++)
        assert_int_equal(mr_map_put(map, mr_text("key"), mr_text("value"), NULL, NULL), MR_OK);
    mr_close(client);
}

static void test_full_rings(void **state)
{
    const char *const options[] = {"--durability", *state, "--ring-bytes", "64K", "--max-payload", "16K", NULL};
    pid_t children[STUCK];

    node_begin(&node, options);
    uint64_t channels = node_partition(&node, 1).channels;
    assert_int_equal(channels, 0);
    for (unsigned i = 0; i < STUCK; i++) {
        stories[i] = (struct story){0};
        snprintf(stories[i].name, sizeof(stories[i].name), "stuck-%u", i);
        children[i] = fork_run(fill_and_stop, &stories[i]);
    }
    for (unsigned i = 0; i < STUCK; i++) {
        assert_true(wait_for(atomic_load(&stories[i].full) && process_is_stopped(children[i])));
        assert_true(atomic_load(&stories[i].started) > 100);
    }
    others_go_on("other");
    assert_true(wait_for(node_partition(&node, 1).channels == CHANNELS * STUCK)); /* the other's are gone again */

    /* the worker dies under them: its successor finds full rings */
    pid_t dead = node_kill_worker(&node, 1);
    node_wait_worker(&node, 1, dead);
    others_go_on("other");

    /* one dies stopped: what it had is freed */
    assert_int_equal(kill(children[0], SIGKILL), 0);
    assert_int_equal(fork_wait(children[0], WAIT_MS), 128 + SIGKILL);
    assert_true(wait_for(node_partition(&node, 1).channels == CHANNELS * (STUCK - 1)));
    others_go_on("other");

    /* the others go on, and are answered all that they asked */
    for (unsigned i = 1; i < STUCK; i++)
        assert_int_equal(kill(children[i], SIGCONT), 0);
    for (unsigned i = 1; i < STUCK; i++) {
        assert_int_equal(fork_wait(children[i], WAIT_MS), 0);
        assert_int_equal(atomic_load(&stories[i].answered), atomic_load(&stories[i].started));
    }
    assert_true(wait_for(node_partition(&node, 1).channels == 0));
    assert_int_equal(node_partition(&node, 1).restarts, 1);
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

/* Counts without end, for its parent to kill. */
static int count_for_ever(void *argument)
{
    struct story *story = argument;
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    int64_t value = 0;

    if (mr_connect(node.socket, NULL, &client) != MR_OK || mr_counter_open(client, story->name, &counter) != MR_OK)
        return 1;
    while (mr_counter_increment(counter, 1, &value) == MR_OK)
        atomic_store(&story->last, value);
    return 2;
}

static void test_clients_die_at_any_moment(void **state)
{
    const char *const options[] = {"--durability", *state, "--partitions", "2", NULL};

    node_begin(&node, options);
    stories[0] = (struct story){.name = "mortal"};
    for (unsigned n = 0; n < 30; n++) {
        int64_t before = atomic_load(&stories[0].last);
        pid_t child = fork_run(count_for_ever, &stories[0]);
        assert_true(wait_for(atomic_load(&stories[0].last) >= before + 1 + n % 7));
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(fork_wait(child, WAIT_MS), 128 + SIGKILL);
    }
    for (uint32_t p = 1; p <= 2; p++) {
        assert_true(wait_for(node_partition(&node, p).channels == 0));
        assert_int_equal(node_partition(&node, p).restarts, 0);
    }
    /* each child's last call may have been applied without its having seen the answer; no more than that */
    mr_client *client = NULL;
    mr_counter *counter = NULL;
    int64_t value = 0;
    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "mortal", &counter), MR_OK);
    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    assert_in_range((uint64_t)value, (uint64_t)atomic_load(&stories[0].last),
                    (uint64_t)atomic_load(&stories[0].last) + 1);
    mr_close(client);
    others_go_on("other");
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

int main(void)
{
    static char sync[] = "sync", memory[] = "memory";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_full_rings, sync),
        cmocka_unit_test_prestate(test_full_rings, memory),
        cmocka_unit_test_prestate(test_clients_die_at_any_moment, sync),
        cmocka_unit_test_prestate(test_clients_die_at_any_moment, memory),
    };

    stories = mmap(NULL, sizeof(*stories) * STUCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (stories == MAP_FAILED)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
