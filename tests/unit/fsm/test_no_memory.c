/* SPDX-License-Identifier: Apache-2.0 */
/* A state machine that gets no memory ends its process, whichever allocation it is that fails: nothing of the entry is
 * seen. It says so, and does not end like one that has found a mistake of its own: the entry is not to blame, and the
 * next attempt may have the memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/failing_memory.h"
#include "tests/support/partition.h"

static bool answered(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    (void)context;
    (void)route;
    return answer->status == STATUS_OK;
}

/* The partition's request, without the allocations of a test's partition. */
static void apply(struct partition *partition)
{
    struct fsm_sink sink = {.answer = answered};
    struct fsm_entry entry = {.index = partition->index + 1,
                              .time = partition->time,
                              .uid = partition->uid,
                              .command = &partition->request.command.command};
    fsm_apply(partition->fsm, &entry, &sink);
}

/* In a process of its own the partition's request is applied, and the nth allocation fails. Its exit status (0: there
 * were fewer), and what it printed. */
static int apply_failing(struct partition *partition, unsigned nth, char *printed, size_t size)
{
    int ends[2], status;
    size_t count = 0;

    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        memory_fails_in = nth;
        apply(partition);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], printed + count, size - 1 - count)) > 0;)
        count += (size_t)got;
    printed[count] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("allocation %u: signal %d: %s", nth, WTERMSIG(status), printed);
    return WEXITSTATUS(status);
}

static void no_memory_for_an_entry(void **state)
{
    enum { VALUE = 1000 };
    struct partition *partition = partition_create(1, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    uint64_t session = partition_open_session(partition, MR_SECOND);
    uint64_t map = partition_create_service(partition, session, MAP_TYPE, "a")->id;
    uint8_t value[VALUE] = {0};
    char printed[1024];
    unsigned ended = 0;

    (void)state;
    struct payload payload = write_payload("key", (struct slice){value, VALUE}, NULL, 0);
    request_command(&partition->request, session, map, 1, "Put", payload_slice(&payload));
    for (unsigned nth = 1; apply_failing(partition, nth, printed, sizeof(printed)) != 0; nth++, ended++)
        assert_string_equal(printed, "no memory for the partition's state: the process ends\n");
    assert_true(ended > 3);
    assert_int_equal(partition_apply(partition)->status, STATUS_OK);
    partition_destroy(partition);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_memory_for_an_entry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
