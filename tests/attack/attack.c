/* SPDX-License-Identifier: Apache-2.0 */
/* make attack: hostile clients with the real descriptors against a real node, round after round, each round one
 * attack; an honest client beside them gets exact answers, and the node never notices (bout.h says what is checked).
 * Rounds are numbered from 1; a seed and a number say which attack it is and how it is made, while when it happens is
 * the machine's affair.
 *
 * The mix: three rounds of four leave the channel open (words that nobody believes, bodies of all kinds, frames that
 * are refused), so that many follow each other at what the ring can take; the fourth breaks it, which costs a new
 * hand-shake. One of fifteen is about descriptors or the hand-shake itself, and a few of a thousand go up to a limit.
 * Weights stand beside the attacks.
 *
 * Exit status: 0 all is well; 1 something was not; 2 usage, or the machine refused. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/attack/attacker.h"
#include "tests/attack/bout.h"
#include "tests/support/argument.h"
#include "tests/support/wait.h"

#define SAY_EVERY_MS 15000

static const char *const durabilities[] = {"memory", "sync"};

static struct {
    uint64_t rounds, seed, from, bout;
    unsigned wait_ms, turn_ms;
    const char *planted, *only;
    bool table, worker_first;
} options = {.rounds = 20000, .seed = 1, .from = 1, .bout = 50000, .turn_ms = 500};

static struct bout_result totals;
static uint64_t started_ms, said_ms;

static void usage(FILE *to)
{
    fputs(
        "usage: attack [--rounds N] [--seed N] [--from ROUND] [--bout ROUNDS] [--wait SECONDS] [--turn MILLISECONDS]\n"
        "              [--worker-first] [--only NAME] [--table] [--planted FAULT]\n"
        "  --bout     rounds on one node; with the next ones it is another, in `memory` and `sync` in turn\n"
        "  --wait     how long to wait for what must come\n"
        "  --turn     how long attackers and well-behaved clients have their turns\n"
        "  --worker-first\n"
        "             the worker has its processor before anybody else, for machines that do other things, too;\n"
        "             in `sync` only with TMPDIR in memory, or what the kernel does for the disk waits behind it\n"
        "  --only     attacks whose name contains this; the others are left out\n"
        "  --table    prints how often each attack was made, and beside it how many calls of the honest client took\n"
        "             over twice their p99 beside calm ones\n"
        "  --planted  a fault of ipc/planted.h, which must be found\n"
        "The node is the one that MILLRACE_BIN names.\n",
        to);
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"rounds", required_argument, NULL, 'r'}, {"seed", required_argument, NULL, 's'},
        {"from", required_argument, NULL, 'f'},   {"bout", required_argument, NULL, 'b'},
        {"wait", required_argument, NULL, 'w'},   {"turn", required_argument, NULL, 'u'},
        {"worker-first", no_argument, NULL, 'k'}, {"table", no_argument, NULL, 't'},
        {"only", required_argument, NULL, 'o'},   {"planted", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    int letter;

    options.wait_ms = 2 * WAIT_MS;
    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (letter) {
        case 'r':
            options.rounds = argument_number("attack", optarg, ARGUMENT_COUNT_MOST);
            break;
        case 's':
            options.seed = argument_number("attack", optarg, UINT64_MAX);
            break;
        case 'f':
            options.from = argument_number("attack", optarg, ARGUMENT_COUNT_MOST);
            break;
        case 'b':
            options.bout = argument_number("attack", optarg, ARGUMENT_COUNT_MOST);
            break;
        case 'w':
            options.wait_ms = (unsigned)argument_number("attack", optarg, ARGUMENT_SECONDS_MOST) * 1000;
            break;
        case 'u':
            options.turn_ms = (unsigned)argument_number("attack", optarg, ARGUMENT_MILLISECONDS_MOST);
            break;
        case 'k':
            options.worker_first = true;
            break;
        case 'o':
            options.only = optarg;
            break;
        case 't':
            options.table = true;
            break;
        case 'p':
            options.planted = optarg;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            exit(2);
        }
    }
    if (optind != argc || options.from < 1 || options.bout < 1 || options.turn_ms < 1 ||
        getenv("MILLRACE_BIN") == NULL) {
        usage(stderr);
        exit(2);
    }
}

static void say_progress(uint64_t next)
{
    uint64_t passed = wait_now_ms() - started_ms, end = options.from + options.rounds;

    if (wait_now_ms() - said_ms < SAY_EVERY_MS || next >= end)
        return;
    said_ms = wait_now_ms();
    printf("%" PRIu64 " of %" PRIu64 " rounds, %" PRIu64 " a second; to go on: make attack SEED=%" PRIu64
           " FROM=%" PRIu64 " ROUNDS=%" PRIu64 "\n",
           next - options.from, options.rounds, (next - options.from) * 1000 / (passed + 1), options.seed, next,
           end - next);
    fflush(stdout);
}

static void say_latency(const char *what, const struct bout_result *result, enum beside beside)
{
    const struct histogram *histogram = &result->latency[beside];

    printf("    beside %-15s %9" PRIu64 " increments, p50 %8.1f us, p99 %8.1f us, longest %8.1f ms", what,
           histogram->count, (double)histogram_percentile(histogram, 50) / 1e3,
           (double)histogram_percentile(histogram, 99) / 1e3, (double)histogram->max / 1e6);
    if (result->share[beside] > 0)
        printf("; each used %.2f of a processor", result->share[beside]);
    putchar('\n');
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;

    return (a > b) - (a < b);
}

static void say_ratios(struct bout_result *result)
{
    uint64_t calm = histogram_percentile(&result->latency[BESIDE_CALM], 99);
    uint64_t attacked = histogram_percentile(&result->latency[BESIDE_ATTACK], 99);
    unsigned turns = result->turns;

    if (turns == 0)
        return;
    qsort(result->ratios, turns, sizeof(result->ratios[0]), compare);
    printf(
        "    p99 beside the attackers is %.2f of that beside calm ones; of %u turns each, half are from %.2f to %.2f, "
        "the median is %.2f\n",
        calm > 0 ? (double)attacked / (double)calm : 0.0, turns, result->ratios[turns / 4],
        result->ratios[turns * 3 / 4], result->ratios[turns / 2]);
}

static void say_bout(struct bout_result *result, const char *durability)
{
    printf("%s: the honest client, %" PRIu64 " increments, all exact; the node's memory grew by %" PRIu64 " KiB%s\n",
           durability, result->calls, result->anonymous_bytes / 1024,
           result->goes_first ? "" : "; it and the others run where the kernel likes, and the times say little");
    say_latency("attackers", result, BESIDE_ATTACK);
    say_latency("calm neighbours", result, BESIDE_CALM);
    say_latency("nobody", result, BESIDE_NOBODY);
    say_ratios(result);
    fflush(stdout);
}

static void add_up(const struct bout_result *result)
{
    for (unsigned i = 0; i < ATTACKS_MAX; i++) {
        totals.begun[i] += result->begun[i];
        totals.closed[i] += result->closed[i];
        totals.took[i] += result->took[i];
        totals.slow[i] += result->slow[i];
    }
    totals.opened += result->opened;
    totals.calls += result->calls;
    totals.calm_calls += result->calm_calls;
}

static void say_totals(void)
{
    uint64_t begun = 0, closed = 0;

    for (unsigned i = 0; attack_numbered(i) != NULL; i++) {
        begun += totals.begun[i];
        closed += totals.closed[i];
        if (options.table)
            printf("%9" PRIu64 "  %-32s %9" PRIu64 " channels closed %9" PRIu64 " us each %9" PRIu64 " slow calls\n",
                   totals.begun[i], attack_numbered(i)->name, totals.closed[i], totals.took[i] / (totals.begun[i] + 1),
                   totals.slow[i]);
    }
    printf("%" PRIu64 " attacks, %" PRIu64 " channels opened, %" PRIu64
           " closed by the node with the right reason; %" PRIu64 " increments of the honest client, all exact\n",
           begun, totals.opened, closed, totals.calls);
}

static void say_how_to_repeat(uint64_t first, uint64_t end, const char *durability)
{
    printf("    in rounds %" PRIu64 " to %" PRIu64
           " in %s; to repeat, as far as real processes do: make attack SEED=%" PRIu64 " FROM=%" PRIu64
           " ROUNDS=%" PRIu64 " BOUT=%" PRIu64,
           first, end - 1, durability, options.seed, first, end - first, options.bout);
    if (options.planted != NULL || options.only != NULL)
        printf(" ATTACK_OPTIONS='%s%s%s%s%s%s'", options.planted != NULL ? "--planted " : "",
               options.planted != NULL ? options.planted : "",
               options.planted != NULL && options.only != NULL ? " " : "", options.only != NULL ? "--only \"" : "",
               options.only != NULL ? options.only : "", options.only != NULL ? "\"" : "");
    printf("\n\n");
}

/* Rounds from `first` on: one bout, up to where the next begins. */
static uint64_t run_bout(uint64_t first, bool *well)
{
    uint64_t which = (first - 1) / options.bout, end = (which + 1) * options.bout + 1;
    const char *durability = durabilities[which % 2];
    struct bout_result *result = calloc(1, sizeof(*result));

    if (result == NULL)
        exit(2);
    if (end > options.from + options.rounds)
        end = options.from + options.rounds;
    struct bout_setup setup = {.seed = options.seed,
                               .first = first,
                               .end = end,
                               .durability = durability,
                               .wait_ms = options.wait_ms,
                               .turn_ms = options.turn_ms,
                               .worker_first = options.worker_first,
                               .only = options.only,
                               .progress = say_progress};
    *well = bout_run(&setup, result);
    add_up(result);
    if (*well)
        say_bout(result, durability);
    else
        say_how_to_repeat(first, end, durability);
    free(result);
    return end;
}

int main(int argc, char **argv)
{
    bool well = true;

    read_options(argc, argv);
    if (geteuid() != 0) {
        fprintf(stderr, "attack: the attackers are to be of another user, which takes root\n");
        return 2;
    }
    if (options.planted != NULL)
        setenv("MR_PLANTED", options.planted, 1);
    started_ms = said_ms = wait_now_ms();
    for (uint64_t next = options.from; well && next < options.from + options.rounds;)
        next = run_bout(next, &well);
    say_totals();
    printf("%" PRIu64 " rounds of seed %" PRIu64 " from %" PRIu64 " on in %" PRIu64 " s: %s\n", options.rounds,
           options.seed, options.from, (wait_now_ms() - started_ms) / 1000, well ? "all is well" : "FAILED");
    fflush(stdout);
    if (!well)
        _exit(1); /* what a failed bout held is not lost, but left for whoever looks */
    return 0;
}
