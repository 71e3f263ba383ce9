/* SPDX-License-Identifier: Apache-2.0 */
/* A client whose wake-ups take the worker long: they are put off, and come; nobody else's wait. Time in which the
 * worker has no processor is charged to nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "ipc/planted.h"
#include "tests/support/worker_scene.h"

#define STRANGER 2000
#define DEAR (6 * MR_MILLISECOND)

#define STRANGERS 3

/* An honest client in slot 0, a stranger's in the next ones. */
struct bells_scene {
    struct scene scene;
    struct harness_client *strangers[STRANGERS];
    uint64_t processor;        /* that waking one of the stranger's takes */
    uint64_t waited;           /* that waking anybody takes besides, without a processor */
    uint64_t taken;            /* of the worker's processor time, by waking the stranger's */
    uint64_t honest, stranger; /* wake-ups, in all */
};

static struct bells_scene bells;

static int bell_of(const struct harness_client *client)
{
    return client->harness->worker.channels[client->slot].channel.client_wake_fd;
}

static uint64_t wake_takes(void *context, int event, uint64_t *waited)
{
    struct bells_scene *at = context;

    *waited = at->waited;
    if (event == bell_of(at->scene.client)) {
        at->honest++;
        return MR_MICROSECOND;
    }
    at->stranger++;
    at->taken += at->processor;
    return at->processor;
}

static struct worker *worker(void)
{
    return &bells.scene.harness->worker;
}

static uint64_t now(void)
{
    return bells.scene.harness->io->ops->monotonic(bells.scene.harness->io);
}

static int begin(void **state)
{
    (void)state;
    memset(&bells, 0, sizeof(bells));
    planted_fault = PLANTED_NOTHING;
    scene_begin(&bells.scene, DURABILITY_MEMORY, 64 * MR_KIB);
    for (uint32_t i = 0; i < STRANGERS; i++)
        bells.strangers[i] = harness_client(bells.scene.harness, 1 + i, STRANGER, 64 * MR_KIB);
    harness_settle(bells.scene.harness);
    fake_machine_config(bells.scene.harness->machine)->context = &bells;
    fake_machine_config(bells.scene.harness->machine)->wake_takes = wake_takes;
    return 0;
}

static int end(void **state)
{
    (void)state;
    planted_fault = PLANTED_NOTHING;
    scene_end(&bells.scene);
    return 0;
}

/* It sleeps, and is owed an answer: to a command that nobody can carry out. */
static void ask_asleep(struct harness_client *client)
{
    atomic_store(&client->channel.page->response.reader_sleeps, 1);
    assert_int_not_equal(harness_send(client, FRAME_COMMAND, "\xff", 1, 0), UINT64_MAX);
}

static void turns(unsigned count)
{
    while (count-- > 0)
        turn_run(worker());
}

static void read_all(struct harness_client *client)
{
    struct harness_frame frame;

    while (harness_take(client, &frame))
        continue;
}

/* Its wake-up has come without time being let pass for it. */
static bool woken_at_once(struct harness_client *client, const uint64_t *count)
{
    uint64_t before = *count;

    ask_asleep(client);
    turns(4);
    read_all(client);
    return *count == before + 1;
}

/* Until the stranger's wake-ups are put off. */
static void make_dear(void)
{
    bells.processor = DEAR;
    for (unsigned i = 0; i < 20 && woken_at_once(bells.strangers[0], &bells.stranger); i++)
        continue;
    assert_int_equal(worker()->bells.waiting_count, 1);
}

/* As a worker does that has nothing else to do: it sleeps until its next turn is due. */
static void sleep_till_due(void)
{
    uint64_t next = turn_next(worker());

    assert_int_not_equal(next, UINT64_MAX);
    if (next > now())
        fake_machine_advance(bells.scene.harness->machine, next - now());
    turn_run(worker());
}

static void dear_wakes_wait_and_come(void **state)
{
    (void)state;
    make_dear();
    uint64_t before = bells.stranger, due = worker()->bells.due;
    assert_true(due > now());
    assert_int_equal(worker()->channels[bells.strangers[0]->slot].wake_waits, true);
    for (unsigned i = 0; i < 1000 && bells.stranger == before; i++) {
        assert_true(turn_next(worker()) <= due); /* it does not sleep for longer */
        sleep_till_due();
    }
    assert_int_equal(bells.stranger, before + 1);
    assert_true(now() >= due);
    assert_non_null(strstr(bells.scene.harness->warning, "user 2000: waking a client of his took 6000 us"));
    assert_int_equal(bells.scene.harness->warnings, 1);
}

static void nobody_else_waits(void **state)
{
    (void)state;
    make_dear();
    for (unsigned i = 0; i < 20; i++)
        assert_true(woken_at_once(bells.scene.client, &bells.honest));
    assert_int_equal(worker()->bells.waiting_count, 1); /* all the time */
}

/* In the long run, and of it each of his channels gets as much. */
static void all_that_is_his_has_one_share(void **state)
{
    uint64_t woken[2] = {0, 0};

    (void)state;
    make_dear();
    uint64_t began = now(), taken = bells.taken;
    for (unsigned i = 0; woken[0] + woken[1] < 40 && i < 100000; i++) {
        bool waited[2];
        for (unsigned n = 0; n < 2; n++) {
            waited[n] = worker()->channels[1 + n].wake_waits;
            if (!waited[n])
                ask_asleep(bells.strangers[n]);
        }
        sleep_till_due();
        for (unsigned n = 0; n < 2; n++) {
            woken[n] += waited[n] && !worker()->channels[1 + n].wake_waits;
            read_all(bells.strangers[n]);
        }
    }
    assert_int_equal(woken[0] + woken[1], 40);
    assert_in_range(woken[0], 19, 21);
    assert_in_range((now() - began) / (bells.taken - taken), MR_BELL_SHARE * 9 / 10, MR_BELL_SHARE * 11 / 10);
}

/* None of them is dear; all of them together would be. */
static void a_turn_has_not_all_of_his(void **state)
{
    (void)state;
    bells.processor = MR_BELL_USUAL * 9 / 10;
    for (unsigned round = 0; round < 2; round++) {
        uint64_t before = bells.stranger;
        for (unsigned n = 0; n < STRANGERS; n++)
            ask_asleep(bells.strangers[n]);
        turns(2);
        assert_int_equal(bells.stranger - before, round == 0 ? STRANGERS : 2); /* at first nobody is measured */
        assert_true(round == 0 || turn_next(worker()) <= worker()->now);
        turns(1);
        assert_int_equal(bells.stranger - before, STRANGERS);
        for (unsigned n = 0; n < STRANGERS; n++)
            read_all(bells.strangers[n]);
    }
    assert_int_equal(bells.scene.harness->warnings, 0);
}

/* Slow is not dear. */
static void time_without_a_processor_counts_for_nobody(void **state)
{
    (void)state;
    bells.waited = 20 * MR_MILLISECOND;
    bells.processor = MR_MICROSECOND;
    for (unsigned i = 0; i < 20; i++) {
        assert_true(woken_at_once(bells.strangers[0], &bells.stranger));
        assert_true(woken_at_once(bells.scene.client, &bells.honest));
    }
    assert_int_equal(worker()->bells.waiting_count, 0);
    assert_int_equal(bells.scene.harness->warnings, 0);
    assert_int_equal(worker()->bells.user_count, 2); /* they were measured */
}

/* Once, it may have been anything; and what is rare is nobody's fault. */
static void one_dear_wake_is_soon_forgotten(void **state)
{
    (void)state;
    bells.processor = DEAR;
    assert_true(woken_at_once(bells.strangers[0], &bells.stranger)); /* unmeasured */
    for (unsigned i = 0; i < 50; i++) {
        bells.processor = DEAR;
        assert_true(woken_at_once(bells.strangers[0], &bells.stranger));
        bells.processor = MR_MICROSECOND;
        assert_true(woken_at_once(bells.strangers[0], &bells.stranger));
        fake_machine_advance(bells.scene.harness->machine, DEAR * MR_BELL_SHARE);
    }
    assert_int_equal(bells.scene.harness->warnings, 0);
    fake_machine_advance(bells.scene.harness->machine, MR_BELL_WATCHED);
    assert_true(woken_at_once(bells.strangers[0], &bells.stranger));
    assert_int_equal(worker()->bells.user_count, 0);
}

/* A channel that is closed meanwhile is free at once: its client learns it from the supervisor. Had the wake-up not
 * been put off, it would have come first. */
static void a_closed_channel_waits_for_none_that_is_put_off(void **state)
{
    struct harness_client *dear = bells.strangers[0], *client = bells.strangers[1];

    (void)state;
    make_dear();
    uint64_t before = bells.stranger;
    channels_close(worker(), &worker()->channels[dear->slot], "given back");
    assert_int_equal(worker()->bells.waiting_count, 0);
    turns(3);
    assert_true(dear->closed);
    assert_int_equal(bells.stranger, before);
    fake_machine_advance(bells.scene.harness->machine, DEAR * MR_BELL_SHARE);
    turns(1);
    channels_close(worker(), &worker()->channels[client->slot], "given back");
    turns(4);
    assert_true(client->closed);
    assert_int_equal(bells.stranger, before + 1);
}

/* Whoever slept again while his wake-up was on its way, and whose channel is closed then, is woken for that as well. */
static void a_closed_channel_wakes_who_slept_again(void **state)
{
    struct harness_client *client = bells.strangers[0];
    const struct worker_channel *channel = &worker()->channels[client->slot];

    (void)state;
    bells.processor = MR_MICROSECOND;
    uint64_t before = bells.stranger;
    ask_asleep(client);
    for (unsigned i = 0; i < 4 && !channel->wake_started; i++)
        turn_run(worker());
    assert_true(channel->wake_started);
    read_all(client);
    atomic_store(&client->channel.page->response.reader_sleeps, 1);
    channels_close(worker(), &worker()->channels[client->slot], "given back");
    turns(6);
    assert_true(client->closed);
    assert_int_equal(bells.stranger, before + 2);
}

/* What the others would show of a fault. */
static void unpriced_they_come_at_once(void **state)
{
    (void)state;
    planted_fault = PLANTED_BELL_UNPRICED;
    bells.processor = DEAR;
    for (unsigned i = 0; i < 20; i++)
        assert_true(woken_at_once(bells.strangers[0], &bells.stranger));
}

#define ON_BELLS(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BELLS(dear_wakes_wait_and_come),
        ON_BELLS(nobody_else_waits),
        ON_BELLS(all_that_is_his_has_one_share),
        ON_BELLS(a_turn_has_not_all_of_his),
        ON_BELLS(time_without_a_processor_counts_for_nobody),
        ON_BELLS(one_dear_wake_is_soon_forgotten),
        ON_BELLS(a_closed_channel_waits_for_none_that_is_put_off),
        ON_BELLS(a_closed_channel_wakes_who_slept_again),
        ON_BELLS(unpriced_they_come_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
