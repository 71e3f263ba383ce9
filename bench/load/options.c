/* SPDX-License-Identifier: Apache-2.0 */
/* What millrace-bench can be asked for, and how it fits together. */
#include "bench/load/bench.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: millrace-bench [options]\n"
    "\n"
    "Measures a node of Millrace: one that runs (--socket), or one that it starts for itself.\n"
    "\n"
    "What is done:\n"
    "  --service counter|map      default counter\n"
    "  --op OPERATION             counter: increment (default), get; map: put (default), get, events\n"
    "  --clients N                processes (1). events: processes that listen, besides one that puts\n"
    "  --pipeline K               requests in flight, each client (1); with --rate at most so many (32768)\n"
    "  --keys N                   of the map, which are all there before it begins (1000)\n"
    "  --skew S                   0 (default): every key alike; up to 0.99: Zipf's distribution\n"
    "  --value-size BYTES         of the map's values (100)\n"
    "  --listeners N              events: streams in all (100)\n"
    "  --rate N                   open loop: so many operations a second, all clients together; latency counts from\n"
    "                             the intended start\n"
    "  --ring-bytes N             of the clients' rings (the node's default)\n"
    "How long:\n"
    "  --seconds S                of each measuring (5)     --warm-up S   before the first (1)\n"
    "  --repeats N                measurings (3): the table shows their median and spread\n"
    "  --sample N                 time one request in N (1; 16 with --pipeline 16 or more, without --rate)\n"
    "Where:\n"
    "  --socket PATH              of a running node, which goes on afterwards\n"
    "  --partitions P             of a node started here (1)\n"
    "  --durability sync|async|memory    likewise (sync)\n"
    "  --cpus LIST                likewise: the cores of its workers\n"
    "  --client-cpus LIST         cores for the clients, in turn\n"
    "  --dir DIR                  where a node started here keeps its files (TMPDIR or /tmp)\n"
    "  --serve 'OPTIONS'          more options for a node started here\n"
    "What is printed:\n"
    "  --json FILE                the same as an object\n"
    "  --quiet                    no progress line\n"
    "\n"
    "Exit status: 0 measured without an error; 1 errors, or it could not be done; 2 usage.\n";

enum option_name {
    OPTION_SERVICE = 1,
    OPTION_OP,
    OPTION_CLIENTS,
    OPTION_PIPELINE,
    OPTION_PARTITIONS,
    OPTION_DURABILITY,
    OPTION_KEYS,
    OPTION_SKEW,
    OPTION_VALUE_SIZE,
    OPTION_LISTENERS,
    OPTION_RATE,
    OPTION_SECONDS,
    OPTION_WARM_UP,
    OPTION_REPEATS,
    OPTION_SAMPLE,
    OPTION_RING_BYTES,
    OPTION_SOCKET,
    OPTION_CPUS,
    OPTION_CLIENT_CPUS,
    OPTION_DIR,
    OPTION_SERVE,
    OPTION_JSON,
    OPTION_QUIET,
    OPTION_HELP
};

static const struct option names[] = {{"service", required_argument, NULL, OPTION_SERVICE},
                                      {"op", required_argument, NULL, OPTION_OP},
                                      {"clients", required_argument, NULL, OPTION_CLIENTS},
                                      {"pipeline", required_argument, NULL, OPTION_PIPELINE},
                                      {"partitions", required_argument, NULL, OPTION_PARTITIONS},
                                      {"durability", required_argument, NULL, OPTION_DURABILITY},
                                      {"keys", required_argument, NULL, OPTION_KEYS},
                                      {"skew", required_argument, NULL, OPTION_SKEW},
                                      {"value-size", required_argument, NULL, OPTION_VALUE_SIZE},
                                      {"listeners", required_argument, NULL, OPTION_LISTENERS},
                                      {"rate", required_argument, NULL, OPTION_RATE},
                                      {"seconds", required_argument, NULL, OPTION_SECONDS},
                                      {"warm-up", required_argument, NULL, OPTION_WARM_UP},
                                      {"repeats", required_argument, NULL, OPTION_REPEATS},
                                      {"sample", required_argument, NULL, OPTION_SAMPLE},
                                      {"ring-bytes", required_argument, NULL, OPTION_RING_BYTES},
                                      {"socket", required_argument, NULL, OPTION_SOCKET},
                                      {"cpus", required_argument, NULL, OPTION_CPUS},
                                      {"client-cpus", required_argument, NULL, OPTION_CLIENT_CPUS},
                                      {"dir", required_argument, NULL, OPTION_DIR},
                                      {"serve", required_argument, NULL, OPTION_SERVE},
                                      {"json", required_argument, NULL, OPTION_JSON},
                                      {"quiet", no_argument, NULL, OPTION_QUIET},
                                      {"help", no_argument, NULL, OPTION_HELP},
                                      {NULL, 0, NULL, 0}};

static bool wrong;

static double number(const char *name, const char *text, double least, double most)
{
    char *end;

    errno = 0;
    double value = strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0' || !(value >= least && value <= most)) {
        fprintf(stderr, "millrace-bench: --%s takes a number from %g to %g, not `%s`\n", name, least, most, text);
        wrong = true;
        return least;
    }
    return value;
}

/* Without a fraction; 1e6 is welcome. */
static uint64_t whole(const char *name, const char *text, double least, double most)
{
    double value = number(name, text, least, most);

    if (value != (double)(uint64_t)value) {
        fprintf(stderr, "millrace-bench: --%s takes a whole number, not `%s`\n", name, text);
        wrong = true;
    }
    return (uint64_t)value;
}

unsigned bench_cores(const char *list, unsigned *cores, unsigned room)
{
    unsigned count = 0;

    for (const char *at = list; count < room; at++) {
        char *end;
        unsigned long core = strtoul(at, &end, 10);
        if (*at < '0' || *at > '9' || core >= CPU_SETSIZE)
            return 0;
        cores[count++] = (unsigned)core;
        at = end;
        if (*at != ',')
            return *at == '\0' ? count : 0;
    }
    return 0;
}

static const char *core_list(const char *name, const char *text)
{
    unsigned cores[BENCH_CLIENTS_MAX];

    if (bench_cores(text, cores, BENCH_CLIENTS_MAX) == 0) {
        fprintf(stderr, "millrace-bench: --%s takes numbers of cores like 1,3, not `%s`\n", name, text);
        wrong = true;
    }
    return text;
}

static const struct {
    const char *service, *op;
    enum bench_operation operation;
} operations[] = {{"counter", "increment", BENCH_INCREMENT},
                  {"counter", "get", BENCH_COUNTER_GET},
                  {"map", "put", BENCH_PUT},
                  {"map", "get", BENCH_GET},
                  {"map", "events", BENCH_EVENTS}};

static void find_operation(struct bench_options *options)
{
    for (size_t n = 0; n < sizeof(operations) / sizeof(operations[0]); n++)
        if (strcmp(operations[n].service, options->service) == 0 &&
            (options->op == NULL || strcmp(operations[n].op, options->op) == 0)) {
            options->op = operations[n].op;
            options->operation = operations[n].operation;
            return;
        }
    fprintf(stderr, "millrace-bench: there is no --service %s --op %s\n", options->service,
            options->op != NULL ? options->op : "(none)");
    wrong = true;
}

static void take(struct bench_options *options, enum option_name option, const char *name, const char *value)
{
    switch (option) {
    case OPTION_SERVICE:
        options->service = value;
        return;
    case OPTION_OP:
        options->op = value;
        return;
    case OPTION_CLIENTS:
        options->clients = (unsigned)whole(name, value, 1, BENCH_CLIENTS_MAX - 1);
        return;
    case OPTION_PIPELINE:
        options->pipeline = (unsigned)whole(name, value, 1, BENCH_PIPELINE_MAX);
        return;
    case OPTION_PARTITIONS:
        options->partitions = (unsigned)whole(name, value, 1, BENCH_PARTITIONS_MAX);
        return;
    case OPTION_DURABILITY:
        options->durability = value;
        return;
    case OPTION_KEYS:
        options->keys = whole(name, value, 2, 1e9);
        return;
    case OPTION_SKEW:
        options->skew = number(name, value, 0, 0.99);
        return;
    case OPTION_VALUE_SIZE:
        options->value_size = whole(name, value, 0, 256e6);
        return;
    case OPTION_LISTENERS:
        options->listeners = (unsigned)whole(name, value, 1, 65536);
        return;
    case OPTION_RATE:
        options->rate = number(name, value, 1, 1e9);
        return;
    case OPTION_SECONDS:
        options->seconds = number(name, value, 0.01, 86400);
        return;
    case OPTION_WARM_UP:
        options->warm_up = number(name, value, 0, 3600);
        return;
    case OPTION_REPEATS:
        options->repeats = (unsigned)whole(name, value, 1, BENCH_REPEATS_MAX);
        return;
    case OPTION_SAMPLE:
        options->sample = (unsigned)whole(name, value, 1, 1e6);
        return;
    case OPTION_RING_BYTES:
        options->ring_bytes = whole(name, value, 16384, 1 << 30);
        return;
    case OPTION_SOCKET:
        options->socket = value;
        return;
    case OPTION_CPUS:
        options->cpus = value;
        return;
    case OPTION_CLIENT_CPUS:
        options->client_cpus = core_list(name, value);
        return;
    case OPTION_DIR:
        options->dir = value;
        return;
    case OPTION_SERVE:
        options->serve = value;
        return;
    case OPTION_JSON:
        options->json = value;
        return;
    case OPTION_QUIET:
        options->quiet = true;
        return;
    case OPTION_HELP:
        return;
    }
}

int bench_options_parse(int argc, char **argv, struct bench_options *options)
{
    *options = (struct bench_options){.service = "counter",
                                      .clients = 1,
                                      .partitions = 1,
                                      .durability = "sync",
                                      .keys = 1000,
                                      .value_size = 100,
                                      .listeners = 100,
                                      .seconds = 5,
                                      .warm_up = 1,
                                      .repeats = 3};
    int option, place;
    while ((option = getopt_long(argc, argv, "", names, &place)) != -1) {
        if (option == OPTION_HELP) {
            fputs(help, stdout);
            return 1;
        }
        if (option == '?')
            return 2;
        take(options, (enum option_name)option, names[place].name, optarg);
    }
    if (optind < argc) {
        fprintf(stderr, "millrace-bench: `%s` is not an option; see --help\n", argv[optind]);
        return 2;
    }
    find_operation(options);
    if (options->pipeline == 0)
        options->pipeline = options->rate > 0 ? BENCH_PIPELINE_MAX : 1;
    if (options->sample == 0)
        options->sample = options->pipeline >= 16 && options->rate == 0 ? 16 : 1;
    return wrong ? 2 : 0;
}
