/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's turns: what is answered when, whom a misbehaving client hurts. On a machine in memory; real processes
 * stand in tests/integration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/worker_scene.h"

#define RING (64 * MR_KIB)

static void answers_in_order_and_moves_head(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    uint64_t positions[100];

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    for (unsigned i = 0; i < 100; i++)
        positions[i] = scene_increment(&scene, scene.next++);
    harness_settle(scene.harness);
    for (unsigned i = 0; i < 100; i++) {
        scene_take(&scene, positions[i], &frame);
        assert_int_equal(scene_number(&frame), i + 1);
        assert_int_equal(frame.head.number, 1);
        assert_int_equal(frame.head.flags, FRAME_LAST);
    }
    assert_false(harness_take(scene.client, &frame));
    assert_int_equal(atomic_load(&scene.client->channel.page->request.head), scene.client->requests.tail);
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    scene_end(&scene);
}

static void nothing_is_answered_before_it_is_durable(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    uint64_t position = scene_increment(&scene, 1);
    harness_settle(scene.harness);
    assert_true(fake_io_in_flight(scene.harness->io) > 0);
    assert_false(harness_take(scene.client, &frame));
    fake_io_finish_all(scene.harness->io);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    assert_int_equal(scene_number(&frame), 1);
    scene_end(&scene);
}

/* What becomes durable at once is applied over several turns, and answered in between. */
static void a_large_batch_is_answered_in_pieces(void **state)
{
    enum { COMMANDS = 8 * MR_TURN_REQUESTS };
    struct scene scene;
    struct harness_frame frame;
    unsigned most = 0;

    (void)state;
    scene = (struct scene){.harness = harness_create(1)};
    struct worker *worker = &scene.harness->worker;
    scene.harness->batch_bytes = MR_BATCH_BYTES_DEFAULT;
    scene.harness->segment_bytes = 16 * MR_BATCH_BYTES_DEFAULT;
    scene_start(&scene, 2 * MR_MIB);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    for (uint64_t n = 1; n <= COMMANDS; n++)
        scene_increment(&scene, n);
    harness_settle(scene.harness);
    assert_int_equal(log_last_index(worker->log) - fsm_index(worker->fsm), COMMANDS);
    for (unsigned answered = 0; answered < COMMANDS;) {
        unsigned count = 0;
        fake_io_finish_all(scene.harness->io);
        turn_run(worker);
        while (harness_take(scene.client, &frame))
            assert_int_equal(scene_number(&frame), answered + ++count);
        assert_in_range(count, 0, 2 * MR_TURN_REQUESTS);
        most = count > most ? count : most;
        answered += count;
    }
    assert_in_range(most, MR_TURN_REQUESTS, 2 * MR_TURN_REQUESTS);
    scene_end(&scene);
}

static void a_refusal_waits_for_what_is_before_it(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    uint64_t first = scene_increment(&scene, 1);
    uint64_t wrong = harness_send(scene.client, FRAME_COMMAND, "\xff\xff", 2, 0);
    uint64_t second = scene_increment(&scene, 2);
    harness_settle(scene.harness);
    assert_false(harness_take(scene.client, &frame));
    /* what stands behind the refusal has not been taken: the log has one entry more, not two */
    assert_int_equal(scene.harness->worker.channels[0].in_flight, 1);
    for (int i = 0; i < 4; i++) {
        fake_io_finish_all(scene.harness->io);
        harness_settle(scene.harness);
    }
    scene_take(&scene, first, &frame);
    assert_int_equal(scene_number(&frame), 1);
    scene_take(&scene, wrong, &frame);
    assert_int_equal(frame.head.status, STATUS_INVALID);
    assert_true(frame.head.size > 0);
    scene_take(&scene, second, &frame);
    assert_int_equal(scene_number(&frame), 2);
    scene_end(&scene);
}

static void a_query_waits_for_its_index_alone(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    struct payload nothing = {.size = 0};
    struct request *request = &scene.request;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    request_query(request, scene.session, scene.counter, "Get", payload_slice(&nothing));
    /* QueryInput.max_received_index is field 1 of field 2: written in front, as a piece of its own that is merged */
    uint8_t bytes[4096] = {0x12, 2, 0x08, (uint8_t)(fsm_index(scene.harness->worker.fsm) + 1)};
    size_t size = request->size + 4;
    memcpy(bytes + 4, request->bytes, request->size);
    uint64_t waits = harness_send(scene.client, FRAME_QUERY, bytes, size, 0);
    uint64_t does_not = scene_send(&scene, FRAME_QUERY);
    harness_settle(scene.harness);
    scene_take(&scene, does_not, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
    assert_false(harness_take(scene.client, &frame));
    scene_increment(&scene, 1);
    harness_settle(scene.harness);
    assert_true(harness_take(scene.client, &frame));
    scene_take(&scene, waits, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
    /* and one whose index never comes ends at its time limit */
    bytes[3] = 100;
    waits = harness_send(scene.client, FRAME_QUERY, bytes, size, MR_SECOND);
    harness_settle(scene.harness);
    assert_int_equal(turn_next(&scene.harness->worker) <= scene.harness->worker.now + MR_SECOND, 1);
    fake_machine_advance(scene.harness->machine, MR_SECOND);
    harness_settle(scene.harness);
    scene_take(&scene, waits, &frame);
    assert_int_equal(frame.head.status, STATUS_TIMEOUT);
    scene_end(&scene);
}

/* Those over the limit are refused, naming it; what stands behind them is answered. */
static void too_many_waiting_queries_hold_up_nothing(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    struct payload nothing = {.size = 0};
    unsigned refused = 0, most = RING / 8 / MR_SMALL_FRAME;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    request_query(&scene.request, scene.session, scene.counter, "Get", payload_slice(&nothing));
    uint8_t bytes[4096] = {0x12, 2, 0x08, 100};
    size_t size = scene.request.size + 4;
    memcpy(bytes + 4, scene.request.bytes, scene.request.size);
    for (unsigned i = 0; i < most + 10; i++)
        harness_send(scene.client, FRAME_QUERY, bytes, size, UINT64_MAX); /* longer than any may: cut to an hour */
    uint64_t behind = scene_increment(&scene, 1);
    harness_settle(scene.harness);
    for (bool last = false; !last; last = frame.head.request == behind) {
        assert_true(harness_take(scene.client, &frame));
        if (frame.head.request == behind)
            continue;
        assert_int_equal(frame.head.status, STATUS_UNAVAILABLE);
        frame.body[frame.head.size] = '\0';
        assert_non_null(strstr((char *)frame.body, "32 queries that wait"));
        refused++;
    }
    assert_int_equal(frame.head.status, STATUS_OK);
    assert_int_equal(refused, 10);
    assert_int_equal(scene.harness->worker.channels[0].waiting_count, most);
    assert_true(scene.harness->worker.channels[0].waiting_deadline <=
                scene.harness->worker.now + MR_QUERY_TIME_LIMIT_MAX);
    scene_end(&scene);
}

/* Answers that do not fit stand in the session; the channel is not read on; when the client reads, all come, in order.
 */
static void who_does_not_read_is_not_read(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    uint64_t positions[64];
    unsigned sent = 0, taken = 0;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    for (unsigned round = 0; round < 64 && sent < 64; round++) {
        uint64_t position = scene_put(&scene, scene.next, 1500);
        if (position != UINT64_MAX) {
            positions[sent++] = position;
            scene.next++;
        }
        harness_settle(scene.harness);
    }
    assert_true(sent < 64); /* both rings are full */
    assert_true(scene.harness->worker.channels[0].owed_count > 0);
    while (taken < sent) {
        while (harness_take(scene.client, &frame)) {
            assert_int_equal(frame.head.request, positions[taken]);
            assert_int_equal(frame.head.status, STATUS_OK);
            taken++;
        }
        uint64_t before = taken;
        harness_settle(scene.harness);
        if (before == taken)
            assert_true(taken == sent ||
                        atomic_load(&scene.client->channel.page->response.tail) != scene.client->responses.head);
    }
    assert_int_equal(scene.harness->worker.channels[0].held, 0);
    scene_increment(&scene, scene.next++);
    harness_settle(scene.harness);
    assert_true(harness_take(scene.client, &frame));
    scene_end(&scene);
}

static void break_tail_backwards(struct scene *scene)
{
    atomic_store(&scene->client->channel.page->request.tail, scene->client->requests.tail - 8);
}

static void break_tail_far(struct scene *scene)
{
    atomic_store(&scene->client->channel.page->request.tail, scene->client->requests.tail + 2 * RING);
}

static void break_length(struct scene *scene)
{
    struct request_head head = {.size = UINT32_MAX, .kind = FRAME_COMMAND};
    uint8_t *at = NULL;
    assert_int_equal(ring_reserve(&scene->client->requests, sizeof(head), &at), RING_OK);
    memcpy(at, &head, sizeof(head));
    ring_advance(&scene->client->requests, sizeof(head));
    ring_publish(&scene->client->requests);
}

static void break_partial(struct scene *scene)
{
    struct request_head head = {.size = 64, .kind = FRAME_COMMAND};
    uint8_t *at = NULL;
    assert_int_equal(ring_reserve(&scene->client->requests, sizeof(head), &at), RING_OK);
    memcpy(at, &head, sizeof(head));
    ring_advance(&scene->client->requests, sizeof(head));
    ring_publish(&scene->client->requests);
}

static void break_response_head(struct scene *scene)
{
    atomic_store(&scene->client->channel.page->response.head, UINT64_MAX / 2);
    /* it is looked at when there seems to be no room */
    for (unsigned i = 0; i < 4000 && !scene->client->closed; i++) {
        scene_increment(scene, scene->next++);
        harness_settle(scene->harness);
    }
}

static void what_cannot_be_closes_that_channel_alone(void **state)
{
    void (*const breaks[])(struct scene *) = {break_tail_backwards, break_tail_far, break_length, break_partial,
                                              break_response_head};
    (void)state;
    for (unsigned i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
        struct scene scene, honest;
        struct harness_frame frame;
        scene_begin(&scene, DURABILITY_SYNC, RING);
        honest = (struct scene){.harness = scene.harness};
        honest.client = harness_client(scene.harness, 1, SCENE_USER + 1, RING);
        scene_open_all(&honest);
        breaks[i](&scene);
        harness_settle(scene.harness);
        assert_true(scene.client->closed);
        assert_true(strlen(scene.client->why) > 0);
        assert_int_equal(atomic_load(&scene.client->channel.page->state), CHANNEL_CLOSED);
        assert_string_equal(scene.client->channel.page->why, scene.client->why);
        assert_false(honest.client->closed);
        uint64_t position = scene_increment(&honest, 1);
        harness_settle(scene.harness);
        scene_take(&honest, position, &frame);
        assert_int_equal(frame.head.status, STATUS_OK);
        request_free(&honest.request);
        scene_end(&scene);
    }
}

static void over_the_size_limit_is_refused(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    static uint8_t body[4096];

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    uint64_t large = harness_send(scene.client, FRAME_COMMAND, body, 2049, 0);
    uint64_t kind = harness_send(scene.client, (enum frame_kind)7, body, 0, 0);
    uint64_t fine = scene_increment(&scene, 1);
    harness_settle(scene.harness);
    scene_take(&scene, large, &frame);
    assert_int_equal(frame.head.status, STATUS_INVALID);
    frame.body[frame.head.size] = 0;
    assert_non_null(strstr((char *)frame.body, "2048"));
    scene_take(&scene, kind, &frame);
    assert_int_equal(frame.head.status, STATUS_INVALID);
    scene_take(&scene, fine, &frame);
    assert_int_equal(scene_number(&frame), 1);
    scene_end(&scene);
}

static void a_failing_disk_refuses_and_reads_go_on(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    struct payload nothing = {.size = 0};

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    fake_machine_fail(scene.harness->machine, FAKE_WRITE, NULL, 1, UINT64_MAX, EIO);
    uint64_t failed = scene_increment(&scene, 1);
    harness_settle(scene.harness);
    assert_false(harness_take(scene.client, &frame)); /* unanswered: it could still come back */
    request_query(&scene.request, scene.session, scene.counter, "Get", payload_slice(&nothing));
    uint64_t query = scene_send(&scene, FRAME_QUERY);
    harness_settle(scene.harness);
    scene_take(&scene, query, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
    assert_int_equal(scene.harness->region->state, PARTITION_READ_ONLY);
    fake_machine_heal(scene.harness->machine);
    for (int i = 0; i < 100 && scene.harness->region->state != PARTITION_SERVING; i++) {
        fake_machine_advance(scene.harness->machine, 100 * MR_MILLISECOND);
        harness_settle(scene.harness);
    }
    scene_take(&scene, failed, &frame);
    assert_int_equal(frame.head.status, STATUS_UNAVAILABLE);
    uint64_t again = scene_increment(&scene, 1);
    harness_settle(scene.harness);
    scene_take(&scene, again, &frame);
    assert_int_equal(scene_number(&frame), 1);
    scene_end(&scene);
}

/* While a write is in flight a worker sleeps, its channels parked. Whoever has its answer need not wake it. */
static void whose_request_is_done_is_scanned_again(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct worker *worker = &scene.harness->worker;
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    uint64_t first = scene_increment(&scene, 1);
    harness_settle(scene.harness);
    assert_true(log_in_flight(worker->log));
    assert_true(channels_park_all(worker));
    assert_true(worker->channels[0].parked);
    fake_io_finish_all(scene.harness->io);
    turn_run(worker);
    scene_take(&scene, first, &frame);
    assert_false(worker->channels[0].parked);
    assert_int_equal(atomic_load(&scene.client->channel.page->request.reader_sleeps), 0);
    uint64_t second = scene_increment(&scene, 2);
    turn_run(worker);
    fake_io_finish_all(scene.harness->io);
    harness_settle(scene.harness);
    fake_io_finish_all(scene.harness->io);
    harness_settle(scene.harness);
    scene_take(&scene, second, &frame);
    assert_int_equal(scene_number(&frame), 2);
    scene_end(&scene);
}

/* One client that never pauses does not have the worker look into everybody's ring in every turn. */
static void a_quiet_channel_is_parked_beside_a_busy_one(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct scene quiet = scene_beside(&scene, 1, RING);
    struct worker *worker = &scene.harness->worker;
    for (uint64_t n = 1; n <= 300; n++) {
        scene_increment(&scene, n);
        assert_true(turn_run(worker));
        while (harness_take(scene.client, &frame))
            ;
        fake_machine_advance(scene.harness->machine, MR_MILLISECOND);
    }
    assert_true(worker->channels[1].parked);
    assert_false(worker->channels[0].parked);
    uint64_t position = scene_increment(&quiet, 301); /* which wakes the worker */
    harness_settle(scene.harness);
    scene_take(&quiet, position, &frame);
    assert_int_equal(scene_number(&frame), 301);
    request_free(&quiet.request);
    scene_end(&scene);
}

/* A small batch waits for the next turn while turns find something to read, and no longer. */
static void what_comes_turn_by_turn_is_written_together(void **state)
{
    struct scene scene;
    struct fake_operation operation;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct worker *worker = &scene.harness->worker;
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    for (uint64_t n = 1; n <= 3; n++) {
        scene_increment(&scene, n);
        turn_run(worker);
        assert_false(log_in_flight(worker->log));
    }
    turn_run(worker);
    assert_true(log_in_flight(worker->log));
    assert_true(fake_io_operation(scene.harness->io, 0, &operation));
    assert_int_equal(operation.size, 4096);
    fake_io_finish_all(scene.harness->io);
    harness_settle(scene.harness);
    assert_int_equal(fsm_index(worker->fsm), log_last_index(worker->log));
    scene_end(&scene);
}

/* What was read before the worker was told to stop is answered, also if it has not been handed to the disk yet. */
static void what_was_gathered_is_answered_at_the_stop(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    uint64_t position = scene_increment(&scene, 1);
    turn_run(&scene.harness->worker);
    assert_false(log_in_flight(scene.harness->worker.log));
    assert_int_equal(harness_stop(scene.harness), 0);
    scene_take(&scene, position, &frame);
    assert_int_equal(scene_number(&frame), 1);
    scene_end(&scene);
}

/* As many commands as there is room for, each of which fills a batch by itself. */
static void send_large(struct scene *scene)
{
    static const uint8_t body[6000];

    do
        request_command(&scene->request, scene->session, scene->counter, scene->next++, "Set",
                        (struct slice){body, sizeof(body)});
    while (scene_send(scene, FRAME_COMMAND) != UINT64_MAX);
    scene->next--;
}

static uint64_t requests_taken(const struct scene *scene)
{
    return scene->harness->worker.channels[scene->client->slot].requests.head / 6000;
}

/* Where the log has a buffer less often than there are turns, each of those who wait for one gets the next in turn. */
static void who_got_no_buffer_is_first_next_time(void **state)
{
    struct scene one = {.harness = harness_create(1)};
    struct harness_frame frame;

    (void)state;
    one.harness->durability = DURABILITY_SYNC;
    one.harness->max_payload = 8000;
    one.harness->segment_bytes = 4 * MR_MIB;
    scene_start(&one, RING);
    struct scene other = scene_beside(&one, 1, RING);
    other.next = 1000000;
    fake_machine_config(one.harness->machine)->order = FAKE_MANUAL;
    uint64_t before[2] = {0};
    for (unsigned round = 0; round < 40; round++) {
        send_large(&one);
        send_large(&other);
        while (harness_take(one.client, &frame) || harness_take(other.client, &frame))
            ;
        if (round == 20) {
            before[0] = requests_taken(&one);
            before[1] = requests_taken(&other);
        }
        fake_io_finish(one.harness->io, 0);
        turn_run(&one.harness->worker);
        turn_run(&one.harness->worker); /* in which there is none */
    }
    uint64_t taken = requests_taken(&one) - before[0], others = requests_taken(&other) - before[1];
    assert_true(taken + others >= 10);
    assert_true(taken <= others + 2 && others <= taken + 2);
    request_free(&other.request);
    scene_end(&one);
}

/* The index of the one increment that a client sends is in the answer. */
static uint64_t index_of_next(struct scene *scene)
{
    struct harness_frame frame;
    struct slice part;

    assert_true(harness_take(scene->client, &frame));
    return scene_output(&frame, &part).index;
}

/* Who waits for something else, such as his own reading, is not why the others come in an order. */
static void who_does_not_read_settles_no_order(void **state)
{
    struct scene stuck;
    unsigned first = 0;

    (void)state;
    scene_begin(&stuck, DURABILITY_MEMORY, MR_RING_BYTES_MIN);
    struct scene one = scene_beside(&stuck, 1, RING), other = scene_beside(&stuck, 2, RING);
    while (!stuck.harness->worker.channels[0].stuck) {
        assert_true(scene_put(&stuck, stuck.next++, 1500) != UINT64_MAX);
        harness_settle(stuck.harness);
    }
    enum { ROUNDS = 12 };
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned turns = 0; turns < round % 3; turns++)
            turn_run(&stuck.harness->worker);
        scene_increment(&one, 1000 + round);
        scene_increment(&other, 2000 + round);
        harness_settle(stuck.harness);
        first += index_of_next(&one) < index_of_next(&other);
    }
    assert_true(first > 0 && first < ROUNDS);
    request_free(&one.request);
    request_free(&other.request);
    scene_end(&stuck);
}

/* Who only asks keeps nobody's write waiting for more. */
static void queries_do_not_delay_a_write(void **state)
{
    struct scene scene;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct scene asker = scene_beside(&scene, 1, RING);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    scene_increment(&scene, 1);
    turn_run(&scene.harness->worker);
    assert_false(log_in_flight(scene.harness->worker.log));
    request_query(&asker.request, asker.session, asker.counter, "Get", (struct slice){NULL, 0});
    scene_send(&asker, FRAME_QUERY);
    turn_run(&scene.harness->worker);
    assert_true(log_in_flight(scene.harness->worker.log));
    fake_io_finish_all(scene.harness->io);
    harness_settle(scene.harness);
    request_free(&asker.request);
    scene_end(&scene);
}

static void sleepers_are_woken(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    struct worker *worker;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    worker = &scene.harness->worker;
    /* the worker sleeps, the client wakes it */
    assert_true(channels_park_all(worker));
    assert_true(worker->channels[0].parked);
    struct payload payload = number_payload(1);
    request_command(&scene.request, scene.session, scene.counter, 1, "Increment", payload_slice(&payload));
    uint8_t *at = NULL;
    struct request_head head = {.size = (uint32_t)scene.request.size, .kind = FRAME_COMMAND};
    assert_int_equal(ring_reserve(&scene.client->requests, request_frame_bytes(head.size), &at), RING_OK);
    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), scene.request.bytes, head.size);
    ring_advance(&scene.client->requests, request_frame_bytes(head.size));
    assert_true(ring_publish(&scene.client->requests));
    harness_settle(scene.harness);
    assert_false(harness_take(scene.client, &frame)); /* not scanned before its watch says so */
    assert_true(fake_io_trigger(scene.harness->io, worker->channels[0].channel.node_wake_fd));
    /* the client sleeps, the worker wakes it */
    assert_true(ring_sleep(&scene.client->responses));
    uint64_t wakes = fake_io_wakes(scene.harness->io, worker->channels[0].channel.client_wake_fd);
    harness_settle(scene.harness);
    assert_int_equal(fake_io_wakes(scene.harness->io, worker->channels[0].channel.client_wake_fd), wakes + 1);
    assert_true(harness_take(scene.client, &frame));
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_in_order_and_moves_head),
        cmocka_unit_test(nothing_is_answered_before_it_is_durable),
        cmocka_unit_test(a_large_batch_is_answered_in_pieces),
        cmocka_unit_test(a_refusal_waits_for_what_is_before_it),
        cmocka_unit_test(a_query_waits_for_its_index_alone),
        cmocka_unit_test(too_many_waiting_queries_hold_up_nothing),
        cmocka_unit_test(who_does_not_read_is_not_read),
        cmocka_unit_test(what_cannot_be_closes_that_channel_alone),
        cmocka_unit_test(over_the_size_limit_is_refused),
        cmocka_unit_test(a_failing_disk_refuses_and_reads_go_on),
        cmocka_unit_test(whose_request_is_done_is_scanned_again),
        cmocka_unit_test(a_quiet_channel_is_parked_beside_a_busy_one),
        cmocka_unit_test(what_comes_turn_by_turn_is_written_together),
        cmocka_unit_test(what_was_gathered_is_answered_at_the_stop),
        cmocka_unit_test(who_got_no_buffer_is_first_next_time),
        cmocka_unit_test(who_does_not_read_settles_no_order),
        cmocka_unit_test(queries_do_not_delay_a_write),
        cmocka_unit_test(sleepers_are_woken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
