/* SPDX-License-Identifier: Apache-2.0 */
/* In a program's own event loop: one descriptor for the node beside others (here a timer that asks for ten increments
 * every ten milliseconds). Before each sleep mr_arm() is asked; it says no if there is something to run for already. */
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <millrace/counter.h>

#define TICKS 10
#define PER_TICK 10

static int64_t total;
static int open_requests;
static int failed;

static void answered(mr_client *client, const struct mr_result *result)
{
    (void)client;
    open_requests--;
    if (result->status == MR_OK)
        total = result->as.number;
    else
        failed = 1;
}

static int add(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static enum mr_status tick(int timer, mr_counter *counter)
{
    uint64_t times = 0;
    enum mr_status status = MR_OK;

    if (read(timer, &times, sizeof(times)) != sizeof(times))
        return MR_OK;
    for (int i = 0; i < PER_TICK && status == MR_OK; i++) {
        status = mr_counter_increment_start(counter, 1, (struct mr_then){answered, NULL}, NULL);
        open_requests += status == MR_OK;
    }
    return status;
}

static enum mr_status loop(mr_client *client, mr_counter *counter, int epoll, int timer)
{
    enum mr_status status;
    int ticks = 0;

    while (ticks < TICKS || open_requests > 0) {
        struct epoll_event event;
        status = mr_arm(client); /* publishes, too */
        if (status != MR_OK && status != MR_AGAIN)
            return status;
        int ready = epoll_wait(epoll, &event, 1, status == MR_AGAIN ? 0 : -1);
        if (ready == 1 && event.data.fd == timer && ticks++ < TICKS && (status = tick(timer, counter)) != MR_OK)
            return status;
        status = mr_run(client, MR_NO_WAIT, NULL);
        if (status != MR_OK && status != MR_AGAIN)
            return status;
    }
    return MR_OK;
}

int main(void)
{
    mr_client *client;
    mr_counter *counter;
    struct itimerspec every = {{0, 10000000}, {0, 10000000}};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int epoll = epoll_create1(0);
    enum mr_status status = mr_connect(NULL, NULL, &client);

    if (status == MR_OK)
        status = mr_counter_open(client, "epoll", &counter);
    if (status == MR_OK &&
        (add(epoll, timer) != 0 || add(epoll, mr_fd(client)) != 0 || timerfd_settime(timer, 0, &every, NULL) != 0)) {
        perror("epoll");
        return 1;
    }
    if (status == MR_OK)
        status = loop(client, counter, epoll, timer);
    if (status != MR_OK)
        fprintf(stderr, "%s: %s\n", mr_status_name(status), mr_message(client));
    else
        printf("%d increments, the counter is at %lld\n", TICKS * PER_TICK, (long long)total);
    mr_close(client);
    return status != MR_OK || failed;
}
