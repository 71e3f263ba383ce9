/* SPDX-License-Identifier: Apache-2.0 */
/* System calls, and nothing else: see sys.h. The table of faults stands in sys_fault.c. */
#include "ipc/sys.h"

#include "ipc/error.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* Files. */

int sys_open(const char *path, int flags, mode_t mode)
{
    return sys_fault(SYS_OPEN) ? -1 : open(path, flags, mode);
}

int sys_openat(int directory, const char *path, int flags, mode_t mode)
{
    return sys_fault(SYS_OPENAT) ? -1 : openat(directory, path, flags, mode);
}

int sys_close(int fd)
{
    /* As in the kernel, a failed close has closed the descriptor all the same. */
    bool fault = sys_fault(SYS_CLOSE);
    int code = errno;
    int result = close(fd);

    if (!fault)
        return result;
    errno = code;
    return -1;
}

ssize_t sys_read(int fd, void *buffer, size_t size)
{
    return sys_fault(SYS_READ) ? -1 : read(fd, buffer, size);
}

ssize_t sys_pread(int fd, void *buffer, size_t size, off_t offset)
{
    return sys_fault(SYS_PREAD) ? -1 : pread(fd, buffer, size, offset);
}

ssize_t sys_write(int fd, const void *buffer, size_t size)
{
    return sys_fault(SYS_WRITE) ? -1 : write(fd, buffer, size);
}

ssize_t sys_pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
    return sys_fault(SYS_PWRITE) ? -1 : pwrite(fd, buffer, size, offset);
}

int sys_fsync(int fd)
{
    return sys_fault(SYS_FSYNC) ? -1 : fsync(fd);
}

int sys_ftruncate(int fd, off_t size)
{
    return sys_fault(SYS_FTRUNCATE) ? -1 : ftruncate(fd, size);
}

int sys_fallocate(int fd, int mode, off_t offset, off_t size)
{
    return sys_fault(SYS_FALLOCATE) ? -1 : fallocate(fd, mode, offset, size);
}

int sys_fstat(int fd, struct stat *out)
{
    return sys_fault(SYS_FSTAT) ? -1 : fstat(fd, out);
}

int sys_fstatat(int directory, const char *path, struct stat *out, int flags)
{
    return sys_fault(SYS_FSTATAT) ? -1 : fstatat(directory, path, out, flags);
}

int sys_statx(int directory, const char *path, int flags, unsigned mask, struct statx *out)
{
    return sys_fault(SYS_STATX) ? -1 : statx(directory, path, flags, mask, out);
}

int sys_fchownat(int directory, const char *path, uid_t user, gid_t group, int flags)
{
    return sys_fault(SYS_FCHOWNAT) ? -1 : fchownat(directory, path, user, group, flags);
}

int sys_flock(int fd, int operation)
{
    return sys_fault(SYS_FLOCK) ? -1 : flock(fd, operation);
}

int sys_fcntl(int fd, int command, long argument)
{
    return sys_fault(SYS_FCNTL) ? -1 : fcntl(fd, command, argument);
}

int sys_dup(int fd)
{
    return sys_fault(SYS_DUP) ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0L);
}

/* Directories. */

int sys_mkdir(const char *path, mode_t mode)
{
    return sys_fault(SYS_MKDIR) ? -1 : mkdir(path, mode);
}

int sys_mkdirat(int directory, const char *path, mode_t mode)
{
    return sys_fault(SYS_MKDIRAT) ? -1 : mkdirat(directory, path, mode);
}

int sys_unlink(const char *path)
{
    return sys_fault(SYS_UNLINK) ? -1 : unlink(path);
}

int sys_unlinkat(int directory, const char *path, int flags)
{
    return sys_fault(SYS_UNLINKAT) ? -1 : unlinkat(directory, path, flags);
}

int sys_renameat(int from_directory, const char *from, int to_directory, const char *to)
{
    return sys_fault(SYS_RENAMEAT) ? -1 : renameat(from_directory, from, to_directory, to);
}

DIR *sys_fdopendir(int fd)
{
    return sys_fault(SYS_FDOPENDIR) ? NULL : fdopendir(fd);
}

struct dirent *sys_readdir(DIR *directory)
{
    if (sys_fault(SYS_READDIR))
        return NULL;
    errno = 0;
    return readdir(directory);
}

int sys_closedir(DIR *directory)
{
    bool fault = sys_fault(SYS_CLOSEDIR);
    int code = errno;
    int result = closedir(directory);

    if (!fault)
        return result;
    errno = code;
    return -1;
}

/* Memory. */

void *sys_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return sys_fault(SYS_MMAP) ? MAP_FAILED : mmap(address, size, protection, flags, fd, offset);
}

int sys_munmap(void *address, size_t size)
{
    return sys_fault(SYS_MUNMAP) ? -1 : munmap(address, size);
}

int sys_madvise(void *address, size_t size, int advice)
{
    return sys_fault(SYS_MADVISE) ? -1 : madvise(address, size, advice);
}

int sys_memfd_create(const char *name, unsigned flags)
{
    return sys_fault(SYS_MEMFD_CREATE) ? -1 : memfd_create(name, flags);
}

/* Descriptors of events. */

int sys_eventfd(unsigned count, int flags)
{
    return sys_fault(SYS_EVENTFD) ? -1 : eventfd(count, flags);
}

int sys_signalfd(int fd, const sigset_t *signals, int flags)
{
    return sys_fault(SYS_SIGNALFD) ? -1 : signalfd(fd, signals, flags);
}

int sys_timerfd_create(clockid_t clock, int flags)
{
    return sys_fault(SYS_TIMERFD_CREATE) ? -1 : timerfd_create(clock, flags);
}

int sys_timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    return sys_fault(SYS_TIMERFD_SETTIME) ? -1 : timerfd_settime(fd, flags, value, old);
}

/* Sockets and waiting. */

int sys_socket(int domain, int type, int protocol)
{
    return sys_fault(SYS_SOCKET) ? -1 : socket(domain, type, protocol);
}

int sys_socketpair(int domain, int type, int protocol, int fds[2])
{
    return sys_fault(SYS_SOCKETPAIR) ? -1 : socketpair(domain, type, protocol, fds);
}

int sys_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    return sys_fault(SYS_BIND) ? -1 : bind(fd, address, size);
}

int sys_listen(int fd, int backlog)
{
    return sys_fault(SYS_LISTEN) ? -1 : listen(fd, backlog);
}

int sys_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    return sys_fault(SYS_ACCEPT4) ? -1 : accept4(fd, address, size, flags);
}

int sys_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    return sys_fault(SYS_CONNECT) ? -1 : connect(fd, address, size);
}

ssize_t sys_sendmsg(int fd, const struct msghdr *message, int flags)
{
    return sys_fault(SYS_SENDMSG) ? -1 : sendmsg(fd, message, flags);
}

ssize_t sys_recvmsg(int fd, struct msghdr *message, int flags)
{
    return sys_fault(SYS_RECVMSG) ? -1 : recvmsg(fd, message, flags);
}

int sys_getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    return sys_fault(SYS_GETSOCKOPT) ? -1 : getsockopt(fd, level, option, value, size);
}

int sys_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    return sys_fault(SYS_POLL) ? -1 : poll(fds, count, timeout_ms);
}

int sys_epoll_create1(int flags)
{
    return sys_fault(SYS_EPOLL_CREATE1) ? -1 : epoll_create1(flags);
}

int sys_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    return sys_fault(SYS_EPOLL_CTL) ? -1 : epoll_ctl(epoll, operation, fd, event);
}

int sys_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms)
{
    return sys_fault(SYS_EPOLL_WAIT) ? -1 : epoll_wait(epoll, events, count, timeout_ms);
}

/* Processes, scheduling, limits, signals. */

pid_t sys_fork(void)
{
    return sys_fault(SYS_FORK) ? -1 : fork();
}

int sys_kill(pid_t pid, int signal)
{
    return sys_fault(SYS_KILL) ? -1 : kill(pid, signal);
}

pid_t sys_waitpid(pid_t pid, int *status, int flags)
{
    return sys_fault(SYS_WAITPID) ? -1 : waitpid(pid, status, flags);
}

int sys_pidfd_open(pid_t pid, unsigned flags)
{
    return sys_fault(SYS_PIDFD_OPEN) ? -1 : pidfd_open(pid, flags);
}

int sys_prctl(int option, unsigned long argument)
{
    /* Some options refuse anything but zeros in the arguments that they do not use. */
    return sys_fault(SYS_PRCTL) ? -1 : prctl(option, argument, 0UL, 0UL, 0UL);
}

int sys_sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *cpus)
{
    return sys_fault(SYS_SCHED_SETAFFINITY) ? -1 : sched_setaffinity(pid, size, cpus);
}

int sys_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *cpus)
{
    return sys_fault(SYS_SCHED_GETAFFINITY) ? -1 : sched_getaffinity(pid, size, cpus);
}

int sys_setpriority(int which, id_t who, int nice)
{
    return sys_fault(SYS_SETPRIORITY) ? -1 : setpriority((__priority_which_t)which, who, nice);
}

int sys_getrlimit(int resource, struct rlimit *limit)
{
    return sys_fault(SYS_GETRLIMIT) ? -1 : getrlimit((__rlimit_resource_t)resource, limit);
}

int sys_setrlimit(int resource, const struct rlimit *limit)
{
    return sys_fault(SYS_SETRLIMIT) ? -1 : setrlimit((__rlimit_resource_t)resource, limit);
}

int sys_sigaction(int signal, const struct sigaction *action, struct sigaction *old)
{
    return sys_fault(SYS_SIGACTION) ? -1 : sigaction(signal, action, old);
}

int sys_sigprocmask(int how, const sigset_t *signals, sigset_t *old)
{
    if (sys_fault(SYS_SIGPROCMASK))
        return -1;
    /* The thread's own mask; pthread_sigmask() returns the error instead of setting it. */
    int code = pthread_sigmask(how, signals, old);
    if (code == 0)
        return 0;
    errno = code;
    return -1;
}

int sys_initgroups(const char *user, gid_t group)
{
    return sys_fault(SYS_INITGROUPS) ? -1 : initgroups(user, group);
}

int sys_setgid(gid_t group)
{
    return sys_fault(SYS_SETGID) ? -1 : setgid(group);
}

int sys_setuid(uid_t user)
{
    return sys_fault(SYS_SETUID) ? -1 : setuid(user);
}

/* glibc has no function for the sets. What leaves the permitted set leaves the ambient one by itself. */
int sys_drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

    if (sys_fault(SYS_DROP_CAPABILITIES))
        return -1;
    /* Takes CAP_SETPCAP, so it comes first. The numbers have no gaps: the first that is refused ends it (EINVAL: behind
     * the last; EPERM: whoever lacks that right). */
    for (unsigned long capability = 0; capability < 32 * _LINUX_CAPABILITY_U32S_3; capability++)
        if (prctl(PR_CAPBSET_DROP, capability, 0UL, 0UL, 0UL) != 0)
            break;
    return (int)syscall(SYS_capset, &header, none);
}

int sys_landlock_create_ruleset(const void *attributes, size_t size, unsigned flags)
{
    return sys_fault(SYS_LANDLOCK_CREATE_RULESET) ? -1
                                                  : (int)syscall(SYS_landlock_create_ruleset, attributes, size, flags);
}

int sys_landlock_add_rule(int ruleset, int type, const void *rule)
{
    return sys_fault(SYS_LANDLOCK_ADD_RULE) ? -1 : (int)syscall(SYS_landlock_add_rule, ruleset, type, rule, 0U);
}

int sys_landlock_restrict_self(int ruleset)
{
    return sys_fault(SYS_LANDLOCK_RESTRICT_SELF) ? -1 : (int)syscall(SYS_landlock_restrict_self, ruleset, 0U);
}

ssize_t sys_getrandom(void *buffer, size_t size, unsigned flags)
{
    return sys_fault(SYS_GETRANDOM) ? -1 : getrandom(buffer, size, flags);
}

int sys_clock_gettime(clockid_t clock, struct timespec *time)
{
    return clock_gettime(clock, time);
}

uint64_t sys_clock_ns(clockid_t clock)
{
    struct timespec now;
    int result = clock_gettime(clock, &now);

    mr_assert(result == 0); /* only a clock that does not exist fails, and the clock is a constant of ours */
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}
