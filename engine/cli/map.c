/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace map`: one operation on one map. */
#include "engine/cli/cli.h"
#include "engine/cli/map_streams.h"

#include <millrace/limits.h>
#include <millrace/map.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void map_help(FILE *to)
{
    fputs(
        "usage: millrace map OPERATION NAME ...\n"
        "\n"
        "  put NAME KEY VALUE      writes the entry; prints its new index\n"
        "  insert NAME KEY VALUE   the same for a new one: ALREADY_EXISTS if the key is there\n"
        "  update NAME KEY VALUE   the same for an old one: NOT_FOUND if the key is not there\n"
        "  get NAME KEY            prints the value's bytes and nothing else\n"
        "  remove NAME KEY         likewise, of the entry that it removed\n"
        "  size NAME               prints the number of entries\n"
        "  clear NAME              removes all entries\n"
        "  entries NAME            prints all entries in the order of their insertion, one a line:\n"
        "                          INDEX, KEY and VALUE, with tabs between\n"
        "  events NAME [KEY]       follows changes (of that KEY alone) until it is interrupted, one a line:\n"
        "                          TYPE, INDEX, KEY and VALUE, with tabs between. The TYPEs are LISTENING, once, at\n"
        "                          the beginning: INDEX is 0, VALUE empty; INSERT, UPDATE, REMOVE; and REPLAY\n"
        "\n"
        "A VALUE of - is read from standard input, to its end. In lines of entries and events a tab is \\t, a newline\n"
        "\\n, a backslash \\\\, each byte of another control character \\x and two hexadecimal digits.\n"
        "\n"
        "  --ttl D            put, insert, update: the entry ends after this long\n"
        "  --index N          put, update, remove: only if the entry's index is N, else CONFLICT\n"
        "  --replay           events: begins with the entries that are there, as REPLAY\n"
        "  --json             prints one object instead: `key`; `value`, or `value_base64` where the value is not\n"
        "                     UTF-8; `index`; and, if the entry has an end, `ttl`: the seconds that remain of its\n"
        "                     life, as in \"4.5s\". Of size: `size`; of clear: an empty object.\n"
        "                     Of entries one a line; of events too, `type` first; LISTENING: `type`, `key`\n"
        "  --socket PATH      the node's socket (else the environment's MILLRACE_SOCKET)\n"
        "  --namespace NAME   of the map (default: default)\n"
        "  --timeout D        gives up after this long, with TIMEOUT: a change may be made all the same (default:\n"
        "                     waits as long as the node is there)\n"
        "\n"
        "events ends with status 0 on SIGINT and SIGTERM and once nobody reads its output, else as any operation that\n"
        "fails. UNAVAILABLE: it was not read for so long that the node gave it up; ask again, with --replay.\n",
        to);
}

static void print_json(const struct mr_entry *entry)
{
    bool first = true;

    putchar('{');
    map_print_members(stdout, &first, entry);
    fputs("}\n", stdout);
}

/* What get and remove print. */
static void print_entry(const struct arguments *arguments, const struct mr_entry *entry)
{
    if ((arguments->given & OPTION_JSON) != 0)
        print_json(entry);
    else if (entry->value.size > 0)
        fwrite(entry->value.data, 1, entry->value.size, stdout);
}

/* Reads standard input to its end. */
static int read_input(struct arguments *arguments, struct mr_error *error)
{
    const size_t most = MR_PAYLOAD_MAX;
    size_t capacity = 65536, size = 0;
    char *bytes = malloc(capacity);

    for (;;) {
        if (bytes == NULL)
            return error_set(error, "no memory for %zu bytes of standard input", capacity);
        arguments->input = bytes;
        size += fread(bytes + size, 1, capacity - size, stdin);
        if (ferror(stdin))
            return error_system(error, errno, "standard input could not be read");
        if (size < capacity)
            break;
        if (size >= most)
            return error_set(error, "standard input has over %zu bytes, more than any node takes", most);
        capacity *= 2;
        bytes = realloc(bytes, capacity);
    }
    arguments->input_size = size;
    return 0;
}

/* A VALUE of - is standard input. */
static enum exit_status prepare_value(const struct operation *operation, struct arguments *arguments,
                                      struct mr_error *error)
{
    (void)operation;
    if (strcmp(arguments->operands[2], "-") == 0 && read_input(arguments, error) != 0)
        return EXIT_FAILED;
    return EXIT_DONE;
}

typedef enum mr_status write_fn(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                                uint64_t *index);

static enum mr_status write_entry(mr_client *client, const struct arguments *arguments, write_fn *write)
{
    struct mr_put put = {.ttl_ns = arguments->ttl, .if_index = arguments->index};
    struct mr_entry entry = {.key = mr_text(arguments->operands[1]), .ttl_ns = arguments->ttl};
    mr_map *map;

    if (arguments->input != NULL)
        entry.value = (struct mr_bytes){.data = arguments->input, .size = arguments->input_size};
    else
        entry.value = mr_text(arguments->operands[2]);
    enum mr_status status = mr_map_open(client, arguments->operands[0], &map);
    if (status == MR_OK)
        status = write(map, entry.key, entry.value, &put, &entry.index);
    if (status != MR_OK)
        return status;
    if ((arguments->given & OPTION_JSON) != 0)
        print_json(&entry);
    else
        printf("%" PRIu64 "\n", entry.index);
    return MR_OK;
}

static enum mr_status run_put(mr_client *client, const struct arguments *arguments)
{
    return write_entry(client, arguments, mr_map_put);
}

static enum mr_status run_insert(mr_client *client, const struct arguments *arguments)
{
    return write_entry(client, arguments, mr_map_insert);
}

static enum mr_status run_update(mr_client *client, const struct arguments *arguments)
{
    return write_entry(client, arguments, mr_map_update);
}

static enum mr_status run_get(mr_client *client, const struct arguments *arguments)
{
    struct mr_entry entry;
    mr_map *map;
    enum mr_status status = mr_map_open(client, arguments->operands[0], &map);

    if (status == MR_OK)
        status = mr_map_get(map, mr_text(arguments->operands[1]), &entry);
    if (status == MR_OK)
        print_entry(arguments, &entry);
    return status;
}

static enum mr_status run_remove(mr_client *client, const struct arguments *arguments)
{
    struct mr_entry entry;
    mr_map *map;
    enum mr_status status = mr_map_open(client, arguments->operands[0], &map);

    if (status == MR_OK)
        status = mr_map_remove(map, mr_text(arguments->operands[1]), arguments->index, &entry);
    if (status == MR_OK)
        print_entry(arguments, &entry);
    return status;
}

static enum mr_status run_size(mr_client *client, const struct arguments *arguments)
{
    bool json = (arguments->given & OPTION_JSON) != 0;
    uint64_t size;
    mr_map *map;
    enum mr_status status = mr_map_open(client, arguments->operands[0], &map);

    if (status == MR_OK)
        status = mr_map_size(map, &size);
    if (status == MR_OK)
        printf(json ? "{\"size\": %" PRIu64 "}\n" : "%" PRIu64 "\n", size);
    return status;
}

static enum mr_status run_clear(mr_client *client, const struct arguments *arguments)
{
    mr_map *map;
    enum mr_status status = mr_map_open(client, arguments->operands[0], &map);

    if (status == MR_OK)
        status = mr_map_clear(map);
    if (status == MR_OK && (arguments->given & OPTION_JSON) != 0)
        puts("{}");
    return status;
}

static const struct operation operations[] = {
    {.name = "put",
     .operands = "NAME KEY VALUE",
     .least = 3,
     .most = 3,
     .options = OPTION_JSON | OPTION_TTL | OPTION_INDEX,
     .prepare = prepare_value,
     .run = run_put},
    {.name = "insert",
     .operands = "NAME KEY VALUE",
     .least = 3,
     .most = 3,
     .options = OPTION_JSON | OPTION_TTL,
     .prepare = prepare_value,
     .run = run_insert},
    {.name = "update",
     .operands = "NAME KEY VALUE",
     .least = 3,
     .most = 3,
     .options = OPTION_JSON | OPTION_TTL | OPTION_INDEX,
     .prepare = prepare_value,
     .run = run_update},
    {.name = "get", .operands = "NAME KEY", .least = 2, .most = 2, .options = OPTION_JSON, .run = run_get},
    {.name = "remove",
     .operands = "NAME KEY",
     .least = 2,
     .most = 2,
     .options = OPTION_JSON | OPTION_INDEX,
     .run = run_remove},
    {.name = "size", .operands = "NAME", .least = 1, .most = 1, .options = OPTION_JSON, .run = run_size},
    {.name = "clear", .operands = "NAME", .least = 1, .most = 1, .options = OPTION_JSON, .run = run_clear},
    {.name = "entries", .operands = "NAME", .least = 1, .most = 1, .options = OPTION_JSON, .run = map_run_entries},
    {.name = "events",
     .operands = "NAME [KEY]",
     .least = 1,
     .most = 2,
     .options = OPTION_JSON | OPTION_REPLAY,
     .prepare = map_prepare_events,
     .run = map_run_events},
    {.name = NULL},
};

int map_main(int argc, char **argv)
{
    return service_main(argc, argv, operations, map_help);
}
