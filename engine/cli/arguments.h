/* SPDX-License-Identifier: Apache-2.0 */
/* The words of a command line, taken apart: options in any place, operands in their order, negative numbers as operands
 * without a "--" before them. Which options and operands a subcommand takes it says itself. */
#ifndef ENGINE_CLI_ARGUMENTS_H
#define ENGINE_CLI_ARGUMENTS_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bits of `given` and of what a subcommand takes. */
enum option_bit {
    OPTION_SOCKET = 1 << 0,
    OPTION_NAMESPACE = 1 << 1,
    OPTION_HELP = 1 << 2,
    OPTION_JSON = 1 << 3,
    OPTION_TTL = 1 << 4,
    OPTION_INDEX = 1 << 5,
    OPTION_WAIT = 1 << 6,
    OPTION_TIMEOUT = 1 << 7,
    OPTION_VERSION = 1 << 8,
    OPTION_REPLAY = 1 << 9,
    OPTION_PARTITION = 1 << 10,
    OPTION_RAW = 1 << 11,
};
#define OPTIONS_OF_ALL (OPTION_SOCKET | OPTION_NAMESPACE | OPTION_HELP)

/* Times in nanoseconds. An option that was not given is 0 or NULL. Strings point into argv. */
struct arguments {
    unsigned given; /* OPTION_ bits */
    const char *socket;
    const char *name_space;
    int64_t ttl;        /* from 1 */
    uint64_t index;     /* from 1 */
    uint32_t partition; /* from 1 */
    int64_t wait;       /* from 0 */
    int64_t timeout;    /* from 0 */
    char **operands;    /* in argv */
    int operand_count;  /* the subcommand's word, argv[0], is not among them */
    void *input;        /* an operand's bytes from standard input, where one is read from there; to be freed */
    size_t input_size;
};

/* Takes argv[1] and what follows apart; the operands come to stand together in argv. -1: *error names the argument and
 * what is allowed. */
int arguments_parse(int argc, char **argv, struct arguments *arguments, struct mr_error *error);
/* -1 if an option was given that is not among `taken`: "`map get` takes no --ttl". */
int arguments_only(const struct arguments *arguments, unsigned taken, const char *what, struct mr_error *error);

/* The index in argv of the first word that is neither an option nor an option's value, argc if there is none. *behind
 * is where the options before it end: before a "--" that ended them. -1: an option that does not exist or lacks its
 * value. *given are the options before it. */
int arguments_first_word(int argc, char **argv, int *behind, unsigned *given, struct mr_error *error);

/* A whole number from -2^63 to 2^63 - 1, in decimal; `what` names it in *error. */
int arguments_number(const char *text, const char *what, int64_t *number, struct mr_error *error);

#endif
