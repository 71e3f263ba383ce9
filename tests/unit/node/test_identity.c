/* SPDX-License-Identifier: Apache-2.0 */
/* A data directory: made, opened again, refused; its lock; every bit of its identity; failing system calls on the way.
 * And the numbers of channels, which are reserved beside it. */
#include "engine/node/channel_ids.h"
#include "engine/node/identity.h"

#include <millrace/limits.h>

#include "ipc/sys.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char *parent;
static char dir[TEMP_PATH_MAX];
static struct options options;
static struct identity identity;
static struct mr_error error;
static int lock_fd;

static int set_up(void **state)
{
    (void)state;
    parent = temp_dir_make();
    temp_dir_file(dir, parent, "data");
    options = (struct options){
        .dir = dir, .partitions = 1, .durability = DURABILITY_SYNC, .session_outputs = MR_SESSION_OUTPUT_BYTES_DEFAULT};
    lock_fd = -1;
    identity_lock_wait = 50 * MR_MILLISECOND;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sys_fault_clear();
    if (lock_fd >= 0)
        close(lock_fd);
    temp_dir_remove(parent);
    return 0;
}

static int open_it(void)
{
    if (lock_fd >= 0)
        close(lock_fd);
    error.text[0] = '\0';
    return identity_open(&options, &identity, &lock_fd, &error);
}

static void expect_open(void)
{
    if (open_it() != 0)
        fail_msg("%s", error.text);
    assert_true(lock_fd >= 0);
}

static void expect_refused(const char *first, const char *second)
{
    assert_int_equal(open_it(), -1);
    assert_int_equal(lock_fd, -1);
    if (strstr(error.text, first) == NULL || strstr(error.text, second) == NULL)
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", error.text, first, second);
}

static void write_file(const char *name, const void *bytes, size_t size)
{
    char path[TEMP_PATH_MAX];
    int fd = open(temp_dir_file(path, dir, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

static void test_made_and_opened_again(void **state)
{
    (void)state;
    struct identity first;
    struct stat status;
    char path[TEMP_PATH_MAX];

    options.partitions = 3;
    options.partitions_given = true;
    expect_open();
    first = identity;
    assert_int_equal(first.partitions, 3);
    assert_false(first.memory);
    assert_int_equal(first.session_output_limit, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    assert_int_equal(stat(dir, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    identity_partition_path(dir, 3, path, sizeof(path));
    assert_non_null(strstr(path, "/data/partition-0003"));
    assert_int_equal(stat(path, &status), 0);
    assert_true(S_ISDIR(status.st_mode));
    assert_int_equal(status.st_mode & 0777, 0700);
    assert_int_equal(stat(temp_dir_file(path, dir, "identity"), &status), 0);
    assert_int_equal(status.st_size, 128);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(stat(temp_dir_file(path, dir, "identity.new"), &status), -1);

    options.durability = DURABILITY_ASYNC; /* sync and async are both on disk */
    expect_open();
    assert_memory_equal(&identity, &first, sizeof(first));
    /* Not given: what the directory has. */
    options.partitions = 1;
    options.partitions_given = false;
    expect_open();
    assert_int_equal(identity.partitions, 3);

    static const uint8_t zeros[16];
    assert_memory_not_equal(first.id, zeros, 16);
    assert_true(first.secret != 0 && first.hash_seed != 0 && first.secret != first.hash_seed);
}

static void test_two_directories_differ(void **state)
{
    (void)state;
    struct identity first;

    expect_open();
    first = identity;
    temp_dir_file(dir, parent, "other");
    expect_open();
    assert_memory_not_equal(first.id, identity.id, 16);
    assert_true(first.secret != identity.secret && first.hash_seed != identity.hash_seed);
}

static void test_another_number_of_partitions_is_refused(void **state)
{
    (void)state;

    options.partitions = 2;
    options.partitions_given = true;
    expect_open();
    options.partitions = 3;
    expect_refused("--partitions 3", "made with 2 partitions");
    options.partitions = 1;
    expect_refused("--partitions 1", "made with 2 partitions");
    options.partitions = 2;
    expect_open();
}

static void test_another_limit_of_outputs_is_refused(void **state)
{
    (void)state;

    options.session_outputs = MR_MIB;
    options.session_outputs_given = true;
    expect_open();
    assert_int_equal(identity.session_output_limit, MR_MIB);
    options.session_outputs = 2 * MR_MIB;
    expect_refused("--session-outputs 2M", "made with 1M");
    options.session_outputs_given = false; /* then the directory's counts */
    expect_open();
    assert_int_equal(identity.session_output_limit, MR_MIB);
}

static void test_memory_and_disk_exclude_each_other(void **state)
{
    (void)state;
    struct stat status;
    char path[TEMP_PATH_MAX];

    expect_open();
    options.durability = DURABILITY_MEMORY;
    expect_refused("--durability memory", "kept on disk");

    temp_dir_file(dir, parent, "memory");
    expect_open();
    struct identity first = identity;
    assert_true(first.memory);
    assert_int_equal(stat(temp_dir_file(path, dir, "partition-0001"), &status), -1);
    assert_int_equal(stat(temp_dir_file(path, dir, "channel-ids"), &status), -1);
    expect_open();
    assert_memory_not_equal(first.id, identity.id, 16); /* nothing of before is left, and clients can tell */
    options.durability = DURABILITY_SYNC;
    expect_refused("--durability sync", "made for memory");
    options.durability = DURABILITY_ASYNC;
    expect_refused("--durability async", "made for memory");
}

static void test_every_bit_of_the_identity_counts(void **state)
{
    (void)state;
    char path[TEMP_PATH_MAX];
    size_t size;

    expect_open();
    char *bytes = read_file(temp_dir_file(path, dir, "identity"), &size);
    assert_non_null(bytes);
    assert_int_equal(size, 128);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        write_file("identity", bytes, size);
        expect_refused(dir, bit >= 64 && bit < 96 ? "format version" : "damaged");
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < size; cut++) {
        write_file("identity", bytes, cut);
        expect_refused("damaged", "128 bytes");
    }
    char longer[129];
    memcpy(longer, bytes, 128);
    longer[128] = 0;
    write_file("identity", longer, 129);
    expect_refused("damaged", "128 bytes");
    write_file("identity", bytes, size);
    expect_open();
    free(bytes);
}

static void test_another_format_is_refused_naming_both(void **state)
{
    (void)state;
    char path[TEMP_PATH_MAX];
    size_t size;

    expect_open();
    char *bytes = read_file(temp_dir_file(path, dir, "identity"), &size);
    assert_non_null(bytes);
    bytes[8] = 9;
    write_file("identity", bytes, size);
    expect_refused("format version 9", "reads version 2");
    free(bytes);
}

static void test_what_is_missing_is_not_made_anew(void **state)
{
    (void)state;
    char path[TEMP_PATH_MAX];

    options.partitions = 2;
    options.partitions_given = true;
    expect_open();
    assert_int_equal(rmdir(temp_dir_file(path, dir, "partition-0002")), 0);
    expect_refused("partition 2", "partition-0002");
    assert_int_equal(mkdir(path, 0700), 0);
    expect_open();
    /* Without an identity, empty folders are a beginning that was cut off; data is data. */
    assert_int_equal(unlink(temp_dir_file(path, dir, "identity")), 0);
    expect_open();
    assert_int_equal(unlink(path), 0);
    write_file("partition-0001/segment", "x", 1);
    expect_refused("identity is missing", "partition-0001 has data");
}

static void test_directories_that_cannot_be(void **state)
{
    (void)state;

    temp_dir_file(dir, parent, "no/such/parent");
    expect_refused("--dir", "cannot make the data directory");
    temp_dir_file(dir, parent, "file");
    int fd = open(dir, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    expect_refused("--dir", "cannot open the data directory");
}

struct holder {
    int ready, release;
};

static int hold_lock(void *argument)
{
    const struct holder *holder = argument;
    char byte;

    if (identity_open(&options, &identity, &lock_fd, &error) != 0 || write(holder->ready, "r", 1) != 1)
        return 1;
    return read(holder->release, &byte, 1) == 1 ? 0 : 1;
}

static void test_the_lock_names_its_holder(void **state)
{
    (void)state;
    int ready[2], release[2];
    char text[64], byte;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(release, O_CLOEXEC), 0);
    struct holder holder = {.ready = ready[1], .release = release[0]};
    pid_t pid = fork_run(hold_lock, &holder);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    snprintf(text, sizeof(text), "node with pid %d ", (int)pid);
    expect_refused("is in use", text);
    /* Let go of in time, it is taken. */
    identity_lock_wait = 30 * MR_SECOND;
    assert_int_equal(write(release[1], "r", 1), 1);
    expect_open();
    assert_int_equal(fork_wait(pid, WAIT_MS), 0);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(release[i]);
    }
}

static int hold_forever(void *argument)
{
    char byte;

    return (int)read(*(int *)argument, &byte, 1);
}

static void test_an_inherited_lock_is_held_too(void **state)
{
    (void)state;
    int release[2];

    assert_int_equal(pipe2(release, O_CLOEXEC), 0);
    expect_open();
    pid_t pid = fork_run(hold_forever, &release[0]);
    /* open_it() closes the descriptor here: the child's copy keeps the lock. */
    expect_refused("is in use", "pid");
    close(release[0]);
    assert_int_equal(write(release[1], "r", 1), 1);
    assert_int_equal(fork_wait(pid, WAIT_MS), 1);
    expect_open();
    close(release[1]);
}

/* Every system call on the way fails once, at each place: an error with a text, and a later start succeeds. */
static void test_failing_calls_leave_nothing_half_made(void **state)
{
    (void)state;
    static const enum sys_call kinds[] = {SYS_OPEN,     SYS_OPENAT, SYS_MKDIRAT, SYS_WRITE,     SYS_FSYNC,
                                          SYS_RENAMEAT, SYS_FLOCK,  SYS_PWRITE,  SYS_FTRUNCATE, SYS_GETRANDOM};
    unsigned failures = 0;

    options.partitions = 2;
    for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++)
        for (unsigned nth = 1; nth < 20; nth++) {
            char name[32];
            snprintf(name, sizeof(name), "data-%u-%u", (unsigned)kind, nth);
            temp_dir_file(dir, parent, name);
            unsigned descriptors = open_descriptors() - (lock_fd >= 0 ? 1 : 0);
            sys_fault_arm(kinds[kind], nth, EIO, false);
            int result = open_it();
            unsigned hit = sys_fault_count(kinds[kind]);
            sys_fault_clear();
            if (hit == 0)
                break;
            failures++;
            assert_int_equal(result, -1);
            assert_true(error.text[0] != '\0');
            assert_int_equal(open_descriptors(), descriptors);
            expect_open();
            assert_int_equal(identity.partitions, 2);
        }
    assert_true(failures >= 20);
}

/* How many directories and files a start makes durable. */
static unsigned count_flushes(void)
{
    sys_fault_clear();
    expect_open();
    return sys_call_count(SYS_FSYNC);
}

/* The entry in the directory above must outlive a power cut, also where it was not this start that made it. */
static void test_who_made_the_directory_is_all_the_same(void **state)
{
    (void)state;
    unsigned all = count_flushes();

    assert_true(all > 0);
    assert_int_equal(count_flushes(), 0); /* it is complete */
    temp_dir_file(dir, parent, "of mkdir(1), or of root for --user");
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(count_flushes(), all);
    temp_dir_file(dir, parent, "of a start that failed");
    sys_fault_arm(SYS_OPENAT, 2, EIO, false); /* behind the lock's */
    assert_int_equal(open_it(), -1);
    assert_int_equal(count_flushes(), all);
}

static void test_channel_numbers_go_on(void **state)
{
    (void)state;
    struct channel_ids ids;
    uint64_t last = 0;

    expect_open();
    int directory = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(directory >= 0);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(channel_ids_open(&ids, directory, dir, &error), 0);
        for (int i = 0; i < CHANNEL_IDS_BLOCK + 10; i++) {
            uint64_t id = channel_ids_next(&ids, &error);
            assert_true(id > last);
            last = id;
        }
    }
    /* A block that cannot be reserved gives no number, and the next attempt does. */
    assert_int_equal(channel_ids_open(&ids, directory, dir, &error), 0);
    sys_fault_arm(SYS_FSYNC, 1, ENOSPC, false);
    assert_int_equal(channel_ids_next(&ids, &error), 0);
    assert_non_null(strstr(error.text, "channel-ids"));
    assert_true(channel_ids_next(&ids, &error) > last);
    close(directory);
}

static void test_damaged_channel_numbers_are_refused(void **state)
{
    (void)state;
    struct channel_ids ids;
    char path[TEMP_PATH_MAX];
    size_t size;

    expect_open();
    int directory = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(directory >= 0);
    char *bytes = read_file(temp_dir_file(path, dir, "channel-ids"), &size);
    assert_non_null(bytes);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        write_file("channel-ids", bytes, size);
        assert_int_equal(channel_ids_open(&ids, directory, dir, &error), -1);
        assert_non_null(strstr(error.text, "channel-ids is damaged"));
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(bytes);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(channel_ids_open(&ids, directory, dir, &error), -1);
    assert_int_equal(error.code, ENOENT);
    close(directory);
    /* In memory there is no file. */
    assert_int_equal(channel_ids_open(&ids, -1, dir, &error), 0);
    assert_int_equal(channel_ids_next(&ids, &error), 1);
    assert_int_equal(channel_ids_next(&ids, &error), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_made_and_opened_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_directories_differ, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_number_of_partitions_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_limit_of_outputs_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory_and_disk_exclude_each_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_bit_of_the_identity_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_format_is_refused_naming_both, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_missing_is_not_made_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_directories_that_cannot_be, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_lock_names_its_holder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_inherited_lock_is_held_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failing_calls_leave_nothing_half_made, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_who_made_the_directory_is_all_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_channel_numbers_go_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_damaged_channel_numbers_are_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
