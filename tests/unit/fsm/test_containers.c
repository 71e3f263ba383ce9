/* SPDX-License-Identifier: Apache-2.0 */
/* What the state is kept in: table, timers, window, blobs, stored outputs, garbage. */
#include "engine/fsm/call.h"
#include "engine/fsm/garbage.h"
#include "engine/fsm/hash.h"
#include "engine/fsm/list.h"
#include "engine/fsm/outputs.h"
#include "engine/fsm/table.h"
#include "engine/fsm/timers.h"
#include "engine/fsm/window.h"
#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

/* ---- table ---- */

struct item {
    struct table_node node;
    uint64_t key;
    bool there;
};

static uint64_t hash_of_item(const struct table_node *node, uint64_t seed)
{
    return hash_number(container_of(node, struct item, node)->key, seed);
}

static struct item *find_item(const struct table *table, uint64_t key, uint64_t seed)
{
    for (struct table_node *node = table_first(table, hash_number(key, seed)); node != NULL; node = node->next)
        if (container_of(node, struct item, node)->key == key)
            return container_of(node, struct item, node);
    return NULL;
}

static void table_finds_what_is_in_it(void **state)
{
    (void)state;
    enum { ITEMS = 5000 };
    struct item *items = calloc(ITEMS, sizeof(*items));
    struct table table;
    table_init(&table, hash_of_item, 7);
    size_t count = 0;
    assert_null(find_item(&table, 1, 7));
    for (unsigned step = 0; step < 60000; step++) {
        /* Mostly growing, then mostly shrinking, so that it passes through every size in both ways. */
        struct item *item = &items[random_bits() % ITEMS];
        item->key = (uint64_t)(item - items);
        bool want = random_bits() % 10 < (step / 15000 % 2 == 0 ? 9 : 1);
        if (want && !item->there) {
            table_insert(&table, &item->node, hash_number(item->key, 7));
            count++;
        } else if (!want && item->there) {
            table_remove(&table, &item->node);
            count--;
        } else {
            continue;
        }
        item->there = want;
        assert_int_equal(table.count, count);
        uint64_t key = random_bits() % ITEMS;
        assert_ptr_equal(find_item(&table, key, 7), items[key].there ? &items[key] : NULL);
    }
    for (uint64_t key = 0; key < ITEMS; key++)
        assert_ptr_equal(find_item(&table, key, 7), items[key].there ? &items[key] : NULL);
    table_free(&table);
    free(items);
}

static void table_with_room_made(void **state)
{
    (void)state;
    enum { ITEMS = 3000 };
    struct item *items = calloc(ITEMS, sizeof(*items));
    struct table table;
    table_init(&table, hash_of_item, 5);
    table_reserve(&table, ITEMS);
    size_t mask = table.mask;
    assert_true(mask + 1 >= ITEMS && mask + 1 < 2 * ITEMS);
    assert_null(find_item(&table, 1, 5));
    for (uint64_t key = 0; key < ITEMS; key++) {
        table_insert(&table, &items[key].node, hash_number(items[key].key = key, 5));
        assert_null(table.old);
    }
    assert_int_equal(table.mask, mask);
    table_reserve(&table, 10 * ITEMS); /* what is in it stays where it is */
    assert_int_equal(table.mask, mask);
    for (uint64_t key = 0; key < ITEMS; key++)
        assert_ptr_equal(find_item(&table, key, 5), &items[key]);
    table_free(&table);
    free(items);
}

static void table_shrinks(void **state)
{
    (void)state;
    enum { ITEMS = 4096 };
    struct item *items = calloc(ITEMS, sizeof(*items));
    struct table table;
    table_init(&table, hash_of_item, 1);
    for (uint64_t key = 0; key < ITEMS; key++)
        table_insert(&table, &items[key].node, hash_number(items[key].key = key, 1));
    assert_true(table.mask + 1 >= ITEMS / 2);
    for (uint64_t key = 0; key < ITEMS; key++)
        table_remove(&table, &items[key].node);
    assert_true(table.mask + 1 <= 64);
    assert_int_equal(table.count, 0);
    table_free(&table);
    free(items);
}

/* Also while it moves from one array to another. */
static void table_takes_a_replacement(void **state)
{
    (void)state;
    enum { ITEMS = 1000 };
    struct item *items = calloc(2 * ITEMS, sizeof(*items));
    struct table table;
    table_init(&table, hash_of_item, 3);
    bool moving = false;
    for (uint64_t key = 0; key < ITEMS; key++) {
        items[key].key = items[ITEMS + key].key = key;
        table_insert(&table, &items[key].node, hash_number(key, 3));
        uint64_t changed = random_bits() % (key + 1);
        struct item *from = find_item(&table, changed, 3);
        struct item *to = from < items + ITEMS ? from + ITEMS : from - ITEMS;
        table_replace(&table, &from->node, &to->node);
        assert_ptr_equal(find_item(&table, changed, 3), to);
        moving = moving || table.old != NULL;
    }
    assert_true(moving);
    assert_int_equal(table.count, ITEMS);
    for (uint64_t key = 0; key < ITEMS; key++) {
        struct item *item = find_item(&table, key, 3);
        assert_non_null(item);
        table_remove(&table, &item->node);
        assert_null(find_item(&table, key, 3));
    }
    table_free(&table);
    free(items);
}

/* ---- timers ---- */

struct fired {
    uint64_t deadline, order;
    size_t count;
};

static void note_fired(struct timer *timer, void *context)
{
    struct fired *fired = context;
    assert_int_equal(timer->place, 0);
    assert_true(timer->deadline > fired->deadline ||
                (timer->deadline == fired->deadline && timer->order > fired->order));
    fired->deadline = timer->deadline;
    fired->order = timer->order;
    fired->count++;
}

static void timers_fire_in_order(void **state)
{
    (void)state;
    enum { TIMERS = 3000 };
    struct timer *all = calloc(TIMERS, sizeof(*all));
    struct timers timers;
    timers_init(&timers);
    assert_int_equal(timers_next(&timers), UINT64_MAX);
    assert_int_equal(timers_fire(&timers, UINT64_MAX - 1, NULL), 0);
    timers_cancel(&timers, &all[0]);
    for (unsigned step = 0; step < 20000; step++) {
        size_t i = random_bits() % TIMERS;
        all[i].fire = note_fired;
        if (random_bits() % 4 == 0)
            timers_cancel(&timers, &all[i]);
        else
            timers_set(&timers, &all[i], 1 + random_bits() % 500, i);
    }
    size_t set = 0, early = 0;
    uint64_t first_late = UINT64_MAX;
    for (size_t i = 0; i < TIMERS; i++) {
        if (all[i].place == 0)
            continue;
        set++;
        if (all[i].deadline <= 250)
            early++;
        else if (all[i].deadline < first_late)
            first_late = all[i].deadline;
    }
    assert_int_equal(timers.count, set);
    struct fired fired = {0};
    while (timers_fire(&timers, 250, &fired))
        ;
    assert_int_equal(fired.count, early);
    assert_int_equal(timers_next(&timers), first_late);
    while (timers_fire(&timers, 500, &fired))
        ;
    assert_int_equal(fired.count, set);
    assert_int_equal(timers_next(&timers), UINT64_MAX);
    timers_free(&timers);
    free(all);
}

/* ---- window ---- */

static struct stored_output *record(uint64_t number) /* something to point at; never looked at */
{
    return (struct stored_output *)(uintptr_t)(number * 8);
}

struct passing {
    uint64_t last;
    size_t count;
};

static void note_passed(void *context, struct stored_output *output)
{
    struct passing *passing = context;
    uint64_t number = (uintptr_t)output / 8;
    assert_true(number > passing->last);
    passing->last = number;
    passing->count++;
}

static void window_takes_what_is_near(void **state)
{
    (void)state;
    struct window window = {0};
    struct passing passing = {0};
    assert_null(window_get(&window, 0));
    assert_null(window_get(&window, 1));
    assert_true(window_put(&window, 1, record(1), 1));
    assert_true(window_put(&window, 1024, record(1024), 2));
    assert_false(window_put(&window, 1025, record(1025), 3));
    assert_false(window_put(&window, UINT64_MAX, record(9), 3));
    assert_int_equal(window.capacity, 1024);
    for (uint64_t number = 2; number < 1024; number++)
        assert_true(window_put(&window, number, record(number), number));
    assert_true(window_put(&window, 4000, record(4000), 1025)); /* at most four numbers for each that is held */
    for (uint64_t number = 1; number <= 1024; number++)
        assert_ptr_equal(window_get(&window, number), record(number));
    assert_null(window_get(&window, 1025));
    assert_ptr_equal(window_get(&window, 4000), record(4000));
    window_raise(&window, 1000, note_passed, &passing);
    assert_int_equal(passing.count, 1000);
    assert_null(window_get(&window, 1000));
    assert_ptr_equal(window_get(&window, 1001), record(1001));
    window_raise(&window, UINT64_MAX, note_passed, &passing);
    assert_int_equal(passing.count, 1025);
    assert_int_equal(window.count, 0);
    assert_null(window_get(&window, UINT64_MAX));
    window_free(&window);
}

static void window_gives_back(void **state)
{
    (void)state;
    struct window window = {0};
    struct passing passing = {0};
    for (uint64_t number = 1; number <= 100000; number++)
        assert_true(window_put(&window, number, record(number), number));
    window_raise(&window, 99999, note_passed, &passing);
    window_settle(&window); /* what was needed until now stays this time */
    assert_int_equal(window.capacity, 131072);
    window_settle(&window);
    assert_int_equal(window.capacity, 64);
    assert_ptr_equal(window_get(&window, 100000), record(100000));
    window_free(&window);
}

/* ---- blobs, calls, outputs ---- */

static void blobs_count_owners(void **state)
{
    (void)state;
    struct blob *blob = blob_create(3);
    memcpy(blob->data, "abc", 3);
    assert_ptr_equal(blob_share(blob), blob);
    assert_int_equal(blob->owners, 2);
    blob_release(blob);
    assert_int_equal(blob->owners, 1);
    assert_memory_equal(blob->data, "abc", 3);
    blob_release(blob);
    blob_release(NULL);
}

/* A stored output's body, read as a client reads it; valid until the next one. */
static struct command_output read_stored(const struct stored_output *output, struct slice *payload)
{
    static uint8_t body[256 * 1024];
    struct command_output read;
    size_t size = 0;
    assert_true(output->body_size <= sizeof(body));
    for (size_t i = 0; i < output_part_count(output); i++) {
        struct slice part = output_part(output, i);
        assert_true(i > 0 || part.size > output->snapshot_at);
        if (part.size > 0)
            memcpy(body + size, part.data, part.size);
        size += part.size;
    }
    assert_int_equal(size, output->body_size);
    assert_int_equal(read_partition_command_output(body, size, &read, payload), READ_OK);
    assert_int_equal(read.kind, COMMAND_SESSION_COMMAND);
    assert_int_equal(read.session_kind, SESSION_COMMAND_SERVICE_COMMAND);
    assert_int_equal(read.index, output->index);
    assert_int_equal(read.sequence_num, output->number);
    assert_int_equal(output->content_size, payload->size + read.operation.message.size);
    /* What ends it: ServiceCommandOutput. */
    struct field_reader reader = field_reader((struct slice){body + output->snapshot_at, size - output->snapshot_at});
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(1, WIRE_VARINT));
    assert_int_equal(reader.value, output->number);
    assert_true(field_next(&reader));
    assert_int_equal(reader.tag, FIELD(2, WIRE_BYTES));
    assert_false(field_next(&reader));
    assert_false(reader.malformed);
    return read;
}

static void call_collects_pieces(void **state)
{
    (void)state;
    struct service_call call = {0};
    struct slice payload;
    struct blob *blob = blob_create(10);
    memcpy(blob->data, "0123456789", 10);
    call_begin(&call, 5, 6, (struct slice){NULL, 0});
    memcpy(call_put(&call, 2), "ab", 2);
    memcpy(call_reserve(&call, 3), "c..", 3);
    call_advance(&call, call.bytes + 3); /* just the first of these */
    call_put_blob(&call, blob, 3, 4);
    call_put_blob(&call, blob, 3, 0); /* nothing */
    call_put_blob(&call, blob, 9, 1);
    memcpy(call_put(&call, 1), "d", 1);
    assert_int_equal(call.piece_count, 2);
    assert_int_equal(call_payload_size(&call), 9);
    assert_int_equal(blob->owners, 3);
    struct outputs outputs = {0};
    struct stored_output *output = outputs_append(&outputs, 9, 1, call.index, &call);
    assert_int_equal(blob->owners, 5);
    call_fail(&call, STATUS_CONFLICT, "no");
    assert_int_equal(blob->owners, 3);
    assert_int_equal(call_payload_size(&call), 0);
    assert_int_equal(read_stored(output, &payload).operation.status, STATUS_OK);
    assert_int_equal(payload.size, 9);
    assert_memory_equal(payload.data, "abc34569d", 9);
    assert_ptr_equal(output_part(output, 1).data, blob->data + 3); /* shared, not copied */
    struct stored_output *failed = outputs_append(&outputs, 10, 1, call.index, &call);
    struct command_output refused = read_stored(failed, &payload);
    assert_int_equal(refused.operation.status, STATUS_CONFLICT);
    assert_int_equal(payload.size, 0);
    assert_int_equal(refused.operation.message.size, 2);
    assert_memory_equal(refused.operation.message.data, "no", 2);
    outputs_release(&outputs, output);
    assert_int_equal(blob->owners, 1);
    blob_release(blob);
    call_free(&call);
    unsigned budget = 100;
    assert_true(outputs_free(&outputs, &budget));
}

/* Puts and stores an answer of `size` inline bytes and `shared` others, and looks at all that is stored of it. */
static void store_and_read(struct outputs *outputs, struct service_call *call, size_t size, size_t shared,
                           uint64_t number)
{
    static uint8_t written[32 * 1024];
    struct slice payload;
    struct blob *blob = blob_create(50);
    uint8_t *end = written;
    memset(blob->data, 'b', 50);
    for (size_t done = 0, part; done < size; done += part) {
        part = size - done < 4000 ? size - done : 4000;
        memset(call_put(call, part), 'i', part);
    }
    call_put_blob(call, blob, 50 - shared, shared);
    struct stored_output *output = outputs_append(outputs, 77, number, call->index, call);
    struct command_output read = read_stored(output, &payload);
    assert_int_equal(blob->owners, shared > 0 ? 3 : 1);
    assert_int_equal(output->sequence_num, 77);
    assert_int_equal(read.index, call->index);
    assert_int_equal(read.sequence_num, number);
    assert_int_equal(read.operation.status, call->status);
    assert_int_equal(read.operation.message.size, call->message_size);
    assert_int_equal(payload.size, size + shared);
    for (size_t i = 0; i < payload.size; i++)
        assert_int_equal(payload.data[i], i < size ? 'i' : 'b');
    /* The same bytes as the writer's. */
    assert_int_equal(partition_command_output_size(&read), output->body_size);
    assert_ptr_equal(write_partition_command_output(written, &read), written + output->body_size);
    for (size_t i = 0; i < output_part_count(output); i++) {
        struct slice part = output_part(output, i);
        assert_true(part.size == 0 || memcmp(end, part.data, part.size) == 0);
        end += part.size;
    }
    outputs_release(outputs, output);
    blob_release(blob);
}

/* At every place where another number of bytes is needed for a length, for the index or for the number. */
static void outputs_of_every_size(void **state)
{
    (void)state;
    static const uint64_t indexes[] = {1, 127, 128, 16383, 16384, UINT64_C(1) << 35, UINT64_MAX};
    static const uint64_t numbers[] = {1, 126, 127, 128, 129, UINT64_C(1) << 40, 2};
    struct outputs outputs = {0};
    struct service_call call = {0};
    for (size_t size = 0; size < 16500; size += size == 260 ? 16000 : 1)
        for (unsigned kind = 0; kind < 4; kind++) {
            call_begin(&call, indexes[(size + kind) % 7], 1, (struct slice){NULL, 0});
            if (kind >= 2)
                call.status = STATUS_INTERNAL;
            call.message_size = kind == 3 ? size % MR_MESSAGE_MAX : 0;
            memset(call.message, 'm', call.message_size);
            store_and_read(&outputs, &call, size, kind == 1 ? size % 50 : 0, numbers[size / 7 % 7]);
        }
    call_free(&call);
    unsigned budget = 10000;
    assert_true(outputs_free(&outputs, &budget));
}

static void long_messages_are_cut_between_characters(void **state)
{
    (void)state;
    char message[400];
    struct service_call call = {0};
    for (unsigned start = 0; start < 2; start++) {
        memset(message, 'a', sizeof(message));
        for (size_t i = start; i + 1 < sizeof(message); i += 2)
            memcpy(message + i, "\xc3\xa4", 2);
        message[sizeof(message) - 1] = '\0';
        call_begin(&call, 1, 1, (struct slice){NULL, 0});
        call_fail(&call, STATUS_ERROR, message);
        assert_int_equal(call.message_size, MR_MESSAGE_MAX - start);
        assert_int_equal((uint8_t)call.message[call.message_size - 1], 0xa4);
    }
    call_free(&call);
}

struct holder {
    struct stored_output *of[20001];
    size_t moved;
};

static void note_moved(void *context, struct stored_output *from, struct stored_output *to)
{
    struct holder *holder = context;
    assert_ptr_equal(holder->of[to->sequence_num], from);
    holder->of[to->sequence_num] = to;
    holder->moved++;
}

static void check_record(const struct stored_output *output, uint64_t number)
{
    struct slice part = {0};
    assert_int_equal(output->sequence_num, number);
    assert_int_equal(read_stored(output, &part).index, number);
    assert_int_equal(part.size, 1 + number % 300);
    for (size_t i = 0; i < part.size; i++)
        assert_int_equal(part.data[i], (uint8_t)number);
}

static void outputs_stay_small_and_whole(void **state)
{
    (void)state;
    struct holder *holder = calloc(1, sizeof(*holder));
    struct outputs outputs = {0};
    struct service_call call = {0};
    for (uint64_t number = 1; number <= 20000; number++) {
        call_begin(&call, number, 1, (struct slice){NULL, 0});
        memset(call_put(&call, 1 + number % 300), (uint8_t)number, 1 + number % 300);
        holder->of[number] = outputs_append(&outputs, number, 1, call.index, &call);
    }
    size_t full = outputs.bytes;
    for (uint64_t number = 1; number <= 20000; number++) { /* one in a hundred stays: every chunk is sparse */
        if (number % 100 == 0)
            continue;
        outputs_release(&outputs, holder->of[number]);
    }
    outputs_settle(&outputs, note_moved, holder);
    outputs_settle(&outputs, note_moved, holder);
    assert_true(holder->moved >= 100);
    assert_true(outputs.bytes < full / 20);
    assert_int_equal(outputs.spares, 0);
    for (uint64_t number = 100; number <= 20000; number += 100) {
        check_record(holder->of[number], number);
        outputs_release(&outputs, holder->of[number]);
    }
    assert_int_equal(outputs.live, 0);
    for (unsigned i = 0; i < 3; i++)
        outputs_settle(&outputs, note_moved, holder);
    assert_int_equal(outputs.bytes, 0);
    assert_null(outputs.newest);
    unsigned budget = 1;
    assert_true(outputs_free(&outputs, &budget));
    call_free(&call);
    free(holder);
}

static void outputs_larger_than_a_chunk(void **state)
{
    (void)state;
    struct outputs outputs = {0};
    struct service_call call = {0};
    call_begin(&call, 1, 1, (struct slice){NULL, 0});
    for (unsigned i = 0; i < 50; i++)
        memset(call_put(&call, 4000), (int)i, 4000);
    struct stored_output *large = outputs_append(&outputs, 1, 1, call.index, &call);
    call_begin(&call, 2, 1, (struct slice){NULL, 0});
    struct stored_output *small = outputs_append(&outputs, 2, 1, call.index, &call);
    struct slice part;
    read_stored(large, &part);
    assert_int_equal(part.size, 200000);
    assert_int_equal(part.data[199999], 49);
    read_stored(small, &part);
    assert_int_equal(part.size, 0);
    outputs_release(&outputs, large);
    assert_true(outputs.bytes <= 64 * 1024);
    unsigned budget = 100;
    assert_true(outputs_free(&outputs, &budget));
    call_free(&call);
}

/* ---- garbage ---- */

struct heap_of {
    struct garbage_item item;
    unsigned objects;
    bool *gone;
};

static bool collect_heap(struct garbage_item *item, unsigned *budget)
{
    struct heap_of *heap = container_of(item, struct heap_of, item);
    unsigned freed = heap->objects < *budget ? heap->objects : *budget;
    heap->objects -= freed;
    *budget -= freed;
    if (heap->objects > 0)
        return false;
    *heap->gone = true;
    free(heap);
    return true;
}

static void garbage_goes_in_steps(void **state)
{
    (void)state;
    struct garbage garbage;
    bool gone[2] = {false};
    garbage_init(&garbage);
    assert_false(garbage_collect(&garbage, 10));
    for (unsigned i = 0; i < 2; i++) {
        struct heap_of *heap = calloc(1, sizeof(*heap));
        *heap = (struct heap_of){.objects = 10, .gone = &gone[i]};
        garbage_add(&garbage, &heap->item, collect_heap);
    }
    assert_true(garbage_collect(&garbage, 7));
    assert_false(gone[0]);
    assert_true(garbage_collect(&garbage, 7));
    assert_true(gone[0]);
    assert_false(gone[1]);
    assert_false(garbage_collect(&garbage, 7));
    assert_true(gone[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_finds_what_is_in_it),
        cmocka_unit_test(table_with_room_made),
        cmocka_unit_test(table_shrinks),
        cmocka_unit_test(table_takes_a_replacement),
        cmocka_unit_test(timers_fire_in_order),
        cmocka_unit_test(window_takes_what_is_near),
        cmocka_unit_test(window_gives_back),
        cmocka_unit_test(blobs_count_owners),
        cmocka_unit_test(call_collects_pieces),
        cmocka_unit_test(outputs_of_every_size),
        cmocka_unit_test(long_messages_are_cut_between_characters),
        cmocka_unit_test(outputs_stay_small_and_whole),
        cmocka_unit_test(outputs_larger_than_a_chunk),
        cmocka_unit_test(garbage_goes_in_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
