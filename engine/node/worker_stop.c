/* SPDX-License-Identifier: Apache-2.0 */
/* The orderly end of a worker's life. The log is closed first: the snapshot only saves the next start the reading, and
 * a worker that is killed while it writes one has lost nothing. */
#include "engine/node/worker_state.h"

int worker_stop(struct worker *worker, void (*busy)(void *context, uint64_t bytes), void *context,
                struct mr_error *error)
{
    struct io_completion last;

    worker->accepting = false;
    if (worker->log == NULL)
        return 0;
    snapshots_end(worker);
    turn_run(worker); /* what was gathered is handed over */
    while (log_in_flight(worker->log) && log_trouble(worker->log) == NULL)
        if (!turn_run(worker))
            worker->io->ops->sleep(worker->io, MR_MILLISECOND);
    turn_run(worker);
    struct snapshot_point point = snapshots_point(worker);
    int result = log_close(worker->log, worker->time, error);
    worker->log = NULL;
    if (result != 0)
        return -1;
    worker->io->ops->completions(worker->io, &last, 1); /* hands over the last wake-ups */
    bells_ring_due(worker);
    if (worker->snapshots.config.place.memory == NULL) /* else the state ends with the node */
        snapshots_write_last(worker, &point, busy, context);
    return 0;
}
