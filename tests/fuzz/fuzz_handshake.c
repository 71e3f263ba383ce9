/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor's end of its socket: clients that come, say anything in any order, bring descriptors, do not read, and
 * go in the middle; a worker that is slow, closes channels by itself, refuses questions or answers them. Among them one
 * honest client, whose channel stays open all the time. When all are gone nothing is left: no slot, no connection, no
 * descriptor; and at every step the counts are right. Then the same for the client's end: any packet as the node's.
 *
 * Planted fault: a client may close anybody's channel. */
#include "engine/node/control.h"
#include "engine/node/supervisor_parts.h"
#include "ipc/handshake.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/spawn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    OPERATIONS = 200,
    CLIENTS = 4, /* the first is honest */
    CHANNELS = 6,
    RING = 16384,
    HELD = 8,
    NOBODY = 0x7ffffff0 /* the pid of the worker that we are: there is no such process */
};

typedef Millrace__V1__ClientMessage ClientMessage;
typedef Millrace__V1__NodeMessage NodeMessage;

struct run {
    struct fuzz_input input;
    struct supervisor s;
    struct partition *partition;
    int worker;                        /* the other end of its control socket */
    int clients[CLIENTS];              /* -1: not connected */
    uint32_t serials[CLIENTS];         /* of their connections */
    uint64_t honest;                   /* its channel */
    struct control_message held[HELD]; /* that the worker has not answered yet */
    unsigned held_count;
};

static struct run run;
static const struct options options = {.ring_bytes = RING,
                                       .max_payload = RING / 4,
                                       .dir = "",
                                       .cpu_count = 1,
                                       .durability = DURABILITY_SYNC,
                                       .user_connections = MR_CONNECTIONS_MAX,
                                       .user_channels = MR_CHANNELS_MAX};
static const struct identity identity = {.partitions = 1};
static const struct supervisor_setup setup = {.options = &options, .identity = &identity};

void __real_slots_client_closes(struct supervisor *s, struct connection *connection, uint64_t channel_id);
void __wrap_slots_client_closes(struct supervisor *s, struct connection *connection, uint64_t channel_id);

void __wrap_slots_client_closes(struct supervisor *s, struct connection *connection, uint64_t channel_id)
{
    const struct partition *partition = &s->partitions[0];
    for (uint32_t i = 0; fuzz_planted() && i < partition->slots_end; i++)
        if (partition->channels[i].channel_id == channel_id && partition->slots[i].connection != NULL)
            connection = partition->slots[i].connection;
    __real_slots_client_closes(s, connection, channel_id);
}

/* ---- what holds all the time ---- */

static void check(void)
{
    const struct supervisor *s = &run.s;
    const struct partition *partition = run.partition;
    uint32_t used = 0, connections = 0;
    bool honest = run.honest == 0;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        const struct slot *slot = &partition->slots[i];
        used += slot->state != SLOT_FREE;
        FUZZ_CHECK((slot->state == SLOT_FREE) == (partition->region->channels[i].channel_id == 0));
        FUZZ_CHECK(slot->state != SLOT_CLOSING || slot->connection == NULL);
        honest = honest || (slot->state == SLOT_OPEN && partition->channels[i].channel_id == run.honest &&
                            slot->connection != NULL);
    }
    FUZZ_CHECK(honest);
    FUZZ_CHECK(used == partition->slots_used);
    for (uint32_t place = 0; place < s->connections_max; place++) {
        const struct connection *connection = s->connections[place];
        uint32_t channels = 0;
        if (connection == NULL)
            continue;
        connections++;
        for (uint32_t i = 0; i < CHANNELS; i++)
            channels += partition->slots[i].connection == connection;
        FUZZ_CHECK(channels == connection->channels);
    }
    FUZZ_CHECK(connections == s->connection_count);
}

/* ---- the worker ---- */

static void worker_says(const struct control_message *message, int fd)
{
    struct mr_error error;
    FUZZ_CHECK(control_send(run.worker, message, &fd, fd >= 0 ? 1 : 0, &error) == 0);
    workers_event(&run.s, run.partition, EPOLLIN);
}

static void answer(const struct control_message *asked, uint8_t form)
{
    struct control_message message = {.slot = asked->slot, .channel_id = asked->channel_id};
    int fd = -1;
    switch (asked->kind) {
    case CONTROL_ADD:
        message.kind = CONTROL_ADDED;
        break;
    case CONTROL_CLOSE:
        message.kind = CONTROL_CLOSED;
        break;
    case CONTROL_ATTACH:
    case CONTROL_LIST:
    case CONTROL_SNAPSHOT:
        message = (struct control_message){
            .kind = CONTROL_ANSWER, .question = asked->question, .connection = asked->connection, .size = form};
        message.status = form % 4 == 0 ? STATUS_FORBIDDEN : STATUS_OK;
        if (form % 4 == 3) { /* in use by whoever has the honest client's channel, or some other */
            message.status = STATUS_UNAVAILABLE;
            message.channel_id = 1 + form % 8;
        }
        if (message.status == STATUS_OK && form % 8 != 1)
            fd = memfd_create("answer", MFD_CLOEXEC);
        break;
    default:
        return;
    }
    worker_says(&message, fd);
    if (fd >= 0)
        close(fd);
}

/* Takes what it was told, and answers all but the last `keep` of that. */
static void worker_turn(unsigned keep, uint8_t form)
{
    struct mr_error error;
    int fds[CONTROL_FDS];
    unsigned fd_count;
    while (run.held_count < HELD &&
           control_receive(run.worker, &run.held[run.held_count], fds, &fd_count, &error) == 0) {
        for (unsigned i = 0; i < fd_count; i++)
            close(fds[i]);
        run.held_count++;
    }
    while (run.held_count > keep) {
        struct control_message message = run.held[0];
        memmove(&run.held[0], &run.held[1], --run.held_count * sizeof(run.held[0]));
        answer(&message, form);
    }
    workers_event(&run.s, run.partition, EPOLLOUT);
}

/* It closes a channel by itself: not the honest one's, which gave it no reason. */
static void worker_closes(uint8_t form)
{
    uint32_t i = form % CHANNELS;
    struct control_message message = {.kind = CONTROL_CLOSED, .slot = i, .text = "it cannot be"};
    message.channel_id = run.partition->channels[i].channel_id + (form >= 250);
    if (message.channel_id != run.honest && run.partition->slots[i].added)
        worker_says(&message, -1);
}

/* ---- clients ---- */

/* NULL: the node has dropped it, or never took it. */
static struct connection *connection_of(unsigned client)
{
    for (uint32_t place = 0; place < run.s.connections_max; place++)
        if (run.s.connections[place] != NULL && run.s.connections[place]->serial == run.serials[client])
            return run.s.connections[place];
    return NULL;
}

static void pump(unsigned client)
{
    struct connection *connection = connection_of(client);
    if (connection != NULL && !connection->doomed)
        connection_event(&run.s, connection);
    connection_drop_doomed(&run.s);
}

static void connect_client(unsigned client)
{
    int fds[2];
    uint32_t count = run.s.connection_count;
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    run.clients[client] = fds[1];
    connection_add(&run.s, fds[0]);
    FUZZ_CHECK(run.s.connection_count == count + 1);
    run.serials[client] = run.s.connection_serial;
}

static void hang_up(unsigned client)
{
    if (run.clients[client] < 0)
        return;
    struct connection *connection = connection_of(client);
    close(run.clients[client]);
    run.clients[client] = -1;
    for (unsigned i = 0; connection != NULL && i < 1000 && !connection->doomed; i++)
        connection_event(&run.s, connection);
    FUZZ_CHECK(connection == NULL || connection->doomed);
    connection_drop_doomed(&run.s);
}

/* A packet with up to three descriptors beside it. */
static void send_packet(int socket, const void *bytes, size_t size, unsigned fd_count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))] = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    int fd = -1;
    if (fd_count > 0) {
        fd = eventfd(0, EFD_CLOEXEC);
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        for (unsigned i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd, sizeof(int));
    }
    (void)!sendmsg(socket, &header, MSG_NOSIGNAL); /* full, or the other end has gone: both are fine */
    if (fd >= 0)
        close(fd);
}

/* The next message of the node's, the caller's to free; its descriptors are closed. NULL: none. */
static NodeMessage *receive(int socket)
{
    NodeMessage *message = NULL;
    struct mr_error error;
    int fds[HANDSHAKE_FDS];
    unsigned fd_count;
    if (handshake_receive_node(socket, &message, fds, &fd_count, &error) != HANDSHAKE_OK)
        return NULL;
    for (unsigned i = 0; i < fd_count; i++)
        close(fds[i]);
    return message;
}

static void read_everything(unsigned client)
{
    NodeMessage *message;
    while ((message = receive(run.clients[client])) != NULL)
        millrace__v1__node_message__free_unpacked(message, NULL);
}

/* A message of this kind with these numbers in it. */
static size_t make_message(uint8_t *to, unsigned kind, uint64_t first, uint64_t second)
{
    ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__Hello hello = MILLRACE__V1__HELLO__INIT;
    Millrace__V1__OpenChannel open = MILLRACE__V1__OPEN_CHANNEL__INIT;
    Millrace__V1__ChannelMapped mapped = MILLRACE__V1__CHANNEL_MAPPED__INIT;
    Millrace__V1__CloseChannel close_channel = MILLRACE__V1__CLOSE_CHANNEL__INIT;
    Millrace__V1__GetStatus status = MILLRACE__V1__GET_STATUS__INIT;
    Millrace__V1__Attach attach = MILLRACE__V1__ATTACH__INIT;
    Millrace__V1__ListSessions list = MILLRACE__V1__LIST_SESSIONS__INIT;
    Millrace__V1__TakeSnapshot snapshot = MILLRACE__V1__TAKE_SNAPSHOT__INIT;
    hello.version = (uint32_t)first;
    open.partition = attach.partition = list.partition = snapshot.partition = (uint32_t)first;
    open.ring_bytes = attach.session_id = second;
    mapped.channel_id = close_channel.channel_id = first;
    message.message_case = (Millrace__V1__ClientMessage__MessageCase)kind;
    message.hello = &hello; /* the members are one union */
    switch (message.message_case) {
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_OPEN_CHANNEL:
        message.open_channel = &open;
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CHANNEL_MAPPED:
        message.channel_mapped = &mapped;
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CLOSE_CHANNEL:
        message.close_channel = &close_channel;
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS:
        message.get_status = &status;
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_ATTACH:
        message.attach = &attach;
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_LIST_SESSIONS:
        message.list_sessions = &list;
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_TAKE_SNAPSHOT:
        message.take_snapshot = &snapshot;
        break;
    default:
        break;
    }
    return millrace__v1__client_message__pack(&message, to);
}

static void say(unsigned client, uint8_t form)
{
    static uint8_t large[HANDSHAKE_BYTES + 1];
    uint8_t packet[256];
    uint64_t first = fuzz_byte(&run.input), second = 0;
    struct slice bytes;
    unsigned kind = 1 + form % 8;
    if (first >= 240)
        first = fuzz_number(&run.input);
    else
        first %= 8;
    if (kind == 2 || kind == 6)
        second = form < 128 ? RING : fuzz_number(&run.input);
    if (form >= 240)
        send_packet(run.clients[client], large, sizeof(large), 0);
    else if (form >= 208) {
        bytes = fuzz_bytes(&run.input);
        send_packet(run.clients[client], bytes.data, bytes.size, form % 4);
    } else {
        send_packet(run.clients[client], packet, make_message(packet, kind, first, second), form >= 200 ? 1 : 0);
    }
}

/* ---- the honest one ---- */

static NodeMessage *expect(unsigned client, Millrace__V1__NodeMessage__MessageCase kind)
{
    NodeMessage *message = receive(run.clients[client]);
    FUZZ_CHECK(message != NULL && message->message_case == kind);
    return message;
}

static void tell(unsigned client, unsigned kind, uint64_t first, uint64_t second)
{
    uint8_t packet[64];
    send_packet(run.clients[client], packet, make_message(packet, kind, first, second), 0);
    pump(client);
}

/* The whole hand-shake; gives the channel. */
static uint64_t open_channel(unsigned client)
{
    connect_client(client);
    tell(client, MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO, HANDSHAKE_VERSION, 0);
    millrace__v1__node_message__free_unpacked(expect(client, MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME), NULL);
    tell(client, MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_OPEN_CHANNEL, 1, RING);
    NodeMessage *message = expect(client, MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL);
    uint64_t channel_id = message->channel->channel_id;
    millrace__v1__node_message__free_unpacked(message, NULL);
    tell(client, MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CHANNEL_MAPPED, channel_id, 0);
    worker_turn(0, 0);
    message = expect(client, MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED);
    FUZZ_CHECK(message->channel_opened->channel_id == channel_id);
    millrace__v1__node_message__free_unpacked(message, NULL);
    return channel_id;
}

/* ---- all of it ---- */

static void begin(void)
{
    struct supervisor *s = &run.s;
    struct mr_error error;
    int fds[2];
    *s = (struct supervisor){.setup = &setup,
                             .options = &options,
                             .identity = &identity,
                             .connections_max = CLIENTS + 1,
                             .channels_max = CHANNELS,
                             .directory = -1,
                             .signals = -1,
                             .listener = -1,
                             .now = 1,
                             .complained_at = 1};
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->connections = calloc(s->connections_max, sizeof(struct connection *));
    FUZZ_CHECK(s->epoll >= 0 && s->connections != NULL);
    FUZZ_CHECK(channel_ids_open(&s->ids, -1, "", &error) == 0 && workers_init(s, &error) == 0);
    run.partition = &s->partitions[0];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    run.partition->control = fds[0];
    run.worker = fds[1];
    run.partition->pid = NOBODY;
    run.partition->ready = run.partition->was_ready = true;
    s->announced = true;
    atomic_store_explicit(&run.partition->region->state, PARTITION_SERVING, memory_order_relaxed);
    FUZZ_CHECK(event_add(s, fds[0], event_name(EVENT_CONTROL, 0, 0), &error) == 0);
    for (unsigned client = 0; client < CLIENTS; client++)
        run.clients[client] = -1;
}

/* Everybody goes; there is room for one more; then nothing is left. */
static void end(void)
{
    run.honest = 0;
    for (unsigned client = 0; client < CLIENTS; client++)
        hang_up(client);
    for (unsigned i = 0; i < 2 * CHANNELS; i++)
        worker_turn(0, 0);
    check();
    FUZZ_CHECK(run.partition->slots_used == 0 && run.s.connection_count == 0 && run.partition->questions == 0);
    open_channel(0);
    hang_up(0);
    worker_turn(0, 0);
    FUZZ_CHECK(run.partition->slots_used == 0 && run.s.connection_count == 0);
    close(run.partition->control);
    close(run.worker);
    close(run.s.epoll);
    workers_free(&run.s);
    free(run.s.connections);
}

static void step(uint8_t code)
{
    uint8_t form = fuzz_byte(&run.input);
    unsigned client = 1 + code / 16 % (CLIENTS - 1);
    if (code % 16 < 9 && run.clients[client] < 0) {
        connect_client(client);
        if (form >= 16)
            tell(client, MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO, HANDSHAKE_VERSION, 0);
    } else if (code % 16 < 9) {
        say(client, form);
        if (code < 224)
            pump(client);
    } else if (code % 16 < 11) {
        worker_turn(form % 4, form);
    } else if (code % 16 == 11) {
        worker_closes(form);
    } else if (code % 16 == 12) {
        hang_up(client);
    } else if (run.clients[client] >= 0 && code % 16 == 13) {
        pump(client);
    } else if (run.clients[client] >= 0) {
        read_everything(client);
    }
}

/* Any packet as the node's: what the library does with it is its own affair; that it is taken whole or not is here. */
static void as_client(struct slice bytes, unsigned fd_count)
{
    int fds[2];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    send_packet(fds[0], bytes.data, bytes.size, fd_count);
    NodeMessage *message = receive(fds[1]);
    if (message != NULL)
        millrace__v1__node_message__free_unpacked(message, NULL);
    close(fds[0]);
    close(fds[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned descriptors = open_descriptors();
    memset(&run, 0, sizeof(run));
    run.input = (struct fuzz_input){data, data + size};
    uint8_t form = fuzz_byte(&run.input);
    if (form >= 240) {
        as_client(fuzz_rest(&run.input), form % 4);
    } else {
        begin();
        run.honest = open_channel(0);
        for (unsigned n = 0; n < OPERATIONS && fuzz_more(&run.input); n++) {
            step(fuzz_byte(&run.input));
            check();
        }
        end();
    }
    FUZZ_CHECK(open_descriptors() == descriptors);
    return 0;
}
