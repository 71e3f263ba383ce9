/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots: what is written comes back, on the simulated disk, a real one and in memory; two are kept; a failure or a
 * death at any call leaves those that were there; damage is found and named. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/io/uring.h"
#include "engine/log/snapshot.h"
#include "ipc/planted.h"
#include "ipc/sys.h"
#include "millrace/limits.h"
#include "tests/support/fake_io.h"
#include "tests/support/sudden_death.h"
#include "tests/support/temp_dir.h"

#define DIRECTORY "/data/1"

enum { UNIT = 4096 };
static const uint64_t payload = SNAPSHOT_CHUNK - SNAPSHOT_HEAD_BYTES;

struct shelf {
    struct fake_machine *machine;
    struct snapshot_place place;
    int memfds[SNAPSHOTS_KEPT];
    struct mr_error error;
};

static void shelf_init(struct shelf *shelf, uint64_t seed, bool memory)
{
    *shelf = (struct shelf){.machine = fake_machine_create(seed)};
    fake_make_directory(shelf->machine, DIRECTORY);
    shelf->place = (struct snapshot_place){
        .io = fake_io_create(shelf->machine), .path = DIRECTORY, .partition = 3, .secret = UINT64_C(0xfeedbeef)};
    for (unsigned slot = 0; memory && slot < SNAPSHOTS_KEPT; slot++) {
        shelf->memfds[slot] = sys_memfd_create("snapshot", 0);
        assert_true(shelf->memfds[slot] >= 0);
    }
    if (memory)
        shelf->place.memory = shelf->memfds;
}

static void shelf_free(struct shelf *shelf)
{
    for (unsigned slot = 0; shelf->place.memory && slot < SNAPSHOTS_KEPT; slot++)
        assert_int_equal(sys_close(shelf->memfds[slot]), 0);
    fake_machine_destroy(shelf->machine);
}

static struct snapshot_point point_of(uint64_t index)
{
    return (struct snapshot_point){.index = index, .time = index * 1000 + 7, .segment = index / 10 + 1};
}

static uint8_t byte_at(uint64_t index, unsigned section, uint64_t at)
{
    return (uint8_t)(index * 31 + section * 101 + at * 7 + (at >> 9) + 1);
}

static void write_section(struct snapshot_writer *writer, uint64_t index, unsigned section, uint64_t size)
{
    static uint8_t bytes[100000];
    for (uint64_t done = 0, part; done < size; done += part) {
        part = 1 + (done * 7919 + index) % sizeof bytes;
        if (part > size - done)
            part = size - done;
        for (uint64_t n = 0; n < part; n++)
            bytes[n] = byte_at(index, section, done + n);
        snapshot_write(writer, bytes, part);
    }
}

static int write_ready(struct shelf *shelf, uint64_t index, uint64_t epoch, uint64_t first, uint64_t second,
                       int (*ready)(void *context, struct io *io, struct mr_error *error))
{
    struct snapshot_point point = point_of(index);
    shelf->error = (struct mr_error){0};
    struct snapshot_writer *writer = snapshot_begin(&shelf->place, &point, epoch, &shelf->error);
    if (!writer)
        return -1;
    write_section(writer, index, 0, first);
    snapshot_next_section(writer);
    write_section(writer, index, 1, second);
    uint64_t bytes = 0;
    int result = snapshot_commit(writer, ready, shelf, &bytes, &shelf->error);
    uint64_t rest = (first + second) % payload, chunks = (first + second) / payload;
    if (rest == 0 && chunks > 0) {
        rest = payload;
        chunks--;
    }
    if (result == 0)
        assert_int_equal(bytes, chunks * SNAPSHOT_CHUNK + (rest + SNAPSHOT_HEAD_BYTES + UNIT - 1) / UNIT * UNIT);
    return result;
}

static int write_one(struct shelf *shelf, uint64_t index, uint64_t epoch, uint64_t first, uint64_t second)
{
    return write_ready(shelf, index, epoch, first, second, NULL);
}

static void count_progress(void *context, uint64_t done, uint64_t total)
{
    assert_true(done <= total);
    ++*(unsigned *)context;
}

/* Of a section that is given back up to its end, in two steps, what lies around is still there; what lies within is
 * zero, or still there. */
static void forget(struct snapshot_content *content, uint64_t index)
{
    const uint8_t *section = content->sections[0];
    uint64_t size = content->sizes[0], from = size / 8, gone = 0;
    for (uint64_t to = from; to <= size; to += size / 3 + 1) {
        snapshot_forget(content, section + from, section + to);
        gone = to;
    }
    uint64_t zeros = 0;
    for (uint64_t n = 0; n < size; n++) {
        bool within = n >= from && n < gone;
        zeros += within && section[n] == 0;
        if (section[n] != byte_at(index, 0, n) && (!within || section[n] != 0))
            fail_msg("section 0 differs at %llu after it was forgotten", (unsigned long long)n);
    }
    /* Pages of 2 MiB lie within what is twice as large. */
    if (gone - from >= 4 << 20)
        assert_true(zeros >= 2 << 20);
    for (uint64_t n = 0; n < content->sizes[1]; n++)
        assert_int_equal(content->sections[1][n], byte_at(index, 1, n));
}

/* Loads it; if it is whole, every byte has to be as written. */
static int load(struct shelf *shelf, struct snapshot *snapshot, uint64_t first, uint64_t second)
{
    struct snapshot_content content;
    unsigned told = 0;
    shelf->error = (struct mr_error){0};
    if (snapshot_load(&shelf->place, snapshot, &content, count_progress, &told, &shelf->error) != 0) {
        assert_true(shelf->error.text[0] != '\0');
        return -1;
    }
    struct snapshot_point point = point_of(snapshot->point.index);
    assert_memory_equal(&snapshot->point, &point, sizeof point);
    assert_int_equal(content.sizes[0], first);
    assert_int_equal(content.sizes[1], second);
    for (unsigned section = 0; section < 2; section++)
        for (uint64_t n = 0; n < content.sizes[section]; n++)
            if (content.sections[section][n] != byte_at(point.index, section, n))
                fail_msg("section %u differs at %llu", section, (unsigned long long)n);
    forget(&content, point.index);
    snapshot_unload(&content);
    return 0;
}

/* All that are there, newest first, have to be these. */
static void expect(struct shelf *shelf, unsigned count, const uint64_t *indexes, uint64_t first, uint64_t second)
{
    struct snapshot_list list;
    assert_int_equal(snapshot_find(&shelf->place, &list, &shelf->error), 0);
    assert_int_equal(list.count, count);
    for (unsigned n = 0; n < count; n++) {
        assert_int_equal(list.snapshots[n].point.index, indexes[n]);
        uint64_t bytes = list.snapshots[n].bytes;
        if (load(shelf, &list.snapshots[n], first, second) != 0)
            fail_msg("%s", shelf->error.text);
        assert_int_equal(list.snapshots[n].bytes, bytes);
    }
    snapshot_list_free(&list);
}

static struct snapshot newest(struct shelf *shelf)
{
    struct snapshot_list list;
    assert_int_equal(snapshot_find(&shelf->place, &list, &shelf->error), 0);
    assert_true(list.count > 0);
    struct snapshot snapshot = list.snapshots[0];
    snapshot_list_free(&list);
    return snapshot;
}

/* ---- what goes in comes out ---- */

static void all_sizes_come_back(void **state)
{
    (void)state;
    const uint64_t sizes[][2] = {{0, 0},           {1, 0},           {0, 1},           {5000, 300},
                                 {payload, 0},     {0, payload},     {payload - 1, 1}, {payload - 1, 2},
                                 {payload + 1, 0}, {payload, 1},     {1, payload},     {3 * payload, payload},
                                 {12345678, 77},   {77, 9 * payload}};
    for (unsigned memory = 0; memory < 2; memory++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, memory == 1);
        for (unsigned n = 0; n < sizeof sizes / sizeof *sizes; n++) {
            assert_int_equal(write_one(&shelf, n + 1, 1, sizes[n][0], sizes[n][1]), 0);
            if (!memory)
                fake_machine_power_cut(shelf.machine);
            if (!memory)
                shelf.place.io = fake_io_create(shelf.machine);
            struct snapshot_list list;
            assert_int_equal(snapshot_find(&shelf.place, &list, &shelf.error), 0);
            assert_in_range(list.count, n == 0 ? 1 : 2, n + 1); /* a removed one may come back */
            if (load(&shelf, &list.snapshots[0], sizes[n][0], sizes[n][1]) != 0)
                fail_msg("%s", shelf.error.text);
            assert_int_equal(list.snapshots[0].point.index, n + 1);
            snapshot_list_free(&list);
        }
        shelf_free(&shelf);
    }
}

/* Of a section that is read bit by bit, in any order: what was needed is there, and whatever is said to be. */
static void what_is_needed_comes(void **state)
{
    (void)state;
    const uint64_t sizes[][2] = {{9 * payload + 17, 3 * payload}, {6 * payload, 6 * payload}, {5 * payload - 1, 1}};
    for (unsigned n = 0; n < 2 * sizeof sizes / sizeof *sizes; n++) {
        struct shelf shelf;
        shelf_init(&shelf, n, n % 2 == 1);
        uint64_t size = sizes[n / 2][0];
        assert_int_equal(write_one(&shelf, 4, 1, size, sizes[n / 2][1]), 0);
        struct snapshot snapshot = newest(&shelf);
        struct snapshot_content content;
        assert_int_equal(snapshot_load_begin(&shelf.place, &snapshot, &content, NULL, NULL, &shelf.error), 0);
        assert_int_equal(content.sizes[0], size);
        assert_int_equal(content.sizes[1], sizes[n / 2][1]);
        for (uint64_t at = 0; at < content.sizes[1]; at++)
            if (content.sections[1][at] != byte_at(4, 1, at))
                fail_msg("section 1 differs at %llu", (unsigned long long)at);
        for (unsigned times = 0; times < 12; times++) {
            uint64_t from = times * 7919 * 7919 % size, to = from + times * 99991 % (size - from + 1);
            const uint8_t *first = content.sections[0],
                          *end = snapshot_need(&content, first + from, first + to, &shelf.error);
            assert_true(end >= first + to && end <= first + size);
            for (uint64_t at = from; at < (uint64_t)(end - first); at++)
                if (first[at] != byte_at(4, 0, at))
                    fail_msg("section 0 differs at %llu", (unsigned long long)at);
        }
        snapshot_unload(&content);
        shelf_free(&shelf);
    }
}

/* Damage is met where it stands, and what came before it was sound; so is a disk that cannot be read there. */
static void what_is_needed_may_be_lost(void **state)
{
    (void)state;
    for (unsigned unreadable = 0; unreadable < 2; unreadable++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, false);
        assert_int_equal(write_one(&shelf, 4, 1, 9 * payload, 100), 0);
        if (!unreadable)
            fake_file_flip(shelf.machine, DIRECTORY, "snapshot-00000000000000000004", 6 * SNAPSHOT_CHUNK + 77, 1);
        struct snapshot snapshot = newest(&shelf);
        struct snapshot_content content;
        assert_int_equal(snapshot_load_begin(&shelf.place, &snapshot, &content, NULL, NULL, &shelf.error), 0);
        const uint8_t *first = content.sections[0];
        assert_non_null(snapshot_need(&content, first, first + 2 * payload, &shelf.error));
        assert_false(content.lost);
        if (unreadable)
            fake_machine_fail(shelf.machine, FAKE_READ, NULL, 1, 10, EIO);
        assert_null(snapshot_need(&content, first + 3 * payload, first + 7 * payload, &shelf.error));
        assert_true(content.lost);
        assert_int_equal(shelf.error.code, unreadable ? EIO : 0);
        if (!unreadable)
            assert_non_null(strstr(shelf.error.text, "offset 6291456: the chunk's checksum is wrong"));
        assert_null(snapshot_need(&content, first + 6 * payload, first + 7 * payload, &shelf.error));
        snapshot_unload(&content);
        shelf_free(&shelf);
    }
}

static void the_same_state_gives_the_same_bytes(void **state)
{
    (void)state;
    static uint8_t bytes[2][3 << 20];
    for (unsigned n = 0; n < 2; n++) {
        struct shelf shelf;
        shelf_init(&shelf, n, false);
        assert_int_equal(write_one(&shelf, 9, 1 + n, 2000000, 1000), 0);
        assert_int_equal(
            fake_file_read(shelf.machine, DIRECTORY, "snapshot-00000000000000000009", bytes[n], sizeof bytes[n], 0),
            (1 << 20) + 954368);
        shelf_free(&shelf);
    }
    assert_memory_equal(bytes[0], bytes[1], sizeof bytes[0]);
}

static void a_real_disk_has_it_too(void **state)
{
    (void)state;
    char *path = temp_dir_make();
    struct shelf shelf = {.place = {.path = path, .partition = 3, .secret = 5}};
    shelf.place.io = uring_create(64, &shelf.error);
    if (!shelf.place.io)
        fail_msg("%s", shelf.error.text);
    for (uint64_t index = 1; index < 5; index++)
        assert_int_equal(write_one(&shelf, index, 1, 5000000, 4000), 0);
    expect(&shelf, 2, (const uint64_t[]){4, 3}, 5000000, 4000);
    uring_destroy(shelf.place.io);
    temp_dir_remove(path);
}

/* ---- which are there ---- */

static void two_are_kept(void **state)
{
    (void)state;
    for (unsigned memory = 0; memory < 2; memory++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, memory == 1);
        expect(&shelf, 0, NULL, 0, 0);
        uint64_t written[] = {100, 7, 3, 2, 1};
        for (unsigned n = 5; n-- > 0;) {
            assert_int_equal(write_one(&shelf, written[n], 1, 2000, 100), 0);
            expect(&shelf, n == 4 ? 1 : 2, written + n, 2000, 100);
        }
        if (!memory) { /* the same again: nothing was applied meanwhile */
            assert_int_equal(write_one(&shelf, 100, 2, 2000, 100), 0);
            expect(&shelf, 2, written, 2000, 100);
        }
        shelf_free(&shelf);
    }
}

static void what_was_left_unfinished_is_removed(void **state)
{
    (void)state;
    struct shelf shelf;
    shelf_init(&shelf, 1, false);
    static const char *const stay[] = {"snapshot-new-8", "snapshot-new-10", "snapshot-new-05", "snapshot-x",
                                       "snapshot-7",     "segment-0000",    "snapshot-new-"};
    static const char *const go[] = {"snapshot-new-7", "snapshot-new-1", "snapshot-00000000000000000001"};
    for (unsigned n = 0; n < sizeof stay / sizeof *stay; n++)
        fake_file_write(shelf.machine, DIRECTORY, stay[n], "x", 1, 0);
    for (unsigned n = 0; n < sizeof go / sizeof *go; n++)
        fake_file_write(shelf.machine, DIRECTORY, go[n], "x", 1, 0);
    assert_int_equal(write_one(&shelf, 2, 7, 10, 10), 0); /* its own name is taken by an attempt that was given up */
    assert_int_equal(write_one(&shelf, 3, 8, 10, 10), 0);
    fake_file_write(shelf.machine, DIRECTORY, stay[0], "x", 1, 0);
    assert_int_equal(write_one(&shelf, 4, 6, 10, 10), 0);
    for (unsigned n = 0; n < sizeof stay / sizeof *stay; n++)
        assert_int_equal(fake_file_size(shelf.machine, DIRECTORY, stay[n]), 1);
    for (unsigned n = 0; n < sizeof go / sizeof *go; n++)
        assert_int_equal(fake_file_size(shelf.machine, DIRECTORY, go[n]), -1);
    expect(&shelf, 2, (const uint64_t[]){4, 3}, 10, 10);
    shelf_free(&shelf);
}

/* ---- failures ---- */

static unsigned count_files(const struct shelf *shelf)
{
    unsigned files = 0;
    while (fake_file_name(shelf->machine, DIRECTORY, files))
        files++;
    return files;
}

static void any_call_may_fail(void **state)
{
    (void)state;
    static const struct {
        enum fake_call call;
        unsigned calls; /* of those that a snapshot cannot do without */
    } kinds[] = {{FAKE_OPEN_DIRECTORY, 1}, {FAKE_OPEN, 1},   {FAKE_WRITE_NOW, 4},
                 {FAKE_SYNC_NOW, 2},       {FAKE_RENAME, 1}, {FAKE_REMOVE, 1}};
    for (unsigned kind = 0; kind < sizeof kinds / sizeof *kinds; kind++)
        for (unsigned nth = 1; nth <= kinds[kind].calls; nth++) {
            struct shelf shelf;
            shelf_init(&shelf, nth, false);
            for (uint64_t index = 1; index < 3; index++)
                assert_int_equal(write_one(&shelf, index, 1, 3 * payload, 100), 0);
            fake_machine_fail(shelf.machine, kinds[kind].call, NULL, nth, 1, ENOSPC);
            assert_int_equal(write_one(&shelf, 3, 1, 3 * payload, 100), -1);
            assert_int_equal(shelf.error.code, ENOSPC);
            assert_non_null(strstr(shelf.error.text, DIRECTORY));
            assert_int_equal(count_files(&shelf), 2);
            expect(&shelf, 2, (const uint64_t[]){2, 1}, 3 * payload, 100);
            assert_int_equal(write_one(&shelf, 3, 1, 3 * payload, 100), 0);
            expect(&shelf, 2, (const uint64_t[]){3, 2}, 3 * payload, 100);
            shelf_free(&shelf);
        }
    /* Those to find and remove old ones do no harm: they are removed the next time. */
    for (unsigned list = 0; list < 2; list++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, false);
        for (uint64_t index = 1; index < 5; index++) {
            if (index == 3)
                fake_machine_fail(shelf.machine, list ? FAKE_LIST : FAKE_REMOVE, NULL, 2, 1, EIO);
            assert_int_equal(write_one(&shelf, index, 1, 10, 10), 0);
            assert_int_equal(count_files(&shelf), index == 3 ? 3 : index < 3 ? index : 2);
        }
        shelf_free(&shelf);
    }
    /* A disk without room, and one that is read back with errors. */
    struct shelf shelf;
    shelf_init(&shelf, 1, false);
    assert_int_equal(write_one(&shelf, 1, 1, 3 * payload, 100), 0);
    fake_machine_config(shelf.machine)->space = 5 << 20;
    assert_int_equal(write_one(&shelf, 2, 1, 3 * payload, 100), -1);
    assert_int_equal(shelf.error.code, ENOSPC);
    assert_non_null(strstr(shelf.error.text, "snapshot-new-1"));
    struct snapshot_list list;
    assert_int_equal(snapshot_find(&shelf.place, &list, &shelf.error), 0);
    /* A piece that could not be read ahead is read once more, and then believed. */
    fake_machine_fail(shelf.machine, FAKE_READ, NULL, 2, 1, EIO);
    assert_int_equal(load(&shelf, &list.snapshots[0], 3 * payload, 100), 0);
    for (unsigned nth = 1; nth <= 2; nth++) { /* the last piece comes first, and not ahead */
        fake_machine_fail(shelf.machine, FAKE_READ, NULL, nth, 2, EIO);
        assert_int_equal(load(&shelf, &list.snapshots[0], 3 * payload, 100), -1);
        assert_int_equal(shelf.error.code, EIO);
    }
    snapshot_list_free(&list);
    shelf_free(&shelf);
}

static int not_ready(void *context, struct io *io, struct mr_error *error)
{
    struct shelf *shelf = context;
    assert_ptr_equal(io, shelf->place.io);
    return error_set(error, "not ready");
}

static void what_is_not_ready_does_not_count(void **state)
{
    (void)state;
    for (unsigned memory = 0; memory < 2; memory++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, memory == 1);
        assert_int_equal(write_one(&shelf, 1, 1, 2000, 100), 0);
        assert_int_equal(write_one(&shelf, 2, 1, 2000, 100), 0);
        assert_int_equal(write_ready(&shelf, 3, 1, 2000, 100, not_ready), -1);
        assert_string_equal(shelf.error.text, "not ready");
        expect(&shelf, memory ? 1 : 2, (const uint64_t[]){2, 1}, 2000,
               100); /* in memory the older one's room is used */
        shelf_free(&shelf);
    }
}

/* ---- deaths ---- */

/* Writes one and dies at that call, or loses power behind the end. */
static bool write_and_die(struct shelf *shelf, uint64_t index, unsigned calls, struct countdown *countdown)
{
    struct shelf *volatile kept = shelf;
    volatile bool done = false;
    fake_machine_config(shelf->machine)->context = countdown;
    fake_machine_config(shelf->machine)->on_call = count_down;
    leaks_are_meant(true);
    if (setjmp(countdown->out) == 0) {
        countdown->calls = calls;
        done = write_one(kept, index, 1, payload, 100) == 0;
        countdown->calls = 0;
    }
    leaks_are_meant(false);
    fake_machine_config(kept->machine)->on_call = NULL;
    fake_machine_power_cut(kept->machine);
    kept->place.io = fake_io_create(kept->machine);
    return done;
}

/* After a power cut at any call, whatever it leaves: what was whole is whole. */
static void a_power_cut_leaves_what_was_whole(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct shelf shelf;
        struct countdown countdown = {0};
        shelf_init(&shelf, seed, false);
        assert_int_equal(write_one(&shelf, 1, 1, payload, 100), 0);
        assert_int_equal(write_one(&shelf, 2, 1, payload, 100), 0);
        bool done = write_and_die(&shelf, 3, 1 + (unsigned)seed % 25, &countdown);
        struct snapshot_list list;
        assert_int_equal(snapshot_find(&shelf.place, &list, &shelf.error), 0);
        assert_in_range(list.count, 2, 3);
        assert_in_range(list.snapshots[0].point.index, done ? 3 : 2, 3);
        for (unsigned n = 0; n < list.count; n++)
            assert_int_equal(load(&shelf, &list.snapshots[n], payload, 100), 0);
        snapshot_list_free(&list);
        assert_int_equal(write_one(&shelf, 4, 2, payload, 100), 0);
        assert_int_equal(count_files(&shelf), 2);
        shelf_free(&shelf);
    }
}

static void a_name_that_is_not_synced_is_missed(void **state)
{
    (void)state;
    for (unsigned planted = 0; planted < 2; planted++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, false);
        fake_machine_config(shelf.machine)->power_cut = FAKE_LOSE;
        planted_fault = planted ? PLANTED_NO_DIRECTORY_SYNC : PLANTED_NOTHING;
        assert_int_equal(write_one(&shelf, 1, 1, 10, 10), 0);
        planted_fault = PLANTED_NOTHING;
        fake_machine_power_cut(shelf.machine);
        shelf.place.io = fake_io_create(shelf.machine);
        expect(&shelf, planted ? 0 : 1, (const uint64_t[]){1}, 10, 10);
        shelf_free(&shelf);
    }
}

/* In memory: the writer dies between any two chunks, which is as good as never committing. */
static void half_a_snapshot_in_memory_does_not_count(void **state)
{
    (void)state;
    struct shelf shelf;
    shelf_init(&shelf, 1, true);
    for (uint64_t index = 1; index < 3; index++)
        assert_int_equal(write_one(&shelf, index, 1, 3 * payload, 0), 0);
    leaks_are_meant(true);
    struct snapshot_point point = point_of(3);
    struct snapshot_writer *writer = snapshot_begin(&shelf.place, &point, 1, &shelf.error);
    assert_non_null(writer);
    expect(&shelf, 1, (const uint64_t[]){2}, 3 * payload, 0);
    write_section(writer, 3, 0, 3 * payload - 1);
    expect(&shelf, 1, (const uint64_t[]){2}, 3 * payload, 0);
    leaks_are_meant(false);
    assert_int_equal(write_one(&shelf, 4, 2, 3 * payload, 0), 0);
    expect(&shelf, 2, (const uint64_t[]){4, 2}, 3 * payload, 0);
    shelf_free(&shelf);
}

/* ---- damage ---- */

static void damage_names_file_and_offset(void **state)
{
    (void)state;
    static const struct {
        uint64_t flip, size;
        const char *expected;
    } cases[] = {
        {.flip = 0, .expected = "is damaged at offset 0: no chunk"},
        {.flip = 9, .expected = "at offset 0 format version 513, and this program reads version 1 only"},
        {.flip = 12, .expected = "is damaged at offset 0: the chunk's checksum"},
        {.flip = 55, .expected = "is damaged at offset 0: the chunk is longer"},
        {.flip = 60, .expected = "is damaged at offset 0: the chunk's checksum"},
        {.flip = 1000000, .expected = "is damaged at offset 0: the chunk's checksum"},
        {.flip = (1 << 20) + 24, .expected = "is damaged at offset 1048576: the chunk's checksum"},
        {.flip = (2 << 20) + 64, .expected = "is damaged at offset 2097152: the chunk's checksum"},
        {.flip = (2 << 20) + 4000, .expected = "is damaged at offset 2101152: there are not only zeros"},
        {.size = 1 << 20, .expected = "is damaged at offset 0: the snapshot's end is missing"},
        {.size = 2 << 20, .expected = "is damaged at offset 1048576: the snapshot's end is missing"},
        {.size = (2 << 20) + 8192, .expected = "is damaged at offset 2097152: the chunk is shorter"},
        {.size = 3 << 20, .expected = "is damaged at offset 2097152: the chunk is shorter"},
        {.size = (3 << 20) + 4096, .expected = "is damaged at offset 2097152: the snapshot ends before the file"},
        {.size = 100000, .expected = "is damaged at offset 100000: no snapshot can end there"},
        {.size = 0, .flip = UINT64_MAX, .expected = "is damaged at offset 0: no snapshot can end there"},
    };
    static const char name[] = "snapshot-00000000000000000002";
    for (unsigned n = 0; n < sizeof cases / sizeof *cases; n++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, false);
        assert_int_equal(write_one(&shelf, 1, 1, 1000, 100), 0);
        assert_int_equal(write_one(&shelf, 2, 1, 2 * payload, 100), 0);
        if (cases[n].size == 0 && cases[n].flip != UINT64_MAX)
            fake_file_flip(shelf.machine, DIRECTORY, name, cases[n].flip, 1);
        else
            fake_file_truncate(shelf.machine, DIRECTORY, name, cases[n].size);
        struct snapshot snapshot = newest(&shelf);
        assert_int_equal(snapshot.point.index, 2);
        assert_int_equal(load(&shelf, &snapshot, 2 * payload, 100), -1);
        assert_int_equal(shelf.error.code, 0);
        if (!strstr(shelf.error.text, cases[n].expected) || !strstr(shelf.error.text, name))
            fail_msg("case %u: %s", n, shelf.error.text);
        shelf_free(&shelf);
    }
}

/* Chunks that are sound in themselves, in the wrong place. */
static void parts_of_others_are_refused(void **state)
{
    (void)state;
    static uint8_t chunk[1 << 20];
    for (unsigned way = 0; way < 6; way++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, false);
        assert_int_equal(write_one(&shelf, 1, 1, 2 * payload, 100), 0);
        assert_int_equal(write_one(&shelf, 2, 1, 2 * payload, 100), 0);
        struct snapshot snapshot = newest(&shelf);
        const char *older = "snapshot-00000000000000000001", *expected = NULL;
        uint64_t from = 1 << 20;
        switch (way) {
        case 0:
            expected = "offset 1048576: the chunk is of another snapshot than the rest";
            fake_file_read(shelf.machine, DIRECTORY, older, chunk, sizeof chunk, from);
            fake_file_write(shelf.machine, DIRECTORY, snapshot.name, chunk, sizeof chunk, from);
            break;
        case 1:
            expected = "offset 0: another chunk stands in this one's place";
            fake_file_read(shelf.machine, DIRECTORY, snapshot.name, chunk, sizeof chunk, from);
            fake_file_write(shelf.machine, DIRECTORY, snapshot.name, chunk, sizeof chunk, 0);
            break;
        case 2:
            expected = "belongs to partition 3, not to partition 4";
            shelf.place.partition = 4;
            break;
        case 3:
            expected = "the chunk's checksum is wrong";
            shelf.place.secret++;
            break;
        case 4:
            expected = "the state in it is that of index 1";
            for (uint64_t offset = 0; offset <= 2 << 20; offset += sizeof chunk) {
                int64_t size = fake_file_read(shelf.machine, DIRECTORY, older, chunk, sizeof chunk, offset);
                fake_file_write(shelf.machine, DIRECTORY, snapshot.name, chunk, (size_t)size, offset);
            }
            break;
        default:
            expected = "No such file";
            fake_file_remove(shelf.machine, DIRECTORY, snapshot.name);
            break;
        }
        assert_int_equal(load(&shelf, &snapshot, 2 * payload, 100), -1);
        if (!strstr(shelf.error.text, expected))
            fail_msg("%s", shelf.error.text);
        shelf_free(&shelf);
    }
}

/* A damaged one is none of the two that are kept: the one before it stays. */
static void a_damaged_one_can_be_set_aside(void **state)
{
    (void)state;
    for (unsigned memory = 0; memory < 2; memory++) {
        struct shelf shelf;
        shelf_init(&shelf, 1, memory == 1);
        assert_int_equal(write_one(&shelf, 1, 1, 1000, 100), 0);
        assert_int_equal(write_one(&shelf, 2, 1, 1000, 100), 0);
        struct snapshot snapshot = newest(&shelf);
        assert_int_equal(snapshot_set_aside(&shelf.place, &snapshot, &shelf.error), 0);
        expect(&shelf, 1, (const uint64_t[]){1}, 1000, 100);
        assert_int_equal(write_one(&shelf, 3, 1, 1000, 100), 0);
        expect(&shelf, 2, (const uint64_t[]){3, 1}, 1000, 100);
        if (!memory) {
            assert_true(fake_file_size(shelf.machine, DIRECTORY, "damaged-00000000000000000002") > 0);
            assert_int_equal(snapshot_set_aside(&shelf.place, &snapshot, &shelf.error), -1);
            assert_int_equal(shelf.error.code, ENOENT);
        }
        shelf_free(&shelf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_sizes_come_back),
        cmocka_unit_test(what_is_needed_comes),
        cmocka_unit_test(what_is_needed_may_be_lost),
        cmocka_unit_test(the_same_state_gives_the_same_bytes),
        cmocka_unit_test(a_real_disk_has_it_too),
        cmocka_unit_test(two_are_kept),
        cmocka_unit_test(what_was_left_unfinished_is_removed),
        cmocka_unit_test(any_call_may_fail),
        cmocka_unit_test(what_is_not_ready_does_not_count),
        cmocka_unit_test(a_power_cut_leaves_what_was_whole),
        cmocka_unit_test(a_name_that_is_not_synced_is_missed),
        cmocka_unit_test(half_a_snapshot_in_memory_does_not_count),
        cmocka_unit_test(damage_names_file_and_offset),
        cmocka_unit_test(parts_of_others_are_refused),
        cmocka_unit_test(a_damaged_one_can_be_set_aside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
