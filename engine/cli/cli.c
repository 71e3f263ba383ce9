/* SPDX-License-Identifier: Apache-2.0 */
/* What the subcommands have in common: how they complain, how they end, how `millrace counter` and `millrace map` go
 * from a table of operations to one call on the node. */
#include "engine/cli/cli.h"

#include <millrace/limits.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void cli_help(FILE *to)
{
    fputs("usage: millrace COMMAND ...\n"
          "\n"
          "  serve     runs a node on a data directory\n"
          "  counter   reads and changes a counter\n"
          "  map       reads and changes a map's entries\n"
          "  session   lists sessions, and ends those that nobody uses\n"
          "  snapshot  has the node write its state down now; `snapshot dump` prints what it wrote\n"
          "  status    what the node and its partitions are doing\n"
          "  raw       sends encoded messages of atomix.multiraft.v1, prints the answers\n"
          "  verify    says whether a data directory is sound\n"
          "  log       `log dump` prints what the log of a data directory holds\n"
          "\n"
          "`millrace COMMAND --help` says more about each. All that speak to a node take, anywhere:\n"
          "\n"
          "  --socket PATH      the node's socket (else the environment's MILLRACE_SOCKET)\n"
          "  --namespace NAME   of the services (default: default)\n"
          "\n"
          "Durations are a whole number and ns, us, ms, s, m or h, sizes one and K, M or G (of 1024). An operand that\n"
          "starts with '-' and a digit is a number; any other that starts with '-' goes behind a --.\n"
          "\n"
          "Exit status: 0; 1 the operation failed (`STATUS_NAME: message` on standard error); 2 the command line is\n"
          "wrong; 3 there is no node at the socket, or the directory cannot be read. `millrace --version` prints the\n"
          "version.\n",
          to);
}

void cli_complain(const char *command, const struct mr_error *error)
{
    fprintf(stderr, "millrace%s%s: %s\n", command != NULL ? " " : "", command != NULL ? command : "", error->text);
}

int cli_usage(const char *command, const struct mr_error *error)
{
    cli_complain(command, error);
    return EXIT_USAGE;
}

int cli_failed(enum mr_status status, const char *message)
{
    fprintf(stderr, "%s: %s\n", mr_status_name(status), message);
    return status == MR_NO_NODE ? EXIT_NO_NODE : EXIT_FAILED;
}

static int print_error; /* an errno; 0: none yet */

bool cli_printed(void)
{
    if (!ferror(stdout))
        return true;
    if (print_error == 0)
        print_error = errno;
    return false;
}

int cli_finish(int status)
{
    fflush(stdout);
    if (cli_printed())
        return status;
    fprintf(stderr, "millrace: standard output could not be written: %s\n", strerror(print_error));
    return EXIT_FAILED;
}

int cli_socket(const struct arguments *arguments, const char **socket, struct mr_error *error)
{
    bool given = (arguments->given & OPTION_SOCKET) != 0;
    const char *path = given ? arguments->socket : getenv("MILLRACE_SOCKET");
    const char *whose = given ? "--socket" : "MILLRACE_SOCKET";

    if (path == NULL || (*path == '\0' && !given))
        return error_set(error, "which node? Give --socket PATH, or set MILLRACE_SOCKET");
    if (*path == '\0' || strlen(path) > MR_SOCKET_PATH_MAX)
        return error_set(error, "%s: the path of a socket has 1 to %d bytes, this one has %zu", whose,
                         MR_SOCKET_PATH_MAX, strlen(path));
    *socket = path;
    return 0;
}

/* "get, set, increment", in `text`. */
static const char *list_names(const struct operation *operations, char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    for (; operations->name != NULL && used < size; operations++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", operations->name);
    return text;
}

const char *operation_operand(const struct operation *operation, int n, char text[32])
{
    const char *at = operation->operands;

    for (; n > 0 && *at != '\0'; n--) {
        at += strcspn(at, " ");
        at += strspn(at, " ");
    }
    at += strspn(at, "[");
    snprintf(text, 32, "%.*s", (int)strcspn(at, " ]|"), at);
    return text;
}

/* The operation that the operands name, with their number and the options checked; NULL with *error. */
static const struct operation *choose(const char *command, const struct arguments *arguments,
                                      const struct operation *operations, struct mr_error *error)
{
    char text[160];
    const char *word = arguments->operand_count > 0 ? arguments->operands[0] : NULL;
    const struct operation *operation = operations;

    if (word == NULL) {
        error_set(error, "which operation? One of %s", list_names(operations, text, sizeof(text)));
        return NULL;
    }
    while (operation->name != NULL && strcmp(operation->name, word) != 0)
        operation++;
    if (operation->name == NULL) {
        error_set(error, "'%s' is no operation; the operations are %s", word,
                  list_names(operations, text, sizeof(text)));
        return NULL;
    }
    int count = arguments->operand_count - 1;
    if (count < operation->least || count > operation->most) {
        error_set(error, "%s operands for %s: it takes %s", count < operation->least ? "too few" : "too many",
                  operation->name, operation->operands);
        return NULL;
    }
    snprintf(text, sizeof(text), "%s %s", command, operation->name);
    if (arguments_only(arguments, operation->options | OPTION_TIMEOUT, text, error) != 0)
        return NULL;
    return operation;
}

static int call(const char *socket, const struct operation *operation, const struct arguments *arguments)
{
    struct mr_options options = {
        .size = sizeof(options),
        .name_space = arguments->name_space,
        .call_timeout_ns = arguments->timeout,
        .reconnect_ns = arguments->timeout, /* 0, not given: the library's own */
    };
    mr_client *client = NULL;
    int result = EXIT_DONE;

    enum mr_status status = mr_connect(socket, &options, &client);
    if (status == MR_OK)
        status = operation->run(client, arguments);
    (void)cli_printed();
    if (status != MR_OK)
        result = cli_failed(status, mr_message(client));
    mr_close(client);
    return cli_finish(result);
}

int service_main(int argc, char **argv, const struct operation *operations, void (*help)(FILE *))
{
    struct arguments arguments;
    struct mr_error error;
    const char *socket;

    if (arguments_parse(argc, argv, &arguments, &error) != 0)
        return cli_usage(argv[0], &error);
    if ((arguments.given & OPTION_HELP) != 0) {
        help(stdout);
        return cli_finish(EXIT_DONE);
    }
    const struct operation *operation = choose(argv[0], &arguments, operations, &error);
    if (operation == NULL)
        return cli_usage(argv[0], &error);
    arguments.operands++; /* behind the operation's name */
    arguments.operand_count--;
    if (cli_socket(&arguments, &socket, &error) != 0)
        return cli_usage(argv[0], &error);
    int status = operation->prepare != NULL ? (int)operation->prepare(operation, &arguments, &error) : EXIT_DONE;
    if (status == EXIT_DONE)
        status = call(socket, operation, &arguments);
    else
        cli_complain(argv[0], &error);
    free(arguments.input);
    return status;
}
