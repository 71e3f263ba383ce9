/* SPDX-License-Identifier: Apache-2.0 */
/* A bout: a node, an honest client, and attackers for some rounds; then everything is to be as if they had never
 * been. */
#ifndef TESTS_ATTACK_BOUT_H
#define TESTS_ATTACK_BOUT_H

#include "tests/attack/board.h"

struct bout_setup {
    uint64_t seed, first, end; /* rounds from first up to, and without, end */
    const char *durability;
    const char *only;          /* attacks whose name contains this; NULL: all */
    unsigned wait_ms, calm_ms; /* how long the honest client is timed beside calm ones */
    /* Called now and then: so many rounds are over. */
    void (*progress)(uint64_t next);
};

struct bout_result {
    uint64_t begun[ATTACKS_MAX], closed[ATTACKS_MAX], took[ATTACKS_MAX];
    uint64_t opened, calls, calm_calls;
    struct histogram latency[BESIDES];
    double share;             /* of a processor, that each attacker used */
    uint64_t anonymous_bytes; /* that worker and supervisor had more at the end than after the warm-up; 0: less */
};

/* False: something was not as it should be; it has been printed, and the node's folder is left behind. */
bool bout_run(const struct bout_setup *setup, struct bout_result *result);

#endif
