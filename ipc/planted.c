/* SPDX-License-Identifier: Apache-2.0 */
/* See planted.h. */
#ifdef MR_TESTING
#include "ipc/planted.h"

enum planted_fault planted_fault = PLANTED_NOTHING;
#endif
