/* SPDX-License-Identifier: Apache-2.0 */
/* A second thread of an attacker's that does one thing over and over while the worker looks: changes words or bytes of
 * shared memory, writes to a descriptor, punches holes. One at a time, from start to stop. */
#ifndef TESTS_ATTACK_MEDDLER_H
#define TESTS_ATTACK_MEDDLER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum meddling {
    MEDDLE_NOT,
    MEDDLE_WORD,     /* *word is now `a`, now `b` */
    MEDDLE_BYTES,    /* each byte of at[size] is now first[]'s, now second[]'s, now neither's */
    MEDDLE_FLAGS,    /* the four words of flags[] go up and down */
    MEDDLE_BELL,     /* writes to descriptor */
    MEDDLE_BLOCKING, /* sets and clears O_NONBLOCK of descriptor */
    MEDDLE_PUNCH,    /* tries to punch holes into descriptor */
    MEDDLE_END
};

struct meddler {
    pthread_t thread;
    sem_t begin;
    _Atomic uint32_t what;  /* enum meddling */
    _Atomic uint64_t turns; /* of the thing begun last */
    _Atomic bool idle;
    /* of what is being done */
    uint64_t random;
    _Atomic uint64_t *word;
    uint64_t a, b;
    uint8_t *at;
    const uint8_t *first, *second;
    size_t size;
    _Atomic uint32_t *flags[4];
    int descriptor;
    bool punched; /* a hole was punched */
};

void meddler_init(struct meddler *meddler); /* aborts if it cannot */
void meddler_end(struct meddler *meddler);
/* The fields have been filled in. Comes back when the first turn is over. */
void meddler_start(struct meddler *meddler, enum meddling what);
/* Comes back when it has let go. Safe when nothing goes on. */
void meddler_stop(struct meddler *meddler);

#endif
