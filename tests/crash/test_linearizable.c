/* SPDX-License-Identifier: Apache-2.0 */
/* The checker of histories: it takes right ones and turns wrong ones down. Right ones by hand, and made by carrying
 * operations out one at a time; wrong ones by hand, and small random ones of which every order is tried. */
#include "tests/crash/linearizable.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST 1000000

static struct lin_operation history[4096];
static size_t length;

static void begin(void)
{
    length = 0;
}

/* In a lane of its own unless that is set afterwards. */
static struct lin_operation *add(uint64_t called, uint64_t answered, enum lin_kind kind, uint64_t argument,
                                 uint64_t condition, enum lin_outcome outcome, uint64_t result)
{
    history[length] = (struct lin_operation){.called = called,
                                             .answered = answered,
                                             .lane = (uint32_t)length,
                                             .kind = kind,
                                             .argument = argument,
                                             .condition = condition,
                                             .outcome = outcome,
                                             .result = result,
                                             .hint = LIN_NO_HINT};
    return &history[length++];
}

static void increment(uint64_t called, uint64_t answered, uint64_t delta, uint64_t result)
{
    add(called, answered, LIN_ADD, delta, LIN_ANY, LIN_OK, result);
}

static void get(uint64_t called, uint64_t answered, uint64_t result)
{
    add(called, answered, LIN_READ, 0, LIN_ANY, LIN_OK, result);
}

static void put(uint64_t called, uint64_t answered, uint64_t value)
{
    add(called, answered, LIN_PUT, value, LIN_ANY, LIN_OK, 0);
}

static void take_out(uint64_t called, uint64_t answered, uint64_t result)
{
    add(called, answered, LIN_REMOVE, 0, LIN_ANY, result == 0 ? LIN_ABSENT : LIN_OK, result);
}

static void right(void)
{
    assert_int_equal(linearizable(history, length, 0, MOST, NULL), LIN_YES);
}

static void wrong(void)
{
    assert_int_equal(linearizable(history, length, 0, MOST, NULL), LIN_NO);
}

/* ---- By hand ---- */

static void test_right(void **state)
{
    (void)state;
    begin();
    right();
    get(1, 2, 0);
    right();
    increment(3, 8, 5, 12); /* overlaps the next, and is second */
    increment(4, 6, 7, 7);
    get(5, 9, 7);
    right();
    get(10, 11, 12);
    right();

    begin();
    put(1, 10, 100);
    get(2, 3, 100); /* seen before it is answered */
    get(4, 5, 100);
    right();
    take_out(11, 12, 100);
    take_out(13, 14, 0);
    add(15, 16, LIN_READ, 0, LIN_ANY, LIN_ABSENT, 0);
    add(17, 18, LIN_INSERT, 101, LIN_ANY, LIN_OK, 0);
    add(19, 20, LIN_INSERT, 102, LIN_ANY, LIN_EXISTS, 0);
    add(21, 22, LIN_UPDATE, 103, 102, LIN_CONFLICT, 0);
    add(23, 24, LIN_UPDATE, 103, 101, LIN_OK, 0);
    add(25, 26, LIN_PUT, 104, 101, LIN_CONFLICT, 0);
    add(27, 28, LIN_PUT, 104, 103, LIN_OK, 0);
    add(29, 30, LIN_REMOVE, 0, 103, LIN_CONFLICT, 0);
    add(31, 32, LIN_REMOVE, 0, 104, LIN_OK, 104);
    add(33, 34, LIN_UPDATE, 105, LIN_ANY, LIN_ABSENT, 0);
    right();
}

static void test_stale_read(void **state)
{
    (void)state;
    begin();
    put(1, 2, 100);
    put(3, 4, 200);
    get(5, 6, 100);
    wrong();

    begin(); /* two readers, one after the other, the second behind the first */
    put(1, 2, 100);
    put(3, 20, 200);
    get(4, 5, 200);
    get(6, 7, 100);
    wrong();

    begin();
    put(1, 2, 100);
    add(3, 4, LIN_READ, 0, LIN_ANY, LIN_ABSENT, 0);
    wrong();
}

static void test_lost_update(void **state)
{
    (void)state;
    begin();
    increment(1, 2, 5, 5);
    get(3, 4, 0);
    wrong();

    begin();
    increment(1, 4, 5, 5);
    increment(2, 3, 7, 7); /* both of them first */
    wrong();

    begin();
    take_out(1, 2, 0);
    put(3, 4, 100);
    take_out(5, 6, 100);
    take_out(7, 8, 100); /* the removal was lost */
    wrong();
}

static void test_double_increment(void **state)
{
    (void)state;
    begin();
    increment(1, 2, 5, 5);
    get(3, 4, 10);
    wrong();

    begin(); /* an unanswered one too, at most once */
    increment(1, LIN_NEVER, 5, 0);
    get(3, 4, 5);
    right();
    get(5, 6, 10);
    wrong();

    begin(); /* applied, seen, applied again */
    put(1, LIN_NEVER, 100);
    get(3, 4, 100);
    put(5, 6, 200);
    get(7, 8, 200);
    right();
    get(9, 10, 100);
    wrong();
}

static void test_value_from_nowhere(void **state)
{
    (void)state;
    begin();
    get(1, 2, 7);
    wrong();

    begin();
    put(1, 2, 100);
    get(3, 4, 300);
    wrong();

    begin(); /* before it was asked for */
    get(1, 2, 100);
    put(3, 4, 100);
    wrong();

    begin();
    get(1, 2, 100);
    put(3, LIN_NEVER, 100);
    wrong();
}

static void test_reordering(void **state)
{
    (void)state;
    begin(); /* of two that overlap either may be last ... */
    put(1, 5, 100);
    put(2, 6, 200);
    get(7, 8, 100);
    right();
    history[0].lane = history[1].lane = 0; /* ... unless one client sent one after the other */
    wrong();

    begin();
    increment(1, 2, 5, 12);
    increment(3, 4, 7, 7);
    wrong();
}

static void test_unanswered_ones_of_a_lane(void **state)
{
    (void)state;
    begin();
    increment(1, LIN_NEVER, 5, 0);
    increment(2, LIN_NEVER, 7, 0);
    get(3, 4, 7);
    right();
    history[0].lane = history[1].lane = 0; /* the second one only behind the first */
    wrong();
    history[2].result = 12;
    right();
    history[2].result = 5;
    right();
    get(5, 6, 12); /* later than the first reading, which the calls do not forbid */
    right();

    begin(); /* left out, with an answered one behind it */
    increment(1, LIN_NEVER, 5, 0);
    increment(2, 3, 7, 7);
    history[0].lane = history[1].lane = 0;
    right();
}

static void test_conditions(void **state)
{
    (void)state;
    begin();
    add(1, 2, LIN_SET, 9, LIN_ANY, LIN_OK, 9);
    add(3, 6, LIN_CAS, 10, 9, LIN_OK, 10);
    add(4, 5, LIN_CAS, 11, 9, LIN_OK, 11); /* both of them met 9 */
    wrong();
    history[2].outcome = LIN_CONFLICT;
    right();
    history[1].outcome = LIN_CONFLICT; /* and now neither */
    wrong();

    begin();
    add(1, 2, LIN_INSERT, 100, LIN_ANY, LIN_OK, 0);
    add(3, 4, LIN_INSERT, 101, LIN_ANY, LIN_OK, 0);
    wrong();

    begin();
    put(1, 2, 100);
    add(3, 4, LIN_UPDATE, 101, LIN_ANY, LIN_ABSENT, 0);
    wrong();
}

static void test_says_where(void **state)
{
    struct lin_report report;
    (void)state;
    begin();
    increment(1, 2, 5, 5);
    increment(3, 4, 5, 10);
    get(5, 6, 11);
    increment(7, 8, 5, 15);
    assert_int_equal(linearizable(history, length, 0, MOST, &report), LIN_NO);
    assert_int_equal(report.placed, 2);
    assert_int_equal(report.state, 10);
    assert_int_equal(report.stuck, 2);

    begin(); /* sixteen puts at once have more orders than it may look at */
    for (uint64_t i = 0; i < 16; i++)
        put(1 + i, 100 + i, 1000 + i);
    get(200, 201, 1);
    assert_int_equal(linearizable(history, length, 0, 1000, &report), LIN_UNDECIDED);
}

/* ---- Made by carrying them out ---- */

#define CLIENTS 6
#define IN_FLIGHT 4

static struct lin_operation drawn(bool key, uint64_t number)
{
    static const enum lin_kind of_key[] = {LIN_READ, LIN_PUT, LIN_PUT, LIN_INSERT, LIN_UPDATE, LIN_REMOVE};
    static const enum lin_kind of_counter[] = {LIN_READ, LIN_ADD, LIN_ADD, LIN_ADD, LIN_SET, LIN_CAS};
    struct lin_operation operation = {.kind = key ? of_key[below(6)] : of_counter[below(6)],
                                      .answered = LIN_NEVER,
                                      .condition = LIN_ANY,
                                      .hint = LIN_NO_HINT};

    operation.argument = key ? number + 1 : 1 + below(1000);
    if (operation.kind == LIN_CAS || (key && below(3) == 0))
        operation.condition = 1 + below(key ? number + 1 : 1000);
    return operation;
}

/* Each client sends, its requests take effect in order and then are answered, or it dies, leaving some that have taken
 * effect and some that have not, and comes back as another lane. One thing happens at a time. */
static void carry_out(bool key, size_t operations, bool hints, unsigned deaths)
{
    struct queue {
        size_t open[IN_FLIGHT];
        unsigned sent, applied;
        uint32_t lane;
    } clients[CLIENTS];
    uint64_t now = 1;
    uint64_t value = 0;
    uint64_t index = 0;
    uint32_t lanes = CLIENTS;

    begin();
    for (uint32_t i = 0; i < CLIENTS; i++)
        clients[i] = (struct queue){.lane = i};
    while (length < operations) {
        struct queue *client = &clients[below(CLIENTS)];
        uint64_t what = below(100);
        now++;
        if (what == 0 && lanes < CLIENTS + deaths) {
            *client = (struct queue){.lane = lanes++};
        } else if (what < 40 && client->sent < IN_FLIGHT) {
            client->open[client->sent++] = length;
            history[length] = drawn(key, length);
            history[length].called = now;
            history[length++].lane = client->lane;
        } else if (what < 70 && client->applied < client->sent) {
            struct lin_operation *operation = &history[client->open[client->applied++]];
            operation->outcome = lin_apply(operation, &value, &operation->result);
            if (hints)
                operation->hint = ++index;
        } else if (client->applied > 0) {
            history[client->open[0]].answered = now;
            client->sent--;
            client->applied--;
            memmove(client->open, client->open + 1, client->sent * sizeof(client->open[0]));
        }
    }
}

/* A key's reading of nothing is ABSENT, as a map says it. */
static void as_a_map_says(void)
{
    for (size_t i = 0; i < length; i++)
        if (history[i].kind == LIN_READ && history[i].result == 0)
            history[i].outcome = LIN_ABSENT;
}

static void test_carried_out(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 400; i++) {
        random_state = 88172645463325252u + i;
        carry_out(i % 2 == 0, 40 + below(i < 300 ? 300 : 3000), i % 4 < 2, i % 4 < 2 ? 60 : 1);
        if (i % 2 == 0)
            as_a_map_says();
        struct lin_report report;
        enum lin_verdict verdict = linearizable(history, length, 0, MOST, &report);
        if (verdict != LIN_YES)
            fail_msg("history %u of %zu operations: verdict %d, %zu placed, %zu configurations", i, length,
                     (int)verdict, report.placed, report.configurations);
    }
}

/* One answer of a right history is made another one. With increments that are all different that is always wrong. */
static void test_one_answer_changed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        random_state = 1181783497276652981u + i;
        carry_out(false, 60 + below(200), i % 2 == 0, 2); /* each leaves orders that are all to be tried */
        size_t victim;
        do
            victim = below(length);
        while (history[victim].answered == LIN_NEVER || history[victim].kind > LIN_ADD);
        history[victim].result += 1 + (UINT64_C(1) << 40);
        assert_int_equal(linearizable(history, length, 0, MOST, NULL), LIN_NO);
    }
}

/* ---- Small ones, against every order there is ---- */

/* Is there an order? `done` has a bit for each operation that stands. */
static bool any_order(unsigned done, uint64_t value)
{
    uint64_t soonest = LIN_NEVER;

    for (size_t i = 0; i < length; i++)
        if ((done >> i & 1) == 0 && history[i].answered < soonest)
            soonest = history[i].answered;
    if (soonest == LIN_NEVER)
        return true;
    for (size_t i = 0; i < length; i++) {
        uint64_t next = value;
        uint64_t result;
        bool waits = false;
        if ((done >> i & 1) != 0 || history[i].called > soonest)
            continue;
        for (size_t j = 0; j < i; j++)
            waits |= (done >> j & 1) == 0 && history[j].lane == history[i].lane;
        if (waits)
            continue;
        enum lin_outcome outcome = lin_apply(&history[i], &next, &result);
        bool said = history[i].kind == LIN_READ || history[i].kind == LIN_ADD || history[i].kind == LIN_REMOVE;
        if (history[i].answered != LIN_NEVER &&
            (outcome != history[i].outcome || (said && outcome == LIN_OK && result != history[i].result)))
            continue;
        if (any_order(done | 1u << i, next))
            return true;
    }
    return false;
}

/* Few values, so that what is wrong is not far from right. Unanswered ones stand alone or at a lane's end. */
static void draw_small(void)
{
    uint64_t moments[16];
    uint64_t count = 2 + below(6);
    bool key = below(2) == 0;

    begin();
    for (uint64_t i = 0; i < 2 * count; i++) {
        uint64_t j = below(i + 1);
        moments[i] = moments[j];
        moments[j] = i + 1;
    }
    for (uint64_t i = 0; i < count; i++) {
        struct lin_operation operation = drawn(key, below(3));
        uint64_t a = moments[2 * i];
        uint64_t b = moments[2 * i + 1];
        operation.called = a < b ? a : b;
        operation.answered = below(4) == 0 ? LIN_NEVER : a < b ? b : a;
        operation.argument = 1 + below(3);
        if (operation.condition != LIN_ANY)
            operation.condition = 1 + below(3);
        uint64_t value = below(4);
        operation.outcome = lin_apply(&operation, &value, &operation.result);
        operation.lane = (uint32_t)(operation.answered == LIN_NEVER ? 100 + i : below(4) == 0 ? 1 : 2 + i);
        history[length++] = operation;
    }
}

static void test_small_ones(void **state)
{
    unsigned counts[2] = {0, 0};
    (void)state;
    for (unsigned i = 0; i < 40000; i++) {
        random_state = 2685821657736338717u + i * UINT64_C(7919);
        draw_small();
        bool expected = any_order(0, 0);
        counts[expected]++;
        if (linearizable(history, length, 0, MOST, NULL) != (expected ? LIN_YES : LIN_NO)) {
            for (size_t j = 0; j < length; j++)
                print_error("%llu-%llu lane %u kind %d outcome %d: %llu if %llu: %llu\n",
                            (unsigned long long)history[j].called, (unsigned long long)history[j].answered,
                            history[j].lane, (int)history[j].kind, (int)history[j].outcome,
                            (unsigned long long)history[j].argument, (unsigned long long)history[j].condition,
                            (unsigned long long)history[j].result);
            fail_msg("history %u is %s", i, expected ? "right" : "wrong");
        }
    }
    assert_true(counts[0] > 1000 && counts[1] > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_stale_read),
        cmocka_unit_test(test_lost_update),
        cmocka_unit_test(test_double_increment),
        cmocka_unit_test(test_value_from_nowhere),
        cmocka_unit_test(test_reordering),
        cmocka_unit_test(test_unanswered_ones_of_a_lane),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_says_where),
        cmocka_unit_test(test_carried_out),
        cmocka_unit_test(test_one_answer_changed),
        cmocka_unit_test(test_small_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
