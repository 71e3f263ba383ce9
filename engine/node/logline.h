/* SPDX-License-Identifier: Apache-2.0 */
/* A node's log lines, on standard error: UTC time, level, partition, text. One write a line, so that lines of
 * supervisor and workers do not mix. */
#ifndef ENGINE_NODE_LOGLINE_H
#define ENGINE_NODE_LOGLINE_H

#include <stdint.h>

enum logline_level { LOGLINE_INFO, LOGLINE_WARNING, LOGLINE_ERROR };
/* partition 0: the supervisor. */
void logline(enum logline_level level, uint32_t partition, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
