/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and services: opening, renewing, closing, expiry in order, and what stays. */
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

static int setup(void **state)
{
    *state = partition_create(1, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    return 0;
}

static int teardown(void **state)
{
    partition_destroy(*state);
    return 0;
}

static bool alive(struct partition *partition, uint64_t session) /* asks without renewing */
{
    enum status status = partition_ask(partition, session, 0, "Get", none)->status;
    assert_int_equal(status, STATUS_FORBIDDEN);
    return strstr(partition->reply.message, "not open") != NULL;
}

static void ids_are_indexes(void **state)
{
    struct partition *partition = *state;
    assert_int_equal(fsm_index(partition->fsm), 0);
    partition_tick(partition, partition->time + 5);
    assert_int_equal(fsm_index(partition->fsm), 1);
    assert_int_equal(fsm_time(partition->fsm), PARTITION_START + 5);
    partition->route = (struct fsm_route){7, 8};
    assert_int_equal(partition_open_session(partition, MR_SECOND), 2);
    assert_int_equal(partition->reply.kind, COMMAND_OPEN_SESSION);
    assert_int_equal(partition->reply.index, 2);
    assert_int_equal(partition->reply.channel, 7);
    assert_int_equal(partition->reply.position, 8);
    assert_int_equal(partition->reply.session_id, 0);
    assert_int_equal(partition->reply.number, 0);
    assert_int_equal(partition_open_session(partition, MR_SECOND), 3);
    const struct reply *reply = partition_create_service(partition, 3, COUNTER_TYPE, "a");
    assert_int_equal(reply->id, 4);
    assert_int_equal(reply->index, 4);
    assert_int_equal(reply->kind, COMMAND_SESSION_COMMAND);
    assert_int_equal(reply->session_kind, SESSION_COMMAND_CREATE_SERVICE);
    assert_int_equal(fsm_session_count(partition->fsm), 2);
    request_close_session(&partition->request, 2);
    reply = partition_apply(partition);
    assert_int_equal(reply->kind, COMMAND_CLOSE_SESSION);
    assert_int_equal(reply->index, 5);
    assert_int_equal(fsm_session_count(partition->fsm), 1);
    reply = partition_keep_alive(partition, 3, no_filter, 0);
    assert_int_equal(reply->kind, COMMAND_KEEP_ALIVE);
    assert_int_equal(reply->index, 6);
}

static void expiry_at_its_deadline(void **state)
{
    struct partition *partition = *state;
    uint64_t session = partition_open_session(partition, 10 * MR_SECOND);
    assert_int_equal(fsm_next_deadline(partition->fsm), PARTITION_START + 10 * MR_SECOND);
    partition_tick(partition, PARTITION_START + 10 * MR_SECOND - 1);
    assert_true(alive(partition, session));
    partition_tick(partition, PARTITION_START + 10 * MR_SECOND);
    assert_false(alive(partition, session));
    assert_int_equal(fsm_session_count(partition->fsm), 0);
    assert_int_equal(fsm_next_deadline(partition->fsm), UINT64_MAX);
}

static void only_keep_alive_renews(void **state)
{
    struct partition *partition = *state;
    uint64_t session = partition_open_session(partition, 10 * MR_SECOND);
    uint64_t service = partition_create_service(partition, session, COUNTER_TYPE, "a")->id;
    partition->time += 6 * MR_SECOND;
    assert_int_equal(partition_keep_alive(partition, session, no_filter, 0)->status, STATUS_OK);
    assert_int_equal(fsm_next_deadline(partition->fsm), PARTITION_START + 16 * MR_SECOND);
    partition->time += 6 * MR_SECOND;
    partition_command(partition, session, service, 1, "Increment", number_payload(1));
    partition_create_service(partition, session, COUNTER_TYPE, "b");
    partition_ask(partition, session, service, "Get", none);
    assert_int_equal(fsm_next_deadline(partition->fsm), PARTITION_START + 16 * MR_SECOND);
    partition_tick(partition, PARTITION_START + 16 * MR_SECOND);
    assert_false(alive(partition, session));
}

static void the_deadline_comes_before_the_command(void **state)
{
    struct partition *partition = *state;
    uint64_t session = partition_open_session(partition, MR_SECOND);
    partition->time += MR_SECOND;
    assert_int_equal(partition_keep_alive(partition, session, no_filter, 0)->status, STATUS_FORBIDDEN);
}

static void deadlines_in_order(void **state)
{
    struct partition *partition = *state;
    uint64_t sessions[100];
    for (unsigned i = 0; i < 100; i++)
        sessions[i] = partition_open_session(partition, (1 + (i * 37) % 100) * MR_SECOND);
    for (unsigned second = 1; second <= 100; second++) {
        assert_int_equal(fsm_next_deadline(partition->fsm), PARTITION_START + second * MR_SECOND);
        partition_tick(partition, PARTITION_START + second * MR_SECOND);
        assert_int_equal(fsm_session_count(partition->fsm), 100 - second);
        for (unsigned i = 0; i < 100; i++)
            assert_int_equal(alive(partition, sessions[i]), 1 + (i * 37) % 100 > second);
    }
}

static void time_never_goes_back(void **state)
{
    struct partition *partition = *state;
    partition_tick(partition, PARTITION_START + 100);
    partition_tick(partition, PARTITION_START);
    assert_int_equal(fsm_time(partition->fsm), PARTITION_START + 100);
}

static void services_stay(void **state)
{
    struct partition *partition = *state;
    uint64_t first = partition_open_session(partition, MR_SECOND);
    uint64_t service = partition_create_service(partition, first, COUNTER_TYPE, "a")->id;
    partition_command(partition, first, service, 1, "Set", number_payload(41));
    request_close_session(&partition->request, first);
    partition_apply(partition);
    uint64_t second = partition_open_session(partition, MR_SECOND);
    assert_int_equal(partition_create_service(partition, second, COUNTER_TYPE, "a")->id, service);
    assert_int_equal(reply_number(partition_ask(partition, second, service, "Get", none)), 41);
}

static void names(void **state)
{
    struct partition *partition = *state;
    uint64_t session = partition_open_session(partition, MR_SECOND);
    uint64_t service = partition_create_service(partition, session, COUNTER_TYPE, "a")->id;
    assert_int_equal(partition_create_service(partition, session, COUNTER_TYPE, "a")->id, service);
    assert_int_not_equal(partition_create_service(partition, session, COUNTER_TYPE, "ab")->id, service);
    /* The namespace's end is part of the name. */
    request_create_service(&partition->request, session, COUNTER_TYPE, "x", "yz");
    uint64_t x_yz = partition_apply(partition)->id;
    request_create_service(&partition->request, session, COUNTER_TYPE, "xy", "z");
    uint64_t xy_z = partition_apply(partition)->id;
    request_create_service(&partition->request, session, COUNTER_TYPE, "", "xyz");
    uint64_t xyz = partition_apply(partition)->id;
    assert_true(x_yz != xy_z && x_yz != xyz && xy_z != xyz);
    request_create_service(&partition->request, session, COUNTER_TYPE, "xy", "z");
    assert_int_equal(partition_apply(partition)->id, xy_z);
    const struct reply *reply = partition_create_service(partition, session, MAP_TYPE, "a");
    assert_int_equal(reply->status, STATUS_FORBIDDEN);
    assert_non_null(strstr(reply->message, COUNTER_TYPE));
    assert_int_equal(partition_ask(partition, session, service, "Get", none)->operation_status, STATUS_OK);
}

static void closing_a_service(void **state)
{
    struct partition *partition = *state;
    uint64_t one = partition_open_session(partition, MR_SECOND), two = partition_open_session(partition, MR_SECOND);
    uint64_t service = partition_create_service(partition, one, COUNTER_TYPE, "a")->id;
    partition_create_service(partition, two, COUNTER_TYPE, "a");
    partition_command(partition, one, service, 1, "Set", number_payload(5));
    request_close_service(&partition->request, one, service);
    const struct reply *reply = partition_apply(partition);
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->session_kind, SESSION_COMMAND_CLOSE_SERVICE);
    assert_int_equal(partition_ask(partition, one, service, "Get", none)->status, STATUS_FORBIDDEN);
    assert_int_equal(partition_command(partition, one, service, 2, "Increment", none)->status, STATUS_FORBIDDEN);
    /* What was answered is still answered. */
    reply = partition_command(partition, one, service, 1, "Set", number_payload(5));
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply_number(reply), 5);
    assert_int_equal(reply_number(partition_ask(partition, two, service, "Get", none)), 5);
    request_close_service(&partition->request, one, service);
    assert_int_equal(partition_apply(partition)->status, STATUS_FORBIDDEN);
    assert_int_equal(partition_create_service(partition, one, COUNTER_TYPE, "a")->id, service);
    assert_int_equal(reply_number(partition_ask(partition, one, service, "Get", none)), 5);
}

static void many_services(void **state)
{
    struct partition *partition = *state;
    uint64_t ids[300], session = partition_open_session(partition, MR_SECOND);
    char name[16];
    for (unsigned i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "counter-%u", i);
        ids[i] = partition_create_service(partition, session, COUNTER_TYPE, name)->id;
        partition_command(partition, session, ids[i], i + 1, "Set", number_payload(i * 10));
    }
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(reply_number(partition_ask(partition, session, ids[i * 7 % 300], "Get", none)),
                         i * 7 % 300 * 10);
}

static void garbage_of_a_closed_session(void **state)
{
    struct partition *partition = *state;
    uint64_t session = partition_open_session(partition, MR_SECOND);
    uint64_t service = partition_create_service(partition, session, MAP_TYPE, "a")->id;
    for (uint64_t i = 1; i <= 5000; i++)
        partition_command(partition, session, service, i % 2 == 0 ? i : i << 40, "Put",
                          write_payload("key", text("a value"), NULL, 0));
    assert_false(fsm_collect(partition->fsm, 100));
    request_close_session(&partition->request, session);
    partition_apply(partition);
    unsigned turns = 1;
    while (fsm_collect(partition->fsm, 100))
        turns++;
    assert_true(turns > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ids_are_indexes, setup, teardown),
        cmocka_unit_test_setup_teardown(expiry_at_its_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(only_keep_alive_renews, setup, teardown),
        cmocka_unit_test_setup_teardown(the_deadline_comes_before_the_command, setup, teardown),
        cmocka_unit_test_setup_teardown(deadlines_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(time_never_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(services_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(names, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_a_service, setup, teardown),
        cmocka_unit_test_setup_teardown(many_services, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage_of_a_closed_session, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
