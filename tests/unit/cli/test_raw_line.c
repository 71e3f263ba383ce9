/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of `millrace raw`: which are requests, which nothing, which malformed; and what is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/cli/raw_line.h"

#include <stdlib.h>
#include <string.h>

static char buffer[512];

static enum raw_line_result parse(const char *text, struct raw_line *line, struct mr_error *error)
{
    size_t size = strlen(text);

    assert_true(size < sizeof(buffer));
    /* At the very end of the memory, so that a sanitizer sees a step beyond it. */
    char *at = buffer + sizeof(buffer) - size;
    memcpy(at, text, size);
    return raw_line_parse(at, size, line, error);
}

static void test_requests(void **state)
{
    static const struct {
        const char *text;
        enum mr_kind kind;
        uint32_t partition;
        size_t size;
        uint8_t body[8];
    } lines[] = {
        {"command@2 0803ff", MR_COMMAND, 2, 3, {0x08, 0x03, 0xff}},
        {"query@7 -", MR_QUERY, 7, 0, {0}},
        {"command@0 AbCd", MR_COMMAND, 0, 2, {0xab, 0xcd}},
        {"command@4294967295 -", MR_COMMAND, UINT32_MAX, 0, {0}},
        {"  \tquery@3 \t 00 \r", MR_QUERY, 3, 1, {0}},
        /* The message's own partition. */
        {"command 0802", MR_COMMAND, 2, 2, {0x08, 0x02}},
        {"query 1800080508a001", MR_QUERY, 160, 7, {0x18, 0x00, 0x08, 0x05, 0x08, 0xa0, 0x01}},
        /* It says none, or is no message. */
        {"query -", MR_QUERY, 1, 0, {0}},
        {"command 0800", MR_COMMAND, 1, 2, {0x08, 0x00}},
        {"command 0802ff", MR_COMMAND, 1, 3, {0x08, 0x02, 0xff}},
        {"command 0a0102", MR_COMMAND, 1, 3, {0x0a, 0x01, 0x02}},
    };
    struct raw_line line;
    struct mr_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (parse(lines[i].text, &line, &error) != RAW_LINE_ASKS)
            fail_msg("%s: %s", lines[i].text, error.text);
        assert_int_equal(line.kind, lines[i].kind);
        assert_int_equal(line.partition, lines[i].partition);
        assert_int_equal(line.size, lines[i].size);
        assert_memory_equal(line.body, lines[i].body, line.size);
    }
}

static void test_lines_that_ask_nothing(void **state)
{
    static const char *const lines[] = {"", "   ", "\t\r", "#", "# command -", "  #x", "#command@1 00"};
    struct raw_line line;
    struct mr_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        assert_int_equal(parse(lines[i], &line, &error), RAW_LINE_EMPTY);
}

static void test_malformed_lines_say_why(void **state)
{
    static const struct {
        const char *text, *why;
    } lines[] = {
        {"commander 00", "neither 'command' nor 'query'"},
        {"Command 00", "neither 'command' nor 'query'"},
        {"@1 00", "neither 'command' nor 'query'"},
        {"00", "neither 'command' nor 'query'"},
        {"command", "missing"},
        {"query@1", "missing"},
        {"command@ 00", "partition"},
        {"command@x 00", "partition"},
        {"command@-1 00", "partition"},
        {"command@1x 00", "partition"},
        {"command@1@2 00", "partition"},
        {"command@4294967296 00", "partition"},
        {"command@99999999999999999999999 00", "partition"},
        {"command 0", "two"},
        {"command 001", "two"},
        {"command 0g", "hexadecimal"},
        {"command 0x00", "hexadecimal"},
        {"command --", "hexadecimal"},
        {"command 00 11", "behind"},
        {"query - -", "behind"},
    };
    struct raw_line line;
    struct mr_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (parse(lines[i].text, &line, &error) != RAW_LINE_MALFORMED)
            fail_msg("%s", lines[i].text);
        if (strstr(error.text, lines[i].why) == NULL)
            fail_msg("%s: %s", lines[i].text, error.text);
    }
}

static void test_what_is_printed(void **state)
{
    struct mr_result frame = {.status = MR_OK, .as.raw = {.data = "\x00\xab\xff", .size = 3}};
    char *written;
    size_t size;
    FILE *to = open_memstream(&written, &size);

    (void)state;
    assert_non_null(to);
    raw_line_print_frame(to, 1, &frame);
    frame.as.raw.size = 0;
    raw_line_print_frame(to, 2, &frame);
    frame.status = MR_INVALID;
    frame.message = mr_text("a\nb\\c\xc3\xa9");
    raw_line_print_frame(to, 18446744073709551615u, &frame);
    frame.message.size = 0;
    raw_line_print_frame(to, 4, &frame);
    raw_line_print_refusal(to, 5, MR_UNAVAILABLE, "no\nroom");
    raw_line_print_refusal(to, 5, MR_UNAVAILABLE, "");
    raw_line_print_end(to, 5);
    assert_int_equal(fclose(to), 0);
    assert_string_equal(written, "1 OK 00abff\n"
                                 "2 OK -\n"
                                 "18446744073709551615 INVALID - a\\nb\\\\c\xc3\xa9\n"
                                 "4 INVALID -\n"
                                 "5 UNAVAILABLE - no\\nroom\n"
                                 "5 UNAVAILABLE -\n"
                                 "5 end\n");
    free(written);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_lines_that_ask_nothing),
        cmocka_unit_test(test_malformed_lines_say_why),
        cmocka_unit_test(test_what_is_printed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
