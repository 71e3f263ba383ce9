/* SPDX-License-Identifier: Apache-2.0 */
/* Which row of fsm.proto is to be treated as absent, in builds for tests (-DMR_TESTING); in others this file is empty.
 * The environment is looked at once, before main(). A name that is no row ends the program with status 125, so that no
 * test can fail for a slip of the pen. */
#ifdef MR_TESTING

#include "proto/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned row;
} names[] = {
#define ROW_NAME(group, name, number) {#group "." #name, row_##group##_##name},
    ROWS(ROW_NAME)
#undef ROW_NAME
#define ROW_EMPTY(message, holder, member) {#message, row_##holder##_##member},
        ROW_EMPTY_MESSAGES(ROW_EMPTY)
#undef ROW_EMPTY
};

unsigned row_to_drop;

__attribute__((constructor)) static void choose(void)
{
    const char *name = getenv("MR_DROP");
    if (name == NULL || *name == '\0')
        return;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i].name, name) == 0) {
            row_to_drop = names[i].row;
            return;
        }
    fprintf(stderr, "MR_DROP: no row of fsm.proto is called %s\n", name);
    exit(125);
}

#endif
