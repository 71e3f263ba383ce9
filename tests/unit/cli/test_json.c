/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON that the command prints: escaping, base64, durations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/cli/json.h"

#include <stdlib.h>
#include <string.h>

static FILE *stream;
static char *written;
static size_t written_size;

static FILE *begin(void)
{
    stream = open_memstream(&written, &written_size);
    assert_non_null(stream);
    return stream;
}

static void expect(const char *text)
{
    assert_int_equal(fclose(stream), 0);
    assert_string_equal(written, text);
    free(written);
}

static void expect_json_string(const char *bytes, size_t size, const char *text)
{
    json_string(begin(), bytes, size);
    expect(text);
}

static void test_strings(void **state)
{
    (void)state;
    expect_json_string("", 0, "\"\"");
    expect_json_string(NULL, 0, "\"\"");
    expect_json_string("plain", 5, "\"plain\"");
    expect_json_string("a\"b\\c/d", 7, "\"a\\\"b\\\\c/d\"");
    expect_json_string("\n\t\r\0\x1f\x7f", 6, "\"\\n\\t\\u000d\\u0000\\u001f\\u007f\"");
    expect_json_string("\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e", 9, "\"\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\"");
    /* U+0080 to U+009F are control characters to a terminal, U+009B the beginning of a command. */
    expect_json_string("\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0", 8, "\"\\u0080\\u009b\\u009f\xc2\xa0\"");
    expect_json_string("a\xff\xc3z", 4, "\"a\\ufffd\\ufffdz\"");
    expect_json_string("\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\"");
}

static void test_base64(void **state)
{
    static const char *const vectors[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
                                          "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"}; /* RFC 4648, section 10 */
    char text[32];

    (void)state;
    for (size_t size = 0; size <= 6; size++) {
        snprintf(text, sizeof(text), "\"%s\"", vectors[size]);
        json_base64(begin(), "foobar", size);
        expect(text);
    }
    json_base64(begin(), "\xff\xef\xbe\xfb", 4);
    expect("\"/++++w==\"");
}

static void test_members(void **state)
{
    bool first = true;

    (void)state;
    begin();
    json_member_string(stream, &first, "s", "x", 1);
    json_member_number(stream, &first, "n", UINT64_MAX);
    json_member_signed(stream, &first, "i", INT64_MIN);
    json_member_bytes(stream, &first, "t", "\xc3\xa9", 2);
    json_member_bytes(stream, &first, "b", "\xc3", 1);
    assert_false(first);
    expect("\"s\": \"x\", \"n\": 18446744073709551615, \"i\": -9223372036854775808, \"t\": \"\xc3\xa9\", "
           "\"b_base64\": \"ww==\"");
}

static void test_durations(void **state)
{
    static const struct {
        int64_t nanoseconds;
        const char *text;
    } durations[] = {
        {INT64_C(5000000000), "\"d\": \"5s\""},
        {INT64_C(4500000000), "\"d\": \"4.5s\""},
        {1, "\"d\": \"0.000000001s\""},
        {INT64_C(1000000100), "\"d\": \"1.0000001s\""},
        {INT64_C(10020000000), "\"d\": \"10.02s\""},
        {INT64_MAX, "\"d\": \"9223372036.854775807s\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
        bool first = true;
        json_member_duration(begin(), &first, "d", durations[i].nanoseconds);
        expect(durations[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_durations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
