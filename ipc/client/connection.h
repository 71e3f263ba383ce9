/* SPDX-License-Identifier: Apache-2.0 */
/* The socket to the node's supervisor. */
#ifndef IPC_CLIENT_CONNECTION_H
#define IPC_CLIENT_CONNECTION_H

#include "ipc/client/client.h"
#include "millrace/v1/control.pb-c.h"

/* Connects and says hello. */
enum mr_status connection_open(struct mr_client *client);
/* Waits for the node's Welcome. MR_TIMEOUT and MR_CANCELED leave it to be waited for again. */
enum mr_status connection_wait_welcome(struct mr_client *client, uint64_t deadline);
void connection_close(struct mr_client *client);

/* The link to a partition, made if need be. MR_INVALID: there is no such partition; MR_NO_MEMORY; *out is NULL then. */
enum mr_status connection_link(struct mr_client *client, uint32_t partition, struct link **out);
/* Asks for its channel if that has not been done; does not wait. */
enum mr_status connection_ask(struct link *link);
/* Asks and waits until it is open. MR_TIMEOUT leaves it to be waited for again. */
enum mr_status connection_wait_open(struct link *link, uint64_t deadline);

/* What client->refused stands for, said anew. */
enum mr_status connection_refusal(struct mr_client *client);

/* A message to the supervisor. MR_NO_NODE: the connection has ended, which the next look at it says to all. */
enum mr_status connection_say(struct mr_client *client, const Millrace__V1__ClientMessage *message);
/* Reads what has come on the socket, without waiting. */
void connection_read(struct mr_client *client);

/* For reconnect.c. Connects and says hello, to a node that has been away; waits for nothing. */
int connection_again(struct mr_client *client, struct mr_error *error);
/* Closes the socket, and the descriptor that came with its Welcome. */
void connection_hang_up(struct mr_client *client);
/* Notes what the node says of itself. */
void connection_take_welcome(struct mr_client *client, const Millrace__V1__Welcome *welcome);
/* Asks for the next channel that is wanted, if it can be done now. */
void connection_ask_wanted(struct mr_client *client, uint64_t now);

#endif
