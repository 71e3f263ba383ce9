/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in protobuf's JSON mapping. Here: what the mapping says of single values, and bytes that no message has.
 * With --print it is the other half of test_message_json.py, which compares with protobuf itself: reads lines `NAME
 * HEX` and prints for each the message as JSON, or `malformed`. */
#include "engine/cli/message_json.h"

#include "atomix/multiraft/v1/fsm.pb-c.h"
#include "millrace/v1/snapshot.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- --print ---- */

static const ProtobufCMessageDescriptor *type_of(const char *name)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &atomix__multiraft__v1__partition_snapshot__descriptor,
        &atomix__multiraft__v1__partition_command_input__descriptor,
        &atomix__multiraft__v1__command_input__descriptor,
        &atomix__multiraft__v1__partition_command_output__descriptor,
        &atomix__multiraft__v1__partition_query_input__descriptor,
        &atomix__multiraft__v1__partition_query_output__descriptor,
        &millrace__v1__snapshot_extra__descriptor,
    };

    for (size_t n = 0; n < sizeof(types) / sizeof(types[0]); n++)
        if (strcmp(types[n]->short_name, name) == 0)
            return types[n];
    return NULL;
}

static size_t from_hex(char *text)
{
    size_t size = strlen(text) / 2;

    for (size_t n = 0; n < size; n++) {
        char digits[3] = {text[2 * n], text[2 * n + 1], '\0'};
        text[n] = (char)strtoul(digits, NULL, 16);
    }
    return size;
}

static int print_all(void)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;

    while ((length = getline(&line, &room, stdin)) > 0) {
        line[length - 1] = '\0';
        char *hex = strchr(line, ' ');
        *hex++ = '\0';
        const ProtobufCMessageDescriptor *type = type_of(line);
        if (type == NULL)
            return 2;
        char *text;
        size_t text_size, size = from_hex(hex);
        FILE *to = open_memstream(&text, &text_size);
        struct slice bytes = {.data = (const uint8_t *)hex, .size = size};
        bool good = message_json(to, type, bytes);
        fclose(to);
        printf("%d %s\n", message_sound(type, bytes), good ? text : "malformed");
        free(text);
    }
    free(line);
    return 0;
}

/* ---- tests ---- */

static void expect(const char *json, const ProtobufCMessageDescriptor *type, const char *bytes, size_t size)
{
    char *text;
    size_t text_size;
    FILE *to = open_memstream(&text, &text_size);

    bool good = message_json(to, type, (struct slice){.data = (const uint8_t *)bytes, .size = size});
    fclose(to);
    if (json == NULL) {
        assert_false(good);
    } else {
        assert_true(good);
        assert_string_equal(text, json);
    }
    free(text);
}
#define EXPECT(json, type, bytes) expect(json, &atomix__multiraft__v1__##type##__descriptor, bytes, sizeof(bytes) - 1)

static void test_values(void **state)
{
    (void)state;
    EXPECT("{}", command_input, "");
    EXPECT("{\"keepAlive\": {}}", command_input, "\x1a\x00");
    EXPECT("{\"timestamp\": \"1970-01-01T00:00:00Z\"}", command_input, "\x0a\x00");
    EXPECT("{\"timestamp\": \"1970-01-01T00:00:01.500Z\"}", command_input, "\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01");
    EXPECT("{\"timeout\": \"10s\"}", open_session_input, "\x0a\x02\x08\x0a");
    EXPECT("{\"sessionId\": \"18446744073709551615\"}", close_session_input,
           "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    EXPECT("{\"partitionId\": 4294967295}", partition_command_input, "\x08\xff\xff\xff\xff\x0f");
    EXPECT("{\"name\": \"a\\\"b\", \"payload\": \"AAE=\"}", operation_input, "\x0a\x03\x61\"b\x12\x02\x00\x01");
    EXPECT("{\"status\": \"OK\"}", operation_output, "\x08\x01");
    EXPECT("{\"status\": 99}", operation_output, "\x08\x63");
    EXPECT("{\"sync\": true}", partition_query_input, "\x18\x02");
    EXPECT("{\"sessions\": [\"1\", \"2\", \"3\"]}", service_snapshot, "\x20\x01\x22\x02\x02\x03");
}

static void test_the_last_counts(void **state)
{
    (void)state;
    EXPECT("{\"sessionId\": \"2\"}", close_session_input, "\x08\x01\x08\x02");
    EXPECT("{}", close_session_input, "\x08\x01\x08\x00");
    EXPECT("{\"command\": {\"openSession\": {\"timeout\": \"1.000000001s\"}}}", partition_command_input,
           "\x12\x06\x12\x04\x0a\x02\x08\x01\x12\x06\x12\x04\x0a\x02\x10\x01");
    EXPECT("{\"lastOutputSequenceNums\": {\"1\": \"5\", \"2\": \"0\"}}", keep_alive_input,
           "\x22\x04\x08\x01\x10\x04\x22\x02\x08\x02\x22\x04\x08\x01\x10\x05");
}

static void test_what_is_unknown_is_left_out(void **state)
{
    (void)state;
    EXPECT("{\"sessionId\": \"1\"}", close_session_input, "\x08\x01\xf8\x01\x01\xfb\x01\x08\x02\xfc\x01");
    EXPECT("{}", close_session_input, "\x0a\x01x"); /* another wire type */
}

static void test_malformed(void **state)
{
    (void)state;
    EXPECT(NULL, close_session_input, "\x08");
    EXPECT(NULL, command_input, "\x1a\x05\x08\x01");
    EXPECT(NULL, command_input, "\x1a\x01\x08");
    EXPECT(NULL, keep_alive_input, "\x22\x01\x08");
    EXPECT(NULL, service_snapshot, "\x22\x01\x80");
    assert_true(message_sound(&atomix__multiraft__v1__operation_input__descriptor, (struct slice){0}));
    assert_false(message_sound(&atomix__multiraft__v1__operation_input__descriptor,
                               (struct slice){.data = (const uint8_t *)"\x0a\x01\xff", .size = 3}));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_the_last_counts),
        cmocka_unit_test(test_what_is_unknown_is_left_out),
        cmocka_unit_test(test_malformed),
    };

    if (argc > 1 && strcmp(argv[1], "--print") == 0)
        return print_all();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
