/* SPDX-License-Identifier: Apache-2.0 */
/* A channel: one memfd with a head page, a request ring (client writes, worker reads) and a response ring (worker
 * writes, client reads), and an eventfd each way. This file says how the memfd is laid out and maps it; ring.h says
 * what happens inside.
 *
 *     0                      struct channel_page, and nothing up to the end of its page (of 4096 bytes)
 *     4096                   request ring, ring_bytes
 *     4096 + ring_bytes      response ring, ring_bytes
 *
 * ring_bytes is a power of two and a multiple of the machine's page size. (Where pages are larger than 4096 the head
 * page is one such page.) `format` is CHANNEL_FORMAT; another one is refused, naming both. In the page:
 *
 *     0    u64 magic         "MLIRCHN1"
 *     8    u32 format
 *     12   u32 partition
 *     16   u64 channel_id
 *     24   u64 ring_bytes
 *     64   u32 generation, u32 state, char why[120]
 *     192  cursors of the request ring:  u64 tail; 64 on: u64 head; 128 on: u32 reader_sleeps, u32 writer_sleeps
 *     384  cursors of the response ring, likewise
 *     576  u64 begun_at
 *
 * Who writes what: the page's fixed part is the supervisor's, before anybody else maps it; generation and begun_at are
 * the worker's; state and why are the supervisor's and the worker's; the rings' cursors as ring.h says. Whoever maps it
 * read-only in mind still has a writable mapping: nobody believes in the page what somebody else could have changed, so
 * the worker takes sizes from the supervisor, never from the page, and the client from the hand-shake. */
#ifndef IPC_CHANNEL_H
#define IPC_CHANNEL_H

#include "ipc/error.h"
#include "ipc/ring.h"

#include <assert.h>

#define CHANNEL_MAGIC UINT64_C(0x314e484352494c4d) /* "MLIRCHN1" */
#define CHANNEL_FORMAT 3

enum channel_state {
    CHANNEL_OPENING = 0, /* not sealed yet: the client must not use it */
    CHANNEL_OPEN = 1,
    CHANNEL_CLOSED = 2 /* by the node; why[] says why. Nothing in it is read or answered any more */
};

struct channel_page {
    uint64_t magic;
    uint32_t format;
    uint32_t partition;
    uint64_t channel_id; /* never used again in this directory */
    uint64_t ring_bytes;
    _Alignas(CACHE_LINE) _Atomic uint32_t generation; /* one more for every worker that took the channel over; from 1 */
    _Atomic uint32_t state;                           /* enum channel_state */
    char why[120];                                    /* NUL-terminated once state is CHANNEL_CLOSED */
    struct ring_cursors request;
    struct ring_cursors response;
    /* Where in the request ring the worker of this generation, or a later one, began: what stands before it a
     * predecessor had taken. Written before generation is raised. */
    _Alignas(CACHE_LINE) _Atomic uint64_t begun_at;
};

/* A mapped channel, on either side. Plain data; whoever maps it unmaps it. */
struct channel {
    uint32_t partition;
    uint64_t channel_id;
    uint64_t ring_bytes;
    struct channel_page *page;
    uint8_t *request_data;  /* mapped twice in a row: 2 * ring_bytes of addresses */
    uint8_t *response_data; /* likewise */
    int memory_fd;          /* -1 where it has been closed; the mappings stay */
    int node_wake_fd;       /* eventfd: the client writes, the worker polls */
    int client_wake_fd; /* one per connection. The worker's: an eventfd, which it writes (through io_uring only); the
                           client's: an epoll instance that watches it */
};

static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "the same for every compiler");
static_assert(sizeof(struct ring_cursors) == 192, "the layout above");
static_assert(offsetof(struct channel_page, generation) == 64, "the layout above");
static_assert(offsetof(struct channel_page, request) == 192, "the layout above");
static_assert(offsetof(struct channel_page, response) == 384, "the layout above");
static_assert(offsetof(struct channel_page, begun_at) == 576, "the layout above");
static_assert(sizeof(struct channel_page) == 640, "the layout above, and within one page");

/* Bytes before the first ring: the machine's page size. */
uint64_t channel_head_bytes(void);
/* Bytes of the memfd for rings of ring_bytes. */
uint64_t channel_memory_bytes(uint64_t ring_bytes);

/* Supervisor: makes the memfd, sizes it and seals its size (nobody can take pages away under who uses them), writes the
 * fixed part of the page, maps it. node_wake_fd is made too (non-blocking); client_wake_fd is the connection's and only
 * remembered. 0, or -1 with *error and nothing left behind. */
int channel_create(struct channel *channel, uint32_t partition, uint64_t channel_id, uint64_t ring_bytes,
                   int client_wake_fd, struct mr_error *error);
/* Supervisor: once client and worker have mapped it. F_SEAL_FUTURE_WRITE | SEAL: afterwards nobody can map it for
 * writing or punch holes in it. Checks that the seals hold. Does not change page->state. */
int channel_seal(struct channel *channel, struct mr_error *error);

/* Client and worker: maps a received memfd. partition, channel_id and ring_bytes are what the hand-shake said; a file
 * of another size or a page of another magic, format or id is refused. Takes the three descriptors over on success
 * only. */
int channel_map(struct channel *channel, int memory_fd, int node_wake_fd, int client_wake_fd, uint32_t partition,
                uint64_t channel_id, uint64_t ring_bytes, struct mr_error *error);
/* Client and worker: keeps the mappings out of fork()ed children. */
int channel_dont_fork(struct channel *channel, struct mr_error *error);

/* Unmaps and closes memory_fd and node_wake_fd (client_wake_fd belongs to the connection). Safe on a zeroed or unmapped
 * one. */
void channel_unmap(struct channel *channel);

#endif
