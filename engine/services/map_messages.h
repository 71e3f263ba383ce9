/* SPDX-License-Identifier: Apache-2.0 */
/* The map's messages (proto/atomix/multiraft/map/v1/map.proto): reading inputs in place, writing answers in pieces.
 * Knows nothing of how entries are found or kept. */
#ifndef ENGINE_SERVICES_MAP_MESSAGES_H
#define ENGINE_SERVICES_MAP_MESSAGES_H

#include "engine/fsm/canonical.h"
#include "engine/services/map_entries.h"
#include "engine/services/map_listeners.h"

/* Whichever of its fields an operation's input has; points into the payload. */
struct map_input {
    struct slice key;
    struct slice value;
    struct duration ttl;
    uint64_t index;
    bool replay;
};

/* PutInput, UpdateInput, and InsertInput, which has no `index`. False: the bytes do not decode. */
bool map_read_write_input(struct slice payload, struct map_input *input);
/* RemoveInput, and GetInput, which has no `index`. Without a key: inputs that have no fields at all. */
bool map_read_key_input(struct slice payload, bool has_key, struct map_input *input);

/* The key that stands first in nearly every input that has one; empty: none is seen. Looks no further, and does not
 * tell whether the bytes decode. */
struct slice map_peek_key(struct slice payload);

/* EventsInput. */
bool map_read_events_input(struct slice payload, struct map_input *input);

/* The answer of every operation that answers with an entry: a message whose field 1 is the entry. `ttl`: what remains,
 * in nanoseconds; 0: none. */
void map_answer_entry(struct service_call *call, const struct map_entry *entry, uint64_t ttl);

/* EventsOutput: Event.Type, and the entry of which it tells; EVENT_NONE only tells the key. */
enum map_event { EVENT_NONE = 0, EVENT_INSERT = 1, EVENT_UPDATE = 2, EVENT_REMOVE = 3, EVENT_REPLAY = 4 };
void map_put_listening(struct service_call *output, struct slice key);
void map_put_event(struct service_call *output, enum map_event event, const struct map_entry *entry, uint64_t ttl);

/* MapSnapshot. */
void map_write_snapshot(const struct map_entries *entries, const struct map_listeners *listeners,
                        void (*write)(void *context, const void *data, size_t size), void *context);

/* Reading one back, by a reader of its bytes: all listeners, then all entries, each in order; then canonical_end() says
 * whether it was one. Keys are strings; what keys and numbers mean together is not looked at. */
struct map_listening { /* MapListener */
    uint64_t index;
    struct slice key;
};
bool map_read_listener(struct service_host *host, struct canonical_reader *snapshot, struct map_listening *listening);
/* MapEntry: how many. */
size_t map_read_kept(struct service_host *host, struct canonical_reader *snapshot, struct map_kept *kept, size_t most);

#endif
