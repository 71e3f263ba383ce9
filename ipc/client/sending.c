/* SPDX-License-Identifier: Apache-2.0 */
/* Which request was sent at which position. Positions only grow, so the sendings of a link form a queue that is sorted:
 * the frame that comes next mostly answers the one behind the last, and any other is found by halving. A sending whose
 * request is over stays as a gap until it is the oldest, or until room is made: so one request that stays open for long
 * holds up nothing. Knows nothing of frames. */
#include "ipc/client/sending.h"

#include <stdlib.h>

#define SENDINGS_AT_FIRST 1024 /* a power of two */

/* Is an answer to it needed? Not if the request is over, nor if it was sent again since: the later one is answered,
 * too. */
static bool is_latest(const struct link *link, const struct sending *sending)
{
    const struct request *request = sending_request(link, sending);
    return request != NULL && request->position == sending->position;
}

enum mr_status sending_make_room(struct link *link)
{
    uint64_t alive = 0;

    sending_forget_old(link);
    if (!sending_is_full(link))
        return MR_OK;
    for (uint64_t number = link->first; number != link->end; number++)
        alive += is_latest(link, sending_at(link, number));
    uint64_t capacity = link->sendings_capacity == 0 ? SENDINGS_AT_FIRST : link->sendings_capacity;
    while (alive > capacity / 2)
        capacity *= 2;
    struct sending *sendings = malloc(capacity * sizeof(*sendings));
    if (sendings == NULL)
        return client_out_of_memory(link->client);

    uint64_t kept = 0;
    uint64_t again_next = 0;
    uint64_t again_end = 0;
    for (uint64_t number = link->first; number != link->end; number++) {
        struct sending *sending = sending_at(link, number);
        if (!is_latest(link, sending))
            continue;
        sendings[kept++] = *sending;
        again_next += number < link->again_next;
        again_end += number < link->again_end;
    }
    free(link->sendings);
    link->sendings = sendings;
    link->sendings_capacity = capacity;
    link->first = 0;
    link->expect = 0;
    link->end = kept;
    link->again_next = again_next;
    link->again_end = again_end;
    return MR_OK;
}

uint64_t sending_search(const struct link *link, uint64_t position)
{
    uint64_t low = link->first;
    uint64_t high = link->end;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (sending_at(link, middle)->position < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low != link->end && sending_at(link, low)->position == position ? low : link->end;
}

void sending_forget_old(struct link *link)
{
    while (link->first != link->end && sending_request(link, sending_at(link, link->first)) == NULL)
        link->first++;
}
