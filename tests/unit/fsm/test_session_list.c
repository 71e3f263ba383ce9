/* SPDX-License-Identifier: Apache-2.0 */
/* What can be asked of sessions from outside: who owns which, when each ends, what each holds. */
#include "tests/unit/fsm/streams.h"

static void in_order_of_id(void **state)
{
    struct partition *partition = partition_create(3, 1000000);
    struct fsm_session session;
    uint64_t ids[100];

    (void)state;
    assert_false(fsm_session_after(partition->fsm, 0, &session));
    for (unsigned i = 0; i < 100; i++) {
        partition->uid = i;
        ids[i] = partition_open_session(partition, (1 + i) * MR_SECOND);
    }
    uint64_t after = 0;
    for (unsigned i = 0; i < 100; i++) {
        assert_true(fsm_session_after(partition->fsm, after, &session));
        assert_int_equal(session.id, ids[i]);
        assert_int_equal(session.uid, i);
        assert_int_equal(session.timeout, (1 + i) * MR_SECOND);
        assert_int_equal(session.open_commands, 0);
        assert_int_equal(session.stored_bytes, 0);
        after = session.id;
    }
    assert_false(fsm_session_after(partition->fsm, after, &session));
    /* from where none is (any more) */
    partition_tick(partition, partition->time + 60 * MR_SECOND);
    assert_false(fsm_session_describe(partition->fsm, ids[20], &session));
    assert_true(fsm_session_after(partition->fsm, ids[20], &session));
    uint64_t first = session.id;
    assert_true(fsm_session_after(partition->fsm, 0, &session));
    assert_int_equal(session.id, first);
    assert_true(session.deadline > partition->time);
    partition_destroy(partition);
}

static void what_one_holds(void **state)
{
    struct partition *partition = partition_create(3, 1000000);
    uint64_t id = partition_open_session(partition, 10 * MR_SECOND);
    struct fsm_session before, after;

    (void)state;
    uint64_t map = partition_create_service(partition, id, MAP_TYPE, "m")->id;
    assert_true(fsm_session_describe(partition->fsm, id, &before));
    assert_int_equal(before.deadline, partition->time + 10 * MR_SECOND);
    for (uint64_t number = 1; number <= 3; number++) {
        struct payload all = events_payload("", false);
        request_command(&partition->request, id, map, number, "Events", payload_slice(&all));
        partition_submit(partition);
    }
    partition_command(partition, id, map, 4, "Size", (struct payload){.size = 0});
    assert_true(fsm_session_describe(partition->fsm, id, &after));
    assert_int_equal(after.open_commands, 3);
    assert_true(after.stored_bytes > before.stored_bytes);
    assert_false(fsm_session_describe(partition->fsm, id + 1, &after));
    partition_destroy(partition);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_of_id),
        cmocka_unit_test(what_one_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
