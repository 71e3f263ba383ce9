/* SPDX-License-Identifier: Apache-2.0 */
/* Simulated processes: the calls of struct io, and their end. What an operation in flight does stands in
 * fake_operation.c, what a child does in fake_child.c, the medium in fake_disk.c. */
#include "tests/support/fake_io.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fake_disk.h"

static struct fake_io *self(struct io *io)
{
    return (struct fake_io *)io;
}

static struct description *file_of(struct fake_io *process, int descriptor)
{
    int n = descriptor - FIRST_DESCRIPTOR;
    if (n < 0 || n >= MAX_DESCRIPTORS || !process->files[n])
        fake_misuse("descriptor %d is not open", descriptor);
    return process->files[n];
}

int fake_enter(struct fake_io *process, enum fake_call call, const char *name)
{
    struct fake_machine *machine = process->machine;
    if (process->dead)
        return EIO;
    if (process->ghost)
        return 0;
    if (process->job_runs)
        fake_misuse("a child's job uses the io of its parent");
    machine->child_calls = process->owner != NULL;
    if (machine->config.on_call)
        machine->config.on_call(machine->config.context, process->owner ? &process->owner->io : &process->io, call,
                                name);
    if (machine->orphans && machine->config.crash == FAKE_RANDOM && fake_machine_random(machine, 4) == 0)
        fake_machine_land(machine, 1);
    return fake_fault(machine, call, name);
}

/* ---- struct io_ops: asynchronous ---- */

static uint64_t monotonic(struct io *io)
{
    return self(io)->machine->monotonic;
}

static uint64_t wall(struct io *io)
{
    const struct fake_machine *machine = self(io)->machine;
    return machine->monotonic + machine->wall_offset;
}

static bool misaligned(const struct fake_machine *machine, const struct description *file, const void *buffer,
                       uint64_t size, uint64_t offset)
{
    uint64_t mask = machine->config.alignment - 1;
    return file->direct && (((uintptr_t)buffer & (BLOCK - 1)) != 0 || ((size | offset) & mask) != 0);
}

static void start_write(struct io *io, int descriptor, const void *buffer, size_t size, uint64_t offset, bool durable,
                        uint64_t token)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return;
    struct description *file = file_of(process, descriptor);
    int fault = fake_enter(process, FAKE_WRITE, file->name);
    if (!file->inode || !(file->flags & IO_WRITE))
        fault = EBADF;
    else if (misaligned(process->machine, file, buffer, size, offset))
        fault = EINVAL;
    if (fault == EBADF || fault == EINVAL) { /* refused before anything is written */
        operation_post(process, token, -fault);
        return;
    }
    struct operation *write = operation_begin(process, FAKE_WRITE, file, token);
    write->fault = fault;
    write->buffer = buffer;
    write->size = size;
    write->offset = offset;
    write->durable = durable;
    write->data = fake_allocate(size);
    memcpy(write->data, buffer, size);
    process->machine->counts.durable_writes += durable;
}

static void start_sync(struct io *io, int descriptor, uint64_t token)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return;
    struct description *file = file_of(process, descriptor);
    int fault = fake_enter(process, FAKE_SYNC, file->name);
    if (!file->inode) {
        operation_post(process, token, -EBADF);
        return;
    }
    operation_begin(process, FAKE_SYNC, file, token)->fault = fault;
    file->inode->syncs++;
}

static void start_watch(struct io *io, int descriptor, uint64_t token)
{
    struct fake_io *process = self(io);
    int fault = fake_enter(process, FAKE_WATCH, NULL);
    if (process->dead)
        return;
    if (fault != 0) {
        operation_post(process, token, -fault);
        return;
    }
    if (process->watch_count == MAX_WATCHES)
        fake_misuse("over %d watches", MAX_WATCHES);
    process->watches = realloc(process->watches, (process->watch_count + 1) * sizeof *process->watches);
    if (!process->watches)
        fake_misuse("no memory");
    process->watches[process->watch_count++] = (struct watch){.descriptor = descriptor, .token = token};
}

static void unwatch(struct io *io, uint64_t token)
{
    struct fake_io *process = self(io);
    for (unsigned n = 0; n < process->watch_count; n++) {
        if (process->watches[n].token == token) {
            process->watches[n] = process->watches[--process->watch_count];
            operation_post(process, token, -ECANCELED);
            return;
        }
    }
}

static void start_wake(struct io *io, int event, uint64_t token)
{
    struct fake_io *process = self(io);
    int fault = fake_enter(process, FAKE_WAKE, NULL);
    if (process->dead)
        return;
    struct operation *wake = operation_begin(process, FAKE_WAKE, NULL, token);
    wake->event = event;
    wake->fault = fault;
}

static uint64_t wake_measured(struct io *io, int event, uint64_t token)
{
    struct fake_io *process = self(io);
    operation_hand_over(process);
    start_wake(io, event, token);
    return process->dead ? 0 : operation_hand_over(process);
}

static void unwake(struct io *io, uint64_t token)
{
    struct fake_operation operation;
    for (unsigned n = 0; fake_io_operation(io, n, &operation); n++)
        if (operation.call == FAKE_WAKE && operation.token == token) {
            fake_io_finish(io, n);
            return;
        }
}

static unsigned take_completions(struct io *io, struct io_completion *completions, unsigned count)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return 0;
    operation_hand_over(process);
    operation_run_due(process);
    child_run_due(process);
    unsigned taken = 0;
    while (taken < count && process->ready_taken < process->ready_count)
        completions[taken++] = process->ready[process->ready_taken++];
    if (process->ready_taken == process->ready_count)
        process->ready_taken = process->ready_count = 0;
    for (unsigned n = 0; n < taken; n++)
        if (completions[n].token == process->child_token)
            process->child_told = false;
    return taken;
}

static void sleep_for(struct io *io, uint64_t nanoseconds)
{
    struct fake_io *process = self(io);
    struct fake_machine *machine = process->machine;
    if (process->dead)
        return;
    machine->counts.sleeps++;
    operation_hand_over(process);
    if (process->ready_taken < process->ready_count)
        return;
    unsigned count = operation_count(process->operations);
    if (machine->config.order == FAKE_MANUAL && (count > 0 || process->child)) {
        unsigned chosen = (unsigned)fake_machine_random(machine, count + (process->child != NULL));
        if (chosen < count)
            fake_io_finish(io, chosen);
        else
            fake_io_child_step(io);
        return;
    }
    uint64_t due = process->child ? process->child->due : UINT64_MAX;
    for (const struct operation *operation = process->operations; operation; operation = operation->next)
        due = operation->due < due ? operation->due : due;
    if (due == UINT64_MAX && nanoseconds == UINT64_MAX) {
        if (process->watch_count == 0)
            fake_misuse("a process sleeps for ever with nothing in flight and nothing watched");
        return;
    }
    uint64_t end = nanoseconds > UINT64_MAX - machine->monotonic ? UINT64_MAX : machine->monotonic + nanoseconds;
    uint64_t until = due < end ? due : end;
    if (until > machine->monotonic && !machine->config.clock_stands)
        machine->monotonic = until;
}

static int register_buffers(struct io *io, void *memory, size_t size, struct mr_error *error)
{
    int fault = fake_enter(self(io), FAKE_REGISTER, NULL);
    if (fault != 0)
        return error_system(error, fault, "cannot register %zu bytes of buffers", size);
    self(io)->registered = memory;
    return 0;
}

static void unregister_buffers(struct io *io)
{
    self(io)->registered = NULL;
}

/* ---- struct io_ops: synchronous ---- */

static int new_descriptor(struct fake_io *process, struct description *file)
{
    for (int n = 0; n < MAX_DESCRIPTORS; n++) {
        if (!process->files[n]) {
            process->files[n] = file;
            return FIRST_DESCRIPTOR + n;
        }
    }
    fake_misuse("over %d open files", MAX_DESCRIPTORS);
}

static struct directory *directory_of(struct fake_io *process, int descriptor)
{
    struct directory *directory = file_of(process, descriptor)->directory;
    if (!directory)
        fake_misuse("descriptor %d is not a directory", descriptor);
    return directory;
}

static int open_directory(struct io *io, const char *path)
{
    struct fake_io *process = self(io);
    int fault = fake_enter(process, FAKE_OPEN_DIRECTORY, path);
    if (fault != 0)
        return -fault;
    struct directory *directory = disk_directory(process->machine, path);
    if (!directory)
        return -ENOENT;
    return new_descriptor(process, disk_describe(process->machine, NULL, directory, path));
}

static int list_names(struct io *io, int descriptor, void (*name)(void *context, const char *name), void *context)
{
    struct fake_io *process = self(io);
    int fault = fake_enter(process, FAKE_LIST, NULL);
    if (fault != 0)
        return -fault;
    const struct entries *entries = &directory_of(process, descriptor)->current;
    /* In no particular order, and the callback may change the directory. */
    unsigned count = entries->count;
    struct entry *copy = fake_allocate(count * sizeof *copy);
    if (count > 0)
        memcpy(copy, entries->list, count * sizeof *copy);
    for (unsigned n = count; n > 0; n--) {
        unsigned chosen = (unsigned)fake_machine_random(process->machine, n);
        name(context, copy[chosen].name);
        copy[chosen] = copy[n - 1];
    }
    free(copy);
    return 0;
}

static int open_file(struct io *io, int descriptor, const char *name, unsigned flags)
{
    struct fake_io *process = self(io);
    struct fake_machine *machine = process->machine;
    int fault = fake_enter(process, FAKE_OPEN, name);
    if (fault != 0)
        return -fault;
    if (strlen(name) >= NAME_SIZE)
        return -ENAMETOOLONG;
    struct directory *directory = directory_of(process, descriptor);
    struct inode *inode = disk_find(&directory->current, name);
    if (flags & IO_CREATE) {
        if (inode)
            return -EEXIST;
        inode = disk_new_inode(machine);
        disk_change(directory, "", name, inode);
    } else if (!inode) {
        return -ENOENT;
    }
    struct description *file = disk_describe(machine, inode, NULL, name);
    file->flags = flags;
    file->direct = (flags & IO_DIRECT) && !machine->config.no_direct;
    return new_descriptor(process, file);
}

static bool is_direct(struct io *io, int descriptor)
{
    return !self(io)->dead && file_of(self(io), descriptor)->direct;
}

static uint32_t alignment(struct io *io, int descriptor)
{
    (void)descriptor;
    return self(io)->machine->config.alignment;
}

static int lock_file(struct io *io, int descriptor)
{
    struct fake_io *process = self(io);
    struct fake_machine *machine = process->machine;
    if (process->dead)
        return -EIO;
    struct description *file = file_of(process, descriptor);
    int fault = fake_enter(process, FAKE_LOCK, file->name);
    if (fault != 0)
        return -fault;
    struct inode *inode = file->inode;
    /* The lock of a dead process falls after the last write through the descriptor that holds it. */
    while (inode->owner && inode->owner != file && inode->owner->open == 0 && machine->orphans)
        fake_machine_land(machine, 1);
    if (inode->owner && inode->owner != file)
        return -EWOULDBLOCK; /* where a real one would wait for a process that lives */
    inode->owner = file;
    return 0;
}

static int64_t size_of(struct io *io, int descriptor)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return -EIO;
    struct description *file = file_of(process, descriptor);
    int fault = fake_enter(process, FAKE_SIZE, file->name);
    return fault != 0 ? -fault : (int64_t)file->inode->size;
}

static int64_t read_file(struct io *io, int descriptor, void *buffer, size_t size, uint64_t offset)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return -EIO;
    struct description *file = file_of(process, descriptor);
    int fault = fake_enter(process, FAKE_READ, file->name);
    if (fault != 0)
        return -fault;
    if (misaligned(process->machine, file, buffer, size, offset))
        return -EINVAL;
    const struct inode *inode = file->inode;
    if (offset >= inode->size)
        return 0;
    uint64_t there = inode->size - offset;
    size_t count = size < there ? size : (size_t)there;
    /* What is behind the capacity was never written. */
    size_t stored = offset >= inode->capacity ? 0 : count;
    if (stored > inode->capacity - offset)
        stored = (size_t)(inode->capacity - offset);
    if (stored > 0)
        memcpy(buffer, inode->current + offset, stored);
    memset((uint8_t *)buffer + stored, 0, count - stored);
    process->machine->counts.bytes_read += count;
    return (int64_t)count;
}

/* At once: what matters is that it may fail, or end short, where the reader takes it for an offer. */
static int start_read(struct io *io, int descriptor, void *buffer, size_t size, uint64_t offset, uint64_t token)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return -EIO;
    if (size > INT32_MAX)
        fake_misuse("a read of %zu bytes ahead", size);
    int64_t got = read_file(io, descriptor, buffer, size, offset);
    if (got > BLOCK && fake_machine_random(process->machine, 8) == 0)
        got = BLOCK;
    operation_post(process, token, (int32_t)got);
    return 0;
}

static int64_t write_now(struct io *io, int descriptor, const void *buffer, size_t size, uint64_t offset)
{
    struct fake_io *process = self(io);
    struct fake_machine *machine = process->machine;
    if (process->dead)
        return -EIO;
    struct description *file = file_of(process, descriptor);
    int fault = fake_enter(process, FAKE_WRITE_NOW, file->name);
    if (!file->inode || !(file->flags & IO_WRITE))
        return -EBADF;
    if (misaligned(machine, file, buffer, size, offset))
        return -EINVAL;
    if (fault != 0) {
        disk_write_torn(machine, file->inode, buffer, size, offset, false);
        return -fault;
    }
    uint64_t done = disk_write(machine, file->inode, buffer, size, offset, false);
    machine->counts.bytes_written += done;
    return done < size ? -ENOSPC : (int64_t)size;
}

static int allocate(struct io *io, int descriptor, uint64_t size)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return -EIO;
    struct description *file = file_of(process, descriptor);
    int fault = fake_enter(process, FAKE_ALLOCATE, file->name);
    if (fault != 0)
        return -fault;
    return disk_reserve(process->machine, file->inode, size) ? 0 : -ENOSPC;
}

static int sync_now(struct io *io, int descriptor)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return -EIO;
    struct description *file = file_of(process, descriptor);
    int fault = fake_enter(process, FAKE_SYNC_NOW, file->name);
    if (fault != 0) {
        if (file->inode)
            disk_flush_failed(process->machine, file->inode);
        return -fault;
    }
    if (file->directory) {
        disk_sync_directory(file->directory);
        disk_collect(process->machine);
    } else {
        disk_flush(file->inode, UINT64_MAX);
    }
    return 0;
}

static int rename_file(struct io *io, int descriptor, const char *from, const char *to)
{
    struct fake_io *process = self(io);
    int fault = fake_enter(process, FAKE_RENAME, from);
    if (fault != 0)
        return -fault;
    struct directory *directory = directory_of(process, descriptor);
    struct inode *inode = disk_find(&directory->current, from);
    if (!inode)
        return -ENOENT;
    if (strlen(to) >= NAME_SIZE)
        return -ENAMETOOLONG;
    if (strcmp(from, to) != 0)
        disk_change(directory, from, to, inode);
    return 0;
}

static int remove_file(struct io *io, int descriptor, const char *name)
{
    struct fake_io *process = self(io);
    int fault = fake_enter(process, FAKE_REMOVE, name);
    if (fault != 0)
        return -fault;
    struct directory *directory = directory_of(process, descriptor);
    if (!disk_find(&directory->current, name))
        return -ENOENT;
    disk_change(directory, name, "", NULL);
    return 0;
}

static void close_descriptor(struct fake_io *process, int n)
{
    process->files[n]->open -= !process->ghost;
    disk_release(process->machine, process->files[n]);
    process->files[n] = NULL;
}

void fake_close_all(struct fake_io *process)
{
    for (int n = 0; n < MAX_DESCRIPTORS; n++)
        if (process->files[n])
            close_descriptor(process, n);
}

static void close_file(struct io *io, int descriptor)
{
    struct fake_io *process = self(io);
    if (process->dead)
        return;
    file_of(process, descriptor);
    close_descriptor(process, descriptor - FIRST_DESCRIPTOR);
}

static const struct io_ops fake_ops = {
    .monotonic = monotonic,
    .wall = wall,
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
    .child = child_begin,
    .child_kill = child_kill,
    .child_give_up = child_give_up,
    .register_buffers = register_buffers,
    .unregister_buffers = unregister_buffers,
    .open_directory = open_directory,
    .list = list_names,
    .open = open_file,
    .is_direct = is_direct,
    .alignment = alignment,
    .lock = lock_file,
    .size = size_of,
    .read = read_file,
    .write_now = write_now,
    .allocate = allocate,
    .sync_now = sync_now,
    .rename = rename_file,
    .remove = remove_file,
    .close = close_file,
};

/* ---- processes, as tests hold them ---- */

struct io *fake_io_create(struct fake_machine *machine)
{
    struct fake_io *process = fake_allocate(sizeof *process);
    process->io.ops = &fake_ops;
    process->machine = machine;
    process->next = machine->processes;
    machine->processes = process;
    return &process->io;
}

void fake_io_crash_process(struct io *io)
{
    struct fake_io *process = self(io);
    struct fake_machine *machine = process->machine;
    if (process->dead)
        return;
    process->dead = true;
    struct operation **end = &machine->orphans;
    while (*end)
        end = &(*end)->next;
    for (struct operation *operation; (operation = operation_unlink(&process->operations, 0));) {
        operation->next = NULL;
        bool happens = operation->handed_over && operation->call != FAKE_WAKE && machine->config.crash != FAKE_LOSE;
        /* A wake that was handed over may have been done; the eventfd's owner is woken by the death anyway. */
        if (happens) {
            *end = operation;
            end = &operation->next;
        } else {
            operation_free(machine, operation);
        }
    }
    *end = child_orphan(process);
    fake_close_all(process);
    process->ready_count = process->ready_taken = process->watch_count = 0;
    process->child_told = false;
}

void fake_io_destroy(struct io *io)
{
    struct fake_io *process = self(io);
    fake_io_crash_process(io);
    struct fake_io **link = &process->machine->processes;
    while (*link != process)
        link = &(*link)->next;
    *link = process->next;
    free(process->ready);
    free(process->watches);
    free(process->events);
    free(process);
}

void *fake_io_registered(const struct io *io)
{
    return ((const struct fake_io *)io)->registered;
}

unsigned fake_io_in_flight(const struct io *io)
{
    return operation_count(((const struct fake_io *)io)->operations);
}

bool fake_io_operation(const struct io *io, unsigned n, struct fake_operation *out)
{
    const struct operation *operation = ((const struct fake_io *)io)->operations;
    while (operation && n-- > 0)
        operation = operation->next;
    if (!operation)
        return false;
    *out = (struct fake_operation){.call = operation->call,
                                   .name = operation->file ? operation->file->name : NULL,
                                   .offset = operation->offset,
                                   .size = operation->size,
                                   .token = operation->token,
                                   .durable = operation->durable,
                                   .event = operation->event};
    return true;
}

bool fake_io_finish(struct io *io, unsigned n)
{
    struct operation *operation = operation_unlink(&self(io)->operations, n);
    if (operation)
        operation_perform(self(io), operation);
    return operation != NULL;
}

void fake_io_finish_all(struct io *io)
{
    while (fake_io_finish(io, 0))
        ;
}

bool fake_io_trigger(struct io *io, int descriptor)
{
    struct fake_io *process = self(io);
    for (unsigned n = 0; n < process->watch_count; n++) {
        if (process->watches[n].descriptor == descriptor) {
            operation_post(process, process->watches[n].token, POLLIN);
            return true;
        }
    }
    return false;
}

uint64_t fake_io_wakes(const struct io *io, int event)
{
    const struct fake_io *process = (const struct fake_io *)io;
    for (unsigned n = 0; n < process->event_count; n++)
        if (process->events[n].event == event)
            return process->events[n].wakes;
    return 0;
}

/* ---- the end of many ---- */

void fake_machine_power_cut(struct fake_machine *machine)
{
    enum fake_fate crash = machine->config.crash;
    machine->config.crash = FAKE_KEEP; /* all that was handed over has the disk's fate now */
    for (struct fake_io *process = machine->processes; process; process = process->next)
        fake_io_crash_process(&process->io);
    machine->config.crash = crash;
    while (machine->orphans) {
        uint64_t chosen = fake_machine_random(machine, operation_count(machine->orphans));
        operation_land(machine, operation_unlink(&machine->orphans, chosen), machine->config.power_cut);
    }
    disk_power_cut(machine);
    uint64_t now = machine->monotonic;
    machine->monotonic = UINT64_C(1000000000);
    machine->wall_offset += now - machine->monotonic;
}
