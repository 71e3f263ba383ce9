/* SPDX-License-Identifier: Apache-2.0 */
/* redis-events: PUBLISH to many subscribers, as millrace-bench's `--op events` does it for a map's listeners. Processes
 * of one thread each hold the subscribers' connections, one more process publishes; it keeps no more than `--ahead`
 * messages ahead of the slowest process, because Redis itself holds nobody back (it would cut off who falls behind). An
 * operation is one message delivered to one subscriber; its latency counts from the publisher's clock, which stands in
 * the message.
 *
 * A subscriber's messages all have the same bytes but for the payload, so a process compares the head of each with what
 * it must be and steps over it: no parser of any client library is as cheap. */
#include "bench/compare/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES_MAX 64
#define BUFFER_BYTES (256 << 10)
#define SAMPLE 16 /* one message in so many is timed, as millrace-bench does it */
#define CHANNEL "events"

enum phase { SETTING_UP, WARM_UP, MEASURING, END };

struct options {
    const char *socket;
    unsigned listeners, processes, ahead;
    unsigned size; /* of a message's payload */
    double seconds, warm_up;
};

struct account {
    _Alignas(4096) _Atomic bool ready;
    _Atomic uint64_t deliveries; /* ever */
    _Atomic uint64_t counted;    /* while it was measured */
    _Atomic uint64_t cpu;        /* nanoseconds, as last looked at */
    struct histogram latency;
};

struct shared {
    _Atomic int phase;
    struct account accounts[PROCESSES_MAX + 1]; /* the last one used: the publisher's */
};

static unsigned share_of(const struct options *options, unsigned number)
{
    return options->listeners / options->processes + (number < options->listeners % options->processes);
}

static void wait_for_start(struct shared *shared, struct account *account)
{
    atomic_store(&account->ready, true);
    while (atomic_load(&shared->phase) == SETTING_UP)
        usleep(1000);
}

/* ---- listening ---- */

struct subscriber {
    int connection;
    size_t held; /* bytes of a message that has not come whole yet */
    char *buffer;
};

struct frame {
    char head[128];
    size_t head_size, size; /* size: of the whole message */
};

static void subscribe(struct subscriber *subscriber, const char *path)
{
    static const char command[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$6\r\n" CHANNEL "\r\n";
    static const char answer[] = "*3\r\n$9\r\nsubscribe\r\n$6\r\n" CHANNEL "\r\n:1\r\n";

    *subscriber = (struct subscriber){.connection = redis_connect(path), .buffer = malloc(BUFFER_BYTES)};
    if (subscriber->buffer == NULL)
        redis_die("no memory");
    redis_write(subscriber->connection, command, sizeof(command) - 1);
    while (subscriber->held < sizeof(answer) - 1)
        subscriber->held += redis_read(subscriber->connection, subscriber->buffer + subscriber->held,
                                       sizeof(answer) - 1 - subscriber->held);
    if (memcmp(subscriber->buffer, answer, sizeof(answer) - 1) != 0)
        redis_die("Redis did not take the subscription");
    subscriber->held = 0;
    if (fcntl(subscriber->connection, F_SETFL, O_NONBLOCK) != 0)
        redis_die("cannot set a socket up: %s", strerror(errno));
}

/* The clock, which stands in *now, is read once for what has come to all subscribers at once. */
static void take(struct subscriber *subscriber, const struct frame *frame, struct account *account, bool measuring,
                 uint64_t *now)
{
    size_t end = subscriber->held + redis_read(subscriber->connection, subscriber->buffer + subscriber->held,
                                               BUFFER_BYTES - subscriber->held);
    size_t at = 0;
    static unsigned untimed;
    uint64_t taken = 0, started;

    for (; end - at >= frame->size; at += frame->size, taken++) {
        if (memcmp(subscriber->buffer + at, frame->head, frame->head_size) != 0)
            redis_die("a message is not what was published");
        memcpy(&started, subscriber->buffer + at + frame->head_size, sizeof(started));
        if (!measuring || ++untimed % SAMPLE != 0)
            continue;
        if (*now <= started) /* it came later than what came first */
            *now = redis_now();
        histogram_add(&account->latency, *now - started);
    }
    memmove(subscriber->buffer, subscriber->buffer + at, end - at);
    subscriber->held = end - at;
    atomic_store(&account->deliveries, atomic_load(&account->deliveries) + taken);
    if (measuring)
        atomic_store(&account->counted, atomic_load(&account->counted) + taken);
}

static void listen_for(const struct options *options, struct shared *shared, unsigned number)
{
    struct account *account = &shared->accounts[number];
    unsigned count = share_of(options, number);
    struct subscriber *subscribers = calloc(count + 1, sizeof(*subscribers));
    struct epoll_event events[64];
    struct frame frame;
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    frame.head_size = (size_t)snprintf(frame.head, sizeof(frame.head),
                                       "*3\r\n$7\r\nmessage\r\n$6\r\n" CHANNEL "\r\n$%u\r\n", options->size);
    frame.size = frame.head_size + options->size + 2;
    if (subscribers == NULL || epoll < 0)
        redis_die("cannot begin: %s", strerror(errno));
    for (unsigned n = 0; n < count; n++) {
        struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = &subscribers[n]};
        subscribe(&subscribers[n], options->socket);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, subscribers[n].connection, &wanted) != 0)
            redis_die("epoll: %s", strerror(errno));
    }
    wait_for_start(shared, account);
    while (atomic_load(&shared->phase) != END) {
        int ready = epoll_wait(epoll, events, 64, 100);
        bool measuring = atomic_load(&shared->phase) == MEASURING;
        uint64_t now = 0;
        for (int n = 0; n < ready; n++)
            take(events[n].data.ptr, &frame, account, measuring, &now);
        atomic_store(&account->cpu, redis_cpu());
    }
}

/* ---- publishing ---- */

/* The messages of which every process has had all deliveries. */
static uint64_t slowest(const struct options *options, const struct shared *shared)
{
    uint64_t least = UINT64_MAX;

    for (unsigned n = 0; n < options->processes; n++) {
        unsigned share = share_of(options, n);
        uint64_t messages = share > 0 ? atomic_load(&shared->accounts[n].deliveries) / share : UINT64_MAX;
        least = messages < least ? messages : least;
    }
    return least;
}

/* Answers are the number of subscribers that a message went to. */
static unsigned take_answers(int connection, unsigned listeners)
{
    static char buffer[4096];
    static size_t held;
    char wanted[32];
    size_t size = (size_t)snprintf(wanted, sizeof(wanted), ":%u\r\n", listeners), at = 0;
    unsigned answers = 0;

    held += redis_read(connection, buffer + held, sizeof(buffer) - held);
    for (; held - at >= size; at += size, answers++)
        if (memcmp(buffer + at, wanted, size) != 0)
            redis_die("a message did not go to all %u subscribers", listeners);
    memmove(buffer, buffer + at, held - at);
    held -= at;
    return answers;
}

static void publish(const struct options *options, struct shared *shared)
{
    struct account *account = &shared->accounts[options->processes];
    char head[128];
    size_t head_size =
        (size_t)snprintf(head, sizeof(head), "*3\r\n$7\r\nPUBLISH\r\n$6\r\n" CHANNEL "\r\n$%u\r\n", options->size);
    size_t size = head_size + options->size + 2;
    char *buffer = calloc(options->ahead, size);
    uint64_t published = 0;
    unsigned in_flight = 0;
    int connection = redis_connect(options->socket);

    if (buffer == NULL || fcntl(connection, F_SETFL, O_NONBLOCK) != 0)
        redis_die("cannot begin: %s", strerror(errno));
    wait_for_start(shared, account);
    while (atomic_load(&shared->phase) != END) {
        char *end = buffer;
        while (published < slowest(options, shared) + options->ahead && in_flight < options->ahead) {
            uint64_t now = redis_now();
            memcpy(end, head, head_size);
            memcpy(end + head_size, &now, sizeof(now));
            memcpy(end + size - 2, "\r\n", 2);
            end += size;
            published++;
            in_flight++;
        }
        redis_write(connection, buffer, (size_t)(end - buffer));
        if (in_flight == 0)
            sched_yield(); /* to the listeners, who may have this core */
        struct pollfd ready = {.fd = connection, .events = POLLIN};
        if (poll(&ready, 1, in_flight > 0 ? 1 : 0) > 0)
            in_flight -= take_answers(connection, options->listeners);
        atomic_store(&account->cpu, redis_cpu());
    }
}

/* ---- the parent ---- */

static void start(const struct options *options, struct shared *shared, pid_t *pids)
{
    for (unsigned n = 0; n <= options->processes; n++) {
        pids[n] = fork();
        if (pids[n] < 0)
            redis_die("cannot fork: %s", strerror(errno));
        if (pids[n] > 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (n < options->processes)
            listen_for(options, shared, n);
        else
            publish(options, shared);
        _exit(0);
    }
    for (unsigned n = 0; n <= options->processes; n++)
        while (!atomic_load(&shared->accounts[n].ready)) {
            if (waitpid(pids[n], NULL, WNOHANG) != 0)
                exit(1);
            usleep(1000);
        }
}

static void measure(const struct options *options, struct shared *shared, struct redis_figures *figures)
{
    uint64_t cpu = 0;

    atomic_store(&shared->phase, WARM_UP);
    usleep((useconds_t)(options->warm_up * 1e6));
    for (unsigned n = 0; n <= options->processes; n++)
        cpu += atomic_load(&shared->accounts[n].cpu);
    uint64_t begun = redis_now();
    atomic_store(&shared->phase, MEASURING);
    usleep((useconds_t)(options->seconds * 1e6));
    for (unsigned n = 0; n < options->processes; n++)
        figures->operations += atomic_load(&shared->accounts[n].counted);
    figures->seconds = (double)(redis_now() - begun) / 1e9;
    for (unsigned n = 0; n <= options->processes; n++)
        figures->cpu += atomic_load(&shared->accounts[n].cpu);
    figures->cpu -= cpu;
    atomic_store(&shared->phase, END);
}

int main(int argc, char **argv)
{
    static struct redis_figures figures;
    struct options options = {.listeners = 100, .processes = 4, .ahead = 50, .size = 100, .seconds = 5, .warm_up = 1};
    pid_t pids[PROCESSES_MAX + 1];
    bool well = true;

    redis_options(argc, argv, "redis-events", &options.socket,
                  (const struct redis_option[]){{"listeners", &options.listeners, NULL, 1, 10000},
                                                {"processes", &options.processes, NULL, 1, PROCESSES_MAX},
                                                {"ahead", &options.ahead, NULL, 1, 100000},
                                                {"size", &options.size, NULL, 8, 100000},
                                                {"seconds", NULL, &options.seconds, 0.01, 3600},
                                                {"warm-up", NULL, &options.warm_up, 0, 3600},
                                                {.name = NULL}});
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        redis_die("no memory");
    start(&options, shared, pids);
    measure(&options, shared, &figures);
    for (unsigned n = 0; n <= options.processes; n++) {
        int status;
        if (waitpid(pids[n], &status, 0) != pids[n] || status != 0)
            well = false;
        if (n < options.processes)
            histogram_merge(&figures.latency, &shared->accounts[n].latency);
    }
    redis_print(&figures);
    return well ? 0 : 1;
}
