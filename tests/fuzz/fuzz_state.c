/* SPDX-License-Identifier: Apache-2.0 */
/* The state machine, driven by a history that the input's bytes spell out: sessions, services, commands and queries
 * with payloads well-formed or not, time, KeepAlives, streams, cursors, raw requests. Two machines with different hash
 * seeds apply the same; one has a sink with room for everything, the other one's is full whenever the input says so.
 * What must hold after every step:
 *
 *   - both say the same state, to the byte; restored from that, it is written as the same bytes again, and its
 *     sessions, numbers and deadlines are the same;
 *   - a route is given its outputs in order of their number and nothing after its last frame; a command has had its
 *     last frame, or its session counts it as open;
 *   - a command's first output has the same index however often the command is sent;
 *   - sessions are in order, not past their deadline, and as many as are counted; no deadline is past.
 *
 * Planted fault: a number is forgotten when a state is restored (PLANTED_NUMBER_FORGOTTEN). */
#include "ipc/error.h"
#include "ipc/planted.h"
#include "proto/reader.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/partition.h"

#include <stdlib.h>
#include <string.h>

enum { OPERATIONS = 300, KNOWN = 8, ROUTES = OPERATIONS + 1, NUMBERS = 12, CURSORS = 4, USERS = 3 };

/* What was said at a request's route so far, by the machine that has room for everything. */
struct route {
    uint64_t session_id, sequence_num, number;
    bool last;   /* has been said */
    bool cut;    /* nothing more is due: left, or forgotten by a restore */
    bool queued; /* a command went there */
};

struct seen {
    uint64_t session_id, sequence_num, index;
};

struct machine {
    struct partition *partition;
    struct fsm_cursor *cursors[CURSORS];
};

struct run {
    struct fuzz_input input;
    struct machine machines[2];
    uint64_t sessions[KNOWN], services[KNOWN]; /* ids that were given, the last ones */
    unsigned session_count, service_count;
    uint64_t next[KNOWN]; /* the next sequence number in a session */
    struct route routes[ROUTES];
    unsigned route_count;
    struct seen seen[OPERATIONS];
    unsigned seen_count;
    bool routes_lost; /* a restore has taken the routes of open commands */
    uint64_t room;    /* bits: does the second machine's sink have room? */
    unsigned asked;
};

static struct run run;

/* ---- what is said ---- */

static bool second_has_room(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    (void)context;
    (void)route;
    (void)answer;
    return (run.room >> (run.asked++ % 64) & 1) == 0;
}

/* The first output of a command belongs to one index for ever. */
static void check_once(const struct reply *reply)
{
    for (unsigned i = 0; i < run.seen_count; i++) {
        const struct seen *seen = &run.seen[i];
        if (seen->session_id == reply->session_id && seen->sequence_num == reply->sequence_num) {
            FUZZ_CHECK(seen->index == reply->index);
            return;
        }
    }
    run.seen[run.seen_count++] = (struct seen){reply->session_id, reply->sequence_num, reply->index};
}

static void check_said(const struct partition *partition)
{
    for (size_t i = 0; i < partition->said_count; i++) {
        const struct reply *reply = &partition->said[i];
        FUZZ_CHECK(reply->position < run.route_count);
        struct route *route = &run.routes[reply->position];
        FUZZ_CHECK(!route->last && !route->cut);
        route->last = reply->last;
        if (reply->number == 0)
            continue;
        /* An output that is stored may have been acknowledged before it is asked for again. */
        FUZZ_CHECK(reply->number > route->number);
        FUZZ_CHECK(route->number == 0 || reply->number == route->number + 1);
        route->number = reply->number;
        route->session_id = reply->session_id;
        route->sequence_num = reply->sequence_num;
        if (reply->number == 1)
            check_once(reply);
    }
}

static void check_sessions(struct partition *partition)
{
    struct fsm_session session = {0};
    uint64_t sessions = 0, open = 0, waiting = 0, last = 0;
    while (fsm_session_after(partition->fsm, last, &session)) {
        FUZZ_CHECK(session.id > last && session.id <= fsm_index(partition->fsm));
        FUZZ_CHECK(session.deadline > fsm_time(partition->fsm));
        FUZZ_CHECK(fsm_next_deadline(partition->fsm) <= session.deadline);
        last = session.id;
        sessions++;
        open += session.open_commands;
    }
    FUZZ_CHECK(sessions == fsm_session_count(partition->fsm));
    FUZZ_CHECK(fsm_next_deadline(partition->fsm) > fsm_time(partition->fsm));
    for (unsigned i = 0; i < run.route_count; i++)
        waiting += run.routes[i].queued && !run.routes[i].last && !run.routes[i].cut;
    FUZZ_CHECK(run.routes_lost ? waiting <= open : waiting == open);
}

/* ---- the whole state ---- */

static void check_same_state(void)
{
    size_t first_size, second_size;
    uint8_t *first = partition_dump(run.machines[0].partition, &first_size);
    uint8_t *second = partition_dump(run.machines[1].partition, &second_size);
    FUZZ_CHECK(first_size == second_size && memcmp(first, second, first_size) == 0);
    free(first);
    free(second);
}

/* In no particular order. */
static void sum_open(void *context, const struct fsm_open_command *command)
{
    uint64_t *sum = context;
    *sum += ((command->sequence_num * 31 + command->acknowledged) * 31 + command->service_id) * 131 +
            command->operation.size + command->spec.name.size;
}

struct summary {
    struct fsm_session sessions[KNOWN];
    uint64_t open[KNOWN];
    uint64_t index, time, deadline, count;
};

static void summarize(const struct fsm *fsm, struct summary *to)
{
    memset(to, 0, sizeof(*to));
    uint64_t last = 0;
    for (unsigned i = 0; i < KNOWN && fsm_session_after(fsm, last, &to->sessions[i]); i++) {
        last = to->sessions[i].id;
        fsm_session_open_commands(fsm, last, 0, UINT64_MAX, sum_open, &to->open[i]);
    }
    to->index = fsm_index(fsm);
    to->time = fsm_time(fsm);
    to->deadline = fsm_next_deadline(fsm);
    to->count = fsm_session_count(fsm);
}

static void check_same_summary(const struct summary *one, const struct summary *other)
{
    FUZZ_CHECK(one->index == other->index && one->time == other->time && one->deadline == other->deadline &&
               one->count == other->count);
    for (unsigned i = 0; i < KNOWN; i++) {
        const struct fsm_session *a = &one->sessions[i], *b = &other->sessions[i];
        FUZZ_CHECK(a->id == b->id && a->uid == b->uid && a->timeout == b->timeout && a->deadline == b->deadline &&
                   a->open_commands == b->open_commands && a->stored_bytes == b->stored_bytes);
        FUZZ_CHECK(a->highest == b->highest && one->open[i] == other->open[i]);
    }
}

static void cursors_close(unsigned slot)
{
    for (unsigned n = 0; n < 2; n++) {
        fsm_cursor_close(run.machines[n].cursors[slot]);
        run.machines[n].cursors[slot] = NULL;
    }
}

/* Machine `n` goes on with what comes back from its own bytes. Cursors are no part of them. */
static void restore(unsigned n)
{
    struct summary before, after;
    for (unsigned slot = 0; slot < CURSORS; slot++)
        cursors_close(slot);
    summarize(run.machines[n].partition->fsm, &before);
    partition_restore(run.machines[n].partition);
    summarize(run.machines[n].partition->fsm, &after);
    check_same_summary(&before, &after);
    if (n != 0)
        return;
    run.routes_lost = true;
    for (unsigned i = 0; i < run.route_count; i++)
        run.routes[i].cut = true;
}

/* ---- a request ---- */

static uint64_t pick(const uint64_t ids[KNOWN], unsigned count, unsigned *place)
{
    uint8_t byte = fuzz_byte(&run.input);
    *place = byte % KNOWN;
    if (byte >= 250 || count == 0)
        return fuzz_number(&run.input);
    *place = byte % (count < KNOWN ? count : KNOWN);
    return ids[*place];
}

static const char *pick_name(char name[8])
{
    uint8_t byte = fuzz_byte(&run.input);
    name[0] = (char)('a' + byte % 4);
    name[1] = byte < 240 ? '\0' : (char)('a' + byte % 16);
    name[2] = '\0';
    return name;
}

static struct payload raw_payload(struct slice bytes)
{
    struct payload payload = {.size = bytes.size};
    if (bytes.size > 0)
        memcpy(payload.data, bytes.data, bytes.size);
    return payload;
}

static struct payload pick_payload(void)
{
    char key[8];
    uint64_t number;
    struct duration ttl;
    struct slice value;
    uint8_t form = fuzz_byte(&run.input);
    switch (form % 8) {
    case 0:
        return number_payload(fuzz_number(&run.input));
    case 1:
        number = fuzz_number(&run.input);
        return numbers_payload(number, fuzz_number(&run.input));
    case 2:
        pick_name(key);
        return key_payload(key, fuzz_byte(&run.input) % 16);
    case 3:
        pick_name(key);
        return write_payload(key, fuzz_bytes(&run.input), NULL, 0);
    case 4:
        ttl = duration_of(1 + fuzz_number(&run.input) % (10 * MR_SECOND));
        pick_name(key);
        value = fuzz_bytes(&run.input);
        return write_payload(key, value, &ttl, fuzz_byte(&run.input) % 16);
    case 5:
        return events_payload(pick_name(key), form >= 128);
    case 6:
        return events_payload("", form >= 128);
    default:
        return raw_payload(fuzz_bytes(&run.input));
    }
}

static const char *pick_operation(void)
{
    static const char *const names[] = {"Set",    "CompareAndSet", "Increment", "Decrement", "Get", "Put",
                                        "Insert", "Update",        "Remove",    "Clear",     "Put", "Events",
                                        "Size",   "Entries",       "",          "Nothing"};
    return names[fuzz_byte(&run.input) % 16];
}

/* Gives the request in machine 0's `request` a route of its own and applies it on both, if it may be logged. */
static void apply_request(void)
{
    struct partition *one = run.machines[0].partition, *two = run.machines[1].partition;
    const char *message;
    if (fsm_check_command(one->fsm, &one->request.command, 1, &message) != STATUS_OK)
        return;
    two->request.command = one->request.command;
    run.routes[run.route_count] = (struct route){.queued = true};
    one->route = two->route = (struct fsm_route){.channel = 1, .position = run.route_count++};
    fsm_check_frees(one->fsm, &one->request.command.command);
    partition_submit(one);
    partition_submit(two);
    check_said(one);
    const struct reply *reply = one->said_count > 0 ? &one->said[one->said_count - 1] : NULL;
    if (reply == NULL || reply->position != one->route.position || reply->status != STATUS_OK || reply->id == 0)
        return;
    if (reply->kind == COMMAND_OPEN_SESSION) {
        run.next[run.session_count % KNOWN] = 1;
        run.sessions[run.session_count++ % KNOWN] = reply->id;
    } else {
        run.services[run.service_count++ % KNOWN] = reply->id;
    }
}

static void open_session(void)
{
    uint64_t timeout = fuzz_number(&run.input);
    request_open_session(&run.machines[0].partition->request,
                         duration_of(timeout < 160 ? (1 + timeout) * MR_SECOND / 4 : timeout));
    apply_request();
}

static void keep_alive(void)
{
    uint8_t bytes[2 + 32];
    uint64_t kept[16];
    struct last_output outputs[4];
    unsigned place, kept_count = 0, output_count;
    uint64_t session = pick(run.sessions, run.session_count, &place);
    uint8_t form = fuzz_byte(&run.input);
    uint64_t last_input = fuzz_byte(&run.input) % NUMBERS;
    struct slice filter = {0};
    if (form >= 240) {
        filter = fuzz_bytes(&run.input);
    } else if (form >= 32) {
        unsigned mask = fuzz_byte(&run.input);
        mask |= (unsigned)fuzz_byte(&run.input) << 8;
        for (unsigned i = 0; i < 16; i++)
            if (mask >> i & 1)
                kept[kept_count++] = i + 1;
        filter = make_filter(bytes, 1 + form % 3, 64 + 64 * (size_t)(form / 3 % 4), kept, kept_count);
    }
    output_count = form % 5;
    for (unsigned i = 0; i < output_count; i++) {
        outputs[i].sequence_num = 1 + fuzz_byte(&run.input) % NUMBERS;
        outputs[i].last_output = fuzz_byte(&run.input) % 8;
    }
    request_keep_alive(&run.machines[0].partition->request, session, filter, last_input, outputs, output_count);
    apply_request();
}

static void create_service(void)
{
    static const char *const types[] = {COUNTER_TYPE, MAP_TYPE, MAP_TYPE, "no type"};
    char name[8];
    unsigned place;
    uint64_t session = pick(run.sessions, run.session_count, &place);
    const char *type = types[fuzz_byte(&run.input) % 4];
    request_create_service(&run.machines[0].partition->request, session, type, "", pick_name(name));
    apply_request();
}

static void service_command(void)
{
    unsigned place, ignored;
    uint64_t session = pick(run.sessions, run.session_count, &place);
    uint64_t service = pick(run.services, run.service_count, &ignored);
    uint8_t form = fuzz_byte(&run.input);
    uint64_t number = form < 200 ? run.next[place]++ : form < 250 ? form % NUMBERS : fuzz_number(&run.input);
    const char *operation = pick_operation();
    struct payload payload = pick_payload();
    request_command(&run.machines[0].partition->request, session, service, number, operation, payload_slice(&payload));
    apply_request();
}

static void raw_command(void)
{
    struct partition *one = run.machines[0].partition;
    struct slice bytes = fuzz_bytes(&run.input);
    if (read_partition_command_input(bytes.data, bytes.size, &one->request.command) == READ_OK)
        apply_request();
}

/* ---- what is not logged ---- */

static void query(unsigned slot)
{
    unsigned place;
    uint64_t session = pick(run.sessions, run.session_count, &place);
    uint64_t service = pick(run.services, run.service_count, &place);
    const char *operation = pick_operation();
    struct payload payload = pick_payload();
    struct fsm_cursor *cursors[2];
    for (unsigned n = 0; n < 2; n++) {
        struct machine *machine = &run.machines[n];
        cursors[n] = partition_cursor(machine->partition, session, service, operation, payload);
        if (cursors[n] == NULL)
            continue;
        fsm_cursor_close(machine->cursors[slot]);
        machine->cursors[slot] = cursors[n];
    }
    const struct reply *one = &run.machines[0].partition->reply, *two = &run.machines[1].partition->reply;
    FUZZ_CHECK((cursors[0] == NULL) == (cursors[1] == NULL));
    FUZZ_CHECK(one->status == two->status && one->payload_size == two->payload_size);
    FUZZ_CHECK(one->payload_size == 0 || memcmp(one->payload, two->payload, one->payload_size) == 0);
}

static void cursor_next(unsigned slot)
{
    const struct reply *replies[2] = {NULL, NULL};
    for (unsigned n = 0; n < 2; n++)
        if (run.machines[n].cursors[slot] != NULL)
            replies[n] = partition_cursor_next(run.machines[n].partition, run.machines[n].cursors[slot]);
    FUZZ_CHECK((replies[0] == NULL) == (replies[1] == NULL));
    if (replies[0] == NULL)
        return;
    FUZZ_CHECK(replies[0]->status == replies[1]->status && replies[0]->last == replies[1]->last);
    FUZZ_CHECK(replies[0]->payload_size == replies[1]->payload_size);
}

/* To the next deadline or a little beside it, or by any step. */
static void tick(void)
{
    uint8_t form = fuzz_byte(&run.input);
    struct partition *one = run.machines[0].partition;
    uint64_t time = one->time, deadline = fsm_next_deadline(one->fsm);
    if (form < 64)
        time += form * MR_SECOND / 16;
    else if (form < 128 && deadline != UINT64_MAX)
        time = deadline - 1 + form % 3;
    else
        time += fuzz_number(&run.input) % (100 * MR_HOUR);
    if (time < one->time)
        time = one->time;
    unsigned entries = 0;
    do { /* more end at once than one entry ends, if nearly all operations made one that does */
        for (unsigned n = 0; n < 2; n++)
            partition_tick(run.machines[n].partition, time);
        check_said(one);
        FUZZ_CHECK(++entries <= OPERATIONS / MR_ENTRY_DEADLINES + 1);
    } while (fsm_next_deadline(one->fsm) <= fsm_time(one->fsm));
}

/* What the second machine's sink had no room for. */
static void deliver(void)
{
    if (run.route_count == 0)
        return;
    uint64_t position = fuzz_byte(&run.input) % run.route_count;
    const struct route *route = &run.routes[position];
    bool gone;
    partition_deliver(run.machines[1].partition, route->session_id, route->sequence_num,
                      (struct fsm_route){1, position}, &gone);
}

static void leave(void)
{
    if (run.route_count == 0)
        return;
    uint64_t position = fuzz_byte(&run.input) % run.route_count;
    struct route *route = &run.routes[position];
    if (route->number == 0)
        return;
    for (unsigned n = 0; n < 2; n++)
        fsm_leave(run.machines[n].partition->fsm, route->session_id, route->sequence_num,
                  &(struct fsm_route){1, position});
    run.routes_lost = true;
    route->cut = true;
}

/* ---- the history ---- */

static void ids_of_other_kinds(void)
{
    unsigned place, ignored;
    uint64_t session = pick(run.sessions, run.session_count, &place);
    struct request *request = &run.machines[0].partition->request;
    if (fuzz_byte(&run.input) % 2 == 0)
        request_close_session(request, session);
    else
        request_close_service(request, session, pick(run.services, run.service_count, &ignored));
    apply_request();
}

static void step(void)
{
    uint8_t code = fuzz_byte(&run.input);
    unsigned slot = code / 32 % CURSORS;
    switch (code % 32) {
    case 0:
    case 1:
        open_session();
        break;
    case 2:
    case 3:
    case 4:
        keep_alive();
        break;
    case 5:
    case 6:
        create_service();
        break;
    case 7:
        ids_of_other_kinds();
        break;
    case 8:
        raw_command();
        break;
    case 9:
        query(slot);
        break;
    case 10:
        cursor_next(slot);
        break;
    case 11:
        cursors_close(slot);
        break;
    case 12:
    case 13:
        tick();
        break;
    case 14:
        deliver();
        break;
    case 15:
        restore(code / 32 % 2);
        break;
    case 16:
        run.room = fuzz_number(&run.input);
        break;
    case 17:
        for (unsigned n = 0; n < 2; n++)
            run.machines[n].partition->uid = code / 32 % USERS;
        break;
    case 18:
        leave();
        break;
    case 19:
        fsm_collect(run.machines[0].partition->fsm, 1 + code / 32);
        break;
    default:
        service_command();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    planted_fault = fuzz_planted() ? PLANTED_NUMBER_FORGOTTEN : PLANTED_NOTHING;
    memset(&run, 0, sizeof(run));
    run.input = (struct fuzz_input){data, data + size};
    uint64_t limit = fuzz_byte(&run.input) % 2 == 0 ? MR_SESSION_OUTPUT_BYTES_DEFAULT : 600;
    for (unsigned n = 0; n < 2; n++)
        run.machines[n].partition = partition_create(n, limit);
    run.machines[1].partition->room = second_has_room;
    for (unsigned n = 0; n < OPERATIONS && fuzz_more(&run.input); n++) {
        step();
        check_sessions(run.machines[0].partition);
        if (n % 16 == 15)
            check_same_state();
    }
    restore(0);
    check_same_state();
    for (unsigned slot = 0; slot < CURSORS; slot++)
        cursors_close(slot);
    for (unsigned n = 0; n < 2; n++)
        partition_destroy(run.machines[n].partition);
    return 0;
}
