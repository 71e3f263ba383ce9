/* SPDX-License-Identifier: Apache-2.0 */
/* The map's messages. Of an Entry, only tags, lengths and numbers are written; key and value are shared from the
 * entry's blob, unless it is small. */
#include "engine/services/map_messages.h"

#include "engine/fsm/duration.h"
#include "proto/wire.h"
#include "proto/writer.h"

/* ---- inputs ---- */

static bool read_duration(struct field_reader reader, struct duration *duration)
{
    duration->present = true;
    while (wire_next(&reader)) {
        if (reader.tag == FIELD(1, WIRE_VARINT))
            duration->seconds = (int64_t)wire_varint(&reader);
        else if (reader.tag == FIELD(2, WIRE_VARINT))
            duration->nanos = (int32_t)(uint32_t)wire_varint(&reader); /* an int32 is cut, as protobuf cuts it */
        else
            wire_skip(&reader);
    }
    return !reader.malformed;
}

static inline bool read_value(struct field_reader reader, struct map_input *input)
{
    while (wire_next(&reader)) {
        if (reader.tag == FIELD(1, WIRE_BYTES))
            input->value = wire_bytes(&reader);
        else if (reader.tag != FIELD(2, WIRE_BYTES))
            wire_skip(&reader);
        else if (!read_duration(wire_message(&reader), &input->ttl))
            return false;
    }
    return !reader.malformed;
}

bool map_read_write_input(struct slice payload, struct map_input *input)
{
    *input = (struct map_input){0};
    struct field_reader reader = {.at = payload.data, .end = payload.data + payload.size};
    while (wire_next(&reader)) {
        switch (reader.tag) {
        case FIELD(1, WIRE_BYTES):
            input->key = wire_string(&reader);
            break;
        case FIELD(2, WIRE_BYTES):
            if (!read_value(wire_message(&reader), input))
                return false;
            break;
        case FIELD(3, WIRE_VARINT):
            input->index = wire_varint(&reader);
            break;
        default:
            wire_skip(&reader);
        }
    }
    return !reader.malformed;
}

struct slice map_peek_key(struct slice payload)
{
    const uint8_t *bytes = payload.data;
    if (payload.size < 2 || bytes[0] != FIELD(1, WIRE_BYTES) || bytes[1] >= 0x80 || bytes[1] > payload.size - 2)
        return (struct slice){NULL, 0};
    return (struct slice){bytes + 2, bytes[1]};
}

bool map_read_key_input(struct slice payload, bool has_key, struct map_input *input)
{
    *input = (struct map_input){0};
    struct field_reader reader = {.at = payload.data, .end = payload.data + payload.size};
    while (wire_next(&reader)) {
        if (reader.tag == FIELD(1, WIRE_BYTES) && has_key)
            input->key = wire_string(&reader);
        else if (reader.tag == FIELD(2, WIRE_VARINT))
            input->index = wire_varint(&reader);
        else
            wire_skip(&reader);
    }
    return !reader.malformed;
}

bool map_read_events_input(struct slice payload, struct map_input *input)
{
    *input = (struct map_input){0};
    struct field_reader reader = field_reader(payload);
    while (field_next(&reader)) {
        if (reader.tag == FIELD(1, WIRE_BYTES)) {
            if (!utf8_valid(reader.bytes))
                return false;
            input->key = reader.bytes;
        } else if (reader.tag == FIELD(2, WIRE_VARINT)) {
            input->replay = reader.value != 0;
        }
    }
    return !reader.malformed;
}

/* ---- answers ---- */

static size_t time_size(uint64_t nanoseconds) /* of a Duration or Timestamp */
{
    return field_varint_size(1, nanoseconds / NANOSECONDS_PER_SECOND) +
           field_varint_size(2, nanoseconds % NANOSECONDS_PER_SECOND);
}

static uint8_t *write_time(uint8_t *to, uint64_t nanoseconds)
{
    to = field_write_varint(to, 1, nanoseconds / NANOSECONDS_PER_SECOND);
    return field_write_varint(to, 2, nanoseconds % NANOSECONDS_PER_SECOND);
}

/* Fields of at most this size are written before key and value and between them: three heads and a number. */
enum { BETWEEN_MAX = 64 };
/* An entry of no more bytes is copied: that costs less than sharing its blob. */
enum { COPIED_MAX = 256 };

struct entry_sizes {
    size_t ttl, value, entry; /* of the messages, without their heads */
};

static void find_sizes(struct entry_sizes *sizes, const struct map_entry *entry, uint64_t ttl)
{
    sizes->ttl = ttl == 0 ? 0 : time_size(ttl);
    sizes->value = field_bytes_size(1, map_value(entry).size) +
                   (ttl == 0 ? 0 : field_message_head_size(2, sizes->ttl) + sizes->ttl);
    sizes->entry = field_bytes_size(1, map_key(entry).size) + field_message_head_size(2, sizes->value) + sizes->value +
                   field_varint_size(3, entry->index);
}

static uint8_t *write_after_value(uint8_t *to, const struct map_entry *entry, uint64_t ttl,
                                  const struct entry_sizes *sizes)
{
    if (ttl > 0)
        to = write_time(field_write_message_head(to, 2, sizes->ttl), ttl);
    return field_write_varint(to, 3, entry->index);
}

/* An output that shows an entry: some bytes, then the entry's fields. The bytes are written at `at`, up to `end`. */
struct showing {
    struct service_call *call;
    const struct map_entry *entry;
    uint64_t ttl;
    struct entry_sizes sizes;
    bool copied; /* then the whole output has its place at `at`; else only what stands between shared bytes is put */
    uint8_t *at, *end;
    uint8_t bytes[BETWEEN_MAX];
};

/* Nothing is written to be copied right away: the copy would wait until all that was written before, much of it to a
 * cold entry, has reached the cache. */
static void show_entry(struct showing *showing, size_t before_size)
{
    showing->copied = map_is_plain(showing->entry) || showing->sizes.entry <= COPIED_MAX;
    showing->at = showing->copied ? call_put(showing->call, before_size + showing->sizes.entry) : showing->bytes;
}

static void put_between(struct showing *showing)
{
    size_t size = (size_t)(showing->end - showing->bytes);
    __builtin_memcpy(call_put(showing->call, size), showing->bytes, size);
    showing->end = showing->bytes;
}

static void put_shared(struct showing *showing)
{
    size_t key_size = map_key(showing->entry).size, value_bytes = map_value(showing->entry).size;
    struct blob *blob = map_apart(showing->entry)->blob;

    /* A message's head and that of bytes are alike; field_bytes_size() of nothing is 0. */
    if (key_size > 0)
        showing->end = field_write_message_head(showing->end, 1, key_size);
    put_between(showing);
    call_put_blob(showing->call, blob, MAP_CONTENT_HEAD, key_size);

    showing->end = field_write_message_head(showing->end, 2, showing->sizes.value);
    if (value_bytes > 0)
        showing->end = field_write_message_head(showing->end, 1, value_bytes);
    put_between(showing);
    call_put_blob(showing->call, blob, MAP_CONTENT_HEAD + key_size, value_bytes);

    showing->end = write_after_value(showing->end, showing->entry, showing->ttl, &showing->sizes);
    put_between(showing);
}

static void put_entry(struct showing *showing)
{
    if (!showing->copied) {
        put_shared(showing);
        return;
    }
    uint8_t *to = field_write_bytes(showing->end, 1, map_key(showing->entry));
    to = field_write_message_head(to, 2, showing->sizes.value);
    to = field_write_bytes(to, 1, map_value(showing->entry));
    write_after_value(to, showing->entry, showing->ttl, &showing->sizes);
}

void map_answer_entry(struct service_call *call, const struct map_entry *entry, uint64_t ttl)
{
    struct showing showing;
    showing.call = call, showing.entry = entry, showing.ttl = ttl;
    find_sizes(&showing.sizes, entry, ttl);
    show_entry(&showing, field_message_head_size(1, showing.sizes.entry));
    showing.end = field_write_message_head(showing.at, 1, showing.sizes.entry);
    put_entry(&showing);
}

void map_put_event(struct service_call *output, enum map_event event, const struct map_entry *entry, uint64_t ttl)
{
    struct showing showing;
    showing.call = output, showing.entry = entry, showing.ttl = ttl;
    find_sizes(&showing.sizes, entry, ttl);
    size_t entry_size = field_message_head_size(2, showing.sizes.entry) + showing.sizes.entry;
    size_t event_size = field_varint_size(1, event) + entry_size;
    show_entry(&showing, field_message_head_size(2, event_size) + event_size - showing.sizes.entry);
    uint8_t *at = field_write_message_head(showing.at, 2, event_size);
    at = field_write_varint(at, 1, event);
    showing.end = field_write_message_head(at, 2, showing.sizes.entry);
    put_entry(&showing);
}

void map_put_listening(struct service_call *output, struct slice key)
{
    size_t entry_size = field_bytes_size(1, key.size);
    uint8_t bytes[BETWEEN_MAX];
    uint8_t *at = field_write_message_head(bytes, 2, field_message_head_size(2, entry_size) + entry_size);
    at = field_write_message_head(at, 2, entry_size);
    if (key.size > 0)
        at = field_write_message_head(at, 1, key.size);
    size_t size = (size_t)(at - bytes);
    __builtin_memcpy(call_put(output, size), bytes, size);
    if (key.size == 0)
        return;
    struct blob *blob = blob_create((uint32_t)key.size);
    __builtin_memcpy(blob->data, key.data, key.size);
    call_put_blob(output, blob, 0, key.size);
    blob_release(blob);
}

/* ---- the snapshot ---- */

static void write_listeners(const struct map_listeners *listeners,
                            void (*write)(void *context, const void *data, size_t size), void *context)
{
    for (const struct list *link = listeners->order.next; link != &listeners->order; link = link->next) {
        const struct map_listener *listener = container_of(link, struct map_listener, order);
        struct slice key = map_listened_key(listener);
        uint8_t bytes[BETWEEN_MAX];
        uint8_t *at =
            field_write_message_head(bytes, 1, field_varint_size(1, listener->index) + field_bytes_size(2, key.size));
        at = field_write_varint(at, 1, listener->index);
        if (key.size > 0)
            at = field_write_message_head(at, 2, key.size);
        write(context, bytes, (size_t)(at - bytes));
        write(context, key.data, key.size);
    }
}

void map_write_snapshot(const struct map_entries *entries, const struct map_listeners *listeners,
                        void (*write)(void *context, const void *data, size_t size), void *context)
{
    write_listeners(listeners, write, context);
    for (const struct list *link = entries->order.next; link != &entries->order; link = link->next) {
        const struct map_entry *entry = container_of(link, struct map_entry, order);
        struct slice key = map_key(entry), value = map_value(entry);
        uint64_t expire = map_expire(entry);
        size_t expire_size = expire == 0 ? 0 : time_size(expire);
        size_t key_size = field_varint_size(1, entry->index) + field_bytes_size(2, key.size);
        size_t value_size =
            field_bytes_size(1, value.size) + (expire == 0 ? 0 : field_message_head_size(2, expire_size) + expire_size);
        size_t size =
            field_message_head_size(1, key_size) + key_size + field_message_head_size(2, value_size) + value_size;

        uint8_t bytes[BETWEEN_MAX], *at = field_write_message_head(bytes, 2, size);
        at = field_write_message_head(at, 1, key_size);
        at = field_write_varint(at, 1, entry->index);
        if (key.size > 0)
            at = field_write_message_head(at, 2, key.size);
        write(context, bytes, (size_t)(at - bytes));
        write(context, key.data, key.size);
        at = field_write_message_head(bytes, 2, value_size);
        if (value.size > 0)
            at = field_write_message_head(at, 1, value.size);
        write(context, bytes, (size_t)(at - bytes));
        write(context, value.data, value.size);
        if (expire != 0)
            write(context, bytes,
                  (size_t)(write_time(field_write_message_head(bytes, 2, expire_size), expire) - bytes));
    }
}

bool map_read_listener(struct service_host *host, struct canonical_reader *snapshot, struct map_listening *listening)
{
    struct slice bytes;
    if (!restore_message(host, snapshot, 1, &bytes))
        return false;
    struct canonical_reader reader = canonical_reader(bytes);
    listening->index = canonical_number(&reader, 1);
    listening->key = canonical_bytes(&reader, 2);
    if (canonical_end(&reader) && utf8_valid(listening->key))
        return true;
    canonical_fail(snapshot);
    return false;
}

static bool read_kept(struct service_host *host, struct canonical_reader *snapshot, struct map_kept *kept)
{
    struct slice entry_bytes, key_bytes, value_bytes;
    if (!restore_message(host, snapshot, 2, &entry_bytes))
        return false;
    struct canonical_reader entry = canonical_reader(entry_bytes);
    if (!canonical_message(&entry, 1, &key_bytes) || !canonical_message(&entry, 2, &value_bytes))
        return false;
    struct canonical_reader key = canonical_reader(key_bytes), value = canonical_reader(value_bytes);
    kept->index = canonical_number(&key, 1);
    kept->key = canonical_bytes(&key, 2);
    kept->value = canonical_bytes(&value, 1);
    kept->expire = 0;
    bool sound = value.at == value.end || (canonical_time(&value, 2, &kept->expire) && kept->expire != 0);
    return sound && canonical_end(&entry) && canonical_end(&key) && canonical_end(&value) && utf8_valid(kept->key);
}

size_t map_read_kept(struct service_host *host, struct canonical_reader *snapshot, struct map_kept *kept, size_t most)
{
    size_t count = 0;
    for (; count < most && snapshot->at != snapshot->end; count++) {
        if (!read_kept(host, snapshot, &kept[count])) {
            canonical_fail(snapshot);
            return 0;
        }
    }
    return count;
}
