/* SPDX-License-Identifier: Apache-2.0 */
/* What the processes of a bout run. Their exit status is 0 if all was well; else the board says what was not. */
#ifndef TESTS_ATTACK_LIVES_H
#define TESTS_ATTACK_LIVES_H

#include "tests/attack/board.h"

/* Until there are no more rounds: one attack each. */
int attacker_live(struct board *board, unsigned number);
/* As the attackers' user, when they are gone: closes every session that they left. */
int attackers_clean_up(struct board *board);

/* The others go through the public library. */

/* Until board->finish: counts and puts, one call after the other, each answer exactly what it must be, and timed; then
 * looks at all that it has left. */
int honest_live(struct board *board);
/* Until board->stop: counts in batches and computes between them, using as much of a processor as the board says, as
 * the attackers' user. */
int calm_live(struct board *board, unsigned number);

#endif
