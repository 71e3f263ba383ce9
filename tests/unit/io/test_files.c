/* SPDX-License-Identifier: Apache-2.0 */
/* The synchronous half of the node's io, and its memory: names, sizes, reading, locking, on a real file system. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/sys.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"
#include "tests/unit/io/fixture.h"

static void count_names(void *context, const char *name)
{
    assert_true(strcmp(name, "a") == 0 || strcmp(name, "b") == 0);
    ++*(unsigned *)context;
}

static void files_and_names(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    unsigned names = 0, before = open_descriptors();
    assert_int_equal(ops->open_directory(f->io, "/nowhere"), -ENOENT);
    assert_int_equal(ops->open(f->io, f->directory, "a", IO_WRITE), -ENOENT);
    int a = ops->open(f->io, f->directory, "a", IO_WRITE | IO_CREATE | IO_DIRECT);
    assert_true(a >= 0);
    assert_int_equal(ops->open(f->io, f->directory, "a", IO_WRITE | IO_CREATE), -EEXIST);
    int b = ops->open(f->io, f->directory, "b", IO_WRITE | IO_CREATE);
    assert_int_equal(ops->list(f->io, f->directory, count_names, &names), 0);
    assert_int_equal(ops->list(f->io, f->directory, count_names, &names), 0);
    assert_int_equal(names, 4);
    assert_int_equal(ops->allocate(f->io, a, 3 * PAGE), 0);
    assert_int_equal(ops->size(f->io, a), 3 * PAGE);
    assert_int_equal(ops->allocate(f->io, a, PAGE), 0);
    assert_int_equal(ops->size(f->io, a), 3 * PAGE);
    assert_int_equal(ops->sync_now(f->io, a), 0);
    assert_int_equal(ops->sync_now(f->io, f->directory), 0);
    assert_int_equal(pwrite(b, "12345", 5, 1000), 5);
    assert_int_equal(ops->rename(f->io, f->directory, "b", "a"), 0);
    int c = ops->open(f->io, f->directory, "a", IO_READ | IO_DIRECT);
    assert_int_equal(ops->read(f->io, c, f->memory, AREA, 0), 1005); /* ends within a sector, read directly */
    assert_memory_equal(f->memory + 1000, "12345", 5);
    assert_int_equal(ops->remove(f->io, f->directory, "a"), 0);
    assert_int_equal(ops->remove(f->io, f->directory, "a"), -ENOENT);
    assert_int_equal(ops->rename(f->io, f->directory, "a", "b"), -ENOENT);
    ops->close(f->io, a);
    ops->close(f->io, b);
    ops->close(f->io, c);
    sys_fault_arm(SYS_FDOPENDIR, 1, EMFILE, false);
    assert_int_equal(ops->list(f->io, f->directory, count_names, &names), -EMFILE);
    sys_fault_arm(SYS_READDIR, 1, EIO, false);
    assert_int_equal(ops->list(f->io, f->directory, count_names, &names), -EIO);
    assert_int_equal(open_descriptors(), before);
}

/* A file may grow to four bytes: the write ends short there, and what follows is told. */
static void short_writes_go_on(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, limit;
    int file = f->io->ops->open(f->io, f->directory, "a", IO_WRITE | IO_CREATE);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){.rlim_cur = 4, .rlim_max = before.rlim_max};
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    sys_fault_clear();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int64_t result = f->io->ops->write_now(f->io, file, "abcdef", 6, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_true(signal(SIGXFSZ, SIG_DFL) != SIG_ERR);
    assert_int_equal(result, -EFBIG);
    assert_int_equal(sys_call_count(SYS_PWRITE), 2);
    assert_int_equal(f->io->ops->size(f->io, file), 4);
    f->io->ops->close(f->io, file);
}

static void writes_begin_again_or_fail(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    int file = ops->open(f->io, f->directory, "a", IO_WRITE | IO_CREATE);
    sys_fault_arm(SYS_PWRITE, 1, EINTR, false);
    assert_int_equal(ops->write_now(f->io, file, "abcdef", 6, 3), 6);
    assert_int_equal(ops->size(f->io, file), 9);
    assert_int_equal(ops->read(f->io, file, f->memory, AREA, 0), 9);
    assert_memory_equal(f->memory, "\0\0\0abcdef", 9);
    sys_fault_arm(SYS_PWRITE, 1, ENOSPC, false);
    assert_int_equal(ops->write_now(f->io, file, "abcdef", 6, 0), -ENOSPC);
    ops->close(f->io, file);
    file = ops->open(f->io, f->directory, "a", IO_READ);
    assert_int_equal(ops->write_now(f->io, file, "abcdef", 6, 0), -EBADF);
    ops->close(f->io, file);
}

struct locker {
    struct io *io;
    int directory;
    int held;  /* the parent's file: a child's copy would keep its lock */
    int ready; /* an eventfd */
};

static int lock_and_tell(void *argument)
{
    const struct locker *locker = argument;
    locker->io->ops->close(locker->io, locker->held);
    int file = locker->io->ops->open(locker->io, locker->directory, "locked", IO_WRITE);
    if (file < 0)
        return 1;
    add(locker->ready, 1);
    if (locker->io->ops->lock(locker->io, file) != 0)
        return 2;
    add(locker->ready, 10);
    return 0;
}

static void lock_waits(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    struct locker locker = {.io = f->io, .directory = f->directory, .ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    uint64_t value;
    int file = ops->open(f->io, f->directory, "locked", IO_WRITE | IO_CREATE);
    assert_int_equal(ops->lock(f->io, file), 0);
    assert_int_equal(ops->lock(f->io, file), 0); /* it is ours */
    locker.held = file;
    pid_t child = fork_run(lock_and_tell, &locker);
    assert_true(wait_fd(locker.ready, POLLIN, WAIT_MS));
    assert_int_equal(read(locker.ready, &value, sizeof value), sizeof value);
    assert_int_equal(value, 1);
    assert_int_equal(read(locker.ready, &value, sizeof value), -1); /* it has not got it yet */
    ops->close(f->io, file);
    assert_int_equal(fork_wait(child, WAIT_MS), 0);
    assert_int_equal(read(locker.ready, &value, sizeof value), sizeof value);
    assert_int_equal(value, 10);
    close(locker.ready);
}

static int memory_is_absent(void *argument)
{
    unsigned char there[1];
    return mincore(argument, PAGE, there) == -1 && errno == ENOMEM ? 0 : 1;
}

static void memory_stays_out_of_children(void **state)
{
    struct fixture *f = *state;
    assert_int_equal((uintptr_t)f->memory % PAGE, 0);
    assert_int_equal(fork_wait(fork_run(memory_is_absent, f->memory), WAIT_MS), 0);
    struct mr_error error = {0};
    sys_fault_arm(SYS_MMAP, 1, ENOMEM, false);
    assert_null(io_memory(PAGE, &error));
    assert_int_equal(error.code, ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_and_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(short_writes_go_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writes_begin_again_or_fail, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lock_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(memory_stays_out_of_children, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
