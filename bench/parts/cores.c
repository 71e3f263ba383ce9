/* SPDX-License-Identifier: Apache-2.0 */
/* Two cores and shared memory: the limit that every exchange between client and worker has, and how near our ring comes
 * to it. Both sides spin on cores of their own. */
#include "bench/parts/parts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ipc/channel.h"
#include "ipc/relax.h"

#define FRAME_BYTES 32
#define RING_BYTES (UINT64_C(1) << 20)
#define ROUNDS_A_LOOK 4096 /* rounds between two looks at the clock */
#define PUBLISH_EVERY 64   /* frames: a client publishes what it has, then looks for answers */

/* ---- a cache line there and back; memcpy ---- */

struct ping_pong {
    _Alignas(CACHE_LINE) _Atomic uint64_t ping;
    _Alignas(CACHE_LINE) _Atomic uint64_t pong;
    _Alignas(CACHE_LINE) _Atomic bool over;
    int core;
};

static void *answer_pings(void *context)
{
    struct ping_pong *line = context;
    uint64_t seen = 0;

    run_on(line->core);
    while (!atomic_load_explicit(&line->over, memory_order_relaxed)) {
        uint64_t ping = atomic_load_explicit(&line->ping, memory_order_acquire);
        if (ping == seen)
            continue;
        seen = ping;
        atomic_store_explicit(&line->pong, ping, memory_order_release);
    }
    return NULL;
}

static double round_trip(const struct parts_options *options)
{
    static struct ping_pong line;
    pthread_t other;
    uint64_t rounds = 0;

    line = (struct ping_pong){.core = options->cores[0]};
    if (pthread_create(&other, NULL, answer_pings, &line) != 0)
        die("no thread");
    run_on(options->cores[1]);
    uint64_t begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9 / 2), now;
    do {
        for (unsigned n = 0; n < ROUNDS_A_LOOK; n++) {
            atomic_store_explicit(&line.ping, ++rounds, memory_order_release);
            while (atomic_load_explicit(&line.pong, memory_order_acquire) != rounds)
                ;
        }
        now = now_ns();
    } while (now < end);
    atomic_store(&line.over, true);
    pthread_join(other, NULL);
    return (double)(now - begun) / (double)rounds;
}

void part_core_to_core(const struct parts_options *options)
{
    report("round trip", round_trip(options), "ns", 0);
    size_t size = 1 << 20;
    uint8_t *from = malloc(size), *to = malloc(size);
    if (from == NULL || to == NULL)
        die("no memory");
    memset(from, 1, size);
    memset(to, 2, size);
    uint64_t begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9 / 2), copies = 0;
    do {
        memcpy(to, from, size);
        __asm__ volatile("" : : "r"(to) : "memory");
        copies++;
    } while (now_ns() < end);
    report("memcpy of 1 MiB", (double)copies * (double)size / (double)(now_ns() - begun), "GB/s", 0);
    free(from);
    free(to);
}

/* ---- the ring ---- */

struct ends {
    struct channel channel;
    struct ring_writer requests;
    struct ring_reader request_reader;
    struct ring_writer responses;
    struct ring_reader response_reader;
    _Atomic bool over;
    _Atomic uint64_t taken;
    uint64_t sum;
    int core;
};

static void make_ends(struct ends *ends, int core)
{
    struct mr_error error;

    memset(ends, 0, sizeof(*ends));
    ends->core = core;
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake < 0 || channel_create(&ends->channel, 1, 1, RING_BYTES, wake, &error) != 0)
        die("no channel");
    struct channel_page *page = ends->channel.page;
    ring_writer_attach(&ends->requests, ends->channel.request_data, RING_BYTES, &page->request, 0, 0);
    ring_reader_attach(&ends->request_reader, ends->channel.request_data, RING_BYTES, &page->request, 0, 0);
    ring_writer_attach(&ends->responses, ends->channel.response_data, RING_BYTES, &page->response, 0, 0);
    ring_reader_attach(&ends->response_reader, ends->channel.response_data, RING_BYTES, &page->response, 0, 0);
}

static void free_ends(struct ends *ends)
{
    close(ends->channel.client_wake_fd);
    channel_unmap(&ends->channel);
}

/* Reads every frame: its first word is added up, so that it is really looked at. */
static void *take_frames(void *context)
{
    struct ends *ends = context;
    struct ring_reader *reader = &ends->request_reader;
    const uint8_t *at;
    uint64_t taken = 0, word;

    run_on(ends->core);
    while (!atomic_load_explicit(&ends->over, memory_order_relaxed)) {
        unsigned n = 0;
        while (n < PUBLISH_EVERY && ring_peek(reader, FRAME_BYTES, &at) == RING_OK) {
            memcpy(&word, at, sizeof(word));
            ends->sum += word;
            ring_skip(reader, FRAME_BYTES);
            n++;
        }
        if (n == 0) {
            relax();
            continue;
        }
        ring_release(reader, reader->head);
        taken += n;
        atomic_store_explicit(&ends->taken, taken, memory_order_relaxed);
    }
    return NULL;
}

static double one_way(const struct parts_options *options)
{
    static struct ends ends;
    pthread_t other;
    uint64_t frame[FRAME_BYTES / 8] = {1, 2, 3, 4};
    uint8_t *at;

    make_ends(&ends, options->cores[0]);
    if (pthread_create(&other, NULL, take_frames, &ends) != 0)
        die("no thread");
    run_on(options->cores[1]);
    uint64_t begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9 / 2), now;
    do {
        for (unsigned n = 0; n < ROUNDS_A_LOOK; n++) {
            if (ring_reserve(&ends.requests, FRAME_BYTES, &at) != RING_OK) {
                ring_publish(&ends.requests);
                relax();
                continue;
            }
            frame[0]++;
            memcpy(at, frame, FRAME_BYTES);
            ring_advance(&ends.requests, FRAME_BYTES);
            if (n % PUBLISH_EVERY == 0)
                ring_publish(&ends.requests);
        }
        now = now_ns();
    } while (now < end);
    double rate = (double)atomic_load(&ends.taken) / (double)(now - begun) * 1e3;
    atomic_store(&ends.over, true);
    pthread_join(other, NULL);
    free_ends(&ends);
    return rate;
}

static void *answer_frames(void *context)
{
    struct ends *ends = context;
    const uint8_t *from;
    uint8_t *to;

    run_on(ends->core);
    while (!atomic_load_explicit(&ends->over, memory_order_relaxed)) {
        if (ring_peek(&ends->request_reader, FRAME_BYTES, &from) != RING_OK)
            continue;
        if (ring_reserve(&ends->responses, FRAME_BYTES, &to) != RING_OK)
            die("the response ring is full");
        memcpy(to, from, FRAME_BYTES);
        ring_advance(&ends->responses, FRAME_BYTES);
        ring_publish(&ends->responses);
        ring_skip(&ends->request_reader, FRAME_BYTES);
        ring_release(&ends->request_reader, ends->request_reader.head);
    }
    return NULL;
}

static double ring_round_trip(const struct parts_options *options)
{
    static struct ends ends;
    pthread_t other;
    uint64_t rounds = 0;
    uint8_t *to;
    const uint8_t *from;

    make_ends(&ends, options->cores[0]);
    if (pthread_create(&other, NULL, answer_frames, &ends) != 0)
        die("no thread");
    run_on(options->cores[1]);
    uint64_t begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9 / 2), now;
    do {
        for (unsigned n = 0; n < ROUNDS_A_LOOK; n++, rounds++) {
            if (ring_reserve(&ends.requests, FRAME_BYTES, &to) != RING_OK)
                die("the request ring is full");
            memset(to, (int)n, FRAME_BYTES);
            ring_advance(&ends.requests, FRAME_BYTES);
            ring_publish(&ends.requests);
            while (ring_peek(&ends.response_reader, FRAME_BYTES, &from) != RING_OK)
                ;
            ring_skip(&ends.response_reader, FRAME_BYTES);
            ring_release(&ends.response_reader, ends.response_reader.head);
        }
        now = now_ns();
    } while (now < end);
    atomic_store(&ends.over, true);
    pthread_join(other, NULL);
    free_ends(&ends);
    return (double)(now - begun) / (double)rounds;
}

void part_ring(const struct parts_options *options)
{
    double bare = round_trip(options);

    report("frames of 32 bytes, one way", one_way(options), "million/s", 0);
    report("frame there and back", ring_round_trip(options), "ns", bare);
}
