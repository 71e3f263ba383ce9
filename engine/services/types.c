/* SPDX-License-Identifier: Apache-2.0 */
/* The list of service types. */
#include "engine/services/types.h"

#include "engine/services/counter.h"
#include "engine/services/map.h"

const struct service_type *const service_types[] = {&counter_type, &map_type, NULL};
