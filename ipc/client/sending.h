/* SPDX-License-Identifier: Apache-2.0 */
/* Which request was sent at which position: the link's queue of sendings, in order of position. */
#ifndef IPC_CLIENT_SENDING_H
#define IPC_CLIENT_SENDING_H

#include "ipc/client/request.h"

static inline struct sending *sending_at(const struct link *link, uint64_t number)
{
    return &link->sendings[number & (link->sendings_capacity - 1)];
}

/* The request that a sending belongs to; NULL if that is over. */
static inline struct request *sending_request(const struct link *link, const struct sending *sending)
{
    struct request *request = &link->client->requests.table[sending->place];
    return request->generation == sending->generation ? request : NULL;
}

/* Room for one more? If not, sending_make_room(): moves those that are still needed together, into more memory if they
 * are many. Numbers of sendings mean nothing after that, but for those that the link itself notes. */
static inline bool sending_is_full(const struct link *link)
{
    return link->end - link->first == link->sendings_capacity;
}
enum mr_status sending_make_room(struct link *link);

/* Notes that a request was sent at request->position, behind all others. */
static inline void sending_add(struct link *link, const struct request *request)
{
    *sending_at(link, link->end++) = (struct sending){.position = request->position,
                                                      .place = request_place(link->client, request),
                                                      .generation = request->generation};
}
/* The number of what was sent at a position, wherever it stands; link->end: nothing that is still known. */
uint64_t sending_search(const struct link *link, uint64_t position);
/* The request that was sent at a position; NULL: none that is still open. */
static inline struct request *sending_find(struct link *link, uint64_t position)
{
    uint64_t number = link->expect;

    if (number - link->first >= link->end - link->first || sending_at(link, number)->position != position) {
        number = sending_search(link, position);
        if (number == link->end)
            return NULL;
    }
    link->expect = number + 1;
    if (link->expect != link->end) /* most likely the next one to be met */
        __builtin_prefetch(&link->client->requests.table[sending_at(link, link->expect)->place]);
    return sending_request(link, sending_at(link, number));
}
/* The same for one of a frame that is for many, by its place in it. */
static inline struct request *sending_find_taker(struct link *link, unsigned place, uint64_t position)
{
    struct sending *taker = &link->takers[place];
    struct request *request = taker->position == position ? sending_request(link, taker) : NULL;

    if (request == NULL && (request = sending_find(link, position)) != NULL)
        *taker = (struct sending){position, request_place(link->client, request), request->generation};
    return request;
}
/* The request that sending_find() found last is over. */
static inline void sending_is_over(struct link *link)
{
    link->first += link->first + 1 == link->expect;
}
/* Steps over the oldest ones as far as they are done with: those that did not end in their order. */
void sending_forget_old(struct link *link);

#endif
