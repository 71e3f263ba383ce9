/* SPDX-License-Identifier: Apache-2.0 */
/* millrace-parts: the parts of a node alone, each next to its own bare limit, measured in the same run. main.c lists
 * them; cores.c what two cores do with shared memory; device.c what the device does with plain writes; engine.c state
 * machine, log, recovery and snapshots. A part measures, and gives figures by name to report(). */
#ifndef BENCH_PARTS_PARTS_H
#define BENCH_PARTS_PARTS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#define NS_PER_SECOND UINT64_C(1000000000)

struct parts_options {
    const char *dir;  /* where files are made, and removed */
    double seconds;   /* about what each part takes */
    uint64_t size;    /* bare-writes, bare-paced: bytes a write */
    unsigned depth;   /* bare-writes: in flight */
    double rate;      /* bare-paced: writes a second */
    uint64_t bytes;   /* snapshot: of the state */
    uint64_t entries; /* recovery: increments */
    int cores[2];     /* the two that are used: one where a worker would run, the other for the client's side */
};

/* One figure of the part that runs. `limit`: the bare limit it stands beside; 0: it is one itself, or has none. */
void report(const char *name, double value, const char *unit, double limit);

/* Ends the program with a message. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
uint64_t now_ns(void);
void run_on(int core);
int by_number(const void *left, const void *right); /* uint64_t, for qsort() */

/* ---- cores.c ---- */
void part_core_to_core(const struct parts_options *options);
void part_ring(const struct parts_options *options);
/* ---- device.c ---- */
void part_bare_writes(const struct parts_options *options);
void part_bare_paced(const struct parts_options *options);
void part_bare_stream(const struct parts_options *options);
/* Bytes a second, sequentially, in pieces of 1 MiB, four in flight; with the flush at the end. */
double device_stream(const struct parts_options *options, bool write, uint64_t bytes);
/* ---- engine.c ---- */
void part_decode(const struct parts_options *options);
void part_state(const struct parts_options *options);
void part_log(const struct parts_options *options);
void part_recovery(const struct parts_options *options);
/* ---- snapshot.c ---- */
void part_snapshot(const struct parts_options *options);

#endif
