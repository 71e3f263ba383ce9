/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace map events` and `millrace map entries`. */
#ifndef ENGINE_CLI_MAP_STREAMS_H
#define ENGINE_CLI_MAP_STREAMS_H

#include "engine/cli/cli.h"

/* Before the node is asked: from now on SIGINT and SIGTERM end the process with EXIT_DONE. */
enum exit_status map_prepare_events(const struct operation *operation, struct arguments *arguments,
                                    struct mr_error *error);
enum mr_status map_run_events(mr_client *client, const struct arguments *arguments);
enum mr_status map_run_entries(mr_client *client, const struct arguments *arguments);

/* An entry as members of a JSON object. */
void map_print_members(FILE *to, bool *first, const struct mr_entry *entry);

#endif
