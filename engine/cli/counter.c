/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace counter`: one operation on one counter, the value afterwards on standard output. */
#include "engine/cli/cli.h"

#include <millrace/counter.h>

#include <inttypes.h>

void counter_help(FILE *to)
{
    fputs("usage: millrace counter OPERATION NAME ...\n"
          "\n"
          "  get NAME                              the value; a counter that nobody has changed is 0\n"
          "  set NAME VALUE\n"
          "  increment NAME [DELTA]                DELTA is 1 unless given\n"
          "  decrement NAME [DELTA]\n"
          "  compare-and-set NAME COMPARE UPDATE   CONFLICT, and no change, if the value is not COMPARE\n"
          "\n"
          "Each prints the value afterwards, in decimal. Numbers are from -2^63 to 2^63 - 1; counters wrap round.\n"
          "\n"
          "  --socket PATH      the node's socket (else the environment's MILLRACE_SOCKET)\n"
          "  --namespace NAME   of the counter (default: default)\n"
          "  --timeout D        gives up after this long, with TIMEOUT: a change may be made all the same (default:\n"
          "                     waits as long as the node is there)\n",
          to);
}

/* The numbers behind NAME. */
static enum exit_status check(const struct operation *operation, struct arguments *arguments, struct mr_error *error)
{
    char name[32];
    int64_t number;

    for (int i = 1; i < arguments->operand_count; i++)
        if (arguments_number(arguments->operands[i], operation_operand(operation, i, name), &number, error) != 0)
            return EXIT_USAGE;
    return EXIT_DONE;
}

/* The n-th operand, which check() let pass; 1 if it is not given. */
static int64_t number_of(const struct arguments *arguments, int n)
{
    int64_t number = 1;

    if (n < arguments->operand_count && arguments_number(arguments->operands[n], "", &number, NULL) != 0)
        return 1;
    return number;
}

enum change { GET, SET, INCREMENT, DECREMENT, COMPARE_AND_SET };

static enum mr_status run(mr_client *client, const struct arguments *arguments, enum change change)
{
    int64_t first = number_of(arguments, 1), value = 0;
    mr_counter *counter;
    enum mr_status status = mr_counter_open(client, arguments->operands[0], &counter);

    if (status != MR_OK)
        return status;
    switch (change) {
    case GET:
        status = mr_counter_get(counter, &value);
        break;
    case SET:
        status = mr_counter_set(counter, first, &value);
        break;
    case INCREMENT:
        status = mr_counter_increment(counter, first, &value);
        break;
    case DECREMENT:
        status = mr_counter_decrement(counter, first, &value);
        break;
    case COMPARE_AND_SET:
        status = mr_counter_compare_and_set(counter, first, number_of(arguments, 2), &value);
        break;
    }
    if (status == MR_OK)
        printf("%" PRId64 "\n", value);
    return status;
}

static enum mr_status run_get(mr_client *client, const struct arguments *arguments)
{
    return run(client, arguments, GET);
}

static enum mr_status run_set(mr_client *client, const struct arguments *arguments)
{
    return run(client, arguments, SET);
}

static enum mr_status run_increment(mr_client *client, const struct arguments *arguments)
{
    return run(client, arguments, INCREMENT);
}

static enum mr_status run_decrement(mr_client *client, const struct arguments *arguments)
{
    return run(client, arguments, DECREMENT);
}

static enum mr_status run_compare_and_set(mr_client *client, const struct arguments *arguments)
{
    return run(client, arguments, COMPARE_AND_SET);
}

static const struct operation operations[] = {
    {.name = "get", .operands = "NAME", .least = 1, .most = 1, .run = run_get},
    {.name = "set", .operands = "NAME VALUE", .least = 2, .most = 2, .run = run_set, .prepare = check},
    {.name = "increment", .operands = "NAME [DELTA]", .least = 1, .most = 2, .run = run_increment, .prepare = check},
    {.name = "decrement", .operands = "NAME [DELTA]", .least = 1, .most = 2, .run = run_decrement, .prepare = check},
    {.name = "compare-and-set",
     .operands = "NAME COMPARE UPDATE",
     .least = 3,
     .most = 3,
     .run = run_compare_and_set,
     .prepare = check},
    {.name = NULL},
};

int counter_main(int argc, char **argv)
{
    return service_main(argc, argv, operations, counter_help);
}
