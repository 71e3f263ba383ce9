/* SPDX-License-Identifier: Apache-2.0 */
/* The socket to the node's supervisor: Hello and Welcome, then channels as partitions come to be used, all in one
 * conversation of packets that may also bring what nobody asked for. So packets are not waited for one by one: each is
 * handled as it comes, moves the link it speaks of on by one stage, and whoever waits looks at the stage.
 *
 *     LINK_NONE -- OpenChannel --> LINK_ASKED -- Channel, ChannelMapped --> LINK_MAPPED -- ChannelOpened --> LINK_OPEN
 *
 * One channel is asked for at a time, so that a Refused says no to that one; with none asked for, to the question that
 * a call has asked (Status, sessions), else to a channel that could not be opened after all.
 *
 * The socket stays open as long as the node lives: its end is the node's end, and reconnect.c's affair. */
#include "ipc/client/connection.h"

#include "ipc/client/link.h"
#include "ipc/client/reconnect.h"
#include "ipc/client/wait.h"
#include "ipc/handshake.h"
#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#define CONNECT_AGAIN_MS 1 /* where many wait for their connection to be taken */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)sys_close(*fd); /* nothing is lost by what it says */
    *fd = -1;
}

/* ---- The node's end ---- */

static void leave_poller(struct mr_client *client, int *fd)
{
    /* A fork()ed child may hold it too; it would then stay in the epoll although it is closed here. */
    if (*fd >= 0 && client->poller >= 0)
        (void)sys_epoll_ctl(client->poller, EPOLL_CTL_DEL, *fd, NULL);
    close_fd(fd);
}

void connection_hang_up(struct mr_client *client)
{
    leave_poller(client, &client->socket);
    leave_poller(client, &client->wake);
}

/* The node is gone; whether it comes back is not known. */
static void lost(struct mr_client *client, const char *text)
{
    unsigned moved;

    if (client->gone)
        return;
    if (client->away) {
        reconnect_failed(client, text);
        return;
    }
    connection_hang_up(client);
    /* What was answered before the end has been answered. */
    do {
        moved = client->moved;
        for (uint32_t i = client->open_count; i-- > 0;)
            if (i < client->open_count)
                link_run(client->open[i]);
    } while (client->moved != moved);
    reconnect_begin(client, text);
}

void connection_close(struct mr_client *client)
{
    close_fd(&client->socket);
    close_fd(&client->wake);
    close_fd(&client->timer);
    close_fd(&client->poller);
}

/* ---- Packets out ---- */

enum mr_status connection_say(struct mr_client *client, const Millrace__V1__ClientMessage *message)
{
    struct mr_error error = {.code = 0};

    if (client->socket < 0)
        return client_fail_with(client, MR_NO_NODE, client->gone_text);
    switch (handshake_send_client(client->socket, message, &error)) {
    case HANDSHAKE_OK:
        return MR_OK;
    case HANDSHAKE_AGAIN:
        return client_fail_with(client, MR_UNAVAILABLE, "the node does not read its socket: too much is asked at once");
    case HANDSHAKE_CLOSED:
        return client_fail_with(client, MR_NO_NODE,
                                "the node went away"); /* the next look at the socket says it to all */
    default:
        return client_fail_error(client, MR_NO_NODE, &error);
    }
}

static enum mr_status say_hello(struct mr_client *client)
{
    Millrace__V1__Hello hello = MILLRACE__V1__HELLO__INIT;
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    char library[] = "libmillrace " MILLRACE_VERSION;

    hello.version = HANDSHAKE_VERSION;
    hello.library.data = (uint8_t *)library;
    hello.library.len = sizeof(library) - 1;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    enum mr_status status = connection_say(client, &message);
    /* A node that lets nobody in has closed already: what it said before stands there to be read, else its end. */
    return status == MR_NO_NODE && client->socket >= 0 ? MR_OK : status;
}

static enum mr_status say_mapped(struct link *link)
{
    Millrace__V1__ChannelMapped mapped = MILLRACE__V1__CHANNEL_MAPPED__INIT;
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;

    mapped.channel_id = link->channel.channel_id;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CHANNEL_MAPPED;
    message.channel_mapped = &mapped;
    return connection_say(link->client, &message);
}

static void give_channel_back(struct mr_client *client, uint64_t channel_id)
{
    Millrace__V1__CloseChannel close = MILLRACE__V1__CLOSE_CHANNEL__INIT;
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;

    close.channel_id = channel_id;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CLOSE_CHANNEL;
    message.close_channel = &close;
    (void)connection_say(client, &message); /* the node closes it with the connection otherwise */
}

/* ---- Packets in ---- */

static int text_size(const ProtobufCBinaryData *text)
{
    return text->len < 400 ? (int)text->len : 400;
}

/* No, for the reason that is the handle's text. */
static void note_refusal(struct mr_client *client, enum mr_status status)
{
    client->refused = true;
    client->refusal = status;
    snprintf(client->refusal_text, sizeof(client->refusal_text), "%s", client->message);
}

enum mr_status connection_refusal(struct mr_client *client)
{
    return client_fail(client, client->refusal, "%s", client->refusal_text);
}

static void refuse_ourselves(struct mr_client *client, enum mr_status status, const struct mr_error *error)
{
    note_refusal(client, client_fail_error(client, status, error));
}

static int add_to_poller(struct mr_client *client, int fd, struct mr_error *error)
{
    struct epoll_event event = {.events = EPOLLIN | (fd == client->socket ? 0 : (uint32_t)EPOLLET), .data.fd = fd};

    if (sys_epoll_ctl(client->poller, EPOLL_CTL_ADD, fd, &event) == 0)
        return 0;
    return error_system(error, errno, "cannot wait on a descriptor");
}

void connection_take_welcome(struct mr_client *client, const Millrace__V1__Welcome *welcome)
{
    client->partitions = welcome->partitions;
    client->max_payload = welcome->max_payload;
    client->node_ring_bytes = welcome->ring_bytes;
    memset(client->directory, 0, sizeof(client->directory));
    if (welcome->directory.len == sizeof(client->directory))
        memcpy(client->directory, welcome->directory.data, sizeof(client->directory));
}

static void on_welcome(struct mr_client *client, const Millrace__V1__Welcome *welcome, int fds[HANDSHAKE_FDS],
                       unsigned fd_count)
{
    struct mr_error error = {.code = 0};

    if (client->connected && !client->away)
        return;
    if (welcome->version != HANDSHAKE_VERSION)
        error_set(&error, "the node at %s speaks version %" PRIu32 ", this library version %d", client->path,
                  welcome->version, HANDSHAKE_VERSION);
    else if (fd_count != 1 || welcome->partitions < 1 || welcome->partitions > MR_PARTITIONS_MAX)
        error_set(&error, "the node at %s sent a welcome that makes no sense", client->path);
    else if (add_to_poller(client, fds[0], &error) == 0) {
        client->wake = fds[0];
        fds[0] = -1;
        if (client->away)
            reconnect_welcomed(client, welcome);
        else
            connection_take_welcome(client, welcome);
        client->connected = true;
        return;
    }
    if (client->away)
        reconnect_failed(client, error.text);
    else
        refuse_ourselves(client, MR_NOT_SUPPORTED, &error);
}

/* Results may still point into the channel before: those that wait are copied, what an earlier step of this call has
 * given is not looked at any more. */
static bool make_way(struct link *link)
{
    struct mr_client *client = link->client;

    if (link->channel.page == NULL)
        return true;
    if (client->pinned.link == link)
        client_unpin(client);
    client_set_aside(client, link);
    if (link->held > 0)
        return false;
    channel_unmap(&link->channel);
    return true;
}

static int map_channel(struct link *link, const Millrace__V1__Channel *message, int fds[HANDSHAKE_FDS],
                       struct mr_error *error)
{
    struct channel channel = {.memory_fd = -1, .node_wake_fd = -1};

    if (channel_map(&channel, fds[0], fds[1], link->client->wake, message->partition, message->channel_id,
                    message->ring_bytes, error) != 0)
        return -1;
    fds[0] = -1;
    fds[1] = -1;
    close_fd(&channel.memory_fd); /* the mappings are what is needed */
    if (channel_dont_fork(&channel, error) == 0) {
        if (make_way(link)) {
            link->channel = channel;
            link->core = message->core;
            return 0;
        }
        error_system(error, ENOMEM, "cannot keep the results that wait");
    }
    channel_unmap(&channel);
    return -1;
}

/* No to a channel that was asked for. The text is the handle's. */
static void channel_refused(struct link *link, enum mr_status status)
{
    struct mr_client *client = link->client;

    link->stage = LINK_NONE;
    link->wanted = false;
    if (link->reopening) {
        reconnect_refused(link);
        return;
    }
    note_refusal(client, status);
}

static void on_channel(struct mr_client *client, const Millrace__V1__Channel *channel, int fds[HANDSHAKE_FDS],
                       unsigned fd_count)
{
    struct mr_error error = {.code = 0};
    struct link *link = channel->partition >= 1 && channel->partition <= client->partitions
                            ? client->links[channel->partition - 1]
                            : NULL;

    if (link == NULL || link->stage != LINK_ASKED || fd_count != 2) {
        give_channel_back(client, channel->channel_id);
        return;
    }
    if (map_channel(link, channel, fds, &error) != 0) {
        channel_refused(link, client_fail_error(client, MR_INTERNAL, &error));
        give_channel_back(client, channel->channel_id);
    } else {
        link->stage = LINK_MAPPED;
        (void)say_mapped(link); /* if it does not get there, the connection has ended, which the next look says */
    }
    connection_ask_wanted(client, sys_clock_ns(CLOCK_MONOTONIC));
}

static void on_opened(struct mr_client *client, const Millrace__V1__ChannelOpened *opened)
{
    for (uint32_t i = 0; i < client->partitions; i++) {
        struct link *link = client->links[i];
        if (link == NULL || link->stage != LINK_MAPPED || link->channel.channel_id != opened->channel_id)
            continue;
        link_attach(link);
        link->stage = LINK_OPEN;
        client->open[client->open_count++] = link;
        link_reopens(link, false);
    }
}

static struct link *link_at(const struct mr_client *client, enum link_stage stage)
{
    for (uint32_t i = 0; i < client->partitions; i++)
        if (client->links[i] != NULL && client->links[i]->stage == stage)
            return client->links[i];
    return NULL;
}

static void on_refused(struct mr_client *client, const Millrace__V1__Refused *refused)
{
    bool known = refused->status >= MR_ERROR && refused->status <= MR_INTERNAL;
    enum mr_status status = client_fail(client, known ? (enum mr_status)refused->status : MR_UNKNOWN, "%.*s",
                                        text_size(&refused->message), (const char *)refused->message.data);

    if (client->away) {
        reconnect_failed(client, client->text);
        return;
    }
    struct link *asked = link_at(client, LINK_ASKED);
    struct link *mapped = link_at(client, LINK_MAPPED);
    if (!refused->question && asked != NULL) {
        channel_refused(asked, status);
    } else if (!refused->question && mapped != NULL) {
        channel_unmap(&mapped->channel);
        channel_refused(mapped, status);
    } else {
        note_refusal(client, status);
    }
    if (refused->fatal)
        lost(client, client->text);
    else
        connection_ask_wanted(client, sys_clock_ns(CLOCK_MONOTONIC));
}

/* The reason stands in the channel's page; this says that it is the channel's own. */
static void on_closed(struct mr_client *client, const Millrace__V1__ChannelClosed *closed)
{
    for (uint32_t i = 0; i < client->open_count; i++)
        if (client->open[i]->channel.channel_id == closed->channel_id)
            client->open[i]->close_at = 0;
}

static void on_status(struct mr_client *client, const Millrace__V1__Status *status)
{
    size_t size = millrace__v1__status__get_packed_size(status);
    uint8_t *encoded = malloc(size > 0 ? size : 1);

    if (encoded == NULL) {
        note_refusal(client, client_out_of_memory(client));
        return;
    }
    client->status_size = millrace__v1__status__pack(status, encoded);
    free(client->status);
    client->status = encoded;
}

/* Takes a copy of memory that came along. */
static void on_memory(struct mr_client *client, uint64_t size, int fds[HANDSHAKE_FDS], unsigned fd_count)
{
    struct mr_error error = {.code = 0};
    uint64_t done = 0;

    if (client->memory != NULL)
        return; /* nobody asked */
    if (fd_count != 1 || size > MR_GIB) {
        error_set(&error, "the node sent an answer about sessions that makes no sense");
        refuse_ourselves(client, MR_INTERNAL, &error);
        return;
    }
    uint8_t *memory = malloc(size > 0 ? size : 1);
    while (memory != NULL && done < size) {
        ssize_t got = sys_pread(fds[0], memory + done, size - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            free(memory);
            error_system(&error, got < 0 ? errno : EIO, "cannot read what the node sent about sessions");
            refuse_ourselves(client, MR_INTERNAL, &error);
            return;
        }
        done += (uint64_t)got;
    }
    if (memory == NULL) {
        note_refusal(client, client_out_of_memory(client));
        return;
    }
    client->memory = memory;
    client->memory_size = size;
}

static void on_message(struct mr_client *client, const Millrace__V1__NodeMessage *message, int fds[HANDSHAKE_FDS],
                       unsigned fd_count)
{
    switch (message->message_case) {
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME:
        on_welcome(client, message->welcome, fds, fd_count);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL:
        on_channel(client, message->channel, fds, fd_count);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED:
        on_opened(client, message->channel_opened);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED:
        on_refused(client, message->refused);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_STATUS:
        on_status(client, message->status);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED:
        on_closed(client, message->channel_closed);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_ATTACHED:
        on_memory(client, message->attached->size, fds, fd_count);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_SESSIONS:
        on_memory(client, message->sessions->size, fds, fd_count);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_SNAPSHOT_TAKEN:
        on_memory(client, message->snapshot_taken->size, fds, fd_count);
        break;
    default:
        /* A stopped partition answers for itself; what is not known is of a node that is newer, and not needed. */
        break;
    }
}

/* One whose descriptors could not be taken: to whoever waits for it, it is refused. */
static void on_message_without(struct mr_client *client, const Millrace__V1__NodeMessage *message,
                               const struct mr_error *error)
{
    struct link *asked = link_at(client, LINK_ASKED);

    if (client->away) {
        reconnect_failed(client, error->text);
    } else if (message->message_case == MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL && asked != NULL) {
        give_channel_back(client, message->channel->channel_id);
        channel_refused(asked, client_fail_error(client, MR_NO_MEMORY, error));
        connection_ask_wanted(client, sys_clock_ns(CLOCK_MONOTONIC));
    } else {
        refuse_ourselves(client, MR_NO_MEMORY, error);
    }
}

void connection_read(struct mr_client *client)
{
    char text[512];

    while (client->socket >= 0) {
        Millrace__V1__NodeMessage *message;
        struct mr_error error = {.code = 0};
        int fds[HANDSHAKE_FDS] = {-1, -1};
        unsigned fd_count = 0;

        switch (handshake_receive_node(client->socket, &message, fds, &fd_count, &error)) {
        case HANDSHAKE_OK:
            on_message(client, message, fds, fd_count);
            millrace__v1__node_message__free_unpacked(message, NULL);
            for (unsigned i = 0; i < fd_count; i++)
                close_fd(&fds[i]);
            break;
        case HANDSHAKE_SHORT:
            on_message_without(client, message, &error);
            millrace__v1__node_message__free_unpacked(message, NULL);
            break;
        case HANDSHAKE_AGAIN:
            return;
        case HANDSHAKE_CLOSED:
            snprintf(text, sizeof(text), "the node at %s went away", client->path);
            lost(client, text);
            return;
        default:
            snprintf(text, sizeof(text), "the connection to the node at %s failed: %s", client->path, error.text);
            lost(client, text);
            return;
        }
    }
}

/* ---- Connecting ---- */

static enum mr_status make_poller(struct mr_client *client)
{
    struct mr_error error = {.code = 0};

    client->poller = sys_epoll_create1(EPOLL_CLOEXEC);
    client->timer = client->poller < 0 ? -1 : sys_timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (client->timer < 0) {
        error_system(&error, errno, "cannot make the descriptors to wait on");
        return client_fail_error(client, MR_INTERNAL, &error);
    }
    if (add_to_poller(client, client->timer, &error) != 0 || add_to_poller(client, client->socket, &error) != 0)
        return client_fail_error(client, MR_INTERNAL, &error);
    return MR_OK;
}

/* Does not wait, not even for the node to take one connection of many. */
static int connect_at_once(const char *path, struct mr_error *error)
{
    struct sockaddr_un address;

    if (handshake_address(path, &address, error) != 0)
        return -1;
    int fd = sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_system(error, errno, "cannot make a socket");
    if (sys_connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int code = errno;
    close_fd(&fd);
    if (code == ENOENT || code == ECONNREFUSED)
        return error_system(error, code, "no node at %s (is `millrace serve` running there?)", path);
    return error_system(error, code, "cannot connect to the node at %s", path);
}

/* The same until it is taken, or the time is over: error->code is EAGAIN then. There is nothing to wait on. */
static int connect_until(const char *path, uint64_t deadline, struct mr_error *error)
{
    for (;;) {
        int fd = connect_at_once(path, error);
        if (fd >= 0 || error->code != EAGAIN || sys_clock_ns(CLOCK_MONOTONIC) >= deadline)
            return fd;
        (void)sys_poll(NULL, 0, CONNECT_AGAIN_MS);
    }
}

static enum mr_status connect_socket(struct mr_client *client)
{
    struct mr_error error = {.code = 0};
    uint64_t deadline = client_deadline(client);

    if (client->stop >= 0)
        client->socket = connect_at_once(client->path, &error);
    else if (deadline != NEVER)
        client->socket = connect_until(client->path, deadline, &error);
    else
        client->socket = handshake_connect(client->path, &error);
    if (client->socket < 0) {
        if (error.code == EAGAIN)
            return client_fail(client, MR_TIMEOUT, "the node at %s took no connection in time", client->path);
        bool forbidden = error.code == EACCES || error.code == EPERM;
        return client_fail_error(client, error.code == 0 ? MR_INVALID : forbidden ? MR_FORBIDDEN : MR_NO_NODE, &error);
    }
    int flags = sys_fcntl(client->socket, F_GETFL, 0);
    if (flags < 0 || sys_fcntl(client->socket, F_SETFL, flags | O_NONBLOCK) != 0) {
        error_system(&error, errno, "cannot set up the node's socket");
        return client_fail_error(client, MR_INTERNAL, &error);
    }
    return MR_OK;
}

int connection_again(struct mr_client *client, struct mr_error *error)
{
    client->socket = connect_at_once(client->path, error);
    if (client->socket < 0 || add_to_poller(client, client->socket, error) != 0)
        return -1;
    if (say_hello(client) != MR_OK)
        return error_set(error, "%.300s", client->message);
    return 0;
}

static bool is_welcome(const struct mr_client *client, const void *argument)
{
    (void)argument;
    return client->connected || client->refused;
}

enum mr_status connection_open(struct mr_client *client)
{
    enum mr_status status;

    if ((status = connect_socket(client)) != MR_OK || (status = make_poller(client)) != MR_OK)
        return status;
    return say_hello(client);
}

enum mr_status connection_wait_welcome(struct mr_client *client, uint64_t deadline)
{
    enum mr_status status = client_wait(client, is_welcome, NULL, deadline);

    if (client->refused)
        return connection_refusal(client);
    if (status == MR_TIMEOUT)
        return client_fail(client, MR_TIMEOUT, "the node at %s took the connection but did not answer in time",
                           client->path);
    return status;
}

/* ---- Channels ---- */

enum mr_status connection_link(struct mr_client *client, uint32_t partition, struct link **out)
{
    *out = NULL;
    if (partition < 1 || partition > client->partitions)
        return client_fail(client, MR_INVALID, "there is no partition %" PRIu32 "; the node has 1 to %" PRIu32,
                           partition, client->partitions);
    struct link *link = client->links[partition - 1];
    if (link == NULL) {
        link = calloc(1, sizeof(*link));
        if (link == NULL)
            return client_out_of_memory(client);
        link->client = client;
        link->partition = partition;
        link->retry_at = NEVER;
        client->links[partition - 1] = link;
    }
    *out = link;
    return MR_OK;
}

/* Sends OpenChannel. */
static enum mr_status ask_for_channel(struct link *link)
{
    struct mr_client *client = link->client;
    Millrace__V1__OpenChannel open = MILLRACE__V1__OPEN_CHANNEL__INIT;
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;

    open.partition = link->partition;
    open.ring_bytes = client->ring_bytes;
    /* A node that came back may give less than the one that it was asked of. */
    if (client->losses > 0 && open.ring_bytes > client->node_ring_bytes && client->node_ring_bytes > 0)
        open.ring_bytes = client->node_ring_bytes;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_OPEN_CHANNEL;
    message.open_channel = &open;
    return connection_say(client, &message);
}

void connection_ask_wanted(struct mr_client *client, uint64_t now)
{
    if (client->away || client->socket < 0 || link_at(client, LINK_ASKED) != NULL)
        return;
    for (uint32_t i = 0; i < client->partitions; i++) {
        struct link *link = client->links[i];
        if (link == NULL || link->stage != LINK_NONE || !link->wanted || link->ask_at > now)
            continue;
        enum mr_status status = ask_for_channel(link);
        if (status == MR_OK) {
            link->wanted = false;
            link->stage = LINK_ASKED;
            return;
        }
        if (status == MR_NO_NODE)
            return; /* the next look at the socket says it to all */
        channel_refused(link, status);
    }
}

enum mr_status connection_ask(struct link *link)
{
    struct mr_client *client = link->client;

    if (client->gone)
        return client_fail_with(client, MR_NO_NODE, client->gone_text);
    if (link->stage == LINK_CLOSED)
        return client_fail_with(client, MR_UNAVAILABLE, link->why);
    if (link->stage != LINK_NONE || link->wanted)
        return MR_OK;
    link->wanted = true;
    link->ask_at = 0;
    connection_ask_wanted(client, sys_clock_ns(CLOCK_MONOTONIC));
    return MR_OK;
}

static bool is_open(const struct mr_client *client, const void *argument)
{
    const struct link *link = argument;
    return client->refused || link->stage == LINK_OPEN || link->stage == LINK_CLOSED;
}

enum mr_status connection_wait_open(struct link *link, uint64_t deadline)
{
    struct mr_client *client = link->client;

    if (link->stage == LINK_OPEN)
        return MR_OK;
    client->refused = false;
    enum mr_status status = connection_ask(link);
    if (status != MR_OK)
        return status;
    client->may_set_aside = true;
    status = client_wait(client, is_open, link, deadline);
    client->may_set_aside = false;
    if (link->stage == LINK_OPEN)
        return MR_OK;
    if (client->gone) /* which has closed the link */
        return client_fail_with(client, MR_NO_NODE, client->gone_text);
    if (client->refused)
        return connection_refusal(client);
    if (status == MR_TIMEOUT)
        return client_fail(client, MR_TIMEOUT,
                           "the channel to partition %" PRIu32 " did not open within call_timeout_ns", link->partition);
    return status != MR_OK ? status : client_fail_with(client, MR_UNAVAILABLE, link->why);
}
