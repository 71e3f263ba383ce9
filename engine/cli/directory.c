/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a data directory for tools: see directory.h. */
#include "engine/cli/directory.h"

#include "engine/io/files.h"
#include "engine/node/identity.h"
#include "ipc/sys.h"

#include <inttypes.h>
#include <string.h>

/* What reading needs. What would write is not there. */
static const struct io_ops read_ops = {
    .monotonic = files_monotonic,
    .wall = files_wall,
    .open_directory = files_open_directory,
    .list = files_list,
    .open = files_open,
    .is_direct = files_is_direct,
    .alignment = files_alignment,
    .size = files_size,
    .read = files_read,
    .close = files_close,
};

/* `lock`: keeps nodes from starting on it while it is open. 0; or -1 with *error: code 0 if the directory is damaged,
 * EBUSY if a node has it. */
static int open_directory(struct directory *directory, const char *path, bool lock, struct mr_error *error)
{
    struct identity identity;

    *directory = (struct directory){.path = path, .io = {.ops = &read_ops}, .lock = -1};
    if (identity_look(path, lock, &identity, &directory->lock, error) != 0)
        return -1;
    directory->secret = identity.secret;
    directory->partitions = identity.partitions;
    directory->memory = identity.memory;
    return 0;
}

void directory_close(struct directory *directory)
{
    if (directory->lock >= 0)
        (void)sys_close(directory->lock); /* was only locked */
    directory->lock = -1;
}

void directory_partition(struct directory *directory, uint32_t number, struct directory_partition *partition)
{
    identity_partition_path(directory->path, number, partition->path, sizeof(partition->path));
    partition->place = (struct snapshot_place){
        .io = &directory->io, .path = partition->path, .partition = number, .secret = directory->secret};
    partition->log = (struct log_config){.io = &directory->io,
                                         .path = partition->path,
                                         .partition = number,
                                         .secret = directory->secret,
                                         .durability = DURABILITY_SYNC};
}

int directory_status(const struct mr_error *error)
{
    return error->code == 0 ? EXIT_FAILED : EXIT_UNREADABLE;
}

int directory_begin(const char *command, const struct arguments *arguments, bool lock, struct directory *directory)
{
    struct mr_error error;

    if (arguments->operand_count != 1) {
        error_set(&error, "%s one operand, the data directory: millrace %s DIR",
                  arguments->operand_count == 0 ? "it needs" : "it takes", command);
        return cli_usage(command, &error);
    }
    if (open_directory(directory, arguments->operands[0], lock, &error) != 0) {
        cli_complain(command, &error);
        return directory_status(&error);
    }
    if (arguments->partition > directory->partitions) {
        error_set(&error, "--partition %" PRIu32 ": %s has %" PRIu32 " partition%s", arguments->partition,
                  directory->path, directory->partitions, directory->partitions == 1 ? "" : "s");
        directory_close(directory);
        return cli_usage(command, &error);
    }
    return -1;
}
