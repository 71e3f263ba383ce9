/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace log dump`: what a partition's log holds, an entry a line, as it would be replayed. The command is shown
 * with the node's time in it, which is what the state machine sees, whatever the client had put there. Payloads are the
 * services' own messages and shown as bytes. */
#include "engine/cli/directory.h"
#include "engine/cli/json.h"
#include "engine/cli/message_json.h"
#include "proto/reader.h"

#include "atomix/multiraft/v1/fsm.pb-c.h"

#include <millrace/limits.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_BYTES 64 /* of a payload in text */
/* In PartitionCommandInput and in CommandInput. */
enum { COMMAND_FIELD = 2, TIMESTAMP_FIELD = 1 };

struct dump {
    uint32_t partition;
    bool json;
    uint64_t entries; /* printed */
};

void log_help(FILE *to)
{
    fputs(
        "usage: millrace log dump DIR [--partition P] [--json]\n"
        "\n"
        "Prints each entry of the log of a data directory that no node is using, one a line: the partition, the\n"
        "entry's index and time, the channel and position that it came from, the user, and the command. Begins with\n"
        "the oldest entry that the log is kept for.\n"
        "\n"
        "Exit status: 0; 1 the log is damaged (what comes before has been printed); 2 usage; 3 not to be read, or\n"
        "in use by a node.\n"
        "\n"
        "  --partition P      of this partition alone\n"
        "  --json             one object an entry: `partition`, `index`, `time`, `channel`, `position`, `uid`, and\n"
        "                     `command`, the CommandInput in protobuf's JSON mapping, its timestamp set (absent: the\n"
        "                     entry carries nothing but time)\n",
        to);
}

/* ---- as text ---- */

static void print_hex(const char *name, struct slice bytes)
{
    size_t shown = bytes.size < SHOWN_BYTES ? bytes.size : SHOWN_BYTES;

    if (bytes.size == 0)
        return;
    printf(" %s=", name);
    for (size_t n = 0; n < shown; n++)
        printf("%02x", bytes.data[n]);
    if (shown < bytes.size)
        printf("...(%zu bytes)", bytes.size);
}

static void print_named(const char *name, struct slice text)
{
    printf(" %s=", name);
    json_string(stdout, text.data, text.size);
}

static void print_last_output(void *context, uint64_t sequence_num, uint64_t last_output)
{
    (void)context;
    printf(" last-output=%" PRIu64 ":%" PRIu64, sequence_num, last_output);
}

static void print_session_command(const struct command_input *command)
{
    switch (command->session_kind) {
    case SESSION_COMMAND_CREATE_SERVICE:
        printf("create-service session=%" PRIu64, command->session_id);
        print_named("type", command->spec.service);
        print_named("namespace", command->spec.name_space);
        print_named("name", command->spec.name);
        break;
    case SESSION_COMMAND_CLOSE_SERVICE:
        printf("close-service session=%" PRIu64 " service=%" PRIu64, command->session_id, command->service_id);
        break;
    case SESSION_COMMAND_SERVICE_COMMAND:
        printf("command session=%" PRIu64 " service=%" PRIu64 " number=%" PRIu64, command->session_id,
               command->service_id, command->sequence_num);
        print_named("operation", command->operation.name);
        print_hex("payload", command->operation.payload);
        break;
    default:
        fputs("session-command", stdout);
    }
}

static void print_command(const struct command_input *command)
{
    switch (command->kind) {
    case COMMAND_OPEN_SESSION:
        fputs("open-session timeout=", stdout);
        message_json_duration(stdout, command->timeout.seconds, command->timeout.nanos);
        break;
    case COMMAND_KEEP_ALIVE:
        printf("keep-alive session=%" PRIu64 " last-input=%" PRIu64, command->session_id,
               command->last_input_sequence_num);
        print_hex("filter", command->input_filter);
        if (command->has_last_output_sequence_nums)
            read_last_outputs(command->source, print_last_output, NULL);
        break;
    case COMMAND_CLOSE_SESSION:
        printf("close-session session=%" PRIu64, command->session_id);
        break;
    case COMMAND_SESSION_COMMAND:
        print_session_command(command);
        break;
    default:
        fputs("command", stdout);
    }
}

static void print_time(const struct log_entry *entry)
{
    message_json_time(stdout, (int64_t)(entry->time / MR_SECOND), (int64_t)(entry->time % MR_SECOND));
}

static void print_text(const struct dump *dump, const struct log_entry *entry, const struct command_input *command)
{
    printf("partition=%" PRIu32 " index=%" PRIu64 " time=", dump->partition, entry->index);
    print_time(entry);
    printf(" channel=%" PRIu64 " position=%" PRIu64 " uid=%" PRIu32 " ", entry->origin.channel, entry->origin.position,
           entry->origin.uid);
    if (entry->size > 0)
        print_command(command);
    else
        fputs("time", stdout);
    putchar('\n');
}

/* ---- as JSON ---- */

static bool print_command_json(const struct log_entry *entry)
{
    struct slice body = {.data = entry->body, .size = entry->size}, command = {0};
    bool first = false;
    uint8_t *made;

    fputs(", \"command\": {\"timestamp\": \"", stdout);
    print_time(entry);
    putchar('"');
    bool good = message_field(body, COMMAND_FIELD, &command, &made) &&
                message_json_members(stdout, &first, &atomix__multiraft__v1__command_input__descriptor, command,
                                     TIMESTAMP_FIELD + 1);
    free(made);
    putchar('}');
    return good;
}

static bool print_json(const struct dump *dump, const struct log_entry *entry)
{
    bool good = true;

    printf("{\"partition\": %" PRIu32 ", \"index\": \"%" PRIu64 "\", \"time\": \"", dump->partition, entry->index);
    print_time(entry);
    printf("\", \"channel\": \"%" PRIu64 "\", \"position\": \"%" PRIu64 "\", \"uid\": %" PRIu32, entry->origin.channel,
           entry->origin.position, entry->origin.uid);
    if (entry->size > 0)
        good = print_command_json(entry);
    fputs("}\n", stdout);
    return good;
}

/* ---- the log ---- */

static int print_entry(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct dump *dump = context;
    struct partition_command_input input;

    if (entry->size > 0 && read_partition_command_input(entry->body, entry->size, &input) != READ_OK)
        return error_set(error, "the entry with index %" PRIu64 " does not decode: it was written by something else",
                         entry->index);
    dump->entries++;
    if (!dump->json)
        print_text(dump, entry, &input.command);
    else if (!print_json(dump, entry))
        return error_system(error, ENOMEM, "cannot print the entry with index %" PRIu64, entry->index);
    /* Nobody reads on: more would be of no use. */
    return cli_printed() ? 0 : error_set(error, "standard output could not be written");
}

/* From the log's beginning; or, where that is not kept any more, from what the oldest snapshot needs. */
static int dump_partition(struct directory *directory, struct dump *dump)
{
    struct directory_partition partition;
    struct snapshot_list list;
    struct log_recovery found;
    struct mr_error error, ignored;

    directory_partition(directory, dump->partition, &partition);
    dump->entries = 0;
    int result = log_read(&partition.log, &(struct log_start){0}, print_entry, dump, &found, &error);
    if (result != 0 && dump->entries == 0 && snapshot_find(&partition.place, &list, &ignored) == 0) {
        for (unsigned n = list.count; n-- > 0 && result != 0 && dump->entries == 0;) {
            struct snapshot *snapshot = &list.snapshots[n];
            struct log_start start;
            if (snapshot_peek(&partition.place, snapshot, &ignored) != 0)
                continue;
            start = (struct log_start){.index = snapshot->point.index, .segment = snapshot->point.segment};
            result = log_read(&partition.log, &start, print_entry, dump, &found, &error);
        }
        snapshot_list_free(&list);
    }
    if (result == 0 || !cli_printed()) /* of which cli_finish() tells */
        return EXIT_DONE;
    cli_complain("log dump", &error);
    return directory_status(&error);
}

int log_main(int argc, char **argv)
{
    struct arguments arguments;
    struct directory directory;
    struct mr_error error;
    int result = EXIT_DONE;

    if (arguments_parse(argc, argv, &arguments, &error) != 0)
        return cli_usage(argv[0], &error);
    if ((arguments.given & OPTION_HELP) != 0) {
        log_help(stdout);
        return cli_finish(EXIT_DONE);
    }
    if (arguments.operand_count == 0 || strcmp(arguments.operands[0], "dump") != 0) {
        error_set(&error, "there is one thing it can do: millrace log dump DIR");
        return cli_usage(argv[0], &error);
    }
    arguments.operands++;
    arguments.operand_count--;
    if (arguments_only(&arguments, OPTION_JSON | OPTION_PARTITION, "log dump", &error) != 0)
        return cli_usage(argv[0], &error);
    int begun = directory_begin("log dump", &arguments, true, &directory);
    if (begun >= 0)
        return begun;
    for (uint32_t number = 1; number <= directory.partitions && !directory.memory; number++) {
        struct dump dump = {.partition = number, .json = (arguments.given & OPTION_JSON) != 0};
        if (arguments.partition != 0 && arguments.partition != number)
            continue;
        int status = dump_partition(&directory, &dump);
        if (status != EXIT_DONE && result != EXIT_FAILED)
            result = status;
    }
    directory_close(&directory);
    return cli_finish(result);
}
