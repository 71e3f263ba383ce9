/* SPDX-License-Identifier: Apache-2.0 */
/* A model of a map with listeners, which keeps everything in plain arrays and looks at all of it each time; and what it
 * foretells: what is said to whom when time passes, when entries change, when streams end. */
#ifndef TESTS_UNIT_FSM_STREAM_MODEL_H
#define TESTS_UNIT_FSM_STREAM_MODEL_H

#include "engine/fsm/session.h"
#include "tests/support/partition.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SESSIONS = 5, KEYS = 6, COMMANDS = 3000, ENTRIES = 64, CURSORS = 4, OWED = 4000, EXPECTED = 4000 };
enum event_type { NONE, INSERT, UPDATE, REMOVE, REPLAY };

#define LIMIT 24000

/* ---- the model's state ---- */

struct output {
    enum status status;
    size_t message_size;
    uint8_t payload[192];
    size_t size;
};

struct model_command {
    uint64_t number, index, acknowledged, input_size;
    bool stream, open;
    unsigned key; /* KEYS: every key */
    struct output *outputs;
    size_t count;
    struct fsm_route route; /* of a stream */
    uint64_t taken;         /* by the other machine's sink, of a stream: the number taken last */
    bool told;              /* likewise: its last frame */
};

struct model_session {
    uint64_t id, timeout, last_updated, floor, highest, next_number;
    bool there, open;
    struct model_command commands[COMMANDS];
    size_t count;
};

struct entry {
    uint64_t serial, index, expire;
    unsigned key;
    char value[100];
};

struct cursor {
    struct fsm_cursor *cursor;
    struct model_session *session;
    uint64_t given, last; /* serials */
    bool closed;
};

/* What one must say. */
struct expected {
    struct fsm_route route;
    uint64_t session_id, sequence_num, number;
    bool last, unstored;
    enum status status;
    struct output output;
};

struct owed {
    uint64_t session_id, sequence_num;
    struct fsm_route route;
};

struct walk {
    struct partition *one, *other;
    uint64_t index, time, service, serial;
    struct model_session sessions[SESSIONS];
    struct entry entries[ENTRIES]; /* in the order of insertion */
    size_t entry_count;
    struct cursor cursors[CURSORS];
    struct expected expected[EXPECTED];
    size_t expected_count;
    struct owed owed[OWED];
    size_t owed_count;
    bool room;                   /* the other's sink takes everything */
    struct fsm_route taken_over; /* what the other alone must say is taken over: it had more to tell there */
    size_t limits, takeovers, cancels, positives;
};

static inline void key_name(char name[8], unsigned key)
{
    snprintf(name, 8, "k%u", key);
}

static inline struct model_command *find(struct model_session *session, uint64_t number)
{
    for (size_t i = 0; i < session->count; i++)
        if (session->commands[i].number == number)
            return &session->commands[i];
    return NULL;
}

static inline uint64_t bytes_of(const struct output *output)
{
    return SESSION_OUTPUT_BYTES + output->size + output->message_size;
}

static inline uint64_t held(const struct model_session *session)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < session->count; i++) {
        const struct model_command *command = &session->commands[i];
        bytes += SESSION_COMMAND_BYTES + (command->open ? SESSION_STREAM_BYTES + command->input_size : 0);
        for (size_t at = command->acknowledged; at < command->count; at++)
            bytes += bytes_of(&command->outputs[at]);
    }
    return bytes;
}

static inline struct output failed(enum status status, const char *message)
{
    return (struct output){.status = status, .message_size = strlen(message)};
}

static inline struct output answered(const struct payload *payload)
{
    struct output output = {.status = STATUS_OK, .size = payload->size};
    assert_true(payload->size <= sizeof(output.payload));
    memcpy(output.payload, payload->data, payload->size);
    return output;
}

static inline struct payload entry_message(const struct entry *entry, uint64_t ttl)
{
    char key[8];
    struct duration duration = duration_of(ttl);
    key_name(key, entry->key);
    return write_payload(key, text(entry->value), ttl == 0 ? NULL : &duration, entry->index);
}

static inline uint64_t remaining(const struct walk *walk, const struct entry *entry)
{
    return entry->expire == 0 ? 0 : entry->expire - walk->time;
}

static inline struct output event_output(enum event_type type, struct payload entry)
{
    struct payload whole = {.size = 0}, event = {.size = 0};
    payload_number(&event, 1, type);
    payload_message(&event, 2, &entry);
    payload_message(&whole, 2, &event);
    return answered(&whole);
}

/* ---- what the model foretells ---- */

static inline void expect(struct walk *walk, struct expected expected)
{
    if (expected.route.channel == 0)
        return;
    assert_true(walk->expected_count < EXPECTED);
    walk->expected[walk->expected_count++] = expected;
}

static inline void expect_frame(struct walk *walk, struct fsm_route route, uint64_t session_id, uint64_t number,
                                enum status status)
{
    expect(walk, (struct expected){
                     .route = route, .session_id = session_id, .sequence_num = number, .last = true, .status = status});
}

static inline void expect_output(struct walk *walk, const struct model_session *session,
                                 const struct model_command *command, size_t at, struct fsm_route route)
{
    expect(walk, (struct expected){.route = route,
                                   .session_id = session->id,
                                   .sequence_num = command->number,
                                   .number = at + 1,
                                   .last = !command->open && at + 1 == command->count,
                                   .status = STATUS_OK,
                                   .output = command->outputs[at]});
}

static inline void push(struct model_command *command, struct output output)
{
    if ((command->count & (command->count + 1)) == 0 || command->outputs == NULL)
        command->outputs = realloc(command->outputs, (2 * command->count + 2) * sizeof(output));
    assert_non_null(command->outputs);
    command->outputs[command->count++] = output;
}

static inline void emit(struct walk *walk, struct model_session *session, struct model_command *command,
                        struct output output)
{
    if (held(session) + bytes_of(&output) > LIMIT) {
        char message[200];
        snprintf(message, sizeof(message),
                 "the session would pass its limit of unacknowledged outputs, %d bytes; acknowledge with a KeepAlive",
                 LIMIT);
        output = failed(STATUS_UNAVAILABLE, message);
        command->open = false;
        walk->limits++;
    }
    push(command, output);
    expect_output(walk, session, command, command->count - 1, command->route);
}

static inline void tell(struct walk *walk, enum event_type type, const struct entry *entry, uint64_t ttl)
{
    struct output output = event_output(type, entry_message(entry, ttl));
    uint64_t after = 0; /* listeners in the order of their indexes */
    for (;;) {
        struct model_session *of = NULL;
        struct model_command *next = NULL;
        for (unsigned i = 0; i < SESSIONS; i++) {
            struct model_session *session = &walk->sessions[i];
            for (size_t j = 0; session->there && j < session->count; j++) {
                struct model_command *command = &session->commands[j];
                if (command->open && command->index > after && (next == NULL || command->index < next->index) &&
                    (command->key == KEYS || command->key == entry->key)) {
                    next = command;
                    of = session;
                }
            }
        }
        if (next == NULL)
            return;
        after = next->index;
        emit(walk, of, next, output);
    }
}

static inline void forget(struct model_session *session, size_t at)
{
    free(session->commands[at].outputs);
    session->count--;
    memmove(&session->commands[at], &session->commands[at + 1], (session->count - at) * sizeof(session->commands[0]));
}

static inline void end_session(struct walk *walk, struct model_session *session)
{
    session->there = session->open = false;
    while (session->count > 0) {
        struct model_command *command = &session->commands[0];
        if (command->open)
            expect(walk, (struct expected){.route = command->route,
                                           .session_id = session->id,
                                           .sequence_num = command->number,
                                           .number = command->count + 1,
                                           .last = true,
                                           .unstored = true,
                                           .status = STATUS_OK,
                                           .output = failed(STATUS_CANCELED, "the session ended")});
        forget(session, 0);
    }
    for (unsigned i = 0; i < CURSORS; i++)
        walk->cursors[i].closed = walk->cursors[i].closed || walk->cursors[i].session == session;
}

static inline void remove_entry(struct walk *walk, size_t at, uint64_t ttl)
{
    tell(walk, REMOVE, &walk->entries[at], ttl);
    walk->entry_count--;
    memmove(&walk->entries[at], &walk->entries[at + 1], (walk->entry_count - at) * sizeof(walk->entries[0]));
}

/* Everything whose deadline has come, in order of deadline and then of what created it. */
static inline void pass_time(struct walk *walk, uint64_t time)
{
    for (;;) {
        uint64_t deadline = UINT64_MAX, order = 0;
        struct model_session *session = NULL;
        size_t entry = ENTRIES;
        for (unsigned i = 0; i < SESSIONS; i++) {
            struct model_session *candidate = &walk->sessions[i];
            uint64_t end = candidate->last_updated + candidate->timeout;
            if (candidate->there && (end < deadline || (end == deadline && candidate->id < order))) {
                deadline = end;
                order = candidate->id;
                session = candidate;
            }
        }
        for (size_t i = 0; i < walk->entry_count; i++) {
            const struct entry *candidate = &walk->entries[i];
            if (candidate->expire != 0 &&
                (candidate->expire < deadline || (candidate->expire == deadline && candidate->index < order))) {
                deadline = candidate->expire;
                order = candidate->index;
                entry = i;
            }
        }
        if (deadline > time)
            break;
        walk->time = deadline;
        if (entry < ENTRIES)
            remove_entry(walk, entry, 0);
        else
            end_session(walk, session);
    }
    walk->time = time;
}

#endif
