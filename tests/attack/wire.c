/* SPDX-License-Identifier: Apache-2.0 */
/* An attacker's connection and channel: the real hand-shake, and the ring as a client may use it. The attacks do to
 * both what no client would. See attacker.h. */
#include "tests/attack/attacker.h"

#include "ipc/handshake.h"

#include <millrace/status.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/support/wait.h"

#define PROBE_BYTES sizeof(struct request_head)
#define SPINS 300 /* looks until others get the processor */
#define BELLS 30  /* rung until others get it for longer */

/* ---- The connection ---- */

static void note_text(struct heard *heard, ProtobufCBinaryData text)
{
    snprintf(heard->text, sizeof(heard->text), "%.*s", (int)text.len, (const char *)text.data);
}

static void read_message(struct heard *heard, const Millrace__V1__NodeMessage *message)
{
    heard->what = message->message_case;
    switch (message->message_case) {
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL:
        heard->id = message->channel->channel_id;
        heard->ring_bytes = message->channel->ring_bytes;
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED:
        heard->id = message->channel_opened->channel_id;
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED:
        heard->id = message->channel_closed->channel_id;
        note_text(heard, message->channel_closed->reason);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED:
        heard->status = message->refused->status;
        note_text(heard, message->refused->message);
        break;
    case MILLRACE__V1__NODE_MESSAGE__MESSAGE_SESSIONS:
        heard->ring_bytes = message->sessions->size;
        break;
    default:
        break;
    }
}

struct heard attacker_hear(struct attacker *attacker, const struct stub_client *client, unsigned milliseconds)
{
    struct heard heard = {.fds = {-1, -1}};
    Millrace__V1__NodeMessage *message = NULL;
    struct mr_error error = {.text = ""};
    unsigned fd_count = 0;

    if (client->socket < 0 || !wait_fd(client->socket, POLLIN, milliseconds))
        return heard;
    enum handshake_result result = handshake_receive_node(client->socket, &message, heard.fds, &fd_count, &error);
    if (result != HANDSHAKE_OK) {
        heard.over = true;
        snprintf(heard.text, sizeof(heard.text), "the connection is over: %.100s", error.text);
        return heard;
    }
    read_message(&heard, message);
    millrace__v1__node_message__free_unpacked(message, NULL);
    if (heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_PARTITION_STOPPED)
        attacker_fail(attacker, "the partition is stopped");
    if (heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED && attacker->channel.page != NULL &&
        heard.id == attacker->channel.channel_id)
        snprintf(attacker->closed, sizeof(attacker->closed), "%s", heard.text);
    return heard;
}

void heard_close(struct heard *heard)
{
    for (unsigned i = 0; i < 2; i++)
        if (heard->fds[i] >= 0)
            close(heard->fds[i]);
}

void attacker_connect(struct attacker *attacker, struct stub_client *client)
{
    struct mr_error error;

    client->wake = -1;
    client->socket = handshake_connect(attacker->board->socket, &error);
    if (client->socket < 0)
        attacker_fail(attacker, "%s", error.text);
}

void attacker_greet(struct attacker *attacker, struct stub_client *client)
{
    uint64_t end = wait_now_ms() + attacker->board->wait_ms;

    for (;;) {
        attacker_connect(attacker, client);
        stub_hello(client, HANDSHAKE_VERSION);
        struct heard heard = attacker_hear(attacker, client, attacker->board->wait_ms);
        if (heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME) {
            client->wake = heard.fds[0];
            return;
        }
        heard_close(&heard);
        stub_disconnect(client);
        /* This user's other processes have taken all that it may have, or those that ended are not gone yet. */
        if (heard.what != MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED || heard.status != MR_UNAVAILABLE ||
            wait_now_ms() >= end)
            attacker_fail(attacker, "not welcome (message %u): %s", heard.what, heard.text);
        wait_pause();
    }
}

void attacker_hang_up(struct attacker *attacker)
{
    attacker_drop(attacker);
    stub_disconnect(&attacker->client);
    attacker->leaves_bell = false;
    attacker->has_ears = false;
}

/* ---- The channel ---- */

void attacker_drop(struct attacker *attacker)
{
    meddler_stop(&attacker->meddler);
    if (attacker->channel.page == NULL)
        return;
    if (attacker->closed[0] == '\0' && attacker->client.socket >= 0)
        stub_ask_close(&attacker->client, attacker->channel.channel_id);
    channel_unmap(&attacker->channel);
    attacker->channel.page = NULL;
}

/* One try. False: there is no room for one now. */
static bool try_to_open(struct attacker *attacker)
{
    struct stub_client *client = &attacker->client;
    struct mr_error error;
    struct heard heard;

    stub_ask_channel(client, 1, RING);
    do
        heard = attacker_hear(attacker, client, attacker->board->wait_ms);
    while (heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED);
    if (heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED && heard.status == MR_UNAVAILABLE)
        return false;
    if (heard.what != MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL || heard.fds[1] < 0)
        attacker_fail(attacker, "asked for a channel, the node says (message %u): %s", heard.what, heard.text);
    if (channel_map(&attacker->channel, heard.fds[0], heard.fds[1], client->wake, 1, heard.id, heard.ring_bytes,
                    &error) != 0)
        attacker_fail(attacker, "%s", error.text);
    stub_say_mapped(client, heard.id);
    do
        heard = attacker_hear(attacker, client, attacker->board->wait_ms);
    while (heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED);
    if (heard.what != MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED || heard.id != attacker->channel.channel_id)
        attacker_fail(attacker, "a channel is mapped, the node says (message %u): %s", heard.what, heard.text);
    return true;
}

void attacker_open(struct attacker *attacker)
{
    uint64_t end = wait_now_ms() + attacker->board->wait_ms;

    if (attacker->channel.page != NULL)
        return;
    if (attacker->client.socket < 0)
        attacker_greet(attacker, &attacker->client);
    attacker->closed[0] = '\0';
    while (!try_to_open(attacker)) {
        if (wait_now_ms() >= end)
            attacker_fail(attacker, "there is no room for a channel");
        wait_pause();
    }
    attacker->tail = attacker->answered = attacker->overwritten = 0;
    attacker->account->opened++;
}

void attacker_ring_bell(struct attacker *attacker)
{
    int fd = attacker->channel.node_wake_fd;
    struct pollfd look = {.fd = fd, .events = POLLIN | POLLOUT};
    uint64_t number = 1;

    /* Full, it would not wake anybody; and it may block by now. */
    if (poll(&look, 1, 0) == 1 && (look.revents & POLLOUT) == 0 && (look.revents & POLLIN) != 0 &&
        read(fd, &number, sizeof(number)) == sizeof(number))
        number = 1;
    if (write(fd, &number, sizeof(number)) != sizeof(number))
        attacker_fail(attacker, "the eventfd takes no wake-up");
}

uint8_t *attacker_at_tail(struct attacker *attacker)
{
    return attacker->channel.request_data + (attacker->tail & (RING - 1));
}

void attacker_publish(struct attacker *attacker, uint64_t tail)
{
    struct ring_cursors *cursors = &attacker->channel.page->request;

    attacker->tail = tail;
    atomic_store_explicit(&cursors->tail, tail, memory_order_seq_cst);
    if (atomic_load_explicit(&cursors->reader_sleeps, memory_order_seq_cst) != 0)
        attacker_ring_bell(attacker);
}

uint64_t attacker_put_frame(struct attacker *attacker, uint64_t at, enum frame_kind kind, const void *body, size_t size)
{
    uint8_t *to = attacker->channel.request_data + (at & (RING - 1));
    struct request_head head = {.size = (uint32_t)size, .kind = (uint8_t)kind};

    memcpy(to, &head, sizeof(head));
    if (size > 0)
        memcpy(to + sizeof(head), body, size);
    return request_frame_bytes(size);
}

void attacker_ask_to_share(struct attacker *attacker, uint64_t at)
{
    struct request_head head;
    uint8_t *frame = attacker->channel.request_data + (at & (RING - 1));

    memcpy(&head, frame, sizeof(head));
    head.flags = REQUEST_SHARES;
    memcpy(frame, &head, sizeof(head));
}

/* Reads all answers, which is to say that there is room for more. */
static void take_answers(struct attacker *attacker)
{
    struct ring_cursors *cursors = &attacker->channel.page->response;
    uint64_t tail = atomic_load_explicit(&cursors->tail, memory_order_acquire);

    /* It may have been told of more room than there was, so this can be some rings; more is what an attack has left
     * there, and the worker has not written anew, perhaps because it waits for room. */
    if (tail - attacker->answered > 16 * RING)
        tail = attacker->overwritten;
    attacker->answered = tail;
    atomic_store_explicit(&cursors->head, tail, memory_order_seq_cst);
    if (atomic_load_explicit(&cursors->writer_sleeps, memory_order_seq_cst) != 0) {
        atomic_store_explicit(&cursors->writer_sleeps, 0, memory_order_relaxed);
        attacker_ring_bell(attacker);
    }
}

/* Sleeps as a client does, until the worker has answered or the node says something; not for long, since the flags may
 * have been meddled with. */
static void sleep_a_little(struct attacker *attacker)
{
    struct pollfd looks[] = {{.fd = attacker->client.socket, .events = POLLIN},
                             {.fd = attacker->client.wake, .events = POLLIN}};
    struct channel_page *page = attacker->channel.page;
    struct epoll_event event;

    atomic_store_explicit(&page->response.reader_sleeps, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&page->request.head, memory_order_seq_cst) == attacker->tail)
        return;
    if (poll(looks, attacker->leaves_bell ? 1 : 2, 1) > 0 && looks[1].revents != 0)
        (void)epoll_wait(attacker->client.wake, &event, 1, 0); /* so that it is quiet until the next */
}

/* Until the worker has taken everything up to the tail, and answered it. False: the channel is closed. */
static bool wait_taken(struct attacker *attacker)
{
    struct ring_cursors *cursors = &attacker->channel.page->request;
    uint64_t end = wait_now_ms() + attacker->board->wait_ms;

    for (unsigned spin = 1;; spin++) {
        take_answers(attacker);
        if (atomic_load_explicit(&cursors->head, memory_order_acquire) == attacker->tail) {
            take_answers(attacker);
            return true;
        }
        if (spin % SPINS != 0)
            continue;
        attacker_ring_bell(attacker);
        sleep_a_little(attacker);
        /* Whatever wakes it: where a processor is never left to the kernel's threads, the write that is waited for may
         * take them a minute to end. */
        if (spin / SPINS > BELLS)
            wait_pause();
        struct heard heard = attacker_hear(attacker, &attacker->client, 0);
        heard_close(&heard);
        if (attacker->closed[0] != '\0')
            return false;
        if (heard.over)
            attacker_fail(attacker, "%s", heard.text);
        if (wait_now_ms() >= end)
            attacker_fail(attacker, "the worker takes nothing more from the channel, and does not close it");
    }
}

bool attacker_settled(struct attacker *attacker)
{
    struct ring_cursors *cursors = &attacker->channel.page->request;
    uint64_t used = attacker->tail - atomic_load_explicit(&cursors->head, memory_order_acquire);

    if (attacker->closed[0] != '\0')
        return false;
    /* More than the ring holds is what an attack has left there, when all was taken. */
    if (used <= RING && used + PROBE_BYTES > RING && !wait_taken(attacker))
        return false;
    /* A frame of a kind that there is not: it is refused, after all before it is answered. */
    attacker_publish(attacker,
                     attacker->tail + attacker_put_frame(attacker, attacker->tail, (enum frame_kind)9, NULL, 0));
    return wait_taken(attacker);
}
