/* SPDX-License-Identifier: Apache-2.0 */
/* Counters: a 64-bit signed number by name, of the service type atomix.multiraft.counter.v1.Counter. It starts at 0
 * and wraps round at 2^63.
 *
 * Statuses, times, threads and lifetimes are as millrace.h says. Of each operation the plain form waits; the _start
 * form takes `then`, gives the request's number in *request (may be NULL), and its result holds the number in
 * as.number. */
#ifndef MILLRACE_COUNTER_H
#define MILLRACE_COUNTER_H

#include <millrace/millrace.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One counter, opened. It belongs to its client: freed by mr_counter_close(), or with the client at the latest. */
typedef struct mr_counter mr_counter;

/* Opens the counter of that name (UTF-8, not empty) in the handle's namespace, creating it if there is none. Waits.
 * The first service opened in a partition also makes the channel and the session there. Opening one twice gives two
 * handles on the same counter. *out is NULL on failure.
 *
 * MR_FORBIDDEN: the name belongs to a service of another type. MR_INVALID: the name is empty or not UTF-8. */
MR_API enum mr_status mr_counter_open(mr_client *client, const char *name, mr_counter **out);

/* Waits until every request open on it has been answered, tells the node that the counter is no longer used here (its
 * value stays), and frees it, whatever is returned but MR_INVALID. Callbacks that run meanwhile cannot start anything
 * on it any more: MR_INVALID. While another handle on the same counter is open, it only frees this one. NULL is fine:
 * MR_OK. */
MR_API enum mr_status mr_counter_close(mr_counter *counter);

/* *value (may be NULL) is the value, as of some moment after the call began. */
MR_API enum mr_status mr_counter_get(mr_counter *counter, int64_t *value);
MR_API enum mr_status mr_counter_get_start(mr_counter *counter, struct mr_then then, uint64_t *request);

/* The changes. *result (may be NULL) is the value afterwards. */
MR_API enum mr_status mr_counter_set(mr_counter *counter, int64_t value, int64_t *result);
MR_API enum mr_status mr_counter_set_start(mr_counter *counter, int64_t value, struct mr_then then, uint64_t *request);

MR_API enum mr_status mr_counter_increment(mr_counter *counter, int64_t delta, int64_t *result);
MR_API enum mr_status mr_counter_increment_start(mr_counter *counter, int64_t delta, struct mr_then then,
                                                 uint64_t *request);

MR_API enum mr_status mr_counter_decrement(mr_counter *counter, int64_t delta, int64_t *result);
MR_API enum mr_status mr_counter_decrement_start(mr_counter *counter, int64_t delta, struct mr_then then,
                                                 uint64_t *request);

/* Sets it to `update` if it is `compare`. MR_CONFLICT: it is not, and nothing changed. */
MR_API enum mr_status mr_counter_compare_and_set(mr_counter *counter, int64_t compare, int64_t update, int64_t *result);
MR_API enum mr_status mr_counter_compare_and_set_start(mr_counter *counter, int64_t compare, int64_t update,
                                                       struct mr_then then, uint64_t *request);

#ifdef __cplusplus
}
#endif

#endif
