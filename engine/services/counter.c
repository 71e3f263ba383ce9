/* SPDX-License-Identifier: Apache-2.0 */
/* The service type atomix.multiraft.counter.v1.Counter: one number of 64 bits with a sign, 0 at first, that wraps
 * round. All its messages are alike: int64 fields, of which the outputs and the snapshot have one, `value` = 1. Knows
 * nothing of sessions or commands. */
#include "engine/services/counter.h"

#include "engine/fsm/canonical.h"
#include "engine/fsm/memory.h"
#include "proto/reader.h"
#include "proto/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct counter {
    uint64_t value; /* two's complement: unsigned numbers wrap round, signed ones may not */
};

struct numbers {
    uint64_t first, second; /* fields 1 and 2 */
};

static bool read_all_numbers(struct service_call *call, struct numbers *numbers)
{
    struct field_reader reader = field_reader(call_payload(call));
    while (field_next(&reader)) {
        if (reader.tag == FIELD(1, WIRE_VARINT))
            numbers->first = reader.value;
        else if (reader.tag == FIELD(2, WIRE_VARINT))
            numbers->second = reader.value;
    }
    if (reader.malformed)
        call_fail(call, STATUS_INVALID, "the payload is not the operation's input message");
    return !reader.malformed;
}

static inline bool read_numbers(struct service_call *call, struct numbers *numbers)
{
    struct slice payload = call_payload(call);
    *numbers = (struct numbers){0};
    if (payload.size != 2 || payload.data[0] != FIELD(1, WIRE_VARINT) || payload.data[1] >= 0x80)
        return read_all_numbers(call, numbers);
    numbers->first = payload.data[1]; /* a small one alone, as in nearly all */
    return true;
}

static void answer_value(const struct counter *counter, struct service_call *call)
{
    const size_t most = 1 + 10; /* a tag and a number */
    call_advance(call, field_write_varint(call_reserve(call, most), 1, counter->value));
}

static void set(void *state, struct service_call *call)
{
    struct counter *counter = state;
    struct numbers input;
    if (!read_numbers(call, &input))
        return;
    counter->value = input.first;
    answer_value(counter, call);
}

static void compare_and_set(void *state, struct service_call *call)
{
    struct counter *counter = state;
    struct numbers input;
    if (!read_numbers(call, &input))
        return;
    if (counter->value != input.first) {
        char message[96];
        snprintf(message, sizeof(message), "the value is %" PRId64 ", not %" PRId64, (int64_t)counter->value,
                 (int64_t)input.first);
        call_fail(call, STATUS_CONFLICT, message);
        return;
    }
    counter->value = input.second;
    answer_value(counter, call);
}

static void increment(void *state, struct service_call *call)
{
    struct counter *counter = state;
    struct numbers input;
    if (!read_numbers(call, &input))
        return;
    counter->value += input.first;
    answer_value(counter, call);
}

static void decrement(void *state, struct service_call *call)
{
    struct counter *counter = state;
    struct numbers input;
    if (!read_numbers(call, &input))
        return;
    counter->value -= input.first;
    answer_value(counter, call);
}

static void get(void *state, struct service_call *call)
{
    struct numbers input; /* GetInput has no fields, but must decode */
    if (read_numbers(call, &input))
        answer_value(state, call);
}

static void *create(struct service_host *host)
{
    (void)host;
    return memory_zeroed(1, sizeof(struct counter));
}

static void dump(void *state, void (*write)(void *context, const void *data, size_t size), void *context)
{
    const struct counter *counter = state;
    uint8_t bytes[16];
    write(context, bytes, (size_t)(field_write_varint(bytes, 1, counter->value) - bytes));
}

static bool restore(void *state, struct slice data)
{
    struct counter *counter = state;
    struct canonical_reader reader = canonical_reader(data);
    counter->value = canonical_number(&reader, 1);
    return canonical_end(&reader);
}

static const struct service_operation operations[] = {
    {OPERATION_NAME("Increment"), .kind = OPERATION_COMMAND, .run = increment},
    {OPERATION_NAME("Decrement"), .kind = OPERATION_COMMAND, .run = decrement},
    {OPERATION_NAME("Set"), .kind = OPERATION_COMMAND, .run = set},
    {OPERATION_NAME("CompareAndSet"), .kind = OPERATION_COMMAND, .run = compare_and_set},
    {OPERATION_NAME("Get"), .kind = OPERATION_QUERY, .run = get},
};

const struct service_type counter_type = {
    .name = "atomix.multiraft.counter.v1.Counter",
    .operations = operations,
    .operation_count = sizeof(operations) / sizeof(operations[0]),
    .create = create,
    .destroy = free,
    .dump = dump,
    .restore = restore,
};
