/* SPDX-License-Identifier: Apache-2.0 */
/* A worker with one honest client and up to two hostile ones, which do to their channels what the input says: frames
 * well-formed and not, bytes anywhere, cursors and flags of both rings set to anything, the page overwritten, wake-ups
 * sent, drained and left out; channels closed and opened again; workers that die and are followed by others. Nothing
 * may assert, and the honest client's counter goes up by just one for each of its commands.
 *
 * All of it happens in one thread, between two looks of the worker's; what changes under its eyes is `make attack`'s.
 * Planted fault: every command is applied as the honest client's user's. */
#include "ipc/error.h"
#include "proto/reader.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/requests.h"
#include "tests/support/worker_harness.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPERATIONS = 100, RING = 16384, HOSTILE = 2, HONEST_USER = 1000, HOSTILE_USER = 2000, TURNS = 20000 };

struct run {
    struct fuzz_input input;
    struct harness *harness;
    struct harness_client *honest;
    struct request request;
    uint64_t session, counter, number;
    bool full; /* the log in memory has no more room: what follows is refused */
};

static struct run run;

void __real_fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink);
void __wrap_fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink);

void __wrap_fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink)
{
    struct fsm_entry as_honest = *entry;
    as_honest.uid = HONEST_USER;
    __real_fsm_apply(fsm, fuzz_planted() ? &as_honest : entry, sink);
}

/* ---- the honest client ---- */

static void turn(void)
{
    struct io *io = run.harness->io;
    if (!turn_run(&run.harness->worker))
        io->ops->sleep(io, MR_MILLISECOND);
}

/* Waits for the answer at this position. False: the log is full. */
static bool answer(uint64_t position, struct command_output *output, struct slice *part, struct harness_frame *frame)
{
    for (unsigned turns = 0;;) {
        FUZZ_CHECK(!run.honest->closed);
        if (!harness_take(run.honest, frame)) {
            FUZZ_CHECK(turns++ < TURNS);
            turn();
            continue;
        }
        /* After a worker's death an answer may come twice; a client drops what it has had. */
        if (frame->head.request < position)
            continue;
        FUZZ_CHECK(frame->head.request == position && (frame->head.flags & FRAME_LAST) != 0);
        if (frame->head.status == STATUS_UNAVAILABLE && run.harness->durability == DURABILITY_MEMORY)
            return false;
        FUZZ_CHECK(frame->head.status == STATUS_OK);
        FUZZ_CHECK(read_partition_command_output(frame->body, frame->head.size, output, part) == READ_OK);
        return true;
    }
}

static uint64_t send_request(void)
{
    uint64_t position = harness_send(run.honest, FRAME_COMMAND, run.request.bytes, run.request.size, 0);
    FUZZ_CHECK(position != UINT64_MAX);
    return position;
}

static uint64_t answered_id(void)
{
    struct harness_frame frame;
    struct command_output output;
    struct slice part;
    FUZZ_CHECK(answer(send_request(), &output, &part, &frame));
    return output.id;
}

static void honest_begins(void)
{
    /* Longer than any bytes of the input's, so that nobody else opens this counter. */
    char name[300];
    memset(name, 'h', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    run.honest = harness_client(run.harness, 0, HONEST_USER, RING);
    request_open_session(&run.request, (struct duration){.seconds = 24 * 3600, .present = true});
    run.session = answered_id();
    request_create_service(&run.request, run.session, COUNTER_TYPE, "", name);
    run.counter = answered_id();
}

/* The next worker is there. (The harness maps channels anew, and so needs what says whose they are, which a real
 * successor does not look at: it has its supervisor's mapping.) */
static void die_and_return(void)
{
    harness_kill(run.harness);
    for (uint32_t slot = 1; slot <= HOSTILE; slot++) {
        const struct channel *channel = &run.harness->clients[slot].channel;
        struct channel_page *page = channel->page;
        if (page == NULL)
            continue;
        page->magic = CHANNEL_MAGIC;
        page->format = CHANNEL_FORMAT;
        page->partition = channel->partition;
        page->channel_id = channel->channel_id;
        page->ring_bytes = channel->ring_bytes;
    }
    FUZZ_CHECK(harness_start(run.harness) == 0);
}

/* Sends a command; the worker dies `deaths` times before the answer is taken. */
static void honest_counts(unsigned deaths)
{
    struct harness_frame frame;
    struct command_output output;
    struct slice part;
    struct payload payload = number_payload(1);
    request_command(&run.request, run.session, run.counter, ++run.number, "Increment", payload_slice(&payload));
    uint64_t position = send_request();
    for (unsigned i = 0; i < deaths; i++) {
        for (unsigned turns = fuzz_byte(&run.input) % 8; turns > 0; turns--)
            turn();
        die_and_return();
    }
    if (!answer(position, &output, &part, &frame)) {
        run.full = true;
        return;
    }
    struct field_reader reader = field_reader(part);
    FUZZ_CHECK(output.operation.status == STATUS_OK);
    FUZZ_CHECK(field_next(&reader) && reader.tag == FIELD(1, WIRE_VARINT) && reader.value == run.number);
}

/* ---- the hostile ones ---- */

static void begin(uint32_t slot)
{
    struct harness_client *client = &run.harness->clients[slot];
    if (client->channel.page != NULL) {
        close(client->channel.client_wake_fd);
        channel_unmap(&client->channel);
    }
    client->closed = false;
    harness_client(run.harness, slot, HOSTILE_USER, RING);
}

/* Anything that a cursor could be set to: near where it is, near where the other is, or far away. */
static uint64_t pick_cursor(const struct ring_cursors *cursors)
{
    uint8_t form = fuzz_byte(&run.input);
    uint64_t tail = atomic_load_explicit(&cursors->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&cursors->head, memory_order_relaxed);
    switch (form % 6) {
    case 0:
        return tail + form / 6 * UINT64_C(8);
    case 1:
        return head + form / 6 * UINT64_C(8);
    case 2:
        return head + RING + form / 6 - 20;
    case 3:
        return tail - form;
    case 4:
        return tail + fuzz_number(&run.input);
    default:
        return fuzz_number(&run.input);
    }
}

static void wake(const struct harness_client *client)
{
    fake_io_trigger(run.harness->io, run.harness->worker.channels[client->slot].channel.node_wake_fd);
}

/* A frame at the tail, its head right or not; published or left as it is. */
static void frame(struct harness_client *client, const void *body, size_t size, uint8_t form)
{
    struct ring_cursors *cursors = &client->channel.page->request;
    uint64_t tail = atomic_load_explicit(&cursors->tail, memory_order_relaxed);
    uint8_t *at = client->channel.request_data + (tail & (RING - 1));
    struct request_head head = {.size = (uint32_t)size, .kind = form % 4 == 0 ? FRAME_QUERY : FRAME_COMMAND};
    if (form % 16 == 1)
        head.size = (uint32_t)fuzz_number(&run.input);
    if (form % 16 == 2)
        head.kind = fuzz_byte(&run.input);
    if (form % 16 == 3)
        head.time_limit = fuzz_number(&run.input);
    if (form % 16 == 4)
        head.flags = fuzz_byte(&run.input);
    memcpy(at, &head, sizeof(head));
    if (size > 0)
        memcpy(at + sizeof(head), body, size);
    if (form < 240)
        atomic_store_explicit(&cursors->tail, tail + request_frame_bytes(size), memory_order_release);
    if (form < 200)
        wake(client);
}

/* Of a session or service: mostly one that may be there. */
static uint64_t pick_id(void)
{
    uint8_t byte = fuzz_byte(&run.input);
    return byte < 160 ? byte % 4 : byte < 240 ? byte % 64 : fuzz_number(&run.input);
}

static void good_frame(struct harness_client *client, uint8_t form)
{
    uint64_t session = pick_id(), service;
    uint8_t which = fuzz_byte(&run.input);
    struct slice bytes = fuzz_bytes(&run.input);
    struct request *request = &run.request;
    char name[2] = {(char)('a' + which % 8), '\0'};
    switch (which / 8 % 6) {
    case 0:
        request_open_session(request, (struct duration){.seconds = 1 + (int64_t)(session % 100), .present = true});
        break;
    case 1:
        request_create_service(request, session, which >= 128 ? MAP_TYPE : COUNTER_TYPE, "", name);
        break;
    case 2:
        request_query(request, session, pick_id(), which >= 128 ? "Entries" : "Get", bytes);
        form = (uint8_t)(form & ~3U);
        break;
    case 3:
        request_keep_alive(request, session, bytes, fuzz_number(&run.input), NULL, 0);
        break;
    case 4:
        request_close_session(request, session);
        break;
    default:
        service = pick_id();
        request_command(request, session, service, fuzz_byte(&run.input) % 16,
                        which >= 192   ? "Events"
                        : which >= 128 ? "Put"
                                       : "Increment",
                        bytes);
    }
    frame(client, request->bytes, request->size, form);
}

/* Bytes over anything that the client has mapped. */
static void scribble(struct harness_client *client, uint8_t form)
{
    uint64_t at = fuzz_number(&run.input);
    struct slice bytes = fuzz_bytes(&run.input);
    uint8_t *to = form % 3 == 0 ? client->channel.request_data : client->channel.response_data;
    size_t room = 2 * RING;
    if (form % 3 == 2) {
        to = (uint8_t *)client->channel.page;
        room = sizeof(*client->channel.page);
    }
    at %= room;
    if (bytes.size > 0)
        memcpy(to + at, bytes.data, bytes.size < room - at ? bytes.size : room - at);
}

static void set_word(struct harness_client *client, uint8_t form)
{
    struct channel_page *page = client->channel.page;
    struct ring_cursors *request = &page->request, *response = &page->response;
    switch (form % 8) {
    case 0:
        atomic_store_explicit(&request->tail, pick_cursor(request), memory_order_seq_cst);
        break;
    case 1:
        atomic_store_explicit(&request->head, pick_cursor(request), memory_order_seq_cst);
        break;
    case 2:
        atomic_store_explicit(&response->head, pick_cursor(response), memory_order_seq_cst);
        break;
    case 3:
        atomic_store_explicit(&response->tail, pick_cursor(response), memory_order_seq_cst);
        break;
    case 4:
        atomic_store_explicit(&request->reader_sleeps, (uint32_t)fuzz_number(&run.input), memory_order_seq_cst);
        break;
    case 5:
        atomic_store_explicit(&response->reader_sleeps, (uint32_t)fuzz_number(&run.input), memory_order_seq_cst);
        break;
    case 6:
        atomic_store_explicit(&request->writer_sleeps, (uint32_t)fuzz_number(&run.input), memory_order_seq_cst);
        break;
    default:
        atomic_store_explicit(&page->generation, (uint32_t)fuzz_number(&run.input), memory_order_seq_cst);
    }
    if (form < 128)
        wake(client);
}

/* All answers count as read. */
static void read_all(const struct harness_client *client)
{
    struct ring_cursors *response = &client->channel.page->response;
    atomic_store_explicit(&response->head, atomic_load_explicit(&response->tail, memory_order_acquire),
                          memory_order_seq_cst);
    wake(client);
}

static void hang_up(uint32_t slot)
{
    struct worker_channel *channel = &run.harness->worker.channels[slot];
    if (channel->used)
        channels_close(&run.harness->worker, channel, "");
    for (unsigned turns = 0; !run.harness->clients[slot].closed; turns++) {
        FUZZ_CHECK(turns < TURNS);
        turn();
    }
}

static void attack(uint8_t code)
{
    uint32_t slot = 1 + code / 128;
    struct harness_client *client = &run.harness->clients[slot];
    uint8_t form = fuzz_byte(&run.input);
    struct slice bytes;
    if (client->channel.page == NULL || client->closed) {
        begin(slot);
        return;
    }
    switch (code % 8) {
    case 0:
    case 1:
    case 2:
        good_frame(client, form);
        break;
    case 3:
        bytes = fuzz_bytes(&run.input);
        frame(client, bytes.data, bytes.size, form);
        break;
    case 4:
        scribble(client, form);
        break;
    case 5:
        set_word(client, form);
        break;
    case 6:
        read_all(client);
        break;
    default:
        if (form < 32)
            hang_up(slot);
        else
            wake(client);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run = (struct run){.input = {data, data + size}};
    run.harness = harness_create(1);
    run.harness->durability = fuzz_byte(&run.input) % 4 == 0 ? DURABILITY_MEMORY : DURABILITY_SYNC;
    FUZZ_CHECK(harness_start(run.harness) == 0);
    honest_begins();
    for (unsigned n = 0; n < OPERATIONS && fuzz_more(&run.input) && !run.full; n++) {
        uint8_t code = fuzz_byte(&run.input);
        if (code % 16 < 12)
            attack(code);
        else if (code % 16 == 12)
            honest_counts(code / 16 % 4 == 0 ? 1 : 0);
        else
            for (unsigned turns = 1 + code / 16 % 4; turns > 0; turns--)
                turn();
    }
    if (!run.full)
        honest_counts(0);
    request_free(&run.request);
    harness_destroy(run.harness);
    return 0;
}
