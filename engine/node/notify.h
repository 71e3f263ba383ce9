/* SPDX-License-Identifier: Apache-2.0 */
/* Telling the service manager: the datagrams that systemd's sd_notify() sends, to the socket that $NOTIFY_SOCKET names
 * (a path, or @name in the abstract namespace). Without the variable nothing happens. */
#ifndef ENGINE_NODE_NOTIFY_H
#define ENGINE_NODE_NOTIFY_H

#include "ipc/error.h"

/* "READY=1", "STOPPING=1". 0, also where nobody wants to know; -1 with *error: it could not be told, which changes
 * nothing else. Does not block. */
int notify_send(const char *state, struct mr_error *error);

#endif
