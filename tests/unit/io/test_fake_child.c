/* SPDX-License-Identifier: Apache-2.0 */
/* Children in the simulated machine: what their job sees, when what it did happens, and what a fault, a death or a
 * power cut leaves of it. The job stands for a snapshot: a file is written under one name, synced, renamed, its
 * directory synced, an old one removed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/fake_io.h"

#define DIR "/data/1"
#define LOG "log"

enum { PAGE = 4096, SIZE = 2 * PAGE, SEEDS = 300, TOKEN = 77, BUSY_TOKEN = 5 };

struct world {
    struct fake_machine *machine;
    struct io *io;
    int directory;
    int log;
    uint8_t fill;        /* what the job writes */
    bool sync_file;      /* before the new name */
    bool sync_directory; /* after it */
    int given;           /* the job's result */
};

/* A log that is open and locked, and an older snapshot; calls are made one by one by fake_io_child_step(). */
static struct world world(uint64_t seed)
{
    static uint8_t old[SIZE];
    struct world w = {.machine = fake_machine_create(seed), .fill = 's', .sync_file = true, .sync_directory = true};
    fake_make_directory(w.machine, DIR);
    fake_file_write(w.machine, DIR, LOG, old, SIZE, 0);
    fake_file_write(w.machine, DIR, "old", old, PAGE, 0);
    fake_machine_config(w.machine)->order = FAKE_MANUAL;
    w.io = fake_io_create(w.machine);
    w.directory = w.io->ops->open_directory(w.io, DIR);
    w.log = w.io->ops->open(w.io, w.directory, LOG, IO_WRITE);
    assert_true(w.directory >= 0 && w.log >= 0);
    assert_int_equal(w.io->ops->lock(w.io, w.log), 0);
    memset(fake_machine_counts(w.machine), 0, sizeof(struct fake_counts));
    return w;
}

static void count_name(void *context, const char *name)
{
    *(unsigned *)context += strcmp(name, "whole") == 0 ? 100 : 1;
}

/* Gives the line at which something is not as it should be, else what it is to give. */
static int snapshot(void *context, struct io *io)
{
    const struct world *w = context;
    const struct io_ops *ops = io->ops;
    static _Alignas(PAGE) uint8_t page[PAGE], again[PAGE];
    unsigned names = 0;
    memset(page, w->fill, PAGE);
    if (ops->remove(io, w->directory, "new") != -ENOENT) /* left by another one */
        return __LINE__;
    int file = ops->open(io, w->directory, "new", IO_WRITE | IO_CREATE | IO_DIRECT);
    if (file < 0 || !ops->is_direct(io, file) || ops->alignment(io, file) != PAGE || ops->monotonic(io) == 0)
        return __LINE__;
    for (unsigned n = 0; n < SIZE / PAGE; n++)
        if (ops->write_now(io, file, page, PAGE, n * PAGE) != PAGE)
            return __LINE__;
    memset(page, 'x', PAGE); /* the page is its own again */
    if (ops->read(io, file, again, PAGE, PAGE) != PAGE || again[7] != w->fill || ops->size(io, file) != SIZE)
        return __LINE__;
    if (w->sync_file && ops->sync_now(io, file) != 0)
        return __LINE__;
    ops->close(io, file);
    if (ops->rename(io, w->directory, "new", "whole") != 0 ||
        (w->sync_directory && ops->sync_now(io, w->directory) != 0))
        return __LINE__;
    if (ops->list(io, w->directory, count_name, &names) != 0 || names != 102)
        return __LINE__;
    if (ops->remove(io, w->directory, "old") != 0)
        return __LINE__;
    return w->given;
}

/* The calls that snapshot() makes, and a test can be at. */
static const enum fake_call calls_of_snapshot[] = {FAKE_OPEN, FAKE_WRITE_NOW, FAKE_WRITE_NOW, FAKE_READ,
                                                   FAKE_SIZE, FAKE_SYNC_NOW,  FAKE_RENAME,    FAKE_SYNC_NOW,
                                                   FAKE_LIST, FAKE_REMOVE};
enum { CALLS = sizeof calls_of_snapshot / sizeof *calls_of_snapshot, AT_RENAME = 6 };

static void start(struct world *w)
{
    assert_int_equal(w->io->ops->child(w->io, snapshot, w, TOKEN), 0);
    assert_true(fake_io_child_runs(w->io));
}

static void steps(const struct world *w, unsigned count)
{
    while (count-- > 0)
        assert_true(fake_io_child_step(w->io));
}

static int32_t complete(const struct world *w)
{
    struct io_completion completion;
    while (fake_io_child_step(w->io))
        ;
    assert_int_equal(w->io->ops->completions(w->io, &completion, 1), 1);
    assert_int_equal(completion.token, TOKEN);
    return completion.result;
}

static void expect_no_completion(const struct world *w)
{
    struct io_completion completion;
    assert_false(fake_io_child_runs(w->io));
    assert_false(fake_io_child_step(w->io));
    assert_int_equal(w->io->ops->completions(w->io, &completion, 1), 0);
}

static bool there(const struct world *w, const char *name)
{
    return fake_file_size(w->machine, DIR, name) >= 0;
}

/* Every byte of it is as the job wrote it. */
static bool sound(const struct world *w, const char *name)
{
    uint8_t bytes[SIZE];
    if (fake_file_size(w->machine, DIR, name) != SIZE)
        return false;
    assert_int_equal(fake_file_read(w->machine, DIR, name, bytes, SIZE, 0), SIZE);
    for (unsigned n = 0; n < SIZE; n++)
        if (bytes[n] != w->fill)
            return false;
    return true;
}

/* ---- when things happen ---- */

static void it_happens_call_by_call(void **state)
{
    (void)state;
    struct world w = world(1);
    w.given = 42;
    start(&w);
    w.fill = 't'; /* the job has run: its memory is as it was */
    assert_false(there(&w, "new"));
    steps(&w, 1);
    assert_int_equal(fake_file_size(w.machine, DIR, "new"), 0);
    steps(&w, 1);
    assert_int_equal(fake_file_size(w.machine, DIR, "new"), PAGE);
    steps(&w, AT_RENAME - 2);
    w.fill = 's';
    assert_true(sound(&w, "new") && !there(&w, "whole"));
    steps(&w, 1);
    assert_true(sound(&w, "whole") && !there(&w, "new") && there(&w, "old"));
    steps(&w, CALLS - AT_RENAME - 1);
    assert_false(there(&w, "old"));
    assert_true(fake_io_child_runs(w.io));
    assert_int_equal(complete(&w), 42);
    expect_no_completion(&w);
    const struct fake_counts *counts = fake_machine_counts(w.machine);
    assert_int_equal(counts->calls[FAKE_CHILD], 1);
    assert_int_equal(counts->calls[FAKE_WRITE_NOW], 2);
    assert_int_equal(counts->calls[FAKE_SYNC_NOW], 2);
    assert_int_equal(counts->calls[FAKE_READ], 1);
    assert_int_equal(counts->bytes_written, SIZE);
    fake_machine_power_cut(w.machine); /* the removal was not synced: may be there or not */
    assert_true(sound(&w, "whole"));
    fake_machine_destroy(w.machine);
}

/* Its process does other things meanwhile, and they mix. */
static void it_takes_the_machines_time(void **state)
{
    (void)state;
    for (unsigned order = FAKE_AT_ONCE; order <= FAKE_ANY_ORDER; order++) {
        struct world w = world(order);
        struct fake_config *config = fake_machine_config(w.machine);
        struct io_completion completions[4];
        unsigned writes = 0, looks = 0;
        static const uint8_t page[PAGE];
        config->order = order;
        config->delay_min = 1000;
        config->delay_max = 2000;
        uint64_t begin = w.io->ops->monotonic(w.io);
        start(&w);
        w.io->ops->write(w.io, w.log, page, PAGE, 0, true, BUSY_TOKEN);
        for (bool ended = false; !ended; looks++) {
            unsigned count = w.io->ops->completions(w.io, completions, 4);
            for (unsigned n = 0; n < count; n++) {
                writes += completions[n].token == BUSY_TOKEN;
                ended |= completions[n].token == TOKEN;
            }
            assert_true(looks < 1000);
            if (!ended && count > 0)
                w.io->ops->write(w.io, w.log, page, PAGE, 0, true, BUSY_TOKEN);
            if (!ended)
                w.io->ops->sleep(w.io, UINT64_MAX);
        }
        assert_true(sound(&w, "whole") && !there(&w, "old"));
        if (order == FAKE_AT_ONCE) {
            assert_int_equal(looks, 1);
        } else {
            assert_true(writes >= CALLS / 2);
            assert_true(w.io->ops->monotonic(w.io) >= begin + (CALLS + 1) * 1000);
        }
        fake_machine_destroy(w.machine);
    }
}

static void sleeping_lets_it_go_on(void **state)
{
    (void)state;
    struct world w = world(2);
    struct io_completion completion;
    start(&w);
    for (unsigned n = 0; n < CALLS + 1; n++) {
        assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 0);
        w.io->ops->sleep(w.io, UINT64_MAX);
    }
    assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 1);
    assert_int_equal(completion.result, 0);
    fake_machine_destroy(w.machine);
}

static int only_compute(void *context, struct io *io)
{
    (void)io;
    return *(int *)context;
}

static void a_job_without_calls(void **state)
{
    (void)state;
    struct world w = world(3);
    int result = 9;
    assert_int_equal(w.io->ops->child(w.io, only_compute, &result, TOKEN), 0);
    assert_true(fake_io_child_runs(w.io));
    assert_int_equal(complete(&w), 9);
    result = -9;
    assert_int_equal(w.io->ops->child(w.io, only_compute, &result, TOKEN), 0);
    assert_int_equal(complete(&w), -ECHILD);
    fake_machine_destroy(w.machine);
}

static int sync_log(void *context, struct io *io)
{
    const struct world *w = context;
    return -io->ops->sync_now(io, w->log);
}

/* What it has of its process's descriptors stays open to it. */
static void it_has_descriptors_of_its_own(void **state)
{
    (void)state;
    struct world w = world(4);
    static uint8_t page[PAGE] = {1};
    w.io->ops->write(w.io, w.log, page, PAGE, 0, false, 1);
    fake_io_finish_all(w.io);
    assert_int_equal(w.io->ops->completions(w.io, &(struct io_completion){0}, 1), 1);
    assert_int_equal(w.io->ops->child(w.io, sync_log, &w, TOKEN), 0);
    w.io->ops->close(w.io, w.log);
    assert_int_equal(complete(&w), 0);
    fake_machine_config(w.machine)->power_cut = FAKE_LOSE;
    fake_machine_power_cut(w.machine);
    uint8_t byte = 0;
    assert_int_equal(fake_file_read(w.machine, DIR, LOG, &byte, 1, 0), 1);
    assert_int_equal(byte, 1);
    fake_machine_destroy(w.machine);
}

/* ---- faults ---- */

static void no_fork_no_child(void **state)
{
    (void)state;
    struct world w = world(5);
    fake_machine_fail(w.machine, FAKE_CHILD, NULL, 1, 1, EAGAIN);
    assert_int_equal(w.io->ops->child(w.io, snapshot, &w, TOKEN), -EAGAIN);
    expect_no_completion(&w);
    start(&w);
    assert_int_equal(complete(&w), 0);
    fake_machine_destroy(w.machine);
}

/* At each of its calls: what it has made goes, until it is there for good. */
static void a_failed_call_ends_it_tidily(void **state)
{
    (void)state;
    for (unsigned failing = 0; failing < CALLS; failing++) {
        struct world w = world(failing);
        start(&w);
        steps(&w, failing);
        fake_machine_fail(w.machine, calls_of_snapshot[failing], NULL, 1, 1, EIO);
        assert_int_equal(complete(&w), -ECHILD);
        assert_int_equal(fake_machine_counts(w.machine)->faults, 1);
        /* Of what it has made, and once itself. */
        assert_int_equal(fake_machine_counts(w.machine)->calls[FAKE_REMOVE],
                         (failing > 0 && failing <= AT_RENAME + 1) || failing == CALLS - 1);
        assert_false(there(&w, "new"));
        assert_true(there(&w, "old"));
        assert_int_equal(there(&w, "whole"), failing > AT_RENAME + 1);
        start(&w); /* again; that the name is taken is no hindrance */
        assert_int_equal(complete(&w), 0);
        assert_true(sound(&w, "whole"));
        fake_machine_destroy(w.machine);
    }
}

static void what_cannot_be_removed_stays(void **state)
{
    (void)state;
    struct world w = world(6);
    fake_machine_fail(w.machine, FAKE_SYNC_NOW, NULL, 1, 1, EIO);
    fake_machine_fail(w.machine, FAKE_REMOVE, NULL, 1, 1, EIO);
    start(&w);
    assert_int_equal(complete(&w), -ECHILD);
    assert_true(there(&w, "new"));
    fake_machine_destroy(w.machine);
}

static void a_full_disk_ends_it(void **state)
{
    (void)state;
    struct world w = world(7);
    fake_machine_config(w.machine)->space = SIZE + PAGE + PAGE; /* one too few */
    start(&w);
    assert_int_equal(complete(&w), -ECHILD);
    assert_false(there(&w, "new"));
    assert_int_equal(fake_machine_counts(w.machine)->faults, 0);
    fake_machine_config(w.machine)->space += PAGE;
    start(&w);
    assert_int_equal(complete(&w), 0);
    assert_true(sound(&w, "whole"));
    fake_machine_destroy(w.machine);
}

/* Somebody makes the name after the job has found that it is free. */
static void what_the_job_saw_may_have_changed(void **state)
{
    (void)state;
    struct world w = world(8);
    start(&w);
    fake_file_write(w.machine, DIR, "new", "other", 5, 0);
    assert_int_equal(complete(&w), -ECHILD);
    assert_int_equal(fake_file_size(w.machine, DIR, "new"), 5); /* not its own */
    fake_machine_destroy(w.machine);
}

/* ---- ends ---- */

static void killed_it_does_not_complete(void **state)
{
    (void)state;
    bool torn = false, written = false, nothing = false;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct world w = world(seed);
        start(&w);
        steps(&w, 2);
        w.io->ops->child_kill(w.io);
        expect_no_completion(&w);
        assert_false(there(&w, "whole"));
        int64_t size = fake_file_size(w.machine, DIR, "new");
        written |= size == SIZE;
        torn |= size > PAGE && size < SIZE;
        nothing |= size == PAGE;
        w.io->ops->child_kill(w.io); /* there is none */
        assert_int_equal(w.io->ops->remove(w.io, w.directory, "new"), 0);
        start(&w);
        assert_int_equal(complete(&w), 0);
        fake_machine_destroy(w.machine);
    }
    assert_true(torn && written && nothing);
}

/* Its end is there, but was not taken; others are. */
static void killed_after_its_end_it_does_not_complete(void **state)
{
    (void)state;
    struct world w = world(9);
    struct io_completion completions[3];
    int result = 1;
    w.io->ops->sync(w.io, w.log, 1);
    fake_io_finish_all(w.io);
    assert_int_equal(w.io->ops->child(w.io, only_compute, &result, TOKEN), 0);
    assert_true(fake_io_child_step(w.io));
    w.io->ops->sync(w.io, w.log, 2);
    fake_io_finish_all(w.io);
    w.io->ops->child_kill(w.io);
    assert_int_equal(w.io->ops->completions(w.io, completions, 3), 2);
    assert_int_equal(completions[0].token, 1);
    assert_int_equal(completions[1].token, 2);
    fake_machine_destroy(w.machine);
}

static void killed_from_outside_it_leaves_all_as_it_is(void **state)
{
    (void)state;
    struct world w = world(10);
    assert_false(fake_io_child_die(w.io));
    fake_machine_config(w.machine)->crash = FAKE_LOSE;
    start(&w);
    steps(&w, 3);
    assert_true(fake_io_child_die(w.io));
    assert_int_equal(complete(&w), -ECHILD);
    assert_true(sound(&w, "new"));
    fake_machine_destroy(w.machine);
}

/* Before each call: nothing after that one happens; it itself does or does not, perhaps when a successor is there. */
static void it_dies_with_its_process(void **state)
{
    (void)state;
    unsigned never = 0, at_once = 0, later = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct world w = world(seed);
        start(&w);
        steps(&w, AT_RENAME);
        fake_io_crash_process(w.io);
        assert_false(fake_io_child_runs(w.io));
        assert_false(there(&w, "whole")); /* not yet */
        struct io *successor = fake_io_create(w.machine);
        int directory = successor->ops->open_directory(successor, DIR);
        bool soon = there(&w, "whole");
        int log = successor->ops->open(successor, directory, LOG, IO_WRITE);
        assert_int_equal(successor->ops->lock(successor, log), 0); /* behind it nothing of the old ones happens */
        bool happened = there(&w, "whole");
        assert_int_equal(fake_machine_land(w.machine, 100), 0);
        assert_int_not_equal(there(&w, "new"), happened);
        assert_true(there(&w, "old"));
        at_once += soon;
        later += happened && !soon;
        never += !happened;
        fake_machine_destroy(w.machine);
    }
    assert_true(never > 0 && at_once > 0 && later > 0);
}

/* Without its hurry: the lock alone makes the call happen. */
static void its_locks_hold_until_its_last_call_is_done(void **state)
{
    (void)state;
    struct world w = world(11);
    fake_machine_config(w.machine)->crash = FAKE_KEEP;
    start(&w);
    steps(&w, AT_RENAME);
    fake_io_crash_process(w.io);
    struct io *successor = fake_io_create(w.machine);
    int directory = successor->ops->open_directory(successor, DIR);
    int log = successor->ops->open(successor, directory, LOG, IO_WRITE);
    assert_false(there(&w, "whole"));
    assert_int_equal(successor->ops->lock(successor, log), 0);
    assert_true(sound(&w, "whole"));
    fake_machine_destroy(w.machine);
}

/* At any moment: what has the name is whole, if the job has synced the file before and the directory after. The checker
 * sees it when one of them is missing. */
static void power_cuts(void **state)
{
    (void)state;
    for (unsigned missing = 0; missing < 3; missing++) {
        unsigned unsound = 0, lost = 0, kept = 0, steps_made = CALLS + 1 - (missing > 0);
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct world w = world(seed);
            w.sync_file = missing != 1;
            w.sync_directory = missing != 2;
            start(&w);
            unsigned cut = (unsigned)(seed % (steps_made + 1));
            steps(&w, cut);
            bool promised = cut == steps_made;
            fake_machine_power_cut(w.machine);
            kept += there(&w, "whole");
            unsound += there(&w, "whole") && !sound(&w, "whole");
            lost += promised && !there(&w, "whole");
            fake_machine_destroy(w.machine);
        }
        assert_true(kept > 0);
        assert_int_equal(unsound > 0, missing == 1);
        assert_int_equal(lost > 0, missing == 2);
    }
}

static jmp_buf escape;

struct heard {
    struct world *world;
    unsigned count;
    unsigned escape_at;
    enum fake_call calls[CALLS + 1];
};

static void hear(void *context, struct io *io, enum fake_call call, const char *name)
{
    struct heard *heard = context;
    if (!fake_io_child_calls(io))
        return;
    assert_ptr_equal(io, heard->world->io);
    assert_true(heard->count < CALLS);
    if (call == FAKE_OPEN || call == FAKE_RENAME || call == FAKE_WRITE_NOW)
        assert_string_equal(name, "new");
    heard->calls[heard->count++] = call;
    if (heard->count == heard->escape_at)
        longjmp(escape, 1);
}

/* A test can cut a snapshot at any of its calls. */
static void hooks_hear_of_its_calls(void **state)
{
    (void)state;
    static struct world w;
    static struct heard heard;
    static unsigned at;
    for (at = 0; at <= CALLS; at++) {
        w = world(at);
        heard = (struct heard){.world = &w, .escape_at = at};
        fake_machine_config(w.machine)->on_call = hear;
        fake_machine_config(w.machine)->context = &heard;
        fake_machine_config(w.machine)->crash = FAKE_LOSE;
        if (setjmp(escape) == 0) {
            start(&w);
            assert_int_equal(complete(&w), 0);
            assert_int_equal(at, 0);
            assert_int_equal(w.io->ops->size(w.io, w.log), SIZE); /* its own call */
            assert_int_equal(heard.count, CALLS);
            assert_memory_equal(heard.calls, calls_of_snapshot, sizeof calls_of_snapshot);
        } else {
            assert_int_equal(heard.count, at);
            fake_io_crash_process(w.io);
            assert_int_equal(there(&w, "new"), at > 1 && at <= AT_RENAME + 1);
            assert_int_equal(there(&w, "whole"), at > AT_RENAME + 1);
        }
        fake_machine_destroy(w.machine);
    }
}

/* A clone has what has happened so far, and no child. */
static void clones_have_no_child(void **state)
{
    (void)state;
    struct world w = world(12);
    start(&w);
    steps(&w, 2);
    struct fake_machine *clone = fake_machine_clone(w.machine);
    assert_int_equal(complete(&w), 0);
    assert_int_equal(fake_file_size(clone, DIR, "new"), PAGE);
    assert_int_equal(fake_file_size(clone, DIR, "whole"), -1);
    fake_machine_destroy(w.machine);
    assert_int_equal(fake_file_size(clone, DIR, "new"), PAGE);
    fake_machine_destroy(clone);
    w = world(13);
    start(&w);
    fake_machine_destroy(w.machine); /* with a child in it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_happens_call_by_call),
        cmocka_unit_test(it_takes_the_machines_time),
        cmocka_unit_test(sleeping_lets_it_go_on),
        cmocka_unit_test(a_job_without_calls),
        cmocka_unit_test(it_has_descriptors_of_its_own),
        cmocka_unit_test(no_fork_no_child),
        cmocka_unit_test(a_failed_call_ends_it_tidily),
        cmocka_unit_test(what_cannot_be_removed_stays),
        cmocka_unit_test(a_full_disk_ends_it),
        cmocka_unit_test(what_the_job_saw_may_have_changed),
        cmocka_unit_test(killed_it_does_not_complete),
        cmocka_unit_test(killed_after_its_end_it_does_not_complete),
        cmocka_unit_test(killed_from_outside_it_leaves_all_as_it_is),
        cmocka_unit_test(it_dies_with_its_process),
        cmocka_unit_test(its_locks_hold_until_its_last_call_is_done),
        cmocka_unit_test(power_cuts),
        cmocka_unit_test(hooks_hear_of_its_calls),
        cmocka_unit_test(clones_have_no_child),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
