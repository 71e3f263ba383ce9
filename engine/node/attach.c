/* SPDX-License-Identifier: Apache-2.0 */
/* Coming back to a session: see attach.h. Questions are answered one a turn, and what is long a piece a turn, so that
 * nobody else waits for them. Answers are encoded with protobuf-c, piece behind piece: encodings of parts of a message,
 * one behind the other, are an encoding of the whole. */
#include "engine/node/attach.h"

#include "engine/fsm/memory.h"
#include "engine/node/worker_state.h"
#include "millrace/v1/control.pb-c.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- who uses what ---- */

static uint64_t place_at(const struct region_sessions *sessions, uint32_t place)
{
    return atomic_load_explicit(&sessions->places[place], memory_order_relaxed);
}

/* Where the session stands, or the free place where it would. There is always one that is free. */
static uint32_t place_of(const struct region_sessions *sessions, uint64_t session_id)
{
    uint32_t place = (uint32_t)((session_id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (REGION_SESSION_PLACES - 1);

    while (place_at(sessions, place) != 0 && place_at(sessions, place) != session_id)
        place = (place + 1) & (REGION_SESSION_PLACES - 1);
    return place;
}

static void put_in(struct region_sessions *sessions, uint64_t session_id)
{
    atomic_store_explicit(&sessions->any, 1, memory_order_relaxed);
    atomic_store_explicit(&sessions->places[place_of(sessions, session_id)], session_id, memory_order_release);
}

static bool uses(const struct region_sessions *sessions, uint64_t session_id)
{
    return atomic_load_explicit(&sessions->all, memory_order_relaxed) != 0 ||
           place_at(sessions, place_of(sessions, session_id)) == session_id;
}

/* The table is full: those that have ended leave it. Where they are too few, the rest is not told apart from there on,
 * and the table is of no more use. */
static void make_room(struct worker *worker, struct worker_channel *channel)
{
    struct region_sessions *sessions = &channel->region->sessions;
    uint64_t left[ATTACH_SESSIONS_MAX];
    uint32_t count = 0;
    uint32_t owner;

    atomic_store_explicit(&sessions->all, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* before anything leaves the table */
    for (uint32_t place = 0; place < REGION_SESSION_PLACES; place++) {
        uint64_t session_id = place_at(sessions, place);
        if (session_id != 0 && fsm_session_owner(worker->fsm, session_id, &owner))
            left[count++] = session_id;
    }
    channel->sessions.count = count;
    if (count == ATTACH_SESSIONS_MAX)
        return;
    for (uint32_t place = 0; place < REGION_SESSION_PLACES; place++)
        atomic_store_explicit(&sessions->places[place], 0, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++)
        put_in(sessions, left[i]);
    atomic_store_explicit(&sessions->all, 0, memory_order_release);
}

void attach_note_other(struct worker *worker, struct worker_channel *channel, uint64_t session_id)
{
    struct region_sessions *sessions = &channel->region->sessions;
    uint32_t owner;

    /* Nothing is noted of who named another user's session, or one that is no more, and was refused. */
    if (!fsm_session_owner(worker->fsm, session_id, &owner) || owner != channel->uid)
        return;
    channel->sessions.last = session_id;
    if (uses(sessions, session_id))
        return;
    if (channel->sessions.count == ATTACH_SESSIONS_MAX)
        make_room(worker, channel);
    if (atomic_load_explicit(&sessions->all, memory_order_relaxed) != 0)
        return;
    put_in(sessions, session_id);
    channel->sessions.count++;
}

void attach_take_over(struct worker_channel *channel)
{
    const struct region_sessions *sessions = &channel->region->sessions;

    channel->sessions = (struct session_use){.count = 0};
    for (uint32_t place = 0; place < REGION_SESSION_PLACES; place++)
        channel->sessions.count += place_at(sessions, place) != 0;
}

static bool is_there(const struct worker_channel *channel)
{
    return channel->used && !channel->closing && !channel->broken;
}

/* A channel of another connection than `except` that uses the session; NULL: none. */
static const struct worker_channel *find_holder(const struct worker *worker, uint64_t session_id, uint32_t owner,
                                                uint64_t except)
{
    for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++) {
        const struct worker_channel *channel = &worker->channels[slot];
        if (is_there(channel) && channel->uid == owner && channel->region->connection != except &&
            uses(&channel->region->sessions, session_id))
            return channel;
    }
    return NULL;
}

/* ---- answers ---- */

static void put(struct attach_bytes *to, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);

    if (to->size + size > to->capacity) {
        to->capacity = 2 * (to->size + size);
        to->data = memory_resize(to->data, to->capacity);
    }
    to->size += protobuf_c_message_pack(message, to->data + to->size);
}

static ProtobufCBinaryData bytes_of(struct slice slice)
{
    return (ProtobufCBinaryData){.len = slice.size, .data = (uint8_t *)(uintptr_t)slice.data};
}

/* A piece of a session's open commands. */
struct open_piece {
    struct attach_bytes *bytes;
    size_t until; /* it ends where they are so many */
    unsigned count;
};

static void put_open(void *context, const struct fsm_open_command *command)
{
    struct open_piece *piece = context;
    Millrace__V1__Attachment attachment = MILLRACE__V1__ATTACHMENT__INIT;
    Millrace__V1__OpenCommand told = MILLRACE__V1__OPEN_COMMAND__INIT;
    Millrace__V1__OpenCommand *pointer = &told;

    if (piece->bytes->size >= piece->until)
        return;
    piece->count++;
    told.sequence_num = command->sequence_num;
    told.acknowledged = command->acknowledged;
    told.service_id = command->service_id;
    told.service = bytes_of(command->spec.service);
    told.name_space = bytes_of(command->spec.name_space);
    told.name = bytes_of(command->spec.name);
    told.operation = bytes_of(command->operation);
    attachment.n_open = 1;
    attachment.open = &pointer;
    put(piece->bytes, &attachment.base);
}

static void answer(struct worker *worker, const struct attach_question *question, struct worker_answer *with)
{
    with->number = question->number;
    with->connection = question->connection;
    worker->answered(worker->answered_context, with);
}

/* May the asker have it? Else says why not. */
static bool may_attach(struct worker *worker, const struct attach_question *question, struct fsm_session *session,
                       struct worker_answer *with)
{
    if (!fsm_session_describe(worker->fsm, question->session_id, session)) {
        with->status = STATUS_FORBIDDEN;
        snprintf(with->text, sizeof(with->text), "session %" PRIu64 " is unknown, closed or expired",
                 question->session_id);
        return false;
    }
    if (session->uid != question->uid) {
        with->status = STATUS_UNAUTHORIZED;
        snprintf(with->text, sizeof(with->text), "session %" PRIu64 " was opened by another user",
                 question->session_id);
        return false;
    }
    const struct worker_channel *holder = find_holder(worker, session->id, session->uid, question->connection);
    if (holder != NULL) {
        with->status = STATUS_UNAVAILABLE;
        with->holder_slot = holder->slot;
        with->holder_channel = holder->channel_id;
        snprintf(with->text, sizeof(with->text), "session %" PRIu64 " is in use by process %" PRId32, session->id,
                 holder->region->pid);
    }
    return holder == NULL;
}

/* False: not all that is open has been told yet. */
static bool tell_open(struct worker *worker, struct attach_question *question, const struct fsm_session *session)
{
    if (question->begun == 0 || question->changes != session->changes) {
        question->begun++;
        question->changes = session->changes;
        question->listed = question->bytes.size = 0;
    }
    struct open_piece piece = {.bytes = &question->bytes, .until = question->bytes.size + MR_TURN_BYTES};
    fsm_session_open_commands(worker->fsm, session->id, question->listed, ATTACH_OPEN_A_TURN, put_open, &piece);
    question->listed += piece.count;
    return question->listed >= session->open_commands;
}

/* False: it is not at its end. */
static bool answer_attach(struct worker *worker, struct attach_question *question)
{
    Millrace__V1__Attachment attachment = MILLRACE__V1__ATTACHMENT__INIT;
    struct worker_answer with = {.status = STATUS_OK};
    struct fsm_session session;

    if (may_attach(worker, question, &session, &with)) {
        if (!tell_open(worker, question, &session)) {
            bool too_long = question->bytes.size > MR_ATTACH_BYTES_MAX;
            if (!too_long && question->begun <= ATTACH_BEGUN_MOST)
                return false;
            with.status = STATUS_UNAVAILABLE;
            if (too_long)
                snprintf(with.text, sizeof(with.text),
                         "what is open in session %" PRIu64 " takes more than %llu bytes to tell", session.id,
                         (unsigned long long)MR_ATTACH_BYTES_MAX);
            else
                snprintf(with.text, sizeof(with.text), "session %" PRIu64 " opens or ends commands all the time",
                         session.id);
        } else {
            attachment.session_id = session.id;
            attachment.timeout_ns = session.timeout;
            attachment.highest = session.highest;
            put(&question->bytes, &attachment.base);
            with.bytes = question->bytes.data;
            with.size = question->bytes.size;
        }
    }
    answer(worker, question, &with);
    return true;
}

static void put_entry(struct worker *worker, struct attach_bytes *to, const struct fsm_session *session)
{
    Millrace__V1__SessionList list = MILLRACE__V1__SESSION_LIST__INIT;
    Millrace__V1__SessionEntry entry = MILLRACE__V1__SESSION_ENTRY__INIT;
    Millrace__V1__SessionEntry *pointer = &entry;
    const struct worker_channel *holder = find_holder(worker, session->id, session->uid, 0);

    entry.session_id = session->id;
    entry.uid = session->uid;
    entry.timeout_ns = session->timeout;
    entry.remaining_ns = session->deadline > worker->time ? session->deadline - worker->time : 0;
    entry.holder = holder != NULL ? holder->region->pid : 0;
    entry.open_commands = session->open_commands;
    entry.stored_bytes = session->stored_bytes;
    list.n_sessions = 1;
    list.sessions = &pointer;
    put(to, &list.base);
}

/* False: the list is not at its end. */
static bool answer_list(struct worker *worker, struct attach_question *question)
{
    struct worker_answer with = {.status = STATUS_OK};
    struct fsm_session session;

    for (unsigned i = 0; i < ATTACH_LIST_A_TURN; i++) {
        if (!fsm_session_after(worker->fsm, question->listed, &session)) {
            with.bytes = question->bytes.data;
            with.size = question->bytes.size;
            answer(worker, question, &with);
            return true;
        }
        question->listed = session.id;
        if (session.uid == question->uid || question->uid == 0)
            put_entry(worker, &question->bytes, &session);
    }
    return false;
}

/* ---- questions ---- */

void attach_ask(struct worker *worker, const struct attach_question *question)
{
    if (worker->log == NULL)
        return;
    if (worker->question_count == worker->question_capacity) {
        worker->question_capacity = worker->question_capacity == 0 ? 8 : 2 * worker->question_capacity;
        worker->questions = memory_resize(worker->questions, worker->question_capacity * sizeof(*worker->questions));
    }
    struct attach_question *taken = &worker->questions[worker->question_count++];
    *taken = *question;
    taken->index = log_last_index(worker->log);
    taken->listed = taken->begun = 0;
    taken->bytes = (struct attach_bytes){.data = NULL};
}

/* Is everything applied that was logged before it came? What a failed write takes back is not waited for. */
static bool is_ready(struct worker *worker, struct attach_question *question)
{
    uint64_t last = log_last_index(worker->log);

    if (last < question->index)
        question->index = last;
    return fsm_index(worker->fsm) >= question->index;
}

bool attach_look(struct worker *worker)
{
    struct attach_question *question = worker->questions;

    if (worker->question_count == 0)
        return false;
    if (!is_ready(worker, question)) {
        if (log_trouble(worker->log) == NULL)
            return false;
        struct worker_answer with = {.status = STATUS_UNAVAILABLE,
                                     .text = "the partition's log cannot be written just now; try again later"};
        answer(worker, question, &with);
    } else if (question->session_id != 0) {
        if (!answer_attach(worker, question))
            return true;
    } else if (!answer_list(worker, question)) {
        return true;
    }
    free(question->bytes.data);
    worker->question_count--;
    memmove(question, question + 1, worker->question_count * sizeof(*question));
    return true;
}

void attach_free(struct worker *worker)
{
    for (unsigned i = 0; i < worker->question_count; i++)
        free(worker->questions[i].bytes.data);
    free(worker->questions);
    worker->questions = NULL;
    worker->question_count = worker->question_capacity = 0;
}
