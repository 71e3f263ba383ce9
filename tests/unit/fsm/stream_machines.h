/* SPDX-License-Identifier: Apache-2.0 */
/* Two state machines held against the model of streams (stream_model.h): `one`, whose sink has room for everything,
 * must say what is foretold, route by route; `other`, whose sink says no at random, must give every command's outputs
 * in order and without a gap. */
#ifndef TESTS_UNIT_FSM_STREAM_MACHINES_H
#define TESTS_UNIT_FSM_STREAM_MACHINES_H

#include "tests/unit/fsm/stream_model.h"

struct sorted {
    uint64_t channel, position;
    size_t place;
};

static inline int by_route(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    if (x->channel != y->channel)
        return x->channel < y->channel ? -1 : 1;
    if (x->position != y->position)
        return x->position < y->position ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

static inline void assert_said(const struct reply *reply, const struct expected *expected)
{
    assert_int_equal(reply->channel, expected->route.channel);
    assert_int_equal(reply->position, expected->route.position);
    assert_int_equal(reply->status, expected->status);
    assert_int_equal(reply->session_id, expected->session_id);
    assert_int_equal(reply->sequence_num, expected->sequence_num);
    assert_int_equal(reply->number, expected->number);
    assert_int_equal(reply->last, expected->last);
    if (expected->number == 0)
        return;
    assert_int_equal(reply->operation_status, expected->output.status);
    assert_int_equal(strlen(reply->message), expected->output.message_size);
    assert_int_equal(reply->payload_size, expected->output.size);
    assert_memory_equal(reply->payload, expected->output.payload, reply->payload_size);
}

static inline void assert_one(const struct walk *walk)
{
    static struct sorted said[EXPECTED], expected[EXPECTED];
    const struct partition *one = walk->one;
    assert_int_equal(one->said_count, walk->expected_count);
    for (size_t i = 0; i < one->said_count; i++) {
        said[i] = (struct sorted){one->said[i].channel, one->said[i].position, i};
        expected[i] = (struct sorted){walk->expected[i].route.channel, walk->expected[i].route.position, i};
    }
    qsort(said, one->said_count, sizeof(said[0]), by_route);
    qsort(expected, one->said_count, sizeof(said[0]), by_route);
    for (size_t i = 0; i < one->said_count; i++)
        assert_said(&one->said[said[i].place], &walk->expected[expected[i].place]);
}

static inline bool same_route(struct fsm_route a, struct fsm_route b)
{
    return a.channel == b.channel && a.position == b.position;
}

/* Nothing more is owed to a route that has had its last frame. */
static inline void drop_owed(struct walk *walk, struct fsm_route route)
{
    for (size_t i = 0; i < walk->owed_count; i++)
        if (same_route(walk->owed[i].route, route))
            walk->owed[i--] = walk->owed[--walk->owed_count];
}

static inline struct model_session *session_of(struct walk *walk, uint64_t id)
{
    for (unsigned i = 0; i < SESSIONS; i++)
        if (walk->sessions[i].there && walk->sessions[i].id == id)
            return &walk->sessions[i];
    return NULL;
}

/* What the other machine said: frames, and a session's last words, must be foretold; any other output must be the
 * command's next one. */
static inline void assert_other_said(struct walk *walk, const struct reply *reply)
{
    struct fsm_route route = {reply->channel, reply->position};
    if (reply->last)
        drop_owed(walk, route);
    if (walk->taken_over.channel != 0 && same_route(route, walk->taken_over)) {
        assert_int_equal(reply->status, STATUS_CANCELED);
        assert_true(reply->last && reply->number == 0);
        walk->taken_over = (struct fsm_route){0, 0};
        return;
    }
    for (size_t i = 0; i < walk->expected_count; i++) {
        const struct expected *expected = &walk->expected[i];
        if ((expected->number == 0 || expected->unstored) && same_route(expected->route, route)) {
            assert_said(reply, expected);
            return;
        }
    }
    struct model_session *session = session_of(walk, reply->session_id);
    assert_non_null(session);
    struct model_command *command = find(session, reply->sequence_num);
    assert_non_null(command);
    if (command->stream) {
        assert_true(same_route(command->route, route));
        assert_int_equal(reply->number,
                         (command->taken > command->acknowledged ? command->taken : command->acknowledged) + 1);
        command->taken = reply->number;
        command->told = reply->last;
    }
    assert_true(reply->number >= 1 && reply->number <= command->count);
    assert_int_equal(reply->index, command->index);
    assert_said(reply, &(struct expected){.route = route,
                                          .session_id = session->id,
                                          .sequence_num = command->number,
                                          .number = reply->number,
                                          .last = !command->open && reply->number == command->count,
                                          .status = STATUS_OK,
                                          .output = command->outputs[reply->number - 1]});
}

static inline void assert_other(struct walk *walk)
{
    for (size_t i = 0; i < walk->other->said_count; i++)
        assert_other_said(walk, &walk->other->said[i]);
    assert_int_equal(walk->taken_over.channel, 0);
}

static inline bool has_payload(const struct fsm_answer *answer)
{
    struct command_output output;
    struct slice payload;
    uint8_t *bytes = malloc(answer->size), *at = bytes;
    assert_non_null(bytes);
    for (size_t i = 0; i < answer->part_count; i++)
        at = write_bytes(at, answer->parts[i]);
    assert_ptr_equal(at, bytes + answer->size);
    assert_int_equal(read_partition_command_output(bytes, answer->size, &output, &payload), READ_OK);
    free(bytes);
    return payload.size > 0;
}

/* The other machine's sink. */
static inline bool room(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    struct walk *walk = context;
    if (walk->room || below(3) != 0 || (answer->last && !has_payload(answer)))
        return true;
    assert_true(walk->owed_count < OWED);
    walk->owed[walk->owed_count++] =
        (struct owed){.session_id = answer->session_id, .sequence_num = answer->sequence_num, .route = *route};
    return false;
}

static inline void deliver(struct walk *walk, size_t at)
{
    struct owed owed = walk->owed[at];
    bool gone;
    walk->owed[at] = walk->owed[--walk->owed_count]; /* the sink notes it again */
    size_t before = walk->owed_count;
    bool all = partition_deliver(walk->other, owed.session_id, owed.sequence_num, owed.route, &gone);
    assert_int_equal(all, walk->owed_count == before);
    assert_other(walk);
    if (!gone)
        return;
    assert_true(all);
    struct model_session *session = session_of(walk, owed.session_id);
    struct model_command *command = session == NULL ? NULL : find(session, owed.sequence_num);
    assert_true(command == NULL || (!command->open && command->acknowledged == command->count));
}

/* Applies one->request to both. */
static inline void apply(struct walk *walk)
{
    struct partition *one = walk->one, *other = walk->other;
    other->time = one->time;
    other->route = one->route;
    struct request own = other->request;
    other->request = one->request;
    partition_submit(one);
    partition_submit(other);
    other->request = own;
}

static inline void compare(struct walk *walk)
{
    assert_one(walk);
    assert_other(walk);
    walk->expected_count = 0;
}

#endif
