/* SPDX-License-Identifier: Apache-2.0 */
/* What engine.c and snapshot.c share: commands as the library would write them, and a state to apply them to. */
#ifndef BENCH_PARTS_ENGINE_H
#define BENCH_PARTS_ENGINE_H

#include "bench/parts/parts.h"

#include <millrace/limits.h>

#include "engine/fsm/fsm.h"
#include "engine/io/io.h"
#include "engine/log/log.h"

#define KEY_BYTES 16

/* An encoded PartitionCommandInput. */
struct request_bytes {
    size_t size;
    uint8_t bytes[2048];
};

void request_write(struct request_bytes *to, const struct partition_command_input *input, struct slice payload);
void request_open_session(struct request_bytes *to);
void request_create(struct request_bytes *to, uint64_t session, const char *type, const char *name);
void request_operation(struct request_bytes *to, uint64_t session, uint64_t service, uint64_t number,
                       const char *operation, struct slice payload);
void request_keep_alive(struct request_bytes *to, uint64_t session, uint64_t number);
struct slice increment_payload(void);
/* `room` for 64 bytes more than the value. */
struct slice put_payload(uint8_t *room, uint64_t key, struct slice value);

struct fsm *state_create(void);
/* Opens session 1, counter 2 and map 3. */
void state_prepare(struct fsm *fsm);
void state_apply(struct fsm *fsm, const uint8_t *bytes, size_t size);

struct io *new_io(void);
struct log_config log_settings(struct io *io, const char *path, enum durability durability);
void append_kept(struct log *log, struct io *io, const struct request_bytes *request);
/* A directory for the part's files: its path. One at a time; it goes with remove_directory(), or with the program, also
 * where that dies. */
const char *make_directory(const struct parts_options *options);
void remove_directory(void);

#endif
