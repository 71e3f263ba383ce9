/* SPDX-License-Identifier: Apache-2.0 */
/* Children of simulated processes. A child's job runs at once, from beginning to end, on a view of the machine that
 * only it sees; what it calls is noted down. Those calls are then made one by one, as the machine's time goes on, on
 * the machine itself, with descriptors that the child shares with its process as after a fork: struct fake_child. What
 * the job has seen is not the truth then, but what would be if nothing else happened; the first call that comes out
 * otherwise ends the child as its own failure would have ended the job. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fake_disk.h"

/* ---- the job, noted down ---- */

struct recorder {
    struct io io;    /* first: what the job holds */
    struct io *view; /* of a process on the view, with the same descriptors */
    struct fake_child *child;
};

static struct io *view_of(struct io *io)
{
    return ((struct recorder *)io)->view;
}

static char *copy_text(const char *text)
{
    return text ? strcpy(fake_allocate(strlen(text) + 1), text) : NULL;
}

static void free_call(struct child_call *call)
{
    free(call->name);
    free(call->to);
    free(call->data);
}

static void add_call(struct fake_child *child, struct child_call call)
{
    child->calls = realloc(child->calls, (child->count + 1) * sizeof *child->calls);
    if (!child->calls)
        fake_misuse("no memory");
    child->calls[child->count++] = call;
}

/* Notes what has an effect, or costs time; a call that failed on the view (a name that is not there) has neither. */
static int64_t note(struct io *io, struct child_call call, int64_t result)
{
    if (result < 0)
        return result;
    call.name = copy_text(call.name);
    call.to = copy_text(call.to);
    call.result = result;
    add_call(((struct recorder *)io)->child, call);
    return result;
}

static uint64_t monotonic(struct io *io)
{
    return view_of(io)->ops->monotonic(view_of(io));
}

static uint64_t wall(struct io *io)
{
    return view_of(io)->ops->wall(view_of(io));
}

static int open_directory(struct io *io, const char *path)
{
    int result = view_of(io)->ops->open_directory(view_of(io), path);
    return (int)note(io, (struct child_call){.call = FAKE_OPEN_DIRECTORY, .name = (char *)(uintptr_t)path}, result);
}

static int list_names(struct io *io, int directory, void (*name)(void *context, const char *name), void *context)
{
    int result = view_of(io)->ops->list(view_of(io), directory, name, context);
    return (int)note(io, (struct child_call){.call = FAKE_LIST, .file = directory}, result);
}

static int open_file(struct io *io, int directory, const char *name, unsigned flags)
{
    int result = view_of(io)->ops->open(view_of(io), directory, name, flags);
    return (int)note(
        io, (struct child_call){.call = FAKE_OPEN, .file = directory, .name = (char *)(uintptr_t)name, .flags = flags},
        result);
}

static bool is_direct(struct io *io, int file)
{
    return view_of(io)->ops->is_direct(view_of(io), file);
}

static uint32_t alignment(struct io *io, int file)
{
    return view_of(io)->ops->alignment(view_of(io), file);
}

static int lock_file(struct io *io, int file)
{
    int result = view_of(io)->ops->lock(view_of(io), file);
    return (int)note(io, (struct child_call){.call = FAKE_LOCK, .file = file}, result);
}

static int64_t size_of(struct io *io, int file)
{
    int64_t result = view_of(io)->ops->size(view_of(io), file);
    return note(io, (struct child_call){.call = FAKE_SIZE, .file = file}, result);
}

static int64_t read_file(struct io *io, int file, void *buffer, size_t size, uint64_t offset)
{
    int64_t result = view_of(io)->ops->read(view_of(io), file, buffer, size, offset);
    return note(io, (struct child_call){.call = FAKE_READ, .file = file}, result);
}

static int64_t write_now(struct io *io, int file, const void *buffer, size_t size, uint64_t offset)
{
    int64_t result = view_of(io)->ops->write_now(view_of(io), file, buffer, size, offset);
    struct child_call call = {.call = FAKE_WRITE_NOW, .file = file, .size = size, .offset = offset};
    if (result < 0)
        return result;
    call.data = aligned_alloc(BLOCK, (size / BLOCK + 1) * BLOCK); /* as good as the job's, if the file is direct */
    if (!call.data)
        fake_misuse("no memory");
    memcpy(call.data, buffer, size);
    return note(io, call, result);
}

static int allocate(struct io *io, int file, uint64_t size)
{
    int result = view_of(io)->ops->allocate(view_of(io), file, size);
    return (int)note(io, (struct child_call){.call = FAKE_ALLOCATE, .file = file, .size = size}, result);
}

static int sync_now(struct io *io, int file)
{
    int result = view_of(io)->ops->sync_now(view_of(io), file);
    return (int)note(io, (struct child_call){.call = FAKE_SYNC_NOW, .file = file}, result);
}

static int rename_file(struct io *io, int directory, const char *from, const char *to)
{
    int result = view_of(io)->ops->rename(view_of(io), directory, from, to);
    return (int)note(
        io,
        (struct child_call){
            .call = FAKE_RENAME, .file = directory, .name = (char *)(uintptr_t)from, .to = (char *)(uintptr_t)to},
        result);
}

static int remove_file(struct io *io, int directory, const char *name)
{
    int result = view_of(io)->ops->remove(view_of(io), directory, name);
    return (int)note(io, (struct child_call){.call = FAKE_REMOVE, .file = directory, .name = (char *)(uintptr_t)name},
                     result);
}

static void close_file(struct io *io, int file)
{
    view_of(io)->ops->close(view_of(io), file);
    note(io, (struct child_call){.call = CALL_CLOSE, .file = file}, 0);
}

static const struct io_ops recorder_ops = {
    .monotonic = monotonic,
    .wall = wall,
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

/* A process on the view with the descriptors that this one has. */
static struct io *process_on_view(const struct fake_io *process, struct fake_machine *view)
{
    struct io *io = fake_io_create(view);
    for (int n = 0; n < MAX_DESCRIPTORS; n++) {
        const struct description *file = process->files[n];
        if (!file)
            continue;
        struct inode *inode = file->inode ? machine_counterpart(process->machine, view, file->inode) : NULL;
        struct directory *directory = file->directory ? disk_directory(view, file->directory->path) : NULL;
        struct description *copy = disk_describe(view, inode, directory, file->name);
        copy->flags = file->flags;
        copy->direct = file->direct;
        ((struct fake_io *)io)->files[n] = copy;
    }
    return io;
}

static int run_job(struct fake_io *process, struct fake_child *child, int (*job)(void *context, struct io *io),
                   void *context)
{
    struct fake_machine *view = machine_view(process->machine);
    struct recorder recorder = {.io = {.ops = &recorder_ops}, .view = process_on_view(process, view), .child = child};
    process->job_runs = true;
    int result = job(context, &recorder.io);
    process->job_runs = false;
    fake_machine_destroy(view);
    return result;
}

/* ---- its calls, made ---- */

/* Keeps account of the names that it has made in directories not synced since. */
static void note_name(struct fake_child *child, const struct child_call *call)
{
    if (call->call == FAKE_OPEN && (call->flags & IO_CREATE)) {
        child->names = realloc(child->names, (child->name_count + 1) * sizeof *child->names);
        if (!child->names)
            fake_misuse("no memory");
        child->names[child->name_count++] = (struct child_name){.directory = call->file, .name = copy_text(call->name)};
    }
    bool changes = call->call == FAKE_RENAME || call->call == FAKE_REMOVE;
    if (!changes && call->call != FAKE_SYNC_NOW)
        return;
    for (unsigned n = child->name_count; n-- > 0;) {
        struct child_name *name = &child->names[n];
        if (name->directory != call->file || (changes && strcmp(name->name, call->name) != 0))
            continue;
        free(name->name);
        if (call->call == FAKE_RENAME)
            name->name = copy_text(call->to);
        else
            *name = child->names[--child->name_count];
    }
}

/* What only reads has had its answer; its time and its faults are still to come. */
static int64_t make_reading_call(struct fake_io *process, const struct child_call *call)
{
    const char *name = call->call == FAKE_LIST ? NULL : process->files[call->file - FIRST_DESCRIPTOR]->name;
    int fault = fake_enter(process, (enum fake_call)call->call, name);
    return fault != 0 ? -fault : call->result;
}

static int64_t make_call(struct fake_io *process, const struct child_call *call)
{
    struct io *io = &process->io;
    switch (call->call) {
    case FAKE_OPEN_DIRECTORY:
        return io->ops->open_directory(io, call->name);
    case FAKE_OPEN:
        return io->ops->open(io, call->file, call->name, call->flags);
    case FAKE_LOCK:
        return io->ops->lock(io, call->file);
    case FAKE_WRITE_NOW:
        return io->ops->write_now(io, call->file, call->data, call->size, call->offset);
    case FAKE_ALLOCATE:
        return io->ops->allocate(io, call->file, call->size);
    case FAKE_SYNC_NOW:
        return io->ops->sync_now(io, call->file);
    case FAKE_RENAME:
        return io->ops->rename(io, call->file, call->name, call->to);
    case FAKE_REMOVE:
        return io->ops->remove(io, call->file, call->name);
    case CALL_CLOSE:
        io->ops->close(io, call->file);
        return 0;
    default:
        return make_reading_call(process, call);
    }
}

/* As a job does that fails: nothing of what it was about to do, and what it has made is removed. */
static void fail(struct fake_child *child)
{
    child->done++;
    if (child->failed)
        return; /* a file that could not be removed stays */
    child->failed = true;
    child->result = -ECHILD;
    while (child->count > child->done)
        free_call(&child->calls[--child->count]);
    for (unsigned n = 0; n < child->name_count; n++)
        if (child->process->files[child->names[n].directory - FIRST_DESCRIPTOR])
            add_call(child, (struct child_call){.call = FAKE_REMOVE,
                                                .file = child->names[n].directory,
                                                .name = copy_text(child->names[n].name)});
}

static void tell(struct fake_io *process, struct fake_child *child, int32_t result)
{
    operation_post(process, child->token, result);
    process->child_told = true;
    process->child_token = child->token;
    process->child = NULL;
}

bool fake_io_child_step(struct io *io)
{
    struct fake_io *process = (struct fake_io *)io;
    struct fake_child *child = process->child;
    if (!child)
        return false;
    if (child->done == child->count) {
        tell(process, child, child->result);
        child_free(child);
        return true;
    }
    /* The call may end the process, and the child with it, without coming back. */
    const struct child_call *call = &child->calls[child->done];
    if (make_call(child->process, call) == call->result) {
        note_name(child, call);
        child->done++;
    } else {
        fail(child);
    }
    while (child->done < child->count && child->calls[child->done].call == CALL_CLOSE)
        make_call(child->process, &child->calls[child->done++]);
    child->due = operation_due(process->machine);
    return true;
}

void child_run_due(struct fake_io *process)
{
    struct fake_machine *machine = process->machine;
    enum fake_order order = machine->config.order;
    if (order == FAKE_MANUAL)
        return;
    while (process->child && (order == FAKE_AT_ONCE || process->child->due <= machine->monotonic) &&
           (order != FAKE_ANY_ORDER || fake_machine_random(machine, 4) > 0))
        fake_io_child_step(&process->io);
}

/* ---- beginning and end ---- */

int child_begin(struct io *io, int (*job)(void *context, struct io *io), void *context, uint64_t token)
{
    struct fake_io *process = (struct fake_io *)io;
    int fault = fake_enter(process, FAKE_CHILD, NULL);
    if (fault != 0)
        return -fault;
    if (process->child || process->child_told)
        fake_misuse("a process has two children");
    struct fake_child *child = fake_allocate(sizeof *child);
    int result = run_job(process, child, job, context);
    child->result = result >= 0 ? result : -ECHILD;
    child->token = token;
    child->process = fake_allocate(sizeof *child->process);
    child->process->io.ops = io->ops;
    child->process->machine = process->machine;
    child->process->owner = process;
    for (int n = 0; n < MAX_DESCRIPTORS; n++) {
        struct description *file = child->process->files[n] = process->files[n];
        if (file) {
            file->references++;
            file->open++;
        }
    }
    child->due = operation_due(process->machine);
    process->child = child;
    return 0;
}

void child_free(struct fake_child *child)
{
    fake_close_all(child->process);
    free(child->process);
    for (unsigned n = 0; n < child->count; n++)
        free_call(&child->calls[n]);
    free(child->calls);
    for (unsigned n = 0; n < child->name_count; n++)
        free(child->names[n].name);
    free(child->names);
    free(child);
}

/* From here on nothing but the call in which it is can happen. */
static void make_ghost(struct fake_child *child)
{
    for (int n = 0; n < MAX_DESCRIPTORS; n++)
        if (child->process->files[n])
            child->process->files[n]->open--;
    child->process->ghost = true;
    child->process->owner = NULL;
}

void child_land(struct fake_machine *machine, struct fake_child *child, enum fake_fate fate)
{
    bool torn = fate == FAKE_RANDOM && fake_machine_random(machine, 2) == 0;
    bool never = fate == FAKE_LOSE || (fate == FAKE_RANDOM && fake_machine_random(machine, 4) == 0);
    const struct child_call *call = &child->calls[child->done];
    if (never || child->done == child->count)
        ;
    else if (torn && call->call == FAKE_WRITE_NOW)
        disk_write_torn(machine, child->process->files[call->file - FIRST_DESCRIPTOR]->inode, call->data, call->size,
                        call->offset, false);
    else
        make_call(child->process, call);
    child_free(child);
}

struct operation *child_orphan(struct fake_io *process)
{
    struct fake_child *child = process->child;
    process->child = NULL;
    if (!child)
        return NULL;
    make_ghost(child);
    if (child->done == child->count || process->machine->config.crash == FAKE_LOSE) {
        child_free(child);
        return NULL;
    }
    struct operation *orphan = fake_allocate(sizeof *orphan);
    orphan->call = FAKE_CHILD;
    orphan->child = child;
    return orphan;
}

void child_kill(struct io *io)
{
    struct fake_io *process = (struct fake_io *)io;
    fake_io_child_die(io);
    if (!process->child_told)
        return;
    process->child_told = false;
    unsigned n = process->ready_taken;
    while (process->ready[n].token != process->child_token)
        n++;
    memmove(process->ready + n, process->ready + n + 1, (--process->ready_count - n) * sizeof *process->ready);
}

void child_give_up(struct io *io)
{
    fake_io_child_die(io);
}

bool fake_io_child_die(struct io *io)
{
    struct fake_io *process = (struct fake_io *)io;
    struct fake_child *child = process->child;
    if (!child)
        return false;
    tell(process, child, -ECHILD);
    make_ghost(child);
    child_land(process->machine, child, process->machine->config.crash);
    return true;
}

bool fake_io_child_runs(const struct io *io)
{
    return ((const struct fake_io *)io)->child != NULL;
}

bool fake_io_child_calls(const struct io *io)
{
    return ((const struct fake_io *)io)->machine->child_calls;
}
