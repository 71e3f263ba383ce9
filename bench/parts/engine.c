/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a worker, each alone: reading a command, the state machine, the log, and recovery, which is all three
 * with the device in front. The commands are those that the library would send. */
#include "bench/parts/engine.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/io/uring.h"
#include "engine/services/types.h"
#include "proto/reader.h"
#include "proto/writer.h"

#define ROUND 4096 /* commands between two looks at the clock, and between two KeepAlives */
#define KEYS 100000
#define SEGMENT_BYTES (64 * MR_MIB)
#define SEGMENTS_MAX 64

/* ---- commands ---- */

void request_write(struct request_bytes *to, const struct partition_command_input *input, struct slice payload)
{
    struct partition_command_input whole = *input;

    whole.command.operation.payload = payload;
    to->size = partition_command_input_size(&whole, NULL, 0);
    if (to->size > sizeof(to->bytes))
        die("a command is larger than expected");
    uint8_t *end = write_partition_command_input(to->bytes, &whole, NULL, 0);
    if (payload.size > 0)
        memcpy(end, payload.data, payload.size);
}

static struct slice text(const char *string)
{
    return (struct slice){(const uint8_t *)string, strlen(string)};
}

void request_operation(struct request_bytes *to, uint64_t session, uint64_t service, uint64_t number,
                       const char *operation, struct slice payload)
{
    struct partition_command_input input = {.partition_id = 1,
                                            .has_command = true,
                                            .command = {.kind = COMMAND_SESSION_COMMAND,
                                                        .session_kind = SESSION_COMMAND_SERVICE_COMMAND,
                                                        .session_id = session,
                                                        .service_id = service,
                                                        .sequence_num = number,
                                                        .operation = {.name = text(operation)}}};

    request_write(to, &input, payload);
}

void request_keep_alive(struct request_bytes *to, uint64_t session, uint64_t number)
{
    struct partition_command_input input = {
        .partition_id = 1,
        .has_command = true,
        .command = {.kind = COMMAND_KEEP_ALIVE, .session_id = session, .last_input_sequence_num = number}};

    request_write(to, &input, (struct slice){NULL, 0});
}

void request_open_session(struct request_bytes *to)
{
    struct partition_command_input input = {
        .partition_id = 1,
        .has_command = true,
        .command = {.kind = COMMAND_OPEN_SESSION, .timeout = {.seconds = 86400, .present = true}}};

    request_write(to, &input, (struct slice){NULL, 0});
}

void request_create(struct request_bytes *to, uint64_t session, const char *type, const char *name)
{
    struct partition_command_input input = {
        .partition_id = 1,
        .has_command = true,
        .command = {.kind = COMMAND_SESSION_COMMAND,
                    .session_kind = SESSION_COMMAND_CREATE_SERVICE,
                    .session_id = session,
                    .spec = {.service = text(type), .name_space = text("default"), .name = text(name)}}};

    request_write(to, &input, (struct slice){NULL, 0});
}

struct slice increment_payload(void)
{
    static const uint8_t one[] = {8, 1};
    return (struct slice){one, sizeof(one)};
}

/* PutInput {key, Value {value}}. */
struct slice put_payload(uint8_t *room, uint64_t key, struct slice value)
{
    char digits[KEY_BYTES + 1];
    size_t inner = field_bytes_size(1, value.size);

    snprintf(digits, sizeof(digits), "%016llx", (unsigned long long)(key * UINT64_C(0x9e3779b97f4a7c15)));
    uint8_t *at = field_write_bytes(room, 1, (struct slice){(const uint8_t *)digits, KEY_BYTES});
    at = field_write_message_head(at, 2, inner);
    at = field_write_bytes(at, 1, value);
    return (struct slice){room, (size_t)(at - room)};
}

/* ---- the state machine ---- */

static bool drop_answer(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    (void)context, (void)route;
    if (answer->status != STATUS_OK)
        die("a command was refused: %.*s", (int)answer->message.size, (const char *)answer->message.data);
    return true;
}

const struct fsm_sink drop_answers = {.answer = drop_answer};

struct fsm *state_create(void)
{
    struct fsm_config config = {
        .hash_seed = 7, .session_output_limit = MR_SESSION_OUTPUT_BYTES_DEFAULT, .types = service_types};
    struct fsm *fsm = fsm_create(&config);

    if (fsm == NULL)
        die("no memory");
    return fsm;
}

void state_apply(struct fsm *fsm, const uint8_t *bytes, size_t size)
{
    struct partition_command_input input;
    struct fsm_entry entry = {
        .index = fsm_index(fsm) + 1, .time = NS_PER_SECOND, .route = {1, 1}, .command = &input.command};

    if (read_partition_command_input(bytes, size, &input) != READ_OK)
        die("a command does not decode");
    fsm_apply(fsm, &entry, &drop_answers);
}

/* Session 1, counter 2, map 3. */
void state_prepare(struct fsm *fsm)
{
    struct request_bytes request;

    request_open_session(&request);
    state_apply(fsm, request.bytes, request.size);
    request_create(&request, 1, "atomix.multiraft.counter.v1.Counter", "counter");
    state_apply(fsm, request.bytes, request.size);
    request_create(&request, 1, "atomix.multiraft.map.v1.Map", "map");
    state_apply(fsm, request.bytes, request.size);
}

/* Applies rounds of commands that `make` writes, the time of applying alone. ns a command. */
static double apply_rounds(const struct parts_options *options, struct fsm *fsm, uint64_t *number, bool puts)
{
    static struct request_bytes requests[ROUND];
    uint8_t room[256], value[100] = {1};
    uint64_t spent = 0, done = 0, limit = (uint64_t)(options->seconds * 1e9 / 2);

    while (spent < limit) {
        for (unsigned n = 0; n < ROUND; n++) {
            ++*number;
            struct slice payload =
                puts ? put_payload(room, *number % KEYS, (struct slice){value, sizeof(value)}) : increment_payload();
            request_operation(&requests[n], 1, puts ? 3 : 2, *number, puts ? "Put" : "Increment", payload);
        }
        uint64_t begun = now_ns();
        for (unsigned n = 0; n < ROUND; n++)
            state_apply(fsm, requests[n].bytes, requests[n].size);
        spent += now_ns() - begun;
        done += ROUND;
        request_keep_alive(&requests[0], 1, *number);
        state_apply(fsm, requests[0].bytes, requests[0].size);
        while (fsm_collect(fsm, 1000))
            ;
    }
    return (double)spent / (double)done;
}

void part_state(const struct parts_options *options)
{
    struct fsm *fsm = state_create();
    uint64_t number = 0;

    run_on(options->cores[0]);
    state_prepare(fsm);
    report("increment, with reading it", apply_rounds(options, fsm, &number, false), "ns", 0);
    report("put, 100 bytes, 100,000 keys", apply_rounds(options, fsm, &number, true), "ns", 0);
    fsm_destroy(fsm);
}

void part_decode(const struct parts_options *options)
{
    struct request_bytes request;
    struct partition_command_input input;
    uint8_t room[256], copy[sizeof(request.bytes)];
    uint64_t rounds = 0, begun, end;
    struct slice payload = put_payload(room, 12345, (struct slice){(const uint8_t *)room, 100});

    run_on(options->cores[0]);
    request_operation(&request, 1000, 1001, 1000000, "Put", payload);
    begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9 / 2);
    for (; now_ns() < end; rounds++)
        for (unsigned n = 0; n < ROUND; n++) {
            memcpy(copy, request.bytes, request.size);
            __asm__ volatile("" : : "r"(copy) : "memory");
        }
    double bare = (double)(now_ns() - begun) / (double)(rounds * ROUND);
    rounds = 0, begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9 / 2);
    for (; now_ns() < end; rounds++)
        for (unsigned n = 0; n < ROUND; n++) {
            if (read_partition_command_input(request.bytes, request.size, &input) != READ_OK)
                die("a command does not decode");
            __asm__ volatile("" : : "r"(&input) : "memory");
        }
    report("a put, beside its memcpy", (double)(now_ns() - begun) / (double)(rounds * ROUND), "ns", bare);
}

/* ---- the log ---- */

struct memory_segments {
    int files[SEGMENTS_MAX];
    uint32_t count;
};

static int memory_segment(void *context, uint32_t slot, struct mr_error *error)
{
    struct memory_segments *segments = context;

    if (slot < segments->count)
        return segments->files[slot];
    if (slot >= SEGMENTS_MAX)
        return error_set(error, "no more segments");
    int file = memfd_create("segment", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)SEGMENT_BYTES) != 0)
        die("no memory for a segment");
    segments->files[segments->count++] = file;
    return file;
}

struct log_config log_settings(struct io *io, const char *path, enum durability durability)
{
    return (struct log_config){.io = io,
                               .path = path,
                               .partition = 1,
                               .secret = 42,
                               .durability = durability,
                               .batch_bytes = MR_BATCH_BYTES_DEFAULT,
                               .segment_bytes = SEGMENT_BYTES,
                               .largest_body = (uint32_t)MR_PAYLOAD_DEFAULT,
                               .flush_interval = NS_PER_SECOND};
}

struct io *new_io(void)
{
    struct mr_error error;
    struct io *io = uring_create(256, &error);

    if (io == NULL)
        die("%s", error.text);
    return io;
}

/* Appends `count` of the same, as a worker's turns do, and takes them when they are durable. */
static void append_all(struct log *log, struct io *io, const struct request_bytes *request, uint64_t count)
{
    struct log_origin origin = {.channel = 1, .position = 0, .frame_size = 64, .uid = 1};
    struct log_entry entry;
    struct io_completion completions[32];

    for (uint64_t appended = 0, taken = 0; taken < count;) {
        for (unsigned n = 0; n < 256 && appended < count; n++) {
            uint8_t *room = log_reserve(log, (uint32_t)request->size);
            if (room == NULL)
                break;
            memcpy(room, request->bytes, request->size);
            log_append(log, NS_PER_SECOND, &origin, (uint32_t)request->size);
            appended++;
        }
        log_submit(log, false);
        unsigned found = io->ops->completions(io, completions, 32);
        for (unsigned n = 0; n < found; n++)
            if (completions[n].token & LOG_TOKEN)
                log_complete(log, &completions[n]);
        while (log_next(log, &entry))
            taken++;
        log_tick(log, NS_PER_SECOND);
        if (log_trouble(log) != NULL)
            die("%s", log_trouble(log));
        log_forget(log, log_segment(log));
    }
}

static int no_replay(void *context, const struct log_entry *entry, struct mr_error *error)
{
    (void)context, (void)entry, (void)error;
    return 0;
}

void part_log(const struct parts_options *options)
{
    struct memory_segments segments = {.count = 0};
    struct io *io = new_io();
    struct log_config config = log_settings(io, "memory", DURABILITY_MEMORY);
    struct log_recovery found;
    struct request_bytes request;
    struct mr_error error;
    struct log *log;
    uint64_t count = 0, begun, end;
    static uint8_t copies[1 << 20];

    run_on(options->cores[0]);
    request_operation(&request, 1000, 1001, 1000000, "Increment", increment_payload());
    begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9 / 4);
    for (; now_ns() < end; count++)
        for (unsigned n = 0; n < ROUND; n++)
            memcpy(copies + n * 128, request.bytes, request.size);
    double bare = (double)(now_ns() - begun) / (double)(count * ROUND);
    config.memory_segment = memory_segment;
    config.memory_context = &segments;
    if (log_open(&config, &(struct log_start){0}, no_replay, NULL, &found, &log, &error) != 0)
        die("%s", error.text);
    append_all(log, io, &request, 4 * SEGMENT_BYTES / 128); /* until segments are used again */
    count = 0, begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9 * 3 / 4);
    for (; now_ns() < end; count += ROUND)
        append_all(log, io, &request, ROUND);
    report("an increment in and out", (double)(now_ns() - begun) / (double)count, "ns", bare);
    log_close(log, NS_PER_SECOND, &error);
    uring_destroy(io);
    while (segments.count > 0)
        close(segments.files[--segments.count]);
}

/* ---- recovery ---- */

static char directory[512]; /* made, and to be removed; "": none */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

void remove_directory(void)
{
    if (directory[0] != '\0' && nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        fprintf(stderr, "millrace-parts: %s is still there: %s\n", directory, strerror(errno));
    directory[0] = '\0';
}

const char *make_directory(const struct parts_options *options)
{
    static bool first = true;

    if (first && atexit(remove_directory) != 0)
        die("no room for what is to be done at the end");
    first = false;
    int length = snprintf(directory, sizeof(directory), "%s/millrace-parts.XXXXXX", options->dir);
    if (length >= (int)sizeof(directory) || mkdtemp(directory) == NULL) {
        directory[0] = '\0';
        die("cannot make a directory in %s: %s", options->dir, strerror(errno));
    }
    return directory;
}

/* The log of a session that increments a counter `entries` times, one KeepAlive for every ROUND of them. */
static void write_log(struct io *io, const char *path, uint64_t entries)
{
    struct log_config config = log_settings(io, path, DURABILITY_ASYNC);
    struct log_recovery found;
    struct mr_error error;
    struct request_bytes request;
    struct log *log;

    if (log_open(&config, &(struct log_start){0}, no_replay, NULL, &found, &log, &error) != 0)
        die("%s", error.text);
    request_open_session(&request);
    append_kept(log, io, &request);
    request_create(&request, 1, "atomix.multiraft.counter.v1.Counter", "counter");
    append_kept(log, io, &request);
    for (uint64_t number = 1; number <= entries; number++) {
        request_operation(&request, 1, 2, number, "Increment", increment_payload());
        append_kept(log, io, &request);
        if (number % ROUND == 0) {
            request_keep_alive(&request, 1, number);
            append_kept(log, io, &request);
        }
    }
    if (log_close(log, NS_PER_SECOND, &error) != 0)
        die("%s", error.text);
}

/* One entry in; waits for room. */
void append_kept(struct log *log, struct io *io, const struct request_bytes *request)
{
    struct log_origin origin = {.channel = 1, .position = 0, .frame_size = 64, .uid = 1};
    struct log_entry entry;
    struct io_completion completions[32];
    uint8_t *room;

    while ((room = log_reserve(log, (uint32_t)request->size)) == NULL) {
        if (log_trouble(log) != NULL)
            die("%s", log_trouble(log));
        log_submit(log, false);
        unsigned found = io->ops->completions(io, completions, 32);
        for (unsigned n = 0; n < found; n++)
            if (completions[n].token & LOG_TOKEN)
                log_complete(log, &completions[n]);
        while (log_next(log, &entry))
            ;
        log_tick(log, NS_PER_SECOND);
        if (found == 0)
            io->ops->sleep(io, NS_PER_SECOND / 1000);
    }
    memcpy(room, request->bytes, request->size);
    log_append(log, NS_PER_SECOND, &origin, (uint32_t)request->size);
}

static int replay(void *context, const struct log_entry *entry, struct mr_error *error)
{
    (void)error;
    state_apply(context, entry->body, entry->size);
    return 0;
}

void part_recovery(const struct parts_options *options)
{
    struct io *io = new_io();
    struct fsm *fsm = state_create();
    struct log_recovery found;
    struct mr_error error;
    struct log *log;

    run_on(options->cores[0]);
    const char *path = make_directory(options);
    write_log(io, path, options->entries);
    uring_destroy(io);
    io = new_io();
    struct log_config config = log_settings(io, path, DURABILITY_SYNC);
    uint64_t begun = now_ns();
    if (log_open(&config, &(struct log_start){0}, replay, fsm, &found, &log, &error) != 0)
        die("%s", error.text);
    double seconds = (double)(now_ns() - begun) / 1e9;
    report("logged increments", (double)found.entries / seconds / 1e6, "million/s", 0);
    report("of their log", (double)found.bytes / seconds / 1e6, "MB/s",
           device_stream(options, false, UINT64_C(256) << 20) / 1e6);
    log_close(log, NS_PER_SECOND, &error);
    fsm_destroy(fsm);
    uring_destroy(io);
    remove_directory();
}
