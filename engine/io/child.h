/* SPDX-License-Identifier: Apache-2.0 */
/* One child process that runs a job on its parent's memory as it was at the fork. Only uring.c includes this: it owns
 * the ring that the child has to let go of, and polls the descriptor that tells its end. */
#ifndef ENGINE_IO_CHILD_H
#define ENGINE_IO_CHILD_H

#include <sys/types.h>

#include "engine/io/io.h"

struct child {
    pid_t pid;               /* 0: there is none */
    int ended;               /* pidfd: readable once it has ended */
    _Atomic int32_t *result; /* a page shared with it: negative until its job has given one */
};

/* Forks; the child closes `ring` first, so that the ring does not outlive the parent. 0; or a negative errno, and then
 * there is no child. */
int child_start(struct child *child, int ring, int (*job)(void *context, struct io *io), void *context);
/* Kills it; its end comes by itself. */
void child_end_soon(const struct child *child);
/* Waits for its end, if it has not come yet: the job's result, or -ECHILD. There is no child afterwards. */
int32_t child_wait(struct child *child);
/* The same, not left to its own time. */
int32_t child_end(struct child *child);

#endif
