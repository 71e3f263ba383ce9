/* SPDX-License-Identifier: Apache-2.0 */
/* Doubly linked lists with links embedded in what is listed. A head is a link too, alone when it points at itself. */
#ifndef ENGINE_FSM_LIST_H
#define ENGINE_FSM_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

/* The struct of `type` whose `member` is at `pointer`. */
#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void list_init(struct list *head)
{
    head->prev = head->next = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_append(struct list *head, struct list *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = link->next = link;
}

/* `to` takes the place of `from` in its list. */
static inline void list_replace(struct list *from, struct list *to)
{
    *to = *from;
    to->prev->next = to->next->prev = to;
}

/* Moves all that hangs on `from` to the empty head `to`. */
static inline void list_take(struct list *to, struct list *from)
{
    if (list_empty(from)) {
        list_init(to);
        return;
    }
    *to = *from;
    to->next->prev = to;
    to->prev->next = to;
    list_init(from);
}

#endif
