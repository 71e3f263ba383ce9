/* SPDX-License-Identifier: Apache-2.0 */
/* See meddler.h. */
#include "tests/attack/meddler.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/attack/board.h"
#include "tests/support/wait.h"

#define TURNS 256          /* until others get the processor */
#define AT_FULL_SPEED 4096 /* turns; then it pauses each time, so that the disk's part of the kernel gets it too */

static void scribble(struct meddler *meddler)
{
    volatile uint8_t *at = meddler->at; /* as many times as it says, whatever else is known of the bytes */

    for (size_t i = 0; i < meddler->size; i++) {
        uint64_t chance = draw_from(&meddler->random, 64);
        at[i] = chance == 0       ? (uint8_t)draw_from(&meddler->random, 256)
                : chance % 2 == 0 ? meddler->first[i]
                                  : meddler->second[i];
    }
}

static void ring_bell(const struct meddler *meddler)
{
    struct pollfd look = {.fd = meddler->descriptor, .events = POLLOUT};
    uint64_t one = 1;

    if (poll(&look, 1, 0) == 1 && (look.revents & POLLOUT) != 0 && write(meddler->descriptor, &one, sizeof(one)) < 0)
        sched_yield(); /* full meanwhile */
}

static void one_turn(struct meddler *meddler, enum meddling what)
{
    switch (what) {
    case MEDDLE_WORD:
        atomic_store_explicit(meddler->word, meddler->a, memory_order_release);
        for (volatile unsigned i = 0; i < 16; i = i + 1)
            ; /* long enough for the other side to see either */
        atomic_store_explicit(meddler->word, meddler->b, memory_order_release);
        for (volatile unsigned i = 0; i < 16; i = i + 1)
            ;
        return;
    case MEDDLE_BYTES:
        scribble(meddler);
        return;
    case MEDDLE_FLAGS:
        for (unsigned i = 0; i < 4; i++)
            atomic_store_explicit(meddler->flags[i], (uint32_t)draw_from(&meddler->random, 3), memory_order_seq_cst);
        return;
    case MEDDLE_BELL:
        ring_bell(meddler);
        return;
    case MEDDLE_BLOCKING:
        (void)fcntl(meddler->descriptor, F_SETFL, O_RDWR);
        (void)fcntl(meddler->descriptor, F_SETFL, O_RDWR | O_NONBLOCK);
        return;
    case MEDDLE_PUNCH:
        meddler->punched |= fallocate(meddler->descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0;
        return;
    case MEDDLE_NOT:
    case MEDDLE_END:
        return;
    }
}

static void *meddle(void *argument)
{
    struct meddler *meddler = argument;
    uint32_t what;

    for (;;) {
        while (sem_wait(&meddler->begin) != 0)
            ;
        while ((what = atomic_load_explicit(&meddler->what, memory_order_acquire)) != MEDDLE_NOT) {
            if (what == MEDDLE_END)
                return NULL;
            one_turn(meddler, (enum meddling)what);
            uint64_t turns = atomic_fetch_add_explicit(&meddler->turns, 1, memory_order_release);
            if (turns % TURNS == TURNS - 1 && turns < AT_FULL_SPEED)
                sched_yield();
            else if (turns % TURNS == TURNS - 1)
                wait_pause();
        }
        atomic_store_explicit(&meddler->idle, true, memory_order_release);
    }
}

void meddler_init(struct meddler *meddler)
{
    atomic_store(&meddler->idle, true);
    if (sem_init(&meddler->begin, 0, 0) != 0 || pthread_create(&meddler->thread, NULL, meddle, meddler) != 0)
        abort();
}

void meddler_end(struct meddler *meddler)
{
    meddler_stop(meddler);
    atomic_store(&meddler->what, MEDDLE_END);
    sem_post(&meddler->begin);
    pthread_join(meddler->thread, NULL);
    sem_destroy(&meddler->begin);
}

void meddler_start(struct meddler *meddler, enum meddling what)
{
    atomic_store(&meddler->turns, 0);
    atomic_store(&meddler->idle, false);
    atomic_store_explicit(&meddler->what, what, memory_order_release);
    sem_post(&meddler->begin);
    while (atomic_load_explicit(&meddler->turns, memory_order_acquire) == 0)
        sched_yield();
}

void meddler_stop(struct meddler *meddler)
{
    atomic_store_explicit(&meddler->what, MEDDLE_NOT, memory_order_release);
    while (!atomic_load_explicit(&meddler->idle, memory_order_acquire))
        sched_yield();
}
