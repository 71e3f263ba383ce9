/* SPDX-License-Identifier: Apache-2.0 */
/* A bout: a node, an honest client, and attackers for some rounds; then everything is to be as if they had never
 * been. */
#ifndef TESTS_ATTACK_BOUT_H
#define TESTS_ATTACK_BOUT_H

#include "tests/attack/board.h"

#define TURNS_MAX 1000 /* of one bout, of which the ratio is noted */

struct bout_setup {
    uint64_t seed, first, end; /* rounds from first up to, and without, end */
    const char *durability;
    const char *only; /* attacks whose name contains this; NULL: all */
    unsigned wait_ms;
    unsigned turn_ms;  /* how long calm ones and attackers have their turns */
    bool worker_first; /* it has its processor before anybody else */
    /* Called now and then: so many rounds are over. */
    void (*progress)(uint64_t next);
};

struct bout_result {
    uint64_t begun[ATTACKS_MAX], closed[ATTACKS_MAX], took[ATTACKS_MAX], slow[ATTACKS_MAX];
    uint64_t opened, calls, calm_calls;
    struct histogram latency[BESIDES];
    double ratios[TURNS_MAX]; /* of p99 in the attackers' turn to that in the calm ones' before it */
    unsigned turns;
    double share[BESIDES];    /* of a processor, that each attacker and each calm one used */
    bool goes_first;          /* the honest client, and nobody was where the worker is */
    uint64_t anonymous_bytes; /* that worker and supervisor had more at the end than after the warm-up; 0: less */
};

/* False: something was not as it should be; it has been printed, and the node's folder is left behind. */
bool bout_run(const struct bout_setup *setup, struct bout_result *result);

#endif
