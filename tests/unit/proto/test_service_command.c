/* SPDX-License-Identifier: Apache-2.0 */
/* With what is kept from one service command to the next they are the same bytes as without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/service_command.h"
#include "proto/writer.h"
#include "tests/unit/proto/random.h"

#define GUARD 0xa5
static uint8_t written[4096], expected[4096];

static const struct slice names[] = {{(const uint8_t *)"Put", 3},
                                     {(const uint8_t *)"Set", 3},
                                     {(const uint8_t *)"CompareAndSet", 13},
                                     {(const uint8_t *)"an operation of thirty-two bytes", 32}};

/* Writes the head's next command both ways; the payload is left out of both. */
static void assert_same(struct service_command_head *head, struct slice name, size_t payload, uint64_t number)
{
    struct partition_command_input input = {.partition_id = head->partition_id,
                                            .command = {.kind = COMMAND_SESSION_COMMAND,
                                                        .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                                                        .session_id = head->session_id,
                                                        .service_id = head->service_id,
                                                        .sequence_num = number,
                                                        .operation = {name, {NULL, payload}}}};
    const uint8_t *until = write_partition_command_input(expected, &input, NULL, 0);

    memset(written, GUARD, sizeof written);
    size_t size = service_command_size(head, name, payload, number);
    const uint8_t *end = service_command_write(written, head, number);
    assert_int_equal(size, partition_command_input_size(&input, NULL, 0));
    assert_int_equal(end - written, until - expected);
    assert_memory_equal(written, expected, (size_t)(until - expected));
    assert_int_equal(*end, GUARD);
}

static void writes_numbers_of_any_size(void **state)
{
    (void)state;
    struct service_command_head head = {.partition_id = 1, .session_id = 2, .service_id = 3};
    for (uint64_t number = 1; number < 40000; number++) /* over one, two and three bytes */
        assert_same(&head, names[0], 4, number);
    for (unsigned bits = 1; bits < 64; bits++)
        for (uint64_t n = 0; n < 4; n++)
            assert_same(&head, names[0], 4, (UINT64_C(1) << bits) - 1 + n);
    assert_same(&head, names[0], 4, UINT64_MAX);
}

/* A command whose start has failed is written again, with its number. */
static void writes_a_number_twice(void **state)
{
    (void)state;
    struct service_command_head head = {.partition_id = 1, .session_id = 2, .service_id = 3};
    for (uint64_t number = 120; number < 260; number++) {
        service_command_size(&head, names[0], 4, number);
        service_command_size(&head, names[1], 5, number);
        assert_same(&head, names[0], 4, number);
        assert_same(&head, names[0], 4, number);
    }
}

static void writes_whatever_changes(void **state)
{
    (void)state;
    struct service_command_head head = {.partition_id = 1};
    struct slice name = names[0];
    size_t payload = 0;
    uint64_t number = 0;
    for (int i = 0; i < 50000; i++) {
        uint64_t change = random_bits() % 64; /* mostly only the number does */
        number++;
        if (change == 0)
            head = (struct service_command_head){.partition_id = (uint32_t)random_number(),
                                                 .session_id = random_number(),
                                                 .service_id = random_number()};
        if (change == 1 || number == 0)
            number = random_number() | 1;
        if (change == 2)
            name = names[random_bits() % 4];
        if (change == 3)
            payload = random_number() % UINT32_MAX;
        assert_same(&head, name, payload, number);
    }
}

/* The largest of everything still has room. */
static void has_room_for_the_largest(void **state)
{
    (void)state;
    struct service_command_head head = {.partition_id = UINT32_MAX, .session_id = UINT64_MAX, .service_id = UINT64_MAX};
    assert_same(&head, names[3], UINT32_MAX, UINT64_MAX);
    assert_true(head.size <= sizeof head.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_numbers_of_any_size),
        cmocka_unit_test(writes_a_number_twice),
        cmocka_unit_test(writes_whatever_changes),
        cmocka_unit_test(has_room_for_the_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
