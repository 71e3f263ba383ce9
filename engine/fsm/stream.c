/* SPDX-License-Identifier: Apache-2.0 */
/* What a stream does: opening, outputs in, outputs out, and its ends. Knows no particular service. */
#include "engine/fsm/stream.h"

#include "engine/fsm/state.h"
#include "ipc/error.h"
#include "proto/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- opening ---- */

/* ServiceCommandInput, encoded canonically. */
static struct blob *encode_input(const struct command_input *command)
{
    const struct operation_input *operation = &command->operation;
    size_t operation_size = field_bytes_size(1, operation->name.size) + field_bytes_size(2, operation->payload.size);
    size_t size = field_varint_size(1, command->service_id) + field_varint_size(2, command->sequence_num) +
                  field_message_head_size(3, operation_size) + operation_size;
    mr_assert(size <= UINT32_MAX);
    struct blob *blob = blob_create((uint32_t)size);
    uint8_t *at = field_write_varint(blob->data, 1, command->service_id);
    at = field_write_varint(at, 2, command->sequence_num);
    at = field_write_message_head(at, 3, operation_size);
    at = field_write_bytes(at, 1, operation->name);
    at = field_write_bytes(at, 2, operation->payload);
    mr_assert(at == blob->data + size);
    return blob;
}

struct stream *call_open(struct service_call *call, void *listener)
{
    mr_assert(call->kind == OPERATION_STREAM && call->stream == NULL);
    const struct stream_origin *origin = call->origin;
    const struct command_input *command = origin->entry->command;
    struct stream *stream =
        session_open_stream(origin->opening->session, command->sequence_num, call->index, encode_input(command));
    stream->fsm = origin->fsm;
    stream->opening = origin->opening;
    stream->listener = listener;
    stream->route = origin->entry->route;
    stream->shares = origin->entry->shares;
    list_append(&origin->opening->streams, &stream->of_opening);
    call->stream = stream;
    return stream;
}

/* ---- to the route ---- */

static bool is_none(const struct fsm_route *route)
{
    return route->channel == 0 && route->position == 0;
}

static bool can_tell(const struct stream *stream)
{
    return stream->fsm->sink != NULL && !stream->told && !is_none(&stream->route);
}

/* A stored output as an answer, valid until the next one is described. */
static void describe(const struct stream *stream, const struct event *event, uint64_t number, bool last,
                     struct fsm_answer *answer)
{
    struct fsm *fsm = stream->fsm;
    struct event_head head = event_write_head(event, stream->command.index, number, fsm->head);
    size_t count = event_part_count(event);
    struct slice *parts = fsm_parts(fsm, count + 1);
    parts[0] = (struct slice){fsm->head, head.size};
    for (size_t i = 0; i < count; i++)
        parts[i + 1] = event_part(event, i);
    *answer = (struct fsm_answer){.session_id = stream->session->id,
                                  .sequence_num = stream->command.sequence_num,
                                  .number = number,
                                  .last = last,
                                  .event = stream->shares && !last ? event->name : 0,
                                  .status = STATUS_OK,
                                  .parts = parts,
                                  .part_count = count + 1,
                                  .size = head.whole};
}

bool stream_go_on(struct stream *stream)
{
    struct fsm *fsm = stream->fsm;
    if (stream->taken < stream->outputs.floor)
        stream->taken = stream->outputs.floor; /* whoever has had these has said so */
    stream->waits = false;
    while (stream->taken < stream->command.last_number && can_tell(stream)) {
        uint64_t number = stream->taken + 1;
        struct fsm_answer answer;
        bool last = stream->input == NULL && number == stream->command.last_number;
        describe(stream, events_get(&stream->outputs, number), number, last, &answer);
        stream->waits = !fsm->sink->answer(fsm->sink->context, &stream->route, &answer);
        if (stream->waits)
            return false;
        stream->taken++;
        stream->told = last;
    }
    return true;
}

/* The output stored last, to a route that has had all before it, together with those who have the same. */
static inline bool share(struct stream *stream, const struct event *event)
{
    const struct fsm_sink *sink = stream->fsm->sink;
    uint64_t number = stream->command.last_number;
    if (!stream->shares || stream->taken + 1 != number || !can_tell(stream) || sink->share == NULL ||
        !sink->share(sink->context, &stream->route, event->name, number))
        return false;
    stream->taken = number;
    return true;
}

/* The route's last frame, if it has not had one: nothing of it is stored, and there is always room for it. */
static void tell_last(struct stream *stream, struct fsm_answer answer)
{
    if (!can_tell(stream))
        return;
    answer.session_id = stream->session->id;
    answer.sequence_num = stream->command.sequence_num;
    answer.last = true;
    stream->told = true;
    (void)stream->fsm->sink->answer(stream->fsm->sink->context, &stream->route, &answer);
}

static struct slice text_of(const char *text)
{
    return (struct slice){(const uint8_t *)text, strlen(text)};
}

void stream_attach(struct stream *stream, const struct fsm_entry *entry)
{
    const struct fsm_route *route = &entry->route;
    if (stream->route.channel != route->channel || stream->route.position != route->position)
        tell_last(stream, (struct fsm_answer){
                              .status = STATUS_CANCELED,
                              .message = text_of("taken over: the command was sent again elsewhere"),
                          });
    stream->route = *route;
    stream->shares = entry->shares;
    stream->taken = 0;
    stream->told = false;
    stream_go_on(stream);
}

/* ---- outputs and ends ---- */

static void complete(struct stream *stream)
{
    list_remove(&stream->of_opening);
    stream->opening = NULL;
    session_stream_complete(stream);
}

/* The service must know that the stream ends. */
static void tell_service(struct stream *stream)
{
    const struct service *service = stream->opening->service;
    if (service->type->ended != NULL)
        service->type->ended(service->state, stream->listener);
}

static inline void record(struct stream *stream, struct event *event)
{
    stream->fsm->outputs++;
    session_stream_output(stream, event);
    if (!stream->waits && !share(stream, event))
        stream_go_on(stream);
}

static void record_last(struct stream *stream, struct event *event)
{
    stream->fsm->outputs++;
    session_stream_output(stream, event);
    complete(stream);
    if (!stream->waits)
        stream_go_on(stream);
}

/* An output without payload, the stream's last one. */
static void record_failure(struct stream *stream, enum status status, const char *message)
{
    struct service_call output = {.status = STATUS_OK}; /* nothing in it needs to be freed */
    call_fail(&output, status, message);
    struct event *event = event_create(&output, 0);
    record_last(stream, event);
    event_release(event);
}

/* What has been put into the output, kept once for all the streams that it is given to. */
static struct event *event_of(struct fsm *fsm, struct service_call *output)
{
    if (output->event == NULL)
        output->event = event_create(output, ++fsm->events);
    return output->event;
}

static bool passes_limit(const struct stream *stream, const struct event *event)
{
    return stream->session->held_bytes + session_output_bytes(event) > stream->fsm->config.session_output_limit;
}

static void record_limit(struct stream *stream)
{
    char message[MR_MESSAGE_MAX];
    snprintf(message, sizeof(message),
             "the session would pass its limit of unacknowledged outputs, %" PRIu64
             " bytes; acknowledge with a KeepAlive",
             stream->fsm->config.session_output_limit);
    record_failure(stream, STATUS_UNAVAILABLE, message);
}

struct service_call *stream_output(struct service_host *host)
{
    event_forget(host->output);
    call_begin(host->output, 0, *host->time, (struct slice){NULL, 0});
    return host->output;
}

bool stream_emit(struct stream *stream, struct service_call *output)
{
    mr_assert(stream->opening != NULL);
    struct event *event = event_of(stream->fsm, output);
    if (!passes_limit(stream, event)) {
        record(stream, event);
        return true;
    }
    tell_service(stream);
    record_limit(stream);
    return false;
}

void stream_end(struct stream *stream, struct service_call *output)
{
    mr_assert(stream->opening != NULL);
    struct event *event = event_of(stream->fsm, output);
    if (passes_limit(stream, event))
        record_limit(stream);
    else
        record_last(stream, event);
}

void stream_cancel(struct stream *stream)
{
    tell_service(stream);
    complete(stream);
    tell_last(stream, (struct fsm_answer){.status = STATUS_CANCELED,
                                          .message = text_of("canceled: a KeepAlive no longer names the command")});
}

void stream_close(struct stream *stream)
{
    tell_service(stream);
    record_failure(stream, STATUS_CANCELED, "the session closed the service");
}

void stream_end_unstored(struct stream *stream)
{
    stream->fsm->outputs++;
    tell_service(stream);
    complete(stream);
    struct command_output output = {
        .index = stream->command.index,
        .kind = COMMAND_SESSION_COMMAND,
        .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
        .sequence_num = stream->command.last_number + 1,
        .operation = {.status = STATUS_CANCELED, .message = text_of("the session ended")},
    };
    struct fsm_answer answer = {.number = output.sequence_num, .status = STATUS_OK};
    fsm_encode(stream->fsm, &output, &answer);
    tell_last(stream, answer);
}
