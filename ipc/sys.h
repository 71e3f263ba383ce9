/* SPDX-License-Identifier: Apache-2.0 */
/* Every system call of node and library that can fail, as thin functions with libc's signatures and results: -1 (or
 * MAP_FAILED, NULL) and errno. They know nothing of what they are used for. (io_uring's operations are wrapped where
 * the ring is, in engine/io.)
 *
 * They stand in one place so that a test can fail the n-th call of a kind. In builds with -DMR_TESTING each call first
 * asks the fault table: sys_fault_arm() from within a test, or for a program that a test starts the environment
 * variable
 *
 *     MR_FAULT=fsync:3:EIO,openat:1+:ENOSPC
 *
 * which fails the third fsync() with EIO, once, and every openat() from the first on with ENOSPC. The table is shared
 * by a process and all that it forks: "third" counts the calls of the supervisor and all workers together, and a fault
 * for once is over also for the worker that comes after. MR_FAULT=count fails nothing; the program's last line on
 * standard error is then `MR_FAULT: calls open:3 openat:17 ...`, a number for each kind. In other builds there is no
 * table and nothing is asked. */
#ifndef IPC_SYS_H
#define IPC_SYS_H

#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

/* The kinds, once: CALL(KIND, name) makes SYS_KIND, its name in MR_FAULT, and stands for the function sys_name(). The
 * last eight have no function here: engine/io and engine/node/sandbox.c ask for them themselves. */
#define SYS_CALLS(CALL)                                                                                                \
    CALL(OPEN, open)                                                                                                   \
    CALL(OPENAT, openat)                                                                                               \
    CALL(CLOSE, close)                                                                                                 \
    CALL(READ, read)                                                                                                   \
    CALL(PREAD, pread)                                                                                                 \
    CALL(WRITE, write)                                                                                                 \
    CALL(PWRITE, pwrite)                                                                                               \
    CALL(FSYNC, fsync)                                                                                                 \
    CALL(FTRUNCATE, ftruncate)                                                                                         \
    CALL(FALLOCATE, fallocate)                                                                                         \
    CALL(FSTAT, fstat)                                                                                                 \
    CALL(FSTATAT, fstatat)                                                                                             \
    CALL(STATX, statx)                                                                                                 \
    CALL(FCHOWNAT, fchownat)                                                                                           \
    CALL(FLOCK, flock)                                                                                                 \
    CALL(FCNTL, fcntl)                                                                                                 \
    CALL(DUP, dup)                                                                                                     \
    CALL(MKDIR, mkdir)                                                                                                 \
    CALL(MKDIRAT, mkdirat)                                                                                             \
    CALL(UNLINK, unlink)                                                                                               \
    CALL(UNLINKAT, unlinkat)                                                                                           \
    CALL(RENAMEAT, renameat)                                                                                           \
    CALL(FDOPENDIR, fdopendir)                                                                                         \
    CALL(READDIR, readdir)                                                                                             \
    CALL(CLOSEDIR, closedir)                                                                                           \
    CALL(MMAP, mmap)                                                                                                   \
    CALL(MUNMAP, munmap)                                                                                               \
    CALL(MADVISE, madvise)                                                                                             \
    CALL(MEMFD_CREATE, memfd_create)                                                                                   \
    CALL(EVENTFD, eventfd)                                                                                             \
    CALL(SIGNALFD, signalfd)                                                                                           \
    CALL(TIMERFD_CREATE, timerfd_create)                                                                               \
    CALL(TIMERFD_SETTIME, timerfd_settime)                                                                             \
    CALL(SOCKET, socket)                                                                                               \
    CALL(SOCKETPAIR, socketpair)                                                                                       \
    CALL(BIND, bind)                                                                                                   \
    CALL(LISTEN, listen)                                                                                               \
    CALL(ACCEPT4, accept4)                                                                                             \
    CALL(CONNECT, connect)                                                                                             \
    CALL(SENDMSG, sendmsg)                                                                                             \
    CALL(RECVMSG, recvmsg)                                                                                             \
    CALL(GETSOCKOPT, getsockopt)                                                                                       \
    CALL(POLL, poll)                                                                                                   \
    CALL(EPOLL_CREATE1, epoll_create1)                                                                                 \
    CALL(EPOLL_CTL, epoll_ctl)                                                                                         \
    CALL(EPOLL_WAIT, epoll_wait)                                                                                       \
    CALL(FORK, fork)                                                                                                   \
    CALL(KILL, kill)                                                                                                   \
    CALL(WAITPID, waitpid)                                                                                             \
    CALL(PIDFD_OPEN, pidfd_open)                                                                                       \
    CALL(PRCTL, prctl)                                                                                                 \
    CALL(SCHED_SETAFFINITY, sched_setaffinity)                                                                         \
    CALL(SCHED_GETAFFINITY, sched_getaffinity)                                                                         \
    CALL(SETPRIORITY, setpriority)                                                                                     \
    CALL(GETRLIMIT, getrlimit)                                                                                         \
    CALL(SETRLIMIT, setrlimit)                                                                                         \
    CALL(SIGACTION, sigaction)                                                                                         \
    CALL(SIGPROCMASK, sigprocmask)                                                                                     \
    CALL(GETRANDOM, getrandom)                                                                                         \
    CALL(INITGROUPS, initgroups)                                                                                       \
    CALL(SETGID, setgid)                                                                                               \
    CALL(SETUID, setuid)                                                                                               \
    CALL(DROP_CAPABILITIES, drop_capabilities)                                                                         \
    CALL(LANDLOCK_CREATE_RULESET, landlock_create_ruleset)                                                             \
    CALL(LANDLOCK_ADD_RULE, landlock_add_rule)                                                                         \
    CALL(LANDLOCK_RESTRICT_SELF, landlock_restrict_self)                                                               \
    CALL(SECCOMP, seccomp)                                                                                             \
    CALL(IO_URING_SETUP, io_uring_setup)                                                                               \
    CALL(IO_URING_REGISTER, io_uring_register)                                                                         \
    CALL(URING_READ, uring_read)                                                                                       \
    CALL(URING_WRITE, uring_write)                                                                                     \
    CALL(URING_SYNC, uring_sync)                                                                                       \
    CALL(URING_WATCH, uring_watch)                                                                                     \
    CALL(URING_WAKE, uring_wake)

enum sys_call {
#define SYS_CALL_KIND(KIND, name) SYS_##KIND,
    SYS_CALLS(SYS_CALL_KIND)
#undef SYS_CALL_KIND
        SYS_CALL_COUNT
};

struct epoll_event;
struct itimerspec;
struct stat;
struct statx;

/* Files. */
int sys_open(const char *path, int flags, mode_t mode);
int sys_openat(int directory, const char *path, int flags, mode_t mode);
int sys_close(int fd); /* closes it also where it reports an error */
ssize_t sys_read(int fd, void *buffer, size_t size);
ssize_t sys_pread(int fd, void *buffer, size_t size, off_t offset);
ssize_t sys_write(int fd, const void *buffer, size_t size);
ssize_t sys_pwrite(int fd, const void *buffer, size_t size, off_t offset);
int sys_fsync(int fd);
int sys_ftruncate(int fd, off_t size);
int sys_fallocate(int fd, int mode, off_t offset, off_t size);
int sys_fstat(int fd, struct stat *out);
int sys_fstatat(int directory, const char *path, struct stat *out, int flags);
int sys_statx(int directory, const char *path, int flags, unsigned mask, struct statx *out);
int sys_fchownat(int directory, const char *path, uid_t user, gid_t group, int flags);
int sys_flock(int fd, int operation);
int sys_fcntl(int fd, int command, long argument); /* flags, seals; not for commands that take a pointer */
int sys_dup(int fd);                               /* close-on-exec */

/* Directories. readdir: NULL with errno 0 at the end (errno is cleared before the call). */
int sys_mkdir(const char *path, mode_t mode);
int sys_mkdirat(int directory, const char *path, mode_t mode);
int sys_unlink(const char *path);
int sys_unlinkat(int directory, const char *path, int flags);
int sys_renameat(int from_directory, const char *from, int to_directory, const char *to);
DIR *sys_fdopendir(int fd);
struct dirent *sys_readdir(DIR *directory);
int sys_closedir(DIR *directory); /* closes it also where it reports an error */

/* Memory. */
void *sys_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int sys_munmap(void *address, size_t size);
int sys_madvise(void *address, size_t size, int advice);
int sys_memfd_create(const char *name, unsigned flags);

/* Descriptors of events. */
int sys_eventfd(unsigned count, int flags);
int sys_signalfd(int fd, const sigset_t *signals, int flags);
int sys_timerfd_create(clockid_t clock, int flags);
int sys_timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old);

/* Sockets and waiting. */
int sys_socket(int domain, int type, int protocol);
int sys_socketpair(int domain, int type, int protocol, int fds[2]);
int sys_bind(int fd, const struct sockaddr *address, socklen_t size);
int sys_listen(int fd, int backlog);
int sys_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int sys_connect(int fd, const struct sockaddr *address, socklen_t size);
ssize_t sys_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t sys_recvmsg(int fd, struct msghdr *message, int flags);
int sys_getsockopt(int fd, int level, int option, void *value, socklen_t *size);
int sys_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int sys_epoll_create1(int flags);
int sys_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int sys_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms);

/* Processes, scheduling, limits, signals. */
pid_t sys_fork(void);
int sys_kill(pid_t pid, int signal);
pid_t sys_waitpid(pid_t pid, int *status, int flags);
int sys_pidfd_open(pid_t pid, unsigned flags); /* close-on-exec */
int sys_prctl(int option, unsigned long argument);
int sys_sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *cpus);
int sys_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *cpus);
int sys_setpriority(int which, id_t who, int nice);
int sys_getrlimit(int resource, struct rlimit *limit);
int sys_setrlimit(int resource, const struct rlimit *limit);
int sys_sigaction(int signal, const struct sigaction *action, struct sigaction *old);
/* The calling thread's mask. */
int sys_sigprocmask(int how, const sigset_t *signals, sigset_t *old);
/* Who this process is. */
int sys_initgroups(const char *user, gid_t group);
int sys_setgid(gid_t group);
int sys_setuid(uid_t user);
/* No capability is left in any set. Whoever is not allowed to empty the bounding set keeps that one: it gives nothing,
 * and limits what a program that is started could have. */
int sys_drop_capabilities(void);
/* Landlock, which glibc has no functions for. A NULL ruleset and size 0 with a flag asks for the version. */
int sys_landlock_create_ruleset(const void *attributes, size_t size, unsigned flags);
int sys_landlock_add_rule(int ruleset, int type, const void *rule);
int sys_landlock_restrict_self(int ruleset);
ssize_t sys_getrandom(void *buffer, size_t size, unsigned flags);

/* Clocks do not fail for the clocks that exist, and are read often: no kind, no fault. */
int sys_clock_gettime(clockid_t clock, struct timespec *time);
uint64_t sys_clock_ns(clockid_t clock); /* the same in nanoseconds */

#ifdef MR_TESTING
/* Asked by each of the functions above: true if this call is to fail; errno is then set. */
bool sys_fault(enum sys_call kind);
/* Fails the nth call of `kind` from now (1: the next one) with errno `code`; `for_ever`: that and every later one.
 * Replaces what was armed for the kind before. */
void sys_fault_arm(enum sys_call kind, unsigned nth, int code, bool for_ever);
/* Disarms all kinds and forgets what has been counted. */
void sys_fault_clear(void);
/* How many calls of the kind have been made to fail since the last clear. */
unsigned sys_fault_count(enum sys_call kind);
/* How many calls of the kind there have been since the last clear, failed ones included. */
unsigned sys_call_count(enum sys_call kind);
const char *sys_call_name(enum sys_call kind);
/* Arms what `text` says, in the form of MR_FAULT. Returns false, and arms nothing, if it is malformed. */
bool sys_fault_parse(const char *text);
#else
static inline bool sys_fault(enum sys_call kind)
{
    (void)kind;
    return false;
}
#endif

#endif
