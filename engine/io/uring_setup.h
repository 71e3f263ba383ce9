/* SPDX-License-Identifier: Apache-2.0 */
/* Making a ring and registering memory with it, and saying in words a person can act on why the kernel refuses. Only
 * uring.c includes it. */
#ifndef ENGINE_IO_URING_SETUP_H
#define ENGINE_IO_URING_SETUP_H

#include <liburing.h>

#include "ipc/error.h"

/* The kernel registers at most this much in a piece: byte p of the memory is in buffer p / URING_PIECE. */
#define URING_PIECE (UINT64_C(1) << 30)

/* A ring with what the node needs of a kernel, which can do nothing else for good. 0, or -1 with *error. */
int uring_setup(struct io_uring *ring, unsigned entries, struct mr_error *error);
/* 0, or -1 with *error: then nothing is registered. */
int uring_setup_buffers(struct io_uring *ring, void *memory, size_t size, struct mr_error *error);

#endif
