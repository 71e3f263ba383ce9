/* SPDX-License-Identifier: Apache-2.0 */
/* The same commands give the same outputs and the same state, byte for byte: however they are cut into batches, on
 * whatever medium, with large rings or small ones, with a worker that dies in between. The whole state is compared, as
 * the machine writes it out. And the same from one build of Millrace to the next, whatever compiler made it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "tests/support/random.h"
#include "tests/support/worker_scene.h"

#define COMMANDS 400
#define SEEDS 20
/* What the histories of all seeds give together. Where a change of this is meant, a log that was written before means
 * something else now: the directory's format version (engine/node/identity.c) must be raised with it. */
#define DIGEST UINT64_C(0xa878590466f51e51)

/* How one run differs from another. None of it may show. */
struct conditions {
    enum durability durability;
    enum fake_order order;
    uint64_t ring_bytes;
    unsigned at_once;   /* commands sent before the worker is let run */
    unsigned lives;     /* the worker is killed after every so many commands; 0: never */
    uint64_t hash_seed; /* of the state machine's tables */
};

struct outcome {
    uint8_t *outputs[COMMANDS]; /* the frames to each command, one behind the other, without their positions */
    size_t sizes[COMMANDS];
    uint8_t *state;
    size_t state_size;
};

static void add(uint8_t **bytes, size_t *size, const void *data, size_t more)
{
    *bytes = realloc(*bytes, *size + more + 1);
    assert_non_null(*bytes);
    if (more > 0)
        memcpy(*bytes + *size, data, more);
    *size += more;
}

/* The n-th command of the history that `random` makes. */
static void make_command(struct scene *scene, unsigned n, uint64_t *random)
{
    static const char *const keys[] = {"a", "b", "c", "d", "e"};
    const char *key = keys[random_after(random) % 5];
    uint64_t kind = random_after(random) % 16, size = random_after(random) % 600;
    uint64_t number = n + 1;
    static uint8_t value[600];
    struct payload payload = {.size = 0};
    struct duration ttl = {.seconds = (int64_t)(size % 3), .present = size % 3 > 0};

    memset(value, 'a' + (int)(n % 26), sizeof(value));
    switch (kind) {
    case 0:
        payload = events_payload(size % 2 == 0 ? key : "", size % 3 == 0);
        request_command(&scene->request, scene->session, scene->map, number, "Events", payload_slice(&payload));
        return;
    case 1:
        payload = key_payload(key, 0);
        request_command(&scene->request, scene->session, scene->map, number, "Remove", payload_slice(&payload));
        return;
    case 2:
        request_command(&scene->request, scene->session, scene->map, number, size % 5 == 0 ? "Clear" : "NoSuchThing",
                        payload_slice(&payload));
        return;
    case 3:
        request_keep_alive(&scene->request, scene->session, (struct slice){NULL, 0}, number > 50 ? number - 50 : 0,
                           NULL, 0);
        return;
    case 4:
        request_create_service(&scene->request, scene->session, COUNTER_TYPE, "", key);
        return;
    case 5:
    case 6:
    case 7:
    case 8:
        payload = number_payload(size);
        request_command(&scene->request, scene->session, scene->counter, number, "Increment", payload_slice(&payload));
        return;
    default:
        payload = write_payload(key, (struct slice){value, size}, &ttl, 0);
        request_command(&scene->request, scene->session, scene->map, number, "Put", payload_slice(&payload));
    }
}

static void take_all(struct scene *scene, struct outcome *outcome, const uint64_t *positions, unsigned sent)
{
    struct harness_frame frame;

    while (harness_take(scene->client, &frame)) {
        unsigned n = 0;
        while (n < sent && positions[n] != frame.head.request)
            n++;
        assert_true(n < sent);
        frame.head.request = 0;
        add(&outcome->outputs[n], &outcome->sizes[n], &frame.head, sizeof(frame.head));
        add(&outcome->outputs[n], &outcome->sizes[n], frame.body, frame.head.size);
    }
}

static void settle(struct scene *scene, struct outcome *outcome, const uint64_t *positions, unsigned sent)
{
    for (unsigned quiet = 0; quiet < 3;) {
        uint64_t before = scene->client->responses.head;
        harness_settle(scene->harness);
        take_all(scene, outcome, positions, sent);
        quiet = scene->client->responses.head == before ? quiet + 1 : 0;
    }
}

static void write_state(void *context, const void *data, size_t size)
{
    struct outcome *outcome = context;
    add(&outcome->state, &outcome->state_size, data, size);
}

static void run(uint64_t seed, const struct conditions *conditions, struct outcome *outcome)
{
    struct scene scene;
    uint64_t random = seed * UINT64_C(0x9e3779b97f4a7c15), positions[COMMANDS]; /* seeds follow each other */

    *outcome = (struct outcome){.state = NULL};
    scene = (struct scene){.harness = harness_create(seed)};
    scene.harness->durability = conditions->durability;
    scene.harness->hash_seed = conditions->hash_seed;
    scene_start(&scene, conditions->ring_bytes);
    fake_machine_config(scene.harness->machine)->order = conditions->order;
    for (unsigned n = 0; n < COMMANDS; n++) {
        make_command(&scene, n, &random);
        if (scene.request.command.command.kind == COMMAND_KEEP_ALIVE) /* which may only name what has been had */
            settle(&scene, outcome, positions, n);
        while ((positions[n] = scene_send(&scene, FRAME_COMMAND)) == UINT64_MAX)
            settle(&scene, outcome, positions, n);
        if (n % conditions->at_once == 0)
            settle(&scene, outcome, positions, n + 1);
    }
    settle(&scene, outcome, positions, COMMANDS);
    if (conditions->lives > 0) { /* what a successor makes of the log */
        harness_kill(scene.harness);
        assert_int_equal(harness_start(scene.harness), 0);
        harness_settle(scene.harness);
    }
    fsm_dump(scene.harness->worker.fsm, write_state, outcome);
    scene_end(&scene);
}

static uint64_t digest(const struct outcome *outcome, uint64_t before)
{
    for (unsigned n = 0; n < COMMANDS; n++)
        before = XXH3_64bits_withSeed(outcome->outputs[n], outcome->sizes[n], before);
    return XXH3_64bits_withSeed(outcome->state, outcome->state_size, before);
}

static void forget(struct outcome *outcome)
{
    for (unsigned n = 0; n < COMMANDS; n++)
        free(outcome->outputs[n]);
    free(outcome->state);
}

static void conditions_do_not_show(void **state)
{
    static const struct conditions all[] = {
        {DURABILITY_SYNC, FAKE_AT_ONCE, 1024 * 1024, 1, 0, 7},
        {DURABILITY_SYNC, FAKE_AT_ONCE, 1024 * 1024, 400, 0, 8},
        {DURABILITY_ASYNC, FAKE_ANY_ORDER, 64 * 1024, 7, 0, 9},
        {DURABILITY_MEMORY, FAKE_AT_ONCE, 64 * 1024, 50, 0, 7},
        {DURABILITY_SYNC, FAKE_ANY_ORDER, 16 * 1024, 13, 1, 10},
    };

    uint64_t together = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct outcome first, other;
        run(seed, &all[0], &first);
        assert_true(first.state_size > 1000);
        for (size_t i = 1; i < sizeof(all) / sizeof(all[0]); i++) {
            run(seed, &all[i], &other);
            for (unsigned n = 0; n < COMMANDS; n++)
                if (first.sizes[n] != other.sizes[n] ||
                    (first.sizes[n] > 0 && memcmp(first.outputs[n], other.outputs[n], first.sizes[n]) != 0))
                    fail_msg("seed %llu, conditions %zu: command %u is answered otherwise", (unsigned long long)seed, i,
                             n);
            assert_int_equal(other.state_size, first.state_size);
            assert_memory_equal(other.state, first.state, first.state_size);
            forget(&other);
        }
        together = digest(&first, together);
        forget(&first);
    }
    if (together != DIGEST)
        fail_msg("the histories give %#llx, not DIGEST", (unsigned long long)together);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(conditions_do_not_show)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
