/* SPDX-License-Identifier: Apache-2.0 */
/* Random histories of sessions, a counter and a map, held against a model that keeps everything in plain arrays and
 * looks at all of it each time. Two state machines with different hash seeds follow the same history: their answers and
 * the bytes of their whole state must be the same. The numbers below only shape the histories: few sessions, keys and
 * values, so that what is done meets what was done before. */
#include "tests/support/partition.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SESSIONS = 6, COMMANDS = 4000, KEYS = 12, USERS = 2, VALUE_ROOM = 256 };

/* ---- the model ---- */

struct model_answer {
    enum status status; /* of the operation */
    struct payload payload;
};

struct model_command {
    uint64_t number, index;
    bool acknowledged; /* held, but its output is gone */
    struct model_answer answer;
};

struct model_session {
    uint64_t id, timeout, last_updated, floor, next_number;
    uint32_t uid;
    bool there, open[2]; /* the counter, the map */
    struct model_command commands[COMMANDS];
    size_t count;
};

struct model_entry {
    bool there;
    uint64_t index, expire;
    char value[VALUE_ROOM];
};

struct model {
    uint64_t index, time;
    struct model_session sessions[SESSIONS]; /* places; a session takes one that is free */
    uint64_t service_id[2];                  /* 0: not created */
    uint64_t counter;
    struct model_entry entries[KEYS];
};

static void model_time(struct model *model, uint64_t time)
{
    model->time = time;
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct model_session *session = &model->sessions[i];
        session->there = session->there && session->last_updated + session->timeout > time;
    }
    for (unsigned i = 0; i < KEYS; i++) {
        struct model_entry *entry = &model->entries[i];
        entry->there = entry->there && (entry->expire == 0 || entry->expire > time);
    }
}

static struct model_command *model_command(struct model_session *session, uint64_t number)
{
    for (size_t i = 0; i < session->count; i++)
        if (session->commands[i].number == number)
            return &session->commands[i];
    return NULL;
}

static void model_keep_alive(struct model_session *session, const uint64_t *kept, size_t kept_count,
                             uint64_t last_input, const struct last_output *outputs, size_t output_count)
{
    size_t left = 0;
    for (size_t i = 0; i < session->count; i++) {
        struct model_command *command = &session->commands[i];
        bool keep = command->number > last_input;
        for (size_t j = 0; j < kept_count; j++)
            keep = keep || kept[j] == command->number;
        if (!keep)
            continue;
        uint64_t acknowledged = 0;
        for (size_t j = 0; j < output_count && command->number <= last_input; j++)
            if (outputs[j].sequence_num == command->number)
                acknowledged = outputs[j].last_output;
        command->acknowledged = command->acknowledged || acknowledged >= 1;
        if (left != i)
            session->commands[left] = *command;
        left++;
    }
    session->count = left;
    if (last_input > session->floor)
        session->floor = last_input;
}

static struct payload entry_payload(const char *key, const struct model_entry *entry, uint64_t time)
{
    struct duration ttl = duration_of(entry->expire == 0 ? 0 : entry->expire - time);
    struct payload inner = write_payload(key, text(entry->value), entry->expire == 0 ? NULL : &ttl, entry->index);
    struct payload whole = {.size = 0};
    payload_message(&whole, 1, &inner);
    return whole;
}

/* ---- one operation, made and foretold ---- */

struct operation {
    unsigned service; /* 0 counter, 1 map */
    const char *name;
    struct payload payload;
    /* what the payload was made of */
    uint64_t first, second;
    unsigned key;
    char key_text[8], value[VALUE_ROOM];
    uint64_t ttl;
};

static struct operation random_operation(const struct model *model)
{
    static const char *const names[] = {"Increment", "Decrement", "Set",    "CompareAndSet", "Put",
                                        "Insert",    "Update",    "Remove", "Clear",         "Nothing"};
    struct operation operation = {.key = (unsigned)below(KEYS)};
    unsigned which = (unsigned)below(100);
    unsigned name = which == 0 ? 8 : which == 1 ? 9 : which < 40 ? which % 4 : 4 + which % 4;
    operation.name = names[name];
    operation.service = name >= 4;
    snprintf(operation.key_text, sizeof(operation.key_text), "k%u", operation.key);
    static const int widths[] = {1, 1, 1, 20, 100, 209, 210, 250}; /* kept, and shown, in more than one way */
    snprintf(operation.value, sizeof(operation.value), "%0*u", widths[below(8)], (unsigned)below(1000));
    if (name < 4) {
        operation.first = name == 3 && below(2) == 0 ? model->counter : below(5) == 0 ? UINT64_MAX - 3 : below(9);
        operation.second = name == 3 ? below(10) : 0;
        operation.payload = numbers_payload(operation.first, operation.second);
    } else if (name < 7) {
        operation.ttl = below(3) == 0 ? 1 + below(20) * MR_SECOND : 0;
        operation.first = name == 5 || below(3) != 0 ? 0 : model->entries[operation.key].index + below(2);
        struct duration ttl = duration_of(operation.ttl);
        operation.payload =
            write_payload(operation.key_text, text(operation.value), operation.ttl == 0 ? NULL : &ttl, operation.first);
    } else if (name == 7) {
        operation.first = below(3) != 0 ? 0 : model->entries[operation.key].index + below(2);
        operation.payload = key_payload(operation.key_text, operation.first);
    }
    return operation;
}

static struct model_answer failed(enum status status)
{
    return (struct model_answer){.status = status};
}

static struct model_answer model_counter(struct model *model, const struct operation *operation)
{
    if (strcmp(operation->name, "CompareAndSet") == 0) {
        if (model->counter != operation->first)
            return failed(STATUS_CONFLICT);
        model->counter = operation->second;
    } else if (strcmp(operation->name, "Set") == 0) {
        model->counter = operation->first;
    } else {
        model->counter += strcmp(operation->name, "Increment") == 0 ? operation->first : -operation->first;
    }
    return (struct model_answer){STATUS_OK, number_payload(model->counter)};
}

static struct model_answer model_map(struct model *model, const struct operation *operation)
{
    struct model_entry *entry = &model->entries[operation->key];
    struct model_answer answer = {.status = STATUS_OK};
    const char *name = operation->name;
    if (strcmp(name, "Nothing") == 0)
        return failed(STATUS_NOT_SUPPORTED);
    if (strcmp(name, "Clear") == 0) {
        for (unsigned i = 0; i < KEYS; i++)
            model->entries[i].there = false;
        return answer;
    }
    if (strcmp(name, "Insert") == 0 && entry->there)
        return failed(STATUS_ALREADY_EXISTS);
    if ((strcmp(name, "Update") == 0 || strcmp(name, "Remove") == 0) && !entry->there)
        return failed(STATUS_NOT_FOUND);
    if (operation->first != 0 && (!entry->there || entry->index != operation->first))
        return failed(STATUS_CONFLICT);
    if (strcmp(name, "Remove") == 0) {
        answer.payload = entry_payload(operation->key_text, entry, model->time);
        entry->there = false;
        return answer;
    }
    entry->there = true;
    entry->index = model->index;
    entry->expire = operation->ttl == 0 ? 0 : model->time + operation->ttl;
    memcpy(entry->value, operation->value, sizeof(entry->value));
    answer.payload = entry_payload(operation->key_text, entry, model->time);
    return answer;
}

/* ---- the walk ---- */

struct walk {
    struct partition *one, *other;
    struct model model;
};

/* Applies one->request to both; their answers must be the same, and of the status. */
static const struct reply *apply(struct walk *walk, enum status status)
{
    struct partition *one = walk->one, *other = walk->other;
    other->time = one->time;
    other->uid = one->uid;
    struct request own = other->request;
    other->request = one->request;
    const struct reply *a = partition_apply(one), *b = partition_apply(other);
    other->request = own;
    assert_int_equal(a->status, b->status);
    assert_string_equal(a->message, b->message);
    assert_int_equal(a->index, b->index);
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->operation_status, b->operation_status);
    assert_int_equal(a->payload_size, b->payload_size);
    assert_memory_equal(a->payload, b->payload, a->payload_size);
    assert_int_equal(a->status, status);
    return a;
}

static void begin_command(struct walk *walk)
{
    walk->model.index++;
    if (below(4) == 0)
        walk->one->time += below(3) * below(MR_SECOND);
    model_time(&walk->model, walk->one->time);
    walk->one->uid = (uint32_t)below(USERS * 8) / 8;
}

/* Who is named: mostly a session that is there and the user's own. */
static struct model_session *pick(struct walk *walk)
{
    struct model_session *session = &walk->model.sessions[below(SESSIONS)];
    if (below(20) != 0)
        walk->one->uid = session->uid;
    return session;
}

static enum status refusal(const struct walk *walk, const struct model_session *session)
{
    if (!session->there)
        return STATUS_FORBIDDEN;
    return session->uid == walk->one->uid ? STATUS_OK : STATUS_UNAUTHORIZED;
}

static void step_open(struct walk *walk)
{
    struct model_session *session = NULL;
    for (unsigned i = 0; i < SESSIONS; i++)
        if (!walk->model.sessions[i].there)
            session = &walk->model.sessions[i];
    if (session == NULL) {
        request_open_session(&walk->one->request, (struct duration){0, 0, true});
        apply(walk, STATUS_INVALID);
        return;
    }
    uint64_t timeout = MR_SECOND + below(100 * MR_SECOND);
    request_open_session(&walk->one->request, duration_of(timeout));
    assert_int_equal(apply(walk, STATUS_OK)->id, walk->model.index);
    session->id = walk->model.index;
    session->uid = walk->one->uid;
    session->timeout = timeout;
    session->last_updated = walk->model.time;
    session->floor = session->count = 0;
    session->next_number = 1;
    session->open[0] = session->open[1] = false;
    session->there = true;
}

static void step_service(struct walk *walk)
{
    struct model_session *session = pick(walk);
    unsigned service = (unsigned)below(2);
    enum status status = refusal(walk, session);
    if (below(4) == 0) {
        request_close_service(&walk->one->request, session->id, walk->model.service_id[service]);
        if (status == STATUS_OK && !session->open[service])
            status = STATUS_FORBIDDEN;
        apply(walk, status);
        session->open[service] = session->open[service] && status != STATUS_OK;
        return;
    }
    bool wrong = below(10) == 0;
    request_create_service(&walk->one->request, session->id, (service == 1) != wrong ? MAP_TYPE : COUNTER_TYPE, "n",
                           service == 1 ? "map" : "counter");
    if (wrong && walk->model.service_id[service] == 0)
        return; /* would create it with the other type */
    if (wrong && status == STATUS_OK)
        status = STATUS_FORBIDDEN;
    const struct reply *reply = apply(walk, status);
    if (status != STATUS_OK)
        return;
    if (walk->model.service_id[service] == 0)
        walk->model.service_id[service] = walk->model.index;
    assert_int_equal(reply->id, walk->model.service_id[service]);
    session->open[service] = true;
}

static void step_keep_alive(struct walk *walk)
{
    struct model_session *session = pick(walk);
    uint64_t kept[8], last_input = session->floor;
    struct last_output outputs[6];
    size_t kept_count = 0, output_count = below(4) == 0 ? below(6) : 0;
    if (session->count > 0 && below(4) != 0)
        last_input = session->commands[below(session->count)].number + below(2);
    if (below(30) == 0)
        last_input = session->next_number + below(100);
    for (size_t i = 0; i < 8 && session->count > 0 && below(3) != 0; i++)
        kept[kept_count++] = session->commands[below(session->count)].number;
    for (size_t i = 0; i < output_count; i++)
        outputs[i] = (struct last_output){kept_count > 0 ? kept[below(kept_count)] : 1 + below(50), below(3)};
    uint8_t bytes[2 + 8192]; /* so sparse that nothing else is in it */
    struct slice filter = {NULL, 0};
    if (kept_count > 0)
        filter = make_filter(bytes, 12, 65536, kept, kept_count);
    request_keep_alive(&walk->one->request, session->id, filter, last_input, outputs, output_count);
    enum status status = refusal(walk, session);
    apply(walk, status);
    if (status != STATUS_OK)
        return;
    session->last_updated = walk->model.time;
    model_keep_alive(session, kept, kept_count, last_input, outputs, output_count);
    if (last_input >= session->next_number)
        session->next_number = last_input + 1;
}

static void step_close(struct walk *walk)
{
    struct model_session *session = pick(walk);
    request_close_session(&walk->one->request, session->id);
    enum status status = refusal(walk, session);
    apply(walk, status);
    session->there = session->there && status != STATUS_OK;
}

static uint64_t pick_number(struct model_session *session)
{
    switch (below(12)) {
    case 0: /* again */
    case 1:
        return session->count == 0 ? 1 : session->commands[below(session->count)].number;
    case 2: /* perhaps given up */
        return 1 + below(session->next_number);
    case 3: /* a gap, to be filled later or never */
        session->next_number += below(5);
        return session->next_number++;
    case 4:
        return below(8) == 0 ? session->next_number + (UINT64_C(1) << below(62)) : session->next_number + below(3000);
    default:
        return session->next_number++;
    }
}

static void assert_answer(const struct reply *reply, const struct model_command *command)
{
    assert_int_equal(reply->index, command->index);
    assert_int_equal(reply->operation_status, command->answer.status);
    assert_int_equal(reply->payload_size, command->answer.payload.size);
    assert_memory_equal(reply->payload, command->answer.payload.data, reply->payload_size);
}

static void step_command(struct walk *walk)
{
    struct model *model = &walk->model;
    struct model_session *session = pick(walk);
    struct operation operation = random_operation(model);
    uint64_t number = pick_number(session);
    request_command(&walk->one->request, session->id, model->service_id[operation.service], number, operation.name,
                    payload_slice(&operation.payload));
    enum status status = refusal(walk, session);
    if (status != STATUS_OK) {
        apply(walk, status);
        return;
    }
    struct model_command *command = model_command(session, number);
    if (command != NULL && !command->acknowledged) {
        assert_answer(apply(walk, STATUS_OK), command);
    } else if (command != NULL || number <= session->floor) {
        apply(walk, STATUS_CONFLICT);
    } else if (!session->open[operation.service]) {
        apply(walk, STATUS_FORBIDDEN);
    } else {
        assert_true(session->count < COMMANDS);
        command = &session->commands[session->count++];
        *command = (struct model_command){.number = number, .index = model->index};
        command->answer = operation.service == 0 ? model_counter(model, &operation) : model_map(model, &operation);
        assert_answer(apply(walk, STATUS_OK), command);
    }
}

static void compare_states(struct walk *walk)
{
    size_t one_size, other_size;
    uint8_t *one = partition_dump(walk->one, &one_size), *other = partition_dump(walk->other, &other_size);
    assert_int_equal(one_size, other_size);
    assert_memory_equal(one, other, one_size);
    free(one);
    free(other);
    unsigned sessions = 0;
    for (unsigned i = 0; i < SESSIONS; i++)
        sessions += walk->model.sessions[i].there;
    assert_int_equal(fsm_session_count(walk->one->fsm), sessions);
    if (below(3) == 0)
        fsm_collect(walk->one->fsm, (unsigned)below(50)); /* no part of the state */
}

/* `restored`: after every how many commands `one` goes on as a state restored from its own; 0: never. */
static void follow(uint64_t seed, unsigned steps, unsigned restored)
{
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    struct walk *walk = calloc(1, sizeof(*walk));
    walk->one = partition_create(seed, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    walk->other = partition_create(~seed, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    walk->model.time = PARTITION_START;
    for (unsigned i = 0; i < SESSIONS; i++)
        walk->model.sessions[i].next_number = 1; /* commands are sent to sessions that nobody has opened, too */
    for (unsigned step = 0; step < steps; step++) {
        bool full = false;
        for (unsigned i = 0; i < SESSIONS; i++)
            full = full || walk->model.sessions[i].count == COMMANDS;
        uint64_t what = below(1000);
        begin_command(walk);
        if (full || what < 6)
            step_close(walk);
        else if (what < 30)
            step_open(walk);
        else if (what < 70)
            step_service(walk);
        else if (what < 130)
            step_keep_alive(walk);
        else
            step_command(walk);
        walk->model.index = walk->one->index; /* a step may have chosen to do nothing */
        if (step % 997 == 0 || step + 1 == steps)
            compare_states(walk);
        if (restored != 0 && step % restored == 0)
            partition_restore(walk->one);
    }
    partition_destroy(walk->one);
    partition_destroy(walk->other);
    free(walk);
}

static void histories(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++)
        follow(seed, 10000, 0);
}

static void restored_histories(void **state)
{
    (void)state;
    for (uint64_t seed = 31; seed <= 34; seed++)
        follow(seed, 1200, 1);
    for (uint64_t seed = 35; seed <= 38; seed++)
        follow(seed, 4000, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(histories), cmocka_unit_test(restored_histories)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
