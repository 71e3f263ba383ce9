/* SPDX-License-Identifier: Apache-2.0 */
/* What a session holds of its commands. The ways of a number: session_record() puts a new one into the window or into
 * `ahead`; session_acknowledge() lets it go, or moves it to `kept` once the floor has passed it; session_discard() ends
 * all at once. */
#include "engine/fsm/session.h"

#include "engine/fsm/filter.h"
#include "engine/fsm/hash.h"
#include "engine/fsm/memory.h"
#include "ipc/error.h"
#include "proto/reader.h"

#include <stdlib.h>

struct session *session_create(uint64_t id, uint32_t uid, uint64_t hash_seed)
{
    struct session *session = memory_zeroed(1, sizeof(*session));
    session->id = id;
    session->uid = uid;
    session->hash_seed = hash_seed;
    timers_init(&session->ahead);
    list_init(&session->kept);
    list_init(&session->openings_list);
    return session;
}

/* ---- finding ---- */

static struct command *find_command(const struct session *session, uint64_t sequence_num)
{
    if (session->commands.count == 0)
        return NULL;
    uint64_t hash = hash_number(sequence_num, session->hash_seed);
    for (struct table_node *node = table_first(&session->commands, hash); node != NULL; node = node->next) {
        struct command *command = container_of(node, struct command, by_number);
        if (command->sequence_num == sequence_num)
            return command;
    }
    return NULL;
}

enum standing session_standing(const struct session *session, uint64_t sequence_num, struct stored_output **output)
{
    *output = window_get(&session->window, sequence_num);
    if (*output != NULL)
        return STANDING_HELD;
    const struct command *command = find_command(session, sequence_num);
    if (command != NULL) {
        *output = command->output;
        return STANDING_HELD;
    }
    return sequence_num <= session->window.floor ? STANDING_GIVEN_UP : STANDING_NEW;
}

/* ---- taking in ---- */

static uint64_t bytes_of(const struct stored_output *output)
{
    return SESSION_OUTPUT_BYTES + (uint64_t)output->payload_size + output->message_size;
}

static timer_fn passed_ahead;

static struct command *add_command(struct session *session, struct stored_output *output)
{
    struct command *command = memory_zeroed(1, sizeof(*command));
    command->sequence_num = output->sequence_num;
    command->index = output->index;
    command->last_number = output->number;
    command->output = output;
    command->ahead.fire = passed_ahead;
    list_init(&command->kept);
    table_insert(&session->commands, &command->by_number, hash_number(command->sequence_num, session->hash_seed));
    return command;
}

struct stored_output *session_record(struct session *session, uint64_t sequence_num, const struct service_call *call)
{
    struct stored_output *output = outputs_append(&session->outputs, sequence_num, 1, call);
    session->held_commands++;
    session->held_bytes += SESSION_COMMAND_BYTES + bytes_of(output);
    if (!window_put(&session->window, sequence_num, output, session->held_commands)) {
        struct command *command = add_command(session, output);
        timers_set(&session->ahead, &command->ahead, sequence_num, 0);
    }
    return output;
}

/* ---- letting go ---- */

static void release_output(struct session *session, struct stored_output *output)
{
    session->held_bytes -= bytes_of(output);
    outputs_release(&session->outputs, output);
}

static void forget(struct session *session)
{
    session->held_commands--;
    session->held_bytes -= SESSION_COMMAND_BYTES;
}

static void forget_command(struct session *session, struct command *command)
{
    table_remove(&session->commands, &command->by_number);
    list_remove(&command->kept);
    if (command->output != NULL)
        release_output(session, command->output);
    forget(session);
    free(command);
}

struct acknowledgement {
    struct session *session;
    struct slice filter;
    uint64_t upto; /* last_input_sequence_num */
};

/* The floor passes a number in the window. */
static void passed_in_window(void *context, struct stored_output *output)
{
    struct acknowledgement *acknowledgement = context;
    struct session *session = acknowledgement->session;
    if (filter_has(acknowledgement->filter, output->sequence_num)) {
        list_append(&session->kept, &add_command(session, output)->kept);
    } else {
        release_output(session, output);
        forget(session);
    }
}

/* The floor passes a number in `ahead`. */
static void passed_ahead(struct timer *timer, void *context)
{
    struct acknowledgement *acknowledgement = context;
    struct command *command = container_of(timer, struct command, ahead);
    if (filter_has(acknowledgement->filter, command->sequence_num))
        list_append(&acknowledgement->session->kept, &command->kept);
    else
        forget_command(acknowledgement->session, command);
}

static void ask_about_kept(const struct acknowledgement *acknowledgement)
{
    struct session *session = acknowledgement->session;
    for (struct list *link = session->kept.next; link != &session->kept;) {
        struct command *command = container_of(link, struct command, kept);
        link = link->next;
        if (command->sequence_num <= acknowledgement->upto &&
            !filter_has(acknowledgement->filter, command->sequence_num))
            forget_command(session, command);
    }
}

/* Of a number that the map names twice the later value counts, so values are noted first and acted on afterwards. */
static void note_outputs(void *context, uint64_t sequence_num, uint64_t last_output)
{
    struct acknowledgement *acknowledgement = context;
    struct command *command =
        sequence_num > acknowledgement->upto ? NULL : find_command(acknowledgement->session, sequence_num);
    if (command != NULL)
        command->acknowledged = last_output;
}

static void drop_outputs(void *context, uint64_t sequence_num, uint64_t last_output)
{
    (void)last_output;
    struct acknowledgement *acknowledgement = context;
    struct command *command =
        sequence_num > acknowledgement->upto ? NULL : find_command(acknowledgement->session, sequence_num);
    if (command != NULL && command->output != NULL && command->output->number <= command->acknowledged) {
        release_output(acknowledgement->session, command->output);
        command->output = NULL;
    }
}

static void output_moved(void *context, struct stored_output *from, struct stored_output *to)
{
    struct session *session = context;
    if (window_get(&session->window, to->sequence_num) == from) {
        window_replace(&session->window, to->sequence_num, to);
        return;
    }
    struct command *command = find_command(session, to->sequence_num);
    mr_assert(command != NULL && command->output == from);
    command->output = to;
}

void session_acknowledge(struct session *session, const struct command_input *keep_alive)
{
    struct acknowledgement acknowledgement = {session, keep_alive->input_filter, keep_alive->last_input_sequence_num};
    if (acknowledgement.upto > 0) {
        ask_about_kept(&acknowledgement);
        if (acknowledgement.upto > session->window.floor) {
            window_raise(&session->window, acknowledgement.upto, passed_in_window, &acknowledgement);
            while (timers_fire(&session->ahead, acknowledgement.upto, &acknowledgement))
                ;
        }
        if (keep_alive->has_last_output_sequence_nums && session->commands.count > 0) {
            read_last_outputs(keep_alive->source, note_outputs, &acknowledgement);
            read_last_outputs(keep_alive->source, drop_outputs, &acknowledgement);
        }
    }
    window_settle(&session->window);
    outputs_settle(&session->outputs, output_moved, session);
}

/* ---- ending ---- */

static bool free_some(struct garbage_item *item, unsigned *budget)
{
    struct session *session = container_of(item, struct session, garbage);
    for (; session->ahead.count > 0 && *budget > 0; --*budget)
        free(container_of(session->ahead.heap[session->ahead.count--], struct command, ahead));
    for (; !list_empty(&session->kept) && *budget > 0; --*budget) {
        struct command *command = container_of(session->kept.next, struct command, kept);
        list_remove(&command->kept);
        free(command);
    }
    if (*budget == 0 || !outputs_free(&session->outputs, budget))
        return false;
    timers_free(&session->ahead);
    table_free(&session->commands);
    table_free(&session->openings);
    window_free(&session->window);
    free(session);
    return true;
}

void session_discard(struct session *session, struct garbage *garbage)
{
    mr_assert(session->openings.count == 0 && session->expiry.place == 0);
    garbage_add(garbage, &session->garbage, free_some);
}

/* ---- writing down ---- */

static int by_number(const void *a, const void *b)
{
    const struct held_command *left = a, *right = b;
    return (left->sequence_num > right->sequence_num) - (left->sequence_num < right->sequence_num);
}

static struct held_command held_of(const struct command *command)
{
    return (struct held_command){command->sequence_num, command->index, command->last_number, command->output};
}

struct held_command *session_held(const struct session *session)
{
    struct held_command *held = memory_allocate((session->held_commands + 1) * sizeof(*held));
    size_t count = 0;
    for (const struct list *link = session->kept.next; link != &session->kept; link = link->next)
        held[count++] = held_of(container_of(link, struct command, kept));
    for (size_t i = 1; i <= session->ahead.count; i++)
        held[count++] = held_of(container_of(session->ahead.heap[i], struct command, ahead));
    const struct window *window = &session->window;
    size_t left = window->count;
    for (uint64_t number = window->floor + 1; left > 0; number++) {
        const struct stored_output *output = window_get(window, number);
        if (output == NULL)
            continue;
        held[count++] = (struct held_command){number, output->index, output->number, output};
        left--;
    }
    mr_assert(count == session->held_commands);
    qsort(held, count, sizeof(*held), by_number);
    return held;
}
