/* SPDX-License-Identifier: Apache-2.0 */
/* Rings, or why there is none: see uring_setup.h.
 *
 * A filter of system calls does not see what a ring does. So a ring is made disabled, told once and for all which
 * operations it may carry out, and only then enabled; none of them opens a file, makes a socket or connects one.
 * Descriptors are not held in a table of the ring's own, and so the ring is not restricted to such a table: segments
 * and channels come and go, registering would have to stay allowed, and a process that is no longer its own master
 * could put any descriptor there that it has, or use that by plain calls just as well. */
#include "engine/io/uring_setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "ipc/sys.h"

enum { CQ_PER_SQ = 4, MOST_PIECES = 64, ALL_OPERATIONS = 256 };

/* Operations that uring.c uses. */
static const struct {
    int code;
    const char *name;
} operations[] = {
    {IORING_OP_READ, "IORING_OP_READ"},
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

/* Debian 12's liburing has functions for restricting and enabling in its headers, not in its shared library, and its
 * probe does not say why there is none. 0 or -errno. */
static int register_by_call(const struct io_uring *ring, unsigned opcode, const void *argument, unsigned count)
{
    if (sys_fault(SYS_IO_URING_REGISTER))
        return -errno;
    return syscall(SYS_io_uring_register, ring->ring_fd, opcode, argument, count) < 0 ? -errno : 0;
}

static int not_told(int code, struct mr_error *error)
{
    if (code == EPERM || code == EACCES || code == ENOSYS)
        return error_system(error, code,
                            "io_uring_register is refused here, most likely by a container's seccomp filter; allow "
                            "io_uring_setup, io_uring_enter and io_uring_register there");
    return error_system(error, code, "cannot ask what the io_uring of this kernel can do");
}

static int probe(const struct io_uring *ring, const struct io_uring_params *parameters, struct mr_error *error)
{
    struct utsname name;
    unsigned features = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG;
    if ((parameters->features & features) != features)
        return error_set(error, "the io_uring of this kernel (%s) lacks features %#x; Linux 6.1 or newer is needed",
                         kernel_release(&name), features & ~parameters->features);
    struct io_uring_probe *found = calloc(1, sizeof *found + ALL_OPERATIONS * sizeof *found->ops);
    int result = found ? register_by_call(ring, IORING_REGISTER_PROBE, found, ALL_OPERATIONS) : -ENOMEM;
    if (result < 0)
        result = not_told(-result, error);
    for (size_t n = 0; n < sizeof operations / sizeof *operations && result == 0; n++)
        if (!io_uring_opcode_supported(found, operations[n].code))
            result = error_set(error, "the io_uring of this kernel (%s) lacks %s; Linux 6.1 or newer is needed",
                               kernel_release(&name), operations[n].name);
    free(found);
    return result;
}

/* What of io_uring_register() a running ring is for. */
static const uint8_t registrations[] = {IORING_REGISTER_BUFFERS, IORING_UNREGISTER_BUFFERS, IORING_REGISTER_RING_FDS,
                                        IORING_UNREGISTER_RING_FDS};

/* For good: a ring that is enabled cannot be given more. Flags of operations (links, fixed files) stay forbidden. */
static int restrict_and_enable(struct io_uring *ring, struct mr_error *error)
{
    enum { OPERATIONS = sizeof operations / sizeof *operations, REGISTRATIONS = sizeof registrations };
    struct io_uring_restriction allowed[OPERATIONS + REGISTRATIONS] = {0};
    unsigned count = 0;

    for (size_t n = 0; n < OPERATIONS; n++)
        allowed[count++] =
            (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = (uint8_t)operations[n].code};
    for (size_t n = 0; n < REGISTRATIONS; n++)
        allowed[count++] =
            (struct io_uring_restriction){.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = registrations[n]};
    int result = register_by_call(ring, IORING_REGISTER_RESTRICTIONS, allowed, count);
    if (result == 0)
        result = register_by_call(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    return result == 0 ? 0 : error_system(error, -result, "cannot restrict the io_uring to what the node does with it");
}

int uring_setup(struct io_uring *ring, unsigned entries, struct mr_error *error)
{
    struct io_uring_params parameters = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED,
        .cq_entries = entries * CQ_PER_SQ,
    };
    int result = sys_fault(SYS_IO_URING_SETUP) ? -errno : io_uring_queue_init_params(entries, ring, &parameters);
    if (result < 0)
        return refused(-result, error);
    if (probe(ring, &parameters, error) != 0 || restrict_and_enable(ring, error) != 0) {
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
