/* SPDX-License-Identifier: Apache-2.0 */
/* Each system call that supervisor, worker and client make while a node runs fails once, at each place where it is
 * made: the node lives, and serves the next client. Workers are stubs. */
#include "tests/support/stub_node.h"

#include "ipc/handshake.h"
#include "ipc/sys.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct stub_node node;

/* The next message of this kind, or NULL: something has failed on the way. Its descriptors are closed but for fds[]. */
static Millrace__V1__NodeMessage *next(int socket, Millrace__V1__NodeMessage__MessageCase kind, int fds[2])
{
    Millrace__V1__NodeMessage *message = NULL;
    unsigned fd_count = 0;

    fds[0] = fds[1] = -1;
    if (!wait_fd(socket, POLLIN, WAIT_MS) ||
        handshake_receive_node(socket, &message, fds, &fd_count, NULL) != HANDSHAKE_OK)
        return NULL;
    if (message->message_case == kind)
        return message;
    for (unsigned i = 0; i < fd_count; i++)
        close(fds[i]);
    stub_free(message);
    return NULL;
}

static bool open_channel(struct stub_client *client)
{
    struct channel channel;
    int fds[2], none[2];
    bool opened = false;

    stub_hello(client, HANDSHAKE_VERSION);
    Millrace__V1__NodeMessage *message = next(client->socket, MILLRACE__V1__NODE_MESSAGE__MESSAGE_WELCOME, fds);
    if (message == NULL)
        return false;
    client->wake = fds[0];
    stub_free(message);
    stub_ask_channel(client, 1, 0);
    message = next(client->socket, MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL, fds);
    if (message == NULL)
        return false;
    if (channel_map(&channel, fds[0], fds[1], client->wake, 1, message->channel->channel_id,
                    message->channel->ring_bytes, NULL) != 0) {
        close(fds[0]);
        close(fds[1]);
    } else {
        stub_say_mapped(client, channel.channel_id);
        stub_free(message);
        message = next(client->socket, MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED, none);
        opened = message != NULL;
        channel_unmap(&channel);
    }
    if (message != NULL)
        stub_free(message);
    return opened;
}

/* A client's whole visit, with a worker's death in the middle of it if asked. False: something failed. */
static bool visit(bool kill_worker)
{
    struct stub_client client = {.wake = -1};
    uint32_t births = node.workers[0].births;
    bool good;

    client.socket = handshake_connect(node.socket, NULL);
    if (client.socket < 0)
        return false;
    good = open_channel(&client);
    if (kill_worker) {
        kill(node.workers[0].pid, SIGKILL);
        good &= wait_for(node.workers[0].births > births);
    }
    stub_disconnect(&client);
    return good;
}

static void test_a_failing_call_costs_one_client_at_most(void **state)
{
    (void)state;
    static const struct {
        enum sys_call kind;
        int code;
    } faults[] = {{SYS_SENDMSG, ETOOMANYREFS},
                  {SYS_SENDMSG, ENOBUFS},
                  {SYS_RECVMSG, ENOMEM},
                  {SYS_EPOLL_CTL, ENOSPC},
                  {SYS_EPOLL_WAIT, EINTR},
                  {SYS_EVENTFD, EMFILE},
                  {SYS_MEMFD_CREATE, EMFILE},
                  {SYS_FTRUNCATE, ENOMEM},
                  {SYS_MMAP, ENOMEM},
                  {SYS_FCNTL, EPERM},
                  {SYS_ACCEPT4, EMFILE},
                  {SYS_ACCEPT4, ECONNABORTED},
                  {SYS_GETSOCKOPT, ENOMEM},
                  {SYS_SOCKETPAIR, EMFILE},
                  {SYS_FORK, EAGAIN},
                  {SYS_DUP, EMFILE},
                  {SYS_WAITPID, EINTR},
                  {SYS_PRCTL, EPERM},
                  {SYS_SIGACTION, EPERM},
                  {SYS_SIGPROCMASK, EPERM},
                  {SYS_READ, EIO},
                  {SYS_CLOSE, EIO},
                  {SYS_MUNMAP, ENOMEM},
                  {SYS_KILL, EPERM}};
    char *dir = temp_dir_make();
    unsigned fired = 0;

    stub_node_start(&node, dir, &(struct stub_config){.partitions = 2});
    assert_true(stub_node_ready(&node));
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        for (unsigned nth = 1; nth <= 12; nth++) {
            sys_fault_arm(faults[i].kind, nth, faults[i].code, false);
            (void)visit(true);
            fired += sys_fault_count(faults[i].kind);
            sys_fault_clear();
            if (!wait_for(visit(false)))
                fail_msg("no client is served after %s failed at its call %u", sys_call_name(faults[i].kind), nth);
        }
    assert_true(fired > 50);
    assert_int_equal(stub_node_stop(&node), 0);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_failing_call_costs_one_client_at_most)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
