/* SPDX-License-Identifier: Apache-2.0 */
/* Reads segments through a window that moves over them: large reads for the disk, contiguous bytes for the caller. It
 * does not know what it reads. */
#ifndef ENGINE_LOG_READER_H
#define ENGINE_LOG_READER_H

#include "engine/log/segment.h"

struct reader {
    const struct log_config *config;
    const struct segment *segment; /* whose bytes are in the window; NULL: none */
    uint8_t *window;
    uint64_t capacity;
    bool ordinary;        /* the window is ordinary memory: small, and cheap to get */
    uint64_t start, end;  /* what of the segment is in the window */
    uint64_t bytes_read;  /* all in all: so many of `bytes_total` are done, for progress */
    uint64_t bytes_total; /* 0: not known yet, and no progress is told */
    uint64_t told;        /* monotonic time at which progress was last told */
};

void reader_init(struct reader *reader, const struct log_config *config);
void reader_free(struct reader *reader);

/* `size` bytes of an open segment from `offset`, a multiple of its block, in place until the next call; zeros where the
 * file is too short. NULL with *error. */
const uint8_t *reader_at(struct reader *reader, const struct segment *segment, uint64_t offset, uint64_t size,
                         struct mr_error *error);
/* The same, but reads no further ahead than what was asked for. */
const uint8_t *reader_peek(struct reader *reader, const struct segment *segment, uint64_t offset, uint64_t size,
                           struct mr_error *error);
/* Forgets what is in the window: a slot has been closed or written. */
void reader_forget(struct reader *reader);

#endif
