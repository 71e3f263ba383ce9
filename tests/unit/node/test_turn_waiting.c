/* SPDX-License-Identifier: Apache-2.0 */
/* Queries that have no room for their answers, because their client does not read: what they cost everybody else. The
 * calls into the state machine are counted by wrapping them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/support/worker_scene.h"

#define RING (256 * MR_KIB)
#define LARGE 9000

static unsigned calls;

enum status __real_fsm_query(struct fsm *fsm, const struct partition_query_input *query, uint32_t uid, uint64_t now,
                             struct operation_output *output, struct fsm_cursor **cursor, const char **message);
enum status __wrap_fsm_query(struct fsm *fsm, const struct partition_query_input *query, uint32_t uid, uint64_t now,
                             struct operation_output *output, struct fsm_cursor **cursor, const char **message);
enum status __real_fsm_cursor_next(struct fsm_cursor *cursor, uint64_t now, struct operation_output *output, bool *last,
                                   const char **message);
enum status __wrap_fsm_cursor_next(struct fsm_cursor *cursor, uint64_t now, struct operation_output *output, bool *last,
                                   const char **message);

enum status __wrap_fsm_query(struct fsm *fsm, const struct partition_query_input *query, uint32_t uid, uint64_t now,
                             struct operation_output *output, struct fsm_cursor **cursor, const char **message)
{
    calls++;
    return __real_fsm_query(fsm, query, uid, now, output, cursor, message);
}

enum status __wrap_fsm_cursor_next(struct fsm_cursor *cursor, uint64_t now, struct operation_output *output, bool *last,
                                   const char **message)
{
    calls++;
    return __real_fsm_cursor_next(cursor, now, output, last, message);
}

static void get(struct scene *scene, const char *name)
{
    struct payload key = key_payload(name, 0);

    request_query(&scene->request, scene->session, scene->map, "Get", payload_slice(&key));
    scene_send(scene, FRAME_QUERY);
    harness_settle(scene->harness);
}

static void queries_without_room_are_not_run_again_each_turn(void **state)
{
    enum { GETS = 16, WALKS = 8 };
    struct scene scene = {.harness = harness_create(1)};
    struct harness_frame frame;
    unsigned lasts = 0, sent = GETS + WALKS;

    (void)state;
    scene.harness->max_payload = 16 * MR_KIB;
    scene_start(&scene, RING);
    scene_put_large(&scene, "large", LARGE);
    scene_put_large(&scene, "small", 10);
    struct scene other = scene_beside(&scene, 1, RING);
    struct worker *worker = &scene.harness->worker;
    struct worker_channel *channel = &worker->channels[0];
    uint64_t read = channel->responses.tail;
    for (; RING - (channel->responses.tail - read) > 2 * LARGE + 512; sent++)
        get(&scene, "large");
    for (; RING - (channel->responses.tail - read) > LARGE; sent++)
        get(&scene, "small");
    assert_int_equal(channel->waiting_count, 0);
    for (unsigned n = 0; n < GETS; n++)
        get(&scene, "large");
    for (unsigned n = 0; n < WALKS; n++)
        scene_entries(&scene);
    harness_settle(scene.harness);
    assert_int_equal(channel->waiting_count, GETS + WALKS);
    calls = 0;
    for (uint64_t n = 1; n <= 20; n++) {
        scene_increment(&other, 1000 + n);
        harness_settle(scene.harness);
        assert_true(harness_take(other.client, &frame));
    }
    assert_int_equal(calls, 0);
    for (int i = 0; i < 200; i++) {
        for (; harness_take(scene.client, &frame); lasts += frame.head.flags & FRAME_LAST)
            assert_int_equal(frame.head.status, STATUS_OK);
        harness_settle(scene.harness);
    }
    assert_int_equal(lasts, sent);
    assert_int_equal(channel->held, 0);
    request_free(&other.request);
    scene_end(&scene);
}

/* One that waits is told of its time limit also if nothing was read meanwhile. */
static void a_time_limit_ends_a_query_without_room(void **state)
{
    struct scene scene = {.harness = harness_create(1)};
    struct harness_frame frame;
    unsigned timeouts = 0;

    (void)state;
    scene.harness->max_payload = 16 * MR_KIB;
    scene_start(&scene, RING);
    scene_put_large(&scene, "large", LARGE);
    struct worker_channel *channel = &scene.harness->worker.channels[0];
    while (channel->waiting_count == 0)
        get(&scene, "large");
    fake_machine_advance(scene.harness->machine, MR_QUERY_TIME_LIMIT_DEFAULT + MR_SECOND);
    harness_settle(scene.harness);
    assert_int_equal(channel->waiting_count, 0);
    while (harness_take(scene.client, &frame))
        timeouts += frame.head.status == STATUS_TIMEOUT;
    assert_int_equal(timeouts, 1);
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries_without_room_are_not_run_again_each_turn),
        cmocka_unit_test(a_time_limit_ends_a_query_without_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
