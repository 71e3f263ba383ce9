/* SPDX-License-Identifier: Apache-2.0 */
/* Our half of test_agreement.py. With `--dump` it reads lines `KIND HEX` (HEX may be empty) from standard input and
 * prints, for each, what the reader read as one line of text, or `MALFORMED`, and on a second line in hexadecimal what
 * the writer makes of that (`-` where the writer has no such message: malformed, or two members of a `oneof`). Without
 * arguments it tests itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/reader.h"
#include "proto/writer.h"

/* --- Printing what was read ------------------------------------------------------------------------------------- */

static void print_bytes(FILE *out, const char *name, struct slice bytes)
{
    fprintf(out, " %s=", name);
    for (size_t i = 0; i < bytes.size; i++)
        fprintf(out, "%02x", bytes.data[i]);
}

static void print_number(FILE *out, const char *name, uint64_t value)
{
    fprintf(out, " %s=%" PRIu64, name, value);
}

static void print_duration(FILE *out, const char *name, const struct duration *duration)
{
    if (duration->present)
        fprintf(out, " %s=%" PRId64 ":%" PRId32, name, duration->seconds, duration->nanos);
    else
        fprintf(out, " %s=none", name);
}

/* KeepAlive's map as a program would see it: the later of equal keys counts. Ascending, as canonical bytes are. */
struct map {
    struct last_output entries[4096];
    size_t count;
};

static void map_put(void *context, uint64_t sequence_num, uint64_t last_output)
{
    struct map *map = context;
    size_t at = 0;
    while (at < map->count && map->entries[at].sequence_num < sequence_num)
        at++;
    if (at == map->count || map->entries[at].sequence_num != sequence_num) {
        assert_true(map->count < sizeof map->entries / sizeof map->entries[0]);
        memmove(&map->entries[at + 1], &map->entries[at], (map->count - at) * sizeof map->entries[0]);
        map->count++;
    }
    map->entries[at] = (struct last_output){sequence_num, last_output};
}

static struct map map; /* of the message at hand */

static void print_command_input(FILE *out, const struct partition_command_input *input)
{
    const struct command_input *command = &input->command;
    print_number(out, "partition_id", input->partition_id);
    print_number(out, "has_command", input->has_command);
    print_number(out, "kind", command->kind);
    print_duration(out, "timestamp", &command->timestamp);
    if (command->kind == COMMAND_AMBIGUOUS)
        return;
    print_number(out, "session_id", command->session_id);
    print_number(out, "session_kind", command->session_kind);
    if (command->session_kind == SESSION_COMMAND_AMBIGUOUS)
        return;
    /* These share their room. */
    static const struct command_input nothing;
    const struct command_input *opens = command->kind == COMMAND_OPEN_SESSION ? command : &nothing;
    const struct command_input *keeps = command->kind == COMMAND_KEEP_ALIVE ? command : &nothing;
    const struct command_input *creates = command->session_kind == SESSION_COMMAND_CREATE_SERVICE ? command : &nothing;
    print_duration(out, "timeout", &opens->timeout);
    print_bytes(out, "input_filter", keeps->input_filter);
    print_number(out, "last_input_sequence_num", keeps->last_input_sequence_num);
    print_number(out, "has_map", keeps->has_last_output_sequence_nums);
    fprintf(out, " map=");
    for (size_t i = 0; i < map.count; i++)
        fprintf(out, "%" PRIu64 ":%" PRIu64 ",", map.entries[i].sequence_num, map.entries[i].last_output);
    print_bytes(out, "service", creates->spec.service);
    print_bytes(out, "namespace", creates->spec.name_space);
    print_bytes(out, "spec_name", creates->spec.name);
    print_number(out, "service_id", command->service_id);
    print_number(out, "sequence_num", command->sequence_num);
    print_bytes(out, "name", command->operation.name);
    print_bytes(out, "payload", command->operation.payload);
}

static void print_query_input(FILE *out, const struct partition_query_input *input)
{
    print_number(out, "partition_id", input->partition_id);
    print_number(out, "sync", input->sync);
    print_number(out, "has_query", input->has_query);
    print_number(out, "max_received_index", input->max_received_index);
    print_number(out, "query_members", input->query_members);
    print_number(out, "session_query_members", input->session_query_members);
    print_number(out, "session_id", input->session_id);
    print_number(out, "service_id", input->service_id);
    print_bytes(out, "name", input->operation.name);
    print_bytes(out, "payload", input->operation.payload);
}

static void print_operation_output(FILE *out, const struct operation_output *output)
{
    fprintf(out, " status=%" PRId32, (int32_t)output->status);
    assert_int_equal(output->part_count, 1);
    assert_int_equal(output->payload_size, output->parts[0].size);
    print_bytes(out, "payload", output->parts[0]);
    print_bytes(out, "message", output->message);
}

static void print_command_output(FILE *out, const struct command_output *output)
{
    print_number(out, "index", output->index);
    print_number(out, "kind", output->kind);
    if (output->kind == COMMAND_AMBIGUOUS)
        return;
    print_number(out, "session_kind", output->session_kind);
    if (output->session_kind == SESSION_COMMAND_AMBIGUOUS)
        return;
    print_number(out, "id", output->id);
    print_number(out, "sequence_num", output->sequence_num);
    print_operation_output(out, &output->operation);
}

/* --- Writing it again ------------------------------------------------------------------------------------------- */

/* `behind` is where the writer stopped; what it promised to write is `size` bytes from `start`. */
static void print_written(FILE *out, const uint8_t *start, const uint8_t *behind, size_t size)
{
    assert_int_equal(behind - start, size);
    fprintf(out, "\n");
    for (size_t i = 0; i < size; i++)
        fprintf(out, "%02x", start[i]);
    fprintf(out, "\n");
}

static void not_written(FILE *out)
{
    fprintf(out, "\n-\n");
}

static void dump_command(FILE *out, struct slice bytes)
{
    struct partition_command_input input;
    if (read_partition_command_input(bytes.data, bytes.size, &input) != READ_OK) {
        fprintf(out, "MALFORMED");
        not_written(out);
        return;
    }
    assert_ptr_equal(input.command.source.data, bytes.data);
    assert_int_equal(input.command.source.size, bytes.size);
    map.count = 0;
    read_last_outputs(input.command.source, map_put, &map);
    print_command_input(out, &input);
    if (input.command.kind == COMMAND_AMBIGUOUS || input.command.session_kind == SESSION_COMMAND_AMBIGUOUS) {
        not_written(out);
        return;
    }
    size_t size = partition_command_input_size(&input, map.entries, map.count);
    uint8_t *written = malloc(size + 1);
    assert_non_null(written);
    uint8_t *payload = write_partition_command_input(written, &input, map.entries, map.count);
    if (input.command.operation.payload.size != 0)
        memcpy(payload, input.command.operation.payload.data, input.command.operation.payload.size);
    print_written(out, written, payload + input.command.operation.payload.size, size);
    free(written);
}

static void dump_query(FILE *out, struct slice bytes)
{
    struct partition_query_input input;
    if (read_partition_query_input(bytes.data, bytes.size, &input) != READ_OK) {
        fprintf(out, "MALFORMED");
        not_written(out);
        return;
    }
    print_query_input(out, &input);
    size_t size = partition_query_input_size(&input);
    uint8_t *written = malloc(size);
    assert_non_null(written);
    uint8_t *payload = write_partition_query_input(written, &input);
    if (input.operation.payload.size != 0)
        memcpy(payload, input.operation.payload.data, input.operation.payload.size);
    print_written(out, written, payload + input.operation.payload.size + (input.sync ? 2 : 0), size);
    free(written);
}

static void dump_command_output(FILE *out, struct slice bytes)
{
    struct command_output output;
    struct slice part;
    if (read_partition_command_output(bytes.data, bytes.size, &output, &part) != READ_OK) {
        fprintf(out, "MALFORMED");
        not_written(out);
        return;
    }
    print_command_output(out, &output);
    if (output.kind == COMMAND_AMBIGUOUS || output.session_kind == SESSION_COMMAND_AMBIGUOUS) {
        not_written(out);
        return;
    }
    size_t size = partition_command_output_size(&output);
    uint8_t *written = malloc(size);
    assert_non_null(written);
    print_written(out, written, write_partition_command_output(written, &output), size);
    free(written);
}

static void dump_query_output(FILE *out, struct slice bytes)
{
    struct operation_output output;
    struct slice part;
    if (read_partition_query_output(bytes.data, bytes.size, &output, &part) != READ_OK) {
        fprintf(out, "MALFORMED");
        not_written(out);
        return;
    }
    print_operation_output(out, &output);
    size_t size = partition_query_output_size(&output);
    uint8_t *written = malloc(size);
    assert_non_null(written);
    print_written(out, written, write_partition_query_output(written, &output), size);
    free(written);
}

/* --- Lines ------------------------------------------------------------------------------------------------------ */

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False if it is no such line. */
static bool dump_line(FILE *out, char *line)
{
    char *hex = strchr(line, ' ');
    if (hex == NULL)
        return false;
    *hex++ = '\0';
    size_t size = strcspn(hex, "\n") / 2;
    /* Of its own, and just as large, so that a sanitizer sees a step past the end. */
    uint8_t *data = malloc(size == 0 ? 1 : size);
    assert_non_null(data);
    for (size_t i = 0; i < size; i++) {
        int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            free(data);
            return false;
        }
        data[i] = (uint8_t)(high << 4 | low);
    }
    struct slice bytes = {size == 0 ? NULL : data, size};
    bool known = true;
    if (strcmp(line, "command") == 0)
        dump_command(out, bytes);
    else if (strcmp(line, "query") == 0)
        dump_query(out, bytes);
    else if (strcmp(line, "command_output") == 0)
        dump_command_output(out, bytes);
    else if (strcmp(line, "query_output") == 0)
        dump_query_output(out, bytes);
    else
        known = false;
    free(data);
    return known;
}

static int dump_input(void)
{
    char *line = NULL;
    size_t room = 0;
    bool good = true;
    while (good && getline(&line, &room, stdin) > 0)
        good = dump_line(stdout, line);
    free(line);
    return good && fflush(stdout) == 0 && !ferror(stdin) ? 0 : 1;
}

/* --- Its own test ----------------------------------------------------------------------------------------------- */

static void assert_dump(const char *line, const char *expected)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    char *copy = strdup(line);
    assert_non_null(copy);
    assert_true(dump_line(out, copy));
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, expected);
    free(copy);
    free(text);
}

static void shows_what_was_read_and_written(void **state)
{
    (void)state;
    assert_dump("query_output 0a080a060a040a020801", " status=1 payload= message=\n0a080a060a040a020801\n");
    assert_dump("query_output 0a080a060a040a020901", "MALFORMED\n-\n");
    assert_dump("command_output 0a0408051a00", " index=5 kind=3 session_kind=0 id=0 sequence_num=0 status=0 payload= "
                                               "message=\n0a0408051a00\n");
}

static void shows_two_members(void **state)
{
    (void)state;
    assert_dump("command 080112041a002200", " partition_id=1 has_command=1 kind=255 timestamp=none\n-\n");
}

static void refuses_other_lines(void **state)
{
    (void)state;
    char no_kind[] = "0a00", other_kind[] = "thing 0a00", no_hex[] = "query 0g";
    assert_false(dump_line(stdout, no_kind));
    assert_false(dump_line(stdout, other_kind));
    assert_false(dump_line(stdout, no_hex));
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--dump") == 0)
        return dump_input();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shows_what_was_read_and_written),
        cmocka_unit_test(shows_two_members),
        cmocka_unit_test(refuses_other_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
