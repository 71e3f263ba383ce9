/* SPDX-License-Identifier: Apache-2.0 */
/* Leaving root (--user): what takes root is done first, the rest of the node's life is another user's. */
#ifndef ENGINE_NODE_PRIVILEGES_H
#define ENGINE_NODE_PRIVILEGES_H

#include "ipc/error.h"

/* For good. Makes `dir` (mode 0700, the user's) if it is not there and its parent is, lifts the limit on locked memory,
 * which root's io_uring does not have, and becomes `user` with that user's groups. `user`: a name or a number that the
 * system's table of users has; NULL, or who we are already: nothing happens. -1 with *error. */
int privileges_drop(const char *user, const char *dir, struct mr_error *error);

#endif
