/* SPDX-License-Identifier: Apache-2.0 */
/* The last look at a round: everything is quiet, and what is there is read, as operations like any others. The first
 * one also writes each map's marker, which tells its listeners that they have had everything. */
#include "tests/crash/client.h"

#include <inttypes.h>
#include <millrace/raw.h>
#include <string.h>

#include "millrace/v1/control.pb-c.h"

static bool check(struct hand *hand, enum mr_status status, const char *what)
{
    if (status != MR_OK && status != MR_NOT_FOUND)
        history_fail(hand->client, "the last look, %s: %s: %s", what, mr_status_name(status), mr_message(hand->handle));
    return !hand->client->failed;
}

static void write_markers(struct hand *hand)
{
    uint8_t value[VALUE_MAX];
    char key[16];

    key_name(key, MARKER_KEY);
    for (uint8_t i = 0; i < MAPS; i++) {
        uint64_t number = (uint64_t)(hand->number + 1) << 32 | (hand->client->record_count + 1);
        struct record *record =
            hand_call(hand, (struct record){.what = MAP_PUT, .object = i, .key = MARKER_KEY, .argument = number});
        struct mr_bytes bytes = {value, value_write(value, number)};
        enum mr_status status = mr_map_put(hand->maps[i], mr_text(key), bytes, NULL, &record->index);
        if (!check(hand, status, "writing a marker"))
            return;
        record->entry_index = record->index;
        record->result = number;
        hand_answered(hand, record, status);
    }
}

static void read_counters(struct hand *hand)
{
    for (uint8_t i = 0; i < COUNTERS; i++) {
        int64_t value = 0;
        struct record *record = hand_call(hand, (struct record){.what = COUNTER_GET, .object = i});
        enum mr_status status = mr_counter_get(hand->counters[i], &value);
        if (!check(hand, status, "reading a counter"))
            return;
        record->result = (uint64_t)value;
        hand_answered(hand, record, status);
    }
}

static void read_keys(struct hand *hand, uint8_t map, uint64_t *size)
{
    char key[16];

    for (uint8_t i = 0; i <= KEYS; i++) {
        struct mr_entry entry;
        struct record *record = hand_call(hand, (struct record){.what = MAP_GET, .object = map, .key = i});
        key_name(key, i);
        enum mr_status status = mr_map_get(hand->maps[map], mr_text(key), &entry);
        if (!check(hand, status, "reading an entry"))
            return;
        if (status == MR_OK)
            hand_entry(hand, record, &entry);
        hand_answered(hand, record, status);
        *size += status == MR_OK;
    }
}

/* The same again, all at once: entries that nobody wrote show here. */
static void walk(struct hand *hand, uint8_t map, uint64_t size)
{
    struct mr_event event;
    mr_stream *stream = NULL;
    uint64_t count = 0;
    uint64_t told = 0;
    enum mr_status status = mr_map_entries(hand->maps[map], &stream);

    while (status == MR_OK && (status = mr_stream_next(stream, MR_FOR_EVER, &event)) == MR_OK) {
        count++;
        struct record *record =
            hand_call(hand, (struct record){.what = MAP_GET, .object = map, .key = (uint8_t)key_of(event.entry.key)});
        hand_entry(hand, record, &event.entry);
        if (record->key > KEYS)
            return;
        hand_answered(hand, record, MR_OK);
    }
    if (status != MR_END)
        history_fail(hand->client, "the last look, walking a map: %s: %s", mr_status_name(status),
                     mr_message(hand->handle));
    mr_stream_close(stream);
    if (!check(hand, mr_map_size(hand->maps[map], &told), "asking for a map's size"))
        return;
    if (count != size || told != size)
        history_fail(hand->client,
                     "map %u has %" PRIu64 " entries asked for by key, %" PRIu64 " in a walk, %" PRIu64 " by its size",
                     map, size, count, told);
}

static void list_sessions(struct hand *hand)
{
    struct mr_bytes encoded;
    struct history *history = hand->history;
    uint32_t count = 0;

    if (!check(hand, mr_node_sessions(hand->handle, 1, &encoded), "listing sessions"))
        return;
    Millrace__V1__SessionList *list = millrace__v1__session_list__unpack(NULL, encoded.size, encoded.data);
    for (size_t i = 0; list != NULL && i < list->n_sessions; i++)
        if (list->sessions[i]->timeout_ns == OPENER_TIMEOUT && count < CLIENTS_MAX * OPENED_MAX)
            history->session_ids[count++] = list->sessions[i]->session_id;
    if (list == NULL)
        history_fail(hand->client, "the list of sessions cannot be read");
    else
        millrace__v1__session_list__free_unpacked(list, NULL);
    history->session_count = count;
}

static void check_status(struct hand *hand)
{
    struct mr_bytes encoded;

    if (!check(hand, mr_node_status(hand->handle, &encoded), "asking for the status"))
        return;
    Millrace__V1__Status *status = millrace__v1__status__unpack(NULL, encoded.size, encoded.data);
    if (status == NULL || status->n_partitions != hand->history->partitions)
        history_fail(hand->client, "the status cannot be read");
    for (size_t i = 0; status != NULL && i < status->n_partitions; i++) {
        const Millrace__V1__PartitionStatus *partition = status->partitions[i];
        if (partition->state.len != 7 || memcmp(partition->state.data, "serving", 7) != 0)
            history_fail(hand->client, "partition %zu is %.*s: %.*s", i + 1, (int)partition->state.len,
                         (const char *)partition->state.data, (int)partition->reason.len,
                         (const char *)partition->reason.data);
    }
    if (status != NULL)
        millrace__v1__status__free_unpacked(status, NULL);
}

static void note_partitions(struct hand *hand)
{
    struct history *history = hand->history;
    char name[16];

    for (unsigned i = 0; i < COUNTERS; i++) {
        counter_name(name, i);
        check(hand, mr_partition_of(hand->handle, NULL, name, &history->counter_partition[i]), "finding a partition");
    }
    for (unsigned i = 0; i < MAPS; i++) {
        map_name(name, i);
        check(hand, mr_partition_of(hand->handle, NULL, name, &history->map_partition[i]), "finding a partition");
    }
}

/* A first request to every partition is answered once it serves. */
static void touch_partitions(struct hand *hand)
{
    for (uint32_t p = 1; p <= hand->history->partitions; p++) {
        char name[32];
        uint32_t in = 0;
        mr_counter *counter = NULL;
        for (unsigned i = 0; in != p; i++) {
            snprintf(name, sizeof(name), "touched-%u", i);
            if (!check(hand, mr_partition_of(hand->handle, NULL, name, &in), "finding a partition"))
                return;
        }
        if (!check(hand, mr_counter_open(hand->handle, name, &counter), "opening a counter"))
            return;
    }
}

int last_look(struct hand *hand)
{
    struct client *client = hand->client;

    if (!hand_connect(hand, true, true))
        return 1;
    note_partitions(hand);
    touch_partitions(hand);
    snprintf(client->doing, sizeof(client->doing), "writing markers");
    if (client->lives == 1 && !client->failed)
        write_markers(hand);
    snprintf(client->doing, sizeof(client->doing), "reading everything");
    if (!client->failed)
        read_counters(hand);
    for (uint8_t i = 0; i < MAPS; i++) {
        uint64_t size = 0;
        if (!client->failed)
            read_keys(hand, i, &size);
        if (!client->failed)
            walk(hand, i, size);
    }
    if (!client->failed)
        list_sessions(hand);
    if (!client->failed)
        check_status(hand);
    hand_close(hand, false);
    return client->failed ? 1 : 0;
}
