/* SPDX-License-Identifier: Apache-2.0 */
/* See argument.h. */
#include "tests/support/argument.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t argument_number(const char *program, const char *text, uint64_t most)
{
    char *end;

    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (*end != '\0' || *text < '0' || *text > '9') { /* strtoull() takes blanks and signs too */
        fprintf(stderr, "%s: %s is no number\n", program, text);
        exit(2);
    }
    if (errno != 0 || value > most) {
        fprintf(stderr, "%s: %s is too large; allowed is at most %" PRIu64 "\n", program, text, most);
        exit(2);
    }
    return value;
}
