/* SPDX-License-Identifier: Apache-2.0 */
/* --memory-limit against a real node and the allocator's real count: who would add to a full partition is refused by
 * the limit's name, what removes something passes, and then there is room again. */
#include <millrace/counter.h>
#include <millrace/map.h>

#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VALUE (1u << 20)
#define PUTS_MOST 64 /* the limit is 48 of them */
#define PUTS_AGAIN 8 /* what a successor may hold less than the worker that was refused: its buffers are others */

static char value[VALUE];

static enum mr_status put(mr_map *map, unsigned n)
{
    char key[32];

    snprintf(key, sizeof(key), "key %u", n);
    return mr_map_put(map, mr_text(key), (struct mr_bytes){.data = value, .size = sizeof(value)}, NULL, NULL);
}

/* Puts from key `first` on until one is refused, which must be among the first `most`; how many were not. */
static unsigned fill(mr_client *client, mr_map *map, unsigned first, unsigned most)
{
    unsigned n = 0;
    enum mr_status status = MR_OK;

    while (n < most && (status = put(map, first + n)) == MR_OK)
        n++;
    assert_int_equal(status, MR_UNAVAILABLE);
    assert_non_null(strstr(mr_message(client), "its limit is 48M (--memory-limit)"));
    return n;
}

static void test_a_full_partition(void **state)
{
    (void)state;
#ifndef MILLRACE_JEMALLOC
    skip(); /* the allocator of a build with a sanitizer does not count */
#endif
    struct node node;
    mr_client *client;
    mr_map *map;
    struct mr_entry entry;

    node_begin(&node, (const char *const[]){"--ring-bytes", "8M", "--max-payload", "2M", "--segment-bytes", "16M",
                                            "--memory-limit", "48M", NULL});
    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    unsigned held = fill(client, map, 0, PUTS_MOST);
    assert_in_range(held, 20, 48);
    assert_int_equal(mr_map_get(map, mr_text("key 0"), &entry), MR_OK);
    /* A successor reads all of it back, and refuses as before. */
    pid_t before = node_kill_worker(&node, 1);
    (void)node_wait_worker(&node, 1, before);
    (void)fill(client, map, PUTS_MOST, PUTS_AGAIN);
    assert_int_equal(mr_map_clear(map), MR_OK);
    assert_true(wait_for(put(map, 0) == MR_OK));
    mr_close(client);
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_full_partition)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
