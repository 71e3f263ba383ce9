/* SPDX-License-Identifier: Apache-2.0 */
/* Deaths of a worker, and what its successor makes of what it finds: no client sees more of it than a pause. A death is
 * a jump out of the middle of whatever the worker was doing; what that had allocated is never freed. On a machine in
 * memory; real processes stand in tests/integration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "tests/support/sudden_death.h"
#include "tests/support/worker_scene.h"

#define RING (64 * MR_KIB)

static struct countdown death;

#define REQUESTS 12
#define QUERY 8

/* Every kind of command, a refusal and a query, with the answer that each must get. */
static uint64_t send_one(struct scene *scene, unsigned n)
{
    struct payload nothing = {.size = 0};

    switch (n) {
    case 0:
        return scene_increment(scene, 1);
    case 1:
        request_open_session(&scene->request, (struct duration){.seconds = 5, .present = true});
        break;
    case 2:
        return scene_increment(scene, 2);
    case 3: /* for another partition */
        return harness_send(scene->client, FRAME_COMMAND, "\x08\x63", 2, 0);
    case 4:
        request_create_service(&scene->request, scene->session, COUNTER_TYPE, "", "second");
        break;
    case 5:
        return scene_put(scene, 3, 900);
    case 6:
        request_close_service(&scene->request, scene->session, scene->map);
        break;
    case 7: /* a repeat */
        return scene_increment(scene, 1);
    case QUERY:
        request_query(&scene->request, scene->session, scene->counter, "Get", payload_slice(&nothing));
        return scene_send(scene, FRAME_QUERY);
    case 9:
        return scene_increment(scene, 4);
    case 10:
        request_close_session(&scene->request, scene->session);
        break;
    default: /* too late */
        return scene_increment(scene, 5);
    }
    return scene_send(scene, FRAME_COMMAND);
}

static const enum status expected[REQUESTS] = {STATUS_OK, STATUS_OK, STATUS_OK, STATUS_INVALID,
                                               STATUS_OK, STATUS_OK, STATUS_OK, STATUS_OK,
                                               STATUS_OK, STATUS_OK, STATUS_OK, STATUS_FORBIDDEN};

struct mix {
    struct scene scene;
    unsigned sent;
    uint64_t positions[REQUESTS];
    bool answered[REQUESTS];
    struct harness_frame frames[REQUESTS];
};

/* Takes what there is; each request's answer is noted, and a second one must say the same. */
static void note(struct mix *mix)
{
    struct harness_frame frame = {0};
    while (harness_take(mix->scene.client, &frame)) {
        unsigned n = 0;
        while (n < mix->sent && mix->positions[n] != frame.head.request)
            n++;
        assert_true(n < mix->sent);
        if (mix->answered[n] && n != QUERY) /* which may be answered twice, from another state */
            assert_memory_equal(&mix->frames[n], &frame, sizeof(frame.head) + frame.head.size);
        mix->answered[n] = true;
        mix->frames[n] = frame;
    }
}

/* Sends what is left to send, some at a time. */
static void go_on(void *context)
{
    struct mix *mix = context;

    while (mix->sent < REQUESTS) {
        mix->positions[mix->sent] = send_one(&mix->scene, mix->sent);
        if (++mix->sent % 3 == 0)
            harness_settle(mix->scene.harness);
    }
    harness_settle(mix->scene.harness);
}

/* Runs until the machine's `calls`-th call, if it has one. False: it died of it. */
static bool live(struct mix *mix, unsigned calls)
{
    bool lived = scene_lives(&mix->scene, &death, calls, go_on, mix);

    note(mix);
    return lived;
}

/* A worker that dies in the middle of its n-th call to the world, and its successor at the again-th. False: it lived.
 */
static bool die_at(unsigned n, unsigned again, enum fake_fate fate)
{
    static struct mix mix; /* survives the jump */
    bool died;

    memset(&mix, 0, sizeof(mix));
    leaks_are_meant(true);
    scene_begin(&mix.scene, DURABILITY_SYNC, RING);
    struct fake_config *config = fake_machine_config(mix.scene.harness->machine);
    config->on_call = count_down;
    config->context = &death;
    config->crash = fate;
    died = !live(&mix, n);
    if (died && again > 0)
        live(&mix, again);
    live(&mix, 0);
    for (unsigned i = 0; i < REQUESTS; i++) {
        /* A query that was taken is its client's to ask again. */
        if (!mix.answered[i] && i == QUERY && died)
            continue;
        if (!mix.answered[i] || mix.frames[i].head.status != expected[i])
            fail_msg("died at call %u, then %u: request %u %s with status %u", n, again, i,
                     mix.answered[i] ? "was answered" : "has no answer; last frame", mix.frames[i].head.status);
    }
    assert_int_equal(scene_number(&mix.frames[0]), 1);
    assert_int_equal(scene_number(&mix.frames[2]), 2);
    assert_int_equal(scene_number(&mix.frames[7]), 1);
    assert_int_equal(scene_number(&mix.frames[9]), 3);
    assert_int_equal(fsm_session_count(mix.scene.harness->worker.fsm), 1);
    scene_end(&mix.scene);
    leaks_are_meant(false);
    return died;
}

static void a_death_at_any_call_is_not_seen(void **state)
{
    unsigned n = 1;
    (void)state;
    for (bool died = true; died; n++) {
        died = die_at(n, 0, FAKE_KEEP);
        died = die_at(n, 0, FAKE_LOSE) || died;
    }
    assert_true(n > 4);
}

static void a_second_death_in_recovery_is_not_seen(void **state)
{
    (void)state;
    for (unsigned n = 1; die_at(n, 0, FAKE_RANDOM); n += 3)
        for (unsigned again = 1; again < 40; again += 2)
            die_at(n, again, FAKE_RANDOM);
}

static void a_successor_looks_at_each_ring(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    assert_true(channels_park_all(&scene.harness->worker));
    uint64_t position = scene_increment(&scene, 1);
    harness_kill(scene.harness);
    uint32_t generation = atomic_load(&scene.client->channel.page->generation);
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    assert_int_equal(atomic_load(&scene.client->channel.page->generation), generation + 1);
    scene_take(&scene, position, &frame);
    assert_int_equal(scene_number(&frame), 1);
    scene_end(&scene);
}

/* A write has failed, so much that what it carried is refused over several turns; what its client sends meanwhile must
 * not get into the log before them, or a successor would take all before it for done. */
static void what_failed_and_is_not_told_yet_is_not_lost(void **state)
{
    enum { COMMANDS = 8 * MR_TURN_REQUESTS };
    uint64_t positions[COMMANDS + 1];
    struct scene scene = {.harness = harness_create(1)};
    struct harness_frame frame;
    unsigned told = 0;

    (void)state;
    scene.harness->batch_bytes = MR_BATCH_BYTES_DEFAULT;
    scene.harness->segment_bytes = 16 * MR_BATCH_BYTES_DEFAULT;
    scene_start(&scene, 2 * MR_MIB);
    fake_machine_config(scene.harness->machine)->order = FAKE_MANUAL;
    fake_machine_fail(scene.harness->machine, FAKE_WRITE, NULL, 1, 1, EIO);
    for (unsigned n = 0; n < COMMANDS; n++)
        positions[n] = scene_increment(&scene, n + 1);
    harness_settle(scene.harness);
    for (unsigned turns = 0; !harness_take(scene.client, &frame); turns++) {
        assert_true(turns < 100);
        fake_io_finish_all(scene.harness->io);
        turn_run(&scene.harness->worker);
    }
    do {
        assert_int_equal(frame.head.request, positions[told]);
        assert_int_equal(frame.head.status, STATUS_UNAVAILABLE);
        told++;
    } while (harness_take(scene.client, &frame));
    assert_in_range(told, 1, COMMANDS / 2);
    positions[COMMANDS] = scene_increment(&scene, COMMANDS + 1);
    turn_run(&scene.harness->worker);
    turn_run(&scene.harness->worker); /* nothing more has come: it is not gathered any longer */
    fake_io_finish_all(scene.harness->io);
    harness_kill(scene.harness);
    fake_machine_config(scene.harness->machine)->order = FAKE_AT_ONCE;
    assert_int_equal(harness_start(scene.harness), 0);
    harness_settle(scene.harness);
    for (; told <= COMMANDS; told++)
        scene_take(&scene, positions[told], &frame);
    scene_end(&scene);
}

static void a_stopped_partition_says_why(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    scene_increment(&scene, 1);
    harness_settle(scene.harness);
    assert_true(harness_take(scene.client, &frame));
    fake_machine_advance(scene.harness->machine, MR_SECOND);
    harness_settle(scene.harness); /* a marker closes the log off */
    harness_kill(scene.harness);
    const char *segment = fake_file_name(scene.harness->machine, "/partition-0001", 0);
    fake_file_flip(scene.harness->machine, "/partition-0001", segment, 4096 + 100, 3);
    uint64_t position = scene_increment(&scene, 2);
    assert_int_equal(harness_start(scene.harness), -1);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    assert_int_equal(frame.head.status, STATUS_INTERNAL);
    assert_true(frame.head.size > 0);
    position = scene_increment(&scene, 3);
    harness_settle(scene.harness);
    scene_take(&scene, position, &frame);
    assert_int_equal(frame.head.status, STATUS_INTERNAL);
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_death_at_any_call_is_not_seen),
        cmocka_unit_test(a_second_death_in_recovery_is_not_seen),
        cmocka_unit_test(a_successor_looks_at_each_ring),
        cmocka_unit_test(what_failed_and_is_not_told_yet_is_not_lost),
        cmocka_unit_test(a_stopped_partition_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
