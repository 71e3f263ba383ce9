/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of the node's io on a real kernel: one io, a directory, and memory to read and write. */
#ifndef TESTS_UNIT_IO_FIXTURE_H
#define TESTS_UNIT_IO_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/io/uring.h"
#include "ipc/sys.h"
#include "tests/support/temp_dir.h"

enum { ENTRIES = 8, PAGE = 4096, AREA = 64 * PAGE };

struct fixture {
    char *path;
    struct io *io;
    int directory;
    uint8_t *memory; /* AREA bytes */
};

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct mr_error error;
    f->path = temp_dir_make();
    f->io = uring_create(ENTRIES, &error);
    if (!f->io)
        fail_msg("%s", error.text);
    f->directory = f->io->ops->open_directory(f->io, f->path);
    assert_true(f->directory >= 0);
    f->memory = io_memory(AREA, &error);
    assert_non_null(f->memory);
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    sys_fault_clear();
    uring_destroy(f->io);
    io_memory_free(f->memory, AREA);
    close(f->directory);
    temp_dir_remove(f->path);
    free(f);
    return 0;
}

static inline void add(int event_fd, uint64_t value)
{
    assert_int_equal(write(event_fd, &value, sizeof value), sizeof value);
}

#endif
