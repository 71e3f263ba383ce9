/* SPDX-License-Identifier: Apache-2.0 */
/* Unanswered requests on their way from a channel that is gone into the next. */
#ifndef IPC_CLIENT_CARRY_H
#define IPC_CLIENT_CARRY_H

#include "ipc/client/client.h"

/* The link's channel is gone, but its rings are still mapped: takes every open request out of them. */
void carry_over(struct link *link);
/* Sends them in the link's new channel, as far as there is room; to be called until nothing is left. */
void carry_send(struct link *link);
/* Nothing else may be sent before. */
static inline bool carry_is_left(const struct link *link)
{
    return link->carried_next < link->carried_end;
}
/* The node that came back serves another directory: all of them end, but what asks for a session. */
void carry_end_strangers(struct link *link);

#endif
