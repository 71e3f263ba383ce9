/* SPDX-License-Identifier: Apache-2.0 */
/* The channel to one partition. */
#ifndef IPC_CLIENT_LINK_H
#define IPC_CLIENT_LINK_H

#include "ipc/client/client.h"

/* Takes a freshly mapped channel into use. */
void link_attach(struct link *link);
void link_free(struct link *link);
/* The link is of no more use: what is open on it ends with MR_UNAVAILABLE. */
void link_close(struct link *link, const char *why);
/* Notes that it is to have another channel, or has it. */
void link_reopens(struct link *link, bool reopening);

/* Sending, in two steps. link_begin() makes sure that a request with a body of `size` bytes can be sent, and says
 * where the body goes: MR_OK, MR_AGAIN, or why never. link_commit() sends what has been written there; it does not
 * fail. */
enum mr_status link_begin(struct link *link, size_t size, uint8_t **body);
void link_commit(struct link *link, struct request *request, size_t size);

/* Sends a request once more: as it was, or, without a copy, its number. MR_AGAIN: no room now. */
enum mr_status link_repeat(struct link *link, struct request *request);
/* May it be? Not a query that has given a part of its answers: it ends. */
bool link_may_repeat(struct request *request);
/* It will not be sent again: counts its number as answered, and frees its place unless its end is still to be given. */
void link_give_up(struct link *link, struct request *request);

/* Makes what was sent visible, waking the worker if it sleeps. */
void link_flush(struct link *link);
/* Meets the answers that are there and sends again what has to be. */
void link_run(struct link *link);
/* Gives the response ring back to the worker as far as nobody looks at it any more. */
void link_release(struct link *link);
/* The same up to a position that is known to be free. */
void link_release_to(struct link *link, uint64_t position);
/* Has something to be sent again and cannot now: look again in a moment, nothing will wake us for it. */
bool link_is_stuck(const struct link *link);
/* Something the sleep flag does not tell of: a new worker, or the channel's end. */
bool link_has_news(const struct link *link);

#endif
