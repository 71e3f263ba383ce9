/* SPDX-License-Identifier: Apache-2.0 */
/* The service types that a node has. */
#ifndef ENGINE_SERVICES_TYPES_H
#define ENGINE_SERVICES_TYPES_H

#include "engine/fsm/service.h"

extern const struct service_type *const service_types[]; /* NULL-terminated: for fsm_config.types */

#endif
