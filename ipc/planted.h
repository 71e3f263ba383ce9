/* SPDX-License-Identifier: Apache-2.0 */
/* Faults planted for the checkers: the simulator, the crash run, the attack and others are trusted because they find
 * theirs. They exist in builds for tests only (-DMR_TESTING), where one can be switched on; elsewhere PLANTED() is
 * false. */
#ifndef IPC_PLANTED_H
#define IPC_PLANTED_H

enum planted_fault {
    PLANTED_NOTHING,
    PLANTED_ANSWER_BEFORE_FLUSH,
    PLANTED_NO_DIRECTORY_SYNC,
    PLANTED_WRONG_TORN_RULE,
    PLANTED_HEAD_MOVED_EARLY,
    PLANTED_NUMBER_FORGOTTEN,     /* at a snapshot */
    PLANTED_STALE_BATCH_BELIEVED, /* of a segment that is used again */
    PLANTED_NO_EPOCH_AFTER_FAILURE,
    PLANTED_SIMULATED, /* the number of those that the simulator is shown to find */

    /* The attack's: */
    PLANTED_LENGTH_READ_TWICE = PLANTED_SIMULATED, /* once to be checked, once to be used */
    PLANTED_CHECKED_BEFORE_COPIED,                 /* a command */
    PLANTED_TAIL_BELIEVED,
    PLANTED_BELL_GIVEN_AWAY, /* the eventfd itself goes to the client */

    /* A test's each: */
    PLANTED_BELL_UNPRICED,   /* what waking a client costs is charged to nobody: tests/unit/node/test_bells.c */
    PLANTED_SEED_IGNORED,    /* by the tables' hash: tests/unit/fsm/test_collisions.c */
    PLANTED_DESCRIPTOR_LEFT, /* a connection's, by the supervisor: tests/integration/test_flat.c */
    PLANTED_MAPPING_LEFT,    /* a channel's, by the worker: likewise */
    PLANTED_COUNT
};

#ifdef MR_TESTING
extern enum planted_fault planted_fault;
#define PLANTED(fault) __builtin_expect(planted_fault == PLANTED_##fault, 0)
#else
#define PLANTED(fault) 0
#endif

#endif
