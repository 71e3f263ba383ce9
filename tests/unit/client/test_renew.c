/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that renews sessions: on channels of its own, with number 0 and an empty filter, whatever the program
 * does, and over the end of its connection's channels. */
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <millrace/raw.h>

#include "ipc/sys.h"
#include "tests/support/fake_node.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char *dir;
static char path[TEMP_PATH_MAX];
static struct fake_node *node;
static mr_client *client;
static mr_counter *counter;

static int set_up(void **state)
{
    struct mr_options options = {
        .size = sizeof(options), .session_timeout_ns = (int64_t)(60 * MR_MILLISECOND), .reconnect_ns = MR_NO_RECONNECT};

    (void)state;
    dir = temp_dir_make();
    node = fake_node_start(temp_dir_file(path, dir, "socket"), &(struct fake_options){.partitions = 4});
    assert_int_equal(mr_connect(path, &options, &client), MR_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mr_close(client);
    fake_node_stop(node);
    temp_dir_remove(dir);
    return 0;
}

static void open_many(unsigned count)
{
    char name[16];

    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "name %u", i);
        assert_int_equal(mr_counter_open(client, name, &counter), MR_OK);
    }
}

static void test_there_is_no_thread_before_a_session(void **state)
{
    (void)state;
    assert_int_equal(fake_counts(node).connections, 1);
    open_many(1);
    assert_true(wait_for(fake_counts(node).connections == 2));
}

static void test_sessions_are_renewed_while_the_program_does_nothing(void **state)
{
    (void)state;
    open_many(20); /* in all four partitions */
    assert_int_equal(fake_counts(node).opened, 4);
    assert_true(wait_for(fake_counts(node).renewals >= 20));
    assert_int_equal(fake_counts(node).keep_alives, 0);
    assert_int_equal(fake_counts(node).connections, 2);
}

static void test_a_session_that_is_lost_is_left_alone(void **state)
{
    (void)state;
    open_many(1);
    assert_true(wait_for(fake_counts(node).renewals >= 2));
    fake_node_forget_sessions(node);
    /* The one that replaces it is renewed. */
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_SESSION_LOST);
    open_many(1);
    uint64_t before = fake_counts(node).renewals;
    assert_true(wait_for(fake_counts(node).renewals >= before + 3));
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
}

static void test_it_connects_anew_if_its_channel_is_closed(void **state)
{
    (void)state;
    uint32_t partition;

    open_many(1);
    assert_int_equal(mr_partition_of(client, NULL, "name 0", &partition), MR_OK);
    assert_true(wait_for(fake_counts(node).renewals >= 1));
    fake_node_hold(node);
    struct fake_channel *its = fake_renewing_channel(node, partition);
    assert_ptr_not_equal(its, fake_channel(node, partition));
    fake_close_channel(its, "for a test");
    uint64_t before = fake_counts(node).renewals;
    fake_node_release(node);
    assert_true(wait_for(fake_counts(node).connections == 3));
    assert_true(wait_for(fake_counts(node).renewals >= before + 3));
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
}

/* Has the thread a channel there? It asks for one where there is a session to renew. */
static bool renews_in(uint32_t partition)
{
    fake_node_hold(node);
    const struct fake_channel *its = fake_renewing_channel(node, partition);
    bool renews = its != NULL && its != fake_channel(node, partition);
    fake_node_release(node);
    return renews;
}

static void test_a_session_that_it_could_not_be_told_of(void **state)
{
    enum { FIFTH = 5 }; /* behind OpenChannel, Channel, ChannelMapped and ChannelOpened: the order */
    (void)state;
    char name[16] = "name 0";
    uint32_t first, other;

    open_many(1);
    assert_int_equal(mr_partition_of(client, NULL, name, &first), MR_OK);
    for (unsigned n = 1; mr_partition_of(client, NULL, name, &other) == MR_OK && other == first; n++)
        snprintf(name, sizeof(name), "name %u", n);
    assert_true(wait_for(fake_counts(node).renewals >= 1)); /* it has its channel, and says nothing more */
    sys_fault_arm(SYS_SENDMSG, FIFTH, ENOBUFS, false);
    assert_int_equal(mr_counter_open(client, name, &counter), MR_INTERNAL);
    assert_non_null(strstr(mr_message(client), "the thread that renews sessions"));
    assert_int_equal(sys_fault_count(SYS_SENDMSG), 1);
    sys_fault_clear();
    assert_false(renews_in(other));
    assert_int_equal(mr_counter_open(client, name, &counter), MR_OK);
    assert_true(wait_for(renews_in(other)));
}

/* Signals that this thread of the process blocks, from the kernel's account of it; 0: it is gone. */
static unsigned long long blocked_signals(const char *thread)
{
    char file[64];
    char line[128];
    unsigned long long blocked = 0;

    snprintf(file, sizeof(file), "/proc/self/task/%.20s/status", thread);
    FILE *status = fopen(file, "r");
    if (status == NULL)
        return 0;
    while (fgets(line, sizeof(line), status) != NULL)
        sscanf(line, "SigBlk: %llx", &blocked);
    fclose(status);
    return blocked;
}

/* All but SIGKILL, SIGSTOP and the two that the C library keeps for itself. */
static unsigned threads_that_block_all(void)
{
    const unsigned long long all = ~0ULL & ~(1ULL << 8 | 1ULL << 18 | 1ULL << 31 | 1ULL << 32);
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    unsigned count = 0;

    assert_non_null(tasks);
    while ((task = readdir(tasks)) != NULL)
        count += task->d_name[0] != '.' && (blocked_signals(task->d_name) & all) == all;
    closedir(tasks);
    return count;
}

static void test_it_blocks_all_signals(void **state)
{
    (void)state;
    unsigned before = threads_that_block_all(); /* a sanitizer has one of its own */

    open_many(1);
    assert_true(wait_for(threads_that_block_all() == before + 1));
    mr_close(client);
    client = NULL;
    /* Whoever joins a thread may be ahead of the kernel, which takes it off its list. */
    assert_true(wait_for(threads_that_block_all() == before));
}

static void test_closing_does_not_wait_for_a_node_that_says_nothing(void **state)
{
    (void)state;
    open_many(1);
    fake_node_hold(node);
    uint64_t before = wait_now_ms();
    mr_close(client);
    client = NULL;
    assert_true(wait_now_ms() - before < WAIT_MS / 2);
    fake_node_release(node);
}

static void test_the_node_s_end_and_closing(void **state)
{
    (void)state;
    open_many(4);
    fake_node_vanish(node);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_there_is_no_thread_before_a_session),
        TEST(test_sessions_are_renewed_while_the_program_does_nothing),
        TEST(test_a_session_that_is_lost_is_left_alone),
        TEST(test_it_connects_anew_if_its_channel_is_closed),
        TEST(test_a_session_that_it_could_not_be_told_of),
        TEST(test_it_blocks_all_signals),
        TEST(test_closing_does_not_wait_for_a_node_that_says_nothing),
        TEST(test_the_node_s_end_and_closing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
