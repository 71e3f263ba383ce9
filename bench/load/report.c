/* SPDX-License-Identifier: Apache-2.0 */
/* What is printed of a run: of several measurings the median, and how far they lie apart. */
#include "bench/load/bench.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What there is to say about one measuring. */
struct figures {
    double ops_per_second, p50, p90, p99, p999, p9999, max, worker_cpu, client_cpu; /* microseconds */
};
#define FIGURES (sizeof(struct figures) / sizeof(double))

static struct figures figures_of(const struct bench_round *round)
{
    double share = round->operations > 0 ? 1e3 * (double)round->operations : INFINITY; /* none: 0 */
    const struct histogram *latency = &round->latency;

    return (struct figures){
        .ops_per_second = (double)round->operations / round->seconds,
        .p50 = (double)histogram_percentile(latency, 50) / 1e3,
        .p90 = (double)histogram_percentile(latency, 90) / 1e3,
        .p99 = (double)histogram_percentile(latency, 99) / 1e3,
        .p999 = (double)histogram_percentile(latency, 99.9) / 1e3,
        .p9999 = (double)histogram_percentile(latency, 99.99) / 1e3,
        .max = (double)latency->max / 1e3,
        .worker_cpu = (double)round->worker_cpu / share,
        .client_cpu = (double)round->client_cpu / share,
    };
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

struct spread {
    struct figures median, least, most;
};

static struct spread spread_of(const struct bench_round *rounds, unsigned count)
{
    struct spread spread = {.median.ops_per_second = 0};
    double values[BENCH_REPEATS_MAX];

    for (size_t n = 0; n < FIGURES; n++) {
        for (unsigned r = 0; r < count; r++) {
            struct figures figures = figures_of(&rounds[r]);
            values[r] = ((const double *)&figures)[n];
        }
        qsort(values, count, sizeof(double), by_value);
        ((double *)&spread.median)[n] =
            count % 2 != 0 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
        ((double *)&spread.least)[n] = values[0];
        ((double *)&spread.most)[n] = values[count - 1];
    }
    return spread;
}

static uint64_t errors_in(const struct bench_round *rounds, unsigned count)
{
    uint64_t errors = 0;

    for (unsigned r = 0; r < count; r++)
        errors += rounds[r].errors;
    return errors;
}

static void line(const char *what, const char *unit, double median, double least, double most)
{
    printf("  %-22s %14.2f   %12.2f .. %-12.2f %s\n", what, median, least, most, unit);
}

#define LINE(what, unit, name) line(what, unit, spread.median.name, spread.least.name, spread.most.name)

void bench_report(const struct bench_options *options, const struct bench_node *node, const struct bench_round *rounds,
                  unsigned count)
{
    struct spread spread = spread_of(rounds, count);

    printf("%s %s, %s, %u partition%s, %u client%s, ", options->service, options->op, node->durability,
           node->partitions, node->partitions == 1 ? "" : "s", options->clients, options->clients == 1 ? "" : "s");
    if (options->rate > 0)
        printf("%.0f/s intended", options->rate);
    else
        printf("%u in flight each", options->pipeline);
    printf("; %u x %g s\n", count, options->seconds);
    printf("  %-22s %14s   %12s    %-12s\n", "", "median", "least", "most");
    LINE(options->operation == BENCH_EVENTS ? "deliveries" : "operations", "/s", ops_per_second);
    LINE("latency p50", "us", p50);
    LINE("        p90", "us", p90);
    LINE("        p99", "us", p99);
    LINE("        p99.9", "us", p999);
    LINE("        p99.99", "us", p9999);
    LINE("        max", "us", max);
    LINE("worker's processor", "us/operation", worker_cpu);
    LINE("clients' processor", "us/operation", client_cpu);
    if (spread.median.ops_per_second * options->seconds + 1 < 0.98 * options->rate * options->seconds)
        printf("  the rate was not kept: %.1f %% of it was answered\n",
               spread.median.ops_per_second / options->rate * 100);
    if (errors_in(rounds, count) > 0)
        printf("  errors                 %14llu\n", (unsigned long long)errors_in(rounds, count));
}

/* ---- JSON ---- */

static void put_text(FILE *file, const char *name, const char *value)
{
    fprintf(file, "  \"%s\": \"", name);
    for (; value != NULL && *value != '\0'; value++)
        if (*value == '"' || *value == '\\')
            fprintf(file, "\\%c", *value);
        else if ((unsigned char)*value >= 0x20)
            fputc(*value, file);
    fputs("\",\n", file);
}

static void put_figures(FILE *file, const char *indent, const struct figures *f)
{
    fprintf(file,
            "%s\"ops_per_second\": %.3f, \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f, \"p999_us\": %.3f, "
            "\"p9999_us\": %.3f, \"max_us\": %.3f, \"worker_cpu_us_per_op\": %.4f, \"client_cpu_us_per_op\": %.4f",
            indent, f->ops_per_second, f->p50, f->p90, f->p99, f->p999, f->p9999, f->max, f->worker_cpu, f->client_cpu);
}

int bench_report_json(const struct bench_options *options, const struct bench_node *node,
                      const struct bench_round *rounds, unsigned count)
{
    struct spread spread = spread_of(rounds, count);
    FILE *file = fopen(options->json, "we");

    if (file == NULL) {
        fprintf(stderr, "millrace-bench: cannot write %s: %s\n", options->json, strerror(errno));
        return -1;
    }
    fputs("{\n", file);
    put_text(file, "service", options->service);
    put_text(file, "op", options->op);
    put_text(file, "durability", node->durability);
    fprintf(file,
            "  \"partitions\": %u, \"clients\": %u, \"pipeline\": %u, \"rate\": %g, \"keys\": %llu, \"skew\": %g, "
            "\"value_size\": %llu, \"listeners\": %u, \"seconds\": %g, \"repeats\": %u,\n",
            node->partitions, options->clients, options->pipeline, options->rate, (unsigned long long)options->keys,
            options->skew, (unsigned long long)options->value_size, options->listeners, options->seconds, count);
    fprintf(file, "  \"errors\": %llu,\n", (unsigned long long)errors_in(rounds, count));
    put_figures(file, "  ", &spread.median);
    fputs(",\n  \"rounds\": [\n", file);
    for (unsigned r = 0; r < count; r++) {
        struct figures figures = figures_of(&rounds[r]);
        put_figures(file, "    {", &figures);
        fputs(r + 1 < count ? "},\n" : "}\n", file);
    }
    fputs("  ]\n}\n", file);
    if (fclose(file) == 0)
        return 0;
    fprintf(stderr, "millrace-bench: cannot write %s: %s\n", options->json, strerror(errno));
    return -1;
}
