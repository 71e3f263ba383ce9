/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor and its clients: the hand-shake, channels from birth to end, limits, and clients that misbehave or go
 * away at any step. Workers are stubs. */
#include "tests/support/stub_node.h"

#include <millrace/status.h>

#include "ipc/handshake.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char *dir;
static struct stub_node node;
static struct stub_client client;

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    client = (struct stub_client){.socket = -1, .wake = -1};
    memset(&node, 0, sizeof(node));
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

static void start(const struct stub_config *config)
{
    stub_node_start(&node, dir, config);
    assert_true(stub_node_ready(&node));
}

static void test_welcome_says_what_the_node_is(void **state)
{
    (void)state;
    int fds[2];
    struct stat status;
    char line[300];

    start(&(struct stub_config){.partitions = 2});
    snprintf(line, sizeof(line), "ready socket=%s partitions=2 pid=%d\n", node.socket, (int)node.pid);
    size_t size;
    char *output = read_file(node.output, &size);
    assert_string_equal(output, line);
    free(output);
    assert_int_equal(stat(node.socket, &status), 0);
    assert_true(S_ISSOCK(status.st_mode));
    assert_int_equal(status.st_mode & 0777, 0660);

    stub_connect(&client, &node);
    stub_hello(&client, HANDSHAKE_VERSION);
    Millrace__V1__NodeMessage *message = stub_receive(&client, fds);
    assert_non_null(message);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME);
    const Millrace__V1__Welcome *welcome = message->welcome;
    assert_int_equal(welcome->version, HANDSHAKE_VERSION);
    assert_int_equal(welcome->directory.len, 16);
    assert_int_equal(welcome->partitions, 2);
    assert_int_equal(welcome->ring_bytes, 65536);
    assert_int_equal(welcome->max_payload, 16384);
    assert_int_equal(welcome->pid, node.pid);
    assert_memory_equal(welcome->durability.data, "sync", 4);
    assert_true(fds[0] >= 0);
    client.wake = fds[0];
    /* It tells of wake-ups, and that is all that can be done with it: a client that could fill an eventfd, and set and
     * clear its O_NONBLOCK, could make the worker who writes it wait. */
    uint64_t number = 1;
    assert_int_equal(write(client.wake, &number, sizeof(number)), -1);
    assert_int_equal(read(client.wake, &number, sizeof(number)), -1);
    stub_free(message);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_channel_is_sealed_before_it_opens(void **state)
{
    (void)state;
    struct channel channel;

    start(&(struct stub_config){.partitions = 2});
    stub_greet(&client, &node);
    stub_map_channel(&client, 2, 0, &channel);
    assert_int_equal(channel.ring_bytes, 65536);
    assert_int_equal(channel.page->state, CHANNEL_OPENING);
    /* Until both have it, the memory is still open: the client could not map it otherwise. */
    void *again = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, channel.memory_fd, 0);
    assert_true(again != MAP_FAILED);
    munmap(again, 4096);
    stub_say_mapped(&client, channel.channel_id);
    stub_expect_opened(&client, channel.channel_id);
    assert_int_equal(channel.page->state, CHANNEL_OPEN);
    assert_int_equal(node.workers[1].added, 1);

    assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, channel.memory_fd, 0) == MAP_FAILED);
    assert_int_equal(ftruncate(channel.memory_fd, 4096), -1);
    assert_int_equal(ftruncate(channel.memory_fd, 1 << 24), -1);
    assert_int_equal(fallocate(channel.memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096), -1);
    assert_int_equal(pwrite(channel.memory_fd, "x", 1, 0), -1);
    assert_int_equal(fcntl(channel.memory_fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    channel.request_data[0] = 1; /* what was mapped before stays writable */

    assert_int_equal(stub_status(&client, 2).channels, 1);
    stub_ask_close(&client, channel.channel_id);
    assert_true(wait_for(stub_status(&client, 2).channels == 0));
    assert_int_equal(node.workers[1].closed, 1);
    channel_unmap(&channel);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_channel_waits_for_the_worker_too(void **state)
{
    (void)state;
    struct channel channel;

    start(&(struct stub_config){.partitions = 1});
    node.workers[0].hold_added = 1;
    stub_greet(&client, &node);
    stub_map_channel(&client, 1, 16384, &channel);
    assert_int_equal(channel.ring_bytes, 16384);
    stub_say_mapped(&client, channel.channel_id);
    /* The answer to what was asked afterwards is the next that comes. */
    assert_true(wait_for(node.workers[0].added == 1));
    assert_int_equal(stub_status(&client, 1).channels, 1);
    assert_int_equal(channel.page->state, CHANNEL_OPENING);
    /* A worker that dies meanwhile leaves a successor that inherits the mapping: then it opens. */
    node.workers[0].end_now = SIGKILL;
    stub_expect_opened(&client, channel.channel_id);
    assert_true(wait_for(node.workers[0].births == 2));
    assert_int_equal(node.workers[0].inherited, 1);
    assert_int_equal(node.workers[0].inherited_id, channel.channel_id);
    channel_unmap(&channel);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_wrong_requests_are_refused_and_the_connection_goes_on(void **state)
{
    (void)state;
    struct channel channel;

    start(&(struct stub_config){.partitions = 2, .channels_max = 2});
    stub_greet(&client, &node);
    stub_ask_channel(&client, 0, 0);
    stub_expect_refused(&client, MR_INVALID, "no partition 0: the node has 1 to 2", false);
    stub_ask_channel(&client, 3, 0);
    stub_expect_refused(&client, MR_INVALID, "no partition 3", false);
    static const uint64_t wrong[] = {1, 8192, 16385, 131072, UINT64_MAX};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        stub_ask_channel(&client, 1, wrong[i]);
        stub_expect_refused(&client, MR_INVALID, "a power of two from 16384 to 65536", false);
    }
    /* Words about channels that are not there, or not one's own, are nothing. */
    stub_say_mapped(&client, 12345);
    stub_ask_close(&client, 12345);
    stub_open_channel(&client, 1, 0, &channel);
    channel_unmap(&channel);

    stub_open_channel(&client, 1, 0, &channel);
    stub_ask_channel(&client, 1, 0);
    stub_expect_refused(&client, MR_UNAVAILABLE, "partition 1 has 2 channels, the most", false);
    struct channel other;
    stub_open_channel(&client, 2, 0, &other);
    channel_unmap(&other);
    stub_ask_close(&client, channel.channel_id);
    channel_unmap(&channel);
    assert_true(wait_for(stub_status(&client, 1).channels == 1));
    stub_open_channel(&client, 1, 0, &channel);
    channel_unmap(&channel);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_another_clients_channel_is_out_of_reach(void **state)
{
    (void)state;
    struct channel channel;
    struct stub_client other;

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    stub_greet(&other, &node);
    stub_open_channel(&client, 1, 0, &channel);
    stub_ask_close(&other, channel.channel_id);
    assert_int_equal(stub_status(&other, 1).channels, 1);
    assert_int_equal(channel.page->state, CHANNEL_OPEN);
    stub_disconnect(&other);
    assert_true(wait_for(stub_status(&client, 1).connections == 1));
    assert_int_equal(stub_status(&client, 1).channels, 1);
    channel_unmap(&channel);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_hello_comes_first_and_once(void **state)
{
    (void)state;
    char text[64];

    start(&(struct stub_config){.partitions = 1});
    stub_connect(&client, &node);
    stub_ask_status(&client);
    stub_expect_refused(&client, MR_INVALID, "must be Hello", true);
    stub_expect_closed(&client);
    stub_disconnect(&client);

    static const uint32_t versions[] = {1, 77}; /* whose Attachment has other fields, and one that is still to come */
    for (int i = 0; i < 2; i++) {
        stub_connect(&client, &node);
        stub_hello(&client, versions[i]);
        snprintf(text, sizeof(text), "version %d, yours has version %u", HANDSHAKE_VERSION, versions[i]);
        stub_expect_refused(&client, MR_NOT_SUPPORTED, text, true); /* as <millrace/millrace.h> says of mr_connect() */
        stub_expect_closed(&client);
        stub_disconnect(&client);
    }

    stub_greet(&client, &node);
    stub_hello(&client, HANDSHAKE_VERSION);
    stub_expect_refused(&client, MR_INVALID, "once", true);
    stub_expect_closed(&client);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_garbage_ends_the_connection_and_nothing_else(void **state)
{
    (void)state;
    static const uint8_t garbage[] = {0xff, 0xff, 0xff, 0xff, 0x01, 0x02};
    static uint8_t large[HANDSHAKE_BYTES + 4000];
    struct stub_client good;

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&good, &node);
    for (int greeted = 0; greeted < 2; greeted++)
        for (int kind = 0; kind < 3; kind++) {
            if (greeted)
                stub_greet(&client, &node);
            else
                stub_connect(&client, &node);
            if (kind == 0)
                assert_true(stub_send_bytes(&client, garbage, sizeof(garbage)));
            else if (kind == 1)
                assert_true(stub_send_bytes(&client, large, sizeof(large)));
            else /* an unknown member: nothing that this node knows */
                assert_true(stub_send_bytes(&client, "\xa2\x06\x00", 3));
            if (kind == 2)
                stub_expect_refused(&client, MR_INVALID, "", true);
            stub_expect_closed(&client);
            stub_disconnect(&client);
        }
    assert_true(wait_for(stub_status(&good, 1).connections == 1));
    stub_disconnect(&good);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_connections_are_limited(void **state)
{
    (void)state;
    struct stub_client others[2];

    start(&(struct stub_config){.partitions = 1, .connections_max = 3});
    stub_greet(&client, &node);
    for (int i = 0; i < 2; i++)
        stub_greet(&others[i], &node);
    struct stub_client refused;
    stub_connect(&refused, &node);
    stub_expect_refused(&refused, MR_UNAVAILABLE, "3 connections, the most", true);
    stub_expect_closed(&refused);
    stub_disconnect(&refused);
    stub_disconnect(&others[0]);
    assert_true(wait_for(stub_status(&client, 1).connections == 2));
    stub_greet(&others[0], &node);
    for (int i = 0; i < 2; i++)
        stub_disconnect(&others[i]);
    assert_int_equal(stub_node_stop(&node), 0);
}

/* Goes as many steps as asked into a hand-shake, then away. */
static void half_a_client(int steps)
{
    struct stub_client other;
    struct channel channel = {.page = NULL};

    stub_connect(&other, &node);
    if (steps >= 1)
        stub_hello(&other, HANDSHAKE_VERSION);
    if (steps == 2)
        stub_ask_channel(&other, 1, 0); /* gone before it takes anything */
    if (steps >= 3) {
        int fds[2];
        Millrace__V1__NodeMessage *message = stub_receive(&other, fds);
        assert_non_null(message);
        stub_free(message);
        other.wake = fds[0];
        stub_map_channel(&other, 1, 0, &channel);
    }
    if (steps >= 4)
        stub_say_mapped(&other, channel.channel_id);
    if (steps >= 5)
        stub_expect_opened(&other, channel.channel_id);
    if (steps >= 6)
        stub_ask_close(&other, channel.channel_id);
    stub_disconnect(&other);
    if (channel.page != NULL)
        channel_unmap(&channel);
}

static bool nothing_left(void)
{
    struct stub_status status = stub_status(&client, 1);
    return status.connections == 1 && status.channels == 0;
}

static void test_clients_may_go_at_any_step(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1, .channels_max = 8, .connections_max = 64});
    stub_greet(&client, &node);
    for (int steps = 0; steps <= 6; steps++)
        half_a_client(steps);
    assert_true(wait_for(nothing_left()));
    unsigned descriptors = process_descriptors(node.pid);
    for (int round = 0; round < 40; round++) {
        for (int steps = 0; steps <= 6; steps++)
            half_a_client(steps);
        assert_true(wait_for(nothing_left()));
    }
    assert_int_equal(process_descriptors(node.pid), descriptors);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_client_that_does_not_read_is_dropped(void **state)
{
    (void)state;
    struct stub_client deaf;

    start(&(struct stub_config){.partitions = 4});
    stub_greet(&client, &node);
    stub_greet(&deaf, &node);
    assert_int_equal(fcntl(deaf.socket, F_SETFL, O_NONBLOCK), 0);
    /* It asks as much as it can and takes no answer; all the while the other is served. */
    bool dropped = false;
    for (int i = 0; i < 100000 && !dropped; i++) {
        stub_ask_status(&deaf);
        if (i % 100 == 0)
            dropped = stub_status(&client, 1).connections == 1;
    }
    assert_true(dropped);
    assert_true(stub_node_said(&node, "does not read its socket"));
    stub_disconnect(&deaf);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_worker_may_close_a_channel(void **state)
{
    (void)state;
    struct channel channel;
    int fds[2];

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    stub_open_channel(&client, 1, 0, &channel);
    node.workers[0].close_channels = 1;
    Millrace__V1__NodeMessage *message = stub_receive(&client, fds);
    assert_non_null(message);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED);
    assert_int_equal(message->channel_closed->channel_id, channel.channel_id);
    assert_memory_equal(message->channel_closed->reason.data, "a tail that cannot be", 21);
    stub_free(message);
    assert_int_equal(stub_status(&client, 1).channels, 0);
    channel_unmap(&channel);
    stub_open_channel(&client, 1, 0, &channel);
    channel_unmap(&channel);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_channel_numbers_are_never_used_again(void **state)
{
    (void)state;
    struct channel channel;
    uint64_t highest = 0;

    for (int round = 0; round < 3; round++) {
        start(&(struct stub_config){.partitions = 1});
        stub_greet(&client, &node);
        for (int i = 0; i < 3; i++) {
            stub_open_channel(&client, 1, 0, &channel);
            assert_true(channel.channel_id > highest);
            highest = channel.channel_id;
            stub_ask_close(&client, channel.channel_id);
            channel_unmap(&channel);
        }
        stub_disconnect(&client);
        if (round == 1) { /* not in an orderly way */
            kill(node.pid, SIGKILL);
            assert_int_equal(stub_node_wait(&node), 128 + SIGKILL);
        } else {
            assert_int_equal(stub_node_stop(&node), 0);
        }
    }
}

static void test_running_out_is_survived(void **state)
{
    (void)state;
    struct channel channel;

    /* Accepting, and making a channel's memory, fail once each. */
    start(&(struct stub_config){.partitions = 1, .fault = "accept4:1:EMFILE,memfd_create:1:EMFILE"});
    stub_greet(&client, &node);
    stub_ask_channel(&client, 1, 0);
    stub_expect_refused(&client, MR_UNAVAILABLE, "shared memory", false);
    stub_open_channel(&client, 1, 0, &channel);
    channel_unmap(&channel);
    assert_true(stub_node_said(&node, "cannot accept a client"));
    assert_int_equal(stub_status(&client, 1).channels, 1);
    assert_int_equal(stub_node_stop(&node), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_welcome_says_what_the_node_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_channel_is_sealed_before_it_opens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_channel_waits_for_the_worker_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_requests_are_refused_and_the_connection_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_clients_channel_is_out_of_reach, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hello_comes_first_and_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_garbage_ends_the_connection_and_nothing_else, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_connections_are_limited, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_clients_may_go_at_any_step, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_client_that_does_not_read_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_worker_may_close_a_channel, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_channel_numbers_are_never_used_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_running_out_is_survived, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
