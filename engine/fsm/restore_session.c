/* SPDX-License-Identifier: Apache-2.0 */
/* A session out of its SessionSnapshot and its SessionExtra: when it ends, and every command that it holds. Knows of
 * services only that an open command names one. */
#include "engine/fsm/restore.h"

#include "engine/fsm/memory.h"
#include "ipc/planted.h"

#include <string.h>

enum { INLINE_MAX = 512 }; /* a payload up to this is put into the record itself */

/* One command, from both sections. */
struct restored_command {
    uint64_t sequence_num, index, last_output;
    bool open;
    bool stream;
    struct slice input;   /* if it is open */
    struct slice outputs; /* where they begin, to the end of the message */
};

/* A pending output. */
struct restored_output {
    uint64_t number;
    uint64_t status;
    struct slice payload, message;
};

/* ---- outputs ---- */

static bool read_output(struct canonical_reader *reader, struct restored_output *output)
{
    struct slice bytes, operation;
    if (!canonical_message(reader, ROW(CommandSnapshot, pending_outputs), &bytes))
        return false;
    struct canonical_reader outer = canonical_reader(bytes);
    output->number = canonical_number(&outer, ROW(ServiceCommandOutput, sequence_num));
    bool sound = canonical_message(&outer, ROW(ServiceCommandOutput, operation), &operation) && canonical_end(&outer);
    if (sound) {
        struct canonical_reader inner = canonical_reader(operation);
        output->status = canonical_number(&inner, ROW(OperationOutput, status));
        output->payload = canonical_bytes(&inner, ROW(OperationOutput, payload));
        output->message = canonical_bytes(&inner, ROW(OperationOutput, message));
        sound = canonical_end(&inner) && output->number > 0 && output->status >= STATUS_OK &&
                output->status <= STATUS_INTERNAL && output->payload.size <= OUTPUT_PAYLOAD_MAX &&
                output->message.size <= MR_MESSAGE_MAX && utf8_valid(output->message);
    }
    if (!sound)
        canonical_fail(reader);
    return sound;
}

/* The output as what an operation has put. */
static const struct service_call *as_call(struct fsm *fsm, uint64_t index, const struct restored_output *output)
{
    struct service_call *call = &fsm->call;
    call_begin(call, index, 0, (struct slice){NULL, 0});
    call->status = (enum status)output->status;
    call->message_size = output->message.size;
    if (output->message.size > 0)
        memcpy(call->message, output->message.data, output->message.size);
    size_t size = output->payload.size;
    if (size > INLINE_MAX) {
        struct blob *blob = blob_create((uint32_t)size);
        memcpy(blob->data, output->payload.data, size);
        call_put_blob(call, blob, 0, size);
        blob_release(blob);
    } else if (size > 0) {
        memcpy(call_put(call, size), output->payload.data, size);
    }
    return call;
}

/* ---- commands ---- */

static int restore_answer(struct restoring *restoring, struct session *session, const struct restored_command *command)
{
    struct canonical_reader reader = canonical_reader(command->outputs);
    struct restored_output output;
    bool pending = read_output(&reader, &output);
    if (!canonical_end(&reader) || command->last_output != 1 || (pending && output.number != 1))
        return restoring_wrong(restoring, "it must have one output");
    if (!pending && command->sequence_num > session->window.floor)
        return restoring_wrong(restoring, "its output is acknowledged, but no KeepAlive has named it");
    session_restore_answer(session, command->sequence_num, command->index,
                           pending ? as_call(restoring->fsm, command->index, &output) : NULL);
    return 0;
}

/* What an open command was: notes the service it names. */
static int restore_input(struct restoring *restoring, const struct restored_command *command, struct open_stream *open)
{
    struct slice bytes;
    struct canonical_reader reader = canonical_reader(command->input);
    open->service_id = canonical_number(&reader, ROW(ServiceCommandInput, service_id));
    uint64_t sequence_num = canonical_number(&reader, ROW(ServiceCommandInput, sequence_num));
    if (!canonical_message(&reader, ROW(ServiceCommandInput, operation), &bytes) || !canonical_end(&reader) ||
        sequence_num != command->sequence_num || command->input.size > UINT32_MAX)
        return restoring_wrong(restoring, "its input is not its ServiceCommandInput");
    reader = canonical_reader(bytes);
    open->operation = canonical_bytes(&reader, ROW(OperationInput, name));
    canonical_bytes(&reader, ROW(OperationInput, payload));
    if (!canonical_end(&reader) || open->operation.size == 0)
        return restoring_wrong(restoring, "its input has no operation");
    return 0;
}

static void note_open(struct restoring *restoring, struct open_stream open)
{
    if (restoring->count == restoring->capacity) {
        restoring->capacity = restoring->capacity == 0 ? 16 : restoring->capacity * 2;
        restoring->streams = memory_resize(restoring->streams, restoring->capacity * sizeof(restoring->streams[0]));
    }
    restoring->streams[restoring->count++] = open;
}

static int restore_outputs(struct restoring *restoring, struct stream *stream, const struct restored_command *command)
{
    struct canonical_reader reader = canonical_reader(command->outputs);
    struct restored_output output;
    while (read_output(&reader, &output)) {
        if (output.number != stream->command.last_number + 1)
            return restoring_wrong(restoring, "its outputs are not numbered in order");
        struct event *event = event_create(as_call(restoring->fsm, command->index, &output), 0);
        session_stream_output(stream, event);
        event_release(event);
    }
    if (!canonical_end(&reader))
        return restoring_wrong(restoring, "what it holds is not an output");
    return stream->command.last_number == command->last_output
               ? 0
               : restoring_wrong(restoring, "its last output is not the one that it gave last");
}

static int restore_stream(struct restoring *restoring, struct session *session, const struct restored_command *command)
{
    struct open_stream open = {.claimed = false};
    struct blob *input = NULL;
    if (command->open && restore_input(restoring, command, &open) != 0)
        return -1;
    /* What has been acknowledged ends where the outputs begin. */
    struct canonical_reader reader = canonical_reader(command->outputs);
    struct restored_output first;
    uint64_t acknowledged = read_output(&reader, &first) ? first.number - 1 : command->last_output;
    if (acknowledged > 0 && command->sequence_num > session->window.floor)
        return restoring_wrong(restoring, "outputs are acknowledged, but no KeepAlive has named it");
    if (command->last_output > INT64_MAX || acknowledged > command->last_output ||
        (!command->open && command->last_output == 0))
        return restoring_wrong(restoring, "it cannot have given as many outputs");
    if (command->open) {
        input = blob_create((uint32_t)command->input.size);
        memcpy(input->data, command->input.data, command->input.size);
    }
    struct stream *stream = session_restore_stream(session, command->sequence_num, command->index, input, acknowledged);
    stream->fsm = restoring->fsm;
    if (command->open) {
        open.stream = stream;
        note_open(restoring, open);
    }
    return restore_outputs(restoring, stream, command);
}

/* A CommandSnapshot, and its CommandExtra, on which *extra stands. */
static int read_command(struct restoring *restoring, const struct session *session, struct slice bytes,
                        struct canonical_reader *extra, struct restored_command *command)
{
    enum { COMMAND_OPEN, COMMAND_COMPLETE };
    uint64_t last = restoring->sequence_num;
    struct slice extra_bytes;
    struct canonical_reader reader = canonical_reader(bytes);
    command->sequence_num = canonical_number(&reader, ROW(CommandSnapshot, command_sequence_num));
    uint64_t state = canonical_number(&reader, ROW(CommandSnapshot, state));
    command->open = state == COMMAND_OPEN;
    command->input = canonical_bytes(&reader, ROW(CommandSnapshot, input));
    command->outputs = (struct slice){reader.at, (size_t)(reader.end - reader.at)};
    if (reader.wrong || state > COMMAND_COMPLETE || command->open != (command->input.size > 0))
        return restoring_wrong(restoring, "a command behind it is not a CommandSnapshot");
    if (command->sequence_num <= last)
        return restoring_wrong(restoring, "the commands' numbers do not rise");
    restoring->sequence_num = command->sequence_num;
    if (!canonical_message(extra, 5, &extra_bytes))
        return restoring_wrong(restoring, "the SnapshotExtra does not have it");
    reader = canonical_reader(extra_bytes);
    uint64_t sequence_num = canonical_number(&reader, 1);
    command->index = canonical_number(&reader, 2);
    command->last_output = canonical_number(&reader, 3);
    uint64_t stream = canonical_number(&reader, 4);
    command->stream = stream == 1;
    if (!canonical_end(&reader) || stream > 1 || sequence_num != command->sequence_num)
        return restoring_wrong(restoring, "the SnapshotExtra has another one");
    if (command->index <= session->id || command->index > restoring->fsm->index)
        return restoring_wrong(restoring, "its index is not between its session's and the state's");
    if (command->open && !command->stream)
        return restoring_wrong(restoring, "it is open, but the SnapshotExtra says that it never was");
    return 0;
}

/* ---- the session ---- */

/* A SessionSnapshot up to its commands, and a SessionExtra up to its own; NULL with *error. */
static struct session *read_session(struct restoring *restoring, struct canonical_reader *reader,
                                    struct canonical_reader *extra, uint64_t *highest)
{
    struct fsm *fsm = restoring->fsm;
    uint64_t last = restoring->session_id, timeout = 0, last_updated = 0;
    uint64_t id = canonical_number(reader, ROW(SessionSnapshot, session_id));
    struct slice extra_bytes = {NULL, 0};
    restoring->sequence_num = 0;
    if (id <= last || id > fsm->index) {
        restoring_wrong(restoring, "the sessions' ids do not rise, or not within the state's index");
        return NULL;
    }
    restoring->session_id = id;
    if (!canonical_time(reader, ROW(SessionSnapshot, timeout), &timeout) ||
        !canonical_time(reader, ROW(SessionSnapshot, last_updated), &last_updated) || timeout == 0 ||
        timeout > MR_SESSION_TIMEOUT_MAX || last_updated > fsm->time) { /* its deadline may have passed: fsm_apply() */
        restoring_wrong(restoring, "its times cannot be: it must have begun");
        return NULL;
    }
    bool there = canonical_message(&restoring->extra, 2, &extra_bytes);
    *extra = canonical_reader(extra_bytes);
    uint64_t extra_id = canonical_number(extra, 1), uid = canonical_number(extra, 2);
    uint64_t given_up = canonical_number(extra, 3);
    *highest = canonical_number(extra, 4);
    if (!there || extra->wrong || extra_id != id || uid > UINT32_MAX) {
        restoring_wrong(restoring, "the SnapshotExtra does not have it in its place");
        return NULL;
    }
    struct session *session = fsm_add_session(fsm, id, (uint32_t)uid, timeout, last_updated);
    session_restore_floor(session, given_up);
    return session;
}

int restore_session(struct restoring *restoring, struct slice bytes)
{
    struct canonical_reader reader = canonical_reader(bytes), extra;
    uint64_t highest = 0;
    struct session *session = read_session(restoring, &reader, &extra, &highest);
    if (session == NULL)
        return -1;
    struct slice part;
    while (canonical_message(&reader, ROW(SessionSnapshot, commands), &part)) {
        struct restored_command command = {.stream = false};
        if (read_command(restoring, session, part, &extra, &command) != 0)
            return -1;
        if (PLANTED(NUMBER_FORGOTTEN) && command.sequence_num == highest && !command.stream)
            continue;
        if ((command.stream ? restore_stream : restore_answer)(restoring, session, &command) != 0)
            return -1;
    }
    restoring->sequence_num = 0;
    if (!canonical_end(&reader))
        return restoring_wrong(restoring, "it goes on behind its last command");
    if (!canonical_end(&extra))
        return restoring_wrong(restoring, "the SnapshotExtra goes on behind its last command");
    /* What is over the floor and was ever applied is still held. */
    if (session->highest != highest && !PLANTED(NUMBER_FORGOTTEN))
        return restoring_wrong(restoring, "its highest number is neither held nor given up");
    return 0;
}
