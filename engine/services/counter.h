/* SPDX-License-Identifier: Apache-2.0 */
/* The service type atomix.multiraft.counter.v1.Counter. */
#ifndef ENGINE_SERVICES_COUNTER_H
#define ENGINE_SERVICES_COUNTER_H

#include "engine/fsm/service.h"

extern const struct service_type counter_type;

#endif
