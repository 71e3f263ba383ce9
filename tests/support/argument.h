/* SPDX-License-Identifier: Apache-2.0 */
/* What the checkers that are programs of their own (simulator, crash run, attack) are told on their command line. */
#ifndef TESTS_SUPPORT_ARGUMENT_H
#define TESTS_SUPPORT_ARGUMENT_H

#include <stdint.h>

/* A decimal number; anything else is said in the name of `program`, which ends with status 2. */
uint64_t argument_number(const char *program, const char *text);

#endif
