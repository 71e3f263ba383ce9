/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to the supervisor, and the calls that ask them: mr_node_...(). One at a time: a call asks and waits. An
 * answer that comes to nobody is dropped; should the node go away before it answers, it is asked anew when it is back.
 */
#include "ipc/client/question.h"

#include "ipc/client/connection.h"
#include "ipc/client/session.h"
#include "ipc/client/wait.h"

#include <inttypes.h>
#include <stdlib.h>

struct question {
    const void *const *answer; /* where it will be */
    unsigned losses;           /* as it was asked: more, and nobody will answer */
};

static bool is_over(const struct mr_client *client, const void *argument)
{
    const struct question *question = argument;
    return *question->answer != NULL || client->refused || client->losses != question->losses;
}

static bool is_there(const struct mr_client *client, const void *argument)
{
    (void)argument;
    return !client->away && !client->gone;
}

/* Asks, and waits for the answer; a node that comes back is asked anew. Leaves no text for MR_TIMEOUT. */
static enum mr_status ask(struct mr_client *client, const Millrace__V1__ClientMessage *message,
                          const void *const *answer, uint64_t deadline)
{
    enum mr_status status;

    client->may_set_aside = true;
    do {
        struct question question = {answer, client->losses};
        client->refused = false;
        status = is_there(client, NULL) ? MR_OK : client_wait(client, is_there, NULL, deadline);
        if (status != MR_OK)
            break;
        question.losses = client->losses;
        status = connection_say(client, message);
        if (status == MR_OK || status == MR_NO_NODE)
            status = client_wait(client, is_over, &question, deadline);
    } while (status == MR_OK && *answer == NULL && !client->refused);
    client->may_set_aside = false;
    return *answer != NULL ? MR_OK : status == MR_OK ? connection_refusal(client) : status;
}

/* Asks for the node's Status: client->status. */
static enum mr_status ask_status(struct mr_client *client, uint64_t deadline)
{
    Millrace__V1__GetStatus get_status = MILLRACE__V1__GET_STATUS__INIT;
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;

    free(client->status);
    client->status = NULL;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS;
    message.get_status = &get_status;
    enum mr_status status = ask(client, &message, (const void *const *)&client->status, deadline);
    if (status == MR_TIMEOUT)
        return client_fail_with(client, status, "the node did not say its status within call_timeout_ns");
    return status;
}

enum mr_status question_sessions(struct link *link, uint64_t session_id, uint64_t deadline)
{
    struct mr_client *client = link->client;
    Millrace__V1__Attach attach = MILLRACE__V1__ATTACH__INIT;
    Millrace__V1__ListSessions list = MILLRACE__V1__LIST_SESSIONS__INIT;
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;

    free(client->memory);
    client->memory = NULL;
    if (session_id != 0) {
        attach.partition = link->partition;
        attach.session_id = session_id;
        message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_ATTACH;
        message.attach = &attach;
    } else {
        list.partition = link->partition;
        message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_LIST_SESSIONS;
        message.list_sessions = &list;
    }
    enum mr_status status = ask(client, &message, (const void *const *)&client->memory, deadline);
    if (status == MR_TIMEOUT)
        return client_fail(client, status, "partition %" PRIu32 " did not say what it knows of sessions in time",
                           link->partition);
    return status;
}

/* The list of the partition's sessions: client->memory is an encoded SessionList. */
static enum mr_status ask_sessions(struct link *link, uint64_t deadline)
{
    return question_sessions(link, 0, deadline);
}

/* Has the link's partition take a snapshot: client->memory is an encoded SnapshotReport. */
static enum mr_status ask_snapshot(struct link *link, uint64_t deadline)
{
    struct mr_client *client = link->client;
    Millrace__V1__TakeSnapshot take = MILLRACE__V1__TAKE_SNAPSHOT__INIT;
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;

    free(client->memory);
    client->memory = NULL;
    take.partition = link->partition;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_TAKE_SNAPSHOT;
    message.take_snapshot = &take;
    enum mr_status status = ask(client, &message, (const void *const *)&client->memory, deadline);
    if (status == MR_TIMEOUT)
        return client_fail(client, status, "partition %" PRIu32 " has not finished its snapshot within call_timeout_ns",
                           link->partition);
    return status;
}

/* ---- The calls ---- */

enum mr_status mr_node_status(struct mr_client *client, struct mr_bytes *encoded)
{
    enum mr_status status = client_enter_alone(client);

    if (status != MR_OK)
        return status;
    if (encoded == NULL)
        return client_fail_with(client, MR_INVALID, "encoded may not be NULL");
    status = ask_status(client, client_deadline(client));
    if (status == MR_OK)
        *encoded = (struct mr_bytes){client->status, client->status_size};
    return status;
}

/* Asks one partition; what it answers came as memory. */
static enum mr_status ask_partition(struct mr_client *client, uint32_t partition, struct mr_bytes *encoded,
                                    enum mr_status (*question)(struct link *link, uint64_t deadline))
{
    struct link *link;
    enum mr_status status = client_enter_alone(client);

    if (status != MR_OK)
        return status;
    if (encoded == NULL)
        return client_fail_with(client, MR_INVALID, "encoded may not be NULL");
    status = connection_link(client, partition, &link);
    if (status == MR_OK)
        status = question(link, client_deadline(client));
    if (status == MR_OK)
        *encoded = (struct mr_bytes){client->memory, client->memory_size};
    return status;
}

enum mr_status mr_node_sessions(struct mr_client *client, uint32_t partition, struct mr_bytes *encoded)
{
    return ask_partition(client, partition, encoded, ask_sessions);
}

enum mr_status mr_node_snapshot(struct mr_client *client, uint32_t partition, struct mr_bytes *encoded)
{
    return ask_partition(client, partition, encoded, ask_snapshot);
}

enum mr_status mr_node_close_session(struct mr_client *client, uint32_t partition, uint64_t session_id)
{
    struct link *link;
    enum mr_status status = client_enter_alone(client);

    if (status != MR_OK || (status = connection_link(client, partition, &link)) != MR_OK)
        return status;
    if (session_id == 0 || session_id == link->session.id)
        return client_fail_with(client, MR_INVALID,
                                session_id == 0 ? "no session has the id 0" : "the session is this handle's own");
    uint64_t deadline = client_deadline(client);
    status = connection_wait_open(link, deadline);
    if (status == MR_OK)
        status = question_sessions(link, session_id, deadline);
    if (status != MR_OK)
        return status;
    struct partition_command_input input = {.partition_id = partition,
                                            .has_command = true,
                                            .command = {.kind = COMMAND_CLOSE_SESSION, .session_id = session_id}};
    return command_call(link, &input, ANSWER_CLOSED, deadline, NULL);
}
