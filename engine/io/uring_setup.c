/* SPDX-License-Identifier: Apache-2.0 */
/* Rings, or why there is none: see uring_setup.h. */
#include "engine/io/uring_setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <sys/utsname.h>

#include "ipc/sys.h"

enum { CQ_PER_SQ = 4, MOST_PIECES = 64 };

/* Operations that uring.c uses. */
static const struct {
    int code;
    const char *name;
} operations[] = {
    {IORING_OP_WRITE, "IORING_OP_WRITE"},
    {IORING_OP_WRITE_FIXED, "IORING_OP_WRITE_FIXED"},
    {IORING_OP_FSYNC, "IORING_OP_FSYNC"},
    {IORING_OP_POLL_ADD, "IORING_OP_POLL_ADD"},
    {IORING_OP_ASYNC_CANCEL, "IORING_OP_ASYNC_CANCEL"},
};

/* kernel.io_uring_disabled: 0 to 2; -1: this kernel has no such setting, or it cannot be read. */
static int disabled_setting(void)
{
    char digit;
    int file = sys_open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC, 0);
    if (file < 0)
        return -1;
    ssize_t size = sys_read(file, &digit, 1);
    (void)sys_close(file);
    return size == 1 && digit >= '0' && digit <= '9' ? digit - '0' : -1;
}

static const char *kernel_release(struct utsname *name)
{
    return uname(name) == 0 ? name->release : "unknown";
}

static int refused(int code, struct mr_error *error)
{
    struct utsname name;
    int setting = disabled_setting();
    if (code == EPERM && setting == 2)
        return error_system(error, code,
                            "io_uring is turned off on this machine (kernel.io_uring_disabled is 2); turn it on with "
                            "'sysctl -w kernel.io_uring_disabled=0'");
    if (code == EPERM && setting == 1)
        return error_system(
            error, code,
            "io_uring is reserved for privileged users on this machine (kernel.io_uring_disabled is 1); "
            "add this user to the group that kernel.io_uring_group names, or turn it on for all with "
            "'sysctl -w kernel.io_uring_disabled=0'");
    if (code == EPERM || code == EACCES)
        return error_system(error, code,
                            "io_uring_setup is forbidden here, most likely by a container's seccomp filter; allow "
                            "io_uring_setup, io_uring_enter and io_uring_register there");
    if (code == ENOSYS)
        return error_system(error, code,
                            "there is no io_uring here (kernel %s): the kernel was built without it, or a container's "
                            "seccomp filter hides it; allow io_uring_setup, io_uring_enter and io_uring_register there",
                            kernel_release(&name));
    if (code == EINVAL)
        return error_system(error, code,
                            "the io_uring of this kernel (%s) lacks IORING_SETUP_DEFER_TASKRUN; Linux 6.1 or newer is "
                            "needed",
                            kernel_release(&name));
    if (code == EMFILE || code == ENFILE)
        return error_system(error, code, "cannot make an io_uring; raise the limit on open files (ulimit -n)");
    if (code == ENOMEM)
        return error_system(error, code,
                            "cannot make an io_uring; if there is memory left, raise RLIMIT_MEMLOCK (ulimit -l, or "
                            "LimitMEMLOCK= in a systemd unit)");
    return error_system(error, code, "cannot make an io_uring");
}

static int probe(struct io_uring *ring, const struct io_uring_params *parameters, struct mr_error *error)
{
    struct utsname name;
    unsigned features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    if ((parameters->features & features) != features)
        return error_set(error, "the io_uring of this kernel (%s) lacks features %#x; Linux 6.1 or newer is needed",
                         kernel_release(&name), features & ~parameters->features);
    struct io_uring_probe *found = sys_fault(SYS_IO_URING_REGISTER) ? NULL : io_uring_get_probe_ring(ring);
    if (!found)
        return error_set(error, "io_uring_register is refused here, most likely by a container's seccomp filter; allow "
                                "io_uring_setup, io_uring_enter and io_uring_register there");
    int result = 0;
    for (size_t n = 0; n < sizeof operations / sizeof *operations && result == 0; n++)
        if (!io_uring_opcode_supported(found, operations[n].code))
            result = error_set(error, "the io_uring of this kernel (%s) lacks %s; Linux 6.1 or newer is needed",
                               kernel_release(&name), operations[n].name);
    io_uring_free_probe(found);
    return result;
}

int uring_setup(struct io_uring *ring, unsigned entries, struct mr_error *error)
{
    struct io_uring_params parameters = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
        .cq_entries = entries * CQ_PER_SQ,
    };
    int result = sys_fault(SYS_IO_URING_SETUP) ? -errno : io_uring_queue_init_params(entries, ring, &parameters);
    if (result < 0)
        return refused(-result, error);
    if (probe(ring, &parameters, error) != 0) {
        io_uring_queue_exit(ring);
        return -1;
    }
    result = io_uring_ring_dontfork(ring);
    if (result < 0) {
        io_uring_queue_exit(ring);
        return error_system(error, -result, "cannot keep the io_uring out of child processes");
    }
    (void)io_uring_register_ring_fd(ring); /* saves a look-up in each system call; nothing else depends on it */
    return 0;
}

int uring_setup_buffers(struct io_uring *ring, void *memory, size_t size, struct mr_error *error)
{
    struct iovec pieces[MOST_PIECES];
    uint64_t count = (size + URING_PIECE - 1) / URING_PIECE;
    if (count > MOST_PIECES)
        return error_set(error, "cannot register %zu bytes of buffers with io_uring: at most %d GiB", size,
                         MOST_PIECES);
    for (uint64_t n = 0; n < count; n++) {
        uint64_t left = size - n * URING_PIECE;
        pieces[n] = (struct iovec){.iov_base = (char *)memory + n * URING_PIECE,
                                   .iov_len = left < URING_PIECE ? left : URING_PIECE};
    }
    int result = sys_fault(SYS_IO_URING_REGISTER) ? -errno : io_uring_register_buffers(ring, pieces, (unsigned)count);
    if (result >= 0)
        return 0;
    struct rlimit limit;
    if (result == -ENOMEM && sys_getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return error_system(error, ENOMEM,
                            "cannot register %zu bytes of buffers with io_uring: this user may lock %llu bytes in all; "
                            "raise RLIMIT_MEMLOCK (ulimit -l, or LimitMEMLOCK= in a systemd unit)",
                            size, (unsigned long long)limit.rlim_cur);
    return error_system(error, -result, "cannot register %zu bytes of buffers with io_uring", size);
}
