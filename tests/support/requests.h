/* SPDX-License-Identifier: Apache-2.0 */
/* Requests for tests: each call encodes one message as a client's library does, and reads it back as the node does, so
 * that both forms are at hand. A request may be built again and again; what it held before is gone then. */
#ifndef TESTS_SUPPORT_REQUESTS_H
#define TESTS_SUPPORT_REQUESTS_H

#include "proto/messages.h"
#include "proto/writer.h"

#define COUNTER_TYPE "atomix.multiraft.counter.v1.Counter"
#define MAP_TYPE "atomix.multiraft.map.v1.Map"

/* An operation's input message, built field by field. All zero: an empty one. */
struct payload {
    uint8_t data[4096];
    size_t size;
};
void payload_number(struct payload *payload, unsigned field, uint64_t value);
void payload_bytes(struct payload *payload, unsigned field, struct slice bytes);
void payload_message(struct payload *payload, unsigned field, const struct payload *message);

struct slice text(const char *string); /* its bytes without the NUL */
struct slice payload_slice(const struct payload *payload);

struct payload number_payload(uint64_t value);                   /* field 1: the counter's inputs */
struct payload numbers_payload(uint64_t first, uint64_t second); /* fields 1 and 2 */
struct payload key_payload(const char *key, uint64_t index);     /* the map's RemoveInput, GetInput */
struct payload write_payload(const char *key, struct slice value, const struct duration *ttl, uint64_t index);

struct payload events_payload(const char *key, bool replay);

struct request {
    uint8_t *bytes; /* the encoded PartitionCommandInput or PartitionQueryInput */
    size_t size, capacity;
    struct partition_command_input command; /* what the reader says of `bytes` */
    struct partition_query_input query;
};
/* Its symbol is another: the library, linked into the same test, has a function of that name for requests of its own.
 */
void request_free(struct request *request) __asm__("test_request_free");

/* All of them name partition 1. */
void request_open_session(struct request *request, struct duration timeout);
void request_keep_alive(struct request *request, uint64_t session, struct slice filter, uint64_t last_input,
                        const struct last_output *last_outputs, size_t count);
void request_close_session(struct request *request, uint64_t session);
void request_create_service(struct request *request, uint64_t session, const char *type, const char *name_space,
                            const char *name);
void request_close_service(struct request *request, uint64_t session, uint64_t service);
void request_command(struct request *request, uint64_t session, uint64_t service, uint64_t sequence_num,
                     const char *operation, struct slice payload);
void request_query(struct request *request, uint64_t session, uint64_t service, const char *operation,
                   struct slice payload);

/* A filter over `numbers` with `bits` (a multiple of 8, at least 64) and `probes`, written into `to`, which has room
 * for 2 + bits / 8 bytes. */
struct slice make_filter(uint8_t *to, unsigned probes, size_t bits, const uint64_t *numbers, size_t count);

#endif
