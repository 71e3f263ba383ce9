/* SPDX-License-Identifier: Apache-2.0 */
/* The supervisor and its workers: births and deaths, restarts with the same channels, backing off, requests and entries
 * that kill, memory for segments, the orderly stop and the others, and what a second node meets. Workers are stubs. */
#include "tests/support/stub_node.h"

#include <millrace/limits.h>
#include <millrace/status.h>

#include "engine/node/supervisor.h"
#include "ipc/handshake.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static char *dir;
static struct stub_node node;
static struct stub_client client;

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    client = (struct stub_client){.socket = -1, .wake = -1};
    memset(&node, 0, sizeof(node));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stub_disconnect(&client);
    stub_node_end(&node);
    temp_dir_remove(dir);
    return 0;
}

static void start(const struct stub_config *config)
{
    stub_node_start(&node, dir, config);
    assert_true(stub_node_ready(&node));
}

static bool is_gone(pid_t pid)
{
    return kill(pid, 0) != 0 && errno == ESRCH;
}

/* Partition 1's worker ends like this, and the next one is there. */
static void end_worker(uint32_t how)
{
    uint32_t births = node.workers[0].births;

    node.workers[0].end_now = how;
    assert_true(wait_for(node.workers[0].births > births));
}

static void expect_message(Millrace__V1__NodeMessage__MessageCase kind, const char *part)
{
    int fds[2];
    Millrace__V1__NodeMessage *message = stub_receive(&client, fds);

    assert_non_null(message);
    assert_int_equal(message->message_case, kind);
    ProtobufCBinaryData text = kind == MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED
                                   ? message->channel_closed->reason
                                   : message->partition_stopped->reason;
    if (memmem(text.data, text.len, part, strlen(part)) == NULL)
        fail_msg("\"%.*s\" does not say \"%s\"", (int)text.len, (const char *)text.data, part);
    stub_free(message);
}

static void test_each_partition_has_a_worker_of_its_own(void **state)
{
    (void)state;
    struct stat status;
    struct stub_status first, second;

    start(&(struct stub_config){.partitions = 2, .cpus = "none"});
    stub_greet(&client, &node);
    assert_true(wait_for(strcmp((first = stub_status(&client, 1)).state, "serving") == 0));
    assert_true(wait_for(strcmp((second = stub_status(&client, 2)).state, "serving") == 0));
    assert_int_equal(first.pid, node.workers[0].pid);
    assert_int_equal(second.pid, node.workers[1].pid);
    assert_int_not_equal(first.pid, second.pid);
    assert_int_equal(first.restarts, 0);
    assert_int_equal(node.workers[0].core, -1);
    /* stdin, stdout, stderr, the lock, the control socket, and what the test's own process had open. */
    assert_int_equal(node.workers[0].descriptors, node.workers[1].descriptors);

    assert_int_equal(stub_node_stop(&node), 0);
    assert_true(is_gone(first.pid) && is_gone(second.pid));
    assert_int_equal(stat(node.socket, &status), -1);
}

static void test_workers_get_cores_in_turn(void **state)
{
    (void)state;
    cpu_set_t mine;
    int cpu = 0;
    char list[16];

    assert_int_equal(sched_getaffinity(0, sizeof(mine), &mine), 0);
    while (!CPU_ISSET((size_t)cpu, &mine))
        cpu++;
    snprintf(list, sizeof(list), "%d", cpu);
    start(&(struct stub_config){.partitions = 3, .cpus = list});
    for (int p = 0; p < 3; p++) {
        assert_int_equal(node.workers[p].core, cpu); /* shared: more partitions than cores */
        assert_int_equal(node.workers[p].may_spin, 0);
    }
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_killed_worker_is_restarted_with_its_channels(void **state)
{
    (void)state;
    struct channel channels[3];

    start(&(struct stub_config){.partitions = 2});
    stub_greet(&client, &node);
    for (int i = 0; i < 2; i++)
        stub_open_channel(&client, 1, 0, &channels[i]);
    stub_open_channel(&client, 2, 0, &channels[2]);
    unsigned descriptors = node.workers[0].descriptors;
    pid_t other = node.workers[1].pid;
    for (unsigned round = 1; round <= 20; round++) {
        pid_t pid = node.workers[0].pid;
        kill(pid, SIGKILL);
        assert_true(wait_for(node.workers[0].births == round + 1));
        assert_int_equal(node.workers[0].inherited, 2);
        assert_int_equal(node.workers[0].inherited_id, channels[1].channel_id);
        assert_int_not_equal(node.workers[0].pid, pid);
        assert_int_equal(stub_status(&client, 1).restarts, round);
        /* Ready before it is killed again: being killed from outside is then nobody's failure. */
        assert_true(wait_for(strcmp(stub_status(&client, 1).state, "serving") == 0));
    }
    /* Of the supervisor's descriptors it kept its own channels': two each (wake-ups), nobody else's. */
    assert_int_equal(node.workers[0].descriptors, descriptors + 4);
    assert_int_equal(node.workers[1].pid, other);
    assert_int_equal(node.workers[1].births, 1);
    assert_int_equal(channels[0].page->state, CHANNEL_OPEN);
    stub_ask_close(&client, channels[0].channel_id);
    assert_true(wait_for(stub_status(&client, 1).channels == 1));
    for (int i = 0; i < 3; i++)
        channel_unmap(&channels[i]);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_backing_off_doubles_and_ends(void **state)
{
    (void)state;
    static const uint64_t expected[] = {0, 0, 10, 20, 40, 80, 160, 320, 640, 1280, 2000, 2000};

    for (unsigned failures = 0; failures < sizeof(expected) / sizeof(expected[0]); failures++)
        assert_int_equal(supervisor_backoff(failures), expected[failures] * MR_MILLISECOND);
    assert_int_equal(supervisor_backoff(UINT32_MAX), 2 * MR_SECOND);
}

static void test_a_worker_that_keeps_failing_is_restarted_ever_later(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    node.workers[0].death = STUB_EXIT + 1;
    node.workers[0].deaths = 3;
    node.workers[0].ready_first = 1; /* READY alone does not make up for failing at once */
    end_worker(STUB_EXIT + 1);
    assert_true(wait_for(node.workers[0].births == 5));
    assert_true(stub_node_said(&node, "exit status 1; restarted at once"));
    assert_true(stub_node_said(&node, "exit status 1; restarted in 10 ms"));
    assert_true(stub_node_said(&node, "exit status 1; restarted in 20 ms"));
    assert_true(stub_node_said(&node, "exit status 1; restarted in 40 ms"));
    assert_int_equal(stub_status(&client, 1).restarts, 4);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_failing_fork_is_tried_again(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1, .fault = "fork:1:EAGAIN,socketpair:2:EMFILE"});
    assert_true(stub_node_said(&node, "cannot fork"));
    assert_true(stub_node_said(&node, "cannot make a control socket"));
    assert_int_equal(node.workers[0].births, 1);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_node_that_cannot_run_ends(void **state)
{
    (void)state;
    struct stub_worker *workers;

    /* Made by a first start, so that the wish is there before the workers are. */
    start(&(struct stub_config){.partitions = 2});
    workers = node.workers;
    assert_int_equal(stub_node_stop(&node), 0);
    workers[1].deaths = 1;
    workers[1].death = STUB_EXIT + WORKER_CANNOT_RUN;
    stub_node_start(&node, dir, &(struct stub_config){.partitions = 2, .workers = workers});
    assert_int_equal(stub_node_wait(&node), 1);
    assert_true(stub_node_said(&node, "no worker can run here"));
    assert_true(is_gone(workers[0].pid));
}

static void test_a_request_that_kills_twice_loses_its_channel(void **state)
{
    (void)state;
    struct channel poisonous, harmless;

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    stub_open_channel(&client, 1, 0, &poisonous);
    stub_open_channel(&client, 1, 0, &harmless);
    node.workers[0].at_channel = poisonous.channel_id;
    node.workers[0].at_position = 4096;
    end_worker(SIGABRT);
    node.workers[0].at_position = 8192; /* another request */
    end_worker(SIGABRT);
    end_worker(SIGKILL); /* proves nothing */
    assert_int_equal(node.workers[0].inherited, 2);
    assert_int_equal(poisonous.page->state, CHANNEL_OPEN);
    end_worker(SIGSEGV); /* the second at 8192 */
    expect_message(MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED, "the request at 8192 killed the worker twice");
    assert_int_equal(node.workers[0].inherited, 1);
    assert_int_equal(node.workers[0].inherited_id, harmless.channel_id);
    assert_int_equal(poisonous.page->state, CHANNEL_CLOSED);
    assert_non_null(strstr(poisonous.page->why, "8192"));
    assert_int_equal(harmless.page->state, CHANNEL_OPEN);
    assert_string_not_equal(stub_status(&client, 1).state, "stopped");
    channel_unmap(&poisonous);
    channel_unmap(&harmless);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_an_entry_that_kills_twice_stops_its_partition(void **state)
{
    (void)state;
    struct channel channel, later;
    struct stub_status status;

    start(&(struct stub_config){.partitions = 2});
    stub_greet(&client, &node);
    stub_open_channel(&client, 1, 0, &channel);
    node.workers[0].at_index = 41;
    end_worker(SIGABRT);
    node.workers[0].at_index = 42;
    end_worker(SIGABRT);
    assert_string_not_equal(stub_status(&client, 1).state, "stopped");
    end_worker(SIGABRT);
    expect_message(MILLRACE__V1__NODE_MESSAGE__MESSAGE_PARTITION_STOPPED, "entry 42 killed the worker twice");
    status = stub_status(&client, 1);
    assert_string_equal(status.state, "stopped");
    assert_non_null(strstr(status.reason, "entry 42 "));
    assert_non_null(strstr(status.reason, "Aborted"));
    assert_int_equal(node.workers[0].inherited, 1); /* its channels stay, to be answered there */
    assert_int_equal(channel.page->state, CHANNEL_OPEN);

    /* It stays stopped over later deaths, and new channels are told. */
    node.workers[0].at_index = 0;
    end_worker(SIGKILL);
    assert_string_equal(stub_status(&client, 1).state, "stopped");
    stub_open_channel(&client, 1, 0, &later);
    expect_message(MILLRACE__V1__NODE_MESSAGE__MESSAGE_PARTITION_STOPPED, "entry 42");
    assert_string_equal(stub_status(&client, 2).state, "serving");
    channel_unmap(&channel);
    channel_unmap(&later);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_snapshot_that_kills_twice_stops_its_partition(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    node.workers[0].at_snapshot = 1000;
    end_worker(SIGSEGV);
    node.workers[0].at_snapshot = 0; /* an older one, or the log, did no harm */
    end_worker(SIGSEGV);
    node.workers[0].at_snapshot = 1000;
    end_worker(SIGSEGV);
    assert_string_not_equal(stub_status(&client, 1).state, "stopped");
    end_worker(SIGSEGV);
    struct stub_status status = stub_status(&client, 1);
    assert_string_equal(status.state, "stopped");
    assert_non_null(strstr(status.reason, "the snapshot of index 1000 killed the worker twice"));
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_memory_segments_outlive_workers(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1, .durability = DURABILITY_MEMORY});
    for (uint32_t slot = 0; slot < 2; slot++) {
        node.workers[0].segment_bytes = 0;
        node.workers[0].want_segment = slot + 1;
        assert_true(wait_for(node.workers[0].segment_bytes != 0));
        assert_int_equal(node.workers[0].segment_bytes, MR_MIB);
    }
    end_worker(SIGKILL);
    assert_int_equal(node.workers[0].segments_born, 2);
    node.workers[0].segment_bytes = 0;
    node.workers[0].want_segment = 5 + 1; /* not the next one */
    assert_true(wait_for(node.workers[0].segment_bytes != 0));
    assert_int_equal(node.workers[0].segment_bytes, 1);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_segments_of_a_node_on_disk_are_not_memory(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1});
    node.workers[0].want_segment = 1;
    assert_true(wait_for(node.workers[0].segment_bytes != 0));
    assert_int_equal(node.workers[0].segment_bytes, 1);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_stopping_closes_channels_with_a_reason(void **state)
{
    (void)state;
    struct channel channel;

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    stub_open_channel(&client, 1, 0, &channel);
    assert_int_equal(stub_node_stop(&node), 0);
    assert_int_equal(channel.page->state, CHANNEL_CLOSED);
    assert_string_equal(channel.page->why, "the node has stopped");
    stub_expect_closed(&client);
    channel_unmap(&channel);
}

static void test_a_worker_that_does_not_stop_is_killed(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 2, .stop_limit = 50 * MR_MILLISECOND});
    node.workers[0].ignore_stop = 1;
    pid_t pid = node.workers[0].pid;
    assert_int_equal(stub_node_stop(&node), 1);
    assert_true(stub_node_said(&node, "did not stop in time"));
    assert_true(is_gone(pid));
}

static void test_a_worker_that_is_busy_has_its_time(void **state)
{
    (void)state;
    int status = -1;

    /* It has to say so within the limit each time: where it was not scheduled for so long, all has twice the time. */
    for (unsigned seconds = 1; status != 0; seconds *= 2) {
        assert_true(seconds <= 8);
        start(&(struct stub_config){.partitions = 1, .stop_limit = seconds * MR_SECOND});
        node.workers[0].busy = 1500 * seconds; /* a millisecond each, and more */
        status = stub_node_stop(&node);
        assert_int_equal(stub_node_said(&node, "did not stop in time"), status != 0);
    }
    assert_int_equal(node.workers[0].busy, 0);
}

static void test_a_second_signal_ends_at_once(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1});
    node.workers[0].ignore_stop = 1;
    pid_t pid = node.workers[0].pid;
    kill(node.pid, SIGINT);
    assert_true(wait_for(stub_node_said(&node, "stopping: signal 2")));
    assert_true(wait_for(kill(node.pid, SIGTERM) == 0 && stub_node_said(&node, "a second signal")));
    assert_int_equal(stub_node_wait(&node), 1);
    assert_true(is_gone(pid));
}

static void test_signals_that_come_together_are_one(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1});
    kill(node.pid, SIGSTOP);
    kill(node.pid, SIGTERM);
    kill(node.pid, SIGINT);
    kill(node.pid, SIGCONT);
    assert_int_equal(stub_node_wait(&node), 0);
}

static void test_workers_leave_signals_to_the_supervisor(void **state)
{
    (void)state;

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    kill(node.workers[0].pid, SIGTERM);
    kill(node.workers[0].pid, SIGINT);
    kill(node.workers[0].pid, SIGHUP);
    /* It still does what it is asked. */
    node.workers[0].want_segment = 1;
    assert_true(wait_for(node.workers[0].segment_bytes != 0));
    assert_int_equal(stub_status(&client, 1).restarts, 0);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_workers_die_with_the_supervisor(void **state)
{
    (void)state;
    struct stub_worker *workers;

    start(&(struct stub_config){.partitions = 2});
    workers = node.workers;
    kill(node.pid, SIGKILL);
    assert_int_equal(stub_node_wait(&node), 128 + SIGKILL);
    /* The socket is stale, the lock falls with the last worker: a new node takes both. */
    start(&(struct stub_config){.partitions = 2, .workers = workers});
    assert_int_equal(workers[0].births, 2);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_second_node_is_refused(void **state)
{
    (void)state;
    struct stub_node second;
    char socket[TEMP_PATH_MAX], text[64];

    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    stub_node_start(
        &second, dir,
        &(struct stub_config){.socket = temp_dir_file(socket, dir, "second.sock"), .lock_wait = 200 * MR_MILLISECOND});
    assert_int_equal(stub_node_wait(&second), 1);
    snprintf(text, sizeof(text), "in use by the node with pid %d", (int)node.pid);
    assert_true(stub_node_said(&second, text));
    assert_int_equal(stub_status(&client, 1).restarts, 0);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_socket_in_use_is_not_taken_over(void **state)
{
    (void)state;
    struct stub_node second;
    char text[64];
    char *other = temp_dir_make();

    start(&(struct stub_config){.partitions = 1});
    stub_node_start(&second, other, &(struct stub_config){.socket = node.socket});
    assert_int_equal(stub_node_wait(&second), 1);
    snprintf(text, sizeof(text), "the process with pid %d listens there", (int)node.pid);
    assert_true(stub_node_said(&second, text));
    stub_greet(&client, &node);
    assert_int_equal(stub_node_stop(&node), 0);
    temp_dir_remove(other);
}

/* A process listens and ends; its child keeps the socket until somebody has connected, and ends then. */
static void leave_a_listener(const char *path)
{
    struct sockaddr_un address;
    struct mr_error error;

    assert_int_equal(handshake_address(path, &address, &error), 0);
    pid_t parent = fork();
    assert_true(parent >= 0);
    if (parent == 0) {
        int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 1) != 0)
            _exit(1);
        if (fork() == 0)
            _exit(wait_fd(listener, POLLIN, WAIT_MS) ? 0 : 1);
        _exit(0);
    }
    assert_int_equal(fork_wait(parent, WAIT_MS), 0);
}

static void test_a_socket_that_a_dead_node_left_is_waited_for(void **state)
{
    (void)state;
    char path[TEMP_PATH_MAX];

    leave_a_listener(temp_dir_file(path, dir, "millrace.sock"));
    start(&(struct stub_config){.partitions = 1});
    stub_greet(&client, &node);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_file_at_the_sockets_path_is_left_alone(void **state)
{
    (void)state;
    char path[TEMP_PATH_MAX];
    size_t size;

    temp_dir_file(path, dir, "millrace.sock");
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "precious", 8), 8);
    close(fd);
    stub_node_start(&node, dir, &(struct stub_config){.partitions = 1});
    assert_int_equal(stub_node_wait(&node), 1);
    assert_true(stub_node_said(&node, "not a socket"));
    char *content = read_file(path, &size);
    assert_non_null(content);
    assert_string_equal(content, "precious");
    free(content);
}

static void expect_datagram(int socket, const char *text)
{
    char bytes[64] = "";

    assert_true(wait_fd(socket, POLLIN, WAIT_MS));
    ssize_t size = recv(socket, bytes, sizeof(bytes) - 1, 0);
    assert_int_equal(size, (ssize_t)strlen(text));
    assert_string_equal(bytes, text);
}

static void test_the_service_manager_is_told(void **state)
{
    (void)state;
    for (int abstract = 0; abstract < 2; abstract++) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        char name[80];
        int socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_true(socket_fd >= 0);
        if (abstract)
            snprintf(name, sizeof(name), "@millrace-test-%d", (int)getpid());
        else
            snprintf(name, sizeof(name), "%s/notify", dir);
        memcpy(address.sun_path, name, strlen(name));
        if (abstract)
            address.sun_path[0] = '\0';
        assert_int_equal(bind(socket_fd, (struct sockaddr *)&address,
                              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
                         0);
        start(&(struct stub_config){.partitions = 1, .notify = name});
        expect_datagram(socket_fd, "READY=1");
        assert_int_equal(stub_node_stop(&node), 0);
        expect_datagram(socket_fd, "STOPPING=1");
        close(socket_fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_partition_has_a_worker_of_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_get_cores_in_turn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_killed_worker_is_restarted_with_its_channels, set_up, tear_down),
        cmocka_unit_test(test_backing_off_doubles_and_ends),
        cmocka_unit_test_setup_teardown(test_a_worker_that_keeps_failing_is_restarted_ever_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_failing_fork_is_tried_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_node_that_cannot_run_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_request_that_kills_twice_loses_its_channel, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_entry_that_kills_twice_stops_its_partition, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_snapshot_that_kills_twice_stops_its_partition, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_worker_that_is_busy_has_its_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory_segments_outlive_workers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_segments_of_a_node_on_disk_are_not_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stopping_closes_channels_with_a_reason, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_worker_that_does_not_stop_is_killed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_second_signal_ends_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_signals_that_come_together_are_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_leave_signals_to_the_supervisor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_die_with_the_supervisor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_second_node_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_socket_in_use_is_not_taken_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_socket_that_a_dead_node_left_is_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_at_the_sockets_path_is_left_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_service_manager_is_told, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
