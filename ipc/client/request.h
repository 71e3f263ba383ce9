/* SPDX-License-Identifier: Apache-2.0 */
/* The table of requests of one handle. Knows nothing of rings. */
#ifndef IPC_CLIENT_REQUEST_H
#define IPC_CLIENT_REQUEST_H

#include "ipc/client/client.h"

enum mr_status requests_make(struct mr_client *client);
void requests_free(struct mr_client *client);

/* A place for a new request, REQUEST_OPEN with nothing but its id and deadline set; NULL: MR_REQUESTS_MAX are open. */
struct request *request_new(struct mr_client *client);
/* The place is free again; the request's id, and its generation, mean nothing any more. */
void request_free(struct mr_client *client, struct request *request);
/* It may stay open for ever. */
void request_unlimit(struct mr_client *client, struct request *request);
/* Keeps a copy of the body, of a query or of a command without a number: for sending it again. */
enum mr_status request_keep(struct mr_client *client, struct request *request, const uint8_t *body, size_t size);

static inline uint32_t request_place(const struct mr_client *client, const struct request *request)
{
    return (uint32_t)(request - client->requests.table);
}
/* By what the caller knows; NULL: no such request is open, as far as the caller is concerned. */
struct request *request_find(struct mr_client *client, uint64_t id);

/* Its last result will be `status`, given by the next requests_end_due(). */
void request_end_soon(struct mr_client *client, struct request *request, enum mr_status status);
/* The same, without anyone being given the result. */
void request_forsake(struct mr_client *client, uint64_t id, enum mr_status status);
/* request_end_soon() for all open requests, of one link or (NULL) of all. */
void requests_end_all(struct mr_client *client, const struct link *link, enum mr_status status);
/* Those whose deadline is not after `now`, with MR_TIMEOUT. */
void requests_expire(struct mr_client *client, uint64_t now);
/* Gives the last results that are due. */
void requests_end_due(struct mr_client *client);
/* The deadline that comes first, or NEVER. */
uint64_t requests_first_deadline(const struct mr_client *client);

#endif
