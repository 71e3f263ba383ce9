/* SPDX-License-Identifier: Apache-2.0 */
/* --disk-limit against a real node: a partition whose log and snapshots have reached it refuses by the limit's name
 * what would be logged, and answers queries; the others go on; and it goes on itself as soon as there is room. */
#include <millrace/limits.h>
#include <millrace/map.h>

#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define LIMIT (16u << 20)
#define VALUE (15u << 10)
#define PUTS_MOST 4000 /* the limit is less than 1200 of them */

static char value[VALUE];

static enum mr_status put(mr_map *map, unsigned n)
{
    char key[32];

    snprintf(key, sizeof(key), "key %u", n);
    return mr_map_put(map, mr_text(key), (struct mr_bytes){.data = value, .size = sizeof(value)}, NULL, NULL);
}

/* What a partition's folder takes, but for a snapshot that is being written. */
static uint64_t bytes_on_disk(const struct node *node, uint32_t partition)
{
    char path[TEMP_PATH_MAX + 300];
    struct stat status;
    uint64_t bytes = 0;

    snprintf(path, sizeof(path), "%s/partition-%04u", node->dir, partition);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (entry->d_name[0] == '.' || strncmp(entry->d_name, "snapshot-new", 12) == 0)
            continue;
        snprintf(path, sizeof(path), "%s/partition-%04u/%s", node->dir, partition, entry->d_name);
        if (stat(path, &status) == 0)
            bytes += (uint64_t)status.st_size;
    }
    closedir(directory);
    return bytes;
}

/* A map in this partition. */
static mr_map *open_in(mr_client *client, const struct node *node, uint32_t partition, char *name)
{
    mr_map *map;

    for (unsigned n = 0; n < 100; n++) {
        snprintf(name, 32, "map %u", n);
        assert_int_equal(mr_map_open(client, name, &map), MR_OK);
        uint64_t before = node_partition(node, partition).applied;
        assert_int_equal(put(map, 0), MR_OK);
        if (node_partition(node, partition).applied > before)
            return map;
    }
    fail_msg("no map in partition %u", partition);
    return NULL;
}

static void snapshot(const struct node *node)
{
    struct process_result result = node_command(node, (const char *const[]){"snapshot", NULL});

    assert_int_equal(result.status, 0);
    process_result_free(&result);
}

/* The state itself does not fit: until it is smaller, or the node is given more. */
static void test_a_state_that_is_too_large(void **state)
{
    struct node node;
    mr_client *client;
    mr_map *full, *other;
    struct mr_entry entry;
    char full_name[32], other_name[32];
    unsigned held = 0;
    enum mr_status status = MR_OK;
    /* Renewing it would be refused too. */
    const struct mr_options long_session = {.size = sizeof(long_session),
                                            .session_timeout_ns = 3600 * (int64_t)MR_SECOND};

    (void)state;
    node_begin(&node, (const char *const[]){"--partitions", "2", "--batch-bytes", "32K", "--segment-bytes", "256K",
                                            "--snapshot-bytes", "1M", "--disk-limit", "16M", NULL});
    assert_int_equal(mr_connect(node.socket, &long_session, &client), MR_OK);
    full = open_in(client, &node, 1, full_name);
    other = open_in(client, &node, 2, other_name);
    while (held < PUTS_MOST && (status = put(full, held)) == MR_OK)
        held++;
    assert_int_equal(status, MR_UNAVAILABLE);
    assert_non_null(strstr(mr_message(client), "(--disk-limit)"));
    assert_in_range(held, LIMIT / VALUE / 8, LIMIT / VALUE);
    assert_int_equal(mr_map_get(full, mr_text("key 0"), &entry), MR_OK);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(put(other, n), MR_OK);

    /* what makes the state smaller passes, at the latest when a snapshot under way has given the log room; and two
     * snapshots later nothing is left of the larger one */
    for (unsigned n = 0; n < 2; n++) {
        assert_true(wait_for(mr_map_clear(full) == MR_OK));
        snapshot(&node);
    }
    assert_true(wait_for(put(full, 0) == MR_OK));
    assert_string_equal(node_partition(&node, 1).state, "serving");

    /* full again, and started with more */
    for (unsigned n = 0; n < PUTS_MOST && (status = put(full, n)) == MR_OK; n++)
        continue;
    assert_int_equal(status, MR_UNAVAILABLE);
    assert_int_equal(node_stop(&node), 0);
    for (unsigned n = 0; node.options[n] != NULL; n++)
        if (strcmp(node.options[n], "16M") == 0)
            node.options[n] = "64M";
    node_start(&node);
    assert_true(wait_for(put(full, 0) == MR_OK));
    mr_close(client);
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

/* A state that fits, and three times the limit of changes to it: nobody is refused for good, and the disk holds no more
 * than the limit whenever it is looked at. */
static void test_a_log_that_is_cut(void **state)
{
    struct node node;
    mr_client *client;
    mr_map *map;
    uint64_t most = 0;

    (void)state;
    node_begin(&node, (const char *const[]){"--batch-bytes", "32K", "--segment-bytes", "256K", "--snapshot-bytes", "1M",
                                            "--disk-limit", "16M", NULL});
    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    for (unsigned n = 0; n < 3 * LIMIT / VALUE; n++) {
        if (!wait_for(put(map, n % 8) == MR_OK))
            fail_msg("%u: %s", n, mr_message(client));
        uint64_t now = bytes_on_disk(&node, 1);
        most = now > most ? now : most;
    }
    /* The newest of three snapshots stands there a moment before the oldest is removed. */
    assert_in_range(most, LIMIT / 4, LIMIT + LIMIT / 2);
    mr_close(client);
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_state_that_is_too_large),
        cmocka_unit_test(test_a_log_that_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
