/* SPDX-License-Identifier: Apache-2.0 */
/* A map's Events: who is told what, in which order, byte by byte; replays; deadlines; and the listeners in the
 * snapshot. */
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct slice no_filter;
static const struct payload none;

enum event_type { NONE, INSERT, UPDATE, REMOVE, REPLAY };

struct fixture {
    struct partition *partition;
    uint64_t session, service, number; /* who writes */
    uint64_t listener, listened;       /* who listens */
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct partition *partition = partition_create(1, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    fixture->partition = partition;
    fixture->session = partition_open_session(partition, 24 * MR_HOUR);
    fixture->listener = partition_open_session(partition, 24 * MR_HOUR);
    fixture->service = partition_create_service(partition, fixture->session, MAP_TYPE, "a")->id;
    partition_create_service(partition, fixture->listener, MAP_TYPE, "a");
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

/* ---- doing ---- */

/* Listens, and is answered on the channel of the command's number. Returns the command's index. */
static uint64_t listen(struct fixture *fixture, const char *key, bool replay)
{
    struct partition *partition = fixture->partition;
    struct payload payload = events_payload(key, replay);
    uint64_t number = ++fixture->listened;
    request_command(&partition->request, fixture->listener, fixture->service, number, "Events",
                    payload_slice(&payload));
    partition->route = (struct fsm_route){number, 1};
    partition_submit(partition);
    return partition->index;
}

/* Returns the command's index. */
static uint64_t run(struct fixture *fixture, const char *operation, struct payload payload)
{
    struct partition *partition = fixture->partition;
    partition->route = (struct fsm_route){9999, 1};
    const struct reply *reply =
        partition_command(partition, fixture->session, fixture->service, ++fixture->number, operation, payload);
    assert_int_equal(reply->status, STATUS_OK);
    return reply->index;
}

static uint64_t put(struct fixture *fixture, const char *key, const char *value)
{
    return run(fixture, "Put", write_payload(key, text(value), NULL, 0));
}

static uint64_t put_for(struct fixture *fixture, const char *key, uint64_t ttl)
{
    struct duration duration = duration_of(ttl);
    return run(fixture, "Put", write_payload(key, text("v"), &duration, 0));
}

/* ---- what is expected ---- */

static struct payload event_payload(enum event_type type, const char *key, const char *value, uint64_t index,
                                    uint64_t ttl)
{
    struct duration duration = duration_of(ttl);
    struct payload whole = {.size = 0}, event = {.size = 0}, entry = {.size = 0};
    if (type == NONE)
        payload_bytes(&entry, 1, text(key)); /* of the entry only the key */
    else
        entry = write_payload(key, text(value), ttl == 0 ? NULL : &duration, index);
    payload_number(&event, 1, type);
    payload_message(&event, 2, &entry);
    payload_message(&whole, 2, &event);
    return whole;
}

/* What was said at `at`: the output of the listener's command, and exactly this event. */
static void assert_event(struct fixture *fixture, size_t at, uint64_t listener, uint64_t number, enum event_type type,
                         const char *key, const char *value, uint64_t index, uint64_t ttl)
{
    assert_true(at < fixture->partition->said_count);
    const struct reply *reply = &fixture->partition->said[at];
    struct payload expected = event_payload(type, key, value, index, ttl);
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->channel, listener);
    assert_int_equal(reply->sequence_num, listener);
    assert_int_equal(reply->number, number);
    assert_false(reply->last);
    assert_int_equal(reply->operation_status, STATUS_OK);
    assert_int_equal(reply->payload_size, expected.size);
    assert_memory_equal(reply->payload, expected.data, expected.size);
}

static void assert_said(struct fixture *fixture, size_t count)
{
    assert_int_equal(fixture->partition->said_count, count);
}

/* ---- events ---- */

static void every_kind(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "there", "before");
    uint64_t events = listen(fixture, "", false);
    assert_said(fixture, 1);
    assert_event(fixture, 0, 1, 1, NONE, "", "", 0, 0);
    assert_int_equal(fixture->partition->said[0].index, events);
    uint64_t index = put(fixture, "a", "1");
    assert_said(fixture, 2); /* and the answer to Put itself */
    assert_event(fixture, 0, 1, 2, INSERT, "a", "1", index, 0);
    assert_int_equal(fixture->partition->said[0].index, events);
    index = put(fixture, "a", "2");
    assert_event(fixture, 0, 1, 3, UPDATE, "a", "2", index, 0);
    index = run(fixture, "Update", write_payload("a", text("3"), NULL, index));
    assert_event(fixture, 0, 1, 4, UPDATE, "a", "3", index, 0);
    run(fixture, "Remove", key_payload("a", 0));
    assert_event(fixture, 0, 1, 5, REMOVE, "a", "3", index, 0);
    index = run(fixture, "Insert", write_payload("a", text(""), NULL, 0));
    assert_event(fixture, 0, 1, 6, INSERT, "a", "", index, 0);
    index = put(fixture, "", "of the empty key");
    assert_event(fixture, 0, 1, 7, INSERT, "", "of the empty key", index, 0);
    char large[3000];
    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    index = put(fixture, "a", large);
    assert_event(fixture, 0, 1, 8, UPDATE, "a", large, index, 0);
}

static void larger_than_one_piece(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    listen(fixture, "", false);
    listen(fixture, "", false);
    enum { VALUE = 100000 };
    uint8_t *value = malloc(VALUE + 16), *at = value;
    at = field_write_message_head(at, 2, VALUE + field_message_head_size(1, VALUE));
    at = field_write_message_head(at, 1, VALUE);
    memset(at, 'y', VALUE);
    size_t size = (size_t)(at - value) + VALUE;
    request_command(&partition->request, fixture->session, fixture->service, 1, "Put", (struct slice){value, size});
    partition->route = (struct fsm_route){9999, 1};
    partition_submit(partition);
    assert_said(fixture, 3);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(partition->said[i].payload_size > VALUE && partition->said[i].payload_size < VALUE + 32);
        assert_non_null(memmem(partition->said[i].payload, partition->said[i].payload_size, value, size));
    }
    free(value);
}

static void what_fails_tells_nothing(void **state)
{
    struct fixture *fixture = *state;
    uint64_t index = put(fixture, "a", "1");
    listen(fixture, "", false);
    struct duration negative = {-1, 0, true};
    run(fixture, "Put", write_payload("a", text("2"), NULL, index + 1000));
    assert_said(fixture, 1);
    run(fixture, "Put", write_payload("a", text("2"), &negative, 0));
    assert_said(fixture, 1);
    run(fixture, "Insert", write_payload("a", text("2"), NULL, 0));
    assert_said(fixture, 1);
    run(fixture, "Update", write_payload("b", text("2"), NULL, 0));
    assert_said(fixture, 1);
    run(fixture, "Remove", key_payload("b", 0));
    assert_said(fixture, 1);
    run(fixture, "Remove", key_payload("a", index + 1000));
    assert_said(fixture, 1);
}

static void a_bad_input(void **state)
{
    struct fixture *fixture = *state;
    static const struct payload bad[] = {{{0x0a, 5, 'a'}, 3}, {{0x0a, 1, 0xff}, 3}, {{0x10}, 1}};
    for (uint64_t i = 0; i < 3; i++) {
        const struct reply *reply =
            partition_command(fixture->partition, fixture->listener, fixture->service, i + 1, "Events", bad[i]);
        assert_true(reply->last);
        assert_int_equal(reply->operation_status, STATUS_INVALID);
    }
    put(fixture, "a", "1");
    assert_said(fixture, 1);
}

static void one_key(void **state)
{
    struct fixture *fixture = *state;
    listen(fixture, "a", false); /* 1 */
    assert_event(fixture, 0, 1, 1, NONE, "a", "", 0, 0);
    listen(fixture, "", false);  /* 2 */
    listen(fixture, "b", false); /* 3 */
    listen(fixture, "a", false); /* 4 */
    listen(fixture, "", false);  /* 5 */
    uint64_t index = put(fixture, "a", "1");
    assert_said(fixture, 5); /* in the order of the listeners */
    assert_event(fixture, 0, 1, 2, INSERT, "a", "1", index, 0);
    assert_event(fixture, 1, 2, 2, INSERT, "a", "1", index, 0);
    assert_event(fixture, 2, 4, 2, INSERT, "a", "1", index, 0);
    assert_event(fixture, 3, 5, 2, INSERT, "a", "1", index, 0);
    index = put(fixture, "b", "1");
    assert_said(fixture, 4);
    assert_event(fixture, 0, 2, 3, INSERT, "b", "1", index, 0);
    assert_event(fixture, 1, 3, 2, INSERT, "b", "1", index, 0);
    assert_event(fixture, 2, 5, 3, INSERT, "b", "1", index, 0);
    put(fixture, "c", "1");
    assert_said(fixture, 3);
    /* 1, 2 and 3 go; the rest stays in order. */
    uint8_t bytes[2 + 64];
    static const uint64_t kept[] = {4, 5};
    fixture->partition->route = (struct fsm_route){9998, 1};
    partition_keep_alive(fixture->partition, fixture->listener, make_filter(bytes, 4, 512, kept, 2), 5);
    assert_said(fixture, 4);
    index = put(fixture, "a", "2");
    assert_said(fixture, 3);
    assert_event(fixture, 0, 4, 3, UPDATE, "a", "2", index, 0);
    assert_event(fixture, 1, 5, 5, UPDATE, "a", "2", index, 0);
    put(fixture, "b", "2");
    assert_said(fixture, 2);
}

static void many_keys(void **state)
{
    struct fixture *fixture = *state;
    char key[16];
    for (unsigned i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "%u", i % 150);
        listen(fixture, key, false);
    }
    for (unsigned i = 0; i < 150; i++) {
        snprintf(key, sizeof(key), "%u", i);
        uint64_t index = put(fixture, key, "1");
        assert_said(fixture, 3);
        assert_event(fixture, 0, i + 1, 2, INSERT, key, "1", index, 0);
        assert_event(fixture, 1, i + 151, 2, INSERT, key, "1", index, 0);
    }
    fixture->partition->route = (struct fsm_route){9998, 1};
    partition_keep_alive(fixture->partition, fixture->listener, no_filter, 299);
    assert_said(fixture, 300);
    put(fixture, "148", "2");
    assert_said(fixture, 1);
    uint64_t index = put(fixture, "149", "2");
    assert_said(fixture, 2);
    assert_event(fixture, 0, 300, 3, UPDATE, "149", "2", index, 0);
}

static void replays(void **state)
{
    struct fixture *fixture = *state;
    uint64_t c = put(fixture, "c", "1");
    uint64_t a = put(fixture, "a", "1");
    uint64_t b = put_for(fixture, "b", 10 * MR_SECOND);
    c = put(fixture, "c", "2"); /* does not move it */
    fixture->partition->time += 3 * MR_SECOND;
    listen(fixture, "", true);
    assert_said(fixture, 4);
    assert_event(fixture, 0, 1, 1, NONE, "", "", 0, 0);
    assert_event(fixture, 1, 1, 2, REPLAY, "c", "2", c, 0);
    assert_event(fixture, 2, 1, 3, REPLAY, "a", "1", a, 0);
    assert_event(fixture, 3, 1, 4, REPLAY, "b", "v", b, 7 * MR_SECOND);
    listen(fixture, "a", true);
    assert_said(fixture, 2);
    assert_event(fixture, 0, 2, 1, NONE, "a", "", 0, 0);
    assert_event(fixture, 1, 2, 2, REPLAY, "a", "1", a, 0);
    listen(fixture, "nothing", true);
    assert_said(fixture, 1);
    assert_event(fixture, 0, 3, 1, NONE, "nothing", "", 0, 0);
    a = put(fixture, "a", "2");
    assert_event(fixture, 0, 1, 5, UPDATE, "a", "2", a, 0);
    assert_event(fixture, 1, 2, 3, UPDATE, "a", "2", a, 0);
}

/* ---- deadlines ---- */

static void deadlines(void **state)
{
    struct fixture *fixture = *state;
    uint64_t start = fixture->partition->time;
    listen(fixture, "", false);
    uint64_t b = put_for(fixture, "b", 2 * MR_SECOND);
    assert_event(fixture, 0, 1, 2, INSERT, "b", "v", b, 2 * MR_SECOND);
    uint64_t a = put_for(fixture, "a", 2 * MR_SECOND), c = put_for(fixture, "c", MR_SECOND);
    uint64_t d = put_for(fixture, "d", 10 * MR_SECOND);
    partition_tick(fixture->partition, start + MR_SECOND);
    assert_said(fixture, 1);
    assert_event(fixture, 0, 1, 6, REMOVE, "c", "v", c, 0); /* nothing remains */
    fixture->partition->time = start + 4 * MR_SECOND;       /* before the command that carries time past it */
    uint64_t again = put(fixture, "a", "new");
    assert_said(fixture, 4);
    assert_event(fixture, 0, 1, 7, REMOVE, "b", "v", b, 0);
    assert_event(fixture, 1, 1, 8, REMOVE, "a", "v", a, 0);
    assert_event(fixture, 2, 1, 9, INSERT, "a", "new", again, 0);
    run(fixture, "Remove", key_payload("d", 0));
    assert_event(fixture, 0, 1, 10, REMOVE, "d", "v", d, 6 * MR_SECOND); /* removed before its end */
}

/* ---- Clear ---- */

static void clear(void **state)
{
    struct fixture *fixture = *state;
    uint64_t c = put(fixture, "c", "1"), a = put(fixture, "a", "1"), b = put_for(fixture, "b", 10 * MR_SECOND);
    c = put(fixture, "c", "2");
    listen(fixture, "", false);
    listen(fixture, "b", false);
    fixture->partition->time += MR_SECOND;
    run(fixture, "Clear", none);
    assert_said(fixture, 5);
    assert_event(fixture, 0, 1, 2, REMOVE, "c", "2", c, 0);
    assert_event(fixture, 1, 1, 3, REMOVE, "a", "1", a, 0);
    assert_event(fixture, 2, 1, 4, REMOVE, "b", "v", b, 9 * MR_SECOND);
    assert_event(fixture, 3, 2, 2, REMOVE, "b", "v", b, 9 * MR_SECOND);
    run(fixture, "Clear", none);
    assert_said(fixture, 1);
    partition_tick(fixture->partition, fixture->partition->time + 20 * MR_SECOND); /* b's end is gone, too */
    assert_said(fixture, 0);
}

/* With listeners of single keys alone: still in the order of insertion, be they more than the entries or not. */
static void check_clear_of_single_keys(struct fixture *fixture, bool more)
{
    static const char *const keys[] = {"a", "b", "nothing", "c"};
    uint64_t indexes[4];
    for (unsigned i = 0; i < 4; i++)
        listen(fixture, keys[i], false); /* 1 to 4 */
    listen(fixture, "a", false);         /* 5 */
    indexes[3] = put(fixture, "c", "1");
    if (!more)
        put(fixture, "unheard", "1");
    indexes[0] = put(fixture, "a", "1");
    indexes[1] = put(fixture, "b", "1");
    run(fixture, "Clear", none);
    assert_said(fixture, 5);
    assert_event(fixture, 0, 4, 3, REMOVE, "c", "1", indexes[3], 0);
    assert_event(fixture, 1, 1, 3, REMOVE, "a", "1", indexes[0], 0);
    assert_event(fixture, 2, 5, 3, REMOVE, "a", "1", indexes[0], 0);
    assert_event(fixture, 3, 2, 3, REMOVE, "b", "1", indexes[1], 0);
}

static void clear_of_single_keys(void **state)
{
    check_clear_of_single_keys(*state, false);
}

static void clear_of_fewer_entries_than_listened_keys(void **state)
{
    check_clear_of_single_keys(*state, true);
}

/* ---- the limit ---- */

static void listeners_that_reach_the_limit(void **state)
{
    (void)state;
    struct fixture fixture = {.partition = partition_create(1, 20000)};
    struct partition *partition = fixture.partition;
    fixture.listener = partition_open_session(partition, MR_HOUR);
    fixture.session = partition_open_session(partition, MR_HOUR);
    fixture.service = partition_create_service(partition, fixture.session, MAP_TYPE, "a")->id;
    partition_create_service(partition, fixture.listener, MAP_TYPE, "a");
    listen(&fixture, "a", false);
    listen(&fixture, "", false);
    listen(&fixture, "a", false);
    unsigned ended = 0;
    for (unsigned i = 0; ended < 3; i++) {
        assert_true(i < 1000);
        partition_keep_alive(partition, fixture.session, no_filter, fixture.number);
        put(&fixture, "a", "1");
        for (size_t at = 0; at + 1 < partition->said_count; at++) {
            if (!partition->said[at].last)
                continue;
            assert_int_equal(partition->said[at].operation_status, STATUS_UNAVAILABLE);
            ended++;
        }
    }
    put(&fixture, "a", "1");
    assert_said(&fixture, 1);
    /* A replay that does not fit ends in the middle. */
    partition_keep_alive(partition, fixture.listener, no_filter, 3);
    for (unsigned i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof(key), "%u", i);
        partition_keep_alive(partition, fixture.session, no_filter, fixture.number);
        put(&fixture, key, "1");
    }
    listen(&fixture, "", true);
    size_t count = partition->said_count;
    assert_true(count > 10 && count < 150);
    assert_true(partition->said[count - 1].last);
    assert_int_equal(partition->said[count - 1].operation_status, STATUS_UNAVAILABLE);
    assert_int_equal(partition->said[count - 1].number, count);
    partition_destroy(partition);
}

/* ---- the snapshot ---- */

static void listeners_in_the_snapshot(void **state)
{
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    static const char *const keys[] = {"z", "", "a", "z"};
    uint64_t indexes[4];
    for (unsigned i = 0; i < 4; i++)
        indexes[i] = listen(fixture, keys[i], false);
    partition->route = (struct fsm_route){9998, 1};
    uint8_t bytes[2 + 64];
    static const uint64_t kept[] = {1, 2, 4};
    partition_keep_alive(partition, fixture->listener, make_filter(bytes, 4, 512, kept, 3), 4);
    uint64_t index = put(fixture, "k", "v");
    struct payload snapshot = {.size = 0};
    for (unsigned i = 0; i < 4; i++) {
        struct payload listener = {.size = 0};
        payload_number(&listener, 1, indexes[i]);
        payload_bytes(&listener, 2, text(keys[i]));
        if (i != 2)
            payload_message(&snapshot, 1, &listener);
    }
    struct payload entry = {.size = 0}, key = {.size = 0}, value = {.size = 0};
    payload_number(&key, 1, index);
    payload_bytes(&key, 2, text("k"));
    payload_bytes(&value, 1, text("v"));
    payload_message(&entry, 1, &key);
    payload_message(&entry, 2, &value);
    payload_message(&snapshot, 2, &entry);
    size_t size;
    uint8_t *dump = partition_dump(partition, &size);
    assert_non_null(memmem(dump, size, snapshot.data, snapshot.size));
    free(dump);
}

/* ---- many events of one command ---- */

static void put_many(struct fixture *fixture, unsigned count)
{
    char key[16];
    for (unsigned n = 0; n < count; n++) {
        snprintf(key, sizeof(key), "%u", n);
        put(fixture, key, "");
        if (n % 4096 == 4095)
            partition_keep_alive(fixture->partition, fixture->session, no_filter, fixture->number);
    }
}

static const struct reply *try(struct fixture *fixture, const char *operation, struct payload payload)
{
    fixture->partition->route = (struct fsm_route){9999, 1};
    return partition_command(fixture->partition, fixture->session, fixture->service, ++fixture->number, operation,
                             payload);
}

/* Sixteen in a session of their own, who are told without anybody's being given it. */
static void listen_unheard(struct fixture *fixture, unsigned count)
{
    struct partition *partition = fixture->partition;
    struct payload payload = events_payload("", false);
    fixture->listener = partition_open_session(partition, 24 * MR_HOUR);
    partition_create_service(partition, fixture->listener, MAP_TYPE, "a");
    partition->route = (struct fsm_route){0, 0};
    for (unsigned number = 1; number <= count; number++) {
        request_command(&partition->request, fixture->listener, fixture->service, number, "Events",
                        payload_slice(&payload));
        partition_submit(partition);
    }
    fixture->listened = count;
}

/* A product of just as many is told; of one entry, or one listener, more nothing is told and nothing done. */
static void a_clear_of_too_many_events(void **state)
{
    enum { LISTENERS = 256, ENTRIES = MR_EVENTS_MAX / LISTENERS };
    struct fixture *fixture = *state;
    struct partition *partition = fixture->partition;
    struct fsm_session before, after;
    put_many(fixture, ENTRIES + 1);
    for (unsigned n = 0; n < LISTENERS; n += 16)
        listen_unheard(fixture, 16);
    const struct reply *reply = try(fixture, "Clear", none);
    assert_int_equal(reply->operation_status, STATUS_UNAVAILABLE);
    assert_string_equal(reply->message, "4097 entries, 256 listeners: a Clear makes at most 1048576 events; "
                                        "remove entries one by one, or close listeners");
    assert_int_equal(try(fixture, "Remove", key_payload("0", 0))->operation_status, STATUS_OK);
    listen(fixture, "single", false); /* counts once, whether there is such an entry or not */
    assert_int_equal(try(fixture, "Clear", none)->operation_status, STATUS_UNAVAILABLE);
    assert_int_equal(reply_number(partition_ask(partition, fixture->session, fixture->service, "Size", none)), ENTRIES);
    partition_keep_alive(partition, fixture->listener, no_filter, 17); /* ends all of this session's */
    listen_unheard(fixture, 16);
    assert_true(fsm_session_describe(partition->fsm, fixture->listener, &before));
    assert_int_equal(try(fixture, "Clear", none)->operation_status, STATUS_OK);
    assert_true(fsm_session_describe(partition->fsm, fixture->listener, &after));
    assert_int_equal(after.open_commands, 16);
    assert_true(after.stored_bytes - before.stored_bytes > 16 * ENTRIES * 10);
    assert_int_equal(reply_number(partition_ask(partition, fixture->session, fixture->service, "Size", none)), 0);
}

/* Of few who listen to everything each may be told of every entry, however many there are: here more events are made
 * than for a crowd. */
static void a_clear_beside_few_listeners(void **state)
{
    enum { ENTRIES = MR_EVENTS_MAX / 4 + 1 };
    struct fixture *fixture = *state;
    put_many(fixture, ENTRIES);
    listen_unheard(fixture, 5);
    assert_int_equal(try(fixture, "Clear", none)->operation_status, STATUS_UNAVAILABLE);
    partition_keep_alive(fixture->partition, fixture->listener, no_filter, 5); /* ends them */
    listen_unheard(fixture, 4);
    assert_int_equal(try(fixture, "Clear", none)->operation_status, STATUS_OK);
    assert_int_equal(reply_number(partition_ask(fixture->partition, fixture->session, fixture->service, "Size", none)),
                     0);
}

/* Who listens to single keys is told at most once each, however many entries there are. */
static void a_clear_of_many_entries_beside_single_keys(void **state)
{
    struct fixture *fixture = *state;
    put_many(fixture, 3000);
    for (unsigned n = 0; n < 1000; n++)
        listen(fixture, "7", false);
    assert_int_equal(try(fixture, "Clear", none)->operation_status, STATUS_OK);
    assert_int_equal(fixture->partition->said_count, 1001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(larger_than_one_piece, setup, teardown),
        cmocka_unit_test_setup_teardown(what_fails_tells_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bad_input, setup, teardown),
        cmocka_unit_test_setup_teardown(one_key, setup, teardown),
        cmocka_unit_test_setup_teardown(many_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(replays, setup, teardown),
        cmocka_unit_test_setup_teardown(deadlines, setup, teardown),
        cmocka_unit_test_setup_teardown(clear, setup, teardown),
        cmocka_unit_test_setup_teardown(clear_of_single_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(clear_of_fewer_entries_than_listened_keys, setup, teardown),
        cmocka_unit_test(listeners_that_reach_the_limit),
        cmocka_unit_test_setup_teardown(a_clear_of_too_many_events, setup, teardown),
        cmocka_unit_test_setup_teardown(a_clear_beside_few_listeners, setup, teardown),
        cmocka_unit_test_setup_teardown(a_clear_of_many_entries_beside_single_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(listeners_in_the_snapshot, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
