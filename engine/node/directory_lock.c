/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a data directory's lock: see directory_lock.h. */
#include "engine/node/directory_lock.h"

#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#define LOCK_POLL_MS 20

/* 0: cannot be told. */
static pid_t read_holder(int fd)
{
    char text[32];
    ssize_t size = sys_pread(fd, text, sizeof(text) - 1, 0);

    if (size <= 0)
        return 0;
    text[size] = '\0';
    long pid = strtol(text, NULL, 10);
    return pid > 0 && pid <= INT32_MAX ? (pid_t)pid : 0;
}

static int say_holder(int fd, const char *dir, uint64_t wait_ns, struct mr_error *error)
{
    pid_t holder = read_holder(fd);
    char waited[48] = "";

    if (wait_ns > 0)
        snprintf(waited, sizeof(waited), " (waited %" PRIu64 " s for it)", wait_ns / 1000000000);
    if (holder == 0)
        return error_set(error, "the directory %s is in use by another node%s", dir, waited);
    if (sys_kill(holder, 0) != 0 && errno == ESRCH)
        return error_set(error,
                         "the directory %s is in use by a worker that the node with pid %d left behind, or is being "
                         "verified or dumped%s",
                         dir, (int)holder, waited);
    return error_set(error, "the directory %s is in use by the node with pid %d%s", dir, (int)holder, waited);
}

static int wait_for_lock(int fd, const char *dir, uint64_t wait_ns, struct mr_error *error)
{
    uint64_t end = sys_clock_ns(CLOCK_MONOTONIC) + wait_ns;

    while (sys_flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_system(error, errno, "cannot lock %s/lock", dir);
        if (sys_clock_ns(CLOCK_MONOTONIC) >= end)
            return say_holder(fd, dir, wait_ns, error);
        if (sys_poll(NULL, 0, LOCK_POLL_MS) < 0 && errno != EINTR)
            return error_system(error, errno, "cannot wait for %s/lock", dir);
    }
    return 0;
}

int directory_lock_take(int directory, const char *dir, uint64_t wait_ns, struct mr_error *error)
{
    char text[32];
    int fd = sys_openat(directory, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_system(error, errno, "cannot open %s/lock", dir);
    if (wait_for_lock(fd, dir, wait_ns, error) != 0) {
        (void)sys_close(fd);
        return -1;
    }
    /* For whoever is refused later. Not synced: after a power cut nobody holds the lock. */
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (sys_ftruncate(fd, 0) != 0 || sys_pwrite(fd, text, (size_t)length, 0) != length) {
        error_system(error, errno, "cannot write %s/lock", dir);
        (void)sys_close(fd);
        return -1;
    }
    return fd;
}

int directory_lock_share(int directory, const char *dir, int *lock_fd, struct mr_error *error)
{
    int fd = sys_openat(directory, "lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
    int result;

    *lock_fd = -1;
    if (fd < 0 && errno == ENOENT)
        return 0; /* no node has ever run on it: a copy, perhaps */
    if (fd < 0)
        return error_system(error, errno, "cannot open %s/lock", dir);
    while ((result = sys_flock(fd, LOCK_SH | LOCK_NB)) != 0 && errno == EINTR)
        ;
    if (result == 0) {
        *lock_fd = fd;
        return 0;
    }
    if (errno == EWOULDBLOCK) {
        say_holder(fd, dir, 0, error);
        error->code = EBUSY;
    } else {
        error_system(error, errno, "cannot lock %s/lock", dir);
    }
    (void)sys_close(fd); /* was only read */
    return -1;
}
