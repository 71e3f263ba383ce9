/* SPDX-License-Identifier: Apache-2.0 */
/* redis-rate: INCR at a fixed rate or as fast as it goes, by one thread over many connections, with the latency's
 * histogram: redis-benchmark has no open loop. At a fixed rate requests are meant to start at fixed times, each on the
 * next connection, and latency counts from then, whether or not the request could be written at that time; so it is the
 * same question that `millrace-bench --rate` asks. */
#include "bench/compare/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define COMMAND "*2\r\n$4\r\nINCR\r\n$5\r\ncount\r\n"
#define COMMAND_SIZE (sizeof(COMMAND) - 1)
#define QUEUE 8192 /* requests of a connection in flight, at most; a power of two */
#define READ_BYTES (64 << 10)

struct options {
    const char *socket;
    unsigned connections, pipeline; /* pipeline: of each connection, where there is no rate */
    double rate;                    /* requests a second; 0: as fast as it goes */
    double seconds, warm_up;
};

struct connection {
    int descriptor;
    uint32_t first, next;     /* of `intended`, counting on */
    uint64_t intended[QUEUE]; /* when the requests in flight were to start */
    unsigned unsent;          /* of those, not written yet */
};

struct load {
    struct options options;
    struct connection *connections;
    int epoll;
    bool measuring;
    unsigned in_flight;
    struct redis_figures figures;
};

static void begin(struct load *load)
{
    load->connections = calloc(load->options.connections, sizeof(*load->connections));
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (load->connections == NULL || load->epoll < 0)
        redis_die("cannot begin: %s", strerror(errno));
    for (unsigned n = 0; n < load->options.connections; n++) {
        struct connection *connection = &load->connections[n];
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = connection};
        connection->descriptor = redis_connect(load->options.socket);
        if (fcntl(connection->descriptor, F_SETFL, O_NONBLOCK) != 0 ||
            epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->descriptor, &wanted) != 0)
            redis_die("cannot set a socket up: %s", strerror(errno));
    }
}

static bool queue(struct load *load, struct connection *connection, uint64_t intended)
{
    if (connection->next - connection->first == QUEUE)
        return false;
    connection->intended[connection->next++ % QUEUE] = intended;
    connection->unsent++;
    load->in_flight++;
    return true;
}

static void send_queued(struct connection *connection)
{
    static char commands[256 * COMMAND_SIZE];

    if (commands[0] == '\0')
        for (unsigned n = 0; n < 256; n++)
            memcpy(commands + n * COMMAND_SIZE, COMMAND, COMMAND_SIZE);
    while (connection->unsent > 0) {
        unsigned count = connection->unsent < 256 ? connection->unsent : 256;
        redis_write(connection->descriptor, commands, count * COMMAND_SIZE);
        connection->unsent -= count;
    }
}

/* Every answer is a line: `:` and a number. What a line's beginning was is in nobody's interest: its end counts. */
static void take_answers(struct load *load, struct connection *connection)
{
    static char buffer[READ_BYTES];
    size_t size = redis_read(connection->descriptor, buffer, sizeof(buffer));
    const char *at = buffer, *end = buffer + size;

    while (at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        at++;
        if (connection->first == connection->next)
            redis_die("Redis answers what it was not asked");
        uint64_t intended = connection->intended[connection->first++ % QUEUE];
        load->in_flight--;
        if (load->measuring) {
            load->figures.operations++;
            histogram_add(&load->figures.latency, redis_now() - intended);
        }
        if (load->options.rate == 0)
            queue(load, connection, redis_now());
    }
    if (size > 0 && memchr(buffer, '-', size) != NULL)
        redis_die("Redis answers an error");
}

static void turn(struct load *load)
{
    struct epoll_event events[64];

    for (unsigned n = 0; n < load->options.connections; n++)
        if (load->connections[n].unsent > 0)
            send_queued(&load->connections[n]);
    int ready = epoll_wait(load->epoll, events, 64, load->options.rate > 0 ? 0 : 100);
    for (int n = 0; n < ready; n++)
        take_answers(load, events[n].data.ptr);
}

static void run(struct load *load)
{
    const struct options *options = &load->options;
    uint64_t begun = redis_now(), measure = begun + (uint64_t)(options->warm_up * 1e9);
    uint64_t end = measure + (uint64_t)(options->seconds * 1e9), due = 0, now;

    for (unsigned n = 0; options->rate == 0 && n < options->connections; n++)
        for (unsigned k = 0; k < options->pipeline; k++)
            queue(load, &load->connections[n], redis_now());
    while ((now = redis_now()) < end) {
        if (!load->measuring && now >= measure) {
            load->measuring = true;
            measure = now;
            load->figures.cpu = redis_cpu();
        }
        while (options->rate > 0) {
            uint64_t intended = begun + (uint64_t)((double)due * 1e9 / options->rate);
            if (intended > now || !queue(load, &load->connections[due % options->connections], intended))
                break;
            due++;
        }
        turn(load);
    }
    load->figures.seconds = (double)(now - measure) / 1e9;
    load->figures.cpu = redis_cpu() - load->figures.cpu;
}

int main(int argc, char **argv)
{
    static struct load load = {.options = {.connections = 50, .pipeline = 100, .seconds = 5, .warm_up = 1}};
    struct options *options = &load.options;

    redis_options(argc, argv, "redis-rate", &options->socket,
                  (const struct redis_option[]){{"connections", &options->connections, NULL, 1, 10000},
                                                {"pipeline", &options->pipeline, NULL, 1, QUEUE},
                                                {"rate", NULL, &options->rate, 1, 1e9},
                                                {"seconds", NULL, &options->seconds, 0.01, 3600},
                                                {"warm-up", NULL, &options->warm_up, 0, 3600},
                                                {.name = NULL}});
    begin(&load);
    run(&load);
    redis_print(&load.figures);
    return 0;
}
