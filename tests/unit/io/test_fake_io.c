/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated io keeps its own promises: what survives a crash and what may not, in which order things happen,
 * faults, and that the same seed gives the same world. Where chance decides, every outcome must come up within some
 * seeds. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/fake_io.h"

#define DIR "/data/1"
#define FILE "log"

enum { PAGE = 4096, SECTORS = PAGE / 512, SEEDS = 300 };

static uint8_t *page(uint8_t fill)
{
    static _Alignas(PAGE) uint8_t pages[256][PAGE];
    memset(pages[fill], fill, PAGE);
    return pages[fill];
}

struct world {
    struct fake_machine *machine;
    struct io *io;
    int directory;
    int file;
};

/* A file of two pages of 'o', durable; open in a process. */
static struct world world(uint64_t seed)
{
    struct world w = {.machine = fake_machine_create(seed)};
    fake_make_directory(w.machine, DIR);
    fake_file_write(w.machine, DIR, FILE, page('o'), PAGE, 0);
    fake_file_write(w.machine, DIR, FILE, page('o'), PAGE, PAGE);
    w.io = fake_io_create(w.machine);
    w.directory = w.io->ops->open_directory(w.io, DIR);
    assert_true(w.directory >= 0);
    w.file = w.io->ops->open(w.io, w.directory, FILE, IO_WRITE | IO_DIRECT);
    assert_true(w.file >= 0);
    return w;
}

static int32_t complete(struct io *io, uint64_t token)
{
    struct io_completion completion;
    for (unsigned n = 0; n < 1000; n++) {
        if (io->ops->completions(io, &completion, 1) == 1) {
            assert_int_equal(completion.token, token);
            return completion.result;
        }
        io->ops->sleep(io, UINT64_MAX);
    }
    fail_msg("no completion of %lu", token);
    return 0;
}

/* 'n' all new, 'o' all old, 't' torn; fails on anything else. */
static char outcome(const struct fake_machine *machine, uint8_t new, uint64_t offset)
{
    uint8_t bytes[PAGE];
    unsigned news = 0;
    assert_int_equal(fake_file_read(machine, DIR, FILE, bytes, PAGE, offset), PAGE);
    for (unsigned sector = 0; sector < SECTORS; sector++) {
        for (unsigned n = 1; n < 512; n++)
            assert_int_equal(bytes[sector * 512 + n], bytes[sector * 512]);
        assert_true(bytes[sector * 512] == new || bytes[sector * 512] == 'o');
        news += bytes[sector * 512] == new;
    }
    return news == SECTORS ? 'n' : news == 0 ? 'o' : 't';
}

static void completed_writes_are_read(void **state)
{
    (void)state;
    struct world w = world(1);
    w.io->ops->write(w.io, w.file, page('a'), PAGE, PAGE, false, 7);
    assert_int_equal(complete(w.io, 7), PAGE);
    assert_int_equal(w.io->ops->read(w.io, w.file, page('x'), PAGE, PAGE), PAGE);
    assert_int_equal(outcome(w.machine, 'a', 0), 'o');
    assert_int_equal(outcome(w.machine, 'a', PAGE), 'n');
    assert_int_equal(w.io->ops->size(w.io, w.file), 2 * PAGE);
    assert_int_equal(w.io->ops->read(w.io, w.file, page('x'), PAGE, 2 * PAGE), 0);
    assert_true(w.io->ops->is_direct(w.io, w.file));
    assert_int_equal(w.io->ops->read(w.io, w.file, page('x'), 512, 0), -EINVAL);
    fake_machine_destroy(w.machine);
}

/* Every outcome of an unflushed write comes up; none but 'n' of a durable or synced one. */
static void power_cut_takes_only_what_was_not_flushed(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 5; how++) {
        unsigned seen[256] = {0};
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct world w = world(seed);
            w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, how == 1, 1);
            assert_int_equal(complete(w.io, 1), PAGE);
            if (how == 2) {
                w.io->ops->sync(w.io, w.file, 2);
                assert_int_equal(complete(w.io, 2), 0);
            } else if (how == 3) {
                assert_int_equal(w.io->ops->sync_now(w.io, w.file), 0);
            } else if (how == 4) {
                fake_machine_config(w.machine)->power_cut = FAKE_LOSE;
            }
            fake_machine_power_cut(w.machine);
            seen[(int)outcome(w.machine, 'a', 0)]++;
            fake_machine_destroy(w.machine);
        }
        if (how == 0)
            assert_true(seen['n'] > 0 && seen['o'] > 0 && seen['t'] > 0);
        else
            assert_int_equal(seen[how == 4 ? 'o' : 'n'], SEEDS);
    }
}

static void sync_covers_only_what_was_complete_when_it_began(void **state)
{
    (void)state;
    struct world w = world(3);
    fake_machine_config(w.machine)->order = FAKE_MANUAL;
    w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, false, 1);
    assert_true(fake_io_finish(w.io, 0));
    w.io->ops->sync(w.io, w.file, 2);
    w.io->ops->write(w.io, w.file, page('b'), PAGE, PAGE, false, 3);
    assert_true(fake_io_finish(w.io, 1));
    assert_true(fake_io_finish(w.io, 0));
    fake_machine_config(w.machine)->power_cut = FAKE_LOSE;
    fake_machine_power_cut(w.machine);
    assert_int_equal(outcome(w.machine, 'a', 0), 'n');
    assert_int_equal(outcome(w.machine, 'b', PAGE), 'o');
    fake_machine_destroy(w.machine);
}

static void write_in_flight_at_power_cut_may_be_torn(void **state)
{
    (void)state;
    unsigned seen[256] = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct world w = world(seed);
        struct io_completion completion;
        fake_machine_config(w.machine)->order = FAKE_MANUAL;
        w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, true, 1);
        assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 0);
        w.io->ops->write(w.io, w.file, page('b'), PAGE, PAGE, true, 2); /* not handed over */
        fake_machine_power_cut(w.machine);
        seen[(int)outcome(w.machine, 'a', 0)]++;
        assert_int_equal(outcome(w.machine, 'b', PAGE), 'o');
        assert_int_equal(w.io->ops->size(w.io, w.file), -EIO); /* dead */
        fake_machine_destroy(w.machine);
    }
    assert_true(seen['n'] > 0 && seen['o'] > 0 && seen['t'] > 0);
}

/* A dead process's write lands late; whoever takes the lock sees it done or never done. */
static void writes_land_after_a_crash_until_the_lock_falls(void **state)
{
    (void)state;
    unsigned at_lock[256] = {0}, late = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct world w = world(seed);
        struct io_completion completion;
        fake_machine_config(w.machine)->order = FAKE_MANUAL;
        assert_int_equal(w.io->ops->lock(w.io, w.file), 0);
        w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, true, 1);
        assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 0);
        fake_io_crash_process(w.io);
        char before = outcome(w.machine, 'a', 0);
        assert_int_equal(before, 'o');
        struct io *next = fake_io_create(w.machine);
        int directory = next->ops->open_directory(next, DIR);
        int file = next->ops->open(next, directory, FILE, IO_WRITE);
        before = outcome(w.machine, 'a', 0);
        assert_int_equal(next->ops->lock(next, file), 0);
        char after = outcome(w.machine, 'a', 0);
        at_lock[(int)after]++;
        late += before != after;
        assert_int_equal(fake_machine_land(w.machine, 100), 0);
        fake_machine_destroy(w.machine);
    }
    assert_true(at_lock['n'] > 0 && at_lock['o'] > 0 && at_lock['t'] > 0 && late > 0);
}

/* The lock holds back only writes through the descriptor that held it. */
static void without_its_lock_a_write_lands_at_any_time(void **state)
{
    (void)state;
    struct world w = world(5);
    fake_machine_config(w.machine)->order = FAKE_MANUAL;
    fake_machine_config(w.machine)->crash = FAKE_KEEP;
    int other = w.io->ops->open(w.io, w.directory, FILE, IO_READ);
    assert_int_equal(w.io->ops->lock(w.io, other), 0);
    assert_int_equal(w.io->ops->lock(w.io, w.file), -EWOULDBLOCK);
    w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, true, 1);
    w.io->ops->sleep(w.io, 0); /* hands over, and one completes */
    w.io->ops->write(w.io, w.file, page('b'), PAGE, 0, true, 2);
    struct io_completion completion;
    assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 1);
    fake_io_crash_process(w.io);
    struct io *next = fake_io_create(w.machine);
    int directory = next->ops->open_directory(next, DIR);
    int file = next->ops->open(next, directory, FILE, IO_WRITE);
    assert_int_equal(next->ops->lock(next, file), 0);
    uint8_t byte;
    assert_int_equal(fake_file_read(w.machine, DIR, FILE, &byte, 1, 0), 1);
    assert_int_equal(byte, 'a');
    assert_int_equal(fake_machine_land(w.machine, 100), 1);
    assert_int_equal(fake_file_read(w.machine, DIR, FILE, &byte, 1, 0), 1);
    assert_int_equal(byte, 'b');
    fake_machine_destroy(w.machine);
}

static void names_need_the_directory_synced(void **state)
{
    (void)state;
    unsigned made = 0, renamed = 0, removed = 0, both = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct world w = world(seed);
        fake_file_write(w.machine, DIR, "old", "x", 1, 0);
        fake_file_write(w.machine, DIR, "gone", "x", 1, 0);
        int file = w.io->ops->open(w.io, w.directory, "new", IO_WRITE | IO_CREATE);
        assert_true(file >= 0);
        assert_int_equal(w.io->ops->open(w.io, w.directory, "new", IO_WRITE | IO_CREATE), -EEXIST);
        w.io->ops->write(w.io, file, "content", 7, 0, true, 1);
        assert_int_equal(complete(w.io, 1), 7);
        assert_int_equal(w.io->ops->sync_now(w.io, file), 0);
        assert_int_equal(w.io->ops->rename(w.io, w.directory, "old", "moved"), 0);
        assert_int_equal(w.io->ops->remove(w.io, w.directory, "gone"), 0);
        assert_int_equal(w.io->ops->remove(w.io, w.directory, "gone"), -ENOENT);
        bool synced = seed % 2 == 1;
        if (synced)
            assert_int_equal(w.io->ops->sync_now(w.io, w.directory), 0);
        fake_machine_power_cut(w.machine);
        char content[8] = {0};
        bool new_is = fake_file_size(w.machine, DIR, "new") >= 0;
        bool old_is = fake_file_size(w.machine, DIR, "old") >= 0,
             moved_is = fake_file_size(w.machine, DIR, "moved") >= 0;
        bool gone_is = fake_file_size(w.machine, DIR, "gone") >= 0;
        assert_true(old_is != moved_is); /* a rename is whole */
        if (synced)
            assert_true(new_is && moved_is && !gone_is);
        if (new_is) {
            assert_int_equal(fake_file_read(w.machine, DIR, "new", content, 8, 0), 7);
            assert_string_equal(content, "content");
        }
        if (!synced) {
            made += new_is;
            renamed += moved_is;
            removed += !gone_is;
            both += moved_is && !new_is;
        }
        fake_machine_destroy(w.machine);
    }
    assert_true(made > 0 && made < SEEDS / 2 && renamed > 0 && renamed < SEEDS / 2);
    assert_true(removed > 0 && removed < SEEDS / 2 && both > 0);
}

static void size_is_durable_only_with_a_flush(void **state)
{
    (void)state;
    bool shorter = false, longer = false, zeros = false;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct world w = world(seed);
        w.io->ops->write(w.io, w.file, page('a'), PAGE, 2 * PAGE, false, 1);
        assert_int_equal(complete(w.io, 1), PAGE);
        fake_machine_power_cut(w.machine);
        int64_t size = fake_file_size(w.machine, DIR, FILE);
        assert_true(size == 2 * PAGE || size == 3 * PAGE);
        shorter |= size == 2 * PAGE;
        longer |= size == 3 * PAGE;
        uint8_t byte = 0xFF;
        if (size == 3 * PAGE)
            assert_int_equal(fake_file_read(w.machine, DIR, FILE, &byte, 1, 2 * PAGE), 1);
        zeros |= byte == 0;
        fake_machine_destroy(w.machine);
    }
    assert_true(shorter && longer && zeros);
}

static unsigned drain(struct io *io, uint64_t tokens[64])
{
    unsigned count = 0, got;
    struct io_completion completions[3];
    for (unsigned turn = 0; turn < 1000 && count < 16; turn++) {
        io->ops->sleep(io, 1000);
        got = io->ops->completions(io, completions, 3);
        for (unsigned n = 0; n < got; n++)
            tokens[count++] = completions[n].token;
    }
    return count;
}

static void orders(void **state)
{
    (void)state;
    bool mixed = false;
    for (unsigned order = FAKE_AT_ONCE; order <= FAKE_MANUAL; order++) {
        for (uint64_t seed = 0; seed < 5; seed++) {
            uint64_t first[64], again[64];
            for (unsigned run = 0; run < 2; run++) {
                struct world w = world(seed);
                struct fake_config *config = fake_machine_config(w.machine);
                config->order = (enum fake_order)order;
                config->delay_min = 100;
                config->delay_max = 5000;
                for (uint64_t n = 0; n < 16; n++)
                    w.io->ops->write(w.io, w.file, page((uint8_t)n), PAGE, n * PAGE, true, n);
                assert_int_equal(drain(w.io, run == 0 ? first : again), 16);
                fake_machine_destroy(w.machine);
            }
            assert_memory_equal(first, again, 16 * sizeof *first); /* the seed decides */
            bool sorted = true;
            for (uint64_t n = 0; n < 16; n++)
                sorted &= first[n] == n;
            if (order == FAKE_AT_ONCE || order == FAKE_IN_ORDER)
                assert_true(sorted);
            mixed |= order == FAKE_ANY_ORDER && !sorted;
        }
    }
    assert_true(mixed);
}

static void delays_follow_the_clock(void **state)
{
    (void)state;
    struct world w = world(9);
    struct fake_config *config = fake_machine_config(w.machine);
    struct io_completion completion;
    config->order = FAKE_IN_ORDER;
    config->delay_min = config->delay_max = 1000;
    uint64_t start = w.io->ops->monotonic(w.io), wall = w.io->ops->wall(w.io);
    w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, true, 1);
    assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 0);
    fake_machine_advance(w.machine, 999);
    assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 0);
    w.io->ops->sleep(w.io, 500);
    assert_int_equal(w.io->ops->monotonic(w.io), start + 1000);
    assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 1);
    w.io->ops->sleep(w.io, 500);
    assert_int_equal(w.io->ops->monotonic(w.io), start + 1500);
    fake_machine_step_wall(w.machine, -700);
    assert_int_equal(w.io->ops->wall(w.io), wall + 800);
    fake_machine_power_cut(w.machine);
    assert_true(w.io->ops->monotonic(w.io) < start + 1500);
    assert_int_equal(w.io->ops->wall(w.io), wall + 800);
    fake_machine_destroy(w.machine);
}

static void calls_fail_when_told(void **state)
{
    (void)state;
    struct world w = world(10);
    fake_machine_fail(w.machine, FAKE_WRITE, NULL, 2, 1, EIO);
    fake_machine_fail(w.machine, FAKE_OPEN, "other", 1, UINT64_MAX, EMFILE);
    fake_machine_fail(w.machine, FAKE_READ, FILE, 1, 2, EIO);
    w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, true, 1);
    assert_int_equal(complete(w.io, 1), PAGE);
    w.io->ops->write(w.io, w.file, page('b'), PAGE, PAGE, true, 2);
    assert_int_equal(complete(w.io, 2), -EIO);
    w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, true, 3);
    assert_int_equal(complete(w.io, 3), PAGE);
    assert_int_equal(w.io->ops->open(w.io, w.directory, "other", IO_WRITE | IO_CREATE), -EMFILE);
    assert_true(w.io->ops->open(w.io, w.directory, "third", IO_WRITE | IO_CREATE) >= 0);
    assert_int_equal(w.io->ops->read(w.io, w.file, page('x'), PAGE, 0), -EIO);
    assert_int_equal(w.io->ops->read(w.io, w.file, page('x'), PAGE, 0), -EIO);
    assert_int_equal(w.io->ops->read(w.io, w.file, page('x'), PAGE, 0), PAGE);
    const struct fake_counts *counts = fake_machine_counts(w.machine);
    assert_int_equal(counts->calls[FAKE_WRITE], 3);
    assert_int_equal(counts->calls[FAKE_READ], 3);
    assert_int_equal(counts->faults, 4);
    assert_int_equal(counts->durable_writes, 3);
    fake_machine_heal(w.machine);
    assert_true(w.io->ops->open(w.io, w.directory, "other", IO_WRITE | IO_CREATE) >= 0);
    struct mr_error error;
    assert_int_equal(w.io->ops->register_buffers(w.io, page('a'), PAGE, &error), 0);
    fake_machine_fail(w.machine, FAKE_REGISTER, NULL, 1, 1, ENOMEM);
    assert_int_equal(w.io->ops->register_buffers(w.io, page('a'), PAGE, &error), -1);
    assert_int_equal(error.code, ENOMEM);
    fake_machine_config(w.machine)->fail_ppm[FAKE_SIZE] = 1000000;
    assert_int_equal(w.io->ops->size(w.io, w.file), -EIO);
    fake_machine_destroy(w.machine);
}

/* As an asynchronous write would, at once: visible, lost in a power cut until it is flushed, torn where it fails. */
static void writing_now(void **state)
{
    (void)state;
    unsigned unflushed[256] = {0}, failed[256] = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct world w = world(seed);
        assert_int_equal(w.io->ops->write_now(w.io, w.file, page('a'), PAGE, 0), PAGE);
        assert_int_equal(outcome(w.machine, 'a', 0), 'n');
        if (seed < SEEDS / 2)
            assert_int_equal(w.io->ops->sync_now(w.io, w.file), 0);
        fake_machine_fail(w.machine, FAKE_WRITE_NOW, FILE, 1, 1, EIO);
        assert_int_equal(w.io->ops->write_now(w.io, w.file, page('b'), PAGE, PAGE), -EIO);
        failed[(int)outcome(w.machine, 'b', PAGE)]++;
        fake_machine_power_cut(w.machine);
        if (seed < SEEDS / 2)
            assert_int_equal(outcome(w.machine, 'a', 0), 'n');
        else
            unflushed[(int)outcome(w.machine, 'a', 0)]++;
        fake_machine_destroy(w.machine);
    }
    assert_true(unflushed['n'] > 0 && unflushed['o'] > 0 && unflushed['t'] > 0);
    assert_true(failed['n'] > 0 && failed['o'] > 0 && failed['t'] > 0);
    struct world w = world(1);
    assert_int_equal(w.io->ops->write_now(w.io, w.file, page('a'), 512, 0), -EINVAL);
    int other = w.io->ops->open(w.io, w.directory, FILE, IO_READ);
    assert_int_equal(w.io->ops->write_now(w.io, other, page('a'), PAGE, 0), -EBADF);
    fake_machine_config(w.machine)->space = 2 * PAGE;
    assert_int_equal(w.io->ops->write_now(w.io, w.file, page('a'), 2 * PAGE, PAGE), -ENOSPC);
    fake_machine_destroy(w.machine);
}

/* What a failed sync was to flush may be lost, though the next one succeeds. */
static void failed_sync_may_lose_what_it_was_to_flush(void **state)
{
    (void)state;
    unsigned seen[256] = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct world w = world(seed);
        fake_machine_fail(w.machine, FAKE_SYNC, NULL, 1, 1, EIO);
        w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, false, 1);
        assert_int_equal(complete(w.io, 1), PAGE);
        w.io->ops->sync(w.io, w.file, 2);
        assert_int_equal(complete(w.io, 2), -EIO);
        w.io->ops->sync(w.io, w.file, 3);
        assert_int_equal(complete(w.io, 3), 0);
        assert_int_equal(outcome(w.machine, 'a', 0), 'n');
        fake_machine_power_cut(w.machine);
        seen[(int)outcome(w.machine, 'a', 0)]++;
        fake_machine_destroy(w.machine);
    }
    assert_true(seen['n'] > 0 && seen['o'] > 0 && seen['t'] > 0);
}

static void disk_gets_full_and_empty_again(void **state)
{
    (void)state;
    struct world w = world(11);
    fake_machine_config(w.machine)->space = 4 * PAGE;
    w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, true, 1); /* takes no more than there was */
    assert_int_equal(complete(w.io, 1), PAGE);
    int file = w.io->ops->open(w.io, w.directory, "second", IO_WRITE | IO_CREATE);
    assert_int_equal(w.io->ops->allocate(w.io, file, 3 * PAGE), -ENOSPC);
    assert_int_equal(w.io->ops->allocate(w.io, file, 2 * PAGE), 0);
    assert_int_equal(w.io->ops->size(w.io, file), 2 * PAGE);
    w.io->ops->write(w.io, w.file, page('b'), PAGE, 2 * PAGE, true, 2);
    assert_int_equal(complete(w.io, 2), -ENOSPC);
    w.io->ops->close(w.io, file);
    assert_int_equal(w.io->ops->remove(w.io, w.directory, "second"), 0);
    w.io->ops->write(w.io, w.file, page('b'), PAGE, 2 * PAGE, true, 3);
    assert_int_equal(complete(w.io, 3), PAGE);
    fake_machine_destroy(w.machine);
}

static unsigned wake_hooks;

static void on_wake(void *context, struct io *io, int event)
{
    (void)context;
    (void)io;
    wake_hooks += event == 42;
}

static void watches_and_wakes(void **state)
{
    (void)state;
    struct world w = world(12);
    struct io_completion completion;
    fake_machine_config(w.machine)->on_wake = on_wake;
    w.io->ops->watch(w.io, 41, 1);
    assert_false(fake_io_trigger(w.io, 40));
    assert_int_equal(w.io->ops->completions(w.io, &completion, 1), 0);
    assert_true(fake_io_trigger(w.io, 41));
    assert_true(fake_io_trigger(w.io, 41));
    assert_int_equal(complete(w.io, 1), POLLIN);
    assert_int_equal(complete(w.io, 1), POLLIN);
    w.io->ops->unwatch(w.io, 1);
    assert_int_equal(complete(w.io, 1), -ECANCELED);
    assert_false(fake_io_trigger(w.io, 41));
    w.io->ops->wake(w.io, 42, 2);
    assert_int_equal(fake_io_wakes(w.io, 42), 0);
    assert_int_equal(complete(w.io, 2), 8);
    assert_int_equal(fake_io_wakes(w.io, 42), 1);
    assert_int_equal(wake_hooks, 1);
    fake_machine_destroy(w.machine);
}

static void keep_name(void *context, const char *name)
{
    strcat(context, name);
    strcat(context, " ");
}

static void files_behind_the_back(void **state)
{
    (void)state;
    struct world w = world(13);
    char names[64] = "";
    uint8_t byte = 0;
    assert_int_equal(w.io->ops->list(w.io, w.directory, keep_name, names), 0);
    assert_string_equal(names, "log ");
    assert_string_equal(fake_file_name(w.machine, DIR, 0), FILE);
    assert_null(fake_file_name(w.machine, DIR, 1));
    fake_file_flip(w.machine, DIR, FILE, 100, 3);
    assert_int_equal(fake_file_read(w.machine, DIR, FILE, &byte, 1, 100), 1);
    assert_int_equal(byte, 'o' ^ 8);
    fake_file_truncate(w.machine, DIR, FILE, 99);
    fake_machine_power_cut(w.machine);
    assert_int_equal(fake_file_size(w.machine, DIR, FILE), 99);
    fake_file_truncate(w.machine, DIR, FILE, 200);
    assert_int_equal(fake_file_read(w.machine, DIR, FILE, &byte, 1, 100), 1);
    assert_int_equal(byte, 0);
    fake_file_remove(w.machine, DIR, FILE);
    assert_int_equal(fake_file_size(w.machine, DIR, FILE), -1);
    fake_machine_destroy(w.machine);
}

/* A clone goes its own way, and the same way if nothing differs. */
static void clones(void **state)
{
    (void)state;
    struct world w = world(14);
    w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, false, 1);
    assert_int_equal(complete(w.io, 1), PAGE);
    assert_true(w.io->ops->open(w.io, w.directory, "new", IO_WRITE | IO_CREATE) >= 0);
    struct fake_machine *one = fake_machine_clone(w.machine), *two = fake_machine_clone(w.machine);
    fake_file_write(w.machine, DIR, FILE, page('c'), PAGE, 0);
    fake_machine_destroy(w.machine);
    assert_int_equal(outcome(one, 'a', 0), 'n');
    fake_machine_power_cut(one);
    fake_machine_power_cut(two);
    uint8_t from_one[PAGE], from_two[PAGE];
    fake_file_read(one, DIR, FILE, from_one, PAGE, 0);
    fake_file_read(two, DIR, FILE, from_two, PAGE, 0);
    assert_memory_equal(from_one, from_two, PAGE);
    assert_int_equal(fake_file_size(one, DIR, "new"), fake_file_size(two, DIR, "new"));
    fake_machine_destroy(one);
    fake_machine_destroy(two);
}

static jmp_buf escape;

static void escape_at_third(void *context, struct io *io, enum fake_call call, const char *name)
{
    (void)io;
    (void)call;
    (void)name;
    if (++*(unsigned *)context == 3)
        longjmp(escape, 1);
}

/* A test can cut any sequence of calls at any of them. */
static void a_hook_can_leave(void **state)
{
    (void)state;
    static struct world w;
    static unsigned calls;
    w = world(15);
    fake_machine_config(w.machine)->on_call = escape_at_third;
    fake_machine_config(w.machine)->context = &calls;
    if (setjmp(escape) == 0) {
        w.io->ops->size(w.io, w.file);
        w.io->ops->write(w.io, w.file, page('a'), PAGE, 0, true, 1);
        w.io->ops->rename(w.io, w.directory, FILE, "never");
        fail();
    }
    fake_machine_config(w.machine)->on_call = NULL;
    fake_io_crash_process(w.io);
    assert_int_equal(fake_file_size(w.machine, DIR, FILE), 2 * PAGE);
    fake_io_destroy(w.io);
    fake_machine_destroy(w.machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completed_writes_are_read),
        cmocka_unit_test(power_cut_takes_only_what_was_not_flushed),
        cmocka_unit_test(sync_covers_only_what_was_complete_when_it_began),
        cmocka_unit_test(write_in_flight_at_power_cut_may_be_torn),
        cmocka_unit_test(writes_land_after_a_crash_until_the_lock_falls),
        cmocka_unit_test(without_its_lock_a_write_lands_at_any_time),
        cmocka_unit_test(names_need_the_directory_synced),
        cmocka_unit_test(size_is_durable_only_with_a_flush),
        cmocka_unit_test(orders),
        cmocka_unit_test(delays_follow_the_clock),
        cmocka_unit_test(calls_fail_when_told),
        cmocka_unit_test(writing_now),
        cmocka_unit_test(failed_sync_may_lose_what_it_was_to_flush),
        cmocka_unit_test(disk_gets_full_and_empty_again),
        cmocka_unit_test(watches_and_wakes),
        cmocka_unit_test(files_behind_the_back),
        cmocka_unit_test(clones),
        cmocka_unit_test(a_hook_can_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
