/* SPDX-License-Identifier: Apache-2.0 */
/* Operations: each object's history is put before the checker, and the indexes that the node told are held against
 * time. See check.h. */
#include "tests/crash/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/linearizable.h"

#define CONFIGURATIONS_MOST 3000000
#define NO_VALUE (UINT64_MAX - 1) /* as a condition: an index that no entry ever had */

/* One object of one life of the node's. */
struct object {
    const struct history *history;
    bool is_map;
    unsigned number, key;
    uint32_t generation;
    struct lin_operation *operations;
    size_t count, unanswered;
    struct pair {
        uint64_t index, value;
    } * pairs; /* which index goes with which value, in order of index */
    size_t pair_count;
};

static bool belongs(const struct object *object, const struct record *record)
{
    return record->what != NOTHING && (record->what >= MAP_GET) == object->is_map && record->object == object->number &&
           (!object->is_map || record->key == object->key) && record->generation == object->generation;
}

static bool is_read(const struct record *record)
{
    return record->what == COUNTER_GET || record->what == MAP_GET;
}

static void name_object(const struct object *object, FILE *verdict)
{
    if (object->is_map)
        fprintf(verdict, "map %u key %u", object->number, object->key);
    else
        fprintf(verdict, "counter %u", object->number);
    if (object->history->generation > 0)
        fprintf(verdict, " in generation %u", object->generation);
    fputs(": ", verdict);
}

/* ---- Indexes and values ---- */

static int by_index(const void *left, const void *right)
{
    const struct pair *a = left;
    const struct pair *b = right;

    if (a->index != b->index)
        return a->index < b->index ? -1 : 1;
    return a->value < b->value ? -1 : a->value > b->value;
}

static int by_value(const void *left, const void *right)
{
    const struct pair *a = left;
    const struct pair *b = right;

    if (a->value != b->value)
        return a->value < b->value ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* All the answers and events that show an entry; false: no memory. */
static bool find_pairs(struct object *object)
{
    const struct history *history = object->history;

    object->pairs = calloc((size_t)CLIENTS_MAX * (RECORDS_MAX + EVENTS_MAX), sizeof(*object->pairs));
    if (object->pairs == NULL)
        return false;
    for (unsigned i = 0; i <= history->client_count; i++) {
        const struct client *client = &history->clients[i];
        for (uint32_t j = 0; j < client->record_count; j++) {
            const struct record *record = &client->records[j];
            if (belongs(object, record) && record->answered != 0 && record->status == MR_OK)
                object->pairs[object->pair_count++] = (struct pair){record->entry_index, record->result};
        }
        for (uint32_t j = 0; j < client->event_count; j++) {
            const struct event *event = &client->events[j];
            if (history->parts[i].map == object->number && event->type != MR_LISTENING && event->key == object->key &&
                event->generation == object->generation)
                object->pairs[object->pair_count++] = (struct pair){event->entry_index, event->number};
        }
    }
    return true;
}

/* Each index has one value, each value one index. Leaves each pair once, in order of index. */
static bool check_pairs(struct object *object, FILE *verdict)
{
    struct pair *pairs = object->pairs;
    bool well = true;

    qsort(pairs, object->pair_count, sizeof(*pairs), by_value);
    for (size_t i = 1; i < object->pair_count && well; i++)
        if (pairs[i].value == pairs[i - 1].value && pairs[i].index != pairs[i - 1].index) {
            name_object(object, verdict);
            fprintf(verdict, "value %" PRIx64 " was written twice: at index %" PRIu64 " and %" PRIu64 "\n",
                    pairs[i].value, pairs[i - 1].index, pairs[i].index);
            well = false;
        }
    qsort(pairs, object->pair_count, sizeof(*pairs), by_index);
    size_t kept = 0;
    for (size_t i = 0; i < object->pair_count; i++) {
        if (kept > 0 && pairs[kept - 1].index == pairs[i].index) {
            if (pairs[kept - 1].value != pairs[i].value && well) {
                name_object(object, verdict);
                fprintf(verdict, "index %" PRIu64 " wrote %" PRIx64 " and %" PRIx64 "\n", pairs[i].index,
                        pairs[kept - 1].value, pairs[i].value);
                well = false;
            }
            continue;
        }
        pairs[kept++] = pairs[i];
    }
    object->pair_count = kept;
    return well;
}

static uint64_t value_of(const struct object *object, uint64_t index)
{
    for (size_t low = 0, high = object->pair_count; low < high;) {
        size_t middle = (low + high) / 2;
        if (object->pairs[middle].index == index)
            return object->pairs[middle].value;
        if (object->pairs[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return NO_VALUE;
}

static uint64_t index_of(const struct object *object, uint64_t value)
{
    for (size_t i = 0; i < object->pair_count; i++)
        if (object->pairs[i].value == value)
            return object->pairs[i].index;
    return LIN_NO_HINT;
}

/* ---- A record as the checker sees it ---- */

static enum lin_outcome outcome_of(const struct record *record)
{
    switch (record->status) {
    case MR_NOT_FOUND:
        return LIN_ABSENT;
    case MR_ALREADY_EXISTS:
        return LIN_EXISTS;
    case MR_CONFLICT:
        return LIN_CONFLICT;
    default:
        return LIN_OK;
    }
}

static struct lin_operation as_operation(const struct object *object, const struct record *record)
{
    static const enum lin_kind kinds[] = {
        [COUNTER_GET] = LIN_READ,  [COUNTER_ADD] = LIN_ADD,   [COUNTER_SET] = LIN_SET,
        [COUNTER_CAS] = LIN_CAS,   [MAP_GET] = LIN_READ,      [MAP_PUT] = LIN_PUT,
        [MAP_INSERT] = LIN_INSERT, [MAP_UPDATE] = LIN_UPDATE, [MAP_REMOVE] = LIN_REMOVE};
    struct lin_operation operation = {.called = record->called,
                                      .answered = record->answered != 0 ? record->answered : LIN_NEVER,
                                      .kind = kinds[record->what],
                                      .argument = record->argument,
                                      .condition = LIN_ANY,
                                      .outcome = outcome_of(record),
                                      .result = record->result,
                                      .hint = record->index != 0 ? record->index : LIN_NO_HINT};

    if (record->what == COUNTER_CAS)
        operation.condition = record->condition;
    else if (object->is_map && record->condition != 0)
        operation.condition = value_of(object, record->condition);
    if (record->answered == 0 && object->is_map)
        operation.hint = index_of(object, record->argument);
    return operation;
}

static int by_call(const void *left, const void *right)
{
    const struct lin_operation *a = left;
    const struct lin_operation *b = right;
    return a->called < b->called ? -1 : a->called > b->called;
}

/* Commands: a lane for each handle. Readings, which may overtake: lanes in which none overlaps the next. */
static bool gather(struct object *object)
{
    const struct history *history = object->history;
    uint64_t free_at[LIN_LANES_MAX] = {0}; /* of lanes of readings */
    uint32_t *lane_of = malloc((history->handles + 1) * sizeof(*lane_of));
    uint32_t lanes = 0;

    if (lane_of == NULL)
        return false;
    for (uint32_t i = 0; i <= history->handles; i++)
        lane_of[i] = UINT32_MAX;
    for (unsigned i = 0; i <= history->client_count; i++)
        for (uint32_t j = 0; j < history->clients[i].record_count; j++) {
            const struct record *record = &history->clients[i].records[j];
            if (!belongs(object, record) || (record->answered == 0 && is_read(record)))
                continue;
            struct lin_operation *operation = &object->operations[object->count++];
            *operation = as_operation(object, record);
            object->unanswered += record->answered == 0;
            if (!is_read(record) && lane_of[record->handle] == UINT32_MAX)
                lane_of[record->handle] = lanes++ % (LIN_LANES_MAX / 2);
            operation->lane = is_read(record) ? UINT32_MAX : lane_of[record->handle];
        }
    free(lane_of);
    qsort(object->operations, object->count, sizeof(*object->operations), by_call);
    for (size_t i = 0; i < object->count; i++) {
        struct lin_operation *operation = &object->operations[i];
        uint32_t lane = LIN_LANES_MAX / 2;
        if (operation->lane != UINT32_MAX)
            continue;
        while (lane < LIN_LANES_MAX - 1 && free_at[lane] > operation->called)
            lane++;
        operation->lane = lane;
        free_at[lane] = operation->answered;
    }
    return true;
}

/* ---- Verdicts ---- */

static void complain(const struct object *object, FILE *verdict, enum lin_verdict result,
                     const struct lin_report *report)
{
    name_object(object, verdict);
    fprintf(verdict, "%s: %zu operations, of which %zu can be put in an order that ends at %" PRIx64,
            result == LIN_NO ? "not linearizable" : "undecided", object->count, report->placed, report->state);
    if (report->stuck != SIZE_MAX)
        fprintf(verdict, " and leaves out the one called at %" PRIu64, object->operations[report->stuck].called);
    fprintf(verdict, " (%zu configurations)\n", report->configurations);
}

/* Of a counter that is only added to: the sum of what was answered, and at most what was not. */
static bool check_sum(const struct object *object, FILE *verdict)
{
    uint64_t sure = 0;
    uint64_t perhaps = 0;
    const struct client *last = &object->history->clients[object->history->client_count];

    for (size_t i = 0; i < object->count; i++)
        if (object->operations[i].kind == LIN_ADD)
            *(object->operations[i].answered == LIN_NEVER ? &perhaps : &sure) += object->operations[i].argument;
    for (uint32_t i = 0; i < last->record_count; i++) {
        const struct record *record = &last->records[i];
        if (!belongs(object, record) || record->answered == 0 ||
            (record->result >= sure && record->result <= sure + perhaps))
            continue;
        name_object(object, verdict);
        fprintf(verdict, "is %" PRIu64 "; the answered additions make %" PRIu64 ", the unanswered ones %" PRIu64 "\n",
                record->result, sure, perhaps);
        return false;
    }
    return true;
}

static bool check_object(struct object *object, FILE *verdict, struct tally *tally)
{
    bool well = false;
    struct lin_report report;

    object->operations = calloc((size_t)CLIENTS_MAX * RECORDS_MAX, sizeof(*object->operations));
    if (object->operations == NULL || (object->is_map && !find_pairs(object)) ||
        (well = !object->is_map || check_pairs(object, verdict), !gather(object))) {
        fprintf(verdict, "no memory to check with\n");
        well = false;
    } else {
        enum lin_verdict result = linearizable(object->operations, object->count, 0, CONFIGURATIONS_MOST, &report);
        if (result != LIN_YES)
            complain(object, verdict, result, &report);
        well = well && result == LIN_YES;
        tally->configurations += report.configurations;
        if (!object->is_map && object->number < SUM_COUNTERS)
            well = check_sum(object, verdict) && well;
    }
    tally->operations += object->count;
    tally->unanswered += object->unanswered;
    tally->objects++;
    free(object->operations);
    free(object->pairs);
    return well;
}

bool check_objects(const struct history *history, FILE *verdict, struct tally *tally)
{
    bool well = true;

    for (uint32_t generation = 0; generation <= history->generation; generation++) {
        for (unsigned i = 0; i < COUNTERS; i++) {
            struct object object = {.history = history, .number = i, .generation = generation};
            well = check_object(&object, verdict, tally) && well;
        }
        for (unsigned i = 0; i < MAPS * (KEYS + 1); i++) {
            struct object object = {.history = history,
                                    .is_map = true,
                                    .number = i / (KEYS + 1),
                                    .key = i % (KEYS + 1),
                                    .generation = generation};
            well = check_object(&object, verdict, tally) && well;
        }
    }
    return well;
}

/* ---- Indexes against time ---- */

struct told {
    uint64_t called, answered, index;
};

static int by_told_call(const void *left, const void *right)
{
    const struct told *a = left;
    const struct told *b = right;
    return a->called < b->called ? -1 : a->called > b->called;
}

static int by_told_answer(const void *left, const void *right)
{
    const struct told *a = left;
    const struct told *b = right;
    return a->answered < b->answered ? -1 : a->answered > b->answered;
}

static int by_told_index(const void *left, const void *right)
{
    const struct told *a = left;
    const struct told *b = right;
    return a->index < b->index ? -1 : a->index > b->index;
}

static bool check_told(struct told *told, size_t count, uint32_t partition, FILE *verdict)
{
    struct told *answers = malloc((count + 1) * sizeof(*answers));
    uint64_t highest = 0;
    size_t behind = 0;
    bool well = answers != NULL;

    if (!well)
        return false;
    qsort(told, count, sizeof(*told), by_told_index);
    for (size_t i = 1; well && i < count; i++)
        if (told[i].index == told[i - 1].index) {
            fprintf(verdict,
                    "partition %u: two commands, called at %" PRIu64 " and %" PRIu64 ", have index %" PRIu64 "\n",
                    partition, told[i - 1].called, told[i].called, told[i].index);
            well = false;
        }
    qsort(told, count, sizeof(*told), by_told_call);
    memcpy(answers, told, count * sizeof(*answers));
    qsort(answers, count, sizeof(*answers), by_told_answer);
    for (size_t i = 0; well && i < count; i++) {
        for (; behind < count && answers[behind].answered < told[i].called; behind++)
            highest = answers[behind].index > highest ? answers[behind].index : highest;
        if (told[i].index <= highest) {
            fprintf(verdict,
                    "partition %u: the command called at %" PRIu64 " has index %" PRIu64 ", and index %" PRIu64
                    " was answered before\n",
                    partition, told[i].called, told[i].index, highest);
            well = false;
        }
    }
    free(answers);
    return well;
}

bool check_indexes(const struct history *history, FILE *verdict)
{
    struct told *told = malloc((size_t)CLIENTS_MAX * RECORDS_MAX * sizeof(*told));
    bool well = told != NULL;

    for (uint32_t generation = 0; well && generation <= history->generation; generation++)
        for (uint32_t partition = 1; well && partition <= history->partitions; partition++) {
            size_t count = 0;
            for (unsigned i = 0; i <= history->client_count; i++)
                for (uint32_t j = 0; j < history->clients[i].record_count; j++) {
                    const struct record *record = &history->clients[i].records[j];
                    uint32_t in = record->what >= MAP_GET ? history->map_partition[record->object]
                                                          : history->counter_partition[record->object];
                    if (record->what != NOTHING && in == partition && record->generation == generation &&
                        record->index != 0 && record->answered != 0 && !is_read(record))
                        told[count++] = (struct told){record->called, record->answered, record->index};
                }
            well = check_told(told, count, partition, verdict);
        }
    free(told);
    return well;
}
