/* SPDX-License-Identifier: Apache-2.0 */
/* The `millrace` command: what its subcommands share. Each of them stands in a file of its own and is a client of the
 * node through the public headers; `serve` alone is the node. */
#ifndef ENGINE_CLI_CLI_H
#define ENGINE_CLI_CLI_H

#include "engine/cli/arguments.h"

#include <millrace/millrace.h>

#include <stdio.h>

/* What the process ends with. */
enum exit_status {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,  /* the operation failed; "STATUS_NAME: message" is on standard error */
    EXIT_USAGE = 2,   /* the arguments are wrong; standard error says which and what is allowed */
    EXIT_NO_NODE = 3, /* nobody listens at the socket, or the node went away */
};

/* The subcommands. argv[0] is the subcommand's word; options that stood before it are among the others. */
int counter_main(int argc, char **argv);
int map_main(int argc, char **argv);
int status_main(int argc, char **argv);
int raw_main(int argc, char **argv);
int session_main(int argc, char **argv);
int snapshot_main(int argc, char **argv);
int verify_main(int argc, char **argv);
int log_main(int argc, char **argv);
/* `millrace snapshot dump`: its operands are those behind the word `dump`. */
int snapshot_dump(struct arguments *arguments);

/* Their texts for --help. */
void cli_help(FILE *to);
void counter_help(FILE *to);
void map_help(FILE *to);
void status_help(FILE *to);
void raw_help(FILE *to);
void session_help(FILE *to);
void snapshot_help(FILE *to);
void verify_help(FILE *to);
void log_help(FILE *to);
void snapshot_dump_help(FILE *to);

/* One operation of a service, as the command line names it. */
struct operation {
    const char *name;     /* "compare-and-set" */
    const char *operands; /* what follows it, for messages: "NAME COMPARE UPDATE" */
    int least, most;      /* how many operands, NAME included */
    unsigned options;     /* OPTION_ bits it takes besides those of all commands */
    /* Looks at the operands and gets what they name, before anything is connected: EXIT_DONE, or what to exit with and
     * *error. NULL: there is nothing to do. */
    enum exit_status (*prepare)(const struct operation *operation, struct arguments *arguments, struct mr_error *error);
    /* Does it, and prints what it gives; mr_message(client) says why not where it is not MR_OK. */
    enum mr_status (*run)(mr_client *client, const struct arguments *arguments);
};
/* The name of the n-th operand (from 0) in `operands`, without brackets: "UPDATE". In `text`, which is also
 * returned. */
const char *operation_operand(const struct operation *operation, int n, char text[32]);
/* Runs `millrace COMMAND OPERATION ...` by a table that ends with a NULL name. */
int service_main(int argc, char **argv, const struct operation *operations, void (*help)(FILE *));

/* Prints "millrace COMMAND: " and the error; command may be NULL. */
void cli_complain(const char *command, const struct mr_error *error);
/* The same; returns EXIT_USAGE. */
int cli_usage(const char *command, const struct mr_error *error);
/* Prints "STATUS_NAME: message"; returns what to exit with for that status. */
int cli_failed(enum mr_status status, const char *message);
/* False: standard output could not be written. To be asked behind what prints, before anything else fails: errno as it
 * is then is what cli_finish() tells. */
bool cli_printed(void);
/* Flushes standard output: `status`, or EXIT_FAILED with a message if not all of it could be written. */
int cli_finish(int status);

/* The socket of --socket, or else of the environment's MILLRACE_SOCKET. -1: none is given, or it is too long. */
int cli_socket(const struct arguments *arguments, const char **socket, struct mr_error *error);

#endif
