/* SPDX-License-Identifier: Apache-2.0 */
/* The frames that travel in a channel's rings. All numbers little-endian (the machine's own: both ends share it).
 *
 * A request frame is a head of 16 bytes and `size` bytes of body, padded with anything to a multiple of 8:
 *
 *     0  u32 size        of the body: 0 to the node's max_payload
 *     4  u8  kind        1: command, body is a PartitionCommandInput; 2: query, body is a PartitionQueryInput
 *     5  u8  flags       1: its outputs may come in frames that it shares with others (below)
 *     6  u8[2]           0
 *     8  u64 time_limit  nanoseconds, for a query: how long it may wait; 0: 5 s
 *
 * A request is named by its position: the count of bytes that its ring had carried before it (64 bits, never wraps in
 * practice), which is also what the ring's cursors count.
 *
 * A response frame is a head of 24 bytes and `size` bytes of body, padded likewise:
 *
 *     0  u32 size
 *     4  u8  status      OperationOutput.Status: 1 (OK): the body is a PartitionCommandOutput or PartitionQueryOutput;
 *                        any other: the body is a message to a person (UTF-8, no NUL at its end), maybe empty
 *     5  u8  flags       1: the last frame of its request
 *     6  u16 others      so many other requests share the frame: 0 to FRAME_OTHERS_MAX
 *     8  u64 request     the request's position
 *    16  u64 number      the output's number, from 1; 0 where a frame is not a numbered output
 *
 * One event is often the output of many requests, which differ in nothing but their own numbers. If those have asked
 * for it, it crosses once: behind the body and its padding stand, for each of the `others`,
 *
 *     0  u64 request
 *     8  u64 number
 *
 * and each of them has that output, as if in a frame of its own: it is not the last of any, and of the body only the
 * output's operation holds for all (index and number in it are the first one's). A request is in such a frame once.
 *
 * Both ends take a frame from shared memory only through ipc/ring.h, and believe nothing in it before it is checked. */
#ifndef IPC_FRAME_H
#define IPC_FRAME_H

#include <assert.h>
#include <stdint.h>

#define FRAME_ALIGNMENT 8

enum frame_kind { FRAME_COMMAND = 1, FRAME_QUERY = 2 };
enum frame_flags { FRAME_LAST = 1 };
enum request_flags { REQUEST_SHARES = 1 };
#define FRAME_OTHERS_MAX 63

struct request_head {
    uint32_t size;
    uint8_t kind;
    uint8_t flags;
    uint8_t reserved[2];
    uint64_t time_limit;
};
struct response_head {
    uint32_t size;
    uint8_t status;
    uint8_t flags;
    uint16_t others;
    uint64_t request;
    uint64_t number;
};
struct response_other {
    uint64_t request;
    uint64_t number;
};
static_assert(sizeof(struct request_head) == 16, "the format above");
static_assert(sizeof(struct response_head) == 24, "the format above");
static_assert(sizeof(struct response_other) == 16, "the format above");

/* Bytes that a frame with a body of `size` takes in its ring, without others. */
static inline uint64_t request_frame_bytes(uint64_t size)
{
    return (sizeof(struct request_head) + size + FRAME_ALIGNMENT - 1) & ~(uint64_t)(FRAME_ALIGNMENT - 1);
}
static inline uint64_t response_frame_bytes(uint64_t size)
{
    return (sizeof(struct response_head) + size + FRAME_ALIGNMENT - 1) & ~(uint64_t)(FRAME_ALIGNMENT - 1);
}

/* The whole of it. */
static inline uint64_t response_whole_bytes(const struct response_head *head)
{
    return response_frame_bytes(head->size) + head->others * sizeof(struct response_other);
}

#endif
