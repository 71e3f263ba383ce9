/* SPDX-License-Identifier: Apache-2.0 */
/* The service type atomix.multiraft.map.v1.Map: what its operations do. How entries are kept stands in map_entries.c,
 * how they are walked in map_cursor.c, who listens to them in map_listeners.c, their messages in map_messages.c. Knows
 * nothing of sessions. */
#include "engine/services/map.h"

#include "engine/fsm/duration.h"
#include "engine/fsm/memory.h"
#include "engine/services/map_cursor.h"
#include "engine/services/map_listeners.h"
#include "engine/services/map_messages.h"
#include "proto/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct map {
    struct map_entries entries;
    struct map_listeners listeners;
};

/* ---- failures that operations share ---- */

static void fail_input(struct service_call *call)
{
    call_fail(call, STATUS_INVALID, "the payload is not the operation's input message");
}

static void fail_not_found(struct service_call *call)
{
    call_fail(call, STATUS_NOT_FOUND, "the map has no entry of that key");
}

/* True if the operation may go on: no index was asked for, or it is the entry's. */
static bool index_matches(struct service_call *call, const struct map_entry *entry, uint64_t index)
{
    if (index == 0 || (entry != NULL && entry->index == index))
        return true;
    char message[96];
    if (entry == NULL)
        snprintf(message, sizeof(message), "there is no entry of that key, and so none of index %" PRIu64, index);
    else
        snprintf(message, sizeof(message), "the entry's index is %" PRIu64 ", not %" PRIu64, entry->index, index);
    call_fail(call, STATUS_CONFLICT, message);
    return false;
}

/* ---- events ---- */

/* What has happened, and the output that says so: made when the first listener is met, shared by all. */
struct telling {
    struct service_host *host;
    enum map_event event;
    const struct map_entry *entry;
    uint64_t ttl; /* what remains of the entry's; 0: none */
    struct service_call *output;
};

static void tell_one(void *context, struct map_listener *listener)
{
    struct telling *telling = context;
    if (telling->output == NULL) {
        telling->output = stream_output(telling->host);
        map_put_event(telling->output, telling->event, telling->entry, telling->ttl);
    }
    (void)stream_emit(listener->stream, telling->output); /* if that ended it, ended() has seen to the rest */
}

/* To everyone who listens to the entry's key. */
static void tell(struct map *map, enum map_event event, const struct map_entry *entry, uint64_t ttl)
{
    if (!map_has_listeners(&map->listeners))
        return;
    struct telling telling = {.host = map->entries.host, .event = event, .entry = entry, .ttl = ttl};
    map_each_listener(&map->listeners, map_key(entry), tell_one, &telling);
}

static void tell_expired(struct map_entries *entries, struct map_entry *entry)
{
    tell(container_of(entries, struct map, entries), EVENT_REMOVE, entry, 0);
}

static int by_serial(const void *a, const void *b)
{
    const struct map_entry *left = *(struct map_entry *const *)a, *right = *(struct map_entry *const *)b;
    return (left->serial > right->serial) - (left->serial < right->serial);
}

/* All entries are about to go. If everyone listens to single keys only those are looked at, unless the entries are
 * fewer: either may be many times the other. */
static void tell_cleared(struct map *map, uint64_t now)
{
    const struct map_listeners *listeners = &map->listeners;
    if (!list_empty(&listeners->every) || map->entries.by_key.count < listeners->by_key.count) {
        for (struct list *link = map->entries.order.next; link != &map->entries.order; link = link->next) {
            const struct map_entry *entry = container_of(link, struct map_entry, order);
            tell(map, EVENT_REMOVE, entry, map_remaining(entry, now));
        }
        return;
    }
    struct map_entry **entries = memory_allocate((listeners->by_key.count + 1) * sizeof(*entries));
    size_t count = 0;
    for (struct list *link = listeners->keys.next; link != &listeners->keys; link = link->next) {
        const struct map_listened *listened = container_of(link, struct map_listened, order);
        struct map_entry *entry = map_find(&map->entries, (struct slice){listened->key, listened->key_size});
        if (entry != NULL)
            entries[count++] = entry;
    }
    qsort(entries, count, sizeof(struct map_entry *), by_serial);
    for (size_t i = 0; i < count; i++)
        tell(map, EVENT_REMOVE, entries[i], map_remaining(entries[i], now));
    free(entries);
}

/* For each listener an event takes a place in its session; what an entry takes is worth about this many. */
#define LISTENERS_FEW 16
/* So many are told of a Clear however many entries there are: it is in proportion to them. */
#define LISTENERS_ANYWAY 4

/* Would clearing the map tell more events than one command may? Then it has failed. Who listens to one key is counted
 * whether there is an entry of it or not: so nothing needs to be walked. */
static bool clear_fails(const struct map *map, struct service_call *call)
{
    uint64_t entries = map->entries.by_key.count, every = map->listeners.every_count;
    uint64_t single = map->listeners.count - every;
    if (every <= LISTENERS_ANYWAY || entries == 0 ||
        (single <= MR_EVENTS_MAX && entries <= (MR_EVENTS_MAX - single) / every))
        return false;
    char message[MR_MESSAGE_MAX];
    snprintf(message, sizeof(message),
             "%" PRIu64 " entries, %" PRIu64 " listeners: a Clear makes at most %" PRIu64
             " events; remove entries one by one, or close listeners",
             entries, map->listeners.count, MR_EVENTS_MAX);
    call_fail(call, STATUS_UNAVAILABLE, message);
    return true;
}

static bool replay(struct map *map, struct stream *stream, const struct map_entry *entry)
{
    struct service_call *output = stream_output(map->entries.host);
    map_put_event(output, EVENT_REPLAY, entry, map_remaining(entry, call_time(output)));
    return stream_emit(stream, output);
}

static void events(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_events_input(call_payload(call), &input)) {
        fail_input(call);
        return;
    }
    if (map->listeners.count >= MR_EVENTS_MAX) { /* what one write would have to tell */
        char message[MR_MESSAGE_MAX];
        snprintf(message, sizeof(message), "the map has %" PRIu64 " listeners, the most it may have",
                 map->listeners.count);
        call_fail(call, STATUS_UNAVAILABLE, message);
        return;
    }
    struct map_listener *listener = map_listen(&map->listeners, input.key, call_index(call));
    struct stream *stream = listener->stream = call_open(call, listener);
    struct service_call *output = stream_output(map->entries.host);
    map_put_listening(output, input.key);
    bool open = stream_emit(stream, output);
    if (!input.replay)
        return;
    if (input.key.size > 0) {
        const struct map_entry *entry = map_find(&map->entries, input.key);
        if (open && entry != NULL)
            replay(map, stream, entry);
        return;
    }
    for (struct list *link = map->entries.order.next; open && link != &map->entries.order; link = link->next)
        open = replay(map, stream, container_of(link, struct map_entry, order));
}

static void ended(void *state, void *listener)
{
    struct map *map = state;
    map_unlisten(&map->listeners, listener);
}

/* ---- commands ---- */

static void write_entry(struct map *map, struct service_call *call, struct map_entry *entry,
                        const struct map_input *input)
{
    uint64_t ttl;
    if (!duration_nanoseconds(input->ttl, &ttl)) {
        call_fail(call, STATUS_INVALID, "the ttl is negative or not a valid Duration");
        return;
    }
    uint64_t now = call_time(call);
    struct map_kept kept = {.key = input->key,
                            .value = input->value,
                            .index = call_index(call),
                            .expire = ttl == 0 ? 0 : time_after(now, ttl)};
    enum map_event event = entry == NULL ? EVENT_INSERT : EVENT_UPDATE;
    entry = map_write(&map->entries, entry, &kept);
    map_answer_entry(call, entry, map_remaining(entry, now));
    tell(map, event, entry, map_remaining(entry, now));
}

static void put(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_write_input(call_payload(call), &input)) {
        fail_input(call);
        return;
    }
    struct map_entry *entry = map_find(&map->entries, input.key);
    if (index_matches(call, entry, input.index))
        write_entry(map, call, entry, &input);
}

static void insert(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_write_input(call_payload(call), &input))
        fail_input(call);
    else if (map_find(&map->entries, input.key) != NULL)
        call_fail(call, STATUS_ALREADY_EXISTS, "the map has an entry of that key");
    else
        write_entry(map, call, NULL, &input);
}

static void update(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_write_input(call_payload(call), &input)) {
        fail_input(call);
        return;
    }
    struct map_entry *entry = map_find(&map->entries, input.key);
    if (entry == NULL)
        fail_not_found(call);
    else if (index_matches(call, entry, input.index))
        write_entry(map, call, entry, &input);
}

static void remove_entry(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_key_input(call_payload(call), true, &input)) {
        fail_input(call);
        return;
    }
    struct map_entry *entry = map_find(&map->entries, input.key);
    if (entry == NULL) {
        fail_not_found(call);
    } else if (index_matches(call, entry, input.index)) {
        uint64_t ttl = map_remaining(entry, call_time(call));
        map_answer_entry(call, entry, ttl);
        tell(map, EVENT_REMOVE, entry, ttl);
        map_remove(&map->entries, entry);
    }
}

static void clear(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_key_input(call_payload(call), false, &input)) {
        fail_input(call);
        return;
    }
    if (clear_fails(map, call))
        return;
    if (map_has_listeners(&map->listeners))
        tell_cleared(map, call_time(call));
    map_clear(&map->entries);
}

static void expect(const void *state, const struct slice *payloads, unsigned count)
{
    const struct map *map = state;
    struct slice keys[MAP_EXPECTED_AT_ONCE];
    unsigned found = 0;
    for (unsigned i = 0; i < count; i++) {
        keys[found] = map_peek_key(payloads[i]);
        found += keys[found].size > 0;
        if (found == MAP_EXPECTED_AT_ONCE || (i + 1 == count && found > 0)) {
            map_expect(&map->entries, keys, found);
            found = 0;
        }
    }
}

/* ---- queries ---- */

static void get(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_key_input(call_payload(call), true, &input)) {
        fail_input(call);
        return;
    }
    const struct map_entry *entry = map_find(&map->entries, input.key);
    if (entry == NULL)
        fail_not_found(call);
    else
        map_answer_entry(call, entry, map_remaining(entry, call_time(call)));
}

static void entries(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_key_input(call_payload(call), false, &input))
        fail_input(call);
    else
        call_cursor(call, map_cursor(&map->entries));
}

static void size(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_key_input(call_payload(call), false, &input)) {
        fail_input(call);
        return;
    }
    uint32_t count = map->entries.by_key.count > UINT32_MAX ? UINT32_MAX : (uint32_t)map->entries.by_key.count;
    if (count > 0)
        field_write_varint(call_put(call, field_varint_size(1, count)), 1, count);
}

/* ---- the type ---- */

static bool watched(const void *state)
{
    return ((const struct map *)state)->listeners.count > LISTENERS_FEW;
}

static void *create(struct service_host *host)
{
    struct map *map = memory_zeroed(1, sizeof(*map));
    map_entries_init(&map->entries, host, tell_expired);
    map_listeners_init(&map->listeners, host->hash_seed);
    return map;
}

static void destroy(void *state)
{
    struct map *map = state;
    map_entries_free(&map->entries);
    map_listeners_free(&map->listeners);
    free(map);
}

static void dump(void *state, void (*write)(void *context, const void *data, size_t size), void *context)
{
    const struct map *map = state;
    map_write_snapshot(&map->entries, &map->listeners, write, context);
}

/* How many entries there are, if they are all as large as the first ones. No more than what makes the table a small
 * part of the whole: should many small ones come, it grows as ever. */
static size_t guess_count(size_t left, size_t first_bytes, size_t first_count)
{
    enum { BYTES_LEAST = 128 }; /* to an entry */
    size_t each = first_bytes / first_count;
    return first_count + left / (each > BYTES_LEAST ? each : BYTES_LEAST);
}

static bool restore(void *state, struct slice data)
{
    struct map *map = state;
    struct canonical_reader snapshot = canonical_reader(data);
    struct map_listening listening;
    uint64_t last = 0;
    while (map_read_listener(map->entries.host, &snapshot, &listening)) {
        if (listening.index <= last)
            return false;
        last = listening.index;
        struct map_listener *listener = map_listen(&map->listeners, listening.key, listening.index);
        listener->stream = stream_restore(map->entries.host, listening.index, listener);
        if (listener->stream == NULL) {
            map_unlisten(&map->listeners, listener);
            return false;
        }
    }
    struct map_kept kept[MAP_RESTORED_AT_ONCE];
    const uint8_t *first = snapshot.at;
    for (size_t count; (count = map_read_kept(map->entries.host, &snapshot, kept, MAP_RESTORED_AT_ONCE)) > 0;) {
        table_reserve(&map->entries.by_key,
                      guess_count((size_t)(snapshot.end - snapshot.at), (size_t)(snapshot.at - first), count));
        if (!map_restore(&map->entries, kept, count))
            return false;
        restore_passed(map->entries.host, snapshot.at);
    }
    return canonical_end(&snapshot);
}

static const struct service_operation operations[] = {
    {OPERATION_NAME("Put"), .kind = OPERATION_COMMAND, .run = put},
    {OPERATION_NAME("Get"), .kind = OPERATION_QUERY, .run = get},
    {OPERATION_NAME("Update"), .kind = OPERATION_COMMAND, .run = update},
    {OPERATION_NAME("Insert"), .kind = OPERATION_COMMAND, .run = insert},
    {OPERATION_NAME("Size"), .kind = OPERATION_QUERY, .run = size},
    {OPERATION_NAME("Remove"), .kind = OPERATION_COMMAND, .run = remove_entry, .frees = true},
    {OPERATION_NAME("Clear"), .kind = OPERATION_COMMAND, .run = clear, .frees = true},
    {OPERATION_NAME("Events"), .kind = OPERATION_STREAM, .run = events},
    {OPERATION_NAME("Entries"), .kind = OPERATION_QUERY_STREAM, .run = entries},
};

const struct service_type map_type = {
    .name = "atomix.multiraft.map.v1.Map",
    .operations = operations,
    .operation_count = sizeof(operations) / sizeof(operations[0]),
    .create = create,
    .destroy = destroy,
    .dump = dump,
    .restore = restore,
    .expect = expect,
    .ended = ended,
    .watched = watched,
};
