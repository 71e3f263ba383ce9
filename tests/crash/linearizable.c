/* SPDX-License-Identifier: Apache-2.0 */
/* See linearizable.h.
 *
 * A configuration's next operation is the first one left of some lane, provided that no operation that is left was
 * answered before it was called. If one of these is a reading or a refusal, and fits here, it can stand next without
 * loss: it changes nothing wherever it stands, so any order that works from here also works with it moved to the front.
 * So only operations with an effect make the search branch: answered ones whose answer fits (by their hints), then
 * unanswered ones, the latest called first. */
#include "tests/crash/linearizable.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum lin_outcome lin_apply(const struct lin_operation *operation, uint64_t *state, uint64_t *result)
{
    bool fits = operation->condition == LIN_ANY || operation->condition == *state;

    *result = 0;
    switch (operation->kind) {
    case LIN_READ:
        *result = *state;
        return LIN_OK;
    case LIN_ADD:
        *result = *state += operation->argument;
        return LIN_OK;
    case LIN_SET:
        *result = *state = operation->argument;
        return LIN_OK;
    case LIN_CAS:
        if (operation->condition != *state)
            return LIN_CONFLICT;
        *result = *state = operation->argument;
        return LIN_OK;
    case LIN_INSERT:
        if (*state != 0)
            return LIN_EXISTS;
        *state = operation->argument;
        return LIN_OK;
    case LIN_UPDATE:
    case LIN_REMOVE:
        if (*state == 0)
            return LIN_ABSENT;
        /* fall through */
    case LIN_PUT:
        if (!fits)
            return LIN_CONFLICT;
        if (operation->kind == LIN_REMOVE)
            *result = *state;
        *state = operation->kind == LIN_REMOVE ? 0 : operation->argument;
        return LIN_OK;
    }
    return LIN_OK;
}

/* Did it answer what it would answer at `state`? Then that becomes the state behind it. */
static bool answers(const struct lin_operation *operation, uint64_t *state)
{
    uint64_t next = *state;
    uint64_t result;
    enum lin_outcome outcome = lin_apply(operation, &next, &result);
    bool matters = operation->kind == LIN_READ || operation->kind == LIN_ADD || operation->kind == LIN_REMOVE;

    if (operation->kind == LIN_READ && operation->outcome == LIN_ABSENT)
        return *state == 0;
    if (outcome != operation->outcome || (matters && outcome == LIN_OK && result != operation->result))
        return false;
    *state = next;
    return true;
}

struct lane {
    uint32_t *members; /* indexes of operations, in order */
    uint64_t *soonest; /* the earliest answer of this member and those behind it */
    uint32_t count;
};

/* A step of the search that can be taken back. */
struct step {
    uint32_t lane;
    bool free;       /* taken without loss: there is no other choice in its place */
    bool skipped;    /* the operation was left out */
    uint64_t before; /* the state */
};

struct search {
    const struct lin_operation *operations;
    struct lane *lanes;
    uint32_t lane_count;
    uint32_t *at; /* position in each lane, and behind these room for the state: the configuration */
    uint64_t state;
    size_t answered_left;
    struct step *steps;
    size_t step_count;
    XXH128_hash_t *seen; /* an open hash table: all zero is free */
    size_t seen_count, seen_size;
    size_t placed; /* of the steps, those that are no skips */
    struct lin_report report;
};

/* ---- The configurations seen ---- */

static void place(XXH128_hash_t *table, size_t size, XXH128_hash_t key)
{
    size_t slot = key.low64 & (size - 1);

    while (table[slot].low64 != 0 || table[slot].high64 != 0)
        slot = (slot + 1) & (size - 1);
    table[slot] = key;
}

static bool grow(struct search *search)
{
    size_t size = search->seen_size == 0 ? 1024 : search->seen_size * 2;
    XXH128_hash_t *table = calloc(size, sizeof(*table));

    if (table == NULL)
        return false;
    for (size_t i = 0; i < search->seen_size; i++)
        if (search->seen[i].low64 != 0 || search->seen[i].high64 != 0)
            place(table, size, search->seen[i]);
    free(search->seen);
    search->seen = table;
    search->seen_size = size;
    return true;
}

/* 1: it is new, and remembered; 0: it was there; -1: no memory. */
static int remember(struct search *search)
{
    memcpy(search->at + search->lane_count, &search->state, sizeof(search->state));
    XXH128_hash_t key = XXH3_128bits(search->at, (search->lane_count + 2) * sizeof(*search->at));

    if (search->seen_count * 2 >= search->seen_size && !grow(search))
        return -1;
    for (size_t slot = key.low64 & (search->seen_size - 1);; slot = (slot + 1) & (search->seen_size - 1)) {
        XXH128_hash_t *there = &search->seen[slot];
        if (there->low64 == key.low64 && there->high64 == key.high64)
            return 0;
        if (there->low64 == 0 && there->high64 == 0) {
            *there = key;
            search->seen_count++;
            return 1;
        }
    }
}

/* ---- Choices ---- */

static const struct lin_operation *first_of(const struct search *search, uint32_t lane)
{
    const struct lane *of = &search->lanes[lane];
    return search->at[lane] < of->count ? &search->operations[of->members[search->at[lane]]] : NULL;
}

static uint64_t soonest_answer(const struct search *search)
{
    uint64_t soonest = LIN_NEVER;

    for (uint32_t i = 0; i < search->lane_count; i++) {
        const struct lane *lane = &search->lanes[i];
        if (search->at[i] < lane->count && lane->soonest[search->at[i]] < soonest)
            soonest = lane->soonest[search->at[i]];
    }
    return soonest;
}

static void take(struct search *search, struct step step, uint64_t state)
{
    step.before = search->state;
    search->answered_left -= first_of(search, step.lane)->answered != LIN_NEVER;
    search->placed += !step.skipped;
    search->steps[search->step_count++] = step;
    search->at[step.lane]++;
    search->state = state;
}

static bool changes_nothing(const struct lin_operation *operation)
{
    return operation->answered != LIN_NEVER && (operation->kind == LIN_READ || operation->outcome != LIN_OK);
}

/* What changes nothing and fits goes first. */
static void take_free_ones(struct search *search)
{
    bool again = true;

    while (again) {
        uint64_t soonest = soonest_answer(search);
        again = false;
        for (uint32_t i = 0; i < search->lane_count; i++) {
            const struct lin_operation *first;
            while ((first = first_of(search, i)) != NULL && first->called < soonest && changes_nothing(first)) {
                uint64_t state = search->state;
                if (!answers(first, &state))
                    break;
                bool last = first->answered == soonest;
                take(search, (struct step){.lane = i, .free = true}, state);
                again = true;
                if (last)
                    break; /* the soonest answer is another one now */
            }
        }
    }
}

/* Tried in the order of group, rank and lane: answered ones, and others with a hint, by their hints; then unanswered
 * ones; then leaving one out that has answered ones behind it. */
struct choice {
    int group;
    uint64_t rank;
    struct step step;
    uint64_t state;
};

static void rank(struct choice *choice, const struct lin_operation *operation)
{
    bool guessed = operation->answered != LIN_NEVER || operation->hint != LIN_NO_HINT;

    choice->group = choice->step.skipped ? 2 : guessed ? 0 : 1;
    choice->rank = guessed ? operation->hint : UINT64_MAX - operation->called;
}

static bool sooner(const struct choice *a, const struct choice *b)
{
    if (a->group != b->group)
        return a->group < b->group;
    if (a->rank != b->rank)
        return a->rank < b->rank;
    return a->step.lane < b->step.lane;
}

/* Is it behind `after` and before the best that was found? Then it is the best. */
static bool better(struct choice *choice, const struct lin_operation *operation, const struct choice *after, bool found,
                   struct choice *best)
{
    rank(choice, operation);
    if ((after != NULL && !sooner(after, choice)) || (found && !sooner(choice, best)))
        return false;
    *best = *choice;
    return true;
}

/* The choice that comes behind `after` (NULL: the first), among all there are now. */
static bool next_choice(const struct search *search, const struct choice *after, struct choice *best)
{
    uint64_t soonest = soonest_answer(search);
    bool found = false;

    for (uint32_t i = 0; i < search->lane_count; i++) {
        const struct lin_operation *first = first_of(search, i);
        if (first == NULL || first->called > soonest)
            continue;
        struct choice choice = {.step = {.lane = i}, .state = search->state};
        uint64_t result;
        if (first->answered == LIN_NEVER)
            lin_apply(first, &choice.state, &result);
        else if (!answers(first, &choice.state))
            continue;
        found |= better(&choice, first, after, found, best);
        if (first->answered == LIN_NEVER && search->lanes[i].soonest[search->at[i]] != LIN_NEVER) {
            choice.state = search->state;
            choice.step.skipped = true;
            found |= better(&choice, first, after, found, best);
        }
    }
    return found;
}

/* ---- The search ---- */

static void note_progress(struct search *search)
{
    if (search->placed < search->report.placed)
        return;
    uint64_t soonest = LIN_NEVER;
    search->report.placed = search->placed;
    search->report.state = search->state;
    search->report.stuck = SIZE_MAX;
    for (uint32_t i = 0; i < search->lane_count; i++) {
        const struct lin_operation *first = first_of(search, i);
        if (first != NULL && first->answered < soonest) {
            soonest = first->answered;
            search->report.stuck = (size_t)(first - search->operations);
        }
    }
}

/* Takes steps back up to and with the last one that was a choice; false: there is none. *choice is that one. */
static bool back(struct search *search, struct choice *choice)
{
    while (search->step_count > 0) {
        struct step *step = &search->steps[--search->step_count];
        uint64_t state = search->state;
        search->at[step->lane]--;
        const struct lin_operation *first = first_of(search, step->lane);
        search->answered_left += first->answered != LIN_NEVER;
        search->placed -= !step->skipped;
        search->state = step->before;
        if (!step->free) {
            *choice = (struct choice){.step = *step, .state = state};
            rank(choice, first);
            return true;
        }
    }
    return false;
}

static enum lin_verdict decide(struct search *search, size_t most)
{
    struct choice last;
    bool tried = false; /* `last` is a choice of the configuration we stand at */

    for (;;) {
        if (!tried) {
            take_free_ones(search);
            note_progress(search);
            if (search->answered_left == 0)
                return LIN_YES;
            int fresh = remember(search);
            if (fresh < 0 || search->seen_count > most)
                return LIN_UNDECIDED;
            if (fresh == 0) {
                if (!back(search, &last))
                    return LIN_NO;
                tried = true;
                continue;
            }
        }
        struct choice choice = {0};
        if (next_choice(search, tried ? &last : NULL, &choice)) {
            take(search, choice.step, choice.state);
            tried = false;
        } else {
            if (!back(search, &last))
                return LIN_NO;
            tried = true;
        }
    }
}

/* ---- Setting up ---- */

static void forget(struct search *search)
{
    for (uint32_t i = 0; search->lanes != NULL && i < search->lane_count; i++) {
        free(search->lanes[i].members);
        free(search->lanes[i].soonest);
    }
    free(search->lanes);
    free(search->at);
    free(search->steps);
    free(search->seen);
}

/* Lanes are numbered anew, without the empty ones. */
static bool make_lanes(struct search *search, size_t count)
{
    uint32_t sizes[LIN_LANES_MAX] = {0};
    uint32_t number[LIN_LANES_MAX];

    for (size_t i = 0; i < count; i++)
        sizes[search->operations[i].lane]++;
    for (uint32_t i = 0; i < LIN_LANES_MAX; i++)
        if (sizes[i] > 0)
            number[i] = search->lane_count++;
    search->lanes = calloc(search->lane_count + 1, sizeof(*search->lanes));
    search->at = calloc(search->lane_count + 2, sizeof(*search->at));
    search->steps = calloc(count + 1, sizeof(*search->steps));
    if (search->lanes == NULL || search->at == NULL || search->steps == NULL)
        return false;
    for (uint32_t i = 0; i < LIN_LANES_MAX; i++) {
        if (sizes[i] == 0)
            continue;
        struct lane *lane = &search->lanes[number[i]];
        lane->members = calloc(sizes[i], sizeof(*lane->members));
        lane->soonest = calloc(sizes[i], sizeof(*lane->soonest));
        if (lane->members == NULL || lane->soonest == NULL)
            return false;
    }
    for (size_t i = 0; i < count; i++) {
        struct lane *lane = &search->lanes[number[search->operations[i].lane]];
        lane->members[lane->count++] = (uint32_t)i;
        search->answered_left += search->operations[i].answered != LIN_NEVER;
    }
    for (uint32_t i = 0; i < search->lane_count; i++) {
        struct lane *lane = &search->lanes[i];
        uint64_t soonest = LIN_NEVER;
        for (uint32_t j = lane->count; j-- > 0;) {
            uint64_t answered = search->operations[lane->members[j]].answered;
            soonest = answered < soonest ? answered : soonest;
            lane->soonest[j] = soonest;
        }
    }
    return true;
}

enum lin_verdict linearizable(const struct lin_operation *operations, size_t count, uint64_t initial, size_t most,
                              struct lin_report *report)
{
    struct search search = {.operations = operations, .state = initial};
    enum lin_verdict verdict = LIN_UNDECIDED;

    if (make_lanes(&search, count))
        verdict = decide(&search, most);
    search.report.configurations = search.seen_count;
    if (report != NULL)
        *report = search.report;
    forget(&search);
    return verdict;
}
