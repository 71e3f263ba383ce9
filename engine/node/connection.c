/* SPDX-License-Identifier: Apache-2.0 */
/* One client's conversation on the node's socket: what proto/millrace/v1/control.proto says, one packet at a time.
 *
 * The happy path: Hello, answered with Welcome and a descriptor that wakes this client; then OpenChannel,
 * ChannelMapped, CloseChannel, GetStatus, Attach, ListSessions and TakeSnapshot in any number and order. Who says
 * anything else, or does not read what is said to him, is dropped, and his channels are closed; nobody waits for him.
 * The other end is hostile for all we know: nothing it sends reaches an assertion, and it decides neither how much is
 * kept for it nor how many lines are logged. */
#include "engine/node/supervisor_parts.h"

#include "engine/node/access.h"
#include "ipc/handshake.h"
#include "ipc/planted.h"
#include "ipc/sys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PACKETS_TO_DRAIN 16

static void doom(struct supervisor *s, struct connection *connection)
{
    connection->doomed = true;
    s->any_doomed = true;
}

void connection_send(struct supervisor *s, struct connection *connection, const Millrace__V1__NodeMessage *message,
                     const int *fds, unsigned fd_count)
{
    struct mr_error error;

    if (connection->doomed)
        return;
    switch (handshake_send_node(connection->socket, message, fds, fd_count, &error)) {
    case HANDSHAKE_OK:
        return;
    case HANDSHAKE_AGAIN:
        supervisor_complain(s, "client with pid %d dropped: it does not read its socket", (int)connection->pid);
        break;
    case HANDSHAKE_CLOSED:
        break;
    case HANDSHAKE_SHORT: /* of the node's messages only: a client sends no descriptors */
    case HANDSHAKE_FAILED:
        supervisor_complain(s, "client with pid %d dropped: %s", (int)connection->pid, error.text);
        break;
    }
    doom(s, connection);
}

/* `text` is the message's until it is sent. */
static Millrace__V1__NodeMessage refusal(Millrace__V1__Refused *refused, enum mr_status status, const char *text)
{
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    millrace__v1__refused__init(refused);
    refused->status = (uint32_t)status;
    refused->message = bytes_of(text);
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED;
    message.refused = refused;
    return message;
}

void connection_refuse(struct supervisor *s, struct connection *connection, enum mr_status status, bool fatal,
                       const char *format, ...)
{
    char text[512];
    Millrace__V1__Refused refused;
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    Millrace__V1__NodeMessage message = refusal(&refused, status, text);
    refused.fatal = fatal;
    connection_send(s, connection, &message, NULL, 0);
    if (fatal) {
        connection->told = true;
        doom(s, connection);
    }
}

void connection_refuse_question(struct supervisor *s, struct connection *connection, enum mr_status status,
                                const char *format, ...)
{
    char text[512];
    Millrace__V1__Refused refused;
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    Millrace__V1__NodeMessage message = refusal(&refused, status, text);
    refused.question = true;
    connection_send(s, connection, &message, NULL, 0);
}

/* Packets that were not read when a Unix socket is closed make the other end's next read fail, ahead of what was sent
 * to it before: its last word would not be heard. */
static void drain(int socket)
{
    for (int i = 0; i < PACKETS_TO_DRAIN; i++) {
        Millrace__V1__ClientMessage *message = NULL;
        if (handshake_receive_client(socket, &message, NULL) != HANDSHAKE_OK)
            return;
        millrace__v1__client_message__free_unpacked(message, NULL);
    }
}

static void refuse_socket(int socket, enum mr_status status, const char *text)
{
    Millrace__V1__Refused refused;
    Millrace__V1__NodeMessage message = refusal(&refused, status, text);
    refused.fatal = true;

    if (handshake_send_node(socket, &message, NULL, 0, NULL) == HANDSHAKE_OK)
        drain(socket);
    (void)sys_close(socket); /* the client sees its end, whatever this says */
}

/* -1 with *error, where the kernel does not say. */
static int ask_peer(int socket, struct ucred *peer, struct mr_error *error)
{
    socklen_t size = sizeof(*peer);

    return sys_getsockopt(socket, SOL_SOCKET, SO_PEERCRED, peer, &size) == 0
               ? 0
               : error_system(error, errno, "the node cannot ask who you are");
}

/* May this user have one connection more? MR_OK; or why not, with *error. */
static enum mr_status check_room(const struct supervisor *s, uid_t uid, struct mr_error *error)
{
    unsigned own = 0;

    if (s->connection_count >= s->connections_max) {
        error_set(error, "the node has %u connections, the most it may have", s->connections_max);
        return MR_UNAVAILABLE;
    }
    for (uint32_t place = 0; place < s->connections_max; place++)
        own += s->connections[place] != NULL && s->connections[place]->uid == uid;
    if (s->few_descriptors && own >= (s->connections_max + 1) / 2) {
        error_set(error,
                  "user %u has %u connections, half of what the node's limit of open descriptors allows, which is the "
                  "most one user may have",
                  (unsigned)uid, own);
        return MR_UNAVAILABLE;
    }
    if (own < s->options->user_connections)
        return MR_OK;
    error_set(error, "user %u has %u connections, the most one user may have (--user-connections)", (unsigned)uid, own);
    return MR_UNAVAILABLE;
}

static void note_deadline(struct supervisor *s, uint64_t deadline)
{
    if (deadline < s->handshake_due)
        s->handshake_due = deadline;
}

static struct connection *make_connection(struct supervisor *s, int socket, const struct ucred *peer,
                                          struct mr_error *error)
{
    uint32_t place = 0;
    struct connection *connection = calloc(1, sizeof(*connection));

    if (connection == NULL) {
        error_set(error, "the node has no memory for another connection");
        return NULL;
    }
    while (s->connections[place] != NULL)
        place++;
    *connection = (struct connection){.socket = socket, .wake = -1, .place = place, .serial = ++s->connection_serial};
    if ((connection->wake = sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        error_system(error, errno, "the node cannot make an eventfd for this connection");
    } else if (event_add(s, socket, event_name(EVENT_CONNECTION, place, connection->serial), error) == 0) {
        connection->pid = peer->pid;
        connection->uid = peer->uid;
        connection->greet_by = s->now + s->handshake_limit;
        note_deadline(s, connection->greet_by);
        return connection;
    }
    if (connection->wake >= 0)
        (void)sys_close(connection->wake); /* never used */
    free(connection);
    return NULL;
}

void connection_add(struct supervisor *s, int socket)
{
    struct mr_error error;
    struct ucred peer = {.pid = 0};
    struct connection *connection = NULL;
    enum mr_status status = MR_UNAVAILABLE;

    if (ask_peer(socket, &peer, &error) != 0)
        ; /* unknown: refused */
    else if (!access_allows(&s->options->access, socket, &peer, &error))
        status = MR_FORBIDDEN;
    else if ((status = check_room(s, peer.uid, &error)) == MR_OK &&
             (connection = make_connection(s, socket, &peer, &error)) == NULL)
        status = MR_UNAVAILABLE;
    if (connection == NULL) {
        supervisor_complain(s, "client with pid %d refused: %s", (int)peer.pid, error.text);
        refuse_socket(socket, status, error.text);
        return;
    }
    s->connections[connection->place] = connection;
    s->connection_count++;
}

void connection_drop(struct supervisor *s, struct connection *connection)
{
    slots_connection_ends(s, connection);
    questions_connection_ends(s, connection);
    if (connection->told)
        drain(connection->socket);
    event_remove(s, connection->socket);
    (void)sys_close(connection->socket); /* the client sees its end, whatever this says */
    if (!PLANTED(DESCRIPTOR_LEFT))
        (void)sys_close(connection->wake);
    s->connections[connection->place] = NULL;
    s->connection_count--;
    free(connection);
    listener_resume(s, true);
}

bool connection_ended(struct supervisor *s, struct connection *connection)
{
    struct pollfd look = {.fd = connection->socket};

    if (!connection->doomed && (sys_poll(&look, 1, 0) <= 0 || (look.revents & (POLLHUP | POLLERR)) == 0))
        return false;
    slots_connection_ends(s, connection);
    doom(s, connection);
    return true;
}

void connection_drop_doomed(struct supervisor *s)
{
    /* Dropping one may doom another (a channel's end that it cannot be told). */
    while (s->any_doomed) {
        s->any_doomed = false;
        for (uint32_t place = 0; place < s->connections_max; place++)
            if (s->connections[place] != NULL && s->connections[place]->doomed)
                connection_drop(s, s->connections[place]);
    }
}

uint64_t connections_due(struct supervisor *s)
{
    if (s->now < s->handshake_due)
        return s->handshake_due;
    s->handshake_due = UINT64_MAX;
    for (uint32_t place = 0; place < s->connections_max; place++) {
        struct connection *connection = s->connections[place];
        if (connection == NULL || connection->greeted || connection->doomed)
            continue;
        if (s->now >= connection->greet_by) {
            supervisor_complain(s, "client with pid %d dropped: no Hello has come from it", (int)connection->pid);
            connection_refuse(s, connection, MR_TIMEOUT, true, "no Hello has come in time");
        } else {
            note_deadline(s, connection->greet_by);
        }
    }
    note_deadline(s, slots_due(s));
    return s->handshake_due;
}

/* What the client sleeps on: an epoll instance that watches its eventfd. The eventfd itself stays the node's. Whoever
 * had it could fill the counter and set and clear O_NONBLOCK, which belongs to all who share the open file, until the
 * kernel believes it set when it looks whether a worker's write may go ahead, and finds it cleared when it does: then
 * the worker waits, for as long as the client likes. -1 with *error; else the caller's to close. */
static int make_bell(int wake, struct mr_error *error)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET}; /* nobody reads the eventfd: each write counts */
    int bell = sys_epoll_create1(EPOLL_CLOEXEC);

    if (bell >= 0 && sys_epoll_ctl(bell, EPOLL_CTL_ADD, wake, &event) == 0)
        return bell;
    int code = errno;
    if (bell >= 0)
        (void)sys_close(bell); /* never used */
    return error_system(error, code, "the node cannot make an epoll instance for this connection");
}

static void take_hello(struct supervisor *s, struct connection *connection, const Millrace__V1__Hello *hello)
{
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    Millrace__V1__Welcome welcome = MILLRACE__V1__WELCOME__INIT;
    struct mr_error error;

    if (connection->greeted) {
        connection_refuse(s, connection, MR_INVALID, true, "Hello is said once");
        return;
    }
    if (hello->version != HANDSHAKE_VERSION) {
        connection_refuse(s, connection, MR_NOT_SUPPORTED, true,
                          "the node's hand-shake has version %d, yours has version %" PRIu32
                          "; use the library that belongs to the node",
                          HANDSHAKE_VERSION, hello->version);
        return;
    }
    int bell = make_bell(connection->wake, &error);
    if (bell < 0) {
        supervisor_complain(s, "client with pid %d dropped: %s", (int)connection->pid, error.text);
        connection_refuse(s, connection, MR_UNAVAILABLE, true, "%s", error.text);
        return;
    }
    connection->greeted = true;
    welcome.version = HANDSHAKE_VERSION;
    welcome.directory =
        (ProtobufCBinaryData){.len = sizeof(s->identity->id), .data = (uint8_t *)(uintptr_t)s->identity->id};
    welcome.partitions = s->partition_count;
    welcome.max_payload = s->options->max_payload;
    welcome.ring_bytes = s->options->ring_bytes;
    welcome.durability = bytes_of(options_durability(s->options));
    welcome.node = bytes_of(MILLRACE_VERSION);
    welcome.pid = (int32_t)getpid();
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME;
    message.welcome = &welcome;
    connection_send(s, connection, &message, PLANTED(BELL_GIVEN_AWAY) ? &connection->wake : &bell, 1);
    (void)sys_close(bell); /* the client has its own */
}

static void handle(struct supervisor *s, struct connection *connection, const Millrace__V1__ClientMessage *message)
{
    if (!connection->greeted && message->message_case != MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO) {
        connection_refuse(s, connection, MR_INVALID, true, "the first message must be Hello");
        return;
    }
    switch (message->message_case) {
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO:
        take_hello(s, connection, message->hello);
        return;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_OPEN_CHANNEL:
        slots_open(s, connection, message->open_channel->partition, message->open_channel->ring_bytes);
        return;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CHANNEL_MAPPED:
        slots_client_mapped(s, connection, message->channel_mapped->channel_id);
        return;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CLOSE_CHANNEL:
        slots_client_closes(s, connection, message->close_channel->channel_id);
        return;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS:
        status_report(s, connection);
        return;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_ATTACH:
        questions_ask(s, connection, CONTROL_ATTACH, message->attach->partition, message->attach->session_id);
        return;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_LIST_SESSIONS:
        questions_ask(s, connection, CONTROL_LIST, message->list_sessions->partition, 0);
        return;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_TAKE_SNAPSHOT:
        questions_ask(s, connection, CONTROL_SNAPSHOT, message->take_snapshot->partition, 0);
        return;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE__NOT_SET:
    default:
        connection_refuse(s, connection, MR_INVALID, true, "this node does not know what your message asks for");
        return;
    }
}

void connection_event(struct supervisor *s, struct connection *connection)
{
    Millrace__V1__ClientMessage *message = NULL;
    struct mr_error error;

    /* One packet a round: a client that sends without pause has its turn, not more. */
    switch (handshake_receive_client(connection->socket, &message, &error)) {
    case HANDSHAKE_OK:
        handle(s, connection, message);
        millrace__v1__client_message__free_unpacked(message, NULL);
        return;
    case HANDSHAKE_AGAIN:
        return;
    case HANDSHAKE_CLOSED:
        break;
    case HANDSHAKE_SHORT: /* of the node's messages only: a client sends no descriptors */
    case HANDSHAKE_FAILED:
        supervisor_complain(s, "client with pid %d dropped: %s", (int)connection->pid, error.text);
        break;
    }
    doom(s, connection);
}
