/* SPDX-License-Identifier: Apache-2.0 */
/* Asking for memory ahead of need. Changes nothing but which of a session's openings counts as used last. */
#include "engine/fsm/state.h"

enum { AT_ONCE = 16 };

/* Payloads for one service. */
struct batch {
    struct opening *opening;
    struct slice payloads[AT_ONCE];
    unsigned count;
};

static void ask(struct batch *batch)
{
    if (batch->count > 0)
        batch->opening->service->type->expect(batch->opening->service->state, batch->payloads, batch->count);
    batch->count = 0;
}

static struct opening *opening_of(struct fsm *fsm, const struct command_input *command)
{
    if (command == NULL || command->kind != COMMAND_SESSION_COMMAND ||
        command->session_kind != SESSION_COMMAND_SERVICE_COMMAND)
        return NULL;
    struct session *session = fsm->recent;
    if (session == NULL || session->id != command->session_id)
        session = fsm_find_session(fsm, command->session_id);
    return session == NULL ? NULL : service_opening(session, command->service_id);
}

void fsm_expect(struct fsm *fsm, const struct command_input *const *commands, unsigned count)
{
    struct batch batch;
    batch.count = 0;
    for (unsigned i = 0; i < count; i++) {
        struct opening *opening = opening_of(fsm, commands[i]);
        if (opening == NULL || opening->service->type->expect == NULL)
            continue;
        if (batch.count == AT_ONCE || (batch.count > 0 && batch.opening->service != opening->service))
            ask(&batch);
        batch.opening = opening;
        batch.payloads[batch.count++] = commands[i]->operation.payload;
    }
    ask(&batch);
}
