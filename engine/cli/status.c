/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace status`: what the node says about itself, as a line a partition or as JSON; and waiting until it serves. */
#include "engine/cli/cli.h"
#include "engine/cli/json.h"

#include "ipc/sys.h"
#include "millrace/v1/control.pb-c.h"

#include <millrace/limits.h>
#include <millrace/raw.h>

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define ASK_LIMIT (5 * MR_SECOND) /* a node that does not answer for so long is reported as such */
#define ASK_EVERY_MS 50           /* with --wait */

void status_help(FILE *to)
{
    fputs(
        "usage: millrace status [--json] [--wait D]\n"
        "\n"
        "Prints the node's version and durability, and a line for each partition: its state (starting, recovering\n"
        "with per cent, serving, read-only, restarting, stopped, and why), the worker's pid and core, the index of\n"
        "the last command applied and of the last one that is durable, the log's size, the newest snapshot, sessions,\n"
        "channels, restarts.\n"
        "\n"
        "Exit status: 0 all partitions serve; 1 not all; 3 there is no node.\n"
        "\n"
        "  --wait D           asks again until all serve, for as long as this; also while there is no node yet\n"
        "  --json             one object: version, durability, pid, directory, connections, and partitions, an array\n"
        "                     of objects: partition, state, reason, recovered_percent, pid, core (-1: on none),\n"
        "                     applied_index, durable_index, log_bytes, sessions, channels, restarts, time_ns (the\n"
        "                     partition's own clock, in nanoseconds since 1970), snapshot_index (0: none),\n"
        "                     snapshot_bytes, snapshot_time_ns (by the same clock)\n"
        "  --socket PATH      the node's socket (else the environment's MILLRACE_SOCKET)\n",
        to);
}

typedef Millrace__V1__Status node_status;
typedef Millrace__V1__PartitionStatus partition_status;

static bool is(ProtobufCBinaryData text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.data, word, text.len) == 0;
}

static bool all_serve(const node_status *node)
{
    for (size_t i = 0; i < node->n_partitions; i++)
        if (!is(node->partitions[i]->state, "serving"))
            return false;
    return node->n_partitions > 0;
}

/* "3 sessions" */
static void print_count(uint64_t count, const char *what)
{
    printf(", %" PRIu64 " %s%s", count, what, count == 1 ? "" : "s");
}

static void print_snapshot(const partition_status *partition)
{
    uint64_t age =
        partition->time_ns > partition->snapshot_time_ns ? partition->time_ns - partition->snapshot_time_ns : 0;

    if (partition->snapshot_index == 0)
        fputs(", no snapshot", stdout);
    else
        printf(", snapshot of %" PRIu64 " (%" PRIu64 " bytes, %" PRIu64 " s old)", partition->snapshot_index,
               partition->snapshot_bytes, age / MR_SECOND);
}

static void print_partition(const partition_status *partition)
{
    printf("partition %" PRIu32 ": %.*s", partition->partition, (int)partition->state.len,
           (const char *)partition->state.data);
    if (is(partition->state, "recovering"))
        printf(" %" PRIu32 " %%", partition->recovered_percent);
    if (partition->reason.len > 0)
        printf(" (%.*s)", (int)partition->reason.len, (const char *)partition->reason.data);
    if (partition->pid > 0)
        printf(", pid %" PRId32, partition->pid);
    else
        fputs(", no worker", stdout);
    if (partition->core >= 0)
        printf(", core %" PRId32, partition->core);
    else
        fputs(", any core", stdout);
    printf(", applied %" PRIu64 ", durable %" PRIu64 ", log %" PRIu64 " bytes", partition->applied_index,
           partition->durable_index, partition->log_bytes);
    print_snapshot(partition);
    print_count(partition->sessions, "session");
    print_count(partition->channels, "channel");
    print_count(partition->restarts, "restart");
    putchar('\n');
}

static void print_text(const node_status *node)
{
    printf("millrace %.*s, durability %.*s, pid %" PRId32 ", directory %.*s", (int)node->version.len,
           (const char *)node->version.data, (int)node->durability.len, (const char *)node->durability.data, node->pid,
           (int)node->directory.len, (const char *)node->directory.data);
    print_count(node->connections, "connection");
    putchar('\n');
    for (size_t i = 0; i < node->n_partitions; i++)
        print_partition(node->partitions[i]);
}

static void print_json(const node_status *node)
{
    bool first = true;

    putchar('{');
    json_member_string(stdout, &first, "version", node->version.data, node->version.len);
    json_member_string(stdout, &first, "durability", node->durability.data, node->durability.len);
    json_member_signed(stdout, &first, "pid", node->pid);
    json_member_string(stdout, &first, "directory", node->directory.data, node->directory.len);
    json_member_number(stdout, &first, "connections", node->connections);
    fputs(", \"partitions\": [", stdout);
    for (size_t i = 0; i < node->n_partitions; i++) {
        const partition_status *partition = node->partitions[i];
        first = true;
        fputs(i > 0 ? ", {" : "{", stdout);
        json_member_number(stdout, &first, "partition", partition->partition);
        json_member_string(stdout, &first, "state", partition->state.data, partition->state.len);
        json_member_string(stdout, &first, "reason", partition->reason.data, partition->reason.len);
        json_member_number(stdout, &first, "recovered_percent", partition->recovered_percent);
        json_member_signed(stdout, &first, "pid", partition->pid);
        json_member_signed(stdout, &first, "core", partition->core);
        json_member_number(stdout, &first, "applied_index", partition->applied_index);
        json_member_number(stdout, &first, "durable_index", partition->durable_index);
        json_member_number(stdout, &first, "log_bytes", partition->log_bytes);
        json_member_number(stdout, &first, "sessions", partition->sessions);
        json_member_number(stdout, &first, "channels", partition->channels);
        json_member_number(stdout, &first, "restarts", partition->restarts);
        json_member_number(stdout, &first, "time_ns", partition->time_ns);
        json_member_number(stdout, &first, "snapshot_index", partition->snapshot_index);
        json_member_number(stdout, &first, "snapshot_bytes", partition->snapshot_bytes);
        json_member_number(stdout, &first, "snapshot_time_ns", partition->snapshot_time_ns);
        putchar('}');
    }
    fputs("]}\n", stdout);
}

/* Asks once, within `limit`. MR_OK: *node is to be freed. Else *error says why. */
static enum mr_status ask(const char *socket, int64_t limit, node_status **node, struct mr_error *error)
{
    struct mr_options options = {.size = sizeof(options), .call_timeout_ns = limit, .reconnect_ns = MR_NO_RECONNECT};
    struct mr_bytes encoded;
    mr_client *client = NULL;

    *node = NULL;
    enum mr_status status = mr_connect(socket, &options, &client);
    if (status == MR_OK)
        status = mr_node_status(client, &encoded);
    if (status == MR_OK) {
        *node = millrace__v1__status__unpack(NULL, encoded.size, encoded.data);
        if (*node == NULL) {
            status = MR_INTERNAL;
            error_set(error, "the node's answer cannot be read: is it of another version?");
        }
    } else {
        error_set(error, "%s", mr_message(client));
    }
    mr_close(client);
    return status;
}

/* Asks, with --wait until all serve or the time is over; the last answer counts. */
static enum mr_status ask_until(const char *socket, const struct arguments *arguments, node_status **node,
                                struct mr_error *error)
{
    bool waits = (arguments->given & OPTION_WAIT) != 0;
    uint64_t start = sys_clock_ns(CLOCK_MONOTONIC), limit = (uint64_t)arguments->wait;

    for (;;) {
        enum mr_status status = ask(socket, ASK_LIMIT, node, error);
        uint64_t waited = sys_clock_ns(CLOCK_MONOTONIC) - start;
        bool again = status == MR_NO_NODE || status == MR_UNAVAILABLE || status == MR_TIMEOUT ||
                     (status == MR_OK && !all_serve(*node));
        if (!waits || !again || waited >= limit)
            return status;
        uint64_t left = (limit - waited + MR_MILLISECOND - 1) / MR_MILLISECOND;
        if (*node != NULL)
            millrace__v1__status__free_unpacked(*node, NULL);
        sys_poll(NULL, 0, left < ASK_EVERY_MS ? (int)left : ASK_EVERY_MS); /* cut short by a signal, it asks earlier */
    }
}

int status_main(int argc, char **argv)
{
    struct arguments arguments;
    struct mr_error error;
    const char *socket;
    node_status *node;

    if (arguments_parse(argc, argv, &arguments, &error) != 0)
        return cli_usage(argv[0], &error);
    if ((arguments.given & OPTION_HELP) != 0) {
        status_help(stdout);
        return cli_finish(EXIT_DONE);
    }
    if (arguments.operand_count > 0) {
        error_set(&error, "'%s': it takes no operands", arguments.operands[0]);
        return cli_usage(argv[0], &error);
    }
    if (arguments_only(&arguments, OPTION_JSON | OPTION_WAIT, argv[0], &error) != 0 ||
        cli_socket(&arguments, &socket, &error) != 0)
        return cli_usage(argv[0], &error);

    enum mr_status status = ask_until(socket, &arguments, &node, &error);
    if (status != MR_OK)
        return cli_failed(status, error.text);
    if ((arguments.given & OPTION_JSON) != 0)
        print_json(node);
    else
        print_text(node);
    int result = all_serve(node) ? EXIT_DONE : EXIT_FAILED;
    millrace__v1__status__free_unpacked(node, NULL);
    return cli_finish(result);
}
