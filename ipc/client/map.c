/* SPDX-License-Identifier: Apache-2.0 */
/* Maps: the operations of atomix.multiraft.map.v1.Map. Two shapes of input: {key = 1, Value {value = 1, Duration ttl =
 * 2} = 2, index = 3} writes, {key = 1, index = 2} asks, removes and listens (index is `replay` then). */
#include "ipc/client/resume.h"
#include "ipc/client/stream.h"
#include "proto/writer.h"

#include <millrace/map.h>

#include <inttypes.h>

#define TYPE "atomix.multiraft.map.v1.Map"

struct mr_map {
    struct handle handle;
};

/* NULL stays NULL. */
static struct handle *handle_of(struct mr_map *map)
{
    return (struct handle *)map;
}

struct arguments {
    struct slice key;
    struct slice value;
    int64_t ttl_ns; /* 0: none */
    uint64_t index; /* 0: any; of Events: `replay` */
};

/* ---- Payloads ---- */

static size_t duration_size(int64_t ns)
{
    return field_varint_size(1, (uint64_t)ns / MR_SECOND) + field_varint_size(2, (uint64_t)ns % MR_SECOND);
}

static size_t value_size(const struct arguments *entry)
{
    size_t size = field_bytes_size(1, entry->value.size);
    if (entry->ttl_ns > 0) {
        size_t duration = duration_size(entry->ttl_ns);
        size += field_message_head_size(2, duration) + duration;
    }
    return size;
}

static size_t entry_size(const void *arguments)
{
    const struct arguments *entry = arguments;
    size_t value = value_size(entry);
    return field_bytes_size(1, entry->key.size) + field_message_head_size(2, value) + value +
           field_varint_size(3, entry->index);
}

static void entry_write(const void *arguments, uint8_t *to)
{
    const struct arguments *entry = arguments;
    to = field_write_bytes(to, 1, entry->key);
    to = field_write_message_head(to, 2, value_size(entry));
    to = field_write_bytes(to, 1, entry->value);
    if (entry->ttl_ns > 0) {
        to = field_write_message_head(to, 2, duration_size(entry->ttl_ns));
        to = field_write_varint(to, 1, (uint64_t)entry->ttl_ns / MR_SECOND);
        to = field_write_varint(to, 2, (uint64_t)entry->ttl_ns % MR_SECOND);
    }
    field_write_varint(to, 3, entry->index);
}

static size_t key_size(const void *arguments)
{
    const struct arguments *entry = arguments;
    return field_bytes_size(1, entry->key.size) + field_varint_size(2, entry->index);
}

static void key_write(const void *arguments, uint8_t *to)
{
    const struct arguments *entry = arguments;
    to = field_write_bytes(to, 1, entry->key);
    field_write_varint(to, 2, entry->index);
}

static const struct operation put_operation = {OPERATION_NAME("Put"), FRAME_COMMAND, ANSWER_ENTRY, entry_size,
                                               entry_write};
static const struct operation insert_operation = {OPERATION_NAME("Insert"), FRAME_COMMAND, ANSWER_ENTRY, entry_size,
                                                  entry_write};
static const struct operation update_operation = {OPERATION_NAME("Update"), FRAME_COMMAND, ANSWER_ENTRY, entry_size,
                                                  entry_write};
static const struct operation remove_operation = {OPERATION_NAME("Remove"), FRAME_COMMAND, ANSWER_ENTRY, key_size,
                                                  key_write};
static const struct operation get_operation = {OPERATION_NAME("Get"), FRAME_QUERY, ANSWER_ENTRY, key_size, key_write};
static const struct operation size_operation = {OPERATION_NAME("Size"), FRAME_QUERY, ANSWER_NUMBER, NULL, NULL};
static const struct operation clear_operation = {OPERATION_NAME("Clear"), FRAME_COMMAND, ANSWER_NOTHING, NULL, NULL};

static const struct operation events_operation = {OPERATION_NAME("Events"), FRAME_COMMAND, ANSWER_STREAM, key_size,
                                                  key_write};
static const struct operation entries_operation = {OPERATION_NAME("Entries"), FRAME_QUERY, ANSWER_STREAM, NULL, NULL};

/* ---- Opening and closing ---- */

enum mr_status mr_map_open(mr_client *client, const char *name, mr_map **out)
{
    void *handle = NULL;
    enum mr_status status = service_open(client, TYPE, name, sizeof(struct mr_map), out != NULL ? &handle : NULL);

    if (out != NULL)
        *out = handle;
    return status;
}

enum mr_status mr_map_close(mr_map *map)
{
    return service_close(handle_of(map));
}

/* ---- Writing ---- */

static enum mr_status write_arguments(mr_map *map, const struct operation *operation, struct mr_bytes key,
                                      struct mr_bytes value, const struct mr_put *put, struct arguments *arguments)
{
    *arguments = (struct arguments){.key = {key.data, key.size}, .value = {value.data, value.size}};
    if (put == NULL || map == NULL)
        return MR_OK;
    if (put->ttl_ns < 0)
        return client_fail(map->handle.client, MR_INVALID, "ttl_ns is %" PRIi64 "; 0 (none) or more", put->ttl_ns);
    if (put->if_index != 0 && operation == &insert_operation)
        return client_fail_with(map->handle.client, MR_INVALID,
                                "an entry that is not there yet has no index: if_index "
                                "has to be 0 for an insert");
    arguments->ttl_ns = put->ttl_ns;
    arguments->index = put->if_index;
    return MR_OK;
}

static enum mr_status write_call(mr_map *map, const struct operation *operation, struct mr_bytes key,
                                 struct mr_bytes value, const struct mr_put *put, uint64_t *index)
{
    struct arguments arguments;
    struct mr_result result;
    enum mr_status status = write_arguments(map, operation, key, value, put, &arguments);

    if (status == MR_OK)
        status = service_call(handle_of(map), operation, &arguments, &result);
    if (status == MR_OK && index != NULL)
        *index = result.as.entry.index;
    return status;
}

static enum mr_status write_start(mr_map *map, const struct operation *operation, struct mr_bytes key,
                                  struct mr_bytes value, const struct mr_put *put, struct mr_then then,
                                  uint64_t *request)
{
    struct arguments arguments;
    enum mr_status status = write_arguments(map, operation, key, value, put, &arguments);

    return status != MR_OK ? status : service_start(handle_of(map), operation, &arguments, then, request);
}

enum mr_status mr_map_put(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                          uint64_t *index)
{
    return write_call(map, &put_operation, key, value, put, index);
}

enum mr_status mr_map_put_start(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                                struct mr_then then, uint64_t *request)
{
    return write_start(map, &put_operation, key, value, put, then, request);
}

enum mr_status mr_map_insert(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                             uint64_t *index)
{
    return write_call(map, &insert_operation, key, value, put, index);
}

enum mr_status mr_map_insert_start(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                                   struct mr_then then, uint64_t *request)
{
    return write_start(map, &insert_operation, key, value, put, then, request);
}

enum mr_status mr_map_update(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                             uint64_t *index)
{
    return write_call(map, &update_operation, key, value, put, index);
}

enum mr_status mr_map_update_start(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                                   struct mr_then then, uint64_t *request)
{
    return write_start(map, &update_operation, key, value, put, then, request);
}

/* ---- Reading and removing ---- */

static enum mr_status entry_call(mr_map *map, const struct operation *operation, struct mr_bytes key, uint64_t index,
                                 struct mr_entry *entry)
{
    struct arguments arguments = {.key = {key.data, key.size}, .index = index};
    struct mr_result result;
    enum mr_status status = service_call(handle_of(map), operation, &arguments, &result);

    if (status == MR_OK && entry != NULL)
        *entry = result.as.entry;
    return status;
}

enum mr_status mr_map_remove(mr_map *map, struct mr_bytes key, uint64_t if_index, struct mr_entry *entry)
{
    return entry_call(map, &remove_operation, key, if_index, entry);
}

enum mr_status mr_map_remove_start(mr_map *map, struct mr_bytes key, uint64_t if_index, struct mr_then then,
                                   uint64_t *request)
{
    struct arguments arguments = {.key = {key.data, key.size}, .index = if_index};
    return service_start(handle_of(map), &remove_operation, &arguments, then, request);
}

enum mr_status mr_map_get(mr_map *map, struct mr_bytes key, struct mr_entry *entry)
{
    return entry_call(map, &get_operation, key, 0, entry);
}

enum mr_status mr_map_get_start(mr_map *map, struct mr_bytes key, struct mr_then then, uint64_t *request)
{
    struct arguments arguments = {.key = {key.data, key.size}};
    return service_start(handle_of(map), &get_operation, &arguments, then, request);
}

enum mr_status mr_map_size(mr_map *map, uint64_t *size)
{
    struct mr_result result;
    enum mr_status status = service_call(handle_of(map), &size_operation, NULL, &result);

    if (status == MR_OK && size != NULL)
        *size = (uint64_t)result.as.number;
    return status;
}

enum mr_status mr_map_size_start(mr_map *map, struct mr_then then, uint64_t *request)
{
    return service_start(handle_of(map), &size_operation, NULL, then, request);
}

enum mr_status mr_map_clear(mr_map *map)
{
    return service_call(handle_of(map), &clear_operation, NULL, NULL);
}

enum mr_status mr_map_clear_start(mr_map *map, struct mr_then then, uint64_t *request)
{
    return service_start(handle_of(map), &clear_operation, NULL, then, request);
}

/* ---- Streams ---- */

enum mr_status mr_map_events(mr_map *map, struct mr_bytes key, bool replay, mr_stream **out)
{
    struct arguments arguments = {.key = {key.data, key.size}, .index = replay};
    return stream_open(handle_of(map), &events_operation, &arguments, out);
}

enum mr_status mr_map_events_resume(mr_map *map, uint64_t request, mr_stream **out)
{
    return resume_stream(handle_of(map), "Events", request, out);
}

enum mr_status mr_map_entries(mr_map *map, mr_stream **out)
{
    return stream_open(handle_of(map), &entries_operation, NULL, out);
}
