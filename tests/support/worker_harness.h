/* SPDX-License-Identifier: Apache-2.0 */
/* A worker without a process: its turns run on a machine in memory (fake_io.h), its clients are plain ring ends in the
 * same process. A death is fake_io_crash_process() and forgetting everything but what outlives a worker: the region,
 * the channels, the disk. */
#ifndef TESTS_SUPPORT_WORKER_HARNESS_H
#define TESTS_SUPPORT_WORKER_HARNESS_H

#include "engine/node/worker_state.h"
#include "tests/support/fake_io.h"

#define HARNESS_CLIENTS 4
#define HARNESS_MEMORY_SEGMENTS 8

struct harness_frame {
    struct response_head head;
    uint8_t body[4096]; /* the first so many bytes of it */
};

/* A client's side of a channel. */
struct harness_client {
    struct harness *harness;
    struct channel channel;
    struct ring_writer requests;
    struct ring_reader responses;
    uint32_t slot;
    bool shares; /* its requests ask for shared frames; harness_take() gives them as one for each request */
    bool closed; /* the worker let go of it */
    char why[128];
    /* What harness_take() has still to give of a shared frame. */
    struct harness_frame shared;
    struct response_other others[FRAME_OTHERS_MAX];
    unsigned given;
};

struct harness {
    struct fake_machine *machine;
    struct io *io;
    struct worker worker;
    struct region *region;
    struct harness_client clients[HARNESS_CLIENTS];
    struct log_recovery found;     /* by the last start */
    struct mr_error error;         /* of a start that failed */
    void (*new_io)(struct io *io); /* told of each life's io before anyone uses it; NULL: nobody */
    enum durability durability;
    uint64_t max_payload;
    uint64_t segment_bytes;
    uint64_t batch_bytes;
    int memory_segments[HARNESS_MEMORY_SEGMENTS]; /* memfds, memory_count of them: what a supervisor keeps */
    uint32_t memory_count;
    int memory_snapshots[SNAPSHOTS_KEPT]; /* likewise, once there was a start with DURABILITY_MEMORY */
    uint64_t snapshot_bytes;              /* 0 (default): only on demand and at a stop */
    uint64_t disk_limit;                  /* 0 (default): none */
    unsigned warnings;                    /* notices of that level, in all lives */
    char notice[600];                     /* the last one */
    char warning[600];                    /* the last one of that level */
    uint64_t session_output_limit;
    uint64_t hash_seed;
    void (*progress)(void *context, uint64_t done, uint64_t total); /* of recovery; NULL: nobody is told */
    void *progress_context;
};

struct harness *harness_create(uint64_t seed);
void harness_destroy(struct harness *harness);
/* Where its workers keep snapshots and when they take them; for who starts one by himself. */
struct snapshots_config harness_snapshots(struct harness *harness);
/* A worker's life begins: recovery. 0, or -1: harness->error says why (then it is a stopped partition's worker). */
int harness_start(struct harness *harness);
void harness_kill(struct harness *harness);
/* An orderly end: what is logged is answered, the log closed, a snapshot written. 0, or -1: harness->error. */
int harness_stop(struct harness *harness);
/* Has a snapshot taken and waits until it is there. False: there is none; the notice says why. */
bool harness_snapshot(struct harness *harness);
/* A new channel in slot n, of this user. */
struct harness_client *harness_client(struct harness *harness, uint32_t slot, uint32_t uid, uint64_t ring_bytes);
/* Puts a frame in the request ring, publishes it, and wakes the worker if it asked for that. Its position, or
 * UINT64_MAX if there is no room. */
uint64_t harness_send(struct harness_client *client, enum frame_kind kind, const void *body, size_t size,
                      uint64_t time_limit);
/* The next response frame, if one is published; it is read out of the ring and its room given back. */
bool harness_take(struct harness_client *client, struct harness_frame *frame);
/* Turns until nothing is to do for three in a row (completions are let happen between them). */
void harness_settle(struct harness *harness);

#endif
