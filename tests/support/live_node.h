/* SPDX-License-Identifier: Apache-2.0 */
/* A real node of a test's own: the millrace that MILLRACE_BIN names, in a temporary directory, started, stopped, killed
 * in part or whole, and started again on the same directory. Functions fail the test where the node does not do what
 * they are for. */
#ifndef TESTS_SUPPORT_LIVE_NODE_H
#define TESTS_SUPPORT_LIVE_NODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"

#define NODE_OPTIONS_MAX 40
#define NODE_PARTITIONS_MAX 8

struct node {
    char *folder;                          /* the test's: holds all the rest */
    char dir[TEMP_PATH_MAX];               /* the data directory */
    char socket[TEMP_PATH_MAX];            /* in it */
    char log[TEMP_PATH_MAX];               /* what the node said on standard error, in all its lives */
    const char *options[NODE_OPTIONS_MAX]; /* of `serve`, behind --dir; NULL-terminated; may be changed between lives */
    struct process process;                /* the supervisor; pid 0: none */
};

/* What the node says of one partition. */
struct node_partition {
    char state[32];
    char reason[512];
    pid_t pid; /* 0: no worker */
    uint64_t applied, sessions, channels, restarts;
    uint64_t log_bytes, snapshot_index, snapshot_bytes;
};

/* A place for a node, and its options (NULL-terminated strings that live as long as it). Small rings and segments come
 * first, so that it starts at once, fills several segments and takes snapshots. Nothing is started. */
void node_prepare(struct node *node, const char *const options[]);
/* Starts it and waits until every partition serves, or is stopped. */
void node_start(struct node *node);
/* node_prepare() and node_start(). */
void node_begin(struct node *node, const char *const options[]);
/* SIGTERM, and waits: the exit status, or 128 + signal. */
int node_stop(struct node *node);
/* SIGKILL to the supervisor alone, and waits until its workers are gone as well. */
void node_kill(struct node *node);
/* SIGKILL to every worker and to the supervisor. */
void node_kill_all(struct node *node);
/* Kills what runs and removes the directory. Safe twice. */
void node_end(struct node *node);

struct node_partition node_partition(const struct node *node, uint32_t partition);
/* SIGKILL to a partition's worker, whatever it is at; gives the pid that it had, for node_wait_worker(). Waits for one
 * to be there, not for the next. Before node_stop(), wait for the next: a node one of whose workers is dying when it is
 * told to stop says, rightly, that it did not stop in order. */
pid_t node_kill_worker(const struct node *node, uint32_t partition);
/* Waits until a worker other than `before` serves, and gives its pid. */
pid_t node_wait_worker(const struct node *node, uint32_t partition, pid_t before);
/* Is there a process with this pid that has not ended? */
bool process_runs(pid_t pid);

/* The `millrace` command, told the socket by its environment: words ending with NULL. Free the result. */
struct process_result node_command(const struct node *node, const char *const words[]);
/* Does what it said on standard error contain this? */
bool node_said(const struct node *node, const char *text);

#endif
