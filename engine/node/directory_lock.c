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
    uint64_t waited = wait_ns / 1000000000;

    if (holder == 0)
        return error_set(error, "the directory %s is in use by another node (waited %" PRIu64 " s for it)", dir,
                         waited);
    if (sys_kill(holder, 0) != 0 && errno == ESRCH)
        return error_set(error,
                         "the directory %s is in use by a worker that the node with pid %d left behind "
                         "(waited %" PRIu64 " s for it)",
                         dir, (int)holder, waited);
    return error_set(error, "the directory %s is in use by the node with pid %d (waited %" PRIu64 " s for it)", dir,
                     (int)holder, waited);
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
