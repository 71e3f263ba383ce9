/* SPDX-License-Identifier: Apache-2.0 */
/* Decides whether a history of operations on one object is linearizable: whether the operations could have taken effect
 * one at a time, each at a moment between its call and its answer, with just the answers that were given. It knows
 * nothing of nodes and processes.
 *
 * The object is a 64-bit state: a counter's value, or what stands at a map's key (the number of the value, 0: nothing).
 *
 * An operation that was never answered may have taken effect at any moment after its call, once, or not at all.
 *
 * Operations of one lane take effect in the order in which they are listed, whether or not their times overlap (a
 * client's commands on one handle); and of a lane's unanswered operations at its end, one takes effect only if those
 * before it did. Operations that may overtake each other go into different lanes; operations that follow each other in
 * time may share one.
 *
 * The search is Wing and Gong's with Lowe's memory of the configurations that led nowhere: a configuration is a
 * position in every lane and the state. */
#ifndef TESTS_CRASH_LINEARIZABLE_H
#define TESTS_CRASH_LINEARIZABLE_H

#include <stddef.h>
#include <stdint.h>

#define LIN_NEVER UINT64_MAX   /* as `answered`: there was no answer */
#define LIN_ANY UINT64_MAX     /* as `condition`: none */
#define LIN_NO_HINT UINT64_MAX /* as `hint` */
#define LIN_LANES_MAX 2048

enum lin_kind {
    LIN_READ,   /* OK: result is the state; ABSENT: the state is 0 (keys) */
    LIN_ADD,    /* state += argument; OK: result is the new state */
    LIN_SET,    /* state = argument; OK */
    LIN_CAS,    /* state = argument if it is `condition`, else CONFLICT */
    LIN_PUT,    /* state = argument; CONFLICT unless `condition` is LIN_ANY or the state, which is not 0 */
    LIN_INSERT, /* state = argument if it is 0, else EXISTS */
    LIN_UPDATE, /* ABSENT if it is 0; else as LIN_PUT */
    LIN_REMOVE  /* ABSENT if it is 0; CONFLICT unless `condition` is LIN_ANY or the state; else state = 0, and result
                   is what it was */
};

enum lin_outcome { LIN_OK, LIN_ABSENT, LIN_EXISTS, LIN_CONFLICT };

struct lin_operation {
    uint64_t called;   /* moments: of one clock, all different */
    uint64_t answered; /* later than `called`; LIN_NEVER */
    uint32_t lane;     /* any number below LIN_LANES_MAX */
    enum lin_kind kind;
    enum lin_outcome outcome; /* of answered ones, like result */
    uint64_t argument, condition, result;
    uint64_t hint; /* a guess at its place among those that change something, or LIN_NO_HINT: what the search tries
                      first, of no meaning for what it decides */
};

enum lin_verdict {
    LIN_YES,
    LIN_NO,
    LIN_UNDECIDED /* more configurations than `most`, or no memory */
};

/* Why not, as far as it can be told: how far the best attempt came. */
struct lin_report {
    size_t configurations; /* looked at */
    size_t placed;         /* operations in the longest order that fits */
    uint64_t state;        /* behind those */
    size_t stuck;          /* of those that did not fit there the one that was answered first; an index, or SIZE_MAX */
};

/* Within a lane the operations stand in their order; otherwise in any. `report` may be NULL. */
enum lin_verdict linearizable(const struct lin_operation *operations, size_t count, uint64_t initial, size_t most,
                              struct lin_report *report);

/* What an operation does to `state`, and what it answers. */
enum lin_outcome lin_apply(const struct lin_operation *operation, uint64_t *state, uint64_t *result);

#endif
