/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that stay open, between the service that gives their outputs, the session that stores them and the route
 * that is to have them.
 *
 * An output is stored first. Then, if the stream has a route and that does not wait, it is given to the sink, and so is
 * everything stored before it that the route has not had: always in order, without a gap. Once the sink has no room
 * nothing more is given until it is asked to go on (fsm_deliver()), or until the command is sent again, which begins
 * anew with the first unacknowledged output. What the sink answers changes nothing in the state. */
#ifndef ENGINE_FSM_STREAM_H
#define ENGINE_FSM_STREAM_H

#include "engine/fsm/service_table.h"

/* What a command that is run may open a stream with: service_call.origin. Lives while it is run. */
struct stream_origin {
    struct fsm *fsm;
    const struct fsm_entry *entry;
    struct opening *opening;
};

/* The command was sent again: its outputs go there from now on. An earlier route that waits for its last frame is told
 * that it was taken over. */
void stream_attach(struct stream *stream, const struct fsm_entry *entry);
/* Gives what is stored and not taken, until the sink has no room; true: all is given. */
bool stream_go_on(struct stream *stream);

/* How an open stream ends from outside: */
void stream_cancel(struct stream *stream);       /* by a KeepAlive: nothing is recorded, the session forgets it next */
void stream_close(struct stream *stream);        /* with its service: CANCELED is its last output */
void stream_end_unstored(struct stream *stream); /* with its session: the same, but there is nowhere to store it */
/* With a service or a session they end in order of their commands' indexes, by a KeepAlive in order of their numbers:
 * orders that a snapshot keeps. */

#endif
