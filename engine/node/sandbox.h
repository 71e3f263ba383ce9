/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker gives up before it reads the first byte that somebody else may have written: privileges, new ones and
 * old (capabilities), system calls that it does not use, and files that are not its partition's. Its children keep to
 * the same. (The ring, whose operations no filter of system calls sees, is restricted where it is made:
 * engine/io/uring_setup.c.) */
#ifndef ENGINE_NODE_SANDBOX_H
#define ENGINE_NODE_SANDBOX_H

#include <stdint.h>

#include "ipc/error.h"

enum sandbox_mode { SANDBOX_AUTO, SANDBOX_REQUIRED, SANDBOX_OFF };

/* For good, for this process and its children. `folder`: the only one whose files it may use; NULL: none. What the
 * system refuses is told in the log, and the worker goes on; with SANDBOX_REQUIRED it is -1 with *error. */
int sandbox_enter(enum sandbox_mode mode, const char *folder, uint32_t partition, struct mr_error *error);

#ifdef MR_TESTING
struct io;
/* Where the environment asks for it (MR_SANDBOX_TRY=1) it tries what must be refused, and tells the log of each what
 * came of it. */
void sandbox_try(struct io *io, uint32_t partition);
#define SANDBOX_TRY(io, partition) sandbox_try(io, partition)
#else
#define SANDBOX_TRY(io, partition) ((void)0)
#endif

#endif
