/* SPDX-License-Identifier: Apache-2.0 */
/* The history: every entry that a worker's state machine was given, in the order of index, as it stands now. An entry
 * comes into it when it is applied for the first time, live or in a replay, and stays for ever once it may have been
 * answered; a later life must replay the same. */
#include <string.h>

#include "tests/sim/sim.h"

/* In `async`: how long what was answered may lie unflushed. An interval until a flush is due, another for the one that
 * was under way then, and what they take themselves. */
static uint64_t longest_unflushed(const struct sim *sim)
{
    return 3 * MR_FLUSH_INTERVAL_DEFAULT + 4 * (sim->plan.delay_max + sim->plan.nap_max);
}

void __real_fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink);
void __wrap_fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink);

/* Everything that a state machine is given comes through here (the linker's --wrap). */
void __wrap_fsm_apply(struct fsm *fsm, const struct fsm_entry *entry, const struct fsm_sink *sink)
{
    struct sim *sim = current_sim;
    bool worker = sim != NULL && fsm == sim->node.worker.fsm;
    if (worker)
        node_may_die(sim);
    if (worker)
        history_apply(sim, entry, !sim->node.worker.replaying);
    __real_fsm_apply(fsm, entry, sink);
    if (worker)
        node_may_die(sim);
}

static struct entry *entry_at(const struct sim *sim, uint64_t index)
{
    return &sim->entries[index - 1];
}

/* The sending that an entry came from; NULL: the node itself. *invented: nobody has sent such a thing. */
static struct send *sender(struct sim *sim, const struct fsm_entry *entry, bool *invented)
{
    *invented = false;
    if (entry->command == NULL && entry->route.channel == 0)
        return NULL;
    struct sim_channel *channel = node_find_channel(sim, entry->route.channel);
    struct send *send = channel == NULL ? NULL : client_find_send(channel, entry->route.position);
    *invented = true;
    if (send == NULL || entry->command == NULL || entry->uid != send->uid)
        return NULL;
    struct slice bytes = entry->command->source;
    *invented = bytes.size != send->op->size || memcmp(bytes.data, send->op->bytes, bytes.size) != 0;
    return send;
}

/* What was done to sends and ops by entries behind `index` is undone by doing all others again. */
static void cut(struct sim *sim, uint64_t index)
{
    TRACE("entries %llu to %llu are gone", (unsigned long long)index + 1, (unsigned long long)sim->entry_count);
    for (uint64_t n = index + 1; n <= sim->entry_count; n++)
        if (entry_at(sim, n)->send != NULL)
            entry_at(sim, n)->send->refused = true;
    sim->entry_count = index;
    sim->must = sim->must < index ? sim->must : index;
    sim->claimed = sim->claimed < index ? sim->claimed : index;
    sim->acked = sim->acked < index ? sim->acked : index;
    for (struct sim_channel *channel = sim->channels; channel != NULL; channel = channel->next)
        for (struct send *send = channel->sends; send != NULL; send = send->next) {
            send->index = 0;
            send->status = STATUS_UNKNOWN;
        }
    for (struct op *op = sim->ops; op != NULL; op = op->next) {
        op->index = 0;
        op->output_count = 0;
        op->asked_at = op->asked_at < index ? op->asked_at : index;
    }
    for (unsigned n = 0; n < sim->plan.clients; n++)
        if (sim->clients[n].seen_index > index)
            sim->clients[n].seen_index = index;
    account_begin(sim);
    shadow_begin(sim);
    for (uint64_t n = 1; n <= index; n++) {
        struct entry *entry = entry_at(sim, n);
        if (entry->send != NULL)
            entry->send->index = n;
        shadow_apply(sim, entry->send, n, entry->time);
        account_apply(sim, entry->send, n, entry->time);
    }
    clients_lost(sim, index);
}

/* `undecided`: it stands behind all that was claimed, and bits have rotten. If they were the beginning of an epoch,
 * what that one had cut off may stand there again. */
static void append(struct sim *sim, const struct entry *entry, bool undecided)
{
    struct send *send = entry->send;
    unsigned long long index = entry->index;
    if (entry->invented)
        violation("entry %llu was invented: nobody has sent what it says", index);
    if (index != sim->entry_count + 1)
        violation("entry %llu follows on %llu", index, (unsigned long long)sim->entry_count);
    if (sim->entry_count > 0 && entry->time < entry_at(sim, index - 1)->time)
        violation("entry %llu goes back in time", index);
    if (send != NULL && send->refused && !undecided)
        violation("entry %llu was refused, and has come back: op %llu (%s)", index,
                  (unsigned long long)send->op->number, op_name(send->op->kind));
    if (send != NULL && send->index != 0)
        violation("entry %llu is entry %llu again: op %llu (%s)", index, (unsigned long long)send->index,
                  (unsigned long long)send->op->number, op_name(send->op->kind));
    unsigned capacity = (unsigned)sim->entry_capacity;
    sim->entries = run_grow(sim->entries, (unsigned)sim->entry_count, &capacity, sizeof *sim->entries);
    sim->entry_capacity = capacity;
    sim->entries[sim->entry_count++] = *entry;
    sim->counts.entries++;
    if (send != NULL) {
        send->index = index;
        send->refused = false;
    }
    TRACE("entry %llu %s: %s op %llu", index, entry->live ? "applied" : "replayed",
          send != NULL ? op_name(send->op->kind) : "time", send != NULL ? (unsigned long long)send->op->number : 0);
    shadow_apply(sim, send, index, entry->time);
    account_apply(sim, send, index, entry->time);
}

void history_apply(struct sim *sim, const struct fsm_entry *given, bool live)
{
    bool flushed = !live || sim->plan.durability != DURABILITY_ASYNC;
    struct entry entry = {.index = given->index, .time = given->time, .live = live};
    entry.lived = flushed ? NEVER : sim->lived;
    entry.send = sender(sim, given, &entry.invented);
    if (!live) { /* nothing of it counts before the recovery has come to a good end */
        sim->replayed = run_grow(sim->replayed, sim->replayed_count, &sim->replayed_capacity, sizeof *sim->replayed);
        sim->replayed[sim->replayed_count++] = entry;
        return;
    }
    append(sim, &entry, false);
    node_look_at_clock(sim);
    uint64_t most = sim->begin_time + sim->served + (sim->node.stopping ? sim->elapsed - sim->node.read_at : 0);
    if (entry.time > most)
        violation("entry %llu: the partition's time runs ahead by %llu ns", (unsigned long long)entry.index,
                  (unsigned long long)(entry.time - most));
    sim->must = entry.index;
}

/* What was replayed is what had been applied, or follows on it. */
static void take_replayed(struct sim *sim, bool rot)
{
    for (unsigned n = 0; n < sim->replayed_count; n++) {
        const struct entry *entry = &sim->replayed[n];
        if (entry->index > sim->entry_count) {
            append(sim, entry, rot && entry->index > sim->claimed);
            continue;
        }
        const struct entry *known = entry_at(sim, entry->index);
        if (entry->invented || known->send != entry->send || known->time != entry->time)
            violation("entry %llu was another before: op %llu, now op %llu", (unsigned long long)entry->index,
                      known->send != NULL ? (unsigned long long)known->send->op->number : 0,
                      entry->send != NULL ? (unsigned long long)entry->send->op->number : 0);
    }
    sim->replayed_count = 0;
}

void history_recovered(struct sim *sim, bool rot)
{
    const struct log_recovery *found = &sim->node.found;
    unsigned long long last = found->last_index;
    sim->counts.recoveries++;
    /* What was written last and is not claimed by anything behind it may be damaged and read as torn. */
    if (last < sim->must && !(rot && last >= sim->claimed))
        violation(
            "recovery ends at entry %llu, but those up to %llu were answered, up to %llu claimed; it cut off %llu "
            "batches",
            last, (unsigned long long)sim->must, (unsigned long long)sim->claimed,
            (unsigned long long)found->torn_batches);
    if (last < sim->entry_count)
        cut(sim, last);
    take_replayed(sim, rot);
    if (last != sim->entry_count)
        violation("recovery ends at entry %llu, but has told of %llu", last, (unsigned long long)sim->entry_count);
    sim->must = sim->claimed = last;
    for (uint64_t n = 0; n < sim->entry_count; n++)
        sim->entries[n].lived = NEVER;
    if (fsm_index(sim->node.worker.fsm) != last)
        violation("recovery ends at entry %llu, the state at %llu", last,
                  (unsigned long long)fsm_index(sim->node.worker.fsm));
    shadow_compare(sim);
}

bool history_unsure(const struct sim *sim)
{
    return sim->sync_failed && (sim->plan.durability == DURABILITY_ASYNC || sim->plan.other_options);
}

void history_power_cut(struct sim *sim)
{
    while (sim->must > 0 &&
           (history_unsure(sim) || (entry_at(sim, sim->must)->lived != NEVER &&
                                    sim->lived - entry_at(sim, sim->must)->lived < longest_unflushed(sim))))
        sim->must--;
    if (sim->claimed > sim->must)
        sim->claimed = sim->must;
}
