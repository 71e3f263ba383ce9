/* SPDX-License-Identifier: Apache-2.0 */
/* The log on a real disk, through io_uring: what comes back after an orderly stop, and after a process is killed at any
 * moment. The rules themselves are tested on the simulated one. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/io/uring.h"
#include "ipc/sys.h"
#include "millrace/limits.h"
#include "tests/support/log_fixture.h"
#include "tests/support/temp_dir.h"

static struct io *make_io(void)
{
    struct mr_error error;
    struct io *io = uring_create(64, &error);
    if (!io)
        fail_msg("%s", error.text);
    return io;
}

static void what_is_written_comes_back(void **state)
{
    (void)state;
    for (enum durability durability = DURABILITY_SYNC; durability <= DURABILITY_ASYNC; durability++) {
        char *path = temp_dir_make();
        struct log_fixture fixture;
        struct io *io = make_io();
        log_fixture_init_real(&fixture, io, path, durability);
        for (unsigned round = 0; round < 4; round++) {
            if (round == 2) { /* a new process's; in the other rounds one io has several logs, one after the other */
                uring_destroy(io);
                fixture.io = io = make_io();
            }
            if (log_fixture_open(&fixture) != 0)
                fail_msg("%s", fixture.error.text);
            assert_int_equal(fixture.report.torn_batches, 0);
            for (unsigned n = 0; n < 300; n++) {
                if (!log_fixture_append(&fixture, n * 37 % 9000)) {
                    log_fixture_turn(&fixture);
                    io->ops->sleep(io, MR_MILLISECOND);
                }
                if (n % 50 == 0)
                    log_fixture_settle(&fixture);
            }
            log_fixture_settle(&fixture);
            assert_int_equal(fixture.failed, 0);
            assert_int_equal(log_fixture_close(&fixture), 0);
        }
        assert_true(fixture.durable.count > 400);
        log_fixture_free(&fixture);
        uring_destroy(io);
        temp_dir_remove(path);
    }
}

/* The child appends entries numbered by their position and says, for each that is durable, so through the pipe. */
_Noreturn static void append_for_ever(const char *path, int pipe)
{
    struct log_fixture fixture;
    log_fixture_init_real(&fixture, make_io(), path, DURABILITY_SYNC);
    if (log_fixture_open(&fixture) != 0)
        _exit(1);
    fixture.next_id = fixture.durable.count;
    uint64_t told = 0;
    for (;;) {
        while (fixture.pending.count < 10 && log_fixture_append(&fixture, (uint32_t)(fixture.next_id * 331 % 7000)))
            continue;
        log_fixture_turn(&fixture);
        if (fixture.durable.count > told) {
            told = fixture.durable.count;
            if (sys_write(pipe, &told, sizeof told) != sizeof told)
                _exit(2);
        }
        fixture.io->ops->sleep(fixture.io, MR_MILLISECOND);
    }
}

struct seen {
    uint64_t entries;
};

static int on_replay(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct seen *seen = context;
    (void)error;
    assert_int_equal(entry->index, seen->entries + 1);
    assert_int_equal(entry->origin.position, seen->entries);
    assert_int_equal(entry->size, seen->entries * 331 % 7000);
    seen->entries++;
    return 0;
}

static void a_killed_process_loses_nothing_that_was_told(void **state)
{
    (void)state;
    char *path = temp_dir_make();
    int pipe[2];
    assert_int_equal(pipe2(pipe, 0), 0);
    pid_t child = sys_fork();
    assert_true(child >= 0);
    if (child == 0)
        append_for_ever(path, pipe[1]);
    assert_int_equal(sys_close(pipe[1]), 0);
    uint64_t told = 0, last;
    while (told < 300)
        assert_int_equal(sys_read(pipe[0], &told, sizeof told), sizeof told);
    assert_int_equal(sys_kill(child, SIGKILL), 0);
    assert_int_equal(sys_waitpid(child, NULL, 0), child);
    while (sys_read(pipe[0], &last, sizeof last) == sizeof last)
        told = last;
    assert_int_equal(sys_close(pipe[0]), 0);

    struct io *io = make_io();
    struct log_fixture fixture;
    log_fixture_init_real(&fixture, io, path, DURABILITY_SYNC);
    fixture.config.io = io;
    struct seen seen = {0};
    struct log_recovery report;
    struct log *log;
    if (log_open(&fixture.config, &(struct log_start){0}, on_replay, &seen, &report, &log, &fixture.error) != 0)
        fail_msg("%s", fixture.error.text);
    assert_true(seen.entries >= told);
    assert_int_equal(log_close(log, report.time, &fixture.error), 0);
    log_fixture_free(&fixture);
    uring_destroy(io);
    temp_dir_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_comes_back),
        cmocka_unit_test(a_killed_process_loses_nothing_that_was_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
