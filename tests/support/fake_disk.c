/* SPDX-License-Identifier: Apache-2.0 */
/* The medium under the simulated io: files as sectors with a durable and a current content, directories with a list of
 * changes not yet synced, and what a power cut makes of both. Knows nothing of processes and their operations. */
#include "tests/support/fake_disk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void fake_misuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("fake io: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

void *fake_allocate(size_t size)
{
    void *memory = calloc(1, size > 0 ? size : 1);
    if (!memory)
        fake_misuse("no memory");
    return memory;
}

/* An array that may move: its new part is zero. */
static void *grow(void *memory, size_t old_size, size_t new_size)
{
    uint8_t *grown = realloc(memory, new_size > 0 ? new_size : 1);
    if (!grown)
        fake_misuse("no memory");
    if (new_size > old_size)
        memset(grown + old_size, 0, new_size - old_size);
    return grown;
}

/* splitmix64 */
static uint64_t next_random(struct fake_machine *machine)
{
    uint64_t z = machine->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t fake_machine_random(struct fake_machine *machine, uint64_t limit)
{
    return limit > 1 ? next_random(machine) % limit : 0;
}

/* True `eighths` times of eight. */
static bool chance(struct fake_machine *machine, uint64_t eighths)
{
    return fake_machine_random(machine, 8) < eighths;
}

/* A probability in eighths that prefers the extremes: all and nothing are outcomes too. */
static uint64_t pick_chance(struct fake_machine *machine)
{
    static const uint8_t choices[] = {0, 0, 1, 4, 4, 7, 8, 8};
    return choices[fake_machine_random(machine, sizeof choices)];
}

/* ---- directories ---- */

struct directory *disk_directory(const struct fake_machine *machine, const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    for (struct directory *directory = machine->directories; directory; directory = directory->next)
        if (strlen(directory->path) == length && memcmp(directory->path, path, length) == 0)
            return directory;
    return NULL;
}

static unsigned entry_position(const struct entries *entries, const char *name)
{
    unsigned n = 0;
    while (n < entries->count && strcmp(entries->list[n].name, name) != 0)
        n++;
    return n;
}

struct inode *disk_find(const struct entries *entries, const char *name)
{
    unsigned n = entry_position(entries, name);
    return n < entries->count ? entries->list[n].inode : NULL;
}

static void apply_change(struct entries *entries, const struct change *change)
{
    unsigned n = entry_position(entries, change->removed);
    if (n < entries->count)
        entries->list[n] = entries->list[--entries->count];
    if (change->added[0] == '\0')
        return;
    n = entry_position(entries, change->added);
    if (n == entries->count) {
        size_t size = sizeof *entries->list;
        entries->list = grow(entries->list, entries->count * size, (entries->count + 1) * size);
        strcpy(entries->list[n].name, change->added);
        entries->count++;
    }
    entries->list[n].inode = change->inode;
}

void disk_change(struct directory *directory, const char *removed, const char *added, struct inode *inode)
{
    size_t size = sizeof *directory->changes;
    directory->changes = grow(directory->changes, directory->change_count * size, (directory->change_count + 1) * size);
    struct change *change = &directory->changes[directory->change_count++];
    strcpy(change->removed, removed);
    strcpy(change->added, added);
    change->inode = inode;
    apply_change(&directory->current, change);
}

void disk_sync_directory(struct directory *directory)
{
    for (unsigned n = 0; n < directory->change_count; n++)
        apply_change(&directory->durable, &directory->changes[n]);
    directory->change_count = 0;
}

static void cut_directory(struct fake_machine *machine, struct directory *directory)
{
    enum fake_fate fate = machine->config.power_cut;
    /* A journal keeps a beginning of what was done; a simpler file system keeps anything. */
    unsigned limit = directory->change_count;
    uint64_t eighths = fate == FAKE_LOSE ? 0 : 8;
    if (fate == FAKE_RANDOM && chance(machine, 4))
        limit = (unsigned)fake_machine_random(machine, limit + 1);
    else if (fate == FAKE_RANDOM)
        eighths = pick_chance(machine);
    for (unsigned n = 0; n < limit; n++)
        if (chance(machine, eighths))
            apply_change(&directory->durable, &directory->changes[n]);
    directory->change_count = 0;
    free(directory->current.list);
    size_t size = directory->durable.count * sizeof *directory->durable.list;
    directory->current.list = fake_allocate(size);
    if (size > 0)
        memcpy(directory->current.list, directory->durable.list, size);
    directory->current.count = directory->durable.count;
}

/* ---- files ---- */

struct inode *disk_new_inode(struct fake_machine *machine)
{
    struct inode *inode = fake_allocate(sizeof *inode);
    inode->next = machine->inodes;
    machine->inodes = inode;
    return inode;
}

/* Content of its own for one whose content is another machine's. */
static void stop_borrowing(struct inode *inode)
{
    uint8_t *content = fake_allocate(inode->capacity);
    if (inode->capacity > 0)
        memcpy(content, inode->current, inode->capacity);
    inode->current = content;
    inode->durable = fake_allocate(inode->capacity);
    inode->dirty = fake_allocate(inode->capacity / SECTOR * 8);
    inode->taken = fake_allocate(inode->capacity / BLOCK);
    inode->borrowed = false;
}

static void ensure_capacity(struct inode *inode, uint64_t size)
{
    if (inode->borrowed)
        stop_borrowing(inode);
    if (size <= inode->capacity)
        return;
    uint64_t capacity = inode->capacity > 0 ? inode->capacity : UINT64_C(16) * BLOCK;
    while (capacity < size)
        capacity *= 2;
    inode->current = grow(inode->current, inode->capacity, capacity);
    inode->durable = grow(inode->durable, inode->capacity, capacity);
    inode->dirty = grow(inode->dirty, inode->capacity / SECTOR * 8, capacity / SECTOR * 8);
    inode->taken = grow(inode->taken, inode->capacity / BLOCK, capacity / BLOCK);
    inode->capacity = capacity;
}

static void mark(struct inode *inode)
{
    if (inode)
        inode->reachable = true;
}

static void mark_entries(const struct entries *entries)
{
    for (unsigned n = 0; n < entries->count; n++)
        mark(entries->list[n].inode);
}

/* Marks files that have a name or are open; with `history` also those that a power cut could bring back. */
static void mark_all(const struct fake_machine *machine, bool history)
{
    for (struct inode *inode = machine->inodes; inode; inode = inode->next)
        inode->reachable = false;
    for (struct directory *directory = machine->directories; directory; directory = directory->next) {
        mark_entries(&directory->current);
        if (history)
            mark_entries(&directory->durable);
        for (unsigned n = 0; history && n < directory->change_count; n++)
            mark(directory->changes[n].inode);
    }
    for (struct description *file = machine->descriptions; file; file = file->next)
        mark(file->inode);
}

static uint64_t space_left(const struct fake_machine *machine)
{
    if (machine->config.space == UINT64_MAX)
        return UINT64_MAX;
    mark_all(machine, false);
    uint64_t used = 0;
    for (struct inode *inode = machine->inodes; inode; inode = inode->next)
        for (uint64_t block = 0; inode->reachable && block < inode->capacity / BLOCK; block++)
            used += inode->taken[block] ? BLOCK : 0;
    return used < machine->config.space ? machine->config.space - used : 0;
}

/* Takes blocks for a range, from its beginning; the number of its bytes that now have space. */
static uint64_t take_space(struct fake_machine *machine, struct inode *inode, uint64_t offset, uint64_t size)
{
    if (size == 0)
        return 0;
    ensure_capacity(inode, offset + size);
    uint64_t left = UINT64_MAX;
    bool known = false;
    for (uint64_t block = offset / BLOCK; block <= (offset + size - 1) / BLOCK; block++) {
        if (inode->taken[block])
            continue;
        if (!known)
            left = space_left(machine);
        known = true;
        if (left < BLOCK)
            return block * BLOCK > offset ? block * BLOCK - offset : 0;
        left -= left == UINT64_MAX ? 0 : BLOCK;
        inode->taken[block] = 1;
    }
    return size;
}

bool disk_reserve(struct fake_machine *machine, struct inode *inode, uint64_t size)
{
    if (take_space(machine, inode, 0, size) < size)
        return false;
    if (size > inode->size)
        inode->size = size;
    return true;
}

/* What a sector holds becomes durable. */
static void flush_sector(struct inode *inode, uint64_t sector)
{
    memcpy(inode->durable + sector * SECTOR, inode->current + sector * SECTOR, SECTOR);
    inode->dirty[sector] = 0;
}

/* Writes bytes that lie in one sector. */
static void write_sector(struct fake_machine *machine, struct inode *inode, const uint8_t *data, uint64_t size,
                         uint64_t offset, bool durable)
{
    uint64_t sector = offset / SECTOR;
    /* The version before this one may have reached the medium by itself; it has to if a sync that covers it is on. */
    if (inode->dirty[sector] != 0 &&
        (inode->syncs > 0 || (machine->config.power_cut == FAKE_RANDOM && chance(machine, 4))))
        flush_sector(inode, sector);
    memcpy(inode->current + offset, data, size);
    inode->dirty[sector] = machine->writes;
    if (durable)
        flush_sector(inode, sector);
    if (offset + size > inode->size)
        inode->size = offset + size;
    if (durable && offset + size > inode->durable_size)
        inode->durable_size = offset + size;
}

static uint64_t to_sector_end(uint64_t offset, uint64_t end)
{
    uint64_t sector_end = (offset / SECTOR + 1) * SECTOR;
    return (sector_end < end ? sector_end : end) - offset;
}

uint64_t disk_write(struct fake_machine *machine, struct inode *inode, const uint8_t *data, uint64_t size,
                    uint64_t offset, bool durable)
{
    uint64_t fits = take_space(machine, inode, offset, size);
    machine->writes++;
    for (uint64_t done = 0, part; done < fits; done += part) {
        part = to_sector_end(offset + done, offset + fits);
        write_sector(machine, inode, data + done, part, offset + done, durable);
    }
    return fits;
}

void disk_write_torn(struct fake_machine *machine, struct inode *inode, const uint8_t *data, uint64_t size,
                     uint64_t offset, bool durable)
{
    uint64_t end = take_space(machine, inode, offset, size);
    uint64_t eighths = 8;
    machine->writes++;
    if (chance(machine, 3))
        end = fake_machine_random(machine, end / SECTOR + 1) * SECTOR;
    else
        eighths = pick_chance(machine);
    for (uint64_t done = 0, part; done < end; done += part) {
        part = to_sector_end(offset + done, offset + end);
        if (chance(machine, eighths))
            write_sector(machine, inode, data + done, part, offset + done, durable);
    }
}

void disk_flush(struct inode *inode, uint64_t sequence)
{
    if (inode->borrowed)
        return;
    for (uint64_t sector = 0; sector < inode->capacity / SECTOR; sector++)
        if (inode->dirty[sector] != 0 && inode->dirty[sector] <= sequence)
            flush_sector(inode, sector);
    inode->durable_size = inode->size;
}

void disk_flush_failed(struct fake_machine *machine, struct inode *inode)
{
    uint64_t eighths = pick_chance(machine);
    for (uint64_t sector = 0; sector < inode->capacity / SECTOR; sector++)
        if (inode->dirty[sector] != 0 && chance(machine, eighths))
            inode->dirty[sector] = 0;
}

static void cut_file(struct fake_machine *machine, struct inode *inode)
{
    enum fake_fate fate = machine->config.power_cut;
    uint64_t eighths = fate == FAKE_KEEP ? 8 : fate == FAKE_LOSE ? 0 : pick_chance(machine);
    for (uint64_t sector = 0; sector < inode->capacity / SECTOR; sector++)
        if (inode->dirty[sector] != 0 && chance(machine, eighths))
            flush_sector(inode, sector);
    if (inode->size != inode->durable_size && (fate == FAKE_KEEP || (fate == FAKE_RANDOM && chance(machine, 4))))
        inode->durable_size = inode->size;
    if (inode->capacity > 0) {
        memset(inode->durable + inode->durable_size, 0, inode->capacity - inode->durable_size);
        memcpy(inode->current, inode->durable, inode->capacity);
        memset(inode->dirty, 0, inode->capacity / SECTOR * 8);
        uint64_t blocks = (inode->durable_size + BLOCK - 1) / BLOCK;
        memset(inode->taken + blocks, 0, inode->capacity / BLOCK - blocks);
    }
    inode->size = inode->durable_size;
    inode->syncs = 0;
}

void disk_power_cut(struct fake_machine *machine)
{
    for (struct directory *directory = machine->directories; directory; directory = directory->next)
        cut_directory(machine, directory);
    for (struct inode *inode = machine->inodes; inode; inode = inode->next)
        cut_file(machine, inode);
    disk_collect(machine);
}

void disk_collect(struct fake_machine *machine)
{
    mark_all(machine, true);
    for (struct inode **link = &machine->inodes; *link;) {
        struct inode *inode = *link;
        if (inode->reachable) {
            link = &inode->next;
            continue;
        }
        *link = inode->next;
        if (!inode->borrowed)
            free(inode->current);
        free(inode->durable);
        free(inode->dirty);
        free(inode->taken);
        free(inode);
    }
}

/* ---- open files ---- */

struct description *disk_describe(struct fake_machine *machine, struct inode *inode, struct directory *directory,
                                  const char *name)
{
    struct description *file = fake_allocate(sizeof *file);
    file->inode = inode;
    file->directory = directory;
    snprintf(file->name, sizeof file->name, "%s", name);
    file->references = 1;
    file->open = 1;
    file->next = machine->descriptions;
    machine->descriptions = file;
    return file;
}

void disk_release(struct fake_machine *machine, struct description *description)
{
    if (--description->references > 0)
        return;
    if (description->inode && description->inode->owner == description)
        description->inode->owner = NULL;
    struct description **link = &machine->descriptions;
    while (*link != description)
        link = &(*link)->next;
    *link = description->next;
    free(description);
}
