/* SPDX-License-Identifier: Apache-2.0 */
/* Makes an allocation of a test program fail. Included once, by a program that is linked with
 * -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc: the functions below then stand for the allocator's. */
#ifndef TESTS_SUPPORT_FAILING_MEMORY_H
#define TESTS_SUPPORT_FAILING_MEMORY_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

/* So many of this thread's allocations from now on one fails; 0: none. */
static _Thread_local unsigned memory_fails_in;

/* The linker's names. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static bool memory_fails(void)
{
    if (memory_fails_in == 0 || --memory_fails_in > 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return memory_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return memory_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return memory_fails() ? NULL : __real_realloc(memory, size);
}

#endif
