/* SPDX-License-Identifier: Apache-2.0 */
/* Texts of errors: one line, never cut without a sign, the meaning of an errno always there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "ipc/error.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"

static void formats(void **state)
{
    struct mr_error error = {.code = 5};

    (void)state;
    assert_int_equal(error_set(&error, "partition %d: %s", 3, "bad"), -1);
    assert_int_equal(error.code, 0);
    assert_string_equal(error.text, "partition 3: bad");
    assert_int_equal(error_system(&error, ENOSPC, "cannot write %s", "x.segment"), -1);
    assert_int_equal(error.code, ENOSPC);
    assert_string_equal(error.text, "cannot write x.segment: No space left on device");
    assert_int_equal(error_system(&error, 4000, "odd"), -1);
    assert_string_equal(error.text, "odd: error 4000");
}

static void nobody_wants_to_know(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, "%d", 1), -1);
    assert_int_equal(error_system(NULL, EIO, "%d", 1), -1);
}

static void long_texts_are_cut_with_a_sign(void **state)
{
    struct mr_error error;
    char path[1000];

    (void)state;
    memset(path, 'p', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    error_set(&error, "%s", path);
    assert_int_equal(strlen(error.text), sizeof(error.text) - 1);
    assert_string_equal(error.text + strlen(error.text) - 4, "p...");
    error_system(&error, ENOSPC, "%s", path);
    assert_int_equal(strlen(error.text), sizeof(error.text) - 1);
    assert_non_null(strstr(error.text, "p...: No space left on device"));

    /* What just fits is not cut. */
    path[sizeof(error.text) - 1] = '\0';
    error_set(&error, "%s", path);
    assert_string_equal(error.text, path);
}

static void stays_on_one_line(void **state)
{
    struct mr_error error;

    (void)state;
    error_set(&error, "file %s", "a\nb\033[2J\x7f\tc");
    assert_string_equal(error.text, "file a?b?[2J??c");
    error_set(&error, "%s", "a\xc2\x9b\x32J\xc2\x85\xc2\xa0\xc2"); /* the last one is cut */
    assert_string_equal(error.text, "a??2J??\xc2\xa0\xc2");
    error_set(&error, "%s",
              "Gr\xc3\xbc\xc3\x9f"
              "e");
    assert_string_equal(error.text, "Gr\xc3\xbc\xc3\x9f"
                                    "e");
}

static int assert_wrongly(void *unused)
{
    (void)unused;
    signal(SIGABRT, SIG_DFL);
    mr_assert(1 + 1 == 2);
    mr_assert(1 + 1 == 3);
    return 0;
}

static void a_failed_assertion_aborts(void **state)
{
    (void)state;
    assert_int_equal(fork_wait(fork_run(assert_wrongly, NULL), WAIT_MS), 128 + SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats),
        cmocka_unit_test(nobody_wants_to_know),
        cmocka_unit_test(long_texts_are_cut_with_a_sign),
        cmocka_unit_test(stays_on_one_line),
        cmocka_unit_test(a_failed_assertion_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
