/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a fuzz target's input piece by piece. See fuzz.h. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>

bool fuzz_more(const struct fuzz_input *input)
{
    return input->at < input->end;
}

uint8_t fuzz_byte(struct fuzz_input *input)
{
    return input->at < input->end ? *input->at++ : 0;
}

static uint64_t little_endian(struct fuzz_input *input, unsigned bytes)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < bytes; i++)
        number |= (uint64_t)fuzz_byte(input) << (8 * i);
    return number;
}

uint64_t fuzz_below(struct fuzz_input *input, uint64_t limit)
{
    unsigned bytes = limit <= 0x100 ? 1 : limit <= 0x10000 ? 2 : limit <= UINT64_C(0x100000000) ? 4 : 8;
    return little_endian(input, bytes) % limit;
}

uint64_t fuzz_number(struct fuzz_input *input)
{
    uint8_t form = fuzz_byte(input);
    if (form < 160)
        return form;
    if (form < 224)
        return (UINT64_C(1) << (form - 160)) + fuzz_byte(input) - 128;
    if (form < 240)
        return little_endian(input, 2);
    return little_endian(input, 8);
}

struct slice fuzz_bytes(struct fuzz_input *input)
{
    size_t size = fuzz_byte(input);
    size_t left = (size_t)(input->end - input->at);
    struct slice bytes = {.data = input->at, .size = size < left ? size : left};
    input->at += bytes.size;
    return bytes;
}

struct slice fuzz_rest(struct fuzz_input *input)
{
    struct slice rest = {.data = input->at, .size = (size_t)(input->end - input->at)};
    input->at = input->end;
    return rest;
}

bool fuzz_planted(void)
{
    static int planted = -1;
    if (planted < 0)
        planted = getenv("FUZZ_PLANTED") != NULL;
    return planted == 1;
}

void fuzz_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    abort();
}
