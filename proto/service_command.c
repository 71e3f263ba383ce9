/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes that the service commands of one service begin with: see proto/service_command.h. */
#include "proto/service_command.h"

#include "proto/writer.h"

/* A message's head and body. */
static size_t whole(unsigned number, size_t size)
{
    return field_message_head_size(number, size) + size;
}

static void write_head(struct service_command_head *head, uint64_t sequence_num)
{
    size_t operation = field_bytes_size(1, head->operation.size) + field_bytes_size(2, head->payload_size);
    size_t member = field_varint_size(1, head->service_id) + field_varint_size(2, sequence_num) + whole(3, operation);
    size_t command = field_varint_size(1, head->session_id) + whole(SESSION_COMMAND_SERVICE_COMMAND, member);
    uint8_t *to = field_write_varint(head->bytes, 1, head->partition_id);

    to = field_write_message_head(to, 2, whole(COMMAND_SESSION_COMMAND, command));
    to = field_write_message_head(to, COMMAND_SESSION_COMMAND, command);
    to = field_write_varint(to, 1, head->session_id);
    to = field_write_message_head(to, SESSION_COMMAND_SERVICE_COMMAND, member);
    to = field_write_varint(to, 1, head->service_id);
    to = field_write_varint(to, 2, sequence_num);
    head->sequence_size = varint_size(sequence_num);
    head->sequence_at = (size_t)(to - head->bytes) - head->sequence_size;
    to = field_write_message_head(to, 3, operation);
    to = field_write_bytes(to, 1, head->operation);
    if (head->payload_size > 0)
        to = field_write_message_head(to, 2, head->payload_size);
    head->size = (size_t)(to - head->bytes);
}

void service_command_change(struct service_command_head *head, struct slice operation, size_t payload_size,
                            uint64_t sequence_num)
{
    bool same = head->operation.data == operation.data && head->operation.size == operation.size &&
                head->payload_size == payload_size && head->sequence_size == varint_size(sequence_num);

    head->operation = operation;
    head->payload_size = payload_size;
    head->sequence_high = sequence_num >> 7;
    if (same)
        write_varint(head->bytes + head->sequence_at, sequence_num);
    else
        write_head(head, sequence_num);
}
