/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks on the words of a channel: cursors, lengths, flags, the page. Which of them break the rules, and how, is said
 * by ring.h and frame.h: what they return is read from there. */
#include "tests/attack/attacker.h"

#include <sched.h>
#include <string.h>

static void store_tail(struct attacker *attacker, uint64_t tail)
{
    atomic_store_explicit(&attacker->channel.page->request.tail, tail, memory_order_seq_cst);
}

static void store_head(struct attacker *attacker, uint64_t head)
{
    atomic_store_explicit(&attacker->channel.page->response.head, head, memory_order_seq_cst);
}

/* A cursor that is nowhere near any that the ring has. */
static uint64_t far_away(struct attacker *attacker)
{
    static const uint64_t places[] = {UINT64_MAX, UINT64_MAX - 7, UINT64_C(1) << 63, UINT64_C(1) << 62};

    return draw(attacker, 2) == 0 ? places[draw(attacker, 4)] - 8 * draw(attacker, 1000)
                                  : draw(attacker, UINT64_MAX) | UINT64_C(1) << 61;
}

/* ---- the request ring's tail ---- */

static unsigned tail_runs_backwards(struct attacker *attacker)
{
    store_tail(attacker, attacker->tail - 1 - draw(attacker, draw(attacker, 2) == 0 ? 64 : 4 * RING));
    return MUST_CLOSE | CLOSED_TAIL;
}

static unsigned tail_past_capacity(struct attacker *attacker)
{
    store_tail(attacker, attacker->tail + RING + 1 + draw(attacker, draw(attacker, 2) == 0 ? 64 : 4 * RING));
    return MUST_CLOSE | CLOSED_TAIL;
}

static unsigned tail_far_away(struct attacker *attacker)
{
    store_tail(attacker, far_away(attacker));
    return MUST_CLOSE | CLOSED_TAIL;
}

/* Less than a frame's head. */
static unsigned tail_too_near(struct attacker *attacker)
{
    store_tail(attacker, attacker->tail + 1 + draw(attacker, sizeof(struct request_head) - 1));
    return MUST_CLOSE | CLOSED_TAIL;
}

static unsigned tail_jumps_about(struct attacker *attacker)
{
    struct meddler *meddler = &attacker->meddler;
    struct ring_cursors *cursors = &attacker->channel.page->request;

    meddler->word = (_Atomic uint64_t *)&cursors->tail;
    meddler->a = attacker->tail;
    meddler->b = draw(attacker, 2) == 0 ? far_away(attacker) : attacker->tail - 8;
    meddler_start(meddler, MEDDLE_WORD);
    attacker_ring_bell(attacker);
    while (atomic_load(&meddler->turns) < 50)
        sched_yield();
    meddler_stop(meddler);
    store_tail(attacker, attacker->tail);
    return CLOSED_TAIL;
}

/* Everything that the ring can hold, at once: noise, nothing, or heads that look well. */
static unsigned ring_full_of_garbage(struct attacker *attacker)
{
    uint8_t *at = attacker_at_tail(attacker);
    uint64_t form = draw(attacker, 3);

    if (form == 0)
        draw_bytes(attacker, at, RING);
    else
        memset(at, 0, RING);
    for (uint64_t i = 0; form == 1 && i < RING; i += 8 + 8 * draw(attacker, 16)) {
        struct request_head head = {.size = (uint32_t)draw(attacker, 200),
                                    .kind = (uint8_t)draw(attacker, 4),
                                    .flags = (uint8_t)draw(attacker, 4),
                                    .time_limit = draw(attacker, UINT64_MAX)};
        memcpy(at + i, &head, sizeof(head));
    }
    attacker_publish(attacker, attacker->tail + RING);
    return CLOSED_TAIL | CLOSED_FRAME;
}

/* ---- lengths ---- */

/* A frame's head alone, of which `published` bytes can be seen. */
static void put_head(struct attacker *attacker, uint32_t size, uint8_t kind, uint64_t published)
{
    struct request_head head = {.size = size, .kind = kind, .time_limit = draw(attacker, 3)};

    memcpy(attacker_at_tail(attacker), &head, sizeof(head));
    attacker_publish(attacker, attacker->tail + published);
}

static unsigned length_beyond_all(struct attacker *attacker)
{
    static const uint32_t sizes[] = {UINT32_MAX, UINT32_MAX - 7, UINT32_MAX - 15, UINT32_C(1) << 31, RING, RING - 15};
    uint32_t size =
        draw(attacker, 2) == 0 ? sizes[draw(attacker, 6)] : RING + (uint32_t)draw(attacker, UINT32_MAX - RING);

    put_head(attacker, size, (uint8_t)(1 + draw(attacker, 2)), 16 + 8 * draw(attacker, (RING - 16) / 8));
    return MUST_CLOSE | CLOSED_FRAME;
}

static unsigned frame_cut(struct attacker *attacker)
{
    uint32_t size = 1 + (uint32_t)draw(attacker, draw(attacker, 2) == 0 ? 64 : RING - 16);
    uint64_t whole = request_frame_bytes(size);

    put_head(attacker, size, (uint8_t)draw(attacker, 4), 16 + draw(attacker, whole - 16));
    return MUST_CLOSE | CLOSED_FRAME;
}

static unsigned frames_without_body(struct attacker *attacker)
{
    for (uint64_t count = 1 + draw(attacker, 20); count > 0; count--)
        put_head(attacker, 0, (uint8_t)draw(attacker, 256), 16);
    return STAYS;
}

/* Over what the channel may ask, yet all of it is there: refused. */
static unsigned frame_too_large(struct attacker *attacker)
{
    uint32_t size = RING / 4 + 1 + (uint32_t)draw(attacker, RING - 16 - RING / 4);

    put_head(attacker, size, (uint8_t)draw(attacker, 4), request_frame_bytes(size));
    return STAYS;
}

/* The length changes while it is read: between one that is right and one that is not. */
static unsigned length_jumps_about(struct attacker *attacker)
{
    static const uint32_t wrong[] = {0, UINT32_MAX, UINT32_MAX - 15, RING, RING - 16, 1u << 31, 4000, 24};
    struct meddler *meddler = &attacker->meddler;
    struct request_head head = {.size = 48, .kind = (uint8_t)(1 + draw(attacker, 2))};
    struct request_head other = head;
    uint8_t body[48];

    draw_bytes(attacker, body, sizeof(body));
    other.size = wrong[draw(attacker, sizeof(wrong) / sizeof(wrong[0]))];
    (void)attacker_put_frame(attacker, attacker->tail, (enum frame_kind)head.kind, body, sizeof(body));
    meddler->word = (_Atomic uint64_t *)(void *)attacker_at_tail(attacker);
    memcpy(&meddler->a, &head, sizeof(meddler->a));
    memcpy(&meddler->b, &other, sizeof(meddler->b));
    meddler_start(meddler, MEDDLE_WORD);
    attacker_publish(attacker, attacker->tail + request_frame_bytes(sizeof(body)));
    bool open = attacker_settled(attacker);
    meddler_stop(meddler);
    return open ? STAYS : CLOSED_FRAME | CLOSED_TAIL;
}

/* ---- the response ring's head ---- */

/* More refusals than the ring has room for: to write them all the worker must look where its reader is. */
static void ask_much(struct attacker *attacker)
{
    for (unsigned i = 0; i < 400; i++)
        (void)attacker_put_frame(attacker, attacker->tail + i * 16, (enum frame_kind)9, NULL, 0);
    attacker_publish(attacker, attacker->tail + 400 * 16);
}

/* By more than a ring, so that it is never where the worker has come to meanwhile. */
static unsigned head_where_it_cannot_be(struct attacker *attacker)
{
    uint64_t distance = RING + 1 + draw(attacker, draw(attacker, 2) == 0 ? 64 : 4 * RING);

    store_head(attacker, draw(attacker, 3) == 0   ? far_away(attacker)
                         : draw(attacker, 2) == 0 ? attacker->answered + distance
                                                  : attacker->answered - distance);
    ask_much(attacker);
    return MUST_CLOSE | CLOSED_HEAD;
}

static unsigned head_a_little_off(struct attacker *attacker)
{
    store_head(attacker, attacker->answered + draw(attacker, 2 * RING) - RING);
    ask_much(attacker);
    return CLOSED_HEAD;
}

static unsigned head_jumps_about(struct attacker *attacker)
{
    struct meddler *meddler = &attacker->meddler;
    struct ring_cursors *cursors = &attacker->channel.page->response;

    meddler->word = (_Atomic uint64_t *)&cursors->head;
    meddler->a = attacker->answered;
    meddler->b = draw(attacker, 2) == 0 ? far_away(attacker) : attacker->answered + draw(attacker, 2 * RING) - RING;
    meddler_start(meddler, MEDDLE_WORD);
    ask_much(attacker);
    bool open = attacker_settled(attacker);
    meddler_stop(meddler);
    store_head(attacker, attacker->answered);
    return open ? STAYS : CLOSED_HEAD;
}

#define SHARING 20

/* Streams that share frames, and events for all of them: while the worker writes frames that grow, the head is where it
 * was before, or anywhere. */
static unsigned head_moves_under_shared_frames(struct attacker *attacker)
{
    struct meddler *meddler = &attacker->meddler;
    struct payload payload = events_payload("", draw(attacker, 2) == 0);
    struct payload value = write_payload("shared", text("an event"), NULL, 0);

    attacker_need_session(attacker);
    uint64_t at = attacker->tail, before = attacker->answered;
    for (unsigned i = 0; i < SHARING; i++) {
        request_command(&attacker->request, attacker->session, attacker->map, ++attacker->sequence, "Events",
                        payload_slice(&payload));
        uint64_t bytes =
            attacker_put_frame(attacker, at, FRAME_COMMAND, attacker->request.bytes, attacker->request.size);
        if (draw(attacker, 8) != 0)
            attacker_ask_to_share(attacker, at);
        at += bytes;
    }
    attacker_publish(attacker, at);
    if (!attacker_settled(attacker))
        return STAYS; /* which it is not: no rule has been broken yet */
    meddler->word = (_Atomic uint64_t *)&attacker->channel.page->response.head;
    meddler->a = attacker->answered;
    meddler->b = draw(attacker, 2) == 0 ? before : attacker->answered + draw(attacker, 2 * RING) - RING;
    meddler_start(meddler, MEDDLE_WORD);
    at = attacker->tail;
    for (uint64_t count = 1 + draw(attacker, 60); count > 0; count--) {
        request_command(&attacker->request, attacker->session, attacker->map, ++attacker->sequence, "Put",
                        payload_slice(&value));
        at += attacker_put_frame(attacker, at, FRAME_COMMAND, attacker->request.bytes, attacker->request.size);
    }
    attacker_publish(attacker, at);
    bool open = attacker_settled(attacker);
    meddler_stop(meddler);
    return open ? LEAVE_CHANNEL : CLOSED_HEAD;
}

/* ---- words that nobody believes ---- */

static unsigned page_overwritten(struct attacker *attacker)
{
    struct channel_page *page = attacker->channel.page;

    switch (draw(attacker, 6)) {
    case 0:
        draw_bytes(attacker, page, 40); /* magic, format, partition, number, size */
        break;
    case 1:
        atomic_store(&page->generation, (uint32_t)draw(attacker, UINT32_MAX));
        break;
    case 2:
        atomic_store(&page->state, (uint32_t)draw(attacker, 4));
        break;
    case 3:
        draw_bytes(attacker, page->why, sizeof(page->why));
        break;
    case 4:
        atomic_store(&page->begun_at, draw(attacker, UINT64_MAX));
        break;
    default: /* the rest of the page, which nothing stands in */
        draw_bytes(attacker, (uint8_t *)page + sizeof(*page), 4096 - sizeof(*page));
        break;
    }
    return STAYS;
}

/* Half the world away from any that the ring has, also from one just below 0: what stands there is garbage. */
static unsigned workers_cursors_overwritten(struct attacker *attacker)
{
    struct channel_page *page = attacker->channel.page;
    uint64_t garbage = (UINT64_C(1) << 62) + draw(attacker, UINT64_C(1) << 62);

    if (draw(attacker, 2) == 0)
        atomic_store(&page->request.head, garbage);
    else
        attacker->overwritten = atomic_exchange(&page->response.tail, garbage);
    return STAYS;
}

static unsigned flags_overwritten(struct attacker *attacker)
{
    struct channel_page *page = attacker->channel.page;

    atomic_store(&page->request.reader_sleeps, (uint32_t)draw(attacker, 2) * UINT32_MAX);
    atomic_store(&page->request.writer_sleeps, (uint32_t)draw(attacker, 3));
    atomic_store(&page->response.reader_sleeps, (uint32_t)draw(attacker, 3));
    atomic_store(&page->response.writer_sleeps, (uint32_t)draw(attacker, 2) * UINT32_MAX);
    return STAYS;
}

static unsigned flags_go_up_and_down(struct attacker *attacker)
{
    struct meddler *meddler = &attacker->meddler;
    struct channel_page *page = attacker->channel.page;

    meddler->flags[0] = &page->request.reader_sleeps;
    meddler->flags[1] = &page->request.writer_sleeps;
    meddler->flags[2] = &page->response.reader_sleeps;
    meddler->flags[3] = &page->response.writer_sleeps;
    meddler->random = attacker->random;
    meddler_start(meddler, MEDDLE_FLAGS);
    ask_much(attacker);
    (void)attacker_settled(attacker);
    meddler_stop(meddler);
    return STAYS;
}

const struct attack ring_attacks[] = {{"tail runs backwards", 30, tail_runs_backwards},
                                      {"tail past the capacity", 30, tail_past_capacity},
                                      {"tail far away", 20, tail_far_away},
                                      {"tail too near", 20, tail_too_near},
                                      {"tail jumps about", 10, tail_jumps_about},
                                      {"ring full of garbage", 20, ring_full_of_garbage},
                                      {"length beyond all", 30, length_beyond_all},
                                      {"frame cut", 30, frame_cut},
                                      {"frames without body", 60, frames_without_body},
                                      {"frame too large", 60, frame_too_large},
                                      {"length jumps about", 50, length_jumps_about},
                                      {"head where it cannot be", 15, head_where_it_cannot_be},
                                      {"head a little off", 15, head_a_little_off},
                                      {"head jumps about", 10, head_jumps_about},
                                      {"head moves under shared frames", 4, head_moves_under_shared_frames},
                                      {"page overwritten", 90, page_overwritten},
                                      {"worker's cursors overwritten", 60, workers_cursors_overwritten},
                                      {"flags overwritten", 60, flags_overwritten},
                                      {"flags go up and down", 10, flags_go_up_and_down},
                                      {NULL, 0, NULL}};
