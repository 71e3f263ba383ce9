/* SPDX-License-Identifier: Apache-2.0 */
/* The service type atomix.multiraft.map.v1.Map: what its operations do. How entries are kept stands in map_entries.c,
 * their messages in map_messages.c. Knows nothing of sessions. */
#include "engine/services/map.h"

#include "engine/fsm/duration.h"
#include "engine/fsm/memory.h"
#include "engine/services/map_messages.h"
#include "proto/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct map {
    struct map_entries entries;
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

/* ---- commands ---- */

static uint64_t remaining(const struct map_entry *entry, uint64_t now)
{
    if (entry->expire == 0)
        return 0;
    /* A query can see an entry whose deadline no command has passed yet. It is there, so something remains. */
    return entry->expire > now ? entry->expire - now : 1;
}

static void write_entry(struct map *map, struct service_call *call, struct map_entry *entry,
                        const struct map_input *input)
{
    uint64_t ttl;
    if (!duration_nanoseconds(input->ttl, &ttl)) {
        call_fail(call, STATUS_INVALID, "the ttl is negative or not a valid Duration");
        return;
    }
    uint64_t expire = ttl == 0 ? 0 : time_after(call_time(call), ttl);
    entry = map_write(&map->entries, entry, input->key, input->value, call_index(call), expire);
    map_answer_entry(call, entry, remaining(entry, call_time(call)));
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
        map_answer_entry(call, entry, remaining(entry, call_time(call)));
        map_remove(&map->entries, entry);
    }
}

static void clear(void *state, struct service_call *call)
{
    struct map *map = state;
    struct map_input input;
    if (!map_read_key_input(call_payload(call), false, &input))
        fail_input(call);
    else
        map_clear(&map->entries);
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
        map_answer_entry(call, entry, remaining(entry, call_time(call)));
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

static void *create(struct service_host *host)
{
    struct map *map = memory_zeroed(1, sizeof(*map));
    map_entries_init(&map->entries, host);
    return map;
}

static void destroy(void *state)
{
    struct map *map = state;
    map_entries_free(&map->entries);
    free(map);
}

static void dump(void *state, void (*write)(void *context, const void *data, size_t size), void *context)
{
    const struct map *map = state;
    map_write_snapshot(&map->entries, write, context);
}

static const struct service_operation operations[] = {
    {"Put", OPERATION_COMMAND, put},       {"Get", OPERATION_QUERY, get},   {"Update", OPERATION_COMMAND, update},
    {"Insert", OPERATION_COMMAND, insert}, {"Size", OPERATION_QUERY, size}, {"Remove", OPERATION_COMMAND, remove_entry},
    {"Clear", OPERATION_COMMAND, clear},
};

const struct service_type map_type = {
    .name = "atomix.multiraft.map.v1.Map",
    .operations = operations,
    .operation_count = sizeof(operations) / sizeof(operations[0]),
    .create = create,
    .destroy = destroy,
    .dump = dump,
};
