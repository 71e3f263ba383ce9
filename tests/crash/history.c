/* SPDX-License-Identifier: Apache-2.0 */
/* See history.h. */
#include "tests/crash/history.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

struct history *history_create(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    void *map = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, sizeof(struct history)) == 0)
        map = mmap(NULL, sizeof(struct history), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return map == MAP_FAILED ? NULL : map;
}

void history_close(struct history *history)
{
    munmap(history, sizeof(*history));
}

void history_fail(struct client *client, const char *format, ...)
{
    va_list arguments;

    if (client->failed)
        return;
    va_start(arguments, format);
    vsnprintf(client->failure, sizeof(client->failure), format, arguments);
    va_end(arguments);
    client->failed = true;
}

const char *what_name(enum what what)
{
    static const char *const names[] = {"nothing", "get", "add",    "set",    "compare-and-set",
                                        "get",     "put", "insert", "update", "remove"};
    return names[what];
}

/* ---- For a person ---- */

struct line {
    const struct record *record;
    unsigned client;
};

static int by_object(const void *left, const void *right)
{
    const struct record *a = ((const struct line *)left)->record;
    const struct record *b = ((const struct line *)right)->record;
    int map_a = a->what >= MAP_GET;
    int map_b = b->what >= MAP_GET;

    if (map_a != map_b)
        return map_a - map_b;
    if (a->object != b->object)
        return a->object - b->object;
    if (map_a && a->key != b->key)
        return a->key - b->key;
    return a->called < b->called ? -1 : a->called > b->called;
}

static void print_record(const struct line *line, FILE *to)
{
    const struct record *record = line->record;

    fprintf(to, "%7" PRIu64 " ", record->called);
    if (record->answered != 0)
        fprintf(to, "%7" PRIu64, record->answered);
    else
        fprintf(to, "      -");
    fprintf(to, " client %u handle %3u gen %u ", line->client, record->handle, record->generation);
    if (record->what >= MAP_GET)
        fprintf(to, "map %u key %u ", record->object, record->key);
    else
        fprintf(to, "counter %u ", record->object);
    fprintf(to, "%s %" PRIx64, what_name(record->what), record->argument);
    if (record->condition != 0)
        fprintf(to, " if %" PRIu64, record->condition);
    if (record->answered != 0)
        fprintf(to, ": %s %" PRIx64 " entry index %" PRIu64 ", index %" PRIu64,
                mr_status_name((enum mr_status)record->status), record->result, record->entry_index, record->index);
    fputc('\n', to);
}

static void print_events(const struct client *client, unsigned number, FILE *to)
{
    for (uint32_t i = 0; i < client->listening_count; i++)
        fprintf(to, "client %u stream %u: map %u asked for at %" PRIu64 " in generation %u%s\n", number, i,
                client->listenings[i].map, client->listenings[i].asked, client->listenings[i].generation,
                client->listenings[i].replay ? ", with a replay" : "");
    for (uint32_t i = 0; i < client->event_count; i++)
        fprintf(to,
                "client %u event %u of stream %u at %" PRIu64 ": type %u key %u value %" PRIx64 " index %" PRIu64 "\n",
                number, i, client->events[i].listening, client->events[i].taken, client->events[i].type,
                client->events[i].key, client->events[i].number, client->events[i].entry_index);
    for (uint32_t i = 0; i < client->opened_count; i++)
        fprintf(to, "client %u opened session %" PRIu64 ", closing %u, generation %u\n", number,
                client->opened[i].session, client->opened[i].close, client->opened[i].generation);
}

void history_print(const struct history *history, FILE *to)
{
    size_t count = 0;
    struct line *lines = calloc((size_t)CLIENTS_MAX * RECORDS_MAX, sizeof(*lines));

    for (unsigned i = 0; lines != NULL && i <= history->client_count; i++)
        for (uint32_t j = 0; j < history->clients[i].record_count; j++)
            if (history->clients[i].records[j].what != NOTHING)
                lines[count++] = (struct line){&history->clients[i].records[j], i};
    if (lines != NULL)
        qsort(lines, count, sizeof(*lines), by_object);
    for (size_t i = 0; i < count; i++)
        print_record(&lines[i], to);
    free(lines);
    for (unsigned i = 0; i <= history->client_count; i++)
        print_events(&history->clients[i], i, to);
}

/* ---- Values ---- */

static size_t value_size(uint64_t number)
{
    uint64_t hash = XXH3_64bits(&number, sizeof(number));
    return sizeof(number) + (hash % 16 == 0 ? (hash >> 8) % (VALUE_MAX - 8) : (hash >> 8) % 56);
}

static uint8_t padding(uint64_t number, size_t at)
{
    return (uint8_t)(number * 31 + at);
}

size_t value_write(uint8_t to[VALUE_MAX], uint64_t number)
{
    size_t size = value_size(number);

    memcpy(to, &number, sizeof(number));
    for (size_t i = sizeof(number); i < size; i++)
        to[i] = padding(number, i);
    return size;
}

uint64_t value_read(struct mr_bytes bytes)
{
    const uint8_t *data = bytes.data;
    uint64_t number;

    if (bytes.size < sizeof(number))
        return 0;
    memcpy(&number, data, sizeof(number));
    if (bytes.size != value_size(number))
        return 0;
    for (size_t i = sizeof(number); i < bytes.size; i++)
        if (data[i] != padding(number, i))
            return 0;
    return number;
}
