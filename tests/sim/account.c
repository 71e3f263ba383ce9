/* SPDX-License-Identifier: Apache-2.0 */
/* The plain account: what the protocol's words make of the entries, from what their senders meant by them (not from
 * their bytes). Sessions with their times, which numbers have been used, counters' values and maps' keys, each with
 * all its versions. It has nothing of the engine's. */
#include <string.h>

#include "tests/sim/sim.h"

void account_begin(struct sim *sim)
{
    for (unsigned n = 0; n < SIM_COUNTERS; n++)
        sim->counters[n].count = 0;
    for (unsigned n = 0; n < SIM_MAPS; n++)
        for (unsigned key = 0; key < SIM_KEYS; key++)
            sim->keys[n][key].count = 0;
    for (struct session_view *session = sim->sessions; session != NULL; session = session->next) {
        session->true_id = 0;
        session->open = false;
        memset(session->opened, 0, sizeof session->opened);
    }
    memset(sim->service_ids, 0, sizeof sim->service_ids);
}

int64_t account_now(const struct versions *versions)
{
    return versions->count == 0 ? 0 : versions->list[versions->count - 1].value;
}

bool account_was(const struct versions *versions, int64_t value, uint64_t from, uint64_t to)
{
    unsigned n = versions->count;
    for (; n > 0; n--) {
        const struct version *version = &versions->list[n - 1];
        if (version->index <= to && version->value == value)
            return true;
        if (version->index <= from)
            return false;
    }
    return value == 0;
}

static void put(struct versions *versions, uint64_t index, int64_t value, uint64_t expires)
{
    versions->list = run_grow(versions->list, versions->count, &versions->capacity, sizeof *versions->list);
    versions->list[versions->count++] = (struct version){.index = index, .value = value, .expires = expires};
}

static uint64_t expiry(const struct versions *versions)
{
    return account_now(versions) == 0 ? NEVER : versions->list[versions->count - 1].expires;
}

/* All that happens up to this time, before the command that carries it. */
static void pass_time(struct sim *sim, uint64_t index, uint64_t time)
{
    for (struct session_view *session = sim->sessions; session != NULL; session = session->next)
        if (session->open && session->last_updated + session->timeout <= time)
            session->open = false;
    for (unsigned n = 0; n < SIM_MAPS; n++)
        for (unsigned key = 0; key < SIM_KEYS; key++)
            if (expiry(&sim->keys[n][key]) <= time)
                put(&sim->keys[n][key], index, 0, NEVER);
}

/* A counter's operation, or a map's, is applied for the first time. */
static void counter(struct sim *sim, struct op *op, uint64_t index)
{
    struct versions *versions = &sim->counters[op->service];
    int64_t now = account_now(versions);
    if (op->kind == OP_COMPARE_AND_SET && now != op->compare) {
        op->result = STATUS_CONFLICT;
        return;
    }
    op->value = op->kind == OP_INCREMENT ? now + op->amount : op->amount;
    put(versions, index, op->value, NEVER);
}

static void map(struct sim *sim, struct op *op, uint64_t index, uint64_t time)
{
    if (op->kind == OP_EVENTS)
        return; /* its outputs are the shadow's affair */
    struct versions *keys = sim->keys[op->service - SIM_COUNTERS];
    struct versions *versions = &keys[op->key];
    bool there = account_now(versions) != 0;
    uint64_t expires = op->ttl == 0 ? NEVER : time + op->ttl;
    if (op->kind == OP_CLEAR) {
        for (unsigned key = 0; key < SIM_KEYS; key++)
            if (account_now(&keys[key]) != 0)
                put(&keys[key], index, 0, NEVER);
    } else if (op->kind == OP_INSERT && there) {
        op->result = STATUS_ALREADY_EXISTS;
    } else if (op->kind == OP_REMOVE && !there) {
        op->result = STATUS_NOT_FOUND;
    } else if (op->kind == OP_REMOVE) {
        put(versions, index, 0, NEVER);
    } else {
        put(versions, index, (int64_t)op->number, expires);
    }
}

static void numbered(struct sim *sim, struct op *op, uint64_t index, uint64_t time)
{
    if (op->index != 0 || !op->session->opened[op->service])
        return; /* done before; or to be refused */
    op->index = index;
    op->result = STATUS_OK;
    if (op->service < SIM_COUNTERS)
        counter(sim, op, index);
    else
        map(sim, op, index, time);
}

/* The account and the state machine agree on who was refused. */
static void check_refusal(const struct send *send, uint64_t index)
{
    const struct op *op = send->op;
    bool refused = send->status != STATUS_UNKNOWN && send->status != STATUS_OK && send->status != STATUS_CANCELED;
    bool expected = op->sequence_num == 0 ? op->index != index : op->index == 0 || !op->session->open;
    if (expected != refused && !(op->canceled && refused))
        violation("entry %llu, op %llu (%s): answered with status %d, but %s", (unsigned long long)index,
                  (unsigned long long)op->number, op_name(op->kind), (int)send->status,
                  op->session->open ? "its session is open" : "its session has ended");
}

static void apply(struct sim *sim, struct send *send, uint64_t index, uint64_t time)
{
    struct op *op = send->op;
    struct session_view *session = op->session;
    if (op->kind == OP_OPEN) {
        session->true_id = op->index = index;
        session->open = true;
        session->uid = send->uid;
        session->last_updated = time;
        return;
    }
    if (!session->open)
        return;
    switch (op->kind) {
    case OP_CREATE:
        if (!session->opened[op->service])
            session->opened_at[op->service] = index;
        session->opened[op->service] = true;
        if (sim->service_ids[op->service] == 0)
            sim->service_ids[op->service] = index;
        op->index = index;
        break;
    case OP_CLOSE_SERVICE:
        op->index = session->opened[op->service] ? index : 0;
        session->opened[op->service] = false;
        break;
    case OP_CLOSE_SESSION:
        session->open = false;
        op->index = index;
        break;
    case OP_KEEP_ALIVE:
        session->last_updated = time;
        op->index = index;
        break;
    default:
        if (send->status != STATUS_UNAVAILABLE) /* its session holds too many outputs: that is not counted here */
            numbered(sim, op, index, time);
        break;
    }
}

void account_apply(struct sim *sim, struct send *send, uint64_t index, uint64_t time)
{
    pass_time(sim, index, time);
    if (send == NULL)
        return;
    apply(sim, send, index, time);
    check_refusal(send, index);
}
