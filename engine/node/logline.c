/* SPDX-License-Identifier: Apache-2.0 */
/* A log line, on standard error, in one write:
 *
 *     2026-11-22T08:01:33.123Z info  partition 2: text
 *     2026-11-22T08:01:33.123Z error node: text
 *
 * Bytes of the text that could start a line of their own or move a terminal's cursor are replaced: a client's words may
 * be in it. A line that is too long is cut. One that standard error has no room for is lost, and the next one says so:
 * a node does not stand still because nobody reads its log. (Only if another process fills the last of a pipe between
 * the look and the write does it wait.) */
#include "engine/node/logline.h"

#include "ipc/error.h"
#include "ipc/sys.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static const char *const level_names[] = {"info ", "warn ", "error"};

static bool lost; /* of this process: the last line */

static bool has_room(void)
{
    struct pollfd look = {.fd = STDERR_FILENO, .events = POLLOUT};

    return sys_poll(&look, 1, 0) != 0; /* what is wrong with it the write says */
}

static size_t write_head(char *line, size_t size, enum logline_level level, uint32_t partition)
{
    struct timespec now = {0};
    struct tm utc;
    char who[32] = "node";

    (void)sys_clock_gettime(CLOCK_REALTIME, &now); /* does not fail for this clock */
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    if (partition != 0)
        snprintf(who, sizeof(who), "partition %" PRIu32, partition);
    return used + (size_t)snprintf(line + used, size - used, ".%03ldZ %s %s: %s", now.tv_nsec / 1000000,
                                   level_names[level], who, lost ? "(lines before this one are lost) " : "");
}

void logline(enum logline_level level, uint32_t partition, const char *format, ...)
{
    char line[LINE_MAX_BYTES];
    size_t head = write_head(line, sizeof(line), level, partition);
    size_t room = sizeof(line) - head - 1; /* the newline takes the NUL's place */
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(line + head, room, format, arguments);
    va_end(arguments);
    size_t size = length < 0 ? 0 : (size_t)length < room ? (size_t)length : room - 1;
    error_keep_to_one_line(line + head, size);
    line[head + size] = '\n';
    lost = !has_room();
    if (lost)
        return;
    /* Nowhere is left to say that standard error cannot be written: the line is lost. */
    while (sys_write(STDERR_FILENO, line, head + size + 1) < 0 && errno == EINTR)
        ;
}
