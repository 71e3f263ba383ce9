/* SPDX-License-Identifier: Apache-2.0 */
/* A state machine under test: applies requests one after the other, with the next index and a time that the test moves,
 * and keeps what was said to the last one. */
#ifndef TESTS_SUPPORT_PARTITION_H
#define TESTS_SUPPORT_PARTITION_H

#include "engine/fsm/fsm.h"
#include "millrace/limits.h"
#include "tests/support/requests.h"

/* An answer, copied. */
struct reply {
    enum status status; /* of the frame */
    char message[256];  /* of the frame or, if that is OK, of the operation */
    uint64_t session_id, sequence_num, number;
    bool last;
    uint64_t index, id;
    enum command_kind kind;
    enum session_command_kind session_kind;
    enum status operation_status;
    uint8_t *payload;
    size_t payload_size, capacity;
    uint64_t channel, position;
};

/* Is there room for it? Asked for every answer with a number. */
typedef bool partition_room_fn(void *context, const struct fsm_route *route, const struct fsm_answer *answer);

struct partition {
    struct fsm *fsm;
    struct fsm_config config; /* its */
    uint64_t index;           /* of the last entry */
    uint64_t time;
    uint32_t uid;
    struct fsm_route route;
    struct request request;
    struct reply reply;
    partition_room_fn *room; /* NULL: always */
    void *room_context;
    struct reply *said; /* all that was said and taken during the last entry or delivery, to whomever */
    size_t said_count, said_capacity;
};

#define PARTITION_START (UINT64_C(1700000000) * MR_SECOND) /* its time at first */

struct partition *partition_create(uint64_t hash_seed, uint64_t session_output_limit);
struct partition *partition_create_with(uint64_t hash_seed, uint64_t session_output_limit,
                                        const struct service_type *const *types);
void partition_destroy(struct partition *partition);

/* Applies partition->request; exactly one answer is expected at its route, its last, and returned. */
const struct reply *partition_apply(struct partition *partition);
/* Applies it whatever is said. */
void partition_submit(struct partition *partition);
/* fsm_deliver() to a route. */
bool partition_deliver(struct partition *partition, uint64_t session, uint64_t sequence_num, struct fsm_route route,
                       bool *gone);
/* Of a query with one output. */
const struct reply *partition_query(struct partition *partition, uint64_t now);
/* Of one with many: NULL if it is answered otherwise, by partition->reply. */
struct fsm_cursor *partition_cursor(struct partition *partition, uint64_t session, uint64_t service,
                                    const char *operation, struct payload payload);
/* Its next output, which is thereby taken; *reply has the frame's status, and `last`. */
const struct reply *partition_cursor_next(struct partition *partition, struct fsm_cursor *cursor);
void partition_tick(struct partition *partition, uint64_t time); /* an entry with nothing but time */

/* The same for each request, built and applied. */
uint64_t partition_open_session(struct partition *partition, uint64_t timeout); /* nanoseconds */
const struct reply *partition_keep_alive(struct partition *partition, uint64_t session, struct slice filter,
                                         uint64_t last_input);
const struct reply *partition_create_service(struct partition *partition, uint64_t session, const char *type,
                                             const char *name);
const struct reply *partition_command(struct partition *partition, uint64_t session, uint64_t service,
                                      uint64_t sequence_num, const char *operation, struct payload payload);
const struct reply *partition_ask(struct partition *partition, uint64_t session, uint64_t service,
                                  const char *operation, struct payload payload);
/* Field 1 of a payload: a counter's value, a map's size. */
uint64_t reply_number(const struct reply *reply);

/* The whole state, both sections one behind the other; the caller frees it. */
uint8_t *partition_dump(struct partition *partition, size_t *size);
/* The first section, a PartitionSnapshot, ends where the second one, a SnapshotExtra, begins. */
size_t partition_snapshot_size(struct partition *partition);

/* A state restored from a dump of `size` bytes, whose first section has `snapshot_size`, with another hash seed. NULL
 * with *error: refused. */
struct fsm *partition_restored(const struct partition *partition, const uint8_t *dump, size_t snapshot_size,
                               size_t size, struct mr_error *error);
/* The partition goes on with a state restored from its own, which must be the same to the byte. */
void partition_restore(struct partition *partition);

struct duration duration_of(uint64_t nanoseconds);

#endif
