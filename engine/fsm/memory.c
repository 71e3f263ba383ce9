/* SPDX-License-Identifier: Apache-2.0 */
/* malloc that ends the process instead of failing. Knows nothing of what the memory is for. */
#include "engine/fsm/memory.h"

#include <stdlib.h>

#include "ipc/error.h"

static void *must(void *memory)
{
    /* What could not be had stands in no entry: the successor, or the operator, finds the log as it was. */
    if (memory == NULL)
        assertion_failed("memory for the partition's state", __FILE__, __LINE__);
    return memory;
}

void *memory_allocate(size_t size)
{
    return must(malloc(size));
}

void *memory_zeroed(size_t count, size_t size)
{
    return must(calloc(count, size));
}

void *memory_resize(void *memory, size_t size)
{
    return must(realloc(memory, size));
}
