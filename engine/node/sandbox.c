/* SPDX-License-Identifier: Apache-2.0 */
/* No new privileges, no old ones, Landlock, seccomp: see sandbox.h. Each is tried by itself, so that a system that
 * lacks one still gives the others.
 *
 * Capabilities: a worker whose node is root's would have all of them. What takes one is over by now (the ring, whose
 * memory is not counted against root's limit, was made before), and the files that it uses are its own user's.
 *
 * Landlock: of all files the worker may use those in its partition's folder, and read what sysfs says of block devices
 * (a log asks for its disk's block size). It may connect or bind no TCP socket, reach no abstract Unix socket and send
 * no signal to processes but its own children, where the kernel knows how to keep it from that. Descriptors that it has
 * already (the control socket, channels, memory segments, the lock) stay what they are.
 *
 * Seccomp: the system calls below, some with certain arguments only; any other gives EPERM. No signal to the
 * supervisor passes, whatever Landlock knows. In builds for tests a call that is not below is the process's end
 * (SIGSYS), so that one which is missing here does not go unnoticed; where sandbox_try() is asked for, it is EPERM
 * there, too. */
#include "engine/node/sandbox.h"

#include "engine/node/logline.h"
#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* A build with a sanitizer keeps its calls and its files: the sanitizer's runtime uses whatever it likes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* ---- files ---- */

/* What newer kernels than the system's headers know. */
#define FS_TRUNCATE (UINT64_C(1) << 14)
#define FS_IOCTL_DEVICE (UINT64_C(1) << 15)
#define NET_ALL (UINT64_C(3))   /* bind and connect, TCP */
#define SCOPE_ALL (UINT64_C(3)) /* abstract Unix sockets, signals */

struct ruleset {
    uint64_t files;
    uint64_t net;
    uint64_t scope;
};

static const char block_devices[] = "/sys/devices";

#define FOLDER_RIGHTS                                                                                                  \
    (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_DIR |                      \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | FS_TRUNCATE)

/* By the version of the interface; each knows all that the former ones did. */
static struct ruleset all_that_is_known(int version)
{
    uint64_t files = (UINT64_C(1) << 13) - 1; /* version 1: up to MAKE_SYM */

    if (version >= 2)
        files |= LANDLOCK_ACCESS_FS_REFER;
    if (version >= 3)
        files |= FS_TRUNCATE;
    if (version >= 5)
        files |= FS_IOCTL_DEVICE;
    return (struct ruleset){.files = files, .net = version >= 4 ? NET_ALL : 0, .scope = version >= 6 ? SCOPE_ALL : 0};
}

/* -1 with errno. */
static int allow_below(int ruleset, const char *path, uint64_t rights)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = rights};

    rule.parent_fd = sys_open(path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (rule.parent_fd < 0)
        return -1;
    int result = sys_landlock_add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule);
    int code = errno;
    (void)sys_close(rule.parent_fd); /* was only named */
    errno = code;
    return result;
}

static int restrict_files(const char *folder, struct mr_error *error)
{
    int version;

    if (SANITIZED)
        return 0;
    version = sys_landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1)
        return error_system(error, errno, "files of others stay within reach: this kernel has no Landlock");
    struct ruleset all = all_that_is_known(version);
    int ruleset = sys_landlock_create_ruleset(&all, sizeof(all), 0);
    if (ruleset < 0)
        return error_system(error, errno, "files of others stay within reach: no Landlock ruleset is to be had");
    int result = folder != NULL ? allow_below(ruleset, folder, FOLDER_RIGHTS & all.files) : 0;
    /* Where there is no sysfs, nothing is to be read there. */
    if (result == 0 && allow_below(ruleset, block_devices, LANDLOCK_ACCESS_FS_READ_FILE) != 0 && errno != ENOENT)
        result = -1;
    if (result == 0)
        result = sys_landlock_restrict_self(ruleset);
    if (result != 0)
        error_system(error, errno, "files of others stay within reach: Landlock is refused");
    (void)sys_close(ruleset); /* was only made */
    return result;
}

/* ---- system calls ---- */

/* Whatever their arguments are. A name that a processor does not have is passed over there. */
static const int calls[] = {
    /* files, which Landlock keeps to the folder, and descriptors that are there */
    SCMP_SYS(openat), SCMP_SYS(close), SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(write), SCMP_SYS(pwrite64),
    SCMP_SYS(writev), SCMP_SYS(lseek), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
    SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(fstatfs), SCMP_SYS(flock), SCMP_SYS(getdents64),
    SCMP_SYS(unlinkat), SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(dup), SCMP_SYS(memfd_create),
    /* the control socket; waiting */
    SCMP_SYS(sendmsg), SCMP_SYS(recvmsg), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(io_uring_enter),
    SCMP_SYS(io_uring_register), /* of the one ring that there is */
    /* memory */
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(futex),
    /* the child that writes a snapshot, and ends of processes */
    SCMP_SYS(pidfd_open), SCMP_SYS(wait4), SCMP_SYS(waitid), SCMP_SYS(exit), SCMP_SYS(exit_group),
    SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(restart_syscall), SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(gettid),
    /* processors, clocks */
    SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_setaffinity), SCMP_SYS(setpriority),
    SCMP_SYS(getcpu), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(getrandom),
    SCMP_SYS(uname),
    /* of qsort(), on many elements */
    SCMP_SYS(sysinfo)};

/* Only where one argument, under a mask, has a value. */
static const struct {
    int call;
    unsigned argument;
    uint64_t mask, value;
} narrow[] = {
    /* memory that is never code */
    {SCMP_SYS(mmap), 2, PROT_EXEC, 0},
    {SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
    /* a fork: no threads, no namespaces */
    {SCMP_SYS(clone), 0, ~(uint64_t)(CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID), SIGCHLD},
    {SCMP_SYS(kill), 1, UINT32_MAX, SIGKILL},
    {SCMP_SYS(prctl), 0, UINT32_MAX, PR_SET_PDEATHSIG},
    {SCMP_SYS(prctl), 0, UINT32_MAX, PR_SET_NAME},
    /* limits are asked, not set */
    {SCMP_SYS(prlimit64), 2, UINT64_MAX, 0},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETFL},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_SETFL},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_GETFD},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_SETFD},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_DUPFD_CLOEXEC},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_ADD_SEALS},
    {SCMP_SYS(fcntl), 1, UINT32_MAX, F_GET_SEALS},
};

static uint32_t for_the_rest(void)
{
#ifdef MR_TESTING
    if (getenv("MR_SANDBOX_TRY") == NULL)
        return SCMP_ACT_KILL_PROCESS;
#endif
    return SCMP_ACT_ERRNO(EPERM);
}

/* abort() signals the process that it is in. (That of a child, which is another, is refused it, and ends by the
 * instruction that comes next.) */
static int allow_own_signals(scmp_filter_ctx filter)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                            SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint32_t)getpid()));
}

/* SIGKILL is for children. Before its version 6 Landlock knows nothing of signals: the supervisor, and whole groups of
 * processes, which it may be in, are kept out of reach here. A filter by itself, for within one the rule that lets
 * SIGKILL pass would be looked at first; of several filters the strictest counts. */
static int fill_signals(scmp_filter_ctx filter)
{
    const struct {
        uint64_t mask, value;
    } kept_out[] = {{UINT32_MAX, (uint32_t)getppid()}, {UINT32_MAX, 0}, {UINT64_C(1) << 31, UINT64_C(1) << 31}};
    int result = 0;

    for (size_t n = 0; n < sizeof(kept_out) / sizeof(kept_out[0]) && result == 0; n++)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(kill), 1,
                                  SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, kept_out[n].mask, kept_out[n].value));
    return result;
}

static int fill_filter(scmp_filter_ctx filter)
{
    int result = allow_own_signals(filter);

    for (size_t n = 0; n < sizeof(calls) / sizeof(calls[0]) && result == 0; n++)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[n], 0);
    for (size_t n = 0; n < sizeof(narrow) / sizeof(narrow[0]) && result == 0; n++)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, narrow[n].call, 1,
                                  SCMP_CMP64(narrow[n].argument, SCMP_CMP_MASKED_EQ, narrow[n].mask, narrow[n].value));
    return result;
}

/* -1 with *error. */
static int load_filter(uint32_t for_others, int (*fill)(scmp_filter_ctx filter), struct mr_error *error)
{
    scmp_filter_ctx filter = seccomp_init(for_others);
    if (filter == NULL)
        return error_system(error, ENOMEM, "system calls stay unfiltered: no memory for the filter");
    int result = fill(filter);
    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: few steps for each call */
    if (result == 0)
        result = sys_fault(SYS_SECCOMP) ? -errno : seccomp_load(filter);
    seccomp_release(filter);
    return result == 0 ? 0 : error_system(error, -result, "system calls stay unfiltered: seccomp is refused");
}

/* The list comes last: it has no call that loads another. */
static int restrict_calls(struct mr_error *error)
{
    return SANITIZED || (load_filter(SCMP_ACT_ALLOW, fill_signals, error) == 0 &&
                         load_filter(for_the_rest(), fill_filter, error) == 0)
               ? 0
               : -1;
}

/* ---- all of it ---- */

/* *failed gets the first reason. */
static void look(int result, const struct mr_error *error, enum sandbox_mode mode, uint32_t partition,
                 struct mr_error *failed)
{
    if (result == 0)
        return;
    if (mode != SANDBOX_REQUIRED)
        logline(LOGLINE_WARNING, partition, "%s; the worker goes on", error->text);
    if (mode != SANDBOX_REQUIRED || failed->text[0] != '\0')
        return;
    error_set(failed, "--sandbox required: %s", error->text);
    failed->code = error->code;
}

int sandbox_enter(enum sandbox_mode mode, const char *folder, uint32_t partition, struct mr_error *error)
{
    struct mr_error why, failed = {.code = 0};
    int result;

    if (mode == SANDBOX_OFF)
        return 0;
    /* Without it an unprivileged process may have neither of the others. */
    result = sys_prctl(PR_SET_NO_NEW_PRIVS, 1);
    if (result != 0)
        error_system(&why, errno, "programs may give new privileges: prctl is refused");
    look(result, &why, mode, partition, &failed);
    look(restrict_files(folder, &why), &why, mode, partition, &failed);
    result = sys_drop_capabilities();
    if (result != 0)
        error_system(&why, errno, "rights beyond those of the user stay: capset is refused");
    look(result, &why, mode, partition, &failed);
    look(restrict_calls(&why), &why, mode, partition, &failed);
    if (failed.text[0] == '\0')
        return 0;
    *error = failed;
    return -1;
}
