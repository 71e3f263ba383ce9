/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace session`: what processes have open on the node, and ending what they left behind. */
#include "engine/cli/cli.h"
#include "engine/cli/json.h"
#include "millrace/v1/control.pb-c.h"

#include <millrace/limits.h>
#include <millrace/raw.h>

#include <inttypes.h>
#include <stdlib.h>

void session_help(FILE *to)
{
    fputs("usage: millrace session OPERATION ...\n"
          "\n"
          "  list      prints your sessions (root: all), by partition and id, one a line:\n"
          "            partition P session ID: user U, timeout T s, R s left, used by process PID | left,\n"
          "            N open commands, B bytes\n"
          "  close ID  ends a session that no process uses, with all that is open in it\n"
          "\n"
          "  --partition P      of this partition alone; close needs it where several have a session of that ID\n"
          "  --json             list: prints one object a line instead: `partition`, `session`, `uid`, `timeout`,\n"
          "                     `remaining` (as in \"4.5s\"), `holder` (a pid; 0: none), `open_commands`,\n"
          "                     `stored_bytes`\n"
          "  --socket PATH      the node's socket (else the environment's MILLRACE_SOCKET)\n"
          "  --timeout D        gives up after this long, with TIMEOUT\n"
          "\n"
          "close fails with FORBIDDEN where there is no such session, UNAUTHORIZED where it is another user's, and\n"
          "UNAVAILABLE while a process uses it, which is named.\n",
          to);
}

/* What is done with each entry of the lists. */
typedef void entry_fn(uint32_t partition, const Millrace__V1__SessionEntry *entry, void *context);

static enum mr_status walk(mr_client *client, const struct arguments *arguments, entry_fn *fn, void *context)
{
    uint32_t first = arguments->partition != 0 ? arguments->partition : 1;
    uint32_t last = arguments->partition != 0 ? arguments->partition : mr_partitions(client);

    for (uint32_t partition = first; partition <= last; partition++) {
        struct mr_bytes encoded;
        enum mr_status status = mr_node_sessions(client, partition, &encoded);
        if (status != MR_OK)
            return status;
        Millrace__V1__SessionList *list = millrace__v1__session_list__unpack(NULL, encoded.size, encoded.data);
        if (list == NULL)
            return MR_INTERNAL;
        for (size_t i = 0; i < list->n_sessions && cli_printed(); i++)
            fn(partition, list->sessions[i], context);
        millrace__v1__session_list__free_unpacked(list, NULL);
    }
    return MR_OK;
}

/* ---- list ---- */

static void print_json(uint32_t partition, const Millrace__V1__SessionEntry *entry)
{
    bool first = true;

    putchar('{');
    json_member_number(stdout, &first, "partition", partition);
    json_member_number(stdout, &first, "session", entry->session_id);
    json_member_number(stdout, &first, "uid", entry->uid);
    json_member_duration(stdout, &first, "timeout", (int64_t)entry->timeout_ns);
    json_member_duration(stdout, &first, "remaining", (int64_t)entry->remaining_ns);
    json_member_signed(stdout, &first, "holder", entry->holder);
    json_member_number(stdout, &first, "open_commands", entry->open_commands);
    json_member_number(stdout, &first, "stored_bytes", entry->stored_bytes);
    fputs("}\n", stdout);
}

static void print_entry(uint32_t partition, const Millrace__V1__SessionEntry *entry, void *context)
{
    if (*(const bool *)context) {
        print_json(partition, entry);
        return;
    }
    printf("partition %" PRIu32 " session %" PRIu64 ": user %" PRIu32 ", timeout %.1f s, %.1f s left, ", partition,
           entry->session_id, entry->uid, (double)entry->timeout_ns / (double)MR_SECOND,
           (double)entry->remaining_ns / (double)MR_SECOND);
    if (entry->holder != 0)
        printf("used by process %" PRIi32, entry->holder);
    else
        fputs("left", stdout);
    printf(", %" PRIu64 " open command%s, %" PRIu64 " bytes\n", entry->open_commands,
           entry->open_commands == 1 ? "" : "s", entry->stored_bytes);
}

static enum mr_status run_list(mr_client *client, const struct arguments *arguments)
{
    bool json = (arguments->given & OPTION_JSON) != 0;
    return walk(client, arguments, print_entry, &json);
}

/* ---- close ---- */

static enum exit_status prepare_close(const struct operation *operation, struct arguments *arguments,
                                      struct mr_error *error)
{
    int64_t id;

    (void)operation;
    if (arguments_number(arguments->operands[0], "ID", &id, error) != 0)
        return EXIT_USAGE;
    if (id >= 1)
        return EXIT_DONE;
    error_set(error, "ID: '%s' is no session's id: they begin with 1", arguments->operands[0]);
    return EXIT_USAGE;
}

struct search {
    uint64_t session_id;
    uint32_t partition; /* where it was found last */
    unsigned found;
};

static void look(uint32_t partition, const Millrace__V1__SessionEntry *entry, void *context)
{
    struct search *search = context;

    if (entry->session_id != search->session_id)
        return;
    search->partition = partition;
    search->found++;
}

static enum mr_status run_close(mr_client *client, const struct arguments *arguments)
{
    struct mr_error error;
    int64_t id = 0;
    enum mr_status status = MR_OK;

    if (arguments_number(arguments->operands[0], "ID", &id, &error) != 0)
        return MR_INVALID; /* prepare_close() has seen it */
    struct search search = {.session_id = (uint64_t)id, .partition = arguments->partition};
    if (arguments->partition == 0)
        status = walk(client, arguments, look, &search);
    if (status != MR_OK)
        return status;
    if (search.found > 1) {
        error_set(&error, "%u partitions have a session %" PRIi64 ": say which with --partition", search.found, id);
        mr_close(client);
        exit(cli_failed(MR_INVALID, error.text));
    }
    return mr_node_close_session(client, search.partition != 0 ? search.partition : 1, search.session_id);
}

static const struct operation operations[] = {
    {.name = "list", .operands = "", .options = OPTION_JSON | OPTION_PARTITION, .run = run_list},
    {.name = "close",
     .operands = "ID",
     .least = 1,
     .most = 1,
     .options = OPTION_PARTITION,
     .prepare = prepare_close,
     .run = run_close},
    {.name = NULL},
};

int session_main(int argc, char **argv)
{
    return service_main(argc, argv, operations, session_help);
}
