/* SPDX-License-Identifier: Apache-2.0 */
/* See round.h. The fire stands in fire.c, what comes behind it in settle.c. */
#include "tests/crash/round_parts.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/client.h"
#include "tests/support/wait.h"

uint64_t round_draw(struct round *round, uint64_t below)
{
    uint64_t z = round->random += UINT64_C(0x9E3779B97F4A7C15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (z ^ (z >> 31)) % below;
}

void round_fail(struct round *round, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(round->verdict, format, arguments);
    va_end(arguments);
    fputc('\n', round->verdict);
    fflush(round->verdict);
    round->failed = true;
}

void round_note(struct round *round, const char *format, ...)
{
    va_list arguments;

    fprintf(round->deeds, "%6" PRIu64 " ms, moment %7" PRIu64 ": ", wait_now_ms() - round->history->begun_ms,
            round->history->clock);
    va_start(arguments, format);
    vfprintf(round->deeds, format, arguments);
    va_end(arguments);
    fputc('\n', round->deeds);
    fflush(round->deeds);
}

static FILE *round_file(const struct round *round, const char *name, const char *mode)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", round->folder, name);
    FILE *file = fopen(path, mode);
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    return file;
}

/* ---- What the round is made of ---- */

static void draw_parts(struct round *round)
{
    struct history *history = round->history;
    struct part parts[] = {
        {.role = WRITER, .window = 8 + (unsigned)round_draw(round, 40), .sums_only = true, .records = 2500},
        {.role = WRITER, .window = 8, .records = 1200},
        {.role = WRITER, .window = 4, .records = 800, .ring_bytes = 16384},
        {.role = WRITER, .window = 1, .records = 600},
        {.role = WRITER, .window = round_draw(round, 2) == 0 ? 1 : 5, .records = 600, .life = 40},
        {.role = LISTENER, .map = 0, .replay = round_draw(round, 2) == 0},
        {.role = LISTENER, .map = 1, .replay = round_draw(round, 2) == 0},
        {.role = OPENER, .window = 1 + (unsigned)round_draw(round, 24), .records = 500},
    };

    history->client_count = sizeof(parts) / sizeof(parts[0]);
    for (unsigned i = 0; i < history->client_count; i++) {
        parts[i].seed = round_draw(round, UINT64_MAX);
        parts[i].abandon = (unsigned)round_draw(round, 4);
        parts[i].short_lived = round_draw(round, 6) == 0;
        parts[i].replay |= parts[i].short_lived; /* a new stream is told of a marker that stands already */
        parts[i].reconnect_ns = round_draw(round, 4) == 0 ? MR_NO_RECONNECT : 0;
        if (parts[i].role == WRITER && (parts[i].life != 0 || round_draw(round, 3) == 0))
            parts[i].life = 20 + (unsigned)round_draw(round, 200);
        history->parts[i] = parts[i];
    }
    history->parts[history->client_count] = (struct part){.role = LAST_LOOK, .seed = 1};
}

static void draw_node(struct round *round, const struct round_setup *setup)
{
    static const char *const durabilities[] = {"sync", "sync", "sync", "async", "async", "memory"};
    static const char *const segments[] = {"80K", "128K", "256K", "1M"};
    static const char *const snapshots[] = {"64K", "128K", "256K", "1M"};
    static const char *const idles[] = {"adaptive", "block"};
    struct victim *victim = &round->victim;
    const char *durability = durabilities[round_draw(round, 6)];

    round->history->memory = strcmp(durability, "memory") == 0;
    round->history->partitions = 1 + (uint32_t)round_draw(round, 3);
    victim_option(victim, "--durability", "%s", durability);
    victim_option(victim, "--partitions", "%u", round->history->partitions);
    victim_option(victim, "--segment-bytes", "%s", segments[round_draw(round, 4)]);
    victim_option(victim, "--batch-bytes", "%s", "12K");
    victim_option(victim, "--max-payload", "%s", "8K");
    victim_option(victim, "--ring-bytes", "%s", "64K");
    victim_option(victim, "--idle", "%s", idles[round_draw(round, 2)]);
    victim_option(victim, "--cpus", "%s", "none");
    victim_option(victim, "--snapshot-bytes", "%s", snapshots[round_draw(round, 4)]);
    round->history->restarts = setup->node_restarts && round_draw(round, 2) == 0;
}

/* ---- Clients ---- */

static struct {
    struct history *history;
    unsigned number;
} to_live;

static int live(void *argument)
{
    (void)argument;
    return client_live(to_live.history, to_live.number);
}

void round_start_client(struct round *round, unsigned number)
{
    to_live.history = round->history;
    to_live.number = number;
    round->clients[number] = (struct process_state){.pid = fork_run(live, NULL)};
    round->result->client_lives++;
}

static void client_ended(struct round *round, unsigned number, int status)
{
    struct client *client = &round->history->clients[number];
    struct process_state *state = &round->clients[number];
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && state->killed;

    state->pid = 0;
    if (client->failed)
        round_fail(round, "client %u (life %u): %s", number, client->lives, client->failure);
    else if (!killed && status != 0)
        round_fail(round, "client %u ended with %s %d while %s", number, WIFSIGNALED(status) ? "signal" : "status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), client->doing);
    else if (!client->done && number < round->history->client_count)
        round_start_client(round, number);
}

/* ---- Looking after them all ---- */

static void tend_node(struct round *round)
{
    int status;

    if (victim_ended(&round->victim, &status)) {
        if (!round->end_expected)
            round_fail(round, "the node ended by itself, with %s %d", WIFSIGNALED(status) ? "signal" : "status",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        round_note(round, "the node has ended");
        round->history->node_lives++;
        round->node_exit = status;
        round->start_at = wait_now_ms() + (round_draw(round, 2) == 0 ? 0 : round_draw(round, 20));
    }
    if (round->victim.process.pid == 0 && !round->no_restart && wait_now_ms() >= round->start_at) {
        if (round->history->memory)
            round->history->generation++;
        round->end_expected = false;
        victim_start(&round->victim);
        round->result->node_lives++;
        round_note(round, "the node starts, supervisor %d", (int)round->victim.process.pid);
    }
}

void round_tend(struct round *round)
{
    for (unsigned i = 0; i <= round->history->client_count; i++) {
        int status;
        if (round->clients[i].pid > 0 && waitpid(round->clients[i].pid, &status, WNOHANG) == round->clients[i].pid)
            client_ended(round, i, status);
    }
    if (round->asker.pid > 0 && process_wait(&round->asker, 0) != -1)
        process_end(&round->asker);
    tend_node(round);
    fire_resume(round, false);
}

/* Where a process stands, if there is a debugger to say so: appended to FOLDER/stacks. */
static void note_stacks(struct round *round, pid_t pid)
{
    char number[16];
    const char *const argv[] = {"gdb", "-p", number, "-batch", "-ex", "thread apply all backtrace", NULL};

    snprintf(number, sizeof(number), "%d", (int)pid);
    struct process_result result = process_run(argv, NULL, NULL, 0, 20000);
    FILE *file = round_file(round, "stacks", "a");
    fprintf(file, "---- %d\n%s\n", (int)pid, result.output);
    fclose(file);
    process_result_free(&result);
}

/* What was waited for did not come. */
static void say_who_is_late(struct round *round)
{
    pid_t pids[VICTIM_WORKERS_MAX];
    unsigned count = victim_workers(&round->victim, pids);

    for (unsigned i = 0; i <= round->history->client_count; i++)
        if (round->clients[i].pid > 0) {
            round_fail(round, "    client %u (life %u, pid %d) is %s", i, round->history->clients[i].lives,
                       (int)round->clients[i].pid, round->history->clients[i].doing);
            note_stacks(round, round->clients[i].pid);
        }
    if (round->victim.process.pid > 0)
        note_stacks(round, round->victim.process.pid);
    for (unsigned i = 0; i < count; i++)
        note_stacks(round, pids[i]);
}

bool round_wait(struct round *round, bool (*condition)(struct round *), const char *what)
{
    uint64_t end = wait_now_ms() + round->wait_ms;

    while (!round->failed && !condition(round)) {
        if (wait_now_ms() >= end) {
            round_fail(round, "in %u ms not: %s", round->wait_ms, what);
            say_who_is_late(round);
            break;
        }
        round_tend(round);
        wait_pause();
    }
    return !round->failed;
}

/* ---- All of it ---- */

static void set_up(struct round *round, const struct round_setup *setup)
{
    struct victim *victim = &round->victim;
    char path[256];

    round->random = setup->seed * UINT64_C(0x9E3779B97F4A7C15) + setup->number;
    round->wait_ms = setup->wait_ms;
    round->folder = setup->folder;
    round->verdict = round_file(round, "verdict", "w");
    round->deeds = round_file(round, "deeds", "w");
    snprintf(path, sizeof(path), "%s/history", setup->folder);
    if ((round->history = history_create(path)) == NULL)
        exit(2);
    snprintf(victim->program, sizeof(victim->program), "%s", setup->program);
    snprintf(victim->dir, sizeof(victim->dir), "%s/data", setup->folder);
    snprintf(victim->log, sizeof(victim->log), "%s/log", setup->folder);
    snprintf(round->planted, sizeof(round->planted), "MR_PLANTED=%s", setup->planted ? setup->planted : "");
    victim->planted = setup->planted != NULL ? round->planted : NULL;
    snprintf(round->history->socket, sizeof(round->history->socket), "%s/data/millrace.sock", setup->folder);
    draw_node(round, setup);
    draw_parts(round);
    round->history->milliseconds = 250 + round_draw(round, 500);
    for (unsigned i = 0; i < victim->option_count; i += 2)
        fprintf(round->deeds, "%s %s ", victim->option_text[i], victim->option_text[i + 1]);
    fputc('\n', round->deeds);
}

/* Ends what is left, which after a failure may be much. */
static void tear_down(struct round *round)
{
    pid_t pids[VICTIM_WORKERS_MAX];
    unsigned count = victim_workers(&round->victim, pids);

    for (unsigned i = 0; i <= round->history->client_count; i++)
        if (round->clients[i].pid > 0) {
            kill(round->clients[i].pid, SIGKILL);
            waitpid(round->clients[i].pid, NULL, 0);
        }
    process_end(&round->asker);
    process_end(&round->victim.process);
    for (unsigned i = 0; i < count; i++)
        while (kill(pids[i], 0) == 0) /* they die with the supervisor, but a moment later */
            wait_pause();
}

static void print_history(struct round *round)
{
    FILE *file = round_file(round, "history.txt", "w");

    history_print(round->history, file);
    fclose(file);
}

bool round_run(const struct round_setup *setup, struct round_result *result)
{
    struct round *round = calloc(1, sizeof(*round));

    if (round == NULL)
        exit(2);
    round->result = result;
    set_up(round, setup);
    victim_start(&round->victim);
    result->node_lives++;
    /* It may also die while it makes its directory. */
    if ((round->history->restarts && round_draw(round, 3) == 0) ||
        round_wait(round, round_node_ready, "the node is ready for the first time")) {
        round->history->begun_ms = wait_now_ms();
        for (unsigned i = 0; i < round->history->client_count; i++)
            round_start_client(round, i);
        fire(round);
        if (!round->failed)
            settle(round);
    }
    bool quiet = !round->failed;
    tear_down(round);
    settle_log(round);
    if (quiet) {
        settle_directory(round);
        if (!check_round(round->history, round->verdict, &result->tally))
            round->failed = true;
    }
    if (round->failed)
        print_history(round);
    bool well = !round->failed;
    fclose(round->verdict);
    fclose(round->deeds);
    history_close(round->history);
    free(round);
    return well;
}
