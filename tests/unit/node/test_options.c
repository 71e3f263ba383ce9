/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `millrace serve`: each one's values, each wrong value's message, how they fit together, --help. */
#include "engine/node/options.h"
#include "engine/node/values.h"

#include <millrace/limits.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct options options;
static struct mr_error error;

/* Words separated by blanks. */
static enum options_result parse(const char *line)
{
    static char text[1024];
    char *argv[32] = {"serve"};
    int argc = 1;
    char *rest = NULL;

    snprintf(text, sizeof(text), "%s", line);
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    error.text[0] = '\0';
    return options_parse(argc, argv, &options, &error);
}

static void expect_ok(const char *line)
{
    if (parse(line) != OPTIONS_OK)
        fail_msg("%s: %s", line, error.text);
}

/* Wrong, and the message has these parts. */
static void expect_wrong(const char *line, const char *option, const char *value, const char *allowed)
{
    if (parse(line) != OPTIONS_WRONG)
        fail_msg("%s was taken", line);
    if (strstr(error.text, option) == NULL || strstr(error.text, value) == NULL || strstr(error.text, allowed) == NULL)
        fail_msg("%s: \"%s\" does not name %s, %s and %s", line, error.text, option, value, allowed);
}

static void test_defaults(void **state)
{
    (void)state;
    cpu_set_t mine;

    expect_ok("--dir /data/x");
    assert_string_equal(options.dir, "/data/x");
    assert_string_equal(options.socket, "/data/x/millrace.sock");
    assert_int_equal(options.partitions, 1);
    assert_false(options.partitions_given);
    assert_int_equal(options.durability, DURABILITY_SYNC);
    assert_int_equal(options.idle, IDLE_ADAPTIVE);
    assert_int_equal(options.ring_bytes, 4 * MR_MIB);
    assert_int_equal(options.max_payload, MR_MIB);
    assert_int_equal(options.batch_bytes, 256 * MR_KIB);
    assert_int_equal(options.segment_bytes, 64 * MR_MIB);
    assert_int_equal(options.flush_interval, 10 * MR_MILLISECOND);
    assert_int_equal(options.snapshot_bytes, 256 * MR_MIB);
    assert_int_equal(options.session_outputs, 64 * MR_MIB);
    assert_false(options.session_outputs_given);
    assert_int_equal(options.access.socket_mode, 0660);
    assert_false(options.access.socket_group_given);
    assert_false(options.access.uids.given);
    assert_false(options.access.gids.given);
    assert_int_equal(options.user_connections, MR_USER_CONNECTIONS_DEFAULT);
    assert_int_equal(options.user_channels, MR_USER_CHANNELS_DEFAULT);
    assert_false(options.memory_limit_given);
    assert_int_equal(options.max_sessions, MR_SESSIONS_DEFAULT);
    assert_int_equal(options.user_sessions, MR_USER_SESSIONS_DEFAULT);
    assert_int_equal(options.max_services, MR_SERVICES_DEFAULT);
    assert_int_equal(options.sandbox, SANDBOX_AUTO);
    assert_null(options.user);
    assert_true(options.pin);
    assert_int_equal(sched_getaffinity(0, sizeof(mine), &mine), 0);
    assert_true(CPU_EQUAL(&mine, &options.cpus));
    assert_int_equal(options.cpu_count, CPU_COUNT(&mine));
}

static void test_each_option(void **state)
{
    (void)state;

    expect_ok("--dir d --socket /run/m.sock --partitions 64 --durability async --idle spin --ring-bytes 16K "
              "--max-payload 4K --batch-bytes 8K --segment-bytes 1M --flush-interval 1s --session-outputs 128K "
              "--snapshot-bytes 1024G");
    assert_int_equal(options.snapshot_bytes, 1024 * MR_GIB);
    assert_int_equal(options.session_outputs, 128 * MR_KIB);
    assert_true(options.session_outputs_given);
    assert_string_equal(options.socket, "/run/m.sock");
    assert_int_equal(options.partitions, 64);
    assert_true(options.partitions_given);
    assert_int_equal(options.durability, DURABILITY_ASYNC);
    assert_int_equal(options.idle, IDLE_SPIN);
    assert_int_equal(options.ring_bytes, 16384);
    assert_int_equal(options.max_payload, 4096);
    assert_int_equal(options.batch_bytes, 8192);
    assert_int_equal(options.segment_bytes, MR_MIB);
    assert_int_equal(options.flush_interval, MR_SECOND);
    expect_ok(
        "--dir=d --durability=memory --idle=block --ring-bytes=1G --segment-bytes=4G --flush-interval=1m --snapshot-bytes=0");
    assert_int_equal(options.snapshot_bytes, 0);
    assert_int_equal(options.durability, DURABILITY_MEMORY);
    assert_int_equal(options.idle, IDLE_BLOCK);
    assert_int_equal(options.ring_bytes, MR_GIB);
    assert_int_equal(options.segment_bytes, 4 * MR_GIB);
    assert_int_equal(options.flush_interval, 60 * MR_SECOND);
}

static void test_who_may_use_it_and_how_much(void **state)
{
    (void)state;

    expect_ok("--dir d --socket-mode 0600 --socket-group 7 --allow-uid root,1000 --allow-gid 0,4294967294");
    assert_int_equal(options.access.socket_mode, 0600);
    assert_true(options.access.socket_group_given);
    assert_int_equal(options.access.socket_group, 7);
    assert_true(options.access.uids.given);
    assert_int_equal(options.access.uids.count, 2);
    assert_int_equal(options.access.uids.ids[0], 0);
    assert_int_equal(options.access.uids.ids[1], 1000);
    assert_int_equal(options.access.gids.count, 2);
    assert_int_equal(options.access.gids.ids[1], 4294967294);
    expect_ok("--dir d --user-connections 1 --user-channels 1024 --memory-limit 32M --max-sessions 1 --user-sessions 2 "
              "--max-services 3 --sandbox required --user root");
    assert_int_equal(options.user_connections, 1);
    assert_int_equal(options.user_channels, 1024);
    assert_true(options.memory_limit_given);
    assert_int_equal(options.memory_limit, 32 * MR_MIB);
    assert_int_equal(options.max_sessions, 1);
    assert_int_equal(options.user_sessions, 2);
    assert_int_equal(options.max_services, 3);
    assert_int_equal(options.sandbox, SANDBOX_REQUIRED);
    assert_string_equal(options.user, "root");
    expect_ok("--dir d --memory-limit 0 --sandbox off");
    assert_true(options.memory_limit_given);
    assert_int_equal(options.memory_limit, 0);
    assert_int_equal(options.sandbox, SANDBOX_OFF);
}

/* Of a limit of the disk, segments and what lies between two snapshots are parts. */
static void test_disk_limit(void **state)
{
    (void)state;

    expect_ok("--dir d");
    assert_int_equal(options.disk_limit, 0);
    expect_ok("--dir d --disk-limit 64G");
    assert_int_equal(options.disk_limit, 64 * MR_GIB);
    assert_int_equal(options.segment_bytes, MR_SEGMENT_BYTES_DEFAULT);
    assert_int_equal(options.snapshot_bytes, MR_SNAPSHOT_BYTES_DEFAULT);
    expect_ok("--dir d --disk-limit 1M");
    assert_int_equal(options.segment_bytes, 128 * MR_KIB);
    assert_int_equal(options.snapshot_bytes, 256 * MR_KIB);
    expect_ok("--dir d --disk-limit 100000001");
    assert_int_equal(options.segment_bytes % 4096, 0);
    expect_ok("--dir d --disk-limit 512M --segment-bytes 64M --snapshot-bytes 128M");
    expect_wrong("--dir d --disk-limit 511M --segment-bytes 64M", "--disk-limit", "511M",
                 "8 times --segment-bytes 64M");
    expect_wrong("--dir d --disk-limit 512M --snapshot-bytes 129M", "--disk-limit", "512M", "4 times --snapshot-bytes");
    expect_wrong("--dir d --disk-limit 512M --snapshot-bytes 0", "--disk-limit", "512M", "may not be 0");
}

static void test_wrong_values(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"--partitions", "0", "1 to 64"},
        {"--partitions", "65", "1 to 64"},
        {"--partitions", "-1", "1 to 64"},
        {"--partitions", "two", "1 to 64"},
        {"--partitions", "2x", "1 to 64"},
        {"--partitions", "99999999999999999999", "1 to 64"},
        {"--durability", "maybe", "sync, async or memory"},
        {"--durability", "Sync", "sync, async or memory"},
        {"--idle", "sleep", "spin, adaptive or block"},
        {"--ring-bytes", "8K", "16K to 1G"},
        {"--ring-bytes", "2G", "16K to 1G"},
        {"--ring-bytes", "48K", "power of two"},
        {"--ring-bytes", "4m", "16K to 1G"},
        {"--ring-bytes", "4MB", "16K to 1G"},
        {"--ring-bytes", "99999999999G", "16K to 1G"},
        {"--max-payload", "1023", "1K to 256M"},
        {"--max-payload", "257M", "1K to 256M"},
        {"--max-payload", "2M", "a quarter of --ring-bytes 4M, which is 1M"},
        {"--batch-bytes", "4K", "8K to 16M"},
        {"--batch-bytes", "17M", "8K to 16M"},
        {"--segment-bytes", "32K", "64K to 4G"},
        {"--segment-bytes", "8G", "64K to 4G"},
        {"--segment-bytes", "65537", "multiple of 4K"},
        {"--flush-interval", "10", "1ms to 1m"},
        {"--flush-interval", "0", "1ms to 1m"},
        {"--flush-interval", "999us", "1ms to 1m"},
        {"--flush-interval", "2m", "1ms to 1m"},
        {"--flush-interval", "1d", "1ms to 1m"},
        {"--snapshot-bytes", "63K", "0, or 64K to 1024G"},
        {"--snapshot-bytes", "1025G", "0, or 64K to 1024G"},
        {"--snapshot-bytes", "-1", "0, or 64K to 1024G"},
        {"--session-outputs", "63K", "64K to 64G"},
        {"--session-outputs", "65G", "64K to 64G"},
        {"--socket-mode", "0888", "0 to 777"},
        {"--socket-mode", "1777", "0 to 777"},
        {"--socket-mode", "rw", "0 to 777"},
        {"--socket-group", "no-such-group", "numbers and names of groups"},
        {"--socket-group", "1,2", "one group"},
        {"--allow-uid", "0,no-such-user", "numbers and names of users"},
        {"--allow-uid", "1,,2", "numbers and names of users"},
        {"--allow-uid", "4294967295", "numbers and names of users"},
        {"--allow-gid", "-1", "numbers and names of groups"},
        {"--user-connections", "0", "1 to 4096"},
        {"--user-channels", "1025", "1 to 1024"},
        {"--memory-limit", "31M", "0, or 32M to 65536G"},
        {"--disk-limit", "1023K", "0, or 1M to 65536G"},
        {"--max-sessions", "0", "1 to 16777216"},
        {"--user-sessions", "16777217", "1 to 16777216"},
        {"--max-services", "0", "1 to 16777216"},
        {"--sandbox", "on", "auto, required or off"},
        {"--cpus", "x", "none, or numbers and ranges"},
        {"--cpus", "0-", "none, or numbers and ranges"},
        {"--cpus", "1,,2", "none, or numbers and ranges"},
        {"--cpus", "3-1", "none, or numbers and ranges"},
        {"--cpus", "99999", "none, or numbers and ranges"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char line[128];
        snprintf(line, sizeof(line), "--dir d %s=%s", cases[i][0], cases[i][1]);
        expect_wrong(line, cases[i][0], cases[i][1], cases[i][2]);
    }
}

static void test_wrong_lines(void **state)
{
    (void)state;

    expect_wrong("", "--dir", "must", "directory");
    expect_wrong("--dir=", "--dir", "must", "directory");
    expect_wrong("--dir", "--dir", "needs a value", "");
    expect_wrong("--dir d --colour red", "--colour", "no option", "--help");
    expect_wrong("--dir d -x", "-x", "no option", "--help");
    expect_wrong("--dir d --help=yes", "--help", "no value", "");
    expect_wrong("--dir d more", "more", "options only", "--help");
    assert_int_equal(parse("--dir d --help"), OPTIONS_HELP);
    assert_int_equal(parse("--help"), OPTIONS_HELP);
}

static void test_a_socket_path_has_its_limit(void **state)
{
    (void)state;
    char path[200] = "/", line[300], length[16];

    memset(path + 1, 's', 106);
    snprintf(line, sizeof(line), "--dir d --socket %s", path);
    expect_ok(line);
    assert_int_equal(strlen(options.socket), 107);
    strcat(path, "s");
    snprintf(line, sizeof(line), "--dir d --socket %s", path);
    expect_wrong(line, "--socket", path, "107");
    /* Made from --dir it is still the socket's option that helps. */
    path[94] = '\0';
    snprintf(line, sizeof(line), "--dir %s", path);
    snprintf(length, sizeof(length), "%zu bytes", strlen(path) + strlen("/millrace.sock"));
    expect_wrong(line, "--socket", length, "107");
    path[93] = '\0';
    snprintf(line, sizeof(line), "--dir %s", path);
    expect_ok(line);
    expect_wrong("--dir d --socket=", "--socket", "empty", "107");
}

static void test_sizes_fit_together(void **state)
{
    (void)state;

    /* What is not given gives way. */
    expect_ok("--dir d --ring-bytes 64K");
    assert_int_equal(options.max_payload, 16 * MR_KIB);
    expect_ok("--dir d --segment-bytes 64K");
    assert_int_equal(options.max_payload, 8 * MR_KIB);
    assert_int_equal(options.batch_bytes, 8 * MR_KIB);
    /* What is given does not. */
    expect_wrong("--dir d --ring-bytes 64K --max-payload 16385", "--max-payload", "16385", "which is 16K");
    expect_wrong("--dir d --segment-bytes 1M --batch-bytes 512K", "--segment-bytes", "1M", "--batch-bytes 512K");
    expect_wrong("--dir d --segment-bytes 4M --max-payload 1M", "--segment-bytes", "at least 4128K",
                 "--max-payload 1M");
    expect_ok("--dir d --segment-bytes 4128K --max-payload 1M");
    expect_ok("--dir d --ring-bytes 16K --max-payload 1K --batch-bytes 8K --segment-bytes 64K");
}

static void test_processors(void **state)
{
    (void)state;
    cpu_set_t mine, one;
    size_t first = 0, outside = 0;
    char line[64], value[16];

    assert_int_equal(sched_getaffinity(0, sizeof(mine), &mine), 0);
    while (!CPU_ISSET(first, &mine))
        first++;
    while (CPU_ISSET(outside, &mine))
        outside++;
    snprintf(line, sizeof(line), "--dir d --cpus %zu", first);
    expect_ok(line);
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_true(CPU_EQUAL(&one, &options.cpus));
    assert_int_equal(options.cpu_count, 1);
    assert_true(options.pin);
    snprintf(line, sizeof(line), "--dir d --cpus %zu,%zu", first, outside);
    snprintf(value, sizeof(value), "on %zu,", outside);
    expect_wrong(line, "--cpus", value, "may not run");
    expect_ok("--dir d --cpus none");
    assert_false(options.pin);
    assert_int_equal(options.cpu_count, CPU_COUNT(&mine));
}

static void test_help_shows_every_option(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    static const char *const parts[] = {"--dir DIR",
                                        "--socket PATH",
                                        "DIR/millrace.sock",
                                        "--partitions N",
                                        "1 to 64",
                                        "--durability",
                                        "default: sync\n",
                                        "--cpus LIST|none",
                                        "--idle",
                                        "default: adaptive",
                                        "--ring-bytes SIZE",
                                        "default: 4M; bytes, or K, M, G of 1024; 16K to 1G",
                                        "--max-payload SIZE",
                                        "default: 1M",
                                        "--batch-bytes",
                                        "default: 256K",
                                        "--segment-bytes",
                                        "default: 64M",
                                        "--flush-interval",
                                        "default: 10ms; with ns, us, ms, s, m or h; 1ms to 1m",
                                        "--help"};

    assert_non_null(to);
    options_help(to);
    fclose(to);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (strstr(text, parts[i]) == NULL)
            fail_msg("--help does not say \"%s\":\n%s", parts[i], text);
    free(text);
}

/* What --help says that an option is without being given can be given. */
static void test_defaults_in_help_can_be_given(void **state)
{
    (void)state;
    char *text = NULL, name[64] = "", line[256];
    size_t size = 0;
    unsigned seen = 0;
    FILE *to = open_memstream(&text, &size);

    assert_non_null(to);
    options_help(to);
    fclose(to);
    for (char *rest = text; *rest != '\0'; rest = strchr(rest, '\n') + 1) {
        char value[64], unit;
        if (sscanf(rest, "  --%60s", name) == 1 || sscanf(rest, " default: %60[0-9A-Za-z]%c", value, &unit) != 2 ||
            value[0] < '0' || value[0] > '9' || (unit != ';' && unit != '\n'))
            continue;
        snprintf(line, sizeof(line), "--dir d --%s %s", name, value);
        expect_ok(line);
        seen++;
    }
    assert_true(seen >= 14);
    free(text);
}

static void test_values_are_read_whole(void **state)
{
    (void)state;
    uint64_t value = 7;
    char text[32], cpus_text[64];
    cpu_set_t cpus;

    assert_true(value_duration("0", &value) && value == 0);
    assert_true(value_duration("3h", &value) && value == 3 * MR_HOUR);
    assert_true(value_duration("18446744073709551615ns", &value) && value == UINT64_MAX);
    assert_false(value_duration("18446744073709551615us", &value));
    assert_false(value_duration("18446744073709551616ns", &value));
    assert_false(value_duration(" 5s", &value) || value_duration("5 s", &value) || value_duration("5s ", &value) ||
                 value_duration("5S", &value) || value_duration("", &value) || value_duration("s", &value));
    assert_true(value_size("16G", &value) && value == 16 * MR_GIB);
    assert_false(value_size("1.5G", &value) || value_size("+5", &value) || value_size("0x10", &value) ||
                 value_size("17179869184G", &value));
    assert_string_equal(value_write_size(text, 0), "0");
    assert_string_equal(value_write_size(text, 1536), "1536");
    assert_string_equal(value_write_size(text, 65536), "64K");
    assert_string_equal(value_write_duration(text, 90 * MR_SECOND), "90s");
    assert_string_equal(value_write_duration(text, 1500), "1500ns");
    assert_true(value_cpus("0-2,5,7-8", &cpus) && CPU_COUNT(&cpus) == 6);
    assert_string_equal(value_write_cpus(cpus_text, sizeof(cpus_text), &cpus), "0-2,5,7-8");
    assert_string_equal(value_write_cpus(cpus_text, 9, &cpus), "0-2,5...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_each_option),
        cmocka_unit_test(test_who_may_use_it_and_how_much),
        cmocka_unit_test(test_disk_limit),
        cmocka_unit_test(test_wrong_values),
        cmocka_unit_test(test_wrong_lines),
        cmocka_unit_test(test_a_socket_path_has_its_limit),
        cmocka_unit_test(test_sizes_fit_together),
        cmocka_unit_test(test_processors),
        cmocka_unit_test(test_help_shows_every_option),
        cmocka_unit_test(test_defaults_in_help_can_be_given),
        cmocka_unit_test(test_values_are_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
