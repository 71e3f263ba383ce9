/* SPDX-License-Identifier: Apache-2.0 */
/* What a partition may hold: at each limit the one who asks is refused, by name and value; what frees something passes,
 * others go on, and there is room again once something has been freed. */
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
#define OTHER_USER 2000

static struct scene scene;

static struct quota *quota(void)
{
    return &scene.harness->worker.quota;
}

/* scene.request from this client: the status of its one answer. */
static enum status ask_by(struct harness_client *client, char *message, size_t size)
{
    struct harness_frame frame;
    uint64_t position = harness_send(client, FRAME_COMMAND, scene.request.bytes, scene.request.size, 0);

    harness_settle(scene.harness);
    assert_true(harness_take(client, &frame));
    assert_int_equal(frame.head.request, position);
    size_t length = frame.head.size < size ? frame.head.size : size - 1;
    memcpy(message, frame.body, length);
    message[length] = '\0';
    return (enum status)frame.head.status;
}

static void expect_ok(struct harness_client *client)
{
    char message[400];

    if (ask_by(client, message, sizeof(message)) != STATUS_OK)
        fail_msg("%s", message);
}

static void expect_refused(struct harness_client *client, const char *part)
{
    char message[400];

    assert_int_equal(ask_by(client, message, sizeof(message)), STATUS_UNAVAILABLE);
    if (strstr(message, part) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", message, part);
}

static void open_session(void)
{
    request_open_session(&scene.request, (struct duration){.seconds = 10, .present = true});
}

static void sessions_of_one_user_and_of_all(void **state)
{
    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    struct harness_client *other = harness_client(scene.harness, 1, OTHER_USER, RING);
    quota()->sessions = 3;
    quota()->user_sessions = 2;
    open_session();
    expect_ok(scene.client);
    open_session();
    expect_refused(scene.client, "user 1000 has 2 sessions");
    open_session();
    expect_ok(other);
    open_session();
    expect_refused(other, "has 3 sessions, the most it may have (--max-sessions)");
    request_keep_alive(&scene.request, scene.session, (struct slice){0}, 0, NULL, 0);
    expect_ok(scene.client);
    request_close_session(&scene.request, scene.session);
    expect_ok(scene.client);
    open_session();
    expect_ok(scene.client);
    scene_end(&scene);
}

/* However many are asked for at once, before the first of them is applied. */
static void no_more_than_the_limit_at_once(void **state)
{
    enum { ASKED = 20, LIMIT = 7 };
    struct harness_frame frame;
    unsigned opened = 0, refused = 0;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    quota()->sessions = LIMIT;
    for (unsigned i = 0; i < ASKED; i++) {
        open_session();
        assert_true(scene_send(&scene, FRAME_COMMAND) != UINT64_MAX);
    }
    harness_settle(scene.harness);
    while (harness_take(scene.client, &frame)) {
        opened += frame.head.status == STATUS_OK;
        refused += frame.head.status == STATUS_UNAVAILABLE;
    }
    assert_int_equal(opened, LIMIT - 1); /* the scene has one */
    assert_int_equal(refused, ASKED - opened);
    assert_int_equal(fsm_session_count(scene.harness->worker.fsm), LIMIT);
    assert_int_equal(quota()->opening, 0);
    scene_end(&scene);
}

/* Of what others have logged and is not applied yet, none is for one who has room himself: they may always have
 * some. */
static void nobody_waits_for_other_users_sessions(void **state)
{
    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    quota()->user_sessions = 2;
    open_session();
    quota_logged(quota(), scene.harness->worker.fsm, &scene.request.command.command, OTHER_USER, scene.request.size);
    expect_ok(scene.client);
    open_session();
    expect_refused(scene.client, "user 1000 has 2 sessions");
    quota_applied(quota(), &scene.request.command.command, OTHER_USER);
    assert_int_equal(quota()->opening, 0);
    scene_end(&scene);
}

/* What was logged and could not be written counts no more. */
static void a_failed_write_gives_room_back(void **state)
{
    struct harness_frame frame;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    fake_machine_fail(scene.harness->machine, FAKE_WRITE, NULL, 1, UINT64_MAX, EIO);
    open_session();
    uint64_t position = scene_send(&scene, FRAME_COMMAND);
    harness_settle(scene.harness);
    assert_int_equal(quota()->opening, 1);
    fake_machine_heal(scene.harness->machine);
    for (int i = 0; i < 100 && scene.harness->region->state != PARTITION_SERVING; i++) {
        fake_machine_advance(scene.harness->machine, 100 * MR_MILLISECOND);
        harness_settle(scene.harness);
    }
    scene_take(&scene, position, &frame);
    assert_int_equal(frame.head.status, STATUS_UNAVAILABLE);
    assert_int_equal(quota()->opening, 0);
    scene_end(&scene);
}

static void services(void **state)
{
    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    quota()->services = 3;
    request_create_service(&scene.request, scene.session, COUNTER_TYPE, "", "third");
    expect_ok(scene.client);
    request_create_service(&scene.request, scene.session, COUNTER_TYPE, "", "fourth");
    expect_refused(scene.client, "has 3 services, the most it may have (--max-services)");
    request_create_service(&scene.request, scene.session, COUNTER_TYPE, "", "counter");
    expect_ok(scene.client); /* is there: nothing is made */
    assert_int_equal(quota()->creating, 0);
    scene_end(&scene);
}

/* Who names services that are there makes none: whoever makes a new one does not wait for that. */
static void nobody_waits_for_services_that_are_there(void **state)
{
    enum { NAMED = 5 };

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    quota()->services = 3;
    request_create_service(&scene.request, scene.session, COUNTER_TYPE, "", "counter");
    for (unsigned i = 0; i < NAMED; i++)
        quota_logged(quota(), scene.harness->worker.fsm, &scene.request.command.command, OTHER_USER, 100);
    request_create_service(&scene.request, scene.session, COUNTER_TYPE, "", "third");
    expect_ok(scene.client);
    scene_end(&scene);
}

/* However many are asked for at once, some of them twice, and some that are there. */
static void no_more_services_than_the_limit_at_once(void **state)
{
    enum { ASKED = 30, LIMIT = 7 };
    struct harness_frame frame;
    unsigned refused = 0;
    char name[32];

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    quota()->services = LIMIT;
    for (unsigned i = 0; i < ASKED; i++) {
        snprintf(name, sizeof(name), "service %u", i / 2);
        request_create_service(&scene.request, scene.session, COUNTER_TYPE, "", i % 5 == 0 ? "counter" : name);
        assert_true(scene_send(&scene, FRAME_COMMAND) != UINT64_MAX);
    }
    harness_settle(scene.harness);
    unsigned answered = 0;
    for (; harness_take(scene.client, &frame); answered++)
        refused += frame.head.status == STATUS_UNAVAILABLE;
    assert_int_equal(answered, ASKED);
    assert_true(refused > 0);
    assert_int_equal(fsm_service_count(scene.harness->worker.fsm), LIMIT);
    assert_int_equal(quota()->creating, 0);
    scene_end(&scene);
}

static uint64_t in_use;

static uint64_t measure(void)
{
    return in_use;
}

static void put(uint64_t number)
{
    struct payload payload = write_payload("key", text("value"), NULL, 0);
    request_command(&scene.request, scene.session, scene.map, number, "Put", payload_slice(&payload));
}

static void memory(void **state)
{
    struct payload payload;

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    quota()->memory_limit = 64 * MR_MIB;
    quota()->measure = measure;
    in_use = 64 * MR_MIB - 1;
    put(1);
    expect_ok(scene.client);
    in_use = 64 * MR_MIB;
    quota()->measured_at = 0; /* looked at again */
    put(2);
    expect_refused(scene.client, "holds 67108864 bytes in memory, its limit is 64M (--memory-limit)");
    open_session();
    expect_refused(scene.client, "--memory-limit");
    request_create_service(&scene.request, scene.session, COUNTER_TYPE, "", "another");
    expect_refused(scene.client, "--memory-limit");
    request_keep_alive(&scene.request, scene.session, (struct slice){0}, 0, NULL, 0);
    expect_ok(scene.client);
    payload = key_payload("key", 0);
    request_command(&scene.request, scene.session, scene.map, 2, "Remove", payload_slice(&payload));
    expect_ok(scene.client);
    request_command(&scene.request, scene.session, scene.map, 3, "Clear", (struct slice){0});
    expect_ok(scene.client);
    request_close_service(&scene.request, scene.session, scene.counter);
    expect_ok(scene.client);
    in_use = 1;
    quota()->measured_at = 0;
    put(4);
    expect_ok(scene.client);
    in_use = 64 * MR_MIB;
    quota()->measured_at = 0;
    request_close_session(&scene.request, scene.session);
    expect_ok(scene.client);
    scene_end(&scene);
}

static void listen_once_more(struct scene *listener)
{
    struct harness_frame frame;
    while (harness_take(listener->client, &frame)) /* what the others were told */
        ;
    uint64_t position = scene_listen(listener, scene.next++, "", false);
    harness_settle(scene.harness);
    scene_take(listener, position, &frame);
}

/* Asks under the scene's next number. */
static void ask_map(const char *operation, struct slice payload)
{
    request_command(&scene.request, scene.session, scene.map, scene.next++, operation, payload);
}

/* What takes away adds first, if there are many who are to be told. */
static void memory_beside_listeners(void **state)
{
    enum { FEW = 16 };
    struct payload payload = key_payload("key", 0);

    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    quota()->measure = measure;
    in_use = 64 * MR_MIB;
    put(scene.next++);
    expect_ok(scene.client);
    struct scene listener = scene_beside(&scene, 1, RING);
    for (unsigned n = 0; n < FEW; n++)
        listen_once_more(&listener);
    quota()->memory_limit = 64 * MR_MIB;
    quota()->measured_at = 0;
    ask_map("Remove", payload_slice(&payload));
    expect_ok(scene.client);
    ask_map("Clear", (struct slice){0});
    expect_ok(scene.client);
    quota()->memory_limit = 0;
    listen_once_more(&listener);
    quota()->memory_limit = 64 * MR_MIB;
    ask_map("Remove", payload_slice(&payload));
    expect_refused(scene.client, "its limit is 64M (--memory-limit); it tells too many listeners");
    ask_map("Clear", (struct slice){0});
    expect_refused(scene.client, "it tells too many listeners");
    put(scene.next++);
    expect_refused(scene.client, "(--memory-limit)");
    /* a KeepAlive that names no stream ends it, and then nobody is told */
    request_keep_alive(&scene.request, scene.session, (struct slice){0}, scene.next - 1, NULL, 0);
    expect_ok(scene.client);
    ask_map("Remove", payload_slice(&payload));
    expect_ok(scene.client);
    ask_map("Clear", (struct slice){0});
    expect_ok(scene.client);
    /* where there is no such session or service it is refused as ever */
    request_command(&scene.request, scene.session + 1000, scene.map, 5, "Remove", payload_slice(&payload));
    char message[400];
    assert_int_equal(ask_by(scene.client, message, sizeof(message)), STATUS_FORBIDDEN);
    request_free(&listener.request);
    scene_end(&scene);
}

/* Of the disk: where cutting the log does not help. */
static void disk(void **state)
{
    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    put(1);
    expect_ok(scene.client);
    quota()->disk_limit = 5 * MR_MIB;
    log_limit(scene.harness->worker.log, 5 * MR_MIB, 5 * MR_MIB); /* snapshots take it all */
    harness_settle(scene.harness);
    put(2);
    expect_refused(scene.client, "their limit is 5M (--disk-limit)");
    open_session();
    expect_refused(scene.client, "--disk-limit");
    request_keep_alive(&scene.request, scene.session, (struct slice){0}, 0, NULL, 0);
    expect_ok(scene.client);
    request_command(&scene.request, scene.session, scene.map, 2, "Clear", (struct slice){0});
    expect_ok(scene.client);
    log_limit(scene.harness->worker.log, 5 * MR_MIB, 0);
    harness_settle(scene.harness);
    put(3);
    expect_ok(scene.client);
    scene_end(&scene);
}

/* What is in the log is applied, whatever the limits are by now; and users' sessions are counted as before. */
static void a_successor_reads_back_what_is_over_its_limits(void **state)
{
    (void)state;
    scene_begin(&scene, DURABILITY_SYNC, RING);
    for (int i = 0; i < 3; i++) {
        open_session();
        expect_ok(scene.client);
    }
    for (int with_snapshot = 0; with_snapshot < 2; with_snapshot++) {
        if (with_snapshot)
            assert_true(harness_snapshot(scene.harness));
        harness_kill(scene.harness);
        assert_int_equal(harness_start(scene.harness), 0);
        harness_settle(scene.harness);
        *quota() = (struct quota){.sessions = 2, .user_sessions = 1};
        assert_int_equal(fsm_session_count(scene.harness->worker.fsm), 4);
        assert_int_equal(fsm_sessions_of(scene.harness->worker.fsm, SCENE_USER), 4);
        assert_int_equal(fsm_sessions_of(scene.harness->worker.fsm, OTHER_USER), 0);
        open_session();
        expect_refused(scene.client, "has 4 sessions");
    }
    scene_end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_of_one_user_and_of_all),
        cmocka_unit_test(no_more_than_the_limit_at_once),
        cmocka_unit_test(nobody_waits_for_other_users_sessions),
        cmocka_unit_test(a_failed_write_gives_room_back),
        cmocka_unit_test(services),
        cmocka_unit_test(nobody_waits_for_services_that_are_there),
        cmocka_unit_test(no_more_services_than_the_limit_at_once),
        cmocka_unit_test(memory),
        cmocka_unit_test(memory_beside_listeners),
        cmocka_unit_test(disk),
        cmocka_unit_test(a_successor_reads_back_what_is_over_its_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
