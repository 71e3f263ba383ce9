/* SPDX-License-Identifier: Apache-2.0 */
/* A listener: takes a map's events one after the other and notes each. A life that is killed is followed by one that
 * resumes the stream: it may be given again what its predecessor had noted since it last saved its sessions, and then
 * goes on exactly behind it. */
#include "tests/crash/client.h"

#include <inttypes.h>

#include "tests/support/wait.h"

static struct hand *me;
static uint32_t listening; /* the stream's number */
static uint32_t again;     /* the next of its noted events that may come again; == event_count: none any more */

/* Saving at each event would be slow, and would never show that a token can be old. */
#define SAVE_EVERY 16

static bool same(const struct event *a, const struct event *b)
{
    return a->number == b->number && a->entry_index == b->entry_index && a->type == b->type && a->key == b->key;
}

/* Events come again from a point on that the predecessor's acknowledgements decide: where the first one is found. */
static bool comes_again(const struct event *event, bool first)
{
    const struct client *client = me->client;
    const struct event *noted = &client->events[again];

    while (again < client->event_count && (noted->listening != listening || (first && !same(noted, event))))
        noted = &client->events[++again];
    return again < client->event_count;
}

static bool note(const struct mr_event *from, bool first)
{
    struct client *client = me->client;
    struct event event = {.entry_index = from->entry.index,
                          .number = value_read(from->entry.value),
                          .listening = listening,
                          .generation = me->generation,
                          .type = (uint8_t)from->type,
                          .key = (uint8_t)key_of(from->entry.key)};

    if (from->type != MR_LISTENING && (event.number == 0 || event.key > KEYS)) {
        history_fail(client, "a mangled event: type %d, key %.*s, %zu bytes of value", (int)from->type,
                     (int)from->entry.key.size, (const char *)from->entry.key.data, from->entry.value.size);
        return false;
    }
    if (comes_again(&event, first)) {
        if (!same(&client->events[again], &event)) {
            history_fail(client, "event %" PRIu32 " came again as another one: key %u index %" PRIu64, again, event.key,
                         event.entry_index);
            return false;
        }
        again++;
        return true;
    }
    if (client->event_count == EVENTS_MAX) {
        history_fail(client, "more than %d events", EVENTS_MAX);
        return false;
    }
    event.taken = history_now(me->history);
    client->events[client->event_count] = event;
    client->event_count++;
    again = client->event_count;
    return true;
}

/* The stream to take from: the one that was left, or a new one. NULL: the handle is lost, or something is wrong. */
static mr_stream *begin(bool *resumed)
{
    struct client *client = me->client;
    const struct left *left = &client->left[client->current];
    struct mr_pending_request pending;
    mr_stream *stream = NULL;
    mr_map *map = me->maps[me->part->map];
    enum mr_status status = MR_NOT_FOUND;

    *resumed = false;
    if (me->resumed && left->listening > 0)
        status = mr_pending(me->handle, 0, &pending);
    if (status == MR_OK) {
        status = mr_map_events_resume(map, pending.request, &stream);
        *resumed = status == MR_OK;
        listening = left->listening - 1;
        again = left->event_count > 0 ? left->event_count - 1 : 0;
    } else if (status == MR_NOT_FOUND) {
        uint32_t count = client->listening_count;
        if (count == LISTENINGS_MAX) {
            history_fail(client, "more than %d streams", LISTENINGS_MAX);
            return NULL;
        }
        client->listenings[count] = (struct listening){.asked = history_now(me->history),
                                                       .generation = me->generation,
                                                       .map = me->part->map,
                                                       .replay = me->part->replay};
        client->listening_count = count + 1;
        listening = count;
        again = client->event_count;
        status = mr_map_events(map, mr_text(""), me->part->replay, &stream);
    }
    if (status == MR_OK)
        return stream;
    if (!hand_lost(me, status))
        history_fail(client, "asking for events: %s: %s", mr_status_name(status), mr_message(me->handle));
    return NULL;
}

/* A stream that is being given again is not yet where its noted events end. */
static void save(void)
{
    me->taken = again;
    hand_save(me);
}

/* True: the marker has come, and the round is over for this client. */
static bool take(mr_stream *stream, bool resumed)
{
    struct client *client = me->client;
    struct mr_event event;
    uint32_t saved = client->event_count;
    bool first = resumed;

    me->listening = listening + 1;
    save();
    if (resumed)
        client->armed = (uint64_t)me->generation << 32 | client->lives;
    for (;;) {
        enum mr_status status = mr_stream_next(stream, MILLISECONDS(50), &event);
        if (status == MR_AGAIN)
            continue;
        if (status != MR_OK) {
            bool expired = status == MR_CANCELED && me->part->short_lived;
            if (!expired && !hand_lost(me, status))
                history_fail(client, "the stream ended: %s: %s", mr_status_name(status), mr_message(me->handle));
            return false;
        }
        if (!note(&event, first))
            return false;
        first = false;
        client->armed = (uint64_t)me->generation << 32 | client->lives;
        if (event.type != MR_LISTENING && key_of(event.entry.key) == MARKER_KEY)
            return true;
        if (client->event_count - saved >= SAVE_EVERY || (client->event_count > saved && hand_draw(me, 8) == 0)) {
            save();
            saved = client->event_count;
        }
    }
}

int listener_live(struct hand *hand)
{
    struct client *client = hand->client;

    me = hand;
    for (;;) {
        bool resumed = false;
        if (!hand_connect(hand, false, true))
            return 1;
        snprintf(client->doing, sizeof(client->doing), "asking for events");
        mr_stream *stream = begin(&resumed);
        snprintf(client->doing, sizeof(client->doing), "taking events");
        bool whole = stream != NULL && take(stream, resumed);
        if (client->failed)
            return 1;
        mr_stream_close(stream);
        if (whole)
            break;
        hand_close(hand, true);
    }
    snprintf(client->doing, sizeof(client->doing), "closing");
    hand_forget(hand);
    hand_close(hand, false);
    client->done = true;
    return 0;
}
