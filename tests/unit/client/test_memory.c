/* SPDX-License-Identifier: Apache-2.0 */
/* The client library without memory: each allocation of a program's calls fails once, and the call says so, or does
 * without. */
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <millrace/map.h>

#include "tests/support/failing_memory.h"
#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void count(mr_client *client, const struct mr_result *result)
{
    (void)client;
    *(unsigned *)result->arg += result->last;
}

static void use(mr_client *client)
{
    mr_counter *counter;
    mr_map *map;
    mr_stream *stream;
    struct mr_result result;
    unsigned started = 0;
    unsigned ended = 0;

    if (mr_counter_open(client, "hits", &counter) == MR_OK) {
        for (int i = 0; i < 10; i++)
            started += mr_counter_increment_start(counter, 1, (struct mr_then){count, &ended}, NULL) == MR_OK;
        (void)mr_counter_increment_start(counter, 1, (struct mr_then){NULL, NULL}, NULL);
        (void)mr_counter_get(counter, NULL);
        assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
        assert_int_equal(ended, started);
        (void)mr_take(client, &result);
    } else {
        assert_non_null(strstr(mr_message(client), "memory"));
    }
    if (mr_map_open(client, "words", &map) == MR_OK && mr_map_events(map, mr_text("k"), false, &stream) == MR_OK)
        mr_stream_close(stream);
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    char path[TEMP_PATH_MAX];
    char *dir = temp_dir_make();
    struct fake_node *node = fake_node_start(temp_dir_file(path, dir, "socket"), NULL);
    unsigned n = 0;
    bool one_failed;

    do {
        mr_client *client = (mr_client *)&n; /* not NULL, and no handle */
        memory_fails_in = ++n;               /* of this thread's: the node's and the one that renews have their own */
        enum mr_status status = mr_connect(path, NULL, &client);
        if (status == MR_OK)
            use(client);
        else
            assert_int_equal(status, MR_NO_MEMORY);
        assert_non_null(mr_message(client));
        mr_close(client);
        one_failed = memory_fails_in == 0;
        memory_fails_in = 0;
    } while (one_failed);
    assert_true(n > 10);
    fake_node_stop(node);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
