/* SPDX-License-Identifier: Apache-2.0 */
/* Services by name, and openings. */
#include "engine/fsm/service_table.h"

#include "engine/fsm/hash.h"
#include "engine/fsm/memory.h"
#include "ipc/error.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_of_names(struct slice name_space, struct slice name, uint64_t seed)
{
    return hash_bytes(name, hash_bytes(name_space, seed));
}

static uint64_t hash_of_service(const struct table_node *node, uint64_t seed)
{
    const struct service *service = container_of(node, struct service, by_name);
    return hash_of_names(service_name_space(service), service_name(service), seed);
}

void service_table_init(struct service_table *table, const struct service_type *const *types, struct service_host host)
{
    *table = (struct service_table){.types = types, .host = host};
    list_init(&table->order);
    table_init(&table->by_name, hash_of_service, host.hash_seed);
}

void service_table_free(struct service_table *table)
{
    while (!list_empty(&table->order)) {
        struct service *service = container_of(table->order.next, struct service, order);
        mr_assert(list_empty(&service->openings));
        list_remove(&service->order);
        service->type->destroy(service->state);
        free(service);
    }
    table_free(&table->by_name);
}

const struct service_type *service_table_type(const struct service_table *table, struct slice name)
{
    for (const struct service_type *const *type = table->types; *type != NULL; type++)
        if (strlen((*type)->name) == name.size && memcmp((*type)->name, name.data, name.size) == 0)
            return *type;
    return NULL;
}

struct slice service_name_space(const struct service *service)
{
    return (struct slice){service->names, service->name_space_size};
}

struct slice service_name(const struct service *service)
{
    return (struct slice){service->names + service->name_space_size, service->name_size};
}

static bool equal(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static uint64_t hash_of(const struct service_table *table, const struct service_spec *spec)
{
    return hash_of_names(spec->name_space, spec->name, table->host.hash_seed);
}

struct service *service_table_find(const struct service_table *table, const struct service_spec *spec)
{
    for (struct table_node *node = table_first(&table->by_name, hash_of(table, spec)); node; node = node->next) {
        struct service *service = container_of(node, struct service, by_name);
        if (equal(service_name(service), spec->name) && equal(service_name_space(service), spec->name_space))
            return service;
    }
    return NULL;
}

struct service *service_table_create(struct service_table *table, const struct service_type *type,
                                     const struct service_spec *spec, uint64_t id)
{
    size_t name_space_size = spec->name_space.size;
    struct service *service = memory_zeroed(1, sizeof(*service) + name_space_size + spec->name.size);
    service->id = id;
    service->type = type;
    service->state = type->create(&table->host);
    service->name_space_size = name_space_size;
    service->name_size = spec->name.size;
    if (name_space_size > 0)
        memcpy(service->names, spec->name_space.data, name_space_size);
    if (spec->name.size > 0)
        memcpy(service->names + name_space_size, spec->name.data, spec->name.size);
    list_init(&service->openings);
    table_insert(&table->by_name, &service->by_name, hash_of(table, spec));
    list_append(&table->order, &service->order);
    return service;
}

static uint64_t hash_of_opening(const struct table_node *node, uint64_t seed)
{
    return hash_number(container_of(node, struct opening, by_service)->service->id, seed);
}

void service_openings_begin(struct session *session)
{
    table_init(&session->openings, hash_of_opening, session->hash_seed);
}

struct opening *service_find_opening(struct session *session, uint64_t service_id)
{
    uint64_t hash = hash_number(service_id, session->hash_seed);
    for (struct table_node *node = table_first(&session->openings, hash); node != NULL; node = node->next) {
        struct opening *opening = container_of(node, struct opening, by_service);
        if (opening->service->id == service_id) {
            session->recent = opening;
            return opening;
        }
    }
    return NULL;
}

void service_table_open(struct session *session, struct service *service)
{
    if (service_opening(session, service->id) != NULL)
        return;
    struct opening *opening = memory_zeroed(1, sizeof(*opening));
    list_init(&opening->streams);
    list_init(&opening->cursors);
    opening->session = session;
    opening->service = service;
    table_insert(&session->openings, &opening->by_service, hash_number(service->id, session->hash_seed));
    list_append(&session->openings_list, &opening->of_session);
    list_append(&service->openings, &opening->of_service);
    service->opening_count++;
}

void service_table_close(struct opening *opening)
{
    struct session *session = opening->session;
    mr_assert(list_empty(&opening->streams) && list_empty(&opening->cursors));
    if (session->recent == opening)
        session->recent = NULL;
    table_remove(&session->openings, &opening->by_service);
    list_remove(&opening->of_session);
    list_remove(&opening->of_service);
    opening->service->opening_count--;
    free(opening);
}
