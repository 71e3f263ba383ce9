/* SPDX-License-Identifier: Apache-2.0 */
/* Immutable bytes with a count of owners: what a service keeps and what stored outputs and answers share with it, so
 * that a payload is copied into the state once and never again. Not thread-safe: one worker, one state machine. */
#ifndef ENGINE_FSM_BLOB_H
#define ENGINE_FSM_BLOB_H

#include <stdint.h>

struct blob {
    uint32_t owners;
    uint32_t size; /* bytes of data */
    uint8_t data[];
};

struct blob *blob_create(uint32_t size); /* one owner; data is the caller's to fill before anyone else sees it */
struct blob *blob_share(struct blob *blob);
void blob_release(struct blob *blob); /* NULL is fine */

#endif
