/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots, from both sides of their checksums.
 *
 * The sections: what fsm_restore() is given is a state's own bytes with fields changed, dropped, doubled or moved,
 * lengths being put right again, or bytes of the input's. What it takes must be just what it then writes, and the state
 * is a good one: time passes over all its deadlines, and it is written and restored again. What it refuses it refuses
 * with a text.
 *
 * The file: written by the writer, then heads and bytes changed, checksums being put right again. What
 * snapshot_load() gives out is what was written, unless what was changed is what it gives; an unchanged one is loaded.
 *
 * Planted fault: a number is forgotten when a state is restored (PLANTED_NUMBER_FORGOTTEN). */
#include "engine/log/snapshot.h"
#include "engine/log/snapshot_inside.h"
#include "ipc/error.h"
#include "ipc/planted.h"
#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_io.h"
#include "tests/support/partition.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "/data/1"

enum { STATES = 4, MADE_MAX = 16384, FILE_MAX = 3 * 1024 * 1024, OUTPUT_LIMIT = 4096 };

/* ---- states to begin with ---- */

struct state {
    uint8_t *dump; /* both sections */
    size_t snapshot_size, size;
};

static uint64_t made_id(const struct reply *reply)
{
    FUZZ_CHECK(reply->status == STATUS_OK && reply->id != 0);
    return reply->id;
}

static void fill(struct partition *partition, unsigned kind)
{
    uint64_t session = partition_open_session(partition, 10 * MR_SECOND);
    uint64_t counter = made_id(partition_create_service(partition, session, COUNTER_TYPE, "c"));
    for (uint64_t number = 1; number <= 5; number++)
        partition_command(partition, session, counter, number, "Increment", number_payload(number));
    if (kind < 2)
        return;
    uint64_t map = made_id(partition_create_service(partition, session, MAP_TYPE, "m"));
    struct duration ttl = duration_of(5 * MR_SECOND);
    partition->route.position++;
    partition_command(partition, session, map, 6, "Put", write_payload("a", text("one"), NULL, 0));
    partition_command(partition, session, map, 7, "Put", write_payload("b", text("two"), &ttl, 0));
    if (kind < 3)
        return;
    uint64_t other = partition_open_session(partition, MR_SECOND);
    partition_create_service(partition, other, MAP_TYPE, "m");
    partition->route.position++;
    request_command(&partition->request, other, map, 1, "Events", text(""));
    partition_submit(partition);
    partition->route.position++;
    partition_command(partition, session, map, 9, "Put", write_payload("c", text("three"), &ttl, 0));
    partition_command(partition, session, map, 8, "Remove", key_payload("a", 0));
    uint8_t bits[16];
    uint64_t kept[] = {1, 7};
    struct last_output outputs[] = {{1, 2}};
    request_keep_alive(&partition->request, other, make_filter(bits, 2, 64, kept, 1), 1, outputs, 1);
    partition_submit(partition);
    partition_keep_alive(partition, session, make_filter(bits, 2, 64, kept, 2), 7);
}

static const struct state *base_state(unsigned kind)
{
    static struct state states[STATES];
    struct state *state = &states[kind];
    if (state->dump != NULL)
        return state;
    struct partition *partition = partition_create(1, OUTPUT_LIMIT);
    partition->route.channel = 1;
    if (kind > 0)
        fill(partition, kind);
    state->dump = partition_dump(partition, &state->size);
    state->snapshot_size = partition_snapshot_size(partition);
    partition_destroy(partition);
    return state;
}

/* ---- other states made of them ---- */

struct made {
    uint8_t data[MADE_MAX];
    size_t size;
};

static void put(struct made *to, const void *bytes, size_t size)
{
    if (size == 0 || size > MADE_MAX - to->size)
        return;
    memcpy(to->data + to->size, bytes, size);
    to->size += size;
}

static void put_number(struct made *to, uint64_t number)
{
    uint8_t bytes[10] = {0};
    put(to, bytes, (size_t)(write_varint(bytes, number) - bytes));
}

/* Can these bytes be a message, so that its fields can be changed? */
static bool is_message(struct slice bytes)
{
    struct field_reader reader = field_reader(bytes);
    while (field_next(&reader))
        if (reader.tag >> 3 > 15 || (reader.tag & 7) > 2)
            return false;
    return !reader.malformed && bytes.size > 0;
}

static void change(struct made *to, struct slice message, struct fuzz_input *input, unsigned depth);

static void change_field(struct made *to, const struct field_reader *field, struct fuzz_input *input, uint8_t form,
                         unsigned depth)
{
    struct slice bytes = field->bytes;
    uint64_t value = field->value;
    struct made *inner;
    put_number(to, form == 250 ? field->tag ^ 8 : field->tag);
    switch (field->tag & 7) {
    case WIRE_VARINT:
        if (form >= 252)
            value = fuzz_number(input);
        else if (form >= 240)
            value += form - 246U;
        put_number(to, value);
        break;
    case WIRE_BYTES:
        if (depth < 8 && form < 244 && is_message(bytes)) {
            inner = calloc(1, sizeof(*inner));
            FUZZ_CHECK(inner != NULL);
            change(inner, bytes, input, depth + 1);
            put_number(to, inner->size);
            put(to, inner->data, inner->size);
            free(inner);
            break;
        }
        if (form >= 252)
            bytes = fuzz_bytes(input);
        put_number(to, bytes.size);
        put(to, bytes.data, bytes.size);
        break;
    default:
        put(to, &value, 8);
    }
}

/* A copy, in which now and then a field is left out, doubled, put off to the end, or another. */
static void change(struct made *to, struct slice message, struct fuzz_input *input, unsigned depth)
{
    struct field_reader reader = field_reader(message), kept = {0};
    bool put_off = false;
    while (field_next(&reader)) {
        uint8_t form = fuzz_byte(input);
        if (form >= 200 && form < 210)
            continue;
        if (form >= 210 && form < 220) {
            kept = reader;
            put_off = true;
            continue;
        }
        change_field(to, &reader, input, form, depth);
        if (form >= 220 && form < 230)
            change_field(to, &reader, input, fuzz_byte(input), depth);
    }
    if (put_off)
        change_field(to, &kept, input, 0, depth);
}

/* ---- restoring ---- */

struct collected {
    uint8_t *data;
    size_t size;
};

static void collect(void *context, const void *data, size_t size)
{
    struct collected *to = context;
    to->data = realloc(to->data, to->size + size + 1);
    FUZZ_CHECK(to->data != NULL);
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void check_section(struct fsm *fsm, void (*write)(struct fsm *, fsm_write_fn *, void *), struct slice expected)
{
    struct collected written = {0};
    write(fsm, collect, &written);
    FUZZ_CHECK(written.size == expected.size);
    FUZZ_CHECK(expected.size == 0 || memcmp(written.data, expected.data, expected.size) == 0);
    free(written.data);
}

static bool no_answers(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    (void)context;
    (void)route;
    return answer->number == 0;
}

static void live_on(struct fsm *fsm)
{
    struct fsm_sink sink = {.answer = no_answers};
    /* Not beyond what an index can be, where the input has set it near the end. */
    for (unsigned i = 0; i < 8 && fsm_next_deadline(fsm) < UINT64_MAX / 2 && fsm_index(fsm) < INT64_MAX; i++) {
        struct fsm_entry entry = {.index = fsm_index(fsm) + 1, .time = fsm_next_deadline(fsm)};
        if (entry.time < fsm_time(fsm)) /* left over by the entry before the snapshot */
            entry.time = fsm_time(fsm);
        fsm_apply(fsm, &entry, &sink);
    }
    while (fsm_collect(fsm, 4))
        continue;
}

static struct fsm *new_state(uint64_t seed)
{
    struct partition *partition = partition_create(seed, OUTPUT_LIMIT); /* for its configuration */
    struct fsm *fsm = fsm_create(&partition->config);
    partition_destroy(partition);
    return fsm;
}

static void try_sections(struct slice snapshot, struct slice extra)
{
    struct mr_error error = {0};
    struct fsm *fsm = new_state(7), *second;
    if (fsm_restore(fsm, snapshot, extra, &error) != 0) {
        FUZZ_CHECK(error.text[0] != '\0');
        fsm_destroy(fsm);
        return;
    }
    check_section(fsm, fsm_write_snapshot, snapshot);
    check_section(fsm, fsm_write_extra, extra);
    live_on(fsm);
    struct collected sections[2] = {{0}};
    fsm_write_snapshot(fsm, collect, &sections[0]);
    fsm_write_extra(fsm, collect, &sections[1]);
    second = new_state(8);
    FUZZ_CHECK(fsm_restore(second, (struct slice){sections[0].data, sections[0].size},
                           (struct slice){sections[1].data, sections[1].size}, &error) == 0);
    fsm_destroy(second);
    fsm_destroy(fsm);
    free(sections[0].data);
    free(sections[1].data);
}

static void restore(struct fuzz_input *input, uint8_t form)
{
    const struct state *base = base_state(form % STATES);
    struct slice snapshot = {base->dump, base->snapshot_size};
    struct slice extra = {base->dump + base->snapshot_size, base->size - base->snapshot_size};
    struct made *first = calloc(1, sizeof(*first)), *second = calloc(1, sizeof(*second));
    FUZZ_CHECK(first != NULL && second != NULL);
    if (form / STATES % 8 == 0) {
        uint64_t size = fuzz_below(input, 4096);
        struct slice rest = fuzz_rest(input);
        size = size < rest.size ? size : rest.size;
        try_sections((struct slice){rest.data, size}, (struct slice){rest.data + size, rest.size - size});
    } else {
        change(first, snapshot, input, 0);
        change(second, extra, input, 0);
        try_sections((struct slice){first->data, first->size}, (struct slice){second->data, second->size});
    }
    free(first);
    free(second);
}

/* ---- the file ---- */

static struct snapshot_place place_of(struct io *io)
{
    return (struct snapshot_place){.io = io, .path = FOLDER, .partition = 1, .secret = 42};
}

/* A snapshot of these two sections, as the writer writes it. */
static void write_file(struct fake_machine *machine, const uint8_t *bytes, const uint64_t sizes[2])
{
    struct mr_error error;
    struct io *io = fake_io_create(machine);
    struct snapshot_place place = place_of(io);
    struct snapshot_point point = {.index = 5, .time = 6, .segment = 1};
    uint64_t written;
    struct snapshot_writer *writer = snapshot_begin(&place, &point, 1, &error);
    FUZZ_CHECK(writer != NULL);
    snapshot_write(writer, bytes, sizes[0]);
    snapshot_next_section(writer);
    snapshot_write(writer, bytes + sizes[0], sizes[1]);
    FUZZ_CHECK(snapshot_commit(writer, NULL, NULL, &written, &error) == 0);
    fake_io_destroy(io);
}

/* Changes the bytes of the file; `size` of them are there. True: it has not been changed. */
static bool bend(uint8_t *bytes, uint64_t *size, struct fuzz_input *input)
{
    bool same = true;
    for (unsigned times = fuzz_byte(input) % 4; times > 0; times--) {
        uint8_t form = fuzz_byte(input);
        uint64_t chunk = form / 16 % 3 * SNAPSHOT_CHUNK;
        struct snapshot_head head;
        if (*size < chunk + SNAPSHOT_HEAD_BYTES)
            continue;
        uint64_t place = fuzz_below(input, form % 2 == 0 ? SNAPSHOT_HEAD_BYTES : 4096);
        same = false;
        if (form % 8 == 7) {
            *size = fuzz_below(input, *size + 1);
            continue;
        }
        if (chunk + place < *size)
            bytes[chunk + place] ^= (uint8_t)(1U << fuzz_byte(input) % 8);
        memcpy(&head, bytes + chunk, sizeof(head));
        uint64_t length = SNAPSHOT_HEAD_BYTES + (uint64_t)head.sizes[0] + head.sizes[1];
        if (form % 8 == 6 || length > *size - chunk)
            continue; /* its checksum stays as it was */
        head.checksum = snapshot_sum(bytes + chunk, length, 42);
        memcpy(bytes + chunk, &head, sizeof(head));
    }
    return same;
}

static void load_file(struct fake_machine *machine, bool same, const uint8_t *bytes, const uint64_t sizes[2])
{
    struct io *io = fake_io_create(machine);
    struct snapshot_place place = place_of(io);
    struct snapshot_list list;
    struct snapshot_content content;
    struct mr_error error = {0};
    FUZZ_CHECK(snapshot_find(&place, &list, &error) == 0 && list.count == 1);
    struct snapshot peeked = list.snapshots[0];
    int peek = snapshot_peek(&place, &peeked, &error);
    int load = snapshot_load(&place, &list.snapshots[0], &content, NULL, NULL, &error);
    FUZZ_CHECK(load == 0 || (!same && error.text[0] != '\0'));
    if (load == 0) {
        FUZZ_CHECK(peek == 0 && peeked.point.segment == list.snapshots[0].point.segment);
        FUZZ_CHECK(content.sizes[0] + content.sizes[1] <= FILE_MAX);
        for (unsigned i = 0; same && i < 2; i++)
            FUZZ_CHECK(content.sizes[i] == sizes[i] &&
                       (sizes[i] == 0 || memcmp(content.sections[i], bytes + (i == 0 ? 0 : sizes[0]), sizes[i]) == 0));
        /* Every byte is there to be read. */
        volatile uint8_t sum = 0;
        for (unsigned i = 0; i < 2; i++)
            for (uint64_t n = 0; n < content.sizes[i]; n += 512)
                sum = (uint8_t)(sum + content.sections[i][n]);
        snapshot_unload(&content);
    }
    snapshot_list_free(&list);
    fake_io_destroy(io);
}

static void file(struct fuzz_input *input, uint8_t form)
{
    struct fake_machine *machine = fake_machine_create(1);
    uint64_t sizes[2];
    sizes[0] = fuzz_below(input, 3000);
    sizes[1] = fuzz_below(input, 200);
    char name[SNAPSHOT_NAME_SIZE];
    snapshot_name(name, 5);
    fake_make_directory(machine, FOLDER);
    if (form % 32 == 0) /* where chunks meet */
        sizes[form / 32 % 2] = SNAPSHOT_PAYLOAD - 8 + sizes[0] % 16;
    uint8_t *bytes = malloc(sizes[0] + sizes[1] + 1);
    FUZZ_CHECK(bytes != NULL);
    for (uint64_t n = 0; n < sizes[0] + sizes[1]; n++)
        bytes[n] = (uint8_t)(n * 31 + form);
    write_file(machine, bytes, sizes);
    uint64_t size = (uint64_t)fake_file_size(machine, FOLDER, name);
    uint8_t *written = malloc(size);
    FUZZ_CHECK(written != NULL && size <= FILE_MAX);
    FUZZ_CHECK(fake_file_read(machine, FOLDER, name, written, size, 0) == (int64_t)size);
    bool same = bend(written, &size, input);
    fake_file_remove(machine, FOLDER, name);
    fake_file_write(machine, FOLDER, name, written, size, 0);
    load_file(machine, same, bytes, sizes);
    free(written);
    free(bytes);
    fake_machine_destroy(machine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    planted_fault = fuzz_planted() ? PLANTED_NUMBER_FORGOTTEN : PLANTED_NOTHING;
    struct fuzz_input input = {data, data + size};
    uint8_t form = fuzz_byte(&input);
    if (form < 200)
        restore(&input, form);
    else
        file(&input, fuzz_byte(&input));
    return 0;
}
