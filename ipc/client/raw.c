/* SPDX-License-Identifier: Apache-2.0 */
/* The caller's own bytes: a reservation is room in the request ring, a commit a request like any other, whose answers
 * are not read but handed on. A command is looked at once, for its session, service and number; a query, and a command
 * without a number, is copied: that is what sending again to a new worker or node takes. */
#include "ipc/client/connection.h"
#include "ipc/client/link.h"
#include "ipc/client/request.h"
#include "proto/reader.h"

#include <millrace/raw.h>

#include <xxhash.h>

#include <inttypes.h>

enum mr_status mr_reserve(struct mr_client *client, uint32_t partition, enum mr_kind kind, int64_t time_limit_ns,
                          size_t capacity, void **body)
{
    uint8_t *at;
    enum mr_status status = client_enter(client);

    if (status != MR_OK)
        return status;
    if (body == NULL || (kind != MR_COMMAND && kind != MR_QUERY) || time_limit_ns < 0)
        return client_fail(client, MR_INVALID, "mr_reserve: body %p, kind %d, time limit %" PRIi64 " ns", (void *)body,
                           (int)kind, time_limit_ns);
    struct link *link;
    if ((status = connection_link(client, partition, &link)) != MR_OK)
        return status;
    if (link->stage != LINK_OPEN && !link->reopening) {
        if (client->in_callback)
            return client_fail(client, MR_INVALID, "a callback may not open the channel to partition %" PRIu32,
                               partition);
        status = connection_wait_open(link, client_deadline(client));
        if (status != MR_OK)
            return status;
    }
    if (client->requests.alive >= MR_REQUESTS_MAX)
        return client_fail_with(client, MR_AGAIN, "too many requests are open: mr_run(), then again");
    status = link_begin(link, capacity, &at);
    if (status != MR_OK)
        return status;
    client->reserved = link;
    client->reserved_body = at;
    client->reserved_capacity = capacity;
    client->reserved_kind = (uint8_t)kind;
    client->reserved_time_limit = (uint64_t)time_limit_ns;
    *body = at;
    return MR_OK;
}

static struct link *take_reservation(struct mr_client *client)
{
    struct link *link = client != NULL ? client->reserved : NULL;

    if (link != NULL)
        client->reserved = NULL;
    return link;
}

/* What a repeat of the command needs, if it is one with a number. */
static void note_number(struct request *request, const uint8_t *body, size_t size)
{
    struct partition_command_input input;

    if (read_partition_command_input(body, size, &input) != READ_OK || !input.has_command ||
        input.command.kind != COMMAND_SESSION_COMMAND || input.command.session_kind != SESSION_COMMAND_SERVICE_COMMAND)
        return;
    request->session_id = input.command.session_id;
    request->service_id = input.command.service_id;
    request->sequence_num = input.command.sequence_num;
}

enum mr_status mr_commit(struct mr_client *client, size_t size, struct mr_then then, uint64_t *request_id)
{
    struct link *link = take_reservation(client);
    enum mr_status status = client_enter(client);

    if (status != MR_OK)
        return status;
    if (link == NULL || size > client->reserved_capacity)
        return client_fail_with(client, MR_INVALID,
                                link == NULL ? "mr_commit() without a reservation"
                                             : "mr_commit() of more than was reserved");
    struct request *request = request_new(client);
    if (request == NULL) /* mr_reserve() saw room */
        return client_out_of_memory(client);
    request->kind = client->reserved_kind;
    request->session_id = 0;
    if (request->kind == FRAME_COMMAND)
        note_number(request, client->reserved_body, size);
    if (request->sequence_num == 0 && (status = request_keep(client, request, client->reserved_body, size)) != MR_OK) {
        request_free(client, request);
        return status;
    }
    request->then = then;
    request->answer = ANSWER_RAW;
    request->outstanding = true;
    request->time_limit = client->reserved_time_limit;
    if (request_id != NULL)
        *request_id = request->id;
    link_commit(link, request, size);
    return MR_OK;
}

void mr_discard(struct mr_client *client)
{
    (void)take_reservation(client);
}

enum mr_status mr_partition_of(const struct mr_client *client, const char *name_space, const char *name,
                               uint32_t *partition)
{
    XXH3_state_t *state;

    if (client == NULL || client->partitions == 0 || name == NULL || partition == NULL)
        return MR_INVALID;
    if (name_space == NULL)
        name_space = client->options.name_space;
    state = XXH3_createState();
    if (state == NULL)
        return MR_NO_MEMORY;
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, name_space, strlen(name_space) + 1);
    XXH3_64bits_update(state, name, strlen(name));
    *partition = 1 + (uint32_t)(XXH3_64bits_digest(state) % client->partitions);
    XXH3_freeState(state);
    return MR_OK;
}

uint32_t mr_partitions(const struct mr_client *client)
{
    return client != NULL ? client->partitions : 0;
}

size_t mr_max_payload(const struct mr_client *client)
{
    if (client == NULL)
        return 0;
    uint64_t most = client->ring_bytes > 0 ? client->ring_bytes / 4 : client->max_payload;
    return (size_t)(most < client->max_payload ? most : client->max_payload);
}
