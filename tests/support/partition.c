/* SPDX-License-Identifier: Apache-2.0 */
/* Driving a state machine without a log. */
#include "tests/support/partition.h"

#include "engine/services/types.h"
#include "ipc/error.h"
#include "proto/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct partition *partition_create(uint64_t hash_seed, uint64_t session_output_limit)
{
    return partition_create_with(hash_seed, session_output_limit, service_types);
}

struct partition *partition_create_with(uint64_t hash_seed, uint64_t session_output_limit,
                                        const struct service_type *const *types)
{
    struct fsm_config config = {.hash_seed = hash_seed, .session_output_limit = session_output_limit, .types = types};
    struct partition *partition = calloc(1, sizeof(*partition));
    mr_assert(partition != NULL);
    partition->config = config;
    partition->fsm = fsm_create(&config);
    partition->time = PARTITION_START;
    return partition;
}

void partition_destroy(struct partition *partition)
{
    fsm_destroy(partition->fsm);
    request_free(&partition->request);
    free(partition->reply.payload);
    for (size_t i = 0; i < partition->said_capacity; i++)
        free(partition->said[i].payload);
    free(partition->said);
    free(partition);
}

static void copy_message(struct reply *reply, struct slice message)
{
    mr_assert(message.size < sizeof(reply->message));
    if (message.size > 0)
        memcpy(reply->message, message.data, message.size);
    reply->message[message.size] = '\0';
}

static void copy_payload(struct reply *reply, const struct operation_output *operation)
{
    if (operation->payload_size > reply->capacity) {
        reply->payload = realloc(reply->payload, operation->payload_size);
        reply->capacity = operation->payload_size;
        mr_assert(reply->payload != NULL);
    }
    reply->payload_size = 0;
    for (size_t i = 0; i < operation->part_count; i++) {
        if (operation->parts[i].size > 0)
            memcpy(reply->payload + reply->payload_size, operation->parts[i].data, operation->parts[i].size);
        reply->payload_size += operation->parts[i].size;
    }
    mr_assert(reply->payload_size == operation->payload_size);
}

static void copy_operation(struct reply *reply, const struct operation_output *operation)
{
    reply->operation_status = operation->status;
    copy_message(reply, operation->message);
    copy_payload(reply, operation);
}

static void start_reply(struct reply *reply)
{
    *reply = (struct reply){.payload = reply->payload, .capacity = reply->capacity};
}

static void copy_reply(struct reply *to, const struct reply *from)
{
    struct slice part = {from->payload, from->payload_size};
    struct operation_output operation = {
        .status = from->operation_status, .parts = &part, .part_count = 1, .payload_size = from->payload_size};
    uint8_t *payload = to->payload;
    size_t capacity = to->capacity;
    *to = *from;
    to->payload = payload;
    to->capacity = capacity;
    copy_payload(to, &operation);
}

static struct reply *next_said(struct partition *partition)
{
    if (partition->said_count == partition->said_capacity) {
        size_t capacity = partition->said_capacity == 0 ? 16 : partition->said_capacity * 2;
        partition->said = realloc(partition->said, capacity * sizeof(*partition->said));
        mr_assert(partition->said != NULL);
        memset(partition->said + partition->said_count, 0,
               (capacity - partition->said_capacity) * sizeof(*partition->said));
        partition->said_capacity = capacity;
    }
    return &partition->said[partition->said_count++];
}

/* The body of an answer, which is what a client is given. One that cannot be read (a restored message need not be
 * UTF-8) leaves the reply with the status 0. */
static void read_body(struct reply *reply, const struct fsm_answer *answered)
{
    uint8_t *body = malloc(answered->size + 1);
    size_t size = 0;
    struct command_output output;
    struct slice part;
    mr_assert(body != NULL);
    for (size_t i = 0; i < answered->part_count; i++) {
        mr_assert(answered->parts[i].size <= answered->size - size);
        if (answered->parts[i].size > 0)
            memcpy(body + size, answered->parts[i].data, answered->parts[i].size);
        size += answered->parts[i].size;
    }
    mr_assert(size == answered->size);
    if (read_partition_command_output(body, size, &output, &part) == READ_OK) {
        mr_assert(answered->number == output.sequence_num);
        reply->index = output.index;
        reply->id = output.id;
        reply->kind = output.kind;
        reply->session_kind = output.session_kind;
        copy_operation(reply, &output.operation);
    }
    free(body);
}

static bool answer(void *context, const struct fsm_route *route, const struct fsm_answer *answered)
{
    struct partition *partition = context;
    if (answered->number != 0 && partition->room != NULL && !partition->room(partition->room_context, route, answered))
        return false;
    struct reply *reply = next_said(partition);
    start_reply(reply);
    reply->status = answered->status;
    reply->session_id = answered->session_id;
    reply->sequence_num = answered->sequence_num;
    reply->number = answered->number;
    reply->last = answered->last;
    reply->channel = route->channel;
    reply->position = route->position;
    if (answered->status != STATUS_OK)
        copy_message(reply, answered->message);
    else
        read_body(reply, answered);
    return true;
}

static void apply(struct partition *partition, const struct command_input *command)
{
    struct fsm_sink sink = {.context = partition, .answer = answer};
    struct fsm_entry entry = {.index = ++partition->index,
                              .time = partition->time,
                              .uid = partition->uid,
                              .route = partition->route,
                              .command = command};
    partition->said_count = 0;
    fsm_apply(partition->fsm, &entry, &sink);
}

void partition_submit(struct partition *partition)
{
    apply(partition, &partition->request.command.command);
}

bool partition_deliver(struct partition *partition, uint64_t session, uint64_t sequence_num, struct fsm_route route,
                       bool *gone)
{
    struct fsm_sink sink = {.context = partition, .answer = answer};
    partition->said_count = 0;
    return fsm_deliver(partition->fsm, session, sequence_num, &route, &sink, gone);
}

const struct reply *partition_apply(struct partition *partition)
{
    apply(partition, &partition->request.command.command);
    const struct reply *reply = NULL;
    for (size_t i = 0; i < partition->said_count; i++) {
        const struct reply *said = &partition->said[i];
        if (said->channel != partition->route.channel || said->position != partition->route.position)
            continue;
        mr_assert(reply == NULL && said->last);
        reply = said;
    }
    mr_assert(reply != NULL);
    copy_reply(&partition->reply, reply);
    return &partition->reply;
}

void partition_tick(struct partition *partition, uint64_t time)
{
    partition->time = time;
    apply(partition, NULL);
}

static struct fsm_cursor *query(struct partition *partition, uint64_t now)
{
    struct operation_output output;
    struct fsm_cursor *cursor;
    const char *message = "";
    struct reply *reply = &partition->reply;
    start_reply(reply);
    reply->status =
        fsm_query(partition->fsm, &partition->request.query, partition->uid, now, &output, &cursor, &message);
    if (reply->status != STATUS_OK)
        copy_message(reply, text(message));
    else if (cursor == NULL)
        copy_operation(reply, &output);
    return cursor;
}

const struct reply *partition_query(struct partition *partition, uint64_t now)
{
    struct fsm_cursor *cursor = query(partition, now);
    mr_assert(cursor == NULL);
    return &partition->reply;
}

struct fsm_cursor *partition_cursor(struct partition *partition, uint64_t session, uint64_t service,
                                    const char *operation, struct payload payload)
{
    request_query(&partition->request, session, service, operation, payload_slice(&payload));
    return query(partition, partition->time);
}

const struct reply *partition_cursor_next(struct partition *partition, struct fsm_cursor *cursor)
{
    struct operation_output output;
    const char *message = "";
    struct reply *reply = &partition->reply;
    start_reply(reply);
    reply->status = fsm_cursor_next(cursor, partition->time, &output, &reply->last, &message);
    if (reply->status == STATUS_OK)
        copy_operation(reply, &output);
    else
        copy_message(reply, text(message));
    fsm_cursor_taken(cursor);
    return reply;
}

struct duration duration_of(uint64_t nanoseconds)
{
    return (struct duration){(int64_t)(nanoseconds / MR_SECOND), (int32_t)(nanoseconds % MR_SECOND), true};
}

uint64_t partition_open_session(struct partition *partition, uint64_t timeout)
{
    request_open_session(&partition->request, duration_of(timeout));
    const struct reply *reply = partition_apply(partition);
    mr_assert(reply->status == STATUS_OK);
    return reply->id;
}

const struct reply *partition_keep_alive(struct partition *partition, uint64_t session, struct slice filter,
                                         uint64_t last_input)
{
    request_keep_alive(&partition->request, session, filter, last_input, NULL, 0);
    return partition_apply(partition);
}

const struct reply *partition_create_service(struct partition *partition, uint64_t session, const char *type,
                                             const char *name)
{
    request_create_service(&partition->request, session, type, "default", name);
    return partition_apply(partition);
}

const struct reply *partition_command(struct partition *partition, uint64_t session, uint64_t service,
                                      uint64_t sequence_num, const char *operation, struct payload payload)
{
    request_command(&partition->request, session, service, sequence_num, operation, payload_slice(&payload));
    return partition_apply(partition);
}

const struct reply *partition_ask(struct partition *partition, uint64_t session, uint64_t service,
                                  const char *operation, struct payload payload)
{
    request_query(&partition->request, session, service, operation, payload_slice(&payload));
    return partition_query(partition, partition->time);
}

uint64_t reply_number(const struct reply *reply)
{
    struct field_reader reader = field_reader((struct slice){reply->payload, reply->payload_size});
    uint64_t value = 0;
    while (field_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            value = reader.value;
    mr_assert(!reader.malformed);
    return value;
}

struct bytes {
    uint8_t *data;
    size_t size, capacity;
};

static void collect(void *context, const void *data, size_t size)
{
    struct bytes *bytes = context;
    if (bytes->size + size > bytes->capacity) {
        bytes->capacity = (bytes->size + size) * 2;
        bytes->data = realloc(bytes->data, bytes->capacity);
        mr_assert(bytes->data != NULL);
    }
    memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

uint8_t *partition_dump(struct partition *partition, size_t *size)
{
    struct bytes bytes = {0};
    fsm_dump(partition->fsm, collect, &bytes);
    *size = bytes.size;
    return bytes.data;
}

static void count(void *context, const void *data, size_t size)
{
    (void)data;
    *(size_t *)context += size;
}

size_t partition_snapshot_size(struct partition *partition)
{
    size_t size = 0;
    fsm_write_snapshot(partition->fsm, count, &size);
    return size;
}

struct fsm *partition_restored(const struct partition *partition, const uint8_t *dump, size_t snapshot_size,
                               size_t size, struct mr_error *error)
{
    struct fsm_config config = partition->config;
    config.hash_seed = ~config.hash_seed;
    struct fsm *fsm = fsm_create(&config);
    struct slice snapshot = {dump, snapshot_size}, extra = {dump + snapshot_size, size - snapshot_size};
    if (fsm_restore(fsm, snapshot, extra, error) == 0)
        return fsm;
    fsm_destroy(fsm);
    return NULL;
}

void partition_restore(struct partition *partition)
{
    struct mr_error error;
    size_t size, size_again;
    uint8_t *dump = partition_dump(partition, &size);
    struct fsm *fsm = partition_restored(partition, dump, partition_snapshot_size(partition), size, &error);
    if (fsm == NULL)
        fprintf(stderr, "%s\n", error.text);
    mr_assert(fsm != NULL);
    fsm_destroy(partition->fsm);
    partition->fsm = fsm;
    partition->config.hash_seed = ~partition->config.hash_seed;
    uint8_t *again = partition_dump(partition, &size_again);
    mr_assert(size_again == size && memcmp(again, dump, size) == 0);
    mr_assert(fsm_index(fsm) == partition->index);
    free(dump);
    free(again);
}
