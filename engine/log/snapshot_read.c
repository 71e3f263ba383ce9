/* SPDX-License-Identifier: Apache-2.0 */
/* Finding snapshots, as snapshot.h lays them down, and reading one chunk of them; snapshot_load.c reads them whole. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "engine/log/snapshot_inside.h"
#include "ipc/sys.h"
#include "millrace/limits.h"

static const char prefix[] = "snapshot-", new_prefix[] = "snapshot-new-";

/* ---- what the writer shares ---- */

uint64_t snapshot_sum(uint8_t *bytes, uint64_t size, uint64_t secret)
{
    uint8_t *field = bytes + offsetof(struct snapshot_head, checksum);
    uint64_t kept, zero = 0;
    memcpy(&kept, field, sizeof kept);
    memcpy(field, &zero, sizeof zero);
    uint64_t sum = XXH3_64bits_withSeed(bytes, size, secret);
    memcpy(field, &kept, sizeof kept);
    return sum;
}

void snapshot_name(char name[SNAPSHOT_NAME_SIZE], uint64_t index)
{
    snprintf(name, SNAPSHOT_NAME_SIZE, "%s%020" PRIu64, prefix, index);
}

void snapshot_new_name(char name[SNAPSHOT_NAME_SIZE], uint64_t epoch)
{
    snprintf(name, SNAPSHOT_NAME_SIZE, "%s%" PRIu64, new_prefix, epoch);
}

/* A name counts only if it is the one that its number makes. */
static bool parse(const char *name, size_t skip, void (*make)(char *name, uint64_t number), uint64_t *number)
{
    char back[SNAPSHOT_NAME_SIZE];
    if (strlen(name) <= skip || name[skip] < '0' || name[skip] > '9')
        return false;
    errno = 0;
    *number = strtoull(name + skip, NULL, 10);
    make(back, *number);
    return errno == 0 && strcmp(name, back) == 0;
}

bool snapshot_parse_name(const char *name, uint64_t *index)
{
    return strncmp(name, prefix, sizeof prefix - 1) == 0 && parse(name, sizeof prefix - 1, snapshot_name, index);
}

bool snapshot_parse_new_name(const char *name, uint64_t *epoch)
{
    return strncmp(name, new_prefix, sizeof new_prefix - 1) == 0 &&
           parse(name, sizeof new_prefix - 1, snapshot_new_name, epoch);
}

int snapshot_open(const struct snapshot_place *place, int directory, const char *name, unsigned flags)
{
    struct io *io = place->io;
    int file = io->ops->open(io, directory, name, flags);
    if (file < 0 || !(flags & IO_DIRECT) || io->ops->alignment(io, file) <= SNAPSHOT_UNIT)
        return file;
    io->ops->close(io, file);
    return io->ops->open(io, directory, name, flags & ~(unsigned)(IO_DIRECT | IO_CREATE));
}

/* ---- one chunk ---- */

int snapshot_damaged(const struct snapshot_source *source, uint64_t offset, const char *what, struct mr_error *error)
{
    return error_set(error, "%s/%s is damaged at offset %" PRIu64 ": %s", source->place->path, source->name, offset,
                     what);
}

int snapshot_check_chunk(const struct snapshot_source *source, uint8_t *bytes, uint64_t there, uint64_t number,
                         struct snapshot_head *head, struct mr_error *error)
{
    uint64_t offset = number * SNAPSHOT_CHUNK;
    memcpy(head, bytes, sizeof *head);
    if (head->magic != SNAPSHOT_MAGIC)
        return snapshot_damaged(source, offset, "no chunk of a snapshot begins there", error);
    if (head->version != SNAPSHOT_VERSION)
        return error_set(error,
                         "%s/%s has at offset %" PRIu64 " format version %" PRIu32
                         ", and this program reads version %d only: use the program that wrote it, unless the file is "
                         "damaged",
                         source->place->path, source->name, offset, head->version, SNAPSHOT_VERSION);
    uint64_t size = SNAPSHOT_HEAD_BYTES + (uint64_t)head->sizes[0] + head->sizes[1];
    if (size > there)
        return snapshot_damaged(source, offset, "the chunk is longer than what is there", error);
    if (snapshot_sum(bytes, size, source->place->secret) != head->checksum)
        return snapshot_damaged(source, offset, "the chunk's checksum is wrong", error);
    if (head->partition != source->place->partition)
        return error_set(error, "%s/%s belongs to partition %" PRIu32 ", not to partition %" PRIu32,
                         source->place->path, source->name, head->partition, source->place->partition);
    if (head->chunk != number)
        return snapshot_damaged(source, offset, "another chunk stands in this one's place", error);
    bool last = offset + there == source->size && there <= SNAPSHOT_CHUNK;
    if (head->last > 1 || (head->last == 1) != last)
        return snapshot_damaged(source, offset,
                                last ? "the snapshot's end is missing" : "the snapshot ends before the file", error);
    if (last ? there - size >= SNAPSHOT_UNIT : size != SNAPSHOT_CHUNK)
        return snapshot_damaged(source, offset, "the chunk is shorter than what is there", error);
    for (uint64_t n = size; n < there; n++)
        if (bytes[n] != 0)
            return snapshot_damaged(source, offset + n, "there are not only zeros behind the end", error);
    return 0;
}

static int64_t read_at(const struct snapshot_source *source, uint8_t *to, uint64_t size, uint64_t offset)
{
    struct io *io = source->place->io;
    if (!source->place->memory)
        return io->ops->read(io, source->file, to, size, offset);
    uint64_t done = 0;
    while (done < size) {
        ssize_t got = sys_pread(source->file, to + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (uint64_t)got;
    }
    return (int64_t)done;
}

int snapshot_read_all(const struct snapshot_source *source, uint8_t *to, uint64_t size, uint64_t offset,
                      struct mr_error *error)
{
    int64_t got = read_at(source, to, size, offset);
    if (got < 0)
        return error_system(error, (int)-got, "cannot read %s/%s at offset %" PRIu64, source->place->path, source->name,
                            offset);
    return (uint64_t)got == size ? 0 : snapshot_damaged(source, offset + (uint64_t)got, "the file ends there", error);
}

int snapshot_memory_size(const struct snapshot_place *place, unsigned slot, uint64_t *size, struct mr_error *error)
{
    struct stat found;
    if (sys_fstat(place->memory[slot], &found) != 0)
        return error_system(error, errno, "cannot get the size of the snapshot in memory, slot %u", slot);
    *size = (uint64_t)found.st_size;
    return 0;
}

int snapshot_look(const struct snapshot_place *place, unsigned slot, struct snapshot *snapshot, struct mr_error *error)
{
    *snapshot = (struct snapshot){.slot = slot};
    snprintf(snapshot->name, sizeof snapshot->name, "in memory, slot %u", slot);
    struct snapshot_source source = {.place = place, .name = snapshot->name, .file = place->memory[slot]};
    if (snapshot_memory_size(place, slot, &source.size, error) != 0)
        return -1;
    uint64_t there = source.size < SNAPSHOT_CHUNK ? source.size : SNAPSHOT_CHUNK;
    if (there < SNAPSHOT_UNIT)
        return 0;
    uint8_t *bytes = malloc(there);
    if (!bytes)
        return error_system(error, ENOMEM, "no memory for a look at a snapshot");
    struct snapshot_head head;
    struct mr_error unsound;
    int result = snapshot_read_all(&source, bytes, there, 0, error);
    if (result == 0 && snapshot_check_chunk(&source, bytes, there, 0, &head, &unsound) == 0) {
        snapshot->point = (struct snapshot_point){head.index, head.time, head.segment};
        snapshot->bytes = source.size;
        result = 1;
    }
    free(bytes);
    return result;
}

int snapshot_invalidate(const struct snapshot_place *place, unsigned slot)
{
    static const uint8_t zeros[SNAPSHOT_HEAD_BYTES];
    ssize_t written;
    do
        written = sys_pwrite(place->memory[slot], zeros, sizeof zeros, 0);
    while (written < 0 && errno == EINTR);
    if (written == (ssize_t)sizeof zeros)
        return 0;
    return written < 0 ? -errno : -EIO;
}

/* ---- finding ---- */

struct finder {
    struct snapshot_list *list;
    unsigned room;
    bool no_memory;
};

static void note(struct finder *finder, const struct snapshot *snapshot)
{
    struct snapshot_list *list = finder->list;
    if (list->count == finder->room) {
        unsigned room = finder->room > 0 ? finder->room * 2 : 4;
        struct snapshot *more = realloc(list->snapshots, room * sizeof *more);
        finder->no_memory |= !more;
        if (!more)
            return;
        list->snapshots = more;
        finder->room = room;
    }
    list->snapshots[list->count++] = *snapshot;
}

static void note_name(void *context, const char *name)
{
    struct snapshot snapshot = {0};
    if (!snapshot_parse_name(name, &snapshot.point.index))
        return;
    snprintf(snapshot.name, sizeof snapshot.name, "%s", name);
    note(context, &snapshot);
}

/* Without it the list is as good: what cannot be opened will be told when it is to be loaded. */
static void find_size(const struct snapshot_place *place, int directory, struct snapshot *snapshot)
{
    struct io *io = place->io;
    int file = io->ops->open(io, directory, snapshot->name, IO_READ);
    if (file < 0)
        return;
    int64_t size = io->ops->size(io, file);
    snapshot->bytes = size > 0 ? (uint64_t)size : 0;
    io->ops->close(io, file);
}

static int find_files(const struct snapshot_place *place, struct finder *finder, struct mr_error *error)
{
    struct io *io = place->io;
    int directory = io->ops->open_directory(io, place->path);
    if (directory < 0)
        return error_system(error, -directory, "cannot open the directory %s", place->path);
    int listed = io->ops->list(io, directory, note_name, finder);
    for (unsigned n = 0; n < finder->list->count; n++)
        find_size(place, directory, &finder->list->snapshots[n]);
    io->ops->close(io, directory);
    return listed < 0 ? error_system(error, -listed, "cannot list %s", place->path) : 0;
}

static int find_memory(const struct snapshot_place *place, struct finder *finder, struct mr_error *error)
{
    for (unsigned slot = 0; slot < SNAPSHOTS_KEPT; slot++) {
        struct snapshot snapshot;
        int sound = snapshot_look(place, slot, &snapshot, error);
        if (sound < 0)
            return -1;
        if (sound > 0)
            note(finder, &snapshot);
    }
    return 0;
}

static int newest_first(const void *left, const void *right)
{
    uint64_t a = ((const struct snapshot *)left)->point.index, b = ((const struct snapshot *)right)->point.index;
    return a > b ? -1 : a < b;
}

int snapshot_find(const struct snapshot_place *place, struct snapshot_list *list, struct mr_error *error)
{
    *list = (struct snapshot_list){0};
    struct finder finder = {.list = list};
    int result = place->memory ? find_memory(place, &finder, error) : find_files(place, &finder, error);
    if (result == 0 && finder.no_memory)
        result = error_system(error, ENOMEM, "no memory for the list of snapshots in %s", place->path);
    if (list->count > 1)
        qsort(list->snapshots, list->count, sizeof *list->snapshots, newest_first);
    return result;
}

void snapshot_list_free(struct snapshot_list *list)
{
    free(list->snapshots);
    *list = (struct snapshot_list){0};
}

/* ---- a look at one ---- */

/* The first chunk of an open file. */
static int peek_source(const struct snapshot_source *source, struct snapshot *snapshot, struct mr_error *error)
{
    struct snapshot_head head;
    uint64_t there = source->size < SNAPSHOT_CHUNK ? source->size : SNAPSHOT_CHUNK;
    if (there < SNAPSHOT_UNIT || there % SNAPSHOT_UNIT != 0)
        return snapshot_damaged(source, source->size, "no snapshot can end there, part of the file is missing", error);
    uint8_t *bytes = io_memory(SNAPSHOT_CHUNK, error);
    if (!bytes)
        return -1;
    int result = snapshot_read_all(source, bytes, there, 0, error);
    if (result == 0)
        result = snapshot_check_chunk(source, bytes, there, 0, &head, error);
    io_memory_free(bytes, SNAPSHOT_CHUNK);
    if (result != 0)
        return -1;
    if (head.index != snapshot->point.index)
        return snapshot_damaged(source, 0, "the state in it is that of another index", error);
    snapshot->point = (struct snapshot_point){head.index, head.time, head.segment};
    snapshot->bytes = source->size;
    return 0;
}

int snapshot_peek(const struct snapshot_place *place, struct snapshot *snapshot, struct mr_error *error)
{
    struct io *io = place->io;
    struct snapshot_source source = {.place = place, .name = snapshot->name};
    if (place->memory)
        return 0; /* snapshot_find() has looked */
    int directory = io->ops->open_directory(io, place->path);
    if (directory < 0)
        return error_system(error, -directory, "cannot open the directory %s", place->path);
    source.file = snapshot_open(place, directory, snapshot->name, IO_READ | IO_DIRECT);
    io->ops->close(io, directory);
    if (source.file < 0)
        return error_system(error, -source.file, "cannot open %s/%s", place->path, snapshot->name);
    int64_t size = io->ops->size(io, source.file);
    source.size = size > 0 ? (uint64_t)size : 0;
    int result = size < 0 ? error_system(error, (int)-size, "cannot get the size of %s/%s", place->path, snapshot->name)
                          : peek_source(&source, snapshot, error);
    io->ops->close(io, source.file);
    return result;
}

int snapshot_set_aside(const struct snapshot_place *place, const struct snapshot *snapshot, struct mr_error *error)
{
    struct io *io = place->io;
    int result;
    if (place->memory) {
        result = snapshot_invalidate(place, snapshot->slot);
    } else {
        char name[SNAPSHOT_NAME_SIZE];
        snprintf(name, sizeof name, "damaged-%.*s", (int)(sizeof name - 9), snapshot->name + sizeof prefix - 1);
        int directory = io->ops->open_directory(io, place->path);
        result = directory < 0 ? directory : io->ops->rename(io, directory, snapshot->name, name);
        if (result == 0)
            result = io->ops->sync_now(io, directory);
        if (directory >= 0)
            io->ops->close(io, directory);
    }
    return result == 0
               ? 0
               : error_system(error, -result, "cannot set the snapshot %s/%s aside", place->path, snapshot->name);
}
