/* SPDX-License-Identifier: Apache-2.0 */
/* Where results go: to their request's callback, or into a queue for mr_take().
 *
 * What a result points to stands in the response ring, which can be given back to the worker only up to the first frame
 * that someone still looks at: a result that waits to be taken, and the one that the last call gave out, which is
 * pinned until the next call. Results without bytes (a number, mostly) hold nothing.
 *
 * mr_run() stops meeting results for mr_take() once they hold half of a ring. A call that waits for an answer behind
 * them cannot stop: it copies them aside, at the latest when it goes to sleep. What that takes is bounded by what the
 * caller has open. */
#include "ipc/client/wait.h"

#include "ipc/client/link.h"

#include <stdlib.h>

static struct waiting *waiting_at(const struct mr_client *client, uint64_t number)
{
    return &client->waiting[number & (client->waiting_capacity - 1)];
}

static bool grow_waiting(struct mr_client *client)
{
    uint64_t capacity = client->waiting_capacity == 0 ? 256 : 2 * client->waiting_capacity;
    struct waiting *waiting = malloc(capacity * sizeof(*waiting));

    if (waiting == NULL)
        return false;
    uint64_t count = client->waiting_end - client->waiting_first;
    for (uint64_t i = 0; i < count; i++)
        waiting[i] = *waiting_at(client, client->waiting_first + i);
    free(client->waiting);
    client->waiting = waiting;
    client->waiting_capacity = capacity;
    client->waiting_first = 0;
    client->waiting_end = count;
    return true;
}

/* Lets `bytes` point into a copy of what it points into. */
static void move_bytes(struct mr_bytes *bytes, const uint8_t *from, size_t size, uint8_t *to)
{
    const uint8_t *data = bytes->data;
    if (bytes->size > 0 && data >= from && data < from + size)
        bytes->data = to + (data - from);
}

void client_set_aside(struct mr_client *client, struct link *link)
{
    for (uint64_t number = client->waiting_first; number != client->waiting_end; number++) {
        struct waiting *waiting = waiting_at(client, number);
        if (waiting->link != link)
            continue;
        const uint8_t *from = link->responses.data + ((waiting->end - waiting->size) & (link->responses.capacity - 1));
        waiting->aside = malloc(waiting->size);
        if (waiting->aside == NULL)
            return; /* it keeps the ring; the call waits until memory or time runs out */
        ring_copy(waiting->aside, from, waiting->size);
        move_bytes(&waiting->result.message, from, waiting->size, waiting->aside);
        move_bytes(&waiting->result.as.entry.key, from, waiting->size, waiting->aside);
        move_bytes(&waiting->result.as.entry.value, from, waiting->size, waiting->aside);
        waiting->link = NULL;
        link->held--;
    }
    link_release(link);
}

bool client_may_keep(struct mr_client *client, struct link *link)
{
    uint64_t count = client->waiting_end - client->waiting_first;

    if (count >= MR_REQUESTS_MAX && !client->may_set_aside)
        return false;
    if (count == client->waiting_capacity && !grow_waiting(client))
        return false;
    if (link == NULL || link->responses.head - link->responses.released <= link->responses.capacity / 2)
        return true;
    if (client->may_set_aside)
        client_set_aside(client, link);
    else
        link_release(link);
    return client->may_set_aside || link->held == 0;
}

/* Numbers are in the result itself; it has bytes in the ring if one of these is not empty (`as` is zero where unused).
 */
static bool has_bytes(const struct mr_result *result)
{
    return (result->message.size | result->as.entry.key.size | result->as.entry.value.size) != 0;
}

void client_pin(struct mr_client *client, const struct mr_result *result, struct link *link, uint64_t size)
{
    client->pin = false;
    client_unpin(client);
    if (link == NULL || !has_bytes(result))
        return;
    client->pinned = (struct waiting){.link = link, .end = link->responses.head, .size = size};
    client->pinned_in_order = link->held == 0;
    link->held++;
}

void client_unpin(struct mr_client *client)
{
    struct link *link = client->pinned.link;

    if (link != NULL) {
        client->pinned.link = NULL;
        link->held--;
        if (link->held == 0)
            link_release(link);
        else if (client->pinned_in_order)
            link_release_to(link, client->pinned.end);
    }
    if (client->pinned.aside != NULL) {
        free(client->pinned.aside);
        client->pinned.aside = NULL;
    }
}

void client_keep(struct mr_client *client, const struct mr_result *result, struct link *link, uint64_t size)
{
    struct waiting *waiting = waiting_at(client, client->waiting_end++);
    bool bytes = link != NULL && has_bytes(result);

    waiting->result = *result;
    waiting->link = bytes ? link : NULL;
    waiting->end = bytes ? link->responses.head : 0;
    waiting->size = size;
    waiting->aside = NULL;
    if (bytes)
        link->held++;
}

void client_free_waiting(struct mr_client *client)
{
    free(client->pinned.aside);
    for (; client->waiting_first != client->waiting_end; client->waiting_first++)
        free(waiting_at(client, client->waiting_first)->aside);
    free(client->waiting);
}

enum mr_status mr_take(struct mr_client *client, struct mr_result *result)
{
    enum mr_status status = client_enter_alone(client);

    if (status != MR_OK)
        return status;
    if (result == NULL)
        return client_fail_with(client, MR_INVALID, "result may not be NULL");
    if (client->waiting_first == client->waiting_end)
        client_run_once(client);
    if (client->waiting_first == client->waiting_end)
        return client->gone ? client_fail_with(client, MR_NO_NODE, client->gone_text)
                            : client_fail_with(client, MR_AGAIN, "no result waits");
    struct waiting *waiting = waiting_at(client, client->waiting_first++);
    *result = waiting->result;
    if (waiting->link != NULL || waiting->aside != NULL) {
        client->pinned = *waiting;
        client->pinned_in_order = true; /* those before it have been taken */
    }
    return MR_OK;
}
