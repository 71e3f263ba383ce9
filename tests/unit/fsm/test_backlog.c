/* SPDX-License-Identifier: Apache-2.0 */
/* More deadlines at once than one entry fires: how many go, in which order, and what is seen of the rest meanwhile,
 * also by a state that is restored in the middle. */
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRIES = 2 * MR_ENTRY_DEADLINES + 44 };
#define DUE (PARTITION_START + 5 * MR_SECOND)

static const struct slice no_filter;
static const struct payload none;

struct fixture {
    struct partition *partition;
    uint64_t session, listener, map, number;
};

static const struct reply *run(struct fixture *fixture, const char *operation, struct payload payload)
{
    fixture->partition->route = (struct fsm_route){9999, 1};
    return partition_command(fixture->partition, fixture->session, fixture->map, ++fixture->number, operation, payload);
}

static void put_for(struct fixture *fixture, unsigned n, uint64_t ttl)
{
    struct duration duration = duration_of(ttl);
    char key[16];
    snprintf(key, sizeof(key), "%u", n);
    assert_int_equal(run(fixture, "Put", write_payload(key, text("v"), &duration, 0))->operation_status, STATUS_OK);
}

static struct fixture begin(void)
{
    struct partition *partition = partition_create(1, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    struct fixture fixture = {.partition = partition};
    fixture.session = partition_open_session(partition, 24 * MR_HOUR);
    fixture.listener = partition_open_session(partition, 24 * MR_HOUR);
    fixture.map = partition_create_service(partition, fixture.session, MAP_TYPE, "a")->id;
    partition_create_service(partition, fixture.listener, MAP_TYPE, "a");
    return fixture;
}

/* Every second one ends a nanosecond before the others: those go first, each kind in the order of its writing. */
static struct fixture begin_full(unsigned listeners)
{
    struct fixture fixture = begin();
    struct partition *partition = fixture.partition;
    struct payload payload = events_payload("", false);
    for (unsigned n = 0; n < ENTRIES; n++)
        put_for(&fixture, n, 5 * MR_SECOND - n % 2);
    for (unsigned n = 1; n <= listeners; n++) {
        request_command(&partition->request, fixture.listener, fixture.map, n, "Events", payload_slice(&payload));
        partition->route = (struct fsm_route){n, 1};
        partition_submit(partition);
    }
    return fixture;
}

static unsigned nth_key(unsigned place)
{
    return place < ENTRIES / 2 ? 2 * place + 1 : 2 * (place - ENTRIES / 2);
}

static uint64_t left(struct fixture *fixture)
{
    return reply_number(partition_ask(fixture->partition, fixture->session, fixture->map, "Size", none));
}

/* The last entry told that these have gone, from the `from`-th on, in this order. */
static void assert_gone(struct fixture *fixture, unsigned from, unsigned count)
{
    assert_int_equal(fixture->partition->said_count, count);
    for (unsigned n = 0; n < count; n++) {
        const struct reply *said = &fixture->partition->said[n];
        char key[16];
        int size = snprintf(key, sizeof(key), "%u", nth_key(from + n));
        /* EventsOutput {Event {REMOVE, Entry {key ... */
        assert_true(said->payload_size > 8 && said->payload[3] == 3);
        assert_int_equal(said->payload[7], size);
        assert_memory_equal(said->payload + 8, key, (size_t)size);
    }
}

static void so_many_an_entry_in_order(void **state)
{
    (void)state;
    struct fixture fixture = begin_full(1);
    struct partition *partition = fixture.partition;
    partition_tick(partition, DUE);
    assert_gone(&fixture, 0, MR_ENTRY_DEADLINES);
    assert_int_equal(fsm_time(partition->fsm), DUE);
    assert_true(fsm_next_deadline(partition->fsm) <= DUE);
    assert_int_equal(left(&fixture), ENTRIES - MR_ENTRY_DEADLINES);
    partition_tick(partition, DUE); /* time stands still, and yet it goes on */
    assert_gone(&fixture, MR_ENTRY_DEADLINES, MR_ENTRY_DEADLINES);
    partition_tick(partition, DUE + MR_SECOND);
    assert_gone(&fixture, 2 * MR_ENTRY_DEADLINES, ENTRIES - 2 * MR_ENTRY_DEADLINES);
    assert_int_equal(left(&fixture), 0);
    assert_int_equal(fsm_next_deadline(partition->fsm), PARTITION_START + 24 * MR_HOUR);
    partition_destroy(partition);
}

/* Exactly as many as one entry fires leave nothing behind. */
static void as_many_as_go_leave_nothing(void **state)
{
    (void)state;
    struct fixture fixture = begin();
    for (unsigned n = 0; n < MR_ENTRY_DEADLINES; n++)
        put_for(&fixture, n, 5 * MR_SECOND);
    partition_tick(fixture.partition, DUE);
    assert_int_equal(left(&fixture), 0);
    assert_true(fsm_next_deadline(fixture.partition->fsm) > DUE);
    partition_destroy(fixture.partition);
}

/* The first command of a time does its part, and those of the same time behind it none. */
static void commands_do_a_part_for_each_time(void **state)
{
    (void)state;
    struct fixture fixture = begin_full(0);
    fixture.partition->time = DUE;
    for (unsigned n = 0; n < 10; n++) {
        put_for(&fixture, ENTRIES + n, MR_HOUR);
        assert_int_equal(left(&fixture), ENTRIES - MR_ENTRY_DEADLINES + n + 1);
    }
    fixture.partition->time++;
    put_for(&fixture, ENTRIES, MR_HOUR);
    assert_int_equal(left(&fixture), ENTRIES - 2 * MR_ENTRY_DEADLINES + 10);
    partition_destroy(fixture.partition);
}

/* What is to end and has not is there as any other is; what is written again, or renewed, starts afresh from now. */
static void what_has_not_gone_is_there(void **state)
{
    (void)state;
    struct fixture fixture = begin();
    struct partition *partition = fixture.partition;
    uint64_t first = 0, last = 0;
    for (unsigned n = 0; n < ENTRIES; n++)
        put_for(&fixture, n, 5 * MR_SECOND);
    for (unsigned n = 0; n < MR_ENTRY_DEADLINES; n++) {
        last = partition_open_session(partition, 5 * MR_SECOND);
        first = first == 0 ? last : first;
    }
    partition_tick(partition, DUE + 7);
    struct fsm_session session;
    assert_true(fsm_session_describe(partition->fsm, last, &session));
    assert_int_equal(session.deadline, DUE);
    char key[16];
    snprintf(key, sizeof(key), "%u", ENTRIES - 1);
    const struct reply *reply = partition_ask(partition, fixture.session, fixture.map, "Get", key_payload(key, 0));
    assert_int_equal(reply->operation_status, STATUS_OK); /* and a nanosecond of it remains */
    assert_non_null(memmem(reply->payload, reply->payload_size, "\x12\x02\x10\x01", 4));
    assert_int_equal(run(&fixture, "Insert", write_payload(key, text("2"), NULL, 0))->operation_status,
                     STATUS_ALREADY_EXISTS);
    put_for(&fixture, ENTRIES - 1, MR_SECOND);
    assert_int_equal(partition_keep_alive(partition, last, no_filter, 0)->status, STATUS_OK);
    for (unsigned n = 0; n < 10; n++)
        partition_tick(partition, DUE + 7);
    assert_int_equal(left(&fixture), 1);
    assert_int_equal(fsm_session_count(partition->fsm), 3);
    assert_false(fsm_session_describe(partition->fsm, first, &session));
    assert_int_equal(partition_keep_alive(partition, first, no_filter, 0)->status, STATUS_FORBIDDEN);
    assert_int_equal(fsm_next_deadline(partition->fsm), DUE + 7 + MR_SECOND);
    partition_tick(partition, DUE + 7 + MR_SECOND);
    assert_int_equal(left(&fixture), 0);
    partition_tick(partition, DUE + 7 + 5 * MR_SECOND);
    assert_int_equal(fsm_session_count(partition->fsm), 2);
    partition_destroy(partition);
}

static void assert_same(struct partition *one, struct partition *other)
{
    size_t sizes[2];
    uint8_t *dumps[2] = {partition_dump(one, &sizes[0]), partition_dump(other, &sizes[1])};
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(dumps[0], dumps[1], sizes[0]);
    free(dumps[0]);
    free(dumps[1]);
}

static void restored_in_the_middle(void **state)
{
    (void)state;
    struct fixture one = begin_full(1), other = begin_full(1);
    for (unsigned n = 0; n < 2 * MR_ENTRY_DEADLINES; n++) /* sessions are left over, too */
        assert_int_equal(partition_open_session(one.partition, 5 * MR_SECOND),
                         partition_open_session(other.partition, 5 * MR_SECOND));
    for (unsigned n = 0; fsm_next_deadline(one.partition->fsm) <= DUE; n++) {
        assert_true(n < 6);
        partition_restore(other.partition);
        if (n % 2 == 0) {
            partition_tick(one.partition, DUE + n);
            partition_tick(other.partition, DUE + n);
        } else {
            one.partition->time = other.partition->time = DUE + n;
            put_for(&one, ENTRIES + n, MR_HOUR);
            put_for(&other, ENTRIES + n, MR_HOUR);
        }
        assert_int_equal(fsm_next_deadline(one.partition->fsm), fsm_next_deadline(other.partition->fsm));
        assert_same(one.partition, other.partition);
    }
    assert_int_equal(fsm_session_count(one.partition->fsm), 2);
    partition_destroy(one.partition);
    partition_destroy(other.partition);
}

/* Whom they tell counts, too. */
static void deadlines_that_tell_many(void **state)
{
    enum { LISTENERS = MR_ENTRY_DEADLINE_OUTPUTS / 100 };
    (void)state;
    struct fixture fixture = begin_full(LISTENERS);
    partition_tick(fixture.partition, DUE);
    assert_int_equal(fixture.partition->said_count, 101 * LISTENERS);
    assert_int_equal(left(&fixture), ENTRIES - 101);
    partition_tick(fixture.partition, DUE);
    assert_int_equal(left(&fixture), ENTRIES - 202);
    partition_destroy(fixture.partition);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(so_many_an_entry_in_order),        cmocka_unit_test(as_many_as_go_leave_nothing),
        cmocka_unit_test(commands_do_a_part_for_each_time), cmocka_unit_test(what_has_not_gone_is_there),
        cmocka_unit_test(restored_in_the_middle),           cmocka_unit_test(deadlines_that_tell_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
