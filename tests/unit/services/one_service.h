/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of a service by itself: a partition with one session and one service. */
#ifndef TESTS_UNIT_SERVICES_ONE_SERVICE_H
#define TESTS_UNIT_SERVICES_ONE_SERVICE_H

#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

static const struct payload none;

struct fixture {
    struct partition *partition;
    uint64_t session, service;
    uint64_t number; /* of the last command */
};

static inline struct fixture *fixture_create(const char *type, uint64_t session_output_limit)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    fixture->partition = partition_create(1, session_output_limit);
    fixture->session = partition_open_session(fixture->partition, 24 * MR_HOUR);
    fixture->service = partition_create_service(fixture->partition, fixture->session, type, "a")->id;
    return fixture;
}

static inline int teardown(void **state)
{
    struct fixture *fixture = *state;
    partition_destroy(fixture->partition);
    free(fixture);
    return 0;
}

/* Applies the service's next command. */
static inline const struct reply *run(struct fixture *fixture, const char *operation, struct payload payload)
{
    const struct reply *reply = partition_command(fixture->partition, fixture->session, fixture->service,
                                                  ++fixture->number, operation, payload);
    assert_int_equal(reply->status, STATUS_OK);
    return reply;
}

#endif
