/* SPDX-License-Identifier: Apache-2.0 */
/* Leaving sessions and coming back to them. What mr_session_save() writes, all numbers little-endian:
 *
 *     0    "MRS1"          the format
 *     4    16 bytes        the data directory's identity
 *     20   u32             sessions that follow:
 *              u32         partition
 *              u32         streams that follow the session
 *              u64         session's id
 *                  u64     the stream's sequence number
 *                  u64     the highest of its outputs that is not needed any more
 *     end  u64             XXH3-64 of all bytes before
 *
 * Coming back: for each session the channel to its partition, then Attach on the node's socket. The answer says which
 * number is the highest that was ever used, behind which numbering goes on, and what is open. Everything that is
 * complete nobody will ask for any more: the next KeepAlive drops it, by not naming it. What is open is named, and
 * offered. A first KeepAlive of its own renews, for the session may be near its end. */
#include "ipc/client/resume.h"

#include "ipc/client/connection.h"
#include "ipc/client/keep_alive.h"
#include "ipc/client/link.h"
#include "ipc/client/question.h"
#include "ipc/client/renew.h"
#include "ipc/client/session.h"
#include "ipc/client/stream.h"
#include "ipc/client/wait.h"
#include "millrace/v1/control.pb-c.h"

#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

enum { HEAD_BYTES = 24, SESSION_BYTES = 16, STREAM_BYTES = 16, SUM_BYTES = 8 };
static const char format[4] = {'M', 'R', 'S', '1'};

/* ---- Saving ---- */

static uint8_t *put(uint8_t *to, uint64_t number, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *to++ = (uint8_t)(number >> 8 * i);
    return to;
}

static const struct link *link_with_session(const struct mr_client *client, uint32_t place)
{
    const struct link *link = client->links[place];
    return link != NULL && link->session.id != 0 && !link->session.lost ? link : NULL;
}

/* One that ended because the node is gone is still open there. */
static bool is_open_in(const struct link *link, const struct mr_stream *stream)
{
    return stream->link == link && stream->sequence_num != 0 && stream->session_id == link->session.id &&
           (!stream_is_done(stream) || stream->end == MR_NO_NODE);
}

/* How many streams and pending ones; writes them if `to` is not NULL. */
static uint32_t save_streams(const struct link *link, uint8_t *to)
{
    uint32_t count = 0;

    for (const struct mr_stream *stream = link->client->streams; stream != NULL; stream = stream->next) {
        if (!is_open_in(link, stream))
            continue;
        if (to != NULL)
            to = put(put(to, stream->sequence_num, 8), stream->acknowledged, 8);
        count++;
    }
    for (const struct pending *pending = link->session.pending; pending != NULL; pending = pending->next) {
        if (to != NULL)
            to = put(put(to, pending->sequence_num, 8), pending->acknowledged, 8);
        count++;
    }
    return count;
}

enum mr_status mr_session_save(struct mr_client *client, void *buffer, size_t capacity, size_t *size)
{
    enum mr_status status = client_enter(client);
    uint8_t *to = buffer;
    uint32_t sessions = 0;
    size_t needed = HEAD_BYTES + SUM_BYTES;

    if (status != MR_OK)
        return status;
    if (size == NULL || (buffer == NULL && capacity > 0))
        return client_fail_with(client, MR_INVALID, "mr_session_save: neither buffer nor size may be NULL");
    for (uint32_t i = 0; i < client->partitions; i++) {
        const struct link *link = link_with_session(client, i);
        if (link == NULL)
            continue;
        sessions++;
        needed += SESSION_BYTES + STREAM_BYTES * (size_t)save_streams(link, NULL);
    }
    *size = needed;
    if (to == NULL || capacity < needed)
        return client_fail(client, MR_INVALID, "what is saved takes %zu bytes, the buffer has %zu", needed, capacity);
    memcpy(to, format, sizeof(format));
    memcpy(to + 4, client->directory, sizeof(client->directory));
    to = put(to + 20, sessions, 4);
    for (uint32_t i = 0; i < client->partitions; i++) {
        const struct link *link = link_with_session(client, i);
        if (link == NULL)
            continue;
        uint32_t streams = save_streams(link, NULL);
        to = put(put(put(to, link->partition, 4), streams, 4), link->session.id, 8);
        save_streams(link, to);
        to += STREAM_BYTES * (size_t)streams;
    }
    put(to, XXH3_64bits(buffer, needed - SUM_BYTES), 8);
    return MR_OK;
}

/* ---- Reading what was saved ---- */

/* Where in the bytes we are. */
struct saved {
    const uint8_t *at, *end;
    bool short_of; /* more was asked for than there is */
};

static uint64_t get(struct saved *saved, unsigned bytes)
{
    uint64_t number = 0;

    if ((size_t)(saved->end - saved->at) < bytes) {
        saved->short_of = true;
        return 0;
    }
    for (unsigned i = 0; i < bytes; i++)
        number |= (uint64_t)*saved->at++ << 8 * i;
    return number;
}

static enum mr_status check_saved(struct mr_client *client, struct saved *saved)
{
    const uint8_t *bytes = client->options.resume;
    size_t size = client->options.resume_size;

    bool ours = size >= HEAD_BYTES + SUM_BYTES && memcmp(bytes, format, sizeof(format)) == 0;
    if (ours) {
        struct saved sum = {bytes + size - SUM_BYTES, bytes + size, false};
        ours = get(&sum, 8) == XXH3_64bits(bytes, size - SUM_BYTES);
    }
    if (!ours)
        return client_fail_with(client, MR_INVALID,
                                "options.resume is not what mr_session_save() of this version wrote");
    if (memcmp(bytes + 4, client->directory, sizeof(client->directory)) != 0)
        return client_fail(client, MR_SESSION_LOST,
                           "the node at %s serves another data directory than the one the sessions are in",
                           client->path);
    *saved = (struct saved){bytes + 20, bytes + size - SUM_BYTES, false};
    return MR_OK;
}

/* ---- Coming back ---- */

/* Copies of four strings, NUL-terminated, behind the struct. */
static struct pending *make_pending(const struct link *link, const Millrace__V1__OpenCommand *command)
{
    const ProtobufCBinaryData texts[4] = {command->service, command->name_space, command->name, command->operation};
    const char *copies[4];
    size_t size = sizeof(struct pending) + 4;

    for (int i = 0; i < 4; i++)
        size += texts[i].len;
    struct pending *pending = calloc(1, size);
    if (pending == NULL)
        return NULL;
    char *to = (char *)(pending + 1);
    for (int i = 0; i < 4; i++) {
        if (texts[i].len > 0)
            memcpy(to, texts[i].data, texts[i].len);
        copies[i] = to;
        to += texts[i].len + 1;
    }
    pending->sequence_num = command->sequence_num;
    pending->acknowledged = command->acknowledged;
    pending->service_id = command->service_id;
    pending->shown = (struct mr_pending_request){.partition = link->partition,
                                                 .service = copies[0],
                                                 .name_space = copies[1],
                                                 .name = copies[2],
                                                 .operation = copies[3],
                                                 .request = command->sequence_num};
    return pending;
}

static int by_number(const void *a, const void *b)
{
    uint64_t left = (*(Millrace__V1__OpenCommand *const *)a)->sequence_num;
    uint64_t right = (*(Millrace__V1__OpenCommand *const *)b)->sequence_num;

    return (left > right) - (left < right);
}

static enum mr_status take_attachment(struct link *link, const Millrace__V1__Attachment *attachment)
{
    struct mr_client *client = link->client;
    struct pending **last = &link->session.pending;
    enum mr_status status = session_adopt(link, attachment->session_id, attachment->highest);

    if (status != MR_OK)
        return status;
    uint64_t timeout =
        attachment->timeout_ns > MR_SESSION_TIMEOUT_MIN ? attachment->timeout_ns : MR_SESSION_TIMEOUT_MIN;
    if (timeout / 3 < client->renew_every)
        client->renew_every = timeout / 3;
    if (attachment->n_open > 0)
        qsort(attachment->open, attachment->n_open, sizeof(attachment->open[0]), by_number);
    for (size_t i = 0; i < attachment->n_open; i++) {
        *last = make_pending(link, attachment->open[i]);
        if (*last == NULL)
            return client_out_of_memory(client);
        last = &(*last)->next;
    }
    return MR_OK;
}

static enum mr_status attach(struct link *link, uint64_t session_id, uint64_t deadline)
{
    struct mr_client *client = link->client;
    enum mr_status status = connection_wait_open(link, deadline);

    if (status == MR_OK)
        status = question_sessions(link, session_id, deadline);
    if (status != MR_OK)
        return status == MR_FORBIDDEN ? MR_SESSION_LOST : status; /* the text is the node's */
    if (client->strangers > 0)
        return client_fail_with(client, MR_SESSION_LOST, client->stranger_text);
    Millrace__V1__Attachment *attachment = millrace__v1__attachment__unpack(NULL, client->memory_size, client->memory);
    if (attachment == NULL)
        return client_fail_with(client, MR_INTERNAL, "the node's answer to Attach does not decode");
    status = take_attachment(link, attachment);
    millrace__v1__attachment__free_unpacked(attachment, NULL);
    return status;
}

/* What was saved may know of more that has been taken than the node does. */
static void take_streams(struct link *link, struct saved *saved, uint64_t count)
{
    for (; count > 0 && !saved->short_of; count--) {
        uint64_t sequence_num = get(saved, 8);
        uint64_t acknowledged = get(saved, 8);
        for (struct pending *pending = link->session.pending; pending != NULL; pending = pending->next)
            if (pending->sequence_num == sequence_num && pending->acknowledged < acknowledged)
                pending->acknowledged = acknowledged;
    }
}

static enum mr_status resume_one(struct mr_client *client, struct saved *saved, uint64_t deadline)
{
    uint32_t partition = (uint32_t)get(saved, 4);
    uint64_t streams = get(saved, 4);
    uint64_t session_id = get(saved, 8);

    if (saved->short_of || session_id == 0 || streams > (uint64_t)(saved->end - saved->at) / STREAM_BYTES)
        return client_fail_with(client, MR_INVALID, "options.resume: what it says of sessions does not make sense");
    struct link *link;
    enum mr_status status = connection_link(client, partition, &link);
    if (status == MR_OK)
        status = attach(link, session_id, deadline);
    if (status == MR_OK)
        take_streams(link, saved, streams);
    return status;
}

/* Renews it at once and lets the node drop what nobody will ask for; from then on the thread renews. */
static enum mr_status go_on_with(struct link *link, uint64_t deadline)
{
    enum mr_status status = session_check(link, deadline);

    if (status != MR_OK)
        return status == MR_FORBIDDEN ? MR_SESSION_LOST : status;
    keep_alive_run(link);
    link_flush(link);
    return renewer_add(link);
}

/* The sessions are not this handle's. */
static void forget_sessions(struct mr_client *client)
{
    for (uint32_t i = 0; i < client->partitions; i++)
        if (client->links[i] != NULL) {
            session_free(&client->links[i]->session);
            client->links[i]->session = (struct session){.id = 0};
        }
}

enum mr_status resume_sessions(struct mr_client *client, uint64_t deadline)
{
    struct saved saved = {NULL, NULL, false};
    enum mr_status status = check_saved(client, &saved);

    if (status != MR_OK)
        return status;
    for (uint64_t count = get(&saved, 4); count > 0 && status == MR_OK; count--)
        status = resume_one(client, &saved, deadline);
    if (status == MR_OK)
        status = renewer_start(client);
    for (uint32_t i = 0; i < client->partitions && status == MR_OK; i++)
        if (link_with_session(client, i) != NULL)
            status = go_on_with(client->links[i], deadline);
    if (status != MR_OK)
        forget_sessions(client);
    return status;
}

enum mr_status mr_pending(struct mr_client *client, size_t n, struct mr_pending_request *pending)
{
    enum mr_status status = client_enter(client);

    if (status != MR_OK)
        return status;
    if (pending == NULL)
        return client_fail_with(client, MR_INVALID, "pending may not be NULL");
    for (uint32_t i = 0; i < client->partitions; i++) {
        const struct link *link = link_with_session(client, i);
        for (const struct pending *at = link != NULL ? link->session.pending : NULL; at != NULL; at = at->next)
            if (n-- == 0) {
                *pending = at->shown;
                return MR_OK;
            }
    }
    return client_fail_with(client, MR_NOT_FOUND, "no more is left open");
}

enum mr_status resume_stream(struct handle *handle, const char *operation, uint64_t request, struct mr_stream **out)
{
    if (out != NULL)
        *out = NULL;
    if (handle == NULL)
        return MR_INVALID;
    struct mr_client *client = handle->client;
    const struct service *service = handle->service;
    enum mr_status status = client_enter_alone(client);
    if (status != MR_OK)
        return status;
    if (out == NULL)
        return client_fail_with(client, MR_INVALID, "out may not be NULL");
    struct session *session = &service->link->session;
    struct pending **at = &session->pending;
    if (service->session_id != session->id || session->lost)
        return client_fail_with(client, MR_SESSION_LOST, "the session that it was left open in was lost");
    while (*at != NULL && ((*at)->sequence_num != request || (*at)->service_id != service->id ||
                           strcmp((*at)->shown.operation, operation) != 0))
        at = &(*at)->next;
    if (*at == NULL)
        return client_fail(client, MR_NOT_FOUND, "no %s of number %" PRIu64 " was left open on %s", operation, request,
                           service->name);
    struct pending *pending = *at;
    status = stream_resume(handle, pending, out);
    if (status == MR_OK) {
        *at = pending->next;
        free(pending);
    }
    return status;
}

/* ---- Leaving ---- */

static bool is_told(const struct mr_client *client, const void *argument)
{
    (void)argument;
    for (uint32_t i = 0; i < client->open_count; i++) {
        const struct session *session = &client->open[i]->session;
        if (session->id != 0 && !session->lost && session->answered > 0 && (session->due || session->keep_alive != 0))
            return false;
    }
    return true;
}

void leave_word(struct mr_client *client, uint64_t deadline)
{
    client_unpin(client);
    client->reserved = NULL;
    for (uint32_t i = 0; i < client->open_count; i++)
        client->open[i]->session.due = true;
    client->may_set_aside = true;
    (void)client_wait(client, is_told, NULL, deadline); /* if not, what was saved says it */
    client->may_set_aside = false;
}
