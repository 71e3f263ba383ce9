/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated machine as tests hold it: its making and copying, clock, faults, and its files behind everybody's back.
 * What happens on it by itself stands in fake_io.c and fake_disk.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fake_disk.h"

/* ---- making and copying ---- */

struct fake_machine *fake_machine_create(uint64_t seed)
{
    struct fake_machine *machine = fake_allocate(sizeof *machine);
    machine->random = seed;
    machine->config.alignment = BLOCK;
    machine->config.space = UINT64_MAX;
    machine->monotonic = UINT64_C(1000000000);
    machine->wall_offset = UINT64_C(1700000000) * UINT64_C(1000000000);
    return machine;
}

void fake_machine_destroy(struct fake_machine *machine)
{
    machine->config.crash = FAKE_LOSE;
    while (machine->processes)
        fake_io_destroy((struct io *)machine->processes);
    fake_machine_land(machine, UINT32_MAX);
    for (struct directory *directory; (directory = machine->directories);) {
        machine->directories = directory->next;
        free(directory->current.list);
        free(directory->durable.list);
        free(directory->changes);
        free(directory);
    }
    disk_collect(machine);
    free(machine);
}

static void *copy_of(const void *memory, size_t size)
{
    if (!memory)
        return NULL;
    void *copy = fake_allocate(size);
    memcpy(copy, memory, size);
    return copy;
}

/* The copy of an inode: both lists have the same order. */
struct inode *machine_counterpart(const struct fake_machine *from, const struct fake_machine *to,
                                  const struct inode *inode)
{
    struct inode *copy = to->inodes;
    for (const struct inode *original = from->inodes; original; original = original->next, copy = copy->next)
        if (original == inode)
            return copy;
    return NULL;
}

static struct entries copy_entries(const struct fake_machine *from, const struct fake_machine *to,
                                   const struct entries *entries)
{
    struct entries copy = {.list = copy_of(entries->list, entries->count * sizeof *entries->list),
                           .count = entries->count};
    for (unsigned n = 0; n < copy.count; n++)
        copy.list[n].inode = machine_counterpart(from, to, entries->list[n].inode);
    return copy;
}

static struct inode *copy_inode(const struct inode *inode, bool borrow)
{
    struct inode *copy = copy_of(inode, sizeof *inode);
    copy->borrowed = borrow;
    if (borrow) {
        copy->durable = NULL;
        copy->dirty = NULL;
        copy->taken = NULL;
    } else {
        copy->current = copy_of(inode->current, inode->capacity);
        copy->durable = copy_of(inode->durable, inode->capacity);
        copy->dirty = copy_of(inode->dirty, inode->capacity / SECTOR * 8);
        copy->taken = copy_of(inode->taken, inode->capacity / BLOCK);
    }
    copy->syncs = 0;
    copy->owner = NULL;
    copy->next = NULL;
    return copy;
}

static struct fake_machine *copy_machine(const struct fake_machine *machine, bool borrow)
{
    struct fake_machine *clone = fake_allocate(sizeof *clone);
    clone->config = machine->config;
    clone->config.on_call = NULL;
    clone->config.on_wake = NULL;
    clone->config.wake_takes = NULL;
    clone->config.context = NULL;
    clone->random = machine->random;
    clone->monotonic = machine->monotonic;
    clone->wall_offset = machine->wall_offset;
    clone->writes = machine->writes;
    struct inode **inode_link = &clone->inodes;
    for (const struct inode *inode = machine->inodes; inode; inode = inode->next) {
        *inode_link = copy_inode(inode, borrow);
        inode_link = &(*inode_link)->next;
    }
    struct directory **link = &clone->directories;
    for (const struct directory *directory = machine->directories; directory; directory = directory->next) {
        struct directory *copy = copy_of(directory, sizeof *directory);
        copy->current = copy_entries(machine, clone, &directory->current);
        copy->durable = copy_entries(machine, clone, &directory->durable);
        copy->changes = copy_of(directory->changes, directory->change_count * sizeof *directory->changes);
        for (unsigned n = 0; n < copy->change_count; n++)
            copy->changes[n].inode = machine_counterpart(machine, clone, directory->changes[n].inode);
        copy->next = NULL;
        *link = copy;
        link = &copy->next;
    }
    return clone;
}

struct fake_machine *fake_machine_clone(const struct fake_machine *machine)
{
    return copy_machine(machine, false);
}

struct fake_machine *machine_view(const struct fake_machine *machine)
{
    struct fake_machine *view = copy_machine(machine, true);
    memset(view->config.fail_ppm, 0, sizeof view->config.fail_ppm);
    view->config.space = UINT64_MAX;
    return view;
}

struct fake_config *fake_machine_config(struct fake_machine *machine)
{
    return &machine->config;
}

struct fake_counts *fake_machine_counts(struct fake_machine *machine)
{
    return &machine->counts;
}

/* ---- clock ---- */

void fake_machine_advance(struct fake_machine *machine, uint64_t nanoseconds)
{
    machine->monotonic += nanoseconds;
}

void fake_machine_step_wall(struct fake_machine *machine, int64_t nanoseconds)
{
    machine->wall_offset += (uint64_t)nanoseconds;
}

/* ---- faults ---- */

void fake_machine_fail(struct fake_machine *machine, enum fake_call call, const char *name, uint64_t nth,
                       uint64_t count, int error)
{
    if (machine->fault_count == MAX_FAULTS || nth == 0)
        fake_misuse("over %d faults, or the 0th call", MAX_FAULTS);
    struct fault *fault = &machine->faults[machine->fault_count++];
    *fault = (struct fault){.call = call, .skip = nth - 1, .count = count, .error = error};
    if (name)
        snprintf(fault->name, sizeof fault->name, "%s", name);
}

void fake_machine_heal(struct fake_machine *machine)
{
    machine->fault_count = 0;
    memset(machine->config.fail_ppm, 0, sizeof machine->config.fail_ppm);
}

int fake_fault(struct fake_machine *machine, enum fake_call call, const char *name)
{
    int error = 0;
    machine->counts.calls[call]++;
    for (unsigned n = 0; n < machine->fault_count; n++) {
        struct fault *fault = &machine->faults[n];
        if (fault->call != call || fault->count == 0 || (fault->name[0] && (!name || strcmp(fault->name, name) != 0)))
            continue;
        if (fault->skip > 0) {
            fault->skip--;
        } else {
            fault->count -= fault->count != UINT64_MAX;
            error = fault->error;
        }
    }
    if (error == 0 && machine->config.fail_ppm[call] > 0 &&
        fake_machine_random(machine, 1000000) < machine->config.fail_ppm[call])
        error = EIO;
    machine->counts.faults += error != 0;
    return error;
}

/* ---- files behind everybody's back ---- */

void fake_make_directory(struct fake_machine *machine, const char *path)
{
    struct directory *directory = fake_allocate(sizeof *directory);
    if (strlen(path) >= sizeof directory->path)
        fake_misuse("path too long: %s", path);
    strcpy(directory->path, path);
    directory->next = machine->directories;
    machine->directories = directory;
}

static struct inode *find(const struct fake_machine *machine, const char *path, const char *name)
{
    const struct directory *directory = disk_directory(machine, path);
    return directory ? disk_find(&directory->current, name) : NULL;
}

static struct inode *find_or_make(struct fake_machine *machine, const char *path, const char *name)
{
    struct inode *inode = find(machine, path, name);
    if (inode)
        return inode;
    struct directory *directory = disk_directory(machine, path);
    if (!directory || strlen(name) >= NAME_SIZE)
        fake_misuse("no directory %s, or name too long: %s", path, name);
    inode = disk_new_inode(machine);
    disk_change(directory, "", name, inode);
    disk_sync_directory(directory);
    return inode;
}

int64_t fake_file_size(const struct fake_machine *machine, const char *directory, const char *name)
{
    const struct inode *inode = find(machine, directory, name);
    return inode ? (int64_t)inode->size : -1;
}

int64_t fake_file_read(const struct fake_machine *machine, const char *directory, const char *name, void *buffer,
                       size_t size, uint64_t offset)
{
    const struct inode *inode = find(machine, directory, name);
    if (!inode)
        return -1;
    uint64_t there = offset < inode->size ? inode->size - offset : 0;
    size_t count = size < there ? size : (size_t)there;
    if (count > 0)
        memcpy(buffer, inode->current + offset, count);
    return (int64_t)count;
}

void fake_file_write(struct fake_machine *machine, const char *directory, const char *name, const void *buffer,
                     size_t size, uint64_t offset)
{
    struct inode *inode = find_or_make(machine, directory, name);
    if (disk_write(machine, inode, buffer, size, offset, true) < size)
        fake_misuse("%s: no space", name);
}

void fake_file_flip(struct fake_machine *machine, const char *directory, const char *name, uint64_t offset,
                    unsigned bit)
{
    struct inode *inode = find(machine, directory, name);
    if (!inode || offset >= inode->size || bit > 7)
        fake_misuse("%s has no bit %u at %llu", name, bit, (unsigned long long)offset);
    inode->current[offset] ^= (uint8_t)(1U << bit);
    inode->durable[offset] ^= (uint8_t)(1U << bit);
}

void fake_file_truncate(struct fake_machine *machine, const char *directory, const char *name, uint64_t size)
{
    struct inode *inode = find_or_make(machine, directory, name);
    if (size > inode->size && !disk_reserve(machine, inode, size))
        fake_misuse("%s: no space", name);
    inode->size = inode->durable_size = size;
    if (size < inode->capacity) {
        memset(inode->current + size, 0, inode->capacity - size);
        memset(inode->durable + size, 0, inode->capacity - size);
        uint64_t sectors = (size + SECTOR - 1) / SECTOR;
        memset(inode->dirty + sectors, 0, (inode->capacity / SECTOR - sectors) * 8);
        uint64_t blocks = (size + BLOCK - 1) / BLOCK;
        memset(inode->taken + blocks, 0, inode->capacity / BLOCK - blocks);
    }
}

void fake_file_remove(struct fake_machine *machine, const char *path, const char *name)
{
    struct directory *directory = disk_directory(machine, path);
    if (!directory)
        fake_misuse("no directory %s", path);
    disk_change(directory, name, "", NULL);
    disk_sync_directory(directory);
}

const char *fake_file_name(const struct fake_machine *machine, const char *path, unsigned n)
{
    const struct directory *directory = disk_directory(machine, path);
    return directory && n < directory->current.count ? directory->current.list[n].name : NULL;
}
