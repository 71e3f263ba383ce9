/* SPDX-License-Identifier: Apache-2.0 */
/* A status that says nothing, in a frame or in an operation's output, is a failure to the library. */
#include "ipc/client/answer.h"
#include "proto/messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static enum mr_status status_of_frame(uint8_t status)
{
    struct response_head head = {.status = status, .flags = FRAME_LAST};
    struct mr_result result = {.status = MR_OK};
    answer_read(ANSWER_PLAIN, FRAME_COMMAND, &head, NULL, &result);
    return result.status;
}

/* In PartitionQueryOutput { QueryOutput { SessionQueryOutput { ServiceQueryOutput { OperationOutput }}}}. */
static enum mr_status status_of_operation(const uint8_t *output, uint8_t size)
{
    uint8_t body[32] = {0x0a, (uint8_t)(6 + size), 0x0a, (uint8_t)(4 + size), 0x0a, (uint8_t)(2 + size), 0x0a, size};
    struct response_head head = {.size = 8U + size, .status = STATUS_OK, .flags = FRAME_LAST};
    struct mr_result result = {.status = MR_OK};
    for (uint8_t i = 0; i < size; i++)
        body[8 + i] = output[i];
    answer_read(ANSWER_NUMBER, FRAME_QUERY, &head, body, &result);
    return result.status;
}

static void unknown_is_a_failure(void **state)
{
    (void)state;
    assert_int_equal(status_of_frame(STATUS_UNKNOWN), MR_UNKNOWN);
    assert_int_equal(status_of_frame(STATUS_INTERNAL + 1), MR_UNKNOWN);
    assert_int_equal(status_of_frame(255), MR_UNKNOWN);
    assert_int_equal(status_of_operation(NULL, 0), MR_UNKNOWN);
    static const uint8_t none[] = {0x08, STATUS_UNKNOWN}, later[] = {0x08, STATUS_INTERNAL + 1},
                         negative[] = {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
    assert_int_equal(status_of_operation(none, sizeof(none)), MR_UNKNOWN);
    assert_int_equal(status_of_operation(later, sizeof(later)), MR_UNKNOWN);
    assert_int_equal(status_of_operation(negative, sizeof(negative)), MR_UNKNOWN);
}

static void others_are_themselves(void **state)
{
    (void)state;
    for (uint8_t status = STATUS_ERROR; status <= STATUS_INTERNAL; status++) {
        const uint8_t output[] = {0x08, status};
        assert_int_equal(status_of_frame(status), status);
        assert_int_equal(status_of_operation(output, sizeof(output)), status);
    }
    static const uint8_t ok[] = {0x08, STATUS_OK};
    assert_int_equal(status_of_operation(ok, sizeof(ok)), MR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(unknown_is_a_failure), cmocka_unit_test(others_are_themselves)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
