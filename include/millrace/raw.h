/* SPDX-License-Identifier: Apache-2.0 */
/* One's own bytes: for programs that bring their own protobuf and encode the messages of atomix.multiraft.v1
 * themselves.
 *
 * A request is encoded in place, in the ring to its partition:
 *
 *     void *body;
 *     if (!mr_reserve(client, partition, MR_COMMAND, 0, sizeof message, &body)) {
 *         memcpy(body, message, sizeof message);
 *         mr_commit(client, sizeof message, then, &request);
 *     }
 *
 * and each of its response frames becomes one struct mr_result: `status` is the frame's, as.raw its body (an encoded
 * PartitionCommandOutput or PartitionQueryOutput, with MR_OK only), `message` its text otherwise, `output` its number.
 * What the service answered stands inside the body: a frame is MR_OK also where the operation is not.
 *
 * This layer opens, renews and numbers nothing: sessions and sequence numbers are the program's own. What it does do:
 * the frames of one request come in order, and each is given once, also when the partition's worker dies and another
 * takes over. For that it looks at each committed command for its session, service and number, and keeps a copy of each
 * query, and of each command without a number, until it is answered. A command that carries a number, and a query, is
 * sent again to a new worker if the old one had taken it. Commands without one need not be: a worker's death does not
 * lose them.
 *
 * When the whole node goes away and comes back, all requests that are open are sent again as they were, in their order.
 * A command with a number is applied once all the same. One without may then be applied twice: an OpenSession leaves a
 * session that ends by its timeout, a CloseSession is MR_FORBIDDEN the second time. A query that had given some of its
 * answers ends with MR_UNAVAILABLE. If the node that came back serves another data directory (in `memory`: began anew),
 * nothing is sent again: all requests that were open end with MR_SESSION_LOST. Later ones go to that node; sessions of
 * before mean nothing there. */
#ifndef MILLRACE_RAW_H
#define MILLRACE_RAW_H

#include <millrace/millrace.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mr_kind {
    MR_COMMAND = 1, /* the body is a PartitionCommandInput */
    MR_QUERY = 2    /* the body is a PartitionQueryInput */
};

/* Room for a request's body of up to `capacity` bytes in the ring to `partition` (from 1). The first request to a
 * partition makes the channel, and waits for that; otherwise nothing waits. time_limit_ns is how long a query may wait
 * on the node for its max_received_index, and for room for its answer; 0: 5 s; over an hour counts as an hour; of no
 * meaning for a command.
 *
 * One reservation at a time, and no other call on the handle before its mr_commit(); such a call is MR_INVALID. *body
 * is uninitialized, aligned to 8, write-only in mind, and valid until then. May be called from a callback once the
 * channel is there; what the callback has not committed when it returns is given back.
 *
 * MR_AGAIN: no room now, or 65,536 requests are open on the handle. MR_INVALID: no such partition; capacity over
 * mr_max_payload(); a negative time_limit_ns; a callback, and the channel is not there. MR_TIMEOUT: the channel was not
 * made within call_timeout_ns. MR_UNAVAILABLE: the node gives no channel (a limit, which the message names). */
MR_API enum mr_status mr_reserve(mr_client *client, uint32_t partition, enum mr_kind kind, int64_t time_limit_ns,
                                 size_t capacity, void **body);

/* The first `size` bytes of the reservation are the body: starts the request, as a _start call does. *request may be
 * NULL. It does not fail once mr_reserve() has succeeded, but with MR_INVALID (no reservation, size over its capacity,
 * which is then given back) and MR_NO_MEMORY (no room to keep a copy of it; likewise). */
MR_API enum mr_status mr_commit(mr_client *client, size_t size, struct mr_then then, uint64_t *request);

/* Gives the reservation back; nothing is sent. A no-op if there is none. */
MR_API void mr_discard(mr_client *client);

/* The partition in which the service (name_space, name) lives: 1 + XXH3-64(name_space, a 0 byte, name) mod the number
 * of partitions. NULL for the handle's own namespace. MR_INVALID: the handle is not connected, or name or partition is
 * NULL. Leaves no text for mr_message(). */
MR_API enum mr_status mr_partition_of(const mr_client *client, const char *name_space, const char *name,
                                      uint32_t *partition);
/* How many partitions the node has, 1 to 64; 0: the handle is not connected. */
MR_API uint32_t mr_partitions(const mr_client *client);
/* The largest body of a request, in bytes: the node's --max-payload, or a quarter of this handle's ring_bytes if that
 * is less. 0: the handle is not connected. */
MR_API size_t mr_max_payload(const mr_client *client);

/* What the node says about itself and its partitions: *encoded is a millrace.v1.Status
 * (proto/millrace/v1/control.proto), valid until the next call on the handle. Waits. */
MR_API enum mr_status mr_node_status(mr_client *client, struct mr_bytes *encoded);

/* The sessions of a partition that belong to this user (to anyone, for root): *encoded is a millrace.v1.SessionList,
 * valid until the next call on the handle. Waits. MR_INVALID: no such partition. */
MR_API enum mr_status mr_node_sessions(mr_client *client, uint32_t partition, struct mr_bytes *encoded);

/* Has the partition take a snapshot with all in it that is applied by now, and waits until it is whole: *encoded is a
 * millrace.v1.SnapshotReport, valid until the next call on the handle. MR_UNAUTHORIZED: to all but root and the user
 * that the node runs as; MR_UNAVAILABLE: it could not be written, the message says why. MR_INVALID: no such
 * partition. */
MR_API enum mr_status mr_node_snapshot(mr_client *client, uint32_t partition, struct mr_bytes *encoded);

/* Ends a session that a process has left. Waits. MR_FORBIDDEN: there is none of that id; MR_UNAUTHORIZED: it is another
 * user's (for root, too); MR_UNAVAILABLE: a process uses it, which the message names; MR_INVALID: no such partition,
 * the id is 0, or the session is this handle's own. */
MR_API enum mr_status mr_node_close_session(mr_client *client, uint32_t partition, uint64_t session_id);

#ifdef __cplusplus
}
#endif

#endif
