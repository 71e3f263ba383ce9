/* SPDX-License-Identifier: Apache-2.0 */
/* Requests with many outputs, pulled one by one. */
#ifndef IPC_CLIENT_STREAM_H
#define IPC_CLIENT_STREAM_H

#include "ipc/client/service.h"

#include <millrace/map.h>

/* A frame's body, copied out of the ring once for all the streams that it is for. */
struct stream_body {
    uint32_t owners;
    bool read;             /* what follows says what it holds: */
    bool some;             /* there is an event, */
    struct mr_event event; /* this one, which points into it; */
    enum mr_status status; /* if not MR_OK, it is the last output, and this is why */
    struct mr_bytes message;
    size_t size;
    size_t frame_bytes; /* of the frame, as one of its own */
    uint8_t bytes[];
};

struct mr_stream {
    struct mr_client *client;
    struct mr_stream *next; /* of the client's */
    struct link *link;
    struct handle *handle;      /* that it was opened on; NULL: that is closed */
    uint64_t session_id;        /* of a command (Events), with sequence_num; */
    uint64_t sequence_num;      /* 0: it is a query (Entries) */
    uint64_t request;           /* id of its request; 0: that has ended */
    struct stream_body *held;   /* what the last mr_stream_next() gave out */
    struct stream_body **queue; /* a ring of `capacity`, a power of two or 0: outputs given + 1, given + 2, ... */
    uint32_t first, count, capacity;
    uint64_t bytes;        /* of their frames */
    uint64_t given;        /* outputs given out, or passed over because an earlier process had them */
    uint64_t acknowledged; /* the highest output that is not needed any more ... */
    uint64_t told;         /* ... as the last KeepAlive said */
    bool missed;           /* a frame was dropped: the command has to be named again once `first` is drained */
    bool answered;         /* what was dropped was the last frame of the latest sending */
    bool over;             /* nothing follows the frames that are here */
    enum mr_status end;    /* over: how */
    char why[512];         /* over: the text, if `end` is not MR_END */
};

/* Starts a stream's operation; waits for room. *out is NULL on failure. */
enum mr_status stream_open(struct handle *handle, const struct operation *operation, const void *arguments,
                           struct mr_stream **out);
/* Goes on with what an earlier process has left open; waits for room. *out is NULL on failure, and *pending stays. */
enum mr_status stream_resume(struct handle *handle, const struct pending *pending, struct mr_stream **out);
/* Streams of a handle that is closed end. */
void streams_end(struct mr_client *client, const struct handle *handle);
void streams_free(struct mr_client *client);

/* Has it as much as it may have? The session keeps what follows. */
static inline bool stream_is_full(const struct mr_stream *stream)
{
    return stream->bytes >= stream->link->channel.ring_bytes;
}

/* There is a place in the queue. */
static inline void stream_queue(struct mr_stream *stream, struct stream_body *body)
{
    body->owners++;
    if (stream->count == 0)
        stream->client->stream_news = true;
    stream->queue[(stream->first + stream->count++) & (stream->capacity - 1)] = body;
    stream->bytes += body->frame_bytes;
    if (stream_is_full(stream))
        stream->link->pause = true;
}

/* Has everything been taken? */
static inline bool stream_is_done(const struct mr_stream *stream)
{
    return stream->over && stream->count == 0;
}

/* For link.c, with a request that `streams`.
 *
 * A frame of it; true: the request is over. *shared is the frame's, NULL before the first stream is given it. */
bool stream_meet(struct request *request, const struct response_head *head, const uint8_t *body,
                 struct stream_body **shared);
/* The quick way for what it waits for, if that is not its last, and there is a place for it; false: stream_meet() says
 * what becomes of it. */
static inline bool stream_take_next(struct request *request, uint64_t number, struct stream_body *shared)
{
    struct mr_stream *stream = request->then.arg;

    if (request->state != REQUEST_OPEN || number != request->output + 1 || stream->count == stream->capacity ||
        stream_is_full(stream))
        return false;
    request->output++;
    stream_queue(stream, shared);
    return true;
}
/* A new worker: is the request to be sent again? False: the stream has ended. */
bool stream_sends_again(struct request *request);
void stream_sent_again(struct request *request);

#endif
