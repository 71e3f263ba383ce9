/* SPDX-License-Identifier: Apache-2.0 */
/* Streams. Every frame is copied out of the ring as it comes, so that a stream which nobody pulls holds up nothing, and
 * waits in the stream's own queue for mr_stream_next(). What is for many streams is copied once and read once.
 *
 * The queue of a command's outputs is bounded: what comes when it is full is dropped, for the session keeps it. Once
 * the queue is drained the command is named again, and the node gives its outputs from the first unacknowledged one on.
 * The same happens, by link.c, when a worker has died. Either way only the output behind the last one that was queued
 * is taken (request->output + 1), from whichever sending of the command it comes, so nothing is missing and nothing
 * comes twice. A query's outputs nobody keeps: its queue is not bounded, and after a worker's death it is asked anew if
 * nothing was given out yet, else it has ended.
 *
 * An output is acknowledged by taking the next one; KeepAlives tell the node (keep_alive.c). */
#include "ipc/client/stream.h"

#include "ipc/client/answer.h"
#include "ipc/client/keep_alive.h"
#include "ipc/client/link.h"
#include "ipc/client/request.h"
#include "ipc/client/wait.h"
#include "ipc/sys.h"
#include "proto/writer.h"

#include <millrace/map.h>

#include <stdio.h>
#include <stdlib.h>

/* ---- The queue ---- */

#define QUEUE_AT_FIRST 16
#define QUEUE_KEPT 4096 /* places that an empty queue keeps */

static struct stream_body *body_copy(const uint8_t *bytes, size_t size)
{
    struct stream_body *body = malloc(sizeof(*body) + size);

    if (body == NULL)
        return NULL;
    body->owners = 0;
    body->read = false;
    body->size = size;
    body->frame_bytes = response_frame_bytes(size);
    memcpy(body->bytes, bytes, size);
    return body;
}

static void body_release(struct stream_body *body)
{
    if (--body->owners == 0)
        free(body);
}

static bool grow_queue(struct mr_stream *stream)
{
    uint32_t capacity = stream->capacity == 0 ? QUEUE_AT_FIRST : 2 * stream->capacity;
    struct stream_body **queue = malloc(capacity * sizeof(struct stream_body *));

    if (queue == NULL)
        return false;
    for (uint32_t i = 0; i < stream->count; i++)
        queue[i] = stream->queue[(stream->first + i) & (stream->capacity - 1)];
    free(stream->queue);
    stream->queue = queue;
    stream->capacity = capacity;
    stream->first = 0;
    return true;
}

static bool push(struct mr_stream *stream, const struct response_head *head, const uint8_t *bytes,
                 struct stream_body **shared)
{
    if (stream->count == stream->capacity && !grow_queue(stream))
        return false;
    if (*shared == NULL && (*shared = body_copy(bytes, head->size)) == NULL)
        return false;
    stream_queue(stream, *shared);
    return true;
}

static struct stream_body *pop(struct mr_stream *stream)
{
    struct stream_body *body = stream->queue[stream->first];

    stream->first = (stream->first + 1) & (stream->capacity - 1);
    stream->count--;
    stream->bytes -= body->frame_bytes;
    if (stream->count == 0 && stream->capacity > QUEUE_KEPT) {
        free(stream->queue);
        stream->queue = NULL;
        stream->capacity = 0;
    }
    return body;
}

static void drop_all(struct mr_stream *stream)
{
    while (stream->count > 0)
        body_release(pop(stream));
}

/* ---- Ends ---- */

static void end(struct mr_stream *stream, enum mr_status status, struct mr_bytes why)
{
    if (stream->over)
        return;
    stream->over = true;
    stream->end = status;
    stream->client->stream_news = true;
    snprintf(stream->why, sizeof(stream->why), "%.*s",
             (int)(why.size < sizeof(stream->why) ? why.size : sizeof(stream->why) - 1), (const char *)why.data);
    if (why.size == 0 && status != MR_END)
        snprintf(stream->why, sizeof(stream->why), "the node answered %s, and no more", mr_status_name(status));
}

/* The request's end that no frame brings: the handle is closed, the node is gone, the channel is closed. */
static void request_ended(struct mr_client *client, const struct mr_result *result)
{
    struct mr_stream *stream = result->arg;

    (void)client;
    stream->request = 0;
    end(stream, result->status, result->message);
}

/* The node need not keep it any more. */
static void tell_over(struct mr_stream *stream)
{
    struct link *link = stream->link;

    if (stream->sequence_num == 0 || stream->session_id != link->session.id)
        return;
    keep_alive_over(&link->session, stream->sequence_num);
    if (link->stage != LINK_OPEN)
        return;
    keep_alive_run(link);
    link_flush(link);
}

/* Nothing more is wanted of its request. */
static void leave_request(struct mr_stream *stream)
{
    struct request *request = request_find(stream->client, stream->request);

    if (request != NULL)
        request->answered = stream->answered; /* then no last frame will come */
    if (stream->request != 0)
        request_forsake(stream->client, stream->request, MR_CANCELED);
    stream->request = 0;
}

void streams_end(struct mr_client *client, const struct handle *handle)
{
    for (struct mr_stream *stream = client->streams; stream != NULL; stream = stream->next) {
        if (stream->handle != handle)
            continue;
        bool told = stream_is_done(stream);
        stream->handle = NULL;
        leave_request(stream);
        drop_all(stream);
        if (stream->end == MR_END || !stream->over) {
            stream->over = false;
            end(stream, MR_CANCELED, mr_text("what the stream came from has been closed"));
        }
        if (!told)
            tell_over(stream);
    }
}

/* ---- Frames ---- */

bool stream_meet(struct request *request, const struct response_head *head, const uint8_t *body,
                 struct stream_body **shared)
{
    struct mr_stream *stream = request->then.arg;
    bool last = (head->flags & FRAME_LAST) != 0;
    bool latest = head->request == request->position;
    bool next = head->number == request->output + 1;

    if (request->state != REQUEST_OPEN)
        return last && latest;
    if (next && (request->kind == FRAME_QUERY || !stream_is_full(stream)) && push(stream, head, body, shared)) {
        request->output++;
        if (!last)
            return false;
        stream->request = 0;
        end(stream, MR_END, mr_text("the stream is over"));
        return true;
    }
    if (head->number == 0) { /* a refusal, or it was taken over or canceled */
        struct mr_result result = {.status = MR_OK};
        answer_read(ANSWER_RAW, (enum frame_kind)request->kind, head, body, &result);
        stream->request = 0;
        end(stream, result.status == MR_FORBIDDEN ? MR_SESSION_LOST : result.status, result.message);
        return true;
    }
    if (head->number <= request->output && last && latest) { /* an earlier process has taken the last one */
        stream->request = 0;
        end(stream, MR_END, mr_text("the stream is over"));
        return true;
    }
    if (next && request->kind == FRAME_QUERY) {
        stream->answered = last;
        leave_request(stream);
        end(stream, MR_NO_MEMORY, mr_text("no memory for the entries that have come"));
        return false;
    }
    stream->missed |= latest && head->number > request->output;
    stream->answered |= latest && last;
    return false;
}

bool stream_sends_again(struct request *request)
{
    struct mr_stream *stream = request->then.arg;

    if (request->kind == FRAME_COMMAND)
        return true;
    if (stream->given > 0) {
        stream->request = 0;
        end(stream, MR_UNAVAILABLE,
            mr_text("the node or the partition's worker died while it gave the entries, and some had been taken: "
                    "ask again"));
        return false;
    }
    drop_all(stream);
    request->output = 0;
    return true;
}

void stream_sent_again(struct request *request)
{
    struct mr_stream *stream = request->then.arg;

    stream->missed = false;
    stream->answered = false;
}

/* ---- Opening and closing ---- */

static void enter(struct mr_client *client, struct mr_stream *stream)
{
    struct mr_stream **at = &client->streams;

    while (*at != NULL)
        at = &(*at)->next;
    *at = stream;
}

static void free_stream(struct mr_stream *stream)
{
    for (struct mr_stream **at = &stream->client->streams; *at != NULL; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next;
            break;
        }
    drop_all(stream);
    if (stream->held != NULL)
        body_release(stream->held);
    free(stream->queue);
    free(stream);
}

void streams_free(struct mr_client *client)
{
    while (client->streams != NULL)
        free_stream(client->streams);
}

enum mr_status stream_open(struct handle *handle, const struct operation *operation, const void *arguments,
                           struct mr_stream **out)
{
    if (out != NULL)
        *out = NULL;
    if (handle == NULL)
        return MR_INVALID;
    struct mr_client *client = handle->client;
    enum mr_status status = client_enter_alone(client);
    if (status != MR_OK)
        return status;
    if (out == NULL)
        return client_fail_with(client, MR_INVALID, "out may not be NULL");
    struct mr_stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL)
        return client_out_of_memory(client);
    *stream = (struct mr_stream){.client = client, .link = handle->service->link, .handle = handle};
    struct mr_then then = {request_ended, stream};
    status = service_start_waiting(handle, operation, arguments, then, &stream->request);
    if (status != MR_OK) {
        free(stream);
        return status;
    }
    const struct request *request = request_find(client, stream->request);
    if (operation->kind == FRAME_COMMAND) {
        stream->session_id = request->session_id;
        stream->sequence_num = request->sequence_num;
    }
    enter(client, stream);
    link_flush(stream->link);
    *out = stream;
    return MR_OK;
}

/* Names the command; from then on its outputs come here. */
static enum mr_status name_command(struct mr_stream *stream, const struct pending *pending)
{
    struct link *link = stream->link;
    struct partition_command_input input = {.partition_id = link->partition, .has_command = true};
    uint8_t *body;

    input.command.kind = COMMAND_SESSION_COMMAND;
    input.command.session_kind = SESSION_COMMAND_SERVICE_COMMAND;
    input.command.session_id = stream->session_id;
    input.command.service_id = pending->service_id;
    input.command.sequence_num = stream->sequence_num;
    size_t size = partition_command_input_size(&input, NULL, 0);
    enum mr_status status = link_begin(link, size, &body);
    if (status != MR_OK)
        return status;
    struct request *request = request_new(stream->client);
    if (request == NULL)
        return client_fail_with(stream->client, MR_AGAIN, "too many requests are open: mr_run(), then again");
    write_partition_command_input(body, &input, NULL, 0);
    request_unlimit(stream->client, request);
    request->then = (struct mr_then){request_ended, stream};
    request->kind = FRAME_COMMAND;
    request->answer = ANSWER_STREAM;
    request->streams = true;
    request->counted = true;
    request->sent_again = true;
    request->session_id = stream->session_id;
    request->service_id = pending->service_id;
    request->sequence_num = stream->sequence_num;
    request->output = pending->acknowledged;
    request->time_limit = 0;
    request->size = (uint32_t)size;
    stream->request = request->id;
    link_commit(link, request, size);
    return MR_OK;
}

enum mr_status stream_resume(struct handle *handle, const struct pending *pending, struct mr_stream **out)
{
    struct mr_client *client = handle->client;
    uint64_t deadline = client_deadline(client);
    struct mr_stream *stream = calloc(1, sizeof(*stream));
    enum mr_status status;

    if (stream == NULL)
        return client_out_of_memory(client);
    *stream = (struct mr_stream){.client = client,
                                 .link = handle->service->link,
                                 .handle = handle,
                                 .session_id = handle->service->session_id,
                                 .sequence_num = pending->sequence_num,
                                 .given = pending->acknowledged,
                                 .acknowledged = pending->acknowledged};
    while ((status = name_command(stream, pending)) == MR_AGAIN)
        if ((status = call_wait_room(stream->link, deadline)) != MR_OK)
            break;
    if (status != MR_OK) {
        free(stream);
        return status;
    }
    enter(client, stream);
    link_flush(stream->link);
    *out = stream;
    return MR_OK;
}

void mr_stream_close(struct mr_stream *stream)
{
    if (stream == NULL || stream->client->in_callback)
        return;
    enum mr_status status = client_enter_alone(stream->client);
    if (status != MR_OK && stream->client->reserved != NULL)
        return;
    /* In a forked child there are no rings to touch. */
    if (status == MR_OK) {
        bool told = stream_is_done(stream);
        leave_request(stream);
        drop_all(stream);
        stream->over = true;
        if (!told)
            tell_over(stream);
    }
    free_stream(stream);
}

/* ---- Pulling ---- */

/* What was given out last is not needed any more. */
static inline void acknowledge(struct mr_stream *stream)
{
    struct session *session = &stream->link->session;

    if (stream->held == NULL)
        return;
    if (stream->sequence_num != 0 && stream->session_id == session->id) {
        stream->acknowledged = stream->given;
        session->taken++;
        session->taken_bytes += stream->held->size;
        if (session->keep_alive == 0 && keep_alive_has_enough(session) && stream->link->stage == LINK_OPEN) {
            keep_alive_run(stream->link);
            link_flush(stream->link);
        }
    }
    body_release(stream->held);
    stream->held = NULL;
}

/* Frames were dropped, and those before them have all been taken: the node has what is missing. What has been taken is
 * acknowledged first, so that it does not come again. */
static void ask_for_missed(struct mr_stream *stream)
{
    struct request *request = request_find(stream->client, stream->request);
    struct link *link = stream->link;

    if (request == NULL || request->send_later || link->stage != LINK_OPEN)
        return;
    link->session.due = true;
    keep_alive_run(link);
    request->send_later = true;
    link->retry_at = 0; /* with the next run */
}

static bool has_something(const struct mr_client *client, const void *argument)
{
    const struct mr_stream *stream = argument;

    (void)client;
    return stream->count > 0 || stream->over;
}

static void wait_for_frame(struct mr_stream *stream, int64_t wait_ns)
{
    struct mr_client *client = stream->client;

    if (stream->missed)
        ask_for_missed(stream);
    if (wait_ns == MR_NO_WAIT) {
        client_run_once(client);
        return;
    }
    uint64_t deadline = wait_ns < 0 ? NEVER : sys_clock_ns(CLOCK_MONOTONIC) + (uint64_t)wait_ns;
    client->may_set_aside = true;
    (void)client_wait(client, has_something, stream, deadline); /* what it says, the stream says */
    client->may_set_aside = false;
}

static enum mr_status say_end(const struct mr_stream *stream)
{
    if (stream->end == MR_END)
        return client_fail_with(stream->client, MR_END, "the stream is over");
    return client_fail_with(stream->client, stream->end, stream->why);
}

static void read_body(struct stream_body *body, enum frame_kind kind)
{
    struct mr_result result = {.status = MR_OK};

    body->some = answer_read_event(kind, body->bytes, body->size, &result, &body->event);
    body->status = result.status;
    body->message = result.message;
    body->read = true;
}

/* What has been given out is the stream's last, or may be. */
static __attribute__((noinline)) enum mr_status given_at_end(struct mr_stream *stream, const struct stream_body *body)
{
    if (body->status != MR_OK) { /* its last output */
        leave_request(stream);
        drop_all(stream);
        stream->over = false;
        end(stream, body->status, body->message);
    }
    if (stream_is_done(stream))
        tell_over(stream);
    return body->some ? MR_OK : say_end(stream);
}

/* The queue is empty. MR_OK: there is something in it now. */
static __attribute__((noinline)) enum mr_status wait_for_more(struct mr_stream *stream, int64_t wait_ns)
{
    if (!stream->over)
        wait_for_frame(stream, wait_ns);
    if (stream->count > 0)
        return MR_OK;
    if (!stream->over && stream->client->gone) {
        leave_request(stream); /* whose end was to come with the next run */
        end(stream, MR_NO_NODE, mr_text(stream->client->gone_text));
    }
    if (stream->over)
        return say_end(stream);
    stream->client->stream_news = false;
    return client_fail_with(stream->client, MR_AGAIN, "nothing has come");
}

enum mr_status mr_stream_next(struct mr_stream *stream, int64_t wait_ns, struct mr_event *event)
{
    if (stream == NULL)
        return MR_INVALID;
    enum mr_status status = client_enter_alone(stream->client);
    if (status != MR_OK)
        return status;
    if (event == NULL)
        return client_fail_with(stream->client, MR_INVALID, "event may not be NULL");
    acknowledge(stream);
    if (stream->count == 0 && (status = wait_for_more(stream, wait_ns)) != MR_OK)
        return status;
    struct stream_body *body = pop(stream);
    if (!body->read)
        read_body(body, stream->sequence_num != 0 ? FRAME_COMMAND : FRAME_QUERY);
    *event = body->event;
    stream->given++;
    stream->held = body;
    return body->some && !stream->over ? MR_OK : given_at_end(stream, body);
}
