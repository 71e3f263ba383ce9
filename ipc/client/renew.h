/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that renews a handle's sessions. Nothing is shared with it: it is told by messages. */
#ifndef IPC_CLIENT_RENEW_H
#define IPC_CLIENT_RENEW_H

#include "ipc/client/client.h"

/* Starts it unless it runs. */
enum mr_status renewer_start(struct mr_client *client);
/* From now on the link's session is renewed, as often as client->renew_every says. A lost one is forgotten by itself. */
enum mr_status renewer_add(struct link *link);
/* Ends it, and waits for that. A no-op if it was never started. */
void renewer_stop(struct mr_client *client);
/* In a fork()ed child, where it does not run: closes the child's end, and what the thread had open if it was at
 * rest. */
void renewer_forget(struct mr_client *client);

#endif
