/* SPDX-License-Identifier: Apache-2.0 */
/* Random histories of a map with listeners, held against a model that keeps everything in plain arrays: sessions that
 * come, go and expire, KeepAlives with filters full of false positives, commands sent again from elsewhere, the limit
 * on what a session holds, and cursors.
 *
 * Two state machines follow each history. One has a sink with room for everything, and what it says must be what the
 * model foretells, route by route. The other has a different hash seed and a sink that says no at random; of what it
 * says, every command's outputs must be the model's, in order and without a gap, and when it is asked to deliver the
 * rest, all of them. After the same commands both have the same state, to the byte. */
#include "tests/unit/fsm/stream_machines.h"

#include <xxhash.h>

/* ---- steps ---- */

static void begin(struct walk *walk)
{
    walk->index++;
    if (below(4) == 0)
        walk->one->time += below(3) * below(MR_SECOND);
    walk->one->route = (struct fsm_route){1 + below(4), walk->index};
    pass_time(walk, walk->one->time);
}

/* An answer without a number: OK, or a refusal. */
static void expect_answer(struct walk *walk, enum status status)
{
    expect_frame(walk, walk->one->route, 0, 0, status);
}

static void step_session(struct walk *walk)
{
    struct model_session *session = &walk->sessions[below(SESSIONS)];
    if (session->there && below(4) != 0) {
        expect_answer(walk, STATUS_OK); /* renews it */
        request_keep_alive(&walk->one->request, session->id, (struct slice){NULL, 0}, 0, NULL, 0);
        session->last_updated = walk->time;
    } else if (session->there) {
        request_close_session(&walk->one->request, session->id);
        end_session(walk, session);
        expect_answer(walk, STATUS_OK);
    } else {
        *session = (struct model_session){.id = walk->index,
                                          .timeout = 10 * MR_SECOND + below(300 * MR_SECOND),
                                          .last_updated = walk->time,
                                          .next_number = 1,
                                          .there = true};
        request_open_session(&walk->one->request, duration_of(session->timeout));
        expect_answer(walk, STATUS_OK);
    }
    apply(walk);
}

static void step_service(struct walk *walk)
{
    struct model_session *session = &walk->sessions[below(SESSIONS)];
    if (below(6) != 0 || walk->service == 0) {
        request_create_service(&walk->one->request, session->id, MAP_TYPE, "n", "map");
        expect_answer(walk, session->there ? STATUS_OK : STATUS_FORBIDDEN);
        if (session->there && walk->service == 0)
            walk->service = walk->index;
        session->open = session->there;
        apply(walk);
        return;
    }
    request_close_service(&walk->one->request, session->id, walk->service);
    expect_answer(walk, session->open ? STATUS_OK : STATUS_FORBIDDEN);
    for (size_t i = 0; session->open && i < session->count; i++) {
        struct model_command *command = &session->commands[i];
        if (!command->open)
            continue;
        command->open = false;
        push(command, failed(STATUS_CANCELED, "the session closed the service"));
        expect_output(walk, session, command, command->count - 1, command->route);
    }
    for (unsigned i = 0; session->open && i < CURSORS; i++)
        walk->cursors[i].closed = walk->cursors[i].closed || walk->cursors[i].session == session;
    session->open = false;
    apply(walk);
}

static bool in_filter(struct slice filter, uint64_t number)
{
    if (filter.size == 0)
        return false;
    uint64_t big_endian = __builtin_bswap64(number), bits = 8 * (filter.size - 2);
    uint64_t h1 = XXH3_64bits_withSeed(&big_endian, 8, 0), h2 = XXH3_64bits_withSeed(&big_endian, 8, 1) | 1;
    bool in = true;
    for (uint64_t i = 0; i < filter.data[1]; i++)
        in = in && (filter.data[2 + (h1 + i * h2) % bits / 8] >> (h1 + i * h2) % bits % 8 & 1) != 0;
    return in;
}

static void step_keep_alive(struct walk *walk)
{
    struct model_session *session = &walk->sessions[below(SESSIONS)];
    uint64_t kept[12], last_input = session->floor;
    struct last_output outputs[8];
    size_t kept_count = 0, output_count = 0;
    if (session->count > 0)
        last_input = session->commands[session->count - 1 - below(session->count) / 4].number;
    for (size_t i = 0; i < session->count && kept_count < 12; i++)
        if (session->commands[i].stream && below(8) != 0)
            kept[kept_count++] = session->commands[i].number;
    for (size_t i = 0; i < kept_count && output_count < 8; i++) {
        const struct model_command *command = find(session, kept[i]);
        if (below(2) == 0)
            outputs[output_count++] = (struct last_output){kept[i], below(command->count + 2)};
    }
    uint8_t bytes[2 + 64];
    struct slice filter = {NULL, 0};
    if (kept_count > 0) /* small: full of false positives */
        filter = make_filter(bytes, 2, below(2) == 0 ? 64 : 512, kept, kept_count);
    request_keep_alive(&walk->one->request, session->id, filter, last_input, outputs, output_count);
    expect_answer(walk, session->there ? STATUS_OK : STATUS_FORBIDDEN);
    for (size_t i = 0; session->there && i < session->count; i++) {
        struct model_command *command = &session->commands[i];
        if (command->number > last_input)
            continue;
        if (!in_filter(filter, command->number)) {
            if (command->open) {
                walk->cancels++;
                expect_frame(walk, command->route, session->id, command->number, STATUS_CANCELED);
            }
            forget(session, i--);
            continue;
        }
        uint64_t acknowledged = 0;
        for (size_t j = 0; j < output_count; j++)
            if (outputs[j].sequence_num == command->number)
                acknowledged = outputs[j].last_output < command->count ? outputs[j].last_output : command->count;
        if (acknowledged > command->acknowledged)
            command->acknowledged = acknowledged;
        walk->positives += !command->stream;
    }
    if (session->there) {
        session->last_updated = walk->time;
        session->floor = last_input > session->floor ? last_input : session->floor;
    }
    apply(walk);
}

static void attach(struct walk *walk, struct model_session *session, struct model_command *command)
{
    if (command->open || !command->told) {
        if (command->open)
            expect_frame(walk, command->route, session->id, command->number, STATUS_CANCELED);
        else
            walk->taken_over = command->route; /* to one's sink it has told everything */
        walk->takeovers++;
    }
    command->route = walk->one->route;
    command->taken = 0;
    command->told = false;
    for (size_t at = command->acknowledged; at < command->count; at++)
        expect_output(walk, session, command, at, command->route);
}

struct write {
    const char *name;
    unsigned key;
    char value[100];
    uint64_t ttl;
    struct payload payload;
};

static struct write random_write(void)
{
    static const char *const names[] = {"Put", "Put", "Insert", "Update", "Remove", "Clear"};
    struct write write = {.name = names[below(100) == 0 ? 5 : below(5)], .key = (unsigned)below(KEYS)};
    char key[8];
    key_name(key, write.key);
    memset(write.value, 'v', below(4) == 0 ? 60 : 5);
    snprintf(write.value + strlen(write.value), 16, "%u", (unsigned)below(1000));
    write.ttl = below(3) == 0 ? 1 + below(40 * MR_SECOND) : 0;
    struct duration ttl = duration_of(write.ttl);
    if (strcmp(write.name, "Remove") == 0)
        write.payload = key_payload(key, 0);
    else if (strcmp(write.name, "Clear") != 0)
        write.payload = write_payload(key, text(write.value), write.ttl == 0 ? NULL : &ttl, 0);
    return write;
}

static struct output entry_answer(const struct walk *walk, const struct entry *entry)
{
    struct payload inner = entry_message(entry, remaining(walk, entry)), whole = {.size = 0};
    payload_message(&whole, 1, &inner);
    return answered(&whole);
}

static struct output run_write(struct walk *walk, const struct write *write)
{
    size_t at = 0;
    while (at < walk->entry_count && walk->entries[at].key != write->key)
        at++;
    struct entry *entry = at < walk->entry_count ? &walk->entries[at] : NULL;
    if (strcmp(write->name, "Clear") == 0) {
        while (walk->entry_count > 0)
            remove_entry(walk, 0, remaining(walk, &walk->entries[0]));
        return (struct output){.status = STATUS_OK};
    }
    if (entry != NULL && strcmp(write->name, "Insert") == 0)
        return failed(STATUS_ALREADY_EXISTS, "the map has an entry of that key");
    if (entry == NULL && (strcmp(write->name, "Update") == 0 || strcmp(write->name, "Remove") == 0))
        return failed(STATUS_NOT_FOUND, "the map has no entry of that key");
    struct output answer;
    if (strcmp(write->name, "Remove") == 0) {
        answer = entry_answer(walk, entry);
        remove_entry(walk, at, remaining(walk, entry));
        return answer;
    }
    enum event_type event = entry == NULL ? INSERT : UPDATE;
    if (entry == NULL) {
        entry = &walk->entries[walk->entry_count++];
        *entry = (struct entry){.serial = ++walk->serial, .key = write->key};
    }
    entry->index = walk->index;
    entry->expire = write->ttl == 0 ? 0 : walk->time + write->ttl;
    memcpy(entry->value, write->value, sizeof(entry->value));
    answer = entry_answer(walk, entry);
    tell(walk, event, entry, remaining(walk, entry));
    return answer;
}

static uint64_t input_size(uint64_t service, uint64_t number, const char *name, const struct payload *payload)
{
    struct payload input = {.size = 0}, operation = {.size = 0};
    payload_bytes(&operation, 1, text(name));
    payload_bytes(&operation, 2, payload_slice(payload));
    payload_number(&input, 1, service);
    payload_number(&input, 2, number);
    payload_message(&input, 3, &operation);
    return input.size;
}

static void open_events(struct walk *walk, struct model_session *session, struct model_command *command, bool replay)
{
    struct payload entry = {.size = 0};
    char key[8] = "";
    if (command->key < KEYS)
        key_name(key, command->key);
    payload_bytes(&entry, 1, text(key));
    command->stream = command->open = true;
    command->route = walk->one->route;
    emit(walk, session, command, event_output(NONE, entry));
    for (size_t i = 0; replay && i < walk->entry_count; i++) {
        const struct entry *there = &walk->entries[i];
        if (command->open && (command->key == KEYS || command->key == there->key))
            emit(walk, session, command, event_output(REPLAY, entry_message(there, remaining(walk, there))));
    }
}

static void step_command(struct walk *walk)
{
    struct model_session *session = &walk->sessions[below(SESSIONS)];
    uint64_t number = session->next_number;
    if (session->count > 0 && below(8) == 0)
        number = session->commands[below(session->count)].number;
    else if (below(10) == 0)
        number = 1 + below(session->next_number);
    else
        session->next_number += 1 + (below(20) == 0 ? below(2000) : 0);

    bool events = below(12) == 0, replay = below(2) == 0;
    struct write write = random_write();
    struct model_command made = {
        .number = number, .index = walk->index, .key = below(2) == 0 ? KEYS : (unsigned)below(KEYS)};
    char key[8] = "";
    if (made.key < KEYS)
        key_name(key, made.key);
    if (events) {
        write.name = "Events";
        write.payload = events_payload(key, replay);
        if (below(12) == 0)
            walk->one->route = (struct fsm_route){0, 0};
    }
    request_command(&walk->one->request, session->id, walk->service, number, write.name, payload_slice(&write.payload));
    struct model_command *command = session->there ? find(session, number) : NULL;
    struct fsm_route route = walk->one->route;
    bool none = route.channel == 0; /* an answer that is not a stream's is said even so, and not foretold: avoided */
    bool fresh =
        session->there && command == NULL && number > session->floor && session->open && held(session) <= LIMIT;
    if (none && !(events && fresh) && !(command != NULL && command->stream && command->open)) {
        walk->one->route = route = (struct fsm_route){1, walk->index};
        none = false;
    }
    if (!session->there) {
        expect_frame(walk, route, session->id, number, STATUS_FORBIDDEN);
    } else if (command != NULL && !command->open && command->acknowledged == command->count) {
        expect_frame(walk, route, session->id, number, STATUS_CONFLICT);
    } else if (command != NULL && command->stream) {
        attach(walk, session, command);
    } else if (command != NULL) {
        expect_output(walk, session, command, 0, route);
    } else if (number <= session->floor) {
        expect_frame(walk, route, session->id, number, STATUS_CONFLICT);
    } else if (!session->open) {
        expect_frame(walk, route, session->id, number, STATUS_FORBIDDEN);
    } else if (!fresh) {
        expect_frame(walk, route, session->id, number, STATUS_UNAVAILABLE);
    } else {
        assert_true(session->count < COMMANDS);
        if (number > session->highest)
            session->highest = number;
        made.input_size = input_size(walk->service, number, write.name, &write.payload);
        if (events) {
            command = &session->commands[session->count++];
            *command = made;
            open_events(walk, session, command, replay);
        } else {
            struct output answer = run_write(walk, &write);
            command = &session->commands[session->count++];
            *command = made;
            push(command, answer);
            expect_output(walk, session, command, 0, route);
        }
    }
    apply(walk);
}

/* ---- beside the state ---- */

static const struct entry *next_entry(const struct walk *walk, uint64_t given, uint64_t last)
{
    for (size_t i = 0; i < walk->entry_count; i++)
        if (walk->entries[i].serial > given && walk->entries[i].serial <= last)
            return &walk->entries[i];
    return NULL;
}

static void step_cursor(struct walk *walk)
{
    struct cursor *cursor = &walk->cursors[below(CURSORS)];
    if (cursor->cursor == NULL) {
        struct model_session *session = &walk->sessions[below(SESSIONS)];
        struct payload none = {.size = 0};
        if (!session->open)
            return;
        *cursor = (struct cursor){.session = session, .last = walk->serial};
        cursor->cursor = partition_cursor(walk->other, session->id, walk->service, "Entries", none);
        assert_non_null(cursor->cursor);
        return;
    }
    walk->other->time = walk->time;
    const struct reply *reply = partition_cursor_next(walk->other, cursor->cursor);
    const struct entry *entry = next_entry(walk, cursor->given, cursor->last);
    assert_int_equal(reply->status, cursor->closed ? STATUS_FORBIDDEN : STATUS_OK);
    if (!cursor->closed) {
        struct output output = entry == NULL ? (struct output){.status = STATUS_OK} : entry_answer(walk, entry);
        assert_int_equal(reply->last, entry == NULL || next_entry(walk, entry->serial, cursor->last) == NULL);
        assert_int_equal(reply->operation_status, STATUS_OK);
        assert_int_equal(reply->payload_size, output.size);
        assert_memory_equal(reply->payload, output.payload, output.size);
    }
    if (cursor->closed || reply->last || below(20) == 0) {
        fsm_cursor_close(cursor->cursor);
        *cursor = (struct cursor){.cursor = NULL};
        return;
    }
    cursor->given = entry->serial;
}

struct holding {
    struct model_session *session;
    bool there[COMMANDS]; /* of the model's, by their places */
    size_t seen;
};

static void assert_open(void *context, const struct fsm_open_command *there)
{
    struct holding *holding = context;
    const struct model_command *command = find(holding->session, there->sequence_num);
    assert_non_null(command);
    assert_false(holding->there[command - holding->session->commands]);
    holding->there[command - holding->session->commands] = true;
    holding->seen++;
    assert_true(command->open);
    assert_int_equal(there->acknowledged, command->acknowledged);
    assert_int_equal(there->operation.size, strlen("Events"));
    assert_memory_equal(there->operation.data, "Events", there->operation.size);
    assert_int_equal(there->spec.name.size, 3);
    assert_memory_equal(there->spec.name.data, "map", 3);
    assert_memory_equal(there->spec.name_space.data, "n", there->spec.name_space.size);
    assert_memory_equal(there->spec.service.data, MAP_TYPE, there->spec.service.size);
}

static void compare_states(struct walk *walk)
{
    size_t one_size, other_size;
    uint8_t *one = partition_dump(walk->one, &one_size), *other = partition_dump(walk->other, &other_size);
    assert_int_equal(one_size, other_size);
    assert_memory_equal(one, other, one_size);
    free(one);
    free(other);
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct model_session *session = &walk->sessions[i];
        struct holding holding = {.session = session};
        struct fsm_session described;
        uint32_t uid = 77;
        bool there = fsm_session_describe(walk->one->fsm, session->id, &described);
        assert_int_equal(there, session->there);
        assert_int_equal(fsm_session_owner(walk->one->fsm, session->id, &uid), session->there);
        assert_int_equal(uid, session->there ? 0 : 77);
        if (!there)
            continue;
        size_t open = 0;
        for (size_t j = 0; j < session->count; j++)
            open += session->commands[j].open;
        for (uint64_t from = 0; from < open; from += 2) /* in pieces */
            fsm_session_open_commands(walk->one->fsm, session->id, from, 2, assert_open, &holding);
        assert_int_equal(holding.seen, open);
        assert_int_equal(described.open_commands, open);
        assert_int_equal(described.highest, session->highest > session->floor ? session->highest : session->floor);
    }
    if (below(2) == 0)
        fsm_collect(walk->one->fsm, (unsigned)below(50)); /* no part of the state */
}

/* With room for everything the other machine gives whatever is left. */
static void deliver_all(struct walk *walk)
{
    walk->room = true;
    while (walk->owed_count > 0)
        deliver(walk, walk->owed_count - 1);
    walk->room = false;
    for (unsigned i = 0; i < SESSIONS; i++) {
        const struct model_session *session = &walk->sessions[i];
        for (size_t j = 0; session->there && j < session->count; j++) {
            const struct model_command *command = &session->commands[j];
            if (command->stream && command->route.channel != 0 && command->acknowledged < command->count)
                assert_int_equal(command->taken, command->count);
        }
    }
}

/* Both go on with states restored from their own. Nobody's route is known any more. */
static void restore_both(struct walk *walk)
{
    for (unsigned i = 0; i < CURSORS; i++) {
        fsm_cursor_close(walk->cursors[i].cursor);
        walk->cursors[i] = (struct cursor){.cursor = NULL};
    }
    partition_restore(walk->one);
    partition_restore(walk->other);
    walk->owed_count = 0;
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct model_session *session = &walk->sessions[i];
        for (size_t j = 0; session->there && j < session->count; j++) {
            session->commands[j].route = (struct fsm_route){0, 0};
            session->commands[j].taken = 0;
            session->commands[j].told = false;
        }
    }
}

/* `restored`: after every how many commands; 0: never. */
static void follow(struct walk *walk, uint64_t seed, unsigned steps, unsigned restored)
{
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    walk->one = partition_create(seed, LIMIT);
    walk->other = partition_create(~seed, LIMIT);
    walk->other->room = room;
    walk->other->room_context = walk;
    walk->time = PARTITION_START;
    for (unsigned i = 0; i < SESSIONS; i++)
        walk->sessions[i].next_number = 1;
    for (unsigned step = 0; step < steps; step++) {
        uint64_t what = below(1000);
        begin(walk);
        if (what < 30)
            step_session(walk);
        else if (what < 70)
            step_service(walk);
        else if (what < 130)
            step_keep_alive(walk);
        else
            step_command(walk);
        compare(walk);
        while (walk->owed_count > 0 && below(3) != 0)
            deliver(walk, below(walk->owed_count));
        if (below(3) == 0)
            step_cursor(walk);
        if (step % 499 == 0 || step + 1 == steps) {
            compare_states(walk);
            deliver_all(walk);
        }
        if (restored != 0 && step % restored == 0)
            restore_both(walk);
    }
    for (unsigned i = 0; i < SESSIONS; i++)
        while (walk->sessions[i].count > 0)
            forget(&walk->sessions[i], walk->sessions[i].count - 1);
    for (unsigned i = 0; i < CURSORS; i++)
        fsm_cursor_close(walk->cursors[i].cursor);
    partition_destroy(walk->one);
    partition_destroy(walk->other);
}

static void histories(void **state)
{
    (void)state;
    size_t limits = 0, takeovers = 0, cancels = 0, positives = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct walk *walk = calloc(1, sizeof(*walk));
        assert_non_null(walk);
        follow(walk, seed, 4000, 0);
        limits += walk->limits;
        takeovers += walk->takeovers;
        cancels += walk->cancels;
        positives += walk->positives;
        free(walk);
    }
    /* The histories are only as good as what happens in them. */
    assert_true(limits > 50 && takeovers > 200 && cancels > 100 && positives > 100);
}

/* The same with states that are written down and restored again and again: the model does not notice. */
static void restored_histories(void **state)
{
    (void)state;
    static const unsigned restored[] = {1, 2, 5, 30};
    size_t limits = 0, takeovers = 0, cancels = 0;
    for (uint64_t seed = 101; seed <= 116; seed++) {
        struct walk *walk = calloc(1, sizeof(*walk));
        assert_non_null(walk);
        follow(walk, seed, 1500, restored[seed % 4]);
        limits += walk->limits;
        takeovers += walk->takeovers;
        cancels += walk->cancels;
        free(walk);
    }
    assert_true(limits > 20 && takeovers > 50 && cancels > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(histories), cmocka_unit_test(restored_histories)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
