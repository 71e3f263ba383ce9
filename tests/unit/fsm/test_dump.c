/* SPDX-License-Identifier: Apache-2.0 */
/* The state as bytes: a PartitionSnapshot and a SnapshotExtra to another protobuf implementation; and two states that
 * differ in anything differ in their bytes. */
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "atomix/multiraft/counter/v1/counter.pb-c.h"
#include "atomix/multiraft/map/v1/map.pb-c.h"
#include "atomix/multiraft/v1/fsm.pb-c.h"
#include "millrace/v1/snapshot.pb-c.h"

static const struct slice no_filter;

static struct partition *build(void)
{
    struct partition *partition = partition_create(7, 1000000);
    partition->uid = 1000;
    partition->time = 5 * MR_SECOND + 6;
    partition_open_session(partition, 20 * MR_SECOND + 1);                                         /* 1 */
    partition_open_session(partition, MR_HOUR);                                                    /* 2 */
    partition_create_service(partition, 2, COUNTER_TYPE, "counter");                               /* 3 */
    partition_create_service(partition, 2, MAP_TYPE, "map");                                       /* 4 */
    partition_create_service(partition, 1, MAP_TYPE, "map");                                       /* 5 */
    partition_command(partition, 2, 3, 1, "Set", number_payload(77));                              /* 6 */
    partition_command(partition, 2, 3, UINT64_C(1) << 40, "CompareAndSet", numbers_payload(1, 2)); /* 7: fails */
    struct duration ttl = duration_of(MR_SECOND);
    partition_command(partition, 2, 4, 3, "Put", write_payload("k", text("v"), &ttl, 0)); /* 8 */
    partition_command(partition, 2, 3, 2, "Increment", number_payload(1));                /* 9 */
    partition_keep_alive(partition, 2, no_filter, 1);                                     /* 10 */
    return partition;
}

static const char *spec_name(const Atomix__Multiraft__V1__ServiceSnapshot *service)
{
    static char name[32];
    memcpy(name, service->spec->name.data, service->spec->name.len);
    name[service->spec->name.len] = '\0';
    return name;
}

static void another_reader(void **state)
{
    (void)state;
    struct partition *partition = build();
    size_t size;
    uint8_t *dump = partition_dump(partition, &size);
    Atomix__Multiraft__V1__PartitionSnapshot *snapshot =
        atomix__multiraft__v1__partition_snapshot__unpack(NULL, partition_snapshot_size(partition), dump);
    assert_non_null(snapshot);
    assert_int_equal(snapshot->index, 10);
    assert_int_equal(snapshot->timestamp->seconds, 5);
    assert_int_equal(snapshot->timestamp->nanos, 6);

    assert_int_equal(snapshot->n_sessions, 2);
    assert_int_equal(snapshot->sessions[0]->session_id, 1);
    assert_int_equal(snapshot->sessions[0]->timeout->seconds, 20);
    assert_int_equal(snapshot->sessions[0]->timeout->nanos, 1);
    assert_int_equal(snapshot->sessions[0]->last_updated->seconds, 5);
    assert_int_equal(snapshot->sessions[0]->n_commands, 0);
    const Atomix__Multiraft__V1__SessionSnapshot *session = snapshot->sessions[1];
    assert_int_equal(session->session_id, 2);
    assert_int_equal(session->n_commands, 3);
    static const uint64_t numbers[] = {2, 3, UINT64_C(1) << 40};
    for (unsigned i = 0; i < 3; i++) {
        const Atomix__Multiraft__V1__CommandSnapshot *command = session->commands[i];
        assert_int_equal(command->command_sequence_num, numbers[i]);
        assert_int_equal(command->state, ATOMIX__MULTIRAFT__V1__COMMAND_STATE__COMMAND_COMPLETE);
        assert_null(command->input);
        assert_int_equal(command->n_pending_outputs, 1);
        assert_int_equal(command->pending_outputs[0]->sequence_num, 1);
        assert_int_equal(command->pending_outputs[0]->operation->status, i == 2 ? STATUS_CONFLICT : STATUS_OK);
    }
    const ProtobufCBinaryData *message = &session->commands[2]->pending_outputs[0]->operation->message;
    assert_int_equal(message->len, strlen("the value is 77, not 1"));
    assert_memory_equal(message->data, "the value is 77, not 1", message->len);
    const ProtobufCBinaryData *payload = &session->commands[1]->pending_outputs[0]->operation->payload;
    Atomix__Multiraft__Map__V1__PutOutput *put =
        atomix__multiraft__map__v1__put_output__unpack(NULL, payload->len, payload->data);
    assert_non_null(put);
    assert_int_equal(put->entry->index, 8);
    assert_int_equal(put->entry->value->ttl->seconds, 1);
    atomix__multiraft__map__v1__put_output__free_unpacked(put, NULL);

    assert_int_equal(snapshot->n_services, 2);
    const Atomix__Multiraft__V1__ServiceSnapshot *counter = snapshot->services[0], *map = snapshot->services[1];
    assert_int_equal(counter->service_id, 3);
    assert_string_equal(spec_name(counter), "counter");
    assert_int_equal(counter->n_sessions, 1);
    assert_int_equal(counter->sessions[0], 2);
    Atomix__Multiraft__Counter__V1__CounterSnapshot *number =
        atomix__multiraft__counter__v1__counter_snapshot__unpack(NULL, counter->data.len, counter->data.data);
    assert_int_equal(number->value, 78);
    atomix__multiraft__counter__v1__counter_snapshot__free_unpacked(number, NULL);
    assert_string_equal(spec_name(map), "map");
    assert_int_equal(map->n_sessions, 2); /* by id, although the second opened it first */
    assert_int_equal(map->sessions[0], 1);
    assert_int_equal(map->sessions[1], 2);
    Atomix__Multiraft__Map__V1__MapSnapshot *entries =
        atomix__multiraft__map__v1__map_snapshot__unpack(NULL, map->data.len, map->data.data);
    assert_int_equal(entries->n_entries, 1);
    assert_int_equal(entries->entries[0]->key->index, 8);
    assert_int_equal(entries->entries[0]->value->expire->seconds, 6);
    assert_int_equal(entries->entries[0]->value->expire->nanos, 6);
    atomix__multiraft__map__v1__map_snapshot__free_unpacked(entries, NULL);
    atomix__multiraft__v1__partition_snapshot__free_unpacked(snapshot, NULL);
    free(dump);
    partition_destroy(partition);
}

static bool is_open(const Atomix__Multiraft__V1__CommandSnapshot *command)
{
    return command->state == ATOMIX__MULTIRAFT__V1__COMMAND_STATE__COMMAND_OPEN;
}

static void assert_command(const Millrace__V1__CommandExtra *command, uint64_t sequence_num, uint64_t index,
                           uint64_t last_output, bool stream)
{
    assert_int_equal(command->sequence_num, sequence_num);
    assert_int_equal(command->index, index);
    assert_int_equal(command->last_output, last_output);
    assert_int_equal(command->stream, stream);
}

static void check_extra(const uint8_t *bytes, size_t size)
{
    Millrace__V1__SnapshotExtra *extra = millrace__v1__snapshot_extra__unpack(NULL, size, bytes);
    assert_non_null(extra);
    assert_int_equal(extra->session_output_limit, 1000000);
    assert_int_equal(extra->n_sessions, 2);
    const Millrace__V1__SessionExtra *first = extra->sessions[0], *second = extra->sessions[1];
    assert_int_equal(first->session_id, 1);
    assert_int_equal(first->uid, 5);
    assert_int_equal(first->given_up, 11);
    assert_int_equal(first->highest, 11);
    assert_int_equal(first->n_commands, 3);
    assert_command(first->commands[0], 2, 7, 1, false);
    assert_command(first->commands[1], 3, 8, 1, false);
    assert_command(first->commands[2], 9, 5, 3, true);
    assert_int_equal(second->session_id, 2);
    assert_int_equal(second->given_up, 0);
    assert_int_equal(second->highest, 9);
    assert_int_equal(second->n_commands, 1);
    assert_command(second->commands[0], 9, 6, 4, true);
    millrace__v1__snapshot_extra__free_unpacked(extra, NULL);
}

/* Commands with many outputs: one open, with what is not acknowledged; one that was ended. */
static void streams(void **state)
{
    (void)state;
    struct partition *partition = partition_create(7, 1000000);
    partition->uid = 5;
    partition_open_session(partition, MR_HOUR);              /* 1 */
    partition_open_session(partition, MR_HOUR);              /* 2 */
    partition_create_service(partition, 1, MAP_TYPE, "map"); /* 3 */
    partition_create_service(partition, 2, MAP_TYPE, "map"); /* 4 */
    struct payload events = events_payload("k", false);
    for (uint64_t session = 1; session <= 2; session++) { /* 5, 6 */
        request_command(&partition->request, session, 3, 9, "Events", payload_slice(&events));
        partition_submit(partition);
    }
    partition_command(partition, 1, 3, 2, "Put", write_payload("k", text("v"), NULL, 0)); /* 7 */
    partition_command(partition, 1, 3, 3, "Put", write_payload("k", text("w"), NULL, 0)); /* 8 */
    uint8_t everything[10] = {1, 1, 255, 255, 255, 255, 255, 255, 255, 255};
    static const struct last_output first = {9, 1};
    request_keep_alive(&partition->request, 1, (struct slice){everything, 10}, 11, &first, 1); /* 9 */
    partition_apply(partition);
    request_close_service(&partition->request, 2, 3); /* 10 */
    partition_apply(partition);

    size_t size;
    uint8_t *dump = partition_dump(partition, &size);
    size_t snapshot_size = partition_snapshot_size(partition);
    check_extra(dump + snapshot_size, size - snapshot_size);
    Atomix__Multiraft__V1__PartitionSnapshot *snapshot =
        atomix__multiraft__v1__partition_snapshot__unpack(NULL, snapshot_size, dump);
    assert_non_null(snapshot);
    assert_int_equal(snapshot->sessions[0]->n_commands, 3);
    assert_false(is_open(snapshot->sessions[0]->commands[0]));
    const Atomix__Multiraft__V1__CommandSnapshot *open = snapshot->sessions[0]->commands[2];
    assert_int_equal(open->command_sequence_num, 9);
    assert_true(is_open(open));
    assert_non_null(open->input);
    assert_int_equal(open->input->service_id, 3);
    assert_int_equal(open->input->sequence_num, 9);
    assert_int_equal(open->input->operation->name.len, 6);
    assert_memory_equal(open->input->operation->name.data, "Events", 6);
    assert_int_equal(open->input->operation->payload.len, events.size);
    assert_memory_equal(open->input->operation->payload.data, events.data, events.size);
    assert_int_equal(open->n_pending_outputs, 2); /* the first has been acknowledged */
    assert_int_equal(open->pending_outputs[0]->sequence_num, 2);
    assert_int_equal(open->pending_outputs[1]->sequence_num, 3);
    const ProtobufCBinaryData *payload = &open->pending_outputs[1]->operation->payload;
    Atomix__Multiraft__Map__V1__EventsOutput *output =
        atomix__multiraft__map__v1__events_output__unpack(NULL, payload->len, payload->data);
    assert_int_equal(output->event->type, ATOMIX__MULTIRAFT__MAP__V1__EVENT__TYPE__UPDATE);
    assert_int_equal(output->event->entry->index, 8);
    atomix__multiraft__map__v1__events_output__free_unpacked(output, NULL);

    assert_int_equal(snapshot->sessions[1]->n_commands, 1);
    const Atomix__Multiraft__V1__CommandSnapshot *ended = snapshot->sessions[1]->commands[0];
    assert_false(is_open(ended));
    assert_null(ended->input);
    assert_int_equal(ended->n_pending_outputs, 4);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(ended->pending_outputs[i]->sequence_num, i + 1);
    assert_int_equal(ended->pending_outputs[3]->operation->status, STATUS_CANCELED);
    const ProtobufCBinaryData *data = &snapshot->services[0]->data;
    Atomix__Multiraft__Map__V1__MapSnapshot *map =
        atomix__multiraft__map__v1__map_snapshot__unpack(NULL, data->len, data->data);
    assert_int_equal(map->n_listeners, 1);
    assert_int_equal(map->listeners[0]->index, 5);
    assert_int_equal(map->n_entries, 1);
    atomix__multiraft__map__v1__map_snapshot__free_unpacked(map, NULL);
    atomix__multiraft__v1__partition_snapshot__free_unpacked(snapshot, NULL);
    free(dump);
    partition_destroy(partition);
}

/* One last step that makes a state differ; each must differ from all others, in nothing but what it does. */
static void differ(struct partition *partition, unsigned way)
{
    static const struct payload none;
    uint8_t everything[10] = {1, 1, 255, 255, 255, 255, 255, 255, 255, 255};
    struct slice all = {everything, sizeof(everything)};
    static const struct last_output second = {2, 1};
    switch (way) {
    case 0:
        partition_keep_alive(partition, 2, all, 1); /* only the index: it was renewed at this time before */
        break;
    case 1:
        partition_keep_alive(partition, 2, all, 5); /* only the floor */
        break;
    case 2:
        request_keep_alive(&partition->request, 2, all, 5, &second, 1);
        partition_apply(partition);
        break;
    case 3:
        partition_keep_alive(partition, 2, no_filter, 2);
        break;
    case 4:
        partition_command(partition, 2, 3, 9, "Set", number_payload(78)); /* the counter as it was */
        break;
    case 5:
        partition_command(partition, 2, 3, 9, "Nothing", none);
        break;
    case 6:
        partition_create_service(partition, 1, COUNTER_TYPE, "counter");
        break;
    case 7:
        partition->uid = 5;
        partition_open_session(partition, MR_SECOND);
        break;
    case 8:
        partition->uid = 6;
        partition_open_session(partition, MR_SECOND);
        break;
    case 9:
        partition_tick(partition, partition->time + 1);
        break;
    }
}
enum { WAYS = 10 };

static void differences_show(void **state)
{
    (void)state;
    uint8_t *dumps[WAYS];
    size_t sizes[WAYS];
    for (unsigned way = 0; way < WAYS; way++) {
        struct partition *partition = build(), *twin = build();
        differ(partition, way);
        differ(twin, way);
        dumps[way] = partition_dump(partition, &sizes[way]);
        size_t size;
        uint8_t *same = partition_dump(twin, &size);
        assert_int_equal(size, sizes[way]);
        assert_memory_equal(same, dumps[way], size);
        free(same);
        partition_destroy(partition);
        partition_destroy(twin);
        for (unsigned i = 0; i < way; i++)
            assert_false(sizes[i] == sizes[way] && memcmp(dumps[i], dumps[way], sizes[i]) == 0);
    }
    for (unsigned way = 0; way < WAYS; way++)
        free(dumps[way]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(another_reader), cmocka_unit_test(streams),
                                       cmocka_unit_test(differences_show)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
