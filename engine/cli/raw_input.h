/* SPDX-License-Identifier: Apache-2.0 */
/* Lines from a descriptor, as they come: reading never waits for a whole line, so that one thread can read and do other
 * things as well. Knows nothing of what the lines mean. */
#ifndef ENGINE_CLI_RAW_INPUT_H
#define ENGINE_CLI_RAW_INPUT_H

#include "ipc/error.h"

#include <stdbool.h>
#include <stddef.h>

struct raw_input {
    int fd;
    size_t line_max; /* bytes; a longer line is passed over without being kept */
    char *bytes;     /* what has been read and not yet given out starts at `start` */
    size_t capacity; /* of bytes */
    size_t start, end;
    size_t scanned; /* up to here there is no newline */
    bool ended;     /* the end of the input has been read */
    bool skipping;  /* within a line that is too long */
};

enum raw_input_result {
    RAW_INPUT_LINE,     /* *line has *size bytes, without the newline; may be written to, until the next call */
    RAW_INPUT_TOO_LONG, /* a line over line_max has been passed over */
    RAW_INPUT_NONE,     /* no whole line is there; at the end: none will come */
};

/* Reads once from fd, which is ready (poll), what is there. -1: *error. Sets `ended` at the end of the input. */
int raw_input_read(struct raw_input *input, struct mr_error *error);
/* The next line that has come whole; at the end of the input the last one, newline or not. */
enum raw_input_result raw_input_line(struct raw_input *input, char **line, size_t *size);
void raw_input_free(struct raw_input *input);

#endif
