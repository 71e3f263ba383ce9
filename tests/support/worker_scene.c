/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/worker_scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/reader.h"
#include "tests/support/sudden_death.h"

struct command_output scene_output(const struct harness_frame *frame, struct slice *part)
{
    struct command_output output;

    assert_int_equal(frame->head.status, STATUS_OK);
    assert_true(frame->head.size <= sizeof(frame->body));
    assert_int_equal(read_partition_command_output(frame->body, frame->head.size, &output, part), READ_OK);
    return output;
}

int64_t scene_number(const struct harness_frame *frame)
{
    struct slice part;
    struct command_output output = scene_output(frame, &part);
    struct field_reader reader = field_reader(part);

    assert_int_equal(output.operation.status, STATUS_OK);
    while (field_next(&reader))
        if (reader.tag == FIELD(1, WIRE_VARINT))
            return (int64_t)reader.value;
    return 0;
}

uint64_t scene_send(struct scene *scene, enum frame_kind kind)
{
    return harness_send(scene->client, kind, scene->request.bytes, scene->request.size, 0);
}

uint64_t scene_increment(struct scene *scene, uint64_t sequence_num)
{
    struct payload payload = number_payload(1);
    request_command(&scene->request, scene->session, scene->counter, sequence_num, "Increment",
                    payload_slice(&payload));
    return scene_send(scene, FRAME_COMMAND);
}

uint64_t scene_put(struct scene *scene, uint64_t sequence_num, size_t value_size)
{
    static uint8_t value[2048];
    struct payload payload = write_payload("key", (struct slice){value, value_size}, NULL, 0);
    request_command(&scene->request, scene->session, scene->map, sequence_num, "Put", payload_slice(&payload));
    return scene_send(scene, FRAME_COMMAND);
}

void scene_put_large(struct scene *scene, const char *key, size_t value_bytes)
{
    static uint8_t value[10000];
    static uint8_t body[16384];
    struct harness_frame frame;
    uint8_t *at = field_write_bytes(body, 1, text(key));

    assert_true(value_bytes <= sizeof(value));
    at = field_write_message_head(at, 2, field_bytes_size(1, value_bytes));
    at = field_write_bytes(at, 1, (struct slice){value, value_bytes});
    request_command(&scene->request, scene->session, scene->map, scene->next++, "Put",
                    (struct slice){body, (size_t)(at - body)});
    uint64_t put = scene_send(scene, FRAME_COMMAND);
    harness_settle(scene->harness);
    scene_take(scene, put, &frame);
    assert_int_equal(frame.head.status, STATUS_OK);
}

uint64_t scene_listen(struct scene *scene, uint64_t sequence_num, const char *key, bool replay)
{
    struct payload payload = events_payload(key, replay);
    request_command(&scene->request, scene->session, scene->map, sequence_num, "Events", payload_slice(&payload));
    return scene_send(scene, FRAME_COMMAND);
}

uint64_t scene_entries(struct scene *scene)
{
    struct payload nothing = {.size = 0};
    request_query(&scene->request, scene->session, scene->map, "Entries", payload_slice(&nothing));
    return scene_send(scene, FRAME_QUERY);
}

void scene_take(struct scene *scene, uint64_t position, struct harness_frame *frame)
{
    assert_true(harness_take(scene->client, frame));
    assert_int_equal(frame->head.request, position);
}

uint64_t scene_id(struct scene *scene)
{
    struct harness_frame frame;
    struct slice part;
    uint64_t position = scene_send(scene, FRAME_COMMAND);

    harness_settle(scene->harness);
    scene_take(scene, position, &frame);
    assert_int_equal(frame.head.flags, FRAME_LAST);
    return scene_output(&frame, &part).id;
}

void scene_open_all(struct scene *scene)
{
    request_open_session(&scene->request, (struct duration){.seconds = 10, .present = true});
    scene->session = scene_id(scene);
    request_create_service(&scene->request, scene->session, COUNTER_TYPE, "", "counter");
    scene->counter = scene_id(scene);
    request_create_service(&scene->request, scene->session, MAP_TYPE, "", "map");
    scene->map = scene_id(scene);
    scene->next = 1;
}

static void start_worker(const struct scene *scene)
{
    if (harness_start(scene->harness) != 0)
        fail_msg("%s", scene->harness->error.text);
}

void scene_start(struct scene *scene, uint64_t ring_bytes)
{
    start_worker(scene);
    scene->client = harness_client(scene->harness, 0, SCENE_USER, ring_bytes);
    scene_open_all(scene);
}

void scene_begin(struct scene *scene, enum durability durability, uint64_t ring_bytes)
{
    *scene = (struct scene){.harness = harness_create(1)};
    scene->harness->durability = durability;
    scene_start(scene, ring_bytes);
}

bool scene_lives(struct scene *scene, struct countdown *death, unsigned calls, void (*work)(void *context),
                 void *context)
{
    if (setjmp(death->out) != 0) {
        harness_kill(scene->harness);
        return false;
    }
    death->calls = calls;
    if (scene->harness->io == NULL)
        start_worker(scene);
    work(context);
    death->calls = 0;
    return true;
}

struct scene scene_beside(const struct scene *scene, uint32_t slot, uint64_t ring_bytes)
{
    struct scene other = *scene;
    other.request = (struct request){.bytes = NULL};
    other.client = harness_client(scene->harness, slot, SCENE_USER, ring_bytes);
    return other;
}

void scene_end(struct scene *scene)
{
    request_free(&scene->request);
    harness_destroy(scene->harness);
}
