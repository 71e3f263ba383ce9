/* SPDX-License-Identifier: Apache-2.0 */
/* Running an operation and collecting its answer. Knows no session and no particular service. */
#include "engine/fsm/call.h"

#include "engine/fsm/memory.h"
#include "ipc/error.h"
#include "proto/writer.h"

#include <stdlib.h>
#include <string.h>

enum {
    BYTES_MIN = 2 * CALL_PUT_MAX, /* to begin with; grows by doubling */
    PIECES_MIN = 16,
};

void call_release(struct service_call *call)
{
    for (size_t i = 0; i < call->piece_count; i++)
        blob_release(call->pieces[i].blob);
    call->piece_count = 0;
    call->shared_size = 0;
    call->byte_count = 0;
    if (call->byte_capacity > CALL_BYTES_KEPT) {
        free(call->bytes);
        call->bytes = NULL;
        call->byte_capacity = 0;
    }
}

void call_free(struct service_call *call)
{
    call_release(call);
    free(call->bytes);
    free(call->pieces);
    *call = (struct service_call){0};
}

static inline const struct service_operation *find_operation(const struct service_type *type, struct slice name)
{
    for (size_t i = 0; i < type->operation_count; i++) {
        const struct service_operation *operation = &type->operations[i];
        if (operation_is(operation, name))
            return operation;
    }
    return NULL;
}

static inline bool is_query(const struct service_operation *operation)
{
    return operation->kind == OPERATION_QUERY || operation->kind == OPERATION_QUERY_STREAM;
}

static void refuse(struct service_call *call, const struct service_operation *operation)
{
    if (operation == NULL)
        call_fail(call, STATUS_NOT_SUPPORTED, "the service has no operation of that name");
    else if (is_query(operation))
        call_fail(call, STATUS_INVALID, "the operation is a query and was sent as a command");
    else
        call_fail(call, STATUS_INVALID, "the operation is a command and was sent as a query");
}

void call_run(struct service_call *call, const struct service_type *type, void *state, struct slice name, bool query)
{
    const struct service_operation *operation = find_operation(type, name);
    if (operation == NULL || is_query(operation) != query) {
        refuse(call, operation);
        return;
    }
    call->kind = operation->kind;
    operation->run(state, call);
}

void call_cursor(struct service_call *call, struct service_cursor *cursor)
{
    mr_assert(call->kind == OPERATION_QUERY_STREAM && call->cursor == NULL);
    call->cursor = cursor;
}

void call_grow(struct service_call *call)
{
    mr_assert(call->byte_count <= UINT32_MAX - CALL_PUT_MAX);
    call->byte_capacity = call->byte_capacity == 0 ? BYTES_MIN : call->byte_capacity * 2;
    call->bytes = memory_resize(call->bytes, call->byte_capacity);
}

void call_put_blob(struct service_call *call, struct blob *blob, size_t offset, size_t size)
{
    mr_assert(offset <= blob->size && size <= blob->size - offset && call->byte_count <= UINT32_MAX);
    if (size == 0)
        return;
    if (call->piece_count == call->piece_capacity) {
        call->piece_capacity = call->piece_capacity == 0 ? PIECES_MIN : call->piece_capacity * 2;
        call->pieces = memory_resize(call->pieces, call->piece_capacity * sizeof(struct shared_piece));
    }
    call->pieces[call->piece_count++] = (struct shared_piece){
        .blob = blob_share(blob), .at = (uint32_t)call->byte_count, .offset = (uint32_t)offset, .size = (uint32_t)size};
    call->shared_size += size;
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
