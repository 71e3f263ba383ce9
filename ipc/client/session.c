/* SPDX-License-Identifier: Apache-2.0 */
/* The session in one partition: opened with the first service there, closed with the handle. It counts which numbers
 * have been answered, so that KeepAlives can let the node forget them (keep_alive.h). That the session does not expire
 * is another thread's business (renew.h).
 *
 * Answers come mostly in order, so `answered` moves by one; a number answered ahead of one before it waits as a bit in
 * `window`. A stream counts as answered with its first output. */
#include "ipc/client/session.h"

#include "ipc/client/link.h"
#include "ipc/client/request.h"
#include "ipc/client/wait.h"
#include "proto/writer.h"

#include <stdio.h>
#include <stdlib.h>

static void drop_pending(struct session *session)
{
    while (session->pending != NULL) {
        struct pending *pending = session->pending;
        session->pending = pending->next;
        free(pending);
    }
}

void session_free(struct session *session)
{
    free(session->window);
    session->window = NULL;
    drop_pending(session);
}

enum mr_status session_adopt(struct link *link, uint64_t id, uint64_t highest)
{
    struct session *session = &link->session;
    uint64_t *window = calloc(1, SESSION_WINDOW / 8);

    if (window == NULL)
        return client_out_of_memory(link->client);
    session_free(session);
    *session = (struct session){.id = id, .next = highest + 1, .answered = highest, .window = window, .due = true};
    return MR_OK;
}

/* ---- Which numbers have been answered ---- */

static uint64_t *window_word(const struct session *session, uint64_t number)
{
    return &session->window[number % SESSION_WINDOW / 64];
}

void session_answered(struct session *session, uint64_t sequence_num, uint64_t bytes)
{
    session->answer_bytes += bytes;
    if (sequence_num != session->answered + 1) {
        if (sequence_num > session->answered)
            *window_word(session, sequence_num) |= UINT64_C(1) << sequence_num % 64;
        return;
    }
    session->answered++;
    for (;;) {
        uint64_t next = session->answered + 1;
        uint64_t bit = UINT64_C(1) << next % 64;
        uint64_t *word = window_word(session, next);
        if ((*word & bit) == 0)
            return;
        *word &= ~bit;
        session->answered = next;
    }
}

void session_lost(struct session *session, struct mr_bytes why)
{
    if (session->lost)
        return;
    session->lost = true;
    snprintf(session->why, sizeof(session->why), "%.*s",
             (int)(why.size < sizeof(session->why) ? why.size : sizeof(session->why) - 1), (const char *)why.data);
}

/* ---- Commands without a number ---- */

enum mr_status command_start(struct link *link, const struct partition_command_input *input,
                             const struct last_output *outputs, size_t output_count, enum answer_kind answer,
                             struct mr_then then, uint64_t *request_id)
{
    struct command_input_sizes sizes = command_input_sizes(input, outputs, output_count);
    size_t size = sizes.whole;
    uint8_t *body;
    enum mr_status status = link_begin(link, size, &body);

    if (status != MR_OK)
        return status;
    struct request *request = request_new(link->client);
    if (request == NULL)
        return client_fail_with(link->client, MR_AGAIN, "too many requests are open: mr_run(), then again");
    write_command_input_sized(body, input, outputs, output_count, &sizes);
    status = request_keep(link->client, request, body, size);
    if (status != MR_OK) {
        request_free(link->client, request);
        return status;
    }
    request->then = then;
    request->kind = FRAME_COMMAND;
    request->answer = (uint8_t)answer;
    request->session_id = input->command.session_id;
    request->time_limit = 0;
    *request_id = request->id;
    link_commit(link, request, size);
    return MR_OK;
}

enum mr_status command_call(struct link *link, const struct partition_command_input *input, enum answer_kind answer,
                            uint64_t deadline, uint64_t *id)
{
    struct call call;
    uint64_t request;
    enum mr_status status;

    while ((status = command_start(link, input, NULL, 0, answer, call_then(&call), &request)) == MR_AGAIN)
        if ((status = call_wait_room(link, deadline)) != MR_OK)
            return status;
    if (status == MR_OK)
        status = call_wait(link->client, &call, request, deadline);
    if (status == MR_OK && id != NULL)
        *id = (uint64_t)call.result.as.number;
    return status;
}

static struct partition_command_input command(const struct link *link, enum command_kind kind, uint64_t session_id)
{
    return (struct partition_command_input){
        .partition_id = link->partition, .has_command = true, .command = {.kind = kind, .session_id = session_id}};
}

enum mr_status session_open(struct link *link, uint64_t deadline)
{
    struct session *session = &link->session;
    struct partition_command_input input = command(link, COMMAND_OPEN_SESSION, 0);
    int64_t timeout = link->client->options.session_timeout_ns;
    uint64_t id;

    if (session->id != 0 && !session->lost)
        return MR_OK;
    if (session->window == NULL)
        session->window = malloc(SESSION_WINDOW / 8);
    if (session->window == NULL)
        return client_out_of_memory(link->client);
    input.command.timeout = (struct duration){
        .seconds = timeout / (int64_t)MR_SECOND, .nanos = (int32_t)(timeout % (int64_t)MR_SECOND), .present = true};
    enum mr_status status = command_call(link, &input, ANSWER_ID, deadline, &id);
    if (status != MR_OK)
        return status;
    drop_pending(session);
    uint64_t *window = session->window;
    memset(window, 0, SESSION_WINDOW / 8);
    *session = (struct session){.id = id, .next = 1, .window = window};
    return MR_OK;
}

enum mr_status session_close(struct link *link, uint64_t deadline)
{
    struct partition_command_input input = command(link, COMMAND_CLOSE_SESSION, link->session.id);
    return command_call(link, &input, ANSWER_CLOSED, deadline, NULL);
}

enum mr_status session_check(struct link *link, uint64_t deadline)
{
    struct partition_command_input input = command(link, COMMAND_KEEP_ALIVE, link->session.id);
    if (link->session.lost) /* its id may be somebody else's by now */
        return client_fail_with(link->client, MR_FORBIDDEN, link->session.why);
    enum mr_status status = command_call(link, &input, ANSWER_PLAIN, deadline, NULL);
    if (status == MR_FORBIDDEN)
        session_lost(&link->session, mr_text(link->client->message));
    return status;
}
