/* SPDX-License-Identifier: Apache-2.0 */
/* Running and waiting, as the library's other files need it. */
#ifndef IPC_CLIENT_WAIT_H
#define IPC_CLIENT_WAIT_H

#include "ipc/client/client.h"

/* One look at everything, without waiting; publishes first. */
void client_run_once(struct mr_client *client);
/* Runs until `done` says so. MR_TIMEOUT: the deadline came first. MR_NO_NODE: the node went away, and done() still
 * says no; MR_CANCELED: the handle's `stop` is readable. Leaves no text for MR_TIMEOUT and MR_CANCELED. */
typedef bool client_done_fn(const struct mr_client *client, const void *argument);
enum mr_status client_wait(struct mr_client *client, client_done_fn *done, const void *argument, uint64_t deadline);
/* Asks for wake-ups. False: do not sleep, there is something to look at. */
bool client_arm(struct mr_client *client);

/* Can one more result be kept for mr_take()? To be asked before client_give() with a `then` that has no callback.
 * `link` is the one in whose ring its bytes stand; NULL: none. */
bool client_may_keep(struct mr_client *client, struct link *link);
/* Keeps a result for mr_take(). `link` is NULL, or the one in whose ring its bytes stand, in the frame of `size` bytes
 * that ends at the reader's head. */
void client_keep(struct mr_client *client, const struct mr_result *result, struct link *link, uint64_t size);
/* Lets such a frame stay until the next call. */
void client_pin(struct mr_client *client, const struct mr_result *result, struct link *link, uint64_t size);
/* Gives a result to its request's callback, or keeps it. */
static inline void client_give(struct mr_client *client, struct mr_then then, const struct mr_result *result,
                               struct link *link, uint64_t size)
{
    if (then.done == NULL) {
        client_keep(client, result, link, size);
        return;
    }
    client->in_callback = true;
    then.done(client, result);
    client->in_callback = false;
    client->reserved = NULL; /* what comes next may send something itself */
    if (client->pin)
        client_pin(client, result, link, size);
}
/* Copies the results that wait out of the link's ring, as far as there is memory (link->held says). */
void client_set_aside(struct mr_client *client, struct link *link);
/* Lets go of what the last call gave out. */
void client_unpin(struct mr_client *client);
void client_free_waiting(struct mr_client *client);

/* A call that waits for one answer: start a request with call_then(), then call_wait(). */
struct call {
    bool done;
    struct mr_result result; /* its bytes stay until the next call on the handle */
};
struct mr_then call_then(struct call *call);
/* Waits for it, and leaves the text if it failed. At the deadline the request is abandoned. */
enum mr_status call_wait(struct mr_client *client, struct call *call, uint64_t request, uint64_t deadline);
/* After a start on the link that gave MR_AGAIN: runs until it is worth trying again. */
enum mr_status call_wait_room(struct link *link, uint64_t deadline);

#endif
