/* SPDX-License-Identifier: Apache-2.0 */
/* make crash: a real node and its clients, killed and halted at random, round after round; after each everything that
 * was answered is checked (check.h). Each round runs in a process of its own and a folder of its own, which is removed
 * unless the round failed.
 *
 * Exit status: 0 all rounds are well; 1 one was not; 2 usage, or the machine refused. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/round.h"
#include "tests/support/argument.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#define JOBS_MAX 16
#define SAY_EVERY_MS 15000

static struct {
    uint64_t rounds, seed, from;
    unsigned jobs, wait_ms;
    const char *folder, *program, *planted;
    bool workers_only, go_on;
} options = {.rounds = 5, .seed = 1, .from = 1, .jobs = 1};

struct job {
    pid_t pid; /* 0: free */
    uint64_t round;
    uint64_t end_ms; /* it is given up then */
    char folder[200];
    struct round_result *result; /* shared with it */
};

static struct job jobs[JOBS_MAX];
static struct round_result totals;
static uint64_t finished, failed, started_ms;

static void usage(FILE *to)
{
    fputs("usage: crash [--rounds N] [--seed N] [--from ROUND] [--jobs N] [--wait SECONDS] [--folder DIR]\n"
          "             [--workers-only] [--go-on] [--planted FAULT] [--node PROGRAM]\n"
          "  --from          the first round; a seed's rounds are numbered from 1\n"
          "  --jobs          rounds side by side\n"
          "  --wait          how long to wait for what must come\n"
          "  --folder        where what a failed round leaves is kept\n"
          "  --workers-only  the supervisor is left alive\n"
          "  --go-on         also after a round that failed\n"
          "  --planted       a fault of ipc/planted.h, which must be found\n"
          "  --node          the millrace to try, built for tests; else the environment's MILLRACE_BIN\n",
          to);
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"rounds", required_argument, NULL, 'r'},  {"seed", required_argument, NULL, 's'},
        {"from", required_argument, NULL, 'f'},    {"jobs", required_argument, NULL, 'j'},
        {"wait", required_argument, NULL, 'w'},    {"folder", required_argument, NULL, 'd'},
        {"workers-only", no_argument, NULL, 'o'},  {"go-on", no_argument, NULL, 'g'},
        {"planted", required_argument, NULL, 'p'}, {"node", required_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    int letter;

    options.wait_ms = WAIT_MS;
    options.program = getenv("MILLRACE_BIN");
    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (letter) {
        case 'r':
            options.rounds = argument_number("crash", optarg, ARGUMENT_COUNT_MOST);
            break;
        case 's':
            options.seed = argument_number("crash", optarg, UINT64_MAX);
            break;
        case 'f':
            options.from = argument_number("crash", optarg, ARGUMENT_COUNT_MOST);
            break;
        case 'j':
            options.jobs = (unsigned)argument_number("crash", optarg, JOBS_MAX);
            break;
        case 'w':
            options.wait_ms = (unsigned)argument_number("crash", optarg, ARGUMENT_SECONDS_MOST) * 1000;
            break;
        case 'd':
            options.folder = optarg;
            break;
        case 'o':
            options.workers_only = true;
            break;
        case 'g':
            options.go_on = true;
            break;
        case 'p':
            options.planted = optarg;
            break;
        case 'n':
            options.program = optarg;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            exit(2);
        }
    }
    if (optind != argc || options.program == NULL || options.jobs < 1) {
        usage(stderr);
        exit(2);
    }
}

/* ---- Rounds ---- */

static _Noreturn void run_round(const struct job *job, pid_t parent)
{
    struct round_setup setup = {.seed = options.seed,
                                .number = job->round,
                                .folder = job->folder,
                                .program = options.program,
                                .planted = options.planted,
                                .wait_ms = options.wait_ms,
                                .node_restarts = !options.workers_only};

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(2);
    _exit(round_run(&setup, job->result) ? 0 : 1);
}

static void start(struct job *job, uint64_t round)
{
    pid_t parent = getpid();

    job->round = round;
    job->end_ms = wait_now_ms() + 12 * (uint64_t)options.wait_ms;
    snprintf(job->folder, sizeof(job->folder), "%s/seed-%" PRIu64 "-round-%" PRIu64, options.folder, options.seed,
             round);
    memset(job->result, 0, sizeof(*job->result));
    if (access(job->folder, F_OK) == 0)
        temp_dir_remove(strdup(job->folder)); /* of a run before */
    if (mkdir(job->folder, 0700) != 0) {
        perror(job->folder);
        exit(2);
    }
    fflush(NULL);
    job->pid = fork();
    if (job->pid < 0) {
        perror("fork");
        exit(2);
    }
    if (job->pid == 0)
        run_round(job, parent);
}

static void add_up(const struct round_result *result)
{
    for (unsigned i = 0; i < DEED_COUNT; i++)
        totals.deeds[i] += result->deeds[i];
    totals.node_lives += result->node_lives;
    totals.client_lives += result->client_lives;
    totals.tally.operations += result->tally.operations;
    totals.tally.unanswered += result->tally.unanswered;
    totals.tally.events += result->tally.events;
    totals.tally.sessions += result->tally.sessions;
    totals.tally.objects += result->tally.objects;
    totals.tally.configurations += result->tally.configurations;
}

static void show_verdict(const struct job *job, int status)
{
    char path[256];
    char line[1024];

    printf("\nround %" PRIu64 " of seed %" PRIu64 " FAILED", job->round, options.seed);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
        printf(" (%s %d)", WIFSIGNALED(status) ? "its process ended with signal" : "its process's status",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    printf(":\n");
    snprintf(path, sizeof(path), "%s/verdict", job->folder);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        printf("    %s", line);
    if (file != NULL)
        fclose(file);
    printf("kept in %s: history.txt, deeds, the node's log, its data, stacks of who was late\n", job->folder);
    printf("to repeat, as far as real processes do: make crash SEED=%" PRIu64 " FROM=%" PRIu64 " ROUNDS=1",
           options.seed, job->round);
    if (options.workers_only || options.planted != NULL)
        printf(" CRASH_OPTIONS='%s%s%s'", options.workers_only ? "--workers-only" : "",
               options.planted != NULL ? " --planted " : "", options.planted != NULL ? options.planted : "");
    printf("\n\n");
}

static void finish(struct job *job, int status)
{
    job->pid = 0;
    finished++;
    add_up(job->result);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        temp_dir_remove(strdup(job->folder));
        return;
    }
    failed++;
    show_verdict(job, status);
}

/* The first round that is not finished: where to go on. */
static uint64_t unfinished(uint64_t next)
{
    for (unsigned i = 0; i < options.jobs; i++)
        if (jobs[i].pid != 0 && jobs[i].round < next)
            next = jobs[i].round;
    return next;
}

static void say_progress(uint64_t next)
{
    uint64_t passed = wait_now_ms() - started_ms;

    printf("%" PRIu64 " of %" PRIu64 " rounds, %" PRIu64 ".%" PRIu64 " a second, %" PRIu64
           " failed; to go on: SEED=%" PRIu64 " FROM=%" PRIu64 "\n",
           finished, options.rounds, finished * 1000 / (passed + 1), finished * 10000 / (passed + 1) % 10, failed,
           options.seed, unfinished(next));
    fflush(stdout);
}

static void say_totals(void)
{
    printf("%" PRIu64 " lives of nodes, %" PRIu64 " of clients;", totals.node_lives, totals.client_lives);
    for (unsigned i = 0; i < DEED_COUNT; i++)
        printf(" %" PRIu64 " %s%s", totals.deeds[i], deed_names[i], i + 1 < DEED_COUNT ? "," : "\n");
    printf("%" PRIu64 " operations (%" PRIu64 " never answered), %" PRIu64 " events, %" PRIu64 " sessions, %" PRIu64
           " objects linearized in %" PRIu64 " configurations\n",
           totals.tally.operations, totals.tally.unanswered, totals.tally.events, totals.tally.sessions,
           totals.tally.objects, totals.tally.configurations);
}

static void tend(struct job *job)
{
    int status;

    if (job->pid == 0)
        return;
    pid_t pid = waitpid(job->pid, &status, WNOHANG);
    if (pid == job->pid)
        finish(job, status);
    else if (wait_now_ms() >= job->end_ms)
        kill(job->pid, SIGKILL); /* what it started dies with it */
}

static void run_all(void)
{
    uint64_t next = options.from;
    uint64_t said_ms = started_ms;
    bool busy = true;

    while (busy) {
        busy = false;
        for (unsigned i = 0; i < options.jobs; i++) {
            tend(&jobs[i]);
            if (jobs[i].pid == 0 && (failed == 0 || options.go_on) && next < options.from + options.rounds)
                start(&jobs[i], next++);
            busy |= jobs[i].pid != 0;
        }
        if (wait_now_ms() - said_ms >= SAY_EVERY_MS) {
            said_ms = wait_now_ms();
            say_progress(next);
        }
        wait_pause();
    }
}

int main(int argc, char **argv)
{
    char *made = NULL;

    read_options(argc, argv);
    if (options.folder == NULL)
        options.folder = made = temp_dir_make();
    for (unsigned i = 0; i < options.jobs; i++) {
        jobs[i].result =
            mmap(NULL, sizeof(struct round_result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (jobs[i].result == MAP_FAILED) {
            perror("mmap");
            return 2;
        }
    }
    started_ms = wait_now_ms();
    run_all();
    say_totals();
    printf("%" PRIu64 " of %" PRIu64 " rounds of seed %" PRIu64 " from %" PRIu64 " on, %" PRIu64 " failed\n", finished,
           options.rounds, options.seed, options.from, failed);
    if (failed == 0)
        temp_dir_remove(made);
    return failed == 0 && finished == options.rounds ? 0 : 1;
}
