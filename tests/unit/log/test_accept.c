/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery's rule for what follows on what, one condition at a time, on batches made by hand: also those that only
 * recycled segments will bring. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/log/batch.h"
#include "engine/log/segment.h"
#include "millrace/limits.h"
#include "tests/support/fake_io.h"

#define DIRECTORY "/data/1"

enum { BLOCK = 4096, SECRET = 77, SEGMENT_BYTES = 256 * 1024 };

struct hand {
    struct fake_machine *machine;
    struct log_config config;
    struct batch_header next; /* as it has to be */
    uint64_t replayed, sum;
    struct log_recovery report;
    struct mr_error error;
};

static void hand_init(struct hand *hand)
{
    memset(hand, 0, sizeof *hand);
    hand->machine = fake_machine_create(1);
    fake_make_directory(hand->machine, DIRECTORY);
    hand->config = (struct log_config){.path = DIRECTORY,
                                       .partition = 1,
                                       .secret = SECRET,
                                       .batch_bytes = 8 * MR_KIB,
                                       .segment_bytes = SEGMENT_BYTES,
                                       .largest_body = 1024};
    hand->next = (struct batch_header){.flags = BATCH_FIRST_OF_EPOCH,
                                       .length = BATCH_HEADER_BYTES,
                                       .partition = 1,
                                       .segment = 1,
                                       .epoch = 1,
                                       .sequence = 1,
                                       .first_index = 1,
                                       .time = 1000};
}

static void put_segment(struct hand *hand, uint32_t slot, uint64_t number)
{
    char name[SEGMENT_NAME_SIZE];
    segment_name(name, slot);
    uint8_t header[SEGMENT_HEADER_BYTES], last = 0;
    struct segment segment = {.number = number, .size = SEGMENT_BYTES, .block = BLOCK, .slot = slot};
    segment_encode(header, &segment, &hand->config);
    fake_file_write(hand->machine, DIRECTORY, name, header, sizeof header, 0);
    fake_file_write(hand->machine, DIRECTORY, name, &last, 1, SEGMENT_BYTES - 1);
}

/* Writes a batch as the header says, with entries whose position is their index. */
static void put_batch(struct hand *hand, uint32_t slot, unsigned block, struct batch_header header)
{
    char name[SEGMENT_NAME_SIZE];
    uint8_t bytes[BLOCK] = {0};
    segment_name(name, slot);
    for (uint32_t n = 0; n < header.count; n++) {
        struct entry_header entry = {.channel = 1, .position = header.first_index + n};
        memcpy(bytes + BATCH_HEADER_BYTES + n * ENTRY_HEADER_BYTES, &entry, sizeof entry);
    }
    header.length = BATCH_HEADER_BYTES + header.count * ENTRY_HEADER_BYTES;
    uint64_t sum = batch_seal(bytes, &header, SECRET);
    fake_file_write(hand->machine, DIRECTORY, name, bytes, sizeof bytes, (uint64_t)block * BLOCK);
    hand->next = header;
    hand->next.flags = 0;
    hand->next.previous = sum;
    hand->next.durable_through = header.sequence - 1;
    hand->next.sequence++;
    hand->next.first_index += header.count;
    hand->next.count = 1;
}

static int on_replay(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct hand *hand = context;
    (void)error;
    hand->replayed++;
    hand->sum += entry->origin.position;
    return 0;
}

static int hand_open(struct hand *hand, uint64_t after)
{
    struct log *log = NULL;
    hand->config.io = fake_io_create(hand->machine);
    hand->replayed = hand->sum = 0;
    int result = log_open(&hand->config, &(struct log_start){.index = after}, on_replay, hand, &hand->report, &log,
                          &hand->error);
    if (result == 0)
        log_abandon(log);
    fake_io_destroy(hand->config.io);
    return result;
}

/* A log of an epoch and three entries, in blocks 1 to 4 of segment 1. */
static void put_log(struct hand *hand)
{
    put_segment(hand, 0, 1);
    for (unsigned block = 1; block <= 4; block++)
        put_batch(hand, 0, block, hand->next);
}

/* One field of the fourth entry's batch is not as it has to be. */
static void only_what_follows_on_is_accepted(void **state)
{
    (void)state;
    enum { RIGHT, PARTITION, SEGMENT, EPOCH, SEQUENCE, INDEX, TIME, PREVIOUS, FIRST, LATER, MIDDLE, CASES };
    for (unsigned wrong = RIGHT; wrong < CASES; wrong++) {
        struct hand hand;
        hand_init(&hand);
        put_log(&hand);
        struct batch_header header = hand.next;
        header.durable_through = 0;
        header.partition += wrong == PARTITION;
        header.segment += wrong == SEGMENT;
        header.epoch -= wrong == EPOCH;
        header.sequence += wrong == SEQUENCE;
        header.first_index += wrong == INDEX;
        header.time -= wrong == TIME;
        header.previous += wrong == PREVIOUS;
        header.flags |= wrong == FIRST || wrong == LATER ? BATCH_FIRST_OF_EPOCH : 0;
        header.epoch += wrong == LATER || wrong == MIDDLE;
        header.count = wrong == LATER ? 0 : 1;
        put_batch(&hand, 0, 5, header);
        int result = hand_open(&hand, 0);
        assert_int_equal(result, wrong == MIDDLE ? -1 : 0); /* an epoch without its beginning: that is missing */
        assert_int_equal(hand.replayed, wrong == RIGHT ? 4 : 3);
        if (result == 0)
            assert_int_equal(hand.report.epoch, wrong == LATER ? 3 : 2);
        fake_machine_destroy(hand.machine);
    }
}

/* What slots held in an earlier life stands behind what they hold now: same epoch, right places, even chained. */
static void remains_of_a_recycled_segment_say_nothing(void **state)
{
    (void)state;
    struct hand hand;
    hand_init(&hand);
    put_log(&hand);
    struct batch_header stale = {.partition = 1,
                                 .segment = 0,
                                 .epoch = 1,
                                 .sequence = 1000,
                                 .first_index = 1000,
                                 .count = 2,
                                 .time = 5000,
                                 .durable_through = 999};
    put_batch(&hand, 0, 5, stale);
    stale.flags = BATCH_FIRST_OF_EPOCH; /* in the first block of the next segment it would cut off all before it */
    stale.count = 0;
    stale.epoch = 9;
    stale.sequence = 2;
    put_segment(&hand, 1, 2);
    put_batch(&hand, 1, 1, stale);
    put_batch(&hand, 1, 2, stale);
    assert_int_equal(hand_open(&hand, 0), 0);
    assert_int_equal(hand.replayed, 3);
    assert_int_equal(hand.report.torn_batches, 0);
    fake_machine_destroy(hand.machine);
}

/* A batch that was the first in its segment is torn in its header: that is told, once. */
static void a_torn_beginning_of_a_segment_is_told(void **state)
{
    (void)state;
    struct hand hand;
    hand_init(&hand);
    put_log(&hand);
    put_segment(&hand, 1, 2);
    hand.next.segment = 2;
    put_batch(&hand, 1, 1, hand.next);
    uint8_t wrong = 0xff;
    fake_file_write(hand.machine, DIRECTORY, "segment-0001", &wrong, 1, BLOCK + 70);
    assert_int_equal(hand_open(&hand, 0), 0);
    assert_int_equal(hand.replayed, 3);
    assert_int_equal(hand.report.torn_batches, 1);
    assert_int_equal(hand.report.torn_bytes, BLOCK);
    assert_string_equal(hand.report.torn_file, "segment-0001");
    assert_int_equal(hand.report.torn_offset, BLOCK);
    assert_int_equal(hand_open(&hand, 0), 0);
    assert_int_equal(hand.report.torn_batches, 0);
    fake_machine_destroy(hand.machine);
}

/* An epoch that begins in a later segment cuts off what it does not continue after, there and in between. */
static void a_later_epoch_cuts_off(void **state)
{
    (void)state;
    struct hand hand;
    hand_init(&hand);
    put_segment(&hand, 0, 1);
    put_batch(&hand, 0, 1, hand.next);
    put_batch(&hand, 0, 2, hand.next); /* index 1 */
    struct batch_header point = hand.next;
    put_batch(&hand, 0, 3, hand.next); /* index 2: failed, and landed all the same */
    put_batch(&hand, 0, 4, hand.next);
    put_segment(&hand, 1, 2);
    struct batch_header first = point;
    first.segment = 2;
    first.epoch = 2;
    first.flags = BATCH_FIRST_OF_EPOCH;
    first.count = 0;
    put_batch(&hand, 1, 1, first); /* this failed too */
    put_segment(&hand, 2, 4);
    first.segment = 4;
    first.epoch = 3;
    put_batch(&hand, 2, 1, first);
    hand.next.first_index = 2;
    put_batch(&hand, 2, 2, hand.next);
    put_batch(&hand, 2, 3, hand.next);
    assert_int_equal(hand_open(&hand, 0), 0);
    assert_int_equal(hand.replayed, 3);
    assert_int_equal(hand.sum, 1 + 2 + 3);
    assert_int_equal(hand.report.epoch, 4);
    fake_machine_destroy(hand.machine);
}

/* When older segments are gone, because a snapshot has what they held, the chain begins in the middle. */
static void a_log_may_begin_later(void **state)
{
    (void)state;
    struct hand hand;
    hand_init(&hand);
    put_segment(&hand, 0, 6);
    hand.next = (struct batch_header){.partition = 1,
                                      .segment = 6,
                                      .epoch = 4,
                                      .sequence = 500,
                                      .first_index = 101,
                                      .count = 1,
                                      .time = 9,
                                      .durable_through = 499,
                                      .previous = 12345};
    for (unsigned block = 1; block <= 5; block++)
        put_batch(&hand, 0, block, hand.next);
    assert_int_equal(hand_open(&hand, 102), 0);
    assert_int_equal(hand.replayed, 3);
    assert_int_equal(hand.sum, 103 + 104 + 105);
    assert_int_equal(hand.report.last_index, 105);
    assert_int_equal(hand_open(&hand, 99), -1);
    assert_non_null(strstr(hand.error.text, "begins with segment-0000 at index 101"));
    fake_machine_destroy(hand.machine);
}

static void a_copied_segment_is_refused(void **state)
{
    (void)state;
    struct hand hand;
    hand_init(&hand);
    put_log(&hand);
    put_segment(&hand, 3, 1);
    assert_int_equal(hand_open(&hand, 0), -1);
    assert_non_null(strstr(hand.error.text, "segment-0000"));
    assert_non_null(strstr(hand.error.text, "segment-0003"));
    fake_machine_destroy(hand.machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_follows_on_is_accepted),
        cmocka_unit_test(remains_of_a_recycled_segment_say_nothing),
        cmocka_unit_test(a_torn_beginning_of_a_segment_is_told),
        cmocka_unit_test(a_later_epoch_cuts_off),
        cmocka_unit_test(a_log_may_begin_later),
        cmocka_unit_test(a_copied_segment_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
