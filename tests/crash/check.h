/* SPDX-License-Identifier: Apache-2.0 */
/* Judges a round by its history. Each function appends what is wrong to `verdict`, a line each, and gives whether all
 * is well. */
#ifndef TESTS_CRASH_CHECK_H
#define TESTS_CRASH_CHECK_H

#include <stdio.h>

#include "tests/crash/history.h"

/* What was counted on the way, for people. */
struct tally {
    uint64_t operations, unanswered, events, sessions, objects, configurations;
};

/* Everything below. */
bool check_round(const struct history *history, FILE *verdict, struct tally *tally);

/* Each counter and each key by itself is linearizable; sums are exact; an entry's index and its value belong
 * together. */
bool check_objects(const struct history *history, FILE *verdict, struct tally *tally);
/* In each partition the indexes that commands were told are all different, and one that was answered before another was
 * called has the smaller one. */
bool check_indexes(const struct history *history, FILE *verdict);
/* Each stream: no gap, no repeat, nothing that nobody wrote, and at its end what the last look saw. */
bool check_streams(const struct history *history, FILE *verdict, struct tally *tally);
/* The sessions that openers have open are those that they were told of, and perhaps some that died unanswered. */
bool check_sessions(const struct history *history, FILE *verdict, struct tally *tally);

#endif
