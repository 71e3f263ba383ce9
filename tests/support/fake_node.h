/* SPDX-License-Identifier: Apache-2.0 */
/* A node for tests of the client library: a thread of the test that does the hand-shake and answers requests from real
 * channels, with counters that obey the protocol's rule of numbers and nothing else of a node. (A query of no bytes is
 * answered with as many as its time limit says.) While it is held (fake_node_hold()) it leaves the channels alone, and
 * the test is the worker: it reads requests, writes any frame, kills "the worker", closes channels. It can go away and
 * come back, at a point that the test names too, with what it has applied, or with none of it. */
#ifndef TESTS_SUPPORT_FAKE_NODE_H
#define TESTS_SUPPORT_FAKE_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ipc/channel.h"
#include "ipc/frame.h"
#include "proto/messages.h"

#define FAKE_CHANNELS 16

/* Where it dies. Having died, it is back at once, with what it has applied. */
enum fake_death {
    FAKE_LIVES = 0,
    FAKE_AT_HELLO,
    FAKE_BEHIND_WELCOME,
    FAKE_AT_OPEN_CHANNEL,
    FAKE_BEHIND_CHANNEL,
    FAKE_AT_MAPPED,
    FAKE_BEHIND_OPENED,
    FAKE_AT_STATUS,
    FAKE_AT_REQUEST,     /* in a ring */
    FAKE_BEHIND_REQUEST, /* having applied it */
    FAKE_DEATHS
};

struct fake_options {
    uint32_t partitions;  /* 0: 1 */
    uint64_t ring_bytes;  /* 0: 64 KiB */
    uint64_t max_payload; /* 0: a quarter of the ring */
    uint32_t version;     /* of the hand-shake; 0: this library's */
    bool refuse_hello;    /* Refused, fatal, UNAVAILABLE: "no more" */
    bool refuse_channels; /* Refused, UNAVAILABLE: "too many channels" */
    bool never_open;      /* channels stay ASKED for ever; ListSessions is always Refused */
    uint8_t directory;    /* each byte of its identity */
};

/* One channel as the node has it. `number` counts them in the order of their making, from 0; that of the thread that
 * renews comes when it will, so a test looks for its own by fake_channel(). */
struct fake_channel {
    struct channel channel; /* channel_id 0: not used */
    bool open;
    struct ring_reader requests;
    struct ring_writer responses;
    uint64_t taken; /* request frames */
};

/* What it has been asked, over all channels. */
struct fake_counts {
    uint64_t commands; /* service commands, repeats included */
    uint64_t applied;  /* those that were new */
    uint64_t repeats;  /* those that carried no operation */
    uint64_t queries;
    uint64_t keep_alives;    /* with a number over 0 */
    uint64_t renewals;       /* KeepAlives with number 0 */
    uint64_t last_told;      /* the highest last_input_sequence_num */
    uint64_t opened, closed; /* sessions */
    uint64_t services_closed;
    uint64_t max_received_index; /* of the last query */
    uint64_t time_limit;         /* of the last request's frame */
    uint64_t wakes;              /* that it was owed and gave */
    uint64_t connections;        /* so far ... */
    uint64_t connected;          /* ... and now */
    uint64_t deaths;             /* of fake_node_die() */
};

struct fake_node;

struct fake_node *fake_node_start(const char *socket_path, const struct fake_options *options);
void fake_node_stop(struct fake_node *node);
/* Ends all connections, and takes no others: the node is gone. */
void fake_node_vanish(struct fake_node *node);
/* It is there again, with its sessions. Waits until it was gone. */
void fake_node_return(struct fake_node *node);
/* Other options from now on; those of 0 mean what they meant at first. */
void fake_node_change(struct fake_node *node, const struct fake_options *options);
/* It has never had a session nor applied anything. */
void fake_node_empty(struct fake_node *node);
/* It dies when it comes to that point, having come past it `after` times; `times` times in all. */
void fake_node_die(struct fake_node *node, enum fake_death where, unsigned after, unsigned times);
struct fake_counts fake_counts(struct fake_node *node);

/* From the return of hold() to release() the channels are the test's; the hand-shake goes on. */
void fake_node_hold(struct fake_node *node);
void fake_node_release(struct fake_node *node);
/* Every session that was opened is unknown from now on: FORBIDDEN. */
void fake_node_forget_sessions(struct fake_node *node);

/* While held. The open channel to `partition` made by the test's own handle: the one with the largest rings. NULL:
 * none. */
struct fake_channel *fake_channel(struct fake_node *node, uint32_t partition);
/* The one with the smallest: that of the thread that renews, once it is there. */
struct fake_channel *fake_renewing_channel(struct fake_node *node, uint32_t partition);

struct fake_request {
    uint64_t position;
    struct request_head head;
    const uint8_t *body; /* in the ring, until it is taken */
};
/* The next request, if there is one; it stays in the ring. */
bool fake_next(struct fake_channel *channel, struct fake_request *request);
/* Steps over it; the head is published. */
void fake_take(struct fake_channel *channel, const struct fake_request *request);
/* Steps over it and answers it as the node would. */
void fake_answer(struct fake_node *node, struct fake_channel *channel, const struct fake_request *request);
/* Applies it as the node would, but the answer is lost. */
void fake_apply(struct fake_node *node, struct fake_channel *channel, const struct fake_request *request);

/* Writes a frame. `last`: the last one of its request. */
void fake_frame(struct fake_channel *channel, enum status status, bool last, uint64_t request, uint64_t number,
                const void *body, size_t size);
/* The frame of a service command's output with an integer. */
void fake_output(struct fake_channel *channel, bool last, uint64_t request, uint64_t number, uint64_t index,
                 int64_t value);
/* Publishes what was written, waking the client if it sleeps. */
void fake_publish(struct fake_node *node, struct fake_channel *channel);
/* What a new worker does first. */
void fake_new_worker(struct fake_channel *channel);
void fake_close_channel(struct fake_channel *channel, const char *why);
/* Says so on the socket as well, as the node does while it lives. */
void fake_say_closed(struct fake_node *node, const struct fake_channel *channel);

#endif
