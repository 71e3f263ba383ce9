/* SPDX-License-Identifier: Apache-2.0 */
/* The asynchronous half of the node's io: one ring of the calling thread. Knows nothing of what is written or who is
 * woken. (Files at start, clocks: files.c. Making a ring, and why not: uring_setup.c.)
 *
 * The happy path. A call such as write() takes a slot (what was asked, and the token), fills a submission entry
 * whose user_data is the slot's number, and returns; no system call. completions() hands over what has gathered with
 * one io_uring_enter(), or none if nothing has, and copies what has come back from the completion queue to the
 * caller. With DEFER_TASKRUN the kernel puts nothing there by itself: it raises IORING_SQ_TASKRUN, a flag in shared
 * memory, and the next enter() makes the completions; so that flag is looked at, and while it is down nothing is
 * entered.
 *
 * What can go otherwise:
 *   - The submission queue is full: it is handed over at once. If the kernel does not take it (out of memory), slots
 *     wait in a list, in order, for the next completions() or sleep().
 *   - A write ends short, or was interrupted: the slot goes in again with what is left.
 *   - The kernel ends a multishot poll (its completion lacks IORING_CQE_F_MORE, for instance because the completion
 *     queue was full): the slot goes in again once there is room; a descriptor that is readable then completes at
 *     once, so nothing is missed.
 *   - unwatch() while such an end is already under way: the cancellation finds nothing, and the slot, marked, is not
 *     put in again. (Cancelled with ASYNC_CANCEL: POLL_REMOVE refuses a poll that is just being woken.)
 *   - An eventfd's counter is full: the operation stays pending in the kernel, and the caller's thread does not
 *     wait. It ends with the counter being read, with unwake(), or with the process.
 *
 * Writes of a process that dies go on in the kernel; those that have begun land. */
#include "engine/io/uring.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/io/child.h"
#include "engine/io/files.h"
#include "engine/io/uring_setup.h"
#include "ipc/sys.h"

enum slot_kind { SLOT_FREE, SLOT_READ, SLOT_WRITE, SLOT_SYNC, SLOT_WATCH, SLOT_CANCEL, SLOT_WAKE, SLOT_CHILD };

enum {
    NONE = -1,           /* no slot */
    FIRST_SLOTS = 64,    /* the table doubles from here */
    MOST_RETRIES = 1000, /* of an operation that is interrupted again and again, before its error is believed */
    NS_PER_S = 1000000000,
    RETRY_NS = 1000000, /* until the kernel is asked again to take what it had no memory for */
    LOCK_RETRY_MS = 1,
    LARGEST_SLEEP = 1000000000 /* seconds; what is longer is for ever */
};

/* What one write operation can take: the kernel's own limit for one call. */
#define LARGEST_WRITE UINT32_C(0x7ffff000)

struct slot {
    enum slot_kind kind;
    int fd;
    uint64_t token;
    int32_t target;        /* cancel: the slot to be ended */
    const uint8_t *buffer; /* write: the caller's, until completion */
    uint8_t *to;           /* read: likewise */
    uint64_t size;         /* read, write: all of it */
    uint64_t done;         /* write: of that, written */
    uint64_t offset;       /* read, write: of the whole in the file */
    bool durable;
    bool cancelled; /* watch, wake: its end is wanted; child: it was killed, and nobody is told */
    uint32_t retries;
    int32_t result; /* while it is in the list of those that are over */
    int32_t next;   /* in the list that it is in */
};

struct slot_list {
    int32_t first, last;
};

struct uring {
    struct io io; /* first: what the user holds */
    struct io_uring ring;
    struct slot *slots;
    uint32_t slot_count;
    uint32_t pending; /* reads, writes and syncs not yet complete */
    struct slot_list free;
    struct slot_list waiting; /* for room in the submission queue */
    struct slot_list ended;   /* watches that the kernel ended, to go in again */
    struct slot_list over;    /* complete without the ring having been asked */
    const uint8_t *registered;
    uint64_t registered_size;
    struct child child;
};

static const uint64_t one = 1; /* what a wake adds: static, because it must outlive even this ring */

static struct uring *self(struct io *io)
{
    return (struct uring *)io;
}

/* The ring is the process's only way to the disk and the clients: without it the process ends, and its successor
 * recovers from the log. Nothing that anybody sends or stores leads here, only a kernel out of memory or a fault of
 * ours. */
static _Noreturn void broken(const char *what, int code)
{
    fprintf(stderr, "io_uring: %s: %s; this process cannot go on\n", what, strerror(code));
    abort();
}

/* ---- slots ---- */

static void list_append(struct uring *uring, struct slot_list *list, int32_t number)
{
    uring->slots[number].next = NONE;
    if (list->first == NONE)
        list->first = number;
    else
        uring->slots[list->last].next = number;
    list->last = number;
}

static int32_t list_take(struct uring *uring, struct slot_list *list)
{
    int32_t number = list->first;
    if (number != NONE)
        list->first = uring->slots[number].next;
    return number;
}

static void more_slots(struct uring *uring)
{
    uint32_t count = uring->slot_count > 0 ? uring->slot_count * 2 : FIRST_SLOTS;
    struct slot *slots = count <= INT32_MAX / 2 ? realloc(uring->slots, count * sizeof *slots) : NULL;
    if (!slots)
        out_of_memory("more io_uring operations");
    uring->slots = slots;
    for (uint32_t n = uring->slot_count; n < count; n++)
        list_append(uring, &uring->free, (int32_t)n);
    uring->slot_count = count;
}

static int32_t take_slot(struct uring *uring, enum slot_kind kind, int fd, uint64_t token)
{
    if (uring->free.first == NONE)
        more_slots(uring);
    int32_t number = list_take(uring, &uring->free);
    uring->slots[number] = (struct slot){.kind = kind, .fd = fd, .token = token, .next = NONE};
    uring->pending += kind == SLOT_READ || kind == SLOT_WRITE || kind == SLOT_SYNC;
    return number;
}

static void free_slot(struct uring *uring, int32_t number)
{
    enum slot_kind kind = uring->slots[number].kind;
    uring->pending -= kind == SLOT_READ || kind == SLOT_WRITE || kind == SLOT_SYNC;
    uring->slots[number].kind = SLOT_FREE;
    list_append(uring, &uring->free, number);
}

/* ---- to the kernel ---- */

/* What io_uring_enter() gave. What it did not do is done by the next one. */
static void check_entered(int result)
{
    switch (result < 0 ? -result : 0) {
    case 0:
    case EINTR:  /* a signal */
    case ETIME:  /* the time of a sleep is over */
    case EAGAIN: /* no memory for what is submitted */
    case EBUSY:  /* completions have to be taken first */
        return;
    default:
        broken("cannot enter the ring", -result);
    }
}

/* An entry to fill, or NULL: the queue is full and the kernel takes nothing. */
static struct io_uring_sqe *submission(struct uring *uring)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&uring->ring);
    if (entry)
        return entry;
    check_entered(io_uring_submit(&uring->ring));
    return io_uring_get_sqe(&uring->ring);
}

static void prepare_write(const struct uring *uring, const struct slot *slot, struct io_uring_sqe *entry)
{
    const uint8_t *from = slot->buffer + slot->done;
    uint64_t left = slot->size - slot->done;
    uint64_t offset = slot->offset + slot->done;
    uint32_t size = left < LARGEST_WRITE ? (uint32_t)left : LARGEST_WRITE;
    uint64_t place = (uint64_t)((uintptr_t)from - (uintptr_t)uring->registered);
    if (place < uring->registered_size && left <= uring->registered_size - place) {
        /* Up to the end of the registered piece; the rest continues. */
        uint64_t piece_left = URING_PIECE - place % URING_PIECE;
        size = size < piece_left ? size : (uint32_t)piece_left;
        io_uring_prep_write_fixed(entry, slot->fd, from, size, offset, (int)(place / URING_PIECE));
    } else {
        io_uring_prep_write(entry, slot->fd, from, size, offset);
    }
    entry->rw_flags = slot->durable ? RWF_DSYNC : 0;
}

/* Fills an entry for the slot; false: there is none. */
static bool submit_slot(struct uring *uring, int32_t number)
{
    struct io_uring_sqe *entry = submission(uring);
    if (!entry)
        return false;
    const struct slot *slot = &uring->slots[number];
    switch (slot->kind) {
    case SLOT_READ:
        io_uring_prep_read(entry, slot->fd, slot->to, (unsigned)slot->size, slot->offset);
        break;
    case SLOT_WRITE:
        prepare_write(uring, slot, entry);
        break;
    case SLOT_SYNC:
        io_uring_prep_fsync(entry, slot->fd, IORING_FSYNC_DATASYNC);
        break;
    case SLOT_WATCH:
        io_uring_prep_poll_multishot(entry, slot->fd, POLLIN);
        break;
    case SLOT_CHILD:
        io_uring_prep_poll_add(entry, slot->fd, POLLIN);
        break;
    case SLOT_CANCEL:
        io_uring_prep_cancel64(entry, (__u64)slot->target, 0);
        break;
    case SLOT_WAKE:
        io_uring_prep_write(entry, slot->fd, &one, sizeof one, 0);
        break;
    case SLOT_FREE:
        mr_assert(slot->kind != SLOT_FREE);
    }
    io_uring_sqe_set_data64(entry, (__u64)number);
    return true;
}

static void submit_or_wait(struct uring *uring, int32_t number)
{
    if (uring->waiting.first != NONE || !submit_slot(uring, number))
        list_append(uring, &uring->waiting, number);
}

static void finish(struct uring *uring, int32_t number, int32_t result)
{
    uring->slots[number].result = result;
    list_append(uring, &uring->over, number);
}

/* Submits up to `count` slots of a list, or drops what is no longer wanted. */
static void submit_list(struct uring *uring, struct slot_list *list, uint32_t count)
{
    for (; list->first != NONE && count > 0; count--) {
        int32_t number = list->first;
        bool cancelled = uring->slots[number].cancelled;
        if (!cancelled && !submit_slot(uring, number))
            return;
        list_take(uring, list);
        if (cancelled)
            finish(uring, number, -ECANCELED);
    }
}

static bool kernel_waits(const struct uring *uring, unsigned flags)
{
    return (IO_URING_READ_ONCE(*uring->ring.sq.kflags) & flags) != 0;
}

/* All that had no room so far. A watched descriptor is readable for ever once it was: putting its watch in again
 * gives a completion at once. If that found no room either, the kernel would end the watch again, and so on without
 * end; so no more go in than the empty completion queue can hold. */
static void submit_gathered(struct uring *uring)
{
    submit_list(uring, &uring->waiting, UINT32_MAX);
    if (uring->ended.first != NONE && uring->waiting.first == NONE && io_uring_cq_ready(&uring->ring) == 0 &&
        !kernel_waits(uring, IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))
        submit_list(uring, &uring->ended, uring->ring.cq.ring_entries / 2);
}

/* ---- from the kernel ---- */

/* What a completion of the kernel's means to the user. */
enum told {
    TOLD_NOTHING, /* the operation goes on, or was our own */
    TOLD_MORE,    /* a completion, and others will come */
    TOLD_LAST     /* a completion, and the slot is free */
};

static bool again(struct slot *slot, int32_t result)
{
    return (result == -EINTR || result == -EAGAIN) && slot->retries++ < MOST_RETRIES;
}

static enum told after_write(struct uring *uring, int32_t number, int32_t *result)
{
    struct slot *slot = &uring->slots[number];
    if (*result > 0) {
        slot->done += (uint32_t)*result;
        slot->retries = 0;
    } else if (!again(slot, *result)) {
        if (*result == 0 && slot->size > 0)
            *result = -EIO; /* a file that takes nothing and does not say why */
        return TOLD_LAST;
    }
    if (slot->done < slot->size) {
        submit_or_wait(uring, number);
        return TOLD_NOTHING;
    }
    *result = slot->size <= INT32_MAX ? (int32_t)slot->size : INT32_MAX;
    return TOLD_LAST;
}

static enum told after_watch(struct uring *uring, int32_t number, bool more, int32_t *result)
{
    const struct slot *slot = &uring->slots[number];
    if (slot->cancelled) {
        *result = -ECANCELED;
        return more ? TOLD_NOTHING : TOLD_LAST;
    }
    if (more)
        return TOLD_MORE;
    if (*result < 0)
        return TOLD_LAST;
    list_append(uring, &uring->ended, number);
    return TOLD_MORE;
}

static enum told after_child(struct uring *uring, int32_t number, int32_t *result)
{
    struct slot *slot = &uring->slots[number];
    if (slot->cancelled) {
        free_slot(uring, number);
        return TOLD_NOTHING;
    }
    if (again(slot, *result)) {
        submit_or_wait(uring, number);
        return TOLD_NOTHING;
    }
    /* Whose end cannot be watched is not waited for. */
    *result = *result < 0 ? child_end(&uring->child) : child_wait(&uring->child);
    return TOLD_LAST;
}

static enum told after(struct uring *uring, int32_t number, bool more, int32_t *result)
{
    struct slot *slot = &uring->slots[number];
    switch (slot->kind) {
    case SLOT_READ:
        return TOLD_LAST;
    case SLOT_WRITE:
        return after_write(uring, number, result);
    case SLOT_WATCH:
        return after_watch(uring, number, more, result);
    case SLOT_SYNC:
    case SLOT_WAKE:
        /* A full counter (EAGAIN) is no reason to insist: its owner has not slept through it. */
        if ((slot->kind == SLOT_WAKE && (*result == -EAGAIN || slot->cancelled)) || !again(slot, *result))
            return TOLD_LAST;
        submit_or_wait(uring, number);
        return TOLD_NOTHING;
    case SLOT_CHILD:
        return after_child(uring, number, result);
    case SLOT_CANCEL:
        free_slot(uring, number);
        return TOLD_NOTHING;
    case SLOT_FREE:
        break;
    }
    mr_assert(slot->kind != SLOT_FREE);
    return TOLD_NOTHING;
}

static bool take_entry(struct uring *uring, struct io_uring_cqe *out)
{
    unsigned head;
    struct io_uring_cqe *entry;
    io_uring_for_each_cqe(&uring->ring, head, entry)
    {
        *out = (struct io_uring_cqe){.user_data = entry->user_data, .res = entry->res, .flags = entry->flags};
        io_uring_cq_advance(&uring->ring, 1);
        return true;
    }
    return false;
}

/* Takes what is complete, without a system call. */
static unsigned reap(struct uring *uring, struct io_completion *completions, unsigned count)
{
    unsigned taken = 0;
    struct io_uring_cqe entry;
    while (taken < count && uring->over.first != NONE) {
        int32_t number = list_take(uring, &uring->over);
        const struct slot *slot = &uring->slots[number];
        if (slot->kind != SLOT_CHILD) /* else: killed before its end was watched */
            completions[taken++] = (struct io_completion){.token = slot->token, .result = slot->result};
        free_slot(uring, number);
    }
    while (taken < count && take_entry(uring, &entry)) {
        mr_assert(entry.user_data < uring->slot_count);
        int32_t number = (int32_t)entry.user_data;
        uint64_t token = uring->slots[number].token;
        enum told told = after(uring, number, (entry.flags & IORING_CQE_F_MORE) != 0, &entry.res);
        if (told != TOLD_NOTHING)
            completions[taken++] = (struct io_completion){.token = token, .result = entry.res};
        if (told == TOLD_LAST)
            free_slot(uring, number);
    }
    return taken;
}

/* ---- struct io_ops ---- */

/* Puts the slot on its way; in tests the call may be made to fail here. */
static void start(struct uring *uring, int32_t number, enum sys_call kind)
{
    if (sys_fault(kind))
        finish(uring, number, -errno);
    else
        submit_or_wait(uring, number);
}

static void start_write(struct io *io, int file, const void *buffer, size_t size, uint64_t offset, bool durable,
                        uint64_t token)
{
    struct uring *uring = self(io);
    int32_t number = take_slot(uring, SLOT_WRITE, file, token);
    struct slot *slot = &uring->slots[number];
    slot->buffer = buffer;
    slot->size = size;
    slot->offset = offset;
    slot->durable = durable;
    start(uring, number, SYS_URING_WRITE);
}

static int start_read(struct io *io, int file, void *buffer, size_t size, uint64_t offset, uint64_t token)
{
    struct uring *uring = self(io);
    mr_assert(size <= INT32_MAX);
    int32_t number = take_slot(uring, SLOT_READ, file, token);
    struct slot *slot = &uring->slots[number];
    slot->to = buffer;
    slot->size = size;
    slot->offset = offset;
    start(uring, number, SYS_URING_READ);
    return 0;
}

static void start_sync(struct io *io, int file, uint64_t token)
{
    start(self(io), take_slot(self(io), SLOT_SYNC, file, token), SYS_URING_SYNC);
}

static void start_watch(struct io *io, int descriptor, uint64_t token)
{
    start(self(io), take_slot(self(io), SLOT_WATCH, descriptor, token), SYS_URING_WATCH);
}

/* The kernel is asked to end the operation of this kind that has this token, if there is one. */
static void cancel(struct uring *uring, enum slot_kind kind, uint64_t token)
{
    uint32_t number = 0;
    while (number < uring->slot_count &&
           (uring->slots[number].kind != kind || uring->slots[number].cancelled || uring->slots[number].token != token))
        number++;
    if (number == uring->slot_count)
        return;
    uring->slots[number].cancelled = true;
    int32_t cancellation = take_slot(uring, SLOT_CANCEL, NONE, 0);
    uring->slots[cancellation].target = (int32_t)number;
    submit_or_wait(uring, cancellation);
}

static void unwatch(struct io *io, uint64_t token)
{
    cancel(self(io), SLOT_WATCH, token);
}

static void unwake(struct io *io, uint64_t token)
{
    cancel(self(io), SLOT_WAKE, token);
}

static void start_wake(struct io *io, int event, uint64_t token)
{
    start(self(io), take_slot(self(io), SLOT_WAKE, event, token), SYS_URING_WAKE);
}

/* What is gathered goes first, so that its cost is not counted. */
static uint64_t wake_measured(struct io *io, int event, uint64_t token)
{
    struct uring *uring = self(io);
    submit_gathered(uring);
    if (io_uring_sq_ready(&uring->ring) > 0)
        check_entered(io_uring_submit(&uring->ring));
    uint64_t before = sys_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    start_wake(io, event, token);
    if (io_uring_sq_ready(&uring->ring) > 0)
        check_entered(io_uring_submit(&uring->ring));
    return sys_clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
}

static int start_child(struct io *io, int (*job)(void *context, struct io *io), void *context, uint64_t token)
{
    struct uring *uring = self(io);
    mr_assert(uring->child.pid == 0);
    int result = child_start(&uring->child, uring->ring.ring_fd, job, context);
    if (result != 0)
        return result;
    if (sys_fault(SYS_URING_WATCH)) {
        result = -errno;
        (void)child_end(&uring->child);
        return result;
    }
    submit_or_wait(uring, take_slot(uring, SLOT_CHILD, uring->child.ended, token));
    return 0;
}

/* The poll for its end is not cancelled: the end comes. */
static void kill_child(struct io *io)
{
    struct uring *uring = self(io);
    if (uring->child.pid == 0)
        return;
    for (uint32_t n = 0; n < uring->slot_count; n++)
        if (uring->slots[n].kind == SLOT_CHILD)
            uring->slots[n].cancelled = true;
    (void)child_end(&uring->child);
}

static void give_up_child(struct io *io)
{
    if (self(io)->child.pid != 0)
        child_end_soon(&self(io)->child);
}

static unsigned take_completions(struct io *io, struct io_completion *completions, unsigned count)
{
    struct uring *uring = self(io);
    submit_gathered(uring);
    if (io_uring_sq_ready(&uring->ring) > 0)
        check_entered(io_uring_submit_and_get_events(&uring->ring));
    else if (kernel_waits(uring, IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))
        check_entered(io_uring_get_events(&uring->ring));
    return reap(uring, completions, count);
}

static void sleep_for(struct io *io, uint64_t nanoseconds)
{
    struct uring *uring = self(io);
    submit_gathered(uring);
    if (uring->over.first != NONE || io_uring_cq_ready(&uring->ring) > 0) {
        if (io_uring_sq_ready(&uring->ring) > 0)
            check_entered(io_uring_submit(&uring->ring));
        return;
    }
    if ((uring->waiting.first != NONE || uring->ended.first != NONE) && nanoseconds > RETRY_NS)
        nanoseconds = RETRY_NS; /* then they are tried again */
    struct __kernel_timespec time = {.tv_sec = (int64_t)(nanoseconds / NS_PER_S),
                                     .tv_nsec = (int64_t)(nanoseconds % NS_PER_S)};
    struct io_uring_cqe *entry;
    check_entered(
        io_uring_submit_and_wait_timeout(&uring->ring, &entry, 1, time.tv_sec < LARGEST_SLEEP ? &time : NULL, NULL));
}

/* An operation of our own that has completed may hold its file, and with it the file's lock, until the ring's deferred
 * work is run. So this does not wait in the kernel, where it could wait for itself. */
static int lock_file(struct io *io, int file)
{
    struct uring *uring = self(io);
    int result;

    while ((result = files_try_lock(file)) == -EWOULDBLOCK) {
        io_uring_get_events(&uring->ring); /* what it could not do is tried again */
        sys_poll(NULL, 0, LOCK_RETRY_MS);
    }
    return result;
}

static void unregister_buffers(struct io *io)
{
    struct uring *uring = self(io);
    if (uring->registered_size == 0)
        return;
    /* If it fails, the kernel keeps the pages until the ring's end; nothing is written from them any more. */
    (void)io_uring_unregister_buffers(&uring->ring);
    uring->registered_size = 0;
}

static int register_buffers(struct io *io, void *memory, size_t size, struct mr_error *error)
{
    struct uring *uring = self(io);
    unregister_buffers(io);
    if (uring_setup_buffers(&uring->ring, memory, size, error) != 0)
        return -1;
    uring->registered = memory;
    uring->registered_size = size;
    return 0;
}

static const struct io_ops uring_ops = {
    .monotonic = files_monotonic,
    .wall = files_wall,
    .write = start_write,
    .sync = start_sync,
    .read_ahead = start_read,
    .watch = start_watch,
    .unwatch = unwatch,
    .wake = start_wake,
    .wake_measured = wake_measured,
    .unwake = unwake,
    .completions = take_completions,
    .sleep = sleep_for,
    .child = start_child,
    .child_kill = kill_child,
    .child_give_up = give_up_child,
    .register_buffers = register_buffers,
    .unregister_buffers = unregister_buffers,
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

/* ---- beginning and end ---- */

struct io *uring_create(unsigned entries, struct mr_error *error)
{
    struct uring *uring = calloc(1, sizeof *uring);
    if (!uring) {
        error_system(error, ENOMEM, "cannot make an io_uring");
        return NULL;
    }
    if (uring_setup(&uring->ring, entries, error) != 0) {
        free(uring);
        return NULL;
    }
    uring->io.ops = &uring_ops;
    uring->free.first = uring->waiting.first = uring->ended.first = uring->over.first = NONE;
    return &uring->io;
}

#ifdef MR_TESTING
struct io_uring *uring_ring(struct io *io)
{
    return &self(io)->ring;
}
#endif

void uring_destroy(struct io *io)
{
    struct uring *uring = self(io);
    struct io_completion completion;
    kill_child(io);
    /* The buffers are the caller's to free after this: nothing may be writing from them. */
    while (uring->pending > 0)
        if (take_completions(io, &completion, 1) == 0)
            sleep_for(io, UINT64_MAX);
    io_uring_queue_exit(&uring->ring);
    free(uring->slots);
    free(uring);
}
