/* SPDX-License-Identifier: Apache-2.0 */
/* Building requests. The filter is made here from the protocol's words, with XXH3 as a library call on bytes, apart
 * from the code that reads it. */
#include "tests/support/requests.h"

#include "ipc/error.h"
#include "proto/reader.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct slice text(const char *string)
{
    return (struct slice){(const uint8_t *)string, strlen(string)};
}

struct slice payload_slice(const struct payload *payload)
{
    return (struct slice){payload->data, payload->size};
}

static uint8_t *room(struct payload *payload, size_t size)
{
    mr_assert(size <= sizeof(payload->data) - payload->size);
    payload->size += size;
    return payload->data + payload->size - size;
}

void payload_number(struct payload *payload, unsigned field, uint64_t value)
{
    size_t size = field_varint_size(field, value);
    if (size > 0)
        field_write_varint(room(payload, size), field, value);
}

void payload_bytes(struct payload *payload, unsigned field, struct slice bytes)
{
    size_t size = field_bytes_size(field, bytes.size);
    if (size > 0)
        field_write_bytes(room(payload, size), field, bytes);
}

void payload_message(struct payload *payload, unsigned field, const struct payload *message)
{
    field_write_message_head(room(payload, field_message_head_size(field, message->size)), field, message->size);
    if (message->size > 0)
        memcpy(room(payload, message->size), message->data, message->size);
}

struct payload numbers_payload(uint64_t first, uint64_t second)
{
    struct payload payload = {.size = 0};
    payload_number(&payload, 1, first);
    payload_number(&payload, 2, second);
    return payload;
}

struct payload number_payload(uint64_t value)
{
    return numbers_payload(value, 0);
}

struct payload key_payload(const char *key, uint64_t index)
{
    struct payload payload = {.size = 0};
    payload_bytes(&payload, 1, text(key));
    payload_number(&payload, 2, index);
    return payload;
}

struct payload write_payload(const char *key, struct slice value, const struct duration *ttl, uint64_t index)
{
    struct payload payload = {.size = 0}, sub = {.size = 0};
    payload_bytes(&sub, 1, value);
    if (ttl != NULL) {
        struct payload duration = {.size = 0};
        payload_number(&duration, 1, (uint64_t)ttl->seconds);
        payload_number(&duration, 2, (uint64_t)(int64_t)ttl->nanos);
        payload_message(&sub, 2, &duration);
    }
    payload_bytes(&payload, 1, text(key));
    payload_message(&payload, 2, &sub);
    payload_number(&payload, 3, index);
    return payload;
}

struct payload events_payload(const char *key, bool replay)
{
    return key_payload(key, replay); /* field 2, a bool */
}

void request_free(struct request *request)
{
    free(request->bytes);
    *request = (struct request){0};
}

static uint8_t *reserve(struct request *request, size_t size)
{
    if (size > request->capacity) {
        request->bytes = realloc(request->bytes, size);
        request->capacity = size;
        mr_assert(request->bytes != NULL);
    }
    request->size = size;
    return request->bytes;
}

static void encode(struct request *request, struct command_input command, const struct last_output *last_outputs,
                   size_t count)
{
    struct partition_command_input input = {.partition_id = 1, .has_command = true, .command = command};
    size_t size = partition_command_input_size(&input, last_outputs, count);
    uint8_t *end = write_partition_command_input(reserve(request, size), &input, last_outputs, count);
    struct slice payload = command.operation.payload;
    if (payload.size > 0)
        memcpy(end, payload.data, payload.size);
    mr_assert(end + payload.size == request->bytes + size);
    mr_assert(read_partition_command_input(request->bytes, size, &request->command) == READ_OK);
}

void request_open_session(struct request *request, struct duration timeout)
{
    encode(request, (struct command_input){.kind = COMMAND_OPEN_SESSION, .timeout = timeout}, NULL, 0);
}

void request_keep_alive(struct request *request, uint64_t session, struct slice filter, uint64_t last_input,
                        const struct last_output *last_outputs, size_t count)
{
    encode(request,
           (struct command_input){.kind = COMMAND_KEEP_ALIVE,
                                  .session_id = session,
                                  .input_filter = filter,
                                  .last_input_sequence_num = last_input,
                                  .has_last_output_sequence_nums = count > 0},
           last_outputs, count);
}

void request_close_session(struct request *request, uint64_t session)
{
    encode(request, (struct command_input){.kind = COMMAND_CLOSE_SESSION, .session_id = session}, NULL, 0);
}

void request_create_service(struct request *request, uint64_t session, const char *type, const char *name_space,
                            const char *name)
{
    encode(request,
           (struct command_input){.kind = COMMAND_SESSION_COMMAND,
                                  .session_kind = SESSION_COMMAND_CREATE_SERVICE,
                                  .session_id = session,
                                  .spec = {text(type), text(name_space), text(name)}},
           NULL, 0);
}

void request_close_service(struct request *request, uint64_t session, uint64_t service)
{
    encode(request,
           (struct command_input){.kind = COMMAND_SESSION_COMMAND,
                                  .session_kind = SESSION_COMMAND_CLOSE_SERVICE,
                                  .session_id = session,
                                  .service_id = service},
           NULL, 0);
}

void request_command(struct request *request, uint64_t session, uint64_t service, uint64_t sequence_num,
                     const char *operation, struct slice payload)
{
    encode(request,
           (struct command_input){.kind = COMMAND_SESSION_COMMAND,
                                  .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                                  .session_id = session,
                                  .service_id = service,
                                  .sequence_num = sequence_num,
                                  .operation = {text(operation), payload}},
           NULL, 0);
}

void request_query(struct request *request, uint64_t session, uint64_t service, const char *operation,
                   struct slice payload)
{
    struct partition_query_input input = {.partition_id = 1,
                                          .has_query = true,
                                          .query_members = 1,
                                          .session_query_members = 1,
                                          .session_id = session,
                                          .service_id = service,
                                          .operation = {text(operation), payload}};
    size_t size = partition_query_input_size(&input);
    uint8_t *end = write_partition_query_input(reserve(request, size), &input);
    if (payload.size > 0)
        memcpy(end, payload.data, payload.size);
    mr_assert(end + payload.size == request->bytes + size);
    mr_assert(read_partition_query_input(request->bytes, size, &request->query) == READ_OK);
}

struct slice make_filter(uint8_t *to, unsigned probes, size_t bits, const uint64_t *numbers, size_t count)
{
    memset(to, 0, 2 + bits / 8);
    to[0] = 1;
    to[1] = (uint8_t)probes;
    for (size_t i = 0; i < count; i++) {
        uint64_t big_endian = __builtin_bswap64(numbers[i]);
        uint64_t h1 = XXH3_64bits_withSeed(&big_endian, 8, 0);
        uint64_t h2 = XXH3_64bits_withSeed(&big_endian, 8, 1) | 1;
        for (uint64_t probe = 0; probe < probes; probe++) {
            uint64_t bit = (h1 + probe * h2) % bits;
            to[2 + bit / 8] = (uint8_t)(to[2 + bit / 8] | 1 << bit % 8);
        }
    }
    return (struct slice){to, 2 + bits / 8};
}
