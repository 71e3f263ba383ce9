/* SPDX-License-Identifier: Apache-2.0 */
/* Recovery from files that the input's bytes make: segments and batches with right checksums, so that what is in them
 * is looked at, then damage. In `wild` histories any field may hold anything; in `tidy` ones the log is as a node would
 * have written it, and only one batch is damaged afterwards: then it is known what must come of it.
 *
 *   - log_read() and log_open() come to the same judgement, hand out the same entries, with indexes without a gap;
 *   - a refusal says why, and has written nothing;
 *   - what was accepted is accepted again after a good end, with what was appended since behind it (of a wild one it
 *     may be refused instead);
 *   - of a tidy log all entries before the damage are there; it is refused if a later batch shows that the damaged one
 *     was durable, else cut there.
 *
 * Planted fault: damage is taken for a torn end (PLANTED_WRONG_TORN_RULE). */
#include "engine/log/batch.h"
#include "engine/log/log.h"
#include "engine/log/segment.h"
#include "ipc/error.h"
#include "ipc/planted.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_io.h"

#include <millrace/limits.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FOLDER "/data/1"
#define SECRET UINT64_C(0x123456789abcdef)

enum { SEGMENT = 64 * 1024, SEGMENTS = 4, BATCHES = 24, BATCH = 4096, TURNS = 10000 };

/* A batch as it was written. */
struct written {
    uint64_t epoch, sequence, durable_through, entries;
    unsigned segment;
    uint64_t offset, length;
};

struct run {
    struct fuzz_input input;
    struct fake_machine *machine;
    bool tidy;
    uint8_t *files[SEGMENTS];
    unsigned segments;
    uint64_t end; /* in the last segment: where the next batch goes */
    struct batch_header last;
    uint64_t indexes; /* of the entries so far */
    struct written batches[BATCHES];
    unsigned count;
    unsigned damaged;    /* the batch; BATCHES: none */
    bool header_damaged; /* not only its entries */
};

/* What a reading gave. */
struct reading {
    int result;
    uint64_t entries, sum, first, last;
    struct log_recovery report;
};

static struct run run;

static struct log_config config_for(struct io *io)
{
    return (struct log_config){.io = io,
                               .path = FOLDER,
                               .partition = 1,
                               .secret = SECRET,
                               .durability = DURABILITY_SYNC,
                               .batch_bytes = MR_BATCH_BYTES_MIN,
                               .segment_bytes = SEGMENT,
                               .largest_body = BATCH,
                               .flush_interval = MR_FLUSH_INTERVAL_DEFAULT};
}

/* In a wild history now and then another number than it should be; none so large that counting on from it could wrap,
 * which takes longer than anything lasts. */
static uint64_t bend(uint64_t number)
{
    if (run.tidy)
        return number;
    uint8_t form = fuzz_byte(&run.input);
    if (form < 224)
        return number;
    if (form < 240)
        return (number + form - 232) & (UINT64_MAX >> 16);
    return fuzz_number(&run.input) & (UINT64_MAX >> 16);
}

/* Likewise of what counts from 1: counting back from the first must not wrap either. */
static uint64_t bend_counted(uint64_t number)
{
    uint64_t bent = bend(number);
    return bent == 0 ? 1 : bent;
}

/* ---- writing ---- */

static void begin_segment(void)
{
    unsigned n = run.segments++;
    struct log_config config = config_for(NULL);
    struct segment segment = {.slot = n};
    segment.number = bend_counted(n + 1);
    segment.size = bend(SEGMENT);
    segment.block = (uint32_t)bend(SEGMENT_BLOCK_MIN);
    segment.used = !run.tidy && fuzz_byte(&run.input) % 2 == 1;
    segment.epoch = bend(run.last.epoch);
    segment.after = bend(n);
    run.files[n] = calloc(1, SEGMENT);
    FUZZ_CHECK(run.files[n] != NULL);
    segment_encode(run.files[n], &segment, &config);
    run.end = SEGMENT_BLOCK_MIN;
}

/* Entries into `bytes`; their length. */
static uint64_t put_entries(uint8_t *bytes, uint32_t count)
{
    uint64_t size = 0;
    for (uint32_t n = 0; n < count; n++) {
        uint32_t body = fuzz_byte(&run.input);
        struct entry_header entry = {
            .channel = 1 + n, .position = run.indexes * 8, .frame_size = body + 16, .uid = 1000};
        entry.size = (uint32_t)bend(body);
        entry.time_offset = (uint32_t)bend(n);
        memcpy(bytes + size, &entry, sizeof(entry));
        memset(bytes + size + sizeof(entry), (int)(run.indexes & 0xff), body);
        size += entry_bytes(body);
    }
    return size;
}

static void put_batch(bool new_epoch)
{
    struct batch_header *last = &run.last, header = {0};
    uint32_t count = new_epoch ? 0 : fuzz_byte(&run.input) % 5;
    if (run.segments == 0 || run.end + BATCH > SEGMENT || (!run.tidy && fuzz_byte(&run.input) >= 240)) {
        if (run.segments == SEGMENTS)
            return;
        begin_segment();
    }
    uint8_t *at = run.files[run.segments - 1] + run.end;
    uint64_t length = BATCH_HEADER_BYTES + put_entries(at + BATCH_HEADER_BYTES, count);
    uint64_t behind = last->sequence < 4 ? last->sequence : last->sequence - fuzz_byte(&run.input) % 4;
    if (behind < last->durable_through)
        behind = last->durable_through;
    if (run.tidy && !new_epoch && last->flags & BATCH_FIRST_OF_EPOCH)
        behind = last->sequence; /* nothing is written in an epoch before its first batch is durable */
    header.flags = (uint32_t)bend(new_epoch ? BATCH_FIRST_OF_EPOCH : 0);
    header.length = bend(length);
    if (header.length < BATCH_HEADER_BYTES || header.length > BATCH)
        header.length = length; /* so that it can be sealed */
    header.partition = (uint32_t)bend(1);
    header.count = (uint32_t)bend(count);
    header.segment = bend_counted(run.segments);
    header.epoch = bend_counted(last->epoch + new_epoch);
    header.sequence = bend_counted(last->sequence + 1);
    header.first_index = bend_counted(run.indexes + 1);
    header.time = bend(last->time + 1000);
    header.durable_through = bend(behind);
    header.previous = bend(last->checksum);
    batch_seal(at, &header, SECRET);
    if (!run.tidy && fuzz_byte(&run.input) >= 250)
        return; /* the next one goes over it, or stands beside what it claims */
    run.batches[run.count++] = (struct written){.epoch = header.epoch,
                                                .sequence = header.sequence,
                                                .durable_through = header.durable_through,
                                                .entries = count,
                                                .segment = run.segments - 1,
                                                .offset = run.end,
                                                .length = header.length};
    *last = header;
    run.indexes += count;
    run.end += BATCH;
}

/* A bit of one batch; in a wild history of anything. */
static void damage(void)
{
    uint64_t place = fuzz_below(&run.input, SEGMENT);
    uint8_t bits = (uint8_t)(1U << fuzz_byte(&run.input) % 8);
    if (!run.tidy) {
        run.files[place % run.segments][place] ^= bits;
        return;
    }
    run.damaged = (unsigned)(place % run.count);
    const struct written *batch = &run.batches[run.damaged];
    uint64_t offset = fuzz_below(&run.input, batch->length);
    /* The sum of the entries stands in the header, but is none of what the header's own sum vouches for. */
    bool in_sum = offset / sizeof(uint64_t) == offsetof(struct batch_header, checksum) / sizeof(uint64_t);
    run.header_damaged = offset < BATCH_HEADER_BYTES && !in_sum;
    run.files[batch->segment][batch->offset + offset] ^= bits;
}

static void make_files(void)
{
    put_batch(true);
    while (run.count < BATCHES && fuzz_more(&run.input)) {
        uint8_t code = fuzz_byte(&run.input);
        unsigned before = run.count;
        if (code >= 250)
            break;
        put_batch(code >= 230);
        if (run.tidy && run.count == before)
            break; /* full */
    }
    run.damaged = BATCHES;
    unsigned times = fuzz_byte(&run.input) % 4;
    for (unsigned i = 0; i < (run.tidy ? times % 2 : times); i++)
        damage();
    for (unsigned n = 0; n < run.segments; n++) {
        char name[SEGMENT_NAME_SIZE];
        segment_name(name, n);
        bool cut = !run.tidy && fuzz_byte(&run.input) >= 252;
        uint64_t size = cut ? fuzz_below(&run.input, SEGMENT) : SEGMENT;
        fake_file_write(run.machine, FOLDER, name, run.files[n], size, 0);
    }
}

/* ---- reading ---- */

static int note_entry(void *context, const struct log_entry *entry, struct mr_error *error)
{
    struct reading *reading = context;
    (void)error;
    FUZZ_CHECK(!entry->failed && (uintptr_t)entry->body % 8 == 0);
    if (reading->entries++ == 0)
        reading->first = entry->index;
    else
        FUZZ_CHECK(entry->index == reading->last + 1);
    reading->last = entry->index;
    reading->sum = XXH3_64bits_withSeed(entry->body, entry->size, reading->sum + entry->time + entry->origin.position);
    return 0;
}

static void check_reading(const struct reading *reading, const struct log_start *start, const struct mr_error *error)
{
    if (reading->result != 0) {
        FUZZ_CHECK(reading->result == -1 && error->text[0] != '\0');
        return;
    }
    FUZZ_CHECK(reading->entries == reading->report.entries);
    FUZZ_CHECK(reading->entries == 0 || reading->first == start->index + 1);
    FUZZ_CHECK(reading->entries == 0 || reading->last == reading->report.last_index);
}

static struct reading read_only(const struct log_start *start)
{
    struct reading reading = {0};
    struct mr_error error = {0};
    struct io *io = fake_io_create(run.machine);
    struct log_config config = config_for(io);
    reading.result = log_read(&config, start, note_entry, &reading, &reading.report, &error);
    fake_io_destroy(io);
    check_reading(&reading, start, &error);
    return reading;
}

/* Appends an entry and waits until it is durable. */
static void append_one(struct log *log, struct io *io, uint64_t index, uint64_t now)
{
    struct io_completion completions[8];
    struct log_entry entry = {0};
    uint8_t *body = log_reserve(log, 8);
    for (unsigned turns = 0; body == NULL && turns < TURNS; turns++) { /* the next segment is being prepared */
        log_submit(log, false);
        log_tick(log, now);
        io->ops->sleep(io, MR_MILLISECOND);
        for (unsigned n = io->ops->completions(io, completions, 8); n > 0; n--)
            log_complete(log, &completions[n - 1]);
        while (log_next(log, &entry))
            continue;
        body = log_reserve(log, 8);
    }
    FUZZ_CHECK(body != NULL);
    memset(body, 'x', 8);
    FUZZ_CHECK(log_append(log, now, &(struct log_origin){.channel = 1}, 8) == index);
    for (unsigned turns = 0; entry.index != index; turns++) {
        FUZZ_CHECK(turns < TURNS);
        log_submit(log, false);
        log_tick(log, now);
        io->ops->sleep(io, MR_MILLISECOND);
        for (unsigned n = io->ops->completions(io, completions, 8); n > 0; n--)
            log_complete(log, &completions[n - 1]);
        if (log_next(log, &entry))
            FUZZ_CHECK(!entry.failed && entry.index == index);
    }
}

static struct reading read_and_write(const struct log_start *start)
{
    struct reading reading = {0};
    struct mr_error error = {0};
    struct io *io = fake_io_create(run.machine);
    struct log_config config = config_for(io);
    struct log *log = NULL;
    reading.result = log_open(&config, start, note_entry, &reading, &reading.report, &log, &error);
    check_reading(&reading, start, &error);
    FUZZ_CHECK((log != NULL) == (reading.result == 0));
    if (log != NULL) {
        append_one(log, io, reading.report.last_index + 1, reading.report.time);
        FUZZ_CHECK(log_close(log, reading.report.time, &error) == 0);
    }
    fake_io_destroy(io);
    return reading;
}

/* ---- what must come of it ---- */

static uint64_t sum_of_files(void)
{
    static uint8_t bytes[SEGMENT];
    uint64_t sum = 0;
    const char *name;
    for (unsigned n = 0; (name = fake_file_name(run.machine, FOLDER, n)) != NULL; n++) {
        int64_t size = fake_file_size(run.machine, FOLDER, name);
        int64_t count = fake_file_read(run.machine, FOLDER, name, bytes, sizeof(bytes), 0);
        sum = XXH3_64bits_withSeed(bytes, count > 0 ? (size_t)count : 0, sum + (uint64_t)size);
    }
    return sum;
}

static void check_tidy(const struct reading *reading)
{
    uint64_t entries = 0;
    unsigned bad = run.damaged;
    bool durable = false;
    for (unsigned n = 0; n < run.count; n++) {
        const struct written *batch = &run.batches[n];
        if (n < bad)
            entries += batch->entries;
        if (bad >= BATCHES || n < bad || (n == bad && run.header_damaged))
            continue;
        durable = durable || batch->durable_through >= run.batches[bad].sequence ||
                  (n > bad && batch->epoch > run.batches[bad].epoch) ||
                  (n == bad && bad > 0 && batch->epoch > run.batches[bad - 1].epoch);
    }
    /* The first batch of all has a last one to follow on that is none; nothing in front of it can be missing. */
    if (bad != 0)
        FUZZ_CHECK((reading->result != 0) == durable);
    if (reading->result == 0)
        FUZZ_CHECK(reading->entries == entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    planted_fault = fuzz_planted() ? PLANTED_WRONG_TORN_RULE : PLANTED_NOTHING;
    memset(&run, 0, sizeof(run));
    run.input = (struct fuzz_input){data, data + size};
    run.machine = fake_machine_create(1);
    fake_make_directory(run.machine, FOLDER);
    uint8_t form = fuzz_byte(&run.input);
    run.tidy = form % 2 == 0;
    make_files();
    struct log_start start = {0};
    if (!run.tidy && form >= 192) {
        start.index = fuzz_byte(&run.input);
        start.segment = 1 + fuzz_byte(&run.input) % SEGMENTS;
    }
    uint64_t before = sum_of_files();
    struct reading looked = read_only(&start);
    FUZZ_CHECK(sum_of_files() == before);
    if (run.tidy)
        check_tidy(&looked);
    struct reading opened = read_and_write(&start);
    FUZZ_CHECK(opened.result == looked.result && opened.entries == looked.entries && opened.sum == looked.sum);
    if (opened.result != 0) {
        FUZZ_CHECK(sum_of_files() == before);
    } else {
        struct reading again = read_only(&start);
        /* What no node can have written may stand in its way later; but not unsaid: the sound first batch of an earlier
         * epoch in a segment behind the log's end. (A node writes the first batch of an epoch where the log ends, and
         * it is durable before anything else is; so behind it stand only later ones, or it is damage that it cannot be
         * accepted.) A start does not clear away all that stands behind the end: it may be what proves damage. */
        FUZZ_CHECK((again.result != 0 && !run.tidy) || (again.result == 0 && again.entries == opened.entries + 1));
    }
    fake_machine_destroy(run.machine);
    for (unsigned n = 0; n < run.segments; n++)
        free(run.files[n]);
    return 0;
}
