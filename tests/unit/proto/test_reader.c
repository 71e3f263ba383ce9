/* SPDX-License-Identifier: Apache-2.0 */
/* What the reader makes of requests and answers. Agreement with protobuf itself is test_agreement.py's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <unistd.h>

#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/unit/proto/bytes.h"
#include "tests/unit/proto/random.h"

static struct partition_command_input command_of(struct slice bytes)
{
    struct partition_command_input input;
    memset(&input, 0xa5, sizeof input); /* it must be filled from nothing */
    assert_int_equal(read_partition_command_input(bytes.data, bytes.size, &input), READ_OK);
    return input;
}

static bool command_malformed(struct slice bytes)
{
    struct partition_command_input input;
    return read_partition_command_input(bytes.data, bytes.size, &input) == READ_MALFORMED;
}

static struct partition_query_input query_of(struct slice bytes)
{
    struct partition_query_input input;
    memset(&input, 0xa5, sizeof input);
    assert_int_equal(read_partition_query_input(bytes.data, bytes.size, &input), READ_OK);
    return input;
}

/* --- Commands --------------------------------------------------------------------------------------------------- */

/* partition 1, session 3, service 4, number 5, Increment {delta 1} */
#define INCREMENT                                                                                                      \
    "\x08\x01\x12\x1b\x2a\x19\x08\x03\x22\x15\x08\x04\x10\x05\x1a\x0f\x0a\x09"                                         \
    "Increment\x12\x02\x08\x01"

static void reads_service_command(void **state)
{
    (void)state;
    struct slice bytes = BYTES(INCREMENT);
    struct partition_command_input input = command_of(bytes);
    assert_int_equal(input.partition_id, 1);
    assert_true(input.has_command);
    assert_int_equal(input.command.kind, COMMAND_SESSION_COMMAND);
    assert_int_equal(input.command.session_kind, SESSION_COMMAND_SERVICE_COMMAND);
    assert_int_equal(input.command.session_id, 3);
    assert_int_equal(input.command.service_id, 4);
    assert_int_equal(input.command.sequence_num, 5);
    assert_bytes(input.command.operation.name, "Increment");
    assert_bytes(input.command.operation.payload, "\x08\x01");
    assert_false(input.command.timestamp.present);
    assert_int_equal(input.command.spec.name.size, 0);
    assert_ptr_equal(input.command.source.data, bytes.data);
    assert_int_equal(input.command.source.size, bytes.size);
    /* In place: the payload is the last of the message's own bytes. */
    assert_ptr_equal(input.command.operation.payload.data + 2, bytes.data + bytes.size);
}

static void reads_other_commands(void **state)
{
    (void)state;
    struct partition_command_input input =
        command_of(BYTES("\x12\x0e\x0a\x04\x08\x07\x10\x08\x12\x06\x0a\x04\x08\x09\x10\x0a"));
    assert_int_equal(input.command.kind, COMMAND_OPEN_SESSION);
    assert_true(input.command.timestamp.present);
    assert_int_equal(input.command.timestamp.seconds, 7);
    assert_int_equal(input.command.timestamp.nanos, 8);
    assert_true(input.command.timeout.present);
    assert_int_equal(input.command.timeout.seconds, 9);
    assert_int_equal(input.command.timeout.nanos, 10);

    input = command_of(BYTES("\x12\x0a\x1a\x08\x08\x03\x12\x02\x01\x02\x18\x63"));
    assert_int_equal(input.command.kind, COMMAND_KEEP_ALIVE);
    assert_int_equal(input.command.session_id, 3);
    assert_bytes(input.command.input_filter, "\x01\x02");
    assert_int_equal(input.command.last_input_sequence_num, 99);
    assert_false(input.command.has_last_output_sequence_nums);

    input = command_of(BYTES("\x12\x04\x22\x02\x08\x03"));
    assert_int_equal(input.command.kind, COMMAND_CLOSE_SESSION);
    assert_int_equal(input.command.session_id, 3);

    input = command_of(BYTES("\x12\x11\x2a\x0f\x08\x03\x12\x0b\x0a\x09\x0a\x01T\x12\x01N\x1a\x01s"));
    assert_int_equal(input.command.session_kind, SESSION_COMMAND_CREATE_SERVICE);
    assert_bytes(input.command.spec.service, "T");
    assert_bytes(input.command.spec.name_space, "N");
    assert_bytes(input.command.spec.name, "s");

    input = command_of(BYTES("\x12\x08\x2a\x06\x08\x03\x1a\x02\x08\x04"));
    assert_int_equal(input.command.session_kind, SESSION_COMMAND_CLOSE_SERVICE);
    assert_int_equal(input.command.service_id, 4);
}

static void tells_nothing_from_something_empty(void **state)
{
    (void)state;
    struct partition_command_input input = command_of((struct slice){NULL, 0});
    assert_false(input.has_command);
    assert_int_equal(input.command.kind, COMMAND_NONE);
    input = command_of(BYTES("\x12\x00"));
    assert_true(input.has_command);
    assert_int_equal(input.command.kind, COMMAND_NONE);
    input = command_of(BYTES("\x12\x02\x12\x00"));
    assert_int_equal(input.command.kind, COMMAND_OPEN_SESSION);
    assert_false(input.command.timeout.present);
    input = command_of(BYTES("\x12\x04\x12\x02\x0a\x00"));
    assert_true(input.command.timeout.present);
    assert_int_equal(input.command.timeout.seconds, 0);
    input = command_of(BYTES("\x12\x02\x2a\x00"));
    assert_int_equal(input.command.kind, COMMAND_SESSION_COMMAND);
    assert_int_equal(input.command.session_kind, SESSION_COMMAND_NONE);
}

static void merges_pieces_in_any_order(void **state)
{
    (void)state;
    /* The payload, then partition, then the name and the numbers, each on the whole way down. */
    struct partition_command_input input = command_of(BYTES("\x12\x0a\x2a\x08\x22\x06\x1a\x04\x12\x02\x08\x01"
                                                            "\x08\x07"
                                                            "\x12\x09\x2a\x07\x22\x05\x1a\x03\x0a\x01I"
                                                            "\x12\x08\x2a\x06\x22\x02\x10\x05\x08\x03"));
    assert_int_equal(input.partition_id, 7);
    assert_int_equal(input.command.kind, COMMAND_SESSION_COMMAND);
    assert_int_equal(input.command.session_kind, SESSION_COMMAND_SERVICE_COMMAND);
    assert_int_equal(input.command.session_id, 3);
    assert_int_equal(input.command.sequence_num, 5);
    assert_bytes(input.command.operation.name, "I");
    assert_bytes(input.command.operation.payload, "\x08\x01");
}

static void counts_the_last_of_repeated_scalars(void **state)
{
    (void)state;
    struct partition_command_input input =
        command_of(BYTES("\x08\x01\x08\x02\x12\x08\x22\x06\x08\x03\x08\x04\x08\x05"));
    assert_int_equal(input.partition_id, 2);
    assert_int_equal(input.command.session_id, 5);
    input = command_of(BYTES("\x12\x0b\x2a\x09\x22\x07\x1a\x05\x12\x01p\x12\x00"));
    assert_int_equal(input.command.operation.payload.size, 0);
}

static void reports_two_members(void **state)
{
    (void)state;
    assert_int_equal(command_of(BYTES("\x12\x04\x1a\x00\x22\x00")).command.kind, COMMAND_AMBIGUOUS);
    /* In two pieces of the message, and with the first once more behind them. */
    assert_int_equal(command_of(BYTES("\x12\x02\x1a\x00\x12\x02\x22\x00")).command.kind, COMMAND_AMBIGUOUS);
    assert_int_equal(command_of(BYTES("\x12\x06\x1a\x00\x22\x00\x1a\x00")).command.kind, COMMAND_AMBIGUOUS);
    assert_int_equal(command_of(BYTES("\x12\x06\x2a\x04\x12\x00\x1a\x00")).command.session_kind,
                     SESSION_COMMAND_AMBIGUOUS);
    assert_int_equal(command_of(BYTES("\x12\x04\x2a\x02\x12\x00\x12\x04\x2a\x02\x22\x00")).command.session_kind,
                     SESSION_COMMAND_AMBIGUOUS);
    /* The same member twice is one. */
    assert_int_equal(command_of(BYTES("\x12\x04\x1a\x00\x1a\x00")).command.kind, COMMAND_KEEP_ALIVE);
}

static void skips_what_it_does_not_know(void **state)
{
    (void)state;
    /* An unknown number, a group, and known numbers with other wire types: none is a member. */
    struct partition_command_input input = command_of(BYTES("\x48\x01\x4b\x08\x01\x4c"
                                                            "\x12\x0b\x10\x05\x1d\x01\x02\x03\x04\x2b\x2c\x22\x00"
                                                            "\x0a\x01x\x10\x09"));
    assert_int_equal(input.partition_id, 0);
    assert_int_equal(input.command.kind, COMMAND_CLOSE_SESSION);
    /* What is unknown need not be UTF-8. */
    assert_false(command_malformed(BYTES("\x4a\x01\xff")));
}

static void cuts_numbers_to_their_type(void **state)
{
    (void)state;
    assert_int_equal(command_of(BYTES("\x08\x85\x80\x80\x80\x10")).partition_id, 5);
    struct partition_command_input input =
        command_of(BYTES("\x12\x0f\x0a\x0d\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x08\x01"));
    assert_int_equal(input.command.timestamp.nanos, -1);
    assert_true(query_of(BYTES("\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")).sync);
    assert_false(query_of(BYTES("\x18\x01\x18\x00")).sync);
}

static void refuses_bad_strings_even_if_replaced(void **state)
{
    (void)state;
    assert_false(command_malformed(BYTES("\x12\x0c\x2a\x0a\x22\x08\x1a\x06\x0a\x01\x61\x0a\x01\x62")));
    assert_true(command_malformed(BYTES("\x12\x0c\x2a\x0a\x22\x08\x1a\x06\x0a\x01\xff\x0a\x01\x62")));
    assert_true(command_malformed(BYTES("\x12\x09\x2a\x07\x12\x05\x0a\x03\x0a\x01\xff")));
    assert_true(command_malformed(BYTES("\x12\x09\x2a\x07\x12\x05\x0a\x03\x12\x01\xff")));
    assert_true(command_malformed(BYTES("\x12\x09\x2a\x07\x12\x05\x0a\x03\x1a\x01\xff")));
    assert_false(command_malformed(BYTES("\x12\x09\x2a\x07\x22\x05\x1a\x03\x12\x01\xff"))); /* the payload is bytes */
}

static void refuses_malformed_sub_messages(void **state)
{
    (void)state;
    assert_true(command_malformed(BYTES("\x00\x01"))); /* number 0, otherwise sound */
    assert_true(command_malformed(BYTES("\x12\x01\x00")));
    assert_true(command_malformed(BYTES("\x12\x03\x0a\x01\x08")));         /* timestamp */
    assert_true(command_malformed(BYTES("\x12\x05\x12\x03\x0a\x01\x08"))); /* timeout */
    assert_true(command_malformed(BYTES("\x12\x05\x1a\x03\x22\x01\x08"))); /* an entry of the map */
    assert_true(command_malformed(BYTES("\x12\x03\x22\x01\x08")));
    assert_true(command_malformed(BYTES("\x12\x03\x2a\x01\x08")));
    assert_true(command_malformed(BYTES("\x12\x05\x2a\x03\x1a\x01\x08")));
    assert_true(command_malformed(BYTES("\x12\x04\x22\x03\x08\x01"))); /* a member larger than what holds it */
}

/* --- KeepAlive's map -------------------------------------------------------------------------------------------- */

struct seen {
    uint64_t pairs[8][2];
    size_t count;
};

static void see(void *context, uint64_t sequence_num, uint64_t last_output)
{
    struct seen *seen = context;
    assert_true(seen->count < 8);
    seen->pairs[seen->count][0] = sequence_num;
    seen->pairs[seen->count][1] = last_output;
    seen->count++;
}

static void walks_the_map(void **state)
{
    (void)state;
    /* Entries in two pieces, among other fields; one repeats a key, one has no key, one no value, one is empty. */
    struct partition_command_input input = command_of(
        BYTES("\x12\x18\x1a\x16\x22\x04\x08\x05\x10\x06\x08\x03\x22\x02\x10\x07\x22\x02\x08\x08\x22\x00\x4b\x22\x00\x4c"
              "\x08\x01"
              "\x12\x0c\x1a\x0a\x22\x08\x10\x09\x08\x63\x08\x05\x18\x01"));
    assert_true(input.command.has_last_output_sequence_nums);
    assert_int_equal(input.command.session_id, 3);
    static const uint64_t expected[][2] = {{5, 6}, {0, 7}, {8, 0}, {0, 0}, {5, 9}};
    struct seen seen = {.count = 0};
    read_last_outputs(input.command.source, see, &seen);
    assert_int_equal(seen.count, 5);
    assert_memory_equal(seen.pairs, expected, sizeof expected);

    input = command_of(BYTES(INCREMENT));
    seen.count = 0;
    read_last_outputs(input.command.source, see, &seen);
    assert_int_equal(seen.count, 0);
}

/* --- Queries ---------------------------------------------------------------------------------------------------- */

static void reads_query(void **state)
{
    (void)state;
    struct partition_query_input input =
        query_of(BYTES("\x08\x01\x12\x11\x08\x63\x12\x0d\x08\x03\x12\x09\x08\x04\x12\x05\x0a\x03Get\x18\x01"));
    assert_int_equal(input.partition_id, 1);
    assert_true(input.sync);
    assert_true(input.has_query);
    assert_int_equal(input.max_received_index, 99);
    assert_int_equal(input.query_members, 1);
    assert_int_equal(input.session_query_members, 1);
    assert_int_equal(input.session_id, 3);
    assert_int_equal(input.service_id, 4);
    assert_bytes(input.operation.name, "Get");
    assert_int_equal(input.operation.payload.size, 0);

    input = query_of(BYTES("\x12\x02\x12\x00"));
    assert_int_equal(input.query_members, 1);
    assert_int_equal(input.session_query_members, 0);
    input = query_of((struct slice){NULL, 0});
    assert_false(input.has_query);
    assert_int_equal(input.query_members, 0);
}

/* --- Answers ---------------------------------------------------------------------------------------------------- */

/* Whatever read_first_output() takes, is the same to the reader of all outputs. True: it took it. */
static bool is_first_output(struct slice bytes)
{
    uint64_t index;
    struct slice payload, part;
    struct command_output output;

    if (!read_first_output(bytes.data, bytes.size, &index, &payload))
        return false;
    assert_int_equal(read_partition_command_output(bytes.data, bytes.size, &output, &part), READ_OK);
    assert_int_equal(output.kind, COMMAND_SESSION_COMMAND);
    assert_int_equal(output.session_kind, SESSION_COMMAND_SERVICE_COMMAND);
    assert_true(output.index == index);
    assert_int_equal(output.sequence_num, 1);
    assert_int_equal(output.operation.status, STATUS_OK);
    assert_int_equal(output.operation.message.size, 0);
    assert_ptr_equal(part.data, payload.data);
    assert_int_equal(part.size, payload.size);
    return true;
}

static void reads_most_answers_at_once(void **state)
{
    (void)state;
    static uint8_t bytes[4096], text[2048];
    struct slice part = {text, 0};
    struct command_output output = {.kind = COMMAND_SESSION_COMMAND,
                                    .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                                    .operation = {.parts = &part, .part_count = 1}};
    unsigned taken = 0;
    for (unsigned n = 0; n < 20000; n++) {
        unsigned odd = (unsigned)(random_bits() % 16);
        output.index = random_number() | 1;
        output.sequence_num = odd == 0 ? random_number() : 1;
        output.operation.status = odd == 1 ? (enum status)(random_bits() % 14) : STATUS_OK;
        output.operation.message = odd == 2 ? random_text() : (struct slice){NULL, 0};
        part.size = random_bits() % (odd == 3 ? sizeof text : 200);
        output.operation.payload_size = part.size;
        size_t size = (size_t)(write_partition_command_output(bytes, &output) - bytes);
        bool plain = output.sequence_num == 1 && output.operation.status == STATUS_OK &&
                     output.operation.message.size == 0 && part.size > 0 && (part.size < 116 || part.size >= 128);
        bool is_first = is_first_output((struct slice){bytes, size});
        if (plain)
            assert_true(is_first);
        if (part.size == 0 || output.sequence_num != 1 || output.operation.status != STATUS_OK)
            assert_false(is_first);
        taken += is_first;
    }
    assert_true(taken > 10000);
    assert_false(is_first_output((struct slice){NULL, 0}));
}

static struct command_output output_of(struct slice bytes, struct slice *part)
{
    struct command_output output;
    memset(&output, 0xa5, sizeof output);
    assert_int_equal(read_partition_command_output(bytes.data, bytes.size, &output, part), READ_OK);
    assert_ptr_equal(output.operation.parts, part);
    assert_int_equal(output.operation.part_count, 1);
    assert_int_equal(output.operation.payload_size, part->size);
    return output;
}

static void reads_command_outputs(void **state)
{
    (void)state;
    struct slice part;
    struct command_output output =
        output_of(BYTES("\x0a\x13\x08\x09\x2a\x0f\x1a\x0d\x08\x01\x12\x09\x08\x08\x12\x02\x08\x2a\x1a\x01m"), &part);
    assert_int_equal(output.index, 9);
    assert_int_equal(output.kind, COMMAND_SESSION_COMMAND);
    assert_int_equal(output.session_kind, SESSION_COMMAND_SERVICE_COMMAND);
    assert_int_equal(output.sequence_num, 1);
    assert_int_equal(output.operation.status, STATUS_CONFLICT);
    assert_bytes(part, "\x08\x2a");
    assert_bytes(output.operation.message, "m");

    output = output_of(BYTES("\x0a\x06\x08\x09\x12\x02\x08\x09"), &part);
    assert_int_equal(output.kind, COMMAND_OPEN_SESSION);
    assert_int_equal(output.id, 9);
    assert_int_equal(part.size, 0);
    output = output_of(BYTES("\x0a\x08\x08\x09\x2a\x04\x0a\x02\x08\x07"), &part);
    assert_int_equal(output.session_kind, SESSION_COMMAND_CREATE_SERVICE);
    assert_int_equal(output.id, 7);
    assert_int_equal(output_of(BYTES("\x0a\x04\x2a\x02\x12\x00"), &part).session_kind, SESSION_COMMAND_CLOSE_SERVICE);
    assert_int_equal(output_of(BYTES("\x0a\x02\x1a\x00"), &part).kind, COMMAND_KEEP_ALIVE);
    assert_int_equal(output_of(BYTES("\x0a\x02\x22\x00"), &part).kind, COMMAND_CLOSE_SESSION);
    assert_int_equal(output_of(BYTES("\x0a\x04\x22\x00\x1a\x00"), &part).kind, COMMAND_AMBIGUOUS);
    assert_int_equal(output_of(BYTES("\x0a\x06\x2a\x04\x0a\x00\x12\x00"), &part).session_kind,
                     SESSION_COMMAND_AMBIGUOUS);
}

static void reads_query_output(void **state)
{
    (void)state;
    struct operation_output output;
    struct slice part, bytes = BYTES("\x0a\x0d\x0a\x0b\x0a\x09\x0a\x07\x08\x01\x12\x03"
                                     "abc");
    assert_int_equal(read_partition_query_output(bytes.data, bytes.size, &output, &part), READ_OK);
    assert_int_equal(output.status, STATUS_OK);
    assert_int_equal(output.payload_size, 3);
    assert_ptr_equal(output.parts, &part);
    assert_bytes(part, "abc");
    assert_int_equal(read_partition_query_output(bytes.data, bytes.size - 1, &output, &part), READ_MALFORMED);
    bytes = BYTES("\x0a\x0d\x0a\x0b\x0a\x09\x0a\x07\x12\x02xy\x12\x01z"); /* the later payload counts */
    assert_int_equal(read_partition_query_output(bytes.data, bytes.size, &output, &part), READ_OK);
    assert_int_equal(output.payload_size, 1);
    assert_bytes(part, "z");
}

/* --- Any bytes -------------------------------------------------------------------------------------------------- */

/* No step past the end, wherever that is: behind it is a page that must not be touched. */
static void stays_within_its_bytes(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    struct slice bytes = BYTES(INCREMENT);
    for (size_t size = 0; size <= bytes.size; size++) {
        for (size_t changed = 0; changed < size; changed++) {
            uint8_t *data = pages + page - size;
            static const uint8_t values[] = {0x00, 0x7f, 0x80, 0xff, 0x0b};
            for (size_t i = 0; i < sizeof values; i++) {
                memcpy(data, bytes.data, size);
                data[changed] = values[i];
                struct partition_command_input command;
                struct partition_query_input query;
                struct command_output command_output;
                struct operation_output query_output;
                struct slice part;
                read_partition_command_input(data, size, &command);
                read_partition_query_input(data, size, &query);
                read_partition_command_output(data, size, &command_output, &part);
                read_partition_query_output(data, size, &query_output, &part);
                is_first_output((struct slice){data, size});
            }
        }
    }
    assert_int_equal(munmap(pages, 2 * page), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_service_command),
        cmocka_unit_test(reads_other_commands),
        cmocka_unit_test(tells_nothing_from_something_empty),
        cmocka_unit_test(merges_pieces_in_any_order),
        cmocka_unit_test(counts_the_last_of_repeated_scalars),
        cmocka_unit_test(reports_two_members),
        cmocka_unit_test(skips_what_it_does_not_know),
        cmocka_unit_test(cuts_numbers_to_their_type),
        cmocka_unit_test(refuses_bad_strings_even_if_replaced),
        cmocka_unit_test(refuses_malformed_sub_messages),
        cmocka_unit_test(walks_the_map),
        cmocka_unit_test(reads_query),
        cmocka_unit_test(reads_most_answers_at_once),
        cmocka_unit_test(reads_command_outputs),
        cmocka_unit_test(reads_query_output),
        cmocka_unit_test(stays_within_its_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
