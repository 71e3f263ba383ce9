/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a snapshot whole, as snapshot.h lays it down: in pieces of some chunks, each when it is asked for, and the
 * one behind it while that one is looked at. Chunk by chunk, every byte of a piece is checked, and the payload copied
 * to where it belongs between the others': what is given out is each section in one piece, of which only what was
 * asked for is there. So whoever makes a state of it, and forgets what is behind, needs memory for the state and a few
 * pieces; and the device works meanwhile.
 *
 * Where a chunk's payload belongs is known from its number, since all but the last are full. Where the second section
 * begins only the chunk knows in which the first one ends; so it begins with the last pieces, backwards until there is
 * something of the first section. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/log/snapshot_inside.h"
#include "millrace/limits.h"

#define PIECE_CHUNKS 2 /* so that a piece is in the cache while it is taken; 8 took a third longer */
#define PIECE_BYTES (PIECE_CHUNKS * SNAPSHOT_CHUNK)
#define PIECE_PAYLOAD (PIECE_CHUNKS * SNAPSHOT_PAYLOAD)
#define READ_TOKEN 1 /* nothing else is under way while a snapshot is loaded */
#define TELL_EVERY (5 * MR_MILLISECOND)
#define NO_PIECE UINT64_MAX

struct snapshot_load {
    struct snapshot_source source;
    struct snapshot_place place;
    char name[SNAPSHOT_NAME_SIZE];
    struct snapshot_point point; /* as the chunk says that was read first */
    uint8_t *image;              /* both sections, one behind the other; as large as the file */
    uint8_t *buffers[2];         /* a piece as it stands in the file: the one at hand, the one that is read ahead */
    uint64_t buffer_size;
    bool *taken;          /* of each piece: is it in the image? */
    uint64_t pieces;      /* how many there are */
    uint64_t done;        /* bytes of those that were taken */
    uint64_t ahead;       /* the piece that is being read ahead; or NO_PIECE */
    uint64_t first_size;  /* of the first section; UINT64_MAX: not known yet */
    uint64_t second_size; /* as far as it has been read */
    uint8_t *kept;        /* up to here snapshot_forget() has been */

    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    uint64_t told; /* monotonic time */
};

/* ---- reading ---- */

static uint64_t piece_size(const struct snapshot_load *load, uint64_t piece)
{
    uint64_t left = load->source.size - piece * PIECE_BYTES;
    return left < PIECE_BYTES ? left : PIECE_BYTES;
}

/* Starts reading the piece, if it is wanted and there is somebody who can. */
static void begin_ahead(struct snapshot_load *load, uint64_t piece)
{
    struct io *io = load->place.io;
    if (load->taken[piece] || load->place.memory || !io->ops->read_ahead ||
        io->ops->read_ahead(io, load->source.file, load->buffers[1], piece_size(load, piece), piece * PIECE_BYTES,
                            READ_TOKEN) != 0)
        return;
    load->ahead = piece;
    (void)io->ops->completions(io, NULL, 0); /* hands it over: it is a while until somebody waits for it */
}

/* How many bytes of it are there; whatever kept it from being all is met again by whoever reads the rest. */
static uint64_t end_ahead(struct snapshot_load *load)
{
    struct io *io = load->place.io;
    struct io_completion completion;
    load->ahead = NO_PIECE;
    while (io->ops->completions(io, &completion, 1) == 0)
        io->ops->sleep(io, UINT64_MAX);
    mr_assert(completion.token == READ_TOKEN);
    return completion.result < 0 ? 0 : (uint64_t)completion.result & ~(uint64_t)(SNAPSHOT_UNIT - 1);
}

/* Its bytes, as in the file, to buffers[0]. */
static int read_piece(struct snapshot_load *load, uint64_t piece, struct mr_error *error)
{
    uint64_t size = piece_size(load, piece), there = 0;
    if (load->ahead == piece) {
        there = end_ahead(load);
        uint8_t *read = load->buffers[1];
        load->buffers[1] = load->buffers[0];
        load->buffers[0] = read;
    }
    if (there >= size)
        return 0;
    return snapshot_read_all(&load->source, load->buffers[0] + there, size - there, piece * PIECE_BYTES + there, error);
}

/* ---- taking ---- */

static void tell(struct snapshot_load *load)
{
    struct io *io = load->place.io;
    uint64_t now = io->ops->monotonic(io);
    if (!load->progress || now - load->told < TELL_EVERY)
        return;
    load->told = now;
    load->progress(load->context, load->done, load->source.size);
}

/* The chunk stands at `bytes`. Adds to what its piece has of each section. */
static int take_chunk(struct snapshot_load *load, uint64_t number, uint8_t *bytes, uint64_t sizes[2],
                      struct mr_error *error)
{
    uint64_t offset = number * SNAPSHOT_CHUNK, left = load->source.size - offset;
    struct snapshot_head head;
    if (snapshot_check_chunk(&load->source, bytes, left < SNAPSHOT_CHUNK ? left : SNAPSHOT_CHUNK, number, &head,
                             error) != 0)
        return -1;
    if (load->done == 0 && number % PIECE_CHUNKS == 0)
        load->point = (struct snapshot_point){head.index, head.time, head.segment};
    if (head.index != load->point.index || head.time != load->point.time || head.segment != load->point.segment)
        return snapshot_damaged(&load->source, offset, "the chunk is of another snapshot than the rest", error);
    bool second_only = sizes[1] > 0, first_only = load->first_size != UINT64_MAX;
    if ((second_only && head.sizes[0] > 0) || (first_only && head.sizes[1] > 0))
        return snapshot_damaged(&load->source, offset, "the first section goes on behind the second", error);
    uint64_t size = (uint64_t)head.sizes[0] + head.sizes[1];
    memcpy(load->image + number * SNAPSHOT_PAYLOAD, bytes + SNAPSHOT_HEAD_BYTES, size);
    sizes[0] += head.sizes[0];
    sizes[1] += head.sizes[1];
    return 0;
}

/* Reads the piece, checks it, puts it into the image. */
static int take_piece(struct snapshot_load *load, uint64_t piece, struct mr_error *error)
{
    uint64_t size = piece_size(load, piece), sizes[2] = {0, 0};
    if (read_piece(load, piece, error) != 0)
        return -1;
    uint64_t next = (piece + 1) % load->pieces;
    if (load->ahead == NO_PIECE && next != piece)
        begin_ahead(load, next);
    for (uint64_t offset = 0; offset < size; offset += SNAPSHOT_CHUNK)
        if (take_chunk(load, piece * PIECE_CHUNKS + offset / SNAPSHOT_CHUNK, load->buffers[0] + offset, sizes, error) !=
            0)
            return -1;
    if (sizes[0] > 0 && load->first_size == UINT64_MAX)
        load->first_size = piece * PIECE_PAYLOAD + sizes[0];
    load->second_size += sizes[1];
    load->taken[piece] = true;
    load->done += size;
    tell(load);
    return 0;
}

/* From the end, until it is known where the second section begins. */
static int take_end(struct snapshot_load *load, struct mr_error *error)
{
    for (uint64_t piece = load->pieces; piece > 0 && load->first_size == UINT64_MAX; piece--)
        if (take_piece(load, piece - 1, error) != 0)
            return -1;
    if (load->first_size == UINT64_MAX)
        load->first_size = 0;
    return 0;
}

/* ---- beginning and end ---- */

static int open_source(struct snapshot_load *load, unsigned slot, struct mr_error *error)
{
    const struct snapshot_place *place = &load->place;
    struct snapshot_source *source = &load->source;
    struct io *io = place->io;
    if (place->memory) {
        source->file = place->memory[slot];
        return snapshot_memory_size(place, slot, &source->size, error);
    }
    int directory = io->ops->open_directory(io, place->path);
    if (directory < 0)
        return error_system(error, -directory, "cannot open the directory %s", place->path);
    source->file = snapshot_open(place, directory, load->name, IO_READ | IO_DIRECT);
    io->ops->close(io, directory);
    if (source->file < 0)
        return error_system(error, -source->file, "cannot open %s/%s", place->path, load->name);
    int64_t size = io->ops->size(io, source->file);
    if (size < 0)
        return error_system(error, (int)-size, "cannot get the size of %s/%s", place->path, load->name);
    source->size = (uint64_t)size;
    return 0;
}

static int get_memory(struct snapshot_load *load, struct mr_error *error)
{
    uint64_t size = load->source.size;
    load->pieces = (size + PIECE_BYTES - 1) / PIECE_BYTES;
    load->buffer_size = piece_size(load, 0);
    load->taken = calloc(load->pieces, sizeof *load->taken);
    if (!load->taken)
        return error_system(error, ENOMEM, "no memory for reading %s/%s", load->place.path, load->name);
    load->image = load->kept = io_memory(size, error);
    load->buffers[0] = io_memory(load->buffer_size, error);
    load->buffers[1] = io_memory(load->buffer_size, error);
    return load->image && load->buffers[0] && load->buffers[1] ? 0 : -1;
}

static int begin(struct snapshot_load *load, const struct snapshot *snapshot, struct mr_error *error)
{
    if (open_source(load, snapshot->slot, error) != 0)
        return -1;
    uint64_t size = load->source.size;
    if (size < SNAPSHOT_UNIT || size % SNAPSHOT_UNIT != 0)
        return snapshot_damaged(&load->source, size, "no snapshot can end there, part of the file is missing", error);
    if (get_memory(load, error) != 0 || take_end(load, error) != 0)
        return -1;
    if (!load->place.memory && load->point.index != snapshot->point.index)
        return error_set(error, "%s/%s is damaged at offset 0: the state in it is that of index %" PRIu64,
                         load->place.path, load->name, load->point.index);
    return 0;
}

int snapshot_load_begin(const struct snapshot_place *place, struct snapshot *snapshot, struct snapshot_content *content,
                        void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                        struct mr_error *error)
{
    struct snapshot_load *load = calloc(1, sizeof *load);
    *content = (struct snapshot_content){.load = load};
    if (!load)
        return error_system(error, ENOMEM, "no memory for reading %s/%s", place->path, snapshot->name);
    *load = (struct snapshot_load){.source = {.place = &load->place, .name = load->name, .file = -1},
                                   .place = *place,
                                   .ahead = NO_PIECE,
                                   .first_size = UINT64_MAX,
                                   .progress = progress,
                                   .context = context};
    memcpy(load->name, snapshot->name, sizeof load->name);
    if (begin(load, snapshot, error) != 0) {
        snapshot_unload(content);
        return -1;
    }
    snapshot->point = load->point;
    snapshot->bytes = load->source.size;
    content->sections[0] = load->image;
    content->sections[1] = load->image + load->first_size;
    content->sizes[0] = load->first_size;
    content->sizes[1] = load->second_size;
    return 0;
}

void snapshot_unload(struct snapshot_content *content)
{
    struct snapshot_load *load = content->load;
    *content = (struct snapshot_content){0};
    if (!load)
        return;
    if (load->ahead != NO_PIECE)
        (void)end_ahead(load); /* into memory that will be somebody else's */
    if (!load->place.memory && load->source.file >= 0)
        load->place.io->ops->close(load->place.io, load->source.file);
    io_memory_free(load->image, load->source.size);
    for (unsigned n = 0; n < 2; n++)
        io_memory_free(load->buffers[n], load->buffer_size);
    free(load->taken);
    free(load);
}

/* ---- the first section ---- */

const uint8_t *snapshot_need(void *context, const uint8_t *from, const uint8_t *to, struct mr_error *error)
{
    struct snapshot_content *content = context;
    struct snapshot_load *load = content->load;
    uint64_t begin = (uint64_t)(from - load->image), end = (uint64_t)(to - load->image);
    mr_assert(begin <= end && end <= load->first_size);
    uint64_t piece = begin / PIECE_PAYLOAD;
    for (; piece * PIECE_PAYLOAD < end; piece++) {
        if (load->taken[piece] || take_piece(load, piece, error) == 0)
            continue;
        content->lost = true;
        return NULL;
    }
    uint64_t there = piece * PIECE_PAYLOAD < load->first_size ? piece * PIECE_PAYLOAD : load->first_size;
    return there > end ? load->image + there : to;
}

void snapshot_forget(void *context, const uint8_t *from, const uint8_t *to)
{
    struct snapshot_load *load = ((struct snapshot_content *)context)->load;
    uint8_t *begin = load->image + (from - load->image);
    if (begin < load->kept)
        begin = load->kept; /* a page that was needed in part is not any more */
    if (begin < to)
        load->kept = io_memory_forget(begin, (size_t)(to - begin));
}

int snapshot_load(const struct snapshot_place *place, struct snapshot *snapshot, struct snapshot_content *content,
                  void (*progress)(void *context, uint64_t done, uint64_t total), void *context, struct mr_error *error)
{
    if (snapshot_load_begin(place, snapshot, content, progress, context, error) != 0)
        return -1;
    const uint8_t *first = content->sections[0];
    if (snapshot_need(content, first, first + content->sizes[0], error))
        return 0;
    snapshot_unload(content);
    return -1;
}
