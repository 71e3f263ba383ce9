/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated node: what supervisor and worker process are elsewhere. A worker's life is worker.c's without a
 * process: recovery, turns, naps, an orderly end. It may die inside any call it makes of its io (and at each look at
 * the clock): longjmp() takes us out, its memory is dropped, the region and the channels stay. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/log/inside.h"
#include "engine/services/types.h"
#include "tests/sim/sim.h"

enum { WORKER_DESCRIPTOR = 600000, CLIENT_DESCRIPTOR = 800000, RING_SIZES = 2 };

/* ---- death ---- */

void node_may_die(struct sim *sim)
{
    if (!sim->node.inside || sim->node.calls_left == 0 || --sim->node.calls_left > 0)
        return;
    TRACE("the worker dies in the middle");
    longjmp(sim->node.death, 1);
}

static void on_call(void *context, struct io *io, enum fake_call call, const char *name)
{
    struct sim *sim = context;
    (void)call;
    (void)name;
    if (io == sim->node.io)
        node_may_die(sim);
}

static void on_wake(void *context, struct io *io, int event)
{
    (void)io;
    client_woken(context, event - CLIENT_DESCRIPTOR);
}

static uint64_t monotonic(struct io *io)
{
    node_may_die(current_sim);
    return current_sim->observer->ops->monotonic(io);
}

static unsigned completions(struct io *io, struct io_completion *list, unsigned count)
{
    node_may_die(current_sim);
    return current_sim->observer->ops->completions(io, list, count);
}

void node_kill(struct sim *sim)
{
    sim->node.inside = false;
    sim->node.calls_left = 0;
    if (sim->node.io == NULL)
        return;
    fake_io_crash_process(sim->node.io);
    life_drop(OWNER_WORKER);
    fake_io_destroy(sim->node.io);
    sim->node.io = NULL;
    sim->node.up = false;
    /* What its clients had let go of meanwhile is not inherited. */
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        if (sim->slots[slot] != NULL && sim->slots[slot]->gone) {
            sim->slots[slot] = NULL;
            sim->node.region->channels[slot].channel_id = 0;
        }
    node_look_at_clock(sim);
}

/* Runs code of the engine. False: the worker died in it. */
__attribute__((noinline)) static bool run_inside(struct sim *sim, void (*code)(struct sim *sim, void *argument),
                                                 void *argument)
{
    if (setjmp(sim->node.death) != 0) {
        node_kill(sim);
        return false;
    }
    sim->node.inside = true;
    code(sim, argument);
    sim->node.inside = false;
    return true;
}

void node_end(struct sim *sim)
{
    node_kill(sim);
    for (unsigned n = 0; n < sim->plan.clients; n++)
        client_forget_channel(sim, &sim->clients[n]);
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        sim->slots[slot] = NULL;
    memset(sim->node.region, 0, offsetof(struct region, channels) + SIM_SLOTS * sizeof(struct region_channel));
    plan_again(sim);
}

/* ---- a life ---- */

static void closed(void *context, uint32_t slot, uint64_t channel_id, const char *why)
{
    struct sim *sim = context;
    struct sim_channel *channel = sim->slots[slot];
    if (channel == NULL || channel->id != channel_id)
        violation("slot %u is closed for channel %llu, which is not there", slot, (unsigned long long)channel_id);
    if (!channel->gone)
        violation("the worker closed channel %llu: %s", (unsigned long long)channel_id, why);
    sim->slots[slot] = NULL;
    sim->node.region->channels[slot].channel_id = 0;
}

static int memory_segment(void *context, uint32_t slot, struct mr_error *error)
{
    static int files[SIM_MEMORY_SEGMENTS];
    struct sim *sim = context;
    if (slot < sim->memory_count)
        return sim->memory[slot];
    if (slot >= SIM_MEMORY_SEGMENTS)
        return error_set(error, "no more memory segments");
    if (files[slot] == 0)
        files[slot] = memfd_create("segment", MFD_CLOEXEC);
    mr_assert(files[slot] > 0 && ftruncate(files[slot], 0) == 0);
    mr_assert(ftruncate(files[slot], (off_t)sim->plan.segment_bytes) == 0);
    sim->memory[sim->memory_count++] = files[slot];
    return files[slot];
}

static void log_told(void *context, const char *text)
{
    (void)context;
    TRACE("log: %s", text);
}

static void worker_told(void *context, enum logline_level level, const char *text)
{
    (void)context;
    (void)level;
    TRACE("worker: %s", text);
}

/* A snapshot was asked for. */
static void answered(void *context, const struct worker_answer *answer)
{
    struct sim *sim = context;
    TRACE("the snapshot is there: status %d %s", (int)answer->status, answer->text);
    sim->counts.snapshots += answer->status == STATUS_OK;
}

/* In `memory`: what the supervisor keeps. */
static const int *memory_snapshots(struct sim *sim)
{
    static int files[SNAPSHOTS_KEPT];
    if (sim->plan.durability != DURABILITY_MEMORY)
        return NULL;
    for (unsigned n = 0; n < SNAPSHOTS_KEPT; n++) {
        if (files[n] == 0)
            files[n] = memfd_create("snapshot", MFD_CLOEXEC);
        mr_assert(files[n] > 0 && (sim->memory_snapshots || ftruncate(files[n], 0) == 0));
    }
    sim->memory_snapshots = true;
    return files;
}

static int recover(struct sim *sim)
{
    struct worker *worker = &sim->node.worker;
    struct log_config log = {
        .io = sim->node.io,
        .path = SIM_PATH,
        .partition = 1,
        .secret = SIM_SECRET,
        .durability = sim->plan.durability,
        .batch_bytes = sim->plan.batch_bytes,
        .segment_bytes = sim->plan.segment_bytes,
        .largest_body = sim->plan.max_payload,
        .flush_interval = MR_FLUSH_INTERVAL_DEFAULT,
        .memory_segment = memory_segment,
        .memory_slots = sim->memory_count,
        .memory_context = sim,
        .notice = log_told,
    };
    struct snapshots_config snapshots = {.place = {.io = sim->node.io,
                                                   .path = SIM_PATH,
                                                   .partition = 1,
                                                   .secret = SIM_SECRET,
                                                   .memory = memory_snapshots(sim)},
                                         .every = sim->plan.snapshot_bytes,
                                         .disk_limit = sim->plan.disk_limit};
    struct fsm_config state = {.hash_seed = 7, .session_output_limit = sim->plan.output_limit, .types = service_types};
    return worker_recover(worker, &log, &snapshots, &state, &sim->node.found, &sim->node.error);
}

static void begin_life(struct sim *sim)
{
    struct worker *worker = &sim->node.worker;
    sim->node.io = fake_io_create(sim->machine);
    sim->node.ops = *sim->node.io->ops;
    sim->node.ops.monotonic = monotonic;
    sim->node.ops.completions = completions;
    sim->node.io->ops = &sim->node.ops;
    *worker = (struct worker){.partition = 1,
                              .max_payload = sim->plan.max_payload,
                              .io = sim->node.io,
                              .region = sim->node.region,
                              .closed = closed,
                              .closed_context = sim,
                              .answered = answered,
                              .answered_context = sim,
                              .notice = worker_told,
                              .notice_context = sim};
    sim->node.error = (struct mr_error){0};
    sim->node.claiming = 0;
    sim->node.stopping = false;
    sim->replayed_count = 0;
}

/* How it began, and whether bits had rotten. */
struct beginning {
    enum start start;
    bool rot;
};

static void live(struct sim *sim, void *argument)
{
    struct worker *worker = &sim->node.worker;
    struct beginning *beginning = argument;
    mr_assert(channels_init(worker, &sim->node.error) == 0);
    worker->now = worker->io->ops->monotonic(worker->io);
    for (uint32_t slot = 0; slot < SIM_SLOTS; slot++)
        if (sim->slots[slot] != NULL)
            channels_add(worker, slot, &sim->slots[slot]->channel);
    if (recover(sim) != 0) {
        beginning->start = sim->node.error.code == 0 ? START_DAMAGED : START_FAILED;
        return;
    }
    node_look_at_clock(sim);
    history_recovered(sim, beginning->rot);
    worker_resume_channels(worker); /* from here on clients see it */
    worker->accepting = true;
    sim->node.read_at = sim->elapsed;
    beginning->start = START_UP;
}

enum start node_start(struct sim *sim, bool rot)
{
    struct beginning beginning = {.rot = rot};
    begin_life(sim);
    if (!run_inside(sim, live, &beginning))
        return START_DIED;
    if (beginning.start != START_UP) {
        node_kill(sim);
        return beginning.start;
    }
    sim->node.up = true;
    if (sim->entry_count == 0 && sim->node.found.time == 0) /* nothing is logged: it begins now, by the wall clock */
        sim->begin_time = sim->node.worker.time - sim->served;
    return START_UP;
}

/* ---- turns ---- */

void node_look_at_clock(struct sim *sim)
{
    uint64_t now = sim->observer->ops->monotonic(sim->observer);
    if (now > sim->looked_at)
        sim->elapsed += now - sim->looked_at;
    sim->looked_at = now;
}

static void nap(struct sim *sim)
{
    struct worker *worker = &sim->node.worker;
    uint64_t next = turn_next(worker);
    if (next <= worker->now || !channels_park_all(worker)) {
        /* It spins: time goes on all the same. */
        fake_machine_advance(sim->machine, random_below(&sim->random, sim->plan.nap_max / 4));
        return;
    }
    uint64_t most = next == UINT64_MAX ? UINT64_MAX : next - worker->now;
    uint64_t length = 1 + random_below(&sim->random, sim->plan.nap_max);
    length = length < most ? length : most;
    clock_sleeping(&worker->clock, length);
    worker->io->ops->sleep(worker->io, length);
}

/* A batch claims all that was durable when it was sealed: once it is durable itself, rot in those may not pass as
 * torn. One batch is followed at a time. */
static void follow_claims(struct sim *sim, uint64_t sealed_before, uint64_t durable_before)
{
    const struct log *log = sim->node.worker.log;
    if (sim->plan.durability != DURABILITY_ASYNC && sim->node.claiming == 0 && log->sequence > sealed_before) {
        sim->node.claiming = log->sequence;
        sim->node.claim = durable_before;
    }
    if (sim->node.claiming != 0 && log->durable.sequence >= sim->node.claiming) {
        sim->claimed = sim->node.claim > sim->claimed ? sim->node.claim : sim->claimed;
        sim->node.claiming = 0;
        sim->node.stopping = false;
        sim->replayed_count = 0;
    }
    if (log->claimed && log->in_flight == 0 && log->durable.sequence == log->sequence && log->head == log->tail)
        sim->claimed = sim->must;
}

/* How far the partition's time may go on from the reading before to the one that is about to be made: not at all while
 * the log is in trouble, and, if nobody has looked for long, by what was meant to be slept and a little. */
static void serve(struct sim *sim)
{
    node_look_at_clock(sim);
    uint64_t passed = sim->elapsed - sim->node.read_at, most = sim->plan.nap_max + MR_CLOCK_STEP_MAX;
    sim->node.read_at = sim->elapsed;
    if (log_trouble(sim->node.worker.log) == NULL)
        sim->served += passed < most ? passed : most;
}

static void after_turn(struct sim *sim, uint64_t elapsed_before)
{
    const struct log *log = sim->node.worker.log;
    node_look_at_clock(sim);
    uint64_t passed = sim->elapsed - elapsed_before;
    if (log_trouble(log) == NULL)
        sim->lived += passed < sim->plan.nap_max ? passed : sim->plan.nap_max;
}

static void turn(struct sim *sim, void *argument)
{
    (void)argument;
    if (!turn_run(&sim->node.worker))
        nap(sim);
}

bool node_turn(struct sim *sim)
{
    uint64_t elapsed = sim->elapsed, sealed = sim->node.worker.log->sequence;
    uint64_t durable = sim->node.worker.log->durable.index;
    serve(sim);
    if (!run_inside(sim, turn, NULL))
        return false;
    after_turn(sim, elapsed);
    follow_claims(sim, sealed, durable);
    return true;
}

static void stop(struct sim *sim, void *argument)
{
    bool *stopped = argument;
    struct mr_error error;
    sim->node.stopping = true;
    *stopped = worker_stop(&sim->node.worker, NULL, NULL, &error) == 0;
    if (!*stopped)
        TRACE("stop: %s", error.text);
}

bool node_stop(struct sim *sim)
{
    bool stopped = false;
    if (run_inside(sim, stop, &stopped))
        node_kill(sim);
    sim->served += sim->elapsed - sim->node.read_at; /* it may have logged how late it was */
    return stopped;
}

static void ask_snapshot(struct sim *sim, void *argument)
{
    (void)argument;
    snapshots_ask(&sim->node.worker, &(struct snapshot_question){.number = 1});
}

void node_ask_snapshot(struct sim *sim)
{
    (void)run_inside(sim, ask_snapshot, NULL);
}

/* ---- channels ---- */

/* Ring memory, made once: a channel takes the place of its slot. */
static struct channel *ring_memory(uint64_t ring_bytes, uint32_t slot)
{
    static struct channel places[RING_SIZES][SIM_SLOTS];
    struct channel *place = &places[ring_bytes > 8192][slot];
    struct mr_error error;
    if (place->page == NULL && channel_create(place, 1, 1, ring_bytes, 0, &error) != 0)
        violation("%s", error.text);
    return place;
}

static uint32_t free_slot(const struct sim *sim)
{
    uint32_t slot = 0;
    while (slot < SIM_SLOTS && sim->slots[slot] != NULL)
        slot++;
    return slot;
}

static struct sim_channel *new_channel(struct sim *sim, struct client *client, uint32_t slot)
{
    uint64_t ring_bytes = sim->plan.ring_bytes;
    struct sim_channel *channel = run_allocate(sizeof *channel);
    channel->id = ++sim->last_channel;
    channel->slot = slot;
    channel->client = client;
    channel->channel = *ring_memory(ring_bytes, slot);
    channel->channel.channel_id = channel->id;
    channel->channel.node_wake_fd = WORKER_DESCRIPTOR + (int)channel->id;
    channel->channel.client_wake_fd = CLIENT_DESCRIPTOR + (int)client->number;
    struct channel_page *page = channel->channel.page;
    *page = (struct channel_page){.channel_id = channel->id, .ring_bytes = ring_bytes, .generation = 1};
    atomic_store_explicit(&page->state, CHANNEL_OPEN, memory_order_relaxed);
    memset(channel->channel.request_data, 0, ring_bytes);
    memset(channel->channel.response_data, 0, ring_bytes);
    ring_writer_attach(&channel->requests, channel->channel.request_data, ring_bytes, &page->request, 0, 0);
    ring_reader_attach(&channel->responses, channel->channel.response_data, ring_bytes, &page->response, 0, 0);
    channel->sends_end = &channel->sends;
    channel->next = sim->channels;
    sim->channels = sim->slots[slot] = channel;
    sim->node.region->channels[slot] = (struct region_channel){
        .channel_id = channel->id, .uid = client->uid, .pid = 1, .connection = 1 + client->number};
    return channel;
}

static void add_channel(struct sim *sim, void *argument)
{
    const struct sim_channel *channel = argument;
    channels_add(&sim->node.worker, channel->slot, &channel->channel);
}

struct sim_channel *node_connect(struct sim *sim, struct client *client)
{
    uint32_t slot = free_slot(sim);
    if (slot == SIM_SLOTS)
        return NULL;
    struct sim_channel *channel = new_channel(sim, client, slot);
    if (sim->node.up)
        (void)run_inside(sim, add_channel, channel);
    return channel;
}

static void close_channel(struct sim *sim, void *argument)
{
    const struct sim_channel *channel = argument;
    channels_close(&sim->node.worker, &sim->node.worker.channels[channel->slot], "");
}

void node_disconnect(struct sim *sim, struct sim_channel *channel)
{
    channel->gone = true;
    if (sim->node.up) {
        (void)run_inside(sim, close_channel, channel);
        return;
    }
    sim->slots[channel->slot] = NULL;
    sim->node.region->channels[channel->slot].channel_id = 0;
}

void node_wake_worker(struct sim *sim, struct sim_channel *channel)
{
    if (sim->node.io != NULL)
        fake_io_trigger(sim->node.io, channel->channel.node_wake_fd);
}

struct sim_channel *node_find_channel(struct sim *sim, uint64_t id)
{
    struct sim_channel *channel = sim->channels;
    while (channel != NULL && channel->id != id)
        channel = channel->next;
    return channel;
}

/* ---- making ---- */

void node_make(struct sim *sim)
{
    static struct region *region;
    sim->machine = fake_machine_create(random_next(&sim->random));
    fake_make_directory(sim->machine, SIM_PATH);
    struct fake_config *config = fake_machine_config(sim->machine);
    config->order = FAKE_ANY_ORDER;
    config->delay_max = sim->plan.delay_max;
    config->alignment = sim->plan.alignment;
    config->no_direct = random_chance(&sim->random, 1, 4);
    config->on_call = on_call;
    config->on_wake = on_wake;
    config->context = sim;
    sim->observer = fake_io_create(sim->machine);
    sim->looked_at = sim->observer->ops->monotonic(sim->observer);
    if (region == NULL)
        region = calloc(1, sizeof *region);
    mr_assert(region != NULL);
    memset(region, 0, offsetof(struct region, channels) + SIM_SLOTS * sizeof(struct region_channel));
    sim->node.region = region;
}

void node_unmake(struct sim *sim)
{
    node_kill(sim);
    fake_machine_destroy(sim->machine);
    life_drop(OWNER_SHADOW);
    run_drop();
}
