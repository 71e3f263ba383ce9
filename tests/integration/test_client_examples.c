/* SPDX-License-Identifier: Apache-2.0 */
/* The example programs of tests/examples, each run against a node as a user would. */
#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct node node;

static int set_up(void **state)
{
    (void)state;
    node_begin(&node, (const char *const[]){"--partitions", "2", NULL});
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    node_end(&node);
    return 0;
}

/* Runs it, and compares what it prints. */
static void expect(const char *name, const char *argument, const char *output)
{
    char program[512];
    char socket[512];
    const char *arguments[] = {program, argument, NULL};
    const char *environment[] = {socket, NULL};

    snprintf(program, sizeof(program), "%s/examples/%s", getenv("MILLRACE_OUT"), name);
    snprintf(socket, sizeof(socket), "MILLRACE_SOCKET=%s", node.socket);
    struct process_result result = process_run(arguments, environment, NULL, 0, WAIT_MS);
    assert_string_equal(result.error, "");
    assert_string_equal(result.output, output);
    assert_int_equal(result.status, 0);
    process_result_free(&result);
}

static void test_blocking(void **state)
{
    (void)state;
    expect("blocking", NULL, "visit 1, by nobody\n");
    expect("blocking", "Ada", "visit 2, by Ada\n");
}

static void test_pipelined(void **state)
{
    (void)state;
    expect("pipelined", NULL, "100000 increments answered, 0 failed, the counter is at 100000\n");
    expect("pipelined", NULL, "100000 increments answered, 0 failed, the counter is at 200000\n");
}

static void test_epoll(void **state)
{
    (void)state;
    expect("epoll", NULL, "100 increments, the counter is at 100\n");
}

static void test_threads(void **state)
{
    (void)state;
    expect("threads", NULL, "4 threads, 1000 increments\n");
}

static void test_listen(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        expect("listen", NULL, "listening  \ninsert a 1\nupdate a 2\nremove a 2\n");
}

static void test_cplusplus(void **state)
{
    (void)state;
    expect("cplusplus", NULL, "10 answers, the last for key 9; 10 entries\n");
}

static void test_without_a_node_it_says_so(void **state)
{
    (void)state;
    char program[512];
    const char *arguments[] = {program, NULL};
    const char *environment[] = {"MILLRACE_SOCKET=/nonexistent/socket", NULL};

    snprintf(program, sizeof(program), "%s/examples/blocking", getenv("MILLRACE_OUT"));
    struct process_result result = process_run(arguments, environment, NULL, 0, WAIT_MS);
    assert_int_equal(result.status, 1);
    assert_non_null(strstr(result.error, "NO_NODE: "));
    assert_non_null(strstr(result.error, "/nonexistent/socket"));
    process_result_free(&result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocking),  cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_epoll),     cmocka_unit_test(test_threads),
        cmocka_unit_test(test_cplusplus), cmocka_unit_test(test_without_a_node_it_says_so),
        cmocka_unit_test(test_listen),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
