/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of the library's calls: a node of the test's own, one handle on it, and a counter. */
#ifndef TESTS_UNIT_CLIENT_FIXTURE_H
#define TESTS_UNIT_CLIENT_FIXTURE_H

#include <millrace/counter.h>

#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static char *dir;
static char path[TEMP_PATH_MAX];
static struct fake_node *node;
static mr_client *client;
static mr_counter *counter;

static inline void start(const struct fake_options *options)
{
    node = fake_node_start(temp_dir_file(path, dir, "socket"), options);
}

static inline void connect_to_it(const struct mr_options *options)
{
    assert_int_equal(mr_connect(path, options, &client), MR_OK);
}

static inline void open_counter(void)
{
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
}

static inline int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    node = NULL;
    client = NULL;
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    mr_close(client);
    fake_node_stop(node);
    temp_dir_remove(dir);
    return 0;
}

static inline void expect_message(const char *part)
{
    if (strstr(mr_message(client), part) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", mr_message(client), part);
}

#endif
