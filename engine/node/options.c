/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `millrace serve`: one table that parsing, range checks and --help are made from, and the few rules for
 * values that depend on each other. Knows the limits of limits.h; opens nothing. */
#include "engine/node/options.h"

#include "engine/node/values.h"
#include "ipc/sys.h"

#include <millrace/limits.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

enum kind { KIND_TEXT, KIND_NUMBER, KIND_MODE, KIND_SIZE, KIND_DURATION, KIND_WORD, KIND_CPUS, KIND_HELP };

enum option_id {
    OPTION_DIR,
    OPTION_SOCKET,
    OPTION_SOCKET_MODE,
    OPTION_SOCKET_GROUP,
    OPTION_ALLOW_UID,
    OPTION_ALLOW_GID,
    OPTION_PARTITIONS,
    OPTION_DURABILITY,
    OPTION_CPUS,
    OPTION_IDLE,
    OPTION_RING_BYTES,
    OPTION_MAX_PAYLOAD,
    OPTION_BATCH_BYTES,
    OPTION_SEGMENT_BYTES,
    OPTION_FLUSH_INTERVAL,
    OPTION_SNAPSHOT_BYTES,
    OPTION_SESSION_OUTPUTS,
    OPTION_USER_CONNECTIONS,
    OPTION_USER_CHANNELS,
    OPTION_MEMORY_LIMIT,
    OPTION_DISK_LIMIT,
    OPTION_MAX_SESSIONS,
    OPTION_USER_SESSIONS,
    OPTION_MAX_SERVICES,
    OPTION_USER,
    OPTION_SANDBOX,
    OPTION_HELP,
    OPTION_COUNT
};

struct option_row {
    const char *name;
    const char *argument; /* what --help calls its value */
    enum kind kind;
    uint64_t least, most;     /* numbers, sizes (bytes), durations (ns) */
    bool or_none;             /* 0 is allowed too */
    uint64_t initial;         /* likewise; KIND_WORD: which word */
    const char *words[4];     /* KIND_WORD, in the order of its enum */
    const char *default_text; /* where `initial` cannot say it */
    const char *help;
};

static const struct option_row rows[OPTION_COUNT] = {
    [OPTION_DIR] = {.name = "dir",
                    .argument = "DIR",
                    .kind = KIND_TEXT,
                    .default_text = "none: must be given",
                    .help = "the data directory; made (mode 0700) if its parent exists"},
    [OPTION_SOCKET] = {.name = "socket",
                       .argument = "PATH",
                       .kind = KIND_TEXT,
                       .default_text = "DIR/millrace.sock",
                       .help = "the Unix socket that clients connect to; at most 107 bytes"},
    [OPTION_SOCKET_MODE] = {.name = "socket-mode",
                            .argument = "MODE",
                            .kind = KIND_MODE,
                            .least = 0,
                            .most = 0777,
                            .initial = 0660,
                            .default_text = "0660",
                            .help = "the socket's mode: who may write it may connect"},
    [OPTION_SOCKET_GROUP] = {.name = "socket-group",
                             .argument = "GROUP",
                             .kind = KIND_TEXT,
                             .default_text = "the node's own",
                             .help = "the socket's group, a name or a number"},
    [OPTION_ALLOW_UID] = {.name = "allow-uid",
                          .argument = "LIST",
                          .kind = KIND_TEXT,
                          .default_text = "whom the socket's mode lets in",
                          .help =
                              "users that may connect, at most 64, numbers or names, as 1000,www-data; with this or "
                              "--allow-gid nobody else may but root and the node's own user"},
    [OPTION_ALLOW_GID] = {.name = "allow-gid",
                          .argument = "LIST",
                          .kind = KIND_TEXT,
                          .default_text = "whom the socket's mode lets in",
                          .help = "groups whose members may connect, at most 64"},
    [OPTION_PARTITIONS] = {.name = "partitions",
                           .argument = "N",
                           .kind = KIND_NUMBER,
                           .least = 1,
                           .most = MR_PARTITIONS_MAX,
                           .initial = MR_PARTITIONS_DEFAULT,
                           .default_text = "1; of a directory that is there: what it was made with",
                           .help = "partitions, a worker process each; fixed when the directory is made"},
    [OPTION_DURABILITY] = {.name = "durability",
                           .argument = "sync|async|memory",
                           .kind = KIND_WORD,
                           .initial = DURABILITY_SYNC,
                           .words = {"sync", "async", "memory"},
                           .help = "what an answer means: on stable storage; with the kernel, flushed every "
                                   "--flush-interval; in memory until the node stops"},
    [OPTION_CPUS] = {.name = "cpus",
                     .argument = "LIST|none",
                     .kind = KIND_CPUS,
                     .default_text = "all that this process may run on",
                     .help = "processors to pin workers to, as 0,2-5; none: workers are not pinned"},
    [OPTION_IDLE] = {.name = "idle",
                     .argument = "spin|adaptive|block",
                     .kind = KIND_WORD,
                     .initial = IDLE_ADAPTIVE,
                     .words = {"spin", "adaptive", "block"},
                     .help = "what a worker without work does: look on; look on a little, then sleep; sleep"},
    [OPTION_RING_BYTES] = {.name = "ring-bytes",
                           .argument = "SIZE",
                           .kind = KIND_SIZE,
                           .least = MR_RING_BYTES_MIN,
                           .most = MR_RING_BYTES_MAX,
                           .initial = MR_RING_BYTES_DEFAULT,
                           .help = "each of a channel's two rings; a power of two"},
    [OPTION_MAX_PAYLOAD] = {.name = "max-payload",
                            .argument = "SIZE",
                            .kind = KIND_SIZE,
                            .least = MR_PAYLOAD_MIN,
                            .most = MR_PAYLOAD_MAX,
                            .initial = MR_PAYLOAD_DEFAULT,
                            .help = "the largest request; at most a quarter of --ring-bytes (the default gives way)"},
    [OPTION_BATCH_BYTES] = {.name = "batch-bytes",
                            .argument = "SIZE",
                            .kind = KIND_SIZE,
                            .least = MR_BATCH_BYTES_MIN,
                            .most = MR_BATCH_BYTES_MAX,
                            .initial = MR_BATCH_BYTES_DEFAULT,
                            .help = "commands are written to the log together up to this"},
    [OPTION_SEGMENT_BYTES] = {.name = "segment-bytes",
                              .argument = "SIZE",
                              .kind = KIND_SIZE,
                              .least = MR_SEGMENT_BYTES_MIN,
                              .most = MR_SEGMENT_BYTES_MAX,
                              .initial = MR_SEGMENT_BYTES_DEFAULT,
                              .help = "a file of the log; a multiple of 4K that holds four of the largest batches"},
    [OPTION_FLUSH_INTERVAL] = {.name = "flush-interval",
                               .argument = "DURATION",
                               .kind = KIND_DURATION,
                               .least = MR_FLUSH_INTERVAL_MIN,
                               .most = MR_FLUSH_INTERVAL_MAX,
                               .initial = MR_FLUSH_INTERVAL_DEFAULT,
                               .help = "with --durability async: how much a power cut can take"},
    [OPTION_SNAPSHOT_BYTES] = {.name = "snapshot-bytes",
                               .argument = "SIZE",
                               .kind = KIND_SIZE,
                               .least = MR_SNAPSHOT_BYTES_MIN,
                               .most = MR_SNAPSHOT_BYTES_MAX,
                               .or_none = true,
                               .initial = MR_SNAPSHOT_BYTES_DEFAULT,
                               .help = "a snapshot is taken whenever the log has grown by this, or by the last one's "
                                       "size if that is more; 0: only by `millrace snapshot` and when the node "
                                       "stops"},
    [OPTION_SESSION_OUTPUTS] = {.name = "session-outputs",
                                .argument = "SIZE",
                                .kind = KIND_SIZE,
                                .least = MR_SESSION_OUTPUT_BYTES_MIN,
                                .most = MR_SESSION_OUTPUT_BYTES_MAX,
                                .initial = MR_SESSION_OUTPUT_BYTES_DEFAULT,
                                .default_text = "64M; of a directory that is there: what it was made with",
                                .help = "what a session's unacknowledged outputs may take; fixed when the directory is "
                                        "made"},
    [OPTION_USER_CONNECTIONS] = {.name = "user-connections",
                                 .argument = "N",
                                 .kind = KIND_NUMBER,
                                 .least = 1,
                                 .most = MR_CONNECTIONS_MAX,
                                 .initial = MR_USER_CONNECTIONS_DEFAULT,
                                 .help = "connections of one user, of 4096 in all"},
    [OPTION_USER_CHANNELS] = {.name = "user-channels",
                              .argument = "N",
                              .kind = KIND_NUMBER,
                              .least = 1,
                              .most = MR_CHANNELS_MAX,
                              .initial = MR_USER_CHANNELS_DEFAULT,
                              .help = "channels of one user to a partition, of 1024 in all"},
    [OPTION_MEMORY_LIMIT] = {.name = "memory-limit",
                             .argument = "SIZE",
                             .kind = KIND_SIZE,
                             .least = MR_MEMORY_LIMIT_MIN,
                             .most = MR_MEMORY_LIMIT_MAX,
                             .or_none = true,
                             .default_text = "three quarters of the machine's memory, divided by the partitions",
                             .help =
                                 "what a partition may hold in memory: commands that would add to more are refused; "
                                 "0: none are"},
    [OPTION_DISK_LIMIT] = {.name = "disk-limit",
                           .argument = "SIZE",
                           .kind = KIND_SIZE,
                           .least = MR_DISK_LIMIT_MIN,
                           .most = MR_DISK_LIMIT_MAX,
                           .or_none = true,
                           .default_text = "0: what the disk has",
                           .help = "what a partition's log and snapshots may take: at it, as on a full disk, commands "
                                   "are refused until a snapshot has made room; at least four times --snapshot-bytes "
                                   "and eight times --segment-bytes (their defaults give way)"},
    [OPTION_MAX_SESSIONS] = {.name = "max-sessions",
                             .argument = "N",
                             .kind = KIND_NUMBER,
                             .least = 1,
                             .most = MR_SESSIONS_MAX,
                             .initial = MR_SESSIONS_DEFAULT,
                             .help = "sessions of a partition"},
    [OPTION_USER_SESSIONS] = {.name = "user-sessions",
                              .argument = "N",
                              .kind = KIND_NUMBER,
                              .least = 1,
                              .most = MR_SESSIONS_MAX,
                              .initial = MR_USER_SESSIONS_DEFAULT,
                              .help = "sessions of one user in a partition"},
    [OPTION_MAX_SERVICES] = {.name = "max-services",
                             .argument = "N",
                             .kind = KIND_NUMBER,
                             .least = 1,
                             .most = MR_SERVICES_MAX,
                             .initial = MR_SERVICES_DEFAULT,
                             .help = "services of a partition; they are never removed"},
    [OPTION_USER] = {.name = "user",
                     .argument = "NAME",
                     .kind = KIND_TEXT,
                     .default_text = "who starts it",
                     .help = "started by root, the node becomes this user; a --dir that it makes is that user's"},
    [OPTION_SANDBOX] = {.name = "sandbox",
                        .argument = "auto|required|off",
                        .kind = KIND_WORD,
                        .initial = SANDBOX_AUTO,
                        .words = {"auto", "required", "off"},
                        .help = "workers give up what they do not need (system calls: seccomp; files: Landlock); "
                                "auto: as far as this system can; required: not without all of it"},
    [OPTION_HELP] = {.name = "help", .kind = KIND_HELP, .help = "print this"},
};

#define LOG_BLOCK UINT64_C(4096)
/* A batch is rounded up to blocks and has a head, a segment has a block for its own. */
#define BATCH_MARGIN (2 * LOG_BLOCK)

/* "1 to 64", "16K to 1G", "sync, async or memory". */
static void write_range(char *text, size_t size, const struct option_row *row)
{
    char least[32], most[32];

    switch (row->kind) {
    case KIND_NUMBER:
        snprintf(text, size, "%" PRIu64 " to %" PRIu64, row->least, row->most);
        break;
    case KIND_MODE:
        snprintf(text, size, "0 to %03" PRIo64, row->most);
        break;
    case KIND_SIZE:
        snprintf(text, size, "%s%s to %s", row->or_none ? "0, or " : "", value_write_size(least, row->least),
                 value_write_size(most, row->most));
        break;
    case KIND_DURATION:
        snprintf(text, size, "%s to %s", value_write_duration(least, row->least),
                 value_write_duration(most, row->most));
        break;
    case KIND_WORD:
        snprintf(text, size, "%s, %s or %s", row->words[0], row->words[1], row->words[2]);
        break;
    case KIND_TEXT:
    case KIND_CPUS:
    case KIND_HELP:
        text[0] = '\0';
        break;
    }
}

static const char *unit_of(enum kind kind)
{
    return kind == KIND_SIZE       ? "bytes, or K, M, G of 1024; "
           : kind == KIND_DURATION ? "with ns, us, ms, s, m or h; "
           : kind == KIND_NUMBER   ? "a whole number; "
           : kind == KIND_MODE     ? "octal digits; "
                                   : "";
}

static int wrong_value(const struct option_row *row, const char *value, struct mr_error *error)
{
    char range[128];

    write_range(range, sizeof(range), row);
    return error_set(error, "--%s %s: allowed is %s (%s)", row->name, value, range,
                     row->kind == KIND_SIZE       ? "in bytes, or with K, M or G of 1024"
                     : row->kind == KIND_DURATION ? "with ns, us, ms, s, m or h"
                     : row->kind == KIND_NUMBER   ? "a whole number"
                     : row->kind == KIND_MODE     ? "octal digits"
                                                  : "one of these words");
}

/* A number, size, duration or word. */
static int read_value(const struct option_row *row, const char *text, uint64_t *value, struct mr_error *error)
{
    bool read = false;

    if (row->kind == KIND_WORD) {
        for (*value = 0; *value < 3; ++*value)
            if (strcmp(text, row->words[*value]) == 0)
                return 0;
        return wrong_value(row, text, error);
    }
    if (row->kind == KIND_NUMBER)
        read = value_number(text, value);
    else if (row->kind == KIND_MODE)
        read = value_mode(text, value);
    else if (row->kind == KIND_SIZE)
        read = value_size(text, value);
    else if (row->kind == KIND_DURATION)
        read = value_duration(text, value);
    bool allowed = (*value >= row->least && *value <= row->most) || (*value == 0 && row->or_none);
    return read && allowed ? 0 : wrong_value(row, text, error);
}

/* The processors that workers may be pinned to. */
static int set_cpus(const char *text, struct options *options, struct mr_error *error)
{
    cpu_set_t mine, outside;
    char allowed[128], refused[128];

    CPU_ZERO(&mine);
    if (sys_sched_getaffinity(0, sizeof(mine), &mine) != 0)
        return error_system(error, errno, "--cpus: cannot ask which processors this process may run on");
    options->pin = text == NULL || strcmp(text, "none") != 0;
    options->cpus = mine;
    value_write_cpus(allowed, sizeof(allowed), &mine);
    if (text != NULL && options->pin) {
        if (!value_cpus(text, &options->cpus))
            return error_set(error, "--cpus %s: allowed is none, or numbers and ranges as 0,2-5 out of %s", text,
                             allowed);
        CPU_XOR(&outside, &options->cpus, &mine);
        CPU_AND(&outside, &outside, &options->cpus);
        if (CPU_COUNT(&outside) > 0)
            return error_set(error, "--cpus %s: this process may not run on %s, but on %s", text,
                             value_write_cpus(refused, sizeof(refused), &outside), allowed);
    }
    options->cpu_count = (unsigned)CPU_COUNT(&options->cpus);
    options->cpu_count_in_all = (unsigned)CPU_COUNT(&mine);
    return 0;
}

static int set_socket(const char *text, struct options *options, struct mr_error *error)
{
    int length = text != NULL ? snprintf(options->socket, sizeof(options->socket), "%s", text)
                              : snprintf(options->socket, sizeof(options->socket), "%s/millrace.sock", options->dir);

    if (text != NULL && length == 0)
        return error_set(error, "--socket: the path is empty; give a path of at most %d bytes", MR_SOCKET_PATH_MAX);
    if (length > MR_SOCKET_PATH_MAX)
        return error_set(error,
                         "--socket %.150s%s: the path has %d bytes, a Unix socket's may have %d; "
                         "give a shorter one with --socket",
                         text != NULL ? text : options->dir, text != NULL ? "" : "/millrace.sock", length,
                         MR_SOCKET_PATH_MAX);
    return 0;
}

/* One name or number that the table of groups knows, or that is none's. */
static int set_access(const char *const *given, uint64_t mode, struct access *access, struct mr_error *error)
{
    struct access_list group = {.count = 0};

    access->socket_mode = (mode_t)mode;
    if (given[OPTION_SOCKET_GROUP] != NULL) {
        if (access_read_groups(rows[OPTION_SOCKET_GROUP].name, given[OPTION_SOCKET_GROUP], &group, error) != 0)
            return -1;
        if (group.count != 1)
            return error_set(error, "--socket-group %.100s: allowed is one group", given[OPTION_SOCKET_GROUP]);
        access->socket_group_given = true;
        access->socket_group = group.ids[0];
    }
    if (given[OPTION_ALLOW_UID] != NULL &&
        access_read_users(rows[OPTION_ALLOW_UID].name, given[OPTION_ALLOW_UID], &access->uids, error) != 0)
        return -1;
    return given[OPTION_ALLOW_GID] != NULL
               ? access_read_groups(rows[OPTION_ALLOW_GID].name, given[OPTION_ALLOW_GID], &access->gids, error)
               : 0;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A limit of the disk is one that snapshots can keep the log below. What was not given gives way. */
static int fit_disk(struct options *options, const char *const *given, struct mr_error *error)
{
    uint64_t limit = options->disk_limit;

    if (limit == 0)
        return 0;
    if (given[OPTION_SEGMENT_BYTES] == NULL)
        options->segment_bytes = lower(options->segment_bytes, limit / MR_DISK_LIMIT_SEGMENTS & ~(LOG_BLOCK - 1));
    if (given[OPTION_SNAPSHOT_BYTES] == NULL)
        options->snapshot_bytes = lower(options->snapshot_bytes, limit / MR_DISK_LIMIT_SNAPSHOTS);
    if (options->segment_bytes > limit / MR_DISK_LIMIT_SEGMENTS)
        return error_set(error, "--disk-limit %s: allowed is at least %d times --segment-bytes %s",
                         given[OPTION_DISK_LIMIT], MR_DISK_LIMIT_SEGMENTS, given[OPTION_SEGMENT_BYTES]);
    if (options->snapshot_bytes == 0 || options->snapshot_bytes > limit / MR_DISK_LIMIT_SNAPSHOTS)
        return error_set(error, "--disk-limit %s: allowed is at least %d times --snapshot-bytes, which may not be 0",
                         given[OPTION_DISK_LIMIT], MR_DISK_LIMIT_SNAPSHOTS);
    return 0;
}

/* Sizes that depend on each other. What was not given gives way as far as its own range goes. */
static int fit_sizes(struct options *options, const char *const *given, struct mr_error *error)
{
    char size[32], other[32], needed[32];
    uint64_t batch_most = options->segment_bytes / 4 - BATCH_MARGIN;

    if ((options->ring_bytes & (options->ring_bytes - 1)) != 0)
        return error_set(error, "--ring-bytes %s: allowed is a power of two from %s to %s", given[OPTION_RING_BYTES],
                         value_write_size(size, MR_RING_BYTES_MIN), value_write_size(other, MR_RING_BYTES_MAX));
    if (options->segment_bytes % LOG_BLOCK != 0)
        return error_set(error, "--segment-bytes %s: allowed is a multiple of 4K", given[OPTION_SEGMENT_BYTES]);
    if (given[OPTION_MAX_PAYLOAD] == NULL)
        options->max_payload =
            higher(lower(options->max_payload, lower(options->ring_bytes / 4, batch_most)), MR_PAYLOAD_MIN);
    if (given[OPTION_BATCH_BYTES] == NULL)
        options->batch_bytes = higher(lower(options->batch_bytes, batch_most), MR_BATCH_BYTES_MIN);
    if (options->max_payload > options->ring_bytes / 4)
        return error_set(error, "--max-payload %s: allowed is at most a quarter of --ring-bytes %s, which is %s",
                         value_write_size(size, options->max_payload), value_write_size(other, options->ring_bytes),
                         value_write_size(needed, options->ring_bytes / 4));
    uint64_t largest = higher(options->max_payload, options->batch_bytes);
    if (largest > batch_most)
        return error_set(error, "--segment-bytes %s: allowed is at least %s, four batches of --%s %s",
                         value_write_size(size, options->segment_bytes),
                         value_write_size(needed, (4 * (largest + BATCH_MARGIN) + LOG_BLOCK - 1) & ~(LOG_BLOCK - 1)),
                         largest == options->max_payload ? "max-payload" : "batch-bytes",
                         value_write_size(other, largest));
    return 0;
}

/* given[]: the texts as they came, NULL where there was none. */
static int read_given(const char *const *given, struct options *options, struct mr_error *error)
{
    uint64_t values[OPTION_COUNT] = {0};

    for (int id = 0; id < OPTION_COUNT; id++) {
        values[id] = rows[id].initial;
        if (given[id] != NULL && rows[id].kind != KIND_TEXT && rows[id].kind != KIND_CPUS &&
            read_value(&rows[id], given[id], &values[id], error) != 0)
            return -1;
    }
    if (given[OPTION_DIR] == NULL || given[OPTION_DIR][0] == '\0')
        return error_set(error, "--dir must name the data directory");
    *options = (struct options){.dir = given[OPTION_DIR],
                                .partitions = (uint32_t)values[OPTION_PARTITIONS],
                                .partitions_given = given[OPTION_PARTITIONS] != NULL,
                                .durability = (enum durability)values[OPTION_DURABILITY],
                                .idle = (enum idle_mode)values[OPTION_IDLE],
                                .ring_bytes = values[OPTION_RING_BYTES],
                                .max_payload = values[OPTION_MAX_PAYLOAD],
                                .batch_bytes = values[OPTION_BATCH_BYTES],
                                .segment_bytes = values[OPTION_SEGMENT_BYTES],
                                .flush_interval = values[OPTION_FLUSH_INTERVAL],
                                .snapshot_bytes = values[OPTION_SNAPSHOT_BYTES],
                                .session_outputs = values[OPTION_SESSION_OUTPUTS],
                                .session_outputs_given = given[OPTION_SESSION_OUTPUTS] != NULL,
                                .memory_limit = values[OPTION_MEMORY_LIMIT],
                                .memory_limit_given = given[OPTION_MEMORY_LIMIT] != NULL,
                                .disk_limit = values[OPTION_DISK_LIMIT],
                                .max_sessions = values[OPTION_MAX_SESSIONS],
                                .user_sessions = values[OPTION_USER_SESSIONS],
                                .max_services = values[OPTION_MAX_SERVICES],
                                .user = given[OPTION_USER],
                                .sandbox = (enum sandbox_mode)values[OPTION_SANDBOX],
                                .user_connections = (uint32_t)values[OPTION_USER_CONNECTIONS],
                                .user_channels = (uint32_t)values[OPTION_USER_CHANNELS]};
    return set_access(given, values[OPTION_SOCKET_MODE], &options->access, error) != 0 ||
                   set_socket(given[OPTION_SOCKET], options, error) != 0 ||
                   set_cpus(given[OPTION_CPUS], options, error) != 0 || fit_disk(options, given, error) != 0 ||
                   fit_sizes(options, given, error) != 0
               ? -1
               : 0;
}

enum options_result options_parse(int argc, char **argv, struct options *options, struct mr_error *error)
{
    struct option known[OPTION_COUNT + 1] = {0};
    const char *given[OPTION_COUNT] = {NULL};
    int found;

    for (int id = 0; id < OPTION_COUNT; id++)
        known[id] = (struct option){.name = rows[id].name,
                                    .has_arg = rows[id].kind == KIND_HELP ? no_argument : required_argument,
                                    .val = id + 256};
    optind = 0; /* glibc: forget any earlier scan */
    opterr = 0;
    while ((found = getopt_long(argc, argv, ":", known, NULL)) != -1) {
        if (found == ':')
            error_set(error, "%s needs a value", argv[optind - 1]);
        else if (found == '?' && optopt >= 256)
            error_set(error, "--%s takes no value", rows[optopt - 256].name);
        else if (found == '?' && optopt != 0)
            error_set(error, "there is no option -%c; `millrace serve --help` lists them", optopt);
        else if (found == '?')
            error_set(error, "there is no option %.100s; `millrace serve --help` lists them", argv[optind - 1]);
        if (found == ':' || found == '?')
            return OPTIONS_WRONG;
        if (found == OPTION_HELP + 256)
            return OPTIONS_HELP;
        given[found - 256] = optarg;
    }
    if (optind < argc) {
        error_set(error, "%.100s: `millrace serve` takes options only; `millrace serve --help` lists them",
                  argv[optind]);
        return OPTIONS_WRONG;
    }
    return read_given(given, options, error) == 0 ? OPTIONS_OK : OPTIONS_WRONG;
}

const char *options_durability(const struct options *options)
{
    return rows[OPTION_DURABILITY].words[options->durability];
}

const char *options_name(unsigned number)
{
    return number < OPTION_COUNT ? rows[number].name : NULL;
}

static void write_default(char *text, size_t size, const struct option_row *row)
{
    char value[32];

    if (row->default_text != NULL)
        snprintf(text, size, "%s", row->default_text);
    else if (row->kind == KIND_WORD)
        snprintf(text, size, "%s", row->words[row->initial]);
    else if (row->kind == KIND_DURATION)
        snprintf(text, size, "%s", value_write_duration(value, row->initial));
    else if (row->kind == KIND_NUMBER)
        snprintf(text, size, "%" PRIu64, row->initial);
    else
        snprintf(text, size, "%s", value_write_size(value, row->initial));
}

void options_help(FILE *to)
{
    fprintf(to, "millrace serve --dir DIR [OPTION VALUE]...\n\nRuns a node until SIGTERM or SIGINT.\n\n");
    for (int id = 0; id < OPTION_COUNT; id++) {
        const struct option_row *row = &rows[id];
        char range[128], initial[128];
        fprintf(to, "  --%s%s%s\n      %s\n", row->name, row->argument != NULL ? " " : "",
                row->argument != NULL ? row->argument : "", row->help);
        if (row->kind == KIND_HELP)
            continue;
        write_range(range, sizeof(range), row);
        write_default(initial, sizeof(initial), row);
        fprintf(to, "      default: %s", initial);
        if (row->kind != KIND_WORD && range[0] != '\0')
            fprintf(to, "; %s%s", unit_of(row->kind), range);
        fprintf(to, "\n");
    }
}
