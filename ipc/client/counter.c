/* SPDX-License-Identifier: Apache-2.0 */
/* Counters: the operations of atomix.multiraft.counter.v1.Counter. Their inputs are one or two integers, fields 1 and
 * 2, their output an integer. */
#include "ipc/client/service.h"
#include "proto/writer.h"

#include <millrace/counter.h>

#define TYPE "atomix.multiraft.counter.v1.Counter"

struct mr_counter {
    struct handle handle;
};

/* NULL stays NULL. */
static struct handle *handle_of(struct mr_counter *counter)
{
    return (struct handle *)counter;
}

struct arguments {
    int64_t first;  /* value, delta, compare */
    int64_t second; /* update */
};

static size_t payload_size(const void *arguments)
{
    const struct arguments *numbers = arguments;
    return field_varint_size(1, (uint64_t)numbers->first) + field_varint_size(2, (uint64_t)numbers->second);
}

static void payload_write(const void *arguments, uint8_t *to)
{
    const struct arguments *numbers = arguments;
    to = field_write_varint(to, 1, (uint64_t)numbers->first);
    field_write_varint(to, 2, (uint64_t)numbers->second);
}

static const struct operation get = {OPERATION_NAME("Get"), FRAME_QUERY, ANSWER_NUMBER, NULL, NULL};
static const struct operation set = {OPERATION_NAME("Set"), FRAME_COMMAND, ANSWER_NUMBER, payload_size, payload_write};
static const struct operation increment = {OPERATION_NAME("Increment"), FRAME_COMMAND, ANSWER_NUMBER, payload_size,
                                           payload_write};
static const struct operation decrement = {OPERATION_NAME("Decrement"), FRAME_COMMAND, ANSWER_NUMBER, payload_size,
                                           payload_write};
static const struct operation compare_and_set = {OPERATION_NAME("CompareAndSet"), FRAME_COMMAND, ANSWER_NUMBER,
                                                 payload_size, payload_write};

static enum mr_status call(mr_counter *counter, const struct operation *operation, int64_t first, int64_t second,
                           int64_t *number)
{
    struct arguments arguments = {first, second};
    struct mr_result result;
    enum mr_status status = service_call(handle_of(counter), operation, &arguments, &result);

    if (status == MR_OK && number != NULL)
        *number = result.as.number;
    return status;
}

static enum mr_status start(mr_counter *counter, const struct operation *operation, int64_t first, int64_t second,
                            struct mr_then then, uint64_t *request)
{
    struct arguments arguments = {first, second};
    return service_start(handle_of(counter), operation, &arguments, then, request);
}

enum mr_status mr_counter_open(mr_client *client, const char *name, mr_counter **out)
{
    void *handle = NULL;
    enum mr_status status = service_open(client, TYPE, name, sizeof(struct mr_counter), out != NULL ? &handle : NULL);

    if (out != NULL)
        *out = handle;
    return status;
}

enum mr_status mr_counter_close(mr_counter *counter)
{
    return service_close(handle_of(counter));
}

enum mr_status mr_counter_get(mr_counter *counter, int64_t *value)
{
    return call(counter, &get, 0, 0, value);
}

enum mr_status mr_counter_get_start(mr_counter *counter, struct mr_then then, uint64_t *request)
{
    return start(counter, &get, 0, 0, then, request);
}

enum mr_status mr_counter_set(mr_counter *counter, int64_t value, int64_t *result)
{
    return call(counter, &set, value, 0, result);
}

enum mr_status mr_counter_set_start(mr_counter *counter, int64_t value, struct mr_then then, uint64_t *request)
{
    return start(counter, &set, value, 0, then, request);
}

enum mr_status mr_counter_increment(mr_counter *counter, int64_t delta, int64_t *result)
{
    return call(counter, &increment, delta, 0, result);
}

enum mr_status mr_counter_increment_start(mr_counter *counter, int64_t delta, struct mr_then then, uint64_t *request)
{
    return start(counter, &increment, delta, 0, then, request);
}

enum mr_status mr_counter_decrement(mr_counter *counter, int64_t delta, int64_t *result)
{
    return call(counter, &decrement, delta, 0, result);
}

enum mr_status mr_counter_decrement_start(mr_counter *counter, int64_t delta, struct mr_then then, uint64_t *request)
{
    return start(counter, &decrement, delta, 0, then, request);
}

enum mr_status mr_counter_compare_and_set(mr_counter *counter, int64_t compare, int64_t update, int64_t *result)
{
    return call(counter, &compare_and_set, compare, update, result);
}

enum mr_status mr_counter_compare_and_set_start(mr_counter *counter, int64_t compare, int64_t update,
                                                struct mr_then then, uint64_t *request)
{
    return start(counter, &compare_and_set, compare, update, then, request);
}
