/* SPDX-License-Identifier: Apache-2.0 */
/* The common part of the load generators for Redis; see redis.h. */
#include "bench/compare/redis.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void redis_die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

int redis_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        redis_die("the socket's path is too long: %s", path);
    strcpy(address.sun_path, path);
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0 || connect(connection, (const struct sockaddr *)&address, sizeof(address)) != 0)
        redis_die("cannot connect to %s: %s", path, strerror(errno));
    return connection;
}

void redis_write(int connection, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = send(connection, bytes, size, MSG_NOSIGNAL);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd ready = {.fd = connection, .events = POLLOUT};
            poll(&ready, 1, -1);
        } else if (written < 0 && errno != EINTR) {
            redis_die("cannot write to Redis: %s", strerror(errno));
        } else if (written > 0) {
            bytes += written;
            size -= (size_t)written;
        }
    }
}

size_t redis_read(int connection, char *bytes, size_t size)
{
    for (;;) {
        ssize_t got = read(connection, bytes, size);
        if (got > 0)
            return (size_t)got;
        if (got < 0 && errno == EAGAIN)
            return 0;
        if (got == 0)
            redis_die("Redis has closed a connection");
        if (errno != EINTR)
            redis_die("cannot read from Redis: %s", strerror(errno));
    }
}

static uint64_t clock_read(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t redis_now(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

uint64_t redis_cpu(void)
{
    return clock_read(CLOCK_PROCESS_CPUTIME_ID);
}

static void wrong(const char *program, const struct redis_option *options)
{
    fprintf(stderr, "usage: %s --socket PATH", program);
    for (; options->name != NULL; options++)
        fprintf(stderr, " [--%s N]", options->name);
    fputc('\n', stderr);
    exit(2);
}

static bool take(const struct redis_option *option, const char *text)
{
    char *end;

    errno = 0;
    double value = strtod(text, &end);
    if (errno == 0 && end != text && *end == '\0' && value >= option->least && value <= option->most &&
        (option->whole == NULL || value == (double)(unsigned)value)) {
        if (option->whole != NULL)
            *option->whole = (unsigned)value;
        else
            *option->number = value;
        return true;
    }
    fprintf(stderr, "--%s takes a %snumber from %g to %g, not `%s`\n", option->name,
            option->whole != NULL ? "whole " : "", option->least, option->most, text);
    return false;
}

void redis_options(int argc, char **argv, const char *program, const char **socket, const struct redis_option *options)
{
    for (int n = 1; n < argc; n += 2) {
        const char *name = strncmp(argv[n], "--", 2) == 0 ? argv[n] + 2 : "", *value = argv[n + 1];
        const struct redis_option *option = options;
        if (value != NULL && strcmp(name, "socket") == 0) {
            *socket = value;
            continue;
        }
        while (option->name != NULL && strcmp(option->name, name) != 0)
            option++;
        if (option->name == NULL || value == NULL || !take(option, value))
            wrong(program, options);
    }
    if (*socket == NULL)
        wrong(program, options);
}

void redis_print(const struct redis_figures *figures)
{
    const struct histogram *latency = &figures->latency;
    double operations = figures->operations > 0 ? (double)figures->operations : 1;

    printf("{\"ops_per_second\": %.3f, \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, \"p999_us\": %.3f, "
           "\"p9999_us\": %.3f, \"max_us\": %.3f, \"client_cpu_us_per_op\": %.4f, \"operations\": %llu}\n",
           (double)figures->operations / figures->seconds, (double)histogram_percentile(latency, 50) / 1e3,
           (double)histogram_percentile(latency, 90) / 1e3, (double)histogram_percentile(latency, 99) / 1e3,
           (double)histogram_percentile(latency, 99.9) / 1e3, (double)histogram_percentile(latency, 99.99) / 1e3,
           (double)latency->max / 1e3, (double)figures->cpu / operations / 1e3,
           (unsigned long long)figures->operations);
}
