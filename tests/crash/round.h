/* SPDX-License-Identifier: Apache-2.0 */
/* One round: a node and its clients, some time under fire, quiet, the last look, the verdict. Everything that is drawn
 * follows from (seed, round); what real processes make of it does not. */
#ifndef TESTS_CRASH_ROUND_H
#define TESTS_CRASH_ROUND_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/crash/check.h"

struct round_setup {
    uint64_t seed, number;
    const char *folder;  /* the round's own, empty; everything of it stands there */
    const char *program; /* millrace */
    const char *planted; /* a fault's name; NULL: none */
    unsigned wait_ms;    /* how long to wait for what must come */
    bool node_restarts;  /* may the supervisor die? */
};

/* What was done, for the account at the end. */
enum deed {
    KILL_WORKER,
    KILL_WORKER_AGAIN, /* and its successors, while they recover */
    KILL_CLIENT,
    KILL_SNAPSHOT, /* the child that writes one, or whoever is above it */
    KILL_SUPERVISOR,
    KILL_NODE, /* all of it at once */
    KILL_ALL,  /* and the clients */
    STOP_NODE, /* SIGTERM */
    STOP_WORKER,
    STOP_SUPERVISOR,
    STOP_CLIENT, /* SIGSTOP, and SIGCONT later */
    ASK_SNAPSHOT,
    DEED_COUNT
};

struct round_result {
    uint64_t deeds[DEED_COUNT];
    uint64_t node_lives, client_lives;
    struct tally tally;
};

extern const char *const deed_names[DEED_COUNT];

/* True: all is well. What is not stands in FOLDER/verdict. */
bool round_run(const struct round_setup *setup, struct round_result *result);

#endif
