/* SPDX-License-Identifier: Apache-2.0 */
/* malloc that ends the process instead of failing. Knows nothing of what the memory is for. */
#include "engine/fsm/memory.h"

#include "ipc/error.h"

#include <stdlib.h>

static void *must(void *memory)
{
    if (memory == NULL)
        out_of_memory("the partition's state");
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
