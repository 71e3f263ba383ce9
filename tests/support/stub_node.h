/* SPDX-License-Identifier: Apache-2.0 */
/* A supervisor in a process of its own whose workers only pretend: they map channels and let go of them, and die when
 * and how a test wants. And a client of its socket, packet by packet. For tests of the supervisor. */
#ifndef TESTS_SUPPORT_STUB_NODE_H
#define TESTS_SUPPORT_STUB_NODE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/node/options.h"
#include "engine/node/region.h"
#include "ipc/channel.h"
#include "millrace/v1/control.pb-c.h"

#define STUB_PARTITIONS 4

/* How a worker ends: 0: not; 1 to 64: by this signal; STUB_EXIT + n: it returns n. */
#define STUB_EXIT 1000

/* What test and worker of a partition tell each other; shared memory. */
struct stub_worker {
    /* the worker's account */
    _Atomic uint32_t births;
    _Atomic int32_t pid;  /* of the last one */
    _Atomic int32_t core; /* as it was told */
    _Atomic uint32_t may_spin;
    _Atomic uint32_t inherited;     /* channels it was born with */
    _Atomic uint64_t inherited_id;  /* the last of them */
    _Atomic uint32_t segments_born; /* memory segments it was born with */
    _Atomic uint32_t descriptors;   /* that it had open when it began */
    _Atomic uint32_t added, closed; /* channels, over all workers */
    _Atomic uint64_t segment_bytes; /* of the memfd it asked for; 1: refused */
    /* the test's wishes */
    _Atomic uint32_t deaths;                            /* this many workers still die as soon as they are born ... */
    _Atomic uint32_t death;                             /* ... like this */
    _Atomic uint32_t ready_first;                       /* ... having said READY */
    _Atomic uint32_t end_now;                           /* the living one ends like this */
    _Atomic uint64_t at_channel, at_position, at_index; /* what its region says when it dies */
    _Atomic uint64_t at_snapshot;                       /* likewise */
    _Atomic uint32_t hold_added;                        /* CONTROL_ADD is not answered */
    _Atomic uint32_t ignore_stop;
    _Atomic uint32_t busy;           /* told to stop, it says so many times that it is busy, and ends then */
    _Atomic uint32_t close_channels; /* lets go of every channel by itself, saying why */
    _Atomic uint32_t want_segment;   /* 1 + the slot to ask for */
};

struct stub_config {
    unsigned partitions; /* 0: 1 */
    unsigned connections_max, channels_max;
    unsigned descriptors; /* that it may have open, at most; 0: as the test itself */
    uint64_t stop_limit;
    enum durability durability;
    const char *socket;          /* NULL: DIR/millrace.sock */
    const char *notify;          /* NOTIFY_SOCKET */
    const char *fault;           /* MR_FAULT's form, armed when the supervisor begins */
    const char *cpus;            /* --cpus */
    uint64_t handshake_limit;    /* ns; 0: the node's own */
    uint64_t lock_wait;          /* ns for the directory's lock; 0: the node's own */
    const char *options[8];      /* more of them, NULL behind the last */
    struct stub_worker *workers; /* STUB_PARTITIONS, in shared memory; NULL: made by stub_node_start() */
};

struct stub_node {
    pid_t pid;
    char *dir; /* the caller's */
    char socket[256];
    char output[256], error[256]; /* files with what it printed */
    struct stub_worker *workers;
};

/* Starts a node on `dir`. */
void stub_node_start(struct stub_node *node, char *dir, const struct stub_config *config);
/* Waits for its ready line; false if it ends first or does not come. */
bool stub_node_ready(const struct stub_node *node);
/* Waits for its end: exit status, 128 + signal, -1. */
int stub_node_wait(struct stub_node *node);
/* SIGTERM, and waits. */
int stub_node_stop(struct stub_node *node);
/* Kills it if it still runs, and waits. Safe on a zeroed one and twice. */
void stub_node_end(struct stub_node *node);
/* Does a line of what it printed on standard error contain this? */
bool stub_node_said(const struct stub_node *node, const char *text);

/* ---- a client ---- */

struct stub_client {
    int socket;
    int wake; /* from Welcome; -1: none */
};

void stub_connect(struct stub_client *client, const struct stub_node *node);
void stub_disconnect(struct stub_client *client);
/* Connects, says Hello, takes Welcome. */
void stub_greet(struct stub_client *client, const struct stub_node *node);
void stub_hello(struct stub_client *client, uint32_t version);
/* Any bytes as a packet; false if the other end is gone. */
bool stub_send_bytes(struct stub_client *client, const void *bytes, size_t size);
void stub_ask_channel(struct stub_client *client, uint32_t partition, uint64_t ring_bytes);
void stub_say_mapped(struct stub_client *client, uint64_t channel_id);
void stub_ask_close(struct stub_client *client, uint64_t channel_id);
void stub_ask_status(struct stub_client *client);
void stub_ask_attach(struct stub_client *client, uint32_t partition, uint64_t session_id);
void stub_ask_sessions(struct stub_client *client, uint32_t partition);
/* The next message, the caller's to free with stub_free(); descriptors in fds[2] (-1: none). NULL: the connection is
 * over. */
Millrace__V1__NodeMessage *stub_receive(struct stub_client *client, int fds[2]);
void stub_free(Millrace__V1__NodeMessage *message);

/* Fails the test unless the next message is Refused with this status and a text that contains `part`. */
void stub_expect_refused(struct stub_client *client, uint32_t status, const char *part, bool fatal);
/* Fails the test unless the node ends the connection now. */
void stub_expect_closed(struct stub_client *client);
/* The channel's whole hand-shake, up to ChannelOpened. */
void stub_open_channel(struct stub_client *client, uint32_t partition, uint64_t ring_bytes, struct channel *channel);
/* Only up to Channel, mapped here. */
void stub_map_channel(struct stub_client *client, uint32_t partition, uint64_t ring_bytes, struct channel *channel);
void stub_expect_opened(struct stub_client *client, uint64_t channel_id);

struct stub_status {
    char state[32];
    char reason[400];
    int32_t pid;
    uint64_t channels, restarts, connections;
};
/* Asks a greeted client's status report for one partition. */
struct stub_status stub_status(struct stub_client *client, uint32_t partition);

#endif
