/* SPDX-License-Identifier: Apache-2.0 */
/* Replacing and reading small files: see atomic_file.h. Knows nothing of what stands in them. */
#include "engine/node/atomic_file.h"

#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static int write_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = sys_write(fd, bytes, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        bytes += written;
        size -= (size_t)written;
    }
    return 0;
}

/* The new contents, on stable storage under another name. */
static int write_beside(int directory, const char *dir, const char *beside, const void *bytes, size_t size,
                        struct mr_error *error)
{
    int fd = sys_openat(directory, beside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_system(error, errno, "cannot make %s/%s", dir, beside);
    if (write_all(fd, bytes, size) != 0 || sys_fsync(fd) != 0) {
        error_system(error, errno, "cannot write %s/%s", dir, beside);
        (void)sys_close(fd);
        return -1;
    }
    if (sys_close(fd) != 0)
        return error_system(error, errno, "cannot write %s/%s", dir, beside);
    return 0;
}

int atomic_file_write(int directory, const char *dir, const char *name, const void *bytes, size_t size,
                      struct mr_error *error)
{
    char beside[64];

    snprintf(beside, sizeof(beside), "%s.new", name);
    if (write_beside(directory, dir, beside, bytes, size, error) != 0) {
        (void)sys_unlinkat(directory, beside, 0); /* may not be there; the next attempt writes over it */
        return -1;
    }
    if (sys_renameat(directory, beside, directory, name) != 0)
        return error_system(error, errno, "cannot rename %s/%s to %s", dir, beside, name);
    if (sys_fsync(directory) != 0)
        return error_system(error, errno, "cannot sync the directory %s", dir);
    return 0;
}

long atomic_file_read(int directory, const char *dir, const char *name, void *bytes, size_t size,
                      struct mr_error *error)
{
    size_t used = 0;
    char beyond;
    int fd = sys_openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);

    if (fd < 0)
        return error_system(error, errno, "cannot open %s/%s", dir, name);
    for (;;) {
        ssize_t got = used < size ? sys_read(fd, (uint8_t *)bytes + used, size - used) : sys_read(fd, &beyond, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            error_system(error, errno, "cannot read %s/%s", dir, name);
            (void)sys_close(fd);
            return -1;
        }
        used += (size_t)got;
        if (got == 0 || used > size)
            break;
    }
    (void)sys_close(fd); /* was only read */
    return (long)used;
}
