/* SPDX-License-Identifier: Apache-2.0 */
/* A state out of its bytes (dump.c says what they are). They are taken only if they are just what would be written of
 * the state that they make: whatever can be read in two ways, or cannot have come about, is refused. A checksum has
 * vouched for them before; what is looked for here is what it cannot tell, our own mistakes, before they do harm.
 *
 * Sessions come first, with their commands. Those that are open name a service and wait in a list; when that service
 * comes, it has its sessions open and then fills itself from its data, and takes its open commands from the list by
 * stream_restore(). Only then is such a command put on the opening it belongs to, so that a state which is given up
 * half-way holds nothing that its service does not know. */
#include "engine/fsm/restore.h"

#include "engine/fsm/duration.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int restoring_wrong(const struct restoring *restoring, const char *what)
{
    char where[96] = "";
    if (restoring->lost)
        return -1;
    if (restoring->service_id != 0)
        snprintf(where, sizeof(where), "service %" PRIu64 ": ", restoring->service_id);
    else if (restoring->sequence_num != 0)
        snprintf(where, sizeof(where), "session %" PRIu64 ", command %" PRIu64 ": ", restoring->session_id,
                 restoring->sequence_num);
    else if (restoring->session_id != 0)
        snprintf(where, sizeof(where), "session %" PRIu64 ": ", restoring->session_id);
    return error_set(restoring->error, "this cannot be a snapshot of a partition's state: %s%s", where, what);
}

/* ---- what is there ---- */

/* So many bytes from where the reader of a part of the snapshot stands, or what is left of the part, if anything is.
 * False: they cannot be had, and the reader reads no further. */
static bool need(struct restoring *restoring, struct canonical_reader *reader, size_t size)
{
    const struct fsm_source *source = restoring->source;
    const uint8_t *from = reader->at;
    size_t left = (size_t)(reader->end - from);
    const uint8_t *to = from + (size < left ? size : left);
    if (source == NULL || left == 0 || (from >= restoring->there[0] && to <= restoring->there[1]))
        return true;
    const uint8_t *end = restoring->lost ? NULL : source->need(source->context, from, to, restoring->error);
    if (end == NULL) {
        restoring->lost = true;
        canonical_fail(reader);
        return false;
    }
    restoring->there[0] = from;
    restoring->there[1] = end;
    return true;
}

/* A tag with a number or a length behind it is shorter; and so are index and time of a partition. */
enum { HEAD_MAX = 16, PARTITION_HEAD_MAX = 48 };

/* canonical_message() where reader and message may not be there yet; then all of the message is. */
static bool need_message(struct restoring *restoring, struct canonical_reader *reader, unsigned field,
                         struct slice *bytes)
{
    if (!need(restoring, reader, HEAD_MAX) || !canonical_message(reader, field, bytes))
        return false;
    struct canonical_reader message = canonical_reader(*bytes);
    if (!need(restoring, &message, bytes->size))
        canonical_fail(reader);
    return !reader->wrong;
}

bool restore_message(struct service_host *host, struct canonical_reader *reader, unsigned field, struct slice *bytes)
{
    struct restoring *restoring = container_of(host, struct fsm, services.host)->restoring;
    mr_assert(restoring != NULL);
    return need_message(restoring, reader, field, bytes);
}

void restore_passed(struct service_host *host, const uint8_t *at)
{
    enum { TELL_EVERY = 8 << 20 };
    struct restoring *restoring = container_of(host, struct fsm, services.host)->restoring;
    mr_assert(restoring != NULL);
    const struct fsm_source *source = restoring->source;
    if (source == NULL || source->passed == NULL || at - restoring->told < TELL_EVERY)
        return;
    restoring->told = at;
    source->passed(source->context, restoring->data, at);
}

bool canonical_time(struct canonical_reader *reader, unsigned field, uint64_t *nanoseconds)
{
    struct slice bytes;
    if (!canonical_message(reader, field, &bytes))
        return false;
    struct canonical_reader time = canonical_reader(bytes);
    uint64_t seconds = canonical_number(&time, 1), rest = canonical_number(&time, 2);
    return canonical_end(&time) && rest < NANOSECONDS_PER_SECOND &&
           !__builtin_mul_overflow(seconds, NANOSECONDS_PER_SECOND, nanoseconds) &&
           !__builtin_add_overflow(*nanoseconds, rest, nanoseconds);
}

/* ---- open commands and their services ---- */

static int by_service(const void *a, const void *b)
{
    const struct open_stream *left = a, *right = b;
    if (left->service_id != right->service_id)
        return left->service_id < right->service_id ? -1 : 1;
    uint64_t left_index = left->stream->command.index, right_index = right->stream->command.index;
    return (left_index > right_index) - (left_index < right_index);
}

struct stream *stream_restore(struct service_host *host, uint64_t index, void *listener)
{
    struct fsm *fsm = container_of(host, struct fsm, services.host);
    struct restoring *restoring = fsm->restoring;
    mr_assert(restoring != NULL);
    size_t low = restoring->first, high = restoring->last;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (restoring->streams[middle].stream->command.index < index)
            low = middle + 1;
        else
            high = middle;
    }
    struct open_stream *open = &restoring->streams[low];
    if (low == restoring->last || open->stream->command.index != index || open->claimed)
        return NULL;
    struct stream *stream = open->stream;
    open->claimed = true;
    stream->listener = listener;
    stream->opening = service_opening(stream->session, restoring->service_id);
    list_append(&stream->opening->streams, &stream->of_opening);
    return stream;
}

static bool opens(const struct service_type *type, struct slice name)
{
    for (size_t i = 0; i < type->operation_count; i++) {
        const struct service_operation *operation = &type->operations[i];
        if (operation->kind == OPERATION_STREAM && operation_is(operation, name))
            return true;
    }
    return false;
}

/* Finds the service's part of the list and sees whether its commands can be open on it. */
static int find_streams(struct restoring *restoring, const struct service *service)
{
    restoring->first = restoring->last;
    if (restoring->first < restoring->count && restoring->streams[restoring->first].service_id < service->id)
        return restoring_wrong(restoring, "open commands name a service before it, which is not there");
    for (; restoring->last < restoring->count; restoring->last++) {
        const struct open_stream *open = &restoring->streams[restoring->last];
        const struct stream *stream = open->stream;
        if (open->service_id != service->id)
            break;
        if (service_opening(stream->session, service->id) == NULL)
            return restoring_wrong(restoring, "a command is open on it, but its session has not opened it");
        if (!opens(service->type, open->operation))
            return restoring_wrong(restoring, "a command is open whose operation never opens");
        if (stream->command.index <= service->id)
            return restoring_wrong(restoring, "a command is open that is older than it");
        if (restoring->last > restoring->first && stream->command.index == open[-1].stream->command.index)
            return restoring_wrong(restoring, "two commands with the same index are open on it");
    }
    return 0;
}

/* All are claimed; on each opening they now stand in the order in which they were opened. */
static int settle_streams(const struct restoring *restoring)
{
    for (size_t i = restoring->first; i < restoring->last; i++) {
        struct stream *stream = restoring->streams[i].stream;
        if (!restoring->streams[i].claimed)
            return restoring_wrong(restoring, "a command is open on it of which its data does not know");
        list_remove(&stream->of_opening);
        list_append(&stream->opening->streams, &stream->of_opening);
    }
    return 0;
}

/* ---- services ---- */

static int restore_openings(const struct restoring *restoring, struct service *service, struct slice bytes)
{
    struct canonical_reader reader = canonical_reader(bytes);
    for (uint64_t last = 0; reader.at != reader.end;) {
        uint64_t id = canonical_varint(&reader);
        struct session *session = id <= last ? NULL : fsm_find_session(restoring->fsm, id);
        if (session == NULL)
            return restoring_wrong(restoring, "the sessions that have it open are not there, or not in order");
        service_table_open(session, service);
        last = id;
    }
    return 0;
}

/* NULL with *error: there is no such service. */
static struct service *restore_spec(const struct restoring *restoring, struct slice bytes)
{
    struct service_table *table = &restoring->fsm->services;
    struct canonical_reader reader = canonical_reader(bytes);
    struct service_spec spec;
    spec.service = canonical_bytes(&reader, ROW(ServiceSpec, service));
    spec.name_space = canonical_bytes(&reader, ROW(ServiceSpec, namespace));
    spec.name = canonical_bytes(&reader, ROW(ServiceSpec, name));
    if (!canonical_end(&reader) || spec.name.size == 0 || !utf8_valid(spec.name_space) || !utf8_valid(spec.name)) {
        restoring_wrong(restoring, "its spec is not one");
        return NULL;
    }
    const struct service_type *type = service_table_type(table, spec.service);
    if (type == NULL || type->restore == NULL) {
        int size = spec.service.size > 96 ? 96 : (int)spec.service.size;
        error_set(restoring->error, "the snapshot has a service of the type `%.*s`, which this program does not know",
                  size, size == 0 ? "" : (const char *)spec.service.data);
        return NULL;
    }
    if (service_table_find(table, &spec) != NULL) {
        restoring_wrong(restoring, "another one has its name");
        return NULL;
    }
    return service_table_create(table, type, &spec, restoring->service_id);
}

static int restore_service(struct restoring *restoring, struct slice bytes)
{
    struct canonical_reader reader = canonical_reader(bytes);
    struct slice spec = {NULL, 0}, data = {NULL, 0}, sessions = {NULL, 0};
    uint64_t last = restoring->service_id, id = 0;
    if (need(restoring, &reader, HEAD_MAX))
        id = canonical_number(&reader, ROW(ServiceSnapshot, service_id));
    bool has_spec = need_message(restoring, &reader, ROW(ServiceSnapshot, spec), &spec);
    if (need(restoring, &reader, HEAD_MAX))
        data = canonical_bytes(&reader, ROW(ServiceSnapshot, data));
    if (need(restoring, &reader, (size_t)(reader.end - reader.at)))
        sessions = canonical_bytes(&reader, ROW(ServiceSnapshot, sessions));
    if (!canonical_end(&reader) || !has_spec)
        return restoring_wrong(restoring, "a service behind it is not a ServiceSnapshot");
    if (id <= last || id > restoring->fsm->index)
        return restoring_wrong(restoring, "the services' ids do not rise, or not within the state's index");
    restoring->service_id = id;
    if (fsm_find_session(restoring->fsm, id) != NULL)
        return restoring_wrong(restoring, "it has the id of a session");
    struct service *service = restore_spec(restoring, spec);
    if (service == NULL || restore_openings(restoring, service, sessions) != 0 || find_streams(restoring, service) != 0)
        return -1;
    restoring->data = restoring->told = data.data;
    struct canonical_reader beginning = canonical_reader(data);
    if (!need(restoring, &beginning, RESTORE_THERE))
        return restoring_wrong(restoring, "its data is not there");
    if (!service->type->restore(service->state, data))
        return restoring_wrong(restoring, "its data cannot be what a service of its type writes");
    return settle_streams(restoring);
}

/* ---- the partition ---- */

static int restore_partition(struct restoring *restoring, struct slice snapshot)
{
    struct fsm *fsm = restoring->fsm;
    struct canonical_reader reader = canonical_reader(snapshot);
    uint64_t limit = canonical_number(&restoring->extra, 1);
    if (!need(restoring, &reader, PARTITION_HEAD_MAX))
        return restoring_wrong(restoring, "it is not there");
    fsm->index = canonical_number(&reader, ROW(PartitionSnapshot, index));
    if (!canonical_time(&reader, ROW(PartitionSnapshot, timestamp), &fsm->time))
        return restoring_wrong(restoring, "it does not begin with an index and a time");
    if (fsm->index > INT64_MAX)
        return restoring_wrong(restoring, "its index is beyond what can be counted to");
    if (limit != fsm->config.session_output_limit)
        return error_set(restoring->error,
                         "the snapshot was taken with a limit of %" PRIu64
                         " bytes for a session's outputs, which is %" PRIu64 " now; it cannot be changed",
                         limit, fsm->config.session_output_limit);
    struct slice part;
    while (need_message(restoring, &reader, ROW(PartitionSnapshot, sessions), &part))
        if (restore_session(restoring, part) != 0)
            return -1;
    restoring->session_id = restoring->sequence_num = 0;
    if (!canonical_end(&restoring->extra))
        return restoring_wrong(restoring, "the SnapshotExtra goes on behind the last session");
    if (restoring->count > 0)
        qsort(restoring->streams, restoring->count, sizeof(restoring->streams[0]), by_service);
    while (need(restoring, &reader, HEAD_MAX) && canonical_message(&reader, ROW(PartitionSnapshot, services), &part))
        if (restore_service(restoring, part) != 0)
            return -1;
    if (restoring->last < restoring->count)
        return restoring_wrong(restoring, "open commands name a service behind it, which is not there");
    restoring->service_id = 0;
    return canonical_end(&reader) ? 0
                                  : restoring_wrong(restoring, "the PartitionSnapshot goes on behind its last part");
}

int fsm_restore(struct fsm *fsm, struct slice snapshot, struct slice extra, struct mr_error *error)
{
    return fsm_restore_from(fsm, snapshot, extra, NULL, error);
}

int fsm_restore_from(struct fsm *fsm, struct slice snapshot, struct slice extra, const struct fsm_source *source,
                     struct mr_error *error)
{
    mr_assert(fsm->index == 0 && fsm->time == 0 && list_empty(&fsm->sessions) && list_empty(&fsm->services.order));
    struct restoring restoring = {.fsm = fsm, .error = error, .extra = canonical_reader(extra), .source = source};
    fsm->restoring = &restoring;
    int result = restore_partition(&restoring, snapshot);
    fsm->restoring = NULL;
    call_drop(&fsm->call);
    free(restoring.streams);
    return result;
}
