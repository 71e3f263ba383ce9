/* SPDX-License-Identifier: Apache-2.0 */
/* Who is let in: the socket's mode and group, --allow-uid and --allow-gid, what one user may have of connections and
 * channels, and hand-shakes that are not finished. Workers are stubs. Other users are children that change theirs,
 * which takes root; elsewhere those tests are skipped. */
#include "tests/support/stub_node.h"

#include <millrace/millrace.h>

#include "engine/node/access.h"
#include "ipc/handshake.h"
#include "tests/support/spawn.h"
#include "tests/support/temp_dir.h"
#include "tests/support/wait.h"

#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define STRANGER 54321u
#define FRIEND 54322u
#define CLUB 54323u
#define HURRY UINT64_C(2000000000) /* for each step of a hand-shake; the test's own have to be made in it, too */

static char *dir;
static char open_dir[64]; /* whoever may pass; what tests have for temporary files may be closed to others */
static char socket_path[200];
static struct stub_node node;

static int set_up(void **state)
{
    (void)state;
    dir = temp_dir_make();
    strcpy(open_dir, "/tmp/millrace-access-XXXXXX");
    assert_non_null(mkdtemp(open_dir));
    assert_int_equal(chmod(open_dir, 0755), 0);
    snprintf(socket_path, sizeof(socket_path), "%s/socket", open_dir);
    memset(&node, 0, sizeof(node));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stub_node_end(&node);
    temp_dir_remove(dir);
    temp_dir_remove(strdup(open_dir));
    return 0;
}

static void start(const struct stub_config *config)
{
    stub_node_start(&node, dir, config);
    assert_true(stub_node_ready(&node));
}

/* As another user with one more group: connects by the library. Its status; *text gets the library's message. */
static enum mr_status connect_as(uid_t user, gid_t group, gid_t other, char *text, size_t size)
{
    int pipe_fds[2], status;

    assert_int_equal(pipe(pipe_fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        mr_client *client = NULL;
        if (setgroups(1, &other) != 0 || setgid(group) != 0 || setuid(user) != 0)
            _exit(255);
        enum mr_status result = mr_connect(socket_path, NULL, &client);
        const char *message = mr_message(client);
        if (write(pipe_fds[1], message, strlen(message)) < 0)
            _exit(254);
        mr_close(client);
        _exit((int)result);
    }
    close(pipe_fds[1]);
    size_t used = 0;
    ssize_t got;
    while ((got = read(pipe_fds[0], text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    text[used] = '\0';
    close(pipe_fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return (enum mr_status)WEXITSTATUS(status);
}

static void need_root(void)
{
    if (geteuid() != 0)
        skip();
}

static void test_socket_has_mode_and_group(void **state)
{
    (void)state;
    struct stat status;
    bool root = geteuid() == 0;
    struct stub_config config = {.socket = socket_path,
                                 .options = {"--socket-mode", "0604", root ? "--socket-group" : NULL, "54323"}};

    start(&config);
    assert_int_equal(stat(socket_path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0604);
    if (root)
        assert_int_equal(status.st_gid, CLUB);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    close(fd);
}

/* Whoever may write to the socket's directory could put something else at its path as soon as it is made: that gets
 * neither the socket's mode nor its group. */
static void test_what_is_put_in_the_sockets_place(void **state)
{
    (void)state;
    char victim[300];
    struct stat status, found = {.st_ino = 0};
    struct mr_error error;
    struct access access = {
        .socket_mode = 0666, .socket_group_given = true, .socket_group = geteuid() == 0 ? CLUB : getegid()};
    struct sockaddr_un address;

    snprintf(victim, sizeof(victim), "%s/victim", open_dir); /* a hard link stays in one file system */
    make_file(victim);
    gid_t group = stat(victim, &status) == 0 ? status.st_gid : 0;
    assert_int_equal(symlink(victim, socket_path), 0);
    assert_int_equal(access_dress_socket(&access, socket_path, &found, &error), -1);
    assert_int_equal(unlink(socket_path), 0);
    assert_int_equal(link(victim, socket_path), 0);
    assert_int_equal(access_dress_socket(&access, socket_path, &found, &error), -1);
    unlink(socket_path);
    assert_int_equal(found.st_ino, 0);
    assert_int_equal(stat(victim, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(status.st_gid, group);
    /* The socket itself, and a link to it. */
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(victim, sizeof(victim), "%s/one", open_dir);
    assert_int_equal(handshake_address(victim, &address, &error), 0);
    assert_int_equal(access_bind(&access, listener, &address, &error), 0);
    assert_int_equal(symlink(victim, socket_path), 0);
    assert_int_equal(access_dress_socket(&access, socket_path, &found, &error), -1);
    assert_int_equal(access_dress_socket(&access, victim, &found, &error), 0);
    assert_int_equal(stat(victim, &status), 0);
    assert_int_equal(status.st_ino, found.st_ino);
    assert_int_equal(status.st_mode & 07777, 0666);
    assert_int_equal(status.st_gid, access.socket_group);
    access.socket_mode = 0600; /* not what it was made with */
    assert_int_equal(access_dress_socket(&access, victim, &found, &error), -1);
    assert_non_null(strstr(error.text, "0666 instead of 0600"));
    close(listener);
    unlink(victim);
}

static void test_whom_the_mode_keeps_out(void **state)
{
    (void)state;
    char text[600];

    need_root();
    start(&(struct stub_config){.socket = socket_path, .options = {"--socket-group", "54323"}});
    assert_int_equal(connect_as(STRANGER, STRANGER, STRANGER, text, sizeof(text)), MR_FORBIDDEN);
    assert_non_null(strstr(text, socket_path));
    assert_int_equal(connect_as(STRANGER, STRANGER, CLUB, text, sizeof(text)), MR_OK);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_only_who_is_named_is_let_in(void **state)
{
    (void)state;
    char text[600];

    need_root();
    start(&(struct stub_config){.socket = socket_path,
                                .options = {"--socket-mode", "666", "--allow-uid", "54322", "--allow-gid", "54323"}});
    assert_int_equal(connect_as(STRANGER, STRANGER, STRANGER, text, sizeof(text)), MR_FORBIDDEN);
    assert_non_null(strstr(text, "user 54321"));
    assert_non_null(strstr(text, "--allow-uid"));
    assert_true(stub_node_said(&node, "refused: user 54321"));
    assert_int_equal(connect_as(FRIEND, STRANGER, STRANGER, text, sizeof(text)), MR_OK);
    assert_int_equal(connect_as(STRANGER, CLUB, STRANGER, text, sizeof(text)), MR_OK);
    assert_int_equal(connect_as(STRANGER, STRANGER, CLUB, text, sizeof(text)), MR_OK);
    assert_int_equal(connect_as(0, 0, 0, text, sizeof(text)), MR_OK);
    assert_int_equal(stub_node_stop(&node), 0);
}

/* However many are refused: at most a line a second, which counts the others. */
static void test_refusals_do_not_fill_the_log(void **state)
{
    (void)state;
    char text[600];
    size_t size;
    unsigned lines = 0;

    need_root();
    start(&(struct stub_config){.socket = socket_path, .options = {"--socket-mode", "666", "--allow-uid", "54322"}});
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < 40; i++)
        assert_int_equal(connect_as(STRANGER, STRANGER, STRANGER, text, sizeof(text)), MR_FORBIDDEN);
    clock_gettime(CLOCK_MONOTONIC, &end);
    char *error = read_file(node.error, &size);
    for (const char *at = error; (at = strstr(at, "refused: user 54321")) != NULL; at++)
        lines++;
    free(error);
    assert_in_range(lines, 1, (uintmax_t)(end.tv_sec - begin.tv_sec) + 2);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_data_directory_that_is_open_to_others_is_refused(void **state)
{
    (void)state;

    assert_int_equal(chmod(dir, 0750), 0);
    stub_node_start(&node, dir, &(struct stub_config){.socket = socket_path});
    assert_int_equal(stub_node_wait(&node), 1);
    assert_true(stub_node_said(&node, "0750"));
    assert_true(stub_node_said(&node, "chmod 700"));
}

static void test_connections_of_one_user(void **state)
{
    (void)state;
    struct stub_client clients[3], one_more;
    char text[600];

    start(&(struct stub_config){.socket = socket_path, .options = {"--socket-mode", "666", "--user-connections", "3"}});
    for (int i = 0; i < 3; i++)
        stub_greet(&clients[i], &node);
    stub_connect(&one_more, &node);
    stub_expect_refused(&one_more, MR_UNAVAILABLE, "3 connections, the most one user may have", true);
    stub_disconnect(&one_more);
    if (geteuid() == 0)
        assert_int_equal(connect_as(STRANGER, STRANGER, STRANGER, text, sizeof(text)), MR_OK);
    stub_disconnect(&clients[1]);
    /* There is room again as soon as the node has noticed. */
    assert_true(wait_for(stub_status(&clients[0], 1).connections == 2));
    stub_greet(&clients[1], &node);
    for (int i = 0; i < 3; i++)
        stub_disconnect(&clients[i]);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_channels_of_one_user(void **state)
{
    (void)state;
    struct stub_client client;
    struct channel channels[2], other;

    start(&(struct stub_config){.partitions = 2, .options = {"--user-channels", "2"}});
    stub_greet(&client, &node);
    for (int i = 0; i < 2; i++)
        stub_open_channel(&client, 1, 16384, &channels[i]);
    stub_ask_channel(&client, 1, 16384);
    stub_expect_refused(&client, MR_UNAVAILABLE, "2 channels to partition 1, the most one user may have", false);
    stub_open_channel(&client, 2, 16384, &other); /* each partition counts alone */
    stub_ask_close(&client, channels[0].channel_id);
    assert_true(wait_for(stub_status(&client, 1).channels == 1));
    channel_unmap(&channels[0]);
    stub_open_channel(&client, 1, 16384, &channels[0]);
    for (int i = 0; i < 2; i++)
        channel_unmap(&channels[i]);
    channel_unmap(&other);
    stub_disconnect(&client);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_who_does_not_greet_is_dropped(void **state)
{
    (void)state;
    struct stub_client silent, honest;

    start(&(struct stub_config){.handshake_limit = HURRY});
    stub_greet(&honest, &node);
    stub_connect(&silent, &node);
    stub_expect_refused(&silent, MR_TIMEOUT, "no Hello", true);
    stub_expect_closed(&silent);
    assert_int_equal(stub_status(&honest, 1).connections, 1);
    assert_true(stub_node_said(&node, "no Hello has come"));
    stub_disconnect(&silent);
    stub_disconnect(&honest);
    assert_int_equal(stub_node_stop(&node), 0);
}

static void test_a_channel_that_is_not_mapped_is_taken_back(void **state)
{
    (void)state;
    struct stub_client client;
    struct channel channel, after;

    start(&(struct stub_config){.handshake_limit = HURRY});
    stub_greet(&client, &node);
    stub_map_channel(&client, 1, 0, &channel);
    stub_expect_refused(&client, MR_TIMEOUT, "was not mapped in time", false);
    stub_say_mapped(&client, channel.channel_id); /* too late: nothing happens */
    assert_true(wait_for(stub_status(&client, 1).channels == 0));
    channel_unmap(&channel);
    stub_open_channel(&client, 1, 0, &after);
    assert_int_equal(stub_status(&client, 1).channels, 1);
    channel_unmap(&after);
    stub_disconnect(&client);
    assert_int_equal(stub_node_stop(&node), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_socket_has_mode_and_group, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_put_in_the_sockets_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_whom_the_mode_keeps_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_only_who_is_named_is_let_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals_do_not_fill_the_log, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_data_directory_that_is_open_to_others_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_connections_of_one_user, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_channels_of_one_user, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_who_does_not_greet_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_channel_that_is_not_mapped_is_taken_back, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
