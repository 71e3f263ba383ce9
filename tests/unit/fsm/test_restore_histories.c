/* SPDX-License-Identifier: Apache-2.0 */
/* A state restored from a snapshot cannot be told from the one that was written. A random history of sessions, a
 * counter, two maps and a service of the tests' own is recorded together with all that is said. Then, from every place
 * in it, a restored copy follows it to its end: it says the same to everybody, in the same order, has the same next
 * deadline after every entry and the same state at the end. Only what had been asked for before the snapshot differs:
 * the copy does not know where to say that.
 *
 * There is no model: the run that was never restored is what the others are held against. The sink has no room at
 * times, for reasons that both runs have in common. */
#include "ipc/planted.h"
#include "proto/reader.h"
#include "tests/support/random.h"
#include "tests/unit/fsm/streams.h"

#include <stdio.h>
#include <xxhash.h>

#include "atomix/multiraft/v1/fsm.pb-c.h"
#include "millrace/v1/snapshot.pb-c.h"

enum { STEPS = 240, SESSIONS = 5, SERVICES = 4, COMMANDS = 48 };

#define LIMIT 9000

/* ---- a history ---- */

struct said {
    uint64_t position; /* of the route: the index of the entry that asked */
    uint64_t hash;     /* of all of it */
};

/* An entry of the log, and the deliveries behind it. */
struct recorded {
    uint8_t *bytes; /* NULL: only time */
    size_t size;
    uint64_t time;
    uint32_t uid;
    struct fsm_route route;
    struct delivery {
        uint64_t session, number;
        struct fsm_route route;
    } deliveries[2];
    unsigned delivery_count;
    struct said *said;
    size_t said_count;
    uint64_t deadline;      /* the next one, afterwards */
    uint8_t *dump;          /* the state afterwards */
    size_t snapshot, total; /* bytes: of its first section, of both */
};

struct history {
    struct partition *partition;
    struct recorded entries[STEPS];
    unsigned count;
    const struct service_type *types[4];
    /* What the generator knows. */
    uint64_t sessions[SESSIONS], next_number[SESSIONS], services[SERVICES];
    uint32_t uids[SESSIONS];
    unsigned creating; /* the service that was asked for last */
    struct asked {
        unsigned session;
        uint64_t number;
        struct fsm_route route;
    } asked[COMMANDS];
    unsigned asked_count;
};

static uint64_t hash_reply(const struct reply *reply)
{
    uint64_t words[] = {reply->status,
                        reply->session_id,
                        reply->sequence_num,
                        reply->number,
                        reply->last,
                        reply->index,
                        reply->id,
                        reply->kind,
                        reply->session_kind,
                        reply->operation_status,
                        reply->channel,
                        reply->position,
                        strlen(reply->message),
                        reply->payload_size};
    uint64_t hash = XXH3_64bits(words, sizeof(words));
    hash = XXH3_64bits_withSeed(reply->message, strlen(reply->message), hash);
    return reply->payload_size == 0 ? hash : XXH3_64bits_withSeed(reply->payload, reply->payload_size, hash);
}

/* The sink's room: the same for the same output during the same entry, in every run. */
static bool some_room(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    const struct partition *partition = context;
    uint64_t words[] = {partition->index, route->position, answer->session_id, answer->sequence_num, answer->number};
    return XXH3_64bits(words, sizeof(words)) % 5 != 0;
}

static void note_said(struct recorded *to, const struct partition *partition, const struct said *more)
{
    size_t count = partition->said_count + (more != NULL);
    to->said = realloc(to->said, (to->said_count + count + 1) * sizeof(to->said[0]));
    assert_non_null(to->said);
    for (size_t i = 0; i < partition->said_count; i++)
        to->said[to->said_count++] = (struct said){partition->said[i].position, hash_reply(&partition->said[i])};
    if (more != NULL)
        to->said[to->said_count++] = *more;
}

/* Applies the entry; what is said is added to *to. */
static void apply_entry(struct partition *partition, const struct recorded *entry, struct recorded *to)
{
    partition->time = entry->time;
    partition->uid = entry->uid;
    partition->route = entry->route;
    if (entry->bytes == NULL) {
        partition_tick(partition, entry->time);
    } else {
        struct request own = partition->request;
        assert_int_equal(read_partition_command_input(entry->bytes, entry->size, &partition->request.command), READ_OK);
        partition_submit(partition);
        partition->request = own;
    }
    note_said(to, partition, NULL);
}

/* Then asks for what is to be delivered. */
static void deliver_some(struct partition *partition, const struct recorded *entry, struct recorded *to)
{
    for (unsigned i = 0; i < entry->delivery_count; i++) {
        const struct delivery *delivery = &entry->deliveries[i];
        bool gone;
        bool all = partition_deliver(partition, delivery->session, delivery->number, delivery->route, &gone);
        note_said(to, partition, &(struct said){delivery->route.position, 2U * gone + all});
    }
    to->deadline = fsm_next_deadline(partition->fsm);
}

/* ---- making one ---- */

static unsigned pick_session(struct history *history)
{
    unsigned session = (unsigned)below(SESSIONS);
    if (below(20) != 0)
        history->partition->uid = history->uids[session];
    return session;
}

static void make_keep_alive(struct history *history)
{
    unsigned session = pick_session(history);
    uint64_t kept[8];
    struct last_output outputs[4];
    size_t kept_count = 0, output_count = 0;
    for (unsigned i = 0; i < history->asked_count && kept_count < 8; i++) {
        const struct asked *asked = &history->asked[below(history->asked_count)];
        if (asked->session == session)
            kept[kept_count++] = asked->number;
    }
    for (; kept_count > 0 && output_count < 4 && below(3) != 0; output_count++)
        outputs[output_count] = (struct last_output){kept[below(kept_count)], below(5)};
    uint8_t bytes[2 + 64];
    struct slice filter = {NULL, 0};
    if (kept_count > 0)
        filter = make_filter(bytes, 2, below(2) == 0 ? 64 : 512, kept, kept_count);
    uint64_t upto = below(6) == 0 ? 0 : below(history->next_number[session] + 1);
    request_keep_alive(&history->partition->request, history->sessions[session], filter, upto, outputs, output_count);
}

static struct payload make_payload(const char **name, unsigned service)
{
    static const char *const counter_names[] = {"Increment", "Set", "CompareAndSet", "Nothing"};
    static const char *const map_names[] = {"Put", "Put", "Insert", "Update", "Remove", "Events", "Events"};
    static const char *const talker_names[] = {"Listen", "Listen", "Talk", "Talk", "Finish", "Fail"};
    static const char *const keys[] = {"", "a", "b", "a key that is longer than the others are", "\xc3\xa4"};
    struct payload payload = {.size = 0};
    if (service == 0) {
        *name = counter_names[below(4)];
        return numbers_payload(below(3), below(3));
    }
    if (service == 3) {
        static const char *const texts[] = {"", "x", "!", "four"};
        *name = talker_names[below(6)];
        const char *said = texts[below(4)];
        memcpy(payload.data, said, strlen(said));
        payload.size = strlen(said);
        return payload;
    }
    *name = below(40) == 0 ? "Clear" : map_names[below(7)];
    const char *key = keys[below(5)];
    char value[700];
    memset(value, 'v', sizeof(value));
    size_t value_size = below(8) == 0 ? 650 : below(20);
    struct duration ttl = duration_of((1 + below(12)) * MR_SECOND);
    if (strcmp(*name, "Events") == 0)
        return events_payload(key, below(2) == 0);
    if (strcmp(*name, "Remove") == 0)
        return key_payload(key, 0);
    if (strcmp(*name, "Clear") != 0)
        payload = write_payload(key, (struct slice){(uint8_t *)value, value_size}, below(2) == 0 ? NULL : &ttl, 0);
    return payload;
}

static void make_command(struct history *history)
{
    struct partition *partition = history->partition;
    unsigned session = pick_session(history), service = (unsigned)below(SERVICES);
    const char *name;
    struct payload payload = make_payload(&name, service);
    uint64_t number = history->next_number[session];
    if (history->asked_count > 0 && below(5) == 0) {
        const struct asked *asked = &history->asked[below(history->asked_count)];
        session = asked->session;
        number = asked->number;
        partition->uid = history->uids[session];
    } else if (below(8) == 0) {
        number = 1 + below(number);
    } else if (below(30) == 0) {
        number += below(5000);
    } else {
        history->next_number[session] += 1 + (below(8) == 0 ? below(4) : 0);
    }
    request_command(&partition->request, history->sessions[session], history->services[service], number, name,
                    payload_slice(&payload));
    if (strcmp(name, "Events") == 0 && below(10) == 0)
        partition->route = (struct fsm_route){0, 0};
    unsigned place = history->asked_count < COMMANDS ? history->asked_count++ : (unsigned)below(COMMANDS);
    history->asked[place] = (struct asked){session, number, partition->route};
}

static void make_service(struct history *history, bool close)
{
    static const char *const types[SERVICES] = {COUNTER_TYPE, MAP_TYPE, MAP_TYPE, TALKER_TYPE};
    static const char *const names[SERVICES] = {"counter", "a map", "another map", "talker"};
    unsigned session = pick_session(history), service = (unsigned)below(SERVICES);
    uint64_t id = history->sessions[session];
    history->creating = service;
    if (close && history->services[service] != 0)
        request_close_service(&history->partition->request, id, history->services[service]);
    else
        request_create_service(&history->partition->request, id, types[service], service == 0 ? "" : "space",
                               names[service]);
}

/* What the answer told. */
static void learn(struct history *history, unsigned opening)
{
    const struct partition *partition = history->partition;
    for (size_t i = 0; i < partition->said_count; i++) {
        const struct reply *reply = &partition->said[i];
        if (reply->position != partition->index || reply->status != STATUS_OK || reply->id == 0)
            continue;
        if (reply->kind == COMMAND_OPEN_SESSION) {
            history->sessions[opening] = reply->id;
            history->next_number[opening] = 1;
            history->uids[opening] = partition->uid;
        } else {
            history->services[history->creating] = reply->id;
        }
    }
}

static void make_entry(struct history *history)
{
    struct partition *partition = history->partition;
    struct recorded *entry = &history->entries[history->count++];
    unsigned opening = (unsigned)below(SESSIONS);
    uint64_t what = below(100);
    bool tick = what < 2;
    if (below(6) == 0)
        partition->time += below(3) * MR_SECOND; /* whole seconds: many deadlines come at once */
    partition->uid = 1000 + (uint32_t)below(2);
    partition->route = (struct fsm_route){1 + below(3), partition->index + 1};
    bool there = fsm_session_owner(partition->fsm, history->sessions[opening], &(uint32_t){0});
    if (!tick && !there && what < 70)
        request_open_session(&partition->request, duration_of((8 + below(40)) * MR_SECOND));
    else if (what < 3)
        request_close_session(&partition->request, history->sessions[pick_session(history)]);
    else if (what < 20)
        make_keep_alive(history);
    else if (what < 36)
        make_service(history, what < 22);
    else
        make_command(history);
    *entry = (struct recorded){.time = partition->time, .uid = partition->uid, .route = partition->route};
    for (; entry->delivery_count < 2 && history->asked_count > 0 && below(2) == 0; entry->delivery_count++) {
        const struct asked *asked = &history->asked[below(history->asked_count)];
        entry->deliveries[entry->delivery_count] =
            (struct delivery){history->sessions[asked->session], asked->number, asked->route};
    }
    if (!tick) {
        entry->size = partition->request.size;
        entry->bytes = malloc(entry->size);
        assert_non_null(entry->bytes);
        memcpy(entry->bytes, partition->request.bytes, entry->size);
    }
    apply_entry(partition, entry, entry);
    if (!tick)
        learn(history, opening);
    deliver_some(partition, entry, entry);
    entry->snapshot = partition_snapshot_size(partition);
    entry->dump = partition_dump(partition, &entry->total);
}

static struct history *make_history(uint64_t seed)
{
    struct history *history = calloc(1, sizeof(*history));
    assert_non_null(history);
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    history->types[0] = service_types[0];
    history->types[1] = service_types[1];
    history->types[2] = &talker_type;
    history->partition = partition_create_with(seed, LIMIT, history->types);
    history->partition->room = some_room;
    history->partition->room_context = history->partition;
    for (unsigned i = 0; i < SESSIONS; i++)
        history->next_number[i] = 1;
    while (history->count < STEPS)
        make_entry(history);
    return history;
}

static void free_history(struct history *history)
{
    for (unsigned i = 0; i < history->count; i++) {
        free(history->entries[i].bytes);
        free(history->entries[i].said);
        free(history->entries[i].dump);
    }
    partition_destroy(history->partition);
    free(history);
}

/* ---- following it ---- */

/* What the copy says is what was said to all who have asked since it was restored, after `index`. */
static bool same_said(const struct recorded *entry, const struct recorded *copy, uint64_t index)
{
    size_t at = 0;
    for (size_t i = 0; i < entry->said_count; i++) {
        if (entry->said[i].position <= index)
            continue;
        while (at < copy->said_count && copy->said[at].position <= index)
            at++;
        if (at == copy->said_count || copy->said[at].position != entry->said[i].position ||
            copy->said[at].hash != entry->said[i].hash)
            return false;
        at++;
    }
    while (at < copy->said_count && copy->said[at].position <= index)
        at++;
    return at == copy->said_count;
}

static bool same_state(struct partition *partition, const struct recorded *entry)
{
    size_t size;
    uint8_t *dump = partition_dump(partition, &size);
    bool same = size == entry->total && memcmp(dump, entry->dump, size) == 0;
    free(dump);
    return same;
}

/* A copy of the state after entry `from` follows the rest. How many things it gets wrong; prints the first. */
static unsigned follow(struct history *history, unsigned from, bool print)
{
    const struct recorded *start = &history->entries[from];
    struct partition *partition = partition_create_with(77, LIMIT, history->types);
    struct mr_error error;
    fsm_destroy(partition->fsm);
    partition->fsm = partition_restored(partition, start->dump, start->snapshot, start->total, &error);
    if (partition->fsm == NULL)
        fprintf(stderr, "%s\n", error.text);
    assert_non_null(partition->fsm);
    partition->index = from + 1;
    partition->room = some_room;
    partition->room_context = partition;
    unsigned wrong = !same_state(partition, start);
    for (unsigned i = from + 1; i < history->count; i++) {
        const struct recorded *entry = &history->entries[i];
        struct recorded copy = {.said = NULL};
        apply_entry(partition, entry, &copy);
        deliver_some(partition, entry, &copy);
        bool differs = !same_said(entry, &copy, from + 1) || copy.deadline != entry->deadline ||
                       (i % 16 == 0 && !same_state(partition, entry));
        free(copy.said);
        if (differs && wrong == 0 && print)
            fprintf(stderr, "restored after entry %u, it differs after entry %u\n", from + 1, i + 1);
        wrong += differs;
    }
    wrong += !same_state(partition, &history->entries[history->count - 1]);
    partition_destroy(partition);
    return wrong;
}

/* The histories are only as good as what there is to restore. */
struct seen {
    size_t open;         /* commands, as all that follows */
    size_t ended;        /* streams that are complete */
    size_t lone;         /* likewise, with one output: in the PartitionSnapshot they are like any other command */
    size_t acknowledged; /* outputs of it have been */
    size_t kept;         /* at or below the floor */
    size_t apart;        /* far over it */
    size_t limits;       /* ended by the session's limit */
};

static void see_command(const Millrace__V1__SessionExtra *session, const Millrace__V1__CommandExtra *extra,
                        const Atomix__Multiraft__V1__CommandSnapshot *command, struct seen *seen)
{
    size_t pending = command->n_pending_outputs;
    seen->open += extra->stream && command->input != NULL;
    seen->ended += extra->stream && command->input == NULL;
    seen->lone += extra->stream && command->input == NULL && extra->last_output == 1;
    seen->acknowledged += pending < extra->last_output;
    seen->kept += extra->sequence_num <= session->given_up;
    seen->apart += extra->sequence_num > session->given_up + 1000;
    seen->limits += pending > 0 && command->pending_outputs[pending - 1]->operation->status ==
                                       ATOMIX__MULTIRAFT__V1__OPERATION_OUTPUT__STATUS__UNAVAILABLE;
}

static void see(const struct recorded *entry, struct seen *seen)
{
    Atomix__Multiraft__V1__PartitionSnapshot *snapshot =
        atomix__multiraft__v1__partition_snapshot__unpack(NULL, entry->snapshot, entry->dump);
    Millrace__V1__SnapshotExtra *extra =
        millrace__v1__snapshot_extra__unpack(NULL, entry->total - entry->snapshot, entry->dump + entry->snapshot);
    assert_non_null(snapshot);
    assert_non_null(extra);
    assert_int_equal(snapshot->n_sessions, extra->n_sessions);
    for (size_t i = 0; i < extra->n_sessions; i++)
        for (size_t j = 0; j < extra->sessions[i]->n_commands; j++)
            see_command(extra->sessions[i], extra->sessions[i]->commands[j], snapshot->sessions[i]->commands[j], seen);
    millrace__v1__snapshot_extra__free_unpacked(extra, NULL);
    atomix__multiraft__v1__partition_snapshot__free_unpacked(snapshot, NULL);
}

static void every_place(void **state)
{
    (void)state;
    struct seen seen = {0};
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct history *history = make_history(seed);
        for (unsigned from = 0; from < history->count; from++) {
            see(&history->entries[from], &seen);
            if (follow(history, from, true) != 0)
                fail_msg("seed %u", (unsigned)seed);
        }
        free_history(history);
    }
    assert_true(seen.open > 1000 && seen.ended > 1000 && seen.acknowledged > 1000 && seen.kept > 1000 &&
                seen.apart > 1000 && seen.limits > 100 && seen.lone > 100);
}

static void a_forgotten_number_is_found(void **state)
{
    (void)state;
    unsigned wrong = 0;
    struct history *history = make_history(1);
    planted_fault = PLANTED_NUMBER_FORGOTTEN;
    for (unsigned from = 0; from < history->count; from++)
        wrong += follow(history, from, false) != 0;
    planted_fault = PLANTED_NOTHING;
    free_history(history);
    assert_true(wrong > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_place), cmocka_unit_test(a_forgotten_number_is_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
