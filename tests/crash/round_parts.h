/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a round share. */
#ifndef TESTS_CRASH_ROUND_PARTS_H
#define TESTS_CRASH_ROUND_PARTS_H

#include <stdio.h>

#include "tests/crash/history.h"
#include "tests/crash/round.h"
#include "tests/crash/victim.h"

#define STOPPED_MAX 8

struct process_state {
    pid_t pid;   /* 0: none */
    bool killed; /* by us: its end is no surprise */
};

struct round {
    struct history *history;
    struct victim victim;
    struct process_state clients[CLIENTS_MAX];
    struct {
        pid_t pid;
        uint64_t until_ms;  /* when it goes on */
    } stopped[STOPPED_MAX]; /* by SIGSTOP; pid 0: free */
    struct process asker;   /* `millrace snapshot` on its way */
    struct round_result *result;
    const char *folder;
    FILE *verdict, *deeds;
    uint64_t random;
    unsigned wait_ms;
    uint64_t start_at; /* when the node's next life begins */
    int node_exit;     /* how its last one ended */
    bool end_expected; /* it was told to end */
    bool no_restart;   /* and stays so */
    bool failed;
    char planted[64];
};

uint64_t round_draw(struct round *round, uint64_t below);
void round_fail(struct round *round, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* For the account of the round. */
void round_note(struct round *round, const char *format, ...) __attribute__((format(printf, 2, 3)));
void round_start_client(struct round *round, unsigned number);
/* Takes note of who ended, and starts who comes next. */
void round_tend(struct round *round);
/* Until it holds; false: not in time, which is the round's failure. */
bool round_wait(struct round *round, bool (*condition)(struct round *), const char *what);

bool round_node_ready(struct round *round);

/* Kills and stops at random, for the round's time. */
void fire(struct round *round);
/* Lets go on whoever was stopped long enough; `all`: whoever is stopped. */
void fire_resume(struct round *round, bool all);

/* All that follows while the node lives. */
void settle(struct round *round);
/* Once it is gone. A directory that a node left, in order or not, is sound. */
void settle_directory(struct round *round);
/* No word of damage, of assertions, of what killed a worker. */
void settle_log(struct round *round);

#endif
