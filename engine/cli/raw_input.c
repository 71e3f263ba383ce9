/* SPDX-License-Identifier: Apache-2.0 */
/* Lines from a descriptor: see raw_input.h. */
#include "engine/cli/raw_input.h"

#include "ipc/sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES 65536

/* Room for READ_BYTES more behind `end`. */
static int make_room(struct raw_input *input, struct mr_error *error)
{
    if (input->start > 0) {
        memmove(input->bytes, input->bytes + input->start, input->end - input->start);
        input->end -= input->start;
        input->scanned -= input->start;
        input->start = 0;
    }
    if (input->capacity - input->end >= READ_BYTES)
        return 0;
    size_t capacity = 2 * input->capacity + READ_BYTES;
    char *bytes = realloc(input->bytes, capacity);
    if (bytes == NULL)
        return error_set(error, "no memory for a line of over %zu bytes", input->end);
    input->bytes = bytes;
    input->capacity = capacity;
    return 0;
}

int raw_input_read(struct raw_input *input, struct mr_error *error)
{
    if (make_room(input, error) != 0)
        return -1;
    ssize_t got = sys_read(input->fd, input->bytes + input->end, READ_BYTES);
    if (got < 0) {
        if (errno == EINTR || errno == EAGAIN)
            return 0;
        return error_system(error, errno, "standard input could not be read");
    }
    input->end += (size_t)got;
    input->ended = got == 0;
    return 0;
}

enum raw_input_result raw_input_line(struct raw_input *input, char **line, size_t *size)
{
    if (input->scanned == input->end && !input->ended)
        return RAW_INPUT_NONE;
    char *newline =
        input->scanned < input->end ? memchr(input->bytes + input->scanned, '\n', input->end - input->scanned) : NULL;
    size_t length = (newline != NULL ? (size_t)(newline - input->bytes) : input->end) - input->start;

    if (newline == NULL && !input->ended) {
        input->scanned = input->end;
        if (length > input->line_max) { /* its bytes are dropped, so that no line takes more memory than that */
            input->skipping = true;
            input->start = input->end;
        }
        return RAW_INPUT_NONE;
    }
    if (newline == NULL && length == 0 && !input->skipping)
        return RAW_INPUT_NONE; /* the end */
    *line = input->bytes + input->start;
    *size = length;
    input->start += length + (newline != NULL ? 1 : 0);
    input->scanned = input->start;
    bool too_long = input->skipping || length > input->line_max;
    input->skipping = false;
    return too_long ? RAW_INPUT_TOO_LONG : RAW_INPUT_LINE;
}

void raw_input_free(struct raw_input *input)
{
    free(input->bytes);
    *input = (struct raw_input){.fd = input->fd, .line_max = input->line_max};
}
