/* SPDX-License-Identifier: Apache-2.0 */
/* The node's end and its return, as a handle sees them:
 *
 *     connected -- the socket ends --> away -- Welcome --> connected, links reopening -- ChannelOpened --> as before
 *                                        |
 *                                        +-- options.reconnect_ns is over --> gone
 *
 * While the node is away, a run now and then tries to connect, at first soon, then more seldom; nothing waits. What is
 * open stays open (carry.c), what is started finds no room. The descriptor that the caller sleeps on stays the same;
 * the timer in it wakes him for each try. Once there is a Welcome, every link that had a channel asks for another. A
 * channel opens when its partition has recovered, for which there is no limit, as after a worker's death; one that is
 * refused is asked for until the same time is over.
 *
 * A session is a matter of the data directory, not of the connection: with the same directory nothing has to be done to
 * go on with it but to name it. With another one (in `memory`, with every start) its number means nothing, or somebody
 * else's: all sessions are lost, and of what is open only that is sent which names none. */
#include "ipc/client/reconnect.h"

#include "ipc/client/carry.h"
#include "ipc/client/connection.h"
#include "ipc/client/link.h"
#include "ipc/client/request.h"
#include "ipc/client/session.h"
#include "ipc/client/stream.h"
#include "ipc/sys.h"

#include <stdio.h>

#define PAUSE_AT_FIRST (5 * MR_MILLISECOND)
#define PAUSE_AT_MOST (100 * MR_MILLISECOND)
#define LOOK_EVERY (1 * MR_MILLISECOND)

static uint64_t now_ns(void)
{
    return sys_clock_ns(CLOCK_MONOTONIC);
}

static bool is_wanted(const struct mr_client *client)
{
    return client->connected && !client->closing && client->options.reconnect_ns != MR_NO_RECONNECT;
}

uint64_t reconnect_limit(const struct mr_client *client, uint64_t otherwise)
{
    int64_t limit = client->options.reconnect_ns;

    if (!is_wanted(client))
        return otherwise;
    return limit < 0 ? NEVER : now_ns() + (limit == 0 ? MR_RECONNECT_DEFAULT : (uint64_t)limit);
}

/* ---- The end ---- */

static void give_up(struct mr_client *client)
{
    client->away = false;
    client->gone = true;
    client->open_count = 0;
    for (uint32_t i = 0; i < MR_PARTITIONS_MAX; i++)
        if (client->links[i] != NULL) {
            client->links[i]->stage = LINK_CLOSED;
            link_reopens(client->links[i], false);
        }
    requests_end_all(client, NULL, MR_NO_NODE);
}

static void lose_channel(struct link *link)
{
    switch (link->stage) {
    case LINK_OPEN:
        carry_over(link); /* the rings stay mapped until there are others: results may point into them */
        link_reopens(link, true);
        link->wanted = true;
        break;
    case LINK_MAPPED:
        channel_unmap(&link->channel);
        link->wanted = true;
        break;
    case LINK_ASKED:
        link->wanted = true;
        break;
    case LINK_NONE:
        break;
    case LINK_CLOSED:
        return;
    }
    link->stage = LINK_NONE;
    link->ask_at = 0;
}

void reconnect_begin(struct mr_client *client, const char *text)
{
    snprintf(client->gone_text, sizeof(client->gone_text), "%s", text);
    snprintf(client->reason, sizeof(client->reason), "%s", text);
    client->losses++;
    if (!is_wanted(client)) {
        give_up(client);
        return;
    }
    client->away = true;
    client->give_up_at = reconnect_limit(client, 0);
    client->pause = PAUSE_AT_FIRST;
    client->connect_at = now_ns() + client->pause;
    client->open_count = 0;
    for (uint32_t i = 0; i < MR_PARTITIONS_MAX; i++)
        if (client->links[i] != NULL)
            lose_channel(client->links[i]);
}

/* ---- While it is away ---- */

void reconnect_failed(struct mr_client *client, const char *text)
{
    connection_hang_up(client);
    snprintf(client->reason, sizeof(client->reason), "%s", text);
    client->connect_at = now_ns() + client->pause;
    client->pause = 2 * client->pause < PAUSE_AT_MOST ? 2 * client->pause : PAUSE_AT_MOST;
}

static void out_of_time(struct mr_client *client)
{
    char text[sizeof(client->gone_text)];

    connection_hang_up(client);
    snprintf(text, sizeof(text), "the node at %.100s went away and was not back in time (reconnect_ns): %.340s",
             client->path, client->reason);
    memcpy(client->gone_text, text, sizeof(text));
    give_up(client);
}

static void try_to_connect(struct mr_client *client)
{
    struct mr_error error = {.code = 0};

    if (connection_again(client, &error) != 0)
        reconnect_failed(client, error.text);
}

void reconnect_step(struct mr_client *client)
{
    uint64_t now = now_ns();

    if (client->away && client->socket >= 0)
        connection_read(client);
    if (client->away && now >= client->give_up_at)
        out_of_time(client);
    else if (client->away && client->socket < 0 && now >= client->connect_at)
        try_to_connect(client);
    /* Channels are on their way; others may be busy meanwhile, so the socket is not looked at each time. */
    if (!client->away && !client->gone && now - client->looked_at >= LOOK_EVERY) {
        client->looked_at = now;
        connection_read(client);
        connection_ask_wanted(client, now);
    }
}

uint64_t reconnect_due(const struct mr_client *client)
{
    uint64_t at = NEVER;

    if (client->away)
        return client->socket < 0 && client->connect_at < client->give_up_at ? client->connect_at : client->give_up_at;
    for (uint32_t i = 0; client->reopening > 0 && i < MR_PARTITIONS_MAX; i++) {
        const struct link *link = client->links[i];
        if (link != NULL && link->stage == LINK_NONE && link->wanted && link->ask_at > 0 && link->ask_at < at)
            at = link->ask_at;
    }
    return at;
}

/* ---- The return ---- */

/* Nothing that was known of the directory is true of this one. */
static void meet_strangers(struct mr_client *client)
{
    client->strangers++;
    snprintf(
        client->stranger_text, sizeof(client->stranger_text),
        "the node at %.100s went away, and the one that is there now serves another data directory (or, in memory, "
        "has begun anew)",
        client->path);
    /* A session there may come to have the number of one of before. */
    for (struct service *service = client->services; service != NULL; service = service->next)
        service->session_id = 0;
    for (struct mr_stream *stream = client->streams; stream != NULL; stream = stream->next)
        stream->session_id = 0;
    for (uint32_t i = 0; i < MR_PARTITIONS_MAX; i++) {
        struct link *link = client->links[i];
        if (link == NULL)
            continue;
        if (link->session.id != 0)
            session_lost(&link->session, mr_text(client->stranger_text));
        carry_end_strangers(link);
        link->max_index = 0;
        if (link->stage == LINK_CLOSED)
            link->stage = LINK_NONE; /* what closed it was of the other directory */
        if (link->partition > client->partitions)
            link_close(link, "the node that is there now has no such partition");
    }
}

void reconnect_welcomed(struct mr_client *client, const Millrace__V1__Welcome *welcome)
{
    bool same = welcome->directory.len == sizeof(client->directory)
                    ? memcmp(welcome->directory.data, client->directory, sizeof(client->directory)) == 0
                    : welcome->directory.len == 0;

    same &= welcome->partitions == client->partitions;
    connection_take_welcome(client, welcome);
    client->away = false;
    client->moved++;
    if (!same)
        meet_strangers(client);
    connection_ask_wanted(client, now_ns());
}

void reconnect_refused(struct link *link)
{
    struct mr_client *client = link->client;
    uint64_t now = now_ns();

    if (now >= client->give_up_at) {
        char why[sizeof(link->why)];
        snprintf(why, sizeof(why), "the node came back, but gives no other: %.300s", client->message);
        link_close(link, why);
        return;
    }
    link->wanted = true;
    link->ask_at = now + PAUSE_AT_MOST;
}
