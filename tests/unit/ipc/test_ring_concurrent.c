/* SPDX-License-Identifier: Apache-2.0 */
/* The ring with both ends at work at once: two threads on one mapping (which is what ThreadSanitizer can see), and two
 * processes on a channel's memory. Every byte is checked, and whoever sleeps too long has lost a wake-up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ipc/channel.h"
#include "ipc/ring.h"
#include "tests/support/random.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"

/* What an end does when it cannot go on. */
enum waiting { SPIN, SLEEP_AT_ONCE, SPIN_THEN_SLEEP };

struct run {
    uint8_t *data;
    uint64_t capacity;
    struct ring_cursors *cursors;
    uint64_t frames;
    enum waiting writer_waits;
    enum waiting reader_waits;
    int wake_writer; /* eventfds */
    int wake_reader;
    uint64_t slept;      /* by the end that this copy of the struct belongs to */
    const char *failure; /* NULL: none */
};

/* The sizes of frames, and the numbers that fill them, are the same sequence for both ends. */
static uint64_t next_size(uint64_t *seed, uint64_t capacity)
{
    uint64_t number = random_after(seed);

    /* Mostly small, sometimes as large as the ring takes. */
    return 8 + 8 * (number % 64 == 0 ? (number >> 8) % (capacity / 8) : (number >> 8) % 8);
}

static bool wake(int fd)
{
    uint64_t one = 1;

    return write(fd, &one, sizeof(one)) == sizeof(one);
}

/* Sleeps until woken; false: nobody woke it in time. */
static bool sleep_until_woken(struct run *run, int fd)
{
    uint64_t count;

    run->slept++;
    return wait_fd(fd, POLLIN, WAIT_MS) && read(fd, &count, sizeof(count)) == sizeof(count);
}

/* One look found nothing to do: whether to sleep now. A spinner gives the processor away from time to time: the other
 * end may be waiting for the same one. */
static bool time_to_sleep(enum waiting waiting, unsigned looks)
{
    if (waiting == SPIN && looks % 1024 == 1023)
        sched_yield();
    return waiting == SLEEP_AT_ONCE || (waiting == SPIN_THEN_SLEEP && looks > 50);
}

static const char *write_frames(struct run *run)
{
    struct ring_writer writer;
    uint64_t seed = 88172645463325252ULL;

    ring_writer_attach(&writer, run->data, run->capacity, run->cursors, 0, 0);
    for (uint64_t frame = 0; frame < run->frames; frame++) {
        uint64_t size = next_size(&seed, run->capacity);
        enum ring_result result;
        uint8_t *at;
        for (unsigned looks = 0; (result = ring_reserve(&writer, size, &at)) == RING_FULL; looks++) {
            if (ring_publish(&writer) && !wake(run->wake_reader))
                return "the writer cannot wake the reader";
            if (time_to_sleep(run->writer_waits, looks) && ring_writer_sleep(&writer, size)) {
                if (!sleep_until_woken(run, run->wake_writer))
                    return "the writer was not woken";
                ring_writer_awake(&writer);
            }
        }
        if (result != RING_OK)
            return "the writer found the ring broken";
        for (uint64_t i = 0; i < size; i += 8)
            memcpy(at + i, &(uint64_t){frame * 0x9e3779b97f4a7c15ULL + i}, 8);
        ring_advance(&writer, size);
        /* Several frames at once, more or less. */
        if (frame % 5 == 0 && ring_publish(&writer) && !wake(run->wake_reader))
            return "the writer cannot wake the reader";
    }
    if (ring_publish(&writer) && !wake(run->wake_reader))
        return "the writer cannot wake the reader";
    return NULL;
}

static const char *read_frames(struct run *run)
{
    struct ring_reader reader;
    uint64_t seed = 88172645463325252ULL;

    ring_reader_attach(&reader, run->data, run->capacity, run->cursors, 0, 0);
    for (uint64_t frame = 0; frame < run->frames; frame++) {
        uint64_t size = next_size(&seed, run->capacity);
        enum ring_result result;
        const uint8_t *at;
        for (unsigned looks = 0; (result = ring_peek(&reader, size, &at)) == RING_EMPTY; looks++) {
            ring_release(&reader, reader.head);
            if (ring_release_wakes(&reader) && !wake(run->wake_writer))
                return "the reader cannot wake the writer";
            if (time_to_sleep(run->reader_waits, looks) && ring_sleep(&reader)) {
                if (!sleep_until_woken(run, run->wake_reader))
                    return "the reader was not woken";
                ring_awake(&reader);
            }
        }
        if (result != RING_OK)
            return "the reader found the ring broken";
        for (uint64_t i = 0; i < size; i += 8) {
            uint64_t number;
            ring_copy(&number, at + i, 8);
            if (number != frame * 0x9e3779b97f4a7c15ULL + i)
                return "the reader found wrong bytes";
        }
        ring_skip(&reader, size);
        if (frame % 3 == 0)
            ring_release(&reader, reader.head);
        /* Whoever released goes to look for a sleeper, at the latest before it sleeps itself. */
        if (frame % 7 == 0 && ring_release_wakes(&reader) && !wake(run->wake_writer))
            return "the reader cannot wake the writer";
    }
    ring_release(&reader, reader.head);
    if (ring_release_wakes(&reader) && !wake(run->wake_writer))
        return "the reader cannot wake the writer";
    return NULL;
}

static void *write_in_thread(void *argument)
{
    struct run *run = argument;

    run->failure = write_frames(run);
    return NULL;
}

static int write_in_process(void *argument)
{
    return write_frames(argument) == NULL ? 0 : 1;
}

static void make_run(struct run *run, struct channel *channel, uint64_t frames, enum waiting writer,
                     enum waiting reader)
{
    struct mr_error error;

    assert_int_equal(channel_create(channel, 1, 1, channel_head_bytes(), -1, &error), 0);
    *run = (struct run){.data = channel->request_data,
                        .capacity = channel->ring_bytes,
                        .cursors = &channel->page->request,
                        .frames = frames,
                        .writer_waits = writer,
                        .reader_waits = reader,
                        .wake_writer = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                        .wake_reader = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    assert_true(run->wake_writer >= 0 && run->wake_reader >= 0);
}

static void end_run(struct run *run, struct channel *channel)
{
    close(run->wake_writer);
    close(run->wake_reader);
    channel_unmap(channel);
}

/* Returns how often the two ends slept. */
static uint64_t run_threads(uint64_t frames, enum waiting writer, enum waiting reader)
{
    struct channel channel;
    struct run writing;
    pthread_t thread;

    make_run(&writing, &channel, frames, writer, reader);
    struct run reading = writing;
    assert_int_equal(pthread_create(&thread, NULL, write_in_thread, &writing), 0);
    const char *failure = read_frames(&reading);
    /* The writer ends by itself: done, or by not being woken. */
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (failure != NULL || writing.failure != NULL)
        fail_msg("%s, %s", failure != NULL ? failure : "-", writing.failure != NULL ? writing.failure : "-");
    end_run(&writing, &channel);
    return reading.slept + writing.slept;
}

static void threads_that_spin(void **state)
{
    (void)state;
    assert_int_equal(run_threads(200000, SPIN, SPIN), 0);
}

/* Again until they have slept so often: an end that is always behind the other finds no reason to. */
static void run_until_slept(enum waiting writer, enum waiting reader, uint64_t often)
{
    uint64_t slept = 0;

    assert_true(wait_for((slept += run_threads(50000, writer, reader)) > often));
}

static void threads_that_sleep(void **state)
{
    (void)state;
    run_until_slept(SLEEP_AT_ONCE, SLEEP_AT_ONCE, 100);
    run_until_slept(SPIN, SLEEP_AT_ONCE, 10);
    run_until_slept(SLEEP_AT_ONCE, SPIN, 10);
    run_threads(100000, SPIN_THEN_SLEEP, SPIN_THEN_SLEEP);
}

static void two_processes(void **state)
{
    struct channel channel;
    struct channel mapped;
    struct run run;
    struct mr_error error;

    (void)state;
    make_run(&run, &channel, 100000, SPIN_THEN_SLEEP, SLEEP_AT_ONCE);
    /* The child writes through the mappings that it inherits; we read through others of the same memory. */
    pid_t child = fork_run(write_in_process, &run);
    assert_int_equal(
        channel_map(&mapped, dup(channel.memory_fd), dup(channel.node_wake_fd), -1, 1, 1, channel.ring_bytes, &error),
        0);
    struct run reading = run;
    reading.data = mapped.request_data;
    reading.cursors = &mapped.page->request;
    const char *failure = read_frames(&reading);
    int status = fork_wait(child, WAIT_MS);
    if (failure != NULL)
        fail_msg("%s (the writing process: %d)", failure, status);
    assert_int_equal(status, 0);
    channel_unmap(&mapped);
    end_run(&run, &channel);
}

/* Going to sleep at the very moment that the other end looks for a sleeper, again and again: never may one end sleep
 * and the other not know. It is here that a missing fence shows (on x86-64 a few times in ten thousand rounds). */
#define RACES 150000

struct race {
    struct ring_writer writer;
    struct ring_reader reader;
    _Atomic unsigned ready[2]; /* the round that an end is ready for */
    bool slept;                /* by the one that goes to sleep */
    bool saw;                  /* by the one that looks: a sleeper */
    bool writer_sleeps;        /* else the reader does */
    cpu_set_t allowed;         /* to this process */
};

/* Puts the calling thread on the first or the second processor that it may use, if there are two. */
static void run_on(const cpu_set_t *allowed, unsigned side)
{
    cpu_set_t one;
    unsigned seen = 0;

    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, allowed) || seen++ != side)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof(one), &one);
    }
}

/* Lets both ends go at once. `side` is 0 or 1. */
static void meet(struct race *race, unsigned side, unsigned round)
{
    atomic_store(&race->ready[side], round);
    for (unsigned looks = 0; atomic_load(&race->ready[1 - side]) < round; looks++)
        if (looks % 1024 == 1023)
            sched_yield();
    /* A little earlier or later than the other, differently each time. */
    for (volatile unsigned i = 0; i < (side == 0 ? round % 61 : round % 59); i++)
        ;
}

static void *race_writer(void *argument)
{
    struct race *race = argument;

    run_on(&race->allowed, 0);
    for (unsigned round = 1; round <= RACES; round++) {
        uint8_t *at;
        if (!race->writer_sleeps) {
            if (ring_reserve(&race->writer, 8, &at) == RING_OK)
                ring_advance(&race->writer, 8);
            meet(race, 0, 2 * round - 1);
            race->saw = ring_publish(&race->writer);
        } else {
            meet(race, 0, 2 * round - 1);
            race->slept = ring_writer_sleep(&race->writer, 8);
        }
        meet(race, 0, 2 * round); /* the reader has looked at the outcome after the next meeting */
        if (race->writer_sleeps) {
            ring_writer_awake(&race->writer);
            if (ring_reserve(&race->writer, 8, &at) == RING_OK)
                ring_advance(&race->writer, 8);
            ring_publish(&race->writer);
        }
    }
    return NULL;
}

/* Rounds in which one slept and the other did not see it. */
static unsigned race_reader(struct race *race, unsigned *slept)
{
    unsigned lost = 0;

    for (unsigned round = 1; round <= RACES; round++) {
        const uint8_t *at;
        if (!race->writer_sleeps) {
            meet(race, 1, 2 * round - 1);
            bool sleeping = ring_sleep(&race->reader);
            meet(race, 1, 2 * round);
            lost += sleeping && !race->saw;
            *slept += sleeping;
            ring_awake(&race->reader);
            if (ring_peek(&race->reader, 8, &at) == RING_OK)
                ring_skip(&race->reader, 8);
            ring_release(&race->reader, race->reader.head);
        } else {
            for (unsigned looks = 1; ring_peek(&race->reader, 8, &at) != RING_OK; looks++)
                if (looks % 1024 == 0)
                    sched_yield();
            ring_skip(&race->reader, 8);
            meet(race, 1, 2 * round - 1);
            ring_release(&race->reader, race->reader.head);
            bool saw = ring_release_wakes(&race->reader);
            meet(race, 1, 2 * round);
            lost += race->slept && !saw;
            *slept += race->slept;
        }
    }
    return lost;
}

static void race(bool writer_sleeps)
{
    struct channel channel;
    struct race race = {.writer_sleeps = writer_sleeps};
    struct mr_error error;
    pthread_t thread;
    unsigned slept = 0;
    uint8_t *at;

    assert_int_equal(channel_create(&channel, 1, 1, channel_head_bytes(), -1, &error), 0);
    struct ring_cursors *cursors = &channel.page->request;
    ring_writer_attach(&race.writer, channel.request_data, channel.ring_bytes, cursors, 0, 0);
    ring_reader_attach(&race.reader, channel.request_data, channel.ring_bytes, cursors, 0, 0);
    if (writer_sleeps) { /* the ring stays full */
        assert_int_equal(ring_reserve(&race.writer, channel.ring_bytes, &at), RING_OK);
        ring_advance(&race.writer, channel.ring_bytes);
        ring_publish(&race.writer);
    }
    assert_int_equal(sched_getaffinity(0, sizeof(race.allowed), &race.allowed), 0);
    assert_int_equal(pthread_create(&thread, NULL, race_writer, &race), 0);
    run_on(&race.allowed, 1);
    unsigned lost = race_reader(&race, &slept);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(sched_setaffinity(0, sizeof(race.allowed), &race.allowed), 0);
    assert_int_equal(lost, 0);
    if (CPU_COUNT(&race.allowed) > 1)
        assert_in_range(slept, 1, RACES - 1); /* both outcomes were there */
    channel_unmap(&channel);
}

static void no_wake_up_of_the_reader_is_lost(void **state)
{
    (void)state;
    race(false);
}

static void no_wake_up_of_the_writer_is_lost(void **state)
{
    (void)state;
    race(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_spin),
        cmocka_unit_test(threads_that_sleep),
        cmocka_unit_test(two_processes),
        cmocka_unit_test(no_wake_up_of_the_reader_is_lost),
        cmocka_unit_test(no_wake_up_of_the_writer_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
