/* SPDX-License-Identifier: Apache-2.0 */
/* millrace-bench: what a node can do, measured from its clients. main.c tells a run's story; options.c what can be
 * asked for; load.c a client's loop over a counter or a map; events.c the fan-out of events; node.c the node under
 * test, started here or found; report.c what is printed. It knows nothing of Millrace but the public headers (and, for
 * the node's status, control.proto).
 *
 * Clients are processes of one thread each. What they count lies in memory shared with the parent, each client's on
 * pages of its own; the parent says which part of a run it is by one word, and clients look at it between requests. */
#ifndef BENCH_LOAD_BENCH_H
#define BENCH_LOAD_BENCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "bench/load/histogram.h"

#define BENCH_CLIENTS_MAX 256
#define BENCH_PARTITIONS_MAX 64
#define BENCH_REPEATS_MAX 100
#define BENCH_PIPELINE_MAX 32768
#define NS_PER_SECOND UINT64_C(1000000000)

enum bench_operation { BENCH_INCREMENT, BENCH_COUNTER_GET, BENCH_PUT, BENCH_GET, BENCH_EVENTS };

struct bench_options {
    const char *service, *op;
    enum bench_operation operation;
    unsigned clients;
    unsigned pipeline;       /* requests in flight, each client */
    unsigned partitions;     /* of a node started here */
    const char *durability;  /* likewise */
    const char *cpus;        /* likewise: --cpus of the node; NULL: its default */
    const char *client_cpus; /* a list like 1,3: clients are spread over them; NULL: anywhere */
    const char *socket;      /* of a running node; NULL: one is started here */
    const char *dir;         /* for a node started here: in which its directory is made; NULL: TMPDIR or /tmp */
    const char *serve;       /* further options for `millrace serve`, separated by blanks; NULL: none */
    uint64_t keys;
    double skew; /* Zipf's exponent; 0: uniform */
    uint64_t value_size;
    unsigned listeners; /* events: in all, spread over the clients */
    double rate;        /* operations per second of all clients; 0: closed loop */
    double seconds, warm_up;
    unsigned repeats;
    unsigned sample; /* one request in so many is timed */
    uint64_t ring_bytes;
    const char *json; /* file; NULL: none */
    bool quiet;       /* no progress line */
};

enum bench_phase { PHASE_SETTING_UP, PHASE_WARM_UP, PHASE_MEASURING, PHASE_PAUSE, PHASE_END };

/* One client's account; it writes, the parent reads. */
struct bench_client {
    _Alignas(4096) _Atomic bool ready;
    _Atomic bool failed;
    char why[256];
    _Atomic uint64_t operations; /* answered, ever */
    _Atomic uint64_t errors;     /* likewise, with another status than the operation should have */
    char first_error[200];
    _Atomic uint32_t round;   /* of measuring, as `latency` has it: cleared by the client when it changes */
    _Atomic uint64_t counted; /* operations answered well in this round's measuring */
    struct histogram latency;
};

struct bench_shared {
    _Atomic uint32_t phase; /* enum bench_phase */
    _Atomic uint32_t round; /* from 1: one measuring is one round */
    struct bench_client clients[BENCH_CLIENTS_MAX];
};

/* The node under test. */
struct bench_node {
    pid_t pid; /* 0: not ours */
    char socket[256];
    char dir[256]; /* ours; empty: none */
    unsigned partitions;
    char durability[16];
    pid_t workers[BENCH_PARTITIONS_MAX];
};

/* What one round measured. */
struct bench_round {
    double seconds;
    uint64_t operations, errors;
    uint64_t worker_cpu, client_cpu; /* nanoseconds */
    struct histogram latency;
};

/* ---- options.c ---- */
/* 0; 1: help was printed; 2: wrong, and said so. */
int bench_options_parse(int argc, char **argv, struct bench_options *options);
/* The numbers of a list like 1,3: how many; 0: it is none. */
unsigned bench_cores(const char *list, unsigned *cores, unsigned room);

/* ---- node.c ---- */
/* `program` is the millrace command. 0 or -1, having said why. */
int bench_node_begin(struct bench_node *node, const struct bench_options *options, const char *program);
void bench_node_end(struct bench_node *node);
/* False, having said why: a node that was started here has ended by itself. */
bool bench_node_lives(struct bench_node *node);
/* Looks who the workers are; one that died has a successor. */
void bench_node_look(struct bench_node *node);
/* Processor time of all workers in nanoseconds, threads of the kernel that write for them included. False: one of them
 * is no more. */
bool bench_node_cpu(const struct bench_node *node, uint64_t *ns);
/* The same of one process, up to now: the kernel keeps it, nobody has to tell. */
bool bench_process_cpu(pid_t pid, uint64_t *ns);

/* ---- load.c, events.c: a client's life; never returns ---- */
void bench_load_run(const struct bench_options *options, const struct bench_node *node, struct bench_shared *shared,
                    unsigned number) __attribute__((noreturn));
void bench_listener_run(const struct bench_options *options, const struct bench_node *node, struct bench_shared *shared,
                        unsigned number) __attribute__((noreturn));
void bench_writer_run(const struct bench_options *options, const struct bench_node *node, struct bench_shared *shared,
                      unsigned number) __attribute__((noreturn));
void bench_client_fail(struct bench_client *client, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
/* Has a new round begun? Then what was counted in the old one is cleared. */
void bench_client_round(struct bench_shared *shared, struct bench_client *client);
uint64_t bench_now(void); /* CLOCK_MONOTONIC, nanoseconds */

/* ---- report.c ---- */
void bench_report(const struct bench_options *options, const struct bench_node *node, const struct bench_round *rounds,
                  unsigned count);
/* 0 or -1, having said why. */
int bench_report_json(const struct bench_options *options, const struct bench_node *node,
                      const struct bench_round *rounds, unsigned count);

#endif
