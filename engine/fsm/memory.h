/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for the state. There is no failing: a state machine that skipped a command for want of memory would no longer
 * be a function of its log, so running out ends the process (admission keeps it from coming to that). That is no fault
 * of the entry's: the successor, or the operator, finds the log as it was. */
#ifndef ENGINE_FSM_MEMORY_H
#define ENGINE_FSM_MEMORY_H

#include <stddef.h>

void *memory_allocate(size_t size);             /* content undefined; free() gives it back */
void *memory_zeroed(size_t count, size_t size); /* count * size bytes of 0 */
void *memory_resize(void *memory, size_t size);

#endif
