/* SPDX-License-Identifier: Apache-2.0 */
/* A channel's memory: its layout byte by byte, seals that hold, what is refused when it is mapped, and that a failure
 * leaves nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/channel.h"
#include "ipc/sys.h"
#include "tests/support/spawn.h"
#include "tests/support/wait.h"

#define RING 65536 /* as small as a ring can be where pages have 64 KiB */

/* Mappings of channels that this process has. */
static unsigned channel_mappings(void)
{
    size_t size;
    char *maps = read_file("/proc/self/maps", &size);
    unsigned count = 0;

    assert_non_null(maps);
    for (const char *at = maps; (at = strstr(at, "millrace-channel")) != NULL; at++)
        count++;
    free(maps);
    return count;
}

static void make(struct channel *channel)
{
    struct mr_error error = {.text = ""};

    if (channel_create(channel, 3, 0x1122334455667788, RING, -1, &error) != 0)
        fail_msg("%s", error.text);
}

/* Another end's mapping of the same channel. */
static int map_other(struct channel *other, const struct channel *channel, struct mr_error *error)
{
    int memory = dup(channel->memory_fd);
    int wake = dup(channel->node_wake_fd);
    int result =
        channel_map(other, memory, wake, -1, channel->partition, channel->channel_id, channel->ring_bytes, error);

    if (result != 0) {
        /* Descriptors are taken over on success only. */
        assert_int_equal(close(memory), 0);
        assert_int_equal(close(wake), 0);
    }
    return result;
}

static void layout(void **state)
{
    struct channel channel;
    uint64_t head = channel_head_bytes();
    uint8_t bytes[40];
    static const uint8_t expected[40] = {
        'M',  'L',  'I',  'R',  'C',  'H',  'N',  '1',                         /* magic */
        3,    0,    0,    0,                                                   /* format */
        3,    0,    0,    0,                                                   /* partition */
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0, 1, 0, 0, 0, 0, 0 /* id, ring_bytes */
    };

    (void)state;
    make(&channel);
    assert_int_equal(channel_memory_bytes(RING), head + 2 * RING);
    assert_int_equal(lseek(channel.memory_fd, 0, SEEK_END), (off_t)channel_memory_bytes(RING));
    assert_int_equal(pread(channel.memory_fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_memory_equal(bytes, expected, 32);

    atomic_store(&channel.page->generation, 5);
    atomic_store(&channel.page->state, CHANNEL_CLOSED);
    atomic_store(&channel.page->request.tail, 6);
    atomic_store(&channel.page->response.writer_sleeps, 7);
    static const struct {
        off_t at;
        uint8_t value;
    } words[] = {{64, 5}, {68, CHANNEL_CLOSED}, {192, 6}, {384 + 128 + 4, 7}};
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        assert_int_equal(pread(channel.memory_fd, bytes, 1, words[i].at), 1);
        assert_int_equal(bytes[0], words[i].value);
    }

    /* Each ring at its place, and twice in a row. */
    channel.request_data[8] = 0xaa;
    channel.response_data[RING + 16] = 0xbb;
    assert_int_equal(channel.request_data[RING + 8], 0xaa);
    assert_int_equal(channel.response_data[16], 0xbb);
    assert_int_equal(pread(channel.memory_fd, bytes, 1, (off_t)head + 8), 1);
    assert_int_equal(bytes[0], 0xaa);
    assert_int_equal(pread(channel.memory_fd, bytes, 1, (off_t)head + RING + 16), 1);
    assert_int_equal(bytes[0], 0xbb);
    channel_unmap(&channel);
}

static void both_ends_see_the_same(void **state)
{
    struct channel channel;
    struct channel other;
    struct mr_error error;

    (void)state;
    make(&channel);
    assert_int_equal(map_other(&other, &channel, &error), 0);
    assert_ptr_not_equal(other.page, channel.page);
    strcpy((char *)other.request_data + RING - 3, "across");
    assert_memory_equal(channel.request_data + RING - 3, "across", 7);
    assert_memory_equal(channel.request_data, "oss", 4);
    atomic_store(&channel.page->state, CHANNEL_OPEN);
    assert_int_equal(atomic_load(&other.page->state), CHANNEL_OPEN);
    channel_unmap(&other);
    channel.request_data[0] = 1; /* its own mappings are still there */
    channel_unmap(&channel);
}

/* What someone who holds the descriptor may try; 0 if it worked, else errno. */
static int try_write(int fd)
{
    return write(fd, "x", 1) == 1 ? 0 : errno;
}
static int try_pwrite(int fd)
{
    return pwrite(fd, "x", 1, 5000) == 1 ? 0 : errno;
}
static int try_shrink(int fd)
{
    return ftruncate(fd, 0) == 0 ? 0 : errno;
}
static int try_shrink_by_a_byte(int fd)
{
    return ftruncate(fd, (off_t)channel_memory_bytes(RING) - 1) == 0 ? 0 : errno;
}
static int try_grow(int fd)
{
    return ftruncate(fd, (off_t)channel_memory_bytes(RING) + 1) == 0 ? 0 : errno;
}
static int try_punch(int fd)
{
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)channel_head_bytes(), RING) == 0 ? 0
                                                                                                             : errno;
}
static int try_allocate(int fd)
{
    return fallocate(fd, 0, 0, 2 * (off_t)channel_memory_bytes(RING)) == 0 ? 0 : errno;
}
static int try_map(int fd)
{
    void *at = mmap(NULL, channel_head_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (at == MAP_FAILED)
        return errno;
    munmap(at, channel_head_bytes());
    return 0;
}
static int try_map_and_protect(int fd)
{
    void *at = mmap(NULL, channel_head_bytes(), PROT_READ, MAP_SHARED, fd, 0);
    int code = 0;

    if (at == MAP_FAILED)
        return errno;
    if (mprotect(at, channel_head_bytes(), PROT_READ | PROT_WRITE) != 0)
        code = errno;
    munmap(at, channel_head_bytes());
    return code;
}
static int try_seal(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0 ? 0 : errno;
}
static int try_through_proc(int fd)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    if (again < 0)
        return errno;
    int code = try_map(again);
    close(again);
    return code;
}

static const struct {
    const char *name;
    int (*try)(int fd);
    int code;         /* errno once sealed */
    bool works_first; /* without the seals it would succeed, so that the seals are what refuses it */
} trials[] = {
    {"write", try_write, EPERM, true},
    {"pwrite", try_pwrite, EPERM, true},
    {"shrink", try_shrink, EPERM, false}, /* tried on a channel of its own below */
    {"shrink by a byte", try_shrink_by_a_byte, EPERM, false},
    {"grow", try_grow, EPERM, false},
    {"punch a hole", try_punch, EPERM, true},
    {"allocate beyond the end", try_allocate, EPERM, false},
    {"map for writing", try_map, EPERM, true},
    {"map, then protect", try_map_and_protect, EACCES, true},
    {"seal", try_seal, EPERM, false},
    {"open again and map", try_through_proc, EPERM, true},
};

static void seals_hold(void **state)
{
    struct channel channel;
    struct channel other;
    struct mr_error error = {.text = ""};

    (void)state;
    make(&channel);
    assert_int_equal(map_other(&other, &channel, &error), 0);
    for (size_t i = 0; i < sizeof(trials) / sizeof(*trials); i++)
        if (trials[i].works_first && trials[i].try(other.memory_fd) != 0)
            fail_msg("%s does not work even without seals", trials[i].name);
    if (channel_seal(&channel, &error) != 0)
        fail_msg("%s", error.text);
    other.request_data[100] = 42;
    for (size_t i = 0; i < sizeof(trials) / sizeof(*trials); i++) {
        int code = trials[i].try(other.memory_fd);
        if (code != trials[i].code)
            fail_msg("%s: errno %d", trials[i].name, code);
    }

    /* The mappings that were there go on, both ways, and every page of them. */
    assert_int_equal(channel.request_data[100], 42);
    for (uint64_t at = 0; at < 2 * RING; at += 4096) {
        channel.response_data[at] = 7;
        assert_int_equal(other.response_data[at], 7);
        other.request_data[at] = 8;
        assert_int_equal(channel.request_data[at], 8);
    }
    assert_int_equal(lseek(channel.memory_fd, 0, SEEK_END), (off_t)channel_memory_bytes(RING));

    /* Too late for another end; and sealing again is refused. */
    struct channel late;
    assert_int_equal(map_other(&late, &channel, &error), -1);
    assert_int_equal(error.code, EPERM);
    assert_int_equal(channel_seal(&channel, &error), -1);
    channel_unmap(&other);
    channel_unmap(&channel);
}

/* A client has the memfd before it is sealed for good: it could take pages away under a supervisor that writes to them.
 */
static void the_size_is_sealed_from_the_start(void **state)
{
    struct channel channel;

    (void)state;
    make(&channel);
    assert_int_equal(try_shrink_by_a_byte(channel.memory_fd), EPERM);
    assert_int_equal(try_grow(channel.memory_fd), EPERM);
    assert_int_equal(try_shrink(channel.memory_fd), EPERM);
    channel_unmap(&channel);
}

/* A restarted worker has the supervisor's mappings by fork, long after the seals. */
static int write_inherited(void *argument)
{
    struct channel *channel = argument;

    channel->response_data[2 * RING - 1] = 99;
    return channel->request_data[0] == 98 ? 0 : 1;
}

static void sealed_mappings_pass_through_fork(void **state)
{
    struct channel channel;
    struct mr_error error;

    (void)state;
    make(&channel);
    assert_int_equal(channel_seal(&channel, &error), 0);
    channel.request_data[0] = 98;
    assert_int_equal(fork_wait(fork_run(write_inherited, &channel), WAIT_MS), 0);
    assert_int_equal(channel.response_data[RING - 1], 99);
    channel_unmap(&channel);
}

static int touch(void *address)
{
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    return *(volatile uint8_t *)address;
}

static void clients_channels_stay_out_of_children(void **state)
{
    struct channel channel;
    struct mr_error error;

    (void)state;
    make(&channel);
    void *places[] = {channel.page, channel.request_data, channel.request_data + 2 * RING - 1, channel.response_data,
                      channel.response_data + 2 * RING - 1};
    for (size_t i = 1; i < sizeof(places) / sizeof(*places); i++)
        assert_int_equal(fork_wait(fork_run(touch, places[i]), WAIT_MS), 0);
    assert_int_equal(channel_dont_fork(&channel, &error), 0);
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
        assert_int_equal(fork_wait(fork_run(touch, places[i]), WAIT_MS), 128 + SIGSEGV);
    channel.request_data[0] = 1;
    channel_unmap(&channel);
}

static void refuses_what_is_not_the_channel(void **state)
{
    struct channel channel;
    struct channel other;
    struct mr_error error;
    unsigned before = open_descriptors();

    (void)state;
    make(&channel);
    struct channel expected = channel;

    expected.partition = 4;
    assert_int_equal(map_other(&other, &expected, &error), -1);
    assert_non_null(strstr(error.text, "partition 4"));
    assert_non_null(strstr(error.text, "partition 3"));
    expected = channel;
    expected.channel_id++;
    assert_int_equal(map_other(&other, &expected, &error), -1);
    assert_non_null(strstr(error.text, "expected channel 1234605616436508553"));

    /* Another size of the file than the size of the rings says; sizes that cannot be. */
    const uint64_t sizes[] = {2 * RING, RING / 2, 0, RING + 4096, UINT64_MAX, 1ULL << 63, RING - 1};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        expected = channel;
        expected.ring_bytes = sizes[i];
        assert_int_equal(map_other(&other, &expected, &error), -1);
        assert_int_equal(error.code, 0);
    }

    channel.page->ring_bytes = 2 * RING;
    assert_int_equal(map_other(&other, &channel, &error), -1);
    channel.page->ring_bytes = RING;
    channel.page->format = 4;
    assert_int_equal(map_other(&other, &channel, &error), -1);
    assert_non_null(strstr(error.text, "format 4, this library knows 3"));
    channel.page->format = CHANNEL_FORMAT;
    channel.page->magic++;
    assert_int_equal(map_other(&other, &channel, &error), -1);
    assert_non_null(strstr(error.text, "not a channel"));
    channel.page->magic--;
    assert_int_equal(map_other(&other, &channel, &error), 0);
    channel_unmap(&other);

    /* Memory of another size. */
    int memory = memfd_create("channel", MFD_CLOEXEC);
    assert_int_equal(ftruncate(memory, (off_t)channel_memory_bytes(RING) + 1), 0);
    assert_int_equal(channel_map(&other, memory, -1, -1, 3, 1, RING, &error), -1);
    assert_int_equal(ftruncate(memory, 4096), 0);
    assert_int_equal(channel_map(&other, memory, -1, -1, 3, 1, RING, &error), -1);
    close(memory);

    /* Something else altogether. */
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(channel_map(&other, pipes[0], -1, -1, 3, 1, RING, &error), -1);
    assert_int_equal(channel_map(&other, -1, -1, -1, 3, 1, RING, &error), -1);
    assert_int_equal(error.code, EBADF);
    close(pipes[0]);
    close(pipes[1]);

    assert_int_equal(channel_create(&other, 1, 1, RING + 1, -1, &error), -1);
    assert_non_null(strstr(error.text, "65537"));
    channel_unmap(&channel);
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(channel_mappings(), 0);
}

static void unmapping_is_safe_on_nothing(void **state)
{
    struct channel channel = {0};
    unsigned before = open_descriptors();

    (void)state;
    channel_unmap(&channel);
    make(&channel);
    assert_int_equal(open_descriptors(), before + 2);
    assert_int_equal(channel_mappings(), 5);
    channel_unmap(&channel);
    channel_unmap(&channel);
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(channel_mappings(), 0);
}

/* Each call that makes, seals or maps a channel fails in turn: an error with its errno, and nothing stays behind. */
static int make_seal_map(struct mr_error *error)
{
    struct channel channel;
    struct channel other;
    int result = channel_create(&channel, 1, 1, RING, -1, error);

    if (result != 0)
        return -1;
    result = map_other(&other, &channel, error);
    if (result == 0) {
        result = channel_seal(&channel, error);
        if (result == 0)
            result = channel_dont_fork(&other, error);
        channel_unmap(&other);
    }
    channel_unmap(&channel);
    return result;
}

static void failures_leave_nothing_behind(void **state)
{
    static const struct {
        enum sys_call kind;
        unsigned calls;
    } kinds[] = {{SYS_MEMFD_CREATE, 1}, {SYS_FTRUNCATE, 1}, {SYS_EVENTFD, 1}, {SYS_MMAP, 15},
                 {SYS_FSTAT, 1},        {SYS_FCNTL, 3},     {SYS_MADVISE, 3}};
    unsigned before = open_descriptors();
    struct mr_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        sys_fault_clear();
        assert_int_equal(make_seal_map(&error), 0);
        assert_int_equal(sys_call_count(kinds[i].kind), kinds[i].calls);
        for (unsigned nth = 1; nth <= kinds[i].calls; nth++) {
            error = (struct mr_error){.code = 0};
            sys_fault_arm(kinds[i].kind, nth, EDOM, false);
            int result = make_seal_map(&error);
            if (result != -1 || error.code != EDOM || error.text[0] == '\0')
                fail_msg("%s, number %u: %d, %s", sys_call_name(kinds[i].kind), nth, result, error.text);
            assert_int_equal(open_descriptors(), before);
            assert_int_equal(channel_mappings(), 0);
        }
    }
    sys_fault_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout),
        cmocka_unit_test(both_ends_see_the_same),
        cmocka_unit_test(seals_hold),
        cmocka_unit_test(the_size_is_sealed_from_the_start),
        cmocka_unit_test(sealed_mappings_pass_through_fork),
        cmocka_unit_test(clients_channels_stay_out_of_children),
        cmocka_unit_test(refuses_what_is_not_the_channel),
        cmocka_unit_test(unmapping_is_safe_on_nothing),
        cmocka_unit_test(failures_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
