/* SPDX-License-Identifier: Apache-2.0 */
/* Waking clients, and what that costs: see bells.c. */
#ifndef ENGINE_NODE_BELLS_H
#define ENGINE_NODE_BELLS_H

#include <stdbool.h>
#include <stdint.h>

struct worker;
struct worker_channel;

#define BELL_USERS 128

/* A user whose wake-ups are measured one by one. */
struct bell_user {
    uint32_t uid;
    bool told;      /* a line says that his are put off */
    uint64_t spent; /* of the worker's processor time, in this turn */
    uint64_t owes;  /* monotonic: until then others have the time that they are to have for what was dear */
    uint64_t until; /* monotonic: measured for so long */
};

/* An all-zero one, with room in waiting[], is how a worker begins. */
struct bells {
    unsigned rung; /* in what the io hands over next, unmeasured */
    struct bell_user users[BELL_USERS];
    unsigned user_count;
    uint32_t *waiting; /* a queue: slots of the channels that are to be woken by themselves; MR_CHANNELS_MAX */
    unsigned waiting_count;
    uint64_t due;     /* monotonic: when the first of them may be */
    uint64_t told_at; /* monotonic: the last line about one that was too dear; 0: none yet */
};

/* Wakes the channel's client, with what the io hands over next or by itself. Its last wake-up must be complete. */
void bells_ring(struct worker *worker, struct worker_channel *channel);
/* The channel is closing: a wake-up that is put off does not hold it up. */
void bells_forget_closed(struct worker *worker, struct worker_channel *channel);
/* The io has handed over what it had, from worker->now until now. */
void bells_handed_over(struct worker *worker);
/* Wakes those who wait for it and whose time has come. What the io has to hand over should be handed over. */
void bells_ring_due(struct worker *worker);
/* When there is something to do (monotonic; UINT64_MAX: never). */
uint64_t bells_next(const struct worker *worker);

#endif
