/* SPDX-License-Identifier: Apache-2.0 */
/* How many may listen to a map: by the type alone, with pretended streams, of which real ones would take a gigabyte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "engine/fsm/call.h"
#include "engine/fsm/garbage.h"
#include "engine/services/map.h"

#include <millrace/limits.h>

/* What the last call to open a stream was given. */
static void *listener;

struct stream *__wrap_call_open(struct service_call *call, void *of);
struct stream *__wrap_call_open(struct service_call *call, void *of)
{
    (void)call;
    listener = of;
    return of;
}

bool __wrap_stream_emit(struct stream *stream, struct service_call *output);
bool __wrap_stream_emit(struct stream *stream, struct service_call *output)
{
    (void)stream;
    (void)output;
    return true;
}

static const struct service_operation *events(void)
{
    for (size_t n = 0;; n++) {
        assert_true(n < map_type.operation_count);
        if (strcmp(map_type.operations[n].name, "Events") == 0)
            return &map_type.operations[n];
    }
}

/* Whether it was let in. */
static bool listen_once(void *map, struct service_call *call, uint64_t index)
{
    listener = NULL;
    call_begin(call, index, 0, (struct slice){NULL, 0});
    events()->run(map, call);
    return listener != NULL;
}

static void no_more_than_a_write_may_have_to_tell(void **state)
{
    struct timers timers;
    struct garbage garbage;
    struct service_call call = {.index = 0}, output = {.index = 0};
    uint64_t time = 0, index = 1;
    struct service_host host = {.timers = &timers, .garbage = &garbage, .output = &output, .time = &time};
    void **listeners = malloc(MR_EVENTS_MAX * sizeof(*listeners));

    (void)state;
    assert_non_null(listeners);
    timers_init(&timers);
    garbage_init(&garbage);
    void *map = map_type.create(&host);
    for (uint64_t n = 0; n < MR_EVENTS_MAX; n++) {
        assert_true(listen_once(map, &call, index++));
        listeners[n] = listener;
    }
    assert_false(listen_once(map, &call, index++));
    assert_int_equal(call.status, STATUS_UNAVAILABLE);
    call.message[call.message_size] = '\0';
    assert_non_null(strstr(call.message, "1048576 listeners"));
    /* and again once one of them has ended */
    map_type.ended(map, listeners[0]);
    assert_true(listen_once(map, &call, index++));
    listeners[0] = listener;
    for (uint64_t n = 0; n < MR_EVENTS_MAX; n++)
        map_type.ended(map, listeners[n]);
    map_type.destroy(map);
    timers_free(&timers);
    call_free(&call);
    call_free(&output);
    free(listeners);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_more_than_a_write_may_have_to_tell)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
