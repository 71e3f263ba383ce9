/* SPDX-License-Identifier: Apache-2.0 */
/* The table of requests: places that are used again, the latest freed first, so that a program with few requests open
 * touches little memory; a list by deadline (all have the same time limit, so the order of starting is the order of
 * deadlines); and the list of requests whose last result no frame brings, because they were cancelled, ran out of time,
 * or lost their node. Knows nothing of rings. */
#include "ipc/client/request.h"

#include "ipc/client/link.h"
#include "ipc/client/wait.h"
#include "ipc/sys.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PLACE_BITS 20
#define PLACE_MASK ((UINT64_C(1) << PLACE_BITS) - 1)
#define COPY_KEPT 256 /* a place keeps this much for the copies of queries; more is given back each time */

_Static_assert(MR_REQUESTS_MAX <= PLACE_MASK, "a place fits in an id");

enum mr_status requests_make(struct mr_client *client)
{
    struct requests *requests = &client->requests;
    void *table = sys_mmap(NULL, MR_REQUESTS_MAX * sizeof(struct request), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    *requests =
        (struct requests){.free = NONE, .ending_first = NONE, .ending_last = NONE, .oldest = NONE, .newest = NONE};
    if (table == MAP_FAILED)
        return client_out_of_memory(client);
    requests->table = table;
    return MR_OK;
}

void requests_free(struct mr_client *client)
{
    struct requests *requests = &client->requests;

    if (requests->table == NULL)
        return;
    for (uint32_t place = 0; place < requests->used; place++)
        free(requests->table[place].copy);
    (void)sys_munmap(requests->table, MR_REQUESTS_MAX * sizeof(struct request));
    requests->table = NULL;
}

/* ---- Places ---- */

static void enter_by_deadline(struct requests *requests, struct request *request, uint32_t place)
{
    request->older = requests->newest;
    request->newer = NONE;
    if (requests->newest != NONE)
        requests->table[requests->newest].newer = place;
    else
        requests->oldest = place;
    requests->newest = place;
    request->limited = true;
}

static void leave_by_deadline(struct requests *requests, struct request *request)
{
    if (request->older != NONE)
        requests->table[request->older].newer = request->newer;
    else
        requests->oldest = request->newer;
    if (request->newer != NONE)
        requests->table[request->newer].older = request->older;
    else
        requests->newest = request->older;
    request->limited = false;
}

struct request *request_new(struct mr_client *client)
{
    struct requests *requests = &client->requests;
    uint32_t place = requests->free;
    struct request *request;

    if (place != NONE) {
        request = &requests->table[place];
        requests->free = request->next;
    } else if (requests->used < MR_REQUESTS_MAX) {
        place = requests->used++;
        request = &requests->table[place];
        request->generation = 1;
    } else {
        return NULL;
    }
    request->id = (uint64_t)request->generation << PLACE_BITS | place;
    request->state = REQUEST_OPEN;
    request->sequence_num = 0;
    request->output = 0;
    request->service = NULL;
    request->outstanding = false;
    request->sent_again = false;
    request->send_later = false;
    request->answered = false;
    request->limited = false;
    request->copied = false;
    request->streams = false;
    request->counted = false;
    request->carried = false;
    if (client->options.call_timeout_ns > 0) {
        request->deadline = client_deadline(client);
        enter_by_deadline(requests, request, place);
    }
    requests->alive++;
    return request;
}

void request_free(struct mr_client *client, struct request *request)
{
    struct requests *requests = &client->requests;

    if (request->limited)
        leave_by_deadline(requests, request);
    if (request->state == REQUEST_OPEN && request->outstanding)
        requests->outstanding--;
    if (request->service != NULL)
        request->service->outstanding--;
    if (request->copied && request->copy_capacity > COPY_KEPT) {
        free(request->copy);
        request->copy = NULL;
        request->copy_capacity = 0;
    }
    request->state = REQUEST_FREE;
    request->id = 0;
    request->generation += request->generation == UINT32_MAX ? 2 : 1; /* 0 would make the id 0 */
    request->next = requests->free;
    requests->free = request_place(client, request);
    requests->alive--;
}

void request_unlimit(struct mr_client *client, struct request *request)
{
    if (request->limited)
        leave_by_deadline(&client->requests, request);
}

enum mr_status request_keep(struct mr_client *client, struct request *request, const uint8_t *body, size_t size)
{
    if (size > request->copy_capacity) {
        size_t capacity = size < COPY_KEPT ? COPY_KEPT : size;
        uint8_t *copy = realloc(request->copy, capacity);
        if (copy == NULL)
            return client_out_of_memory(client);
        request->copy = copy;
        request->copy_capacity = (uint32_t)capacity;
    }
    if (size > 0)
        memcpy(request->copy, body, size);
    request->copied = true;
    request->size = (uint32_t)size;
    return MR_OK;
}

struct request *request_find(struct mr_client *client, uint64_t id)
{
    uint64_t place = id & PLACE_MASK;
    struct request *request = &client->requests.table[place];

    if (id == 0 || place >= client->requests.used || request->id != id || request->state != REQUEST_OPEN)
        return NULL;
    return request;
}

/* ---- Ends that no frame brings ---- */

void request_end_soon(struct mr_client *client, struct request *request, enum mr_status status)
{
    struct requests *requests = &client->requests;
    uint32_t place = request_place(client, request);

    if (request->limited)
        leave_by_deadline(requests, request);
    request->state = REQUEST_ENDING;
    request->end = (uint8_t)status;
    request->next = NONE;
    if (requests->ending_last != NONE)
        requests->table[requests->ending_last].next = place;
    else
        requests->ending_first = place;
    requests->ending_last = place;
}

static void forsaken(struct mr_client *client, const struct mr_result *result)
{
    (void)client;
    (void)result;
}

void request_forsake(struct mr_client *client, uint64_t id, enum mr_status status)
{
    struct request *request = &client->requests.table[id & PLACE_MASK];

    if (request->id != id)
        return;
    request->then = (struct mr_then){forsaken, NULL};
    if (request->state == REQUEST_OPEN)
        request_end_soon(client, request, status);
}

void requests_end_all(struct mr_client *client, const struct link *link, enum mr_status status)
{
    for (uint32_t place = 0; place < client->requests.used; place++) {
        struct request *request = &client->requests.table[place];
        if (link != NULL && request->link != link)
            continue;
        if (request->state == REQUEST_OPEN)
            request_end_soon(client, request, status);
        else if (request->state == REQUEST_ABANDONED && status != MR_CANCELED)
            request_free(client, request); /* its last frame will not come */
    }
}

void requests_expire(struct mr_client *client, uint64_t now)
{
    struct requests *requests = &client->requests;

    while (requests->oldest != NONE && requests->table[requests->oldest].deadline <= now)
        request_end_soon(client, &requests->table[requests->oldest], MR_TIMEOUT);
}

uint64_t requests_first_deadline(const struct mr_client *client)
{
    const struct requests *requests = &client->requests;
    return requests->oldest == NONE ? NEVER : requests->table[requests->oldest].deadline;
}

static struct mr_bytes why_ended(const struct mr_client *client, const struct request *request)
{
    switch ((enum mr_status)request->end) {
    case MR_CANCELED:
        return mr_text(request->kind == FRAME_COMMAND ? "canceled here; the command may be applied all the same"
                                                      : "canceled here");
    case MR_TIMEOUT:
        return mr_text(request->kind == FRAME_COMMAND
                           ? "no answer within call_timeout_ns; the command may have been applied, or may be later"
                           : "no answer within call_timeout_ns");
    case MR_NO_NODE:
        return mr_text(client->gone_text);
    case MR_SESSION_LOST:
    case MR_FORBIDDEN:
        return mr_text(client->stranger_text);
    case MR_INVALID:
        return mr_text("the node came back, and takes only smaller requests now (--max-payload, --ring-bytes); a "
                       "command may have been applied before");
    case MR_NO_MEMORY:
        return mr_text("no memory to keep the request while the node is away; a command may have been applied");
    default:
        if (request->link->stage == LINK_CLOSED)
            return mr_text(request->link->why);
        return mr_text("the node or the partition's worker died while it answered, and had given some: ask again");
    }
}

/* False if there is no room to keep the result, which then stays due. */
static bool end_first(struct mr_client *client)
{
    struct requests *requests = &client->requests;
    struct request *request = &requests->table[requests->ending_first];
    struct mr_then then = request->then;
    struct mr_result result = {.status = (enum mr_status)request->end,
                               .last = true,
                               .request = request->id,
                               .arg = then.arg,
                               .message = why_ended(client, request)};

    if (then.done == NULL && !client_may_keep(client, NULL))
        return false;
    requests->ending_first = request->next;
    if (requests->ending_first == NONE)
        requests->ending_last = NONE;
    if (request->outstanding) {
        requests->outstanding--;
        client->met++;
    }
    if (request->carried && !request->answered)
        link_give_up(request->link, request); /* what is not sent again will not be answered */
    if (request->answered || client->gone || request->link->stage != LINK_OPEN)
        request_free(client, request);
    else
        request->state = REQUEST_ABANDONED;
    client_give(client, then, &result, NULL, 0);
    return true;
}

void requests_end_due(struct mr_client *client)
{
    struct requests *requests = &client->requests;

    /* A callback may make more of them: those are for the next run. */
    uint32_t last = requests->ending_last;
    while (requests->ending_first != NONE) {
        uint32_t place = requests->ending_first;
        if (!end_first(client) || place == last)
            return;
    }
}
