/* SPDX-License-Identifier: Apache-2.0 */
/* Maps: values by key, of the service type atomix.multiraft.map.v1.Map. A key is UTF-8 (it may be empty), a value any
 * bytes; together with some 100 bytes of frame they fit into the node's largest payload (--max-payload). Each entry
 * has an index, that of the command which last wrote it, and perhaps a time to live.
 *
 * Statuses, times, threads and lifetimes are as millrace.h says. Of each operation the plain form waits; the _start
 * form takes `then`, gives the request's number in *request (may be NULL), and its result holds what stands at the
 * operation. */
#ifndef MILLRACE_MAP_H
#define MILLRACE_MAP_H

#include <millrace/millrace.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One map, opened. It belongs to its client: freed by mr_map_close(), or with the client at the latest. */
typedef struct mr_map mr_map;

/* How to write an entry; NULL where it is asked for: neither. */
struct mr_put {
    int64_t ttl_ns;    /* over 0: the entry ends that long after it was written; 0: it stays */
    uint64_t if_index; /* not 0: only if this is the entry's index, else MR_CONFLICT */
};

/* Opens the map of that name (UTF-8, not empty) in the handle's namespace, creating it if there is none. Waits. The
 * first service opened in a partition also makes the channel and the session there. Opening one twice gives two
 * handles on the same map. *out is NULL on failure.
 *
 * MR_FORBIDDEN: the name belongs to a service of another type. MR_INVALID: the name is empty or not UTF-8. */
MR_API enum mr_status mr_map_open(mr_client *client, const char *name, mr_map **out);

/* Waits until every request open on it has been answered, tells the node that the map is no longer used here (its
 * entries stay), and frees it, whatever is returned but MR_INVALID. Callbacks that run meanwhile cannot start anything
 * on it any more: MR_INVALID. While another handle on the same map is open, it only ends this one's streams and frees
 * it. NULL is fine: MR_OK. */
MR_API enum mr_status mr_map_close(mr_map *map);

/* Writes an entry, new or not: put always, insert only a new one (MR_ALREADY_EXISTS), update only one that is there
 * (MR_NOT_FOUND). Put and update take if_index; with insert it must be 0. *index (may be NULL) is the entry's new
 * index. The _start forms' results hold the new entry in as.entry.
 *
 * MR_INVALID: a key that is not UTF-8, a negative ttl_ns, an entry over the size limit. MR_UNAVAILABLE: a limit of the
 * node, named in the message. */
MR_API enum mr_status mr_map_put(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                                 uint64_t *index);
MR_API enum mr_status mr_map_put_start(mr_map *map, struct mr_bytes key, struct mr_bytes value,
                                       const struct mr_put *put, struct mr_then then, uint64_t *request);
MR_API enum mr_status mr_map_insert(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                                    uint64_t *index);
MR_API enum mr_status mr_map_insert_start(mr_map *map, struct mr_bytes key, struct mr_bytes value,
                                          const struct mr_put *put, struct mr_then then, uint64_t *request);
MR_API enum mr_status mr_map_update(mr_map *map, struct mr_bytes key, struct mr_bytes value, const struct mr_put *put,
                                    uint64_t *index);
MR_API enum mr_status mr_map_update_start(mr_map *map, struct mr_bytes key, struct mr_bytes value,
                                          const struct mr_put *put, struct mr_then then, uint64_t *request);

/* Removes an entry; if_index not 0: only if that is its index (MR_CONFLICT). MR_NOT_FOUND: it is not there. *entry
 * (may be NULL) is the removed one, in the ring until the next call on the handle; for the _start form as.entry. */
MR_API enum mr_status mr_map_remove(mr_map *map, struct mr_bytes key, uint64_t if_index, struct mr_entry *entry);
MR_API enum mr_status mr_map_remove_start(mr_map *map, struct mr_bytes key, uint64_t if_index, struct mr_then then,
                                          uint64_t *request);

/* An entry; MR_NOT_FOUND: it is not there. *entry (may be NULL) lives in the ring until the next call on the handle;
 * for the _start form as.entry. */
MR_API enum mr_status mr_map_get(mr_map *map, struct mr_bytes key, struct mr_entry *entry);
MR_API enum mr_status mr_map_get_start(mr_map *map, struct mr_bytes key, struct mr_then then, uint64_t *request);

/* *size (may be NULL) is the number of entries; for the _start form as.number. */
MR_API enum mr_status mr_map_size(mr_map *map, uint64_t *size);
MR_API enum mr_status mr_map_size_start(mr_map *map, struct mr_then then, uint64_t *request);

/* Removes all entries. The _start form's result holds nothing but its status. MR_UNAVAILABLE, and nothing is removed:
 * more than four listeners would be told more than MR_EVENTS_MAX events (limits.h). */
MR_API enum mr_status mr_map_clear(mr_map *map);
MR_API enum mr_status mr_map_clear_start(mr_map *map, struct mr_then then, uint64_t *request);

/* ---- Streams ----
 *
 * Answers with no end, or too many to be held at once, are pulled: mr_stream_next() gives one after the other. What
 * comes meanwhile is copied into memory of the stream, so a stream that is not pulled holds up no other call. A stream
 * of events keeps as much as a ring (ring_bytes); the node keeps the rest, up to the session's limit of unacknowledged
 * outputs, and ends the stream when that is passed (MR_UNAVAILABLE). One of entries keeps all that comes.
 *
 * Taking the next event acknowledges the one before. The death of a worker, or of the node until it is back, shows in
 * nothing but time: no event is missing, none comes twice. Entries are not kept by the node: if some had been taken
 * when it or its worker died, the stream ends with MR_UNAVAILABLE. */
typedef struct mr_stream mr_stream;

enum mr_event_type {
    MR_LISTENING = 0, /* the first event: from here on none is missed; entry.key is what was asked for */
    MR_INSERT = 1,    /* a new entry */
    MR_UPDATE = 2,    /* an entry written anew: as it is now */
    MR_REMOVE = 3,    /* an entry removed, cleared, or at the end of its life: as it was */
    MR_REPLAY = 4     /* an entry that is there already */
};

struct mr_event {
    enum mr_event_type type;
    struct mr_entry entry; /* points into the stream */
};

/* Listens to a map, from now on: first MR_LISTENING; then, with `replay`, each entry there is, in the order of their
 * insertion; then every change in its order. An empty key: to all of them, else to that key alone. Waits for room to
 * ask, not for an answer; what is wrong with it mr_stream_next() says. call_timeout_ns does not end it. *out is NULL on
 * failure. */
MR_API enum mr_status mr_map_events(mr_map *map, struct mr_bytes key, bool replay, mr_stream **out);

/* Goes on with a stream of events that an earlier process has left open on this map: `request` is mr_pending()'s. Its
 * next event is the one behind the last that was acknowledged. MR_NOT_FOUND: there is none. */
MR_API enum mr_status mr_map_events_resume(mr_map *map, uint64_t request, mr_stream **out);

/* All entries, in the order of their insertion, each as MR_REPLAY: every one that is there all the time from the first
 * to MR_END, with the value it has when given; of those that come or go meanwhile any, none twice. */
MR_API enum mr_status mr_map_entries(mr_map *map, mr_stream **out);

/* The next event. *event and what it points to live until the next call on the stream. Waits for one up to wait_ns
 * (MR_NO_WAIT: not at all; MR_FOR_EVER: without end), meeting other answers as mr_run() does, callbacks included.
 *
 * mr_fd() becomes readable for streams too: mr_run(), or this with MR_NO_WAIT, until it is MR_AGAIN, then mr_arm().
 *
 * MR_AGAIN: nothing came in time. Anything else is the stream's end, and is said each time. MR_END: all entries have
 * been given. MR_UNAVAILABLE: the session's limit was passed (listen again, with `replay`); the ring has no room for
 * one more stream (one of 4 MiB for some 8,000); the worker died amid the entries; the channel was closed. MR_CANCELED:
 * the map was closed, the session ended. MR_SESSION_LOST, MR_NO_NODE, MR_NO_MEMORY, MR_INVALID (the key is not UTF-8).
 */
MR_API enum mr_status mr_stream_next(mr_stream *stream, int64_t wait_ns, struct mr_event *event);

/* Ends the stream, if it has not ended, and frees it. Waits for nothing. NULL is fine. Not from within a callback, nor
 * between mr_reserve() and mr_commit() (<millrace/raw.h>): there it does nothing. A stream that is not closed is freed
 * with its client; one whose map is closed has ended. */
MR_API void mr_stream_close(mr_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
