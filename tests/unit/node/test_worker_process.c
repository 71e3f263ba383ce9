/* SPDX-License-Identifier: Apache-2.0 */
/* A whole worker in a child process, with the test as its supervisor: what the two say to each other at awkward
 * moments. Its log is in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#undef MAP_TYPE /* the kernel's; the requests have one too */

#include "engine/log/snapshot.h"
#include "engine/node/control.h"
#include "engine/node/worker.h"
#include "ipc/frame.h"
#include "ipc/sys.h"
#include "tests/support/requests.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#define RING (256 * MR_KIB)
#define USER 1000

struct supervised {
    struct options options;
    struct identity identity;
    struct region *region;
    struct channel *channels;
    struct worker_birth birth;
    int control;
    int segments[64];
    unsigned segment_count;
    int snapshots[SNAPSHOTS_KEPT];
    pid_t pid;
};

static void make_control(struct supervised *s)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    s->control = pair[0];
    s->birth.control = pair[1];
}

static struct supervised *prepare_worker(void)
{
    struct supervised *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    s->options = (struct options){.dir = "/nonexistent",
                                  .partitions = 1,
                                  .durability = DURABILITY_MEMORY,
                                  .cpu_count = 1,
                                  .idle = IDLE_BLOCK,
                                  .ring_bytes = RING,
                                  .max_payload = 2048,
                                  .batch_bytes = MR_BATCH_BYTES_MIN,
                                  .segment_bytes = 16 * MR_BATCH_BYTES_MIN,
                                  .flush_interval = MR_FLUSH_INTERVAL_DEFAULT};
    s->identity =
        (struct identity){.secret = 1, .hash_seed = 2, .partitions = 1, .memory = true, .session_output_limit = MR_MIB};
    s->region = mmap(NULL, sizeof(*s->region), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s->channels = calloc(MR_CHANNELS_MAX, sizeof(*s->channels));
    assert_true(s->region != MAP_FAILED && s->channels != NULL);
    s->birth = (struct worker_birth){.options = &s->options,
                                     .identity = &s->identity,
                                     .partition = 1,
                                     .core = -1,
                                     .region = s->region,
                                     .channels = s->channels,
                                     .memory_snapshots = s->snapshots};
    make_control(s);
    for (unsigned i = 0; i < SNAPSHOTS_KEPT; i++)
        assert_true((s->snapshots[i] = memfd_create("snapshot", MFD_CLOEXEC)) >= 0);
    return s;
}

static void fork_worker(struct supervised *s)
{
    fflush(NULL);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        close(s->control);
        _exit(worker_run(&s->birth));
    }
    close(s->birth.control);
}

static void end_worker(struct supervised *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    while (s->segment_count > 0)
        close(s->segments[--s->segment_count]);
    for (unsigned i = 0; i < SNAPSHOTS_KEPT; i++)
        close(s->snapshots[i]);
    close(s->control);
    munmap(s->region, sizeof(*s->region));
    free(s->channels);
    free(s);
}

/* The next message of the worker's; 0: it is gone, or says nothing for long. */
static uint32_t hear_worker(struct supervised *s, struct control_message *message)
{
    struct pollfd wait = {.fd = s->control, .events = POLLIN};
    struct mr_error error;
    int fds[CONTROL_FDS];
    unsigned fd_count;

    if (poll(&wait, 1, (int)WAIT_MS) != 1 || control_receive(s->control, message, fds, &fd_count, &error) != 0)
        return 0;
    return message->kind;
}

static void give(struct supervised *s, uint32_t slot)
{
    struct control_message message = {.kind = CONTROL_SEGMENT, .slot = slot};
    struct mr_error error;

    assert_int_equal(slot, s->segment_count); /* each is asked for once, in order */
    assert_true(slot < 64);
    s->segments[slot] = memfd_create("segment", MFD_CLOEXEC);
    assert_true(s->segments[slot] >= 0);
    assert_int_equal(ftruncate(s->segments[slot], (off_t)s->options.segment_bytes), 0);
    s->segment_count = slot + 1;
    assert_int_equal(control_send(s->control, &message, &s->segments[slot], 1, &error), 0);
}

/* Gives segments until the worker says this; false: it never does. */
static bool hear_until(struct supervised *s, uint32_t kind)
{
    struct control_message message;
    uint32_t heard;

    while ((heard = hear_worker(s, &message)) != kind) {
        if (heard == 0)
            return false;
        if (heard == CONTROL_WANT_SEGMENT)
            give(s, message.slot);
    }
    return true;
}

static void tell_worker(struct supervised *s, enum control_kind kind, const int *fds, unsigned fd_count, uint32_t slot,
                        uint64_t channel_id)
{
    struct control_message message = {
        .kind = kind, .slot = slot, .channel_id = channel_id, .ring_bytes = s->options.ring_bytes};
    struct mr_error error;

    assert_int_equal(control_send(s->control, &message, fds, fd_count, &error), 0);
}

/* Many clients come or go at the moment at which a log in memory needs a segment. */
static void any_number_of_messages_may_come_before_a_segment(void **state)
{
    struct supervised *s = prepare_worker();

    (void)state;
    for (unsigned i = 0; i < 40; i++)
        tell_worker(s, CONTROL_CLOSE, NULL, 0, i, 1000 + i);
    fork_worker(s);
    assert_true(hear_until(s, CONTROL_READY));
    end_worker(s);
}

/* The supervisor fills a slot while the worker that it has just forked is not yet looking: the region is shared and
 * shows the channel, the table of mappings is a copy and does not; it comes by CONTROL_ADD. */
static void a_channel_made_after_the_fork_is_not_inherited(void **state)
{
    struct supervised *s = prepare_worker();
    struct channel channel;
    struct mr_error error;
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    (void)state;
    assert_int_equal(channel_create(&channel, 1, 7, s->options.ring_bytes, wake, &error), 0);
    int fds[CONTROL_FDS] = {channel.memory_fd, channel.node_wake_fd, wake};
    s->region->channels[3].uid = USER;
    s->region->channels[3].channel_id = 7;
    tell_worker(s, CONTROL_ADD, fds, CONTROL_FDS, 3, 7);
    fork_worker(s);
    assert_true(hear_until(s, CONTROL_READY));
    assert_true(hear_until(s, CONTROL_ADDED));
    end_worker(s);
    channel_unmap(&channel);
    close(wake);
}

static void send_padded(struct ring_writer *writer, struct request *request)
{
    struct request_head head = {.kind = FRAME_COMMAND};
    uint8_t bytes[2048], *at = NULL;

    memset(bytes, 0, sizeof(bytes));
    memcpy(bytes, request->bytes, request->size);
    /* 1500 bytes that nobody knows: a field 15 */
    memcpy(bytes + request->size, (uint8_t[]){0x7a, (uint8_t)(1500 & 0x7f) | 0x80, 1500 >> 7}, 3);
    head.size = (uint32_t)request->size + 3 + 1500;
    assert_int_equal(ring_reserve(writer, request_frame_bytes(head.size), &at), RING_OK);
    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), bytes, head.size);
    ring_advance(writer, request_frame_bytes(head.size));
    request_free(request);
}

static void send_padded_open_session(struct ring_writer *writer)
{
    struct request request = {0};

    request_open_session(&request, (struct duration){.seconds = 10, .present = true});
    send_padded(writer, &request);
}

/* The worker is given a channel in slot 0, and has mapped it. */
static void open_channel(struct supervised *s, struct channel *channel, struct ring_writer *writer)
{
    struct mr_error error;
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    assert_int_equal(channel_create(channel, 1, 7, s->options.ring_bytes, wake, &error), 0);
    int fds[CONTROL_FDS] = {channel->memory_fd, channel->node_wake_fd, wake};
    s->region->channels[0].channel_id = 7;
    tell_worker(s, CONTROL_ADD, fds, CONTROL_FDS, 0, 7);
    assert_true(hear_until(s, CONTROL_ADDED));
    ring_writer_attach(writer, channel->request_data, s->options.ring_bytes, &channel->page->request, 0, 0);
}

static void hand_over(struct channel *channel, struct ring_writer *writer)
{
    uint64_t one = 1;

    ring_publish(writer);
    assert_int_equal(write(channel->node_wake_fd, &one, sizeof(one)), sizeof(one));
}

/* Takes what is answered and gives the segments that are asked for, until so many answers have come. */
static void take_answers(struct supervised *s, struct ring_reader *reader, unsigned count)
{
    struct pollfd wait = {.fd = s->control, .events = POLLIN};
    struct control_message message;
    struct response_head head;
    const uint8_t *at = NULL;

    for (unsigned polls = 0; count > 0; polls++) {
        assert_true(polls < WAIT_MS);
        if (poll(&wait, 1, 1) == 1 && hear_worker(s, &message) == CONTROL_WANT_SEGMENT)
            give(s, message.slot);
        for (; ring_peek(reader, sizeof(head), &at) == RING_OK; count--) {
            memcpy(&head, at, sizeof(head));
            ring_skip(reader, response_frame_bytes(head.size));
            ring_release(reader, reader->head);
        }
    }
}

/* Is there a newer snapshot than this one? Gives the segments that are asked for meanwhile. */
static bool snapshot_is_newer(struct supervised *s, uint64_t than)
{
    struct pollfd wait = {.fd = s->control, .events = POLLIN};
    struct control_message message;

    if (poll(&wait, 1, 0) == 1 && hear_worker(s, &message) == CONTROL_WANT_SEGMENT)
        give(s, message.slot);
    return atomic_load(&s->region->snapshot_index) != than;
}

/* A descriptor for each would be the end of a worker that lives for long. */
static void a_segment_that_is_used_again_is_not_asked_for_again(void **state)
{
    enum { AT_ONCE = 40, ROUNDS = 400, A_SNAPSHOT_EACH = 8 };
    struct supervised *s = prepare_worker();
    struct channel channel;
    struct ring_writer writer;
    struct ring_reader reader;
    uint64_t logged = 0, snapshot = 0;

    (void)state;
    s->options.snapshot_bytes = s->options.segment_bytes / 2;
    fork_worker(s);
    assert_true(hear_until(s, CONTROL_READY));
    open_channel(s, &channel, &writer);
    ring_reader_attach(&reader, channel.response_data, s->options.ring_bytes, &channel.page->response, 0, 0);
    for (unsigned round = 0; logged < (s->segment_count + 8) * s->options.segment_bytes; round++) {
        assert_true(round < ROUNDS);
        for (unsigned i = 0; i < AT_ONCE; i++) { /* on a session that nobody has opened */
            struct request request = {0};
            request_keep_alive(&request, 1000000, (struct slice){NULL, 0}, 0, NULL, 0);
            send_padded(&writer, &request);
        }
        hand_over(&channel, &writer);
        take_answers(s, &reader, AT_ONCE);
        logged += AT_ONCE * 1500;
        /* What frees segments is written by a process that lets all others go first: it is waited for. */
        if (round % A_SNAPSHOT_EACH == A_SNAPSHOT_EACH - 1) {
            assert_true(wait_for(snapshot_is_newer(s, snapshot)));
            snapshot = atomic_load(&s->region->snapshot_index);
        }
    }
    end_worker(s);
    channel_unmap(&channel);
}

static bool has_ended(struct supervised *s)
{
    int status = 0;

    if (waitpid(s->pid, &status, WNOHANG) != s->pid)
        return false;
    s->pid = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return true;
}

/* The node is told to stop while the worker waits for a segment. */
static void a_stop_that_comes_before_a_segment_is_heard(void **state)
{
    struct supervised *s = prepare_worker();
    struct control_message message;
    struct channel channel;
    struct ring_writer writer;

    (void)state;
    fork_worker(s);
    assert_true(hear_until(s, CONTROL_READY));
    open_channel(s, &channel, &writer);
    for (unsigned i = 0; i < 100; i++) /* more than one segment holds */
        send_padded_open_session(&writer);
    hand_over(&channel, &writer);
    while (hear_worker(s, &message) == CONTROL_WANT_SEGMENT && s->segment_count < 2)
        give(s, message.slot);
    assert_int_equal(message.kind, CONTROL_WANT_SEGMENT);
    tell_worker(s, CONTROL_STOP, NULL, 0, 0, 0);
    give(s, message.slot);
    assert_true(wait_for(has_ended(s)));
    end_worker(s);
    channel_unmap(&channel);
}

/* A worker's life in which no file can be read, if `unreadable`. Its exit status; 0: it serves (and is killed), or
 * answers for a partition that is stopped. */
static int live_on_disk(struct supervised *s, bool unreadable)
{
    int status = 0;

    if (unreadable)
        sys_fault_arm(SYS_PREAD, 1, EIO, true);
    fork_worker(s);
    bool ready = hear_until(s, CONTROL_READY);
    if (ready)
        kill(s->pid, SIGKILL);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    s->pid = 0;
    sys_fault_clear();
    close(s->control);
    make_control(s);
    assert_true(ready || WIFEXITED(status));
    return ready ? 0 : WEXITSTATUS(status);
}

/* The same as damage, but only when it has lasted. */
static void what_can_never_be_read_stops_the_partition(void **state)
{
    enum { ATTEMPTS = 10 };
    struct supervised *s = prepare_worker();
    char *dir = temp_dir_make(), folder[TEMP_PATH_MAX];

    (void)state;
    assert_int_equal(mkdir(temp_dir_file(folder, dir, "partition-0001"), 0700), 0);
    s->options.dir = dir;
    s->options.durability = DURABILITY_SYNC;
    s->identity.memory = false;
    s->birth.memory_snapshots = NULL;
    assert_int_equal(live_on_disk(s, false), 0);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned n = 1; n < ATTEMPTS; n++)
            assert_int_equal(live_on_disk(s, true), 1);
        if (round == 0) /* it comes back in time: all is forgotten */
            assert_int_equal(live_on_disk(s, false), 0);
        assert_int_not_equal(atomic_load(&s->region->state), PARTITION_STOPPED);
    }
    assert_int_equal(live_on_disk(s, true), 0);
    assert_int_equal(atomic_load(&s->region->state), PARTITION_STOPPED);
    /* Of which segment is a matter of the order in which the file system names them. */
    assert_non_null(strstr(s->region->reason, "partition-0001/segment-000"));
    assert_non_null(strstr(s->region->reason, " at offset 0: Input/output error"));
    close(s->birth.control);
    end_worker(s);
    temp_dir_remove(dir);
}

/* The node is told to stop while a worker reads the log back, which may take long. */
static void a_stop_ends_a_recovery(void **state)
{
    struct supervised *s = prepare_worker();
    struct control_message message;

    (void)state;
    fork_worker(s);
    assert_true(hear_until(s, CONTROL_READY));
    kill(s->pid, SIGKILL);
    assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
    close(s->control);
    make_control(s);
    s->birth.memory_segments = s->segments;
    s->birth.memory_segment_count = s->segment_count;
    tell_worker(s, CONTROL_CLOSE, NULL, 0, 5, 1000);
    tell_worker(s, CONTROL_STOP, NULL, 0, 0, 0);
    fork_worker(s);
    assert_true(wait_for(has_ended(s)));
    while (hear_worker(s, &message) != 0)
        assert_int_not_equal(message.kind, CONTROL_READY);
    end_worker(s);
}

/* A worker's life that ends at its beginning; its exit status. */
static int fail_to_begin(struct supervised *s, enum partition_state before, enum sys_call call, int code)
{
    int status = 0;

    atomic_store(&s->region->state, before);
    sys_fault_arm(call, 1, code, true);
    fork_worker(s);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    s->pid = 0;
    sys_fault_clear();
    close(s->control);
    make_control(s);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Memory and descriptors that a successor does not get come back; the other partitions are served meanwhile. */
static void what_a_successor_lacks_does_not_end_the_node(void **state)
{
    static const enum sys_call calls[] = {SYS_IO_URING_SETUP, SYS_IO_URING_REGISTER};
    struct supervised *s = prepare_worker();

    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        assert_int_equal(fail_to_begin(s, PARTITION_STARTING, calls[i], ENOMEM), WORKER_CANNOT_RUN);
        assert_int_equal(fail_to_begin(s, PARTITION_RESTARTING, calls[i], EPERM), WORKER_CANNOT_RUN);
        assert_int_equal(fail_to_begin(s, PARTITION_RESTARTING, calls[i], ENOMEM), 1);
        assert_int_equal(fail_to_begin(s, PARTITION_STOPPED, calls[i], ENOMEM), 1);
    }
    assert_int_equal(fail_to_begin(s, PARTITION_RESTARTING, SYS_IO_URING_SETUP, EMFILE), 1);
    close(s->birth.control);
    end_worker(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_messages_may_come_before_a_segment),
        cmocka_unit_test(a_channel_made_after_the_fork_is_not_inherited),
        cmocka_unit_test(a_stop_that_comes_before_a_segment_is_heard),
        cmocka_unit_test(a_stop_ends_a_recovery),
        cmocka_unit_test(what_can_never_be_read_stops_the_partition),
        cmocka_unit_test(a_segment_that_is_used_again_is_not_asked_for_again),
        cmocka_unit_test(what_a_successor_lacks_does_not_end_the_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
