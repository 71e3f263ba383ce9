/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for buffers that the kernel reads from: whole pages, on huge ones where they are to be had, and not in
 * children: a fork would otherwise have to copy every page that is registered with the ring. */
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include "engine/io/io.h"
#include "ipc/sys.h"

enum { HUGE_PAGE = 2 << 20 };

void *io_memory(size_t size, struct mr_error *error)
{
    void *memory = sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        error_system(error, errno, "cannot get %zu bytes of memory for buffers", size);
        return NULL;
    }
    if (sys_madvise(memory, size, MADV_DONTFORK) != 0) {
        error_system(error, errno, "cannot keep %zu bytes of buffers out of child processes", size);
        sys_munmap(memory, size);
        return NULL;
    }
    /* Only a matter of speed: a kernel without huge pages refuses it, and nothing is lost. */
    if (size >= HUGE_PAGE)
        (void)sys_madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

void *io_memory_forget(void *memory, size_t size)
{
    uintptr_t begin = (uintptr_t)memory, mask = HUGE_PAGE - 1;
    uintptr_t first = (begin + mask) & ~mask, end = (begin + size) & ~mask;
    if (end <= first)
        return memory;
    /* If it fails, the pages stay until they are freed. */
    (void)sys_madvise((uint8_t *)memory + (first - begin), end - first, MADV_DONTNEED);
    return (uint8_t *)memory + (end - begin);
}

void io_memory_free(void *memory, size_t size)
{
    /* A failure leaves the pages mapped and nobody who could do anything about it. */
    if (memory)
        (void)sys_munmap(memory, size);
}
