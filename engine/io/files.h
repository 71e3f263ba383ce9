/* SPDX-License-Identifier: Apache-2.0 */
/* The synchronous half of the node's io: plain system calls on descriptors, with results as io.h says (0 or a count,
 * or a negative errno). Keeps no state: what uring.c puts in its table of functions. Nobody else includes it. */
#ifndef ENGINE_IO_FILES_H
#define ENGINE_IO_FILES_H

#include "engine/io/io.h"

uint64_t files_monotonic(struct io *io);
uint64_t files_wall(struct io *io);
int files_open_directory(struct io *io, const char *path);
int files_list(struct io *io, int directory, void (*name)(void *context, const char *name), void *context);
int files_open(struct io *io, int directory, const char *name, unsigned flags);
bool files_is_direct(struct io *io, int file);
uint32_t files_alignment(struct io *io, int file);
int files_try_lock(int file); /* -EWOULDBLOCK: somebody has it */
int64_t files_size(struct io *io, int file);
int64_t files_read(struct io *io, int file, void *buffer, size_t size, uint64_t offset);
int64_t files_write_now(struct io *io, int file, const void *buffer, size_t size, uint64_t offset);
int files_allocate(struct io *io, int file, uint64_t size);
int files_sync_now(struct io *io, int file);
int files_rename(struct io *io, int directory, const char *from, const char *to);
int files_remove(struct io *io, int directory, const char *name);
void files_close(struct io *io, int file);

#endif
