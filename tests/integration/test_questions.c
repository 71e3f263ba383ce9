/* SPDX-License-Identifier: Apache-2.0 */
/* Questions about sessions that the supervisor passes on, with workers that never answer them: they are stubs. */
#include "tests/support/stub_node.h"

#include <millrace/status.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

static char *dir;
static struct stub_node node;
static struct stub_client client;

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    client = (struct stub_client){.socket = -1, .wake = -1};
    memset(&node, 0, sizeof(node));
    stub_node_start(&node, dir, &(struct stub_config){.partitions = 2});
    assert_true(stub_node_ready(&node));
    stub_greet(&client, &node);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stub_disconnect(&client);
    stub_node_end(&node);
    temp_dir_remove(dir);
    return 0;
}

/* The worker of partition 1 ends like this, and the next one is born. */
static void end_worker(uint32_t how)
{
    uint32_t births = node.workers[0].births;

    node.workers[0].end_now = how;
    assert_true(wait_for(node.workers[0].births > births));
}

static void test_one_at_a_time(void **state)
{
    (void)state;
    stub_ask_attach(&client, 1, 5);
    stub_ask_sessions(&client, 2);
    stub_expect_refused(&client, MR_UNAVAILABLE, "one at a time", false);
    /* the connection goes on */
    assert_string_equal(stub_status(&client, 1).state, "serving");
}

static void test_two_workers_end_before_they_answer(void **state)
{
    struct stub_client other;

    (void)state;
    stub_greet(&other, &node);
    stub_ask_attach(&client, 1, 5);
    stub_ask_sessions(&other, 2); /* of another partition: waits on */
    (void)stub_status(&client, 1);
    end_worker(SIGKILL);
    /* the successor has been asked again: nothing was said to the client */
    assert_string_equal(stub_status(&client, 2).state, "serving");
    end_worker(SIGKILL);
    stub_expect_refused(&client, MR_UNAVAILABLE, "two workers of partition 1 have ended", false);
    stub_ask_attach(&client, 1, 5); /* it may ask again */
    assert_string_equal(stub_status(&client, 2).state, "serving");
    stub_ask_sessions(&other, 2);
    stub_expect_refused(&other, MR_UNAVAILABLE, "one at a time", false);
    stub_disconnect(&other);
}

static void test_a_stopped_partition(void **state)
{
    (void)state;
    node.workers[0].at_index = 7;
    stub_ask_attach(&client, 1, 5);
    (void)stub_status(&client, 1);
    end_worker(SIGSEGV);
    end_worker(SIGSEGV);
    stub_expect_refused(&client, MR_INTERNAL, "partition 1 is stopped: entry 7 killed the worker twice", false);
    stub_ask_attach(&client, 1, 5);
    stub_expect_refused(&client, MR_INTERNAL, "partition 1 is stopped: entry 7 killed the worker twice", false);
    stub_ask_sessions(&client, 1);
    stub_expect_refused(&client, MR_INTERNAL, "partition 1 is stopped: entry 7 killed the worker twice", false);
}

static void test_an_orderly_stop_does_not_wait_for_answers(void **state)
{
    (void)state;
    stub_ask_attach(&client, 1, 5);
    (void)stub_status(&client, 1);
    assert_int_equal(stub_node_stop(&node), 0);
    stub_expect_closed(&client);
}

static void test_askers_come_and_go(void **state)
{
    (void)state;
    (void)stub_status(&client, 2); /* the greeting, which comes with descriptors, is over for the node too */
    unsigned before = process_descriptors(node.pid);
    for (unsigned i = 0; i < 200; i++) {
        struct stub_client one;
        stub_greet(&one, &node);
        stub_ask_attach(&one, 1 + i % 2, 1 + i);
        if (i % 50 == 0)
            end_worker(SIGKILL);
        stub_disconnect(&one);
    }
    assert_true(wait_for(process_descriptors(node.pid) == before));
    assert_string_equal(stub_status(&client, 2).state, "serving");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_workers_end_before_they_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stopped_partition, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_orderly_stop_does_not_wait_for_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_askers_come_and_go, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
