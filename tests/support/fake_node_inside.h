/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the fake node share. */
#ifndef TESTS_SUPPORT_FAKE_NODE_INSIDE_H
#define TESTS_SUPPORT_FAKE_NODE_INSIDE_H

#include "tests/support/fake_node.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define CONNECTIONS 16
#define SESSIONS 64
#define NUMBERS (1 << 20)

struct connection {
    int socket; /* -1: free */
    int wake;
};

/* The outputs of a session's commands, by number: the value, and the index (0: not applied). */
struct session {
    uint64_t id;
    bool gone;
    uint64_t forgotten; /* numbers up to this one are given up */
    int64_t *values;
    uint64_t *indexes;
};

struct fake_node {
    struct fake_options options;
    pthread_t thread;
    pthread_mutex_t mutex;
    bool held, stop, vanish;
    int listener;
    char path[256];
    struct connection connections[CONNECTIONS];
    struct fake_channel channels[FAKE_CHANNELS];
    int owner[FAKE_CHANNELS]; /* connection */
    uint64_t next_channel;
    uint64_t index; /* of the last command */
    int64_t value;  /* of the only counter */
    struct session sessions[SESSIONS];
    struct fake_counts counts;
    enum fake_death death;
    unsigned spare, deaths; /* how often it still comes past that point; how often it dies there */
    bool died;              /* this turn */
};

#define must(condition)                                                                                                \
    ((condition) ? (void)0 : (fprintf(stderr, "fake node, %s:%d: %s\n", __FILE__, __LINE__, #condition), abort()))

#endif
