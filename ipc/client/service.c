/* SPDX-License-Identifier: Apache-2.0 */
/* Services: opening finds the partition by the name's hash, makes the channel, the session and the service as they are
 * missing; handles on the same service share one opening. Starting an operation encodes the frame's body in the ring:
 * the messages around it here, its payload by the service type's own function, in one pass because all sizes are known
 * first.
 *
 * Commands take the session's next number only once nothing can fail any more, so the numbers have no gaps. Queries
 * carry the highest index met and `sync`. */
#include "ipc/client/service.h"

#include "ipc/client/connection.h"
#include "ipc/client/link.h"
#include "ipc/client/renew.h"
#include "ipc/client/request.h"
#include "ipc/client/session.h"
#include "ipc/client/stream.h"
#include "ipc/client/wait.h"
#include "proto/reader.h"
#include "proto/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* A query that may wait for ever gets a time limit from which nothing overflows: a year. */
#define NO_TIME_LIMIT (365 * 24 * MR_HOUR)

/* ---- Operations ---- */

static uint64_t time_limit(const struct mr_client *client)
{
    uint64_t limit = (uint64_t)client->options.call_timeout_ns;
    return limit > 0 && limit < NO_TIME_LIMIT ? limit : NO_TIME_LIMIT;
}

static enum mr_status not_in_session(struct mr_client *client, const struct service *service)
{
    const struct session *session = &service->link->session;

    if (client->gone)
        return client_fail_with(client, MR_NO_NODE, client->gone_text);
    return client_fail(client, MR_SESSION_LOST, "the session in partition %" PRIu32 " was lost (%s): open %s anew",
                       service->link->partition, session->lost ? session->why : "another one has been opened since",
                       service->name);
}

static enum mr_status too_many(struct mr_client *client)
{
    return client_fail_with(client, MR_AGAIN, "too many requests are open: mr_run(), then again");
}

static enum mr_status start_command(struct service *service, const struct operation *operation, const void *arguments,
                                    size_t payload, struct request **out)
{
    struct link *link = service->link;
    struct session *session = &link->session;
    uint8_t *body;

    if (!session_may_number(session))
        return too_many(link->client);
    size_t size = service_command_size(&service->command, operation->name, payload, session->next);
    enum mr_status status = link_begin(link, size, &body);
    if (status != MR_OK)
        return status;
    struct request *request = request_new(link->client);
    if (request == NULL)
        return too_many(link->client);
    body = service_command_write(body, &service->command, session->next);
    if (payload > 0)
        operation->write(arguments, body);
    request->session_id = session->id;
    request->service_id = service->id;
    request->sequence_num = session->next++;
    request->time_limit = 0;
    request->size = (uint32_t)size;
    *out = request;
    return MR_OK;
}

static enum mr_status start_query(struct service *service, const struct operation *operation, const void *arguments,
                                  size_t payload, struct request **out)
{
    struct link *link = service->link;
    struct partition_query_input input = {.partition_id = link->partition,
                                          .sync = true,
                                          .has_query = true,
                                          .max_received_index = link->max_index,
                                          .query_members = 1,
                                          .session_query_members = 1,
                                          .session_id = link->session.id,
                                          .service_id = service->id,
                                          .operation = {operation->name, {NULL, payload}}};
    struct query_input_sizes sizes = query_input_sizes(&input);
    uint8_t *body;
    enum mr_status status = link_begin(link, sizes.whole, &body);

    if (status != MR_OK)
        return status;
    struct request *request = request_new(link->client);
    if (request == NULL)
        return too_many(link->client);
    uint8_t *end = write_query_input_sized(body, &input, &sizes);
    if (payload > 0)
        operation->write(arguments, end);
    status = request_keep(link->client, request, body, sizes.whole);
    if (status != MR_OK) {
        request_free(link->client, request);
        return status;
    }
    request->time_limit = time_limit(link->client);
    *out = request;
    return MR_OK;
}

enum mr_status service_start(struct handle *handle, const struct operation *operation, const void *arguments,
                             struct mr_then then, uint64_t *request_id)
{
    if (handle == NULL)
        return MR_INVALID;
    struct mr_client *client = handle->client;
    enum mr_status status = client_enter(client);
    if (status != MR_OK)
        return status;
    struct service *service = handle->service;
    if (service == NULL)
        return client_fail_with(client, MR_INVALID, "it is being closed");
    struct link *link = service->link;
    struct request *request = NULL;
    if (service->session_id != link->session.id || link->session.lost)
        return not_in_session(client, service);
    size_t payload = operation->size != NULL ? operation->size(arguments) : 0;
    status = operation->kind == FRAME_COMMAND ? start_command(service, operation, arguments, payload, &request)
                                              : start_query(service, operation, arguments, payload, &request);
    if (status != MR_OK)
        return status;
    request->then.done = then.done; /* one by one, as they came in registers */
    request->then.arg = then.arg;
    request->kind = (uint8_t)operation->kind;
    request->answer = (uint8_t)operation->answer;
    request->streams = operation->answer == ANSWER_STREAM;
    request->service = request->streams ? NULL : service; /* its closing does not wait for streams */
    request->outstanding = !request->streams;
    if (request->streams)
        request_unlimit(client, request);
    if (request_id != NULL)
        *request_id = request->id;
    link_commit(link, request, request->size);
    return MR_OK;
}

enum mr_status service_start_waiting(struct handle *handle, const struct operation *operation, const void *arguments,
                                     struct mr_then then, uint64_t *request)
{
    struct mr_client *client = handle->client;
    uint64_t deadline = client_deadline(client);
    enum mr_status status;

    while ((status = service_start(handle, operation, arguments, then, request)) == MR_AGAIN)
        if ((status = call_wait_room(handle->service->link, deadline)) != MR_OK)
            return status;
    return status;
}

enum mr_status service_call(struct handle *handle, const struct operation *operation, const void *arguments,
                            struct mr_result *result)
{
    struct call call;
    uint64_t request;

    if (handle == NULL)
        return MR_INVALID;
    struct mr_client *client = handle->client;
    enum mr_status status = client_enter_alone(client);
    if (status != MR_OK)
        return status;
    status = service_start_waiting(handle, operation, arguments, call_then(&call), &request);
    if (status == MR_OK)
        status = call_wait(client, &call, request, NEVER); /* the request has its own deadline */
    if (status == MR_OK && result != NULL)
        *result = call.result;
    return status;
}

/* ---- Opening and closing ---- */

static void free_service(struct mr_client *client, struct service *service)
{
    for (struct service **at = &client->services; *at != NULL; at = &(*at)->next)
        if (*at == service) {
            *at = service->next;
            break;
        }
    free(service->name_space);
    free(service->name);
    free(service);
}

static struct service *find_service(const struct mr_client *client, const struct link *link, const char *type,
                                    const char *name)
{
    for (struct service *service = client->services; service != NULL; service = service->next)
        if (service->link == link && service->session_id == link->session.id && strcmp(service->type, type) == 0 &&
            strcmp(service->name_space, client->options.name_space) == 0 && strcmp(service->name, name) == 0)
            return service;
    return NULL;
}

static enum mr_status create_service(struct link *link, const char *type, const char *name, uint64_t deadline,
                                     uint64_t *id)
{
    const char *name_space = link->client->options.name_space;
    struct partition_command_input input = {.partition_id = link->partition, .has_command = true};

    input.command.kind = COMMAND_SESSION_COMMAND;
    input.command.session_kind = SESSION_COMMAND_CREATE_SERVICE;
    input.command.session_id = link->session.id;
    input.command.spec.service = (struct slice){(const uint8_t *)type, strlen(type)};
    input.command.spec.name_space = (struct slice){(const uint8_t *)name_space, strlen(name_space)};
    input.command.spec.name = (struct slice){(const uint8_t *)name, strlen(name)};
    return command_call(link, &input, ANSWER_ID, deadline, id);
}

static enum mr_status new_service(struct link *link, const char *type, const char *name, uint64_t id,
                                  struct service **out)
{
    struct mr_client *client = link->client;
    struct service *service = calloc(1, sizeof(*service));

    if (service == NULL)
        return client_out_of_memory(client);
    service->link = link;
    service->type = type;
    service->name_space = strdup(client->options.name_space);
    service->name = strdup(name);
    service->session_id = link->session.id;
    service->id = id;
    service->command = (struct service_command_head){
        .partition_id = link->partition, .session_id = link->session.id, .service_id = id};
    service->next = client->services;
    client->services = service;
    *out = service;
    if (service->name_space != NULL && service->name != NULL)
        return MR_OK;
    free_service(client, service);
    return client_out_of_memory(client);
}

/* Makes the session if there is none, and sees to it that it is renewed. */
static enum mr_status open_session(struct link *link, uint64_t deadline)
{
    struct mr_client *client = link->client;
    enum mr_status status = renewer_start(client);

    if (status == MR_OK)
        status = session_open(link, deadline);
    if (status == MR_OK && !link->session.renewed)
        status = renewer_add(link);
    return status;
}

static enum mr_status open_in(struct link *link, const char *type, const char *name, uint64_t deadline,
                              struct service **out)
{
    uint64_t id;
    enum mr_status status = open_session(link, deadline);

    if (status != MR_OK)
        return status;
    *out = find_service(link->client, link, type, name);
    if (*out != NULL)
        return MR_OK;
    status = create_service(link, type, name, deadline, &id);
    if (status == MR_FORBIDDEN) {
        /* Another type, or no session: the node has one status for both. */
        char why[MR_MESSAGE_MAX + 1];
        snprintf(why, sizeof(why), "%s", link->client->message);
        if (session_check(link, deadline) != MR_FORBIDDEN)
            return client_fail(link->client, MR_FORBIDDEN, "%s", why);
        if ((status = open_session(link, deadline)) == MR_OK)
            status = create_service(link, type, name, deadline, &id);
    }
    return status == MR_OK ? new_service(link, type, name, id, out) : status;
}

static enum mr_status check_name(struct mr_client *client, const char *name)
{
    if (name == NULL || name[0] == '\0')
        return client_fail_with(client, MR_INVALID, "a service's name may not be empty");
    if (!utf8_valid((struct slice){(const uint8_t *)name, strlen(name)}))
        return client_fail_with(client, MR_INVALID, "a service's name has to be UTF-8");
    return MR_OK;
}

/* One that has met another directory on the way may have looked in the wrong partition: that one may have more. */
static enum mr_status find_or_open(struct mr_client *client, const char *type, const char *name, uint64_t deadline,
                                   struct service **out)
{
    enum mr_status status;
    uint32_t partition;
    unsigned strangers;

    do {
        strangers = client->strangers;
        if ((status = mr_partition_of(client, NULL, name, &partition)) != MR_OK)
            return status;
        struct link *link;
        if ((status = connection_link(client, partition, &link)) != MR_OK)
            return status;
        status = connection_wait_open(link, deadline);
        if (status == MR_OK)
            status = open_in(link, type, name, deadline, out);
    } while (client->strangers != strangers && status != MR_TIMEOUT && !client->gone);
    return status;
}

enum mr_status service_open(struct mr_client *client, const char *type, const char *name, size_t size, void **out)
{
    struct service *service = NULL;

    if (out != NULL)
        *out = NULL;
    enum mr_status status = client_enter_alone(client);
    if (status != MR_OK)
        return status;
    if (out == NULL)
        return client_fail_with(client, MR_INVALID, "out may not be NULL");
    if ((status = check_name(client, name)) != MR_OK)
        return status;
    uint64_t deadline = client_deadline(client);
    struct handle *handle = calloc(1, size);
    if (handle == NULL)
        return client_out_of_memory(client);
    status = find_or_open(client, type, name, deadline, &service);
    if (status != MR_OK) {
        free(handle);
        return status;
    }
    service->handles++;
    handle->client = client;
    handle->service = service;
    handle->next = client->handles;
    client->handles = handle;
    *out = handle;
    return MR_OK;
}

static bool is_answered(const struct mr_client *client, const void *argument)
{
    (void)client;
    return ((const struct service *)argument)->outstanding == 0;
}

/* Nobody has a handle on it any more. */
static enum mr_status close_service(struct mr_client *client, struct service *service, uint64_t deadline)
{
    struct link *link = service->link;
    struct partition_command_input input = {.partition_id = link->partition, .has_command = true};

    client->may_set_aside = true;
    enum mr_status status = client_wait(client, is_answered, service, deadline);
    client->may_set_aside = false;
    if (service->outstanding > 0) /* it stays known, and will be found again if it is opened again */
        return status == MR_TIMEOUT ? client_fail_with(client, status, "requests on it are still not answered")
                                    : status;
    if (client->gone || service->session_id != link->session.id || link->session.lost) {
        free_service(client, service);
        return MR_OK; /* it is closed with its session */
    }
    input.command.kind = COMMAND_SESSION_COMMAND;
    input.command.session_kind = SESSION_COMMAND_CLOSE_SERVICE;
    input.command.session_id = link->session.id;
    input.command.service_id = service->id;
    status = command_call(link, &input, ANSWER_CLOSED, deadline, NULL);
    free_service(client, service);
    return status;
}

enum mr_status service_close(struct handle *handle)
{
    if (handle == NULL)
        return MR_OK;
    struct mr_client *client = handle->client;
    struct service *service = handle->service;
    enum mr_status status = client_enter_alone(client);

    if (status == MR_INVALID)
        return status; /* from a callback, a child: nothing is freed */
    for (struct handle **at = &client->handles; *at != NULL; at = &(*at)->next)
        if (*at == handle) {
            *at = handle->next;
            break;
        }
    streams_end(client, handle);
    handle->service = NULL; /* callbacks that run meanwhile may still know it */
    service->handles--;
    if (service->handles == 0)
        status = close_service(client, service, client_deadline(client));
    free(handle);
    return status;
}

void services_free(struct mr_client *client)
{
    while (client->handles != NULL) {
        struct handle *handle = client->handles;
        client->handles = handle->next;
        free(handle);
    }
    while (client->services != NULL)
        free_service(client, client->services);
}
