/* SPDX-License-Identifier: Apache-2.0 */
/* The shadow: a second state machine that is given the same entries once, and never dies, is never restored and never
 * written down. What it answers is what clients must read; what it holds is what a recovered worker must hold. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/services/types.h"
#include "proto/reader.h"
#include "proto/writer.h"
#include "tests/sim/sim.h"

struct bytes {
    uint8_t *data;
    size_t size, capacity;
};

static struct op *find_numbered(struct sim *sim, uint64_t session_id, uint64_t sequence_num)
{
    for (struct session_view *session = sim->sessions; session != NULL; session = session->next)
        if (session->true_id == session_id && sequence_num < session->next_number)
            return session->ops[sequence_num - 1];
    violation("an answer for command %llu of session %llu, which nobody has sent", (unsigned long long)sequence_num,
              (unsigned long long)session_id);
}

static uint64_t hash_of(const struct fsm_answer *answer)
{
    static uint8_t room[65536];
    uint8_t *to = room;
    mr_assert(answer->size <= sizeof room);
    for (size_t i = 0; i < answer->part_count; i++)
        to = write_bytes(to, answer->parts[i]);
    mr_assert(to == room + answer->size);
    return XXH3_64bits(room, answer->size);
}

static void keep_output(struct op *op, const struct fsm_answer *answer)
{
    uint64_t hash = hash_of(answer);
    if (answer->number <= op->output_count) {
        if (op->outputs[answer->number - 1].hash != hash)
            violation("output %llu of op %llu was another before", (unsigned long long)answer->number,
                      (unsigned long long)op->number);
        return;
    }
    if (answer->number != op->output_count + 1)
        violation("output %llu of op %llu follows on %u", (unsigned long long)answer->number,
                  (unsigned long long)op->number, op->output_count);
    op->outputs = run_grow(op->outputs, op->output_count, &op->output_capacity, sizeof *op->outputs);
    op->outputs[op->output_count++] = (struct output){.hash = hash, .last = answer->last};
}

static bool take_answer(void *context, const struct fsm_route *route, const struct fsm_answer *answer)
{
    struct sim *sim = context;
    if (answer->status == STATUS_OK && answer->number != 0) {
        keep_output(find_numbered(sim, answer->session_id, answer->sequence_num), answer);
        return true;
    }
    struct sim_channel *channel = node_find_channel(sim, route->channel);
    struct send *send = channel == NULL ? NULL : client_find_send(channel, route->position);
    if (send == NULL)
        violation("an answer for nobody");
    send->status = answer->status;
    send->hash = answer->status == STATUS_OK ? hash_of(answer) : 0;
    return true;
}

void shadow_begin(struct sim *sim)
{
    enum owner before = life_owner(OWNER_SHADOW);
    life_drop(OWNER_SHADOW);
    struct fsm_config config = {
        .hash_seed = 11, .session_output_limit = sim->plan.output_limit, .types = service_types};
    sim->shadow = fsm_create(&config);
    life_owner(before);
}

void shadow_apply(struct sim *sim, struct send *send, uint64_t index, uint64_t time)
{
    struct partition_command_input input;
    struct fsm_entry entry = {.index = index, .time = time};
    struct fsm_sink sink = {.context = sim, .answer = take_answer};
    enum owner before = life_owner(OWNER_SHADOW);
    if (send != NULL) {
        mr_assert(read_partition_command_input(send->op->bytes, send->op->size, &input) == READ_OK);
        entry.command = &input.command;
        entry.uid = send->uid;
        entry.route = (struct fsm_route){.channel = send->channel, .position = send->position};
    }
    fsm_apply(sim->shadow, &entry, &sink);
    life_owner(before);
}

static void keep_bytes(void *context, const void *data, size_t size)
{
    struct bytes *bytes = context;
    if (bytes->size + size > bytes->capacity) {
        bytes->capacity = 2 * (bytes->size + size) + 4096;
        bytes->data = realloc(bytes->data, bytes->capacity);
        mr_assert(bytes->data != NULL);
    }
    if (size > 0)
        memcpy(bytes->data + bytes->size, data, size);
    bytes->size += size;
}

void shadow_compare(struct sim *sim)
{
    static struct bytes worker, shadow;
    worker.size = shadow.size = 0;
    fsm_dump(sim->node.worker.fsm, keep_bytes, &worker);
    enum owner before = life_owner(OWNER_SHADOW);
    fsm_dump(sim->shadow, keep_bytes, &shadow);
    life_owner(before);
    size_t same = 0;
    while (same < worker.size && same < shadow.size && worker.data[same] == shadow.data[same])
        same++;
    if (worker.size != shadow.size || same != worker.size)
        violation("the recovered state, of %zu bytes, is another than the one that was never restored, of %zu: from "
                  "byte %zu on",
                  worker.size, shadow.size, same);
}
