/* SPDX-License-Identifier: Apache-2.0 */
/* What the checkers that are programs of their own (simulator, crash run, attack) are told on their command line. */
#ifndef TESTS_SUPPORT_ARGUMENT_H
#define TESTS_SUPPORT_ARGUMENT_H

#include <stdint.h>

/* What is only counted: a few of these can be added up. */
#define ARGUMENT_COUNT_MOST (UINT64_MAX / 8)
/* Seconds and milliseconds of a wait; as many as what MILLRACE_WAIT may say. */
#define ARGUMENT_SECONDS_MOST 86400
#define ARGUMENT_MILLISECONDS_MOST (1000 * ARGUMENT_SECONDS_MOST)

/* A decimal number up to `most`; anything else is said in the name of `program`, which ends with status 2. */
uint64_t argument_number(const char *program, const char *text, uint64_t most);

#endif
