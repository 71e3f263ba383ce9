/* SPDX-License-Identifier: Apache-2.0 */
/* The node under test: one that runs, or one that is started here in a directory of its own and removed afterwards. */
#include "bench/load/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <millrace/raw.h>

#include "millrace/v1/control.pb-c.h"

#define ARGUMENTS_MAX 64
#define START_LIMIT (30 * NS_PER_SECOND)

static int complain(const char *what)
{
    fprintf(stderr, "millrace-bench: %s\n", what);
    return -1;
}

static void run_node(const struct bench_node *node, const struct bench_options *options, const char *program)
{
    char dir[300], log[300], partitions[16], *rest = options->serve != NULL ? strdup(options->serve) : NULL;
    const char *arguments[ARGUMENTS_MAX] = {program,        "serve",    "--dir",        dir,
                                            "--partitions", partitions, "--durability", options->durability};
    unsigned count = 8;

    snprintf(dir, sizeof(dir), "%s/node", node->dir);
    snprintf(partitions, sizeof(partitions), "%u", options->partitions);
    if (options->cpus != NULL) {
        arguments[count++] = "--cpus";
        arguments[count++] = options->cpus;
    }
    for (char *word = rest != NULL ? strtok(rest, " ") : NULL; word != NULL && count < ARGUMENTS_MAX - 1;
         word = strtok(NULL, " "))
        arguments[count++] = word;
    snprintf(log, sizeof(log), "%.250s/log", node->dir);
    int file = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file >= 0) {
        dup2(file, STDOUT_FILENO);
        dup2(file, STDERR_FILENO);
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    execv(program, (char *const *)(void *)arguments);
    fprintf(stderr, "millrace-bench: cannot run %s: %s\n", program, strerror(errno));
    _exit(127);
}

/* Why, and what the node has said. */
static int say_its_words(const struct bench_node *node, const char *why)
{
    char path[300], line[512];

    fprintf(stderr, "\rmillrace-bench: %s. It said:\n", why);
    snprintf(path, sizeof(path), "%.250s/log", node->dir);
    FILE *log = fopen(path, "re");
    while (log != NULL && fgets(line, sizeof(line), log) != NULL)
        fputs(line, stderr);
    if (log != NULL)
        fclose(log);
    return -1;
}

/* What the node says of itself. False: it does not serve (yet). */
static bool ask(struct bench_node *node)
{
    struct mr_bytes encoded;
    mr_client *client = NULL;
    bool serves = false;

    if (mr_connect(node->socket, NULL, &client) == MR_OK && mr_node_status(client, &encoded) == MR_OK) {
        Millrace__V1__Status *status = millrace__v1__status__unpack(NULL, encoded.size, encoded.data);
        serves = status != NULL && status->n_partitions > 0 && status->n_partitions <= BENCH_PARTITIONS_MAX;
        for (size_t p = 0; serves && p < status->n_partitions; p++) {
            const Millrace__V1__PartitionStatus *partition = status->partitions[p];
            serves = partition->state.len == 7 && memcmp(partition->state.data, "serving", 7) == 0;
            node->workers[p] = partition->pid;
        }
        if (serves) {
            node->partitions = (unsigned)status->n_partitions;
            snprintf(node->durability, sizeof(node->durability), "%.*s", (int)status->durability.len,
                     (const char *)status->durability.data);
        }
        if (status != NULL)
            millrace__v1__status__free_unpacked(status, NULL);
    }
    mr_close(client);
    return serves;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

int bench_node_begin(struct bench_node *node, const struct bench_options *options, const char *program)
{
    *node = (struct bench_node){.pid = 0};
    if (options->socket != NULL) {
        snprintf(node->socket, sizeof(node->socket), "%s", options->socket);
        if (ask(node))
            return 0;
        fprintf(stderr, "millrace-bench: no node serves at %s\n", options->socket);
        return -1;
    }
    const char *base = options->dir != NULL ? options->dir : getenv("TMPDIR");
    snprintf(node->dir, sizeof(node->dir), "%s/millrace-bench.XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(node->dir) == NULL) {
        fprintf(stderr, "millrace-bench: cannot make a directory for the node in %s: %s\n",
                base != NULL ? base : "/tmp", strerror(errno));
        node->dir[0] = '\0';
        return -1;
    }
    snprintf(node->socket, sizeof(node->socket), "%.230s/node/millrace.sock", node->dir);
    node->pid = fork();
    if (node->pid < 0)
        return complain("cannot fork");
    if (node->pid == 0)
        run_node(node, options, program);
    for (uint64_t begun = bench_now(); !ask(node);) {
        if (waitpid(node->pid, NULL, WNOHANG) != 0) {
            node->pid = 0;
            return say_its_words(node, "the node did not start");
        }
        if (bench_now() - begun > START_LIMIT)
            return say_its_words(node, "the node is not ready after 30 s");
        usleep(10000);
    }
    return 0;
}

bool bench_node_lives(struct bench_node *node)
{
    if (node->pid <= 0 || waitpid(node->pid, NULL, WNOHANG) == 0)
        return true;
    node->pid = 0;
    say_its_words(node, "the node has ended by itself");
    return false;
}

void bench_node_look(struct bench_node *node)
{
    ask(node); /* where it cannot answer just now, the next processor time says that a worker is not there */
}

void bench_node_end(struct bench_node *node)
{
    if (node->pid > 0) {
        kill(node->pid, SIGTERM);
        while (waitpid(node->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        node->pid = 0;
    }
    if (node->dir[0] != '\0')
        nftw(node->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    node->dir[0] = '\0';
}

bool bench_process_cpu(pid_t pid, uint64_t *ns)
{
    struct timespec used;
    clockid_t clock;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return false;
    *ns = (uint64_t)used.tv_sec * NS_PER_SECOND + (uint64_t)used.tv_nsec;
    return true;
}

bool bench_node_cpu(const struct bench_node *node, uint64_t *ns)
{
    *ns = 0;
    for (unsigned p = 0; p < node->partitions; p++) {
        uint64_t used;
        if (!bench_process_cpu(node->workers[p], &used))
            return false;
        *ns += used;
    }
    return true;
}
