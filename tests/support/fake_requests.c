/* SPDX-License-Identifier: Apache-2.0 */
/* The fake node's requests and answers: see fake_node.h. What it does with a request, and the frames of a test that is
 * the worker. */
#include "tests/support/fake_node_inside.h"

#include "ipc/handshake.h"

#include "proto/reader.h"
#include "proto/writer.h"

#include <string.h>
#include <unistd.h>

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
    atomic_store(&channel->channel.page->begun_at, channel->requests.head);
    atomic_fetch_add(&channel->channel.page->generation, 1);
    wake(channel->channel.client_wake_fd);
}

void fake_close_channel(struct fake_channel *channel, const char *why)
{
    snprintf(channel->channel.page->why, sizeof(channel->channel.page->why), "%s", why);
    atomic_store(&channel->channel.page->state, CHANNEL_CLOSED);
    wake(channel->channel.client_wake_fd);
}

void fake_say_closed(struct fake_node *node, const struct fake_channel *channel)
{
    Millrace__V1__ChannelClosed closed = MILLRACE__V1__CHANNEL_CLOSED__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    struct mr_error error;

    closed.channel_id = channel->channel.channel_id;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED;
    message.channel_closed = &closed;
    must(handshake_send_node(node->connections[node->owner[channel - node->channels]].socket, &message, NULL, 0,
                             &error) == HANDSHAKE_OK);
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
