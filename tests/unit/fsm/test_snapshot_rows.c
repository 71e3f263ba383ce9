/* SPDX-License-Identifier: Apache-2.0 */
/* Our half of the rows that no frame shows (tests/integration/test_rows.py). With `--print` it prints, for Python's
 * protobuf to read: `snapshot HEX`, the PartitionSnapshot of a state made here, `extra HEX`, its SnapshotExtra; `error
 * HEX`, the PartitionSnapshot of a state with a service type whose code fails. Without arguments it tests that
 * something is printed. */
#include "engine/fsm/service.h"
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT (UINT64_C(1) << 20)

/* ---- a service type that fails ---- */

static void run_fail(void *state, struct service_call *call)
{
    (void)state;
    call_fail(call, STATUS_ERROR, "the service's code failed");
}

static void *failing_create(struct service_host *host)
{
    (void)host;
    return calloc(1, 1);
}

static void failing_dump(void *state, void (*write)(void *context, const void *data, size_t size), void *context)
{
    (void)state;
    (void)write;
    (void)context;
}

static const struct service_operation failing_operations[] = {
    {OPERATION_NAME("Fail"), .kind = OPERATION_COMMAND, .run = run_fail}};
static const struct service_type failing = {.name = "test.Failing",
                                            .operations = failing_operations,
                                            .operation_count = 1,
                                            .create = failing_create,
                                            .destroy = free,
                                            .dump = failing_dump};
static const struct service_type *const failing_types[] = {&failing, NULL};

/* ---- the states ---- */

static struct partition *make_failing(void)
{
    static const struct payload none;
    struct partition *partition = partition_create(7, LIMIT);
    fsm_destroy(partition->fsm);
    partition->fsm =
        fsm_create(&(struct fsm_config){.hash_seed = 7, .session_output_limit = LIMIT, .types = failing_types});
    partition_open_session(partition, MR_HOUR);                      /* 1 */
    partition_create_service(partition, 1, failing.name, "failing"); /* 2 */
    partition_command(partition, 1, 2, 1, "Fail", none);             /* 3 */
    return partition;
}

static struct partition *make(void)
{
    uint8_t everything[10] = {1, 1, 255, 255, 255, 255, 255, 255, 255, 255};
    static const struct last_output first = {1, 1};
    struct partition *partition = partition_create(7, LIMIT);
    partition->uid = 1000;
    partition->time = 5 * MR_SECOND + 6;
    partition_open_session(partition, 20 * MR_SECOND + 1);                         /* 1 */
    partition_open_session(partition, MR_HOUR);                                    /* 2 */
    partition_create_service(partition, 2, COUNTER_TYPE, "counter");               /* 3 */
    partition_create_service(partition, 2, MAP_TYPE, "map");                       /* 4 */
    partition_create_service(partition, 1, MAP_TYPE, "map");                       /* 5 */
    partition_command(partition, 2, 3, 1, "Set", number_payload(77));              /* 6 */
    partition_command(partition, 2, 3, 2, "CompareAndSet", numbers_payload(1, 2)); /* 7 */
    partition->time = 8 * MR_SECOND + 9;
    request_keep_alive(&partition->request, 2, (struct slice){everything, sizeof(everything)}, 2, &first, 1);
    partition_apply(partition); /* 8 */
    return partition;
}

static void print_hex(FILE *to, const char *word, const uint8_t *bytes, size_t size)
{
    fprintf(to, "%s ", word);
    for (size_t i = 0; i < size; i++)
        fprintf(to, "%02x", bytes[i]);
    fprintf(to, "\n");
}

/* The extra only if it has a word. */
static void print_snapshot(FILE *to, const char *word, const char *extra, struct partition *partition)
{
    size_t size, snapshot_size = partition_snapshot_size(partition);
    uint8_t *dump = partition_dump(partition, &size);
    print_hex(to, word, dump, snapshot_size);
    if (extra != NULL)
        print_hex(to, extra, dump + snapshot_size, size - snapshot_size);
    free(dump);
    partition_destroy(partition);
}

static void print_all(FILE *to)
{
    print_snapshot(to, "snapshot", "extra", make());
    print_snapshot(to, "error", NULL, make_failing());
}

/* ---- its own test ---- */

static void three_lines(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    assert_non_null(to);
    print_all(to);
    assert_int_equal(fclose(to), 0);
    /* index 8 and a time of 8 s and 9 ns; index 3 */
    assert_memory_equal(text, "snapshot 0808120408081009", 25);
    assert_non_null(strstr(text, "\nextra 0880804012")); /* the limit */
    assert_non_null(strstr(text, "\nerror 0803"));
    free(text);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--print") == 0) {
        print_all(stdout);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(three_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
