/* SPDX-License-Identifier: Apache-2.0 */
/* Where protobuf-c's decoder, which reads everything off the hot path, differs from protobuf's rules, which our reader
 * follows: each difference by name, shown by bytes that the two read differently; and that they agree on canonical
 * bytes. test_agreement.py holds our reader against protobuf itself. */
#include "proto/reader.h"
#include "proto/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "atomix/multiraft/v1/fsm.pb-c.h"

typedef Atomix__Multiraft__V1__PartitionCommandInput theirs_input;
#define BYTES(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

/* What protobuf-c reads; NULL: nothing. */
static theirs_input *theirs(const uint8_t *data, size_t size)
{
    return atomix__multiraft__v1__partition_command_input__unpack(NULL, size, data);
}

static void release(theirs_input *input)
{
    atomix__multiraft__v1__partition_command_input__free_unpacked(input, NULL);
}

static enum read_result ours(const uint8_t *data, size_t size, struct partition_command_input *input)
{
    return read_partition_command_input(data, size, input);
}

/* Ours takes it, theirs does not. */
static void assert_only_ours(const uint8_t *data, size_t size)
{
    struct partition_command_input input;
    assert_int_equal(ours(data, size, &input), READ_OK);
    assert_null(theirs(data, size));
}

static void assert_only_theirs(const uint8_t *data, size_t size)
{
    struct partition_command_input input;
    assert_int_equal(ours(data, size, &input), READ_MALFORMED);
    theirs_input *read = theirs(data, size);
    assert_non_null(read);
    release(read);
}

/* ---- what it refuses and protobuf takes ---- */

static void unknown_groups(void **state)
{
    (void)state;
    assert_only_ours(BYTES(0x08, 1, 0x7b, 0x08, 5, 0x7c)); /* field 15, a group that holds field 1 */
}

static void another_wire_type(void **state)
{
    (void)state;
    assert_only_ours(BYTES(0x0d, 1, 0, 0, 0)); /* partition_id as a fixed32 */
    assert_only_ours(BYTES(0x10, 1));          /* command as a number */
    assert_only_ours(BYTES(0x12, 2, 0x10, 1)); /* open_session, a member of a oneof, as a number */
}

static void lengths_and_numbers_in_more_bytes_than_they_need(void **state)
{
    (void)state;
    /* The length of an unknown field in five bytes is taken by both, ... */
    struct partition_command_input input;
    assert_int_equal(ours(BYTES(0x7a, 0x81, 0x80, 0x80, 0x80, 0x00, 7), &input), READ_OK);
    theirs_input *read = theirs(BYTES(0x7a, 0x81, 0x80, 0x80, 0x80, 0x00, 7));
    assert_non_null(read);
    release(read);
    /* ... and so is a number padded to ten. */
    const uint8_t padded[] = {0x08, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00};
    assert_int_equal(ours(padded, sizeof(padded), &input), READ_OK);
    assert_int_equal(input.partition_id, 1);
    read = theirs(padded, sizeof(padded));
    assert_non_null(read);
    assert_int_equal(read->partition_id, 1);
    release(read);
}

/* ---- what it takes and protobuf refuses ---- */

static void text_that_is_not_utf_8(void **state)
{
    (void)state;
    /* command { session_command { service_command { operation { name: C3 28 } } } } */
    assert_only_theirs(BYTES(0x12, 10, 0x2a, 8, 0x22, 6, 0x1a, 4, 0x0a, 2, 0xc3, 0x28));
}

/* ---- what both take and read differently ---- */

static void a_member_in_pieces(void **state)
{
    (void)state;
    /* command { open_session { timeout { seconds: 1 } } open_session { timeout { nanos: 2 } } } */
    const uint8_t data[] = {0x12, 12, 0x12, 4, 0x0a, 2, 0x08, 1, 0x12, 4, 0x0a, 2, 0x10, 2};
    struct partition_command_input input;
    assert_int_equal(ours(data, sizeof(data), &input), READ_OK);
    assert_int_equal(input.command.timeout.seconds, 1);
    assert_int_equal(input.command.timeout.nanos, 2);
    theirs_input *read = theirs(data, sizeof(data));
    assert_non_null(read);
    assert_int_equal(read->command->open_session->timeout->seconds, 0);
    assert_int_equal(read->command->open_session->timeout->nanos, 2);
    release(read);
}

static void two_members(void **state)
{
    (void)state;
    /* command { keep_alive {} close_session { session_id: 7 } }: theirs takes the last, ours reports that there are two */
    const uint8_t data[] = {0x12, 6, 0x1a, 0, 0x22, 2, 0x08, 7};
    struct partition_command_input input;
    assert_int_equal(ours(data, sizeof(data), &input), READ_OK);
    assert_int_equal(input.command.kind, COMMAND_AMBIGUOUS);
    theirs_input *read = theirs(data, sizeof(data));
    assert_non_null(read);
    assert_int_equal(read->command->input_case, ATOMIX__MULTIRAFT__V1__COMMAND_INPUT__INPUT_CLOSE_SESSION);
    release(read);
}

/* ---- canonical bytes ---- */

static void canonical_bytes_are_read_alike(void **state)
{
    (void)state;
    static const struct last_output outputs[] = {{1, 2}, {300, UINT64_MAX}};
    static const uint8_t filter[] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 1};
    struct partition_command_input input = {.partition_id = UINT32_MAX, .has_command = true};
    input.command.kind = COMMAND_KEEP_ALIVE;
    input.command.session_id = UINT64_C(1) << 63;
    input.command.last_input_sequence_num = 128;
    input.command.input_filter = (struct slice){filter, sizeof(filter)};
    uint8_t data[256];
    size_t size = partition_command_input_size(&input, outputs, 2);
    assert_true(size <= sizeof(data));
    assert_ptr_equal(write_partition_command_input(data, &input, outputs, 2), data + size);
    theirs_input *read = theirs(data, size);
    assert_non_null(read);
    assert_int_equal(read->partition_id, UINT32_MAX);
    assert_int_equal(read->command->input_case, ATOMIX__MULTIRAFT__V1__COMMAND_INPUT__INPUT_KEEP_ALIVE);
    const Atomix__Multiraft__V1__KeepAliveInput *keep_alive = read->command->keep_alive;
    assert_true(keep_alive->session_id == UINT64_C(1) << 63);
    assert_int_equal(keep_alive->last_input_sequence_num, 128);
    assert_int_equal(keep_alive->input_filter.len, sizeof(filter));
    assert_memory_equal(keep_alive->input_filter.data, filter, sizeof(filter));
    assert_int_equal(keep_alive->n_last_output_sequence_nums, 2);
    assert_true(keep_alive->last_output_sequence_nums[1]->key == 300);
    assert_true(keep_alive->last_output_sequence_nums[1]->value == UINT64_MAX);
    assert_int_equal(atomix__multiraft__v1__partition_command_input__get_packed_size(read), size);
    uint8_t again[256];
    atomix__multiraft__v1__partition_command_input__pack(read, again);
    assert_memory_equal(again, data, size);
    release(read);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_groups),
        cmocka_unit_test(another_wire_type),
        cmocka_unit_test(lengths_and_numbers_in_more_bytes_than_they_need),
        cmocka_unit_test(text_that_is_not_utf_8),
        cmocka_unit_test(a_member_in_pieces),
        cmocka_unit_test(two_members),
        cmocka_unit_test(canonical_bytes_are_read_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
