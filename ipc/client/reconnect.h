/* SPDX-License-Identifier: Apache-2.0 */
/* The node's end and its return, as a handle sees them. */
#ifndef IPC_CLIENT_RECONNECT_H
#define IPC_CLIENT_RECONNECT_H

#include "ipc/client/client.h"
#include "millrace/v1/control.pb-c.h"

/* The connection has ended; `text` says how. All that was answered before has been met. */
void reconnect_begin(struct mr_client *client, const char *text);
/* A try has failed: another one follows in a while. */
void reconnect_failed(struct mr_client *client, const char *text);
/* A try has got as far as the node's Welcome, which makes sense; the connection is the handle's now. */
void reconnect_welcomed(struct mr_client *client, const Millrace__V1__Welcome *welcome);
/* The node does not give a link another channel just now. */
void reconnect_refused(struct link *link);

/* Is there anything to be done that reconnect_step() does? Cheap. */
static inline bool reconnect_is_on(const struct mr_client *client)
{
    return client->away || client->reopening > 0;
}
/* Does what is due; part of each run while reconnect_is_on(). */
void reconnect_step(struct mr_client *client);
/* When the next step is due; NEVER: none is, or something readable begins it. */
uint64_t reconnect_due(const struct mr_client *client);

/* By when a node that has ended now is taken for gone, where its handle waits for it at all; else `otherwise`. */
uint64_t reconnect_limit(const struct mr_client *client, uint64_t otherwise);

#endif
