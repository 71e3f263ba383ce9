/* SPDX-License-Identifier: Apache-2.0 */
/* What all clients of a round share: see client.h. */
#include "tests/crash/client.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/wait.h"

uint64_t hand_draw(struct hand *hand, uint64_t below)
{
    uint64_t z = hand->random += UINT64_C(0x9E3779B97F4A7C15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (z ^ (z >> 31)) % below;
}

void counter_name(char name[16], unsigned counter)
{
    snprintf(name, 16, "counter-%u", counter);
}

void map_name(char name[16], unsigned map)
{
    snprintf(name, 16, "map-%u", map);
}

void key_name(char name[16], unsigned key)
{
    if (key == MARKER_KEY)
        snprintf(name, 16, "marker");
    else
        snprintf(name, 16, "key-%u", key);
}

unsigned key_of(struct mr_bytes bytes)
{
    char name[16];

    for (unsigned key = 0; key <= KEYS; key++) {
        key_name(name, key);
        if (bytes.size == strlen(name) && memcmp(bytes.data, name, bytes.size) == 0)
            return key;
    }
    return KEYS + 1;
}

/* ---- Connecting and coming back ---- */

void hand_save(struct hand *hand)
{
    struct client *client = hand->client;
    uint32_t other = 1 - client->current;
    struct left *left = &client->left[other];
    size_t size = 0;
    enum mr_status status = mr_session_save(hand->handle, left->token, sizeof(left->token), &size);

    if (status != MR_OK) {
        if (!hand_lost(hand, status))
            history_fail(client, "mr_session_save: %s: %s", mr_status_name(status), mr_message(hand->handle));
        return;
    }
    left->size = size;
    left->generation = hand->generation;
    left->event_count = hand->taken;
    left->listening = hand->listening;
    client->current = other;
}

void hand_forget(struct hand *hand)
{
    struct client *client = hand->client;
    uint32_t other = 1 - client->current;

    client->left[other].size = 0;
    client->current = other;
}

void hand_close(struct hand *hand, bool detach)
{
    if (detach)
        mr_detach(hand->handle);
    else
        mr_close(hand->handle);
    hand->handle = NULL;
    memset(hand->counters, 0, sizeof(hand->counters));
    memset(hand->maps, 0, sizeof(hand->maps));
}

bool hand_lost(struct hand *hand, enum mr_status status)
{
    const struct history *history = hand->history;

    if (status == MR_NO_NODE)
        return history->restarts && hand->part->reconnect_ns == MR_NO_RECONNECT;
    /* The node's next life knows nothing; in the same one a session lives on. */
    if (status == MR_SESSION_LOST && hand->part->short_lived)
        return true;
    if (status == MR_SESSION_LOST)
        return history->memory && history->restarts && hand->generation != history->generation;
    return false;
}

static enum mr_status open_services(struct hand *hand, bool counters, bool maps)
{
    char name[16];
    enum mr_status status = MR_OK;

    for (unsigned i = 0; counters && status == MR_OK && i < COUNTERS; i++) {
        counter_name(name, i);
        status = mr_counter_open(hand->handle, name, &hand->counters[i]);
    }
    for (unsigned i = 0; maps && status == MR_OK && i < MAPS; i++) {
        map_name(name, i);
        status = mr_map_open(hand->handle, name, &hand->maps[i]);
    }
    return status;
}

/* Not now, but perhaps later, or without the session that has expired: no node (which mr_connect() does not wait for,
 * and other calls do), or one that still sees the process that held the session. */
static bool for_now(const struct hand *hand, enum mr_status status, bool connected)
{
    if (status == MR_SESSION_LOST)
        return hand->part->short_lived;
    if (status == MR_NO_NODE)
        return hand->history->restarts && (!connected || hand->part->reconnect_ns == MR_NO_RECONNECT);
    return status == MR_UNAVAILABLE && hand->resumed && !connected;
}

static enum mr_status try_to_connect(struct hand *hand, bool resume)
{
    const struct left *left = &hand->client->left[hand->client->current];
    struct mr_options options = {.size = sizeof(options),
                                 .session_timeout_ns = hand->part->short_lived ? SHORT_TIMEOUT : SESSION_TIMEOUT,
                                 .ring_bytes = hand->part->ring_bytes,
                                 .reconnect_ns = hand->part->reconnect_ns};

    hand->generation = hand->history->generation;
    hand->handle_number = atomic_fetch_add(&hand->history->handles, 1);
    hand->resumed = resume && left->size > 0 && left->generation == hand->generation;
    if (hand->resumed) {
        options.resume = left->token;
        options.resume_size = left->size;
    }
    return mr_connect(hand->history->socket, &options, &hand->handle);
}

/* A handle belongs to one generation: the one that was there before it was made and when it had its sessions. */
bool hand_connect(struct hand *hand, bool counters, bool maps)
{
    struct client *client = hand->client;
    bool resume = hand_draw(hand, 8) >= hand->part->abandon;

    snprintf(client->doing, sizeof(client->doing), "connecting");
    for (;;) {
        enum mr_status status = try_to_connect(hand, resume);
        bool connected = status == MR_OK;
        if (connected) {
            snprintf(client->doing, sizeof(client->doing), "opening services");
            status = open_services(hand, counters, maps);
        }
        bool same = hand->generation == hand->history->generation;
        if (status == MR_OK && same)
            return true;
        if (status != MR_OK && same && !for_now(hand, status, connected)) {
            history_fail(client, "%s, %s%s: %s: %s", client->doing,
                         hand->resumed ? "coming back" : "for the first time",
                         hand->part->reconnect_ns == MR_NO_RECONNECT ? ", not reconnecting" : "",
                         mr_status_name(status), mr_message(hand->handle));
            return false;
        }
        snprintf(client->doing, sizeof(client->doing), "trying again after %s: %.200s", mr_status_name(status),
                 mr_message(hand->handle));
        hand_close(hand, hand->resumed);
        if (status == MR_SESSION_LOST)
            hand_forget(hand);
        wait_pause();
    }
}

/* ---- Recording ---- */

struct record *hand_call(struct hand *hand, struct record record)
{
    struct client *client = hand->client;
    uint32_t count = client->record_count;

    if (count >= RECORDS_MAX)
        return NULL;
    client->records[count] = record;
    client->records[count].handle = hand->handle_number;
    client->records[count].generation = hand->generation;
    client->records[count].called = history_now(hand->history);
    client->record_count = count + 1;
    return &client->records[count];
}

void hand_answered(struct hand *hand, struct record *record, enum mr_status status)
{
    record->status = (int32_t)status;
    record->answered = history_now(hand->history);
}

void hand_entry(struct hand *hand, struct record *record, const struct mr_entry *entry)
{
    record->entry_index = entry->index;
    record->result = value_read(entry->value);
    if (record->result == 0 || key_of(entry->key) != record->key)
        history_fail(hand->client,
                     "the answer to %s (called at %" PRIu64 ") holds a mangled entry: key %.*s, %zu bytes of value",
                     what_name((enum what)record->what), record->called, (int)entry->key.size,
                     (const char *)entry->key.data, entry->value.size);
}

/* ---- A life ---- */

int client_live(struct history *history, unsigned number)
{
    struct client *client = &history->clients[number];
    struct hand hand = {.history = history, .client = client, .part = &history->parts[number], .number = number};
    uint32_t life = atomic_fetch_add(&client->lives, 1);

    hand.random = hand.part->seed + life * UINT64_C(1000003);
    switch (hand.part->role) {
    case WRITER:
        return writer_live(&hand);
    case LISTENER:
        return listener_live(&hand);
    case OPENER:
        return opener_live(&hand);
    case LAST_LOOK:
        return last_look(&hand);
    }
    return 1;
}
