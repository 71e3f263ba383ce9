/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace raw`: lines in, requests to the node, frames out, in one thread and one loop. Each turn takes the lines
 * that have come whole and sends them, meets the answers that have come, and then sleeps until there is more of either.
 * The bytes of a request are its sender's affair: nothing is opened, renewed or numbered here.
 *
 * A worker's death is the library's to hide. The node's own is handled here: every request is kept until its last
 * frame, and when a node serves the same directory again in time, those still open are sent again, in their order. Of a
 * command with numbered outputs the ones already printed are passed over; a query that had printed some of its frames
 * cannot be gone on with, and ends with UNAVAILABLE. */
#include "engine/cli/cli.h"
#include "engine/cli/raw_input.h"
#include "engine/cli/raw_line.h"

#include "ipc/sys.h"
#include "millrace/v1/control.pb-c.h"

#include <millrace/limits.h>
#include <millrace/raw.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A moment more than what the node lets a query wait, so that the last line's TIMEOUT is still met. */
#define TIMEOUT_DEFAULT ((int64_t)(MR_QUERY_TIME_LIMIT_DEFAULT + MR_SECOND / 2))
/* Two digits for each byte of the largest request that any node takes, and some words. */
#define LINE_MAX_BYTES (2 * (size_t)MR_PAYLOAD_MAX + 4096)
#define CONNECT_EVERY_MS 50 /* while the node is away */

void raw_help(FILE *to)
{
    fputs(
        "usage: millrace raw [--timeout D]\n"
        "\n"
        "Sends what it reads from standard input, line by line, and prints the answers. A line is\n"
        "\n"
        "  command[@P] HEX    HEX: an encoded atomix.multiraft.v1.PartitionCommandInput, or - for no bytes\n"
        "  query[@P] HEX      the same of a PartitionQueryInput\n"
        "\n"
        "and goes to partition P, else to the one that the message names, else to 1. Blank lines and those that\n"
        "start with # do nothing. Each line is sent at once, without waiting for those before it. For every frame of\n"
        "an answer one line is printed, with the number N of the input's line, from 1:\n"
        "\n"
        "  N STATUS HEX [message]   HEX: the encoded PartitionCommandOutput or PartitionQueryOutput, or -; in the\n"
        "                           message a newline is \\n and a backslash \\\\\n"
        "  N end                    after the request's last frame\n"
        "\n"
        "Frames of one request come in order, those of different requests mix; none is printed twice. Sessions and\n"
        "sequence numbers are the sender's: nothing is opened or renewed here. If the node goes away, what is open is\n"
        "sent again once it is back.\n"
        "\n"
        "  --timeout D        how long to wait for what is open after the end of the input, and for a node that went\n"
        "                     away (default: 5s, and a moment for the answers to queries that wait as long)\n"
        "  --socket PATH      the node's socket (else the environment's MILLRACE_SOCKET)\n"
        "\n"
        "Exit status: 0 all requests ended, with whatever status; 1 some were open when the time was over; 2 a line\n"
        "was malformed (`line N: why` on standard error; the others are sent); 3 no node, or not back in time.\n",
        to);
}

struct raw;

/* A request, from its line until its last frame. */
struct request {
    struct request *next;     /* by line */
    struct request *previous; /* likewise */
    struct raw *raw;
    uint64_t line;
    enum mr_kind kind;
    uint32_t partition;
    bool cannot_repeat;   /* a frame without a number, and not the last, has been printed */
    uint64_t last_output; /* the highest number among the printed frames */
    size_t size;
    uint8_t body[];
};

struct raw {
    const char *socket;
    int64_t timeout; /* nanoseconds */
    mr_client *client;
    char *node_directory; /* of the node first met; where the mode is `memory`, its process counts as well */
    int node_pid;         /* 0: it does not matter */
    struct raw_input input;
    uint64_t line_number; /* of the line last read */
    struct request *first, *last;
    struct request *unsent; /* it and all behind it are to be sent; NULL: all are */
    bool lost;              /* the node went away */
    bool closing;           /* the handle is being closed: its results are no answers */
    bool malformed;         /* some line was */
    uint64_t input_ended;   /* CLOCK_MONOTONIC; 0: it has not */
};

static void end_request(struct request *request)
{
    struct raw *raw = request->raw;

    raw_line_print_end(stdout, request->line);
    fflush(stdout);
    (void)cli_printed();
    *(request->previous != NULL ? &request->previous->next : &raw->first) = request->next;
    *(request->next != NULL ? &request->next->previous : &raw->last) = request->previous;
    if (raw->unsent == request)
        raw->unsent = request->next;
    free(request);
}

/* One of the two ways in which a request is answered without a frame of the node. */
static void refuse_request(struct request *request, enum mr_status status, const char *message)
{
    raw_line_print_refusal(stdout, request->line, status, message);
    end_request(request);
}

static void answered(mr_client *client, const struct mr_result *frame)
{
    struct request *request = frame->arg;

    (void)client;
    if (request->raw->closing || frame->status == MR_NO_NODE) {
        request->raw->lost = true;
        return;
    }
    if (frame->output == 0 || frame->output > request->last_output) {
        raw_line_print_frame(stdout, request->line, frame);
        fflush(stdout);
        (void)cli_printed();
        request->last_output = frame->output;
        request->cannot_repeat = frame->output == 0;
    }
    if (frame->last)
        end_request(request);
}

/* Puts the requests that wait for it into the rings. False: it cannot go on now. */
static bool send_unsent(struct raw *raw)
{
    while (raw->unsent != NULL) {
        struct request *request = raw->unsent;
        struct mr_then then = {.done = answered, .arg = request};
        void *body;

        enum mr_status status = mr_reserve(raw->client, request->partition, request->kind, 0, request->size, &body);
        if (status == MR_OK) {
            if (request->size > 0)
                memcpy(body, request->body, request->size);
            status = mr_commit(raw->client, request->size, then, NULL);
        }
        if (status == MR_NO_NODE)
            raw->lost = true;
        if (status == MR_NO_NODE || status == MR_AGAIN)
            return false;
        if (status == MR_OK)
            raw->unsent = request->next;
        else
            refuse_request(request, status, mr_message(raw->client));
    }
    return true;
}

static int add_request(struct raw *raw, const struct raw_line *line, struct mr_error *error)
{
    struct request *request = malloc(sizeof(*request) + line->size);

    if (request == NULL)
        return error_set(error, "no memory for a request of %zu bytes", line->size);
    *request = (struct request){.previous = raw->last,
                                .raw = raw,
                                .line = raw->line_number,
                                .kind = line->kind,
                                .partition = line->partition,
                                .size = line->size};
    memcpy(request->body, line->body, line->size);
    *(raw->last != NULL ? &raw->last->next : &raw->first) = request;
    raw->last = request;
    if (raw->unsent == NULL)
        raw->unsent = request;
    return 0;
}

/* Takes the lines that have come whole, and sends them; no further than the rings have room. */
static int take_lines(struct raw *raw, struct mr_error *error)
{
    while (send_unsent(raw)) {
        struct raw_line line;
        char *text;
        size_t size;
        enum raw_input_result input = raw_input_line(&raw->input, &text, &size);
        if (input == RAW_INPUT_NONE)
            return 0;
        raw->line_number++;
        enum raw_line_result result = RAW_LINE_MALFORMED;
        if (input == RAW_INPUT_TOO_LONG)
            error_set(error, "it has over %zu bytes", LINE_MAX_BYTES);
        else
            result = raw_line_parse(text, size, &line, error);
        if (result == RAW_LINE_ASKS && add_request(raw, &line, error) != 0)
            return -1;
        if (result == RAW_LINE_MALFORMED) {
            raw->malformed = true;
            fprintf(stderr, "line %" PRIu64 ": %s\n", raw->line_number, error->text);
        }
    }
    return 0;
}

/* Is it the node of before, by its directory? Remembers it the first time. */
static enum mr_status check_node(struct raw *raw, bool *same)
{
    struct mr_bytes encoded;
    enum mr_status status = mr_node_status(raw->client, &encoded);

    if (status != MR_OK)
        return status;
    Millrace__V1__Status *node = millrace__v1__status__unpack(NULL, encoded.size, encoded.data);
    if (node == NULL)
        return MR_INTERNAL;
    bool memory = node->durability.len == 6 && memcmp(node->durability.data, "memory", 6) == 0;
    if (raw->node_directory == NULL) {
        raw->node_directory = strndup((const char *)node->directory.data, node->directory.len);
        raw->node_pid = memory ? node->pid : 0;
        if (raw->node_directory == NULL)
            status = MR_NO_MEMORY;
    }
    *same = status == MR_OK && strlen(raw->node_directory) == node->directory.len &&
            memcmp(raw->node_directory, node->directory.data, node->directory.len) == 0 &&
            (raw->node_pid == 0 || raw->node_pid == node->pid);
    millrace__v1__status__free_unpacked(node, NULL);
    return status;
}

static void disconnect(struct raw *raw)
{
    raw->closing = true;
    mr_close(raw->client);
    raw->client = NULL;
    raw->closing = false;
}

/* MR_OK: connected; *same as check_node() says. Else *error. */
static enum mr_status connect_node(struct raw *raw, bool *same, struct mr_error *error)
{
    struct mr_options options = {.size = sizeof(options), .reconnect_ns = MR_NO_RECONNECT};
    enum mr_status status = mr_connect(raw->socket, &options, &raw->client);

    if (status == MR_OK)
        status = check_node(raw, same);
    if (status != MR_OK) {
        error_set(error, "%s", mr_message(raw->client));
        disconnect(raw);
    }
    return status;
}

/* All open requests are to be sent anew, but those that cannot be. */
static void repeat_all(struct raw *raw)
{
    for (struct request *request = raw->first, *next; request != NULL; request = next) {
        next = request->next;
        if (request->cannot_repeat)
            refuse_request(request, MR_UNAVAILABLE, "the node went away while it answered");
    }
    raw->unsent = raw->first;
}

/* The node went away: waits until it is back. -1: it is not, in time; *error. */
static int come_back(struct raw *raw, struct mr_error *error)
{
    uint64_t start = sys_clock_ns(CLOCK_MONOTONIC);
    bool same = false;

    disconnect(raw);
    while (connect_node(raw, &same, error) != MR_OK) {
        if (sys_clock_ns(CLOCK_MONOTONIC) - start >= (uint64_t)raw->timeout)
            return -1;
        sys_poll(NULL, 0, CONNECT_EVERY_MS); /* cut short by a signal, it tries earlier */
    }
    if (!same)
        return error_set(error, "the node went away; the one that is there now does not have its state");
    raw->lost = false;
    repeat_all(raw);
    return 0;
}

/* Milliseconds until the time is over, for poll(); -1: it does not run yet. */
static int time_left(const struct raw *raw)
{
    if (raw->input_ended == 0)
        return -1;
    int64_t left = raw->timeout - (int64_t)(sys_clock_ns(CLOCK_MONOTONIC) - raw->input_ended);
    int64_t milliseconds = left / (int64_t)MR_MILLISECOND + 1;
    return left <= 0 ? 0 : milliseconds > INT32_MAX ? INT32_MAX : (int)milliseconds;
}

/* Sleeps, if `sleeps`, until there is something to read or to run for, or the time is over; reads what is there. */
static int sleep_and_read(struct raw *raw, bool sleeps, struct mr_error *error)
{
    bool reads = !raw->input.ended && raw->unsent == NULL;
    struct pollfd fds[2] = {
        {.fd = mr_fd(raw->client), .events = POLLIN},
        {.fd = reads ? raw->input.fd : -1, .events = POLLIN},
    };

    if (sys_poll(fds, 2, sleeps ? time_left(raw) : 0) < 0 && errno != EINTR)
        return error_system(error, errno, "waiting failed");
    if (fds[1].revents == 0)
        return 0;
    if (raw_input_read(&raw->input, error) != 0)
        return -1;
    if (raw->input.ended)
        raw->input_ended = sys_clock_ns(CLOCK_MONOTONIC);
    return 0;
}

static bool time_is_over(const struct raw *raw)
{
    return raw->input_ended != 0 && sys_clock_ns(CLOCK_MONOTONIC) - raw->input_ended >= (uint64_t)raw->timeout;
}

/* Until the input has ended and so have all requests, or there is no going on. */
static int loop(struct raw *raw)
{
    struct mr_error error;

    for (;;) {
        if (raw->lost && come_back(raw, &error) != 0)
            return cli_failed(MR_NO_NODE, error.text);
        if (take_lines(raw, &error) != 0)
            break;
        enum mr_status status = raw->lost ? MR_NO_NODE : mr_run(raw->client, MR_NO_WAIT, NULL);
        if (raw->input.ended && raw->first == NULL)
            return raw->malformed ? EXIT_USAGE : EXIT_DONE;
        if (status == MR_OK || status == MR_AGAIN)
            status = mr_arm(raw->client);
        if (status == MR_NO_NODE)
            raw->lost = true;
        else if (status != MR_OK && status != MR_AGAIN)
            return cli_failed(status, mr_message(raw->client));
        if (raw->lost)
            continue;
        if (time_is_over(raw))
            return raw->malformed ? EXIT_USAGE : EXIT_FAILED;
        if (sleep_and_read(raw, status == MR_OK, &error) != 0)
            break;
        if (!cli_printed())
            return EXIT_FAILED; /* cli_finish() says so */
    }
    cli_complain("raw", &error);
    return EXIT_FAILED;
}

static int run(const char *socket, int64_t timeout)
{
    struct raw raw = {.socket = socket, .timeout = timeout, .input = {.fd = STDIN_FILENO, .line_max = LINE_MAX_BYTES}};
    struct mr_error error;
    bool same;
    int result;

    enum mr_status status = connect_node(&raw, &same, &error);
    if (status != MR_OK)
        result = cli_failed(status, error.text);
    else
        result = loop(&raw);
    disconnect(&raw);
    while (raw.first != NULL) {
        struct request *next = raw.first->next;
        free(raw.first);
        raw.first = next;
    }
    raw_input_free(&raw.input);
    free(raw.node_directory);
    return cli_finish(result);
}

int raw_main(int argc, char **argv)
{
    struct arguments arguments;
    struct mr_error error;
    const char *socket;

    if (arguments_parse(argc, argv, &arguments, &error) != 0)
        return cli_usage(argv[0], &error);
    if ((arguments.given & OPTION_HELP) != 0) {
        raw_help(stdout);
        return cli_finish(EXIT_DONE);
    }
    if (arguments.operand_count > 0) {
        error_set(&error, "'%s': it takes no operands; the requests come from standard input", arguments.operands[0]);
        return cli_usage(argv[0], &error);
    }
    if (arguments_only(&arguments, OPTION_TIMEOUT, argv[0], &error) != 0 ||
        cli_socket(&arguments, &socket, &error) != 0)
        return cli_usage(argv[0], &error);
    return run(socket, (arguments.given & OPTION_TIMEOUT) != 0 ? arguments.timeout : TIMEOUT_DEFAULT);
}
