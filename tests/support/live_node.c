/* SPDX-License-Identifier: Apache-2.0 */
/* A real node of a test's own: see live_node.h. */
#include "tests/support/live_node.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <millrace/limits.h>
#include <millrace/raw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "millrace/v1/control.pb-c.h"
#include "tests/support/wait.h"

static const char *const small[] = {"--cpus",        "none", "--ring-bytes",    "256K", "--max-payload",    "32K",
                                    "--batch-bytes", "64K",  "--segment-bytes", "1M",   "--snapshot-bytes", "256K"};
#define SMALL (sizeof(small) / sizeof(small[0]))

static const char *program(void)
{
    const char *path = getenv("MILLRACE_BIN");
    if (path == NULL)
        fail_msg("MILLRACE_BIN does not say which millrace to test");
    return path;
}

void node_prepare(struct node *node, const char *const options[])
{
    unsigned count = SMALL;

    *node = (struct node){.folder = temp_dir_make()};
    temp_dir_file(node->dir, node->folder, "data");
    temp_dir_file(node->socket, node->folder, "data/millrace.sock");
    temp_dir_file(node->log, node->folder, "log");
    memcpy(node->options, small, sizeof(small));
    for (; options != NULL && *options != NULL; options++) {
        assert_true(count < NODE_OPTIONS_MAX - 1);
        node->options[count++] = *options;
    }
}

/* For a message: the end of what the node said. */
static void show_log(const struct node *node)
{
    size_t size = 0;
    char *text = read_file(node->log, &size);
    if (text != NULL)
        print_error("the node said:\n%s\n", size > 3000 ? text + size - 3000 : text);
    free(text);
}

typedef Millrace__V1__Status node_status;

/* NULL: there is no node, or it does not answer. */
static node_status *ask_status(const struct node *node)
{
    struct mr_options options = {
        .size = sizeof(options), .call_timeout_ns = 10 * (int64_t)MR_SECOND, .reconnect_ns = MR_NO_RECONNECT};
    mr_client *client = NULL;
    struct mr_bytes encoded;
    node_status *status = NULL;

    if (mr_connect(node->socket, &options, &client) == MR_OK && mr_node_status(client, &encoded) == MR_OK)
        status = millrace__v1__status__unpack(NULL, encoded.size, encoded.data);
    mr_close(client);
    return status;
}

static bool is(ProtobufCBinaryData text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.data, word, text.len) == 0;
}

static bool settled(const struct node *node)
{
    node_status *status = ask_status(node);
    bool all = status != NULL;

    for (size_t i = 0; all && i < status->n_partitions; i++)
        all = is(status->partitions[i]->state, "serving") ||
              (is(status->partitions[i]->state, "stopped") && status->partitions[i]->pid > 0);
    millrace__v1__status__free_unpacked(status, NULL);
    return all;
}

void node_start(struct node *node)
{
    /* Standard error goes to a file: a pipe that nobody reads would fill. */
    const char *argv[NODE_OPTIONS_MAX + 16] = {"/bin/sh", "-c",      "log=$1; shift; exec \"$@\" 2>>\"$log\"",
                                               "sh",      node->log, program(),
                                               "serve",   "--dir",   node->dir};
    unsigned count = 9;

    for (unsigned i = 0; node->options[i] != NULL; i++)
        argv[count++] = node->options[i];
    process_start(&node->process, argv, NULL);
    char *line = process_line(&node->process, WAIT_MS);
    bool ready = line != NULL && strncmp(line, "ready ", 6) == 0;
    free(line);
    if (!ready || !wait_for(settled(node))) {
        show_log(node);
        fail_msg("the node does not come up");
    }
}

void node_begin(struct node *node, const char *const options[])
{
    node_prepare(node, options);
    node_start(node);
}

static int wait_end(struct node *node)
{
    int status = process_wait(&node->process, WAIT_MS);

    if (status == -1) {
        show_log(node);
        fail_msg("the node does not end");
    }
    process_end(&node->process);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int node_stop(struct node *node)
{
    process_signal(&node->process, SIGTERM);
    return wait_end(node);
}

bool process_runs(pid_t pid)
{
    char path[64], line[256];
    bool runs = false;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    if (fgets(line, sizeof(line), file) != NULL) {
        const char *name_end = strrchr(line, ')'); /* a zombie has ended, though nobody may come to reap it */
        runs = name_end != NULL && strlen(name_end) > 2 && name_end[2] != 'Z' && name_end[2] != 'X';
    }
    fclose(file);
    return runs;
}

static unsigned workers_of(const struct node *node, pid_t pids[NODE_PARTITIONS_MAX])
{
    node_status *status = ask_status(node);
    unsigned count = 0;

    assert_non_null(status);
    assert_true(status->n_partitions <= NODE_PARTITIONS_MAX);
    for (size_t i = 0; i < status->n_partitions; i++)
        if (status->partitions[i]->pid > 0)
            pids[count++] = status->partitions[i]->pid;
    millrace__v1__status__free_unpacked(status, NULL);
    return count;
}

static void kill_node(struct node *node, bool workers_too)
{
    pid_t workers[NODE_PARTITIONS_MAX];
    unsigned count = workers_of(node, workers);

    for (unsigned i = 0; workers_too && i < count; i++)
        kill(workers[i], SIGKILL);
    process_signal(&node->process, SIGKILL);
    assert_int_equal(wait_end(node), 128 + SIGKILL);
    for (unsigned i = 0; i < count; i++)
        assert_true(wait_for(!process_runs(workers[i])));
}

void node_kill(struct node *node)
{
    kill_node(node, false);
}

void node_kill_all(struct node *node)
{
    kill_node(node, true);
}

static bool removed(const struct node *node)
{
    const char *const argv[] = {"rm", "-rf", node->folder, NULL};
    struct process_result result = process_run(argv, NULL, NULL, 0, WAIT_MS);
    bool gone = result.status == 0;

    process_result_free(&result);
    return gone;
}

void node_end(struct node *node)
{
    if (node->folder == NULL)
        return;
    process_end(&node->process);
    /* Workers die with the supervisor, but a moment later: they may still be writing there. */
    if (!wait_for(removed(node)))
        print_error("%s stays behind\n", node->folder);
    free(node->folder);
    node->folder = NULL;
}

struct node_partition node_partition(const struct node *node, uint32_t partition)
{
    node_status *status = ask_status(node);
    struct node_partition result = {0};

    if (status == NULL) {
        show_log(node);
        fail_msg("the node does not say how it is");
    }
    assert_true(partition >= 1 && partition <= status->n_partitions);
    const Millrace__V1__PartitionStatus *from = status->partitions[partition - 1];
    snprintf(result.state, sizeof(result.state), "%.*s", (int)from->state.len, (const char *)from->state.data);
    snprintf(result.reason, sizeof(result.reason), "%.*s", (int)from->reason.len, (const char *)from->reason.data);
    result.pid = from->pid;
    result.applied = from->applied_index;
    result.sessions = from->sessions;
    result.channels = from->channels;
    result.restarts = from->restarts;
    result.log_bytes = from->log_bytes;
    result.snapshot_index = from->snapshot_index;
    result.snapshot_bytes = from->snapshot_bytes;
    millrace__v1__status__free_unpacked(status, NULL);
    return result;
}

pid_t node_kill_worker(const struct node *node, uint32_t partition)
{
    pid_t pid = 0;

    assert_true(wait_for((pid = node_partition(node, partition).pid) > 0));
    /* A worker that has died already is a zombie or gone; its number is not given anew so soon. */
    assert_true(kill(pid, SIGKILL) == 0 || errno == ESRCH);
    return pid;
}

static pid_t serving_worker(const struct node *node, uint32_t partition)
{
    struct node_partition now = node_partition(node, partition);
    return strcmp(now.state, "serving") == 0 ? now.pid : 0;
}

pid_t node_wait_worker(const struct node *node, uint32_t partition, pid_t before)
{
    pid_t pid = 0;

    if (!wait_for((pid = serving_worker(node, partition)) > 0 && pid != before)) {
        show_log(node);
        fail_msg("partition %u has no new worker", partition);
    }
    return pid;
}

struct process_result node_command(const struct node *node, const char *const words[])
{
    const char *argv[32] = {program()};
    char socket[TEMP_PATH_MAX + 32];
    const char *const environment[] = {socket, NULL};

    for (unsigned i = 0; words[i] != NULL; i++) {
        assert_true(i < 30);
        argv[i + 1] = words[i];
    }
    snprintf(socket, sizeof(socket), "MILLRACE_SOCKET=%s", node->socket);
    return process_run(argv, environment, NULL, 0, WAIT_MS);
}

bool node_said(const struct node *node, const char *text)
{
    size_t size = 0;
    char *said = read_file(node->log, &size);
    bool found = said != NULL && strstr(said, text) != NULL;
    free(said);
    return found;
}
