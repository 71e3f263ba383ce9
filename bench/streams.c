/* SPDX-License-Identifier: Apache-2.0 */
/* What a stream costs others, measured on a running node: a listener that sleeps while events pass (the worker's
 * memory, another client's throughput), and a walk over a large map beside a client that calls one at a time. Through
 * the public headers; bench/streams.sh starts the node.
 *
 *     millrace-streams sleeper WORKER_PID EVENTS
 *     millrace-streams walk ENTRIES */
#include <millrace/counter.h>
#include <millrace/map.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IN_FLIGHT 1000

static unsigned long open_requests, failed;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

_Noreturn static void give_up(const char *what, mr_client *client)
{
    fprintf(stderr, "streams: %s: %s\n", what, mr_message(client));
    exit(1);
}

static mr_client *connect_to(const char *name, mr_map **map)
{
    mr_client *client;
    if (mr_connect(NULL, NULL, &client) != MR_OK || mr_map_open(client, name, map) != MR_OK)
        give_up("cannot open the map", client);
    return client;
}

static void met(mr_client *client, const struct mr_result *result)
{
    (void)client;
    open_requests -= result->last;
    failed += result->status != MR_OK;
}

/* Puts that many entries under `keys` different keys, a thousand in flight; how many a second. */
static double put_many(mr_client *client, mr_map *map, unsigned long count, unsigned long keys)
{
    char value[100], key[32];
    double began = now();

    memset(value, 'v', sizeof(value));
    for (unsigned long started = 0; started < count || open_requests > 0;) {
        while (started < count && open_requests < IN_FLIGHT) {
            int size = snprintf(key, sizeof(key), "key-%011lu", started % keys);
            enum mr_status status =
                mr_map_put_start(map, (struct mr_bytes){key, (size_t)size}, (struct mr_bytes){value, 100}, NULL,
                                 (struct mr_then){met, NULL}, NULL);
            if (status == MR_AGAIN)
                break;
            if (status != MR_OK)
                give_up("put", client);
            started++;
            open_requests++;
        }
        if (mr_run(client, MR_FOR_EVER, NULL) != MR_OK)
            give_up("run", client);
    }
    return (double)count / (now() - began);
}

/* Anonymous memory of a process in MiB: what it holds itself, without mapped files. */
static double memory_of(pid_t pid)
{
    char path[64], line[256];
    unsigned long kib = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "RssAnon: %lu", &kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return (double)kib / 1024;
}

/* A process that begins to listen and never pulls. */
static pid_t start_sleeper(void)
{
    int pipes[2];
    char byte;

    if (pipe(pipes) != 0)
        exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        mr_map *map;
        mr_stream *stream;
        mr_client *client = connect_to("events", &map);
        if (mr_map_events(map, mr_text(""), false, &stream) != MR_OK)
            give_up("events", client);
        if (write(pipes[1], "x", 1) != 1)
            exit(1);
        for (;;)
            pause();
    }
    if (pid < 0 || read(pipes[0], &byte, 1) != 1)
        exit(1);
    return pid;
}

static int sleeper(pid_t worker, unsigned long events)
{
    mr_map *map;
    mr_client *client = connect_to("events", &map);

    put_many(client, map, events / 10, 1000); /* warm */
    double memory = memory_of(worker), most = 0, beside = 0;
    double before = put_many(client, map, events / 2, 1000);
    pid_t listener = start_sleeper();
    for (int part = 0; part < 100; part++) {
        beside += put_many(client, map, events / 100, 1000) / 100;
        most = memory_of(worker) > most ? memory_of(worker) : most;
    }
    kill(listener, SIGKILL);
    waitpid(listener, NULL, 0);
    double after = put_many(client, map, events / 2, 1000);
    printf("events passed a sleeping listener  %lu\n", events);
    printf("puts/s before, beside it, after    %.0f, %.0f, %.0f\n", before, beside, after);
    printf("beside it / without it             %.3f\n", 2 * beside / (before + after));
    printf("worker's memory without, at most   %.1f MiB, %.1f MiB\n", memory, most);
    printf("failed                             %lu\n", failed);
    mr_close(client);
    return failed != 0;
}

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* One call after the other, for at least that many and until `until` has ended; prints the slowest. */
static void call(const char *what, unsigned long least, pid_t until)
{
    static double took[2000000];
    mr_client *client;
    mr_counter *counter;
    unsigned long count = 0;

    if (mr_connect(NULL, NULL, &client) != MR_OK || mr_counter_open(client, "beside", &counter) != MR_OK)
        give_up("counter", client);
    while (count < sizeof(took) / sizeof(took[0]) &&
           (count < least || (until > 0 && waitpid(until, NULL, WNOHANG) == 0))) {
        double began = now();
        if (mr_counter_get(counter, NULL) != MR_OK)
            give_up("get", client);
        took[count++] = now() - began;
    }
    qsort(took, count, sizeof(took[0]), order);
    printf("%-34s p50 %.1f us, p99 %.1f us, p99.9 %.1f us, slowest %.1f us, of %lu\n", what, took[count / 2] * 1e6,
           took[count * 99 / 100] * 1e6, took[count * 999 / 1000] * 1e6, took[count - 1] * 1e6, count);
    mr_close(client);
}

static int walk(unsigned long entries)
{
    mr_map *map;
    mr_client *client = connect_to("large", &map);

    put_many(client, map, entries, entries);
    mr_close(client);
    call("queries alone", 50000, 0);
    fflush(stdout);
    pid_t walker = fork();
    if (walker == 0) {
        mr_stream *stream;
        struct mr_event event;
        unsigned long seen = 0;
        enum mr_status status;
        client = connect_to("large", &map);
        double began = now();
        if (mr_map_entries(map, &stream) != MR_OK)
            give_up("entries", client);
        while ((status = mr_stream_next(stream, MR_FOR_EVER, &event)) == MR_OK)
            seen++;
        printf("entries walked                     %lu in %.2f s\n", seen, now() - began);
        mr_close(client);
        exit(status != MR_END || seen != entries);
    }
    call("queries beside the walk", 1000, walker);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "sleeper") == 0)
        return sleeper((pid_t)atoi(argv[2]), strtoul(argv[3], NULL, 10));
    if (argc == 3 && strcmp(argv[1], "walk") == 0)
        return walk(strtoul(argv[2], NULL, 10));
    fprintf(stderr, "usage: millrace-streams sleeper WORKER_PID EVENTS | walk ENTRIES\n");
    return 2;
}
