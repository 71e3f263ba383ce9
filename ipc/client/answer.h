/* SPDX-License-Identifier: Apache-2.0 */
/* A response frame as a result. Knows no state. */
#ifndef IPC_CLIENT_ANSWER_H
#define IPC_CLIENT_ANSWER_H

#include "ipc/client/client.h"

/* Fills in status, index, output, message and `as`; they point into the body. */
void answer_read(enum answer_kind answer, enum frame_kind kind, const struct response_head *head, const uint8_t *body,
                 struct mr_result *result);

#endif
