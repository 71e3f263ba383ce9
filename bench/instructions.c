/* SPDX-License-Identifier: Apache-2.0 */
/* What one command costs in instructions, from the client's call to its answer, with nobody waiting for anybody: client
 * library and worker take turns in one process and one thread, on a real channel. bench/instructions.sh runs it under
 * callgrind, which counts what happens inside measured(), and divides.
 *
 *     millrace-instructions OPERATION DEPTH ROUNDS
 *
 * OPERATION: increment, put, get (100-byte values, 1,000 keys); events is a put of which LISTENERS streams of the
 * client hear, and counts with what each of them takes. A round starts DEPTH of them, lets the worker take its turns
 * until all are answered, and takes the answers. What is counted is ROUNDS rounds; as many run before, uncounted, so
 * that caches of memory are filled. The log is in memory: what a disk adds is system calls, not instructions. */
#include <millrace/counter.h>
#include <millrace/map.h>
#include <millrace/millrace.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/io/uring.h"
#include "engine/node/worker_state.h"
#include "engine/services/types.h"
#include "tests/support/fake_node.h"

#define KEYS 1000
#define KEY_BYTES 16
#define VALUE_BYTES 100
#define LISTENERS 25
#define RING_BYTES (4 * MR_MIB)
#define SEGMENTS_MAX 64

struct bench {
    struct worker worker;
    int segments[SEGMENTS_MAX];
    uint32_t segment_count;
    struct fake_node *node; /* does the hand-shake; the worker below answers */
    mr_client *client;
    mr_counter *counter;
    mr_map *map;
    mr_stream *streams[LISTENERS]; /* events: open */
    unsigned answers, depth;
    const char *operation;
    char keys[KEYS][KEY_BYTES + 1];
    uint64_t next_key;
    char path[64];
    _Atomic bool setting_up;
};

static void fail(const char *what)
{
    fprintf(stderr, "millrace-instructions: %s\n", what);
    exit(1);
}

/* ---- the worker ---- */

static int memory_segment(void *context, uint32_t slot, struct mr_error *error)
{
    struct bench *bench = context;
    if (slot < bench->segment_count)
        return bench->segments[slot];
    if (slot == SEGMENTS_MAX)
        return error_set(error, "the run is too long: no more segments");
    int file = memfd_create("segment", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)MR_SEGMENT_BYTES_DEFAULT) != 0)
        fail("no memory for a segment");
    bench->segments[bench->segment_count++] = file;
    return file;
}

/* Under callgrind it takes dear wake-ups, as clients are set up, for worth a line. */
static void say_nothing(void *context, enum logline_level level, const char *text)
{
    (void)context;
    (void)level;
    (void)text;
}

static void start_worker(struct bench *bench)
{
    struct worker *worker = &bench->worker;
    struct log_recovery found;
    struct mr_error error;
    struct fsm_config state = {
        .hash_seed = 7, .session_output_limit = MR_SESSION_OUTPUT_BYTES_DEFAULT, .types = service_types};

    worker->partition = 1;
    worker->max_payload = MR_PAYLOAD_DEFAULT;
    worker->region = calloc(1, sizeof(*worker->region));
    worker->io = uring_create(64, &error);
    if (worker->io == NULL || worker->region == NULL || channels_init(worker, &error) != 0)
        fail("no worker");
    struct log_config log = {
        .io = worker->io,
        .path = "memory",
        .partition = 1,
        .secret = 42,
        .durability = DURABILITY_MEMORY,
        .batch_bytes = MR_BATCH_BYTES_DEFAULT,
        .segment_bytes = MR_SEGMENT_BYTES_DEFAULT,
        .largest_body = (uint32_t)MR_PAYLOAD_DEFAULT,
        .memory_segment = memory_segment,
        .memory_context = bench,
    };
    worker->notice = say_nothing;
    worker->now = worker->io->ops->monotonic(worker->io);
    struct snapshots_config snapshots = {.place = {.io = worker->io, .path = "memory", .partition = 1, .secret = 42}};
    static int memory[SNAPSHOTS_KEPT];
    for (unsigned i = 0; i < SNAPSHOTS_KEPT; i++)
        if ((memory[i] = memfd_create("snapshot", MFD_CLOEXEC)) < 0)
            fail("no memory for a snapshot");
    snapshots.place.memory = memory;
    if (worker_recover(worker, &log, &snapshots, &state, &found, &error) != 0)
        fail(error.text);
    worker->accepting = true;
}

/* Until the client is set up, by another thread, the worker runs beside it. */
static void run_worker(struct bench *bench)
{
    struct fake_channel *channel = NULL;

    while (atomic_load(&bench->setting_up)) {
        if (channel == NULL && (channel = fake_channel(bench->node, 1)) != NULL) {
            bench->worker.region->channels[0] =
                (struct region_channel){.channel_id = channel->channel.channel_id, .uid = getuid()};
            channels_add(&bench->worker, 0, &channel->channel);
        }
        turn_run(&bench->worker);
        sched_yield();
    }
}

/* ---- the client ---- */

static void answered(mr_client *client, const struct mr_result *result)
{
    struct bench *bench = result->arg;
    (void)client;
    if (result->status != MR_OK)
        fail(mr_status_name(result->status));
    bench->answers++;
}

static void start_one(struct bench *bench)
{
    static const char value[VALUE_BYTES] = "v";
    struct mr_then then = {.done = answered, .arg = bench};
    struct mr_bytes name = {bench->keys[bench->next_key++ % KEYS], KEY_BYTES};
    enum mr_status status;

    switch (bench->operation[0]) {
    case 'i':
        status = mr_counter_increment_start(bench->counter, 1, then, NULL);
        break;
    case 'p':
    case 'e':
        status = mr_map_put_start(bench->map, name, (struct mr_bytes){value, sizeof(value)}, NULL, then, NULL);
        break;
    default:
        status = mr_map_get_start(bench->map, name, then, NULL);
    }
    if (status != MR_OK)
        fail(mr_message(bench->client));
}

static void listen_once(struct bench *bench)
{
    struct mr_event event;

    for (unsigned n = 0; n < LISTENERS; n++)
        for (unsigned taken = 0; taken < bench->depth; taken++)
            if (mr_stream_next(bench->streams[n], MR_NO_WAIT, &event) != MR_OK)
                fail(mr_message(bench->client));
}

static inline void run_rounds(struct bench *bench, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        bench->answers = 0;
        for (unsigned n = 0; n < bench->depth; n++)
            start_one(bench);
        mr_flush(bench->client);
        while (bench->answers < bench->depth) {
            turn_run(&bench->worker);
            mr_run(bench->client, MR_NO_WAIT, NULL);
        }
        if (bench->operation[0] == 'e')
            listen_once(bench);
    }
}

static __attribute__((noinline)) void warm_up(struct bench *bench, unsigned rounds)
{
    run_rounds(bench, rounds);
}

/* What is counted. */
__attribute__((noinline)) void measured(struct bench *bench, unsigned rounds);
void measured(struct bench *bench, unsigned rounds)
{
    __asm__ volatile(""); /* else the compiler would make one function of the two */
    run_rounds(bench, rounds);
}

static void *set_up_client(void *context)
{
    struct bench *bench = context;
    struct mr_options options = {.size = sizeof(options), .session_timeout_ns = (int64_t)MR_HOUR};

    if (mr_connect(bench->path, &options, &bench->client) != MR_OK ||
        mr_counter_open(bench->client, "counter", &bench->counter) != MR_OK ||
        mr_map_open(bench->client, "map", &bench->map) != MR_OK)
        fail(mr_message(bench->client));
    for (unsigned n = 0; n < KEYS; n++) {
        struct mr_bytes key = {bench->keys[n], KEY_BYTES};
        snprintf(bench->keys[n], sizeof(bench->keys[n]), "%016u", n);
        if (mr_map_put(bench->map, key, key, NULL, NULL) != MR_OK)
            fail(mr_message(bench->client));
    }
    for (unsigned n = 0; n < LISTENERS && bench->operation[0] == 'e'; n++) {
        struct mr_event event;
        if (mr_map_events(bench->map, (struct mr_bytes){NULL, 0}, false, &bench->streams[n]) != MR_OK ||
            mr_stream_next(bench->streams[n], MR_FOR_EVER, &event) != MR_OK)
            fail(mr_message(bench->client));
    }
    atomic_store(&bench->setting_up, false);
    return NULL;
}

static void set_up(struct bench *bench)
{
    pthread_t thread;

    snprintf(bench->path, sizeof(bench->path), "/tmp/millrace-instructions-%d.sock", (int)getpid());
    bench->node = fake_node_start(bench->path, &(struct fake_options){.ring_bytes = RING_BYTES});
    fake_node_hold(bench->node);
    start_worker(bench);
    atomic_store(&bench->setting_up, true);
    if (pthread_create(&thread, NULL, set_up_client, bench) != 0)
        fail("no thread");
    run_worker(bench);
    pthread_join(thread, NULL);
    unlink(bench->path);
}

int main(int argc, char **argv)
{
    static struct bench bench;

    if (argc != 4 || strchr("ipge", argv[1][0]) == NULL || atoi(argv[2]) < 1 || atoi(argv[3]) < 1) {
        fprintf(stderr, "usage: millrace-instructions increment|put|get|events DEPTH ROUNDS\n");
        return 2;
    }
    bench.operation = argv[1];
    bench.depth = (unsigned)atoi(argv[2]);
    set_up(&bench);
    unsigned rounds = (unsigned)atoi(argv[3]);
    warm_up(&bench, rounds);
    measured(&bench, rounds);
    printf("%s depth %u: %u commands\n", bench.operation, bench.depth, rounds * bench.depth);
    fflush(stdout);
    _exit(0); /* nothing here is worth an orderly end */
}
