/* SPDX-License-Identifier: Apache-2.0 */
/* The world as a worker sees it: disk, clock and wake-ups, behind one table of functions. The node's stands in uring.c
 * (io_uring); the simulator's, which can lose power, stands in the tests. Knows nothing of what is stored.
 *
 * Two halves. What happens at run time is asynchronous: an operation is started with a token and its completion comes
 * back later from completions(), in any order; buffers stay the io's until then. What happens at start, or seldom, is
 * synchronous. Results are 0 or a count, or a negative errno. One thread.
 *
 * A descriptor stays open until what was started on it is complete; a buffer stays unchanged until then. */
#ifndef ENGINE_IO_IO_H
#define ENGINE_IO_IO_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/error.h"

struct io;

struct io_completion {
    uint64_t token;
    int32_t result; /* as the system call would have returned it (INT32_MAX: that or more); negative errno */
};

/* How a file is opened. */
enum io_open_flags {
    IO_READ = 0,
    IO_WRITE = 1,
    IO_CREATE = 2, /* fails if it exists */
    IO_DIRECT = 4  /* O_DIRECT where the file system has it; is_direct() says whether it got it */
};

struct io_ops {
    /* Clocks, nanoseconds. Cheap: no system call. */
    uint64_t (*monotonic)(struct io *io); /* CLOCK_MONOTONIC */
    uint64_t (*wall)(struct io *io);      /* CLOCK_REALTIME, since 1970 */

    /* ---- asynchronous ---- */
    /* A buffer handed in with register_buffers() (or any other memory: slower). `durable`: complete only when it is on
     * stable storage. Never completes short: the io writes on until all is written or a write fails. */
    void (*write)(struct io *io, int file, const void *buffer, size_t size, uint64_t offset, bool durable,
                  uint64_t token);
    void (*sync)(struct io *io, int file, uint64_t token); /* fdatasync */
    /* Completes as read() would have returned, but perhaps short: the rest is for read() to get, and an error to tell.
     * 0, or a negative errno: it was not begun. NULL where there is only the synchronous half. */
    int (*read_ahead)(struct io *io, int file, void *buffer, size_t size, uint64_t offset, uint64_t token);
    /* Completes with poll()'s revents each time the descriptor becomes readable, is hung up or has an error
     * (edge-triggered; at once if it is readable already; sometimes once too often), until unwatched; never reads it. A
     * watch that fails completes with the error and is over. */
    void (*watch)(struct io *io, int descriptor, uint64_t token);
    /* The watch's last completion carries -ECANCELED. Nothing happens if no watch has this token. */
    void (*unwatch)(struct io *io, uint64_t token);
    /* Adds 1 to an eventfd. Completes with 8; while the counter is full, not at all. No stranger may have the
     * descriptor: one who fills the counter and sets and clears O_NONBLOCK meanwhile can make the caller block. */
    void (*wake)(struct io *io, int event, uint64_t token);
    /* The same, handed over at once and, besides what was started before, by itself. Returns how much of the calling
     * thread's processor time handing it over took, in nanoseconds. */
    uint64_t (*wake_measured)(struct io *io, int event, uint64_t token);
    /* Ends a wake that may never complete: it completes soon, as it would have or with an error. Nothing happens if
     * none has this token. */
    void (*unwake)(struct io *io, uint64_t token);
    /* What was started is handed over and up to `count` completions are taken, without waiting. No system call when
     * nothing was started and nothing has come. Whoever calls it in a loop while a durable write is in flight must give
     * the core away in between (sched_yield() or sleep()): the kernel ends such a write in a thread of its own, and if
     * that is to run on this core, it waits for the end of the caller's time slice (4 ms instead of 0.1 ms). */
    unsigned (*completions)(struct io *io, struct io_completion *completions, unsigned count);
    /* Hands over and sleeps until a completion is there or the time has passed (UINT64_MAX: for ever). May return early
     * (a signal); whoever wants to know asks completions(). */
    void (*sleep)(struct io *io, uint64_t nanoseconds);

    /* Runs job(context, its io) in a child process that has this one's memory and descriptors as they are now, at a low
     * priority and, where there is another, on another core; the child's io has the synchronous half only, and memory
     * from io_memory() is missing there (the job may get some of its own). It completes with the job's result (0 ...
     * INT32_MAX), or -ECHILD if the child ended without one. 0, or a negative errno if there is no child. The child
     * dies with this process; a system call in which it is then may still take effect, also after this process has been
     * waited for, and until then it keeps the locks of all files that it has inherited. One at a time, until its
     * completion has been taken. */
    int (*child)(struct io *io, int (*job)(void *context, struct io *io), void *context, uint64_t token);
    /* Kills the child, if there is one, and waits for its end; it does not complete. */
    void (*child_kill)(struct io *io);
    /* Kills it without waiting, since it may be in a system call that does not end: it completes when it has ended. */
    void (*child_give_up)(struct io *io);

    /* ---- at start ---- */
    /* One region in which all buffers will lie. 0, or -1 with *error: then writes work without, and the caller says
     * so. */
    int (*register_buffers)(struct io *io, void *memory, size_t size, struct mr_error *error);
    /* Before the region is freed: the io knows it by its address and would take other memory there for it. Nothing may
     * be in flight from it. Nothing happens if there is none. */
    void (*unregister_buffers)(struct io *io);

    /* ---- synchronous, seldom ---- */
    /* `directory` is a descriptor from open_directory(). All return a descriptor, 0 or a count; or a negative errno. */
    int (*open_directory)(struct io *io, const char *path);
    /* Calls back with each name (without . and ..), in no particular order. */
    int (*list)(struct io *io, int directory, void (*name)(void *context, const char *name), void *context);
    int (*open)(struct io *io, int directory, const char *name, unsigned flags);
    bool (*is_direct)(struct io *io, int file);
    uint32_t (*alignment)(struct io *io, int file); /* largest of direct-I/O alignment, physical block size and 4096 */
    int (*lock)(struct io *io, int file);           /* flock, exclusive, waits */
    int64_t (*size)(struct io *io, int file);
    /* Short only at the end. On a direct file buffer, size and offset of reads and writes are multiples of 4096,
     * alignment() and alignment(), else -EINVAL. */
    int64_t (*read)(struct io *io, int file, void *buffer, size_t size, uint64_t offset);
    /* All of it, or a negative errno; durable after a sync_now(). Direct files as for reads. */
    int64_t (*write_now)(struct io *io, int file, const void *buffer, size_t size, uint64_t offset);
    /* Lengthens the file to at least `size`, with zeros, and reserves its blocks, so that a full disk shows now
     * (where the file system can reserve; else it only lengthens). */
    int (*allocate)(struct io *io, int file, uint64_t size);
    int (*sync_now)(struct io *io, int file); /* fsync; for directories too */
    int (*rename)(struct io *io, int directory, const char *from, const char *to);
    int (*remove)(struct io *io, int directory, const char *name);
    void (*close)(struct io *io, int file);
};

struct io {
    const struct io_ops *ops;
};

/* Does this errno say that what is stored cannot be had, where others say that something failed just now? A direct read
 * hands on what the device says: ENODATA of a bad sector, EILSEQ of one whose own checksum is wrong; the rest are file
 * systems' words for what is damaged of theirs. */
static inline bool io_unreadable(int code)
{
    return code == EIO || code == ENODATA || code == EILSEQ || code == EUCLEAN || code == EBADMSG;
}

/* Page-aligned memory for buffers, kept out of fork()ed children. */
void *io_memory(size_t size, struct mr_error *error);
void io_memory_free(void *memory, size_t size);
/* Gives back what stands in the huge pages that lie within these `size` bytes of such memory, and these pages are zero
 * from then on. Returns where the last of them ends; `memory` if there is none. */
void *io_memory_forget(void *memory, size_t size);

#endif
