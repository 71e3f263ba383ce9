/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the simulated worker and of the shadow. The engine's objects are linked into the simulator with malloc()
 * and its like renamed to the functions below (Makefile), so that everything a worker has can be taken away at once,
 * wherever in its code it dies. Its mappings and descriptors go the same way, through the linker's --wrap. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/sim/sim.h"

struct block {
    struct block *next, **link;
    size_t size;
    size_t before; /* bytes from the allocation's beginning to here; what is behind stands on 16 bytes */
};

struct mapping {
    void *at;
    size_t size;
};

enum { MAPPINGS_MAX = 256, FIRST_FAKE_DESCRIPTOR = 500000 };

static struct block *blocks[OWNERS];
static enum owner owner_now;
static struct mapping mappings[MAPPINGS_MAX];
static unsigned mapping_count;

/* The table of channels is large and hardly used: one is kept, and only what was used of it cleaned. */
static uint8_t *table;
static bool table_taken;
#define TABLE_BYTES (MR_CHANNELS_MAX * sizeof(struct worker_channel))

void *sim_malloc(size_t size);
void *sim_calloc(size_t count, size_t size);
void *sim_realloc(void *memory, size_t size);
void *sim_aligned_alloc(size_t alignment, size_t size);
void sim_free(void *memory);
void __real_fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink);
void __wrap_channel_unmap(struct channel *channel);
int __real_sys_close(int fd);
int __wrap_sys_close(int fd);
void *__real_sys_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_sys_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int __real_sys_munmap(void *address, size_t size);
int __wrap_sys_munmap(void *address, size_t size);

enum owner life_owner(enum owner owner)
{
    enum owner before = owner_now;
    owner_now = owner;
    return before;
}

static void *enlist(struct block *block, size_t size, size_t before)
{
    mr_assert(block != NULL);
    block->size = size;
    block->before = before;
    block->next = blocks[owner_now];
    block->link = &blocks[owner_now];
    if (block->next)
        block->next->link = &block->next;
    blocks[owner_now] = block;
    return block + 1;
}

static void unlist(struct block *block)
{
    *block->link = block->next;
    if (block->next)
        block->next->link = block->link;
}

void *sim_malloc(size_t size)
{
    return enlist(malloc(sizeof(struct block) + size), size, 0);
}

void *sim_calloc(size_t count, size_t size)
{
    if (count * size == TABLE_BYTES && !table_taken) {
        if (!table)
            table = calloc(1, TABLE_BYTES);
        mr_assert(table != NULL);
        memset(table, 0, SIM_SLOTS * sizeof(struct worker_channel));
        table_taken = true;
        return table;
    }
    return enlist(calloc(1, sizeof(struct block) + count * size), count * size, 0);
}

void *sim_aligned_alloc(size_t alignment, size_t size)
{
    size_t room = alignment > sizeof(struct block) ? alignment : sizeof(struct block);
    uint8_t *memory = aligned_alloc(alignment, room + size);
    mr_assert(memory != NULL && room % alignment == 0);
    return enlist((struct block *)(void *)(memory + room) - 1, size, room - sizeof(struct block));
}

static void give_back(struct block *block)
{
    unlist(block);
    free((uint8_t *)block - block->before);
}

void sim_free(void *memory)
{
    if (memory == table)
        table_taken = false;
    if (!memory || memory == table)
        return;
    give_back((struct block *)memory - 1);
}

void *sim_realloc(void *memory, size_t size)
{
    if (!memory)
        return sim_malloc(size);
    struct block *block = (struct block *)memory - 1;
    mr_assert(block->before == 0);
    unlist(block);
    return enlist(realloc(block, sizeof *block + size), size, 0);
}

void life_drop(enum owner owner)
{
    while (blocks[owner])
        give_back(blocks[owner]);
    if (owner != OWNER_WORKER)
        return;
    table_taken = false;
    while (mapping_count > 0) {
        mapping_count--;
        (void)__real_sys_munmap(mappings[mapping_count].at, mappings[mapping_count].size);
    }
}

/* ---- what else dies with a worker ---- */

void *__wrap_sys_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    void *at = __real_sys_mmap(address, size, protection, flags, fd, offset);
    if (at != MAP_FAILED && current_sim && current_sim->node.inside) {
        mr_assert(mapping_count < MAPPINGS_MAX);
        mappings[mapping_count++] = (struct mapping){at, size};
    }
    return at;
}

int __wrap_sys_munmap(void *address, size_t size)
{
    for (unsigned n = 0; n < mapping_count; n++)
        if (mappings[n].at == address) {
            mappings[n] = mappings[--mapping_count];
            break;
        }
    return __real_sys_munmap(address, size);
}

/* Channels lie in memory that outlives everybody; their descriptors are only numbers. */
void __wrap_channel_unmap(struct channel *channel)
{
    memset(channel, 0, sizeof *channel);
}

int __wrap_sys_close(int fd)
{
    return fd >= FIRST_FAKE_DESCRIPTOR ? 0 : __real_sys_close(fd);
}

/* ---- memory of a run ---- */

struct piece {
    struct piece *next;
    size_t used, size;
};

static struct piece *pieces; /* the one in use first */

void *run_allocate(size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (!pieces || pieces->used + size > pieces->size) {
        size_t room = size > (1 << 20) ? size : 1 << 20;
        struct piece *piece = malloc(sizeof *piece + 16 + room);
        mr_assert(piece != NULL);
        *piece = (struct piece){.next = pieces, .size = room};
        pieces = piece;
    }
    uint8_t *at = (uint8_t *)(pieces + 1) + 8 + pieces->used;
    pieces->used += size;
    memset(at, 0, size);
    return at;
}

void run_drop(void)
{
    while (pieces && pieces->next) {
        struct piece *piece = pieces;
        pieces = piece->next;
        free(piece);
    }
    if (pieces)
        pieces->used = 0;
}

void *run_grow(void *list, unsigned count, unsigned *capacity, size_t size)
{
    if (count < *capacity)
        return list;
    unsigned more = *capacity == 0 ? 16 : 2 * *capacity;
    void *grown = run_allocate(more * size);
    if (count > 0)
        memcpy(grown, list, count * size);
    *capacity = more;
    return grown;
}
