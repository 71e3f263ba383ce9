/* SPDX-License-Identifier: Apache-2.0 */
/* Lines from a descriptor, in whatever pieces they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/cli/raw_input.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1000000

struct fixture {
    struct raw_input input;
    int pipe[2];
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    if (fixture == NULL || pipe(fixture->pipe) != 0)
        return -1;
    fixture->input.fd = fixture->pipe[0];
    fixture->input.line_max = LINE_MAX_BYTES;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    raw_input_free(&fixture->input);
    close(fixture->pipe[0]);
    if (fixture->pipe[1] >= 0)
        close(fixture->pipe[1]);
    free(fixture);
    return 0;
}

static void give(struct fixture *fixture, const char *text)
{
    struct mr_error error;

    if (text == NULL) {
        close(fixture->pipe[1]);
        fixture->pipe[1] = -1;
    } else {
        assert_int_equal(write(fixture->pipe[1], text, strlen(text)), (ssize_t)strlen(text));
    }
    assert_int_equal(raw_input_read(&fixture->input, &error), 0);
}

static void expect_line(struct fixture *fixture, const char *text)
{
    char *line;
    size_t size;

    assert_int_equal(raw_input_line(&fixture->input, &line, &size), RAW_INPUT_LINE);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(line, text, size);
    memset(line, 'x', size); /* the caller may */
}

static void expect_none(struct fixture *fixture)
{
    char *line;
    size_t size;

    assert_int_equal(raw_input_line(&fixture->input, &line, &size), RAW_INPUT_NONE);
}

static void test_lines_in_pieces(void **state)
{
    struct fixture *fixture = *state;

    expect_none(fixture);
    give(fixture, "one\n\ntw");
    expect_line(fixture, "one");
    expect_line(fixture, "");
    expect_none(fixture);
    give(fixture, "o");
    expect_none(fixture);
    give(fixture, "\nthree\nfour");
    expect_line(fixture, "two");
    expect_line(fixture, "three");
    expect_none(fixture);
    assert_false(fixture->input.ended);
    give(fixture, NULL);
    assert_true(fixture->input.ended);
    expect_line(fixture, "four");
    expect_none(fixture);
    expect_none(fixture);
}

static void test_an_end_behind_a_newline(void **state)
{
    struct fixture *fixture = *state;

    give(fixture, "one\n");
    give(fixture, NULL);
    expect_line(fixture, "one");
    expect_none(fixture);
}

static void test_no_input_at_all(void **state)
{
    struct fixture *fixture = *state;

    give(fixture, NULL);
    expect_none(fixture);
}

static void test_a_line_longer_than_a_read(void **state)
{
    struct fixture *fixture = *state;
    const size_t size = 300000;
    char *line, *text = malloc(size);
    size_t found;
    struct mr_error error;
    int file = memfd_create("input", 0);

    assert_non_null(text);
    for (size_t i = 0; i < size; i++)
        text[i] = (char)('a' + i % 26);
    text[size - 3] = '\n';
    assert_int_equal(write(file, text, size), (ssize_t)size);
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    fixture->input.fd = file;
    while (raw_input_line(&fixture->input, &line, &found) == RAW_INPUT_NONE)
        assert_int_equal(raw_input_read(&fixture->input, &error), 0);
    assert_int_equal(found, size - 3);
    assert_memory_equal(line, text, found);
    while (!fixture->input.ended)
        assert_int_equal(raw_input_read(&fixture->input, &error), 0);
    char rest[3] = {text[size - 2], text[size - 1], '\0'};
    expect_line(fixture, rest);
    expect_none(fixture);
    close(file);
    free(text);
}

static void test_a_line_too_long_is_passed_over(void **state)
{
    struct fixture *fixture = *state;
    struct mr_error error;
    char *line;
    size_t size;
    int file = memfd_create("input", 0);

    /* Zeros, of which none is a newline, and two lines behind them; a file with a hole costs nothing. */
    assert_int_equal(ftruncate(file, (off_t)LINE_MAX_BYTES + 1), 0);
    assert_int_equal(lseek(file, 0, SEEK_END), (off_t)LINE_MAX_BYTES + 1);
    assert_int_equal(write(file, "\nnext\n", 6), 6);
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    fixture->input.fd = file;
    enum raw_input_result result;
    while ((result = raw_input_line(&fixture->input, &line, &size)) == RAW_INPUT_NONE)
        assert_int_equal(raw_input_read(&fixture->input, &error), 0);
    assert_int_equal(result, RAW_INPUT_TOO_LONG);
    expect_line(fixture, "next");
    close(file);
}

static void test_a_descriptor_that_cannot_be_read(void **state)
{
    struct fixture *fixture = *state;
    struct mr_error error;

    fixture->input.fd = -1;
    assert_int_equal(raw_input_read(&fixture->input, &error), -1);
    assert_non_null(strstr(error.text, "standard input"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines_in_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_end_behind_a_newline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_input_at_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_line_longer_than_a_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_line_too_long_is_passed_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_descriptor_that_cannot_be_read, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
