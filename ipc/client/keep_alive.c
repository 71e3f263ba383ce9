/* SPDX-License-Identifier: Apache-2.0 */
/* What a KeepAlive says: that every number up to `answered` has had an answer, which of these the session is to keep
 * all the same (the filter), and up to which output each of those has been taken. A command with one output is done
 * with its answer; what is kept are the streams, from their first output until the last has been taken or the stream is
 * closed, and what an earlier process has left open. So a stream is canceled by not being named.
 *
 * One is sent after some thousands of answers or outputs, or some bytes of them, so that a session stays small and far
 * from its limit, and at once for a stream that is over; one at a time. A number above `answered` (one before it still
 * waits for its answer) cannot be told of yet, and waits for that. */
#include "ipc/client/keep_alive.h"

#include "ipc/client/filter.h"
#include "ipc/client/session.h"
#include "ipc/client/stream.h"

#include <stdlib.h>

#define AROUND 64       /* bytes of a KeepAlive besides filter and outputs, at most */
#define OUTPUT_BYTES 24 /* of one entry of last_output_sequence_nums, at most */

enum mr_status keep_alive_renew(struct link *link, uint64_t session_id, struct mr_then then)
{
    struct partition_command_input input = {.partition_id = link->partition, .has_command = true};
    uint64_t request;

    input.command.kind = COMMAND_KEEP_ALIVE;
    input.command.session_id = session_id;
    return command_start(link, &input, NULL, 0, ANSWER_PLAIN, then, &request);
}

/* ---- What is to be kept ---- */

/* Is it to be named, if its number may be told of? */
static bool is_kept(const struct link *link, const struct mr_stream *stream)
{
    const struct session *session = &link->session;
    return stream->link == link && stream->sequence_num != 0 && stream->session_id == session->id &&
           stream->sequence_num <= session->answered && !stream_is_done(stream);
}

struct told {
    uint8_t *filter;
    size_t filter_size;
    struct last_output *outputs;
    size_t output_count;
    bool all; /* every output that was taken is told of */
};

static int by_number(const void *a, const void *b)
{
    const struct last_output *one = a;
    const struct last_output *other = b;
    return one->sequence_num < other->sequence_num ? -1 : one->sequence_num > other->sequence_num;
}

/* False: no memory. */
static bool collect(const struct link *link, struct told *told)
{
    size_t most = link->size_max;
    size_t count = 0;

    *told = (struct told){.all = true};
    for (const struct mr_stream *stream = link->client->streams; stream != NULL; stream = stream->next)
        count += is_kept(link, stream);
    for (const struct pending *pending = link->session.pending; pending != NULL; pending = pending->next)
        count++;
    if (count == 0)
        return true;
    most = most > 2 * AROUND ? most - AROUND : AROUND;
    told->filter_size = filter_size(count, most / 2);
    told->filter = malloc(told->filter_size);
    told->outputs = malloc(count * sizeof(*told->outputs));
    if (told->filter == NULL || told->outputs == NULL)
        return false;
    filter_begin(told->filter, told->filter_size, count);
    for (const struct pending *pending = link->session.pending; pending != NULL; pending = pending->next)
        filter_add(told->filter, told->filter_size, pending->sequence_num);
    size_t outputs_most = (most - told->filter_size) / OUTPUT_BYTES;
    for (struct mr_stream *stream = link->client->streams; stream != NULL; stream = stream->next) {
        if (!is_kept(link, stream))
            continue;
        filter_add(told->filter, told->filter_size, stream->sequence_num);
        if (stream->acknowledged <= stream->told)
            continue;
        if (told->output_count == outputs_most) {
            told->all = false;
            continue;
        }
        told->outputs[told->output_count++] =
            (struct last_output){.sequence_num = stream->sequence_num, .last_output = stream->acknowledged};
    }
    qsort(told->outputs, told->output_count, sizeof(*told->outputs), by_number);
    return true;
}

/* It is on its way. */
static void note_told(struct link *link, const struct told *told)
{
    struct session *session = &link->session;

    for (struct mr_stream *stream = link->client->streams; stream != NULL; stream = stream->next) {
        struct last_output key = {.sequence_num = stream->sequence_num};
        if (told->output_count > 0 && is_kept(link, stream) &&
            bsearch(&key, told->outputs, told->output_count, sizeof(key), by_number) != NULL)
            stream->told = stream->acknowledged;
    }
    session->told = session->answered;
    session->answer_bytes = 0;
    session->taken = 0;
    session->taken_bytes = 0;
    session->due = !told->all;
    if (session->over_last <= session->answered)
        session->over_first = session->over_last = 0;
    else if (session->over_first <= session->answered)
        session->over_first = session->over_last; /* those between go with it at the latest */
}

/* ---- Sending ---- */

static void keep_alive_done(struct mr_client *client, const struct mr_result *result)
{
    struct link *link = result->arg;
    struct session *session = &link->session;
    uint64_t id = session->keep_alive;

    session->keep_alive = 0;
    if (id != session->id || result->status == MR_OK)
        return;
    if (result->status == MR_FORBIDDEN) {
        session_lost(session, result->message);
        return;
    }
    /* Refused for any other reason (a limit, the disk): the next one says the same and more. */
    for (struct mr_stream *stream = client->streams; stream != NULL; stream = stream->next)
        if (stream->link == link)
            stream->told = 0;
}

static bool is_due(const struct session *session)
{
    if (session->answered == 0)
        return false;
    return session->answered - session->told >= MR_KEEP_ALIVE_ANSWERS ||
           (session->answer_bytes >= MR_KEEP_ALIVE_BYTES && session->answered != session->told) ||
           keep_alive_has_enough(session) || session->due ||
           (session->over_first != 0 && session->over_first <= session->answered);
}

static void send(struct link *link)
{
    struct session *session = &link->session;
    struct partition_command_input input = {.partition_id = link->partition, .has_command = true};
    struct mr_then then = {keep_alive_done, link};
    struct told told;
    uint64_t request;

    input.command.kind = COMMAND_KEEP_ALIVE;
    input.command.session_id = session->id;
    input.command.last_input_sequence_num = session->answered;
    if (collect(link, &told)) {
        input.command.input_filter = (struct slice){told.filter, told.filter_size};
        if (command_start(link, &input, told.outputs, told.output_count, ANSWER_PLAIN, then, &request) == MR_OK) {
            session->keep_alive = session->id;
            note_told(link, &told);
        }
    } /* no memory, no room: in a later run */
    free(told.filter);
    free(told.outputs);
}

void keep_alive_run(struct link *link)
{
    const struct session *session = &link->session;

    if (session->id != 0 && !session->lost && session->keep_alive == 0 && !link->client->closing && is_due(session))
        send(link);
}

void keep_alive_over(struct session *session, uint64_t sequence_num)
{
    if (session->over_first == 0 || sequence_num < session->over_first)
        session->over_first = sequence_num;
    if (sequence_num > session->over_last)
        session->over_last = sequence_num;
}
