/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots: files, or in `memory` memfds, that hold a partition's whole state after one entry, so that the log before
 * it need not be kept. This file defines their names and their format, writes and reads them; what the bytes mean it
 * does not know.
 *
 * A snapshot has two sections, each a string of bytes of any length, which are cut into chunks. A chunk is 1 MiB, the
 * last one as short as what is in it, rounded up to a multiple of 4096 with zeros; chunk n stands at n MiB. It begins
 * with its head:
 *
 *     offset  bytes
 *          0      8  magic "MRSNAPS\n"
 *          8      4  format version, 1
 *         12      4  partition
 *         16      8  checksum: XXH3_64 of head and payload with this field zero, seeded with the directory's secret
 *         24      8  index of the entry after which this was the state
 *         32      8  the partition's time after it, nanoseconds since 1970
 *         40      8  number of the segment in which reading the log behind that entry has to begin
 *         48      4  number of this chunk, from 0
 *         52      4  bytes of the first section in this chunk
 *         56      4  bytes of the second section behind them
 *         60      4  1 in the last chunk, else 0
 *
 * and then its payload. No byte of the second section comes before one of the first. All chunks of a snapshot carry the
 * same index, time and segment. (Magic, version and checksum keep their place in every version.)
 *
 * A file is written under a name of its own, `snapshot-new-EPOCH`, synced, renamed to `snapshot-INDEX` (20 digits) and
 * its directory synced: under that name it is whole or it is damaged. Two are kept, and the log back to the older one.
 * EPOCH is the worker's, so that a predecessor's child that has not died yet disturbs nobody.
 *
 * In `memory` there are two memfds, which outlive the worker; the next snapshot overwrites the older one (or the one
 * that is not whole): its first chunk is made invalid first and written last. */
#ifndef ENGINE_LOG_SNAPSHOT_H
#define ENGINE_LOG_SNAPSHOT_H

#include "engine/io/io.h"

enum { SNAPSHOT_VERSION = 1, SNAPSHOT_HEAD_BYTES = 64, SNAPSHOT_NAME_SIZE = 48, SNAPSHOTS_KEPT = 2 };
#define SNAPSHOT_CHUNK (UINT64_C(1) << 20)

/* Where snapshots are kept. */
struct snapshot_place {
    struct io *io;
    const char *path; /* the partition's folder, for messages and to be opened */
    uint32_t partition;
    uint64_t secret;   /* seeds the checksums */
    const int *memory; /* `memory`: SNAPSHOTS_KEPT memfds, the giver's; NULL: files */
};

/* The state it is of. */
struct snapshot_point {
    uint64_t index;
    uint64_t time;
    uint64_t segment; /* log_segment() at that moment */
};

/* ---- writing: by a child, or by the worker itself when it ends ---- */

struct snapshot_writer;
/* `epoch` is the worker's; it names the file until it is whole. What is left of unfinished ones of earlier epochs is
 * removed. NULL with *error. */
struct snapshot_writer *snapshot_begin(const struct snapshot_place *place, const struct snapshot_point *point,
                                       uint64_t epoch, struct mr_error *error);
/* Bytes of the section at hand; what goes wrong is told by snapshot_commit(). `writer` is void so that this fits where
 * a function that takes bytes is asked for. */
void snapshot_write(void *writer, const void *data, size_t size);
void snapshot_next_section(struct snapshot_writer *writer);
/* Writes the rest and syncs it; `ready` (may be NULL) then makes sure that nothing else is missing before the snapshot
 * may count (in `async` that the log up to it is flushed); then it gets its name, and older ones than the newest two
 * are removed. Frees the writer in any case. 0 and *bytes, its size; or -1 with *error, and what had been written is
 * removed. */
int snapshot_commit(struct snapshot_writer *writer, int (*ready)(void *context, struct io *io, struct mr_error *error),
                    void *context, uint64_t *bytes, struct mr_error *error);

/* ---- reading ---- */

/* One that is there, as far as its first chunk tells. */
struct snapshot {
    struct snapshot_point point; /* of a file only the index is known, from its name, until it is loaded */
    uint64_t bytes;
    char name[SNAPSHOT_NAME_SIZE];
    unsigned slot; /* `memory` */
};
struct snapshot_list {
    struct snapshot *snapshots; /* newest first */
    unsigned count;
};
/* Which there are. A file whose name is a snapshot's is listed, sound or not; a memfd only if its first chunk is sound.
 * 0; or -1 with *error. snapshot_list_free() in both cases. */
int snapshot_find(const struct snapshot_place *place, struct snapshot_list *list, struct mr_error *error);
void snapshot_list_free(struct snapshot_list *list);

/* Completes *snapshot from its first chunk alone: where the log has to be kept from for its sake. 0; -1 with *error: as
 * for snapshot_load(). */
int snapshot_peek(const struct snapshot_place *place, struct snapshot *snapshot, struct mr_error *error);

/* Its sections, each in one piece. */
struct snapshot_content {
    const uint8_t *sections[2];
    uint64_t sizes[2];
    bool lost; /* snapshot_need() could not read it on */
    struct snapshot_load *load;
};
/* Completes *snapshot and reads the second section; of the first one only sizes[0] and where it will stand are known
 * then. `progress` (may be NULL) is told every few milliseconds of reading. Until snapshot_unload() nothing else may be
 * under way in the place's io. 0; -1 with *error: code 0 and naming file and offset if it is damaged (or of another
 * version, naming both), else the errno. snapshot_unload() after 0. */
int snapshot_load_begin(const struct snapshot_place *place, struct snapshot *snapshot, struct snapshot_content *content,
                        void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                        struct mr_error *error);
/* Reads what of [from, to), a part of the first section, has not been read yet; what comes behind is read ahead
 * meanwhile. The end of what is there from `from` on, `to` or further; NULL with *error: as above. Every byte that is
 * there has been checked. `content` is void in this and the next one so that they fit where somebody asks for bytes and
 * tells of them. */
const uint8_t *snapshot_need(void *content, const uint8_t *from, const uint8_t *to, struct mr_error *error);
/* What stands from `from` up to `to`, in one of its sections, is not needed any more: most of its memory is given back.
 * For what grows out of it. */
void snapshot_forget(void *content, const uint8_t *from, const uint8_t *to);
/* All of it: snapshot_load_begin(), and then whatever there is is needed. */
int snapshot_load(const struct snapshot_place *place, struct snapshot *snapshot, struct snapshot_content *content,
                  void (*progress)(void *context, uint64_t done, uint64_t total), void *context,
                  struct mr_error *error);
void snapshot_unload(struct snapshot_content *content);

/* Takes a damaged one out of the way, so that it is not one of the two that are kept: a file is renamed to
 * `damaged-INDEX` for a person to look at, a memfd's first chunk made invalid. 0, or -1 with *error. */
int snapshot_set_aside(const struct snapshot_place *place, const struct snapshot *snapshot, struct mr_error *error);

#endif
