/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a snapshot, as snapshot.h lays it down. One chunk is built at a time; it is written when there is more to
 * come, because only then it is known not to be the last. The first thing that goes wrong is kept until the commit,
 * which removes what there is. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/log/snapshot_inside.h"
#include "ipc/planted.h"
#include "ipc/sys.h"

struct snapshot_writer {
    struct snapshot_place place;
    struct snapshot_point point;
    char path[PATH_MAX];
    uint64_t epoch;
    uint8_t *chunk; /* SNAPSHOT_CHUNK bytes: the head's room, then the payload so far */
    uint8_t *first; /* `memory`: the first chunk, which is written last; NULL: it is `chunk` */
    uint64_t used;  /* of `chunk`, head included */
    uint32_t number;
    uint32_t sizes[2]; /* of the sections in it */
    unsigned section;  /* the one at hand */
    int directory;     /* -1: not open, or `memory` */
    int file;          /* in `memory` the memfd, which stays the giver's */
    char name[SNAPSHOT_NAME_SIZE];
    bool failed;
    struct mr_error error; /* why, if failed */
};

static bool in_memory(const struct snapshot_writer *writer)
{
    return writer->place.memory != NULL;
}

static int fail(struct snapshot_writer *writer, int64_t result, const char *what)
{
    if (!writer->failed)
        error_system(&writer->error, (int)-result, "cannot %s the snapshot %s/%s", what, writer->path, writer->name);
    writer->failed = true;
    return -1;
}

/* ---- beginning ---- */

/* The slot of the older one, or of one that is not whole. Its head becomes invalid before anything else happens. */
static int take_slot(struct snapshot_writer *writer, struct mr_error *error)
{
    struct snapshot found[SNAPSHOTS_KEPT];
    unsigned chosen = 0;
    for (unsigned slot = 0; slot < SNAPSHOTS_KEPT; slot++) {
        int sound = snapshot_look(&writer->place, slot, &found[slot], error);
        if (sound < 0)
            return -1;
        if (sound == 0)
            found[slot].point.index = 0;
        if (found[slot].point.index < found[chosen].point.index)
            chosen = slot;
    }
    writer->file = writer->place.memory[chosen];
    snprintf(writer->name, sizeof writer->name, "in memory, slot %u", chosen);
    int invalid = snapshot_invalidate(&writer->place, chosen);
    return invalid == 0
               ? 0
               : error_system(error, -invalid, "cannot write to the snapshot %s/%s", writer->path, writer->name);
}

/* Names found while the directory is listed, of files that are to be removed afterwards. */
struct leftovers {
    const struct snapshot_writer *writer;
    uint64_t newest; /* of the whole ones but for ours; there is one if `other` */
    bool other;
    char (*names)[SNAPSHOT_NAME_SIZE];
    unsigned count, room;
};

static void note_leftover(struct leftovers *leftovers, const char *name)
{
    if (leftovers->count == leftovers->room) {
        unsigned room = leftovers->room > 0 ? leftovers->room * 2 : 8;
        void *names = realloc(leftovers->names, room * sizeof *leftovers->names);
        if (!names)
            return; /* it is found again the next time */
        leftovers->names = names;
        leftovers->room = room;
    }
    snprintf(leftovers->names[leftovers->count++], SNAPSHOT_NAME_SIZE, "%s", name);
}

/* What `look` notes of the names that there are. A name that cannot be removed now is tried again with the next
 * snapshot. */
static void remove_leftovers(const struct snapshot_writer *writer, void (*look)(void *leftovers, const char *name))
{
    struct io *io = writer->place.io;
    struct leftovers leftovers = {.writer = writer};
    if (io->ops->list(io, writer->directory, look, &leftovers) == 0)
        for (unsigned n = 0; n < leftovers.count; n++)
            (void)io->ops->remove(io, writer->directory, leftovers.names[n]);
    free(leftovers.names);
}

static void look_for_unfinished(void *context, const char *name)
{
    struct leftovers *leftovers = context;
    uint64_t epoch;
    if (snapshot_parse_new_name(name, &epoch) && epoch < leftovers->writer->epoch)
        note_leftover(leftovers, name);
}

/* A file under the name of an unfinished one. One of that name can only be ours: of an attempt that was given up. What
 * predecessors left unfinished goes first: it may be just what this one lacks the room for. */
static int make_file(struct snapshot_writer *writer, struct mr_error *error)
{
    struct io *io = writer->place.io;
    writer->directory = io->ops->open_directory(io, writer->path);
    if (writer->directory < 0)
        return error_system(error, -writer->directory, "cannot open the directory %s", writer->path);
    remove_leftovers(writer, look_for_unfinished);
    snapshot_new_name(writer->name, writer->epoch);
    int removed = io->ops->remove(io, writer->directory, writer->name);
    if (removed < 0 && removed != -ENOENT)
        return error_system(error, -removed, "cannot remove %s/%s", writer->path, writer->name);
    writer->file = snapshot_open(&writer->place, writer->directory, writer->name, IO_WRITE | IO_CREATE | IO_DIRECT);
    if (writer->file >= 0)
        return 0;
    (void)io->ops->remove(io, writer->directory, writer->name); /* most likely it is not there */
    return error_system(error, -writer->file, "cannot make the snapshot %s/%s", writer->path, writer->name);
}

static void writer_free(struct snapshot_writer *writer)
{
    struct io *io = writer->place.io;
    if (!in_memory(writer) && writer->file >= 0)
        io->ops->close(io, writer->file);
    if (writer->directory >= 0)
        io->ops->close(io, writer->directory);
    io_memory_free(writer->chunk, SNAPSHOT_CHUNK);
    io_memory_free(writer->first, SNAPSHOT_CHUNK);
    free(writer);
}

struct snapshot_writer *snapshot_begin(const struct snapshot_place *place, const struct snapshot_point *point,
                                       uint64_t epoch, struct mr_error *error)
{
    struct snapshot_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        error_system(error, ENOMEM, "no memory for writing a snapshot");
        return NULL;
    }
    writer->place = *place;
    writer->point = *point;
    writer->epoch = epoch;
    writer->used = SNAPSHOT_HEAD_BYTES;
    writer->directory = writer->file = -1;
    snprintf(writer->path, sizeof writer->path, "%s", place->path);
    writer->place.path = writer->path;
    writer->chunk = io_memory(SNAPSHOT_CHUNK, error);
    if (writer->chunk && (in_memory(writer) ? take_slot(writer, error) : make_file(writer, error)) == 0)
        return writer;
    writer_free(writer);
    return NULL;
}

/* ---- writing ---- */

static int64_t write_at(struct snapshot_writer *writer, const uint8_t *bytes, uint64_t size, uint64_t offset)
{
    struct io *io = writer->place.io;
    if (!in_memory(writer))
        return io->ops->write_now(io, writer->file, bytes, size, offset);
    for (uint64_t done = 0; done < size;) {
        ssize_t written = sys_pwrite(writer->file, bytes + done, size - done, (off_t)(offset + done));
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? -errno : -EIO;
        done += (uint64_t)written;
    }
    return (int64_t)size;
}

/* Completes the chunk at hand: head, and zeros behind. Gives its size. */
static uint64_t seal_chunk(struct snapshot_writer *writer, bool last)
{
    const struct snapshot_head head = {.magic = SNAPSHOT_MAGIC,
                                       .version = SNAPSHOT_VERSION,
                                       .partition = writer->place.partition,
                                       .index = writer->point.index,
                                       .time = writer->point.time,
                                       .segment = writer->point.segment,
                                       .chunk = writer->number,
                                       .sizes = {writer->sizes[0], writer->sizes[1]},
                                       .last = last};
    memcpy(writer->chunk, &head, sizeof head);
    uint64_t sum = snapshot_sum(writer->chunk, writer->used, writer->place.secret);
    memcpy(writer->chunk + offsetof(struct snapshot_head, checksum), &sum, sizeof sum);
    uint64_t size = (writer->used + SNAPSHOT_UNIT - 1) / SNAPSHOT_UNIT * SNAPSHOT_UNIT;
    memset(writer->chunk + writer->used, 0, size - writer->used);
    return size;
}

static int write_chunk(struct snapshot_writer *writer, bool last)
{
    uint64_t size = seal_chunk(writer, last);
    if (in_memory(writer) && writer->number == 0 && !last) {
        writer->first = writer->chunk;
        writer->chunk = io_memory(SNAPSHOT_CHUNK, &writer->error);
        writer->failed |= !writer->chunk;
    } else if (!in_memory(writer) || writer->number > 0) {
        int64_t written = write_at(writer, writer->chunk, size, writer->number * SNAPSHOT_CHUNK);
        if (written < 0)
            return fail(writer, written, "write to");
    }
    writer->number++;
    writer->used = SNAPSHOT_HEAD_BYTES;
    writer->sizes[0] = writer->sizes[1] = 0;
    return writer->failed ? -1 : 0;
}

void snapshot_write(void *context, const void *data, size_t size)
{
    struct snapshot_writer *writer = context;
    const uint8_t *from = data;
    while (size > 0 && !writer->failed) {
        if (writer->used == SNAPSHOT_CHUNK && write_chunk(writer, false) != 0)
            return;
        uint64_t room = SNAPSHOT_CHUNK - writer->used;
        size_t part = size < room ? size : (size_t)room;
        memcpy(writer->chunk + writer->used, from, part);
        writer->used += part;
        writer->sizes[writer->section] += (uint32_t)part;
        from += part;
        size -= part;
    }
}

void snapshot_next_section(struct snapshot_writer *writer)
{
    mr_assert(writer->section == 0);
    writer->section = 1;
}

/* ---- the commit ---- */

/* The last chunk; in `memory` then the size, and at the very end the first one, which makes it whole. */
static int finish(struct snapshot_writer *writer, uint64_t *bytes)
{
    if (writer->failed)
        return -1;
    uint64_t number = writer->number;
    *bytes = number * SNAPSHOT_CHUNK + (writer->used + SNAPSHOT_UNIT - 1) / SNAPSHOT_UNIT * SNAPSHOT_UNIT;
    if (write_chunk(writer, true) != 0)
        return -1;
    if (in_memory(writer)) {
        if (sys_ftruncate(writer->file, (off_t)*bytes) != 0)
            return fail(writer, -errno, "set the size of");
        return 0;
    }
    int synced = writer->place.io->ops->sync_now(writer->place.io, writer->file);
    return synced < 0 ? fail(writer, synced, "flush") : 0;
}

static int give_name(struct snapshot_writer *writer)
{
    struct io *io = writer->place.io;
    char name[SNAPSHOT_NAME_SIZE];
    snapshot_name(name, writer->point.index);
    int renamed = io->ops->rename(io, writer->directory, writer->name, name);
    if (renamed < 0)
        return fail(writer, renamed, "rename");
    memcpy(writer->name, name, sizeof name);
    int synced = PLANTED(NO_DIRECTORY_SYNC) ? 0 : io->ops->sync_now(io, writer->directory);
    return synced < 0 ? fail(writer, synced, "flush the directory of") : 0;
}

static int become_whole(struct snapshot_writer *writer, uint64_t bytes)
{
    if (!in_memory(writer))
        return give_name(writer);
    uint64_t size = bytes < SNAPSHOT_CHUNK ? bytes : SNAPSHOT_CHUNK;
    int64_t written = write_at(writer, writer->first ? writer->first : writer->chunk, size, 0);
    return written < 0 ? fail(writer, written, "write to") : 0;
}

static void take_back(struct snapshot_writer *writer)
{
    struct io *io = writer->place.io;
    /* Should this fail too: a memfd's first chunk is not sound, or a file's name says that it is unfinished, or it is
     * whole. */
    if (in_memory(writer))
        (void)sys_ftruncate(writer->file, 0);
    else
        (void)io->ops->remove(io, writer->directory, writer->name);
}

/* All but ours and the newest of the others. */
static void look_for_old(void *context, const char *name)
{
    static_assert(SNAPSHOTS_KEPT == 2, "ours and one more");
    struct leftovers *leftovers = context;
    uint64_t number;
    if (!snapshot_parse_name(name, &number) || number == leftovers->writer->point.index)
        return;
    if (leftovers->other) { /* of two one has to go */
        char older[SNAPSHOT_NAME_SIZE];
        snapshot_name(older, number < leftovers->newest ? number : leftovers->newest);
        note_leftover(leftovers, older);
    }
    if (!leftovers->other || number > leftovers->newest)
        leftovers->newest = number;
    leftovers->other = true;
}

int snapshot_commit(struct snapshot_writer *writer, int (*ready)(void *context, struct io *io, struct mr_error *error),
                    void *context, uint64_t *bytes, struct mr_error *error)
{
    int result = finish(writer, bytes);
    if (result == 0 && ready)
        result = ready(context, writer->place.io, &writer->error);
    if (result == 0)
        result = become_whole(writer, *bytes);
    if (result != 0) {
        take_back(writer);
        if (error)
            *error = writer->error;
    } else if (!in_memory(writer)) {
        remove_leftovers(writer, look_for_old);
    }
    writer_free(writer);
    return result;
}
