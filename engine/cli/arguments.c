/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a command line apart: see arguments.h. Done by getopt_long() in the mode in which it gives every argument in
 * its place, so that one with a digit behind its '-' can be taken as an operand before getopt_long() sees an option in
 * it. */
#include "engine/cli/arguments.h"

#include "engine/node/values.h"

#include <millrace/limits.h>

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

/* What getopt_long() gives for a long option: its bit, and one that no character has. */
#define LONG_OPTION 0x10000
static const struct option long_options[] = {
    {"socket", required_argument, NULL, LONG_OPTION | OPTION_SOCKET},
    {"namespace", required_argument, NULL, LONG_OPTION | OPTION_NAMESPACE},
    {"help", no_argument, NULL, LONG_OPTION | OPTION_HELP},
    {"json", no_argument, NULL, LONG_OPTION | OPTION_JSON},
    {"ttl", required_argument, NULL, LONG_OPTION | OPTION_TTL},
    {"index", required_argument, NULL, LONG_OPTION | OPTION_INDEX},
    {"wait", required_argument, NULL, LONG_OPTION | OPTION_WAIT},
    {"timeout", required_argument, NULL, LONG_OPTION | OPTION_TIMEOUT},
    {"partition", required_argument, NULL, LONG_OPTION | OPTION_PARTITION},
    {"raw", no_argument, NULL, LONG_OPTION | OPTION_RAW},
    {"replay", no_argument, NULL, LONG_OPTION | OPTION_REPLAY},
    {"version", no_argument, NULL, LONG_OPTION | OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

/* getopt_long() keeps its place in globals; this sets them to the first argument. */
static void restart_getopt(char **argv, const char *mode)
{
    opterr = 0;
    optind = 0;
    (void)getopt_long(1, argv, mode, long_options, NULL);
}

static bool is_negative_number(const char *text)
{
    return text[0] == '-' && text[1] >= '0' && text[1] <= '9';
}

static const char *option_name(unsigned bit)
{
    for (const struct option *option = long_options; option->name != NULL; option++)
        if (((unsigned)option->val & bit) != 0)
            return option->name;
    return "?";
}

/* getopt_long() met what it does not take: `result` is '?' or ':'; `argument` is where it stood. */
static int refuse(int result, const char *argument, struct mr_error *error)
{
    if (result == ':')
        return error_set(error, "%s needs a value", argument);
    if (argument[0] == '-' && argument[1] == '-' && strchr(argument, '=') != NULL)
        return error_set(error, "%s: there is no such option, or it takes no value (try --help)", argument);
    return error_set(
        error,
        "%s: there is no such option (try --help; an operand that starts with '-' and no digit goes behind "
        "a --)",
        argument);
}

static int duration(const char *option, const char *text, bool zero, int64_t *nanoseconds, struct mr_error *error)
{
    uint64_t value;

    if (!value_duration(text, &value) || value > INT64_MAX || (value == 0 && !zero))
        return error_set(error, "--%s: '%s' is not a duration%s: a whole number and ns, us, ms, s, m or h, as in 5s",
                         option, text, zero ? "" : " over zero");
    *nanoseconds = (int64_t)value;
    return 0;
}

static int partition(const char *text, uint32_t *number, struct mr_error *error)
{
    uint64_t value;

    if (!value_number(text, &value) || value < 1 || value > MR_PARTITIONS_MAX)
        return error_set(error, "--partition: '%s' is not a partition: 1 to %d", text, MR_PARTITIONS_MAX);
    *number = (uint32_t)value;
    return 0;
}

static int take_option(enum option_bit bit, char *value, struct arguments *arguments, struct mr_error *error)
{
    arguments->given |= bit;
    switch (bit) {
    case OPTION_SOCKET:
        arguments->socket = value;
        return 0;
    case OPTION_NAMESPACE:
        arguments->name_space = value;
        return 0;
    case OPTION_TTL:
        return duration("ttl", value, false, &arguments->ttl, error);
    case OPTION_WAIT:
        return duration("wait", value, true, &arguments->wait, error);
    case OPTION_TIMEOUT:
        return duration("timeout", value, true, &arguments->timeout, error);
    case OPTION_INDEX:
        if (!value_number(value, &arguments->index) || arguments->index == 0)
            return error_set(
                error, "--index: '%s' is not an entry's index: a whole number from 1 to 18446744073709551615", value);
        return 0;
    case OPTION_PARTITION:
        return partition(value, &arguments->partition, error);
    case OPTION_HELP:
    case OPTION_JSON:
    case OPTION_VERSION:
    case OPTION_REPLAY:
    case OPTION_RAW:
        return 0;
    }
    return error_set(error, "option %#x", (unsigned)bit); /* not reached: every bit stands above */
}

int arguments_parse(int argc, char **argv, struct arguments *arguments, struct mr_error *error)
{
    *arguments = (struct arguments){.operands = argv + 1};
    /* '-': operands come as option 1, in their place. Those met are moved to the front of argv, where getopt_long() has
     * been already. */
    restart_getopt(argv, "-:h");
    while (optind < argc) {
        char *argument = argv[optind];
        if (is_negative_number(argument)) {
            arguments->operands[arguments->operand_count++] = argument;
            optind++;
            continue;
        }
        int result = getopt_long(argc, argv, "-:h", long_options, NULL);
        if (result == -1)
            break; /* behind a "--" */
        if (result == '?' || result == ':')
            return refuse(result, argument, error);
        if (result == 1)
            arguments->operands[arguments->operand_count++] = optarg;
        else if (take_option(result == 'h' ? OPTION_HELP : (enum option_bit)(result & ~LONG_OPTION), optarg, arguments,
                             error) != 0)
            return -1;
    }
    while (optind < argc)
        arguments->operands[arguments->operand_count++] = argv[optind++];
    return 0;
}

int arguments_only(const struct arguments *arguments, unsigned taken, const char *what, struct mr_error *error)
{
    unsigned wrong = arguments->given & ~(taken | OPTIONS_OF_ALL);

    if (wrong == 0)
        return 0;
    return error_set(error, "%s takes no --%s", what, option_name(wrong & -wrong));
}

int arguments_first_word(int argc, char **argv, int *behind, unsigned *given, struct mr_error *error)
{
    *given = 0;
    restart_getopt(argv, "+:h");
    while (optind < argc) {
        int before = optind;
        int result = getopt_long(argc, argv, "+:h", long_options, NULL);
        if (result == -1) {
            *behind = before; /* getopt_long() has gone over a "--", if one stood here */
            return optind;
        }
        if (result == '?' || result == ':')
            return refuse(result, argv[before], error);
        *given |= result == 'h' ? (unsigned)OPTION_HELP : (unsigned)(result & ~LONG_OPTION);
    }
    *behind = optind;
    return argc;
}

int arguments_number(const char *text, const char *what, int64_t *number, struct mr_error *error)
{
    const char *digits = text[0] == '-' || text[0] == '+' ? text + 1 : text;
    char *end;

    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (*digits < '0' || *digits > '9' || *end != '\0' || errno != 0)
        return error_set(error, "%s: '%s' is not a whole number from -9223372036854775808 to 9223372036854775807", what,
                         text);
    *number = value;
    return 0;
}
