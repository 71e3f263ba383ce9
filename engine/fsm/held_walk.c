/* SPDX-License-Identifier: Apache-2.0 */
/* What a session holds, in order of number, wherever it stands: the window is in that order already; what stands apart
 * is sorted first. Changes nothing. */
#include "engine/fsm/memory.h"
#include "engine/fsm/session.h"
#include "ipc/error.h"

#include <stdlib.h>

static int by_number(const void *a, const void *b)
{
    const struct command *left = *(const struct command *const *)a, *right = *(const struct command *const *)b;
    return (left->sequence_num > right->sequence_num) - (left->sequence_num < right->sequence_num);
}

void held_begin(struct held_walk *walk, const struct session *session)
{
    *walk = (struct held_walk){.session = session};
    size_t count = session->commands.count;
    if (count > 0) {
        walk->apart = memory_allocate(count * sizeof(*walk->apart));
        for (const struct list *link = session->kept.next; link != &session->kept; link = link->next)
            walk->apart[walk->apart_count++] = container_of(link, struct command, kept);
        for (size_t i = 1; i <= session->ahead.count; i++)
            walk->apart[walk->apart_count++] = container_of(session->ahead.heap[i], struct command, ahead);
        mr_assert(walk->apart_count == count);
        qsort(walk->apart, count, sizeof(*walk->apart), by_number);
    }
    mr_assert(count + session->window.count == session->held_commands);
    held_again(walk);
}

void held_again(struct held_walk *walk)
{
    walk->apart_at = 0;
    walk->number = walk->session->window.floor + 1;
    walk->left = walk->session->window.count;
}

void held_end(struct held_walk *walk)
{
    free(walk->apart);
    walk->apart = NULL;
}

static struct held_command held_of(const struct command *command)
{
    uint64_t acknowledged = command->stream != NULL   ? command->stream->outputs.floor
                            : command->output == NULL ? command->last_number
                                                      : 0;
    return (struct held_command){.sequence_num = command->sequence_num,
                                 .index = command->index,
                                 .last_number = command->last_number,
                                 .acknowledged = acknowledged,
                                 .output = command->output,
                                 .stream = command->stream};
}

bool held_next(struct held_walk *walk, struct held_command *held)
{
    const struct window *window = &walk->session->window;
    const struct stored_output *output = NULL;
    for (; walk->left > 0; walk->number++) {
        output = window_get(window, walk->number);
        if (output != NULL)
            break;
    }
    if (walk->apart_at < walk->apart_count) {
        const struct command *command = walk->apart[walk->apart_at];
        if (output == NULL || command->sequence_num < walk->number) {
            walk->apart_at++;
            *held = held_of(command);
            return true;
        }
    }
    if (output == NULL)
        return false;
    *held = (struct held_command){
        .sequence_num = walk->number, .index = output->index, .last_number = output->number, .output = output};
    walk->number++;
    walk->left--;
    return true;
}
