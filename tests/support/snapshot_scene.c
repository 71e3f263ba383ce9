/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/snapshot_scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void snapshot_scene_begin(struct scene *scene, enum durability durability, uint64_t every)
{
    *scene = (struct scene){.harness = harness_create(1)};
    scene->harness->durability = durability;
    scene->harness->snapshot_bytes = every;
    assert_int_equal(harness_start(scene->harness), 0);
    scene->client = harness_client(scene->harness, 0, SCENE_USER, SNAPSHOT_SCENE_RING);
    scene_open_all(scene);
}

void snapshot_scene_restart(struct scene *scene)
{
    harness_kill(scene->harness);
    if (harness_start(scene->harness) != 0)
        fail_msg("%s", scene->harness->error.text);
    harness_settle(scene->harness);
}

bool snapshot_scene_put(struct scene *scene)
{
    struct harness_frame frame;
    uint64_t position = scene_put(scene, scene->next, 1000);

    harness_settle(scene->harness);
    scene_take(scene, position, &frame);
    if (frame.head.status != STATUS_OK) {
        assert_int_equal(frame.head.status, STATUS_UNAVAILABLE);
        return false;
    }
    scene->next++;
    return true;
}

enum status snapshot_scene_acknowledge(struct scene *scene)
{
    struct harness_frame frame;

    request_keep_alive(&scene->request, scene->session, (struct slice){NULL, 0}, scene->next - 1, NULL, 0);
    scene_send(scene, FRAME_COMMAND);
    harness_settle(scene->harness);
    assert_true(harness_take(scene->client, &frame));
    return frame.head.status;
}

void snapshot_scene_puts(struct scene *scene, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_true(snapshot_scene_put(scene));
    assert_int_equal(snapshot_scene_acknowledge(scene), STATUS_OK);
}

unsigned snapshot_names(struct harness *harness, char names[SNAPSHOT_SCENE_MOST][SNAPSHOT_NAME_SIZE])
{
    const char *name;
    unsigned count = 0;

    for (unsigned i = 0; (name = fake_file_name(harness->machine, PARTITION_FOLDER, i)) != NULL; i++) {
        if (strncmp(name, "snapshot-", 9) != 0 || strncmp(name, "snapshot-new-", 13) == 0)
            continue;
        assert_true(count < SNAPSHOT_SCENE_MOST);
        unsigned at = count++;
        for (; at > 0 && strcmp(names[at - 1], name) > 0; at--)
            strcpy(names[at], names[at - 1]);
        snprintf(names[at], SNAPSHOT_NAME_SIZE, "%s", name);
    }
    return count;
}

uint64_t snapshot_newest(const struct harness *harness)
{
    return harness->worker.snapshots.known_count > 0 ? harness->worker.snapshots.known[0].point.index : 0;
}

static void add(void *context, const void *data, size_t size)
{
    struct state_dump *dump = context;

    dump->bytes = realloc(dump->bytes, dump->size + size);
    assert_non_null(dump->bytes);
    memcpy(dump->bytes + dump->size, data, size);
    dump->size += size;
}

struct state_dump state_dump(struct harness *harness)
{
    struct state_dump dump = {.bytes = NULL};

    fsm_dump(harness->worker.fsm, add, &dump);
    return dump;
}

void assert_same_state(struct harness *harness, struct state_dump *before)
{
    struct state_dump now = state_dump(harness);

    assert_int_equal(now.size, before->size);
    assert_memory_equal(now.bytes, before->bytes, now.size);
    free(now.bytes);
    free(before->bytes);
    before->bytes = NULL;
}
