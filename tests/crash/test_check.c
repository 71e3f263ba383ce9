/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of a crash round turn down rounds that were not as they should be: a right account of one, made by hand,
 * is taken; with one thing in it changed it is not, and the verdict says what. */
#include "tests/crash/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/temp_dir.h"

static struct history *history;
static char *folder;
static uint64_t written; /* the last command's index */

#define WRITER_CLIENT 0
#define LISTENER_CLIENT 1
#define OPENER_CLIENT 2
#define LAST 3

static struct record *add(unsigned client, struct record record)
{
    struct client *of = &history->clients[client];
    struct record *to = &of->records[of->record_count];

    *to = record;
    to->handle = client;
    to->called = history_now(history);
    to->answered = history_now(history);
    of->record_count++;
    return to;
}

/* A write of the next index, which the listener is told of. */
static struct record *put(unsigned client, uint8_t key, enum mr_event_type type)
{
    struct client *listener = &history->clients[LISTENER_CLIENT];
    uint64_t number = (uint64_t)(client + 1) << 32 | (history->clients[client].record_count + 1);

    written++;
    struct record *record = add(client, (struct record){.what = MAP_PUT,
                                                        .key = key,
                                                        .argument = number,
                                                        .result = number,
                                                        .index = written,
                                                        .entry_index = written});
    listener->events[listener->event_count++] = (struct event){
        .number = number, .entry_index = written, .type = (uint8_t)type, .key = key, .taken = history_now(history)};
    return record;
}

static void take_out(uint8_t key, const struct record *victim)
{
    struct client *listener = &history->clients[LISTENER_CLIENT];

    written++;
    add(WRITER_CLIENT, (struct record){.what = MAP_REMOVE,
                                       .key = key,
                                       .result = victim->argument,
                                       .entry_index = victim->entry_index,
                                       .index = written});
    listener->events[listener->event_count++] = (struct event){.number = victim->argument,
                                                               .entry_index = victim->entry_index,
                                                               .type = MR_REMOVE,
                                                               .key = key,
                                                               .taken = history_now(history)};
}

static void look_at(uint8_t key, const struct record *there)
{
    struct record *record = add(LAST, (struct record){.what = MAP_GET, .key = key, .status = MR_NOT_FOUND});

    if (there != NULL) {
        record->status = MR_OK;
        record->result = there->argument;
        record->entry_index = there->entry_index;
    }
}

static void count_something(void)
{
    for (uint64_t i = 1; i <= 4; i++)
        add(WRITER_CLIENT,
            (struct record){.what = COUNTER_ADD, .argument = 100, .result = 100 * i, .index = ++written});
    add(LAST, (struct record){.what = COUNTER_GET, .result = 400});
}

static void open_something(void)
{
    struct client *opener = &history->clients[OPENER_CLIENT];

    opener->opened[0] = (struct opened){.session = 71};
    opener->opened[1] = (struct opened){.session = 72, .close = CLOSE_DONE};
    opener->opened[2] = (struct opened){.session = 73, .close = CLOSE_SENT};
    opener->opened[3] = (struct opened){.session = 0};
    opener->opened_count = 4;
    history->session_count = 2;
    history->session_ids[0] = 71;
    history->session_ids[1] = 74;
}

static int set_up(void **state)
{
    char path[TEMP_PATH_MAX];

    (void)state;
    folder = temp_dir_make();
    history = history_create(temp_dir_file(path, folder, "history"));
    assert_non_null(history);
    history->client_count = LAST;
    history->partitions = 1;
    for (unsigned i = 0; i < COUNTERS; i++)
        history->counter_partition[i] = 1;
    for (unsigned i = 0; i < MAPS; i++)
        history->map_partition[i] = 1;
    history->handles = LAST + 1;
    written = 0;
    history->parts[LISTENER_CLIENT].role = LISTENER;
    history->parts[OPENER_CLIENT].role = OPENER;

    struct client *listener = &history->clients[LISTENER_CLIENT];
    put(WRITER_CLIENT, 0, MR_INSERT); /* before anybody listens */
    listener->event_count = 0;
    listener->listenings[0] = (struct listening){.asked = history_now(history)};
    listener->listening_count = 1;
    listener->events[listener->event_count++] = (struct event){.type = MR_LISTENING, .taken = history_now(history)};
    put(WRITER_CLIENT, 0, MR_UPDATE);
    struct record *one = put(WRITER_CLIENT, 1, MR_INSERT);
    struct record *zero = put(WRITER_CLIENT, 0, MR_UPDATE);
    take_out(1, one);
    one = put(WRITER_CLIENT, 1, MR_INSERT);
    one = put(WRITER_CLIENT, 1, MR_UPDATE);
    count_something();
    struct record *marker = put(LAST, MARKER_KEY, MR_INSERT);
    look_at(0, zero);
    look_at(1, one);
    look_at(MARKER_KEY, marker);
    open_something();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    history_close(history);
    temp_dir_remove(folder);
    return 0;
}

static struct event *event(unsigned n)
{
    return &history->clients[LISTENER_CLIENT].events[n];
}

/* The event is missing. */
static void lose(unsigned n)
{
    struct client *listener = &history->clients[LISTENER_CLIENT];

    listener->event_count--;
    memmove(event(n), event(n + 1), (listener->event_count - n) * sizeof(struct event));
}

/* The event comes again behind itself. */
static void repeat(unsigned n)
{
    struct client *listener = &history->clients[LISTENER_CLIENT];

    memmove(event(n + 1), event(n), (listener->event_count - n) * sizeof(struct event));
    listener->event_count++;
}

/* NULL: it is to be taken. */
static void judged(const char *why)
{
    struct tally tally = {0};
    char *text = NULL;
    size_t size = 0;
    FILE *verdict = open_memstream(&text, &size);

    assert_non_null(verdict);
    bool well = check_round(history, verdict, &tally);
    fclose(verdict);
    if (well != (why == NULL) || (why != NULL && strstr(text, why) == NULL))
        fail_msg("%s, where it is to be %s:\n%s", well ? "taken" : "turned down", why == NULL ? "taken" : why, text);
    free(text);
}

static void test_right(void **state)
{
    (void)state;
    judged(NULL);
}

static void test_streams_turned_down(void **state)
{
    (void)state;
    struct event kept[16];
    uint32_t count = history->clients[LISTENER_CLIENT].event_count;

    assert_int_equal(count, 8);
    memcpy(kept, event(0), sizeof(kept));
    static const char *const why_lost[] = {"does not begin", "already listened", "a gap", "a gap",
                                           "missing before", "missing before",   "a gap", "the marker"};
    for (unsigned i = 0; i < count; i++) {
        lose(i);
        judged(why_lost[i]);
        memcpy(event(0), kept, sizeof(kept));
        history->clients[LISTENER_CLIENT].event_count = count;
    }
    static const char *const why_repeated[] = {"begins again", "twice", "twice", "twice",
                                               "not there",    "twice", "twice", "twice"};
    for (unsigned i = 0; i < count; i++) {
        repeat(i);
        judged(why_repeated[i]);
        memcpy(event(0), kept, sizeof(kept));
        history->clients[LISTENER_CLIENT].event_count = count;
    }
    judged(NULL);

    event(2)->number += 100; /* nobody's */
    judged("nobody wrote this");
    memcpy(event(0), kept, sizeof(kept));
    *event(3) = kept[5]; /* out of order */
    *event(5) = kept[3];
    judged("client 1, stream 0");
}

static void test_a_last_look_that_differs(void **state)
{
    (void)state;
    struct client *last = &history->clients[LAST];

    last->records[last->record_count - 3].status = MR_NOT_FOUND; /* key 0 */
    judged("at its end the map is not what its events make of it");
}

static void test_objects_turned_down(void **state)
{
    (void)state;
    struct client *writer = &history->clients[WRITER_CLIENT];
    struct client *last = &history->clients[LAST];
    struct record *add_last = &writer->records[writer->record_count - 1];

    last->records[0].result = 500; /* one of them twice */
    judged("the answered additions make 400");
    last->records[0].result = 300; /* one of them lost */
    judged("counter 0: not linearizable");
    add_last->answered = 0; /* it may be, if nobody was told otherwise */
    judged(NULL);
    last->records[0].result = 400;
    judged(NULL);

    struct record *other = &writer->records[1]; /* the second write of key 0 says that it took the third's index */
    other->entry_index = writer->records[3].entry_index;
    judged("was written twice: at index 2 and 4");
}

static void test_indexes_turned_down(void **state)
{
    (void)state;
    struct client *writer = &history->clients[WRITER_CLIENT];
    struct record *a = &writer->records[writer->record_count - 1];
    struct record *b = &writer->records[writer->record_count - 2];
    uint64_t index = a->index;

    a->index = b->index;
    judged("two commands");
    a->index = index;
    judged(NULL);
    a->index = b->index;
    b->index = index;
    judged("was answered before");
}

static void test_sessions_turned_down(void **state)
{
    (void)state;
    history->session_ids[1] = 72;
    judged("session 72 was closed, and is there");
    history->session_ids[1] = 73; /* its closing was not answered */
    judged(NULL);
    history->session_ids[0] = 75;
    judged("session 71 was opened, and is not there");
    history->session_ids[0] = 71;
    history->session_ids[2] = 74; /* that may be the one that was not answered */
    history->session_count = 3;
    judged(NULL);
    history->session_ids[3] = 75;
    history->session_count = 4;
    judged("others can be 1 at most");
    history->session_count = 3;
    history->clients[OPENER_CLIENT].opened[2].session = 71;
    judged("session 71 was opened twice");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_right),
        TEST(test_streams_turned_down),
        TEST(test_a_last_look_that_differs),
        TEST(test_objects_turned_down),
        TEST(test_indexes_turned_down),
        TEST(test_sessions_turned_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
