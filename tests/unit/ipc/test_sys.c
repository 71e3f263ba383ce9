/* SPDX-License-Identifier: Apache-2.0 */
/* The table of faults: every kind of system call fails when armed, the n-th one, once or for ever, in this process, in
 * forked ones and in programs that got MR_FAULT. Started with an argument it is such a program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/sys.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"

/* An errno that no system call gives by itself. */
#define PLANTED EDOM

/* One call of the kind, with arguments that do no harm even if it got through: a switch without a default, so that the
 * compiler asks for a line here for each new kind. True if it failed as it should. */
static bool fails(enum sys_call kind)
{
    struct rlimit limit = {0, 0};
    socklen_t size = 0;
    sigset_t signals;
    int fds[2];

    sigemptyset(&signals);
    switch (kind) {
    case SYS_OPEN:
        return sys_open("", 0, 0) == -1;
    case SYS_OPENAT:
        return sys_openat(-1, "", 0, 0) == -1;
    case SYS_CLOSE:
        return sys_close(-1) == -1;
    case SYS_READ:
        return sys_read(-1, NULL, 0) == -1;
    case SYS_PREAD:
        return sys_pread(-1, NULL, 0, 0) == -1;
    case SYS_WRITE:
        return sys_write(-1, NULL, 0) == -1;
    case SYS_PWRITE:
        return sys_pwrite(-1, NULL, 0, 0) == -1;
    case SYS_FSYNC:
        return sys_fsync(-1) == -1;
    case SYS_FTRUNCATE:
        return sys_ftruncate(-1, 0) == -1;
    case SYS_FALLOCATE:
        return sys_fallocate(-1, 0, 0, 0) == -1;
    case SYS_FSTAT:
        return sys_fstat(-1, &(struct stat){0}) == -1;
    case SYS_FSTATAT:
        return sys_fstatat(-1, "", &(struct stat){0}, 0) == -1;
    case SYS_STATX:
        return sys_statx(-1, "", 0, 0, &(struct statx){0}) == -1;
    case SYS_FCHOWNAT:
        return sys_fchownat(-1, "", 0, 0, 0) == -1;
    case SYS_FLOCK:
        return sys_flock(-1, 0) == -1;
    case SYS_FCNTL:
        return sys_fcntl(-1, 0, 0) == -1;
    case SYS_DUP:
        return sys_dup(-1) == -1;
    case SYS_MKDIR:
        return sys_mkdir("", 0) == -1;
    case SYS_MKDIRAT:
        return sys_mkdirat(-1, "", 0) == -1;
    case SYS_UNLINK:
        return sys_unlink("") == -1;
    case SYS_UNLINKAT:
        return sys_unlinkat(-1, "", 0) == -1;
    case SYS_RENAMEAT:
        return sys_renameat(-1, "", -1, "") == -1;
    case SYS_FDOPENDIR:
        return sys_fdopendir(-1) == NULL;
    case SYS_READDIR:
        return sys_readdir(NULL) == NULL;
    case SYS_CLOSEDIR:
        return sys_closedir(opendir("/")) == -1;
    case SYS_MMAP:
        return sys_mmap(NULL, 0, 0, 0, -1, 0) == MAP_FAILED;
    case SYS_MUNMAP:
        return sys_munmap(NULL, 0) == -1;
    case SYS_MADVISE:
        return sys_madvise(NULL, 0, 0) == -1;
    case SYS_MEMFD_CREATE:
        return sys_memfd_create("", ~0U) == -1;
    case SYS_EVENTFD:
        return sys_eventfd(0, -1) == -1;
    case SYS_SIGNALFD:
        return sys_signalfd(-2, &signals, 0) == -1;
    case SYS_TIMERFD_CREATE:
        return sys_timerfd_create(-1, 0) == -1;
    case SYS_TIMERFD_SETTIME:
        return sys_timerfd_settime(-1, 0, &(struct itimerspec){0}, NULL) == -1;
    case SYS_SOCKET:
        return sys_socket(-1, 0, 0) == -1;
    case SYS_SOCKETPAIR:
        return sys_socketpair(-1, 0, 0, fds) == -1;
    case SYS_BIND:
        return sys_bind(-1, NULL, 0) == -1;
    case SYS_LISTEN:
        return sys_listen(-1, 0) == -1;
    case SYS_ACCEPT4:
        return sys_accept4(-1, NULL, NULL, 0) == -1;
    case SYS_CONNECT:
        return sys_connect(-1, NULL, 0) == -1;
    case SYS_SENDMSG:
        return sys_sendmsg(-1, &(struct msghdr){0}, 0) == -1;
    case SYS_RECVMSG:
        return sys_recvmsg(-1, &(struct msghdr){0}, 0) == -1;
    case SYS_GETSOCKOPT:
        return sys_getsockopt(-1, 0, 0, fds, &size) == -1;
    case SYS_POLL:
        return sys_poll(NULL, 0, 0) == -1;
    case SYS_EPOLL_CREATE1:
        return sys_epoll_create1(-1) == -1;
    case SYS_EPOLL_CTL:
        return sys_epoll_ctl(-1, 0, -1, NULL) == -1;
    case SYS_EPOLL_WAIT:
        return sys_epoll_wait(-1, &(struct epoll_event){0}, 1, 0) == -1;
    case SYS_FORK:
        return sys_fork() == -1;
    case SYS_KILL:
        return sys_kill(getpid(), 0) == -1;
    case SYS_WAITPID:
        return sys_waitpid(-1, NULL, WNOHANG) == -1;
    case SYS_PIDFD_OPEN:
        return sys_pidfd_open(-1, 0) == -1;
    case SYS_PRCTL:
        return sys_prctl(-1, 0) == -1;
    case SYS_SCHED_SETAFFINITY:
        return sys_sched_setaffinity(0, 0, NULL) == -1;
    case SYS_SCHED_GETAFFINITY:
        return sys_sched_getaffinity(0, 0, NULL) == -1;
    case SYS_SETPRIORITY:
        return sys_setpriority(-1, 0, 0) == -1;
    case SYS_GETRLIMIT:
        return sys_getrlimit(RLIMIT_NOFILE, &limit) == -1;
    case SYS_SETRLIMIT:
        return sys_setrlimit(-1, &limit) == -1;
    case SYS_SIGACTION:
        return sys_sigaction(0, NULL, NULL) == -1;
    case SYS_SIGPROCMASK:
        return sys_sigprocmask(-1, &signals, NULL) == -1;
    case SYS_GETRANDOM:
        return sys_getrandom(fds, 0, 0) == -1;
    case SYS_INITGROUPS:
        return sys_initgroups("", 0) == -1;
    case SYS_SETGID:
        return sys_setgid((gid_t)-1) == -1;
    case SYS_SETUID:
        return sys_setuid((uid_t)-1) == -1;
    case SYS_DROP_CAPABILITIES:
        return sys_drop_capabilities() == -1;
    case SYS_LANDLOCK_CREATE_RULESET:
        return sys_landlock_create_ruleset(NULL, 0, 0) == -1;
    case SYS_LANDLOCK_ADD_RULE:
        return sys_landlock_add_rule(-1, 0, NULL) == -1;
    case SYS_LANDLOCK_RESTRICT_SELF:
        return sys_landlock_restrict_self(-1) == -1;
    case SYS_SECCOMP:
    case SYS_IO_URING_SETUP:
    case SYS_IO_URING_REGISTER:
    case SYS_URING_READ:
    case SYS_URING_WRITE:
    case SYS_URING_SYNC:
    case SYS_URING_WATCH:
    case SYS_URING_WAKE:
        return sys_fault(kind); /* no function: the ring asks */
    case SYS_CALL_COUNT:
        break;
    }
    return false;
}

static void every_kind_fails_when_armed(void **state)
{
    unsigned before = open_descriptors();

    (void)state;
    for (unsigned i = 0; i < SYS_CALL_COUNT; i++) {
        enum sys_call kind = (enum sys_call)i;
        sys_fault_arm(kind, 1, PLANTED, false);
        errno = 0;
        if (!fails(kind) || errno != PLANTED || sys_fault_count(kind) != 1)
            fail_msg("%s: errno %d, failed %u times", sys_call_name(kind), errno, sys_fault_count(kind));
        assert_true(sys_call_count(kind) >= 1);
    }
    assert_int_equal(open_descriptors(), before);
    sys_fault_clear();
    assert_int_equal(sys_fault_count(SYS_FSYNC), 0);
    assert_int_equal(sys_call_count(SYS_FSYNC), 0);
}

/* errno of one fsync() of nothing: EBADF by itself. */
static int sync_nothing(void)
{
    errno = 0;
    assert_int_equal(sys_fsync(-1), -1);
    return errno;
}

static void the_nth_once_or_for_ever(void **state)
{
    (void)state;
    sys_fault_clear();
    assert_int_equal(sync_nothing(), EBADF);
    sys_fault_arm(SYS_FSYNC, 3, EIO, false);
    assert_int_equal(sync_nothing(), EBADF);
    assert_int_equal(sync_nothing(), EBADF);
    assert_int_equal(sync_nothing(), EIO);
    assert_int_equal(sync_nothing(), EBADF);
    assert_int_equal(sys_fault_count(SYS_FSYNC), 1);

    sys_fault_arm(SYS_FSYNC, 2, ENOSPC, true);
    assert_int_equal(sync_nothing(), EBADF);
    for (int i = 0; i < 5; i++)
        assert_int_equal(sync_nothing(), ENOSPC);
    sys_fault_clear();
    assert_int_equal(sync_nothing(), EBADF);
    assert_int_equal(sys_call_count(SYS_FSYNC), 1);
}

static void a_failed_close_has_closed(void **state)
{
    unsigned before = open_descriptors();
    int fd = sys_open("/", 0, 0);

    (void)state;
    assert_true(fd >= 0);
    sys_fault_arm(SYS_CLOSE, 1, EIO, false);
    assert_int_equal(sys_close(fd), -1);
    assert_int_equal(errno, EIO);
    assert_int_equal(open_descriptors(), before);
    sys_fault_clear();
}

static int sync_in_child(void *unused)
{
    (void)unused;
    return sys_fsync(-1) == -1 && errno == EIO ? 7 : 8;
}

static void children_share_the_table(void **state)
{
    (void)state;
    sys_fault_clear();
    sys_fault_arm(SYS_FSYNC, 2, EIO, false);
    assert_int_equal(fork_wait(fork_run(sync_in_child, NULL), WAIT_MS), 8);
    assert_int_equal(fork_wait(fork_run(sync_in_child, NULL), WAIT_MS), 7);
    assert_int_equal(fork_wait(fork_run(sync_in_child, NULL), WAIT_MS), 8);
    assert_int_equal(sys_fault_count(SYS_FSYNC), 1);
    assert_int_equal(sys_call_count(SYS_FSYNC), 3);
    sys_fault_clear();
}

static void malformed_texts_arm_nothing(void **state)
{
    static const char *const texts[] = {"fsync",        "fsync:1",       "fsync:1:",        "fsync:0:EIO",
                                        "fsync:x:EIO",  "fsync:1:EWHAT", "fsinc:1:EIO",     "fsync:-1:EIO",
                                        "fsync:1-:EIO", "fsync:1:EIO:2", "fsync:+:EIO",     "fsync:1:EIO,x",
                                        ":::",          "fsync:1++:EIO", "fsync:1:EIO,:1:", "fsync:4294967297:EIO"};

    (void)state;
    sys_fault_clear();
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        if (sys_fault_parse(texts[i]))
            fail_msg("accepted: %s", texts[i]);
        assert_int_equal(sync_nothing(), EBADF);
    }
    assert_true(sys_fault_parse("fsync:2:EIO,openat:1+:ENOSPC"));
    assert_int_equal(sync_nothing(), EBADF);
    assert_int_equal(sync_nothing(), EIO);
    assert_int_equal(sys_openat(-1, "", 0, 0), -1);
    assert_int_equal(errno, ENOSPC);
    sys_fault_clear();
}

static struct process_result run_with(const char *fault)
{
    const char *const environment[] = {fault, NULL};
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

    assert_true(length > 0);
    self[length] = '\0';
    return process_run((const char *const[]){self, "sync", NULL}, environment, NULL, 0, WAIT_MS);
}

static void the_environment_arms(void **state)
{
    (void)state;
    struct process_result result = run_with("MR_FAULT=fsync:2:EIO");
    assert_int_equal(result.status, 0);
    assert_string_equal(result.output, "EBADF EIO EBADF\n");
    assert_non_null(strstr(result.error, "MR_FAULT: fsync fails with EIO in process "));
    process_result_free(&result);

    result = run_with("MR_FAULT=fsync:2+:ENOSPC");
    assert_string_equal(result.output, "EBADF ENOSPC ENOSPC\n");
    process_result_free(&result);

    result = run_with("MR_FAULT=fsync:2");
    assert_int_equal(result.status, 2);
    assert_string_equal(result.output, "");
    assert_non_null(strstr(result.error, "'fsync:2' is not of the form"));
    process_result_free(&result);
}

static void clocks_run(void **state)
{
    uint64_t first = sys_clock_ns(CLOCK_MONOTONIC);
    struct timespec time;

    (void)state;
    assert_int_equal(sys_clock_gettime(CLOCK_MONOTONIC, &time), 0);
    uint64_t second = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
    assert_true(first <= second);
    assert_true(second <= sys_clock_ns(CLOCK_MONOTONIC));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_fails_when_armed),
        cmocka_unit_test(the_nth_once_or_for_ever),
        cmocka_unit_test(a_failed_close_has_closed),
        cmocka_unit_test(children_share_the_table),
        cmocka_unit_test(malformed_texts_arm_nothing),
        cmocka_unit_test(the_environment_arms),
        cmocka_unit_test(clocks_run),
    };

    (void)argv;
    if (argc == 1)
        return cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < 3; i++)
        printf("%s%c", sys_fsync(-1) == -1 ? strerrorname_np(errno) : "none", i < 2 ? ' ' : '\n');
    return 0;
}
