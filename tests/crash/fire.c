/* SPDX-License-Identifier: Apache-2.0 */
/* The fire: SIGKILL, SIGSTOP and SIGTERM at random moments, to whatever of the round is there. A round has a favourite
 * kind of blow, so that each is also met alone, and many in a row. */
#include "tests/crash/round_parts.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/wait.h"

const char *const deed_names[DEED_COUNT] = {
    [KILL_WORKER] = "workers killed",
    [KILL_WORKER_AGAIN] = "recovering workers killed",
    [KILL_CLIENT] = "clients killed",
    [KILL_SNAPSHOT] = "snapshots killed",
    [KILL_SUPERVISOR] = "supervisors killed",
    [KILL_NODE] = "nodes killed at once",
    [KILL_ALL] = "nodes and clients killed at once",
    [STOP_NODE] = "nodes told to stop",
    [STOP_WORKER] = "workers halted",
    [STOP_SUPERVISOR] = "supervisors halted",
    [STOP_CLIENT] = "clients halted",
    [ASK_SNAPSHOT] = "snapshots asked for",
};

/* A random moment is a time and nothing else; the children are looked after all the while. */
static void pass(struct round *round, uint64_t microseconds)
{
    uint64_t end = wait_now_ms() + microseconds / 1000;
    struct timespec rest = {.tv_nsec = (long)(microseconds % 1000) * 1000};

    round_tend(round);
    while (!round->failed && wait_now_ms() < end) {
        wait_pause();
        round_tend(round);
    }
    ppoll(NULL, 0, &rest, NULL);
}

static uint64_t draw_gap(struct round *round)
{
    switch (round_draw(round, 4)) {
    case 0:
        return round_draw(round, 1500);
    case 1:
        return round_draw(round, 60000);
    default:
        return round_draw(round, 15000);
    }
}

static void send_signal(struct round *round, pid_t pid, int number)
{
    if (pid > 0 && kill(pid, number) != 0 && errno != ESRCH)
        round_fail(round, "kill(%d, %d): %s", (int)pid, number, strerror(errno));
}

/* A worker's pid; 0: there is none. */
static pid_t any_worker(struct round *round)
{
    pid_t pids[VICTIM_WORKERS_MAX];
    unsigned count = victim_workers(&round->victim, pids);
    return count == 0 ? 0 : pids[round_draw(round, count)];
}

static bool kill_worker(struct round *round)
{
    pid_t pid = any_worker(round);

    if (pid > 0)
        round_note(round, "worker %d is killed", (int)pid);
    send_signal(round, pid, SIGKILL);
    return pid > 0;
}

static bool kill_worker_again(struct round *round)
{
    bool any = kill_worker(round);

    for (uint64_t i = 1 + round_draw(round, 3); any && i > 0; i--) {
        pass(round, round_draw(round, 6000));
        kill_worker(round);
    }
    return any;
}

static bool kill_client(struct round *round, unsigned number)
{
    struct process_state *client = &round->clients[number];

    if (client->pid == 0)
        return false;
    round_note(round, "client %u, %d, is killed", number, (int)client->pid);
    client->killed = true;
    send_signal(round, client->pid, SIGKILL);
    return true;
}

/* The supervisor, its workers as asked, the clients as asked. */
static bool kill_node(struct round *round, bool workers, bool clients)
{
    pid_t pids[VICTIM_WORKERS_MAX];
    unsigned count = victim_workers(&round->victim, pids);

    if (round->victim.process.pid == 0 || (count == 0 && workers))
        return false;
    round_note(round, "the supervisor is killed%s%s", workers ? ", with all workers" : "",
               clients ? " and all clients" : "");
    round->end_expected = true;
    round->history->node_lives++;
    for (unsigned i = 0; clients && i < round->history->client_count; i++)
        kill_client(round, i);
    if (round_draw(round, 2) == 0)
        send_signal(round, round->victim.process.pid, SIGKILL);
    for (unsigned i = 0; workers && i < count; i++)
        send_signal(round, pids[i], SIGKILL);
    send_signal(round, round->victim.process.pid, SIGKILL);
    return true;
}

/* In the middle of a snapshot: its writer dies, or the worker above it, or all of the node. */
static bool kill_snapshot(struct round *round)
{
    pid_t children[VICTIM_WORKERS_MAX];

    for (uint64_t end = wait_now_ms() + 100; wait_now_ms() < end && !round->failed;) {
        pid_t worker = any_worker(round);
        if (worker > 0 && children_of(worker, children) > 0) {
            pass(round, round_draw(round, 2000));
            round_note(round, "snapshot's writer %d of worker %d is met", (int)children[0], (int)worker);
            uint64_t who = round_draw(round, 4);
            if (who == 0 && round->history->restarts)
                return kill_node(round, true, false);
            send_signal(round, who == 1 ? worker : children[0], SIGKILL);
            return true;
        }
        round_tend(round);
        ppoll(NULL, 0, &(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return false;
}

/* In order; and now and then something dies in the middle of it. */
static bool stop_node(struct round *round)
{
    if (round->victim.process.pid == 0 || (round_draw(round, 4) != 0 && !victim_wait_ready(&round->victim, 1)))
        return false;
    round_note(round, "the node is told to stop");
    round->end_expected = true;
    round->history->node_lives++;
    send_signal(round, round->victim.process.pid, SIGTERM);
    if (round_draw(round, 2) == 0) {
        pass(round, round_draw(round, 4000));
        if (round->victim.process.pid > 0 && round->end_expected)
            (void)(round_draw(round, 2) == 0 ? kill_worker(round) : kill_node(round, false, false));
    }
    return true;
}

/* ---- SIGSTOP ---- */

static bool halt(struct round *round, pid_t pid, const char *what)
{
    for (unsigned i = 0; pid > 0 && i < STOPPED_MAX; i++)
        if (round->stopped[i].pid == 0) {
            round->stopped[i].pid = pid;
            round->stopped[i].until_ms = wait_now_ms() + 1 + round_draw(round, 60);
            round_note(round, "%s %d is halted", what, (int)pid);
            send_signal(round, pid, SIGSTOP);
            return true;
        }
    return false;
}

/* Or the child that writes its snapshot. */
static bool halt_worker(struct round *round)
{
    pid_t children[VICTIM_WORKERS_MAX];
    pid_t worker = any_worker(round);

    if (worker > 0 && round_draw(round, 2) == 0 && children_of(worker, children) > 0)
        return halt(round, children[0], "snapshot's writer");
    return halt(round, worker, "worker");
}

void fire_resume(struct round *round, bool all)
{
    for (unsigned i = 0; i < STOPPED_MAX; i++)
        if (round->stopped[i].pid != 0 && (all || wait_now_ms() >= round->stopped[i].until_ms)) {
            send_signal(round, round->stopped[i].pid, SIGCONT); /* it may have died meanwhile */
            round->stopped[i].pid = 0;
        }
}

/* ---- Blows ---- */

static bool ask_snapshot(struct round *round)
{
    const char *const argv[] = {round->victim.program, "snapshot", "--socket", round->history->socket, NULL};

    if (round->asker.pid != 0)
        return false;
    process_start(&round->asker, argv, NULL);
    return true;
}

static bool strike(struct round *round, enum deed deed)
{
    unsigned client = (unsigned)round_draw(round, round->history->client_count);

    switch (deed) {
    case KILL_WORKER:
        return kill_worker(round);
    case KILL_WORKER_AGAIN:
        return kill_worker_again(round);
    case KILL_CLIENT:
        return kill_client(round, client);
    case KILL_SNAPSHOT:
        return kill_snapshot(round);
    case KILL_SUPERVISOR:
        return round->history->restarts && kill_node(round, false, false);
    case KILL_NODE:
        return round->history->restarts && kill_node(round, true, false);
    case KILL_ALL:
        return round->history->restarts && kill_node(round, true, true);
    case STOP_NODE:
        return round->history->restarts && stop_node(round);
    case STOP_WORKER:
        return halt_worker(round);
    case STOP_SUPERVISOR:
        return halt(round, round->victim.process.pid, "supervisor");
    case STOP_CLIENT:
        return halt(round, round->clients[client].pid, "client");
    case ASK_SNAPSHOT:
        return ask_snapshot(round);
    case DEED_COUNT:
        break;
    }
    return false;
}

void fire(struct round *round)
{
    enum deed favourite = (enum deed)round_draw(round, DEED_COUNT);
    uint64_t zeal = 1 + round_draw(round, 8); /* in 10 blows */

    pass(round, round_draw(round, 60000)); /* now and then before anybody has come far */
    while (!round->failed && wait_now_ms() < round->history->begun_ms + round->history->milliseconds) {
        enum deed deed = round_draw(round, 10) < zeal ? favourite : (enum deed)round_draw(round, DEED_COUNT);
        if (strike(round, deed)) {
            round->result->deeds[deed]++;
            pass(round, draw_gap(round));
        } else {
            pass(round, round_draw(round, 1000)); /* there was nothing to strike */
        }
    }
}
