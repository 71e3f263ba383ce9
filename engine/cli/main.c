/* SPDX-License-Identifier: Apache-2.0 */
/* The `millrace` command: finds the subcommand among the words and hands the rest to it. Options that stand before the
 * subcommand's word belong to it as much as those behind. */
#include "engine/cli/cli.h"
#include "engine/node/serve.h"
#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct subcommand {
    const char *word;
    int (*run)(int argc, char **argv);
} subcommands[] = {
    {"serve", serve_main},       {"counter", counter_main}, {"map", map_main},
    {"status", status_main},     {"raw", raw_main},         {"session", session_main},
    {"snapshot", snapshot_main}, {"verify", verify_main},   {"log", log_main},
};

static const struct subcommand *find(const char *word)
{
    for (size_t i = 0; i < sizeof(subcommands) / sizeof(subcommands[0]); i++)
        if (strcmp(subcommands[i].word, word) == 0)
            return &subcommands[i];
    return NULL;
}

/* Without a subcommand: --help, --version, or a mistake. */
static int no_word(unsigned given)
{
    if ((given & OPTION_HELP) != 0) {
        cli_help(stdout);
        return cli_finish(EXIT_DONE);
    }
    if ((given & OPTION_VERSION) != 0) {
        printf("millrace %s\n", mr_version());
        return cli_finish(EXIT_DONE);
    }
    cli_help(stderr);
    return EXIT_USAGE;
}

/* A standard descriptor that is closed would be the next file or socket that is opened, and what is printed would go
 * there: into the data directory, or to the node. What stands in its place fails as a closed one does: it is not open
 * for what it is there for. */
static int keep_standard_descriptors(struct mr_error *error)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (sys_fcntl(fd, F_GETFD, 0) < 0 && errno == EBADF &&
            sys_open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY, 0) < 0)
            return error_system(error, errno, "descriptor %d is closed, and /dev/null cannot be opened instead", fd);
    return 0;
}

int main(int argc, char **argv)
{
    struct mr_error error;
    unsigned given;
    int behind;

    if (keep_standard_descriptors(&error) != 0)
        return cli_failed(MR_ERROR, error.text);
    if (argc < 1)
        return EXIT_USAGE;
    int word = arguments_first_word(argc, argv, &behind, &given, &error);
    if (word < 0)
        return cli_usage(NULL, &error);
    if (word == argc)
        return no_word(given);
    const struct subcommand *subcommand = find(argv[word]);
    if (subcommand == NULL) {
        error_set(
            &error,
            "'%s' is no command; the commands are serve, counter, map, session, snapshot, status, raw, verify and log",
            argv[word]);
        return cli_usage(NULL, &error);
    }

    /* The word first, then the options that stood before it, then the rest. */
    char **words = calloc((size_t)argc + 1, sizeof(*words));
    if (words == NULL)
        return cli_failed(MR_NO_MEMORY, "no memory for the command line");
    int count = 0;
    words[count++] = argv[word];
    for (int i = 1; i < behind; i++)
        words[count++] = argv[i];
    for (int i = word + 1; i < argc; i++)
        words[count++] = argv[i];
    int status = subcommand->run(count, words);
    free(words);
    return status;
}
