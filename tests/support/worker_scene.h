/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a worker without a process (worker_harness.h), in the middle of its work: a session, a counter and a map
 * in it. For cmocka tests: what should be there and is not ends the test. */
#ifndef TESTS_SUPPORT_WORKER_SCENE_H
#define TESTS_SUPPORT_WORKER_SCENE_H

#include "tests/support/requests.h"
#include "tests/support/worker_harness.h"

#define SCENE_USER 1000

struct scene {
    struct harness *harness;
    struct harness_client *client;
    struct request request; /* the one sent last */
    uint64_t session, counter, map;
    uint64_t next; /* sequence number, for whom it suits */
};

/* A new machine, a worker that has started, and its client in slot 0. */
void scene_begin(struct scene *scene, enum durability durability, uint64_t ring_bytes);
/* The same with a harness that the caller has made and set, in scene->harness. */
void scene_start(struct scene *scene, uint64_t ring_bytes);
void scene_end(struct scene *scene);
/* Session, counter and map for a scene that has a client already. */
void scene_open_all(struct scene *scene);
/* Has `work` done by a worker that dies at the calls-th call that `death` counts (0: at none); it is started before if
 * there is none. False: it has died, and is buried. */
struct countdown; /* sudden_death.h */
bool scene_lives(struct scene *scene, struct countdown *death, unsigned calls, void (*work)(void *context),
                 void *context);
/* A second client of the same user, in another slot, with the first one's session. Its request is freed by itself; the
 * rest is the first one's. */
struct scene scene_beside(const struct scene *scene, uint32_t slot, uint64_t ring_bytes);

/* Sends scene->request; the position. */
uint64_t scene_send(struct scene *scene, enum frame_kind kind);
uint64_t scene_increment(struct scene *scene, uint64_t sequence_num);
uint64_t scene_put(struct scene *scene, uint64_t sequence_num, size_t value_size); /* under "key" */
/* A value of up to 10,000 bytes under this key, with scene->next; waits for the answer. */
void scene_put_large(struct scene *scene, const char *key, size_t value_bytes);
uint64_t scene_listen(struct scene *scene, uint64_t sequence_num, const char *key, bool replay);
uint64_t scene_entries(struct scene *scene); /* the query that walks the map */
/* Sends scene->request, waits for its one answer; the id in it. */
uint64_t scene_id(struct scene *scene);

/* The next frame, which must answer this position. */
void scene_take(struct scene *scene, uint64_t position, struct harness_frame *frame);
/* The command output in a frame that must be OK; `part` holds its payload. */
struct command_output scene_output(const struct harness_frame *frame, struct slice *part);
/* The number in a counter's answer. */
int64_t scene_number(const struct harness_frame *frame);

#endif
