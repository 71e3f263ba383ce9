/* SPDX-License-Identifier: Apache-2.0 */
/* A writer: operations on counters and maps, one after the other or many in flight, each recorded before it is started
 * and when it is answered. Its life ends by a signal, or of itself: leaving its sessions, or closing them. */
#include "tests/crash/client.h"

#include <inttypes.h>
#include <string.h>

#include "tests/support/wait.h"

/* A process is one writer. */
static struct hand *me;
static unsigned in_flight;
static unsigned made; /* operations in this life */
static int64_t last_value[COUNTERS];
static uint64_t last_index[MAPS][KEYS + 1]; /* as seen last: what conditions are made of */

/* ---- Answers ---- */

static bool is_answer(enum mr_status status)
{
    return status == MR_OK || status == MR_NOT_FOUND || status == MR_ALREADY_EXISTS || status == MR_CONFLICT;
}

static void remember(const struct record *record)
{
    if (record->what < MAP_GET)
        last_value[record->object] = (int64_t)record->result;
    else
        last_index[record->object][record->key] = record->what == MAP_REMOVE ? 0 : record->entry_index;
}

/* Everything but the answer's contents. `why` is for people. */
static void met(struct record *record, enum mr_status status, const char *why, size_t size)
{
    if (is_answer(status)) {
        if (status == MR_OK)
            remember(record);
        hand_answered(me, record, status);
    } else if (status != MR_CANCELED && !hand_lost(me, status)) {
        history_fail(me->client, "%s (called at %" PRIu64 "): %s: %.*s", what_name((enum what)record->what),
                     record->called, mr_status_name(status), (int)size, why);
    }
}

static void done(mr_client *handle, const struct mr_result *result)
{
    struct record *record = result->arg;

    (void)handle;
    in_flight--;
    record->index = result->index;
    if (result->status == MR_OK && record->what < MAP_GET)
        record->result = (uint64_t)result->as.number;
    else if (result->status == MR_OK)
        hand_entry(me, record, &result->as.entry);
    if (!result->last)
        history_fail(me->client, "a first answer that is not the last one, to %s (called at %" PRIu64 ")",
                     what_name((enum what)record->what), record->called);
    met(record, result->status, result->message.data, result->message.size);
}

/* ---- Operations ---- */

static enum mr_status start(struct record *record)
{
    struct mr_then then = {.done = done, .arg = record};
    mr_counter *counter = record->what < MAP_GET ? me->counters[record->object] : NULL;
    mr_map *map = record->what < MAP_GET ? NULL : me->maps[record->object];
    struct mr_put put = {.if_index = record->condition};
    uint8_t value[VALUE_MAX];
    char name[16];

    key_name(name, record->key);
    struct mr_bytes key = mr_text(name);
    struct mr_bytes bytes = {value, record->what < MAP_PUT ? 0 : value_write(value, record->argument)};
    switch ((enum what)record->what) {
    case COUNTER_GET:
        return mr_counter_get_start(counter, then, NULL);
    case COUNTER_ADD:
        return mr_counter_increment_start(counter, (int64_t)record->argument, then, NULL);
    case COUNTER_SET:
        return mr_counter_set_start(counter, (int64_t)record->argument, then, NULL);
    case COUNTER_CAS:
        return mr_counter_compare_and_set_start(counter, (int64_t)record->condition, (int64_t)record->argument, then,
                                                NULL);
    case MAP_GET:
        return mr_map_get_start(map, key, then, NULL);
    case MAP_PUT:
        return mr_map_put_start(map, key, bytes, &put, then, NULL);
    case MAP_INSERT:
        return mr_map_insert_start(map, key, bytes, NULL, then, NULL);
    case MAP_UPDATE:
        return mr_map_update_start(map, key, bytes, &put, then, NULL);
    case MAP_REMOVE:
        return mr_map_remove_start(map, key, record->condition, then, NULL);
    case NOTHING:
        break;
    }
    return MR_INVALID;
}

static enum mr_status call(struct record *record)
{
    mr_counter *counter = record->what < MAP_GET ? me->counters[record->object] : NULL;
    mr_map *map = record->what < MAP_GET ? NULL : me->maps[record->object];
    struct mr_put put = {.if_index = record->condition};
    uint8_t value[VALUE_MAX];
    char name[16];
    int64_t number = 0;
    struct mr_entry entry = {0};
    enum mr_status status = MR_INVALID;

    key_name(name, record->key);
    struct mr_bytes key = mr_text(name);
    struct mr_bytes bytes = {value, record->what < MAP_PUT ? 0 : value_write(value, record->argument)};
    switch ((enum what)record->what) {
    case COUNTER_GET:
        status = mr_counter_get(counter, &number);
        break;
    case COUNTER_ADD:
        status = mr_counter_increment(counter, (int64_t)record->argument, &number);
        break;
    case COUNTER_SET:
        status = mr_counter_set(counter, (int64_t)record->argument, &number);
        break;
    case COUNTER_CAS:
        status = mr_counter_compare_and_set(counter, (int64_t)record->condition, (int64_t)record->argument, &number);
        break;
    case MAP_GET:
        status = mr_map_get(map, key, &entry);
        break;
    case MAP_PUT:
        status = mr_map_put(map, key, bytes, &put, &record->index);
        break;
    case MAP_INSERT:
        status = mr_map_insert(map, key, bytes, NULL, &record->index);
        break;
    case MAP_UPDATE:
        status = mr_map_update(map, key, bytes, &put, &record->index);
        break;
    case MAP_REMOVE:
        status = mr_map_remove(map, key, record->condition, &entry);
        break;
    case NOTHING:
        break;
    }
    if (status == MR_OK && record->what < MAP_GET)
        record->result = (uint64_t)number;
    else if (status == MR_OK && (record->what == MAP_GET || record->what == MAP_REMOVE))
        hand_entry(me, record, &entry);
    else if (status == MR_OK) { /* the plain forms tell nothing but the index */
        record->entry_index = record->index;
        record->result = record->argument;
    }
    return status;
}

/* Sums get distinct amounts, of which each sum tells what it is made of; the others small numbers, which meet. */
static struct record draw_counter(void)
{
    unsigned counter = (unsigned)hand_draw(me, me->part->sums_only ? SUM_COUNTERS : COUNTERS);
    struct record record = {.object = (uint8_t)counter};
    uint64_t kind = hand_draw(me, 10);

    if (counter < SUM_COUNTERS) {
        record.what = kind < 8 ? COUNTER_ADD : COUNTER_GET;
        record.argument = 1 + hand_draw(me, UINT64_C(1) << 40);
        return record;
    }
    record.what = kind < 3 ? COUNTER_GET : kind < 6 ? COUNTER_CAS : kind < 8 ? COUNTER_ADD : COUNTER_SET;
    record.argument = record.what == COUNTER_ADD ? hand_draw(me, 1000) - 500 : hand_draw(me, UINT64_C(1) << 32);
    if (record.what == COUNTER_CAS)
        record.condition = (uint64_t)last_value[counter];
    return record;
}

static struct record draw_map(void)
{
    static const enum what kinds[] = {MAP_GET,    MAP_GET,    MAP_PUT,    MAP_PUT,    MAP_PUT,
                                      MAP_INSERT, MAP_UPDATE, MAP_UPDATE, MAP_REMOVE, MAP_REMOVE};
    struct record record = {.object = (uint8_t)hand_draw(me, MAPS),
                            .key = (uint8_t)hand_draw(me, KEYS),
                            .what = (uint8_t)kinds[hand_draw(me, 10)]};

    if (record.what >= MAP_PUT && record.what != MAP_REMOVE) /* a number that no other operation has */
        record.argument = (uint64_t)(me->number + 1) << 32 | (me->client->record_count + 1);
    if (record.what >= MAP_PUT && record.what != MAP_INSERT && hand_draw(me, 3) == 0)
        record.condition = last_index[record.object][record.key];
    return record;
}

/* One operation. False: the handle is lost, or something is wrong. */
static bool operate(bool *room)
{
    bool on_map = !me->part->sums_only && hand_draw(me, 2) == 0;
    struct record *record = hand_call(me, on_map ? draw_map() : draw_counter());

    *room = true;
    if (record == NULL) {
        *room = false;
        return true;
    }
    made++;
    if (me->part->window == 1) {
        enum mr_status status = call(record);
        met(record, status, mr_message(me->handle), strlen(mr_message(me->handle)));
        return !me->client->failed && is_answer(status);
    }
    enum mr_status status = start(record);
    if (status == MR_OK) {
        in_flight++;
        return true;
    }
    record->what = NOTHING;
    *room = status != MR_AGAIN;
    if (status != MR_AGAIN && !hand_lost(me, status))
        history_fail(me->client, "starting an operation: %s: %s", mr_status_name(status), mr_message(me->handle));
    return status == MR_AGAIN;
}

/* Answers that are there, or the first one that comes in that time. False: the handle is lost. */
static bool meet(int64_t wait_ns)
{
    enum mr_status status = mr_run(me->handle, wait_ns, NULL);

    if (status == MR_OK || status == MR_AGAIN)
        return !me->client->failed;
    if (!hand_lost(me, status))
        history_fail(me->client, "mr_run: %s: %s", mr_status_name(status), mr_message(me->handle));
    return false;
}

/* ---- A life ---- */

/* Operations are spread over the round's time. */
static bool is_due(void)
{
    const struct history *history = me->history;
    uint64_t passed = wait_now_ms() - history->begun_ms;

    return me->client->record_count <= passed * me->part->records / history->milliseconds &&
           me->client->record_count < me->part->records;
}

/* On one handle, until it is to end. False: the handle is lost. */
static bool work(void)
{
    unsigned saved = made;

    while (!me->history->stop && !me->client->failed) {
        bool room = true;
        if (me->part->life != 0 && made >= me->part->life)
            return true;
        while (room && in_flight < me->part->window && is_due()) {
            if (!operate(&room))
                return false;
            if (me->part->window == 1)
                break;
        }
        if (made - saved > 40) {
            hand_save(me);
            saved = made;
        }
        if (!meet(in_flight > 0 ? MILLISECONDS(1) : MR_NO_WAIT))
            return false;
        if (in_flight == 0 && !is_due())
            wait_pause();
    }
    snprintf(me->client->doing, sizeof(me->client->doing), "meeting its last answers");
    while (in_flight > 0)
        if (!meet(SECONDS(1)))
            return false;
    return true;
}

/* Not asked to end: it leaves, now and then with operations in flight, and the next life comes back; or closes. */
static void leave(void)
{
    uint64_t how = hand_draw(me, 4);

    if (how == 0) {
        hand_forget(me);
        hand_close(me, false);
        return;
    }
    bool room = true;
    while (how == 1 && room && in_flight < me->part->window && me->part->window > 1)
        if (!operate(&room))
            break;
    hand_save(me);
    hand_close(me, true);
}

int writer_live(struct hand *hand)
{
    struct client *client = hand->client;

    me = hand;
    for (;;) {
        in_flight = 0;
        if (!hand_connect(hand, true, true))
            return 1;
        hand_save(hand);
        snprintf(client->doing, sizeof(client->doing), "working");
        bool whole = work();
        if (client->failed)
            return 1;
        if (whole && hand->history->stop)
            break;
        if (whole) {
            leave();
            return client->failed ? 1 : 0;
        }
        hand_close(hand, true);
    }
    snprintf(client->doing, sizeof(client->doing), "closing");
    hand_forget(hand);
    hand_close(hand, false);
    client->done = !client->failed;
    return client->failed ? 1 : 0;
}
