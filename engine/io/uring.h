/* SPDX-License-Identifier: Apache-2.0 */
/* The node's io: io_uring for what happens at run time, plain system calls (through ipc/sys.h) for the rest. */
#ifndef ENGINE_IO_URING_H
#define ENGINE_IO_URING_H

#include "engine/io/io.h"

/* A ring for the calling thread alone (SINGLE_ISSUER, DEFER_TASKRUN, TASKRUN_FLAG). NULL with *error saying what was
 * refused (sysctl kernel.io_uring_disabled, a container's filter, a kernel too old) and what to change. */
struct io *uring_create(unsigned entries, struct mr_error *error);
/* Waits for the writes and syncs that were started, not for their completions to be taken; ends watches and wakes,
 * kills the child. Files are not closed. */
void uring_destroy(struct io *io);

#ifdef MR_TESTING
/* For a test of what its ring refuses. */
struct io_uring;
struct io_uring *uring_ring(struct io *io);
#endif

#endif
