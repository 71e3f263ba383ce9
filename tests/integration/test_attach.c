/* SPDX-License-Identifier: Apache-2.0 */
/* Coming back to a session, on a real node, packet by packet: who is let in and who is not, what is said of what the
 * session holds, and that nothing of it is lost with a worker or a node. */
#include "tests/support/spawn.h"
#include "tests/support/stub_node.h"

#include <fcntl.h>
#include <linux/securebits.h>
#include <millrace/limits.h>
#include <millrace/status.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/frame.h"
#include "ipc/handshake.h"
#include "ipc/ring.h"
#include "proto/reader.h"
#include "tests/support/live_node.h"
#include "tests/support/requests.h"
#include "tests/support/wait.h"

#define NOBODY 65534

static struct node node;
static struct request request;

static int tear_down(void **state)
{
    (void)state;
    node_end(&node);
    request_free(&request);
    return 0;
}

/* ---- a client ---- */

struct user {
    struct stub_client client;
    struct channel channel; /* to partition 1; page NULL: none */
    struct ring_writer requests;
    struct ring_reader responses;
};

static void greet(struct user *user)
{
    struct stub_node place = {.pid = 0};

    *user = (struct user){.channel = {.memory_fd = -1}};
    snprintf(place.socket, sizeof(place.socket), "%s", node.socket);
    stub_greet(&user->client, &place);
}

static void open_channel(struct user *user)
{
    struct channel *channel = &user->channel;

    stub_open_channel(&user->client, 1, 0, channel);
    ring_writer_attach(&user->requests, channel->request_data, channel->ring_bytes, &channel->page->request, 0, 0);
    ring_reader_attach(&user->responses, channel->response_data, channel->ring_bytes, &channel->page->response, 0, 0);
}

static void leave(struct user *user)
{
    stub_disconnect(&user->client);
    if (user->channel.page != NULL)
        channel_unmap(&user->channel);
    user->channel.page = NULL;
}

static uint64_t put(struct user *user, enum frame_kind kind)
{
    struct request_head head = {.size = (uint32_t)request.size, .kind = (uint8_t)kind};
    uint64_t position = user->requests.tail;
    uint8_t *at = NULL;

    assert_int_equal(ring_reserve(&user->requests, request_frame_bytes(request.size), &at), RING_OK);
    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), request.bytes, request.size);
    ring_advance(&user->requests, request_frame_bytes(request.size));
    if (ring_publish(&user->requests))
        assert_int_equal(eventfd_write(user->channel.node_wake_fd, 1), 0);
    return position;
}

struct answer {
    struct response_head head;
    uint8_t body[4096];
    struct command_output output; /* of a command */
    struct operation_output query;
    struct slice part;
};

/* The next frame. */
static void take(struct user *user, struct answer *answer)
{
    const uint8_t *at = NULL;

    assert_true(wait_for(ring_peek(&user->responses, sizeof(answer->head), &at) == RING_OK));
    ring_copy(&answer->head, at, sizeof(answer->head));
    assert_true(answer->head.size <= sizeof(answer->body));
    uint64_t bytes = response_frame_bytes(answer->head.size);
    assert_int_equal(ring_peek(&user->responses, bytes, &at), RING_OK);
    memcpy(answer->body, at + sizeof(answer->head), answer->head.size);
    ring_skip(&user->responses, bytes);
    ring_release(&user->responses, user->responses.head);
}

static void call(struct user *user, enum frame_kind kind, struct answer *answer)
{
    uint64_t position = put(user, kind);

    do
        take(user, answer);
    while (answer->head.request != position);
    assert_int_equal(answer->head.status, STATUS_OK);
    if (kind == FRAME_COMMAND)
        assert_int_equal(read_partition_command_output(answer->body, answer->head.size, &answer->output, &answer->part),
                         READ_OK);
    else
        assert_int_equal(read_partition_query_output(answer->body, answer->head.size, &answer->query, &answer->part),
                         READ_OK);
}

static uint64_t open_session(struct user *user)
{
    struct answer answer;

    request_open_session(&request, (struct duration){.seconds = 3600, .present = true});
    call(user, FRAME_COMMAND, &answer);
    return answer.output.id;
}

static uint64_t open_service(struct user *user, uint64_t session, const char *type, const char *name)
{
    struct answer answer;

    request_create_service(&request, session, type, "space", name);
    call(user, FRAME_COMMAND, &answer);
    return answer.output.id;
}

static void build_increment(uint64_t session, uint64_t counter, uint64_t number)
{
    struct payload one = number_payload(1);

    request_command(&request, session, counter, number, "Increment", payload_slice(&one));
}

/* ---- answers to questions ---- */

/* What a descriptor holds: size bytes that nobody can change. */
static uint8_t *contents(int fd, uint64_t size)
{
    struct stat status;
    uint8_t *bytes = malloc(size + 1);

    assert_true(fd >= 0 && bytes != NULL);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, size);
    assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
    assert_int_equal(pread(fd, bytes, size, 0), size);
    close(fd);
    return bytes;
}

static Millrace__V1__Attachment *expect_attached(struct user *user, uint64_t session)
{
    int fds[2];
    Millrace__V1__NodeMessage *message = stub_receive(&user->client, fds);

    assert_non_null(message);
    if (message->message_case == MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED)
        fail_msg("refused: %.*s", (int)message->refused->message.len, (const char *)message->refused->message.data);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_ATTACHED);
    assert_int_equal(message->attached->partition, 1);
    assert_int_equal(message->attached->session_id, session);
    uint8_t *bytes = contents(fds[0], message->attached->size);
    Millrace__V1__Attachment *attachment = millrace__v1__attachment__unpack(NULL, message->attached->size, bytes);
    assert_non_null(attachment);
    assert_int_equal(attachment->session_id, session);
    assert_int_equal(attachment->timeout_ns, 3600 * MR_SECOND);
    free(bytes);
    stub_free(message);
    return attachment;
}

static void free_attachment(Millrace__V1__Attachment *attachment)
{
    millrace__v1__attachment__free_unpacked(attachment, NULL);
}

/* Somebody comes, is let in, and goes. */
static void come_and_go(uint64_t session, uint64_t highest)
{
    struct user user;

    greet(&user);
    stub_ask_attach(&user.client, 1, session);
    Millrace__V1__Attachment *attachment = expect_attached(&user, session);
    assert_int_equal(attachment->highest, highest);
    free_attachment(attachment);
    leave(&user);
}

static Millrace__V1__SessionList *list(struct user *user)
{
    int fds[2];

    stub_ask_sessions(&user->client, 1);
    Millrace__V1__NodeMessage *message = stub_receive(&user->client, fds);
    assert_non_null(message);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_SESSIONS);
    assert_int_equal(message->sessions->partition, 1);
    uint8_t *bytes = contents(fds[0], message->sessions->size);
    Millrace__V1__SessionList *sessions = millrace__v1__session_list__unpack(NULL, message->sessions->size, bytes);
    assert_non_null(sessions);
    free(bytes);
    stub_free(message);
    return sessions;
}

/* As another user, if we may be one: one to whom files are open all the same. */
static bool greet_as_nobody(struct user *user)
{
    if (geteuid() != 0)
        return false;
    assert_int_equal(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP), 0);
    assert_int_equal(seteuid(NOBODY), 0);
    greet(user);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(prctl(PR_SET_SECUREBITS, 0), 0);
    return true;
}

/* ---- the tests ---- */

static const char *const one_partition[] = {"--partitions", "1", NULL};

static void test_refusals(void **state)
{
    struct user holder, asker, nobody;
    char text[100];

    (void)state;
    node_begin(&node, one_partition);
    greet(&holder);
    open_channel(&holder);
    uint64_t session = open_session(&holder);
    greet(&asker);
    stub_ask_attach(&asker.client, 1, session + 1);
    stub_expect_refused(&asker.client, MR_FORBIDDEN, "is unknown, closed or expired", false);
    stub_ask_attach(&asker.client, 1, 0);
    stub_expect_refused(&asker.client, MR_FORBIDDEN, "session 0", false);
    stub_ask_attach(&asker.client, 2, session);
    stub_expect_refused(&asker.client, MR_INVALID, "there is no partition 2", false);
    stub_ask_sessions(&asker.client, 0);
    stub_expect_refused(&asker.client, MR_INVALID, "there is no partition 0", false);
    stub_ask_attach(&asker.client, 1, session);
    snprintf(text, sizeof(text), "session %d is in use by process %d", (int)session, (int)getpid());
    stub_expect_refused(&asker.client, MR_UNAVAILABLE, text, false);
    if (greet_as_nobody(&nobody)) {
        stub_ask_attach(&nobody.client, 1, session);
        stub_expect_refused(&nobody.client, MR_UNAUTHORIZED, "was opened by another user", false);
        leave(&nobody);
    }
    /* whoever uses it himself is not in his own way */
    stub_ask_attach(&holder.client, 1, session);
    free_attachment(expect_attached(&holder, session));
    leave(&holder);
    /* the holder has gone, if only just: whatever the node had heard of that */
    stub_ask_attach(&asker.client, 1, session);
    free_attachment(expect_attached(&asker, session));
    leave(&asker);
}

/* Between attaching and the first command nobody else is let in either. */
static void test_one_at_a_time(void **state)
{
    struct user first, second, third;
    char text[100];

    (void)state;
    node_begin(&node, one_partition);
    greet(&first);
    open_channel(&first);
    uint64_t session = open_session(&first);
    leave(&first);
    greet(&second);
    greet(&third);
    stub_ask_attach(&second.client, 1, session);
    free_attachment(expect_attached(&second, session));
    snprintf(text, sizeof(text), "in use by process %d", (int)getpid());
    stub_ask_attach(&third.client, 1, session);
    stub_expect_refused(&third.client, MR_UNAVAILABLE, text, false);
    stub_ask_attach(&second.client, 1, session); /* asked again */
    free_attachment(expect_attached(&second, session));
    /* nor after a worker's death */
    node_wait_worker(&node, 1, node_kill_worker(&node, 1));
    stub_ask_attach(&third.client, 1, session);
    stub_expect_refused(&third.client, MR_UNAVAILABLE, text, false);
    /* a channel that it uses counts on, also over a death */
    open_channel(&second);
    open_service(&second, session, COUNTER_TYPE, "c");
    stub_ask_attach(&third.client, 1, session);
    stub_expect_refused(&third.client, MR_UNAVAILABLE, text, false);
    node_wait_worker(&node, 1, node_kill_worker(&node, 1));
    stub_ask_attach(&third.client, 1, session);
    stub_expect_refused(&third.client, MR_UNAVAILABLE, text, false);
    leave(&second);
    stub_ask_attach(&third.client, 1, session);
    free_attachment(expect_attached(&third, session));
    leave(&third);
}

static bool says(ProtobufCBinaryData bytes, const char *word)
{
    return bytes.len == strlen(word) && memcmp(bytes.data, word, bytes.len) == 0;
}

static void check_held(struct user *user, uint64_t session, uint64_t map)
{
    stub_ask_attach(&user->client, 1, session);
    Millrace__V1__Attachment *attachment = expect_attached(user, session);
    assert_int_equal(attachment->highest, 5);
    assert_int_equal(attachment->n_open, 1); /* of the other two nobody will ask for anything */
    const Millrace__V1__OpenCommand *events = attachment->open[0];
    assert_int_equal(events->sequence_num, 1);
    assert_int_equal(events->acknowledged, 2);
    assert_int_equal(events->service_id, map);
    assert_true(says(events->service, MAP_TYPE));
    assert_true(says(events->name_space, "space"));
    assert_true(says(events->name, "m"));
    assert_true(says(events->operation, "Events"));
    free_attachment(attachment);
}

static void test_what_is_held(void **state)
{
    static const uint64_t kept[] = {1, 3};
    const struct last_output upto_two = {.sequence_num = 1, .last_output = 2};
    struct user user, asker;
    struct answer answer;
    uint8_t filter[2 + 512];

    (void)state;
    node_begin(&node, one_partition);
    greet(&user);
    open_channel(&user);
    uint64_t session = open_session(&user), map = open_service(&user, session, MAP_TYPE, "m");
    struct payload all = events_payload("", false);
    request_command(&request, session, map, 1, "Events", payload_slice(&all));
    put(&user, FRAME_COMMAND);
    for (uint64_t number = 2; number <= 5; number++) {
        char key[2] = {(char)('a' + number), '\0'};
        struct payload put_payload = write_payload(key, text("value"), NULL, 0);
        request_command(&request, session, map, number, "Put", payload_slice(&put_payload));
        call(&user, FRAME_COMMAND, &answer);
    }
    /* 1 goes on and has had two outputs, 2 and 4 are answered, 3 is not; 5 is not spoken of */
    request_keep_alive(&request, session, make_filter(filter, 8, 4096, kept, 2), 4, &upto_two, 1);
    call(&user, FRAME_COMMAND, &answer);
    leave(&user);

    greet(&asker);
    check_held(&asker, session, map);
    node_wait_worker(&node, 1, node_kill_worker(&node, 1));
    check_held(&asker, session, map);
    Millrace__V1__SessionList *sessions = list(&asker);
    assert_int_equal(sessions->n_sessions, 1);
    assert_int_equal(sessions->sessions[0]->open_commands, 1);
    assert_true(sessions->sessions[0]->stored_bytes > 0);
    millrace__v1__session_list__free_unpacked(sessions, NULL);
    leave(&asker);
    /* and the node's own end */
    assert_int_equal(node_stop(&node), 0);
    node_start(&node);
    greet(&asker);
    check_held(&asker, session, map);
    leave(&asker);
    node_kill_all(&node);
    node_start(&node);
    greet(&asker);
    check_held(&asker, session, map);
    /* it can be gone on with */
    open_channel(&asker);
    struct payload last = write_payload("z", text("value"), NULL, 0);
    request_command(&request, session, map, 6, "Put", payload_slice(&last));
    call(&asker, FRAME_COMMAND, &answer);
    assert_int_equal(answer.output.operation.status, STATUS_OK);
    leave(&asker);
}

static pid_t halt_worker(void)
{
    pid_t pid = node_partition(&node, 1).pid;

    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_true(wait_for(process_is_stopped(pid)));
    return pid;
}

/* What a process that has gone left in its ring is applied before the answer, or never. */
static void test_nothing_comes_behind_the_answer(void **state)
{
    struct user user, asker;
    struct answer answer;

    (void)state;
    node_begin(&node, one_partition);
    for (unsigned round = 0; round < 5; round++) {
        char name[16];
        snprintf(name, sizeof(name), "c%u", round);
        greet(&user);
        open_channel(&user);
        uint64_t session = open_session(&user), counter = open_service(&user, session, COUNTER_TYPE, name);
        pid_t worker = halt_worker();
        for (uint64_t number = 1; number <= 100; number++) {
            build_increment(session, counter, number);
            put(&user, FRAME_COMMAND);
        }
        leave(&user);
        greet(&asker);
        stub_ask_attach(&asker.client, 1, session);
        assert_int_equal(kill(worker, SIGCONT), 0);
        Millrace__V1__Attachment *attachment = expect_attached(&asker, session);
        uint64_t highest = attachment->highest;
        assert_int_equal(attachment->n_open, 0);
        free_attachment(attachment);
        /* the next number is as new as the answer says */
        open_channel(&asker);
        build_increment(session, counter, highest + 1);
        call(&asker, FRAME_COMMAND, &answer);
        struct field_reader reader =
            field_reader((struct slice){answer.output.operation.parts[0].data, answer.output.operation.payload_size});
        assert_true(field_next(&reader));
        assert_int_equal(reader.value, highest + 1);
        leave(&asker);
    }
}

/* A holder that has gone is no holder, though the node hears of its end after the question, or behind many words of
 * its own. */
static void test_an_end_not_heard_yet(void **state)
{
    struct user user, asker;

    (void)state;
    node_begin(&node, one_partition);
    for (unsigned words = 0; words <= 50; words += 50) {
        greet(&asker);
        greet(&user);
        open_channel(&user);
        uint64_t session = open_session(&user);
        process_signal(&node.process, SIGSTOP);
        assert_true(wait_for(process_is_stopped(node.process.pid)));
        stub_ask_attach(&asker.client, 1, session);
        for (unsigned i = 0; i < words; i++)
            stub_say_mapped(&user.client, 1000000 + i); /* nobody's: not answered */
        leave(&user);
        process_signal(&node.process, SIGCONT);
        free_attachment(expect_attached(&asker, session));
        leave(&asker);
    }
}

static void test_a_worker_dies_with_the_question(void **state)
{
    struct user user, asker;

    (void)state;
    node_begin(&node, one_partition);
    greet(&user);
    open_channel(&user);
    uint64_t session = open_session(&user);
    leave(&user);
    greet(&asker);
    greet(&user);
    pid_t worker = halt_worker();
    stub_ask_attach(&asker.client, 1, session);
    stub_ask_sessions(&user.client, 1);
    (void)stub_status(&user.client, 1); /* by now the supervisor has passed both on */
    assert_int_equal(kill(worker, SIGKILL), 0);
    free_attachment(expect_attached(&asker, session));
    int fds[2];
    Millrace__V1__NodeMessage *message = stub_receive(&user.client, fds);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_SESSIONS);
    close(fds[0]);
    stub_free(message);
    leave(&asker);
    leave(&user);
}

static void test_the_asker_goes_away(void **state)
{
    struct user user, asker;

    (void)state;
    node_begin(&node, one_partition);
    greet(&user);
    open_channel(&user);
    uint64_t session = open_session(&user);
    leave(&user);
    for (unsigned i = 0; i < 10; i++) {
        pid_t worker = halt_worker();
        greet(&asker);
        stub_ask_attach(&asker.client, 1, session);
        stub_ask_sessions(&asker.client, 1);
        leave(&asker);
        assert_int_equal(kill(worker, SIGCONT), 0);
        if (i % 2 == 0)
            come_and_go(session, 0);
    }
    come_and_go(session, 0);
    assert_int_equal(node_partition(&node, 1).restarts, 0);
}

static void test_lists(void **state)
{
    struct user user, other, asker;

    (void)state;
    node_begin(&node, one_partition);
    greet(&user);
    open_channel(&user);
    uint64_t session = open_session(&user);
    bool as_root = greet_as_nobody(&other);
    uint64_t others = 0;
    if (as_root) {
        open_channel(&other);
        others = open_session(&other);
        Millrace__V1__SessionList *sessions = list(&other);
        assert_int_equal(sessions->n_sessions, 1);
        assert_int_equal(sessions->sessions[0]->session_id, others);
        assert_int_equal(sessions->sessions[0]->uid, NOBODY);
        assert_int_equal(sessions->sessions[0]->holder, getpid());
        millrace__v1__session_list__free_unpacked(sessions, NULL);
        leave(&other);
        assert_true(wait_for(node_partition(&node, 1).channels == 1));
    }
    greet(&asker);
    Millrace__V1__SessionList *sessions = list(&asker);
    assert_int_equal(sessions->n_sessions, as_root ? 2 : 1);
    const Millrace__V1__SessionEntry *entry = sessions->sessions[0];
    assert_int_equal(entry->session_id, session);
    assert_int_equal(entry->uid, geteuid());
    assert_int_equal(entry->holder, getpid());
    assert_int_equal(entry->timeout_ns, 3600 * MR_SECOND);
    assert_in_range(entry->remaining_ns, 3000 * MR_SECOND, 3600 * MR_SECOND);
    if (as_root) {
        assert_int_equal(sessions->sessions[1]->session_id, others);
        assert_int_equal(sessions->sessions[1]->holder, 0);
    }
    millrace__v1__session_list__free_unpacked(sessions, NULL);
    leave(&asker);
    leave(&user);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_refusals, tear_down),
        cmocka_unit_test_teardown(test_one_at_a_time, tear_down),
        cmocka_unit_test_teardown(test_what_is_held, tear_down),
        cmocka_unit_test_teardown(test_nothing_comes_behind_the_answer, tear_down),
        cmocka_unit_test_teardown(test_an_end_not_heard_yet, tear_down),
        cmocka_unit_test_teardown(test_a_worker_dies_with_the_question, tear_down),
        cmocka_unit_test_teardown(test_the_asker_goes_away, tear_down),
        cmocka_unit_test_teardown(test_lists, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
