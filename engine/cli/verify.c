/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace verify`: is what a data directory holds sound? Reads everything that a node could need one day: each
 * snapshot whole, the log from where the older one of the two newest needs it, each entry decoded. What is damaged is
 * judged by the code with which a node recovers (engine/log), so that both find the same; but a node begins at the
 * newest snapshot and does not look at what lies before it. So for a partition with damage, the log is also read as a
 * node would, to say what a node makes of it. Nothing is changed. */
#include "engine/cli/directory.h"
#include "engine/cli/json.h"
#include "engine/cli/message_json.h"
#include "proto/reader.h"

#include "atomix/multiraft/v1/fsm.pb-c.h"
#include "millrace/v1/snapshot.pb-c.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FINDINGS_MAX 8

/* What is known of one partition. */
struct report {
    uint32_t partition;
    bool unreadable; /* something could not be read: not known to be damaged */
    unsigned damages;
    char findings[FINDINGS_MAX][sizeof(((struct mr_error *)0)->text)];
    unsigned finding_count;
    struct log_recovery log; /* of what was read last */
    uint64_t snapshots[SNAPSHOTS_KEPT];
    unsigned snapshot_count; /* sound ones, newest first; at most so many are noted */
    bool log_read;
    bool serves; /* with damage: a node would serve it all the same */
};

struct verify {
    struct directory directory;
    bool json;
    bool terminal; /* shows progress there */
    bool shown;
    const char *what; /* is being read */
    uint32_t partition;
    unsigned percent;
};

void verify_help(FILE *to)
{
    fputs(
        "usage: millrace verify DIR [--partition P] [--json]\n"
        "\n"
        "Reads a data directory that no node is using and says whether it is sound: its identity, each snapshot, each\n"
        "entry of the log. Changes nothing. Says, for each partition that is damaged, in which file and at which\n"
        "offset, and what a node would make of it; goes on with the others. What a crash cut off in the middle of its\n"
        "write, of which nobody was told, is no damage, and mentioned.\n"
        "\n"
        "Exit status: 0 sound; 1 damage; 2 usage; 3 not to be read, or in use by a node.\n"
        "\n"
        "  --partition P      this partition alone\n"
        "  --json             one object a partition: `partition`, `state` (sound, damaged, unreadable), `findings`,\n"
        "                     `serves` (would a node serve it), `last_index`, `entries` (read), `snapshots` (their\n"
        "                     indexes), `torn_batches`, and if there are any `torn_bytes`, `torn_file`,\n"
        "                     `torn_offset`\n",
        to);
}

/* ---- progress, on a terminal ---- */

static void progress(void *context, uint64_t done, uint64_t total)
{
    struct verify *verify = context;
    unsigned percent = total > 0 ? (unsigned)((double)done * 100 / (double)total) : 0;

    if (!verify->terminal || (verify->shown && percent == verify->percent))
        return;
    verify->percent = percent;
    verify->shown = true;
    fprintf(stderr, "\r\033[Kpartition %" PRIu32 ": %s, %u %%", verify->partition, verify->what, percent);
}

static void clear_progress(struct verify *verify)
{
    if (verify->shown)
        fputs("\r\033[K", stderr);
    verify->shown = false;
}

/* ---- checking ---- */

static void note(struct report *report, const struct mr_error *error)
{
    /* A file or folder that is gone is damage to the directory, as what should stand in it would be. */
    if (error->code == 0 || error->code == ENOENT)
        report->damages++;
    else
        report->unreadable = true;
    for (unsigned n = 0; n < report->finding_count; n++)
        if (strcmp(report->findings[n], error->text) == 0)
            return;
    if (report->finding_count < FINDINGS_MAX)
        memcpy(report->findings[report->finding_count++], error->text, sizeof(error->text));
}

static uint64_t read_index(struct slice snapshot)
{
    struct field_reader reader = field_reader(snapshot);

    while (field_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            return reader.value;
    return 0;
}

/* The checksums say that it is what was written; this, that what was written is a state of that index. */
static int check_content(const struct directory_partition *partition, const struct snapshot *snapshot,
                         const struct snapshot_content *content, struct mr_error *error)
{
    struct slice state = {.data = content->sections[0], .size = content->sizes[0]};
    struct slice extra = {.data = content->sections[1], .size = content->sizes[1]};

    if (!message_sound(&atomix__multiraft__v1__partition_snapshot__descriptor, state) ||
        !message_sound(&millrace__v1__snapshot_extra__descriptor, extra))
        return error_set(error, "%s/%s does not decode: it was written by something else", partition->path,
                         snapshot->name);
    if (read_index(state) != snapshot->point.index)
        return error_set(error, "%s/%s holds a state of index %" PRIu64 ", not of the one that it is named after",
                         partition->path, snapshot->name, read_index(state));
    return 0;
}

/* All of them. The log has to be read from starts[0] for the newest one, from starts[1] if that should be lost. */
static void check_snapshots(struct verify *verify, const struct directory_partition *partition, struct report *report,
                            struct log_start starts[2])
{
    struct snapshot_list list;
    struct mr_error error;

    verify->what = "snapshots";
    if (snapshot_find(&partition->place, &list, &error) != 0)
        note(report, &error);
    for (unsigned n = 0; n < list.count; n++) {
        struct snapshot *snapshot = &list.snapshots[n];
        struct snapshot_content content;
        int result = snapshot_load(&partition->place, snapshot, &content, progress, verify, &error);
        if (result == 0) {
            result = check_content(partition, snapshot, &content, &error);
            snapshot_unload(&content);
        }
        if (result != 0) {
            note(report, &error);
        } else if (report->snapshot_count < SNAPSHOTS_KEPT) {
            struct log_start start = {.index = snapshot->point.index, .segment = snapshot->point.segment};
            if (report->snapshot_count == 0)
                starts[0] = start;
            starts[1] = start;
            report->snapshots[report->snapshot_count++] = snapshot->point.index;
        }
    }
    /* With only one ever made, it is the log's beginning that a node would fall back on. */
    if (list.count == 1)
        starts[1] = (struct log_start){0};
    snapshot_list_free(&list);
}

static int check_entry(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct partition_command_input input;

    (void)context;
    if (entry->size > 0 && read_partition_command_input(entry->body, entry->size, &input) != READ_OK)
        return error_set(error, "the entry with index %" PRIu64 " does not decode: it was written by something else",
                         entry->index);
    return 0;
}

static int read_log(struct verify *verify, const struct directory_partition *partition, const struct log_start *start,
                    struct log_recovery *found, struct mr_error *error)
{
    struct log_config config = partition->log;

    verify->what = "log";
    config.progress = progress;
    config.progress_context = verify;
    return log_read(&config, start, check_entry, NULL, found, error);
}

static void check_log(struct verify *verify, const struct directory_partition *partition, struct report *report,
                      const struct log_start starts[2])
{
    struct log_recovery found;
    struct mr_error error;

    if (read_log(verify, partition, &starts[1], &report->log, &error) != 0) {
        note(report, &error);
    } else {
        report->log_read = true;
        if (report->log.last_index < starts[0].index) {
            error_set(&error,
                      "the log in %s ends at index %" PRIu64 ", but there is a snapshot of index %" PRIu64
                      ": its end is missing",
                      partition->path, report->log.last_index, starts[0].index);
            note(report, &error);
        }
    }
    report->serves = report->log_read && report->log.last_index >= starts[0].index;
    if (report->serves || starts[0].index == starts[1].index)
        return;
    /* As a node would. */
    report->serves = read_log(verify, partition, &starts[0], &found, &error) == 0;
    if (!report->serves) {
        note(report, &error);
    } else if (!report->log_read) {
        report->log_read = true;
        report->log = found;
    }
}

/* ---- telling ---- */

static const char *state_of(const struct report *report)
{
    return report->damages > 0 ? "damaged" : report->unreadable ? "unreadable" : "sound";
}

static void print_json(const struct report *report)
{
    const struct log_recovery *log = &report->log;
    bool first = true;

    putchar('{');
    json_member_number(stdout, &first, "partition", report->partition);
    json_member_string(stdout, &first, "state", state_of(report), strlen(state_of(report)));
    fputs(", \"findings\": [", stdout);
    for (unsigned n = 0; n < report->finding_count; n++) {
        fputs(n > 0 ? ", " : "", stdout);
        json_string(stdout, report->findings[n], strlen(report->findings[n]));
    }
    printf("], \"serves\": %s, \"snapshots\": [", report->serves ? "true" : "false");
    for (unsigned n = 0; n < report->snapshot_count; n++)
        printf("%s%" PRIu64, n > 0 ? ", " : "", report->snapshots[n]);
    putchar(']');
    if (report->log_read) {
        json_member_number(stdout, &first, "last_index", log->last_index);
        json_member_number(stdout, &first, "entries", log->entries);
        json_member_number(stdout, &first, "torn_batches", log->torn_batches);
    }
    if (report->log_read && log->torn_batches > 0) {
        json_member_number(stdout, &first, "torn_bytes", log->torn_bytes);
        json_member_string(stdout, &first, "torn_file", log->torn_file, strlen(log->torn_file));
        json_member_number(stdout, &first, "torn_offset", log->torn_offset);
    }
    fputs("}\n", stdout);
}

static void print_text(const struct directory_partition *partition, const struct report *report)
{
    const struct log_recovery *log = &report->log;

    printf("partition %" PRIu32 ": %s", report->partition, state_of(report));
    if (report->log_read)
        printf(", %" PRIu64 " entr%s read, the last of index %" PRIu64, log->entries, log->entries == 1 ? "y" : "ies",
               log->last_index);
    for (unsigned n = 0; n < report->snapshot_count; n++)
        printf("%s %" PRIu64, n == 0 ? ", snapshots of" : " and", report->snapshots[n]);
    putchar('\n');
    for (unsigned n = 0; n < report->finding_count; n++)
        printf("partition %" PRIu32 ": %s\n", report->partition, report->findings[n]);
    if (report->damages > 0)
        printf("partition %" PRIu32 ": a node would %s\n", report->partition,
               report->serves ? "serve it all the same, from what is sound" : "stop this partition");
    if (report->log_read && log->torn_batches > 0)
        printf("partition %" PRIu32 ": a torn tail: %" PRIu64 " batch%s (%" PRIu64
               " bytes) in %s/%s from offset %" PRIu64
               " on, written but never acknowledged; a node cuts off what it finds there\n",
               report->partition, log->torn_batches, log->torn_batches == 1 ? "" : "es", log->torn_bytes,
               partition->path, log->torn_file, log->torn_offset);
}

static int verify_partition(struct verify *verify, uint32_t number)
{
    struct directory_partition partition;
    struct report *report = calloc(1, sizeof(*report));
    struct log_start starts[2] = {{0}, {0}};

    if (report == NULL) {
        cli_failed(MR_NO_MEMORY, "no memory for a partition's report");
        return EXIT_UNREADABLE;
    }
    verify->partition = report->partition = number;
    directory_partition(&verify->directory, number, &partition);
    check_snapshots(verify, &partition, report, starts);
    check_log(verify, &partition, report, starts);
    clear_progress(verify);
    if (verify->json)
        print_json(report);
    else
        print_text(&partition, report);
    (void)cli_printed();
    int status = report->damages > 0 ? EXIT_FAILED : report->unreadable ? EXIT_UNREADABLE : EXIT_DONE;
    free(report);
    return status;
}

/* Damage weighs more than what could not be read: it is certain. */
static int worse(int one, int other)
{
    if (one == EXIT_FAILED || other == EXIT_FAILED)
        return EXIT_FAILED;
    return one > other ? one : other;
}

int verify_main(int argc, char **argv)
{
    struct arguments arguments;
    struct mr_error error;
    struct verify verify = {.terminal = isatty(STDERR_FILENO) == 1};

    if (arguments_parse(argc, argv, &arguments, &error) != 0)
        return cli_usage(argv[0], &error);
    if ((arguments.given & OPTION_HELP) != 0) {
        verify_help(stdout);
        return cli_finish(EXIT_DONE);
    }
    if (arguments_only(&arguments, OPTION_JSON | OPTION_PARTITION, argv[0], &error) != 0)
        return cli_usage(argv[0], &error);
    int status = directory_begin(argv[0], &arguments, true, &verify.directory);
    if (status >= 0)
        return status;
    verify.json = (arguments.given & OPTION_JSON) != 0;
    status = EXIT_DONE;
    if (verify.directory.memory && !verify.json)
        printf("%s was made for --durability memory: it holds nothing\n", verify.directory.path);
    for (uint32_t number = 1; number <= verify.directory.partitions && !verify.directory.memory; number++)
        if (arguments.partition == 0 || number == arguments.partition)
            status = worse(status, verify_partition(&verify, number));
    directory_close(&verify.directory);
    return cli_finish(status);
}
