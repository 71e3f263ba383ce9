/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that stay open: their outputs, stored and given, acknowledged and given again; a sink without room; being
 * sent again; every way in which one ends; the session's limit. The outputs are those of a service type of the tests'
 * own, which gives as many as it is told to. */
#include "tests/support/partition.h"

#include "engine/fsm/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct slice no_filter;
static const struct payload none;

/* ---- a service type of the tests' own ---- */

#define TALKER_TYPE "test.Talker"

struct talker {
    struct service_host *host;
    struct listening *listening[64]; /* in the order in which they came; NULL: gone */
    unsigned count;
    unsigned ended; /* how many were ended from outside */
};

struct listening {
    struct stream *stream;
    unsigned place;
};

static struct service_call *say(struct talker *talker, struct slice bytes)
{
    struct service_call *output = stream_output(talker->host);
    if (bytes.size > 0)
        memcpy(call_put(output, bytes.size), bytes.data, bytes.size);
    return output;
}

/* Opens, and gives as many outputs at once as the payload has bytes, each of one of them. */
static void listen(void *state, struct service_call *call)
{
    struct talker *talker = state;
    struct slice payload = call_payload(call);
    if (payload.size > 0 && payload.data[0] == '!') { /* answers as an ordinary command */
        call_fail(call, STATUS_NOT_FOUND, "refused to open");
        return;
    }
    struct listening *listening = calloc(1, sizeof(*listening));
    listening->place = talker->count;
    talker->listening[talker->count++] = listening;
    listening->stream = call_open(call, listening);
    for (size_t i = 0; i < payload.size; i++)
        if (!stream_emit(listening->stream, say(talker, (struct slice){payload.data + i, 1})))
            return;
}

static void talk(void *state, struct service_call *call)
{
    struct talker *talker = state;
    struct service_call *output = say(talker, call_payload(call));
    for (unsigned i = 0; i < talker->count; i++)
        if (talker->listening[i] != NULL)
            stream_emit(talker->listening[i]->stream, output);
}

/* Ends all, with a last output; a payload of "!" makes it a failure. */
static void finish(void *state, struct service_call *call)
{
    struct talker *talker = state;
    struct slice payload = call_payload(call);
    struct service_call *output = say(talker, payload);
    if (payload.size == 1 && payload.data[0] == '!')
        call_fail(output, STATUS_CONFLICT, "it is over");
    for (unsigned i = 0; i < talker->count; i++) {
        if (talker->listening[i] == NULL)
            continue;
        stream_end(talker->listening[i]->stream, output);
        free(talker->listening[i]);
        talker->listening[i] = NULL;
    }
}

static void fail_always(void *state, struct service_call *call)
{
    (void)state;
    call_fail(call, STATUS_ERROR, "the service's code has failed");
}

static void ended_count(void *state, struct service_call *call)
{
    const struct talker *talker = state;
    call_put(call, 1)[0] = (uint8_t)talker->ended;
}

static void *create(struct service_host *host)
{
    struct talker *talker = calloc(1, sizeof(*talker));
    talker->host = host;
    return talker;
}

static void dump(void *state, void (*write)(void *context, const void *data, size_t size), void *context)
{
    const struct talker *talker = state;
    write(context, &talker->count, sizeof(talker->count));
}

static void ended(void *state, void *context)
{
    struct talker *talker = state;
    struct listening *listening = context;
    talker->listening[listening->place] = NULL;
    talker->ended++;
    free(listening);
}

static const struct service_operation operations[] = {{"Listen", OPERATION_STREAM, listen},
                                                      {"Talk", OPERATION_COMMAND, talk},
                                                      {"Finish", OPERATION_COMMAND, finish},
                                                      {"Fail", OPERATION_COMMAND, fail_always},
                                                      {"Ended", OPERATION_QUERY, ended_count}};

static const struct service_type talker_type = {.name = TALKER_TYPE,
                                                .operations = operations,
                                                .operation_count = 5,
                                                .create = create,
                                                .destroy = free,
                                                .dump = dump,
                                                .ended = ended};
static const struct service_type *const talker_types[] = {&talker_type, NULL};

/* ---- the fixture: one session listens, another talks ---- */

struct fixture {
    struct partition *partition;
    uint64_t listener, talker, service, talked;
};

static void begin(struct fixture *fixture, uint64_t limit)
{
    struct partition *partition = partition_create_with(1, limit, talker_types);
    *fixture = (struct fixture){.partition = partition};
    fixture->listener = partition_open_session(partition, MR_HOUR);
    fixture->talker = partition_open_session(partition, 2 * MR_HOUR);
    fixture->service = partition_create_service(partition, fixture->listener, TALKER_TYPE, "a")->id;
    partition_create_service(partition, fixture->talker, TALKER_TYPE, "a");
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    begin(fixture, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    partition_destroy(fixture->partition);
    free(fixture);
    return 0;
}

static struct fsm_route route(uint64_t channel, uint64_t position)
{
    return (struct fsm_route){channel, position};
}

static void submit(struct fixture *fixture, uint64_t session, struct fsm_route from, uint64_t number,
                   const char *operation, const char *payload)
{
    struct partition *partition = fixture->partition;
    partition->route = from;
    request_command(&partition->request, session, fixture->service, number, operation, text(payload));
    partition_submit(partition);
}

static void listen_from(struct fixture *fixture, uint64_t channel, uint64_t number, const char *payload)
{
    submit(fixture, fixture->listener, route(channel, 7), number, "Listen", payload);
}

/* What is said leaves the talker's own answer out. */
static void talk_of(struct fixture *fixture, const char *operation, const char *payload)
{
    struct partition *partition = fixture->partition;
    partition->route = route(97, partition->index);
    partition_keep_alive(partition, fixture->talker, no_filter, fixture->talked); /* its answers are not to add up */
    submit(fixture, fixture->talker, route(99, partition->index), ++fixture->talked, operation, payload);
    size_t last = partition->said_count - 1;
    assert_true(partition->said_count >= 1 && partition->said[last].channel == 99);
    assert_int_equal(partition->said[last].status, STATUS_OK);
    partition->said_count = last;
}

static void keep_alive(struct fixture *fixture, const uint64_t *kept, size_t kept_count, uint64_t upto,
                       const struct last_output *outputs, size_t output_count)
{
    struct partition *partition = fixture->partition;
    uint8_t bytes[2 + 512];
    struct slice filter = kept_count == 0 ? no_filter : make_filter(bytes, 8, 4096, kept, kept_count);
    request_keep_alive(&partition->request, fixture->listener, filter, upto, outputs, output_count);
    partition->route = route(98, partition->index);
    partition_submit(partition);
    assert_true(partition->said_count >= 1);
    assert_int_equal(partition->said[--partition->said_count].channel, 98);
}

static void assert_count(struct fixture *fixture, size_t count)
{
    assert_int_equal(fixture->partition->said_count, count);
}

/* One that was said: an output of the listener's command. */
static const struct reply *assert_output(struct fixture *fixture, size_t at, uint64_t channel, uint64_t sequence_num,
                                         uint64_t number, const char *payload, bool last)
{
    assert_true(at < fixture->partition->said_count);
    const struct reply *reply = &fixture->partition->said[at];
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->session_id, fixture->listener);
    assert_int_equal(reply->sequence_num, sequence_num);
    assert_int_equal(reply->number, number);
    assert_int_equal(reply->channel, channel);
    assert_int_equal(reply->last, last);
    assert_int_equal(reply->kind, COMMAND_SESSION_COMMAND);
    assert_int_equal(reply->session_kind, SESSION_COMMAND_SERVICE_COMMAND);
    if (payload != NULL) {
        assert_int_equal(reply->operation_status, STATUS_OK);
        assert_int_equal(reply->payload_size, strlen(payload));
        assert_memory_equal(reply->payload, payload, reply->payload_size);
    }
    return reply;
}

static void assert_failure(const struct reply *reply, enum status status, const char *why)
{
    assert_int_equal(reply->operation_status, status);
    assert_int_equal(reply->payload_size, 0);
    assert_non_null(strstr(reply->message, why));
}

/* A frame without a body, the last for its route. */
static void assert_frame(struct fixture *fixture, size_t at, uint64_t channel, uint64_t sequence_num,
                         enum status status, const char *why)
{
    assert_true(at < fixture->partition->said_count);
    const struct reply *reply = &fixture->partition->said[at];
    assert_int_equal(reply->status, status);
    assert_int_equal(reply->sequence_num, sequence_num);
    assert_int_equal(reply->number, 0);
    assert_int_equal(reply->channel, channel);
    assert_true(reply->last);
    assert_non_null(strstr(reply->message, why));
}

static unsigned ended_so_far(struct fixture *fixture)
{
    struct partition *partition = fixture->partition;
    const struct reply *reply = partition_ask(partition, fixture->talker, fixture->service, "Ended", none);
    assert_int_equal(reply->payload_size, 1);
    return reply->payload[0];
}

/* ---- outputs ---- */

static void outputs_as_they_arise(void **state)
{
    struct fixture *fixture = *state;
    listen_from(fixture, 1, 1, "ab");
    uint64_t index = fixture->partition->index;
    assert_count(fixture, 2);
    assert_int_equal(assert_output(fixture, 0, 1, 1, 1, "a", false)->index, index);
    assert_output(fixture, 1, 1, 1, 2, "b", false);
    talk_of(fixture, "Talk", "c");
    assert_count(fixture, 1);
    const struct reply *reply = assert_output(fixture, 0, 1, 1, 3, "c", false);
    assert_int_equal(reply->index, index); /* of the command that it belongs to */
    assert_int_equal(reply->position, 7);
    listen_from(fixture, 2, 5, "");
    assert_count(fixture, 0);
    talk_of(fixture, "Talk", "to both");
    assert_count(fixture, 2);
    assert_output(fixture, 0, 1, 1, 4, "to both", false);
    assert_output(fixture, 1, 2, 5, 1, "to both", false);
    talk_of(fixture, "Talk", ""); /* an empty message */
    assert_output(fixture, 0, 1, 1, 5, "", false);
}

static void shared_payloads(void **state)
{
    struct fixture *fixture = *state;
    static const size_t sizes[] = {1, 63, 64, 65, 1000, 4000};
    char bytes[4001];
    for (uint64_t number = 1; number <= 20; number++)
        listen_from(fixture, number, number, "");
    for (unsigned i = 0; i < 6; i++) {
        memset(bytes, 'a' + (int)i, sizes[i]);
        bytes[sizes[i]] = '\0';
        talk_of(fixture, "Talk", bytes);
        assert_count(fixture, 20);
        for (uint64_t number = 1; number <= 20; number++)
            assert_output(fixture, number - 1, number, number, i + 1, bytes, false);
    }
    listen_from(fixture, 50, 20, ""); /* the stored ones are the same */
    assert_count(fixture, 7);
    assert_output(fixture, 6, 50, 20, 6, bytes, false);
}

static void one_that_does_not_open(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned again = 0; again < 2; again++) {
        listen_from(fixture, 1, 1, "!");
        assert_count(fixture, 1);
        assert_failure(assert_output(fixture, 0, 1, 1, 1, NULL, true), STATUS_NOT_FOUND, "refused");
    }
}

static void ends_by_the_service(void **state)
{
    struct fixture *fixture = *state;
    listen_from(fixture, 1, 1, "a");
    listen_from(fixture, 2, 2, "b");
    talk_of(fixture, "Finish", "z");
    assert_count(fixture, 2);
    assert_output(fixture, 0, 1, 1, 2, "z", true);
    assert_output(fixture, 1, 2, 2, 2, "z", true);
    assert_int_equal(ended_so_far(fixture), 0);
    talk_of(fixture, "Talk", "nobody");
    assert_count(fixture, 0);
    listen_from(fixture, 3, 1, "other contents"); /* complete, and held: all its outputs, and nothing is said to 1 */
    assert_count(fixture, 2);
    assert_output(fixture, 0, 3, 1, 1, "a", false);
    assert_output(fixture, 1, 3, 1, 2, "z", true);
    listen_from(fixture, 1, 3, "");
    talk_of(fixture, "Finish", "!");
    assert_count(fixture, 1);
    assert_failure(assert_output(fixture, 0, 1, 3, 1, NULL, true), STATUS_CONFLICT, "it is over");
}

static void an_error_of_the_service(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned again = 0; again < 2; again++) {
        submit(fixture, fixture->listener, route(1, 1), 1, "Fail", "");
        assert_count(fixture, 1);
        assert_failure(assert_output(fixture, 0, 1, 1, 1, NULL, true), STATUS_ERROR, "has failed");
    }
}

/* ---- sent again ---- */

static void taken_over(void **state)
{
    struct fixture *fixture = *state;
    listen_from(fixture, 1, 1, "abc");
    uint64_t index = fixture->partition->index;
    listen_from(fixture, 2, 1, "abc");
    assert_int_equal(fixture->partition->index, index + 1); /* it takes an index */
    assert_count(fixture, 4);
    assert_frame(fixture, 0, 1, 1, STATUS_CANCELED, "taken over");
    for (uint64_t number = 1; number <= 3; number++)
        assert_int_equal(assert_output(fixture, number, 2, 1, number, NULL, false)->index, index);
    talk_of(fixture, "Talk", "d");
    assert_count(fixture, 1);
    assert_output(fixture, 0, 2, 1, 4, "d", false);
    static const uint64_t one[] = {1};
    static const struct last_output upto_two = {1, 2};
    keep_alive(fixture, one, 1, 1, &upto_two, 1);
    assert_count(fixture, 0);
    submit(fixture, fixture->listener, route(2, 8), 1, "Listen", ""); /* another request on the same channel */
    assert_count(fixture, 3);
    assert_frame(fixture, 0, 2, 1, STATUS_CANCELED, "taken over");
    assert_int_equal(fixture->partition->said[0].position, 7);
    assert_output(fixture, 1, 2, 1, 3, "c", false);
    assert_output(fixture, 2, 2, 1, 4, "d", false);
    submit(fixture, fixture->listener, route(2, 8), 1, "Listen", ""); /* the same route: it need not be told */
    assert_count(fixture, 2);
    assert_output(fixture, 0, 2, 1, 3, "c", false);
}

static void no_route(void **state)
{
    struct fixture *fixture = *state;
    submit(fixture, fixture->listener, route(0, 0), 1, "Listen", "ab");
    assert_count(fixture, 0);
    talk_of(fixture, "Talk", "c");
    assert_count(fixture, 0);
    listen_from(fixture, 1, 1, "");
    assert_count(fixture, 3); /* and nobody is told of a take-over */
    assert_output(fixture, 0, 1, 1, 1, "a", false);
    assert_output(fixture, 2, 1, 1, 3, "c", false);
    submit(fixture, fixture->listener, route(0, 0), 1, "Listen", "");
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 1, 1, STATUS_CANCELED, "taken over");
    talk_of(fixture, "Finish", "z");
    assert_count(fixture, 0);
    listen_from(fixture, 1, 1, "");
    assert_count(fixture, 4);
    assert_output(fixture, 3, 1, 1, 4, "z", true);
}

/* ---- a sink without room ---- */

struct room {
    unsigned left, refused;
};

static bool room_left(void *context, const struct fsm_route *to, const struct fsm_answer *answer)
{
    struct room *room = context;
    (void)answer;
    if (to->channel == 99) /* the talker's own answer */
        return true;
    if (room->left == 0) {
        room->refused++;
        return false;
    }
    room->left--;
    return true;
}

static void back_pressure(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct room room = {.left = 2};
    bool gone;
    partition->room = room_left;
    partition->room_context = &room;
    listen_from(fixture, 1, 1, "abcd");
    assert_count(fixture, 2);
    assert_int_equal(room.refused, 1);
    talk_of(fixture, "Talk", "e");
    assert_count(fixture, 0);
    assert_int_equal(room.refused, 1); /* it is not asked again */
    room.left = 2;
    assert_false(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone));
    assert_false(gone);
    assert_count(fixture, 2);
    assert_output(fixture, 0, 1, 1, 3, "c", false);
    assert_output(fixture, 1, 1, 1, 4, "d", false);
    room.left = 1000;
    assert_true(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone));
    assert_false(gone);
    assert_count(fixture, 1);
    assert_output(fixture, 0, 1, 1, 5, "e", false);
    talk_of(fixture, "Talk", "f"); /* and goes on by itself */
    assert_count(fixture, 1);
    assert_output(fixture, 0, 1, 1, 6, "f", false);
    assert_true(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone)); /* nothing is owed */
    assert_false(gone);
    assert_count(fixture, 0);
}

static void back_pressure_at_the_end(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct room room = {.left = 1};
    bool gone;
    partition->room = room_left;
    partition->room_context = &room;
    listen_from(fixture, 1, 1, "ab");
    talk_of(fixture, "Finish", "z");
    assert_count(fixture, 0);
    listen_from(fixture, 2, 1, ""); /* complete, but 1 has not had its last frame */
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 1, 1, STATUS_CANCELED, "taken over");
    assert_true(
        partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone)); /* no longer the one to ask for */
    assert_false(gone);
    assert_count(fixture, 0);
    room.left = 1000;
    assert_true(partition_deliver(partition, fixture->listener, 1, route(2, 7), &gone));
    assert_false(gone);
    assert_count(fixture, 3);
    assert_output(fixture, 0, 2, 1, 1, "a", false);
    assert_output(fixture, 2, 2, 1, 3, "z", true);
    assert_true(partition_deliver(partition, fixture->listener, 1, route(2, 7), &gone));
    assert_count(fixture, 0);
}

static void gone_while_it_waits(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct room room = {.left = 0};
    bool gone;
    partition->room = room_left;
    partition->room_context = &room;
    listen_from(fixture, 1, 1, "ab");
    listen_from(fixture, 1, 2, "ab");
    talk_of(fixture, "Finish", "z");
    listen_from(fixture, 1, 3, "ab");
    static const uint64_t kept[] = {1, 3};
    static const struct last_output outputs[] = {{1, 3}, {3, 1}};
    keep_alive(fixture, kept, 2, 3, outputs, 2);
    assert_count(fixture, 0);
    assert_true(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone)); /* all acknowledged */
    assert_true(gone);
    assert_true(partition_deliver(partition, fixture->listener, 2, route(1, 7), &gone)); /* forgotten */
    assert_true(gone);
    room.left = 1000;
    assert_true(partition_deliver(partition, fixture->listener, 3, route(1, 7), &gone)); /* what is left of it */
    assert_false(gone);
    assert_count(fixture, 1);
    assert_output(fixture, 0, 1, 3, 2, "b", false);
    listen_from(fixture, 1, 1, "");
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 1, 1, STATUS_CONFLICT, "acknowledged");
}

/* ---- ends from outside ---- */

static void canceled_by_absence(void **state)
{
    struct fixture *fixture = *state;
    for (uint64_t number = 1; number <= 4; number++)
        listen_from(fixture, number, number, "a");
    static const uint64_t two[] = {2};
    keep_alive(fixture, two, 1, 3, NULL, 0); /* says nothing of 4 */
    assert_count(fixture, 2);
    assert_frame(fixture, 0, 1, 1, STATUS_CANCELED, "KeepAlive");
    assert_frame(fixture, 1, 3, 3, STATUS_CANCELED, "KeepAlive");
    assert_int_equal(ended_so_far(fixture), 2);
    listen_from(fixture, 5, 1, "a");
    assert_frame(fixture, 0, 5, 1, STATUS_CONFLICT, "given up");
    talk_of(fixture, "Talk", "b");
    assert_count(fixture, 2);
    assert_output(fixture, 0, 2, 2, 2, "b", false);
    assert_output(fixture, 1, 4, 4, 2, "b", false);
    keep_alive(fixture, NULL, 0, 0, NULL, 0); /* only renews */
    assert_count(fixture, 0);
    keep_alive(fixture, NULL, 0, 2, NULL, 0);
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 2, 2, STATUS_CANCELED, "KeepAlive");
    keep_alive(fixture, NULL, 0, 4, NULL, 0);
    assert_frame(fixture, 0, 4, 4, STATUS_CANCELED, "KeepAlive");
    talk_of(fixture, "Talk", "c");
    assert_count(fixture, 0);
    assert_int_equal(ended_so_far(fixture), 4);
}

static void a_false_positive_keeps(void **state)
{
    struct fixture *fixture = *state;
    listen_from(fixture, 1, 1, "a");
    uint8_t everything[10] = {1, 1, 255, 255, 255, 255, 255, 255, 255, 255};
    request_keep_alive(&fixture->partition->request, fixture->listener, (struct slice){everything, sizeof(everything)},
                       1, NULL, 0);
    fixture->partition->route = route(98, 1);
    partition_submit(fixture->partition);
    assert_count(fixture, 1);
    talk_of(fixture, "Talk", "b");
    assert_count(fixture, 1);
    assert_output(fixture, 0, 1, 1, 2, "b", false);
}

static void canceled_with_its_service(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    listen_from(fixture, 1, 1, "a");
    listen_from(fixture, 2, 2, "");
    submit(fixture, fixture->talker, route(3, 7), 1000, "Listen", ""); /* another session's */
    request_close_service(&partition->request, fixture->listener, fixture->service);
    partition->route = route(4, 1);
    partition_submit(partition);
    assert_count(fixture, 3);
    assert_failure(assert_output(fixture, 0, 1, 1, 2, NULL, true), STATUS_CANCELED, "closed the service");
    assert_failure(assert_output(fixture, 1, 2, 2, 1, NULL, true), STATUS_CANCELED, "closed the service");
    assert_int_equal(ended_so_far(fixture), 2);
    listen_from(fixture, 5, 1, ""); /* it stays, as complete, although the service is not open */
    assert_count(fixture, 2);
    assert_output(fixture, 0, 5, 1, 1, "a", false);
    assert_failure(assert_output(fixture, 1, 5, 1, 2, NULL, true), STATUS_CANCELED, "closed the service");
    talk_of(fixture, "Talk", "b");
    assert_count(fixture, 1);
    assert_int_equal(partition->said[0].session_id, fixture->talker);
    keep_alive(fixture, NULL, 0, 2, NULL, 0);
    assert_count(fixture, 0); /* they had their last frames */
    listen_from(fixture, 5, 1, "");
    assert_frame(fixture, 0, 5, 1, STATUS_CONFLICT, "given up");
}

static void canceled_with_its_session(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    listen_from(fixture, 1, 1, "ab");
    uint64_t index = partition->index;
    listen_from(fixture, 2, 2, "");
    request_close_session(&partition->request, fixture->listener);
    partition->route = route(4, 1);
    partition_submit(partition);
    assert_count(fixture, 3);
    assert_int_equal(assert_output(fixture, 0, 1, 1, 3, NULL, true)->index, index);
    assert_failure(&partition->said[0], STATUS_CANCELED, "session ended");
    assert_failure(assert_output(fixture, 1, 2, 2, 1, NULL, true), STATUS_CANCELED, "session ended");
    assert_int_equal(partition->said[2].channel, 4);
    assert_int_equal(ended_so_far(fixture), 2);
    talk_of(fixture, "Talk", "b");
    assert_count(fixture, 0);
    bool gone;
    assert_true(partition_deliver(partition, fixture->listener, 1, route(1, 7), &gone));
    assert_true(gone);
}

static void canceled_by_expiry(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    listen_from(fixture, 1, 1, "ab");
    partition_tick(partition, partition->time + MR_HOUR);
    assert_count(fixture, 1);
    assert_failure(assert_output(fixture, 0, 1, 1, 3, NULL, true), STATUS_CANCELED, "session ended");
    assert_int_equal(ended_so_far(fixture), 1);
}

/* One that waits for room when its session ends is told so all the same; what it was to have before is lost. */
static void canceled_while_it_waits(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct room room = {.left = 0};
    partition->room = room_left;
    partition->room_context = &room;
    listen_from(fixture, 1, 1, "ab");
    listen_from(fixture, 2, 2, "ab");
    static const uint64_t one[] = {1};
    keep_alive(fixture, one, 1, 2, NULL, 0);
    assert_count(fixture, 1);
    assert_frame(fixture, 0, 2, 2, STATUS_CANCELED, "KeepAlive");
    room.left = 1;
    partition_tick(partition, partition->time + MR_HOUR);
    assert_count(fixture, 1);
    assert_failure(assert_output(fixture, 0, 1, 1, 3, NULL, true), STATUS_CANCELED, "session ended");
}

/* ---- the limit ---- */

enum { OUTPUT = SESSION_OUTPUT_BYTES + 1 }; /* of one byte */

/* ServiceCommandInput: service_id, sequence_num, operation {name, payload}; ids and sizes below 128. */
static uint64_t stream_bytes(size_t payload)
{
    size_t operation = 2 + strlen("Listen") + (payload == 0 ? 0 : 2 + payload);
    return SESSION_COMMAND_BYTES + SESSION_STREAM_BYTES + 2 + 2 + 2 + operation;
}

static void the_output_that_would_pass_the_limit(void **state)
{
    (void)state;
    struct fixture fixture;
    uint64_t limit = stream_bytes(2) + stream_bytes(0) + 6 * OUTPUT; /* two of the first, then two more of each */
    begin(&fixture, limit);
    listen_from(&fixture, 1, 1, "ab");
    listen_from(&fixture, 2, 2, "");
    talk_of(&fixture, "Talk", "c");
    talk_of(&fixture, "Talk", "d");
    assert_count(&fixture, 2); /* at the limit is not over it */
    char text_of_limit[32];
    snprintf(text_of_limit, sizeof(text_of_limit), "%llu", (unsigned long long)limit);
    /* The first one's next output would pass it. That ends the first one, whose input goes, so the second one goes on. */
    talk_of(&fixture, "Talk", "e");
    assert_count(&fixture, 2);
    const struct reply *reply = assert_output(&fixture, 0, 1, 1, 5, NULL, true);
    assert_failure(reply, STATUS_UNAVAILABLE, "limit");
    assert_non_null(strstr(reply->message, text_of_limit));
    assert_true(strlen(reply->message) <= MR_MESSAGE_MAX);
    assert_output(&fixture, 1, 2, 2, 3, "e", false);
    assert_int_equal(ended_so_far(&fixture), 1);
    listen_from(&fixture, 3, 1, ""); /* stored, all of them */
    assert_count(&fixture, 5);
    assert_output(&fixture, 0, 3, 1, 1, "a", false);
    assert_failure(assert_output(&fixture, 4, 3, 1, 5, NULL, true), STATUS_UNAVAILABLE, "limit");
    keep_alive(&fixture, NULL, 0, 1, NULL, 0);
    listen_from(&fixture, 1, 3, "x"); /* and can listen again */
    assert_output(&fixture, 0, 1, 3, 1, "x", false);
    partition_destroy(fixture.partition);
}

static void acknowledging_makes_room(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, stream_bytes(0) + 10 * OUTPUT);
    listen_from(&fixture, 1, 1, "");
    static const uint64_t one[] = {1};
    uint64_t number = 0;
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < (round == 0 ? 10 : 7); i++) {
            talk_of(&fixture, "Talk", "x");
            assert_count(&fixture, 1);
            assert_output(&fixture, 0, 1, 1, ++number, "x", false);
        }
        struct last_output acknowledged = {1, number - 3};
        keep_alive(&fixture, one, 1, 1, &acknowledged, 1);
        assert_count(&fixture, 0);
        acknowledged.last_output = 0; /* less than before: nothing comes back */
        keep_alive(&fixture, one, 1, 1, &acknowledged, 1);
    }
    listen_from(&fixture, 2, 1, "");
    assert_count(&fixture, 4);
    assert_output(&fixture, 1, 2, 1, number - 2, "x", false);
    struct last_output beyond = {1, UINT64_MAX}; /* more than there are */
    keep_alive(&fixture, one, 1, 1, &beyond, 1);
    talk_of(&fixture, "Talk", "y");
    assert_output(&fixture, 0, 2, 1, number + 1, "y", false);
    for (unsigned i = 0; i < 9; i++) {
        talk_of(&fixture, "Talk", "x");
        assert_output(&fixture, 0, 2, 1, number + 2 + i, "x", false);
    }
    talk_of(&fixture, "Talk", "x");
    assert_failure(assert_output(&fixture, 0, 2, 1, number + 11, NULL, true), STATUS_UNAVAILABLE, "limit");
    partition_destroy(fixture.partition);
}

static void at_the_limit_from_the_first(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, stream_bytes(2) + OUTPUT); /* of two outputs, the second passes it while the command is run */
    listen_from(&fixture, 1, 1, "ab");
    assert_count(&fixture, 2);
    assert_output(&fixture, 0, 1, 1, 1, "a", false);
    assert_failure(assert_output(&fixture, 1, 1, 1, 2, NULL, true), STATUS_UNAVAILABLE, "limit");
    assert_int_equal(ended_so_far(&fixture), 1);
    partition_destroy(fixture.partition);
    begin(&fixture, 10); /* an input counts, too */
    listen_from(&fixture, 1, 1, "");
    assert_count(&fixture, 0);
    listen_from(&fixture, 1, 2, "");
    assert_count(&fixture, 1);
    assert_frame(&fixture, 0, 1, 2, STATUS_UNAVAILABLE, "limit");
    talk_of(&fixture, "Talk", "x");
    assert_failure(assert_output(&fixture, 0, 1, 1, 1, NULL, true), STATUS_UNAVAILABLE, "limit");
    partition_destroy(fixture.partition);
}

/* A last output that would pass the limit is not stored either; the service is not told of what it does itself. */
static void at_the_limit_at_the_end(void **state)
{
    (void)state;
    struct fixture fixture;
    begin(&fixture, stream_bytes(0) + OUTPUT);
    listen_from(&fixture, 1, 1, "");
    talk_of(&fixture, "Talk", "x");
    talk_of(&fixture, "Finish", "z");
    assert_failure(assert_output(&fixture, 0, 1, 1, 2, NULL, true), STATUS_UNAVAILABLE, "limit");
    assert_int_equal(ended_so_far(&fixture), 0);
    partition_destroy(fixture.partition);
}

/* A long backlog, given up bit by bit and at once, next to ordinary commands whose outputs are packed. */
static void a_long_backlog(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    enum { EVENTS = 20000 };
    submit(fixture, fixture->listener, route(0, 0), 1, "Listen", "");
    submit(fixture, fixture->listener, route(0, 0), 2, "Listen", "");
    for (unsigned i = 0; i < EVENTS; i++) {
        char number[16];
        snprintf(number, sizeof(number), "%u", i + 1);
        talk_of(fixture, "Talk", number);
        submit(fixture, fixture->listener, route(5, 5), i + 3, "Talk", ""); /* numbers two events a round */
    }
    static const uint64_t both[] = {1, 2};
    for (uint64_t upto = 1; upto < 2 * EVENTS; upto += 999) {
        struct last_output acknowledged[] = {{1, upto}, {2, upto / 2}};
        keep_alive(fixture, both, 2, 2 + upto / 2, acknowledged, 2);
        if (upto % 5 != 0)
            continue;
        listen_from(fixture, 1, 1, "");
        assert_count(fixture, 2 * EVENTS - upto);
        uint64_t next = upto + 1;
        char expected[16] = "";
        if (next % 2 == 1)
            snprintf(expected, sizeof(expected), "%u", (unsigned)(next / 2 + 1));
        assert_output(fixture, 0, 1, 1, next, expected, false);
        submit(fixture, fixture->listener, route(0, 0), 1, "Listen", "");
    }
    request_close_session(&partition->request, fixture->listener);
    partition_apply(partition);
    unsigned turns = 1;
    while (fsm_collect(partition->fsm, 100))
        turns++;
    assert_true(turns > 20); /* not all at once */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(outputs_as_they_arise, setup, teardown),
        cmocka_unit_test_setup_teardown(shared_payloads, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_does_not_open, setup, teardown),
        cmocka_unit_test_setup_teardown(ends_by_the_service, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_of_the_service, setup, teardown),
        cmocka_unit_test_setup_teardown(taken_over, setup, teardown),
        cmocka_unit_test_setup_teardown(no_route, setup, teardown),
        cmocka_unit_test_setup_teardown(back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(back_pressure_at_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(gone_while_it_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_by_absence, setup, teardown),
        cmocka_unit_test_setup_teardown(a_false_positive_keeps, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_with_its_service, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_with_its_session, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_by_expiry, setup, teardown),
        cmocka_unit_test_setup_teardown(canceled_while_it_waits, setup, teardown),
        cmocka_unit_test(the_output_that_would_pass_the_limit),
        cmocka_unit_test(acknowledging_makes_room),
        cmocka_unit_test(at_the_limit_from_the_first),
        cmocka_unit_test(at_the_limit_at_the_end),
        cmocka_unit_test_setup_teardown(a_long_backlog, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
