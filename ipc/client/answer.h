/* SPDX-License-Identifier: Apache-2.0 */
/* A response frame as a result. Knows no state. */
#ifndef IPC_CLIENT_ANSWER_H
#define IPC_CLIENT_ANSWER_H

#include "ipc/client/client.h"

/* Fills in status, index, output, message and `as`; they point into the body. */
void answer_read(enum answer_kind answer, enum frame_kind kind, const struct response_head *head, const uint8_t *body,
                 struct mr_result *result);

/* A stream's output, of a frame that is MR_OK: an EventsOutput (a command's) or an EntriesOutput (a query's). False:
 * there is none in it: an empty last output of a query, or result->status and its message say how the stream ended. */
struct mr_event;
bool answer_read_event(enum frame_kind kind, const uint8_t *body, size_t size, struct mr_result *result,
                       struct mr_event *event);

#endif
