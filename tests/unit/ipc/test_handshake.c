/* SPDX-License-Identifier: Apache-2.0 */
/* Packets on the node's socket: every message there and back, descriptors with it, and a peer that sends anything else.
 * No packet may leave a descriptor behind that nobody was given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ipc/handshake.h"
#include "ipc/sys.h"
#include "tests/support/random.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"

#include <millrace/limits.h>

typedef Millrace__V1__ClientMessage ClientMessage;
typedef Millrace__V1__NodeMessage NodeMessage;

struct fixture {
    int node; /* both ends non-blocking, so that a mistake fails instead of hanging */
    int client;
    unsigned descriptors;
    struct mr_error error;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    int fds[2];

    assert_non_null(f);
    sys_fault_clear();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    f->node = fds[0];
    f->client = fds[1];
    f->descriptors = open_descriptors();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    unsigned descriptors = open_descriptors();

    assert_int_equal(descriptors, f->descriptors);
    if (f->node >= 0)
        close(f->node);
    if (f->client >= 0)
        close(f->client);
    free(f);
    return 0;
}

static ProtobufCBinaryData text(const char *words)
{
    return (ProtobufCBinaryData){.len = strlen(words), .data = (uint8_t *)(uintptr_t)words};
}

/* The same message if it has the same encoding: protobuf-c writes fields in one order. */
static void assert_same(const ProtobufCMessage *one, const ProtobufCMessage *other)
{
    uint8_t first[4096];
    uint8_t second[4096];
    size_t size = protobuf_c_message_get_packed_size(one);

    assert_in_range(size, 1, sizeof(first));
    assert_int_equal(protobuf_c_message_get_packed_size(other), size);
    protobuf_c_message_pack(one, first);
    protobuf_c_message_pack(other, second);
    assert_memory_equal(first, second, size);
}

static void to_node(struct fixture *f, const ClientMessage *sent)
{
    ClientMessage *received = NULL;

    assert_int_equal(handshake_send_client(f->client, sent, &f->error), HANDSHAKE_OK);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_OK);
    assert_int_equal(received->message_case, sent->message_case);
    assert_same(&sent->base, &received->base);
    millrace__v1__client_message__free_unpacked(received, NULL);
}

static void every_message_of_a_client(void **state)
{
    struct fixture *f = *state;
    Millrace__V1__Hello hello = MILLRACE__V1__HELLO__INIT;
    Millrace__V1__OpenChannel open_channel = MILLRACE__V1__OPEN_CHANNEL__INIT;
    Millrace__V1__ChannelMapped mapped = MILLRACE__V1__CHANNEL_MAPPED__INIT;
    Millrace__V1__CloseChannel close_channel = MILLRACE__V1__CLOSE_CHANNEL__INIT;
    Millrace__V1__GetStatus get_status = MILLRACE__V1__GET_STATUS__INIT;
    ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;

    hello.version = HANDSHAKE_VERSION;
    hello.library = (ProtobufCBinaryData){.len = 5, .data = (uint8_t[]){'a', 0, 'b', 0xff, 'c'}};
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    to_node(f, &message);

    open_channel.partition = UINT32_MAX;
    open_channel.ring_bytes = UINT64_MAX;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_OPEN_CHANNEL;
    message.open_channel = &open_channel;
    to_node(f, &message);

    mapped.channel_id = 1;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CHANNEL_MAPPED;
    message.channel_mapped = &mapped;
    to_node(f, &message);

    close_channel.channel_id = 1ULL << 63;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_CLOSE_CHANNEL;
    message.close_channel = &close_channel;
    to_node(f, &message);

    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS;
    message.get_status = &get_status;
    to_node(f, &message);
}

/* Sent with the first fd_count of two descriptors: the receiver gets others for the same files, close-on-exec. */
static void to_client(struct fixture *f, const NodeMessage *sent, unsigned fd_count)
{
    NodeMessage *received = NULL;
    unsigned count = 99;
    int received_fds[HANDSHAKE_FDS];
    int pipes[2];

    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(handshake_send_node(f->node, sent, pipes, fd_count, &f->error), HANDSHAKE_OK);
    assert_int_equal(handshake_receive_node(f->client, &received, received_fds, &count, &f->error), HANDSHAKE_OK);
    assert_int_equal(received->message_case, sent->message_case);
    assert_same(&sent->base, &received->base);
    millrace__v1__node_message__free_unpacked(received, NULL);
    assert_int_equal(count, fd_count);
    for (unsigned i = 0; i < count; i++) {
        struct stat ours;
        struct stat theirs;
        assert_int_not_equal(received_fds[i], pipes[i]);
        assert_int_equal(fstat(pipes[i], &ours), 0);
        assert_int_equal(fstat(received_fds[i], &theirs), 0);
        assert_int_equal(ours.st_ino, theirs.st_ino);
        assert_int_equal(fcntl(received_fds[i], F_GETFL) & O_ACCMODE, i == 0 ? O_RDONLY : O_WRONLY);
        assert_int_equal(fcntl(received_fds[i], F_GETFD), FD_CLOEXEC);
        assert_int_equal(close(received_fds[i]), 0);
    }
    close(pipes[0]);
    close(pipes[1]);
}

static void every_message_of_a_node(void **state)
{
    struct fixture *f = *state;
    Millrace__V1__Welcome welcome = MILLRACE__V1__WELCOME__INIT;
    Millrace__V1__Channel channel = MILLRACE__V1__CHANNEL__INIT;
    Millrace__V1__ChannelOpened opened = MILLRACE__V1__CHANNEL_OPENED__INIT;
    Millrace__V1__Refused refused = MILLRACE__V1__REFUSED__INIT;
    Millrace__V1__PartitionStopped stopped = MILLRACE__V1__PARTITION_STOPPED__INIT;
    NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    welcome.version = 1;
    welcome.directory = (ProtobufCBinaryData){.len = 16, .data = (uint8_t[16]){1, 0, 2}};
    welcome.partitions = 2;
    welcome.max_payload = 1 << 20;
    welcome.ring_bytes = 1 << 22;
    welcome.durability = text("sync");
    welcome.node = text("0.1.0");
    welcome.pid = -1;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME;
    message.welcome = &welcome;
    to_client(f, &message, 1);

    channel.partition = 2;
    channel.channel_id = 7;
    channel.ring_bytes = 1 << 22;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL;
    message.channel = &channel;
    to_client(f, &message, 2);

    opened.channel_id = 7;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED;
    message.channel_opened = &opened;
    to_client(f, &message, 0);

    refused.status = 10;
    refused.message = text("no more than 1024 channels");
    refused.fatal = true;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED;
    message.refused = &refused;
    to_client(f, &message, 0);

    stopped.partition = 1;
    stopped.reason = text("damage in 3.segment at 4096");
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_PARTITION_STOPPED;
    message.partition_stopped = &stopped;
    to_client(f, &message, 0);
}

static void status_of_many_partitions(void **state)
{
    struct fixture *f = *state;
    Millrace__V1__PartitionStatus partitions[MR_PARTITIONS_MAX];
    Millrace__V1__PartitionStatus *pointers[MR_PARTITIONS_MAX];
    Millrace__V1__Status status = MILLRACE__V1__STATUS__INIT;
    NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    for (unsigned i = 0; i < MR_PARTITIONS_MAX; i++) {
        millrace__v1__partition_status__init(&partitions[i]);
        partitions[i].partition = i + 1;
        partitions[i].state = text("serving");
        partitions[i].core = -1;
        partitions[i].applied_index = 1ULL << i;
        pointers[i] = &partitions[i];
    }
    status.version = text("0.1.0");
    status.pid = 4711;
    status.n_partitions = MR_PARTITIONS_MAX;
    status.partitions = pointers;
    status.connections = 3;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_STATUS;
    message.status = &status;
    to_client(f, &message, 0);
}

static void nothing_there_and_no_room(void **state)
{
    struct fixture *f = *state;
    Millrace__V1__Hello hello = MILLRACE__V1__HELLO__INIT;
    ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    ClientMessage *received = NULL;
    NodeMessage *from_node = NULL;
    unsigned count;
    int fds[HANDSHAKE_FDS];
    enum handshake_result result;
    unsigned sent = 0;

    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_AGAIN);
    assert_int_equal(handshake_receive_node(f->client, &from_node, fds, &count, &f->error), HANDSHAKE_AGAIN);
    hello.library = text("library");
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    while ((result = handshake_send_client(f->client, &message, &f->error)) == HANDSHAKE_OK)
        assert_in_range(++sent, 1, 1000000);
    assert_int_equal(result, HANDSHAKE_AGAIN);
    /* None of those that were sent is lost, and then there is nothing again. */
    for (; sent > 0; sent--) {
        assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_OK);
        millrace__v1__client_message__free_unpacked(received, NULL);
    }
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_AGAIN);
}

static void the_peer_went_away(void **state)
{
    struct fixture *f = *state;
    Millrace__V1__GetStatus get_status = MILLRACE__V1__GET_STATUS__INIT;
    ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    ClientMessage *received = NULL;

    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS;
    message.get_status = &get_status;
    assert_int_equal(handshake_send_client(f->client, &message, &f->error), HANDSHAKE_OK);
    close(f->client);
    f->client = -1;
    f->descriptors--;
    /* What it sent first still comes. */
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_OK);
    millrace__v1__client_message__free_unpacked(received, NULL);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_CLOSED);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_CLOSED);

    Millrace__V1__ChannelOpened opened = MILLRACE__V1__CHANNEL_OPENED__INIT;
    NodeMessage answer = MILLRACE__V1__NODE_MESSAGE__INIT;
    answer.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED;
    answer.channel_opened = &opened;
    opened.channel_id = 1;
    assert_int_equal(handshake_send_node(f->node, &answer, NULL, 0, &f->error), HANDSHAKE_CLOSED);
}

/* Who is refused has said Hello meanwhile: the reason still comes. */
static void the_peer_went_away_with_a_word(void **state)
{
    struct fixture *f = *state;
    Millrace__V1__GetStatus get_status = MILLRACE__V1__GET_STATUS__INIT;
    ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    Millrace__V1__Refused refused = MILLRACE__V1__REFUSED__INIT;
    NodeMessage answer = MILLRACE__V1__NODE_MESSAGE__INIT, *received = NULL;
    int fds[HANDSHAKE_FDS];
    unsigned count = 0;

    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS;
    message.get_status = &get_status;
    answer.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED;
    answer.refused = &refused;
    refused.fatal = true;
    assert_int_equal(handshake_send_node(f->node, &answer, NULL, 0, &f->error), HANDSHAKE_OK);
    assert_int_equal(handshake_send_client(f->client, &message, &f->error), HANDSHAKE_OK);
    close(f->node); /* with that unread */
    f->node = -1;
    f->descriptors--;
    assert_int_equal(handshake_receive_node(f->client, &received, fds, &count, &f->error), HANDSHAKE_OK);
    assert_int_equal(received->message_case, MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED);
    millrace__v1__node_message__free_unpacked(received, NULL);
    assert_int_equal(handshake_receive_node(f->client, &received, fds, &count, &f->error), HANDSHAKE_CLOSED);
}

/* A packet of any bytes with any number of descriptors, from `from`. */
static void send_raw(int from, const void *bytes, size_t size, unsigned fd_count)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(253 * sizeof(int))] = {0};
    struct iovec vector = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};

    if (fd_count > 0) {
        header.msg_control = control;
        header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        for (unsigned i = 0; i < fd_count; i++)
            memcpy(CMSG_DATA(rights) + i * sizeof(int), &from, sizeof(int));
    }
    assert_int_equal(sendmsg(from, &header, MSG_NOSIGNAL), size);
}

static void expect_node_refuses(struct fixture *f)
{
    ClientMessage *received = NULL;

    f->error.text[0] = '\0';
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_FAILED);
    assert_null(received);
    assert_int_not_equal(f->error.text[0], '\0');
    assert_int_equal(open_descriptors(), f->descriptors);
}

static void expect_client_refuses(struct fixture *f)
{
    NodeMessage *received = NULL;
    unsigned count = 0;
    int fds[HANDSHAKE_FDS];

    f->error.text[0] = '\0';
    assert_int_equal(handshake_receive_node(f->client, &received, fds, &count, &f->error), HANDSHAKE_FAILED);
    assert_null(received);
    assert_int_equal(count, 0);
    assert_int_not_equal(f->error.text[0], '\0');
    assert_int_equal(open_descriptors(), f->descriptors);
}

static void truncated_messages(void **state)
{
    struct fixture *f = *state;
    /* ClientMessage { hello { version: 1, library: "abc" } }, and NodeMessage { welcome { the same } } in its place. */
    static const uint8_t packet[] = {0x0a, 7, 0x08, 1, 0x12, 3, 'a', 'b', 'c'};
    ClientMessage *received = NULL;

    for (size_t size = 1; size < sizeof(packet); size++) {
        send_raw(f->client, packet, size, 0);
        expect_node_refuses(f);
        assert_non_null(strstr(f->error.text, "does not decode"));
        send_raw(f->node, packet, size, 2);
        expect_client_refuses(f);
    }
    send_raw(f->client, packet, sizeof(packet), 0);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_OK);
    assert_int_equal(received->hello->library.len, 3);
    millrace__v1__client_message__free_unpacked(received, NULL);
}

static void unknown_members_are_the_receivers(void **state)
{
    struct fixture *f = *state;
    ClientMessage *received = NULL;

    send_raw(f->client, "\x9a\x06\x02hi", 5, 0); /* field 99 */
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_OK);
    assert_int_equal(received->message_case, MILLRACE__V1__CLIENT_MESSAGE__MESSAGE__NOT_SET);
    millrace__v1__client_message__free_unpacked(received, NULL);
}

static void oversized_packets(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = calloc(1, HANDSHAKE_BYTES + 1);
    ClientMessage *received = NULL;

    assert_non_null(bytes);
    /* An unknown field that fills a packet to its last byte decodes; one byte more is refused. */
    const uint8_t start[] = {0x9a, 0x06, 0xfb, 0xff, 0x03}; /* field 99, 65531 bytes */
    memcpy(bytes, start, sizeof(start));
    send_raw(f->client, bytes, HANDSHAKE_BYTES, 0);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_OK);
    millrace__v1__client_message__free_unpacked(received, NULL);
    received = NULL;
    send_raw(f->client, bytes, HANDSHAKE_BYTES + 1, 0);
    expect_node_refuses(f);
    assert_non_null(strstr(f->error.text, "more than 65536 bytes"));
    send_raw(f->node, bytes, HANDSHAKE_BYTES + 1, 2);
    expect_client_refuses(f);

    /* Nor is one sent. */
    Millrace__V1__Hello hello = MILLRACE__V1__HELLO__INIT;
    ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    hello.library = (ProtobufCBinaryData){.len = HANDSHAKE_BYTES, .data = bytes};
    assert_int_equal(handshake_send_client(f->client, &message, &f->error), HANDSHAKE_FAILED);
    hello.library.len = HANDSHAKE_BYTES - 8;
    assert_int_equal(handshake_send_client(f->client, &message, &f->error), HANDSHAKE_OK);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_OK);
    assert_int_equal(received->hello->library.len, HANDSHAKE_BYTES - 8);
    millrace__v1__client_message__free_unpacked(received, NULL);
    free(bytes);
}

static void too_many_descriptors(void **state)
{
    struct fixture *f = *state;
    static const uint8_t packet[] = {0x0a, 2, 0x08, 1};
    static const unsigned counts[] = {1, 2, 3, 4, 5, 16, 253};
    NodeMessage *received = NULL;
    unsigned count = 0;
    int fds[HANDSHAKE_FDS];

    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        /* A client has none to send; a node at most two. */
        send_raw(f->client, packet, sizeof(packet), counts[i]);
        expect_node_refuses(f);
        assert_non_null(strstr(f->error.text, "more descriptors than the 0"));
        send_raw(f->node, packet, sizeof(packet), counts[i]);
        if (counts[i] > HANDSHAKE_FDS) {
            expect_client_refuses(f);
            assert_non_null(strstr(f->error.text, "more descriptors than the 2"));
            continue;
        }
        assert_int_equal(handshake_receive_node(f->client, &received, fds, &count, &f->error), HANDSHAKE_OK);
        assert_int_equal(count, counts[i]);
        millrace__v1__node_message__free_unpacked(received, NULL);
        while (count > 0)
            close(fds[--count]);
    }
    /* A packet of no bytes cannot be told from the end, descriptors or not. */
    send_raw(f->node, packet, 0, 2);
    assert_int_equal(handshake_receive_node(f->client, &received, fds, &count, &f->error), HANDSHAKE_CLOSED);
    assert_int_equal(open_descriptors(), f->descriptors);
}

static void garbage(void **state)
{
    struct fixture *f = *state;
    unsigned refused = 0;

    for (int round = 0; round < 20000; round++) {
        uint8_t packet[64];
        ClientMessage *from_client = NULL;
        NodeMessage *from_node = NULL;
        unsigned count = 0;
        int fds[HANDSHAKE_FDS];
        for (size_t i = 0; i < sizeof(packet); i++)
            packet[i] = (uint8_t)(random_bits() >> 32);
        /* Half of them begin like a message that there is. */
        if (round % 2 == 0)
            packet[0] = (uint8_t)(packet[0] % 6 * 8 + 10);
        size_t size = 1 + packet[1] % sizeof(packet);
        send_raw(f->client, packet, size, 0);
        send_raw(f->node, packet, size, (unsigned)round % 3);
        enum handshake_result result = handshake_receive_client(f->node, &from_client, &f->error);
        assert_true(result == HANDSHAKE_OK || result == HANDSHAKE_FAILED);
        if (result == HANDSHAKE_OK)
            millrace__v1__client_message__free_unpacked(from_client, NULL);
        else
            refused++;
        result = handshake_receive_node(f->client, &from_node, fds, &count, &f->error);
        assert_true(result == HANDSHAKE_OK || result == HANDSHAKE_FAILED);
        if (result == HANDSHAKE_OK)
            millrace__v1__node_message__free_unpacked(from_node, NULL);
        while (count > 0)
            close(fds[--count]);
    }
    assert_true(refused > 10000);
}

static void failing_calls(void **state)
{
    struct fixture *f = *state;
    Millrace__V1__GetStatus get_status = MILLRACE__V1__GET_STATUS__INIT;
    ClientMessage message = MILLRACE__V1__CLIENT_MESSAGE__INIT;
    ClientMessage *received = NULL;

    message.message_case = MILLRACE__V1__CLIENT_MESSAGE__MESSAGE_GET_STATUS;
    message.get_status = &get_status;
    static const struct {
        int code;
        enum handshake_result result;
    } sends[] = {{EINTR, HANDSHAKE_OK},          {EAGAIN, HANDSHAKE_AGAIN},   {EPIPE, HANDSHAKE_CLOSED},
                 {ECONNRESET, HANDSHAKE_CLOSED}, {ENOBUFS, HANDSHAKE_FAILED}, {ETOOMANYREFS, HANDSHAKE_FAILED}};
    for (size_t i = 0; i < sizeof(sends) / sizeof(*sends); i++) {
        sys_fault_arm(SYS_SENDMSG, 1, sends[i].code, false);
        assert_int_equal(handshake_send_client(f->client, &message, &f->error), sends[i].result);
    }
    sys_fault_arm(SYS_RECVMSG, 1, ENOMEM, false);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_FAILED);
    assert_int_equal(f->error.code, ENOMEM);
    sys_fault_arm(SYS_RECVMSG, 1, ECONNRESET, true);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_CLOSED);
    sys_fault_clear();
    sys_fault_arm(SYS_RECVMSG, 1, EINTR, false);
    assert_int_equal(handshake_receive_client(f->node, &received, &f->error), HANDSHAKE_OK);
    millrace__v1__client_message__free_unpacked(received, NULL);
}

static void connecting(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address;
    char path[TEMP_PATH_MAX];
    char *directory = temp_dir_make();

    temp_dir_file(path, directory, "node.sock");
    assert_int_equal(handshake_connect(path, &f->error), -1);
    assert_int_equal(f->error.code, ENOENT);
    assert_non_null(strstr(f->error.text, path));

    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(handshake_address(path, &address, &f->error), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(handshake_connect(path, &f->error), -1);
    assert_int_equal(f->error.code, ECONNREFUSED);
    assert_int_equal(listen(listener, 1), 0);
    sys_fault_arm(SYS_CONNECT, 1, EINTR, false);
    int fd = handshake_connect(path, &f->error);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    send_raw(accepted, "\x0a\x00", 2, 0);
    NodeMessage *received = NULL;
    unsigned count;
    int fds[HANDSHAKE_FDS];
    assert_int_equal(handshake_receive_node(fd, &received, fds, &count, &f->error), HANDSHAKE_OK);
    millrace__v1__node_message__free_unpacked(received, NULL);
    close(fd);
    close(accepted);
    close(listener);
    assert_int_equal(handshake_connect(path, &f->error), -1); /* a stale socket */
    assert_int_equal(f->error.code, ECONNREFUSED);

    sys_fault_arm(SYS_SOCKET, 1, EMFILE, false);
    assert_int_equal(handshake_connect(path, &f->error), -1);
    assert_int_equal(f->error.code, EMFILE);
    temp_dir_remove(directory);
}

static void long_paths(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address;
    char path[MR_SOCKET_PATH_MAX + 2];

    memset(path, 'x', sizeof(path));
    path[MR_SOCKET_PATH_MAX + 1] = '\0';
    assert_int_equal(handshake_address(path, &address, &f->error), -1);
    assert_non_null(strstr(f->error.text, "107"));
    assert_int_equal(handshake_connect(path, &f->error), -1);
    path[MR_SOCKET_PATH_MAX] = '\0';
    assert_int_equal(handshake_address(path, &address, &f->error), 0);
    assert_string_equal(address.sun_path, path);
    assert_int_equal(address.sun_family, AF_UNIX);
    assert_int_equal(handshake_address("", &address, &f->error), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_message_of_a_client, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_message_of_a_node, set_up, tear_down),
        cmocka_unit_test_setup_teardown(status_of_many_partitions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_there_and_no_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_peer_went_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_peer_went_away_with_a_word, set_up, tear_down),
        cmocka_unit_test_setup_teardown(truncated_messages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unknown_members_are_the_receivers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(oversized_packets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(too_many_descriptors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(garbage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failing_calls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(connecting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(long_paths, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
