/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that stay open: their outputs, stored and given, acknowledged and given again; being sent again; a sink
 * without room. */
#include "tests/unit/fsm/streams.h"

#include <stdio.h>

/* ---- outputs ---- */

static void outputs_as_they_arise(void **state)
{
    struct fixture *fixture = *state;
    listen_from(fixture, 1, 1, "ab");
    uint64_t index = fixture->partition->index;
    assert_count(fixture, 2);
    assert_int_equal(assert_output(fixture, 0, 1, 1, 1, "a", false)->index, index);
    assert_output(fixture, 1, 1, 1, 2, "b", false);
    talk_of(fixture, "Talk", "c");
    assert_count(fixture, 1);
    const struct reply *reply = assert_output(fixture, 0, 1, 1, 3, "c", false);
    assert_int_equal(reply->index, index); /* of the command that it belongs to */
    assert_int_equal(reply->position, 7);
    listen_from(fixture, 2, 5, "");
    assert_count(fixture, 0);
    talk_of(fixture, "Talk", "to both");
    assert_count(fixture, 2);
    assert_output(fixture, 0, 1, 1, 4, "to both", false);
    assert_output(fixture, 1, 2, 5, 1, "to both", false);
    talk_of(fixture, "Talk", ""); /* an empty message */
    assert_output(fixture, 0, 1, 1, 5, "", false);
}

static void shared_payloads(void **state)
{
    struct fixture *fixture = *state;
    static const size_t sizes[] = {1, 63, 64, 65, 1000, 4000};
    char bytes[4001];
    for (uint64_t number = 1; number <= 20; number++)
        listen_from(fixture, number, number, "");
    for (unsigned i = 0; i < 6; i++) {
        memset(bytes, 'a' + (int)i, sizes[i]);
        bytes[sizes[i]] = '\0';
        talk_of(fixture, "Talk", bytes);
        assert_count(fixture, 20);
        for (uint64_t number = 1; number <= 20; number++)
            assert_output(fixture, number - 1, number, number, i + 1, bytes, false);
    }
    listen_from(fixture, 50, 20, ""); /* the stored ones are the same */
    assert_count(fixture, 7);
    assert_output(fixture, 6, 50, 20, 6, bytes, false);
}

static void one_that_does_not_open(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned again = 0; again < 2; again++) {
        listen_from(fixture, 1, 1, "!");
        assert_count(fixture, 1);
        assert_failure(assert_output(fixture, 0, 1, 1, 1, NULL, true), STATUS_NOT_FOUND, "refused");
    }
}

static void ends_by_the_service(void **state)
{
    struct fixture *fixture = *state;
    listen_from(fixture, 1, 1, "a");
    listen_from(fixture, 2, 2, "b");
    talk_of(fixture, "Finish", "z");
    assert_count(fixture, 2);
    assert_output(fixture, 0, 1, 1, 2, "z", true);
    assert_output(fixture, 1, 2, 2, 2, "z", true);
    assert_int_equal(ended_so_far(fixture), 0);
    talk_of(fixture, "Talk", "nobody");
    assert_count(fixture, 0);
    listen_from(fixture, 3, 1, "other contents"); /* complete, and held: all its outputs, and nothing is said to 1 */
    assert_count(fixture, 2);
    assert_output(fixture, 0, 3, 1, 1, "a", false);
    assert_output(fixture, 1, 3, 1, 2, "z", true);
    listen_from(fixture, 1, 3, "");
    talk_of(fixture, "Finish", "!");
    assert_count(fixture, 1);
    assert_failure(assert_output(fixture, 0, 1, 3, 1, NULL, true), STATUS_CONFLICT, "it is over");
}

static void an_error_of_the_service(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned again = 0; again < 2; again++) {
        submit(fixture, fixture->listener, route(1, 1), 1, "Fail", "");
        assert_count(fixture, 1);
        assert_failure(assert_output(fixture, 0, 1, 1, 1, NULL, true), STATUS_ERROR, "has failed");
    }
}

/* ---- sent again ---- */

static void taken_over(void **state)
{
    struct fixture *fixture = *state;
    listen_from(fixture, 1, 1, "abc");
    uint64_t index = fixture->partition->index;
    listen_from(fixture, 2, 1, "abc");
    assert_int_equal(fixture->partition->index, index + 1); /* it takes an index */
    assert_count(fixture, 4);
    assert_frame(fixture, 0, 1, 1, STATUS_CANCELED, "taken over");
    for (uint64_t number = 1; number <= 3; number++)
        assert_int_equal(assert_output(fixture, number, 2, 1, number, NULL, false)->index, index);
    talk_of(fixture, "Talk", "d");
    assert_count(fixture, 1);
    assert_output(fixture, 0, 2, 1, 4, "d", false);
    static const uint64_t one[] = {1};
    static const struct last_output upto_two = {1, 2};
    keep_alive(fixture, one, 1, 1, &upto_two, 1);
    assert_count(fixture, 0);
    submit(fixture, fixture->listener, route(2, 8), 1, "Listen", ""); /* another request on the same channel */
    assert_count(fixture, 3);
    assert_frame(fixture, 0, 2, 1, STATUS_CANCELED, "taken over");
    assert_int_equal(fixture->partition->said[0].position, 7);
    assert_output(fixture, 1, 2, 1, 3, "c", false);
    assert_output(fixture, 2, 2, 1, 4, "d", false);
    submit(fixture, fixture->listener, route(2, 8), 1, "Listen", ""); /* the same route: it need not be told */
    assert_count(fixture, 2);
    assert_output(fixture, 0, 2, 1, 3, "c", false);
}

static void no_route(void **state)
{
    struct fixture *fixture = *state;
    submit(fixture, fixture->listener, route(0, 0), 1, "Listen", "ab");
    assert_count(fixture, 0);
    talk_of(fixture, "Talk", "c");
    assert_count(fixture, 0);
    listen_from(fixture, 1, 1, "");
    assert_count(fixture, 3); /* and nobody is told of a take-over */
    assert_output(fixture, 0, 1, 1, 1, "a", false);
    assert_output(fixture, 2, 1, 1, 3, "c", false);
    submit(fixture, fixture->listener, route(0, 0), 1, "Listen", "");
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 1, 1, STATUS_CANCELED, "taken over");
    talk_of(fixture, "Finish", "z");
    assert_count(fixture, 0);
    listen_from(fixture, 1, 1, "");
    assert_count(fixture, 4);
    assert_output(fixture, 3, 1, 1, 4, "z", true);
}

/* ---- a sink without room ---- */

static void back_pressure(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct room room = {.left = 2};
    bool gone;
    partition->room = room_left;
    partition->room_context = &room;
    listen_from(fixture, 1, 1, "abcd");
    assert_count(fixture, 2);
    assert_int_equal(room.refused, 1);
    talk_of(fixture, "Talk", "e");
    assert_count(fixture, 0);
    assert_int_equal(room.refused, 1); /* it is not asked again */
    room.left = 2;
    assert_false(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone));
    assert_false(gone);
    assert_count(fixture, 2);
    assert_output(fixture, 0, 1, 1, 3, "c", false);
    assert_output(fixture, 1, 1, 1, 4, "d", false);
    room.left = 1000;
    assert_true(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone));
    assert_false(gone);
    assert_count(fixture, 1);
    assert_output(fixture, 0, 1, 1, 5, "e", false);
    talk_of(fixture, "Talk", "f"); /* and goes on by itself */
    assert_count(fixture, 1);
    assert_output(fixture, 0, 1, 1, 6, "f", false);
    assert_true(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone)); /* nothing is owed */
    assert_false(gone);
    assert_count(fixture, 0);
}

static void back_pressure_at_the_end(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct room room = {.left = 1};
    bool gone;
    partition->room = room_left;
    partition->room_context = &room;
    listen_from(fixture, 1, 1, "ab");
    talk_of(fixture, "Finish", "z");
    assert_count(fixture, 0);
    listen_from(fixture, 2, 1, ""); /* complete, but 1 has not had its last frame */
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 1, 1, STATUS_CANCELED, "taken over");
    assert_true(
        partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone)); /* no longer the one to ask for */
    assert_false(gone);
    assert_count(fixture, 0);
    room.left = 1000;
    assert_true(partition_deliver(partition, fixture->listener, 1, route(2, 7), &gone));
    assert_false(gone);
    assert_count(fixture, 3);
    assert_output(fixture, 0, 2, 1, 1, "a", false);
    assert_output(fixture, 2, 2, 1, 3, "z", true);
    assert_true(partition_deliver(partition, fixture->listener, 1, route(2, 7), &gone));
    assert_count(fixture, 0);
}

static void gone_while_it_waits(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct room room = {.left = 0};
    bool gone;
    partition->room = room_left;
    partition->room_context = &room;
    listen_from(fixture, 1, 1, "ab");
    listen_from(fixture, 1, 2, "ab");
    talk_of(fixture, "Finish", "z");
    listen_from(fixture, 1, 3, "ab");
    static const uint64_t kept[] = {1, 3};
    static const struct last_output outputs[] = {{1, 3}, {3, 1}};
    keep_alive(fixture, kept, 2, 3, outputs, 2);
    assert_count(fixture, 0);
    assert_true(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone)); /* all acknowledged */
    assert_true(gone);
    assert_true(partition_deliver(partition, fixture->listener, 2, route(1, 7), &gone)); /* forgotten */
    assert_true(gone);
    room.left = 1000;
    assert_true(partition_deliver(partition, fixture->listener, 3, route(1, 7), &gone)); /* what is left of it */
    assert_false(gone);
    assert_count(fixture, 1);
    assert_output(fixture, 0, 1, 3, 2, "b", false);
    listen_from(fixture, 1, 1, "");
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 1, 1, STATUS_CONFLICT, "acknowledged");
}

/* A long backlog, given up bit by bit and at once, next to ordinary commands whose outputs are packed. */
static void a_long_backlog(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    enum { EVENTS = 20000 };
    submit(fixture, fixture->listener, route(0, 0), 1, "Listen", "");
    submit(fixture, fixture->listener, route(0, 0), 2, "Listen", "");
    for (unsigned i = 0; i < EVENTS; i++) {
        char number[16];
        snprintf(number, sizeof(number), "%u", i + 1);
        talk_of(fixture, "Talk", number);
        submit(fixture, fixture->listener, route(5, 5), i + 3, "Talk", ""); /* numbers two events a round */
    }
    static const uint64_t both[] = {1, 2};
    for (uint64_t upto = 1; upto < 2 * EVENTS; upto += 999) {
        struct last_output acknowledged[] = {{1, upto}, {2, upto / 2}};
        keep_alive(fixture, both, 2, 2 + upto / 2, acknowledged, 2);
        if (upto % 5 != 0)
            continue;
        listen_from(fixture, 1, 1, "");
        assert_count(fixture, 2 * EVENTS - upto);
        uint64_t next = upto + 1;
        char expected[16] = "";
        if (next % 2 == 1)
            snprintf(expected, sizeof(expected), "%u", (unsigned)(next / 2 + 1));
        assert_output(fixture, 0, 1, 1, next, expected, false);
        submit(fixture, fixture->listener, route(0, 0), 1, "Listen", "");
    }
    request_close_session(&partition->request, fixture->listener);
    partition_apply(partition);
    unsigned turns = 1;
    while (fsm_collect(partition->fsm, 100))
        turns++;
    assert_true(turns > 20); /* not all at once */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(outputs_as_they_arise, setup, teardown),
        cmocka_unit_test_setup_teardown(shared_payloads, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_does_not_open, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_by_the_service, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_of_the_service, setup, teardown),
        cmocka_unit_test_setup_teardown(taken_over, setup, teardown),
        cmocka_unit_test_setup_teardown(no_route, setup, teardown),
        cmocka_unit_test_setup_teardown(back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(back_pressure_at_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(gone_while_it_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_backlog, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
