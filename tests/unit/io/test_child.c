/* SPDX-License-Identifier: Apache-2.0 */
/* The node's child processes: a job's result and memory, what the child lets go of and keeps, its end and its parent's,
 * and what is left when a system call is refused. Jobs run in real forks: they tell by their results, and hold a pipe
 * whose end of file tells that they are gone. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/io/uring.h"
#include "ipc/sys.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"
#include "tests/unit/io/completion.h"

enum { ENTRIES = 8, TOKEN = 77 };

struct fixture {
    char *path;
    struct io *io;
    int directory;
    int to_child[2]; /* a byte lets a waiting job go on */
    int to_test[2];  /* end of file: nobody is left */
    int value;
    unsigned descriptors; /* open before the test */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct mr_error error;
    f->path = temp_dir_make();
    f->io = uring_create(ENTRIES, &error);
    if (!f->io)
        fail_msg("%s", error.text);
    f->directory = f->io->ops->open_directory(f->io, f->path);
    assert_true(f->directory >= 0);
    assert_int_equal(pipe(f->to_child), 0);
    assert_int_equal(pipe(f->to_test), 0);
    f->descriptors = open_descriptors();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    sys_fault_clear();
    if (f->io)
        uring_destroy(f->io);
    close(f->directory);
    close(f->to_child[0]);
    close(f->to_child[1]);
    close(f->to_test[0]);
    if (f->to_test[1] >= 0)
        close(f->to_test[1]);
    temp_dir_remove(f->path);
    free(f);
    return 0;
}

static int start(struct fixture *f, int (*job)(void *, struct io *), void *context)
{
    return f->io->ops->child(f->io, job, context, TOKEN);
}

/* The child's completion, waited for. */
static int32_t result_of(struct io *io)
{
    struct io_completion completion = next(io);

    assert_int_equal(completion.token, TOKEN);
    return completion.result;
}

static int32_t result(struct fixture *f, int (*job)(void *, struct io *), void *context)
{
    assert_int_equal(start(f, job, context), 0);
    return result_of(f->io);
}

/* No process, no descriptor and no completion of a child is there any more. */
static void expect_nothing_left(struct fixture *f)
{
    struct io_completion completion;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(open_descriptors(), f->descriptors);
    f->io->ops->sleep(f->io, 1000000);
    assert_int_equal(f->io->ops->completions(f->io, &completion, 1), 0);
}

/* Waits until all that had the pipe's other end, but the test itself, are gone. */
static void expect_end(struct fixture *f)
{
    char byte;
    close(f->to_test[1]);
    f->to_test[1] = -1;
    assert_true(wait_fd(f->to_test[0], POLLIN, WAIT_MS));
    ssize_t size;
    while ((size = read(f->to_test[0], &byte, 1)) == 1)
        assert_true(wait_fd(f->to_test[0], POLLIN, WAIT_MS));
    assert_int_equal(size, 0);
}

/* ---- jobs ---- */

static int give(void *context, struct io *io)
{
    (void)io;
    return *(int *)context;
}

/* Says that it runs, and waits to be let go. */
static int wait_for_byte(void *context, struct io *io)
{
    struct fixture *f = context;
    char byte = 'r';
    (void)io;
    if (write(f->to_test[1], &byte, 1) != 1 || read(f->to_child[0], &byte, 1) != 1)
        return -1;
    return f->value;
}

static void let_go(const struct fixture *f)
{
    assert_int_equal(write(f->to_child[1], "x", 1), 1);
}

static void expect_running(const struct fixture *f)
{
    char byte;
    assert_true(wait_fd(f->to_test[0], POLLIN, WAIT_MS));
    assert_int_equal(read(f->to_test[0], &byte, 1), 1);
}

/* ---- result, memory, descriptors ---- */

static void results_are_passed(void **state)
{
    struct fixture *f = *state;
    static int results[] = {0, 1, 255, 256, 65536, INT32_MAX};
    for (unsigned n = 0; n < sizeof results / sizeof *results; n++)
        assert_int_equal(result(f, give, &results[n]), results[n]);
    int none = -5;
    assert_int_equal(result(f, give, &none), -ECHILD);
    expect_nothing_left(f);
}

static void memory_is_as_at_the_fork(void **state)
{
    struct fixture *f = *state;
    f->value = 1;
    assert_int_equal(start(f, wait_for_byte, f), 0);
    f->value = 2;
    expect_running(f);
    f->value = 3;
    let_go(f);
    assert_int_equal(result_of(f->io), 1);
    expect_nothing_left(f);
}

static void count_names(void *context, const char *name)
{
    *(unsigned *)context += strcmp(name, "whole") == 0 ? 100 : 1;
}

/* Writes a file as snapshots are written; the line that failed, or 0. */
static int write_file(void *context, struct io *io)
{
    struct fixture *f = context;
    const struct io_ops *ops = io->ops;
    unsigned names = 0;
    char byte[2];
    if (ops->monotonic(io) == 0 || ops->wall(io) == 0)
        return __LINE__;
    int directory = ops->open_directory(io, f->path);
    int file = ops->open(io, directory, "new", IO_WRITE | IO_CREATE);
    if (directory < 0 || file < 0 || ops->is_direct(io, file) || ops->alignment(io, file) < 4096)
        return __LINE__;
    if (ops->lock(io, file) != 0 || ops->allocate(io, file, 4) != 0 || ops->size(io, file) != 4)
        return __LINE__;
    if (ops->write_now(io, file, "abcd", 4, 2) != 4 || ops->read(io, file, byte, 2, 5) != 1 || byte[0] != 'd')
        return __LINE__;
    if (ops->sync_now(io, file) != 0 || ops->rename(io, directory, "new", "whole") != 0)
        return __LINE__;
    if (ops->sync_now(io, directory) != 0 || ops->remove(io, f->directory, "old") != 0)
        return __LINE__;
    if (ops->list(io, directory, count_names, &names) != 0 || names != 100)
        return __LINE__;
    ops->close(io, file);
    ops->close(io, directory);
    return 0;
}

static void its_io_has_the_synchronous_half(void **state)
{
    struct fixture *f = *state;
    char bytes[8];
    f->io->ops->close(f->io, f->io->ops->open(f->io, f->directory, "old", IO_WRITE | IO_CREATE));
    assert_int_equal(result(f, write_file, f), 0);
    int file = f->io->ops->open(f->io, f->directory, "whole", IO_READ);
    assert_true(file >= 0);
    assert_int_equal(f->io->ops->read(f->io, file, bytes, sizeof bytes, 0), 6);
    assert_memory_equal(bytes, "\0\0abcd", 6);
    f->io->ops->close(f->io, file);
    expect_nothing_left(f);
}

static int lock_file(void *context, struct io *io)
{
    struct fixture *f = context;
    int file = io->ops->open(io, f->directory, "locked", IO_WRITE);
    char byte = 'r';
    if (write(f->to_test[1], &byte, 1) != 1)
        return 1;
    return -io->ops->lock(io, file);
}

static void its_lock_waits_for_its_parents(void **state)
{
    struct fixture *f = *state;
    int file = f->io->ops->open(f->io, f->directory, "locked", IO_WRITE | IO_CREATE);
    assert_int_equal(f->io->ops->lock(f->io, file), 0);
    assert_int_equal(start(f, lock_file, f), 0);
    expect_running(f);
    assert_int_equal(flock(file, LOCK_UN), 0); /* closing would not do: the child has the descriptor too */
    assert_int_equal(result_of(f->io), 0);
    f->io->ops->close(f->io, file);
}

/* How many of its descriptors are rings. */
static int count_rings(void *context, struct io *io)
{
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    int rings = 0;
    (void)context, (void)io;
    while (directory && (entry = readdir(directory))) {
        char target[64] = "";
        ssize_t size = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);
        rings += size > 0 && strstr(target, "io_uring") != NULL;
    }
    if (!directory)
        return 99;
    closedir(directory);
    return rings;
}

static void the_ring_is_closed_in_it(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(count_rings(NULL, NULL), 1);
    assert_int_equal(result(f, count_rings, NULL), 0);
}

static int do_nothing(void *context, struct io *io)
{
    (void)context, (void)io;
    return 0;
}

static void what_its_parent_has_buffered_is_not_written(void **state)
{
    struct fixture *f = *state;
    int fd = openat(f->directory, "buffered", O_CREAT | O_RDWR, 0600);
    FILE *stream = fdopen(fd, "w");
    assert_non_null(stream);
    assert_true(fputs("once", stream) >= 0);
    assert_int_equal(result(f, do_nothing, NULL), 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), 0);
    assert_int_equal(fclose(stream), 0);
}

/* ---- out of the parent's way ---- */

/* The nice value, from 0 (-20) to 39 (19). */
static int politeness(void *context, struct io *io)
{
    (void)context, (void)io;
    return 20 + getpriority(PRIO_PROCESS, 0);
}

static void it_lets_others_go_first(void **state)
{
    struct fixture *f = *state;
    int mine = politeness(NULL, NULL), its = result(f, politeness, NULL);
    assert_true(its == 30 || (mine > 30 && its == mine)); /* unless the test itself was started so */
}

/* 0: on none of the given processors, and on one at least of the others. */
static int look_for_cores(void *context, struct io *io)
{
    const cpu_set_t *sets = context; /* the parent's, all */
    cpu_set_t mine, both;
    (void)io;
    if (sched_getaffinity(0, sizeof mine, &mine) != 0)
        return 1;
    CPU_AND(&both, &mine, &sets[0]);
    if (CPU_COUNT(&sets[1]) == 1)
        return CPU_EQUAL(&mine, &sets[1]) ? 0 : 2;
    if (CPU_COUNT(&both) != 0)
        return 3;
    CPU_OR(&both, &mine, &sets[0]);
    return CPU_EQUAL(&both, &sets[1]) ? 0 : 4;
}

/* In a process of its own, as a worker under its supervisor. */
static int pin_and_start(void *unused)
{
    cpu_set_t sets[2];
    struct io_completion completion;
    struct mr_error error;
    unsigned first = 0;
    (void)unused;
    struct io *io = uring_create(ENTRIES, &error);
    if (!io || sched_getaffinity(0, sizeof sets[1], &sets[1]) != 0)
        return 10;
    while (!CPU_ISSET(first, &sets[1]))
        first++;
    CPU_ZERO(&sets[0]);
    CPU_SET(first, &sets[0]);
    if (sched_setaffinity(0, sizeof sets[0], &sets[0]) != 0 || io->ops->child(io, look_for_cores, sets, TOKEN) != 0)
        return 11;
    while (io->ops->completions(io, &completion, 1) == 0)
        io->ops->sleep(io, UINT64_MAX);
    uring_destroy(io);
    return completion.result >= 0 ? completion.result : 12;
}

static void it_leaves_the_core_of_a_pinned_parent(void **state)
{
    (void)state;
    assert_int_equal(fork_wait(fork_run(pin_and_start, NULL), WAIT_MS), 0);
}

/* ---- ends ---- */

static int die_by(void *context, struct io *io)
{
    (void)io;
    raise(*(int *)context);
    return 0;
}

/* Also by signals for which the test's process has handlers. */
static void a_child_that_dies_completes_without_result(void **state)
{
    struct fixture *f = *state;
    static int signals[] = {SIGKILL, SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTERM};
    struct rlimit no_core = {0, 0}, before;
    assert_int_equal(getrlimit(RLIMIT_CORE, &before), 0);
    no_core.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_CORE, &no_core), 0);
    for (unsigned n = 0; n < sizeof signals / sizeof *signals; n++)
        assert_int_equal(result(f, die_by, &signals[n]), -ECHILD);
    assert_int_equal(setrlimit(RLIMIT_CORE, &before), 0);
    expect_nothing_left(f);
}

static void a_killed_child_does_not_complete(void **state)
{
    struct fixture *f = *state;
    f->io->ops->child_kill(f->io); /* there is none */
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(start(f, wait_for_byte, f), 0);
        if (n > 0)
            expect_running(f);
        if (n > 1) /* its end is being watched by the kernel */
            f->io->ops->sleep(f->io, 1000000);
        f->io->ops->child_kill(f->io);
        expect_nothing_left(f);
    }
    int value = 9;
    assert_int_equal(result(f, give, &value), 9);
    expect_nothing_left(f);
}

static int stop_itself(void *context, struct io *io)
{
    (void)context;
    (void)io;
    raise(SIGSTOP);
    return 0;
}

/* Also one that has been stopped, which would not end by itself. */
static void a_child_that_is_given_up_completes(void **state)
{
    struct fixture *f = *state;
    siginfo_t stopped = {0};
    int value = 9;
    f->io->ops->child_give_up(f->io); /* there is none */
    assert_int_equal(start(f, stop_itself, NULL), 0);
    assert_int_equal(waitid(P_ALL, 0, &stopped, WSTOPPED), 0);
    f->io->ops->child_give_up(f->io);
    assert_int_equal(result_of(f->io), -ECHILD);
    expect_nothing_left(f);
    assert_int_equal(start(f, give, &value), 0); /* it is done by then: nothing is lost */
    assert_int_equal(waitid(P_ALL, 0, &stopped, WEXITED | WNOWAIT), 0);
    f->io->ops->child_give_up(f->io);
    assert_int_equal(result_of(f->io), 9);
    expect_nothing_left(f);
}

/* It has ended, and that is known to the kernel only, or waits in the ring. */
static void a_child_killed_after_its_end_does_not_complete(void **state)
{
    struct fixture *f = *state;
    int value = 9;
    siginfo_t ended = {0};
    assert_int_equal(start(f, give, &value), 0);
    assert_int_equal(waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT), 0);
    f->io->ops->child_kill(f->io);
    expect_nothing_left(f);
    assert_int_equal(start(f, give, &value), 0);
    f->io->ops->sleep(f->io, UINT64_MAX);
    f->io->ops->child_kill(f->io);
    expect_nothing_left(f);
}

static void it_ends_with_its_parents_io(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, wait_for_byte, f), 0);
    expect_running(f);
    uring_destroy(f->io);
    f->io = NULL;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static int start_and_die(void *context)
{
    struct fixture *f = context;
    struct mr_error error;
    struct io *io = uring_create(ENTRIES, &error);
    if (!io || io->ops->child(io, wait_for_byte, f, TOKEN) != 0)
        return 1;
    if (!wait_fd(f->to_test[0], POLLIN, WAIT_MS))
        return 2;
    raise(SIGKILL);
    return 3;
}

static void it_dies_with_its_parent(void **state)
{
    struct fixture *f = *state;
    int status = 0;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1UL), 0); /* the orphan becomes ours */
    assert_int_equal(fork_wait(fork_run(start_and_die, f), WAIT_MS), 128 + SIGKILL);
    expect_end(f);
    assert_true(waitpid(-1, &status, 0) > 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0UL), 0);
}

/* ---- refused system calls ---- */

static void without_a_fork_there_is_no_child(void **state)
{
    struct fixture *f = *state;
    static const enum sys_call calls[] = {SYS_MMAP, SYS_FORK, SYS_PIDFD_OPEN, SYS_URING_WATCH};
    for (unsigned n = 0; n < sizeof calls / sizeof *calls; n++) {
        sys_fault_arm(calls[n], 1, EDOM, false);
        assert_int_equal(start(f, wait_for_byte, f), -EDOM);
        assert_int_equal(sys_fault_count(calls[n]), 1);
        expect_nothing_left(f);
    }
    int value = 5;
    assert_int_equal(result(f, give, &value), 5);
}

/* What it needs to be harmless. */
static void a_child_that_cannot_let_go_has_no_result(void **state)
{
    struct fixture *f = *state;
    int value = 5;
    sys_fault_arm(SYS_PRCTL, 1, EDOM, false);
    assert_int_equal(result(f, give, &value), -ECHILD);
    sys_fault_arm(SYS_SIGACTION, 3, EDOM, false);
    assert_int_equal(result(f, give, &value), -ECHILD);
    expect_nothing_left(f);
}

/* What is only a matter of speed, and what has been done although it is reported as failed. */
static void nothing_else_hinders_it(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum sys_call call;
        unsigned nth;
    } faults[] = {{SYS_SCHED_GETAFFINITY, 1},
                  {SYS_SCHED_GETAFFINITY, 2},
                  {SYS_SCHED_SETAFFINITY, 1},
                  {SYS_SETPRIORITY, 1},
                  {SYS_CLOSE, 1},
                  {SYS_CLOSE, 2},
                  {SYS_WAITPID, 1},
                  {SYS_MUNMAP, 1}};
    for (unsigned n = 0; n < sizeof faults / sizeof *faults; n++) {
        int value = (int)n + 10;
        sys_fault_arm(faults[n].call, faults[n].nth, faults[n].call == SYS_WAITPID ? EINTR : EDOM, false);
        assert_int_equal(result(f, give, &value), n + 10);
        sys_fault_clear();
        expect_nothing_left(f);
    }
    int value = 4;
    sys_fault_arm(SYS_WAITPID, 1, EDOM, false);
    assert_int_equal(result(f, give, &value), 4);
    expect_nothing_left(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(results_are_passed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_is_as_at_the_fork, set_up, tear_down),
        cmocka_unit_test_setup_teardown(its_io_has_the_synchronous_half, set_up, tear_down),
        cmocka_unit_test_setup_teardown(its_lock_waits_for_its_parents, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_ring_is_closed_in_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_its_parent_has_buffered_is_not_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_lets_others_go_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_leaves_the_core_of_a_pinned_parent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_child_that_dies_completes_without_result, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_killed_child_does_not_complete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_child_that_is_given_up_completes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_child_killed_after_its_end_does_not_complete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_ends_with_its_parents_io, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_dies_with_its_parent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_fork_there_is_no_child, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_child_that_cannot_let_go_has_no_result, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_else_hinders_it, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
