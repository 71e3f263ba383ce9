/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of `millrace raw`, read and written. Knows no node.
 *
 * A line that asks is `command HEX`, `command@P HEX`, `query HEX` or `query@P HEX`: HEX is the encoded
 * PartitionCommandInput or PartitionQueryInput, two digits a byte in either case, or `-` for no bytes; P is a
 * partition, in decimal. Words are parted by blanks; blanks at either end do not matter. Empty lines and those whose
 * first word starts with # ask nothing.
 *
 * A line that answers is `N STATUS HEX`, with ` MESSAGE` behind it if there is one, or `N end`: N is the number of the
 * line that asked, from 1; HEX in lower case, or `-`; in the message a newline is written \n and a backslash \\. */
#ifndef ENGINE_CLI_RAW_LINE_H
#define ENGINE_CLI_RAW_LINE_H

#include "ipc/error.h"

#include <millrace/raw.h>

#include <stdio.h>

struct raw_line {
    enum mr_kind kind;
    uint32_t partition; /* as in @P, or else as in the message; 1 if that cannot be read */
    uint8_t *body;      /* size bytes in the text's own memory */
    size_t size;
};

enum raw_line_result {
    RAW_LINE_ASKS,
    RAW_LINE_EMPTY,
    RAW_LINE_MALFORMED, /* *error says why */
};

/* Takes a line of `size` bytes, without its newline, apart. Overwrites it: the body comes where the digits stood. */
enum raw_line_result raw_line_parse(char *text, size_t size, struct raw_line *line, struct mr_error *error);

/* One line each, with its newline. */
void raw_line_print_frame(FILE *to, uint64_t number, const struct mr_result *frame);
void raw_line_print_refusal(FILE *to, uint64_t number, enum mr_status status, const char *message);
void raw_line_print_end(FILE *to, uint64_t number);

#endif
