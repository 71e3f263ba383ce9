/* SPDX-License-Identifier: Apache-2.0 */
/* KeepAlives: telling the node what it may forget. */
#ifndef IPC_CLIENT_KEEP_ALIVE_H
#define IPC_CLIENT_KEEP_ALIVE_H

#include "ipc/client/client.h"

/* Have so many outputs been taken since the last one that another is due? */
static inline bool keep_alive_has_enough(const struct session *session)
{
    return session->taken >= MR_KEEP_ALIVE_OUTPUTS || session->taken_bytes >= MR_KEEP_ALIVE_OUTPUT_BYTES;
}

/* Lets the node forget, if enough has come for that, or a stream is over; called after each run. */
void keep_alive_run(struct link *link);
/* The stream of that number is over: the node is to be told so with the next KeepAlive, which is due now. */
void keep_alive_over(struct session *session, uint64_t sequence_num);

/* Starts a KeepAlive that does nothing but renew any session. */
enum mr_status keep_alive_renew(struct link *link, uint64_t session_id, struct mr_then then);

#endif
