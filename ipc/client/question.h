/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the supervisor but channels. */
#ifndef IPC_CLIENT_QUESTION_H
#define IPC_CLIENT_QUESTION_H

#include "ipc/client/client.h"

/* Asks for the node's Status and waits for it: client->status. */
enum mr_status question_status(struct mr_client *client, uint64_t deadline);

/* Attaches to a session in the link's partition, or (session_id 0) asks for the list of the partition's sessions;
 * waits. What comes is client->memory: an encoded Attachment, SessionList. Refused: the node's status and text. */
enum mr_status question_sessions(struct link *link, uint64_t session_id, uint64_t deadline);
/* Has the link's partition take a snapshot, and waits: client->memory is an encoded SnapshotReport. */
enum mr_status question_snapshot(struct link *link, uint64_t deadline);

#endif
