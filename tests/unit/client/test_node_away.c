/* SPDX-License-Identifier: Apache-2.0 */
/* The client library while the node is away, and with one that came back changed: who waits, who is woken, what ends
 * and with what. */
#include "tests/unit/client/node_return.h"

/* ---- Waiting ---- */

static void test_who_sleeps_is_woken(void **state)
{
    (void)state;
    start_held((struct mr_options){.call_timeout_ns = 0});
    int fd = mr_fd(client);
    for (int round = 0; round < 3; round++) {
        unsigned wakes = 0;
        seen_count = 0;
        increment(round);
        assert_int_equal(mr_arm(client), MR_OK);
        fake_node_vanish(node);
        channel = NULL; /* the node's own from its release on */
        assert_true(wait_fd(fd, POLLIN, WAIT_MS));
        unsigned tries = sys_call_count(SYS_CONNECT);
        /* It looks for the node now and then, and sleeps otherwise. (So does the thread that renews, whose looks are
         * in the count: they alone may be enough, where this one was not scheduled for a while.) */
        while (wakes == 0 || sys_call_count(SYS_CONNECT) < tries + 5) {
            enum mr_status status = mr_run(client, MR_NO_WAIT, NULL);
            assert_true(status == MR_OK || status == MR_AGAIN);
            status = mr_arm(client);
            assert_true(status == MR_OK || status == MR_AGAIN);
            if (status == MR_AGAIN)
                continue;
            assert_true(wait_fd(fd, POLLIN, WAIT_MS));
            wakes++;
        }
        assert_in_range(wakes, 1, 20);
        fake_node_return(node);
        fake_node_release(node);
        while (seen_count == 0) {
            mr_run(client, MR_NO_WAIT, NULL);
            if (seen_count == 0 && mr_arm(client) == MR_OK)
                assert_true(wait_fd(fd, POLLIN, WAIT_MS));
        }
        expect_seen(1);
        assert_int_equal(mr_fd(client), fd);
        fake_node_hold(node);
        channel = fake_channel(node, 1);
    }
}

static void test_a_run_waits_for_the_node(void **state)
{
    (void)state;
    unsigned completed;

    start_held((struct mr_options){.call_timeout_ns = 0});
    go_away();
    assert_int_equal(mr_counter_increment_start(counter, 1, noting(1), NULL), MR_AGAIN);
    assert_non_null(strstr(mr_message(client), "away"));
    assert_int_equal(mr_run(client, 1000, &completed), MR_AGAIN);
    /* Not at a moment at which it is due to look for the node. */
    assert_true(wait_for(mr_run(client, MR_NO_WAIT, NULL) == MR_AGAIN && mr_arm(client) == MR_OK));
    fake_node_return(node);
    /* Nothing is open, and yet it waits: for the room that the start call did not find. */
    enum mr_status status;
    while ((status = mr_counter_increment_start(counter, 1, noting(1), NULL)) == MR_AGAIN)
        assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    assert_int_equal(status, MR_OK);
    fake_node_release(node);
    assert_int_equal(mr_run(client, MR_FOR_EVER, NULL), MR_OK);
    expect_seen(1);
}

static void test_a_call_s_time_is_over_first(void **state)
{
    (void)state;
    start_held((struct mr_options){.call_timeout_ns = SECONDS(1) / 20});
    increment(1);
    go_away();
    assert_int_equal(mr_counter_get(counter, NULL), MR_TIMEOUT);
    assert_non_null(strstr(mr_message(client), "away"));
    assert_true(wait_for((run(), seen_count == 1)));
    assert_int_equal(seen[0].status, MR_TIMEOUT);
    fake_node_release(node);
    fake_node_return(node);
    assert_true(wait_for(mr_counter_increment(counter, 1, NULL) == MR_OK));
    assert_int_equal(fake_counts(node).applied >= 1, true);
}

static void test_the_time_is_over(void **state)
{
    (void)state;
    start_held((struct mr_options){.reconnect_ns = SECONDS(1) / 20});
    increment(1);
    assert_int_equal(mr_arm(client), MR_OK);
    fake_node_vanish(node);
    while (mr_run(client, MR_NO_WAIT, NULL) != MR_NO_NODE)
        if (mr_arm(client) == MR_OK)
            assert_true(wait_fd(mr_fd(client), POLLIN, WAIT_MS));
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_NO_NODE);
    assert_non_null(strstr(seen_message[0], "not back in time"));
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE);
    fake_node_return(node);
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_NO_NODE);
    assert_int_equal(mr_arm(client), MR_NO_NODE);
}

static void test_without_end(void **state)
{
    (void)state;
    start_held((struct mr_options){.reconnect_ns = MR_FOR_EVER});
    increment(1);
    go_away();
    assert_int_equal(mr_run(client, SECONDS(1) / 10, NULL), MR_AGAIN);
    come_back();
    expect(1, true);
    expect_seen(1);
}

static void test_closing_meanwhile(void **state)
{
    (void)state;
    start_held((struct mr_options){.call_timeout_ns = 0});
    increment(1);
    go_away();
    uint64_t before = wait_now_ms();
    mr_close(client);
    assert_true(wait_now_ms() - before < WAIT_MS / 2);
    assert_int_equal(seen_count, 1);
    assert_int_equal(seen[0].status, MR_CANCELED);
    client = NULL;
}

static int in_a_child(void *argument)
{
    (void)argument;
    if (mr_counter_increment(counter, 1, NULL) != MR_INVALID)
        return 1;
    mr_close(client);
    return 0;
}

static void test_a_child_meanwhile(void **state)
{
    (void)state;
    start_held((struct mr_options){.call_timeout_ns = 0});
    increment(1);
    go_away();
    assert_int_equal(fork_wait(fork_run(in_a_child, NULL), WAIT_MS), 0);
    come_back();
    expect(1, true);
    expect_seen(1);
}

/* ---- Refused ---- */

static void test_it_says_no_for_a_while(void **state)
{
    (void)state;
    static const struct fake_options noes[] = {{.ring_bytes = 32768, .refuse_hello = true},
                                               {.ring_bytes = 32768, .refuse_channels = true}};

    start_held((struct mr_options){.call_timeout_ns = 0});
    for (int i = 0; i < 2; i++) {
        seen_count = 0;
        increment(1);
        go_away();
        fake_node_change(node, &noes[i]);
        fake_node_return(node);
        uint64_t connections = fake_counts(node).connections;
        assert_int_equal(mr_run(client, SECONDS(1) / 4, NULL) == MR_NO_NODE, false);
        assert_true(wait_for((run(), fake_counts(node).connections > connections)));
        assert_int_equal(seen_count, 0);
        fake_node_change(node, &(struct fake_options){.ring_bytes = 32768});
        assert_true(wait_for(is_back()));
        expect((uint64_t)i + 1, true);
        expect_seen(1);
    }
}

/* The node comes back only to say no until the handle's time is over; gives what a call came to that waited meanwhile,
 * having said what it has to say. That it is back has to be seen in time: where somebody was not scheduled for so long,
 * another handle has twice as much. */
static enum mr_status refused_to_the_end(const struct fake_options *no, const char *words)
{
    static const struct fake_options normal = {.ring_bytes = 32768};
    enum mr_status status = MR_OK;
    bool told = false;

    start(&normal, (struct mr_options){.call_timeout_ns = 0});
    for (int64_t seconds = 2; !told && seconds <= 16; seconds *= 2) {
        struct mr_options options = {.size = sizeof(options), .reconnect_ns = SECONDS(seconds)};
        fake_node_change(node, &normal);
        assert_true(wait_for(connects(&options)));
        assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
        go_away();
        fake_node_change(node, no);
        fake_node_return(node);
        status = mr_counter_increment(counter, 1, NULL);
        assert_true(status == MR_NO_NODE || status == MR_UNAVAILABLE);
        told = strstr(mr_message(client), words) != NULL;
    }
    assert_true(told);
    return status;
}

static void test_it_says_no_for_too_long(void **state)
{
    (void)state;
    /* The node's words. */
    assert_int_equal(refused_to_the_end(&(struct fake_options){.refuse_hello = true}, "no more"), MR_NO_NODE);
}

static void test_it_gives_no_channel_for_too_long(void **state)
{
    (void)state;
    struct mr_bytes status;

    assert_int_equal(refused_to_the_end(&(struct fake_options){.refuse_channels = true}, "too many channels"),
                     MR_UNAVAILABLE);
    assert_int_equal(mr_node_status(client, &status), MR_OK); /* the node is there */
}

static void test_a_channel_that_is_closed_alone(void **state)
{
    (void)state;
    start_held((struct mr_options){.call_timeout_ns = 0});
    increment(1);
    fake_close_channel(channel, "it was asked for");
    fake_say_closed(node, channel);
    assert_true(wait_for((mr_run(client, 0, NULL), seen_count == 1)));
    assert_int_equal(seen[0].status, MR_UNAVAILABLE);
    assert_non_null(strstr(seen_message[0], "it was asked for"));
}

/* Its partition ends long before the node's socket does. */
static void test_a_channel_that_is_closed_with_the_node(void **state)
{
    (void)state;
    start_held((struct mr_options){.call_timeout_ns = 0});
    increment(1);
    fake_close_channel(channel, "the node is stopping");
    assert_int_equal(mr_run(client, SECONDS(1) / 4, NULL), MR_AGAIN);
    fake_node_vanish(node);
    fake_node_return(node);
    assert_true(wait_for(is_back()));
    expect(1, true);
    expect_seen(1);
}

/* ---- Other limits, another directory ---- */

static void test_it_takes_less(void **state)
{
    (void)state;
    static char large[6000];
    mr_map *map;

    start(&(struct fake_options){.ring_bytes = 65536}, (struct mr_options){.ring_bytes = 65536});
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    assert_int_equal(mr_map_open(client, "map", &map), MR_OK);
    fake_node_hold(node);
    channel = fake_channel(node, 1);
    struct mr_bytes value = {large, sizeof(large)};
    assert_int_equal(mr_map_put_start(map, mr_text("k"), value, NULL, noting(1), NULL), MR_OK);
    increment(2);
    go_away();
    fake_node_change(node, &(struct fake_options){.ring_bytes = 16384, .max_payload = 4096});
    come_back();
    assert_int_equal(channel->channel.ring_bytes, 16384);
    expect(2, true);
    run();
    assert_int_equal(seen_count, 2);
    assert_int_equal(seen[0].status, MR_INVALID);
    assert_int_equal(number_of(&seen[0]), 1);
    assert_non_null(strstr(seen_message[0], "smaller"));
    assert_int_equal(seen[1].status, MR_OK);
    assert_int_equal(mr_max_payload(client), 4096);
    assert_int_equal(mr_map_put_start(map, mr_text("k"), value, NULL, noting(1), NULL), MR_INVALID);
}

static void test_another_directory(void **state)
{
    (void)state;
    mr_counter *again;
    int64_t value;
    void *body;

    start_held((struct mr_options){.session_timeout_ns = SECONDS(1) / 10});
    increment(1);
    assert_int_equal(mr_counter_get_start(counter, noting(2), NULL), MR_OK);
    assert_int_equal(mr_reserve(client, 1, MR_QUERY, 100, 0, &body), MR_OK);
    assert_int_equal(mr_commit(client, 0, noting(3), NULL), MR_OK);
    go_away();
    fake_node_empty(node);
    fake_node_change(node, &(struct fake_options){.ring_bytes = 32768, .partitions = 3, .directory = 7});
    struct fake_counts before = fake_counts(node);
    fake_node_release(node);
    fake_node_return(node);
    assert_true(wait_for((mr_run(client, 0, NULL), seen_count == 3)));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(seen[i].status, MR_SESSION_LOST);
        assert_non_null(strstr(seen_message[i], "another data directory"));
    }
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_SESSION_LOST);
    assert_int_equal(mr_counter_get(counter, NULL), MR_SESSION_LOST);
    /* Nothing of before was sent there, nor is renewed there. */
    assert_true(wait_for(fake_counts(node).connected == 2));
    assert_int_equal(fake_counts(node).commands, before.commands);
    assert_int_equal(fake_counts(node).queries, before.queries);
    assert_int_equal(fake_counts(node).renewals, before.renewals);
    assert_int_equal(mr_partitions(client), 3);
    /* The number of the new session is that of the old one. */
    static const char *const names[] = {"hits", "a", "b", "c", "d", "e"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_int_equal(mr_counter_open(client, names[i], &again), MR_OK);
        assert_int_equal(mr_counter_increment(again, 1, &value), MR_OK);
        assert_int_equal(value, (int64_t)i + 1);
    }
    assert_int_equal(mr_counter_increment(counter, 1, NULL), MR_SESSION_LOST);
    assert_true(wait_for(fake_counts(node).renewals > before.renewals));
    assert_int_equal(mr_counter_close(counter), MR_OK);
}

static void test_another_directory_under_an_opening(void **state)
{
    (void)state;
    int64_t value;

    start(&(struct fake_options){.partitions = 1}, (struct mr_options){.call_timeout_ns = 0});
    for (unsigned after = 0; after < 3; after++) {
        mr_close(client);
        assert_int_equal(mr_connect(path, NULL, &client), MR_OK);
        /* It dies at the first, the second, the third request, and is another one at once. */
        fake_node_change(node, &(struct fake_options){.directory = (uint8_t)(after + 1)});
        fake_node_die(node, FAKE_AT_REQUEST, after, 1);
        enum mr_status status = mr_counter_open(client, "hits", &counter);
        assert_int_equal(status, MR_OK);
        status = mr_counter_increment(counter, 1, &value);
        if (status == MR_SESSION_LOST) {
            assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
            status = mr_counter_increment(counter, 1, &value);
        }
        assert_int_equal(status, MR_OK);
    }
}

/* ---- Renewal ---- */

/* The node is back, a channel is being asked for, and meanwhile it says no to something else. */
static void test_a_question_is_refused_while_a_channel_is_asked_for(void **state)
{
    (void)state;
    struct mr_bytes encoded;

    start(&(struct fake_options){.partitions = 1}, (struct mr_options){.call_timeout_ns = SECONDS(10)});
    assert_int_equal(mr_counter_open(client, "hits", &counter), MR_OK);
    fake_node_vanish(node);
    fake_node_change(node, &(struct fake_options){.never_open = true});
    fake_node_return(node);
    assert_int_equal(mr_node_sessions(client, 1, &encoded), MR_UNAVAILABLE);
    assert_string_equal(mr_message(client), "sessions are not told");
}

static void test_it_dies_at_every_point_and_is_not_waited_for(void **state)
{
    (void)state;
    start(&(struct fake_options){.partitions = 1}, (struct mr_options){.call_timeout_ns = 0});
    mr_close(client);
    client = NULL;
    for (enum fake_death where = FAKE_AT_OPEN_CHANNEL; where <= FAKE_BEHIND_OPENED; where++) {
        struct mr_options options = {.size = sizeof(options), .reconnect_ns = MR_NO_RECONNECT};
        assert_int_equal(mr_connect(path, &options, &client), MR_OK);
        fake_node_die(node, where, 0, 1);
        assert_int_equal(mr_counter_open(client, "hits", &counter), MR_NO_NODE);
        assert_true(strlen(mr_message(client)) > 0);
        mr_close(client);
        client = NULL;
    }
}

static void test_sessions_are_renewed_at_once(void **state)
{
    (void)state;
    start_held((struct mr_options){.session_timeout_ns = (int64_t)(30 * MR_SECOND)});
    fake_node_release(node);
    assert_true(wait_for(fake_counts(node).connected == 2));
    for (int i = 0; i < 3; i++) { /* long before the third of the timeout */
        uint64_t before = fake_counts(node).renewals;
        fake_node_vanish(node);
        fake_node_return(node);
        assert_true(wait_for(fake_counts(node).renewals > before));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_who_sleeps_is_woken),
        TEST(test_a_run_waits_for_the_node),
        TEST(test_a_call_s_time_is_over_first),
        TEST(test_the_time_is_over),
        TEST(test_without_end),
        TEST(test_closing_meanwhile),
        TEST(test_a_child_meanwhile),
        TEST(test_it_says_no_for_a_while),
        TEST(test_it_says_no_for_too_long),
        TEST(test_it_gives_no_channel_for_too_long),
        TEST(test_a_channel_that_is_closed_alone),
        TEST(test_a_channel_that_is_closed_with_the_node),
        TEST(test_it_takes_less),
        TEST(test_another_directory),
        TEST(test_another_directory_under_an_opening),
        TEST(test_a_question_is_refused_while_a_channel_is_asked_for),
        TEST(test_it_dies_at_every_point_and_is_not_waited_for),
        TEST(test_sessions_are_renewed_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
