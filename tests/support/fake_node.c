/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_node.h. One thread, one mutex; the thread turns over everything there is and then waits a millisecond for
 * something on its sockets, which is enough for tests and keeps it simple. */
#include "tests/support/fake_node_inside.h"

#include "ipc/handshake.h"

#include <millrace/limits.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Is this the point at which it dies? */
static bool dies(struct fake_node *node, enum fake_death where)
{
    if (node->death != where || node->deaths == 0)
        return false;
    if (node->spare > 0) {
        node->spare--;
        return false;
    }
    node->deaths--;
    node->counts.deaths++;
    node->died = true;
    return true;
}

/* ---- The thread: channels ---- */

static void turn(struct fake_node *node)
{
    for (int i = 0; i < FAKE_CHANNELS; i++) {
        struct fake_channel *channel = &node->channels[i];
        struct fake_request request;
        if (!channel->open)
            continue;
        while (fake_next(channel, &request)) {
            uint64_t room = 0;
            uint64_t needed = MR_SMALL_FRAME + (request.head.size == 0 ? request.head.time_limit : 0);
            if (ring_free(&channel->responses, needed, &room) != RING_OK || room < needed)
                break;
            if (dies(node, FAKE_AT_REQUEST))
                return;
            if (dies(node, FAKE_BEHIND_REQUEST)) {
                fake_apply(node, channel, &request);
                return;
            }
            fake_answer(node, channel, &request);
        }
        fake_publish(node, channel);
    }
}

static void close_channel(struct fake_node *node, int i)
{
    if (node->channels[i].channel.channel_id == 0)
        return;
    channel_unmap(&node->channels[i].channel);
    memset(&node->channels[i], 0, sizeof(node->channels[i]));
}

/* ---- The thread: the hand-shake ---- */

static void send_node(struct connection *connection, const Millrace__V1__NodeMessage *message, const int *fds,
                      unsigned count)
{
    struct mr_error error;
    enum handshake_result result = handshake_send_node(connection->socket, message, fds, count, &error);
    must(result == HANDSHAKE_OK || result == HANDSHAKE_CLOSED);
}

static void send_refused(struct connection *connection, const char *why, bool fatal, bool question)
{
    Millrace__V1__Refused refused = MILLRACE__V1__REFUSED__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    refused.status = STATUS_UNAVAILABLE;
    refused.message = (ProtobufCBinaryData){strlen(why), (uint8_t *)(uintptr_t)why};
    refused.fatal = fatal;
    refused.question = question;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED;
    message.refused = &refused;
    send_node(connection, &message, NULL, 0);
}

static void on_hello(struct fake_node *node, struct connection *connection)
{
    Millrace__V1__Welcome welcome = MILLRACE__V1__WELCOME__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    uint8_t directory[16];

    if (dies(node, FAKE_AT_HELLO))
        return;
    if (node->options.refuse_hello) {
        send_refused(connection, "no more", true, false);
        return;
    }
    memset(directory, node->options.directory, sizeof(directory));
    welcome.directory = (ProtobufCBinaryData){sizeof(directory), directory};
    welcome.version = node->options.version != 0 ? node->options.version : HANDSHAKE_VERSION;
    welcome.partitions = node->options.partitions;
    welcome.max_payload = node->options.max_payload;
    welcome.ring_bytes = node->options.ring_bytes;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME;
    message.welcome = &welcome;
    send_node(connection, &message, &connection->wake, 1);
    (void)dies(node, FAKE_BEHIND_WELCOME);
}

static void on_open_channel(struct fake_node *node, int number, const Millrace__V1__OpenChannel *open)
{
    Millrace__V1__Channel channel = MILLRACE__V1__CHANNEL__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    struct mr_error error;
    int i = 0;

    if (dies(node, FAKE_AT_OPEN_CHANNEL))
        return;
    if (node->options.refuse_channels) {
        send_refused(&node->connections[number], "too many channels", false, false);
        return;
    }
    if (node->options.never_open)
        return;
    while (i < FAKE_CHANNELS && node->channels[i].channel.channel_id != 0)
        i++;
    must(i < FAKE_CHANNELS);
    struct fake_channel *made = &node->channels[i];
    uint64_t bytes = open->ring_bytes != 0 ? open->ring_bytes : node->options.ring_bytes;
    if (bytes > node->options.ring_bytes) {
        send_refused(&node->connections[number], "a ring of so many bytes is not given", false, false);
        return;
    }
    if (channel_create(&made->channel, open->partition, ++node->next_channel, bytes, node->connections[number].wake,
                       &error) != 0) {
        fprintf(stderr, "fake node: %s\n", error.text);
        abort();
    }
    node->owner[i] = number;
    atomic_store(&made->channel.page->generation, 1);
    ring_reader_attach(&made->requests, made->channel.request_data, bytes, &made->channel.page->request, 0, 0);
    ring_writer_attach(&made->responses, made->channel.response_data, bytes, &made->channel.page->response, 0, 0);
    channel.partition = open->partition;
    channel.channel_id = made->channel.channel_id;
    channel.ring_bytes = bytes;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL;
    message.channel = &channel;
    int fds[2] = {made->channel.memory_fd, made->channel.node_wake_fd};
    send_node(&node->connections[number], &message, fds, 2);
    (void)dies(node, FAKE_BEHIND_CHANNEL);
}

static void on_mapped(struct fake_node *node, int number, uint64_t channel_id)
{
    Millrace__V1__ChannelOpened opened = MILLRACE__V1__CHANNEL_OPENED__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    if (dies(node, FAKE_AT_MAPPED))
        return;
    for (int i = 0; i < FAKE_CHANNELS; i++)
        if (node->channels[i].channel.channel_id == channel_id) {
            node->channels[i].open = true;
            atomic_store(&node->channels[i].channel.page->state, CHANNEL_OPEN);
        }
    opened.channel_id = channel_id;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED;
    message.channel_opened = &opened;
    send_node(&node->connections[number], &message, NULL, 0);
    (void)dies(node, FAKE_BEHIND_OPENED);
}

static void on_get_status(struct fake_node *node, struct connection *connection)
{
    Millrace__V1__Status status = MILLRACE__V1__STATUS__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    if (dies(node, FAKE_AT_STATUS))
        return;

    status.pid = 4711;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_STATUS;
    message.status = &status;
    send_node(connection, &message, NULL, 0);
}

static void hang_up(struct fake_node *node, int number)
{
    struct connection *connection = &node->connections[number];

    close(connection->socket);
    close(connection->wake);
    connection->socket = -1;
    node->counts.connected--;
    for (int i = 0; i < FAKE_CHANNELS; i++)
        if (node->owner[i] == number)
            close_channel(node, i);
}

static void read_connection(struct fake_node *node, int number)
{
    Millrace__V1__ClientMessage *message;
    struct mr_error error;

    switch (handshake_receive_client(node->connections[number].socket, &message, &error)) {
    case HANDSHAKE_OK:
        break;
    case HANDSHAKE_AGAIN:
        return;
    default:
        hang_up(node, number);
        return;
    }
    switch (message->message_case) {
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO:
        on_hello(node, &node->connections[number]);
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_OPEN_CHANNEL:
        on_open_channel(node, number, message->open_channel);
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CHANNEL_MAPPED:
        on_mapped(node, number, message->channel_mapped->channel_id);
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS:
        on_get_status(node, &node->connections[number]);
        break;
    case MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_LIST_SESSIONS:
        send_refused(&node->connections[number], "sessions are not told", false, true);
        break;
    default:
        break;
    }
    millrace__v1__client_message__free_unpacked(message, NULL);
}

static void accept_one(struct fake_node *node)
{
    int fd = accept4(node->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    for (int i = 0; i < CONNECTIONS; i++)
        if (node->connections[i].socket < 0) {
            node->connections[i].socket = fd;
            node->connections[i].wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
            must(node->connections[i].wake >= 0);
            node->counts.connections++;
            node->counts.connected++;
            return;
        }
    must(node->counts.connected < CONNECTIONS);
}

static void hang_up_all(struct fake_node *node)
{
    for (int i = 0; i < CONNECTIONS; i++)
        if (node->connections[i].socket >= 0)
            hang_up(node, i);
}

static void vanish(struct fake_node *node)
{
    if (node->listener >= 0)
        close(node->listener);
    node->listener = -1;
    unlink(node->path);
    hang_up_all(node);
}

static void listen_at_path(struct fake_node *node)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(address.sun_path, node->path);
    node->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    must(node->listener >= 0);
    must(bind(node->listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    must(listen(node->listener, 16) == 0);
}

static void *run(void *argument)
{
    struct fake_node *node = argument;
    bool stop = false;

    while (!stop) {
        struct pollfd fds[CONNECTIONS + 1];
        pthread_mutex_lock(&node->mutex);
        if (node->vanish)
            vanish(node);
        if (!node->held)
            turn(node);
        if (node->died)
            hang_up_all(node);
        node->died = false;
        fds[CONNECTIONS] = (struct pollfd){.fd = node->listener, .events = POLLIN};
        for (int i = 0; i < CONNECTIONS; i++)
            fds[i] = (struct pollfd){.fd = node->connections[i].socket, .events = POLLIN};
        pthread_mutex_unlock(&node->mutex);
        poll(fds, CONNECTIONS + 1, 1);
        pthread_mutex_lock(&node->mutex);
        if (fds[CONNECTIONS].revents != 0)
            accept_one(node);
        for (int i = 0; i < CONNECTIONS && !node->died; i++)
            if (fds[i].revents != 0 && node->connections[i].socket >= 0)
                read_connection(node, i);
        if (node->died)
            hang_up_all(node);
        node->died = false;
        stop = node->stop;
        pthread_mutex_unlock(&node->mutex);
    }
    return NULL;
}

/* ---- For the test ---- */

static void take_options(struct fake_node *node, const struct fake_options *options)
{
    if (options != NULL)
        node->options = *options;
    if (node->options.partitions == 0)
        node->options.partitions = 1;
    if (node->options.ring_bytes == 0)
        node->options.ring_bytes = 65536;
    if (node->options.max_payload == 0)
        node->options.max_payload = node->options.ring_bytes / 4;
}

struct fake_node *fake_node_start(const char *socket_path, const struct fake_options *options)
{
    struct fake_node *node = calloc(1, sizeof(*node));

    must(node != NULL);
    take_options(node, options);
    for (int i = 0; i < CONNECTIONS; i++)
        node->connections[i].socket = -1;
    must(strlen(socket_path) < sizeof(((struct sockaddr_un *)NULL)->sun_path));
    strcpy(node->path, socket_path);
    listen_at_path(node);
    must(pthread_mutex_init(&node->mutex, NULL) == 0);
    must(pthread_create(&node->thread, NULL, run, node) == 0);
    return node;
}

void fake_node_stop(struct fake_node *node)
{
    if (node == NULL)
        return;
    pthread_mutex_lock(&node->mutex);
    node->stop = true;
    pthread_mutex_unlock(&node->mutex);
    pthread_join(node->thread, NULL);
    vanish(node);
    for (int i = 0; i < SESSIONS; i++) {
        free(node->sessions[i].values);
        free(node->sessions[i].indexes);
    }
    pthread_mutex_destroy(&node->mutex);
    free(node);
}

void fake_node_vanish(struct fake_node *node)
{
    pthread_mutex_lock(&node->mutex);
    node->vanish = true;
    pthread_mutex_unlock(&node->mutex);
}

void fake_node_return(struct fake_node *node)
{
    bool gone = false;

    while (!gone) {
        pthread_mutex_lock(&node->mutex);
        gone = node->listener < 0;
        if (gone) {
            node->vanish = false;
            listen_at_path(node);
        }
        pthread_mutex_unlock(&node->mutex);
        if (!gone)
            sched_yield();
    }
}

void fake_node_change(struct fake_node *node, const struct fake_options *options)
{
    pthread_mutex_lock(&node->mutex);
    take_options(node, options);
    pthread_mutex_unlock(&node->mutex);
}

void fake_node_empty(struct fake_node *node)
{
    pthread_mutex_lock(&node->mutex);
    for (int i = 0; i < SESSIONS; i++) {
        free(node->sessions[i].values);
        free(node->sessions[i].indexes);
    }
    memset(node->sessions, 0, sizeof(node->sessions));
    node->index = 0;
    node->value = 0;
    pthread_mutex_unlock(&node->mutex);
}

void fake_node_die(struct fake_node *node, enum fake_death where, unsigned after, unsigned times)
{
    pthread_mutex_lock(&node->mutex);
    node->death = where;
    node->spare = after;
    node->deaths = times;
    pthread_mutex_unlock(&node->mutex);
}

struct fake_counts fake_counts(struct fake_node *node)
{
    pthread_mutex_lock(&node->mutex);
    struct fake_counts counts = node->counts;
    pthread_mutex_unlock(&node->mutex);
    return counts;
}

void fake_node_hold(struct fake_node *node)
{
    pthread_mutex_lock(&node->mutex);
    node->held = true;
    pthread_mutex_unlock(&node->mutex);
}

void fake_node_release(struct fake_node *node)
{
    pthread_mutex_lock(&node->mutex);
    node->held = false;
    pthread_mutex_unlock(&node->mutex);
}

void fake_node_forget_sessions(struct fake_node *node)
{
    pthread_mutex_lock(&node->mutex);
    for (int i = 0; i < SESSIONS; i++)
        node->sessions[i].gone = node->sessions[i].id != 0;
    pthread_mutex_unlock(&node->mutex);
}

static struct fake_channel *find_channel(struct fake_node *node, uint32_t partition, bool largest)
{
    struct fake_channel *found = NULL;

    pthread_mutex_lock(&node->mutex);
    for (int i = 0; i < FAKE_CHANNELS; i++) {
        struct fake_channel *channel = &node->channels[i];
        if (!channel->open || channel->channel.partition != partition)
            continue;
        if (found == NULL || (channel->channel.ring_bytes > found->channel.ring_bytes) == largest)
            found = channel;
    }
    pthread_mutex_unlock(&node->mutex);
    return found;
}

struct fake_channel *fake_channel(struct fake_node *node, uint32_t partition)
{
    return find_channel(node, partition, true);
}

struct fake_channel *fake_renewing_channel(struct fake_node *node, uint32_t partition)
{
    return find_channel(node, partition, false);
}
