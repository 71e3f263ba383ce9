/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and sessions: see check.h.
 *
 * A stream is replayed on an account of the map's keys. An INSERT must find its key empty, an UPDATE must find it full,
 * a REMOVE must take what is there: so no change of a key can be missing or come twice unnoticed, but for the first
 * and the last. Those are held against what the writers were answered, and against the last look. */
#include "tests/crash/check.h"

#include <inttypes.h>
#include <stdlib.h>

struct stream {
    const struct history *history;
    unsigned client;
    uint32_t number;
    const struct listening *listening;
    const struct event **events;
    size_t count;
    uint64_t listening_since; /* moment of its first event; 0: none came */
    uint64_t first, last;     /* indexes of the first and last write among its changes; 0: none */
    uint64_t replayed;        /* the highest index in its replay */
    bool whole;               /* it goes up to the marker */
    FILE *verdict;
};

struct place {
    enum { UNKNOWN, EMPTY, FULL } state;
    uint64_t number, index;
};

static bool complain(const struct stream *stream, const struct event *event, const char *what)
{
    fprintf(stream->verdict, "client %u, stream %u: %s", stream->client, stream->number, what);
    if (event != NULL)
        fprintf(stream->verdict, ": type %u key %u value %" PRIx64 " index %" PRIu64 ", taken at %" PRIu64, event->type,
                event->key, event->number, event->entry_index, event->taken);
    fputc('\n', stream->verdict);
    return false;
}

/* The operation that writes this value; NULL: none. */
static const struct record *writer_of(const struct history *history, uint64_t number)
{
    uint64_t client = (number >> 32) - 1;
    uint64_t record = (number & UINT32_MAX) - 1;

    if (client > history->client_count || record >= history->clients[client].record_count)
        return NULL;
    return &history->clients[client].records[record];
}

static bool check_writer(const struct stream *stream, const struct event *event)
{
    const struct record *record = writer_of(stream->history, event->number);

    if (record == NULL || record->what < MAP_PUT || record->what == MAP_REMOVE || record->argument != event->number ||
        record->object != stream->listening->map || record->key != event->key ||
        record->generation != event->generation)
        return complain(stream, event, "nobody wrote this");
    if (record->answered != 0 && (record->status != MR_OK || record->entry_index != event->entry_index))
        return complain(stream, event, "its writer was answered otherwise");
    return true;
}

/* ---- One event after the other ---- */

static bool replay_one(struct stream *stream, const struct event *event, struct place *place, bool changes)
{
    if (changes || !stream->listening->replay || place->state == FULL)
        return complain(stream, event, "a replayed entry where none can be");
    *place = (struct place){FULL, event->number, event->entry_index};
    if (event->entry_index > stream->replayed)
        stream->replayed = event->entry_index;
    return true;
}

static bool change_one(struct stream *stream, const struct event *event, struct place *place)
{
    uint64_t before = stream->last > stream->replayed ? stream->last : stream->replayed;

    if (event->type == MR_REMOVE) {
        if (place->state == EMPTY ||
            (place->state == FULL && (place->number != event->number || place->index != event->entry_index)))
            return complain(stream, event, "a removal of what is not there");
        place->state = EMPTY;
        return true;
    }
    if (event->entry_index <= before)
        return complain(stream, event, "an event out of order, or twice");
    if (place->state == (event->type == MR_INSERT ? FULL : EMPTY))
        return complain(stream, event, "an event is missing before this one");
    *place = (struct place){FULL, event->number, event->entry_index};
    stream->first = stream->first == 0 ? event->entry_index : stream->first;
    stream->last = event->entry_index;
    return true;
}

static bool run(struct stream *stream, struct place places[KEYS + 1])
{
    bool changes = false;

    for (size_t i = 0; i < stream->count; i++) {
        const struct event *event = stream->events[i];
        bool well = true;
        if ((i == 0) != (event->type == MR_LISTENING))
            return complain(stream, event, i == 0 ? "it does not begin with listening" : "it begins again");
        if (i == 0)
            continue;
        if (event->type == MR_REPLAY) {
            well = replay_one(stream, event, &places[event->key], changes);
        } else {
            /* Behind a replay, what was not in it is not there. */
            for (unsigned key = 0; !changes && stream->listening->replay && key <= KEYS; key++)
                if (places[key].state == UNKNOWN)
                    places[key].state = EMPTY;
            changes = true;
            well = change_one(stream, event, &places[event->key]);
        }
        if (!well || !check_writer(stream, event))
            return false;
        stream->whole |= event->key == MARKER_KEY;
    }
    return true;
}

/* ---- Against the writers and the last look ---- */

static int by_index(const void *left, const void *right)
{
    const struct event *a = *(const struct event *const *)left;
    const struct event *b = *(const struct event *const *)right;
    return a->entry_index < b->entry_index ? -1 : a->entry_index > b->entry_index;
}

static bool has_write(const struct stream *stream, const struct event *const *sorted, size_t count, uint64_t index)
{
    struct event wanted = {.entry_index = index};
    const struct event *key = &wanted;

    (void)stream;
    return bsearch(&key, sorted, count, sizeof(*sorted), by_index) != NULL;
}

/* An acknowledged write stands in the stream, or before it. */
static bool check_write(const struct stream *stream, const struct record *record, const struct event *const *sorted,
                        size_t count, const struct place *place)
{
    uint64_t index = record->entry_index;

    if (has_write(stream, sorted, count, index))
        return true;
    if (stream->last != 0 && index > stream->first && index < stream->last)
        return complain(stream, NULL, "a gap: an acknowledged write within it is missing");
    if (stream->whole && stream->last != 0 && index > stream->last)
        return complain(stream, NULL, "an acknowledged write behind its end is missing");
    if ((stream->whole || (stream->last != 0 && index < stream->first)) && stream->listening_since != 0 &&
        record->called > stream->listening_since)
        return complain(stream, NULL, "a write that was called when it already listened is missing");
    /* Then it is older than the stream; what was replayed of its key is no older. */
    if (stream->listening->replay && (stream->whole || (stream->last != 0 && index < stream->first)) &&
        place->state == FULL && place->index < index)
        return complain(stream, NULL, "it replayed an entry as it was before an acknowledged write");
    return true;
}

static bool check_writes(const struct stream *stream, const struct place places[KEYS + 1])
{
    const struct history *history = stream->history;
    const struct event **sorted = malloc((stream->count + 1) * sizeof(*sorted));
    size_t count = 0;
    bool well = sorted != NULL;

    for (size_t i = 0; well && i < stream->count; i++)
        if (stream->events[i]->type == MR_INSERT || stream->events[i]->type == MR_UPDATE)
            sorted[count++] = stream->events[i];
    for (unsigned i = 0; well && i <= history->client_count; i++)
        for (uint32_t j = 0; well && j < history->clients[i].record_count; j++) {
            const struct record *record = &history->clients[i].records[j];
            if (record->what < MAP_PUT || record->what == MAP_REMOVE || record->object != stream->listening->map ||
                record->generation != stream->listening->generation || record->answered == 0 || record->status != MR_OK)
                continue;
            well = check_write(stream, record, sorted, count, &places[record->key]);
            if (!well)
                fprintf(stream->verdict, "    it was called at %" PRIu64 " by client %u: key %u, index %" PRIu64 "\n",
                        record->called, i, record->key, record->entry_index);
        }
    free(sorted);
    return well;
}

static bool check_end(const struct stream *stream, const struct place places[KEYS + 1])
{
    const struct history *history = stream->history;
    const struct client *last = &history->clients[history->client_count];

    for (uint32_t i = 0; i < last->record_count; i++) {
        const struct record *record = &last->records[i];
        if (record->what != MAP_GET || record->object != stream->listening->map || record->answered == 0 ||
            record->generation != stream->listening->generation)
            continue;
        const struct place *place = &places[record->key];
        bool there = record->status == MR_OK;
        if (place->state != UNKNOWN &&
            (there != (place->state == FULL) ||
             (there && (place->index != record->entry_index || place->number != record->result))))
            return complain(stream, NULL, "at its end the map is not what its events make of it");
    }
    return true;
}

static bool check_stream(struct stream *stream)
{
    const struct history *history = stream->history;
    const struct client *client = &history->clients[stream->client];
    struct place places[KEYS + 1] = {0};
    bool well;

    stream->listening = &client->listenings[stream->number];
    stream->events = malloc((client->event_count + 1) * sizeof(const struct event *));
    if (stream->events == NULL)
        return complain(stream, NULL, "no memory to check with");
    for (uint32_t i = 0; i < client->event_count; i++)
        if (client->events[i].listening == stream->number)
            stream->events[stream->count++] = &client->events[i];
    if (stream->count > 0)
        stream->listening_since = stream->events[0]->taken;
    well = run(stream, places) && check_writes(stream, places);
    if (well && stream->whole)
        well = check_end(stream, places);
    free(stream->events);
    return well;
}

bool check_streams(const struct history *history, FILE *verdict, struct tally *tally)
{
    bool well = true;

    for (unsigned i = 0; i < history->client_count; i++) {
        bool whole = history->parts[i].role != LISTENER;
        for (uint32_t j = 0; j < history->clients[i].listening_count; j++) {
            struct stream stream = {.history = history, .client = i, .number = j, .verdict = verdict};
            well = check_stream(&stream) && well;
            whole |= stream.whole;
            tally->events += stream.count;
        }
        if (!whole && well) {
            fprintf(verdict, "client %u: none of its streams came to the marker\n", i);
            well = false;
        }
    }
    return well;
}

/* ---- Sessions ---- */

static bool listed(const struct history *history, uint64_t session)
{
    for (uint32_t i = 0; i < history->session_count; i++)
        if (history->session_ids[i] == session)
            return true;
    return false;
}

bool check_sessions(const struct history *history, FILE *verdict, struct tally *tally)
{
    uint64_t known = 0;
    uint64_t perhaps = 0;
    bool well = true;

    for (unsigned i = 0; i < history->client_count; i++)
        for (uint32_t j = 0; j < history->clients[i].opened_count; j++) {
            const struct opened *opened = &history->clients[i].opened[j];
            bool there =
                opened->session != 0 && opened->generation == history->generation && listed(history, opened->session);
            tally->sessions++;
            perhaps += opened->session == 0 ? 1 + history->node_lives - opened->node_lives : opened->deaths;
            known += there;
            if (opened->session == 0 || opened->generation != history->generation)
                continue;
            if (!there && opened->close == CLOSE_NOT_SENT) {
                fprintf(verdict, "session %" PRIu64 " was opened, and is not there\n", opened->session);
                well = false;
            } else if (there && opened->close == CLOSE_DONE) {
                fprintf(verdict, "session %" PRIu64 " was closed, and is there\n", opened->session);
                well = false;
            }
            for (uint32_t k = 0; k < j; k++)
                if (history->clients[i].opened[k].session == opened->session &&
                    history->clients[i].opened[k].generation == opened->generation) {
                    fprintf(verdict, "session %" PRIu64 " was opened twice\n", opened->session);
                    well = false;
                }
        }
    if (history->session_count > known + perhaps) {
        fprintf(verdict, "%u sessions are there: %" PRIu64 " that were answered; others can be %" PRIu64 " at most\n",
                history->session_count, known, perhaps);
        well = false;
    }
    return well;
}

bool check_round(const struct history *history, FILE *verdict, struct tally *tally)
{
    bool objects = check_objects(history, verdict, tally);
    bool indexes = check_indexes(history, verdict);
    bool streams = check_streams(history, verdict, tally);
    bool sessions = check_sessions(history, verdict, tally);

    return objects && indexes && streams && sessions;
}
