/* SPDX-License-Identifier: Apache-2.0 */
/* Clients come and go, in turn: with a session and a command, with a connection alone, with half a hand-shake, with a
 * channel that is dropped before or after it was opened. After thousands of them (FLAT_ROUNDS; `make flat
 * ROUNDS=100000`) supervisor and worker hold as many descriptors and as much memory as after the first thousand: memory
 * that no other process shares (RssAnon), shared memory (RssShmem, where rings are), and mappings. The allocator keeps
 * some of what it is given back, which is why so much may be there more. With a fault planted in the node, something is
 * left, and that is seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <millrace/counter.h>
#include <millrace/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

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
#define MORE_SHARED_KIB 128
#define MORE_MAPPINGS 40 /* what the allocator may come to; a channel has five */
#define ROUNDS_PLANTED (ROUNDS_FIRST + 500)
#define PLANTED_WAIT_MS 2000

static struct node node;

/* ---- what a process holds ---- */

struct held {
    unsigned descriptors;
    unsigned kib;
    unsigned shared_kib;
    unsigned mappings;
};

static struct held of_process(pid_t pid)
{
    struct held held = {.descriptors = process_descriptors(pid),
                        .kib = (unsigned)(process_anonymous_bytes(pid) / 1024)};
    char path[64], line[512];

    assert_int_not_equal(held.descriptors, 0);
    assert_int_not_equal(held.kib, 0);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "RssShmem:", 9) == 0)
            held.shared_kib = (unsigned)strtoul(line + 9, NULL, 10);
    fclose(file);
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        held.mappings += strchr(line, '\n') != NULL;
    fclose(file);
    assert_int_not_equal(held.mappings, 0);
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

static void print_one(const char *name, const struct held *held)
{
    printf(" %s %u descriptors, %u + %u KiB, %u mappings;", name, held->descriptors, held->kib, held->shared_kib,
           held->mappings);
}

static void print(unsigned rounds, const struct all *all)
{
    printf("after %6u rounds:", rounds);
    print_one("supervisor", &all->supervisor);
    print_one("worker", &all->worker);
    printf("\n");
    fflush(stdout);
}

struct growth {
    char text[200]; /* what there is more of than may be; empty: nothing */
};

static void look_for(struct growth *growth, const char *what, unsigned before, unsigned after, unsigned more)
{
    size_t used = strlen(growth->text);

    if (after > before + more)
        snprintf(growth->text + used, sizeof(growth->text) - used, "%s%s", used > 0 ? ", " : "", what);
}

static struct growth grown(const struct held *before, const struct held *after)
{
    struct growth growth = {.text = ""};

    look_for(&growth, "descriptors", before->descriptors, after->descriptors, 0);
    look_for(&growth, "memory", before->kib, after->kib, MORE_KIB);
    look_for(&growth, "shared memory", before->shared_kib, after->shared_kib, MORE_SHARED_KIB);
    look_for(&growth, "mappings", before->mappings, after->mappings, MORE_MAPPINGS);
    return growth;
}

/* The log's segments come and go too, and the last connections a moment later than their clients. */
static void expect_flat(unsigned rounds, const struct all *before)
{
    uint64_t end = wait_now_ms() + (getenv("MR_PLANTED") != NULL ? PLANTED_WAIT_MS : WAIT_MS);
    struct growth supervisor, worker;

    for (;;) {
        struct all after = look();
        supervisor = grown(&before->supervisor, &after.supervisor);
        worker = grown(&before->worker, &after.worker);
        bool flat = supervisor.text[0] == '\0' && worker.text[0] == '\0';
        if (flat || wait_now_ms() >= end)
            print(rounds, &after);
        if (flat)
            return;
        if (wait_now_ms() >= end)
            break;
        wait_pause();
    }
    fail_msg("more than before: supervisor (%s), worker (%s)", supervisor.text, worker.text);
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
    expect_flat(rounds, &before);
    assert_int_equal(node_partition(&node, 1).restarts, 0);
    assert_int_equal(node_stop(&node), 0);
    node_end(&node);
}

static void is_seen(const char *fault, const char *seen)
{
    char planted[64], rounds[32];
    const char *const argv[] = {"/proc/self/exe", "--flat", NULL};
    const char *const environment[] = {planted, rounds, NULL};

    snprintf(planted, sizeof(planted), "MR_PLANTED=%s", fault);
    snprintf(rounds, sizeof(rounds), "FLAT_ROUNDS=%u", ROUNDS_PLANTED);
    struct process_result result = process_run(argv, environment, NULL, 0, 4 * WAIT_MS);
    if (result.status != 1 || strstr(result.error, seen) == NULL)
        fail_msg("%s: status %d: %s%s", fault, result.status, result.error, result.output);
    process_result_free(&result);
}

static void test_what_is_left_is_seen(void **state)
{
    (void)state;
    is_seen("DESCRIPTOR_LEFT", "more than before: supervisor (descriptors)");
    is_seen("MAPPING_LEFT", "shared memory, mappings)\n"); /* the worker's, which come last */
}

/* `--flat`: only the rounds. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flat), cmocka_unit_test(test_what_is_left_is_seen)};
    const struct CMUnitTest rounds[] = {cmocka_unit_test(test_flat)};

    /* Of the node, too: the kernel makes a huge page of a few small ones whenever it comes to it. */
    if (prctl(PR_SET_THP_DISABLE, 1L, 0L, 0L, 0L) != 0)
        return 1;
    return argc == 2 && strcmp(argv[1], "--flat") == 0 ? cmocka_run_group_tests(rounds, NULL, NULL)
                                                       : cmocka_run_group_tests(tests, NULL, NULL);
}
