/* SPDX-License-Identifier: Apache-2.0 */
/* A machine in memory: a disk that forgets what was not flushed, a clock that tests move, and any number of
 * processes on it, each with a `struct io` of its own. For unit tests of what uses an io, and for the simulator.
 * Everything that happens follows from the seed and the calls made; one thread.
 *
 * The disk's model, as weak as a real one may be:
 *   - An operation begins with the call, is handed over by completions() or sleep(), and takes effect at some moment
 *     between that and its completion. What was not handed over dies with its process.
 *   - A write that has completed is seen by every read. It survives a power cut only if it was `durable` or a sync
 *     that began after its completion has succeeded; otherwise each of its 512-byte sectors is kept or lost by
 *     itself (the one before may be there, or any in between that was written over).
 *   - A write in flight at a power cut has happened fully, partly (in any sectors) or not.
 *   - A write in flight when its process dies happens later, fully, partly or not: at any call of another process,
 *     at the latest before lock() gives the file to another process, provided the dead one held its lock through the
 *     same descriptor. Without such a lock it can happen at any time.
 *   - Creating, renaming and removing survive a power cut only if the directory was synced afterwards; otherwise
 *     each of them is there or not. A new file's sync does not sync its name.
 *   - A failed write may have been written in part. A failed sync may have lost what it was to flush: reads still
 *     see it, a later sync succeeds, the power cut takes it.
 *   - After a power cut CLOCK_MONOTONIC begins anew.
 *
 * Children. child() runs the job at once, on the memory as it is and on a view of the disk as it is: there all that it
 * does succeeds (but for what cannot: a name that is missing), and it reads what it has written. What it called happens
 * on the disk afterwards, call by call, each after a delay of its own like the operations of its process, while the
 * process does other things; so does its end. (What the job does without its io happens in child(), and what it changes
 * in memory stays changed.)
 *   - Each of its calls is counted, can fail, and is announced to on_call, with its process's io, when it happens. One
 *     that fails, or comes out otherwise than on the view (the disk is full, somebody has made the name), ends it as an
 *     error ends a job: what it has created, also if it was renamed, is removed, call by call, unless its directory was
 *     synced, and it completes with -ECHILD.
 *   - It has its process's descriptors, and keeps their files' locks until it has ended.
 *   - Killed (child_kill(), child_give_up(), fake_io_child_die()) it may still do the call that comes next; a write
 *     also in part. When its process dies or the power is cut it is killed: then that call happens as writes in flight
 *     do, so perhaps later, when a successor is at work, and until then its locks hold.
 *
 * Mistakes of the caller are found, and abort with a message: a buffer changed while its write is in flight, sleeping
 * for ever with nothing that could end it, a descriptor that is not open, two children at a time, a job that uses the
 * io of its parent. */
#ifndef TESTS_SUPPORT_FAKE_IO_H
#define TESTS_SUPPORT_FAKE_IO_H

#include "engine/io/io.h"

struct fake_machine;

/* Calls, as counted and made to fail. */
enum fake_call {
    FAKE_WRITE,
    FAKE_SYNC, /* the asynchronous one */
    FAKE_WATCH,
    FAKE_WAKE,
    FAKE_CHILD, /* the fork itself */
    FAKE_REGISTER,
    FAKE_OPEN_DIRECTORY,
    FAKE_LIST,
    FAKE_OPEN,
    FAKE_LOCK,
    FAKE_SIZE,
    FAKE_READ,
    FAKE_WRITE_NOW,
    FAKE_ALLOCATE,
    FAKE_SYNC_NOW,
    FAKE_RENAME,
    FAKE_REMOVE,
    FAKE_CALLS
};

/* When operations complete. */
enum fake_order {
    FAKE_AT_ONCE,   /* at the next completions(), in order (default) */
    FAKE_IN_ORDER,  /* after their delay, in the order in which they were begun (a child's calls: in theirs) */
    FAKE_ANY_ORDER, /* after their delay, in any order, some of those due at a time */
    FAKE_MANUAL     /* by fake_io_finish(), a child's calls by fake_io_child_step(); and one each time the process
                     * sleeps, because the world goes on */
};

/* What a crash leaves of what was neither promised nor refused. */
enum fake_fate { FAKE_RANDOM, FAKE_KEEP, FAKE_LOSE };

struct fake_config {
    enum fake_order order;
    uint64_t delay_min, delay_max; /* nanoseconds an operation takes; default 0 */
    enum fake_fate power_cut;      /* of unflushed sectors, unsynced names, writes in flight */
    enum fake_fate crash;          /* of writes in flight when their process dies, and of a killed child's call */
    bool no_direct;                /* IO_DIRECT is not had */
    uint32_t alignment;            /* default 4096 */
    uint64_t space;                /* bytes that all files may take, in blocks of 4096; default UINT64_MAX */
    bool clock_stands; /* sleep() does not move the clock; default: to the next completion or the time out */
    uint32_t fail_ppm[FAKE_CALLS]; /* of a million calls that many fail with EIO, at random */
    /* Called before each call does anything, also with the machine's own mind: may longjmp() away. `name` may be
     * NULL. */
    void (*on_call)(void *context, struct io *io, enum fake_call call, const char *name);
    /* Called when a wake() takes effect. */
    void (*on_wake)(void *context, struct io *io, int event);
    /* How long handing over a wake() of this eventfd takes: its process's processor time; and *waited besides, in which
     * the process has no processor. NULL: no time. */
    uint64_t (*wake_takes)(void *context, int event, uint64_t *waited);
    void *context;
};

struct fake_counts {
    uint64_t calls[FAKE_CALLS];
    uint64_t bytes_written, bytes_read;
    uint64_t durable_writes;
    uint64_t sleeps;
    uint64_t faults; /* calls made to fail */
};

/* ---- the machine ---- */
struct fake_machine *fake_machine_create(uint64_t seed);
/* Frees the processes too. */
void fake_machine_destroy(struct fake_machine *machine);
/* The same files (as they are read now, and what of them is durable), clock, configuration without hooks, and luck; no
 * process, no faults, nothing in flight. To try what happens from here on more than once. */
struct fake_machine *fake_machine_clone(const struct fake_machine *machine);
/* May be changed at any time. */
struct fake_config *fake_machine_config(struct fake_machine *machine);
struct fake_counts *fake_machine_counts(struct fake_machine *machine);
/* A random number below `limit`, from the machine's seed. */
uint64_t fake_machine_random(struct fake_machine *machine, uint64_t limit);
/* All processes die, the disk forgets what its model says. */
void fake_machine_power_cut(struct fake_machine *machine);
/* Up to `count` writes of dead processes, and calls of their children, happen (or never will), in any order. How many
 * there were. */
unsigned fake_machine_land(struct fake_machine *machine, unsigned count);
void fake_machine_advance(struct fake_machine *machine, uint64_t nanoseconds);
void fake_machine_step_wall(struct fake_machine *machine, int64_t nanoseconds); /* CLOCK_REALTIME jumps */
/* Of the calls of this kind (on files of this name, unless NULL) the `nth` from now (1: the next) and the count - 1
 * after it fail with `error`, a positive errno. count UINT64_MAX: all from then on. */
void fake_machine_fail(struct fake_machine *machine, enum fake_call call, const char *name, uint64_t nth,
                       uint64_t count, int error);
void fake_machine_heal(struct fake_machine *machine); /* forgets all faults, those by chance too */

/* ---- its files, behind everybody's back ---- */
void fake_make_directory(struct fake_machine *machine, const char *path); /* durable at once */
/* -1: there is no such file. */
int64_t fake_file_size(const struct fake_machine *machine, const char *directory, const char *name);
/* As a read would; the number of bytes, or -1. */
int64_t fake_file_read(const struct fake_machine *machine, const char *directory, const char *name, void *buffer,
                       size_t size, uint64_t offset);
/* These change what is read and what is durable; a file that is not there is made. */
void fake_file_write(struct fake_machine *machine, const char *directory, const char *name, const void *buffer,
                     size_t size, uint64_t offset);
void fake_file_flip(struct fake_machine *machine, const char *directory, const char *name, uint64_t offset,
                    unsigned bit);
void fake_file_truncate(struct fake_machine *machine, const char *directory, const char *name, uint64_t size);
void fake_file_remove(struct fake_machine *machine, const char *directory, const char *name);
/* The n-th name of the directory (0 ...), NULL when there are no more. */
const char *fake_file_name(const struct fake_machine *machine, const char *directory, unsigned n);

/* ---- a process ---- */
struct io *fake_io_create(struct fake_machine *machine);
/* The process dies: its descriptors are closed, what it has in flight is left to fate. The io stays until it is
 * destroyed: calls on it do nothing, synchronous ones give -EIO, so that what used it can be freed. */
void fake_io_crash_process(struct io *io);
void fake_io_destroy(struct io *io); /* crashes it first */

/* What it has in flight, oldest first. */
struct fake_operation {
    enum fake_call call;
    const char *name; /* of the file; NULL for a wake */
    uint64_t offset, size, token;
    bool durable;
    int event;
};
/* The region of buffers that it was told of; NULL: none. */
void *fake_io_registered(const struct io *io);
unsigned fake_io_in_flight(const struct io *io);
bool fake_io_operation(const struct io *io, unsigned n, struct fake_operation *operation);
/* Lets the n-th in flight happen: its completion is there for the next completions(). False: there is none. Counts as
 * handed over, even if it was not. */
bool fake_io_finish(struct io *io, unsigned n);
void fake_io_finish_all(struct io *io);
/* Its child makes its next call, or ends if there is none left. False: it has no child. */
bool fake_io_child_step(struct io *io);
/* Something else kills its child, such as a lack of memory: nothing is tidied up, and it completes with -ECHILD. False:
 * it has none. */
bool fake_io_child_die(struct io *io);
bool fake_io_child_runs(const struct io *io);
/* In on_call: is it the child's call? */
bool fake_io_child_calls(const struct io *io);
/* The descriptor becomes readable: a completion (POLLIN) for its watch. False: nobody watches it. */
bool fake_io_trigger(struct io *io, int descriptor);
/* How often wake() took effect on `event`. */
uint64_t fake_io_wakes(const struct io *io, int event);

#endif
