/* SPDX-License-Identifier: Apache-2.0 */
/* A data directory as the tools see it that look into one without a node: read only, nothing in it is changed. What
 * stands in logs and snapshots is engine/log's affair. */
#ifndef ENGINE_CLI_DIRECTORY_H
#define ENGINE_CLI_DIRECTORY_H

#include "engine/cli/cli.h"
#include "engine/io/io.h"
#include "engine/log/log.h"
#include "engine/log/snapshot.h"

#include <stdbool.h>
#include <stdint.h>

struct directory {
    const char *path;
    struct io io; /* the synchronous half only; nothing that writes */
    uint64_t secret;
    uint32_t partitions;
    bool memory; /* made for --durability memory: there is nothing in it */
    int lock;    /* -1: none */
};

void directory_close(struct directory *directory);

/* One partition of it, as engine/log wants it. */
struct directory_partition {
    char path[4096];
    struct snapshot_place place;
    struct log_config log; /* progress and notice are the caller's to add */
};
void directory_partition(struct directory *directory, uint32_t number, struct directory_partition *partition);

/* What *error means for the command's end: EXIT_FAILED for damage (code 0), else EXIT_UNREADABLE. */
enum { EXIT_UNREADABLE = 3 };
int directory_status(const struct mr_error *error);

/* Opens the directory that is a tool's one operand; a --partition must be one of its partitions. -1: go on; else what
 * to exit with, and standard error says why. */
int directory_begin(const char *command, const struct arguments *arguments, bool lock, struct directory *directory);

#endif
