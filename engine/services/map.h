/* SPDX-License-Identifier: Apache-2.0 */
/* The service type atomix.multiraft.map.v1.Map. */
#ifndef ENGINE_SERVICES_MAP_H
#define ENGINE_SERVICES_MAP_H

#include "engine/fsm/service.h"

extern const struct service_type map_type;

#endif
