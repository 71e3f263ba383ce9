/* SPDX-License-Identifier: Apache-2.0 */
/* One attacker: a process with a connection, mostly one open channel, and a thread that changes memory meanwhile. It
 * takes rounds off the board; each is one attack, drawn from the seed and the round's number alone, and ends with the
 * node's answer: a channel that broke the rules has been closed with the reason, any other still takes requests. */
#ifndef TESTS_ATTACK_ATTACKER_H
#define TESTS_ATTACK_ATTACKER_H

#include "ipc/channel.h"
#include "ipc/frame.h"
#include "tests/attack/board.h"
#include "tests/attack/meddler.h"
#include "tests/support/requests.h"
#include "tests/support/stub_node.h"

#include <millrace/limits.h>

#define RING MR_RING_BYTES_MIN
#define HELD_MAX 40

/* What an attack may lead to. The reasons may be or-ed. */
enum outcome {
    STAYS = 0,          /* the channel goes on */
    CLOSED_TAIL = 1,    /* it may be closed with this reason */
    CLOSED_FRAME = 2,   /* ... */
    CLOSED_HEAD = 4,    /* ... */
    MUST_CLOSE = 8,     /* and must */
    ELSEWHERE = 16,     /* the channel had no part in it */
    LEAVE_CHANNEL = 32, /* it is of no more use, though no rule was broken: give it back */
    LEAVE_ALL = 64      /* the connection too */
};

struct held { /* a connection that is kept open, doing nothing */
    struct stub_client client;
    int fds[2]; /* of a channel that is never mapped; -1: none */
};

struct attacker {
    struct board *board;
    struct attacker_account *account;
    uint64_t random;
    struct stub_client client; /* socket -1: not connected */
    struct channel channel;    /* page NULL: none */
    uint64_t tail;             /* of its request ring, as published */
    uint64_t answered;         /* response ring: read up to here */
    uint64_t overwritten;      /* its tail, when an attack put something else there */
    char closed[160];          /* why the node closed it; empty: it has not */
    bool leaves_bell;          /* what wakes it is not waited on, as long as it is connected: an attack has spoilt it */
    bool has_ears;             /* many listen to what wakes it, as long as it is connected */
    struct meddler meddler;
    uint64_t session, counter, map, sequence; /* session 0: none */
    unsigned session_rounds;
    struct request request;
    struct held held[HELD_MAX];
    unsigned held_next;
};

struct attack {
    const char *name;
    unsigned weight; /* how often, among all */
    unsigned (*run)(struct attacker *attacker);
};
/* Each ends with one without a name. */
extern const struct attack ring_attacks[], body_attacks[], descriptor_attacks[], talk_attacks[];
/* The number-th of all of them; NULL: there are fewer. */
const struct attack *attack_numbered(unsigned number);

/* ---- For the attacks ---- */

_Noreturn void attacker_fail(struct attacker *attacker, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t draw(struct attacker *attacker, uint64_t below);
void draw_bytes(struct attacker *attacker, void *to, size_t size);

/* A connection of its own, not greeted. */
void attacker_connect(struct attacker *attacker, struct stub_client *client);
/* What the node said next, in time. */
struct heard {
    Millrace__V1__NodeMessage__MessageCase what; /* NOT_SET: the connection is over, or nothing came in time */
    bool over;
    uint64_t id;     /* a channel's */
    uint32_t status; /* of Refused */
    uint64_t ring_bytes;
    char text[160]; /* of Refused, ChannelClosed */
    int fds[2];     /* -1: none; the caller's */
};
struct heard attacker_hear(struct attacker *attacker, const struct stub_client *client, unsigned milliseconds);
void heard_close(struct heard *heard);
/* Connects and greets, again and again while the node has no room; fails unless welcome then. */
void attacker_greet(struct attacker *attacker, struct stub_client *client);

/* Sees to it that there is an open channel (and a connection). */
void attacker_open(struct attacker *attacker);
/* Gives the channel back. */
void attacker_drop(struct attacker *attacker);
void attacker_hang_up(struct attacker *attacker);
/* Wakes the worker whatever state the eventfd is in. */
void attacker_ring_bell(struct attacker *attacker);
/* At the tail, and over the ring's end like any frame. */
uint8_t *attacker_at_tail(struct attacker *attacker);
void attacker_publish(struct attacker *attacker, uint64_t tail);
/* A whole frame, not yet published; gives its size. */
uint64_t attacker_put_frame(struct attacker *attacker, uint64_t at, enum frame_kind kind, const void *body,
                            size_t size);
/* It asks for frames that its outputs share with others' (ipc/frame.h). */
void attacker_ask_to_share(struct attacker *attacker, uint64_t at);
/* Everything published has been taken and answered, and the answers read; false: the node has closed the channel. */
bool attacker_settled(struct attacker *attacker);
/* Opens a session with services when there is none or it is old; the channel must be settled. */
void attacker_need_session(struct attacker *attacker);

#endif
