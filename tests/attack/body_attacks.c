/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks by what is asked: frames in order, with bodies that are noise, nearly right, right but not one's business,
 * rewritten while they are read, or simply too many. No rule of the channel is broken, so it stays. */
#include "tests/attack/attacker.h"

#include <stdlib.h>
#include <string.h>

#define FRAMES_MAX 12

/* ---- commands and queries, mostly right ---- */

/* One's own, or not; the honest client's sessions have small numbers. */
static uint64_t some_session(struct attacker *attacker)
{
    uint64_t chance = draw(attacker, 16);

    return chance == 0 ? draw(attacker, UINT64_MAX) : chance <= 2 ? draw(attacker, 64) : attacker->session;
}

static uint64_t some_service(struct attacker *attacker)
{
    uint64_t chance = draw(attacker, 16);

    return chance == 0  ? draw(attacker, UINT64_MAX)
           : chance < 3 ? draw(attacker, 64)
           : chance < 8 ? attacker->counter
                        : attacker->map;
}

static uint64_t some_number(struct attacker *attacker)
{
    uint64_t chance = draw(attacker, 32);

    return chance == 0   ? draw(attacker, UINT64_MAX)
           : chance <= 2 ? draw(attacker, attacker->sequence + 2)
           : chance == 3 ? ++attacker->sequence + draw(attacker, 1000)
                         : ++attacker->sequence;
}

static struct payload some_payload(struct attacker *attacker, bool small)
{
    uint8_t value[2000];
    char key[] = "key-0";
    struct duration ttl = {.nanos = 1000000, .present = true};
    size_t size = small ? draw(attacker, 40) : draw(attacker, sizeof(value));

    key[4] = (char)('0' + draw(attacker, 8));
    draw_bytes(attacker, value, size);
    switch (draw(attacker, 4)) {
    case 0:
        return number_payload(draw(attacker, 4) == 0 ? draw(attacker, UINT64_MAX) : 1);
    case 1:
        return key_payload(key, draw(attacker, 2) * draw(attacker, 1000));
    case 2:
        return events_payload(draw(attacker, 2) == 0 ? key : "", draw(attacker, 2) == 0);
    default:
        return write_payload(key, (struct slice){value, size}, draw(attacker, 4) == 0 ? &ttl : NULL, 0);
    }
}

static void make_service_command(struct attacker *attacker, bool small)
{
    static const char *const operations[] = {"Increment", "Decrement", "Set",   "CompareAndSet", "Put", "Update",
                                             "Insert",    "Remove",    "Clear", "Events",        "Get", "Fly"};
    struct payload payload = some_payload(attacker, small);

    request_command(&attacker->request, some_session(attacker), some_service(attacker), some_number(attacker),
                    operations[draw(attacker, 12)], payload_slice(&payload));
}

static void make_keep_alive(struct attacker *attacker)
{
    uint8_t filter[2 + 128 / 8];
    uint64_t numbers[3] = {attacker->sequence, attacker->sequence / 2, draw(attacker, 1000)};
    struct last_output last = {draw(attacker, attacker->sequence + 1), draw(attacker, 100)};

    request_keep_alive(&attacker->request, some_session(attacker),
                       make_filter(filter, 1 + (unsigned)draw(attacker, 16), 128, numbers, draw(attacker, 4)),
                       draw(attacker, 4) == 0 ? draw(attacker, UINT64_MAX) : attacker->sequence, &last,
                       draw(attacker, 2));
}

static void make_command(struct attacker *attacker, bool small)
{
    char name[] = "attacked 0";

    name[9] = (char)('0' + draw(attacker, 10));
    switch (draw(attacker, 24)) {
    case 0:
        request_open_session(&attacker->request,
                             (struct duration){.nanos = (int32_t)draw(attacker, 100000000), .present = true});
        return;
    case 1:
        request_close_session(&attacker->request, draw(attacker, 64));
        return;
    case 2:
        request_create_service(&attacker->request, some_session(attacker),
                               draw(attacker, 2) == 0 ? COUNTER_TYPE : MAP_TYPE, "", name);
        return;
    case 3:
        request_close_service(&attacker->request, some_session(attacker), draw(attacker, 64));
        return;
    case 4:
    case 5:
    case 6:
        make_keep_alive(attacker);
        return;
    default:
        make_service_command(attacker, small);
        return;
    }
}

static void make_query(struct attacker *attacker)
{
    static const char *const operations[] = {"Get", "Size", "Entries", "Put", ""};
    struct payload payload = some_payload(attacker, true);

    request_query(&attacker->request, some_session(attacker), some_service(attacker), operations[draw(attacker, 5)],
                  payload_slice(&payload));
}

/* Wrong here and there, cut off, or longer than it was. */
static void mutate(struct attacker *attacker)
{
    static const uint8_t telling[] = {0x00, 0x7f, 0x80, 0xff};
    struct request *request = &attacker->request;

    for (uint64_t times = draw(attacker, 4); times > 0 && request->size > 0; times--) {
        uint8_t *at = &request->bytes[draw(attacker, request->size)];
        *at = draw(attacker, 2) == 0 ? telling[draw(attacker, 4)] : (uint8_t)(*at ^ 1 << draw(attacker, 8));
    }
    if (draw(attacker, 4) == 0)
        request->size = draw(attacker, request->size + 1);
}

static uint64_t put(struct attacker *attacker, uint64_t at, enum frame_kind kind)
{
    return attacker_put_frame(attacker, at, kind, attacker->request.bytes, attacker->request.size);
}

static unsigned send_some(struct attacker *attacker, bool mutated, bool queries)
{
    attacker_need_session(attacker);
    uint64_t at = attacker->tail;
    for (uint64_t count = 1 + draw(attacker, FRAMES_MAX); count > 0; count--) {
        bool query = queries && draw(attacker, 2) == 0;
        if (query)
            make_query(attacker);
        else
            make_command(attacker, true);
        if (mutated)
            mutate(attacker);
        uint64_t bytes = put(attacker, at, query ? FRAME_QUERY : FRAME_COMMAND);
        if (draw(attacker, 2) == 0)
            attacker_ask_to_share(attacker, at);
        at += bytes;
    }
    attacker_publish(attacker, at);
    return STAYS;
}

static unsigned commands_of_all_kinds(struct attacker *attacker)
{
    return send_some(attacker, false, false);
}

static unsigned commands_nearly_right(struct attacker *attacker)
{
    return send_some(attacker, true, false);
}

static unsigned queries_nearly_right(struct attacker *attacker)
{
    return send_some(attacker, true, true);
}

static unsigned bodies_of_noise(struct attacker *attacker)
{
    uint8_t noise[512];
    uint64_t at = attacker->tail;

    for (uint64_t count = 1 + draw(attacker, FRAMES_MAX); count > 0; count--) {
        size_t size = draw(attacker, sizeof(noise));
        draw_bytes(attacker, noise, size);
        at += attacker_put_frame(attacker, at, draw(attacker, 2) == 0 ? FRAME_COMMAND : FRAME_QUERY, noise, size);
    }
    attacker_publish(attacker, at);
    return STAYS;
}

/* ---- bodies rewritten meanwhile ---- */

/* A command whose body is this, or that, or neither, from before it is published until it is answered. */
static unsigned body_rewritten(struct attacker *attacker)
{
    static uint8_t first[RING], second[RING];
    struct meddler *meddler = &attacker->meddler;
    struct request *request = &attacker->request;

    attacker_need_session(attacker);
    make_command(attacker, draw(attacker, 2) == 0);
    meddler->size = request->size;
    memcpy(first, request->bytes, request->size);
    uint64_t bytes = put(attacker, attacker->tail, FRAME_COMMAND);
    mutate(attacker);
    memcpy(second, first, meddler->size);
    memcpy(second, request->bytes, request->size);
    meddler->at = attacker_at_tail(attacker) + sizeof(struct request_head);
    meddler->first = first;
    meddler->second = second;
    meddler->random = attacker->random;
    meddler_start(meddler, MEDDLE_BYTES);
    attacker_publish(attacker, attacker->tail + bytes);
    (void)attacker_settled(attacker);
    meddler_stop(meddler);
    return STAYS;
}

/* ---- floods ---- */

/* As many as fit into the ring, again and again, until the node has said often enough that there is no room. */
static unsigned flood(struct attacker *attacker, enum frame_kind kind, unsigned times)
{
    uint64_t bytes = request_frame_bytes(attacker->request.size);

    for (unsigned i = 0; i < times; i++) {
        uint64_t at = attacker->tail;
        while (at + bytes <= attacker->tail + RING - 64)
            at += put(attacker, at, kind);
        attacker_publish(attacker, at);
        if (!attacker_settled(attacker))
            break;
    }
    return STAYS;
}

static unsigned flood_of_sessions(struct attacker *attacker)
{
    request_open_session(&attacker->request, (struct duration){.nanos = 200000000, .present = true});
    return flood(attacker, FRAME_COMMAND, 4);
}

/* Each with another number, so each is another stream, as many as the channel may have open. */
static unsigned flood_of_streams(struct attacker *attacker)
{
    struct payload payload = events_payload("", true);
    uint64_t at;

    attacker_need_session(attacker);
    at = attacker->tail;
    for (unsigned i = 0; i < 80; i++) {
        request_command(&attacker->request, attacker->session, attacker->map, ++attacker->sequence, "Events",
                        payload_slice(&payload));
        at += put(attacker, at, FRAME_COMMAND);
    }
    attacker_publish(attacker, at);
    return attacker_settled(attacker) ? LEAVE_CHANNEL : STAYS;
}

static unsigned flood_of_walks(struct attacker *attacker)
{
    attacker_need_session(attacker);
    request_query(&attacker->request, attacker->session, attacker->map, "Entries", (struct slice){0});
    return flood(attacker, FRAME_QUERY, 2);
}

/* They wait for an index that will not come soon, and for as long as they may. */
static unsigned flood_of_waiting_queries(struct attacker *attacker)
{
    struct partition_query_input input = {.partition_id = 1,
                                          .has_query = true,
                                          .max_received_index = UINT64_MAX,
                                          .query_members = 1,
                                          .session_query_members = 1,
                                          .session_id = attacker->session,
                                          .service_id = attacker->map,
                                          .operation = {.name = text("Size")}};
    uint8_t body[200];
    size_t size = partition_query_input_size(&input);
    uint64_t at = attacker->tail;

    (void)write_partition_query_input(body, &input);
    for (unsigned i = 0; i < 100; i++) {
        struct request_head head = {.size = (uint32_t)size, .kind = FRAME_QUERY, .time_limit = UINT64_MAX};
        uint64_t bytes = attacker_put_frame(attacker, at, FRAME_QUERY, body, size);
        memcpy(attacker->channel.request_data + (at & (RING - 1)), &head, sizeof(head));
        at += bytes;
    }
    attacker_publish(attacker, at);
    return attacker_settled(attacker) ? LEAVE_CHANNEL : STAYS;
}

const struct attack body_attacks[] = {{"bodies of noise", 90, bodies_of_noise},
                                      {"commands of all kinds", 60, commands_of_all_kinds},
                                      {"commands nearly right", 90, commands_nearly_right},
                                      {"queries nearly right", 60, queries_nearly_right},
                                      {"body rewritten", 40, body_rewritten},
                                      {"flood of sessions", 1, flood_of_sessions},
                                      {"flood of streams", 1, flood_of_streams},
                                      {"flood of walks", 1, flood_of_walks},
                                      {"flood of waiting queries", 1, flood_of_waiting_queries},
                                      {NULL, 0, NULL}};
