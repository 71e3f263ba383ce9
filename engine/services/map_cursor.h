/* SPDX-License-Identifier: Apache-2.0 */
/* Walking a map's entries while it changes: what stands behind Entries. A cursor gives the entries that were there when
 * it was made, in the order of their insertion, each at most once and as it is when given; those that go before it
 * comes to them are left out, those inserted later are not given. It keeps no copy: only where it stands, and which was
 * the last entry at its beginning. */
#ifndef ENGINE_SERVICES_MAP_CURSOR_H
#define ENGINE_SERVICES_MAP_CURSOR_H

#include "engine/services/map_entries.h"

/* A new cursor, which its close() frees. */
struct service_cursor *map_cursor(struct map_entries *entries);

#endif
