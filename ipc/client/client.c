/* SPDX-License-Identifier: Apache-2.0 */
/* A handle: making it, ending it, who may call, and what its last failure says.
 *
 * mr_connect() says hello on the node's socket; channels, sessions and the thread that renews come with the first
 * service that needs them. mr_close() goes the way back: requests end, the thread stops, sessions are closed on the
 * node, and with the socket the node frees the rest.
 *
 * A fork()ed child has the handle's memory but neither its rings nor its thread. It is known by a page that the kernel
 * clears in children; there, only the descriptors are closed. */
#include "ipc/client/client.h"

#include "ipc/client/connection.h"
#include "ipc/client/link.h"
#include "ipc/client/renew.h"
#include "ipc/client/request.h"
#include "ipc/client/resume.h"
#include "ipc/client/service.h"
#include "ipc/client/session.h"
#include "ipc/client/stream.h"
#include "ipc/client/wait.h"
#include "ipc/sys.h"
#include "proto/reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIVE 1

/* ---- Names ---- */

const char *mr_status_name(enum mr_status status)
{
    switch (status) {
#define NAME(name)                                                                                                     \
    case MR_##name:                                                                                                    \
        return #name
        NAME(OK);
        NAME(ERROR);
        NAME(CANCELED);
        NAME(NOT_FOUND);
        NAME(ALREADY_EXISTS);
        NAME(UNAUTHORIZED);
        NAME(FORBIDDEN);
        NAME(CONFLICT);
        NAME(INVALID);
        NAME(UNAVAILABLE);
        NAME(NOT_SUPPORTED);
        NAME(TIMEOUT);
        NAME(INTERNAL);
        NAME(UNKNOWN);
        NAME(AGAIN);
        NAME(END);
        NAME(NO_NODE);
        NAME(SESSION_LOST);
        NAME(NO_MEMORY);
#undef NAME
    }
    return "UNKNOWN";
}

const char *mr_version(void)
{
    return MILLRACE_VERSION;
}

/* ---- Failures ---- */

#undef client_fail /* for the analyzer's sake: see client.h */
#undef client_fail_with
#undef client_fail_error

enum mr_status client_fail(struct mr_client *client, enum mr_status status, const char *format, ...)
{
    char text[sizeof(client->text)];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments); /* not in place: the old text may be among the arguments */
    va_end(arguments);
    memcpy(client->text, text, sizeof(text));
    client->message = client->text;
    return status;
}

enum mr_status client_fail_with(struct mr_client *client, enum mr_status status, const char *message)
{
    client->message = message;
    return status;
}

enum mr_status client_out_of_memory(struct mr_client *client)
{
    return client_fail_with(client, MR_NO_MEMORY, "the process is out of memory");
}

enum mr_status client_fail_error(struct mr_client *client, enum mr_status status, const struct mr_error *error)
{
    if (error->code == ENOMEM || error->code == EMFILE || error->code == ENFILE)
        status = MR_NO_MEMORY;
    return client_fail(client, status, "%s", error->text);
}

const char *mr_message(const struct mr_client *client)
{
    return client != NULL ? client->message : "there is no handle: the process is out of memory";
}

/* ---- Who may call ---- */

enum mr_status client_enter(struct mr_client *client)
{
    if (client == NULL)
        return MR_INVALID;
    if (*client->alive != ALIVE)
        return client_fail_with(client, MR_INVALID, "the handle was inherited by fork(): connect anew in the child");
    if (!client->connected)
        return client_fail_with(client, client->gone ? MR_NO_NODE : MR_INVALID,
                                client->gone ? client->gone_text : "the handle is not connected");
    if (client->reserved != NULL)
        return client_fail_with(client, MR_INVALID, "mr_commit() or mr_discard() what mr_reserve() gave, first");
    if (client->closing)
        return client_fail_with(client, MR_INVALID, "the handle is being closed");
    /* In a callback, what is pinned is what the call around it is about to give out, and what the callback itself was
     * given stands in the ring behind it. */
    if ((client->pinned.link != NULL || client->pinned.aside != NULL) && !client->in_callback)
        client_unpin(client);
    return MR_OK;
}

enum mr_status client_enter_alone(struct mr_client *client)
{
    enum mr_status status = client_enter(client);

    if (status == MR_OK && client->in_callback)
        return client_fail_with(client, MR_INVALID, "a callback may only start and cancel requests");
    return status;
}

/* ---- Making ---- */

static bool is_ring_size(uint64_t bytes)
{
    return bytes >= MR_RING_BYTES_MIN && bytes <= MR_RING_BYTES_MAX && (bytes & (bytes - 1)) == 0;
}

/* Takes over what the caller's version of the struct has; what ours has beyond that stays at its default. */
static enum mr_status take_options(struct mr_client *client, const struct mr_options *given)
{
    struct mr_options *options = &client->options;

    if (given != NULL) {
        if (given->size < offsetof(struct mr_options, ring_bytes) + sizeof(given->ring_bytes))
            return client_fail(client, MR_INVALID, "options.size is %zu; set it to sizeof(struct mr_options), %zu",
                               given->size, sizeof(*options));
        for (size_t i = sizeof(*options); i < given->size; i++)
            if (((const char *)given)[i] != 0)
                return client_fail(client, MR_NOT_SUPPORTED,
                                   "options has a field set, at byte %zu, that this library (%s) does not know", i,
                                   MILLRACE_VERSION);
        memcpy(options, given, given->size < sizeof(*options) ? given->size : sizeof(*options));
    }
    options->size = sizeof(*options);
    const char *name_space = options->name_space != NULL ? options->name_space : "default";
    options->name_space = strdup(name_space);
    if (options->name_space == NULL)
        return client_out_of_memory(client);
    if (!utf8_valid((struct slice){(const uint8_t *)name_space, strlen(name_space)}))
        return client_fail_with(client, MR_INVALID, "options.name_space has to be UTF-8");
    if (options->session_timeout_ns == 0)
        options->session_timeout_ns = (int64_t)MR_SESSION_TIMEOUT_DEFAULT;
    if (options->session_timeout_ns < (int64_t)MR_SESSION_TIMEOUT_MIN ||
        options->session_timeout_ns > (int64_t)MR_SESSION_TIMEOUT_MAX)
        return client_fail(client, MR_INVALID, "options.session_timeout_ns is %" PRIi64 "; 1 ms to 24 h",
                           options->session_timeout_ns);
    if (options->call_timeout_ns < 0)
        return client_fail(client, MR_INVALID, "options.call_timeout_ns is %" PRIi64 "; 0 (for ever) or more",
                           options->call_timeout_ns);
    if (options->reconnect_ns < 0)
        options->reconnect_ns = MR_FOR_EVER;
    if (options->ring_bytes != 0 && !is_ring_size(options->ring_bytes))
        return client_fail(client, MR_INVALID,
                           "options.ring_bytes is %" PRIu64 "; a power of two from %" PRIu64 " to %" PRIu64
                           ", or 0 for the node's",
                           options->ring_bytes, (uint64_t)MR_RING_BYTES_MIN, (uint64_t)MR_RING_BYTES_MAX);
    client->ring_bytes = options->ring_bytes;
    client->renew_every = (uint64_t)options->session_timeout_ns / 3;
    return MR_OK;
}

static enum mr_status take_path(struct mr_client *client, const char *path)
{
    if (path == NULL)
        path = getenv("MILLRACE_SOCKET");
    if (path == NULL || path[0] == '\0')
        return client_fail_with(client, MR_INVALID,
                                "no path to the node's socket: give one, or set MILLRACE_SOCKET in the environment");
    client->path = strdup(path);
    return client->path != NULL ? MR_OK : client_out_of_memory(client);
}

/* The page that tells a fork()ed child. */
static enum mr_status make_alive(struct mr_client *client)
{
    struct mr_error error;
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    uint32_t *page = sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return client_out_of_memory(client);
    client->alive = page;
    if (sys_madvise(page, size, MADV_WIPEONFORK) != 0) {
        error_system(&error, errno, "cannot mark a page to be cleared in forked children");
        return client_fail_error(client, MR_NOT_SUPPORTED, &error);
    }
    *page = ALIVE;
    return MR_OK;
}

/* The only processor that this process may use; -1: there are more. */
static int find_only_cpu(void)
{
    cpu_set_t cpus;

    /* Fails where the machine has more than the set can hold: then there are enough. */
    if (sys_sched_getaffinity(0, sizeof(cpus), &cpus) != 0 || CPU_COUNT(&cpus) != 1)
        return -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET((size_t)cpu, &cpus))
            return cpu;
    return -1;
}

enum mr_status client_make(const char *path, const struct mr_options *options, int stop, struct mr_client **out)
{
    struct mr_client *client = calloc(1, sizeof(*client));
    enum mr_status status;

    *out = client;
    if (client == NULL)
        return MR_NO_MEMORY;
    client->socket = -1;
    client->wake = -1;
    client->renewer = -1;
    client->timer = -1;
    client->poller = -1;
    client->stop = stop;
    client->timer_at = NEVER;
    client->message = "";
    client->only_cpu = find_only_cpu();
    if ((status = make_alive(client)) != MR_OK || (status = requests_make(client)) != MR_OK ||
        (status = take_options(client, options)) != MR_OK || (status = take_path(client, path)) != MR_OK)
        return status;
    return connection_open(client);
}

enum mr_status mr_connect(const char *socket_path, const struct mr_options *options, struct mr_client **out)
{
    if (out == NULL)
        return MR_INVALID;
    uint64_t began = sys_clock_ns(CLOCK_MONOTONIC);
    enum mr_status status = client_make(socket_path, options, -1, out);
    if (*out == NULL)
        return status;
    int64_t limit = (*out)->options.call_timeout_ns;
    uint64_t deadline = limit > 0 ? began + (uint64_t)limit : NEVER;
    if (status == MR_OK)
        status = connection_wait_welcome(*out, deadline);
    if (status == MR_OK && (*out)->options.resume != NULL)
        status = resume_sessions(*out, deadline);
    (*out)->options.resume = NULL; /* the caller's */
    return status;
}

/* ---- Ending ---- */

static void free_links(struct mr_client *client, bool mapped)
{
    for (uint32_t i = 0; i < MR_PARTITIONS_MAX; i++) {
        struct link *link = client->links[i];
        if (link == NULL)
            continue;
        if (!mapped && link->channel.page != NULL) {
            /* In a child, something else may stand at these addresses by now. */
            (void)sys_close(link->channel.node_wake_fd);
            link->channel = (struct channel){.memory_fd = 0};
        }
        link_free(link);
    }
}

static void free_all(struct mr_client *client, bool mapped)
{
    client_free_waiting(client);
    streams_free(client);
    services_free(client);
    requests_free(client);
    connection_close(client);
    free_links(client, mapped);
    if (client->alive != NULL)
        (void)sys_munmap((void *)client->alive, (size_t)sysconf(_SC_PAGESIZE));
    free((void *)client->options.name_space);
    free(client->path);
    free(client->status);
    free(client->memory);
    free(client);
}

void client_free(struct mr_client *client)
{
    free_all(client, true);
}

void client_forget(struct mr_client *client)
{
    renewer_forget(client);
    free_all(client, false);
}

static void close_sessions(struct mr_client *client, uint64_t deadline)
{
    for (uint32_t i = 0; i < client->partitions && !client->gone; i++) {
        struct link *link = client->links[i];
        if (link != NULL && link->stage == LINK_OPEN && link->session.id != 0 && !link->session.lost)
            (void)session_close(link, deadline); /* otherwise it ends by its timeout */
    }
}

static void end_requests(struct mr_client *client)
{
    client->may_set_aside = true;
    client->reserved = NULL;
    requests_end_all(client, NULL, MR_CANCELED);
    /* What waits for mr_take() is dropped. */
    while (client->requests.ending_first != NONE) {
        uint32_t first = client->requests.ending_first;
        requests_end_due(client);
        if (client->requests.ending_first == first)
            return; /* no memory to keep what nobody will take */
    }
}

static void end_client(struct mr_client *client, bool leave_sessions)
{
    if (client == NULL || client->in_callback)
        return;
    if (client->alive == NULL || *client->alive != ALIVE) {
        client_forget(client);
        return;
    }
    uint64_t deadline = sys_clock_ns(CLOCK_MONOTONIC) + MR_CLOSE_WAIT;
    if (leave_sessions && client->connected && !client->away && !client->gone)
        leave_word(client, deadline);
    client->closing = true;
    client_unpin(client);
    end_requests(client);
    renewer_stop(client);
    if (!leave_sessions && client->connected && !client->away && !client->gone)
        close_sessions(client, deadline);
    free_all(client, true);
}

void mr_close(struct mr_client *client)
{
    end_client(client, false);
}

void mr_detach(struct mr_client *client)
{
    end_client(client, true);
}
