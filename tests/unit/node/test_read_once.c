/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of commands that have been read and wait to be applied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/node/read_once.h"

static uint8_t bytes[3 * READ_ONCE_PLACES]; /* where commands would begin */

static int set_up(void **state)
{
    struct read_once *queue = calloc(1, sizeof(*queue));
    assert_non_null(queue);
    queue->places = calloc(READ_ONCE_PLACES, sizeof(*queue->places));
    assert_non_null(queue->places);
    *state = queue;
    return 0;
}

static int tear_down(void **state)
{
    struct read_once *queue = *state;
    free(queue->places);
    free(queue);
    return 0;
}

static void read_one(struct read_once *queue, unsigned number)
{
    struct partition_command_input *place = read_once_place(queue);
    place->command.source.data = &bytes[number];
    place->command.sequence_num = number;
}

static void keep(struct read_once *queue, unsigned number)
{
    read_one(queue, number);
    read_once_keep(queue);
}

static bool takes(struct read_once *queue, unsigned number)
{
    const struct partition_command_input *input = read_once_take(queue, &bytes[number]);
    if (input != NULL)
        assert_int_equal(input->command.sequence_num, number);
    return input != NULL;
}

static void gives_back_in_order(void **state)
{
    struct read_once *queue = *state;
    for (unsigned i = 0; i < 3; i++)
        keep(queue, i);
    for (unsigned i = 0; i < 3; i++)
        assert_true(takes(queue, i));
    assert_false(takes(queue, 3));
}

static void knows_only_what_was_kept(void **state)
{
    struct read_once *queue = *state;
    assert_false(takes(queue, 0));
    read_one(queue, 0); /* refused */
    assert_false(takes(queue, 0));
    keep(queue, 1);
    read_one(queue, 2);
    assert_false(takes(queue, 2));
    assert_true(takes(queue, 1));
    assert_false(takes(queue, 2));
}

/* What comes when it is full is read again, and what comes behind that is found. */
static void passes_over_what_found_no_place(void **state)
{
    struct read_once *queue = *state;
    const unsigned kept = READ_ONCE_PLACES - 1;
    for (unsigned i = 0; i < kept + 5; i++)
        keep(queue, i);
    for (unsigned i = 0; i < 10; i++)
        assert_true(takes(queue, i));
    for (unsigned i = 0; i < 5; i++)
        keep(queue, kept + 5 + i);
    for (unsigned i = 10; i < kept + 10; i++)
        assert_int_equal(takes(queue, i), i < kept || i >= kept + 5);
    assert_false(takes(queue, kept + 10));
}

static void begins_anew_when_empty(void **state)
{
    struct read_once *queue = *state;
    struct partition_command_input *first = read_once_place(queue);
    for (unsigned i = 0; i < 2 * READ_ONCE_PLACES; i++) {
        read_once_rest(queue);
        assert_ptr_equal(read_once_place(queue), first);
        keep(queue, i);
        assert_ptr_not_equal(read_once_place(queue), first);
        read_once_rest(queue);
        assert_true(takes(queue, i));
    }
}

static void goes_round(void **state)
{
    struct read_once *queue = *state;
    keep(queue, 0);
    for (unsigned i = 1; i < 2 * READ_ONCE_PLACES; i++) {
        keep(queue, i);
        assert_true(takes(queue, i - 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gives_back_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(knows_only_what_was_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(passes_over_what_found_no_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(begins_anew_when_empty, set_up, tear_down),
        cmocka_unit_test_setup_teardown(goes_round, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
