/* SPDX-License-Identifier: Apache-2.0 */
/* The counter: every operation, its failures, its bytes. */
#include "tests/unit/services/one_service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    *state = fixture_create(COUNTER_TYPE, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    return 0;
}

static int64_t number(struct fixture *fixture, const char *operation, struct payload payload)
{
    const struct reply *reply = run(fixture, operation, payload);
    assert_int_equal(reply->operation_status, STATUS_OK);
    return (int64_t)reply_number(reply);
}

static int64_t get(struct fixture *fixture)
{
    const struct reply *reply = partition_ask(fixture->partition, fixture->session, fixture->service, "Get", none);
    assert_int_equal(reply->operation_status, STATUS_OK);
    return (int64_t)reply_number(reply);
}

static struct payload signed_payload(int64_t value)
{
    return number_payload((uint64_t)value);
}

static void all_operations(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(get(fixture), 0);
    assert_int_equal(fixture->partition->reply.payload_size, 0); /* a default value is no bytes */
    assert_int_equal(number(fixture, "Set", signed_payload(42)), 42);
    assert_int_equal(get(fixture), 42);
    assert_int_equal(number(fixture, "Increment", signed_payload(8)), 50);
    assert_int_equal(number(fixture, "Increment", none), 50);
    assert_int_equal(number(fixture, "Decrement", signed_payload(51)), -1);
    assert_int_equal(fixture->partition->reply.payload_size, 11);
    assert_int_equal(number(fixture, "Increment", signed_payload(-9)), -10);
    assert_int_equal(number(fixture, "Decrement", signed_payload(-10)), 0);
    assert_int_equal(number(fixture, "Set", signed_payload(-7)), -7);
    assert_int_equal(get(fixture), -7);
}

static void compare_and_set(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(number(fixture, "CompareAndSet", numbers_payload(0, 5)), 5);
    const struct reply *reply = run(fixture, "CompareAndSet", numbers_payload(4, 6));
    assert_int_equal(reply->operation_status, STATUS_CONFLICT);
    assert_string_equal(reply->message, "the value is 5, not 4");
    assert_int_equal(reply->payload_size, 0);
    assert_int_equal(get(fixture), 5);
    assert_int_equal(number(fixture, "CompareAndSet", numbers_payload(5, (uint64_t)-3)), -3);
    assert_int_equal(number(fixture, "CompareAndSet", numbers_payload((uint64_t)-3, 0)), 0);
    assert_int_equal(run(fixture, "CompareAndSet", numbers_payload(1, 0))->operation_status, STATUS_CONFLICT);
}

static void wraps_round(void **state)
{
    struct fixture *fixture = *state;
    number(fixture, "Set", signed_payload(INT64_MAX));
    assert_true(number(fixture, "Increment", signed_payload(1)) == INT64_MIN);
    assert_true(number(fixture, "Decrement", signed_payload(1)) == INT64_MAX);
    assert_true(number(fixture, "Increment", signed_payload(INT64_MIN)) == -1);
    assert_true(number(fixture, "Decrement", signed_payload(INT64_MIN)) == INT64_MAX);
}

static void payloads_that_do_not_decode(void **state)
{
    struct fixture *fixture = *state;
    static const struct payload bad = {{0x08, 0x80}, 2};
    static const char *const commands[] = {"Set", "Increment", "Decrement", "CompareAndSet"};
    number(fixture, "Set", signed_payload(3));
    for (unsigned i = 0; i < 4; i++) {
        const struct reply *reply = run(fixture, commands[i], bad);
        assert_int_equal(reply->operation_status, STATUS_INVALID);
        assert_true(reply->message[0] != '\0');
    }
    assert_int_equal(
        partition_ask(fixture->partition, fixture->session, fixture->service, "Get", bad)->operation_status,
        STATUS_INVALID);
    assert_int_equal(get(fixture), 3);
}

static void payloads_of_odd_shape(void **state)
{
    struct fixture *fixture = *state;
    /* value twice: the last counts; an unknown field and one of another wire type: skipped. */
    static const struct payload odd = {{0x08, 5, 0x7a, 2, 'h', 'i', 0x0a, 1, 9, 0x08, 6}, 11};
    assert_int_equal(number(fixture, "Set", odd), 6);
    assert_int_equal(
        partition_ask(fixture->partition, fixture->session, fixture->service, "Get", odd)->operation_status, STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_operations, setup, teardown),
        cmocka_unit_test_setup_teardown(compare_and_set, setup, teardown),
        cmocka_unit_test_setup_teardown(wraps_round, setup, teardown),
        cmocka_unit_test_setup_teardown(payloads_that_do_not_decode, setup, teardown),
        cmocka_unit_test_setup_teardown(payloads_of_odd_shape, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
