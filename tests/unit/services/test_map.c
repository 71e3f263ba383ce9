/* SPDX-License-Identifier: Apache-2.0 */
/* The map: every operation and each of its failures, deadlines, the bytes of its messages and its snapshot. */
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
    *state = fixture_create(MAP_TYPE, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    return 0;
}

/* ---- asking ---- */

static const struct reply *put(struct fixture *fixture, const char *key, const char *value)
{
    return run(fixture, "Put", write_payload(key, text(value), NULL, 0));
}

static const struct reply *put_for(struct fixture *fixture, const char *key, uint64_t ttl)
{
    struct duration duration = duration_of(ttl);
    return run(fixture, "Put", write_payload(key, text("v"), &duration, 0));
}

static const struct reply *get(struct fixture *fixture, const char *key)
{
    const struct reply *reply =
        partition_ask(fixture->partition, fixture->session, fixture->service, "Get", key_payload(key, 0));
    assert_int_equal(reply->status, STATUS_OK);
    return reply;
}

static uint64_t size(struct fixture *fixture)
{
    return reply_number(partition_ask(fixture->partition, fixture->session, fixture->service, "Size", none));
}

/* The answer must be exactly this entry, encoded canonically. */
static void assert_entry(const struct reply *reply, const char *key, const char *value, uint64_t index, uint64_t ttl)
{
    assert_int_equal(reply->operation_status, STATUS_OK);
    struct duration duration = duration_of(ttl);
    struct payload entry = write_payload(key, text(value), ttl == 0 ? NULL : &duration, index), whole = {.size = 0};
    payload_message(&whole, 1, &entry);
    assert_int_equal(reply->payload_size, whole.size);
    assert_memory_equal(reply->payload, whole.data, whole.size);
}

static void assert_failed(const struct reply *reply, enum status status)
{
    assert_int_equal(reply->status, STATUS_OK);
    assert_int_equal(reply->operation_status, status);
    assert_int_equal(reply->payload_size, 0);
    assert_true(reply->message[0] != '\0');
}

/* ---- operations ---- */

static void put_and_get(void **state)
{
    struct fixture *fixture = *state;
    assert_failed(get(fixture, "a"), STATUS_NOT_FOUND);
    assert_int_equal(size(fixture), 0);
    const struct reply *reply = put(fixture, "a", "one");
    uint64_t index = reply->index;
    assert_int_equal(index, fixture->partition->index);
    assert_entry(reply, "a", "one", index, 0);
    assert_entry(get(fixture, "a"), "a", "one", index, 0);
    assert_int_equal(size(fixture), 1);
    reply = put(fixture, "a", "");
    assert_entry(reply, "a", "", index + 1, 0);
    assert_entry(get(fixture, "a"), "a", "", index + 1, 0);
    reply = put(fixture, "", "of the empty key");
    assert_entry(reply, "", "of the empty key", index + 2, 0);
    assert_entry(get(fixture, ""), "", "of the empty key", index + 2, 0);
    assert_int_equal(size(fixture), 2);
    assert_entry(run(fixture, "Put", none), "", "", index + 3, 0); /* neither key nor value */
}

static void put_if_index(void **state)
{
    struct fixture *fixture = *state;
    uint64_t index = put(fixture, "a", "1")->index;
    assert_failed(run(fixture, "Put", write_payload("a", text("2"), NULL, index + 1)), STATUS_CONFLICT);
    assert_failed(run(fixture, "Put", write_payload("b", text("2"), NULL, index)), STATUS_CONFLICT);
    assert_entry(get(fixture, "a"), "a", "1", index, 0);
    assert_int_equal(size(fixture), 1);
    const struct reply *reply = run(fixture, "Put", write_payload("a", text("2"), NULL, index));
    assert_entry(reply, "a", "2", fixture->partition->index, 0);
}

static void insert(void **state)
{
    struct fixture *fixture = *state;
    const struct reply *reply = run(fixture, "Insert", write_payload("a", text("1"), NULL, 0));
    assert_entry(reply, "a", "1", reply->index, 0);
    uint64_t index = reply->index;
    assert_failed(run(fixture, "Insert", write_payload("a", text("2"), NULL, 0)), STATUS_ALREADY_EXISTS);
    assert_entry(get(fixture, "a"), "a", "1", index, 0);
    /* InsertInput has no field 3. */
    reply = run(fixture, "Insert", write_payload("b", text("2"), NULL, 12345));
    assert_entry(reply, "b", "2", reply->index, 0);
}

static void update(void **state)
{
    struct fixture *fixture = *state;
    assert_failed(run(fixture, "Update", write_payload("a", text("1"), NULL, 0)), STATUS_NOT_FOUND);
    assert_failed(run(fixture, "Update", write_payload("a", text("1"), NULL, 9)), STATUS_NOT_FOUND);
    assert_int_equal(size(fixture), 0);
    uint64_t index = put(fixture, "a", "1")->index;
    assert_failed(run(fixture, "Update", write_payload("a", text("2"), NULL, index + 7)), STATUS_CONFLICT);
    const struct reply *reply = run(fixture, "Update", write_payload("a", text("2"), NULL, index));
    assert_entry(reply, "a", "2", reply->index, 0);
    reply = run(fixture, "Update", write_payload("a", text("3"), NULL, 0));
    assert_entry(reply, "a", "3", reply->index, 0);
}

static void remove_and_clear(void **state)
{
    struct fixture *fixture = *state;
    assert_failed(run(fixture, "Remove", key_payload("a", 0)), STATUS_NOT_FOUND);
    uint64_t index = put(fixture, "a", "1")->index;
    assert_failed(run(fixture, "Remove", key_payload("a", index + 9)), STATUS_CONFLICT);
    assert_entry(run(fixture, "Remove", key_payload("a", index)), "a", "1", index, 0);
    uint64_t removed = fixture->number;
    assert_failed(get(fixture, "a"), STATUS_NOT_FOUND);
    assert_failed(run(fixture, "Remove", key_payload("a", index)), STATUS_NOT_FOUND);
    index = put(fixture, "a", "2")->index;
    assert_entry(run(fixture, "Remove", key_payload("a", 0)), "a", "2", index, 0);
    /* The removed entry is still what the repeated command is answered with. */
    const struct reply *reply = partition_command(fixture->partition, fixture->session, fixture->service, removed,
                                                  "Remove", key_payload("a", 0));
    assert_entry(reply, "a", "1", index - 5 + 1, 0);
    put(fixture, "b", "1");
    put_for(fixture, "c", MR_SECOND);
    reply = run(fixture, "Clear", none);
    assert_int_equal(reply->operation_status, STATUS_OK);
    assert_int_equal(reply->payload_size, 0);
    assert_int_equal(size(fixture), 0);
    assert_failed(get(fixture, "c"), STATUS_NOT_FOUND);
    assert_int_equal(fsm_next_deadline(fixture->partition->fsm), PARTITION_START + 24 * MR_HOUR);
    assert_int_equal(run(fixture, "Clear", none)->operation_status, STATUS_OK);
}

static void malformed(void **state)
{
    struct fixture *fixture = *state;
    static const struct payload bad[] = {
        {{0x0a, 5, 'a'}, 3},                 /* cut off */
        {{0x0a, 1, 0xff}, 3},                /* a key that is not UTF-8 */
        {{0x0a, 2, 0xc0, 0x80}, 4},          /* nor in its long form */
        {{0x12, 2, 0x0a, 9}, 4},             /* a value that is cut off */
        {{0x12, 4, 0x12, 2, 0x08, 0x80}, 6}, /* a ttl that is cut off */
    };
    static const char *const writes[] = {"Put", "Insert", "Update"};
    put(fixture, "a", "1");
    for (unsigned i = 0; i < 5; i++)
        for (unsigned j = 0; j < 3; j++)
            assert_failed(run(fixture, writes[j], bad[i]), STATUS_INVALID);
    for (unsigned i = 0; i < 3; i++) {
        assert_failed(run(fixture, "Remove", bad[i]), STATUS_INVALID);
        assert_failed(partition_ask(fixture->partition, fixture->session, fixture->service, "Get", bad[i]),
                      STATUS_INVALID);
    }
    assert_failed(run(fixture, "Clear", bad[0]), STATUS_INVALID);
    assert_failed(partition_ask(fixture->partition, fixture->session, fixture->service, "Size", bad[0]),
                  STATUS_INVALID);
    assert_int_equal(size(fixture), 1);
}

static void values_in_pieces(void **state)
{
    struct fixture *fixture = *state;
    /* key "x"; value {value "1", ttl {seconds 1}}; key "k"; value {ttl {nanos 5}}; value {value "2"} */
    static const struct payload pieces = {{0x0a, 1,   'x',  0x12, 7,    0x0a, 1,    '1', 0x12, 2, 0x08, 1, 0x0a,
                                           1,    'k', 0x12, 4,    0x12, 2,    0x10, 5,   0x12, 3, 0x0a, 1, '2'},
                                          26};
    const struct reply *reply = run(fixture, "Put", pieces);
    assert_entry(reply, "k", "2", reply->index, MR_SECOND + 5);
}

static void keys_of_any_characters(void **state)
{
    struct fixture *fixture = *state;
    static const uint8_t with_nul[] = {0x0a, 3, 'a', 0, 'b', 0x12, 0};
    struct payload payload = {.size = sizeof(with_nul)};
    memcpy(payload.data, with_nul, sizeof(with_nul));
    assert_int_equal(run(fixture, "Put", payload)->operation_status, STATUS_OK);
    assert_failed(get(fixture, "a"), STATUS_NOT_FOUND);
    put(fixture, "h\xc3\xa4\xf0\x9f\x8c\x8a", "v");
    assert_int_equal(get(fixture, "h\xc3\xa4\xf0\x9f\x8c\x8a")->operation_status, STATUS_OK);
    assert_int_equal(size(fixture), 2);
}

/* ---- deadlines ---- */

static void ttl_ends_an_entry(void **state)
{
    struct fixture *fixture = *state;
    uint64_t index = put_for(fixture, "a", 5 * MR_SECOND)->index;
    assert_entry(&fixture->partition->reply, "a", "v", index, 5 * MR_SECOND);
    assert_int_equal(fsm_next_deadline(fixture->partition->fsm), PARTITION_START + 5 * MR_SECOND);
    partition_tick(fixture->partition, PARTITION_START + 2 * MR_SECOND + 1);
    assert_entry(get(fixture, "a"), "a", "v", index, 3 * MR_SECOND - 1);
    /* A query may be asked later than the last command; what remains is told for then, and never as none. */
    partition_query(fixture->partition, PARTITION_START + 4 * MR_SECOND);
    assert_entry(&fixture->partition->reply, "a", "v", index, MR_SECOND);
    partition_query(fixture->partition, PARTITION_START + 9 * MR_SECOND);
    assert_entry(&fixture->partition->reply, "a", "v", index, 1);
    partition_tick(fixture->partition, PARTITION_START + 5 * MR_SECOND - 1);
    assert_entry(get(fixture, "a"), "a", "v", index, 1);
    partition_tick(fixture->partition, PARTITION_START + 5 * MR_SECOND);
    assert_failed(get(fixture, "a"), STATUS_NOT_FOUND);
    assert_int_equal(size(fixture), 0);
}

static void ttl_before_the_command(void **state)
{
    struct fixture *fixture = *state;
    put_for(fixture, "a", MR_SECOND);
    fixture->partition->time += MR_SECOND;
    const struct reply *reply = run(fixture, "Insert", write_payload("a", text("2"), NULL, 0));
    assert_entry(reply, "a", "2", reply->index, 0);
}

static void writing_again_starts_afresh(void **state)
{
    struct fixture *fixture = *state;
    put_for(fixture, "a", 2 * MR_SECOND);
    fixture->partition->time += MR_SECOND;
    put_for(fixture, "a", 2 * MR_SECOND);
    partition_tick(fixture->partition, PARTITION_START + 2 * MR_SECOND);
    assert_int_equal(get(fixture, "a")->operation_status, STATUS_OK);
    put(fixture, "a", "without");
    partition_tick(fixture->partition, PARTITION_START + 10 * MR_SECOND);
    assert_entry(get(fixture, "a"), "a", "without", fixture->partition->index - 1, 0);
    put_for(fixture, "a", MR_SECOND);
    assert_int_equal(run(fixture, "Remove", key_payload("a", 0))->operation_status, STATUS_OK);
    assert_int_equal(fsm_next_deadline(fixture->partition->fsm), PARTITION_START + 24 * MR_HOUR);
}

static void ttl_of_every_kind(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        struct duration ttl;
        enum status status;
    } cases[] = {
        {{0, 0, true}, STATUS_OK},
        {{0, 1, true}, STATUS_OK},
        {{-1, 0, true}, STATUS_INVALID},
        {{0, -1, true}, STATUS_INVALID},
        {{1, -1, true}, STATUS_INVALID},
        {{0, 1000000000, true}, STATUS_INVALID},
        {{315576000000, 0, true}, STATUS_OK},
        {{315576000001, 0, true}, STATUS_INVALID},
        {{INT64_MIN, 0, true}, STATUS_INVALID},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct reply *reply = run(fixture, "Put", write_payload("a", text("1"), &cases[i].ttl, 0));
        assert_int_equal(reply->operation_status, cases[i].status);
        if (cases[i].status != STATUS_OK)
            assert_true(reply->message[0] != '\0');
        reply = run(fixture, "Insert", write_payload("new", text("1"), &cases[i].ttl, 0));
        assert_int_equal(reply->operation_status, cases[i].status);
        run(fixture, "Remove", key_payload("new", 0));
    }
    /* Longer than 64 bits of nanoseconds: it does not end before time does. */
    partition_tick(fixture->partition, UINT64_MAX - 1);
    struct duration forever = {315576000000, 0, true};
    fixture->session = partition_open_session(fixture->partition, MR_SECOND);
    partition_create_service(fixture->partition, fixture->session, MAP_TYPE, "a");
    run(fixture, "Put", write_payload("b", text("1"), &forever, 0));
    assert_int_equal(get(fixture, "b")->operation_status, STATUS_OK);
}

static void many_deadlines(void **state)
{
    struct fixture *fixture = *state;
    char key[16];
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(key, sizeof(key), "%u", i);
        put_for(fixture, key, (1 + i * 7 % 1000) * MR_SECOND);
    }
    for (unsigned second = 1; second <= 1000; second += 3) {
        partition_tick(fixture->partition, PARTITION_START + second * MR_SECOND);
        assert_int_equal(size(fixture), 1000 - second);
    }
}

/* ---- the snapshot ---- */

static void order_of_insertion(void **state)
{
    struct fixture *fixture = *state;
    static const char *const keys[] = {"d", "b", "a", "c"};
    uint64_t first = fixture->partition->index + 1;
    for (unsigned i = 0; i < 4; i++)
        put(fixture, keys[i], "1");
    put(fixture, "b", "2"); /* does not move it */
    run(fixture, "Remove", key_payload("d", 0));
    struct duration ttl = duration_of(3 * MR_SECOND + 4);
    run(fixture, "Put", write_payload("d", text(""), &ttl, 0)); /* comes last now */
    /* MapSnapshot.entries: {index, key}, {value, expire} */
    struct payload snapshot = {.size = 0};
    const struct {
        uint64_t index;
        const char *key, *value;
        uint64_t expire;
    } entries[] = {{first + 4, "b", "2", 0},
                   {first + 2, "a", "1", 0},
                   {first + 3, "c", "1", 0},
                   {first + 6, "d", "", PARTITION_START + 3 * MR_SECOND + 4}};
    for (unsigned i = 0; i < 4; i++) {
        struct payload key = {.size = 0}, value = {.size = 0}, expire = {.size = 0}, entry = {.size = 0};
        payload_number(&key, 1, entries[i].index);
        payload_bytes(&key, 2, text(entries[i].key));
        payload_bytes(&value, 1, text(entries[i].value));
        if (entries[i].expire != 0) {
            payload_number(&expire, 1, entries[i].expire / MR_SECOND);
            payload_number(&expire, 2, entries[i].expire % MR_SECOND);
            payload_message(&value, 2, &expire);
        }
        payload_message(&entry, 1, &key);
        payload_message(&entry, 2, &value);
        payload_message(&snapshot, 2, &entry);
    }
    size_t size_of_dump;
    uint8_t *dump = partition_dump(fixture->partition, &size_of_dump);
    assert_non_null(memmem(dump, size_of_dump, snapshot.data, snapshot.size));
    free(dump);
}

static void large_values_and_clearing(void **state)
{
    struct fixture *fixture = *state;
    char key[16];
    uint8_t *value = malloc(3000);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 3000; i++) {
            snprintf(key, sizeof(key), "%u", i);
            memset(value, (int)i, 3000);
            run(fixture, "Put", write_payload(key, (struct slice){value, 3000}, NULL, 0));
        }
        assert_int_equal(size(fixture), 3000 + (round > 0)); /* and the one left of the round before */
        run(fixture, "Clear", none);
        assert_int_equal(size(fixture), 0);
        partition_keep_alive(fixture->partition, fixture->session, (struct slice){NULL, 0}, fixture->number);
        put(fixture, "left", "x");
        unsigned turns = 1;
        while (fsm_collect(fixture->partition->fsm, 100))
            turns++;
        assert_true(turns >= 30);
        assert_int_equal(get(fixture, "left")->operation_status, STATUS_OK);
    }
    free(value);
}

/* ---- how entries are kept ---- */

struct form {
    size_t size; /* of the value */
    uint64_t ttl;
};

static const struct reply *put_form(struct fixture *fixture, const struct form *form, char *value)
{
    struct duration ttl = duration_of(form->ttl);
    memset(value, 'v', form->size);
    value[form->size] = '\0';
    return run(fixture, "Put", write_payload("x", text(value), form->ttl == 0 ? NULL : &ttl, 0));
}

/* `from` is written over by `to`, between two others and with a cursor standing there. */
static void assert_becomes(struct fixture *fixture, const struct form *from, const struct form *to)
{
    struct partition *partition = fixture->partition;
    char value[512];
    put(fixture, "before", "1");
    put_form(fixture, from, value);
    uint64_t after = put(fixture, "after", "3")->index;
    struct fsm_cursor *cursor = partition_cursor(partition, fixture->session, fixture->service, "Entries", none);
    fsm_cursor_taken(cursor);
    const struct reply *reply = put_form(fixture, to, value);
    uint64_t index = reply->index;
    assert_entry(reply, "x", value, index, to->ttl);
    assert_entry(get(fixture, "x"), "x", value, index, to->ttl);
    assert_entry(partition_cursor_next(partition, cursor), "x", value, index, to->ttl);
    assert_entry(partition_cursor_next(partition, cursor), "after", "3", after, 0);
    fsm_cursor_close(cursor);

    if (from->ttl > 0) { /* its deadline counts no longer */
        partition_tick(partition, partition->time + from->ttl);
        assert_entry(get(fixture, "x"), "x", value, index, to->ttl == 0 ? 0 : to->ttl - from->ttl);
    }
    if (to->ttl > 0) {
        partition_tick(partition, partition->time + to->ttl);
        assert_failed(get(fixture, "x"), STATUS_NOT_FOUND);
    }
    assert_int_equal(size(fixture), to->ttl > 0 ? 2 : 3);
    assert_int_equal(run(fixture, "Remove", key_payload("before", 0))->operation_status, STATUS_OK);
    if (to->ttl == 0)
        assert_entry(run(fixture, "Remove", key_payload("x", 0)), "x", value, index, 0);
    assert_int_equal(run(fixture, "Remove", key_payload("after", 0))->operation_status, STATUS_OK);
}

static void every_form_becomes_every_other(void **state)
{
    struct fixture *fixture = *state;
    static const size_t sizes[] = {0, 3, 4, 19, 20, 35, 36, 211, 212, 240, 400};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };
    for (unsigned from = 0; from < 2 * SIZES; from++)
        for (unsigned to = 0; to < 2 * SIZES; to++)
            assert_becomes(fixture, &(struct form){sizes[from / 2], from % 2 * MR_SECOND},
                           &(struct form){sizes[to / 2], to % 2 * 3 * MR_SECOND});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(put_and_get, setup, teardown),
        cmocka_unit_test_setup_teardown(put_if_index, setup, teardown),
        cmocka_unit_test_setup_teardown(insert, setup, teardown),
        cmocka_unit_test_setup_teardown(update, setup, teardown),
        cmocka_unit_test_setup_teardown(remove_and_clear, setup, teardown),
        cmocka_unit_test_setup_teardown(malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(values_in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_of_any_characters, setup, teardown),
        cmocka_unit_test_setup_teardown(ttl_ends_an_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(ttl_before_the_command, setup, teardown),
        cmocka_unit_test_setup_teardown(writing_again_starts_afresh, setup, teardown),
        cmocka_unit_test_setup_teardown(ttl_of_every_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(many_deadlines, setup, teardown),
        cmocka_unit_test_setup_teardown(order_of_insertion, setup, teardown),
        cmocka_unit_test_setup_teardown(large_values_and_clearing, setup, teardown),
        cmocka_unit_test_setup_teardown(every_form_becomes_every_other, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
