/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share. A target is one file, fuzz_<name>.c, with libFuzzer's LLVMFuzzerTestOneInput(): it makes
 * something of any bytes, and what must hold it says with FUZZ_CHECK(). Linked with libFuzzer it searches (`make
 * fuzz`); linked with replay.c it runs the inputs that it is given, with any compiler.
 *
 * FUZZ_PLANTED=1 in the environment has the target put a fault of its own into what it looks at, to show that it would
 * be found; each target's head says which. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input, read from front to back; behind its end there are zeros. (Never two of these in one call's arguments or
 * one initializer: compilers differ in which comes first, and an input would mean something else to each.) */
struct fuzz_input {
    const uint8_t *at, *end;
};
bool fuzz_more(const struct fuzz_input *input);
uint8_t fuzz_byte(struct fuzz_input *input);
/* Below `limit`, which is at least 1: of one byte if that is enough, else of two, four or eight. */
uint64_t fuzz_below(struct fuzz_input *input, uint64_t limit);
/* Any number: mostly small ones and those beside powers of two, where limits are. */
uint64_t fuzz_number(struct fuzz_input *input);
/* A length of one byte, and so many bytes in place, as far as they are there. */
struct slice fuzz_bytes(struct fuzz_input *input);
/* The rest. */
struct slice fuzz_rest(struct fuzz_input *input);

/* Is the fault planted? */
bool fuzz_planted(void);

#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_failed(#condition, __FILE__, __LINE__))
_Noreturn void fuzz_failed(const char *condition, const char *file, int line);

#endif
