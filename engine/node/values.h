/* SPDX-License-Identifier: Apache-2.0 */
/* Values as people type them: whole numbers, sizes, durations, lists of processors. Each reader takes the whole text or
 * nothing, and knows no ranges: those are the options'. */
#ifndef ENGINE_NODE_VALUES_H
#define ENGINE_NODE_VALUES_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal digits, nothing else. */
bool value_number(const char *text, uint64_t *number);
/* Bytes: a number, or a number and K, M or G (of 1024). */
bool value_size(const char *text, uint64_t *bytes);
/* Nanoseconds: a number and ns, us, ms, s, m or h; 0 needs no unit. */
bool value_duration(const char *text, uint64_t *nanoseconds);
/* A file's mode: octal digits. */
bool value_mode(const char *text, uint64_t *mode);
/* Processors: numbers and ranges, "0,2-5". */
bool value_cpus(const char *text, cpu_set_t *cpus);

/* The shortest way to write it that the readers above take: "4M", "10ms". Room for 32 bytes; returns text. */
char *value_write_size(char text[32], uint64_t bytes);
char *value_write_duration(char text[32], uint64_t nanoseconds);
/* "0-3,6"; cut with "..." where it does not fit. Returns text. */
char *value_write_cpus(char *text, size_t size, const cpu_set_t *cpus);

#endif
