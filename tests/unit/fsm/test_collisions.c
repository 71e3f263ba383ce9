/* SPDX-License-Identifier: Apache-2.0 */
/* Keys chosen to meet in one bucket. Who knows the hash but not the seed finds keys that meet under a seed of his own;
 * under the directory's they lie as any others do. Chains are counted, not timed: with as many buckets as nodes, none
 * is longer than MOST, where the same keys under the seed that they were chosen for stand in one. */
#include "engine/fsm/hash.h"
#include "engine/fsm/owners.h"
#include "engine/fsm/state.h"
#include "engine/services/map_entries.h"
#include "ipc/planted.h"
#include "tests/support/partition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEYS = 1024,          /* a table of so many has as many buckets */
    SAME_BITS = KEYS - 1, /* of the hash */
    MOST = 16             /* of 1024 nodes thrown at as many buckets the fullest gets more once in 10^12 times */
};
#define SEED_OF_ATTACKER 0
static const uint64_t seeds[] = {1, 7, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(1) << 63, ~UINT64_C(0)};

static uint64_t numbers[KEYS];
static char names[KEYS][20];

/* Nodes in the fullest bucket. */
static size_t longest(const struct table *table)
{
    size_t most = 0;
    for (size_t array = 0; array < 2; array++) {
        struct table_node **buckets = array == 0 ? table->buckets : table->old;
        size_t count = array == 0 ? table->mask : table->old_mask;
        for (size_t i = 0; buckets != NULL && i <= count; i++) {
            size_t length = 0;
            for (struct table_node *node = buckets[i]; node != NULL; node = node->next)
                length++;
            most = length > most ? length : most;
        }
    }
    return most;
}

static struct slice name(unsigned n)
{
    return (struct slice){(const uint8_t *)names[n], strlen(names[n])};
}

/* What an attacker works out beforehand. */
static int choose(void **state)
{
    (void)state;
    uint64_t number = 0, text = 0;
    for (unsigned n = 0; n < KEYS; n++) {
        do
            number++;
        while ((hash_number(number, SEED_OF_ATTACKER) & SAME_BITS) != 0);
        numbers[n] = number;
        do
            snprintf(names[n], sizeof(names[n]), "key %llu", (unsigned long long)text++);
        while ((hash_bytes(name(n), SEED_OF_ATTACKER) & SAME_BITS) != 0);
    }
    return 0;
}

/* ---- each table that a client's choice gets into ---- */

static size_t longest_of_map(uint64_t seed)
{
    struct partition *partition = partition_create(seed, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    struct map_entries entries;
    map_entries_init(&entries, &partition->fsm->services.host, NULL);
    for (unsigned n = 0; n < KEYS; n++)
        map_write(&entries, NULL, &(struct map_kept){.key = name(n), .index = n + 1});
    for (unsigned n = 0; n < KEYS; n++)
        assert_non_null(map_find(&entries, name(n)));
    size_t result = longest(&entries.by_key);
    map_entries_free(&entries);
    partition_destroy(partition);
    return result;
}

static size_t longest_of_services(uint64_t seed)
{
    struct partition *partition = partition_create(seed, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    uint64_t session = partition_open_session(partition, 100 * MR_SECOND);
    for (unsigned n = 0; n < KEYS; n++) {
        const struct reply *reply = partition_create_service(partition, session, COUNTER_TYPE, names[n]);
        assert_int_equal(reply->status, STATUS_OK);
    }
    size_t result = longest(&partition->fsm->services.by_name);
    partition_destroy(partition);
    return result;
}

static size_t longest_of_owners(uint64_t seed)
{
    struct table owners;
    struct owner *added[KEYS];
    owners_init(&owners, seed);
    for (unsigned n = 0; n < KEYS; n++)
        added[n] = owners_add(&owners, (uint32_t)numbers[n], seed);
    size_t result = longest(&owners);
    for (unsigned n = 0; n < KEYS; n++)
        owners_remove(&owners, added[n]);
    table_free(&owners);
    return result;
}

/* Of commands in a session whose numbers do not follow each other. */
static size_t longest_of_numbers(uint64_t seed)
{
    struct partition *partition = partition_create(seed, MR_SESSION_OUTPUT_BYTES_DEFAULT);
    uint64_t id = partition_open_session(partition, 100 * MR_SECOND);
    uint64_t counter = partition_create_service(partition, id, COUNTER_TYPE, "c")->id;
    for (unsigned n = 0; n < KEYS; n++)
        assert_int_equal(partition_command(partition, id, counter, numbers[n], "Increment", number_payload(1))->status,
                         STATUS_OK);
    const struct session *session = fsm_find_session(partition->fsm, id);
    assert_true(session->commands.count > KEYS / 2); /* some are in the window */
    size_t result = longest(&session->commands);
    partition_destroy(partition);
    return result;
}

static const struct {
    const char *of;
    size_t (*longest)(uint64_t seed);
} tables[] = {{"a map's keys", longest_of_map},
              {"services' names", longest_of_services},
              {"users", longest_of_owners},
              {"a session's numbers", longest_of_numbers}};

/* ---- what becomes of the attack ---- */

static void chosen_keys_do_not_meet(void **state)
{
    (void)state;
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
        for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
            size_t length = tables[t].longest(seeds[i]);
            if (length > MOST)
                fail_msg("%s, seed %llx: a chain of %zu", tables[t].of, (unsigned long long)seeds[i], length);
        }
}

/* Else the above would show nothing: who knows the seed, or where it is not used, makes one chain of all. */
static void where_the_seed_is_known_they_do(void **state)
{
    (void)state;
    /* A service's name is hashed under its namespace's hash: for a seed that is known it would take other names. */
    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        if (tables[t].longest != longest_of_services)
            assert_true(tables[t].longest(SEED_OF_ATTACKER) > KEYS / 2);
        planted_fault = PLANTED_SEED_IGNORED;
        size_t length = tables[t].longest(seeds[0]);
        planted_fault = PLANTED_NOTHING;
        assert_true(length > KEYS / 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_keys_do_not_meet),
        cmocka_unit_test(where_the_seed_is_known_they_do),
    };
    return cmocka_run_group_tests(tests, choose, NULL);
}
