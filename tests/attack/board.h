/* SPDX-License-Identifier: Apache-2.0 */
/* What the processes of a bout tell each other: shared memory, written by the one that a part is named after. */
#ifndef TESTS_ATTACK_BOARD_H
#define TESTS_ATTACK_BOARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench/load/histogram.h"

#define ATTACKERS 2
#define ATTACKS_MAX 64
/* Rounds that an attacker takes at a time. */
#define ROUNDS_AT_ONCE 32
/* Attackers are of this user, well-behaved neighbours of the next, the honest client of the node's own. */
#define STRANGER 54321
#define NEIGHBOUR 54322

/* Beside whom the honest client's calls are made. Uncounted: in the warm-up, and while others come and go. */
enum beside { BESIDE_UNCOUNTED, BESIDE_NOBODY, BESIDE_CALM, BESIDE_ATTACK, BESIDES };

struct attacker_account {
    _Atomic uint64_t round; /* that it is at; 0: none yet */
    _Atomic uint32_t attack;
    uint64_t begun[ATTACKS_MAX];  /* rounds of each attack */
    uint64_t closed[ATTACKS_MAX]; /* of these, that ended with the channel closed by the node */
    uint64_t took[ATTACKS_MAX];   /* microseconds, with all that came of them */
    uint64_t slow[ATTACKS_MAX];   /* by the honest client: its slow calls that ended meanwhile */
    uint64_t opened;              /* channels */
    uint64_t session;             /* of the last life; 0: none */
    char failure[600];            /* empty: none */
};

struct honest_account {
    _Atomic bool ready, ended; /* its services are open; all was as it should when it looked the last time */
    _Atomic uint64_t calls;
    _Atomic uint32_t beside; /* enum beside: where its calls of now are counted */
    struct histogram latency[BESIDES];
    char failure[600];
};

struct calm_account {
    _Atomic uint64_t calls;
    char failure[600];
};

struct board {
    char socket[256];
    uint64_t seed;
    const char *only;           /* attacks whose name contains this; NULL: all */
    unsigned wait_ms;           /* how long what must come may take */
    _Atomic uint64_t next, end; /* rounds to be taken: from next up to, and without, end */
    _Atomic bool stop;          /* attackers and calm ones: no more */
    _Atomic bool finish;        /* the honest one: one last look, then go */
    _Atomic uint32_t beside;    /* enum beside */
    bool goes_first;            /* the honest one has a processor before others, none has the worker's */
    double share;               /* of a processor: what each calm one uses */
    _Atomic uint64_t slow_ns;   /* a call of the honest one's that takes longer is slow */
    struct attacker_account attackers[ATTACKERS];
    struct calm_account calm[ATTACKERS];
    struct honest_account honest;
};

/* Splitmix64: the next number of a sequence, below `below` (over 0). */
static inline uint64_t draw_from(uint64_t *random, uint64_t below)
{
    uint64_t z = *random += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (z ^ (z >> 31)) % below;
}

#endif
