/* SPDX-License-Identifier: Apache-2.0 */
/* The node of a round: started, and seen from outside as what it is, a supervisor and its children and theirs. Nothing
 * here asks the node anything, for it may be stopped or dying at any moment. */
#ifndef TESTS_CRASH_VICTIM_H
#define TESTS_CRASH_VICTIM_H

#include <stdbool.h>
#include <sys/types.h>

#include "tests/support/spawn.h"

#define VICTIM_OPTIONS_MAX 32
#define VICTIM_WORKERS_MAX 16

struct victim {
    char program[256];
    char dir[256]; /* the data directory */
    char log[256]; /* what it says, in all its lives */
    char option_text[VICTIM_OPTIONS_MAX][32];
    unsigned option_count;
    const char *planted; /* "MR_PLANTED=..."; NULL: no fault */
    struct process process;
    bool ready; /* it has said so, in this life */
};

void victim_option(struct victim *victim, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Begins a life; does not wait until it is ready. */
void victim_start(struct victim *victim);
/* Waits until it says that it is; false: it does not. */
bool victim_wait_ready(struct victim *victim, unsigned milliseconds);
/* Has the supervisor ended? Its status, as waitpid() says it; the next life may begin. */
bool victim_ended(struct victim *victim, int *status);
/* Its workers as they are now: how many. */
unsigned victim_workers(const struct victim *victim, pid_t pids[VICTIM_WORKERS_MAX]);
/* The children of a process: how many of at most VICTIM_WORKERS_MAX. */
unsigned children_of(pid_t pid, pid_t pids[VICTIM_WORKERS_MAX]);

#endif
