/* SPDX-License-Identifier: Apache-2.0 */
/* A child process for one job: see child.h. Knows nothing of what the job does.
 *
 * The happy path. The parent makes a page that both will share, forks, and gets a descriptor that becomes readable at
 * the child's end. The child gives up what must not outlive its parent, moves out of its parent's way, runs the job,
 * leaves the result in the page and exits; the parent waits for it and reads the page. (An exit status would carry
 * eight bits.)
 *
 * What can go otherwise:
 *   - The fork or the descriptor is refused: there is no child, and the caller is told why.
 *   - The child dies before it has left a result, for whatever reason: that is -ECHILD. Neither its exit status nor
 *     whether it could be waited for matters to that.
 *   - The parent dies: the kernel kills the child. If it died before that was agreed, the child sees that its parent
 *     is another one and ends. A system call in which it is at that moment may still take effect, even after the
 *     parent has been waited for by its own parent.
 *
 * The child keeps all of its parent's descriptors but the ring: the directory's lock, so that no other node begins
 * before it has ended, and whatever the job uses. With them it holds the locks on its parent's files until it has
 * ended. It exits without running what was registered for an exit and without flushing what its parent had buffered:
 * that is the parent's to do. */
#include "engine/io/child.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/io/files.h"
#include "ipc/sys.h"

enum { NO_RESULT = -1, LOCK_RETRY_MS = 1, MOST_WAITS = 100, CHILD_NICE = 10 };

/* ---- the child's side ---- */

static int lock_file(struct io *io, int file)
{
    int result;

    (void)io;
    while ((result = files_try_lock(file)) == -EWOULDBLOCK)
        sys_poll(NULL, 0, LOCK_RETRY_MS);
    return result;
}

static const struct io_ops child_ops = {
    .monotonic = files_monotonic,
    .wall = files_wall,
    .open_directory = files_open_directory,
    .list = files_list,
    .open = files_open,
    .is_direct = files_is_direct,
    .alignment = files_alignment,
    .lock = lock_file,
    .size = files_size,
    .read = files_read,
    .write_now = files_write_now,
    .allocate = files_allocate,
    .sync_now = files_sync_now,
    .rename = files_rename,
    .remove = files_remove,
    .close = files_close,
};

/* A handler of the parent's for its own faults must not run here, where it could carry the parent's work on. What the
 * parent ignores, such as a terminal's Ctrl-C, is ignored here too. */
static bool drop_handlers(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    struct sigaction action = {.sa_handler = SIG_DFL};

    for (size_t n = 0; n < sizeof faults / sizeof *faults; n++)
        if (sys_sigaction(faults[n], &action, NULL) != 0)
            return false;
    return true;
}

/* Out of the parent's way. All of it is a matter of speed only: where it is refused, the job runs all the same. */
static void step_aside(const cpu_set_t *elsewhere)
{
    if (CPU_COUNT(elsewhere) > 0)
        (void)sys_sched_setaffinity(0, sizeof *elsewhere, elsewhere);
    /* Not SCHED_IDLE: beside a client that spins on the only other core, 20 ms of work took 6.3 s then, and 0.2 s like
     * this; and what the child has not finished keeps the log from being cut. */
    (void)sys_setpriority(PRIO_PROCESS, 0, CHILD_NICE);
}

static _Noreturn void run(const struct child *child, int ring, pid_t parent, const cpu_set_t *elsewhere,
                          int (*job)(void *context, struct io *io), void *context)
{
    struct io io = {.ops = &child_ops};

    /* With the ring, the parent's writes and what they hold would live on after it. */
    (void)sys_close(ring);
    if (sys_prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent || !drop_handlers())
        _exit(1);
    step_aside(elsewhere);
    int result = job(context, &io);
    atomic_store_explicit(child->result, result, memory_order_release);
    _exit(result < 0);
}

/* ---- the parent's side ---- */

/* The processors that the child may use and this process does not. A worker is pinned; its own parent is not, and has
 * the set that the node was given. */
static void find_elsewhere(cpu_set_t *elsewhere)
{
    cpu_set_t mine;

    CPU_ZERO(elsewhere);
    CPU_ZERO(&mine);
    if (sys_sched_getaffinity(0, sizeof mine, &mine) != 0 ||
        sys_sched_getaffinity(getppid(), sizeof *elsewhere, elsewhere) != 0) {
        CPU_ZERO(elsewhere);
        return;
    }
    CPU_AND(&mine, &mine, elsewhere);
    CPU_XOR(elsewhere, elsewhere, &mine);
}

static void drop_page(struct child *child)
{
    (void)sys_munmap((void *)(uintptr_t)child->result, sizeof *child->result); /* refused: a page stays mapped */
    child->result = NULL;
}

/* Nothing of it is left in the kernel's tables. */
static void reap(pid_t pid)
{
    int status;

    /* ECHILD: it has gone already, because this process ignores its children's ends. */
    for (unsigned n = 0; n < MOST_WAITS && sys_waitpid(pid, &status, 0) != pid && errno != ECHILD;)
        n += errno != EINTR;
}

int child_start(struct child *child, int ring, int (*job)(void *context, struct io *io), void *context)
{
    cpu_set_t elsewhere;
    pid_t parent = getpid();
    void *page = sys_mmap(NULL, sizeof *child->result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return -errno;
    child->result = page;
    atomic_init(child->result, NO_RESULT);
    find_elsewhere(&elsewhere);
    pid_t pid = sys_fork();
    if (pid == 0)
        run(child, ring, parent, &elsewhere, job, context);
    int code = errno;
    if (pid > 0) {
        child->pid = pid;
        child->ended = sys_pidfd_open(pid, 0);
        if (child->ended >= 0)
            return 0;
        code = errno;
        (void)sys_kill(pid, SIGKILL);
        reap(pid);
        child->pid = 0;
    }
    drop_page(child);
    return -code;
}

int32_t child_wait(struct child *child)
{
    reap(child->pid);
    child->pid = 0;
    (void)sys_close(child->ended); /* nothing was written to it */
    int32_t result = atomic_load_explicit(child->result, memory_order_acquire);
    drop_page(child);
    return result >= 0 ? result : -ECHILD;
}

void child_end_soon(const struct child *child)
{
    (void)sys_kill(child->pid, SIGKILL); /* it is our own child: refused only if it has ended */
}

int32_t child_end(struct child *child)
{
    child_end_soon(child);
    return child_wait(child);
}
