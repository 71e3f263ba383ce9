/* SPDX-License-Identifier: Apache-2.0 */
/* Faults, each as often as the plan says. After every one the node is started again by run.c sooner or later, and
 * history_recovered() says whether all is well. */
#include <errno.h>
#include <string.h>

#include "tests/sim/sim.h"

enum { BLOCK_BYTES = 4096 };

/* ---- the end of workers, nodes and machines ---- */

static void worker_crash(struct sim *sim)
{
    if (!sim->node.up)
        return;
    sim->counts.crashes++;
    if (random_chance(&sim->random, 3, 4)) {
        sim->node.calls_left = 1 + random_below(&sim->random, 60);
    } else {
        TRACE("the worker dies between turns");
        node_kill(sim);
    }
}

static void power_cut(struct sim *sim)
{
    TRACE("power cut");
    sim->counts.power_cuts++;
    node_look_at_clock(sim);
    node_end(sim);
    fake_machine_power_cut(sim->machine);
    fake_io_destroy(sim->observer);
    sim->observer = fake_io_create(sim->machine);
    sim->looked_at = sim->observer->ops->monotonic(sim->observer);
    history_power_cut(sim);
}

void trouble_after_death(struct sim *sim)
{
    if (sim->plan.power_cut > 0 && !sim->settling && random_chance(&sim->random, 1, 4))
        power_cut(sim);
}

static void orderly_stop(struct sim *sim)
{
    if (!sim->node.up)
        return;
    TRACE("orderly stop");
    if (node_stop(sim))
        TRACE("stopped");
    node_end(sim);
}

/* ---- the disk ---- */

static uint64_t bytes_used(struct sim *sim)
{
    uint64_t bytes = 0;
    const char *name;
    for (unsigned n = 0; (name = fake_file_name(sim->machine, SIM_PATH, n)) != NULL; n++)
        bytes += (uint64_t)(fake_file_size(sim->machine, SIM_PATH, name) + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    return bytes;
}

static void disk_full(struct sim *sim)
{
    fake_machine_config(sim->machine)->space = bytes_used(sim) + random_below(&sim->random, 16) * BLOCK_BYTES;
    sim->full_until = sim->step + 5 + (unsigned)random_below(&sim->random, 80);
    TRACE("the disk is full until step %u", sim->full_until);
}

static void disk_trouble(struct sim *sim)
{
    static const enum fake_call calls[] = {FAKE_WRITE, FAKE_WRITE,    FAKE_WRITE,  FAKE_SYNC,     FAKE_OPEN,
                                           FAKE_READ,  FAKE_ALLOCATE, FAKE_RENAME, FAKE_REMOVE,   FAKE_SYNC_NOW,
                                           FAKE_LIST,  FAKE_LOCK,     FAKE_SIZE,   FAKE_WRITE_NOW};
    struct fake_config *config = fake_machine_config(sim->machine);
    for (unsigned n = 1 + (unsigned)random_below(&sim->random, 4); n > 0; n--) {
        enum fake_call call = calls[random_below(&sim->random, sizeof calls / sizeof calls[0])];
        config->fail_ppm[call] = sim->plan.trouble_ppm;
        sim->sync_failed |= call == FAKE_SYNC || call == FAKE_SYNC_NOW;
        TRACE("calls of kind %d fail", (int)call);
    }
    sim->trouble_until = sim->step + 5 + (unsigned)random_below(&sim->random, 60);
}

void trouble_heal(struct sim *sim)
{
    struct worker *worker = &sim->node.worker;

    fake_machine_heal(sim->machine);
    fake_machine_config(sim->machine)->space = UINT64_MAX;
    sim->plan.disk_limit = worker->snapshots.config.disk_limit = 0;
    if (sim->node.up && worker->log != NULL)
        log_limit(worker->log, 0, 0);
    sim->failures = 0;
    sim->trouble_until = sim->full_until = 0;
}

/* ---- damage while the node is down ---- */

enum { FILE_MOST = 1 << 18 };

/* What became of a file. */
struct rotten {
    char name[128];
    uint8_t before[FILE_MOST], after[FILE_MOST];
    int64_t size, size_after; /* -1: the file is gone */
};

static bool choose_file(struct sim *sim, struct rotten *rotten)
{
    unsigned files = 0;
    while (fake_file_name(sim->machine, SIM_PATH, files) != NULL)
        files++;
    if (files == 0)
        return false;
    strcpy(rotten->name, fake_file_name(sim->machine, SIM_PATH, (unsigned)random_below(&sim->random, files)));
    rotten->size = rotten->size_after = fake_file_size(sim->machine, SIM_PATH, rotten->name);
    if (rotten->size == 0 || rotten->size > FILE_MOST)
        return false;
    fake_file_read(sim->machine, SIM_PATH, rotten->name, rotten->before, (size_t)rotten->size, 0);
    memcpy(rotten->after, rotten->before, (size_t)rotten->size);
    return true;
}

/* One bit, or a sector; rather where something stands, and rather in a block's head. */
static void flip_bits(struct sim *sim, struct rotten *rotten)
{
    struct random *random = &sim->random;
    uint64_t at = 0;
    for (unsigned tries = 0; tries < 8; tries++) {
        at = random_below(random, (uint64_t)rotten->size);
        if (random_chance(random, 1, 2))
            at = at / BLOCK_BYTES * BLOCK_BYTES + random_below(random, 128);
        at = at < (uint64_t)rotten->size ? at : 0;
        if (rotten->before[at] != 0)
            break;
    }
    uint64_t sector = at / 512 * 512;
    if (random_chance(random, 1, 4))
        for (uint64_t n = sector; n < sector + 512 && n < (uint64_t)rotten->size; n++)
            rotten->after[n] = (uint8_t)random_next(random);
    else
        rotten->after[at] ^= (uint8_t)(1U << random_below(random, 8));
    fake_file_write(sim->machine, SIM_PATH, rotten->name, rotten->after, (size_t)rotten->size, 0);
    TRACE("%s rots at offset %llu", rotten->name, (unsigned long long)at);
}

/* False: there is nothing that could. */
static bool rot_somewhere(struct sim *sim, struct rotten *rotten)
{
    if (!choose_file(sim, rotten))
        return false;
    bool snapshot = strncmp(rotten->name, "snapshot", 8) == 0;
    uint64_t how = random_below(&sim->random, 16);
    if (how == 0 && snapshot) {
        rotten->size_after = -1;
        fake_file_remove(sim->machine, SIM_PATH, rotten->name);
        TRACE("%s is gone", rotten->name);
    } else if (how <= 1) {
        rotten->size_after = (int64_t)random_below(&sim->random, (uint64_t)rotten->size);
        fake_file_truncate(sim->machine, SIM_PATH, rotten->name, (uint64_t)rotten->size_after);
        TRACE("%s ends at %lld", rotten->name, (long long)rotten->size_after);
    } else {
        flip_bits(sim, rotten);
    }
    return true;
}

static unsigned whole_snapshots(struct sim *sim)
{
    unsigned count = 0;
    const char *name;
    for (unsigned n = 0; (name = fake_file_name(sim->machine, SIM_PATH, n)) != NULL; n++)
        count += strncmp(name, "snapshot-0", 10) == 0;
    return count;
}

/* Has nobody changed the file since? */
static bool still_there(struct sim *sim, const struct rotten *rotten)
{
    static uint8_t now[FILE_MOST];
    if (fake_file_size(sim->machine, SIM_PATH, rotten->name) != rotten->size_after)
        return false;
    if (rotten->size_after <= 0)
        return true;
    fake_file_read(sim->machine, SIM_PATH, rotten->name, now, (size_t)rotten->size_after, 0);
    return memcmp(now, rotten->after, (size_t)rotten->size_after) == 0;
}

static void rot(struct sim *sim)
{
    static struct rotten rotten;
    trouble_heal(sim);
    /* What is at rest for a while has been claimed: then damage to all but the last may not pass as torn. */
    if (random_chance(&sim->random, 1, 2))
        for (unsigned n = 0; n < 200 && sim->node.up && sim->claimed < sim->must; n++)
            node_turn(sim);
    node_end(sim);
    fake_machine_land(sim->machine, UINT32_MAX);
    unsigned snapshots = whole_snapshots(sim);
    if (!rot_somewhere(sim, &rotten))
        return;
    /* There is another snapshot, and the log back to it: one may be lost. */
    bool spared = strncmp(rotten.name, "snapshot-0", 10) == 0 && snapshots > 1 && !sim->rotten;
    enum start start = node_start(sim, true);
    if (start == START_DAMAGED && spared)
        violation("one snapshot is damaged, and the other does not do: %s", sim->node.error.text);
    if (start == START_DAMAGED) {
        TRACE("reported: %s", sim->node.error.text);
        sim->counts.reported++;
        if (strstr(sim->node.error.text, SIM_PATH) == NULL)
            violation("damage is reported without saying where: %s", sim->node.error.text);
        if (still_there(sim, &rotten))
            fake_file_write(sim->machine, SIM_PATH, rotten.name, rotten.before, (size_t)rotten.size, 0);
        start = node_start(sim, false);
    } else if (start == START_UP) {
        /* It did no harm. What it will be when somebody comes to need it, nobody knows. */
        sim->rotten |= still_there(sim, &rotten);
    }
    if (start != START_UP)
        violation("the node does not start after bits have rotten: %s", sim->node.error.text);
}

/* ---- */

void trouble_start(struct sim *sim)
{
    if (sim->node.up)
        return;
    if (!sim->settling && random_chance(&sim->random, sim->plan.crash_in_recovery, 100))
        sim->node.calls_left = 1 + random_below(&sim->random, 120);
    TRACE("a worker starts");
    switch (node_start(sim, false)) {
    case START_UP:
        sim->failures = 0;
        TRACE("recovered %llu entries, epoch %llu", (unsigned long long)sim->node.found.last_index,
              (unsigned long long)sim->node.found.epoch);
        return;
    case START_DIED:
        trouble_after_death(sim);
        return;
    case START_FAILED:
        TRACE("recovery failed: %s", sim->node.error.text);
        /* Once it may: a call of the predecessor's child that happened late. */
        sim->failures++;
        if (sim->trouble_until == 0 && sim->full_until == 0 && sim->failures > 2)
            violation("recovery fails, although nothing is wrong: %s", sim->node.error.text);
        return;
    case START_DAMAGED:
        TRACE("damaged: %s", sim->node.error.text);
        if (!sim->rotten && !history_unsure(sim))
            violation("damage is reported where there is none: %s", sim->node.error.text);
        sim->counts.reported++;
        sim->over = true;
        return;
    }
}

void trouble_step(struct sim *sim)
{
    struct random *random = &sim->random;
    const struct plan *plan = &sim->plan;
    if (sim->trouble_until != 0 && sim->step >= sim->trouble_until) {
        TRACE("the disk is well again");
        fake_machine_heal(sim->machine);
        sim->trouble_until = sim->failures = 0;
    }
    if (sim->full_until != 0 && sim->step >= sim->full_until) {
        TRACE("there is room again");
        fake_machine_config(sim->machine)->space = UINT64_MAX;
        sim->full_until = sim->failures = 0;
    }
    if (random_chance(random, plan->worker_crash, 10000))
        worker_crash(sim);
    if (random_chance(random, plan->node_crash, 10000)) {
        TRACE("the node is killed");
        sim->counts.crashes++;
        node_end(sim);
    }
    if (random_chance(random, plan->power_cut, 10000))
        power_cut(sim);
    if (random_chance(random, plan->orderly_stop, 10000))
        orderly_stop(sim);
    if (random_chance(random, plan->snapshot, 10000) && sim->node.up)
        node_ask_snapshot(sim);
    if (random_chance(random, plan->client_death, 10000))
        client_die(sim, &sim->clients[random_below(random, plan->clients)]);
    if (random_chance(random, plan->disk_full, 10000) && sim->full_until == 0)
        disk_full(sim);
    if (random_chance(random, plan->disk_trouble, 10000) && sim->trouble_until == 0)
        disk_trouble(sim);
    if (random_chance(random, plan->wall_step, 10000))
        fake_machine_step_wall(sim->machine, (int64_t)random_below(random, 2 * MR_HOUR) - (int64_t)MR_HOUR);
    if (random_chance(random, plan->freeze, 10000))
        fake_machine_advance(sim->machine, random_below(random, 3 * MR_SECOND));
    if (random_chance(random, plan->rot, 10000))
        rot(sim);
}
