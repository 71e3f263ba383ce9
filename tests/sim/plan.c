/* SPDX-License-Identifier: Apache-2.0 */
/* What a seed chooses. Not everything at once: a seed switches most kinds of faults and operations off and so goes
 * deeper into what is left (what is on in all runs hides what needs it off). */
#include "tests/sim/sim.h"

uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t random_below(struct random *random, uint64_t limit)
{
    return limit > 1 ? random_next(random) % limit : 0;
}

bool random_chance(struct random *random, uint64_t of, uint64_t whole)
{
    return random_below(random, whole) < of;
}

/* Off in half the seeds, else up to `most`. */
static unsigned rate(struct random *random, unsigned most)
{
    return random_chance(random, 1, 2) ? 0 : 1 + (unsigned)random_below(random, most);
}

static void plan_faults(struct plan *plan, struct random *random)
{
    plan->worker_crash = rate(random, 300);
    plan->client_death = rate(random, 300);
    plan->wall_step = rate(random, 100);
    plan->freeze = rate(random, 50);
    plan->crash_in_recovery = random_chance(random, 1, 2) ? 0 : (unsigned)random_below(random, 60);
    plan->snapshot = rate(random, 200);
    if (plan->durability == DURABILITY_MEMORY)
        return;
    plan->node_crash = rate(random, 100);
    plan->power_cut = rate(random, 250);
    plan->orderly_stop = rate(random, 60);
    plan->disk_full = random_chance(random, 1, 4) ? rate(random, 150) : 0;
    plan->disk_trouble = rate(random, 200);
    plan->trouble_ppm = (uint32_t)(1 + random_below(random, 4)) * 60000;
    plan->rot = random_chance(random, 1, 3) ? rate(random, 100) : 0;
}

/* Options that a node may be started with anew. */
static void plan_options(struct plan *plan, struct random *random)
{
    static const uint64_t batches[] = {1024, 1024, 4096, 8192};
    uint64_t largest = plan->max_payload + 256;
    plan->batch_bytes = batches[random_below(random, 4)];
    largest = largest > plan->batch_bytes ? largest : plan->batch_bytes;
    largest = (largest + plan->alignment - 1) / plan->alignment * plan->alignment;
    /* Room for four of the largest batches, and now and then more. */
    plan->segment_bytes = plan->alignment + 4 * largest + plan->alignment * random_below(random, 5);
    plan->snapshot_bytes = random_chance(random, 1, 4) ? 0 : 4096 + 1024 * random_below(random, 24);
}

void plan_again(struct sim *sim)
{
    struct plan *plan = &sim->plan;
    if (!plan->other_options || plan->durability == DURABILITY_MEMORY)
        return;
    plan_options(plan, &sim->random);
    plan->durability = random_chance(&sim->random, 2, 3) ? DURABILITY_SYNC : DURABILITY_ASYNC;
}

void plan_make(struct sim *sim)
{
    struct random *random = &sim->random;
    struct plan *plan = &sim->plan;
    uint64_t mode = random_below(random, 10);
    *plan = (struct plan){.durability = mode < 7   ? DURABILITY_SYNC
                                        : mode < 9 ? DURABILITY_ASYNC
                                                   : DURABILITY_MEMORY,
                          .steps = 60 + (unsigned)random_below(random, random_chance(random, 1, 10) ? 1500 : 240),
                          .clients = 1 + (unsigned)random_below(random, 3),
                          .ring_bytes = random_chance(random, 1, 2) ? 8192 : 16384};
    plan->large_values = random_chance(random, 1, 3);
    plan->max_payload = plan->large_values ? 2048 : 1024;
    plan->alignment = random_chance(random, 1, 8) ? 8192 : 4096;
    plan_options(plan, random);
    plan->other_options = random_chance(random, 1, 4);
    plan->output_limit =
        random_chance(random, 1, 8) ? 2048 + random_below(random, 8192) : MR_SESSION_OUTPUT_BYTES_DEFAULT;
    plan->delay_max = (UINT64_C(1) << random_below(random, 10)) * 10 * MR_MICROSECOND;
    plan->nap_max = (UINT64_C(1) << random_below(random, 8)) * 100 * MR_MICROSECOND;
    if (plan->durability == DURABILITY_MEMORY && random_chance(random, 1, 3)) {
        plan->steps *= 3; /* there are no blocks to fill: it takes longer to come to another segment */
        plan->large_values = true;
    }
    plan->streams = random_chance(random, 1, 2);
    plan->ttl = random_chance(random, 1, 3);
    plan->short_sessions = random_chance(random, 1, 4);
    plan->slow_readers = random_chance(random, 1, 3);
    plan->sleepers = random_chance(random, 1, 2);
    plan->worker_weight = 30 + (unsigned)random_below(random, 50);
    plan->new_request = 10 + (unsigned)random_below(random, 90);
    plan_faults(plan, random);
    if (plan->snapshot_bytes != 0 && random_chance(random, 1, 4))
        plan->disk_limit = plan->segment_bytes * (4 + random_below(random, 12));
}
