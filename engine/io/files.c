/* SPDX-License-Identifier: Apache-2.0 */
/* Plain system calls: see files.h. Interrupted ones are begun again, short reads and writes go on. */
#include "engine/io/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "ipc/sys.h"

enum { LEAST_ALIGNMENT = 4096, LARGEST_ALIGNMENT = 1 << 20, SECTOR = 512 };

/* A call that is begun again when a signal interrupts it. */
#define restarted(call)                                                                                                \
    __extension__({                                                                                                    \
        __typeof__(call) restarted_result;                                                                             \
        do                                                                                                             \
            restarted_result = (call);                                                                                 \
        while (restarted_result == -1 && errno == EINTR);                                                              \
        restarted_result;                                                                                              \
    })

uint64_t files_monotonic(struct io *io)
{
    (void)io;
    return sys_clock_ns(CLOCK_MONOTONIC);
}

uint64_t files_wall(struct io *io)
{
    (void)io;
    return sys_clock_ns(CLOCK_REALTIME);
}

int files_open_directory(struct io *io, const char *path)
{
    (void)io;
    int directory = restarted(sys_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    return directory < 0 ? -errno : directory;
}

int files_list(struct io *io, int directory, void (*name)(void *context, const char *name), void *context)
{
    (void)io;
    /* A descriptor of its own: a duplicate would share the position with whoever lists at the same time. */
    int fd = restarted(sys_openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    if (fd < 0)
        return -errno;
    DIR *stream = sys_fdopendir(fd);
    if (!stream) {
        int code = errno;
        (void)sys_close(fd);
        return -code;
    }
    struct dirent *entry;
    while ((entry = sys_readdir(stream)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            name(context, entry->d_name);
    int code = errno;
    (void)sys_closedir(stream); /* nothing was written that could be lost */
    return -code;
}

int files_open(struct io *io, int directory, const char *name, unsigned flags)
{
    (void)io;
    int how = O_CLOEXEC | O_NOFOLLOW | (flags & IO_WRITE ? O_RDWR : O_RDONLY);
    if (flags & IO_CREATE)
        how |= O_CREAT | O_EXCL;
    int file = restarted(sys_openat(directory, name, how, 0600));
    if (file < 0)
        return -errno;
    /* Asked for afterwards: with O_DIRECT in open() some kernels create the file and then refuse to open it. */
    if ((flags & IO_DIRECT) && sys_fcntl(file, F_SETFL, O_DIRECT) != 0 && errno != EINVAL) {
        int code = errno;
        (void)sys_close(file);
        return -code;
    }
    return file;
}

bool files_is_direct(struct io *io, int file)
{
    (void)io;
    int flags = sys_fcntl(file, F_GETFL, 0);
    return flags >= 0 && (flags & O_DIRECT) != 0;
}

/* A number in a file of sysfs; 0 if it is not to be had. */
static uint32_t read_number(const char *path)
{
    char text[32];
    int file = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0)
        return 0;
    ssize_t size = sys_read(file, text, sizeof text - 1);
    (void)sys_close(file);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    unsigned long number = strtoul(text, NULL, 10);
    return number <= LARGEST_ALIGNMENT ? (uint32_t)number : 0;
}

/* The device's physical block: what it writes as a whole, so that a write torn within it damages its neighbours. */
static uint32_t physical_block(unsigned major_number, unsigned minor_number)
{
    static const char *const places[] = {"queue", "../queue"}; /* of a disk; of a partition on it */
    for (unsigned n = 0; n < 2; n++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s/physical_block_size", major_number, minor_number,
                 places[n]);
        uint32_t size = read_number(path);
        if (size > 0)
            return size;
    }
    return 0;
}

/* The next power of two, in case something reports another number. */
static uint32_t larger(uint32_t alignment, uint32_t wanted)
{
    while (alignment < wanted && alignment < LARGEST_ALIGNMENT)
        alignment *= 2;
    return alignment;
}

uint32_t files_alignment(struct io *io, int file)
{
    (void)io;
    uint32_t alignment = LEAST_ALIGNMENT;
    struct statx found = {0};
    unsigned mask = STATX_BASIC_STATS;
#ifdef STATX_DIOALIGN
    mask |= STATX_DIOALIGN;
#endif
    if (sys_statx(file, "", AT_EMPTY_PATH, mask, &found) != 0)
        return alignment;
#ifdef STATX_DIOALIGN
    if (found.stx_mask & STATX_DIOALIGN) {
        alignment = larger(alignment, found.stx_dio_offset_align);
        alignment = larger(alignment, found.stx_dio_mem_align);
    }
#endif
    return larger(alignment, physical_block(found.stx_dev_major, found.stx_dev_minor));
}

int files_try_lock(int file)
{
    return restarted(sys_flock(file, LOCK_EX | LOCK_NB)) != 0 ? -errno : 0;
}

int64_t files_size(struct io *io, int file)
{
    (void)io;
    struct stat status;
    return sys_fstat(file, &status) != 0 ? -errno : (int64_t)status.st_size;
}

int64_t files_read(struct io *io, int file, void *buffer, size_t size, uint64_t offset)
{
    size_t done = 0;
    while (done < size) {
        ssize_t count = restarted(sys_pread(file, (uint8_t *)buffer + done, size - done, (off_t)(offset + done)));
        if (count < 0)
            return -errno;
        done += (size_t)count;
        /* Behind a part that ends within a sector is the end of the file; a direct read could not go on from there. */
        if (count == 0 || (count % SECTOR != 0 && files_is_direct(io, file)))
            break;
    }
    return (int64_t)done;
}

int64_t files_write_now(struct io *io, int file, const void *buffer, size_t size, uint64_t offset)
{
    (void)io;
    size_t done = 0;
    while (done < size) {
        ssize_t count =
            restarted(sys_pwrite(file, (const uint8_t *)buffer + done, size - done, (off_t)(offset + done)));
        if (count < 0)
            return -errno;
        if (count == 0)
            return -EIO; /* a file that takes nothing and does not say why */
        done += (size_t)count;
    }
    return (int64_t)done;
}

int files_allocate(struct io *io, int file, uint64_t size)
{
    if (restarted(sys_fallocate(file, 0, 0, (off_t)size)) == 0)
        return 0;
    if (errno != EOPNOTSUPP)
        return -errno;
    /* A file system that cannot reserve: the length at least. */
    int64_t present = files_size(io, file);
    if (present < 0)
        return (int)present;
    if ((uint64_t)present >= size)
        return 0;
    return restarted(sys_ftruncate(file, (off_t)size)) != 0 ? -errno : 0;
}

int files_sync_now(struct io *io, int file)
{
    (void)io;
    return restarted(sys_fsync(file)) != 0 ? -errno : 0;
}

int files_rename(struct io *io, int directory, const char *from, const char *to)
{
    (void)io;
    return sys_renameat(directory, from, directory, to) != 0 ? -errno : 0;
}

int files_remove(struct io *io, int directory, const char *name)
{
    (void)io;
    return sys_unlinkat(directory, name, 0) != 0 ? -errno : 0;
}

void files_close(struct io *io, int file)
{
    (void)io;
    (void)sys_close(file); /* what matters was synced; what failed to be written was reported then */
}
