/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between supervisor and worker, with and without descriptors, and what is refused. And log lines. */
#include "engine/node/control.h"
#include "engine/node/logline.h"

#include "tests/support/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static int pair[2];
static struct control_message message;
static struct mr_error error;
static int fds[CONTROL_FDS];
static unsigned fd_count;

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    return 0;
}

static int receive(void)
{
    return control_receive(pair[1], &message, fds, &fd_count, &error);
}

static void test_a_message_arrives_as_it_was_sent(void **state)
{
    (void)state;
    struct control_message sent = {
        .kind = CONTROL_CLOSED, .slot = 7, .channel_id = UINT64_MAX, .ring_bytes = 65536, .text = "why"};

    assert_int_equal(receive(), 1); /* nothing there */
    assert_int_equal(control_send(pair[0], &sent, NULL, 0, &error), 0);
    assert_int_equal(receive(), 0);
    assert_memory_equal(&message, &sent, sizeof(sent));
    assert_int_equal(fd_count, 0);
    assert_int_equal(receive(), 1);
}

static void test_descriptors_come_along(void **state)
{
    (void)state;
    struct control_message sent = {.kind = CONTROL_ADD};
    int pipes[4];
    char byte;

    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    assert_int_equal(pipe2(pipes + 2, O_CLOEXEC), 0);
    assert_int_equal(control_send(pair[0], &sent, pipes, 3, &error), 0);
    assert_int_equal(receive(), 0);
    assert_int_equal(fd_count, 3);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    assert_true((fcntl(fds[2], F_GETFD) & FD_CLOEXEC) != 0);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    for (int i = 0; i < 4; i++)
        close(pipes[i]);
}

static void test_no_room_and_nobody_there(void **state)
{
    (void)state;
    struct control_message sent = {.kind = CONTROL_READY};
    int result, count = 0;

    while ((result = control_send(pair[0], &sent, NULL, 0, &error)) == 0)
        count++;
    assert_int_equal(result, 1);
    for (; count > 0; count--)
        assert_int_equal(receive(), 0);
    close(pair[0]);
    pair[0] = -1;
    assert_int_equal(receive(), CONTROL_GONE);
    assert_int_equal(control_send(pair[1], &sent, NULL, 0, &error), CONTROL_GONE);
}

static void test_what_is_not_a_message_is_refused(void **state)
{
    (void)state;
    struct {
        struct control_message message;
        char more;
    } longer = {.message = {.kind = CONTROL_READY}};
    struct control_message wrong = {.kind = CONTROL_READY};

    assert_int_equal(send(pair[0], &longer, sizeof(longer), 0), sizeof(longer));
    assert_int_equal(receive(), -1);
    assert_int_equal(send(pair[0], &wrong, sizeof(wrong) - 1, 0), sizeof(wrong) - 1);
    assert_int_equal(receive(), -1);
    wrong.kind = CONTROL_WANT_SEGMENT + 1;
    assert_int_equal(control_send(pair[0], &wrong, NULL, 0, &error), 0);
    assert_int_equal(receive(), -1);
    wrong.kind = 0;
    assert_int_equal(control_send(pair[0], &wrong, NULL, 0, &error), 0);
    assert_int_equal(receive(), -1);
    wrong.kind = CONTROL_CLOSED;
    memset(wrong.text, 'x', sizeof(wrong.text));
    assert_int_equal(control_send(pair[0], &wrong, NULL, 0, &error), 0);
    assert_int_equal(receive(), -1);
    assert_non_null(strstr(error.text, "text"));
}

static void test_descriptors_of_refused_messages_are_closed(void **state)
{
    (void)state;
    struct control_message wrong = {.kind = 77};
    unsigned descriptors = open_descriptors();

    assert_int_equal(control_send(pair[0], &wrong, pair, 2, &error), 0);
    assert_int_equal(receive(), -1);
    assert_int_equal(fd_count, 0);
    assert_int_equal(open_descriptors(), descriptors);
}

/* An answer whose descriptor cannot be opened comes without it; any other message is refused. */
static void test_an_answer_comes_without_its_descriptor(void **state)
{
    (void)state;
    struct rlimit former, none = {.rlim_cur = 0};
    struct control_message sent = {.kind = CONTROL_ANSWER, .question = 9, .size = 3}, other = {.kind = CONTROL_ADD};

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &former), 0);
    none.rlim_max = former.rlim_max;
    assert_int_equal(control_send(pair[0], &sent, pair, 1, &error), 0);
    assert_int_equal(control_send(pair[0], &other, pair, 1, &error), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int first = receive();
    unsigned count = fd_count;
    struct control_message came = message;
    int second = receive();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &former), 0);
    assert_int_equal(first, 0);
    assert_int_equal(count, 0);
    assert_memory_equal(&came, &sent, sizeof(sent));
    assert_int_equal(second, -1);
}

/* What logline() writes, with standard error turned into a file. */
static char *logged(enum logline_level level, uint32_t partition, const char *text)
{
    char path[] = "/tmp/millrace-logline-XXXXXX";
    int fd = mkstemp(path), saved = dup(STDERR_FILENO);
    size_t size;

    assert_true(fd >= 0 && saved >= 0);
    fflush(stderr);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    logline(level, partition, "%s", text);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(fd);
    char *line = read_file(path, &size);
    unlink(path);
    assert_non_null(line);
    return line;
}

static void expect_line(enum logline_level level, uint32_t partition, const char *text, const char *pattern)
{
    char *line = logged(level, partition, text);
    regex_t regex;

    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&regex, line, 0, NULL, 0) != 0)
        fail_msg("\"%s\" does not look like %s", line, pattern);
    regfree(&regex);
    free(line);
}

#define TIME "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "

static void test_log_lines(void **state)
{
    (void)state;
    char text[3000];

    expect_line(LOGLINE_INFO, 2, "hello", TIME "info  partition 2: hello\n$");
    expect_line(LOGLINE_WARNING, 0, "hello", TIME "warn  node: hello\n$");
    expect_line(LOGLINE_ERROR, 0, "two\nlines\033[31m", TIME "error node: two.lines.\\[31m\n$");
    expect_line(LOGLINE_ERROR, 0, "a\xc2\x9b\x32J", TIME "error node: a\\?\\?2J\n$");
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    expect_line(LOGLINE_INFO, 0, text, TIME "info  node: x{900,1000}\n$");
    char *line = logged(LOGLINE_INFO, 0, text);
    assert_true(strlen(line) <= 1024);
    assert_int_equal(line[strlen(line) - 1], '\n');
    free(line);
}

/* Standard error is a pipe that is full: whoever has something to say goes on. */
static void test_a_log_that_nobody_reads(void **state)
{
    (void)state;
    char text[4096];
    int ends[2], saved = dup(STDERR_FILENO);

    assert_true(saved >= 0);
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    memset(text, 'x', sizeof(text));
    while (write(ends[1], text, sizeof(text)) > 0)
        ;
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
    fflush(stderr);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    alarm(60); /* ends the test if it waits */
    logline(LOGLINE_INFO, 0, "first");
    logline(LOGLINE_INFO, 0, "second");
    while (read(ends[0], text, sizeof(text)) > 0)
        ;
    logline(LOGLINE_INFO, 0, "third");
    logline(LOGLINE_INFO, 0, "fourth");
    alarm(0);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    ssize_t size = read(ends[0], text, sizeof(text) - 1);
    close(saved);
    close(ends[0]);
    close(ends[1]);
    assert_true(size > 0);
    text[size] = '\0';
    assert_null(strstr(text, "first"));
    assert_null(strstr(text, "second"));
    const char *lost = strstr(text, "are lost"), *third = strstr(text, "third\n"), *fourth = strstr(text, "fourth\n");
    assert_true(lost != NULL && third != NULL && fourth != NULL);
    assert_true(lost < third && third < fourth);
    assert_null(strstr(third, "are lost"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_message_arrives_as_it_was_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_descriptors_come_along, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_room_and_nobody_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_a_message_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_descriptors_of_refused_messages_are_closed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_answer_comes_without_its_descriptor, set_up, tear_down),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_a_log_that_nobody_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
