/* SPDX-License-Identifier: Apache-2.0 */
/* Leaving sessions and coming back to them. */
#ifndef IPC_CLIENT_RESUME_H
#define IPC_CLIENT_RESUME_H

#include "ipc/client/service.h"

/* Goes on with the sessions of options.resume; waits. If it fails, with none of them. */
enum mr_status resume_sessions(struct mr_client *client, uint64_t deadline);
/* Acknowledges what has been taken from streams, waiting for that. */
void leave_word(struct mr_client *client, uint64_t deadline);
/* The calls that go on with a stream. *out is NULL on failure. */
enum mr_status resume_stream(struct handle *handle, const char *operation, uint64_t request, struct mr_stream **out);

#endif
