/* SPDX-License-Identifier: Apache-2.0 */
/* The answer to GetStatus, from the regions that workers write and from what the supervisor knows. All that a worker
 * writes is read as it is at the moment; figures of one report may be a moment apart. */
#include "engine/node/supervisor_parts.h"

#include <stdio.h>
#include <unistd.h>

static const char *const state_names[] = {
    [PARTITION_STARTING] = "starting",   [PARTITION_RECOVERING] = "recovering", [PARTITION_SERVING] = "serving",
    [PARTITION_READ_ONLY] = "read-only", [PARTITION_RESTARTING] = "restarting", [PARTITION_STOPPED] = "stopped",
};

struct entry {
    Millrace__V1__PartitionStatus status;
    char reason[sizeof(((struct region *)NULL)->reason)];
};

static uint64_t load(const _Atomic uint64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

static void fill(struct entry *entry, const struct partition *partition)
{
    const struct region *region = partition->region;
    Millrace__V1__PartitionStatus *status = &entry->status;
    uint32_t state = atomic_load_explicit(&region->state, memory_order_acquire);

    millrace__v1__partition_status__init(status);
    entry->reason[0] = '\0';
    if (state == PARTITION_READ_ONLY || state == PARTITION_STOPPED)
        snprintf(entry->reason, sizeof(entry->reason), "%.*s", (int)sizeof(entry->reason) - 1, region->reason);
    status->partition = partition->number;
    status->state = bytes_of(state <= PARTITION_STOPPED ? state_names[state] : "unknown");
    status->reason = bytes_of(entry->reason);
    status->recovered_percent = atomic_load_explicit(&region->recovered_percent, memory_order_relaxed);
    status->pid = (int32_t)partition->pid;
    status->core = partition->core;
    status->applied_index = load(&region->applied_index);
    status->durable_index = load(&region->durable_index);
    status->log_bytes = load(&region->log_bytes);
    status->sessions = load(&region->sessions);
    status->channels = partition->slots_used;
    status->restarts = partition->restarts;
    status->time_ns = load(&region->time);
    status->snapshot_index = load(&region->snapshot_index);
    status->snapshot_bytes = load(&region->snapshot_bytes);
    status->snapshot_time_ns = load(&region->snapshot_time);
}

void status_report(struct supervisor *s, struct connection *connection)
{
    struct entry entries[MR_PARTITIONS_MAX];
    Millrace__V1__PartitionStatus *pointers[MR_PARTITIONS_MAX];
    Millrace__V1__Status status = MILLRACE__V1__STATUS__INIT;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;

    for (uint32_t p = 0; p < s->partition_count; p++) {
        fill(&entries[p], &s->partitions[p]);
        pointers[p] = &entries[p].status;
    }
    status.version = bytes_of(MILLRACE_VERSION);
    status.durability = bytes_of(options_durability(s->options));
    status.pid = (int32_t)getpid();
    status.directory = bytes_of(s->options->dir);
    status.n_partitions = s->partition_count;
    status.partitions = pointers;
    status.connections = s->connection_count;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_STATUS;
    message.status = &status;
    connection_send(s, connection, &message, NULL, 0);
}
