/* SPDX-License-Identifier: Apache-2.0 */
/* The channel to one partition. */
#ifndef IPC_CLIENT_LINK_H
#define IPC_CLIENT_LINK_H

#include "ipc/client/client.h"

/* Takes a freshly mapped channel into use. */
void link_attach(struct link *link);
void link_free(struct link *link);

/* Sending, in two steps. link_begin() makes sure that a request with a body of `size` bytes can be sent, and says
 * where the body goes: MR_OK, MR_AGAIN, or why never. link_commit() sends what has been written there; it does not
 * fail. */
enum mr_status link_begin(struct link *link, size_t size, uint8_t **body);
void link_commit(struct link *link, struct request *request, size_t size);

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
