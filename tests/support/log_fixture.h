/* SPDX-License-Identifier: Apache-2.0 */
/* A log on a simulated disk (or in memory) together with a model of what it promises. Every entry that goes in is known
 * by a number of its own; whatever comes out, live or by replay, is held against the model, which fails the test:
 *
 *   - what was handed out as durable is there after every crash, at its index, in order, byte for byte;
 *   - behind it come only entries that were appended and not yet answered, in the order in which they were;
 *   - what was handed out as failed never comes back; nothing is invented. */
#ifndef TESTS_SUPPORT_LOG_FIXTURE_H
#define TESTS_SUPPORT_LOG_FIXTURE_H

#include "engine/log/log.h"
#include "tests/support/fake_io.h"

#define LOG_FIXTURE_PATH "/data/1"

struct log_fixture_entry {
    uint64_t id, time;
    uint64_t known; /* monotonic time at which it was handed out */
    uint32_t size;
};

struct log_fixture_list {
    struct log_fixture_entry *entries;
    unsigned count, capacity;
};

struct log_fixture {
    struct fake_machine *machine; /* NULL: `io` is a real one, the test's */
    struct io *io;
    struct log_config config; /* may be changed before log_fixture_open() */
    struct log *log;          /* NULL: not open */
    struct log_recovery report;
    struct mr_error error;
    struct log_fixture_list durable; /* the entry of index n stands at n - 1 */
    struct log_fixture_list pending; /* appended, nothing heard of yet */
    unsigned replayed;               /* entries of the last replay */
    unsigned failed;                 /* handed out as failed so far */
    unsigned may_lose;               /* async: that many of the durable ones may be missing after a power cut */
    uint64_t after;                  /* given to log_open(): where a snapshot ends */
    uint64_t segment;                /* the same: where reading begins */
    uint64_t older_segment;          /* the same of the snapshot before */
    uint64_t next_id, time;
    uint64_t due;       /* what log_tick() said last */
    char notices[8192]; /* all so far, a line each */
    unsigned progress;  /* calls */
    int memfds[64];     /* segments of a log in memory, which outlive it */
    unsigned memfd_count;
    bool no_memfds; /* memory_segment() fails */
};

/* Small sizes: batches of 8 KiB, segments of 256 KiB, bodies up to 16 KiB. */
void log_fixture_init(struct log_fixture *fixture, uint64_t seed, enum durability durability);
/* The same without a machine, on a real directory. */
void log_fixture_init_real(struct log_fixture *fixture, struct io *io, const char *path, enum durability durability);
void log_fixture_free(struct log_fixture *fixture);

/* log_open(), its result; the replay is checked. */
int log_fixture_open(struct log_fixture *fixture);
/* False: there is no room just now. */
bool log_fixture_append(struct log_fixture *fixture, uint32_t size);
/* Takes completions. How many there were. */
unsigned log_fixture_complete(struct log_fixture *fixture);
/* Takes what log_next() has. How many there were. */
unsigned log_fixture_take(struct log_fixture *fixture);
/* One turn of a worker: complete, take, submit, tick. */
void log_fixture_turn(struct log_fixture *fixture);
/* Turns, sleeping as a worker would, until nothing is pending; fails the test if that does not come. */
void log_fixture_settle(struct log_fixture *fixture);
/* Turns for this long (of the machine's time). */
void log_fixture_idle(struct log_fixture *fixture, uint64_t nanoseconds);
/* The same until a spare segment has been prepared. */
void log_fixture_prepared(struct log_fixture *fixture);

/* As if a snapshot had been taken of what was handed out, and the one before the last one been removed: the next start
 * begins behind it, and what is not needed any more is forgotten. -1: it could not be flushed, and nothing happened. */
int log_fixture_snapshot(struct log_fixture *fixture);

/* The process dies; its writes in flight land later or never. A new process is there afterwards. */
void log_fixture_crash(struct log_fixture *fixture);
/* The machine loses power. The same. */
void log_fixture_power_cut(struct log_fixture *fixture);
int log_fixture_close(struct log_fixture *fixture);

#endif
