/* SPDX-License-Identifier: Apache-2.0 */
/* How often a payload is copied on its way through a worker: once from the request ring to where it is persisted and
 * applied, once more where a map keeps it, once into the response ring; nowhere else, and not at all where what is kept
 * can be shared. The linker puts functions of this file in place of memcpy() and memmove() (test_copies.ldflags), and
 * they note who copies what while the worker has its turns. The disk's own copying, which this machine in memory does
 * with the same functions, is left out: a real one does that without the processor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/reader.h"
#include "tests/support/requests.h"
#include "tests/support/worker_harness.h"

#define RING MR_MIB
#define VALUE (150 * MR_KIB)
#define LARGE (VALUE / 2) /* a copy of at least so many bytes is one of the payload */
#define USER 1000
#define COPIES_MAX 16

/* ---- memcpy and memmove ---- */

struct copy {
    const uint8_t *to, *from;
    size_t size;
};

static struct {
    bool watching;
    struct copy large[COPIES_MAX];
    unsigned large_count; /* may be over COPIES_MAX */
    size_t small_bytes;   /* in all smaller copies together: a payload may not go by in pieces either */
} seen;

static void note(const void *to, const void *from, size_t size)
{
    if (!seen.watching)
        return;
    if (size < LARGE) {
        seen.small_bytes += size;
        return;
    }
    if (seen.large_count < COPIES_MAX)
        seen.large[seen.large_count] = (struct copy){.to = to, .from = from, .size = size};
    seen.large_count++;
}

void *__real_memcpy(void *to, const void *from, size_t size);
void *__real_memmove(void *to, const void *from, size_t size);
void *__wrap_memcpy(void *to, const void *from, size_t size);
void *__wrap_memmove(void *to, const void *from, size_t size);
void *__wrap___memcpy_chk(void *to, const void *from, size_t size, size_t room);
void *__wrap___memmove_chk(void *to, const void *from, size_t size, size_t room);
void *__wrap___asan_memcpy(void *to, const void *from, size_t size);
void *__wrap___asan_memmove(void *to, const void *from, size_t size);

void *__wrap_memcpy(void *to, const void *from, size_t size)
{
    note(to, from, size);
    return __real_memcpy(to, from, size);
}

void *__wrap_memmove(void *to, const void *from, size_t size)
{
    note(to, from, size);
    return __real_memmove(to, from, size);
}

/* What compilers call instead with _FORTIFY_SOURCE, and clang with AddressSanitizer. */
void *__wrap___memcpy_chk(void *to, const void *from, size_t size, size_t room)
{
    mr_assert(size <= room);
    return __wrap_memcpy(to, from, size);
}

void *__wrap___memmove_chk(void *to, const void *from, size_t size, size_t room)
{
    mr_assert(size <= room);
    return __wrap_memmove(to, from, size);
}

void *__wrap___asan_memcpy(void *to, const void *from, size_t size)
{
    return __wrap_memcpy(to, from, size);
}

void *__wrap___asan_memmove(void *to, const void *from, size_t size)
{
    return __wrap_memmove(to, from, size);
}

/* ---- the disk ---- */

/* The io's own functions, between which ours stand. */
static const struct io_ops *disk;
static struct io_ops watched_disk;
static const uint8_t *written; /* the buffer of the last large write */
static size_t written_size;

static void disk_write(struct io *io, int file, const void *buffer, size_t size, uint64_t offset, bool durable,
                       uint64_t token)
{
    bool watching = seen.watching;

    if (size >= LARGE) {
        written = buffer;
        written_size = size;
    }
    seen.watching = false;
    disk->write(io, file, buffer, size, offset, durable, token);
    seen.watching = watching;
}

static unsigned disk_completions(struct io *io, struct io_completion *completions, unsigned count)
{
    bool watching = seen.watching;

    seen.watching = false;
    unsigned found = disk->completions(io, completions, count);
    seen.watching = watching;
    return found;
}

static void stand_between(struct io *io)
{
    disk = io->ops;
    watched_disk = *disk;
    watched_disk.write = disk_write;
    watched_disk.completions = disk_completions;
    io->ops = &watched_disk;
}

/* ---- the scene ---- */

struct scene {
    struct harness *harness;
    struct harness_client *client;
    struct request request;
    uint64_t session, map;
    uint8_t *value; /* VALUE bytes that nobody else has */
};

static uint64_t send_request(struct scene *scene, enum frame_kind kind)
{
    uint64_t position = harness_send(scene->client, kind, scene->request.bytes, scene->request.size, 0);

    assert_int_not_equal(position, UINT64_MAX);
    return position;
}

static uint64_t id_of(struct scene *scene)
{
    struct harness_frame frame;
    struct command_output output;
    struct slice part;
    uint64_t position = send_request(scene, FRAME_COMMAND);

    harness_settle(scene->harness);
    assert_true(harness_take(scene->client, &frame));
    assert_int_equal(frame.head.request, position);
    assert_int_equal(frame.head.status, STATUS_OK);
    assert_int_equal(read_partition_command_output(frame.body, frame.head.size, &output, &part), READ_OK);
    return output.id;
}

static void begin(struct scene *scene, enum durability durability)
{
    *scene = (struct scene){.harness = harness_create(1), .value = malloc(VALUE)};
    assert_non_null(scene->value);
    for (size_t i = 0; i < VALUE; i++)
        scene->value[i] = (uint8_t)(i * 131 + (i >> 8) * 17 + (i >> 16));
    scene->harness->durability = durability;
    scene->harness->max_payload = RING / 4;
    scene->harness->segment_bytes = 4 * RING;
    scene->harness->new_io = stand_between;
    if (harness_start(scene->harness) != 0)
        fail_msg("%s", scene->harness->error.text);
    scene->client = harness_client(scene->harness, 0, USER, RING);
    request_open_session(&scene->request, (struct duration){.seconds = 10, .present = true});
    scene->session = id_of(scene);
    request_create_service(&scene->request, scene->session, MAP_TYPE, "", "map");
    scene->map = id_of(scene);
}

static void end(struct scene *scene)
{
    request_free(&scene->request);
    harness_destroy(scene->harness);
    free(scene->value);
}

/* Put of the value, or Get and Remove of it. */
static void make_put(struct scene *scene, uint64_t sequence_num)
{
    struct slice value = {scene->value, VALUE}, key = text("key");
    size_t inner = field_bytes_size(1, value.size);
    size_t size = field_bytes_size(1, key.size) + field_message_head_size(2, inner) + inner;
    uint8_t *payload = malloc(size);

    assert_non_null(payload);
    uint8_t *at = field_write_message_head(field_write_bytes(payload, 1, key), 2, inner);
    assert_ptr_equal(field_write_bytes(at, 1, value), payload + size);
    request_command(&scene->request, scene->session, scene->map, sequence_num, "Put", (struct slice){payload, size});
    free(payload);
}

static uint64_t send_put(struct scene *scene, uint64_t sequence_num)
{
    make_put(scene, sequence_num);
    return send_request(scene, FRAME_COMMAND);
}

static uint64_t send_remove(struct scene *scene, uint64_t sequence_num)
{
    struct payload payload = key_payload("key", 0);

    request_command(&scene->request, scene->session, scene->map, sequence_num, "Remove", payload_slice(&payload));
    return send_request(scene, FRAME_COMMAND);
}

static uint64_t send_get(struct scene *scene)
{
    struct payload payload = key_payload("key", 0);

    request_query(&scene->request, scene->session, scene->map, "Get", payload_slice(&payload));
    return send_request(scene, FRAME_QUERY);
}

/* The worker's turns, watched. `large` is how many large copies there must be. */
static void watch(struct scene *scene, unsigned large)
{
    memset(&seen, 0, sizeof(seen));
    written = NULL;
    seen.watching = true;
    harness_settle(scene->harness);
    seen.watching = false;
    assert_int_equal(seen.large_count, large);
    assert_true(seen.small_bytes < LARGE / 8);
}

/* Where the value stands in this large copy; *from or *to it is copied. */
static size_t value_in(const struct scene *scene, const uint8_t *bytes, size_t size)
{
    const uint8_t *at = memmem(bytes, size, scene->value, VALUE);

    assert_non_null(at);
    return (size_t)(at - bytes);
}

static bool is_within(const uint8_t *at, size_t size, const void *region, size_t region_size)
{
    return at >= (const uint8_t *)region && at + size <= (const uint8_t *)region + region_size;
}

static bool is_in_request_ring(const struct scene *scene, const uint8_t *at, size_t size)
{
    return is_within(at, size, scene->harness->worker.channels[0].channel.request_data, 2 * RING);
}

static bool is_in_response_ring(const struct scene *scene, const uint8_t *at, size_t size)
{
    return is_within(at, size, scene->harness->worker.channels[0].channel.response_data, 2 * RING);
}

/* Does the value stand in what the supervisor holds of the log? */
static bool is_in_memory_log(const struct scene *scene)
{
    size_t size = scene->harness->segment_bytes;
    uint8_t *segment = malloc(size);
    bool found = false;

    assert_non_null(segment);
    for (uint32_t i = 0; i < scene->harness->memory_count; i++) {
        assert_int_equal(pread(scene->harness->memory_segments[i], segment, size, 0), size);
        found |= memmem(segment, size, scene->value, VALUE) != NULL;
    }
    free(segment);
    return found;
}

/* The n-th copy brings the whole frame's body from the request ring to where it was persisted from. */
static const struct copy *expect_to_batch(const struct scene *scene, unsigned n)
{
    const struct copy *copy = &seen.large[n];

    assert_true(is_in_request_ring(scene, copy->from, copy->size));
    assert_int_equal(copy->size, scene->request.size);
    if (scene->harness->durability == DURABILITY_MEMORY) {
        assert_null(written); /* the batch is built where it stays */
        assert_true(is_in_memory_log(scene));
    } else {
        assert_non_null(written);
        assert_true(is_within(copy->to, copy->size, written, written_size));
    }
    return copy;
}

/* The n-th copy brings the value, and nothing else, from these bytes to the response ring; it stands in its frame, from
 * where the client takes it. */
static void expect_to_response(struct scene *scene, unsigned n, const uint8_t *from, uint64_t position)
{
    const struct copy *copy = &seen.large[n];
    struct harness_frame frame;
    const uint8_t *at = NULL;

    assert_ptr_equal(copy->from, from);
    assert_int_equal(copy->size, VALUE);
    assert_true(is_in_response_ring(scene, copy->to, copy->size));
    assert_int_equal(ring_peek(&scene->client->responses, VALUE, &at), RING_OK);
    size_t offset = value_in(scene, at, VALUE + MR_KIB);
    /* The worker's mapping of the same place. */
    const uint8_t *data = scene->harness->worker.channels[0].channel.response_data;
    assert_int_equal((size_t)(copy->to - data) % RING,
                     (size_t)(at + offset - scene->client->channel.response_data) % RING);
    assert_true(harness_take(scene->client, &frame));
    assert_int_equal(frame.head.request, position);
    assert_int_equal(frame.head.status, STATUS_OK);
    assert_false(harness_take(scene->client, &frame));
}

/* Ring to batch, batch to what the map keeps, and from there to the response ring. Gives where the map keeps it. */
static const uint8_t *expect_put(struct scene *scene, uint64_t position)
{
    const struct copy *batch = expect_to_batch(scene, 0), *kept = &seen.large[1];

    assert_true(is_within(kept->from, kept->size, batch->to, batch->size));
    assert_int_equal(kept->size, VALUE);
    assert_int_equal((size_t)(kept->from - batch->to), value_in(scene, scene->request.bytes, scene->request.size));
    assert_false(is_in_request_ring(scene, kept->to, kept->size));
    assert_false(is_in_response_ring(scene, kept->to, kept->size));
    expect_to_response(scene, 2, kept->to, position);
    return kept->to;
}

/* ---- the tests ---- */

static void follow_a_payload(enum durability durability)
{
    struct scene scene;

    begin(&scene, durability);
    uint64_t position = send_put(&scene, 1);
    watch(&scene, 3);
    const uint8_t *kept = expect_put(&scene, position);

    /* The same command again: it is logged like any other, and answered from what the session shares with the map. */
    position = send_request(&scene, FRAME_COMMAND);
    watch(&scene, 2);
    expect_to_batch(&scene, 0);
    expect_to_response(&scene, 1, kept, position);

    position = send_get(&scene);
    watch(&scene, 1);
    expect_to_response(&scene, 0, kept, position);

    position = send_remove(&scene, 2);
    watch(&scene, 1);
    expect_to_response(&scene, 0, kept, position);

    /* The entry is gone; the stored output of its removal still has it. */
    position = send_remove(&scene, 2);
    watch(&scene, 1);
    expect_to_response(&scene, 0, kept, position);
    end(&scene);
}

static void copied_three_times_in_sync(void **state)
{
    (void)state;
    follow_a_payload(DURABILITY_SYNC);
}

static void copied_three_times_in_async(void **state)
{
    (void)state;
    follow_a_payload(DURABILITY_ASYNC);
}

static void copied_three_times_in_memory(void **state)
{
    (void)state;
    follow_a_payload(DURABILITY_MEMORY);
}

/* An answer for which there is no room is not kept in a copy: it comes out of the session when there is. */
static void an_answer_that_waits_is_not_copied(void **state)
{
    struct scene scene;
    struct harness_frame frame;
    uint64_t positions[8];
    const uint8_t *kept = NULL;
    unsigned sent = 0;

    (void)state;
    begin(&scene, DURABILITY_SYNC);
    for (bool waits = false; !waits;) {
        assert_true(sent < 8);
        positions[sent] = send_put(&scene, sent + 1);
        sent++;
        memset(&seen, 0, sizeof(seen));
        seen.watching = true;
        harness_settle(scene.harness);
        seen.watching = false;
        assert_in_range(seen.large_count, 2, 3);
        waits = seen.large_count == 2;
        kept = seen.large[1].to;
    }
    assert_true(sent > 1);
    for (unsigned i = 0; i + 1 < sent; i++) {
        assert_true(harness_take(scene.client, &frame));
        assert_int_equal(frame.head.request, positions[i]);
    }
    assert_false(harness_take(scene.client, &frame));
    watch(&scene, 1);
    expect_to_response(&scene, 0, kept, positions[sent - 1]);
    end(&scene);
}

/* What is refused got no further than the batch, and left it. */
static void a_refused_payload_is_copied_once(void **state)
{
    struct scene scene;
    struct harness_frame frame;

    (void)state;
    begin(&scene, DURABILITY_SYNC);
    make_put(&scene, 1);
    memset(scene.request.bytes, 0xff, 16);
    uint64_t position = send_request(&scene, FRAME_COMMAND);
    watch(&scene, 1);
    assert_true(is_in_request_ring(&scene, seen.large[0].from, seen.large[0].size));
    assert_null(written);
    assert_true(harness_take(scene.client, &frame));
    assert_int_equal(frame.head.request, position);
    assert_int_equal(frame.head.status, STATUS_INVALID);
    end(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copied_three_times_in_sync),       cmocka_unit_test(copied_three_times_in_async),
        cmocka_unit_test(copied_three_times_in_memory),     cmocka_unit_test(an_answer_that_waits_is_not_copied),
        cmocka_unit_test(a_refused_payload_is_copied_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
