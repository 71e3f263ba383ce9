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

/* Waits until every request open on it has been answered, tells the node that this handle no longer uses the map (its
 * entries stay), and frees it, whatever is returned. NULL is fine: MR_OK. */
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

/* The number of entries; for the _start form as.number. */
MR_API enum mr_status mr_map_size(mr_map *map, uint64_t *size);
MR_API enum mr_status mr_map_size_start(mr_map *map, struct mr_then then, uint64_t *request);

/* Removes all entries. The _start form's result holds nothing but its status. */
MR_API enum mr_status mr_map_clear(mr_map *map);
MR_API enum mr_status mr_map_clear_start(mr_map *map, struct mr_then then, uint64_t *request);

#ifdef __cplusplus
}
#endif

#endif
