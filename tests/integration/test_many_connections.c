/* SPDX-License-Identifier: Apache-2.0 */
/* Thousands of connections at once, from one process: up to --user-connections they stand, one more is refused with the
 * limit, somebody else's client goes on meanwhile, and when they are gone there is room again. And a node that may
 * have few descriptors open has its limits by them, so that it never runs out of any. As root the crowd is another
 * user's. */
#include "tests/support/stub_node.h"

#include <millrace/counter.h>

#include "tests/support/live_node.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define STRANGER 54321u
#define CROWD 2500u
#define CROWD_TEXT "2500"
#define OTHERS 3 /* the witness, the honest client, and its thread that renews */
#define CALLS 500
/* Of the test and of the node; with fewer this node's limits are by them. */
#define DESCRIPTORS 11000u
/* A node with so many: 72 are its own. */
#define FEW 256u
#define FEW_CONNECTIONS 46u
#define FEW_CHANNELS 46u

static char open_dir[64]; /* whoever may pass; what tests have for temporary files may be closed to others */
static char socket_path[200];
static char *dir;
static struct node node;
static struct stub_node stub;
static struct stub_client crowd[CROWD];

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    strcpy(open_dir, "/tmp/millrace-many-XXXXXX");
    assert_non_null(mkdtemp(open_dir));
    assert_int_equal(chmod(open_dir, 0755), 0);
    snprintf(socket_path, sizeof(socket_path), "%s/socket", open_dir);
    memset(&node, 0, sizeof(node));
    memset(&stub, 0, sizeof(stub));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (stub.pid != 0) {
        kill(stub.pid, SIGKILL);
        stub_node_wait(&stub);
    }
    node_end(&node);
    temp_dir_remove(dir);
    unlink(socket_path);
    rmdir(open_dir);
    return 0;
}

static bool is_root(void)
{
    return getuid() == 0;
}

/* The kernel tells a node who a peer was when it connected. */
static void be_stranger(bool stranger)
{
    if (is_root())
        assert_int_equal(seteuid(stranger ? STRANGER : 0), 0);
}

static void greet(struct stub_client *client, const struct stub_node *at)
{
    stub_greet(client, at);
    close(client->wake); /* nobody wakes these */
    client->wake = -1;
}

static void expect_refused(const struct stub_node *at, const char *why)
{
    struct stub_client one_more;

    stub_connect(&one_more, at);
    stub_expect_refused(&one_more, MR_UNAVAILABLE, why, true);
    stub_disconnect(&one_more);
}

static void count_on(mr_counter *counter, int64_t *value)
{
    for (int i = 0; i < CALLS; i++) {
        int64_t before = *value;
        assert_int_equal(mr_counter_increment(counter, 1, value), MR_OK);
        assert_int_equal(*value, before + 1);
    }
}

static void test_thousands_at_once(void **state)
{
    struct rlimit limit;
    struct stub_client witness;
    mr_client *honest;
    mr_counter *counter;
    int64_t value = 0;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < DESCRIPTORS) {
        print_message("SKIPPED: takes %u open descriptors, allowed are %llu (ulimit -Hn)\n", DESCRIPTORS,
                      (unsigned long long)limit.rlim_max);
        skip();
    }
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    const char *const options[] = {"--socket", socket_path, "--socket-mode", "0666", "--user-connections",
                                   CROWD_TEXT, NULL};
    node_prepare(&node, options);
    snprintf(node.socket, sizeof(node.socket), "%s", socket_path);
    node_start(&node);
    snprintf(stub.socket, sizeof(stub.socket), "%s", socket_path);
    stub_greet(&witness, &stub);
    assert_int_equal(mr_connect(socket_path, NULL, &honest), MR_OK);
    assert_int_equal(mr_counter_open(honest, "calls", &counter), MR_OK);
    count_on(counter, &value);
    assert_true(wait_for(stub_status(&witness, 1).connections == OTHERS));
    /* An ordinary user has those of his own among them. */
    unsigned most = is_root() ? CROWD : CROWD - OTHERS;
    for (unsigned round = 0; round < 2; round++) {
        be_stranger(true);
        for (unsigned i = 0; i < most; i++)
            greet(&crowd[i], &stub);
        expect_refused(&stub, CROWD_TEXT " connections, the most one user may have (--user-connections)");
        be_stranger(false);
        assert_true(wait_for(stub_status(&witness, 1).connections == most + OTHERS));
        count_on(counter, &value);
        if (is_root()) { /* and who is new is let in */
            struct stub_client another;
            stub_greet(&another, &stub);
            stub_disconnect(&another);
        }
        for (unsigned i = 0; i < most; i++)
            stub_disconnect(&crowd[i]);
        assert_true(wait_for(stub_status(&witness, 1).connections == OTHERS));
        count_on(counter, &value);
    }
    mr_close(honest);
    stub_disconnect(&witness);
    assert_false(node_said(&node, "cannot accept"));
    assert_int_equal(node_partition(&node, 1).restarts, 0);
    assert_int_equal(node_stop(&node), 0);
}

static void test_few_descriptors(void **state)
{
    static struct stub_client clients[FEW_CONNECTIONS];
    static struct channel channels[FEW_CHANNELS];
    const unsigned half = FEW_CONNECTIONS / 2;

    (void)state;
    stub_node_start(
        &stub, dir,
        &(struct stub_config){.socket = socket_path, .descriptors = FEW, .options = {"--socket-mode", "0666"}});
    assert_true(stub_node_ready(&stub));
    assert_true(stub_node_said(&stub, "the limit of open descriptors is 256"));
    assert_true(stub_node_said(&stub, "at most 46 connections and 46 channels"));
    for (unsigned i = 0; i < half; i++)
        greet(&clients[i], &stub);
    expect_refused(&stub, "23 connections, half of what the node's limit of open descriptors allows");
    unsigned count = half;
    be_stranger(true);
    for (; is_root() && count < FEW_CONNECTIONS; count++)
        greet(&clients[count], &stub);
    if (is_root())
        expect_refused(&stub, "the node has 46 connections");
    be_stranger(false);
    unsigned open = 0;
    for (; open < FEW_CHANNELS / 2; open++)
        stub_open_channel(&clients[0], 1, 16384, &channels[open]);
    stub_ask_channel(&clients[0], 1, 16384);
    stub_expect_refused(&clients[0], MR_UNAVAILABLE, "23 channels, half of what the node's limit of open descriptors",
                        false);
    for (; is_root() && open < FEW_CHANNELS; open++)
        stub_open_channel(&clients[half], 1, 16384, &channels[open]);
    if (is_root()) {
        stub_ask_channel(&clients[half], 1, 16384);
        stub_expect_refused(&clients[half], MR_UNAVAILABLE, "46 channels, the most that its limit of open descriptors",
                            false);
    }
    /* With everything that it may have, it has descriptors to spare. */
    assert_int_equal(stub_status(&clients[1], 1).channels, open);
    assert_int_equal(stub_status(&clients[1], 1).connections, count);
    assert_in_range(process_descriptors(stub.pid), 2 * count + open, FEW - 1);
    assert_false(stub_node_said(&stub, "cannot"));
    while (open > 0)
        channel_unmap(&channels[--open]);
    for (unsigned i = 1; i < count; i++)
        stub_disconnect(&clients[i]);
    assert_true(wait_for(stub_status(&clients[0], 1).connections == 1));
    greet(&clients[1], &stub);
    stub_disconnect(&clients[1]);
    stub_disconnect(&clients[0]);
    assert_int_equal(stub_node_stop(&stub), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_thousands_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_few_descriptors, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
