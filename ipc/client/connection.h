/* SPDX-License-Identifier: Apache-2.0 */
/* The socket to the node's supervisor. */
#ifndef IPC_CLIENT_CONNECTION_H
#define IPC_CLIENT_CONNECTION_H

#include "ipc/client/client.h"

/* Connects and says hello. */
enum mr_status connection_open(struct mr_client *client);
/* Waits for the node's Welcome. MR_TIMEOUT and MR_CANCELED leave it to be waited for again. */
enum mr_status connection_wait_welcome(struct mr_client *client, uint64_t deadline);
void connection_close(struct mr_client *client);

/* The link to a partition, made if need be; NULL with a message if there is no such partition or no memory. */
struct link *connection_link(struct mr_client *client, uint32_t partition);
/* Asks for its channel if that has not been done; does not wait. */
enum mr_status connection_ask(struct link *link);
/* Asks and waits until it is open. MR_TIMEOUT leaves it to be waited for again. */
enum mr_status connection_wait_open(struct link *link, uint64_t deadline);

/* Asks for the node's Status and waits for it: client->status. */
enum mr_status connection_ask_status(struct mr_client *client, uint64_t deadline);

/* Attaches to a session in the link's partition, or (session_id 0) asks for the list of the partition's sessions;
 * waits. What comes is client->memory: an encoded Attachment, SessionList. Refused: the node's status and text. */
enum mr_status connection_ask_sessions(struct link *link, uint64_t session_id, uint64_t deadline);

/* Reads what has come on the socket, without waiting. */
void connection_read(struct mr_client *client);
/* The node is gone: all that is open ends with MR_NO_NODE, the text being given. */
void connection_lost(struct mr_client *client, const char *text);

#endif
