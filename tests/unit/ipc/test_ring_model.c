/* SPDX-License-Identifier: Apache-2.0 */
/* Every execution of a ring's two ends, under a memory weaker than any machine's that we run on: no wake-up is lost, no
 * message is lost, torn or out of order, and no end is told that the other is broken. It is ipc/ring.c and ring.h
 * themselves that run here, with their atomics replaced by calls into the model.
 *
 * The memory is C11's as an abstract machine. Each location has the list of all that was ever stored in it, in
 * modification order; each thread has a view, the position in each list below which it can read no more. A load may
 * take any store from its view on, so it may miss what another processor has done already (which contains store
 * buffers, and more); a store goes in anywhere behind the view, at the end or between others. A release store carries
 * its thread's view, which an acquire load of it takes over. Accesses that are seq_cst have one order, that in which
 * they are done here: such a load takes nothing older than what such an access has touched, such a store goes behind
 * that. Plain data may be touched only by who has taken over a view of the last access that conflicts with it; else
 * that is a race. (What is left out: loads that take a store from the future, which neither compilers nor machines do
 * across a dependency.)
 *
 * A thread is a function that is run anew from its beginning for each step, given the results of its accesses so far,
 * until it asks for one more; so its state is just those results, and nothing of its locals has to be known. A state of
 * the whole is that of both threads, the memory and the views; each is visited once (its 128-bit hash is remembered),
 * with every choice that there is from it. Where neither thread can go on before it is done, a wake-up was lost.
 *
 * That the model can find what it looks for is shown by weakening one access at a time. */
#include <stdatomic.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static uint64_t model_load(const volatile void *at, int order);
static void model_store(volatile void *at, uint64_t value, int order);
static uint64_t model_exchange(volatile void *at, uint64_t value, int order);

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#define atomic_load_explicit(at, order) model_load(at, order)
#define atomic_store_explicit(at, value, order) model_store(at, value, order)
#define atomic_exchange_explicit(at, value, order) model_exchange(at, value, order)

#include "ipc/ring.c" /* the code that is looked at */

enum { WRITER, READER, THREADS };
enum { TAIL, HEAD, READER_SLEEPS, WRITER_SLEEPS, LOCATIONS };
enum { FRAME = 8, FRAMES_MAX = 2, VIEW = LOCATIONS + 2 * FRAMES_MAX, STORES = 24, RESULTS = 96, VISITED = 1 << 20 };

/* In a ring that is empty or full at some time, or wraps, or all of that. Three take a second, a sanitizer makes it
 * ten. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MESSAGES = 2 };
#else
enum { MESSAGES = 3 };
#endif

/* What an execution has come to. */
enum outcome { GOOD, LOST_WAKE_UP, RACE, WRONG_DATA, REFUSED, OUTCOMES };
static const char *const outcome_names[OUTCOMES] = {"good", "a lost wake-up", "a race", "wrong data",
                                                    "a sound cursor refused"};

/* Positions in the lists of stores, then for each frame's place the number of its writes and of its reads. */
struct view {
    uint8_t at[VIEW];
};

struct store {
    uint8_t value;
    uint8_t attached; /* an exchange read the one before it: nothing comes between */
    struct view carries;
};

struct state {
    uint8_t results[THREADS][RESULTS]; /* of each thread's accesses */
    uint8_t count[THREADS];
    uint8_t done[THREADS];
    struct view views[THREADS];
    struct store stores[LOCATIONS][STORES];
    uint8_t store_count[LOCATIONS];
    uint8_t sc[LOCATIONS]; /* the position that a seq_cst access touched last */
    uint8_t data[FRAMES_MAX];
    uint8_t wakes[THREADS]; /* that wait for it: an eventfd's count */
    struct view wake_views[THREADS];
};

enum kind { LOAD, STORE, EXCHANGE, WRITE_DATA, READ_DATA, WAKE, WAIT };
struct access {
    enum kind kind;
    unsigned place; /* location, frame's place, or thread */
    uint8_t value;
    int order;
};

/* What is tried: how the ends behave, and what is weakened. */
enum weakened {
    NOTHING,
    FENCES,         /* all that is seq_cst is acquire and release */
    PUBLISHED_TAIL, /* one of the accesses that are seq_cst, likewise */
    LOOK_AT_READER,
    READER_SLEEP_FLAG,
    READER_LAST_LOOK,
    RELEASED_HEAD,
    LOOK_AT_WRITER,
    WRITER_SLEEP_FLAG,
    WRITER_LAST_LOOK,
    TAIL_STORE, /* one that is release or acquire is relaxed */
    TAIL_LOAD,
    HEAD_STORE,
    HEAD_LOAD
};

static struct {
    unsigned capacity; /* frames */
    unsigned messages;
    bool publish_late; /* the writer publishes only when it has to */
    bool wake_late;    /* the reader looks for a sleeping writer only before it sleeps or ends */
    enum weakened weakened;
} setting;

static struct ring_cursors cursors; /* only its addresses are used */
static uint8_t frames[2 * FRAMES_MAX * FRAME];

/* ---- running a thread up to its next access ---- */

static const struct state *running;
static unsigned thread, replayed;
static struct access asked;
static jmp_buf asks;
static enum outcome complaint;

static uint64_t result_of(struct access access)
{
    if (replayed < running->count[thread])
        return running->results[thread][replayed++];
    asked = access;
    longjmp(asks, 1);
}

static unsigned location_of(const volatile void *at)
{
    return at == &cursors.tail            ? TAIL
           : at == &cursors.head          ? HEAD
           : at == &cursors.reader_sleeps ? READER_SLEEPS
                                          : WRITER_SLEEPS;
}

/* A seq_cst access that is to be weakened? */
static bool weaker(enum kind kind, unsigned location)
{
    static const struct {
        enum weakened weakened;
        unsigned thread, location;
        enum kind kind;
    } accesses[] = {{PUBLISHED_TAIL, WRITER, TAIL, STORE},
                    {LOOK_AT_READER, WRITER, READER_SLEEPS, LOAD},
                    {READER_SLEEP_FLAG, READER, READER_SLEEPS, STORE},
                    {READER_LAST_LOOK, READER, TAIL, LOAD},
                    {RELEASED_HEAD, READER, HEAD, STORE},
                    {LOOK_AT_WRITER, READER, WRITER_SLEEPS, LOAD},
                    {WRITER_SLEEP_FLAG, WRITER, WRITER_SLEEPS, STORE},
                    {WRITER_LAST_LOOK, WRITER, HEAD, LOAD}};
    for (size_t i = 0; i < sizeof(accesses) / sizeof(accesses[0]); i++)
        if (accesses[i].weakened == setting.weakened)
            return accesses[i].thread == thread && accesses[i].location == location && accesses[i].kind == kind;
    return setting.weakened == FENCES;
}

static int order_of(enum kind kind, unsigned location, int order)
{
    enum weakened weakened = setting.weakened;
    if ((weakened == TAIL_STORE && location == TAIL && kind == STORE) ||
        (weakened == TAIL_LOAD && location == TAIL && kind == LOAD) ||
        (weakened == HEAD_STORE && location == HEAD && kind == STORE) ||
        (weakened == HEAD_LOAD && location == HEAD && kind == LOAD))
        return memory_order_relaxed;
    if (order != memory_order_seq_cst || !weaker(kind, location))
        return order;
    return kind == LOAD ? memory_order_acquire : kind == STORE ? memory_order_release : memory_order_acq_rel;
}

static uint64_t model_load(const volatile void *at, int order)
{
    unsigned location = location_of(at);
    return result_of((struct access){LOAD, location, 0, order_of(LOAD, location, order)});
}

static void model_store(volatile void *at, uint64_t value, int order)
{
    unsigned location = location_of(at);
    result_of((struct access){STORE, location, (uint8_t)value, order_of(STORE, location, order)});
}

static uint64_t model_exchange(volatile void *at, uint64_t value, int order)
{
    unsigned location = location_of(at);
    return result_of((struct access){EXCHANGE, location, (uint8_t)value, order_of(EXCHANGE, location, order)});
}

static void wake(unsigned whom)
{
    result_of((struct access){WAKE, whom, 0, 0});
}

static void wait(void)
{
    result_of((struct access){WAIT, thread, 0, 0});
}

/* ---- the two ends ---- */

static void publish(struct ring_writer *writer)
{
    if (ring_publish(writer))
        wake(READER);
}

static void write_all(void)
{
    struct ring_writer writer = {.data = frames, .capacity = setting.capacity * FRAME, .cursors = &cursors};
    for (unsigned i = 0; i < setting.messages; i++) {
        uint8_t *at;
        enum ring_result result;
        while ((result = ring_reserve(&writer, FRAME, &at)) == RING_FULL) {
            publish(&writer);
            if (!ring_writer_sleep(&writer, FRAME))
                continue;
            wait();
            ring_writer_awake(&writer);
        }
        if (result == RING_BROKEN) {
            complaint = REFUSED;
            return;
        }
        result_of((struct access){WRITE_DATA, (unsigned)(at - frames) / FRAME, (uint8_t)(i + 1), 0});
        ring_advance(&writer, FRAME);
        if (!setting.publish_late)
            publish(&writer);
    }
    publish(&writer);
}

static void look_for_writer(struct ring_reader *reader)
{
    if (ring_release_wakes(reader))
        wake(WRITER);
}

static void read_all(void)
{
    struct ring_reader reader = {.data = frames, .capacity = setting.capacity * FRAME, .cursors = &cursors};
    for (unsigned i = 0; i < setting.messages;) {
        const uint8_t *at;
        enum ring_result result = ring_peek(&reader, FRAME, &at);
        if (result == RING_OK) {
            uint64_t got = result_of((struct access){READ_DATA, (unsigned)(at - frames) / FRAME, 0, 0});
            if (got != ++i)
                complaint = WRONG_DATA;
            ring_skip(&reader, FRAME);
            ring_release(&reader, reader.head);
            if (!setting.wake_late)
                look_for_writer(&reader);
        } else if (result == RING_EMPTY) {
            if (setting.wake_late)
                look_for_writer(&reader);
            if (!ring_sleep(&reader))
                continue;
            wait();
            ring_awake(&reader);
        } else {
            complaint = REFUSED;
            return;
        }
    }
    look_for_writer(&reader);
}

/* Its next access, in `asked`; false: it is done. */
static bool next_access(const struct state *state, unsigned who)
{
    running = state;
    thread = who;
    replayed = 0;
    if (setjmp(asks) != 0)
        return true;
    if (who == WRITER)
        write_all();
    else
        read_all();
    return false;
}

/* ---- the memory ---- */

static void join(struct view *to, const struct view *from)
{
    for (unsigned i = 0; i < VIEW; i++)
        if (to->at[i] < from->at[i])
            to->at[i] = from->at[i];
}

static bool acquires(int order)
{
    return order == memory_order_acquire || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static bool releases(int order)
{
    return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static void move_view(struct view *view, unsigned location, unsigned position)
{
    if (view->at[location] >= position)
        view->at[location]++;
}

/* Makes room for a store at this position of the location's list. */
static void make_room(struct state *state, unsigned location, unsigned position)
{
    assert_true(state->store_count[location] < STORES);
    struct store *stores = state->stores[location];
    memmove(&stores[position + 1], &stores[position], (state->store_count[location]++ - position) * sizeof(*stores));
    for (unsigned i = 0; i < THREADS; i++) {
        move_view(&state->views[i], location, position);
        move_view(&state->wake_views[i], location, position);
    }
    if (state->sc[location] >= position)
        state->sc[location]++;
    for (unsigned i = 0; i < LOCATIONS; i++)
        for (unsigned n = 0; n < state->store_count[i]; n++)
            if (i != location || n != position)
                move_view(&state->stores[i][n].carries, location, position);
}

static unsigned least_position(const struct state *state, unsigned who, const struct access *access)
{
    unsigned least = state->views[who].at[access->place], sc = state->sc[access->place];
    return access->order == memory_order_seq_cst && sc > least ? sc : least;
}

static void read_store(struct state *state, unsigned who, const struct access *access, unsigned position)
{
    state->views[who].at[access->place] = (uint8_t)position;
    if (acquires(access->order))
        join(&state->views[who], &state->stores[access->place][position].carries);
    if (access->order == memory_order_seq_cst)
        state->sc[access->place] = (uint8_t)position;
}

static void put_store(struct state *state, unsigned who, const struct access *access, unsigned position, bool attached)
{
    make_room(state, access->place, position);
    struct store *store = &state->stores[access->place][position];
    struct view *view = &state->views[who];
    view->at[access->place] = (uint8_t)position;
    *store = (struct store){.value = access->value, .attached = attached};
    store->carries.at[access->place] = (uint8_t)position;
    if (releases(access->order))
        store->carries = *view;
    if (attached) /* goes on with the release of what it read */
        join(&store->carries, &state->stores[access->place][position - 1].carries);
    if (access->order == memory_order_seq_cst)
        state->sc[access->place] = (uint8_t)position;
}

/* The number of writes, then of reads, of a frame's place, in views. */
static uint8_t *writes_of(struct view *view, unsigned place)
{
    return &view->at[LOCATIONS + 2 * place];
}

/* How often it was touched, which is what whoever touched it last knows. */
static uint8_t touched(struct state *state, unsigned place, unsigned which)
{
    uint8_t most = 0;
    for (unsigned i = 0; i < THREADS; i++)
        if (writes_of(&state->views[i], place)[which] > most)
            most = writes_of(&state->views[i], place)[which];
    return most;
}

/* False: it conflicts with an access that does not happen before it. */
static bool touch_data(struct state *state, unsigned who, const struct access *access, uint8_t *result)
{
    uint8_t *known = writes_of(&state->views[who], access->place);
    bool writes = access->kind == WRITE_DATA;
    if (known[0] != touched(state, access->place, 0) || (writes && known[1] != touched(state, access->place, 1)))
        return false;
    if (writes)
        state->data[access->place] = access->value;
    known[writes ? 0 : 1]++;
    *result = state->data[access->place];
    return true;
}

/* Forgets stores that no thread can read any more, so that states which differ only there are one. */
static void forget(struct state *state, unsigned location)
{
    unsigned least = state->views[0].at[location];
    if (state->views[1].at[location] < least)
        least = state->views[1].at[location];
    if (least == 0)
        return;
    struct store *stores = state->stores[location];
    state->store_count[location] = (uint8_t)(state->store_count[location] - least);
    memmove(stores, stores + least, state->store_count[location] * sizeof(*stores));
    memset(stores + state->store_count[location], 0, least * sizeof(*stores));
    stores[0].attached = 0;
    struct view *views[2 * THREADS + LOCATIONS * STORES];
    unsigned count = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        views[count++] = &state->views[i];
        views[count++] = &state->wake_views[i];
    }
    for (unsigned i = 0; i < LOCATIONS; i++)
        for (unsigned n = 0; n < state->store_count[i]; n++)
            views[count++] = &state->stores[i][n].carries;
    for (unsigned i = 0; i < count; i++)
        views[i]->at[location] = (uint8_t)(views[i]->at[location] > least ? views[i]->at[location] - least : 0);
    state->sc[location] = (uint8_t)(state->sc[location] > least ? state->sc[location] - least : 0);
}

/* ---- all executions ---- */

static XXH128_hash_t *visited;
static uint64_t states, executions;
static uint64_t found[OUTCOMES];

/* False: it was there already. */
static bool visit(const struct state *state)
{
    XXH128_hash_t hash = XXH3_128bits(state, sizeof(*state));
    uint64_t at = hash.low64 % VISITED;
    hash.low64 |= 1; /* not a free place */
    while (visited[at].low64 != 0) {
        if (XXH128_isEqual(visited[at], hash))
            return false;
        at = (at + 1) % VISITED;
    }
    visited[at] = hash;
    assert_true(++states < VISITED / 2);
    return true;
}

static void explore(const struct state *state);

static void go_on(struct state *next, unsigned who, uint8_t result)
{
    assert_true(next->count[who] < RESULTS);
    next->results[who][next->count[who]++] = result;
    for (unsigned location = 0; location < LOCATIONS; location++)
        forget(next, location);
    explore(next);
}

/* The thread's next access, with every result that it can have. False: it has to wait. */
static bool step(const struct state *state, unsigned who, const struct access *access)
{
    struct state next = *state;
    unsigned place = access->place, end = access->kind <= EXCHANGE ? state->store_count[place] : 0;
    uint8_t result = 0;
    switch (access->kind) {
    case LOAD:
        for (unsigned n = least_position(state, who, access); n < end; n++) {
            next = *state;
            read_store(&next, who, access, n);
            go_on(&next, who, state->stores[place][n].value);
        }
        break;
    case STORE:
        for (unsigned n = least_position(state, who, access) + 1; n <= end; n++) {
            if (n < end && state->stores[place][n].attached)
                continue;
            next = *state;
            put_store(&next, who, access, n, false);
            go_on(&next, who, 0);
        }
        break;
    case EXCHANGE:
        for (unsigned n = least_position(state, who, access); n < end; n++) {
            if (n + 1 < end && state->stores[place][n + 1].attached)
                continue;
            next = *state;
            read_store(&next, who, access, n);
            put_store(&next, who, access, n + 1, true);
            go_on(&next, who, state->stores[place][n].value);
        }
        break;
    case WRITE_DATA:
    case READ_DATA:
        if (touch_data(&next, who, access, &result))
            go_on(&next, who, result);
        else
            found[RACE]++;
        break;
    case WAKE:
        next.wakes[place] = 1;
        join(&next.wake_views[place], &next.views[who]);
        go_on(&next, who, 0);
        break;
    case WAIT:
        if (state->wakes[who] == 0)
            return false;
        next.wakes[who] = 0;
        join(&next.views[who], &next.wake_views[who]);
        go_on(&next, who, 0);
        break;
    }
    return true;
}

static void explore(const struct state *state)
{
    bool moved = false, done = true;
    if (!visit(state))
        return;
    for (unsigned who = 0; who < THREADS; who++) {
        complaint = GOOD;
        bool more = next_access(state, who);
        struct access access = asked;
        if (complaint != GOOD) {
            found[complaint]++;
            return;
        }
        done = done && !more;
        moved |= more && step(state, who, &access);
    }
    if (moved)
        return;
    executions++;
    found[done ? GOOD : LOST_WAKE_UP]++;
}

static void explore_all(void)
{
    static struct state first;
    memset(&first, 0, sizeof(first));
    for (unsigned location = 0; location < LOCATIONS; location++)
        first.store_count[location] = 1;
    memset(visited, 0, VISITED * sizeof(*visited));
    memset(found, 0, sizeof(found));
    states = executions = 0;
    explore(&first);
}

static const char *describe(void)
{
    static char text[160];
    snprintf(text, sizeof(text), "%u messages, room for %u%s%s", setting.messages, setting.capacity,
             setting.publish_late ? ", published late" : "", setting.wake_late ? ", the writer woken late" : "");
    return text;
}

/* ---- the tests ---- */

static void nothing_is_lost(void **ignored)
{
    (void)ignored;
    for (unsigned n = 0; n < (MESSAGES - 1) * 8; n++) {
        setting.messages = 2 + n / 8;
        setting.capacity = 1 + n % 2;
        setting.publish_late = n / 2 % 2;
        setting.wake_late = n / 4 % 2;
        setting.weakened = NOTHING;
        explore_all();
        print_message("%s: %llu states, %llu ends\n", describe(), (unsigned long long)states,
                      (unsigned long long)executions);
        assert_true(found[GOOD] > 0);
        for (unsigned outcome = GOOD + 1; outcome < OUTCOMES; outcome++)
            if (found[outcome] > 0)
                fail_msg("%s: %s", describe(), outcome_names[outcome]);
    }
}

static void expect(enum weakened weakened, enum outcome outcome, const char *name)
{
    uint64_t times = 0;
    for (unsigned n = 0; n < 4 && times == 0; n++) {
        setting.messages = 2;
        setting.capacity = 1 + n % 2;
        setting.publish_late = false;
        setting.wake_late = n / 2;
        setting.weakened = weakened;
        explore_all();
        times += found[outcome];
    }
    if (times == 0)
        fail_msg("%s: the model does not find %s", name, outcome_names[outcome]);
}

static void finds_the_lost_wake_up_without_the_fence(void **ignored)
{
    (void)ignored;
    expect(FENCES, LOST_WAKE_UP, "no access is seq_cst");
}

static void each_of_the_four_has_to_be_seq_cst(void **ignored)
{
    (void)ignored;
    expect(PUBLISHED_TAIL, LOST_WAKE_UP, "the store of the tail");
    expect(LOOK_AT_READER, LOST_WAKE_UP, "the look at the reader's flag");
    expect(READER_SLEEP_FLAG, LOST_WAKE_UP, "the store of the reader's flag");
    expect(READER_LAST_LOOK, LOST_WAKE_UP, "the reader's last look at the tail");
    expect(RELEASED_HEAD, LOST_WAKE_UP, "the second store of the head");
    expect(LOOK_AT_WRITER, LOST_WAKE_UP, "the look at the writer's flag");
    expect(WRITER_SLEEP_FLAG, LOST_WAKE_UP, "the store of the writer's flag");
    expect(WRITER_LAST_LOOK, LOST_WAKE_UP, "the writer's last look at the head");
}

static void finds_races_without_release_and_acquire(void **ignored)
{
    (void)ignored;
    expect(TAIL_STORE, RACE, "the store of the tail is relaxed");
    expect(TAIL_LOAD, RACE, "the load of the tail is relaxed");
    expect(HEAD_STORE, RACE, "the store of the head is relaxed");
    expect(HEAD_LOAD, RACE, "the load of the head is relaxed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost),
        cmocka_unit_test(finds_the_lost_wake_up_without_the_fence),
        cmocka_unit_test(each_of_the_four_has_to_be_seq_cst),
        cmocka_unit_test(finds_races_without_release_and_acquire),
    };
    visited = calloc(VISITED, sizeof(*visited));
    if (visited == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(visited);
    return failed;
}
