/* SPDX-License-Identifier: Apache-2.0 */
/* The channel to one partition, from the client's end.
 *
 * The happy path: link_begin() finds room in the request ring, the caller encodes the body there, link_commit() writes
 * the frame's head and notes which request stands at which position; link_flush() publishes. link_run() takes response
 * frames one by one, finds the request by its position (mostly the one behind the last), and gives the result on.
 *
 * When a worker dies, its successor raises `generation`. Requests at or past the ring's head are read by it as if
 * nothing had happened. Those before it were taken by the dead one: commands among them are applied, or will be, but
 * their answers may be lost, and queries were lost with it. So the link sends again every query among them and every
 * numbered command, of the latter only the number. (The node answers commands without a number itself: it knows where
 * they came from.) Some of these requests then have two positions, and may be answered at both: what has been given
 * already is dropped by the output's number, and with the last frame the request is gone.
 *
 * There may be no room for sending again. So it is a walk over the sendings that goes on in later runs, and nothing
 * new is sent before it is through.
 *
 * When the node itself ends, the channel is gone; carry.c takes what is unanswered into the next one.
 *
 * Failure modes: the node closes the channel (page->state), or something stands in a ring that cannot be. Either way
 * all requests of the link end with MR_UNAVAILABLE and the reason; other links go on. */
#include "ipc/client/link.h"

#include "ipc/client/answer.h"
#include "ipc/client/carry.h"
#include "ipc/client/connection.h"
#include "ipc/client/keep_alive.h"
#include "ipc/client/reconnect.h"
#include "ipc/client/request.h"
#include "ipc/client/sending.h"
#include "ipc/client/session.h"
#include "ipc/client/stream.h"
#include "ipc/client/wait.h"
#include "ipc/sys.h"
#include "proto/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define FRAMES_A_RUN 4096                 /* so that no link keeps the others waiting */
#define RETRY_AFTER (10 * MR_MILLISECOND) /* a repeat that the node could not take just now */
#define CLOSED_FOR_GOOD_AFTER (100 * MR_MILLISECOND)

void link_attach(struct link *link)
{
    struct channel_page *page = link->channel.page;

    ring_writer_attach(&link->requests, link->channel.request_data, link->channel.ring_bytes, &page->request, 0, 0);
    ring_reader_attach(&link->responses, link->channel.response_data, link->channel.ring_bytes, &page->response, 0, 0);
    link->size_max = link->channel.ring_bytes / 4;
    if (link->size_max > link->client->max_payload)
        link->size_max = link->client->max_payload;
    link->generation = atomic_load_explicit(&page->generation, memory_order_acquire);
    memset(link->takers, 0, sizeof(link->takers));
    link->retry_at = NEVER;
    link->close_at = NEVER;
    link->pause = false;
}

void link_free(struct link *link)
{
    channel_unmap(&link->channel);
    session_free(&link->session);
    free(link->sendings);
    free(link->carried);
    free(link);
}

static void wake_worker(struct link *link)
{
    uint64_t one = 1;
    /* EAGAIN: the count is full, so the worker is being woken already. Nothing else can be wrong with an eventfd. */
    (void)!sys_write(link->channel.node_wake_fd, &one, sizeof(one));
}

void link_close(struct link *link, const char *why)
{
    struct mr_client *client = link->client;

    snprintf(link->why, sizeof(link->why), "partition %" PRIu32 ": the channel is closed: %s", link->partition, why);
    link->stage = LINK_CLOSED;
    link->wanted = false;
    link_reopens(link, false);
    for (uint32_t i = 0; i < client->open_count; i++)
        if (client->open[i] == link)
            client->open[i] = client->open[--client->open_count];
    requests_end_all(client, link, MR_UNAVAILABLE);
}

void link_reopens(struct link *link, bool reopening)
{
    if (link->reopening == reopening)
        return;
    link->reopening = reopening;
    link->client->reopening += reopening ? 1 : UINT32_MAX;
    link->client->moved++; /* whoever waits for it is to look */
}

static void broken(struct link *link)
{
    link_close(link, "what stands in its rings cannot be; connect anew, and report it");
}

/* ---- Sending ---- */

static void send_first(struct link *link);

static bool again_is_open(const struct link *link)
{
    return link->again_next < link->again_end;
}

/* Room in the ring and among the sendings, whoever wants it. */
static inline enum mr_status find_room(struct link *link, size_t size, uint8_t **body)
{
    uint8_t *frame;

    if (sending_is_full(link) && sending_make_room(link) != MR_OK)
        return MR_NO_MEMORY;
    switch (ring_reserve(&link->requests, request_frame_bytes(size), &frame)) {
    case RING_OK:
        *body = frame + sizeof(struct request_head);
        return MR_OK;
    case RING_FULL:
        return client_fail_with(link->client, MR_AGAIN, "no room in the request ring: mr_run(), then again");
    default:
        broken(link);
        return client_fail_with(link->client, MR_UNAVAILABLE, link->why);
    }
}

static enum mr_status refuse(struct link *link, size_t size)
{
    struct mr_client *client = link->client;

    if (client->gone)
        return client_fail_with(client, MR_NO_NODE, client->gone_text);
    if (link->stage == LINK_CLOSED)
        return client_fail_with(client, MR_UNAVAILABLE, link->why);
    if (size > client->max_payload)
        return client_fail(client, MR_INVALID,
                           "a request of %zu bytes; the node takes at most %" PRIu64 " (--max-payload)", size,
                           client->max_payload);
    if (link->channel.page != NULL && size > link->channel.ring_bytes / 4)
        return client_fail(client, MR_INVALID,
                           "a request of %zu bytes; a ring of %" PRIu64 " takes at most a quarter of that", size,
                           link->channel.ring_bytes);
    return client_fail_with(client, MR_AGAIN, "the node is away: mr_run(), then again");
}

enum mr_status link_begin(struct link *link, size_t size, uint8_t **body)
{
    struct mr_client *client = link->client;

    if (client->gone || link->stage != LINK_OPEN || size > link->size_max)
        return refuse(link, size);
    if (link_is_stuck(link)) {
        send_first(link);
        if (link->stage != LINK_OPEN)
            return refuse(link, size);
        if (link_is_stuck(link))
            return client_fail_with(client, MR_AGAIN, "no room: what is sent again goes first; mr_run(), then again");
    }
    return find_room(link, size, body);
}

/* The frame's head before the body, which stands at the tail already. */
static inline void put_frame(struct link *link, struct request *request, size_t size)
{
    uint64_t bytes = request_frame_bytes(size);
    uint8_t *frame = link->requests.data + (link->requests.tail & (link->requests.capacity - 1));

    /* In place: made aside of pieces and then copied as one, it would have to wait for the pieces to be in memory. */
    *(struct request_head *)frame = (struct request_head){.size = (uint32_t)size,
                                                          .kind = request->kind,
                                                          .flags = request->streams ? REQUEST_SHARES : 0,
                                                          .time_limit = request->time_limit};
    request->position = link->requests.tail;
    request->size = (uint32_t)size;
    ring_advance(&link->requests, bytes);
    sending_add(link, request);
}

void link_commit(struct link *link, struct request *request, size_t size)
{
    request->link = link;
    if (request->outstanding)
        link->client->requests.outstanding++;
    if (request->service != NULL)
        request->service->outstanding++;
    put_frame(link, request, size);
}

void link_flush(struct link *link)
{
    if (ring_publish(&link->requests))
        wake_worker(link);
}

/* ---- Sending again ---- */

/* Of a numbered command the number is enough: what it does stands in the log. */
static enum mr_status repeat_command(struct link *link, struct request *request)
{
    struct partition_command_input input = {.partition_id = link->partition, .has_command = true};
    uint8_t *body = NULL;

    input.command.kind = COMMAND_SESSION_COMMAND;
    input.command.session_kind = SESSION_COMMAND_SERVICE_COMMAND;
    input.command.session_id = request->session_id;
    input.command.service_id = request->service_id;
    input.command.sequence_num = request->sequence_num;
    size_t size = partition_command_input_size(&input, NULL, 0);
    enum mr_status status = find_room(link, size, &body);
    if (status != MR_OK)
        return status;
    write_partition_command_input(body, &input, NULL, 0);
    put_frame(link, request, size);
    return MR_OK;
}

static enum mr_status repeat_copy(struct link *link, struct request *request)
{
    uint8_t *body = NULL;
    enum mr_status status = find_room(link, request->size, &body);

    if (status != MR_OK)
        return status;
    if (request->size > 0)
        memcpy(body, request->copy, request->size);
    put_frame(link, request, request->size);
    return MR_OK;
}

enum mr_status link_repeat(struct link *link, struct request *request)
{
    return request->copied ? repeat_copy(link, request) : repeat_command(link, request);
}

/* The session's own count of what has been answered. */
static void count_answer(struct link *link, const struct request *request, uint64_t bytes)
{
    if (request->service != NULL && request->sequence_num != 0 && request->service->session_id == link->session.id)
        session_answered(&link->session, request->sequence_num, bytes);
}

/* Of a stream the first frame is an answer; what follows is kept by name. */
static void count_stream(struct link *link, struct request *request)
{
    if (request->counted || request->sequence_num == 0 || request->session_id != link->session.id)
        return;
    request->counted = true;
    session_answered(&link->session, request->sequence_num, 0);
}

void link_give_up(struct link *link, struct request *request)
{
    if (request->streams)
        count_stream(link, request);
    else
        count_answer(link, request, 0);
    if (request->state == REQUEST_ENDING)
        request->answered = true;
    else
        request_free(link->client, request);
}

static bool must_be_sent_again(const struct link *link, const struct sending *sending, const struct request *request)
{
    if (request == NULL || request->position != sending->position || request->answered)
        return false;
    return request->send_later ||
           (sending->position < link->again_head && (request->kind == FRAME_QUERY || request->sequence_num != 0));
}

static void send_again(struct link *link)
{
    if (link->again_next < link->first)
        link->again_next = link->first;
    while (again_is_open(link)) {
        struct sending *sending = sending_at(link, link->again_next);
        struct request *request = sending_request(link, sending);
        if (must_be_sent_again(link, sending, request)) {
            if (request->state != REQUEST_OPEN || !link_may_repeat(request))
                link_give_up(link, request); /* applied, and nobody waits for it: no need to ask for its answer */
            else if (link_repeat(link, request) != MR_OK)
                return; /* no room now; or the link is closed */
            else if (request->streams)
                stream_sent_again(request);
            request->sent_again = true;
            request->send_later = false;
        }
        link->again_next++;
    }
    link->again_head = 0;
}

bool link_may_repeat(struct request *request)
{
    if (request->streams)
        return stream_sends_again(request);
    if (request->kind == FRAME_COMMAND || request->output == 0)
        return true;
    request_end_soon(request->link->client, request, MR_UNAVAILABLE);
    return false;
}

/* What comes before anything new. */
static void send_first(struct link *link)
{
    if (carry_is_left(link))
        carry_send(link);
    if (again_is_open(link) && link->stage == LINK_OPEN && !carry_is_left(link))
        send_again(link);
}

static void begin_walk(struct link *link)
{
    link->again_next = link->first;
    link->again_end = link->end;
}

static void new_worker(struct link *link, uint32_t generation)
{
    link->generation = generation;
    /* Read behind the generation, so not older than it: what stands before was taken by a worker that is dead. Not the
     * ring's head, which may have moved since: what the new worker has taken itself is in its hands. */
    link->again_head = atomic_load_explicit(&link->channel.page->begun_at, memory_order_acquire);
    begin_walk(link);
}

bool link_is_stuck(const struct link *link)
{
    return again_is_open(link) || carry_is_left(link);
}

/* ---- Meeting answers ---- */

/* A repeat that the node cannot take just now says nothing about the first sending, which was applied. */
static bool must_be_retried(const struct request *request, const struct response_head *head)
{
    return request->sent_again && request->kind == FRAME_COMMAND && head->number == 0 &&
           head->status == STATUS_UNAVAILABLE && (head->flags & FRAME_LAST) != 0;
}

/* Is there nothing new in the frame? */
static bool is_seen(struct request *request, const struct response_head *head)
{
    if (head->number == 0) /* an earlier sending that ended without an answer: the later one will have it */
        return request->kind == FRAME_COMMAND && head->request != request->position;
    if (head->number <= request->output)
        return (head->flags & FRAME_LAST) == 0;
    request->output = head->number;
    return false;
}

static void retry_later(struct link *link, struct request *request)
{
    request->send_later = true;
    if (link->retry_at == NEVER)
        link->retry_at = sys_clock_ns(CLOCK_MONOTONIC) + RETRY_AFTER;
}

/* It has had its last frame. */
static void end_request(struct link *link, struct request *request)
{
    if (request->state == REQUEST_ENDING) {
        request->answered = true; /* its place is still in the list of ends due */
    } else {
        request_free(link->client, request);
        sending_is_over(link);
    }
}

/* A frame of a request with many. What an earlier sending of it still brings is of use as long as it is the next one;
 * its end is not, for the later sending has everything. A query's sendings have nothing to do with each other. */
static void meet_stream(struct link *link, struct request *request, const struct response_head *head,
                        const uint8_t *body, struct stream_body **shared)
{
    if (head->request != request->position && (head->number == 0 || request->kind == FRAME_QUERY))
        return;
    if (must_be_retried(request, head)) {
        retry_later(link, request);
        return;
    }
    count_stream(link, request);
    if (head->status == STATUS_FORBIDDEN && (request->kind == FRAME_QUERY || request->session_id == link->session.id))
        session_lost(&link->session, (struct mr_bytes){body, head->size});
    if (stream_meet(request, head, body, shared))
        end_request(link, request);
}

static void meet_forbidden(struct link *link, const struct request *request, struct mr_result *result)
{
    if (request->service != NULL) {
        result->status = MR_SESSION_LOST;
        if (request->service->session_id == link->session.id)
            session_lost(&link->session, result->message);
    } else if (request->answer == ANSWER_CLOSED && request->sent_again) {
        /* What has been sent again may have been done the first time. */
        *result = (struct mr_result){.last = result->last, .request = result->request, .arg = result->arg};
    }
}

static void meet(struct link *link, struct request *request, const struct response_head *head, const uint8_t *body)
{
    struct mr_client *client = link->client;
    bool last = (head->flags & FRAME_LAST) != 0;
    bool wanted = request->state == REQUEST_OPEN;
    bool counted = request->outstanding;
    struct mr_then then = request->then;
    struct mr_result result;

    if (is_seen(request, head))
        return;
    if (must_be_retried(request, head)) {
        retry_later(link, request);
        return;
    }
    /* Field by field: of zeroing the whole gcc makes a `rep stos`, which takes longer than all the rest. */
    result.last = last;
    result.request = request->id;
    result.arg = then.arg;
    answer_read((enum answer_kind)request->answer, (enum frame_kind)request->kind, head, body, &result);
    if (result.index > link->max_index)
        link->max_index = result.index;
    if (head->status == STATUS_FORBIDDEN)
        meet_forbidden(link, request, &result);
    if (last) {
        count_answer(link, request, head->size);
        end_request(link, request);
    }
    client->met += wanted && counted;
    if (wanted)
        client_give(client, then, &result, link, response_frame_bytes(head->size));
}

/* The others that share a stream's frame, which has none that are not streams'. */
static void meet_others(struct link *link, const struct response_head *first, const uint8_t *frame,
                        struct stream_body **shared)
{
    struct response_head head = {.size = first->size, .status = first->status};
    struct response_other others[FRAME_OTHERS_MAX];

    ring_copy(others, frame + response_frame_bytes(first->size), first->others * sizeof(others[0]));
    for (unsigned i = 0; i < first->others; i++) {
        struct request *request = sending_find_taker(link, i + 1, others[i].request);
        if (request == NULL || !request->streams || others[i].number == 0)
            continue;
        count_stream(link, request);
        if (*shared != NULL && stream_take_next(request, others[i].number, *shared))
            continue;
        head.request = others[i].request;
        head.number = others[i].number;
        if (stream_meet(request, &head, frame + sizeof(head), shared))
            end_request(link, request);
    }
}

/* The next frame; false: there is none, or it has to wait, or the link is closed. */
static bool meet_next(struct link *link)
{
    struct ring_reader *ring = &link->responses;
    struct response_head head;
    uint64_t bytes = 0;
    const uint8_t *at;
    enum ring_result found = ring_peek(ring, sizeof(head), &at);

    if (found == RING_EMPTY)
        return false;
    if (found == RING_OK) {
        ring_copy(&head, at, sizeof(head));
        bytes = response_whole_bytes(&head);
        bool can_be = bytes <= ring->capacity &&
                      (head.others == 0 || (head.others <= FRAME_OTHERS_MAX && !(head.flags & FRAME_LAST)));
        found = can_be ? ring_peek(ring, bytes, &at) : RING_BROKEN;
    }
    if (found != RING_OK) {
        broken(link);
        return false;
    }
    struct request *request =
        head.others > 0 ? sending_find_taker(link, 0, head.request) : sending_find(link, head.request);
    if (request != NULL && request->then.done == NULL && !client_may_keep(link->client, link))
        return false;
    ring_skip(ring, bytes);
    link->client->moved++;
    struct stream_body *shared = NULL;
    if (request != NULL && request->streams)
        meet_stream(link, request, &head, at + sizeof(head), &shared);
    else if (request != NULL)
        meet(link, request, &head, at + sizeof(head));
    if (head.others > 0)
        meet_others(link, &head, at, &shared);
    return link->stage == LINK_OPEN;
}

static void tell_room(struct link *link)
{
    if (ring_release_wakes(&link->responses))
        wake_worker(link);
}

void link_release(struct link *link)
{
    struct ring_reader *ring = &link->responses;

    if (link->stage != LINK_OPEN || link->held > 0 || ring->released == ring->head)
        return;
    ring_release(ring, ring->head);
    tell_room(link);
}

void link_release_to(struct link *link, uint64_t position)
{
    if (link->stage != LINK_OPEN)
        return;
    ring_release(&link->responses, position);
    tell_room(link);
}

/* The page says that the node has closed the channel: alone, which a ChannelClosed says, or because the node itself
 * ends, which the end of the socket says; that may be a while, for one partition may end long before another. */
static void meet_end(struct link *link)
{
    struct channel_page *page = link->channel.page;
    char why[sizeof(page->why)];

    connection_read(link->client);
    if (link->stage != LINK_OPEN)
        return;
    uint64_t now = sys_clock_ns(CLOCK_MONOTONIC);
    if (link->close_at == NEVER)
        link->close_at = reconnect_limit(link->client, now + CLOSED_FOR_GOOD_AFTER);
    if (now < link->close_at)
        return;
    memcpy(why, page->why, sizeof(why));
    why[sizeof(why) - 1] = '\0';
    link_close(link, why[0] != '\0' ? why : "the node gave no reason");
}

static bool is_closed(const struct link *link)
{
    return atomic_load_explicit(&link->channel.page->state, memory_order_acquire) == CHANNEL_CLOSED;
}

bool link_has_news(const struct link *link)
{
    const struct channel_page *page = link->channel.page;
    return atomic_load_explicit(&page->generation, memory_order_acquire) != link->generation ||
           (link->close_at == NEVER && is_closed(link));
}

void link_run(struct link *link)
{
    uint32_t generation = atomic_load_explicit(&link->channel.page->generation, memory_order_acquire);
    bool closed = is_closed(link);
    unsigned left = FRAMES_A_RUN;

    link->pause = false;
    while (left > 0 && meet_next(link)) {
        left = link->pause ? 0 : left - 1;
        if (link->responses.head - link->responses.released > link->responses.capacity / 8)
            link_release(link);
    }
    if (left < FRAMES_A_RUN)
        sending_forget_old(link);
    /* What the old worker wrote is met before anything is sent again for its sake, and all before a channel's end. */
    if (left > 0 && link->stage == LINK_OPEN && generation != link->generation)
        new_worker(link, generation);
    if (left > 0 && link->stage == LINK_OPEN && closed)
        meet_end(link);
    if (link->stage != LINK_OPEN)
        return;
    if (link->retry_at != NEVER && link->retry_at <= sys_clock_ns(CLOCK_MONOTONIC)) {
        link->retry_at = NEVER;
        begin_walk(link);
    }
    if (link_is_stuck(link))
        send_first(link);
    if (link->stage != LINK_OPEN)
        return;
    keep_alive_run(link);
    link_flush(link);
    link_release(link);
}
