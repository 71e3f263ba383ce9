/* SPDX-License-Identifier: Apache-2.0 */
/* A client process of a round: connecting and coming back, and the four ways of behaving. It knows the library's public
 * headers and the history, and nothing of who kills it. */
#ifndef TESTS_CRASH_CLIENT_H
#define TESTS_CRASH_CLIENT_H

#include <millrace/counter.h>
#include <millrace/map.h>

#include "tests/crash/history.h"

#define SECONDS(n) ((int64_t)(n)*1000000000)
#define MILLISECONDS(n) ((int64_t)(n)*1000000)
#define SESSION_TIMEOUT SECONDS(120) /* no client is stopped or dead so long and then comes back */
#define SHORT_TIMEOUT MILLISECONDS(150)
#define OPENER_TIMEOUT SECONDS(7200) /* of the sessions that openers open: by this they are known */

struct hand {
    struct history *history;
    struct client *client;
    const struct part *part;
    unsigned number; /* which client it is */
    uint64_t random;
    mr_client *handle; /* NULL: not connected */
    uint32_t handle_number, generation;
    bool resumed;
    uint32_t taken;     /* events noted up to where its stream is */
    uint32_t listening; /* 1 + the number of the stream that it takes from; 0: none */
    mr_counter *counters[COUNTERS];
    mr_map *maps[MAPS];
};

/* What a process is to run: life of client `number`; its exit status. 0: as it should; the next life follows if the
 * client is not done. */
int client_live(struct history *history, unsigned number);

/* The ways of behaving; the process's exit status. */
int writer_live(struct hand *hand);
int listener_live(struct hand *hand);
int opener_live(struct hand *hand);
int last_look(struct hand *hand);

/* Below `below`, which is over 0. */
uint64_t hand_draw(struct hand *hand, uint64_t below);

/* Connects, with the sessions of the life before if there are any (and resuming is not to be left out this time), and
 * opens every counter (`counters`) and map (`maps`). Waits for a node; false: it could not, and has said why. */
bool hand_connect(struct hand *hand, bool counters, bool maps);
/* Leaves to the next life what is open now. */
void hand_save(struct hand *hand);
/* The next life is to begin anew. */
void hand_forget(struct hand *hand);
/* Closes the handle, leaving the sessions (`detach`) or not. */
void hand_close(struct hand *hand, bool detach);
/* Does a status mean that this handle is of no more use, through no fault of the node's? Anything else unexpected is
 * the round's failure. */
bool hand_lost(struct hand *hand, enum mr_status status);

/* A new record, which counts as called from now on. NULL: no room. */
struct record *hand_call(struct hand *hand, struct record record);
/* The answer is there: what has been filled in counts. */
void hand_answered(struct hand *hand, struct record *record, enum mr_status status);
/* An entry that came with an answer. */
void hand_entry(struct hand *hand, struct record *record, const struct mr_entry *entry);

void counter_name(char name[16], unsigned counter);
void map_name(char name[16], unsigned map);
void key_name(char name[16], unsigned key);
/* KEYS + 1: it is none. */
unsigned key_of(struct mr_bytes key);

#endif
