/* SPDX-License-Identifier: Apache-2.0 */
/* See planted.h. A test that starts a node as a process of its own names the fault in the node's environment:
 * MR_PLANTED=HEAD_MOVED_EARLY. */
#ifdef MR_TESTING
#include "ipc/planted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum planted_fault planted_fault = PLANTED_NOTHING;

__attribute__((constructor)) static void plant_from_environment(void)
{
#define NAME(fault) [PLANTED_##fault] = #fault
    static const char *const names[PLANTED_COUNT] = {
        NAME(NOTHING),           NAME(ANSWER_BEFORE_FLUSH),   NAME(NO_DIRECTORY_SYNC),    NAME(WRONG_TORN_RULE),
        NAME(HEAD_MOVED_EARLY),  NAME(NUMBER_FORGOTTEN),      NAME(STALE_BATCH_BELIEVED), NAME(NO_EPOCH_AFTER_FAILURE),
        NAME(LENGTH_READ_TWICE), NAME(CHECKED_BEFORE_COPIED), NAME(TAIL_BELIEVED),        NAME(BELL_GIVEN_AWAY),
        NAME(BELL_UNPRICED),     NAME(SEED_IGNORED),          NAME(DESCRIPTOR_LEFT),      NAME(MAPPING_LEFT)};
#undef NAME
    const char *wanted = getenv("MR_PLANTED");

    if (wanted == NULL)
        return;
    for (unsigned i = 0; i < PLANTED_COUNT; i++)
        if (strcmp(wanted, names[i]) == 0) {
            planted_fault = (enum planted_fault)i;
            return;
        }
    fprintf(stderr, "MR_PLANTED=%s: there is no such fault\n", wanted);
    abort();
}
#endif
