/* SPDX-License-Identifier: Apache-2.0 */
/* What the writer writes: its exact bytes for a message of each kind, and for any message that it writes as many as it
 * said, which the reader then reads as what was written. That they are protobuf's own bytes is test_agreement.py's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/unit/proto/bytes.h"
#include "tests/unit/proto/random.h"

#define GUARD 0xa5
static uint8_t written[4096];

/* What a writer has left in `written`: `size` bytes, and not one more. */
static struct slice written_until(const uint8_t *end, size_t size)
{
    assert_int_equal(end - written, size);
    assert_int_equal(written[size], GUARD);
    return (struct slice){written, size};
}

static struct slice write_command(const struct partition_command_input *input, const struct last_output *entries,
                                  size_t count)
{
    memset(written, GUARD, sizeof written);
    struct slice payload = input->command.operation.payload;
    uint8_t *end = write_partition_command_input(written, input, entries, count);
    if (payload.size != 0)
        memcpy(end, payload.data, payload.size);
    return written_until(end + payload.size, partition_command_input_size(input, entries, count));
}

static struct slice write_query(const struct partition_query_input *input)
{
    memset(written, GUARD, sizeof written);
    struct slice payload = input->operation.payload;
    uint8_t *end = write_partition_query_input(written, input);
    if (payload.size != 0)
        memcpy(end, payload.data, payload.size);
    return written_until(end + payload.size + (input->sync ? 2 : 0), partition_query_input_size(input));
}

static struct slice write_output(const struct command_output *output)
{
    memset(written, GUARD, sizeof written);
    return written_until(write_partition_command_output(written, output), partition_command_output_size(output));
}

static struct slice write_query_output(const struct operation_output *output)
{
    memset(written, GUARD, sizeof written);
    return written_until(write_partition_query_output(written, output), partition_query_output_size(output));
}

/* --- Numbers and fields ----------------------------------------------------------------------------------------- */

static void writes_numbers(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits <= 64; bits++) {
        uint64_t value = bits == 0 ? 0 : UINT64_MAX >> (64 - bits);
        size_t size = bits <= 7 ? 1 : (bits + 6) / 7;
        assert_int_equal(varint_size(value), size);
        assert_int_equal(write_varint(written, value) - written, size);
    }
    write_varint(written, 300);
    assert_memory_equal(written, "\xac\x02", 2);
}

static void leaves_out_defaults(void **state)
{
    (void)state;
    assert_ptr_equal(field_write_varint(written, 1, 0), written);
    assert_int_equal(field_varint_size(1, 0), 0);
    assert_ptr_equal(field_write_bytes(written, 1, (struct slice){NULL, 0}), written);
    assert_int_equal(field_bytes_size(1, 0), 0);
    /* But not a sub-message. */
    assert_ptr_equal(field_write_message_head(written, 1, 0), written + 2);
    assert_int_equal(field_message_head_size(1, 0), 2);
}

static void writes_fields(void **state)
{
    (void)state;
    uint8_t *end = field_write_varint(written, 15, 300);
    end = field_write_bytes(end, 2, BYTES("ab"));
    end = field_write_message_head(end, 3, 200);
    assert_memory_equal(written, "\x78\xac\x02\x12\x02\x61\x62\x1a\xc8\x01", 10);
    assert_int_equal(end - written, 10);
    assert_int_equal(field_varint_size(15, 300) + field_bytes_size(2, 2) + field_message_head_size(3, 200), 10);
}

/* --- Requests --------------------------------------------------------------------------------------------------- */

static void writes_commands(void **state)
{
    (void)state;
    struct partition_command_input input = {
        .partition_id = 1,
        .command = {.kind = COMMAND_SESSION_COMMAND,
                    .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                    .session_id = 3,
                    .service_id = 4,
                    .sequence_num = 5,
                    .operation = {.name = BYTES("Increment"), .payload = BYTES("\x08\x01")}}};
    assert_bytes(write_command(&input, NULL, 0),
                 "\x08\x01\x12\x1b\x2a\x19\x08\x03\x22\x15\x08\x04\x10\x05\x1a\x0f\x0a\x09Increment\x12\x02\x08\x01");
    input.command.operation.payload = (struct slice){0};
    assert_bytes(write_command(&input, NULL, 0),
                 "\x08\x01\x12\x17\x2a\x15\x08\x03\x22\x11\x08\x04\x10\x05\x1a\x0b\x0a\x09Increment");
    input.command.session_kind = SESSION_COMMAND_CLOSE_SERVICE;
    assert_bytes(write_command(&input, NULL, 0), "\x08\x01\x12\x08\x2a\x06\x08\x03\x1a\x02\x08\x04");
    input.command.session_kind = SESSION_COMMAND_CREATE_SERVICE;
    input.command.spec = (struct service_spec){BYTES("T"), BYTES("N"), BYTES("s")};
    assert_bytes(write_command(&input, NULL, 0),
                 "\x08\x01\x12\x11\x2a\x0f\x08\x03\x12\x0b\x0a\x09\x0a\x01T\x12\x01N\x1a\x01s");
    input.command.kind = COMMAND_CLOSE_SESSION;
    assert_bytes(write_command(&input, NULL, 0), "\x08\x01\x12\x04\x22\x02\x08\x03");
    input.command.kind = COMMAND_OPEN_SESSION;
    input.command.timeout = (struct duration){.seconds = 9, .nanos = 10, .present = true};
    assert_bytes(write_command(&input, NULL, 0), "\x08\x01\x12\x08\x12\x06\x0a\x04\x08\x09\x10\x0a");
    input.command.timeout.nanos = -1;
    assert_bytes(write_command(&input, NULL, 0),
                 "\x08\x01\x12\x11\x12\x0f\x0a\x0d\x08\x09\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    input.command.kind = COMMAND_NONE;
    assert_bytes(write_command(&input, NULL, 0), "\x08\x01");
    input.has_command = true;
    assert_bytes(write_command(&input, NULL, 0), "\x08\x01\x12\x00");
}

static void writes_keep_alive(void **state)
{
    (void)state;
    struct partition_command_input input = {.partition_id = 1,
                                            .command = {.kind = COMMAND_KEEP_ALIVE,
                                                        .session_id = 3,
                                                        .input_filter = BYTES("\x01\x02"),
                                                        .last_input_sequence_num = 99}};
    assert_bytes(write_command(&input, NULL, 0), "\x08\x01\x12\x0a\x1a\x08\x08\x03\x12\x02\x01\x02\x18\x63");
    /* An entry has both its fields even where they are 0. */
    static const struct last_output entries[] = {{0, 0}, {5, 300}};
    assert_bytes(write_command(&input, entries, 2), "\x08\x01\x12\x17\x1a\x15\x08\x03\x12\x02\x01\x02\x18\x63"
                                                    "\x22\x04\x08\x00\x10\x00\x22\x05\x08\x05\x10\xac\x02");
}

static void writes_queries(void **state)
{
    (void)state;
    struct partition_query_input input = {.partition_id = 1,
                                          .max_received_index = 99,
                                          .session_id = 3,
                                          .service_id = 4,
                                          .operation = {.name = BYTES("Get"), .payload = BYTES("pp")}};
    assert_bytes(write_query(&input),
                 "\x08\x01\x12\x15\x08\x63\x12\x11\x08\x03\x12\x0d\x08\x04\x12\x09\x0a\x03Get\x12\x02pp");
    input.sync = true; /* stands behind the payload */
    assert_bytes(write_query(&input),
                 "\x08\x01\x12\x15\x08\x63\x12\x11\x08\x03\x12\x0d\x08\x04\x12\x09\x0a\x03Get\x12\x02pp\x18\x01");
}

/* --- Answers ---------------------------------------------------------------------------------------------------- */

static void writes_command_outputs(void **state)
{
    (void)state;
    const struct slice parts[] = {BYTES("ab"), {NULL, 0}, BYTES("c")};
    struct command_output output = {.index = 9, .kind = COMMAND_OPEN_SESSION, .id = 9, .sequence_num = 1};
    assert_bytes(write_output(&output), "\x0a\x06\x08\x09\x12\x02\x08\x09");
    output.kind = COMMAND_KEEP_ALIVE;
    assert_bytes(write_output(&output), "\x0a\x04\x08\x09\x1a\x00");
    output.kind = COMMAND_CLOSE_SESSION;
    assert_bytes(write_output(&output), "\x0a\x04\x08\x09\x22\x00");
    output.kind = COMMAND_SESSION_COMMAND;
    output.session_kind = SESSION_COMMAND_CREATE_SERVICE;
    assert_bytes(write_output(&output), "\x0a\x08\x08\x09\x2a\x04\x0a\x02\x08\x09");
    output.session_kind = SESSION_COMMAND_CLOSE_SERVICE;
    assert_bytes(write_output(&output), "\x0a\x06\x08\x09\x2a\x02\x12\x00");
    output.session_kind = SESSION_COMMAND_SERVICE_COMMAND;
    output.operation = (struct operation_output){.status = STATUS_OK};
    assert_bytes(write_output(&output), "\x0a\x0c\x08\x09\x2a\x08\x1a\x06\x08\x01\x12\x02\x08\x01");
    output.operation = (struct operation_output){
        .status = STATUS_CONFLICT, .message = BYTES("m"), .parts = parts, .part_count = 3, .payload_size = 3};
    assert_bytes(write_output(&output),
                 "\x0a\x14\x08\x09\x2a\x10\x1a\x0e\x08\x01\x12\x0a\x08\x08\x12\x03\x61\x62\x63\x1a\x01m");
}

static void writes_query_outputs(void **state)
{
    (void)state;
    const struct slice part = BYTES("abc");
    struct operation_output output = {.status = STATUS_OK, .parts = &part, .part_count = 1, .payload_size = 3};
    assert_bytes(write_query_output(&output), "\x0a\x0d\x0a\x0b\x0a\x09\x0a\x07\x08\x01\x12\x03\x61\x62\x63");
    output = (struct operation_output){.status = STATUS_UNKNOWN};
    assert_bytes(write_query_output(&output), "\x0a\x06\x0a\x04\x0a\x02\x0a\x00");
}

/* --- Any message ------------------------------------------------------------------------------------------------ */

static struct duration random_duration(void)
{
    if (random_bits() % 4 == 0)
        return (struct duration){0};
    return (struct duration){.seconds = (int64_t)random_number(), .nanos = (int32_t)random_number(), .present = true};
}

static void assert_slice(struct slice a, struct slice b)
{
    assert_int_equal(a.size, b.size);
    if (a.size != 0)
        assert_memory_equal(a.data, b.data, a.size);
}

static void assert_duration(struct duration a, struct duration b)
{
    assert_int_equal(a.present, b.present);
    assert_true(a.seconds == b.seconds && a.nanos == b.nanos);
}

static void reads_any_service_command_again(void **state)
{
    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct partition_command_input input = {
            .partition_id = (uint32_t)random_number(),
            .command = {.kind = COMMAND_SESSION_COMMAND,
                        .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                        .timestamp = random_duration(),
                        .session_id = random_number(),
                        .service_id = random_number(),
                        .sequence_num = random_number(),
                        .operation = {.name = random_text(), .payload = random_text()}}};
        struct slice bytes = write_command(&input, NULL, 0);
        struct partition_command_input again;
        assert_int_equal(read_partition_command_input(bytes.data, bytes.size, &again), READ_OK);
        assert_int_equal(again.partition_id, input.partition_id);
        assert_int_equal(again.command.kind, input.command.kind);
        assert_int_equal(again.command.session_kind, input.command.session_kind);
        assert_duration(again.command.timestamp, input.command.timestamp);
        assert_true(again.command.session_id == input.command.session_id);
        assert_true(again.command.service_id == input.command.service_id);
        assert_true(again.command.sequence_num == input.command.sequence_num);
        assert_slice(again.command.operation.name, input.command.operation.name);
        assert_slice(again.command.operation.payload, input.command.operation.payload);
    }
}

static void reads_any_service_output_again(void **state)
{
    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct slice part = random_text(), part_again;
        struct command_output output = {.index = random_number(),
                                        .kind = COMMAND_SESSION_COMMAND,
                                        .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                                        .sequence_num = random_number(),
                                        .operation = {.status = (enum status)(random_bits() % 14),
                                                      .message = random_text(),
                                                      .parts = &part,
                                                      .part_count = 1,
                                                      .payload_size = part.size}};
        struct slice bytes = write_output(&output);
        struct command_output again;
        assert_int_equal(read_partition_command_output(bytes.data, bytes.size, &again, &part_again), READ_OK);
        assert_true(again.index == output.index && again.sequence_num == output.sequence_num);
        assert_int_equal(again.kind, output.kind);
        assert_int_equal(again.session_kind, output.session_kind);
        assert_int_equal(again.operation.status, output.operation.status);
        assert_slice(again.operation.message, output.operation.message);
        assert_slice(part_again, part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_numbers),
        cmocka_unit_test(leaves_out_defaults),
        cmocka_unit_test(writes_fields),
        cmocka_unit_test(writes_commands),
        cmocka_unit_test(writes_keep_alive),
        cmocka_unit_test(writes_queries),
        cmocka_unit_test(writes_command_outputs),
        cmocka_unit_test(writes_query_outputs),
        cmocka_unit_test(reads_any_service_command_again),
        cmocka_unit_test(reads_any_service_output_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
