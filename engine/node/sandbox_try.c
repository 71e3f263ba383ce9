/* SPDX-License-Identifier: Apache-2.0 */
/* In builds for tests: a worker tries what must be refused to it, by plain calls and through its ring, and says in the
 * log what came of each: "try: NAME: ERRNO", 0 where it was let do it. Where it is let, nothing comes of it: the calls
 * that would do harm have arguments with which they fail in another way, or do nothing. Calls go straight to the
 * kernel: neither libc nor the table of faults is to come between. */
#ifdef MR_TESTING
#include "engine/node/sandbox.h"

#include "engine/io/uring.h"
#include "engine/node/logline.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(uint32_t partition, const char *what, long result)
{
    logline(LOGLINE_INFO, partition, "try: %s: %s", what, result >= 0 ? "0" : strerrorname_np((int)-result));
}

static long plain(long result)
{
    return result < 0 ? -errno : result;
}

/* A child may not signal itself; by abort() it ends all the same. */
static void try_abort(uint32_t partition)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0)
        abort();
    bool ended = child > 0 && waitpid(child, &status, 0) == child;
    logline(LOGLINE_INFO, partition, "try: abort of a child: %s",
            ended && WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : "goes on");
}

static void try_plain(uint32_t partition)
{
    static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/tmp/none"};
    char *const nothing[] = {NULL};
    long fd;

    tell(partition, "open a file", plain(syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY)));
    tell(partition, "open a directory", plain(syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY)));
    tell(partition, "make a file",
         plain(syscall(SYS_openat, AT_FDCWD, getenv("MR_SANDBOX_MAKE"), O_WRONLY | O_CREAT, 0600)));
    tell(partition, "open the identity", plain(syscall(SYS_openat, AT_FDCWD, getenv("MR_SANDBOX_FILE"), O_RDONLY)));
    tell(partition, "open another partition's folder",
         plain(syscall(SYS_openat, AT_FDCWD, getenv("MR_SANDBOX_FOLDER"), O_RDONLY | O_DIRECTORY)));
    fd = plain(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
    tell(partition, "socket", fd);
    tell(partition, "connect", plain(syscall(SYS_connect, 0, &address, sizeof(address))));
    tell(partition, "execve", plain(syscall(SYS_execve, "/nonexistent", nothing, nothing)));
    tell(partition, "ptrace", plain(syscall(SYS_ptrace, PTRACE_ATTACH, -1, 0, 0)));
    tell(partition, "kill", plain(syscall(SYS_kill, getppid(), 0)));
    if (getenv("MR_SANDBOX_KILL") != NULL) {
        tell(partition, "kill the supervisor", plain(syscall(SYS_kill, getppid(), SIGKILL)));
        tell(partition, "kill the group", plain(syscall(SYS_kill, 0, SIGKILL)));
        tell(partition, "kill another group", plain(syscall(SYS_kill, -getppid(), SIGKILL)));
    }
    tell(partition, "signal the supervisor", plain(syscall(SYS_tgkill, getppid(), getppid(), 0)));
    try_abort(partition);
    tell(partition, "setuid", plain(syscall(SYS_setuid, 0)));
    tell(partition, "unshare", plain(syscall(SYS_unshare, 0)));
    tell(partition, "clone a thread", plain(syscall(SYS_clone, CLONE_THREAD | SIGCHLD, 0, 0, 0, 0)));
    tell(partition, "code in memory",
         plain(syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    tell(partition, "another ring", plain(syscall(SYS_io_uring_setup, 4, NULL)));
}

/* One operation by itself: what it completed with. */
static long carry_out(struct io_uring *ring)
{
    struct io_uring_cqe *entry;
    int result = io_uring_submit_and_wait(ring, 1);

    if (result < 0)
        return result;
    result = io_uring_wait_cqe(ring, &entry);
    if (result < 0)
        return result;
    long outcome = entry->res;
    io_uring_cqe_seen(ring, entry);
    return outcome;
}

static void try_ring(struct io_uring *ring, uint32_t partition)
{
    static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/tmp/none"};
    struct io_uring_sqe *entry = io_uring_get_sqe(ring);

    io_uring_prep_openat(entry, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
    tell(partition, "ring: openat", carry_out(ring));
    entry = io_uring_get_sqe(ring);
    io_uring_prep_connect(entry, 0, (const struct sockaddr *)&address, sizeof(address));
    tell(partition, "ring: connect", carry_out(ring));
    entry = io_uring_get_sqe(ring);
    io_uring_prep_socket(entry, AF_UNIX, SOCK_STREAM, 0, 0);
    tell(partition, "ring: socket", carry_out(ring));
    entry = io_uring_get_sqe(ring);
    io_uring_prep_unlinkat(entry, AT_FDCWD, "/tmp/none", 0);
    tell(partition, "ring: unlinkat", carry_out(ring));
    tell(partition, "ring: personality", io_uring_register_personality(ring));
}

void sandbox_try(struct io *io, uint32_t partition)
{
    if (getenv("MR_SANDBOX_TRY") == NULL)
        return;
    try_plain(partition);
    try_ring(uring_ring(io), partition);
    tell(partition, "end", 0);
}
#endif
