/* SPDX-License-Identifier: Apache-2.0 */
/* After the fire: everybody finishes, the last look is taken, the node is started anew and looked at again, and
 * stopped; what it left behind is sound, and it has said nothing that it should not have to. */
#include "tests/crash/round_parts.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/wait.h"

static bool writers_done(struct round *round)
{
    for (unsigned i = 0; i < round->history->client_count; i++)
        if (round->history->parts[i].role != LISTENER && !round->history->clients[i].done)
            return false;
    return true;
}

static bool listeners_listen(struct round *round)
{
    const struct history *history = round->history;

    for (unsigned i = 0; i < history->client_count; i++) {
        const struct client *client = &history->clients[i];
        if (history->parts[i].role == LISTENER &&
            client->armed != ((uint64_t)history->generation << 32 | client->lives))
            return false;
    }
    return true;
}

static bool clients_ended(struct round *round)
{
    for (unsigned i = 0; i < round->history->client_count; i++)
        if (round->clients[i].pid > 0 || !round->history->clients[i].done)
            return false;
    return true;
}

static bool looked(struct round *round)
{
    return round->clients[round->history->client_count].pid == 0;
}

static bool node_gone(struct round *round)
{
    return round->victim.process.pid == 0;
}

bool round_node_ready(struct round *round)
{
    return round->victim.process.pid > 0 && victim_wait_ready(&round->victim, 1);
}

static bool look(struct round *round)
{
    round_note(round, "the last look");
    round_start_client(round, round->history->client_count);
    return round_wait(round, looked, "the last look is taken");
}

/* A directory that a node left, in order or not, is sound. Its last processes may hold its lock for a moment yet. */
void settle_directory(struct round *round)
{
    const char *const argv[] = {round->victim.program, "verify", round->victim.dir, NULL};
    struct process_result result;
    uint64_t end = wait_now_ms() + round->wait_ms;

    if (round->history->memory)
        return;
    while ((result = process_run(argv, NULL, NULL, 0, round->wait_ms)).status == 3 && wait_now_ms() < end) {
        process_result_free(&result);
        round_tend(round);
        wait_pause();
    }
    if (result.status != 0)
        round_fail(round, "millrace verify: status %d: %s%s", result.status, result.output, result.error);
    process_result_free(&result);
}

/* Ends the node, in order or not, and starts it anew. */
static bool restart(struct round *round)
{
    bool in_order = round_draw(round, 2) == 0;

    round->end_expected = true;
    round->no_restart = true;
    round->history->node_lives++;
    process_signal(&round->victim.process, in_order ? SIGTERM : SIGKILL);
    round_note(round, in_order ? "a last orderly stop before a look" : "a last kill before a look");
    if (!round_wait(round, node_gone, "the node ends"))
        return false;
    if (in_order && round->node_exit != 0)
        round_fail(round, "an orderly stop, with nothing amiss, ended with status %d", round->node_exit);
    settle_directory(round);
    round->no_restart = false;
    return round_wait(round, round_node_ready, "the node is ready again");
}

static void end_node(struct round *round)
{
    round->end_expected = true;
    round->no_restart = true;
    round_note(round, "the end: an orderly stop");
    process_signal(&round->victim.process, SIGTERM);
    if (round_wait(round, node_gone, "the node ends") && round->node_exit != 0)
        round_fail(round, "the last orderly stop ended with status %d", round->node_exit);
}

void settle(struct round *round)
{
    fire_resume(round, true);
    round_note(round, "the fire ceases");
    if (!round_wait(round, round_node_ready, "the node is ready"))
        return;
    round->history->stop = true;
    if (!round_wait(round, writers_done, "every writer and opener has had all its answers") ||
        !round_wait(round, listeners_listen, "every listener listens") || !look(round) ||
        !round_wait(round, clients_ended, "every listener has had the marker"))
        return;
    if (round->history->restarts && (!restart(round) || !look(round)))
        return;
    end_node(round);
}

/* ---- The node's own words ---- */

void settle_log(struct round *round)
{
    static const char *const bad[] = {
        "damage",           "ssert",  "Sanitizer", "runtime error", "killed the worker twice", "stopped: ",
        "cannot be loaded", "unsound"};
    size_t size = 0;
    char *text = read_file(round->victim.log, &size);

    for (size_t i = 0; text != NULL && i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *at = strstr(text, bad[i]);
        if (at == NULL)
            continue;
        const char *line = at;
        while (line > text && line[-1] != '\n')
            line--;
        round_fail(round, "the node said: %.*s", (int)strcspn(line, "\n"), line);
    }
    free(text);
}
