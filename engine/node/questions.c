/* SPDX-License-Identifier: Apache-2.0 */
/* What clients ask of a partition's worker: coming back to a session, the list of sessions, a snapshot. The supervisor
 * passes the question on, remembers who asked, and passes the answer back.
 *
 * The happy path: the question is owed to the worker until its socket has room, then sent; the worker's answer brings
 * memory, which goes to the client. What may go wrong: the asker goes away meanwhile (the answer is dropped); the
 * worker ends before it has answered (its successor is asked; a second end is told to the client, so that no question
 * can keep a partition dying); the partition is stopped (the client is told why); a session is in use by a process that
 * has ended, whose end was not looked at yet (it is now, and the worker is asked again).
 *
 * Between its attaching and its first command a process uses no session as the worker sees it. So each connection
 * remembers what it has come back to, for its whole life, and nobody else is let in meanwhile. */
#include "engine/node/supervisor_parts.h"

#include "proto/messages.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SESSIONS_ATTACHED_MAX 4096 /* by one connection */
#define DEATHS_MOST 2              /* of workers that had been asked a question */

struct attached_session {
    uint32_t partition;
    uint64_t session_id;
};

uint64_t connection_name(const struct connection *connection)
{
    return event_name(EVENT_CONNECTION, connection->place, connection->serial);
}

static struct connection *find_asker(const struct supervisor *s, uint64_t name, uint64_t number)
{
    uint32_t place = (uint32_t)(name >> 32) & 0xffffff;
    struct connection *connection = place < s->connections_max ? s->connections[place] : NULL;

    return connection != NULL && connection_name(connection) == name && connection->question.state == QUESTION_SENT &&
                   connection->question.number == number
               ? connection
               : NULL;
}

/* ---- asking ---- */

static void owe(struct supervisor *s, struct partition *partition, struct connection *connection)
{
    connection->question.state = QUESTION_OWED;
    partition->owes = true;
    workers_pay(s, partition);
}

static void over(struct supervisor *s, struct connection *connection)
{
    if (connection->question.state != QUESTION_NONE && s->partitions != NULL) /* which go first at the node's end */
        s->partitions[connection->question.partition - 1].questions--;
    connection->question.state = QUESTION_NONE;
}

static void refuse_stopped(struct supervisor *s, struct connection *connection, const struct partition *partition)
{
    connection_refuse_question(s, connection, MR_INTERNAL, "partition %" PRIu32 " is stopped: %.*s", partition->number,
                               (int)sizeof(partition->region->reason) - 1, partition->region->reason);
}

void questions_ask(struct supervisor *s, struct connection *connection, enum control_kind kind, uint32_t number,
                   uint64_t session_id)
{
    if (number < 1 || number > s->partition_count) {
        connection_refuse_question(s, connection, MR_INVALID,
                                   "there is no partition %" PRIu32 ": the node has 1 to %" PRIu32, number,
                                   s->partition_count);
        return;
    }
    struct partition *partition = &s->partitions[number - 1];
    if (connection->question.state != QUESTION_NONE) {
        connection_refuse_question(s, connection, MR_UNAVAILABLE,
                                   "this connection's former question is not answered yet: one at a time");
    } else if (s->stopping) {
        connection_refuse_question(s, connection, MR_UNAVAILABLE, "the node is stopping");
    } else if (partition_is_stopped(partition)) {
        refuse_stopped(s, connection, partition);
    } else if (kind == CONTROL_SNAPSHOT && connection->uid != 0 && connection->uid != geteuid()) {
        connection_refuse_question(s, connection, MR_UNAUTHORIZED,
                                   "a snapshot is taken for root and for user %d, whom the node runs as",
                                   (int)geteuid());
    } else if (kind == CONTROL_ATTACH && session_id == 0) {
        connection_refuse_question(s, connection, MR_FORBIDDEN, "session 0 is unknown: no session has that number");
    } else {
        connection->question = (struct question){
            .kind = kind, .number = ++s->question_number, .partition = number, .session_id = session_id};
        partition->questions++;
        owe(s, partition, connection);
    }
}

bool questions_pay(struct supervisor *s, struct partition *partition)
{
    for (uint32_t place = 0; partition->questions > 0 && place < s->connections_max; place++) {
        struct connection *connection = s->connections[place];
        if (connection == NULL || connection->question.state != QUESTION_OWED ||
            connection->question.partition != partition->number)
            continue;
        struct question *question = &connection->question;
        struct control_message message = {.kind = question->kind,
                                          .question = question->number,
                                          .connection = connection_name(connection),
                                          .session_id = question->session_id,
                                          .uid = connection->uid};
        if (workers_send(s, partition, &message, NULL, 0) == CONTROL_NO_ROOM)
            return false;
        question->state = QUESTION_SENT; /* or the worker is being killed, which counts as that */
    }
    return true;
}

/* ---- the answer ---- */

static bool has_attached(const struct connection *connection, uint32_t partition, uint64_t session_id)
{
    for (uint32_t i = 0; i < connection->attached_count; i++)
        if (connection->attached[i].session_id == session_id && connection->attached[i].partition == partition)
            return true;
    return false;
}

static bool note_attached(struct connection *connection, uint32_t partition, uint64_t session_id)
{
    if (has_attached(connection, partition, session_id))
        return true;
    uint32_t count = connection->attached_count;
    if (count == SESSIONS_ATTACHED_MAX)
        return false;
    if ((count & (count - 1)) == 0) { /* full: it doubles at each power of two */
        struct attached_session *grown = realloc(connection->attached, (count == 0 ? 1 : 2 * count) * sizeof(*grown));
        if (grown == NULL)
            return false;
        connection->attached = grown;
    }
    connection->attached[connection->attached_count++] =
        (struct attached_session){.partition = partition, .session_id = session_id};
    return true;
}

/* Another connection that has come back to the session. NULL: none that lives; *ended: one had, and is being let go
 * of. */
static struct connection *find_attached(struct supervisor *s, const struct connection *but, bool *ended)
{
    *ended = false;
    for (uint32_t place = 0; place < s->connections_max; place++) {
        struct connection *other = s->connections[place];
        if (other == NULL || other == but || !has_attached(other, but->question.partition, but->question.session_id))
            continue;
        if (!connection_ended(s, other))
            return other;
        questions_connection_ends(s, other);
        *ended = true;
    }
    return NULL;
}

static void send_answer(struct supervisor *s, struct connection *connection, uint64_t size, int fd)
{
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    Millrace__V1__Attached attached = MILLRACE__V1__ATTACHED__INIT;
    Millrace__V1__Sessions sessions = MILLRACE__V1__SESSIONS__INIT;
    Millrace__V1__SnapshotTaken taken = MILLRACE__V1__SNAPSHOT_TAKEN__INIT;

    if (connection->question.kind == CONTROL_ATTACH) {
        attached.partition = connection->question.partition;
        attached.session_id = connection->question.session_id;
        attached.size = size;
        message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_ATTACHED;
        message.attached = &attached;
    } else if (connection->question.kind == CONTROL_SNAPSHOT) {
        taken.partition = connection->question.partition;
        taken.size = size;
        message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_SNAPSHOT_TAKEN;
        message.snapshot_taken = &taken;
    } else {
        sessions.partition = connection->question.partition;
        sessions.size = size;
        message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_SESSIONS;
        message.sessions = &sessions;
    }
    connection_send(s, connection, &message, &fd, 1);
}

/* The worker lets a connection attach. */
static void attach(struct supervisor *s, struct partition *partition, struct connection *connection, uint64_t size,
                   int fd)
{
    uint64_t session_id = connection->question.session_id;
    bool ended;
    const struct connection *other = find_attached(s, connection, &ended);

    if (other != NULL) {
        over(s, connection);
        connection_refuse_question(s, connection, MR_UNAVAILABLE, "session %" PRIu64 " is in use by process %d",
                                   session_id, (int)other->pid);
    } else if (ended) {
        /* The worker may not have known that it is: there is a channel less now, and it looks again. */
        owe(s, partition, connection);
    } else if (!note_attached(connection, partition->number, session_id)) {
        over(s, connection);
        connection_refuse_question(s, connection, MR_UNAVAILABLE,
                                   "this connection cannot come back to more than %d sessions: use another one",
                                   SESSIONS_ATTACHED_MAX);
    } else {
        over(s, connection);
        send_answer(s, connection, size, fd);
    }
}

void questions_answered(struct supervisor *s, struct partition *partition, const struct control_message *message,
                        int fd)
{
    struct connection *connection = find_asker(s, message->connection, message->question);

    if (connection == NULL || connection->doomed)
        return;
    if (message->status != STATUS_OK) {
        if (message->channel_id != 0 && slots_user_ended(s, partition, message->slot, message->channel_id)) {
            owe(s, partition, connection);
            return;
        }
        over(s, connection);
        connection_refuse_question(s, connection, (enum mr_status)message->status, "%s", message->text);
    } else if (fd < 0) {
        over(s, connection);
        connection_refuse_question(s, connection, MR_UNAVAILABLE,
                                   "the node has no descriptor left for the answer; try again later");
    } else if (connection->question.kind == CONTROL_ATTACH) {
        attach(s, partition, connection, message->size, fd);
    } else {
        over(s, connection);
        send_answer(s, connection, message->size, fd);
    }
}

/* ---- ends ---- */

void questions_connection_ends(struct supervisor *s, struct connection *connection)
{
    over(s, connection);
    free(connection->attached);
    connection->attached = NULL;
    connection->attached_count = 0;
}

void questions_partition_stopped(struct supervisor *s, struct partition *partition)
{
    if (partition->questions == 0 || !partition_is_stopped(partition))
        return;
    for (uint32_t place = 0; place < s->connections_max; place++) {
        struct connection *connection = s->connections[place];
        if (connection == NULL || connection->question.state == QUESTION_NONE ||
            connection->question.partition != partition->number)
            continue;
        over(s, connection);
        refuse_stopped(s, connection, partition);
    }
}

void questions_worker_ended(struct supervisor *s, struct partition *partition)
{
    for (uint32_t place = 0; partition->questions > 0 && place < s->connections_max; place++) {
        struct connection *connection = s->connections[place];
        if (connection == NULL || connection->question.state != QUESTION_SENT ||
            connection->question.partition != partition->number)
            continue;
        connection->question.state = QUESTION_OWED;
        if (++connection->question.deaths < DEATHS_MOST)
            continue;
        over(s, connection);
        connection_refuse_question(s, connection, MR_UNAVAILABLE,
                                   "two workers of partition %" PRIu32
                                   " have ended before they could answer; try again later",
                                   partition->number);
    }
}
