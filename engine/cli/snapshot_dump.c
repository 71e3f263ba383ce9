/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace snapshot dump`: the newest sound snapshot's PartitionSnapshot, as it is encoded or in protobuf's JSON
 * mapping. A snapshot never changes once it has its name, so a node may be running. */
#include "engine/cli/directory.h"
#include "engine/cli/message_json.h"

#include "atomix/multiraft/v1/fsm.pb-c.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define COMMAND "snapshot dump"
/* A running node may remove what has just been listed: then there is a newer one. */
#define ATTEMPTS 3

void snapshot_dump_help(FILE *to)
{
    fputs("usage: millrace snapshot dump DIR [--partition P] [--index I] [--raw | --json]\n"
          "\n"
          "Prints a partition's state as its newest sound snapshot holds it: an\n"
          "atomix.multiraft.v1.PartitionSnapshot. A node may be running on the directory; `millrace snapshot` has it\n"
          "take one first.\n"
          "\n"
          "Exit status: 0; 1 there is no sound snapshot; 2 usage; 3 not to be read.\n"
          "\n"
          "  --partition P      of this partition (default: of all, one a line; with --raw there must be only one)\n"
          "  --index I          the snapshot of this index, which is in its file's name\n"
          "  --raw              its bytes\n"
          "  --json             in protobuf's JSON mapping (this is the default)\n",
          to);
}

static int print_content(const struct snapshot_content *content, bool raw)
{
    struct slice state = {.data = content->sections[0], .size = content->sizes[0]};
    struct mr_error error;

    if (raw) {
        fwrite(state.data, 1, state.size, stdout);
        return EXIT_DONE;
    }
    if (!message_json(stdout, &atomix__multiraft__v1__partition_snapshot__descriptor, state)) {
        putchar('\n');
        error_set(&error, "it does not decode: it was written by something else");
        cli_complain(COMMAND, &error);
        return EXIT_FAILED;
    }
    putchar('\n');
    return EXIT_DONE;
}

/* Newest first; those that are not sound are told. -1: one was gone before it could be opened. */
static int print_newest(const struct directory_partition *partition, const struct snapshot_list *list,
                        const struct arguments *arguments, bool *found)
{
    struct mr_error error;
    int status = EXIT_DONE;

    for (unsigned n = 0; n < list->count; n++) {
        struct snapshot *snapshot = &list->snapshots[n];
        struct snapshot_content content;
        if ((arguments->given & OPTION_INDEX) != 0 && snapshot->point.index != arguments->index)
            continue;
        if (snapshot_load(&partition->place, snapshot, &content, NULL, NULL, &error) == 0) {
            *found = true;
            status = print_content(&content, (arguments->given & OPTION_RAW) != 0);
            (void)cli_printed();
            snapshot_unload(&content);
            return status;
        }
        if (error.code == ENOENT)
            return -1;
        cli_complain(COMMAND, &error);
        status = directory_status(&error);
    }
    return status;
}

static int dump_partition(struct directory *directory, uint32_t number, const struct arguments *arguments)
{
    struct directory_partition partition;
    struct mr_error error;
    bool found = false;
    int status = -1;

    directory_partition(directory, number, &partition);
    for (unsigned attempt = 0; attempt < ATTEMPTS && status < 0; attempt++) {
        struct snapshot_list list;
        if (snapshot_find(&partition.place, &list, &error) == 0) {
            status = print_newest(&partition, &list, arguments, &found);
        } else {
            cli_complain(COMMAND, &error);
            status = EXIT_UNREADABLE;
        }
        snapshot_list_free(&list);
    }
    if (found || status > EXIT_DONE)
        return status;
    if ((arguments->given & OPTION_INDEX) != 0)
        error_set(&error, "partition %" PRIu32 " has no snapshot of index %" PRIu64, number, arguments->index);
    else
        error_set(&error, "partition %" PRIu32 " has no snapshot", number);
    cli_complain(COMMAND, &error);
    return EXIT_FAILED;
}

int snapshot_dump(struct arguments *arguments)
{
    struct directory directory;
    struct mr_error error;
    int result = EXIT_DONE;

    if ((arguments->given & OPTION_HELP) != 0) {
        snapshot_dump_help(stdout);
        return cli_finish(EXIT_DONE);
    }
    if (arguments_only(arguments, OPTION_JSON | OPTION_PARTITION | OPTION_INDEX | OPTION_RAW, COMMAND, &error) != 0)
        return cli_usage(COMMAND, &error);
    if ((arguments->given & OPTION_RAW) != 0 && (arguments->given & OPTION_JSON) != 0) {
        error_set(&error, "--raw or --json, not both");
        return cli_usage(COMMAND, &error);
    }
    int begun = directory_begin(COMMAND, arguments, false, &directory);
    if (begun >= 0)
        return begun;
    if ((arguments->given & OPTION_RAW) != 0 && arguments->partition == 0 && directory.partitions > 1) {
        error_set(&error, "--raw: of which partition? Give --partition, 1 to %" PRIu32, directory.partitions);
        directory_close(&directory);
        return cli_usage(COMMAND, &error);
    }
    if (directory.memory) {
        error_set(&error, "%s was made for --durability memory: it holds nothing", directory.path);
        cli_complain(COMMAND, &error);
        result = EXIT_FAILED;
    }
    for (uint32_t number = 1; number <= directory.partitions && !directory.memory; number++) {
        if (arguments->partition != 0 && arguments->partition != number)
            continue;
        int status = dump_partition(&directory, number, arguments);
        if (status != EXIT_DONE && result != EXIT_FAILED)
            result = status;
    }
    directory_close(&directory);
    return cli_finish(result);
}
