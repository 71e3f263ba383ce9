/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of a node that goes away and comes back share: a fake node, a client, and what its callbacks saw. */
#ifndef TESTS_UNIT_CLIENT_RETURN_H
#define TESTS_UNIT_CLIENT_RETURN_H

#include <millrace/counter.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include "ipc/sys.h"
#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/support/fake_node.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <millrace/limits.h>

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MANY 600
#define SECONDS(n) ((int64_t)(n)*1000000000)

static char *dir;
static char path[TEMP_PATH_MAX];
static struct fake_node *node;
static mr_client *client;
static mr_counter *counter;
static struct fake_channel *channel;

static struct mr_result seen[MANY];
static unsigned seen_count;
static char seen_message[MANY][200];

static inline void note(mr_client *of, const struct mr_result *result)
{
    assert_ptr_equal(of, client);
    assert_true(seen_count < MANY);
    seen[seen_count] = *result;
    snprintf(seen_message[seen_count], sizeof(seen_message[0]), "%.*s", (int)result->message.size,
             (const char *)result->message.data);
    seen_count++;
}

static inline void ignore(mr_client *of, const struct mr_result *result)
{
    assert_ptr_equal(of, client);
    assert_true(result->status == MR_OK || result->status == MR_CANCELED);
}

static inline struct mr_then noting(int number)
{
    return (struct mr_then){note, (void *)(intptr_t)number};
}

static inline int number_of(const struct mr_result *result)
{
    return (int)(intptr_t)result->arg;
}

/* On a busy machine it may take longer than a call's limit, which some tests keep short; so may opening the counter. */
static inline bool connects(const struct mr_options *options)
{
    mr_close(client);
    client = NULL;
    return mr_connect(path, options, &client) == MR_OK;
}

static inline void start(const struct fake_options *fake, struct mr_options options)
{
    node = fake_node_start(temp_dir_file(path, dir, "socket"), fake);
    options.size = sizeof(options);
    assert_true(wait_for(connects(&options)));
}

/* A counter, and the node held. */
static inline void start_held(struct mr_options options)
{
    start(&(struct fake_options){.ring_bytes = 32768}, options);
    assert_true(wait_for(mr_counter_open(client, "hits", &counter) == MR_OK));
    fake_node_hold(node);
    channel = fake_channel(node, 1);
}

static inline int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    node = NULL;
    client = NULL;
    seen_count = 0;
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    sys_fault_clear();
    if (node != NULL)
        fake_node_release(node);
    mr_close(client);
    fake_node_stop(node);
    temp_dir_remove(dir);
    return 0;
}

static inline void run(void)
{
    if (channel != NULL && channel->open)
        fake_publish(node, channel);
    enum mr_status status = mr_run(client, 0, NULL);
    assert_true(status == MR_OK || status == MR_AGAIN);
}

static inline bool is_away(void)
{
    void *body;
    run();
    enum mr_status status = mr_reserve(client, 1, MR_COMMAND, 0, 8, &body);
    if (status == MR_OK)
        mr_discard(client);
    return status == MR_AGAIN;
}

static inline void go_away(void)
{
    fake_node_vanish(node);
    channel = NULL;
    assert_true(wait_for(is_away()));
}

static inline bool is_back(void)
{
    channel = NULL;
    if (is_away())
        return false;
    channel = fake_channel(node, 1); /* only now, or it may be that of the thread that renews */
    return true;
}

static inline void come_back(void)
{
    fake_node_return(node);
    assert_true(wait_for(is_back()));
}

static inline void increment(int number)
{
    assert_int_equal(mr_counter_increment_start(counter, 1, noting(number), NULL), MR_OK);
}

static inline bool next_is_there(struct fake_request *request)
{
    run();
    return fake_next(channel, request);
}

static inline struct fake_request next(void)
{
    struct fake_request request;
    if (!wait_for(next_is_there(&request)))
        fail_msg("no request is there");
    return request;
}

static inline struct command_input command_of(const struct fake_request *request)
{
    struct partition_command_input input;
    assert_int_equal(request->head.kind, FRAME_COMMAND);
    assert_int_equal(read_partition_command_input(request->body, request->head.size, &input), READ_OK);
    return input.command;
}

/* The next request is the command of that number, whole or only by its number; answers it. */
static inline void expect(uint64_t number, bool whole)
{
    struct fake_request request = next();
    struct command_input command = command_of(&request);
    assert_int_equal(command.sequence_num, number);
    assert_int_equal(command.operation.name.size > 0, whole);
    fake_answer(node, channel, &request);
}

static inline void expect_no_request(void)
{
    struct fake_request request;
    mr_flush(client);
    assert_false(fake_next(channel, &request));
}

static inline void expect_seen(unsigned count)
{
    run();
    assert_int_equal(seen_count, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(seen[i].status, MR_OK);
}

#endif
