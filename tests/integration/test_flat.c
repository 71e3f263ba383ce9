/* SPDX-License-Identifier: Apache-2.0 */
/* Clients come and go, in turn: with a session and a command, with a connection alone, with half a hand-shake, with a
 * channel that is dropped. After thousands of them (FLAT_ROUNDS; `make flat ROUNDS=100000`) supervisor and worker hold
 * as many descriptors and as much memory as after the first few. Memory is what no other process shares (RssAnon); the
 * allocator keeps some of what it is given back, which is why so much may be there more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/live_node.h"
#include "tests/support/spawn.h"
#include "tests/support/stub_node.h"
#include "tests/support/wait.h"

#define ROUNDS_DEFAULT 3000
#define ROUNDS_FIRST 1000 /* until allocators and tables have their size */
/* AddressSanitizer keeps what was freed, up to 256 MiB of it. */
#ifdef __SANITIZE_ADDRESS__
#define MORE_KIB (256 * 1024)
#else
#define MORE_KIB 1024
#endif

static struct node node;

/* ---- what a process holds ---- */

struct held {
    unsigned descriptors;
    unsigned kib;
};

static struct held of_process(pid_t pid)
{
    struct held held = {.descriptors = process_descriptors(pid),
                        .kib = (unsigned)(process_anonymous_bytes(pid) / 1024)};

    assert_int_not_equal(held.descriptors, 0);
    assert_int_not_equal(held.kib, 0);
    return held;
}

struct all {
    struct held supervisor, worker;
};

static struct all look(void)
{
    assert_true(wait_for(node_partition(&node, 1).channels == 0 && node_partition(&node, 1).sessions == 0));
    return (struct all){.supervisor = of_process(node.process.pid), .worker = of_process(node_partition(&node, 1).pid)};
}

static void print(unsigned rounds, const struct all *all)
{
    printf("after %6u rounds: supervisor %u descriptors, %u KiB; worker %u descriptors, %u KiB\n", rounds,
           all->supervisor.descriptors, all->supervisor.kib, all->worker.descriptors, all->worker.kib);
    fflush(stdout);
}

/* ---- who comes and goes ---- */

static void whole_life(void)
{
    mr_client *client;
    mr_counter *counter;
    int64_t value;

    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "visits", &counter), MR_OK);
    assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    mr_close(client);
}

static void connection_alone(void)
{
    mr_client *client;

    assert_int_equal(mr_connect(node.socket, NULL, &client), MR_OK);
    mr_close(client);
}

static void half_a_handshake(const struct stub_node *at)
{
    struct stub_client client;

    stub_connect(&client, at);
    stub_disconnect(&client);
}

/* The connection ends when the channel is opened, but not with its `mapped`; or the channel is in use. */
static void channel_dropped(const struct stub_node *at, bool opened)
{
    struct stub_client client;
    struct channel channel;

    stub_greet(&client, at);
    if (opened)
        stub_open_channel(&client, 1, 16384, &channel);
    else
        stub_map_channel(&client, 1, 16384, &channel);
    stub_disconnect(&client);
    channel_unmap(&channel);
}

static void some_rounds(unsigned from, unsigned to)
{
    struct stub_node at = {.pid = 0};

    snprintf(at.socket, sizeof(at.socket), "%s", node.socket);
    for (unsigned n = from; n < to; n++) {
        if (n % 5 == 0)
            whole_life();
        else if (n % 5 == 1)
            connection_alone();
        else if (n % 5 == 2)
            half_a_handshake(&at);
        else
            channel_dropped(&at, n % 5 == 3);
    }
}

static void test_flat(void **state)
{
    const char *given = getenv("FLAT_ROUNDS");
    unsigned rounds = given != NULL ? (unsigned)strtoul(given, NULL, 10) : ROUNDS_DEFAULT;

    (void)state;
    assert_true(rounds > ROUNDS_FIRST);
    /* A disk that others use as well need not be waited for. */
    node_begin(&node, (const char *const[]){"--durability", "async", NULL});
    some_rounds(0, ROUNDS_FIRST);
    unsigned own = open_descriptors();
    struct all before = look();
    print(ROUNDS_FIRST, &before);
    for (unsigned tenth = 0; tenth < 10; tenth++) {
        unsigned step = (rounds - ROUNDS_FIRST) / 10;
        some_rounds(ROUNDS_FIRST + tenth * step, ROUNDS_FIRST + (tenth + 1) * step);
        struct all now = look();
        print(ROUNDS_FIRST + (tenth + 1) * step, &now);
    }
    assert_in_range(open_descriptors(), own, own + 4); /* nor does the library leave any */
    struct all after;
    /* The log's segments come and go too, and the last connections a moment later than their clients. */
    assert_true(wait_for((after = look()).worker.descriptors <= before.worker.descriptors &&
                         after.supervisor.descriptors <= before.supervisor.descriptors));
    assert_in_range(after.supervisor.kib, 0, before.supervisor.kib + MORE_KIB);
    assert_in_range(after.worker.kib, 0, before.worker.kib + MORE_KIB);
    assert_int_equal(node_partition(&node, 1).restarts, 0);
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flat)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
