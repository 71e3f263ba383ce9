/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace snapshot`: asks the node to take one now, of one partition or of all, and says what came of it. (`millrace
 * snapshot dump` needs no node: snapshot_dump.c.) */
#include "engine/cli/cli.h"
#include "engine/cli/json.h"
#include "millrace/v1/control.pb-c.h"

#include <millrace/limits.h>
#include <millrace/raw.h>

#include <inttypes.h>
#include <string.h>

void snapshot_help(FILE *to)
{
    fputs(
        "usage: millrace snapshot [--partition P] [--json]\n"
        "       millrace snapshot dump DIR ...   (--help tells more)\n"
        "\n"
        "Has each partition (or one) take a snapshot that contains all that is applied by now, and waits until it is\n"
        "whole. Prints, for each, the index of the last command in it, its bytes, and how long it took: nothing,\n"
        "where one that was there already is as new. For root and the user that the node runs as.\n"
        "\n"
        "  --partition P      of this partition alone\n"
        "  --json             prints one object a partition: `partition`, `index` (0: nothing was ever applied, and\n"
        "                     no snapshot made), `bytes`, `duration_ns`\n"
        "  --socket PATH      the node's socket (else the environment's MILLRACE_SOCKET)\n"
        "  --timeout D        gives up after this long, with TIMEOUT; the node goes on\n",
        to);
}

static void print_report(uint32_t partition, const Millrace__V1__SnapshotReport *report, bool json)
{
    bool first = true;

    if (!json) {
        printf("partition %" PRIu32 ": index %" PRIu64 ", %" PRIu64 " bytes, %.2f s\n", partition, report->index,
               report->bytes, (double)report->duration_ns / (double)MR_SECOND);
        return;
    }
    putchar('{');
    json_member_number(stdout, &first, "partition", partition);
    json_member_number(stdout, &first, "index", report->index);
    json_member_number(stdout, &first, "bytes", report->bytes);
    json_member_number(stdout, &first, "duration_ns", report->duration_ns);
    fputs("}\n", stdout);
}

static enum mr_status take_one(mr_client *client, uint32_t partition, bool json, const char **message)
{
    struct mr_bytes encoded;
    enum mr_status status = mr_node_snapshot(client, partition, &encoded);

    *message = mr_message(client);
    if (status != MR_OK)
        return status;
    Millrace__V1__SnapshotReport *report =
        millrace__v1__snapshot_report__unpack(NULL, encoded.size, (const uint8_t *)encoded.data);
    if (report == NULL) {
        *message = "the node's answer cannot be read: is it of another version?";
        return MR_INTERNAL;
    }
    print_report(partition, report, json);
    (void)cli_printed();
    millrace__v1__snapshot_report__free_unpacked(report, NULL);
    return MR_OK;
}

/* Each partition in turn: one that fails does not keep the others from theirs, and the exit status tells of it. */
static int take_all(mr_client *client, const struct arguments *arguments)
{
    uint32_t first = arguments->partition != 0 ? arguments->partition : 1;
    uint32_t last = arguments->partition != 0 ? arguments->partition : mr_partitions(client);
    int result = EXIT_DONE;

    for (uint32_t partition = first; partition <= last; partition++) {
        const char *message;
        enum mr_status status = take_one(client, partition, (arguments->given & OPTION_JSON) != 0, &message);
        if (status == MR_OK)
            continue;
        result = cli_failed(status, message);
        if (status == MR_NO_NODE || status == MR_TIMEOUT || status == MR_UNAUTHORIZED)
            break;
    }
    return result;
}

int snapshot_main(int argc, char **argv)
{
    struct arguments arguments;
    struct mr_error error;
    const char *socket;
    mr_client *client = NULL;
    int result;

    if (arguments_parse(argc, argv, &arguments, &error) != 0)
        return cli_usage(argv[0], &error);
    if (arguments.operand_count > 0 && strcmp(arguments.operands[0], "dump") == 0) {
        arguments.operands++;
        arguments.operand_count--;
        return snapshot_dump(&arguments);
    }
    if ((arguments.given & OPTION_HELP) != 0) {
        snapshot_help(stdout);
        return cli_finish(EXIT_DONE);
    }
    if (arguments.operand_count > 0) {
        error_set(&error, "'%s': it takes no operands but `dump`", arguments.operands[0]);
        return cli_usage(argv[0], &error);
    }
    if (arguments_only(&arguments, OPTION_JSON | OPTION_PARTITION | OPTION_TIMEOUT, argv[0], &error) != 0 ||
        cli_socket(&arguments, &socket, &error) != 0)
        return cli_usage(argv[0], &error);

    struct mr_options options = {
        .size = sizeof(options),
        .call_timeout_ns = arguments.timeout,
    };
    enum mr_status status = mr_connect(socket, &options, &client);
    if (status == MR_OK)
        result = take_all(client, &arguments);
    else
        result = cli_failed(status, mr_message(client));
    mr_close(client);
    return cli_finish(result);
}
