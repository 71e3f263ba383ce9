/* SPDX-License-Identifier: Apache-2.0 */
/* The ring, step by step in one thread: every position of the wrap, full and empty, and every cursor that cannot be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/channel.h"
#include "ipc/ring.h"

/* A channel's request ring, for its two mappings in a row. */
struct fixture {
    struct channel channel;
    struct ring_writer writer;
    struct ring_reader reader;
    struct ring_cursors *cursors;
    uint64_t capacity;
};

static size_t copies; /* calls of memcpy() since set to 0: see test_ring.ldflags */

void *__real_memcpy(void *to, const void *from, size_t size);
void *__wrap_memcpy(void *to, const void *from, size_t size);
void *__wrap_memcpy(void *to, const void *from, size_t size)
{
    copies++;
    return __real_memcpy(to, from, size);
}

/* Both ends at `position`, nothing in the ring. */
static void attach_at(struct fixture *f, uint64_t position)
{
    ring_writer_attach(&f->writer, f->channel.request_data, f->capacity, f->cursors, position, position);
    ring_reader_attach(&f->reader, f->channel.request_data, f->capacity, f->cursors, position, position);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct mr_error error;

    assert_non_null(f);
    f->capacity = channel_head_bytes(); /* the smallest possible */
    assert_int_equal(channel_create(&f->channel, 1, 1, f->capacity, -1, &error), 0);
    f->cursors = &f->channel.page->request;
    attach_at(f, 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    channel_unmap(&f->channel);
    free(f);
    return 0;
}

static uint8_t byte_at(uint64_t cursor)
{
    return (uint8_t)((cursor * 0x9e3779b97f4a7c15ULL) >> 56);
}

static void fill(uint8_t *at, uint64_t cursor, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        at[i] = byte_at(cursor + i);
}

static void check(const uint8_t *at, uint64_t cursor, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        assert_int_equal(at[i], byte_at(cursor + i));
}

static void write_one(struct fixture *f, uint64_t size)
{
    uint8_t *at = NULL;

    assert_int_equal(ring_reserve(&f->writer, size, &at), RING_OK);
    fill(at, f->writer.tail, size);
    ring_advance(&f->writer, size);
}

static void read_one(struct fixture *f, uint64_t size)
{
    const uint8_t *at = NULL;

    assert_int_equal(ring_peek(&f->reader, size, &at), RING_OK);
    check(at, f->reader.head, size);
    ring_skip(&f->reader, size);
}

static void expect_empty(struct fixture *f)
{
    const uint8_t *at = NULL;

    assert_int_equal(ring_peek(&f->reader, 1, &at), RING_EMPTY);
}

static void every_wrap_position(void **state)
{
    struct fixture *f = *state;
    const uint64_t sizes[] = {8, 24, 1000, f->capacity / 2 + 8, f->capacity - 8, f->capacity};
    uint64_t bytes;
    uint8_t *at = NULL;

    for (uint64_t start = 0; start < f->capacity; start += 8) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
            attach_at(f, start);
            write_one(f, sizes[i]);
            expect_empty(f);
            assert_false(ring_publish(&f->writer));
            assert_int_equal(ring_free(&f->writer, 0, &bytes), RING_OK);
            assert_int_equal(bytes, f->capacity - sizes[i]);
            assert_int_equal(ring_reserve(&f->writer, f->capacity - sizes[i] + 8, &at), RING_FULL);
            read_one(f, sizes[i]);
            expect_empty(f);
            assert_int_equal(ring_reserve(&f->writer, f->capacity - sizes[i] + 8, &at), RING_FULL);
            ring_release(&f->reader, f->reader.head);
            write_one(f, f->capacity);
            ring_publish(&f->writer);
            read_one(f, f->capacity);
        }
    }
}

static void cursors_count_over_the_end_of_64_bits(void **state)
{
    struct fixture *f = *state;

    attach_at(f, UINT64_MAX - 63);
    for (int i = 0; i < 100; i++) {
        write_one(f, 24);
        write_one(f, 40);
        ring_publish(&f->writer);
        read_one(f, 24);
        read_one(f, 40);
        ring_release(&f->reader, f->reader.head);
    }
    assert_int_equal(f->reader.head, 99 * 64);
}

static void fills_up_and_empties(void **state)
{
    struct fixture *f = *state;
    uint64_t frames = f->capacity / 32;
    uint64_t bytes;
    uint8_t *at = NULL;

    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < frames; i++)
            write_one(f, 32);
        assert_int_equal(ring_reserve(&f->writer, 1, &at), RING_FULL);
        assert_int_equal(ring_free(&f->writer, 8, &bytes), RING_OK);
        assert_int_equal(bytes, 0);
        ring_publish(&f->writer);
        for (uint64_t i = 0; i < frames; i++)
            read_one(f, 32);
        expect_empty(f);
        assert_int_equal(ring_reserve(&f->writer, 1, &at), RING_FULL);

        /* Room comes back frame by frame, not sooner. */
        ring_release(&f->reader, f->reader.released + 32);
        assert_int_equal(ring_reserve(&f->writer, 33, &at), RING_FULL);
        assert_int_equal(ring_reserve(&f->writer, 32, &at), RING_OK);
        ring_release(&f->reader, f->reader.head);
        assert_int_equal(ring_free(&f->writer, f->capacity, &bytes), RING_OK);
        assert_int_equal(bytes, f->capacity);
        assert_int_equal(ring_reserve(&f->writer, f->capacity + 1, &at), RING_FULL);
    }
}

static void what_is_skipped_stays_until_released(void **state)
{
    struct fixture *f = *state;
    const uint8_t *at = NULL;

    write_one(f, 64);
    write_one(f, 64);
    ring_publish(&f->writer);
    assert_int_equal(ring_peek(&f->reader, 64, &at), RING_OK);
    read_one(f, 64);
    read_one(f, 64);
    while (f->writer.tail - f->reader.released < f->capacity)
        write_one(f, 64);
    ring_publish(&f->writer);
    check(at, 0, 128);
    ring_release(&f->reader, 64);
    write_one(f, 64);
    check(at + 64, 64, 64);
}

/* Less than a whole frame where there is something at all: frames are published whole. */
static void part_of_a_frame_is_broken(void **state)
{
    struct fixture *f = *state;
    const uint8_t *at = NULL;

    write_one(f, 16);
    ring_publish(&f->writer);
    assert_int_equal(ring_peek(&f->reader, 17, &at), RING_BROKEN);
    assert_int_equal(ring_peek(&f->reader, UINT64_MAX, &at), RING_BROKEN);
    assert_int_equal(ring_peek(&f->reader, 16, &at), RING_OK);
}

/* For a cursor that stands at `from` and may go up to `to`, what cannot be; and around every edge, what can. */
static size_t cursors_to_try(uint64_t from, uint64_t to, uint64_t *out)
{
    const uint64_t distances[] = {0, 1, 7, 8, 9, 4095, 4096, 4097, 1ULL << 31, 1ULL << 32, 1ULL << 62, 1ULL << 63};
    size_t count = 0;

    for (size_t i = 0; i < sizeof(distances) / sizeof(*distances); i++) {
        out[count++] = from - distances[i];
        out[count++] = from + distances[i];
        out[count++] = to - distances[i];
        out[count++] = to + distances[i];
        out[count++] = distances[i];
        out[count++] = ~distances[i];
    }
    return count;
}

#define CURSORS_MAX 128

static void a_tail_that_cannot_be(void **state)
{
    struct fixture *f = *state;
    const uint64_t starts[] = {0, 8, 1ULL << 40, UINT64_MAX - 7, UINT64_MAX - 2047};
    uint64_t tails[CURSORS_MAX];
    unsigned refused = 0;
    unsigned accepted = 0;

    for (size_t s = 0; s < sizeof(starts) / sizeof(*starts); s++) {
        uint64_t released = starts[s];
        uint64_t known = released + 512;
        size_t count = cursors_to_try(known, released + f->capacity, tails);
        for (size_t i = 0; i < count; i++) {
            const uint8_t *at = NULL;
            attach_at(f, released);
            write_one(f, 512);
            ring_publish(&f->writer);
            read_one(f, 512);
            atomic_store(&f->cursors->tail, tails[i]);
            /* Counted from `released`, which cannot be fooled by the end of 64 bits. */
            bool possible = tails[i] - released >= 512 && tails[i] - released <= f->capacity;
            enum ring_result result = ring_peek(&f->reader, 1, &at);
            if (possible)
                assert_int_equal(result, tails[i] == known ? RING_EMPTY : RING_OK);
            else
                assert_int_equal(result, RING_BROKEN);
            assert_int_equal(f->reader.tail, possible ? tails[i] : known);
            *(possible ? &accepted : &refused) += 1;
        }
    }
    assert_true(refused > 100 && accepted > 50);
}

static void a_head_that_cannot_be(void **state)
{
    struct fixture *f = *state;
    const uint64_t starts[] = {0, 8, 1ULL << 40, UINT64_MAX - 7, UINT64_MAX - 2047};
    uint64_t heads[CURSORS_MAX];
    unsigned refused = 0;
    unsigned accepted = 0;

    for (size_t s = 0; s < sizeof(starts) / sizeof(*starts); s++) {
        uint64_t known = starts[s];
        uint64_t published = known + 1024;
        size_t count = cursors_to_try(known, published, heads);
        for (size_t i = 0; i < count; i++) {
            uint64_t bytes;
            uint8_t *at = NULL;
            attach_at(f, known);
            write_one(f, 1024);
            ring_publish(&f->writer);
            write_one(f, 512); /* not published: the reader cannot have read it */
            atomic_store(&f->cursors->head, heads[i]);
            bool possible = heads[i] - known <= 1024;
            enum ring_result result = ring_free(&f->writer, f->capacity, &bytes);
            assert_int_equal(result, possible ? RING_OK : RING_BROKEN);
            if (possible)
                assert_int_equal(bytes, f->capacity - 1536 + (heads[i] - known));
            else
                assert_int_equal(ring_reserve(&f->writer, f->capacity, &at), RING_BROKEN);
            assert_int_equal(f->writer.head, possible ? heads[i] : known);
            *(possible ? &accepted : &refused) += 1;
        }
    }
    assert_true(refused > 100 && accepted > 50);
}

/* What is known to be there needs no look at what the other end says. */
static void looks_only_when_it_must(void **state)
{
    struct fixture *f = *state;
    const uint8_t *at = NULL;
    uint8_t *to = NULL;

    write_one(f, 64);
    write_one(f, 64);
    ring_publish(&f->writer);
    read_one(f, 64);
    atomic_store(&f->cursors->tail, UINT64_MAX);
    read_one(f, 64);
    assert_int_equal(ring_peek(&f->reader, 1, &at), RING_BROKEN);
    atomic_store(&f->cursors->head, UINT64_MAX);
    assert_int_equal(ring_reserve(&f->writer, f->capacity - 128, &to), RING_OK);
    assert_int_equal(ring_reserve(&f->writer, f->capacity - 127, &to), RING_BROKEN);
}

static void sleeping_reader(void **state)
{
    struct fixture *f = *state;

    assert_true(ring_sleep(&f->reader));
    write_one(f, 8);
    assert_true(ring_publish(&f->writer));
    assert_int_equal(atomic_load(&f->cursors->reader_sleeps), 0);
    assert_false(ring_publish(&f->writer));
    write_one(f, 8);
    assert_false(ring_publish(&f->writer));

    /* Something is there: known or not yet known, it does not sleep. */
    assert_false(ring_sleep(&f->reader));
    read_one(f, 8);
    assert_false(ring_sleep(&f->reader));
    assert_int_equal(atomic_load(&f->cursors->reader_sleeps), 0);
    read_one(f, 8);
    assert_true(ring_sleep(&f->reader));
    ring_awake(&f->reader);
    write_one(f, 8);
    assert_false(ring_publish(&f->writer));

    /* Nor with a tail that cannot be, which the next look says. */
    const uint8_t *at = NULL;
    read_one(f, 8);
    atomic_store(&f->cursors->tail, 0);
    assert_false(ring_sleep(&f->reader));
    assert_int_equal(ring_peek(&f->reader, 8, &at), RING_BROKEN);
}

static void sleeping_writer(void **state)
{
    struct fixture *f = *state;

    write_one(f, f->capacity);
    ring_publish(&f->writer);
    assert_false(ring_release_wakes(&f->reader));
    assert_true(ring_writer_sleep(&f->writer, 64));
    read_one(f, 32);
    ring_release(&f->reader, f->reader.head);
    assert_true(ring_release_wakes(&f->reader));
    assert_false(ring_release_wakes(&f->reader));
    assert_true(ring_writer_sleep(&f->writer, 64));
    read_one(f, 32);
    ring_release(&f->reader, f->reader.head);
    assert_false(ring_writer_sleep(&f->writer, 64));
    assert_false(ring_release_wakes(&f->reader));
    assert_true(ring_writer_sleep(&f->writer, 65));
    ring_writer_awake(&f->writer);
    assert_false(ring_release_wakes(&f->reader));
    atomic_store(&f->cursors->head, f->writer.tail + 8);
    assert_false(ring_writer_sleep(&f->writer, 65));
}

/* A predecessor died before its own cursor became visible: attaching shows it. */
static void a_successor_publishes(void **state)
{
    struct fixture *f = *state;
    struct ring_reader successor;

    write_one(f, 64);
    write_one(f, 64);
    ring_publish(&f->writer);
    read_one(f, 64);
    ring_reader_attach(&successor, f->channel.request_data, f->capacity, f->cursors, 64, 64);
    assert_int_equal(atomic_load(&f->cursors->head), 64);
    f->reader = successor;
    read_one(f, 64);
    expect_empty(f);

    write_one(f, 8);
    ring_writer_attach(&f->writer, f->channel.request_data, f->capacity, f->cursors, f->writer.tail, 64);
    read_one(f, 8);
}

static void copies_once(void **state)
{
    struct fixture *f = *state;
    uint8_t copy[1000];
    const uint8_t *at = NULL;

    write_one(f, sizeof(copy));
    ring_publish(&f->writer);
    assert_int_equal(ring_peek(&f->reader, sizeof(copy), &at), RING_OK);
    volatile size_t size = sizeof(copy); /* as large as a payload: not known to the compiler */
    copies = 0;
    ring_copy(copy, at, size);
    assert_int_equal(copies, 1);
    check(copy, 0, sizeof(copy));

    /* Later changes of the source do not show. */
    memset(f->channel.request_data, 0, sizeof(copy));
    check(copy, 0, sizeof(copy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_wrap_position, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cursors_count_over_the_end_of_64_bits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(fills_up_and_empties, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_skipped_stays_until_released, set_up, tear_down),
        cmocka_unit_test_setup_teardown(part_of_a_frame_is_broken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_tail_that_cannot_be, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_head_that_cannot_be, set_up, tear_down),
        cmocka_unit_test_setup_teardown(looks_only_when_it_must, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sleeping_reader, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sleeping_writer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_successor_publishes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(copies_once, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
