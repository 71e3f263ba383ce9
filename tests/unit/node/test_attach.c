/* SPDX-License-Identifier: Apache-2.0 */
/* Coming back to a session, in a worker on a machine in memory: when a question is answered, who counts as using a
 * session and who does not, and what a successor knows of that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "millrace/v1/control.pb-c.h"
#include "proto/reader.h"
#include "tests/support/requests.h"
#include "tests/support/worker_harness.h"

#define RING (64 * MR_KIB)
#define OWNER 1000
#define OTHER 1001
#define ASKER 77 /* a connection without channels */

static struct harness *harness;
static struct request request;

/* The last answer, copied. */
static struct {
    unsigned count;
    struct worker_answer answer;
    uint8_t *bytes;
    Millrace__V1__Attachment *attachment;
    Millrace__V1__SessionList *list;
} heard;

static void forget(void)
{
    free(heard.bytes);
    millrace__v1__attachment__free_unpacked(heard.attachment, NULL);
    millrace__v1__session_list__free_unpacked(heard.list, NULL);
    memset(&heard, 0, sizeof(heard));
}

static void answered(void *context, const struct worker_answer *answer)
{
    unsigned count = heard.count + 1;

    (void)context;
    forget();
    heard.count = count;
    heard.answer = *answer;
    if (answer->size > 0) {
        heard.bytes = malloc(answer->size);
        assert_non_null(heard.bytes);
        memcpy(heard.bytes, answer->bytes, answer->size);
    }
}

static void start(void)
{
    assert_int_equal(harness_start(harness), 0);
    harness->worker.answered = answered;
}

static int set_up(void **state)
{
    (void)state;
    harness = harness_create(1);
    start();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    forget();
    harness_destroy(harness);
    request_free(&request);
    return 0;
}

/* A client in a connection of its own. */
static struct harness_client *connect_client(uint32_t slot, uint32_t uid)
{
    struct harness_client *client = harness_client(harness, slot, uid, RING);

    harness->region->channels[slot].connection = slot + 1;
    harness->region->channels[slot].pid = (int32_t)(100 + slot);
    return client;
}

static uint64_t send_request(struct harness_client *client)
{
    uint64_t position = harness_send(client, FRAME_COMMAND, request.bytes, request.size, 0);

    assert_true(position != UINT64_MAX);
    return position;
}

/* The only answer there is. */
static enum status take(struct harness_client *client, struct command_output *output)
{
    struct harness_frame frame;
    struct slice part;

    assert_true(harness_take(client, &frame));
    if (frame.head.status == STATUS_OK)
        assert_int_equal(read_partition_command_output(frame.body, frame.head.size, output, &part), READ_OK);
    return (enum status)frame.head.status;
}

static enum status call(struct harness_client *client, struct command_output *output)
{
    send_request(client);
    harness_settle(harness);
    return take(client, output);
}

static uint64_t open_session(struct harness_client *client)
{
    struct command_output output;

    request_open_session(&request, (struct duration){.seconds = 3600, .present = true});
    assert_int_equal(call(client, &output), STATUS_OK);
    return output.id;
}

static uint64_t open_counter(struct harness_client *client, uint64_t session)
{
    struct command_output output;

    request_create_service(&request, session, COUNTER_TYPE, "", "c");
    assert_int_equal(call(client, &output), STATUS_OK);
    return output.id;
}

static void build_increment(uint64_t session, uint64_t counter, uint64_t number)
{
    struct payload one = number_payload(1);

    request_command(&request, session, counter, number, "Increment", payload_slice(&one));
}

static void ask(uint64_t connection, uint32_t uid, uint64_t session)
{
    attach_ask(&harness->worker,
               &(struct attach_question){.number = 5, .connection = connection, .session_id = session, .uid = uid});
}

/* The question's whole way; the status. */
static enum status attach(uint64_t connection, uint32_t uid, uint64_t session)
{
    forget();
    ask(connection, uid, session);
    harness_settle(harness);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.answer.number, 5);
    assert_int_equal(heard.answer.connection, connection);
    if (heard.answer.status == STATUS_OK) {
        heard.attachment = millrace__v1__attachment__unpack(NULL, heard.answer.size, heard.bytes);
        assert_non_null(heard.attachment);
        assert_int_equal(heard.attachment->session_id, session);
    }
    return heard.answer.status;
}

static void disconnect(struct harness_client *client)
{
    channels_close(&harness->worker, &harness->worker.channels[client->slot], "");
    harness_settle(harness);
    assert_true(client->closed);
}

static void refusals(void **state)
{
    struct harness_client *client = connect_client(0, OWNER);
    uint64_t session = open_session(client);

    (void)state;
    assert_int_equal(attach(ASKER, OWNER, session + 1), STATUS_FORBIDDEN);
    assert_string_equal(heard.answer.text, "session 2 is unknown, closed or expired");
    assert_int_equal(attach(ASKER, OTHER, session), STATUS_UNAUTHORIZED);
    assert_string_equal(heard.answer.text, "session 1 was opened by another user");
    assert_int_equal(attach(ASKER, 0, session), STATUS_UNAUTHORIZED); /* a session obeys its owner alone */
    assert_int_equal(heard.answer.holder_channel, 0);
    /* opened, and not named since: in use all the same */
    assert_int_equal(attach(ASKER, OWNER, session), STATUS_UNAVAILABLE);
    assert_string_equal(heard.answer.text, "session 1 is in use by process 100");
    assert_int_equal(heard.answer.holder_slot, 0);
    assert_int_equal(heard.answer.holder_channel, client->channel.channel_id);
    /* its own connection's channel does not stand in its way */
    assert_int_equal(attach(1, OWNER, session), STATUS_OK);
    assert_int_equal(heard.attachment->timeout_ns, 3600 * MR_SECOND);
    assert_int_equal(heard.attachment->highest, 0);
    disconnect(client);
    assert_int_equal(attach(ASKER, OWNER, session), STATUS_OK);
}

static void what_was_taken_before_is_in_the_answer(void **state)
{
    struct harness_client *client = connect_client(0, OWNER);
    uint64_t session = open_session(client), counter = open_counter(client, session);

    (void)state;
    fake_machine_config(harness->machine)->order = FAKE_MANUAL;
    for (uint64_t number = 1; number <= 10; number++) {
        build_increment(session, counter, number);
        send_request(client);
    }
    harness_settle(harness);
    assert_true(harness->worker.channels[0].in_flight > 0);
    /* its client goes away; what was taken from it is not durable yet */
    channels_close(&harness->worker, &harness->worker.channels[0], "");
    ask(ASKER, OWNER, session);
    harness_settle(harness);
    assert_int_equal(heard.count, 0);
    for (int i = 0; i < 8; i++) {
        fake_io_finish_all(harness->io);
        harness_settle(harness);
    }
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.answer.status, STATUS_OK);
    heard.attachment = millrace__v1__attachment__unpack(NULL, heard.answer.size, heard.bytes);
    assert_int_equal(heard.attachment->highest, 10);
    assert_int_equal(heard.attachment->n_open, 0);
}

/* Commands of a channel that are not applied yet when the question comes make it a user of the session too. */
static void what_was_taken_before_counts_as_use(void **state)
{
    struct harness_client *first = connect_client(0, OWNER), *second = connect_client(1, OWNER);
    uint64_t session = open_session(first), counter = open_counter(first, session);

    (void)state;
    disconnect(first);
    fake_machine_config(harness->machine)->order = FAKE_MANUAL;
    build_increment(session, counter, 1);
    send_request(second);
    harness_settle(harness);
    ask(ASKER, OWNER, session);
    for (int i = 0; i < 8; i++) {
        harness_settle(harness);
        fake_io_finish_all(harness->io);
    }
    harness_settle(harness);
    assert_int_equal(heard.answer.status, STATUS_UNAVAILABLE);
    assert_string_equal(heard.answer.text, "session 1 is in use by process 101");
}

/* Straight into the log, as a channel that is gone has left it: it may be more than its rings hold at a time. */
static void apply(uint32_t uid)
{
    uint64_t index = fsm_index(harness->worker.fsm) + 1;
    struct partition_command_input input;

    assert_int_equal(read_partition_command_input(request.bytes, request.size, &input), READ_OK);
    struct fsm_entry entry = {
        .index = index, .time = fsm_time(harness->worker.fsm), .uid = uid, .command = &input.command};
    fsm_apply(harness->worker.fsm, &entry, &harness->worker.sink);
}

static void listen_to(uint64_t session, uint64_t map, uint64_t number)
{
    struct payload all = events_payload("", false);

    request_command(&request, session, map, number, "Events", payload_slice(&all));
    apply(OWNER);
}

/* Many commands are open: they are told a few a turn, and anew if they change meanwhile, but not for ever. */
static void a_session_with_much_open(void **state)
{
    enum { OPEN = 3 * ATTACH_OPEN_A_TURN };
    struct harness_client *client = connect_client(0, OWNER);
    struct command_output output;
    uint64_t session = open_session(client);
    uint8_t seen[OPEN + 2] = {0};

    (void)state;
    request_create_service(&request, session, MAP_TYPE, "", "m");
    assert_int_equal(call(client, &output), STATUS_OK);
    disconnect(client);
    for (uint64_t number = 1; number <= OPEN; number++)
        listen_to(session, output.id, number);
    forget();
    ask(ASKER, OWNER, session);
    turn_run(&harness->worker);
    turn_run(&harness->worker);
    assert_int_equal(heard.count, 0);
    listen_to(session, output.id, OPEN + 1); /* it begins anew, and needs one turn more now */
    for (unsigned turns = 0; turns < 3; turns++) {
        turn_run(&harness->worker);
        assert_int_equal(heard.count, 0);
    }
    turn_run(&harness->worker);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.answer.status, STATUS_OK);
    heard.attachment = millrace__v1__attachment__unpack(NULL, heard.answer.size, heard.bytes);
    assert_int_equal(heard.attachment->n_open, OPEN + 1);
    assert_int_equal(heard.attachment->highest, OPEN + 1);
    for (size_t i = 0; i < OPEN + 1; i++)
        assert_int_equal(seen[heard.attachment->open[i]->sequence_num]++, 0);
    forget();
    ask(ASKER, OWNER, session);
    for (unsigned begun = 0; begun < ATTACH_BEGUN_MOST; begun++) {
        assert_int_equal(heard.count, 0);
        turn_run(&harness->worker);
        listen_to(session, output.id, OPEN + 2 + begun);
    }
    turn_run(&harness->worker);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.answer.status, STATUS_UNAVAILABLE);
    assert_non_null(strstr(heard.answer.text, "all the time"));
}

/* A name may be as long as a request, and each open command is told with that of its service. */
static void long_names_are_not_told_without_end(void **state)
{
    enum { NAME = 12000 };
    const unsigned open = MR_ATTACH_BYTES_MAX / NAME + 100;
    struct harness_client *client = connect_client(0, OWNER);
    uint64_t session = open_session(client);
    char name[NAME + 1], limit[32];

    (void)state;
    memset(name, 'n', NAME);
    name[NAME] = '\0';
    request_create_service(&request, session, MAP_TYPE, "", name);
    apply(OWNER);
    uint64_t map = fsm_index(harness->worker.fsm);
    disconnect(client);
    for (uint64_t number = 1; number <= open / 2; number++)
        listen_to(session, map, number);
    forget();
    ask(ASKER, OWNER, session);
    turn_run(&harness->worker);
    assert_int_equal(heard.count, 0);
    assert_in_range(harness->worker.questions->bytes.size, 1, MR_TURN_BYTES + 2 * NAME);
    harness_settle(harness);
    assert_int_equal(heard.answer.status, STATUS_OK);
    heard.attachment = millrace__v1__attachment__unpack(NULL, heard.answer.size, heard.bytes);
    assert_int_equal(heard.attachment->n_open, open / 2);
    for (uint64_t number = open / 2 + 1; number <= open; number++)
        listen_to(session, map, number);
    assert_int_equal(attach(ASKER, OWNER, session), STATUS_UNAVAILABLE);
    snprintf(limit, sizeof(limit), "%llu bytes", (unsigned long long)MR_ATTACH_BYTES_MAX);
    assert_non_null(strstr(heard.answer.text, limit));
}

static void a_stranger_does_not_keep_the_owner_out(void **state)
{
    struct harness_client *client = connect_client(0, OWNER), *stranger = connect_client(1, OTHER);
    struct command_output output;
    uint64_t session = open_session(client);

    (void)state;
    request_keep_alive(&request, session, (struct slice){NULL, 0}, 0, NULL, 0);
    assert_int_equal(call(stranger, &output), STATUS_UNAUTHORIZED);
    disconnect(client);
    assert_int_equal(attach(ASKER, OWNER, session), STATUS_OK);
}

static void a_successor_knows_who_uses_what(void **state)
{
    struct harness_client *opener = connect_client(0, OWNER), *user = connect_client(1, OWNER);
    struct command_output output;
    uint64_t opened = open_session(opener), used = open_session(opener), left = open_session(opener);

    (void)state;
    request_keep_alive(&request, used, (struct slice){NULL, 0}, 0, NULL, 0);
    assert_int_equal(call(user, &output), STATUS_OK);
    for (int life = 0; life < 3; life++) {
        assert_int_equal(attach(1, OWNER, used), STATUS_UNAVAILABLE);
        assert_string_equal(heard.answer.text, "session 2 is in use by process 101");
        assert_int_equal(attach(2, OWNER, opened), STATUS_UNAVAILABLE);
        assert_string_equal(heard.answer.text, "session 1 is in use by process 100");
        if (life > 0) /* and when the log does not tell any more */
            assert_true(harness_snapshot(harness));
        harness_kill(harness);
        start();
        harness_settle(harness);
        assert_int_equal(harness->found.entries, life > 0 ? 0 : 4);
    }
    disconnect(opener);
    harness_kill(harness);
    start();
    assert_int_equal(attach(ASKER, OWNER, left), STATUS_OK);
    assert_int_equal(attach(ASKER, OWNER, used), STATUS_UNAVAILABLE);
}

static void a_disk_that_fails(void **state)
{
    struct harness_client *client = connect_client(0, OWNER);
    uint64_t session = open_session(client), counter = open_counter(client, session);

    (void)state;
    fake_machine_fail(harness->machine, FAKE_WRITE, NULL, 1, UINT64_MAX, EIO);
    build_increment(session, counter, 1);
    send_request(client);
    turn_run(&harness->worker);
    ask(1, OWNER, session);
    harness_settle(harness);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.answer.status, STATUS_UNAVAILABLE);
    assert_string_equal(heard.answer.text, "the partition's log cannot be written just now; try again later");
    /* when it works again, what was taken back is not waited for */
    fake_machine_heal(harness->machine);
    for (int i = 0; i < 5; i++) {
        fake_machine_advance(harness->machine, 2 * MR_SECOND);
        harness_settle(harness);
    }
    assert_int_equal(attach(1, OWNER, session), STATUS_OK);
    assert_int_equal(heard.attachment->highest, 0);
}

static void list(uint32_t uid)
{
    forget();
    ask(ASKER, uid, 0);
    harness_settle(harness);
    assert_int_equal(heard.count, 1);
    assert_int_equal(heard.answer.status, STATUS_OK);
    heard.list = millrace__v1__session_list__unpack(NULL, heard.answer.size, heard.bytes);
    assert_non_null(heard.list);
}

static void lists(void **state)
{
    struct harness_client *client = connect_client(0, OWNER), *other = connect_client(1, OTHER);
    struct command_output output;
    uint64_t session = open_session(client), others = open_session(other);
    uint64_t counter = open_counter(client, session);

    (void)state;
    build_increment(session, counter, 1);
    assert_int_equal(call(client, &output), STATUS_OK);
    fake_machine_advance(harness->machine, 50 * MR_MILLISECOND);
    list(OWNER);
    assert_int_equal(heard.list->n_sessions, 1);
    const Millrace__V1__SessionEntry *entry = heard.list->sessions[0];
    assert_int_equal(entry->session_id, session);
    assert_int_equal(entry->uid, OWNER);
    assert_int_equal(entry->timeout_ns, 3600 * MR_SECOND);
    assert_in_range(entry->remaining_ns, 3599 * MR_SECOND, 3600 * MR_SECOND - 50 * MR_MILLISECOND);
    assert_int_equal(entry->holder, 100);
    assert_int_equal(entry->open_commands, 0);
    assert_true(entry->stored_bytes > 0);
    disconnect(other);
    list(0);
    assert_int_equal(heard.list->n_sessions, 2);
    assert_int_equal(heard.list->sessions[1]->session_id, others);
    assert_int_equal(heard.list->sessions[1]->holder, 0);
    list(OTHER + 1);
    assert_int_equal(heard.list->n_sessions, 0);
    assert_int_equal(heard.answer.size, 0);
}

/* A few a turn, while sessions end and begin; each that was there all the time is listed once, in order. */
static void a_long_list(void **state)
{
    enum { SESSIONS = 3 * ATTACH_LIST_A_TURN };
    struct harness_client *client = connect_client(0, OWNER);
    struct command_output output;
    unsigned turns = 0;

    (void)state;
    for (uint64_t i = 1; i <= SESSIONS; i++)
        assert_int_equal(open_session(client), i);
    ask(ASKER, OWNER, 0);
    while (heard.count == 0) {
        turn_run(&harness->worker);
        if (++turns == 1) { /* the one at which the list stands, and one behind it */
            assert_int_equal(harness->worker.questions[0].listed, ATTACH_LIST_A_TURN);
            request_close_session(&request, ATTACH_LIST_A_TURN);
            send_request(client);
            request_close_session(&request, SESSIONS);
            send_request(client);
        }
        assert_true(turns < 100);
    }
    assert_true(turns > 2);
    heard.list = millrace__v1__session_list__unpack(NULL, heard.answer.size, heard.bytes);
    assert_in_range(heard.list->n_sessions, SESSIONS - 1, SESSIONS);
    for (size_t i = 0; i < SESSIONS - 1; i++) {
        assert_int_equal(heard.list->sessions[i]->session_id, i + 1);
        assert_int_equal(heard.list->sessions[i]->holder, 100);
    }
    harness_settle(harness);
    assert_int_equal(take(client, &output), STATUS_OK);
}

/* Tens of thousands of sessions through one channel: those that have ended are forgotten; of too many at once none is
 * told from another. */
static void many_sessions(void **state)
{
    struct harness_client *client = connect_client(0, OWNER);
    struct command_output output;
    const struct session_use *use = &harness->worker.channels[0].sessions;
    const struct region_sessions *table = &harness->region->channels[0].sessions;

    (void)state;
    harness->worker.answered = answered;
    for (unsigned i = 0; i < ATTACH_SESSIONS_MAX + 300; i++) {
        uint64_t session = open_session(client);
        assert_int_equal(attach(ASKER, OWNER, session), STATUS_UNAVAILABLE);
        request_close_session(&request, session);
        assert_int_equal(call(client, &output), STATUS_OK);
        assert_int_equal(table->all, 0);
    }
    assert_in_range(use->count, 1, 301);
    uint64_t first = open_session(client);
    unsigned taken = 0;
    for (unsigned sent = 0; sent < ATTACH_SESSIONS_MAX + 1; sent += 64) {
        for (unsigned i = 0; i < 64; i++) {
            request_open_session(&request, (struct duration){.seconds = 3600, .present = true});
            send_request(client);
        }
        harness_settle(harness);
        for (unsigned i = 0; i < 64; i++, taken++)
            assert_int_equal(take(client, &output), STATUS_OK);
        assert_int_equal(table->all, taken + 1 > ATTACH_SESSIONS_MAX);
    }
    assert_int_equal(table->all, 1);
    assert_int_equal(attach(ASKER, OWNER, first), STATUS_UNAVAILABLE);
    disconnect(client);
    assert_int_equal(attach(ASKER, OWNER, first), STATUS_OK);
}

/* Questions that nobody answers any more are freed with the worker. */
static void questions_end_with_the_worker(void **state)
{
    struct harness_client *client = connect_client(0, OWNER);

    (void)state;
    for (unsigned i = 0; i < 2 * ATTACH_LIST_A_TURN; i++)
        open_session(client);
    for (unsigned i = 0; i < 20; i++)
        ask(ASKER, OWNER, i % 2);
    turn_run(&harness->worker);
    harness_kill(harness);
    assert_int_equal(heard.count, 0);
    start();
    assert_int_equal(attach(1, OWNER, 1), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_taken_before_is_in_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_taken_before_counts_as_use, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_session_with_much_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_names_are_not_told_without_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stranger_does_not_keep_the_owner_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_successor_knows_who_uses_what, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_disk_that_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lists, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_long_list, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_sessions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(questions_end_with_the_worker, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
