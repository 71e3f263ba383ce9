/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that clients send, and what they make of the answers: each answer must be the one that the account and
 * the shadow have for it. */
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "proto/reader.h"
#include "tests/sim/sim.h"
#include "tests/support/requests.h"

enum { STREAMS_MOST = 2 };

static const char *const service_names[SIM_SERVICES] = {"c0", "c1", "m0", "m1"};
static const char *const key_names[SIM_KEYS + 1] = {"k0", "k1", "k2", "k3", ""};

const char *op_name(enum op_kind kind)
{
    static const char *const names[OP_KINDS] = {"OpenSession", "CreateService", "CloseService", "CloseSession",
                                                "KeepAlive",   "Increment",     "Set",          "CompareAndSet",
                                                "Put",         "Insert",        "Remove",       "Clear",
                                                "Events",      "Get",           "Get key",      "Entries"};
    return names[kind];
}

bool op_is_query(const struct op *op)
{
    return op->kind >= OP_GET;
}

/* ---- making ---- */

static struct request request; /* the one being built */

static struct op *new_op(struct sim *sim, struct session_view *session, enum op_kind kind)
{
    struct op *op = run_allocate(sizeof *op);
    op->number = ++sim->op_count;
    op->kind = kind;
    op->client = session->client;
    op->session = session;
    op->next = sim->ops;
    sim->ops = op;
    return op;
}

static struct op *encoded(struct op *op)
{
    op->size = request.size;
    op->bytes = run_allocate(op->size);
    memcpy(op->bytes, request.bytes, op->size);
    return op;
}

static struct op *open_session(struct sim *sim, struct client *client, unsigned place)
{
    struct session_view *session = run_allocate(sizeof *session);
    session->client = client;
    session->next_number = 1;
    session->timeout = sim->plan.short_sessions ? (5 + random_below(&sim->random, 200)) * MR_MILLISECOND : MR_HOUR;
    session->next = sim->sessions;
    sim->sessions = client->sessions[place] = session;
    request_open_session(&request, (struct duration){.seconds = (int64_t)(session->timeout / MR_SECOND),
                                                     .nanos = (int32_t)(session->timeout % MR_SECOND),
                                                     .present = true});
    return encoded(new_op(sim, session, OP_OPEN));
}

static struct op *number_it(struct op *op)
{
    struct session_view *session = op->session;
    op->sequence_num = session->next_number++;
    session->ops = run_grow(session->ops, (unsigned)op->sequence_num - 1, &session->op_capacity, sizeof(struct op *));
    session->ops[op->sequence_num - 1] = op;
    return op;
}

static struct op *counter_command(struct sim *sim, struct session_view *session, unsigned service)
{
    static const enum op_kind kinds[] = {OP_INCREMENT, OP_INCREMENT, OP_INCREMENT, OP_SET, OP_COMPARE_AND_SET};
    struct op *op = number_it(new_op(sim, session, kinds[random_below(&sim->random, 5)]));
    op->service = service;
    op->amount = (int64_t)(op->kind == OP_INCREMENT ? 1 + random_below(&sim->random, 1000) : op->number << 20);
    op->compare = account_now(&sim->counters[service]);
    struct payload payload = op->kind == OP_COMPARE_AND_SET
                                 ? numbers_payload((uint64_t)op->compare, (uint64_t)op->amount)
                                 : number_payload((uint64_t)op->amount);
    request_command(&request, session->id, session->services[service], op->sequence_num, op_name(op->kind),
                    payload_slice(&payload));
    return encoded(op);
}

static struct payload value_payload(struct sim *sim, const struct op *op)
{
    static uint8_t value[1024];
    size_t size = sizeof op->number + random_below(&sim->random, sim->plan.large_values ? 900 : 80);
    struct duration ttl = {.seconds = (int64_t)(op->ttl / MR_SECOND), .nanos = (int32_t)(op->ttl % MR_SECOND)};
    memset(value, (int)op->number, size);
    memcpy(value, &op->number, sizeof op->number);
    return write_payload(key_names[op->key], (struct slice){value, size}, op->ttl != 0 ? &ttl : NULL, 0);
}

static unsigned open_streams(const struct session_view *session)
{
    unsigned count = 0;
    for (unsigned n = 0; n < session->client->open_count; n++)
        count += session->client->open[n]->kind == OP_EVENTS;
    return count;
}

static struct op *map_command(struct sim *sim, struct session_view *session, unsigned service)
{
    static const enum op_kind kinds[] = {OP_PUT,    OP_PUT,    OP_PUT,   OP_INSERT, OP_INSERT,
                                         OP_REMOVE, OP_REMOVE, OP_CLEAR, OP_EVENTS, OP_EVENTS};
    enum op_kind kind = kinds[random_below(&sim->random, 10)];
    if (kind == OP_EVENTS && (!sim->plan.streams || open_streams(session) >= STREAMS_MOST))
        kind = OP_PUT;
    struct op *op = number_it(new_op(sim, session, kind));
    struct payload payload = {.size = 0};
    op->service = service;
    op->key = (unsigned)random_below(&sim->random, kind == OP_EVENTS ? SIM_KEYS + 1 : SIM_KEYS);
    if (kind == OP_PUT || kind == OP_INSERT) {
        op->ttl = sim->plan.ttl && random_chance(&sim->random, 1, 2)
                      ? (1 + random_below(&sim->random, 50)) * MR_MILLISECOND
                      : 0;
        payload = value_payload(sim, op);
    } else if (kind == OP_REMOVE) {
        payload = key_payload(key_names[op->key], 0);
    } else if (kind == OP_EVENTS) {
        payload = events_payload(key_names[op->key], random_chance(&sim->random, 1, 2));
    }
    request_command(&request, session->id, session->services[service], op->sequence_num, op_name(kind),
                    payload_slice(&payload));
    return encoded(op);
}

static struct op *query(struct sim *sim, struct session_view *session, unsigned service, unsigned key)
{
    enum op_kind kind = service < SIM_COUNTERS ? OP_GET : key == SIM_KEYS ? OP_ENTRIES : OP_GET_KEY;
    struct op *op = new_op(sim, session, kind);
    struct payload payload = {.size = 0};
    op->service = service;
    op->key = key;
    if (op->kind == OP_GET_KEY)
        payload = key_payload(key_names[key], 0);
    request_query(&request, session->id, session->services[service], kind == OP_ENTRIES ? "Entries" : "Get",
                  payload_slice(&payload));
    return encoded(op);
}

/* Up to which number has its client had an answer to every command? Open streams count once they have begun. */
static uint64_t answered_up_to(const struct session_view *session)
{
    uint64_t number = 0;
    while (number + 1 < session->next_number) {
        const struct op *op = session->ops[number];
        if (!op->done && !(op->kind == OP_EVENTS && op->received > 0))
            break;
        number++;
    }
    return number;
}

static struct op *keep_alive(struct sim *sim, struct session_view *session)
{
    uint64_t numbers[256], last = random_chance(&sim->random, 1, 5) ? 0 : answered_up_to(session);
    struct last_output outputs[256];
    uint8_t filter[2 + 64];
    unsigned kept = 0, streams = 0;
    for (uint64_t number = 1; number <= last && kept < 256; number++) {
        struct op *op = session->ops[number - 1];
        if (op->done && random_chance(&sim->random, 15, 16))
            continue;
        if (!op->done && random_chance(&sim->random, 1, 6)) {
            op->canceled = op->done = true;
            continue;
        }
        if (!op->done)
            outputs[streams++] = (struct last_output){.sequence_num = number, .last_output = op->received};
        numbers[kept++] = number;
    }
    struct slice bytes = kept > 0 ? make_filter(filter, 4, 512, numbers, kept) : (struct slice){NULL, 0};
    request_keep_alive(&request, session->id, bytes, last, outputs, streams);
    struct op *op = new_op(sim, session, OP_KEEP_ALIVE);
    op->last_input = last;
    return encoded(op);
}

static struct op *of_service(struct sim *sim, struct session_view *session, enum op_kind kind, unsigned service)
{
    struct op *op = new_op(sim, session, kind);
    op->service = service;
    if (kind == OP_CREATE) {
        session->creating[service] = true;
        request_create_service(&request, session->id, service < SIM_COUNTERS ? COUNTER_TYPE : MAP_TYPE, "",
                               service_names[service]);
    } else {
        session->closing[service] = true;
        request_close_service(&request, session->id, session->services[service]);
    }
    return encoded(op);
}

struct op *request_invent(struct sim *sim, struct client *client)
{
    struct random *random = &sim->random;
    unsigned place = (unsigned)random_below(random, SIM_SESSIONS);
    struct session_view *session = client->sessions[place];
    if (session == NULL || session->state == SESSION_GONE)
        return open_session(sim, client, place);
    if (session->state != SESSION_OPEN)
        return NULL;
    uint64_t what = random_below(random, 100);
    if (what < 12)
        return keep_alive(sim, session);
    if (what < 14) {
        session->state = SESSION_CLOSING;
        request_close_session(&request, session->id);
        return encoded(new_op(sim, session, OP_CLOSE_SESSION));
    }
    unsigned service = (unsigned)random_below(random, SIM_SERVICES);
    if (session->services[service] == 0)
        return session->creating[service] ? NULL : of_service(sim, session, OP_CREATE, service);
    if (session->closing[service])
        return NULL;
    if (what < 17)
        return of_service(sim, session, OP_CLOSE_SERVICE, service);
    if (what < 32)
        return query(sim, session, service, (unsigned)random_below(random, SIM_KEYS + 1));
    return service < SIM_COUNTERS ? counter_command(sim, session, service) : map_command(sim, session, service);
}

struct op *request_query_all(struct sim *sim, struct client *client, unsigned n)
{
    for (unsigned place = 0; place < SIM_SESSIONS; place++) {
        struct session_view *session = client->sessions[place];
        if (session == NULL || session->state != SESSION_OPEN)
            continue;
        for (unsigned service = 0; service < SIM_SERVICES; service++) {
            unsigned keys = service < SIM_COUNTERS ? 1 : SIM_KEYS + 1;
            if (session->services[service] == 0 || session->closing[service])
                continue;
            if (n < keys)
                return query(sim, session, service, n);
            n -= keys;
        }
    }
    return NULL;
}

/* ---- answers ---- */

void session_lost(struct session_view *session)
{
    struct client *client = session->client;
    session->state = SESSION_GONE;
    for (unsigned n = 0; n < client->open_count; n++)
        if (client->open[n]->session == session)
            client->open[n]->done = true;
}

static _Noreturn void wrong(const struct op *op, const char *what)
{
    violation("op %llu (%s, number %llu, entry %llu): %s", (unsigned long long)op->number, op_name(op->kind),
              (unsigned long long)op->sequence_num, (unsigned long long)op->index, what);
}

/* It was not logged, and now never may be. Has it not been sent before, then its client may as well forget it. */
static void not_logged(struct sim *sim, struct send *send)
{
    struct op *op = send->op;
    struct session_view *session = op->session;
    send->refused = true;
    sim->counts.refused++;
    if (op->done || op->last_send != send)
        return;
    op->resend = true;
    bool only = true;
    for (struct sim_channel *channel = sim->channels; channel != NULL; channel = channel->next)
        for (struct send *other = channel->sends; other != NULL; other = other->next)
            only &= other->op != op || other->refused;
    if (!only || op->kind == OP_CLOSE_SESSION || sim->settling || random_chance(&sim->random, 1, 2))
        return;
    op->done = true;
    if (op->kind == OP_OPEN)
        session_lost(session);
    if (op->kind == OP_CREATE)
        session->creating[op->service] = false;
    if (op->kind == OP_CLOSE_SERVICE)
        session->closing[op->service] = false;
}

static void refused(struct sim *sim, struct send *send, const struct response_head *head, const uint8_t *body)
{
    struct op *op = send->op;
    /* What has been read may have been acknowledged since. */
    bool ended = !op->session->open || op->canceled || op->done;
    TRACE("  %.*s", (int)head->size, (const char *)body);
    if (!(head->flags & FRAME_LAST))
        wrong(op, "a refusal that is not the last frame");
    if (send->index == 0) {
        if (head->status != STATUS_UNAVAILABLE)
            wrong(op, "refused before the log, though nothing is wrong with it");
        not_logged(sim, send);
        return;
    }
    if (head->status == STATUS_CANCELED && op->kind == OP_EVENTS && (op->last_send != send || ended))
        return; /* taken over, or ended by a KeepAlive */
    if (head->status != send->status && !(head->status == STATUS_FORBIDDEN && ended))
        wrong(op, "it was applied, and is refused otherwise than it should be");
    if (op->done)
        return;
    if (head->status == STATUS_CONFLICT)
        wrong(op, "its number was given up, but not by its client");
    op->done = true;
    if (op->kind == OP_CLOSE_SERVICE) { /* done already, by an earlier sending */
        op->session->services[op->service] = 0;
        op->session->closing[op->service] = false;
    }
    if (!op->session->open)
        session_lost(op->session);
}

static uint64_t number_in(struct slice message, unsigned field)
{
    struct field_reader reader = field_reader(message);
    while (field_next(&reader))
        if (reader.tag == FIELD(field, WIRE_VARINT))
            return reader.value;
    return 0;
}

static struct slice bytes_in(struct slice message, unsigned field)
{
    struct field_reader reader = field_reader(message);
    while (field_next(&reader))
        if (reader.tag == FIELD(field, WIRE_BYTES))
            return reader.bytes;
    return (struct slice){NULL, 0};
}

/* The op that wrote the value of a map's entry. */
static int64_t writer_of(struct slice output)
{
    struct slice value = bytes_in(bytes_in(bytes_in(output, 1), 2), 1);
    uint64_t number = 0;
    if (value.size >= sizeof number)
        memcpy(&number, value.data, sizeof number);
    return (int64_t)number;
}

/* In a shared frame stand another one's index and number. */
static uint64_t hash_as_its_own(const struct op *op, uint64_t number, struct command_output output,
                                struct slice payload)
{
    output.index = op->index;
    output.sequence_num = number;
    output.operation.parts = &payload;
    output.operation.part_count = 1;
    output.operation.payload_size = payload.size;
    size_t size = partition_command_output_size(&output);
    uint8_t *body = run_allocate(size);
    write_partition_command_output(body, &output);
    return XXH3_64bits(body, size);
}

static void check_numbered(struct send *send, const struct response_head *head, const uint8_t *body,
                           const struct command_output *output, struct slice part)
{
    struct op *op = send->op;
    uint64_t number = head->number;
    if (head->others == 0 && (output->index != op->index || output->sequence_num != number))
        wrong(op, "answered as another entry");
    uint64_t hash = head->others == 0 ? XXH3_64bits(body, head->size) : hash_as_its_own(op, number, *output, part);
    if (number == 0 || number > op->output_count || op->outputs[number - 1].hash != hash ||
        op->outputs[number - 1].last != ((head->flags & FRAME_LAST) != 0))
        wrong(op, "an output is not what it should be");
    /* Those read before at an earlier sending may come or, once acknowledged, not. A session's end takes what its
     * client was too slow to read. */
    bool ended = (head->flags & FRAME_LAST) && !op->session->open;
    if (number <= send->number || (number > op->received + 1 && !ended))
        wrong(op, "an output is missing, or comes again");
    send->number = number;
    if (number == op->received + 1)
        op->received = number;
    if (op->kind == OP_EVENTS)
        return;
    if (output->operation.status != op->result)
        wrong(op, "the account has another status");
    if (op->service < SIM_COUNTERS && op->result == STATUS_OK && (int64_t)number_in(part, 1) != op->value)
        wrong(op, "the account has another value");
}

static void answered(struct sim *sim, struct client *client, struct op *op, const struct command_output *output)
{
    struct session_view *session = op->session;
    uint64_t index = output->index;
    client->seen_index = index > client->seen_index ? index : client->seen_index;
    sim->acked = index > sim->acked ? index : sim->acked;
    if (op->done)
        return;
    if (op->kind == OP_OPEN) {
        session->id = output->id;
        session->state = SESSION_OPEN;
    } else if (op->kind == OP_CREATE) {
        session->services[op->service] = output->id;
        session->creating[op->service] = false;
    } else if (op->kind == OP_CLOSE_SERVICE) {
        session->services[op->service] = 0;
        session->closing[op->service] = false;
    } else if (op->kind == OP_CLOSE_SESSION) {
        session_lost(session);
    }
}

static void command_answered(struct sim *sim, struct client *client, struct send *send,
                             const struct response_head *head, const uint8_t *body)
{
    struct op *op = send->op;
    struct command_output output;
    struct slice part = {NULL, 0};
    if (head->status != STATUS_OK) {
        refused(sim, send, head, body);
        return;
    }
    if (send->index == 0)
        wrong(op, "answered, but never applied");
    if (read_partition_command_output(body, head->size, &output, &part) != READ_OK)
        wrong(op, "an answer that does not decode");
    if (op->sequence_num != 0)
        check_numbered(send, head, body, &output, part);
    else if (send->status != STATUS_OK || output.index != send->index || send->hash != XXH3_64bits(body, head->size))
        wrong(op, "the answer is not what it should be");
    answered(sim, client, op, &output);
    if (head->flags & FRAME_LAST)
        op->done = true;
}

static unsigned key_of(struct slice output)
{
    struct slice key = bytes_in(bytes_in(output, 1), 1);
    unsigned n = 0;
    while (n < SIM_KEYS && (key.size != strlen(key_names[n]) || memcmp(key.data, key_names[n], key.size) != 0))
        n++;
    return n;
}

/* Each entry that is there from beginning to end exactly once, with a value that it has had meanwhile. */
static void entries_answered(struct sim *sim, struct send *send, const struct response_head *head, struct slice part)
{
    struct op *op = send->op;
    const struct versions *keys = sim->keys[op->service - SIM_COUNTERS];
    bool last = (head->flags & FRAME_LAST) != 0;
    if (head->number != send->number + 1 && !(head->number == 0 && last && part.size == 0))
        wrong(op, "an entry is missing, or comes again");
    send->number = head->number;
    if (part.size > 0) {
        unsigned key = key_of(part);
        if (key == SIM_KEYS || (send->keys & 1U << key) != 0)
            wrong(op, "an entry that there is not, or a second time");
        if (!account_was(&keys[key], writer_of(part), op->asked_at, sim->entry_count))
            wrong(op, "an entry with a value that it has not had");
        send->keys |= 1U << key;
    }
    for (unsigned key = 0; last && key < SIM_KEYS; key++)
        if (!(send->keys & 1U << key) && !account_was(&keys[key], 0, op->asked_at, sim->entry_count))
            wrong(op, "an entry was left out");
    op->done = last;
}

static void query_answered(struct sim *sim, struct send *send, const struct response_head *head, const uint8_t *body)
{
    struct op *op = send->op;
    struct operation_output output;
    struct slice part = {NULL, 0};
    if (op->done)
        return;
    if (head->status == STATUS_FORBIDDEN) {
        /* The service was not open in the session at some moment since the query was sent. */
        if (op->session->open && op->session->opened[op->service] &&
            op->session->opened_at[op->service] <= op->asked_at)
            wrong(op, "a query is refused, and its session and service are open");
        op->done = true;
        if (!op->session->open)
            session_lost(op->session);
        return;
    }
    if (head->status == STATUS_UNAVAILABLE) {
        op->resend = true;
        return;
    }
    if (head->status != STATUS_OK || read_partition_query_output(body, head->size, &output, &part) != READ_OK)
        wrong(op, "a query fails");
    if (op->kind == OP_ENTRIES) {
        entries_answered(sim, send, head, part);
        return;
    }
    const struct versions *versions =
        op->service < SIM_COUNTERS ? &sim->counters[op->service] : &sim->keys[op->service - SIM_COUNTERS][op->key];
    int64_t value = op->kind == OP_GET                  ? (int64_t)number_in(part, 1)
                    : output.status == STATUS_NOT_FOUND ? 0
                                                        : writer_of(part);
    if (!account_was(versions, value, op->asked_at, sim->entry_count))
        violation("op %llu (%s): %lld was read, which it was not since entry %llu; it is %lld",
                  (unsigned long long)op->number, op_name(op->kind), (long long)value, (unsigned long long)op->asked_at,
                  (long long)account_now(versions));
    op->done = true;
}

void request_answered(struct sim *sim, struct client *client, struct send *send, const struct response_head *head,
                      const uint8_t *body)
{
    sim->counts.answers++;
    if (head->flags & FRAME_LAST)
        send->over = true;
    if (op_is_query(send->op))
        query_answered(sim, send, head, body);
    else
        command_answered(sim, client, send, head, body);
}
