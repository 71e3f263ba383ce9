/* SPDX-License-Identifier: Apache-2.0 */
/* Numbered commands: applied once, answered alike for as long as they are held, refused once given up; the KeepAlive
 * that lets them go; the limit on what a session holds. */
#include "engine/fsm/session.h"
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct slice no_filter;
static const struct payload none;

struct fixture {
    struct partition *partition;
    uint64_t session, service;
};

static void begin(struct fixture *fixture, uint64_t limit)
{
    fixture->partition = partition_create(1, limit);
    fixture->session = partition_open_session(fixture->partition, MR_HOUR);
    fixture->service = partition_create_service(fixture->partition, fixture->session, COUNTER_TYPE, "a")->id;
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    begin(fixture, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    partition_destroy(fixture->partition);
    free(fixture);
    return 0;
}

static const struct reply *increment(struct fixture *fixture, uint64_t number)
{
    return partition_command(fixture->partition, fixture->session, fixture->service, number, "Increment",
                             number_payload(1));
}

static uint64_t value(struct fixture *fixture)
{
    return reply_number(partition_ask(fixture->partition, fixture->session, fixture->service, "Get", none));
}

static void keep_alive(struct fixture *fixture, struct slice filter, uint64_t last_input)
{
    assert_int_equal(partition_keep_alive(fixture->partition, fixture->session, filter, last_input)->status, STATUS_OK);
}

/* Is the number new, held (its answer `expected`, of `index`), or given up? Does nothing to a number but the first. */
static void assert_new(struct fixture *fixture, uint64_t number)
{
    uint64_t before = value(fixture);
    const struct reply *reply = increment(fixture, number);
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->index, fixture->partition->index);
    assert_int_equal(reply->sequence_num, number);
    assert_int_equal(reply->session_id, fixture->session);
    assert_int_equal(reply->number, 1);
    assert_int_equal(reply_number(reply), before + 1);
    assert_int_equal(value(fixture), before + 1);
}

static void assert_held(struct fixture *fixture, uint64_t number, uint64_t expected, uint64_t index)
{
    uint64_t before = value(fixture);
    const struct reply *reply = increment(fixture, number);
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->index, index);
    assert_int_equal(reply->number, 1);
    assert_int_equal(reply_number(reply), expected);
    assert_int_equal(value(fixture), before);
}

static void assert_conflict(struct fixture *fixture, uint64_t number, const char *why)
{
    uint64_t before = value(fixture);
    const struct reply *reply = increment(fixture, number);
    assert_int_equal(reply->status, STATUS_CONFLICT);
    assert_int_equal(reply->number, 0);
    assert_non_null(strstr(reply->message, why));
    assert_int_equal(value(fixture), before);
}

static void assert_given_up(struct fixture *fixture, uint64_t number)
{
    assert_conflict(fixture, number, "given up");
}

static void repeats(void **state)
{
    struct fixture *fixture = *state;
    uint64_t first = fixture->partition->index + 1;
    for (uint64_t number = 1; number <= 100; number++)
        assert_new(fixture, number);
    for (uint64_t number = 100; number >= 1; number--)
        for (unsigned again = 0; again < 2; again++)
            assert_held(fixture, number, number, first + number - 1);
    keep_alive(fixture, no_filter, 50);
    for (uint64_t number = 1; number <= 50; number++)
        assert_given_up(fixture, number);
    for (uint64_t number = 51; number <= 100; number++)
        assert_held(fixture, number, number, first + number - 1);
    assert_new(fixture, 101);
}

static void other_contents_are_the_same_command(void **state)
{
    struct fixture *fixture = *state;
    assert_new(fixture, 1);
    uint64_t index = fixture->partition->index;
    const struct reply *reply =
        partition_command(fixture->partition, fixture->session, fixture->service, 1, "Set", number_payload(1000));
    assert_int_equal(reply->index, index);
    assert_int_equal(reply_number(reply), 1);
    reply = partition_command(fixture->partition, fixture->session, 12345, 1, "Nothing", none);
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->index, index);
    assert_int_equal(value(fixture), 1);
}

static void any_order_and_far_ahead(void **state)
{
    struct fixture *fixture = *state;
    static const uint64_t numbers[] = {
        UINT64_MAX, 5, 1, UINT64_C(1) << 63, 2000, 1025, 1024, 3, UINT32_MAX, UINT64_C(1) << 40, 4, 2, 1026, 65};
    enum { COUNT = sizeof(numbers) / sizeof(numbers[0]) };
    uint64_t indexes[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        assert_new(fixture, numbers[i]);
        indexes[i] = fixture->partition->index;
        for (unsigned j = 0; j <= i; j++)
            assert_held(fixture, numbers[j], j + 1, indexes[j]);
    }
    keep_alive(fixture, no_filter, UINT32_MAX - 1);
    for (unsigned i = 0; i < COUNT; i++) {
        if (numbers[i] < UINT32_MAX)
            assert_given_up(fixture, numbers[i]);
        else
            assert_held(fixture, numbers[i], i + 1, indexes[i]);
    }
    assert_given_up(fixture, 777);
    assert_new(fixture, UINT32_MAX + UINT64_C(1));
    keep_alive(fixture, no_filter, UINT64_MAX);
    for (unsigned i = 0; i < COUNT; i++)
        assert_given_up(fixture, numbers[i]);
    assert_int_equal(increment(fixture, 0)->status, STATUS_INVALID);
}

static void the_filter_keeps(void **state)
{
    struct fixture *fixture = *state;
    uint64_t first = fixture->partition->index + 1;
    for (uint64_t number = 1; number <= 200; number++)
        assert_new(fixture, number);
    assert_new(fixture, UINT64_C(1) << 50);
    uint64_t far = fixture->partition->index;
    static const uint64_t kept[] = {3, 77, 150, UINT64_C(1) << 50};
    uint8_t bytes[2 + 4096];
    struct slice filter = make_filter(bytes, 8, 32768, kept, 4);
    keep_alive(fixture, filter, 150);
    for (uint64_t number = 1; number <= 200; number++) {
        if (number > 150 || number == 3 || number == 77 || number == 150)
            assert_held(fixture, number, number, first + number - 1);
        else
            assert_given_up(fixture, number);
    }
    keep_alive(fixture, no_filter, 0); /* only renews */
    assert_held(fixture, 3, 3, first + 2);
    keep_alive(fixture, make_filter(bytes, 8, 32768, kept + 1, 3), 76); /* below the floor: speaks of those up to 76 */
    assert_given_up(fixture, 3);
    assert_held(fixture, 77, 77, first + 76);
    keep_alive(fixture, filter, UINT64_C(1) << 51); /* nothing comes back */
    assert_given_up(fixture, 3);
    assert_given_up(fixture, 4);
    assert_given_up(fixture, 199);
    assert_held(fixture, 77, 77, first + 76);
    assert_held(fixture, UINT64_C(1) << 50, 201, far);
    keep_alive(fixture, no_filter, 77);
    assert_given_up(fixture, 77);
    assert_given_up(fixture, 150 - 1);
    assert_held(fixture, UINT64_C(1) << 50, 201, far);
    keep_alive(fixture, no_filter, UINT64_C(1) << 50);
    assert_given_up(fixture, UINT64_C(1) << 50);
}

static void acknowledge(struct fixture *fixture, struct slice filter, uint64_t last_input,
                        const struct last_output *last_outputs, size_t count)
{
    request_keep_alive(&fixture->partition->request, fixture->session, filter, last_input, last_outputs, count);
    assert_int_equal(partition_apply(fixture->partition)->status, STATUS_OK);
}

/* Can the command's output be had, by a route that had no room for it? */
static bool stored(struct fixture *fixture, uint64_t number)
{
    struct partition *partition = fixture->partition;
    bool gone;
    assert_true(partition_deliver(partition, fixture->session, number, (struct fsm_route){5, 6}, &gone));
    if (gone) {
        assert_int_equal(partition->said_count, 0);
        return false;
    }
    assert_int_equal(partition->said_count, 1);
    const struct reply *reply = &partition->said[0];
    assert_int_equal(reply->channel, 5);
    assert_int_equal(reply->position, 6);
    assert_int_equal(reply->number, 1);
    assert_int_equal(reply->sequence_num, number);
    assert_true(reply->last);
    return true;
}

static void outputs_acknowledged_one_by_one(void **state)
{
    struct fixture *fixture = *state;
    uint64_t first = fixture->partition->index + 1;
    for (uint64_t number = 1; number <= 8; number++)
        assert_new(fixture, number);
    uint8_t bytes[2 + 512];
    static const uint64_t kept[] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct slice filter = make_filter(bytes, 8, 4096, kept, 8);
    static const struct last_output acknowledged[] = {{1, 1}, {2, 0}, {3, 5}, {3, 0},    {4, 0},
                                                      {4, 1}, {7, 1}, {9, 1}, {1000, 1}, {5, UINT64_MAX}};
    acknowledge(fixture, filter, 6, acknowledged, sizeof(acknowledged) / sizeof(acknowledged[0]));
    static const bool there[] = {false, true, true, false, false, true, true, true}; /* of 1 to 8 */
    for (uint64_t number = 1; number <= 8; number++) {
        assert_int_equal(stored(fixture, number), there[number - 1]);
        if (there[number - 1]) {
            assert_held(fixture, number, number, first + number - 1);
            continue;
        }
        assert_conflict(fixture, number, "acknowledged"); /* held, but nothing is left to answer with */
    }
    acknowledge(fixture, no_filter, 6, acknowledged, 1);
    assert_false(stored(fixture, 2));
    assert_true(stored(fixture, 7));
    assert_false(stored(fixture, 100));
}

static bool no_room(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    (void)route;
    (void)answer;
    unsigned *asked = context;
    ++*asked;
    return false;
}

static void no_room_at_first(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    unsigned asked = 0;
    bool gone;
    struct payload one = number_payload(1);
    partition->room = no_room;
    partition->room_context = &asked;
    partition->route = (struct fsm_route){1, 2};
    request_command(&partition->request, fixture->session, fixture->service, 1, "Increment", payload_slice(&one));
    partition_submit(partition);
    assert_int_equal(asked, 1);
    assert_false(partition_deliver(partition, fixture->session, 1, partition->route, &gone));
    assert_false(gone);
    assert_int_equal(asked, 2);
    partition->room = NULL;
    assert_true(partition_deliver(partition, fixture->session, 1, partition->route, &gone));
    assert_false(gone);
    assert_int_equal(partition->said_count, 1);
    assert_int_equal(partition->said[0].index, partition->index);
    assert_int_equal(partition->said[0].payload_size, 2);
    assert_true(partition_deliver(partition, 999, 1, partition->route, &gone));
    assert_true(gone);
}

static void sessions_have_numbers_of_their_own(void **state)
{
    struct fixture *fixture = *state;
    struct fixture other = *fixture;
    other.session = partition_open_session(other.partition, MR_HOUR);
    partition_create_service(other.partition, other.session, COUNTER_TYPE, "a");
    assert_new(fixture, 1);
    uint64_t index = fixture->partition->index;
    assert_new(&other, 1);
    keep_alive(&other, no_filter, 1);
    assert_given_up(&other, 1);
    assert_held(fixture, 1, 1, index);
}

static void the_limit(void **state)
{
    (void)state;
    struct fixture fixture;
    const uint64_t each = SESSION_COMMAND_BYTES + SESSION_OUTPUT_BYTES + 2; /* two bytes of payload */
    begin(&fixture, 10 * each - 1);
    char numbers[64];
    for (uint64_t number = 1; number <= 10; number++) /* the tenth passes the limit, the eleventh finds it passed */
        assert_new(&fixture, number == 5 ? UINT64_C(1) << 60 : number);
    uint64_t before = value(&fixture);
    const struct reply *reply = increment(&fixture, 11);
    assert_int_equal(reply->status, STATUS_UNAVAILABLE);
    snprintf(numbers, sizeof(numbers), "%llu bytes of %llu", (unsigned long long)(10 * each),
             (unsigned long long)(10 * each - 1));
    assert_non_null(strstr(reply->message, numbers));
    assert_non_null(strstr(reply->message, "limit"));
    assert_true(strlen(reply->message) < MR_MESSAGE_MAX);
    assert_int_equal(value(&fixture), before);
    assert_held(&fixture, 10, 10, fixture.partition->index - 1); /* repeats are answered */
    keep_alive(&fixture, no_filter, 1);
    assert_new(&fixture, 11); /* the number was left as it was */
    assert_int_equal(increment(&fixture, 12)->status, STATUS_UNAVAILABLE);
    /* A command that is kept counts although its output has been acknowledged. */
    static const struct last_output all[] = {{2, 1}, {3, 1}, {4, 1}, {6, 1}, {7, 1}, {8, 1}, {9, 1}, {10, 1}};
    uint8_t bytes[2 + 8] = {1, 1, 255, 255, 255, 255, 255, 255, 255, 255};
    acknowledge(&fixture, (struct slice){bytes, sizeof(bytes)}, 10, all, 8);
    unsigned fitting = 0;
    while (increment(&fixture, 12 + fitting)->status == STATUS_OK)
        fitting++;
    assert_int_equal(fitting, (10 * each - 1 - (8 * SESSION_COMMAND_BYTES + 2 * each)) / each + 1);
    keep_alive(&fixture, no_filter, UINT64_MAX);
    assert_int_equal(increment(&fixture, 1)->status, STATUS_CONFLICT);
    partition_destroy(fixture.partition);
}

static void at_the_limit_is_not_over_it(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, 2 * (SESSION_COMMAND_BYTES + SESSION_OUTPUT_BYTES + 2));
    for (uint64_t number = 1; number <= 3; number++)
        assert_new(&fixture, number);
    assert_int_equal(increment(&fixture, 4)->status, STATUS_UNAVAILABLE);
    partition_destroy(fixture.partition);
}

/* What is kept lies sparsely among what goes, in the window, far ahead and below the floor: it is moved together, and
 * is afterwards what it was. */
static void sparse_outputs_are_packed(void **state)
{
    enum { LOW = 15000, ALL = 20000, KEPT_EVERY = 100, FAR = 7 };
    struct fixture *fixture = *state;
    uint64_t *indexes = calloc(ALL + 1, sizeof(*indexes)), *values = calloc(ALL + 1, sizeof(*values)), applied = 0;
    uint64_t kept[LOW / KEPT_EVERY];
    for (uint64_t i = 0; i < LOW / KEPT_EVERY; i++)
        kept[i] = (i + 1) * KEPT_EVERY;
    uint64_t low = 0, high = LOW;
    while (low < LOW) { /* three low ones, then one of those above */
        for (unsigned i = 0; i < 4; i++) {
            uint64_t number = i < 3 ? ++low : ++high;
            assert_int_equal(increment(fixture, number)->status, STATUS_OK);
            indexes[number] = fixture->partition->index;
            values[number] = ++applied;
        }
    }
    for (uint64_t far = 1; far <= FAR; far++)
        assert_new(fixture, far << 50);
    uint64_t far_index = fixture->partition->index;
    uint8_t *bytes = malloc(2 + 131072 / 8);
    keep_alive(fixture, make_filter(bytes, 12, 131072, kept, LOW / KEPT_EVERY), LOW);
    for (uint64_t number = 1; number <= ALL; number++) {
        if (number > LOW || number % KEPT_EVERY == 0)
            assert_held(fixture, number, values[number], indexes[number]);
        else
            assert_given_up(fixture, number);
    }
    for (uint64_t far = 1; far <= FAR; far++)
        assert_held(fixture, far << 50, ALL + far, far_index - FAR + far);
    keep_alive(fixture, no_filter, UINT64_MAX);
    assert_given_up(fixture, LOW);
    free(bytes);
    free(indexes);
    free(values);
}

/* A burst far beyond what the session usually holds, forgotten again, in several patterns. */
static void bursts(void **state)
{
    struct fixture *fixture = *state;
    uint64_t number = 0, total = 0;
    for (unsigned burst = 0; burst < 6; burst++) {
        uint64_t first = number + 1, count = burst % 2 == 0 ? 20000 : 10, step = 1 + burst;
        uint64_t index = fixture->partition->index + 1;
        for (uint64_t i = 0; i < count; i++, number += step)
            assert_int_equal(increment(fixture, number + 1)->status, STATUS_OK);
        for (uint64_t i = 0; i < count; i += 97)
            assert_held(fixture, first + i * step, total + i + 1, index + i);
        total += count;
        keep_alive(fixture, no_filter, number);
        assert_given_up(fixture, number);
        keep_alive(fixture, no_filter, 0);
    }
    assert_int_equal(value(fixture), total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(repeats, setup, teardown),
        cmocka_unit_test_setup_teardown(other_contents_are_the_same_command, setup, teardown),
        cmocka_unit_test_setup_teardown(any_order_and_far_ahead, setup, teardown),
        cmocka_unit_test_setup_teardown(the_filter_keeps, setup, teardown),
        cmocka_unit_test_setup_teardown(outputs_acknowledged_one_by_one, setup, teardown),
        cmocka_unit_test_setup_teardown(no_room_at_first, setup, teardown),
        cmocka_unit_test_setup_teardown(sessions_have_numbers_of_their_own, setup, teardown),
        cmocka_unit_test(the_limit),
        cmocka_unit_test(at_the_limit_is_not_over_it),
        cmocka_unit_test_setup_teardown(sparse_outputs_are_packed, setup, teardown),
        cmocka_unit_test_setup_teardown(bursts, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
