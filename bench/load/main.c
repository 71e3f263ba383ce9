/* SPDX-License-Identifier: Apache-2.0 */
/* millrace-bench: a run. The node is found or started; clients are forked, and once all of them are ready they work
 * through a warm-up and then measuring after measuring, until the parent says that it is over. bench.h tells which file
 * does what. */
#include "bench/load/bench.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRESS_EVERY (NS_PER_SECOND / 2)

struct run {
    struct bench_options options;
    struct bench_node node;
    struct bench_shared *shared;
    unsigned processes; /* clients, and the writer of events */
    pid_t pids[BENCH_CLIENTS_MAX];
    struct bench_round rounds[BENCH_REPEATS_MAX];
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static uint64_t sum_operations(const struct run *run)
{
    uint64_t sum = 0;

    for (unsigned n = 0; n < run->options.clients; n++)
        sum += atomic_load(&run->shared->clients[n].operations);
    return sum;
}

static uint64_t sum_errors(const struct run *run)
{
    uint64_t sum = 0;

    for (unsigned n = 0; n < run->processes; n++)
        sum += atomic_load(&run->shared->clients[n].errors);
    return sum;
}

static uint64_t sum_cpu(const struct run *run)
{
    uint64_t sum = 0, used;

    for (unsigned n = 0; n < run->processes; n++)
        if (bench_process_cpu(run->pids[n], &used))
            sum += used;
    return sum;
}

/* Has it been interrupted, or has a client or the node failed or ended? Then it is said, once. */
static bool all_well(struct run *run)
{
    if (interrupted) {
        fprintf(stderr, "\rmillrace-bench: interrupted\n");
        return false;
    }
    for (unsigned n = 0; n < run->processes; n++) {
        struct bench_client *client = &run->shared->clients[n];
        int status;
        if (!atomic_load(&client->failed) && waitpid(run->pids[n], &status, WNOHANG) == 0)
            continue;
        fprintf(stderr, "\rmillrace-bench: client %u: %s\n", n + 1,
                client->why[0] != '\0' ? client->why : "it died unexpectedly");
        return false;
    }
    return bench_node_lives(&run->node);
}

static void pin(struct bench_client *client, const char *list, unsigned number)
{
    unsigned cores[BENCH_CLIENTS_MAX], count = bench_cores(list, cores, BENCH_CLIENTS_MAX);
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cores[number % count], &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        bench_client_fail(client, "cannot run on core %u: %s", cores[number % count], strerror(errno));
}

static int start_clients(struct run *run)
{
    const struct bench_options *options = &run->options;
    bool events = options->operation == BENCH_EVENTS;
    pid_t parent = getpid();

    run->processes = options->clients + events;
    for (unsigned n = 0; n < run->processes; n++) {
        run->pids[n] = fork();
        if (run->pids[n] < 0) {
            fprintf(stderr, "millrace-bench: cannot fork: %s\n", strerror(errno));
            run->processes = n;
            return -1;
        }
        if (run->pids[n] > 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        if (options->client_cpus != NULL)
            pin(&run->shared->clients[n], options->client_cpus, n);
        if (events && n == options->clients)
            bench_writer_run(options, &run->node, run->shared, n);
        else if (events)
            bench_listener_run(options, &run->node, run->shared, n);
        else
            bench_load_run(options, &run->node, run->shared, n);
    }
    for (unsigned n = 0; n < run->processes; n++)
        while (!atomic_load(&run->shared->clients[n].ready)) {
            if (!all_well(run))
                return -1;
            usleep(1000);
        }
    return 0;
}

static void progress(const struct run *run, const char *what, uint64_t *before, uint64_t *at)
{
    uint64_t now = bench_now();

    if (run->options.quiet || now - *at < PROGRESS_EVERY)
        return;
    uint64_t operations = sum_operations(run);
    fprintf(stderr, "\r%s: %.0f/s   ", what, (double)(operations - *before) * 1e9 / (double)(now - *at));
    *before = operations;
    *at = now;
}

/* Lets the clients work for so long. */
static int let_work(struct run *run, double seconds, const char *what)
{
    uint64_t end = bench_now() + (uint64_t)(seconds * 1e9), before = sum_operations(run), at = bench_now();

    while (bench_now() < end) {
        if (!all_well(run))
            return -1;
        usleep(2000);
        progress(run, what, &before, &at);
    }
    return 0;
}

/* Its figure is 0 then. */
static void tell_of_worker(struct run *run, unsigned number)
{
    fprintf(stderr, "\rmillrace-bench: a worker died in measuring %u, whose processor time is not known\n", number);
    bench_node_look(&run->node);
}

static int measure(struct run *run, struct bench_round *round, unsigned number)
{
    struct bench_shared *shared = run->shared;
    char what[32];

    snprintf(what, sizeof(what), "measuring %u of %u", number, run->options.repeats);
    *round = (struct bench_round){.seconds = 0};
    atomic_store(&shared->round, number);
    uint64_t errors = sum_errors(run), client_cpu = sum_cpu(run), worker_cpu, worker_cpu_after;
    bool known = bench_node_cpu(&run->node, &worker_cpu);
    uint64_t begun = bench_now();
    atomic_store(&shared->phase, PHASE_MEASURING);
    if (let_work(run, run->options.seconds, what) != 0)
        return -1;
    atomic_store(&shared->phase, PHASE_PAUSE);
    round->seconds = (double)(bench_now() - begun) / 1e9;
    if (bench_node_cpu(&run->node, &worker_cpu_after) && known)
        round->worker_cpu = worker_cpu_after - worker_cpu;
    else
        tell_of_worker(run, number);
    round->client_cpu = sum_cpu(run) - client_cpu;
    round->errors = sum_errors(run) - errors;
    usleep(20000); /* until each has seen that it is over */
    for (unsigned n = 0; n < run->options.clients; n++) {
        struct bench_client *client = &shared->clients[n];
        if (atomic_load(&client->round) != number)
            continue; /* nothing of it was answered */
        round->operations += atomic_load(&client->counted);
        histogram_merge(&round->latency, &client->latency);
    }
    return 0;
}

static void end_clients(struct run *run, bool kill_them)
{
    atomic_store(&run->shared->phase, PHASE_END);
    for (unsigned n = 0; n < run->processes; n++) {
        if (kill_them)
            kill(run->pids[n], SIGKILL);
        while (waitpid(run->pids[n], NULL, 0) < 0 && errno == EINTR)
            ;
    }
}

static int run_all(struct run *run)
{
    const struct bench_options *options = &run->options;

    if (start_clients(run) != 0)
        return -1;
    atomic_store(&run->shared->phase, PHASE_WARM_UP);
    if (let_work(run, options->warm_up, "warming up") != 0)
        return -1;
    for (unsigned r = 0; r < options->repeats; r++)
        if (measure(run, &run->rounds[r], r + 1) != 0)
            return -1;
    return 0;
}

/* The millrace command that stands beside this program. */
static void find_program(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);

    path[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(path, '/');
    snprintf(slash != NULL ? slash + 1 : path, size - (size_t)(slash != NULL ? slash + 1 - path : 0), "millrace");
}

int main(int argc, char **argv)
{
    static struct run run;
    char program[PATH_MAX];
    struct sigaction action = {.sa_handler = on_signal};

    int parsed = bench_options_parse(argc, argv, &run.options);
    if (parsed != 0)
        return parsed == 1 ? 0 : 2;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    run.shared = mmap(NULL, sizeof(*run.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (run.shared == MAP_FAILED) {
        fprintf(stderr, "millrace-bench: no memory\n");
        return 1;
    }
    find_program(program, sizeof(program));
    int result = bench_node_begin(&run.node, &run.options, program);
    if (result == 0)
        result = run_all(&run);
    end_clients(&run, result != 0);
    bench_node_end(&run.node);
    if (!run.options.quiet)
        fprintf(stderr, "\r%40s\r", "");
    if (result != 0)
        return 1;
    bench_report(&run.options, &run.node, run.rounds, run.options.repeats);
    if (fflush(stdout) != 0 || ferror(stdout)) { /* now, so that what went wrong stands below */
        fprintf(stderr, "millrace-bench: standard output could not be written: %s\n", strerror(errno));
        result = -1;
    }
    if (run.options.json != NULL)
        result |= bench_report_json(&run.options, &run.node, run.rounds, run.options.repeats);
    for (unsigned n = 0; n < run.processes; n++)
        if (run.shared->clients[n].first_error[0] != '\0')
            fprintf(stderr, "millrace-bench: client %u: %s\n", n + 1, run.shared->clients[n].first_error);
    return result == 0 && sum_errors(&run) == 0 ? 0 : 1;
}
