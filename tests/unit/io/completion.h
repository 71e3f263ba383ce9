/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for what an io completes, on a real kernel. */
#ifndef TESTS_UNIT_IO_COMPLETION_H
#define TESTS_UNIT_IO_COMPLETION_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/io/io.h"
#include "tests/support/wait.h"

/* The next completion, waited for. */
static inline struct io_completion next(struct io *io)
{
    struct io_completion completion;
    uint64_t end = wait_now_ms() + WAIT_MS;
    while (io->ops->completions(io, &completion, 1) == 0) {
        if (wait_now_ms() > end)
            fail_msg("no completion");
        io->ops->sleep(io, UINT64_C(1000000000));
    }
    return completion;
}

#endif
