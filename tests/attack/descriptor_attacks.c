/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks on the descriptors that the hand-shake gives: the channel's memory, and the eventfds of both ways. */
#include "tests/attack/attacker.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#undef MAP_TYPE /* of a service */
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/wait.h"

/* Polls of one bell. With ten times as many, what kernel threads do on any core when their ring ends is all that is to
 * be seen. */
#define EARS 3000
#define EARS_AT_ONCE 512 /* that are submitted */
#define NESTS 400        /* epoll instances that watch it */

static void must_fail(struct attacker *attacker, bool done, const char *what)
{
    if (done)
        attacker_fail(attacker, "%s is allowed", what);
}

/* ---- what wakes whom ---- */

static bool can(int fd, short events)
{
    struct pollfd look = {.fd = fd, .events = events};

    return poll(&look, 1, 0) == 1 && (look.revents & events) != 0;
}

static void drain(int fd)
{
    uint64_t number;

    if (can(fd, POLLIN) && read(fd, &number, sizeof(number)) < 0)
        return; /* the worker, or nobody, was there first: nothing is lost */
}

/* To the brim: one more would block, or be refused. */
static void fill(struct attacker *attacker, int fd)
{
    uint64_t most = UINT64_MAX - 1;

    drain(fd);
    int flags = fcntl(fd, F_GETFL);
    if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        attacker_fail(attacker, "an eventfd's flags cannot be set");
    for (uint64_t step = most; step > 0; step /= 2)
        while (write(fd, &step, sizeof(step)) == sizeof(step) && step > 1)
            ;
    (void)fcntl(fd, F_SETFL, flags);
}

static void set_blocking(int fd, bool blocking)
{
    int flags = fcntl(fd, F_GETFL);

    (void)fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

static unsigned node_eventfd_misused(struct attacker *attacker)
{
    int fd = attacker->channel.node_wake_fd;

    set_blocking(fd, draw(attacker, 2) == 0);
    switch (draw(attacker, 3)) {
    case 0:
        drain(fd);
        break;
    case 1:
        fill(attacker, fd);
        break;
    default:
        set_blocking(fd, true);
        break;
    }
    return STAYS;
}

/* Everything that its client can do with what wakes it, while the worker does. Filling it, and reading it, it must not
 * be able to: with O_NONBLOCK going on and off, it would be the worker who blocks. */
static unsigned bell_misused(struct attacker *attacker)
{
    struct channel_page *page = attacker->channel.page;
    struct meddler *meddler = &attacker->meddler;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT};
    int bell = attacker->client.wake, nest = epoll_create1(EPOLL_CLOEXEC);

    fill(attacker, bell);
    (void)epoll_ctl(bell, EPOLL_CTL_ADD, attacker->channel.node_wake_fd, &event);
    (void)epoll_ctl(bell, EPOLL_CTL_ADD, attacker->client.socket, &event);
    (void)epoll_ctl(nest, EPOLL_CTL_ADD, bell, &event);
    (void)epoll_ctl(bell, EPOLL_CTL_ADD, nest, &event); /* a circle */
    must_fail(attacker, epoll_ctl(bell, EPOLL_CTL_DEL, (int)draw(attacker, 64) + 64, NULL) == 0, "taking a watch away");
    attacker->leaves_bell = true; /* from now on it always looks as if it rang */
    meddler->descriptor = bell;
    meddler_start(meddler, MEDDLE_BLOCKING);
    for (uint64_t times = 1 + draw(attacker, 50); times > 0; times--) {
        atomic_store(&page->response.reader_sleeps, 1);
        if (!attacker_settled(attacker))
            break;
    }
    meddler_stop(meddler);
    close(nest);
    return draw(attacker, 2) == 0 ? LEAVE_ALL : STAYS;
}

/* Polls of its bell, kept by a ring and by nobody who waits. False: it may have none. */
static bool listen_by_ring(struct attacker *attacker, unsigned count)
{
    static struct io_uring ring;
    static bool made;
    struct io_uring_params params = {.flags = IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER};

    if (made)
        io_uring_queue_exit(&ring); /* of a connection that is over */
    made = io_uring_queue_init_params(EARS_AT_ONCE, &ring, &params) == 0;
    if (!made)
        return false;
    while (count-- > 0) {
        struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
        if (entry == NULL && io_uring_submit(&ring) > 0)
            entry = io_uring_get_sqe(&ring);
        if (entry == NULL)
            break; /* as many as there may be */
        io_uring_prep_poll_multishot(entry, attacker->client.wake, POLLIN);
    }
    (void)io_uring_submit(&ring);
    return true;
}

/* Epoll instances that watch it, each a descriptor. */
static void listen_by_nests(struct attacker *attacker)
{
    static int nests[NESTS];
    static unsigned count;
    struct epoll_event event = {.events = EPOLLIN};

    while (count > 0)
        close(nests[--count]);
    while (count < NESTS && (nests[count] = epoll_create1(EPOLL_CLOEXEC)) >= 0)
        if (epoll_ctl(nests[count++], EPOLL_CTL_ADD, attacker->client.wake, &event) != 0)
            break;
}

/* Each time it is woken, the kernel tells all who listen before the worker can go on. */
static unsigned ears_by_the_thousand(struct attacker *attacker)
{
    struct channel_page *page = attacker->channel.page;

    if (!attacker->has_ears && !listen_by_ring(attacker, EARS))
        listen_by_nests(attacker);
    attacker->has_ears = true;
    for (unsigned i = 0; i < 20; i++) {
        atomic_store(&page->response.reader_sleeps, 1);
        if (!attacker_settled(attacker))
            break;
    }
    return STAYS;
}

static unsigned descriptors_closed(struct attacker *attacker)
{
    if (draw(attacker, 2) == 0) {
        close(attacker->channel.node_wake_fd);
        attacker->channel.node_wake_fd = -1;
        return LEAVE_CHANNEL;
    }
    close(attacker->client.wake);
    attacker->client.wake = -1;
    atomic_store(&attacker->channel.page->response.reader_sleeps, 1);
    (void)attacker_settled(attacker);
    return LEAVE_ALL;
}

static unsigned storm_of_wake_ups(struct attacker *attacker)
{
    struct meddler *meddler = &attacker->meddler;

    set_blocking(attacker->channel.node_wake_fd, false);
    meddler->descriptor = attacker->channel.node_wake_fd;
    meddler_start(meddler, MEDDLE_BELL);
    for (unsigned i = 0; i < 20 && attacker_settled(attacker); i++)
        ;
    meddler_stop(meddler);
    return STAYS;
}

/* ---- the memory ---- */

static void try_to_map(struct attacker *attacker, int fd, const char *what)
{
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    must_fail(attacker, at != MAP_FAILED, what);
    at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return;
    must_fail(attacker, mprotect(at, 4096, PROT_READ | PROT_WRITE) == 0, what);
    munmap(at, 4096);
}

static unsigned memory_of_an_open_channel(struct attacker *attacker)
{
    int fd = attacker->channel.memory_fd;
    off_t size = (off_t)channel_memory_bytes(RING);
    char path[64];

    for (unsigned i = 0; i < 50; i++) {
        must_fail(attacker, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) == 0, "punching a hole");
        must_fail(attacker, madvise(attacker->channel.page, 4096, MADV_REMOVE) == 0, "removing a page");
    }
    must_fail(attacker, ftruncate(fd, (off_t)draw(attacker, (uint64_t)size)) == 0, "cutting the memory off");
    must_fail(attacker, ftruncate(fd, size + 1 + (off_t)draw(attacker, 1 << 20)) == 0, "making the memory larger");
    must_fail(attacker, fallocate(fd, 0, size, 4096) == 0, "allocating behind the memory");
    must_fail(attacker, pwrite(fd, "x", 1, (off_t)draw(attacker, (uint64_t)size)) == 1, "writing to the memory");
    must_fail(attacker, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0, "one more seal");
    try_to_map(attacker, fd, "mapping the memory for writing");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    if (again >= 0) {
        try_to_map(attacker, again, "mapping the memory, opened anew, for writing");
        must_fail(attacker, ftruncate(again, 0) == 0, "cutting the memory, opened anew, off");
        close(again);
    }
    return STAYS;
}

/* Before it is sealed the client may do much with the memory; the worker may already have it. */
static void meddle_early(struct attacker *attacker, int fd)
{
    static const int seals[] = {F_SEAL_SEAL, F_SEAL_FUTURE_WRITE, F_SEAL_WRITE, F_SEAL_GROW};
    uint8_t noise[4096];

    switch (draw(attacker, 5)) {
    case 0:
        (void)fcntl(fd, F_ADD_SEALS, seals[draw(attacker, 4)]);
        return;
    case 1:
        draw_bytes(attacker, noise, sizeof(noise));
        if (pwrite(fd, noise, sizeof(noise), 0) < 0)
            return; /* sealed: then it was too late */
        return;
    case 2:
        must_fail(attacker, ftruncate(fd, (off_t)draw(attacker, 100)) == 0, "cutting the memory off");
        return;
    default:
        attacker->meddler.descriptor = fd;
        meddler_start(&attacker->meddler, MEDDLE_PUNCH);
        return;
    }
}

/* The answer to a channel's hand-shake is whatever it is, but it comes, and nobody else notices. */
static unsigned memory_of_a_channel_that_opens(struct attacker *attacker)
{
    struct stub_client client;
    struct heard heard;
    uint64_t id;

    attacker_greet(attacker, &client);
    stub_ask_channel(&client, 1, RING);
    heard = attacker_hear(attacker, &client, attacker->board->wait_ms);
    if (heard.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL) {
        struct heard answer;
        id = heard.id;
        meddle_early(attacker, heard.fds[0]);
        stub_say_mapped(&client, id);
        answer = attacker_hear(attacker, &client, attacker->board->wait_ms);
        if (answer.over || (answer.what != MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED &&
                            answer.what != MILLRACE__V1__NODE_MESSAGE__MESSAGE_REFUSED))
            attacker_fail(attacker, "the node says (message %u): %s", answer.what, answer.text);
        meddler_stop(&attacker->meddler);
        if (answer.what == MILLRACE__V1__NODE_MESSAGE__MESSAGE_CHANNEL_OPENED)
            must_fail(attacker, fallocate(heard.fds[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0,
                      "punching a hole");
        heard_close(&answer);
    }
    heard_close(&heard);
    stub_disconnect(&client);
    return ELSEWHERE;
}

const struct attack descriptor_attacks[] = {{"node's eventfd misused", 10, node_eventfd_misused},
                                            {"bell misused", 6, bell_misused},
                                            {"ears by the thousand", 1, ears_by_the_thousand},
                                            {"descriptors closed", 3, descriptors_closed},
                                            {"storm of wake-ups", 5, storm_of_wake_ups},
                                            {"memory of an open channel", 8, memory_of_an_open_channel},
                                            {"memory of a channel that opens", 6, memory_of_a_channel_that_opens},
                                            {NULL, 0, NULL}};
