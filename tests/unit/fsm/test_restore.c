/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot's bytes: what they are, to the byte; and that fsm_restore() takes no others. Whatever is done to the bytes
 * of a state, they are refused, or are those of another state, which is then written down as just these bytes and can
 * be worked with. And what is told on the way. */
#include "tests/support/random.h"
#include "tests/unit/fsm/streams.h"

#include <stdio.h>

#include "atomix/multiraft/v1/fsm.pb-c.h"
#include "millrace/v1/snapshot.pb-c.h"

#define LIMIT 100000

typedef Atomix__Multiraft__V1__PartitionSnapshot Snapshot;
typedef Atomix__Multiraft__V1__SessionSnapshot Session;
typedef Millrace__V1__SnapshotExtra Extra;

/* ---- the state ---- */

/* A little of everything: the golden bytes below are its. */
static struct partition *build(void)
{
    uint8_t everything[10] = {1, 1, 255, 255, 255, 255, 255, 255, 255, 255};
    static const struct last_output acknowledged[] = {{1, 1}, {3, 1}};
    struct duration ttl = duration_of(2 * MR_SECOND + 5);
    struct partition *partition = partition_create_with(7, LIMIT, all_types());
    partition->uid = 1000;
    partition->time = 1000 * MR_SECOND + 7;
    partition_open_session(partition, 20 * MR_SECOND + 1);                       /* 1 */
    partition_open_session(partition, MR_HOUR);                                  /* 2 */
    partition_create_service(partition, 1, COUNTER_TYPE, "c");                   /* 3 */
    partition_create_service(partition, 2, MAP_TYPE, "m");                       /* 4 */
    partition_create_service(partition, 1, MAP_TYPE, "m");                       /* 5 */
    send(partition, 1, 3, 1, "Set", number_payload(77));                         /* 6 */
    send(partition, 1, 3, 2, "CompareAndSet", numbers_payload(1, 2));            /* 7: fails */
    send(partition, 1, 4, 3, "Events", events_payload("k", false));              /* 8 */
    send(partition, 2, 4, 1, "Events", events_payload("", false));               /* 9 */
    partition->time += MR_SECOND;                                                /* */
    send(partition, 1, 4, 4, "Put", write_payload("k", text("value"), &ttl, 0)); /* 10 */
    send(partition, 1, 3, UINT64_C(1) << 40, "Increment", number_payload(1));    /* 11 */
    request_keep_alive(&partition->request, 1, (struct slice){everything, 10}, 3, acknowledged, 2);
    partition_submit(partition);                                           /* 12 */
    send(partition, 2, 4, 2, "Put", write_payload("", text(""), NULL, 0)); /* 13 */
    partition->uid = 0;
    partition_open_session(partition, MR_SECOND);                   /* 14 */
    partition_create_service(partition, 14, MAP_TYPE, "m");         /* 15 */
    send(partition, 14, 4, 9, "Events", events_payload("", false)); /* 16 */
    request_close_service(&partition->request, 14, 4);
    partition_submit(partition); /* 17 */
    return partition;
}

struct bytes {
    uint8_t *data;
    size_t snapshot, size; /* of the first section, of both */
};

static struct bytes bytes_of(struct partition *partition)
{
    struct bytes bytes = {.snapshot = partition_snapshot_size(partition)};
    bytes.data = partition_dump(partition, &bytes.size);
    return bytes;
}

/* ---- to the byte ---- */

static const char golden_snapshot[] =
    "0811120508e90710071ab50108011204081410011a0508e9071007220408011001222408021001221e0801121a08081a167468652076616c"
    "75652069732037372c206e6f742031223b08031a13080410031a0d0a064576656e747312030a016b22220802121e0801121a121808011214"
    "0a016b120d0a0576616c7565120408021005180a222408041001221e0801121a080112160a140a016b120d0a0576616c7565120408021005"
    "180a2215088080808080201001220a0801120608011202084e1a7e0802120308901c1a0508e8071007225808011a0e080410011a080a0645"
    "76656e7473220c08011208080112041202120022220802121e0801121a1218080112140a016b120d0a0576616c7565120408021005180a22"
    "120803120e0801120a1208080112041200180d221408021001220e0801120a080112060a041200180d1a49080e120208011a0508e9071007"
    "223a08091001220c08011208080112041202120022260802122208031a1e7468652073657373696f6e20636c6f7365642074686520736572"
    "76696365223c080312310a2361746f6d69782e6d756c7469726166742e636f756e7465722e76312e436f756e746572120764656661756c74"
    "1a01631a02084e220101225f080412290a1b61746f6d69782e6d756c7469726166742e6d61702e76312e4d6170120764656661756c741a01"
    "6d1a2c0a05080812016b0a02080912170a05080a12016b120e0a0576616c7565120508eb07100c12060a02080d120022020102";
static const char golden_extra[] =
    "08a08d06123d080110e8071803208080808080202a060801100618012a060802100718012a0808031008180220012a060804100a18012a0b"
    "08808080808020100b18011219080210e80720022a0808011009180320012a060802100d1801120e080e20092a080809101018022001";

static void assert_hex(const uint8_t *bytes, size_t size, const char *golden)
{
    char *hex = calloc(1, 2 * size + 1);
    assert_non_null(hex);
    for (size_t i = 0; i < size; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    assert_string_equal(hex, golden);
    free(hex);
}

/* A directory's snapshots are read by later versions: no change of these bytes without one of the format's version. */
static void golden(void **state)
{
    (void)state;
    struct partition *partition = build();
    struct bytes bytes = bytes_of(partition);
    assert_hex(bytes.data, bytes.snapshot, golden_snapshot);
    assert_hex(bytes.data + bytes.snapshot, bytes.size - bytes.snapshot, golden_extra);
    partition_restore(partition);
    free(bytes.data);
    partition_destroy(partition);
}

static void nothing_at_all(void **state)
{
    (void)state;
    struct partition *partition = partition_create(7, LIMIT);
    struct bytes bytes = bytes_of(partition);
    assert_hex(bytes.data, bytes.snapshot, "1200");
    partition_restore(partition);
    free(bytes.data);
    partition_destroy(partition);
}

/* ---- bytes that were changed ---- */

/* Any work at all on a state that somebody made. */
static void use(struct fsm *fsm)
{
    struct partition *user = partition_create_with(9, LIMIT, all_types());
    fsm_destroy(user->fsm);
    user->fsm = fsm;
    user->index = fsm_index(fsm);
    user->time = fsm_time(fsm);
    if (user->index > UINT64_MAX - 100 || user->time > UINT64_MAX - MR_HOUR) {
        partition_destroy(user);
        return;
    }
    struct fsm_session session = {.id = 0};
    uint64_t tick = 0;
    while (fsm_session_after(fsm, session.id, &session)) {
        user->uid = session.uid;
        static const uint64_t numbers[] = {1, 3, 9, 50};
        for (unsigned i = 0; i < 4; i++) {
            send(user, session.id, 4, numbers[i], "Put", write_payload("k", text("w"), NULL, 0));
            send(user, session.id, 3, numbers[i] + 1, "Set", number_payload(i));
        }
        request_keep_alive(&user->request, session.id, no_filter, ++tick, NULL, 0);
        partition_submit(user);
    }
    partition_restore(user);
    partition_tick(user, user->time + 10 * MR_SECOND);
    if (fsm_session_after(user->fsm, 0, &session)) {
        user->uid = session.uid;
        request_close_session(&user->request, session.id);
        partition_submit(user);
    }
    partition_destroy(user);
}

struct tried {
    struct partition *partition; /* that the bytes were of: for its types and limit */
    size_t refused, taken;
};

/* The bytes lie in memory of just their size, so that a sanitizer sees who reads past them. */
static void try(struct tried *tried, const uint8_t *data, size_t snapshot, size_t size)
{
    struct mr_error error = {.code = 1};
    uint8_t *exact = malloc(size == 0 ? 1 : size);
    assert_non_null(exact);
    if (size > 0)
        memcpy(exact, data, size);
    struct fsm *fsm = partition_restored(tried->partition, exact, snapshot, size, &error);
    if (fsm == NULL) {
        tried->refused++;
        assert_int_equal(error.code, 0);
        assert_int_not_equal(error.text[0], 0);
    } else {
        struct partition again = {.fsm = fsm};
        size_t again_size;
        uint8_t *dump = partition_dump(&again, &again_size);
        assert_int_equal(partition_snapshot_size(&again), snapshot);
        assert_int_equal(again_size, size);
        assert_memory_equal(dump, exact, size);
        free(dump);
        tried->taken++;
        use(fsm);
    }
    free(exact);
}

static void every_bit(void **state)
{
    (void)state;
    struct tried tried = {.partition = build()};
    struct bytes bytes = bytes_of(tried.partition);
    for (size_t bit = 0; bit < 8 * bytes.size; bit++) {
        bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        try(&tried, bytes.data, bytes.snapshot, bytes.size);
        bytes.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(tried.refused > 1000 && tried.taken > 100); /* a value's bit gives another value */
    free(bytes.data);
    partition_destroy(tried.partition);
}

static void every_length(void **state)
{
    (void)state;
    struct tried tried = {.partition = build()};
    struct bytes bytes = bytes_of(tried.partition);
    for (size_t size = 0; size < bytes.size; size++)
        try(&tried, bytes.data, size < bytes.snapshot ? size : bytes.snapshot, size);
    uint8_t *cut = malloc(bytes.size);
    assert_non_null(cut);
    for (size_t size = 0; size < bytes.snapshot; size++) { /* of the first section alone */
        size_t rest = bytes.size - bytes.snapshot;
        memcpy(cut, bytes.data, size);
        memcpy(cut + size, bytes.data + bytes.snapshot, rest);
        try(&tried, cut, size, size + rest);
    }
    assert_int_equal(tried.taken, 0);
    free(cut);
    free(bytes.data);
    partition_destroy(tried.partition);
}

/* Bytes set, cut out, put in, doubled, swapped; a few at a time. */
static void random_changes(void **state)
{
    (void)state;
    struct tried tried = {.partition = build()};
    struct bytes bytes = bytes_of(tried.partition);
    uint8_t *data = malloc(bytes.size + 1024);
    assert_non_null(data);
    for (unsigned i = 0; i < 60000; i++) {
        size_t size = bytes.size, snapshot = bytes.snapshot;
        memcpy(data, bytes.data, size);
        for (uint64_t changes = 1 + below(3); changes > 0; changes--) {
            size_t at = below(size), length = 1 + below(size - at < 12 ? size - at : 12), *end = &snapshot;
            switch (below(4)) {
            case 0:
                data[at] = (uint8_t)below(256);
                break;
            case 1: /* a byte more or less is what most often is still a message */
                data[at] = (uint8_t)(data[at] + 1 - 2 * below(2));
                break;
            case 2:
                memmove(data + at, data + at + length, size - at - length);
                size -= length;
                if (at < *end)
                    *end -= at + length < *end ? length : *end - at;
                break;
            case 3:
                memmove(data + at + length, data + at, size - at);
                size += length;
                if (at < *end)
                    *end += length;
                break;
            }
        }
        try(&tried, data, snapshot, size);
    }
    assert_true(tried.refused > 10000 && tried.taken > 100);
    free(data);
    free(bytes.data);
    partition_destroy(tried.partition);
}

/* ---- messages that protobuf takes, and which cannot be a state ---- */

/* The open command of session 1 is its third; session 2's is its first; session 14's only one is an ended stream. */
static Session *session_of(Snapshot *snapshot, size_t place)
{
    return snapshot->sessions[place];
}

/* Of a CompareAndSet that failed. */
static ProtobufCBinaryData *message_of(Snapshot *snapshot)
{
    return &session_of(snapshot, 0)->commands[1]->pending_outputs[0]->operation->message;
}

/* Parts of a map's data: listeners by the index of their command; entries. */
#define PART(bytes)                                                                                                    \
    &(struct slice)                                                                                                    \
    {                                                                                                                  \
        (const uint8_t *)(bytes), sizeof(bytes) - 1                                                                    \
    }
#define L8 PART("\x0a\x05\x08\x08\x12\x01k")
#define L9 PART("\x0a\x02\x08\x09")
#define KEY PART("\x12\x09\x0a\x05\x08\x0a\x12\x01k\x12\x00")
#define EMPTY_KEY PART("\x12\x08\x0a\x04\x08\x0a\x12\x00\x12\x00")
#define NO_INDEX PART("\x12\x07\x0a\x03\x12\x01k\x12\x00")
#define NO_VALUE PART("\x12\x07\x0a\x05\x08\x0a\x12\x01k")
#define NO_TEXT PART("\x12\x09\x0a\x05\x08\x0a\x12\x01\xff\x12\x00")
#define EXPIRES_AT_0 PART("\x12\x0b\x0a\x05\x08\x0a\x12\x01k\x12\x02\x12\x00")

static void data_is(Snapshot *snapshot, size_t service, const struct slice *const *parts, size_t count)
{
    static uint8_t data[256];
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(data + size, parts[i]->data, parts[i]->size);
        size += parts[i]->size;
    }
    snapshot->services[service]->data = (ProtobufCBinaryData){size, data};
}

#define map_is(snapshot, count, ...) data_is(snapshot, 1, (const struct slice *const[]){__VA_ARGS__}, count)
#define counter_is(snapshot, bytes, size)                                                                              \
    data_is(snapshot, 0, (const struct slice *const[]){&(struct slice){(const uint8_t *)(bytes), size}}, 1)

#define CASES(X)                                                                                                       \
    X("the limit", extra->session_output_limit++, "limit")                                                             \
    X("a session's id", extra->sessions[0]->session_id++, "session 1: ")                                               \
    X("order of sessions", session_of(snapshot, 1)->session_id = 1, "do not rise")                                     \
    X("a session from the future", session_of(snapshot, 2)->session_id = 18, "do not rise, or not within")             \
    X("an endless session", session_of(snapshot, 0)->timeout->seconds = 86401, "times")                                \
    X("a timeout of none", session_of(snapshot, 2)->timeout->seconds = 0, "times")                                     \
    X("renewed in the future", session_of(snapshot, 2)->last_updated->seconds++, "times")                              \
    X("nanos", session_of(snapshot, 0)->timeout->nanos = 1000000000, "times")                                          \
    X("a session less", snapshot->n_sessions--, "goes on behind the last session")                                     \
    X("an extra less", extra->n_sessions--, "session 14: the SnapshotExtra")                                           \
    X("a number twice", session_of(snapshot, 0)->commands[1]->command_sequence_num = 1, "do not rise")                 \
    X("another number", extra->sessions[0]->commands[1]->sequence_num++, "session 1, command 2: ")                     \
    X("a command less", session_of(snapshot, 0)->n_commands--, "behind its last command")                              \
    X("a command's extra less", extra->sessions[0]->n_commands--, "does not have it")                                  \
    X("index of before", extra->sessions[0]->commands[0]->index = 1, "its index")                                      \
    X("index of after", extra->sessions[0]->commands[0]->index = 18, "its index")                                      \
    X("highest too low", extra->sessions[0]->highest--, "highest")                                                     \
    X("highest too high", extra->sessions[2]->highest++, "highest")                                                    \
    X("the floor too low", extra->sessions[0]->given_up = 2, "acknowledged, but no KeepAlive")                         \
    X("the floor too low", extra->sessions[0]->given_up = 0, "acknowledged, but no KeepAlive")                         \
    X("the floor over all", extra->sessions[2]->given_up = 100, "highest")                                             \
    X("two outputs", extra->sessions[0]->commands[1]->last_output = 2, "one output")                                   \
    X("no output", extra->sessions[0]->commands[0]->last_output = 0, "one output")                                     \
    X("another output", session_of(snapshot, 0)->commands[1]->pending_outputs[0]->sequence_num = 2, "one output")      \
    X("a gap", session_of(snapshot, 1)->commands[0]->pending_outputs[1]->sequence_num++, "in order")                   \
    X("outputs lost", session_of(snapshot, 1)->commands[0]->n_pending_outputs--, "gave last")                          \
    X("more outputs", extra->sessions[1]->commands[0]->last_output = 9, "gave last")                                   \
    X("fewer outputs", extra->sessions[0]->commands[2]->last_output = 0, "as many outputs")                            \
    X("no such status", session_of(snapshot, 0)->commands[1]->pending_outputs[0]->operation->status = 14, "output")    \
    X("status UNKNOWN", session_of(snapshot, 0)->commands[1]->pending_outputs[0]->operation->status = 0, "output")     \
    X("a message that is no text", message_of(snapshot)->data[0] = 0xff, "output")                                     \
    X("open, not a stream", extra->sessions[1]->commands[0]->stream = 0, "never was")                                  \
    X("no such state", session_of(snapshot, 0)->commands[0]->state = 2, "not a CommandSnapshot")                       \
    X("open without input", session_of(snapshot, 0)->commands[0]->state = 0, "not a CommandSnapshot")                  \
    X("complete with input", session_of(snapshot, 1)->commands[0]->state = 1, "not a CommandSnapshot")                 \
    X("another's input", session_of(snapshot, 1)->commands[0]->input->sequence_num++, "ServiceCommandInput")           \
    X("no service", session_of(snapshot, 1)->commands[0]->input->service_id = 3, "has not opened it")                  \
    X("a service before", session_of(snapshot, 1)->commands[0]->input->service_id = 2, "before it")                    \
    X("a service behind", session_of(snapshot, 1)->commands[0]->input->service_id = 5, "service 4: its data")          \
    X("no operation", session_of(snapshot, 1)->commands[0]->input->operation->name.len = 0, "no operation")            \
    X("not a stream's", session_of(snapshot, 1)->commands[0]->input->operation->name.len = 3, "never opens")           \
    X("index twice", extra->sessions[0]->commands[2]->index = 9, "same index")                                         \
    X("a listener's index", extra->sessions[0]->commands[2]->index = 7, "service 4: its data")                         \
    X("order of services", snapshot->services[1]->service_id = 3, "do not rise")                                       \
    X("a service of the future", snapshot->services[1]->service_id = 18, "not within")                                 \
    X("a session's id", snapshot->services[0]->service_id = 2, "of a session")                                         \
    X("a name less", snapshot->services[0]->spec->name.len = 0, "spec")                                                \
    X("no such type", snapshot->services[0]->spec->service.len--, "Counte`")                                           \
    X("sessions out of order", snapshot->services[1]->sessions[0] = 2, "not in order")                                 \
    X("a session not there", snapshot->services[0]->sessions[0] = 5, "not there")                                      \
    X("nobody listens", snapshot->services[1]->n_sessions = 0, "has not opened it")                                    \
    X("index of the state", snapshot->index = 13, "do not rise, or not within")                                        \
    X("no such service", snapshot->n_services = 1, "behind it")                                                        \
    X("listeners out of order", map_is(snapshot, 2, L9, L8), "service 4: its data")                                    \
    X("a listener twice", map_is(snapshot, 3, L8, L9, L9), "service 4: its data")                                      \
    X("a listener less", map_is(snapshot, 1, L8), "of which its data does not know")                                   \
    X("a key twice", map_is(snapshot, 4, L8, L9, KEY, KEY), "service 4: its data")                                     \
    X("listeners behind", map_is(snapshot, 3, L8, KEY, L9), "service 4: its data")                                     \
    X("an empty key that is written", map_is(snapshot, 3, L8, L9, EMPTY_KEY), "service 4: its data")                   \
    X("an entry without an index", map_is(snapshot, 3, L8, L9, NO_INDEX), "service 4: its data")                       \
    X("an entry without a value", map_is(snapshot, 3, L8, L9, NO_VALUE), "service 4: its data")                        \
    X("a key that is no text", map_is(snapshot, 3, L8, L9, NO_TEXT), "service 4: its data")                            \
    X("a deadline of 0", map_is(snapshot, 3, L8, L9, EXPIRES_AT_0), "service 4: its data")                             \
    X("a 0 that is written", counter_is(snapshot, "\x08\x00", 2), "service 3: its data")                               \
    X("a number too long", counter_is(snapshot, "\x08\x81\x00", 3), "service 3: its data")                             \
    X("a number too large", counter_is(snapshot, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11), "its data")      \
    X("a number twice", counter_is(snapshot, "\x08\x01\x08\x01", 4), "service 3: its data")                            \
    X("another field", counter_is(snapshot, "\x08\x01\x10\x01", 4), "service 3: its data")                             \
    X("data cut", snapshot->services[1]->data.len--, "service 4: its data")                                            \
    X("no data", snapshot->services[1]->data.len = 0, "of which its data does not know")

enum {
#define CASE(name, change, text) +1
    CASE_COUNT = CASES(CASE)
#undef CASE
};

/* Makes one change and says what is to be said of it. */
static const char *change(Snapshot *snapshot, Extra *extra, int which)
{
    int at = 0;
#define CASE(name, change, text)                                                                                       \
    if (which == at++) {                                                                                               \
        change;                                                                                                        \
        return text;                                                                                                   \
    }
    CASES(CASE)
#undef CASE
    return NULL;
}

/* Changed messages are not freed one by one, since nobody knows any more what belonged to them. */
struct arena {
    uint8_t bytes[65536];
    size_t used;
};

static void *arena_allocate(void *context, size_t size)
{
    struct arena *arena = context;
    void *room = arena->bytes + arena->used;
    arena->used += (size + 15) & ~(size_t)15;
    return arena->used > sizeof(arena->bytes) ? NULL : room;
}

static void arena_free(void *context, void *room)
{
    (void)context;
    (void)room;
}

/* Unpacks, changes and packs again; which < 0 changes nothing. */
static void changed_message(const struct partition *partition, const struct bytes *bytes, int which)
{
    static struct arena arena;
    arena.used = 0;
    ProtobufCAllocator allocator = {arena_allocate, arena_free, &arena};
    Snapshot *snapshot = atomix__multiraft__v1__partition_snapshot__unpack(&allocator, bytes->snapshot, bytes->data);
    Extra *extra =
        millrace__v1__snapshot_extra__unpack(&allocator, bytes->size - bytes->snapshot, bytes->data + bytes->snapshot);
    assert_true(snapshot != NULL && extra != NULL);
    const char *text = which < 0 ? NULL : change(snapshot, extra, which);
    uint8_t *packed = malloc(2 * bytes->size);
    assert_non_null(packed);
    size_t size = atomix__multiraft__v1__partition_snapshot__pack(snapshot, packed);
    size_t total = size + millrace__v1__snapshot_extra__pack(extra, packed + size);
    struct mr_error error = {.code = 1};
    struct fsm *fsm = partition_restored(partition, packed, size, total, &error);
    if (which < 0) {
        assert_non_null(fsm);
        fsm_destroy(fsm);
    } else if (fsm != NULL || strstr(error.text, text) == NULL) {
        fail_msg("change %d, \"%s\": %s", which, text, fsm != NULL ? "taken" : error.text);
    }
    free(packed);
}

static void what_cannot_be(void **state)
{
    (void)state;
    struct partition *partition = build();
    struct bytes bytes = bytes_of(partition);
    for (int which = -1; which < CASE_COUNT; which++)
        changed_message(partition, &bytes, which);
    free(bytes.data);
    partition_destroy(partition);
}

/* Every open command has one listener. */
static void one_listener_each(void **state)
{
    (void)state;
    struct partition *partition = partition_create_with(7, LIMIT, all_types());
    partition_open_session(partition, MR_HOUR);                      /* 1 */
    partition_create_service(partition, 1, TALKER_TYPE, "a");        /* 2 */
    send(partition, 1, 2, 1, "Listen", (struct payload){.size = 0}); /* 3 */
    struct bytes bytes = bytes_of(partition);
    static uint64_t words[] = {0, 3, 3};
    static const char *const texts[] = {"of which its data does not know", NULL, "its data cannot be"};
    for (size_t count = 1; count <= 3; count++) {
        Snapshot *snapshot = atomix__multiraft__v1__partition_snapshot__unpack(NULL, bytes.snapshot, bytes.data);
        assert_non_null(snapshot);
        ProtobufCBinaryData *data = &snapshot->services[0]->data, own = *data;
        *data = (ProtobufCBinaryData){8 * count, (uint8_t *)words};
        uint8_t *packed = malloc(bytes.size + 64);
        assert_non_null(packed);
        size_t size = atomix__multiraft__v1__partition_snapshot__pack(snapshot, packed),
               rest = bytes.size - bytes.snapshot;
        memcpy(packed + size, bytes.data + bytes.snapshot, rest);
        *data = own;
        atomix__multiraft__v1__partition_snapshot__free_unpacked(snapshot, NULL);
        struct mr_error error;
        struct fsm *fsm = partition_restored(partition, packed, size, size + rest, &error);
        if (count == 2)
            assert_non_null(fsm);
        else
            assert_true(fsm == NULL && strstr(error.text, texts[count - 1]) != NULL);
        fsm_destroy(fsm);
        free(packed);
    }
    free(bytes.data);
    partition_destroy(partition);
}

/* ---- what is told on the way ---- */

struct passed {
    uint8_t *data;        /* of the snapshot, as far as it was needed */
    const uint8_t *whole; /* all of it */
    size_t size;
    size_t more;     /* so many bytes come at once beyond what is needed */
    size_t from, to; /* what the last one said */
    unsigned told, needed;
    unsigned lost; /* from this need on nothing comes; 0: all do */
};

static const uint8_t *needed(void *context, const uint8_t *from, const uint8_t *to, struct mr_error *error)
{
    struct passed *passed = context;
    assert_true(from >= passed->data && to >= from && to <= passed->data + passed->size);
    if (++passed->needed == passed->lost) {
        error_set(error, "the disk is gone");
        return NULL;
    }
    assert_true(passed->lost == 0 || passed->needed < passed->lost);
    size_t begin = (size_t)(from - passed->data), end = (size_t)(to - passed->data);
    end += passed->size - end < passed->more ? passed->size - end : passed->more;
    memcpy(passed->data + begin, passed->whole + begin, end - begin);
    return passed->data + end;
}

/* The bytes are gone. */
static void passed(void *context, const uint8_t *from, const uint8_t *to)
{
    struct passed *passed = context;
    assert_true(from >= passed->data && to > from && to <= passed->data + passed->size);
    assert_true(to > passed->data + passed->to);
    if (passed->told++ > 0)
        assert_int_equal(from - passed->data, passed->from);
    passed->from = (size_t)(from - passed->data);
    passed->to = (size_t)(to - passed->data);
    memset(passed->data + passed->from, 0xff, passed->to - passed->from);
}

static void put_value(struct partition *partition, uint64_t number, uint8_t *room, size_t size)
{
    static uint8_t value[1 << 20];
    char key[16];
    assert_true(size <= sizeof(value));
    snprintf(key, sizeof(key), "%u", (unsigned)number);
    memset(value, (int)number, size);
    uint8_t *at = field_write_bytes(room, 1, text(key));
    at = field_write_message_head(at, 2, field_bytes_size(1, size));
    at = field_write_bytes(at, 1, (struct slice){value, size});
    partition->route = route(1, partition->index + 1);
    request_command(&partition->request, 1, 2, number, "Put", (struct slice){room, (size_t)(at - room)});
    partition_submit(partition);
}

/* What has not been asked for is not looked at, nor is again what is told to be passed; of a large map that is most of
 * it. If something cannot be had, nothing more is asked for, and why is told. */
static void asks_for_what_it_reads(void **state)
{
    (void)state;
    struct partition *partition = partition_create_with(7, UINT64_C(1) << 30, all_types());
    uint8_t *room = malloc(2 << 20);
    partition_open_session(partition, MR_HOUR);                /* 1 */
    partition_create_service(partition, 1, MAP_TYPE, "large"); /* 2 */
    partition_create_service(partition, 1, MAP_TYPE, "small"); /* 3 */
    partition_create_service(partition, 1, MAP_TYPE, "empty"); /* 4 */
    for (uint64_t number = 1; number <= 100; number++)
        put_value(partition, number, room, (300 << 10) - number);
    send(partition, 1, 2, 101, "Events", events_payload("k", false));
    send(partition, 1, 3, 102, "Events", events_payload("k", false)); /* its name stands far before its service */
    struct bytes bytes = bytes_of(partition);
    uint8_t *copy = malloc(bytes.snapshot);
    struct slice first = {copy, bytes.snapshot}, second = {bytes.data + bytes.snapshot, bytes.size - bytes.snapshot};
    struct passed passing = {.data = copy, .whole = bytes.data, .size = bytes.snapshot};
    struct fsm_source source = {.need = needed, .passed = passed, .context = &passing};
    struct mr_error error;
    struct fsm *fsm = NULL;
    for (unsigned times = 0; times < 2; times++) {
        fsm_destroy(fsm);
        fsm = fsm_create(&partition->config);
        memset(copy, 0xff, bytes.snapshot);
        passing.more = times * 5000000;
        passing.told = passing.needed = 0;
        passing.to = 0;
        assert_int_equal(fsm_restore_from(fsm, first, second, &source, &error), 0);
        assert_true(passing.told >= 3 && passing.to - passing.from >= 24 << 20);
    }
    passing.more = 0;
    for (unsigned lost = 1; lost <= 100; lost += 1 + lost / 4) {
        struct fsm *other = fsm_create(&partition->config);
        passing.told = passing.needed = 0;
        passing.to = 0;
        passing.lost = lost;
        assert_int_equal(fsm_restore_from(other, first, second, &source, &error), -1);
        assert_string_equal(error.text, "the disk is gone");
        assert_int_equal(passing.needed, lost);
        fsm_destroy(other);
    }
    free(copy);
    fsm_destroy(partition->fsm);
    partition->fsm = fsm;
    struct bytes again = bytes_of(partition);
    assert_int_equal(again.size, bytes.size);
    assert_memory_equal(again.data, bytes.data, bytes.size);
    free(again.data);
    free(bytes.data);
    free(room);
    partition_destroy(partition);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc == 2) { /* to see the golden bytes */
        struct partition *partition = build();
        struct bytes bytes = bytes_of(partition);
        for (size_t i = 0; i < bytes.size; i++)
            printf("%s%02x", i == bytes.snapshot ? "\n" : "", bytes.data[i]);
        printf("\n");
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(nothing_at_all),
        cmocka_unit_test(every_bit),
        cmocka_unit_test(every_length),
        cmocka_unit_test(random_changes),
        cmocka_unit_test(what_cannot_be),
        cmocka_unit_test(one_listener_each),
        cmocka_unit_test(asks_for_what_it_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
