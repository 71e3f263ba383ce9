/* SPDX-License-Identifier: Apache-2.0 */
/* Unanswered requests, across the end of a node. Its channels end with it; what stood in them is in the log or it is
 * not, and the client cannot know. So everything is sent again in the next channel, under the same numbers and in the
 * order in which it was started, before anything new: what the node has already, it answers with what is stored.
 *
 * What is sent again is the whole request, for the node may never have seen it. Queries and commands without a number
 * keep a copy of their body from the start. The body of a numbered command is copied out of the old ring, where it
 * stands until the client itself writes over it; that it can only do once a worker has moved the ring's head past it,
 * which is when the command is applied and its outputs are kept in the session. Then its number is enough.
 *
 * A request that nobody waits for any more (cancelled, out of time) is not sent again. Its number counts as answered,
 * so that the next KeepAlive gives it up. An OpenSession may be done twice that way; the session that nobody has got to
 * know ends by its timeout. */
#include "ipc/client/carry.h"

#include "ipc/client/link.h"
#include "ipc/client/request.h"
#include "ipc/client/sending.h"
#include "ipc/client/stream.h"

#include <stdlib.h>

/* Its end is given with the next run; nothing of it is sent any more. */
static void end(struct link *link, struct request *request, enum mr_status status)
{
    if (request->state == REQUEST_OPEN)
        request_end_soon(link->client, request, status);
    link_give_up(link, request);
}

/* Sees to it that the body is kept. False: no memory. */
static bool keep_body(struct link *link, struct request *request)
{
    const struct ring_writer *ring = &link->requests;

    if (request->copied || ring->tail - request->position > ring->capacity)
        return true;
    const uint8_t *frame = ring->data + (request->position & (ring->capacity - 1));
    return request_keep(link->client, request, frame + sizeof(struct request_head), request->size) == MR_OK;
}

static void take(struct link *link, struct request *request, struct sending *carried, uint64_t *count)
{
    if (request->state != REQUEST_OPEN || !link_may_repeat(request)) {
        link_give_up(link, request);
    } else if (carried == NULL || (!request->carried && !keep_body(link, request))) {
        end(link, request, MR_NO_MEMORY);
    } else {
        request->carried = true;
        request->send_later = false;
        carried[(*count)++] =
            (struct sending){.place = request_place(link->client, request), .generation = request->generation};
    }
}

void carry_over(struct link *link)
{
    uint64_t most = link->end - link->first + link->carried_end - link->carried_next;
    struct sending *carried = malloc((most > 0 ? most : 1) * sizeof(*carried));
    uint64_t count = 0;

    for (uint64_t number = link->first; number != link->end; number++) {
        const struct sending *sending = sending_at(link, number);
        struct request *request = sending_request(link, sending);
        if (request != NULL && request->position == sending->position && !request->carried && !request->answered)
            take(link, request, carried, &count);
    }
    /* Those that the channel was not open for long enough to take. */
    for (uint64_t number = link->carried_next; number != link->carried_end; number++) {
        struct request *request = sending_request(link, &link->carried[number]);
        if (request != NULL && request->carried)
            take(link, request, carried, &count);
    }
    free(link->carried);
    link->carried = carried;
    link->carried_next = 0;
    link->carried_end = count;
    link->first = link->end = link->expect = 0;
    link->again_next = link->again_end = link->again_head = 0;
    link->retry_at = NEVER;
    link->close_at = NEVER;
}

/* False: no room now, or the link is closed. */
static bool send_one(struct link *link, struct request *request)
{
    if (request->state != REQUEST_OPEN) {
        link_give_up(link, request);
        return true;
    }
    if (request->size > link->size_max) {
        end(link, request, MR_INVALID); /* the node takes less than before */
        return true;
    }
    if (link_repeat(link, request) != MR_OK)
        return false;
    request->carried = false;
    request->sent_again = true;
    if (request->streams)
        stream_sent_again(request);
    return true;
}

void carry_send(struct link *link)
{
    for (; carry_is_left(link); link->carried_next++) {
        struct request *request = sending_request(link, &link->carried[link->carried_next]);
        if (request != NULL && request->carried && !send_one(link, request))
            return;
    }
    free(link->carried);
    link->carried = NULL;
    link->carried_next = link->carried_end = 0;
}

/* A session's id means nothing in another directory, or somebody else's session. Of one's own bytes it is not known
 * what they mean. */
static bool means_the_same(const struct request *request)
{
    return request->answer == ANSWER_ID && request->session_id == 0;
}

void carry_end_strangers(struct link *link)
{
    for (uint64_t number = link->carried_next; number != link->carried_end; number++) {
        struct request *request = sending_request(link, &link->carried[number]);
        if (request == NULL || !request->carried || request->state != REQUEST_OPEN || means_the_same(request))
            continue;
        bool own = request->kind == FRAME_COMMAND && request->sequence_num == 0 && request->answer != ANSWER_RAW;
        end(link, request, own ? MR_FORBIDDEN : MR_SESSION_LOST); /* to its own, what the node would have said */
    }
}
