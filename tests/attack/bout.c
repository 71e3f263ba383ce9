/* SPDX-License-Identifier: Apache-2.0 */
/* A bout from beginning to end: see bout.h. The order is: the node and the honest client; a warm-up of some rounds,
 * after which what the node holds is noted; calm neighbours, who use as much of the processors as the attackers did,
 * and attackers in turn, until all other rounds are over; what the node holds is compared; everybody stops in order,
 * and the directory is sound.
 *
 * What the honest client's latencies are to show is what the node does to it, not whom the kernel gives a processor
 * that all of them want: so all clients are kept off the processor that the worker is pinned to, and the honest one
 * goes before the others on theirs. Each turn of the calm ones is compared with that of the attackers behind it, so
 * that what else the machine does meanwhile is in both. */
#include "tests/attack/bout.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/attack/lives.h"
#include "tests/support/live_node.h"
#include "tests/support/wait.h"

#define LOOK_EVERY_MS 500
#define HONEST_CHANNELS 2 /* its own, and its helper thread's */
#define WARM_UP_ROUNDS 1500
#define WARM_UP_PART 4 /* of a short bout: at most a quarter */
#define ALONE_PART 4   /* of a turn, before it */
/* Heaps do not give everything back: what may be more than after the warm-up. */
#define MORE_BYTES_MAX (48u << 20)

struct bout {
    const struct bout_setup *setup;
    struct bout_result *result;
    struct board *board;
    struct node node;
    char socket_folder[64];
    pid_t supervisor, worker;
    pid_t honest, others[ATTACKERS];
    uint64_t sessions; /* of the honest client */
    unsigned channels;
    unsigned supervisor_fds, worker_fds;   /* before the attack */
    uint64_t anonymous;                    /* bytes, after the warm-up */
    double used[BESIDES], passed[BESIDES]; /* milliseconds, by the others' processes: processor time, and wall */
    bool failed;
};

static void fail_bout(struct bout *bout, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail_bout(struct bout *bout, const char *format, ...)
{
    va_list arguments;

    printf(bout->failed ? "    " : "\nFAILED: ");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
    bout->failed = true;
    atomic_store(&bout->board->stop, true);
}

/* ---- processes ---- */

struct part {
    struct board *board;
    unsigned number;
};

/* The first processor is the worker's; -1: there is no other. */
static int workers_core(void)
{
    cpu_set_t cores;

    if (sched_getaffinity(0, sizeof(cores), &cores) != 0 || CPU_COUNT(&cores) < 2)
        return -1;
    for (unsigned core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &cores))
            return (int)core;
    return -1;
}

static bool leave_workers_core(void)
{
    int core = workers_core();
    cpu_set_t cores;

    if (core < 0 || sched_getaffinity(0, sizeof(cores), &cores) != 0)
        return false;
    CPU_CLR((unsigned)core, &cores);
    return sched_setaffinity(0, sizeof(cores), &cores) == 0;
}

/* It has a processor before all that wait for one in the usual way. False: that is not allowed. */
static bool goes_first(pid_t pid)
{
    const struct sched_param first = {.sched_priority = 1};

    return sched_setscheduler(pid, SCHED_RR, &first) == 0;
}

static int run_attacker(void *argument)
{
    const struct part *part = argument;
    (void)leave_workers_core();
    return attacker_live(part->board, part->number);
}

static int run_calm(void *argument)
{
    const struct part *part = argument;
    (void)leave_workers_core();
    return calm_live(part->board, part->number);
}

static int run_honest(void *argument)
{
    const struct part *part = argument;
    part->board->goes_first = leave_workers_core() && goes_first(0);
    return honest_live(part->board);
}

static int run_clean_up(void *argument)
{
    const struct part *part = argument;
    return attackers_clean_up(part->board);
}

static pid_t start(struct bout *bout, int (*run)(void *), unsigned number)
{
    struct part part = {.board = bout->board, .number = number}; /* the child has a copy */
    return fork_run(run, &part);
}

/* ---- the node, seen from outside ---- */

static void check_node(struct bout *bout)
{
    struct node_partition now = node_partition(&bout->node, 1);

    if (strcmp(now.state, "serving") != 0)
        fail_bout(bout, "partition 1 is %s: %s", now.state, now.reason);
    else if (now.restarts != 0 || now.pid != bout->worker)
        fail_bout(bout, "the worker, %d, has died; another one, %d, serves", (int)bout->worker, (int)now.pid);
}

/* Descriptors that clients can be the cause of: of the log's and snapshots' there are now more, now fewer. */
static unsigned clients_descriptors(pid_t pid)
{
    char path[320], to[128];
    unsigned count = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *listing = opendir(path);
    if (listing == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
        ssize_t size = readlink(path, to, sizeof(to) - 1);
        to[size < 0 ? 0 : size] = '\0';
        count +=
            strstr(to, "socket:") != NULL || strstr(to, "eventfd") != NULL || strstr(to, "millrace-channel") != NULL;
    }
    closedir(listing);
    return count;
}

/* Of memory that supervisor and worker share with nobody. */
static uint64_t anonymous_bytes(const struct bout *bout)
{
    return process_anonymous_bytes(bout->supervisor) + process_anonymous_bytes(bout->worker);
}

static bool is_empty(const struct bout *bout)
{
    struct node_partition now = node_partition(&bout->node, 1);

    return now.channels == bout->channels && now.sessions == bout->sessions;
}

/* Attackers and calm ones are gone: everything that was theirs goes too. */
static void wait_empty(struct bout *bout)
{
    if (bout->failed)
        return;
    if (fork_wait(start(bout, run_clean_up, 0), bout->setup->wait_ms) != 0)
        fail_bout(bout, "after the attackers: %s", bout->board->attackers[0].failure);
    else if (!wait_for(is_empty(bout))) {
        struct node_partition now = node_partition(&bout->node, 1);
        fail_bout(bout,
                  "the attackers are gone, their things are not: %" PRIu64 " channels, not %u, %" PRIu64
                  " sessions, not %" PRIu64,
                  now.channels, bout->channels, now.sessions, bout->sessions);
    }
}

static bool as_before(const struct bout *bout)
{
    return clients_descriptors(bout->supervisor) == bout->supervisor_fds &&
           clients_descriptors(bout->worker) == bout->worker_fds &&
           anonymous_bytes(bout) <= bout->anonymous + MORE_BYTES_MAX;
}

/* With the honest client alone, when the worker has taken all of its channels too: its end of the control socket, and
 * two eventfds for each. Then the lowest of some looks, since our own questions are connections too. */
static void note_descriptors(struct bout *bout)
{
    const unsigned least = 1 + 2 * HONEST_CHANNELS;
    if (!wait_for(clients_descriptors(bout->worker) >= least))
        fail_bout(bout, "the worker has %u descriptors of clients, not the %u of its channels",
                  clients_descriptors(bout->worker), least);
    bout->supervisor_fds = bout->worker_fds = UINT_MAX;
    for (unsigned i = 0; i < 50; i++) {
        unsigned supervisor = clients_descriptors(bout->supervisor), worker = clients_descriptors(bout->worker);
        bout->supervisor_fds = supervisor < bout->supervisor_fds ? supervisor : bout->supervisor_fds;
        bout->worker_fds = worker < bout->worker_fds ? worker : bout->worker_fds;
        wait_pause();
    }
    if (bout->supervisor_fds == 0 || bout->worker_fds == 0)
        fail_bout(bout, "/proc does not say what the node holds");
}

static void compare_holdings(struct bout *bout)
{
    if (bout->failed)
        return;
    if (!wait_for(as_before(bout)))
        fail_bout(
            bout,
            "before the attack the supervisor had %u descriptors of clients, the worker %u; both after the warm-up "
            "%" PRIu64 " bytes; now %u, %u, %" PRIu64,
            bout->supervisor_fds, bout->worker_fds, bout->anonymous, clients_descriptors(bout->supervisor),
            clients_descriptors(bout->worker), anonymous_bytes(bout));
    uint64_t now = anonymous_bytes(bout);
    bout->result->anonymous_bytes = now > bout->anonymous ? now - bout->anonymous : 0;
}

/* ---- the parts of it ---- */

static void begin(struct bout *bout)
{
    char core[16] = "none";
    const char *const options[] = {"--cpus",
                                   core,
                                   "--durability",
                                   bout->setup->durability,
                                   "--socket",
                                   bout->node.socket,
                                   "--socket-mode",
                                   "0666",
                                   "--segment-bytes",
                                   "16M",
                                   "--snapshot-bytes",
                                   "32M",
                                   "--user-channels",
                                   "24",
                                   "--user-connections",
                                   "150",
                                   "--user-sessions",
                                   "400",
                                   "--max-services",
                                   "200",
                                   NULL};
    struct board *board = bout->board;

    if (workers_core() >= 0)
        snprintf(core, sizeof(core), "%d", workers_core());
    strcpy(bout->socket_folder, "/tmp/millrace-attack-XXXXXX");
    if (mkdtemp(bout->socket_folder) == NULL || chmod(bout->socket_folder, 0755) != 0) {
        perror(bout->socket_folder);
        exit(2);
    }
    node_prepare(&bout->node, options);
    snprintf(bout->node.socket, sizeof(bout->node.socket), "%s/socket", bout->socket_folder);
    strcpy(board->socket, bout->node.socket);
    board->seed = bout->setup->seed;
    board->only = bout->setup->only;
    board->wait_ms = bout->setup->wait_ms;
    node_start(&bout->node);
    bout->supervisor = bout->node.process.pid;
    bout->honest = start(bout, run_honest, 0);
    if (!wait_for(atomic_load(&board->honest.ready) && node_partition(&bout->node, 1).channels == HONEST_CHANNELS))
        fail_bout(bout, "the honest client does not come up: %s", board->honest.failure);
    struct node_partition now = node_partition(&bout->node, 1);
    bout->worker = now.pid;
    bout->sessions = now.sessions;
    bout->channels = (unsigned)now.channels;
    if (bout->setup->worker_first && !goes_first(bout->worker))
        fail_bout(bout, "the worker cannot be made to go first");
    note_descriptors(bout);
}

static void check_honest(struct bout *bout)
{
    int status;

    if (bout->honest != 0 && waitpid(bout->honest, &status, WNOHANG) == bout->honest) {
        bout->honest = 0;
        fail_bout(bout, "the honest client has ended: %s", bout->board->honest.failure);
    }
}

/* Processor time of children that have ended, in nanoseconds. */
static double children_time(void)
{
    struct rusage usage;

    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
}

/* From now on the honest client's calls are made beside these; nothing is still being counted elsewhere. */
static void say_beside(struct bout *bout, enum beside beside)
{
    struct board *board = bout->board;

    atomic_store(&board->beside, beside);
    while (!bout->failed && atomic_load(&board->honest.beside) != beside) {
        check_honest(bout);
        wait_pause();
    }
}

/* Starts one process for each attacker and looks after everybody until they end: by themselves, or, in
 * `milliseconds`, told so; then the processors that each has used are board->share. */
static void run_others(struct bout *bout, int (*run)(void *), enum beside beside, unsigned milliseconds)
{
    struct board *board = bout->board;
    uint64_t begun = wait_now_ms(), looked = begun;
    double time_before = children_time();
    unsigned left = ATTACKERS;
    bool calm = run == run_calm;

    if (bout->failed)
        return;
    atomic_store(&board->stop, false);
    say_beside(bout, beside);
    for (unsigned i = 0; i < ATTACKERS; i++)
        bout->others[i] = start(bout, run, i);
    while (left > 0) {
        for (unsigned i = 0; i < ATTACKERS; i++) {
            int status;
            if (bout->others[i] == 0 || waitpid(bout->others[i], &status, WNOHANG) != bout->others[i])
                continue;
            bout->others[i] = 0;
            left--;
            if (status != 0)
                fail_bout(bout, "%s %u: %s (status %x)", calm ? "calm neighbour" : "attacker", i,
                          calm ? board->calm[i].failure : board->attackers[i].failure, (unsigned)status);
        }
        check_honest(bout);
        if (wait_now_ms() - looked >= LOOK_EVERY_MS) {
            looked = wait_now_ms();
            check_node(bout);
            if (!calm && bout->setup->progress != NULL)
                bout->setup->progress(atomic_load(&board->next));
        }
        if (wait_now_ms() - begun >= milliseconds)
            atomic_store(&board->stop, true);
        wait_pause();
    }
    double used = (children_time() - time_before) / 1e6, passed = (double)(wait_now_ms() - begun + 1);
    say_beside(bout, BESIDE_UNCOUNTED);
    if (!calm)
        board->share = used / passed / ATTACKERS;
    bout->used[beside] += used;
    bout->passed[beside] += passed;
    check_node(bout);
}

/* The honest client has its processor for itself. */
static void leave_alone(struct bout *bout, unsigned milliseconds)
{
    uint64_t begun = wait_now_ms();

    say_beside(bout, BESIDE_NOBODY);
    while (!bout->failed && wait_now_ms() - begun < milliseconds) {
        check_honest(bout);
        wait_pause();
    }
    say_beside(bout, BESIDE_UNCOUNTED);
}

/* Rounds up to `end`, or as many as the time allows. */
static void attack(struct bout *bout, uint64_t end, enum beside beside, unsigned milliseconds)
{
    atomic_store(&bout->board->end, end);
    run_others(bout, run_attacker, beside, milliseconds);
    wait_empty(bout);
}

/* What was counted beside these since the last time; its 99th percentile. */
static uint64_t take_latencies(struct bout *bout, enum beside beside)
{
    struct histogram *latency = &bout->board->honest.latency[beside];
    uint64_t p99 = histogram_percentile(latency, 99);

    histogram_merge(&bout->result->latency[beside], latency);
    memset(latency, 0, sizeof(*latency));
    return p99;
}

/* Nobody for a moment, then calm ones and attackers, a turn each. */
static void take_turns(struct bout *bout)
{
    const struct bout_setup *setup = bout->setup;
    struct bout_result *result = bout->result;

    leave_alone(bout, setup->turn_ms / ALONE_PART);
    take_latencies(bout, BESIDE_NOBODY);
    run_others(bout, run_calm, BESIDE_CALM, setup->turn_ms);
    uint64_t calm = take_latencies(bout, BESIDE_CALM);
    atomic_store(&bout->board->slow_ns, 2 * calm);
    attack(bout, setup->end, BESIDE_ATTACK, setup->turn_ms);
    uint64_t attacked = take_latencies(bout, BESIDE_ATTACK);
    if (!bout->failed && calm > 0 && result->turns < TURNS_MAX)
        result->ratios[result->turns++] = (double)attacked / (double)calm;
}

static void end_well(struct bout *bout)
{
    const char *const verify[] = {"verify", bout->node.dir, NULL};
    struct board *board = bout->board;

    if (bout->failed)
        return;
    atomic_store(&board->finish, true);
    int status = fork_wait(bout->honest, bout->setup->wait_ms);
    bout->honest = 0;
    if (status != 0 || !atomic_load(&board->honest.ended))
        fail_bout(bout, "the honest client, at its last look: %s (status %d)", board->honest.failure, status);
    check_node(bout);
    status = node_stop(&bout->node);
    if (status != 0)
        fail_bout(bout, "the node stops with status %d", status);
    if (strcmp(bout->setup->durability, "memory") == 0)
        return; /* what it had is gone with it */
    struct process_result result = node_command(&bout->node, verify);
    if (result.status != 0)
        fail_bout(bout, "millrace verify: status %d: %s%s", result.status, result.output, result.error);
    process_result_free(&result);
}

static void add_up(struct bout *bout)
{
    struct bout_result *result = bout->result;
    const struct board *board = bout->board;

    for (unsigned i = 0; i < ATTACKERS; i++) {
        for (unsigned n = 0; n < ATTACKS_MAX; n++) {
            result->begun[n] += board->attackers[i].begun[n];
            result->closed[n] += board->attackers[i].closed[n];
            result->took[n] += board->attackers[i].took[n];
            result->slow[n] += board->attackers[i].slow[n];
        }
        result->opened += board->attackers[i].opened;
        result->calm_calls += board->calm[i].calls;
    }
    result->calls += board->honest.calls;
    for (unsigned n = 0; n < BESIDES; n++)
        result->share[n] = bout->passed[n] > 0 ? bout->used[n] / bout->passed[n] / ATTACKERS : 0;
    result->goes_first = board->goes_first;
}

static void kill_all(struct bout *bout)
{
    for (unsigned i = 0; i < ATTACKERS; i++)
        if (bout->others[i] > 0) {
            kill(bout->others[i], SIGKILL);
            waitpid(bout->others[i], NULL, 0);
        }
    if (bout->honest > 0) {
        kill(bout->honest, SIGKILL);
        waitpid(bout->honest, NULL, 0);
    }
}

bool bout_run(const struct bout_setup *setup, struct bout_result *result)
{
    struct bout bout = {.setup = setup, .result = result};
    uint64_t rounds = setup->end - setup->first;
    uint64_t warm_up = rounds / WARM_UP_PART < WARM_UP_ROUNDS ? rounds / WARM_UP_PART : WARM_UP_ROUNDS;

    bout.board = mmap(NULL, sizeof(*bout.board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bout.board == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    begin(&bout);
    atomic_store(&bout.board->next, setup->first);
    attack(&bout, setup->first + warm_up, BESIDE_UNCOUNTED, UINT_MAX);
    atomic_store(&bout.board->next, setup->first + warm_up);
    bout.anonymous = anonymous_bytes(&bout);
    while (!bout.failed && atomic_load(&bout.board->next) < setup->end)
        take_turns(&bout);
    compare_holdings(&bout);
    end_well(&bout);
    add_up(&bout);
    kill_all(&bout);
    if (bout.failed) {
        process_end(&bout.node.process);
        printf("    what the node said stands in %s\n", bout.node.log);
    } else {
        node_end(&bout.node);
    }
    (void)unlink(bout.node.socket);
    (void)rmdir(bout.socket_folder);
    munmap(bout.board, sizeof(*bout.board));
    return !bout.failed;
}
