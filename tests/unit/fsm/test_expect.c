/* SPDX-License-Identifier: Apache-2.0 */
/* fsm_expect() takes commands of any sort and changes nothing. */
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMMANDS = 60 };

static void expect_all(struct partition *partition, const struct request *requests, unsigned count)
{
    const struct command_input *commands[COMMANDS];
    for (unsigned n = 0; n < count; n++)
        commands[n] = &requests[n].command.command;
    fsm_expect(partition->fsm, commands, count);
}

static void assert_unchanged(struct partition *partition, const struct request *requests, unsigned count)
{
    size_t before_size, after_size;
    uint8_t *before = partition_dump(partition, &before_size);
    expect_all(partition, requests, count);
    uint8_t *after = partition_dump(partition, &after_size);
    assert_int_equal(before_size, after_size);
    assert_memory_equal(before, after, before_size);
    free(before);
    free(after);
}

static void changes_nothing(void **state)
{
    (void)state;
    struct partition *partition = partition_create(1, UINT64_MAX);
    uint64_t session = partition_open_session(partition, MR_HOUR), number = 0;
    uint64_t map = partition_create_service(partition, session, MAP_TYPE, "map")->id;
    uint64_t other = partition_create_service(partition, session, MAP_TYPE, "other")->id;
    uint64_t counter = partition_create_service(partition, session, COUNTER_TYPE, "counter")->id;
    static const struct payload odd[] = {{{0x0a, 5, 'a'}, 3}, {{0x0a}, 1}, {{0x0a, 0}, 2}, {{0xff, 0xff}, 2}, {{0}, 0}};
    struct request requests[COMMANDS] = {0};
    struct payload payloads[COMMANDS];
    char key[8];

    for (unsigned n = 0; n < COMMANDS; n++) {
        snprintf(key, sizeof(key), "%u", n % 37);
        payloads[n] = n % 7 == 6 ? odd[n % 5] : write_payload(key, text("value"), NULL, 0);
        uint64_t service = n % 10 == 3 ? counter : n % 10 == 4 ? other : n % 10 == 5 ? 77777 : map;
        request_command(&requests[n], n % 10 == 7 ? 99999 : session, service, n + 1, "Put",
                        payload_slice(&payloads[n]));
    }
    requests[COMMANDS - 1].command.command.kind = COMMAND_CLOSE_SESSION;
    assert_unchanged(partition, requests, COMMANDS); /* with nothing there */
    assert_unchanged(partition, requests, 0);
    for (unsigned n = 0; n < 30; n++) {
        snprintf(key, sizeof(key), "%u", n);
        partition_command(partition, session, map, ++number, "Put", write_payload(key, text("old"), NULL, 0));
    }
    assert_unchanged(partition, requests, COMMANDS);
    for (unsigned n = 0; n < COMMANDS; n++)
        request_free(&requests[n]);
    partition_destroy(partition);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(changes_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
