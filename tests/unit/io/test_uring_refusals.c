/* SPDX-License-Identifier: Apache-2.0 */
/* The node's io where the kernel refuses it something: what it says, and that nothing is left behind. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/sys.h"
#include "tests/support/failing_memory.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"
#include "tests/unit/io/completion.h"
#include "tests/unit/io/fixture.h"

/* What is locked counts for all processes of a user, so it is tried as one who has no others; if there is such a one: a
 * root of some container has few, and is held to the limit himself. */
static int register_too_much(void *argument)
{
    struct mr_error error;
    struct rlimit limit = {.rlim_cur = 786432, .rlim_max = 786432};
    uid_t user = (uid_t)(1000000 + getpid());
    (void)argument;
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return 1;
    if (getuid() == 0 && setresuid(user, user, user) != 0 && errno != EINVAL)
        return 1;
    struct io *io = uring_create(ENTRIES, &error);
    size_t size = 1 << 20;
    void *memory = io_memory(size, &error);
    if (!io || !memory)
        return 2;
    if (io->ops->register_buffers(io, memory, size, &error) != -1 || error.code != ENOMEM ||
        !strstr(error.text, "RLIMIT_MEMLOCK") || !strstr(error.text, "786432"))
        return 3;
    /* It works without. */
    int ends[2];
    if (pipe(ends) != 0)
        return 4;
    io->ops->write(io, ends[1], memory, 10, 0, false, 1);
    return next(io).result == 10 ? 0 : 5;
}

static void buffers_over_the_limit_are_refused(void **state)
{
    (void)state;
    assert_int_equal(fork_wait(fork_run(register_too_much, NULL), WAIT_MS), 0);
}

static void refusals_say_what_to_change(void **state)
{
    (void)state;
    static const struct {
        enum sys_call call;
        int code;
        const char *text;
    } cases[] = {
        {SYS_IO_URING_SETUP, EPERM, "io_uring_setup"},
        {SYS_IO_URING_SETUP, ENOSYS, "seccomp"},
        {SYS_IO_URING_SETUP, EINVAL, "Linux 6.1"},
        {SYS_IO_URING_SETUP, EMFILE, "ulimit -n"},
        {SYS_IO_URING_SETUP, ENOMEM, "RLIMIT_MEMLOCK"},
        {SYS_IO_URING_REGISTER, EPERM, "io_uring_register"},
        {SYS_IO_URING_REGISTER, ENOMEM, "Cannot allocate memory"},
    };
    unsigned before = open_descriptors();
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        struct mr_error error = {0};
        sys_fault_arm(cases[n].call, 1, cases[n].code, false);
        assert_null(uring_create(ENTRIES, &error));
        assert_non_null(strstr(error.text, cases[n].text));
        assert_int_equal(error.code, cases[n].code);
    }
    assert_int_equal(open_descriptors(), before);
}

static int start_without_memory(void *argument)
{
    struct io *io = argument;
    memory_fails_in = 1; /* for the table of operations, which is made with the first */
    io->ops->sync(io, STDIN_FILENO, 1);
    return 0;
}

/* An end by a signal would be held against what the process was at. */
static void without_memory_the_process_ends_in_order(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fork_wait(fork_run(start_without_memory, f->io), WAIT_MS), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_over_the_limit_are_refused),
        cmocka_unit_test(refusals_say_what_to_change),
        cmocka_unit_test_setup_teardown(without_memory_the_process_ends_in_order, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
