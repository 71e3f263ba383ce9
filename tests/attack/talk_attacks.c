/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks on the node's socket: hand-shakes that are wrong, half done, or only begun; connections and channels by the
 * dozen. Each has connections of its own; the answer must be the one that control.proto promises. */
#include "tests/attack/attacker.h"

#include "ipc/handshake.h"

#include <millrace/status.h>

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/wait.h"

/* A connection, greeted or not. */
static void begin(struct attacker *attacker, struct stub_client *client, bool greeted)
{
    if (greeted)
        attacker_greet(attacker, client);
    else
        attacker_connect(attacker, client);
}

/* The node ends it, having said why or not. */
static void must_end(struct attacker *attacker, struct stub_client *client)
{
    uint64_t end = wait_now_ms() + attacker->board->wait_ms;

    for (;;) {
        struct heard heard = attacker_hear(attacker, client, attacker->board->wait_ms);
        heard_close(&heard);
        if (heard.over)
            break;
        if (wait_now_ms() >= end)
            attacker_fail(attacker, "the node does not end the connection");
    }
    stub_disconnect(client);
}

static unsigned wrong_version(struct attacker *attacker)
{
    struct stub_client client;

    begin(attacker, &client, false);
    stub_hello(&client, HANDSHAKE_VERSION + 1 + (uint32_t)draw(attacker, UINT32_MAX - 2));
    struct heard heard = attacker_hear(attacker, &client, attacker->board->wait_ms);
    if (heard.what != MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED)
        attacker_fail(attacker, "the node says (message %u): %s", heard.what, heard.text);
    must_end(attacker, &client);
    return ELSEWHERE;
}

/* Beginning with a byte that no message begins with. */
static unsigned packet_of_noise(struct attacker *attacker)
{
    static uint8_t noise[HANDSHAKE_BYTES + 1000];
    struct stub_client client;
    size_t size = draw(attacker, 8) == 0 ? sizeof(noise) : 1 + draw(attacker, 300);

    begin(attacker, &client, draw(attacker, 2) == 0);
    draw_bytes(attacker, noise, size);
    noise[0] = 0xff;
    (void)stub_send_bytes(&client, noise, size);
    must_end(attacker, &client);
    return ELSEWHERE;
}

/* One or more descriptors beside a packet that would be right without them: nobody asked for them. */
static unsigned packet_with_descriptors(struct attacker *attacker)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {0};
    uint8_t hello[] = {0x0a, 0x02, 0x08, HANDSHAKE_VERSION}; /* Hello with its version */
    struct iovec bytes = {.iov_base = hello, .iov_len = sizeof(hello)};
    size_t count = 1 + draw(attacker, 8);
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    struct stub_client client;
    int fd = eventfd(0, EFD_CLOEXEC);

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (size_t i = 0; i < count; i++)
        memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd, sizeof(fd));
    begin(attacker, &client, draw(attacker, 2) == 0);
    if (fd < 0 || sendmsg(client.socket, &message, MSG_NOSIGNAL) < 0)
        attacker_fail(attacker, "a descriptor cannot be sent");
    close(fd);
    must_end(attacker, &client);
    return ELSEWHERE;
}

/* As far into a hand-shake as chance has it, then away. */
static unsigned half_a_hand_shake(struct attacker *attacker)
{
    uint64_t steps = draw(attacker, 7);
    struct stub_client client;
    struct heard heard = {.fds = {-1, -1}};

    begin(attacker, &client, steps >= 2);
    if (steps == 1)
        stub_hello(&client, HANDSHAKE_VERSION);
    if (steps >= 3)
        stub_ask_channel(&client, 1, draw(attacker, 2) * RING);
    if (steps >= 4)
        heard = attacker_hear(attacker, &client, attacker->board->wait_ms);
    if (steps >= 5)
        stub_say_mapped(&client, heard.id);
    if (steps >= 6)
        stub_ask_close(&client, heard.id);
    heard_close(&heard);
    stub_disconnect(&client);
    return ELSEWHERE;
}

/* Kept, silent or greeted, some with a channel that is never mapped, until others take their place. */
static unsigned connection_held(struct attacker *attacker)
{
    struct held *held = &attacker->held[attacker->held_next++ % HELD_MAX];
    bool greeted = draw(attacker, 2) == 0;

    for (unsigned i = 0; i < 2; i++)
        if (held->fds[i] >= 0)
            close(held->fds[i]);
    stub_disconnect(&held->client);
    held->fds[0] = held->fds[1] = -1;
    begin(attacker, &held->client, greeted);
    if (greeted && draw(attacker, 8) == 0) {
        stub_ask_channel(&held->client, 1, 0);
        struct heard heard = attacker_hear(attacker, &held->client, attacker->board->wait_ms);
        held->fds[0] = heard.fds[0];
        held->fds[1] = heard.fds[1];
    }
    return ELSEWHERE;
}

/* What is refused, or passed over, on a connection that goes on: the attacker's own. */
static unsigned wrong_requests(struct attacker *attacker)
{
    struct stub_client *client = &attacker->client;
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__TakeSnapshot snapshot = MILLRACE__V1__TAKE_SNAPSHOT__INIT;

    stub_say_mapped(client, draw(attacker, 1000)); /* others' channels have such numbers */
    stub_ask_close(client, draw(attacker, attacker->channel.channel_id));
    switch (draw(attacker, 4)) {
    case 0:
        stub_ask_channel(client, draw(attacker, 2) == 0 ? 0 : 2 + (uint32_t)draw(attacker, UINT32_MAX - 2), 0);
        break;
    case 1:
        stub_ask_channel(client, 1, draw(attacker, UINT64_MAX) | 1);
        break;
    case 2:
        stub_ask_attach(client, 1, 1 + draw(attacker, 4)); /* the honest client's, or none */
        break;
    default:
        snapshot.partition = 1;
        message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_TAKE_SNAPSHOT;
        message.take_snapshot = &snapshot;
        (void)handshake_send_client(client->socket, &message, NULL);
        break;
    }
    struct heard heard;
    do
        heard = attacker_hear(attacker, client, attacker->board->wait_ms);
    while (heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED);
    heard_close(&heard);
    if (heard.what != MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED)
        attacker_fail(attacker, "the node says (message %u): %s", heard.what, heard.text);
    return STAYS;
}

/* Asks and asks, and never reads an answer: the node drops it. */
static unsigned deaf(struct attacker *attacker)
{
    struct stub_client client;
    struct pollfd look;

    begin(attacker, &client, true);
    look = (struct pollfd){.fd = client.socket};
    for (unsigned i = 0; i < 100000; i++) {
        stub_ask_status(&client);
        if (poll(&look, 1, 0) == 1 && (look.revents & POLLHUP) != 0)
            break;
    }
    if ((look.revents & POLLHUP) == 0)
        attacker_fail(attacker, "the node does not drop who never reads");
    stub_disconnect(&client);
    return ELSEWHERE;
}

/* As many connections as one user may have, and one more. */
static unsigned flood_of_connections(struct attacker *attacker)
{
    enum { MANY = 200 };
    static struct stub_client clients[MANY];
    unsigned count = 0;
    bool refused = false;

    while (count < MANY && !refused) {
        attacker_connect(attacker, &clients[count]);
        stub_hello(&clients[count], HANDSHAKE_VERSION);
        struct heard heard = attacker_hear(attacker, &clients[count++], attacker->board->wait_ms);
        refused = heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED && heard.status == MR_UNAVAILABLE;
        heard_close(&heard);
    }
    for (unsigned i = 0; i < count; i++)
        stub_disconnect(&clients[i]);
    if (!refused)
        attacker_fail(attacker, "a user may have more connections than --user-connections says");
    return ELSEWHERE;
}

/* Likewise channels. */
static unsigned flood_of_channels(struct attacker *attacker)
{
    struct stub_client client;
    bool refused = false;

    attacker_greet(attacker, &client);
    for (unsigned i = 0; i < 200 && !refused; i++) {
        stub_ask_channel(&client, 1, RING);
        struct heard heard = attacker_hear(attacker, &client, attacker->board->wait_ms);
        refused = heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED && heard.status == MR_UNAVAILABLE;
        if (draw(attacker, 2) == 0 && !refused)
            stub_say_mapped(&client, heard.id); /* ... whose answer may come before the next channel's */
        heard_close(&heard);
    }
    stub_disconnect(&client);
    if (!refused)
        attacker_fail(attacker, "a user may have more channels than --user-channels says");
    return ELSEWHERE;
}

const struct attack talk_attacks[] = {{"wrong version", 4, wrong_version},
                                      {"packet of noise", 4, packet_of_noise},
                                      {"packet with descriptors", 4, packet_with_descriptors},
                                      {"half a hand-shake", 8, half_a_hand_shake},
                                      {"connection held", 8, connection_held},
                                      {"wrong requests", 8, wrong_requests},
                                      {"deaf", 1, deaf},
                                      {"flood of connections", 1, flood_of_connections},
                                      {"flood of channels", 1, flood_of_channels},
                                      {NULL, 0, NULL}};
