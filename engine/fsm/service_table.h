/* SPDX-License-Identifier: Apache-2.0 */
/* The services of a partition, and which session has which of them open. A service stays when nobody has it open. Knows
 * nothing of commands. */
#ifndef ENGINE_FSM_SERVICE_TABLE_H
#define ENGINE_FSM_SERVICE_TABLE_H

#include "engine/fsm/service.h"
#include "engine/fsm/session.h"

struct service {
    struct table_node by_name; /* among all services */
    struct list order;         /* likewise: by id */
    uint64_t id;               /* index of the command that created it */
    const struct service_type *type;
    void *state;
    struct list openings;
    size_t opening_count;
    size_t name_space_size, name_size;
    uint8_t names[]; /* the namespace, then the name */
};

/* That a session has a service open. */
struct opening {
    struct table_node by_service; /* in the session's openings */
    struct list of_session;
    struct list of_service;
    struct list streams; /* open ones, in the order in which they were opened */
    struct list cursors; /* of queries that are being answered bit by bit */
    struct session *session;
    struct service *service;
};

struct service_table {
    struct table by_name;
    struct list order; /* by id */
    const struct service_type *const *types;
    struct service_host host;
};

void service_table_init(struct service_table *table, const struct service_type *const *types, struct service_host host);
void service_table_free(struct service_table *table); /* all services; nobody has one open any more */

const struct service_type *service_table_type(const struct service_table *table, struct slice name); /* NULL: none */
struct service *service_table_find(const struct service_table *table, const struct service_spec *spec);
struct service *service_table_create(struct service_table *table, const struct service_type *type,
                                     const struct service_spec *spec, uint64_t id);

struct slice service_name_space(const struct service *service);
struct slice service_name(const struct service *service);

void service_openings_begin(struct session *session);                      /* it has none yet */
void service_table_open(struct session *session, struct service *service); /* fine if it is open */
void service_table_close(struct opening *opening); /* it has no open streams and no cursors any more */
struct opening *service_find_opening(struct session *session, uint64_t service_id); /* the slower way of the next */

/* NULL: the session has not opened it. */
static inline struct opening *service_opening(struct session *session, uint64_t service_id)
{
    if (session->recent != NULL && session->recent->service->id == service_id)
        return session->recent;
    return service_find_opening(session, service_id);
}

#endif
