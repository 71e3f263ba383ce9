/* SPDX-License-Identifier: Apache-2.0 */
/* The running log from outside: where completions go, what is due by time, what is known of it; and its end. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/log/inside.h"

void log_notice(const struct log *log, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (log->config.notice)
        log->config.notice(log->config.notice_context, text);
}

/* ---- completions ---- */

void log_complete(struct log *log, const struct io_completion *completion)
{
    uint64_t which = completion->token & ((UINT64_C(1) << 56) - 1);
    switch ((enum token_kind)(completion->token >> 56 & 0x7f)) {
    case TOKEN_BATCH:
        mr_assert(which < ALL_BATCHES);
        batch_written(log, &log->pool[which], completion->result);
        return;
    case TOKEN_EPOCH:
        epoch_written(log, completion->result);
        return;
    case TOKEN_FLUSH:
        flush_done(log, which, completion->result);
        return;
    case TOKEN_PREPARE:
        prepare_complete(log, completion->result);
        return;
    case TOKEN_WAITED:
        log->waiting = false;
        log->waited = completion->result;
        return;
    }
    mr_assert(false);
}

/* Takes what has come, or sleeps until something does. */
void log_wait(struct log *log)
{
    struct io_completion completions[32];
    unsigned count = log->ops->completions(log->io, completions, 32);
    for (unsigned n = 0; n < count; n++)
        if (completions[n].token & LOG_TOKEN)
            log_complete(log, &completions[n]);
    if (count == 0)
        log->ops->sleep(log->io, MR_CLOCK_STEP_MAX);
}

/* ---- what is due ---- */

/* When the log is to be closed off by an empty batch; UINT64_MAX: it is, or it cannot be now. */
static uint64_t marker_due(const struct log *log)
{
    if (log->memory || log->claimed || log->failing || !log_idle(log))
        return UINT64_MAX;
    if (log->config.durability == DURABILITY_ASYNC && log->flushed != log->sequence)
        return UINT64_MAX;
    return log->quiet_since + MR_MARKER_AFTER;
}

uint64_t log_tick(struct log *log, uint64_t time)
{
    uint64_t now = log->ops->monotonic(log->io);
    if (!log->spare)
        prepare_step(log);
    if (log->failing)
        epoch_step(log);
    if (log->flush_due <= now && !log->failing)
        flush_start(log);
    if (marker_due(log) <= now) {
        if (batch_queue_empty(log, time))
            log_submit(log, false);
        else
            log->quiet_since = now; /* no room: again after a while */
    }
    bool crowded = slots_trim(log);
    uint64_t next = earlier(marker_due(log), log->failing || log->flushes > 0 ? UINT64_MAX : log->flush_due);
    if (!log->spare && log->prepare.state == PREPARE_IDLE)
        next = earlier(next, log->prepare.retry);
    if (log->failing && log->epoch_retry > now)
        next = earlier(next, log->epoch_retry);
    return crowded ? now : next;
}

bool log_mark(struct log *log, uint64_t time)
{
    if (!batch_queue_empty(log, time))
        return false;
    log_submit(log, false);
    return true;
}

/* ---- what is known ---- */

bool log_in_flight(const struct log *log)
{
    return log->in_flight > 0 || log->epoch_in_flight;
}

uint64_t log_oldest_write(const struct log *log)
{
    for (unsigned place = log->durable_end; place != log->submitted; place++)
        if (queue_at(log, place)->state == BATCH_WRITING)
            return queue_at(log, place)->started;
    return log->epoch_in_flight ? log->epoch_started : 0;
}

uint64_t log_durable_index(const struct log *log)
{
    return log->durable.index;
}

uint64_t log_grown(const struct log *log)
{
    return log->grown;
}

uint64_t log_last_index(const struct log *log)
{
    return log->next_index - 1;
}

bool log_unsafe(const struct log *log)
{
    return log->failing && log->config.durability == DURABILITY_ASYNC;
}

bool log_lacks_spare(const struct log *log)
{
    return !log->failing && log->prepare.trouble[0] != '\0';
}

bool log_lacks_room(const struct log *log)
{
    return log->full && log_lacks_spare(log);
}

const char *log_trouble(const struct log *log)
{
    if (log->failing)
        return log->trouble;
    return log_lacks_room(log) ? log->prepare.trouble : NULL;
}

/* ---- closing ---- */

static bool unwritten(const struct log *log)
{
    return log->submitted != log->tail || log->in_flight > 0;
}

static void finish_flush(struct log *log)
{
    while (log->config.durability == DURABILITY_ASYNC && !log->failing && log->flushed != log->sequence) {
        flush_start(log);
        log_wait(log);
    }
}

int log_close(struct log *log, uint64_t time, struct mr_error *error)
{
    batch_close_open(log);
    while (unwritten(log) && !log->failing) {
        log_submit(log, false);
        log_wait(log);
    }
    bool lost = log->failing;
    finish_flush(log);
    if (!log->memory && (!log->claimed || log->durable.time < time) && log_mark(log, time))
        while (unwritten(log) && !log->failing)
            log_wait(log);
    finish_flush(log);
    while (log->in_flight > 0 || log->epoch_in_flight || log->flushes > 0 || log->prepare.state != PREPARE_IDLE) {
        log->prepare.retry = UINT64_MAX; /* what is being prepared is finished, nothing new is begun */
        log_wait(log);
    }
    lost = lost || log->failing;
    int result = lost ? error_set(error, "%s: what was not durable by then is lost", log->trouble) : 0;
    log_abandon(log);
    return result;
}

void log_abandon(struct log *log)
{
    if (log->prepare.segment && log->prepare.segment->file < 0)
        free(log->prepare.segment);
    while (log->open_count > 0)
        segment_discard(log, log->open_segments[0]);
    if (log->directory >= 0)
        log->ops->close(log->io, log->directory);
    if (log->registered)
        log->ops->unregister_buffers(log->io);
    io_memory_free(log->region, log->region_size);
    slots_destroy(log);
    free(log);
}
