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
    uint64_t sequence_high; /* its number, without the lowest seven bits: those are put in when the bytes are copied */
    size_t sequence_at;     /* where in `bytes` it begins */
    size_t sequence_size;   /* of so many bytes */
    size_t size;
    /* A number of 32 bits, three of 64, five messages' heads and a name's: at most 6 + 33 + 30 + 2; and the name. */
    uint8_t bytes[72 + SERVICE_COMMAND_NAME_MAX];
};

/* Any other change of the bytes than what is put in later. */
void service_command_change(struct service_command_head *head, struct slice operation, size_t payload_size,
                            uint64_t sequence_num);

/* Makes the head that of the next command, and returns the size of the whole, payload included. `operation` is a
 * constant of 1 to SERVICE_COMMAND_NAME_MAX bytes, `sequence_num` at least 1. */
static inline size_t service_command_size(struct service_command_head *head, struct slice operation,
                                          size_t payload_size, uint64_t sequence_num)
{
    if (head->operation.data != operation.data || head->operation.size != operation.size ||
        head->payload_size != payload_size || head->sequence_high != sequence_num >> 7)
        service_command_change(head, operation, payload_size, sequence_num);
    return head->size + payload_size;
}

/* Writes it up to the payload, and returns where that goes. */
static inline uint8_t *service_command_write(uint8_t *to, const struct service_command_head *head,
                                             uint64_t sequence_num)
{
    unsigned more = head->sequence_size > 1 ? 0x80 : 0;

    memcpy(to, head->bytes, head->size);
    to[head->sequence_at] = (uint8_t)(more | (sequence_num & 0x7f));
    return to + head->size;
}

#endif
