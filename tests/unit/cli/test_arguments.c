/* SPDX-License-Identifier: Apache-2.0 */
/* The command line, taken apart: options in any place, negative numbers, "--", durations, what is refused and how. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/cli/arguments.h"
#include "engine/cli/cli.h"

#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 16

struct line {
    char *words[WORDS_MAX];
    int count;
    char text[512]; /* what the words point into */
};

/* Splits at blanks; the first word is the subcommand's. */
static void split(struct line *line, const char *text)
{
    assert_true(strlen(text) < sizeof(line->text));
    strcpy(line->text, text);
    line->count = 0;
    for (char *word = strtok(line->text, " "); word != NULL; word = strtok(NULL, " ")) {
        assert_true(line->count < WORDS_MAX - 1);
        line->words[line->count++] = word;
    }
    line->words[line->count] = NULL;
}

/* Parses; gives the operands with a '|' behind each. */
static const char *operands(const char *text, struct arguments *arguments)
{
    static char joined[512];
    static struct line line;
    struct mr_error error;

    split(&line, text);
    if (arguments_parse(line.count, line.words, arguments, &error) != 0)
        fail_msg("%s: %s", text, error.text);
    joined[0] = '\0';
    for (int i = 0; i < arguments->operand_count; i++) {
        strcat(joined, arguments->operands[i]);
        strcat(joined, "|");
    }
    return joined;
}

/* What parsing is refused with. */
static const char *refusal(const char *text)
{
    static struct mr_error error;
    struct arguments arguments;
    struct line line;

    split(&line, text);
    assert_int_equal(arguments_parse(line.count, line.words, &arguments, &error), -1);
    return error.text;
}

static void test_options_stand_anywhere(void **state)
{
    static const char *const lines[] = {
        "map --socket /s --namespace ns put m k v --ttl 5s --json",
        "map put --ttl=5s m --socket=/s k --json v --namespace=ns",
        "map put m k v --json --namespace ns --ttl 5s --socket /s",
        "map --json put --socket /s m --namespace ns k --ttl 5s -- v",
    };
    struct arguments arguments;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        assert_string_equal(operands(lines[i], &arguments), "put|m|k|v|");
        assert_int_equal(arguments.given, OPTION_SOCKET | OPTION_NAMESPACE | OPTION_TTL | OPTION_JSON);
        assert_string_equal(arguments.socket, "/s");
        assert_string_equal(arguments.name_space, "ns");
        assert_int_equal(arguments.ttl, INT64_C(5000000000));
    }
}

static void test_negative_numbers_are_operands(void **state)
{
    struct arguments arguments;

    (void)state;
    assert_string_equal(operands("counter increment x -5", &arguments), "increment|x|-5|");
    assert_string_equal(operands("counter -5 -77 --json -123", &arguments), "-5|-77|-123|");
    assert_int_equal(arguments.given, OPTION_JSON);
    assert_string_equal(operands("counter set x -9223372036854775808 --socket /s", &arguments),
                        "set|x|-9223372036854775808|");
    assert_string_equal(arguments.socket, "/s");
    assert_string_equal(operands("counter -- set -5 --json", &arguments), "set|-5|--json|");
    assert_int_equal(arguments.given, 0);
    assert_string_equal(operands("map put m -1k -", &arguments), "put|m|-1k|-|");
    assert_string_equal(operands("counter", &arguments), "");
    assert_string_equal(operands("counter --", &arguments), "");
    assert_string_equal(operands("counter -h -5", &arguments), "-5|");
    assert_int_equal(arguments.given, OPTION_HELP);
}

static void test_an_option_takes_any_value(void **state)
{
    struct arguments arguments;

    (void)state;
    assert_string_equal(operands("counter --namespace -5 get x", &arguments), "get|x|");
    assert_string_equal(arguments.name_space, "-5");
    assert_string_equal(operands("counter --namespace --socket get x", &arguments), "get|x|");
    assert_string_equal(arguments.name_space, "--socket");
    assert_null(arguments.socket);
}

static void test_durations(void **state)
{
    static const struct {
        const char *text;
        int64_t nanoseconds;
    } durations[] = {
        {"1ns", 1},
        {"7us", 7000},
        {"250ms", 250000000},
        {"5s", INT64_C(5000000000)},
        {"3m", INT64_C(180000000000)},
        {"24h", INT64_C(86400000000000)},
        {"0", 0},
        {"0s", 0},
        {"9223372036854775807ns", INT64_MAX},
    };
    struct arguments arguments;
    char line[64];

    (void)state;
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
        snprintf(line, sizeof(line), "status --wait %s", durations[i].text);
        operands(line, &arguments);
        assert_int_equal(arguments.wait, durations[i].nanoseconds);
        snprintf(line, sizeof(line), "raw --timeout %s", durations[i].text);
        operands(line, &arguments);
        assert_int_equal(arguments.timeout, durations[i].nanoseconds);
    }
}

static void test_wrong_values_name_the_option(void **state)
{
    static const char *const durations[] = {"5",  "s",   "5x", "-5s",     "1.5s",
                                            "5S", "5 s", "",   "300000h", "9223372036854775808ns"};
    static const char *const indexes[] = {"0", "-1", "x", "1x", "18446744073709551616"};
    struct arguments arguments;
    struct mr_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
        char value[40];
        snprintf(value, sizeof(value), "%s", durations[i]);
        char *words[] = {(char[]){"status"}, (char[]){"--wait"}, value, NULL};
        if (strcmp(value, "300000h") == 0)
            continue; /* fits: tried below with more */
        assert_int_equal(arguments_parse(3, words, &arguments, &error), -1);
        assert_non_null(strstr(error.text, "--wait"));
        assert_non_null(strstr(error.text, "ns, us, ms, s, m or h"));
    }
    assert_non_null(strstr(refusal("status --wait 3000000h"), "--wait"));
    assert_non_null(strstr(refusal("map put m k v --ttl 0"), "over zero"));
    for (const char *const *text = (const char *const[]){"0", "65", "-1", "x", "4294967297", NULL}; *text != NULL;
         text++) {
        char line[64];
        snprintf(line, sizeof(line), "session list --partition=%s", *text);
        assert_non_null(strstr(refusal(line), "1 to 64"));
    }
    assert_non_null(strstr(refusal("map put m k v --ttl 0s"), "over zero"));
    for (size_t i = 0; i < sizeof(indexes) / sizeof(indexes[0]); i++) {
        char line[64];
        snprintf(line, sizeof(line), "map remove m k --index %s", indexes[i]);
        assert_non_null(strstr(refusal(line), "--index"));
    }
    operands("map remove m k --index 18446744073709551615", &arguments);
    assert_true(arguments.index == UINT64_MAX);
}

static void test_unknown_options_are_named(void **state)
{
    (void)state;
    assert_non_null(strstr(refusal("counter get x --nonsense"), "--nonsense"));
    assert_non_null(strstr(refusal("counter get x -v"), "-v"));
    assert_non_null(strstr(refusal("map put m k --value"), "--value"));
    assert_non_null(strstr(refusal("counter get x --json=yes"), "--json"));
    assert_non_null(strstr(refusal("counter get x --socket"), "--socket needs a value"));
}

static void test_only_what_a_command_takes(void **state)
{
    struct arguments arguments;
    struct mr_error error;

    (void)state;
    operands("map get m k --ttl 5s --json", &arguments);
    assert_int_equal(arguments_only(&arguments, OPTION_JSON, "map get", &error), -1);
    assert_string_equal(error.text, "map get takes no --ttl");
    assert_int_equal(arguments_only(&arguments, OPTION_JSON | OPTION_TTL, "map get", &error), 0);
    operands("map get m k --socket /s --namespace n --help", &arguments);
    assert_int_equal(arguments_only(&arguments, 0, "map get", &error), 0);
}

static void test_the_first_word(void **state)
{
    static const struct {
        const char *text;
        int word, behind;
        unsigned given;
    } lines[] = {
        {"millrace counter get x", 1, 1, 0},
        {"millrace --socket /s counter get x", 3, 3, OPTION_SOCKET},
        {"millrace --socket=/s --namespace counter map get x", 4, 4, OPTION_SOCKET | OPTION_NAMESPACE},
        {"millrace --socket /s -- counter get x", 4, 3, OPTION_SOCKET},
        {"millrace --version", 2, 2, OPTION_VERSION},
        {"millrace -h", 2, 2, OPTION_HELP},
        {"millrace", 1, 1, 0},
        {"millrace serve --dir d --partitions 2", 1, 1, 0},
    };
    struct mr_error error;
    struct line line;
    unsigned given;
    int behind;

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        split(&line, lines[i].text);
        assert_int_equal(arguments_first_word(line.count, line.words, &behind, &given, &error), lines[i].word);
        assert_int_equal(behind, lines[i].behind);
        assert_int_equal(given, lines[i].given);
    }
    split(&line, "millrace --what counter");
    assert_int_equal(arguments_first_word(line.count, line.words, &behind, &given, &error), -1);
    assert_non_null(strstr(error.text, "--what"));
    split(&line, "millrace --socket");
    assert_int_equal(arguments_first_word(line.count, line.words, &behind, &given, &error), -1);
}

static void test_numbers(void **state)
{
    static const char *const wrong[] = {
        "", "-", "+", "x", "5x", " 5", "- 5", "0x10", "1e3", "9223372036854775808", "-9223372036854775809"};
    struct mr_error error;
    int64_t number = 7;

    (void)state;
    assert_int_equal(arguments_number("-9223372036854775808", "DELTA", &number, &error), 0);
    assert_true(number == INT64_MIN);
    assert_int_equal(arguments_number("9223372036854775807", "DELTA", &number, &error), 0);
    assert_true(number == INT64_MAX);
    assert_int_equal(arguments_number("+007", "DELTA", &number, &error), 0);
    assert_true(number == 7);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(arguments_number(wrong[i], "DELTA", &number, &error), -1);
        assert_non_null(strstr(error.text, "DELTA"));
        assert_non_null(strstr(error.text, "-9223372036854775808"));
    }
    assert_true(number == 7);
}

static void test_the_names_of_operands(void **state)
{
    const struct operation operation = {.operands = "NAME [DELTA] COMPARE"};
    char text[32];

    (void)state;
    assert_string_equal(operation_operand(&operation, 0, text), "NAME");
    assert_string_equal(operation_operand(&operation, 1, text), "DELTA");
    assert_string_equal(operation_operand(&operation, 2, text), "COMPARE");
    assert_string_equal(operation_operand(&operation, 3, text), "");
}

static void test_the_socket(void **state)
{
    char path[110];
    struct arguments arguments;
    struct mr_error error;
    const char *socket;

    (void)state;
    unsetenv("MILLRACE_SOCKET");
    operands("counter get x", &arguments);
    assert_int_equal(cli_socket(&arguments, &socket, &error), -1);
    assert_non_null(strstr(error.text, "--socket"));
    assert_non_null(strstr(error.text, "MILLRACE_SOCKET"));
    setenv("MILLRACE_SOCKET", "/from/environment", 1);
    assert_int_equal(cli_socket(&arguments, &socket, &error), 0);
    assert_string_equal(socket, "/from/environment");
    operands("counter get x --socket /given", &arguments);
    assert_int_equal(cli_socket(&arguments, &socket, &error), 0);
    assert_string_equal(socket, "/given");
    arguments.socket = "";
    assert_int_equal(cli_socket(&arguments, &socket, &error), -1);
    memset(path, 'p', sizeof(path));
    path[107] = '\0';
    arguments.socket = path;
    assert_int_equal(cli_socket(&arguments, &socket, &error), 0);
    path[107] = 'p';
    path[108] = '\0';
    assert_int_equal(cli_socket(&arguments, &socket, &error), -1);
    assert_non_null(strstr(error.text, "107"));
    setenv("MILLRACE_SOCKET", "", 1);
    operands("counter get x", &arguments);
    assert_int_equal(cli_socket(&arguments, &socket, &error), -1);
    unsetenv("MILLRACE_SOCKET");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_stand_anywhere),
        cmocka_unit_test(test_negative_numbers_are_operands),
        cmocka_unit_test(test_an_option_takes_any_value),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_wrong_values_name_the_option),
        cmocka_unit_test(test_unknown_options_are_named),
        cmocka_unit_test(test_only_what_a_command_takes),
        cmocka_unit_test(test_the_first_word),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_the_names_of_operands),
        cmocka_unit_test(test_the_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
