/* SPDX-License-Identifier: Apache-2.0 */
/* One seed: its plan, a few hundred steps of worker, clients and faults, and then, with all faults healed, the last
 * checks. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

enum { SETTLING_ROUNDS = 5000 };

struct sim *current_sim;

void trace(const char *format, ...)
{
    va_list arguments;
    printf("%4u %10.3f ms  ", current_sim->step, (double)current_sim->elapsed / 1e6);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

_Noreturn void violation(const char *format, ...)
{
    va_list arguments;
    printf("seed %llu, step %u: ", (unsigned long long)current_sim->seed, current_sim->step);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    main_failed();
}

static bool all_settled(struct sim *sim)
{
    bool settled = sim->node.up && !log_in_flight(sim->node.worker.log) && log_trouble(sim->node.worker.log) == NULL;
    for (unsigned n = 0; settled && n < sim->plan.clients; n++)
        settled = client_settled(&sim->clients[n]);
    return settled;
}

/* What has failed is tried again every second: one of so many times we wait for it. */
static void wait_in_trouble(struct sim *sim, unsigned of)
{
    if (sim->node.up && log_trouble(sim->node.worker.log) != NULL && random_chance(&sim->random, 1, of))
        fake_machine_advance(sim->machine, 100 * MR_MILLISECOND + random_below(&sim->random, MR_SECOND));
}

/* Until every request has its answer. */
static void settle(struct sim *sim)
{
    for (unsigned round = 0; round < SETTLING_ROUNDS && !sim->over; round++) {
        trouble_start(sim);
        if (all_settled(sim))
            return;
        wait_in_trouble(sim, 1);
        if (sim->node.up)
            node_turn(sim);
        for (unsigned n = 0; n < sim->plan.clients; n++)
            client_act(sim, &sim->clients[n]);
    }
    if (sim->over)
        return;
    for (unsigned n = 0; n < sim->plan.clients; n++)
        for (unsigned i = 0; i < sim->clients[n].open_count; i++) {
            const struct op *op = sim->clients[n].open[i];
            if (op->kind != OP_EVENTS || op->received < op->output_count || op->index == 0)
                violation("op %llu (%s) of client %u is not answered: entry %llu, %llu outputs of %u",
                          (unsigned long long)op->number, op_name(op->kind), n, (unsigned long long)op->index,
                          (unsigned long long)op->received, op->output_count);
        }
    violation("nothing is left to answer, and it does not come to rest");
}

/* Every counter and key is read by every client that can. */
static void read_all(struct sim *sim)
{
    for (unsigned n = 0; n < sim->plan.clients; n++) {
        struct op *op;
        for (unsigned which = 0; (op = request_query_all(sim, &sim->clients[n], which)) != NULL; which++)
            client_begin(sim, &sim->clients[n], op);
    }
    settle(sim);
}

static void end_checks(struct sim *sim)
{
    trouble_heal(sim);
    sim->settling = true;
    sim->plan.nap_max = 10 * MR_MILLISECOND;
    sim->node.calls_left = 0;
    settle(sim);
    if (!sim->over)
        read_all(sim);
    if (sim->over)
        return;
    if (fsm_index(sim->node.worker.fsm) != sim->entry_count)
        violation("it came to rest at entry %llu of %llu", (unsigned long long)fsm_index(sim->node.worker.fsm),
                  (unsigned long long)sim->entry_count);
    shadow_compare(sim);
    /* Once more from what was kept. */
    if (sim->plan.durability == DURABILITY_MEMORY || random_chance(&sim->random, 1, 2))
        node_kill(sim);
    else
        node_end(sim);
    trouble_start(sim);
}

static void one_step(struct sim *sim)
{
    trouble_step(sim);
    if (!sim->node.up && random_chance(&sim->random, 1, 3))
        trouble_start(sim);
    if (sim->over)
        return;
    wait_in_trouble(sim, 10);
    if (sim->node.up && random_chance(&sim->random, sim->plan.worker_weight, 100)) {
        if (!node_turn(sim))
            trouble_after_death(sim);
    } else {
        client_act(sim, &sim->clients[random_below(&sim->random, sim->plan.clients)]);
    }
}

void run_seed(struct sim *sim, uint64_t seed, bool verbose)
{
    *sim = (struct sim){.seed = seed, .random = {seed * UINT64_C(0xD1342543DE82EF95) + 1}, .verbose = verbose};
    current_sim = sim;
    plan_make(sim);
    node_make(sim);
    clients_make(sim);
    account_begin(sim);
    shadow_begin(sim);
    for (sim->step = 0; sim->step < sim->plan.steps && !sim->over; sim->step++)
        one_step(sim);
    if (!sim->over)
        end_checks(sim);
    node_unmake(sim);
    current_sim = NULL;
}
