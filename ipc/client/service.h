/* SPDX-License-Identifier: Apache-2.0 */
/* Services as the caller opens them, and the frame around their operations. A service type is a table of operations;
 * what their payloads are only the type's own file knows. */
#ifndef IPC_CLIENT_SERVICE_H
#define IPC_CLIENT_SERVICE_H

#include "ipc/client/client.h"

/* What mr_counter and mr_map are: one handle of the caller's on a service. */
struct handle {
    struct mr_client *client;
    struct service *service; /* NULL: it is being closed */
    struct handle *next;     /* of the client's */
};

struct operation {
    struct slice name;
    enum frame_kind kind;
    enum answer_kind answer;
    /* The payload, in two steps: its exact size, and its bytes, to where they stay. NULL: it is empty. */
    size_t (*size)(const void *arguments);
    void (*write)(const void *arguments, uint8_t *to);
};
#define OPERATION_NAME(literal)                                                                                        \
    {                                                                                                                  \
        (const uint8_t *)(literal), sizeof(literal) - 1                                                                \
    }

/* Opens the service, waiting; *out is zeroed `size` bytes that begin with a struct handle, malloc()ed, and belongs to
 * the client; NULL on failure. */
enum mr_status service_open(struct mr_client *client, const char *type, const char *name, size_t size, void **out);
/* Closes the handle, and the service with its last one, waiting; frees the handle. NULL is fine. */
enum mr_status service_close(struct handle *handle);
void services_free(struct mr_client *client);

/* Starts an operation: the _start calls. */
enum mr_status service_start(struct handle *handle, const struct operation *operation, const void *arguments,
                             struct mr_then then, uint64_t *request);
/* The same, waiting for room if there is none; client_enter_alone() has been called. */
enum mr_status service_start_waiting(struct handle *handle, const struct operation *operation, const void *arguments,
                                     struct mr_then then, uint64_t *request);
/* Starts it and waits for its answer: the plain calls. *result may be NULL; its bytes stay until the next call. */
enum mr_status service_call(struct handle *handle, const struct operation *operation, const void *arguments,
                            struct mr_result *result);

#endif
