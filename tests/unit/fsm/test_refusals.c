/* SPDX-License-Identifier: Apache-2.0 */
/* What is refused, with which status, and where: from the bytes alone, when it is applied, and as an operation's
 * answer. A refusal leaves the state as it was but for index and time. */
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT MR_SESSION_OUTPUT_BYTES_DEFAULT

static int setup(void **state)
{
    *state = partition_create(1, LIMIT);
    return 0;
}

static int teardown(void **state)
{
    partition_destroy(*state);
    return 0;
}

/* ---- from the bytes alone ---- */

static enum status check(struct partition *partition, const char *expected)
{
    const char *message = NULL;
    enum status status = fsm_check_command(partition->fsm, &partition->request.command, 1, &message);
    if (status == STATUS_OK)
        return status;
    assert_non_null(message);
    assert_non_null(strstr(message, expected));
    assert_true(strlen(message) <= MR_MESSAGE_MAX);
    /* The same from a log, where the envelope has been looked at before. */
    if (partition->request.command.has_command && partition->request.command.partition_id == 1) {
        const struct reply *reply = partition_apply(partition);
        assert_int_equal(reply->status, status);
        assert_string_equal(reply->message, message);
        assert_int_equal(reply->number, 0);
    }
    return status;
}

static void envelope(void **state)
{
    struct partition *partition = *state;
    request_close_session(&partition->request, 1);
    assert_int_equal(check(partition, ""), STATUS_OK);
    partition->request.command.partition_id = 2;
    assert_int_equal(check(partition, "partition"), STATUS_INVALID);
    partition->request.command.partition_id = 0;
    assert_int_equal(check(partition, "partition"), STATUS_INVALID);
    partition->request.command.partition_id = 1;
    partition->request.command.has_command = false;
    assert_int_equal(check(partition, "missing"), STATUS_INVALID);
    partition->request.command = (struct partition_command_input){.partition_id = 1, .has_command = true};
    assert_int_equal(check(partition, "none"), STATUS_INVALID);
    partition->request.command.command.kind = COMMAND_AMBIGUOUS;
    assert_int_equal(check(partition, "more than one"), STATUS_INVALID);
    partition->request.command.command.kind = COMMAND_SESSION_COMMAND;
    assert_int_equal(check(partition, "none"), STATUS_INVALID);
    partition->request.command.command.session_kind = SESSION_COMMAND_AMBIGUOUS;
    assert_int_equal(check(partition, "more than one"), STATUS_INVALID);
}

/* The last one is a little over 2^64 ns: it would look short if it wrapped round. */
static void timeouts(void **state)
{
    struct partition *partition = *state;
    static const struct {
        struct duration timeout;
        bool good;
    } cases[] = {
        {{0, 0, false}, false},           {{0, 0, true}, false},           {{0, 1, true}, true},
        {{0, 999999999, true}, true},     {{0, 1000000000, true}, false},  {{0, -1, true}, false},
        {{-1, 0, true}, false},           {{1, -1, true}, false},          {{-1, 1, true}, false},
        {{86400, 0, true}, true},         {{86400, 1, true}, false},       {{86399, 999999999, true}, true},
        {{86401, 0, true}, false},        {{INT64_MAX, 0, true}, false},   {{INT64_MIN, 0, true}, false},
        {{315576000001, 0, true}, false}, {{18446744074, 0, true}, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        request_open_session(&partition->request, cases[i].timeout);
        assert_int_equal(check(partition, "timeout"), cases[i].good ? STATUS_OK : STATUS_INVALID);
    }
    assert_int_equal(fsm_session_count(partition->fsm), 0);
}

static void filters_names_numbers(void **state)
{
    struct partition *partition = *state;
    static const uint8_t bad[] = {2, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    request_keep_alive(&partition->request, 1, (struct slice){bad, sizeof(bad)}, 0, NULL, 0);
    assert_int_equal(check(partition, "input_filter"), STATUS_INVALID);
    request_keep_alive(&partition->request, 1, (struct slice){bad, 1}, 0, NULL, 0);
    assert_int_equal(check(partition, "input_filter"), STATUS_INVALID);
    request_create_service(&partition->request, 1, COUNTER_TYPE, "default", "");
    assert_int_equal(check(partition, "name"), STATUS_INVALID);
    request_create_service(&partition->request, 1, "atomix.multiraft.counter.v1.Counte", "default", "a");
    assert_int_equal(check(partition, "type"), STATUS_NOT_SUPPORTED);
    request_create_service(&partition->request, 1, "", "default", "a");
    assert_int_equal(check(partition, "type"), STATUS_NOT_SUPPORTED);
    request_create_service(&partition->request, 1, COUNTER_TYPE, "", "a");
    assert_int_equal(check(partition, ""), STATUS_OK);
    request_command(&partition->request, 1, 1, 0, "Increment", (struct slice){NULL, 0});
    assert_int_equal(check(partition, "sequence_num"), STATUS_INVALID);
    request_command(&partition->request, 1, 1, UINT64_MAX, "", (struct slice){NULL, 0});
    assert_int_equal(check(partition, ""), STATUS_OK);
    request_close_service(&partition->request, 1, 1);
    assert_int_equal(check(partition, ""), STATUS_OK);
}

static enum status check_query(struct partition *partition)
{
    const char *message = NULL;
    enum status status = fsm_check_query(&partition->request.query, 1, &message);
    assert_true(status == STATUS_OK || (message != NULL && message[0] != '\0'));
    return status;
}

static void queries(void **state)
{
    struct partition *partition = *state;
    struct partition_query_input good;
    request_query(&partition->request, 1, 2, "Get", (struct slice){NULL, 0});
    good = partition->request.query;
    assert_int_equal(check_query(partition), STATUS_OK);
    partition->request.query.partition_id = 3;
    assert_int_equal(check_query(partition), STATUS_INVALID);
    partition->request.query = good;
    partition->request.query.has_query = false;
    assert_int_equal(check_query(partition), STATUS_INVALID);
    assert_int_equal(partition_query(partition, partition->time)->status, STATUS_INVALID);
    partition->request.query = good;
    partition->request.query.query_members = 0;
    assert_int_equal(check_query(partition), STATUS_INVALID);
    partition->request.query = good;
    partition->request.query.session_query_members = 0;
    assert_int_equal(check_query(partition), STATUS_INVALID);
    assert_int_equal(partition_query(partition, partition->time)->status, STATUS_INVALID);
}

/* ---- when it is applied ---- */

/* Each request in turn, as each of those that a refusal must not tell apart. */
static const struct reply *apply_kind(struct partition *partition, unsigned kind, uint64_t session, uint64_t service)
{
    static const struct payload none;
    switch (kind) {
    case 0:
        return partition_keep_alive(partition, session, (struct slice){NULL, 0}, 0);
    case 1:
        return partition_create_service(partition, session, COUNTER_TYPE, "a");
    case 2:
        request_close_service(&partition->request, session, service);
        return partition_apply(partition);
    case 3:
        return partition_command(partition, session, service, 1, "Increment", none);
    case 4:
        return partition_ask(partition, session, service, "Get", none);
    default:
        request_close_session(&partition->request, session);
        return partition_apply(partition);
    }
}
enum { KINDS = 6 };

static void sessions_that_are_not_there(void **state)
{
    struct partition *partition = *state;
    uint64_t session = partition_open_session(partition, MR_SECOND);
    uint64_t service = partition_create_service(partition, session, COUNTER_TYPE, "a")->id;
    uint64_t closed = partition_open_session(partition, MR_SECOND);
    apply_kind(partition, KINDS - 1, closed, 0);
    uint64_t expired = partition_open_session(partition, 1);
    partition->time++;
    const uint64_t unknown[] = {0, closed, expired, 999, UINT64_MAX};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        for (unsigned kind = 0; kind < KINDS; kind++) {
            const struct reply *reply = apply_kind(partition, kind, unknown[i], service);
            assert_int_equal(reply->status, STATUS_FORBIDDEN);
            assert_non_null(strstr(reply->message, "unknown, closed or expired"));
            assert_int_equal(reply->number, 0);
            assert_int_equal(reply->sequence_num, kind == 3);
        }
    assert_int_equal(fsm_session_count(partition->fsm), 1);
}

static void sessions_of_others(void **state)
{
    struct partition *partition = *state;
    partition->uid = 1000;
    uint64_t session = partition_open_session(partition, MR_SECOND);
    uint64_t service = partition_create_service(partition, session, COUNTER_TYPE, "a")->id;
    partition->uid = 0; /* not even root */
    for (unsigned kind = 0; kind < KINDS; kind++) {
        const struct reply *reply = apply_kind(partition, kind, session, service);
        assert_int_equal(reply->status, STATUS_UNAUTHORIZED);
        assert_non_null(strstr(reply->message, "another user"));
    }
    partition->uid = 1000;
    for (unsigned kind = 0; kind < KINDS; kind++)
        if (kind != 2)
            assert_int_equal(apply_kind(partition, kind, session, service)->status, STATUS_OK);
}

static void services_not_open(void **state)
{
    struct partition *partition = *state;
    uint64_t session = partition_open_session(partition, MR_SECOND);
    uint64_t other = partition_open_session(partition, MR_SECOND);
    uint64_t service = partition_create_service(partition, other, COUNTER_TYPE, "a")->id;
    const uint64_t ids[] = {service, 0, session, UINT64_MAX};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        for (unsigned kind = 2; kind <= 4; kind++) {
            const struct reply *reply = apply_kind(partition, kind, session, ids[i]);
            assert_int_equal(reply->status, STATUS_FORBIDDEN);
            assert_non_null(strstr(reply->message, "not open"));
        }
    /* The refused number is still new. */
    partition_create_service(partition, session, COUNTER_TYPE, "a");
    const struct reply *reply = apply_kind(partition, 3, session, service);
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->operation_status, STATUS_OK);
    assert_int_equal(reply->index, partition->index);
}

/* ---- as an operation's answer ---- */

static void operations(void **state)
{
    struct partition *partition = *state;
    static const struct {
        const char *type, *name;
        bool query;
        enum status status;
    } cases[] = {
        {COUNTER_TYPE, "", false, STATUS_NOT_SUPPORTED},
        {COUNTER_TYPE, "Incremen", false, STATUS_NOT_SUPPORTED},
        {COUNTER_TYPE, "Incrementt", false, STATUS_NOT_SUPPORTED},
        {COUNTER_TYPE, "increment", false, STATUS_NOT_SUPPORTED},
        {COUNTER_TYPE, "Put", false, STATUS_NOT_SUPPORTED},
        {COUNTER_TYPE, "Nothing", true, STATUS_NOT_SUPPORTED},
        {COUNTER_TYPE, "Get", false, STATUS_INVALID},
        {COUNTER_TYPE, "Set", true, STATUS_INVALID},
        {COUNTER_TYPE, "CompareAndSet", true, STATUS_INVALID},
        {COUNTER_TYPE, "Increment", true, STATUS_INVALID},
        {COUNTER_TYPE, "Decrement", true, STATUS_INVALID},
        {MAP_TYPE, "Events", true, STATUS_INVALID},
        {MAP_TYPE, "Entries", false, STATUS_INVALID},
        {MAP_TYPE, "Size", false, STATUS_INVALID},
        {MAP_TYPE, "Get", false, STATUS_INVALID},
        {MAP_TYPE, "Put", true, STATUS_INVALID},
        {MAP_TYPE, "Insert", true, STATUS_INVALID},
        {MAP_TYPE, "Update", true, STATUS_INVALID},
        {MAP_TYPE, "Remove", true, STATUS_INVALID},
        {MAP_TYPE, "Clear", true, STATUS_INVALID},
    };
    static const struct payload none;
    uint64_t session = partition_open_session(partition, MR_SECOND);
    uint64_t counter = partition_create_service(partition, session, COUNTER_TYPE, "a")->id;
    uint64_t map = partition_create_service(partition, session, MAP_TYPE, "b")->id;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t service = strcmp(cases[i].type, MAP_TYPE) == 0 ? map : counter;
        const struct reply *reply = cases[i].query
                                        ? partition_ask(partition, session, service, cases[i].name, none)
                                        : partition_command(partition, session, service, i + 1, cases[i].name, none);
        assert_int_equal(reply->status, STATUS_OK);
        assert_int_equal(reply->operation_status, cases[i].status);
        assert_true(reply->message[0] != '\0');
        assert_int_equal(reply->payload_size, 0);
        if (cases[i].query)
            continue;
        uint64_t index = reply->index; /* it is recorded, and so repeated */
        reply = partition_command(partition, session, service, i + 1, "Clear", none);
        assert_int_equal(reply->operation_status, cases[i].status);
        assert_int_equal(reply->index, index);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(envelope, setup, teardown),
        cmocka_unit_test_setup_teardown(timeouts, setup, teardown),
        cmocka_unit_test_setup_teardown(filters_names_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(queries, setup, teardown),
        cmocka_unit_test_setup_teardown(sessions_that_are_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(sessions_of_others, setup, teardown),
        cmocka_unit_test_setup_teardown(services_not_open, setup, teardown),
        cmocka_unit_test_setup_teardown(operations, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
