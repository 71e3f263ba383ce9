/* SPDX-License-Identifier: Apache-2.0 */
/* How many system calls a command costs: a client with 1,000 increments in flight, and its worker, each make fewer than
 * one for 100 commands, in `sync` and in `memory`. Counted by strace, which is attached to both while the client does a
 * fixed number of commands; a count, so a slow machine (or strace itself) changes little: whoever is slow finds more
 * waiting each time it looks. But who gets a processor when, and how fast the disk is, decides how much one write takes:
 * what is too much is counted again, a few times.
 *
 * Run as `PROGRAM client`, this is the client: it connects, says `ready`, does the commands when told to, says `done`
 * and the counter's value, and leaves at the end of its input. */
#include <millrace/counter.h>

#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <dirent.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define IN_FLIGHT 1000
#define WARM_UP 5000
#define COMMANDS 200000
#define COMMANDS_PER_CALL 100 /* at least so many for each system call */
#define COUNTS_MOST 5

/* ---- the client ---- */

struct load {
    mr_counter *counter;
    unsigned started, answered, failed;
    int64_t value; /* the last answer's */
};

static void answered(mr_client *client, const struct mr_result *result)
{
    struct load *load = result->arg;

    (void)client;
    load->answered++;
    load->failed += result->status != MR_OK;
    load->value = result->as.number;
}

/* Does `count` increments, up to IN_FLIGHT of them at a time. */
static enum mr_status increments(mr_client *client, struct load *load, unsigned count)
{
    struct mr_then then = {.done = answered, .arg = load};
    unsigned end = load->started + count;

    while (load->answered < end) {
        enum mr_status status = MR_OK;
        while (load->started < end && load->started - load->answered < IN_FLIGHT && status == MR_OK) {
            status = mr_counter_increment_start(load->counter, 1, then, NULL);
            load->started += status == MR_OK;
        }
        if (status != MR_OK && status != MR_AGAIN)
            return status;
        status = mr_run(client, MR_FOR_EVER, NULL);
        if (status != MR_OK && status != MR_AGAIN)
            return status;
    }
    return load->failed > 0 ? MR_ERROR : MR_OK;
}

static int client_main(void)
{
    struct load load = {0};
    mr_client *client;
    char line[16];
    enum mr_status status = mr_connect(NULL, NULL, &client);

    if (status == MR_OK)
        status = mr_counter_open(client, "visits", &load.counter);
    if (status == MR_OK)
        status = increments(client, &load, WARM_UP);
    if (status == MR_OK) {
        puts("ready");
        fflush(stdout);
        if (fgets(line, sizeof(line), stdin) != NULL)
            status = increments(client, &load, COMMANDS);
    }
    if (status != MR_OK) {
        fprintf(stderr, "%s: %s (%u failed)\n", mr_status_name(status), mr_message(client), load.failed);
        return 1;
    }
    printf("done %" PRId64 "\n", load.value);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL)
        ;
    mr_close(client);
    return 0;
}

/* ---- the test ---- */

static char program[TEMP_PATH_MAX];
static char *dir;
static struct process node, client;
static struct tracer {
    struct process process;
    pid_t target;
    char output[TEMP_PATH_MAX];
} of_worker, of_client;

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    return 0;
}

static void end_all(void)
{
    process_end(&of_worker.process);
    process_end(&of_client.process);
    process_end(&client);
    process_end(&node);
}

static int tear_down(void **state)
{
    (void)state;
    end_all();
    temp_dir_remove(dir);
    return 0;
}

static const char *millrace(void)
{
    const char *path = getenv("MILLRACE_BIN");

    assert_non_null(path);
    return path;
}

static void fail_with_error_of(struct process *process, const char *what)
{
    size_t size;

    kill(process->pid, SIGKILL);
    char *text = read_all(process->error, &size, WAIT_MS);
    fail_msg("%s: %s", what, text != NULL ? text : "");
}

static pid_t start_node(const char *durability, unsigned count, char *environment, size_t size)
{
    char data[TEMP_PATH_MAX], name[32];

    snprintf(name, sizeof(name), "data-%u", count);
    const char *const serve[] = {
        millrace(),     "serve",    "--dir", temp_dir_file(data, dir, name), "--cpus", "none", "--segment-bytes", "4M",
        "--durability", durability, NULL};

    process_start(&node, serve, NULL);
    char *line = process_line(&node, WAIT_MS);
    if (line == NULL)
        fail_with_error_of(&node, "the node did not come up");
    free(line);
    snprintf(environment, size, "MILLRACE_SOCKET=%s/millrace.sock", data);
    const char *const status[] = {millrace(), "status", "--json", "--wait", "30s", NULL};
    const char *const variables[] = {environment, NULL};
    struct process_result result = process_run(status, variables, NULL, 0, WAIT_MS);
    assert_int_equal(result.status, 0);
    /* The worker's pid stands in its partition's object; the supervisor's may stand before. */
    const char *partitions = strstr(result.output, "\"partitions\"");
    const char *pid = partitions != NULL ? strstr(partitions, "\"pid\"") : NULL;
    assert_non_null(pid);
    pid_t worker = (pid_t)strtol(pid + strlen("\"pid\"") + strspn(pid + strlen("\"pid\""), ": "), NULL, 10);
    assert_true(worker > 1);
    process_result_free(&result);
    return worker;
}

static void start_client(char *environment)
{
    const char *const command[] = {program, "client", NULL};
    const char *const variables[] = {environment, NULL};

    process_start(&client, command, variables);
    char *line = process_line(&client, WAIT_MS);
    if (line == NULL || strcmp(line, "ready") != 0)
        fail_with_error_of(&client, "the client did not get ready");
    free(line);
}

/* Is every thread of it traced? */
static bool is_traced(pid_t pid)
{
    char path[600];
    bool traced = false;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    assert_non_null(tasks);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        size_t size;
        if (task->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", pid, task->d_name);
        char *status = read_file(path, &size);
        const char *tracer = status != NULL ? strstr(status, "TracerPid:") : NULL;
        traced = tracer != NULL && strtol(tracer + strlen("TracerPid:"), NULL, 10) != 0;
        free(status);
        if (!traced)
            break;
    }
    closedir(tasks);
    return traced;
}

/* Attaches strace to a process; skips the test where that is not allowed. */
static void trace(struct tracer *tracer, const char *name, pid_t target)
{
    char pid[16];
    const char *const command[] = {
        "strace", "-f", "-c", "-U", "calls,name", "-o", temp_dir_file(tracer->output, dir, name), "-p", pid, NULL};
    int ended = -1;

    snprintf(pid, sizeof(pid), "%d", target);
    tracer->target = target;
    process_start(&tracer->process, command, NULL);
    assert_true(wait_for(is_traced(target) || (ended = process_wait(&tracer->process, 0)) != -1));
    if (ended == -1)
        return;
    size_t size;
    char *text = read_all(tracer->process.error, &size, WAIT_MS);
    if (text != NULL && (strstr(text, "not permitted") != NULL || strstr(text, "Permission denied") != NULL)) {
        print_message("SKIPPED: this user may not trace processes here: %s", text);
        free(text);
        skip();
    }
    fail_msg("strace did not start: %s", text != NULL ? text : "");
}

/* Ends the tracing and gives the number of system calls, of which the table is printed. Without looks at the processor
 * time of a thread: a worker whose calls are slow, as all are that are traced, wants to know whose fault that is
 * (engine/node/bells.c). */
static unsigned long counted(struct tracer *tracer)
{
    unsigned long total = 0, sum = 0, looks = 0;
    size_t size;

    process_signal(&tracer->process, SIGINT);
    assert_int_not_equal(process_wait(&tracer->process, WAIT_MS), -1);
    assert_false(is_traced(tracer->target));
    char *table = read_file(tracer->output, &size);
    assert_non_null(table);
    print_message("%s\n", table);
    char *rest = table;
    for (char *line; (line = strtok_r(rest, "\n", &rest)) != NULL;) {
        unsigned long calls;
        char name[64];
        if (sscanf(line, "%lu %63s", &calls, name) != 2)
            continue;
        *(strcmp(name, "total") == 0 ? &total : &sum) += calls;
        looks += strcmp(name, "clock_gettime") == 0 ? calls : 0;
    }
    assert_int_equal(total, sum); /* the table was understood */
    free(table);
    return total - looks;
}

/* With a node and a client of its own: are there few? */
static bool makes_few_calls(const char *durability, unsigned count)
{
    char environment[TEMP_PATH_MAX + 64], expected[32];
    pid_t worker = start_node(durability, count, environment, sizeof(environment));

    start_client(environment);
    trace(&of_worker, "worker", worker);
    trace(&of_client, "client", client.pid);
    assert_int_equal(write(client.input, "go\n", 3), 3);
    char *line = process_line(&client, 4 * WAIT_MS);
    if (line == NULL)
        fail_with_error_of(&client, "the client did not come to its end");
    snprintf(expected, sizeof(expected), "done %d", WARM_UP + COMMANDS);
    assert_string_equal(line, expected);
    free(line);
    unsigned long by_worker = counted(&of_worker), by_client = counted(&of_client);
    print_message("%s: %lu system calls by the worker, %lu by the client, for %d commands\n", durability, by_worker,
                  by_client, COMMANDS);
    /* Both are seen at all: the client reads `go` and writes `done`; the worker hands batches to the disk. */
    assert_true(by_client >= 2);
    assert_true(by_worker >= 1 || strcmp(durability, "memory") == 0);
    process_close_input(&client);
    assert_int_equal(process_wait(&client, WAIT_MS), 0);
    process_signal(&node, SIGTERM);
    assert_int_equal(process_wait(&node, WAIT_MS), 0);
    end_all();
    return by_worker < COMMANDS / COMMANDS_PER_CALL && by_client < COMMANDS / COMMANDS_PER_CALL;
}

static void expect_few_calls(const char *durability)
{
    bool few = false;

    for (unsigned count = 0; !few && count < COUNTS_MOST; count++)
        few = makes_few_calls(durability, count);
    assert_true(few);
}

static void few_calls_in_sync(void **state)
{
    (void)state;
    expect_few_calls("sync");
}

static void few_calls_in_memory(void **state)
{
    (void)state;
    expect_few_calls("memory");
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(few_calls_in_sync, set_up, tear_down),
        cmocka_unit_test_setup_teardown(few_calls_in_memory, set_up, tear_down),
    };

    if (argc > 1 && strcmp(argv[1], "client") == 0)
        return client_main();
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (length <= 0)
        return 1;
    program[length] = '\0';
    return cmocka_run_group_tests(tests, NULL, NULL);
}
