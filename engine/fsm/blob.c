/* SPDX-License-Identifier: Apache-2.0 */
/* Shared immutable bytes. Knows nothing of what they mean or who the owners are. */
#include "engine/fsm/blob.h"

#include "engine/fsm/memory.h"
#include "ipc/error.h"

#include <stdlib.h>

struct blob *blob_create(uint32_t size)
{
    struct blob *blob = memory_allocate(sizeof(*blob) + size);
    blob->owners = 1;
    blob->size = size;
    return blob;
}

struct blob *blob_share(struct blob *blob)
{
    mr_assert(blob->owners < UINT32_MAX);
    blob->owners++;
    return blob;
}

void blob_release(struct blob *blob)
{
    if (blob == NULL)
        return;
    mr_assert(blob->owners > 0);
    if (--blob->owners == 0)
        free(blob);
}
