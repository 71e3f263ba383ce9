/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the supervisor but channels. */
#ifndef IPC_CLIENT_QUESTION_H
#define IPC_CLIENT_QUESTION_H

#include "ipc/client/client.h"

/* Attaches to a session in the link's partition, or (session_id 0) asks for the list of the partition's sessions;
 * waits. What comes is client->memory: an encoded Attachment, SessionList. Refused: the node's status and text. */
enum mr_status question_sessions(struct link *link, uint64_t session_id, uint64_t deadline);

#endif
