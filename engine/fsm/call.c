/* SPDX-License-Identifier: Apache-2.0 */
/* Running an operation and collecting its answer. Knows no session and no particular service. */
#include "engine/fsm/call.h"

#include "engine/fsm/memory.h"
#include "ipc/error.h"

#include <stdlib.h>
#include <string.h>

enum {
    PUT_MAX = 4096,
    BYTES_MIN = 2 * PUT_MAX, /* to begin with; grows by doubling */
    PIECES_MIN = 16,
    BYTES_KEPT = 1024 * 1024 /* what an unusually large answer took beyond this is given back */
};

void call_begin(struct service_call *call, uint64_t index, uint64_t time, struct slice payload)
{
    call_drop(call);
    call->index = index;
    call->time = time;
    call->payload = payload;
    call->status = STATUS_OK;
    call->message_size = 0;
    if (call->byte_capacity > BYTES_KEPT) {
        free(call->bytes);
        call->bytes = NULL;
        call->byte_capacity = 0;
    }
}

void call_drop(struct service_call *call)
{
    for (size_t i = 0; i < call->piece_count; i++)
        blob_release(call->pieces[i].blob);
    call->piece_count = 0;
    call->byte_count = 0;
    call->payload_size = 0;
}

void call_free(struct service_call *call)
{
    call_drop(call);
    free(call->bytes);
    free(call->pieces);
    *call = (struct service_call){0};
}

static const struct service_operation *find_operation(const struct service_type *type, struct slice name)
{
    for (size_t i = 0; i < type->operation_count; i++) {
        const struct service_operation *operation = &type->operations[i];
        if (operation_is(operation, name))
            return operation;
    }
    return NULL;
}

void call_run(struct service_call *call, const struct service_type *type, void *state, struct slice name, bool query)
{
    const struct service_operation *operation = name.size == 0 ? NULL : find_operation(type, name);
    if (operation == NULL) {
        call_fail(call, STATUS_NOT_SUPPORTED, "the service has no operation of that name");
        return;
    }
    call->kind = operation->kind;
    bool is_query = operation->kind == OPERATION_QUERY || operation->kind == OPERATION_QUERY_STREAM;
    if (is_query && !query)
        call_fail(call, STATUS_INVALID, "the operation is a query and was sent as a command");
    else if (!is_query && query)
        call_fail(call, STATUS_INVALID, "the operation is a command and was sent as a query");
    else
        operation->run(state, call);
}

void call_cursor(struct service_call *call, struct service_cursor *cursor)
{
    mr_assert(call->kind == OPERATION_QUERY_STREAM && call->cursor == NULL);
    call->cursor = cursor;
}

uint64_t call_index(const struct service_call *call)
{
    return call->index;
}

uint64_t call_time(const struct service_call *call)
{
    return call->time;
}

struct slice call_payload(const struct service_call *call)
{
    return call->payload;
}

static struct payload_piece *add_piece(struct service_call *call)
{
    if (call->piece_count == call->piece_capacity) {
        call->piece_capacity = call->piece_capacity == 0 ? PIECES_MIN : call->piece_capacity * 2;
        call->pieces = memory_resize(call->pieces, call->piece_capacity * sizeof(struct payload_piece));
    }
    return &call->pieces[call->piece_count++];
}

uint8_t *call_put(struct service_call *call, size_t size)
{
    mr_assert(size <= PUT_MAX && call->byte_count <= UINT32_MAX - PUT_MAX);
    if (call->byte_count + size > call->byte_capacity) {
        call->byte_capacity = call->byte_capacity == 0 ? BYTES_MIN : call->byte_capacity * 2;
        call->bytes = memory_resize(call->bytes, call->byte_capacity);
    }
    if (call->piece_count > 0 && call->pieces[call->piece_count - 1].blob == NULL)
        call->pieces[call->piece_count - 1].size += (uint32_t)size;
    else
        *add_piece(call) = (struct payload_piece){NULL, (uint32_t)call->byte_count, (uint32_t)size};
    uint8_t *room = call->bytes + call->byte_count;
    call->byte_count += size;
    call->payload_size += size;
    return room;
}

void call_put_blob(struct service_call *call, struct blob *blob, size_t offset, size_t size)
{
    mr_assert(offset <= blob->size && size <= blob->size - offset);
    if (size == 0)
        return;
    *add_piece(call) = (struct payload_piece){blob_share(blob), (uint32_t)offset, (uint32_t)size};
    call->payload_size += size;
}

void call_fail(struct service_call *call, enum status status, const char *message)
{
    mr_assert(status > STATUS_OK && status <= STATUS_INTERNAL);
    call_drop(call);
    call->status = status;
    size_t size = strlen(message);
    if (size > sizeof(call->message)) {
        size = sizeof(call->message);
        while (size > 0 && ((uint8_t)message[size] & 0xC0) == 0x80) /* not within a character */
            size--;
    }
    memcpy(call->message, message, size);
    call->message_size = size;
}
