/* SPDX-License-Identifier: Apache-2.0 */
/* The promises of a worker where two things meet: an owed answer and a parked channel, a broken channel and a wake that
 * is on its way, the end of a session and what it was asked, a refusal and a death. On a machine in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/support/sudden_death.h"
#include "tests/support/worker_scene.h"

#define RING (64 * MR_KIB)

/* A query on the counter that waits for this index, `padding` bytes longer than it need be. */
static uint64_t query_at(struct scene *scene, uint64_t index, size_t padding, uint64_t time_limit)
{
    struct payload nothing = {.size = 0};
    uint8_t bytes[4096];
    size_t size = 0;

    request_query(&scene->request, scene->session, scene->counter, "Get", payload_slice(&nothing));
    /* QueryInput.max_received_index is field 1 of field 2: a piece of its own, that is merged; then a field that nobody
     * knows, of bytes */
    assert_true(index < 128 * 128 && padding + scene->request.size + 16 < sizeof(bytes));
    memcpy(bytes, (uint8_t[]){0x12, 3, 0x08, (uint8_t)(index | 0x80), (uint8_t)(index >> 7)}, 5);
    size = 5;
    memcpy(bytes + size, scene->request.bytes, scene->request.size);
    size += scene->request.size;
    if (padding > 0) {
        memcpy(bytes + size, (uint8_t[]){0x7a, (uint8_t)(padding | 0x80), (uint8_t)(padding >> 7)}, 3);
        memset(bytes + size + 3, 0, padding);
        size += 3 + padding;
    }
    return harness_send(scene->client, FRAME_QUERY, bytes, size, time_limit);
}

/* The status with which the request has ended; STATUS_UNKNOWN: it has no answer. Reads all there is. */
struct answers {
    struct harness_frame frames[16];
    unsigned count;
};

static void take_all(struct scene *scene, struct answers *answers)
{
    while (answers->count < 16 && harness_take(scene->client, &answers->frames[answers->count]))
        answers->count++;
}

static enum status status_of(const struct answers *answers, uint64_t position)
{
    for (unsigned i = 0; i < answers->count; i++)
        if (answers->frames[i].head.request == position)
            return (enum status)answers->frames[i].head.status;
    return STATUS_UNKNOWN;
}

static struct worker_channel *channel_of(struct scene *scene)
{
    return &scene->harness->worker.channels[scene->client->slot];
}

/* ---- wake-ups ---- */

/* Puts, not read by the client, until an answer is owed; each is applied while the worker has gone to sleep. */
static void owe_while_parked(struct scene *scene)
{
    struct worker *worker = &scene->harness->worker;

    fake_machine_config(scene->harness->machine)->order = FAKE_MANUAL;
    for (uint64_t n = 1; n < 64 && channel_of(scene)->owed_count == 0 && !scene->client->closed; n++) {
        assert_true(scene_put(scene, n, 1500) != UINT64_MAX);
        harness_settle(scene->harness);
        assert_int_equal(channel_of(scene)->in_flight, 1);
        assert_true(channels_park_all(worker));
        fake_io_finish_all(scene->harness->io);
        harness_settle(scene->harness);
    }
}

static void room_wakes_a_worker_that_owes_a_parked_channel(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    owe_while_parked(&scene);
    assert_int_equal(channel_of(&scene)->owed_count, 1);
    assert_true(channels_park_all(&scene.harness->worker)); /* it sleeps; only the client could wake it */
    while (harness_take(scene.client, &frame))
        ;
    assert_true(ring_release_wakes(&scene.client->responses));
    scene_end(&scene);
}

static void room_wakes_a_worker_whose_parked_channel_has_a_query(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    struct payload key;
    struct worker *worker;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    worker = &scene.harness->worker;
    for (uint64_t n = 1; n <= 10; n++) { /* the ring is nearly full: 10 answers of about 1.5 KiB */
        scene_put(&scene, n, 1500);
        harness_settle(scene.harness);
    }
    /* a query of that size for an index that another client's command will bring */
    uint8_t bytes[512] = {0x12, 2, 0x08, (uint8_t)(fsm_index(worker->fsm) + 5)};
    key = key_payload("key", 0);
    request_query(&scene.request, scene.session, scene.map, "Get", payload_slice(&key));
    memcpy(bytes + 4, scene.request.bytes, scene.request.size);
    harness_send(scene.client, FRAME_QUERY, bytes, scene.request.size + 4, 60 * MR_SECOND);
    harness_settle(scene.harness);
    assert_int_equal(channel_of(&scene)->waiting_count, 1);
    assert_true(channels_park_all(worker));
    struct scene other = {.harness = scene.harness, .client = harness_client(scene.harness, 1, SCENE_USER, RING)};
    scene_open_all(&other);
    scene_increment(&other, 1);
    scene_increment(&other, 2);
    harness_settle(scene.harness);
    assert_int_equal(channel_of(&scene)->waiting_count, 1); /* for room now */
    assert_true(channel_of(&scene)->room_needed > 0);
    assert_true(channels_park_all(worker));
    while (harness_take(scene.client, &frame))
        ;
    assert_true(ring_release_wakes(&scene.client->responses));
    request_free(&other.request);
    scene_end(&scene);
}

/* Asks for the value of this key; the query's position. */
static uint64_t get(struct scene *scene, const char *name)
{
    struct payload key = key_payload(name, 0);

    request_query(&scene->request, scene->session, scene->map, "Get", payload_slice(&key));
    return harness_send(scene->client, FRAME_QUERY, scene->request.bytes, scene->request.size, 60 * MR_SECOND);
}

static void put(struct scene *scene, const char *name, uint64_t size)
{
    static uint8_t value[2048];
    struct payload payload = write_payload(name, (struct slice){value, size}, NULL, 0);

    request_command(&scene->request, scene->session, scene->map, scene->next++, "Put", payload_slice(&payload));
    scene_send(scene, FRAME_COMMAND);
    harness_settle(scene->harness);
}

/* Two queries of one channel have no room. Of the first one's the client gives back enough while the worker turns to
 * sleep; the second one needs more. */
static void room_for_one_of_two_is_seen_before_sleeping(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    struct worker_channel *channel = channel_of(&scene);
    uint64_t from = channel->responses.tail;
    put(&scene, "small", 700);
    for (int n = 0; n < 9; n++)
        put(&scene, "large", 1500);
    uint64_t left = MR_RING_BYTES_MIN - (channel->responses.tail - from);
    put(&scene, "rest", left - 800); /* and about 700 stay free */
    uint64_t small = get(&scene, "small");
    get(&scene, "large");
    harness_settle(scene.harness);
    assert_int_equal(channel->waiting_count, 2);
    assert_true(harness_take(scene.client, &frame));
    assert_false(channels_park_all(&scene.harness->worker));
    harness_settle(scene.harness);
    assert_int_equal(channel->waiting_count, 1);
    do
        assert_true(harness_take(scene.client, &frame));
    while (frame.head.request != small);
    scene_end(&scene);
}

/* ---- hostile clients ---- */

static void a_channel_that_breaks_while_it_is_parked_is_closed(void **state)
{
    struct scene scene;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    query_at(&scene, 5000, 0, MR_SECOND); /* waits */
    harness_settle(scene.harness);
    assert_int_equal(channel_of(&scene)->waiting_count, 1);
    atomic_store(&scene.client->channel.page->response.head, UINT64_MAX / 2);
    owe_while_parked(&scene);
    harness_settle(scene.harness);
    fake_io_finish_all(scene.harness->io);
    harness_settle(scene.harness);
    assert_true(scene.client->closed);
    scene_end(&scene);
}

static void a_watch_that_fails_ends_its_channel(void **state)
{
    struct scene scene;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    fake_machine_fail(scene.harness->machine, FAKE_WATCH, NULL, 1, 1, ENOMEM);
    struct harness_client *client = harness_client(scene.harness, 1, SCENE_USER, RING);
    harness_settle(scene.harness);
    assert_int_equal(atomic_load(&client->channel.page->state), CHANNEL_CLOSED);
    assert_true(client->closed); /* the supervisor hears of it and frees the slot */
    scene_end(&scene);
}

/* Is a wake of this client's on its way? */
static bool wakes(const struct harness *harness, int event)
{
    struct fake_operation operation;

    for (unsigned n = 0; fake_io_operation(harness->io, n, &operation); n++)
        if (operation.call == FAKE_WAKE && operation.event == event)
            return true;
    return false;
}

static void a_descriptor_stays_open_while_a_wake_is_on_its_way(void **state)
{
    struct scene scene;
    int event;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    event = channel_of(&scene)->channel.client_wake_fd;
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    assert_true(ring_sleep(&scene.client->responses));
    harness_send(scene.client, FRAME_COMMAND, "\x08\x63", 2, 0); /* refused at once: the client is woken */
    harness_settle(scene.harness);
    assert_true(wakes(scene.harness, event));
    atomic_store(&scene.client->channel.page->request.tail, UINT64_MAX);
    for (int i = 0; i < 10 && !scene.client->closed; i++) {
        harness_settle(scene.harness);
        if (!scene.client->closed)
            fake_io_finish_all(scene.harness->io);
    }
    assert_true(scene.client->closed);
    assert_false(wakes(scene.harness, event));
    scene_end(&scene);
}

static void waiting_queries_take_bounded_memory(void **state)
{
    struct scene scene;
    uint64_t bytes = 0;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    for (unsigned i = 0; i < 1000; i++) {
        query_at(&scene, 5000, 1800, 0);
        if (i % 16 == 0)
            harness_settle(scene.harness);
    }
    for (struct waiting_query *waiting = channel_of(&scene)->waiting; waiting != NULL; waiting = waiting->next)
        bytes += sizeof(*waiting) + waiting->size;
    assert_true(bytes > 0);
    assert_true(bytes <= RING); /* with default limits: not 1024 times a MiB */
    scene_end(&scene);
}

/* Before it is sealed the client has the memfd, and both worker and supervisor touch what they have mapped of it. */
static void a_channel_that_is_not_open_yet_cannot_be_cut_off(void **state)
{
    struct channel channel;
    struct mr_error error;
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    (void)state;
    assert_int_equal(channel_create(&channel, 1, 1, RING, wake, &error), 0);
    assert_int_equal(ftruncate(channel.memory_fd, 0), -1);
    assert_int_equal(errno, EPERM);
    channel_unmap(&channel);
    close(wake);
}

/* ---- exactly once ---- */

/* Puts and a CloseSession, durable, not applied; the worker dies. */
static void replay_answers_what_a_session_that_closes_was_asked(void **state)
{
    struct scene scene;
    struct answers answers = {.count = 0};

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    uint64_t large = scene_put(&scene, 1, 900), small = scene_increment(&scene, 2);
    request_close_session(&scene.request, scene.session);
    uint64_t close = scene_send(&scene, FRAME_COMMAND);
    harness_settle(scene.harness);
    assert_true(channel_of(&scene)->in_flight > 0);
    fake_io_finish_all(scene.harness->io);
    harness_kill(scene.harness);
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    assert_int_equal(harness_start(scene.harness), 0);
    assert_true(scene.harness->found.last_index > 3);
    harness_settle(scene.harness);
    take_all(&scene, &answers);
    assert_int_equal(status_of(&answers, small), STATUS_OK);
    assert_int_equal(status_of(&answers, close), STATUS_OK);
    assert_int_equal(status_of(&answers, large), STATUS_OK);
    assert_int_equal(channel_of(&scene)->held, 0);
    scene_end(&scene);
}

/* The same without a death: the ring has no room when the Put is applied. */
static void an_answer_that_is_owed_outlives_its_session(void **state)
{
    struct scene scene;
    struct answers answers = {.count = 0};
    uint64_t n = 1, last;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, MR_RING_BYTES_MIN);
    for (; n <= 10; n++) {
        scene_put(&scene, n, 1500);
        harness_settle(scene.harness);
    }
    last = scene_put(&scene, n, 1500);
    request_close_session(&scene.request, scene.session);
    uint64_t close = scene_send(&scene, FRAME_COMMAND);
    harness_settle(scene.harness);
    take_all(&scene, &answers);
    harness_settle(scene.harness);
    take_all(&scene, &answers);
    assert_int_equal(status_of(&answers, close), STATUS_OK);
    assert_int_equal(status_of(&answers, last), STATUS_OK); /* it was applied */
    scene_end(&scene);
}

/* ---- deaths in `memory`, where an entry is durable as soon as it is sealed ---- */

static struct countdown death;
static const struct io_ops *real_ops;
static struct io_ops mortal_ops;

/* Every look at the clock is a place to die; there are no others between the sealing of a batch and its answers. */
static uint64_t mortal_monotonic(struct io *io)
{
    count_down(&death, io, FAKE_CALLS, NULL); /* none of the machine's own */
    return real_ops->monotonic(io);
}

static void make_mortal(struct io *io)
{
    real_ops = io->ops;
    mortal_ops = *real_ops;
    mortal_ops.monotonic = mortal_monotonic;
    io->ops = &mortal_ops;
}

#define MEMORY_REQUESTS 8

struct memory_life {
    struct scene scene;
    uint64_t positions[MEMORY_REQUESTS];
    struct answers answers;
};

static const enum status memory_expected[MEMORY_REQUESTS] = {STATUS_INVALID, STATUS_OK, STATUS_OK, STATUS_INVALID,
                                                             STATUS_OK,      STATUS_OK, STATUS_OK, STATUS_INVALID};

static void send_all(struct memory_life *life)
{
    struct scene *scene = &life->scene;

    for (unsigned i = 0; i < MEMORY_REQUESTS; i++) {
        if (memory_expected[i] == STATUS_INVALID)
            life->positions[i] = harness_send(scene->client, FRAME_COMMAND, "\x08\x63", 2, 0);
        else if (i == 4)
            life->positions[i] = scene_put(scene, i + 1, 900);
        else
            life->positions[i] = scene_increment(scene, i + 1);
    }
}

static void settle(void *context)
{
    harness_settle(context);
}

static bool live_in_memory(struct memory_life *life, unsigned looks)
{
    bool lived = scene_lives(&life->scene, &death, looks, settle, life->scene.harness);

    take_all(&life->scene, &life->answers);
    return lived;
}

static void a_death_behind_the_seal_loses_no_refusal_in_memory(void **state)
{
    static struct memory_life life; /* survives the jump */
    bool died = true;

    (void)state;
    leaks_are_meant(true);
    for (unsigned looks = 1; died; looks++) {
        memset(&life, 0, sizeof(life));
        life.scene.harness = harness_create(1);
        life.scene.harness->durability = DURABILITY_MEMORY;
        life.scene.harness->new_io = make_mortal;
        scene_start(&life.scene, RING);
        send_all(&life);
        died = !live_in_memory(&life, looks);
        if (died)
            live_in_memory(&life, 0);
        for (unsigned i = 0; i < MEMORY_REQUESTS; i++)
            if (status_of(&life.answers, life.positions[i]) != memory_expected[i])
                fail_msg("died at look %u: request %u has status %u", looks, i,
                         status_of(&life.answers, life.positions[i]));
        assert_int_equal(fsm_index(life.scene.harness->worker.fsm), 3 + 5);
        assert_int_equal(channel_of(&life.scene)->held, 0);
        scene_end(&life.scene);
    }
    leaks_are_meant(false);
}

/* ---- memory ---- */

static void what_a_session_leaves_is_freed_without_traffic(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    for (uint64_t n = 1; n <= 500; n++) {
        scene_put(&scene, n, 100);
        if (n % 20 == 0) {
            harness_settle(scene.harness);
            while (harness_take(scene.client, &frame))
                ;
        }
    }
    request_close_session(&scene.request, scene.session);
    scene_send(&scene, FRAME_COMMAND);
    harness_settle(scene.harness);
    assert_int_equal(fsm_session_count(scene.harness->worker.fsm), 0);
    assert_false(fsm_collect(scene.harness->worker.fsm, 0));
    scene_end(&scene);
}

/* What the log tells of that went again is not all held until the whole log is read. */
static void a_recovery_frees_what_went_again_as_it_goes(void **state)
{
    enum { ROUNDS = 10, ENTRIES = 50 };
    struct scene scene;
    struct harness_frame frame;
    uint64_t number = 0;
    char key[32];

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned n = 0; n < ENTRIES; n++) {
            snprintf(key, sizeof(key), "key %u", n);
            struct payload payload = write_payload(key, text("value"), NULL, 0);
            request_command(&scene.request, scene.session, scene.map, ++number, "Put", payload_slice(&payload));
            scene_send(&scene, FRAME_COMMAND);
        }
        request_command(&scene.request, scene.session, scene.map, ++number, "Clear", (struct slice){0});
        scene_send(&scene, FRAME_COMMAND);
        harness_settle(scene.harness);
        while (harness_take(scene.client, &frame))
            assert_int_equal(frame.head.status, STATUS_OK);
    }
    harness_kill(scene.harness);
    assert_int_equal(harness_start(scene.harness), 0);
    assert_int_equal(fsm_index(scene.harness->worker.fsm), log_last_index(scene.harness->worker.log));
    assert_false(fsm_collect(scene.harness->worker.fsm, 2 * ENTRIES));
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(room_wakes_a_worker_that_owes_a_parked_channel),
        cmocka_unit_test(room_wakes_a_worker_whose_parked_channel_has_a_query),
        cmocka_unit_test(room_for_one_of_two_is_seen_before_sleeping),
        cmocka_unit_test(a_channel_that_breaks_while_it_is_parked_is_closed),
        cmocka_unit_test(a_watch_that_fails_ends_its_channel),
        cmocka_unit_test(a_descriptor_stays_open_while_a_wake_is_on_its_way),
        cmocka_unit_test(waiting_queries_take_bounded_memory),
        cmocka_unit_test(a_channel_that_is_not_open_yet_cannot_be_cut_off),
        cmocka_unit_test(replay_answers_what_a_session_that_closes_was_asked),
        cmocka_unit_test(an_answer_that_is_owed_outlives_its_session),
        cmocka_unit_test(a_death_behind_the_seal_loses_no_refusal_in_memory),
        cmocka_unit_test(what_a_session_leaves_is_freed_without_traffic),
        cmocka_unit_test(a_recovery_frees_what_went_again_as_it_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
