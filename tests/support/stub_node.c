/* SPDX-License-Identifier: Apache-2.0 */
/* The pretending node and its client: see stub_node.h. */
#include "tests/support/stub_node.h"

#include "engine/node/control.h"
#include "engine/node/identity.h"
#include "engine/node/supervisor.h"
#include "ipc/handshake.h"
#include "ipc/sys.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the worker ---- */

static struct stub_worker *all_workers; /* inherited by fork */

static void say(int control, uint32_t kind, uint32_t slot, uint64_t channel_id, const char *text)
{
    struct control_message message = {.kind = kind, .slot = slot, .channel_id = channel_id};

    snprintf(message.text, sizeof(message.text), "%s", text);
    if (control_send(control, &message, NULL, 0, NULL) != 0)
        _exit(99);
}

static int end_worker(const struct worker_birth *birth, struct stub_worker *stub, uint32_t how)
{
    birth->region->reading_channel = stub->at_channel;
    birth->region->reading_position = stub->at_position;
    birth->region->applying_index = stub->at_index;
    birth->region->restoring_index = stub->at_snapshot;
    if (how >= STUB_EXIT)
        return (int)(how - STUB_EXIT);
    signal((int)how, SIG_DFL);
    kill(getpid(), (int)how);
    for (;;)
        wait_pause();
}

/* As a real worker does: the mapping and the descriptors become its own. */
static void add(const struct worker_birth *birth, struct stub_worker *stub, struct channel *channels,
                const struct control_message *message, const int *fds)
{
    struct mr_error error;

    if (channel_map(&channels[message->slot], fds[0], fds[1], fds[2], birth->partition, message->channel_id,
                    message->ring_bytes, &error) != 0) {
        fprintf(stderr, "stub worker: %s\n", error.text);
        _exit(98);
    }
    stub->added++;
    if (!stub->hold_added)
        say(birth->control, CONTROL_ADDED, message->slot, message->channel_id, "");
}

static void drop(const struct worker_birth *birth, struct stub_worker *stub, struct channel *channels, uint32_t slot,
                 uint64_t channel_id, const char *why)
{
    if (channels[slot].page != NULL && channels[slot].channel_id == channel_id) {
        close(channels[slot].client_wake_fd);
        channel_unmap(&channels[slot]);
        memset(&channels[slot], 0, sizeof(channels[slot]));
    }
    stub->closed++;
    say(birth->control, CONTROL_CLOSED, slot, channel_id, why);
}

static void take_segment(struct stub_worker *stub, const int *fds, unsigned fd_count)
{
    struct stat status;

    stub->segment_bytes = fd_count == 1 && fstat(fds[0], &status) == 0 ? (uint64_t)status.st_size : 1;
    if (fd_count == 1)
        close(fds[0]);
}

static void be_busy(const struct worker_birth *birth, struct stub_worker *stub)
{
    while (stub->busy > 0) {
        stub->busy--;
        say(birth->control, CONTROL_BUSY, 0, 0, "");
        wait_pause();
    }
}

/* Returns true if it is to stop. */
static bool take_messages(const struct worker_birth *birth, struct stub_worker *stub, struct channel *channels)
{
    struct control_message message;
    int fds[CONTROL_FDS];
    unsigned fd_count;
    struct pollfd poll_control = {.fd = birth->control, .events = POLLIN};

    while (sys_poll(&poll_control, 1, 2) > 0) {
        if (control_receive(birth->control, &message, fds, &fd_count, NULL) != 0)
            _exit(97);
        if (message.kind == CONTROL_ADD)
            add(birth, stub, channels, &message, fds);
        else if (message.kind == CONTROL_CLOSE)
            drop(birth, stub, channels, message.slot, message.channel_id, "");
        else if (message.kind == CONTROL_SEGMENT)
            take_segment(stub, fds, fd_count);
        else if (message.kind == CONTROL_STOP && !stub->ignore_stop) {
            be_busy(birth, stub);
            return true;
        }
    }
    return false;
}

static void begin(const struct worker_birth *birth, struct stub_worker *stub, struct channel *channels)
{
    uint32_t inherited = 0;

    stub->descriptors = open_descriptors();
    for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++)
        if (birth->region->channels[slot].channel_id != 0) {
            channels[slot] = birth->channels[slot];
            stub->inherited_id = channels[slot].channel_id;
            /* What is mapped can be read, and is what it should be. */
            if (channels[slot].page->channel_id != channels[slot].channel_id)
                _exit(96);
            inherited++;
        }
    stub->inherited = inherited;
    stub->segments_born = birth->memory_segment_count;
    stub->core = birth->core;
    stub->may_spin = birth->may_spin;
    stub->pid = getpid();
    stub->births++;
}

static int stub_run(const struct worker_birth *birth)
{
    static struct channel channels[MR_CHANNELS_MAX];
    struct stub_worker *stub = &all_workers[birth->partition - 1];

    begin(birth, stub, channels);
    if (stub->deaths > 0) {
        stub->deaths--;
        if (stub->ready_first)
            say(birth->control, CONTROL_READY, 0, 0, "");
        return end_worker(birth, stub, stub->death);
    }
    if (birth->region->state != PARTITION_STOPPED)
        birth->region->state = PARTITION_SERVING;
    say(birth->control, CONTROL_READY, 0, 0, "");
    while (!take_messages(birth, stub, channels)) {
        uint32_t how = atomic_exchange(&stub->end_now, 0);
        uint32_t segment = atomic_exchange(&stub->want_segment, 0);
        if (how != 0)
            return end_worker(birth, stub, how);
        if (segment != 0)
            say(birth->control, CONTROL_WANT_SEGMENT, segment - 1, 0, "");
        if (atomic_exchange(&stub->close_channels, 0) != 0)
            for (uint32_t slot = 0; slot < MR_CHANNELS_MAX; slot++)
                if (channels[slot].page != NULL)
                    drop(birth, stub, channels, slot, channels[slot].channel_id, "a tail that cannot be");
    }
    return 0;
}

/* ---- the node ---- */

struct start {
    const struct stub_node *node;
    const struct stub_config *config;
};

static void redirect(int to, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || dup2(fd, to) < 0)
        _exit(95);
    close(fd);
}

static int run_node(void *argument)
{
    const struct start *start = argument;
    const struct stub_config *config = start->config;
    static const char *const durabilities[] = {"sync", "async", "memory"};
    char partitions[16];
    char *argv[24] = {"serve",
                      "--dir",
                      start->node->dir,
                      "--socket",
                      (char *)(uintptr_t)start->node->socket,
                      "--durability",
                      (char *)(uintptr_t)durabilities[config->durability],
                      "--ring-bytes",
                      "64K",
                      "--segment-bytes",
                      "1M"};
    int argc = 11;
    struct options options;
    struct identity identity;
    struct mr_error error;
    int lock_fd;

    if (config->partitions != 0) {
        snprintf(partitions, sizeof(partitions), "%u", config->partitions);
        argv[argc++] = "--partitions";
        argv[argc++] = partitions;
    }
    if (config->cpus != NULL) {
        argv[argc++] = "--cpus";
        argv[argc++] = (char *)(uintptr_t)config->cpus;
    }
    for (const char *const *option = config->options; *option != NULL; option++)
        argv[argc++] = (char *)(uintptr_t)*option;
    redirect(STDOUT_FILENO, start->node->output);
    redirect(STDERR_FILENO, start->node->error);
    if (config->notify != NULL)
        setenv("NOTIFY_SOCKET", config->notify, 1);
    if (config->lock_wait != 0)
        identity_lock_wait = config->lock_wait;
    if (config->descriptors != 0 &&
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){config->descriptors, config->descriptors}) != 0)
        return 93;
    if (options_parse(argc, argv, &options, &error) != OPTIONS_OK ||
        identity_open(&options, &identity, &lock_fd, &error) != 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    if (config->fault != NULL && !sys_fault_parse(config->fault))
        return 94;
    struct supervisor_setup setup = {.options = &options,
                                     .identity = &identity,
                                     .worker = stub_run,
                                     .connections_max = config->connections_max,
                                     .channels_max = config->channels_max,
                                     .stop_limit = config->stop_limit,
                                     .handshake_limit = config->handshake_limit};
    return supervisor_run(&setup);
}

void stub_node_start(struct stub_node *node, char *dir, const struct stub_config *config)
{
    struct start start = {.node = node, .config = config};

    memset(node, 0, sizeof(*node));
    node->dir = dir;
    if (config->socket != NULL)
        snprintf(node->socket, sizeof(node->socket), "%s", config->socket);
    else
        snprintf(node->socket, sizeof(node->socket), "%s/millrace.sock", dir);
    snprintf(node->output, sizeof(node->output), "%s/output", dir);
    snprintf(node->error, sizeof(node->error), "%s/error", dir);
    /* What a node before it on the same directory has printed is not this one's. */
    unlink(node->output);
    unlink(node->error);
    node->workers = config->workers;
    if (node->workers == NULL) {
        node->workers = mmap(NULL, STUB_PARTITIONS * sizeof(*node->workers), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(node->workers != MAP_FAILED);
    }
    all_workers = node->workers;
    node->pid = fork_run(run_node, &start);
}

static bool file_has(const char *path, const char *text)
{
    size_t size;
    char *content = read_file(path, &size);
    bool has = content != NULL && strstr(content, text) != NULL;

    free(content);
    return has;
}

bool stub_node_ready(const struct stub_node *node)
{
    return wait_for(file_has(node->output, "ready socket=") || file_has(node->error, " error node:")) &&
           file_has(node->output, "ready socket=");
}

int stub_node_wait(struct stub_node *node)
{
    int status = node->pid != 0 ? fork_wait(node->pid, WAIT_MS) : -1;

    node->pid = 0;
    return status;
}

int stub_node_stop(struct stub_node *node)
{
    if (node->pid != 0)
        kill(node->pid, SIGTERM);
    return stub_node_wait(node);
}

void stub_node_end(struct stub_node *node)
{
    if (node->pid == 0)
        return;
    kill(node->pid, SIGKILL);
    stub_node_wait(node);
}

bool stub_node_said(const struct stub_node *node, const char *text)
{
    return file_has(node->error, text);
}

/* ---- the client ---- */

void stub_connect(struct stub_client *client, const struct stub_node *node)
{
    struct mr_error error;

    client->wake = -1;
    client->socket = handshake_connect(node->socket, &error);
    if (client->socket < 0)
        fail_msg("%s", error.text);
}

void stub_disconnect(struct stub_client *client)
{
    if (client->socket >= 0)
        close(client->socket);
    if (client->wake >= 0)
        close(client->wake);
    client->socket = client->wake = -1;
}

static void send_message(struct stub_client *client, const Millrace__V1__ClientMessage *message)
{
    /* A node that is gone shows at the next receive. What fails here is a fault that a test has planted, and only once.
     */
    if (handshake_send_client(client->socket, message, NULL) == HANDSHAKE_FAILED)
        (void)handshake_send_client(client->socket, message, NULL);
}

void stub_hello(struct stub_client *client, uint32_t version)
{
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__Hello hello = MILLRACE__V1__HELLO__INIT;

    hello.version = version;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    send_message(client, &message);
}

void stub_greet(struct stub_client *client, const struct stub_node *node)
{
    int fds[2];

    stub_connect(client, node);
    stub_hello(client, HANDSHAKE_VERSION);
    Millrace__V1__NodeMessage *message = stub_receive(client, fds);
    assert_non_null(message);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME);
    assert_true(fds[0] >= 0);
    client->wake = fds[0];
    stub_free(message);
}

bool stub_send_bytes(struct stub_client *client, const void *bytes, size_t size)
{
    return send(client->socket, bytes, size, MSG_NOSIGNAL) == (ssize_t)size;
}

void stub_ask_channel(struct stub_client *client, uint32_t partition, uint64_t ring_bytes)
{
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__OpenChannel body = MILLRACE__V1__OPEN_CHANNEL__INIT;

    body.partition = partition;
    body.ring_bytes = ring_bytes;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_OPEN_CHANNEL;
    message.open_channel = &body;
    send_message(client, &message);
}

void stub_say_mapped(struct stub_client *client, uint64_t channel_id)
{
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__ChannelMapped body = MILLRACE__V1__CHANNEL_MAPPED__INIT;

    body.channel_id = channel_id;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CHANNEL_MAPPED;
    message.channel_mapped = &body;
    send_message(client, &message);
}

void stub_ask_close(struct stub_client *client, uint64_t channel_id)
{
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__CloseChannel body = MILLRACE__V1__CLOSE_CHANNEL__INIT;

    body.channel_id = channel_id;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CLOSE_CHANNEL;
    message.close_channel = &body;
    send_message(client, &message);
}

void stub_ask_status(struct stub_client *client)
{
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__GetStatus body = MILLRACE__V1__GET_STATUS__INIT;

    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS;
    message.get_status = &body;
    send_message(client, &message);
}

void stub_ask_attach(struct stub_client *client, uint32_t partition, uint64_t session_id)
{
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__Attach body = MILLRACE__V1__ATTACH__INIT;

    body.partition = partition;
    body.session_id = session_id;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_ATTACH;
    message.attach = &body;
    send_message(client, &message);
}

void stub_ask_sessions(struct stub_client *client, uint32_t partition)
{
    Millrace__V1__ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__ListSessions body = MILLRACE__V1__LIST_SESSIONS__INIT;

    body.partition = partition;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_LIST_SESSIONS;
    message.list_sessions = &body;
    send_message(client, &message);
}

Millrace__V1__NodeMessage *stub_receive(struct stub_client *client, int fds[2])
{
    Millrace__V1__NodeMessage *message = NULL;
    unsigned fd_count = 0;

    if (!wait_fd(client->socket, POLLIN, WAIT_MS))
        fail_msg("nothing came from the node");
    enum handshake_result result = handshake_receive_node(client->socket, &message, fds, &fd_count, NULL);
    for (unsigned i = fd_count; i < 2; i++)
        fds[i] = -1;
    return result == HANDSHAKE_OK ? message : NULL;
}

void stub_free(Millrace__V1__NodeMessage *message)
{
    millrace__v1__node_message__free_unpacked(message, NULL);
}

static bool has_part(ProtobufCBinaryData text, const char *part)
{
    return memmem(text.data, text.len, part, strlen(part)) != NULL;
}

void stub_expect_refused(struct stub_client *client, uint32_t status, const char *part, bool fatal)
{
    int fds[2];
    Millrace__V1__NodeMessage *message = stub_receive(client, fds);

    assert_non_null(message);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED);
    if (!has_part(message->refused->message, part))
        fail_msg("refused with \"%.*s\", which does not say \"%s\"", (int)message->refused->message.len,
                 (const char *)message->refused->message.data, part);
    assert_int_equal(message->refused->status, status);
    assert_int_equal(message->refused->fatal, fatal);
    stub_free(message);
}

void stub_expect_closed(struct stub_client *client)
{
    int fds[2];

    assert_null(stub_receive(client, fds));
}

void stub_map_channel(struct stub_client *client, uint32_t partition, uint64_t ring_bytes, struct channel *channel)
{
    struct mr_error error;
    int fds[2];

    stub_ask_channel(client, partition, ring_bytes);
    Millrace__V1__NodeMessage *message = stub_receive(client, fds);
    assert_non_null(message);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL);
    assert_int_equal(message->channel->partition, partition);
    assert_true(fds[0] >= 0 && fds[1] >= 0);
    if (channel_map(channel, fds[0], fds[1], client->wake, partition, message->channel->channel_id,
                    message->channel->ring_bytes, &error) != 0)
        fail_msg("%s", error.text);
    stub_free(message);
}

void stub_expect_opened(struct stub_client *client, uint64_t channel_id)
{
    int fds[2];
    Millrace__V1__NodeMessage *message = stub_receive(client, fds);

    assert_non_null(message);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED);
    assert_int_equal(message->channel_opened->channel_id, channel_id);
    stub_free(message);
}

void stub_open_channel(struct stub_client *client, uint32_t partition, uint64_t ring_bytes, struct channel *channel)
{
    stub_map_channel(client, partition, ring_bytes, channel);
    assert_int_equal(channel->page->state, CHANNEL_OPENING);
    stub_say_mapped(client, channel->channel_id);
    stub_expect_opened(client, channel->channel_id);
    assert_int_equal(channel->page->state, CHANNEL_OPEN);
}

struct stub_status stub_status(struct stub_client *client, uint32_t partition)
{
    struct stub_status status = {.pid = 0};
    int fds[2];

    stub_ask_status(client);
    Millrace__V1__NodeMessage *message = stub_receive(client, fds);
    assert_non_null(message);
    assert_int_equal(message->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_STATUS);
    assert_true(partition <= message->status->n_partitions);
    const Millrace__V1__PartitionStatus *from = message->status->partitions[partition - 1];
    assert_int_equal(from->partition, partition);
    snprintf(status.state, sizeof(status.state), "%.*s", (int)from->state.len, (const char *)from->state.data);
    snprintf(status.reason, sizeof(status.reason), "%.*s", (int)from->reason.len, (const char *)from->reason.data);
    status.pid = from->pid;
    status.channels = from->channels;
    status.restarts = from->restarts;
    status.connections = message->status->connections;
    stub_free(message);
    return status;
}
