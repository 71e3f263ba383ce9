/* SPDX-License-Identifier: Apache-2.0 */
/* Every operation of counters and maps, waiting and started, by the client library against a real node. */
#include <millrace/counter.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static struct node node;
static mr_client *client;
static mr_counter *counter;
static mr_map *map;
static char name_space[32]; /* each test's own */

static int start_node(void **state)
{
    (void)state;
    node_begin(&node, (const char *const[]){"--partitions", "2", "--durability", "memory", "--ring-bytes", "4M",
                                            "--max-payload", "1M", "--segment-bytes", "16M", NULL});
    return 0;
}

static int end_node(void **state)
{
    (void)state;
    node_end(&node);
    return 0;
}

static int set_up(void **state)
{
    static unsigned count;
    struct mr_options options = {.size = sizeof(options), .name_space = name_space};

    (void)state;
    snprintf(name_space, sizeof(name_space), "test %u", count++);
    assert_int_equal(mr_connect(node.socket, &options, &client), MR_OK);
    assert_int_equal(mr_counter_open(client, "c", &counter), MR_OK);
    assert_int_equal(mr_map_open(client, "m", &map), MR_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mr_close(client);
    return 0;
}

/* The answer of a request that was just started without a callback; valid until the next call. */
static struct mr_result taken(enum mr_status started, const uint64_t *request)
{
    struct mr_result result;

    assert_int_equal(started, MR_OK);
    while (mr_take(client, &result) == MR_AGAIN)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_int_equal(result.request, *request);
    assert_true(result.last);
    return result;
}

static const struct mr_then later = {NULL, NULL};

static void expect_bytes(struct mr_bytes bytes, const char *text)
{
    assert_int_equal(bytes.size, strlen(text));
    assert_memory_equal(bytes.data, text, bytes.size);
}

static void expect_number(struct mr_result result, enum mr_status status, int64_t number)
{
    assert_int_equal(result.status, status);
    if (status == MR_OK)
        assert_int_equal(result.as.number, number);
    else
        assert_true(result.message.size > 0);
}

/* ---- Counters ---- */

static void test_counter_waiting(void **state)
{
    (void)state;
    int64_t value;

    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    assert_int_equal(value, 0);
    assert_int_equal(mr_counter_set(counter, 40, &value), MR_OK);
    assert_int_equal(value, 40);
    assert_int_equal(mr_counter_increment(counter, 3, &value), MR_OK);
    assert_int_equal(value, 43);
    assert_int_equal(mr_counter_decrement(counter, 50, &value), MR_OK);
    assert_int_equal(value, -7);
    assert_int_equal(mr_counter_compare_and_set(counter, -7, 12, &value), MR_OK);
    assert_int_equal(value, 12);
    assert_int_equal(mr_counter_compare_and_set(counter, -7, 13, &value), MR_CONFLICT);
    assert_true(strlen(mr_message(client)) > 0);
    assert_int_equal(mr_counter_get(counter, &value), MR_OK);
    assert_int_equal(value, 12);
    assert_int_equal(mr_counter_set(counter, INT64_MAX, NULL), MR_OK);
    assert_int_equal(mr_counter_increment(counter, 1, &value), MR_OK);
    assert_int_equal(value, INT64_MIN);
}

static void test_counter_started(void **state)
{
    (void)state;
    uint64_t r;

    expect_number(taken(mr_counter_get_start(counter, later, &r), &r), MR_OK, 0);
    expect_number(taken(mr_counter_set_start(counter, 40, later, &r), &r), MR_OK, 40);
    expect_number(taken(mr_counter_increment_start(counter, 3, later, &r), &r), MR_OK, 43);
    expect_number(taken(mr_counter_decrement_start(counter, 50, later, &r), &r), MR_OK, -7);
    expect_number(taken(mr_counter_compare_and_set_start(counter, -7, 12, later, &r), &r), MR_OK, 12);
    expect_number(taken(mr_counter_compare_and_set_start(counter, -7, 13, later, &r), &r), MR_CONFLICT, 0);
    expect_number(taken(mr_counter_get_start(counter, later, &r), &r), MR_OK, 12);
}

/* ---- Maps ---- */

static void test_map_waiting(void **state)
{
    (void)state;
    struct mr_entry entry;
    uint64_t first, second, size;
    struct mr_put put = {0};

    assert_int_equal(mr_map_get(map, mr_text("a"), &entry), MR_NOT_FOUND);
    assert_int_equal(mr_map_update(map, mr_text("a"), mr_text("0"), NULL, NULL), MR_NOT_FOUND);
    assert_int_equal(mr_map_insert(map, mr_text("a"), mr_text("1"), NULL, &first), MR_OK);
    assert_int_equal(mr_map_insert(map, mr_text("a"), mr_text("2"), NULL, NULL), MR_ALREADY_EXISTS);
    assert_int_equal(mr_map_get(map, mr_text("a"), &entry), MR_OK);
    expect_bytes(entry.key, "a");
    expect_bytes(entry.value, "1");
    assert_int_equal(entry.index, first);
    assert_int_equal(entry.ttl_ns, 0);
    put.if_index = first + 1000;
    assert_int_equal(mr_map_put(map, mr_text("a"), mr_text("3"), &put, NULL), MR_CONFLICT);
    assert_int_equal(mr_map_update(map, mr_text("a"), mr_text("3"), &put, NULL), MR_CONFLICT);
    put.if_index = first;
    assert_int_equal(mr_map_update(map, mr_text("a"), mr_text("4"), &put, &second), MR_OK);
    assert_true(second > first);
    assert_int_equal(mr_map_put(map, mr_text("b"), mr_text(""), NULL, NULL), MR_OK);
    assert_int_equal(mr_map_size(map, &size), MR_OK);
    assert_int_equal(size, 2);
    assert_int_equal(mr_map_remove(map, mr_text("a"), first, NULL), MR_CONFLICT);
    assert_int_equal(mr_map_remove(map, mr_text("a"), second, &entry), MR_OK);
    expect_bytes(entry.value, "4");
    assert_int_equal(mr_map_remove(map, mr_text("a"), 0, NULL), MR_NOT_FOUND);
    assert_int_equal(mr_map_get(map, mr_text("b"), &entry), MR_OK);
    assert_int_equal(entry.value.size, 0);
    assert_int_equal(mr_map_clear(map), MR_OK);
    assert_int_equal(mr_map_size(map, &size), MR_OK);
    assert_int_equal(size, 0);
}

static void test_map_started(void **state)
{
    (void)state;
    struct mr_result result;
    uint64_t r;

    result = taken(mr_map_put_start(map, mr_text("a"), mr_text("1"), NULL, later, &r), &r);
    assert_int_equal(result.status, MR_OK);
    expect_bytes(result.as.entry.key, "a");
    expect_bytes(result.as.entry.value, "1");
    assert_int_equal(result.as.entry.index, result.index);
    uint64_t index = result.index;
    result = taken(mr_map_insert_start(map, mr_text("a"), mr_text("2"), NULL, later, &r), &r);
    assert_int_equal(result.status, MR_ALREADY_EXISTS);
    struct mr_put put = {.if_index = index};
    result = taken(mr_map_update_start(map, mr_text("a"), mr_text("3"), &put, later, &r), &r);
    assert_int_equal(result.status, MR_OK);
    result = taken(mr_map_get_start(map, mr_text("a"), later, &r), &r);
    assert_int_equal(result.status, MR_OK);
    expect_bytes(result.as.entry.value, "3");
    expect_number(taken(mr_map_size_start(map, later, &r), &r), MR_OK, 1);
    result = taken(mr_map_remove_start(map, mr_text("a"), 0, later, &r), &r);
    assert_int_equal(result.status, MR_OK);
    expect_bytes(result.as.entry.value, "3");
    assert_int_equal(taken(mr_map_clear_start(map, later, &r), &r).status, MR_OK);
    expect_number(taken(mr_map_size_start(map, later, &r), &r), MR_OK, 0);
}

static void test_time_to_live(void **state)
{
    (void)state;
    struct mr_entry entry;
    struct mr_put put = {.ttl_ns = INT64_C(3600999999999)};

    assert_int_equal(mr_map_put(map, mr_text("long"), mr_text("v"), &put, NULL), MR_OK);
    assert_int_equal(mr_map_get(map, mr_text("long"), &entry), MR_OK);
    assert_true(entry.ttl_ns > INT64_C(3500000000000) && entry.ttl_ns <= put.ttl_ns);
    put.ttl_ns = 20 * 1000000;
    assert_int_equal(mr_map_put(map, mr_text("short"), mr_text("v"), &put, NULL), MR_OK);
    assert_true(wait_for(mr_map_get(map, mr_text("short"), &entry) == MR_NOT_FOUND));
    assert_int_equal(mr_map_get(map, mr_text("long"), &entry), MR_OK);
}

static void test_any_bytes(void **state)
{
    (void)state;
    struct mr_entry entry;
    size_t size = 500000;
    uint8_t *value = malloc(size);

    assert_non_null(value);
    for (size_t i = 0; i < size; i++)
        value[i] = (uint8_t)(i * 7 + i / 251);
    struct mr_bytes key = {"nul\0inside \xc3\xbc", 13};
    struct mr_bytes bytes = {value, size};
    for (int i = 0; i < 20; i++) { /* more than a ring holds */
        assert_int_equal(mr_map_put(map, key, bytes, NULL, NULL), MR_OK);
        assert_int_equal(mr_map_get(map, key, &entry), MR_OK);
        assert_int_equal(entry.key.size, 13);
        assert_memory_equal(entry.key.data, key.data, 13);
        assert_int_equal(entry.value.size, size);
        assert_memory_equal(entry.value.data, value, size);
    }
    free(value);
    assert_int_equal(mr_map_put(map, (struct mr_bytes){"\xff", 1}, mr_text("v"), NULL, NULL), MR_INVALID);
    assert_int_equal(mr_map_put(map, mr_text(""), mr_text("of the empty key"), NULL, NULL), MR_OK);
    assert_int_equal(mr_map_get(map, mr_text(""), &entry), MR_OK);
    expect_bytes(entry.value, "of the empty key");
}

/* ---- Between clients ---- */

static void test_another_client_sees_it(void **state)
{
    (void)state;
    mr_client *other;
    mr_counter *same;
    mr_map *wrong;
    int64_t value;
    int64_t seen;
    struct mr_options options = {.size = sizeof(options), .name_space = name_space};

    assert_int_equal(mr_connect(node.socket, &options, &other), MR_OK);
    assert_int_equal(mr_counter_open(other, "c", &same), MR_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(mr_counter_increment(i % 2 ? counter : same, 1, &value), MR_OK);
        assert_int_equal(value, i + 1);
        assert_int_equal(mr_counter_get(i % 2 ? same : counter, &seen), MR_OK);
        assert_int_equal(seen, value);
    }
    assert_int_equal(mr_map_open(other, "c", &wrong), MR_FORBIDDEN);
    mr_close(other);
}

static void test_a_name_in_another_namespace_is_another(void **state)
{
    (void)state;
    mr_client *other;
    mr_counter *its;
    int64_t value;
    struct mr_options options = {.size = sizeof(options), .name_space = ""};

    assert_int_equal(mr_counter_set(counter, 5, NULL), MR_OK);
    assert_int_equal(mr_connect(node.socket, &options, &other), MR_OK);
    assert_int_equal(mr_counter_open(other, "c", &its), MR_OK);
    assert_int_equal(mr_counter_get(its, &value), MR_OK);
    assert_int_equal(value, 0);
    mr_close(other);
}

static void test_a_counter_survives_its_handles(void **state)
{
    (void)state;
    int64_t value;

    assert_int_equal(mr_counter_set(counter, 9, NULL), MR_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mr_counter_close(counter), MR_OK);
        assert_int_equal(mr_counter_open(client, "c", &counter), MR_OK);
        assert_int_equal(mr_counter_get(counter, &value), MR_OK);
        assert_int_equal(value, 9);
    }
}

/* ---- Many ---- */

struct tally {
    unsigned met;
    unsigned wrong;
};

static void check_entry(mr_client *of, const struct mr_result *result)
{
    struct tally *tally = result->arg;

    (void)of;
    tally->met++;
    tally->wrong += result->status != MR_OK || result->as.entry.value.size != result->as.entry.key.size + 100;
}

static void test_many_services_and_keys_pipelined(void **state)
{
    (void)state;
    enum { MAPS = 8, KEYS = 5000 };
    mr_map *maps[MAPS];
    struct tally tally = {0};
    char key[32];
    char value[200];

    memset(value, 'v', sizeof(value));
    for (int i = 0; i < MAPS; i++) {
        snprintf(key, sizeof(key), "map %d", i);
        assert_int_equal(mr_map_open(client, key, &maps[i]), MR_OK);
    }
    for (int round = 0; round < 2; round++)
        for (unsigned i = 0; i < MAPS * KEYS; i++) {
            struct mr_bytes name = {key, (size_t)snprintf(key, sizeof(key), "key %u", i / MAPS)};
            struct mr_bytes bytes = {value, name.size + 100};
            struct mr_then then = {check_entry, &tally};
            enum mr_status status;
            while ((status = round == 0 ? mr_map_put_start(maps[i % MAPS], name, bytes, NULL, then, NULL)
                                        : mr_map_get_start(maps[i % MAPS], name, then, NULL)) == MR_AGAIN)
                assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
            assert_int_equal(status, MR_OK);
            if (i == MAPS * KEYS - 1)
                while (tally.met < (unsigned)(round + 1) * MAPS * KEYS)
                    assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
        }
    assert_int_equal(tally.wrong, 0);
    for (int i = 0; i < MAPS; i++) {
        uint64_t size;
        assert_int_equal(mr_map_size(maps[i], &size), MR_OK);
        assert_int_equal(size, KEYS);
    }
}

/* More answers than the ring holds, taken only after a call that waits behind them. */
static void test_results_nobody_takes_do_not_block_a_call(void **state)
{
    (void)state;
    enum { COUNT = 40, SIZE = 200000 };
    char *value = malloc(SIZE);
    struct mr_result result;
    uint64_t request;
    int64_t number;
    unsigned taken_count = 0;

    assert_non_null(value);
    memset(value, 'x', SIZE);
    assert_int_equal(mr_map_put(map, mr_text("k"), (struct mr_bytes){value, SIZE}, NULL, NULL), MR_OK);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(mr_map_get_start(map, mr_text("k"), later, &request), MR_OK);
    for (int i = 1; i <= 10; i++) {
        assert_int_equal(mr_counter_increment(counter, 1, &number), MR_OK);
        assert_int_equal(number, i);
        assert_int_equal(mr_map_size(map, NULL), MR_OK); /* behind them in the same ring, wherever the counter lives */
    }
    while (taken_count < COUNT) {
        enum mr_status status = mr_take(client, &result);
        if (status == MR_AGAIN) {
            assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
            continue;
        }
        assert_int_equal(status, MR_OK);
        assert_int_equal(result.status, MR_OK);
        assert_int_equal(result.as.entry.value.size, SIZE);
        assert_memory_equal(result.as.entry.value.data, value, SIZE);
        taken_count++;
    }
    free(value);
}

/* ---- Descriptors ---- */

enum { FILLERS = 64 };
static int fillers[FILLERS];
static unsigned filled;

/* Leaves this process room for so many descriptors. */
static void leave_descriptors(unsigned count)
{
    struct rlimit limit;

    while (filled > 0)
        close(fillers[--filled]);
    int next = dup(STDERR_FILENO); /* the lowest that is free; some above it may be in use */
    assert_true(next >= 0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)next + FILLERS / 2;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (filled < FILLERS && (fillers[filled] = dup(STDERR_FILENO)) >= 0)
        filled++;
    assert_in_range(filled, count, FILLERS - 1);
    for (; count > 0; count--)
        close(fillers[--filled]);
}

static void test_a_process_out_of_descriptors(void **state)
{
    (void)state;
    struct mr_options options = {.size = sizeof(options), .name_space = name_space, .reconnect_ns = MR_NO_RECONNECT};
    struct rlimit before;
    unsigned count = 0;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    mr_close(client);
    /* Too few for each of its steps; then enough to connect, and for each step of opening a service. */
    for (;; count++) {
        leave_descriptors(count);
        enum mr_status status = mr_connect(node.socket, &options, &client);
        if (status == MR_OK)
            break;
        assert_int_equal(status, MR_NO_MEMORY);
        mr_close(client);
    }
    assert_in_range(count, 4, 10);
    for (unsigned more = 0; mr_counter_open(client, "c", &counter) != MR_OK; more++) {
        assert_non_null(strstr(mr_message(client), "open files"));
        assert_in_range(more, 0, 20);
        leave_descriptors(more);
    }
    leave_descriptors(20);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_OK);
    leave_descriptors(0);
    while (filled > 0)
        close(fillers[--filled]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_counter_waiting),
        TEST(test_counter_started),
        TEST(test_map_waiting),
        TEST(test_map_started),
        TEST(test_time_to_live),
        TEST(test_any_bytes),
        TEST(test_another_client_sees_it),
        TEST(test_a_name_in_another_namespace_is_another),
        TEST(test_a_counter_survives_its_handles),
        TEST(test_many_services_and_keys_pipelined),
        TEST(test_results_nobody_takes_do_not_block_a_call),
        TEST(test_a_process_out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, start_node, end_node);
}
