/* SPDX-License-Identifier: Apache-2.0 */
/* What the load generators for Redis share: its socket, its bytes, a clock, and the figures that are printed. They do
 * what bench/load does for Millrace, with the same histogram, so that both sides are measured alike. */
#ifndef BENCH_COMPARE_REDIS_H
#define BENCH_COMPARE_REDIS_H

#include <stdint.h>
#include <stdio.h>

#include "bench/load/histogram.h"

#define NS_PER_SECOND UINT64_C(1000000000)

struct redis_figures {
    double seconds;
    uint64_t operations;
    uint64_t cpu; /* nanoseconds of the load generator's processes while it measured */
    struct histogram latency;
};

/* Ends the program with a message. */
void redis_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* A connection to the Unix socket; blocking. */
int redis_connect(const char *path);
/* Writes all of it, waiting where the socket is full. */
void redis_write(int connection, const char *bytes, size_t size);
/* Reads what is there, at least one byte; 0: nothing just now (only of a connection that does not block). */
size_t redis_read(int connection, char *bytes, size_t size);
uint64_t redis_now(void); /* CLOCK_MONOTONIC, nanoseconds */
uint64_t redis_cpu(void); /* of this process, nanoseconds */

/* An option that takes a number: where it goes, and what it may be. `whole`: an unsigned without fraction, else a
 * double. A list ends with a name of NULL. */
struct redis_option {
    const char *name;
    unsigned *whole;
    double *number;
    double least, most;
};

/* Reads --socket, which must be given, and the options of the list. What is wrong ends the program with status 2. */
void redis_options(int argc, char **argv, const char *program, const char **socket, const struct redis_option *options);
/* One object with the fields that millrace-bench's has. */
void redis_print(const struct redis_figures *figures);

#endif
