/* SPDX-License-Identifier: Apache-2.0 */
/* How commands that stay open end: by a KeepAlive that leaves them out, with their service, with their session, and at
 * the session's limit. */
#include "tests/unit/fsm/streams.h"

#include "engine/fsm/session.h"

#include <stdio.h>

/* ---- ends from outside ---- */

static void canceled_by_absence(void **state)
{
    struct fixture *fixture = *state;
    for (uint64_t number = 1; number <= 4; number++)
        listen_from(fixture, number, number, "a");
    static const uint64_t two[] = {2};
    keep_alive(fixture, two, 1, 3, NULL, 0); /* says nothing of 4 */
    assert_count(fixture, 2);
    assert_frame(fixture, 0, 1, 1, STATUS_CANCELED, "KeepAlive");
    assert_frame(fixture, 1, 3, 3, STATUS_CANCELED, "KeepAlive");
    assert_int_equal(ended_so_far(fixture), 2);
    listen_from(fixture, 5, 1, "a");
    assert_frame(fixture, 0, 5, 1, STATUS_CONFLICT, "given up");
    talk_of(fixture, "Talk", "b");
    assert_count(fixture, 2);
    assert_output(fixture, 0, 2, 2, 2, "b", false);
    assert_output(fixture, 1, 4, 4, 2, "b", false);
    keep_alive(fixture, NULL, 0, 0, NULL, 0); /* only renews */
    assert_count(fixture, 0);
    keep_alive(fixture, NULL, 0, 2, NULL, 0);
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 2, 2, STATUS_CANCELED, "KeepAlive");
    keep_alive(fixture, NULL, 0, 4, NULL, 0);
    assert_frame(fixture, 0, 4, 4, STATUS_CANCELED, "KeepAlive");
    talk_of(fixture, "Talk", "c");
    assert_count(fixture, 0);
    assert_int_equal(ended_so_far(fixture), 4);
}

static void a_false_positive_keeps(void **state)
{
    struct fixture *fixture = *state;
    listen_from(fixture, 1, 1, "a");
    uint8_t everything[10] = {1, 1, 255, 255, 255, 255, 255, 255, 255, 255};
    request_keep_alive(&fixture->partition->request, fixture->listener, (struct slice){everything, sizeof(everything)},
                       1, NULL, 0);
    fixture->partition->route = route(98, 1);
    partition_submit(fixture->partition);
    assert_count(fixture, 1);
    talk_of(fixture, "Talk", "b");
    assert_count(fixture, 1);
    assert_output(fixture, 0, 1, 1, 2, "b", false);
}

static void canceled_with_its_service(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    listen_from(fixture, 1, 1, "a");
    listen_from(fixture, 2, 2, "");
    submit(fixture, fixture->talker, route(3, 7), 1000, "Listen", ""); /* another session's */
    request_close_service(&partition->request, fixture->listener, fixture->service);
    partition->route = route(4, 1);
    partition_submit(partition);
    assert_count(fixture, 3);
    assert_failure(assert_output(fixture, 0, 1, 1, 2, NULL, true), STATUS_CANCELED, "closed the service");
    assert_failure(assert_output(fixture, 1, 2, 2, 1, NULL, true), STATUS_CANCELED, "closed the service");
    assert_int_equal(ended_so_far(fixture), 2);
    listen_from(fixture, 5, 1, ""); /* it stays, as complete, although the service is not open */
    assert_count(fixture, 2);
    assert_output(fixture, 0, 5, 1, 1, "a", false);
    assert_failure(assert_output(fixture, 1, 5, 1, 2, NULL, true), STATUS_CANCELED, "closed the service");
    talk_of(fixture, "Talk", "b");
    assert_count(fixture, 1);
    assert_int_equal(partition->said[0].session_id, fixture->talker);
    keep_alive(fixture, NULL, 0, 2, NULL, 0);
    assert_count(fixture, 0); /* they had their last frames */
    listen_from(fixture, 5, 1, "");
    assert_frame(fixture, 0, 5, 1, STATUS_CONFLICT, "given up");
}

static void canceled_with_its_session(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    listen_from(fixture, 1, 1, "ab");
    uint64_t index = partition->index;
    listen_from(fixture, 2, 2, "");
    request_close_session(&partition->request, fixture->listener);
    partition->route = route(4, 1);
    partition_submit(partition);
    assert_count(fixture, 3);
    assert_int_equal(assert_output(fixture, 0, 1, 1, 3, NULL, true)->index, index);
    assert_failure(&partition->said[0], STATUS_CANCELED, "session ended");
    assert_failure(assert_output(fixture, 1, 2, 2, 1, NULL, true), STATUS_CANCELED, "session ended");
    assert_int_equal(partition->said[2].channel, 4);
    assert_int_equal(ended_so_far(fixture), 2);
    talk_of(fixture, "Talk", "b");
    assert_count(fixture, 0);
    bool gone;
    assert_true(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone));
    assert_true(gone);
}

static void canceled_by_expiry(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    listen_from(fixture, 1, 1, "ab");
    partition_tick(partition, partition->time + MR_HOUR);
    assert_count(fixture, 1);
    assert_failure(assert_output(fixture, 0, 1, 1, 3, NULL, true), STATUS_CANCELED, "session ended");
    assert_int_equal(ended_so_far(fixture), 1);
}

/* One that waits for room when its session ends is told so all the same; what it was to have before is lost. */
static void canceled_while_it_waits(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct room room = {.left = 0};
    partition->room = room_left;
    partition->room_context = &room;
    listen_from(fixture, 1, 1, "ab");
    listen_from(fixture, 2, 2, "ab");
    static const uint64_t one[] = {1};
    keep_alive(fixture, one, 1, 2, NULL, 0);
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 2, 2, STATUS_CANCELED, "KeepAlive");
    room.left = 1;
    partition_tick(partition, partition->time + MR_HOUR);
    assert_count(fixture, 1);
    assert_failure(assert_output(fixture, 0, 1, 1, 3, NULL, true), STATUS_CANCELED, "session ended");
}

/* ---- the limit ---- */

enum { OUTPUT = SESSION_OUTPUT_BYTES + 1 }; /* of one byte */

/* ServiceCommandInput: service_id, sequence_num, operation {name, payload}; ids and sizes below 128. */
static uint64_t stream_bytes(size_t payload)
{
    size_t operation = 2 + strlen("Listen") + (payload == 0 ? 0 : 2 + payload);
    return SESSION_COMMAND_BYTES + SESSION_STREAM_BYTES + 2 + 2 + 2 + operation;
}

static void the_output_that_would_pass_the_limit(void **state)
{
    (void)state;
    struct fixture fixture;
    uint64_t limit = stream_bytes(2) + stream_bytes(0) + 6 * OUTPUT; /* two of the first, then two more of each */
    begin(&fixture, limit);
    listen_from(&fixture, 1, 1, "ab");
    listen_from(&fixture, 2, 2, "");
    talk_of(&fixture, "Talk", "c");
    talk_of(&fixture, "Talk", "d");
    assert_count(&fixture, 2); /* at the limit is not over it */
    char text_of_limit[32];
    snprintf(text_of_limit, sizeof(text_of_limit), "%llu", (unsigned long long)limit);
    /* The first one's next output would pass it. That ends it; its input goes, and so the second one goes on. */
    talk_of(&fixture, "Talk", "e");
    assert_count(&fixture, 2);
    const struct reply *reply = assert_output(&fixture, 0, 1, 1, 5, NULL, true);
    assert_failure(reply, STATUS_UNAVAILABLE, "limit");
    assert_non_null(strstr(reply->message, text_of_limit));
    assert_true(strlen(reply->message) <= MR_MESSAGE_MAX);
    assert_output(&fixture, 1, 2, 2, 3, "e", false);
    assert_int_equal(ended_so_far(&fixture), 1);
    listen_from(&fixture, 3, 1, ""); /* stored, all of them */
    assert_count(&fixture, 5);
    assert_output(&fixture, 0, 3, 1, 1, "a", false);
    assert_failure(assert_output(&fixture, 4, 3, 1, 5, NULL, true), STATUS_UNAVAILABLE, "limit");
    keep_alive(&fixture, NULL, 0, 1, NULL, 0);
    listen_from(&fixture, 1, 3, "x"); /* and can listen again */
    assert_output(&fixture, 0, 1, 3, 1, "x", false);
    partition_destroy(fixture.partition);
}

static void acknowledging_makes_room(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, stream_bytes(0) + 10 * OUTPUT);
    listen_from(&fixture, 1, 1, "");
    static const uint64_t one[] = {1};
    uint64_t number = 0;
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < (round == 0 ? 10 : 7); i++) {
            talk_of(&fixture, "Talk", "x");
            assert_count(&fixture, 1);
            assert_output(&fixture, 0, 1, 1, ++number, "x", false);
        }
        struct last_output acknowledged = {1, number - 3};
        keep_alive(&fixture, one, 1, 1, &acknowledged, 1);
        assert_count(&fixture, 0);
        acknowledged.last_output = 0; /* less than before: nothing comes back */
        keep_alive(&fixture, one, 1, 1, &acknowledged, 1);
    }
    listen_from(&fixture, 2, 1, "");
    assert_count(&fixture, 4);
    assert_output(&fixture, 1, 2, 1, number - 2, "x", false);
    struct last_output beyond = {1, UINT64_MAX}; /* more than there are */
    keep_alive(&fixture, one, 1, 1, &beyond, 1);
    talk_of(&fixture, "Talk", "y");
    assert_output(&fixture, 0, 2, 1, number + 1, "y", false);
    for (unsigned i = 0; i < 9; i++) {
        talk_of(&fixture, "Talk", "x");
        assert_output(&fixture, 0, 2, 1, number + 2 + i, "x", false);
    }
    talk_of(&fixture, "Talk", "x");
    assert_failure(assert_output(&fixture, 0, 2, 1, number + 11, NULL, true), STATUS_UNAVAILABLE, "limit");
    partition_destroy(fixture.partition);
}

static void at_the_limit_from_the_first(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, stream_bytes(2) + OUTPUT); /* of two outputs, the second passes it while the command is run */
    listen_from(&fixture, 1, 1, "ab");
    assert_count(&fixture, 2);
    assert_output(&fixture, 0, 1, 1, 1, "a", false);
    assert_failure(assert_output(&fixture, 1, 1, 1, 2, NULL, true), STATUS_UNAVAILABLE, "limit");
    assert_int_equal(ended_so_far(&fixture), 1);
    partition_destroy(fixture.partition);
    begin(&fixture, 10); /* an input counts, too */
    listen_from(&fixture, 1, 1, "");
    assert_count(&fixture, 0);
    listen_from(&fixture, 1, 2, "");
    assert_count(&fixture, 1);
    assert_frame(&fixture, 0, 1, 2, STATUS_UNAVAILABLE, "limit");
    talk_of(&fixture, "Talk", "x");
    assert_failure(assert_output(&fixture, 0, 1, 1, 1, NULL, true), STATUS_UNAVAILABLE, "limit");
    partition_destroy(fixture.partition);
}

/* A last output that would pass the limit is not stored either; the service is not told of what it does itself. */
static void at_the_limit_at_the_end(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, stream_bytes(0) + OUTPUT);
    listen_from(&fixture, 1, 1, "");
    talk_of(&fixture, "Talk", "x");
    talk_of(&fixture, "Finish", "z");
    assert_failure(assert_output(&fixture, 0, 1, 1, 2, NULL, true), STATUS_UNAVAILABLE, "limit");
    assert_int_equal(ended_so_far(&fixture), 0);
    partition_destroy(fixture.partition);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(canceled_by_absence, setup, teardown),
        cmocka_unit_test_setup_teardown(a_false_positive_keeps, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_with_its_service, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_with_its_session, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_by_expiry, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_while_it_waits, setup, teardown),
        cmocka_unit_test(the_output_that_would_pass_the_limit),
        cmocka_unit_test(acknowledging_makes_room),
        cmocka_unit_test(at_the_limit_from_the_first),
        cmocka_unit_test(at_the_limit_at_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
