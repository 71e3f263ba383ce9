/* SPDX-License-Identifier: Apache-2.0 */
/* Runs seeds: sim --seeds N [--from SEED] [--jobs N] [--plant FAULT] [--verbose]. Prints seeds a second; every ten
 * seconds how far it is, with the seed to go on from; on the first failure the seed, what was violated and the command
 * that repeats it, and ends with 1. With --plant it is the other way round: 0 if the planted fault was found. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/planted.h"
#include "tests/sim/sim.h"
#include "tests/support/argument.h"

enum { JOBS_MAX = 64, TELL_EVERY = 10, HANGS_AFTER = 60, FOUND = 7 };

static const char *const planted_names[PLANTED_SIMULATED] = {
    [PLANTED_ANSWER_BEFORE_FLUSH] = "ANSWER_BEFORE_FLUSH",
    [PLANTED_NO_DIRECTORY_SYNC] = "NO_DIRECTORY_SYNC",
    [PLANTED_WRONG_TORN_RULE] = "WRONG_TORN_RULE",
    [PLANTED_HEAD_MOVED_EARLY] = "HEAD_MOVED_EARLY",
    [PLANTED_NUMBER_FORGOTTEN] = "NUMBER_FORGOTTEN",
    [PLANTED_STALE_BATCH_BELIEVED] = "STALE_BATCH_BELIEVED",
    [PLANTED_NO_EPOCH_AFTER_FAILURE] = "NO_EPOCH_AFTER_FAILURE",
};

/* jemalloc's: what a seed gives back the next one takes, without the kernel. */
extern const char *malloc_conf;
__attribute__((visibility("default"))) const char *malloc_conf = "dirty_decay_ms:-1,muzzy_decay_ms:-1";

/* What the jobs share. */
struct board {
    _Atomic uint64_t done[JOBS_MAX]; /* seeds */
    _Atomic uint64_t failed;         /* the seed + 1; 0: none */
    _Atomic uint64_t counts[sizeof(((struct sim *)0)->counts) / sizeof(uint64_t)];
};

static struct options {
    uint64_t seeds, from, jobs;
    bool verbose;
} options = {.seeds = 1000, .from = 1, .jobs = 1};

static struct board *board;
static struct sim sim;

_Noreturn void main_failed(void)
{
    if (planted_fault == PLANTED_NOTHING)
        printf("    make simulate SEEDS=1 FROM=%" PRIu64 "        (VERBOSE=1: everything that happens)\n", sim.seed);
    fflush(stdout);
    board->failed = sim.seed + 1;
    _exit(FOUND);
}

static void on_signal(int number)
{
    printf("seed %" PRIu64 ", step %u: %s\n", sim.seed, sim.step,
           number == SIGALRM   ? "it hangs"
           : number == SIGABRT ? "an assertion failed"
                               : "a fault of memory");
    main_failed();
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void run_job(unsigned job)
{
    static const int signals[] = {SIGALRM, SIGABRT, SIGSEGV, SIGBUS, SIGFPE};
    for (unsigned n = 0; n < sizeof signals / sizeof signals[0]; n++)
        signal(signals[n], on_signal);
    for (uint64_t n = job; n < options.seeds; n += options.jobs) {
        alarm(HANGS_AFTER);
        run_seed(&sim, options.from + n, options.verbose);
        board->done[job]++;
        const uint64_t *counts = (const uint64_t *)&sim.counts;
        for (unsigned i = 0; i < sizeof sim.counts / sizeof *counts; i++)
            board->counts[i] += counts[i];
    }
}

static uint64_t seeds_done(void)
{
    uint64_t done = 0;
    for (unsigned job = 0; job < options.jobs; job++)
        done += board->done[job];
    return done;
}

/* All seeds before it are done. */
static uint64_t next_seed(void)
{
    uint64_t least = UINT64_MAX;
    for (unsigned job = 0; job < options.jobs; job++)
        if (board->done[job] * options.jobs + job < least)
            least = board->done[job] * options.jobs + job;
    return options.from + (least < options.seeds ? least : options.seeds);
}

static void stop_all(const pid_t *jobs)
{
    for (unsigned job = 0; job < options.jobs; job++)
        if (jobs[job] > 0)
            kill(jobs[job], SIGKILL);
}

/* True: all went well. */
static bool watch_jobs(pid_t *jobs, double began)
{
    bool well = true;
    double told = began;
    for (unsigned running = (unsigned)options.jobs; running > 0;) {
        int status;
        sigset_t child;
        sigemptyset(&child);
        sigaddset(&child, SIGCHLD);
        pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended == 0) {
            sigtimedwait(&child, NULL, &(struct timespec){.tv_sec = TELL_EVERY});
            if (seconds() - told >= TELL_EVERY) {
                told = seconds();
                printf("%" PRIu64 " seeds, %.0f a second; to go on from here: FROM=%" PRIu64 "\n", seeds_done(),
                       (double)seeds_done() / (told - began), next_seed());
                fflush(stdout);
            }
            continue;
        }
        running--;
        for (unsigned job = 0; job < options.jobs; job++)
            if (jobs[job] == ended)
                jobs[job] = 0;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            continue;
        well = false;
        stop_all(jobs);
    }
    return well;
}

static int usage(void)
{
    fprintf(stderr, "sim --seeds N [--from SEED] [--jobs N] [--plant FAULT] [--verbose]; faults:");
    for (unsigned n = 1; n < PLANTED_SIMULATED; n++)
        fprintf(stderr, " %s", planted_names[n]);
    fprintf(stderr, "\n");
    return 2;
}

static bool read_options(int count, char **arguments)
{
    static const struct option names[] = {{"seeds", 1, NULL, 's'},   {"from", 1, NULL, 'f'},  {"jobs", 1, NULL, 'j'},
                                          {"verbose", 0, NULL, 'v'}, {"plant", 1, NULL, 'p'}, {0}};
    int option;
    while ((option = getopt_long(count, arguments, "", names, NULL)) != -1) {
        unsigned fault = 1;
        if (option == 's')
            options.seeds = argument_number("sim", optarg, ARGUMENT_COUNT_MOST);
        else if (option == 'f')
            options.from = argument_number("sim", optarg, ARGUMENT_COUNT_MOST);
        else if (option == 'j')
            options.jobs = argument_number("sim", optarg, JOBS_MAX);
        else if (option == 'v')
            options.verbose = true;
        else if (option != 'p')
            return false;
        if (option != 'p')
            continue;
        while (fault < PLANTED_SIMULATED && strcmp(planted_names[fault], optarg) != 0)
            fault++;
        if (fault == PLANTED_SIMULATED)
            return false;
        planted_fault = (enum planted_fault)fault;
    }
    return optind == count && options.jobs >= 1;
}

static int tell(bool well, double took)
{
    uint64_t done = seeds_done();
    const _Atomic uint64_t *counts = board->counts;
    printf("%" PRIu64 " seeds in %.1f s, %.0f a second: %" PRIu64 " entries, %" PRIu64 " answers, %" PRIu64
           " recoveries, %" PRIu64 " crashes, %" PRIu64 " power cuts, %" PRIu64 " snapshots, %" PRIu64
           " requests refused, damage reported %" PRIu64 " times, %" PRIu64 " outputs in shared frames\n",
           done, took, (double)done / took, counts[0], counts[1], counts[2], counts[3], counts[4], counts[5], counts[6],
           counts[7], counts[8]);
    if (planted_fault == PLANTED_NOTHING) {
        printf("%s\n", well ? "nothing is wrong" : "FAILED");
        return well ? 0 : 1;
    }
    if (board->failed != 0)
        printf("%s: found by seed %" PRIu64 ", the %" PRIu64 ". of this run\n", planted_names[planted_fault],
               board->failed - 1, done + 1);
    else
        printf("%s: NOT FOUND\n", planted_names[planted_fault]);
    return board->failed != 0 ? 0 : 1;
}

int main(int count, char **arguments)
{
    pid_t jobs[JOBS_MAX];
    sigset_t child;
    if (!read_options(count, arguments))
        return usage();
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    double began = seconds();
    fflush(stdout);
    for (unsigned job = 0; job < options.jobs; job++) {
        jobs[job] = fork();
        if (jobs[job] < 0) {
            perror("fork");
            return 2;
        }
        if (jobs[job] == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            run_job(job);
            exit(0);
        }
    }
    bool well = watch_jobs(jobs, began);
    return tell(well, seconds() - began);
}
