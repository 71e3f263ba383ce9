/* SPDX-License-Identifier: Apache-2.0 */
/* An opener: sessions opened and closed by its own bytes. Neither command carries a number, so the library never sends
 * one again: it is the node alone that must not lose or double any over its workers' deaths. */
#include "tests/crash/client.h"

#include <inttypes.h>
#include <millrace/raw.h>
#include <string.h>

#include "proto/reader.h"
#include "tests/support/requests.h"
#include "tests/support/wait.h"

#define PARTITION 1 /* requests.h encodes no other */

static struct hand *me;
static unsigned in_flight;

/* An answer other than OK. */
static void refused(const struct mr_result *result, const char *what)
{
    if (result->status != MR_CANCELED && !hand_lost(me, result->status))
        history_fail(me->client, "%s: %s: %.*s", what, mr_status_name(result->status), (int)result->message.size,
                     (const char *)result->message.data);
}

static void opened(mr_client *handle, const struct mr_result *result)
{
    struct opened *opened = result->arg;
    struct command_output output;
    struct slice part;

    (void)handle;
    in_flight--;
    opened->deaths = me->history->node_lives - opened->node_lives;
    if (result->status != MR_OK)
        refused(result, "OpenSession");
    else if (read_partition_command_output(result->as.raw.data, (uint32_t)result->as.raw.size, &output, &part) !=
             READ_OK)
        history_fail(me->client, "OpenSession is answered with what cannot be read");
    else if (opened->generation == me->history->generation) /* else whichever life of the node opened it is not known */
        opened->session = output.id;
}

static void closed(mr_client *handle, const struct mr_result *result)
{
    struct opened *opened = result->arg;

    (void)handle;
    in_flight--;
    /* Sent again to the node's next life, it may find that it has been done. */
    bool again = result->status == MR_FORBIDDEN && opened->node_lives != me->history->node_lives;
    if (result->status != MR_OK && !again)
        refused(result, "CloseSession");
    else
        opened->close = CLOSE_DONE;
}

/* False: the handle is lost. */
static bool meet(int64_t wait_ns)
{
    enum mr_status status = mr_run(me->handle, wait_ns, NULL);

    if (status != MR_OK && status != MR_AGAIN && !hand_lost(me, status))
        history_fail(me->client, "mr_run: %s: %s", mr_status_name(status), mr_message(me->handle));
    return (status == MR_OK || status == MR_AGAIN) && !me->client->failed;
}

static bool send_request(const struct request *request, struct mr_then then)
{
    void *body = NULL;
    enum mr_status status;

    while ((status = mr_reserve(me->handle, PARTITION, MR_COMMAND, 0, request->size, &body)) == MR_AGAIN)
        if (!meet(MILLISECONDS(1)))
            return false;
    if (status == MR_OK) {
        memcpy(body, request->bytes, request->size);
        status = mr_commit(me->handle, request->size, then, NULL);
    }
    in_flight += status == MR_OK;
    if (status != MR_OK && !hand_lost(me, status))
        history_fail(me->client, "sending a request: %s: %s", mr_status_name(status), mr_message(me->handle));
    return status == MR_OK;
}

static bool open_one(struct request *request)
{
    struct client *client = me->client;
    uint32_t count = client->opened_count;

    client->opened[count] =
        (struct opened){.generation = me->history->generation, .node_lives = me->history->node_lives};
    client->opened_count = count + 1;
    request_open_session(request, (struct duration){.seconds = OPENER_TIMEOUT / SECONDS(1), .present = true});
    return send_request(request, (struct mr_then){.done = opened, .arg = &client->opened[count]});
}

/* One that is open, perhaps by an earlier life. Not where a node that has forgotten all may have given its id anew. */
static bool close_one(struct request *request)
{
    struct client *client = me->client;

    if (client->opened_count == 0 || (me->history->memory && me->history->restarts))
        return true;
    struct opened *victim = &client->opened[hand_draw(me, client->opened_count)];
    if (victim->session == 0 || victim->close != CLOSE_NOT_SENT)
        return true;
    victim->close = CLOSE_SENT;
    victim->node_lives = me->history->node_lives;
    request_close_session(request, victim->session);
    return send_request(request, (struct mr_then){.done = closed, .arg = victim});
}

static bool is_due(void)
{
    const struct history *history = me->history;
    uint64_t passed = wait_now_ms() - history->begun_ms;
    uint32_t most = me->part->records < OPENED_MAX ? me->part->records : OPENED_MAX;

    return me->client->opened_count < most && me->client->opened_count <= passed * most / history->milliseconds;
}

/* False: the handle is lost. */
static bool work(void)
{
    struct request request = {0};
    bool well = true;

    while (well && !me->history->stop) {
        while (well && in_flight < me->part->window && is_due())
            well = hand_draw(me, 3) == 0 ? close_one(&request) : open_one(&request);
        well = well && meet(in_flight > 0 ? MILLISECONDS(1) : MR_NO_WAIT);
        if (in_flight == 0 && !is_due())
            wait_pause();
    }
    snprintf(me->client->doing, sizeof(me->client->doing), "meeting its last answers");
    while (well && in_flight > 0)
        well = meet(SECONDS(1));
    request_free(&request);
    return well;
}

int opener_live(struct hand *hand)
{
    struct client *client = hand->client;
    bool well = false;

    me = hand;
    while (!well) {
        in_flight = 0;
        if (!hand_connect(hand, false, false))
            return 1;
        snprintf(client->doing, sizeof(client->doing), "opening sessions");
        /* A handle without a session of its own does not notice that the node it first spoke to is another now. */
        well = work();
        if (client->failed)
            return 1;
        hand_close(hand, false);
    }
    client->done = true;
    return 0;
}
