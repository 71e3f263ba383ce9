/* SPDX-License-Identifier: Apache-2.0 */
/* The lock of a data directory: flock() on DIR/lock, which holds the pid of the node that took it, in decimal and a
 * newline. The lock belongs to the open file, so processes that inherit the descriptor keep it: it falls when the last
 * worker of a node has ended, not when its supervisor has. The file stays where it is when the node ends. */
#ifndef ENGINE_NODE_DIRECTORY_LOCK_H
#define ENGINE_NODE_DIRECTORY_LOCK_H

#include <stdint.h>

#include "ipc/error.h"

/* Takes the lock, waiting up to `wait_ns`, and writes this process's pid. `directory` is DIR's descriptor, `dir` its
 * path for messages. Returns the descriptor that holds it (close-on-exec), or -1 with *error, which names the
 * holder. */
int directory_lock_take(int directory, const char *dir, uint64_t wait_ns, struct mr_error *error);
/* For who only reads: keeps nodes away, but not others who read, and changes nothing. Does not wait. *lock_fd holds it
 * until it is closed; -1: there is no lock file. 0; or -1 with *error, code EBUSY if a node has the directory. */
int directory_lock_share(int directory, const char *dir, int *lock_fd, struct mr_error *error);

#endif
