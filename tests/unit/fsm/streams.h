/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of streams: a service type of their own, which gives as many outputs as it is told to, and a partition
 * in which one session listens and another talks. */
#ifndef TESTS_UNIT_FSM_STREAMS_H
#define TESTS_UNIT_FSM_STREAMS_H

#include "engine/services/types.h"
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static const struct slice no_filter;

/* ---- a service type of the tests' own ---- */

#define TALKER_TYPE "test.Talker"

enum { LISTENING_MAX = 64 };

struct talker {
    struct service_host *host;
    struct listening *listening[LISTENING_MAX]; /* in the order in which they came; NULL: gone */
    unsigned count;
    unsigned ended; /* how many were ended from outside */
};

struct listening {
    struct stream *stream;
    uint64_t index; /* of its command */
    unsigned place;
};

static inline struct service_call *say(struct talker *talker, struct slice bytes)
{
    struct service_call *output = stream_output(talker->host);
    if (bytes.size > 0)
        memcpy(call_put(output, bytes.size), bytes.data, bytes.size);
    return output;
}

/* Opens, and gives as many outputs at once as the payload has bytes, each of one of them. */
static inline void listen(void *state, struct service_call *call)
{
    struct talker *talker = state;
    struct slice payload = call_payload(call);
    if (payload.size > 0 && payload.data[0] == '!') { /* answers as an ordinary command */
        call_fail(call, STATUS_NOT_FOUND, "refused to open");
        return;
    }
    if (talker->count == LISTENING_MAX) {
        call_fail(call, STATUS_UNAVAILABLE, "no room");
        return;
    }
    struct listening *listening = calloc(1, sizeof(*listening));
    listening->index = call_index(call);
    listening->place = talker->count;
    talker->listening[talker->count++] = listening;
    listening->stream = call_open(call, listening);
    for (size_t i = 0; i < payload.size; i++)
        if (!stream_emit(listening->stream, say(talker, (struct slice){payload.data + i, 1})))
            return;
}

static inline void talk(void *state, struct service_call *call)
{
    struct talker *talker = state;
    struct service_call *output = say(talker, call_payload(call));
    for (unsigned i = 0; i < talker->count; i++)
        if (talker->listening[i] != NULL)
            stream_emit(talker->listening[i]->stream, output);
}

/* Ends all, with a last output; a payload of "!" makes it a failure. */
static inline void finish(void *state, struct service_call *call)
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

static inline void fail_always(void *state, struct service_call *call)
{
    (void)state;
    call_fail(call, STATUS_ERROR, "the service's code has failed");
}

static inline void ended_count(void *state, struct service_call *call)
{
    const struct talker *talker = state;
    call_put(call, 1)[0] = (uint8_t)talker->ended;
}

static inline void *create(struct service_host *host)
{
    struct talker *talker = calloc(1, sizeof(*talker));
    talker->host = host;
    return talker;
}

static inline void dump(void *state, void (*write)(void *context, const void *data, size_t size), void *context)
{
    const struct talker *talker = state;
    uint64_t words[1 + LISTENING_MAX] = {talker->ended};
    for (unsigned i = 0; i < talker->count; i++)
        words[1 + i] = talker->listening[i] == NULL ? 0 : talker->listening[i]->index;
    write(context, words, (1 + talker->count) * sizeof(words[0]));
}

static inline bool restore(void *state, struct slice data)
{
    struct talker *talker = state;
    uint64_t words[1 + LISTENING_MAX];
    if (data.size % sizeof(words[0]) != 0 || data.size == 0 || data.size > sizeof(words))
        return false;
    memcpy(words, data.data, data.size);
    talker->ended = (unsigned)words[0];
    if (talker->ended != words[0])
        return false;
    talker->count = (unsigned)(data.size / sizeof(words[0])) - 1;
    for (unsigned i = talker->count; i > 0; i--) { /* in an order that nothing may depend on */
        unsigned place = i - 1;
        if (words[i] == 0)
            continue;
        struct listening *listening = calloc(1, sizeof(*listening));
        *listening = (struct listening){.index = words[i], .place = place};
        listening->stream = stream_restore(talker->host, words[i], listening);
        if (listening->stream == NULL) {
            free(listening);
            return false;
        }
        talker->listening[place] = listening;
    }
    return true;
}

static inline void ended(void *state, void *context)
{
    struct talker *talker = state;
    struct listening *listening = context;
    talker->listening[listening->place] = NULL;
    talker->ended++;
    free(listening);
}

static const struct service_operation operations[] = {
    {OPERATION_NAME("Listen"), .kind = OPERATION_STREAM, .run = listen},
    {OPERATION_NAME("Talk"), .kind = OPERATION_COMMAND, .run = talk},
    {OPERATION_NAME("Finish"), .kind = OPERATION_COMMAND, .run = finish},
    {OPERATION_NAME("Fail"), .kind = OPERATION_COMMAND, .run = fail_always},
    {OPERATION_NAME("Ended"), .kind = OPERATION_QUERY, .run = ended_count}};

static const struct service_type talker_type = {.name = TALKER_TYPE,
                                                .operations = operations,
                                                .operation_count = 5,
                                                .create = create,
                                                .destroy = free,
                                                .dump = dump,
                                                .restore = restore,
                                                .ended = ended};
static const struct service_type *const talker_types[] = {&talker_type, NULL};

/* The node's own, and the talker. */
static inline const struct service_type *const *all_types(void)
{
    static const struct service_type *types[4];
    types[0] = service_types[0];
    types[1] = service_types[1];
    types[2] = &talker_type;
    return types;
}

/* ---- the fixture: one session listens, another talks ---- */

struct fixture {
    struct partition *partition;
    uint64_t listener, talker, service, talked;
};

static inline void begin(struct fixture *fixture, uint64_t limit)
{
    struct partition *partition = partition_create_with(1, limit, talker_types);
    *fixture = (struct fixture){.partition = partition};
    fixture->listener = partition_open_session(partition, MR_HOUR);
    fixture->talker = partition_open_session(partition, 2 * MR_HOUR);
    fixture->service = partition_create_service(partition, fixture->listener, TALKER_TYPE, "a")->id;
    partition_create_service(partition, fixture->talker, TALKER_TYPE, "a");
}

static inline int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    begin(fixture, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    *state = fixture;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *fixture = *state;
    partition_destroy(fixture->partition);
    free(fixture);
    return 0;
}

static inline struct fsm_route route(uint64_t channel, uint64_t position)
{
    return (struct fsm_route){channel, position};
}

/* A command of any session, at a route of its own. */
static inline void send(struct partition *partition, uint64_t session, uint64_t service, uint64_t number,
                        const char *operation, struct payload payload)
{
    partition->route = route(1, partition->index + 1);
    request_command(&partition->request, session, service, number, operation, payload_slice(&payload));
    partition_submit(partition);
}

static inline void submit(struct fixture *fixture, uint64_t session, struct fsm_route from, uint64_t number,
                          const char *operation, const char *payload)
{
    struct partition *partition = fixture->partition;
    partition->route = from;
    request_command(&partition->request, session, fixture->service, number, operation, text(payload));
    partition_submit(partition);
}

static inline void listen_from(struct fixture *fixture, uint64_t channel, uint64_t number, const char *payload)
{
    submit(fixture, fixture->listener, route(channel, 7), number, "Listen", payload);
}

/* What is said leaves the talker's own answer out. */
static inline void talk_of(struct fixture *fixture, const char *operation, const char *payload)
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

static inline void keep_alive(struct fixture *fixture, const uint64_t *kept, size_t kept_count, uint64_t upto,
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

static inline void assert_count(struct fixture *fixture, size_t count)
{
    assert_int_equal(fixture->partition->said_count, count);
}

/* One that was said: an output of the listener's command. */
static inline const struct reply *assert_output(struct fixture *fixture, size_t at, uint64_t channel,
                                                uint64_t sequence_num, uint64_t number, const char *payload, bool last)
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

static inline void assert_failure(const struct reply *reply, enum status status, const char *why)
{
    assert_int_equal(reply->operation_status, status);
    assert_int_equal(reply->payload_size, 0);
    assert_non_null(strstr(reply->message, why));
}

/* A frame without a body, the last for its route. */
static inline void assert_frame(struct fixture *fixture, size_t at, uint64_t channel, uint64_t sequence_num,
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

static inline unsigned ended_so_far(struct fixture *fixture)
{
    struct partition *partition = fixture->partition;
    const struct reply *reply =
        partition_ask(partition, fixture->talker, fixture->service, "Ended", (struct payload){.size = 0});
    assert_int_equal(reply->payload_size, 1);
    return reply->payload[0];
}

/* ---- a sink without room ---- */

struct room {
    unsigned left, refused;
};

static inline bool room_left(void *context, const struct fsm_route *to, const struct fsm_answer *answer)
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

#endif
