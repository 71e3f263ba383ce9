/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace map events` and `millrace map entries`: one line an event or entry. Events are followed until somebody
 * interrupts, or until nobody reads them any more; both are how it is meant to end. */
#include "engine/cli/map_streams.h"

#include "engine/cli/json.h"

#include <millrace/map.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Lines ---- */

/* Is it a control character of two bytes, U+0080 to U+009F in UTF-8? A terminal takes it for one. */
static bool is_wide_control(const unsigned char *at, size_t size)
{
    return size >= 2 && at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0;
}

/* Bytes such that they are one word of a line: what would be taken for the line's own, or for a terminal's commands, is
 * escaped. */
static void print_escaped(FILE *to, struct mr_bytes bytes)
{
    const unsigned char *at = bytes.data;

    for (size_t i = 0; i < bytes.size; i++)
        if (at[i] == '\\')
            fputs("\\\\", to);
        else if (at[i] == '\t')
            fputs("\\t", to);
        else if (at[i] == '\n')
            fputs("\\n", to);
        else if (at[i] < 0x20 || at[i] == 0x7f)
            fprintf(to, "\\x%02x", at[i]);
        else if (is_wide_control(at + i, bytes.size - i))
            fprintf(to, "\\xc2\\x%02x", at[++i]);
        else
            putc(at[i], to);
}

void map_print_members(FILE *to, bool *first, const struct mr_entry *entry)
{
    json_member_string(to, first, "key", entry->key.data, entry->key.size);
    json_member_bytes(to, first, "value", entry->value.data, entry->value.size);
    json_member_number(to, first, "index", entry->index);
    if (entry->ttl_ns > 0)
        json_member_duration(to, first, "ttl", entry->ttl_ns);
}

static const char *type_name(enum mr_event_type type)
{
    static const char *const names[] = {"LISTENING", "INSERT", "UPDATE", "REMOVE", "REPLAY"};
    return names[type];
}

static void print_event_json(FILE *to, const char *type, const struct mr_event *event)
{
    bool first = true;

    putc('{', to);
    if (type != NULL)
        json_member_string(to, &first, "type", type, strlen(type));
    if (event->type == MR_LISTENING)
        json_member_string(to, &first, "key", event->entry.key.data, event->entry.key.size);
    else
        map_print_members(to, &first, &event->entry);
    fputs("}\n", to);
}

/* `type` is NULL for an entry. */
static void print_event(FILE *to, bool json, const char *type, const struct mr_event *event)
{
    if (json) {
        print_event_json(to, type, event);
        return;
    }
    if (type != NULL)
        fprintf(to, "%s\t", type);
    fprintf(to, "%" PRIu64 "\t", event->entry.index);
    print_escaped(to, event->entry.key);
    putc('\t', to);
    print_escaped(to, event->entry.value);
    putc('\n', to);
}

/* ---- Events ---- */

#define LINGERS 2 /* seconds that it takes at most to end */

static volatile sig_atomic_t follows;
static volatile sig_atomic_t interrupted;

static void interrupt(int signal_number)
{
    if (!follows || signal_number == SIGALRM)
        _exit(EXIT_DONE);
    interrupted = 1;
    alarm(LINGERS); /* should it be stuck in writing to where nobody reads */
}

enum exit_status map_prepare_events(const struct operation *operation, struct arguments *arguments,
                                    struct mr_error *error)
{
    struct sigaction action = {.sa_handler = interrupt};

    (void)operation;
    (void)arguments;
    sigemptyset(&action.sa_mask);
    signal(SIGPIPE, SIG_IGN);
    if (sigaction(SIGINT, &action, NULL) == 0 && sigaction(SIGTERM, &action, NULL) == 0 &&
        sigaction(SIGALRM, &action, NULL) == 0)
        return EXIT_DONE;
    error_system(error, errno, "cannot handle signals");
    return EXIT_FAILED;
}

/* Sleeps until there is something to do. False: nobody reads standard output any more. */
static bool sleep_for_event(mr_client *client)
{
    struct pollfd fds[2] = {{.fd = mr_fd(client), .events = POLLIN}, {.fd = STDOUT_FILENO, .events = 0}};
    sigset_t ours;
    sigset_t before;
    int found = 0;

    /* A signal between the last look and the sleep ends the sleep. */
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigprocmask(SIG_BLOCK, &ours, &before);
    if (!interrupted)
        found = ppoll(fds, 2, NULL, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return found <= 0 || (fds[1].revents & (POLLERR | POLLHUP)) == 0;
}

/* A line at once: where nobody reads, a signal ends the writing. False: it could not be written, errno says why. */
static bool write_line(bool json, const struct mr_event *event)
{
    char *line = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&line, &size);

    if (to == NULL)
        return false;
    print_event(to, json, type_name(event->type), event);
    bool written = fclose(to) == 0 && fwrite(line, 1, size, stdout) == size && fflush(stdout) == 0;
    int code = errno;
    free(line);
    errno = code;
    return written;
}

/* Nobody reads what is printed: what stands in the stream's buffer is of no use. */
static void forget_output(void)
{
    __fpurge(stdout);
    clearerr(stdout);
}

static enum mr_status follow(mr_client *client, mr_stream *stream, bool json)
{
    struct mr_event event;

    follows = 1;
    while (!interrupted) {
        enum mr_status status = mr_stream_next(stream, MR_NO_WAIT, &event);
        if (status == MR_OK) {
            if (write_line(json, &event))
                continue;
            if (errno != EPIPE && !interrupted)
                return cli_printed() ? MR_NO_MEMORY : MR_OK; /* cli_finish() says what is wrong */
            forget_output();
            return MR_OK;
        }
        if (status != MR_AGAIN)
            return status;
        /* Where it may not sleep, mr_stream_next() tells why. */
        if (mr_arm(client) == MR_OK && !sleep_for_event(client))
            return MR_OK;
    }
    return MR_OK;
}

enum mr_status map_run_events(mr_client *client, const struct arguments *arguments)
{
    const char *key = arguments->operand_count > 1 ? arguments->operands[1] : "";
    mr_stream *stream;
    mr_map *map;
    enum mr_status status = mr_map_open(client, arguments->operands[0], &map);

    if (status == MR_OK)
        status = mr_map_events(map, mr_text(key), (arguments->given & OPTION_REPLAY) != 0, &stream);
    if (status != MR_OK)
        return status;
    return follow(client, stream, (arguments->given & OPTION_JSON) != 0);
}

/* ---- Entries ---- */

enum mr_status map_run_entries(mr_client *client, const struct arguments *arguments)
{
    bool json = (arguments->given & OPTION_JSON) != 0;
    struct mr_event event;
    mr_stream *stream;
    mr_map *map;
    enum mr_status status = mr_map_open(client, arguments->operands[0], &map);

    if (status == MR_OK)
        status = mr_map_entries(map, &stream);
    while (status == MR_OK && cli_printed()) {
        status = mr_stream_next(stream, MR_FOR_EVER, &event);
        if (status == MR_OK)
            print_event(stdout, json, NULL, &event);
    }
    return status == MR_END ? MR_OK : status;
}
