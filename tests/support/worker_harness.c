/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/worker_harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/services/types.h"

#define PARTITION_PATH "/partition-0001"

static void closed(void *context, uint32_t slot, uint64_t channel_id, const char *why)
{
    struct harness *harness = context;

    (void)channel_id;
    harness->clients[slot].closed = true;
    snprintf(harness->clients[slot].why, sizeof(harness->clients[slot].why), "%s", why);
    harness->region->channels[slot].channel_id = 0;
}

struct harness *harness_create(uint64_t seed)
{
    struct harness *harness = calloc(1, sizeof(*harness));

    mr_assert(harness != NULL);
    harness->machine = fake_machine_create(seed);
    fake_make_directory(harness->machine, PARTITION_PATH);
    harness->region = calloc(1, sizeof(*harness->region));
    mr_assert(harness->region != NULL);
    harness->max_payload = 2048;
    harness->hash_seed = 7;
    harness->batch_bytes = MR_BATCH_BYTES_MIN;
    harness->segment_bytes = 16 * MR_BATCH_BYTES_MIN;
    harness->session_output_limit = MR_SESSION_OUTPUT_BYTES_DEFAULT;
    return harness;
}

static void notice(void *context, enum logline_level level, const char *text)
{
    struct harness *harness = context;

    snprintf(harness->notice, sizeof(harness->notice), "%s", text);
    if (level == LOGLINE_INFO)
        return;
    snprintf(harness->warning, sizeof(harness->warning), "%s", text);
    harness->warnings++;
}

static int memory_segment(void *context, uint32_t slot, struct mr_error *error)
{
    struct harness *harness = context;

    if (slot < harness->memory_count)
        return harness->memory_segments[slot];
    mr_assert(slot == harness->memory_count);
    if (slot == HARNESS_MEMORY_SEGMENTS)
        return error_set(error, "no more memory segments");
    int file = memfd_create("segment", MFD_CLOEXEC);
    mr_assert(file >= 0 && ftruncate(file, (off_t)harness->segment_bytes) == 0);
    harness->memory_segments[harness->memory_count++] = file;
    return file;
}

struct snapshots_config harness_snapshots(struct harness *harness)
{
    struct snapshots_config config = {
        .place = {.io = harness->io, .path = PARTITION_PATH, .partition = 1, .secret = 42},
        .every = harness->snapshot_bytes,
        .disk_limit = harness->disk_limit};

    if (harness->durability != DURABILITY_MEMORY)
        return config;
    for (unsigned i = 0; i < SNAPSHOTS_KEPT; i++)
        if (harness->memory_snapshots[i] == 0)
            mr_assert((harness->memory_snapshots[i] = memfd_create("snapshot", MFD_CLOEXEC)) > 0);
    config.place.memory = harness->memory_snapshots;
    return config;
}

static int start_log(struct harness *harness)
{
    struct worker *worker = &harness->worker;
    struct log_config log = {
        .io = harness->io,
        .path = PARTITION_PATH,
        .partition = 1,
        .secret = 42,
        .durability = harness->durability,
        .batch_bytes = harness->batch_bytes,
        .segment_bytes = harness->segment_bytes,
        .largest_body = (uint32_t)harness->max_payload,
        .flush_interval = MR_FLUSH_INTERVAL_DEFAULT,
        .memory_segment = memory_segment,
        .memory_slots = harness->memory_count,
        .memory_context = harness,
        .progress = harness->progress,
        .progress_context = harness->progress_context,
    };
    struct fsm_config state = {
        .hash_seed = harness->hash_seed, .session_output_limit = harness->session_output_limit, .types = service_types};

    struct snapshots_config snapshots = harness_snapshots(harness);

    return worker_recover(worker, &log, &snapshots, &state, &harness->found, &harness->error);
}

/* The worker's own mapping and descriptors of a client's channel. */
static void map_for_worker(struct harness *harness, uint32_t slot, struct channel *channel)
{
    const struct channel *of_client = &harness->clients[slot].channel;

    memset(channel, 0, sizeof(*channel));
    mr_assert(channel_map(channel, dup(of_client->memory_fd), dup(of_client->node_wake_fd),
                          dup(of_client->client_wake_fd), 1, of_client->channel_id, of_client->ring_bytes,
                          &harness->error) == 0);
}

int harness_start(struct harness *harness)
{
    struct worker *worker = &harness->worker;
    int result;

    harness->io = fake_io_create(harness->machine);
    if (harness->new_io != NULL)
        harness->new_io(harness->io);
    *worker = (struct worker){.partition = 1,
                              .max_payload = harness->max_payload,
                              .io = harness->io,
                              .region = harness->region,
                              .closed = closed,
                              .closed_context = harness,
                              .notice = notice,
                              .notice_context = harness};
    mr_assert(channels_init(worker, &harness->error) == 0);
    worker->now = harness->io->ops->monotonic(harness->io);
    for (uint32_t slot = 0; slot < HARNESS_CLIENTS; slot++) {
        struct channel channel = harness->clients[slot].channel;
        if (harness->region->channels[slot].channel_id == 0)
            continue;
        map_for_worker(harness, slot, &channel);
        channels_add(worker, slot, &channel);
    }
    result = start_log(harness);
    if (result != 0)
        worker->stopped = harness->error.text;
    worker_resume_channels(worker);
    worker->accepting = true;
    return result;
}

/* What a process's end frees. */
static void bury(struct harness *harness)
{
    struct worker *worker = &harness->worker;

    if (worker->log != NULL)
        log_abandon(worker->log);
    if (worker->fsm != NULL)
        fsm_destroy(worker->fsm);
    for (uint32_t slot = 0; slot < HARNESS_CLIENTS; slot++)
        if (worker->channels[slot].used) {
            close(worker->channels[slot].channel.client_wake_fd);
            channel_unmap(&worker->channels[slot].channel);
        }
    free(worker->query_body);
    channels_free(worker);
    fake_io_destroy(harness->io);
    memset(worker, 0, sizeof(*worker));
    harness->io = NULL;
}

void harness_kill(struct harness *harness)
{
    fake_io_crash_process(harness->io);
    bury(harness);
}

int harness_stop(struct harness *harness)
{
    int result = worker_stop(&harness->worker, NULL, NULL, &harness->error);

    fake_io_crash_process(harness->io);
    bury(harness);
    return result;
}

static void hear_snapshot(void *context, const struct worker_answer *answer)
{
    *(int *)context = (int)answer->status;
}

bool harness_snapshot(struct harness *harness)
{
    struct worker *worker = &harness->worker;
    void (*answered)(void *, const struct worker_answer *) = worker->answered;
    void *answered_context = worker->answered_context;
    int status = -1;

    worker->answered = hear_snapshot;
    worker->answered_context = &status;
    snapshots_ask(worker, &(struct snapshot_question){.number = 1});
    for (int i = 0; i < 100000 && status == -1; i++)
        if (!turn_run(worker))
            harness->io->ops->sleep(harness->io, MR_MILLISECOND);
    worker->answered = answered;
    worker->answered_context = answered_context;
    return status == STATUS_OK;
}

void harness_destroy(struct harness *harness)
{
    if (harness->io != NULL)
        harness_kill(harness);
    for (uint32_t slot = 0; slot < HARNESS_CLIENTS; slot++)
        if (harness->clients[slot].channel.page != NULL) {
            close(harness->clients[slot].channel.client_wake_fd);
            channel_unmap(&harness->clients[slot].channel);
        }
    while (harness->memory_count > 0)
        close(harness->memory_segments[--harness->memory_count]);
    for (unsigned i = 0; i < SNAPSHOTS_KEPT; i++)
        if (harness->memory_snapshots[i] != 0)
            close(harness->memory_snapshots[i]);
    fake_machine_destroy(harness->machine);
    free(harness->region);
    free(harness);
}

struct harness_client *harness_client(struct harness *harness, uint32_t slot, uint32_t uid, uint64_t ring_bytes)
{
    static uint64_t last_id;
    struct harness_client *client = &harness->clients[slot];
    struct channel channel;
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    mr_assert(wake >= 0 && client->channel.page == NULL);
    mr_assert(channel_create(&client->channel, 1, ++last_id, ring_bytes, wake, &harness->error) == 0);
    client->harness = harness;
    client->slot = slot;
    ring_writer_attach(&client->requests, client->channel.request_data, ring_bytes, &client->channel.page->request, 0,
                       0);
    ring_reader_attach(&client->responses, client->channel.response_data, ring_bytes, &client->channel.page->response,
                       0, 0);
    harness->region->channels[slot] = (struct region_channel){.channel_id = last_id, .uid = uid};
    map_for_worker(harness, slot, &channel);
    channels_add(&harness->worker, slot, &channel);
    return client;
}

uint64_t harness_send(struct harness_client *client, enum frame_kind kind, const void *body, size_t size,
                      uint64_t time_limit)
{
    struct request_head head = {.size = (uint32_t)size,
                                .kind = (uint8_t)kind,
                                .flags = client->shares ? REQUEST_SHARES : 0,
                                .time_limit = time_limit};
    uint64_t bytes = request_frame_bytes(size), position = client->requests.tail;
    uint8_t *at;

    if (ring_reserve(&client->requests, bytes, &at) != RING_OK)
        return UINT64_MAX;
    memcpy(at, &head, sizeof(head));
    if (size > 0)
        memcpy(at + sizeof(head), body, size);
    ring_advance(&client->requests, bytes);
    if (ring_publish(&client->requests) && client->harness->io != NULL)
        fake_io_trigger(client->harness->io, client->harness->worker.channels[client->slot].channel.node_wake_fd);
    return position;
}

bool harness_take(struct harness_client *client, struct harness_frame *frame)
{
    const uint8_t *at;

    if (client->given < client->shared.head.others) {
        const struct response_other *other = &client->others[client->given++];
        *frame = client->shared;
        frame->head.request = other->request;
        frame->head.number = other->number;
        return true;
    }
    if (ring_peek(&client->responses, sizeof(frame->head), &at) != RING_OK)
        return false;
    ring_copy(&frame->head, at, sizeof(frame->head));
    uint64_t bytes = response_whole_bytes(&frame->head);
    mr_assert(ring_peek(&client->responses, bytes, &at) == RING_OK);
    size_t size = frame->head.size < sizeof(frame->body) ? frame->head.size : sizeof(frame->body);
    memcpy(frame->body, at + sizeof(frame->head), size);
    mr_assert(frame->head.others <= FRAME_OTHERS_MAX);
    if (frame->head.others > 0) {
        client->shared = *frame;
        client->given = 0;
        memcpy(client->others, at + response_frame_bytes(frame->head.size),
               frame->head.others * sizeof(client->others[0]));
    }
    ring_skip(&client->responses, bytes);
    ring_release(&client->responses, client->responses.head);
    return true;
}

void harness_settle(struct harness *harness)
{
    for (int quiet = 0; quiet < 3;)
        quiet = turn_run(&harness->worker) ? 0 : quiet + 1;
}
