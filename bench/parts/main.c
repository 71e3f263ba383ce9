/* SPDX-License-Identifier: Apache-2.0 */
/* Which parts there are, and what is printed of them. */
#include "bench/parts/parts.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct part {
    const char *name;
    void (*run)(const struct parts_options *options);
    const char *what;
} parts[] = {
    {"core-to-core", part_core_to_core, "a cache line there and back between two cores; memcpy"},
    {"ring", part_ring, "frames of 32 bytes through a ring, one way; and one there and back"},
    {"decode", part_decode, "reading a command in place"},
    {"state", part_state, "the state machine without log and rings: increments, puts"},
    {"log", part_log, "the log without state machine and disk"},
    {"bare-writes", part_bare_writes, "durable writes by io_uring alone: --size, --depth"},
    {"bare-paced", part_bare_paced, "the same at a fixed rate: --size, --rate"},
    {"bare-stream", part_bare_stream, "the device, read and written from end to end"},
    {"recovery", part_recovery, "reading a log of increments back: --entries"},
    {"snapshot", part_snapshot, "writing and loading a snapshot, and the fork: --bytes of state"},
};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

static FILE *json;
static const char *current;
static bool any;

void report(const char *name, double value, const char *unit, double limit)
{
    printf("%-14s %-28s %14.2f %-10s", current, name, value, unit);
    if (limit > 0)
        printf(" %8.2f of its limit %.2f", value / limit, limit);
    putchar('\n');
    fflush(stdout);
    if (json == NULL)
        return;
    fprintf(json, "%s\n  {\"part\": \"%s\", \"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"", any ? "," : "",
            current, name, value, unit);
    if (limit > 0)
        fprintf(json, ", \"limit\": %.6g, \"ratio\": %.6g", limit, value / limit);
    fputc('}', json);
    any = true;
}

void die(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "millrace-parts: %s: ", current != NULL ? current : "cannot begin");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

void run_on(int core)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    sched_setaffinity(0, sizeof(set), &set); /* where it is refused the figures say so themselves */
}

int by_number(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* --cores. */
static void take_cores(const char *text, int cores[2])
{
    int end = 0;

    if (sscanf(text, "%d,%d%n", &cores[0], &cores[1], &end) == 2 && text[end] == '\0' && cores[0] >= 0 &&
        cores[0] < CPU_SETSIZE && cores[1] >= 0 && cores[1] < CPU_SETSIZE)
        return;
    fprintf(stderr, "millrace-parts: --cores takes two numbers like 0,1, not `%s`\n", text);
    exit(2);
}

/* The first two cores that this process may run on; with only one, that one twice. */
static void find_cores(int cores[2])
{
    cpu_set_t set;
    int found = 0;

    cores[0] = cores[1] = 0;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return;
    for (int core = 0; core < CPU_SETSIZE && found < 2; core++)
        if (CPU_ISSET((size_t)core, &set))
            cores[found++] = core;
    if (found == 1)
        cores[1] = cores[0];
}

static void usage(FILE *to)
{
    fputs("usage: millrace-parts [options] [PART ...]\n\nMeasures parts of a node (all of them unless named):\n", to);
    for (size_t n = 0; n < PARTS; n++)
        fprintf(to, "  %-14s %s\n", parts[n].name, parts[n].what);
    fputs("Options: --dir DIR (for files; TMPDIR or /tmp), --seconds S (about, each; 1), --size BYTES (4096),\n"
          "         --depth N (1; at most 64), --rate N (1000), --entries N (1000000), --bytes N (256M as 268435456),\n"
          "         --json FILE, --cores A,B (the first two): A works as a worker would, B is the client's side\n",
          to);
}

static double number(const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value > 0)) {
        fprintf(stderr, "millrace-parts: not a number over 0: %s\n", text);
        exit(2);
    }
    return value;
}

static void parse(int argc, char **argv, struct parts_options *options, const char **json_path)
{
    static const struct option names[] = {{"dir", 1, NULL, 'd'},   {"seconds", 1, NULL, 's'}, {"size", 1, NULL, 'z'},
                                          {"depth", 1, NULL, 'n'}, {"rate", 1, NULL, 'r'},    {"entries", 1, NULL, 'e'},
                                          {"bytes", 1, NULL, 'b'}, {"json", 1, NULL, 'j'},    {"help", 0, NULL, 'h'},
                                          {"cores", 1, NULL, 'c'}, {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'd':
            options->dir = optarg;
            break;
        case 's':
            options->seconds = number(optarg);
            break;
        case 'z':
            options->size = (uint64_t)number(optarg);
            break;
        case 'n':
            options->depth = (unsigned)number(optarg);
            break;
        case 'r':
            options->rate = number(optarg);
            break;
        case 'e':
            options->entries = (uint64_t)number(optarg);
            break;
        case 'b':
            options->bytes = (uint64_t)number(optarg);
            break;
        case 'c':
            take_cores(optarg, options->cores);
            break;
        case 'j':
            *json_path = optarg;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            exit(2);
        }
    }
}

static const struct part *find_part(const char *name)
{
    for (size_t n = 0; n < PARTS; n++)
        if (strcmp(parts[n].name, name) == 0)
            return &parts[n];
    fprintf(stderr, "millrace-parts: there is no part `%s`; see --help\n", name);
    exit(2);
}

static void run_part(const struct part *part, const struct parts_options *options)
{
    current = part->name;
    part->run(options);
    current = NULL;
}

int main(int argc, char **argv)
{
    struct parts_options options = {
        .seconds = 1, .size = 4096, .depth = 1, .rate = 1000, .entries = 1000000, .bytes = UINT64_C(256) << 20};
    const char *json_path = NULL;

    find_cores(options.cores);
    parse(argc, argv, &options, &json_path);
    if (options.dir == NULL)
        options.dir = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    for (int n = optind; n < argc; n++)
        (void)find_part(argv[n]);
    if (json_path != NULL && (json = fopen(json_path, "we")) == NULL)
        die("cannot write %s: %s", json_path, strerror(errno));
    if (json != NULL)
        fputc('[', json);
    for (int n = optind; n < argc; n++)
        run_part(find_part(argv[n]), &options);
    for (size_t n = 0; optind == argc && n < PARTS; n++)
        run_part(&parts[n], &options);
    if (json != NULL && (fputs("\n]\n", json) < 0 || fclose(json) != 0))
        die("cannot write %s: %s", json_path, strerror(errno));
    return 0;
}
