/* SPDX-License-Identifier: Apache-2.0 */
/* What a session holds of its commands. The ways of a number: session_record() puts a new one into the window or into
 * `ahead`, session_open_stream() into `ahead`; session_acknowledge() lets it go, or moves it to `kept` once the floor
 * has passed it; session_discard() ends all at once. session_restore_*() put it where it would stand now. */
#include "engine/fsm/session.h"

#include "engine/fsm/filter.h"
#include "engine/fsm/hash.h"
#include "engine/fsm/memory.h"
#include "ipc/error.h"
#include "proto/reader.h"

#include <stdlib.h>

static uint64_t hash_of_command(const struct table_node *node, uint64_t seed)
{
    return hash_number(container_of(node, struct command, by_number)->sequence_num, seed);
}

struct session *session_create(uint64_t id, uint32_t uid, uint64_t hash_seed)
{
    struct session *session = memory_zeroed(1, sizeof(*session));
    session->id = id;
    session->uid = uid;
    session->hash_seed = hash_seed;
    timers_init(&session->ahead);
    list_init(&session->kept);
    table_init(&session->commands, hash_of_command, hash_seed);
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

enum standing session_standing(const struct session *session, uint64_t sequence_num, struct stored_output **output,
                               struct stream **stream)
{
    *stream = NULL;
    *output = window_get(&session->window, sequence_num);
    if (*output != NULL)
        return STANDING_HELD;
    const struct command *command = find_command(session, sequence_num);
    if (command != NULL) {
        *output = command->output;
        *stream = command->stream;
        return STANDING_HELD;
    }
    return sequence_num <= session->window.floor ? STANDING_GIVEN_UP : STANDING_NEW;
}

/* ---- taking in ---- */

static uint64_t bytes_of(const struct stored_output *output)
{
    return SESSION_OUTPUT_BYTES + (uint64_t)output->content_size;
}

static timer_fn passed_ahead;

static void add_command(struct session *session, struct command *command, uint64_t sequence_num, uint64_t index)
{
    command->sequence_num = sequence_num;
    command->index = index;
    command->ahead.fire = passed_ahead;
    list_init(&command->kept);
    table_insert(&session->commands, &command->by_number, hash_number(sequence_num, session->hash_seed));
}

static struct command *add_answered(struct session *session, struct stored_output *output)
{
    struct command *command = memory_zeroed(1, sizeof(*command));
    command->last_number = output->number;
    command->output = output;
    add_command(session, command, output->sequence_num, output->index);
    return command;
}

static void hold(struct session *session, uint64_t sequence_num, uint64_t bytes)
{
    if (sequence_num > session->highest)
        session->highest = sequence_num;
    session->held_commands++;
    session->held_bytes += SESSION_COMMAND_BYTES + bytes;
}

struct stored_output *session_record(struct session *session, uint64_t sequence_num, const struct service_call *call)
{
    struct stored_output *output = outputs_append(&session->outputs, sequence_num, 1, call->index, call);
    hold(session, sequence_num, bytes_of(output));
    if (!window_put(&session->window, sequence_num, output, session->held_commands)) {
        struct command *command = add_answered(session, output);
        timers_set(&session->ahead, &command->ahead, sequence_num, 0);
    }
    return output;
}

/* `input` NULL: it is complete. It still has to be put into `ahead` or `kept`. */
static struct stream *add_stream(struct session *session, uint64_t sequence_num, uint64_t index, struct blob *input)
{
    struct stream *stream = memory_zeroed(1, sizeof(*stream));
    stream->session = session;
    stream->input = input;
    stream->command.stream = stream;
    list_init(&stream->of_opening);
    session->open_streams += input != NULL;
    session->stream_changes++;
    hold(session, sequence_num, input == NULL ? 0 : SESSION_STREAM_BYTES + (uint64_t)input->size);
    add_command(session, &stream->command, sequence_num, index);
    return stream;
}

struct stream *session_open_stream(struct session *session, uint64_t sequence_num, uint64_t index, struct blob *input)
{
    struct stream *stream = add_stream(session, sequence_num, index, input);
    timers_set(&session->ahead, &stream->command.ahead, sequence_num, 0);
    return stream;
}

void session_stream_complete(struct stream *stream)
{
    mr_assert(stream->input != NULL && stream->session->open_streams > 0);
    stream->session->open_streams--;
    stream->session->stream_changes++;
    stream->session->held_bytes -= SESSION_STREAM_BYTES + (uint64_t)stream->input->size;
    blob_release(stream->input);
    stream->input = NULL;
}

/* ---- as it was ---- */

void session_restore_floor(struct session *session, uint64_t floor)
{
    mr_assert(session->held_commands == 0);
    session->window.floor = floor;
    session->highest = floor;
}

void session_restore_answer(struct session *session, uint64_t sequence_num, uint64_t index,
                            const struct service_call *call)
{
    if (sequence_num > session->window.floor) {
        mr_assert(call != NULL && call->index == index);
        session_record(session, sequence_num, call);
        return;
    }
    struct command *command;
    if (call != NULL) {
        struct stored_output *output = outputs_append(&session->outputs, sequence_num, 1, index, call);
        hold(session, sequence_num, bytes_of(output));
        command = add_answered(session, output);
    } else {
        hold(session, sequence_num, 0);
        command = memory_zeroed(1, sizeof(*command));
        command->last_number = 1;
        add_command(session, command, sequence_num, index);
    }
    list_append(&session->kept, &command->kept);
}

struct stream *session_restore_stream(struct session *session, uint64_t sequence_num, uint64_t index,
                                      struct blob *input, uint64_t acknowledged)
{
    struct stream *stream = add_stream(session, sequence_num, index, input);
    if (sequence_num > session->window.floor)
        timers_set(&session->ahead, &stream->command.ahead, sequence_num, 0);
    else
        list_append(&session->kept, &stream->command.kept);
    stream->outputs.floor = acknowledged;
    stream->command.last_number = acknowledged;
    return stream;
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

static void release_outputs(struct stream *stream, uint64_t upto)
{
    uint64_t bytes = 0;
    while (stream->outputs.count > 0 && stream->outputs.floor < upto) {
        bytes += session_output_bytes(events_get(&stream->outputs, stream->outputs.floor + 1));
        events_drop_first(&stream->outputs);
    }
    stream->session->held_bytes -= bytes;
}

static void free_command(struct command *command)
{
    struct stream *stream = command->stream;
    if (stream == NULL) {
        free(command);
        return;
    }
    blob_release(stream->input);
    events_free(&stream->outputs);
    free(stream);
}

static void forget_command(struct session *session, struct command *command, session_cancel_fn *cancel)
{
    struct stream *stream = command->stream;
    if (stream != NULL && stream->input != NULL)
        cancel(stream);
    table_remove(&session->commands, &command->by_number);
    list_remove(&command->kept);
    if (command->output != NULL)
        release_output(session, command->output);
    if (stream != NULL)
        release_outputs(stream, UINT64_MAX);
    forget(session);
    free_command(command);
}

struct acknowledgement {
    struct session *session;
    session_cancel_fn *cancel;
    struct slice filter;
    uint64_t upto; /* last_input_sequence_num */
};

/* The floor passes a number in the window. */
static void passed_in_window(void *context, struct stored_output *output)
{
    struct acknowledgement *acknowledgement = context;
    struct session *session = acknowledgement->session;
    if (filter_has(acknowledgement->filter, output->sequence_num)) {
        list_append(&session->kept, &add_answered(session, output)->kept);
    } else {
        session->held_commands--;
        session->held_bytes -= SESSION_COMMAND_BYTES + bytes_of(output);
        outputs_release(&session->outputs, output);
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
        forget_command(acknowledgement->session, command, acknowledgement->cancel);
}

static void ask_about_kept(const struct acknowledgement *acknowledgement)
{
    struct session *session = acknowledgement->session;
    for (struct list *link = session->kept.next; link != &session->kept;) {
        struct command *command = container_of(link, struct command, kept);
        link = link->next;
        if (command->sequence_num <= acknowledgement->upto &&
            !filter_has(acknowledgement->filter, command->sequence_num))
            forget_command(session, command, acknowledgement->cancel);
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
    if (command == NULL)
        return;
    if (command->output != NULL && command->output->number <= command->acknowledged) {
        release_output(acknowledgement->session, command->output);
        command->output = NULL;
    }
    if (command->stream != NULL) {
        struct events *outputs = &command->stream->outputs;
        size_t most = outputs->count;
        release_outputs(command->stream, command->acknowledged);
        events_settle(outputs, most);
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
    mr_assert(command != NULL);
    mr_assert(command->output == from);
    command->output = to;
}

uint64_t session_walk(const struct session *session, uint64_t last_input_sequence_num, uint64_t *again)
{
    const struct window *window = &session->window;
    uint64_t kept = session->commands.count - session->ahead.count;
    *again = last_input_sequence_num == 0 ? 0 : kept;
    if (last_input_sequence_num == 0)
        return 0;
    if (last_input_sequence_num <= window->floor)
        return kept;
    uint64_t raised = last_input_sequence_num - window->floor;
    bool reaches_ahead = session->ahead.count > 0 && session->ahead.heap[1]->deadline <= last_input_sequence_num;
    return kept + (raised < window->count ? raised : window->count) + (reaches_ahead ? session->ahead.count : 0);
}

void session_acknowledge(struct session *session, const struct command_input *keep_alive, session_cancel_fn *cancel)
{
    struct acknowledgement acknowledgement = {session, cancel, keep_alive->input_filter,
                                              keep_alive->last_input_sequence_num};
    if (acknowledgement.upto > session->highest)
        session->highest = acknowledgement.upto;
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

/* Lets go of a stream's outputs, as far as it may; true: none is left. */
static bool free_outputs(const struct command *command, unsigned *budget)
{
    struct stream *stream = command->stream;
    for (; stream != NULL && stream->outputs.count > 0 && *budget > 0; --*budget)
        events_drop_first(&stream->outputs);
    return *budget > 0;
}

static bool free_some(struct garbage_item *item, unsigned *budget)
{
    struct session *session = container_of(item, struct session, garbage);
    for (; session->ahead.count > 0; --*budget) {
        struct command *command = container_of(session->ahead.heap[session->ahead.count], struct command, ahead);
        if (!free_outputs(command, budget))
            return false;
        session->ahead.count--;
        free_command(command);
    }
    for (; !list_empty(&session->kept); --*budget) {
        struct command *command = container_of(session->kept.next, struct command, kept);
        if (!free_outputs(command, budget))
            return false;
        list_remove(&command->kept);
        free_command(command);
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
