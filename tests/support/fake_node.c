/* SPDX-License-Identifier: Apache-2.0 */
/* See fake_node.h. One thread, one mutex; the thread turns over everything there is and then waits a millisecond for
 * something on its sockets, which is enough for tests and keeps it simple. */
#include "tests/support/fake_node.h"

#include "ipc/handshake.h"

#include "proto/reader.h"
#include "proto/writer.h"

#include <millrace/limits.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS 16
#define SESSIONS 64
#define NUMBERS (1 << 20)

struct connection {
    int socket; /* -1: free */
    int wake;
};

/* The outputs of a session's commands, by number: the value, and the index (0: not applied). */
struct session {
    uint64_t id;
    bool gone;
    uint64_t forgotten; /* numbers up to this one are given up */
    int64_t *values;
    uint64_t *indexes;
};

struct fake_node {
    struct fake_options options;
    pthread_t thread;
    pthread_mutex_t mutex;
    bool held, stop, vanish;
    int listener;
    char path[256];
    struct connection connections[CONNECTIONS];
    struct fake_channel channels[FAKE_CHANNELS];
    int owner[FAKE_CHANNELS]; /* connection */
    uint64_t next_channel;
    uint64_t index; /* of the last command */
    int64_t value;  /* of the only counter */
    struct session sessions[SESSIONS];
    struct fake_counts counts;
};

#define must(condition)                                                                                                \
    ((condition) ? (void)0 : (fprintf(stderr, "fake node, %s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

/* ---- Frames ---- */

void fake_frame(struct fake_channel *channel, enum status status, bool last, uint64_t request, uint64_t number,
                const void *body, size_t size)
{
    struct response_head head = {.size = (uint32_t)size,
                                 .status = (uint8_t)status,
                                 .flags = last ? FRAME_LAST : 0,
                                 .request = request,
                                 .number = number};
    uint8_t *at;

    must(ring_reserve(&channel->responses, response_frame_bytes(size), &at) == RING_OK);
    memcpy(at, &head, sizeof(head));
    if (size > 0)
        memcpy(at + sizeof(head), body, size);
    ring_advance(&channel->responses, response_frame_bytes(size));
}

static void put_command_output(struct fake_channel *channel, bool last, uint64_t request, uint64_t number,
                               const struct command_output *output)
{
    uint8_t body[256];
    size_t size = partition_command_output_size(output);

    must(size <= sizeof(body));
    write_partition_command_output(body, output);
    fake_frame(channel, STATUS_OK, last, request, number, body, size);
}

static struct slice number_payload(uint8_t to[16], int64_t value)
{
    return (struct slice){to, (size_t)(field_write_varint(to, 1, (uint64_t)value) - to)};
}

void fake_output(struct fake_channel *channel, bool last, uint64_t request, uint64_t number, uint64_t index,
                 int64_t value)
{
    uint8_t bytes[16];
    struct slice payload = number_payload(bytes, value);
    struct command_output output = {.index = index,
                                    .kind = COMMAND_SESSION_COMMAND,
                                    .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                                    .sequence_num = number,
                                    .operation = {STATUS_OK, {NULL, 0}, &payload, 1, payload.size}};

    put_command_output(channel, last, request, number, &output);
}

static void wake(int fd)
{
    uint64_t one = 1;
    must(write(fd, &one, sizeof(one)) == sizeof(one));
}

void fake_publish(struct fake_node *node, struct fake_channel *channel)
{
    if (!ring_publish(&channel->responses))
        return;
    node->counts.wakes++;
    wake(channel->channel.client_wake_fd);
}

void fake_new_worker(struct fake_channel *channel)
{
    atomic_store(&channel->channel.page->request.reader_sleeps, 0);
    atomic_store(&channel->channel.page->response.reader_sleeps, 0);
    atomic_fetch_add(&channel->channel.page->generation, 1);
    wake(channel->channel.client_wake_fd);
}

void fake_close_channel(struct fake_channel *channel, const char *why)
{
    snprintf(channel->channel.page->why, sizeof(channel->channel.page->why), "%s", why);
    atomic_store(&channel->channel.page->state, CHANNEL_CLOSED);
    wake(channel->channel.client_wake_fd);
}

bool fake_next(struct fake_channel *channel, struct fake_request *request)
{
    const uint8_t *at;

    if (ring_peek(&channel->requests, sizeof(request->head), &at) != RING_OK)
        return false;
    memcpy(&request->head, at, sizeof(request->head));
    must(ring_peek(&channel->requests, request_frame_bytes(request->head.size), &at) == RING_OK);
    request->position = channel->requests.head;
    request->body = at + sizeof(request->head);
    return true;
}

void fake_take(struct fake_channel *channel, const struct fake_request *request)
{
    ring_skip(&channel->requests, request_frame_bytes(request->head.size));
    ring_release(&channel->requests, channel->requests.head);
    channel->taken++;
}

/* ---- What a node does with a request ---- */

static struct session *session_of(struct fake_node *node, uint64_t id)
{
    for (int i = 0; i < SESSIONS; i++)
        if (id != 0 && node->sessions[i].id == id && !node->sessions[i].gone)
            return &node->sessions[i];
    return NULL;
}

static void open_session(struct fake_node *node, uint64_t id)
{
    for (int i = 0; i < SESSIONS; i++) {
        struct session *session = &node->sessions[i];
        if (session->id != 0)
            continue;
        session->id = id;
        session->values = calloc(NUMBERS, sizeof(*session->values));
        session->indexes = calloc(NUMBERS, sizeof(*session->indexes));
        must(session->values != NULL && session->indexes != NULL);
        node->counts.opened++;
        return;
    }
    must(node->counts.opened < SESSIONS);
}

static int64_t first_number(struct slice payload)
{
    struct field_reader reader = field_reader(payload);
    int64_t number = 0;
    while (field_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            number = (int64_t)reader.value;
    return number;
}

/* `to` is NULL where the answer is to be lost. */
static void refuse(struct fake_channel *to, uint64_t position, enum status status, const char *why)
{
    if (to != NULL)
        fake_frame(to, status, true, position, 0, why, strlen(why));
}

static void service_command(struct fake_node *node, struct session *session, struct fake_channel *to, uint64_t position,
                            const struct command_input *command)
{
    uint64_t number = command->sequence_num;

    must(number > 0 && number < NUMBERS);
    node->counts.commands++;
    node->counts.repeats += command->operation.name.size == 0;
    if (number <= session->forgotten) {
        refuse(to, position, STATUS_CONFLICT, "the number was given up");
        return;
    }
    if (session->indexes[number] == 0) {
        must(command->operation.name.size > 0);
        node->value += first_number(command->operation.payload);
        session->values[number] = node->value;
        session->indexes[number] = node->index;
        node->counts.applied++;
    }
    if (to != NULL)
        fake_output(to, true, position, 1, session->indexes[number], session->values[number]);
}

static void command(struct fake_node *node, struct fake_channel *to, const struct fake_request *request)
{
    struct partition_command_input input;

    if (read_partition_command_input(request->body, request->head.size, &input) != READ_OK || !input.has_command) {
        refuse(to, request->position, STATUS_INVALID, "the bytes do not decode");
        return;
    }
    const struct command_input *command = &input.command;
    struct session *session = session_of(node, command->session_id);
    struct command_output output = {
        .index = ++node->index, .kind = command->kind, .session_kind = command->session_kind, .id = node->index};
    if (command->kind == COMMAND_OPEN_SESSION) {
        open_session(node, node->index);
    } else if (session == NULL) {
        refuse(to, request->position, STATUS_FORBIDDEN, "no such session");
        return;
    } else if (command->kind == COMMAND_KEEP_ALIVE) {
        node->counts.keep_alives += command->last_input_sequence_num > 0;
        node->counts.renewals += command->last_input_sequence_num == 0;
        if (command->last_input_sequence_num > session->forgotten)
            session->forgotten = command->last_input_sequence_num;
        if (session->forgotten > node->counts.last_told)
            node->counts.last_told = session->forgotten;
    } else if (command->kind == COMMAND_CLOSE_SESSION) {
        session->gone = true;
        node->counts.closed++;
    } else if (command->session_kind == SESSION_COMMAND_SERVICE_COMMAND) {
        service_command(node, session, to, request->position, command);
        return;
    } else if (command->session_kind == SESSION_COMMAND_CLOSE_SERVICE) {
        node->counts.services_closed++;
    } else if (command->spec.name.size >= 5 && memcmp(command->spec.name.data, "other", 5) == 0) {
        refuse(to, request->position, STATUS_FORBIDDEN, "the name has another type");
        return;
    }
    if (to != NULL)
        put_command_output(to, true, request->position, 0, &output);
}

/* An answer of as many bytes as the time limit says. */
static void filled(struct fake_channel *to, const struct fake_request *request)
{
    char *body = malloc(request->head.time_limit);

    must(body != NULL);
    memset(body, 'b', request->head.time_limit);
    if (to != NULL)
        fake_frame(to, STATUS_OK, true, request->position, 0, body, request->head.time_limit);
    free(body);
}

static void query(struct fake_node *node, struct fake_channel *to, const struct fake_request *request)
{
    struct partition_query_input input;
    uint8_t bytes[16];
    uint8_t body[64];

    must(read_partition_query_input(request->body, request->head.size, &input) == READ_OK);
    node->counts.queries++;
    if (request->head.size == 0) {
        filled(to, request);
        return;
    }
    node->counts.max_received_index = input.max_received_index;
    if (session_of(node, input.session_id) == NULL) {
        refuse(to, request->position, STATUS_FORBIDDEN, "no such session");
        return;
    }
    struct slice payload = number_payload(bytes, node->value);
    struct operation_output output = {STATUS_OK, {NULL, 0}, &payload, 1, payload.size};
    size_t size = partition_query_output_size(&output);
    must(size <= sizeof(body));
    write_partition_query_output(body, &output);
    if (to != NULL)
        fake_frame(to, STATUS_OK, true, request->position, 0, body, size);
}

static void serve(struct fake_node *node, struct fake_channel *to, const struct fake_request *request)
{
    node->counts.time_limit = request->head.time_limit;
    if (request->head.kind == FRAME_COMMAND)
        command(node, to, request);
    else
        query(node, to, request);
}

void fake_answer(struct fake_node *node, struct fake_channel *channel, const struct fake_request *request)
{
    serve(node, channel, request);
    fake_take(channel, request);
}

void fake_apply(struct fake_node *node, struct fake_channel *channel, const struct fake_request *request)
{
    serve(node, NULL, request);
    fake_take(channel, request);
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

static void send_refused(struct connection *connection, const char *why, bool fatal)
{
    Millrace__V1__Refused refused = MILLRACE__V1__REFUSED__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    refused.status = STATUS_UNAVAILABLE;
    refused.message = (ProtobufCBinaryData){strlen(why), (uint8_t *)(uintptr_t)why};
    refused.fatal = fatal;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED;
    message.refused = &refused;
    send_node(connection, &message, NULL, 0);
}

static void on_hello(struct fake_node *node, struct connection *connection)
{
    Millrace__V1__Welcome welcome = MILLRACE__V1__WELCOME__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    if (node->options.refuse_hello) {
        send_refused(connection, "no more", true);
        return;
    }
    welcome.version = HANDSHAKE_VERSION;
    welcome.partitions = node->options.partitions;
    welcome.max_payload = node->options.max_payload;
    welcome.ring_bytes = node->options.ring_bytes;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME;
    message.welcome = &welcome;
    send_node(connection, &message, &connection->wake, 1);
}

static void on_open_channel(struct fake_node *node, int number, const Millrace__V1__OpenChannel *open)
{
    Millrace__V1__Channel channel = MILLRACE__V1__CHANNEL__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    struct mr_error error;
    int i = 0;

    if (node->options.refuse_channels) {
        send_refused(&node->connections[number], "too many channels", false);
        return;
    }
    if (node->options.never_open)
        return;
    while (i < FAKE_CHANNELS && node->channels[i].channel.channel_id != 0)
        i++;
    must(i < FAKE_CHANNELS);
    struct fake_channel *made = &node->channels[i];
    uint64_t bytes = open->ring_bytes != 0 ? open->ring_bytes : node->options.ring_bytes;
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
}

static void on_mapped(struct fake_node *node, int number, uint64_t channel_id)
{
    Millrace__V1__ChannelOpened opened = MILLRACE__V1__CHANNEL_OPENED__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    for (int i = 0; i < FAKE_CHANNELS; i++)
        if (node->channels[i].channel.channel_id == channel_id) {
            node->channels[i].open = true;
            atomic_store(&node->channels[i].channel.page->state, CHANNEL_OPEN);
        }
    opened.channel_id = channel_id;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED;
    message.channel_opened = &opened;
    send_node(&node->connections[number], &message, NULL, 0);
}

static void on_get_status(struct connection *connection)
{
    Millrace__V1__Status status = MILLRACE__V1__STATUS__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

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
        on_get_status(&node->connections[number]);
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

static void vanish(struct fake_node *node)
{
    if (node->listener >= 0)
        close(node->listener);
    node->listener = -1;
    unlink(node->path);
    for (int i = 0; i < CONNECTIONS; i++)
        if (node->connections[i].socket >= 0)
            hang_up(node, i);
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
        fds[CONNECTIONS] = (struct pollfd){.fd = node->listener, .events = POLLIN};
        for (int i = 0; i < CONNECTIONS; i++)
            fds[i] = (struct pollfd){.fd = node->connections[i].socket, .events = POLLIN};
        pthread_mutex_unlock(&node->mutex);
        poll(fds, CONNECTIONS + 1, 1);
        pthread_mutex_lock(&node->mutex);
        if (fds[CONNECTIONS].revents != 0)
            accept_one(node);
        for (int i = 0; i < CONNECTIONS; i++)
            if (fds[i].revents != 0 && node->connections[i].socket >= 0)
                read_connection(node, i);
        stop = node->stop;
        pthread_mutex_unlock(&node->mutex);
    }
    return NULL;
}

/* ---- For the test ---- */

struct fake_node *fake_node_start(const char *socket_path, const struct fake_options *options)
{
    struct fake_node *node = calloc(1, sizeof(*node));
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    must(node != NULL);
    if (options != NULL)
        node->options = *options;
    if (node->options.partitions == 0)
        node->options.partitions = 1;
    if (node->options.ring_bytes == 0)
        node->options.ring_bytes = 65536;
    if (node->options.max_payload == 0)
        node->options.max_payload = node->options.ring_bytes / 4;
    for (int i = 0; i < CONNECTIONS; i++)
        node->connections[i].socket = -1;
    must(strlen(socket_path) < sizeof(address.sun_path));
    strcpy(address.sun_path, socket_path);
    strcpy(node->path, socket_path);
    node->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    must(node->listener >= 0);
    must(bind(node->listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    must(listen(node->listener, 16) == 0);
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
