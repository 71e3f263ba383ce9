/* SPDX-License-Identifier: Apache-2.0 */
/* What admission has read of the commands that stand in the log and are not applied: a queue in the order of the log,
 * so that turn.c need not read the same bytes again. It only saves work: a command that is not found here, because so
 * many wait, is read again. Knows nothing of what the commands are. */
#ifndef ENGINE_NODE_READ_ONCE_H
#define ENGINE_NODE_READ_ONCE_H

#include "proto/messages.h"

enum { READ_ONCE_PLACES = 4096 }; /* a power of two; one of them is always free */

struct read_once {
    struct partition_command_input *places; /* what they point at are the log's bytes */
    unsigned first, end;                    /* count up; modulo the number of places */
};

/* Where the next command is read to. Of one that is not kept the next one takes the place. */
static inline struct partition_command_input *read_once_place(struct read_once *queue)
{
    return &queue->places[queue->end % READ_ONCE_PLACES];
}

/* The command that was read there has been appended to the log. */
static inline void read_once_keep(struct read_once *queue)
{
    if (queue->end - queue->first < READ_ONCE_PLACES - 1)
        queue->end++;
}

/* The command whose bytes begin here, if it was kept: valid until another one is read. Asked in the order of the log,
 * for every one of its commands. */
static inline const struct partition_command_input *read_once_take(struct read_once *queue, const uint8_t *bytes)
{
    const struct partition_command_input *input = &queue->places[queue->first % READ_ONCE_PLACES];
    if (queue->first == queue->end || input->command.source.data != bytes)
        return NULL;
    queue->first++;
    return input;
}

/* Nothing that was taken is used any more. Where few wait, few places are used, which stay in the cache. */
static inline void read_once_rest(struct read_once *queue)
{
    if (queue->first == queue->end)
        queue->first = queue->end = 0;
}

#endif
