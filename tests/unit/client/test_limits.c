/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own limit: requests open on a handle. */
#include <millrace/counter.h>
#include <millrace/limits.h>

#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static unsigned ended;

static void met(mr_client *client, const struct mr_result *result)
{
    (void)client;
    ended += result->last;
}

static void test_too_many_open_requests_is_again(void **state)
{
    char path[TEMP_PATH_MAX];
    char *dir = temp_dir_make();
    mr_client *client;
    mr_counter *counter;
    unsigned started = 0;
    enum mr_status status;

    (void)state;
    struct fake_node *node =
        fake_node_start(temp_dir_file(path, dir, "socket"), &(struct fake_options){.ring_bytes = 32 * MR_MIB});
    assert_int_equal(mr_connect(path, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    fake_node_hold(node);
    while ((status = mr_counter_get_start(counter, (struct mr_then){.done = met, .arg = NULL}, NULL)) == MR_OK)
        started++;
    assert_int_equal(status, MR_AGAIN);
    assert_int_equal(started, MR_REQUESTS_MAX);
    fake_node_release(node);
    assert_true(wait_for(mr_run(client, MR_NO_WAIT, NULL) != MR_NO_NODE && ended == started));
    assert_int_equal(mr_counter_get(counter, NULL), MR_OK);
    mr_close(client);
    fake_node_stop(node);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_too_many_open_requests_is_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
