/* SPDX-License-Identifier: Apache-2.0 */
/* What no bytes of a snapshot say, and is the same in a state restored from it: the orders in which open commands end
 * and equal deadlines come. */
#include "tests/unit/fsm/streams.h"

#include "atomix/multiraft/map/v1/map.pb-c.h"

#define LIMIT 100000

static void assert_said(const struct partition *partition, size_t at, uint64_t channel, const char *message)
{
    assert_true(at < partition->said_count);
    assert_int_equal(partition->said[at].channel, channel);
    assert_string_equal(partition->said[at].message, message);
}

/* Open commands end in the order in which they were opened, in whatever order a service has taken them back (and the
 * talker does it from the last to the first) and their session has opened the services. */
static void order_of_ends(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 2; way++) {
        struct partition *partition = partition_create_with(7, LIMIT, all_types());
        partition_open_session(partition, MR_HOUR);               /* 1 */
        partition_create_service(partition, 1, TALKER_TYPE, "b"); /* 2 */
        partition_create_service(partition, 1, TALKER_TYPE, "a"); /* 3 */
        for (uint64_t number = 1; number <= 6; number++) {        /* numbers fall while indexes rise */
            partition->route = route(10 + number, 1);
            request_command(&partition->request, 1, 2 + number % 2, 7 - number, "Listen", text(""));
            partition_submit(partition);
        }
        partition_restore(partition);
        for (uint64_t number = 1; number <= 6; number++) { /* sent again, in another order */
            partition->route = route(30 - number, 1);
            request_command(&partition->request, 1, 2 + number % 2, number, "Listen", text(""));
            partition_submit(partition);
        }
        partition->route = route(1, 1);
        if (way == 0)
            request_close_session(&partition->request, 1);
        else
            request_close_service(&partition->request, 1, 2);
        partition_submit(partition);
        assert_int_equal(partition->said_count, way == 0 ? 7 : 4);
        if (way == 0)
            for (unsigned i = 0; i < 6; i++) /* number 6 - i */
                assert_said(partition, i, 24 + i, "the session ended");
        else
            for (unsigned i = 0; i < 3; i++) /* numbers 5, 3, 1 */
                assert_said(partition, i, 25 + 2 * i, "the session closed the service");
        partition_destroy(partition);
    }
}

static uint64_t event_index(const struct reply *reply)
{
    Atomix__Multiraft__Map__V1__EventsOutput *output =
        atomix__multiraft__map__v1__events_output__unpack(NULL, reply->payload_size, reply->payload);
    assert_non_null(output);
    assert_int_equal(output->event->type, ATOMIX__MULTIRAFT__MAP__V1__EVENT__TYPE__REMOVE);
    uint64_t index = output->event->entry->index;
    atomix__multiraft__map__v1__events_output__free_unpacked(output, NULL);
    return index;
}

/* Equal deadlines end in the order of what was written, not of insertion; a session's among them by its id. */
static void order_of_deadlines(void **state)
{
    (void)state;
    static const char *const keys[] = {"a", "b", "c", "d", "e"};
    struct partition *partition = partition_create_with(7, LIMIT, all_types());
    struct duration ttl = duration_of(9 * MR_SECOND);
    partition_open_session(partition, MR_HOUR);            /* 1 */
    partition_create_service(partition, 1, MAP_TYPE, "m"); /* 2 */
    for (unsigned i = 0; i < 5; i++)                       /* 3 to 7: inserted */
        send(partition, 1, 2, 1 + i, "Put", write_payload(keys[i], text("v"), NULL, 0));
    for (unsigned i = 0; i < 5; i++) { /* 8 to 12: written */
        send(partition, 1, 2, 6 + i, "Put", write_payload(keys[i * 3 % 5], text("v"), &ttl, 0));
        if (i == 2)
            partition_open_session(partition, 9 * MR_SECOND); /* 11, so that the later ones are 12 and 13 */
    }
    partition_create_service(partition, 11, MAP_TYPE, "m");         /* 14 */
    send(partition, 11, 2, 1, "Events", events_payload("", false)); /* 15 */
    send(partition, 1, 2, 20, "Events", events_payload("", false)); /* 16 */
    partition_restore(partition);
    send(partition, 11, 2, 1, "Events", events_payload("", false)); /* 17: asks from here on */
    send(partition, 1, 2, 20, "Events", events_payload("", false)); /* 18 */
    partition_tick(partition, partition->time + 9 * MR_SECOND);
    static const uint64_t indexes[] = {8, 8, 9, 9, 10, 10, 0, 12, 13};
    assert_int_equal(partition->said_count, 9);
    for (unsigned i = 0; i < 9; i++) {
        const struct reply *reply = &partition->said[i];
        assert_int_equal(reply->position, i % 2 == 0 && i <= 6 ? 17 : 18);
        if (indexes[i] == 0)
            assert_string_equal(reply->message, "the session ended");
        else
            assert_int_equal(event_index(reply), indexes[i]);
    }
    partition_destroy(partition);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_of_ends),
        cmocka_unit_test(order_of_deadlines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
