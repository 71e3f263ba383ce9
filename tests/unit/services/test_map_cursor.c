/* SPDX-License-Identifier: Apache-2.0 */
/* A map's Entries: every entry that is there from the beginning to the end exactly once, none twice, whatever happens
 * between two of them; and nothing of it in the state. */
#include "tests/support/random.h"
#include "tests/unit/services/one_service.h"

#include "proto/reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int setup(void **state)
{
    *state = fixture_create(MAP_TYPE, UINT64_MAX);
    return 0;
}

/* The index of a command that succeeds. */
static uint64_t apply(struct fixture *fixture, const char *operation, struct payload payload)
{
    const struct reply *reply = run(fixture, operation, payload);
    assert_int_equal(reply->operation_status, STATUS_OK);
    return reply->index;
}

static uint64_t put(struct fixture *fixture, const char *key, const char *value)
{
    return apply(fixture, "Put", write_payload(key, text(value), NULL, 0));
}

static struct fsm_cursor *entries(struct fixture *fixture)
{
    struct fsm_cursor *cursor =
        partition_cursor(fixture->partition, fixture->session, fixture->service, "Entries", none);
    assert_non_null(cursor);
    return cursor;
}

static void assert_entry(const struct reply *reply, const char *key, const char *value, uint64_t index, uint64_t ttl,
                         bool last)
{
    struct duration duration = duration_of(ttl);
    struct payload entry = write_payload(key, text(value), ttl == 0 ? NULL : &duration, index), whole = {.size = 0};
    payload_message(&whole, 1, &entry);
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->operation_status, STATUS_OK);
    assert_int_equal(reply->last, last);
    assert_int_equal(reply->payload_size, whole.size);
    assert_memory_equal(reply->payload, whole.data, whole.size);
}

static void assert_next(struct fixture *fixture, struct fsm_cursor *cursor, const char *key, const char *value,
                        uint64_t index, bool last)
{
    assert_entry(partition_cursor_next(fixture->partition, cursor), key, value, index, 0, last);
}

/* An empty output, the last. */
static void assert_end(struct fixture *fixture, struct fsm_cursor *cursor)
{
    const struct reply *reply = partition_cursor_next(fixture->partition, cursor);
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->operation_status, STATUS_OK);
    assert_true(reply->last);
    assert_int_equal(reply->payload_size, 0);
}

static void in_order(void **state)
{
    struct fixture *fixture = *state;
    struct fsm_cursor *cursor = entries(fixture);
    assert_end(fixture, cursor);
    put(fixture, "late", "1");
    assert_end(fixture, cursor);
    fsm_cursor_close(cursor);
    apply(fixture, "Clear", none);
    uint64_t c = put(fixture, "c", "1"), a = put(fixture, "a", "1"), empty = put(fixture, "", "");
    c = put(fixture, "c", "2");
    cursor = entries(fixture);
    assert_next(fixture, cursor, "c", "2", c, false);
    assert_next(fixture, cursor, "a", "1", a, false);
    assert_next(fixture, cursor, "", "", empty, true);
    assert_end(fixture, cursor);
    fsm_cursor_close(cursor);
    fsm_cursor_close(NULL);
}

static void bad_inputs_and_refusals(void **state)
{
    struct fixture *fixture = *state;
    static const struct payload bad = {{0x0a, 5, 'a'}, 3};
    struct partition *partition = fixture->partition;
    assert_null(partition_cursor(partition, fixture->session, fixture->service, "Entries", bad));
    assert_int_equal(partition->reply.status, STATUS_OK);
    assert_int_equal(partition->reply.operation_status, STATUS_INVALID);
    assert_null(partition_cursor(partition, 12345, fixture->service, "Entries", none));
    assert_int_equal(partition->reply.status, STATUS_FORBIDDEN);
    assert_null(partition_cursor(partition, fixture->session, fixture->service, "Size", none));
    assert_int_equal(partition->reply.operation_status, STATUS_OK);
}

/* Do these bytes stand in the one piece of a small output? */
static bool shows(const struct operation_output *output, const char *text)
{
    assert_int_equal(output->part_count, 1);
    return memmem(output->parts[0].data, output->parts[0].size, text, strlen(text)) != NULL;
}

static void shown_until_taken(void **state)
{
    struct fixture *fixture = *state;
    struct operation_output output;
    const char *message;
    bool last;
    put(fixture, "a", "1");
    uint64_t b = put(fixture, "b", "1");
    struct fsm_cursor *cursor = entries(fixture);
    for (unsigned again = 0; again < 3; again++) {
        assert_int_equal(fsm_cursor_next(cursor, fixture->partition->time, &output, &last, &message), STATUS_OK);
        assert_false(last);
        assert_true(shows(&output, "a"));
        assert_false(shows(&output, "b"));
    }
    put(fixture, "a", "changed"); /* it has not been given yet */
    assert_int_equal(fsm_cursor_next(cursor, fixture->partition->time, &output, &last, &message), STATUS_OK);
    assert_true(shows(&output, "changed"));
    apply(fixture, "Remove", key_payload("a", 0));
    assert_next(fixture, cursor, "b", "1", b, true);
    fsm_cursor_close(cursor);
}

static void changes_meanwhile(void **state)
{
    struct fixture *fixture = *state;
    uint64_t index[6];
    char key[2] = "a";
    for (unsigned i = 0; i < 6; i++, key[0]++)
        index[i] = put(fixture, key, "1"); /* a to f */
    struct fsm_cursor *cursor = entries(fixture), *other = entries(fixture);
    assert_next(fixture, cursor, "a", "1", index[0], false);
    apply(fixture, "Remove", key_payload("b", 0)); /* both stand there or before */
    index[0] = put(fixture, "a", "2");             /* has been given */
    index[3] = put(fixture, "d", "2");             /* not yet */
    assert_next(fixture, other, "a", "2", index[0], false);
    apply(fixture, "Remove", key_payload("a", 0));
    put(fixture, "a", "3"); /* another entry of that key: it comes after the beginning */
    put(fixture, "g", "1");
    assert_next(fixture, cursor, "c", "1", index[2], false);
    apply(fixture, "Remove", key_payload("f", 0));
    assert_next(fixture, cursor, "d", "2", index[3], false);
    assert_next(fixture, cursor, "e", "1", index[4], true); /* what has come since is not looked at */
    assert_end(fixture, cursor);
    assert_next(fixture, other, "c", "1", index[2], false);
    apply(fixture, "Remove", key_payload("d", 0));
    apply(fixture, "Remove", key_payload("e", 0));
    assert_end(fixture, other); /* what was to be its last is gone */
    fsm_cursor_close(cursor);
    fsm_cursor_close(other);
}

static void cleared_meanwhile(void **state)
{
    struct fixture *fixture = *state;
    uint64_t a = put(fixture, "a", "1");
    put(fixture, "b", "1");
    struct fsm_cursor *cursor = entries(fixture), *unused = entries(fixture);
    assert_next(fixture, cursor, "a", "1", a, false);
    apply(fixture, "Clear", none);
    while (fsm_collect(fixture->partition->fsm, 1))
        ;
    put(fixture, "b", "2");
    assert_end(fixture, cursor);
    assert_end(fixture, unused);
    fsm_cursor_close(cursor);
    fsm_cursor_close(unused);
}

static void deadlines_meanwhile(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct duration second = duration_of(MR_SECOND), minute = duration_of(60 * MR_SECOND);
    apply(fixture, "Put", write_payload("a", text("1"), &second, 0));
    uint64_t b = apply(fixture, "Put", write_payload("b", text("1"), &minute, 0));
    struct fsm_cursor *cursor = entries(fixture);
    partition_tick(partition, partition->time + 2 * MR_SECOND);
    partition->time += 3 * MR_SECOND; /* a query may be asked later than the last command */
    assert_entry(partition_cursor_next(partition, cursor), "b", "1", b, 55 * MR_SECOND, true);
    fsm_cursor_close(cursor);
}

static void assert_forbidden(struct fixture *fixture, struct fsm_cursor *cursor)
{
    for (unsigned again = 0; again < 2; again++) {
        const struct reply *reply = partition_cursor_next(fixture->partition, cursor);
        assert_int_equal(reply->status, STATUS_FORBIDDEN);
        assert_true(reply->message[0] != '\0');
    }
    fsm_cursor_close(cursor);
}

static void closed_meanwhile(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    put(fixture, "a", "1");
    uint64_t other = partition_open_session(partition, MR_HOUR);
    partition_create_service(partition, other, MAP_TYPE, "a");
    struct fsm_cursor *cursor = entries(fixture);
    struct fsm_cursor *of_other = partition_cursor(partition, other, fixture->service, "Entries", none);
    request_close_service(&partition->request, fixture->session, fixture->service);
    partition_apply(partition);
    assert_forbidden(fixture, cursor);
    partition_create_service(partition, fixture->session, MAP_TYPE, "a");
    cursor = entries(fixture);
    request_close_session(&partition->request, fixture->session);
    partition_apply(partition);
    assert_forbidden(fixture, cursor);
    assert_int_equal(partition_cursor_next(partition, of_other)->status, STATUS_OK); /* not touched by all that */
    fsm_cursor_close(of_other);
    of_other = partition_cursor(partition, other, fixture->service, "Entries", none);
    partition_tick(partition, partition->time + MR_HOUR);
    assert_forbidden(fixture, of_other);
}

/* Two state machines of one history, on one of which queries are asked all the time: nothing of it shows. */
static void no_part_of_the_state(void **state)
{
    struct fixture *fixture = *state;
    struct partition *plain = partition_create(2, UINT64_MAX);
    struct fixture twin = {.partition = plain, .session = partition_open_session(plain, 24 * MR_HOUR)};
    twin.service = partition_create_service(plain, twin.session, MAP_TYPE, "a")->id;
    struct fsm_cursor *cursors[5] = {NULL};
    char key[16];
    for (unsigned i = 0; i < 2000; i++) {
        snprintf(key, sizeof(key), "%u", i * 7919 % 61);
        const char *operation = i % 400 == 399 ? "Clear" : i % 3 == 0 ? "Remove" : "Put";
        struct payload payload = i % 3 == 0 ? key_payload(key, 0) : write_payload(key, text("v"), NULL, 0);
        partition_command(fixture->partition, fixture->session, fixture->service, i + 1, operation, payload);
        partition_command(plain, twin.session, twin.service, i + 1, operation, payload);
        struct fsm_cursor **cursor = &cursors[i % 5];
        if (*cursor == NULL)
            *cursor = entries(fixture);
        else if (partition_cursor_next(fixture->partition, *cursor)->last) {
            fsm_cursor_close(*cursor);
            *cursor = NULL;
        }
    }
    size_t size, twin_size;
    uint8_t *dump = partition_dump(fixture->partition, &size), *twin_dump = partition_dump(plain, &twin_size);
    assert_int_equal(size, twin_size);
    assert_memory_equal(dump, twin_dump, size);
    free(dump);
    free(twin_dump);
    for (unsigned i = 0; i < 5; i++)
        fsm_cursor_close(cursors[i]);
    partition_destroy(plain);
}

/* Many stand at the same entry. */
static void a_crowd_moves_on(void **state)
{
    struct fixture *fixture = *state;
    struct fsm_cursor *cursors[300];
    put(fixture, "a", "1");
    uint64_t b = put(fixture, "b", "1");
    for (unsigned n = 0; n < 300; n++)
        cursors[n] = entries(fixture);
    for (unsigned n = 0; n < 270; n++)
        fsm_cursor_taken(cursors[n]);
    apply(fixture, "Remove", key_payload("a", 0));
    for (unsigned n = 0; n < 300; n++) {
        assert_next(fixture, cursors[n], "b", "1", b, true);
        fsm_cursor_close(cursors[n]);
    }
    apply(fixture, "Remove", key_payload("b", 0));
}

/* Many stand everywhere, in groups that meet where the entries between them go. */
static void crowds_meet(void **state)
{
    enum { KEYS = 40, CROWD = 300 };
    struct fixture *fixture = *state;
    struct fsm_cursor *cursors[CROWD];
    uint64_t index[KEYS]; /* 0: it is gone */
    char key[8];
    for (unsigned k = 0; k < KEYS; k++) {
        snprintf(key, sizeof(key), "%u", k);
        index[k] = put(fixture, key, "old");
    }
    for (unsigned n = 0; n < CROWD; n++) {
        cursors[n] = entries(fixture);
        for (unsigned k = 0; k < n % KEYS; k++)
            fsm_cursor_taken(cursors[n]);
    }
    put(fixture, "late", "1");
    for (unsigned i = 0; i < KEYS / 2; i++) {
        unsigned k = (unsigned)below(KEYS);
        snprintf(key, sizeof(key), "%u", k);
        if (index[k] != 0)
            apply(fixture, "Remove", key_payload(key, 0));
        index[k] = 0;
    }
    for (unsigned k = 0; k < KEYS; k++) {
        snprintf(key, sizeof(key), "%u", k);
        if (index[k] != 0)
            index[k] = put(fixture, key, "a new value, for which it has to lie elsewhere"); /* than it did */
    }
    unsigned last = 0;
    for (unsigned k = 0; k < KEYS; k++)
        last = index[k] != 0 ? k : last;
    for (unsigned n = 0; n < CROWD; n++) {
        for (unsigned k = n % KEYS; k <= last; k++) {
            snprintf(key, sizeof(key), "%u", k);
            if (index[k] != 0)
                assert_next(fixture, cursors[n], key, "a new value, for which it has to lie elsewhere", index[k],
                            k == last);
        }
        assert_end(fixture, cursors[n]);
        fsm_cursor_close(cursors[n]);
    }
}

/* A cursor may be closed when the state machine is gone. */
static void closed_last(void **state)
{
    (void)state;
    struct partition *partition = partition_create(1, UINT64_MAX);
    uint64_t session = partition_open_session(partition, MR_HOUR);
    uint64_t service = partition_create_service(partition, session, MAP_TYPE, "a")->id;
    partition_command(partition, session, service, 1, "Put", write_payload("a", text("1"), NULL, 0));
    struct fsm_cursor *cursor = partition_cursor(partition, session, service, "Entries", none);
    partition_destroy(partition);
    fsm_cursor_close(cursor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_inputs_and_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(shown_until_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(changes_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(cleared_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(deadlines_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(closed_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(no_part_of_the_state, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crowd_moves_on, setup, teardown),
        cmocka_unit_test_setup_teardown(crowds_meet, setup, teardown),
        cmocka_unit_test(closed_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
