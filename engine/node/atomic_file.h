/* SPDX-License-Identifier: Apache-2.0 */
/* Small files of the data directory that are there whole or not at all: written beside, synced, renamed, the directory
 * synced. */
#ifndef ENGINE_NODE_ATOMIC_FILE_H
#define ENGINE_NODE_ATOMIC_FILE_H

#include <stddef.h>

#include "ipc/error.h"

/* Replaces DIR/name (mode 0600) by `size` bytes. `directory` is DIR's descriptor, `dir` its path for messages. When it
 * has returned 0 the new file survives a power cut; after -1 with *error the old one is there unharmed, or, where only
 * the last sync of the directory failed, either of the two. */
int atomic_file_write(int directory, const char *dir, const char *name, const void *bytes, size_t size,
                      struct mr_error *error);
/* Reads up to `size` bytes of DIR/name: how many it has (at most size + 1, so that a longer one shows), or -1 with
 * *error; a missing file has error->code ENOENT. */
long atomic_file_read(int directory, const char *dir, const char *name, void *bytes, size_t size,
                      struct mr_error *error);

#endif
