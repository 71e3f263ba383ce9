/* SPDX-License-Identifier: Apache-2.0 */
/* A response frame as a result: its body is read in place, and the result points into it. Knows no state.
 *
 * An operation's output is one message, and all that a counter or a map has to say stands in its field 1: an integer
 * (CounterOutput.value, SizeOutput.size), or a map's Entry {key = 1, Value {value = 1, Duration ttl = 2} = 2, index =
 * 3}. A stream's outputs are the same Entry as EntriesOutput's field 1, and EventsOutput's field 2: Event {type = 1,
 * entry = 2}. */
#include "ipc/client/answer.h"

#include "proto/reader.h"
#include "proto/rows.h"
#include "proto/wire.h"

#include <millrace/map.h>

static enum mr_status status_of(uint32_t number)
{
    unsigned status = ROW_VALUE(Status, number);
    if (status == STATUS_OK)
        return MR_OK;
    return status >= STATUS_ERROR && status <= STATUS_INTERNAL ? (enum mr_status)status : MR_UNKNOWN;
}

static struct mr_bytes bytes_of(struct slice slice)
{
    return (struct mr_bytes){slice.data, slice.size};
}

static inline bool read_number(struct slice payload, int64_t *number)
{
    const uint8_t *end = payload.data + payload.size;
    uint64_t value;
    const uint8_t *behind = wire_plain_varint(payload.data, end, FIELD(1, WIRE_VARINT), &value);
    if (behind != NULL && behind == end) {
        *number = (int64_t)value; /* alone, as in nearly all */
        return true;
    }
    struct field_reader reader = field_reader(payload);
    while (wire_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            *number = (int64_t)wire_varint(&reader);
        else
            wire_skip(&reader);
    return !reader.malformed;
}

static bool read_duration(struct field_reader reader, int64_t *ns)
{
    int64_t seconds = 0;
    int64_t nanos = 0;

    while (wire_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            seconds = (int64_t)wire_varint(&reader);
        else if (reader.tag == FIELD(2, WIRE_VARINT))
            nanos = (int32_t)wire_varint(&reader);
        else
            wire_skip(&reader);
    /* As long as 292 years is as good as for ever. */
    if (__builtin_mul_overflow(seconds, INT64_C(1000000000), ns) || __builtin_add_overflow(*ns, nanos, ns))
        *ns = INT64_MAX;
    return !reader.malformed;
}

static bool read_value(struct field_reader reader, struct mr_entry *entry)
{
    bool well_formed = true;
    while (well_formed && wire_next(&reader))
        if (reader.tag == FIELD(1, WIRE_BYTES))
            entry->value = bytes_of(wire_bytes(&reader));
        else if (reader.tag == FIELD(2, WIRE_BYTES))
            well_formed = read_duration(wire_message(&reader), &entry->ttl_ns);
        else
            wire_skip(&reader);
    return well_formed && !reader.malformed;
}

static bool read_entry_fields(struct field_reader reader, struct mr_entry *entry)
{
    bool well_formed = true;
    while (well_formed && wire_next(&reader))
        if (reader.tag == FIELD(1, WIRE_BYTES))
            entry->key = bytes_of(wire_bytes(&reader));
        else if (reader.tag == FIELD(2, WIRE_BYTES))
            well_formed = read_value(wire_message(&reader), entry);
        else if (reader.tag == FIELD(3, WIRE_VARINT))
            entry->index = wire_varint(&reader);
        else
            wire_skip(&reader);
    return well_formed && !reader.malformed;
}

static bool read_entry(struct slice payload, struct mr_entry *entry)
{
    struct field_reader reader = field_reader(payload);
    bool well_formed = true;
    while (well_formed && wire_next(&reader))
        if (reader.tag == FIELD(1, WIRE_BYTES))
            well_formed = read_entry_fields(wire_message(&reader), entry);
        else
            wire_skip(&reader);
    return well_formed && !reader.malformed;
}

static void does_not_decode(struct mr_result *result)
{
    memset(&result->as, 0, sizeof(result->as));
    result->status = MR_INTERNAL;
    result->message = mr_text("the node's answer does not decode: the library and the node do not belong together");
}

static inline __attribute__((always_inline)) void read_payload(enum answer_kind answer, struct slice payload,
                                                               struct mr_result *result)
{
    bool well_formed = true;

    if (answer == ANSWER_NUMBER)
        well_formed = read_number(payload, &result->as.number);
    else if (answer == ANSWER_ENTRY)
        well_formed = read_entry(payload, &result->as.entry);
    if (!well_formed)
        does_not_decode(result);
}

static void read_operation(enum answer_kind answer, const struct operation_output *operation, struct slice payload,
                           struct mr_result *result)
{
    result->status = status_of((uint32_t)operation->status);
    result->message = bytes_of(operation->message);
    if (result->status == MR_OK)
        read_payload(answer, payload, result);
}

void answer_read(enum answer_kind answer, enum frame_kind kind, const struct response_head *head, const uint8_t *body,
                 struct mr_result *result)
{
    struct slice payload;
    uint64_t index;

    result->status = status_of(head->status);
    result->index = 0;
    result->output = head->number;
    result->message = (struct mr_bytes){NULL, 0};
    memset(&result->as, 0, sizeof(result->as));
    if (result->status != MR_OK) {
        result->message = (struct mr_bytes){body, head->size};
        return;
    }
    if (answer == ANSWER_RAW) {
        result->as.raw = (struct mr_bytes){body, head->size};
        return;
    }
    if (answer >= ANSWER_NUMBER && kind == FRAME_COMMAND && read_first_output(body, head->size, &index, &payload)) {
        result->index = index;
        read_payload(answer, payload, result);
        return;
    }
    if (kind == FRAME_QUERY) {
        struct operation_output operation;
        if (read_partition_query_output(body, head->size, &operation, &payload) != READ_OK)
            does_not_decode(result);
        else
            read_operation(answer, &operation, payload, result);
        return;
    }
    struct command_output output;
    if (read_partition_command_output(body, head->size, &output, &payload) != READ_OK) {
        does_not_decode(result);
        return;
    }
    result->index = output.index;
    if (answer == ANSWER_ID)
        result->as.number = (int64_t)output.id;
    else if (answer != ANSWER_PLAIN && answer != ANSWER_CLOSED)
        read_operation(answer, &output.operation, payload, result);
}

static enum mr_event_type event_type(uint64_t number)
{
    return number <= MR_REPLAY ? (enum mr_event_type)number : MR_LISTENING;
}

static bool read_event_fields(struct field_reader reader, struct mr_event *event)
{
    bool well_formed = true;
    while (well_formed && wire_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            event->type = event_type(wire_varint(&reader));
        else if (reader.tag == FIELD(2, WIRE_BYTES))
            well_formed = read_entry_fields(wire_message(&reader), &event->entry);
        else
            wire_skip(&reader);
    return well_formed && !reader.malformed;
}

/* True: it decodes; *some: and there is something in it. */
static bool read_stream_payload(enum frame_kind kind, struct slice payload, bool *some, struct mr_event *event)
{
    struct field_reader reader = field_reader(payload);
    bool well_formed = true;

    while (well_formed && wire_next(&reader)) {
        if (kind == FRAME_QUERY && reader.tag == FIELD(1, WIRE_BYTES)) {
            well_formed = read_entry_fields(wire_message(&reader), &event->entry);
        } else if (kind == FRAME_COMMAND && reader.tag == FIELD(2, WIRE_BYTES)) {
            well_formed = read_event_fields(wire_message(&reader), event);
        } else {
            wire_skip(&reader);
            continue;
        }
        *some = true;
    }
    return well_formed && !reader.malformed;
}

bool answer_read_event(enum frame_kind kind, const uint8_t *body, size_t size, struct mr_result *result,
                       struct mr_event *event)
{
    struct command_output output;
    struct slice payload;
    bool some = false;

    memset(event, 0, sizeof(*event));
    if (kind == FRAME_QUERY)
        event->type = MR_REPLAY;
    enum read_result read = kind == FRAME_QUERY ? read_partition_query_output(body, size, &output.operation, &payload)
                                                : read_partition_command_output(body, size, &output, &payload);
    if (read != READ_OK) {
        does_not_decode(result);
        return false;
    }
    result->status = status_of((uint32_t)output.operation.status);
    result->message = bytes_of(output.operation.message);
    if (result->status != MR_OK)
        return false;
    if (read_stream_payload(kind, payload, &some, event) && (some || kind == FRAME_QUERY))
        return some;
    does_not_decode(result);
    return false;
}
