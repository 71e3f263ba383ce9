/* SPDX-License-Identifier: Apache-2.0 */
/* Service commands, for who writes many of them to one service: but for its number and its payload, each is mostly the
 * same bytes as the one before. These are kept, and copied. The bytes are those of write_partition_command_input(). */
#ifndef PROTO_SERVICE_COMMAND_H
#define PROTO_SERVICE_COMMAND_H

#include "proto/messages.h"

#include <string.h>

#define SERVICE_COMMAND_NAME_MAX 32

struct service_command_head {
    /* The service: set by the owner, and left alone. */
    uint32_t partition_id;
    uint64_t session_id, service_id;
    /* The command that the bytes below were written for, up to its payload. */
    struct slice operation; /* its name, known by its address; NULL: nothing has been written */
    size_t payload_size;
    uint64_t sequence_num;
    size_t size;
    uint8_t sequence_at;   /* where in `bytes` its number begins ... */
    uint8_t sequence_size; /* ... of so many bytes */
    /* Two numbers of 32 bits, three of 64, a name, five messages' heads: at most 6 + 33 + 34 + 30. */
    uint8_t bytes[104];
};

/* Any change of the bytes but that of the number's lowest seven bits. */
void service_command_change(struct service_command_head *head, struct slice operation, size_t payload_size,
                            uint64_t sequence_num);

/* Makes the head that of the next command, and returns the size of the whole, payload included. `operation` is a
 * constant of 1 to SERVICE_COMMAND_NAME_MAX bytes, `sequence_num` at least 1. */
static inline size_t service_command_size(struct service_command_head *head, struct slice operation,
                                          size_t payload_size, uint64_t sequence_num)
{
    uint64_t step = sequence_num - head->sequence_num;

    if (head->operation.data == operation.data && head->operation.size == operation.size &&
        head->payload_size == payload_size && step <= 1 && (sequence_num & 0x7f) != 0) {
        head->bytes[head->sequence_at] = (uint8_t)(head->bytes[head->sequence_at] + step); /* nothing is carried */
        head->sequence_num = sequence_num;
    } else {
        service_command_change(head, operation, payload_size, sequence_num);
    }
    return head->size + payload_size;
}

/* Returns where the payload goes. */
static inline uint8_t *service_command_write(uint8_t *to, const struct service_command_head *head)
{
    memcpy(to, head->bytes, head->size);
    return to + head->size;
}

#endif
