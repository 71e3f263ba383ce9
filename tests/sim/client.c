/* SPDX-License-Identifier: Apache-2.0 */
/* Clients as the library is one: frames out and in through the rings; a new generation means to send again what is
 * unanswered and may be; a new channel, the same and more. Some read seldom, some sleep until they are woken. */
#include <string.h>

#include "tests/sim/sim.h"

enum { OPEN_MOST = 10 };

void clients_make(struct sim *sim)
{
    for (unsigned n = 0; n < sim->plan.clients; n++)
        sim->clients[n] = (struct client){.number = n, .uid = 1000 + n % 2};
}

struct send *client_find_send(struct sim_channel *channel, uint64_t position)
{
    struct send *send = channel->sends;
    while (send != NULL && send->position != position)
        send = send->next;
    return send;
}

/* ---- out ---- */

/* False: there is no room for it now. */
static bool put_frame(struct sim *sim, struct client *client, struct op *op)
{
    struct sim_channel *channel = client->channel;
    bool shares = op->kind == OP_EVENTS && client->number % 3 != 2;
    struct request_head head = {.size = (uint32_t)op->size,
                                .kind = op_is_query(op) ? FRAME_QUERY : FRAME_COMMAND,
                                .flags = shares ? REQUEST_SHARES : 0};
    uint64_t bytes = request_frame_bytes(op->size), position = channel->requests.tail;
    uint8_t *at;
    enum ring_result result = ring_reserve(&channel->requests, bytes, &at);
    if (result == RING_BROKEN)
        violation("the worker moved the head of channel %llu where it cannot be", (unsigned long long)channel->id);
    if (result != RING_OK)
        return false;
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, op->bytes, op->size);
    ring_advance(&channel->requests, bytes);
    struct send *send = run_allocate(sizeof *send);
    *send = (struct send){.op = op, .channel = channel->id, .position = position, .uid = client->uid, .shares = shares};
    *channel->sends_end = send;
    channel->sends_end = &send->next;
    if (!op->sent)
        op->asked_at = sim->acked;
    op->last_send = send;
    op->sent = true;
    op->resend = false;
    TRACE("client %u sends op %llu (%s) number %llu at channel %llu position %llu", client->number,
          (unsigned long long)op->number, op_name(op->kind), (unsigned long long)op->sequence_num,
          (unsigned long long)channel->id, (unsigned long long)position);
    if (ring_publish(&channel->requests))
        node_wake_worker(sim, channel);
    return true;
}

void client_begin(struct sim *sim, struct client *client, struct op *op)
{
    client->open = run_grow(client->open, client->open_count, &client->open_capacity, sizeof(struct op *));
    client->open[client->open_count++] = op;
    op->resend = !put_frame(sim, client, op);
}

static void send_again(struct sim *sim, struct client *client)
{
    for (unsigned n = 0; n < client->open_count; n++)
        if (client->open[n]->resend && !put_frame(sim, client, client->open[n]))
            return;
}

static void drop_done(struct client *client)
{
    unsigned kept = 0;
    for (unsigned n = 0; n < client->open_count; n++)
        if (!client->open[n]->done)
            client->open[kept++] = client->open[n];
    client->open_count = kept;
}

/* ---- in ---- */

static void take_output(struct sim *sim, struct client *client, const struct response_head *head, const uint8_t *body)
{
    struct sim_channel *channel = client->channel;
    struct send *send = client_find_send(channel, head->request);
    /* A query may be answered again by a successor: its answer does not wait for the commands before it. */
    if (send == NULL || (send->over && !op_is_query(send->op)))
        violation("channel %llu: an answer to position %llu, %s", (unsigned long long)channel->id,
                  (unsigned long long)head->request, send == NULL ? "which was not asked" : "after its last one");
    if (head->others > 0 && !send->shares)
        violation("channel %llu: a shared frame for position %llu, which did not ask for it",
                  (unsigned long long)channel->id, (unsigned long long)head->request);
    TRACE("client %u reads for op %llu (%s): status %u, output %llu%s", client->number,
          (unsigned long long)send->op->number, op_name(send->op->kind), head->status, (unsigned long long)head->number,
          head->flags & FRAME_LAST ? ", the last" : "");
    request_answered(sim, client, send, head, body);
}

static bool take_frame(struct sim *sim, struct client *client)
{
    struct sim_channel *channel = client->channel;
    struct response_head head;
    const uint8_t *at;
    enum ring_result result = ring_peek(&channel->responses, sizeof head, &at);
    if (result == RING_EMPTY)
        return false;
    if (result == RING_OK) {
        memcpy(&head, at, sizeof head);
        result = ring_peek(&channel->responses, response_whole_bytes(&head), &at);
    }
    if (result != RING_OK)
        violation("the response ring of channel %llu is broken", (unsigned long long)channel->id);
    take_output(sim, client, &head, at + sizeof head);
    for (unsigned n = 0; n < head.others; n++) {
        struct response_other other;
        memcpy(&other, at + response_frame_bytes(head.size) + n * sizeof other, sizeof other);
        struct response_head of_other = head;
        of_other.request = other.request;
        of_other.number = other.number;
        take_output(sim, client, &of_other, at + sizeof head);
        sim->counts.shared++;
    }
    ring_skip(&channel->responses, response_whole_bytes(&head));
    ring_release(&channel->responses, channel->responses.head);
    return true;
}

static void read_answers(struct sim *sim, struct client *client)
{
    unsigned most = 64;
    if (sim->plan.slow_readers && !sim->settling)
        most = (unsigned)random_below(&sim->random, 4);
    bool empty = false;
    for (unsigned n = 0; n < most && !empty; n++)
        empty = !take_frame(sim, client);
    drop_done(client);
    if (ring_release_wakes(&client->channel->responses))
        node_wake_worker(sim, client->channel);
}

/* Until something comes; what is to be sent is sent first. */
static void go_to_sleep(struct sim *sim, struct client *client)
{
    if (!sim->plan.sleepers || client->open_count == 0 || random_chance(&sim->random, 1, 2))
        return;
    for (unsigned n = 0; n < client->open_count; n++)
        if (client->open[n]->resend)
            return;
    client->asleep = ring_sleep(&client->channel->responses);
}

/* A new worker: numbered commands without their last output and queries are sent again. */
static void look_at_generation(struct sim *sim, struct client *client)
{
    uint32_t generation = atomic_load_explicit(&client->channel->channel.page->generation, memory_order_acquire);
    if (generation == client->generation)
        return;
    /* What the predecessor had published is read first. */
    while (take_frame(sim, client))
        ;
    drop_done(client);
    client->generation = generation;
    for (unsigned n = 0; n < client->open_count; n++)
        if (client->open[n]->sequence_num != 0 || op_is_query(client->open[n]))
            client->open[n]->resend = true;
}

/* ---- channels ---- */

static void connect(struct sim *sim, struct client *client)
{
    /* In `async` a power cut may take a session that was answered, and its id be given again: who comes back is told
     * first what is lost. */
    if (sim->must < sim->entry_count && !sim->node.up)
        return;
    client->channel = node_connect(sim, client);
    if (client->channel == NULL)
        return;
    TRACE("client %u has channel %llu", client->number, (unsigned long long)client->channel->id);
    client->generation = 1;
    client->asleep = false;
    for (unsigned n = 0; n < client->open_count; n++) {
        struct op *op = client->open[n];
        op->resend = true;
        /* A session that may have been opened is an orphan, and a KeepAlive is made anew. */
        if (op->sent && op->kind == OP_OPEN)
            session_lost(op->session);
        if (op->sent && op->kind == OP_KEEP_ALIVE)
            op->done = true;
    }
    drop_done(client);
}

void client_forget_channel(struct sim *sim, struct client *client)
{
    (void)sim;
    if (client->channel != NULL)
        client->channel->gone = true;
    client->channel = NULL;
    client->asleep = false;
}

void client_die(struct sim *sim, struct client *client)
{
    struct sim_channel *channel = client->channel;
    if (channel == NULL)
        return;
    TRACE("client %u lets go of channel %llu", client->number, (unsigned long long)channel->id);
    client_forget_channel(sim, client);
    node_disconnect(sim, channel);
}

void client_woken(struct sim *sim, int number)
{
    if (number >= 0 && number < (int)sim->plan.clients)
        sim->clients[number].asleep = false;
}

void clients_lost(struct sim *sim, uint64_t index)
{
    for (struct session_view *session = sim->sessions; session != NULL; session = session->next) {
        bool lost = session->id > index;
        for (unsigned n = 0; n < SIM_SERVICES; n++)
            lost |= session->services[n] > index;
        if (lost)
            session_lost(session);
    }
    /* Outputs of a stream that stood behind are to be read again: acknowledged now, they would be others. */
    for (struct op *op = sim->ops; op != NULL; op = op->next)
        if (!op->done && op->received > op->output_count)
            op->received = op->output_count;
}

/* ---- a client's turn ---- */

void client_act(struct sim *sim, struct client *client)
{
    if (client->channel == NULL) {
        if (sim->settling || random_chance(&sim->random, 1, 3))
            connect(sim, client);
        return;
    }
    if (client->asleep) {
        if (sim->settling || random_chance(&sim->random, 15, 16))
            return;
        client->asleep = false;
    }
    ring_awake(&client->channel->responses);
    look_at_generation(sim, client);
    read_answers(sim, client);
    send_again(sim, client);
    while (!sim->settling && client->open_count < OPEN_MOST &&
           random_chance(&sim->random, sim->plan.new_request, 100)) {
        struct op *op = request_invent(sim, client);
        if (op == NULL)
            break;
        client_begin(sim, client, op);
    }
    go_to_sleep(sim, client);
}

bool client_settled(struct client *client)
{
    for (unsigned n = 0; n < client->open_count; n++) {
        const struct op *op = client->open[n];
        if (op->kind != OP_EVENTS || op->resend || op->index == 0 || op->received < op->output_count)
            return false;
    }
    return client->channel != NULL;
}
