/* SPDX-License-Identifier: Apache-2.0 */
/* Where protobuf-c's decoder, which reads everything off the hot path, differs from protobuf's rules, which our reader
 * follows: each difference by name, shown by bytes that the two read differently; and that they agree on canonical
 * bytes. test_agreement.py holds our reader against protobuf itself. */
#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/support/random.h"

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
    /* command { keep_alive {} close_session { session_id: 7 } }: theirs takes the last, ours says that there are two */
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

static void padding_is_read_alike(void **state)
{
    (void)state;
    struct partition_command_input input;
    /* A tag and an unknown field's length in five bytes, a number in ten. */
    const uint8_t padded[] = {0x88, 0x80, 0x80, 0x80, 0x00, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80,
                              0x80, 0x80, 0x80, 0x00, 0x7a, 0x81, 0x80, 0x80, 0x80, 0x00, 7};
    assert_int_equal(ours(padded, sizeof(padded), &input), READ_OK);
    assert_int_equal(input.partition_id, 1);
    theirs_input *read = theirs(padded, sizeof(padded));
    assert_non_null(read);
    assert_int_equal(read->partition_id, 1);
    release(read);
}

/* ---- and nowhere else ---- */

/* What of the differences above there is in some bytes, found by walking them along protobuf-c's own descriptors. */
enum feature {
    FEATURE_GROUP = 1,
    FEATURE_WIRE_TYPE = 2,
    FEATURE_TEXT = 4,
    FEATURE_PIECES = 8 /* a sub-message, or a member of a oneof, that is there twice; or two members */
};

static size_t varint_length(const uint8_t *at, size_t size)
{
    for (size_t i = 0; i < size && i < 10; i++)
        if (at[i] < 0x80)
            return i + 1;
    return 0;
}

static uint64_t varint_value(const uint8_t *at, size_t length)
{
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++)
        value |= (uint64_t)(at[i] & 0x7f) << 7 * i;
    return value;
}

static unsigned wire_of(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_BYTES || field->type == PROTOBUF_C_TYPE_MESSAGE ? 2 : 0;
}

/* In our .proto these are strings. */
static bool is_text(const ProtobufCFieldDescriptor *field)
{
    return field->type == PROTOBUF_C_TYPE_BYTES && strcmp(field->name, "payload") != 0 &&
           strcmp(field->name, "input_filter") != 0;
}

static unsigned features(const uint8_t *at, size_t size, const ProtobufCMessageDescriptor *message)
{
    unsigned found = 0;
    uint32_t there = 0, members = 0;
    while (size > 0) {
        size_t length = varint_length(at, size);
        uint64_t tag = varint_value(at, length);
        if (length == 0)
            return found;
        at += length, size -= length;
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(message, (uint32_t)tag >> 3);
        if ((tag & 7) == 3 || (tag & 7) == 4)
            return found | FEATURE_GROUP;
        if (field != NULL && (tag & 7) != wire_of(field))
            found |= FEATURE_WIRE_TYPE;
        size_t body = (tag & 7) == 0 ? varint_length(at, size) : (tag & 7) == 1 ? 8 : (tag & 7) == 5 ? 4 : 0;
        if ((tag & 7) == 2) {
            length = varint_length(at, size);
            body = (size_t)varint_value(at, length);
            if (length == 0 || body > size - length)
                return found;
            at += length, size -= length;
        } else if (body == 0 || body > size) {
            return found;
        }
        if (field != NULL && (tag & 7) == 2 && field->type == PROTOBUF_C_TYPE_MESSAGE) {
            bool member = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
            if (field->label != PROTOBUF_C_LABEL_REPEATED &&
                ((there >> field->id & 1) != 0 || (member && members != 0)))
                found |= FEATURE_PIECES;
            there |= 1U << field->id;
            members |= member;
            found |= features(at, body, field->descriptor);
        } else if (field != NULL && (tag & 7) == 2 && is_text(field) && !utf8_valid((struct slice){at, body})) {
            found |= FEATURE_TEXT;
        }
        at += body, size -= body;
    }
    return found;
}

static void assert_bytes(struct slice mine, ProtobufCBinaryData other)
{
    assert_int_equal(mine.size, other.len);
    if (mine.size > 0)
        assert_memory_equal(mine.data, other.data, mine.size);
}

static void assert_alike(const struct partition_command_input *input, const theirs_input *read)
{
    assert_int_equal(input->partition_id, read->partition_id);
    assert_int_equal(input->has_command, read->command != NULL);
    if (read->command == NULL)
        return;
    const Atomix__Multiraft__V1__CommandInput *command = read->command;
    assert_int_equal(input->command.kind, command->input_case);
    assert_int_equal(input->command.timestamp.present, command->timestamp != NULL);
    if (input->command.kind == COMMAND_KEEP_ALIVE) {
        assert_true(input->command.session_id == command->keep_alive->session_id);
        assert_true(input->command.last_input_sequence_num == command->keep_alive->last_input_sequence_num);
        assert_bytes(input->command.input_filter, command->keep_alive->input_filter);
    } else if (input->command.kind == COMMAND_SESSION_COMMAND) {
        const Atomix__Multiraft__V1__SessionCommandInput *session = command->session_command;
        assert_true(input->command.session_id == session->session_id);
        assert_int_equal(input->command.session_kind, session->input_case);
        if (input->command.session_kind == SESSION_COMMAND_SERVICE_COMMAND) {
            assert_true(input->command.service_id == session->service_command->service_id);
            assert_true(input->command.sequence_num == session->service_command->sequence_num);
            if (session->service_command->operation != NULL) {
                assert_bytes(input->command.operation.name, session->service_command->operation->name);
                assert_bytes(input->command.operation.payload, session->service_command->operation->payload);
            }
        }
    }
}

/* Mutations of two messages: where none of the differences is met, both say the same. */
static void nowhere_else(void **state)
{
    (void)state;
    static const uint8_t seeds[2][64] = {
        {0x08, 1,   0x12, 32,  0x2a, 30,  0x08, 7,   0x22, 26,  0x08, 9, 0x10, 0xac, 2,    0x1a, 19,   0x0a,
         9,    'I', 'n',  'c', 'r',  'e', 'm',  'e', 'n',  't', 0x12, 6, 0x08, 1,    0x08, 2,    0x08, 3},
        {0x08, 1, 0x12, 36, 0x0a, 4, 0x08, 5, 0x10, 6, 0x1a, 28, 0x08, 7, 0x12, 10, 1,    1, 0,    0,
         0,    0, 0,    0,  0,    1, 0x18, 3, 0x22, 4, 0x08, 1,  0x10, 2, 0x22, 4,  0x10, 4, 0x08, 3}};
    static const size_t sizes[2] = {36, 40};
    static const uint8_t telling[] = {0,    1,    2,    4,    8,    0x0a, 0x10, 0x12, 0x1a,
                                      0x22, 0x2a, 0x7a, 0x7d, 0x79, 0x7f, 0x80, 0xff};
    unsigned alike = 0, refused = 0;
    for (unsigned i = 0; i < 300000; i++) {
        uint8_t data[64];
        size_t which = below(2), size = sizes[which];
        memcpy(data, seeds[which], size);
        for (uint64_t changes = 1 + below(4); changes > 0; changes--)
            data[below(size)] = below(2) == 0 ? telling[below(sizeof(telling))] : (uint8_t)below(256);
        if (below(8) == 0)
            size = below(size);
        if (features(data, size, &atomix__multiraft__v1__partition_command_input__descriptor) != 0)
            continue;
        struct partition_command_input input;
        theirs_input *read = theirs(data, size);
        bool good = ours(data, size, &input) == READ_OK;
        if (good != (read != NULL)) {
            print_message("%s only:", good ? "ours" : "protobuf-c");
            for (size_t j = 0; j < size; j++)
                print_message(" %02x", data[j]);
            print_message("\n");
        }
        assert_int_equal(good, read != NULL);
        if (read != NULL) {
            assert_alike(&input, read);
            release(read);
        }
        alike += good;
        refused += !good;
    }
    assert_true(alike > 10000);
    assert_true(refused > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_groups),
        cmocka_unit_test(another_wire_type),
        cmocka_unit_test(padding_is_read_alike),
        cmocka_unit_test(text_that_is_not_utf_8),
        cmocka_unit_test(a_member_in_pieces),
        cmocka_unit_test(two_members),
        cmocka_unit_test(canonical_bytes_are_read_alike),
        cmocka_unit_test(nowhere_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
