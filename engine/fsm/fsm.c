/* SPDX-License-Identifier: Apache-2.0 */
/* One partition's state machine: what an entry of the log does. First the deadlines up to the entry's time fire, or the
 * first of them if they are many, then its command is applied:
 *
 *     fsm_apply -> open_session | keep_alive | close_session | create_service | close_service | service_command
 *
 * and each of these gives one answer to the entry's route. A service command that is new runs its operation, whose
 * answer is stored in the session and given from there; one that is held is given what is stored. An operation may
 * leave its command open: stream.c does the rest of that, for as long as it lasts. */
#include "engine/fsm/duration.h"
#include "engine/fsm/hash.h"
#include "engine/fsm/memory.h"
#include "engine/fsm/owners.h"
#include "engine/fsm/state.h"
#include "ipc/error.h"
#include "proto/writer.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_of_session(const struct table_node *node, uint64_t seed)
{
    return hash_number(container_of(node, struct session, by_id)->id, seed);
}

struct fsm *fsm_create(const struct fsm_config *config)
{
    struct fsm *fsm = memory_zeroed(1, sizeof(*fsm));
    fsm->config = *config;
    timers_init(&fsm->timers);
    garbage_init(&fsm->garbage);
    list_init(&fsm->sessions);
    table_init(&fsm->sessions_by_id, hash_of_session, config->hash_seed);
    owners_init(&fsm->owners, config->hash_seed);
    struct service_host host = {.timers = &fsm->timers,
                                .garbage = &fsm->garbage,
                                .output = &fsm->output,
                                .time = &fsm->time,
                                .hash_seed = config->hash_seed};
    service_table_init(&fsm->services, config->types, host);
    return fsm;
}

static int by_index(const void *a, const void *b)
{
    const struct stream *left = *(struct stream *const *)a, *right = *(struct stream *const *)b;
    return (left->command.index > right->command.index) - (left->command.index < right->command.index);
}

/* In the order in which they were opened, on whatever service: the order of a session's openings is no part of the
 * state, and must not show. */
static void end_streams(const struct session *session)
{
    size_t count = 0;
    const struct list *openings = &session->openings_list;
    for (const struct list *of = openings->next; of != openings; of = of->next) {
        const struct opening *opening = container_of(of, struct opening, of_session);
        for (const struct list *link = opening->streams.next; link != &opening->streams; link = link->next)
            count++;
    }
    if (count == 0)
        return;
    struct stream **streams = memory_allocate(count * sizeof(struct stream *));
    count = 0;
    for (const struct list *of = openings->next; of != openings; of = of->next) {
        const struct opening *opening = container_of(of, struct opening, of_session);
        for (const struct list *link = opening->streams.next; link != &opening->streams; link = link->next)
            streams[count++] = container_of(link, struct stream, of_opening);
    }
    qsort(streams, count, sizeof(struct stream *), by_index);
    for (size_t i = 0; i < count; i++)
        if (streams[i]->opening != NULL) /* the end of an earlier one may have ended it */
            stream_end_unstored(streams[i]);
    free(streams);
}

/* CloseSession, expiry, and the end of the state machine. */
static void end_session(struct fsm *fsm, struct session *session)
{
    end_streams(session);
    while (!list_empty(&session->openings_list)) {
        struct opening *opening = container_of(session->openings_list.next, struct opening, of_session);
        fsm_detach_cursors(opening);
        service_table_close(opening);
    }
    if (fsm->recent == session)
        fsm->recent = NULL;
    timers_cancel(&fsm->timers, &session->expiry);
    table_remove(&fsm->sessions_by_id, &session->by_id);
    list_remove(&session->order);
    owners_remove(&fsm->owners, session->owner);
    session_discard(session, &fsm->garbage);
}

void fsm_destroy(struct fsm *fsm)
{
    if (fsm == NULL)
        return;
    while (!list_empty(&fsm->sessions))
        end_session(fsm, container_of(fsm->sessions.next, struct session, order));
    call_free(&fsm->call);
    call_free(&fsm->output);
    service_table_free(&fsm->services);
    while (garbage_collect(&fsm->garbage, UINT_MAX))
        ;
    table_free(&fsm->sessions_by_id);
    table_free(&fsm->owners);
    timers_free(&fsm->timers);
    free(fsm->parts);
    free(fsm);
}

static void expire(struct timer *timer, void *context)
{
    end_session(context, container_of(timer, struct session, expiry));
}

/* ---- finding what a request names ---- */

struct session *fsm_find_session(const struct fsm *fsm, uint64_t session_id)
{
    uint64_t hash = hash_number(session_id, fsm->config.hash_seed);
    for (struct table_node *node = table_first(&fsm->sessions_by_id, hash); node != NULL; node = node->next) {
        struct session *session = container_of(node, struct session, by_id);
        if (session->id == session_id)
            return session;
    }
    return NULL;
}

struct session *fsm_look_up_session(struct fsm *fsm, uint64_t session_id, uint32_t uid, enum status *status,
                                    const char **message)
{
    struct session *session = fsm_find_session(fsm, session_id);
    if (session != NULL && session->uid == uid) {
        fsm->recent = session;
        return session;
    }
    *status = session == NULL ? STATUS_FORBIDDEN : STATUS_UNAUTHORIZED;
    snprintf(fsm->text, sizeof(fsm->text),
             session == NULL ? "session %" PRIu64 " is unknown, closed or expired"
                             : "session %" PRIu64 " was opened by another user",
             session_id);
    *message = fsm->text;
    return NULL;
}

struct opening *fsm_demand_opening(struct fsm *fsm, struct session *session, uint64_t service_id, enum status *status,
                                   const char **message)
{
    struct opening *opening = service_opening(session, service_id);
    if (opening == NULL) {
        *status = STATUS_FORBIDDEN;
        snprintf(fsm->text, sizeof(fsm->text), "service %" PRIu64 " is not open in session %" PRIu64, service_id,
                 session->id);
        *message = fsm->text;
    }
    return opening;
}

void fsm_more_parts(struct fsm *fsm, size_t count)
{
    fsm->part_capacity = count < 16 ? 16 : count * 2;
    fsm->parts = memory_resize(fsm->parts, fsm->part_capacity * sizeof(struct slice));
}

/* ---- answers ---- */

void fsm_describe_rest(struct slice *parts, const struct stored_output *output)
{
    for (size_t i = 1; i < output_part_count(output); i++)
        parts[i] = output_part(output, i);
}

/* The entry being applied and where its answer goes. */
struct application {
    struct fsm *fsm;
    const struct fsm_entry *entry;
    const struct command_input *command;
};

static void give(const struct application *application, const struct fsm_answer *answer)
{
    /* If there is no room for a stored one, fsm_deliver() will be asked for it with the route. */
    const struct fsm_sink *sink = application->fsm->sink;
    (void)sink->answer(sink->context, &application->entry->route, answer);
}

static void refuse(const struct application *application, enum status status, const char *message)
{
    const struct command_input *command = application->command;
    bool numbered = command->kind == COMMAND_SESSION_COMMAND &&
                    command->session_kind == SESSION_COMMAND_SERVICE_COMMAND && command->sequence_num != 0;
    struct fsm_answer answer = {
        .session_id = numbered ? command->session_id : 0,
        .sequence_num = numbered ? command->sequence_num : 0,
        .last = true,
        .status = status,
        .message = {(const uint8_t *)message, strlen(message)},
    };
    give(application, &answer);
}

void fsm_encode(struct fsm *fsm, const struct command_output *output, struct fsm_answer *answer)
{
    answer->parts = fsm_parts(fsm, 1);
    answer->part_count = 1;
    answer->size = partition_command_output_size(output);
    mr_assert(answer->size <= sizeof(fsm->body));
    write_partition_command_output(fsm->body, output);
    fsm->parts[0] = (struct slice){fsm->body, answer->size};
}

/* Of a command without a number. */
static void acknowledge(const struct application *application, uint64_t id)
{
    struct command_output output = {.index = application->entry->index,
                                    .kind = application->command->kind,
                                    .session_kind = application->command->session_kind,
                                    .id = id};
    struct fsm_answer answer = {.last = true, .status = STATUS_OK};
    fsm_encode(application->fsm, &output, &answer);
    give(application, &answer);
}

static bool same_route(const struct fsm_route *a, const struct fsm_route *b)
{
    return a->channel == b->channel && a->position == b->position;
}

bool fsm_deliver(struct fsm *fsm, uint64_t session_id, uint64_t sequence_num, const struct fsm_route *route,
                 const struct fsm_sink *sink, bool *gone)
{
    struct session *session = fsm_find_session(fsm, session_id);
    struct stored_output *output = NULL;
    struct stream *stream = NULL;
    *gone = session == NULL || session_standing(session, sequence_num, &output, &stream) != STANDING_HELD ||
            (output == NULL && stream == NULL);
    if (*gone)
        return true;
    if (stream != NULL) {
        if (stream->told || !same_route(&stream->route, route))
            return true;
        fsm->sink = sink;
        bool all = stream_go_on(stream);
        fsm->sink = NULL;
        *gone = all && stream->input == NULL && !stream->told;
        return all;
    }
    struct fsm_answer answer;
    fsm_describe(fsm, session, output, true, &answer);
    return sink->answer(sink->context, route, &answer);
}

void fsm_leave(struct fsm *fsm, uint64_t session_id, uint64_t sequence_num, const struct fsm_route *route)
{
    struct session *session = fsm_find_session(fsm, session_id);
    struct stored_output *output = NULL;
    struct stream *stream = NULL;
    if (session != NULL && session_standing(session, sequence_num, &output, &stream) == STANDING_HELD &&
        stream != NULL && same_route(&stream->route, route))
        stream->told = true;
}

/* ---- sessions ---- */

static void renew(struct fsm *fsm, struct session *session, uint64_t time)
{
    session->last_updated = time;
    timers_set(&fsm->timers, &session->expiry, time_after(time, session->timeout), session->id);
}

struct session *fsm_add_session(struct fsm *fsm, uint64_t id, uint32_t uid, uint64_t timeout, uint64_t last_updated)
{
    struct session *session = session_create(id, uid, fsm->config.hash_seed);
    session->timeout = timeout;
    session->expiry.fire = expire;
    service_openings_begin(session);
    session->owner = owners_add(&fsm->owners, uid, fsm->config.hash_seed);
    table_insert(&fsm->sessions_by_id, &session->by_id, hash_number(id, fsm->config.hash_seed));
    list_append(&fsm->sessions, &session->order);
    renew(fsm, session, last_updated);
    return session;
}

static void open_session(const struct application *application)
{
    struct fsm *fsm = application->fsm;
    uint64_t timeout = 0;
    (void)duration_nanoseconds(application->command->timeout, &timeout); /* valid: it has been checked */
    fsm_add_session(fsm, application->entry->index, application->entry->uid, timeout, fsm->time);
    acknowledge(application, application->entry->index);
}

static void keep_alive(const struct application *application, struct session *session)
{
    renew(application->fsm, session, application->fsm->time);
    session_acknowledge(session, application->command, stream_cancel);
    acknowledge(application, 0);
}

static void close_session(const struct application *application, struct session *session)
{
    end_session(application->fsm, session);
    acknowledge(application, 0);
}

/* ---- services ---- */

static void create_service(const struct application *application, struct session *session)
{
    struct fsm *fsm = application->fsm;
    const struct service_spec *spec = &application->command->spec;
    const struct service_type *type = service_table_type(&fsm->services, spec->service);
    struct service *service = service_table_find(&fsm->services, spec);
    if (service != NULL && service->type != type) {
        snprintf(fsm->text, sizeof(fsm->text), "a service of that name exists with another type, %s",
                 service->type->name);
        refuse(application, STATUS_FORBIDDEN, fsm->text);
        return;
    }
    if (service == NULL)
        service = service_table_create(&fsm->services, type, spec, application->entry->index);
    service_table_open(session, service);
    acknowledge(application, service->id);
}

static void close_service(const struct application *application, struct session *session)
{
    enum status status;
    const char *message;
    struct opening *opening =
        fsm_demand_opening(application->fsm, session, application->command->service_id, &status, &message);
    if (opening == NULL) {
        refuse(application, status, message);
        return;
    }
    while (!list_empty(&opening->streams))
        stream_close(container_of(opening->streams.next, struct stream, of_opening));
    fsm_detach_cursors(opening);
    service_table_close(opening);
    acknowledge(application, 0);
}

/* ---- commands with a number ---- */

static bool over_limit(const struct application *application, const struct session *session)
{
    struct fsm *fsm = application->fsm;
    if (session->held_bytes <= fsm->config.session_output_limit)
        return false;
    snprintf(fsm->text, sizeof(fsm->text),
             "session %" PRIu64 " is over its limit of unacknowledged outputs: %" PRIu64 " bytes of %" PRIu64
             "; acknowledge with a KeepAlive",
             session->id, session->held_bytes, fsm->config.session_output_limit);
    refuse(application, STATUS_UNAVAILABLE, fsm->text);
    return true;
}

/* Its answer, stored; NULL: there is none to give, because it was refused or is open. */
static const struct stored_output *run_command(const struct application *application, struct session *session)
{
    struct fsm *fsm = application->fsm;
    const struct command_input *command = application->command;
    enum status status;
    const char *message;
    struct opening *opening = fsm_demand_opening(fsm, session, command->service_id, &status, &message);
    if (opening == NULL) {
        refuse(application, status, message);
        return NULL;
    }
    if (over_limit(application, session))
        return NULL;
    struct stream_origin origin = {fsm, application->entry, opening};
    struct service_call *call = &fsm->call;
    call_begin(call, application->entry->index, fsm->time, command->operation.payload);
    call->origin = &origin;
    call_run(call, opening->service->type, opening->service->state, command->operation.name, false);
    const struct stored_output *output = NULL;
    if (call->stream == NULL)
        output = session_record(session, command->sequence_num, call);
    call->stream = NULL;
    call_drop(call);
    return output;
}

static void service_command(const struct application *application, struct session *session)
{
    uint64_t sequence_num = application->command->sequence_num;
    struct stored_output *held = NULL;
    struct stream *stream = NULL;
    const struct stored_output *output = NULL;
    enum standing standing = STANDING_NEW;
    if (!session_surely_new(session, sequence_num))
        standing = session_standing(session, sequence_num, &held, &stream);
    if (standing == STANDING_NEW)
        output = run_command(application, session);
    else if (standing == STANDING_GIVEN_UP)
        refuse(application, STATUS_CONFLICT, "this sequence number has been given up by a KeepAlive");
    else if (stream != NULL && (stream->input != NULL || stream->outputs.count > 0))
        stream_attach(stream, application->entry);
    else if (held == NULL)
        refuse(application, STATUS_CONFLICT, "every output of this sequence number has been acknowledged");
    else
        output = held;
    if (output == NULL)
        return;
    struct fsm_answer answer;
    fsm_describe(application->fsm, session, output, true, &answer);
    give(application, &answer);
}

static void in_session(const struct application *application)
{
    const struct command_input *command = application->command;
    enum status status;
    const char *message;
    struct session *session =
        fsm_demand_session(application->fsm, command->session_id, application->entry->uid, &status, &message);
    if (session == NULL)
        refuse(application, status, message);
    else if (command->kind == COMMAND_SESSION_COMMAND && command->session_kind == SESSION_COMMAND_SERVICE_COMMAND)
        service_command(application, session);
    else if (command->kind == COMMAND_KEEP_ALIVE)
        keep_alive(application, session);
    else if (command->kind == COMMAND_CLOSE_SESSION)
        close_session(application, session);
    else if (command->session_kind == SESSION_COMMAND_CREATE_SERVICE)
        create_service(application, session);
    else
        close_service(application, session);
}

/* Something is due. However much it is, an entry does a part of it that others need not notice: the rest stays due, in
 * the same order, for the entries behind it. What a turn takes in has one time, so of such entries only the first does
 * its part, and a batch takes no longer than one of them; one that carries nothing but time always does. */
static void pass_time(struct fsm *fsm, const struct fsm_entry *entry)
{
    if (entry->time <= fsm->time && entry->command != NULL)
        return;
    uint64_t outputs = fsm->outputs;
    for (unsigned fired = 0; fired < MR_ENTRY_DEADLINES && fsm->outputs - outputs < MR_ENTRY_DEADLINE_OUTPUTS;
         fired++) {
        uint64_t deadline = timers_next(&fsm->timers);
        if (deadline > fsm->time && deadline <= entry->time)
            fsm->time = deadline;
        if (timers_fire(&fsm->timers, entry->time, fsm) == 0)
            break;
    }
}

static void apply(struct fsm *fsm, const struct fsm_entry *entry)
{
    if (timers_next(&fsm->timers) <= entry->time)
        pass_time(fsm, entry);
    if (entry->time > fsm->time)
        fsm->time = entry->time;
    if (entry->command == NULL)
        return;

    struct application application = {fsm, entry, entry->command};
    const char *message = "";
    enum status status = check_command(fsm, entry->command, &message);
    if (status != STATUS_OK)
        refuse(&application, status, message);
    else if (entry->command->kind == COMMAND_OPEN_SESSION)
        open_session(&application);
    else
        in_session(&application);
}

void fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink)
{
    mr_assert(entry->index > fsm->index);
    fsm->index = entry->index;
    fsm->sink = sink;
    apply(fsm, entry);
    fsm->sink = NULL;
    event_forget(&fsm->output);
    if (fsm->output.piece_count > 0)
        call_drop(&fsm->output); /* no longer than it must it keeps others' blobs */
}

/* ---- what else is asked of it ---- */

uint64_t fsm_index(const struct fsm *fsm)
{
    return fsm->index;
}

uint64_t fsm_time(const struct fsm *fsm)
{
    return fsm->time;
}

uint64_t fsm_next_deadline(const struct fsm *fsm)
{
    return timers_next(&fsm->timers);
}

uint64_t fsm_session_count(const struct fsm *fsm)
{
    return fsm->sessions_by_id.count;
}

uint64_t fsm_sessions_of(const struct fsm *fsm, uint32_t uid)
{
    return owners_count(&fsm->owners, uid, fsm->config.hash_seed);
}

uint64_t fsm_service_count(const struct fsm *fsm)
{
    return fsm->services.by_name.count;
}

bool fsm_service_exists(const struct fsm *fsm, const struct service_spec *spec)
{
    return service_table_find(&fsm->services, spec) != NULL;
}

uint64_t fsm_walk(const struct fsm *fsm, const struct command_input *command, uint64_t *again)
{
    const struct session *session =
        command->kind == COMMAND_KEEP_ALIVE ? fsm_find_session(fsm, command->session_id) : NULL;
    *again = 0;
    return session == NULL ? 0 : session_walk(session, command->last_input_sequence_num, again);
}

bool fsm_frees(const struct fsm *fsm, const struct command_input *command)
{
    if (!fsm_check_frees(fsm, command))
        return false;
    if (command->kind != COMMAND_SESSION_COMMAND || command->session_kind != SESSION_COMMAND_SERVICE_COMMAND)
        return true;
    struct session *session = fsm_find_session(fsm, command->session_id);
    const struct opening *opening = session == NULL ? NULL : service_opening(session, command->service_id);
    if (opening == NULL)
        return true; /* it will be refused */
    const struct service *service = opening->service;
    return service->type->watched == NULL || !service->type->watched(service->state);
}

bool fsm_collect(struct fsm *fsm, unsigned budget)
{
    return garbage_collect(&fsm->garbage, budget);
}
