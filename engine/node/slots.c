/* SPDX-License-Identifier: Apache-2.0 */
/* Channels from birth to end, as supervisor_parts.h tells it: who has mapped one, who still has to be told what. A
 * channel lives in one slot of its partition, in three tables by the same number: slots[] (ours), channels[] (its
 * mapping) and the region's (the worker's cursors). The region's is filled before the worker hears of it, and emptied
 * when no worker has it. */
#include "engine/node/supervisor_parts.h"

#include "engine/node/logline.h"
#include "ipc/sys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- what clients are told ---- */

static void send_channel(struct supervisor *s, struct connection *connection, const struct channel *channel)
{
    int core = s->partitions[channel->partition - 1].core;
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    Millrace__V1__Channel body = MILLRACE__V1__CHANNEL__INIT;
    int fds[2] = {channel->memory_fd, channel->node_wake_fd};

    body.partition = channel->partition;
    body.channel_id = channel->channel_id;
    body.ring_bytes = channel->ring_bytes;
    body.core = core >= 0 ? (uint32_t)core + 1 : 0;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL;
    message.channel = &body;
    connection_send(s, connection, &message, fds, 2);
}

static void send_opened(struct supervisor *s, struct connection *connection, uint64_t channel_id)
{
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    Millrace__V1__ChannelOpened body = MILLRACE__V1__CHANNEL_OPENED__INIT;

    body.channel_id = channel_id;
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED;
    message.channel_opened = &body;
    connection_send(s, connection, &message, NULL, 0);
}

static void send_closed(struct supervisor *s, struct connection *connection, uint64_t channel_id, const char *why)
{
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    Millrace__V1__ChannelClosed body = MILLRACE__V1__CHANNEL_CLOSED__INIT;

    body.channel_id = channel_id;
    body.reason = bytes_of(why);
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_CLOSED;
    message.channel_closed = &body;
    connection_send(s, connection, &message, NULL, 0);
}

static void send_stopped(struct supervisor *s, struct connection *connection, const struct partition *partition)
{
    Millrace__V1__NodeMessage message = MILLRACE__V1__NODE_MESSAGE__INIT;
    Millrace__V1__PartitionStopped body = MILLRACE__V1__PARTITION_STOPPED__INIT;
    char reason[sizeof(partition->region->reason)];

    snprintf(reason, sizeof(reason), "%.*s", (int)sizeof(reason) - 1, partition->region->reason);
    body.partition = partition->number;
    body.reason = bytes_of(reason);
    message.message_case = MILLRACE__V1__NODE_MESSAGE__MESSAGE_PARTITION_STOPPED;
    message.partition_stopped = &body;
    connection_send(s, connection, &message, NULL, 0);
}

void slots_announce_stop(struct supervisor *s, struct partition *partition)
{
    if (!partition_is_stopped(partition) || partition->stop_announced)
        return;
    partition->stop_announced = true;
    for (uint32_t place = 0; place < s->connections_max; place++) {
        struct connection *connection = s->connections[place];
        for (uint32_t i = 0; connection != NULL && i < partition->slots_end; i++)
            if (partition->slots[i].connection == connection && partition->slots[i].state == SLOT_OPEN) {
                send_stopped(s, connection, partition);
                break;
            }
    }
}

/* ---- a slot ---- */

static void free_slot(struct partition *partition, uint32_t i)
{
    partition->region->channels[i].channel_id = 0;
    channel_unmap(&partition->channels[i]);
    memset(&partition->channels[i], 0, sizeof(partition->channels[i]));
    memset(&partition->slots[i], 0, sizeof(partition->slots[i]));
    partition->slots_used--;
    while (partition->slots_end > 0 && partition->slots[partition->slots_end - 1].state == SLOT_FREE)
        partition->slots_end--;
}

static void detach(struct slot *slot)
{
    if (slot->connection != NULL)
        slot->connection->channels--;
    slot->connection = NULL;
}

/* The client is done with it: lets the worker go of it, if it has it. */
static void close_slot(struct supervisor *s, struct partition *partition, uint32_t i)
{
    struct slot *slot = &partition->slots[i];

    detach(slot);
    if (partition->pid == 0 || slot->owed == CONTROL_ADD) {
        free_slot(partition, i);
        return;
    }
    slot->state = SLOT_CLOSING;
    slot->owed = CONTROL_CLOSE;
    partition->owes = true;
    workers_pay(s, partition);
}

/* The node is done with it, and no worker has it (any more). */
static void end_slot(struct supervisor *s, struct partition *partition, uint32_t i, const char *why)
{
    struct slot *slot = &partition->slots[i];
    uint64_t channel_id = partition->channels[i].channel_id;

    if (slot->connection != NULL && slot->state == SLOT_OPEN)
        send_closed(s, slot->connection, channel_id, why);
    else if (slot->connection != NULL)
        connection_refuse(s, slot->connection, MR_UNAVAILABLE, false,
                          "channel %" PRIu64 " to partition %" PRIu32 ": %s", channel_id, partition->number, why);
    detach(slot);
    free_slot(partition, i);
}

static void mark_page_closed(const struct channel *channel, const char *why)
{
    snprintf(channel->page->why, sizeof(channel->page->why), "%s", why);
    atomic_store_explicit(&channel->page->state, CHANNEL_CLOSED, memory_order_release);
}

/* Once both have mapped it: sealed, and only then open. */
static void open_if_mapped(struct supervisor *s, struct partition *partition, uint32_t i)
{
    struct slot *slot = &partition->slots[i];
    struct channel *channel = &partition->channels[i];
    struct mr_error error;

    if (slot->state != SLOT_OPENING || !slot->added || !slot->mapped)
        return;
    if (channel_seal(channel, &error) != 0) {
        supervisor_complain(s, "client with pid %d: %s", (int)slot->connection->pid, error.text);
        connection_refuse(s, slot->connection, MR_UNAVAILABLE, false, "%s", error.text);
        close_slot(s, partition, i);
        return;
    }
    /* Nobody maps it any more: one descriptor less for each channel. */
    (void)sys_close(channel->memory_fd);
    channel->memory_fd = -1;
    slot->state = SLOT_OPEN;
    atomic_store_explicit(&channel->page->state, CHANNEL_OPEN, memory_order_release);
    send_opened(s, slot->connection, channel->channel_id);
    if (partition_is_stopped(partition))
        send_stopped(s, slot->connection, partition);
}

uint64_t slots_due(struct supervisor *s)
{
    uint64_t due = UINT64_MAX;

    for (uint32_t p = 0; p < s->partition_count; p++) {
        struct partition *partition = &s->partitions[p];
        for (uint32_t i = 0; i < partition->slots_end; i++) {
            struct slot *slot = &partition->slots[i];
            if (slot->state != SLOT_OPENING || slot->mapped || slot->connection == NULL)
                continue;
            if (s->now < slot->map_by) {
                due = slot->map_by < due ? slot->map_by : due;
                continue;
            }
            supervisor_complain(s, "client with pid %d: it has not mapped its channel to partition %" PRIu32,
                                (int)slot->connection->pid, partition->number);
            connection_refuse(s, slot->connection, MR_TIMEOUT, false,
                              "channel %" PRIu64 " to partition %" PRIu32 " was not mapped in time",
                              partition->channels[i].channel_id, partition->number);
            close_slot(s, partition, i);
        }
    }
    return due;
}

/* ---- what clients ask for ---- */

/* Those that its worker has not let go of yet count. */
static uint32_t channels_of(const struct partition *partition, uid_t uid)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < partition->slots_end; i++)
        count += partition->slots[i].state != SLOT_FREE && partition->region->channels[i].uid == uid;
    return count;
}

/* Where there are few descriptors: is there one for another channel of this user? Nobody has more than half of them.
 * Else sets the text. */
static bool spare_descriptor(const struct supervisor *s, uid_t uid, char *text, size_t size)
{
    unsigned count = 0, own = 0;

    for (uint32_t p = 0; p < s->partition_count; p++) {
        count += s->partitions[p].slots_used;
        own += channels_of(&s->partitions[p], uid);
    }
    if (count >= s->channels_in_all)
        snprintf(text, size, "the node has %u channels, the most that its limit of open descriptors allows", count);
    else if (own >= (s->channels_in_all + 1) / 2)
        snprintf(text, size,
                 "user %u has %u channels, half of what the node's limit of open descriptors allows, which is the most "
                 "one user may have",
                 (unsigned)uid, own);
    else
        return true;
    return false;
}

/* Why not, or NULL; *ring_bytes becomes what it will have. */
static const char *check_request(const struct supervisor *s, uid_t uid, uint32_t partition, uint64_t *ring_bytes,
                                 char *text, size_t size, enum mr_status *status)
{
    uint64_t most = s->options->ring_bytes;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t least = page > MR_RING_BYTES_MIN ? page : MR_RING_BYTES_MIN;

    *status = MR_INVALID;
    if (partition < 1 || partition > s->partition_count) {
        snprintf(text, size, "there is no partition %" PRIu32 ": the node has 1 to %" PRIu32, partition,
                 s->partition_count);
        return text;
    }
    if (*ring_bytes == 0)
        *ring_bytes = most;
    if (*ring_bytes < least || *ring_bytes > most || (*ring_bytes & (*ring_bytes - 1)) != 0) {
        snprintf(text, size, "a ring cannot have %" PRIu64 " bytes: a power of two from %" PRIu64 " to %" PRIu64,
                 *ring_bytes, least, most);
        return text;
    }
    *status = MR_UNAVAILABLE;
    if (s->partitions[partition - 1].slots_used >= s->channels_max) {
        snprintf(text, size, "partition %" PRIu32 " has %u channels, the most it may have", partition, s->channels_max);
        return text;
    }
    if (s->few_descriptors && !spare_descriptor(s, uid, text, size))
        return text;
    if (channels_of(&s->partitions[partition - 1], uid) >= s->options->user_channels) {
        snprintf(text, size,
                 "user %u has %" PRIu32 " channels to partition %" PRIu32
                 ", the most one user may have (--user-channels)",
                 (unsigned)uid, s->options->user_channels, partition);
        return text;
    }
    return NULL;
}

/* Fills the three tables. The channel's number, which tells the region's slot from a free one, last. */
static int fill_slot(struct supervisor *s, struct partition *partition, uint32_t i, struct connection *connection,
                     uint64_t ring_bytes, struct mr_error *error)
{
    struct region_channel *region = &partition->region->channels[i];
    uint64_t channel_id = channel_ids_next(&s->ids, error);

    if (channel_id == 0 || channel_create(&partition->channels[i], partition->number, channel_id, ring_bytes,
                                          connection->wake, error) != 0) {
        memset(&partition->channels[i], 0, sizeof(partition->channels[i]));
        return -1;
    }
    region->uid = connection->uid;
    region->pid = (int32_t)connection->pid;
    region->connection = connection_name(connection);
    memset(region->pair, 0, sizeof(region->pair));
    atomic_store_explicit(&region->current, 0, memory_order_relaxed);
    if (atomic_load_explicit(&region->sessions.any, memory_order_relaxed) != 0) /* the former tenant's */
        memset(&region->sessions, 0, sizeof(region->sessions));
    region->channel_id = channel_id;
    partition->slots[i] = (struct slot){.state = SLOT_OPENING,
                                        .added = partition->pid == 0,
                                        .connection = connection,
                                        .map_by = s->now + s->handshake_limit};
    if (partition->slots[i].map_by < s->handshake_due)
        s->handshake_due = partition->slots[i].map_by;
    partition->slots_used++;
    if (i >= partition->slots_end)
        partition->slots_end = i + 1;
    connection->channels++;
    return 0;
}

void slots_open(struct supervisor *s, struct connection *connection, uint32_t number, uint64_t ring_bytes)
{
    char text[160];
    struct mr_error error;
    enum mr_status status;
    uint32_t i = 0;

    if (s->stopping)
        return; /* the end of the connection is near, and tells whoever can wait for the next node to do so */
    const char *why = check_request(s, connection->uid, number, &ring_bytes, text, sizeof(text), &status);

    if (why != NULL) {
        connection_refuse(s, connection, status, false, "%s", why);
        return;
    }
    struct partition *partition = &s->partitions[number - 1];
    while (partition->slots[i].state != SLOT_FREE)
        i++;
    if (fill_slot(s, partition, i, connection, ring_bytes, &error) != 0) {
        supervisor_complain(s, "no channel for the client with pid %d: %s", (int)connection->pid, error.text);
        connection_refuse(s, connection, MR_UNAVAILABLE, false, "%s", error.text);
        return;
    }
    send_channel(s, connection, &partition->channels[i]);
    if (partition->pid != 0) {
        partition->slots[i].owed = CONTROL_ADD;
        partition->owes = true;
        workers_pay(s, partition);
    }
}

static bool find(struct supervisor *s, const struct connection *connection, uint64_t channel_id,
                 struct partition **partition, uint32_t *i)
{
    for (uint32_t p = 0; p < s->partition_count; p++)
        for (uint32_t slot = 0; slot < s->partitions[p].slots_end; slot++)
            if (s->partitions[p].slots[slot].connection == connection &&
                s->partitions[p].channels[slot].channel_id == channel_id) {
                *partition = &s->partitions[p];
                *i = slot;
                return true;
            }
    return false;
}

void slots_client_mapped(struct supervisor *s, struct connection *connection, uint64_t channel_id)
{
    struct partition *partition;
    uint32_t i;

    if (!find(s, connection, channel_id, &partition, &i))
        return;
    partition->slots[i].mapped = true;
    open_if_mapped(s, partition, i);
}

void slots_client_closes(struct supervisor *s, struct connection *connection, uint64_t channel_id)
{
    struct partition *partition;
    uint32_t i;

    if (find(s, connection, channel_id, &partition, &i))
        close_slot(s, partition, i);
}

void slots_connection_ends(struct supervisor *s, struct connection *connection)
{
    for (uint32_t p = 0; p < s->partition_count && connection->channels > 0; p++)
        for (uint32_t i = 0; i < s->partitions[p].slots_end && connection->channels > 0; i++)
            if (s->partitions[p].slots[i].connection == connection)
                close_slot(s, &s->partitions[p], i);
}

/* ---- what workers say, and their deaths ---- */

static bool is_tenant(const struct partition *partition, uint32_t i, uint64_t channel_id)
{
    return i < partition->slots_end && partition->slots[i].state != SLOT_FREE &&
           partition->channels[i].channel_id == channel_id;
}

bool slots_user_ended(struct supervisor *s, struct partition *partition, uint32_t i, uint64_t channel_id)
{
    if (!is_tenant(partition, i, channel_id) || partition->slots[i].connection == NULL)
        return true;
    return connection_ended(s, partition->slots[i].connection);
}

void slots_worker_added(struct supervisor *s, struct partition *partition, uint32_t i, uint64_t channel_id)
{
    if (!is_tenant(partition, i, channel_id))
        return;
    partition->slots[i].added = true;
    open_if_mapped(s, partition, i);
}

void slots_worker_closed(struct supervisor *s, struct partition *partition, uint32_t i, uint64_t channel_id,
                         const char *why)
{
    if (!is_tenant(partition, i, channel_id))
        return;
    if (partition->slots[i].state == SLOT_CLOSING) {
        free_slot(partition, i);
        return;
    }
    supervisor_complain(s, "partition %" PRIu32 " closed channel %" PRIu64 " of the client with pid %d: %s",
                        partition->number, channel_id, (int)partition->region->channels[i].pid, why);
    /* The worker has marked it, but perhaps before it was opened. */
    mark_page_closed(&partition->channels[i], why);
    end_slot(s, partition, i, why);
}

void slots_worker_ended(struct supervisor *s, struct partition *partition)
{
    for (uint32_t i = partition->slots_end; i-- > 0;) {
        struct slot *slot = &partition->slots[i];
        slot->owed = 0;
        if (slot->state == SLOT_CLOSING) {
            free_slot(partition, i);
        } else if (slot->state == SLOT_OPENING) {
            slot->added = true;
            open_if_mapped(s, partition, i);
        }
    }
}

void slots_poisoned(struct supervisor *s, struct partition *partition, uint64_t channel_id, const char *why)
{
    for (uint32_t i = 0; i < partition->slots_end; i++) {
        if (!is_tenant(partition, i, channel_id))
            continue;
        mark_page_closed(&partition->channels[i], why);
        logline(LOGLINE_ERROR, partition->number, "channel %" PRIu64 " of the client with pid %d is closed: %s",
                channel_id, (int)partition->region->channels[i].pid, why);
        end_slot(s, partition, i, why);
        return;
    }
}

/* False: no room in the worker's socket. */
static bool pay_slot(struct supervisor *s, struct partition *partition, uint32_t i)
{
    struct slot *slot = &partition->slots[i];
    const struct channel *channel = &partition->channels[i];
    struct control_message message = {
        .kind = slot->owed, .slot = i, .channel_id = channel->channel_id, .ring_bytes = channel->ring_bytes};
    int fds[CONTROL_FDS] = {channel->memory_fd, channel->node_wake_fd, channel->client_wake_fd};

    switch (workers_send(s, partition, &message, fds, slot->owed == CONTROL_ADD ? CONTROL_FDS : 0)) {
    case CONTROL_SENT:
        slot->owed = 0;
        return true;
    case CONTROL_NO_ROOM:
        return false;
    case CONTROL_FAILED:
        if (slot->owed == CONTROL_ADD)
            end_slot(s, partition, i, "the node cannot hand it to the partition's worker; try again later");
        else
            slot->owed = 0; /* the worker is being killed, and takes it along */
        return true;
    }
    return true;
}

bool slots_pay(struct supervisor *s, struct partition *partition)
{
    for (uint32_t i = 0; i < partition->slots_end; i++)
        if (partition->slots[i].owed != 0 && !pay_slot(s, partition, i))
            return false;
    return true;
}

void slots_end(struct partition *partition, const char *why)
{
    for (uint32_t i = partition->slots_end; i-- > 0;) {
        if (partition->slots[i].state == SLOT_FREE)
            continue;
        mark_page_closed(&partition->channels[i], why);
        detach(&partition->slots[i]);
        free_slot(partition, i);
    }
}
