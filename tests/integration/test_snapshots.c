/* SPDX-License-Identifier: Apache-2.0 */
/* A real node that takes snapshots all the time: clients at work, workers killed, the node stopped and started. What is
 * stored stays small, every answer is the right one, and nothing is read again that a snapshot holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <millrace/counter.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include "millrace/v1/control.pb-c.h"
#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#define ROUNDS 12
#define REQUESTS 3600                      /* a round; every sixth puts a kilobyte */
#define KEYS 25                            /* what else a snapshot holds, as answers that are kept, may be little */
#define MOST_BYTES (6 * UINT64_C(1048576)) /* of over 10 MiB that are logged */

static const char *const options[] = {"--snapshot-bytes", "512K", "--segment-bytes", "320K", NULL};

struct work {
    mr_client *client;
    mr_counter *counter;
    mr_map *map;
    unsigned started; /* requests of all kinds */
    unsigned open;
    int64_t counted; /* increments started */
    int64_t value;   /* of the counter, as the last answer said */
    char failure[256];
};

static void met(mr_client *client, const struct mr_result *result)
{
    struct work *work = result->arg;

    (void)client;
    work->open--;
    if (result->status != MR_OK && work->failure[0] == '\0')
        snprintf(work->failure, sizeof(work->failure), "%s: %.*s", mr_status_name(result->status),
                 (int)result->message.size, (const char *)result->message.data);
}

static void counted(mr_client *client, const struct mr_result *result)
{
    struct work *work = result->arg;

    met(client, result);
    if (work->failure[0] == '\0' && result->as.number != ++work->value)
        snprintf(work->failure, sizeof(work->failure), "the counter is at %" PRId64 ", not at %" PRId64,
                 result->as.number, work->value);
}

static void go_on(struct work *work, unsigned until)
{
    while (work->open > until) {
        if (mr_run(work->client, MR_FOR_EVER, NULL) != MR_OK)
            fail_msg("%s", mr_message(work->client));
        if (work->failure[0] != '\0')
            fail_msg("%s", work->failure);
    }
}

/* One more request: five increments, one put, and so on. */
static void start_one(struct work *work)
{
    static const char value[1000];
    char key[32];
    int size = snprintf(key, sizeof(key), "key %u", work->started / 6 % KEYS);
    bool put = work->started % 6 == 0;
    enum mr_status status;

    do {
        if (put)
            status = mr_map_put_start(work->map, (struct mr_bytes){key, (size_t)size},
                                      (struct mr_bytes){value, sizeof(value)}, NULL, (struct mr_then){met, work}, NULL);
        else
            status = mr_counter_increment_start(work->counter, 1, (struct mr_then){counted, work}, NULL);
        if (status == MR_AGAIN && mr_run(work->client, MR_FOR_EVER, NULL) != MR_OK)
            fail_msg("%s", mr_message(work->client));
    } while (status == MR_AGAIN);
    if (status != MR_OK)
        fail_msg("%s: %s", mr_status_name(status), mr_message(work->client));
    work->started++;
    work->open++;
    work->counted += !put;
    go_on(work, 500);
}

/* One round's requests; half-way through them the worker dies. */
static void work_and_die(struct node *node, struct work *work)
{
    pid_t killed = 0;

    for (unsigned i = 0; i < REQUESTS; i++) {
        start_one(work);
        if (i == REQUESTS / 2)
            killed = node_kill_worker(node, 1);
    }
    go_on(work, 0);
    node_wait_worker(node, 1, killed);
}

static uint64_t bytes_on_disk(const struct node *node)
{
    char path[TEMP_PATH_MAX + 300];
    struct stat file;
    uint64_t bytes = 0;

    snprintf(path, sizeof(path), "%s/partition-0001", node->dir);
    DIR *directory = opendir(path);
    if (directory == NULL)
        return 0; /* `memory` */
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        snprintf(path, sizeof(path), "%s/partition-0001/%s", node->dir, entry->d_name);
        if (entry->d_name[0] != '.' && stat(path, &file) == 0)
            bytes += (uint64_t)file.st_size;
    }
    closedir(directory);
    return bytes;
}

static int64_t counter_value(const struct node *node)
{
    mr_client *client;
    mr_counter *counter;
    int64_t value = -1;

    assert_int_equal(mr_connect(node->socket, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "visits", &counter), MR_OK);
    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    mr_close(client);
    return value;
}

static bool is_short(const struct node *node)
{
    struct node_partition now = node_partition(node, 1);

    return now.log_bytes <= MOST_BYTES && bytes_on_disk(node) <= MOST_BYTES && now.snapshot_index > now.applied / 2;
}

/* A snapshot is written by a process that only gets what nobody else wants of the processors: it may be behind, but
 * catches up while there is less to do. */
static bool is_short_after_all(const struct node *node, struct work *work)
{
    for (unsigned i = 0; i < 12; i++)
        start_one(work);
    go_on(work, 0);
    return is_short(node);
}

static void under_load(const char *durability)
{
    const char *all[] = {options[0], options[1], options[2], options[3], "--durability", durability, NULL};
    struct node node;
    struct work work = {.open = 0};
    bool memory = strcmp(durability, "memory") == 0;

    node_begin(&node, all);
    assert_int_equal(mr_connect(node.socket, NULL, &work.client), MR_OK);
    assert_int_equal(mr_counter_open(work.client, "visits", &work.counter), MR_OK);
    assert_int_equal(mr_map_open(work.client, "pages", &work.map), MR_OK);
    for (unsigned round = 0; round < ROUNDS; round++) {
        work_and_die(&node, &work);
        assert_true(is_short(&node) || wait_for(is_short_after_all(&node, &work)));
        assert_int_equal(node_partition(&node, 1).restarts, round + 1);
    }
    assert_int_equal(work.value, work.counted);
    assert_true(node_partition(&node, 1).snapshot_bytes > KEYS * 1000);
    mr_close(work.client);
    assert_int_equal(counter_value(&node), work.value);
    if (!memory) {
        assert_int_equal(node_stop(&node), 0);
        node_start(&node);
        assert_true(node_said(&node, " and 0 entries up to index "));
        assert_int_equal(counter_value(&node), work.value);
        node_kill_all(&node);
        node_start(&node);
        assert_int_equal(counter_value(&node), work.value);
    }
    assert_int_equal(node_stop(&node), 0);
    assert_false(node_said(&node, "warn  partition 1: no snapshot"));
    node_end(&node);
}

static void test_sync(void **state)
{
    (void)state;
    under_load("sync");
}

static void test_async(void **state)
{
    (void)state;
    under_load("async");
}

static void test_memory(void **state)
{
    (void)state;
    under_load("memory");
}

static Millrace__V1__SnapshotReport *take(mr_client *client, uint32_t partition)
{
    struct mr_bytes encoded;

    if (mr_node_snapshot(client, partition, &encoded) != MR_OK)
        fail_msg("%s", mr_message(client));
    Millrace__V1__SnapshotReport *report = millrace__v1__snapshot_report__unpack(NULL, encoded.size, encoded.data);
    assert_non_null(report);
    return report;
}

/* Asked, and the worker dies before it has answered, again and again: its successor is asked, and in the end there is
 * an answer, or the node says that two workers have ended over it. */
static void test_a_question_outlives_the_worker(void **state)
{
    struct node node;
    mr_client *client;
    mr_counter *counter;

    (void)state;
    node_begin(&node, options);
    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "visits", &counter), MR_OK);
    for (unsigned i = 0; i < 10; i++) {
        int64_t value;
        assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
        pid_t killed = node_kill_worker(&node, 1);
        Millrace__V1__SnapshotReport *report = take(client, 1);
        assert_true(report->index > i);
        millrace__v1__snapshot_report__free_unpacked(report, NULL);
        node_wait_worker(&node, 1, killed);
    }
    mr_close(client);
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sync),
        cmocka_unit_test(test_async),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_a_question_outlives_the_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
