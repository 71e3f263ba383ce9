/* SPDX-License-Identifier: Apache-2.0 */
/* The client of a Millrace node: connecting, asynchronous calls, waiting. The services' operations stand in counter.h
 * and map.h, one's own bytes in raw.h.
 *
 * A program opens one handle (mr_client) and on it as many services as it likes:
 *
 *     mr_client *client;
 *     mr_counter *hits;
 *     int64_t value;
 *     if (mr_connect(NULL, NULL, &client) || mr_counter_open(client, "hits", &hits) ||
 *         mr_counter_increment(hits, 1, &value))
 *         fprintf(stderr, "%s\n", mr_message(client));
 *     mr_close(client);
 *
 * Every operation exists twice. The plain form waits for the answer. The form that ends in _start puts the request
 * into shared memory and returns; the answer is met in mr_run() by a callback, or fetched with mr_take().
 *
 * Status. MR_OK is 0, so `if (mr_...)` reads as failure; status.h lists what can go wrong. Whatever fails leaves a
 * text behind it: mr_message() for a call, `message` for an asynchronous result. Every call may return, besides what
 * stands at it:
 *     MR_INVALID    an argument out of range; a call that a callback may not make; a handle inherited by fork()
 *     MR_NO_NODE    the node went away, and did not come back in time (reconnect_ns). Outstanding requests end with it,
 *                   and whether their commands were applied is not known here. The handle is of no more use: close it
 *                   and connect anew
 *     MR_NO_MEMORY  the process has no memory (or address space, or descriptors) left
 * Calls on a service may also return what the node answers (status.h, 2 to 13) and:
 *     MR_SESSION_LOST  the node ended the handle's session in that partition, because nothing renewed it for as long
 *                      as its timeout (the process was stopped), or the node that came back serves another data
 *                      directory (in `memory`: began anew). Opening a service there anew opens a new session
 *     MR_UNAVAILABLE   the node closed the channel to that partition; the message says why
 *
 * When the node goes away (it is stopped, killed, started again), the library connects as soon as it is back, goes on
 * with its sessions and sends what was unanswered again, each command under its number, so that it is applied once. The
 * caller sees a pause: calls wait (not beyond call_timeout_ns), what was started stays open, what is started meanwhile
 * finds no room (MR_AGAIN), streams go on where they were. Commands keep their order. What is not certain is only what
 * nobody waits for any more: a command that was cancelled or ended with MR_TIMEOUT may be applied or not.
 *
 * Threads. A handle and everything opened on it belongs to one thread at a time; different handles know nothing of
 * each other, and there is no global state. The library runs one thread of its own for each handle with a session,
 * which renews sessions while the program is busy or asleep. It blocks all signals and touches nothing that the
 * program sees.
 *
 * fork(). A child does not inherit the shared memory. On the parent's handle its every call is MR_INVALID, but
 * mr_close(), which then only closes the child's copies of the descriptors: a child that goes on without exec() should
 * call it, for the node takes the parent for connected as long as anyone holds them.
 *
 * Memory. No call keeps a caller's memory, with `then.arg` handed back as it came: what goes in has been copied into
 * the ring, or refused, when the call returns. What comes out points into the ring and says how long it lives.
 *
 * Times are nanoseconds (of CLOCK_MONOTONIC), sizes are bytes. No call is ended by a signal. */
#ifndef MILLRACE_MILLRACE_H
#define MILLRACE_MILLRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <millrace/status.h>

#if defined(__GNUC__)
#define MR_API __attribute__((visibility("default")))
#else
#define MR_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mr_client mr_client;

/* Bytes that belong to someone else. */
struct mr_bytes {
    const void *data; /* may be NULL when size is 0 */
    size_t size;
};

/* The bytes of a C string, without its NUL. */
static inline struct mr_bytes mr_text(const char *text)
{
    struct mr_bytes bytes;
    bytes.data = text;
    bytes.size = strlen(text);
    return bytes;
}

/* A map's entry, as it comes out. */
struct mr_entry {
    struct mr_bytes key;   /* UTF-8 */
    struct mr_bytes value; /* any bytes */
    uint64_t index;        /* of the command that last wrote it: the entry's version, for `if_index` */
    int64_t ttl_ns;        /* what remains of its life; 0: no end */
};

/* ---- Names, for messages and logs ---- */

/* "CONFLICT" for MR_CONFLICT; "UNKNOWN" for a number that is none of them. Static, never NULL. */
MR_API const char *mr_status_name(enum mr_status status);
/* The library's version, "0.1.0". Static. */
MR_API const char *mr_version(void);

/* ---- Connecting ---- */

/* What may be chosen when connecting. Set everything to zero, then `size`, then what should differ from the default. */
struct mr_options {
    size_t size;            /* sizeof(struct mr_options); tells the library which fields its caller knows */
    const char *name_space; /* of the services opened on this handle; UTF-8. NULL: "default"; "" is a name of its own */
    int64_t session_timeout_ns; /* 1 ms to 24 h; 0: 10 s. How long the node keeps what the process left when it dies */
    int64_t call_timeout_ns;    /* a limit for every call, connecting included; 0: for ever. See MR_TIMEOUT below */
    uint64_t ring_bytes;        /* of each ring to each partition: a power of two, at least 16 KiB. 0: what the node was
                                   started with, which is also the most it gives. A request takes at most a quarter of
                                   a ring, an answer half of one; over that they are MR_INVALID, of a command's answer
                                   with the command applied (an entry that is removed, say) */
    const void *resume; /* from mr_session_save(): sessions that a process has left, to go on with; NULL: none */
    size_t resume_size;
    int64_t reconnect_ns; /* how long a node may be away until calls end with MR_NO_NODE; 0: 30 s; MR_FOR_EVER: it is
                             waited for without end; MR_NO_RECONNECT: not at all */
};
#define MR_NO_RECONNECT 1

/* Connects to the node that listens at `socket_path`; NULL: at the path in the environment's MILLRACE_SOCKET.
 * `options` may be NULL; nothing of it is kept.
 *
 * *out is set on failure too, so that mr_message() can say why, and is to be given to mr_close() in any case. With
 * MR_NO_MEMORY alone it may be NULL, which mr_message() and mr_close() take.
 *
 * MR_NO_NODE: nobody listens there. MR_FORBIDDEN: this user may not connect there. MR_INVALID: no path given, a path
 * over 107 bytes, an option out of range. MR_UNAVAILABLE: the node has too many connections. MR_NOT_SUPPORTED: node and
 * library do not speak the same version of the conversation, or `options` has a field set that this library does not
 * know. MR_TIMEOUT. With `resume` also: MR_SESSION_LOST: a session has ended meanwhile, or the node serves another data
 * directory; MR_UNAVAILABLE: a process still uses one (the message names it); MR_INVALID: the bytes are not what
 * mr_session_save() wrote. Then none of the sessions is touched. */
MR_API enum mr_status mr_connect(const char *socket_path, const struct mr_options *options, mr_client **out);

/* Ends everything on the handle: requests that are still open end with MR_CANCELED (their callbacks run, inside this
 * call; as ever that does not mean that they were not applied), the sessions are closed on the node, services and
 * memory are freed. Waits for the node no longer than a second. NULL is fine. Not from within a callback. */
MR_API void mr_close(mr_client *client);

/* ---- Coming back ----
 *
 * A session holds what a process has opened, and keeps its streams (<millrace/map.h>) until it ends. A process can
 * leave its sessions, or die, and within their timeout another one of the same user, which has the saved bytes, goes on
 * with them: commands are numbered on, what the earlier process had open is offered by mr_pending(). Requests that were
 * still open then, streams apart, may have been applied or not.
 *
 * The bytes name the sessions that are open, and of each stream how far it has been taken: after a mr_detach() they are
 * right without that, and after a crash a stream goes on behind the last event that was acknowledged when they were
 * saved (or later). They are small and hold no secret. */

/* Writes them to `buffer`, *size bytes. MR_INVALID with *size set: `capacity` is less than that. */
MR_API enum mr_status mr_session_save(mr_client *client, void *buffer, size_t capacity, size_t *size);

/* Frees the handle like mr_close(), but leaves its sessions to their timeout, and what is open in them open; what was
 * taken from streams is acknowledged first, but for the event that is still in hand. Waits for the node no longer than
 * a second. NULL is fine. Not from within a callback. */
MR_API void mr_detach(mr_client *client);

/* What an earlier process has left open. */
struct mr_pending_request {
    uint32_t partition;
    const char *service; /* the type, "atomix.multiraft.map.v1.Map" */
    const char *name_space;
    const char *name;
    const char *operation; /* "Events" */
    uint64_t request;      /* to go on with it: mr_map_events_resume() */
};

/* The n-th (from 0) that has not been gone on with. The strings live until it is, or the handle is closed.
 * MR_NOT_FOUND: there are not so many. A stream that has ended meanwhile (its events passed the session's limit while
 * nobody took them) is not open and not among them, and what it held is given up: whoever misses one that was open when
 * the session was saved listens anew, with a replay. */
MR_API enum mr_status mr_pending(mr_client *client, size_t n, struct mr_pending_request *pending);

/* Why the last call on the handle that did not return MR_OK failed: one line, never NULL. Valid until the next call on
 * the handle. It is not itself a call in that sense, and so may be asked twice. */
MR_API const char *mr_message(const mr_client *client);

/* ---- Asynchronous calls ----
 *
 * The way of a request: a _start call encodes it in the ring, where the node does not see it yet; mr_flush(),
 * mr_run(), mr_arm(), and every call that waits, make all that was started visible at once. Started in batches,
 * requests cost no system call and share one write to the disk.
 *
 * _start calls return at once: MR_AGAIN if there is no room in the ring (or 65,536 requests are open on the handle):
 * mr_run(), then again. When one fails, nothing was started and no callback will run.
 *
 * Commands of one handle to one service are applied in the order in which they were started. A query sees at least all
 * commands whose answers had been met on this handle when it was started, and all that were acknowledged to anyone
 * before the node received it; it does not wait for commands that are still open. */

/* One answer. What it points to lives in the ring: for a callback until it returns, for mr_take() until the next call
 * on the handle. */
struct mr_result {
    enum mr_status status;
    bool last;               /* the request's last frame: after it, its number means nothing any more */
    uint64_t request;        /* which request it answers, as the _start call gave it */
    uint64_t index;          /* of the command in its partition, from 1; 0 where there is none (queries, raw frames) */
    uint64_t output;         /* the output's number, from 1; 0: the frame is not a numbered output */
    void *arg;               /* of struct mr_then */
    struct mr_bytes message; /* why not MR_OK; UTF-8, not NUL-terminated; empty with MR_OK */
    union {                  /* with MR_OK; which one stands at the operation */
        int64_t number;
        struct mr_entry entry;
        struct mr_bytes raw;
    } as;
};

/* Runs inside mr_run(), inside calls on the same handle that wait, and inside mr_close(); never elsewhere. Called for
 * every frame, the final one with `last` set. It may start and cancel requests; any other call on the handle from
 * within it is MR_INVALID. */
typedef void mr_done_fn(mr_client *client, const struct mr_result *result);

/* What is to happen with a request's answers. With `done` NULL they wait for mr_take(). Waiting answers take up room
 * in the ring: whoever neither runs nor takes is after a while not answered any more, and nobody else notices. */
struct mr_then {
    mr_done_fn *done;
    void *arg; /* the caller's, handed back in the result */
};

#define MR_NO_WAIT 0
#define MR_FOR_EVER (-1)

/* Makes visible to the node what was started. A no-op if nothing was. */
MR_API void mr_flush(mr_client *client);

/* Flushes, meets the answers that are there, and runs their callbacks. If there are none it waits for the first one up
 * to wait_ns (MR_NO_WAIT: not at all; MR_FOR_EVER, or any other negative value: without end): first spinning, for up
 * to 50 us, or 250 us where that was found to be when answers come; then asleep. *completed (may be NULL) is how many
 * results were met, those for mr_take() included.
 *
 * MR_OK: it is worth looking on: something was met, or results wait for mr_take(), or the ring has room again, or the
 * node went away or came back. MR_AGAIN: nothing came in time, or no request (nor stream) is open and the node is
 * there. MR_NO_NODE: the node is gone, and all open requests have been ended. */
MR_API enum mr_status mr_run(mr_client *client, int64_t wait_ns, unsigned *completed);

/* The next result of requests started without a callback, in the order in which they were met. Meets new ones (as
 * mr_run(client, MR_NO_WAIT) does, callbacks included) if none waits. *result and what it points to live until the
 * next call on the handle. MR_AGAIN: there is none. */
MR_API enum mr_status mr_take(mr_client *client, struct mr_result *result);

/* Gives a request up: its last result, MR_CANCELED, is met by the next mr_run(). A command may be applied all the same.
 * MR_NOT_FOUND: it has ended already (its result may still wait for mr_take()). */
MR_API enum mr_status mr_cancel(mr_client *client, uint64_t request);

/* One descriptor for all partitions, for poll, epoll or io_uring: readable (POLLIN) when there is something to run
 * for. It belongs to the handle, stays the same all its life (also while the node is away, when mr_run() has to look
 * for it now and then), and is only to be waited on. -1: not connected.
 *
 * Before sleeping on it, and each time, call mr_arm(): only then does the node know that it has to wake this process.
 */
MR_API int mr_fd(const mr_client *client);

/* Flushes, and asks for a wake-up through mr_fd(). MR_OK: sleep; once readable, mr_run() (which asks for no more
 * wake-ups). MR_AGAIN: do not sleep, there is something to run for already. MR_NO_NODE: do not sleep, the node is
 * gone. */
MR_API enum mr_status mr_arm(mr_client *client);

/* MR_TIMEOUT. With call_timeout_ns set, a request not answered in that time ends with MR_TIMEOUT. A command may have
 * been applied, or be applied later: the node has its bytes. A late answer is dropped. Time is looked at in mr_run()
 * and in calls that wait, and mr_fd() becomes readable for it. */

#ifdef __cplusplus
}
#endif

#endif
