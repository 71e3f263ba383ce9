/* SPDX-License-Identifier: Apache-2.0 */
/* A scene (worker_scene.h) about snapshots: puts that let the log grow, which snapshots there are, and a worker's state
 * beside the one that its successor recovers. For cmocka tests: what should be there and is not ends the test. */
#ifndef TESTS_SUPPORT_SNAPSHOT_SCENE_H
#define TESTS_SUPPORT_SNAPSHOT_SCENE_H

#include "tests/support/worker_scene.h"

#define SNAPSHOT_SCENE_RING (64 * MR_KIB)
#define SNAPSHOT_SCENE_MOST 8
#define PARTITION_FOLDER "/partition-0001"

/* As scene_begin(), a snapshot for every so many bytes of log; 0: none without being asked. */
void snapshot_scene_begin(struct scene *scene, enum durability durability, uint64_t every);
/* The worker dies, and its successor recovers what it can. */
void snapshot_scene_restart(struct scene *scene);

/* A put of a kilobyte, under the scene's next number, and its answer. False: UNAVAILABLE, and the number stays. */
bool snapshot_scene_put(struct scene *scene);
/* Acknowledges every number before the scene's next; with what it was answered. */
enum status snapshot_scene_acknowledge(struct scene *scene);
/* So many puts, none of which may fail, and all of them acknowledged. */
void snapshot_scene_puts(struct scene *scene, unsigned count);

/* The names of whole snapshots, oldest first; how many. */
unsigned snapshot_names(struct harness *harness, char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE]);
/* The index of the newest that the worker knows of; 0: of none. */
uint64_t snapshot_newest(const struct harness *harness);

struct state_dump {
    uint8_t *bytes;
    size_t size;
};

/* The worker's whole state; freed by the comparison. */
struct state_dump state_dump(struct harness *harness);
void assert_same_state(struct harness *harness, struct state_dump *before);

#endif
