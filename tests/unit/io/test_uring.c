/* SPDX-License-Identifier: Apache-2.0 */
/* The node's io on a real kernel: writes, watches, wakes, sleeping; what it is refused: test_uring_refusals.c. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/sys.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"
#include "tests/unit/io/completion.h"
#include "tests/unit/io/fixture.h"

static void expect(struct io *io, uint64_t token, int32_t result)
{
    struct io_completion completion = next(io);
    assert_int_equal(completion.token, token);
    assert_int_equal(completion.result, result);
}

static void expect_nothing(struct io *io)
{
    struct io_completion completion;
    io->ops->sleep(io, 1000000);
    assert_int_equal(io->ops->completions(io, &completion, 1), 0);
}

static int event(int flags)
{
    int fd = eventfd(0, EFD_CLOEXEC | flags);
    assert_true(fd >= 0);
    return fd;
}

/* ---- writes ---- */

static void writes_are_read_back(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    struct mr_error error;
    uint8_t *other = io_memory(PAGE, &error);
    assert_non_null(other);
    assert_int_equal(ops->register_buffers(f->io, f->memory, AREA, &error), 0);
    for (unsigned n = 0; n < 8; n++) {
        bool direct = n & 1, durable = n & 2, registered = n & 4;
        char name[8];
        snprintf(name, sizeof name, "f%u", n);
        int file = ops->open(f->io, f->directory, name, IO_WRITE | IO_CREATE | (direct ? IO_DIRECT : 0));
        assert_true(file >= 0);
        assert_true(!ops->is_direct(f->io, file) || direct);
        uint32_t alignment = ops->alignment(f->io, file);
        assert_true(alignment >= 4096 && (alignment & (alignment - 1)) == 0);
        if (alignment != PAGE)
            skip();
        uint8_t *buffer = registered ? f->memory + 3 * PAGE : other;
        memset(buffer, (int)n + 1, PAGE);
        ops->write(f->io, file, buffer, PAGE, PAGE, durable, 100 + n);
        expect(f->io, 100 + n, PAGE);
        ops->sync(f->io, file, 7);
        expect(f->io, 7, 0);
        assert_int_equal(ops->size(f->io, file), 2 * PAGE);
        assert_int_equal(ops->read(f->io, file, f->memory, 3 * PAGE, 0), 2 * PAGE);
        for (unsigned byte = 0; byte < PAGE; byte++) {
            assert_int_equal(f->memory[byte], 0);
            assert_int_equal(f->memory[PAGE + byte], n + 1);
        }
        assert_int_equal(ops->read(f->io, file, f->memory, PAGE, 2 * PAGE), 0);
        ops->close(f->io, file);
    }
    io_memory_free(other, PAGE);
}

/* Memory that comes to stand where the region was is written as it is. */
static void a_region_that_was_given_back_is_forgotten(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    struct mr_error error;
    int file = ops->open(f->io, f->directory, "given back", IO_WRITE | IO_CREATE);
    assert_true(file >= 0);
    memset(f->memory, 'a', AREA);
    assert_int_equal(ops->register_buffers(f->io, f->memory, AREA, &error), 0);
    ops->write(f->io, file, f->memory, PAGE, 0, false, 1);
    expect(f->io, 1, PAGE);
    ops->unregister_buffers(f->io);
    ops->unregister_buffers(f->io);
    assert_ptr_equal(mmap(f->memory, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                     f->memory);
    memset(f->memory, 'b', AREA);
    ops->write(f->io, file, f->memory, PAGE, PAGE, false, 2);
    expect(f->io, 2, PAGE);
    uint8_t bytes[2 * PAGE];
    assert_int_equal(ops->read(f->io, file, bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(bytes[0], 'a');
    assert_int_equal(bytes[PAGE], 'b');
    ops->close(f->io, file);
}

/* Far more than the ring has entries, before anything is handed over. */
static void many_writes_at_once(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 1000 };
    const struct io_ops *ops = f->io->ops;
    int file = ops->open(f->io, f->directory, "many", IO_WRITE | IO_CREATE);
    static uint32_t values[COUNT];
    bool seen[COUNT] = {0};
    for (uint32_t n = 0; n < COUNT; n++) {
        values[n] = n * 7;
        ops->write(f->io, file, &values[n], sizeof values[n], n * sizeof values[n], n % 100 == 0, n);
    }
    for (uint32_t n = 0; n < COUNT; n++) {
        struct io_completion completion = next(f->io);
        assert_int_equal(completion.result, sizeof *values);
        assert_true(completion.token < COUNT && !seen[completion.token]);
        seen[completion.token] = true;
    }
    expect_nothing(f->io);
    uint32_t back[COUNT];
    assert_int_equal(ops->read(f->io, file, back, sizeof back, 0), sizeof back);
    assert_memory_equal(back, values, sizeof back);
    ops->close(f->io, file);
}

static int read_pipe_slowly(void *argument)
{
    int fd = *(int *)argument;
    uint8_t bytes[1000];
    uint64_t total = 0;
    ssize_t count;
    while (total < 300000 && (count = read(fd, bytes, sizeof bytes)) > 0)
        for (ssize_t n = 0; n < count; n++, total++)
            if (bytes[n] != (uint8_t)(total / 1000))
                return 1;
    return total == 300000 ? 0 : 2;
}

/* A pipe takes no more than it has room for: the rest goes in again until all is written. */
static void reads_ahead_end_where_the_file_does(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    int file = ops->open(f->io, f->directory, "file", IO_WRITE | IO_CREATE);
    char bytes[8] = "";
    assert_int_equal(ops->write_now(f->io, file, "abcde", 5, 0), 5);
    assert_int_equal(ops->read_ahead(f->io, file, bytes, 2, 1, 1), 0);
    expect(f->io, 1, 2);
    assert_memory_equal(bytes, "bc", 2);
    assert_int_equal(ops->read_ahead(f->io, file, bytes, sizeof bytes, 3, 2), 0);
    expect(f->io, 2, 2);
    assert_memory_equal(bytes, "de", 2);
    assert_int_equal(ops->read_ahead(f->io, file, bytes, sizeof bytes, 5, 3), 0);
    expect(f->io, 3, 0);
    sys_fault_arm(SYS_URING_READ, 1, EIO, false);
    assert_int_equal(ops->read_ahead(f->io, file, bytes, 1, 0, 4), 0);
    expect(f->io, 4, -EIO);
    ops->close(f->io, file);
}

static void short_writes_continue(void **state)
{
    struct fixture *f = *state;
    int ends[2];
    static uint8_t bytes[300000];
    for (unsigned n = 0; n < sizeof bytes; n++)
        bytes[n] = (uint8_t)(n / 1000);
    assert_int_equal(pipe(ends), 0);
    f->io->ops->write(f->io, ends[1], bytes, sizeof bytes, 0, false, 1);
    expect_nothing(f->io);
    pid_t reader = fork_run(read_pipe_slowly, &ends[0]);
    expect(f->io, 1, sizeof bytes);
    assert_int_equal(fork_wait(reader, WAIT_MS), 0);
    close(ends[0]);
    close(ends[1]);
}

static int write_beyond_limit(void *argument)
{
    struct fixture *f = argument;
    struct mr_error error;
    struct io *io = uring_create(ENTRIES, &error);
    struct rlimit limit = {.rlim_cur = PAGE, .rlim_max = PAGE};
    int file = io->ops->open(io, f->directory, "limited", IO_WRITE | IO_CREATE);
    uint8_t *two = aligned_alloc(PAGE, 2 * PAGE);
    memset(two, 'x', 2 * PAGE);
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        return 1;
    io->ops->write(io, file, two, 2 * PAGE, 0, true, 1);
    struct io_completion completion = next(io);
    return completion.result == -EFBIG && io->ops->size(io, file) == PAGE ? 0 : 2;
}

static void error_after_a_part_is_an_error(void **state)
{
    assert_int_equal(fork_wait(fork_run(write_beyond_limit, *state), WAIT_MS), 0);
}

static void failed_writes_tell_why(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    int file = ops->open(f->io, f->directory, "file", IO_WRITE | IO_CREATE);
    int reader = ops->open(f->io, f->directory, "file", IO_READ);
    ops->write(f->io, reader, f->memory, PAGE, 0, true, 1);
    expect(f->io, 1, -EBADF);
    ops->write(f->io, 9999, f->memory, PAGE, 0, true, 2);
    expect(f->io, 2, -EBADF);
    int devices = ops->open_directory(f->io, "/dev");
    int full = ops->open(f->io, devices, "full", IO_WRITE | IO_DIRECT);
    assert_true(full >= 0);
    assert_false(ops->is_direct(f->io, full));
    ops->write(f->io, full, f->memory, PAGE, 0, false, 3);
    expect(f->io, 3, -ENOSPC);
    ops->sync(f->io, full, 4);
    expect(f->io, 4, -EINVAL);
    ops->write(f->io, file, f->memory, 0, 0, true, 5);
    expect(f->io, 5, 0);
    for (unsigned n = 0; n < 4; n++)
        ops->close(f->io, (int[]){file, reader, devices, full}[n]);
}

static void destroying_waits_for_writes(void **state)
{
    struct fixture *f = *state;
    struct mr_error error;
    struct io *io = uring_create(ENTRIES, &error);
    assert_non_null(io);
    int file = io->ops->open(io, f->directory, "late", IO_WRITE | IO_CREATE | IO_DIRECT);
    memset(f->memory, 'w', PAGE);
    for (unsigned n = 0; n < 50; n++)
        io->ops->write(io, file, f->memory, PAGE, n * PAGE, true, n);
    uring_destroy(io);
    assert_int_equal(f->io->ops->size(f->io, file), 50 * PAGE);
    assert_int_equal(f->io->ops->read(f->io, file, f->memory + PAGE, 50 * PAGE, 0), 50 * PAGE);
    for (unsigned n = 0; n < 50; n++)
        assert_memory_equal(f->memory + (n + 1) * PAGE, f->memory, PAGE);
    f->io->ops->close(f->io, file);
}

/* ---- watches and wakes ---- */

/* Takes completions of the watch `token` until there are none at once; how many. */
static unsigned take_all(struct io *io, uint64_t token)
{
    struct io_completion completion;
    unsigned count = 0;
    for (; io->ops->completions(io, &completion, 1) == 1; count++) {
        assert_int_equal(completion.token, token);
        assert_true(completion.result & POLLIN);
    }
    return count;
}

static void watch_tells_of_each_edge(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    int fd = event(EFD_NONBLOCK);
    ops->watch(f->io, fd, 5);
    expect_nothing(f->io);
    for (unsigned n = 0; n < 100; n++) {
        add(fd, 1); /* never read: the counter only grows */
        expect(f->io, 5, POLLIN);
        take_all(f->io, 5);
        expect_nothing(f->io);
    }
    int already = event(EFD_NONBLOCK);
    add(already, 1);
    ops->watch(f->io, already, 6);
    expect(f->io, 6, POLLIN);
    ops->unwatch(f->io, 5);
    expect(f->io, 5, -ECANCELED);
    add(fd, 1);
    expect_nothing(f->io);
    ops->unwatch(f->io, 5); /* no longer there */
    ops->unwatch(f->io, 12345);
    expect_nothing(f->io);
    /* Cancelled while it is being woken. */
    add(already, 1);
    ops->unwatch(f->io, 6);
    expect(f->io, 6, -ECANCELED);
    expect_nothing(f->io);
    close(fd);
    close(already);
}

static void hang_up_is_readable(void **state)
{
    struct fixture *f = *state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    f->io->ops->watch(f->io, ends[0], 1);
    expect_nothing(f->io);
    close(ends[1]);
    struct io_completion completion = next(f->io);
    assert_int_equal(completion.token, 1);
    assert_true(completion.result & POLLHUP);
    f->io->ops->unwatch(f->io, 1);
    do
        completion = next(f->io);
    while (completion.result != -ECANCELED);
    close(ends[0]);
}

/* So many events that the completion queue is full: the kernel then ends watches, which go in again. */
static void watches_outlive_a_full_queue(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 300 };
    int events[COUNT];
    for (unsigned n = 0; n < COUNT; n++) {
        events[n] = event(EFD_NONBLOCK);
        f->io->ops->watch(f->io, events[n], n);
    }
    for (unsigned round = 0; round < 3; round++) {
        bool seen[COUNT] = {0};
        for (unsigned n = 0; n < COUNT; n++)
            add(events[n], 1);
        for (unsigned left = COUNT; left > 0;) {
            struct io_completion completion = next(f->io);
            assert_true(completion.token < COUNT);
            assert_int_equal(completion.result, POLLIN);
            left -= !seen[completion.token];
            seen[completion.token] = true;
        }
        /* Some come once too often; then there is quiet. */
        struct io_completion completion;
        unsigned more = 0;
        for (unsigned quiet = 0; quiet < 2; quiet++) {
            for (; f->io->ops->completions(f->io, &completion, 1) == 1; quiet = 0)
                assert_true(++more < 100 * COUNT);
            f->io->ops->sleep(f->io, 1000000);
        }
    }
    /* Unwatched while the queue is full again: each is cancelled once, whether the kernel has ended it or not. */
    for (unsigned n = 0; n < COUNT; n++)
        add(events[n], 1);
    for (unsigned n = 0; n < 2 * ENTRIES; n++)
        assert_int_equal(next(f->io).result, POLLIN);
    bool cancelled[COUNT] = {0};
    for (unsigned n = 0; n < COUNT; n++)
        f->io->ops->unwatch(f->io, n);
    for (unsigned left = COUNT; left > 0; left--) {
        struct io_completion completion = next(f->io);
        assert_true(completion.token < COUNT && !cancelled[completion.token]);
        assert_int_equal(completion.result, -ECANCELED);
        cancelled[completion.token] = true;
    }
    expect_nothing(f->io);
    for (unsigned n = 0; n < COUNT; n++)
        close(events[n]);
}

static void failed_watch_is_over(void **state)
{
    struct fixture *f = *state;
    f->io->ops->watch(f->io, 9999, 3);
    expect(f->io, 3, -EBADF);
    f->io->ops->unwatch(f->io, 3);
    expect_nothing(f->io);
}

static void wake_adds_one(void **state)
{
    struct fixture *f = *state;
    int fd = event(EFD_NONBLOCK);
    uint64_t value;
    f->io->ops->wake(f->io, fd, 1);
    f->io->ops->wake(f->io, fd, 2);
    expect(f->io, 1, 8);
    expect(f->io, 2, 8);
    assert_int_equal(read(fd, &value, sizeof value), sizeof value);
    assert_int_equal(value, 2);
    close(fd);
}

/* What the cheapest of twenty took. */
static uint64_t cheapest_wake(struct io *io, int fd)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < 20; i++) {
        uint64_t took = io->ops->wake_measured(io, fd, 1);
        least = took < least ? took : least;
        expect(io, 1, 8);
    }
    return least;
}

/* What was begun before it has gone, too; and its cost is that of all who listen. */
static void a_measured_wake_is_handed_over_at_once(void **state)
{
    struct fixture *f = *state;
    int fd = event(EFD_NONBLOCK), before = event(EFD_NONBLOCK), nests[200];
    struct epoll_event watch = {.events = EPOLLIN | EPOLLET};

    f->io->ops->wake(f->io, before, 1);
    for (unsigned i = 0; i < 20; i++)
        (void)f->io->ops->wake_measured(f->io, fd, 2 + i);
    uint64_t value;
    assert_int_equal(read(before, &value, sizeof value), sizeof value);
    assert_int_equal(read(fd, &value, sizeof value), sizeof value);
    assert_int_equal(value, 20);
    for (unsigned i = 0; i < 21; i++)
        expect(f->io, 1 + i, 8);
    for (unsigned i = 0; i < 200; i++) {
        nests[i] = epoll_create1(EPOLL_CLOEXEC);
        assert_true(nests[i] >= 0);
        assert_int_equal(epoll_ctl(nests[i], EPOLL_CTL_ADD, fd, &watch), 0);
    }
    /* Whatever else this processor was at meanwhile, at one time or other the difference shows. */
    assert_true(wait_for(cheapest_wake(f->io, fd) > cheapest_wake(f->io, before)));
    for (unsigned i = 0; i < 200; i++)
        close(nests[i]);
    close(before);
    close(fd);
}

/* Whatever its owner did to it. */
static void full_counter_blocks_nobody(void **state)
{
    struct fixture *f = *state;
    int blocking = event(0), other = event(EFD_NONBLOCK);
    uint64_t value;
    add(blocking, UINT64_MAX - 1);
    add(other, UINT64_MAX - 1);
    f->io->ops->wake(f->io, blocking, 1);
    f->io->ops->wake(f->io, other, 2);
    expect_nothing(f->io);
    assert_int_equal(read(blocking, &value, sizeof value), sizeof value);
    expect(f->io, 1, 8);
    assert_int_equal(read(other, &value, sizeof value), sizeof value);
    expect(f->io, 2, 8);
    close(blocking);
    close(other);
}

static int end_with_pending(void *argument)
{
    struct mr_error error;
    int *events = argument;
    struct io *io = uring_create(ENTRIES, &error);
    struct io_completion completion;
    if (!io)
        return 1;
    io->ops->watch(io, events[1], 1);
    for (uint64_t n = 0; n < 20; n++)
        io->ops->wake(io, events[0], 2);
    io->ops->sleep(io, 1000000);
    if (io->ops->completions(io, &completion, 1) != 0)
        return 2;
    add(events[2], 1);
    return 0;
}

/* Operations that never end keep no process from ending, in an orderly way or by SIGKILL. */
static void pending_operations_do_not_keep_a_process(void **state)
{
    (void)state;
    int events[3] = {event(0), event(0), event(0)};
    add(events[0], UINT64_MAX - 1);
    assert_int_equal(fork_wait(fork_run(end_with_pending, events), WAIT_MS), 0);
    assert_true(wait_fd(events[2], POLLIN, WAIT_MS));
    for (unsigned n = 0; n < 3; n++)
        close(events[n]);
}

/* ---- sleeping ---- */

static int add_one(void *argument)
{
    add(*(int *)argument, 1);
    return 0;
}

static void sleep_ends(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    int fd = event(EFD_NONBLOCK);
    struct io_completion completion;
    ops->watch(f->io, fd, 1);
    uint64_t before = ops->monotonic(f->io);
    ops->sleep(f->io, 2000000);
    assert_true(ops->monotonic(f->io) >= before + 2000000);
    assert_int_equal(ops->completions(f->io, &completion, 1), 0);
    pid_t child = fork_run(add_one, &fd);
    while (ops->completions(f->io, &completion, 1) == 0)
        ops->sleep(f->io, UINT64_MAX);
    assert_int_equal(completion.token, 1);
    assert_int_equal(fork_wait(child, WAIT_MS), 0);
    /* What is there already is no reason to sleep. */
    add(fd, 1);
    ops->sleep(f->io, UINT64_MAX);
    ops->sleep(f->io, UINT64_MAX);
    assert_int_equal(ops->completions(f->io, &completion, 1), 1);
    close(fd);
}

static void clocks(void **state)
{
    struct fixture *f = *state;
    uint64_t before = f->io->ops->monotonic(f->io);
    assert_true(f->io->ops->monotonic(f->io) >= before);
    assert_true(f->io->ops->wall(f->io) > UINT64_C(1600000000) * 1000000000);
}

/* From now on any system call but the process's end kills it. */
static void forbid_system_calls(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_exit_group, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(90);
}

static int look_when_idle(void *argument)
{
    struct mr_error error;
    struct io *io = uring_create(ENTRIES, &error);
    struct io_completion completions[4];
    if (!io)
        return 1;
    int fd = event(EFD_NONBLOCK);
    io->ops->watch(io, fd, 1);
    if (io->ops->completions(io, completions, 4) != 0)
        return 2;
    if (argument)
        add(fd, 1); /* then there is something to fetch, by a system call */
    forbid_system_calls();
    unsigned come = 0;
    for (unsigned n = 0; n < 1000; n++)
        come += io->ops->completions(io, completions, 4);
    /* Not _exit(): a sanitizer would make other calls first. */
    return (int)syscall(__NR_exit_group, come == 0 ? 0 : 3);
}

static void looking_when_idle_is_no_system_call(void **state)
{
    (void)state;
    assert_int_equal(fork_wait(fork_run(look_when_idle, NULL), WAIT_MS), 0);
    assert_int_equal(fork_wait(fork_run(look_when_idle, "busy"), WAIT_MS), 128 + SIGSYS);
}

static void planted_faults_come_back(void **state)
{
    struct fixture *f = *state;
    const struct io_ops *ops = f->io->ops;
    int file = ops->open(f->io, f->directory, "file", IO_WRITE | IO_CREATE);
    int fd = event(EFD_NONBLOCK);
    sys_fault_arm(SYS_URING_WRITE, 2, EIO, false);
    sys_fault_arm(SYS_URING_SYNC, 1, EIO, false);
    sys_fault_arm(SYS_URING_WATCH, 1, ENOMEM, false);
    sys_fault_arm(SYS_URING_WAKE, 1, EINVAL, false);
    ops->write(f->io, file, "x", 1, 0, false, 1);
    expect(f->io, 1, 1);
    ops->write(f->io, file, "y", 1, 0, false, 2);
    expect(f->io, 2, -EIO);
    ops->sync(f->io, file, 3);
    ops->watch(f->io, fd, 4);
    ops->wake(f->io, fd, 5);
    expect(f->io, 3, -EIO);
    expect(f->io, 4, -ENOMEM);
    expect(f->io, 5, -EINVAL);
    ops->sync(f->io, file, 6);
    expect(f->io, 6, 0);
    char byte;
    assert_int_equal(ops->read(f->io, file, &byte, 1, 0), 1);
    assert_int_equal(byte, 'x');
    ops->close(f->io, file);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_are_read_back),
        cmocka_unit_test(a_region_that_was_given_back_is_forgotten),
        cmocka_unit_test(many_writes_at_once),
        cmocka_unit_test(reads_ahead_end_where_the_file_does),
        cmocka_unit_test(short_writes_continue),
        cmocka_unit_test(error_after_a_part_is_an_error),
        cmocka_unit_test(failed_writes_tell_why),
        cmocka_unit_test(destroying_waits_for_writes),
        cmocka_unit_test(watch_tells_of_each_edge),
        cmocka_unit_test(hang_up_is_readable),
        cmocka_unit_test(watches_outlive_a_full_queue),
        cmocka_unit_test(failed_watch_is_over),
        cmocka_unit_test(wake_adds_one),
        cmocka_unit_test(a_measured_wake_is_handed_over_at_once),
        cmocka_unit_test(full_counter_blocks_nobody),
        cmocka_unit_test(pending_operations_do_not_keep_a_process),
        cmocka_unit_test(sleep_ends),
        cmocka_unit_test(clocks),
        cmocka_unit_test(looking_when_idle_is_no_system_call),
        cmocka_unit_test(planted_faults_come_back),
    };
    struct CMUnitTest all[sizeof tests / sizeof *tests];
    for (size_t n = 0; n < sizeof tests / sizeof *tests; n++) {
        all[n] = tests[n];
        all[n].setup_func = set_up;
        all[n].teardown_func = tear_down;
    }
    return cmocka_run_group_tests(all, NULL, NULL);
}
