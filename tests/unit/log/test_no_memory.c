/* SPDX-License-Identifier: Apache-2.0 */
/* A start that gets no memory has found no damage: it says ENOMEM, and another attempt may have more. Each allocation
 * of a start fails once. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/log/snapshot.h"
#include "ipc/sys.h"
#include "tests/support/failing_memory.h"
#include "tests/support/log_fixture.h"

void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return memory_fails() ? NULL : __real_aligned_alloc(alignment, size);
}

static void opening_a_log(void **state)
{
    enum { SEGMENTS = 4 };
    struct log_fixture fixture;
    unsigned failed = 0;
    bool all = false;

    (void)state;
    log_fixture_init(&fixture, 1, DURABILITY_MEMORY);
    assert_int_equal(log_fixture_open(&fixture), 0);
    while (fixture.memfd_count < SEGMENTS) {
        assert_true(log_fixture_append(&fixture, 8000));
        log_fixture_turn(&fixture);
    }
    for (unsigned nth = 1; !all; nth++) {
        log_fixture_crash(&fixture);
        memory_fails_in = nth;
        int result = log_fixture_open(&fixture);
        all = memory_fails_in > 0;
        memory_fails_in = 0;
        failed += result != 0;
        if (result != 0)
            assert_int_equal(fixture.error.code, ENOMEM);
    }
    assert_true(failed > 5);
    log_fixture_free(&fixture);
}

/* A log that has none yet. */
static void beginning_a_log(void **state)
{
    bool all = false;

    (void)state;
    for (unsigned nth = 1; !all; nth++) {
        struct log_fixture fixture;
        log_fixture_init(&fixture, 1, DURABILITY_MEMORY);
        memory_fails_in = nth;
        int result = log_fixture_open(&fixture);
        all = memory_fails_in > 0;
        memory_fails_in = 0;
        if (result != 0)
            assert_int_equal(fixture.error.code, ENOMEM);
        log_fixture_free(&fixture);
    }
}

static void finding_snapshots(void **state)
{
    enum { ALLOCATIONS = 2 }; /* its first chunk, and the list */
    struct fake_machine *machine = fake_machine_create(1);
    int memory[SNAPSHOTS_KEPT];
    struct snapshot_place place = {
        .io = fake_io_create(machine), .path = "/data/1", .partition = 1, .secret = 1, .memory = memory};
    struct snapshot_list list;
    struct mr_error error = {0};
    uint64_t bytes;

    (void)state;
    for (unsigned n = 0; n < SNAPSHOTS_KEPT; n++)
        assert_true((memory[n] = sys_memfd_create("snapshot", 0)) >= 0);
    struct snapshot_writer *writer = snapshot_begin(&place, &(struct snapshot_point){.index = 1}, 1, &error);
    assert_non_null(writer);
    assert_int_equal(snapshot_commit(writer, NULL, NULL, &bytes, &error), 0);
    for (unsigned nth = 1; nth <= ALLOCATIONS + 1; nth++) {
        memory_fails_in = nth;
        int result = snapshot_find(&place, &list, &error);
        memory_fails_in = 0;
        assert_int_equal(result, nth <= ALLOCATIONS ? -1 : 0);
        if (result != 0)
            assert_int_equal(error.code, ENOMEM);
        snapshot_list_free(&list);
    }
    for (unsigned n = 0; n < SNAPSHOTS_KEPT; n++)
        (void)sys_close(memory[n]);
    fake_machine_destroy(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_log),
        cmocka_unit_test(beginning_a_log),
        cmocka_unit_test(finding_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
