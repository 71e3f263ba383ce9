/* SPDX-License-Identifier: Apache-2.0 */
/* The session in one partition. */
#ifndef IPC_CLIENT_SESSION_H
#define IPC_CLIENT_SESSION_H

#include "ipc/client/client.h"
#include "proto/writer.h"

/* Opens one unless there is one; waits. */
enum mr_status session_open(struct link *link, uint64_t deadline);
/* Goes on with one that an earlier process has left. */
enum mr_status session_adopt(struct link *link, uint64_t id, uint64_t highest);
void session_free(struct session *session);

/* Room for one more number? If not, answers have to be met first. */
static inline bool session_may_number(const struct session *session)
{
    return session->next - session->answered <= SESSION_WINDOW;
}
/* The command of that number has had its answer, of so many bytes. */
void session_answered(struct session *session, uint64_t sequence_num, uint64_t bytes);
/* The node says that there is no such session. */
void session_lost(struct session *session, struct mr_bytes why);

/* Ends it; waits. */
enum mr_status session_close(struct link *link, uint64_t deadline);
/* Is it still there? Renews it, or notes that it is lost; waits. */
enum mr_status session_check(struct link *link, uint64_t deadline);

/* Any command without a number. command_start() is one of the library's own requests: the caller's mr_run() neither
 * waits for it nor counts it; `outputs` are a KeepAlive's, in order. command_call() waits; *id (may be NULL) is the id
 * in the answer. */
enum mr_status command_start(struct link *link, const struct partition_command_input *input,
                             const struct last_output *outputs, size_t output_count, enum answer_kind answer,
                             struct mr_then then, uint64_t *request_id);
enum mr_status command_call(struct link *link, const struct partition_command_input *input, enum answer_kind answer,
                            uint64_t deadline, uint64_t *id);

#endif
