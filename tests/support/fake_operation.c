/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an asynchronous operation of the simulated io. It is a copy of what was asked, in its process's list
 * in order of beginning; operation_perform() is the moment at which it takes effect, chosen by the configured order.
 * When its process dies it becomes an orphan of the machine, which happens later, in part or never:
 * operation_land(). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fake_disk.h"

void operation_post(struct fake_io *process, uint64_t token, int32_t result)
{
    if (process->ready_count == process->ready_capacity) {
        process->ready_capacity = process->ready_capacity > 0 ? process->ready_capacity * 2 : 64;
        process->ready = realloc(process->ready, process->ready_capacity * sizeof *process->ready);
        if (!process->ready)
            fake_misuse("no memory");
    }
    process->ready[process->ready_count++] = (struct io_completion){.token = token, .result = result};
}

uint64_t operation_due(struct fake_machine *machine)
{
    const struct fake_config *config = &machine->config;
    uint64_t spread = config->delay_max > config->delay_min ? config->delay_max - config->delay_min + 1 : 1;
    return machine->monotonic + config->delay_min + fake_machine_random(machine, spread);
}

struct operation *operation_begin(struct fake_io *process, enum fake_call call, struct description *file,
                                  uint64_t token)
{
    struct fake_machine *machine = process->machine;
    struct operation *operation = fake_allocate(sizeof *operation);
    operation->call = call;
    operation->file = file;
    operation->token = token;
    operation->sequence = machine->writes;
    operation->due = operation_due(machine);
    if (machine->config.order == FAKE_IN_ORDER && operation->due < process->last_due)
        operation->due = process->last_due;
    process->last_due = operation->due;
    if (file)
        file->references++;
    struct operation **link = &process->operations;
    while (*link)
        link = &(*link)->next;
    *link = operation;
    return operation;
}

struct operation *operation_unlink(struct operation **list, uint64_t n)
{
    while (*list && n-- > 0)
        list = &(*list)->next;
    struct operation *operation = *list;
    if (operation)
        *list = operation->next;
    return operation;
}

unsigned operation_count(const struct operation *list)
{
    unsigned count = 0;
    for (; list; list = list->next)
        count++;
    return count;
}

void operation_free(struct fake_machine *machine, struct operation *operation)
{
    if (operation->call == FAKE_SYNC)
        operation->file->inode->syncs -= operation->file->inode->syncs > 0;
    if (operation->file)
        disk_release(machine, operation->file);
    if (operation->child)
        child_free(operation->child);
    free(operation->data);
    free(operation);
}

static void count_wake(struct fake_io *process, int event)
{
    unsigned n = 0;
    while (n < process->event_count && process->events[n].event != event)
        n++;
    if (n == process->event_count) {
        process->events = realloc(process->events, (n + 1) * sizeof *process->events);
        if (!process->events)
            fake_misuse("no memory");
        process->events[process->event_count++] = (struct event_count){.event = event};
    }
    process->events[n].wakes++;
}

static int32_t perform_write(struct fake_machine *machine, const struct operation *write)
{
    struct inode *inode = write->file->inode;
    if (write->fault != 0) {
        disk_write_torn(machine, inode, write->data, write->size, write->offset, write->durable);
        return -write->fault;
    }
    uint64_t done = disk_write(machine, inode, write->data, write->size, write->offset, write->durable);
    machine->counts.bytes_written += done;
    return done < write->size ? -ENOSPC : (int32_t)write->size;
}

static int32_t perform_sync(struct fake_machine *machine, const struct operation *sync)
{
    struct inode *inode = sync->file->inode;
    if (sync->fault != 0) {
        disk_flush_failed(machine, inode);
        return -sync->fault;
    }
    disk_flush(inode, sync->sequence);
    return 0;
}

/* The operation, already out of its list, takes effect. */
void operation_perform(struct fake_io *process, struct operation *operation)
{
    struct fake_machine *machine = process->machine;
    int32_t result = -operation->fault;
    if (operation->call == FAKE_WRITE) {
        if (operation->size > 0 && memcmp(operation->buffer, operation->data, operation->size) != 0)
            fake_misuse("%s: the buffer of the write of %llu bytes at %llu changed while it was in flight",
                        operation->file->name, (unsigned long long)operation->size,
                        (unsigned long long)operation->offset);
        result = perform_write(machine, operation);
    } else if (operation->call == FAKE_SYNC) {
        result = perform_sync(machine, operation);
    } else if (operation->call == FAKE_WAKE && operation->fault == 0) {
        result = 8;
        count_wake(process, operation->event);
        if (machine->config.on_wake)
            machine->config.on_wake(machine->config.context, &process->io, operation->event);
    }
    operation_post(process, operation->token, result);
    operation_free(machine, operation);
}

uint64_t operation_hand_over(struct fake_io *process)
{
    struct fake_machine *machine = process->machine;
    uint64_t took = 0;
    for (struct operation *operation = process->operations; operation; operation = operation->next) {
        if (operation->call == FAKE_WAKE && !operation->handed_over && machine->config.wake_takes) {
            uint64_t waited = 0;
            uint64_t processor = machine->config.wake_takes(machine->config.context, operation->event, &waited);
            machine->monotonic += processor + waited;
            took += processor;
        }
        operation->handed_over = true;
    }
    return took;
}

/* Performs what the order lets happen now. */
void operation_run_due(struct fake_io *process)
{
    struct fake_machine *machine = process->machine;
    enum fake_order order = machine->config.order;
    if (order == FAKE_MANUAL)
        return;
    if (order != FAKE_ANY_ORDER) {
        while (process->operations && (order == FAKE_AT_ONCE || process->operations->due <= machine->monotonic))
            operation_perform(process, operation_unlink(&process->operations, 0));
        return;
    }
    for (;;) {
        uint64_t due = 0;
        for (struct operation *operation = process->operations; operation; operation = operation->next)
            due += operation->due <= machine->monotonic;
        /* Some wait for the next call, though never the last one: who looks again and again comes to an end. */
        if (due == 0 || (due > 1 && fake_machine_random(machine, 4) == 0))
            return;
        uint64_t chosen = fake_machine_random(machine, due);
        uint64_t n = 0;
        for (struct operation *operation = process->operations;; operation = operation->next, n++)
            if (operation->due <= machine->monotonic && chosen-- == 0)
                break;
        operation_perform(process, operation_unlink(&process->operations, n));
    }
}

/* An operation whose process is gone happens, or not. */
void operation_land(struct fake_machine *machine, struct operation *operation, enum fake_fate fate)
{
    if (operation->child) {
        child_land(machine, operation->child, fate);
        free(operation);
        return;
    }
    bool torn = fate == FAKE_RANDOM && fake_machine_random(machine, 2) == 0;
    bool never = fate == FAKE_LOSE || (fate == FAKE_RANDOM && fake_machine_random(machine, 4) == 0);
    if (never)
        ;
    else if (operation->call == FAKE_SYNC)
        perform_sync(machine, operation);
    else if (torn)
        disk_write_torn(machine, operation->file->inode, operation->data, operation->size, operation->offset,
                        operation->durable);
    else
        perform_write(machine, operation);
    operation_free(machine, operation);
}

unsigned fake_machine_land(struct fake_machine *machine, unsigned count)
{
    unsigned landed = 0;
    for (; landed < count && machine->orphans; landed++) {
        uint64_t chosen = fake_machine_random(machine, operation_count(machine->orphans));
        operation_land(machine, operation_unlink(&machine->orphans, chosen), machine->config.crash);
    }
    return landed;
}
